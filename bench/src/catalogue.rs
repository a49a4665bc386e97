//! The catalogue: a hot product page and a list against the HTTP ceiling, in interleaved rounds; and a listing of very many
//! products, page by page, while others are added.

use std::collections::HashSet;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::json;
use tokio::time::{Duration, Instant, sleep};

use crate::client::Client;
use crate::command::Binary;
use crate::drive::grouped;
use crate::hammer::{Blows, Hammer};
use crate::judge::Ruling;
use crate::rounds::{median, one_decimal, print_bound};
use crate::shop::{Goods, Shop};
use crate::stage::{Stage, list_products};
use crate::wire::{Key, OrderRequests};

/// Share of the reference that a hot product page must reach.
const PAGE_SHARE: f64 = 0.80;
/// A page of the last tenth of a listing may cost so many times what one of the first does, and the other way round.
const TENTHS_MAX: f64 = 2.0;
/// Buyers of the reference's orders.
const USERS: usize = 256;
/// Products of the shop whose pages are measured.
const GOODS: usize = 1_000;
/// The most rows that a page has.
const ROWS: usize = 100;

#[derive(Args)]
pub struct Catalogue {
    #[command(flatten)]
    binary: Binary,
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of each leg
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    #[arg(long, default_value_t = 256)]
    connections: usize,
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Products that are listed page by page; 0 leaves it out
    #[arg(long, default_value_t = 100_000)]
    products: usize,
    /// Products added a second meanwhile
    #[arg(long, default_value_t = 20.0)]
    added: f64,
}

struct Round {
    reference: Blows,
    page: Blows,
    list: Blows,
}

/// One way through all products.
struct Listing {
    ids: Vec<String>,
    /// Those that were there before.
    seeded: usize,
    /// What each page took.
    took_us: Vec<f64>,
    added: usize,
}

impl Catalogue {
    pub async fn perform(self) -> Result<Ruling> {
        let binary = self.binary.find()?;
        let mut rounds = Vec::new();
        if self.rounds > 0 {
            let mut shop = seeded(&binary, GOODS)?;
            shop.start().await?;
            for round in 1..=self.rounds {
                eprintln!("round {round} of {}", self.rounds);
                rounds.push(self.round(&shop).await?);
            }
            shop.stop().await?;
        }
        print_table(&rounds);
        let share = |of: fn(&Round) -> Blows| {
            median(rounds.iter().map(|round| of(round).per_s / round.reference.per_s).collect())
        };
        println!();
        let mut ruling = match rounds.is_empty() {
            true => Ruling::Pass,
            false => print_bound("hot product page, × ceiling", share(|round| round.page), PAGE_SHARE, true),
        };
        if let Some(share) = share(|round| round.list) {
            println!("      a list of 20 reaches {share:.2}");
        }
        if self.products > 0 {
            ruling = ruling.and(self.list_all(&binary).await?);
        }
        Ok(ruling)
    }

    async fn round(&self, shop: &Shop) -> Result<Round> {
        let stage = Stage::reference(USERS).await?;
        let host = stage.target.to_string();
        let orders = OrderRequests::new(&host, &stage.tokens, &stage.products, 1, None, rand::random());
        let requests = (0..USERS as u64).map(|attempt| {
            let mut request = Vec::new();
            orders.write(Key { attempt, round: 0 }, 0, &mut request);
            request
        });
        let reference =
            self.hammer(stage.target, requests.collect(), 201).strike(stage.pids().first().copied()).await?;
        drop(stage);
        let target = shop.target();
        let hot = list_products(target, 1).await?.pop().context("the shop is empty")?;
        let page = vec![get(target, &format!("/v1/products/{hot}"))];
        let page = self.hammer(target, page, 200).strike(shop.pid()).await?;
        let list = vec![get(target, "/v1/products")];
        let list = self.hammer(target, list, 200).strike(shop.pid()).await?;
        Ok(Round { reference, page, list })
    }

    fn hammer(&self, target: SocketAddr, requests: Vec<Vec<u8>>, status: u16) -> Hammer {
        Hammer {
            target,
            requests,
            status,
            connections: self.connections,
            threads: self.threads.max(1),
            warm_up: Duration::from_secs_f64((self.seconds / 10.0).min(1.0)),
            measured: Duration::from_secs_f64(self.seconds),
        }
    }

    async fn list_all(&self, binary: &std::path::Path) -> Result<Ruling> {
        eprintln!("{} products are made", grouped(self.products as u64));
        let mut shop = seeded(binary, self.products)?;
        let admin = shop.admin_token()?;
        shop.start().await?;
        let mut ruling = Ruling::Pass;
        for (name, path) in [
            ("newest first", "/v1/products?"),
            ("by name", "/v1/products?q=seeded&"),
            ("what is left", "/v1/products?available=true&"),
        ] {
            let listing = self.listing(shop.target(), path, &admin).await?;
            ruling = ruling.and(listing.print(name, self.products));
        }
        shop.stop().await?;
        Ok(ruling)
    }

