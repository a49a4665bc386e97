//! Far more come than can be served. The journal is slowed down, so that what is scarce is the shop's and not the machine's, and ten
//! times of what it can take is offered: it must go on selling as if nobody stood outside, answer those it takes in time, and be
//! itself again when they have gone. Then the same with people who hold connections and buy nothing, and without the brake.

use anyhow::Result;
use clap::Args;

use crate::bystanders::Bystanders;
use crate::command::Binary;
use crate::drive::grouped;
use crate::judge::Ruling;
use crate::report::{Point, Report};
use crate::rounds::{ENDLESS_STOCK, READ_BACK, USERS, ms, one_decimal, print_bound, print_verdicts};
use crate::run::{Run, Scene};
use crate::workload::{Calm, Overrides, Retry, Thresholds, Workload};

/// What is sold under the load, by the most that can be sold.
const GOODPUT_SHARE: f64 = 0.9;
/// … and beside bystanders, by what is sold without them.
const BYSTANDERS_SHARE: f64 = 0.9;
/// Of those who hear *yes*.
const P99_MS: f64 = 250.0;
const RESIDENT_MIB: f64 = 512.0;
/// After so many seconds nobody is turned away any more.
const BACK_AFTER_S: f64 = 5.0;
const CALM_S: f64 = 8.0;
/// What one product puts into one group, at most.
const GROUP_EVENTS: f64 = 512.0;

#[derive(Args)]
pub struct Overload {
    #[command(flatten)]
    binary: Binary,
    /// Seconds of each load
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
    /// Microseconds that each group of the journal is held up: 100,000 leave about 5,000 orders a second
    #[arg(long, default_value_t = 100_000)]
    brake_us: u64,
    /// How many times of what can be sold then is offered
    #[arg(long, default_value_t = 10.0)]
    times: f64,
    /// Connections that are held open and say nothing
    #[arg(long, default_value_t = 10_000)]
    idle: usize,
    /// Connections that send a request's head a byte at a time
    #[arg(long, default_value_t = 500)]
    slow: usize,
    /// Without the brake, how many times of what was sold at most is offered; 0 leaves it out
    #[arg(long, default_value_t = 1.3)]
    unbraked_times: f64,
    /// As many as stand outside at once: with fewer the crowd would wait in the harness
    #[arg(long, default_value_t = 2_000)]
    connections: usize,
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

/// One load.
#[derive(Default)]
struct Leg {
    rate: Option<f64>,
    calm: Option<Calm>,
    brake_us: u64,
    bystanders: Bystanders,
}

impl Overload {
    pub async fn perform(self) -> Result<Ruling> {
        let (brake_us, capacity) = (self.brake_us, GROUP_EVENTS * 1e6 / self.brake_us.max(1) as f64);
        let besiege = |bystanders| Leg {
            rate: Some(capacity * self.times),
            calm: Some(Calm { rate: capacity / 2.0, seconds: CALM_S }),
            brake_us,
            bystanders,
        };
        let peak = self.leg(Leg { rate: Some(capacity * 2.0), brake_us, ..Leg::default() }).await?;
        let besieged = self.leg(besiege(Bystanders::default())).await?;
        let beset = self.leg(besiege(Bystanders { idle: self.idle, slow: self.slow })).await?;
        let mut legs = vec![("most, braked", peak), ("besieged", besieged), ("and beset", beset)];
        if self.unbraked_times > 0.0 {
            let free = self.leg(Leg::default()).await?;
            let rate = free.summary.acknowledged_per_s * self.unbraked_times;
            let over = self.leg(Leg { rate: Some(rate), ..Leg::default() }).await?;
            legs.extend([("most, free", free), ("over it", over)]);
        }
        print_table(&legs);
        let judged = print_verdicts(legs.iter().map(|(name, report)| (*name, report)));
        Ok(self.print_bounds(&legs).and(judged))
    }

    async fn leg(&self, leg: Leg) -> Result<Report> {
        let over = Overrides {
            rate: leg.rate,
            closed: leg.rate.is_none(),
            connections: Some(self.connections),
            duration: Some(self.seconds),
            users: Some(USERS),
            products: Some(1),
            stock: Some(ENDLESS_STOCK),
            warm_up: Some((self.seconds / 10.0).min(1.0)),
            ..Overrides::default()
        };
        let mut workload = Workload::load("steady")?.with(&over)?;
        (workload.thresholds, workload.calm) = (Thresholds::default(), leg.calm);
        // What is offered is a number, not what those who were turned away make of it.
        workload.retry = Retry { unavailable: false, ..Retry::default() };
        let brake = ("STOCKADE_JOURNAL_BRAKE_US".to_owned(), leg.brake_us.to_string());
        let scene = Scene::Own { binary: self.binary.find()?, environment: vec![brake] };
        let (threads, bystanders) = (self.threads, leg.bystanders);
        let run = Run { threads, bystanders, read_back: READ_BACK, ..Run::of(workload, scene) };
        run.perform().await
    }

