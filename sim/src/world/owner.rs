//! The shell around one owner: its turns, and the carrying out of what the protocol says.
//!
//! It does what the product's actor does, in the same order: the journal's word first, then the lapses that go before all who
//! wait, then questions, urgent ones before reservations, then the lapses up to the oldest question that still waits.
//! Between any two outputs the process may die, or this owner alone.

use stockade::actors::stock::{Answer, Ask, Input, NotDone, Outcome, Output, Protocol, Reply};
use stockade::domain::id::OrderId;
use stockade::domain::stock::{Cause, Command, Place, Refused, Sequence};

use super::mailbox::{Inside, Post, Waiter, Waiting};
use super::{Happening, World};
use crate::broken::Broken;
use crate::check::Violation;
use crate::journal::Submission;
use crate::scenario::ENDED_REMEMBERED_MS;
use crate::story::{By, Fact, Ruling};
use crate::time::{MS, Micros};

/// The product's own limit of events in a group (I13).
const GROUP_EVENTS_MAX: u64 = 512;
/// A lapse may be this late while the node is well.
const LATE_MAX_MS: i64 = 100;

impl World {
    /// The journal's word, the questions, the lapses.
    pub(super) fn turn(&mut self, product: usize, owner: u64) {
        let slot = &mut self.node.owners[product];
        if slot.number != owner || slot.protocol().is_none() {
            return;
        }
        slot.woken = false;
        if !slot.protocol().is_some_and(Protocol::has_room) {
            // A full group behind a slow write: nothing could lapse until now.
            slot.excuse = slot.excuse.max(self.node.clock.now(self.now));
        }
        let slot = &mut self.node.owners[product];
        if let Some(outcome) = slot.appended.take()
            && !self.step(product, owner, By::Lapse, None, Input::Appended(outcome))
        {
            return;
        }
        if !self.lapse_first(product, owner) {
            return;
        }
        let regardless = self.is(Broken::DrainWithoutRoom);
        for _ in 0..self.scenario.batch {
            let slot = &mut self.node.owners[product];
            if slot.number != owner || !(slot.protocol().is_some_and(Protocol::has_room) || regardless) {
                break;
            }
            let Some(post) = slot.urgent.pop_front().or_else(|| slot.reserves.pop_front()) else { break };
            if !self.decide(product, owner, post) {
                return;
            }
        }
        if self.lapse(product, owner) {
            self.plan_next_turn(product);
        }
    }

    fn decide(&mut self, product: usize, owner: u64, post: Post) -> bool {
        let Post { token, ask, arrived_ms, until } = post;
        let now = self.clock();
        let Some(waiting) = self.node.waiting.get_mut(&token) else { return true };
        waiting.decided = true;
        let (by, arrived, reserve) = (waiting.by, waiting.arrived, waiting.reserve);
        if now > until {
            self.tally.reach("a question came too late to be decided");
            return self.reply(token, Err(NotDone::Unavailable));
        }
        let slot = &mut self.node.owners[product];
        if let Ask::Command(Command::Keep { deadline, .. } | Command::Place(Place { deadline, .. })) = &ask
            && *deadline <= now
        {
            // It passed on the way. Whatever else is due by now has no excuse of it.
            slot.excuse = slot.excuse.max(*deadline);
        }
        // Some questions are poison: the owner dies while it decides.
        if slot.fuse == Some(0) {
            self.panic_owner(product, owner);
            return false;
        }
        let slot = &mut self.node.owners[product];
        slot.fuse = slot.fuse.map(|left| left.saturating_sub(1));
        let Some(protocol) = slot.protocol() else { return true };
        if let Ask::Command(command) = &ask {
            if let Command::Pin { order, .. } = command
                && let Some(view) = protocol.ledger().order(self.scenario.products[product].id, *order)
                && (0..50).contains(&(view.deadline.0 - arrived_ms.0))
            {
                self.tally.reach("a pin came within 50 ms of the deadline");
            }
            if reserve
                && self.broken == Some(Broken::RefusalBeforeGroup)
                && let Err(refused) = protocol.ledger().decide(command, arrived_ms)
            {
                let id = self.scenario.products[product].id;
                return self.reply(token, Err(NotDone::Refused { product: id, refused }));
            }
        }
        let before = protocol.ledger().sequence();
        let input = Input::Ask { token, ask, arrived: arrived_ms, until };
        if !self.step(product, owner, by, Some(arrived), input) {
            return false;
        }
        let after = self.node.owners[product].protocol().map(|protocol| protocol.ledger().sequence());
        if let Some(waiting) = self.node.waiting.get_mut(&token) {
            waiting.withheld = reserve && after == Some(before);
        }
        true
    }

