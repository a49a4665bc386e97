//! How long requests took, counted by each thread for itself: a lane is written by its own thread and read by whoever asks for metrics.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{METRICS, SECONDS_BUCKETS};

/// How long one route took on one thread. The recorder's histograms keep every sample until the next upkeep; at a
/// hundred thousand answers a second that costs more than some of the answers.
#[derive(Default)]
pub(super) struct Lane {
    /// The last one is for what took longer than any bound.
    buckets: [AtomicU64; SECONDS_BUCKETS.len() + 1],
    sum_ns: AtomicU64,
}

impl Lane {
    pub(super) fn record(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = SECONDS_BUCKETS.partition_point(|bound| *bound < seconds);
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_ns.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
    }
}

/// Every lane there ever was: a thread that ended has counted, too.
static LANES: Mutex<Vec<(&'static str, Arc<Lane>)>> = Mutex::new(Vec::new());

const REQUEST_SECONDS: &str = "stockade_http_request_seconds";

pub(super) fn new_lane(route: &'static str) -> Arc<Lane> {
    let lane = Arc::<Lane>::default();
    LANES.lock().unwrap_or_else(PoisonError::into_inner).push((route, lane.clone()));
    lane
}

/// The lanes of all threads together, in the text format.
pub(super) fn render_lanes(out: &mut String) {
    let mut routes: BTreeMap<&str, Vec<Arc<Lane>>> = BTreeMap::new();
    for (route, lane) in LANES.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        routes.entry(route).or_default().push(lane.clone());
    }
    if routes.is_empty() {
        return;
    }
    let help = METRICS.iter().find(|metric| metric.name == REQUEST_SECONDS).map_or("", |metric| metric.help);
    // Writing into a string has no way to fail.
    let _ = writeln!(out, "# HELP {REQUEST_SECONDS} {help}\n# TYPE {REQUEST_SECONDS} histogram");
    for (route, lanes) in routes {
        let sum = |read: &dyn Fn(&Lane) -> u64| lanes.iter().map(|lane| read(lane)).sum::<u64>();
        let mut below = 0;
        for (place, bound) in SECONDS_BUCKETS.iter().enumerate() {
            below += sum(&|lane| lane.buckets[place].load(Ordering::Relaxed));
            let _ = writeln!(out, "{REQUEST_SECONDS}_bucket{{route=\"{route}\",le=\"{bound}\"}} {below}");
        }
        let count = below + sum(&|lane| lane.buckets[SECONDS_BUCKETS.len()].load(Ordering::Relaxed));
        let seconds = sum(&|lane| lane.sum_ns.load(Ordering::Relaxed)) as f64 / 1e9;
        let _ = writeln!(out, "{REQUEST_SECONDS}_bucket{{route=\"{route}\",le=\"+Inf\"}} {count}");
        let _ = writeln!(out, "{REQUEST_SECONDS}_sum{{route=\"{route}\"}} {seconds}");
        let _ = writeln!(out, "{REQUEST_SECONDS}_count{{route=\"{route}\"}} {count}");
    }
    out.push('\n');
}
