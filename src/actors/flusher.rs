//! The flusher: brings the tables up to date with the journal, again and again, behind everybody's back.
//!
//! It lives on a thread of its own that yields to the order path. It owns the pace: every [`FLUSH_EVERY`] what has
//! gathered, at once when somebody asks or a whole slice waits, and with long pauses while a crowd is buying, for which
//! the lag has room. When that room is used up it slows the journal down rather than let the lag grow to its cap.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tracing::{error, info, warn};

use crate::actors::stock::House;
use crate::persistence::StoreError;
use crate::persistence::Tables;
use crate::persistence::flush::{Flusher, Lag, LagGauge, SLICE_EVENTS_MAX};
use crate::persistence::journal::Journal;

/// The longest the tables stay behind while less than a slice happens in it. A slice costs about the same for ten events
/// as for hundreds, so what trickles in is let gather.
pub const FLUSH_EVERY: Duration = Duration::from_millis(250);
/// Pause after a flush that failed.
const FAILED_PAUSE: Duration = Duration::from_millis(500);
/// The longest the journal waits before a group while the flush is behind.
const BRAKE_MAX_US: u64 = 20_000;
/// So many events in a second are a rush …
const RUSH_EVENTS_PER_S: u64 = 20_000;
/// … and a quarter of it is where so many come together in one group: there the machine is slower, or the disk, and has less to spare.
const RUSH_GROUP_EVENTS: u64 = 32;
/// In a rush, how many times the length of a slice the flush rests after it …
const RUSH_REST: u32 = 49;
/// … and the longest.
const RUSH_REST_MAX: Duration = Duration::from_secs(2);
/// How much less important than the order path the flush is, in steps of the scheduler.
const NICE: i32 = 10;

/// From which lag the journal is slowed down, and at which new holds are refused.
#[derive(Debug, Clone, Copy)]
pub struct LagLimits {
    /// Below it the order path runs free: the crowd of a few seconds fits.
    pub soft_bytes: u64,
    pub cap_bytes: u64,
}

/// The lag of a rush of about ten seconds.
const SOFT_BYTES: u64 = 64 * 1024 * 1024;

impl LagLimits {
    /// Free up to the lag of a rush, or an eighth of a smaller cap.
    pub fn up_to(cap_bytes: u64) -> LagLimits {
        LagLimits { soft_bytes: SOFT_BYTES.min(cap_bytes / 8), cap_bytes }
    }

    /// How long the journal waits before a group at this lag: nothing at the soft limit, the most at twice of it.
    fn brake_us(&self, lag_bytes: u64) -> u64 {
        let over = lag_bytes.saturating_sub(self.soft_bytes).min(self.soft_bytes);
        over.saturating_mul(BRAKE_MAX_US) / self.soft_bytes.max(1)
    }
}

struct Inner {
    wake: Notify,
    flushed: watch::Sender<i64>,
    stop: AtomicBool,
    abandon: AtomicBool,
    ended: watch::Sender<bool>,
}

/// Asks the flusher for haste. Cheap to clone.
#[derive(Clone)]
pub struct FlushHandle {
    inner: Arc<Inner>,
    journal: Journal,
    gauge: LagGauge,
}

impl FlushHandle {
    /// Waits until the tables show everything that is in the journal now, but no longer than `patience`.
    pub async fn caught_up(&self, patience: Duration) -> bool {
        let Ok(head) = self.journal.look_at_end().await.map(|end| end.pos) else { return false };
        let mut flushed = self.inner.flushed.subscribe();
        if *flushed.borrow() >= head {
            return true;
        }
        self.inner.wake.notify_one();
        let waiting = flushed.wait_for(|pos| *pos >= head);
        tokio::time::timeout(patience, waiting).await.is_ok_and(|done| done.is_ok())
    }

    /// How far the tables are behind.
    pub fn lag(&self) -> Lag {
        self.gauge.lag()
    }

    /// Ends the loop after the slice it is at: the journal is lost, and the next start goes on from the checkpoint.
    pub async fn abandon(&self) {
        self.inner.abandon.store(true, Ordering::Release);
        self.stop().await;
    }

