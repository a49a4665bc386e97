//! The database keeps what it says yes to, or operators hear that it does not.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::{Connection, Executor, MySqlConnection};
use stockade::domain::user::Role;

use super::support::{Process, one_line};
use super::{COME_WITHIN, Cluster};

async fn becomes(process: &Process, wanted: Value) {
    let coming = async {
        loop {
            let health = process.ask("GET", "/readyz").send().await.ok(200);
            if health["degraded"] == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(COME_WITHIN, coming).await.expect("it is never told");
}

#[actix_web::test]
async fn a_database_that_is_set_to_forget_is_told_of_and_sells_on() {
    let cluster = Cluster::open().await;
    let serving = cluster.start(0).await;
    let product = cluster.product(&serving).await;
    let buyer = cluster.token(1, Role::Shopper);
    let mut operator = MySqlConnection::connect(&cluster.database.url()).await.unwrap();
    becomes(&serving, json!([])).await;
    operator.execute("set global innodb_flush_log_at_trx_commit = 2").await.unwrap();
    becomes(&serving, json!(["database_unfit"])).await;
    serving.ask("POST", "/v1/orders").bearer(&buyer).json(&one_line(&product, 1)).send().await.ok(201);
    operator.execute("set global innodb_flush_log_at_trx_commit = 1").await.unwrap();
    becomes(&serving, json!([])).await;
    let log = serving.log();
    let told: Vec<_> = log.lines().filter(|line| line.contains("may lose what is acknowledged")).collect();
    assert!(matches!(&told[..], [one] if one.contains("innodb_flush_log_at_trx_commit = 1")), "{log}");
}
