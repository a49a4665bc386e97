//! Who is up, and who owns what: this node, which leads, and all others.
//!
//! It owns nothing but the list of what is hot, as it was told last; the journal's home knows who else is there. Always true: what is
//! told of another node is at most as old as it says.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::domain::id::{ProductId, SHARDS};
use crate::persistence::journal::{Journal, Neighbours};

use super::stock::{Directory, HOT_PRODUCTS_MAX};

/// What a node does for the shop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeRole {
    /// It answers what is asked anywhere, and says who owns what.
    Lead,
    /// It may own products, and lead when the lead has gone.
    Owner,
    /// It takes requests.
    Gateway,
}

/// One node as this one sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSeen {
    /// Random, one a start; `None`: a shop in files has one node only.
    pub id: Option<[u8; 16]>,
    pub role: NodeRole,
    /// Where other nodes reach it.
    pub address: Option<String>,
    /// The number of its session, while it may write what is sold.
    pub session: Option<u64>,
    pub may_own: bool,
    /// How many of the [`SHARDS`] it owns.
    pub shards: u16,
    /// Products whose owners are in its memory, where that is known.
    pub loaded: Option<usize>,
    /// Those of the shop's hot products that it owns, in order of their ids; at most [`HOT_PRODUCTS_MAX`].
    pub hot: Vec<ProductId>,
    /// How long ago it was seen to be there.
    pub silent_ms: u64,
}

/// Reads it. Cheap to clone.
#[derive(Clone)]
pub struct Nodes {
    journal: Journal,
    directory: Directory,
    hot: Arc<ArcSwap<Vec<ProductId>>>,
}

impl Nodes {
    pub fn new(journal: Journal, directory: Directory) -> Nodes {
        Nodes { journal, directory, hot: Arc::default() }
    }

    /// These of this node's products are hot from now on.
    pub fn heard_hot(&self, mut hot: Vec<ProductId>) {
        hot.sort_unstable();
        hot.truncate(HOT_PRODUCTS_MAX);
        self.hot.store(Arc::new(hot));
    }

    /// This one first.
    pub fn seen(&self) -> Vec<NodeSeen> {
        let neighbours: Option<&Neighbours> = self.journal.neighbours();
        let this = NodeSeen {
            id: self.journal.node_id(),
            role: NodeRole::Lead,
            address: neighbours.and_then(|neighbours| neighbours.address.clone()),
            session: Some(self.journal.epoch().0),
            may_own: true,
            shards: SHARDS,
            loaded: Some(self.directory.loaded_count()),
            hot: Vec::clone(&self.hot.load()),
            silent_ms: 0,
        };
        let others = self.journal.standbys().into_iter().map(|standby| NodeSeen {
            id: standby.node.try_into().ok(),
            role: if standby.may_own { NodeRole::Owner } else { NodeRole::Gateway },
            address: standby.address,
            session: None,
            may_own: standby.may_own,
            shards: 0,
            loaded: None,
            hot: Vec::new(),
            silent_ms: standby.silent_ms,
        });
        std::iter::once(this).chain(others).collect()
    }
}
