//! What an owner shows in the process's metrics.

use std::sync::Arc;

use crate::actors::stock::directory::House;
use crate::actors::stock::protocol::Tally;

/// What it has added to the gauges of all owners. Taken back when it goes.
pub struct Counted {
    house: Arc<House>,
    held: u64,
    orders: usize,
}

impl Counted {
    pub fn new(house: Arc<House>) -> Counted {
        house.metrics.owners_loaded.increment(1.0);
        Counted { house, held: 0, orders: 0 }
    }

    /// So many units are held now, and so many orders remembered.
    pub fn now(&mut self, held: u64, orders: usize) {
        let metrics = &self.house.metrics;
        metrics.holds_live.increment(held as f64 - std::mem::replace(&mut self.held, held) as f64);
        metrics
            .orders_in_memory
            .increment(orders as f64 - std::mem::replace(&mut self.orders, orders) as f64);
    }

    pub fn record(&self, tally: Tally) {
        let metrics = &self.house.metrics;
        metrics.units_held.increment(tally.held);
        metrics.units_released.increment(tally.released);
        metrics.units_expired.increment(tally.expired);
        metrics.units_sold.increment(tally.sold);
        metrics.units_returned.increment(tally.returned);
        if let Some(late) = tally.lateness_ms {
            metrics.expiry_lateness_seconds.record(late as f64 / 1e3);
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.now(0, 0);
        self.house.metrics.owners_loaded.decrement(1.0);
    }
}
