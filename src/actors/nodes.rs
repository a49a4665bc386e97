//! Who is up, and who owns what: this node, which is the active one, and those that stand by.
//!
//! It owns nothing; the journal's home knows who stands by. Always true: what is told of another node is at most as old as it says.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::domain::id::SHARDS;
use crate::persistence::journal::{Journal, Neighbours};

use super::placement::Share;
use super::stock::{Directory, NodeName};

/// One node as this one sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSeen {
    /// Random, one a start; `None`: a shop in files has one node only.
    pub id: Option<[u8; 16]>,
    /// Where other nodes reach it.
    pub address: Option<String>,
    /// The number of its session, while it is active.
    pub session: Option<u64>,
    pub may_own: bool,
    /// How many of the [`SHARDS`] it owns.
    pub shards: u16,
    /// Products whose owners are in its memory; of another node that is not known.
    pub loaded: Option<usize>,
    /// How long ago it was seen to be there.
    pub silent_ms: u64,
}

/// What each node owns, once somebody places it.
type Shares = Arc<Mutex<Vec<Share>>>;

/// Reads it. Cheap to clone.
#[derive(Clone)]
pub struct Nodes {
    journal: Journal,
    directory: Directory,
    shares: Arc<OnceLock<Shares>>,
}

impl Nodes {
    pub fn new(journal: Journal, directory: Directory) -> Nodes {
        Nodes { journal, directory, shares: Arc::default() }
    }

    /// From now on it is told who owns how much.
    pub fn follow(&self, shares: Shares) {
        let _ = self.shares.set(shares);
    }

    fn shares(&self) -> Vec<Share> {
        let Some(shares) = self.shares.get() else { return Vec::new() };
        shares.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// This one first, then those that own, and then whoever only stands by.
    pub fn seen(&self) -> Vec<NodeSeen> {
        let neighbours: Option<&Neighbours> = self.journal.neighbours();
        let (shares, own) = (self.shares(), self.journal.epoch().0);
        let this = NodeSeen {
            id: self.journal.node_id(),
            address: neighbours.and_then(|neighbours| neighbours.address.clone()),
            session: Some(own),
            may_own: true,
            shards: shares.iter().find(|share| share.session == own).map_or(SHARDS, |share| share.shards),
            loaded: Some(self.directory.loaded_here()),
            silent_ms: 0,
        };
        let standbys = self.journal.standbys();
        let silent_ms = |node: &[u8]| {
            standbys.iter().find(|standby| standby.node == node).map_or(0, |standby| standby.silent_ms)
        };
        let owners = shares.iter().filter(|share| share.session != own).map(|share| NodeSeen {
            id: share.node.clone().try_into().ok(),
            address: share.address.clone(),
            session: Some(share.session),
            may_own: true,
            shards: share.shards,
            loaded: share
                .address
                .clone()
                .map(|address| self.directory.loaded_by(&NodeName { session: share.session, address })),
            silent_ms: silent_ms(&share.node),
        });
        let has_session = |node: &[u8]| shares.iter().any(|share| share.node == node);
        let others = standbys.iter().filter(|standby| !has_session(&standby.node)).map(|standby| NodeSeen {
            id: standby.node.clone().try_into().ok(),
            address: standby.address.clone(),
            session: None,
            may_own: standby.may_own,
            shards: 0,
            loaded: None,
            silent_ms: standby.silent_ms,
        });
        std::iter::once(this).chain(owners).chain(others).collect()
    }
}
