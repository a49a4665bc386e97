//! The world of one history: a node, its journal, its clients, and chance.
//!
//! Time moves from one planned happening to the next. A happening belongs to one start of the process, or to one
//! owner, and means nothing after their end; nothing but the journal and the memory of clients outlives a crash.

mod door;
mod faults;
mod journal;
mod keys;
mod owner;
mod people;
mod process;
mod rest;
mod saga;

use std::collections::BTreeMap;

use stockade::actors::stock::Reply;
use stockade::domain::id::ProductId;
use stockade::domain::stock::{Millis, Refusal, Sequence};

use crate::broken::Broken;
use crate::chance::Chance;
use crate::check::Violation;
use crate::queue::Queue;
use crate::scenario::{FAULTS_END, REST_BY, Scenario};
use crate::story::{Attempt, Chapter, Heard, Ruling, Story, What};
use crate::tally::Tally;
use crate::time::{MS, Micros, Wall};
use crate::trace::Trace;

use faults::Fault;
use crate::tables::Shelf;
use journal::Journal;
use people::{Closer, Shopper};
use process::Process;
use saga::Saga;

/// What can happen.
#[derive(Debug)]
enum Happening {
    Start,
    /// The fuse of a crash has burnt long enough.
    Crash { process: u64 },
    Strike(Fault),
    WriteEnds { write: u64 },
    /// An owner's turn.
    Turn { product: usize, owner: u64 },
    Timer { product: usize, owner: u64 },
    Loaded { product: usize, owner: u64 },
    /// A word inside the process.
    Told { process: u64, to: owner::Inside, reply: Reply },
    Flush { process: u64 },
    FlushEnds { process: u64 },
    Housekeeping { process: u64 },
    SnapshotKept { process: u64, product: usize, sequence: Sequence, body: Vec<u8> },
    /// A request reaches the node.
    Arrive { attempt: usize },
    /// An answer reaches its client; `None` is a connection that broke.
    Hear { attempt: usize, lost: bool },
    GiveUp { attempt: usize },
    Shopper(usize),
    Closer(usize),
    Saga(usize),
    Rush,
    Look,
}

/// Who sent a request.
#[derive(Debug, Clone, Copy)]
enum Sender {
    Shopper(usize, u32),
    Closer(usize),
    Saga(usize),
    /// Nobody waits for the answer.
    None,
}

pub struct World {
    pub seed: u64,
    now: Micros,
    queue: Queue<Happening>,
    chance: Chance,
    scenario: Scenario,
    broken: Option<Broken>,
    wall: Wall,
    node: Process,
    journal: Journal,
    shelves: Vec<Shelf>,
    flushing: Option<Vec<u64>>,
    shoppers: Vec<Shopper>,
    closers: Vec<Closer>,
    sagas: Vec<Saga>,
    attempts: Vec<Attempt>,
    senders: Vec<Sender>,
    rulings: Vec<Ruling>,
    orders: BTreeMap<stockade::domain::id::OrderId, usize>,
    /// The newest sequence of each product that somebody was told of.
    told: Vec<Sequence>,
    /// Answers get lost and requests are slow until here.
    storm_until: Micros,
    placement_fuse: Option<u32>,
    tally: Tally,
    trace: Trace,
    broken_rule: Option<Violation>,
    rested: bool,
}

/// What a history came to.
#[derive(Debug)]
pub struct Outcome {
    pub trace: u64,
    pub events: u64,
    pub simulated: Micros,
    pub attempts: u64,
    pub answered: u64,
    pub tally: Tally,
    pub verdict: Result<(), Violation>,
}

impl World {
    pub fn new(seed: u64, broken: Option<Broken>, aloud: bool) -> World {
        let scenario = Scenario::of(seed);
        let chapter = |product: ProductId| Chapter {
            product,
            entries: Vec::new(),
            events: Vec::new(),
            facts: Vec::new(),
            snapshots: Vec::new(),
        };
        let chapters: Vec<Chapter> = scenario.products.iter().map(|plan| chapter(plan.id)).collect();
        let count = chapters.len();
        World {
            seed,
            now: 0,
            queue: Queue::default(),
            chance: Chance::new(seed, 2),
            broken,
            wall: Wall::default(),
            node: Process::down(count),
            journal: Journal::new(chapters),
            shelves: vec![Shelf::default(); count],
            flushing: None,
            shoppers: Vec::new(),
            closers: Vec::new(),
            sagas: Vec::new(),
            attempts: Vec::new(),
            senders: Vec::new(),
            rulings: Vec::new(),
            orders: BTreeMap::new(),
            told: vec![Sequence(0); count],
            storm_until: 0,
            placement_fuse: None,
            tally: Tally::default(),
            trace: Trace::new(aloud),
            broken_rule: None,
            rested: false,
            scenario,
        }
    }

