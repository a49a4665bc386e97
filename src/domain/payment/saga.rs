//! The walk of one payment: pin every line, charge, confirm every line; or undo in reverse.
//!
//! A pure state machine, linear: one thing to do at a time, and what is heard of it leads to the next. The same walk serves a
//! buyer who waits and a payment that is taken up again after a crash, when nobody knows how far it had come: then it asks the
//! provider first, for the provider alone knows whether money moved. Every step may be told twice.
//!
//! Before the charge everything can be undone. After it a line that cannot be sold is a bug somewhere, and even then nobody pays
//! for it: the money goes back.

use super::{AMOUNT_MISMATCH, Attempt, Move, Payment, PaymentState};
use crate::domain::amount::{Money, Quantity};
use crate::domain::id::{OrderId, ProductId};
use crate::domain::stock::{Back, CameBack, Cause, Command, Millis, Refusal};

/// How often an owner that is busy or away is asked again before the payment rests.
const ASKS_MAX: u32 = 3;

/// Why a payment was cancelled that the provider would not even look at: the mistake is ours, not the card's.
pub const PROVIDER_REFUSED: &str = "provider_refused";

/// One line of the order, as the payment needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    pub product: ProductId,
    pub quantity: Quantity,
}

/// What the shop has decided about payments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Attempts an order has before its units are given back.
    pub attempts_max: u8,
    /// As long as this after its beginning a charge that nobody has heard of is sent again.
    pub charge_again_ms: i64,
    /// After this an unknown payment is called off.
    pub give_up_ms: i64,
}

/// What to ask the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// Take the money. Told twice it is taken once.
    Charge,
    /// What has become of it?
    Find,
    /// Make sure that nothing can be taken any more.
    Cancel,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Do {
    /// Ask the product's owner.
    Ask(ProductId, Command),
    /// Ask the provider. Only while the claim on the row is ours.
    Call(Call),
    /// Move the row; it is heard when that is durable.
    Write(Move),
    /// Nothing can be done now: let go, and take it up again later.
    Rest,
    /// The walk is over: the row says what came of it.
    End,
}

/// What an owner said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnerSaid {
    Done,
    Refused(Refusal),
    /// Busy, away, or nobody knows: to be asked again.
    NotNow,
}

/// How a payment stands at the provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    Captured,
    /// The bank said no, with the provider's word for why.
    Declined(String),
    Cancelled,
    /// It has not decided.
    Pending,
}

/// What the provider said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProviderSaid {
    Seen {
        status: Status,
        provider_ref: String,
        /// The amount as the provider has it, and what it took of it in minor units.
        amount: Money,
        captured: i64,
    },
    /// It has never heard of it.
    Absent,
    /// Nobody knows what it did.
    Unknown,
    /// It has certainly not done it, and may do it later.
    NotNow,
    /// It does not take such a request, ever: by this call nothing was charged.
    Refused(String),
}

/// What came of what was to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    Owner(OwnerSaid),
    Provider(ProviderSaid),
    /// The row as it is now.
    Written(Box<Payment>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The line at this place is to be pinned.
    Pinning(usize),
    /// A pin was refused because the line does not know yet that its order was born.
    Keeping(usize),
    Calling(Call),
    /// As many lines, counted from the last, are confirmed: the home comes at the end, and with it the order is paid.
    Confirming(usize),
    /// As many lines, counted from the last, are as if nothing had been.
    Undoing(usize),
    /// The row is being moved; what follows from its state follows then.
    Writing,
    Over,
}

/// One walk of one payment.
#[derive(Debug, Clone)]
pub struct Saga {
    payment: Payment,
    /// In order of product id, the home first.
    lines: Vec<Line>,
    /// Until when the order's holds stand, for a line that was not told.
    deadline: Millis,
    limits: Limits,
    phase: Phase,
    /// What is written when the undoing is over.
    undone: Move,
    asks: u32,
    /// Nobody else can have called the provider for this payment.
    fresh: bool,
}

impl Saga {
    /// `fresh`: the row was written a moment ago by whoever begins. Otherwise it is taken up again, and the provider is asked
    /// first. `lines` are never empty.
    pub fn new(
        payment: Payment,
        mut lines: Vec<Line>,
        deadline: Millis,
        limits: Limits,
        fresh: bool,
    ) -> Saga {
        lines.sort_by_key(|line| line.product);
        let undone = Move::to(PaymentState::Cancelled);
        Saga { payment, lines, deadline, limits, phase: Phase::Over, undone, asks: 0, fresh }
    }

