//! How often a node may be asked again what it was asked before: a budget for each thread and node.
//!
//! To ask again helps whoever was unlucky, and ruins a node that is in trouble: it would be asked everything twice just when it cannot
//! answer once. Always true: what one thread asks a node again is a tenth of what it asks, a few a second, and at most what can be lost
//! with one connection; and once more what it has refused the first time, while it opened. To wait for a node takes nothing of it, and what
//! never left earns nothing.

use std::cell::Cell;

use crate::clock::Clock;
use crate::peer::{FLIGHT_MAX, Reply, Unanswered};
use crate::telemetry::Metrics;

/// One is earned by so many that are sent …
const EARNED_BY: u64 = 10;
/// … and so many by each second, so that whoever seldom asks may always do it once more …
const EARNED_A_SECOND: u64 = 5;
/// … and no more are kept than are lost with a connection that carries all it may. One loss is made good at once, the next ones are not.
const MOST: u64 = FLIGHT_MAX as u64;
/// A budget is kept in parts of one, as many as there are nanoseconds in a second.
const ONE: u64 = 1_000_000_000;

/// The rule. It begins with all that may be kept.
#[derive(Debug, Clone, Copy)]
struct Budget {
    parts: u64,
    looked_ns: u64,
}

impl Budget {
    const FULL: Budget = Budget { parts: MOST * ONE, looked_ns: 0 };

    /// One was sent.
    fn earn(&mut self) {
        self.parts = (self.parts + ONE / EARNED_BY).min(MOST * ONE);
    }

    /// Whether one may be sent again, which is then taken.
    fn take(&mut self, now_ns: u64) -> bool {
        let since_ns = now_ns.saturating_sub(self.looked_ns);
        self.looked_ns = self.looked_ns.max(now_ns);
        let earned = since_ns.saturating_mul(EARNED_A_SECOND);
        self.parts = self.parts.saturating_add(earned).min(MOST * ONE);
        let left = self.parts.checked_sub(ONE);
        self.parts = left.unwrap_or(self.parts);
        left.is_some()
    }
}

/// What one thread may ask one node again.
pub struct Retries(Cell<Budget>);

impl Default for Retries {
    fn default() -> Retries {
        Retries(Cell::new(Budget::FULL))
    }
}

impl Retries {
    /// This is what that node was heard to say, or why it said nothing. What never left earns nothing.
    pub fn heard(&self, heard: &Result<Reply, Unanswered>) {
        if !matches!(heard, Err(Unanswered::NotSent)) {
            let mut budget = self.0.get();
            budget.earn();
            self.0.set(budget);
        }
    }

    /// Whether one may be sent to it again, which is then taken; counted either way.
    pub fn take(&self, clock: &Clock) -> bool {
        let mut budget = self.0.get();
        let may = budget.take(clock.nanos());
        self.0.set(budget);
        let metrics = Metrics::global();
        let counter = if may { &metrics.peer_retries_sent } else { &metrics.peer_retries_spent };
        counter.increment(1);
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(budget: &mut Budget, tries: u64, now_ns: u64) -> u64 {
        (0..tries).map(|_| u64::from(budget.take(now_ns))).sum()
    }

    #[test]
    fn what_a_connection_carries_is_made_good_once_and_not_again_and_again() {
        let (mut budget, now_ns) = (Budget::FULL, 7 * ONE);
        assert_eq!(taken(&mut budget, MOST, now_ns), MOST, "whatever was on the first connection");
        assert!(!budget.take(now_ns), "and nothing of the second");
        // All of that was sent, and so was what it was sent again as.
        (0..2 * MOST).for_each(|_| budget.earn());
        assert_eq!(taken(&mut budget, MOST, now_ns), 2 * MOST / EARNED_BY);
    }

    #[test]
    fn ten_earn_one_and_a_second_some() {
        let mut budget = Budget::FULL;
        taken(&mut budget, MOST, ONE);
        (1..EARNED_BY).for_each(|_| budget.earn());
        assert!(!budget.take(ONE));
        budget.earn();
        assert!(budget.take(ONE) && !budget.take(ONE));
        assert_eq!(taken(&mut budget, 100, 3 * ONE), 2 * EARNED_A_SECOND);
        assert!(!budget.take(2 * ONE), "no time goes back");
        assert_eq!(taken(&mut budget, 100, 3 * ONE + ONE / EARNED_A_SECOND), 1);
    }

    #[test]
    fn what_never_left_earns_nothing() {
        let retries = Retries(Cell::new(Budget { parts: 0, looked_ns: 0 }));
        retries.heard(&Err(Unanswered::NotSent));
        assert_eq!(retries.0.get().parts, 0);
        for why in [Unanswered::PutAside, Unanswered::Elsewhere { session: 1 }, Unanswered::Unknown] {
            retries.heard(&Err(why));
        }
        assert_eq!(retries.0.get().parts, 3 * ONE / EARNED_BY);
    }

    #[test]
    fn no_more_is_kept_than_can_be_lost_at_once() {
        let mut budget = Budget::FULL;
        (0..1_000).for_each(|_| budget.earn());
        assert_eq!(taken(&mut budget, 2 * MOST, 1_000_000 * ONE), MOST);
        assert_eq!(taken(&mut budget, 2 * MOST, u64::MAX), MOST);
    }
}
