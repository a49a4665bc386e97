//! Who is up, and who owns what: this node, which leads, and all others.
//!
//! It owns nothing but the list of what is hot, as it was told last; the journal's home knows who else is there. Always true: what is
//! told of another node is at most as old as it says.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::placement::Share;
use super::stock::{Directory, HOT_PRODUCTS_MAX, NodeName, Route};
use crate::domain::id::{ProductId, SHARDS};
use crate::persistence::journal::{Journal, Neighbours};

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

/// What each node owns, once somebody places it.
pub type Shares = Arc<ArcSwap<Vec<Share>>>;

/// Products that many ask for at the moment.
pub type Hot = Arc<ArcSwap<Vec<ProductId>>>;

/// Reads it. Cheap to clone.
#[derive(Clone)]
pub struct Nodes {
    journal: Journal,
    directory: Directory,
    shares: Shares,
    hot: Hot,
}

impl Nodes {
    pub fn new(journal: Journal, directory: Directory) -> Nodes {
        Nodes { journal, directory, shares: Arc::default(), hot: Arc::default() }
    }

    /// These of the shop's products are hot from now on.
    pub fn heard_hot(&self, mut hot: Vec<ProductId>) {
        hot.sort_unstable();
        hot.truncate(HOT_PRODUCTS_MAX);
        self.hot.store(Arc::new(hot));
    }

    /// For whoever places them.
    pub fn shares(&self) -> Shares {
        self.shares.clone()
    }

    pub fn hot(&self) -> Hot {
        self.hot.clone()
    }

    /// Those of the hot products that a node owns; `None`: this one.
    fn hot_of(&self, session: Option<u64>) -> Vec<ProductId> {
        let is_its = |product: &ProductId| match self.directory.routes() {
            None => session.is_none(),
            Some(routes) => match (&*routes.of(product.shard()), session) {
                (Route::Here, None) => true,
                (Route::Away(node), Some(session)) => node.session == session,
                _ => false,
            },
        };
        self.hot.load().iter().copied().filter(is_its).collect()
    }

    /// This one first, then those that own, and then whoever only stands by.
    pub fn seen(&self) -> Vec<NodeSeen> {
        let neighbours: Option<&Neighbours> = self.journal.neighbours();
        let (shares, own) = (self.shares.load(), self.journal.epoch().0);
        let this = NodeSeen {
            id: self.journal.node_id(),
            role: NodeRole::Lead,
            address: neighbours.and_then(|neighbours| neighbours.address.clone()),
            session: Some(own),
            may_own: true,
            shards: shares.iter().find(|share| share.session == own).map_or(SHARDS, |share| share.shards),
            loaded: Some(self.directory.loaded_here()),
            hot: self.hot_of(None),
            silent_ms: 0,
        };
        let standbys = self.journal.standbys();
        let owners = shares.iter().filter(|share| share.session != own).map(|share| NodeSeen {
            id: share.node.clone().try_into().ok(),
            role: NodeRole::Owner,
            address: share.address.clone(),
            session: Some(share.session),
            may_own: true,
            shards: share.shards,
            loaded: share
                .address
                .clone()
                .map(|address| self.directory.loaded_by(&NodeName { session: share.session, address })),
            hot: self.hot_of(Some(share.session)),
            silent_ms: self.journal.silent_ms(&share.node).unwrap_or(0),
        });
        let has_session = |node: &[u8]| shares.iter().any(|share| share.node == node);
        let others = standbys.iter().filter(|standby| !has_session(&standby.node)).map(|standby| NodeSeen {
            id: standby.node.clone().try_into().ok(),
            role: if standby.may_own { NodeRole::Owner } else { NodeRole::Gateway },
            address: standby.address.clone(),
            session: None,
            may_own: standby.may_own,
            shards: 0,
            loaded: None,
            hot: Vec::new(),
            silent_ms: standby.silent_ms,
        });
        std::iter::once(this).chain(owners).chain(others).collect()
    }
}