    /// The row as the walk knows it.
    pub fn payment(&self) -> &Payment {
        &self.payment
    }

    /// The claim on the row was renewed: it says the same under another version.
    pub fn renewed(&mut self, row: Payment) {
        self.payment = row;
    }

    /// The first thing to do.
    pub fn start(&mut self) -> Do {
        match self.payment.state {
            PaymentState::Started if self.fresh || self.is_free() => self.pin(0),
            PaymentState::Captured => self.confirm(0),
            // Ended ones are looked at when the provider says that it has changed its mind.
            _ => self.call(Call::Find),
        }
    }

    /// The first thing to do when a person has decided that what was taken goes back.
    pub fn give_back(&mut self) -> Do {
        let reason = Some("given_back".to_owned());
        self.undo(Move { reason, give_back: true, ..Move::to(PaymentState::Orphaned) })
    }

    /// What to do after what was heard.
    pub fn heard(&mut self, heard: Heard, now: Millis) -> Do {
        match (self.phase, heard) {
            (Phase::Pinning(at), Heard::Owner(said)) => self.pin_heard(at, said),
            (Phase::Keeping(at), Heard::Owner(OwnerSaid::NotNow)) => self.again(Phase::Keeping(at)),
            (Phase::Keeping(at), Heard::Owner(_)) => self.pin(at),
            (Phase::Calling(call), Heard::Provider(said)) => self.provider_heard(call, said, now),
            (Phase::Confirming(done), Heard::Owner(said)) => self.confirm_heard(done, said),
            (Phase::Undoing(done), Heard::Owner(said)) => self.undo_heard(done, said),
            (Phase::Writing, Heard::Written(payment)) => self.written(*payment),
            // Something else than what was asked about: whoever takes it up again asks anew.
            (_, _) => self.rest(),
        }
    }

    fn order(&self) -> OrderId {
        self.payment.order
    }

    fn attempt(&self) -> Attempt {
        self.payment.attempt
    }

    fn rest(&mut self) -> Do {
        self.phase = Phase::Over;
        Do::Rest
    }

    fn end(&mut self) -> Do {
        self.phase = Phase::Over;
        Do::End
    }

    fn write(&mut self, step: Move) -> Do {
        self.phase = Phase::Writing;
        Do::Write(step)
    }

    /// Asks the same once more, a few times.
    fn again(&mut self, phase: Phase) -> Do {
        self.asks += 1;
        if self.asks >= ASKS_MAX {
            return self.rest();
        }
        match phase {
            Phase::Pinning(at) => self.ask_pin(at),
            Phase::Keeping(at) => self.ask_keep(at),
            Phase::Confirming(done) => self.ask_confirm(done),
            Phase::Undoing(done) => self.ask_undo(done),
            _ => self.rest(),
        }
    }

    // --- pin ------------------------------------------------------------------------------------------------------------

    /// Pins the line at this place, or goes on when all are pinned.
    fn pin(&mut self, at: usize) -> Do {
        self.asks = 0;
        if at < self.lines.len() {
            return self.ask_pin(at);
        }
        // No provider takes nothing: what is free is paid as soon as it is pinned.
        if self.is_free() {
            let captured = Some(self.payment.amount);
            return self.write(Move { captured, ..Move::to(PaymentState::Captured) });
        }
        self.call(Call::Charge)
    }

    fn is_free(&self) -> bool {
        self.payment.amount.amount == 0
    }

    fn ask_pin(&mut self, at: usize) -> Do {
        let Some(line) = self.lines.get(at) else { return self.rest() };
        self.phase = Phase::Pinning(at);
        Do::Ask(line.product, Command::Pin { order: self.order(), attempt: self.attempt() })
    }

    fn ask_keep(&mut self, at: usize) -> Do {
        let Some(line) = self.lines.get(at) else { return self.rest() };
        self.phase = Phase::Keeping(at);
        Do::Ask(line.product, Command::Keep { order: self.order(), deadline: self.deadline })
    }

