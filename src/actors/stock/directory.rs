//! Who owns which product: the way from a product's id to its owner's mailbox.
//!
//! It owns the registry of loaded owners and starts them on first use, on the thread of whoever asks first: that
//! thread is awake. Always true: a product has at most one owner in this process, and where several nodes sell it has none here
//! unless its shard is routed here.

mod among;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use actix::{Actor, Arbiter, ArbiterHandle};
use arc_swap::ArcSwap;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry as MapEntry;
use hashbrown::DefaultHashBuilder;
use tokio::sync::oneshot;

use super::answer::{Answer, NotDone, Reply, View};
use super::away::Forwarder;
use super::changes::{Changes, Published};
use super::home::Home;
use super::inbox::{NoRoom, Post, Token, is_reserve};
use super::owner::StockOwner;
use super::protocol::Ask;
use super::routes::Routes;
use super::shared::{Shared, Watch};
use super::snapshots::Snapshots;
use super::used_keys::{Claim, UsedKeys};
use crate::actors::order::word_of_home;
use crate::clock::Clock;
use crate::domain::id::{OrderId, ProductId, SHARDS};
use crate::domain::stock::{Command, Refusal, Refused, Reserve, Sequence};
use crate::telemetry::Metrics;

/// When to come back after the flush fell too far behind.
const LAG_RETRY_MS: u64 = 1_000;
/// How often a question may find its owner gone.
const OWNER_TRIES: usize = 4;
/// Products in the memory of a process, beyond which none is loaded for somebody who has begun nothing there: for an order, or for a look
/// that the tables cannot answer. Where several nodes sell the lead counts those of all. What finishes something is not counted out.
pub const OWNERS_MAX: usize = 20_000;
/// An owner that nobody has asked for so long is unloaded …
pub(super) const IDLE_MS: i64 = 60_000;
/// … and where more than half of [`OWNERS_MAX`] are loaded one that nobody has asked for so long.
const IDLE_CROWDED_MS: i64 = 10_000;
/// When to come back when so many are loaded: by then some may rest.
const OWNERS_RETRY_MS: u64 = 1_000;

/// An answer on its way, and the key that it decides about. Somebody always hears it: whoever hangs up leaves a task behind,
/// for as long as the question waits its key is being used.
struct Awaited(Option<(Claim, oneshot::Receiver<Reply>)>);

impl Awaited {
    fn new(mut claim: Claim, answer: oneshot::Receiver<Reply>) -> Awaited {
        claim.in_doubt();
        Awaited(Some((claim, answer)))
    }

    async fn heard(mut self) -> Reply {
        let Some((claim, answer)) = &mut self.0 else { return Err(NotDone::Internal) };
        let reply = hear(claim, answer).await;
        self.0 = None;
        reply
    }
}

/// What the answer is, and what becomes of the key.
async fn hear(claim: &mut Claim, answer: &mut oneshot::Receiver<Reply>) -> Reply {
    let reply = answer.await.unwrap_or(Err(NotDone::Unknown));
    claim.settle(matches!(&reply, Ok(Answer::Reserved(_) | Answer::Replayed(_)) | Err(NotDone::Unknown)));
    reply
}

impl Drop for Awaited {
    fn drop(&mut self) {
        let Some((mut claim, mut answer)) = self.0.take() else { return };
        // Where no thread serves any more the key stays used, as what is in doubt does; and nobody is left behind for whoever is left
        // behind, or a runtime that ends would never be done with it.
        if let Ok(threads) = tokio::runtime::Handle::try_current() {
            threads.spawn(async move { hear(&mut claim, &mut answer).await });
        }
    }
}

/// What all owners of this process share.
pub struct House {
    pub home: Arc<dyn Home>,
    pub clock: Clock,
    pub keys: UsedKeys,
    pub metrics: Metrics,
    /// A reservation that would wait longer than this is refused at the door.
    pub wait_ms_max: u64,
    /// The flush is too far behind: no new holds until it has caught up.
    pub lagging: AtomicBool,
    /// What the journal had at this time of the steady clock the tables show; 0 where nobody has seen that.
    pub flushed_ns: AtomicU64,
    /// [`OWNERS_MAX`], but in tests.
    pub owners_max: usize,
    /// Who has published, for the mirror.
    pub changes: Changes,
    /// Where owners that serve are stored.
    pub snapshots: Snapshots,
}

