//! The shop, as it comes and on a database, and its rivals against the HTTP ceiling. First every rival sells a few units to a
//! larger crowd, and must have sold exactly those; then every round drives each of them once; in the end the shop on MySQL sells
//! for as long as it takes to see whether its tables keep up.

use std::collections::BTreeMap;

use anyhow::Result;
use clap::Args;

use super::Rival;
use crate::answer::Outcome;
use crate::drive::grouped;
use crate::judge::Ruling;
use crate::report::Report;
use crate::rounds::{
    ENDLESS_STOCK, Leg, Rounds, median, ms, one_decimal, print_bound, print_lag, print_verdicts,
};
use crate::run::{Run, Scene};
use crate::stage::Doors;
use crate::workload::{Overrides, Thresholds, Workload};

/// Before anything is measured: so many units, and so many buyers, all at once.
const FEW_UNITS: u64 = 20;
const BUYERS: u64 = 60;
/// Where each unit is a row, there are as many as nobody sells a second on one product.
const UNITS_A_SECOND: f64 = 20_000.0;

/// What the shop on MySQL must reach: the ceiling's share in a burst and in the long run, how many times the better rival on the
/// same database, and what is left of a node's own orders when they come by another node.
const BURST_SHARE: f64 = 0.6;
const SUSTAINED_SHARE: f64 = 0.20;
const TIMES_MARIADB: f64 = 12.0;
const FORWARDED_SHARE: f64 = 0.6;
/// Seconds of the sustained leg.
const SUSTAINED_S: f64 = 60.0;

#[derive(Args)]
#[command(mut_arg("seconds", |seconds| seconds.default_value("5")))]
pub struct Contest {
    #[command(flatten)]
    rounds: Rounds,
    /// Only these; all of them otherwise
    #[arg(long = "rival", value_name = "NAME")]
    rivals: Vec<Rival>,
    /// Seconds of the sustained leg on MySQL, once, after the rounds; 0 leaves it out [default: 60, or 0 without rounds]
    #[arg(long)]
    sustained: Option<f64>,
}

/// Who is driven in a round, in this order.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Contender {
    Reference,
    /// The shop as it comes: on SQLite and its own log.
    Embedded,
    /// One node on MariaDB, asked directly.
    OnMySql,
    /// Two of them, asked at the one that stands by.
    Forwarded,
    Rival(Rival),
}

struct Drive {
    who: Contender,
    report: Report,
    /// Orders a second, by those of the reference in the same round.
    share: f64,
}

impl Contest {
    pub async fn perform(self) -> Result<Ruling> {
        let mut ruling = Ruling::Pass;
        for rival in self.rivals() {
            ruling = ruling.and(sells_what_it_has(rival).await?);
        }
        let mut drives = Vec::new();
        for _ in self.rounds.numbers() {
            let mut ceiling = 0.0;
            for who in self.contenders() {
                let report = self.drive(who, self.rounds.seconds).await?;
                let per_s = report.summary.acknowledged_per_s;
                if who == Contender::Reference {
                    ceiling = per_s;
                }
                drives.push(Drive { who, report, share: per_s / ceiling });
            }
        }
        if !drives.is_empty() {
            print_table(&self.contenders(), &drives);
            let judged = print_verdicts(drives.iter().map(|drive| (drive.who.name(), &drive.report)));
            ruling = ruling.and(judged).and(print_lasted(&drives)).and(print_floors(&drives));
        }
        let sustained = self.sustained.unwrap_or(if self.rounds.rounds > 0 { SUSTAINED_S } else { 0.0 });
        if sustained > 0.0 {
            ruling = ruling.and(self.sustain(sustained).await?);
        }
        Ok(ruling)
    }

    fn rivals(&self) -> Vec<Rival> {
        if self.rivals.is_empty() { Rival::ALL.to_vec() } else { self.rivals.clone() }
    }

    fn contenders(&self) -> Vec<Contender> {
        let ours = [Contender::Reference, Contender::Embedded, Contender::OnMySql, Contender::Forwarded];
        ours.into_iter().chain(self.rivals().into_iter().map(Contender::Rival)).collect()
    }

