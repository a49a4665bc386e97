//! An order is cancelled, whole or by line: a held one by letting go of it, a paid one by giving back what was paid and putting its
//! units on sale again.
//!
//! Always true: while a payment runs nobody cancels; what has left the house is not cancelled; the line ends, and its money is
//! written down as going back, in one transaction, so whoever cancels it again and whoever ships it at that moment is too late;
//! and whoever waits hears of it when the last unit is back.

use std::time::Duration;

use tokio::sync::{MutexGuard, oneshot};

use super::{LEASE_MS, Payments, Unkept, refused, unread};
use crate::actors::stock::{NotDone, to_the_end};
use crate::domain::delivery::{Delivery, DeliveryState, SoldLine};
use crate::domain::id::{OrderId, UserId};
use crate::domain::order::Order;
use crate::domain::payment::{Cause, Refund};
use crate::domain::stock::{self, KeyUse, Refusal, Refused};
use crate::persistence::money::{Cancel, Write, Written};

/// Orders that may be given back at the same time without waiting for each other.
pub(super) const STRIPES: usize = 64;
/// How long whoever cancels waits for the units. They come back in any case.
const UNITS_WITHIN: Duration = Duration::from_secs(5);
/// How long he waits for the order's row to say so.
const FLUSH_WITHIN: Duration = Duration::from_millis(500);

/// A cancelled order, and whether this very request had cancelled it before.
#[derive(Debug, Clone)]
pub struct Cancelled {
    pub order: Order,
    pub replayed: bool,
}

/// Why nothing is cancelled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotCancelled {
    #[error("no such order")]
    NoOrder,
    #[error("the order has no such line")]
    NoLine,
    #[error("only what is paid is cancelled by line")]
    NotSold,
    #[error("the line has left the house")]
    Shipped(Box<Delivery>),
    #[error("the line has ended before")]
    Ended(Box<Delivery>),
    #[error("the key belongs to another request")]
    KeyReused,
    #[error(transparent)]
    NotDone(#[from] NotDone),
}

impl From<Unkept> for NotCancelled {
    fn from(why: Unkept) -> NotCancelled {
        NotCancelled::NotDone(why.into())
    }
}

impl Payments {
    /// Cancels the buyer's order. `key` repeats the answer, `by` is the same as a number.
    pub async fn cancel(
        &self,
        buyer: UserId,
        order: OrderId,
        key: Option<KeyUse>,
        by: u64,
    ) -> Result<Cancelled, NotCancelled> {
        let orders = &self.0.house.orders;
        let mut found = orders.find(buyer, order).await?.ok_or(NotCancelled::NoOrder)?;
        if !found.is_sold() {
            match orders.cancel(buyer, order, by).await {
                // It was sold in this very moment.
                Err(NotDone::Refused { refused: Refused { why: Refusal::AlreadySold, .. }, .. }) => {
                    found = orders.find(buyer, order).await?.ok_or(NotCancelled::NoOrder)?;
                }
                held => {
                    let (order, replayed) = held?.ok_or(NotCancelled::NoOrder)?;
                    return Ok(Cancelled { order, replayed });
                }
            }
        }
        self.cancel_alone(found, None, key).await
    }

    /// Cancels one line of the buyer's order.
    pub async fn cancel_line(
        &self,
        buyer: UserId,
        order: OrderId,
        line: u8,
        key: Option<KeyUse>,
    ) -> Result<Cancelled, NotCancelled> {
        let order = self.0.house.orders.find(buyer, order).await?.ok_or(NotCancelled::NoOrder)?;
        if !order.lines.iter().any(|of| of.line == line) {
            return Err(NotCancelled::NoLine);
        }
        if !order.is_sold() {
            return Err(NotCancelled::NotSold);
        }
        self.cancel_alone(order, Some(line), key).await
    }

    /// Half a cancellation is never left behind by a buyer who hangs up.
    async fn cancel_alone(
        &self,
        order: Order,
        line: Option<u8>,
        key: Option<KeyUse>,
    ) -> Result<Cancelled, NotCancelled> {
        let payments = self.clone();
        to_the_end(async move { payments.cancel_paid(order, line, key).await }).await
    }

