//! A journal in a database, as one of its nodes sees it: who else is there, who leads, who owns what, and where the journal of all
//! nodes ends.
//!
//! Always true: where there is no database there is one node only, which leads and owns everything.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;

use super::database::{self, Neighbours, Owned, Peer, Standby};
use super::log::LogError;
use super::{Head, Health, Journal};
use crate::domain::id::{ProductId, SHARDS};
use crate::domain::stock::Epoch;
use crate::persistence::StoreError;

impl Journal {
    /// This node's name, another one after each opening; none where there is no database to meet in.
    pub fn node_id(&self) -> Option<[u8; 16]> {
        self.0.node.as_ref().map(|node| node.member.node)
    }

    /// What this node tells others of itself, where there are others.
    pub fn neighbours(&self) -> Option<&Neighbours> {
        self.0.node.as_ref().map(|node| &*node.member.neighbours)
    }

    /// This node will leave: others are told, and the answer is how long it takes until they have heard. Nothing, where there are none.
    pub async fn leaving(&self) -> Result<Duration, StoreError> {
        match (&self.0.node, &self.0.lease) {
            (Some(node), Some((clock, _))) => {
                database::leaving(&node.server, self.0.epoch, &node.member.timing, &self.0.shared, clock)
                    .await
            }
            _ => Ok(Duration::ZERO),
        }
    }

    /// Waits until this node is the lead: the one that runs the shop and says who owns what. From then on it owns every shard that
    /// nobody has who lives.
    pub async fn lead(&self) -> Result<(), StoreError> {
        let Some(node) = &self.0.node else { return Ok(()) };
        let number = self.0.epoch.0.cast_signed();
        node.member.lead(number).await?;
        self.0.shared.leads.store(true, Ordering::Release);
        let living: Vec<i64> = self.peers_now().await?.iter().map(|peer| peer.session).collect();
        // Nobody's, where there is no row.
        let mut owners = [0; SHARDS as usize];
        for row in self.shards().await? {
            owners[usize::from(row.shard)] = row.session;
        }
        let mut free: BTreeMap<i64, Vec<u16>> = BTreeMap::new();
        for (shard, owner) in (0..SHARDS).zip(owners).filter(|(_, owner)| !living.contains(owner)) {
            free.entry(owner).or_default().push(shard);
        }
        for (from, shards) in free {
            self.give(&shards, from, number).await?;
        }
        let all = self.look_at_shards().await?;
        let term = all.iter().map(|row| row.epoch.unsigned_abs()).max();
        self.0.shared.term.store(term.unwrap_or_default(), Ordering::Release);
        Ok(())
    }

    /// Of two leads the later one has no smaller number, and each of two openings of files a greater one than the one before.
    pub fn term(&self) -> u64 {
        match self.0.node {
            Some(_) => self.0.shared.term.load(Ordering::Acquire),
            None => self.0.epoch.0,
        }
    }

    /// Whether this node is the lead, as far as it knows. Where there is no database there is no other.
    pub fn leads(&self) -> bool {
        self.0.node.is_none() || self.0.shared.leads.load(Ordering::Acquire)
    }

    /// Whether that session is the lead, by the database's word.
    pub async fn is_led_by(&self, session: u64) -> Result<bool, StoreError> {
        match &self.0.node {
            Some(node) => Ok(database::lead_of(&node.member.server).await? == Some(session.cast_signed())),
            None => Ok(false),
        }
    }

    /// Who has a session, this node among them, as it was last seen; none where there is no database to meet in.
    pub fn peers(&self) -> watch::Receiver<Vec<Peer>> {
        self.0.shared.roster.watch_peers()
    }

    /// The same, looked at now.
    pub async fn peers_now(&self) -> Result<Vec<Peer>, StoreError> {
        match (&self.0.node, &self.0.lease) {
            (Some(node), Some((clock, _))) => {
                database::sessions(&node.member.server, &self.0.shared, clock).await
            }
            _ => Ok(Vec::new()),
        }
    }

    /// Whether another node was there that may own, when it was last looked.
    pub fn has_peers(&self) -> bool {
        let own = self.0.epoch.0.cast_signed();
        self.0.shared.roster.peers().iter().any(|peer| peer.session != own)
    }

