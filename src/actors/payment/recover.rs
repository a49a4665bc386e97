//! What is due: payments nobody walks any more, refunds that are not through, whatever a webhook has hinted at.
//!
//! Always true: after a start everything that had not ended is taken up, for whoever held it is dead; what cannot be read or
//! reached is tried again, after pauses that grow; and who walks here is walked alone, so that a panic is one payment's own.

use std::time::Duration;

use actix_web::rt;
use futures_util::future::join_all;

use super::approval::{behind, unwritten};
use super::standing::{CompensationId, Standing};
use super::walk::Walk;
use super::{
    Decided, FLUSH_WITHIN, LEASE_MS, PaymentSight, Payments, Unkept, Waits, back_off_ms, refused, unread,
};
use crate::actors::stock::{NotDone, to_the_end};
use crate::actors::turns::{Loop, turn};
use crate::domain::amount::Money;
use crate::domain::id::{OrderId, PaymentId, UserId};
use crate::domain::order::Order;
use crate::domain::payment::{Asked, Asker, Move, Payment, PaymentState, Restock, STANDS_MS, What};
use crate::domain::stock::{Cause, Millis, Refusal};
use crate::domain::trail::{Deed, Record};
use crate::persistence::StoreError;
use crate::persistence::money::SWEEP_MAX;

/// Rows taken up at a time.
const BATCH_MAX: u32 = 128;
/// The longest without a look: the numbers for operators are no older.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The shortest, also where something seems to be due all the time.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How old the numbers for operators may be while much is due.
const OBSERVE_EVERY_MS: i64 = 1_000;
/// A crowd of webhooks is one reason to look.
const GATHER: Duration = Duration::from_millis(5);
/// Pause when the rows cannot be read.
const FAILED_PAUSE: Duration = Duration::from_secs(1);
/// A webhook that comes once more after this is not recognised; its signature has long become too old.
const REMEMBERED_MS: i64 = 30 * 24 * 3_600_000;
const SWEEP_EVERY_MS: i64 = 3_600_000;
/// Steps of a sweep before something else has its turn.
const SWEEPS_MAX: usize = 16;
/// How often something is written upon a row that somebody else keeps moving …
const TRIES_MAX: usize = 8;
/// … and when to come back after that.
const MOVED_RETRY_MS: u64 = 1_000;

/// Why a payment in this state does not wait for a person.
fn no_decision(state: PaymentState) -> Refusal {
    match state {
        PaymentState::Captured | PaymentState::Paid => Refusal::AlreadySold,
        PaymentState::Started | PaymentState::Unknown | PaymentState::Review => Refusal::PaymentRunning,
        PaymentState::Declined | PaymentState::Cancelled | PaymentState::Orphaned => {
            Refusal::AlreadyReleased { cause: Cause::PaymentFailed }
        }
    }
}

/// What became of trying something at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retried {
    Now,
    /// Trying does not help: a person has to decide.
    Undecided,
    NothingWaits,
}

/// What a person decides about a payment of another amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Keep,
    GiveBack,
}

impl Verdict {
    /// Whether it was decided so before: who decides the same again hears what came of it.
    fn stands_in(self, payment: &Payment) -> bool {
        let reason = payment.reason.as_deref();
        match (self, payment.state) {
            (Verdict::Keep, PaymentState::Captured | PaymentState::Paid) => reason == Some("amount_mismatch"),
            (Verdict::GiveBack, PaymentState::Orphaned) => reason == Some("given_back"),
            // One in review that is due is one whose money goes back.
            (Verdict::GiveBack, PaymentState::Review) => payment.due_at.is_some(),
            _ => false,
        }
    }

    /// What it is worth to decide so: what goes back or, where it is kept, also what should have come and is lost with it.
    fn weighs(self, payment: &Payment) -> Money {
        match self {
            Verdict::Keep => payment.at_stake(),
            Verdict::GiveBack => payment.taken(),
        }
    }
}

/// Some at a time: between two of them others write. Whether there are more.
async fn forgotten(what: &'static str, sweep: impl AsyncFn() -> Result<usize, StoreError>) -> bool {
    for _ in 0..SWEEPS_MAX {
        match sweep().await {
            Ok(forgotten) if forgotten >= SWEEP_MAX as usize => {}
            Ok(_) => return false,
            Err(error) => {
                tracing::warn!(%error, "{what} could not be forgotten");
                return false;
            }
        }
    }
    true
}

