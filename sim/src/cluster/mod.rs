//! A world of two or three nodes that sell side by side over one database: the same protocol of owners as in `world`, here
//! with a lead, questions from node to node, shards that move, and nodes that die, stand still, and are cut off.
//!
//! The database and the mirror are the models that `conformance` compares with real ones. There is less of the shop here: orders
//! of one line, with and without keys, which lapse, are cancelled or paid for, and are forgotten.

mod base;
mod faults;
mod keeper;
mod lead;
mod node;
mod owner;
mod people;
mod till;
mod wire;

use std::collections::BTreeMap;

use stockade::actors::stock::{Outcome as Became, View};
use stockade::domain::id::OrderId;
use stockade::domain::stock::{Epoch, Ledger, Sequence};
use stockade::persistence::redis::{Generation, Version};

use crate::broken::Broken;
use crate::chance::Chance;
use crate::check::Violation;
use crate::database::{Answer, Connection, Database, Flaw, Statement};
use crate::mirror::Store;
use crate::queue::Queue;
use crate::scenario::{FAULTS_END, FAULTS_MIN, ProductPlan, REST_BY};
use crate::story::{Attempt, Chapter, Ruling, Story};
use crate::tables::Shelf;
use crate::tally::Tally;
use crate::time::{MS, Micros, ProcessClock, SECOND, Wall};
use crate::trace::Trace;
use crate::world::Outcome;

use base::{After, Script};
use faults::{Fault, KINDS};
use keeper::Taken;
use node::{Node, Stage, Submission};
use people::{Buyer, Sender};
use till::{AtTill, Till};
use wire::Message;

/// What can happen.
#[derive(Debug)]
enum Happening {
    Start { node: usize },
    Strike(Fault),
    AtBase { script: u64 },
    FromBase { script: u64, answer: Answer },
    BaseIsSilent { script: u64 },
    Message { to: usize, process: u64, from: usize, sender: u64, message: Message },
    Turn { node: usize, process: u64, product: usize, number: u64 },
    Load { node: usize, process: u64, product: usize, number: u64 },
    NotRecovered { node: usize, process: u64, connection: Connection },
    Recover { node: usize, process: u64 },
    Beat { node: usize, process: u64 },
    LookAround { node: usize, process: u64 },
    DoAsTold { node: usize, process: u64, shards: Vec<[i64; 3]> },
    NoAnswer { node: usize, process: u64, product: usize, question: u64 },
    Keep { node: usize, process: u64, product: usize },
    Housekeeping { node: usize, process: u64 },
    Flush { node: usize, process: u64 },
    LookAgain { node: usize, process: u64, look: u64 },
    Arrive { attempt: usize, node: usize },
    Hear { attempt: usize },
    GiveUp { attempt: usize },
    Buyer(usize),
    Late { attempt: usize, order: OrderId },
    Till(AtTill),
    Mirror,
    Rest,
}

pub struct Cluster {
    seed: u64,
    now: Micros,
    queue: Queue<Happening>,
    chance: Chance,
    broken: Option<Broken>,
    products: Vec<ProductPlan>,
    loss_percent: u64,
    nodes: Vec<Node>,
    database: Database,
    base_down_until: Micros,
    scripts: BTreeMap<u64, Script>,
    scripts_begun: u64,
    /// Whose a connection is, by session.
    marks: BTreeMap<Connection, i64>,
    /// Where a session's process is.
    places: BTreeMap<i64, (usize, u64)>,
    inserted: BTreeMap<Connection, Vec<(i64, Submission)>>,
    last_place: i64,
    /// By place, from the first on: the product, and which of its entries it is.
    line: Vec<(usize, usize)>,
    /// What transactions that are open bring the tables up to date with, and the snapshots that they store.
    flushes: BTreeMap<Connection, (i64, i64)>,
    snapshots_sent: BTreeMap<Connection, Taken>,
    /// The newest of each product.
    snapshots: Vec<Option<Taken>>,
    shelves: Vec<Shelf>,
    /// What befalls the next COMMIT.
    next_commit: Option<Fault>,
    mirror: Store<usize, (Epoch, u64)>,
    mirror_seen: Vec<(Epoch, Sequence)>,
    chapters: Vec<Chapter>,
    attempts: Vec<Attempt>,
    senders: Vec<Sender>,
    buyers: Vec<Buyer>,
    till: Till,
    rulings: Vec<Ruling>,
    orders: BTreeMap<OrderId, usize>,
    told: Vec<Sequence>,
    processes: u64,
    sessions: i64,
    owners: u64,
    tokens: u64,
    questions: u64,
    leads_begun: u64,
    tally: Tally,
    trace: Trace,
    broken_rule: Option<Violation>,
    /// The first hold that lapsed too late.
    late: Option<Violation>,
    rested: bool,
}

