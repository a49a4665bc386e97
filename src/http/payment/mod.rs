//! The doors to money: pay an order, hear the provider, give back, and look at what still waits.

mod admin;
mod ask;
mod show;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};

pub use admin::{accept, compensations, give_back, refunds, retry, return_money, settle};
pub use ask::{PayRequest, RefundRequest};
pub use show::{
    ApprovalShown, CompensationShown, PaymentKept, PaymentShown, PaymentStatusFoundSchema, RefundShown,
};

use super::abuse::Abuse;
use super::auth::Shopper;
use super::body::{Body, Raw};
use super::idempotency::{Fingerprint, IdempotencyKey};
use super::order::{self, NO_ORDER};
use super::problem::{Code, Fact, Problem};
use super::query::Id;
use super::rate::OrderRate;
use super::request::Paying;
use crate::actors::catalogue::Catalogue;
use crate::actors::order::Orders;
use crate::actors::payment::{Outcome, Payments, SIGNATURE_HEADER, Told, Unheard};
use crate::actors::stock::NotDone;
use crate::domain::id::OrderId;
use crate::domain::stock::{Refused, Sequence};

/// When to come back after the provider refused us: somebody has to look into it first.
const REFUSED_RETRY_MS: u64 = 60_000;

/// `POST /v1/orders/{id}/payment`: pays a held order. The hold cannot lapse meanwhile.
#[allow(clippy::too_many_arguments)]
pub async fn pay(
    Shopper(buyer): Shopper,
    key: IdempotencyKey,
    Id(order): Id<OrderId>,
    rate: web::Data<OrderRate>,
    orders: web::Data<Orders>,
    payments: web::Data<Payments>,
    catalogue: web::Data<Catalogue>,
    Body(asked): Body<PayRequest>,
) -> Result<HttpResponse, Problem> {
    rate.take(buyer)?;
    let door = Fingerprint::of("POST /v1/orders/{id}/payment").bytes(order.as_bytes());
    let (asked, method) = asked.method.into(door);
    let key = key.of_caller(buyer, asked);
    let order = orders.find(buyer, order).await?.ok_or_else(|| Problem::not_found(NO_ORDER))?;
    let paying = payments.pay_alone(order.clone(), method, key).await?;
    let told = payments.told(order, paying).await.map_err(NotDone::after_all)?;
    answer(&catalogue, told, StatusCode::OK).await
}

/// The order with its payment, and the status of what whoever asks has heard first; `status` is that of a yes.
pub async fn answer(catalogue: &Catalogue, told: Told, status: StatusCode) -> Result<HttpResponse, Problem> {
    let Told { order, sight, outcome, reason, replayed, .. } = told;
    let home = order.home;
    let shown = order::shown(catalogue, order, sight).await;
    let yes = |status| {
        let mut answer = shown.answer(status, replayed);
        answer.extensions_mut().insert(Paying);
        Ok(answer)
    };
    let problem = match outcome {
        Outcome::Paid => return yes(status),
        Outcome::Open => return yes(StatusCode::ACCEPTED),
        Outcome::Gone(why) => {
            Problem::from(NotDone::Refused { product: home, refused: Refused { at: Sequence(0), why } })
        }
        Outcome::Declined => {
            Problem::new(Code::PaymentDeclined, "Nothing was charged, or what was charged goes back.")
        }
        Outcome::Refused => {
            let detail = "The order has ended: the payment provider cannot be used now. Order again in a while, with another key.";
            Problem::new(Code::PaymentUnavailable, detail).retry_after(REFUSED_RETRY_MS)
        }
    };
    let problem = match reason {
        Some(reason) => problem.with("reason", Fact::Word(reason.to_owned())),
        None => problem,
    };
    let problem = match serde_json::to_value(&shown) {
        Ok(order) => problem.with("order", Fact::Object(order)),
        Err(_) => problem,
    };
    Err(if replayed { problem.replayed() } else { problem })
}

/// `POST /v1/payments/webhook`: the provider has something to tell. It is a hint: how a payment stands is asked of the provider.
pub async fn webhook(
    request: HttpRequest,
    abuse: web::Data<Abuse>,
    payments: web::Data<Payments>,
    Raw(body): Raw,
) -> Result<HttpResponse, Problem> {
    abuse.hear()?;
    let signature = request.headers().get(SIGNATURE_HEADER).and_then(|value| value.to_str().ok());
    match payments.hear(signature, &body).await {
        Ok(_) => Ok(HttpResponse::Ok().finish()),
        Err(Unheard::Forged(why)) => {
            Err(Problem::new(Code::InvalidSignature, "This is not taken for the payment provider's word.")
                .with("reason", Fact::Word(why.as_str().to_owned())))
        }
        Err(Unheard::NotDone(why)) => Err(why.into()),
    }
}
