//! The process: what is lost when it dies, and how it comes back.
//!
//! Always true: a write in progress at a crash is in whole or not at all; a new start raises the journal's epoch,
//! reads the wall clock once, knows every key that an order was ever made with before it takes a request, and loads the
//! owners that have holds.

use std::collections::BTreeMap;

use stockade::actors::stock::Protocol;
use stockade::domain::stock::Sequence;

use super::again::Look;
use super::disk::{FLUSH_EVERY, HOUSEKEEPING_EVERY};
use super::door::Run;
use super::keys::UsedKeys;
use super::mailbox::{Inside, Owner, State, Waiter, Waiting};
use super::{Happening, World};
use crate::broken::Broken;
use crate::time::{MS, ProcessClock, Wall};

/// Everything that is lost in a crash.
#[derive(Debug)]
pub struct Process {
    pub up: bool,
    /// Which start of the process this is.
    pub number: u64,
    pub clock: ProcessClock,
    pub owners: Vec<Owner>,
    pub keys: UsedKeys,
    pub waiting: BTreeMap<u64, Waiting>,
    pub runs: BTreeMap<u64, Run>,
    /// Who waits for the tables.
    pub looks: BTreeMap<u64, Look>,
    /// Tokens handed out, in this process and before.
    pub tokens: u64,
    pub owner_numbers: u64,
    /// The process dies after this many outputs.
    pub fuse: Option<u32>,
}

impl Process {
    pub fn down(products: usize) -> Process {
        Process {
            up: false,
            number: 0,
            clock: ProcessClock::start(0, Wall::default(), 0),
            owners: (0..products).map(|_| Owner::cold(0)).collect(),
            keys: UsedKeys::default(),
            waiting: BTreeMap::new(),
            runs: BTreeMap::new(),
            looks: BTreeMap::new(),
            tokens: 0,
            owner_numbers: 0,
            fuse: None,
        }
    }
}

impl World {
    pub(super) fn next_owner(&mut self) -> u64 {
        self.node.owner_numbers += 1;
        self.node.owner_numbers
    }

    pub(super) fn start(&mut self) {
        if self.node.up {
            return;
        }
        if self.node.number > 0 {
            // A machine that starts again has asked the time; it is never quite the same.
            let error = self.chance.between(-300, 300) * MS;
            self.tally.reach(if error < self.node.clock.error_us(self.now) {
                "the clock stepped back at a start"
            } else {
                "the clock stepped forward at a start"
            });
            self.wall.error_us = error;
        }
        self.node.number += 1;
        self.node.up = true;
        self.node.clock = ProcessClock::start(self.now, self.wall, self.scenario.drift_ppm);
        self.journal.open();
        self.note("start", self.node.number, self.wall.error_us as u64);
        self.say(|| format!("start {}: the wall is {} ms off", self.node.number, self.wall.error_us / MS));
        for product in 0..self.node.owners.len() {
            let Some(protocol) = self.recover(product) else { continue };
            if !self.is(Broken::ForgetDedupeOnRestart) {
                self.recall_keys(product);
                self.fill_keys(product, &protocol);
            }
            // Holds lapse on time only while their owner is there.
            if protocol.next_deadline().is_some() {
                self.load(product);
            }
        }
        let process = self.node.number;
        self.plan(FLUSH_EVERY, Happening::Flush { process });
        self.desk_opens();
        self.plan(HOUSEKEEPING_EVERY, Happening::Housekeeping { process });
    }

