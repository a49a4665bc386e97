//! The lead's placement: which node owns which shard, and how one moves.
//!
//! It owns the table `shards` and the routes of this node's directory. A shard moves in three steps: its owner lets go of it, the
//! row says who has it now, and that one is told to look. Always true: a row changes only after its owner has let go or its session
//! has ended; questions about a shard that is moving wait in their mailboxes; and a node is asked nothing before it has said that it
//! follows this lead, and the keys of all orders that it had written until then are known here; until all owners have said so no key counts as new.

mod aside;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix_web::rt;
use futures_util::future::LocalBoxFuture;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::timeout;

use super::following::{Following, Word};
use super::keys::Keys;
use super::nodes::{Hot, Shares};
use super::stock::{Directory, NodeName, NotAsked, Route};
use super::turns::turn;
use crate::domain::id::{ProductId, SHARDS};
use crate::domain::placement::{self, Member, ShardNow};
use crate::persistence::journal::{Journal, Owned, Peer};
use crate::persistence::stock::StockReader;
use crate::persistence::{StoreError, Tables};
use aside::Aside;

/// How often it is looked who is there, when nobody comes or goes.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long a node may take to answer a lead that is about to open: whoever does not is told again once the others sell …
const TOLD_AT_FIRST_WITHIN: Duration = Duration::from_millis(400);
/// … and how long afterwards.
const TOLD_WITHIN: Duration = Duration::from_secs(2);
/// … and to let go of what it has, with what is under way there.
const LET_GO_WITHIN: Duration = Duration::from_secs(5);
/// How long what is moving is waited for by a lead that stops.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// Shards that move at once; those with products in memory move in small pieces, so that each waits for little.
const AT_ONCE: usize = 128;
const AT_ONCE_LOADED: usize = 4;
/// What a hot product weighs, where one that is in memory weighs 1.
const HOT_WEIGHT: u32 = 10_000;
/// A node of which nothing was heard for so long, and which does not answer either, does not sell: others shall.
const SILENT_MAX: Duration = Duration::from_secs(3);
/// Pause before a stream of views is asked for again.
const VIEWS_AGAIN: Duration = Duration::from_millis(100);

/// Something that is asked of another node.
pub type Told = LocalBoxFuture<'static, Result<(), NotAsked>>;

/// The way from the lead to the nodes that follow it.
pub trait Leading: 'static {
    /// Who speaks is the lead: the node looks which shards are its own, and answers once it serves them and nobody else's question.
    fn lead(&self, node: &NodeName, word: Word) -> Told;
    /// The node lets go of these shards, and answers once everything it had decided is written and answered.
    fn let_go(&self, node: &NodeName, word: Word, shards: Vec<u16>) -> Told;
    /// Has a directory show what the node's owners publish: first all of it, then whatever changes. It ends when the connection does,
    /// or the node follows another lead.
    fn views(&self, directory: &Directory, node: &NodeName, lead: u64) -> LocalBoxFuture<'static, ()>;
}

/// What placement needs of the shop.
pub struct PlacementHouse {
    pub journal: Journal,
    pub directory: Directory,
    pub tables: Tables,
    pub nodes: Rc<dyn Leading>,
    /// What this node did for the lead before it.
    pub following: Following,
    /// Products that many ask for: they are spread by themselves, however many others there are.
    pub hot: Hot,
    /// Where it says who owns how much.
    pub shares: Shares,
}

/// What a node owns, for those who look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    pub session: u64,
    pub node: Vec<u8>,
    pub address: Option<String>,
    pub shards: u16,
    /// It has said that it goes.
    pub leaving: bool,
}

/// Cheap to clone. Ends with the last one.
#[derive(Clone)]
pub struct Placement(Rc<Running>);

