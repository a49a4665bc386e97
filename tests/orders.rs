//! The doors to orders, through the real application.

#[path = "orders/keys.rs"]
mod keys;
mod support;

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use stockade::domain::id::{OrderId, ProductId};
use support::{Person, Shop, id, lines, one_line};

#[actix_web::test]
async fn an_order_is_held_found_listed_and_cancelled() {
    let shop = Shop::open().await;
    let jar = shop.product(5, json!({ "sku": "JAR-1", "name": "Jar" })).await;
    let jar = id(&jar);

    let placed = shop.order(1, &jar, 2).send().await;
    assert!(!placed.replayed());
    let order = placed.ok(201);
    assert_eq!(order["status"], "pending_payment");
    assert_eq!(order["total"], json!({ "amount": 2_000, "currency": "KRW" }));
    assert_eq!(order["payment"], json!(null));
    assert_eq!(
        order["lines"],
        json!([{
            "line": 1, "product_id": jar, "sku": "JAR-1", "name": "Jar", "quantity": 2,
            "unit_price": { "amount": 1_000, "currency": "KRW" }, "status": "held",
            "delivery_status": null, "delivered_at": null, "receipt": { "sequence": 2 },
        }])
    );
    for time in ["hold_expires_at", "created_at", "updated_at"] {
        let time = order[time].as_str().unwrap();
        assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
    }
    assert_eq!(shop.counters(&jar).await, [3, 2, 0, 2]);

    let path = format!("/v1/orders/{}", id(&order));
    let found = shop.by(1, "GET", &path).send().await.ok(200);
    assert_eq!(found["lines"], order["lines"]);
    shop.tables_follow().await;
    let listed = shop.by(1, "GET", "/v1/orders?status=pending_payment").send().await.ok(200);
    assert_eq!(listed["data"][0]["id"], order["id"]);
    assert_eq!(listed["next_cursor"], json!(null));

    let cancelled = shop.by(1, "POST", &format!("{path}/cancel")).send().await.ok(200);
    assert_eq!(
        (&cancelled["status"], &cancelled["lines"][0]["status"]),
        (&json!("cancelled"), &json!("released"))
    );
    assert_eq!(shop.counters(&jar).await, [5, 0, 0, 3]);
    shop.by(1, "POST", &format!("{path}/cancel")).send().await.problem(409, "order_state_conflict");
    assert_eq!(shop.counters(&jar).await, [5, 0, 0, 3]);
    shop.close().await;
}

#[actix_web::test]
async fn a_thousand_want_the_last_unit_and_one_gets_it() {
    let shop = Shop::open().await;
    let jar = shop.stocked(1).await;
    let tries = (0..1_000).map(|who| shop.order(who, &jar, 1).key("mine").send());
    let replies = join_all(tries).await;
    let (won, lost): (Vec<_>, Vec<_>) = replies.iter().partition(|reply| reply.status == 201);
    assert_eq!(won.len(), 1);
    for reply in lost {
        let problem = reply.problem(409, "sold_out");
        assert_eq!((&problem["available"], &problem["requested"]), (&json!(0), &json!(1)));
        assert!(problem["sequence"].as_u64().unwrap() >= 2);
        assert_eq!(problem["product_id"], json!(jar));
    }
    assert_eq!(shop.counters(&jar).await, [0, 1, 0, 2]);
    shop.close().await;
}