    /// Plays the history to its end and judges it.
    pub fn play(mut self) -> Outcome {
        self.plan(0, Happening::Start);
        self.open_the_doors();
        self.plan_faults();
        self.plan_at(FAULTS_END, Happening::Look);
        while !self.rested && self.broken_rule.is_none() {
            let Some((at, happening)) = self.queue.next() else { break };
            if at > REST_BY {
                break;
            }
            self.now = at;
            self.happen(happening);
        }
        self.judge()
    }

    fn judge(mut self) -> Outcome {
        let story = Story {
            chapters: std::mem::take(&mut self.journal.chapters),
            attempts: std::mem::take(&mut self.attempts),
            rulings: std::mem::take(&mut self.rulings),
            orders: std::mem::take(&mut self.orders),
        };
        crate::check::reached(&story, &mut self.tally);
        let verdict = match self.broken_rule.take() {
            Some(violation) => Err(violation),
            None => crate::check::all(&story).and_then(|()| self.at_rest(&story)),
        };
        Outcome {
            trace: self.trace.hash(),
            events: self.trace.events,
            simulated: self.now,
            attempts: story.attempts.len() as u64,
            answered: story.attempts.iter().filter(|attempt| attempt.said.is_some()).count() as u64,
            tally: self.tally,
            verdict,
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Start => self.start(),
            Happening::Crash { process } if process == self.node.number => self.crash("the fuse burnt down"),
            Happening::Crash { .. } => {}
            Happening::Strike(fault) => self.strike(fault),
            Happening::WriteEnds { write } => self.write_ends(write),
            Happening::Turn { product, owner } => self.turn(product, owner),
            Happening::Timer { product, owner } => self.timer(product, owner),
            Happening::Loaded { product, owner } => self.loaded(product, owner),
            Happening::Told { process, to, reply } if process == self.node.number => self.told_inside(to, reply),
            Happening::Told { .. } => {}
            Happening::Flush { process } => self.flush(process),
            Happening::FlushEnds { process } => self.flush_ends(process),
            Happening::Housekeeping { process } => self.housekeeping(process),
            Happening::SnapshotKept { process, product, sequence, body } => {
                self.snapshot_kept(process, product, sequence, body);
            }
            Happening::Arrive { attempt } => self.arrive(attempt),
            Happening::Hear { attempt, lost } => self.hear(attempt, lost),
            Happening::GiveUp { attempt } => self.give_up(attempt),
            Happening::Shopper(number) => self.shopper_acts(number),
            Happening::Closer(number) => self.closer_acts(number),
            Happening::Saga(number) => self.saga_acts(number),
            Happening::Rush => self.rush(),
            Happening::Look => self.look(),
        }
    }

    fn plan(&mut self, after: Micros, what: Happening) {
        self.queue.plan(self.now + after.max(0), what);
    }

    fn plan_at(&mut self, at: Micros, what: Happening) {
        self.queue.plan(at.max(self.now), what);
    }

    fn note(&mut self, kind: &'static str, a: u64, b: u64) {
        self.trace.note(self.now, kind, a, b);
    }

    fn say(&self, line: impl FnOnce() -> String) {
        self.trace.say(self.now, line);
    }

    /// The first broken rule ends the history.
    fn violated(&mut self, invariant: &'static str, what: String) {
        self.broken_rule.get_or_insert(Violation { invariant, what });
    }

    fn is(&self, broken: Broken) -> bool {
        self.broken == Some(broken)
    }

    /// The process's clock: boot time since the wall was read at the start.
    fn clock(&self) -> Millis {
        if self.is(Broken::ExpireByWallClock) {
            return Millis(self.wall.read_us(self.now).div_euclid(MS));
        }
        self.node.clock.now(self.now)
    }

    fn product(&self, id: ProductId) -> Option<usize> {
        self.scenario.products.iter().position(|plan| plan.id == id)
    }

    fn in_storm(&self) -> bool {
        self.now < self.storm_until
    }

    fn network(&mut self) -> Micros {
        let slow = if self.in_storm() && self.chance.percent(30) { self.chance.between(0, 400) * MS } else { 0 };
        self.chance.between(50, 4_000) + slow
    }

