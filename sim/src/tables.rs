//! The tables people query, folded from the journal from time to time, with a checkpoint in the same transaction.
//!
//! The fold here is naive on purpose and shares nothing with the ledger: it is the second opinion that the ledger's
//! sums are compared with. `fold` is the seam where the product's own fold can take its place.

use std::collections::BTreeMap;

use stockade::domain::id::{OrderId, UserId};
use stockade::domain::stock::{Cause, Entry, Event, HoldState, UnreadableEvent, decode_events};

/// One order's share of one product, as a table keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub state: HoldState,
    pub quantity: u32,
    pub sold: u32,
}

/// One product's rows and sums.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shelf {
    pub rows: BTreeMap<OrderId, Row>,
    /// The order that each key has made, and the hash of its request. One of several lines not before its birth.
    pub keys: BTreeMap<(UserId, [u8; 16]), (OrderId, u64)>,
    pub on_hand: i64,
    pub held: i64,
    pub sold: i64,
    /// Everything up to here is folded in.
    pub checkpoint: u64,
}

impl Shelf {
    /// Folds one entry in. Its checkpoint goes with it, in the same transaction.
    pub fn fold(&mut self, entry: &Entry) -> Result<(), UnreadableEvent> {
        for event in decode_events(&entry.events)? {
            self.fold_event(&event);
        }
        self.checkpoint = entry.last.0;
        Ok(())
    }

    /// Whether an order is shown: it was born.
    pub fn shows(&self, order: OrderId) -> bool {
        let unborn = [HoldState::Placing, HoldState::Released(Cause::NotPlaced)];
        self.rows.get(&order).is_some_and(|row| !unborn.contains(&row.state))
    }

    fn end(&mut self, order: OrderId, state: HoldState) {
        if let Some(row) = self.rows.get_mut(&order) {
            self.held -= i64::from(row.quantity);
            row.state = state;
        }
    }

    pub fn fold_event(&mut self, event: &Event) {
        match event {
            Event::Created(e) => self.on_hand += e.stock as i64,
            Event::Restocked(e) => self.on_hand += e.delta,
            Event::Held(e) => {
                let state = if e.placing.is_some() { HoldState::Placing } else { HoldState::Held };
                self.held += i64::from(e.quantity.get());
                if let (Some(key), None) = (e.key, e.placing) {
                    self.keys.insert((e.buyer, key.key), (e.order, key.body));
                }
                self.rows.insert(e.order, Row { state, quantity: e.quantity.get(), sold: 0 });
            }
            Event::Placed(e) => {
                if let Some(key) = e.key {
                    self.keys.insert((e.buyer, key.key), (e.order, key.body));
                }
                self.state(e.order, HoldState::Held);
            }
            Event::Kept(e) => self.state(e.order, HoldState::Held),
            Event::Unpinned(e) => self.state(e.order, HoldState::Held),
            Event::Pinned(e) => self.state(e.order, HoldState::Pinned),
            Event::Confirmed(e) => {
                self.end(e.order, HoldState::Sold);
                self.sold += i64::from(e.quantity.get());
                if let Some(row) = self.rows.get_mut(&e.order) {
                    row.quantity = e.quantity.get();
                    row.sold = e.quantity.get();
                }
            }
            Event::Released(e) => self.end(e.order, HoldState::Released(e.cause)),
            Event::Expired(e) => self.end(e.order, HoldState::Expired),
            Event::Returned(e) => {
                self.sold -= i64::from(e.quantity.get());
                if !e.to_stock {
                    self.on_hand -= i64::from(e.quantity.get());
                }
                if let Some(row) = self.rows.get_mut(&e.order) {
                    row.sold = row.sold.saturating_sub(e.quantity.get());
                }
            }
            Event::Configured(_) | Event::Paused | Event::Resumed | Event::Archived | Event::Forgotten(_) => {
            }
        }
    }

    fn state(&mut self, order: OrderId, state: HoldState) {
        if let Some(row) = self.rows.get_mut(&order) {
            row.state = state;
        }
    }
}
