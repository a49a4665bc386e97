//! Whether orders can be acknowledged, looked at a few times a second: what `/readyz` tells, and what is left of the products that are
//! hot; and, wherever something is owned, the journal's numbers and who waits at owners.
//!
//! Always true: nobody watches for ever at a lead whose place another node may have taken.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix_web::rt;
use metrics::Counter;
use tokio::task::JoinHandle;

use crate::actors::flusher::FlushHandle;
use crate::actors::mirror::Mirror;
use crate::actors::nodes::Nodes;
use crate::actors::revocations::Revocations;
use crate::actors::stock::{Directory, HotProducts, View};
use crate::actors::turns::Loop;
use crate::domain::id::ProductId;
use crate::http::Streams;
use crate::http::health::{Degraded, NotReady, Readiness};
use crate::persistence::journal::{Health, Journal};
use crate::telemetry::{ProductUnits, show_products};

/// A load balancer asks no more often.
const PULSE: Duration = Duration::from_millis(100);
/// After so long without a lease another node leads, if one can: longer than it takes to see that a heart stands still, and to open.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(10);
/// The same where no other node was seen that may own: one would have come since.
const SUCCEEDED_WITHIN: Duration = Duration::from_secs(60);
/// So many pulses lie between two looks at which products are hot.
const PULSES_A_LOOK: u32 = 10;

/// Ends with its app.
pub struct Vitals(JoinHandle<()>);

impl Vitals {
    pub fn watch(
        journal: &Journal,
        directory: &Directory,
        readiness: &Readiness,
        streams: &Streams,
        mirror: Option<Mirror>,
        nodes: Nodes,
        revocations: Revocations,
    ) -> Vitals {
        let (journal, directory, readiness) = (journal.clone(), directory.clone(), readiness.clone());
        let (streams, mut alone) = (streams.clone(), Alone::default());
        let mut hot = HotProducts::of(&directory);
        Vitals(rt::spawn(async move {
            let (mut pulse, mut pulses) = (rt::time::interval(PULSE), 0_u32);
            let mut were_unread = false;
            loop {
                pulse.tick().await;
                let house = directory.house();
                set(&readiness, NotReady::JournalUnavailable, journal.health() != Health::Healthy);
                set(&readiness, NotReady::FlushBehind, house.lagging.load(Ordering::Relaxed));
                let are_unread = revocations.are_too_old(house.clock.nanos());
                set(&readiness, NotReady::RevocationsUnread, are_unread);
                // The machine may have slept, and the reader with it.
                if are_unread && !were_unread {
                    revocations.look();
                }
                were_unread = are_unread;
                let within = if journal.has_peers() { TAKEN_OVER_WITHIN } else { SUCCEEDED_WITHIN };
                if alone.for_too_long(journal.is_the_only_one(), within, house.clock.nanos()) {
                    streams.end_present();
                }
                if let Some(mirror) = &mirror {
                    readiness.degrade(Degraded::RedisUnavailable, !mirror.redis_is_up());
                    readiness.degrade(Degraded::MirrorBehind, mirror.is_behind());
                }
                if pulses.is_multiple_of(PULSES_A_LOOK) {
                    let hot = hot.look();
                    nodes.heard_hot(hot.iter().map(|(product, _)| *product).collect());
                    show_products(hot.into_iter().map(shown).collect());
                }
                pulses = pulses.wrapping_add(1);
            }
        }))
    }
}

/// Since when a lead among others has had no lease. It may be cut off from the database alone, and they sell by now what it shows.
#[derive(Default)]
struct Alone {
    since_ns: Option<u64>,
}

impl Alone {
    /// Whether whoever watches is to look elsewhere: once each time that another could have become the lead.
    fn for_too_long(&mut self, leads: bool, within: Duration, now_ns: u64) -> bool {
        let since_ns = *self.since_ns.get_or_insert(now_ns);
        let is_over = Duration::from_nanos(now_ns.saturating_sub(since_ns)) >= within;
        if leads || is_over {
            self.since_ns = None;
        }
        is_over && !leads
    }
}

/// Tells for as long as it is kept whether the tables stand still before something in the journal.
pub fn standstill(flush: &FlushHandle, readiness: &Readiness) -> Loop {
    let (mut halted, readiness) = (flush.halted(), readiness.clone());
    Loop::start(async move {
        loop {
            let is_halted = *halted.borrow_and_update();
            readiness.degrade(Degraded::TablesHalted, is_halted);
            if halted.changed().await.is_err() {
                return;
            }
        }
    })
}

/// Tells what concerns a process because it owns something.
pub fn pulse(journal: &Journal, directory: &Directory) -> Loop {
    let (journal, directory) = (journal.clone(), directory.clone());
    Loop::start(async move {
        let (mut pulse, mut counted) = (rt::time::interval(PULSE), [0; 3]);
        loop {
            pulse.tick().await;
            let (metrics, stats) = (&directory.house().metrics, journal.stats());
            metrics.owner_queue_length.set(directory.waiting() as f64);
            let [bytes, events, writes] = &mut counted;
            count(&metrics.journal_bytes, &stats.bytes, bytes);
            count(&metrics.journal_events, &stats.events, events);
            count(&metrics.journal_writes, &stats.groups, writes);
        }
    })
}

fn shown((product, view): (ProductId, Arc<View>)) -> ProductUnits {
    let counts = view.counts;
    ProductUnits {
        product: product.to_string(),
        available: counts.available(),
        held: counts.held,
        sold: counts.sold,
    }
}

/// Counts what came since. The journal that follows this one begins at nothing.
fn count(counter: &Counter, total: &AtomicU64, before: &mut u64) {
    let total = total.load(Ordering::Relaxed);
    counter.increment(total.saturating_sub(std::mem::replace(before, total)));
}

fn set(readiness: &Readiness, why: NotReady, it_is_so: bool) {
    if it_is_so { readiness.raise(why) } else { readiness.clear(why) }
}

impl Drop for Vitals {
    fn drop(&mut self) {
        self.0.abort();
        // Whoever sells them from now on says what is left.
        show_products(Vec::new());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_no_lease_for_long_is_looked_away_from_now_and_then() {
        let at = |seconds: u64| 7 + seconds * 1_000_000_000;
        const WITHIN: Duration = Duration::from_secs(10);
        let mut alone = Alone::default();
        assert!(!alone.for_too_long(false, WITHIN, at(0)) && !alone.for_too_long(false, WITHIN, at(9)));
        // It has come back in time.
        assert!(!alone.for_too_long(true, WITHIN, at(11)) && !alone.for_too_long(false, WITHIN, at(12)));
        assert!(!alone.for_too_long(false, WITHIN, at(21)) && alone.for_too_long(false, WITHIN, at(22)));
        assert!(!alone.for_too_long(false, WITHIN, at(23)) && alone.for_too_long(false, WITHIN, at(33)));
    }
}
