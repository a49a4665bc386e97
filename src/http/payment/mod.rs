//! The doors to money: pay an order, hear the provider, give back, and look at what still waits.

mod admin;
mod ask;
mod show;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};

pub use admin::{accept, compensations, give_back, refunds, retry, return_money, settle};
pub use ask::{PayRequest, RefundRequest};
pub use show::{CompensationShown, PaymentKept, PaymentShown, RefundShown};

use super::abuse::Abuse;
use super::auth::Shopper;
use super::body::{Body, Raw};
use super::idempotency::{Fingerprint, IdempotencyKey};
use super::order::{self, NO_ORDER};
use super::problem::{Code, Fact, Problem};
use super::query::Id;
use super::rate::OrderRate;
use crate::actors::catalogue::Catalogue;
use crate::actors::order::Orders;
use crate::actors::payment::{By, Outcome, Pay, Paying, PaymentSight, Payments, SIGNATURE_HEADER, Unheard};
use crate::actors::stock::NotDone;
use crate::domain::id::OrderId;
use crate::domain::order::Order;
use crate::domain::stock::{Refused, Sequence};

/// When to come back after the provider refused us: somebody has to look into it first.
const REFUSED_RETRY_MS: u64 = 60_000;

/// What the doors ask in order to tell how a payment ended.
pub struct Told<'a> {
    pub orders: &'a Orders,
    pub payments: &'a Payments,
    pub catalogue: &'a Catalogue,
    /// The status of a yes.
    pub yes: StatusCode,
}

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
    let place = payments.place()?;
    let pay = Pay { order: order.clone(), method, by: By::Itself(key) };
    let paying = payments.pay(place, pay).await?;
    let told = Told { orders: &orders, payments: &payments, catalogue: &catalogue, yes: StatusCode::OK };
    told.answer(order, paying).await
}

impl Told<'_> {
    /// The order as it is now, with the status of how its payment ended.
    pub async fn answer(&self, order: Order, paying: Paying) -> Result<HttpResponse, Problem> {
        // A moment ago it was sold, and nothing can have come back since: nobody need be asked.
        if !paying.replayed && paying.outcome(false) == Outcome::Paid {
            let sight = PaymentSight::fresh(paying.payment, true);
            let order = self.orders.just_sold(order);
            let shown = order::shown(self.catalogue, order, Some(sight)).await;
            return Ok(shown.answer(self.yes, false));
        }
        let order = match self.orders.find(order.buyer, order.id).await.map_err(NotDone::after_all)? {
            Some(now) => now,
            None => return Err(Problem::not_found(NO_ORDER)),
        };
        let (outcome, home) = (paying.outcome(order.is_sold()), order.home);
        let sight = self.payments.sight_of(&order).await.map_err(NotDone::after_all)?;
        let shown = order::shown(self.catalogue, order, sight).await;
        match outcome {
            Outcome::Paid => Ok(shown.answer(self.yes, paying.replayed)),
            Outcome::Open => Ok(shown.answer(StatusCode::ACCEPTED, paying.replayed)),
            Outcome::Declined => {
                let problem = Problem::new(
                    Code::PaymentDeclined,
                    "Nothing was charged, or what was charged goes back.",
                );
                Err(unpaid(problem, &shown, paying))
            }
            Outcome::Refused => {
                let detail =
                    "Nothing was charged: the payment provider cannot be used now. Order again in a while.";
                let problem = Problem::new(Code::OwnerUnavailable, detail).retry_after(REFUSED_RETRY_MS);
                Err(unpaid(problem, &shown, paying))
            }
            Outcome::Gone(why) => {
                Err(NotDone::Refused { product: home, refused: Refused { at: Sequence(0), why } }.into())
            }
        }
    }
}

fn unpaid(mut problem: Problem, order: &order::OrderShown, paying: Paying) -> Problem {
    if let Some(reason) = paying.payment.told_reason() {
        problem = problem.with("reason", Fact::Word(reason.to_owned()));
    }
    if let Ok(order) = serde_json::to_value(order) {
        problem = problem.with("order", Fact::Object(order));
    }
    if paying.replayed { problem.replayed() } else { problem }
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
