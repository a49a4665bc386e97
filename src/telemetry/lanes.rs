//! How long something took, counted by each thread for itself: a lane is written by its own thread and read by whoever asks for metrics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{SECONDS_BUCKETS, text};

/// How long one series took on one thread. The recorder's histograms keep every sample until the next upkeep; at a
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

/// A metric, and the labels of one of its series as they are written.
type Series = (&'static str, String);

/// Every lane there ever was: a thread that ended has counted, too.
static LANES: Mutex<BTreeMap<Series, Vec<Arc<Lane>>>> = Mutex::new(BTreeMap::new());

/// A lane of this thread's own, once for each series. The labels are those of the catalogue.
pub(super) fn new_lane(metric: &'static str, labels: &[(&str, &str)]) -> Arc<Lane> {
    let lane = Arc::<Lane>::default();
    let series = (metric, text::labels(labels));
    LANES.lock().unwrap_or_else(PoisonError::into_inner).entry(series).or_default().push(lane.clone());
    lane
}

/// The lanes of all threads together.
pub(super) fn render(out: &mut String) {
    let mut last = "";
    for ((metric, labels), lanes) in LANES.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        if std::mem::replace(&mut last, metric) != *metric {
            text::describe(out, metric);
        }
        let sum = |read: &dyn Fn(&Lane) -> u64| lanes.iter().map(|lane| read(lane)).sum::<u64>();
        let mut below = 0;
        for (place, bound) in SECONDS_BUCKETS.iter().enumerate() {
            below += sum(&|lane| lane.buckets[place].load(Ordering::Relaxed));
            text::sample(out, &format!("{metric}_bucket"), &format!("{labels},le=\"{bound}\""), below);
        }
        let count = below + sum(&|lane| lane.buckets[SECONDS_BUCKETS.len()].load(Ordering::Relaxed));
        let seconds = sum(&|lane| lane.sum_ns.load(Ordering::Relaxed)) as f64 / 1e9;
        text::sample(out, &format!("{metric}_bucket"), &format!("{labels},le=\"+Inf\""), count);
        text::sample(out, &format!("{metric}_sum"), labels, seconds);
        text::sample(out, &format!("{metric}_count"), labels, count);
    }
}
