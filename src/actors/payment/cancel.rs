//! An order is cancelled: a held one by letting go of it, a paid one by giving back what was paid and putting its units on sale
//! again.
//!
//! Always true: while a payment runs nobody cancels; what a paid order gives back is written down before the first unit moves, and
//! whoever waits hears of it when the last one has.

use std::time::Duration;

use actix_web::rt;
use tokio::sync::{MutexGuard, oneshot};

use super::{Payments, Want, Wanted, refused, unread};
use crate::actors::stock::NotDone;
use crate::domain::amount::Money;
use crate::domain::id::{OrderId, RefundId, UserId};
use crate::domain::order::{LineStatus, Order, OrderStatus};
use crate::domain::payment::{Cause, PaymentState, Restock};
use crate::domain::stock::{self, KeyUse, Refusal, Refused};

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

impl Payments {
    /// Cancels the buyer's order; `None` if there is none. `key` repeats the answer, `by` is the same as a number.
    pub async fn cancel(
        &self,
        buyer: UserId,
        order: OrderId,
        key: Option<KeyUse>,
        by: u64,
    ) -> Result<Option<Cancelled>, NotDone> {
        match self.0.house.orders.cancel(buyer, order, by).await {
            Err(NotDone::Refused { refused: Refused { why: Refusal::AlreadySold, .. }, .. }) => {}
            held => return Ok(held?.map(|(order, replayed)| Cancelled { order, replayed })),
        }
        let payments = self.clone();
        // Half a cancellation is never left behind by a buyer who hangs up.
        let cancelling = rt::spawn(async move { payments.cancel_paid(buyer, order, key).await });
        cancelling.await.unwrap_or(Err(NotDone::Unknown))
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
        buyer: UserId,
        id: OrderId,
        key: Option<KeyUse>,
    ) -> Result<Option<Cancelled>, NotDone> {
        let house = &self.0.house;
        let _alone = self.alone(id).await?;
        let Some(order) = house.orders.find(buyer, id).await? else { return Ok(None) };
        let payment = self.paid(id).await?.ok_or_else(|| refused(&order, Refusal::AlreadySold))?;
        let known = RefundId::of(payment.id, Cause::OrderCancelled);
        if let Some(known) = house.rows.refunds().find(known).await.map_err(unread)? {
            let same = known.key.is_some() && known.key == key.map(|used| used.key);
            let cancelled = Refusal::AlreadyReleased { cause: stock::Cause::Cancelled };
            return if same {
                self.seen_cancelled(buyer, id, true).await
            } else {
                Err(refused(&order, cancelled))
            };
        }
        if order.status != OrderStatus::Paid
            || order.lines.iter().any(|line| line.status != LineStatus::Ordered)
        {
            return Err(refused(&order, Refusal::AlreadySold));
        }
        let left = payment.captured.saturating_sub(payment.refunded);
        let is_free = payment.amount.amount == 0;
        if left <= 0 && !is_free || payment.state == PaymentState::Orphaned {
            return Err(refused(&order, Refusal::AlreadySold));
        }
        let amount = Money { amount: left, ..payment.amount };
        let (key, place) = (key.map(|used| used.key), self.place()?);
        let want = Want { cause: Cause::OrderCancelled, amount, restock: Restock::ToStock, key };
        let walk = match self.begin_refund(&payment, &order, want).await? {
            Wanted::New(walk) => walk,
            // A clerk has given something back in this very moment.
            Wanted::Before(_) | Wanted::TooMuch { .. } => return Err(NotDone::Unavailable),
        };
        let (back, units) = oneshot::channel();
        self.walk_refund(place, *walk, Some(back));
        // What is not back by then comes back later: it is written down.
        let _ = tokio::time::timeout(UNITS_WITHIN, units).await;
        self.seen_cancelled(buyer, id, false).await
    }

    /// The order as it is by now.
    async fn seen_cancelled(
        &self,
        buyer: UserId,
        order: OrderId,
        replayed: bool,
    ) -> Result<Option<Cancelled>, NotDone> {
        let house = &self.0.house;
        house.flush.caught_up(FLUSH_WITHIN).await;
        let order = house.orders.find(buyer, order).await.map_err(NotDone::after_all)?;
        Ok(order.map(|order| Cancelled { order, replayed }))
    }
}
