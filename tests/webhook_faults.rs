//! Webhooks when something goes wrong: a kill in the middle of a call, an endpoint that never answers well, a key that is replaced, a
//! name that changes its meaning.

#[path = "webhooks/receiver.rs"]
mod receiver;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::StreamExt;
use receiver::{Answer, Receiver, secret_bytes, signed_with, until};
use serde_json::{Value, json};
use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use stockade::actors::webhooks::{NewEndpoint, Unable, WebhookHouse, Webhooks};
use stockade::clock::Clock;
use stockade::config::{Config, MasterKey, MasterKeys};
use stockade::domain::user::Role;
use stockade::domain::webhook::EventKind;
use stockade::persistence::Tables;
use stockade::persistence::webhook::DeliveryState;
use stockade::telemetry::Metrics;
use stockade::tokens::Tokens;
use stockade::vault::Vault;
use stockade::webhook::{Caller, Failure, Lookup};
use support::{Process, SECRET, Shop, id, user};

const ENDPOINTS: &str = "/v1/admin/webhook-endpoints";

fn loopback(config: &mut Config) {
    config.webhooks.allow_loopback = true;
}

async fn register(shop: &Shop, url: &str) -> Value {
    let body = json!({ "url": url, "events": ["stock.changed"] });
    shop.admin("POST", ENDPOINTS).json(&body).send().await.ok(201)
}

/// Has the dispatcher look at the clock.
async fn ring(shop: &Shop, endpoint: &str) {
    let same = json!({ "description": "" });
    shop.admin("PATCH", &format!("{ENDPOINTS}/{endpoint}")).json(&same).send().await.ok(200);
}

async fn newest(shop: &Shop, endpoint: &str) -> Option<Value> {
    let list = shop.admin("GET", &format!("{ENDPOINTS}/{endpoint}/deliveries")).send().await.ok(200);
    list["data"].get(0).cloned()
}

#[actix_web::test]
async fn a_kill_in_the_middle_of_a_call_has_the_same_event_told_again() {
    let mut receiver = Receiver::open(&[Answer::Never, Answer::Status(204)]).await;
    let folder = tempfile::tempdir().unwrap();
    let settings = [("STOCKADE_WEBHOOK_ALLOW_LOOPBACK", "true")];
    let mut process = Process::start(folder.path(), &settings).await;
    let (tokens, clock) = (Tokens::new(SECRET.as_bytes(), &[]).unwrap(), Clock::start());
    let admin = tokens.sign(user(0), Role::Admin, 900, clock.now(), clock.chance()).unwrap();
    let ask = async |path: &str, body: Value| process.post(path, &body).bearer(&admin).send().await.ok(201);
    let endpoint = ask(ENDPOINTS, json!({ "url": receiver.url, "events": ["stock.changed"] })).await;
    let product = json!({ "sku": "JAR-1", "name": "Moon jar", "price": { "amount": 1, "currency": "KRW" }, "stock": 1 });
    ask("/v1/admin/products", product).await;
    let first = receiver.next().await;
    process.kill();

    let left = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(folder.path().join("data")).unwrap().map(Result::unwrap) {
        if file.file_type().unwrap().is_file() {
            std::fs::copy(file.path(), left.path().join(file.file_name())).unwrap();
        }
    }
    let shop = Shop::open_in_with(left, loopback).await;
    // The claim of who died lapses.
    shop.clock.advance(30_000);
    ring(&shop, &id(&endpoint)).await;
    let again = receiver.next().await;
    assert_eq!((again.id(), &again.text), (first.id(), &first.text));
    let secret = secret_bytes(endpoint["secret"].as_str().unwrap());
    assert!(signed_with(&first, &secret) && signed_with(&again, &secret));
    let taken = async || newest(&shop, &id(&endpoint)).await.filter(|newest| newest["state"] == "delivered");
    assert_eq!(until(taken).await["tries"], 2);
    shop.close().await;
}

/// Calls end while others begin, marks are written while the flush writes: nobody waits for somebody who waits for him.
#[actix_web::test]
async fn a_crowd_is_told_while_it_buys_and_one_endpoint_takes_nothing() {
    const CROWD: u64 = 300;
    let shop = Shop::open_with(loopback).await;
    let mut good = Receiver::open(&[Answer::Status(204)]).await;
    let bad = Receiver::open(&[Answer::Status(500)]).await;
    let told = json!(["order.placed"]);
    for url in [&good.url, &bad.url] {
        let body = json!({ "url": url, "events": told });
        shop.admin("POST", ENDPOINTS).json(&body).send().await.ok(201);
    }
    let product = shop.stocked(CROWD).await;
    let orders = (1..=CROWD).map(|who| shop.order(who, &product, 1).send());
    let placed = futures_util::stream::iter(orders).buffer_unordered(32).collect::<Vec<_>>().await;
    let placed: BTreeSet<String> = placed.iter().map(|reply| id(&reply.ok(201))).collect();
    // One event an order, however often it is told.
    let mut told = BTreeMap::new();
    while told.len() < placed.len() {
        let webhook = good.next().await;
        told.insert(webhook.id().to_owned(), webhook.body["data"]["order_id"].as_str().unwrap().to_owned());
    }
    assert_eq!(told.into_values().collect::<BTreeSet<_>>(), placed);
    until(async || (bad.heard() as u64 >= CROWD).then_some(())).await;
    // A list waits for the tables, which nobody holds up.
    shop.by(1, "GET", "/v1/orders").send().await.ok(200);
    shop.close().await;
}

