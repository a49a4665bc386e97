//! What the process tells its operator in numbers.
//!
//! Every metric that `/metrics` serves stands once in [`METRICS`] with its kind, its unit and its meaning; tests compare the table
//! with what is served, documented and watched. Hot paths record through handles of [`Metrics`] that were registered beforehand, or
//! into lanes of their own thread, so a measurement is an atomic operation or two and no look-up. No label is a user's or an order's.

mod catalogue;
mod handles;
mod lanes;
mod mirror;
mod notices;
mod outcomes;
mod process;
mod products;
mod requests;
mod room;
mod text;

use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

pub use catalogue::{Kind, METRICS, Metric};
pub use handles::Metrics;
pub use mirror::MirrorMetrics;
pub use notices::{notice_dropped, order_letter};
pub use outcomes::{
    conditions, job_due, job_known, job_lost, job_ran, letters_held_back, logged_in, mail_handled,
    payment_moved, provider_called, refresh_refused, refund_tried, refusals_known, refused, revoked,
    session_reused, signed_up, took_over, verified, webhook_handled, webhook_heard,
};
pub use products::{ProductUnits, show_products};
pub use requests::{Answers, Forwards};
pub use room::room_bytes;

/// How often what histograms collected is folded into their buckets.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// From a tenth of a millisecond to ten seconds.
const SECONDS_BUCKETS: &[f64] = &[
    0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0,
    5.0, 10.0,
];
/// Powers of two.
const SIZE_BUCKETS: &[f64] = &[1., 2., 4., 8., 16., 32., 64., 128., 256., 512., 1024., 2048., 4096., 8192.];

/// What `/metrics` answers: the Prometheus text format. What has not happened yet has no series, and is described all the same.
pub fn render() -> String {
    Metrics::global();
    let mut text = recorder().map(PrometheusHandle::render).unwrap_or_default();
    lanes::render(&mut text);
    products::render(&mut text);
    process::render(&mut text);
    text::describe_the_rest(&mut text);
    text
}

/// Installs the recorder once in the life of the process, with a thread that keeps its histograms small.
/// `None` if somebody else had installed one: then the numbers are theirs.
fn recorder() -> Option<&'static PrometheusHandle> {
    static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    RECORDER
        .get_or_init(|| {
            let handle = build_recorder().inspect_err(|error| tracing::error!(%error, "no metrics")).ok()?;
            for metric in METRICS {
                describe(metric);
            }
            let upkeep = handle.clone();
            let upkeep = std::thread::Builder::new().name("metrics".into()).spawn(move || {
                loop {
                    std::thread::sleep(UPKEEP_EVERY);
                    upkeep.run_upkeep();
                }
            });
            if let Err(error) = upkeep {
                tracing::error!(%error, "no thread for the upkeep of metrics: histograms will grow until they are read");
            }
            Some(handle)
        })
        .as_ref()
}

fn build_recorder() -> Result<PrometheusHandle, metrics_exporter_prometheus::BuildError> {
    let mut builder = PrometheusBuilder::new();
    for metric in METRICS {
        let buckets = match metric.kind {
            Kind::Seconds => SECONDS_BUCKETS,
            Kind::Sizes => SIZE_BUCKETS,
            Kind::Counter | Kind::Gauge => continue,
        };
        builder = builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets)?;
    }
    builder.install_recorder()
}

fn describe(metric: &Metric) {
    match metric.kind {
        Kind::Counter => metrics::describe_counter!(metric.name, metric.help),
        Kind::Gauge => metrics::describe_gauge!(metric.name, metric.help),
        Kind::Seconds | Kind::Sizes => metrics::describe_histogram!(metric.name, metric.help),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// The labels of a series, `le` apart.
    fn labels(series: &str) -> Vec<&str> {
        let Some((_, inside)) = series.trim_end_matches('}').split_once('{') else { return Vec::new() };
        let names = inside.split("\",").filter_map(|label| label.split_once('=')).map(|(name, _)| name);
        names.filter(|name| *name != "le").collect()
    }

    #[test]
    fn what_is_served_is_what_the_table_says() {
        Metrics::global();
        for (method, status, paying) in [
            ("POST", 201, false),
            ("POST", 202, true),
            ("POST", 409, false),
            ("POST", 503, false),
            ("GET", 500, false),
        ] {
            Answers::of("/v1/orders").count(method, status, Duration::from_millis(3), paying);
        }
        Forwards::default().count("answered", Duration::from_millis(3));
        refused("sold_out");
        took_over("died");
        conditions([("starting", false)], [("mirror_behind", true)]);
        mail_handled("sent");
        job_known("sweeping");
        job_ran("sweeping", "done", Duration::from_millis(3), 1, 0);
        job_due("sweeping", 1_000);
        provider_called("charge", "ok", Duration::from_millis(3));
        show_products(vec![ProductUnits { product: "prod_1".to_owned(), available: 1, held: 2, sold: 3 }]);
        Metrics::global().group_write_seconds.record(0.001);
        let text = render();
        let served: BTreeSet<(&str, &str)> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .filter_map(|line| line.split_once(' '))
            .collect();
        let told: BTreeSet<(&str, &str)> =
            METRICS.iter().map(|metric| (metric.name, metric.kind.as_str())).collect();
        assert_eq!(served, told);
        for metric in METRICS {
            assert!(text.contains(&format!("# HELP {} {}", metric.name, metric.help)), "{}", metric.name);
            assert_eq!(text.matches(&format!("# TYPE {} ", metric.name)).count(), 1, "{}", metric.name);
        }
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let (series, _) = line.rsplit_once(' ').unwrap();
            let name = series.split('{').next().unwrap();
            let metric = METRICS.iter().find(|metric| metric.serves(name));
            let metric = metric.unwrap_or_else(|| panic!("{line} stands in no table"));
            let mut labels = labels(series);
            let mut told = metric.labels.to_vec();
            labels.sort_unstable();
            told.sort_unstable();
            assert_eq!(labels, told, "{line}");
        }
        for series in [
            r#"stockade_http_request_seconds_bucket{route="/v1/orders",outcome="created",le="0.005"} 1"#,
            r#"stockade_http_request_seconds_count{route="/v1/orders",outcome="paying"} 1"#,
            r#"stockade_http_request_seconds_count{route="/v1/orders",outcome="refused"} 1"#,
            r#"stockade_http_request_seconds_count{route="/v1/orders",outcome="unavailable"} 1"#,
            r#"stockade_http_request_seconds_count{route="/v1/orders",outcome="failed"} 1"#,
            r#"stockade_forward_seconds_count{outcome="answered"} 1"#,
            r#"stockade_product_units{product="prod_1",state="held"} 2"#,
            r#"stockade_degraded{reason="mirror_behind"} 1"#,
        ] {
            assert!(text.contains(series), "{series}\n{text}");
        }
    }

    #[test]
    fn names_say_what_they_count() {
        for Metric { name, kind, unit, labels, .. } in METRICS {
            // Prometheus says by these whom it has asked.
            assert!(!labels.contains(&"job") && !labels.contains(&"instance"), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            assert_eq!(name.contains("_seconds"), *unit == "seconds", "{name}");
            assert_eq!(name.contains("_bytes"), *unit == "bytes", "{name}");
            assert!(name.starts_with("stockade_") || name.starts_with("process_"), "{name}");
            assert!(*kind != Kind::Seconds || *unit == "seconds", "{name}");
        }
    }
}
