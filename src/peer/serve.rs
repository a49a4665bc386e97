//! The answering side of one connection: reads requests, has the desk answer each in a task of its own, and writes answers as they come.
//!
//! Always true: what began to be answered is answered to its end, also when whoever asked has gone or the connection is lost; it may
//! be selling something. Only streams end early. No more than [`FLIGHT_MAX`] requests are being answered or waiting to be written, and
//! no more than [`STREAMS_MAX`] streams flow; people who come beyond that are turned away, a node's own question is put aside unread, and
//! whoever does not take his answers is not read from. Whoever shops is turned away also where his node has its [`Share`] of what is being
//! answered. Nobody is turned away of whose request something may be done: a stream that is more than a look at something is cut.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use hashbrown::HashMap;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::channel::Channel;
use super::frame::{Ask, Block, Frame, Headers, PIECE_BYTES_MAX, head_fits};
use super::greeting;
use super::pipe::{self, BATCH_BYTES};
use super::share::Share;
use super::stream::{Counted, Flow};
use super::{
    BODY_BYTES_MAX, Body, Cut, Desk, Elsewhere, FLIGHT_MAX, PeerError, PeerKeys, Pieces, Reply, Request,
    STREAMS_MAX, Side,
};

/// Answers and pieces that wait to be written before no more is read, and their bytes.
const UNWRITTEN_MAX: usize = 2 * FLIGHT_MAX;
const UNWRITTEN_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Serves one accepted connection, which shares with no other, on this thread until it ends.
pub async fn serve(stream: TcpStream, keys: PeerKeys, desk: Rc<dyn Desk>) -> Result<(), PeerError> {
    greet(stream, &keys).await?.serve(Share::alone(), desk).await
}

/// Hears who has connected; within two seconds he has proved that he shares a key, with words that nobody can repeat, or is nobody. To
/// be called for a bounded number of connections at once.
pub async fn greet(mut stream: TcpStream, keys: &PeerKeys) -> Result<Greeted, PeerError> {
    stream.set_nodelay(true)?;
    let channel = greeting::listen(&mut stream, keys).await?;
    Ok(Greeted { stream, channel })
}

/// A connection with somebody who shares a key with us. He sends nothing before it is served; dropped, it tells him that there is no
/// place for him.
pub struct Greeted {
    stream: TcpStream,
    channel: Channel,
}

impl Greeted {
    /// Until the connection ends, which is no error if it ends between two frames. `share` is that of the node it comes from.
    pub async fn serve(self, share: Share, desk: Rc<dyn Desk>) -> Result<(), PeerError> {
        let Greeted { mut stream, mut channel } = self;
        greeting::welcome(&mut stream, &mut channel).await?;
        let side = Closing(Rc::new_cyclic(|me| Answering {
            me: me.clone(),
            desk,
            share,
            last: Cell::new(0),
            flight: RefCell::default(),
            streams: Rc::default(),
            answers: RefCell::default(),
            pieces: RefCell::default(),
            unwritten_bytes: Cell::new(0),
            wake: Notify::new(),
            written: Notify::new(),
        }));
        match pipe::run(stream, channel, &*side.0).await {
            PeerError::Ended => Ok(()),
            why => Err(why),
        }
    }
}

/// However serving ends, streams end with it, and answers that come later find no place and are thrown away.
struct Closing(Rc<Answering>);

impl Drop for Closing {
    fn drop(&mut self) {
        let flight = std::mem::take(&mut *self.0.flight.borrow_mut());
        for flight in flight.into_values() {
            if let Flight::Streaming(flow) = flight {
                flow.leave();
            }
        }
    }
}

/// How far an answer has come.
enum Flight {
    Deciding,
    /// Nobody waits for what will be decided.
    Left,
    Streaming(Rc<Flow>),
    /// Its last frame waits to be written.
    Leaving,
}

/// What waits to be written.
enum Out {
    Whole { id: u64, status: u16, headers: Vec<(String, Vec<u8>)>, body: Bytes },
    Head { id: u64, status: u16, headers: Vec<(String, Vec<u8>)> },
    Piece { id: u64, bytes: Bytes },
    End { id: u64 },
    Cut { id: u64 },
    Elsewhere { id: u64, session: i64 },
    Dropped { id: u64 },
}

impl Out {
    /// What of it has no fixed size, but for headers, which are few.
    fn bytes(&self) -> usize {
        match self {
            Out::Whole { body: bytes, .. } | Out::Piece { bytes, .. } => bytes.len(),
            _ => 0,
        }
    }
}

struct Answering {
    me: std::rc::Weak<Answering>,
    desk: Rc<dyn Desk>,
    share: Share,
    /// The last number that was asked under.
    last: Cell<u64>,
    flight: RefCell<HashMap<u64, Flight>>,
    /// How many of those are streams that flow.
    streams: Rc<Cell<usize>>,
    answers: RefCell<VecDeque<Out>>,
    /// Everything of streams. It goes behind all answers that wait: those are short, and somebody stands at a till.
    pieces: RefCell<VecDeque<Out>>,
    unwritten_bytes: Cell<usize>,
    wake: Notify,
    /// Fewer wait to be written.
    written: Notify,
}

