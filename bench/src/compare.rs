//! Two reports side by side. A difference is called one only if it is larger than what either run differs from itself:
//! the spread of its own time line.

use std::path::Path;

use anyhow::Result;

use crate::report::{Latency, Report};

type Reading = fn(&Latency) -> u64;

pub fn compare(a: &Path, b: &Path) -> Result<()> {
    let (a, b) = (Report::read(a)?, Report::read(b)?);
    println!("A  {} of {} against {}", a.workload.name, a.started_at, a.setting.server);
    println!("B  {} of {} against {}", b.workload.name, b.started_at, b.setting.server);
    if a.machine.processor != b.machine.processor || a.machine.cores != b.machine.cores {
        println!("NOTE the machines differ: only ratios taken on one machine mean anything");
    }
    if serde_json::to_value(&a.workload)? != serde_json::to_value(&b.workload)? {
        println!("NOTE the workloads differ");
    }
    println!("\n{:<34} {:>14} {:>14} {:>8}", "", "A", "B", "B / A");
    row("answers a second", Some(a.summary.answers_per_s), Some(b.summary.answers_per_s));
    row("orders a second", Some(a.summary.acknowledged_per_s), Some(b.summary.acknowledged_per_s));
    row("server CPU µs an answer", a.summary.server_cpu_us_per_answer, b.summary.server_cpu_us_per_answer);
    row(
        "  with the whole flush",
        a.summary.server_cpu_us_per_answer_settled,
        b.summary.server_cpu_us_per_answer_settled,
    );
    let latencies = [
        ("yes", &a.latency.acknowledged, &b.latency.acknowledged),
        ("no", &a.latency.refused, &b.latency.refused),
    ];
    for (name, a, b) in latencies {
        let quantiles: [(&str, Reading); 4] =
            [("p50", |l| l.p50_us), ("p99", |l| l.p99_us), ("p99.9", |l| l.p999_us), ("max", |l| l.max_us)];
        for (quantile, value) in quantiles.into_iter().filter(|_| a.count > 0 && b.count > 0) {
            row(&format!("{name} {quantile} µs"), Some(value(a) as f64), Some(value(b) as f64));
        }
    }
    let (noise_a, noise_b) = (spread(&a), spread(&b));
    let change = b.summary.answers_per_s / a.summary.answers_per_s.max(1e-9) - 1.0;
    let noise = 2.0 * noise_a.hypot(noise_b);
    println!(
        "\nThroughput varies by {:.1} % (A) and {:.1} % (B) from one interval to the next.",
        noise_a * 100.0,
        noise_b * 100.0
    );
    println!(
        "The difference of {:+.1} % is {} twice their joint spread ({:.1} %). One run each proves little: \
         repeat both, interleaved, and compare medians (`stockade-bench ratios` does).",
        change * 100.0,
        if change.abs() > noise { "more than" } else { "within" },
        noise * 100.0
    );
    Ok(())
}

fn row(name: &str, a: Option<f64>, b: Option<f64>) {
    if let (Some(a), Some(b)) = (a, b) {
        let ratio = if a > 0.0 { format!("{:.2}", b / a) } else { "–".to_owned() };
        println!("{name:<34} {a:>14.1} {b:>14.1} {ratio:>8}");
    }
}

/// Standard deviation of the throughput over the whole intervals of a run, as a share of its mean.
fn spread(report: &Report) -> f64 {
    let line = &report.time_line;
    let whole = line.points.len().saturating_sub(1);
    let measured = line.points[..whole].iter().filter(|point| point.at_s >= report.workload.warm_up_seconds);
    let rates: Vec<f64> = measured.map(|point| point.outcomes.values().sum::<u64>() as f64).collect();
    let count = rates.len().max(1) as f64;
    let mean = rates.iter().sum::<f64>() / count;
    let variance = rates.iter().map(|rate| (rate - mean).powi(2)).sum::<f64>() / count;
    if mean > 0.0 { variance.sqrt() / mean } else { 0.0 }
}
