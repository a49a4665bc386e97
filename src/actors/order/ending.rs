//! How a held order ends before it is paid: its home first, whose word decides; then every other line.
//!
//! Always true: once the home has said so the order is cancelled, and each of its lines is released, or lapses by the order's deadline at the
//! latest. A line whose owner cannot be reached is told again for as long as this process lives; behind a crash its owner asks the home
//! when it has read its ledger.

use std::time::Duration;

use super::{Orders, refused};
use crate::actors::stock::{Answer, NotDone, Reply, to_the_end};
use crate::domain::id::{OrderId, ProductId, UserId};
use crate::domain::order::Order;
use crate::domain::stock::{Cause, Command, Millis, Refusal, Refused};
use crate::logs::carried;

/// Between two words to an owner that could not be reached: at first, and at most.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(30);
/// Orders whose lines are still told. Those of any more lapse by their deadlines.
pub(super) const TOLD_LATER_MAX: usize = 1_000;

impl Orders {
    /// Cancels a held order: its home first, whose word decides; then every other line. `by` repeats the answer.
    /// The flag says whether this very request had done it before.
    pub async fn cancel(
        &self,
        buyer: UserId,
        order: OrderId,
        by: u64,
    ) -> Result<Option<(Order, bool)>, NotDone> {
        let Some(seen) = self.find(buyer, order).await? else { return Ok(None) };
        let orders = self.clone();
        // Runs on when the buyer hangs up: half an order is never left held by that.
        let replayed = to_the_end(async move { orders.release(seen, by).await }).await?;
        // It is cancelled, whoever cannot show it at the moment.
        let now = self.find(buyer, order).await.map_err(NotDone::after_all)?;
        Ok(now.map(|order| (order, replayed)))
    }

    async fn release(&self, seen: Order, by: u64) -> Result<bool, NotDone> {
        let directory = &self.0.directory;
        let release = |by| Command::Release { order: seen.id, cause: Cause::Cancelled, by };
        let told = directory.ask(seen.home, release(by)).await;
        // Whoever cancelled it before may have got no further than its home.
        if told.is_ok() || is_cancelled(&told) {
            let mut unheard = Vec::new();
            for line in seen.lines.iter().filter(|line| line.product != seen.home) {
                // Only the home repeats its answer.
                if is_unheard(&directory.ask(line.product, release(0)).await) {
                    unheard.push(line.product);
                }
            }
            self.release_later(seen.id, unheard, seen.hold_expires_at);
        }
        match told {
            Ok(Answer::Done { replayed, .. }) => Ok(replayed),
            // Its owner remembers it no more: that is over, as the tables say, or are about to.
            Err(NotDone::Refused { refused: Refused { why: Refusal::NoSuchOrder, .. }, .. }) => {
                self.tables_show_all().await?;
                // This very request has cancelled it long ago.
                if by != 0 && self.cancelled_by(seen.id).await? == Some(by) {
                    return Ok(true);
                }
                let now = self.look_once(seen.id).await?;
                let over = now.and_then(|order| order.status.over()).ok_or(NotDone::Unavailable)?;
                Err(refused(seen.home, over))
            }
            Err(why) => Err(why),
            Ok(_) => Err(NotDone::Internal),
        }
    }

    async fn cancelled_by(&self, order: OrderId) -> Result<Option<u64>, NotDone> {
        self.0.reader.cancelled_by(order).await.map_err(|_| NotDone::Unavailable)
    }

    /// Tells the lines whose owners could not be reached again, until they have heard or the holds have lapsed by themselves.
    fn release_later(&self, order: OrderId, lines: Vec<ProductId>, deadline: Millis) {
        if lines.is_empty() {
            return;
        }
        let Ok(place) = self.0.telling.clone().try_acquire_owned() else { return };
        let orders = self.clone();
        actix::spawn(carried(async move {
            let _place = place;
            let (directory, mut pause) = (&orders.0.directory, AGAIN_AFTER);
            let release = Command::Release { order, cause: Cause::Cancelled, by: 0 };
            let mut unheard = lines;
            while !unheard.is_empty() && directory.house().clock.now() < deadline {
                actix::clock::sleep(pause).await;
                pause = (pause * 2).min(AGAIN_AFTER_MAX);
                for line in std::mem::take(&mut unheard) {
                    if is_unheard(&directory.ask(line, release.clone()).await) {
                        unheard.push(line);
                    }
                }
            }
        }));
    }
}

/// Whether the owner has perhaps not decided about it.
fn is_unheard(told: &Reply) -> bool {
    matches!(told, Err(why) if !matches!(why, NotDone::Refused { .. }))
}

fn is_cancelled(told: &Reply) -> bool {
    let cancelled = Refusal::AlreadyReleased { cause: Cause::Cancelled };
    matches!(told, Err(NotDone::Refused { refused: Refused { why, .. }, .. }) if *why == cancelled)
}
