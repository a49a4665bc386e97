//! One buyer's wish, from the moment he means to ask until he knows where he stands. What he does about an answer is decided
//! here, and nothing else: the worker sends, waits and counts.
//!
//! Always true: whoever may have an order without knowing it keeps asking with the same key, or by the order's id; whoever
//! knows that he has none is free to go, and a new question has a new key.

use crate::answer::{OrderId, Outcome};
use crate::clock::Nanos;
use crate::wire::Key;
use crate::workload::Retry;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attempt {
    pub key: Key,
    pub product: u32,
    /// When the buyer meant to ask.
    pub intended_ns: Nanos,
    /// When the first try whose outcome is still open was sent; 0 if there is none.
    pub uncertain_since_ns: Nanos,
    /// His order, if he has one whose payment is open: he asks how it stands.
    pub open: Option<OrderId>,
}

/// Orders of one buyer of which none was paid, before he gives up. One card in five declined, nobody comes near it.
const ROUNDS: u8 = 50;

impl Attempt {
    pub fn first(number: u64, product: u32, intended_ns: Nanos) -> Self {
        let key = Key { attempt: number, round: 0 };
        Self { key, product, intended_ns, uncertain_since_ns: 0, open: None }
    }

    /// When the server may have decided it at the earliest, if its last try was sent at `sent_ns`.
    pub fn asked_ns(&self, sent_ns: Nanos) -> Nanos {
        if self.uncertain_since_ns == 0 { sent_ns } else { self.uncertain_since_ns }
    }

    /// The attempt that comes next; nothing if the buyer goes home. `order` is the one that the answer names; `is_over`:
    /// nobody starts anything new.
    pub fn after(
        self,
        outcome: Outcome,
        order: Option<OrderId>,
        sent_ns: Nanos,
        retry: Retry,
        is_over: bool,
    ) -> Option<Self> {
        let asks_again = Self { uncertain_since_ns: self.asked_ns(sent_ns), ..self };
        match outcome {
            Outcome::PaymentOpen => Some(Self { open: order.or(self.open), ..asks_again }),
            _ if outcome.is_uncertain() => Some(asks_again),
            // This try was not executed. An earlier one may have been.
            _ if outcome.is_unavailable() && self.uncertain_since_ns != 0 => Some(self),
            _ if is_over => None,
            _ if outcome.is_unavailable() => retry.unavailable.then_some(self),
            // New questions, asked when the buyer comes back.
            Outcome::SoldOut if retry.sold_out => Some(self.anew(self.key)),
            Outcome::Declined if self.key.round + 1 < ROUNDS => {
                Some(self.anew(Key { round: self.key.round + 1, ..self.key }))
            }
            _ => None,
        }
    }

    fn anew(self, key: Key) -> Self {
        Self { key, intended_ns: Nanos::MAX, uncertain_since_ns: 0, open: None, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: Retry = Retry { sold_out: false, unavailable: true, delay_ms: 1 };

    fn after(attempt: Attempt, outcome: Outcome) -> Option<Attempt> {
        attempt.after(outcome, OrderId::read("order_x"), 7, RETRY, false)
    }

    #[test]
    fn whoever_was_not_paid_for_comes_back_with_a_new_key() {
        let first = Attempt::first(3, 0, 5);
        let second = after(first, Outcome::Declined).unwrap();
        assert_eq!(second.key, Key { attempt: 3, round: 1 });
        assert_eq!((second.uncertain_since_ns, second.open, second.intended_ns), (0, None, Nanos::MAX));
        assert_eq!(first.after(Outcome::Declined, None, 7, RETRY, true), None);
        let last = Attempt { key: Key { attempt: 3, round: ROUNDS - 1 }, ..first };
        assert_eq!(after(last, Outcome::Declined), None);
    }

    #[test]
    fn whoever_does_not_know_keeps_the_key_and_asks_even_when_all_is_over() {
        let first = Attempt::first(3, 0, 5);
        for outcome in [Outcome::ConnectionCut, Outcome::Unknown, Outcome::IdempotencyInProgress] {
            let again = first.after(outcome, None, 7, RETRY, true).unwrap();
            assert_eq!((again.key, again.uncertain_since_ns, again.intended_ns), (first.key, 7, 5));
            // That the next try was not executed does not tell what became of this one.
            let still = again.after(Outcome::Overloaded, None, 9, RETRY, true).unwrap();
            assert_eq!((still.key, still.uncertain_since_ns), (first.key, 7));
        }
        assert_eq!(first.after(Outcome::Overloaded, None, 7, RETRY, true), None);
        assert_eq!(after(first, Outcome::Overloaded), Some(first));
    }

    #[test]
    fn an_open_payment_is_asked_about_by_its_order_until_it_has_ended() {
        let open = after(Attempt::first(3, 0, 5), Outcome::PaymentOpen).unwrap();
        assert_eq!((open.open, open.uncertain_since_ns), (OrderId::read("order_x"), 7));
        let cut = open.after(Outcome::ConnectionCut, None, 9, RETRY, true).unwrap();
        assert_eq!((cut.open, cut.uncertain_since_ns), (open.open, 7));
        assert_eq!(cut.after(Outcome::RateLimited, None, 9, RETRY, true), Some(cut));
        assert_eq!(after(cut, Outcome::Acknowledged), None);
        assert_eq!(after(cut, Outcome::Declined).unwrap().key.round, 1);
    }

    #[test]
    fn sold_out_ends_it_unless_the_crowd_waits_for_what_comes_back() {
        let first = Attempt::first(3, 0, 5);
        assert_eq!(after(first, Outcome::SoldOut), None);
        let waits = first.after(Outcome::SoldOut, None, 7, Retry { sold_out: true, ..RETRY }, false).unwrap();
        assert_eq!((waits.key, waits.intended_ns), (first.key, Nanos::MAX));
    }
}
