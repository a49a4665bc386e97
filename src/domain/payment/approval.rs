//! Four eyes: money above a bound goes back by hand only if two administrators ask for the same.
//!
//! Who asks first has it written down, and nothing happens; when another one asks for the same within a day it is done. Always true: nobody
//! is both of them, and what differs in its amount, its line or what becomes of the units is something else, which waits for itself.

use std::str::FromStr;

use super::{Cause, Restock};
use crate::domain::amount::{Currency, Money};
use crate::domain::id::{ApprovalId, OrderId, PaymentId, RefundId, SessionId, UserId};
use crate::domain::stock::{KeyUse, Millis};

/// How long what one has asked for waits for the other; and for how long from then on what two have asked for is not asked for anew.
pub const STANDS_MS: i64 = 24 * 3_600_000;

/// Above how much it takes two, by currency. Where nothing is named one is enough.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FourEyes {
    bounds: Vec<(Currency, i64)>,
}

impl FourEyes {
    /// Whether it takes two to give this back of an order of which `before` has gone back by hand: nobody stays below a bound by giving it
    /// in parts. In a currency that is not named where another one is, it takes two for every amount.
    pub fn needs_two(&self, amount: Money, before: i64) -> bool {
        if self.bounds.is_empty() || amount.amount <= 0 {
            return false;
        }
        let of_currency = self.bounds.iter().find(|(currency, _)| *currency == amount.currency);
        let bound = of_currency.map_or(0, |(_, bound)| *bound);
        amount.amount.saturating_add(before) > bound
    }
}

impl FromStr for FourEyes {
    type Err = &'static str;

    /// `KRW:500000,USD:50000`, in minor units; or `none`.
    fn from_str(list: &str) -> Result<FourEyes, &'static str> {
        const EXPECTED: &str =
            "expected none, or amounts in minor units by currency, such as KRW:500000,USD:50000";
        let mut bounds: Vec<(Currency, i64)> = Vec::new();
        if list.is_empty() || list == "none" {
            return Ok(FourEyes { bounds });
        }
        for pair in list.split(',') {
            let (currency, bound) = pair.split_once(':').ok_or(EXPECTED)?;
            let currency: Currency = currency.trim().parse().map_err(|_| EXPECTED)?;
            let bound: i64 = bound.trim().replace('_', "").parse().map_err(|_| EXPECTED)?;
            let is_new = bounds.iter().all(|(known, _)| *known != currency);
            if bound < 0 || !is_new || !currency.is_listed() {
                return Err(EXPECTED);
            }
            bounds.push((currency, bound));
        }
        Ok(FourEyes { bounds })
    }
}

/// What kind of thing is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// An amount, or all that is left.
    Refund,
    /// A line, at its price or another.
    Line,
    /// The units of a line whose price went back before.
    LineTakenBack,
    /// To keep another amount than was asked for.
    Accept,
    /// To give it back.
    GiveBack,
    /// To say that a refund was given back another way.
    Settle,
}

impl What {
    pub const ALL: &'static [What] =
        &[What::Refund, What::Line, What::LineTakenBack, What::Accept, What::GiveBack, What::Settle];

    /// The word in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            What::Refund => "refund",
            What::Line => "line",
            What::LineTakenBack => "line_taken_back",
            What::Accept => "accept",
            What::GiveBack => "give_back",
            What::Settle => "settle",
        }
    }

    pub fn from_word(word: &str) -> Option<What> {
        What::ALL.iter().copied().find(|what| what.as_str() == word)
    }

    /// `None`: nobody gives that back by hand.
    pub fn of(cause: Cause) -> Option<What> {
        match cause {
            Cause::Clerk(_) => Some(What::Refund),
            Cause::Line(_) => Some(What::Line),
            Cause::LineTakenBack(_) => Some(What::LineTakenBack),
            Cause::OrderCancelled | Cause::Late | Cause::LineCancelled(_) | Cause::LineReturned(_) => None,
        }
    }
}

