//! Owners on a node: their turns, the writer that all of them share, and how one lets go.

use stockade::actors::stock::{Answer, Ask, Input, NotDone, Outcome, Output, Protocol, Reply};
use stockade::domain::stock::{Command, Epoch, Millis, Refused, Sequence};

use super::base::After;
use super::node::{Leaving, Post, Slot, State, Submission, Waiter};
use super::wire::Message;
use super::{Cluster, Happening};
use crate::broken::Broken;
use crate::check::Violation;
use crate::database::{Answer as Said, Statement};
use crate::story::{By, Fact, Ruling};
use crate::time::{MS, Micros, SECOND};

/// The longest that a question waits at its owner.
const WAITS_MS: i64 = 2_000;
/// For so long after the sending of its last beat nobody can have declared a node dead.
const LEASE: Micros = 3 * SECOND;
/// A lapse may be this late while the node is well.
const LATE_MAX_MS: i64 = 100;
/// After the database is back: until each node has found it, and knows what became of its group.
const BASE_FOUND_WITHIN: Micros = 2 * SECOND;
/// How long those who asked are kept while it is found out what became of a group.
const RECOVER_WITHIN: Micros = SECOND;

impl Cluster {
    pub(super) fn next_owner(&mut self) -> u64 {
        self.owners += 1;
        self.owners
    }

    /// Starts to serve a product under an epoch.
    pub(super) fn open(&mut self, node: usize, product: usize, epoch: i64) {
        let number = self.next_owner();
        self.nodes[node].slots[product] = Slot { epoch, state: State::Loading, ..Slot::cold(number) };
        self.say(|| format!("{node} opens product {product} under epoch {epoch}"));
        self.load(node, product);
    }

    pub(super) fn load(&mut self, node: usize, product: usize) {
        let number = self.nodes[node].slots[product].number;
        // What the last one had handed over may still be on its way.
        if self.nodes[node].writer.unknown.is_some() || self.nodes[node].writer.busy {
            return self
                .plan(2 * MS, Happening::Load { node, process: self.nodes[node].process, product, number });
        }
        self.ask_base(node, After::Load(product, number), &[Statement::Head(product as i64)]);
    }

    pub(super) fn loaded(&mut self, node: usize, product: usize, number: u64) {
        let slot = &self.nodes[node].slots[product];
        if slot.number != number || !matches!(slot.state, State::Loading) {
            return;
        }
        let (id, epoch) = (self.products[product].id, slot.epoch);
        let snapshot = self.snapshots[product].as_ref();
        let after = snapshot.map_or(Sequence(0), |taken| taken.sequence);
        let (body, tail) = (snapshot.map(|taken| taken.body.as_slice()), self.chapters[product].tail(after));
        let elsewhere = snapshot.is_some_and(|taken| taken.node != node);
        match Protocol::recover(id, Epoch(epoch as u64), body, tail) {
            Ok(protocol) => {
                if elsewhere {
                    self.tally.reach("an owner began with a snapshot that another node had taken");
                }
                let (told, reads) = (self.told[product], protocol.ledger().sequence());
                if told > reads {
                    let what =
                        format!("product {product}: #{} was told, the next reads #{}", told.0, reads.0);
                    self.violated("i11_no_ack_behind_a_successor", what);
                }
                // What was due while nobody was there is due now.
                let now = self.nodes[node].clock.now(self.now);
                let slot = &mut self.nodes[node].slots[product];
                (slot.state, slot.excuse) = (State::Up(Box::new(protocol)), now);
                self.wake(node, product);
            }
            Err(why) => self.violated("i9_prefix_durability", format!("product {product}: {why}")),
        }
    }

    pub(super) fn wake(&mut self, node: usize, product: usize) {
        let slot = &mut self.nodes[node].slots[product];
        if slot.protocol().is_none() || std::mem::replace(&mut slot.woken, true) {
            return;
        }
        let (number, process) = (slot.number, self.nodes[node].process);
        let soon = self.chance.between(1, 120);
        self.plan(soon, Happening::Turn { node, process, product, number });
    }

