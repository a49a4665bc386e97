//! Carts that are all checked out at once: many lines each, over few products, of which there is too little. The server is killed in
//! the middle, if asked to, and everybody comes again with the same key until the answer is certain. Always true of a run that
//! passes: nobody waits for ever, at no moment is a part of an order to be seen, what was sold was there, and a cart has lost what
//! was ordered and kept what was not.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use anyhow::{Context, Result, bail};
use clap::Args;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::{Duration, Instant, sleep};

use crate::chance::Dice;
use crate::client::{Client, Reply, each};
use crate::command::Binary;
use crate::drive::grouped;
use crate::judge::{Ruling, Stock, Verdict, stock};
use crate::shop::{Goods, Shop};
use crate::stage::list_products;

const CONNECTIONS: usize = 32;
/// Who asks whether a part of an order can be seen.
const READERS: usize = 16;
/// Nobody waits longer for a certain answer, kills included.
const CERTAIN_WITHIN: Duration = Duration::from_secs(120);
/// A placing that was cut in the middle gives its units back within 5 s.
const QUIET_TIMEOUT: Duration = Duration::from_secs(12);
/// How far the tables may be behind while a thousand order.
const FLUSHED_WITHIN: Duration = Duration::from_secs(5);
/// Between two tries of one buyer.
const PAUSE_MS: (u64, u64) = (20, 120);

#[derive(Args)]
pub struct Carts {
    #[command(flatten)]
    binary: Binary,
    #[arg(long, default_value_t = 1_000)]
    carts: usize,
    #[arg(long, default_value_t = 20)]
    products: usize,
    /// Lines of each cart
    #[arg(long, default_value_t = 10)]
    lines: usize,
    /// Units of each product
    #[arg(long, default_value_t = 200)]
    stock: u64,
    /// Pay in the same call, with this card (tok_random_30 declines three of ten)
    #[arg(long, value_name = "CARD", num_args = 0..=1, require_equals = true, default_missing_value = "tok_random_30")]
    pay: Option<String>,
    /// SIGKILL the server this often while carts are checked out, and start it again
    #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true, default_missing_value = "1")]
    #[arg(default_value_t = 0)]
    kill: u64,
    /// Throws the dice of an earlier run again
    #[arg(long)]
    seed: Option<u64>,
    /// Leave the server's store on disk
    #[arg(long)]
    keep_store: bool,
}

/// Product and quantity, in order of the product.
type Lines = Vec<(String, u64)>;

/// Somebody with a cart.
struct Buyer {
    token: String,
    lines: Lines,
}

/// What somebody was told for certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// 201 or 202.
    Ordered,
    /// 402: there is an order, and it has failed.
    Declined,
    /// Nothing was ordered.
    Refused,
}

struct Scene {
    target: std::net::SocketAddr,
    products: Vec<String>,
    buyers: Vec<Buyer>,
    body: String,
    stock: u64,
    pays: bool,
    answered: Cell<usize>,
    looked: Cell<u64>,
    partial: RefCell<Vec<String>>,
}

impl Carts {
    pub async fn perform(self) -> Result<Ruling> {
        let seed = self.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
        let (carts, units) = (grouped(self.carts as u64), grouped(self.stock * self.products as u64));
        println!(
            "carts: {carts} of {} lines over {} products, {units} units in all, {} kills, seed {seed}",
            self.lines, self.products, self.kill
        );
        let mut dice = Dice::new(seed);
        let (scene, mut shop) = self.scene(&mut dice).await?;
        let began = Instant::now();
        let told = scene.rush(&mut shop, &mut dice, self.kill).await?;
        let took = began.elapsed();
        let mut verdicts = scene.judge(told).await?;
        shop.stop().await?;
        verdicts.push(match shop.audit() {
            Ok(_) => Verdict::pass("audit", "journal and tables, orders and money agree"),
            Err(error) => Verdict::fail("audit", format!("{error:#}")),
        });
        if self.keep_store {
            println!("      the store is kept in {}", shop.keep().display());
        }
        for Verdict { name, ruling, detail } in &verdicts {
            println!("{}  {name}: {detail}", ruling.word());
        }
        let ruling = Ruling::of(&verdicts);
        println!("      {:.1} s for all of them", took.as_secs_f64());
        if ruling > Ruling::Pass {
            println!("      seed {seed}");
        }
        Ok(ruling)
    }

