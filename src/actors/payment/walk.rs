//! One walk of one payment: the pure saga decides what is next, and here it is done.
//!
//! A walk is a value that is advanced step by step and may be dropped between any two of them, which is what a crash does; the
//! row says how far it had come, and whoever takes it up goes on from there. Always true: the provider is called only while
//! the claim on the row has time for a whole call, by our own clock.

use super::{Here, LEASE_MS, Payments, ROW_WITHIN, back_off_ms};
use crate::actors::flusher::Asked;
use crate::actors::stock::{Answer, NotDone, Reply};
use crate::domain::delivery::SoldLine;
use crate::domain::order::Order;
use crate::domain::payment::{
    Call, Do, Heard, Line, Move, OwnerSaid, Payment, PaymentState, ProviderSaid, Saga, Status,
};
use crate::domain::stock::Millis;
use crate::provider::{self, CALL_WITHIN, Charge, ProviderError, Seen};
use crate::telemetry;

/// A payment on its way.
pub struct Walk {
    payments: Payments,
    saga: Saga,
    next: Do,
    /// What is delivered once it is paid.
    sold: Vec<SoldLine>,
    /// The order's row, which is waited for before the provider is called or anything is written.
    row: Option<Asked>,
    /// Until then nobody else takes it up.
    claimed_until: Millis,
    /// The row says already when it is taken up again.
    rests: bool,
    /// Somebody else has it.
    lost: bool,
    here: Here,
}

impl Walk {
    /// `order` is what is paid for. `row`, which has been asked for: the payment's own was written a moment ago, by us.
    pub(super) fn new(payments: &Payments, payment: Payment, order: &Order, row: Option<Asked>) -> Walk {
        let lines = order.lines.iter().map(|line| Line { product: line.product, quantity: line.quantity });
        let claimed_until = payment.due_at.unwrap_or(payment.updated_at);
        let here = Here::walking(payments, payment.id);
        let limits = payments.0.house.limits;
        let mut saga = Saga::new(payment, lines.collect(), order.hold_expires_at, limits, row.is_some());
        let next = saga.start();
        let payments = payments.clone();
        let sold = SoldLine::of(order);
        Walk { payments, saga, next, sold, row, claimed_until, rests: false, lost: false, here }
    }

    /// All that was taken goes back, and no line stays held: what a person has decided.
    pub(super) fn giving_back(payments: &Payments, payment: Payment, order: &Order) -> Walk {
        let mut walk = Walk::new(payments, payment, order, None);
        walk.next = walk.saga.give_back();
        walk
    }

    /// The payment as its row is, as far as this walk knows.
    pub fn payment(&self) -> &Payment {
        self.saga.payment()
    }

    /// What will be done next.
    pub fn next(&self) -> &Do {
        &self.next
    }

    /// Whether somebody else has taken it up.
    pub fn is_lost(&self) -> bool {
        self.lost
    }

    /// The payment as it will stand in its row, once every line is sold: nobody has to wait for the row.
    pub fn sold(&self) -> Option<Payment> {
        match &self.next {
            Do::Write(step @ Move { to: PaymentState::Paid, .. }) => {
                self.payment().moved(step, self.payments.0.house.clock.now()).ok()
            }
            _ => None,
        }
    }

    /// Walks until there is nothing more to do, or nothing more can be done now.
    pub async fn to_its_end(&mut self) {
        while self.step().await {}
    }

