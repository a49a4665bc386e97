//! Orders at a fixed rate, alone and while a crowd logs in: hashing passwords must not slow down who buys. Every round
//! drives both.

use anyhow::Result;
use clap::Args;

use crate::drive::grouped;
use crate::judge::Ruling;
use crate::report::Report;
use crate::rounds::{ENDLESS_STOCK, Leg, Rounds, median, ms, one_decimal, print_verdicts};
use crate::workload::Thresholds;

/// With log-ins beside it, an order may take so many times as long as without, or this long if that is more.
const TIMES_MAX: u64 = 2;
const P99_US_MAX: u64 = 10_000;
/// Orders are not to be quick because they are refused.
const UNAVAILABLE_SHARE_MAX: f64 = 0.001;

#[derive(Args)]
pub struct Logins {
    #[command(flatten)]
    rounds: Rounds,
    /// Orders a second
    #[arg(long, default_value_t = 10_000.0)]
    rate: f64,
    /// People who log in at the same time
    #[arg(long, default_value_t = 500)]
    parallel: usize,
}

struct Round {
    without: Report,
    with: Report,
}

impl Logins {
    pub async fn perform(self) -> Result<Ruling> {
        let mut rounds = Vec::new();
        for _ in self.rounds.numbers() {
            let (without, with) = (self.leg(0).await?, self.leg(self.parallel).await?);
            rounds.push(Round { without, with });
        }
        print_table(&rounds);
        let verdicts_hold = print_verdicts(rounds.iter().flat_map(Round::legs));
        Ok(print_bound(&rounds).and(verdicts_hold))
    }

    async fn leg(&self, log_ins: usize) -> Result<Report> {
        let seconds = self.rounds.seconds;
        let leg = Leg {
            rate: Some(self.rate),
            seconds,
            stock: ENDLESS_STOCK,
            warm_up: (seconds / 5.0).min(2.0),
            log_ins,
            thresholds: Thresholds {
                max_unavailable_share: Some(UNAVAILABLE_SHARE_MAX),
                ..Thresholds::default()
            },
            ..Leg::default()
        };
        self.rounds.shop(leg).await
    }
}

impl Round {
    fn legs(&self) -> [(&'static str, &Report); 2] {
        [("without", &self.without), ("with", &self.with)]
    }

    /// The 99th percentile with log-ins, by what it may be: at most 1.
    fn share(&self) -> f64 {
        share(p99_us(&self.without), p99_us(&self.with))
    }
}

fn share(without_us: u64, with_us: u64) -> f64 {
    with_us as f64 / (TIMES_MAX * without_us).max(P99_US_MAX) as f64
}

fn p99_us(report: &Report) -> u64 {
    report.latency.answered.p99_us
}

fn print_table(rounds: &[Round]) {
    println!(
        "\n{:<9} {:>9} {:>8} {:>8} {:>9} {:>12} {:>11} {:>7} {:>7} {:>6}",
        "log-ins",
        "orders/s",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "CPU µs each",
        "log-ins/s",
        "wrong/s",
        "503/s",
        "429/s"
    );
    for (name, report) in rounds.iter().flat_map(Round::legs) {
        let latency = &report.latency.answered;
        let log_ins = report.log_ins.clone().unwrap_or_default();
        let per_s = |word: &str| log_ins.of(word) as f64 / log_ins.seconds.max(1e-6);
        println!(
            "{name:<9} {:>9} {:>8.2} {:>8.2} {:>9.2} {:>12} {:>11.1} {:>7.1} {:>7.0} {:>6.0}",
            grouped(report.summary.acknowledged_per_s as u64),
            ms(latency.p50_us),
            ms(latency.p99_us),
            ms(latency.p999_us),
            one_decimal(report.summary.server_cpu_us_per_answer),
            per_s("opened"),
            per_s("wrong"),
            per_s("overloaded"),
            per_s("rate_limited"),
        );
    }
}

fn print_bound(rounds: &[Round]) -> Ruling {
    let median = median(rounds.iter().map(Round::share).collect());
    let ruling = Ruling::reached(median.is_some_and(|share| share <= 1.0));
    println!(
        "\n{}  p99 with log-ins, by the larger of {TIMES_MAX} × without and {} ms: {}, at most 1",
        ruling.word(),
        P99_US_MAX / 1000,
        median.map_or("not measured".to_owned(), |share| format!("{share:.2}")),
    );
    ruling
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twice_as_long_is_the_most_but_for_ten_milliseconds() {
        assert!(share(500, 10_000) <= 1.0 && share(500, 10_001) > 1.0);
        assert!(share(6_000, 12_000) <= 1.0 && share(6_000, 12_001) > 1.0);
    }
}
