//! What was reached: faults that really struck, and rare situations that must each be met over a whole run.
//!
//! A simulator that never meets a situation says nothing about it; a run of many seeds in which one of these stays
//! at zero therefore fails.

use std::collections::BTreeMap;

/// Rare situations, as named counters. The order is the order of the printed table.
pub const SOMETIMES: &[&str] = &[
    "a winner whose answer was lost retried and heard yes",
    "a winner retried after a restart",
    "a winner retried when nothing was left",
    "a key came back with another body",
    "a key came back naming another product",
    "a key was still in progress",
    "a key was free again after its order was never born",
    "a key that its ledger had forgotten was known in the tables",
    "an order that its ledger had forgotten was found in the tables",
    "somebody waited in vain for the tables to show everything",
    "a thousand orders were forgotten at once",
    "sold out was answered from the published view",
    "off sale for good was answered from the published view",
    "what is off sale for good was tried",
    "a used key kept the door from answering sold out",
    "units on their way back kept the door from answering sold out",
    "sold out, and then a unit came back",
    "the limit was reached",
    "a paused sale was tried",
    "a sale was tried before it opened",
    "a sale was tried after it closed",
    "a price had changed",
    "a mailbox was full",
    "a question came too late to be decided",
    "a lapse raced a pin and won",
    "a pin came within 50 ms of the deadline",
    "a payment was declined and tried again",
    "the last decline gave the units back",
    "a charge timed out and had happened",
    "a charge timed out and had not",
    "a payment was taken up again",
    "a worker that had slept too long left the provider alone",
    "a worker that had slept too long could not move the row",
    "a bank decided while every pin stood",
    "money came for an order that had ended",
    "a claim was made longer",
    "an amount did not fit and a person decided",
    "two clerks decided about one payment",
    "a refund was told twice and done once",
    "part of a hold was confirmed",
    "a sold unit was returned",
    "a part of an order came back",
    "a line was refused and the others undone",
    "a placement died with lines held",
    "crash between Placed and Keep",
    "a home was asked after a restart",
    "a home said keep",
    "a home said release",
    "two products in one write",
    "a group of 512 events",
    "256 lapses in one turn",
    "a hold lapsed before all who waited",
    "disk full with a group open behind",
    "crash during a write that got in",
    "crash during a write that did not",
    "an unknown write had got in",
    "an unknown write had not",
    "an owner panicked with a write in flight",
    "a reload waited for the old owner's write",
    "a snapshot, a crash, and back from the snapshot",
    "an idle owner was unloaded and came back",
    "crash during a flush",
    "the clock stepped back at a start",
    "the clock stepped forward at a start",
    "a refusal was withheld because its group was lost",
];

/// The same of two and three nodes.
pub const SOMETIMES_OF_MANY: &[&str] = &[
    "a node became the lead",
    "another lead opened its doors",
    "the lead was killed",
    "a session was sealed",
    "a node found that its session had been sealed",
    "a node lost its connection to the database",
    "a process ended while its COMMIT was on the way, and it was done",
    "a group of unknown fate was written",
    "a group of unknown fate was not written",
    "somebody heard that nobody knows what became of his order",
    "a refusal was not said, since its owner may have been replaced",
    "two products of one node in one transaction",
    "a lead asked an owner on another node",
    "a question to an owner had no answer",
    "an answer came that nobody waited for any more",
    "questions went back to the mailbox, not decided",
    "a question arrived after the one that was asked in its place",
    "a question waited too long for an owner",
    "an owner refused a question of a lead that it does not follow",
    "a word came of one who is not the lead",
    "a shard began to move",
    "a shard has moved",
    "an owner died while its shard moved",
    "a message between nodes was lost",
    "a key came back for another product",
    "an owner began with a snapshot that another node had taken",
    "a key that its ledger had forgotten was known in the tables",
    "a key that its ledger had forgotten came back to another lead",
    "an order that its ledger had forgotten was found in the tables",
    "somebody waited in vain for the tables to show everything",
    "an order was paid for",
    "a payment was taken up by another lead",
    "a lapse raced a pin and won",
    "a charge timed out and had happened",
    "a charge timed out and had not",
    "money came for an order that had ended",
];

/// Of three only: it takes a third to be led by one while another still asks.
pub const SOMETIMES_OF_THREE: &[&str] =
    &["an owner answered the lead before first", "a node was told late to let go"];

/// What a run of so many owners must meet.
pub fn sometimes(owners: usize) -> Vec<&'static str> {
    match owners {
        1 => SOMETIMES.to_vec(),
        2 => SOMETIMES_OF_MANY.to_vec(),
        _ => [SOMETIMES_OF_MANY, SOMETIMES_OF_THREE].concat(),
    }
}

/// Counters by name.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    pub faults: BTreeMap<&'static str, u64>,
    reached: BTreeMap<&'static str, u64>,
}

impl Tally {
    pub fn fault(&mut self, kind: &'static str) {
        *self.faults.entry(kind).or_insert(0) += 1;
    }

    /// Notes that a rare situation was met. The name must stand in the list.
    pub fn reach(&mut self, what: &'static str) {
        debug_assert!(SOMETIMES.contains(&what) || sometimes(3).contains(&what), "{what}");
        *self.reached.entry(what).or_insert(0) += 1;
    }

    pub fn reached(&self, what: &str) -> u64 {
        self.reached.get(what).copied().unwrap_or(0)
    }

    pub fn faults_in_all(&self) -> u64 {
        self.faults.values().sum()
    }

    pub fn add(&mut self, other: &Tally) {
        for (kind, count) in &other.faults {
            *self.faults.entry(kind).or_insert(0) += count;
        }
        for (what, count) in &other.reached {
            *self.reached.entry(what).or_insert(0) += count;
        }
    }

    /// The situations of these that were never met.
    pub fn never(&self, of: &[&'static str]) -> Vec<&'static str> {
        of.iter().copied().filter(|what| self.reached(what) == 0).collect()
    }
}
