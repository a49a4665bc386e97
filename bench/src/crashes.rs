//! Kill after kill. Each round starts the shop, lets a crowd order with idempotency keys, ends the server with SIGKILL at a
//! random moment (and, if asked to, takes away whatever it had not synced), starts it again, and then asks for
//! everything that was ever acknowledged: by id, and by key. One in three pays in the same call. Always true of a round that passes:
//! every acknowledged order reads as it was answered, every key still means the same order, nothing was sold that is not there, who
//! paid was charged once and nobody else was, and the shop's own audit agrees. Only what was acknowledged before a kill can be lost by
//! it, so no kill of a crowd falls before somebody has paid since the start; where nobody does in time, and where a run acknowledged too
//! little by then, it proves nothing and fails. Where what was not synced is lost the files of the log are so small that they are used
//! again before a kill, and a longer run in which none was proves nothing either.

mod money;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::{Duration, Instant, sleep, timeout};

use crate::chance::Dice;
use crate::client::{Client, Reply, each};
use crate::command::Binary;
use crate::drive::grouped;
use crate::judge::{PROVIDER_BOOK, Ruling, Statement, stock};
use crate::shim::PageCache;
use crate::shop::{Goods, Shop};
use crate::stage::list_products;

const USERS: usize = 256;
const PRODUCTS: usize = 4;
const CONNECTIONS: usize = 64;
/// A store is used for so many rounds, so that recovery also meets old journals.
const ROUNDS_A_STORE: u64 = 10;
/// The moments of the kill, in microseconds of load.
const KILL_US: (u64, u64) = (2_000, 400_000);
/// A kill waits so long for the first who has paid.
const FIRST_TIMEOUT: Duration = Duration::from_secs(10);
/// Of a hundred orders that were sent, all rounds together, so many must have been acknowledged before their kill. With each kill as many
/// are open as there are connections.
const ACKNOWLEDGED_PERCENT: u64 = 70;
/// The size of a file of the log where what was not synced is lost: fifteen groups, or fewer.
const FILE_BYTES: u64 = 64 * 1024;
/// What the server logs of a file that is used again, and what has to be logged for it.
const USED_AGAIN: &str = "a file of the log is used again";
const LOGGED: &str = "info,actix_server=warn,stockade::persistence::journal::log=debug";
/// From so many kills on one file at least has been used again before its kill.
const KILLS_THAT_REUSE: u64 = 10;
/// A placing that was cut in the middle gives its units back within 5 s.
const QUIET_TIMEOUT: Duration = Duration::from_secs(12);
/// A payment whose outcome nobody knew is asked about within a second of the start.
const CERTAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// What one in three pays with: now and then the bank says no, and now and then its yes is lost.
const CARDS: [&str; 8] =
    ["tok_ok", "tok_ok", "tok_ok", "tok_ok", "tok_ok", "tok_declined", "tok_declined", "tok_timeout_then_ok"];

#[derive(Args)]
pub struct Crashes {
    #[command(flatten)]
    binary: Binary,
    #[arg(long, default_value_t = 25)]
    kills: u64,
    /// Lose, with every kill, what the server had not synced: a power cut
    #[arg(long)]
    lose_page_cache: bool,
    /// Ignore the server's syncs (or those of FILE, as `money.db`), as if it had forgotten them: the loss must be noticed, and then
    /// this succeeds
    #[arg(long, requires = "lose_page_cache", value_name = "FILE")]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "")]
    without_sync: Option<String>,
    /// Throws the dice of an earlier run again
    #[arg(long)]
    seed: Option<u64>,
    /// Units of each product
    #[arg(long, default_value_t = 1_000_000)]
    stock: u64,
}

/// A wish with its key, and what became of it.
#[derive(Clone)]
struct Wish {
    user: usize,
    key: String,
    /// The request's body.
    body: String,
    /// The order as it was acknowledged, with its payment through or declined if it has one; nothing while nobody knows.
    order: Option<Value>,
}

/// Orders before their kills, and what was used again by then.
#[derive(Clone, Copy, Debug, Default)]
struct Before {
    sent: u64,
    acknowledged: u64,
    /// Of those who were acknowledged.
    paid: u64,
    /// Files of the log.
    reused: u64,
}

impl Before {
    fn of(wishes: &[Wish]) -> Self {
        let orders = || wishes.iter().filter_map(|wish| wish.order.as_ref());
        let paid = orders().filter(|order| money::is_paid(order)).count();
        let (sent, acknowledged) = (wishes.len() as u64, orders().count() as u64);
        Self { sent, acknowledged, paid: paid as u64, reused: 0 }
    }

    fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.acknowledged += other.acknowledged;
        self.paid += other.paid;
        self.reused += other.reused;
    }

    /// Whether a kill could lose anything: an order, and money.
    fn is_at_stake(self) -> bool {
        self.paid > 0
    }

    /// Whether what is lost was lost also of files that had held something before; a short run may have none.
    fn is_of_reused(self, loses_page_cache: bool, kills: u64) -> bool {
        !loses_page_cache || kills < KILLS_THAT_REUSE || self.reused > 0
    }

    fn proves_something(self) -> bool {
        self.is_at_stake() && self.acknowledged * 100 >= self.sent * ACKNOWLEDGED_PERCENT
    }
}

struct Store {
    shop: Shop,
    cache: Option<PageCache>,
    tokens: Vec<String>,
    products: Vec<String>,
    wishes: Vec<Wish>,
}

/// Something acknowledged is not so. Anything else that goes wrong is an error of the harness or of the server.
#[derive(Debug)]
struct Lost(String);

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Lost {}

impl Crashes {
    pub async fn perform(self) -> Result<Ruling> {
        let seed = self.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
        println!("crashes: {} kills, seed {seed}", self.kills);
        let outcome = self.rounds(seed).await;
        match (outcome, self.without_sync.is_some()) {
            (Ok((orders, before)), false) => {
                let mut told = format!(
                    "{} kills, {} of {} orders acknowledged before them and {} of those paid, {} in the end",
                    self.kills,
                    grouped(before.acknowledged),
                    grouped(before.sent),
                    grouped(before.paid),
                    grouped(orders)
                );
                if self.lose_page_cache {
                    told += &format!(", {} files of the log used again", grouped(before.reused));
                }
                let enough = before.proves_something();
                let reuses = before.is_of_reused(self.lose_page_cache, self.kills);
                match (enough, reuses) {
                    (true, true) => println!("PASS  {told}, none lost"),
                    (false, _) => println!("FAIL  {told}: less than {ACKNOWLEDGED_PERCENT} % proves nothing"),
                    (true, false) => println!("FAIL  {told}: nothing is known of files that are"),
                }
                Ok(Ruling::held(enough && reuses))
            }
            (Ok(_), true) => {
                println!("FAIL  syncs were ignored, and nobody noticed");
                Ok(Ruling::Fail)
            }
            (Err(error), true) if error.is::<Lost>() => {
                println!("PASS  syncs were ignored, and it was noticed: {error:#}");
                Ok(Ruling::Pass)
            }
            (Err(error), _) => {
                println!("FAIL  {error:#}");
                println!(
                    "      repeat with: stockade-bench crashes --kills {} --seed {seed}{}",
                    self.kills,
                    self.flags()
                );
                Ok(Ruling::Fail)
            }
        }
    }

    fn flags(&self) -> String {
        let cache = if self.lose_page_cache { " --lose-page-cache" } else { "" };
        match self.without_sync.as_deref() {
            None => cache.to_owned(),
            Some("") => format!("{cache} --without-sync"),
            Some(file) => format!("{cache} --without-sync={file}"),
        }
    }

    /// All rounds; how many orders were acknowledged in the end, and how many before the kills.
    async fn rounds(&self, seed: u64) -> Result<(u64, Before)> {
        let binary = self.binary.find()?;
        let mut dice = Dice::new(seed);
        let (mut done, mut acknowledged, mut before) = (0, 0, Before::default());
        while done < self.kills {
            let mut store = self.open_store(&binary).await?;
            let rounds = ROUNDS_A_STORE.min(self.kills - done);
            for round in 1..=rounds {
                let load_us = dice.between(KILL_US.0, KILL_US.1);
                let result = store.round(&mut dice, load_us, done + round, round == rounds).await;
                if result.is_err() && self.without_sync.is_none() {
                    println!("      the store is kept in {}", store.shop.keep().display());
                }
                let in_time = result.with_context(|| format!("kill {}", done + round))?;
                before.add(in_time);
                println!(
                    "kill {:>4} after {:>3} ms of load: {} of {} wishes acknowledged, {} paid; {} orders stand, {} are paid",
                    done + round,
                    load_us / 1000,
                    in_time.acknowledged,
                    in_time.sent,
                    in_time.paid,
                    grouped(store.orders().count() as u64),
                    grouped(store.orders().filter(|order| money::is_paid(order)).count() as u64)
                );
            }
            done += rounds;
            acknowledged += store.orders().count() as u64;
        }
        Ok((acknowledged, before))
    }