    pub(super) fn turn(&mut self, node: usize, product: usize, number: u64) {
        let slot = &mut self.nodes[node].slots[product];
        if slot.number != number || slot.protocol().is_none() {
            return;
        }
        slot.woken = false;
        if !slot.protocol().is_some_and(Protocol::has_room) {
            // A full group behind a slow write: nothing could lapse until now.
            let now = self.nodes[node].clock.now(self.now);
            let excuse = &mut self.nodes[node].slots[product].excuse;
            *excuse = now.max(*excuse);
        }
        let slot = &mut self.nodes[node].slots[product];
        if let Some(outcome) = slot.appended.take()
            && !self.step(node, product, By::Lapse, None, Input::Appended(outcome))
        {
            return;
        }
        if !self.lapse_first(node, product) {
            return;
        }
        // Since when the one waited who had waited longest of those that are decided now.
        let mut waited_from: Option<Millis> = None;
        while self.nodes[node].keeps(product)
            && self.nodes[node].slots[product].leaving.is_none()
            && self.nodes[node].slots[product].protocol().is_some_and(Protocol::has_room)
        {
            let Some(post) = self.nodes[node].mail[product].pop_front() else { break };
            let now = self.nodes[node].clock.now(self.now);
            let (by, arrived, token) = (post.by, post.arrived, post.token);
            let from = post.arrived_ms;
            waited_from = Some(waited_from.map_or(from, |oldest| oldest.min(from)));
            let input = Input::Ask {
                token,
                ask: post.ask.clone(),
                arrived: post.arrived_ms,
                until: post.arrived_ms.plus(WAITS_MS),
            };
            let late = now > post.arrived_ms.plus(WAITS_MS);
            self.nodes[node].waiting.insert(token, post);
            if late {
                self.reply(node, token, Err(NotDone::Unavailable));
            } else if !self.step(node, product, by, Some(arrived), input) {
                return;
            }
        }
        let now = self.nodes[node].clock.now(self.now);
        let oldest = self.nodes[node].mail[product].front().map(|post| post.arrived_ms);
        self.judge_lateness(node, product, oldest, waited_from);
        let lapse_until = oldest.map_or(now, |oldest| oldest.min(now));
        if self.step(node, product, By::Lapse, None, Input::Turn { lapse_until }) {
            self.leaves(node, product);
            self.plan_timer(node, product);
        }
    }

    /// Lapses what was due before anybody who waits came.
    fn lapse_first(&mut self, node: usize, product: usize) -> bool {
        let now = self.nodes[node].clock.now(self.now);
        let oldest = self.nodes[node].mail[product].front().map(|post| post.arrived_ms);
        let Some(until) = oldest.map(|oldest| oldest.min(now)) else { return true };
        let is_due = |protocol: &Protocol<u64>| protocol.is_due(until);
        if !self.nodes[node].slots[product].protocol().is_some_and(is_due) {
            return true;
        }
        self.judge_lateness(node, product, oldest, None);
        self.step(node, product, By::Lapse, None, Input::Due { until })
    }

    /// No hold lapses late, but where somebody who came before waits, or the node stood still, or the database was away: what is decided is
    /// written then, or asked about, before anything else is. Nor does one lapse before somebody who came before it is due and was decided
    /// only now, since his node had not heard from the database what it serves; it may be his own, whose time counts from when he came.
    fn judge_lateness(
        &mut self,
        node: usize,
        product: usize,
        oldest: Option<Millis>,
        waited_from: Option<Millis>,
    ) {
        let base_back = self.base_down_until + BASE_FOUND_WITHIN;
        let is = &mut self.nodes[node];
        let (now, woke) = (is.clock.now(self.now), is.clock.now(is.paused_until.max(base_back)));
        let slot = &mut is.slots[product];
        let Some(protocol) = slot.protocol() else { return };
        let (due, has_room) = (protocol.next_deadline(), protocol.has_room());
        let waits = oldest.is_some_and(|oldest| due.is_none_or(|due| oldest < due));
        let excuse = if waits || !has_room { now } else { woke };
        slot.excuse = excuse.max(slot.excuse);
        let Some(due) = due else { return };
        let waited = waited_from.is_some_and(|from| from < due);
        if due.0 < now.0 - LATE_MAX_MS && due > slot.excuse && !waited {
            let what = format!("node {node}, product {product}: a hold was due {} ms ago", now.0 - due.0);
            self.late.get_or_insert(Violation { invariant: "lapse_on_time", what });
        }
    }

