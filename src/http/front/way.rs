//! The way to a node that leads, as one thread has it: when a request may leave by it.
//!
//! Around a take-over a node refuses whoever asks: it leads no more, or its doors are not open yet. Always true: while it does, one of
//! those who wait looks now and then whether it takes anybody, for all, and none of the others is sent for nothing; and what it has lost, or
//! refused more than once, is sent to it again as far as its [`Retries`] go.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use super::Node;
use super::retries::Retries;
use crate::clock::Clock;
use crate::peer::Link;

/// How often one of those who wait looks.
const LOOK_EVERY_NS: u64 = 50_000_000;
/// Whoever is refused hears it at once. One who has heard nothing for so long was let in, and his answer takes its time.
const REFUSED_WITHIN_NS: u64 = 1_000_000_000;

#[derive(Debug, Clone, Copy)]
struct Refusing {
    /// When it has refused the last time.
    refused_ns: u64,
    /// When somebody looked the last time, and the first time since it has refused.
    looked_ns: u64,
    first_look_ns: Option<u64>,
}

/// Whether the node takes what it is asked, as far as it was seen.
#[derive(Debug, Default)]
struct Gate(Cell<Option<Refusing>>);

/// Who may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    Everybody,
    /// Whoever has asked for it: he looks for all.
    ThisOne,
    Nobody,
}

impl Gate {
    fn opens(&self, now_ns: u64) -> Open {
        let Some(refusing) = self.0.get() else { return Open::Everybody };
        let since = |then_ns: u64| now_ns.saturating_sub(then_ns);
        if refusing.first_look_ns.is_some_and(|first_ns| since(first_ns) > REFUSED_WITHIN_NS) {
            self.0.set(None);
            return Open::Everybody;
        }
        if since(refusing.looked_ns) < LOOK_EVERY_NS {
            return Open::Nobody;
        }
        let first_look_ns = refusing.first_look_ns.or(Some(now_ns));
        self.0.set(Some(Refusing { looked_ns: now_ns, first_look_ns, ..refusing }));
        Open::ThisOne
    }

    fn refused(&self, now_ns: u64) {
        self.0.set(Some(Refusing { refused_ns: now_ns, looked_ns: now_ns, first_look_ns: None }));
    }

    /// Whether the gate has opened by that. An answer to what was asked before the refusal was under way by then, and says nothing.
    fn answered(&self, asked_ns: u64) -> bool {
        let opens = self.0.get().is_some_and(|refusing| asked_ns >= refusing.refused_ns);
        if opens {
            self.0.set(None);
        }
        opens
    }
}

/// What a request does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    Leaves,
    /// It leaves for all that wait.
    Looks,
    Waits,
    /// It was sent to this node as often as it may be.
    Ends,
}

pub struct Way {
    pub node: Arc<Node>,
    pub link: Link,
    pub retries: Rc<Retries>,
    gate: Gate,
}

impl Way {
    pub fn to(node: Arc<Node>, link: Link, retries: Rc<Retries>) -> Way {
        Way { node, link, retries, gate: Gate::default() }
    }

    /// For a request, at this time, that this node has refused `again` after it had done so once, or has not.
    pub fn turn(&self, now_ns: u64, again: bool, clock: &Clock) -> Turn {
        match self.gate.opens(now_ns) {
            Open::Nobody => Turn::Waits,
            Open::Everybody if again && !self.retries.take(clock) => Turn::Ends,
            Open::Everybody => Turn::Leaves,
            Open::ThisOne => Turn::Looks,
        }
    }

    /// The node has refused a request.
    pub fn refused(&self, now_ns: u64) {
        self.gate.refused(now_ns);
    }

    /// The node has answered what it was asked at `asked_ns`. Whether those who wait may leave from now on.
    pub fn answered(&self, asked_ns: u64) -> bool {
        self.gate.answered(asked_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn while_a_node_refuses_one_looks_for_all() {
        let gate = Gate::default();
        assert_eq!([gate.opens(1), gate.opens(1)], [Open::Everybody; 2]);
        gate.refused(10);
        let after = [0, 1, LOOK_EVERY_NS, LOOK_EVERY_NS + 1];
        let looks = |from: u64| after.map(|after| gate.opens(from + after));
        let one = [Open::Nobody, Open::Nobody, Open::ThisOne, Open::Nobody];
        assert_eq!(looks(10), one);
        assert_eq!(looks(10 + LOOK_EVERY_NS), one);
        gate.refused(10 + 2 * LOOK_EVERY_NS);
        assert_eq!(looks(10 + 2 * LOOK_EVERY_NS), one);
    }

    #[test]
    fn an_answer_to_what_was_asked_since_opens_it() {
        let gate = Gate::default();
        assert!(!gate.answered(5), "it is open");
        gate.refused(10);
        assert!(!gate.answered(9), "it was let in before");
        assert_eq!(gate.opens(11), Open::Nobody);
        assert_eq!(gate.opens(10 + LOOK_EVERY_NS), Open::ThisOne);
        assert!(gate.answered(10 + LOOK_EVERY_NS));
        assert_eq!(gate.opens(12), Open::Everybody);
        assert!(!gate.answered(13));
    }

    #[test]
    fn whoever_is_not_refused_for_long_was_let_in() {
        let gate = Gate::default();
        gate.refused(10);
        assert_eq!(gate.opens(10 + 2 * REFUSED_WITHIN_NS), Open::ThisOne, "he is the first to look");
        let looked_ns = 10 + 2 * REFUSED_WITHIN_NS;
        assert_eq!(gate.opens(looked_ns + REFUSED_WITHIN_NS), Open::ThisOne);
        gate.refused(looked_ns + REFUSED_WITHIN_NS);
        let looked_ns = looked_ns + REFUSED_WITHIN_NS + LOOK_EVERY_NS;
        assert_eq!(gate.opens(looked_ns), Open::ThisOne);
        assert_eq!(gate.opens(looked_ns + LOOK_EVERY_NS), Open::ThisOne);
        assert_eq!(gate.opens(looked_ns + REFUSED_WITHIN_NS + 1), Open::Everybody);
        assert_eq!(gate.opens(looked_ns + REFUSED_WITHIN_NS + 1), Open::Everybody);
    }
}