    /// Lapses what was due before anybody who waits came. A group that begins takes it, whoever else would fill that group.
    fn lapse_first(&mut self, product: usize, owner: u64) -> bool {
        self.judge_lateness(product);
        let now = self.clock();
        let slot = &self.node.owners[product];
        let Some(oldest) = slot.oldest() else { return true };
        let until = oldest.min(now);
        let Some(protocol) = slot.protocol().filter(|protocol| protocol.is_due(until)) else { return true };
        let (begins, before) = (protocol.open_events() == 0, protocol.next_deadline());
        let sequence = protocol.ledger().sequence();
        if !self.step(product, owner, By::Lapse, None, Input::Due { until }) {
            return false;
        }
        let stands = self.node.owners[product].protocol().is_some_and(|protocol| {
            protocol.next_deadline() == before && protocol.ledger().sequence() == sequence
        });
        if !stands {
            self.tally.reach("a hold lapsed before all who waited");
        } else if begins {
            let what = format!("product {product}: a group has begun without a hold that was due");
            self.late.get_or_insert(Violation { invariant: "lapse_on_time", what });
        }
        true
    }

    /// No hold lapses late, but where somebody waits who came before it was due, or a full group stands behind one that is being written.
    fn judge_lateness(&mut self, product: usize) {
        let truly = self.node.clock.now(self.now);
        let slot = &mut self.node.owners[product];
        let Some(protocol) = slot.protocol() else { return };
        let (due, has_room) = (protocol.next_deadline(), protocol.has_room());
        let Some(due) = due else { return };
        if !has_room || slot.oldest().is_some_and(|oldest| oldest < due) {
            slot.excuse = slot.excuse.max(truly);
        }
        if due.0 < truly.0 - LATE_MAX_MS && due > slot.excuse {
            let late = truly.0 - due.0;
            let what = format!("product {product}: a hold was due {late} ms ago");
            self.late.get_or_insert(Violation { invariant: "lapse_on_time", what });
        }
    }

    /// Lapses what is due and lets the group go.
    fn lapse(&mut self, product: usize, owner: u64) -> bool {
        self.judge_lateness(product);
        let now = self.clock();
        let oldest = self.node.owners[product].oldest();
        let waiting = if self.is(Broken::LapseBeforeWaiting) { None } else { oldest };
        let lapse_until = waiting.map_or(now, |oldest| oldest.min(now));
        let before =
            self.node.owners[product].protocol().map_or(0, |protocol| protocol.ledger().sequence().0);
        let alive = self.step(product, owner, By::Lapse, None, Input::Turn { lapse_until });
        let after = self.node.owners[product].protocol().map_or(0, |protocol| protocol.ledger().sequence().0);
        if alive && after - before >= 256 {
            self.tally.reach("256 lapses in one turn");
        }
        alive
    }

    /// An owner that is quiet drops what came to nothing long ago, if it is much.
    pub(super) fn forgets(&mut self, product: usize) {
        let now = self.clock();
        let slot = &self.node.owners[product];
        let Some(protocol) = slot.protocol().filter(|protocol| protocol.is_quiet()) else { return };
        let (owner, before) = (slot.number, protocol.ledger().remembered());
        let forget = Input::Forget { before: now.plus(-ENDED_REMEMBERED_MS), now };
        if !self.step(product, owner, By::Lapse, None, forget) {
            return;
        }
        let after = self.node.owners[product].protocol().map_or(before, |p| p.ledger().remembered());
        if after < before {
            self.say(|| format!("  product {product} forgets {} orders", before - after));
            self.tally.reach("a thousand orders were forgotten at once");
        }
    }

