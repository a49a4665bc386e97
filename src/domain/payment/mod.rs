//! Money for an order: one attempt to pay it, where it stands, and which moves are legal.
//!
//! A payment's id follows from its order and the number of the attempt, so whoever begins it twice begins the same one.
//! Always true: its row is durable before anything is pinned or charged for it, every line is pinned before money
//! moves, and once money has moved it only goes forward: the order is sold, or the money goes back.

mod approval;
mod begin;
mod giving;
mod refund;
mod saga;
mod status;
#[cfg(test)]
mod tests;

pub use approval::{Approval, Asked, Asker, FourEyes, Hand, STANDS_MS, Seconded, What};
pub use begin::{Begin, begin};
pub use giving::{Give, GiveHeard, GivenLine, Giving, RefundSaid, RefundStep};
pub use refund::{
    Cause, FAILED, NO_ANSWER, Refund, RefundState, Restock, SETTLED, SPENT, SPENT_AGAIN, SPENT_MS,
    TRIED_AGAIN,
};
pub use saga::{Call, Do, Heard, Limits, Line, OwnerSaid, PROVIDER_REFUSED, ProviderSaid, Saga, Status};
pub use status::PaymentStatus;

use std::fmt;

use xxhash_rust::xxh3::xxh3_128;

use super::amount::{Currency, Money};
use super::delivery::SoldLine;
use super::id::{OrderId, PaymentId, UserId};
use super::stock::{Attempt, KeyUse, Millis};

impl PaymentId {
    /// The payment that is this attempt at this order. It sorts by the order's time.
    pub fn of(order: OrderId, attempt: Attempt) -> PaymentId {
        let mut name = [0; 17];
        name[..16].copy_from_slice(order.as_bytes());
        name[16] = attempt.get();
        PaymentId::new(order.made_at(), xxh3_128(&name))
    }
}

/// What is paid with: a word of the provider's that stands for a card. No card number ever comes this far.
#[derive(Clone, PartialEq, Eq)]
pub struct Method {
    token: String,
}

/// Why a word is not taken as a means of payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAMethod {
    #[error("a token is 1 to 255 visible ASCII characters")]
    Shape,
    #[error("this is a card number: cards are entered at the payment provider, never here")]
    CardNumber,
}

const TOKEN_LEN_MAX: usize = 255;

impl Method {
    pub fn card(token: &str) -> Result<Method, NotAMethod> {
        let visible = token.bytes().all(|letter| letter.is_ascii_graphic());
        if token.is_empty() || token.len() > TOKEN_LEN_MAX || !visible {
            // Spaces between groups of digits do not make a card number something else.
            return Err(if is_card_number(token) { NotAMethod::CardNumber } else { NotAMethod::Shape });
        }
        if is_card_number(token) {
            return Err(NotAMethod::CardNumber);
        }
        Ok(Method { token: token.to_owned() })
    }

    /// The provider's word.
    pub fn token(&self) -> &str {
        &self.token
    }
}

impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("…")
    }
}

/// Thirteen to nineteen digits that pass the check of ISO/IEC 7812-1, separators aside.
fn is_card_number(word: &str) -> bool {
    let separates = |letter: &char| matches!(letter, ' ' | '-' | '.' | '/' | '_');
    let letters = word.chars().filter(|letter| !separates(letter));
    let Some(digits) = letters.map(|letter| letter.to_digit(10)).collect::<Option<Vec<u32>>>() else {
        return false;
    };
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| match at % 2 {
            0 => *digit,
            _ => digit * 2 / 10 + digit * 2 % 10,
        })
        .sum();
    (13..=19).contains(&digits.len()) && sum.is_multiple_of(10)
}

/// Where a payment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PaymentState {
    /// It is written down; pins and charge may have happened or not.
    Started,
    /// The provider was asked and nobody knows what it did: it is asked about until somebody does.
    Unknown,
    /// The money is ours; lines are being confirmed.
    Captured,
    /// Every line is sold. What is given back later is counted beside it.
    Paid,
    /// The bank said no; the units are back, or the hold stands for another attempt.
    Declined,
    /// It ended before money moved.
    Cancelled,
    /// The provider took another amount than was asked for: held for a person, pins and all.
    Review,
    /// Money came for an order that has ended: it goes back.
    Orphaned,
}

/// Not a row of the table. Nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a legal move of a payment")]
pub struct IllegalMove;

