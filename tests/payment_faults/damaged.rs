//! A payment's row that somebody or something has damaged, and who hears of it.

use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use stockade::domain::id::PaymentId;

use super::support::{Shop, card, id};

async fn spoil(shop: &Shop, sql: &'static str, payment: PaymentId) {
    let options = SqliteConnectOptions::new().filename(shop.folder().join("money.db"));
    let mut money = options.pragma("ignore_check_constraints", "1").connect().await.unwrap();
    let spoiled = sqlx::query(sql).bind(&payment.as_bytes()[..]).execute(&mut money).await.unwrap();
    assert_eq!(spoiled.rows_affected(), 1);
    money.close().await.unwrap();
}

/// Whoever asks with a key of this order need not ask again until it is mended, nobody is charged twice, and nobody else notices.
#[actix_web::test]
async fn a_payment_that_cannot_be_read_is_told_at_once_and_is_nobody_else_s() {
    let shop = Shop::open().await;
    let jar = shop.stocked(9).await;
    let buy = |key: &str| shop.buy(1, &jar, 1, "tok_ok").key(key);
    let order = id(&buy("k").send().await.ok(201));
    buy("other").send().await.ok(201);
    shop.settle().await;
    let damaged = shop.app().payments().paid(order.parse().unwrap()).await.unwrap().unwrap().id;
    spoil(&shop, "update payments set currency = 'coins' where id = ?", damaged).await;
    let cancel = shop.by(1, "POST", &format!("/v1/orders/{order}/cancel"));
    for ask in [buy("k"), shop.pay(1, &order, "tok_ok").key("p"), cancel.key("c")] {
        ask.send_once().await.problem(500, "internal");
    }
    assert!(buy("other").send().await.replayed());
    buy("new").send().await.ok(201);
    assert_eq!(shop.charges().len(), 3);
    // Its buyer sees all of his orders, and of this one what its products' owners know; so does whoever works here.
    shop.tables_follow().await;
    let listed = shop.by(1, "GET", "/v1/orders").send().await.ok(200);
    let found = shop.admin("GET", "/v1/admin/orders").send().await.ok(200);
    let alone = json!({ "data": [shop.order_of(1, &order).await] });
    for (page, count) in [(listed, 3), (found, 3), (alone, 1)] {
        let orders = page["data"].as_array().unwrap();
        assert_eq!(orders.len(), count, "{page}");
        for shown in orders {
            assert_eq!(shown["status"], "paid");
            let is_damaged = id(shown) == order;
            assert_eq!(shown["payment"].is_null(), is_damaged, "{shown}");
            assert_eq!(shown["lines"][0]["delivery_status"].is_null(), is_damaged, "{shown}");
        }
    }

    spoil(&shop, "update payments set currency = 'KRW' where id = ?", damaged).await;
    let again = buy("k").send().await;
    assert!(again.replayed());
    assert_eq!(id(&again.ok(201)), order);
    shop.settle().await;
    shop.assert_settled(&[(&jar, 9)]).await;
    shop.close().await;
}

/// Its payment cannot be read; what has become of its lines can, and is what its buyer sees.
#[actix_web::test]
async fn lines_of_an_order_whose_payment_cannot_be_read_are_shown_as_they_are() {
    let shop = Shop::open().await;
    let (jar, lid) = (shop.stocked(2).await, shop.stocked(2).await);
    let items = json!([{ "product_id": jar, "quantity": 1 }, { "product_id": lid, "quantity": 1 }]);
    let both = json!({ "items": items, "payment": card("tok_ok") });
    let order = id(&shop.by(1, "POST", "/v1/orders").json(&both).send().await.ok(201));
    shop.by(1, "POST", &format!("/v1/orders/{order}/lines/2/cancel")).send().await.ok(200);
    shop.settle().await;
    shop.tables_follow().await;
    let sound = shop.order_of(1, &order).await;
    let damaged = shop.app().payments().paid(order.parse().unwrap()).await.unwrap().unwrap().id;
    spoil(&shop, "update payments set currency = 'coins' where id = ?", damaged).await;
    let shown = shop.order_of(1, &order).await;
    assert_eq!(shown["payment"], json!(null));
    let statuses =
        |order: &Value| [&order["lines"][0], &order["lines"][1]].map(|line| line["status"].clone());
    assert_eq!(statuses(&shown), [json!("ordered"), json!("cancelled")]);
    for member in ["status", "total"] {
        assert_eq!(shown[member], sound[member]);
    }
    shop.close().await;
}
