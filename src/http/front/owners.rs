//! What nodes ask each other about stock: the desk that answers them. Nobody comes here by HTTP.
//!
//! Always true: a body that cannot be read is refused and nothing is done of it; what is for another session than ours, or comes from
//! a lead that is not followed, is refused too.

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::rt::time::sleep;
use actix_web::web::Bytes;
use futures_util::future::LocalBoxFuture;
use futures_util::stream;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::actors::following::Word;
use crate::actors::stock::{Directory, NotAsked, Published, Question, View};
use crate::domain::id::{ProductId, SHARDS};
use crate::http::request::{X_REQUEST_ID, is_sane};
use crate::logs::{Mark, TRACEPARENT, Trace, carried_for};
use crate::peer::{self, Body, Cut, Elsewhere, Reply};

/// What is asked, as a path would name it.
pub(super) const ASK: &str = "ask";
pub(super) const VIEWS: &str = "views";
pub(super) const LEAD: &str = "lead";
pub(super) const LET_GO: &str = "let-go";

/// How often what was published is told.
const VIEWS_EVERY: Duration = Duration::from_millis(20);
/// Views that are told in one piece.
const VIEWS_MAX: usize = 256;

/// Shards that a lead takes away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LetGo {
    pub word: Word,
    pub shards: Vec<u16>,
}

/// Some views, each with its product's name.
pub(super) type Views = Vec<(ProductId, View)>;

/// It was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotFollowed {
    /// As far as this node can see, the lead is another.
    #[error("the lead is another")]
    AnotherLeads,
    #[error("it cannot be done at the moment")]
    Unable,
}

/// Who does at this node what a lead says.
pub trait Follower: Send + Sync + 'static {
    /// Who speaks is the lead now: looks whether that is so, follows it, and has the owners here that it is to have.
    fn lead(&self, word: Word) -> LocalBoxFuture<'static, Result<(), NotFollowed>>;
    /// Lets go of these shards, and returns once everything of their owners is written.
    fn let_go(&self, word: Word, shards: Vec<u16>) -> LocalBoxFuture<'static, Result<(), NotFollowed>>;
}

/// The desk of a node that may own. Its [`Directory`] is one among others.
pub struct Owners {
    directory: Directory,
    follower: Arc<dyn Follower>,
    /// The number of the last stream of views: one listens at a time, whoever came last.
    listener: Mutex<u64>,
}

impl Owners {
    pub fn new(directory: Directory, follower: Arc<dyn Follower>) -> Owners {
        Owners { directory, follower, listener: Mutex::default() }
    }

    fn lead(&self) -> u64 {
        self.directory.routes().map_or(0, |routes| routes.lead())
    }

    fn listener(&self) -> MutexGuard<'_, u64> {
        self.listener.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn elsewhere(&self) -> Elsewhere {
        Elsewhere { session: self.lead().cast_signed() }
    }

    /// At its first poll whatever is for owners is with them.
    pub async fn answer(self: Arc<Owners>, request: peer::Request) -> Result<Reply, Elsewhere> {
        let ours = self.directory.routes().map(|routes| routes.session());
        if ours != Some(request.session.cast_unsigned()) {
            return Err(self.elsewhere());
        }
        match request.target.as_str() {
            // What is said here of it bears the name that it has where it came in.
            ASK => carried_for(mark(&request.headers), self.asked(&request.body)).await,
            VIEWS => self.views(&request.body),
            LEAD => match read(&request.body) {
                Some(word) => self.told(self.follower.lead(word).await),
                None => Ok(unreadable()),
            },
            LET_GO => match read::<LetGo>(&request.body) {
                Some(LetGo { shards, .. }) if shards.iter().any(|shard| *shard >= SHARDS) => Ok(unreadable()),
                Some(LetGo { word, .. }) if word.lead != self.lead() => Err(self.elsewhere()),
                Some(LetGo { word, shards }) => self.told(self.follower.let_go(word, shards).await),
                None => Ok(unreadable()),
            },
            _ => Ok(unreadable()),
        }
    }

    async fn asked(&self, body: &[u8]) -> Result<Reply, Elsewhere> {
        let Some(question) = read::<Question>(body) else { return Ok(unreadable()) };
        match self.directory.answer(question).await {
            Ok(said) => Ok(written(&said)),
            Err(NotAsked::Elsewhere) => Err(self.elsewhere()),
            Err(NotAsked::NotSent | NotAsked::Refused | NotAsked::Unknown) => {
                Ok(only(StatusCode::SERVICE_UNAVAILABLE))
            }
        }
    }

    fn told(&self, done: Result<(), NotFollowed>) -> Result<Reply, Elsewhere> {
        match done {
            Ok(()) => Ok(only(StatusCode::OK)),
            Err(NotFollowed::AnotherLeads) => Err(self.elsewhere()),
            Err(NotFollowed::Unable) => Ok(only(StatusCode::SERVICE_UNAVAILABLE)),
        }
    }