/// Writes upon a row as it stands, and once more where somebody else has moved it meanwhile. `false`: there is no such row.
pub(super) async fn upon_newest<R>(
    read: impl AsyncFn() -> Result<Option<R>, NotDone>,
    write: impl AsyncFn(&R) -> Result<Option<R>, Unkept>,
) -> Result<bool, NotDone> {
    for _ in 0..TRIES_MAX {
        let Some(row) = read().await? else { return Ok(false) };
        if write(&row).await?.is_some() {
            return Ok(true);
        }
    }
    Err(NotDone::Busy { retry_after_ms: MOVED_RETRY_MS })
}

enum Review {
    Nothing,
    Decided(PaymentSight),
    /// It takes another administrator.
    Waits(Box<Waits>),
    /// It is to be done now. Behind the words of two, nobody says of what fails then that nothing was done.
    Open {
        payment: Box<Payment>,
        order: Box<Order>,
        is_agreed: bool,
    },
}

impl Payments {
    /// At the start: all that has not ended is due.
    pub async fn take_over(&self) -> Result<(), NotDone> {
        let house = &self.0.house;
        let released = house.rows.release_all_leases(house.clock.now()).await.map_err(unread)?;
        if released > 0 {
            tracing::info!(released, "payments and refunds that had not ended are taken up again");
        }
        Ok(())
    }

    /// Takes up what is due, from now on.
    pub fn recovery(&self) -> Loop {
        Loop::start(self.clone().recover())
    }

    async fn recover(self) {
        let mut sweep_at = Millis(0);
        let mut observe_at = Millis(0);
        loop {
            let now = self.0.house.clock.now();
            if now >= sweep_at {
                let more = turn("the recovery of payments", self.sweep(now)).await.unwrap_or(false);
                // At the next look, or in an hour.
                sweep_at = if more { now } else { now.plus(SWEEP_EVERY_MS) };
            }
            let looked = turn("the recovery of payments", self.look()).await.unwrap_or(Ok(0));
            if now >= observe_at {
                observe_at = now.plus(OBSERVE_EVERY_MS);
                turn("the recovery of payments", self.observe()).await;
            }
            let pause = match looked {
                // Perhaps there is more.
                Ok(taken) if taken >= BATCH_MAX as usize => continue,
                Ok(_) => self.until_next().await,
                Err(why) => {
                    tracing::warn!(%why, "what is due could not be taken up; trying again");
                    FAILED_PAUSE
                }
            };
            // Whichever comes first: somebody says so, or it is time. A crowd of those is looked at once.
            let _ = tokio::time::timeout(pause, self.0.due.notified()).await;
            rt::time::sleep(GATHER).await;
        }
    }

    /// Forgets what waited for a second administrator and has lapsed, and webhooks that were heard long ago. Whether there are more.
    async fn sweep(&self, now: Millis) -> bool {
        let rows = &self.0.house.rows;
        let approvals = rows.approvals();
        let lapsed = async || approvals.sweep(now.plus(-STANDS_MS)).await;
        let heard = async || rows.sweep_heard(now.plus(-REMEMBERED_MS)).await;
        let more = forgotten("what waited for a second administrator and has lapsed", lapsed).await;
        forgotten("webhooks that were heard long ago", heard).await || more
    }

    async fn until_next(&self) -> Duration {
        let rows = &self.0.house.rows;
        match (rows.payments().next_due().await, rows.refunds().next_due().await) {
            (Ok(payment), Ok(refund)) => {
                let next = payment.into_iter().chain(refund).min();
                next.map_or(LOOK_EVERY, |at| self.0.house.clock.until(at).clamp(LOOK_AGAIN, LOOK_EVERY))
            }
            _ => FAILED_PAUSE,
        }
    }

    /// Takes up what is due; how much that was.
    pub async fn look(&self) -> Result<usize, NotDone> {
        let house = &self.0.house;
        self.look_at_hinted().await;
        if let Err(why) = self.make_due().await {
            tracing::warn!(%why, "what two have agreed upon cannot be looked at now");
        }
        let now = house.clock.now();
        let (payments, refunds) = house.rows.due(now, BATCH_MAX).await.map_err(unread)?;
        // Together, so that their claims are one group.
        let payments = join_all(payments.iter().map(|payment| self.take_up(payment))).await;
        let refunds = join_all(refunds.iter().map(|refund| self.take_up_refund(refund))).await;
        payments.into_iter().chain(refunds).try_fold(0, |sum, taken| Ok(sum + usize::from(taken?)))
    }

