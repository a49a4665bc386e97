//! How much of a product one customer may have is decided by its owner: whichever nodes he asks, and all of them at once, he has no more.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use stockade::domain::user::Role;

use super::owners::{each_is_sold, products, shared_by};
use super::support::{Process, Reply, one_line};
use super::{COME_WITHIN, Cluster, STOCK, read};

const LIMIT: u32 = 3;
/// Of one buyer, for each product.
const ORDERS: usize = 50;

/// One order by a key of its own, asked for until it is certain, as a shopper's device does.
async fn ordered(cluster: &Cluster, node: &Process, token: &str, product: &str) -> Reply {
    let (key, body) = (format!("{:x}", cluster.clock.chance()), one_line(product, 1));
    let asking = async {
        loop {
            let answer = node.ask("POST", "/v1/orders").bearer(token).key(&key).json(&body).send().await;
            if answer.status != 503 && !answer.text.contains("idempotency_in_progress") {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let answer = tokio::time::timeout(COME_WITHIN, asking).await;
    answer.unwrap_or_else(|_| panic!("nobody knows what became of it:\n{}", node.log()))
}

#[actix_web::test]
async fn a_customer_who_asks_three_nodes_at_once_has_no_more_than_he_may() {
    let cluster = Cluster::open().await;
    let lead = cluster.start(0).await;
    let products = products(&cluster, &lead, Some(LIMIT)).await;
    let second = cluster.stand_by(1, "owner,gateway").await;
    let third = cluster.stand_by(2, "owner,gateway").await;
    // Somebody else has one of each. Each node owns some of them.
    each_is_sold(&cluster, &lead, &products).await;
    shared_by(&cluster, &lead, 3).await;

    let (nodes, buyer) = ([&lead, &second, &third], cluster.token(2, Role::Shopper));
    let tries = products.iter().flat_map(|product| (0..ORDERS).map(move |number| (product, number)));
    let orders =
        tries.map(|(product, number)| ordered(&cluster, nodes[number % nodes.len()], &buyer, product));
    let answers = join_all(orders).await;
    let admin = cluster.token(0, Role::Admin);
    for (product, answers) in products.iter().zip(answers.chunks(ORDERS)) {
        let (had, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 201);
        assert_eq!(had.len(), LIMIT as usize);
        for answer in refused {
            let problem = answer.problem(409, "customer_limit_exceeded");
            assert_eq!((&problem["limit"], &problem["has"]), (&json!(LIMIT), &json!(LIMIT)));
        }
        let stock = read(&lead, &format!("/v1/products/{product}/stock"), &admin).await;
        let counters = ["available", "held", "sold"].map(|name| stock[name].as_u64().unwrap());
        let held = u64::from(LIMIT) + 1;
        assert_eq!(counters, [STOCK - held, held, 0]);
    }
    for node in [third, second, lead] {
        node.stop().await;
    }
    let said = cluster.audit();
    assert!(said.contains("everything adds up"), "{said}");
}
