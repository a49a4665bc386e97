//! The stock actor: the one owner of one product, around its pure protocol.
//!
//! It owns the ledger and nothing else: questions come through the mailbox, groups go to the journal, answers leave
//! when the journal has spoken. It decides at once and never waits while deciding; waiting happens around it.
//!
//! Always true: a panic while deciding costs the command that caused it and a reload, never an answer that was
//! given; a reload begins only after the journal has spoken about the group in flight.

mod counted;
mod lapses;
mod recover;
mod saving;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use self::counted::Counted;
use self::saving::Saving;
use super::answer::{NotDone, View};
use super::directory::{Directory, House};
use super::inbox::{Inbox, Post, Token, Wakeups};
use super::protocol::{Ask, Input, Outcome, Output, Protocol};
use super::shared::Shared;
use crate::domain::stock::{CANCELLED_DROPPED_MAX, Command, Entry, Millis};

/// How often an owner looks whether it is idle, or is to be stored.
const TICK: Duration = Duration::from_secs(5);
/// An order that has ended without a sale is remembered for so long after its hold was due: a day in which whoever has it still asks its
/// owner. Behind it the tables know.
const ENDED_REMEMBERED_MS: i64 = 24 * 3_600_000;
/// How often it is looked for such, from the beginning on.
const FORGET_EVERY_MS: i64 = 3_600_000;
/// How long to wait before it is looked again whether groups are accepted.
const NOT_WRITABLE_PAUSE: Duration = Duration::from_millis(100);
/// How long to wait before the journal is asked again.
const LOAD_AGAIN: Duration = Duration::from_millis(200);
/// An owner that is to leave, and for so long cannot say what became of its last group, stays.
const LEAVE_WITHIN: Duration = Duration::from_secs(3);
/// More panics than this within [`PANIC_WINDOW_MS`] halt the product.
const PANICS_MAX: usize = 3;
const PANIC_WINDOW_MS: i64 = 10_000;
/// Commands that made the owner panic, remembered so that a retry does not do it again.
const QUARANTINE_MAX: usize = 64;

/// Where the owner stands.
enum Phase {
    /// The ledger is being read; questions wait.
    Loading,
    Serving(Box<Protocol<Token>>),
    /// The ledger cannot be read, or made the owner fail again and again: this product alone stands still.
    Halted,
}

/// The actor of one product.
pub struct StockOwner {
    shared: Arc<Shared>,
    house: Arc<House>,
    directory: Directory,
    phase: Phase,
    /// The journal has a group of ours.
    in_flight_since_ns: Option<u64>,
    /// A reload waits for the journal's word.
    reload_after_word: bool,
    drained: Vec<Post>,
    out: Vec<Output<Token>>,
    timer: Option<(Millis, SpawnHandle)>,
    last_asked: Millis,
    /// When it is looked next for what need not be remembered any more.
    forget_at: Millis,
    panics: VecDeque<Millis>,
    quarantine: VecDeque<Ask>,
    counted: Counted,
    saving: Saving,
    leaving: Leaving,
    /// Whoever is next has the mailbox.
    handed_over: bool,
    /// Since when it would leave, and cannot.
    kept_since: Option<Millis>,
}

/// Whether the owner hands its mailbox over.
enum Leaving {
    No,
    /// Nothing is taken any more; who waits for it.
    Asked(oneshot::Sender<bool>),
    /// It stops, and the mailbox stays.
    Left(oneshot::Sender<bool>),
}

impl StockOwner {
    pub fn new(shared: Arc<Shared>, house: Arc<House>, directory: Directory) -> StockOwner {
        let (last_asked, counted) = (house.clock.now(), Counted::new(house.clone()));
        StockOwner {
            shared,
            house,
            directory,
            phase: Phase::Loading,
            in_flight_since_ns: None,
            reload_after_word: false,
            drained: Vec::new(),
            out: Vec::new(),
            timer: None,
            last_asked,
            forget_at: last_asked,
            panics: VecDeque::new(),
            quarantine: VecDeque::new(),
            counted,
            saving: Saving::default(),
            leaving: Leaving::No,
            handed_over: false,
            kept_since: None,
        }
    }

