//! The network and the clients' end of it: requests on their way, answers that arrive or do not.
//!
//! An answer counts as given from the moment it leaves the process, whether or not it is heard.

use stockade::domain::stock::Refusal;

use super::{Happening, Sender, World};
use crate::scenario::FAULTS_END;
use crate::story::{Attempt, Heard, Said, What};
use crate::time::{MS, Micros};

impl World {
    fn network(&mut self) -> Micros {
        let slow =
            if self.in_storm() && self.chance.percent(30) { self.chance.between(0, 400) * MS } else { 0 };
        self.chance.between(50, 4_000) + slow
    }

    /// Sends a request. The client gives up waiting after `patience`.
    pub(super) fn send(&mut self, sender: Sender, attempt: Attempt, patience: Micros) -> usize {
        let number = self.attempts.len();
        self.note("send", number as u64, 0);
        self.attempts.push(attempt);
        self.senders.push(sender);
        let way = self.network();
        self.plan(way, Happening::Arrive { attempt: number });
        if !matches!(sender, Sender::None) {
            self.plan(patience, Happening::GiveUp { attempt: number });
        }
        number
    }

    /// The answer of the node leaves it. It may be lost on its way.
    pub(super) fn answer(&mut self, attempt: usize, heard: Heard, from_view: bool) {
        let Some(record) = self.attempts.get_mut(attempt) else { return };
        if record.said.is_some() {
            return;
        }
        record.said = Some(Said { at: self.now, heard: heard.clone(), from_view });
        self.notice(attempt, &heard);
        self.note("answer", attempt as u64, from_view.into());
        self.trace.say(self.now, || format!("  answer to {attempt}: {heard:?}"));
        let percent = self.scenario.loss_percent + if self.in_storm() { 30 } else { 0 };
        let lost = self.now < FAULTS_END && self.chance.percent(percent);
        if !lost {
            let way = self.network();
            self.plan(way, Happening::Hear { attempt, lost: false });
        }
    }

    /// Notes the rare situations that an answer shows.
    fn notice(&mut self, attempt: usize, heard: &Heard) {
        let reached = match heard.refusal() {
            Some(Refusal::KeyReused { .. }) => "a key came back with another body",
            Some(Refusal::KeyInProgress) => "a key was still in progress",
            Some(Refusal::LimitExceeded { .. }) => "the limit was reached",
            Some(Refusal::Archived) => "what is off sale for good was tried",
            Some(Refusal::Paused) => "a paused sale was tried",
            Some(Refusal::NotOpen { .. }) => "a sale was tried before it opened",
            Some(Refusal::Closed { .. }) => "a sale was tried after it closed",
            Some(Refusal::PriceChanged { .. }) => "a price had changed",
            Some(_) => return,
            None => return self.notice_replay(attempt, heard),
        };
        self.tally.reach(reached);
    }

    fn notice_replay(&mut self, attempt: usize, heard: &Heard) {
        let Heard::Replayed(order) = heard else { return };
        let Some(first) = self.orders.get(order).copied().filter(|first| *first != attempt) else { return };
        let Some(winner) = self.attempts.get(first) else { return };
        if winner.heard_at.is_none() {
            self.tally.reach("a winner whose answer was lost retried and heard yes");
        }
        if winner.process < self.node.number {
            self.tally.reach("a winner retried after a restart");
        }
        if let What::Order { items, .. } = &winner.what
            && let [item] = items.as_slice()
            && let Some(product) = self.product(item.product)
            && self.left(product).is_some_and(|(left, _, _)| left == 0)
        {
            self.tally.reach("a winner retried when nothing was left");
        }
    }

    /// The connection of a request broke. The client may notice it before its patience ends.
    pub(super) fn hang_up(&mut self, attempt: usize) {
        if self.chance.percent(70) {
            let way = self.network();
            self.plan(way, Happening::Hear { attempt, lost: true });
        }
    }

    pub(super) fn hear(&mut self, attempt: usize, lost: bool) {
        let Some(record) = self.attempts.get_mut(attempt) else { return };
        self.trace.note(self.now, "hear", attempt as u64, lost.into());
        let heard = match (&record.said, lost) {
            (Some(said), false) => {
                record.heard_at = Some(self.now);
                Some(said.heard.clone())
            }
            _ => None,
        };
        self.heard_by_sender(attempt, heard);
    }

    pub(super) fn give_up(&mut self, attempt: usize) {
        if self.attempts.get(attempt).is_some_and(|record| record.heard_at.is_none()) {
            self.heard_by_sender(attempt, None);
        }
    }

    /// `None`: no answer came, and nothing is known.
    fn heard_by_sender(&mut self, attempt: usize, heard: Option<Heard>) {
        match self.senders.get(attempt).copied() {
            Some(Sender::Shopper(number, intent)) => self.shopper_hears(number, intent, attempt, heard),
            Some(Sender::Closer(number)) => self.closer_hears(number, attempt, heard),
            Some(Sender::Saga(number)) => self.saga_hears(number, attempt, heard),
            Some(Sender::Walk(number)) => self.walk_hears_owner(number, attempt, heard),
            Some(Sender::Refund(refund)) => self.refund_hears_owner(refund, attempt, heard),
            Some(Sender::None) | None => {}
        }
    }

    /// Describes an attempt, for the reader of a trace.
    pub(super) fn describe(&self, attempt: usize) -> String {
        match self.attempts.get(attempt).map(|record| (&record.what, record.who)) {
            Some((What::Order { items, key }, who)) => format!("{who} orders {items:?} key {key:?}"),
            Some((What::Command { product, command }, _)) => format!("product {product}: {command:?}"),
            Some((What::Read { order, .. }, _)) => format!("reads {order}"),
            None => String::new(),
        }
    }
}
