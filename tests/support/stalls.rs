//! Whether the machine stood still. What only a machine that runs can keep, *nobody is refused* or *nobody waits for longer than this*,
//! is judged only where it ran: not while a neighbour had its processors, or its disk did not come back from a sync.
//!
//! Nothing is excused in silence: each excuse is a line in the file that `STALLS_LOG` names, where `scripts/verify` counts them and has enough
//! when they are many; without it the line is printed.

use std::env;
use std::fs::{File, OpenOptions};
use std::io::{Seek, Write};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use stockade::clock::Clock;

/// Longer than a busy machine needs for a sync, and far shorter than anything in the shop waits.
const STALL_NANOS: u64 = 500_000_000;
const EVERY: Duration = Duration::from_millis(100);

/// One for all tests of a program. Moments are nanoseconds of its clock.
struct Watch {
    clock: Clock,
    /// When it looked last.
    looked: AtomicU64,
    /// When the last stall had ended.
    ended: AtomicU64,
}

static WATCH: LazyLock<Watch> = LazyLock::new(|| {
    let clock = Clock::start();
    let looked = AtomicU64::new(clock.nanos());
    thread::spawn(|| {
        let mut file = tempfile::tempfile().unwrap();
        loop {
            thread::sleep(EVERY);
            WATCH.look(&mut file);
        }
    });
    Watch { clock, looked, ended: AtomicU64::new(0) }
});

impl Watch {
    fn look(&self, file: &mut File) {
        file.rewind().and_then(|()| file.write_all(b"tick")).and_then(|()| file.sync_data()).unwrap();
        let now = self.clock.nanos();
        if now - self.looked.swap(now, Ordering::AcqRel) > STALL_NANOS {
            self.ended.store(now, Ordering::Release);
        }
    }
}

/// Those since it was made.
pub struct Stalls {
    since: u64,
    /// However often it is asked, it is one excuse.
    is_told: AtomicBool,
}

impl Stalls {
    pub fn looked_for() -> Stalls {
        Stalls { since: WATCH.clock.nanos(), is_told: AtomicBool::new(false) }
    }

    /// To be asked when there is something to excuse: a *yes* is written down.
    pub fn were_seen(&self) -> bool {
        let stands_still =
            WATCH.clock.nanos().saturating_sub(WATCH.looked.load(Ordering::Acquire)) > STALL_NANOS;
        let seen = stands_still || WATCH.ended.load(Ordering::Acquire) > self.since;
        if seen && !self.is_told.swap(true, Ordering::AcqRel) {
            tell();
        }
        seen
    }
}

fn tell() {
    let program = env::current_exe().ok().and_then(|path| Some(path.file_stem()?.display().to_string()));
    let (program, thread) = (program.unwrap_or_default(), thread::current());
    let test = thread.name().unwrap_or("a thread without a name");
    let line = format!("{program} {test}: the machine stood still, what it says of time proves nothing\n");
    match env::var_os("STALLS_LOG") {
        // In one piece: others write there too.
        Some(path) => {
            let log = OpenOptions::new().create(true).append(true).open(path);
            log.and_then(|mut log| log.write_all(line.as_bytes())).unwrap();
        }
        None => eprint!("{line}"),
    }
}