    async fn open_store(&self, binary: &Path) -> Result<Store> {
        let goods = Goods {
            users: USERS,
            products: PRODUCTS,
            stock: self.stock,
            hold_seconds: None,
            per_customer_limit: None,
        };
        let mut shop = Shop::seeded(binary, &goods)?;
        let tokens = shop.tokens(USERS)?;
        let mut cache = None;
        if self.lose_page_cache {
            let built = PageCache::build(shop.folder(), &shop.data_dir(), self.without_sync.as_deref())?;
            built.everything_is_synced()?;
            shop.server_environment = built.environment();
            shop.server_environment.extend([
                ("STOCKADE_JOURNAL_FILE_BYTES".to_owned(), FILE_BYTES.to_string()),
                ("RUST_LOG".to_owned(), LOGGED.to_owned()),
            ]);
            cache = Some(built);
        }
        shop.start().await?;
        let products = list_products(shop.target(), PRODUCTS).await?;
        Ok(Store { shop, cache, tokens, products, wishes: Vec::new() })
    }
}

impl Store {
    /// What was acknowledged before the kill.
    async fn round(&mut self, dice: &mut Dice, load_us: u64, number: u64, is_last: bool) -> Result<Before> {
        if self.shop.pid().is_none() {
            self.shop.start().await?;
        }
        let used_again = self.used_again()?;
        let fresh = self.load_until_killed(dice, load_us, number).await?;
        let before = Before { reused: self.used_again()? - used_again, ..Before::of(&fresh) };
        ensure!(
            before.is_at_stake(),
            "nobody had paid before the kill, which waited {FIRST_TIMEOUT:?} for it: {before:?}"
        );
        let known = self.wishes.len();
        self.wishes.extend(fresh);
        if dice.one_in(5) {
            // A second kill, while the first is still being recovered from.
            self.shop.launch()?;
            sleep(Duration::from_micros(dice.between(500, 80_000))).await;
            self.cut()?;
        }
        self.shop.start().await.map_err(|error| Lost(format!("the server does not come back: {error:#}")))?;
        self.ask_again(known).await?;
        self.read_back().await?;
        self.compare_stock(is_last).await?;
        self.compare_money().await?;
        self.shop.stop().await?;
        self.shop.audit_with_provider().map_err(|error| Lost(format!("{error:#}")))?;
        if let Some(cache) = &self.cache {
            // The audit may tidy up after the server; that is not under test.
            cache.everything_is_synced()?;
        }
        Ok(before)
    }

    fn cut(&mut self) -> Result<()> {
        self.shop.kill()?;
        self.cache.as_ref().map_or(Ok(()), PageCache::lose_unsynced)
    }

    /// How often its servers have said that they use a file of the log again.
    fn used_again(&self) -> Result<u64> {
        let log = std::fs::read(self.shop.folder().join("server.log"))?;
        Ok(String::from_utf8_lossy(&log).matches(USED_AGAIN).count() as u64)
    }

    fn orders(&self) -> impl Iterator<Item = &Value> {
        self.wishes.iter().filter_map(|wish| wish.order.as_ref())
    }

    /// Orders from many connections until the server is killed, which happens when somebody has paid; every wish that was sent.
    async fn load_until_killed(&mut self, dice: &mut Dice, load_us: u64, round: u64) -> Result<Vec<Wish>> {
        let target = self.shop.target();
        let (wishes, next) = (RefCell::new(Vec::new()), Cell::new(0u64));
        let own_dice = RefCell::new(Dice::new(dice.roll()));
        let (stopped, is_first_there) = (Cell::new(false), Notify::new());
        let buyers = join_all((0..CONNECTIONS).map(async |_| {
            let mut client = Client::new(target);
            while !stopped.get() {
                let number = next.replace(next.get() + 1);
                let mut wish = self.wish(&mut own_dice.borrow_mut(), round, number);
                let reply = client.send(self.request(&wish).as_bytes()).await;
                let is_cut = reply.is_err();
                wish.order = reply.ok().and_then(|reply| acknowledged(&reply).ok().flatten());
                if wish.order.as_ref().is_some_and(money::is_paid) {
                    is_first_there.notify_one();
                }
                wishes.borrow_mut().push(wish);
                if is_cut {
                    break;
                }
            }
        }));
        let killer = async {
            sleep(Duration::from_micros(load_us)).await;
            // If nobody comes the kill falls all the same, and the round is none.
            let _ = timeout(FIRST_TIMEOUT, is_first_there.notified()).await;
            // From here on every open request is cut, and the buyers notice by themselves.
            stopped.set(true);
            self.shop.send_kill()
        };
        tokio::join!(buyers, killer).1?;
        self.cut()?;
        Ok(wishes.into_inner())
    }

