//! What travels between nodes about stock, and the seam to whatever carries it.
//!
//! Always true: a question is about one product or one order, so it has one owner; whoever answers looks whether he is the one, and
//! whether he follows the same lead, before he does anything of it.

use std::future::Future;
use std::pin::Pin;

use serde::{Deserialize, Serialize};

use super::answer::{Reply, View};
use super::protocol::Ask;
use crate::domain::id::{OrderId, ProductId};
use crate::domain::stock::{Command, OrderView};

/// The most that is asked in one question.
pub const ASKS_MAX: usize = 256;
/// The most bytes of one question; a single ask that is larger travels alone.
pub const QUESTION_BYTES_MAX: usize = 48 * 1024;
/// What an ask takes at most on its way, without what has no size of its own.
const ASK_BYTES: usize = 128;
/// The same of one line of an order that is born.
const LINE_BYTES: usize = 64;

/// A node, as long as its session lasts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeName {
    pub session: u64,
    /// `HOST:PORT`, where it answers nodes.
    pub address: String,
}

/// Where the owners of a shard are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// In this process.
    Here,
    Away(std::sync::Arc<NodeName>),
    /// Nowhere at the moment: questions wait.
    Moving,
}

/// What one node asks another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The session of the lead that it comes from, or goes to.
    pub lead: u64,
    /// It grows with each question of a node. One that was long on its way is not begun after a later one about the same product.
    pub number: u64,
    pub pace: Pace,
    pub about: About,
}

/// What the lead knows of how far the tables are behind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// How long a journal waits before each group, in microseconds.
    pub brake_us: u64,
    /// No new holds.
    pub lagging: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum About {
    /// For the product's owner, in this order.
    Product { product: ProductId, asks: Vec<Ask> },
    /// For the owners that are loaded, of one product or of the order's shard: what they know of an order.
    Order { order: OrderId, at: Option<ProductId> },
}

impl About {
    /// The shard it belongs to.
    pub fn shard(&self) -> u16 {
        match self {
            About::Product { product, .. } | About::Order { at: Some(product), .. } => product.shard(),
            About::Order { order, at: None } => order.shard(),
        }
    }
}

/// What the other node says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Said {
    /// A reply to each, in their order, and what the product's owner shows.
    Product { replies: Vec<Reply>, view: Option<View> },
    /// As the order's home sees it, or as the product does that was asked for.
    Order(Option<Box<OrderView>>),
}

/// Why there is no answer of another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAsked {
    #[error("certainly nothing was done: it was not sent")]
    NotSent,
    #[error("certainly nothing was done: it was refused")]
    Refused,
    #[error("certainly nothing was done: the owner is elsewhere")]
    Elsewhere,
    #[error("it may have been done: the answer is lost")]
    Unknown,
}

/// An answer that is waited for on the thread that asked.
pub type Asking = Pin<Box<dyn Future<Output = Result<Said, NotAsked>>>>;

/// The way to other nodes.
pub trait Abroad: Send + Sync + 'static {
    /// Asks that node. What one thread asks of one node leaves in the order of the calls, each at its first poll, and arrives in that order or not at all.
    fn ask(&self, node: &NodeName, question: Question) -> Asking;

    /// Whether a question of this thread to that node would leave now, and not be told to wait for the connection.
    fn reaches(&self, node: &NodeName) -> bool;

    /// Whether this thread may ask something once more that this node has refused, or to which its answer was lost. What is asked again
    /// is bounded by what is asked, so each *yes* is for one question.
    fn may_ask_again(&self, node: &NodeName) -> bool;
}

/// How many bytes an ask takes at most on its way.
pub(super) fn weight(ask: &Ask) -> usize {
    ASK_BYTES
        + match ask {
            Ask::Command(Command::Place(place)) => place.lines.len() * LINE_BYTES,
            Ask::Command(Command::Restock(restock)) => restock.reason.len(),
            _ => 0,
        }
}

#[cfg(test)]
mod tests;
