//! What the commands that measure in rounds have in common. Every round drives each of its legs once: a ratio is taken within
//! its round, since a machine's mood lasts longer than a round, and what counts is the median of the rounds. Each leg has a
//! fresh store, and its judges.

use anyhow::Result;
use clap::Args;

use crate::command::Binary;
use crate::judge::Ruling;
use crate::report::Report;
use crate::rivals::Rival;
use crate::run::{Run, Scene};
use crate::sampler::Sample;
use crate::stage::Doors;
use crate::workload::{Card, Overrides, Thresholds, Workload};

/// More than any leg sells.
pub const ENDLESS_STOCK: u64 = 50_000_000;
pub const USERS: usize = 10_000;
/// What the reference reaches on the machine on which the limits were set.
pub const REFERENCE_PER_S: f64 = 125_000.0;
/// Orders are read back in samples: the figures are what these commands are about.
pub const READ_BACK: usize = 2_000;

#[derive(Args)]
pub struct Rounds {
    #[command(flatten)]
    binary: Binary,
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// Seconds of each leg
    #[arg(long, default_value_t = 10.0)]
    pub seconds: f64,
    #[arg(long, default_value_t = 256)]
    connections: usize,
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

/// One load: an even stream of orders for one product.
#[derive(Default)]
pub struct Leg {
    /// Arrivals a second; without it every connection asks again as soon as it has heard.
    pub rate: Option<f64>,
    pub seconds: f64,
    pub stock: u64,
    pub warm_up: f64,
    /// Each order is paid at once, with this.
    pub card: Option<&'static str>,
    /// So many people log in meanwhile.
    pub log_ins: usize,
    pub thresholds: Thresholds,
}

impl Rounds {
    /// Announces each round as it begins.
    pub fn numbers(&self) -> impl Iterator<Item = usize> + use<> {
        let rounds = self.rounds;
        (1..=rounds).inspect(move |round| eprintln!("round {round} of {rounds}"))
    }

    pub async fn reference(&self, leg: Leg) -> Result<Report> {
        self.run(Scene::Reference, leg).await
    }

    pub async fn rival(&self, rival: Rival, leg: Leg) -> Result<Report> {
        self.run(Scene::Rival(rival), leg).await
    }

    pub async fn shop(&self, leg: Leg) -> Result<Report> {
        let scene = Scene::Own { binary: self.binary.find()?, environment: Vec::new() };
        self.run(scene, leg).await
    }

    /// On so many nodes and a MariaDB of their own.
    pub async fn nodes(&self, nodes: usize, doors: Doors, leg: Leg) -> Result<Report> {
        self.run(Scene::Nodes { binary: self.binary.find()?, nodes, doors }, leg).await
    }

    async fn run(&self, scene: Scene, leg: Leg) -> Result<Report> {
        let over = Overrides {
            rate: leg.rate,
            closed: leg.rate.is_none(),
            connections: Some(self.connections),
            duration: Some(leg.seconds),
            users: Some(USERS),
            products: Some(1),
            stock: Some(leg.stock),
            warm_up: Some(leg.warm_up),
            ..Overrides::default()
        };
        let mut workload = Workload::load("steady")?.with(&over)?;
        workload.payment = leg.card.map(|token| Card { token: token.to_owned() });
        workload.thresholds = leg.thresholds;
        Run { threads: self.threads, log_ins: leg.log_ins, read_back: READ_BACK, ..Run::of(workload, scene) }
            .perform()
            .await
    }
}

/// What the judges of the legs did not pass, and what makes their figures worth less.
pub fn print_verdicts<'a>(legs: impl IntoIterator<Item = (&'static str, &'a Report)>) -> Ruling {
    let mut ruling = Ruling::Pass;
    for (name, report) in legs {
        report.warnings.iter().for_each(|warning| println!("WARNING  {name}: {warning}"));
        for verdict in report.verdicts.iter().filter(|verdict| verdict.ruling > Ruling::Pass) {
            println!("{}  {name}: {}: {}", verdict.ruling.word(), verdict.name, verdict.detail);
            ruling = ruling.and(verdict.ruling);
        }
    }
    ruling
}

pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// One line for a bound, and the ruling on it.
pub fn print_bound(name: &str, value: Option<f64>, bound: f64, at_least: bool) -> Ruling {
    let met = value.is_some_and(|value| if at_least { value >= bound } else { value <= bound });
    let (ruling, side) = (Ruling::reached(met), if at_least { "at least" } else { "at most" });
    let value = value.map_or("not measured".to_owned(), |value| format!("{value:.2}"));
    println!("{}  {name:<32} {value}, {side} {bound}", ruling.word());
    ruling
}

/// The flush keeps up if its lag in the last third of the run is no longer than in the middle one, but for a breath.
pub fn print_lag(samples: &[Sample]) -> Ruling {
    let third = |part: usize| {
        let range = samples.len() * part / 3..samples.len() * (part + 1) / 3;
        let lags: Vec<f64> = samples[range].iter().filter_map(|sample| sample.flush_lag_events).collect();
        lags.iter().sum::<f64>() / lags.len().max(1) as f64
    };
    let [first, middle, last] = [third(0), third(1), third(2)];
    let measured = samples.iter().any(|sample| sample.flush_lag_events.is_some());
    let keeps_up = measured && last <= middle * 1.25 + 5_000.0;
    let ruling = Ruling::reached(keeps_up);
    println!(
        "{}  sustained, flush lag in events   {first:.0} → {middle:.0} → {last:.0} (means of the thirds), not growing",
        ruling.word()
    );
    ruling
}

pub fn ms(us: u64) -> f64 {
    us as f64 / 1000.0
}

/// A figure that may be missing.
pub fn one_decimal(value: Option<f64>) -> String {
    value.map_or("–".to_owned(), |value| format!("{value:.1}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_what_stands_in_the_middle() {
        assert_eq!((median(vec![]), median(vec![3.0, 1.0, 2.0])), (None, Some(2.0)));
    }

    #[test]
    fn a_growing_lag_is_told_from_one_that_swings() {
        let samples = |lag: fn(usize) -> f64| -> Vec<Sample> {
            (0..60).map(|at| Sample { flush_lag_events: Some(lag(at)), ..Sample::default() }).collect()
        };
        let swinging = samples(|at| if at % 2 == 0 { 20_000.0 } else { 2_000.0 });
        assert_eq!(print_lag(&swinging), Ruling::Pass);
        assert_eq!(print_lag(&samples(|at| at as f64 * 2_000.0)), Ruling::Miss);
        assert_eq!(print_lag(&[Sample::default()]), Ruling::Miss);
    }

    #[test]
    fn a_bound_is_kept_from_one_side_and_only_by_what_was_measured() {
        let kept = |value, at_least| print_bound("x", value, 5.0, at_least) == Ruling::Pass;
        assert!(kept(Some(5.0), true) && kept(Some(5.0), false));
        assert!(!kept(Some(4.9), true) && !kept(Some(5.1), false) && !kept(None, false));
    }
}
