//! A node at which the shop is not open tells stock from the mirror, as the lead would, and asks it for everything that is not young there.

use std::time::Duration;

use rustix::process::Signal;
use stockade::actors::mirror::AGE_MAX;
use stockade::domain::id::ProductId;
use stockade::domain::stock::Millis;
use stockade_servers::{MariaDb, Redis};

use super::support::{Process, master_key};
use super::takeover::{buys, stocked};
use super::until;

/// How often a node has told from the mirror.
async fn told_from_mirror(node: &Process) -> u64 {
    let told = node.ask("GET", "/metrics").send().await;
    let count = "stockade_forward_seconds_count{outcome=\"mirrored\"} ";
    let found = told.text.lines().find_map(|line| line.strip_prefix(count));
    found.map_or(0, |number| number.parse().unwrap())
}

#[actix_web::test]
async fn stock_is_told_at_any_node_from_the_mirror_while_that_is_young() {
    let (database, mut redis) = (MariaDb::started().await.unwrap(), Redis::started().await.unwrap());
    let (database_url, redis_url) = (database.url(), redis.url());
    let key = master_key();
    let settings = [
        ("STOCKADE_DATABASE_URL", database_url.as_str()),
        ("STOCKADE_REDIS_URL", &redis_url),
        ("STOCKADE_MASTER_KEY", &key),
    ];
    let folders = [0, 1].map(|_| tempfile::tempdir().unwrap());
    let lead = Process::start(folders[0].path(), &settings).await;
    let product = stocked(&lead).await;
    let of_gateway: Vec<_> = settings.into_iter().chain([("STOCKADE_ROLES", "gateway")]).collect();
    let mut gateway = Process::begin(folders[1].path(), &of_gateway);
    gateway.takes_requests().await;
    gateway.is_ready().await;

    buys(&lead, 1, &product).await;
    let path = format!("/v1/products/{product}/stock");
    let at_lead = lead.ask("GET", &path).send().await;
    // The mirror follows in a moment, and tells what the lead does, word for word.
    until(async || {
        let before = told_from_mirror(&gateway).await;
        let told = gateway.ask("GET", &path).send().await;
        assert_eq!(told.status, 200, "{}", told.text);
        assert_eq!(told.header("content-type"), at_lead.header("content-type"));
        told.text == at_lead.text && told_from_mirror(&gateway).await > before
    })
    .await;
    let other = ProductId::new(Millis(1), 7);
    let unknown = gateway.ask("GET", &format!("/v1/products/{other}/stock")).send().await;
    unknown.problem(404, "not_found");

    // Nobody says any more how old it is: that is for the lead to tell, and not before it wakes.
    lead.signal(Signal::STOP);
    tokio::time::sleep(2 * AGE_MAX).await;
    let asking = actix_web::rt::spawn(gateway.ask("GET", &path).send());
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!asking.is_finished());
    lead.signal(Signal::CONT);
    asking.await.unwrap().ok(200);

    // Without a mirror it is asked for each.
    redis.kill().unwrap();
    until(async || {
        let before = told_from_mirror(&gateway).await;
        gateway.ask("GET", &path).send().await.ok(200);
        told_from_mirror(&gateway).await == before
    })
    .await;
    buys(&lead, 2, &product).await;
    assert_eq!(gateway.ask("GET", &path).send().await.ok(200)["held"], 2);
    gateway.stop().await;
    lead.stop().await;
}