    fn plan_timer(&mut self, node: usize, product: usize) {
        let (slot, process) = (&self.nodes[node].slots[product], self.nodes[node].process);
        let Some(deadline) = slot.protocol().filter(|p| p.has_room()).and_then(Protocol::next_deadline)
        else {
            return;
        };
        let at = self.now + self.nodes[node].clock.until(deadline, self.now) + 5 * MS;
        if slot.timer.is_none_or(|before| before > at || before <= self.now) {
            let number = slot.number;
            self.nodes[node].slots[product].timer = Some(at);
            self.plan(at - self.now, Happening::Turn { node, process, product, number });
        }
    }

    /// Lets go once all is written: a state at rest, and nobody who waits for it.
    fn leaves(&mut self, node: usize, product: usize) {
        let slot = &self.nodes[node].slots[product];
        let Some(leaving) = slot.leaving else { return };
        if slot.protocol().is_none_or(|protocol| protocol.is_quiet() || self.is(Broken::LetGoUnwritten)) {
            self.has_left(node, product, leaving);
        }
    }

    pub(super) fn has_left(&mut self, node: usize, product: usize, leaving: Leaving) {
        let number = self.next_owner();
        self.nodes[node].slots[product] = Slot::cold(number);
        let Leaving { lead, process, epoch } = leaving;
        self.say(|| format!("{node} has let go of product {product}"));
        if lead == node {
            return self.let_gone(node, product, epoch);
        }
        // What was not decided goes back to whoever asked.
        let posts: Vec<Post> = self.nodes[node].mail[product].drain(..).collect();
        for post in posts {
            self.answer_back(node, &post, None);
        }
        self.send(node, lead, process, Message::LetGone { product, epoch });
    }

    pub(super) fn step(
        &mut self,
        node: usize,
        product: usize,
        by: By,
        arrived: Option<Micros>,
        input: Input<u64>,
    ) -> bool {
        let mut outputs = Vec::new();
        let is = &mut self.nodes[node];
        let (process, error_us) = (is.process, is.clock.error_us(self.now));
        let slot = &mut is.slots[product];
        let State::Up(protocol) = &mut slot.state else { return false };
        let before = protocol.ledger().sequence().0;
        protocol.step(input, &mut outputs);
        let after = protocol.ledger().sequence().0;
        let (owner, arrived) = (slot.number, arrived.unwrap_or(self.now));
        let fact = Fact { by, decided: self.now, arrived, error_us, process, owner, durable: 0 };
        slot.facts.extend((before..after).map(|_| fact));
        self.note("step", product as u64, after);
        for output in outputs {
            match output {
                Output::Append(entry) => {
                    let facts = std::mem::take(&mut self.nodes[node].slots[product].facts);
                    self.nodes[node].writer.queue.push(Submission { product, owner, entry, facts });
                    self.write(node);
                }
                Output::Reply(token, reply) => self.reply(node, token, reply),
                Output::Publish(view) => self.publish(node, product, &view),
                Output::AskHome { .. } => {}
                Output::Reload => {
                    let (number, epoch, leaving) = {
                        let slot = &self.nodes[node].slots[product];
                        (self.owners + 1, slot.epoch, slot.leaving)
                    };
                    self.owners = number;
                    if let Some(leaving) = leaving {
                        self.has_left(node, product, leaving);
                        return false;
                    }
                    self.nodes[node].slots[product] =
                        Slot { epoch, state: State::Loading, ..Slot::cold(number) };
                    self.load(node, product);
                    return false;
                }
            }
        }
        true
    }

    // --- the writer -------------------------------------------------------------------------------------------------

    fn write(&mut self, node: usize) {
        let is = &mut self.nodes[node];
        if is.writer.busy || is.writer.unknown.is_some() || is.writer.queue.is_empty() {
            return;
        }
        is.writer.busy = true;
        is.writer.groups = std::mem::take(&mut is.writer.queue);
        let count = is.writer.groups.len() as i64;
        let session = is.session;
        if count > 1 {
            self.tally.reach("two products of one node in one transaction");
        }
        let (holds, places) = (Statement::HoldSession(session), Statement::TakePlaces(count));
        self.ask_base(node, After::Group, &[Statement::Begin, holds, places]);
    }

    pub(super) fn group_is(&mut self, node: usize, outcome: Outcome) {
        let writer = &mut self.nodes[node].writer;
        let (groups, told_unknown) =
            (std::mem::take(&mut writer.groups), std::mem::take(&mut writer.told_unknown));
        writer.busy = false;
        for group in groups.iter().filter(|_| !told_unknown) {
            self.tell_outcome(node, group.product, group.owner, outcome);
        }
        self.write(node);
    }