#[actix_web::test]
async fn several_lines_are_held_together_or_not_at_all() {
    let shop = Shop::open().await;
    let (jar, cup, pot) = (shop.stocked(5).await, shop.stocked(5).await, shop.stocked(1).await);
    let order = |who, asked: &[(&str, u32)]| shop.by(who, "POST", "/v1/orders").json(&lines(asked)).send();

    let placed = order(1, &[(&jar, 2), (&cup, 1), (&pot, 1)]).await.ok(201);
    assert_eq!(placed["total"]["amount"], 4_000);
    let numbers: Vec<_> =
        placed["lines"].as_array().unwrap().iter().map(|line| line["line"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 3]);

    let refused = order(2, &[(&jar, 1), (&cup, 1), (&pot, 1)]).await.problem(409, "sold_out");
    assert_eq!(refused["product_id"], json!(pot));
    for (product, left) in [(&jar, 3), (&cup, 4), (&pot, 0)] {
        assert_eq!(shop.counters(product).await[0], left);
    }

    let cancel = format!("/v1/orders/{}/cancel", id(&placed));
    let cancelled = shop.by(1, "POST", &cancel).send().await.ok(200);
    assert!(
        cancelled["lines"].as_array().unwrap().iter().all(|line| line["status"] == "released"),
        "{cancelled}"
    );
    for (product, left) in [(&jar, 5), (&cup, 5), (&pot, 1)] {
        assert_eq!(shop.counters(product).await[..3], [left, 0, 0]);
    }
    shop.close().await;
}

#[actix_web::test]
async fn two_who_cancel_at_once_give_back_once() {
    let shop = Shop::open().await;
    let jar = shop.stocked(10).await;
    for round in 0..20 {
        let order = shop.order(1, &jar, 3).send().await.ok(201);
        let cancel = format!("/v1/orders/{}/cancel", id(&order));
        let key = if round % 2 == 0 { "same" } else { "" };
        let both = join_all((0..2).map(|_| match key {
            "" => shop.by(1, "POST", &cancel).send(),
            key => shop.by(1, "POST", &cancel).key(key).send(),
        }))
        .await;
        let done = both.iter().filter(|reply| reply.status == 200).count();
        // With one key both hear of the one cancellation; without a key the second hears that it is over.
        assert_eq!(done, if key.is_empty() { 1 } else { 2 }, "{both:?}");
        assert_eq!(shop.counters(&jar).await, [10, 0, 0, 3 + 2 * round], "round {round}");
    }
    shop.close().await;
}

#[actix_web::test]
async fn what_belongs_to_somebody_else_is_not_there() {
    let shop = Shop::open().await;
    let jar = shop.stocked(5).await;
    let order = id(&shop.order(1, &jar, 1).send().await.ok(201));
    let nobodys = "order_01h455vb4pex5vsknk084sn02q";
    for (method, tail) in [("GET", ""), ("POST", "/cancel")] {
        let path = |id: &str| format!("/v1/orders/{id}{tail}");
        let foreign = shop.by(2, method, &path(&order)).send().await.problem(404, "not_found");
        let absent = shop.by(2, method, &path(nobodys)).send().await.problem(404, "not_found");
        assert_eq!((&foreign["title"], &foreign["detail"]), (&absent["title"], &absent["detail"]));
        for word in [
            jar.as_str(),
            "order_",
            "nonsense",
            "order_8zzzzzzzzzzzzzzzzzzzzzzzzz",
            "%00",
            "order_%F0%9F%98%80",
        ] {
            shop.by(1, method, &path(word)).send().await.problem(404, "not_found");
        }
    }
    assert_eq!(shop.by(2, "GET", "/v1/orders").send().await.ok(200)["data"], json!([]));
    assert_eq!(shop.counters(&jar).await[1], 1);
    shop.close().await;
}

