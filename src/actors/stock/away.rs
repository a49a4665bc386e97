//! Whoever takes from the mailbox of a product whose owner is on another node: asks that node, in order, many questions in one.
//!
//! It owns what it has taken until it is answered. Always true: what was asked earlier is sent earlier; what comes back unanswered goes
//! to the front of the mailbox, in its order, before anything else is sent; what may have been done is never told as *not done*; and no
//! node is asked again more often than it may be, whatever waits.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt, poll};
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::abroad::{ASKS_MAX, About, NodeName, NotAsked, QUESTION_BYTES_MAX, Route, Said, weight};
use super::answer::NotDone;
use super::directory::Directory;
use super::inbox::{Post, Wakeups, group_ns};
use super::protocol::Ask;
use super::shared::Shared;
use crate::domain::stock::{Command, Millis, Sequence};

/// Questions of one product that are on their way at once.
pub const QUESTIONS_MAX: usize = 4;
/// How long a post waits for an owner that cannot be reached.
pub const WAIT_MAX_MS: i64 = 8_000;
/// How often it is looked whether nobody asks any more …
const TICK: Duration = Duration::from_secs(15);
/// … and whether somebody has waited for too long.
const WAITING_TICK: Duration = Duration::from_millis(100);
/// An owner that was asked within this time has not gone to rest: less than the shortest time after which one does.
const LOADED_NS: u64 = 5_000_000_000;
/// Pauses after a question that was not sent, or not to the right node: they double.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// A post, and its place among all that were taken.
type Taken = (u64, Post);

/// The end of one question.
struct Heard {
    posts: Vec<Taken>,
    /// Who was asked.
    node: Arc<NodeName>,
    /// How many posts were under way when it left, its own included.
    under_way: usize,
    asked_ns: u64,
    said: Result<Said, NotAsked>,
}

pub(super) struct Forwarder {
    shared: Arc<Shared>,
    directory: Directory,
    flying: FuturesUnordered<LocalBoxFuture<'static, Heard>>,
    under_way: usize,
    /// When those that are on their way were asked.
    asked: Vec<u64>,
    /// The owner has answered a moment ago: it is loaded.
    has_answered: bool,
    /// When it was asked last.
    asked_last_ns: u64,
    /// Comes back to the mailbox once nothing is under way.
    back: Vec<Taken>,
    /// Whoever has refused what was asked last.
    refused_by: Option<Arc<NodeName>>,
    taken: u64,
    pause: Duration,
    paused_until_ns: u64,
    last_used: Millis,
    newest: Option<Sequence>,
    /// The product does not exist, as its owner says.
    unborn: bool,
    leaving: Option<oneshot::Sender<bool>>,
    resting: Option<oneshot::Sender<()>>,
    /// However it ends, its mailbox is forgotten, unless it is handed over.
    handed_over: bool,
}

impl Forwarder {
    pub(super) fn new(shared: Arc<Shared>, directory: Directory) -> Forwarder {
        shared.proves_nothing();
        shared.inbox.opened(0);
        shared.inbox.asked_since(None);
        let last_used = directory.house().clock.now();
        Forwarder {
            shared,
            directory,
            flying: FuturesUnordered::new(),
            under_way: 0,
            asked: Vec::with_capacity(QUESTIONS_MAX),
            has_answered: false,
            asked_last_ns: 0,
            back: Vec::new(),
            refused_by: None,
            taken: 0,
            pause: PAUSE_MIN,
            paused_until_ns: 0,
            last_used,
            newest: None,
            unborn: false,
            leaving: None,
            resting: None,
            handed_over: false,
        }
    }

    pub(super) async fn run(mut self) {
        let mut wakeups = Wakeups(self.shared.inbox.clone());
        while !self.is_over().await {
            let pause = self.looks_again_after();
            tokio::select! {
                biased;
                Some(heard) = self.flying.next() => self.heard(heard),
                Some(()) = wakeups.next() => {}
                () = sleep(pause) => {}
            }
        }
        drop(wakeups);
        if let Some(left) = self.leaving.take().filter(|_| !self.shared.inbox.is_closed()) {
            // The very last word: from here on another one takes from the mailbox, if anybody has heard it.
            self.handed_over = left.send(true).is_ok();
        }
    }

