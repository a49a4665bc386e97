//! Which node owns which shard, as this one knows it, and which lead it follows.
//!
//! Always true: a route changes only while nobody else changes it, and with the lock of its shard held; a question of a lead that is
//! not followed any more is not begun.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, MutexGuard, Notify};

use super::abroad::{Abroad, NodeName, Pace, Route};
use super::directory::House;
use crate::domain::id::SHARDS;

/// The lead that is followed, and what it has asked.
struct Following {
    lead: u64,
    /// This node is it: what it does not own it passes on.
    here: bool,
    answering: AtomicUsize,
    /// Rung when one of its questions has been answered.
    answered: Notify,
}

impl Following {
    fn new(lead: u64, here: bool) -> Following {
        Following { lead, here, answering: AtomicUsize::new(0), answered: Notify::new() }
    }

    async fn all_answered(&self) {
        loop {
            let answered = self.answered.notified();
            tokio::pin!(answered);
            answered.as_mut().enable();
            if self.answering.load(Ordering::SeqCst) == 0 {
                return;
            }
            answered.await;
        }
    }
}

struct Place {
    route: ArcSwap<Route>,
    /// Held by whoever moves the shard.
    moving: Mutex<()>,
}

/// A node among others: what its directory needs of them.
pub struct Routes {
    session: u64,
    places: Box<[Place]>,
    following: ArcSwap<Following>,
    pub(super) abroad: Arc<dyn Abroad>,
    /// How long the journal waits before each group, in microseconds.
    brake_us: Arc<AtomicU64>,
    /// The same as it was configured.
    base_brake_us: u64,
    /// How much was asked of other nodes.
    numbers: AtomicU64,
    /// Until when everything is known here that the owners on each node have published.
    heard_ns: std::sync::Mutex<BTreeMap<u64, u64>>,
}

impl Routes {
    /// Of the node with this session. Every shard is moving, and no lead is followed. The owners here feel `brake_us`, which the lead
    /// sets.
    pub fn new(session: u64, abroad: Arc<dyn Abroad>, brake_us: Arc<AtomicU64>) -> Routes {
        let place = || Place { route: ArcSwap::from_pointee(Route::Moving), moving: Mutex::new(()) };
        Routes {
            session,
            places: (0..SHARDS).map(|_| place()).collect(),
            following: ArcSwap::from_pointee(Following::new(0, false)),
            abroad,
            base_brake_us: brake_us.load(Ordering::Relaxed),
            brake_us,
            numbers: AtomicU64::new(0),
            heard_ns: std::sync::Mutex::default(),
        }
    }

    /// Of the next question.
    pub(super) fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn heard_by_node(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, u64>> {
        self.heard_ns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the owners of the node with that session are listened to.
    pub fn listen_to(&self, session: u64, now_ns: u64) {
        self.heard_by_node().insert(session, now_ns);
    }

    /// They have gone.
    pub fn listen_no_more_to(&self, session: u64) {
        self.heard_by_node().remove(&session);
    }

    /// Everything that they have published by now is known here.
    pub(super) fn heard(&self, session: u64, now_ns: u64) {
        if let Some(heard) = self.heard_by_node().get_mut(&session) {
            *heard = now_ns;
        }
    }

    /// The same of one node's owners alone; `None`: they are not listened to.
    pub fn heard_ns(&self, session: u64) -> Option<u64> {
        self.heard_by_node().get(&session).copied()
    }

    /// Until when everything is known here that owners have published, wherever they are.
    pub(super) fn all_heard_ns(&self, now_ns: u64) -> u64 {
        self.heard_by_node().values().copied().fold(now_ns, u64::min)
    }

    fn place(&self, shard: u16) -> &Place {
        &self.places[usize::from(shard) % self.places.len()]
    }

    /// Where a shard's owners are.
    pub fn of(&self, shard: u16) -> Arc<Route> {
        self.place(shard).route.load_full()
    }

    pub fn is_here(&self, shard: u16) -> bool {
        matches!(**self.place(shard).route.load(), Route::Here)
    }

    /// Whether that node owns the shard.
    pub fn is_at(&self, shard: u16, node: &NodeName) -> bool {
        matches!(&**self.place(shard).route.load(), Route::Away(at) if **at == *node)
    }

    /// How many shards are owned here.
    pub fn here(&self) -> usize {
        (0..SHARDS).filter(|shard| self.is_here(*shard)).count()
    }

    pub(super) fn set(&self, shard: u16, route: Arc<Route>) {
        self.place(shard).route.store(route);
    }

    /// Until the guards go nobody else moves these shards, which are sorted.
    pub(super) async fn moving(&self, shards: &[u16]) -> Vec<MutexGuard<'_, ()>> {
        let mut guards = Vec::with_capacity(shards.len());
        for shard in shards {
            guards.push(self.place(*shard).moving.lock().await);
        }
        guards
    }

    /// This node's own session.
    pub fn session(&self) -> u64 {
        self.session
    }

    /// How long the journal rests after a group by configuration alone.
    pub fn base_brake_us(&self) -> u64 {
        self.base_brake_us
    }

    /// The session of the lead that is followed, 0 for none.
    pub fn lead(&self) -> u64 {
        self.following.load().lead
    }

    /// From now on questions of this lead are answered and those of the one before it are not. Returns once what that one had asked
    /// is answered. Our own session: this node is the lead.
    pub async fn follow(&self, lead: u64) {
        if self.lead() == lead {
            return;
        }
        let before = self.following.swap(Arc::new(Following::new(lead, lead == self.session)));
        before.all_answered().await;
        if lead == self.session {
            // What the lead before has said of its flush does not hold for the next one.
            self.brake_us.store(self.base_brake_us, Ordering::Relaxed);
        }
    }

    /// Lets a question in that came from another node, if it is for this one.
    pub(super) fn admit(&self, lead: u64, shard: u16) -> Option<Admitted> {
        let following = self.following.load_full();
        following.answering.fetch_add(1, Ordering::SeqCst);
        let admitted = Admitted(following.clone());
        // Looked at once more: whoever has replaced it meanwhile may not have seen that one is in.
        let still = Arc::ptr_eq(&self.following.load(), &following) && following.lead == lead;
        (still && (following.here || self.is_here(shard))).then_some(admitted)
    }

    /// What the lead is told by its flush, for those who own.
    pub(super) fn pace(&self, house: &House) -> Pace {
        let following = self.following.load();
        match following.here {
            true => Pace {
                brake_us: self.brake_us.load(Ordering::Relaxed),
                lagging: house.lagging.load(Ordering::Relaxed),
            },
            false => Pace::default(),
        }
    }

    /// What the lead has told of it.
    pub(super) fn keep_pace(&self, house: &House, pace: Pace) {
        if !self.following.load().here {
            self.brake_us.store(pace.brake_us, Ordering::Relaxed);
            house.lagging.store(pace.lagging, Ordering::Relaxed);
        }
    }
}

/// A question of another node that is being answered.
pub(super) struct Admitted(Arc<Following>);

impl Drop for Admitted {
    fn drop(&mut self) {
        if self.0.answering.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.answered.notify_waiters();
        }
    }
}