    fn tell_outcome(&mut self, node: usize, product: usize, owner: u64, outcome: Outcome) {
        let slot = &mut self.nodes[node].slots[product];
        if slot.number == owner {
            slot.appended = Some(outcome);
            self.wake(node, product);
        }
    }

    /// Nobody knows what became of a group: its connection is ended, and the journal is read.
    pub(super) fn group_is_lost(&mut self, node: usize, connection: u64) {
        let since = self.now;
        let writer = &mut self.nodes[node].writer;
        (writer.busy, writer.unknown) = (false, Some((since, connection)));
        self.recover(node);
    }

    pub(super) fn recover(&mut self, node: usize) {
        let is = &self.nodes[node];
        let Some((_, connection)) = is.writer.unknown else { return };
        let session = is.session;
        let heads = is.writer.groups.iter().map(|group| Statement::Head(group.product as i64));
        let statements: Vec<Statement> = [Statement::Lives(session)].into_iter().chain(heads).collect();
        self.ask_base_after(node, After::Recover, vec![connection], &statements);
        let (process, number) = (self.nodes[node].process, connection);
        self.plan(RECOVER_WITHIN, Happening::NotRecovered { node, process, connection: number });
    }

    pub(super) fn recovered(&mut self, node: usize, answers: &[Said]) {
        if answers.first() == Some(&Said::Done(0)) {
            return self.exits(node, "its session has ended");
        }
        if self.nodes[node].writer.unknown.is_none() {
            return;
        }
        let Some(group) = self.nodes[node].writer.groups.first() else { return };
        let there = match answers.get(1) {
            Some(Said::Value(head)) => *head >= group.entry.first.0 as i64,
            _ => false,
        };
        self.tally.reach(match there {
            true => "a group of unknown fate was written",
            false => "a group of unknown fate was not written",
        });
        self.nodes[node].writer.unknown = None;
        self.group_is(node, if there { Outcome::Written } else { Outcome::NotWritten });
    }

    /// Whoever waits for it has waited long enough.
    pub(super) fn not_recovered(&mut self, node: usize, connection: u64) {
        let writer = &mut self.nodes[node].writer;
        if writer.unknown.is_none_or(|(_, lost)| lost != connection) || writer.told_unknown {
            return;
        }
        writer.told_unknown = true;
        let owners: Vec<_> = writer.groups.iter().map(|group| (group.product, group.owner)).collect();
        self.tally.reach("somebody heard that nobody knows what became of his order");
        for (product, owner) in owners {
            self.tell_outcome(node, product, owner, Outcome::Unknown);
        }
    }

    // --- answers ----------------------------------------------------------------------------------------------------

    pub(super) fn reply(&mut self, node: usize, token: u64, reply: Reply) {
        // A refusal without a group passes no fence: it is said for as long as nobody can have sealed the session.
        let trusted = self.now - self.nodes[node].lease_from < LEASE || self.is(Broken::RefuseWithoutLease);
        let refused = matches!(reply, Err(NotDone::Refused { .. }));
        let reply = if refused && !trusted {
            self.tally.reach("a refusal was not said, since its owner may have been replaced");
            Err(NotDone::Unavailable)
        } else {
            reply
        };
        let Some(post) = self.nodes[node].waiting.remove(&token) else { return };
        let Some(product) = self.product_of(&post, &reply) else {
            return self.answer_back(node, &post, Some(reply));
        };
        // A refusal is true by the clock of whoever decided it.
        if let (By::Attempt(attempt), true) = (post.by, refused) {
            self.attempts[attempt].process = self.nodes[node].process;
        }
        let told = match &reply {
            Ok(Answer::Reserved(receipt)) => Some((receipt.sequence, true)),
            Err(NotDone::Refused { refused: Refused { at, .. }, .. }) => Some((*at, false)),
            _ => None,
        };
        if let Some((at, held)) = told {
            self.told[product] = self.told[product].max(at);
            let reserve = matches!(&post.ask, Ask::Command(Command::Reserve(_)));
            self.rulings.push(Ruling {
                product,
                owner: self.nodes[node].slots[product].number,
                arrival: post.token,
                arrived: post.arrived,
                arrived_ms: post.arrived_ms,
                reserve,
                at,
                held,
                pin: None,
            });
        }
        self.answer_back(node, &post, Some(reply));
    }

