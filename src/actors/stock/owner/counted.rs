//! What an owner shows in the process's metrics.

use super::super::protocol::Tally;
use crate::telemetry::Metrics;

/// What it has added to the gauges of all owners. Taken back when it goes.
pub struct Counted {
    metrics: Metrics,
    held: u64,
    orders: usize,
}

impl Counted {
    pub fn new(metrics: Metrics) -> Counted {
        metrics.owners_loaded.increment(1.0);
        Counted { metrics, held: 0, orders: 0 }
    }

    /// So many units are held now, and so many orders remembered.
    pub fn now(&mut self, held: u64, orders: usize) {
        let Counted { metrics, held: held_before, orders: orders_before } = self;
        metrics.holds_live.increment(held as f64 - std::mem::replace(held_before, held) as f64);
        metrics.orders_in_memory.increment(orders as f64 - std::mem::replace(orders_before, orders) as f64);
    }

    pub fn record(&self, tally: Tally) {
        let metrics = &self.metrics;
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
        self.metrics.owners_loaded.decrement(1.0);
    }
}