impl pipe::Side for Answering {
    fn waker(&self) -> &Notify {
        &self.wake
    }

    fn fill(&self, batch: &mut Vec<u8>) -> Result<(), PeerError> {
        let (mut answers, mut pieces) = (self.answers.borrow_mut(), self.pieces.borrow_mut());
        while batch.len() < BATCH_BYTES
            && let Some(out) = answers.pop_front().or_else(|| pieces.pop_front())
        {
            self.unwritten_bytes.set(self.unwritten_bytes.get().saturating_sub(out.bytes()));
            self.encode(&out, batch)?;
        }
        self.written.notify_one();
        Ok(())
    }

    fn take(&self, frame: Frame<'_>) -> Result<(), PeerError> {
        match frame {
            Frame::Here => Ok(()),
            Frame::Ask(ask) => self.begin(ask),
            Frame::Credit { id, bytes } => match self.flight.borrow().get(&id) {
                Some(Flight::Streaming(flow)) => flow.give(bytes),
                _ => self.known(id),
            },
            Frame::Leave { id } => match self.flight.borrow_mut().get_mut(&id) {
                Some(Flight::Streaming(flow)) => {
                    flow.leave();
                    Ok(())
                }
                Some(flight @ Flight::Deciding) => {
                    *flight = Flight::Left;
                    Ok(())
                }
                _ => self.known(id),
            },
            _ => Err(PeerError::Malformed("whoever asks does not answer")),
        }
    }

    /// Waits for nothing but writing, which waits for nothing of ours: so two sides never wait for each other.
    async fn room(&self) {
        while self.answers.borrow().len() + self.pieces.borrow().len() > UNWRITTEN_MAX
            || self.unwritten_bytes.get() > UNWRITTEN_BYTES_MAX
        {
            self.written.notified().await;
        }
    }
}

impl Answering {
    fn begin(&self, ask: Ask<'_>) -> Result<(), PeerError> {
        let id = ask.id;
        if id <= self.last.get() {
            return Err(PeerError::Malformed("a number was used twice"));
        }
        self.last.set(id);
        let Some(me) = self.me.upgrade() else { return Ok(()) };
        // Not reading on would keep back the credit of streams, and with it the room that is waited for.
        let deciding = self.flight.borrow().len().saturating_sub(self.streams.get());
        let is_full = deciding >= FLIGHT_MAX;
        if ask.patience_us == 0 || is_full && ask.side == Side::Owners {
            self.say(Out::Dropped { id });
            return Ok(());
        }
        // Operators and owners are few, and have no part in a rush.
        let shares = ask.side == Side::Shop;
        // Put aside it would be taken for the refusal of a node that does not lead, and whoever else asks by that thread waited.
        if is_full || shares && !self.share.take() {
            self.say(self.turned_away(id, ask.target, &ask.headers.0));
            return Ok(());
        }
        let taken = shares.then(|| Taken(me.clone()));
        self.flight.borrow_mut().insert(id, Flight::Deciding);
        let until = pipe::now() + Duration::from_micros(ask.patience_us);
        tokio::task::spawn_local(Slot { side: me, id, taken }.answer(owned(ask), until));
        Ok(())
    }

    fn turned_away(&self, id: u64, target: &str, headers: &[(String, Vec<u8>)]) -> Out {
        let Reply { status, headers, body } = self.desk.turn_away(target, headers);
        match body {
            Body::Whole(body) if body.len() <= BODY_BYTES_MAX && head_fits(0, &headers) => {
                Out::Whole { id, status, headers, body }
            }
            _ => Out::Dropped { id },
        }
    }

    fn known(&self, id: u64) -> Result<(), PeerError> {
        match id <= self.last.get() {
            true => Ok(()),
            false => Err(PeerError::Malformed("about a request that was not made")),
        }
    }

    fn say(&self, out: Out) {
        self.unwritten_bytes.set(self.unwritten_bytes.get() + out.bytes());
        self.answers.borrow_mut().push_back(out);
        self.wake.notify_one();
    }

    fn say_piece(&self, out: Out) {
        self.unwritten_bytes.set(self.unwritten_bytes.get() + out.bytes());
        self.pieces.borrow_mut().push_back(out);
        self.wake.notify_one();
    }

    fn encode(&self, out: &Out, batch: &mut Vec<u8>) -> Result<(), PeerError> {
        let frame = match *out {
            Out::Whole { id, status, ref headers, ref body } => {
                Frame::Whole { id, status, headers: Headers::lent(headers), body: Block(body) }
            }
            Out::Head { id, status, ref headers } => {
                Frame::Head { id, status, headers: Headers::lent(headers) }
            }
            Out::Piece { id, ref bytes } => Frame::Piece { id, bytes: Block(bytes) },
            Out::End { id } => Frame::End { id },
            Out::Cut { id } => Frame::Cut { id },
            Out::Elsewhere { id, session } => Frame::Elsewhere { id, session },
            Out::Dropped { id } => Frame::Dropped { id },
        };
        match frame {
            Frame::Whole { id, .. }
            | Frame::End { id }
            | Frame::Cut { id }
            | Frame::Elsewhere { id, .. }
            | Frame::Dropped { id } => drop(self.flight.borrow_mut().remove(&id)),
            _ => {}
        }
        frame.encode(batch)
    }
}