    fn product_of(&self, _: &Post, reply: &Reply) -> Option<usize> {
        let id = match reply {
            Ok(Answer::Reserved(receipt)) => receipt.product,
            Err(NotDone::Refused { product, .. }) => *product,
            _ => return None,
        };
        self.products.iter().position(|plan| plan.id == id)
    }

    /// An answer for whoever asked; none if it was not decided and is to be asked elsewhere.
    pub(super) fn answer_back(&mut self, node: usize, post: &Post, reply: Option<Reply>) {
        match post.waiter {
            Waiter::Door(_) | Waiter::Key(_) => {
                if let Some(reply) = reply {
                    self.deliver(node, post, reply);
                }
            }
            Waiter::Lead { question, at } => {
                let Some(asked) = self.nodes[node].questions.get_mut(&question) else { return };
                asked.replies[at] = reply;
                asked.open -= 1;
                if asked.open == 0
                    && let Some(asked) = self.nodes[node].questions.remove(&question)
                {
                    let (lead, process) = (asked.lead, asked.process);
                    let said = Message::Answers { question, product: asked.product, replies: asked.replies };
                    self.send(node, lead, process, said);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use stockade::domain::amount::Quantity;
    use stockade::domain::id::{OrderId, UserId};
    use stockade::domain::stock::Reserve;

    use super::super::node::Stage;
    use super::*;
    use crate::time::shown;

    const HOLD_MS: u32 = 1_500;

    /// An owner that is up, with a product for sale.
    fn owner(now: Micros) -> Cluster {
        let mut cluster = Cluster::new(1, 3, None, false);
        cluster.now = now;
        cluster.products[0].settings.hold_ms = HOLD_MS;
        let (id, settings) = (cluster.products[0].id, cluster.products[0].settings.clone());
        let protocol = Protocol::recover(id, Epoch(1), None, &[]).unwrap();
        (cluster.nodes[0].up, cluster.nodes[0].stage) = (true, Stage::Owner);
        cluster.nodes[0].slots[0].state = State::Up(Box::new(protocol));
        ask(&mut cluster, Command::Create { settings, stock: 5 }, now);
        cluster
    }

    fn ask(cluster: &mut Cluster, command: Command, arrived: Micros) {
        cluster.tokens += 1;
        let arrived_ms = cluster.nodes[0].clock.now(arrived);
        let waiter = Waiter::Lead { question: 0, at: 0 };
        let (token, ask, by) = (cluster.tokens, Ask::Command(command), By::Lapse);
        let post = Post { token, ask, arrived, arrived_ms, waiter, print: None, by, asked_before: false };
        cluster.nodes[0].mail[0].push_back(post);
    }

    fn reserve(cluster: &mut Cluster, number: u128, arrived: Micros) {
        let order = OrderId::for_home(shown(0), number, cluster.products[0].id);
        let (buyer, quantity) = (UserId::new(shown(0), number), Quantity::of_line(1).unwrap());
        let (key, expected, placing) = (None, None, None);
        let reserve = Reserve { order, line: 1, buyer, quantity, key, expected, placing };
        ask(cluster, Command::Reserve(reserve), arrived);
    }

    #[test]
    fn what_was_over_when_it_was_decided_did_not_lapse_late() {
        let now = 30 * SECOND;
        let mut cluster = owner(now);
        reserve(&mut cluster, 1, now - (i64::from(HOLD_MS) + 400) * MS);
        cluster.turn(0, 0, 0);
        assert_eq!(cluster.late, None);
    }

    #[test]
    fn what_was_due_before_anybody_came_lapses_in_time_or_late() {
        let now = 30 * SECOND;
        let mut cluster = owner(now);
        reserve(&mut cluster, 1, now);
        cluster.turn(0, 0, 0);
        assert_eq!(cluster.late, None);
        // Nobody has woken it meanwhile.
        let later = now + (i64::from(HOLD_MS) + 400) * MS;
        cluster.now = later;
        reserve(&mut cluster, 2, later);
        cluster.turn(0, 0, 0);
        assert_eq!(cluster.late.map(|late| late.invariant), Some("lapse_on_time"));
    }
}
