//! An answer that comes in pieces, on both sides of the connection.
//!
//! Whoever listens gives credit: so many bytes may be under way or unread. Always true: no stream has more than [`WINDOW_BYTES`]
//! unread, so whoever reads slowly, or not at all, holds up his own stream and nobody else's.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::Notify;

use super::link::Place;
use super::{Cut, PeerError};

/// The most unread bytes of one stream.
pub(super) const WINDOW_BYTES: usize = 256 * 1024;
/// What was read is told once it is this much: a frame of credit for four of pieces.
const CREDIT_BYTES: usize = WINDOW_BYTES / 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Ended,
    Cut,
}

/// One of the streams that are open, for as long as it is kept.
pub(super) struct Counted(Rc<Cell<usize>>);

impl Counted {
    pub(super) fn among(streams: &Rc<Cell<usize>>) -> Counted {
        streams.set(streams.get() + 1);
        Counted(streams.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// The listening end: pieces that arrived and are not read yet.
pub(super) struct Inbox {
    pieces: RefCell<VecDeque<Bytes>>,
    /// How much more may arrive.
    room: Cell<usize>,
    /// What was read since the last credit.
    read: Cell<usize>,
    state: Cell<State>,
    waker: RefCell<Option<Waker>>,
}

impl Inbox {
    pub(super) fn new() -> Inbox {
        Inbox {
            pieces: RefCell::default(),
            room: Cell::new(WINDOW_BYTES),
            read: Cell::new(0),
            state: Cell::new(State::Open),
            waker: RefCell::default(),
        }
    }

    pub(super) fn push(&self, piece: &[u8]) -> Result<(), PeerError> {
        let room = self.room.get().checked_sub(piece.len());
        self.room.set(room.ok_or(PeerError::Malformed("more was sent than there was credit for"))?);
        if !piece.is_empty() {
            self.pieces.borrow_mut().push_back(Bytes::copy_from_slice(piece));
            self.wake();
        }
        Ok(())
    }

    pub(super) fn end(&self) {
        self.state.set(State::Ended);
        self.wake();
    }

    pub(super) fn cut(&self) {
        self.state.set(State::Cut);
        self.wake();
    }

    fn wake(&self) {
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Credit that is to be given, if it is worth a frame.
    fn credit(&self, read: usize) -> Option<u32> {
        let read = self.read.get() + read;
        if read < CREDIT_BYTES {
            self.read.set(read);
            return None;
        }
        self.read.set(0);
        self.room.set(self.room.get() + read);
        u32::try_from(read).ok()
    }
}

/// The stream that whoever asked reads from. Dropped before its end it lets the other side know.
pub(super) struct Incoming {
    pub inbox: Rc<Inbox>,
    pub place: Place,
}

impl Stream for Incoming {
    type Item = Result<Bytes, Cut>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let inbox = &self.inbox;
        let piece = inbox.pieces.borrow_mut().pop_front();
        if let Some(piece) = piece {
            if let Some(bytes) = inbox.credit(piece.len()) {
                self.place.credit(bytes);
            }
            return Poll::Ready(Some(Ok(piece)));
        }
        match inbox.state.get() {
            State::Open => {
                let waker = context.waker();
                let mut kept = inbox.waker.borrow_mut();
                if !kept.as_ref().is_some_and(|kept| kept.will_wake(waker)) {
                    *kept = Some(waker.clone());
                }
                Poll::Pending
            }
            State::Ended => Poll::Ready(None),
            State::Cut => {
                inbox.state.set(State::Ended);
                Poll::Ready(Some(Err(Cut)))
            }
        }
    }
}

/// The speaking end: how much it may say.
pub(super) struct Flow {
    credit: Cell<usize>,
    left: Cell<bool>,
    changed: Notify,
}

impl Flow {
    pub(super) fn new() -> Flow {
        Flow { credit: Cell::new(WINDOW_BYTES), left: Cell::new(false), changed: Notify::new() }
    }

    pub(super) fn give(&self, bytes: u32) -> Result<(), PeerError> {
        let credit = usize::try_from(bytes).ok().and_then(|bytes| bytes.checked_add(self.credit.get()));
        let credit = credit.filter(|credit| *credit <= WINDOW_BYTES);
        self.credit.set(credit.ok_or(PeerError::Malformed("more credit than a stream may have"))?);
        self.changed.notify_one();
        Ok(())
    }

    /// Nobody listens any more.
    pub(super) fn leave(&self) {
        self.left.set(true);
        self.changed.notify_one();
    }

    pub(super) async fn left(&self) {
        while !self.left.get() {
            self.changed.notified().await;
        }
    }

    /// Takes as much of `bytes` as may be said now, once anything may; `None` when nobody listens.
    pub(super) async fn take(&self, bytes: usize) -> Option<usize> {
        loop {
            if self.left.get() {
                return None;
            }
            let some = bytes.min(self.credit.get());
            if some > 0 {
                self.credit.set(self.credit.get() - some);
                return Some(some);
            }
            self.changed.notified().await;
        }
    }
}
