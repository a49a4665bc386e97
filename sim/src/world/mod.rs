//! The world of one history: a node, its journal, its clients, and chance.
//!
//! Time moves from one planned happening to the next. A happening belongs to one start of the process, or to one
//! owner, and means nothing after their end; nothing but the journal and the memory of clients outlives a crash.

mod again;
pub(crate) mod bank;
mod desk;
mod disk;
mod door;
mod faults;
pub(crate) mod keys;
mod mailbox;
mod network;
mod owner;
mod people;
mod process;
mod rest;
mod saga;

use std::collections::BTreeMap;

use stockade::actors::stock::Reply;
use stockade::domain::id::{OrderId, ProductId, RefundId};
use stockade::domain::stock::{Millis, Sequence};

use crate::broken::Broken;
use crate::chance::Chance;
use crate::check::Violation;
use crate::journal::Journal;
use crate::queue::Queue;
use crate::scenario::{FAULTS_END, REST_BY, Scenario};
use crate::story::{Answers, Attempt, Chapter, Mailbox, Ruling, Story};
use crate::tally::Tally;
use crate::time::{MS, Micros, Wall};
use crate::trace::Trace;

use crate::tables::Shelf;
use desk::{AtDesk, Desk};
use faults::Fault;
use people::{Closer, Shopper};
use process::Process;
use saga::Saga;

/// What can happen.
#[derive(Debug)]
enum Happening {
    Start,
    /// The fuse of a crash has burnt long enough.
    Crash {
        process: u64,
    },
    Strike(Fault),
    WriteEnds {
        write: u64,
    },
    /// An owner's turn.
    Turn {
        product: usize,
        owner: u64,
    },
    Timer {
        product: usize,
        owner: u64,
    },
    Loaded {
        product: usize,
        owner: u64,
    },
    /// A word inside the process.
    Told {
        process: u64,
        to: mailbox::Inside,
        reply: Reply,
    },
    Flush {
        process: u64,
    },
    FlushEnds {
        process: u64,
    },
    Housekeeping {
        process: u64,
    },
    /// The tables have not caught up with somebody who waits for them.
    LookedInVain {
        process: u64,
        look: u64,
    },
    SnapshotKept {
        process: u64,
        product: usize,
        sequence: Sequence,
        body: Vec<u8>,
    },
    /// A request reaches the node.
    Arrive {
        attempt: usize,
    },
    /// An answer reaches its client; `None` is a connection that broke.
    Hear {
        attempt: usize,
        lost: bool,
    },
    GiveUp {
        attempt: usize,
    },
    Shopper(usize),
    /// Somebody who had his order long ago asks once more.
    Late {
        attempt: usize,
        order: OrderId,
    },
    Closer(usize),
    Saga(usize),
    Desk(AtDesk),
    Rush,
    Look,
}

/// Who sent a request.
#[derive(Debug, Clone, Copy)]
enum Sender {
    Shopper(usize, u32),
    Closer(usize),
    Saga(usize),
    /// A payment's worker.
    Walk(u64),
    Refund(RefundId),
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
    /// Nothing is flushed until here.
    flush_stands_until: Micros,
    shoppers: Vec<Shopper>,
    closers: Vec<Closer>,
    sagas: Vec<Saga>,
    desk: Desk,
    attempts: Vec<Attempt>,
    senders: Vec<Sender>,
    rulings: Vec<Ruling>,
    mailboxes: Vec<Mailbox>,
    orders: BTreeMap<OrderId, usize>,
    /// The newest sequence of each product that somebody was told of.
    told: Vec<Sequence>,
    /// Answers get lost and requests are slow until here.
    storm_until: Micros,
    placement_fuse: Option<u32>,
    tally: Tally,
    trace: Trace,
    broken_rule: Option<Violation>,
    /// The first hold that lapsed too late.
    late: Option<Violation>,
    rested: bool,
}

/// What a history came to.
#[derive(Debug)]
pub struct Outcome {
    pub trace: u64,
    pub events: u64,
    pub simulated: Micros,
    pub answers: Answers,
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
        let (questions_max, reserves_max) = (scenario.mailbox_max, scenario.reserves_max());
        let mailbox = |product| Mailbox { product, questions: 0, questions_max, reserves: 0, reserves_max };
        World {
            seed,
            now: 0,
            queue: Queue::default(),
            chance: Chance::new(seed, 2),
            broken,
            wall: Wall::default(),
            node: Process::down(count),
            journal: Journal::new(chapters, None),
            shelves: vec![Shelf::default(); count],
            flushing: None,
            flush_stands_until: 0,
            shoppers: Vec::new(),
            closers: Vec::new(),
            sagas: Vec::new(),
            desk: Desk::default(),
            attempts: Vec::new(),
            senders: Vec::new(),
            rulings: Vec::new(),
            mailboxes: (0..count).map(mailbox).collect(),
            orders: BTreeMap::new(),
            told: vec![Sequence(0); count],
            storm_until: 0,
            placement_fuse: None,
            tally: Tally::default(),
            trace: Trace::new(aloud),
            broken_rule: None,
            late: None,
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
            let Some((at, happening)) = self.queue.take() else { break };
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
            mailboxes: std::mem::take(&mut self.mailboxes),
            orders: std::mem::take(&mut self.orders),
        };
        crate::check::reached(&story, &mut self.tally);
        let verdict = match self.broken_rule.take() {
            Some(violation) => Err(violation),
            None => crate::check::all(&story)
                .and_then(|()| self.late.take().map_or(Ok(()), Err))
                .and_then(|()| self.at_rest(&story)),
        };
        Outcome {
            trace: self.trace.hash(),
            events: self.trace.events,
            simulated: self.now,
            answers: story.answers(),
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
            Happening::Told { process, to, reply } => {
                if process == self.node.number && self.node.up {
                    self.told_inside(to, reply);
                }
            }
            Happening::Flush { process } => self.flush(process),
            Happening::FlushEnds { process } => self.flush_ends(process),
            Happening::Housekeeping { process } => self.housekeeping(process),
            Happening::LookedInVain { process, look } => self.looked_in_vain(process, look),
            Happening::SnapshotKept { process, product, sequence, body } => {
                self.snapshot_kept(process, product, sequence, body);
            }
            Happening::Arrive { attempt } => self.arrive(attempt),
            Happening::Hear { attempt, lost } => self.hear(attempt, lost),
            Happening::GiveUp { attempt } => self.give_up(attempt),
            Happening::Shopper(number) => self.shopper_acts(number),
            Happening::Late { attempt, order } => self.asks_late(attempt, order),
            Happening::Closer(number) => self.closer_acts(number),
            Happening::Saga(number) => self.saga_acts(number),
            Happening::Desk(what) => self.desk_happens(what),
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
}
