//! Two nodes on one database and one Redis: whoever sells writes the mirror, and who only slept writes it no more.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use stockade::actors::mirror::Mirror;
use stockade::clock::Clock;
use stockade::domain::user::Role;
use stockade::persistence::audit::{Stopped, of_stopped};
use stockade::tokens::Tokens;
use stockade_servers::{MariaDb, Redis};

use super::support::{Process, SECRET, id, master_key, one_line, user};
use super::{Store, neighbour, place, until};

pub fn token(who: u64, role: Role) -> String {
    let (tokens, clock) = (Tokens::new(SECRET.as_bytes(), &[]).unwrap(), Clock::start());
    tokens.sign(user(who), role, 3_600, clock.now(), clock.chance()).unwrap()
}

/// Units held of a product, as the mirror tells it.
async fn held(node: &Mirror, product: &str) -> Option<u64> {
    let (view, _) = node.reader().stock_of(product.parse().unwrap()).await?;
    Some(view.counts.held)
}

pub async fn buys(process: &Process, who: u64, product: &str) -> Value {
    let token = token(who, Role::Shopper);
    process.ask("POST", "/v1/orders").bearer(&token).json(&one_line(product, 1)).send().await.ok(201)
}

/// A product with a hundred units.
pub async fn stocked(process: &Process) -> String {
    let body =
        json!({ "sku": "M-1", "name": "Jar", "price": { "amount": 10, "currency": "KRW" }, "stock": 100 });
    let admin = token(0, Role::Admin);
    id(&process.ask("POST", "/v1/admin/products").bearer(&admin).json(&body).send().await.ok(201))
}

#[actix_web::test]
async fn whoever_takes_over_writes_the_mirror_and_whoever_slept_does_not() {
    let (database, redis) = (MariaDb::started().await.unwrap(), Redis::started().await.unwrap());
    let (database_url, redis_url) = (database.url(), redis.url());
    let key = master_key();
    let settings = [
        ("STOCKADE_DATABASE_URL", database_url.as_str()),
        ("STOCKADE_REDIS_URL", &redis_url),
        ("STOCKADE_MASTER_KEY", &key),
    ];
    let folders = [0, 1].map(|_| tempfile::tempdir().unwrap());
    let first = Process::start(folders[0].path(), &settings).await;
    let product = stocked(&first).await;
    buys(&first, 1, &product).await;
    let node = neighbour(&redis).await;
    until(async || held(&node, &product).await == Some(1)).await;
    let mut next = Process::begin(folders[1].path(), &settings);
    next.says("stands by").await;

    first.signal(Signal::STOP);
    // What it has published is nobody's last word a moment later.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(held(&node, &product).await, None);
    next.open().await;
    buys(&next, 2, &product).await;
    until(async || held(&node, &product).await == Some(2)).await;

    first.signal(Signal::CONT);
    for who in 3..=10 {
        buys(&next, who, &product).await;
        until(async || held(&node, &product).await == Some(who)).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        // It may be too old to be told; what is told is hers.
        let told = held(&node, &product).await;
        assert!(told.is_none_or(|held| held == who), "somebody else has written {told:?} for {who}");
    }
    first.stop().await;
    next.stop().await;
    node.stop().await;
    let store = Store::open(&place(&redis_url)).unwrap();
    let report = of_stopped(Stopped::Database(&database_url), Some(&store), &[]).await.unwrap();
    assert_eq!(report.all_differences().collect::<Vec<_>>(), Vec::<&String>::new());
    assert_eq!(report.mirror.unwrap().shown, 1);
}