struct Running {
    stop: watch::Sender<bool>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

impl Placement {
    /// Tells every node that this one is the lead now, and says where each shard's owners are. When it returns, each question finds
    /// its owner or waits for it, and the keys of all orders are known, but for those of owners that have not followed yet.
    pub async fn open(house: PlacementHouse, keys: Keys) -> Result<Placement, StoreError> {
        let mut placing = Placing::of(house, keys).await?;
        placing.begin().await?;
        let stop = watch::Sender::new(false);
        let task = rt::spawn(placing.run(stop.subscribe()));
        Ok(Placement(Rc::new(Running { stop, task: Mutex::new(Some(task)) })))
    }

    /// Nothing moves any more. What is moving is moved to its end, or stays where it is.
    pub async fn stop(&self) {
        self.0.stop.send_replace(true);
        let task = self.0.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut task) = task else { return };
        if timeout(STOP_WITHIN, &mut task).await.is_err() {
            task.abort();
            tracing::warn!("what was moving to another node did not come to its end, and stays where it was");
        }
    }
}

/// A node that follows.
struct Follower {
    name: Arc<NodeName>,
    directory: Directory,
    views: JoinHandle<()>,
}

impl Drop for Follower {
    fn drop(&mut self) {
        // What it has published last may not have come here, of products that nobody here had asked for: no copy of theirs counts on.
        self.directory.house().changes.doubt();
        if let Some(routes) = self.directory.routes() {
            routes.listen_no_more_to(self.name.session);
        }
        self.views.abort();
    }
}

struct Placing {
    /// This node's own session.
    own: u64,
    house: PlacementHouse,
    stock: StockReader,
    keys: Keys,
    /// Who owned something when this node became the lead, and has neither followed nor gone since: it may write what the lead before
    /// this one has asked. Nobody is added: shards are given to those alone who follow.
    unheard: BTreeSet<u64>,
    /// Some of them have: what they had written by then is yet to be read.
    keys_due: bool,
    /// How much has been said to others.
    words: Cell<u64>,
    /// A row for each shard, in their order.
    rows: Vec<Owned>,
    /// They may have changed: nothing is settled by them before they are read again.
    rows_due: bool,
    /// Those who have said that they follow, by their sessions.
    told: BTreeMap<u64, Follower>,
    /// Those who have not, and since when that is known; by the house's steady clock.
    strangers: BTreeMap<u64, u64>,
    /// Those of them that own nothing.
    aside: Aside,
    /// Shards of which nobody serves questions at the moment.
    unsettled: BTreeSet<u16>,
}

impl Placing {
    async fn of(house: PlacementHouse, keys: Keys) -> Result<Placing, StoreError> {
        let (own, rows) = (house.journal.epoch().0, house.journal.look_at_shards().await?);
        let owners = rows.iter().map(|row| row.session.unsigned_abs());
        Ok(Placing {
            own,
            unheard: owners.filter(|session| *session != own).collect(),
            stock: house.tables.stock(),
            house,
            keys,
            keys_due: false,
            rows_due: false,
            words: Cell::new(0),
            rows,
            told: BTreeMap::new(),
            strangers: BTreeMap::new(),
            aside: Aside::default(),
            unsettled: (0..SHARDS).collect(),
        })
    }

    async fn begin(&mut self) -> Result<(), StoreError> {
        let directory = self.house.directory.clone();
        let Some(routes) = directory.routes() else { return Ok(()) };
        self.house.following.leads().await;
        routes.follow(self.own).await;
        // What led to the lead before this one; what is served here is served on.
        let away: Vec<u16> = (0..SHARDS).filter(|shard| !routes.is_here(*shard)).collect();
        directory.let_go(&away).await;
        self.unsettled = away.into_iter().collect();
        let peers = self.house.journal.peers_now().await?;
        self.meet(self.unmet(&peers), TOLD_AT_FIRST_WITHIN).await;
        // This node's own owners, too, have answered the lead before.
        self.keys_due = true;
        self.learn_keys(&peers).await?;
        self.settle().await;
        self.show(&peers);
        Ok(())
    }

