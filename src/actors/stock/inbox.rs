//! The owner's mailbox: two classes, bounded by predicted waiting time, drained many at a time.
//!
//! Always true: what is in it arrived before what comes later in its class; reserve never takes the last fifth;
//! what was refused here was certainly not decided. The lock is held for a push or a swap, never while deciding.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;
use futures_util::task::AtomicWaker;
use tokio::sync::oneshot;

use super::answer::{Answer, NotDone, Reply};
use super::protocol::{Ask, GROUP_EVENTS_MAX, Outcome};
use super::shared::Shared;
use crate::clock::Clock;
use crate::domain::id::UserId;
use crate::domain::stock::{Command, Millis};
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The most questions that wait at one owner.
pub const INBOX_MAX: usize = 65_536;
/// Of those, how many may be reservations.
pub const INBOX_RESERVES_MAX: usize = INBOX_MAX / 5 * 4;
/// A reservation whose answer would take longer is refused at the door, unless the configuration says otherwise.
pub const INBOX_WAIT_MAX_MS: u64 = 250;

/// How long an answer matters to whoever asked.
pub const PATIENCE_MS: i64 = 2_000;

/// Who waits for an answer.
#[derive(Debug)]
pub struct Token {
    pub reply: oneshot::Sender<Reply>,
    /// Who will have bought if the answer is yes.
    pub buyer: Option<UserId>,
    /// When it was asked, for the waiting time; on the clock of [`crate::clock::Clock::nanos`].
    pub asked_ns: u64,
    /// It was sent to another node, and nobody knows what became of it.
    pub in_doubt: bool,
}

impl Token {
    /// The answer leaves. What every door must know from now on is noted first.
    pub(super) fn reply(self, reply: Reply, shared: &Shared) {
        let reserved = matches!(&reply, Ok(Answer::Reserved(_)));
        // Before the answer: whoever has heard it may come back at once.
        if reserved && let Some(buyer) = self.buyer {
            shared.bought(buyer);
        }
        self.say(reply);
    }

    fn say(self, reply: Reply) {
        let reply = if self.in_doubt { reply.map_err(NotDone::after_all) } else { reply };
        // Nobody may listen any more: the order stands all the same, and its key will find it.
        let _ = self.reply.send(reply);
    }
}

/// One question in the mailbox.
#[derive(Debug)]
pub struct Post {
    pub ask: Ask,
    pub token: Token,
    pub arrived: Millis,
    /// After this nobody listens any more.
    pub until: Millis,
}

impl Post {
    /// A question that has not arrived yet.
    pub fn new(ask: Ask, token: Token) -> Post {
        Post { ask, token, arrived: Millis(0), until: Millis(0) }
    }

    /// It was certainly not decided here, and never will be.
    pub fn give_up(self) {
        self.token.say(Err(NotDone::Unavailable));
    }

    fn is_reserve(&self) -> bool {
        is_reserve(&self.ask)
    }
}

/// Whether it is to begin something. Everything else ends what was begun, or only looks.
pub(super) fn is_reserve(ask: &Ask) -> bool {
    matches!(ask, Ask::Command(Command::Reserve(_)))
}

/// Why a question did not get in.
#[derive(Debug)]
pub enum NoRoom {
    /// Its answer would take this long.
    Full { wait_ms: u64 },
    /// This owner has gone; ask the directory again. The question comes back.
    Closed(Box<Post>),
}

#[derive(Debug, Default)]
struct Queues {
    urgent: VecDeque<Post>,
    reserves: VecDeque<Post>,
    appended: Option<Outcome>,
    drain: Option<oneshot::Sender<()>>,
    leave: Option<oneshot::Sender<bool>>,
    closed: bool,
}

/// The mailbox of one owner.
#[derive(Debug, Default)]
pub struct Inbox {
    queues: Mutex<Queues>,
    waker: AtomicWaker,
    signalled: AtomicBool,
    /// Questions that are not decided yet, drained ones included.
    undecided: AtomicUsize,
    /// Decided, and not with the journal yet.
    open: AtomicUsize,
    /// Smoothed time from handing a group to the journal to its word.
    group_ns: AtomicU64,
    /// Since when the oldest question to an owner on another node is not answered; 0: all are.
    asked_ns: AtomicU64,
    /// The owner has gone, or is going: what it has published may be overtaken.
    gone: AtomicBool,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever finds it signalled leaves the waking to him who has signalled: in a rush that is nearly everybody.
    fn wake(&self) {
        if !self.signalled.swap(true, Ordering::AcqRel) {
            self.waker.wake();
        }
    }