/// All that two have to agree upon. Why they want it is no part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    pub what: What,
    pub order: OrderId,
    pub payment: PaymentId,
    /// The one that is to be settled.
    pub refund: Option<RefundId>,
    pub line: Option<u8>,
    pub amount: Money,
    pub restock: Restock,
}

/// An administrator, and the session in which he asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker {
    pub user: UserId,
    pub session: SessionId,
}

/// What one has asked for, and perhaps another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Approval {
    pub id: ApprovalId,
    pub asked: Asked,
    pub by: UserId,
    /// His word counts while this has not ended; none of a token that was signed offline.
    pub session: Option<SessionId>,
    pub at: Millis,
    /// The first one's request, where it has a key.
    pub key: Option<KeyUse>,
    pub seconded: Option<Seconded>,
}

/// Who has asked for the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seconded {
    pub by: UserId,
    pub at: Millis,
    pub key: Option<KeyUse>,
}

impl Approval {
    /// A day from the last word on.
    pub fn until(&self) -> Millis {
        self.seconded.map_or(self.at, |second| second.at).plus(STANDS_MS)
    }

    pub fn has_lapsed(&self, now: Millis) -> bool {
        now >= self.until()
    }

    /// Why the refund goes back that it leads to. An amount's is named after this, and not after a request: of many that come at once one
    /// is written.
    pub fn cause(&self) -> Option<Cause> {
        match self.asked.what {
            What::Refund => Some(Cause::Clerk(*self.id.as_bytes())),
            What::Line => self.asked.line.map(Cause::Line),
            What::LineTakenBack => self.asked.line.map(Cause::LineTakenBack),
            What::Accept | What::GiveBack | What::Settle => None,
        }
    }

    /// Who has asked for it and who for the same, where there were two.
    pub fn two(&self) -> Option<(UserId, UserId)> {
        self.seconded.map(|second| (self.by, second.by))
    }

    /// The refund that it is about, or what is called so that two make of it: it may not be there yet.
    pub fn refund(&self) -> Option<RefundId> {
        let made = self.cause().filter(|_| self.seconded.is_some());
        made.map(|cause| RefundId::of(self.asked.payment, cause)).or(self.asked.refund)
    }
}

/// What comes of it when somebody asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hand {
    /// He is the first.
    First,
    /// He was the first, and still is.
    Waits(Approval),
    /// Another one was, and he is the second.
    Second(Approval),
    /// Two have asked for it.
    Both(Approval),
}

