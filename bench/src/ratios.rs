//! The shop against the HTTP ceiling. Every round drives the reference server, then the shop: orders as fast as they are
//! answered, refusals as fast as they are answered, orders at a fixed rate.

use anyhow::Result;
use clap::Args;

use crate::disk::{self, Waits};
use crate::drive::grouped;
use crate::judge::Ruling;
use crate::report::Report;
use crate::rounds::{
    self, ENDLESS_STOCK, REFERENCE_PER_S, Rounds, median, ms, one_decimal, print_bound, print_lag,
};

/// Shares of the reference, and limits, that the engine must reach. The two limits in microseconds were set on a machine
/// whose reference costs 9.1 µs an answer and reaches 125,000 of them a second: `print_machine` says what this one does.
const BURST_SHARE: f64 = 0.70;
const BURST_CPU_US: f64 = 17.0;
const SUSTAINED_SHARE: f64 = 0.25;
const SOLD_OUT_SHARE: f64 = 0.85;
const OPEN_LOOP_P99_US: u64 = 5_000;
/// So much of the disk alone is enough.
const DISK_S_MAX: f64 = 3.0;

#[derive(Args)]
pub struct Ratios {
    #[command(flatten)]
    rounds: Rounds,
    /// Seconds of the sustained leg, once, after the rounds; 0 leaves it out
    #[arg(long, default_value_t = 60.0)]
    sustained: f64,
    /// Arrivals a second of the open loop
    #[arg(long, default_value_t = 40_000.0)]
    rate: f64,
}

struct Leg {
    name: &'static str,
    report: Report,
    /// Answers a second, by those of the reference in the same round.
    share: f64,
}

impl Ratios {
    pub async fn perform(self) -> Result<Ruling> {
        let (rounds, mut legs) = (&self.rounds, Vec::new());
        let (mut disk, mut disk_beside) = (Vec::new(), Vec::new());
        for _ in rounds.numbers() {
            let reference = rounds.reference(leg(ENDLESS_STOCK, None, rounds.seconds)).await?;
            let ceiling = reference.summary.answers_per_s;
            let burst = rounds.shop(leg(ENDLESS_STOCK, None, rounds.seconds)).await?;
            let sold_out = rounds.shop(leg(1, None, rounds.seconds)).await?;
            disk.push(disk::measured(rounds.seconds.min(DISK_S_MAX)).await?);
            let open = rounds.shop(leg(ENDLESS_STOCK, Some(self.rate), rounds.seconds)).await?;
            let ceiling_of_open = || rounds.reference(leg(ENDLESS_STOCK, Some(self.rate), rounds.seconds));
            let empty = ceiling_of_open().await?;
            let (_, beside) = tokio::join!(ceiling_of_open(), disk::measured(rounds.seconds));
            disk_beside.push(beside?);
            legs.push(Leg { name: "reference", report: reference, share: 1.0 });
            for (name, report) in
                [("burst", burst), ("sold out", sold_out), ("open loop", open), ("its ceiling", empty)]
            {
                let share = useful_per_s(name, &report) / ceiling;
                legs.push(Leg { name, report, share });
            }
        }
        if self.sustained > 0.0 {
            eprintln!("sustained, {} s", self.sustained);
            let reference = rounds.reference(leg(ENDLESS_STOCK, None, rounds.seconds)).await?;
            let report = rounds.shop(leg(ENDLESS_STOCK, None, self.sustained)).await?;
            let share = useful_per_s("sustained", &report) / reference.summary.answers_per_s;
            legs.push(Leg { name: "reference", report: reference, share: 1.0 });
            legs.push(Leg { name: "sustained", report, share });
        }
        print_table(&legs);
        print_machine(&legs);
        print_disk("alone, idle, which syncs 4 KiB at a time,", &disk);
        print_disk("while the reference answers as many as the open loop has", &disk_beside);
        let verdicts_hold = rounds::print_verdicts(legs.iter().map(|leg| (leg.name, &leg.report)));
        Ok(print_floors(&legs).and(verdicts_hold))
    }
}

fn leg(stock: u64, rate: Option<f64>, seconds: f64) -> rounds::Leg {
    rounds::Leg { stock, rate, seconds, warm_up: (seconds / 10.0).min(1.0), ..rounds::Leg::default() }
}

