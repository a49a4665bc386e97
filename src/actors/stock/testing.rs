//! Several nodes in one process, with one journal, and a network between them that does what a test says.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::snapshots::THREAD;
use super::{
    Abroad, Ask, Asking, Changes, Directory, Home, House, Later, NodeName, NotAsked, NotRead, OWNERS_MAX,
    Outcome, Question, Routes, Said, Snapshots, Stored, UsedKeys,
};
use crate::clock::Clock;
use crate::domain::amount::{Currency, Money, Quantity};
use crate::domain::id::{OrderId, ProductId, SHARDS, UserId};
use crate::domain::stock::{
    Command, Entry, Epoch, Event, KeyUse, Ledger, Millis, Reserve, Sequence, Settings, decode_events,
};
use crate::logs;
use crate::telemetry::Metrics;

/// What all nodes write, and read their ledgers from. A group is written a few turns of the thread after it was handed over.
#[derive(Debug, Default, Clone)]
pub struct OneJournal(Arc<Written>);

#[derive(Debug, Default)]
struct Written {
    entries: Mutex<BTreeMap<ProductId, Vec<Entry>>>,
    /// Entries that do not follow the one before: two owners at once.
    forks: AtomicUsize,
    snapshots: Mutex<BTreeMap<ProductId, (Sequence, Vec<u8>)>>,
    /// So often a snapshot was to be saved that was made aside.
    saved_aside: AtomicUsize,
    /// Those are not saved …
    refuses_aside: AtomicBool,
    /// … or not for now.
    holds_aside: AtomicBool,
    /// The sequence of the snapshot with which somebody began last, and how many entries he had behind it.
    read: Mutex<(Sequence, usize)>,
    /// Nobody has heard for long that this node is the only one.
    lease_is_over: AtomicBool,
    takes_nothing: AtomicBool,
    /// What it writes nobody hears of, and nobody can read it.
    in_doubt: AtomicBool,
    /// What it writes nobody hears of for now …
    holds_back: AtomicBool,
    /// … and it has been so for long.
    says_nothing: AtomicBool,
    /// Whoever reads a ledger waits for it.
    reads_slowly: AtomicBool,
    /// It dies of what it is to write.
    dies: AtomicBool,
    /// Whoever begins to own something dies of it.
    has_no_epoch: AtomicBool,
    /// From behind so many looks on.
    looks_left: AtomicUsize,
}

/// A restock for this reason makes its owner panic while it decides.
pub const POISON: &str = "poison";

pub fn swallow<T>(input: &super::protocol::Input<T>) {
    let super::protocol::Input::Ask { ask: Ask::Command(Command::Restock(restock)), .. } = input else {
        return;
    };
    assert_ne!(restock.reason, POISON);
}

/// Whoever reads an entry of this epoch back panics.
const CHOKING: Epoch = Epoch(u64::MAX);

pub fn choke(entries: &[Entry]) {
    assert!(entries.iter().all(|entry| entry.epoch != CHOKING));
}

impl OneJournal {
    /// The ledger as a node that starts now would read it.
    pub fn ledger(&self, product: ProductId) -> Ledger {
        let mut ledger = Ledger::default();
        for entry in self.0.entries.lock().unwrap().get(&product).into_iter().flatten() {
            ledger.replay(entry).unwrap();
        }
        ledger
    }

    /// All that is written of it, in order.
    pub fn events(&self, product: ProductId) -> Vec<Event> {
        let entries = self.0.entries.lock().unwrap();
        let of = entries.get(&product).into_iter().flatten();
        of.flat_map(|entry| decode_events(&entry.events).unwrap()).collect()
    }

    /// The last event that is written.
    pub fn last(&self, product: ProductId) -> Sequence {
        let entries = self.0.entries.lock().unwrap();
        entries.get(&product).and_then(|of| of.last()).map_or(Sequence(0), |entry| entry.last)
    }

    pub fn forks(&self) -> usize {
        self.0.forks.load(Ordering::SeqCst)
    }

    pub fn snapshots(&self) -> usize {
        self.0.snapshots.lock().unwrap().len()
    }

    /// The sequence of the snapshot that stands.
    pub fn saved(&self, product: ProductId) -> Sequence {
        self.0.snapshots.lock().unwrap().get(&product).map_or(Sequence(0), |(sequence, _)| *sequence)
    }