    /// Sends a request. The client gives up waiting after `patience`.
    fn send(&mut self, sender: Sender, attempt: Attempt, patience: Micros) -> usize {
        let number = self.attempts.len();
        self.note("send", number as u64, 0);
        self.attempts.push(attempt);
        self.senders.push(sender);
        let way = self.network();
        self.plan(way, Happening::Arrive { attempt: number });
        if !matches!(sender, Sender::None) {
            self.plan(patience, Happening::GiveUp { attempt: number });
        }
        number
    }

    /// The answer of the node leaves it. It may be lost on its way.
    fn answer(&mut self, attempt: usize, heard: Heard, from_view: bool) {
        let Some(record) = self.attempts.get_mut(attempt) else { return };
        if record.said.is_some() {
            return;
        }
        record.said = Some(crate::story::Said { at: self.now, heard: heard.clone(), from_view });
        self.notice(attempt, &heard);
        self.note("answer", attempt as u64, from_view.into());
        self.trace.say(self.now, || format!("  answer to {attempt}: {heard:?}"));
        let percent = self.scenario.loss_percent + if self.in_storm() { 30 } else { 0 };
        let lost = self.now < FAULTS_END && self.chance.percent(percent);
        if !lost {
            let way = self.network();
            self.plan(way, Happening::Hear { attempt, lost: false });
        }
    }

    /// Notes the rare situations that an answer shows.
    fn notice(&mut self, attempt: usize, heard: &Heard) {
        let reached = match heard.refusal() {
            Some(Refusal::KeyReused { .. }) => "a key came back with another body",
            Some(Refusal::KeyInProgress) => "a key was still in progress",
            Some(Refusal::LimitExceeded { .. }) => "the limit was reached",
            Some(Refusal::Paused) => "a paused sale was tried",
            Some(Refusal::NotOpen { .. }) => "a sale was tried before it opened",
            Some(Refusal::Closed { .. }) => "a sale was tried after it closed",
            Some(Refusal::PriceChanged { .. }) => "a price had changed",
            Some(_) => return,
            None => return self.notice_replay(attempt, heard),
        };
        self.tally.reach(reached);
    }

    fn notice_replay(&mut self, attempt: usize, heard: &Heard) {
        let Heard::Replayed(order) = heard else { return };
        let Some(first) = self.orders.get(order).copied().filter(|first| *first != attempt) else { return };
        let Some(winner) = self.attempts.get(first) else { return };
        if winner.heard_at.is_none() {
            self.tally.reach("a winner whose answer was lost retried and heard yes");
        }
        if winner.process < self.node.number {
            self.tally.reach("a winner retried after a restart");
        }
        if let What::Order { items, .. } = &winner.what
            && let [item] = items.as_slice()
            && let Some(product) = self.product(item.product)
            && self.left(product).is_some_and(|(left, _, _)| left == 0)
        {
            self.tally.reach("a winner retried when nothing was left");
        }
    }

    /// The connection of a request broke. The client may notice it before its patience ends.
    fn hang_up(&mut self, attempt: usize) {
        if self.chance.percent(70) {
            let way = self.network();
            self.plan(way, Happening::Hear { attempt, lost: true });
        }
    }

    fn hear(&mut self, attempt: usize, lost: bool) {
        let Some(record) = self.attempts.get_mut(attempt) else { return };
        self.trace.note(self.now, "hear", attempt as u64, lost.into());
        let heard = match (&record.said, lost) {
            (Some(said), false) => {
                record.heard_at = Some(self.now);
                Some(said.heard.clone())
            }
            _ => None,
        };
        self.heard_by_sender(attempt, heard);
    }

    fn give_up(&mut self, attempt: usize) {
        if self.attempts.get(attempt).is_some_and(|record| record.heard_at.is_none()) {
            self.heard_by_sender(attempt, None);
        }
    }

    /// `None`: no answer came, and nothing is known.
    fn heard_by_sender(&mut self, attempt: usize, heard: Option<Heard>) {
        match self.senders.get(attempt).copied() {
            Some(Sender::Shopper(number, intent)) => self.shopper_hears(number, intent, attempt, heard),
            Some(Sender::Closer(number)) => self.closer_hears(number, attempt, heard),
            Some(Sender::Saga(number)) => self.saga_hears(number, attempt, heard),
            Some(Sender::None) | None => {}
        }
    }

    /// Describes an attempt, for the reader of a trace.
    fn describe(&self, attempt: usize) -> String {
        match self.attempts.get(attempt).map(|record| (&record.what, record.who)) {
            Some((What::Order { items, key }, who)) => format!("{who} orders {items:?} key {key:?}"),
            Some((What::Command { product, command }, _)) => format!("product {product}: {command:?}"),
            Some((What::Read { order, .. }, _)) => format!("reads {order}"),
            None => String::new(),
        }
    }
}
