//! Node to node: a request that reached a node which does not lead travels, whole, to the lead, and the whole answer travels back;
//! so do questions about stock to the node that owns it, and a lead's words to those that follow it.
//!
//! One [`Link`] a thread and node carries all of it over one connection: what waits is sent together, so under load many requests
//! share a write, a record and a wake-up. Both sides prove that they know a configured key before either reads a frame ([`PeerKeys`]),
//! and nobody between them reads or changes anything. Always true: whoever asks hears an answer or why there is none
//! ([`Unanswered`]), within his patience, and *not executed* is said only where it is certain.

mod channel;
mod crypt;
mod frame;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz;
mod greeting;
mod keys;
mod link;
mod pipe;
mod serve;
mod share;
mod stream;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;

pub use keys::PeerKeys;
pub use link::Link;
pub use serve::{Greeted, greet, serve};
pub use share::{Share, Shares};

/// The largest body of a request that travels.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// The largest head, of a request or of a reply: method, target and headers, each with a little for its lengths.
pub const HEAD_BYTES_MAX: usize = 128 * 1024;
/// The most headers in one head.
pub const HEADERS_MAX: usize = 256;
/// Nodes that a request may have passed through when it is answered: from where it came in to the lead, and from there to an owner.
pub const HOPS_MAX: u8 = 2;
/// Requests on their way over one connection, waiting to be written or to be answered.
pub const FLIGHT_MAX: usize = 4_096;
/// What all nodes together may have asked for those who shop there and not been answered; when it is so much each has its share of it.
pub const NODES_FLIGHT_MAX: usize = 2 * FLIGHT_MAX;
/// Streams that come over one connection. They are counted by themselves: those who watch keep nobody from buying.
pub const STREAMS_MAX: usize = 4_096;

/// Which listener a request came in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Side {
    Shop,
    Ops,
    /// None: a node asks about stock that is owned elsewhere, or a lead speaks to owners.
    Owners,
}

/// Who asks, as it was found out where his connection came in. Another node has other proxies, and does not judge again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Client {
    pub address: IpAddr,
    /// The caps of an address do not hold for him: he is the machine itself, or a proxy that says of nobody that he asks.
    pub is_exempt: bool,
}

/// A request on its way to the node that answers it.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    /// Path and query.
    pub target: String,
    pub from: Option<Client>,
    pub side: Side,
    /// Nodes it has passed through; nobody answers what has come by more than [`HOPS_MAX`].
    pub hops: u8,
    /// Whom the sender believes to be active.
    pub session: i64,
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Bytes,
    /// What is left until the deadline.
    pub patience: Duration,
}

/// An answer, from whoever decided it.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Body,
}

pub type Pieces = Pin<Box<dyn Stream<Item = Result<Bytes, Cut>>>>;

/// What follows the head. A whole body too large for a frame arrives as a stream.
pub enum Body {
    Whole(Bytes),
    Stream(Pieces),
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Body::Whole(bytes) => write!(f, "Whole({} bytes)", bytes.len()),
            Body::Stream(_) => f.write_str("Stream(…)"),
        }
    }
}

/// A stream of which the end will not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer was cut off in the middle")]
pub struct Cut;

/// That node is not the one to answer it; what it knows of who leads, 0 for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elsewhere {
    pub session: i64,
}

/// Why there is no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// It never left.
    #[error("certainly not executed: it was not sent")]
    NotSent,
    #[error("certainly not executed: it was put aside unread")]
    PutAside,
    /// That node is not the one to answer it; what it knows of who leads, 0 for nothing.
    #[error("certainly not executed: another node is to answer it")]
    Elsewhere { session: i64 },
    #[error("it may have been executed: the connection is lost")]
    Unknown,
    #[error("it may have been executed: no answer came in time")]
    Late,
}

/// What answers on the other side.
pub trait Desk: 'static {
    /// Answers, or says who would. It is run to its end even if whoever asked has gone; a stream that comes of it is not.
    fn answer(&self, request: Request) -> Pin<Box<dyn Future<Output = Result<Reply, Elsewhere>>>>;

    /// What is said at once to whoever came by a node that has its share of what nodes may ask, or all that one connection carries. Nothing
    /// is done of it. The headers are those of his request, or of an answer that finds no room: both have its id.
    fn turn_away(&self, target: &str, headers: &[(String, Vec<u8>)]) -> Reply;
}

/// Why a connection ended, or never was one.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    #[error("no key can be made from the configured one")]
    NoKey,
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    #[error("the other side has closed the connection")]
    Ended,
    #[error("no greeting within two seconds")]
    NoGreeting,
    #[error("the other side knows us, and has no place for another connection")]
    NoPlace,
    #[error("the other side shares no key with us, or speaks another version")]
    WrongKey,
    #[error("a record is damaged, or was not made for this place")]
    Damaged,
    #[error("a frame means nothing: {0}")]
    Malformed(&'static str),
    #[error("a frame of {bytes} bytes is larger than any may be")]
    TooLarge { bytes: usize },
    #[error("the other side has said nothing for three seconds, or takes nothing")]
    Silent,
}
