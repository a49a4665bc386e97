//! Workloads are data: a TOML file says who comes, how many, how fast, and what the run must show. The files in
//! `bench/workloads/` are built in under their names; any other file is named by its path. A number given on the
//! command line replaces the file's.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::answer::Outcome;

const BUILT_IN: [(&str, &str); 8] = [
    ("flash_sale", include_str!("../workloads/flash_sale.toml")),
    ("sold_out", include_str!("../workloads/sold_out.toml")),
    ("steady", include_str!("../workloads/steady.toml")),
    ("many_products", include_str!("../workloads/many_products.toml")),
    ("last_units", include_str!("../workloads/last_units.toml")),
    ("two_buyers_a_unit", include_str!("../workloads/two_buyers_a_unit.toml")),
    ("ten_hot", include_str!("../workloads/ten_hot.toml")),
    ("two_a_customer", include_str!("../workloads/two_a_customer.toml")),
];

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    pub name: String,
    /// What it shows, in a sentence for the report.
    pub shows: String,
    pub users: usize,
    pub products: usize,
    /// Units of each product at the start.
    pub stock: u64,
    pub connections: usize,
    /// Arrivals a second (open loop). Without it the loop is closed: every connection asks again as soon as it has heard.
    pub rate: Option<f64>,
    /// How many buyers come; without it they come for `duration_seconds`.
    pub attempts: Option<u64>,
    pub duration_seconds: Option<f64>,
    /// Answers to attempts of these first seconds are judged, but not measured.
    #[serde(default)]
    pub warm_up_seconds: f64,
    #[serde(default = "one")]
    pub quantity: u64,
    pub hold_seconds: Option<u64>,
    pub per_customer_limit: Option<u64>,
    /// Popularity of products after Zipf; 0 is uniform.
    #[serde(default)]
    pub zipf_exponent: f64,
    /// Ordering and paying is one call. Without it an order is only held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payment: Option<Card>,
    /// After `duration_seconds` fewer come, to see how soon the shop is itself again; not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calm: Option<Calm>,
    #[serde(default)]
    pub retry: Retry,
    #[serde(default)]
    pub thresholds: Thresholds,
    /// All answers of the run by outcome: these and nothing else. Empty: whatever comes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub exactly: BTreeMap<String, u64>,
}

/// What buyers pay with. Who is declined tries again with a new key, as long as there are units.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// The simulated provider decides by it.
    pub token: String,
}

/// So many a second come when the crowd has gone.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calm {
    pub rate: f64,
    pub seconds: f64,
}

/// When a buyer tries again, with the key of the first try. An answer that never came is always asked for again.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// After *sold out*: a hold may lapse.
    pub sold_out: bool,
    /// After a 503 or a 429.
    pub unavailable: bool,
    pub delay_ms: u64,
}

/// What a run must show beside the verdicts.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Thresholds {
    pub p99_ms: Option<f64>,
    pub min_acknowledged: Option<u64>,
    pub min_answers_per_second: Option<f64>,
    /// The share of all answers that may be 503 or 429.
    pub max_unavailable_share: Option<f64>,
}

/// Numbers that replace the file's.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub struct Overrides {
    /// Arrivals a second (open loop)
    #[arg(long, conflicts_with = "closed")]
    pub rate: Option<f64>,
    /// Closed loop: every connection asks again as soon as it has heard
    #[arg(long)]
    pub closed: bool,
    #[arg(long)]
    pub connections: Option<usize>,
    /// Seconds of arrivals, instead of a number of attempts
    #[arg(long, conflicts_with = "attempts")]
    pub duration: Option<f64>,
    #[arg(long)]
    pub attempts: Option<u64>,
    #[arg(long)]
    pub users: Option<usize>,
    #[arg(long)]
    pub products: Option<usize>,
    /// Units of each product
    #[arg(long)]
    pub stock: Option<u64>,
    /// Seconds that are judged but not measured
    #[arg(long)]
    pub warm_up: Option<f64>,
    #[arg(long)]
    pub quantity: Option<u64>,
    #[arg(long)]
    pub hold_seconds: Option<u64>,
    /// Each order is paid in the same call; with tok_random_20 one payment in five is declined
    #[arg(long, value_name = "TOKEN", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "tok_random_20")]
    pub pay: Option<String>,
}

impl Workload {
    /// A built-in name, or the path of a TOML file.
    pub fn load(name: &str) -> Result<Self> {
        let text = match BUILT_IN.iter().find(|(known, _)| *known == name) {
            Some((_, text)) => (*text).to_owned(),
            None if name.ends_with(".toml") => {
                std::fs::read_to_string(name).with_context(|| format!("cannot read workload {name}"))?
            }
            None => bail!(
                "no workload is called {name:?}; there are {}, and any path that ends in .toml",
                BUILT_IN.map(|(known, _)| known).join(", ")
            ),
        };
        toml::from_str(&text).with_context(|| format!("workload {name} does not read"))
    }

