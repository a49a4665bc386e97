//! Money on its way back: why, how much, and what becomes of the units.
//!
//! Giving money back and putting units back are two decisions. A refund's id follows from its payment and its cause, so two
//! clerks who give back the same line give it back once. Always true: what was given back is never more than what was taken,
//! and a refund that was written down is tried until the provider has done it.

use xxhash_rust::xxh3::xxh3_128;

use crate::domain::amount::Money;
use crate::domain::id::{OrderId, PaymentId, RefundId};
use crate::domain::stock::{Back, Millis};

/// Why money goes back. One cause leads to one refund of a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The whole order was cancelled before it shipped.
    OrderCancelled,
    /// It came for an order that had ended.
    Late,
    /// A clerk gave back one line.
    Line(u8),
    /// A clerk took the units of a line back whose price he had given back before.
    LineTakenBack(u8),
    /// One line was cancelled before it shipped.
    LineCancelled(u8),
    /// One line was sent back after it had arrived.
    LineReturned(u8),
    /// A clerk decided on an amount; the bytes are his request's key.
    Clerk([u8; 16]),
}

impl Cause {
    /// The word in the table, and in the list of what is to be undone.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::OrderCancelled => "order_cancelled",
            Cause::Late => "late",
            Cause::Line(_) => "line",
            Cause::LineTakenBack(_) => "line_taken_back",
            Cause::LineCancelled(_) => "line_cancelled",
            Cause::LineReturned(_) => "line_returned",
            Cause::Clerk(_) => "clerk",
        }
    }

    /// The one line that it is about.
    pub fn line(self) -> Option<u8> {
        match self {
            Cause::Line(line)
            | Cause::LineTakenBack(line)
            | Cause::LineCancelled(line)
            | Cause::LineReturned(line) => Some(line),
            Cause::OrderCancelled | Cause::Late | Cause::Clerk(_) => None,
        }
    }
}

impl RefundId {
    /// The refund of this payment for this cause. It sorts by the order's time.
    pub fn of(payment: PaymentId, cause: Cause) -> RefundId {
        let mut name = payment.as_bytes().to_vec();
        match cause {
            Cause::OrderCancelled => name.push(0),
            Cause::Late => name.push(1),
            Cause::Line(line) => name.extend([2, line]),
            Cause::Clerk(key) => {
                name.push(3);
                name.extend(key);
            }
            Cause::LineCancelled(line) => name.extend([4, line]),
            Cause::LineReturned(line) => name.extend([5, line]),
            Cause::LineTakenBack(line) => name.extend([6, line]),
        }
        RefundId::new(payment.made_at(), xxh3_128(&name))
    }
}

/// What becomes of the units that were paid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restock {
    /// Nothing: the buyer keeps them, or they were never sold.
    Leave,
    /// They are on sale again.
    ToStock,
    /// They are gone.
    WriteOff,
}

impl Restock {
    pub fn as_str(self) -> &'static str {
        match self {
            Restock::Leave => "leave",
            Restock::ToStock => "to_stock",
            Restock::WriteOff => "write_off",
        }
    }

    pub fn from_word(word: &str) -> Option<Restock> {
        [Restock::Leave, Restock::ToStock, Restock::WriteOff].into_iter().find(|it| it.as_str() == word)
    }

    /// Where the units go, if they go.
    pub fn back(self) -> Option<Back> {
        match self {
            Restock::Leave => None,
            Restock::ToStock => Some(Back::ToStock),
            Restock::WriteOff => Some(Back::WrittenOff),
        }
    }
}

/// Where a refund stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefundState {
    /// Written down; units and money may have gone back or not.
    Wanted,
    /// The units are where they belong; the provider is still to do its part.
    Restocked,
    /// The provider has given the money back. One that is due nevertheless is asked about again.
    Done,
}

impl RefundState {
    pub const ALL: &'static [RefundState] = &[RefundState::Wanted, RefundState::Restocked, RefundState::Done];