    /// Takes up a payment; `false`: somebody else has, or nobody more can be walked at the moment.
    async fn take_up(&self, payment: &Payment) -> Result<bool, NotDone> {
        let Ok(place) = self.place() else { return Ok(false) };
        let until = self.0.house.clock.now().plus(LEASE_MS);
        let Some(claimed) = self.0.book.claim(payment, until).await? else { return Ok(false) };
        let payments = self.clone();
        rt::spawn(async move {
            if let Some(mut walk) = payments.walk_of(claimed).await {
                walk.to_its_end().await;
            }
            drop(place);
        });
        Ok(true)
    }

    /// Takes up a payment wherever it stands; `None`: it has ended, somebody else has it, or it has to wait.
    pub async fn resume(&self, id: PaymentId) -> Result<Option<Walk>, NotDone> {
        let house = &self.0.house;
        let now = house.clock.now();
        let row = house.rows.payments().find(id).await.map_err(unread)?;
        let Some(row) = row.filter(|row| row.due_at.is_some_and(|due_at| due_at <= now)) else {
            return Ok(None);
        };
        let Some(claimed) = self.0.book.claim(&row, now.plus(LEASE_MS)).await? else { return Ok(None) };
        Ok(self.walk_of(claimed).await)
    }

    async fn walk_of(&self, payment: Payment) -> Option<Walk> {
        if payment.state == PaymentState::Started && !self.order_has_row(payment.order).await {
            tracing::warn!(payment = %payment.id, "the tables are behind: {} is taken up again later", payment.id);
            self.put_off(&payment).await;
            return None;
        }
        match self.0.house.orders.look(payment.order).await {
            // Somebody has decided so, and it is not through.
            Ok(Some(order)) if payment.state == PaymentState::Review => {
                return Some(Walk::giving_back(self, payment, &order));
            }
            Ok(Some(order)) => return Some(Walk::new(self, payment, &order, None)),
            Ok(None) => {
                tracing::error!(payment = %payment.id, order = %payment.order, "{} has no order", payment.id);
            }
            Err(why) => {
                tracing::warn!(payment = %payment.id, %why, "the order of {} cannot be read now", payment.id);
            }
        }
        self.put_off(&payment).await;
        None
    }

    /// Whoever began it may have died before its order had one.
    async fn order_has_row(&self, order: OrderId) -> bool {
        let house = &self.0.house;
        matches!(house.orders.has_row(order).await, Ok(true)) || house.flush.caught_up(FLUSH_WITHIN).await
    }

    async fn put_off(&self, payment: &Payment) {
        let clock = &self.0.house.clock;
        let due_at = clock.now().plus(back_off_ms(payment.tries, clock.chance()));
        // If this cannot be written the claim runs out, and it is taken up then.
        let _ = self.0.book.rest(payment, Some(due_at)).await;
        self.wake();
    }

    /// The provider has said something while they were walked: whoever walked them may not have heard it.
    async fn look_at_hinted(&self) {
        let _alone = self.0.saying.lock().await;
        let waiting = self.hinted().len();
        for _ in 0..waiting {
            let Some(id) = self.hinted().front().copied() else { return };
            let said = self.note_walked(id) || self.due_now(id).await.is_ok();
            // The event is noted and does not come again: it is let go once it is said, and what cannot be said now is said at
            // the next look.
            let mut hinted = self.hinted();
            hinted.pop_front();
            if !said {
                hinted.push_back(id);
            }
        }
    }

    /// `false`: there is nothing to try any more. In review nobody decides by trying.
    async fn due_now(&self, id: PaymentId) -> Result<bool, NotDone> {
        let house = &self.0.house;
        let may_move = |row: &Payment| {
            row.state.has_failed()
                || row.state == PaymentState::Review && row.due_at.is_some()
                || matches!(row.state, PaymentState::Started | PaymentState::Unknown | PaymentState::Captured)
        };
        let moving = async || -> Result<Option<Payment>, NotDone> {
            let row = house.rows.payments().find(id).await.map_err(unread)?;
            Ok(row.filter(may_move))
        };
        let due = async |row: &Payment| self.0.book.rest(row, Some(house.clock.now())).await;
        upon_newest(moving, due).await
    }