    fn print_bounds(&self, legs: &[(&'static str, Report)]) -> Ruling {
        let of = |name: &str| legs.iter().find(|(known, _)| *known == name).map(|(_, report)| report);
        let share = |name, of_name| Some(per_s(of(name)?) / per_s(of(of_name)?));
        println!();
        let mut ruling = Ruling::Pass;
        for (what, of_what) in [("besieged", "most, braked"), ("over it", "most, free")] {
            let Some(report) = of(what) else { continue };
            let goodput = print_bound(
                &format!("{what}: goodput, × the most"),
                share(what, of_what),
                GOODPUT_SHARE,
                true,
            );
            let p99 = Some(ms(report.latency.acknowledged.p99_us));
            ruling =
                ruling.and(goodput).and(print_bound(&format!("{what}: p99 of yes, ms"), p99, P99_MS, false));
            let resident =
                print_bound(&format!("{what}: memory, MiB"), resident_mib(report), RESIDENT_MIB, false);
            ruling = ruling.and(resident);
        }
        if let Some(besieged) = of("besieged") {
            let again =
                besieged.time_line.points.iter().filter(|point| point.at_s >= self.seconds + BACK_AFTER_S);
            ruling = ruling.and(print_calm(&again.collect::<Vec<_>>()));
        }
        let beside = share("and beset", "besieged");
        ruling.and(print_bound("beside bystanders: goodput, × without", beside, BYSTANDERS_SHARE, true))
    }
}

fn per_s(report: &Report) -> f64 {
    report.summary.acknowledged_per_s
}

fn resident_mib(report: &Report) -> Option<f64> {
    let most = report.samples.iter().filter_map(|sample| sample.resident_bytes).max()?;
    Some(most as f64 / 1024.0 / 1024.0)
}

/// Whoever comes when the crowd has gone is served, and in time.
fn print_calm(points: &[&Point]) -> Ruling {
    let turned_away: u64 = points
        .iter()
        .flat_map(|point| &point.outcomes)
        .filter(|(word, _)| *word != "acknowledged")
        .map(|(_, count)| count)
        .sum();
    let slowest = points.iter().map(|point| ms(point.p99_us)).fold(0.0, f64::max);
    let ruling = Ruling::reached(!points.is_empty() && turned_away == 0 && slowest <= P99_MS);
    println!(
        "{}  {BACK_AFTER_S} s after: {} turned away, p99 {slowest:.0} ms at most, in {} intervals",
        ruling.word(),
        grouped(turned_away),
        points.len()
    );
    ruling
}

fn print_table(legs: &[(&'static str, Report)]) {
    println!(
        "\n{:<13} {:>10} {:>10} {:>9} {:>9} {:>9} {:>12} {:>7}",
        "", "answers/s", "orders/s", "yes p50", "yes p99", "no p99", "CPU µs each", "MiB"
    );
    for (name, report) in legs {
        let (summary, latency) = (&report.summary, &report.latency);
        println!(
            "{name:<13} {:>10} {:>10} {:>9.1} {:>9.1} {:>9.1} {:>12} {:>7}",
            grouped(summary.answers_per_s as u64),
            grouped(summary.acknowledged_per_s as u64),
            ms(latency.acknowledged.p50_us),
            ms(latency.acknowledged.p99_us),
            ms(latency.refused.p99_us),
            one_decimal(summary.server_cpu_us_per_answer),
            resident_mib(report).map_or("–".to_owned(), |mib| format!("{mib:.0}")),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shop_that_still_turns_people_away_or_is_slow_is_not_itself_again() {
        let point = |word: &str, p99_us| Point {
            at_s: 26.0,
            outcomes: [(word.to_owned(), 7)].into(),
            p50_us: 0,
            p99_us,
            max_us: 0,
        };
        let (good, turned, slow) =
            (point("acknowledged", 90_000), point("overloaded", 100), point("acknowledged", 900_000));
        assert_eq!(print_calm(&[&good]), Ruling::Pass);
        assert_eq!(print_calm(&[&good, &turned]), Ruling::Miss);
        assert_eq!(print_calm(&[&good, &slow]), Ruling::Miss);
        assert_eq!(print_calm(&[]), Ruling::Miss);
    }
}
