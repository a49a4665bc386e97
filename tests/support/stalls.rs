//! Whether the machine stood still. What only a machine that runs can keep, *nobody waits for longer than this*, is judged only where
//! it ran: not while a neighbour had its processors, or its disk did not come back from a sync.

use std::io::{Seek, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use stockade::clock::Clock;

/// Longer than a busy machine needs for a sync, and far shorter than anything in the shop waits.
const STALL: Duration = Duration::from_millis(500);
const EVERY: Duration = Duration::from_millis(20);

/// Looks until it is dropped.
pub struct Stalls {
    longest_nanos: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
}

impl Stalls {
    pub fn looked_for() -> Stalls {
        let stalls = Stalls { longest_nanos: Arc::default(), is_over: Arc::default() };
        let (longest, is_over) = (stalls.longest_nanos.clone(), stalls.is_over.clone());
        thread::spawn(move || {
            let (clock, mut file) = (Clock::start(), tempfile::tempfile().unwrap());
            let mut last = clock.nanos();
            while !is_over.load(Ordering::Relaxed) {
                thread::sleep(EVERY);
                file.rewind().and_then(|()| file.write_all(b"tick")).and_then(|()| file.sync_data()).unwrap();
                let now = clock.nanos();
                longest.fetch_max(now - last, Ordering::Relaxed);
                last = now;
            }
        });
        stalls
    }

    pub fn longest(&self) -> Duration {
        Duration::from_nanos(self.longest_nanos.load(Ordering::Relaxed))
    }

    pub fn were_seen(&self) -> bool {
        self.longest() > STALL
    }
}

impl Drop for Stalls {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}
