//! The shop and its rivals against the HTTP ceiling. First every rival sells a few units to a larger crowd, and must have sold
//! exactly those; then every round drives each of them once.

use std::collections::BTreeMap;

use anyhow::Result;
use clap::Args;

use super::Rival;
use crate::answer::Outcome;
use crate::drive::grouped;
use crate::judge::Ruling;
use crate::report::Report;
use crate::rounds::{ENDLESS_STOCK, Leg, Rounds, median, ms, one_decimal, print_verdicts};
use crate::run::{Run, Scene};
use crate::workload::{Overrides, Thresholds, Workload};

/// Before anything is measured: so many units, and so many buyers, all at once.
const FEW_UNITS: u64 = 20;
const BUYERS: u64 = 60;
/// Where each unit is a row, there are as many as nobody sells a second on one product.
const UNITS_A_SECOND: f64 = 20_000.0;

#[derive(Args)]
#[command(mut_arg("seconds", |seconds| seconds.default_value("5")))]
pub struct Contest {
    #[command(flatten)]
    rounds: Rounds,
    /// Only these; all of them otherwise
    #[arg(long = "rival", value_name = "NAME")]
    rivals: Vec<Rival>,
}

/// Who is driven in a round, in this order. The shop on another home of its journal is one more of these.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Contender {
    Reference,
    /// The shop as it comes: on SQLite and its own log.
    Embedded,
    Rival(Rival),
}

struct Drive {
    who: Contender,
    report: Report,
    /// Orders a second, by those of the reference in the same round.
    share: f64,
}

impl Contest {
    pub async fn perform(self) -> Result<bool> {
        let mut passed = true;
        for rival in self.rivals() {
            passed &= sells_what_it_has(rival).await?;
        }
        let mut drives = Vec::new();
        for _ in self.rounds.numbers() {
            let mut ceiling = 0.0;
            for who in self.contenders() {
                let report = self.drive(who).await?;
                let per_s = report.summary.acknowledged_per_s;
                if who == Contender::Reference {
                    ceiling = per_s;
                }
                drives.push(Drive { who, report, share: per_s / ceiling });
            }
        }
        if !drives.is_empty() {
            print_table(&self.contenders(), &drives);
            passed &= print_verdicts(drives.iter().map(|drive| (drive.who.name(), &drive.report)));
            passed &= print_lasted(&drives);
        }
        Ok(passed)
    }

    fn rivals(&self) -> Vec<Rival> {
        if self.rivals.is_empty() { Rival::ALL.to_vec() } else { self.rivals.clone() }
    }

    fn contenders(&self) -> Vec<Contender> {
        let ours = [Contender::Reference, Contender::Embedded];
        ours.into_iter().chain(self.rivals().into_iter().map(Contender::Rival)).collect()
    }

    async fn drive(&self, who: Contender) -> Result<Report> {
        let seconds = self.rounds.seconds;
        let stock = match who {
            Contender::Rival(Rival::SkipLocked) => ((seconds + 1.0) * UNITS_A_SECOND) as u64,
            _ => ENDLESS_STOCK,
        };
        let leg = Leg { stock, seconds, warm_up: (seconds / 10.0).min(1.0), ..Leg::default() };
        match who {
            Contender::Reference => self.rounds.reference(leg).await,
            Contender::Embedded => self.rounds.shop(leg).await,
            Contender::Rival(rival) => self.rounds.rival(rival, leg).await,
        }
    }
}

impl Contender {
    fn name(self) -> &'static str {
        match self {
            Self::Reference => "reference",
            Self::Embedded => "stockade, embedded",
            Self::Rival(rival) => rival.word(),
        }
    }
}

/// Whoever sells more than there is, or less, is no rival.
async fn sells_what_it_has(rival: Rival) -> Result<bool> {
    let over = Overrides {
        closed: true,
        connections: Some(BUYERS as usize),
        attempts: Some(BUYERS),
        users: Some(BUYERS as usize),
        products: Some(1),
        stock: Some(FEW_UNITS),
        warm_up: Some(0.0),
        ..Overrides::default()
    };
    let mut workload = Workload::load("steady")?.with(&over)?;
    workload.thresholds = Thresholds::default();
    workload.exactly = BTreeMap::from([
        (Outcome::Acknowledged.word().to_owned(), FEW_UNITS),
        (Outcome::SoldOut.word().to_owned(), BUYERS - FEW_UNITS),
    ]);
    let run = Run {
        workload,
        scene: Scene::Rival(rival),
        threads: 2,
        seed: rand::random(),
        kills: 0,
        faults: Vec::new(),
        log_ins: 0,
        pace_seconds: None,
        read_back: 0,
        keep_store: false,
    };
    let report = run.perform().await?;
    for verdict in &report.verdicts {
        let word = if verdict.ruling == Ruling::Pass { "PASS" } else { "FAIL" };
        println!("{word}  {}, {}: {}", rival.word(), verdict.name, verdict.detail);
    }
    Ok(report.verdicts.iter().all(|verdict| verdict.ruling == Ruling::Pass))
}

fn print_table(contenders: &[Contender], drives: &[Drive]) {
    println!(
        "\n{:<19} {:>9} {:>10} {:>10} {:>9} {:>8} {:>8}   orders/s of each round",
        "medians", "orders/s", "× ceiling", "server µs", "store µs", "p50 ms", "p99 ms"
    );
    for who in contenders {
        let of = |value: fn(&Drive) -> Option<f64>| middle(drives, *who, value);
        let each: Vec<String> = drives
            .iter()
            .filter(|drive| drive.who == *who)
            .map(|drive| grouped(drive.report.summary.acknowledged_per_s as u64))
            .collect();
        println!(
            "{:<19} {:>9} {:>10.3} {:>10} {:>9} {:>8} {:>8}   {}",
            who.name(),
            grouped(of(|drive| Some(drive.report.summary.acknowledged_per_s)).unwrap_or_default() as u64),
            of(|drive| Some(drive.share)).unwrap_or_default(),
            one_decimal(of(|drive| drive.report.summary.server_cpu_us_per_answer)),
            one_decimal(of(|drive| drive.report.summary.store_cpu_us_per_answer)),
            one_decimal(of(|drive| Some(ms(drive.report.latency.answered.p50_us)))),
            one_decimal(of(|drive| Some(ms(drive.report.latency.answered.p99_us)))),
            each.join("  ")
        );
    }
    let share = |who| middle(drives, who, |drive| Some(drive.share));
    let on_mariadb = [Rival::RowLock, Rival::SkipLocked].map(|rival| share(Contender::Rival(rival)));
    let better = on_mariadb.into_iter().flatten().reduce(f64::max);
    if let Some((ours, theirs)) = share(Contender::Embedded).zip(better) {
        println!("\nThe shop sells {:.1} times what the better rival on MariaDB does.", ours / theirs);
    }
}

fn middle(drives: &[Drive], who: Contender, value: fn(&Drive) -> Option<f64>) -> Option<f64> {
    median(drives.iter().filter(|drive| drive.who == who).filter_map(value).collect())
}

/// A rival that ran out of goods was measured saying no.
fn print_lasted(drives: &[Drive]) -> bool {
    let sold_out = |drive: &&Drive| drive.report.summary.outcomes.contains_key(Outcome::SoldOut.word());
    let mut lasted = true;
    for drive in drives.iter().filter(sold_out) {
        println!("FAIL  {}: sold out before the end", drive.who.name());
        lasted = false;
    }
    lasted
}
