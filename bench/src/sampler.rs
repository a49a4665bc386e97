//! What the server says of itself while it works: CPU from `/proc`, and `/metrics` in the Prometheus text format, both
//! once an interval. A histogram's sums are turned into the mean and the 99th percentile of each interval.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use tokio::time::{Duration, MissedTickBehavior, interval, timeout};

use crate::client::Client;
use crate::clock::{Nanos, as_seconds, now_ns};
use crate::process::{cpu_us, resident_bytes};

/// The server at one moment of the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sample {
    /// Seconds into the run.
    pub at_s: f64,
    /// CPU used since the processes started, kills included.
    pub cpu_us: Option<u64>,
    pub resident_bytes: Option<u64>,
    pub flush_lag_events: Option<f64>,
    pub flush_lag_seconds: Option<f64>,
    pub queue_wait_mean_us: Option<f64>,
    pub queue_wait_p99_us: Option<f64>,
    pub group_events_mean: Option<f64>,
    pub group_write_mean_us: Option<f64>,
    pub group_write_p99_us: Option<f64>,
}

/// CPU time, all together, of servers that may be killed and started again: what their former lives used stays counted.
#[derive(Default)]
pub struct CpuMeter {
    /// What each of those that live was last seen to have used.
    seen_us: RefCell<BTreeMap<u32, u64>>,
    former_us: Cell<u64>,
}

impl CpuMeter {
    /// These live from now on, and no other.
    pub fn watch(&self, pids: impl IntoIterator<Item = u32>) {
        let mut former = self.seen_us.take();
        let living = pids.into_iter().map(|pid| (pid, former.remove(&pid).unwrap_or_default()));
        *self.seen_us.borrow_mut() = living.collect();
        self.former_us.set(self.former_us.get() + former.values().sum::<u64>());
    }

    /// Nothing if it watches nobody.
    pub fn read_us(&self) -> Option<u64> {
        let mut seen = self.seen_us.borrow_mut();
        for (pid, seen_us) in &mut *seen {
            *seen_us = cpu_us(*pid).unwrap_or(*seen_us);
        }
        (!seen.is_empty()).then(|| self.former_us.get() + seen.values().sum::<u64>())
    }

    fn resident_bytes(&self) -> Option<u64> {
        self.seen_us.borrow().keys().filter_map(|pid| resident_bytes(*pid)).reduce(|a, b| a + b)
    }
}

/// A server that sleeps says nothing, and the others are not kept waiting for it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

pub struct Sampler<'a> {
    /// All nodes: what they count is added up.
    pub targets: Vec<SocketAddr>,
    pub every: Duration,
    pub cpu: &'a CpuMeter,
    pub samples: RefCell<Vec<Sample>>,
}

impl Sampler<'_> {
    /// Samples until it is dropped.
    pub async fn run(&self, start_ns: Nanos) {
        let mut clients: Vec<Client> = self.targets.iter().map(|target| Client::new(*target)).collect();
        let mut ticks = interval(self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut before = Exposition::default();
        loop {
            ticks.tick().await;
            let mut sample = Sample {
                at_s: as_seconds(now_ns().saturating_sub(start_ns)),
                cpu_us: self.cpu.read_us(),
                resident_bytes: self.cpu.resident_bytes(),
                ..Sample::default()
            };
            let mut said = String::new();
            for client in &mut clients {
                // A server that is down at the moment has nothing to say; the next sample will.
                match timeout(ANSWER_TIMEOUT, client.get("/metrics", None)).await {
                    Ok(Ok(reply)) if reply.status == 200 => said.push_str(&reply.text()),
                    Ok(_) => {}
                    // What it answers when it wakes is not for the next question.
                    Err(_) => *client = Client::new(client.target()),
                }
            }
            if !said.is_empty() {
                let now = Exposition::parse(&said);
                now.describe(&before, &mut sample);
                before = now;
            }
            self.samples.borrow_mut().push(sample);
        }
    }
}

/// Events that are journaled and not yet in the tables, by a reading of `/metrics`.
pub fn flush_lag(metrics: &str) -> Option<f64> {
    Exposition::parse(metrics).values.get("stockade_flush_lag_events").copied()
}

/// A reading of `/metrics`: every series of one name and one `le` added up.
#[derive(Default)]
struct Exposition {
    values: HashMap<String, f64>,
    buckets: HashMap<String, Vec<(f64, f64)>>,
}

