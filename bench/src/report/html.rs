//! The page: what was run, what the judges say, and six pictures. It is one file without scripts, fonts or links.

use super::plot::{Axis, Plot, Series, count_label, duration_label};
use super::{Latency, Point, Report};
use crate::answer::Outcome;
use crate::drive::grouped;
use crate::judge::{Ruling, Verdict};
use crate::sampler::Sample;

const STYLE: &str = include_str!("page.css");

pub fn page(report: &Report) -> String {
    let name = escape(&report.workload.name);
    let stamp = stamp("stamp ", Ruling::of(&report.verdicts));
    let mut out = format!(
        r#"<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{name} · stockade-bench</title><style>{STYLE}</style><main><header><p class="kicker">stockade-bench · {}</p><h1>{name} {stamp}</h1><p class="lead">{}</p></header>"#,
        escape(&report.started_at),
        escape(&report.workload.shows)
    );
    out += &figures(report);
    out += &warnings(report);
    out += &verdicts(&report.verdicts);
    out += &section("Latency, from the moment each buyer meant to ask", &percentiles(report));
    out += &section("Answers a second, by outcome", &outcomes(report));
    out += &section("Latency over time", &latency_over_time(report));
    out += &server_pictures(report);
    out += &latency_table(report);
    out += &circumstances(report);
    out + "</main></html>"
}