    pub fn as_str(self) -> &'static str {
        match self {
            RefundState::Wanted => "wanted",
            RefundState::Restocked => "restocked",
            RefundState::Done => "done",
        }
    }

    pub fn from_word(word: &str) -> Option<RefundState> {
        RefundState::ALL.iter().copied().find(|state| state.as_str() == word)
    }

    /// Moves the refund to `to`, if the table has that row. It only goes forward, but for money that has come back to us.
    pub fn moved_to(self, to: RefundState) -> Result<RefundState, super::IllegalMove> {
        match (self, to) {
            (RefundState::Wanted, RefundState::Restocked | RefundState::Done) => Ok(to),
            (RefundState::Restocked, RefundState::Done) => Ok(to),
            // The provider was asked once more: it stands by its word, or the bank has sent the money back.
            (RefundState::Done, RefundState::Done | RefundState::Restocked) => Ok(to),
            _ => Err(super::IllegalMove),
        }
    }
}

/// Stands before the provider's word for why it will not give the money back.
pub const FAILED: &str = "failed_";
/// In the place of that word: a person wants it tried once more.
pub const TRIED_AGAIN: &str = "tried_again";
/// The provider has failed at it, and has nothing else to say of it by the name that it was asked for by: it may have happened.
pub const SPENT: &str = "provider_failed";
/// The same of what a person wants once more.
pub const SPENT_AGAIN: &str = "tried_again_provider_failed";
/// After so long what has happened by a name that says nothing is seen. What is not seen by then is asked for by another.
pub const SPENT_MS: i64 = 3_600_000;
/// The provider does not answer, or did not know.
pub const NO_ANSWER: &str = "provider_unavailable";
/// Why a refund is done that the provider has not done.
pub const SETTLED: &str = "settled_by_hand";

/// A refund as its row keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refund {
    pub id: RefundId,
    pub payment: PaymentId,
    pub order: OrderId,
    pub cause: Cause,
    /// The request that asked for it, so that it hears the same again.
    pub key: Option<[u8; 16]>,
    /// What that request said, hashed; `None` where a cancellation said no more than what it cancels.
    pub body: Option<u64>,
    pub amount: Money,
    pub restock: Restock,
    pub state: RefundState,
    /// What the provider said last, if it was not yes.
    pub reason: Option<String>,
    pub provider_ref: Option<String>,
    /// How often a person has wanted once more what the provider would not do, or a name has said nothing for too long: each time it is
    /// asked for by another name, because to the one before the provider says what it has said.
    pub made_anew: u32,
    pub tries: u32,
    pub due_at: Option<Millis>,
    pub version: u64,
    pub created_at: Millis,
    pub updated_at: Millis,
}

impl Refund {
    /// Whether the provider's last word is that it will not do it: a person may give the money back another way.
    pub fn has_failed(&self) -> bool {
        let word = self.reason.as_deref().unwrap_or_default();
        self.state != RefundState::Done && word.starts_with(FAILED)
    }

    /// Whether a person wants once more what the provider would not do.
    pub fn is_tried_again(&self) -> bool {
        self.state != RefundState::Done && matches!(self.reason.as_deref(), Some(TRIED_AGAIN | SPENT_AGAIN))
    }

    /// Whether the name that it is asked for by says nothing. It does since the row was last updated.
    pub fn is_spent(&self) -> bool {
        self.state != RefundState::Done && matches!(self.reason.as_deref(), Some(SPENT | SPENT_AGAIN))
    }

    /// Notes why it waits, and by which name it is asked for from then on. Whoever says that the name is spent has looked for what
    /// may have come of it a moment before, and there was nothing.
    pub fn waits_because(&mut self, why: String, now: Millis) {
        let is_spent = matches!(&*why, SPENT | SPENT_AGAIN);
        let is_settled = self.is_spent() && now.0.saturating_sub(self.updated_at.0) >= SPENT_MS;
        let why = match &*why {
            SPENT_AGAIN if is_settled => TRIED_AGAIN.to_owned(),
            SPENT if is_settled => NO_ANSWER.to_owned(),
            _ => why,
        };
        if is_spent && is_settled || why == TRIED_AGAIN && self.has_failed() {
            self.made_anew = self.made_anew.saturating_add(1);
        }
        if is_spent && (is_settled || !self.is_spent()) {
            self.updated_at = now;
        }
        self.reason = Some(why);
    }

