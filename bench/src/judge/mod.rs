//! The judges: after a run, what every buyer was told is held against what the shop now says of itself. A verdict is PASS,
//! FAIL with the first piece of evidence, or SKIP with the reason why it could not be given.

mod arrival;
mod book;

use std::collections::HashSet;
use std::net::SocketAddr;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::{Duration, Instant, sleep};

pub use arrival::first_inversion;
use book::Book;

use crate::answer::{OrderId, sequence};
use crate::client::{Client, each};
use crate::engine::{Acknowledged, History};
use crate::wire::OrderRequests;

const CONNECTIONS: usize = 32;
/// Keys that are tried once more, beside all whose first try had no certain answer.
const RETRIED_KEYS: usize = 1_000;
/// Ledgers longer than this, all products together, are not replayed.
const REPLAY_LIMIT: u64 = 2_000_000;
const SETTLE_TIMEOUT: Duration = Duration::from_secs(15);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Ruling {
    Pass,
    Fail,
    Skip,
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
    /// Enough buyers came to buy everything.
    pub demand_covers_stock: bool,
    /// At most so many acknowledged orders are read back.
    pub read_back: usize,
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
    Ok(vec![
        evidence.oversell(&stocks, books.as_deref()),
        evidence.undersell(&stocks, books.as_deref()),
        evidence.duplicates(books.as_deref()).await?,
        evidence.order_of_arrival(),
        evidence.read_back().await?,
        evidence.everyone_answered(),
    ])
}