impl Hand {
    /// `stands`: what was asked for of the same, within a day, by somebody whose word counts.
    pub fn of(by: UserId, stands: &[Approval]) -> Hand {
        let both = stands.iter().find(|approval| approval.seconded.is_some());
        let others = || stands.iter().find(|approval| approval.by != by);
        match (both, others(), stands.first()) {
            (Some(both), _, _) => Hand::Both(*both),
            (None, Some(other), _) => Hand::Second(*other),
            (None, None, Some(own)) => Hand::Waits(*own),
            (None, None, None) => Hand::First,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Millis = Millis(1_800_000_000_000);

    fn user(number: u128) -> UserId {
        UserId::new(Millis(1), number)
    }

    fn money(amount: i64, currency: &str) -> Money {
        Money { amount, currency: currency.parse().unwrap() }
    }

    fn asked_by(number: u128) -> Approval {
        let asked = Asked {
            what: What::Refund,
            order: OrderId::from_bytes([8; 16]),
            payment: PaymentId::from_bytes([7; 16]),
            refund: None,
            line: None,
            amount: money(700, "KRW"),
            restock: Restock::Leave,
        };
        Approval {
            id: ApprovalId::new(T0, number),
            asked,
            by: user(number),
            session: None,
            at: T0,
            key: None,
            seconded: None,
        }
    }

    fn seconded_by(number: u128, first: Approval) -> Approval {
        Approval { seconded: Some(Seconded { by: user(number), at: T0, key: None }), ..first }
    }

    #[test]
    fn above_its_bound_it_takes_two() {
        let bounds: FourEyes = "KRW:500_000, USD:0".parse().unwrap();
        for (amount, before, takes_two) in [
            (money(500_000, "KRW"), 0, false),
            (money(500_001, "KRW"), 0, true),
            // In parts it is as much.
            (money(100_000, "KRW"), 400_000, false),
            (money(100_001, "KRW"), 400_000, true),
            (money(i64::MAX, "KRW"), i64::MAX, true),
            (money(1, "USD"), 0, true),
            // No money moves, only units.
            (money(0, "USD"), 900, false),
            // It is not named where others are.
            (money(1, "XTS"), 0, true),
        ] {
            assert_eq!(bounds.needs_two(amount, before), takes_two, "{amount:?} {before}");
        }
        for nothing in ["", "none"] {
            let bounds: FourEyes = nothing.parse().unwrap();
            assert!(!bounds.needs_two(money(i64::MAX, "KRW"), 0), "{nothing}");
        }
    }

    #[test]
    fn what_is_no_list_of_bounds_is_refused() {
        for bad in [
            "None",
            "500000",
            "KRW",
            "KRW:",
            "KRW:-1",
            "KRW:1.5",
            "krw:1",
            "QQQ:1",
            "KRW:1,KRW:2",
            "KRW:1,",
            ",",
            " ",
            "none,KRW:1",
            "KRW:99999999999999999999",
        ] {
            assert!(bad.parse::<FourEyes>().is_err(), "{bad}");
        }
    }

    #[test]
    fn nobody_is_his_own_second() {
        assert_eq!(Hand::of(user(1), &[]), Hand::First);
        let first = asked_by(1);
        assert_eq!(Hand::of(user(1), &[first]), Hand::Waits(first));
        assert_eq!(Hand::of(user(2), &[first]), Hand::Second(first));
        let own = asked_by(2);
        assert_eq!(
            Hand::of(user(2), &[own, first]),
            Hand::Second(first),
            "the other one's comes before his own"
        );
        let both = seconded_by(2, first);
        for by in [1, 2, 3] {
            assert_eq!(Hand::of(user(by), &[own, both]), Hand::Both(both));
        }
    }

    #[test]
    fn it_stands_for_a_day() {
        let first = asked_by(1);
        assert!(!first.has_lapsed(T0) && !first.has_lapsed(T0.plus(STANDS_MS - 1)));
        assert!(first.has_lapsed(T0.plus(STANDS_MS)) && first.has_lapsed(first.until()));
        // And for another one from the second's word on.
        let late = T0.plus(STANDS_MS - 1);
        let both = Approval { seconded: Some(Seconded { by: user(2), at: late, key: None }), ..first };
        assert_eq!((both.until(), both.two()), (late.plus(STANDS_MS), Some((user(1), user(2)))));
        assert!(!both.has_lapsed(T0.plus(STANDS_MS)) && both.has_lapsed(both.until()));
        assert_eq!(first.two(), None);
    }

    #[test]
    fn what_it_leads_to_is_one_refund_whoever_comes_second() {
        let first = asked_by(1);
        assert_eq!(first.refund(), None, "there is none yet");
        let made = seconded_by(2, first).refund();
        assert!(made.is_some() && made == seconded_by(3, first).refund());
        assert_ne!(made, seconded_by(3, asked_by(2)).refund());
        let line = Asked { what: What::Line, line: Some(3), ..first.asked };
        let of_line = RefundId::of(line.payment, Cause::Line(3));
        assert_eq!(seconded_by(2, Approval { asked: line, ..first }).refund(), Some(of_line));
        let settled = Asked { what: What::Settle, refund: Some(of_line), ..first.asked };
        assert_eq!(Approval { asked: settled, ..first }.refund(), Some(of_line));
    }

    #[test]
    fn what_is_asked_for_is_its_word() {
        for what in What::ALL {
            assert_eq!(What::from_word(what.as_str()), Some(*what));
        }
        assert_eq!(What::from_word("cancel"), None);
    }
}