    /// One turn: what has waited too long is told so, what waits is asked. Whether this was the last.
    async fn is_over(&mut self) -> bool {
        let inbox = self.shared.inbox.clone();
        self.leaving = self.leaving.take().or_else(|| inbox.take_leave());
        self.resting = self.resting.take().or_else(|| inbox.take_drain());
        let is_going = self.leaving.is_some() || self.resting.is_some();
        let now = self.directory.house().clock.now();
        self.give_up_older(now);
        if !is_going {
            self.send().await;
        }
        if !self.flying.is_empty() {
            return false;
        }
        self.give_back();
        if is_going {
            return true;
        }
        let newest = self.shared.view().map(|view| view.sequence);
        // As an owner does: whoever looks on would have another begin at once.
        if newest != self.newest || self.shared.is_looked_at() {
            (self.newest, self.last_used) = (newest, now);
        }
        let idle = self.directory.is_idle(now.0 - self.last_used.0) || self.unborn;
        idle && inbox.close_if_empty()
    }

    /// Sends what waits, unless something is to go back first.
    async fn send(&mut self) {
        let (directory, product) = (self.directory.clone(), self.shared.product);
        let Some(routes) = directory.routes() else { return };
        while self.back.is_empty()
            && self.flying.len() < QUESTIONS_MAX
            && self.shared.inbox.undecided() > 0
            && let Route::Away(node) = &*routes.of(product.shard())
        {
            let house = directory.house();
            let asked_ns = house.clock.nanos();
            if asked_ns < self.paused_until_ns {
                return;
            }
            // Whoever has refused is asked one question at a time until he takes one. Another node is asked as if nothing had been.
            if self.refused_by.as_ref() == Some(node) {
                if !self.flying.is_empty() {
                    return;
                }
                if !(routes.abroad.reaches(node) && routes.abroad.may_ask_again(node)) {
                    return self.rest_a_while();
                }
            }
            let posts = self.batch();
            let Some((_, first)) = posts.first() else { return };
            // Nobody asked it for a while, so it may rest and be loaded by this question.
            let since_ns = asked_ns.saturating_sub(std::mem::replace(&mut self.asked_last_ns, asked_ns));
            self.has_answered &= !self.flying.is_empty() || since_ns < LOADED_NS;
            let waited = asked_ns.saturating_sub(first.token.asked_ns);
            house.metrics.owner_queue_wait_seconds.record(waited as f64 / 1e9);
            let asks = posts.iter().map(|(_, post)| post.ask.clone()).collect();
            let question = directory.question(routes, About::Product { product, asks });
            let mut asking = routes.abroad.ask(node, question);
            self.under_way += posts.len();
            let (under_way, node) = (self.under_way, node.clone());
            let heard = move |said| Heard { posts, node, under_way, asked_ns, said };
            // At once, and before the next: what could not be sent is not overtaken by what is sent a moment later.
            match poll!(&mut asking) {
                Poll::Ready(said) => self.heard(heard(said)),
                Poll::Pending => {
                    self.flying.push(asking.map(heard).boxed_local());
                    self.asked.push(asked_ns);
                    self.note_oldest();
                }
            }
        }
    }

    /// Takes what fits into one question.
    fn batch(&mut self) -> Vec<Taken> {
        let mut posts = Vec::new();
        self.shared.inbox.take(ASKS_MAX, &mut posts);
        self.shared.inbox.decided(posts.len());
        let mut bytes = 0;
        let fit = posts.iter().take_while(|post| {
            bytes += weight(&post.ask);
            bytes <= QUESTION_BYTES_MAX
        });
        let rest = posts.split_off(fit.count().max(1).min(posts.len()));
        self.shared.inbox.give_back(rest);
        if !posts.is_empty() {
            self.last_used = self.directory.house().clock.now();
        }
        posts
            .into_iter()
            .map(|post| {
                self.taken += 1;
                (self.taken, post)
            })
            .collect()
    }