impl Evidence<'_> {
    /// The stock of every product once it shows the last acknowledged order: the endpoint may be one flush old.
    async fn settled_stocks(&self) -> Result<Vec<Stock>> {
        let mut last = vec![0; self.products.len()];
        for order in &self.history.acknowledged {
            let last = &mut last[order.product as usize];
            *last = order.sequence.max(*last);
        }
        let wanted: Vec<(&String, u64)> = self.products.iter().zip(last).collect();
        let deadline = Instant::now() + SETTLE_TIMEOUT;
        each(self.target, CONNECTIONS, &wanted, async |client, (product, sequence)| {
            loop {
                let stock = stock(client, product).await?;
                if stock.sequence >= *sequence || Instant::now() > deadline {
                    return Ok(stock);
                }
                sleep(Duration::from_millis(50)).await;
            }
        })
        .await
    }

    /// The ledgers of the products that anything interesting happened to, or nothing if they may not or cannot be read.
    async fn books(&self, stocks: &[Stock]) -> Result<Option<Vec<Option<Book>>>> {
        let Some(admin) = self.admin else { return Ok(None) };
        let mut wanted = vec![false; self.products.len()];
        self.history.refused.iter().for_each(|refused| wanted[refused.product as usize] = true);
        let length: u64 =
            stocks.iter().zip(&wanted).filter(|(_, wanted)| **wanted).map(|(stock, _)| stock.sequence).sum();
        if length > REPLAY_LIMIT {
            return Ok(None);
        }
        let items: Vec<(&String, bool)> = self.products.iter().zip(wanted).collect();
        let read = each(self.target, CONNECTIONS, &items, async |client, (product, wanted)| {
            Ok(if *wanted { Some(Book::read(client, product, admin).await?) } else { None })
        });
        Ok(Some(read.await?))
    }

    fn oversell(&self, stocks: &[Stock], books: Option<&[Option<Book>]>) -> Verdict {
        let mut complaints = Vec::new();
        let mut promised = vec![0u64; self.products.len()];
        self.history.acknowledged.iter().for_each(|order| promised[order.product as usize] += self.quantity);
        let open = self.history.unresolved.len() as u64 * self.quantity;
        for (place, product) in self.products.iter().enumerate() {
            let (stock, on_hand) = (stocks[place], self.on_hand[place]);
            let book = books.and_then(|books| books[place].as_ref());
            if stock.available < 0 || stock.available + stock.held + stock.sold != on_hand as i64 {
                complaints.push(format!("{product}: {stock:?} does not add up to {on_hand} units"));
            }
            complaints.extend(book.and_then(Book::first_imbalance).map(|what| format!("{product}: {what}")));
            if book.is_some_and(Book::units_came_back) {
                continue;
            }
            let taken = (stock.held + stock.sold) as u64;
            if promised[place] > on_hand {
                complaints
                    .push(format!("{product}: {} units were promised out of {on_hand}", promised[place]));
            } else if taken < promised[place] && book.is_some() {
                complaints
                    .push(format!("{product}: {} units were promised, {taken} are taken", promised[place]));
            } else if taken > promised[place] + open {
                complaints
                    .push(format!("{product}: {taken} units are taken, buyers know of {}", promised[place]));
            }
        }
        let units = self.history.acknowledged.len() as u64 * self.quantity;
        let stock: u64 = self.on_hand.iter().sum();
        Verdict::of(
            "oversell",
            complaints,
            format!("{units} units promised, {stock} in stock; every ledger adds up"),
        )
    }

    fn undersell(&self, stocks: &[Stock], books: Option<&[Option<Book>]>) -> Verdict {
        let sold_out = self.history.refused.iter().filter(|refused| refused.sold_out);
        let Some(books) = books else {
            return match sold_out.count() {
                0 => Verdict::pass("undersell", "nobody was told sold out"),
                _ => Verdict::skip(
                    "undersell",
                    "the ledger cannot be read: no admin token, or too long to replay",
                ),
            };
        };
        let mut complaints = Vec::new();
        let mut judged = 0;
        for refused in sold_out {
            let Some(book) = &books[refused.product as usize] else { continue };
            let product = &self.products[refused.product as usize];
            judged += 1;
            match book.available_at(refused.sequence) {
                Some(available) if available >= self.quantity as i64 => complaints.push(format!(
                    "{product}: sold out at sequence {}, where {available} were available",
                    refused.sequence
                )),
                Some(_) => {}
                None => complaints.push(format!(
                    "{product}: sold out at sequence {}, which the ledger does not have",
                    refused.sequence
                )),
            }
        }
        let lapses = books.iter().flatten().any(Book::units_came_back);
        let unsold: i64 = stocks.iter().map(|stock| stock.available).sum();
        if self.demand_covers_stock && !lapses && self.products.len() == 1 && unsold >= self.quantity as i64 {
            complaints.push(format!("{unsold} units are unsold, although enough buyers came"));
        }
        Verdict::of(
            "undersell",
            complaints,
            format!("refusals at {judged} sequences replayed, {unsold} units unsold at the end"),
        )
    }

    async fn duplicates(&self, books: Option<&[Option<Book>]>) -> Result<Verdict> {
        let orders = &self.history.acknowledged;
        let mut complaints = Vec::new();
        let mut ids = HashSet::with_capacity(orders.len());
        let mut places = HashSet::with_capacity(orders.len());
        for order in orders {
            if !ids.insert(order.order) {
                complaints.push(format!("{:?} was given to two keys", order.order));
            }
            if !places.insert((order.product, order.sequence)) {
                complaints.push(format!(
                    "sequence {} of {} was given twice",
                    order.sequence, self.products[order.product as usize]
                ));
            }
        }
        let unknown = books.into_iter().flatten().flatten().flat_map(Book::orders).filter(|id| {
            OrderId::of(format!(r#""id":"{id}""#).as_bytes()).is_none_or(|id| !ids.contains(&id))
        });
        let ghosts = unknown.count();
        if ghosts > self.history.unresolved.len() {
            complaints.push(format!("the ledgers hold {ghosts} orders that no key was ever told of"));
        }
        let retried = self.keys_to_retry();
        let answers =
            each(self.target, CONNECTIONS, &retried, async |client, order| self.retry(client, order).await)
                .await?;
        complaints.extend(answers.into_iter().flatten());
        let fine = format!("{} orders, {} keys tried again", orders.len(), retried.len());
        Ok(Verdict::of("duplicate orders", complaints, fine))
    }

    fn keys_to_retry(&self) -> Vec<Acknowledged> {
        let orders = &self.history.acknowledged;
        let step = (orders.len() / RETRIED_KEYS).max(1);
        let uncertain = orders.iter().filter(|order| order.was_uncertain);
        let sample = orders.iter().step_by(step).filter(|order| !order.was_uncertain);
        uncertain.chain(sample).copied().collect()
    }

    /// A winner who lost the answer asks again, and must hear of the same order.
    async fn retry(&self, client: &mut Client, order: &Acknowledged) -> Result<Option<String>> {
        let mut request = Vec::new();
        self.requests.write(order.attempt, order.product, &mut request);
        let reply = client.send(&request).await?;
        let same = reply.status == 201 && OrderId::of(&reply.body) == Some(order.order) && reply.replayed;
        Ok((!same).then(|| {
            let key = self.requests.key_of(order.attempt);
            format!(
                "key {key} made {:?}, and asked again heard {} {}",
                order.order,
                reply.status,
                reply.text()
            )
        }))
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

    async fn read_back(&self) -> Result<Verdict> {
        let orders = &self.history.acknowledged;
        let step = orders.len().div_ceil(self.read_back.max(1)).max(1);
        let chosen: Vec<Acknowledged> = orders.iter().copied().step_by(step).collect();
        let read = each(self.target, CONNECTIONS, &chosen, async |client, order| {
            let token = &self.tokens[self.requests.user_of(order.attempt)];
            let reply = client.get(&format!("/v1/orders/{}", order.order.as_str()), Some(token)).await?;
            let same = OrderId::of(&reply.body) == Some(order.order)
                && sequence(&reply.body) == Some(order.sequence);
            Ok((reply.status != 200 || !same).then(|| {
                format!(
                    "{:?} (sequence {}) reads {} {}",
                    order.order,
                    order.sequence,
                    reply.status,
                    reply.text()
                )
            }))
        });
        let mut complaints: Vec<String> = read.await?.into_iter().flatten().collect();
        if self.history.unreadable > 0 {
            complaints.push(format!(
                "{} answers said yes without an order id and sequence",
                self.history.unreadable
            ));
        }
        let fine = format!("{} of {} acknowledged orders read again", chosen.len(), orders.len());
        Ok(Verdict::of("read back", complaints, fine))
    }

    fn everyone_answered(&self) -> Verdict {
        match self.history.unresolved.len() {
            0 => Verdict::pass("everyone answered", "no buyer was left without a certain answer"),
            left => Verdict::fail("everyone answered", format!("{left} buyers never had a certain answer")),
        }
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
