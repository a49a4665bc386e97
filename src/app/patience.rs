//! How long we wait for the rest of what somebody has begun to say.
//!
//! actix-web looks after the head of a connection's first request, and after a connection that says nothing. This looks after the heads
//! of all requests behind the first: whoever has sent a part of one and no more is read as somebody who has hung up. Always true: nobody is
//! hurried while a request of his is answered.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_http::Request;
use actix_web::body::{BodySize, MessageBody};
use actix_web::web::Bytes;
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::clock::Clock;

/// How long, in both cases.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// With whoever has begun a head.
    pub head: Duration,
    /// With whoever may have, or may have said all he wants to say: something came while he was answered, and it may have been a body.
    pub idle: Duration,
}

/// What we wait for while nothing is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaited {
    Nothing,
    PerhapsMore,
    RestOfHead,
    /// Nobody listens any more.
    Over,
}

/// What is said on a connection.
pub struct Conversation {
    /// Requests that are answered: one at a time, or a few that were sent without waiting.
    open: Cell<u32>,
    /// Something came meanwhile.
    came_more: Cell<bool>,
    awaited: Cell<Awaited>,
    /// We have not waited for that yet.
    is_new: Cell<bool>,
}

/// A request that is answered, for as long as this is held.
pub struct Answering(Option<Rc<Conversation>>);

impl Answering {
    /// A head is whole.
    pub fn of(request: &Request) -> Answering {
        Answering(request.conn_data::<Rc<Conversation>>().map(Conversation::heard))
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if let Some(conversation) = &self.0 {
            conversation.answered();
        }
    }
}

impl Conversation {
    fn heard(conversation: &Rc<Conversation>) -> Rc<Conversation> {
        conversation.open.set(conversation.open.get().saturating_add(1));
        conversation.came_more.set(false);
        conversation.clone()
    }

    fn came(&self) {
        if self.open.get() > 0 {
            self.came_more.set(true);
        } else if !matches!(self.awaited.get(), Awaited::RestOfHead | Awaited::Over) {
            self.wait_for(Awaited::RestOfHead);
        }
    }

    fn answered(&self) {
        self.open.set(self.open.get().saturating_sub(1));
        if self.open.get() == 0 && self.awaited.get() != Awaited::Over {
            let came_more = self.came_more.get();
            self.wait_for(if came_more { Awaited::PerhapsMore } else { Awaited::Nothing });
        }
    }

    fn wait_for(&self, awaited: Awaited) {
        self.awaited.set(awaited);
        self.is_new.set(true);
    }
}

/// A connection with whose other end we have so much patience.
pub struct Patient<T> {
    io: T,
    patience: Patience,
    conversation: Rc<Conversation>,
    clock: Clock,
    since_ns: u64,
    /// When it goes off. It is not stopped when what it was for has come, so that most requests need none.
    timer: Option<(u64, Pin<Box<Sleep>>)>,
}

impl<T> Patient<T> {
    pub fn new(io: T, patience: Patience, clock: Clock) -> Patient<T> {
        let conversation = Rc::new(Conversation {
            open: Cell::new(0),
            came_more: Cell::new(false),
            awaited: Cell::new(Awaited::Nothing),
            is_new: Cell::new(false),
        });
        Patient { io, patience, conversation, clock, since_ns: 0, timer: None }
    }

    pub fn io(&self) -> &T {
        &self.io
    }

    pub fn conversation(&self) -> Rc<Conversation> {
        self.conversation.clone()
    }

