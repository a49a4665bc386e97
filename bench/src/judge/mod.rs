//! The judges: after a run, what every buyer was told is held against what the shop now says of itself. A verdict is PASS,
//! FAIL with the first piece of evidence, MISS where nothing is wrong but a figure fell short, or SKIP with the reason why it
//! could not be given.

mod arrival;
mod book;
mod money;
mod orders;
mod provider;
mod units;

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::{Duration, Instant, sleep};

pub use arrival::first_inversion;
use book::Book;
pub use provider::{FILE as PROVIDER_BOOK, Statement};

use crate::client::{Client, each};
use crate::engine::History;
use crate::wire::OrderRequests;

const CONNECTIONS: usize = 32;
/// The shop remembers where so many readers are; a ledger beyond them is begun anew with every page.
const LEDGERS_AT_ONCE: usize = 4;
/// Ledgers longer than this, all products with a refusal together, are not replayed.
const REPLAY_LIMIT: u64 = 2_000_000;
/// Of the products at which nobody was refused so many movements are replayed beside them: some seconds' reading.
const REPLAY_LIMIT_UNREFUSED: u64 = 200_000;
const SETTLE_TIMEOUT: Duration = Duration::from_secs(15);

/// From what says nothing to the worst. A machine that is busy elsewhere makes a figure worse and never an answer wrong: whoever takes changes
/// tells a miss from a failure by the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Ruling {
    Skip,
    Pass,
    Miss,
    Fail,
}

impl Ruling {
    /// On something that must hold on any machine, however slow.
    pub fn held(holds: bool) -> Self {
        if holds { Self::Pass } else { Self::Fail }
    }

    /// On a figure.
    pub fn reached(is_reached: bool) -> Self {
        if is_reached { Self::Pass } else { Self::Miss }
    }

    /// The worse of both.
    pub fn and(self, other: Self) -> Self {
        self.max(other)
    }

    /// On all of them together.
    pub fn of(verdicts: &[Verdict]) -> Self {
        verdicts.iter().fold(Self::Pass, |worst, verdict| worst.and(verdict.ruling))
    }

    pub fn word(self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::Skip => "SKIP",
            Self::Miss => "MISS",
            Self::Fail => "FAIL",
        }
    }
}

impl From<Ruling> for ExitCode {
    fn from(ruling: Ruling) -> Self {
        match ruling {
            Ruling::Pass | Ruling::Skip => Self::SUCCESS,
            Ruling::Fail => Self::FAILURE,
            Ruling::Miss => Self::from(3),
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Verdict {
    pub name: String,
    pub ruling: Ruling,
    pub detail: String,
}

impl Verdict {
    pub fn pass(name: &str, detail: impl Into<String>) -> Self {
        Self { name: name.into(), ruling: Ruling::Pass, detail: detail.into() }
    }

    pub fn miss(name: &str, detail: impl Into<String>) -> Self {
        Self { name: name.into(), ruling: Ruling::Miss, detail: detail.into() }
    }

    pub fn fail(name: &str, detail: impl Into<String>) -> Self {
        Self { name: name.into(), ruling: Ruling::Fail, detail: detail.into() }
    }

    pub fn skip(name: &str, detail: impl Into<String>) -> Self {
        Self { name: name.into(), ruling: Ruling::Skip, detail: detail.into() }
    }

    /// Passes with `fine`, or fails with the first complaint.
    pub fn of(name: &str, complaints: Vec<String>, fine: impl Into<String>) -> Self {
        match complaints.as_slice() {
            [] => Self::pass(name, fine),
            [only] => Self::fail(name, only),
            [first, rest @ ..] => Self::fail(name, format!("{first} (and {} more like it)", rest.len())),
        }
    }
}

/// Everything the judges may look at.
pub struct Evidence<'a> {
    pub target: SocketAddr,
    pub history: &'a History,
    pub requests: &'a OrderRequests,
    pub tokens: &'a [String],
    pub admin: Option<&'a str>,
    pub products: &'a [String],
    /// Units of each product at the start.
    pub on_hand: &'a [u64],
    pub quantity: u64,
    /// What one customer may have of a product.
    pub limit: Option<u64>,
    /// Enough buyers came to buy everything.
    pub demand_covers_stock: bool,
    /// At most so many orders are read back.
    pub read_back: usize,
    /// What the provider itself says of a crowd that pays, where it can be looked at.
    pub provider_book: Option<&'a Path>,
}

/// What a product's stock endpoint says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stock {
    pub available: i64,
    pub held: i64,
    pub sold: i64,
    pub sequence: u64,
}

pub async fn judge(evidence: &Evidence<'_>) -> Result<Vec<Verdict>> {
    let stocks = evidence.settled_stocks().await?;
    let books = evidence.books(&stocks).await?;
    let mut verdicts = vec![
        evidence.oversell(&stocks, &books),
        evidence.undersell(&stocks, &books),
        evidence.duplicates(&books).await?,
        evidence.order_of_arrival(),
        evidence.read_back().await?,
        evidence.everyone_answered(),
    ];
    verdicts.extend(evidence.limit.map(|limit| evidence.limit(limit, &books)));
    if evidence.requests.pays() {
        verdicts.push(evidence.sold_and_paid(&stocks, &books));
        verdicts.extend(evidence.settled_money().await);
    }
    Ok(verdicts)
}

impl Evidence<'_> {
    /// The stock of every product once it shows the last order that somebody was told of, and the end of every payment: the
    /// endpoint may be one flush old.
    async fn settled_stocks(&self) -> Result<Vec<Stock>> {
        let mut last = vec![0; self.products.len()];
        for order in self.history.orders() {
            let last = &mut last[order.product as usize];
            *last = order.sequence.max(*last);
        }
        let wanted: Vec<(&String, u64)> = self.products.iter().zip(last).collect();
        let deadline = Instant::now() + SETTLE_TIMEOUT;
        each(self.target, CONNECTIONS, &wanted, async |client, (product, sequence)| {
            loop {
                let stock = stock(client, product).await?;
                let is_quiet = stock.held == 0 || !self.requests.pays();
                if (stock.sequence >= *sequence && is_quiet) || Instant::now() > deadline {
                    return Ok(stock);
                }
                sleep(Duration::from_millis(50)).await;
            }
        })
        .await
    }

