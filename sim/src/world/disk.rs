//! The disk and its keeper: writes and how they end, the flush, snapshots, and the unloading of idle owners.
//!
//! Always true: an owner hears how its own group ended, or it is gone; after an error in a commit nothing is written
//! until the process has started again; rows and their checkpoint are one transaction.

use stockade::domain::stock::Sequence;

use super::mailbox::State;
use super::{Happening, World};
use crate::check::Violation;
use crate::journal::{Fate, Submission};
use crate::scenario::FAULTS_END;
use crate::time::MS;

/// How often tables are brought up to date.
pub(super) const FLUSH_EVERY: i64 = 250 * MS;
/// How often snapshots and unloading are thought of.
pub(super) const HOUSEKEEPING_EVERY: i64 = 100 * MS;

impl World {
    pub(super) fn submit(&mut self, group: Submission) {
        self.journal.waiting.push_back(group);
        self.begin_write();
    }

    fn begin_write(&mut self) {
        let Some(write) = self.journal.begin() else { return };
        let usual = self.scenario.write_us;
        let slow = if self.chance.percent(2) { self.chance.between(5, 60) * MS } else { 0 };
        let mut time =
            self.chance.between(usual / 2, usual * 2) + slow + std::mem::take(&mut self.journal.next_stall);
        if std::mem::take(&mut self.journal.panic_in_next) {
            time += self.chance.between(50, 600) * MS;
            let groups = self.journal.writing.iter().flat_map(|write| &write.groups);
            for product in groups.map(|group| group.product).collect::<Vec<_>>() {
                self.node.owners[product].fuse = Some(self.chance.below(3) as u32);
            }
        }
        if std::mem::take(&mut self.journal.crash_in_next) {
            self.plan(time / 2, Happening::Crash { process: self.node.number });
        }
        self.plan(time, Happening::WriteEnds { write });
    }

    pub(super) fn install(&mut self, groups: Vec<Submission>) {
        if groups.len() > 1 {
            self.tally.reach("two products in one write");
        }
        for group in groups {
            let product = group.product;
            if let Err(why) = self.journal.install(group, self.now) {
                self.violated(
                    "i9_prefix_durability",
                    format!("product {product}: a fork was written: {why}"),
                );
            }
        }
    }

    pub(super) fn write_ends(&mut self, write: u64) {
        let Some(write) = self.journal.end(write) else { return };
        let fate = match self.journal.next_fate.take() {
            _ if self.now < self.journal.full_until => Fate::Before,
            Some(fate) => fate,
            None => Fate::Written,
        };
        self.note("written", write.number, fate as u64);
        match fate {
            Fate::Written => {}
            Fate::Before => {
                let full = self.now < self.journal.full_until;
                self.tally.fault(if full { "disk full" } else { "write refused" });
                let open = |group: &Submission| {
                    let owner = &self.node.owners[group.product];
                    owner.number == group.owner
                        && owner.protocol().is_some_and(|p| p.ledger().sequence() > group.entry.last)
                };
                if full && write.groups.iter().any(open) {
                    self.tally.reach("disk full with a group open behind");
                }
            }
            Fate::AfterIn => {
                self.tally.fault("write unknown, in");
                self.tally.reach("an unknown write had got in");
            }
            Fate::AfterOut => {
                self.tally.fault("write unknown, out");
                self.tally.reach("an unknown write had not");
            }
        }
        let owners: Vec<(usize, u64)> =
            write.groups.iter().map(|group| (group.product, group.owner)).collect();
        if fate.is_in() {
            self.install(write.groups);
        }
        if matches!(fate, Fate::AfterIn | Fate::AfterOut) {
            // The state of the file is not known: answer *unknown*, leave, and come back.
            self.journal.stopped = true;
            let soon = self.chance.between(200, 20_000);
            self.plan(soon, Happening::Crash { process: self.node.number });
        }
        for (product, owner) in owners {
            let slot = &mut self.node.owners[product];
            if slot.number == owner {
                slot.appended = Some(fate.outcome());
                self.wake(product);
            }
        }
        self.begin_write();
    }

    // --- flush, snapshots, unloading ----------------------------------------------------------------------------

    pub(super) fn flush(&mut self, process: u64) {
        if process != self.node.number || !self.node.up {
            return;
        }
        if self.flushing.is_none() && self.now >= self.flush_stands_until {
            self.flushing =
                Some((0..self.shelves.len()).map(|product| self.journal.head(product).0.0).collect());
            let time = self.chance.between(1, 40) * MS;
            self.plan(time, Happening::FlushEnds { process });
        }
        self.plan(FLUSH_EVERY, Happening::Flush { process });
    }

    pub(super) fn flush_ends(&mut self, process: u64) {
        if process == self.node.number
            && self.node.up
            && let Some(heads) = self.flushing.take()
        {
            self.fold(&heads, true);
            self.look_again();
        }
    }

    /// One transaction: everything up to these heads, and the checkpoints.
    pub(super) fn fold(&mut self, heads: &[u64], checkpoint: bool) {
        for (product, head) in heads.iter().enumerate() {
            let shelf = &mut self.shelves[product];
            let before = shelf.checkpoint;
            let entries = self.journal.tail(product, Sequence(before));
            for entry in entries.iter().take_while(|entry| entry.last.0 <= *head) {
                if let Err(why) = shelf.fold(entry) {
                    self.broken_rule.get_or_insert(Violation {
                        invariant: "i10_one_state_by_every_road",
                        what: format!("product {product}: the flush cannot read an entry: {why}"),
                    });
                }
            }
            if !checkpoint {
                shelf.checkpoint = before;
            }
        }
        self.note("fold", heads.iter().sum(), checkpoint.into());
    }

    pub(super) fn housekeeping(&mut self, process: u64) {
        if process != self.node.number || !self.node.up {
            return;
        }
        for product in 0..self.node.owners.len() {
            if self.chance.percent(10) {
                self.forgets(product);
            }
            if process != self.node.number || !self.node.up {
                return;
            }
            let (snapshot, unload) =
                (self.chance.percent(8), self.chance.percent(5) && self.now < FAULTS_END);
            let owner = &mut self.node.owners[product];
            let undecided = owner.undecided() > 0 || owner.appended.is_some();
            let State::Up(protocol) = &mut owner.state else { continue };
            // Whoever has a hold that will lapse must not sleep.
            let idle = !undecided && protocol.next_deadline().is_none();
            let Some((sequence, body)) = (if snapshot || unload { protocol.snapshot() } else { None }) else {
                continue;
            };
            if unload && idle {
                let number = self.next_owner();
                let owner = &mut self.node.owners[product];
                owner.drop_state(number);
                owner.unloaded = true;
                self.note("unload", product as u64, sequence.0);
            }
            let time = self.chance.between(1, 30) * MS;
            self.plan(time, Happening::SnapshotKept { process, product, sequence, body });
        }
        self.plan(HOUSEKEEPING_EVERY, Happening::Housekeeping { process });
    }

    pub(super) fn snapshot_kept(&mut self, process: u64, product: usize, sequence: Sequence, body: Vec<u8>) {
        if process != self.node.number || !self.node.up {
            return;
        }
        self.note("snapshot", product as u64, sequence.0);
        if let Err(why) = self.journal.keep_snapshot(product, sequence, body) {
            self.violated("i9_prefix_durability", format!("product {product}: {why}"));
        }
    }
}