    /// One turn: hear the journal, decide what waits, lapse what is due, write what was decided.
    fn turn(&mut self, ctx: &mut Context<Self>) {
        let now = self.house.clock.now();
        let (outcome, left) = self.shared.inbox.take_signals();
        if let Some(outcome) = outcome {
            self.heard(outcome, ctx);
        }
        if let Some(left) = left
            && matches!(self.leaving, Leaving::No)
        {
            self.leaving = Leaving::Asked(left);
            // Whatever else wakes it, or nothing.
            ctx.run_later(LEAVE_WITHIN + Duration::from_millis(50), StockOwner::turn);
        }
        match &self.phase {
            _ if !matches!(self.leaving, Leaving::No) => self.leave_if_quiet(ctx),
            Phase::Serving(_) => self.decide(now, ctx),
            Phase::Loading => {}
            Phase::Halted => self.refuse_all(NotDone::Internal),
        }
        if let Some(done) = self.shared.inbox.take_drain() {
            self.rest(done, ctx);
        }
    }

    fn heard(&mut self, outcome: Outcome, ctx: &mut Context<Self>) {
        let nanos = self.house.clock.nanos();
        if let Some(since) = self.in_flight_since_ns.take() {
            let took = nanos.saturating_sub(since);
            self.house.metrics.group_write_seconds.record(took as f64 / 1e9);
            self.shared.inbox.observe_group(took);
        }
        if outcome != Outcome::Unknown {
            self.kept_since = None;
        }
        match outcome {
            Outcome::Written => {}
            Outcome::NotWritten => self.house.metrics.not_written.increment(1),
            Outcome::Unknown => self.house.metrics.unknown_outcomes.increment(1),
        }
        if self.reload_after_word {
            self.reload_after(outcome, ctx);
        } else {
            self.step(Input::Appended(outcome));
            self.carry_out(ctx);
        }
    }

    fn decide(&mut self, now: Millis, ctx: &mut Context<Self>) {
        let started = self.house.clock.nanos();
        self.lapse_first(now);
        let mut drained = std::mem::take(&mut self.drained);
        while let Phase::Serving(protocol) = &self.phase
            && protocol.room() > 0
        {
            self.shared.inbox.take(protocol.room(), &mut drained);
            if drained.is_empty() {
                break;
            }
            self.last_asked = now;
            let count = drained.len();
            if let Some(first) = drained.first() {
                // The longest wait of the batch: one measurement a turn, not one a question.
                let waited = started.saturating_sub(first.token.asked_ns);
                self.house.metrics.owner_queue_wait_seconds.record(waited as f64 / 1e9);
            }
            for post in drained.drain(..) {
                self.ask(post, now);
            }
            self.returning();
            self.shared.inbox.decided(count);
        }
        self.drained = drained;
        self.lapse_and_submit(now);
        self.returning();
        self.carry_out(ctx);
        self.note_open();
        self.set_timer(ctx);
        self.leave_if_unborn(ctx);
    }

    /// What is decided goes to the journal, also where nothing can be written any more: whoever waits for it hears that it was not, and it
    /// holds up nobody who wants to go. Nothing lapses meanwhile.
    fn submit_open(&mut self) {
        let Phase::Serving(protocol) = &self.phase else { return };
        if protocol.open_events() > 0 && self.in_flight_since_ns.is_none() {
            self.step(Input::Turn { lapse_until: Millis(0) });
        }
    }

    /// Tells the doors how many stand before them.
    fn note_open(&self) {
        let open = match &self.phase {
            Phase::Serving(protocol) => protocol.open_events(),
            Phase::Loading | Phase::Halted => 0,
        };
        self.shared.inbox.opened(open);
    }

