//! The doors to the cart. Every answer is the whole cart as it is now; a checkout's is its order.

mod ask;
mod refusal;
mod show;

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};

pub use ask::{CheckoutRequest, QuantityRequest};
pub use show::{CartKept, CartShown};

use super::auth::Shopper;
use super::body::{Body, NoBody};
use super::idempotency::{IdempotencyKey, REPLAYED};
use super::order::{self, ItemRequest};
use super::payment;
use super::problem::Problem;
use super::query::Id;
use super::rate::{CartRate, OrderRate};
use crate::actors::cart::{Carts, CheckedOut};
use crate::actors::catalogue::Catalogue;
use crate::actors::order::Orders;
use crate::actors::payment::Payments;
use crate::actors::stock::NotDone;
use crate::clock::Clock;
use crate::domain::id::ProductId;

/// `GET /v1/cart`.
pub async fn find(
    Shopper(user): Shopper,
    clock: web::Data<Clock>,
    carts: web::Data<Carts>,
) -> Result<web::Json<CartShown>, Problem> {
    Ok(web::Json(CartShown::of(carts.find(user).await?, clock.now())))
}

/// `DELETE /v1/cart`: everything out.
pub async fn clear(
    Shopper(user): Shopper,
    rate: web::Data<CartRate>,
    clock: web::Data<Clock>,
    carts: web::Data<Carts>,
    _: NoBody,
) -> Result<web::Json<CartShown>, Problem> {
    rate.take(user)?;
    Ok(web::Json(CartShown::of(carts.clear(user).await?, clock.now())))
}

/// `POST /v1/cart/items`: so many units more.
pub async fn add(
    Shopper(user): Shopper,
    key: IdempotencyKey,
    rate: web::Data<CartRate>,
    clock: web::Data<Clock>,
    carts: web::Data<Carts>,
    Body(asked): Body<ItemRequest>,
) -> Result<HttpResponse, Problem> {
    rate.take(user)?;
    let (product, quantity) = (ask::product(&asked)?, asked.quantity);
    let key = key.used_for(ask::addition(product, quantity));
    let (cart, replayed) = carts.add(user, product, quantity, key).await?;
    let mut answer = HttpResponse::Ok();
    if replayed {
        answer.insert_header(REPLAYED);
    }
    Ok(answer.json(CartShown::of(cart, clock.now())))
}

/// `PUT /v1/cart/items/{id}`: so many units, whatever was there before.
pub async fn put(
    Shopper(user): Shopper,
    Id(product): Id<ProductId>,
    rate: web::Data<CartRate>,
    clock: web::Data<Clock>,
    carts: web::Data<Carts>,
    Body(asked): Body<QuantityRequest>,
) -> Result<web::Json<CartShown>, Problem> {
    rate.take(user)?;
    Ok(web::Json(CartShown::of(carts.put(user, product, asked.quantity).await?, clock.now())))
}

/// `DELETE /v1/cart/items/{id}`.
pub async fn take_out(
    Shopper(user): Shopper,
    Id(product): Id<ProductId>,
    rate: web::Data<CartRate>,
    clock: web::Data<Clock>,
    carts: web::Data<Carts>,
    _: NoBody,
) -> Result<web::Json<CartShown>, Problem> {
    rate.take(user)?;
    Ok(web::Json(CartShown::of(carts.take_out(user, product).await?, clock.now())))
}

/// `POST /v1/cart/checkout`: orders the chosen lines, or all; with `payment` it also pays. The key belongs to the order.
#[allow(clippy::too_many_arguments)]
pub async fn check_out(
    Shopper(buyer): Shopper,
    key: IdempotencyKey,
    rate: web::Data<OrderRate>,
    carts: web::Data<Carts>,
    orders: web::Data<Orders>,
    payments: web::Data<Payments>,
    catalogue: web::Data<Catalogue>,
    Body(asked): Body<CheckoutRequest>,
) -> Result<HttpResponse, Problem> {
    rate.take(buyer)?;
    let ask = asked.parsed(buyer, key, &orders)?;
    match carts.check_out(ask).await? {
        CheckedOut::Paying(told) => payment::answer(&catalogue, told, StatusCode::CREATED).await,
        CheckedOut::Held { order, replayed } => {
            let order = match replayed {
                true => order::seen(&payments, &catalogue, order).await.map_err(NotDone::after_all)?,
                false => order::shown(&catalogue, order, None).await,
            };
            Ok(order.answer(StatusCode::CREATED, replayed))
        }
    }
}