    /// Flushes what is left and ends the loop. Waits for the end.
    pub async fn stop(&self) {
        self.inner.stop.store(true, Ordering::Release);
        self.inner.wake.notify_one();
        let mut ended = self.inner.ended.subscribe();
        // A loop that is gone already has nothing more to say.
        let _ = ended.wait_for(|ended| *ended).await;
    }
}

/// Starts the loop on its own thread.
pub async fn start(
    house: Arc<House>,
    journal: &Journal,
    tables: &Tables,
    limits: LagLimits,
) -> Result<FlushHandle, StoreError> {
    let flusher = Flusher::open(journal, tables).await?;
    let inner = Arc::new(Inner {
        wake: Notify::new(),
        flushed: watch::Sender::new(flusher.pos()),
        stop: AtomicBool::new(false),
        abandon: AtomicBool::new(false),
        ended: watch::Sender::new(false),
    });
    let handle = FlushHandle { inner: inner.clone(), journal: journal.clone(), gauge: flusher.gauge() };
    let brake = journal.brake().clone();
    let flushing = Flushing {
        house,
        journal: journal.clone(),
        flusher,
        inner: inner.clone(),
        limits,
        gauge: handle.gauge.clone(),
        base_brake_us: brake.load(Ordering::Relaxed),
        brake,
        behind_since_ns: None,
        looked: Looked::default(),
    };
    let thread = std::thread::Builder::new().name("stockade-flush".to_owned());
    let work = move || {
        // An unprivileged process may always become less important.
        let _ = rustix::process::nice(NICE);
        match tokio::runtime::Builder::new_current_thread().enable_time().build() {
            Ok(runtime) => runtime.block_on(flushing.run()),
            Err(error) => error!(%error, "the flush has no runtime: the tables fall behind"),
        }
        inner.ended.send_replace(true);
    };
    thread.spawn(work).map_err(StoreError::Thread)?;
    Ok(handle)
}

/// When the journal was looked at, and what it had written by then.
#[derive(Debug, Clone, Copy, Default)]
struct Looked {
    at_ns: u64,
    /// All nodes together.
    events: u64,
    /// This node alone.
    own_events: u64,
    own_groups: u64,
}

impl Looked {
    /// Whether a crowd has been buying since `before`.
    fn is_rush_since(self, before: Looked) -> bool {
        let elapsed_ms = (self.at_ns.saturating_sub(before.at_ns) / 1_000_000).max(1);
        let per_s = self.events.saturating_sub(before.events) * 1_000 / elapsed_ms;
        let own_groups = self.own_groups.saturating_sub(before.own_groups).max(1);
        let together = self.own_events.saturating_sub(before.own_events) / own_groups;
        per_s >= RUSH_EVENTS_PER_S || per_s >= RUSH_EVENTS_PER_S / 4 && together >= RUSH_GROUP_EVENTS
    }
}

struct Flushing {
    house: Arc<House>,
    journal: Journal,
    flusher: Flusher,
    inner: Arc<Inner>,
    limits: LagLimits,
    gauge: LagGauge,
    brake: Arc<AtomicU64>,
    /// What a test setting asks for anyway.
    base_brake_us: u64,
    behind_since_ns: Option<u64>,
    looked: Looked,
}

impl Flushing {
    async fn run(mut self) {
        loop {
            let stopping = self.inner.stop.load(Ordering::Acquire);
            let idle = self.catch_up(stopping).await;
            if stopping && idle {
                return;
            }
            if !self.inner.stop.load(Ordering::Acquire) {
                let pause = if idle { FLUSH_EVERY } else { FAILED_PAUSE };
                // Whichever comes first: somebody asks, or it is time.
                let _ = tokio::time::timeout(pause, self.inner.wake.notified()).await;
            }
        }
    }

