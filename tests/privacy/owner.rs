//! What somebody's own words are to the store, and to them.

use serde_json::json;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use stockade::domain::delivery::DeliveryState;

use super::support::{Shop, id, paid_with, wait_for};
use super::{dump, holds, log_in_from};

/// ASVS 14.2: nor does the store tell what a device calls itself, or why a line comes back: its owner reads both, also in rows of
/// before they were sealed.
#[actix_web::test]
async fn a_device_and_a_reason_are_read_by_their_owner_alone() {
    let shop = Shop::open().await;
    let product = shop.stocked(5).await;
    let mina = shop.newcomer(1).await;
    let pair = shop.log_in(&mina).await;
    let body = paid_with(&product, 1, "tok_ok");
    let order = id(&shop.as_of(&pair, "POST", "/v1/orders").json(&body).send().await.ok(201));
    shop.settle().await;
    shop.night().await;
    shop.night().await;
    let pair = log_in_from(&shop, &mina, "Minas Telefon 7").await;
    let path = format!("/v1/orders/{order}/lines/1/return");
    let why = json!({ "reason": "Minas Regal ist zu klein" });
    shop.as_of(&pair, "POST", &path).json(&why).send().await.ok(200);
    let told = async || {
        let listed = shop.as_of(&pair, "GET", "/v1/sessions").send().await.ok(200);
        let export = shop.as_of(&pair, "GET", "/v1/users/me/export").send().await.ok(200);
        assert_eq!(export["sessions"], listed["data"]);
        let (device, reason) = (&listed["data"][0]["device"], &export["deliveries"][0]["reason"]);
        [device, reason].map(|word| word.as_str().unwrap().to_owned())
    };
    assert_eq!(told().await, ["Minas Telefon 7", "Minas Regal ist zu klein"]);
    for word in ["Minas Telefon", "Minas Regal"] {
        assert!(!holds(&dump(shop.folder()), word), "the store holds {word}");
    }
    let before = [
        ("people.db", "update sessions set device = 'a phone of before', device_sealed = null"),
        ("money.db", "update deliveries set reason = 'as it was said', reason_sealed = null"),
    ];
    for (file, sql) in before {
        let options = SqliteConnectOptions::new().filename(shop.folder().join(file));
        let mut connection = options.connect().await.unwrap();
        sqlx::query(sql).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }
    assert_eq!(told().await, ["a phone of before", "as it was said"]);
    assert!(holds(&dump(shop.folder()), "as it was said"), "we look at the right place");
    let erase = json!({ "password": mina.password });
    assert_eq!(shop.as_of(&pair, "DELETE", "/v1/users/me").json(&erase).send().await.status, 204);
    wait_for(|| (!holds(&dump(shop.folder()), "as it was said")).then_some(())).await;
    shop.close().await;
}

/// An offline token has no key to seal a word under, and nobody could ever read it.
#[actix_web::test]
async fn why_somebody_without_an_account_sends_a_line_back_is_not_kept() {
    let shop = Shop::open().await;
    let product = shop.stocked(5).await;
    let body = paid_with(&product, 1, "tok_ok");
    let order = id(&shop.by(1, "POST", "/v1/orders").json(&body).send().await.ok(201));
    shop.settle().await;
    shop.night().await;
    shop.night().await;
    let path = format!("/v1/orders/{order}/lines/1/return");
    let why = json!({ "reason": "Minas Regal ist zu klein" });
    shop.by(1, "POST", &path).key("back").json(&why).send().await.ok(200);
    assert!(shop.by(1, "POST", &path).key("back").json(&why).send().await.replayed());
    let row = &shop.deliveries(&order).await[0];
    assert_eq!((row.state, &row.reason), (DeliveryState::ReturnRequested, &None));
    assert!(!holds(&dump(shop.folder()), "Minas Regal"));
    shop.close().await;
}