    fn plan_next_turn(&mut self, product: usize) {
        let slot = &self.node.owners[product];
        let (number, waiting, timer) = (slot.number, slot.undecided() > 0, slot.timer);
        let Some(protocol) = slot.protocol() else { return };
        let (room, deadline) = (protocol.has_room(), protocol.next_deadline());
        if waiting && room {
            return self.wake(product);
        }
        let Some(deadline) = deadline.filter(|_| room) else { return };
        let after = self.node.clock.until(deadline, self.now) + self.chance.between(1, 20 * MS);
        let at = self.now + after;
        if timer.is_none_or(|before| before > at) {
            self.node.owners[product].timer = Some(at);
            self.plan(after, Happening::Timer { product, owner: number });
        }
    }

    /// One step of the protocol and everything it says. False when the owner did not survive it.
    fn step(
        &mut self,
        product: usize,
        owner: u64,
        by: By,
        arrived: Option<Micros>,
        input: Input<u64>,
    ) -> bool {
        let mut outputs = Vec::new();
        let slot = &mut self.node.owners[product];
        let Some(protocol) = slot.protocol_mut() else { return false };
        let before = protocol.ledger().sequence().0;
        protocol.step(input, &mut outputs);
        let after = protocol.ledger().sequence().0;
        let fact = Fact {
            by,
            decided: self.now,
            arrived: arrived.unwrap_or(self.now),
            error_us: self.node.clock.error_us(self.now),
            process: self.node.number,
            owner,
            durable: 0,
        };
        slot.facts.extend((before..after).map(|_| fact));
        self.note("step", product as u64, after);
        let mut acked = false;
        for output in outputs {
            if !self.burn(product, owner) {
                return false;
            }
            acked |= matches!(output, Output::Append(_));
            if !self.carry_out(product, owner, output) {
                return false;
            }
        }
        if acked && self.is(Broken::AckBeforeWrite) {
            return self.step(product, owner, By::Lapse, None, Input::Appended(Outcome::Written));
        }
        true
    }

    /// Lets the fuses burn by one output. False when one of them has burnt down.
    fn burn(&mut self, product: usize, owner: u64) -> bool {
        if let Some(left) = &mut self.node.fuse {
            if *left == 0 {
                self.crash("between two outputs");
                return false;
            }
            *left -= 1;
        }
        let slot = &mut self.node.owners[product];
        if let Some(left) = &mut slot.fuse {
            if *left == 0 {
                self.panic_owner(product, owner);
                return false;
            }
            *left -= 1;
        }
        true
    }

    fn carry_out(&mut self, product: usize, owner: u64, output: Output<u64>) -> bool {
        match output {
            Output::Append(entry) => {
                let facts = std::mem::take(&mut self.node.owners[product].facts);
                let count = entry.count();
                self.note("append", entry.last.0, u64::from(entry.hash.0[0]));
                self.say(|| format!("  product {product} appends {}..={}", entry.first.0, entry.last.0));
                if count > GROUP_EVENTS_MAX || count != facts.len() as u64 {
                    self.violated("i13_caps", format!("product {product}: a group of {count} events"));
                }
                if count == GROUP_EVENTS_MAX {
                    self.tally.reach("a group of 512 events");
                }
                self.submit(Submission { product, owner, entry, facts });
                true
            }
            Output::Reply(token, reply) => self.reply(token, reply),
            Output::Publish(view) => {
                self.node.owners[product].view = Some(view);
                true
            }
            Output::AskHome { order, home } => {
                let home = self.product(home);
                self.ask_home(product, order, home);
                true
            }
            Output::Reload => {
                self.note("reload", product as u64, owner);
                self.reload(product);
                false
            }
        }
    }

