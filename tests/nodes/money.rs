//! Money over several nodes: whoever leads dies, or sleeps, between the pin, the charge and the sale, and another takes up the row.
//!
//! All nodes pay through one localstripe that knows what a key is and holds calls in the middle, so whoever leads is stopped for certain
//! while some charges are on their way, some have reserved money that he has not heard of, and some have taken it. Always true
//! afterwards: who was told that he has paid was charged once and has what he paid for, and nobody else was charged.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::{Client, StatusCode};
use rustix::process::Signal;
use serde_json::{Value, json};
use stockade::domain::user::Role;
use tokio::task::JoinHandle;

use super::support::{BANK_KEY, Bank, Process, card, id, lines};
use super::{COME_WITHIN, Cluster, STOCK, read, takes_over};

const BUYERS: u64 = 12;
const PRODUCTS: u64 = 4;
const PRICE: i64 = 10;
const GOOD_CARD: &str = "pm_card_visa";
const BAD_CARD: &str = "pm_card_chargeCustomerFail";
/// Of each kind so many calls are held before whoever leads is stopped.
const HELD_MIN: u64 = 2;
/// Nobody waits longer at one door: he asks at the next one.
const PATIENCE: Duration = Duration::from_secs(4);

/// What a buyer was told in the end, for certain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Paid,
    Declined,
    Cancelled,
}

#[derive(Debug)]
struct Wish {
    who: u64,
    order: String,
    /// One unit of each.
    products: Vec<String>,
    end: End,
}

/// What all buyers know, and what they were told.
struct Town {
    client: Client,
    tokens: Vec<String>,
    products: Vec<String>,
    /// Where the nodes answer.
    doors: Mutex<Vec<String>>,
    asked: AtomicU64,
    numbers: AtomicU64,
    /// The last that was heard of what is not certain, by key.
    uncertain: Mutex<BTreeMap<String, String>>,
    wishes: Mutex<Vec<Wish>>,
}

impl Town {
    async fn of(cluster: &Cluster, lead: &Process) -> Arc<Town> {
        let admin = cluster.token(0, Role::Admin);
        let mut products = Vec::new();
        for number in 0..PRODUCTS {
            let body = json!({
                "sku": format!("MONEY-{number}"), "name": "Jar", "price": { "amount": PRICE, "currency": "KRW" },
                "stock": STOCK,
            });
            let made = lead.ask("POST", "/v1/admin/products").bearer(&admin).json(&body).send().await;
            products.push(id(&made.ok(201)));
        }
        Arc::new(Town {
            client: Client::builder().tls_certs_only([]).no_proxy().timeout(PATIENCE).build().unwrap(),
            tokens: (0..BUYERS).map(|who| cluster.token(who + 1, Role::Shopper)).collect(),
            products,
            doors: Mutex::default(),
            asked: AtomicU64::default(),
            numbers: AtomicU64::default(),
            uncertain: Mutex::default(),
            wishes: Mutex::default(),
        })
    }

    fn doors_are(&self, nodes: [&Process; 3]) {
        *self.doors.lock().unwrap() = nodes.map(|node| format!("http://{}", node.addr())).into();
    }

    /// Each time another one.
    fn door(&self) -> String {
        let doors = self.doors.lock().unwrap();
        doors[self.asked.fetch_add(1, Ordering::Relaxed) as usize % doors.len()].clone()
    }

    /// All buyers come, each with so many wishes.
    fn come(self: &Arc<Town>, wishes: u64) -> Vec<JoinHandle<()>> {
        let buyers = (0..BUYERS).map(|who| {
            let town = self.clone();
            tokio::spawn(async move {
                for _ in 0..wishes {
                    town.buy(who, town.numbers.fetch_add(1, Ordering::Relaxed)).await;
                }
            })
        });
        buyers.collect()
    }

    /// Waits until each of them knows what he has.
    async fn is_certain(&self, buying: Vec<JoinHandle<()>>) {
        let all = tokio::time::timeout(COME_WITHIN, join_all(buying)).await;
        let all = all.unwrap_or_else(|_| panic!("nobody knows: {:#?}", self.uncertain.lock().unwrap()));
        all.into_iter().for_each(Result::unwrap);
    }