    pub fn saved_aside(&self) -> usize {
        self.0.saved_aside.load(Ordering::SeqCst)
    }

    pub fn refuses_aside(&self, refuses: bool) {
        self.0.refuses_aside.store(refuses, Ordering::SeqCst);
    }

    pub fn holds_aside(&self, holds: bool) {
        self.0.holds_aside.store(holds, Ordering::SeqCst);
    }

    pub fn read_last(&self) -> (Sequence, usize) {
        *self.0.read.lock().unwrap()
    }

    pub fn lease_is_over(&self, over: bool) {
        self.0.lease_is_over.store(over, Ordering::SeqCst);
    }

    pub fn is_in_doubt(&self, in_doubt: bool) {
        self.0.in_doubt.store(in_doubt, Ordering::SeqCst);
    }

    pub fn holds_back(&self, holds: bool) {
        self.0.holds_back.store(holds, Ordering::SeqCst);
    }

    pub fn reads_slowly(&self, slowly: bool) {
        self.0.reads_slowly.store(slowly, Ordering::SeqCst);
    }

    pub fn says_nothing(&self, nothing: bool) {
        self.0.says_nothing.store(nothing, Ordering::SeqCst);
    }

    fn read(&self) -> Result<(), NotRead> {
        match self.0.in_doubt.load(Ordering::SeqCst) {
            true => Err(NotRead::NoAnswer("nobody knows where it ends".to_owned())),
            false => Ok(()),
        }
    }

    pub fn takes_nothing(&self, nothing: bool) {
        self.0.takes_nothing.store(nothing, Ordering::SeqCst);
    }

    /// Whoever looks so many times finds that it takes something, and then no more.
    pub fn takes_nothing_after(&self, looks: usize) {
        self.0.looks_left.store(looks, Ordering::SeqCst);
        self.takes_nothing(true);
    }

    /// What two nodes put down at once: parts of the one and of the other.
    pub fn damage_snapshots(&self) {
        for (_, snapshot) in self.0.snapshots.lock().unwrap().values_mut() {
            snapshot[0] ^= 1;
        }
    }

    pub fn dies(&self, dies: bool) {
        self.0.dies.store(dies, Ordering::SeqCst);
    }

    pub fn has_no_epoch(&self, none: bool) {
        self.0.has_no_epoch.store(none, Ordering::SeqCst);
    }

    fn change_last(&self, product: ProductId, change: impl FnOnce(&mut Entry)) {
        let mut entries = self.0.entries.lock().unwrap();
        change(entries.get_mut(&product).and_then(|of| of.last_mut()).unwrap());
    }

    /// Its last entry does not continue what is before it.
    pub fn damage(&self, product: ProductId) {
        self.change_last(product, |entry| entry.hash.0[0] ^= 1);
    }

    /// Whoever reads it back panics.
    pub fn choke(&self, product: ProductId) {
        self.change_last(product, |entry| entry.epoch = CHOKING);
    }

    /// Unless a newer one stands there.
    fn keep(&self, product: ProductId, sequence: Sequence, body: Vec<u8>) {
        let mut snapshots = self.0.snapshots.lock().unwrap();
        let stands = snapshots.entry(product).or_default();
        if stands.0 <= sequence {
            *stands = (sequence, body);
        }
    }

    fn append(&self, entry: Entry) -> Outcome {
        let mut entries = self.0.entries.lock().unwrap();
        let of = entries.entry(entry.product).or_default();
        if entry.first != of.last().map_or(Sequence(1), |last| last.last.next()) {
            self.0.forks.fetch_add(1, Ordering::SeqCst);
            return Outcome::NotWritten;
        }
        of.push(entry);
        Outcome::Written
    }
}