#[actix_web::test]
async fn wrong_orders_get_the_contracts_problem_and_change_nothing() {
    let shop = Shop::open().await;
    let jar = shop.stocked(5_000).await;
    let item = |quantity: &str| format!(r#"{{"items":[{{"product_id":"{jar}","quantity":{quantity}}}]}}"#);
    for quantity in
        ["0", "-1", "1001", "2147483648", "4294967297", "1e3", "1.0", "\"1\"", "null", "true", "[]"]
    {
        let told = shop.by(1, "POST", "/v1/orders").body(item(quantity)).send().await;
        assert_eq!(told.invalid(), "/items/0/quantity", "{quantity}");
    }
    for (body, pointer) in [
        (lines(&[]), "/items"),
        (lines(&[(&jar, 1), (&jar, 1)]), "/items/1/product_id"),
        (json!({ "items": [{ "product_id": jar, "quantity": 1, "price": 1 }] }), "/items/0/price"),
        (
            json!({ "items": [{ "product_id": jar, "quantity": 1, "unit_price": { "amount": 1, "currency": "KRW" } }] }),
            "/items/0/unit_price",
        ),
        (json!({ "items": [{ "product_id": 5, "quantity": 1 }] }), "/items/0/product_id"),
        (json!({ "items": [{ "quantity": 1 }] }), "/items/0"),
        (json!({ "items": { "product_id": jar } }), "/items"),
        (json!({}), ""),
        (json!([]), ""),
        (json!("order"), ""),
        (json!(null), ""),
        (json!({ "items": [], "state": "paid" }), "/state"),
        (
            json!({ "items": [{ "product_id": jar, "quantity": 1 }], "payment": { "type": "card", "token": "tok_ok" } }),
            "/payment/token",
        ),
        (
            json!({ "items": [{ "product_id": jar, "quantity": 1 }], "address": { "city": "Seoul" } }),
            "/address",
        ),
        (
            json!({ "items": [{ "product_id": jar, "quantity": 1 }], "expected_total": { "amount": -1, "currency": "KRW" } }),
            "/expected_total/amount",
        ),
        (
            json!({ "items": [{ "product_id": jar, "quantity": 1 }], "expected_total": { "amount": 1.5, "currency": "KRW" } }),
            "/expected_total/amount",
        ),
        (
            json!({ "items": [{ "product_id": jar, "quantity": 1 }], "expected_total": { "amount": 1, "currency": "won" } }),
            "/expected_total/currency",
        ),
    ] {
        let told = shop.by(1, "POST", "/v1/orders").json(&body).send().await;
        assert_eq!(told.invalid(), pointer, "{body}");
    }
    let many: Vec<_> = (0..51).map(|n| (format!("prod_01h455vb4pex5vsknk0{:05}sn", n), 1)).collect();
    let many: Vec<_> = many.iter().map(|(product, quantity)| (product.as_str(), *quantity)).collect();
    let told = shop.by(1, "POST", "/v1/orders").json(&lines(&many)).send().await;
    assert_eq!((told.invalid(), &told.json()["limit"]), ("/items".to_owned(), &json!(50)));
    for product in ["prod_01h455vb4pex5vsknk084sn02q", "order_01h455vb4pex5vsknk084sn02q", "jar", ""] {
        let problem = shop.order(1, product, 1).send().await.problem(404, "not_found");
        assert!(problem.get("sequence").is_none(), "no ledger has decided it: {problem}");
    }
    for body in ["", "{", "[1,", "{\"items\":[}", "\u{0}", "{\"items\":[]} {}"] {
        shop.by(1, "POST", "/v1/orders").body(body).send().await.problem(400, "malformed_json");
    }
    shop.by(1, "POST", "/v1/orders").body(vec![b'"', 0xff, b'"']).send().await.problem(400, "malformed_json");
    // Never a list for an object, nor a number for broken JSON.
    let listed = shop.by(1, "POST", "/v1/orders").json(&json!([[[jar, 1]]])).send().await;
    let vast = shop.by(1, "POST", "/v1/orders").body("{\"items\":1e999}").send().await;
    assert_eq!((listed.invalid(), vast.invalid()), (String::new(), "/items".to_owned()));
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    assert!(shop.by(1, "POST", "/v1/orders").body(deep).send().await.status.is_client_error());
    for key in ["two words", "", &"k".repeat(256)] {
        let told = shop.order(1, &jar, 1).key(key).send().await;
        assert_eq!(told.invalid(), "Idempotency-Key", "{key:?}");
    }
    assert_eq!(shop.counters(&jar).await, [5_000, 0, 0, 1]);
    shop.close().await;
}

#[actix_web::test]
async fn an_order_has_one_currency() {
    let shop = Shop::open().await;
    let jar = shop.stocked(5).await;
    let cup = id(&shop.product(5, json!({ "price": { "amount": 1, "currency": "EUR" } })).await);
    for door in ["/v1/orders", "/v1/orders/preview"] {
        let told = shop.by(1, "POST", door).json(&lines(&[(&jar, 1), (&cup, 1)])).send().await;
        assert_eq!(told.invalid(), "/items");
    }
    for product in [jar, cup] {
        assert_eq!(shop.counters(&product).await[..3], [5, 0, 0]);
    }
    shop.close().await;
}

#[actix_web::test]
async fn fifty_lines_of_a_thousand_units_are_an_order() {
    let shop = Shop::open().await;
    let mut products = Vec::new();
    for _ in 0..50 {
        products.push(shop.stocked(1_000).await);
    }
    let asked: Vec<_> = products.iter().map(|product| (product.as_str(), 1_000)).collect();
    let order = shop.by(1, "POST", "/v1/orders").json(&lines(&asked)).send().await.ok(201);
    assert_eq!(order["total"]["amount"], 50_000_000);
    assert_eq!(order["lines"].as_array().unwrap().len(), 50);
    shop.close().await;
}

#[actix_web::test]
async fn a_sale_that_is_not_running_says_why() {
    let shop = Shop::open().await;
    let with_sale = |sale| shop.product(5, json!({ "sale": sale }));
    let later = id(&with_sale(json!({ "opens_at": "2999-01-01T00:00:00Z" })).await);
    let over = id(&with_sale(json!({ "closes_at": "2020-01-01T00:00:00Z" })).await);
    let told = shop.order(1, &later, 1).send().await;
    let wait: u64 = told.header("retry-after").unwrap().parse().unwrap();
    assert!(wait > 900 * 365 * 86_400, "it says when to come back, and not to come every second: {wait}");
    assert_eq!(told.problem(409, "sale_not_open")["opens_at"], "2999-01-01T00:00:00.000Z");
    shop.order(1, &over, 1).send().await.problem(409, "sale_closed");

    let jar = shop.stocked(5).await;
    shop.admin("POST", &format!("/v1/admin/products/{jar}/pause")).send().await.ok(200);
    shop.order(1, &jar, 1).send().await.problem(409, "sale_paused");
    shop.admin("POST", &format!("/v1/admin/products/{jar}/resume")).send().await.ok(200);
    shop.order(1, &jar, 1).send().await.ok(201);
    assert_eq!(shop.admin("DELETE", &format!("/v1/admin/products/{jar}")).send().await.status, 204);
    shop.order(1, &jar, 1).send().await.problem(409, "sale_closed");
    for product in [later, over] {
        assert_eq!(shop.counters(&product).await, [5, 0, 0, 1]);
    }
    shop.close().await;
}

#[actix_web::test]
async fn a_customers_limit_holds_against_fifty_at_once() {
    let shop = Shop::open().await;
    let jar = id(&shop.product(100, json!({ "sale": { "per_customer_limit": 3 } })).await);
    let replies = join_all((0..50).map(|_| shop.order(1, &jar, 1).send())).await;
    assert_eq!(replies.iter().filter(|reply| reply.status == 201).count(), 3);
    let refused =
        replies.iter().find(|reply| reply.status != 201).unwrap().problem(409, "customer_limit_exceeded");
    assert_eq!(
        (&refused["limit"], &refused["has"], &refused["requested"]),
        (&json!(3), &json!(3), &json!(1))
    );
    shop.order(2, &jar, 4).send().await.problem(409, "customer_limit_exceeded");
    shop.order(2, &jar, 3).send().await.ok(201);
    assert_eq!(shop.counters(&jar).await[..2], [94, 6]);
    shop.close().await;
}

#[actix_web::test]
async fn a_changed_price_is_refused_only_when_one_was_expected() {
    let shop = Shop::open().await;
    let (jar, cup) = (shop.stocked(5).await, shop.stocked(5).await);
    let expecting = |asked: &[(&str, u32)], amount: i64| {
        let mut body = lines(asked);
        body["expected_total"] = json!({ "amount": amount, "currency": "KRW" });
        shop.by(1, "POST", "/v1/orders").json(&body).send()
    };
    let told = expecting(&[(&jar, 2)], 1_999).await.problem(409, "price_changed");
    assert_eq!(told["actual"], json!({ "amount": 2_000, "currency": "KRW" }));
    expecting(&[(&jar, 2), (&cup, 1)], 2_999).await.problem(409, "price_changed");
    assert_eq!((shop.counters(&jar).await[0], shop.counters(&cup).await[0]), (5, 5));
    expecting(&[(&jar, 2)], 2_000).await.ok(201);
    expecting(&[(&jar, 2), (&cup, 1)], 3_000).await.ok(201);
    shop.close().await;
}

#[actix_web::test]
async fn a_preview_tells_the_price_and_what_is_short_and_holds_nothing() {
    let shop = Shop::open().await;
    let (jar, cup) = (shop.stocked(5).await, shop.stocked(1).await);
    let told =
        shop.by(1, "POST", "/v1/orders/preview").json(&lines(&[(&jar, 2), (&cup, 3)])).send().await.ok(200);
    assert_eq!(told["total"]["amount"], 5_000);
    assert_eq!((&told["orderable"], &told["address"]), (&json!(false), &json!(null)));
    assert_eq!((&told["lines"][0]["short"], &told["lines"][1]["short"]), (&json!(0), &json!(2)));
    assert_eq!(told["lines"][1]["sale_state"], "open");
    assert_eq!(shop.counters(&jar).await, [5, 0, 0, 1]);
    shop.by(1, "POST", "/v1/orders/preview")
        .json(&one_line("prod_x", 1))
        .send()
        .await
        .problem(404, "not_found");
    shop.close().await;
}

#[actix_web::test]
async fn pages_of_orders_are_complete_and_newest_first() {
    let shop = Shop::open().await;
    let jar = shop.stocked(100).await;
    let mut placed = Vec::new();
    for n in 0..25 {
        let order = id(&shop.order(1, &jar, 1).send().await.ok(201));
        if n % 5 == 0 {
            shop.by(1, "POST", &format!("/v1/orders/{order}/cancel")).send().await.ok(200);
        }
        placed.push(order);
    }
    placed.sort();
    placed.reverse();
    shop.tables_follow().await;
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = shop.by(1, "GET", &format!("/v1/orders?limit=7{cursor}")).send().await.ok(200);
        seen.extend(page["data"].as_array().unwrap().iter().map(id));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, placed);
    let cancelled = shop.by(1, "GET", "/v1/orders?status=cancelled").send().await.ok(200);
    assert_eq!(cancelled["data"].as_array().unwrap().len(), 5);
    for (query, pointer) in [
        ("status=lost", "?status"),
        ("limit=0", "?limit"),
        ("limit=101", "?limit"),
        ("limit=x", "?limit"),
        ("cursor=x", "?cursor"),
    ] {
        assert_eq!(shop.by(1, "GET", &format!("/v1/orders?{query}")).send().await.invalid(), pointer);
    }
    shop.by(1, "GET", "/v1/orders?unknown=1").send().await.ok(200);
    shop.close().await;
}

