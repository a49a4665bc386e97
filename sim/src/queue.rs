//! What will happen, and when: ordered by time, then by the number it was given when it was planned.
//!
//! Two runs of one seed plan the same things in the same order, so they take them out in the same order.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::time::Micros;

#[derive(Debug)]
struct Slot<E> {
    at: Micros,
    tie: u64,
    what: E,
}

impl<E> PartialEq for Slot<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<E> Eq for Slot<E> {}

impl<E> PartialOrd for Slot<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Slot<E> {
    /// The earliest is the greatest: a heap gives its greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.tie).cmp(&(self.at, self.tie))
    }
}

/// The future.
#[derive(Debug)]
pub struct Queue<E> {
    heap: BinaryHeap<Slot<E>>,
    planned: u64,
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Queue { heap: BinaryHeap::new(), planned: 0 }
    }
}

impl<E> Queue<E> {
    pub fn plan(&mut self, at: Micros, what: E) {
        self.planned += 1;
        self.heap.push(Slot { at, tie: self.planned, what });
    }

    /// What comes first, and when.
    pub fn take(&mut self) -> Option<(Micros, E)> {
        self.heap.pop().map(|slot| (slot.at, slot.what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earlier_first_and_then_in_the_order_of_planning() {
        let mut queue = Queue::default();
        for (at, what) in [(5, 'c'), (1, 'a'), (5, 'd'), (2, 'b')] {
            queue.plan(at, what);
        }
        let taken: String = std::iter::from_fn(|| queue.take()).map(|(_, what)| what).collect();
        assert_eq!(taken, "abcd");
    }
}
