//! Every movement of one product's stock, with its cause, as the journal has it.

use actix_web::{HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::NO_PRODUCT;
use crate::actors::catalogue::Catalogue;
use crate::actors::history::{History, Moved};
use crate::actors::user::Users;
use crate::domain::id::{OrderId, ProductId};
use crate::domain::stock::{Cause, Event, Sequence};
use crate::domain::trail::Record;
use crate::http::auth::Admin;
use crate::http::csv::{self, Column, Form, Part};
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

/// Events looked at for one page that is narrowed.
const LOOKED_AT_MAX: usize = 10_000;
/// Events looked at in one step, and of one part of a CSV.
const STEP: usize = 1_000;

const COLUMNS: &[Column] = &[
    Column("sequence", "/sequence"),
    Column("at", "/at"),
    Column("kind", "/kind"),
    Column("order_id", "/order_id"),
    Column("quantity", "/quantity"),
    Column("on_hand", "/on_hand"),
    Column("available", "/available"),
    Column("held", "/held"),
    Column("sold", "/sold"),
    Column("cause", "/cause"),
    Column("reason", "/reason"),
];

/// The words of all kinds of movements.
pub const KINDS: &[&str] = &[
    "created",
    "configured",
    "restocked",
    "paused",
    "resumed",
    "archived",
    "held",
    "placed",
    "kept",
    "pinned",
    "unpinned",
    "confirmed",
    "released",
    "expired",
    "returned",
    "forgotten",
];

/// What a page is narrowed to.
#[derive(Clone, Copy)]
struct Only {
    kind: Option<&'static str>,
    order: Option<OrderId>,
}

/// `GET /v1/admin/products/{id}/ledger?from=&kind=&order=`: oldest first. Who takes a table away stands in the trail first.
pub async fn ledger(
    Admin(admin): Admin,
    Id(product): Id<ProductId>,
    query: Query,
    form: Form,
    catalogue: web::Data<Catalogue>,
    history: web::Data<History>,
    users: web::Data<Users>,
) -> Result<HttpResponse, Problem> {
    let sequence = |word: &str| word.parse().ok().filter(|from| *from >= 1).map(Sequence);
    let from = query.parsed("from", sequence, "a sequence, 1 or later")?;
    let from = query.parsed("cursor", sequence, "the next_cursor of the page before")?.or(from);
    let only = Only {
        kind: query.parsed("kind", kind, "a kind of movement")?,
        order: query.parsed("order", |word| word.parse().ok(), "an order's id")?,
    };
    let limit = query.limit()? as usize;
    catalogue.text(product).await?.ok_or_else(|| Problem::not_found(NO_PRODUCT))?;
    match form {
        Form::Json => {
            let (data, next) = page(&history, product, from, only, limit).await?;
            let next_cursor = next.map(|next| next.0.to_string());
            Ok(HttpResponse::Ok().json(Page { data, next_cursor }))
        }
        Form::Csv => {
            let first = from.and_then(|from| i64::try_from(from.0).ok());
            let of = |record: Record| {
                let record = record.on(product).word_if("kind", only.kind).id_if("order", only.order);
                record.number_if("from", first)
            };
            users.tell_export(admin, "ledger", of).await?;
            csv::stream("ledger", COLUMNS, from, move |from| {
                let history = history.clone();
                async move {
                    let (moved, next) = page(&history, product, from, only, STEP).await?;
                    Ok(Part::of(moved.into_iter().map(|moved| csv::row(&moved)), next))
                }
            })
            .await
        }
    }
}

fn kind(word: &str) -> Option<&'static str> {
    KINDS.iter().copied().find(|kind| *kind == word)
}

/// At most `limit` movements, and the sequence at which the next page begins.
async fn page(
    history: &History,
    product: ProductId,
    from: Option<Sequence>,
    only: Only,
    limit: usize,
) -> Result<(Vec<Movement>, Option<Sequence>), Problem> {
    let mut from = from.unwrap_or(Sequence(1));
    let narrow = only.kind.is_some() || only.order.is_some();
    let (mut moved, mut looked_at) = (Vec::new(), 0);
    loop {
        let step = if narrow { STEP } else { limit };
        let mut events = history.page(product, from, step + 1).await?;
        let next = events.get(step).map(|next| next.sequence);
        events.truncate(step);
        looked_at += step;
        for event in events.into_iter().filter(|event| only.counts(event)) {
            if moved.len() == limit {
                return Ok((moved, Some(event.sequence)));
            }
            moved.push(Movement::from(event));
        }
        match next {
            Some(next) if narrow && looked_at < LOOKED_AT_MAX => from = next,
            next => return Ok((moved, next)),
        }
    }
}

impl Only {
    fn counts(&self, moved: &Moved) -> bool {
        self.kind.is_none_or(|kind| kind == moved.event.word())
            && self.order.is_none_or(|order| moved.event.order() == Some(order))
    }
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