#[actix_web::test]
async fn a_hold_lapses_by_itself_and_the_order_says_so() {
    let shop = Shop::open().await;
    let jar = id(&shop.product(5, json!({ "sale": { "hold_seconds": 1 } })).await);
    let order = shop.order(1, &jar, 2).key("k").send().await.ok(201);
    let mut events = shop.listen(&jar, None).await;
    let mut heard = String::new();
    while !heard.contains(r#""available":5"#) {
        heard += std::str::from_utf8(&events.chunk().await.unwrap().unwrap()).unwrap();
    }
    let path = format!("/v1/orders/{}", id(&order));
    let now = shop.by(1, "GET", &path).send().await.ok(200);
    assert_eq!((&now["status"], &now["lines"][0]["status"]), (&json!("expired"), &json!("released")));
    shop.by(1, "POST", &format!("{path}/cancel")).send().await.problem(410, "hold_expired");
    let again = shop.order(1, &jar, 2).key("k").send().await;
    assert!(again.replayed());
    assert_eq!(again.ok(201)["status"], "expired");
    shop.close().await;
}

/// What was sold before goes by the clock as it was then, and no ledger goes back in time.
#[actix_web::test]
async fn an_order_can_be_paid_though_the_clock_was_set_back() {
    let shop = Shop::open().await;
    let (jar, cup) = (shop.stocked(5).await, shop.stocked(5).await);
    shop.clock.advance(-3_600_000);
    let both = lines(&[(&jar, 1), (&cup, 1)]);
    for ask in [one_line(&jar, 1), both] {
        let order = id(&shop.by(1, "POST", "/v1/orders").json(&ask).send().await.ok(201));
        assert_eq!(shop.pay(1, &order, "tok_ok").send().await.ok(200)["status"], "paid");
    }
    for (product, sold) in [(&jar, 2), (&cup, 1)] {
        assert_eq!(shop.counters(product).await[..3], [5 - sold, 0, sold]);
    }
    shop.close().await;
}

