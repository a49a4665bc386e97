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
}

impl Clock {
    /// Reads the wall clock once.
    #[allow(clippy::disallowed_methods)]
    pub fn start() -> Clock {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall_ms = i64::try_from(wall.as_millis()).unwrap_or(i64::MAX);
        Clock { offset_ms: Arc::new(AtomicI64::new(wall_ms - boot_ns() / 1_000_000)) }
    }

    /// Milliseconds since 1970-01-01 UTC.
    pub fn now(&self) -> Millis {
        Millis(boot_ns() / 1_000_000 + self.offset_ms.load(Ordering::Relaxed))
    }

    /// Moves this clock and all its clones: for tests of what takes a day.
    pub fn advance(&self, ms: i64) {
        self.offset_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// Nanoseconds that only ever grow; for measuring how long something took.
    pub fn nanos(&self) -> u64 {
        u64::try_from(boot_ns()).unwrap_or(0)
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
