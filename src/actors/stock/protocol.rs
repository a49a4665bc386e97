//! The owner's protocol: decide, write, and only then say so.
//!
//! A pure state machine: [`Protocol::step`] takes the time and an input and names the outputs; whoever drives it
//! carries them out. It owns one product's ledger in two states: *speculative*, against which commands are
//! decided, and *published*, which the journal holds.
//!
//! Always true: at most one group is in flight; every answer, refusals too, leaves after the group it depends on
//! was written; after a group that was not written nothing is decided until the ledger is read again.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::answer::{Answer, NotDone, Receipt, Reply, View};
use crate::domain::id::{OrderId, ProductId, UserId};
use crate::domain::stock::{
    Command, Decision, Entry, Epoch, Event, Forgotten, HoldState, Ledger, Millis, Refused, ReplayError,
    Sequence, Standing, UnreadableSnapshot,
};

/// The most events one product puts into one group.
pub const GROUP_EVENTS_MAX: u32 = 512;
/// The most bytes one product puts into one group; one more event may start below it.
pub const GROUP_BYTES_MAX: usize = 64 * 1024;
/// A hold with its key; only the birth of an order of several lines is longer.
const EVENT_BYTES_USUAL: usize = 96;
/// The most lapses at once, and of a group so many go before whoever waits: a crowd of expiring holds must not delay the commands
/// behind it.
pub const GROUP_LAPSES_MAX: u32 = 256;
/// Fewer orders than this are not forgotten for their own sake …
pub const FORGOTTEN_MIN: usize = 1_000;
/// … and hardly more at once: besides a look at all, each takes half a microsecond in which nobody is served.
pub const FORGOTTEN_MAX: usize = 16_384;
/// How long to wait for a home's word before asking again.
const ASK_HOME_AGAIN_MS: i64 = 1_000;
/// Of so many lines that were held when the ledger was read the homes are asked whether their orders stand; those of any more lapse.
const HOMES_ASKED_MAX: usize = 1_000;
/// So many of them in a turn.
const HOMES_ASKED_AT_ONCE: usize = 100;

/// What is asked of the owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    Command(Command),
    Order(OrderId),
    OrderOfKey { buyer: UserId, key: [u8; 16] },
}

/// What became of the group in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Written,
    /// Certainly not in the journal.
    NotWritten,
    /// Perhaps in the journal.
    Unknown,
}

#[derive(Debug)]
pub enum Input<T> {
    /// A question, when it arrived and until when the answer matters. `token` comes back with the answer.
    Ask {
        token: T,
        ask: Ask,
        arrived: Millis,
        until: Millis,
    },
    /// Somebody waits, and nobody who arrived before `until`: what is due by then lapses before anybody who came later is decided. Nothing
    /// is written yet.
    Due {
        until: Millis,
    },
    /// Nothing more is waiting that arrived before `lapse_until`: lapse what is due and write what is decided.
    Turn {
        lapse_until: Millis,
    },
    /// Drop orders that ended without a sale and were due before this, if they are many, and so many that nobody waits for it.
    Forget {
        before: Millis,
        now: Millis,
    },
    Appended(Outcome),
}

#[derive(Debug)]
pub enum Output<T> {
    /// Write this. One at a time.
    Append(Entry),
    Reply(T, Reply),
    Publish(Arc<View>),
    /// A placing hold is due, or a line's hold was found when the ledger was read: ask its home whether the order was born and stands,
    /// and tell the owner to keep or release it.
    AskHome {
        order: OrderId,
        home: ProductId,
    },
    /// The state cannot be trusted any more: read it from the journal again.
    Reload,
}

/// What published events did, in units; for the metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub held: u64,
    pub released: u64,
    pub expired: u64,
    pub sold: u64,
    pub returned: u64,
    /// How late the latest lapse was.
    pub lateness_ms: Option<i64>,
}

impl Tally {
    fn count(&mut self, event: &Event) {
        match event {
            Event::Held(e) => self.held += u64::from(e.quantity.get()),
            Event::Released(e) => self.released += u64::from(e.quantity.get()),
            Event::Expired(e) => self.expired += u64::from(e.quantity.get()),
            Event::Confirmed(e) => self.sold += u64::from(e.quantity.get()),
            Event::Returned(e) => self.returned += u64::from(e.quantity.get()),
            _ => {}
        }
    }

    fn add(&mut self, other: Tally) {
        self.held += other.held;
        self.released += other.released;
        self.expired += other.expired;
        self.sold += other.sold;
        self.returned += other.returned;
        self.lateness_ms = self.lateness_ms.max(other.lateness_ms);
    }
}