fn owned(ask: Ask<'_>) -> Request {
    Request {
        method: ask.method.to_owned(),
        target: ask.target.to_owned(),
        from: ask.from,
        side: ask.side,
        hops: ask.hops,
        session: ask.session,
        headers: ask.headers.0.into_owned(),
        body: Bytes::copy_from_slice(ask.body.0),
        patience: Duration::from_micros(ask.patience_us),
    }
}

/// What one request takes of its node's share, until its answer begins.
struct Taken(Rc<Answering>);

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.share.give_back();
    }
}

/// One request in the middle of being answered. Dropped without a last word, because a task ended in a panic, it says that there
/// will be none.
struct Slot {
    side: Rc<Answering>,
    id: u64,
    taken: Option<Taken>,
}

impl Slot {
    async fn answer(mut self, mut request: Request, until: Instant) {
        let id = self.id;
        request.patience = until.saturating_duration_since(pipe::now());
        if request.patience.is_zero() {
            return self.last_word(Out::Dropped { id });
        }
        let looks_at = request.is_look().then(|| request.target.clone());
        let answer = self.side.desk.answer(request).await;
        // Those who watch a stream are counted by themselves.
        drop(self.taken.take());
        match answer {
            Err(Elsewhere { session }) => self.last_word(Out::Elsewhere { id, session }),
            Ok(Reply { headers, .. }) if !head_fits(0, &headers) => {
                tracing::error!(id, "the head of an answer is too large to be forwarded");
                self.last_word(Out::Cut { id });
            }
            Ok(Reply { status, headers, body: Body::Whole(body) }) if body.len() <= BODY_BYTES_MAX => {
                self.last_word(Out::Whole { id, status, headers, body });
            }
            Ok(Reply { status, headers, body }) => {
                let pieces = match body {
                    Body::Whole(body) => Box::pin(futures_util::stream::iter([Ok(body)])),
                    Body::Stream(pieces) => pieces,
                };
                self.pour(status, headers, pieces, looks_at).await;
            }
        }
    }

    /// If anybody still waits for it.
    fn last_word(&self, out: Out) {
        let mut flight = self.side.flight.borrow_mut();
        match flight.get_mut(&self.id) {
            Some(Flight::Left) => drop(flight.remove(&self.id)),
            Some(state @ Flight::Deciding) => {
                *state = Flight::Leaving;
                drop(flight);
                self.side.say(out);
            }
            Some(state @ Flight::Streaming(_)) => {
                *state = Flight::Leaving;
                drop(flight);
                self.side.say_piece(out);
            }
            Some(Flight::Leaving) | None => {}
        }
    }

    /// `looks_at` is what was looked at, if nothing was done.
    async fn pour(
        &self,
        status: u16,
        headers: Vec<(String, Vec<u8>)>,
        mut pieces: Pieces,
        looks_at: Option<String>,
    ) {
        let (id, flow) = (self.id, Rc::new(Flow::new()));
        if self.side.streams.get() >= STREAMS_MAX {
            tracing::warn!(streams = STREAMS_MAX, "no more streams over one connection");
            // Cut off it would be looked at again, at the expense of what was lost with a connection.
            let turned_away = |target: String| self.side.turned_away(id, &target, &headers);
            return self.last_word(looks_at.map_or(Out::Cut { id }, turned_away));
        }
        match self.side.flight.borrow_mut().get_mut(&id) {
            Some(state @ Flight::Deciding) => *state = Flight::Streaming(flow.clone()),
            // Nobody listens: the stream ends before it began.
            _ => return,
        }
        let _counted = Counted::among(&self.side.streams);
        self.side.say_piece(Out::Head { id, status, headers });
        let last = loop {
            let piece = tokio::select! {
                biased;
                () = flow.left() => return,
                piece = pieces.next() => piece,
            };
            match piece {
                None => break Out::End { id },
                Some(Err(Cut)) => break Out::Cut { id },
                Some(Ok(mut bytes)) => {
                    while !bytes.is_empty() {
                        let Some(some) = flow.take(bytes.len().min(PIECE_BYTES_MAX)).await else { return };
                        self.side.say_piece(Out::Piece { id, bytes: bytes.split_to(some) });
                    }
                }
            }
        };
        self.last_word(last);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut flight = self.side.flight.borrow_mut();
        let unsaid = match flight.get(&self.id) {
            Some(Flight::Leaving) | None => false,
            Some(Flight::Left) => {
                flight.remove(&self.id);
                false
            }
            Some(Flight::Deciding | Flight::Streaming(_)) => true,
        };
        drop(flight);
        if unsaid {
            self.last_word(Out::Cut { id: self.id });
        }
    }
}
