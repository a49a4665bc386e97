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
use super::problem::Problem;
use super::query::{Id, Page, Query};
use super::rate::OrderRate;
use crate::actors::catalogue::Catalogue;
use crate::actors::order::{Orders, PlaceOrder};
use crate::domain::id::OrderId;
use crate::domain::order::OrderStatus;

const NO_ORDER: &str = "There is no such order.";

/// `POST /v1/orders`: holds every line, or none.
pub async fn place(
    Shopper(buyer): Shopper,
    key: IdempotencyKey,
    rate: web::Data<OrderRate>,
    orders: web::Data<Orders>,
    catalogue: web::Data<Catalogue>,
    Body(asked): Body<OrderRequest>,
) -> Result<HttpResponse, Problem> {
    rate.take(buyer)?;
    let OrderRequest { items, expected_total, address: None, payment: None } = asked;
    let (items, expected_total) = (ask::items(&items)?, ask::expected_total(expected_total)?);
    let key = key.used_for(ask::fingerprint(&items, expected_total));
    let placed = orders.place(PlaceOrder { buyer, items, key, expected_total }).await?;
    let order = show::shown(&catalogue, placed.order).await;
    Ok(order.answer(StatusCode::CREATED, placed.replayed))
}

/// `GET /v1/orders/{id}`.
pub async fn find(
    Shopper(buyer): Shopper,
    Id(order): Id<OrderId>,
    orders: web::Data<Orders>,
    catalogue: web::Data<Catalogue>,
) -> Result<HttpResponse, Problem> {
    let order = orders.find(buyer, order).await?.ok_or_else(|| Problem::not_found(NO_ORDER))?;
    Ok(show::shown(&catalogue, order).await.answer(StatusCode::OK, false))
}

/// `GET /v1/orders?status=`: the buyer's own, newest first.
pub async fn list(
    Shopper(buyer): Shopper,
    query: Query,
    orders: web::Data<Orders>,
    catalogue: web::Data<Catalogue>,
) -> Result<web::Json<Page<OrderShown>>, Problem> {
    let status = query.parsed("status", OrderStatus::from_word, "an order status")?;
    let (limit, before) = (query.limit()?, query.cursor::<OrderId>()?);
    let rows = orders.list(buyer, status, before, limit + 1).await?;
    let page = Page::of(rows, limit, |order| order.id.to_string());
    let mut data = Vec::with_capacity(page.data.len());
    for order in page.data {
        data.push(show::shown(&catalogue, order).await);
    }
    Ok(web::Json(Page { data, next_cursor: page.next_cursor }))
}

/// `POST /v1/orders/{id}/cancel`: the whole order, while it is held.
pub async fn cancel(
    Shopper(buyer): Shopper,
    key: IdempotencyKey,
    Id(order): Id<OrderId>,
    orders: web::Data<Orders>,
    catalogue: web::Data<Catalogue>,
    _: NoBody,
) -> Result<HttpResponse, Problem> {
    let used = key.of_caller(buyer, Fingerprint::of("POST /v1/orders/{id}/cancel"));
    // Zero means no key; that a key hashes to it is one chance in 2^64, and then it is merely not replayable.
    let by = used.map_or(0, |used| xxh3_64(&used.key));
    let (order, replayed) =
        orders.cancel(buyer, order, by).await?.ok_or_else(|| Problem::not_found(NO_ORDER))?;
    Ok(show::shown(&catalogue, order).await.answer(StatusCode::OK, replayed))
}