    /// Tries something that waits at once.
    pub async fn retry(&self, by: UserId, id: CompensationId) -> Result<Retried, NotDone> {
        let house = &self.0.house;
        let Some(waiting) = self.compensation(id).await? else { return Ok(Retried::NothingWaits) };
        if waiting.standing == Standing::Review {
            return Ok(Retried::Undecided);
        }
        let deed = Record::new(Deed::CompensationRetried, house.clock.now()).by(by).on(waiting.order);
        let deed = match id {
            CompensationId::Payment(id) => deed.id("payment", id),
            CompensationId::Refund(id) => deed.id("refund", id),
            CompensationId::Approval(id) => deed.id("approval", id),
        };
        house.trail.append(&deed).await.map_err(unread)?;
        let waits = match id {
            CompensationId::Payment(id) => self.due_now(id).await?,
            CompensationId::Refund(id) => self.refund_due_now(id).await?,
            CompensationId::Approval(id) => {
                house.rows.approvals().due_at(id, Some(house.clock.now())).await.map_err(unwritten)?;
                true
            }
        };
        self.wake();
        // It may have ended a moment ago.
        Ok(if waits { Retried::Now } else { Retried::NothingWaits })
    }

    /// A person has looked into a payment of another amount and keeps it: the order is sold. `None`: there is no such payment. What two
    /// have agreed upon is not left behind by one who hangs up.
    pub async fn accept(&self, by: Asker, id: PaymentId) -> Result<Option<Decided<PaymentSight>>, NotDone> {
        let payments = self.clone();
        to_the_end(async move { payments.keep(by, id).await }).await
    }

    async fn keep(&self, by: Asker, id: PaymentId) -> Result<Option<Decided<PaymentSight>>, NotDone> {
        let (payment, order, told) = match self.in_review(by, id, Verdict::Keep).await? {
            Review::Nothing => return Ok(None),
            Review::Decided(sight) => return Ok(Some(Decided::Done(sight))),
            Review::Waits(waits) => return Ok(Some(Decided::Waits(waits))),
            Review::Open { payment, order, is_agreed } => (payment, order, behind(is_agreed)),
        };
        let now = self.0.house.clock.now();
        let accepted = self.0.book.step(&payment, Move::to(PaymentState::Captured), Some(now)).await;
        let accepted = accepted.map_err(|why| told(why.into()))?;
        self.wake();
        let sight = match accepted {
            Some(accepted) => PaymentSight::fresh(accepted, false),
            None => self.decided_meanwhile(id, &order, Verdict::Keep).await.map_err(told)?,
        };
        Ok(Some(Decided::Done(sight)))
    }

    /// A person has looked into it and gives it back: the units are on sale again, and all that was taken goes back. Once it has
    /// begun it is walked to its end, by whomever; the row says how far it has come when this returns.
    pub async fn decline(&self, by: Asker, id: PaymentId) -> Result<Option<Decided<PaymentSight>>, NotDone> {
        let payments = self.clone();
        to_the_end(async move { payments.return_all(by, id).await }).await
    }

    async fn return_all(&self, by: Asker, id: PaymentId) -> Result<Option<Decided<PaymentSight>>, NotDone> {
        let (payment, order, told) = match self.in_review(by, id, Verdict::GiveBack).await? {
            Review::Nothing => return Ok(None),
            Review::Decided(sight) => return Ok(Some(Decided::Done(sight))),
            Review::Waits(waits) => return Ok(Some(Decided::Waits(waits))),
            Review::Open { payment, order, is_agreed } => (payment, order, behind(is_agreed)),
        };
        let mut walk = match self.begin_giving_back(&payment, &order).await {
            Err(NotDone::Refused { .. }) => {
                let sight = self.decided_meanwhile(id, &order, Verdict::GiveBack).await.map_err(told)?;
                return Ok(Some(Decided::Done(sight)));
            }
            walk => walk.map_err(told)?,
        };
        walk.to_its_end().await;
        self.wake();
        Ok(Some(Decided::Done(PaymentSight::fresh(walk.payment().clone(), false))))
    }

    /// Somebody else has moved it since it was looked at: it may be that he has decided the same.
    async fn decided_meanwhile(
        &self,
        id: PaymentId,
        order: &Order,
        verdict: Verdict,
    ) -> Result<PaymentSight, NotDone> {
        match self.0.house.rows.payments().find(id).await.map_err(unread)? {
            Some(payment) if verdict.stands_in(&payment) => self.sight(payment, order).await,
            Some(payment) => Err(refused(order, no_decision(payment.state))),
            None => Err(refused(order, Refusal::PaymentRunning)),
        }
    }

