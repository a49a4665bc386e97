//! The flusher: brings the tables up to date with the journal, again and again, behind everybody's back.
//!
//! It lives on a thread of its own that yields to the order path. It owns the pace: every [`FLUSH_EVERY`] all that has
//! gathered, at once what somebody waits for, and with long pauses while a crowd is buying, for which the lag has room.
//! When that room is used up it slows the journal down rather than let the lag grow to its cap.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tracing::{error, info, warn};

use crate::actors::stock::House;
use crate::persistence::StoreError;
use crate::persistence::Tables;
use crate::persistence::flush::{FlushError, Flushed, Flusher, Lag, LagGauge, NICE, SLICE_EVENTS_MAX};
use crate::persistence::journal::Journal;

/// How long the tables rest when they show all that was there. A slice costs about the same for ten events as for hundreds, so
/// what trickles in is let gather.
pub const FLUSH_EVERY: Duration = Duration::from_millis(250);
/// How often the lag is looked at while a slice is being written.
const OBSERVE_EVERY: Duration = Duration::from_millis(100);
/// Pause after a flush that failed.
const FAILED_PAUSE: Duration = Duration::from_millis(500);
/// The longest the journal waits before a group while the flush is behind.
const BRAKE_MAX_US: u64 = 20_000;
/// More events than this in a second are a rush.
const RUSH_EVENTS_PER_S: u64 = 20_000;
/// In a rush, how many times the length of a slice the flush rests after it …
const RUSH_REST: u32 = 49;
/// … and the longest.
const RUSH_REST_MAX: Duration = Duration::from_secs(2);
/// Looks at the journal's end that are remembered.
const ENDS_MAX: usize = 1_024;
/// After so many slices that somebody waited for it is looked whether the WALs have grown.
const CHECKPOINT_EVERY: u64 = 8;
/// Where somebody waited not longer ago than this, somebody may come at any moment.
const WAITED_FOR: Duration = Duration::from_secs(1);
/// Whoever waits for this place makes the loop panic.
#[cfg(test)]
const DIES: i64 = i64::MAX;

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
    /// The furthest place that anybody has waited for, and how many wait.
    wanted: AtomicI64,
    waiters: AtomicUsize,
    flushed: watch::Sender<i64>,
    /// Something stands in the way that will stand there at the next try, too.
    halted: watch::Sender<bool>,
    stop: AtomicBool,
    abandon: AtomicBool,
    ended: watch::Sender<Option<End>>,
}

/// How the loop has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    InOrder,
    /// It panicked, or never began: nobody brings the tables up to date any more.
    Lost,
}

/// Somebody waits, for as long as this is there.
struct Waiter(Arc<Inner>);

impl Inner {
    fn at(flushed: i64) -> Inner {
        Inner {
            wake: Notify::new(),
            wanted: AtomicI64::new(i64::MIN),
            waiters: AtomicUsize::new(0),
            flushed: watch::Sender::new(flushed),
            halted: watch::Sender::new(false),
            stop: AtomicBool::new(false),
            abandon: AtomicBool::new(false),
            ended: watch::Sender::new(None),
        }
    }

    fn wait_for(self: &Arc<Self>, pos: i64) -> Waiter {
        self.wanted.fetch_max(pos, Ordering::AcqRel);
        self.waiters.fetch_add(1, Ordering::AcqRel);
        self.wake.notify_one();
        Waiter(self.clone())
    }

    fn is_waited_for(&self) -> bool {
        self.waiters.load(Ordering::Acquire) > 0
    }

