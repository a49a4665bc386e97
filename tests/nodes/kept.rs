//! What nodes keep together: whoever reads all of the database, or all that Redis was ever told, learns nothing about anybody.

use std::path::Path;

use serde_json::json;
use sqlx::{Connection, MySqlConnection};
use stockade_servers::Redis;

use super::Cluster;
use super::support::{Pair, Person, Process, Search, Secrets, paid_with, rights, wait_for};

/// What somebody does who buys something; and what he is told of it all.
async fn buys(
    lead: &Process,
    other: &Process,
    person: &Person,
    product: &str,
    secrets: &mut Secrets,
) -> String {
    secrets.keep_person(person);
    assert_eq!(other.sign_up(person).await.status, 202);
    let link = lead.letter(&person.email, 1).await.token();
    secrets.keep_link(&link);
    assert_eq!(other.verify(&link).await.status, 204);
    let wrong = Person { password: "a guess that is wrong".to_owned(), ..person.clone() };
    secrets.keep("wrong password", &wrong.password);
    other.try_log_in(&wrong).await.problem(401, "unauthenticated");
    let device = format!("telephone of {}", person.name);
    secrets.keep("device", &device);
    let first = lead.log_in(person).await;
    let asked = other.post("/v1/sessions", &person.credentials()).header("User-Agent", &device);
    let second = Pair::of(&asked.send().await);
    let third = Pair::of(&lead.try_refresh(&second.refresh).await);
    for pair in [&first, &second, &third] {
        secrets.keep_pair(pair);
    }
    assert_eq!(other.as_of(&first, "DELETE", "/v1/sessions/current").send().await.status, 204);

    let (recipient, street) = (format!("{} junior", person.name), format!("{}, at the back", person.street));
    secrets.keep("recipient", &recipient);
    secrets.keep("address line of an order", &street);
    let mut body = paid_with(product, 1, "tok_ok");
    body["address"] = json!({
        "recipient": recipient, "line1": street, "city": "Seoul", "postal_code": "04524", "country": "KR",
    });
    other.as_of(&third, "POST", "/v1/orders").key("elsewhere").json(&body).send().await.ok(201);
    let item = &body["items"][0];
    lead.as_of(&third, "POST", "/v1/cart/items").json(item).send().await.ok(200);
    other.as_of(&third, "GET", "/v1/users/me/export").send().await.text
}

/// Every word and every byte in every table, by its column.
async fn columns(cluster: &Cluster) -> Vec<(String, Vec<u8>)> {
    let mut reader = MySqlConnection::connect(&cluster.database.url()).await.unwrap();
    let named: Vec<(String, String)> = sqlx::query_as(
        "select cast(table_name as char), cast(column_name as char) from information_schema.columns \
         where table_schema = database() and (data_type like '%char' or data_type like '%text' \
         or data_type like '%blob' or data_type like '%binary')",
    )
    .fetch_all(&mut reader)
    .await
    .unwrap();
    let mut all = Vec::new();
    for (table, column) in named {
        let sql = format!("select cast(`{column}` as binary) from `{table}` where `{column}` is not null");
        let sql: &'static str = sql.leak();
        let values: Vec<Vec<u8>> = sqlx::query_scalar(sql).fetch_all(&mut reader).await.unwrap();
        all.extend(values.into_iter().map(|value| (format!("{table}.{column}"), value)));
    }
    all
}

/// It looks for one word.
fn search_for(word: &str) -> Search {
    let mut one = Secrets::default();
    one.keep("word", word);
    one.search()
}

/// ASVS 11.3, 14.2.
#[actix_web::test]
async fn neither_the_database_nor_redis_knows_anybody() {
    let (mut cluster, redis) = (Cluster::open().await, Redis::started().await.unwrap());
    cluster.settings.push(("STOCKADE_REDIS_URL", redis.url()));
    let lead = cluster.start(0).await;
    let product = cluster.product(&lead).await;
    let other = cluster.stand_by(1, "owner,gateway").await;
    let (mut secrets, mut told) = (Secrets::default(), String::new());
    for number in [1, 2] {
        told += &buys(&lead, &other, &Person::number(number), &product, &mut secrets).await;
    }
    // It keeps a file of all that it was ever told to keep, what something else has taken the place of as well.
    let (_, folder): (String, String) = rights::ask(&redis.url(), "CONFIG GET dir").await.unwrap();
    let (redis_was_told, mirrored) = (Path::new(&folder).join("appendonlydir"), search_for(&product));
    wait_for(|| (!mirrored.under(&redis_was_told).is_empty()).then_some(())).await;
    other.stop().await;
    lead.stop().await;

    let (search, columns) = (secrets.search(), columns(&cluster).await);
    let mut found = search.under(&redis_was_told);
    for (column, value) in &columns {
        found.extend(search.of(value).iter().map(|what| format!("{column}: {what}")));
    }
    for folder in &cluster.folders[..2] {
        found.extend(search.under(&folder.path().join("log")));
    }
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));

    // And it can see, and has looked at the right places.
    let seen = search.of(told.as_bytes());
    for what in ["e-mail", "name", "address line", "recipient", "device"] {
        assert!(seen.iter().any(|line| line.starts_with(what)), "{what} is missing in {seen:?}");
    }
    for place in ["users.personal", "sessions.device_sealed", "order_addresses.sealed", "payments.state"] {
        assert!(columns.iter().any(|(column, _)| column == place), "{place} has nothing");
    }
    let sku = search_for("NODE-1");
    assert!(columns.iter().any(|(column, value)| column == "products.sku" && !sku.of(value).is_empty()));
}