/// What a leg is about: orders, or refusals.
fn useful_per_s(name: &str, report: &Report) -> f64 {
    match name {
        "sold out" => {
            report.summary.measured.get("sold_out").copied().unwrap_or(0) as f64 / report.summary.measured_s
        }
        _ => report.summary.acknowledged_per_s,
    }
}

fn print_table(legs: &[Leg]) {
    println!(
        "\n{:<11} {:>10} {:>10} {:>12} {:>12} {:>9} {:>9} {:>10}",
        "", "answers/s", "× ceiling", "CPU µs each", "with flush", "p50 ms", "p99 ms", "client µs"
    );
    for leg in legs {
        let (summary, latency) = (&leg.report.summary, &leg.report.latency.answered);
        println!(
            "{:<11} {:>10} {:>10.3} {:>12} {:>12} {:>9.2} {:>9.2} {:>10.1}",
            leg.name,
            grouped(useful_per_s(leg.name, &leg.report) as u64),
            leg.share,
            one_decimal(summary.server_cpu_us_per_answer),
            one_decimal(summary.server_cpu_us_per_answer_settled),
            ms(latency.p50_us),
            ms(latency.p99_us),
            summary.client_cpu_us_per_answer
        );
    }
}

/// What the reference took on the machine on which the limits in microseconds were set.
const REFERENCE_CPU_US: f64 = 9.1;

/// What this machine is to the one of the limits, and what the limits would be here: for people, not for the verdict.
fn print_machine(legs: &[Leg]) {
    let of = |name: &str, value: fn(&Leg) -> Option<f64>| {
        median(legs.iter().filter(|leg| leg.name == name).filter_map(value).collect())
    };
    let (Some(cpu), Some(per_s)) = (
        of("reference", |leg| leg.report.summary.server_cpu_us_per_answer),
        of("reference", |leg| Some(leg.report.summary.answers_per_s)),
    ) else {
        return;
    };
    println!(
        "\nThe reference takes {cpu:.1} µs an answer here, {REFERENCE_CPU_US} where the limits were set, and reaches {} a second, \
         {} there.\nIn its measure the limit of {BURST_CPU_US} µs is {:.1} µs here, and {} arrivals a second there are {} here.",
        grouped(per_s as u64),
        grouped(REFERENCE_PER_S as u64),
        BURST_CPU_US * cpu / REFERENCE_CPU_US,
        grouped(40_000),
        grouped((40_000.0 * per_s / REFERENCE_PER_S) as u64),
    );
}

/// What the disk leaves of the limit of the open loop: for people as well. A shop that says *yes* only when it is durable does not
/// answer sooner than the disk beside a server that does nothing.
fn print_disk(when: &str, disk: &[Waits]) {
    let of = |value: fn(&Waits) -> u64| median(disk.iter().map(|waits| value(waits) as f64 / 1e3).collect());
    if let (Some(p50), Some(p99), Some(max)) =
        (of(|waits| waits.p50_us), of(|waits| waits.p99_us), of(|waits| waits.max_us))
    {
        println!("Whoever waits for this disk {when} waits p50 {p50:.2} ms, p99 {p99:.2}, max {max:.2}.");
    }
}

fn print_floors(legs: &[Leg]) -> Ruling {
    let of = |name: &str, value: fn(&Leg) -> Option<f64>| {
        median(legs.iter().filter(|leg| leg.name == name).filter_map(value).collect())
    };
    let share = |name| of(name, |leg| Some(leg.share));
    let mut floors = vec![
        ("burst, × ceiling", share("burst"), BURST_SHARE, true),
        (
            "burst, server CPU µs an order",
            of("burst", |leg| leg.report.summary.server_cpu_us_per_answer),
            BURST_CPU_US,
            false,
        ),
        ("sold out, × ceiling", share("sold out"), SOLD_OUT_SHARE, true),
        (
            "open loop, p99 µs",
            of("open loop", |leg| Some(leg.report.latency.answered.p99_us as f64)),
            OPEN_LOOP_P99_US as f64,
            false,
        ),
    ];
    let sustained = legs.iter().find(|leg| leg.name == "sustained");
    if let Some(leg) = sustained {
        floors.push(("sustained, × ceiling", Some(leg.share), SUSTAINED_SHARE, true));
    }
    println!();
    let mut ruling = Ruling::Pass;
    for (name, value, floor, at_least) in floors {
        ruling = ruling.and(print_bound(name, value, floor, at_least));
    }
    if let Some(leg) = sustained {
        ruling = ruling.and(print_lag(&leg.report.samples));
    }
    ruling
}