/// Tells the directories of one process apart.
static NUMBERS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// The owner that this thread asked last. In a rush nearly everybody asks for the same one, and the registry's lock and
    /// the owner's counter would go back and forth between the threads with every order.
    static NEAR: Cell<Option<Near>> = const { Cell::new(None) };
}

/// An owner, and the directory that knows it by this number.
struct Near {
    directory: u64,
    owner: Arc<Shared>,
}

struct Inner {
    number: u64,
    house: Arc<House>,
    owners: DashMap<ProductId, Arc<Shared>, DefaultHashBuilder>,
    /// Loaded products by shard: where an order that is not flushed yet can be found.
    shards: Box<[Mutex<Vec<ProductId>>]>,
    /// When the last of each shard's owners went, or came from another node, by the steady clock.
    left_ns: Box<[AtomicU64]>,
    /// Where the owners of each shard are; in a shop that stands alone they are here.
    routes: Option<Routes>,
    arbiters: ArcSwap<Vec<ArbiterHandle>>,
    next_arbiter: AtomicUsize,
    closed: AtomicBool,
}

/// The registry of owners. Cheap to clone.
#[derive(Clone)]
pub struct Directory(Arc<Inner>);

impl Directory {
    pub fn new(house: Arc<House>) -> Directory {
        Directory::with(house, None)
    }