    /// Takes up a payment in review in order to give it back. Nothing moves here, and nobody keeps it any more: a row in review
    /// that is due is one whose money goes back.
    pub async fn begin_giving_back(&self, payment: &Payment, order: &Order) -> Result<Walk, NotDone> {
        let until = self.0.house.clock.now().plus(LEASE_MS);
        let claimed = self.0.book.claim(payment, until).await?;
        let claimed = claimed.ok_or_else(|| refused(order, Refusal::PaymentRunning))?;
        Ok(Walk::giving_back(self, claimed, order))
    }

    /// A payment that waits for a decision; the decision is written down before it is made.
    async fn in_review(&self, by: Asker, id: PaymentId, verdict: Verdict) -> Result<Review, NotDone> {
        let house = &self.0.house;
        let Some(payment) = house.rows.payments().find(id).await.map_err(unread)? else {
            return Ok(Review::Nothing);
        };
        let order = house.orders.look(payment.order).await?.ok_or(NotDone::Internal)?;
        if verdict.stands_in(&payment) {
            return Ok(Review::Decided(self.sight(payment, &order).await?));
        }
        if payment.state != PaymentState::Review || payment.due_at.is_some() {
            return Err(refused(&order, no_decision(payment.state)));
        }
        // Money of another currency pays for nothing here: it can only go back.
        if matches!(verdict, Verdict::Keep) && payment.captured_in != payment.amount.currency {
            return Err(refused(&order, Refusal::PaymentRunning));
        }
        let (deed, what, restock) = match verdict {
            Verdict::Keep => (Deed::ReviewAccepted, What::Accept, Restock::Leave),
            Verdict::GiveBack => (Deed::ReviewGivenBack, What::GiveBack, Restock::ToStock),
        };
        let (order_id, amount) = (payment.order, payment.taken());
        let asked = Asked { what, order: order_id, payment: id, refund: None, line: None, amount, restock };
        let _alone = self.alone(order_id).await?;
        let agreed = match self.decided_by(by, asked, verdict.weighs(&payment), 0).await? {
            Decided::Done(agreed) => agreed,
            Decided::Waits(waits) => return Ok(Review::Waits(waits)),
        };
        let is_agreed = agreed.is_some();
        let deed = Record::new(deed, house.clock.now()).by(by.user).on(payment.order).id("payment", id);
        let deed = deed.by_two(agreed.and_then(|agreed| agreed.two()));
        house.trail.append(&deed).await.map_err(|error| behind(is_agreed)(unread(error)))?;
        Ok(Review::Open { payment: Box::new(payment), order: Box::new(order), is_agreed })
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::persistence::money::NotWritten;

    /// What somebody hears whose writes come to these ends, one after the other; and how many of them there were.
    async fn heard(ends: &[Result<bool, Unkept>]) -> (Result<bool, NotDone>, usize) {
        let written = Cell::new(0);
        let write = async |row: &usize| -> Result<Option<usize>, Unkept> {
            assert_eq!(*row, written.get(), "it was read again");
            written.set(row + 1);
            ends.get(*row).copied().unwrap_or(Ok(false)).map(|is_ours| is_ours.then_some(*row))
        };
        let said = upon_newest(async || Ok(Some(written.get())), write).await;
        (said, written.get())
    }

    #[tokio::test]
    async fn what_somebody_else_has_moved_is_read_and_written_again() {
        assert_eq!(heard(&[Ok(true)]).await, (Ok(true), 1));
        assert_eq!(heard(&[Ok(false), Ok(false), Ok(true)]).await, (Ok(true), 3));
        let busy = NotDone::Busy { retry_after_ms: MOVED_RETRY_MS };
        assert_eq!(heard(&[]).await, (Err(busy), TRIES_MAX), "not for ever");
    }

    async fn never(_: &usize) -> Result<Option<usize>, Unkept> {
        unreachable!("nothing was read")
    }

    #[tokio::test]
    async fn what_was_not_written_is_not_said_to_be() {
        assert!(matches!(heard(&[Err(Unkept::Full)]).await, (Err(NotDone::Busy { .. }), 1)));
        assert_eq!(heard(&[Err(Unkept::Unknown)]).await, (Err(NotDone::Unknown), 1));
        assert_eq!(heard(&[Ok(false), Err(Unkept::Unknown)]).await, (Err(NotDone::Unknown), 2));
        let wrong = Unkept::Wrong(NotWritten::NoSuchRefund);
        assert_eq!(heard(&[Err(wrong)]).await, (Err(NotDone::Internal), 1));
        assert_eq!(upon_newest(async || Err(NotDone::Unavailable), never).await, Err(NotDone::Unavailable));
        assert_eq!(upon_newest(async || Ok(None), never).await, Ok(false));
    }
}
