//! Group commit at work, by the database's own counters: one node on MySQL is offered a low and a high rate of orders in each round.
//! The busier it is the more orders share a transaction, so transactions hardly grow while orders do.

use anyhow::{Context, Result};
use clap::Args;

use crate::counters::Counted;
use crate::drive::grouped;
use crate::judge::{Ruling, Verdict};
use crate::report::Report;
use crate::rounds::{ENDLESS_STOCK, Leg, Rounds, median, ms, print_verdicts};
use crate::stage::Doors;

/// How many times the transactions of the low rate there may be at the high one.
const GROWTH_MAX: f64 = 1.3;
/// Events that each transaction has at least, at either rate.
const EVENTS_MIN: f64 = 10.0;
/// What is served of an offered rate that counts as reached.
const SERVED_MIN: f64 = 0.95;
/// The server's counter also has a few statements that are not the journal's.
const SURPLUS_MAX: f64 = 0.05;
/// What the two readings of one moment may differ by.
const BETWEEN_READINGS: u64 = 20;

#[derive(Args)]
#[command(mut_arg("connections", |connections| connections.default_value("1024")))]
pub struct Groups {
    #[command(flatten)]
    rounds: Rounds,
    /// Orders a second of the one leg …
    #[arg(long, default_value_t = 10_000.0)]
    low: f64,
    /// … and of the other
    #[arg(long, default_value_t = 40_000.0)]
    high: f64,
}

/// One leg of a round.
struct Side {
    name: &'static str,
    rate: f64,
    report: Report,
    counted: Counted,
}

impl Groups {
    pub async fn perform(self) -> Result<Ruling> {
        let (mut lows, mut highs) = (Vec::new(), Vec::new());
        for _ in self.rounds.numbers() {
            lows.push(self.side("low", self.low).await?);
            highs.push(self.side("high", self.high).await?);
        }
        let sides = || lows.iter().chain(&highs);
        print_table(sides());
        let mut ruling = print_verdicts(sides().map(|side| (side.name, &side.report)));
        for verdict in verdicts(&lows, &highs) {
            println!("{}  {:<12} {}", verdict.ruling.word(), verdict.name, verdict.detail);
            ruling = ruling.and(verdict.ruling);
        }
        Ok(ruling)
    }

    async fn side(&self, name: &'static str, rate: f64) -> Result<Side> {
        let seconds = self.rounds.seconds;
        let (stock, warm_up) = (ENDLESS_STOCK, (seconds / 5.0).min(2.0));
        let leg = Leg { rate: Some(rate), seconds, stock, warm_up, ..Leg::default() };
        let report = self.rounds.nodes(1, Doors::All, leg).await?;
        let counted = report.counted.context("the run ended before its counters were read")?;
        Ok(Side { name, rate, report, counted })
    }
}

fn verdicts(lows: &[Side], highs: &[Side]) -> Vec<Verdict> {
    let counted = |sides: &[Side]| -> Vec<Counted> { sides.iter().map(|side| side.counted).collect() };
    let (low, high) = (counted(lows), counted(highs));
    let rates = [(lows, &low), (highs, &high)].map(|(sides, counted)| {
        let served = median(counted.iter().map(|counted| counted.per_s(counted.orders)).collect());
        (sides.first().map_or(0.0, |side| side.rate), served.unwrap_or_default())
    });
    vec![agree(low.iter().chain(&high)), reached(rates), growth(&low, &high), events(&low, &high)]
}

/// Two witnesses that do not know each other.
fn agree<'a>(all: impl Iterator<Item = &'a Counted>) -> Verdict {
    let complaints = all.filter(|counted| {
        let most = counted.groups + (counted.groups as f64 * SURPLUS_MAX) as u64 + BETWEEN_READINGS;
        !(counted.groups.saturating_sub(BETWEEN_READINGS)..=most).contains(&counted.transactions)
    });
    let told = complaints.map(|counted| {
        format!(
            "the counter says {} transactions, the journal {} groups",
            counted.transactions, counted.groups
        )
    });
    Verdict::of("counters", told.collect(), "each transaction that was counted stands in the journal")
}

/// `[(offered, served); 2]`, a second.
fn reached(rates: [(f64, f64); 2]) -> Verdict {
    let told =
        rates.map(|(offered, served)| format!("{} of {}", grouped(served as u64), grouped(offered as u64)));
    let detail = format!("{} orders/s were served", told.join(" and "));
    match rates.iter().all(|(offered, served)| *served >= offered * SERVED_MIN) {
        true => Verdict::pass("rates", detail),
        false => Verdict::miss("rates", format!("{detail}: more is not to be had here")),
    }
}