    /// Puts a question in, or says why not: too many wait, or a reservation's answer would take longer than `wait_ms_max`.
    /// Stamped under the lock, so that stamps and places agree.
    pub fn push(&self, mut post: Post, wait_ms_max: u64, clock: &Clock) -> Result<(), NoRoom> {
        let reserve = post.is_reserve();
        let waiting = self.undecided.load(Ordering::Relaxed);
        let before = waiting + self.open.load(Ordering::Relaxed);
        let wait_ms = predicted_ms(before, self.group_ns.load(Ordering::Relaxed));
        let max = if reserve { INBOX_RESERVES_MAX } else { INBOX_MAX };
        if waiting >= max || (reserve && wait_ms > wait_ms_max) {
            post.give_up();
            return Err(NoRoom::Full { wait_ms });
        }
        {
            let mut queues = self.lock();
            if queues.closed {
                drop(queues);
                return Err(NoRoom::Closed(Box::new(post)));
            }
            post.arrived = clock.now();
            post.until = post.arrived.plus(PATIENCE_MS);
            self.undecided.fetch_add(1, Ordering::AcqRel);
            if reserve { queues.reserves.push_back(post) } else { queues.urgent.push_back(post) }
        }
        self.wake();
        Ok(())
    }

    /// The journal's word on the group in flight.
    pub fn appended(&self, outcome: Outcome) {
        self.lock().appended = Some(outcome);
        self.wake();
    }

    /// Asks the owner to finish, store itself and stop. One that has gone, or is going, has nobody left who would say that it is
    /// done: `done` is dropped at once.
    pub fn drain_owner(&self, done: oneshot::Sender<()>) {
        {
            let mut queues = self.lock();
            if queues.closed {
                return;
            }
            queues.drain = Some(done);
        }
        self.wake();
    }

    /// Asks whoever takes from this mailbox to finish what he has taken and to go, and leaves the rest in it, in order. `left` hears
    /// whether he has gone. Where nobody takes any more, and nobody will, it is dropped at once.
    pub fn leave(&self, left: oneshot::Sender<bool>) {
        {
            let mut queues = self.lock();
            if queues.closed {
                return;
            }
            queues.leave = Some(left);
        }
        self.wake();
    }

    /// The journal's word, and whoever asks the owner to hand over, in one look.
    pub fn take_signals(&self) -> (Option<Outcome>, Option<oneshot::Sender<bool>>) {
        let mut queues = self.lock();
        (queues.appended.take(), queues.leave.take())
    }

    pub fn take_leave(&self) -> Option<oneshot::Sender<bool>> {
        self.lock().leave.take()
    }

    pub fn take_drain(&self) -> Option<oneshot::Sender<()>> {
        self.lock().drain.take()
    }

    /// Moves up to `room` questions to `out`, urgent ones first.
    pub fn take(&self, room: usize, out: &mut Vec<Post>) {
        let mut queues = self.lock();
        let urgent = queues.urgent.len().min(room);
        out.extend(queues.urgent.drain(..urgent));
        let reserves = queues.reserves.len().min(room - urgent);
        out.extend(queues.reserves.drain(..reserves));
    }

    /// Puts back what was taken and not decided, before everything else of its class. In the order in which it was taken.
    pub fn give_back(&self, posts: Vec<Post>) {
        if posts.is_empty() {
            return;
        }
        self.undecided.fetch_add(posts.len(), Ordering::AcqRel);
        let mut queues = self.lock();
        if queues.closed {
            drop(queues);
            self.undecided.fetch_sub(posts.len(), Ordering::AcqRel);
            return posts.into_iter().for_each(Post::give_up);
        }
        for post in posts.into_iter().rev() {
            if post.is_reserve() { queues.reserves.push_front(post) } else { queues.urgent.push_front(post) }
        }
    }

    /// Takes out what arrived before `then`.
    pub fn take_older(&self, then: Millis) -> Vec<Post> {
        let mut queues = self.lock();
        let queues = &mut *queues;
        let mut older = Vec::new();
        for queue in [&mut queues.urgent, &mut queues.reserves] {
            while queue.front().is_some_and(|post| post.arrived < then) {
                older.extend(queue.pop_front());
            }
        }
        older
    }

    /// Lets what waits matter for so long after its arrival.
    pub fn extend_patience(&self, ms: i64) {
        let mut queues = self.lock();
        let queues = &mut *queues;
        for post in queues.urgent.iter_mut().chain(&mut queues.reserves) {
            post.until = post.until.max(post.arrived.plus(ms));
        }
    }