    /// Tells the doors whether units are on their way back, before anyone may take the mailbox for empty.
    fn returning(&self) {
        // While the ledger is read again nobody knows what is on its way: the view proves nothing.
        let calm = matches!(&self.phase, Phase::Serving(protocol) if !protocol.returns_units());
        self.shared.set_returning(!calm);
    }

    fn ask(&mut self, post: Post, now: Millis) {
        let Post { ask, token, arrived, until } = post;
        if now > until {
            token.reply(Err(NotDone::Unavailable), &self.shared);
            return;
        }
        if !matches!(self.phase, Phase::Serving(_)) {
            token.reply(Err(NotDone::Unavailable), &self.shared);
            return;
        }
        if matches!(ask, Ask::Command(_)) && !self.house.home.is_writable() {
            token.reply(Err(NotDone::Unavailable), &self.shared);
            return;
        }
        if self.quarantine.iter().any(|before| same_question(before, &ask)) {
            token.reply(Err(NotDone::Quarantined), &self.shared);
            return;
        }
        // A panic leaves no trace in the journal: a copy of the question is the price of knowing which one it was.
        let suspect = ask.clone();
        if !self.step(Input::Ask { token, ask, arrived, until }) {
            if self.quarantine.len() == QUARANTINE_MAX {
                self.quarantine.pop_front();
            }
            self.quarantine.push_back(suspect);
        }
    }

    /// One step of the protocol; `false` if it panicked. Then the ledger is read again from the journal.
    fn step(&mut self, input: Input<Token>) -> bool {
        let Phase::Serving(protocol) = &mut self.phase else {
            // Questions drained before a panic in the same turn: their tokens say *unknown* by being dropped.
            return true;
        };
        let out = &mut self.out;
        let deciding = || {
            #[cfg(test)]
            super::testing::swallow(&input);
            protocol.step(input, out);
        };
        if catch_unwind(AssertUnwindSafe(deciding)).is_ok() {
            return true;
        }
        error!(product = %self.shared.product, "the owner panicked while deciding; its ledger is read again");
        self.house.metrics.owner_restarts.increment(1);
        // The state may be half changed: nothing of it is used or written any more. Whoever waits hears *unknown*.
        self.phase = Phase::Loading;
        self.out.clear();
        self.out.push(Output::Reload);
        self.panics.push_back(self.house.clock.now());
        false
    }

    fn carry_out(&mut self, ctx: &mut Context<Self>) {
        let mut out = std::mem::take(&mut self.out);
        for output in out.drain(..) {
            match output {
                Output::Append(entry) => self.append(entry),
                Output::Reply(token, reply) => token.reply(reply, &self.shared),
                Output::Publish(view) => self.publish(view),
                Output::AskHome { order, home } => self.directory.ask_home(self.shared.product, order, home),
                Output::Reload => self.reload(ctx),
            }
        }
        self.out = out;
    }

    fn append(&mut self, entry: Entry) {
        self.in_flight_since_ns = Some(self.house.clock.nanos());
        self.house.metrics.group_events.record(entry.count() as f64);
        let word = Word(Some(self.shared.inbox.clone()));
        self.house.home.submit(entry, Box::new(move |outcome| word.says(outcome)));
    }

    fn publish(&mut self, view: Arc<View>) {
        if let Phase::Serving(protocol) = &mut self.phase {
            self.counted.record(protocol.take_tally());
            self.counted.now(view.counts.held, protocol.ledger().remembered());
            self.shared.publish(view, protocol.ledger());
            self.house.changes.note(&self.shared);
            self.shared.set_returning(protocol.returns_units());
        }
    }

    fn set_timer(&mut self, ctx: &mut Context<Self>) {
        let Phase::Serving(protocol) = &self.phase else { return };
        let next = protocol.next_deadline();
        if next == self.timer.as_ref().map(|(at, _)| *at) {
            return;
        }
        if let Some((_, handle)) = self.timer.take() {
            ctx.cancel_future(handle);
        }
        if let Some(at) = next {
            let wait = self.house.clock.until(at) + Duration::from_millis(1);
            // What is due cannot lapse while nothing can be written.
            let wait = if self.house.home.is_writable() { wait } else { wait.max(NOT_WRITABLE_PAUSE) };
            let handle = ctx.run_later(wait, |owner, ctx| {
                owner.timer = None;
                owner.turn(ctx);
            });
            self.timer = Some((at, handle));
        }
    }