    /// Orders and pays in one call, one product or two; every sixth card is no good, and every fourth order is cancelled.
    async fn buy(&self, who: u64, number: u64) {
        let of = |number: u64| self.products[(number % PRODUCTS) as usize].clone();
        let products =
            if number.is_multiple_of(3) { vec![of(number), of(number + 1)] } else { vec![of(number)] };
        let is_bad = number % 6 == 5;
        let mut body = lines(&products.iter().map(|product| (product.as_str(), 1_u32)).collect::<Vec<_>>());
        body["payment"] = card(if is_bad { BAD_CARD } else { GOOD_CARD });
        let key = format!("money-{number}");
        let (status, told) = self.ask(who, "/v1/orders", &key, Some(&body)).await;
        let (order, mut end) = match (status.as_u16(), told["status"].as_str()) {
            (201, _) | (202, Some("paid")) => (id(&told), End::Paid),
            (202, Some("payment_failed")) => (id(&told), End::Declined),
            (402, _) => (id(&told["order"]), End::Declined),
            _ => panic!("{status} {told}"),
        };
        assert_eq!(end == End::Declined, is_bad, "{told}");
        if end == End::Paid && number.is_multiple_of(4) {
            let (place, key) = (format!("/v1/orders/{order}/cancel"), format!("{key}-back"));
            let (status, told) = self.ask(who, &place, &key, None).await;
            assert_eq!(status, 200, "{told}");
            end = End::Cancelled;
        }
        self.wishes.lock().unwrap().push(Wish { who, order, products, end });
    }