/// Whoever has a token is asked nothing more: no log-in, letter or cart of anybody's holds up an order.
#[actix_web::test]
async fn an_order_waits_for_nothing_that_is_written_about_people() {
    let shop = Shop::open().await;
    let jar = shop.stocked(2).await;
    shop.newcomer(1).await;
    let mina = shop.log_in(&Person::number(1)).await;
    let people = shop.hold("people.db").await;
    let order = || shop.as_of(&mina, "POST", "/v1/orders").json(&one_line(&jar, 1)).send_once();
    for _ in 0..2 {
        order().await.ok(201);
    }
    order().await.problem(409, "sold_out");
    people.let_go().await;
    shop.close().await;
}

/// Its owner goes by the time at which it sold before, and the doors with it: also after a restart, by the clock as it was set.
#[actix_web::test]
async fn a_sale_that_has_begun_stays_open_though_the_clock_was_set_back() {
    let shop = Shop::open().await;
    let opens = shop.clock.now().plus(3_600_000);
    let opens = jiff::Timestamp::from_millisecond(opens.0).unwrap().to_string();
    let jar = id(&shop.product(5, json!({ "sale": { "opens_at": opens } })).await);
    shop.order(1, &jar, 1).send().await.problem(409, "sale_not_open");
    shop.clock.advance(3_600_000);
    shop.order(1, &jar, 1).send().await.ok(201);
    shop.clock.advance(-3_600_000);
    shop.order(2, &jar, 1).send().await.ok(201);
    let shop = shop.reopen().await;
    let page = shop.get(&format!("/v1/products/{jar}")).send().await.ok(200);
    assert_eq!(page["sale"]["state"], "open");
    let told = shop.by(3, "POST", "/v1/orders/preview").json(&one_line(&jar, 1)).send().await.ok(200);
    assert_eq!((&told["orderable"], &told["lines"][0]["sale_state"]), (&json!(true), &json!("open")));
    shop.order(3, &jar, 1).send().await.ok(201);
    shop.close().await;
}