impl Cluster {
    pub fn new(seed: u64, owners: usize, broken: Option<Broken>, aloud: bool) -> Cluster {
        let mut chance = Chance::new(seed, 11 + owners as u64);
        let count = chance.between(2, 4) as usize;
        let mut products: Vec<ProductPlan> = (0..count).map(|_| people::product(&mut chance)).collect();
        products.sort_by_key(|plan| plan.id);
        let chapter = |plan: &ProductPlan| Chapter {
            product: plan.id,
            entries: Vec::new(),
            events: Vec::new(),
            facts: Vec::new(),
            snapshots: Vec::new(),
        };
        Cluster {
            seed,
            now: 0,
            queue: Queue::default(),
            broken,
            loss_percent: chance.one_of([0, 0, 1, 4]),
            nodes: (0..owners).map(|_| Node::down(count)).collect(),
            database: Database::new(
                count as i64,
                (broken == Some(Broken::BeatInTheSession)).then_some(Flaw::BeatInTheSession),
            ),
            base_down_until: 0,
            scripts: BTreeMap::new(),
            scripts_begun: 0,
            marks: BTreeMap::new(),
            places: BTreeMap::new(),
            inserted: BTreeMap::new(),
            last_place: 0,
            line: Vec::new(),
            flushes: BTreeMap::new(),
            snapshots_sent: BTreeMap::new(),
            snapshots: (0..count).map(|_| None).collect(),
            shelves: vec![Shelf::default(); count],
            next_commit: None,
            mirror: Store::new(None),
            mirror_seen: vec![(Epoch(0), Sequence(0)); count],
            chapters: products.iter().map(chapter).collect(),
            attempts: Vec::new(),
            senders: Vec::new(),
            buyers: Vec::new(),
            till: Till::new(),
            rulings: Vec::new(),
            orders: BTreeMap::new(),
            told: vec![Sequence(0); count],
            processes: 0,
            sessions: 0,
            owners: 0,
            tokens: 0,
            questions: 0,
            leads_begun: 0,
            tally: Tally::default(),
            trace: Trace::new(aloud),
            broken_rule: None,
            late: None,
            rested: false,
            products,
            chance,
        }
    }

