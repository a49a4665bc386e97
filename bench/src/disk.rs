//! What the disk alone costs whoever waits for it: small writes, one after the other, each synced, with the rests of a journal between
//! them. No shop answers sooner that says *yes* only when it is durable.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::clock::{MICROSECOND, Nanos, now_ns, seconds};

/// What a group of some thirty orders takes on the disk.
const WRITE_BYTES: usize = 4_096;
const FILE_BYTES: u64 = 8 << 20;
/// As long as the shop's journal rests between two groups.
const REST: Duration = Duration::from_micros(500);
/// How densely the moments lie in which somebody comes.
const COMES_EVERY: Nanos = 10 * MICROSECOND;
const LONGEST_US: u64 = 60_000_000;

/// How long those wait who come at an even rate, each for the first write that begins after he has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waits {
    pub p50_us: u64,
    pub p99_us: u64,
    pub max_us: u64,
}

/// Measures for so long, in a file of its own where the stores of this harness are.
pub async fn measured(duration: f64) -> io::Result<Waits> {
    tokio::task::spawn_blocking(move || waits(&syncs(seconds(duration))?)).await?
}

/// When each write began and was on the disk.
fn syncs(duration: Nanos) -> io::Result<Vec<(Nanos, Nanos)>> {
    let file = tempfile::tempfile()?;
    fill(&file)?;
    let (began, mut syncs) = (now_ns(), Vec::new());
    while now_ns() < began + duration {
        let at = now_ns();
        file.write_all_at(&[1; WRITE_BYTES], syncs.len() as u64 * WRITE_BYTES as u64 % FILE_BYTES)?;
        file.sync_data()?;
        syncs.push((at, now_ns()));
        std::thread::sleep(REST);
    }
    Ok(syncs)
}

/// Like a log that is written over: no later write has to find room.
fn fill(file: &File) -> io::Result<()> {
    let zeros = vec![0; WRITE_BYTES];
    for at in (0..FILE_BYTES).step_by(WRITE_BYTES) {
        file.write_all_at(&zeros, at)?;
    }
    file.sync_all()
}

fn waits(syncs: &[(Nanos, Nanos)]) -> io::Result<Waits> {
    let mut all = Histogram::<u64>::new_with_bounds(1, LONGEST_US, 3).map_err(io::Error::other)?;
    for pair in syncs.windows(2) {
        let [(before, _), (began, ended)] = pair else { continue };
        for came in (*before..*began).step_by(COMES_EVERY as usize) {
            all.saturating_record((ended - came) / MICROSECOND);
        }
    }
    Ok(Waits { p50_us: all.value_at_quantile(0.5), p99_us: all.value_at_quantile(0.99), max_us: all.max() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::MILLISECOND;

    #[test]
    fn whoever_comes_during_a_write_waits_for_the_next() {
        let ms = |began: u64, ended: u64| (began * MILLISECOND, ended * MILLISECOND);
        // Who comes at 0 waits until 3, who comes at 2 until 3; of those who come later the first waits longest, for 100.
        let waits = waits(&[ms(0, 1), ms(2, 3), ms(102, 102)]).unwrap();
        let near = |us: u64, of: u64| us.abs_diff(of) <= of / 100;
        assert!(near(waits.max_us, 100_000) && near(waits.p99_us, 99_000), "{waits:?}");
        assert!(near(waits.p50_us, 49_000), "{waits:?}");
    }
}
