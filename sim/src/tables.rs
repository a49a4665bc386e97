//! The tables people query, folded from the journal from time to time, with a checkpoint in the same transaction.
//!
//! The fold here is naive on purpose and shares nothing with the ledger: it is the second opinion that the ledger's
//! sums are compared with. `fold` is the seam where the product's own fold can take its place.

use std::collections::BTreeMap;

use stockade::domain::id::{OrderId, ProductId, UserId};
use stockade::domain::stock::{Cause, Entry, Event, HoldState, Ledger, UnreadableEvent, decode_events};

use crate::check::{Verdict, Violation};

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

    /// The keys of the orders that it shows, and of what the journal has behind them.
    pub fn all_keys(&self, events: &[Event]) -> Vec<(UserId, [u8; 16])> {
        let behind = events.iter().skip(self.checkpoint as usize).filter_map(|event| match event {
            Event::Held(held) => Some((held.buyer, held.key?.key)),
            Event::Placed(placed) => Some((placed.buyer, placed.key?.key)),
            _ => None,
        });
        self.keys.keys().copied().chain(behind).collect()
    }

    /// I10, of what is flushed to its end: sums and rows are the ledger's.
    pub fn agrees(&self, product: usize, ledger: &Ledger, id: ProductId) -> Verdict {
        let differ = |what: String| {
            Err(Violation {
                invariant: "i10_one_state_by_every_road",
                what: format!("product {product}: {what}"),
            })
        };
        let (counts, table) = (ledger.counts(), [self.on_hand, self.held, self.sold]);
        let sums = [counts.on_hand, counts.held, counts.sold].map(|sum| sum as i64);
        if table != sums {
            return differ(format!("the table says {table:?}, the ledger {sums:?}"));
        }
        let mut known = 0;
        for (order, row) in &self.rows {
            // The ledger forgets what was never born, and what nobody can ask for any more.
            let Some(view) = ledger.order(id, *order) else { continue };
            known += 1;
            if view.state != row.state || view.quantity.get() != row.quantity {
                return differ(format!("{order}: the table says {row:?}, the ledger {:?}", view.state));
            }
        }
        if known != ledger.remembered() {
            return differ(format!("{known} rows, {} orders in the ledger", ledger.remembered()));
        }
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
