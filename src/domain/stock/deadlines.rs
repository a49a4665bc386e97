//! Which record is due when.
//!
//! Holds of one product last equally long, so nearly every deadline is the latest so far and goes to the end of a
//! queue; only the others need a heap. Always true: nothing that was put in moves when more comes, but for what the
//! heap holds.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::Millis;

/// Deadlines put into memory at once.
const CHUNK: usize = 1024;

/// A deadline and the number of its record; compared in this order.
type Due = (Millis, u32);

#[derive(Debug, Default)]
pub(super) struct Deadlines {
    /// In order, in pieces that never grow beyond their first size.
    queue: VecDeque<VecDeque<Due>>,
    others: BinaryHeap<Reverse<Due>>,
}

impl Deadlines {
    pub fn push(&mut self, at: Millis, number: u32) {
        if self.queue.back().and_then(VecDeque::back).is_some_and(|latest| *latest > (at, number)) {
            self.others.push(Reverse((at, number)));
            return;
        }
        match self.queue.back_mut().filter(|chunk| chunk.len() < CHUNK) {
            Some(chunk) => chunk.push_back((at, number)),
            None => {
                let mut chunk = VecDeque::with_capacity(if self.queue.is_empty() { 4 } else { CHUNK });
                chunk.push_back((at, number));
                self.queue.push_back(chunk);
            }
        }
    }

    fn queued(&self) -> Option<Due> {
        self.queue.front()?.front().copied()
    }

    /// The earliest.
    pub fn first(&self) -> Option<Due> {
        let other = self.others.peek().map(|Reverse(due)| *due);
        match (self.queued(), other) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    pub fn pop(&mut self) -> Option<Due> {
        let first = self.first()?;
        if self.queued() != Some(first) {
            return self.others.pop().map(|Reverse(due)| due);
        }
        let chunk = self.queue.front_mut()?;
        let due = chunk.pop_front();
        if chunk.is_empty() {
            self.queue.pop_front();
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn they_come_out_in_order(mut deadlines in proptest::collection::vec(0..500_i64, 0..3_000), sorted in any::<bool>()) {
            if sorted {
                deadlines.sort();
            }
            let mut due = Deadlines::default();
            for (number, at) in (0..).zip(&deadlines) {
                due.push(Millis(*at), number);
            }
            let out: Vec<_> = std::iter::from_fn(|| due.pop()).collect();
            let mut expected: Vec<_> = deadlines.iter().map(|at| Millis(*at)).zip(0..).collect();
            expected.sort();
            prop_assert_eq!(out, expected);
        }
    }
}
