//! What `deploy/` shows and calls for, and what the documents say of it, is what the shop measures: every name and every label stands in
//! the one table, every metric is documented and shown, every alert says what to do and is shown to be raised.

#[path = "support/watching.rs"]
mod watching;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;
use stockade::telemetry::{Kind, METRICS, Metric};
use stockade_servers::promtool;
use watching::{ALERTS, DASHBOARDS, Query, Selector, name, panels, rules, taken_apart, watched};

const DOCUMENT: &str = include_str!("../docs/metrics.md");
const RUNBOOKS: &str = include_str!("../docs/runbooks.md");
const STORIES: &str = include_str!("../deploy/prometheus/alerts_test.yml");
/// What Prometheus says of itself, and not the shop.
const OTHERS: [&str; 1] = ["up"];
/// What Prometheus adds to each series.
const ADDED: [&str; 2] = ["instance", "job"];

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus").join(name)
}

fn metric(selector: &Selector) -> Option<&'static Metric> {
    METRICS.iter().find(|metric| metric.serves(&selector.name))
}

/// The labels that a series of it has.
fn labels(selector: &Selector) -> BTreeSet<&str> {
    let metric = metric(selector).into_iter();
    let bound = selector.name.strip_suffix("_bucket").map(|_| "le");
    metric.flat_map(|metric| metric.labels).copied().chain(bound).chain(ADDED).collect()
}

#[test]
fn what_is_shown_and_watched_is_measured() {
    for Query { place, expression, shown } in panels().into_iter().chain(watched()) {
        let (selectors, grouped) = taken_apart(&expression);
        assert!(!selectors.is_empty(), "{place}: {expression}");
        for selector in &selectors {
            let known = metric(selector).is_some() || OTHERS.contains(&&*selector.name);
            assert!(known, "{place}: {} stands in no table", selector.name);
            for label in &selector.labels {
                assert!(labels(selector).contains(&**label), "{place}: {} has no {label}", selector.name);
            }
        }
        let all: BTreeSet<&str> = selectors.iter().flat_map(labels).collect();
        for label in grouped.iter().chain(&shown) {
            assert!(all.contains(&**label), "{place}: nothing has {label}");
        }
        // What is put together by some labels has no others left.
        let put_together = expression.contains(" by (") && !expression.contains("increase(");
        for label in shown.iter().filter(|_| put_together) {
            assert!(grouped.contains(label), "{place}: {label} is lost on the way");
        }
    }
}

/// A counter is read by what it grows, a histogram by its quantiles.
#[test]
fn counters_are_read_as_counters() {
    for Query { place, expression, .. } in panels().into_iter().chain(watched()) {
        for Selector { name, text, .. } in taken_apart(&expression).0 {
            let Some(metric) = METRICS.iter().find(|metric| metric.serves(&name)) else { continue };
            let ranged = expression.contains(&format!("rate({text}["))
                || expression.contains(&format!("increase({text}["));
            assert_eq!(ranged, metric.kind != Kind::Gauge, "{place}: {text}");
        }
    }
}

#[test]
fn every_metric_is_shown_or_watched() {
    let asked: BTreeSet<&str> = panels()
        .iter()
        .chain(&watched())
        .flat_map(|query| taken_apart(&query.expression).0)
        .filter_map(|selector| metric(&selector))
        .map(|metric| metric.name)
        .collect();
    let told: BTreeSet<&str> = METRICS.iter().map(|metric| metric.name).collect();
    assert_eq!(told.difference(&asked).collect::<Vec<_>>(), Vec::<&&str>::new());
}

