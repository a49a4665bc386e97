//! What a node owns, whether it runs the shop or not: its session, its owners, and the desk at which other nodes ask them.
//!
//! It is there from the node's start to its end, or to the loss of its session; the shop that opens in this process is built on it.
//! Always true: what is asked of its owners is answered by them or by nobody, and when it has left nothing is decided here.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use actix_web::rt;
use anyhow::Result;
use futures_util::future::LocalBoxFuture;

use super::fitness::Punctuality;
use super::front::NodeFront;
use super::store::{Joined, Store};
use super::vitals::pulse;
use crate::actors::following::Following;
use crate::actors::following::Word;
use crate::actors::placement::{Leading, Told};
use crate::actors::stock::{
    Changes, Directory, House, NodeName, NotAsked, OWNERS_MAX, Routes, Snapshots, UsedKeys,
};
use crate::actors::turns::Loop;
use crate::clock::Clock;
use crate::config::Config;
use crate::domain::id::SHARDS;
use crate::http::front::{Follower, NotFollowed, Owners, Ways};
use crate::persistence::journal::Journal;
use crate::telemetry::Metrics;

/// How long whoever leaves waits for the lead to take over what it owns.
const TAKEN_WITHIN: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(20);
/// How long owners may take to rest once their journal is lost.
const ABANDON_WITHIN: Duration = Duration::from_secs(3);

/// What all owners of a process share.
pub fn house(config: &Config, clock: &Clock, journal: &Journal) -> Arc<House> {
    Arc::new(House {
        home: Arc::new(journal.clone()),
        clock: clock.clone(),
        keys: UsedKeys::default(),
        metrics: Metrics::global().clone(),
        wait_ms_max: u64::try_from(config.limits.queue_wait_max.as_millis()).unwrap_or(u64::MAX),
        lagging: AtomicBool::new(false),
        flushed_ns: AtomicU64::new(0),
        owners_max: OWNERS_MAX,
        // Among nodes the lead looks, and whoever copies for it.
        changes: match config.store.redis.is_some() || config.store.database_url.is_some() {
            true => Changes::heard(),
            false => Changes::unheard(),
        },
        snapshots: Snapshots::of_process(),
    })
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Owning {
    joined: Joined,
    directory: Directory,
    clock: Clock,
    front: Arc<NodeFront>,
    ways: Ways,
    following: Following,
    time: Rc<Punctuality>,
    _pulse: Rc<Loop>,
}

impl Owning {
    /// Joins the nodes of the database that the configuration names. Whoever may own nothing waits for as long as he is awaited.
    pub async fn join(config: &Config, front: &Arc<NodeFront>) -> Result<Owning> {
        let clock = Clock::start();
        let joined = Joined::among(config, &clock, front.neighbours.clone()).await?;
        let journal = &joined.journal;
        let ways = front.ways();
        let routes = Routes::new(journal.epoch().0, Arc::new(ways.clone()), journal.brake().clone());
        let directory = Directory::among(house(config, &clock, journal), routes);
        front.threads().iter().for_each(|thread| directory.add_arbiter(thread.clone()));
        let following = Following::new(journal.clone(), directory.clone());
        front.own(Some(Arc::new(Owners::new(directory.clone(), Arc::new(following.clone())))));
        let time = Rc::new(Punctuality::watch(&joined.journal, front.readiness()));
        let _pulse = Rc::new(pulse(&joined.journal, &directory));
        Ok(Owning { joined, directory, clock, front: front.clone(), ways, following, time, _pulse })
    }

    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    pub fn following(&self) -> &Following {
        &self.following
    }

    /// Whether its clock is right.
    pub fn time(&self) -> Rc<Punctuality> {
        self.time.clone()
    }

    /// The way to the nodes that follow.
    pub fn ways(&self) -> Rc<dyn Leading> {
        Rc::new(self.ways.clone())
    }

    /// Waits until this node is the lead, and hands over what its shop stands in.
    pub async fn lead(&self) -> Result<Store> {
        let mut lost = self.joined.journal.fatal();
        tokio::select! {
            store = self.joined.clone().lead() => store,
            _ = lost.wait_for(|lost| *lost) => anyhow::bail!("another node has taken this one for dead"),
        }
    }

    /// Whether its session has ended against its will.
    pub fn is_lost(&self) -> bool {
        *self.joined.journal.fatal().borrow()
    }

    /// Nobody asks its owners any more.
    pub fn close_desk(&self) {
        self.front.own(None);
    }

    /// Leaves in order, as one that does not lead: the lead takes what it owns, and then its session ends.
    pub async fn leave(self) {
        let journal = &self.joined.journal;
        if let Err(error) = journal.leaving().await {
            tracing::warn!(%error, "this node could not say that it leaves");
        }
        let taken = async {
            while self.owns_something().await {
                rt::time::sleep(LOOK).await;
            }
        };
        if rt::time::timeout(TAKEN_WITHIN, taken).await.is_err() {
            tracing::warn!("nobody has taken over what this node owns; it goes all the same");
        }
        self.close_desk();
        self.directory.drain().await;
        journal.close().await;
        tracing::info!("this node has left the others");
    }

    async fn owns_something(&self) -> bool {
        // Where nobody leads nobody takes over.
        let led = self.front.neighbours.active.borrow().is_some();
        led && self.directory.routes().is_some_and(|routes| (0..SHARDS).any(|shard| routes.is_here(shard)))
    }

    /// Its session has ended: nothing more is written, whoever waits hears so.
    pub async fn abandon(self) {
        self.close_desk();
        if rt::time::timeout(ABANDON_WITHIN, self.directory.drain()).await.is_err() {
            tracing::warn!("owners did not rest in time, and are left where they are");
        }
        if rt::time::timeout(ABANDON_WITHIN, self.joined.journal.close()).await.is_err() {
            tracing::warn!("the journal was not closed in time, and is left where it is");
        }
    }
}

impl Follower for Following {
    fn lead(&self, word: Word) -> LocalBoxFuture<'static, Result<(), NotFollowed>> {
        let this = self.clone();
        Box::pin(async move { this.follow(word).await.map_err(not_followed) })
    }

    fn let_go(&self, word: Word, shards: Vec<u16>) -> LocalBoxFuture<'static, Result<(), NotFollowed>> {
        let this = self.clone();
        Box::pin(async move { Following::let_go(&this, word, &shards).await.map_err(not_followed) })
    }
}

fn not_followed(why: NotAsked) -> NotFollowed {
    match why {
        NotAsked::Elsewhere => NotFollowed::AnotherLeads,
        NotAsked::NotSent | NotAsked::Refused | NotAsked::Unknown => NotFollowed::Unable,
    }
}

impl Leading for Ways {
    fn lead(&self, node: &NodeName, word: Word) -> Told {
        let (this, node) = (self.clone(), node.clone());
        Box::pin(async move { Ways::lead(&this, &node, word).await })
    }

    fn let_go(&self, node: &NodeName, word: Word, shards: Vec<u16>) -> Told {
        let (this, node) = (self.clone(), node.clone());
        Box::pin(async move { Ways::let_go(&this, &node, word, shards).await })
    }

    fn views(&self, directory: &Directory, node: &NodeName, lead: u64) -> LocalBoxFuture<'static, ()> {
        let (this, directory, node) = (self.clone(), directory.clone(), node.clone());
        Box::pin(async move {
            let why = Ways::views(&this, &directory, &node, lead).await;
            tracing::debug!(%why, session = node.session, "what a node publishes is not heard");
        })
    }
}