    fn with(house: Arc<House>, routes: Option<Routes>) -> Directory {
        house.metrics.shards_owned.set(if routes.is_some() { 0.0 } else { f64::from(SHARDS) });
        Directory(Arc::new(Inner {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            house,
            owners: DashMap::default(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            left_ns: (0..SHARDS).map(|_| AtomicU64::new(0)).collect(),
            routes,
            arbiters: ArcSwap::default(),
            next_arbiter: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
        }))
    }

    pub fn house(&self) -> &House {
        &self.0.house
    }

    /// The same for whoever keeps it.
    pub fn shared_house(&self) -> Arc<House> {
        self.0.house.clone()
    }

    /// Adds a thread that owners may live on.
    pub fn add_arbiter(&self, arbiter: ArbiterHandle) {
        self.0.arbiters.rcu(|before| {
            let mut all = Vec::clone(before);
            all.push(arbiter.clone());
            all
        });
    }

    /// Asks the product's owner and waits for its answer, which is durable when it is heard.
    pub async fn ask(&self, product: ProductId, command: Command) -> Reply {
        self.send(product, Ask::Command(command)).await
    }

    /// Holds units, in order of arrival. `claim` is kept if the answer is yes, or may have been: it stays with whoever asks, so
    /// that the thread that took it gives it back, and what it touches is still near.
    pub async fn reserve(&self, product: ProductId, ask: Reserve, claim: Option<Claim>) -> Reply {
        if self.0.house.lagging.load(Ordering::Relaxed) {
            return Err(NotDone::Busy { retry_after_ms: LAG_RETRY_MS });
        }
        let question = Ask::Command(Command::Reserve(ask));
        let Some(claim) = claim else { return self.send(product, question).await };
        let answer = self.hand_in(product, question)?;
        Awaited::new(claim, answer).heard().await
    }

    /// Refuses a reservation of one line if the product's published view alone proves that its owner would. It holds
    /// only for a key that was never used, which the caller looks up *after* this: a winner's key is noted before his
    /// units leave the view.
    pub fn refuse_from_view(&self, product: ProductId, ask: &Reserve) -> Result<(), NotDone> {
        let Some(owner) = self.loaded(product) else { return Ok(()) };
        let refusal = owner.refusal(ask, self.0.house.clock.now());
        self.keep_near(owner);
        // Looked at last: whoever slept in between asks the owner, who asks the journal.
        match refusal.filter(|_| self.0.house.home.is_the_only_one()) {
            Some(refusal) => Err(refusal),
            None => Ok(()),
        }
    }

    /// What the product's owner knows of an order.
    pub async fn order(&self, product: ProductId, order: OrderId) -> Reply {
        self.send(product, Ask::Order(order)).await.map_err(NotDone::of_a_look)
    }

    pub(in crate::actors) async fn send(&self, product: ProductId, ask: Ask) -> Reply {
        let answer = self.hand_in(product, ask)?;
        // An owner that fails drops the question after it may have written it.
        answer.await.unwrap_or(Err(NotDone::Unknown))
    }

    /// Puts the question into its owner's mailbox.
    fn hand_in(&self, product: ProductId, ask: Ask) -> Result<oneshot::Receiver<Reply>, NotDone> {
        let begins = is_reserve(&ask);
        let (owner, answer) = self.put_in(product, ask, begins)?;
        self.keep_near(owner);
        Ok(answer)
    }

    /// The same, and the owner that will answer. Whoever begins something loads none beyond [`OWNERS_MAX`].
    fn put_in(
        &self,
        product: ProductId,
        ask: Ask,
        begins: bool,
    ) -> Result<(Arc<Shared>, oneshot::Receiver<Reply>), NotDone> {
        let mut owner = self.owner(product, begins)?;
        if is_reserve(&ask) && self.is_stuck(&owner) {
            return Err(NotDone::Unavailable);
        }
        let clock = &self.0.house.clock;
        let buyer = match &ask {
            Ask::Command(Command::Reserve(reserve)) => Some(reserve.buyer),
            _ => None,
        };
        let (reply, answer) = oneshot::channel();
        let token = Token { reply, buyer, asked_ns: clock.nanos(), in_doubt: false };
        let mut post = Post::new(ask, token);
        for _ in 0..OWNER_TRIES {
            match owner.inbox.push(post, self.0.house.wait_ms_max, clock) {
                Ok(()) => return Ok((owner, answer)),
                Err(NoRoom::Full { wait_ms }) => {
                    return Err(NotDone::Busy { retry_after_ms: wait_ms.max(100) });
                }
                Err(NoRoom::Closed(back)) => {
                    post = *back;
                    self.forget(&owner);
                    owner = self.owner(product, begins)?;
                }
            }
        }
        post.give_up();
        Err(NotDone::Unavailable)
    }

    /// The published view of a product; loads its owner if it is cold, unless too many are loaded.
    pub async fn view(&self, product: ProductId) -> Result<Arc<View>, NotDone> {
        self.loaded_view(product, true).await
    }

    async fn loaded_view(&self, product: ProductId, begins: bool) -> Result<Arc<View>, NotDone> {
        if let Some(view) = self.peek(product) {
            return Ok(view);
        }
        // Any question is answered only once the owner serves.
        let nobody = OrderId::from_bytes([0; 16]);
        let (owner, answer) = self.put_in(product, Ask::Order(nobody), begins)?;
        answer.await.unwrap_or(Err(NotDone::Unavailable)).map_err(NotDone::of_a_look)?;
        // Of itself: it may have gone since, and its product is there all the same.
        owner.view().ok_or(NotDone::Refused {
            product,
            refused: Refused { at: Sequence(0), why: Refusal::NoProduct },
        })
    }

    /// Whether the tables show all that owners of this product have said who are not loaded any more, as far as this node can know. What
    /// is read from the tables afterwards is the newest that there was when it was asked, if nobody is loaded then.
    pub fn is_flushed(&self, product: ProductId) -> bool {
        let is_here = self.0.routes.as_ref().is_none_or(|routes| routes.is_here(product.shard()));
        is_here && self.left_ns(product) < self.flushed_ns()
    }

    /// What the journal had at this time the tables show; by the steady clock.
    pub fn flushed_ns(&self) -> u64 {
        self.0.house.flushed_ns.load(Ordering::Acquire)
    }

    /// When an owner has gone last that may have been this product's; by the steady clock.
    pub fn left_ns(&self, product: ProductId) -> u64 {
        self.left_at(product.shard()).load(Ordering::Acquire)
    }

    /// What owners of this shard have written until now the tables need not show yet.
    fn has_left(&self, shard: u16) {
        self.left_at(shard).fetch_max(self.0.house.clock.nanos(), Ordering::AcqRel);
    }

    fn left_at(&self, shard: u16) -> &AtomicU64 {
        &self.0.left_ns[usize::from(shard) % self.0.left_ns.len()]
    }

    /// The published view, if the owner is loaded.
    pub fn peek(&self, product: ProductId) -> Option<Arc<View>> {
        self.0.owners.get(&product)?.view()
    }

    /// Every view published from here on, newest only.
    pub async fn watch(&self, product: ProductId) -> Result<Watch, NotDone> {
        for _ in 0..OWNER_TRIES {
            self.view(product).await?;
            let owner = self.owner(product, true)?;
            let watch = owner.watch();
            // Whoever went before we looked on told nobody, and is asked no more.
            if !watch.is_over() {
                return Ok(watch);
            }
            self.forget(&owner);
        }
        Err(NotDone::Unavailable)
    }

    /// How many questions wait for a decision, at all owners together.
    pub fn waiting(&self) -> usize {
        self.0.owners.iter().map(|owner| owner.inbox.undecided()).sum()
    }

    /// Owners in memory.
    pub fn loaded_count(&self) -> usize {
        self.0.owners.len()
    }

    /// Whether an owner that nobody has asked for so long is to rest.
    pub(super) fn is_idle(&self, unasked_ms: i64) -> bool {
        let is_crowded = || self.loaded_count() > self.0.house.owners_max / 2;
        unasked_ms > IDLE_MS || unasked_ms > IDLE_CROWDED_MS && is_crowded()
    }

    /// What all loaded owners show.
    pub fn published(&self) -> Vec<Published> {
        self.0.owners.iter().map(|owner| Published::of(owner.value().clone())).collect()
    }

    /// The products of which so many events or more were published since this was asked last, each with how many.
    pub(super) fn moved(&self, least: u64) -> Vec<(ProductId, u64)> {
        let moved = self.0.owners.iter().map(|owner| (owner.product, owner.moved()));
        moved.filter(|(_, events)| *events >= least).collect()
    }

    /// Whether the product's owner has published, and the mirror has not looked since.
    pub fn has_changed(&self, product: ProductId) -> bool {
        self.0.owners.get(&product).is_some_and(|owner| owner.changed().load(Ordering::SeqCst))
    }

    /// Has the mirror look at a product again.
    pub fn show_again(&self, product: ProductId) {
        if let Some(owner) = self.0.owners.get(&product) {
            self.0.house.changes.note(&owner);
        }
    }

    /// The loaded products of a shard.
    pub fn loaded_in(&self, shard: u16) -> Vec<ProductId> {
        self.shard(shard).clone()
    }

    /// Loads owners that must not sleep: those with holds that will lapse.
    pub async fn wake(&self, products: Vec<ProductId>) {
        let answers = products.into_iter().map(|product| {
            let directory = self.clone();
            async move { directory.loaded_view(product, false).await }
        });
        futures_util::future::join_all(answers).await;
    }

    /// The same without waiting for them, and also where what they published is known: their place may have changed.
    pub fn rouse(&self, products: Vec<ProductId>) {
        let directory = self.clone();
        actix::spawn(async move {
            let nobody = OrderId::from_bytes([0; 16]);
            let asked = products.into_iter().map(|product| directory.send(product, Ask::Order(nobody)));
            futures_util::future::join_all(asked).await;
        });
    }

    fn shard(&self, shard: u16) -> std::sync::MutexGuard<'_, Vec<ProductId>> {
        self.0.shards[usize::from(shard) % self.0.shards.len()].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The owner that this thread asked last, if it is this product's and has not gone since.
    fn near(&self, product: ProductId) -> Option<Arc<Shared>> {
        let near = NEAR.take().filter(|near| near.directory == self.0.number)?;
        (near.owner.product == product && !near.owner.inbox.is_closed()).then_some(near.owner)
    }

    /// The owner of a product, if there is one.
    fn loaded(&self, product: ProductId) -> Option<Arc<Shared>> {
        self.near(product).or_else(|| self.0.owners.get(&product).map(|owner| owner.clone()))
    }

    fn keep_near(&self, owner: Arc<Shared>) {
        NEAR.set(Some(Near { directory: self.0.number, owner }));
    }

    /// The owner of a product, started if there is none and, for whoever begins something, not too many are loaded.
    fn owner(&self, product: ProductId, begins: bool) -> Result<Arc<Shared>, NotDone> {
        if let Some(owner) = self.loaded(product) {
            return Ok(owner);
        }
        if self.0.closed.load(Ordering::Acquire) {
            return Err(NotDone::Unavailable);
        }
        if begins && self.loaded_count() >= self.0.house.owners_max {
            return Err(NotDone::Busy { retry_after_ms: OWNERS_RETRY_MS });
        }
        match self.0.owners.entry(product) {
            MapEntry::Occupied(owner) => Ok(owner.get().clone()),
            MapEntry::Vacant(place) => {
                let shared = Arc::new(Shared::new(product));
                let placed = place.insert(shared.clone());
                // While nobody else comes at it: who is in the one list is in the other.
                self.shard(product.shard()).push(product);
                drop(placed);
                self.start(shared.clone());
                Ok(shared)
            }
        }
    }

    /// Puts the owner on one of the threads that serve, or on this one while there are none.
    fn start(&self, shared: Arc<Shared>) {
        self.on_a_thread(|| {
            let (directory, shared) = (self.clone(), shared.clone());
            move || directory.keep(shared)
        });
    }

    fn on_a_thread<F: FnOnce() + Send + 'static>(&self, work: impl Fn() -> F) {
        let arbiters = self.0.arbiters.load();
        let turn = self.0.next_arbiter.fetch_add(1, Ordering::Relaxed);
        // A thread that has ended takes nothing any more: the next one does.
        let taken = (0..arbiters.len()).any(|step| arbiters[(turn + step) % arbiters.len()].spawn_fn(work()));
        if !taken {
            Arbiter::current().spawn_fn(work());
        }
    }