    /// Whoever gives an order back waits for whoever does so already.
    pub(super) async fn alone(&self, order: OrderId) -> Result<MutexGuard<'_, ()>, NotDone> {
        let stripe = xxhash_rust::xxh3::xxh3_64(order.as_bytes()) as usize % STRIPES;
        match self.0.cancels.get(stripe) {
            Some(stripe) => Ok(stripe.lock().await),
            None => Err(NotDone::Internal),
        }
    }

    async fn cancel_paid(
        &self,
        order: Order,
        line: Option<u8>,
        key: Option<KeyUse>,
    ) -> Result<Cancelled, NotCancelled> {
        let house = &self.0.house;
        let alone = self.alone(order.id).await?;
        let payment = self.paid(order.id).await?.ok_or_else(|| refused(&order, Refusal::AlreadySold))?;
        let key = key.map(|used| used.key);
        let cause = line.map_or(Cause::OrderCancelled, Cause::LineCancelled);
        let known = match key {
            Some(_) => house.rows.refunds().of_order(order.id).await.map_err(unread)?,
            None => Vec::new(),
        };
        let known = known.into_iter().find(|refund| refund.key == key);
        if known.as_ref().is_some_and(|refund| refund.cause != cause) {
            return Err(NotCancelled::KeyReused);
        }
        let place = match (self.place(), known) {
            (Ok(place), _) => place,
            (Err(_), Some(known)) => return self.cancelled_before(order, known, key).await,
            (Err(busy), None) => return Err(busy.into()),
        };
        let due_at = house.clock.now().plus(LEASE_MS);
        let cancel = Cancel { payment: payment.id, line, sold: SoldLine::of(&order), key, due_at };
        match self.0.book.write(Write::Cancel(Box::new(cancel))).await? {
            Written::RefundRow(refund) => {
                let (back, units) = oneshot::channel();
                // What cannot be walked now is taken up when its time comes: it is written down.
                let walk = self.give_walk(*refund, &payment, &order).await;
                // It is written down: who comes next finds it, and need not wait for the units of this one.
                drop(alone);
                if let Ok(walk) = walk {
                    self.walk_refund(place, walk, Some(back));
                    let _ = tokio::time::timeout(UNITS_WITHIN, units).await;
                }
                self.seen_cancelled(order, false).await
            }
            Written::Before(known) => self.cancelled_before(order, *known, key).await,
            Written::NotMoved(row) if row.state.has_ended() => Err(NotCancelled::Ended(row)),
            Written::NotMoved(row) => Err(NotCancelled::Shipped(row)),
            _ => Err(NotDone::Internal.into()),
        }
    }

    /// It was cancelled before: by this very request, or by another one.
    async fn cancelled_before(
        &self,
        order: Order,
        known: Refund,
        key: Option<[u8; 16]>,
    ) -> Result<Cancelled, NotCancelled> {
        if key.is_some() && known.key == key {
            return self.seen_cancelled(order, true).await;
        }
        let line = known.cause.line();
        let rows = self.0.house.rows.deliveries().of_order(order.id).await.map_err(unread)?;
        let ended =
            rows.into_iter().find(|row| Some(row.line) == line && row.state == DeliveryState::Cancelled);
        Err(match ended {
            Some(row) => NotCancelled::Ended(Box::new(row)),
            None => refused(&order, Refusal::AlreadyReleased { cause: stock::Cause::Cancelled }).into(),
        })
    }

    /// The order as it is by now.
    async fn seen_cancelled(&self, order: Order, replayed: bool) -> Result<Cancelled, NotCancelled> {
        let house = &self.0.house;
        house.flush.caught_up(FLUSH_WITHIN).await;
        let found = house.orders.find(order.buyer, order.id).await.map_err(NotDone::after_all)?;
        Ok(Cancelled { order: found.unwrap_or(order), replayed })
    }
}
