//! What an owner shows in the process's metrics.

use std::sync::Arc;

use tracing::error;

use crate::actors::stock::directory::House;
use crate::actors::stock::protocol::Tally;
use crate::domain::id::ProductId;
use crate::domain::stock::Ledger;

/// What it has added to the gauges of all owners. Taken back when it goes.
pub struct Counted {
    house: Arc<House>,
    held: u64,
    orders: usize,
    /// It was told that the stock does not add up, or is not what the journal leads to.
    is_wrong: bool,
}

impl Counted {
    pub fn new(house: Arc<House>) -> Counted {
        house.metrics.owners_loaded.increment(1.0);
        Counted { house, held: 0, orders: 0, is_wrong: false }
    }

    /// So many units are held now, and so many orders remembered.
    pub fn now(&mut self, held: u64, orders: usize) {
        let metrics = &self.house.metrics;
        metrics.holds_live.increment(held as f64 - std::mem::replace(&mut self.held, held) as f64);
        metrics
            .orders_in_memory
            .increment(orders as f64 - std::mem::replace(&mut self.orders, orders) as f64);
    }

    /// Whether the ledger's counters are what its records add up to. If they are not, that stays to be seen until the process ends; it
    /// counts again each time the product is loaded.
    pub fn adds_up(&mut self, product: ProductId, ledger: &Ledger) -> bool {
        let adds_up = ledger.adds_up();
        if !adds_up && self.is_found_wrong() {
            error!(%product, "stock does not add up: {:?}", ledger.counts());
        }
        adds_up
    }

    /// Its stock does not add up, or the journal does not lead to it. Whether nobody knew that.
    pub fn is_found_wrong(&mut self) -> bool {
        let is_new = !std::mem::replace(&mut self.is_wrong, true);
        if is_new {
            self.house.metrics.conservation_violations.increment(1.0);
        }
        is_new
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use metrics::Gauge;

    use super::*;
    use crate::actors::stock::{Changes, NoHome, Snapshots, UsedKeys};
    use crate::clock::Clock;
    use crate::persistence::testing::{Owner, T0, buyer, order};
    use crate::telemetry::Metrics;

    #[test]
    fn a_ledger_whose_records_do_not_add_up_is_seen_once() {
        let shown = Arc::new(AtomicU64::new(0));
        let metrics =
            Metrics { conservation_violations: Gauge::from_arc(shown.clone()), ..Metrics::global().clone() };
        let house = House {
            home: Arc::new(NoHome),
            clock: Clock::start(),
            keys: UsedKeys::default(),
            metrics,
            wait_ms_max: 10_000,
            lagging: AtomicBool::new(false),
            flushed_ns: AtomicU64::new(0),
            owners_max: 1,
            changes: Changes::unheard(),
            snapshots: Snapshots::default(),
        };
        let violations = || f64::from_bits(shown.load(Ordering::SeqCst));
        let mut counted = Counted::new(Arc::new(house));
        let mut owner = Owner::stocked(1, 10);
        owner.hold(order(1, owner.product), buyer(1), 3, T0);
        assert!(counted.adds_up(owner.product, &owner.ledger));
        assert!(violations() < 0.5);
        owner.ledger.tamper();
        for _ in 0..2 {
            assert!(!counted.adds_up(owner.product, &owner.ledger));
            assert!((violations() - 1.0).abs() < 0.5, "a product counts once");
        }
        assert!(!counted.is_found_wrong() && (violations() - 1.0).abs() < 0.5);
    }
}