    /// A product that was never created costs nothing for long: the name alone must not fill the memory.
    fn leave_if_unborn(&mut self, ctx: &mut Context<Self>) {
        let Phase::Serving(protocol) = &self.phase else { return };
        if protocol.ledger().sequence().0 == 0 && self.shared.inbox.close_if_empty() {
            self.stop(ctx);
        }
    }

    fn refuse_all(&mut self, why: NotDone) {
        let mut waiting = Vec::new();
        self.shared.inbox.take(usize::MAX, &mut waiting);
        let count = waiting.len();
        for post in waiting {
            post.token.reply(Err(why.clone()), &self.shared);
        }
        self.shared.inbox.decided(count);
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        if !matches!(self.leaving, Leaving::No) {
            return self.turn(ctx);
        }
        let now = self.house.clock.now();
        let Phase::Serving(protocol) = &self.phase else { return };
        if self.shared.is_looked_at() {
            self.last_asked = now;
        }
        let idle = self.directory.is_idle(now.0 - self.last_asked.0);
        if protocol.is_quiet() && now >= self.forget_at && self.forgets(now, ctx) {
            // At the next look perhaps more.
            return;
        }
        let Phase::Serving(protocol) = &self.phase else { return };
        if idle
            && protocol.is_quiet()
            && protocol.next_deadline().is_none()
            && self.shared.inbox.close_if_empty()
        {
            // Not of the actor: it may finish after the actor has gone.
            actix::spawn(self.stored_at_rest());
            return self.stop(ctx);
        }
        self.has_itself_saved(now, ctx);
        // Timers stand still while the machine sleeps, deadlines do not.
        self.turn(ctx);
    }

    /// Drops the orders that nobody asks for any more, if they are many; `false` if nothing is dropped. Nothing is while the tables lag:
    /// they are to know instead.
    fn forgets(&mut self, now: Millis, ctx: &mut Context<Self>) -> bool {
        if !self.house.home.is_writable() || self.house.lagging.load(Ordering::Relaxed) {
            return false;
        }
        let before = self.remembered();
        self.forget_at = now.plus(FORGET_EVERY_MS);
        let forgotten = match self.step(Input::Forget { before: now.plus(-ENDED_REMEMBERED_MS), now }) {
            true => before.saturating_sub(self.remembered()),
            false => 0,
        };
        if forgotten >= CANCELLED_DROPPED_MAX {
            // There may be more.
            self.forget_at = now;
        }
        if forgotten > 0 {
            info!(product = %self.shared.product, forgotten, "orders that came to nothing a day ago are dropped; the tables have them");
        }
        self.carry_out(ctx);
        forgotten > 0
    }

    fn remembered(&self) -> usize {
        match &self.phase {
            Phase::Serving(protocol) => protocol.ledger().remembered(),
            Phase::Loading | Phase::Halted => 0,
        }
    }

    /// Shutdown: nothing new comes in; store and stop once everything decided is written.
    fn rest(&mut self, done: oneshot::Sender<()>, ctx: &mut Context<Self>) {
        let left = self.shared.inbox.close();
        let count = left.len();
        for post in left {
            post.token.reply(Err(NotDone::Unavailable), &self.shared);
        }
        self.shared.inbox.decided(count);
        let busy = matches!(&self.phase, Phase::Serving(protocol) if !protocol.is_quiet());
        if busy {
            self.submit_open();
            self.carry_out(ctx);
            ctx.run_later(Duration::from_millis(2), |owner, ctx| owner.rest(done, ctx));
            return;
        }
        let storing = self.stored_at_rest();
        ctx.spawn(
            async move {
                storing.await;
                let _ = done.send(());
            }
            .into_actor(self)
            .map(|(), owner, ctx| owner.stop(ctx)),
        );
    }

