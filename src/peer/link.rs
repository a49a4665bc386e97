//! The asking side: one connection of one thread to one node, and everybody who waits for an answer over it.
//!
//! Always true: a number is in `waiting` as long as somebody waits for it, and in `queue` as long as its request has not been handed
//! to the socket; up to there *not sent* is certain, from there on it is not. The connection is made anew for as long as there is a
//! [`Link`].

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::channel::Channel;
use super::frame::{Ask, Block, Frame, Headers, head_fits};
use super::greeting;
use super::pipe::{self, BATCH_BYTES};
use super::stream::{Counted, Inbox, Incoming};
use super::{BODY_BYTES_MAX, Body, FLIGHT_MAX, PeerError, PeerKeys, Reply, Request, Unanswered};

/// Pauses between two attempts to connect: they double, and chance shortens each by up to a half.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Bytes of requests that wait to be written.
const QUEUED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long a name may take to be found, and then, with all its addresses together, to be connected with.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);

impl Request {
    /// Whether it is small enough to travel.
    pub fn fits(&self) -> bool {
        self.body.len() <= BODY_BYTES_MAX && head_fits(self.method.len() + self.target.len(), &self.headers)
    }

    /// Whether it only looks, and nothing is done of it.
    pub fn is_look(&self) -> bool {
        matches!(self.method.as_str(), "GET" | "HEAD")
    }
}

/// A connection to one node, of one thread. Cheap to clone; ends with the last clone and the last stream that came over it.
#[derive(Clone)]
pub struct Link(Rc<Held>);

struct Held {
    side: Rc<Asking>,
    task: JoinHandle<()>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Link {
    /// Connects with `HOST:PORT`, now and whenever the connection is lost; the name is looked up anew each time.
    pub fn to(place: String, keys: PeerKeys) -> Link {
        let side = Rc::new(Asking::default());
        let task = tokio::task::spawn_local(keep(side.clone(), place, keys));
        Link(Rc::new(Held { side, task }))
    }

    /// Waits while the connection is being made, for no longer than the patience. What is too large to travel is not sent.
    pub async fn ask(&self, request: Request) -> Result<Reply, Unanswered> {
        let mut patience = pin!(sleep(request.patience));
        let (place, mut answer) = self.line_up(request, patience.deadline())?;
        let heard = tokio::select! {
            biased;
            heard = &mut answer => heard.unwrap_or(Err(Unanswered::Unknown))?,
            () = &mut patience => return Err(place.leave().unwrap_or(Unanswered::Unknown)),
        };
        let (status, headers, body) = match heard {
            Heard::Whole { status, headers, body } => (status, headers, Body::Whole(body)),
            Heard::Head { status, headers, inbox } => {
                (status, headers, Body::Stream(Box::pin(Incoming { inbox, place })))
            }
        };
        Ok(Reply { status, headers, body })
    }

    pub fn is_up(&self) -> bool {
        self.0.side.up.get()
    }

    /// Returns once the connection stands, and the other side reads what comes.
    pub async fn comes_up(&self) {
        loop {
            let came = self.0.side.came_up.notified();
            if self.is_up() {
                return;
            }
            came.await;
        }
    }

    fn line_up(
        &self,
        request: Request,
        until: Instant,
    ) -> Result<(Place, oneshot::Receiver<Answer>), Unanswered> {
        let side = &self.0.side;
        let mut waiting = side.waiting.borrow_mut();
        let bytes = side.queued_bytes.get() + weight(&request);
        let full = waiting.len().saturating_sub(side.streams.get()) >= FLIGHT_MAX || bytes > QUEUED_BYTES_MAX;
        if !request.fits() || full || request.patience.is_zero() {
            return Err(Unanswered::NotSent);
        }
        let id = side.last.get() + 1;
        side.last.set(id);
        let (answer, answered) = oneshot::channel();
        waiting.insert(id, Waiting::Queued(answer));
        side.queued_bytes.set(bytes);
        side.queue.borrow_mut().push_back(Queued { id, until, request });
        side.wake.notify_one();
        Ok((Place { id, link: self.clone() }, answered))
    }
}

/// Somebody's place among those who wait; whoever goes, leaves it.
pub(super) struct Place {
    id: u64,
    link: Link,
}

impl Place {
    /// What is certain about the request of whoever leaves now; `None` if he was answered.
    fn leave(&self) -> Option<Unanswered> {
        let side = &self.link.0.side;
        let left = side.waiting.borrow_mut().remove(&self.id)?;
        if let Waiting::Queued(_) = left {
            let mut queue = side.queue.borrow_mut();
            if let Ok(at) = queue.binary_search_by_key(&self.id, |queued| queued.id) {
                let gone = queue.remove(at).map_or(0, |queued| weight(&queued.request));
                side.queued_bytes.set(side.queued_bytes.get().saturating_sub(gone));
            }
            return Some(Unanswered::NotSent);
        }
        side.say(Frame::Leave { id: self.id });
        Some(Unanswered::Late)
    }