    async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut peers = self.house.journal.peers();
        loop {
            let now = peers.borrow_and_update().clone();
            if let Some(Err(error)) = turn("the placement", self.step(&now, &stop)).await {
                tracing::warn!(%error, "who owns what could not be looked at; it is tried again");
            }
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                changed = peers.changed() => if changed.is_err() { return },
                Some(answer) = self.aside.answer() => self.answered(answer),
                () = rt::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// Who has come is told, what the gone have left is given to others, and what is too much at one node moves.
    async fn step(&mut self, peers: &[Peer], stop: &watch::Receiver<bool>) -> Result<(), StoreError> {
        // At the very first look nobody may have been seen yet.
        if !lives(peers, self.own) {
            return Ok(());
        }
        if self.rows_due {
            self.look_at_rows().await?;
        }
        let gone: Vec<u64> = self.told.keys().copied().filter(|session| !lives(peers, *session)).collect();
        for session in gone {
            tracing::warn!(session, "a node has gone: what it owned goes to others");
            self.told.remove(&session);
            let left = self.shards_of(session);
            self.house.directory.let_go(&left).await;
            self.unsettled.extend(left);
        }
        while let Some(answer) = self.aside.answer_now() {
            self.answered(answer);
        }
        let strangers = self.unmet(peers).into_iter();
        let (owners, others) = strangers.partition(|name| !self.shards_of(name.session).is_empty());
        self.meet(owners, TOLD_WITHIN).await;
        self.meet_aside(others);
        self.end_silent().await?;
        self.end_strangers(peers).await?;
        self.learn_keys(peers).await?;
        if !self.unsettled.is_empty() {
            self.settle().await;
        }
        let roster = self.house.journal.peers();
        for (shards, to) in self.moves(peers) {
            // Who has come or gone meanwhile changes what is to move.
            if *stop.borrow() || roster.borrow().as_slice() != peers {
                break;
            }
            self.carry(&shards, to).await?;
            self.show(peers);
        }
        self.show(peers);
        Ok(())
    }

    /// The nodes that have not said yet that they follow.
    fn unmet(&self, peers: &[Peer]) -> Vec<Arc<NodeName>> {
        let strangers = peers.iter().filter_map(|peer| {
            let session = peer.session.unsigned_abs();
            // Whoever leaves is told as well while something of its is to be taken over.
            let goes = peer.leaving && self.shards_of(session).is_empty();
            let is_known = session == self.own || self.told.contains_key(&session) || goes;
            let address = peer.address.clone().filter(|_| !is_known)?;
            Some(Arc::new(NodeName { session, address }))
        });
        strangers.collect()
    }

    /// Tells nodes that do not know it yet who leads, all at once; until one has said that it follows it is asked nothing.
    async fn meet(&mut self, strangers: Vec<Arc<NodeName>>, within: Duration) {
        let telling = strangers
            .into_iter()
            .map(|name| async { self.tell(&name, within).await.is_ok().then_some(name) });
        let told = futures_util::future::join_all(telling).await;
        told.into_iter().flatten().for_each(|name| self.follows(name));
    }

    /// The same of those that own nothing; nobody waits for them.
    fn meet_aside(&mut self, strangers: Vec<Arc<NodeName>>) {
        for name in self.aside.due(strangers, self.house.directory.house().clock.nanos()) {
            let telling = self.tell(&name, TOLD_WITHIN);
            self.aside.tell(name, telling);
        }
    }

    fn answered(&mut self, answer: Result<(Arc<NodeName>, bool), JoinError>) {
        let now_ns = self.house.directory.house().clock.nanos();
        if let Some(name) = self.aside.note(answer, now_ns) {
            self.follows(name);
        }
    }

    /// Learns the keys of what owners had written until they followed, or until they went without having followed, before anybody is asked for
    /// what was theirs; and says whether that is all. What is written from then on was asked by this lead, which knows the key of whatever it
    /// asks: nothing is read for the sake of those who go later.
    async fn learn_keys(&mut self, peers: &[Peer]) -> Result<(), StoreError> {
        let before = self.unheard.len();
        self.unheard.retain(|session| lives(peers, *session) && !self.told.contains_key(session));
        self.keys_due |= self.unheard.len() < before;
        if self.keys_due {
            // Its end is behind whatever those have written who are heard by now.
            self.keys.catch_up().await?;
            self.keys_due = false;
        }
        self.house.directory.house().keys.set_owners_are_heard(self.unheard.is_empty());
        Ok(())
    }

    fn follows(&mut self, name: Arc<NodeName>) {
        let session = name.session;
        let (nodes, directory) = (self.house.nodes.clone(), self.house.directory.clone());
        if let Some(routes) = directory.routes() {
            routes.listen_to(session, directory.house().clock.nanos());
        }
        let views = rt::spawn(show_views(nodes, directory.clone(), name.clone(), self.own));
        tracing::info!(session, address = name.address, "a node follows");
        self.told.insert(session, Follower { name, directory, views });
        self.unsettled.extend(self.shards_of(session));
    }

    /// Ends the sessions of nodes that say nothing and do not answer, though their hearts beat: nobody gets through to what they own.
    async fn end_silent(&mut self) -> Result<(), StoreError> {
        let Some(routes) = self.house.directory.routes() else { return Ok(()) };
        let now_ns = self.house.directory.house().clock.nanos();
        let is_silent = |session: &u64| {
            let heard_ns = routes.heard_ns(*session).unwrap_or(now_ns);
            Duration::from_nanos(now_ns.saturating_sub(heard_ns)) > SILENT_MAX
        };
        let silent = self.told.iter().filter(|(session, _)| is_silent(session));
        let silent: Vec<Arc<NodeName>> = silent.map(|(_, follower)| follower.name.clone()).collect();
        for name in silent {
            if self.tell(&name, TOLD_WITHIN).await.is_err() {
                self.end(name.session).await?;
            }
        }
        Ok(())
    }

    /// The same for those that own something since before this node was the lead, and have not answered it yet.
    async fn end_strangers(&mut self, peers: &[Peer]) -> Result<(), StoreError> {
        let now_ns = self.house.directory.house().clock.nanos();
        let sessions = peers.iter().map(|peer| peer.session.unsigned_abs());
        let strangers: Vec<u64> =
            sessions.filter(|session| *session != self.own && !self.told.contains_key(session)).collect();
        self.strangers.retain(|session, _| strangers.contains(session));
        for session in strangers {
            let since = *self.strangers.entry(session).or_insert(now_ns);
            let silent = Duration::from_nanos(now_ns.saturating_sub(since)) > SILENT_MAX;
            if silent && !self.shards_of(session).is_empty() {
                self.end(session).await?;
                let left = self.shards_of(session);
                self.house.directory.let_go(&left).await;
                self.unsettled.extend(left);
            }
        }
        Ok(())
    }

    async fn end(&self, session: u64) -> Result<(), StoreError> {
        if self.house.journal.end_session(session.cast_signed()).await? {
            tracing::warn!(
                session,
                "a node cannot be reached: its session is ended, and what it owned goes to others"
            );
        }
        Ok(())
    }

    /// Says who leads, and what is answered in time.
    fn tell(&self, name: &NodeName, within: Duration) -> Told {
        let session = name.session;
        let told = self.heard(session, within, self.house.nodes.lead(name, self.word()));
        Box::pin(async move {
            let told = told.await;
            if let Err(error) = &told {
                tracing::warn!(%error, session, "a node does not follow yet");
            }
            told
        })
    }

    /// What a node answers in time. Nobody waits for one whose session has ended: what it owned is for others.
    fn heard(&self, session: u64, within: Duration, told: Told) -> Told {
        let mut peers = self.house.journal.peers();
        Box::pin(async move {
            let has_gone = peers.wait_for(|peers| !lives(peers, session));
            tokio::select! {
                told = timeout(within, told) => told.unwrap_or(Err(NotAsked::Unknown)),
                _ = has_gone => Err(NotAsked::Unknown),
            }
        })
    }

    fn word(&self) -> Word {
        let number = self.words.get() + 1;
        self.words.set(number);
        Word { lead: self.own, number }
    }

    fn shards_of(&self, session: u64) -> Vec<u16> {
        let of_it = self.rows.iter().filter(|row| row.session.unsigned_abs() == session);
        of_it.map(|row| row.shard).collect()
    }

    /// Where each of the unsettled shards' rows leads questions are let through again; what belongs to nobody who lives stays.
    async fn settle(&mut self) {
        let mut by_owner: BTreeMap<u64, Vec<u16>> = BTreeMap::new();
        for row in &self.rows {
            if self.unsettled.contains(&row.shard) {
                by_owner.entry(row.session.unsigned_abs()).or_default().push(row.shard);
            }
        }
        for (session, shards) in by_owner {
            let route = if session == self.own {
                Route::Here
            } else {
                match self.told.get(&session).map(|follower| follower.name.clone()) {
                    // It may have let go of some of them without our hearing it.
                    Some(name) if self.tell(&name, TOLD_WITHIN).await.is_ok() => Route::Away(name),
                    _ => continue,
                }
            };
            // Whoever owned them may have published, and let go before it was heard here.
            self.house.directory.house().changes.doubt();
            self.house.directory.settle(&shards, route).await;
            self.unsettled.retain(|shard| !shards.contains(shard));
            self.wake(&shards).await;
        }
    }

    /// Owners that must not sleep: of products that were in memory, or have holds that lapse.
    async fn wake(&self, shards: &[u16]) {
        let directory = &self.house.directory;
        let mut awake: BTreeSet<ProductId> = BTreeSet::new();
        for shard in shards {
            awake.extend(directory.loaded_in(*shard));
        }
        match self.stock.holding().await {
            Ok(holding) => {
                awake.extend(holding.into_iter().filter(|product| shards.contains(&product.shard())))
            }
            Err(error) => tracing::warn!(%error, "which products have holds could not be read"),
        }
        directory.rouse(awake.into_iter().collect());
    }

    /// What is to move where, in the order in which it moves.
    fn moves(&self, peers: &[Peer]) -> Vec<(Vec<u16>, u64)> {
        let may_own = |peer: &&Peer| {
            let session = peer.session.unsigned_abs();
            session == self.own || self.told.contains_key(&session)
        };
        let mut members: Vec<(&Peer, [u8; 16])> = peers
            .iter()
            .filter(may_own)
            .filter_map(|peer| Some((peer, <[u8; 16]>::try_from(peer.node.as_slice()).ok()?)))
            .collect();
        members.sort_unstable_by_key(|(_, id)| *id);
        let place = |session: i64| members.iter().position(|(peer, _)| peer.session == session);
        let hot = self.house.hot.load();
        let weight = |shard: u16| {
            let loaded = self.house.directory.loaded_in(shard).len();
            let hot = hot.iter().filter(|product| product.shard() == shard).count();
            let weight = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
            weight(hot).saturating_mul(HOT_WEIGHT).saturating_add(weight(loaded))
        };
        let now = |row: &Owned| ShardNow { owner: place(row.session), weight: weight(row.shard) };
        let shards: Vec<ShardNow> = self.rows.iter().map(now).collect();
        let ids: Vec<Member> =
            members.iter().map(|(peer, id)| Member { id: *id, leaving: peer.leaving }).collect();
        // What belongs to somebody who lives and has not said yet that it follows is not ours to give.
        let is_taken = |shard: u16| {
            let owner = self.rows.get(usize::from(shard)).map(|row| row.session);
            peers.iter().any(|peer| owner == Some(peer.session)) && owner.and_then(place).is_none()
        };
        let mut groups: Vec<(Vec<u16>, u64, Option<i64>, bool)> = Vec::new();
        for step in placement::moves(&ids, &shards).into_iter().filter(|step| !is_taken(step.shard)) {
            let Some((to, _)) = members.get(step.to) else { continue };
            let to = to.session.unsigned_abs();
            let loaded = shards.get(usize::from(step.shard)).is_some_and(|shard| shard.weight > 0);
            let most = if loaded { AT_ONCE_LOADED } else { AT_ONCE };
            let from = self.rows.get(usize::from(step.shard)).map(|row| row.session);
            match groups.iter_mut().rev().find(|group| (group.1, group.2, group.3) == (to, from, loaded)) {
                Some(group) if group.0.len() < most => group.0.push(step.shard),
                _ => groups.push((vec![step.shard], to, from, loaded)),
            }
        }
        groups.into_iter().map(|(shards, to, ..)| (shards, to)).collect()
    }

    /// Moves shards that are one session's, which lives or has ended.
    async fn carry(&mut self, shards: &[u16], to: u64) -> Result<(), StoreError> {
        let from = shards.first().and_then(|shard| self.rows.get(usize::from(*shard)));
        let Some(from) = from.map(|row| row.session.unsigned_abs()) else { return Ok(()) };
        // Whoever cannot write may be in doubt, and would let go of nothing.
        if from == self.own && !self.house.journal.is_writable() {
            return Ok(());
        }
        let (house, began) =
            (self.house.directory.shared_house(), self.house.directory.house().clock.nanos());
        self.unsettled.extend(shards);
        if !self.house.directory.let_go(shards).await {
            // It is tried again at the next look; what others own, and what the dead have left, does not wait for it.
            tracing::warn!(?shards, "an owner here did not let go of what is to move: it stays where it is");
            self.settle().await;
            return Ok(());
        }
        if let Some(follower) = self.told.get(&from) {
            let letting_go = self.house.nodes.let_go(&follower.name, self.word(), shards.to_vec());
            if let Err(error) = self.heard(from, LET_GO_WITHIN, letting_go).await {
                // Whether it has is found out when it is told to look, or when it has gone.
                tracing::warn!(%error, session = from, "a node did not let go of what is to move");
                self.settle().await;
                return Ok(());
            }
        }
        self.rows_due = true;
        let given = self.house.journal.give(shards, from.cast_signed(), to.cast_signed()).await;
        self.look_at_rows().await?;
        // It may come yet.
        self.rows_due = given.is_err();
        given?;
        self.settle().await;
        let took = house.clock.nanos().saturating_sub(began);
        house.metrics.shard_move_seconds.record(took as f64 / 1e9);
        Ok(())
    }

    async fn look_at_rows(&mut self) -> Result<(), StoreError> {
        self.rows = self.house.journal.look_at_shards().await?;
        self.rows_due = false;
        Ok(())
    }

    fn show(&self, peers: &[Peer]) {
        let share = |peer: &Peer| Share {
            session: peer.session.unsigned_abs(),
            node: peer.node.clone(),
            address: peer.address.clone(),
            shards: u16::try_from(self.shards_of(peer.session.unsigned_abs()).len()).unwrap_or(u16::MAX),
            leaving: peer.leaving,
        };
        self.house.shares.store(Arc::new(peers.iter().map(share).collect()));
    }
}

/// Whether a session is among those that have not ended.
fn lives(peers: &[Peer], session: u64) -> bool {
    peers.iter().any(|peer| peer.session.unsigned_abs() == session)
}

/// Shows here what another node's owners publish, for as long as it is awaited.
async fn show_views(nodes: Rc<dyn Leading>, directory: Directory, name: Arc<NodeName>, lead: u64) {
    loop {
        nodes.views(&directory, &name, lead).await;
        rt::time::sleep(VIEWS_AGAIN).await;
    }
}
