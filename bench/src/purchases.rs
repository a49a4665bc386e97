//! Whole purchases: hold, pin, charge and confirm, all of it durable, in one call, with a provider that answers at once. Every
//! round drives the reference, as many purchases as are answered, and then a steady stream, to see how long one takes while there
//! is room: half as many as there must be, on which the bound is, and half as many as were reached, to know.

use anyhow::Result;
use clap::Args;

use crate::drive::grouped;
use crate::judge::Ruling;
use crate::report::Report;
use crate::rounds::{
    ENDLESS_STOCK, Leg, REFERENCE_PER_S, Rounds, median, ms, one_decimal, print_bound, print_verdicts,
};
use crate::workload::Thresholds;

/// Purchases a second, at least, and how many would be good.
const PER_S_MIN: f64 = 5_000.0;
const PER_S_GOAL: f64 = 10_000.0;
/// At half of what there must be.
const P99_MS_MAX: f64 = 50.0;
/// Purchases are not to be quick because they are refused.
const UNAVAILABLE_SHARE_MAX: f64 = 0.001;

const CARD: &str = "tok_ok";

#[derive(Args)]
pub struct Purchases {
    #[command(flatten)]
    rounds: Rounds,
}

struct Round {
    reference: Report,
    closed: Report,
    /// At half of what there must be.
    steady: Report,
    /// At half of what was reached.
    half: Report,
}

impl Purchases {
    pub async fn perform(self) -> Result<Ruling> {
        let mut rounds = Vec::new();
        for _ in self.rounds.numbers() {
            let reference = self.rounds.reference(self.load(None)).await?;
            let closed = self.leg(None).await?;
            // A shop that sells nothing still gets a rate to fail at.
            let half = (closed.summary.acknowledged_per_s / 2.0).max(1.0);
            let steady = self.leg(Some(PER_S_MIN / 2.0)).await?;
            let half = self.leg(Some(half)).await?;
            rounds.push(Round { reference, closed, steady, half });
        }
        print_table(&rounds);
        let verdicts_hold = print_verdicts(rounds.iter().flat_map(Round::legs));
        Ok(print_bounds(&rounds).and(verdicts_hold))
    }

    fn load(&self, rate: Option<f64>) -> Leg {
        let seconds = self.rounds.seconds;
        Leg { rate, seconds, stock: ENDLESS_STOCK, warm_up: (seconds / 5.0).min(2.0), ..Leg::default() }
    }

    async fn leg(&self, rate: Option<f64>) -> Result<Report> {
        let most = rate.is_some().then_some(UNAVAILABLE_SHARE_MAX);
        let thresholds = Thresholds { max_unavailable_share: most, ..Thresholds::default() };
        self.rounds.shop(Leg { card: Some(CARD), thresholds, ..self.load(rate) }).await
    }
}

impl Round {
    fn legs(&self) -> [(&'static str, &Report); 4] {
        [
            ("reference", &self.reference),
            ("closed", &self.closed),
            ("steady", &self.steady),
            ("half", &self.half),
        ]
    }
}

fn print_table(rounds: &[Round]) {
    println!(
        "\n{:<9} {:>12} {:>12} {:>12} {:>8} {:>8} {:>9} {:>10}",
        "loop", "answers/s", "CPU µs each", "with flush", "p50 ms", "p99 ms", "p99.9 ms", "client µs"
    );
    for (name, report) in rounds.iter().flat_map(Round::legs) {
        let (summary, latency) = (&report.summary, &report.latency.acknowledged);
        println!(
            "{name:<9} {:>12} {:>12} {:>12} {:>8.2} {:>8.2} {:>9.2} {:>10.1}",
            grouped(summary.acknowledged_per_s as u64),
            one_decimal(summary.server_cpu_us_per_answer),
            one_decimal(summary.server_cpu_us_per_answer_settled),
            ms(latency.p50_us),
            ms(latency.p99_us),
            ms(latency.p999_us),
            summary.client_cpu_us_per_answer
        );
    }
}

fn print_bounds(rounds: &[Round]) -> Ruling {
    let per_s = median(rounds.iter().map(|round| round.closed.summary.acknowledged_per_s).collect());
    let p99_ms = |of: fn(&Round) -> &Report| {
        median(rounds.iter().map(|round| ms(of(round).latency.acknowledged.p99_us)).collect())
    };
    println!();
    let enough = print_bound("purchases a second", per_s, PER_S_MIN, true);
    if let Some(per_s) = per_s {
        println!("      {:.2} of the goal of {}", per_s / PER_S_GOAL, grouped(PER_S_GOAL as u64));
    }
    if let Some(p99_ms) = p99_ms(|round| &round.half) {
        println!("      p99 {p99_ms:.1} ms at half of that");
    }
    let ceiling = |round: &Round| round.reference.summary.acknowledged_per_s;
    if let (Some(reached), Some(share)) = (
        median(rounds.iter().map(ceiling).collect()),
        median(rounds.iter().map(|round| round.closed.summary.acknowledged_per_s / ceiling(round)).collect()),
    ) {
        println!(
            "      {share:.3} of the reference, which reaches {} a second here and {} where the least rate was set: {} in this measure",
            grouped(reached as u64),
            grouped(REFERENCE_PER_S as u64),
            grouped((PER_S_MIN * reached / REFERENCE_PER_S) as u64),
        );
    }
    let bounded = "at half of the least rate, p99 ms";
    print_bound(bounded, p99_ms(|round| &round.steady), P99_MS_MAX, false).and(enough)
}
