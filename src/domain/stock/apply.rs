//! What an event does to a ledger: the one way in which it ever changes.
//!
//! Live work and recovery both go through `apply`, so a ledger is always what its history says.

use super::event::{
    Confirmed, Event, Forgotten, Held, Kept, Key, Pinned, Placed, Released, Restocked, Returned, Unpinned,
    UnreadableEvent, decode_events,
};
use super::ledger::Ledger;
use super::order_table::{HoldState, Many, Record, Returns};
use super::{CANCELLED_DROPPED_MAX, Cause, ChainHash, Entry, Forked, Millis, ON_HAND_MAX, Sequence};
use crate::domain::id::{OrderId, ProductId, UserId};

/// Why an entry could not be replayed. The product halts; nothing is skipped, and the ledger is of no use.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error(transparent)]
    Forked(#[from] Forked),
    #[error(transparent)]
    Unreadable(#[from] UnreadableEvent),
    #[error("{product}: event {sequence} ({kind}) cannot follow what is before it", sequence = sequence.0)]
    Impossible { product: ProductId, sequence: Sequence, kind: &'static str },
}

impl Ledger {
    /// Makes `event` true. From here on it must succeed.
    pub fn apply(&mut self, event: &Event) {
        debug_assert!(self.may_follow(event), "{event:?} cannot follow #{}", self.sequence.0);
        self.sequence = self.sequence.next();
        match event {
            Event::Created(created) => {
                self.settings = Some(created.settings.clone());
                self.counts.on_hand = created.stock;
            }
            Event::Configured(settings) => self.settings = Some(settings.clone()),
            Event::Restocked(restocked) => self.apply_restocked(restocked),
            Event::Paused => self.paused = true,
            Event::Resumed => self.paused = false,
            Event::Archived => self.archived = true,
            Event::Held(held) => self.apply_held(held),
            Event::Placed(placed) => {
                self.orders.change(placed.order, |record| {
                    record.state = HoldState::Held;
                    record.deadline = placed.deadline;
                    record.many = Some(Box::new(Many::Lines(placed.lines.clone())));
                });
            }
            Event::Kept(Kept { order, deadline }) => {
                self.orders.change(*order, |record| {
                    record.state = HoldState::Held;
                    record.deadline = *deadline;
                });
            }
            Event::Pinned(Pinned { order, attempt }) => {
                self.orders.change(*order, |record| {
                    record.state = HoldState::Pinned;
                    record.attempt = attempt.get();
                });
            }
            Event::Unpinned(Unpinned { order, deadline, attempt }) => {
                self.orders.change(*order, |record| {
                    record.state = HoldState::Held;
                    record.deadline = *deadline;
                    record.attempt = attempt.get();
                });
            }
            Event::Confirmed(confirmed) => self.apply_confirmed(confirmed),
            Event::Released(released) => self.apply_released(released),
            Event::Expired(expired) => {
                self.end_hold(expired.order, HoldState::Expired, 0);
            }
            Event::Returned(returned) => self.apply_returned(returned),
            Event::Forgotten(forgotten) => self.apply_forgotten(forgotten),
        }
        self.assert_conserved();
    }

    /// The legal moves: whether `event` can come next. What `decide` names always can, so only what is read from a
    /// journal is asked: a history that makes no sense halts the product instead of the process.
    fn may_follow(&self, event: &Event) -> bool {
        let state = |order: &OrderId| self.orders.get(*order).map(|record| record.state);
        match event {
            Event::Created(e) => self.settings.is_none() && e.stock <= ON_HAND_MAX,
            _ if self.settings.is_none() => false,
            Event::Configured(_) | Event::Paused | Event::Resumed | Event::Archived => true,
            Event::Forgotten(e) => e.cancelled.iter().all(|(order, by)| {
                let record = self.orders.get(*order);
                record.is_some_and(|record| record.answers_its_cancel() && record.ended_by == *by)
            }),
            Event::Restocked(e) => {
                let units = self.counts.on_hand.checked_add_signed(e.delta);
                units.is_some_and(|units| (self.counts.promised()..=ON_HAND_MAX).contains(&units))
            }
            Event::Held(e) => {
                let units = e.quantity.get();
                self.orders.get(e.order).is_none()
                    && e.key.is_none_or(|k| self.orders.by_key(e.buyer, k.key).is_none())
                    && u64::from(units) <= self.counts.available()
                    && self.bought_by(e.buyer).checked_add(units).is_some()
            }
            Event::Placed(Placed { order, .. }) | Event::Kept(Kept { order, .. }) => {
                state(order) == Some(HoldState::Placing)
            }
            // Not `>`: before attempts were counted the first could pin again.
            Event::Pinned(e) => {
                let record = self.orders.get(e.order);
                record.is_some_and(|r| r.state == HoldState::Held && e.attempt.get() >= r.attempt)
            }
            Event::Unpinned(e) => self.orders.get(e.order).is_some_and(|record| match record.state {
                HoldState::Pinned => e.attempt.get() == record.attempt,
                HoldState::Held => e.attempt.get() > record.attempt,
                _ => false,
            }),
            Event::Confirmed(e) => self.orders.get(e.order).is_some_and(|record| {
                record.state == HoldState::Pinned
                    && e.quantity <= record.quantity
                    && e.held.is_none_or(|held| held == record.quantity)
            }),
            Event::Released(e) => state(&e.order).is_some_and(HoldState::is_live),
            Event::Expired(e) => state(&e.order) == Some(HoldState::Held),
            Event::Returned(e) => self
                .orders
                .get(e.order)
                .is_some_and(|record| record.state == HoldState::Sold && e.quantity.get() <= record.sold),
        }
    }

    /// I1: on hand = available + held + sold, each ≥ 0. Kept on in release: better no answer than a wrong one.
    fn assert_conserved(&self) {
        assert!(self.counts.promised() <= self.counts.on_hand, "conservation broken: {:?}", self.counts);
    }

    fn apply_restocked(&mut self, restocked: &Restocked) {
        self.counts.on_hand = self.counts.on_hand.saturating_add_signed(restocked.delta);
        if let Some(Key { key, body }) = restocked.key {
            self.restocks.insert(key, body);
        }
    }

    fn apply_held(&mut self, held: &Held) {
        self.counts.held += u64::from(held.quantity.get());
        *self.buyers.entry(held.buyer).or_insert(0) += held.quantity.get();
        self.orders.insert(Record {
            order: held.order,
            buyer: held.buyer,
            key: held.key.map_or([0; 16], |k| k.key),
            body: held.key.map_or(0, |k| k.body),
            unit_price: held.unit_price,
            deadline: held.deadline,
            sequence: self.sequence,
            ended_by: 0,
            quantity: held.quantity,
            sold: 0,
            line: held.line,
            state: if held.placing.is_some() { HoldState::Placing } else { HoldState::Held },
            attempt: 0,
            keyed: held.key.is_some(),
            many: held.placing.map(|home| Box::new(Many::Home { home, ask_at: Millis::default() })),
            returns: None,
        });
    }

    /// Takes units off what their buyer has.
    fn give_back_to_limit(&mut self, buyer: UserId, units: u32) {
        if let Some(has) = self.buyers.get_mut(&buyer) {
            *has = has.saturating_sub(units);
            if *has == 0 {
                self.buyers.remove(&buyer);
            }
        }
    }

    fn end_hold(&mut self, order: OrderId, state: HoldState, by: u64) {
        let ended = self.orders.change(order, |record| {
            record.state = state;
            record.ended_by = by;
            record.attempt = 0;
            (record.buyer, record.quantity.get())
        });
        if let Some((buyer, units)) = ended {
            self.counts.held -= u64::from(units);
            self.give_back_to_limit(buyer, units);
        }
    }

    fn apply_confirmed(&mut self, confirmed: &Confirmed) {
        let units = confirmed.quantity.get();
        let before = self.orders.change(confirmed.order, |record| {
            let held = record.quantity.get();
            record.state = HoldState::Sold;
            record.attempt = 0;
            record.sold = units;
            record.quantity = confirmed.quantity;
            (record.buyer, held)
        });
        if let Some((buyer, held)) = before {
            self.counts.held -= u64::from(held);
            self.counts.sold += u64::from(units);
            self.give_back_to_limit(buyer, held.saturating_sub(units));
        }
    }

    fn apply_released(&mut self, released: &Released) {
        self.end_hold(released.order, HoldState::Released(released.cause), released.by);
        // An order that was never born leaves nothing: its key is free again.
        if released.cause == Cause::NotPlaced {
            self.orders.remove(released.order);
        }
    }

    fn apply_returned(&mut self, returned: &Returned) {
        let units = returned.quantity.get();
        let buyer = self.orders.change(returned.order, |record| {
            record.sold = record.sold.saturating_sub(units);
            let returns =
                record.returns.get_or_insert_with(|| Box::new(Returns { by: Vec::new(), why: returned.why }));
            returns.why = returned.why;
            if returned.by != 0 {
                returns.by.push(returned.by);
            }
            record.buyer
        });
        if let Some(buyer) = buyer {
            self.counts.sold -= u64::from(units);
            if !returned.to_stock {
                self.counts.on_hand -= u64::from(units);
            }
            self.give_back_to_limit(buyer, units);
        }
    }

    fn apply_forgotten(&mut self, forgotten: &Forgotten) {
        let Forgotten { unkeyed_before, keyed_before, cancelled } = forgotten;
        let gone: Vec<OrderId> =
            self.forgettable(*unkeyed_before, *keyed_before).map(|(order, _)| order).collect();
        for order in gone.into_iter().chain(cancelled.iter().map(|(order, _)| *order)) {
            self.orders.remove(order);
        }
    }

    /// The orders that are dropped unnamed, and when each of them was due; in no order that means anything.
    pub fn forgettable(
        &self,
        unkeyed_before: Millis,
        keyed_before: Millis,
    ) -> impl Iterator<Item = (OrderId, Millis)> {
        let gone = self.over_before(unkeyed_before, keyed_before);
        gone.filter(|record| !record.answers_its_cancel()).map(|record| (record.order, record.deadline))
    }

    fn over_before(&self, unkeyed_before: Millis, keyed_before: Millis) -> impl Iterator<Item = &Record> {
        self.orders.iter().filter(move |record| {
            let before = if record.keyed { keyed_before } else { unkeyed_before };
            record.came_to_nothing() && record.deadline < before
        })
    }

    /// What may be dropped. Of very many that are named those go first that were due first.
    pub fn forgotten(&self, unkeyed_before: Millis, keyed_before: Millis) -> Forgotten {
        let named =
            self.over_before(unkeyed_before, keyed_before).filter(|record| record.answers_its_cancel());
        let mut named: Vec<(Millis, OrderId, u64)> =
            named.map(|record| (record.deadline, record.order, record.ended_by)).collect();
        if named.len() > CANCELLED_DROPPED_MAX {
            named.select_nth_unstable(CANCELLED_DROPPED_MAX);
            named.truncate(CANCELLED_DROPPED_MAX);
        }
        named.sort_unstable();
        let cancelled = named.into_iter().map(|(_, order, by)| (order, by)).collect();
        Forgotten { unkeyed_before, keyed_before, cancelled }
    }

    /// Notes that everything up to here stands in an entry with this hash, closed at `at`.
    pub fn sealed(&mut self, hash: ChainHash, at: Millis) {
        self.hash = hash;
        self.last_at = self.time(at);
    }

    /// Replays one entry of the journal.
    pub fn replay(&mut self, entry: &Entry) -> Result<(), ReplayError> {
        entry.continues(self.sequence, self.hash)?;
        let events = decode_events(&entry.events)?;
        let (named, held) = (entry.count(), events.len() as u64);
        if named != held {
            let (product, first) = (entry.product, entry.first);
            return Err(Forked::Count { product, first, named, held }.into());
        }
        for event in &events {
            if !self.may_follow(event) {
                let (product, sequence) = (entry.product, self.sequence.next());
                return Err(ReplayError::Impossible { product, sequence, kind: event.word() });
            }
            self.apply(event);
        }
        self.sealed(entry.hash, entry.at);
        Ok(())
    }
}