    /// Whether the provider may tell that the money has come back: it has given some, and nobody has given it another way.
    pub fn may_come_back(&self) -> bool {
        self.state == RefundState::Done && self.amount.amount > 0 && !self.is_settled_by_hand()
    }

    pub fn is_settled_by_hand(&self) -> bool {
        self.state == RefundState::Done && self.reason.as_deref() == Some(SETTLED)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::domain::amount::Currency;

    /// A cancelled order's, whose units are back in stock.
    pub fn refund() -> Refund {
        let payment = PaymentId::from_bytes([7; 16]);
        Refund {
            id: RefundId::of(payment, Cause::OrderCancelled),
            payment,
            order: OrderId::from_bytes([8; 16]),
            cause: Cause::OrderCancelled,
            key: None,
            body: None,
            amount: Money { amount: 700, currency: Currency::KRW },
            restock: Restock::ToStock,
            state: RefundState::Restocked,
            reason: None,
            provider_ref: None,
            made_anew: 0,
            tries: 0,
            due_at: None,
            version: 1,
            created_at: Millis(0),
            updated_at: Millis(0),
        }
    }

    /// What is written at these times, and how it stands after each of them: by which name it is asked for, and why it waits.
    fn story(words: &[(i64, &str)]) -> Vec<(u32, String)> {
        let mut refund = refund();
        let mut told = Vec::new();
        for (at, why) in words {
            refund.waits_because((*why).to_owned(), Millis(*at));
            told.push((refund.made_anew, refund.reason.clone().unwrap()));
        }
        told
    }

    fn stands(made_anew: u32, why: &str) -> (u32, String) {
        (made_anew, why.to_owned())
    }

    #[test]
    fn a_name_that_says_nothing_is_left_when_what_it_did_would_be_seen() {
        let began = 5 * SPENT_MS;
        assert_eq!(
            story(&[
                (began, SPENT),
                (began + 60_000, SPENT),
                (began + SPENT_MS - 1, SPENT),
                (began + SPENT_MS, SPENT),
                // Of the next name it is another hour.
                (began + SPENT_MS + 1, SPENT),
                (began + 2 * SPENT_MS, SPENT),
                (began + 2 * SPENT_MS + 1, SPENT),
            ]),
            [
                stands(0, SPENT),
                stands(0, SPENT),
                stands(0, SPENT),
                stands(1, NO_ANSWER),
                stands(1, SPENT),
                stands(1, SPENT),
                stands(2, NO_ANSWER),
            ]
        );
    }

    #[test]
    fn another_word_in_between_begins_the_hour_anew() {
        let told = story(&[(1, SPENT), (2, NO_ANSWER), (SPENT_MS + 1, SPENT), (SPENT_MS + 2, SPENT)]);
        assert_eq!(told, [stands(0, SPENT), stands(0, NO_ANSWER), stands(0, SPENT), stands(0, SPENT)]);
    }

    #[test]
    fn what_a_person_wants_once_more_stays_wanted() {
        let told = story(&[
            (1, "failed_lost_card"),
            (2, TRIED_AGAIN),
            (3, SPENT_AGAIN),
            (4, SPENT_AGAIN),
            (3 + SPENT_MS, SPENT_AGAIN),
        ]);
        assert_eq!(
            told,
            [
                stands(0, "failed_lost_card"),
                stands(1, TRIED_AGAIN),
                stands(1, SPENT_AGAIN),
                stands(1, SPENT_AGAIN),
                stands(2, TRIED_AGAIN),
            ]
        );
        let spent = Refund { reason: Some(SPENT_AGAIN.to_owned()), ..refund() };
        assert!(spent.is_tried_again() && spent.is_spent() && !spent.has_failed());
    }
}
