//! What one administrator has asked for stands in the database: whichever node leads when another one asks for the same, it is done once.

use serde_json::json;
use stockade::domain::user::Role;

use super::support::{Process, Reply, id, paid_with, user};
use super::{Cluster, takes_over};

async fn ask(cluster: &Cluster, node: &Process, who: u64, order: &str) -> Reply {
    let body = json!({ "restock": "leave", "reason": "late" });
    let ask = node.ask("POST", &format!("/v1/admin/orders/{order}/refunds")).key("k");
    ask.bearer(&cluster.token(who, Role::Admin)).json(&body).send().await
}

#[actix_web::test]
async fn what_was_asked_for_at_one_node_is_seconded_at_another() {
    let mut cluster = Cluster::open().await;
    cluster.settings.push(("STOCKADE_FOUR_EYES_ABOVE", "KRW:0".to_owned()));
    let mut serving = cluster.start(0).await;
    let product = cluster.product(&serving).await;
    let mut next = cluster.stand_by(1, "owner,gateway").await;
    let buyer = cluster.token(1, Role::Shopper);
    let bought = serving.ask("POST", "/v1/orders").bearer(&buyer).json(&paid_with(&product, 3, "tok_ok"));
    let order = id(&bought.send().await.ok(201));
    let first = ask(&cluster, &next, 101, &order).await.ok(202);
    assert_eq!(ask(&cluster, &serving, 101, &order).await.ok(202), first);
    serving.kill();
    takes_over(&mut next).await;
    assert_eq!(ask(&cluster, &next, 101, &order).await.ok(202), first, "he is not two");
    let made = ask(&cluster, &next, 102, &order).await.ok(201);
    assert_eq!(made["amount"]["amount"], 30);
    let told = ask(&cluster, &next, 101, &order).await.ok(202);
    assert_eq!((&told["refund_id"], &told["seconded_by"]), (&made["id"], &json!(user(102).to_string())));
    let third = ask(&cluster, &next, 103, &order).await;
    third.problem(409, "order_state_conflict");
    let admin = cluster.token(0, Role::Admin);
    let refunds = next.ask("GET", &format!("/v1/admin/orders/{order}/refunds")).bearer(&admin).send().await;
    assert_eq!(refunds.ok(200)["data"].as_array().unwrap().len(), 1);
}