    /// Nothing has come: whether it is too late for it.
    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        if self.conversation.open.get() > 0 {
            return false;
        }
        let patience = match self.conversation.awaited.get() {
            Awaited::Nothing => return false,
            Awaited::PerhapsMore => self.patience.idle,
            Awaited::RestOfHead => self.patience.head,
            Awaited::Over => return true,
        };
        let mut now_ns = self.clock.nanos();
        if self.conversation.is_new.take() {
            self.since_ns = now_ns;
        }
        let due_ns = self.since_ns.saturating_add(u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX));
        loop {
            let wait = Duration::from_nanos(due_ns.saturating_sub(now_ns));
            let (at_ns, timer) = self.timer.get_or_insert_with(|| (due_ns, Box::pin(sleep(wait))));
            if *at_ns > due_ns {
                (*at_ns, *timer) = (due_ns, Box::pin(sleep(wait)));
            }
            if timer.as_mut().poll(cx).is_pending() {
                return false;
            }
            now_ns = self.clock.nanos();
            if now_ns >= due_ns {
                self.conversation.awaited.set(Awaited::Over);
                return true;
            }
            // It was for something that has come.
            self.timer = None;
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Patient<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.io).poll_read(cx, buffer) {
            Poll::Ready(Ok(())) => {
                if buffer.filled().len() > before {
                    self.conversation.came();
                }
                Poll::Ready(Ok(()))
            }
            Poll::Pending if self.is_late(cx) => Poll::Ready(Ok(())),
            waiting_or_broken => waiting_or_broken,
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Patient<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

pin_project! {
    /// An answer's body, until whose end its request is answered.
    pub struct Said<B> {
        #[pin]
        body: B,
        answering: Answering,
    }
}

impl<B> Said<B> {
    pub fn new(body: B, answering: Answering) -> Said<B> {
        Said { body, answering }
    }
}

impl<B: MessageBody> MessageBody for Said<B> {
    type Error = B::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, B::Error>>> {
        self.project().body.poll_next(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Patience = Patience { head: Duration::from_secs(1), idle: Duration::from_secs(3) };
    /// Shorter than the one, longer than the one, longer than both.
    const SHORT: Duration = Duration::from_millis(300);
    const LONG: Duration = Duration::from_secs(2);
    const VERY_LONG: Duration = Duration::from_secs(20);

    fn connected() -> (DuplexStream, Patient<DuplexStream>) {
        let (there, here) = duplex(1_024);
        (there, Patient::new(here, PATIENCE, Clock::start()))
    }

    /// How many bytes come within so much time; `None`: we go on waiting.
    async fn hear(here: &mut Patient<DuplexStream>, within: Duration) -> Option<usize> {
        let mut bytes = [0; 64];
        timeout(within, here.read(&mut bytes)).await.ok().map(Result::unwrap)
    }

    /// A request that is answered, after a while.
    async fn exchange(there: &mut DuplexStream, here: &mut Patient<DuplexStream>, body_apart: bool) {
        there.write_all(b"POST /").await.unwrap();
        assert_eq!(hear(here, SHORT).await, Some(6));
        assert_eq!(hear(here, Duration::ZERO).await, None, "a timer runs");
        let answering = Answering(Some(Conversation::heard(&here.conversation())));
        if body_apart {
            here.write_all(b"100").await.unwrap();
            there.write_all(b"{}").await.unwrap();
            assert_eq!(hear(here, SHORT).await, Some(2));
        }
        assert_eq!(hear(here, LONG).await, None, "nobody is hurried while he waits for us");
        here.write_all(b"200").await.unwrap();
        drop(answering);
    }

    #[tokio::test]
    async fn who_has_begun_a_request_ends_it_in_time() {
        let (mut there, mut here) = connected();
        for _ in 0..2 {
            exchange(&mut there, &mut here, false).await;
            assert_eq!(hear(&mut here, LONG).await, None, "to be silent is somebody else's matter");
        }
        there.write_all(b"G").await.unwrap();
        assert_eq!(hear(&mut here, SHORT).await, Some(1));
        assert_eq!(hear(&mut here, SHORT).await, None);
        there.write_all(b"E").await.unwrap();
        assert_eq!(hear(&mut here, SHORT).await, Some(1));
        assert_eq!(hear(&mut here, VERY_LONG).await, Some(0));
        assert_eq!(hear(&mut here, SHORT).await, Some(0), "it stays so");
    }

    #[tokio::test]
    async fn who_has_sent_a_body_apart_keeps_the_connection_longer() {
        let (mut there, mut here) = connected();
        for _ in 0..2 {
            exchange(&mut there, &mut here, true).await;
            assert_eq!(hear(&mut here, LONG).await, None);
        }
        there.write_all(b"G").await.unwrap();
        assert_eq!(hear(&mut here, SHORT).await, Some(1));
        assert_eq!(hear(&mut here, SHORT).await, None, "there is time for a head that is begun late");
        assert_eq!(hear(&mut here, LONG).await, Some(0));

        let (mut there, mut here) = connected();
        exchange(&mut there, &mut here, true).await;
        assert_eq!(hear(&mut here, VERY_LONG).await, Some(0));
    }

    #[tokio::test]
    async fn who_does_not_wait_for_answers_is_answered() {
        let (mut there, mut here) = connected();
        there.write_all(b"GET /GET /").await.unwrap();
        assert_eq!(hear(&mut here, SHORT).await, Some(10));
        let first = Answering(Some(Conversation::heard(&here.conversation())));
        let second = Answering(Some(Conversation::heard(&here.conversation())));
        drop(first);
        there.write_all(b"{}").await.unwrap();
        assert_eq!(hear(&mut here, SHORT).await, Some(2));
        assert_eq!(hear(&mut here, LONG).await, None, "the second is still answered");
        drop(second);
        assert_eq!(hear(&mut here, LONG).await, None);
        assert_eq!(hear(&mut here, VERY_LONG).await, Some(0));
    }
}
