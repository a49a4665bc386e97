//! What a run remembers for the judges: every acknowledged order, and every *no* reduced to what can be judged.
//!
//! Refusals come by the million, but those decided at the same sequence of the same product say the same thing. So a
//! run of them is one record with the time of its first answer and of its last question: an inversion between any
//! two answers exists exactly if one exists between the records.

use crate::answer::{OrderId, OrderState};
use crate::clock::Nanos;
use crate::wire::Key;

/// An order that a buyer was told of.
#[derive(Clone, Copy, Debug)]
pub struct Ordered {
    pub key: Key,
    pub product: u32,
    pub sequence: u64,
    /// The first moment at which the server may have decided it: when the first try whose outcome stayed open was sent.
    pub asked_ns: Nanos,
    pub answered_ns: Nanos,
    pub order: OrderId,
    /// How it stood when its buyer heard of it for the last time.
    pub state: OrderState,
    /// Minor units.
    pub total: u64,
    /// Some try of it had no certain answer.
    pub was_uncertain: bool,
}

/// Buyers who heard *no* with the same sequence of the same product, one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Refused {
    pub product: u32,
    pub sequence: u64,
    pub first_answered_ns: Nanos,
    pub last_asked_ns: Nanos,
    /// Somebody among them was told *sold out*.
    pub sold_out: bool,
}

#[derive(Debug, Default)]
pub struct History {
    /// Buyers heard *yes*; in a crowd that pays, these are paid.
    pub acknowledged: Vec<Ordered>,
    /// Buyers had an order, and heard that it is not paid.
    pub declined: Vec<Ordered>,
    pub refused: Vec<Refused>,
    /// Attempts whose buyers gave up without ever having a certain answer.
    pub unresolved: Vec<u64>,
    /// Buyers whose order was not paid, and who did not try again.
    pub went_home: u64,
    /// Orders that somebody was told of without their id, sequence or total.
    pub unreadable: u64,
    /// The first answer nobody expects, for the report.
    pub oddity: Option<String>,
    /// The open run of each product, as a place in `refused`.
    open: Vec<u32>,
}

const NONE: u32 = u32::MAX;

impl History {
    pub fn new(products: usize, expected_orders: usize) -> Self {
        Self {
            acknowledged: Vec::with_capacity(expected_orders),
            open: vec![NONE; products],
            ..Self::default()
        }
    }

    /// Every order that anybody was told of.
    pub fn orders(&self) -> impl Iterator<Item = &Ordered> + Clone {
        self.acknowledged.iter().chain(&self.declined)
    }

    pub fn refuse(
        &mut self,
        product: u32,
        sequence: u64,
        sold_out: bool,
        asked_ns: Nanos,
        answered_ns: Nanos,
    ) {
        let open = &mut self.open[product as usize];
        if let Some(run) = self.refused.get_mut(*open as usize)
            && run.sequence == sequence
        {
            run.first_answered_ns = run.first_answered_ns.min(answered_ns);
            run.last_asked_ns = run.last_asked_ns.max(asked_ns);
            run.sold_out |= sold_out;
            return;
        }
        *open = self.refused.len() as u32;
        self.refused.push(Refused {
            product,
            sequence,
            first_answered_ns: answered_ns,
            last_asked_ns: asked_ns,
            sold_out,
        });
    }

    pub fn absorb(&mut self, other: Self) {
        self.acknowledged.extend(other.acknowledged);
        self.declined.extend(other.declined);
        self.refused.extend(other.refused);
        self.unresolved.extend(other.unresolved);
        self.went_home += other.went_home;
        self.unreadable += other.unreadable;
        self.oddity = self.oddity.take().or(other.oddity);
    }
}