    /// All that the owners here show, and from then on what they publish, until another lead is followed.
    fn views(self: Arc<Owners>, body: &[u8]) -> Result<Reply, Elsewhere> {
        let Some(lead) = read::<u64>(body) else { return Ok(unreadable()) };
        if lead != self.lead() {
            return Err(self.elsewhere());
        }
        let number = {
            let mut listener = self.listener();
            *listener += 1;
            *listener
        };
        let telling = Telling { owners: self, lead, number, waiting: Vec::new(), whole: false, told: false };
        let pieces = stream::unfold(Some(telling), |telling| async {
            let mut telling = telling?;
            match telling.next().await {
                Some(piece) => Some((Ok(piece), Some(telling))),
                None => Some((Err(Cut), None)),
            }
        });
        Ok(Reply {
            status: StatusCode::OK.as_u16(),
            headers: Vec::new(),
            body: Body::Stream(Box::pin(pieces)),
        })
    }
}

/// A lead that is told views.
struct Telling {
    owners: Arc<Owners>,
    lead: u64,
    number: u64,
    waiting: Vec<Published>,
    /// Everything has been told once.
    whole: bool,
    /// It was looked for what is new, and that there is no more has not been told.
    told: bool,
}

impl Telling {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.owners.lead() != self.lead {
                return None;
            }
            let views = self.some();
            // That there are none is news as well: whoever listens is up to date.
            if !views.is_empty() || std::mem::take(&mut self.told) {
                return framed(&views);
            }
            if self.whole {
                sleep(VIEWS_EVERY).await;
            }
            self.told = true;
            let (listener, directory) = (self.owners.listener(), &self.owners.directory);
            if *listener != self.number {
                return None;
            }
            // What is taken here nobody else hears of: all of it is for whoever listens.
            let each = directory.house().changes.take(&mut self.waiting);
            if !each || !self.whole {
                self.waiting = directory.published();
            }
            self.whole = true;
        }
    }

    fn some(&mut self) -> Views {
        let routes = self.owners.directory.routes();
        let is_here = |product: ProductId| routes.is_some_and(|routes| routes.is_here(product.shard()));
        let mut views = Vec::new();
        while views.len() < VIEWS_MAX
            && let Some(published) = self.waiting.pop()
        {
            // Taken in any case, so that it is told again when it is published again.
            let view = published.take();
            if let Some(view) = view.filter(|_| is_here(published.product())) {
                views.push((published.product(), View::clone(&view)));
            }
        }
        views
    }
}

/// A length (u32, little-endian) and so many bytes.
fn framed(views: &Views) -> Option<Bytes> {
    let mut out = vec![0; LENGTH_BYTES];
    postcard::to_io(views, &mut out).ok()?;
    let length = u32::try_from(out.len() - LENGTH_BYTES).ok()?;
    out[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
    Some(out.into())
}

const LENGTH_BYTES: usize = 4;
/// No piece of views is as large.
const FRAME_BYTES_MAX: usize = 256 * 1024;

/// What has come of a stream of views, which is cut anywhere.
#[derive(Default)]
pub(super) struct Unframed(Vec<u8>);

/// Nobody sends that.
#[derive(Debug)]
pub(super) struct Unreadable;

impl Unframed {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The views that have come whole.
    pub(super) fn next(&mut self) -> Result<Option<Views>, Unreadable> {
        let Some((length, behind)) = self.0.split_first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| Unreadable)?;
        if length > FRAME_BYTES_MAX {
            return Err(Unreadable);
        }
        let Some((frame, _)) = behind.split_at_checked(length) else { return Ok(None) };
        let views = read(frame).ok_or(Unreadable)?;
        self.0.drain(..LENGTH_BYTES + length);
        Ok(Some(views))
    }
}

/// The request that is asked for. A name that makes no sense is none, and older nodes send none.
fn mark(headers: &[(String, Vec<u8>)]) -> Option<Mark> {
    let said = |name: HeaderName| {
        let found = headers.iter().find(|(known, _)| name == *known.as_str());
        found.map(|(_, value)| value.as_slice())
    };
    let id = said(X_REQUEST_ID).filter(|id| is_sane(id))?;
    Some(Mark {
        request_id: HeaderValue::from_bytes(id).ok()?,
        trace: said(TRACEPARENT).and_then(Trace::read),
    })
}

/// All of it, or nothing.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    postcard::take_from_bytes(body).ok().filter(|(_, rest)| rest.is_empty()).map(|(read, _)| read)
}

pub(super) fn body_of(said: &impl Serialize) -> Option<Bytes> {
    postcard::to_stdvec(said).ok().map(Bytes::from)
}

fn written(said: &impl Serialize) -> Reply {
    match body_of(said) {
        Some(body) => Reply { status: StatusCode::OK.as_u16(), headers: Vec::new(), body: Body::Whole(body) },
        None => only(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

fn only(status: StatusCode) -> Reply {
    Reply { status: status.as_u16(), headers: Vec::new(), body: Body::Whole(Bytes::new()) }
}

fn unreadable() -> Reply {
    only(StatusCode::BAD_REQUEST)
}
