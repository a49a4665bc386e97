//! Lines of the Prometheus text format, for what the recorder cannot hold: lanes, counters that are no whole numbers, series that go.

use std::collections::BTreeSet;
use std::fmt::{Display, Write as _};

use super::catalogue::METRICS;

/// What stands before a metric's series.
pub(super) fn describe(out: &mut String, metric: &str) {
    if let Some(metric) = METRICS.iter().find(|known| known.name == metric) {
        // Writing into a string has no way to fail.
        let _ = writeln!(out, "# HELP {} {}", metric.name, metric.help);
        let _ = writeln!(out, "# TYPE {} {}", metric.name, metric.kind.as_str());
    }
}

/// One series and its value.
pub(super) fn sample(out: &mut String, name: &str, labels: &str, value: impl Display) {
    let _ = match labels {
        "" => writeln!(out, "{name} {value}"),
        _ => writeln!(out, "{name}{{{labels}}} {value}"),
    };
}

/// Labels as they are written. Values are words of ours, which need no escape.
pub(super) fn labels(labels: &[(&str, &str)]) -> String {
    labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect::<Vec<_>>().join(",")
}

/// Describes every metric that has no series yet.
pub(super) fn describe_the_rest(out: &mut String) {
    let served = out.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let served: BTreeSet<&str> = served.collect();
    let rest: Vec<&str> =
        METRICS.iter().map(|metric| metric.name).filter(|name| !served.contains(name)).collect();
    rest.into_iter().for_each(|name| describe(out, name));
}
