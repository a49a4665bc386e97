//! All of one's data, sent piece by piece.
//!
//! Always true: what is in memory of it is what the tables of people hold about somebody and a page of their orders, however many there
//! are; and one that cannot be read to its end is broken off rather than closed, so that half of it is never taken for the whole.

use actix_web::web::Bytes;
use actix_web::{HttpResponse, web};
use futures_util::{StreamExt, stream};
use serde::Serialize;

use super::show::{DeedShown, Export, OrderAddressKept, ProfileShown, WishKept};
use crate::actors::catalogue::Catalogue;
use crate::actors::order::Orders;
use crate::actors::payment::Payments;
use crate::actors::user::{Kept, Users};
use crate::domain::id::{OrderId, SessionId, UserId};
use crate::domain::order::Order;
use crate::http::abuse::{Abuse, Attempt};
use crate::http::auth::Recent;
use crate::http::cart::CartKept;
use crate::http::delivery::DeliveryKept;
use crate::http::order;
use crate::http::payment::{PaymentKept, RefundShown};
use crate::http::problem::Problem;
use crate::http::refusal::internal;
use crate::http::session::SessionShown;
use crate::http::time::Stamp;

/// Orders of one piece.
const PAGE: u32 = 100;

/// A list that grows with somebody's orders. Each is told by a walk along them of its own.
#[derive(Debug, Clone, Copy)]
enum List {
    Orders,
    Payments,
    Refunds,
    Deliveries,
    Addresses,
}

impl List {
    const ALL: [List; 5] = [List::Orders, List::Payments, List::Refunds, List::Deliveries, List::Addresses];

    /// The member of [`Export`] that it is.
    fn name(self) -> &'static str {
        match self {
            List::Orders => "orders",
            List::Payments => "payments",
            List::Refunds => "refunds",
            List::Deliveries => "deliveries",
            List::Addresses => "order_addresses",
        }
    }
}

/// `GET /v1/users/me/export`.
pub async fn export(
    Recent(caller): Recent,
    abuse: web::Data<Abuse>,
    users: web::Data<Users>,
    orders: web::Data<Orders>,
    payments: web::Data<Payments>,
    catalogue: web::Data<Catalogue>,
) -> Result<HttpResponse, Problem> {
    // To the end: one at a time.
    let mut attempt = abuse.export(caller.user)?;
    if let Err(why) = orders.all_listed().await {
        // Whoever hears that it cannot be whole now comes again.
        attempt.spare();
        return Err(why.into());
    }
    let kept = users.export(caller.user).await;
    attempt.judge(&kept);
    let head = head(kept?, caller.session)?;
    let mut telling = Telling {
        buyer: caller.user,
        orders,
        payments,
        catalogue,
        head,
        list: 0,
        before: None,
        is_empty: true,
        attempt: Some(attempt),
    };
    // What goes wrong here is a problem like any other.
    let first = telling.piece().await?;
    let rest = stream::try_unfold(telling, |mut telling| async move {
        let piece = telling.piece().await?;
        Ok::<_, actix_web::Error>(piece.map(|piece| (piece, telling)))
    });
    let pieces = stream::iter(first.map(Ok::<_, actix_web::Error>)).chain(rest);
    Ok(HttpResponse::Ok().content_type("application/json").streaming(Box::pin(pieces)))
}

/// All of it but the lists, and without the brace at its end.
fn head(kept: Kept, current: SessionId) -> Result<String, Problem> {
    let Kept { user, personal, new_email, sessions, trail, trail_is_whole, wishes, cart } = kept;
    let told = Export {
        new_email,
        locale: personal.locale.as_str(),
        verified_at: user.verified_at.map(Stamp),
        profile: ProfileShown::of(&user, personal),
        sessions: sessions.iter().map(|session| SessionShown::of(session, current)).collect(),
        orders: Vec::new(),
        payments: Vec::new(),
        refunds: Vec::new(),
        deliveries: Vec::new(),
        trail: trail.into_iter().map(DeedShown::from).collect(),
        trail_is_whole,
        wishes: wishes.into_iter().map(WishKept::from).collect(),
        cart: CartKept::from(cart),
        order_addresses: Vec::new(),
    };
    let mut told = serde_json::to_value(told).map_err(|_| internal())?;
    if let Some(members) = told.as_object_mut() {
        members.retain(|name, _| List::ALL.iter().all(|list| list.name() != name));
    }
    let mut text = told.to_string();
    text.pop();
    Ok(text)
}

