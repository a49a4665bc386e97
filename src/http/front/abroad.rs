//! The asking side: questions about stock, and a lead's words, on their way to other nodes.
//!
//! One connection a thread and node, which is made anew while it is used. Always true: what leaves one thread for one node leaves in
//! the order in which it was asked, or not at all; and no node is asked again more often than its [`Retries`] say.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use actix_web::web::Bytes;
use futures_util::StreamExt;
use tokio::time::timeout;

use super::lately::Lately;
use super::owners::{ASK, LEAD, LET_GO, LetGo, Unframed, VIEWS, body_of, read};
use super::retries::Retries;
use crate::actors::following::Word;
use crate::actors::stock::{Abroad, Asking, Directory, NodeName, NotAsked, Question};
use crate::clock::Clock;
use crate::http::request::X_REQUEST_ID;
use crate::logs::{self, Mark, TRACEPARENT, Trace};
use crate::peer::{self, Body, Link, PeerKeys, Reply, Unanswered};

/// How long an owner may take for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long a node may take to let go, or to follow.
const OBEY_WITHIN: Duration = Duration::from_secs(30);
/// How long a lead waits for a connection before it says that there is none.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// The largest answer: one to each of as many asks as travel together, with all lines of the largest order.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

thread_local! {
    static KEPT: RefCell<Lately<Kept>> = RefCell::default();
}

#[derive(Clone)]
struct Kept {
    link: Link,
    retries: Rc<Retries>,
}

/// The way to other nodes that know our key. Cheap to clone.
#[derive(Clone)]
pub struct Ways {
    keys: PeerKeys,
    clock: Clock,
}

impl Ways {
    pub fn new(keys: PeerKeys, clock: Clock) -> Ways {
        Ways { keys, clock }
    }

    /// What this thread has of a node: its connection, which is given up when nobody uses it, and what may be asked over it again.
    fn kept(&self, node: &NodeName) -> Kept {
        let make = || {
            let link = Link::to(node.address.clone(), self.keys.clone());
            Kept { link, retries: Rc::default() }
        };
        KEPT.with_borrow_mut(|kept| kept.of(&node.address, self.clock.nanos(), make))
    }

    /// This thread's connection to a node.
    fn link(&self, node: &NodeName) -> Link {
        self.kept(node).link
    }

    /// Tells a node who leads, and returns when it follows. On a thread that serves.
    pub async fn lead(&self, node: &NodeName, word: Word) -> Result<(), NotAsked> {
        self.order(node, LEAD, body_of(&word)).await
    }

    /// Has a node let go of shards, and returns when everything of their owners is written. On a thread that serves.
    pub async fn let_go(&self, node: &NodeName, word: Word, shards: Vec<u16>) -> Result<(), NotAsked> {
        self.order(node, LET_GO, body_of(&LetGo { word, shards })).await
    }

    async fn order(
        &self,
        node: &NodeName,
        target: &'static str,
        body: Option<Bytes>,
    ) -> Result<(), NotAsked> {
        let link = self.link(node);
        timeout(CONNECT_WITHIN, link.comes_up()).await.map_err(|_| NotAsked::NotSent)?;
        let request = request(node, target, body.ok_or(NotAsked::NotSent)?, OBEY_WITHIN);
        let reply = link.ask(request).await.map_err(not_asked)?;
        done(&reply)
    }

    /// Has `directory` show what the owners on a node publish, until the connection is lost or that node follows another lead. On a
    /// thread that serves.
    pub async fn views(&self, directory: &Directory, node: &NodeName, lead: u64) -> NotAsked {
        match self.shown(directory, node, lead).await {
            Ok(()) => NotAsked::Unknown,
            Err(why) => why,
        }
    }

    async fn shown(&self, directory: &Directory, node: &NodeName, lead: u64) -> Result<(), NotAsked> {
        let link = self.link(node);
        timeout(CONNECT_WITHIN, link.comes_up()).await.map_err(|_| NotAsked::NotSent)?;
        let body = body_of(&lead).ok_or(NotAsked::NotSent)?;
        let reply = link.ask(request(node, VIEWS, body, ANSWER_WITHIN)).await.map_err(not_asked)?;
        done(&reply)?;
        let Body::Stream(mut pieces) = reply.body else { return Err(NotAsked::Unknown) };
        let mut come = Unframed::default();
        while let Some(Ok(piece)) = pieces.next().await {
            come.push(&piece);
            while let Some(views) = come.next().map_err(|_| NotAsked::Unknown)? {
                let is_all = views.is_empty();
                for (product, view) in views {
                    directory.show(product, view, node);
                }
                if is_all {
                    directory.heard(node);
                }
            }
        }
        Ok(())
    }
}

impl Abroad for Ways {
    fn ask(&self, node: &NodeName, question: Question) -> Asking {
        let (Kept { link, retries }, node, headers) = (self.kept(node), node.clone(), marked());
        Box::pin(async move {
            // Waiting for the connection is for whoever keeps the order of what waits.
            if !link.is_up() {
                return Err(NotAsked::NotSent);
            }
            let body = body_of(&question).ok_or(NotAsked::NotSent)?;
            let request = peer::Request { headers, ..request(&node, ASK, body, ANSWER_WITHIN) };
            let heard = link.ask(request).await;
            retries.heard(&heard);
            let reply = heard.map_err(not_asked)?;
            done(&reply)?;
            read(&whole(reply.body).await?).ok_or(NotAsked::Unknown)
        })
    }

    fn reaches(&self, node: &NodeName) -> bool {
        self.link(node).is_up()
    }

    fn may_ask_again(&self, node: &NodeName) -> bool {
        self.kept(node).retries.take(&self.clock)
    }
}

/// What the request that is being worked on is called. A node that does not know of it passes it by.
pub(super) fn marked() -> Vec<(String, Vec<u8>)> {
    let Some(Mark { request_id, trace }) = logs::current() else { return Vec::new() };
    let trace = trace.and_then(Trace::handed_on);
    let named = [(X_REQUEST_ID, Some(request_id)), (TRACEPARENT, trace)];
    let named = named.into_iter().filter_map(|(name, value)| Some((name, value?)));
    named.map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect()
}

fn request(node: &NodeName, target: &str, body: Bytes, patience: Duration) -> peer::Request {
    peer::Request {
        method: "POST".to_owned(),
        target: target.to_owned(),
        from: None,
        side: peer::Side::Owners,
        hops: 1,
        session: node.session.cast_signed(),
        headers: Vec::new(),
        body,
        patience,
    }
}

fn not_asked(why: Unanswered) -> NotAsked {
    match why {
        Unanswered::NotSent => NotAsked::NotSent,
        Unanswered::PutAside => NotAsked::Refused,
        Unanswered::Elsewhere { .. } => NotAsked::Elsewhere,
        Unanswered::Unknown | Unanswered::Late => NotAsked::Unknown,
    }
}

/// Whoever refuses has done nothing.
fn done(reply: &Reply) -> Result<(), NotAsked> {
    match reply.status {
        200 => Ok(()),
        _ => Err(NotAsked::Refused),
    }
}

async fn whole(body: Body) -> Result<Bytes, NotAsked> {
    let mut pieces = match body {
        Body::Whole(bytes) => return Ok(bytes),
        Body::Stream(pieces) => pieces,
    };
    let mut all = Vec::new();
    while let Some(piece) = pieces.next().await {
        all.extend_from_slice(&piece.map_err(|_| NotAsked::Unknown)?);
        if all.len() > ANSWER_BYTES_MAX {
            return Err(NotAsked::Unknown);
        }
    }
    Ok(all.into())
}