    async fn listing(&self, target: SocketAddr, path: &str, admin: &str) -> Result<Listing> {
        let walk = async {
            let mut client = Client::new(target);
            let (mut listing, mut cursor) =
                (Listing { ids: vec![], seeded: 0, took_us: vec![], added: 0 }, String::new());
            loop {
                let began = Instant::now();
                let reply = client.get(&format!("{path}limit={ROWS}{cursor}"), None).await?;
                listing.took_us.push(began.elapsed().as_secs_f64() * 1e6);
                let page = reply.json()?;
                for row in page["data"].as_array().context("a page without data")? {
                    listing.seeded +=
                        usize::from(row["sku"].as_str().is_some_and(|sku| sku.starts_with("seed_")));
                    listing.ids.extend(row["id"].as_str().map(str::to_owned));
                }
                match page["next_cursor"].as_str() {
                    Some(next) => cursor = format!("&cursor={next}"),
                    None => return anyhow::Ok(listing),
                }
            }
        };
        let mut added = 0;
        let adding = async {
            let mut client = Client::new(target);
            loop {
                let body = json!({
                    "sku": format!("ADDED-{:x}", rand::random::<u128>()), "name": format!("Seeded in between {added}"),
                    "price": { "amount": 1_000, "currency": "KRW" }, "stock": 1,
                });
                let reply =
                    client.send(&post(target, "/v1/admin/products", admin, &body.to_string())).await?;
                anyhow::ensure!(
                    reply.status == 201,
                    "a product was answered with {}: {}",
                    reply.status,
                    reply.text()
                );
                added += 1;
                sleep(Duration::from_secs_f64(1.0 / self.added.max(0.001))).await;
            }
        };
        let listing: Listing = tokio::select! {
            listing = walk => listing?,
            failed = adding => return failed,
        };
        Ok(Listing { added, ..listing })
    }
}

impl Listing {
    /// Complete, each once, and no page dearer than the first ones.
    fn print(&self, name: &str, products: usize) -> Ruling {
        let once = self.ids.iter().collect::<HashSet<_>>().len() == self.ids.len();
        let [first, middle, last] = self.tenths();
        let verdicts = [
            (
                "complete",
                Ruling::held(self.seeded == products),
                format!("{} of {}", grouped(self.seeded as u64), grouped(products as u64)),
            ),
            ("no duplicates", Ruling::held(once), format!("{} rows", grouped(self.ids.len() as u64))),
            ("while some are added", Ruling::held(self.added > 0), grouped(self.added as u64)),
            (
                "constant time a page",
                Ruling::reached(middle.max(last) <= first * TENTHS_MAX),
                format!(
                    "{first:.0} → {middle:.0} → {last:.0} µs (medians of the first, middle and last tenth), at most {TENTHS_MAX} times the first"
                ),
            ),
        ];
        for (what, ruling, detail) in &verdicts {
            println!("{}  listing {name}, {what}: {detail}", ruling.word());
        }
        verdicts.iter().fold(Ruling::Pass, |worst, (_, ruling, _)| worst.and(*ruling))
    }

    /// What a page takes in the first, the middle and the last tenth.
    fn tenths(&self) -> [f64; 3] {
        let pages = self.took_us.len();
        let tenth = (pages / 10).max(1).min(pages);
        [0, (pages - tenth) / 2, pages - tenth]
            .map(|from| median(self.took_us[from..from + tenth].to_vec()).unwrap_or_default())
    }
}

fn seeded(binary: &std::path::Path, products: usize) -> Result<Shop> {
    let goods = Goods { users: 1, products, stock: 1_000, hold_seconds: None, per_customer_limit: None };
    Shop::seeded(binary, &goods)
}

fn get(target: SocketAddr, path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {target}\r\n\r\n").into_bytes()
}

fn post(target: SocketAddr, path: &str, token: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nHost: {target}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn print_table(rounds: &[Round]) {
    println!("\n{:<11} {:>10} {:>10} {:>12}", "", "answers/s", "× ceiling", "CPU µs each");
    for round in rounds {
        for (name, blows) in [("reference", round.reference), ("page", round.page), ("list", round.list)] {
            println!(
                "{name:<11} {:>10} {:>10.3} {:>12}",
                grouped(blows.per_s as u64),
                blows.per_s / round.reference.per_s,
                one_decimal(blows.cpu_us_each)
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(took_us: Vec<f64>) -> Listing {
        Listing { ids: vec!["a".into(), "b".into()], seeded: 2, took_us, added: 1 }
    }

    #[test]
    fn a_listing_that_grows_slower_or_twice_as_long_is_told_from_a_good_one() {
        assert_eq!(listing(vec![100.0; 50]).print("x", 2), Ruling::Pass);
        let slower = |page| 100.0 + f64::from(page) * 10.0;
        assert_eq!(listing((0..50).map(slower).collect()).print("x", 2), Ruling::Miss);
        assert_eq!(listing((0..50).rev().map(slower).collect()).print("x", 2), Ruling::Pass);
        assert_eq!(listing(vec![100.0; 50]).print("x", 3), Ruling::Fail);
        let twice = Listing { ids: vec!["a".into(), "a".into()], ..listing(vec![1.0]) };
        assert_eq!(twice.print("x", 2), Ruling::Fail);
        assert_eq!(Listing { added: 0, ..listing(vec![1.0]) }.print("x", 2), Ruling::Fail);
    }
}
