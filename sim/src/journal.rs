//! The shared journal: one write at a time carries the groups of all products that wait.
//!
//! Always true of it: a write is in whole or not at all; what is in stays; an entry that does not continue its
//! product's history, or comes from an earlier start of the process, is refused. Nothing but the journal survives a
//! crash, and the snapshots that stand beside it. The test `conformance` plays the same appends, snapshots and openings against
//! this and against the shop's own journal in files, and each [`Flaw`] must be seen there.

use std::collections::VecDeque;

use stockade::actors::stock::Outcome;
use stockade::domain::stock::{ChainHash, Entry, Epoch, Sequence};

use crate::story::{Chapter, Fact};
use crate::time::Micros;

/// A mistake, to see that it is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// What leaves a gap, or stands there already, is taken.
    TakesForks,
    /// The snapshot that comes last stands there.
    OlderSnapshot,
    /// An owner is given all that has happened, whatever its snapshot says.
    WholeTail,
    /// A new opening has the number of the one before.
    SameEpoch,
    /// What was written last is gone with the next opening.
    LosesTheLast,
}

impl Flaw {
    pub const ALL: [Flaw; 5] =
        [Flaw::TakesForks, Flaw::OlderSnapshot, Flaw::WholeTail, Flaw::SameEpoch, Flaw::LosesTheLast];
}

/// One owner's group on its way.
#[derive(Debug)]
pub struct Submission {
    pub product: usize,
    pub owner: u64,
    pub entry: Entry,
    pub facts: Vec<Fact>,
}

/// What the disk will do to a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Written,
    /// Refused before anything reached the disk.
    Before,
    /// In, but the answer is an error.
    AfterIn,
    /// Not in, and the answer leaves it open.
    AfterOut,
}

impl Fate {
    pub fn is_in(self) -> bool {
        matches!(self, Fate::Written | Fate::AfterIn)
    }

    pub fn outcome(self) -> Outcome {
        match self {
            Fate::Written => Outcome::Written,
            Fate::Before => Outcome::NotWritten,
            Fate::AfterIn | Fate::AfterOut => Outcome::Unknown,
        }
    }
}

#[derive(Debug)]
pub struct Write {
    pub number: u64,
    pub groups: Vec<Submission>,
}

#[derive(Debug)]
pub struct Journal {
    pub chapters: Vec<Chapter>,
    pub snapshots: Vec<Option<(Sequence, Vec<u8>)>>,
    pub epoch: Epoch,
    pub waiting: VecDeque<Submission>,
    pub writing: Option<Write>,
    writes: u64,
    /// An error in a commit: nothing more is written until the process has started again.
    pub stopped: bool,
    pub next_fate: Option<Fate>,
    /// The next write takes this much longer.
    pub next_stall: Micros,
    pub full_until: Micros,
    /// The process dies during the next write.
    pub crash_in_next: bool,
    /// An owner dies during the next write, which takes long.
    pub panic_in_next: bool,
    flaw: Option<Flaw>,
}

impl Journal {
    pub fn new(chapters: Vec<Chapter>, flaw: Option<Flaw>) -> Journal {
        Journal {
            snapshots: vec![None; chapters.len()],
            chapters,
            epoch: Epoch(0),
            waiting: VecDeque::new(),
            writing: None,
            writes: 0,
            stopped: false,
            next_fate: None,
            next_stall: 0,
            full_until: 0,
            crash_in_next: false,
            panic_in_next: false,
            flaw,
        }
    }

    /// A new start of the process: whatever was written before stands, and nothing more comes of it.
    pub fn open(&mut self) {
        if self.flaw != Some(Flaw::SameEpoch) || self.epoch == Epoch(0) {
            self.epoch = Epoch(self.epoch.0 + 1);
        }
        self.stopped = false;
        if self.flaw == Some(Flaw::LosesTheLast) {
            self.chapters.iter_mut().for_each(|chapter| drop(chapter.entries.pop()));
        }
    }

    /// Starts the next write if there is one and the last has ended: its number.
    pub fn begin(&mut self) -> Option<u64> {
        if self.writing.is_some() || self.waiting.is_empty() || self.stopped {
            return None;
        }
        self.writes += 1;
        // A product can wait twice after a panic: the second group waits for the fate of the first.
        let (mut groups, mut later) = (Vec::<Submission>::new(), VecDeque::new());
        for next in self.waiting.drain(..) {
            if groups.iter().any(|group| group.product == next.product) {
                later.push_back(next);
            } else {
                groups.push(next);
            }
        }
        self.waiting = later;
        self.writing = Some(Write { number: self.writes, groups });
        Some(self.writes)
    }

    /// Ends the write in hand, if it is this one.
    pub fn end(&mut self, number: u64) -> Option<Write> {
        if self.writing.as_ref().is_none_or(|write| write.number != number) {
            return None;
        }
        self.writing.take()
    }

    /// Whether a group of this product is on its way.
    pub fn is_busy_with(&self, product: usize) -> bool {
        let writing = self.writing.iter().flat_map(|write| &write.groups);
        writing.chain(&self.waiting).any(|group| group.product == product)
    }

    pub fn head(&self, product: usize) -> (Sequence, ChainHash) {
        let last = self.chapters[product].entries.last();
        last.map_or((Sequence(0), ChainHash::default()), |entry| (entry.last, entry.hash))
    }

    /// Makes a group part of the history; what is wrong with it, if it cannot be.
    pub fn install(&mut self, mut group: Submission, now: Micros) -> Result<(), String> {
        let (sequence, hash) = self.head(group.product);
        if self.flaw != Some(Flaw::TakesForks) {
            group.entry.continues(sequence, hash).map_err(|forked| forked.to_string())?;
        }
        if group.entry.epoch != self.epoch {
            return Err(format!("written under epoch {}, which is over", group.entry.epoch.0));
        }
        let events =
            stockade::domain::stock::decode_events(&group.entry.events).map_err(|e| e.to_string())?;
        let chapter = &mut self.chapters[group.product];
        chapter.events.extend(events);
        group.facts.iter_mut().for_each(|fact| fact.durable = now);
        chapter.facts.append(&mut group.facts);
        chapter.entries.push(group.entry);
        Ok(())
    }

    /// The entries after a sequence.
    pub fn tail(&self, product: usize, after: Sequence) -> &[Entry] {
        let chapter = &self.chapters[product];
        if self.flaw == Some(Flaw::WholeTail) { &chapter.entries } else { chapter.tail(after) }
    }

    /// Keeps a snapshot, beside the journal.
    pub fn keep_snapshot(&mut self, product: usize, sequence: Sequence, body: Vec<u8>) -> Result<(), String> {
        self.chapters[product].keep_snapshot(sequence, body.clone())?;
        let last = self.flaw == Some(Flaw::OlderSnapshot);
        if last || self.snapshots[product].as_ref().is_none_or(|(before, _)| *before < sequence) {
            self.snapshots[product] = Some((sequence, body));
        }
        Ok(())
    }
}