    fn pin_heard(&mut self, at: usize, said: OwnerSaid) -> Do {
        match said {
            OwnerSaid::Done => self.pin(at + 1),
            OwnerSaid::Refused(Refusal::StillPlacing) => {
                self.asks = 0;
                self.ask_keep(at)
            }
            OwnerSaid::Refused(why) => {
                let reason = match why {
                    Refusal::HoldExpired => "hold_expired",
                    _ => "order_ended",
                };
                self.undo(Move { reason: Some(reason.to_owned()), ..Move::to(PaymentState::Cancelled) })
            }
            OwnerSaid::NotNow => self.again(Phase::Pinning(at)),
        }
    }

    // --- charge ---------------------------------------------------------------------------------------------------------

    fn call(&mut self, call: Call) -> Do {
        self.phase = Phase::Calling(call);
        Do::Call(call)
    }

    fn provider_heard(&mut self, call: Call, said: ProviderSaid, now: Millis) -> Do {
        let age = now.0.saturating_sub(self.payment.created_at.0);
        let open = self.payment.state.is_open();
        match said {
            ProviderSaid::Seen { status, provider_ref, amount, captured } => {
                let provider_ref = Some(provider_ref).filter(|name| !name.is_empty());
                let seen = Move { provider_ref, ..Move::to(self.payment.state) };
                self.seen(call, status, amount, captured, seen, age)
            }
            // What has ended and was never heard of is over.
            ProviderSaid::Absent if !open => self.end(),
            ProviderSaid::Absent if call == Call::Cancel => self.undo(given_up()),
            ProviderSaid::Absent if age < self.limits.charge_again_ms => {
                self.fresh = false;
                self.pin(0)
            }
            ProviderSaid::Absent => self.call(Call::Cancel),
            // Of this call alone it is certain that nothing came of it: an earlier one may have taken the money.
            ProviderSaid::Refused(_) if open && call == Call::Charge && self.fresh => {
                let reason = Some(PROVIDER_REFUSED.to_owned());
                self.undo(Move { reason, ..Move::to(PaymentState::Cancelled) })
            }
            ProviderSaid::NotNow | ProviderSaid::Unknown | ProviderSaid::Refused(_) => {
                self.in_doubt(call, age, None)
            }
        }
    }

    /// Nobody knows, for now. The row says so once, and once more when the provider has told its name for it: by that it is
    /// found without looking through all that it has.
    fn in_doubt(&mut self, call: Call, age: i64, name: Option<String>) -> Do {
        let name = name.filter(|name| self.payment.provider_ref.as_ref() != Some(name));
        match self.payment.state {
            PaymentState::Unknown if call != Call::Cancel && age >= self.limits.give_up_ms => {
                self.payment.provider_ref = name.or_else(|| self.payment.provider_ref.take());
                self.call(Call::Cancel)
            }
            PaymentState::Unknown if name.is_none() => self.rest(),
            PaymentState::Started | PaymentState::Unknown => {
                self.write(Move { provider_ref: name, ..Move::to(PaymentState::Unknown) })
            }
            _ => self.rest(),
        }
    }

    fn seen(&mut self, call: Call, status: Status, amount: Money, captured: i64, seen: Move, age: i64) -> Do {
        let state = self.payment.state;
        let taken = Money { amount: captured, ..amount };
        match status {
            Status::Captured if matches!(state, PaymentState::Started | PaymentState::Unknown) => {
                let mismatch = if amount.currency != self.payment.amount.currency {
                    Some("currency_mismatch")
                } else if amount != self.payment.amount || taken != amount {
                    Some(AMOUNT_MISMATCH)
                } else {
                    None
                };
                let to = if mismatch.is_some() { PaymentState::Review } else { PaymentState::Captured };
                let reason = mismatch.map(str::to_owned);
                self.write(Move { to, reason, captured: Some(taken), ..seen })
            }
            // The order has ended without it.
            Status::Captured if state.has_failed() => {
                let to = PaymentState::Orphaned;
                self.write(Move { to, captured: Some(taken), give_back: true, ..seen })
            }
            Status::Declined(code) if state.is_open() => {
                self.undo(Move { to: PaymentState::Declined, reason: Some(code), ..seen })
            }
            Status::Cancelled if state.is_open() => {
                self.undo(Move { to: PaymentState::Cancelled, ..given_up() })
            }
            Status::Pending if state.is_open() => self.in_doubt(call, age, seen.provider_ref),
            // Nothing new.
            _ => self.end(),
        }
    }