#[actix_web::test]
async fn an_endpoint_that_takes_nothing_for_days_is_disabled_and_said_so() {
    let shop = Shop::open_with(loopback).await;
    let mut receiver = Receiver::open(&[Answer::Status(500)]).await;
    let endpoint = id(&register(&shop, &receiver.url).await);
    shop.stocked(1).await;
    receiver.next().await;
    let shown = async || {
        let list = shop.admin("GET", ENDPOINTS).send().await.ok(200);
        list["data"][0].clone()
    };
    until(async || shown().await["failing_since"].as_str().map(str::to_owned)).await;
    assert_eq!(shown().await["state"], "enabled");
    shop.clock.advance(5 * 24 * 3_600_000 + 60_000);
    ring(&shop, &endpoint).await;
    receiver.next().await;
    let disabled = until(async || Some(shown().await).filter(|shown| shown["state"] == "disabled")).await;
    assert_eq!(disabled["disabled_reason"], "failing");
    assert_eq!(
        newest(&shop, &endpoint).await.unwrap()["state"],
        "waiting",
        "it is told when it is enabled again"
    );
    shop.close().await;
}

#[actix_web::test]
async fn secrets_outlive_the_master_key_they_were_sealed_under() {
    let key = |byte: u8| MasterKey::from_bytes([byte; 32]);
    let keys = |current, former: &[u8]| MasterKeys {
        current: key(current),
        former: former.iter().map(|byte| key(*byte)).collect(),
    };
    let under = |master_keys: MasterKeys| {
        move |config: &mut Config| {
            loopback(config);
            config.people.master_keys = Some(master_keys);
        }
    };
    let mut receiver = Receiver::open(&[Answer::Status(204)]).await;
    let shop = Shop::open_with(under(keys(1, &[]))).await;
    let endpoint = register(&shop, &receiver.url).await;
    let shop = shop.reopen_with(under(keys(2, &[1]))).await;
    // It has done that once it tells something.
    shop.stocked(1).await;
    receiver.next().await;
    let shop = shop.reopen_with(under(keys(2, &[]))).await;
    shop.stocked(1).await;
    let secret = secret_bytes(endpoint["secret"].as_str().unwrap());
    assert!(signed_with(&receiver.next().await, &secret));
    shop.close().await;
}

/// Has something waiting to be told.
async fn tell(folder: &Path) {
    let options = SqliteConnectOptions::new().filename(folder.join("shop.db"));
    let mut shop = SqliteConnection::connect_with(&options).await.unwrap();
    let event = "insert into webhook_events values (1, 1, zeroblob(16), 'stock.changed', 1, '{}')";
    sqlx::query(event).execute(&mut shop).await.unwrap();
    shop.close().await.unwrap();
}

/// A name that is somebody's own when it is registered, and means this machine when it is called.
#[actix_web::test]
async fn a_name_that_changes_its_meaning_is_not_called() {
    let receiver = Receiver::open(&[Answer::Status(204)]).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let lookup: Lookup = Arc::new(move |_| {
        let first = counted.fetch_add(1, Ordering::Relaxed) == 0;
        let address = if first { "1.1.1.1" } else { "127.0.0.1" };
        Box::pin(async move { Ok(vec![address.parse().unwrap()]) })
    });
    let folder = tempfile::tempdir().unwrap();
    let (tables, clock) = (Tables::open(folder.path()).await.unwrap(), Clock::start());
    let house = WebhookHouse {
        rows: tables.webhooks(),
        trail: tables.trail(),
        vault: Vault::new(&MasterKeys::one([9; 32]), &clock).unwrap(),
        caller: Caller::new(false, lookup).unwrap(),
        clock: clock.clone(),
    };
    let webhooks = Webhooks::start(house, Metrics::global()).unwrap();
    let new = |url: String| NewEndpoint {
        url,
        kinds: [EventKind::StockChanged].into_iter().collect(),
        description: String::new(),
    };
    let url = format!("https://hooks.example.com:{}/", receiver.port());
    let endpoint = webhooks.register(user(0), new(url.clone()), None).await.unwrap().endpoint;
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    let refused = webhooks.register(user(0), new(url), None).await.unwrap_err();
    assert!(matches!(refused, Unable::NotCallable(Failure::Refused(_))), "{refused}");

    tell(folder.path()).await;
    tables.webhooks().interest().ring();
    let refused = until(async || {
        let waiting = webhooks.deliveries(endpoint.id, Some(DeliveryState::Waiting), None, 9).await.unwrap();
        waiting.into_iter().find(|delivery| delivery.last_error.is_some())
    });
    assert_eq!(refused.await.last_error.as_deref(), Some("address_refused"));
    assert_eq!(asked.load(Ordering::Relaxed), 3, "one look-up a call");
    assert_eq!(receiver.heard(), 0);
    webhooks.stop().await;
    tables.close().await.unwrap();
}