fn stamp(class: &str, ruling: Ruling) -> String {
    let word = ruling.word();
    format!(r#"<b class="{class}{}">{word}</b>"#, word.to_lowercase())
}

fn figures(report: &Report) -> String {
    let summary = &report.summary;
    let mut cards = vec![
        (grouped(summary.answers_per_s as u64), "answers a second"),
        (grouped(summary.outcomes.get("acknowledged").copied().unwrap_or(0)), "orders acknowledged"),
        (duration_label(report.latency.answered.p50_us as f64), "median"),
        (duration_label(report.latency.answered.p99_us as f64), "99th percentile"),
    ];
    if let Some(us) = summary.server_cpu_us_per_answer {
        cards.push((format!("{us:.1} µs"), "server CPU an answer"));
    }
    let cards: String =
        cards.iter().map(|(value, what)| format!("<div><b>{value}</b><span>{what}</span></div>")).collect();
    format!(r#"<section class="figures">{cards}</section>"#)
}

fn warnings(report: &Report) -> String {
    report.warnings.iter().map(|warning| format!(r#"<p class="warning">{}</p>"#, escape(warning))).collect()
}

fn verdicts(verdicts: &[Verdict]) -> String {
    let rows: String = verdicts
        .iter()
        .map(|verdict| {
            let word = stamp("", verdict.ruling);
            let (name, detail) = (escape(&verdict.name), escape(&verdict.detail));
            format!(r#"<tr><td>{word}</td><td>{name}</td><td>{detail}</td></tr>"#)
        })
        .collect();
    if rows.is_empty() {
        rows
    } else {
        section("Verdicts", &format!(r#"<table class="verdicts">{rows}</table>"#))
    }
}

/// The percentile on an axis that gives every further nine the same room.
fn percentiles(report: &Report) -> String {
    let curves =
        [("acknowledged", "yes", &report.latency.acknowledged), ("refused", "no", &report.latency.refused)];
    let curves: Vec<_> = curves.into_iter().filter(|(_, _, latency)| latency.count > 0).collect();
    let nines = |quantile: f64| 1.0 / (1.0 - quantile.min(0.999_999)).max(1e-6);
    let most = curves.iter().map(|(_, _, latency)| latency.count).max().unwrap_or(10) as f64;
    let lowest =
        curves.iter().filter_map(|(_, _, latency)| latency.percentiles.first()).map(|(_, us)| *us).min();
    let highest = curves.iter().map(|(_, _, latency)| latency.max_us).max().unwrap_or(1);
    let ticks = [
        (1.0, "0 %"),
        (2.0, "50 %"),
        (10.0, "90 %"),
        (100.0, "99 %"),
        (1e3, "99.9 %"),
        (1e4, "99.99 %"),
        (1e5, "99.999 %"),
        (1e6, ""),
    ];
    let last = ticks.iter().position(|(value, _)| *value >= most).unwrap_or(ticks.len() - 1);
    let x = Axis {
        logarithmic: true,
        ticks: ticks[..=last.max(3)].iter().map(|(value, label)| (*value, (*label).to_owned())).collect(),
    };
    let series = curves.iter().map(|(class, name, latency)| Series {
        name: (*name).to_owned(),
        class: (*class).to_owned(),
        points: latency.percentiles.iter().map(|(quantile, us)| (nines(*quantile), *us as f64)).collect(),
    });
    let y = Axis::logarithmic(lowest.unwrap_or(1).max(1) as f64, highest as f64, duration_label);
    Plot { x, y, series: series.collect(), stack: Vec::new(), marks: Vec::new() }.svg()
}

fn outcomes(report: &Report) -> String {
    let line = &report.time_line;
    let seen =
        Outcome::ALL.into_iter().filter(|outcome| report.summary.outcomes.contains_key(outcome.word()));
    let rate =
        |point: &Point, word: &str| point.outcomes.get(word).copied().unwrap_or(0) as f64 / line.interval_s;
    let stack = seen.map(|outcome| Series {
        name: outcome.word().replace('_', " "),
        class: colour(outcome).to_owned(),
        points: line.points.iter().map(|point| (point.at_s, rate(point, outcome.word()))).collect(),
    });
    let sums = line.points.iter().map(|point| point.outcomes.values().sum::<u64>() as f64 / line.interval_s);
    Plot {
        x: Axis::time(end(report)),
        y: Axis::linear(sums.fold(0.0, f64::max), count_label),
        series: Vec::new(),
        stack: stack.collect(),
        marks: report.harmed_at_s(),
    }
    .svg()
}

fn latency_over_time(report: &Report) -> String {
    let answered: Vec<&Point> = report.time_line.points.iter().filter(|point| point.max_us > 0).collect();
    let line = |name: &str, class: &str, value: fn(&Point) -> u64| Series {
        name: name.to_owned(),
        class: class.to_owned(),
        points: answered.iter().map(|point| (point.at_s, value(point) as f64)).collect(),
    };
    let lowest = answered.iter().map(|point| point.p50_us).min().unwrap_or(1);
    let highest = answered.iter().map(|point| point.max_us).max().unwrap_or(1);
    Plot {
        x: Axis::time(end(report)),
        y: Axis::logarithmic(lowest.max(1) as f64, highest as f64, duration_label),
        series: vec![
            line("median", "acknowledged", |point| point.p50_us),
            line("99th percentile", "limit", |point| point.p99_us),
            line("longest", "unavailable", |point| point.max_us),
        ],
        stack: Vec::new(),
        marks: report.harmed_at_s(),
    }
    .svg()
}

type Reading = fn(&Sample) -> Option<f64>;
type Label = fn(f64) -> String;
/// A line's name, colour and value.
type Line = (&'static str, &'static str, Reading);

fn server_pictures(report: &Report) -> String {
    let pictures: [(&str, Label, &[Line]); 4] = [
        (
            "Waiting for the owner",
            duration_label,
            &[
                ("mean", "acknowledged", |sample| sample.queue_wait_mean_us),
                ("99th percentile", "limit", |sample| sample.queue_wait_p99_us),
            ],
        ),
        (
            "Writing a group",
            duration_label,
            &[
                ("mean", "acknowledged", |sample| sample.group_write_mean_us),
                ("99th percentile", "limit", |sample| sample.group_write_p99_us),
            ],
        ),
        ("Events in a group", count_label, &[("mean", "acknowledged", |sample| sample.group_events_mean)]),
        (
            "Flush lag, in events",
            count_label,
            &[("journaled, not yet in the tables", "limit", |sample| sample.flush_lag_events)],
        ),
    ];
    pictures.into_iter().map(|(title, label, lines)| server_picture(report, title, label, lines)).collect()
}

fn server_picture(report: &Report, title: &str, label: Label, lines: &[Line]) -> String {
    let series: Vec<Series> = lines
        .iter()
        .map(|(name, class, reading)| Series {
            name: (*name).to_owned(),
            class: (*class).to_owned(),
            points: report
                .samples
                .iter()
                .filter_map(|sample| Some((sample.at_s, reading(sample)?)))
                .collect(),
        })
        .filter(|series| !series.points.is_empty())
        .collect();
    if series.is_empty() {
        return String::new();
    }
    let highest = series.iter().flat_map(|series| &series.points).map(|point| point.1).fold(0.0, f64::max);
    let marks = report.harmed_at_s();
    let plot = Plot {
        x: Axis::time(end(report)),
        y: Axis::linear(highest, label),
        series,
        stack: Vec::new(),
        marks,
    };
    section(title, &plot.svg())
}

fn latency_table(report: &Report) -> String {
    let row = |name: &str, latency: &Latency| {
        let cells: String = [latency.p50_us, latency.p90_us, latency.p99_us, latency.p999_us, latency.max_us]
            .iter()
            .map(|us| format!("<td>{}</td>", duration_label(*us as f64)))
            .collect();
        format!("<tr><td>{name}</td><td>{}</td>{cells}</tr>", grouped(latency.count))
    };
    let rows = row("yes", &report.latency.acknowledged) + &row("no", &report.latency.refused);
    let head = "<tr><th></th><th>answers</th><th>50 %</th><th>90 %</th><th>99 %</th><th>99.9 %</th><th>longest</th></tr>";
    section("In numbers", &format!(r#"<table class="numbers">{head}{rows}</table>"#))
}

fn circumstances(report: &Report) -> String {
    let (machine, setting, workload) = (&report.machine, &report.setting, &report.workload);
    let arrivals = match (setting.pace_seconds, workload.rate) {
        (Some(seconds), _) => format!("open loop, selling paced over {seconds} s"),
        (None, Some(rate)) => format!("open loop, {} arrivals a second", grouped(rate as u64)),
        (None, None) => "closed loop".to_owned(),
    };
    let facts = [
        format!(
            "{}, {} cores, {} GiB, Linux {}",
            machine.processor,
            machine.cores,
            machine.memory_bytes >> 30,
            machine.kernel
        ),
        format!(
            "{arrivals}, {} connections, {} users, {} load threads",
            workload.connections,
            grouped(workload.users as u64),
            setting.threads
        ),
        format!(
            "{} products with {} units each, {} an order",
            grouped(workload.products as u64),
            grouped(workload.stock),
            workload.quantity
        ),
        format!("server: {}; seed {}", setting.server, setting.seed),
        format!(
            "client CPU {:.1} µs an answer; its busiest thread used {:.0} % of a core. Client and server share this machine.",
            report.summary.client_cpu_us_per_answer,
            report.summary.client_busiest_thread * 100.0
        ),
    ];
    let items: String = facts.iter().map(|fact| format!("<li>{}</li>", escape(fact))).collect();
    section("Circumstances", &format!("<ul>{items}</ul>"))
}

fn section(title: &str, content: &str) -> String {
    format!("<section><h2>{title}</h2>{content}</section>")
}

/// The run's last moment on the time axis.
fn end(report: &Report) -> f64 {
    let last = report.time_line.points.last().map_or(0.0, |point| point.at_s);
    last.max(report.time_line.interval_s)
}

fn colour(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Acknowledged => "acknowledged",
        Outcome::SoldOut | Outcome::Declined => "refused",
        Outcome::CustomerLimitExceeded | Outcome::SaleNotRunning | Outcome::OtherRefusal => "limit",
        Outcome::RateLimited | Outcome::Overloaded | Outcome::OwnerUnavailable => "unavailable",
        Outcome::PaymentOpen
        | Outcome::Unknown
        | Outcome::IdempotencyInProgress
        | Outcome::ServerError
        | Outcome::ConnectionCut => "cut",
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
