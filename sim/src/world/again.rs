//! What comes back: a key that was used before, and an order that is asked for. The ledger is asked first; what it has
//! forgotten the tables know.
//!
//! Always true: that there is no such order is said by the tables alone, and only when they show everything that the journal
//! had when they were asked. Whoever waits for that waits half a second at most, and then nothing was executed.

use stockade::actors::stock::{Answer, Ask, Reply};
use stockade::domain::id::OrderId;
use stockade::domain::stock::{HoldState, KeyUse, Refusal};

use super::keys::{Elsewhere, Print};
use super::mailbox::{Inside, Waiter};
use super::{Happening, World};
use crate::broken::Broken;
use crate::story::{By, Heard, What};
use crate::time::{MS, Micros};

/// How long somebody waits for the tables to show everything.
const CATCH_UP: Micros = 500 * MS;

/// What the door knew of a key before it asked the ledger.
#[derive(Debug, Clone, Copy)]
pub enum Before {
    /// It was used for the same product, and is claimed for it meanwhile.
    Here,
    /// It was used for another product; the number names the keeping.
    Elsewhere(u64),
    /// It is being used for another product right now.
    Claimed,
}

/// What is looked up in the tables.
#[derive(Debug, Clone, Copy)]
pub enum Wanted {
    Key(Before),
    Order(OrderId),
}

/// Who waits for the tables, and for how much.
#[derive(Debug)]
pub struct Look {
    pub attempt: usize,
    wanted: Wanted,
    /// Where the journal of each product ended when he asked.
    heads: Vec<u64>,
}

impl World {
    /// Whose key an attempt carries, and for which request.
    fn keyed(&self, attempt: usize) -> Option<(Print, KeyUse)> {
        let record = self.attempts.get(attempt)?;
        let What::Order { key: Some(key), .. } = &record.what else { return None };
        Some(((record.who, key.key), *key))
    }

    /// A key that was used, or is being used, for another product.
    pub(super) fn key_elsewhere(&mut self, attempt: usize, elsewhere: Elsewhere) {
        let (product, before) = match elsewhere {
            Elsewhere::Kept(product, keeping) => (product, Before::Elsewhere(keeping)),
            Elsewhere::Claimed(product) => (product, Before::Claimed),
        };
        self.key_again(attempt, product, before);
    }

    /// The ledger of the product that the key was used for is asked about it.
    pub(super) fn key_again(&mut self, attempt: usize, product: usize, before: Before) {
        let Some(((buyer, key), _)) = self.keyed(attempt) else { return };
        let waiter = Waiter::Inside(Inside::Key { attempt, product, before });
        self.post(product, Ask::OrderOfKey { buyer, key }, waiter, None, By::Attempt(attempt));
    }

    pub(super) fn key_is_known(&mut self, attempt: usize, product: usize, before: Before, reply: Reply) {
        let Some((_, key)) = self.keyed(attempt) else { return };
        match (reply, before) {
            (Ok(Answer::OrderOfKey(Some((order, body)))), Before::Here) if body == key.body => {
                let waiter = Waiter::Inside(Inside::Stands { attempt, order });
                self.post(product, Ask::Order(order), waiter, None, By::Attempt(attempt));
            }
            (Ok(Answer::OrderOfKey(Some(first))), _) => self.key_made(attempt, before, first),
            (Ok(Answer::OrderOfKey(None)), Before::Claimed) => {
                self.key_said(attempt, before, Heard::of_no_product(Refusal::KeyInProgress));
            }
            (Ok(Answer::OrderOfKey(None)), _) if self.is(Broken::ForgottenKeyIsNew) => {
                self.key_is_new(attempt, before);
            }
            (Ok(Answer::OrderOfKey(None)), _) => self.look_up(attempt, Wanted::Key(before)),
            // It was only a question: nothing was executed.
            _ => self.key_said(attempt, before, Heard::NotExecuted),
        }
    }

    /// The ledger's word on the order that this very request has made.
    pub(super) fn it_stands(&mut self, attempt: usize, order: OrderId, reply: Reply) {
        let heard = match reply {
            Ok(Answer::Order(Some(view))) if view.state == HoldState::Placing => {
                Heard::of_no_product(Refusal::KeyInProgress)
            }
            Ok(Answer::Order(Some(_))) => Heard::Replayed(order),
            // It was forgotten since, or was never born.
            Ok(Answer::Order(None)) if self.shelves.iter().any(|shelf| shelf.shows(order)) => {
                Heard::Replayed(order)
            }
            Ok(Answer::Order(None)) => Heard::Unknown,
            _ => Heard::NotExecuted,
        };
        self.key_said(attempt, Before::Here, heard);
    }