    // --- the row --------------------------------------------------------------------------------------------------------

    fn written(&mut self, payment: Payment) -> Do {
        let state = payment.state;
        self.payment = payment;
        match state {
            PaymentState::Captured => self.confirm(0),
            PaymentState::Unknown | PaymentState::Started => self.rest(),
            PaymentState::Paid
            | PaymentState::Declined
            | PaymentState::Cancelled
            | PaymentState::Review
            | PaymentState::Orphaned => self.end(),
        }
    }

    // --- confirm --------------------------------------------------------------------------------------------------------

    /// Confirms the next line from the end, or says that all are sold.
    fn confirm(&mut self, done: usize) -> Do {
        self.asks = 0;
        if done < self.lines.len() {
            self.ask_confirm(done)
        } else {
            self.write(Move::to(PaymentState::Paid))
        }
    }

    fn ask_confirm(&mut self, done: usize) -> Do {
        let Some(line) = self.lines.iter().rev().nth(done) else { return self.rest() };
        let (order, attempt, quantity) = (self.order(), self.attempt(), line.quantity);
        self.phase = Phase::Confirming(done);
        Do::Ask(line.product, Command::Confirm { order, quantity, attempt })
    }

    fn confirm_heard(&mut self, done: usize, said: OwnerSaid) -> Do {
        match said {
            OwnerSaid::Done => self.confirm(done + 1),
            OwnerSaid::NotNow => self.again(Phase::Confirming(done)),
            // A pinned hold cannot end but by us. If it did, what is not sold is not paid for either.
            OwnerSaid::Refused(_) => {
                let reason = Some("order_ended".to_owned());
                self.undo(Move { reason, give_back: true, ..Move::to(PaymentState::Orphaned) })
            }
        }
    }

    // --- undo -----------------------------------------------------------------------------------------------------------

    /// Undoes line by line, last first, and then writes why.
    fn undo(&mut self, undone: Move) -> Do {
        self.undone = undone;
        self.undo_from(0)
    }

    fn undo_from(&mut self, done: usize) -> Do {
        self.asks = 0;
        if done < self.lines.len() {
            self.ask_undo(done)
        } else {
            let undone = self.undone.clone();
            self.write(undone)
        }
    }

    /// A decline with attempts left lets the hold stand; everything else gives the units back.
    fn ask_undo(&mut self, done: usize) -> Do {
        let Some(line) = self.lines.iter().rev().nth(done) else { return self.rest() };
        let (order, attempt) = (self.order(), self.attempt());
        self.phase = Phase::Undoing(done);
        let tries_again =
            self.undone.to == PaymentState::Declined && attempt.get() < self.limits.attempts_max;
        let command = if tries_again {
            Command::Unpin { order, attempt }
        } else {
            Command::Release { order, cause: Cause::PaymentFailed, by: u64::from(attempt.get()) }
        };
        Do::Ask(line.product, command)
    }

    fn undo_heard(&mut self, done: usize, said: OwnerSaid) -> Do {
        match said {
            OwnerSaid::NotNow => self.again(Phase::Undoing(done)),
            // Sold before another line could not be: it comes back. What was given back out of a review was never sold by us: if it is
            // sold now, somebody else has accepted the payment meanwhile, and our row will say so.
            OwnerSaid::Refused(Refusal::AlreadySold)
                if self.undone.to == PaymentState::Orphaned
                    && self.payment.state == PaymentState::Captured =>
            {
                let Some(line) = self.lines.iter().rev().nth(done) else { return self.rest() };
                let (order, quantity) = (self.order(), line.quantity);
                let (back, why, by) = (Back::ToStock, CameBack::Cancelled, u64::from(self.attempt().get()));
                Do::Ask(line.product, Command::Return { order, quantity, back, why, by })
            }
            // Ended before, by us or by itself: nothing is left to undo here.
            OwnerSaid::Done | OwnerSaid::Refused(_) => self.undo_from(done + 1),
        }
    }
}

fn given_up() -> Move {
    Move { reason: Some("given_up".to_owned()), ..Move::to(PaymentState::Cancelled) }
}