fn growth(low: &[Counted], high: &[Counted]) -> Verdict {
    let times = |what: fn(&Counted) -> u64| {
        let pairs = low.iter().zip(high);
        median(pairs.map(|(low, high)| high.per_s(what(high)) / low.per_s(what(low).max(1))).collect())
    };
    let orders = times(|counted| counted.orders).unwrap_or_default();
    let transactions = times(|counted| counted.transactions);
    let detail = match transactions {
        Some(transactions) => {
            format!("orders × {orders:.2}, transactions × {transactions:.2}, at most {GROWTH_MAX}")
        }
        None => "not measured".to_owned(),
    };
    match transactions.is_some_and(|transactions| transactions <= GROWTH_MAX && orders > 1.0) {
        true => Verdict::pass("growth", detail),
        false => Verdict::miss("growth", detail),
    }
}

/// Of each rate the median of its rounds, as everywhere.
fn events(low: &[Counted], high: &[Counted]) -> Verdict {
    let middles = [low, high].map(|side| median(side.iter().map(Counted::events_each).collect()));
    let fewest = middles.into_iter().reduce(|a, b| Some(a?.min(b?))).flatten();
    let detail = format!(
        "{} events in a transaction where they are fewest, at least {EVENTS_MIN}",
        fewest.map_or("no".to_owned(), |fewest| format!("{fewest:.1}"))
    );
    match fewest.is_some_and(|fewest| fewest >= EVENTS_MIN) {
        true => Verdict::pass("events", detail),
        false => Verdict::miss("events", detail),
    }
}

fn print_table<'a>(sides: impl Iterator<Item = &'a Side>) {
    println!(
        "\n{:>9} {:>9} {:>14} {:>12} {:>10} {:>8} {:>8}",
        "offered/s", "orders/s", "transactions/s", "events each", "commits/s", "p50 ms", "p99 ms"
    );
    for side in sides {
        let (counted, latency) = (&side.counted, &side.report.latency.answered);
        println!(
            "{:>9} {:>9} {:>14} {:>12.1} {:>10} {:>8.2} {:>8.2}",
            grouped(side.rate as u64),
            grouped(counted.per_s(counted.orders) as u64),
            grouped(counted.per_s(counted.transactions) as u64),
            counted.events_each(),
            grouped(counted.per_s(counted.commits) as u64),
            ms(latency.p50_us),
            ms(latency.p99_us),
        );
    }
    println!();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(orders: u64, transactions: u64) -> Counted {
        Counted {
            seconds: 1.0,
            orders,
            transactions,
            commits: transactions * 2,
            groups: transactions,
            events: orders,
        }
    }

    #[test]
    fn transactions_may_grow_by_a_third_where_orders_grow_fourfold() {
        let ruled = |low, high| growth(&[low], &[high]).ruling;
        assert_eq!(ruled(counted(10_000, 700), counted(40_000, 910)), Ruling::Pass);
        assert_eq!(ruled(counted(10_000, 700), counted(40_000, 920)), Ruling::Miss);
        // Nothing is shown by a node that sells no more than before.
        assert_eq!(ruled(counted(10_000, 700), counted(9_000, 700)), Ruling::Miss);
        assert_eq!(growth(&[], &[]).ruling, Ruling::Miss);
        let swings = [counted(10_000, 700), counted(10_000, 700), counted(10_000, 100)];
        assert_eq!(growth(&swings, &[counted(40_000, 800); 3]).ruling, Ruling::Pass);
    }

    #[test]
    fn the_rate_with_the_emptier_transactions_counts() {
        let ruled = |low: &[Counted], high: &[Counted]| events(low, high).ruling;
        let (full, scant, high) = (counted(10_000, 1_000), counted(10_000, 1_001), counted(40_000, 900));
        assert_eq!(ruled(&[full], &[high]), Ruling::Pass);
        assert_eq!(ruled(&[scant], &[high]), Ruling::Miss);
        assert_eq!(ruled(&[high], &[scant]), Ruling::Miss);
        assert_eq!(ruled(&[full, scant, full], &[high]), Ruling::Pass);
        assert_eq!(ruled(&[], &[high]), Ruling::Miss);
    }

    #[test]
    fn a_counter_that_the_journal_does_not_confirm_is_wrong() {
        let with =
            |groups, transactions| agree([Counted { groups, ..counted(1, transactions) }].iter()).ruling;
        assert_eq!(with(1_000, 1_000), Ruling::Pass);
        assert_eq!(with(1_000, 1_070), Ruling::Pass);
        assert_eq!(with(1_000, 1_071), Ruling::Fail);
        assert_eq!(with(1_000, 979), Ruling::Fail);
    }

    #[test]
    fn what_was_offered_and_not_served_is_told() {
        assert_eq!(reached([(10_000.0, 9_990.0), (40_000.0, 38_000.0)]).ruling, Ruling::Pass);
        let missed = reached([(10_000.0, 9_990.0), (40_000.0, 31_234.0)]);
        assert_eq!(missed.ruling, Ruling::Miss);
        assert!(missed.detail.contains("31,234 of 40,000"), "{}", missed.detail);
    }
}