/// Decisions that are written together.
#[derive(Debug)]
struct Group<T> {
    first: Sequence,
    events: Vec<u8>,
    count: u32,
    at: Millis,
    answers: Vec<(T, Reply)>,
    returns_units: bool,
    view: Option<Arc<View>>,
    /// Where the ledger stands when it is written.
    standing: Option<Standing>,
    tally: Tally,
}

impl<T> Group<T> {
    fn new() -> Self {
        Group {
            first: Sequence(0),
            events: Vec::new(),
            count: 0,
            at: Millis(i64::MIN),
            answers: Vec::new(),
            returns_units: false,
            view: None,
            standing: None,
            tally: Tally::default(),
        }
    }

    fn is_full(&self) -> bool {
        self.count >= GROUP_EVENTS_MAX || self.events.len() >= GROUP_BYTES_MAX
    }
}

/// Why a ledger could not be read back. The product halts until someone looks.
#[derive(Debug, thiserror::Error)]
pub enum Unrecoverable {
    #[error(transparent)]
    Snapshot(#[from] UnreadableSnapshot),
    #[error(transparent)]
    Replay(#[from] ReplayError),
}

/// One product's owner, without its mailbox.
#[derive(Debug)]
pub struct Protocol<T> {
    product: ProductId,
    epoch: Epoch,
    ledger: Ledger,
    open: Group<T>,
    in_flight: Option<Group<T>>,
    /// After a failed append: decide nothing.
    lost: bool,
    /// Lines of orders that have their homes elsewhere, found when the ledger was read. Whoever cancelled one may have got no further than
    /// its home.
    found: Vec<(OrderId, ProductId)>,
    /// Where the journal has it.
    written: Standing,
    /// The sequence of the last snapshot.
    saved: Sequence,
    /// Orders that were dropped since, and when the last of them were: each counts as an event that is not saved.
    dropped: u64,
    dropped_at: Sequence,
    /// What was published since somebody last looked.
    published: Tally,
}

impl<T> Protocol<T> {
    /// The owner as the journal knows it: the latest snapshot, then every entry after it.
    pub fn recover(
        product: ProductId,
        epoch: Epoch,
        snapshot: Option<&[u8]>,
        entries: &[Entry],
    ) -> Result<Self, Unrecoverable> {
        let mut ledger = match snapshot {
            Some(bytes) => Ledger::restore(bytes)?,
            None => Ledger::default(),
        };
        let saved = ledger.sequence();
        for entry in entries {
            ledger.replay(entry)?;
        }
        let written = ledger.standing();
        let found = ledger.held_for_others(product).take(HOMES_ASKED_MAX).collect();
        Ok(Protocol {
            product,
            epoch,
            ledger,
            open: Group::new(),
            in_flight: None,
            lost: false,
            found,
            written,
            saved,
            dropped: 0,
            dropped_at: Sequence(0),
            published: Tally::default(),
        })
    }

    pub fn step(&mut self, input: Input<T>, out: &mut Vec<Output<T>>) {
        match input {
            Input::Ask { token, .. } if self.lost => {
                out.push(Output::Reply(token, Err(NotDone::Unavailable)))
            }
            Input::Ask { token, arrived, until, .. } if arrived > until => {
                out.push(Output::Reply(token, Err(NotDone::Unavailable)));
            }
            Input::Ask { token, ask, arrived, .. } => {
                let reply = self.settle(ask, arrived);
                self.answer(token, reply, out);
            }
            Input::Due { .. } | Input::Turn { .. } if self.lost => {}
            // The rest of the group is for whoever waits.
            Input::Due { until } => self.lapse(until, GROUP_LAPSES_MAX.saturating_sub(self.open.count), out),
            Input::Turn { lapse_until } => {
                self.lapse(lapse_until, GROUP_LAPSES_MAX, out);
                // Not where nothing lapses: what is heard could not be written.
                if lapse_until > Millis(0) {
                    self.ask_homes(out);
                }
                self.append(out);
            }
            Input::Forget { .. } if self.lost => {}
            Input::Forget { before, now } => {
                self.forget(before, now);
                self.append(out);
            }
            Input::Appended(outcome) => self.appended(outcome, out),
        }
    }

    /// Whether another question can be decided now. When not, it waits outside.
    pub fn has_room(&self) -> bool {
        self.room() > 0
    }

    /// How many questions can be decided now, each with an event of ordinary size.
    pub fn room(&self) -> usize {
        if self.lost || self.open.is_full() {
            return 0;
        }
        let events = (GROUP_EVENTS_MAX - self.open.count) as usize;
        let bytes = (GROUP_BYTES_MAX - self.open.events.len()) / EVENT_BYTES_USUAL;
        events.min(bytes).max(1)
    }

    /// How many events are decided and not with the journal yet.
    pub fn open_events(&self) -> usize {
        self.open.count as usize
    }

    /// Whether everything decided is written and answered.
    pub fn is_quiet(&self) -> bool {
        self.in_flight.is_none() && self.open.count == 0
    }

    /// Whether an event not yet published gives units back: until then nobody may be told *sold out* from the view.
    pub fn returns_units(&self) -> bool {
        self.open.returns_units || self.in_flight.as_ref().is_some_and(|group| group.returns_units)
    }

    /// When the next hold lapses.
    pub fn next_deadline(&self) -> Option<Millis> {
        self.ledger.next_deadline()
    }

    /// Whether a hold is due.
    pub fn is_due(&self, now: Millis) -> bool {
        self.next_deadline().is_some_and(|deadline| deadline <= now)
    }

    /// Events since the last snapshot.
    pub fn unsaved(&self) -> u64 {
        self.ledger.sequence().0.saturating_sub(self.saved.0) + self.dropped
    }

    /// Where the ledger stood when the last group was written: what the journal has leads there.
    pub fn written(&self) -> Standing {
        self.written
    }

    /// A snapshot at this sequence stands. What comes behind it is unsaved.
    pub fn stored(&mut self, at: Sequence) {
        self.saved = self.saved.max(at);
        if self.dropped_at <= at {
            self.dropped = 0;
        }
    }

    /// What was published since the last call.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.published)
    }

    /// The state at rest, if the owner is quiet, and its sequence.
    pub fn snapshot(&mut self) -> Option<(Sequence, Vec<u8>)> {
        if !self.is_quiet() || self.lost {
            return None;
        }
        let at = self.ledger.sequence();
        self.stored(at);
        Some((at, self.ledger.snapshot()))
    }

    /// The ledger, for tests, audits and registries that are filled at start.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What may be shown now, by the ledger's time; `None` before the product's first event.
    pub fn view(&self, now: Millis) -> Option<Arc<View>> {
        let settings = self.ledger.settings()?.clone();
        Some(Arc::new(View {
            sequence: self.ledger.sequence(),
            counts: self.ledger.counts(),
            settings: Arc::new(settings),
            paused: self.ledger.is_paused(),
            archived: self.ledger.is_archived(),
            as_of: self.ledger.time(now),
        }))
    }

    /// Decides against the speculative state and, if it is not refused, makes it so.
    fn settle(&mut self, ask: Ask, arrived: Millis) -> Reply {
        match ask {
            Ask::Order(order) => Ok(Answer::Order(self.ledger.order(self.product, order).map(Box::new))),
            Ask::OrderOfKey { buyer, key } => Ok(Answer::OrderOfKey(self.ledger.order_of_key(buyer, key))),
            Ask::Command(command) => match self.ledger.decide(&command, arrived) {
                Err(refused) => Err(self.refused(refused)),
                Ok(Decision::Replay(order)) => Ok(self.again(order)),
                Ok(Decision::Done) => Ok(self.done(true)),
                Ok(Decision::Event(event)) => {
                    self.happen(&event, arrived, command.may_return_units());
                    Ok(self.told(event))
                }
            },
        }
    }

    fn refused(&self, refused: Refused) -> NotDone {
        NotDone::Refused { product: self.product, refused }
    }

    fn done(&self, replayed: bool) -> Answer {
        Answer::Done { sequence: self.ledger.sequence(), counts: self.ledger.counts(), replayed }
    }

    /// What was done before. A line of an order that is still being placed is held for whoever asks: he alone knows its id, and needs to
    /// know what he holds.
    fn again(&self, order: OrderId) -> Answer {
        match self.ledger.order(self.product, order) {
            Some(held) if held.state == HoldState::Placing => Answer::Reserved(Receipt {
                order,
                product: self.product,
                line: held.line,
                quantity: held.quantity,
                unit_price: held.unit_price,
                sequence: held.sequence,
                deadline: held.deadline,
                hold_ms: self.hold_ms(),
            }),
            _ => Answer::Replayed(order),
        }
    }

    fn hold_ms(&self) -> u32 {
        self.ledger.settings().map_or(0, |settings| settings.hold_ms)
    }

    fn told(&self, event: Event) -> Answer {
        match event {
            Event::Held(held) => Answer::Reserved(Receipt {
                order: held.order,
                product: self.product,
                line: held.line,
                quantity: held.quantity,
                unit_price: held.unit_price,
                sequence: self.ledger.sequence(),
                deadline: held.deadline,
                hold_ms: self.hold_ms(),
            }),
            _ => self.done(false),
        }
    }

    /// From here on it must succeed.
    fn happen(&mut self, event: &Event, at: Millis, returns_units: bool) {
        let group = &mut self.open;
        if group.count == 0 {
            group.first = self.ledger.sequence().next();
        }
        self.ledger.apply(event);
        group.tally.count(event);
        event.encode(&mut group.events);
        group.count += 1;
        group.at = group.at.max(at);
        group.returns_units |= returns_units;
    }

    /// An answer leaves with the last group that its decision could have seen.
    fn answer(&mut self, token: T, reply: Reply, out: &mut Vec<Output<T>>) {
        if self.open.count > 0 {
            self.open.answers.push((token, reply));
        } else if let Some(group) = &mut self.in_flight {
            group.answers.push((token, reply));
        } else {
            out.push(Output::Reply(token, reply));
        }
    }

    fn lapse(&mut self, until: Millis, most: u32, out: &mut Vec<Output<T>>) {
        for _ in 0..most {
            if self.open.is_full() {
                return;
            }
            if let Some((order, home)) = self.ledger.placing_due(self.product, until) {
                self.ledger.ask_again_at(order, until.plus(ASK_HOME_AGAIN_MS));
                out.push(Output::AskHome { order, home });
            } else if let Some(event) = self.ledger.due(until) {
                let lateness = self.ledger.next_deadline().map(|deadline| until.0.saturating_sub(deadline.0));
                self.happen(&event, until, true);
                self.open.tally.lateness_ms = self.open.tally.lateness_ms.max(lateness);
            } else {
                return;
            }
        }
    }

    /// Asks about what was found, once: a word that is lost costs nothing but the time until the order's deadline.
    fn ask_homes(&mut self, out: &mut Vec<Output<T>>) {
        let rest = self.found.len().saturating_sub(HOMES_ASKED_AT_ONCE);
        for (order, home) in self.found.drain(rest..) {
            let line = self.ledger.order(self.product, order);
            if line.is_some_and(|line| line.state == HoldState::Held) {
                out.push(Output::AskHome { order, home });
            }
        }
    }

    /// Few are not worth an event; of very many those go first that were due first.
    fn forget(&mut self, before: Millis, now: Millis) {
        if self.ledger.remembered() < FORGOTTEN_MIN {
            return;
        }
        let mut due: Vec<Millis> = self.ledger.forgettable(before, before).map(|(_, due)| due).collect();
        let Forgotten { cancelled, .. } = self.ledger.forgotten(before, before);
        if due.len() + cancelled.len() < FORGOTTEN_MIN {
            return;
        }
        // It is worth a snapshot, which is as long as what is remembered.
        self.dropped += (due.len().min(FORGOTTEN_MAX) + cancelled.len()) as u64;
        let before = match due.len() {
            few if few <= FORGOTTEN_MAX => before,
            _ => due.select_nth_unstable(FORGOTTEN_MAX - 1).1.plus(1),
        };
        let forgotten = Forgotten { unkeyed_before: before, keyed_before: before, cancelled };
        self.happen(&Event::Forgotten(forgotten), now, false);
        self.dropped_at = self.ledger.sequence();
    }

    fn append(&mut self, out: &mut Vec<Output<T>>) {
        if self.in_flight.is_some() || self.open.count == 0 {
            return;
        }
        let mut group = std::mem::replace(&mut self.open, Group::new());
        let at = self.ledger.time(group.at);
        let events = std::mem::take(&mut group.events);
        // The next group will be about as large.
        self.open.events.reserve(events.len());
        self.open.answers.reserve(group.answers.len());
        let range = (group.first, self.ledger.sequence());
        let entry = Entry::seal(self.product, range, self.epoch, at, self.ledger.hash(), events);
        self.ledger.sealed(entry.hash, at);
        group.view = self.view(at);
        group.standing = Some(self.ledger.standing());
        self.in_flight = Some(group);
        out.push(Output::Append(entry));
    }

    fn appended(&mut self, outcome: Outcome, out: &mut Vec<Output<T>>) {
        let Some(group) = self.in_flight.take() else { return };
        match outcome {
            Outcome::Written => {
                self.published.add(group.tally);
                self.written = group.standing.unwrap_or(self.written);
                if let Some(view) = group.view {
                    out.push(Output::Publish(view));
                }
                out.extend(group.answers.into_iter().map(|(token, reply)| Output::Reply(token, reply)));
                self.append(out);
            }
            Outcome::NotWritten | Outcome::Unknown => {
                let told = match outcome {
                    Outcome::Unknown => NotDone::Unknown,
                    _ => NotDone::Unavailable,
                };
                out.extend(
                    group.answers.into_iter().map(|(token, _)| Output::Reply(token, Err(told.clone()))),
                );
                // What was decided on top of it was never sent anywhere.
                let open = std::mem::replace(&mut self.open, Group::new());
                let never = open.answers.into_iter();
                out.extend(never.map(|(token, _)| Output::Reply(token, Err(NotDone::Unavailable))));
                self.lost = true;
                out.push(Output::Reload);
            }
        }
    }
}