    /// Slices until less than one is left, or nothing while stopping; `false` if one failed. While stopping a failure
    /// ends it, too: the journal holds everything, and the next start goes on from the checkpoint.
    async fn catch_up(&mut self, stopping: bool) -> bool {
        while !self.inner.abandon.load(Ordering::Acquire) {
            let (began, waiting) = (self.house.clock.nanos(), self.gauge.lag().events);
            match self.flusher.run_slice().await {
                Ok(done) => {
                    self.inner.flushed.send_replace(done.pos);
                    if done.events >= waiting {
                        // Whatever is missing now came since.
                        self.behind_since_ns = Some(began);
                    }
                    let (lag, rush) = (self.observe(), self.is_rush());
                    let took = self.house.clock.nanos().saturating_sub(began);
                    if done.events > 0 {
                        self.house.metrics.flush_slice_seconds.record(took as f64 / 1e9);
                    }
                    if stopping {
                        if done.events == 0 {
                            return true;
                        }
                        if lag.events > 0 && lag.events % 100_000 < done.events {
                            info!(events = lag.events, "flushing before the end");
                        }
                    } else if done.events == 0 || lag.events < SLICE_EVENTS_MAX {
                        self.tidy().await;
                        return true;
                    } else if rush && lag.bytes < self.limits.soft_bytes {
                        let pause = (Duration::from_nanos(took) * RUSH_REST).min(RUSH_REST_MAX);
                        let _ = tokio::time::timeout(pause, self.inner.wake.notified()).await;
                    }
                }
                Err(error) => {
                    warn!(%error, "a slice was not flushed; the tables are as they were");
                    self.observe();
                    return stopping;
                }
            }
        }
        true
    }

    /// Puts the tables' own house in order while nothing else is to be done.
    async fn tidy(&mut self) {
        while self.gauge.lag().events == 0 && !self.inner.stop.load(Ordering::Acquire) {
            match self.flusher.tidy().await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    warn!(%error, "the tables were not tidied; they are as they were");
                    return;
                }
            }
        }
    }

    /// Whether a crowd is buying. Then the processors belong to the buyers: the tables follow when it is over, or when the
    /// room for their lag is used up, or when somebody asks for them.
    fn is_rush(&mut self) -> bool {
        let stats = self.journal.stats();
        let now = Looked {
            at_ns: self.house.clock.nanos(),
            events: self.journal.seen_end().events,
            own_events: stats.events.load(Ordering::Relaxed),
            own_groups: stats.groups.load(Ordering::Relaxed),
        };
        now.is_rush_since(std::mem::replace(&mut self.looked, now))
    }

    /// Shows the lag and sets the pace of the journal by it.
    fn observe(&mut self) -> Lag {
        let (lag, metrics) = (self.gauge.lag(), &self.house.metrics);
        metrics.flush_lag_events.set(lag.events as f64);
        metrics.flush_lag_bytes.set(lag.bytes as f64);
        let now = self.house.clock.nanos();
        self.behind_since_ns = (lag.events > 0).then(|| self.behind_since_ns.unwrap_or(now));
        let behind = self.behind_since_ns.map_or(0, |since| now.saturating_sub(since));
        metrics.flush_lag_seconds.set(behind as f64 / 1e9);
        self.brake.store(self.base_brake_us + self.limits.brake_us(lag.bytes), Ordering::Relaxed);
        let at_cap = lag.bytes >= self.limits.cap_bytes;
        if at_cap != self.house.lagging.swap(at_cap, Ordering::Relaxed) {
            if at_cap {
                warn!(
                    bytes = lag.bytes,
                    "the tables are too far behind: new holds are refused until they catch up"
                );
            } else {
                info!("the tables have caught up: holds are taken again");
            }
        }
        lag
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_is_known_by_its_number_or_by_how_many_come_together() {
        let second = |events, own_groups| {
            let now = Looked { at_ns: 1_000_000_000, events, own_events: events, own_groups };
            now.is_rush_since(Looked::default())
        };
        assert!(second(20_000, 5_000), "so many are a crowd, however quick the disk is");
        assert!(!second(19_999, 5_000));
        assert!(second(5_000, 156), "thirty-two at once");
        assert!(!second(5_000, 157));
        assert!(!second(4_000, 1), "one who fills a warehouse is no crowd");
        assert!(!second(0, 0));
    }

    #[test]
    fn the_brake_grows_from_the_soft_limit_to_twice_of_it() {
        let limits = LagLimits::up_to(800);
        assert_eq!(limits.brake_us(100), 0);
        assert_eq!(limits.brake_us(150), BRAKE_MAX_US / 2);
        assert_eq!(limits.brake_us(10_000), BRAKE_MAX_US);
    }
}
