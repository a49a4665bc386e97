//! What stands in the database beside the journal: snapshots of ledgers, and the tables that the lead's flush brings up to date. And
//! what the door looks up there, keys and orders that their ledgers have forgotten.
//!
//! Always true: rows and checkpoint are one transaction, which nobody but the lead can commit; that there is no such order is said by the
//! tables alone, and only when they show everything that the journal had when they were asked.

use stockade::actors::stock::{Answer, Ask, Input, Protocol, Reply};
use stockade::domain::id::OrderId;
use stockade::domain::stock::{Command, Refusal, Sequence};

use super::base::After;
use super::node::{Look, State};
use super::{Cluster, Happening};
use crate::broken::Broken;
use crate::database::{Answer as Said, Statement};
use crate::scenario::{ENDED_REMEMBERED_MS, FAULTS_END};
use crate::story::{By, Heard, What};
use crate::time::{MS, Micros, SECOND};
use crate::world::keys::Print;

/// How often snapshots and forgetting are thought of.
const HOUSEKEEPING_EVERY: Micros = 200 * MS;
/// How often the lead brings the tables up to date.
const FLUSH_EVERY: Micros = 250 * MS;
/// How long somebody waits for the tables to show everything, and how often he looks.
const CATCH_UP: Micros = SECOND;
const LOOK_EVERY: Micros = 100 * MS;

/// A ledger at one sequence, and which node has taken it.
#[derive(Debug)]
pub struct Taken {
    pub product: usize,
    pub sequence: Sequence,
    pub body: Vec<u8>,
    pub node: usize,
}

impl Cluster {
    pub(super) fn housekeeping(&mut self, node: usize) {
        let process = self.nodes[node].process;
        self.plan(HOUSEKEEPING_EVERY, Happening::Housekeeping { node, process });
        for product in 0..self.products.len() {
            let (forgets, takes) = (self.chance.percent(2), self.chance.percent(4));
            if forgets && self.now < FAULTS_END {
                self.forgets(node, product);
            }
            if takes {
                self.take_snapshot(node, product);
            }
        }
    }

    /// An owner drops what came to nothing long ago. Nobody waits for that.
    fn forgets(&mut self, node: usize, product: usize) {
        let now = self.nodes[node].clock.now(self.now);
        let slot = &self.nodes[node].slots[product];
        if slot.leaving.is_some() || !slot.protocol().is_some_and(Protocol::has_room) {
            return;
        }
        // Longer than anybody's question stays in doubt: a ledger knows every order that may still be asked for again.
        let before = now.plus(-2 * ENDED_REMEMBERED_MS);
        let forget = Command::Forget { unkeyed_before: before, keyed_before: before };
        self.tokens += 1;
        let input = Input::Ask { token: self.tokens, ask: Ask::Command(forget), arrived: now, until: now };
        if self.step(node, product, By::Lapse, None, input) {
            self.wake(node, product);
        }
    }

    /// A snapshot passes no fence: what it says was so, whoever owns the product when it arrives.
    fn take_snapshot(&mut self, node: usize, product: usize) {
        let unwritten = self.is(Broken::SnapshotUnwritten);
        let State::Up(protocol) = &mut self.nodes[node].slots[product].state else { return };
        let taken = if unwritten {
            Some((protocol.ledger().sequence(), protocol.ledger().snapshot()))
        } else {
            protocol.snapshot()
        };
        let Some((sequence, body)) = taken.filter(|(sequence, _)| *sequence > Sequence(0)) else { return };
        self.ask_base(node, After::Snapshot, &[Statement::Begin, Statement::Commit]);
        self.snapshots_sent.insert(self.scripts_begun, Taken { product, sequence, body, node });
    }

    pub(super) fn snapshot_is_kept(&mut self, taken: Taken) {
        let (product, sequence) = (taken.product, taken.sequence);
        self.note("snapshot", product as u64, sequence.0);
        if let Err(why) = self.chapters[product].keep_snapshot(sequence, taken.body.clone()) {
            return self.violated("i9_prefix_durability", format!("product {product}: {why}"));
        }
        // One that comes late takes nobody's place.
        let newest = &mut self.snapshots[product];
        if newest.as_ref().is_none_or(|newest| newest.sequence < sequence) {
            *newest = Some(taken);
        }
    }

    // --- the flush --------------------------------------------------------------------------------------------------------

    pub(super) fn flush(&mut self, node: usize) {
        let process = self.nodes[node].process;
        self.plan(FLUSH_EVERY, Happening::Flush { node, process });
        if !std::mem::replace(&mut self.nodes[node].flushing, true) {
            self.ask_base(node, After::Flush, &[Statement::Passed, Statement::End]);
        }
    }

    /// What the journal has behind the tables is folded in, if nobody else has done so meanwhile.
    pub(super) fn sees_the_end(&mut self, node: usize, answers: &[Said]) {
        let (from, to) = match answers {
            [Said::Value(from), Said::Value(to)] if from < to => (*from, *to),
            _ => {
                self.nodes[node].flushing = false;
                return;
            }
        };
        let lead = self.nodes[node].session;
        let (holds, pass) = (Statement::HoldLead(lead), Statement::Pass { from, to });
        self.ask_base(node, After::Fold(from, to), &[Statement::Begin, holds, pass, Statement::Commit]);
    }