    /// Plays the history to its end and judges it.
    pub fn play(mut self) -> Outcome {
        for node in 0..self.nodes.len() {
            self.plan(node as Micros * 50 * MS, Happening::Start { node });
        }
        self.people_come();
        let mut chance = Chance::new(self.seed, 12);
        for _ in 0..chance.between(12, 18) {
            let at = chance.between(6 * SECOND, FAULTS_END - 3 * SECOND);
            self.plan(at, Happening::Strike(chance.one_of(KINDS)));
        }
        self.plan(SECOND, Happening::Mirror);
        self.plan(FAULTS_END, Happening::Rest);
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
        let restless = self.restless();
        let agreed = self.owners_agree().and_then(|()| self.money_adds_up());
        let late = self.late.take();
        let story = Story {
            chapters: std::mem::take(&mut self.chapters),
            attempts: std::mem::take(&mut self.attempts),
            rulings: std::mem::take(&mut self.rulings),
            mailboxes: Vec::new(),
            orders: std::mem::take(&mut self.orders),
        };
        crate::check::reached(&story, &mut self.tally);
        let verdict = match self.broken_rule.take() {
            Some(violation) => Err(violation),
            None => crate::check::all(&story).and_then(|()| match restless {
                Some(what) => Err(Violation { invariant: "i14_quiescence", what }),
                None if self.tally.faults_in_all() < FAULTS_MIN => Err(Violation {
                    invariant: "the simulation itself",
                    what: format!("only {} faults", self.tally.faults_in_all()),
                }),
                None => agreed.and_then(|()| late.map_or(Ok(()), Err)),
            }),
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

    /// The node that something happens to, and the process of it that it is meant for.
    fn at_node(&self, happening: &Happening) -> Option<(usize, Option<u64>)> {
        match *happening {
            Happening::Message { to, process, .. } => Some((to, Some(process))),
            Happening::Turn { node, process, .. }
            | Happening::Load { node, process, .. }
            | Happening::NotRecovered { node, process, .. }
            | Happening::Recover { node, process }
            | Happening::Beat { node, process }
            | Happening::LookAround { node, process }
            | Happening::DoAsTold { node, process, .. }
            | Happening::NoAnswer { node, process, .. }
            | Happening::Keep { node, process, .. }
            | Happening::Housekeeping { node, process }
            | Happening::Flush { node, process }
            | Happening::LookAgain { node, process, .. } => Some((node, Some(process))),
            Happening::Arrive { node, .. } => Some((node, None)),
            Happening::Till(AtTill::Step { walk } | AtTill::Says { walk, .. }) => self.till.place(walk),
            Happening::Till(AtTill::Look { node, process }) => Some((node, Some(process))),
            Happening::FromBase { script, .. } | Happening::BaseIsSilent { script } => {
                self.scripts.get(&script).map(|script| (script.node, Some(script.process)))
            }
            _ => None,
        }
    }

    fn happen(&mut self, happening: Happening) {
        if let Some((node, process)) = self.at_node(&happening) {
            let is = &self.nodes[node];
            if process.is_some_and(|process| process != is.process || !is.up) {
                return;
            }
            // A node that stands still does it all when it wakes up, in its order.
            if is.up && self.now < is.paused_until {
                return self.queue.plan(is.paused_until, happening);
            }
        }
        match happening {
            Happening::Start { node } => self.start(node),
            Happening::Strike(fault) => self.strike(fault),
            Happening::AtBase { script } => self.at_base(script),
            Happening::FromBase { script, answer } => self.base_answers(script, answer),
            Happening::BaseIsSilent { script } => self.silent(script),
            Happening::Message { to, from, sender, message, .. } => self.heard(to, from, sender, message),
            Happening::Turn { node, product, number, .. } => self.turn(node, product, number),
            Happening::Load { node, product, number, .. } => {
                let slot = &self.nodes[node].slots[product];
                if slot.number == number && matches!(slot.state, node::State::Loading) {
                    self.load(node, product);
                }
            }
            Happening::NotRecovered { node, connection, .. } => self.not_recovered(node, connection),
            Happening::Recover { node, .. } => self.recover(node),
            Happening::Beat { node, .. } => self.beat(node),
            Happening::LookAround { node, .. } => self.look_around(node),
            Happening::DoAsTold { node, shards, .. } => self.do_as_told(node, shards),
            Happening::NoAnswer { node, product, question, .. } => self.no_answer(node, product, question),
            Happening::Keep { node, product, .. } => {
                self.keep(node, product);
                self.wake(node, product);
            }
            Happening::Housekeeping { node, .. } => self.housekeeping(node),
            Happening::Flush { node, .. } => self.flush(node),
            Happening::LookAgain { node, look, .. } => self.look_again(node, look),
            Happening::Arrive { attempt, node } => self.arrive(attempt, node),
            Happening::Hear { attempt } => self.hear(attempt),
            Happening::GiveUp { attempt } => self.give_up(attempt),
            Happening::Buyer(number) => self.buyer_acts(number),
            Happening::Late { attempt, order } => self.asks_late(attempt, order),
            Happening::Till(what) => self.till_happens(what),
            Happening::Mirror => {
                self.look_at_mirror();
                self.plan(200 * MS, Happening::Mirror);
            }
            Happening::Rest => {
                self.rested = self.restless().is_none();
                self.plan(SECOND / 2, Happening::Rest);
            }
        }
    }

    // --- nodes begin and end --------------------------------------------------------------------------------------------------

    fn start(&mut self, node: usize) {
        if self.nodes[node].up {
            return;
        }
        self.processes += 1;
        self.sessions += 1;
        let wall = Wall { error_us: self.chance.between(-300, 300) * MS };
        let drift = self.chance.between(-200, 200);
        let (process, session) = (self.processes, self.sessions);
        self.nodes[node] = Node {
            up: true,
            process,
            session,
            clock: ProcessClock::start(self.now, wall, drift),
            cut_off_until: self.nodes[node].cut_off_until,
            alone_until: self.nodes[node].alone_until,
            looked: self.now,
            ..Node::down(self.products.len())
        };
        self.places.insert(session, (node, process));
        self.note("start", node as u64, process);
        self.say(|| format!("{node} starts: session {session}"));
        self.ask_base(node, After::Join, &[Statement::FirstBeat(session), Statement::Join(session)]);
    }

    /// The process ends: by itself, when it learns that it may not go on, or because somebody killed it.
    fn exits(&mut self, node: usize, why: &'static str) {
        if !self.nodes[node].up {
            return;
        }
        self.say(|| format!("{node} ends: {why}"));
        self.note("exit", node as u64, 0);
        self.leave_base(node);
        self.till.forget_walks(node);
        self.nodes[node].up = false;
        let pause = self.chance.one_of([100, 500, 2_000, 6_000]) * MS;
        let pause = pause + self.chance.between(0, pause);
        self.plan(pause, Happening::Start { node });
    }

    fn base_said(&mut self, node: usize, after: After, answers: Vec<Answer>) {
        match after {
            After::Join if answers.get(1) == Some(&Answer::Done(1)) => {
                self.nodes[node].stage = Stage::Owner;
                self.beat(node);
                self.look_around(node);
                self.housekeeping(node);
            }
            After::Join => self.exits(node, "its session was there already"),
            After::Beat(_) if answers.get(1) == Some(&Answer::Done(0)) => {
                self.tally.reach("a node found that its session had been sealed");
                self.exits(node, "its session has ended");
            }
            After::Beat(sent) => {
                let lease = &mut self.nodes[node].lease_from;
                *lease = sent.max(*lease);
            }
            After::Seal => {}
            After::Group => self.group_is(node, Became::Written),
            After::Recover => self.recovered(node, &answers),
            After::Look => self.looked(node, &answers),
            After::Lead if answers.first() == Some(&Answer::Done(1)) => self.is_lead(node),
            After::Lead => {}
            After::Keys => self.reads_keys(node),
            After::Word => self.word_is_read(node, &answers),
            After::Row(product, to) => self.row_is_written(node, product, to),
            After::Load(product, number) => self.loaded(node, product, number),
            After::Snapshot => {}
            After::Flush => self.sees_the_end(node, &answers),
            After::Fold(..) => self.nodes[node].flushing = false,
            After::LookUp(look) => self.tables_say(node, look, &answers),
        }
    }

    fn base_is_lost(&mut self, node: usize, after: After, connection: Connection) {
        let process = self.nodes[node].process;
        match after {
            After::Join => self.exits(node, "the database does not answer"),
            After::Group => self.group_is_lost(node, connection),
            After::Recover => self.plan(50 * MS, Happening::Recover { node, process }),
            After::Word => self.nodes[node].word = None,
            After::Keys => self.nodes[node].reads_keys = false,
            After::Row(product, _) => self.row_is_lost(node, product),
            After::Load(product, number) => {
                self.plan(50 * MS, Happening::Load { node, process, product, number });
            }
            After::Flush | After::Fold(..) => self.nodes[node].flushing = false,
            After::LookUp(look) => self.looked_in_vain(node, look),
            After::Beat(_) | After::Look | After::Seal | After::Lead | After::Snapshot => {}
        }
    }

    /// A view goes to the mirror.
    fn publish(&mut self, node: usize, product: usize, view: &View) {
        let epoch = Epoch(self.nodes[node].slots[product].epoch as u64);
        let version = Version { epoch, sequence: view.sequence };
        let generation = Generation::new(1);
        self.mirror.beat(Epoch(1), &generation, true);
        self.mirror.write(&generation, [(product, version, (epoch, view.sequence.0))]);
    }

    /// The first thing that is not at rest.
    fn restless(&self) -> Option<String> {
        if let Some(node) = self.nodes.iter().position(|node| !node.up) {
            return Some(format!("node {node} is down"));
        }
        if self.nodes.iter().filter(|node| node.stage == Stage::Open).count() != 1 {
            return Some("there is not one lead with its doors open".to_owned());
        }
        for (product, chapter) in self.chapters.iter().enumerate() {
            let serving: Vec<&node::Slot> =
                self.nodes.iter().map(|node| &node.slots[product]).filter(|slot| !slot.is_cold()).collect();
            let [slot] = serving[..] else {
                let row = self.database.shard(product as i64);
                return Some(format!("product {product} has {} owners, its row is {row:?}", serving.len()));
            };
            let quiet = slot.protocol().is_some_and(|protocol| {
                protocol.is_quiet() && protocol.ledger().sequence().0 == chapter.events.len() as u64
            });
            if !quiet || self.nodes.iter().any(|node| !node.mail[product].is_empty()) {
                return Some(format!("product {product} is not quiet"));
            }
            if self.shelves[product].checkpoint != chapter.events.len() as u64 {
                return Some(format!("product {product}: the tables are behind"));
            }
        }
        self.till.busy().or_else(|| self.unsold())
    }

    /// At rest the state of each owner is its history's, and so are the tables.
    fn owners_agree(&self) -> Result<(), Violation> {
        for (product, chapter) in self.chapters.iter().enumerate() {
            let mut ledger = Ledger::default();
            for entry in &chapter.entries {
                if let Err(why) = ledger.replay(entry) {
                    let what = format!("product {product}: {why}");
                    return Err(Violation { invariant: "i9_prefix_durability", what });
                }
            }
            let mut serving = self.nodes.iter().filter_map(|node| node.slots[product].protocol());
            if serving.any(|protocol| protocol.ledger().digest() != ledger.digest()) {
                let what = format!("product {product}: the owner's state is not its history's");
                return Err(Violation { invariant: "i10_one_state_by_every_road", what });
            }
            self.shelves[product].agrees(product, &ledger, chapter.product)?;
        }
        Ok(())
    }

    fn plan(&mut self, after: Micros, what: Happening) {
        self.queue.plan(self.now + after.max(0), what);
    }

    fn note(&mut self, kind: &'static str, a: u64, b: u64) {
        self.trace.note(self.now, kind, a, b);
    }

    fn say(&self, line: impl FnOnce() -> String) {
        self.trace.say(self.now, line);
    }

    fn violated(&mut self, invariant: &'static str, what: String) {
        self.broken_rule.get_or_insert(Violation { invariant, what });
    }

    fn is(&self, broken: Broken) -> bool {
        self.broken == Some(broken)
    }
}