    /// Hands the mailbox over: once everything decided is written and answered, the owner has itself stored as at rest and stops.
    fn leave_if_quiet(&mut self, ctx: &mut Context<Self>) {
        self.shared.proves_nothing();
        let busy = match &self.phase {
            Phase::Serving(protocol) => !protocol.is_quiet(),
            // Nobody may know yet what became of its last group: whoever is next would begin before it, and it may come behind him.
            Phase::Loading => true,
            Phase::Halted => false,
        };
        if busy || self.in_flight_since_ns.is_some() {
            self.submit_open();
            self.carry_out(ctx);
            return self.stay_if_late();
        }
        match std::mem::replace(&mut self.leaving, Leaving::No) {
            Leaving::Asked(left) => self.leaving = Leaving::Left(left),
            other => {
                self.leaving = other;
                return;
            }
        }
        self.shared.inbox.opened(0);
        // Nobody waits for it: the journal has everything, and buyers stand at the mailbox.
        actix::spawn(self.stored_at_rest());
        ctx.stop();
    }

    /// Nobody waits for ever: where it is not to be found out what became of its last group the owner goes on here, once that is known.
    fn stay_if_late(&mut self) {
        let now = self.house.clock.now();
        let since = *self.kept_since.get_or_insert(now);
        if Duration::from_millis(now.0.abs_diff(since.0)) < LEAVE_WITHIN
            || !matches!(self.leaving, Leaving::Asked(_))
        {
            return;
        }
        if let Leaving::Asked(left) = std::mem::replace(&mut self.leaving, Leaving::No) {
            warn!(product = %self.shared.product, "nobody knows yet what became of its last group: the owner stays where it is");
            let _ = left.send(false);
        }
    }

    fn stop(&mut self, ctx: &mut Context<Self>) {
        // Whoever asked meanwhile for what is done now hears it.
        self.directory.forget(&self.shared);
        ctx.stop();
    }
}

/// Whether two questions are the same one asked again. A reservation that is tried again has a new order id.
fn same_question(a: &Ask, b: &Ask) -> bool {
    match (a, b) {
        (Ask::Command(Command::Reserve(a)), Ask::Command(Command::Reserve(b))) => {
            (a.buyer, a.quantity, a.key, a.line) == (b.buyer, b.quantity, b.key, b.line)
        }
        (a, b) => a == b,
    }
}

/// The journal's word on one group. One that is lost with whoever was to say it is *unknown*.
struct Word(Option<Arc<Inbox>>);

impl Word {
    fn says(mut self, outcome: Outcome) {
        if let Some(inbox) = self.0.take() {
            inbox.appended(outcome);
        }
    }
}

impl Drop for Word {
    fn drop(&mut self) {
        if let Some(inbox) = self.0.take() {
            inbox.appended(Outcome::Unknown);
        }
    }
}

impl Actor for StockOwner {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.add_stream(Wakeups(self.shared.inbox.clone()));
        ctx.run_interval(TICK, StockOwner::tick);
        self.load(ctx);
    }

    fn stopped(&mut self, _: &mut Context<Self>) {
        self.stays_in_doubt();
        // Only now: no waking of the mailbox reaches this owner any more.
        if let Leaving::Left(left) = std::mem::replace(&mut self.leaving, Leaving::No)
            && !self.shared.inbox.is_closed()
        {
            self.handed_over = left.send(true).is_ok();
        }
    }
}

/// However it ends, also before it has begun: nobody waits at a mailbox from which nobody takes.
impl Drop for StockOwner {
    fn drop(&mut self) {
        if !self.handed_over {
            self.directory.forget(&self.shared);
        }
    }
}

impl StreamHandler<()> for StockOwner {
    fn handle(&mut self, (): (), ctx: &mut Context<Self>) {
        self.turn(ctx);
    }

    fn finished(&mut self, _: &mut Context<Self>) {}
}