    fn heard(&mut self, heard: Heard) {
        let Heard { posts, node, under_way, asked_ns, said } = heard;
        self.under_way -= posts.len();
        self.has_answered |= said.is_ok();
        if let Some(place) = self.asked.iter().position(|ns| *ns == asked_ns) {
            self.asked.swap_remove(place);
        }
        // Before anybody has his answer: he may come back at once.
        self.note_oldest();
        match said {
            Ok(Said::Product { replies, view }) if replies.len() == posts.len() => {
                let took_ns = self.directory.house().clock.nanos().saturating_sub(asked_ns);
                self.shared.inbox.observe_group(group_ns(took_ns, under_way));
                self.pause = PAUSE_MIN;
                self.refused_by = None;
                self.unborn = view.is_none();
                if let Some(view) = view {
                    self.directory.shown(&self.shared, view);
                }
                for ((_, post), reply) in posts.into_iter().zip(replies) {
                    post.token.reply(reply, &self.shared);
                }
            }
            Err(NotAsked::NotSent) => {
                self.back.extend(posts);
                self.rest_a_while();
            }
            Err(NotAsked::Refused | NotAsked::Elsewhere) => {
                self.back.extend(posts);
                self.refused_by = Some(node);
                self.rest_a_while();
            }
            Ok(_) | Err(NotAsked::Unknown) => {
                let still = self.directory.house().clock.now().plus(-WAIT_MAX_MS);
                // Whoever has waited too long would only be told so, and takes nothing from the others.
                let is_worth_it = |post: &Post| post.arrived >= still && may_be_asked_again(&post.ask);
                // Together they are one question more.
                let some = posts.iter().any(|(_, post)| is_worth_it(post));
                let routes = self.directory.routes();
                let again = some && routes.is_some_and(|routes| routes.abroad.may_ask_again(&node));
                for (at, mut post) in posts {
                    let is_command = matches!(post.ask, Ask::Command(_));
                    if again && is_worth_it(&post) {
                        post.token.in_doubt |= is_command;
                        self.back.push((at, post));
                    } else {
                        let why = if is_command { NotDone::Unknown } else { NotDone::Unavailable };
                        post.token.reply(Err(why), &self.shared);
                    }
                }
                self.rest_a_while();
            }
        }
    }

    /// Tells the doors. An owner that is only being loaded takes its time, and whoever comes waits for it.
    fn note_oldest(&self) {
        let oldest = self.asked.iter().copied().min();
        self.shared.inbox.asked_since(oldest.filter(|_| self.has_answered));
    }

    fn rest_a_while(&mut self) {
        let pause_ns = u64::try_from(self.pause.as_nanos()).unwrap_or(u64::MAX);
        self.paused_until_ns = self.directory.house().clock.nanos().saturating_add(pause_ns);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }

    fn give_back(&mut self) {
        let mut back = std::mem::take(&mut self.back);
        back.sort_unstable_by_key(|(at, _)| *at);
        self.shared.inbox.give_back(back.into_iter().map(|(_, post)| post).collect());
    }

    fn give_up_older(&mut self, now: Millis) {
        let older = self.shared.inbox.take_older(now.plus(-WAIT_MAX_MS));
        self.shared.inbox.decided(older.len());
        for post in older {
            post.token.reply(Err(NotDone::Unavailable), &self.shared);
        }
    }

    fn looks_again_after(&self) -> Duration {
        if self.shared.inbox.undecided() == 0 {
            return TICK;
        }
        let now_ns = self.directory.house().clock.nanos();
        let paused = Duration::from_nanos(self.paused_until_ns.saturating_sub(now_ns));
        if paused.is_zero() { WAITING_TICK } else { paused }
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        if self.handed_over {
            return;
        }
        self.give_back();
        self.directory.forget(&self.shared);
        if let Some(rested) = self.resting.take() {
            let _ = rested.send(());
        }
    }
}

/// Whether an answer that was lost may be asked for again: nothing is changed, or a key makes it once.
fn may_be_asked_again(ask: &Ask) -> bool {
    match ask {
        Ask::Order(_) | Ask::OrderOfKey { .. } => true,
        // The line of an order that is being placed is known by the order's id, which nobody else has.
        Ask::Command(Command::Reserve(reserve)) => reserve.key.is_some() || reserve.placing.is_some(),
        Ask::Command(_) => false,
    }
}