/// Its row still says that it waits for its payment, and its owner, which knows better, is at rest.
#[actix_web::test]
async fn an_order_is_shown_as_it_is_though_its_owner_rests_and_the_tables_are_behind() {
    let shop = Shop::open().await;
    let jar = shop.stocked(5).await;
    let path = format!("/v1/orders/{}", id(&shop.order(1, &jar, 1).send().await.ok(201)));
    shop.tables_follow().await;
    let tables = shop.hold("shop.db").await;
    shop.by(1, "POST", &format!("{path}/cancel")).send().await.ok(200);
    shop.clock.advance(61_000);
    let product = jar.parse().unwrap();
    let at_rest = async {
        while shop.app().directory().peek(product).is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), at_rest).await.expect("nobody asks, and nothing lapses");
    assert_eq!(shop.by(1, "GET", &path).send().await.ok(200)["status"], "cancelled");
    tables.let_go().await;
    shop.close().await;
}

/// Its owner may have gone before its row was written.
#[actix_web::test]
async fn that_there_is_no_such_order_is_said_by_tables_that_show_everything() {
    let shop = Shop::open().await;
    let jar = shop.stocked(5).await;
    let tables = shop.hold("shop.db").await;
    let order = id(&shop.order(1, &jar, 1).send().await.ok(201));
    shop.by(1, "GET", &format!("/v1/orders/{order}")).send().await.ok(200);
    let nobody_s = format!("/v1/orders/{}", OrderId::new(shop.clock.now(), 7));
    shop.by(1, "GET", &nobody_s).send().await.problem(503, "owner_unavailable");
    tables.let_go().await;
    let told = async {
        loop {
            let answer = shop.by(1, "GET", &nobody_s).send().await;
            if answer.status != 503 {
                return answer;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), told).await.unwrap().problem(404, "not_found");
    shop.close().await;
}

/// Whatever it had acknowledged stands in the tables: that an id is nobody's is no secret of its own.
#[actix_web::test]
async fn a_product_that_stands_still_makes_no_failure_of_ids_that_are_nobody_s() {
    let shop = Shop::open().await;
    let jar = shop.stocked(5).await;
    let order = id(&shop.order(1, &jar, 1).send().await.ok(201));
    let folder = shop.stop().await;
    let options = SqliteConnectOptions::new().filename(folder.path().join("journal.db"));
    let mut journal = SqliteConnection::connect_with(&options).await.unwrap();
    let product: ProductId = jar.parse().unwrap();
    let damaging = sqlx::query("update journal set hash = zeroblob(16) where product_id = ?");
    let damaged = damaging.bind(&product.as_bytes()[..]).execute(&mut journal).await.unwrap();
    assert!(damaged.rows_affected() > 0);
    journal.close().await.unwrap();

    let shop = Shop::open_in(folder).await;
    shop.order(2, &jar, 1).send().await.problem(500, "internal");
    let look = async |id: OrderId| shop.by(1, "GET", &format!("/v1/orders/{id}")).send().await;
    look(OrderId::for_home(shop.clock.now(), 7, product)).await.problem(404, "not_found");
    look(order.parse().unwrap()).await.problem(500, "internal");
    shop.close().await;
}

#[actix_web::test]
async fn who_tries_too_often_is_told_when_to_come_back() {
    let shop = Shop::open_with(|config| {
        config.limits.order_rate_per_user = 1;
        config.limits.order_burst_per_user = 3;
    })
    .await;
    let jar = shop.stocked(100).await;
    let mut placed = 0;
    let refused = loop {
        let reply = shop.order(1, &jar, 1).send().await;
        if reply.status != 201 {
            break reply;
        }
        placed += 1;
    };
    // One a second is added while it goes on.
    assert!((3..30).contains(&placed), "{placed}");
    refused.problem(429, "rate_limited");
    assert!(refused.header("Retry-After").unwrap().parse::<u32>().unwrap() >= 1);
    assert_eq!(refused.header("RateLimit-Policy"), Some(r#""orders";q=3;w=3"#));
    assert_eq!(refused.header("RateLimit"), Some(r#""orders";r=0;t=1"#));
    shop.order(2, &jar, 1).send().await.ok(201);
    shop.close().await;
}

/// It costs as much to look at, so it is counted with them.
#[actix_web::test]
async fn previews_are_tries_like_orders() {
    let shop = Shop::open_with(|config| {
        config.limits.order_rate_per_user = 1;
        config.limits.order_burst_per_user = 3;
    })
    .await;
    let jar = shop.stocked(100).await;
    let preview = |who| shop.by(who, "POST", "/v1/orders/preview").json(&one_line(&jar, 1)).send();
    let mut seen = 0;
    let refused = loop {
        let reply = preview(1).await;
        if reply.status != 200 || seen == 30 {
            break reply;
        }
        seen += 1;
    };
    // One a second is added while it goes on.
    assert!(seen >= 3, "{seen}");
    refused.problem(429, "rate_limited");
    assert!(refused.header("RateLimit").unwrap().starts_with(r#""orders";"#));
    preview(2).await.ok(200);
    shop.close().await;
}