    pub fn with(mut self, over: &Overrides) -> Result<Self> {
        self.rate = if over.closed { None } else { over.rate.or(self.rate) };
        if let Some(seconds) = over.duration {
            (self.attempts, self.duration_seconds) = (None, Some(seconds));
        } else if let Some(attempts) = over.attempts {
            (self.attempts, self.duration_seconds) = (Some(attempts), None);
        }
        self.connections = over.connections.unwrap_or(self.connections);
        self.users = over.users.unwrap_or(self.users);
        self.products = over.products.unwrap_or(self.products);
        self.stock = over.stock.unwrap_or(self.stock);
        self.warm_up_seconds = over.warm_up.unwrap_or(self.warm_up_seconds);
        self.quantity = over.quantity.unwrap_or(self.quantity);
        self.hold_seconds = over.hold_seconds.or(self.hold_seconds);
        if let Some(token) = &over.pay {
            if self.payment.is_none() {
                // How long a *yes* may take was said of holding alone.
                self.thresholds.p99_ms = None;
            }
            self.payment = Some(Card { token: token.clone() });
        }
        if over != &Overrides::default() {
            self.exactly.clear();
            self.thresholds.min_acknowledged =
                self.thresholds.min_acknowledged.map(|least| least.min(self.most_orders()));
        }
        self.check()?;
        Ok(self)
    }

    /// Sales are over once this many buyers had their turn, if every one of them is served.
    pub fn buyers_until_sold_out(&self) -> u64 {
        self.stock / self.quantity * self.products as u64
    }

    /// The word that buyers pay with, if they do.
    pub fn card(&self) -> Option<&str> {
        self.payment.as_ref().map(|card| card.token.as_str())
    }

    /// How long arrivals last as planned, if that can be known.
    pub fn planned_seconds(&self) -> Option<f64> {
        self.duration_seconds.or_else(|| Some(self.attempts? as f64 / self.rate?))
    }

    /// A smaller run than the file's cannot acknowledge more than its buyers ask for, or than there is.
    fn most_orders(&self) -> u64 {
        let supply = if self.hold_seconds.is_some() { u64::MAX } else { self.buyers_until_sold_out() };
        self.attempts.unwrap_or(u64::MAX).min(supply)
    }

    fn check(&self) -> Result<()> {
        ensure!(
            self.users > 0 && self.products > 0 && self.connections > 0,
            "users, products and connections: at least 1"
        );
        ensure!((1..=1000).contains(&self.quantity), "quantity: 1 to 1,000");
        ensure!(self.rate.is_none_or(|rate| rate > 0.0), "rate: more than 0");
        ensure!(
            self.attempts.is_some() != self.duration_seconds.is_some(),
            "a workload says either how many attempts or how many seconds"
        );
        ensure!(
            self.card()
                .is_none_or(|token| token.bytes().all(|c| c.is_ascii_graphic() && !b"\"\\".contains(&c))),
            "a card's token: visible ASCII without quotes"
        );
        let unknown =
            self.exactly.keys().find(|word| Outcome::ALL.iter().all(|outcome| outcome.word() != *word));
        ensure!(unknown.is_none(), "exactly: no outcome is called {unknown:?}");
        Ok(())
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self { sold_out: false, unavailable: true, delay_ms: 100 }
    }
}

fn one() -> u64 {
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_workload_reads_and_bears_its_own_name() {
        for (name, _) in BUILT_IN {
            let workload = Workload::load(name).unwrap().with(&Overrides::default()).unwrap();
            assert_eq!(workload.name, name);
        }
    }

    #[test]
    fn a_duration_replaces_a_number_of_attempts() {
        let over = Overrides { duration: Some(3.0), closed: true, ..Overrides::default() };
        let workload = Workload::load("flash_sale").unwrap().with(&over).unwrap();
        assert_eq!((workload.attempts, workload.duration_seconds, workload.rate), (None, Some(3.0), None));
    }
    #[test]
    fn whoever_pays_is_not_held_to_what_was_said_of_holding() {
        let over = Overrides { pay: Some("tok_ok".into()), ..Overrides::default() };
        let workload = Workload::load("flash_sale").unwrap().with(&over).unwrap();
        assert_eq!((workload.card(), workload.thresholds.p99_ms), (Some("tok_ok"), None));
        assert_eq!(workload.thresholds.min_acknowledged, Some(10_000));
        let quoted = Overrides { pay: Some("tok\"".into()), ..Overrides::default() };
        assert!(Workload::load("flash_sale").unwrap().with(&quoted).is_err());
    }

    #[test]
    fn another_number_voids_what_was_to_be_exact() {
        let with = |over| Workload::load("two_buyers_a_unit").unwrap().with(&over).unwrap().exactly.len();
        assert_eq!(with(Overrides::default()), 2);
        assert_eq!(with(Overrides { stock: Some(100), ..Overrides::default() }), 0);
    }
}