    /// Whether the tables on MySQL keep up with what is sold.
    async fn sustain(&self, seconds: f64) -> Result<Ruling> {
        eprintln!("sustained, {seconds} s");
        let ceiling = self.drive(Contender::Reference, self.rounds.seconds).await?;
        let report = self.drive(Contender::OnMySql, seconds).await?;
        let share = report.summary.acknowledged_per_s / ceiling.summary.acknowledged_per_s;
        let hold = print_verdicts([(Contender::OnMySql.name(), &report)]);
        let reached = print_bound("MySQL sustained, × ceiling", Some(share), SUSTAINED_SHARE, true);
        Ok(print_lag(&report.samples).and(reached).and(hold))
    }

    async fn drive(&self, who: Contender, seconds: f64) -> Result<Report> {
        let stock = match who {
            Contender::Rival(Rival::SkipLocked) => ((seconds + 1.0) * UNITS_A_SECOND) as u64,
            _ => ENDLESS_STOCK,
        };
        let leg = Leg { stock, seconds, warm_up: (seconds / 10.0).min(1.0), ..Leg::default() };
        match who {
            Contender::Reference => self.rounds.reference(leg).await,
            Contender::Embedded => self.rounds.shop(leg).await,
            Contender::OnMySql => self.rounds.nodes(1, Doors::All, leg).await,
            Contender::Forwarded => self.rounds.nodes(2, Doors::StandingBy, leg).await,
            Contender::Rival(rival) => self.rounds.rival(rival, leg).await,
        }
    }
}

impl Contender {
    fn name(self) -> &'static str {
        match self {
            Self::Reference => "reference",
            Self::Embedded => "stockade, embedded",
            Self::OnMySql => "stockade, on MySQL",
            Self::Forwarded => "stockade, forwarded",
            Self::Rival(rival) => rival.word(),
        }
    }
}

/// Whoever sells more than there is, or less, is no rival.
async fn sells_what_it_has(rival: Rival) -> Result<Ruling> {
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
    let run = Run::of(workload, Scene::Rival(rival));
    let report = run.perform().await?;
    for verdict in &report.verdicts {
        println!("{}  {}, {}: {}", verdict.ruling.word(), rival.word(), verdict.name, verdict.detail);
    }
    Ok(Ruling::of(&report.verdicts))
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
    if let Some(times) = times_mariadb(drives, Contender::Embedded) {
        println!("\nThe shop sells {times:.1} times what the better rival on MariaDB does.");
    }
}

fn share(drives: &[Drive], who: Contender) -> Option<f64> {
    middle(drives, who, |drive| Some(drive.share))
}

/// How many times the better rival on MariaDB somebody sells; nothing if none of them was driven.
fn times_mariadb(drives: &[Drive], who: Contender) -> Option<f64> {
    let theirs = [Rival::RowLock, Rival::SkipLocked].map(|rival| share(drives, Contender::Rival(rival)));
    let better = theirs.into_iter().flatten().reduce(f64::max)?;
    Some(share(drives, who)? / better)
}

fn print_floors(drives: &[Drive]) -> Ruling {
    let direct = share(drives, Contender::OnMySql);
    let forwarded = share(drives, Contender::Forwarded).zip(direct).map(|(by_another, own)| by_another / own);
    let mut ruling = print_bound("MySQL burst, × ceiling", direct, BURST_SHARE, true);
    let times = times_mariadb(drives, Contender::OnMySql);
    if times.is_some() {
        ruling = ruling.and(print_bound("MySQL, × the better on MariaDB", times, TIMES_MARIADB, true));
    }
    ruling.and(print_bound("forwarded ÷ direct", forwarded, FORWARDED_SHARE, true))
}

fn middle(drives: &[Drive], who: Contender, value: fn(&Drive) -> Option<f64>) -> Option<f64> {
    median(drives.iter().filter(|drive| drive.who == who).filter_map(value).collect())
}

/// A rival that ran out of goods was measured saying no.
fn print_lasted(drives: &[Drive]) -> Ruling {
    let sold_out = |drive: &&Drive| drive.report.summary.outcomes.contains_key(Outcome::SoldOut.word());
    let mut ruling = Ruling::Pass;
    for drive in drives.iter().filter(sold_out) {
        println!("FAIL  {}: sold out before the end", drive.who.name());
        ruling = Ruling::Fail;
    }
    ruling
}