    /// The key has made an order: this very request, or another one.
    fn key_made(&mut self, attempt: usize, before: Before, (order, body): (OrderId, u64)) {
        let Some((_, key)) = self.keyed(attempt) else { return };
        if body == key.body {
            return self.key_said(attempt, before, Heard::Replayed(order));
        }
        if !matches!(before, Before::Here) {
            self.tally.reach("a key came back naming another product");
        }
        self.key_said(attempt, before, Heard::of_no_product(Refusal::KeyReused { order: Some(order) }));
    }

    /// No order was ever made with the key: it is free.
    fn key_is_new(&mut self, attempt: usize, before: Before) {
        let Some(record) = self.attempts.get(attempt) else { return };
        let What::Order { items, key: Some(key) } = &record.what else { return };
        let (items, key, print): (_, _, Print) = (items.clone(), *key, (record.who, key.key));
        let Before::Elsewhere(keeping) = before else {
            let slow = self.chance.percent(3);
            return self.send_on(attempt, items, Some(key), Some(print), slow);
        };
        self.tally.reach("a key was free again after its order was never born");
        if self.is(Broken::StaleKeyWithoutClaim) {
            return self.send_on(attempt, items, Some(key), None, false);
        }
        self.node.keys.drop_stale(print, keeping);
        self.order_at_door(attempt);
    }

    /// The answer to a request whose key came back. What it had claimed is given back.
    fn key_said(&mut self, attempt: usize, before: Before, heard: Heard) {
        if let (Before::Here, Some((print, _))) = (before, self.keyed(attempt)) {
            self.node.keys.unclaim(print);
        }
        self.answer(attempt, heard, false);
    }

    // --- the tables -----------------------------------------------------------------------------------------------

    /// The ledger knows nothing of it: the tables are asked.
    pub(super) fn look_up(&mut self, attempt: usize, wanted: Wanted) {
        let heads = (0..self.shelves.len()).map(|product| self.journal.head(product).0.0).collect();
        let look = Look { attempt, wanted, heads };
        if self.has_looked(&look) {
            return;
        }
        self.node.tokens += 1;
        let (process, number) = (self.node.number, self.node.tokens);
        self.node.looks.insert(number, look);
        self.plan(CATCH_UP, Happening::LookedInVain { process, look: number });
    }

    /// The tables show more than before: whoever waits for that looks again.
    pub(super) fn look_again(&mut self) {
        let numbers: Vec<u64> = self.node.looks.keys().copied().collect();
        for number in numbers {
            let Some(look) = self.node.looks.remove(&number) else { continue };
            if !self.has_looked(&look) {
                self.node.looks.insert(number, look);
            }
        }
    }

    /// Answers from the tables: what they know, and that there is no such thing when they show everything. False as long as they do
    /// neither.
    fn has_looked(&mut self, look: &Look) -> bool {
        let show_all = self.shelves.iter().zip(&look.heads).all(|(shelf, head)| shelf.checkpoint >= *head);
        match look.wanted {
            Wanted::Key(before) => {
                let print = self.keyed(look.attempt).map(|(print, _)| print);
                let known =
                    print.and_then(|print| self.shelves.iter().find_map(|shelf| shelf.keys.get(&print)));
                match known.copied() {
                    Some(first) => {
                        self.tally.reach("a key that its ledger had forgotten was known in the tables");
                        self.key_made(look.attempt, before, first);
                    }
                    None if show_all => self.key_is_new(look.attempt, before),
                    None => return false,
                }
            }
            Wanted::Order(order) => {
                let is_known = self.shelves.iter().any(|shelf| shelf.shows(order));
                if !is_known && !show_all {
                    return false;
                }
                if is_known {
                    self.tally.reach("an order that its ledger had forgotten was found in the tables");
                }
                self.answer(look.attempt, Heard::Known(is_known), false);
            }
        }
        true
    }

    /// It took the tables too long to show everything.
    pub(super) fn looked_in_vain(&mut self, process: u64, number: u64) {
        if process != self.node.number || !self.node.up {
            return;
        }
        let Some(look) = self.node.looks.remove(&number) else { return };
        self.tally.reach("somebody waited in vain for the tables to show everything");
        match look.wanted {
            Wanted::Key(before) => self.key_said(look.attempt, before, Heard::NotExecuted),
            Wanted::Order(_) => self.answer(look.attempt, Heard::NotExecuted, false),
        }
    }
}