    /// The ledger of each product, as far as they may be read and are not too long.
    async fn books(&self, stocks: &[Stock]) -> Result<Vec<Option<Book>>> {
        let chosen = match self.admin {
            Some(_) => self.ledgers_to_read(stocks),
            None => vec![false; self.products.len()],
        };
        let items: Vec<(&String, bool)> = self.products.iter().zip(chosen).collect();
        each(self.target, LEDGERS_AT_ONCE, &items, async |client, (product, is_chosen)| match self.admin {
            Some(admin) if *is_chosen => Book::read(client, product, admin).await.map(Some),
            _ => Ok(None),
        })
        .await
    }

    /// Those of the products at which somebody was refused, all or none of them, and then of the others while there is room.
    fn ledgers_to_read(&self, stocks: &[Stock]) -> Vec<bool> {
        let mut chosen = vec![false; self.products.len()];
        self.history.refused.iter().for_each(|refused| chosen[refused.product as usize] = true);
        let refused = || stocks.iter().zip(&chosen).filter(|(_, is_refused)| **is_refused);
        if refused().map(|(stock, _)| stock.sequence).sum::<u64>() > REPLAY_LIMIT {
            return vec![false; self.products.len()];
        }
        let mut room = REPLAY_LIMIT_UNREFUSED;
        for (chosen, stock) in chosen.iter_mut().zip(stocks).filter(|(chosen, _)| !**chosen) {
            let Some(left) = room.checked_sub(stock.sequence) else { continue };
            (*chosen, room) = (true, left);
        }
        chosen
    }

    /// What the provider's book shows once whatever is still to be undone has been.
    async fn settled_money(&self) -> Vec<Verdict> {
        let Some(path) = self.provider_book else {
            return vec![Verdict::skip("money", "the provider's book is read where the shop is one's own")];
        };
        let deadline = Instant::now() + SETTLE_TIMEOUT;
        loop {
            let verdicts = match Statement::read(path) {
                Ok(statement) => money::judge(&statement, self.history),
                Err(error) => vec![Verdict::fail("money", format!("{error:#}"))],
            };
            let failed = verdicts.iter().any(|verdict| verdict.ruling == Ruling::Fail);
            if !failed || Instant::now() > deadline {
                return verdicts;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    fn order_of_arrival(&self) -> Verdict {
        match first_inversion(self.history) {
            None => Verdict::pass("order of arrival", "no answer was overtaken by a later question"),
            Some(inversion) => Verdict::fail(
                "order of arrival",
                format!("{}: {inversion}", self.products[inversion.product as usize]),
            ),
        }
    }

    fn everyone_answered(&self) -> Verdict {
        let mut complaints = Vec::new();
        if !self.history.unresolved.is_empty() {
            complaints.push(format!("{} buyers never had a certain answer", self.history.unresolved.len()));
        }
        if let Some(oddity) = &self.history.oddity {
            complaints.push(format!("an answer nobody expects: {oddity}"));
        }
        Verdict::of("everyone answered", complaints, "no buyer was left without a certain answer".to_owned())
    }
}

pub async fn stock(client: &mut Client, product: &str) -> Result<Stock> {
    let json = client.get_json(&format!("/v1/products/{product}/stock"), None).await?;
    let number = |name: &str| json.get(name).and_then(Value::as_i64).unwrap_or_default();
    Ok(Stock {
        available: number("available"),
        held: number("held"),
        sold: number("sold"),
        sequence: number("sequence") as u64,
    })
}
