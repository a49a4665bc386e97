//! Who is up, and who owns what: this node, which is the active one, and those that stand by.
//!
//! It owns nothing; the journal's home knows who stands by. Always true: what is told of another node is at most as old as it says.

use crate::domain::id::SHARDS;
use crate::persistence::journal::{Journal, Neighbours};

use super::stock::Directory;

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

/// Reads it. Cheap to clone.
#[derive(Clone)]
pub struct Nodes {
    journal: Journal,
    directory: Directory,
}

impl Nodes {
    pub fn new(journal: Journal, directory: Directory) -> Nodes {
        Nodes { journal, directory }
    }

    /// This one first.
    pub fn seen(&self) -> Vec<NodeSeen> {
        let neighbours: Option<&Neighbours> = self.journal.neighbours();
        let this = NodeSeen {
            id: self.journal.node_id(),
            address: neighbours.and_then(|neighbours| neighbours.address.clone()),
            session: Some(self.journal.epoch().0),
            may_own: true,
            shards: SHARDS,
            loaded: Some(self.directory.loaded_count()),
            silent_ms: 0,
        };
        let others = self.journal.standbys().into_iter().map(|standby| NodeSeen {
            id: standby.node.try_into().ok(),
            address: standby.address,
            session: None,
            may_own: standby.may_own,
            shards: 0,
            loaded: None,
            silent_ms: standby.silent_ms,
        });
        std::iter::once(this).chain(others).collect()
    }
}
