//! What a node has in its memory; all of it is lost when its process ends.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use stockade::actors::stock::{Ask, Outcome, Protocol, Reply};
use stockade::domain::stock::{Entry, Millis};

use crate::story::{By, Fact};
use crate::time::{Micros, ProcessClock, Wall};
use crate::world::keys::{Print, UsedKeys};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Joining,
    Owner,
    /// The lead, which waits for the word of all owners.
    Announcing,
    Open,
}

/// Who hears an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiter {
    Door(usize),
    /// Whoever has come with a key that was used before.
    Key(usize),
    /// The lead that asked, by the number of its question, and the place in it.
    Lead {
        question: u64,
        at: usize,
    },
}

/// A question in a mailbox.
#[derive(Debug, Clone)]
pub struct Post {
    pub token: u64,
    pub ask: Ask,
    pub arrived: Micros,
    pub arrived_ms: Millis,
    pub waiter: Waiter,
    pub print: Option<Print>,
    pub by: By,
    /// It was asked of an owner, and the answer was lost.
    pub asked_before: bool,
}

#[derive(Debug)]
pub enum State {
    Cold,
    Loading,
    Up(Box<Protocol<u64>>),
}

/// One product's owner, or the place where it would be.
#[derive(Debug)]
pub struct Slot {
    /// No two loads share it.
    pub number: u64,
    pub epoch: i64,
    pub state: State,
    pub appended: Option<Outcome>,
    pub facts: Vec<Fact>,
    pub woken: bool,
    pub timer: Option<Micros>,
    /// Lapses that were due before this have an excuse.
    pub excuse: Millis,
    /// It takes nothing more, and says to this node when all is written.
    pub leaving: Option<Leaving>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leaving {
    pub lead: usize,
    pub process: u64,
    pub epoch: i64,
}

impl Slot {
    pub fn cold(number: u64) -> Slot {
        Slot {
            number,
            epoch: 0,
            state: State::Cold,
            appended: None,
            facts: Vec::new(),
            woken: false,
            timer: None,
            excuse: Millis(i64::MIN),
            leaving: None,
        }
    }

    pub fn protocol(&self) -> Option<&Protocol<u64>> {
        match &self.state {
            State::Up(protocol) => Some(protocol),
            State::Cold | State::Loading => None,
        }
    }

    pub fn is_cold(&self) -> bool {
        matches!(self.state, State::Cold)
    }
}

/// One owner's group on its way.
#[derive(Debug, Clone)]
pub struct Submission {
    pub product: usize,
    pub owner: u64,
    pub entry: Entry,
    pub facts: Vec<Fact>,
}

/// All groups of a node go through one writer, one transaction at a time.
#[derive(Debug, Default)]
pub struct Writer {
    pub queue: Vec<Submission>,
    pub groups: Vec<Submission>,
    /// Since when nobody knows what became of them, and on which connection.
    pub unknown: Option<(Micros, u64)>,
    pub busy: bool,
    /// Those who asked have been told so.
    pub told_unknown: bool,
}

/// Questions that a lead has asked an owner, in order, and not heard of.
#[derive(Debug)]
pub struct Asked {
    pub question: u64,
    pub posts: Vec<Post>,
}

/// Questions that came from a lead.
#[derive(Debug)]
pub struct Question {
    pub lead: usize,
    pub process: u64,
    pub session: i64,
    pub product: usize,
    pub replies: Vec<Option<Reply>>,
    pub open: usize,
}

/// Who waits for the tables.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    pub attempt: usize,
    /// Where the journal ended when they were first asked.
    pub until: Option<i64>,
    pub since: Micros,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    Here,
    /// A session.
    Away(i64),
    Moving,
}

#[derive(Debug, Clone, Copy)]
pub struct Moving {
    pub product: usize,
    pub from: i64,
    pub to: i64,
    pub epoch: i64,
    pub let_go: bool,
    pub writing: bool,
}

/// A lead's word that is being done.
#[derive(Debug, Clone, Copy)]
pub struct WordInHand {
    pub lead: usize,
    pub process: u64,
    pub session: i64,
}

#[derive(Debug)]
pub struct Node {
    pub up: bool,
    pub process: u64,
    pub session: i64,
    pub paused_until: Micros,
    /// Neither statements nor answers pass.
    pub cut_off_until: Micros,
    /// Neither words nor answers of other nodes pass.
    pub alone_until: Micros,
    pub clock: ProcessClock,
    pub stage: Stage,
    pub follows: i64,
    pub slots: Vec<Slot>,
    pub mail: Vec<VecDeque<Post>>,
    pub waiting: BTreeMap<u64, Post>,
    pub questions: BTreeMap<u64, Question>,
    pub writer: Writer,
    pub let_go: Vec<i64>,
    pub word: Option<WordInHand>,
    /// The newest question about each product.
    pub newest: Vec<u64>,
    /// Beats of others: the beat, and since when it was seen to stand.
    pub seen: BTreeMap<i64, (i64, Micros)>,
    pub looked: Micros,
    /// When the last beat was sent that was confirmed.
    pub lease_from: Micros,
    // --- as a lead ---
    pub keys: UsedKeys,
    pub heard: BTreeSet<i64>,
    pub routes: Vec<Route>,
    pub asked: Vec<Option<Asked>>,
    pub moving: Option<Moving>,
    /// The epoch under which a shard's owner says to serve it.
    pub confirmed: Vec<i64>,
    pub gives: Vec<bool>,
    pub reads_keys: bool,
    /// A flush is under way.
    pub flushing: bool,
    pub looks: BTreeMap<u64, Look>,
}

impl Node {
    pub fn down(products: usize) -> Node {
        Node {
            up: false,
            process: 0,
            session: 0,
            paused_until: 0,
            cut_off_until: 0,
            alone_until: 0,
            clock: ProcessClock::start(0, Wall::default(), 0),
            stage: Stage::Joining,
            follows: 0,
            slots: (0..products).map(|_| Slot::cold(0)).collect(),
            mail: (0..products).map(|_| VecDeque::new()).collect(),
            waiting: BTreeMap::new(),
            questions: BTreeMap::new(),
            writer: Writer::default(),
            let_go: vec![0; products],
            word: None,
            newest: vec![0; products],
            seen: BTreeMap::new(),
            looked: 0,
            lease_from: 0,
            keys: UsedKeys::default(),
            heard: BTreeSet::new(),
            routes: vec![Route::Moving; products],
            asked: (0..products).map(|_| None).collect(),
            moving: None,
            confirmed: vec![0; products],
            gives: vec![false; products],
            reads_keys: false,
            flushing: false,
            looks: BTreeMap::new(),
        }
    }

    /// Does the owner here take what waits? On the lead not before all that was asked elsewhere has come back.
    pub fn keeps(&self, product: usize) -> bool {
        self.stage != Stage::Open || self.routes[product] == Route::Here
    }

    /// Has it still to answer what another lead than this one asked?
    pub fn answers_another(&self, lead: i64) -> bool {
        self.questions.values().any(|question| question.session != lead)
    }
}