/// How far it is told.
struct Telling {
    buyer: UserId,
    orders: web::Data<Orders>,
    payments: web::Data<Payments>,
    catalogue: web::Data<Catalogue>,
    /// Until it is told.
    head: String,
    /// Which of the lists, from which order on, and whether nothing stands in it yet.
    list: usize,
    before: Option<OrderId>,
    is_empty: bool,
    attempt: Option<Attempt>,
}

impl Telling {
    /// The next piece, which is never empty.
    async fn piece(&mut self) -> Result<Option<Bytes>, Problem> {
        let mut text = std::mem::take(&mut self.head);
        while let Some(list) = List::ALL.get(self.list).copied() {
            // Whoever takes all of it at once leaves room for others between two pages.
            tokio::task::yield_now().await;
            self.tell(list, &mut text).await?;
            if !text.is_empty() {
                return Ok(Some(Bytes::from(text)));
            }
        }
        Ok(None)
    }

    async fn tell(&mut self, list: List, text: &mut String) -> Result<(), Problem> {
        let (rows, next) = self.page(list).await?;
        if self.before.is_none() {
            for part in [",\"", list.name(), "\":["] {
                text.push_str(part);
            }
            self.is_empty = true;
        }
        for row in rows {
            if !std::mem::take(&mut self.is_empty) {
                text.push(',');
            }
            text.push_str(&row);
        }
        self.before = next;
        if next.is_some() {
            return Ok(());
        }
        text.push(']');
        self.list += 1;
        if self.list == List::ALL.len() {
            text.push('}');
            // Whoever has heard the end may ask once more.
            drop(self.attempt.take());
        }
        Ok(())
    }

    /// Some rows of a list, and where it goes on.
    async fn page(&self, list: List) -> Result<(Vec<String>, Option<OrderId>), Problem> {
        match list {
            List::Orders => {
                let (page, next) = self.some_orders().await?;
                Ok((rows(order::seen_all(&self.payments, &self.catalogue, page).await?)?, next))
            }
            List::Payments => {
                let (page, next) = self.some_orders().await?;
                let paid = self.payments.payments_kept_of(&page).await?;
                Ok((rows(paid.into_iter().map(PaymentKept::from))?, next))
            }
            List::Refunds => {
                let (page, next) = self.some_orders().await?;
                let given_back = self.payments.refunds_kept_of(&page).await?;
                Ok((rows(given_back.into_iter().map(RefundShown::from))?, next))
            }
            List::Deliveries => {
                let (page, next) = self.some_orders().await?;
                let delivered = self.payments.deliveries_kept_of(&page).await?;
                let told = self.orders.with_reasons(self.buyer, delivered).await?;
                Ok((rows(told.into_iter().map(DeliveryKept::from))?, next))
            }
            List::Addresses => {
                let page = self.orders.addresses_of(self.buyer, self.before, PAGE).await?;
                let next = page.last().map(|(order, _)| *order).filter(|_| page.len() == PAGE as usize);
                Ok((rows(page.into_iter().map(OrderAddressKept::from))?, next))
            }
        }
    }

    async fn some_orders(&self) -> Result<(Vec<Order>, Option<OrderId>), Problem> {
        let page = self.orders.list(self.buyer, None, self.before, PAGE).await?;
        let next = page.last().map(|order| order.id).filter(|_| page.len() == PAGE as usize);
        Ok((page, next))
    }
}

fn rows<Shown: Serialize>(shown: impl IntoIterator<Item = Shown>) -> Result<Vec<String>, Problem> {
    shown.into_iter().map(|row| serde_json::to_string(&row).map_err(|_| internal())).collect()
}
