//! Several nodes own stock: products are spread over them, and whoever comes, goes or dies, nobody is refused for it who need not be,
//! and nothing that was acknowledged is lost.

use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use stockade::domain::user::Role;

use super::support::{Process, Stalls, id};
use super::{Cluster, Crowd, STOCK, all_is_there, one_line, read, takes_over};

const PRODUCTS: usize = 6;
/// Of each product.
const BUYERS: u64 = 2;
/// Whoever orders when nodes have died has his answer after this: four seconds until a heart counts as stopped, one look, and what
/// a busy machine needs besides.
const SOLD_WITHIN: Duration = Duration::from_secs(30);
/// Sooner than this nobody is told that nobody sells: a heart counts as stopped after four seconds, and another node is followed then.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(5);

/// Some products; of each one customer may have so many, if that is said.
pub async fn products(cluster: &Cluster, process: &Process, limit: Option<u32>) -> Vec<String> {
    let mut products = Vec::new();
    for number in 0..PRODUCTS {
        let body = json!({
            "sku": format!("NODES-{number}"), "name": "Jar", "price": { "amount": 10, "currency": "KRW" }, "stock": STOCK,
            "sale": { "per_customer_limit": limit },
        });
        let admin = cluster.token(0, Role::Admin);
        products.push(id(&process
            .ask("POST", "/v1/admin/products")
            .bearer(&admin)
            .json(&body)
            .send()
            .await
            .ok(201)));
    }
    products
}

async fn nodes(cluster: &Cluster, lead: &Process) -> Vec<Value> {
    let nodes = read(lead, "/v1/admin/nodes", &cluster.token(0, Role::Admin)).await;
    nodes["data"].as_array().unwrap().clone()
}

/// Waits until so many nodes own a fair share, of shards and of what is sold.
pub async fn shared_by(cluster: &Cluster, lead: &Process, owners: usize) {
    let (mut last, shared) = (Vec::new(), Duration::from_secs(30));
    let waiting = async {
        loop {
            last = nodes(cluster, lead).await;
            let number = |node: &Value, of: &str| node[of].as_u64().unwrap_or_default();
            let own: Vec<_> = last.iter().filter(|node| number(node, "shards") > 0).collect();
            let fair = |node: &&Value| {
                let most = PRODUCTS.div_ceil(owners) as u64 + 1;
                number(node, "shards") >= 768 / owners as u64
                    && (1..=most).contains(&number(node, "products_loaded"))
            };
            if own.len() == owners && own.iter().all(fair) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let waited = tokio::time::timeout(shared, waiting).await;
    assert!(waited.is_ok(), "{owners} nodes are to own: {last:?}\n{}", lead.log());
}

async fn go_on(crowds: &[Crowd], more: usize) {
    futures_util::future::join_all(crowds.iter().map(|crowd| crowd.goes_on(more))).await;
}

fn refused(crowds: &[Crowd]) -> u64 {
    crowds.iter().map(|crowd| crowd.refused.load(Ordering::Relaxed)).sum()
}

#[actix_web::test]
async fn products_are_spread_over_nodes_that_come_and_go_and_die() {
    let cluster = Cluster::open().await;
    let mut lead = cluster.start(0).await;
    let products = products(&cluster, &lead, None).await;
    let stalls = Stalls::looked_for();
    let crowds: Vec<_> = products.iter().map(|product| Crowd::of(BUYERS, &cluster, &lead, product)).collect();
    go_on(&crowds, 20).await;
    let mut second = cluster.stand_by(1, "owner,gateway").await;
    let mut third = cluster.stand_by(2, "owner,gateway").await;
    shared_by(&cluster, &lead, 3).await;
    go_on(&crowds, 50).await;
    // It gives away what it owns, and nobody notices; the same when it is back.
    third.signal(Signal::TERM);
    let ended = third.ends().await;
    assert!(ended.success(), "{}", third.log());
    shared_by(&cluster, &lead, 2).await;
    go_on(&crowds, 50).await;
    third = cluster.stand_by(2, "owner,gateway").await;
    shared_by(&cluster, &lead, 3).await;
    go_on(&crowds, 50).await;
    let refused = refused(&crowds);
    assert!(refused == 0 || stalls.were_seen(), "{refused} were refused:\n{}\n{}", lead.log(), second.log());
    // What it owned is sold by others within seconds.
    second.kill();
    go_on(&crowds, 50).await;
    shared_by(&cluster, &lead, 2).await;
    // Who led is followed by one that owns.
    lead.kill();
    takes_over(&mut third).await;
    crowds.iter().for_each(|crowd| crowd.go_to(&third));
    go_on(&crowds, 50).await;
    for (product, crowd) in products.iter().zip(crowds) {
        let told = crowd.leaves().await;
        all_is_there(&cluster, &third, product, &told).await;
    }
    third.stop().await;
    let said = cluster.audit();
    assert!(said.contains("everything adds up"), "{said}");
}

/// Has one, by a key. Where a process or the database stands still, a take-over may outlast the time for which a node keeps somebody
/// waiting: whoever is told so by then asks again. Whoever is told so earlier is refused.
pub async fn has_one(cluster: &Cluster, process: &Process, token: &str, product: &str) {
    let (key, body) = (format!("{:x}", cluster.clock.chance()), one_line(product, 1));
    let (stalls, began) = (Stalls::looked_for(), cluster.clock.nanos());
    loop {
        let answer = process.ask("POST", "/v1/orders").bearer(token).key(&key).json(&body).send().await;
        let is_open = answer.status == 503 || answer.text.contains("idempotency_in_progress");
        let waited = cluster.since(began);
        let is_excused = (waited >= FOLLOWED_WITHIN || stalls.were_seen()) && waited < SOLD_WITHIN;
        if !(is_open && is_excused) {
            answer.ok(201);
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Somebody orders each of the products, all at once, and has it.
pub async fn each_is_sold(cluster: &Cluster, process: &Process, products: &[String]) {
    let token = cluster.token(1, Role::Shopper);
    let orders = products.iter().map(|product| has_one(cluster, process, &token, product));
    let sold = tokio::time::timeout(SOLD_WITHIN, futures_util::future::join_all(orders)).await;
    assert!(sold.is_ok(), "not all were sold in time:\n{}", process.log());
}

/// Whoever owned with the lead is dead as long as the lead is, and is not waited for by the next one; and one that is back before its
/// death is known is given products, and none by the dead one's word.
#[actix_web::test]
async fn nobody_is_refused_because_two_die_at_once_or_one_is_back_before_it_is_missed() {
    let cluster = Cluster::open().await;
    let mut lead = cluster.start(0).await;
    let products = products(&cluster, &lead, None).await;
    let mut second = cluster.stand_by(1, "owner,gateway").await;
    let mut third = cluster.stand_by(2, "owner,gateway").await;
    each_is_sold(&cluster, &lead, &products).await;
    shared_by(&cluster, &lead, 3).await;

    second.kill();
    second = cluster.begin(1);
    tokio::time::sleep(Duration::from_millis(500)).await;
    each_is_sold(&cluster, &lead, &products).await;
    second.takes_requests().await;
    shared_by(&cluster, &lead, 3).await;

    lead.kill();
    second.kill();
    each_is_sold(&cluster, &third, &products).await;
    takes_over(&mut third).await;
    let left = nodes(&cluster, &third).await;
    assert_eq!(left.len(), 1, "{left:?}");
    third.stop().await;
    let said = cluster.audit();
    assert!(said.contains("everything adds up"), "{said}");
}
