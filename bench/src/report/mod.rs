//! What a run leaves behind: a JSON file that `compare` reads again (the schema's version stands first in it), and one HTML
//! page with pictures that needs nothing beside itself.

mod html;
mod plot;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::answer::Outcome;
use crate::clock::{as_seconds, rfc3339, unix_ms};
use crate::counters::Counted;
use crate::crowd::LogIns;
use crate::drive::Kill;
use crate::engine::Tally;
use crate::faults::{Fallen, Fault};
use crate::judge::Verdict;
use crate::sampler::Sample;
use crate::spread::Moment;
use crate::workload::Workload;

pub const SCHEMA: &str = "stockade-bench/1";

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    pub schema: String,
    pub started_at: String,
    pub machine: Machine,
    pub workload: Workload,
    pub setting: Setting,
    pub summary: Summary,
    pub latency: Latencies,
    pub time_line: TimeLine,
    /// The server's own account of itself, in the order of time.
    pub samples: Vec<Sample>,
    pub kills: Vec<Kill>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fallen>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moments: Vec<Moment>,
    /// By the database of nodes that nothing befell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted: Option<Counted>,
    /// Of the people who logged in meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_ins: Option<LogIns>,
    pub verdicts: Vec<Verdict>,
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    pub processor: String,
    pub cores: usize,
    pub memory_bytes: u64,
    pub kernel: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setting {
    /// `shop`, `shop on N nodes`, `reference`, a rival's name, or the URL of a server elsewhere.
    pub server: String,
    pub threads: usize,
    pub seed: u64,
    pub pace_seconds: Option<f64>,
    pub kills: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Summary {
    /// The measured window: from the end of the warm-up to the end of arrivals, or to the last answer.
    pub measured_s: f64,
    pub answers_per_s: f64,
    pub acknowledged_per_s: f64,
    /// All answers of the run, the warm-up's too, by outcome.
    pub outcomes: BTreeMap<String, u64>,
    /// Inside the measured window.
    pub measured: BTreeMap<String, u64>,
    pub server_cpu_us_per_answer: Option<f64>,
    /// Of the store, where that is a process of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_cpu_us_per_answer: Option<f64>,
    /// With the flush that was still to do when the last answer had been given.
    pub server_cpu_us_per_answer_settled: Option<f64>,
    pub client_cpu_us_per_answer: f64,
    pub client_busiest_thread: f64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Latencies {
    pub answered: Latency,
    pub acknowledged: Latency,
    pub refused: Latency,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Latency {
    pub count: u64,
    pub mean_us: f64,
    pub p50_us: u64,
    pub p90_us: u64,
    pub p99_us: u64,
    pub p999_us: u64,
    pub max_us: u64,
    /// `[quantile, µs]`, ever finer towards the end.
    pub percentiles: Vec<(f64, u64)>,
    /// `[highest µs of the bucket, answers in it]`.
    pub histogram: Vec<(u64, u64)>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TimeLine {
    pub interval_s: f64,
    pub points: Vec<Point>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Point {
    pub at_s: f64,
    pub outcomes: BTreeMap<String, u64>,
    pub p50_us: u64,
    pub p99_us: u64,
    pub max_us: u64,
}

impl Report {
    /// The moments at which harm was done, in seconds of the run.
    pub fn harmed_at_s(&self) -> Vec<f64> {
        let kills = self.kills.iter().map(|kill| kill.at_s);
        let faults = self.faults.iter().map(|fallen| fallen.at_s);
        kills.chain(faults).chain(self.moments.iter().map(|moment| moment.at_s)).collect()
    }

    pub fn read(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let report: Self =
            serde_json::from_str(&text).with_context(|| format!("{} is no report", path.display()))?;
        ensure!(
            report.schema == SCHEMA,
            "{}: schema {}, this program reads {SCHEMA}",
            path.display(),
            report.schema
        );
        Ok(report)
    }

    /// Writes `NAME.json` and `NAME.html` into the folder; the paths of both.
    pub fn write(&self, folder: &Path) -> Result<(PathBuf, PathBuf)> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let name = format!("{}-{}", self.workload.name, self.started_at.replace([':', '-'], ""));
        let (json, html) = (folder.join(format!("{name}.json")), folder.join(format!("{name}.html")));
        std::fs::write(&json, serde_json::to_vec(self)?)?;
        std::fs::write(&html, html::page(self))?;
        Ok((json, html))
    }
}

impl Latency {
    pub fn of(histogram: &Histogram<u64>) -> Self {
        Self {
            count: histogram.len(),
            mean_us: histogram.mean(),
            p50_us: histogram.value_at_quantile(0.5),
            p90_us: histogram.value_at_quantile(0.9),
            p99_us: histogram.value_at_quantile(0.99),
            p999_us: histogram.value_at_quantile(0.999),
            max_us: histogram.max(),
            percentiles: histogram
                .iter_quantiles(8)
                .map(|step| (step.quantile_iterated_to(), step.value_iterated_to()))
                .collect(),
            histogram: histogram
                .iter_recorded()
                .map(|step| (step.value_iterated_to(), step.count_at_value()))
                .collect(),
        }
    }
}

impl TimeLine {
    pub fn of(tally: &Tally, interval_ns: u64) -> Self {
        let interval_s = as_seconds(interval_ns);
        let points = tally.intervals.iter().enumerate().map(|(place, interval)| Point {
            at_s: place as f64 * interval_s,
            outcomes: by_word(&interval.outcomes),
            p50_us: interval.latency_us.value_at_quantile(0.5),
            p99_us: interval.latency_us.value_at_quantile(0.99),
            max_us: interval.latency_us.max(),
        });
        Self { interval_s, points: points.collect() }
    }
}

/// Outcomes that happened, by the contract's words.
pub fn by_word(outcomes: &[u64; Outcome::COUNT]) -> BTreeMap<String, u64> {
    let counted =
        Outcome::ALL.into_iter().map(|outcome| (outcome.word().to_owned(), outcomes[outcome as usize]));
    counted.filter(|(_, count)| *count > 0).collect()
}

impl Machine {
    pub fn here() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let after = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).and_then(|line| line.split_once(':'));
            line.map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let memory_kib =
            after(&read("/proc/meminfo"), "MemTotal").split(' ').next().and_then(|kib| kib.parse().ok());
        Self {
            processor: after(&read("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: memory_kib.unwrap_or(0u64) * 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }
}

pub fn started_now() -> String {
    rfc3339(unix_ms())
}
