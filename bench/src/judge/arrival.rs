//! First come, first served, as seen from outside: whoever was answered before somebody else asked must stand before
//! them in the product's queue. Each answer proves how far the queue had come when it was given; no later question may
//! be decided at an earlier place. One sort and one sweep: O(n log n).

use std::fmt;

use crate::clock::{MICROSECOND, Nanos};
use crate::engine::History;

/// Somebody was answered, and later somebody asked and was served before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inversion {
    pub product: u32,
    /// How far the queue had come, by an answer given at `answered_ns`.
    pub reached: u64,
    pub answered_ns: Nanos,
    /// Where the queue stood for somebody who asked only at `asked_ns`.
    pub decided_after: u64,
    pub asked_ns: Nanos,
}

impl fmt::Display for Inversion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gap_us = (self.asked_ns - self.answered_ns) / MICROSECOND;
        write!(
            f,
            "sequence {} was answered, and a question sent {gap_us} µs later was decided right after sequence {}",
            self.reached, self.decided_after
        )
    }
}

pub fn first_inversion(history: &History) -> Option<Inversion> {
    let orders = history.orders();
    let refusals = history.refused.iter();
    let mut answers: Vec<(u32, Nanos, u64)> =
        orders.clone().map(|x| (x.product, x.answered_ns, x.sequence)).collect();
    answers.extend(refusals.clone().map(|x| (x.product, x.first_answered_ns, x.sequence)));
    // An order takes the next place; a refusal is decided where the queue stands.
    let mut questions: Vec<(u32, Nanos, u64)> =
        orders.map(|y| (y.product, y.asked_ns, y.sequence.saturating_sub(1))).collect();
    questions.extend(refusals.map(|y| (y.product, y.last_asked_ns, y.sequence)));
    answers.sort_unstable();
    questions.sort_unstable();

    let mut answers = answers.into_iter().peekable();
    let mut furthest: Option<(u32, Nanos, u64)> = None;
    for (product, asked_ns, decided_after) in questions {
        while let Some(answer) = answers.next_if(|answer| (answer.0, answer.1) <= (product, asked_ns)) {
            if furthest.is_none_or(|known| known.0 != answer.0 || known.2 < answer.2) {
                furthest = Some(answer);
            }
        }
        if let Some((of, answered_ns, reached)) = furthest
            && of == product
            && reached > decided_after
        {
            return Some(Inversion { product, reached, answered_ns, decided_after, asked_ns });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::{OrderId, OrderState};
    use crate::engine::Ordered;
    use crate::wire::Key;

    fn history(orders: &[(u32, u64, Nanos, Nanos)]) -> History {
        let mut history = History::new(2, 0);
        let order = OrderId::of(br#""id":"order_x""#).unwrap();
        history.acknowledged.extend(orders.iter().map(|&(product, sequence, asked_ns, answered_ns)| {
            Ordered {
                key: Key { attempt: 0, round: 0 },
                product,
                sequence,
                asked_ns,
                answered_ns,
                order,
                state: OrderState::PendingPayment,
                total: 0,
                was_uncertain: false,
            }
        }));
        history
    }

    #[test]
    fn overlapping_orders_may_stand_in_any_order() {
        assert_eq!(first_inversion(&history(&[(0, 2, 10, 50), (0, 1, 20, 40), (0, 3, 60, 70)])), None);
    }

    #[test]
    fn a_later_question_may_not_overtake() {
        let found = first_inversion(&history(&[(0, 2, 10, 50), (0, 1, 60, 70)])).unwrap();
        assert_eq!((found.reached, found.decided_after), (2, 0));
    }

    #[test]
    fn products_are_queues_of_their_own() {
        assert_eq!(first_inversion(&history(&[(0, 9, 10, 20), (1, 1, 30, 40), (0, 10, 50, 60)])), None);
    }

    #[test]
    fn a_stale_refusal_is_an_inversion() {
        let mut history = history(&[(0, 5, 10, 20)]);
        history.refuse(0, 5, true, 30, 40);
        assert_eq!(first_inversion(&history), None);
        history.refuse(0, 4, true, 50, 60);
        assert!(first_inversion(&history).is_some());
    }

    #[test]
    fn who_was_declined_had_a_place_in_the_queue_too() {
        let mut history = history(&[(0, 2, 10, 50), (0, 1, 60, 70)]);
        history.declined = history.acknowledged.split_off(1);
        assert_eq!(first_inversion(&history).map(|found| found.decided_after), Some(0));
    }

    #[test]
    fn an_order_after_a_refusal_stands_behind_it() {
        let mut history = history(&[(0, 5, 100, 120)]);
        history.refuse(0, 5, true, 30, 40);
        assert_eq!(first_inversion(&history).map(|found| found.reached), Some(5));
    }
}