    fn is_wanted(&self, flushed: i64) -> bool {
        self.is_waited_for() && self.wanted.load(Ordering::Acquire) > flushed
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.0.waiters.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Says that the loop has ended, however it did. Once it is lost nobody looks at the lag any more, so no hold is taken without a cap.
struct Ended {
    inner: Arc<Inner>,
    house: Arc<House>,
    in_order: bool,
}

impl Drop for Ended {
    fn drop(&mut self) {
        let how = if self.in_order { End::InOrder } else { End::Lost };
        if how == End::Lost {
            error!(
                "the flush has died: new holds are refused until the shop has been opened again; report it"
            );
            self.house.lagging.store(true, Ordering::Relaxed);
        }
        self.inner.ended.send_replace(Some(how));
    }
}

/// Asks the flusher for haste. Cheap to clone.
#[derive(Clone)]
pub struct FlushHandle {
    inner: Arc<Inner>,
    journal: Journal,
    gauge: LagGauge,
}

/// Somebody has asked for all that was in the journal to be shown: there is haste for as long as this is there.
pub struct Asked {
    /// `None`: nobody knows where the journal ended.
    pos: Option<i64>,
    flushed: watch::Receiver<i64>,
    _waiter: Option<Waiter>,
}

impl Asked {
    /// Waits until it is shown, but no longer than `patience`.
    pub async fn shown(&mut self, patience: Duration) -> bool {
        let Some(asked) = self.pos else { return false };
        let waiting = self.flushed.wait_for(|pos| *pos >= asked);
        tokio::time::timeout(patience, waiting).await.is_ok_and(|done| done.is_ok())
    }
}

impl FlushHandle {
    /// Asks for everything that is in the journal now to be shown.
    pub async fn ask(&self) -> Asked {
        let pos = self.journal.look_at_end().await.ok().map(|end| end.pos);
        let flushed = self.inner.flushed.subscribe();
        let missing = pos.filter(|pos| *flushed.borrow() < *pos);
        let waiter = missing.map(|pos| self.inner.wait_for(pos));
        Asked { pos, flushed, _waiter: waiter }
    }

    /// Waits until the tables show everything that is in the journal now, but no longer than `patience`.
    pub async fn caught_up(&self, patience: Duration) -> bool {
        self.ask().await.shown(patience).await
    }

    /// Whether more is missing than a slice shows, which is more than what is let gather.
    pub fn is_behind(&self) -> bool {
        self.lag().events > SLICE_EVENTS_MAX
    }

    /// How far the tables are behind.
    pub fn lag(&self) -> Lag {
        self.gauge.lag()
    }

    /// Whether the tables stand still before something that cannot be read, or cannot follow what is before it.
    pub fn halted(&self) -> watch::Receiver<bool> {
        self.inner.halted.subscribe()
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
        let _ = ended.wait_for(Option::is_some).await;
    }

    /// Waits until the loop is lost: the shop must be opened again.
    pub async fn lost(&self) {
        let mut ended = self.inner.ended.subscribe();
        let _ = ended.wait_for(|how| *how == Some(End::Lost)).await;
    }

    /// Makes the loop panic at its next turn.
    #[cfg(test)]
    pub fn dies(&self) {
        self.inner.wanted.store(DIES, Ordering::Release);
        self.inner.wake.notify_one();
    }
}

/// Ends the loop, unless a shop has been opened around it.
pub struct UntilOpen(Option<FlushHandle>);

impl UntilOpen {
    pub fn of(flush: &FlushHandle) -> UntilOpen {
        UntilOpen(Some(flush.clone()))
    }

    pub fn is_open(mut self) {
        self.0 = None;
    }
}

impl Drop for UntilOpen {
    fn drop(&mut self) {
        if let Some(FlushHandle { inner, .. }) = self.0.take() {
            inner.abandon.store(true, Ordering::Release);
            inner.wake.notify_one();
        }
    }
}

/// Starts the loop on its own thread. `base_brake_us`: how long the journal rests after a group whatever the lag, which a test setting
/// asks for; what the brake shows may be the word of a lead before this one.
pub async fn start(
    house: Arc<House>,
    journal: &Journal,
    tables: &Tables,
    limits: LagLimits,
    base_brake_us: u64,
) -> Result<FlushHandle, StoreError> {
    let flusher = Flusher::open(journal, tables).await?;
    let inner = Arc::new(Inner::at(flusher.pos()));
    let handle = FlushHandle { inner: inner.clone(), journal: journal.clone(), gauge: flusher.gauge() };
    let (brake, started_ns) = (journal.brake().clone(), house.clock.nanos());
    let (gauge, sharing) = (handle.gauge.clone(), house.clone());
    let flushing = Flushing {
        pace: Pace { house: house.clone(), limits, gauge, base_brake_us, brake, shown_ns: started_ns },
        house,
        journal: journal.clone(),
        flusher,
        inner: inner.clone(),
        ends: VecDeque::new(),
        looked: (started_ns, 0),
        slices: 0,
        waited_ns: None,
        last: None,
    };
    let thread = std::thread::Builder::new().name("stockade-flush".to_owned());
    let work = move || {
        let mut ended = Ended { inner, house: sharing, in_order: false };
        // An unprivileged process may always become less important.
        let _ = rustix::process::nice(NICE);
        match tokio::runtime::Builder::new_current_thread().enable_time().build() {
            Ok(runtime) => {
                runtime.block_on(flushing.run());
                ended.in_order = true;
            }
            Err(error) => error!(%error, "the flush has no runtime: the tables fall behind"),
        }
    };
    thread.spawn(work).map_err(StoreError::Thread)?;
    Ok(handle)
}

struct Flushing {
    house: Arc<House>,
    journal: Journal,
    flusher: Flusher,
    inner: Arc<Inner>,
    pace: Pace,
    /// Where the journal ended, and when, at looks since the oldest event that is missing.
    ends: VecDeque<(i64, u64)>,
    /// When the journal was last looked at, and how many events it had written.
    looked: (u64, u64),
    /// So many were written.
    slices: u64,
    /// When somebody was last seen to wait.
    waited_ns: Option<u64>,
    /// Where it ended when the loop was told to stop: what other nodes add is theirs to show.
    last: Option<i64>,
}

impl Flushing {
    async fn run(mut self) {
        while let Some(pause) = self.turn().await {
            // Even a pause of nothing takes a tick of the timer.
            if !pause.is_zero() {
                // Whichever comes first: somebody asks, or it is time.
                let _ = tokio::time::timeout(pause, self.inner.wake.notified()).await;
            }
        }
    }

    /// One slice. Says how long to rest after it; `None` at the end. While stopping a failure is the end, too: the journal holds
    /// everything, and the next start goes on from the checkpoint.
    async fn turn(&mut self) -> Option<Duration> {
        #[cfg(test)]
        assert_ne!(self.inner.wanted.load(Ordering::Acquire), DIES, "as the test wants it");
        if self.inner.abandon.load(Ordering::Acquire) {
            return None;
        }
        let stopping = self.inner.stop.load(Ordering::Acquire);
        if stopping && self.last.is_none() {
            self.last = Some(self.journal.look_at_end().await.ok()?.pos);
        }
        let began = self.house.clock.nanos();
        if self.inner.is_waited_for() {
            self.waited_ns = Some(began);
        }
        let done = match self.slice().await {
            Ok(done) => done,
            Err(error) => {
                self.tell(&error);
                self.pace.observe();
                // It may have taken long, and the stop come meanwhile.
                return (!self.inner.stop.load(Ordering::Acquire)).then_some(FAILED_PAUSE);
            }
        };
        self.inner.flushed.send_replace(done.pos);
        if self.inner.halted.send_if_modified(std::mem::take) {
            info!("the tables follow the journal again");
        }
        self.shown(&done, began);
        let (lag, rush) = (self.pace.observe(), self.is_rush());
        if done.events > 0 {
            let took = self.house.clock.nanos().saturating_sub(began);
            self.house.metrics.flush_slice_seconds.record(took as f64 / 1e9);
            self.checkpoint().await;
        }
        let took = self.house.clock.nanos().saturating_sub(began);
        if stopping {
            if lag.events > 0 && lag.events % 100_000 < done.events {
                info!(events = lag.events, "flushing before the end");
            }
            let is_over = done.events == 0 || self.last.is_some_and(|last| done.pos >= last);
            return (!is_over).then_some(Duration::ZERO);
        }
        if done.events > 0 && (self.inner.is_wanted(done.pos) || lag.bytes >= self.pace.limits.soft_bytes) {
            return Some(Duration::ZERO);
        }
        if done.events == 0 || done.pos >= done.end {
            // Whatever is missing now came while this was being written.
            self.tidy(lag).await;
            return Some(FLUSH_EVERY);
        }
        Some(match rush {
            true => (Duration::from_nanos(took) * RUSH_REST).min(RUSH_REST_MAX),
            false => Duration::ZERO,
        })
    }

    /// What will be no better at the next try is told once, as what it is.
    fn tell(&self, error: &FlushError) {
        if !error.is_standstill() {
            warn!(%error, "a slice may not have been flushed; it is looked at again");
        } else if self.inner.halted.send_if_modified(|halted| !std::mem::replace(halted, true)) {
            error!(
                %error,
                "the tables stand still before this: nothing that was written since is shown in them, of no product, and nobody can pay for \
                 what was ordered since. Nothing is lost. If a newer version wrote it, start that one; otherwise stop the shop, keep \
                 what is stored, see what `stockade audit` says, and report it"
            );
        }
    }

    /// However long it takes: who writes the journal is slowed down, and who buys is refused, by how far behind the tables are meanwhile.
    async fn slice(&mut self) -> Result<Flushed, FlushError> {
        let mut slice = pin!(self.flusher.slice());
        loop {
            match tokio::time::timeout(OBSERVE_EVERY, slice.as_mut()).await {
                Ok(done) => return done,
                Err(_) => self.pace.observe(),
            };
        }
    }

    /// Whoever waited for the last slice has been told, and whoever waits for the next waits for this.
    async fn checkpoint(&mut self) {
        self.slices += 1;
        let may_come = self.somebody_may_come();
        if !may_come || self.slices.is_multiple_of(CHECKPOINT_EVERY) {
            self.flusher.checkpoint_if_due(may_come).await;
        }
    }

    fn somebody_may_come(&self) -> bool {
        let since = self.waited_ns.map(|at| self.house.clock.nanos().saturating_sub(at));
        since.is_some_and(|since| Duration::from_nanos(since) < WAITED_FOR)
    }

    /// Remembers since when something may be missing: since the newest look all of which is shown.
    fn shown(&mut self, done: &Flushed, looked_ns: u64) {
        if self.ends.len() < ENDS_MAX {
            self.ends.push_back((done.end, looked_ns));
        }
        while let Some((_, at_ns)) = self.ends.pop_front_if(|(end, _)| *end <= done.pos) {
            self.pace.shown_ns = at_ns;
            self.house.flushed_ns.store(at_ns, Ordering::Release);
        }
    }

    /// Puts the tables' own house in order while little else is to be done: a step, and more while there is nothing.
    async fn tidy(&mut self, lag: Lag) {
        if lag.events >= SLICE_EVENTS_MAX {
            return;
        }
        loop {
            match self.flusher.tidy(self.somebody_may_come()).await {
                Ok(true) if self.pace.gauge.lag().events == 0 && !self.inner.stop.load(Ordering::Acquire) => {
                }
                Ok(_) => return,
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
        let (now, events) = (self.house.clock.nanos(), self.journal.seen_end().events);
        let (since, before) = std::mem::replace(&mut self.looked, (now, events));
        let elapsed_ms = (now.saturating_sub(since) / 1_000_000).max(1);
        events.saturating_sub(before) * 1_000 / elapsed_ms >= RUSH_EVENTS_PER_S
    }
}

/// By how much the tables are behind, and what that means for the others.
struct Pace {
    house: Arc<House>,
    limits: LagLimits,
    gauge: LagGauge,
    brake: Arc<AtomicU64>,
    /// What a test setting asks for anyway.
    base_brake_us: u64,
    /// Everything that was there at this time is shown.
    shown_ns: u64,
}

impl Pace {
    /// Shows the lag and sets the pace of the journal by it.
    fn observe(&self) -> Lag {
        let (lag, metrics) = (self.gauge.lag(), &self.house.metrics);
        metrics.flush_lag_events.set(lag.events as f64);
        metrics.flush_lag_bytes.set(lag.bytes as f64);
        let now = self.house.clock.nanos();
        let behind = if lag.events > 0 { now.saturating_sub(self.shown_ns) } else { 0 };
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
    fn there_is_haste_for_as_long_as_somebody_waits_for_more_than_is_shown() {
        let inner = Arc::new(Inner::at(0));
        assert!(!inner.is_wanted(0));
        let (far, near) = (inner.wait_for(9), inner.wait_for(3));
        assert!(inner.is_wanted(8));
        assert!(!inner.is_wanted(9));
        drop(far);
        assert!(inner.is_wanted(5), "somebody does, who may wait for less");
        drop(near);
        assert!(!inner.is_wanted(0), "whoever has given up wants nothing");
    }

    #[test]
    fn the_brake_grows_from_the_soft_limit_to_twice_of_it() {
        let limits = LagLimits::up_to(800);
        assert_eq!(limits.brake_us(100), 0);
        assert_eq!(limits.brake_us(150), BRAKE_MAX_US / 2);
        assert_eq!(limits.brake_us(10_000), BRAKE_MAX_US);
    }
}
