//! Every movement of one product's stock, with its cause, as the journal has it.

use actix_web::web;
use serde::Serialize;
use utoipa::ToSchema;

use super::NO_PRODUCT;
use crate::actors::catalogue::Catalogue;
use crate::actors::history::{History, Moved};
use crate::domain::id::{OrderId, ProductId};
use crate::domain::stock::{Cause, Event, Sequence};
use crate::http::auth::Admin;
use crate::http::problem::Problem;
use crate::http::query::{Id, Page, Query};
use crate::http::time::Stamp;

/// One event and the counters after it. Sequences have no gaps.
#[derive(Debug, Serialize, ToSchema)]
pub struct Movement {
    #[schema(value_type = u64, minimum = 1)]
    sequence: Sequence,
    #[schema(value_type = String, format = DateTime)]
    at: Stamp,
    /// `created`, `configured`, `restocked`, `paused`, `resumed`, `archived`, `held`, `placed`, `kept`, `pinned`,
    /// `unpinned`, `confirmed`, `released`, `expired`, `returned` or `forgotten`.
    #[schema(value_type = String)]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    order_id: Option<OrderId>,
    /// The units this event speaks of; negative when they were taken away.
    #[serde(skip_serializing_if = "Option::is_none")]
    quantity: Option<i64>,
    on_hand: u64,
    available: u64,
    held: u64,
    sold: u64,
    /// Why a hold ended without a sale: `cancelled`, `not_placed` or `payment_failed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    cause: Option<&'static str>,
    /// Why an administrator changed the stock.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// `GET /v1/admin/products/{id}/ledger?from=`: oldest first.
pub async fn ledger(
    _: Admin,
    Id(product): Id<ProductId>,
    query: Query,
    catalogue: web::Data<Catalogue>,
    history: web::Data<History>,
) -> Result<web::Json<Page<Movement>>, Problem> {
    let sequence = |word: &str| word.parse().ok().filter(|from| *from >= 1).map(Sequence);
    let from = query.parsed("from", sequence, "a sequence, 1 or later")?;
    let from = query.parsed("cursor", sequence, "the next_cursor of the page before")?.or(from);
    let limit = query.limit()?;
    catalogue.text(product).await?.ok_or_else(|| Problem::not_found(NO_PRODUCT))?;
    let mut moved = history.page(product, from.unwrap_or(Sequence(1)), limit as usize + 1).await?;
    let next = moved.get(limit as usize).map(|next| next.sequence.0.to_string());
    moved.truncate(limit as usize);
    Ok(web::Json(Page { data: moved.into_iter().map(Movement::from).collect(), next_cursor: next }))
}

impl From<Moved> for Movement {
    fn from(moved: Moved) -> Movement {
        let counts = moved.counts;
        let (order_id, quantity) = subject(&moved.event);
        let cause = match &moved.event {
            Event::Released(released) => Some(match released.cause {
                Cause::Cancelled => "cancelled",
                Cause::NotPlaced => "not_placed",
                Cause::PaymentFailed => "payment_failed",
            }),
            _ => None,
        };
        let kind = moved.event.word();
        let reason =
            if let Event::Restocked(restocked) = moved.event { Some(restocked.reason) } else { None };
        Movement {
            sequence: moved.sequence,
            at: Stamp(moved.at),
            kind,
            order_id,
            quantity,
            on_hand: counts.on_hand,
            available: counts.available(),
            held: counts.held,
            sold: counts.sold,
            cause,
            reason,
        }
    }
}

/// Whose event it is, and how many units it speaks of.
fn subject(event: &Event) -> (Option<OrderId>, Option<i64>) {
    let units = match event {
        Event::Created(created) => i64::try_from(created.stock).ok(),
        Event::Restocked(restocked) => Some(restocked.delta),
        Event::Held(held) => Some(i64::from(held.quantity.get())),
        Event::Confirmed(confirmed) => Some(i64::from(confirmed.quantity.get())),
        Event::Released(released) => Some(i64::from(released.quantity.get())),
        Event::Expired(expired) => Some(i64::from(expired.quantity.get())),
        Event::Returned(returned) => Some(i64::from(returned.quantity.get())),
        Event::Configured(_)
        | Event::Placed(_)
        | Event::Kept(_)
        | Event::Pinned(_)
        | Event::Unpinned(_)
        | Event::Paused
        | Event::Resumed
        | Event::Archived
        | Event::Forgotten(_) => None,
    };
    (event.order(), units)
}