    /// Who owns which shard; none where there is one node only.
    pub async fn shards(&self) -> Result<Vec<Owned>, StoreError> {
        match &self.0.node {
            Some(node) => database::all_shards(&node.member.server).await,
            None => Ok(Vec::new()),
        }
    }

    /// The lead gives shards that are `from`'s to a session. Whoever had them has let go of them, or lives no more.
    pub async fn give(&self, shards: &[u16], from: i64, to: i64) -> Result<(), StoreError> {
        match &self.0.node {
            Some(node) if !shards.is_empty() => database::give(&node.server, shards, from, to).await,
            _ => Ok(()),
        }
    }

    /// The lead ends the session of a node that it cannot reach: that one writes nothing more, and may join anew. Whether this ended it.
    pub async fn end_session(&self, session: i64) -> Result<bool, StoreError> {
        match &self.0.node {
            Some(node) => database::end_session(&node.server, session).await,
            None => Ok(false),
        }
    }

    /// Reads which shards are this node's, and writes in their epochs from now on; says all rows.
    pub async fn look_at_shards(&self) -> Result<Vec<Owned>, StoreError> {
        let all = self.shards().await?;
        let own = self.0.epoch.0.cast_signed();
        let mut epochs = [0; SHARDS as usize];
        for row in all.iter().filter(|row| row.session == own) {
            epochs[usize::from(row.shard)] = row.epoch.unsigned_abs();
        }
        for (kept, now) in self.0.shared.epochs.get().into_iter().flatten().zip(epochs) {
            kept.store(now, Ordering::Release);
        }
        Ok(all)
    }

    /// The epoch in which a product's entries are written here.
    pub fn epoch_of(&self, product: ProductId) -> Epoch {
        let epochs = self.0.shared.epochs.get();
        let epoch = epochs.and_then(|epochs| epochs.get(usize::from(product.shard())));
        match epoch.map_or(0, |epoch| epoch.load(Ordering::Acquire)) {
            0 => self.0.epoch,
            epoch => Epoch(epoch),
        }
    }

    /// Looks where the journal of all nodes ends. Where it ends before what this opening has seen of it, the opening is over.
    pub async fn look_at_end(&self) -> Result<Head, StoreError> {
        // Before the question: what others see meanwhile is no older than the answer.
        let furthest = self.0.shared.furthest.load(Ordering::Acquire);
        let Some(end) = self.0.reader.end_of_all().await? else { return Ok(self.head()) };
        if end.pos < furthest {
            return Err(self.forgotten());
        }
        self.0.shared.furthest.fetch_max(end.pos, Ordering::AcqRel);
        *self.0.shared.end.lock().unwrap_or_else(PoisonError::into_inner) = end;
        Ok(end)
    }

    /// The store has no more what it was seen to have: another one took its place that had not received everything. What this
    /// opening knows is not what stands there, and it is over.
    pub(in crate::persistence) fn forgotten(&self) -> StoreError {
        if self.health() != Health::Fenced {
            self.0.shared.fence(&LogError::Forgotten.to_string());
        }
        StoreError::Forgotten
    }

    /// Where the journal of all nodes was last seen to end; of one node alone it is known.
    pub fn seen_end(&self) -> Head {
        match &self.0.node {
            None => self.head(),
            Some(_) => *self.0.shared.end.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// By how many milliseconds this node's clock is ahead of the database's, below zero if it is behind; `None`: there is none to
    /// compare it with.
    pub async fn ahead_ms(&self) -> Result<Option<i64>, StoreError> {
        match (&self.0.node, &self.0.lease) {
            (Some(node), Some((clock, _))) => database::ahead_ms(&node.member.server, clock).await.map(Some),
            _ => Ok(None),
        }
    }

    /// How long ago a node was seen to look around; `None`: it is not known.
    pub fn silent_ms(&self, node: &[u8]) -> Option<u64> {
        let (clock, _) = self.0.lease.as_ref()?;
        self.0.shared.roster.silent_ms(node, clock.nanos())
    }

    /// The nodes that stand by, as this one sees them; none where there is no database to meet in.
    pub fn standbys(&self) -> Vec<Standby> {
        self.0.lease.as_ref().map_or_else(Vec::new, |(clock, _)| self.0.shared.roster.seen(clock.nanos()))
    }
}