    /// Nothing is left but the journal, and perhaps the write in hand.
    pub(super) fn crash(&mut self, why: &'static str) {
        if !self.node.up {
            return;
        }
        self.tally.fault("crash");
        self.note("crash", self.node.number, self.node.waiting.len() as u64);
        self.say(|| format!("crash: {why}"));
        if let Some(write) = self.journal.writing.take() {
            let (got_in, name) = match self.chance.percent(50) {
                true => (true, "crash during a write that got in"),
                false => (false, "crash during a write that did not"),
            };
            self.tally.reach(name);
            self.say(|| format!("  {name}"));
            if got_in {
                self.install(write.groups);
            }
        }
        self.journal.waiting.clear();
        if let Some(heads) = self.flushing.take() {
            self.tally.reach("crash during a flush");
            if self.chance.percent(50) {
                self.fold(&heads, true);
            } else if self.is(Broken::CheckpointApart) {
                self.fold(&heads, false);
            }
        }
        if self.journal.snapshots.iter().any(Option::is_some) {
            self.tally.reach("a snapshot, a crash, and back from the snapshot");
        }
        let clients = self.node.waiting.values().filter_map(|waiting| match waiting.waiter {
            Waiter::Door(attempt) => Some(attempt),
            Waiter::Inside(Inside::Key { attempt, .. } | Inside::Stands { attempt, .. }) => Some(attempt),
            Waiter::Inside(_) => None,
        });
        let clients = clients.chain(self.node.runs.values().map(|run| run.attempt));
        let clients: Vec<usize> = clients.chain(self.node.looks.values().map(|look| look.attempt)).collect();
        if self.node.runs.values().any(|run| run.holds > 0) {
            self.tally.reach("a placement died with lines held");
        }
        for attempt in clients {
            self.hang_up(attempt);
        }
        self.node.up = false;
        self.desk_crashes();
        self.node.fuse = None;
        self.node.waiting.clear();
        self.node.runs.clear();
        self.node.looks.clear();
        self.node.keys = UsedKeys::default();
        for product in 0..self.node.owners.len() {
            let number = self.next_owner();
            self.node.owners[product] = Owner::cold(number);
        }
        let pause = self.chance.one_of([20, 100, 400, 1_500]) * MS;
        let pause = pause + self.chance.between(0, pause);
        self.plan(pause, Happening::Start);
    }

    /// What the journal holds of a product. A ledger that cannot be read back, or differs by the road it came, ends
    /// the history (I9, I10).
    fn recover(&mut self, product: usize) -> Option<Protocol<u64>> {
        let (id, epoch) = (self.scenario.products[product].id, self.journal.epoch);
        let snapshot = self.journal.snapshots[product].as_ref();
        let after = snapshot.map_or(Sequence(0), |(sequence, _)| *sequence);
        let body = snapshot.map(|(_, body)| body.as_slice());
        let short = Protocol::recover(id, epoch, body, self.journal.tail(product, after));
        match short {
            Ok(protocol) => Some(protocol),
            Err(why) => {
                self.violated(
                    "i9_prefix_durability",
                    format!("product {product} cannot be read back: {why}"),
                );
                None
            }
        }
    }

    /// The keys of the orders that the tables show, and of what the journal has behind them.
    fn recall_keys(&mut self, product: usize) {
        let prints = self.shelves[product].all_keys(&self.journal.chapters[product].events);
        for print in prints {
            self.node.keys.keep(print, product);
        }
    }

    fn fill_keys(&mut self, product: usize, protocol: &Protocol<u64>) {
        let mut keys: Vec<_> = protocol.ledger().keys().map(|(_, buyer, key)| (buyer, key)).collect();
        keys.sort_unstable();
        for print in keys {
            self.node.keys.keep(print, product);
        }
    }

    /// Starts reading an owner's ledger.
    pub(super) fn load(&mut self, product: usize) {
        let owner = &mut self.node.owners[product];
        owner.state = State::Loading;
        let number = owner.number;
        let time = self.chance.between(200, 8_000);
        self.plan(time, Happening::Loaded { product, owner: number });
    }

    /// The owner's state is of no use any more; the questions in its mailbox wait for the next.
    pub(super) fn reload(&mut self, product: usize) {
        let number = self.next_owner();
        let view = self.node.owners[product].view.take();
        self.node.owners[product].drop_state(number);
        if self.is(Broken::StaleViewWhileLoading) {
            self.node.owners[product].view = view;
        }
        self.load(product);
    }

    pub(super) fn loaded(&mut self, product: usize, owner: u64) {
        let slot = &self.node.owners[product];
        if slot.number != owner || matches!(slot.state, State::Up(_)) {
            return;
        }
        // What the last owner handed over may still be written: only then is the journal's end the end.
        if self.journal.is_busy_with(product) && !self.is(Broken::ReloadWithoutWaiting) {
            if !std::mem::replace(&mut self.node.owners[product].waited, true) {
                self.tally.reach("a reload waited for the old owner's write");
            }
            return self.plan(300, Happening::Loaded { product, owner });
        }
        let Some(protocol) = self.recover(product) else { return };
        self.told_before(product, protocol.ledger().sequence());
        self.fill_keys(product, &protocol);
        let now = self.clock();
        let slot = &mut self.node.owners[product];
        slot.view = protocol.view(now);
        // What was due while nobody was there is due now.
        slot.excuse = now;
        slot.state = State::Up(Box::new(protocol));
        if slot.unloaded {
            self.tally.reach("an idle owner was unloaded and came back");
        }
        self.note("loaded", product as u64, owner);
        self.wake(product);
    }
}