    /// When the oldest waiting question arrived.
    pub fn oldest(&self) -> Option<Millis> {
        let queues = self.lock();
        let urgent = queues.urgent.front().map(|post| post.arrived);
        let reserve = queues.reserves.front().map(|post| post.arrived);
        match (urgent, reserve) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Notes that `count` drained questions were decided.
    pub fn decided(&self, count: usize) {
        self.undecided.fetch_sub(count, Ordering::AcqRel);
    }

    /// Notes how many decided questions the next group has.
    pub fn opened(&self, count: usize) {
        self.open.store(count, Ordering::Relaxed);
    }

    /// How many questions wait for a decision.
    pub fn undecided(&self) -> usize {
        self.undecided.load(Ordering::Acquire)
    }

    /// Notes how long a group took. A journal that becomes slow is believed sooner than one that becomes quick.
    pub fn observe_group(&self, ns: u64) {
        let before = self.group_ns.load(Ordering::Relaxed);
        let part = if ns > before { 2 } else { 8 };
        self.group_ns.store(before - before / part + ns / part, Ordering::Relaxed);
    }

    /// Notes since when the oldest question to an owner on another node is not answered.
    pub fn asked_since(&self, ns: Option<u64>) {
        self.asked_ns.store(ns.unwrap_or(0), Ordering::Relaxed);
    }

    /// Since when the oldest question to an owner on another node is not answered, if there is one.
    pub fn unanswered_ns(&self) -> Option<u64> {
        Some(self.asked_ns.load(Ordering::Relaxed)).filter(|ns| *ns > 0)
    }

    /// Whether nothing goes in any more.
    pub fn is_closed(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Closes the mailbox if it is empty.
    pub fn close_if_empty(&self) -> bool {
        let mut queues = self.lock();
        queues.closed = queues.urgent.is_empty() && queues.reserves.is_empty();
        self.gone.store(queues.closed, Ordering::Release);
        queues.closed
    }

    /// Closes the mailbox and gives back what was in it.
    pub fn close(&self) -> Vec<Post> {
        let mut queues = self.lock();
        queues.closed = true;
        self.gone.store(true, Ordering::Release);
        let queues = &mut *queues;
        queues.urgent.drain(..).chain(queues.reserves.drain(..)).collect()
    }
}

/// How long an answer takes behind so many questions: the group that is being written, those that wait, each full, and its own. Behind
/// less than a full group nobody is turned away, however slow the journal is: without anybody it would not be seen to be quick again.
fn predicted_ms(before: usize, group_ns: u64) -> u64 {
    match (before / GROUP_EVENTS_MAX as usize) as u64 {
        0 => 0,
        groups => (groups + 2).saturating_mul(group_ns) / 1_000_000,
    }
}

/// Yields once for any number of questions or words that came since.
#[derive(Debug)]
pub struct Wakeups(pub Arc<Inbox>);

impl Stream for Wakeups {
    type Item = ();

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<()>> {
        self.0.waker.register(cx.waker());
        if self.0.signalled.swap(false, Ordering::AcqRel) { Poll::Ready(Some(())) } else { Poll::Pending }
    }
}

/// How long a group takes, if it is one of ordinary size, where `under_way` questions were answered in `ns`.
pub(super) fn group_ns(ns: u64, under_way: usize) -> u64 {
    let group = u64::from(GROUP_EVENTS_MAX);
    ns.saturating_mul(group) / group.max(under_way as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_takes_what_is_under_way_what_waits_and_its_own_group() {
        let (full, group_ns) = (GROUP_EVENTS_MAX as usize, 100_000_000);
        assert_eq!(predicted_ms(full - 1, group_ns), 0);
        assert_eq!(predicted_ms(full, group_ns), 300);
        assert_eq!(predicted_ms(3 * full, group_ns), 500);
        assert_eq!(predicted_ms(full, 1_000_000), 3);
    }

    #[test]
    fn whoever_drains_an_owner_that_has_gone_does_not_wait_for_it() {
        let inbox = Inbox::default();
        let (done, mut rested) = oneshot::channel();
        inbox.drain_owner(done);
        assert_eq!(rested.try_recv(), Err(oneshot::error::TryRecvError::Empty), "it is there, and is asked");
        assert!(inbox.take_drain().is_some());
        assert!(inbox.close_if_empty());
        let (done, mut rested) = oneshot::channel();
        inbox.drain_owner(done);
        assert_eq!(rested.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    }

    fn asked(asks: Ask) -> (Post, oneshot::Receiver<Reply>) {
        let (reply, heard) = oneshot::channel();
        (Post::new(asks, Token { reply, buyer: None, asked_ns: 0, in_doubt: false }), heard)
    }

    #[test]
    fn reservations_leave_room_for_what_is_urgent_and_urgent_things_come_first() {
        let (inbox, clock) = (Inbox::default(), Clock::start());
        let product = crate::actors::stock::testing::product(1);
        let reserve = || asked(crate::actors::stock::testing::ask_one(1, product)).0;
        for _ in 0..INBOX_RESERVES_MAX {
            inbox.push(reserve(), 1_000, &clock).unwrap();
        }
        assert!(matches!(inbox.push(reserve(), 1_000, &clock), Err(NoRoom::Full { .. })));
        for _ in INBOX_RESERVES_MAX..INBOX_MAX {
            inbox.push(asked(Ask::Command(Command::Pause)).0, 0, &clock).unwrap();
        }
        assert!(matches!(
            inbox.push(asked(Ask::Command(Command::Pause)).0, 0, &clock),
            Err(NoRoom::Full { .. })
        ));
        let mut taken = Vec::new();
        inbox.take(INBOX_MAX - INBOX_RESERVES_MAX + 1, &mut taken);
        let reserves = taken.iter().map(Post::is_reserve).collect::<Vec<_>>();
        assert_eq!(reserves.iter().position(|is| *is), Some(INBOX_MAX - INBOX_RESERVES_MAX));
        // Until they are decided their places are not free.
        assert!(matches!(inbox.push(reserve(), 1_000, &clock), Err(NoRoom::Full { .. })));
        inbox.decided(taken.len());
        inbox.push(reserve(), 1_000, &clock).unwrap();
    }
}
