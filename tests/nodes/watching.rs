//! Whoever watches stock hears of it from the lead, whichever node that is: one that is cut off from the database alone does not know that
//! another has taken its place, and keeps nobody with what it knew.

use std::time::Duration;

use reqwest::{Client, Response};
use sqlx::{Connection, Executor, MySqlConnection};
use stockade::domain::user::Role;

use super::support::Process;
use super::{COME_WITHIN, Cluster, has_one, read};

async fn watched(client: &Client, node: &Process, product: &str) -> Response {
    let place = format!("http://{}/v1/products/{product}/stock/stream", node.addr());
    let mut stream = client.get(place).send().await.unwrap();
    assert!(stream.chunk().await.unwrap().is_some(), "nothing is told");
    stream
}

/// How a stream comes to its end.
#[derive(Debug, PartialEq)]
enum End {
    /// Whoever tells it has said that there is no more.
    Ended,
    /// Whoever passes it on has broken it off.
    Cut,
}

async fn end(mut stream: Response, whose: &str) -> End {
    let ending = async {
        loop {
            match stream.chunk().await {
                Ok(Some(_)) => {}
                Ok(None) => return End::Ended,
                Err(_) => return End::Cut,
            }
        }
    };
    tokio::time::timeout(COME_WITHIN, ending).await.unwrap_or_else(|_| panic!("{whose} goes on"))
}

#[actix_web::test]
async fn a_lead_without_its_database_keeps_nobody_who_watches() {
    let cluster = Cluster::open().await;
    let mut operator = MySqlConnection::connect(&cluster.database.url()).await.unwrap();
    for sql in ["create user loner identified by 'its_own'", "grant all privileges on *.* to loner"] {
        operator.execute(sql).await.unwrap();
    }
    let url = cluster.database.url();
    let (_, place) = url.split_once('@').unwrap();
    let url = format!("mysql://loner:its_own@{place}");
    let mut serving = cluster.begin_with(0, &[("STOCKADE_DATABASE_URL", url.as_str())]);
    serving.open().await;
    let product = cluster.product(&serving).await;
    let gateway = cluster.stand_by(1, "gateway").await;
    let _next = cluster.stand_by(2, "owner,gateway").await;
    // The lead knows that another may follow it.
    let admin = cluster.token(0, Role::Admin);
    let seen = async {
        while read(&serving, "/v1/admin/nodes", &admin).await["data"].as_array().unwrap().len() < 3 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(COME_WITHIN, seen).await.expect("three nodes");
    let client = Client::builder().tls_certs_only([]).build().unwrap();
    let there = watched(&client, &gateway, &product).await;
    let here = watched(&client, &serving, &product).await;

    operator.execute("alter user loner account lock").await.unwrap();
    let connections: Vec<i64> = sqlx::query_scalar(
        "select cast(id as signed) from information_schema.processlist where user = 'loner'",
    )
    .fetch_all(&mut operator)
    .await
    .unwrap();
    for connection in connections {
        // It may have ended by itself.
        let _ = sqlx::query("kill ?").bind(connection).execute(&mut operator).await;
    }
    // The lead lives and is connected, and would end it in order.
    assert_eq!(end(there, "the gateway's").await, End::Cut);
    has_one(&cluster, &gateway, &cluster.token(1, Role::Shopper), &product).await;
    drop(watched(&client, &gateway, &product).await);
    assert_eq!(end(here, "the lead's own").await, End::Ended);
}