impl Home for OneJournal {
    fn submit(&self, entry: Entry, reply: Box<dyn FnOnce(Outcome) + Send>) {
        let journal = self.clone();
        actix::spawn(async move {
            some_turns(3).await;
            while journal.0.holds_back.load(Ordering::SeqCst) {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
            if journal.0.dies.load(Ordering::SeqCst) {
                return;
            }
            let outcome = journal.append(entry);
            reply(if journal.read().is_ok() { outcome } else { Outcome::Unknown });
        });
    }

    fn load(&self, product: ProductId) -> Later<Result<Stored, NotRead>> {
        let snapshot = self.0.snapshots.lock().unwrap().get(&product).cloned();
        let from = snapshot.as_ref().map_or(Sequence(0), |(sequence, _)| *sequence);
        let all = self.0.entries.lock().unwrap();
        let behind = all.get(&product).into_iter().flatten().filter(|entry| entry.first > from);
        let (entries, snapshot) = (Vec::from_iter(behind.cloned()), snapshot.map(|(_, bytes)| bytes));
        *self.0.read.lock().unwrap() = (from, entries.len());
        let (read, journal) = (self.read(), self.clone());
        Box::pin(async move {
            while journal.0.reads_slowly.load(Ordering::SeqCst) {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
            read.map(|()| Stored { snapshot, entries })
        })
    }

    fn history(&self, product: ProductId) -> Later<Result<Vec<Entry>, NotRead>> {
        let entries = self.0.entries.lock().unwrap().get(&product).cloned().unwrap_or_default();
        Box::pin(async move { Ok(entries) })
    }

    fn snapshot_aside(&self, product: ProductId) -> Later<Result<Option<Vec<u8>>, NotRead>> {
        let snapshot = self.0.snapshots.lock().unwrap().get(&product).map(|(_, bytes)| bytes.clone());
        Box::pin(async move { Ok(snapshot) })
    }

    fn entries_aside(&self, product: ProductId, after: Sequence) -> Later<Result<Vec<Entry>, NotRead>> {
        let all = self.0.entries.lock().unwrap();
        let behind = all.get(&product).into_iter().flatten().filter(|entry| entry.first > after);
        // A few at a time.
        let entries = Vec::from_iter(behind.take(7).cloned());
        Box::pin(async move { Ok(entries) })
    }

    fn save_snapshot(
        &self,
        product: ProductId,
        sequence: Sequence,
        body: Vec<u8>,
    ) -> Later<Result<(), NotRead>> {
        if std::thread::current().name() != Some(THREAD) {
            self.keep(product, sequence, body);
            return Box::pin(async { Ok(()) });
        }
        let (journal, refuses) = (self.clone(), self.0.refuses_aside.load(Ordering::SeqCst));
        self.0.saved_aside.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            while journal.0.holds_aside.load(Ordering::SeqCst) {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
            if refuses {
                return Err(NotRead::NoAnswer("as the test wants it".to_owned()));
            }
            journal.keep(product, sequence, body);
            Ok(())
        })
    }

    fn epoch(&self, _: ProductId) -> Epoch {
        assert!(!self.0.has_no_epoch.load(Ordering::SeqCst), "as the test wants it");
        Epoch(1)
    }

    fn term(&self) -> Epoch {
        Epoch(1)
    }

    fn is_writable(&self) -> bool {
        let one_less = |left: usize| left.checked_sub(1);
        let looks = self.0.looks_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less);
        looks.is_ok() || !self.0.takes_nothing.load(Ordering::SeqCst)
    }

    fn is_silent(&self) -> bool {
        self.0.says_nothing.load(Ordering::SeqCst)
    }

    fn is_the_only_one(&self) -> bool {
        !self.0.lease_is_over.load(Ordering::SeqCst)
    }
}

async fn some_turns(turns: usize) {
    for _ in 0..turns {
        tokio::task::yield_now().await;
    }
}

/// The network. What it carries goes through its bytes.
#[derive(Default)]
pub struct Net {
    nodes: Mutex<BTreeMap<u64, Directory>>,
    /// Nothing is sent.
    pub down: AtomicBool,
    /// Answers are made, and do not arrive.
    pub deaf: AtomicBool,
    /// Whoever is asked refuses.
    pub refuses: AtomicBool,
    /// Nobody may be asked again.
    pub spent: AtomicBool,
    /// How often somebody wanted to.
    pub wanted: AtomicUsize,
    /// Questions that were sent.
    pub asked: AtomicUsize,
    /// Asks of the largest of them.
    pub most: AtomicUsize,
    /// While it is set, answers wait on their way.
    pub slow: AtomicBool,
    pub quick_again: Notify,
    /// The request that the last question was asked for, if it was for one.
    pub named: Mutex<Option<String>>,
}

impl Net {
    fn to(&self, node: &NodeName) -> Option<Directory> {
        self.nodes.lock().unwrap().get(&node.session).cloned()
    }
}

/// The network as a node has it.
pub struct Line(pub Arc<Net>);