    fn ask_home(&mut self, asker: usize, order: OrderId, home: Option<usize>) {
        if self.is(Broken::NeverAskHome) {
            let command = Command::Release { order, cause: Cause::NotPlaced, by: 0 };
            let nobody = Waiter::Inside(Inside::Nobody);
            return self.post(asker, Ask::Command(command), nobody, None, By::Word);
        }
        let Some(home) = home else { return };
        let waiter = Waiter::Inside(Inside::Home { asker, order });
        self.post(home, Ask::Order(order), waiter, None, By::Word);
    }

    /// An answer leaves the owner. False when the process did not survive it.
    fn reply(&mut self, token: u64, reply: Reply) -> bool {
        let Some(waiting) = self.node.waiting.remove(&token) else { return true };
        let product = waiting.product;
        let (at, held, pin) = match &reply {
            Ok(Answer::Reserved(receipt)) => (Some(receipt.sequence), true, None),
            Err(NotDone::Refused { refused: Refused { at, why }, .. }) => {
                (Some(*at), false, waiting.pin.map(|order| (order, why.clone())))
            }
            _ => (None, false, None),
        };
        if let Some(at) = at {
            self.told[product] = self.told[product].max(at);
            self.rulings.push(Ruling {
                product,
                owner: self.node.owners[product].number,
                arrival: waiting.arrival,
                arrived: waiting.arrived,
                arrived_ms: waiting.arrived_ms,
                reserve: waiting.reserve,
                at,
                held,
                pin,
            });
        }
        if waiting.withheld && matches!(reply, Err(NotDone::Unavailable | NotDone::Unknown)) {
            self.tally.reach("a refusal was withheld because its group was lost");
        }
        self.deliver(waiting, reply);
        true
    }

    /// An answer reaches whoever waits for it; the claim of its key is kept or given back.
    pub(super) fn deliver(&mut self, waiting: Waiting, reply: Reply) {
        if let Some(print) = waiting.claim {
            // Unknown counts as kept: the order may be in the journal, and its ledger will say.
            let unknown = matches!(reply, Err(NotDone::Unknown)) && !self.is(Broken::UnknownGivesKeyBack);
            if unknown || matches!(reply, Ok(Answer::Reserved(_) | Answer::Replayed(_))) {
                self.node.keys.keep(print, waiting.product);
            }
            self.node.keys.unclaim(print);
        }
        match waiting.waiter {
            Waiter::Door(attempt) => self.door_hears(attempt, waiting.product, reply),
            Waiter::Inside(Inside::Nobody) => {}
            Waiter::Inside(to) => {
                let soon = self.chance.between(1, 80);
                self.plan(soon, Happening::Told { process: self.node.number, to, reply });
            }
        }
    }

    /// The owner is gone, and what it had decided but not said with it. Whoever waits for that hears *unknown*.
    fn panic_owner(&mut self, product: usize, owner: u64) {
        self.tally.fault("owner panic");
        self.note("panic", product as u64, owner);
        self.say(|| format!("  the owner of product {product} panics"));
        if self.journal.is_busy_with(product) {
            self.tally.reach("an owner panicked with a write in flight");
        }
        self.reload(product);
        let lost: Vec<u64> = self
            .node
            .waiting
            .iter()
            .filter(|(_, w)| w.product == product && w.decided)
            .map(|(t, _)| *t)
            .collect();
        for token in lost {
            self.reply(token, Err(NotDone::Unknown));
        }
    }

    /// What everybody was told of a product must be in what its next owner reads (I11).
    pub(super) fn told_before(&mut self, product: usize, sequence: Sequence) {
        let told = self.told[product];
        if told > sequence {
            self.violated(
                "i11_no_ack_behind_a_successor",
                format!(
                    "product {product}: #{} was told, the next owner reads up to #{}",
                    told.0, sequence.0
                ),
            );
        }
    }
}
