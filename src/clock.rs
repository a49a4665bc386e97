//! The only door to time and chance.
//!
//! Time is the wall time at start plus the boot-time clock since: a wall clock that steps moves no deadline, and a
//! machine that slept has not stopped counting. Chance comes from the operating system through a fast generator.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use crate::domain::stock::Millis;

/// Hands out time and chance. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Clock {
    /// Wall milliseconds at boot-time zero.
    offset_ms: Arc<AtomicI64>,
    /// What only ever grows: nanoseconds since the machine was started.
    boot_ns: fn() -> i64,
}

impl Clock {
    /// Reads the wall clock once.
    pub fn start() -> Clock {
        Clock::of(boot_ns, wall_ms)
    }

    /// The same with other sources. The wall is asked here, and is not kept: nobody can ask it again.
    pub(crate) fn of(boot_ns: fn() -> i64, wall_ms: fn() -> i64) -> Clock {
        Clock { offset_ms: Arc::new(AtomicI64::new(wall_ms() - boot_ns() / 1_000_000)), boot_ns }
    }

    /// Milliseconds since 1970-01-01 UTC.
    pub fn now(&self) -> Millis {
        Millis((self.boot_ns)() / 1_000_000 + self.offset_ms.load(Ordering::Relaxed))
    }

    /// Moves this clock and all its clones: for tests of what takes a day.
    pub fn advance(&self, ms: i64) {
        self.offset_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// Nanoseconds that only ever grow; for measuring how long something took.
    pub fn nanos(&self) -> u64 {
        u64::try_from((self.boot_ns)()).unwrap_or(0)
    }

    /// 128 bits of chance.
    pub fn chance(&self) -> u128 {
        rand::random()
    }

    /// So many bytes of chance, good enough for a key.
    pub fn chance_bytes<const N: usize>(&self) -> [u8; N] {
        rand::random()
    }

    /// How long from now until `at`, zero if it is past.
    pub fn until(&self, at: Millis) -> Duration {
        Duration::from_millis(u64::try_from(at.0.saturating_sub(self.now().0)).unwrap_or(0))
    }
}

fn boot_ns() -> i64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec)
}

#[allow(clippy::disallowed_methods)]
fn wall_ms() -> i64 {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(wall.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    static BOOT_NS: AtomicI64 = AtomicI64::new(5_000_000_000);
    static WALL_MS: AtomicI64 = AtomicI64::new(1_700_000_000_000);
    const HOUR_MS: i64 = 3_600_000;

    #[test]
    fn a_wall_clock_that_steps_moves_no_deadline() {
        let clock = Clock::of(|| BOOT_NS.load(Ordering::Relaxed), || WALL_MS.load(Ordering::Relaxed));
        assert_eq!(clock.now(), Millis(WALL_MS.load(Ordering::Relaxed)));
        let deadline = clock.now().plus(30_000);
        for step_ms in [HOUR_MS, -2 * HOUR_MS] {
            WALL_MS.fetch_add(step_ms, Ordering::Relaxed);
            assert_eq!(clock.until(deadline), Duration::from_secs(30));
        }
        BOOT_NS.fetch_add(29_999_000_000, Ordering::Relaxed);
        assert_eq!(clock.until(deadline), Duration::from_millis(1));
        BOOT_NS.fetch_add(1_000_000, Ordering::Relaxed);
        assert_eq!(clock.now(), deadline, "also while the machine sleeps");
        assert_eq!(clock.until(deadline), Duration::ZERO);
    }
}
