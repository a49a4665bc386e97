//! The doors to one line of an order: cancel it before it ships, send it back after it has arrived.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::Shopper;
use super::body::{Body, NoBody};
use super::idempotency::{Fingerprint, IdempotencyKey};
use super::order::{NO_ORDER, seen};
use super::problem::{Code, Fact, Problem};
use super::query::{Id, Line};
use super::time::Stamp;
use crate::actors::catalogue::Catalogue;
use crate::actors::delivery::{Deliveries, NotSentBack, SendBack, SentBack};
use crate::actors::payment::{Cancelled, NotCancelled, Payments};
use crate::actors::stock::NotDone;
use crate::domain::delivery::Delivery;
use crate::domain::id::OrderId;

const NO_LINE: &str = "There is no such order, or it has no such line.";
const KEY_REUSED: &str = "This Idempotency-Key came before, with another body.";
/// The longest reason for a return that is kept.
const REASON_CHARS_MAX: usize = 200;

/// Why a line is sent back.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReturnRequest {
    /// In a few words that name nobody; forgotten when the line is back.
    #[schema(min_length = 1, max_length = 200, pattern = r"\S", example = "too small")]
    pub reason: String,
}

/// A line that was sold, as it is kept.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeliveryKept {
    #[schema(value_type = String)]
    order_id: OrderId,
    line: u8,
    /// `preparing`, `shipping`, `delivered`, `cancelled`, `return_requested` or `returned`.
    #[schema(value_type = String)]
    state: &'static str,
    #[schema(value_type = String, format = DateTime)]
    paid_at: Stamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    shipped_at: Option<Stamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    delivered_at: Option<Stamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    return_requested_at: Option<Stamp>,
    /// Why it shall come back, until it has.
    reason: Option<String>,
}

impl From<(Delivery, Option<String>)> for DeliveryKept {
    fn from((row, reason): (Delivery, Option<String>)) -> DeliveryKept {
        DeliveryKept {
            order_id: row.order,
            line: row.line,
            state: row.state.as_str(),
            paid_at: Stamp(row.paid_at),
            shipped_at: row.shipped_at.map(Stamp),
            delivered_at: row.delivered_at.map(Stamp),
            return_requested_at: row.requested_at.map(Stamp),
            reason,
        }
    }
}

/// `POST /v1/orders/{id}/lines/{line}/cancel`: its units are on sale again, and what was paid for it goes back.
pub async fn cancel(
    Shopper(buyer): Shopper,
    key: IdempotencyKey,
    Id(order): Id<OrderId>,
    Line(line): Line,
    payments: web::Data<Payments>,
    catalogue: web::Data<Catalogue>,
    _: NoBody,
) -> Result<HttpResponse, Problem> {
    let door = Fingerprint::of("POST /v1/orders/{id}/lines/{line}/cancel");
    let used = key.of_caller(buyer, door.bytes(order.as_bytes()).number(line.into()));
    let Cancelled { order, replayed } = payments.cancel_line(buyer, order, line, used).await?;
    let order = seen(&payments, &catalogue, order).await.map_err(NotDone::after_all)?;
    Ok(order.answer(StatusCode::OK, replayed))
}

/// `POST /v1/orders/{id}/lines/{line}/return`: the next run takes it in, and then its money goes back.
#[allow(clippy::too_many_arguments)]
pub async fn send_back(
    Shopper(buyer): Shopper,
    key: IdempotencyKey,
    Id(order): Id<OrderId>,
    Line(line): Line,
    deliveries: web::Data<Deliveries>,
    payments: web::Data<Payments>,
    catalogue: web::Data<Catalogue>,
    Body(ReturnRequest { reason }): Body<ReturnRequest>,
) -> Result<HttpResponse, Problem> {
    if reason.trim().is_empty() || reason.chars().count() > REASON_CHARS_MAX {
        return Err(Problem::field("/reason", "1 to 200 characters"));
    }
    let door = Fingerprint::of("POST /v1/orders/{id}/lines/{line}/return");
    let key = key.of_caller(buyer, door.bytes(order.as_bytes()).number(line.into()).bytes(reason.as_bytes()));
    let SentBack { order, replayed } =
        deliveries.send_back(buyer, SendBack { order, line, reason, key }).await?;
    let order = seen(&payments, &catalogue, order).await.map_err(NotDone::after_all)?;
    Ok(order.answer(StatusCode::OK, replayed))
}

/// A problem about one line, with where that is.
fn of_line(code: Code, detail: &'static str, row: &Delivery) -> Problem {
    let problem = Problem::new(code, detail).number("line", row.line);
    let with_status =
        |problem: Problem, word: &str| problem.with("delivery_status", Fact::Word(word.to_owned()));
    let problem = match row.status() {
        Some(status) => with_status(problem, status.as_str()),
        None => problem,
    };
    let times = [("shipped_at", row.shipped_at), ("delivered_at", row.delivered_at)];
    times.into_iter().fold(problem, |problem, (name, at)| match at {
        Some(at) => problem.with(name, Fact::Time(at)),
        None => problem,
    })
}

impl From<NotCancelled> for Problem {
    fn from(why: NotCancelled) -> Problem {
        match why {
            NotCancelled::NoOrder => Problem::not_found(NO_ORDER),
            NotCancelled::NoLine => Problem::not_found(NO_LINE),
            NotCancelled::NotSold => Problem::new(
                Code::OrderStateConflict,
                "Only what is paid is cancelled line by line: cancel the whole order.",
            ),
            NotCancelled::Shipped(row) => of_line(
                Code::NotCancellable,
                "The line has left the house. Send it back when it has arrived.",
                &row,
            ),
            NotCancelled::Ended(row) => {
                of_line(Code::OrderStateConflict, "The line was cancelled or sent back already.", &row)
            }
            NotCancelled::KeyReused => Problem::new(Code::IdempotencyKeyReused, KEY_REUSED),
            NotCancelled::NotDone(why) => why.into(),
        }
    }
}

impl From<NotSentBack> for Problem {
    fn from(why: NotSentBack) -> Problem {
        match why {
            NotSentBack::NoOrder => Problem::not_found(NO_ORDER),
            NotSentBack::NoLine => Problem::not_found(NO_LINE),
            NotSentBack::NotSold => {
                Problem::new(Code::OrderStateConflict, "Only what was paid and has arrived is sent back.")
            }
            NotSentBack::NotDelivered(Some(row)) => {
                of_line(Code::NotReturnable, "The line has not arrived yet.", &row)
            }
            NotSentBack::NotDelivered(None) => {
                Problem::new(Code::NotReturnable, "The line has not arrived yet.")
            }
            NotSentBack::Over { row, until } => {
                of_line(Code::NotReturnable, "The line arrived too long ago to be sent back.", &row)
                    .with("returnable_until", Fact::Time(until))
            }
            NotSentBack::Before(row) => {
                of_line(Code::OrderStateConflict, "The line is on its way back, or has ended.", &row)
            }
            NotSentBack::KeyReused => Problem::new(Code::IdempotencyKeyReused, KEY_REUSED),
            NotSentBack::NotDone(why) => why.into(),
        }
    }
}