    /// Mostly one product; now and then two, all or nothing. One in three is paid at once.
    fn wish(&self, dice: &mut Dice, round: u64, number: u64) -> Wish {
        let first = dice.between(0, PRODUCTS as u64) as usize;
        let mut items = vec![json!({"product_id": self.products[first], "quantity": dice.between(1, 4)})];
        if dice.one_in(5) {
            let second = (first + dice.between(1, PRODUCTS as u64) as usize) % PRODUCTS;
            items.push(json!({"product_id": self.products[second], "quantity": dice.between(1, 4)}));
        }
        let mut body = json!({ "items": items });
        if dice.one_in(3) {
            let card = CARDS[dice.between(0, CARDS.len() as u64) as usize];
            body["payment"] = json!({ "method": { "type": "card", "token": card } });
        }
        Wish {
            user: dice.between(0, USERS as u64) as usize,
            key: format!("crash-{round}-{number}"),
            body: body.to_string(),
            order: None,
        }
    }

    fn request(&self, wish: &Wish) -> String {
        format!(
            "POST /v1/orders HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nAuthorization: Bearer {}\r\n\
             Idempotency-Key: {}\r\nContent-Length: {}\r\n\r\n{}",
            self.shop.target(),
            self.tokens[wish.user],
            wish.key,
            wish.body.len(),
            wish.body
        )
    }

    /// Sends the keys of this round once more. Who was acknowledged must hear of the same order; the others hear at last.
    async fn ask_again(&mut self, from: usize) -> Result<()> {
        let target = self.shop.target();
        let this = &*self;
        let answers = each(target, CONNECTIONS, &self.wishes[from..], async |client, wish| {
            let deadline = Instant::now() + CERTAIN_TIMEOUT;
            loop {
                let reply = client.send(this.request(wish).as_bytes()).await?;
                if let Some(order) = acknowledged(&reply)? {
                    return Ok(Some(order));
                }
                let heard = || format!("key {} heard {} {}", wish.key, reply.status, reply.text());
                match reply.status {
                    202 | 429 | 503 if Instant::now() > deadline => bail!("{}, and nothing else", heard()),
                    202 | 429 | 503 => sleep(Duration::from_millis(20)).await,
                    409 if wish.order.is_none() => return Ok(None),
                    _ => bail!(Lost(heard())),
                }
            }
        })
        .await?;
        for (wish, answer) in self.wishes[from..].iter_mut().zip(answers) {
            match (&wish.order, answer) {
                (Some(order), Some(again)) if order["id"] != again["id"] => {
                    bail!(Lost(format!(
                        "key {} meant order {} and now means {}",
                        wish.key, order["id"], again["id"]
                    )));
                }
                (Some(_), _) => {}
                (None, answer) => wish.order = answer,
            }
        }
        let mut owners: HashMap<&str, &str> = HashMap::new();
        for wish in &self.wishes {
            let Some(id) = wish.order.as_ref().and_then(|order| order["id"].as_str()) else { continue };
            if let Some(other) = owners.insert(id, &wish.key) {
                bail!(Lost(format!("order {id} was given to the keys {other} and {}", wish.key)));
            }
        }
        Ok(())
    }

    /// Everything this store ever acknowledged, by id.
    async fn read_back(&self) -> Result<()> {
        let acknowledged: Vec<&Wish> = self.wishes.iter().filter(|wish| wish.order.is_some()).collect();
        each(self.shop.target(), CONNECTIONS, &acknowledged, async |client, wish| {
            let order = wish.order.as_ref().context("acknowledged")?;
            let id = order["id"].as_str().context("an order without id")?;
            let reply = client.get(&format!("/v1/orders/{id}"), Some(&self.tokens[wish.user])).await?;
            if reply.status != 200 {
                bail!(Lost(format!("order {id} (key {}) reads {} {}", wish.key, reply.status, reply.text())));
            }
            let now = reply.json()?;
            if lasting(order) != lasting(&now) {
                bail!(Lost(format!("order {id} was acknowledged as {order} and reads {now}")));
            }
            Ok(())
        })
        .await?;
        Ok(())
    }

