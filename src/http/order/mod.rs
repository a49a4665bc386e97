//! The doors to orders: look at what one would cost, place it, find it again, cancel it.

mod ask;
mod preview;
mod show;

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use xxhash_rust::xxh3::xxh3_64;

pub use ask::{OrderRequest, PreviewRequest};
pub use preview::{Preview, preview};
pub use show::{OrderShown, shown};

use super::auth::Shopper;
use super::body::{Body, NoBody};
use super::idempotency::{Fingerprint, IdempotencyKey};
use super::payment::Told;
use super::problem::Problem;
use super::query::{Id, Page, Query};
use super::rate::OrderRate;
use crate::actors::catalogue::Catalogue;
use crate::actors::order::{Orders, PlaceOrder, PlacedOrder};
use crate::actors::payment::{By, Cancelled, Pay, Paying, Payments};
use crate::actors::stock::NotDone;
use crate::domain::id::OrderId;
use crate::domain::order::{Order, OrderStatus};
use crate::domain::payment::Method;

pub(super) const NO_ORDER: &str = "There is no such order.";

/// `POST /v1/orders`: holds every line, or none; with `payment` it also pays.
pub async fn place(
    Shopper(buyer): Shopper,
    key: IdempotencyKey,
    rate: web::Data<OrderRate>,
    orders: web::Data<Orders>,
    payments: web::Data<Payments>,
    catalogue: web::Data<Catalogue>,
    Body(asked): Body<OrderRequest>,
) -> Result<HttpResponse, Problem> {
    rate.take(buyer)?;
    let OrderRequest { items, expected_total, address: None, payment } = asked;
    let (items, expected_total) = (ask::items(&items)?, ask::expected_total(expected_total)?);
    let print = ask::fingerprint(&items, expected_total);
    if let Some(payment) = payment {
        let (print, method) = payment.method.into(print);
        let ask = PlaceOrder { buyer, items, key: key.used_for(print), expected_total };
        // Rare beside those that are only held, and larger: they do not carry the room for it.
        return Box::pin(place_and_pay(&orders, &payments, &catalogue, ask, method)).await;
    }
    let placed = orders.place(PlaceOrder { buyer, items, key: key.used_for(print), expected_total }).await?;
    let order = if placed.replayed {
        seen(&payments, &catalogue, placed.order).await?
    } else {
        show::shown(&catalogue, placed.order, None).await
    };
    Ok(order.answer(StatusCode::CREATED, placed.replayed))
}

/// The key belongs to the order, so whoever comes again with it hears of the payment of that order, and begins it if nobody has.
async fn place_and_pay(
    orders: &Orders,
    payments: &Payments,
    catalogue: &Catalogue,
    ask: PlaceOrder,
    method: Method,
) -> Result<HttpResponse, Problem> {
    // Before anything is held: who is turned away here has left nothing behind.
    let place = payments.place()?;
    let PlacedOrder { order, replayed } = orders.place(ask).await?;
    let by = if replayed { By::PlacingAgain } else { By::Placing };
    let paying = payments.pay(place, Pay { order: order.clone(), method, by }).await;
    let told = Told { orders, payments, catalogue, yes: StatusCode::CREATED };
    match paying {
        Ok(paying) => told.answer(order, Paying { replayed, ..paying }).await,
        // The order stands: to say that nothing was done would be untrue. The same key goes on from here.
        Err(why) if !replayed => Err(why.after_all().into()),
        Err(why) => Err(why.into()),
    }
}

/// An order with its payment.
pub async fn seen(payments: &Payments, catalogue: &Catalogue, order: Order) -> Result<OrderShown, NotDone> {
    let sight = payments.sight_of(&order).await?;
    Ok(show::shown(catalogue, order, sight).await)
}

/// Orders with their payments.
pub async fn seen_all(
    payments: &Payments,
    catalogue: &Catalogue,
    orders: Vec<Order>,
) -> Result<Vec<OrderShown>, Problem> {
    let sights = payments.sights(&orders).await?;
    let mut seen = Vec::with_capacity(orders.len());
    for (order, sight) in orders.into_iter().zip(sights) {
        seen.push(show::shown(catalogue, order, sight).await);
    }
    Ok(seen)
}

/// `GET /v1/orders/{id}`.
pub async fn find(
    Shopper(buyer): Shopper,
    Id(order): Id<OrderId>,
    orders: web::Data<Orders>,
    payments: web::Data<Payments>,
    catalogue: web::Data<Catalogue>,
) -> Result<HttpResponse, Problem> {
    let order = orders.find(buyer, order).await?.ok_or_else(|| Problem::not_found(NO_ORDER))?;
    Ok(seen(&payments, &catalogue, order).await?.answer(StatusCode::OK, false))
}

/// `GET /v1/orders?status=`: the buyer's own, newest first.
pub async fn list(
    Shopper(buyer): Shopper,
    query: Query,
    orders: web::Data<Orders>,
    payments: web::Data<Payments>,
    catalogue: web::Data<Catalogue>,
) -> Result<web::Json<Page<OrderShown>>, Problem> {
    let status = query.parsed("status", OrderStatus::from_word, "an order status")?;
    let (limit, before) = (query.limit()?, query.cursor::<OrderId>()?);
    let rows = orders.list(buyer, status, before, limit + 1).await?;
    let page = Page::of(rows, limit, |order| order.id.to_string());
    let data = seen_all(&payments, &catalogue, page.data).await?;
    Ok(web::Json(Page { data, next_cursor: page.next_cursor }))
}

/// `POST /v1/orders/{id}/cancel`: the whole order, held or paid. What was paid goes back.
pub async fn cancel(
    Shopper(buyer): Shopper,
    key: IdempotencyKey,
    Id(order): Id<OrderId>,
    payments: web::Data<Payments>,
    catalogue: web::Data<Catalogue>,
    _: NoBody,
) -> Result<HttpResponse, Problem> {
    let used = key.of_caller(buyer, Fingerprint::of("POST /v1/orders/{id}/cancel"));
    // Zero means no key; that a key hashes to it is one chance in 2^64, and then it is merely not replayable.
    let by = used.map_or(0, |used| xxh3_64(&used.key));
    let Cancelled { order, replayed } = payments.cancel(buyer, order, used, by).await?;
    let order = seen(&payments, &catalogue, order).await.map_err(NotDone::after_all)?;
    Ok(order.answer(StatusCode::OK, replayed))
}
