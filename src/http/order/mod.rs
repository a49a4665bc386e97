//! The doors to orders: look at what one would cost, place it, find it again, cancel it.

mod admin;
mod ask;
mod preview;
mod show;

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use xxhash_rust::xxh3::xxh3_64;

pub use admin::look_up;
pub use ask::{ItemRequest, OrderRequest, PreviewRequest, expected_total, line_quantity};
#[cfg(any(test, feature = "fuzz"))]
pub use ask::{fingerprint, items};
pub use preview::{Preview, preview};
pub use show::{OrderShown, shown};

use super::auth::Shopper;
use super::body::{Body, NoBody};
use super::idempotency::{Fingerprint, IdempotencyKey};
use super::payment::{self, PayRequest};
use super::problem::Problem;
use super::query::{Id, Page, Query};
use super::rate::OrderRate;
use crate::actors::catalogue::Catalogue;
use crate::actors::order::{Orders, PlaceOrder, PlacedOrder};
use crate::actors::payment::{By, Cancelled, Pay, Payments};
use crate::actors::stock::NotDone;
use crate::domain::id::OrderId;
use crate::domain::order::{Order, OrderStatus};
use crate::domain::payment::Method;
use crate::domain::user::Address;

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
    let OrderRequest { items, expected_total, address, payment } = asked;
    let (items, expected_total) = (ask::items(&items)?, ask::expected_total(expected_total)?);
    let print = ask::fingerprint(&items, expected_total);
    if payment.is_some() || address.is_some() {
        // Rare beside those that are only held, and larger: they do not carry the room for it.
        let besides = Besides { print, address, payment };
        let ask = PlaceOrder { buyer, items, key: None, is_made_up: false, expected_total };
        return Box::pin(besides.place(&orders, &payments, &catalogue, key, ask)).await;
    }
    let key = key.used_for(print);
    let placed = orders.place(PlaceOrder { buyer, items, key, is_made_up: false, expected_total }).await?;
    let order = if placed.replayed {
        Box::pin(seen(&payments, &catalogue, placed.order)).await.map_err(NotDone::after_all)?
    } else {
        show::shown(&catalogue, placed.order, None).await
    };
    Ok(order.answer(StatusCode::CREATED, placed.replayed))
}

/// What an order may say besides its lines: where it goes, and with what it is paid.
struct Besides {
    print: Fingerprint,
    address: Option<Box<Address>>,
    payment: Option<PayRequest>,
}

impl Besides {
    async fn place(
        self,
        orders: &Orders,
        payments: &Payments,
        catalogue: &Catalogue,
        key: IdempotencyKey,
        ask: PlaceOrder,
    ) -> Result<HttpResponse, Problem> {
        let Besides { mut print, address, payment } = self;
        if let Some(address) = &address {
            print = print.bytes(b"address").bytes(&orders.mark_of(address));
        }
        let Some(payment) = payment else {
            let ask = PlaceOrder { key: key.used_for(print), ..ask };
            let PlacedOrder { order, replayed } = placed(orders, ask, address).await?;
            let order = match replayed {
                true => seen(payments, catalogue, order).await.map_err(NotDone::after_all)?,
                false => show::shown(catalogue, order, None).await,
            };
            return Ok(order.answer(StatusCode::CREATED, replayed));
        };
        let (print, method) = payment.method.into(print);
        let ask = PlaceOrder { key: key.used_for(print), ..ask };
        place_and_pay(orders, payments, catalogue, ask, address, method).await
    }
}

/// An order with an address of its own is placed once that is written down.
async fn placed(
    orders: &Orders,
    ask: PlaceOrder,
    address: Option<Box<Address>>,
) -> Result<PlacedOrder, Problem> {
    match address {
        None => Ok(orders.place(ask).await?),
        Some(address) => Ok(orders.place_to(ask, &address).await?),
    }
}

/// The key belongs to the order, so whoever comes again with it hears what came of the first payment of that order, and begins it if nobody
/// has.
async fn place_and_pay(
    orders: &Orders,
    payments: &Payments,
    catalogue: &Catalogue,
    ask: PlaceOrder,
    address: Option<Box<Address>>,
    method: Method,
) -> Result<HttpResponse, Problem> {
    // Before anything is held: who is turned away here has left nothing behind.
    let place = match payments.place() {
        Ok(place) => place,
        Err(busy) => return paid_before(orders, payments, catalogue, &ask, busy).await,
    };
    let PlacedOrder { order, replayed } = placed(orders, ask, address).await?;
    let by = if replayed { By::PlacingAgain } else { By::Placing };
    // The order was made: to say that nothing was done would be untrue. The same key goes on from here.
    let told = payments.pay_placed(place, Pay { order, method, by }).await.map_err(NotDone::after_all)?;
    payment::answer(catalogue, told, StatusCode::CREATED).await
}

/// Nobody more may begin to pay. Whose key has made an order before hears of that order's payment all the same.
async fn paid_before(
    orders: &Orders,
    payments: &Payments,
    catalogue: &Catalogue,
    ask: &PlaceOrder,
    busy: NotDone,
) -> Result<HttpResponse, Problem> {
    let busy = orders.turned_away(ask.buyer, ask.key.map(|key| key.key), busy);
    let Some(key) = ask.key else { return Err(busy.into()) };
    let Some(order) = orders.of_key(ask.buyer, key).await? else { return Err(busy.into()) };
    let order = orders.find(ask.buyer, order).await.map_err(NotDone::after_all)?.ok_or(NotDone::Unknown)?;
    let paying = payments.paid_before(&order, busy).await.map_err(NotDone::after_all)?;
    let told = payments.told(order, paying).await.map_err(NotDone::after_all)?;
    payment::answer(catalogue, told, StatusCode::CREATED).await
}

/// An order with its payment.
pub async fn seen(payments: &Payments, catalogue: &Catalogue, order: Order) -> Result<OrderShown, NotDone> {
    let (order, sight) = payments.beside(vec![order]).await?.pop().ok_or(NotDone::Internal)?;
    Ok(show::shown(catalogue, order, sight).await)
}

/// Orders with their payments.
pub async fn seen_all(
    payments: &Payments,
    catalogue: &Catalogue,
    orders: Vec<Order>,
) -> Result<Vec<OrderShown>, Problem> {
    let mut seen = Vec::with_capacity(orders.len());
    for (order, sight) in payments.beside(orders).await? {
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