    /// Does one thing. `false`: the walk is over.
    pub async fn step(&mut self) -> bool {
        // Not before the pins: while it is waited for no hold lapses.
        if matches!(self.next, Do::Call(_) | Do::Write(_))
            && let Some(mut row) = self.row.take()
            && !row.shown(ROW_WITHIN).await
        {
            self.next = Do::Rest;
        }
        let heard = match std::mem::replace(&mut self.next, Do::End) {
            Do::Ask(product, command) => {
                Heard::Owner(said(self.payments.0.house.directory.ask(product, command).await))
            }
            Do::Call(call) => match self.call(call).await {
                Some(said) => Heard::Provider(said),
                None => return false,
            },
            Do::Write(step) => match self.write(step).await {
                Some(payment) => Heard::Written(Box::new(payment)),
                None => return false,
            },
            Do::Rest => {
                self.rest().await;
                return false;
            }
            Do::End => {
                self.let_go().await;
                return false;
            }
        };
        self.next = self.saga.heard(heard, self.payments.0.house.clock.now());
        true
    }

    /// The claim has time for a whole call, or gets it. `None`: it is over, or somebody else has it. A process that was stopped
    /// meanwhile has lost its claim and does not know it.
    async fn keep_claim(&mut self) -> Option<()> {
        loop {
            // Also after a renewal: it may have taken as long as the claim.
            let now = self.payments.0.house.clock.now();
            if !needs_time(now, self.claimed_until)? {
                return Some(());
            }
            let until = now.plus(LEASE_MS);
            match self.payments.0.book.rest(self.payment(), Some(until)).await {
                Ok(Some(row)) => {
                    self.claimed_until = until;
                    self.saga.renewed(row);
                }
                Ok(None) => {
                    self.lost = true;
                    return None;
                }
                Err(_) => return None,
            }
        }
    }

    /// `None`: the claim is over. Whoever takes it up next asks.
    async fn call(&mut self, call: Call) -> Option<ProviderSaid> {
        let payments = self.payments.clone();
        let _place = payments.0.calls.acquire().await.ok()?;
        self.keep_claim().await?;
        let house = &payments.0.house;
        let payment = self.payment();
        let ask = Charge {
            payment: payment.id,
            order: payment.order,
            amount: payment.amount,
            method: payment.method.as_ref(),
            provider_ref: payment.provider_ref.as_deref(),
            started_at: payment.created_at,
        };
        let answer = match call {
            Call::Charge => house.provider.charge(&ask).await.map(Some),
            Call::Find => house.provider.find(&ask).await,
            Call::Cancel => house.provider.cancel(&ask).await.map(Some),
        };
        Some(heard(answer))
    }

    /// `None`: somebody else has moved it, or it could not be written.
    async fn write(&mut self, mut step: Move) -> Option<Payment> {
        if step.to == PaymentState::Paid {
            step.sold = self.sold.clone();
        }
        let now = self.payments.0.house.clock.now();
        let (from, to) = (self.payment().state, step.to);
        let due_at = match to {
            // The walk rests after this, and one write says both.
            PaymentState::Unknown => now.plus(self.pause_ms()),
            // What is still to be done asks owners alone and takes a moment: the claim is left as it is, and need not be written.
            PaymentState::Captured if now.plus(LEASE_MS / 2) < self.claimed_until => self.claimed_until,
            _ => now.plus(LEASE_MS),
        };
        let book = &self.payments.0.book;
        let written = match book.step(self.payment(), step.clone(), Some(due_at)).await {
            // Somebody gives money back at this moment: that the order is paid is as true as before.
            Ok(None) if to == PaymentState::Paid => {
                let row = self.payments.0.house.rows.payments().find(self.payment().id).await.ok().flatten();
                match row.filter(|row| row.state == PaymentState::Captured) {
                    Some(row) => book.step(&row, step, Some(due_at)).await,
                    None => Ok(None),
                }
            }
            written => written,
        };
        match written {
            Ok(Some(payment)) => {
                self.claimed_until = due_at;
                self.rests = to == PaymentState::Unknown;
                self.payments.moved(from, &payment);
                Some(payment)
            }
            Ok(None) => {
                self.lost = true;
                None
            }
            Err(error) => {
                tracing::warn!(payment = %self.payment().id, %error, "{} could not be moved to {}, and is taken up again later",
                    self.payment().id, to.as_str());
                None
            }
        }
    }