    /// Asks until it is certain, always with the same key, as a shopper's device does.
    async fn ask(&self, who: u64, place: &str, key: &str, body: Option<&Value>) -> (StatusCode, Value) {
        loop {
            match self.ask_once(who, place, key, body).await {
                Ok(told) => {
                    self.uncertain.lock().unwrap().remove(key);
                    return told;
                }
                Err(why) => drop(self.uncertain.lock().unwrap().insert(key.to_owned(), why)),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// One attempt. `Err`: nobody knows, or not now, or it is on its way; what was told as that comes with the order as it is by now.
    async fn ask_once(
        &self,
        who: u64,
        place: &str,
        key: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Value), String> {
        let url = format!("{}{place}", self.door());
        let asking = self.client.post(url).bearer_auth(&self.tokens[who as usize]);
        let asking = asking.header("Idempotency-Key", key);
        let asking = if let Some(body) = body { asking.json(body) } else { asking };
        let answer = asking.send().await.map_err(|error| error.to_string())?;
        let status = answer.status();
        let told = answer.json::<Value>().await.map_err(|error| error.to_string())?;
        // What was sold a moment ago may have a payment that is not through.
        let not_yet = ["idempotency_in_progress", "order_state_conflict"];
        let is_open = status == 202 && told["status"] == "pending_payment";
        if is_open || status == 503 || not_yet.iter().any(|code| told["code"] == *code) {
            return Err(format!("{status} {told}"));
        }
        Ok((status, told))
    }
}

/// Waits until calls of every kind are held.
async fn are_in_the_middle(bank: &Bank) {
    let mut held = Value::Null;
    let holding = async {
        loop {
            held = bank.ask("/_config/held").await;
            if ["coming", "reserved", "captured"].iter().all(|kind| held[*kind].as_u64() >= Some(HELD_MIN)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = tokio::time::timeout(COME_WITHIN, holding).await;
    assert!(waited.is_ok(), "they are not in the middle: {held}");
}

/// Waits until no payment is open, nothing is to be given back, and nobody holds anything.
async fn has_settled(cluster: &Cluster, lead: &Process, town: &Town) {
    let admin = cluster.token(0, Role::Admin);
    let mut open = Vec::new();
    let settling = async {
        loop {
            let waiting = read(lead, "/v1/admin/compensations", &admin).await;
            open = waiting["data"].as_array().unwrap().clone();
            for product in &town.products {
                let stock = read(lead, &format!("/v1/products/{product}/stock"), &admin).await;
                if stock["held"] != json!(0) {
                    open.push(stock);
                }
            }
            if open.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let waited = tokio::time::timeout(COME_WITHIN, settling).await;
    assert!(waited.is_ok(), "it does not settle: {open:#?}");
}

/// What the bank has of each order.
async fn charged(bank: &Bank) -> BTreeMap<String, Vec<Value>> {
    let (mut found, mut after) = (BTreeMap::<String, Vec<Value>>::new(), String::new());
    loop {
        let page = bank.ask(&format!("/v1/payment_intents?limit=100{after}")).await;
        let intents = page["data"].as_array().unwrap();
        for intent in intents {
            let order = intent["metadata"]["stockade_order"].as_str().unwrap();
            found.entry(order.to_owned()).or_default().push(intent.clone());
        }
        if page["has_more"] != json!(true) {
            return found;
        }
        after = format!("&starting_after={}", id(intents.last().unwrap()));
    }
}

/// What every buyer was told, against the bank, the orders and the stock.
async fn adds_up(cluster: &Cluster, lead: &Process, town: &Town, bank: &Bank) {
    let wishes = std::mem::take(&mut *town.wishes.lock().unwrap());
    let mut at_the_bank = charged(bank).await;
    let mut sold: BTreeMap<&str, u64> = town.products.iter().map(|product| (product.as_str(), 0)).collect();
    let (mut kept, mut paid) = (0, 0);
    for wish in &wishes {
        let Wish { who, order, products, end } = wish;
        let price = PRICE * products.len() as i64;
        let intents = at_the_bank.remove(order).unwrap_or_default();
        assert_eq!(intents.len(), 1, "{wish:?} {intents:#?}");
        let intent = &intents[0];
        let taken = if intent["status"] == "succeeded" { intent["amount"].as_i64().unwrap() } else { 0 };
        let refunded = intent["latest_charge"]["amount_refunded"].as_i64().unwrap_or_default();
        let (expected, status, payment) = match end {
            End::Paid => ((price, 0), "paid", "paid"),
            End::Declined => ((0, 0), "payment_failed", "declined"),
            End::Cancelled => ((price, price), "cancelled", "refunded"),
        };
        assert_eq!((taken, refunded), expected, "{wish:?} {intent:#}");
        kept += taken - refunded;
        if *end == End::Paid {
            paid += price;
            products.iter().for_each(|product| *sold.entry(product).or_default() += 1);
        }
        let shown = read(lead, &format!("/v1/orders/{order}"), &town.tokens[*who as usize]).await;
        assert_eq!(
            (&shown["status"], &shown["payment"]["status"]),
            (&json!(status), &json!(payment)),
            "{shown}"
        );
    }
    assert!(at_the_bank.is_empty(), "nobody knows of {at_the_bank:#?}");
    assert_eq!(kept, paid);
    let admin = cluster.token(0, Role::Admin);
    for (product, units) in sold {
        let stock = read(lead, &format!("/v1/products/{product}/stock"), &admin).await;
        let counts = ["available", "held", "sold"].map(|name| stock[name].as_u64().unwrap());
        assert_eq!(counts, [STOCK - units, 0, units], "{product}");
    }
}

#[actix_web::test]
async fn nobody_pays_twice_or_for_nothing_while_the_lead_dies_and_while_it_sleeps() {
    let Some(bank) = Bank::with_keys() else { return };
    let mut cluster = Cluster::open().await;
    cluster.settings.extend([
        ("STOCKADE_PAYMENT_PROVIDER", "stripe".to_owned()),
        ("STOCKADE_STRIPE_SECRET_KEY", BANK_KEY.to_owned()),
        ("STOCKADE_STRIPE_URL", bank.url.clone()),
    ]);
    let mut first = cluster.start(0).await;
    let town = Town::of(&cluster, &first).await;
    let mut second = cluster.stand_by(1, "owner,gateway").await;
    let gateway = cluster.stand_by(2, "gateway").await;
    town.doors_are([&first, &second, &gateway]);
    town.is_certain(town.come(1)).await;
    // It dies in the middle. What is on its way arrives when another has long asked what became of it.
    bank.tell("/_config/hold", json!({})).await;
    let buying = town.come(2);
    are_in_the_middle(&bank).await;
    first.kill();
    bank.tell("/_config/answer", json!({})).await;
    takes_over(&mut second).await;
    first = cluster.stand_by(0, "owner,gateway").await;
    town.doors_are([&first, &second, &gateway]);
    town.is_certain(buying).await;
    bank.tell("/_config/arrive", json!({})).await;
    // It sleeps in the middle, and hears all its answers when it wakes and another has taken over.
    bank.tell("/_config/hold", json!({})).await;
    let buying = town.come(2);
    are_in_the_middle(&bank).await;
    second.signal(Signal::STOP);
    bank.tell("/_config/answer", json!({})).await;
    takes_over(&mut first).await;
    second.signal(Signal::CONT);
    second.says("another has taken over").await;
    bank.tell("/_config/arrive", json!({})).await;
    town.is_certain(buying).await;
    has_settled(&cluster, &first, &town).await;
    adds_up(&cluster, &first, &town, &bank).await;
    second.says("stands by").await;
    for node in [gateway, second, first] {
        node.stop().await;
    }
    let said = cluster.audit_with(&["--provider"]);
    assert!(said.contains("everything adds up") && said.contains("its books agree with ours"), "{said}");
}
