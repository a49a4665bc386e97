//! Whether orders can be acknowledged, looked at a few times a second: what `/readyz` tells, and the journal's numbers.

use std::sync::atomic::Ordering;
use std::time::Duration;

use actix_web::rt;
use tokio::task::JoinHandle;

use crate::actors::mirror::Mirror;
use crate::actors::stock::Directory;
use crate::http::health::{Degraded, NotReady, Readiness};
use crate::persistence::journal::{Health, Journal};

/// A load balancer asks no more often.
const PULSE: Duration = Duration::from_millis(100);

/// Ends with its app.
pub struct Vitals(JoinHandle<()>);

impl Vitals {
    pub fn watch(
        journal: &Journal,
        directory: &Directory,
        readiness: &Readiness,
        mirror: Option<Mirror>,
    ) -> Vitals {
        let (journal, directory, readiness) = (journal.clone(), directory.clone(), readiness.clone());
        Vitals(rt::spawn(async move {
            let mut pulse = rt::time::interval(PULSE);
            loop {
                pulse.tick().await;
                let house = directory.house();
                house.metrics.owner_queue_length.set(directory.waiting() as f64);
                set(&readiness, NotReady::JournalUnavailable, journal.health() != Health::Healthy);
                set(&readiness, NotReady::FlushBehind, house.lagging.load(Ordering::Relaxed));
                if let Some(mirror) = &mirror {
                    readiness.degrade(Degraded::RedisUnavailable, !mirror.redis_is_up());
                    readiness.degrade(Degraded::MirrorBehind, mirror.is_behind());
                }
                house.metrics.journal_bytes.absolute(journal.stats().bytes.load(Ordering::Relaxed));
            }
        }))
    }
}

fn set(readiness: &Readiness, why: NotReady, it_is_so: bool) {
    if it_is_so { readiness.raise(why) } else { readiness.clear(why) }
}

impl Drop for Vitals {
    fn drop(&mut self) {
        self.0.abort();
    }
}