    /// Lets more of a stream come.
    pub(super) fn credit(&self, bytes: u32) {
        let side = &self.link.0.side;
        if side.waiting.borrow().contains_key(&self.id) {
            side.say(Frame::Credit { id: self.id, bytes });
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

struct Queued {
    id: u64,
    until: Instant,
    request: Request,
}

type Answer = Result<Heard, Unanswered>;

enum Heard {
    Whole { status: u16, headers: Vec<(String, Vec<u8>)>, body: Bytes },
    Head { status: u16, headers: Vec<(String, Vec<u8>)>, inbox: Rc<Inbox> },
}

/// How far a request has come.
enum Waiting {
    Queued(oneshot::Sender<Answer>),
    /// Handed to the socket.
    Sent(oneshot::Sender<Answer>),
    Streaming {
        inbox: Rc<Inbox>,
        _counted: Counted,
    },
}

#[derive(Default)]
struct Asking {
    up: Cell<bool>,
    /// Rung when it has become so.
    came_up: Notify,
    /// The last number that was given.
    last: Cell<u64>,
    waiting: RefCell<HashMap<u64, Waiting>>,
    /// How many of those are streams.
    streams: Rc<Cell<usize>>,
    /// In the order of their numbers.
    queue: RefCell<VecDeque<Queued>>,
    queued_bytes: Cell<usize>,
    /// `Leave` and `Credit`. Bounded by those who wait: each leaves once, and gives credit for what it was sent.
    notes: RefCell<VecDeque<Frame<'static>>>,
    wake: Notify,
}

impl pipe::Side for Asking {
    fn waker(&self) -> &Notify {
        &self.wake
    }

    fn fill(&self, batch: &mut Vec<u8>) -> Result<(), PeerError> {
        let notes = self.notes.borrow_mut().drain(..).try_for_each(|note| note.encode(batch));
        notes?;
        let mut queue = self.queue.borrow_mut();
        if queue.is_empty() {
            return Ok(());
        }
        let (now, mut waiting) = (pipe::now(), self.waiting.borrow_mut());
        while batch.len() < BATCH_BYTES
            && let Some(Queued { id, until, request }) = queue.pop_front()
        {
            self.queued_bytes.set(self.queued_bytes.get().saturating_sub(weight(&request)));
            let Some(Waiting::Queued(answer)) = waiting.remove(&id) else { continue };
            let patience = until.saturating_duration_since(now);
            if patience.is_zero() || encode(id, &request, patience, batch).is_err() {
                // Whoever does not listen any more does not mind.
                let _ = answer.send(Err(Unanswered::NotSent));
                continue;
            }
            waiting.insert(id, Waiting::Sent(answer));
        }
        Ok(())
    }

    fn take(&self, frame: Frame<'_>) -> Result<(), PeerError> {
        match frame {
            Frame::Here => Ok(()),
            Frame::Whole { id, status, headers, body } => {
                let body = Bytes::copy_from_slice(body.0);
                self.answer(id, Ok(Heard::Whole { status, headers: headers.0.into_owned(), body }))
            }
            Frame::Head { id, status, headers } => {
                let inbox = Rc::new(Inbox::new());
                let head = Heard::Head { status, headers: headers.0.into_owned(), inbox: inbox.clone() };
                let answer = match self.waiting.borrow_mut().entry(id) {
                    Entry::Occupied(mut place) if matches!(place.get(), Waiting::Sent(_)) => {
                        place.insert(Waiting::Streaming { inbox, _counted: Counted::among(&self.streams) })
                    }
                    _ => return self.known(id),
                };
                if let Waiting::Sent(answer) = answer {
                    // If nobody takes it, his place has said so, or will.
                    let _ = answer.send(Ok(head));
                }
                Ok(())
            }
            Frame::Piece { id, bytes } => match self.waiting.borrow().get(&id) {
                Some(Waiting::Streaming { inbox, .. }) => inbox.push(bytes.0),
                _ => self.known(id),
            },
            Frame::End { id } => {
                let ended = self.waiting.borrow_mut().remove(&id);
                match ended {
                    Some(Waiting::Streaming { inbox, .. }) => {
                        inbox.end();
                        Ok(())
                    }
                    Some(_) => Err(PeerError::Malformed("the end of a stream that did not begin")),
                    None => self.known(id),
                }
            }
            Frame::Cut { id } => self.answer(id, Err(Unanswered::Unknown)),
            Frame::Elsewhere { id, session } => self.answer(id, Err(Unanswered::Elsewhere { session })),
            Frame::Dropped { id } => self.answer(id, Err(Unanswered::PutAside)),
            Frame::Ask(_) | Frame::Credit { .. } | Frame::Leave { .. } => {
                Err(PeerError::Malformed("whoever answers does not ask"))
            }
        }
    }

    /// What arrives was asked for: its amount is bounded by those who wait, and by the credit of streams.
    async fn room(&self) {}
}

impl Asking {
    fn say(&self, note: Frame<'static>) {
        self.notes.borrow_mut().push_back(note);
        self.wake.notify_one();
    }

    /// The last word about a request.
    fn answer(&self, id: u64, answer: Answer) -> Result<(), PeerError> {
        let waiting = self.waiting.borrow_mut().remove(&id);
        match (waiting, answer) {
            (Some(Waiting::Sent(to)), answer) => {
                let _ = to.send(answer);
                Ok(())
            }
            (Some(Waiting::Streaming { inbox, .. }), Err(Unanswered::Unknown)) => {
                inbox.cut();
                Ok(())
            }
            (Some(Waiting::Streaming { inbox, .. }), _) => {
                inbox.cut();
                Err(PeerError::Malformed("a second answer to one request"))
            }
            (Some(Waiting::Queued(to)), _) => {
                let _ = to.send(Err(Unanswered::NotSent));
                Err(PeerError::Malformed("an answer to a request that was not sent"))
            }
            (None, _) => self.known(id),
        }
    }

    /// An answer that nobody waits for any more is thrown away; to what was never asked there is none.
    fn known(&self, id: u64) -> Result<(), PeerError> {
        match id <= self.last.get() {
            true => Ok(()),
            false => Err(PeerError::Malformed("an answer to nothing")),
        }
    }

    /// The connection is gone: everybody hears what is certain.
    fn lost(&self) {
        self.up.set(false);
        self.notes.borrow_mut().clear();
        self.queue.borrow_mut().clear();
        self.queued_bytes.set(0);
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        for waiting in waiting.into_values() {
            match waiting {
                Waiting::Queued(answer) => drop(answer.send(Err(Unanswered::NotSent))),
                Waiting::Sent(answer) => drop(answer.send(Err(Unanswered::Unknown))),
                Waiting::Streaming { inbox, .. } => inbox.cut(),
            }
        }
    }
}

/// Bytes that a request holds while it waits.
fn weight(request: &Request) -> usize {
    let headers = request.headers.iter().map(|(name, value)| name.len() + value.len());
    request.target.len() + request.body.len() + headers.sum::<usize>()
}

fn encode(id: u64, request: &Request, left: Duration, batch: &mut Vec<u8>) -> Result<(), PeerError> {
    let Request { method, target, from, side, hops, session, headers, body, patience: _ } = request;
    let ask = Ask {
        id,
        method,
        target,
        from: *from,
        side: *side,
        hops: *hops,
        session: *session,
        patience_us: u64::try_from(left.as_micros()).unwrap_or(u64::MAX),
        headers: Headers::lent(headers),
        body: Block(body),
    };
    Frame::Ask(ask).encode(batch)
}

/// Whoever waits when the task ends, however it ends, hears of it.
struct Ending(Rc<Asking>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.lost();
    }
}

async fn keep(side: Rc<Asking>, place: String, keys: PeerKeys) {
    let side = Ending(side);
    let (mut pause, mut told) = (PAUSE_MIN, false);
    loop {
        match connect(&place, &keys).await {
            Ok((stream, channel)) => {
                tracing::info!(node = %place, "connected to a node");
                (pause, told) = (PAUSE_MIN, false);
                side.0.up.set(true);
                side.0.came_up.notify_waiters();
                let why = pipe::run(stream, channel, &*side.0).await;
                side.0.lost();
                tracing::warn!(node = %place, error = %why, "the connection to a node is lost");
            }
            // Once: the attempts that follow fail of the same thing.
            Err(why) if !told => {
                told = true;
                tracing::warn!(node = %place, error = %why, "no connection to a node, trying again");
            }
            Err(_) => {}
        }
        sleep(shortened(pause)).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn connect(place: &str, keys: &PeerKeys) -> Result<(TcpStream, Channel), PeerError> {
    let mut stream = reach(place).await?;
    stream.set_nodelay(true)?;
    let channel = greeting::speak(&mut stream, keys).await?;
    Ok((stream, channel))
}

/// The first of a name's addresses at which somebody accepts. None of them, where nobody answers at all, takes the time of the others.
async fn reach(place: &str) -> io::Result<TcpStream> {
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    let addresses: Vec<_> = timeout(CONNECT_WITHIN, lookup_host(place)).await.map_err(late)??.collect();
    let each = CONNECT_WITHIN / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
    let mut why = io::Error::from(io::ErrorKind::NotFound);
    for address in addresses {
        match timeout(each, TcpStream::connect(address)).await.map_err(late).flatten() {
            Ok(stream) => return Ok(stream),
            Err(error) => why = error,
        }
    }
    Err(why)
}

/// By up to a half, by chance: nodes that lost one node together do not all come back to it together.
fn shortened(pause: Duration) -> Duration {
    let mut chance = [0];
    // Without chance the pause is whole.
    let _ = aws_lc_rs::rand::fill(&mut chance);
    pause - pause * u32::from(chance[0]) / 512
}