    async fn scene(&self, dice: &mut Dice) -> Result<(Scene, Shop)> {
        if self.lines == 0 || self.lines > self.products.min(50) {
            bail!("a cart has 1 to 50 lines, and at most as many as there are products");
        }
        let goods = Goods {
            users: self.carts,
            products: self.products,
            stock: self.stock,
            hold_seconds: None,
            per_customer_limit: None,
        };
        let mut shop = Shop::seeded(&self.binary.find()?, &goods)?;
        let tokens = shop.tokens(self.carts)?;
        shop.start().await?;
        let target = shop.target();
        let products = list_products(target, self.products).await?;
        let buyers: Vec<Buyer> = tokens
            .into_iter()
            .map(|token| Buyer { token, lines: chosen(dice, &products, self.lines) })
            .collect();
        let body = match &self.pay {
            None => json!({}),
            Some(card) => json!({ "payment": { "method": { "type": "card", "token": card } } }),
        };
        let scene = Scene {
            target,
            products,
            buyers,
            body: body.to_string(),
            stock: self.stock,
            pays: self.pay.is_some(),
            answered: Cell::new(0),
            looked: Cell::new(0),
            partial: RefCell::default(),
        };
        scene.fill().await?;
        Ok((scene, shop))
    }
}

/// Lines of different products, one to three units each.
fn chosen(dice: &mut Dice, products: &[String], lines: usize) -> Lines {
    let mut left: Vec<&String> = products.iter().collect();
    let line = |_| {
        let at = dice.between(0, left.len() as u64) as usize;
        (left.swap_remove(at).clone(), dice.between(1, 4))
    };
    let mut chosen: Lines = (0..lines).map(line).collect();
    chosen.sort();
    chosen
}