/// If it is another, this is what it should be.
#[test]
fn the_document_holds_the_table() {
    let mut table = String::from("| metric | type | unit | labels | what it says |\n|---|---|---|---|---|\n");
    for Metric { name, kind, unit, labels, help } in METRICS {
        let labels = labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        table += &format!("| `{name}` | {} | {unit} | {labels} | {help} |\n", kind.as_str());
    }
    assert!(DOCUMENT.contains(&format!("\n\n{table}\n")), "docs/metrics.md should hold\n\n{table}");
    let named = DOCUMENT.split('`').filter(|word| word.starts_with("stockade_"));
    for name in named.map(|word| word.split('{').next().unwrap()) {
        assert!(METRICS.iter().any(|metric| metric.name == name || metric.serves(name)), "{name}");
    }
}

#[test]
fn every_alert_says_what_to_do() {
    let sections: BTreeMap<&str, &str> =
        RUNBOOKS.split("\n### ").skip(1).map(|section| section.split_once('\n').unwrap()).collect();
    let mut alerts = BTreeSet::new();
    for rule in rules() {
        let text = |name: &str| rule["annotations"][name].as_str().unwrap_or_default().len();
        assert!(text("summary") > 10 && text("runbook") > 20, "{rule}");
        assert!(["page", "ticket"].contains(&rule["labels"]["severity"].as_str().unwrap()), "{rule}");
        assert!(alerts.insert(name(&rule).to_owned()), "{} stands there twice", name(&rule));
        let section = sections.get(name(&rule)).unwrap_or_else(|| panic!("no runbook for {}", name(&rule)));
        assert!(section.trim().len() > 80, "{}: {section}", name(&rule));
    }
    for section in sections.keys() {
        assert!(alerts.contains(*section), "a runbook for {section}, which nobody is called for");
    }
}

#[test]
fn every_alert_is_raised_by_what_it_is_about() {
    promtool("check rules", &file("alerts.yml")).unwrap();
    promtool("check config", &file("prometheus.yml")).unwrap();
    let said = promtool("test rules", &file("alerts_test.yml")).unwrap();
    assert!(said.contains("SUCCESS"), "{said}");
    let stories: Value = serde_saphyr::from_str(STORIES).unwrap();
    assert_eq!(stories["rule_files"][0], "alerts.yml");
    for rule in rules() {
        let raised = format!("{{alertname=\"{}\"}}", name(&rule));
        assert!(STORIES.contains(&raised), "no story raises {}", name(&rule));
    }
}

#[test]
fn dashboards_are_what_grafana_reads() {
    let source = include_str!("../deploy/grafana/provisioning/datasources/prometheus.yml");
    let source: Value = serde_saphyr::from_str(source).unwrap();
    let mut known = BTreeSet::new();
    for (name, text) in DASHBOARDS {
        let dashboard: Value = serde_json::from_str(text).unwrap();
        assert_eq!(dashboard["uid"], format!("stockade-{name}"));
        let mut ids = BTreeSet::new();
        for panel in dashboard["panels"].as_array().unwrap() {
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{name}: {panel}");
            let place = &panel["gridPos"];
            assert!(place["x"].as_u64().unwrap() + place["w"].as_u64().unwrap() <= 24, "{name}: {panel}");
            if panel["type"] == "row" {
                continue;
            }
            assert_eq!(panel["datasource"]["uid"], source["datasources"][0]["uid"]);
            assert!(known.insert(format!("{name} {} {place}", panel["title"])), "{name}: {panel}");
        }
    }
}

/// Those above would pass if nothing were taken apart.
#[test]
fn an_expression_is_taken_apart() {
    let (selectors, grouped) = taken_apart(
        r#"histogram_quantile(0.99, sum by (le, route) (rate(a_bucket{x="1,2",y=~"b|c"}[$__rate_interval]))) > 1e3 and on (instance) b == 1"#,
    );
    let told: Vec<_> = selectors.iter().map(|selector| (&*selector.name, selector.labels.len())).collect();
    assert_eq!(told, [("a_bucket", 2), ("b", 0)]);
    assert_eq!(selectors[0].text, r#"a_bucket{x="1,2",y=~"b|c"}"#);
    assert_eq!(grouped.into_iter().collect::<Vec<_>>(), ["instance", "le", "route"]);
    assert!(ALERTS.contains("NobodySells"));
}