    /// Nothing is taken but what buyers know of. In between, a placing that was cut may still hold its first lines.
    async fn compare_stock(&self, must_be_quiet: bool) -> Result<()> {
        let mut promised: HashMap<&str, i64> = HashMap::new();
        let standing = self.orders().filter(|order| !money::is_declined(order));
        for line in standing.filter_map(|order| order["lines"].as_array()).flatten() {
            if let (Some(product), Some(quantity)) = (line["product_id"].as_str(), line["quantity"].as_i64())
            {
                *promised.entry(product).or_default() += quantity;
            }
        }
        let mut client = Client::new(self.shop.target());
        let deadline = Instant::now() + QUIET_TIMEOUT;
        for product in &self.products {
            let promised = promised.get(product.as_str()).copied().unwrap_or(0);
            loop {
                let stock = stock(&mut client, product).await?;
                let taken = stock.held + stock.sold;
                if stock.available < 0 {
                    bail!(Lost(format!("{product} is oversold: {stock:?}")));
                }
                if taken == promised || (taken > promised && !must_be_quiet) {
                    break;
                }
                if Instant::now() > deadline {
                    bail!(Lost(format!(
                        "{product}: {promised} units are promised, {taken} are taken: {stock:?}"
                    )));
                }
                sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    /// The provider's book says what buyers know, once whatever is to be undone has been.
    async fn compare_money(&self) -> Result<()> {
        let path = self.shop.data_dir().join(PROVIDER_BOOK);
        let deadline = Instant::now() + QUIET_TIMEOUT;
        loop {
            match money::first_error(&Statement::read(&path)?, self.orders()) {
                None => return Ok(()),
                Some(error) if Instant::now() > deadline => bail!(Lost(error)),
                Some(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

/// The order that an answer says is there; one that was to be paid, only when that is through or declined.
fn acknowledged(reply: &Reply) -> Result<Option<Value>> {
    match reply.status {
        201 => Ok(Some(reply.json()?)),
        402 => Ok(Some(reply.json()?["order"].take())),
        // Whoever has heard that it is on its way hears that again, with the order as it is by then.
        202 => Ok(Some(reply.json()?).filter(|order| order["status"] != "pending_payment")),
        _ => Ok(None),
    }
}

/// The part of an order that nothing may change behind its buyer's back. Once its payment has ended, that includes how.
fn lasting(order: &Value) -> Value {
    let line = |line: &Value| {
        json!([
            line["line"],
            line["product_id"],
            line["quantity"],
            line["unit_price"],
            line["receipt"]["sequence"]
        ])
    };
    let lines: Vec<Value> = order["lines"].as_array().into_iter().flatten().map(line).collect();
    let end = if order["payment"].is_null() { &order["hold_expires_at"] } else { &order["status"] };
    json!([order["id"], order["total"], order["created_at"], end, lines])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_acknowledged_by_nobody_cannot_be_lost() {
        let before = |sent, acknowledged: u64| {
            let paid = acknowledged.min(1);
            Before { sent, acknowledged, paid, reused: 0 }
        };
        assert!(before(1_000, 700).proves_something());
        assert!(!before(1_000, 699).proves_something());
        assert!(!before(0, 0).proves_something());
    }

    #[test]
    fn files_that_nobody_has_used_again_cannot_be_lost() {
        let with = |reused| Before { reused, ..Before::default() };
        assert!(with(1).is_of_reused(true, KILLS_THAT_REUSE));
        assert!(!with(0).is_of_reused(true, KILLS_THAT_REUSE));
        assert!(with(0).is_of_reused(false, KILLS_THAT_REUSE), "nothing of theirs is lost");
        assert!(with(0).is_of_reused(true, KILLS_THAT_REUSE - 1), "a short run may have none");
    }

    #[test]
    fn money_that_nobody_has_paid_cannot_be_lost() {
        let wish = |status: Option<&str>| Wish {
            user: 0,
            key: String::new(),
            body: String::new(),
            order: status.map(|status| json!({ "status": status })),
        };
        let wishes = [None, Some("pending_payment"), Some("payment_failed"), Some("paid")].map(wish);
        let of = |wishes: &[Wish]| {
            let Before { sent, acknowledged, paid, .. } = Before::of(wishes);
            (sent, acknowledged, paid)
        };
        assert_eq!(of(&wishes), (4, 3, 1));
        assert!(Before::of(&wishes).is_at_stake());
        assert!(!Before::of(&wishes[..3]).is_at_stake());
        assert!(!Before { paid: 0, ..Before::of(&wishes) }.proves_something());
    }
}