impl PaymentState {
    pub const ALL: &'static [PaymentState] = &[
        PaymentState::Started,
        PaymentState::Unknown,
        PaymentState::Captured,
        PaymentState::Paid,
        PaymentState::Declined,
        PaymentState::Cancelled,
        PaymentState::Review,
        PaymentState::Orphaned,
    ];

    /// The word in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            PaymentState::Started => "started",
            PaymentState::Unknown => "unknown",
            PaymentState::Captured => "captured",
            PaymentState::Paid => "paid",
            PaymentState::Declined => "declined",
            PaymentState::Cancelled => "cancelled",
            PaymentState::Review => "review",
            PaymentState::Orphaned => "orphaned",
        }
    }

    pub fn from_word(word: &str) -> Option<PaymentState> {
        PaymentState::ALL.iter().copied().find(|state| state.as_str() == word)
    }

    /// Moves the payment to `to`, if the table has that row.
    pub fn moved_to(self, to: PaymentState) -> Result<PaymentState, IllegalMove> {
        use PaymentState::*;
        match (self, to) {
            (Started, Unknown | Captured | Declined | Cancelled | Review) => Ok(to),
            (Unknown, Captured | Declined | Cancelled | Review) => Ok(to),
            (Captured, Paid | Orphaned) => Ok(to),
            // The provider has changed its mind, or a person has looked into it.
            (Declined | Cancelled | Review, Orphaned) => Ok(to),
            (Review, Captured) => Ok(to),
            _ => Err(IllegalMove),
        }
    }

    /// Whether somebody still has to do something about it.
    pub fn is_open(self) -> bool {
        matches!(self, PaymentState::Started | PaymentState::Unknown | PaymentState::Captured)
    }

    /// It has ended, and no money came.
    pub fn has_failed(self) -> bool {
        matches!(self, PaymentState::Declined | PaymentState::Cancelled)
    }

    /// Whether another attempt may begin: nothing was taken, or what came too late goes back.
    pub fn makes_room(self) -> bool {
        self.has_failed() || self == PaymentState::Orphaned
    }
}

/// A payment as its row keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    pub id: PaymentId,
    pub order: OrderId,
    pub attempt: Attempt,
    pub buyer: UserId,
    /// What the order costs. The provider's own figure is compared with it.
    pub amount: Money,
    /// Kept while the payment is open.
    pub method: Option<Method>,
    pub state: PaymentState,
    /// Why it is not paid, in a word of the provider's or ours.
    pub reason: Option<String>,
    /// The provider's name for it.
    pub provider_ref: Option<String>,
    /// Minor units that the provider has taken.
    pub captured: i64,
    /// Of what: the currency that was asked for, unless the provider took another.
    pub captured_in: Currency,
    /// Minor units that are given back, or will be. Never more than `captured`.
    pub refunded: i64,
    /// The request that began it.
    pub key: Option<KeyUse>,
    /// Whoever asked for it has heard that it is on its way: asked again he hears that, whatever has become of it.
    pub told_open: bool,
    /// How often it was taken up again.
    pub tries: u32,
    /// When somebody takes it up, if it is open and nobody has said what became of it.
    pub due_at: Option<Millis>,
    pub version: u64,
    pub created_at: Millis,
    pub updated_at: Millis,
}

/// What becomes of a payment's row in one compare-and-set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    pub to: PaymentState,
    pub reason: Option<String>,
    pub provider_ref: Option<String>,
    /// What was taken, if that is known now.
    pub captured: Option<Money>,
    /// All that was taken goes back: the refund is written in the same transaction.
    pub give_back: bool,
    /// The lines that are sold by it: from the same transaction on they are to be delivered.
    pub sold: Vec<SoldLine>,
}

impl Move {
    pub fn to(to: PaymentState) -> Move {
        Move { to, reason: None, provider_ref: None, captured: None, give_back: false, sold: Vec::new() }
    }
}

/// Why a payment is held for a person. It keeps the reason when the person has accepted what was taken.
pub const AMOUNT_MISMATCH: &str = "amount_mismatch";

impl Payment {
    /// What the provider has taken.
    pub fn taken(&self) -> Money {
        Money { amount: self.captured, currency: self.captured_in }
    }

    /// What it is about to keep what was taken: that, or what was asked for where that was more and is lost.
    pub fn at_stake(&self) -> Money {
        Money { amount: self.captured.max(self.amount.amount), currency: self.captured_in }
    }

    /// What was taken and kept above what was asked for.
    pub fn above_price(&self) -> i64 {
        self.captured.saturating_sub(self.amount.amount).max(0)
    }

    /// Whether what was taken may be another amount than was asked for: a person has looked at it and kept it.
    pub fn is_accepted(&self) -> bool {
        matches!(self.state, PaymentState::Captured | PaymentState::Paid)
            && self.reason.as_deref() == Some(AMOUNT_MISMATCH)
    }

    /// What it becomes by `step`, if that is legal. The version is the caller's to raise.
    pub fn moved(&self, step: &Move, now: Millis) -> Result<Payment, IllegalMove> {
        let state = if step.to == self.state { self.state } else { self.state.moved_to(step.to)? };
        let method = self.method.clone().filter(|_| state.is_open() || state == PaymentState::Review);
        Ok(Payment {
            state,
            method,
            reason: step.reason.clone().or_else(|| self.reason.clone()),
            provider_ref: step.provider_ref.clone().or_else(|| self.provider_ref.clone()),
            captured: step.captured.map_or(self.captured, |taken| taken.amount),
            captured_in: step.captured.map_or(self.captured_in, |taken| taken.currency),
            updated_at: now,
            ..self.clone()
        })
    }
}