fn request(method: &str, path: &str, token: &str, key: Option<&str>, body: &str) -> Vec<u8> {
    let key = key.map(|key| format!("Idempotency-Key: {key}\r\n")).unwrap_or_default();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: stockade\r\nContent-Type: application/json\r\n\
         Authorization: Bearer {token}\r\n{key}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The lines of a cart, or of an order.
fn lines_of(value: &Value) -> Lines {
    let line = |line: &Value| Some((line["product_id"].as_str()?.to_owned(), line["quantity"].as_u64()?));
    let mut lines: Lines = value["lines"].as_array().into_iter().flatten().filter_map(line).collect();
    lines.sort();
    lines
}

async fn orders_of(client: &mut Client, buyer: &Buyer) -> Result<Vec<Value>> {
    let page = client.get_json("/v1/orders?limit=100", Some(&buyer.token)).await?;
    Ok(page["data"].as_array().context("no orders")?.clone())
}

impl Scene {
    async fn fill(&self) -> Result<()> {
        each(self.target, CONNECTIONS, &self.buyers, async |client, buyer| {
            for (product, quantity) in &buyer.lines {
                let path = format!("/v1/cart/items/{product}");
                let body = json!({ "quantity": quantity }).to_string();
                let reply = client.send(&request("PUT", &path, &buyer.token, None, &body)).await?;
                if reply.status != 200 {
                    bail!("a cart could not be filled: {} {}", reply.status, reply.text());
                }
            }
            Ok(())
        })
        .await
        .map(drop)
    }

    /// Everybody at once; what each was told for certain, if anything.
    async fn rush(&self, shop: &mut Shop, dice: &mut Dice, kills: u64) -> Result<Vec<Option<Told>>> {
        let seeds: Vec<u64> = self.buyers.iter().map(|_| dice.roll()).collect();
        let readers_seed = dice.roll();
        let over = Cell::new(false);
        let buyers = async {
            let all = self.buyers.iter().enumerate();
            let told =
                join_all(all.map(async |(number, buyer)| {
                    self.check_out(number, buyer, Dice::new(seeds[number])).await
                }))
                .await;
            over.set(true);
            told
        };
        let readers = join_all((0..READERS).map(async |number| {
            let mut dice = Dice::new(readers_seed.wrapping_add(number as u64));
            let mut client = Client::new(self.target);
            while !over.get() {
                let buyer = &self.buyers[dice.between(0, self.buyers.len() as u64) as usize];
                // While the server is down there is nothing to see.
                if self.look(&mut client, buyer).await.is_err() {
                    sleep(Duration::from_millis(20)).await;
                }
            }
        }));
        let (told, _, killed) = tokio::join!(buyers, readers, self.kill_in_between(shop, kills, &over));
        killed?;
        Ok(told)
    }

    /// Kills when so many have been answered that the rest is still under way.
    async fn kill_in_between(&self, shop: &mut Shop, kills: u64, over: &Cell<bool>) -> Result<()> {
        for number in 1..=kills {
            let share = self.buyers.len() as u64 * number / (kills + 2);
            while (self.answered.get() as u64) < share && !over.get() {
                sleep(Duration::from_millis(1)).await;
            }
            if over.get() {
                bail!("everybody was answered before kill {number}: take more carts");
            }
            shop.kill()?;
            println!("      kill {number} after {} answers", self.answered.get());
            shop.launch()?;
            shop.ready().await?;
        }
        Ok(())
    }

    async fn check_out(&self, number: usize, buyer: &Buyer, mut dice: Dice) -> Option<Told> {
        let key = format!("cart-{number}");
        let request = request("POST", "/v1/cart/checkout", &buyer.token, Some(&key), &self.body);
        let mut client = Client::new(self.target);
        let deadline = Instant::now() + CERTAIN_WITHIN;
        while Instant::now() < deadline {
            if let Ok(reply) = client.send(&request).await
                && let Some(told) = certain(&reply)
            {
                self.answered.set(self.answered.get() + 1);
                return Some(told);
            }
            sleep(Duration::from_millis(dice.between(PAUSE_MS.0, PAUSE_MS.1))).await;
        }
        None
    }

    /// What a buyer sees at any moment: orders are whole, the cart is whole or empty, and what has left it is ordered.
    async fn look(&self, client: &mut Client, buyer: &Buyer) -> Result<()> {
        let token = Some(buyer.token.as_str());
        let cart = lines_of(&client.get_json("/v1/cart", token).await?);
        let mut orders = orders_of(client, buyer).await?;
        let deadline = Instant::now() + FLUSHED_WITHIN;
        // A list shows what the tables know by then.
        while cart.is_empty() && orders.is_empty() && Instant::now() < deadline {
            orders = orders_of(client, buyer).await?;
        }
        let mut complaints = Vec::new();
        complaints.extend(orders.iter().filter(|order| lines_of(order) != buyer.lines).map(|order| {
            format!("order {} has {} of {} lines", order["id"], lines_of(order).len(), buyer.lines.len())
        }));
        if cart != buyer.lines && !cart.is_empty() {
            complaints.push(format!("a cart has {} of {} lines", cart.len(), buyer.lines.len()));
        }
        if cart.is_empty() && orders.is_empty() {
            complaints.push("a cart is empty, and there is no order".to_owned());
        }
        self.partial.borrow_mut().extend(complaints);
        self.looked.set(self.looked.get() + 1);
        Ok(())
    }

    async fn judge(&self, mut told: Vec<Option<Told>>) -> Result<Vec<Verdict>> {
        let unanswered = told.iter().filter(|told| told.is_none()).count();
        self.quiet_stocks().await?;
        self.once_more(&mut told).await?;
        let count = |what: Told| told.iter().filter(|told| **told == Some(what)).count();
        let detail = format!(
            "{} ordered, {} declined, {} refused",
            count(Told::Ordered),
            count(Told::Declined),
            count(Told::Refused)
        );
        let left = vec![format!("{unanswered} buyers never had a certain answer")];
        let answered = if unanswered == 0 { Vec::new() } else { left };
        let looks = self.looked.get();
        let seen = format!("looked {} times", grouped(looks));
        let mut partial = self.partial.take();
        if looks == 0 {
            partial.push("nobody has looked".to_owned());
        }
        let mut verdicts = vec![
            Verdict::of("everyone answered", answered, detail),
            Verdict::of("no part of an order was seen", partial, seen),
        ];
        verdicts.extend(self.books(&told).await?);
        Ok(verdicts)
    }

    /// The refused come again, one after the other: whoever is refused now lacks something that never comes back.
    async fn once_more(&self, told: &mut [Option<Told>]) -> Result<()> {
        for (number, buyer) in self.buyers.iter().enumerate() {
            if told[number] == Some(Told::Refused) {
                told[number] = self.check_out(number, buyer, Dice::new(number as u64)).await;
            }
        }
        Ok(())
    }

    /// Holds of placings that were cut have lapsed: what is taken is what orders say.
    async fn quiet_stocks(&self) -> Result<Vec<Stock>> {
        let deadline = Instant::now() + QUIET_TIMEOUT;
        loop {
            let promised = self.promised().await?;
            let stocks = each(self.target, CONNECTIONS, &self.products, async |client, product| {
                stock(client, product).await
            })
            .await?;
            let taken = |(product, stock): (&String, &Stock)| {
                stock.held + stock.sold == promised.get(product).copied().unwrap_or(0)
            };
            if self.products.iter().zip(&stocks).all(taken) || Instant::now() > deadline {
                return Ok(stocks);
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Units that stand in orders which keep them.
    async fn promised(&self) -> Result<HashMap<String, i64>> {
        let mut promised: HashMap<String, i64> = HashMap::new();
        for orders in self.orders().await? {
            let keeps =
                |order: &&Value| ["pending_payment", "paid"].iter().any(|word| order["status"] == *word);
            for (product, quantity) in orders.iter().filter(keeps).flat_map(lines_of) {
                *promised.entry(product).or_default() += quantity as i64;
            }
        }
        Ok(promised)
    }

    /// The orders of each buyer.
    async fn orders(&self) -> Result<Vec<Vec<Value>>> {
        each(self.target, CONNECTIONS, &self.buyers, async |client, buyer| orders_of(client, buyer).await)
            .await
    }

    async fn books(&self, told: &[Option<Told>]) -> Result<Vec<Verdict>> {
        let (mut orders_wrong, mut carts_wrong, mut stock_wrong, mut undersold) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let stocks: HashMap<&String, Stock> = self.products.iter().zip(self.quiet_stocks().await?).collect();
        let (orders, promised) = (self.orders().await?, self.promised().await?);
        let carts = each(self.target, CONNECTIONS, &self.buyers, async |client, buyer| {
            Ok(lines_of(&client.get_json("/v1/cart", Some(&buyer.token)).await?))
        })
        .await?;
        for (number, buyer) in self.buyers.iter().enumerate() {
            let (told, orders, cart) = (told[number], &orders[number], &carts[number]);
            let wanted = usize::from(matches!(told, Some(Told::Ordered | Told::Declined)));
            if orders.len() != wanted || orders.iter().any(|order| lines_of(order) != buyer.lines) {
                orders_wrong
                    .push(format!("buyer {number} was told {told:?} and has {} orders", orders.len()));
            }
            let left: &[(String, u64)] = if told == Some(Told::Ordered) { &[] } else { &buyer.lines };
            if cart != left {
                carts_wrong
                    .push(format!("buyer {number} was told {told:?}, and the cart has {} lines", cart.len()));
            }
            let could = |(product, quantity): &(String, u64)| {
                stocks.get(product).is_some_and(|stock| stock.available >= *quantity as i64)
            };
            if told == Some(Told::Refused) && buyer.lines.iter().all(could) {
                undersold.push(format!("buyer {number} was refused, and all of it is there"));
            }
        }
        for product in &self.products {
            let stock = stocks.get(product).copied().unwrap_or_default();
            let taken = promised.get(product).copied().unwrap_or(0);
            let whole = stock.available + stock.held + stock.sold == self.stock as i64;
            if !whole || stock.available < 0 || stock.held + stock.sold != taken {
                stock_wrong.push(format!("{product}: {taken} units are in orders, {stock:?}"));
            }
        }
        Ok(vec![
            Verdict::of(
                "all or nothing",
                orders_wrong,
                "each has the order he was told of, with all its lines",
            ),
            Verdict::of("carts", carts_wrong, "what was ordered has left, what was not is there"),
            Verdict::of(
                "conservation",
                stock_wrong,
                "what is taken is in orders, and nothing was sold twice",
            ),
            match self.pays {
                false => Verdict::of("undersell", undersold, "whoever was refused lacks something"),
                true => Verdict::skip("undersell", "what a payment gives back may come after a refusal"),
            },
        ])
    }
}

/// What an answer says for certain; nothing where it is to be asked again.
fn certain(reply: &Reply) -> Option<Told> {
    match reply.status {
        // What was told as on its way before a kill is told so again: whether it stands is what the order says by then.
        202 if reply.json().is_ok_and(|order| order["status"] == "payment_failed") => Some(Told::Declined),
        201 | 202 => Some(Told::Ordered),
        402 => Some(Told::Declined),
        409 if !reply.text().contains("idempotency_in_progress") => Some(Told::Refused),
        _ => None,
    }
}