    /// The first place is 1.
    pub(super) fn fold(&mut self, from: i64, to: i64) {
        self.note("fold", from as u64, to as u64);
        for place in from..to {
            let Some(&(product, number)) = self.line.get(place as usize) else { continue };
            let entry = &self.chapters[product].entries[number];
            if let Err(why) = self.shelves[product].fold(entry) {
                let what = format!("product {product}: the flush cannot read an entry: {why}");
                return self.violated("i10_one_state_by_every_road", what);
            }
        }
    }

    // --- what comes back --------------------------------------------------------------------------------------------------

    /// Whose key an attempt carries, and for which request.
    fn keyed(&self, attempt: usize) -> Option<(Print, u64)> {
        let asked = self.attempts.get(attempt)?;
        let What::Order { key: Some(key), .. } = &asked.what else { return None };
        Some(((asked.who, key.key), key.body))
    }

    /// The ledger's word on a key that was used before. What it has forgotten the tables know.
    pub(super) fn key_is_known(&mut self, node: usize, attempt: usize, reply: Reply) {
        match reply {
            Ok(Answer::OrderOfKey(Some(first))) => {
                let heard = self.made_before(attempt, first);
                self.key_said(node, attempt, heard);
            }
            Ok(Answer::OrderOfKey(None)) => self.look_up(node, attempt),
            // It was only a question: nothing was executed.
            _ => self.key_said(node, attempt, Heard::NotExecuted),
        }
    }

    /// The key has made an order: this very request, or another one.
    fn made_before(&self, attempt: usize, (order, body): (OrderId, u64)) -> Heard {
        match self.keyed(attempt) {
            Some((_, asked)) if asked == body => Heard::Replayed(order),
            _ => Heard::of_no_product(Refusal::KeyReused { order: Some(order) }),
        }
    }

    /// The answer to a request whose key came back, or to a look. What it had claimed is given back.
    fn key_said(&mut self, node: usize, attempt: usize, heard: Heard) {
        if let Some((print, _)) = self.keyed(attempt) {
            self.nodes[node].keys.unclaim(print);
        }
        self.answer(attempt, heard);
    }

    /// The ledger knows nothing of it: the tables are asked.
    pub(super) fn look_up(&mut self, node: usize, attempt: usize) {
        self.tokens += 1;
        let number = self.tokens;
        self.nodes[node].looks.insert(number, Look { attempt, until: None, since: self.now });
        self.look_again(node, number);
    }

    pub(super) fn look_again(&mut self, node: usize, number: u64) {
        self.ask_base(node, After::LookUp(number), &[Statement::End, Statement::Passed]);
    }

    pub(super) fn tables_say(&mut self, node: usize, number: u64, answers: &[Said]) {
        let [Said::Value(end), Said::Value(passed)] = answers else {
            return self.looked_in_vain(node, number);
        };
        let Some(look) = self.nodes[node].looks.get_mut(&number) else { return };
        let until = *look.until.get_or_insert(*end);
        let (attempt, since, shows_all) = (look.attempt, look.since, *passed >= until);
        match self.shown(node, attempt) {
            Some(heard) => {
                self.nodes[node].looks.remove(&number);
                self.key_said(node, attempt, heard);
            }
            None if shows_all => {
                self.nodes[node].looks.remove(&number);
                match self.keyed(attempt) {
                    // No order was ever made with the key: it is free.
                    Some((print, _)) => self.order(node, attempt, Some(print)),
                    None => self.answer(attempt, Heard::Known(false)),
                }
            }
            None if self.now - since >= CATCH_UP => self.looked_in_vain(node, number),
            None => {
                let process = self.nodes[node].process;
                self.plan(LOOK_EVERY, Happening::LookAgain { node, process, look: number });
            }
        }
    }

    /// What the tables show of an attempt's key, or of the order that it asks for.
    fn shown(&mut self, node: usize, attempt: usize) -> Option<Heard> {
        if let Some((print, _)) = self.keyed(attempt) {
            let first = self.shelves.iter().find_map(|shelf| shelf.keys.get(&print)).copied()?;
            self.tally.reach("a key that its ledger had forgotten was known in the tables");
            let made = self.orders.get(&first.0).map(|made| self.attempts[*made].process);
            if made.is_some_and(|process| process != self.nodes[node].process) {
                self.tally.reach("a key that its ledger had forgotten came back to another lead");
            }
            return Some(self.made_before(attempt, first));
        }
        let What::Read { order, .. } = &self.attempts.get(attempt)?.what else { return None };
        let is_shown = self.shelves.iter().any(|shelf| shelf.shows(*order));
        is_shown.then(|| {
            self.tally.reach("an order that its ledger had forgotten was found in the tables");
            Heard::Known(true)
        })
    }

    /// It took the tables too long to show everything, or they could not be asked.
    pub(super) fn looked_in_vain(&mut self, node: usize, number: u64) {
        let Some(look) = self.nodes[node].looks.remove(&number) else { return };
        self.tally.reach("somebody waited in vain for the tables to show everything");
        self.key_said(node, look.attempt, Heard::NotExecuted);
    }
}
