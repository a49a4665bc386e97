//! What another node has ended is refused here, and so is everybody while it cannot be known.

use std::time::Duration;

use serde_json::json;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use stockade::domain::id::SessionId;
use stockade::domain::stock::Millis;
use stockade::persistence::Tables;

use super::support::Shop;
use super::{MINUTE, claims};

/// ASVS 7.4.1, 8.3.2: what another node has ended is refused here within ten seconds. The other node is a row in the table.
#[actix_web::test]
async fn what_another_node_has_ended_is_refused_within_ten_seconds() {
    let shop = Shop::open().await;
    let mina = shop.newcomer(1).await;
    let (pair, other) = (shop.log_in(&mina).await, shop.log_in(&mina).await);
    let session: SessionId = claims(&pair.access)["sid"].as_str().unwrap().parse().unwrap();
    let now = shop.clock.now();
    let options = SqliteConnectOptions::new().filename(shop.folder().join("people.db"));
    let mut node = options.busy_timeout(Duration::from_secs(10)).connect().await.unwrap();
    sqlx::query("insert into revocations (epoch_ms, until_ms, noted_at_ms, kind, subject) values (?, ?, ?, 'session', ?)")
        .bind(now.0)
        .bind(now.0 + 15 * MINUTE)
        .bind(now.0)
        .bind(session.as_bytes().to_vec())
        .execute(&mut node)
        .await
        .unwrap();
    node.close().await.unwrap();
    let refused = async { while shop.admits(&pair.access).await {} };
    tokio::time::timeout(Duration::from_secs(10), refused).await.expect("refused by then");
    assert!(shop.admits(&other.access).await);
    shop.close().await;
}

/// A look or an order: who would be let in may have been sent away elsewhere.
#[actix_web::test]
async fn nobody_is_let_in_while_it_cannot_be_read_who_was_sent_away() {
    let shop = Shop::open().await;
    let mina = shop.newcomer(1).await;
    let (pair, jar) = (shop.log_in(&mina).await, shop.stocked(5).await);

    // Whoever writes for long keeps nobody from reading it.
    let tables = Tables::read_only(shop.folder());
    let held = shop.hold("people.db").await;
    tables.revocations().since(Millis(0), shop.clock.now()).await.unwrap();
    held.let_go().await;
    tables.close().await.unwrap();
    shop.get("/readyz").send().await.ok(200);

    let options = SqliteConnectOptions::new().filename(shop.folder().join("people.db"));
    let mut people = options.busy_timeout(Duration::from_secs(10)).connect().await.unwrap();
    sqlx::query("alter table revocations rename to out_of_reach").execute(&mut people).await.unwrap();
    let told = loop {
        let told = shop.as_of(&pair, "GET", "/v1/orders").send_once().await;
        if told.status != 200 {
            break told;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    told.problem(503, "owner_unavailable");
    assert!(told.header("Retry-After").is_some());
    shop.order(1, &jar, 1).send_once().await.problem(503, "owner_unavailable");
    shop.admin("GET", "/v1/admin/orders").send_once().await.problem(503, "owner_unavailable");
    shop.get("/v1/orders").bearer("nonsense").send_once().await.problem(401, "unauthenticated");
    // What is published is for everybody.
    shop.get(&format!("/v1/products/{jar}")).send().await.ok(200);
    let unread = json!({ "status": "not_ready", "reasons": ["revocations_unread"], "degraded": [] });
    while shop.get("/readyz").send_once().await.json() != unread {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    sqlx::query("alter table out_of_reach rename to revocations").execute(&mut people).await.unwrap();
    people.close().await.unwrap();
    while shop.as_of(&pair, "GET", "/v1/orders").send_once().await.status != 200 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    shop.order(1, &jar, 1).send().await.ok(201);
    while shop.get("/readyz").send_once().await.status != 200 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    shop.close().await;
}