impl Exposition {
    fn parse(text: &str) -> Self {
        let mut this = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            match (name.strip_suffix("_bucket"), label(labels, "le")) {
                (Some(name), Some(bound)) => this.add_bucket(name, bound, value),
                _ => *this.values.entry(name.to_owned()).or_default() += value,
            }
        }
        this
    }

    fn add_bucket(&mut self, name: &str, bound: &str, count: f64) {
        let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().unwrap_or(f64::INFINITY) };
        let buckets = self.buckets.entry(name.to_owned()).or_default();
        match buckets.iter_mut().find(|(known, _)| *known == bound) {
            Some((_, total)) => *total += count,
            None => buckets.push((bound, count)),
        }
    }

    fn describe(&self, before: &Self, sample: &mut Sample) {
        const US: f64 = 1e6;
        sample.flush_lag_events = self.values.get("stockade_flush_lag_events").copied();
        sample.flush_lag_seconds = self.values.get("stockade_flush_lag_seconds").copied();
        let wait = "stockade_owner_queue_wait_seconds";
        sample.queue_wait_mean_us = self.mean_since(before, wait).map(|seconds| seconds * US);
        sample.queue_wait_p99_us = self.quantile_since(before, wait, 0.99).map(|seconds| seconds * US);
        sample.group_events_mean = self.mean_since(before, "stockade_group_events");
        let write = "stockade_group_write_seconds";
        sample.group_write_mean_us = self.mean_since(before, write).map(|seconds| seconds * US);
        sample.group_write_p99_us = self.quantile_since(before, write, 0.99).map(|seconds| seconds * US);
    }

    fn mean_since(&self, before: &Self, name: &str) -> Option<f64> {
        let grown = |suffix: &str| {
            let series = format!("{name}{suffix}");
            let now = *self.values.get(&series)?;
            // A restarted server counts from zero again.
            Some(now - before.values.get(&series).copied().filter(|then| *then <= now).unwrap_or(0.0))
        };
        let (sum, count) = (grown("_sum")?, grown("_count")?);
        (count > 0.0).then(|| sum / count)
    }

    /// Interpolated inside its bucket, as Prometheus does.
    fn quantile_since(&self, before: &Self, name: &str, quantile: f64) -> Option<f64> {
        let then = before.buckets.get(name);
        let mut grown: Vec<(f64, f64)> = self.buckets.get(name)?.clone();
        for (bound, count) in &mut grown {
            let former = then.and_then(|then| then.iter().find(|(known, _)| known == bound));
            *count -= former.map(|(_, count)| *count).filter(|former| former <= count).unwrap_or(0.0);
        }
        grown.sort_by(|a, b| a.0.total_cmp(&b.0));
        let wanted = grown.last()?.1 * quantile;
        let mut below = (0.0, 0.0);
        for (bound, count) in grown {
            if count >= wanted && count > below.1 {
                let share = (wanted - below.1) / (count - below.1);
                return Some(if bound.is_finite() { below.0 + (bound - below.0) * share } else { below.0 });
            }
            below = (bound, count);
        }
        None
    }
}

fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    let start = labels.find(&format!("{name}=\""))? + name.len() + 2;
    labels[start..].split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_used_before_it_died_stays_counted_and_so_do_the_others() {
        let meter = CpuMeter::default();
        assert_eq!(meter.read_us(), None);
        *meter.seen_us.borrow_mut() = BTreeMap::from([(u32::MAX, 70), (u32::MAX - 1, 5)]);
        meter.watch([u32::MAX - 1, u32::MAX - 2]);
        assert_eq!((meter.read_us(), meter.former_us.get()), (Some(75), 70));
        meter.watch([u32::MAX - 2]);
        assert_eq!((meter.read_us(), meter.former_us.get()), (Some(75), 75));
    }

    #[test]
    fn a_histogram_tells_the_interval_and_not_the_past() {
        let text = |fast: u32, slow: u32, sum: f64| {
            format!(
                "# TYPE stockade_group_write_seconds histogram\n\
                 stockade_group_write_seconds_bucket{{le=\"0.001\"}} {fast}\n\
                 stockade_group_write_seconds_bucket{{le=\"0.01\"}} {slow}\n\
                 stockade_group_write_seconds_bucket{{le=\"+Inf\"}} {slow}\n\
                 stockade_group_write_seconds_sum {sum}\nstockade_group_write_seconds_count {slow}\n\
                 stockade_flush_lag_events{{node=\"a\"}} 7\nstockade_flush_lag_events{{node=\"b\"}} 5\n"
            )
        };
        let (before, now) =
            (Exposition::parse(&text(100, 100, 0.05)), Exposition::parse(&text(100, 200, 0.55)));
        let mut sample = Sample::default();
        now.describe(&before, &mut sample);
        assert_eq!(sample.flush_lag_events, Some(12.0));
        assert!((sample.group_write_mean_us.unwrap() - 5000.0).abs() < 1e-6);
        assert!((sample.group_write_p99_us.unwrap() - 9910.0).abs() < 1.0);
    }
}