    fn pause_ms(&self) -> i64 {
        back_off_ms(self.payment().tries, self.payments.0.house.clock.chance())
    }

    async fn rest(&mut self) {
        if self.rests {
            return self.payments.wake();
        }
        let due_at = self.payments.0.house.clock.now().plus(self.pause_ms());
        // If this cannot be written the claim runs out, and it is taken up then.
        let _ = self.payments.0.book.rest(self.payment(), Some(due_at)).await;
        self.payments.wake();
    }

    /// What has ended, and was only looked at, need not be looked at again.
    async fn let_go(&self) {
        let (payment, house) = (self.payment(), &self.payments.0.house);
        // What the provider said meanwhile may have come after it was asked, and its event does not come again: the row says
        // that somebody has to ask once more, also when nobody here lives to do it.
        let again = || payment.state.has_failed() && self.here.is_hinted();
        if again() || !payment.state.is_open() && payment.due_at.is_some() {
            let due_at = again().then(|| house.clock.now());
            let rests = self.payments.0.book.rest(payment, due_at).await;
            // It was said while this was being written.
            if let (None, true, Ok(Some(row))) = (due_at, again(), rests) {
                let _ = self.payments.0.book.rest(&row, Some(house.clock.now())).await;
            }
        }
        if payment.state == PaymentState::Orphaned {
            self.payments.wake();
        }
    }
}

/// Whether a claim must be renewed before the provider is called. `None`: it is over.
pub(super) fn needs_time(now: Millis, claimed_until: Millis) -> Option<bool> {
    let call_ms = i64::try_from(CALL_WITHIN.as_millis()).unwrap_or(i64::MAX);
    (now < claimed_until).then(|| now.plus(call_ms) > claimed_until)
}

/// An owner's answer, as the rule hears it.
pub(super) fn said(reply: Reply) -> OwnerSaid {
    match reply {
        Ok(Answer::Done { .. }) => OwnerSaid::Done,
        Err(NotDone::Refused { refused, .. }) => OwnerSaid::Refused(refused.why),
        Ok(_) | Err(_) => OwnerSaid::NotNow,
    }
}

fn heard(answer: Result<Option<Seen>, ProviderError>) -> ProviderSaid {
    match answer {
        Ok(Some(Seen { provider_ref, status, amount, captured, .. })) => ProviderSaid::Seen {
            status: match status {
                provider::Status::Captured => Status::Captured,
                provider::Status::Declined { code } => Status::Declined(code),
                provider::Status::Cancelled => Status::Cancelled,
                provider::Status::Pending => Status::Pending,
            },
            provider_ref,
            amount,
            captured,
        },
        Ok(None) => ProviderSaid::Absent,
        Err(ProviderError::Unknown | ProviderError::Spent) => ProviderSaid::Unknown,
        Err(ProviderError::NotNow) => ProviderSaid::NotNow,
        Err(ProviderError::Refused { code }) => ProviderSaid::Refused(code),
    }
}

impl Payments {
    /// A payment's row has moved: it is counted once, by whoever moved it.
    fn moved(&self, from: PaymentState, payment: &Payment) {
        if from == payment.state {
            return;
        }
        telemetry::payment_moved(payment.state.as_str());
        if payment.state == PaymentState::Paid {
            let took = payment.updated_at.0.saturating_sub(payment.created_at.0).max(0);
            self.0.house.metrics.payment_seconds.record(took as f64 / 1e3);
        }
        let (id, order) = (payment.id, payment.order);
        let reason = payment.reason.as_deref().unwrap_or_default();
        match payment.state {
            PaymentState::Review => {
                tracing::error!(payment = %id, %order, captured = ?payment.taken(), asked = ?payment.amount,
                    "{id}: the provider took another amount than was asked for; it is held for review");
            }
            PaymentState::Orphaned => {
                tracing::warn!(payment = %id, %order, reason, "{id}: money came for an order that has ended; it goes back");
            }
            _ => {}
        }
    }
}