    /// On the thread it is to be on: whoever takes from this mailbox begins.
    fn keep(self, shared: Arc<Shared>) {
        match &self.0.routes {
            Some(routes) if !routes.is_here(shared.product.shard()) => {
                actix::spawn(Forwarder::new(shared, self).run());
            }
            _ => drop(StockOwner::new(shared, self.0.house.clone(), self).start()),
        }
    }

    /// The owner has gone, or is going: the next question starts a new one.
    pub(super) fn forget(&self, owner: &Arc<Shared>) {
        // First of all: whoever has it near must not take its view for the newest once there is another owner.
        let left = owner.inbox.close();
        // Before it is out of the list: whoever does not find it there knows when it went.
        self.has_left(owner.product.shard());
        self.0.owners.remove_if(&owner.product, |_, known| {
            let goes = Arc::ptr_eq(known, owner);
            if goes {
                self.shard(owner.product.shard()).retain(|product| *product != owner.product);
            }
            goes
        });
        left.into_iter().for_each(Post::give_up);
        owner.is_over();
        // Whoever waits for the mailbox to be handed over, or for its owner to rest, hears that there is none.
        drop((owner.inbox.take_leave(), owner.inbox.take_drain()));
    }

    /// Asks the home of a hold whether its order was born and stands, and tells the owner.
    pub(super) fn ask_home(&self, product: ProductId, order: OrderId, home: ProductId) {
        let directory = self.clone();
        actix::spawn(async move {
            let Ok(Answer::Order(at_home)) = directory.order(home, order).await else { return };
            if let Some(command) = word_of_home(order, at_home.as_deref()) {
                // Whatever goes wrong here is asked again at the next lapse.
                let _ = directory.ask(product, command).await;
            }
        });
    }

    /// Shutdown: every owner finishes its group, stores itself and stops, and what was asked of other nodes is answered. Nothing is
    /// started any more.
    pub async fn drain(&self) {
        self.0.closed.store(true, Ordering::Release);
        let owners: Vec<_> = self.0.owners.iter().map(|owner| owner.value().clone()).collect();
        let mut resting = Vec::with_capacity(owners.len());
        for owner in owners {
            let (done, rested) = oneshot::channel();
            owner.inbox.drain_owner(done);
            resting.push(rested);
        }
        for rested in resting {
            // An owner that has gone already is at rest.
            let _ = rested.await;
        }
    }
}