impl Abroad for Line {
    fn ask(&self, node: &NodeName, question: Question) -> Asking {
        let (net, node) = (self.0.clone(), node.clone());
        let named = logs::current().map(|mark| mark.request_id.to_str().unwrap().to_owned());
        *net.named.lock().unwrap() = named;
        Box::pin(async move {
            let directory = net.to(&node).filter(|_| !net.down.load(Ordering::SeqCst));
            let Some(directory) = directory else { return Err(NotAsked::NotSent) };
            net.asked.fetch_add(1, Ordering::SeqCst);
            if let super::About::Product { asks, .. } = &question.about {
                net.most.fetch_max(asks.len(), Ordering::SeqCst);
            }
            if net.refuses.load(Ordering::SeqCst) {
                some_turns(1).await;
                return Err(NotAsked::Elsewhere);
            }
            let sent = postcard::to_stdvec(&question).unwrap();
            // Whoever answers goes on when nobody waits any more.
            let answering = actix::spawn(async move {
                let said = directory.answer(postcard::from_bytes(&sent).unwrap()).await;
                said.map(|said| postcard::to_stdvec(&said).unwrap())
            });
            let said = answering.await.unwrap()?;
            if net.slow.load(Ordering::SeqCst) {
                net.quick_again.notified().await;
            }
            if net.deaf.load(Ordering::SeqCst) {
                return Err(NotAsked::Unknown);
            }
            Ok(postcard::from_bytes::<Said>(&said).unwrap())
        })
    }

    fn reaches(&self, _: &NodeName) -> bool {
        !self.0.down.load(Ordering::SeqCst)
    }

    fn may_ask_again(&self, _: &NodeName) -> bool {
        self.0.wanted.fetch_add(1, Ordering::SeqCst);
        !self.0.spent.load(Ordering::SeqCst)
    }
}

pub fn name(session: u64) -> NodeName {
    NodeName { session, address: format!("node-{session}:1") }
}

/// A node that follows the lead with this session.
pub async fn node(net: &Arc<Net>, journal: &OneJournal, clock: &Clock, session: u64, lead: u64) -> Directory {
    let directory = directory(Arc::new(Line(net.clone())), journal, clock, session);
    directory.routes().unwrap().follow(lead).await;
    net.nodes.lock().unwrap().insert(session, directory.clone());
    directory
}

/// Of a node that reaches the others by `abroad`.
pub fn directory(abroad: Arc<dyn Abroad>, journal: &OneJournal, clock: &Clock, session: u64) -> Directory {
    Directory::among(Arc::new(house(journal, clock)), Routes::new(session, abroad, Arc::default()))
}

/// What the owners of a process share that write this journal.
pub fn house(journal: &OneJournal, clock: &Clock) -> House {
    House {
        home: Arc::new(journal.clone()),
        clock: clock.clone(),
        keys: UsedKeys::default(),
        metrics: Metrics::global().clone(),
        wait_ms_max: 10_000,
        lagging: AtomicBool::new(false),
        flushed_ns: AtomicU64::new(0),
        owners_max: OWNERS_MAX,
        changes: Changes::heard(),
        snapshots: Snapshots::default(),
    }
}

pub fn all_shards() -> Vec<u16> {
    (0..SHARDS).collect()
}

pub fn product(number: u128) -> ProductId {
    ProductId::new(Millis(1), number)
}

pub fn buyer(number: u128) -> UserId {
    UserId::new(Millis(1), number)
}

pub fn settings() -> Settings {
    Settings {
        price: Money { amount: 1_000, currency: Currency::KRW },
        opens_at: None,
        closes_at: None,
        per_customer_limit: None,
        hold_ms: 600_000,
    }
}

/// One unit for the buyer with this number, under a key of his own if he has one.
pub fn one_for(number: u128, product: ProductId, keyed: bool) -> Reserve {
    Reserve {
        order: OrderId::for_home(Millis(2), number << 10, product),
        line: 0,
        buyer: buyer(number),
        quantity: Quantity::of_line(1).unwrap(),
        key: keyed.then(|| KeyUse { key: number.to_be_bytes(), body: 7 }),
        expected: None,
        placing: None,
    }
}

/// The same as a question.
pub fn ask_one(number: u128, product: ProductId) -> Ask {
    Ask::Command(Command::Reserve(one_for(number, product, false)))
}

/// Waits until it is so.
pub async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(std::time::Duration::from_secs(20), async {
        while !so() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("never: {what}"));
}
