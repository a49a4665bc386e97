//! The doors to the cart: what is put in, what it shows, and what it refuses.

mod support;

use futures_util::future::join_all;
use serde_json::{Value, json};
use stockade::domain::cart::LINES_MAX;
use support::{Ask, Reply, Shop};

fn put(shop: &Shop, who: u64, product: &str, quantity: u32) -> Ask {
    shop.by(who, "PUT", &format!("/v1/cart/items/{product}")).json(&json!({ "quantity": quantity }))
}

fn add(shop: &Shop, who: u64, product: &str, quantity: u32) -> Ask {
    let item = json!({ "product_id": product, "quantity": quantity });
    shop.by(who, "POST", "/v1/cart/items").json(&item)
}

async fn cart(shop: &Shop, who: u64) -> Value {
    shop.by(who, "GET", "/v1/cart").send().await.ok(200)
}

fn lines(cart: &Value) -> Vec<(String, u64)> {
    let line =
        |line: &Value| (line["product_id"].as_str().unwrap().to_owned(), line["quantity"].as_u64().unwrap());
    cart["lines"].as_array().unwrap().iter().map(line).collect()
}

fn won(amount: u64) -> Value {
    json!({ "amount": amount, "currency": "KRW" })
}

#[actix_web::test]
async fn every_answer_is_the_whole_cart_with_the_price_and_the_stock_of_this_moment() {
    let shop = Shop::open().await;
    let jar = shop.product(5, json!({ "name": "Moon jar", "price": won(1_000) })).await;
    let (jar, sku) = (support::id(&jar), jar["sku"].clone());
    let cup = support::id(&shop.product(9, json!({ "name": "Tea cup", "price": won(70) })).await);
    let empty = cart(&shop, 1).await;
    assert_eq!(
        (&empty["lines"], &empty["subtotal"], &empty["total"]),
        (&json!([]), &Value::Null, &Value::Null)
    );
    assert_eq!((&empty["orderable"], &empty["version"]), (&json!(false), &json!(0)));

    add(&shop, 1, &jar, 2).send().await.ok(200);
    shop.clock.advance(1_000);
    let told = put(&shop, 1, &cup, 3).send().await.ok(200);
    assert_eq!(told, cart(&shop, 1).await);
    assert_eq!(lines(&told), [(jar.clone(), 2), (cup.clone(), 3)], "what came first stands first");
    assert_eq!((&told["subtotal"], &told["total"]), (&won(2_210), &won(2_210)));
    assert_eq!(
        (&told["orderable"], &told["mixed_currencies"], &told["version"]),
        (&json!(true), &json!(false), &json!(2))
    );
    let line = &told["lines"][0];
    assert_eq!((&line["sku"], &line["name"]), (&sku, &json!("Moon jar")));
    assert_eq!((&line["unit_price"], &line["subtotal"]), (&won(1_000), &won(2_000)));
    assert_eq!(
        (&line["available"], &line["short"], &line["sale_state"]),
        (&json!(5), &json!(0), &json!("open"))
    );

    // It promises nothing: somebody else buys, and the price changes.
    shop.order(2, &jar, 4).send().await.ok(201);
    let patch = json!({ "price": won(90) });
    shop.admin("PATCH", &format!("/v1/admin/products/{cup}"))
        .header("If-Match", "*")
        .json(&patch)
        .send()
        .await
        .ok(200);
    let told = cart(&shop, 1).await;
    assert_eq!((&told["lines"][0]["available"], &told["lines"][0]["short"]), (&json!(1), &json!(1)));
    assert_eq!(told["lines"][1]["unit_price"], won(90));
    assert_eq!(
        (&told["subtotal"], &told["total"], &told["orderable"]),
        (&won(2_270), &won(270), &json!(false))
    );

    // Replaced, added to, taken out; also what was not in it.
    assert_eq!(lines(&put(&shop, 1, &jar, 1).send().await.ok(200)), [(jar.clone(), 1), (cup.clone(), 3)]);
    assert_eq!(lines(&add(&shop, 1, &jar, 4).send().await.ok(200)), [(jar.clone(), 5), (cup.clone(), 3)]);
    let out = format!("/v1/cart/items/{jar}");
    for _ in 0..2 {
        assert_eq!(lines(&shop.by(1, "DELETE", &out).send().await.ok(200)), [(cup.clone(), 3)]);
    }
    let shop = shop.reopen().await;
    assert_eq!(lines(&cart(&shop, 1).await), [(cup, 3)], "a restart changes nothing");
    for _ in 0..2 {
        assert_eq!(lines(&shop.by(1, "DELETE", "/v1/cart").send().await.ok(200)), []);
    }
    assert_eq!(lines(&cart(&shop, 2).await), [], "everybody has their own");
    shop.close().await;
}

#[actix_web::test]
async fn a_line_that_cannot_be_ordered_says_why() {
    let shop = Shop::open().await;
    let [gone, paused, closed] = [shop.stocked(5).await, shop.stocked(5).await, shop.stocked(5).await];
    let opens = json!({ "sale": { "opens_at": "2099-01-01T00:00:00.000Z" } });
    let later = support::id(&shop.product(5, opens).await);
    let jar = shop.stocked(5).await;
    for product in [&gone, &paused, &later, &closed, &jar] {
        put(&shop, 1, product, 1).send().await.ok(200);
    }
    shop.admin("DELETE", &format!("/v1/admin/products/{gone}")).send().await;
    shop.admin("POST", &format!("/v1/admin/products/{paused}/pause")).send().await.ok(200);
    let patch = json!({ "sale": { "closes_at": "2020-01-01T00:00:00.000Z" } });
    let path = format!("/v1/admin/products/{closed}");
    shop.admin("PATCH", &path).header("If-Match", "*").json(&patch).send().await.ok(200);
    let told = cart(&shop, 1).await;
    let states: Vec<&str> =
        told["lines"].as_array().unwrap().iter().map(|line| line["sale_state"].as_str().unwrap()).collect();
    assert_eq!(states, ["archived", "paused", "not_open", "closed", "open"]);
    assert_eq!(told["lines"][2]["opens_at"], "2099-01-01T00:00:00.000Z");
    assert_eq!(
        (&told["subtotal"], &told["total"], &told["orderable"]),
        (&won(5_000), &won(1_000), &json!(false))
    );
    // What is off sale for good is not put in any more, but goes out.
    put(&shop, 1, &gone, 2).send().await.problem(409, "sale_closed");
    add(&shop, 2, &gone, 1).send().await.problem(409, "sale_closed");
    let out = shop.by(1, "DELETE", &format!("/v1/cart/items/{gone}")).send().await.ok(200);
    assert_eq!(lines(&out).len(), 4);
    shop.close().await;
}

#[actix_web::test]
async fn several_currencies_are_told_and_not_added_up() {
    let shop = Shop::open().await;
    let jar = shop.stocked(5).await;
    let price = json!({ "price": { "amount": 30, "currency": "EUR" } });
    let mug = support::id(&shop.product(5, price).await);
    put(&shop, 1, &jar, 2).send().await.ok(200);
    let told = put(&shop, 1, &mug, 3).send().await.ok(200);
    assert_eq!((&told["subtotal"], &told["total"]), (&Value::Null, &Value::Null));
    assert_eq!((&told["mixed_currencies"], &told["orderable"]), (&json!(true), &json!(false)));
    assert_eq!(told["subtotals"], json!([{ "amount": 90, "currency": "EUR" }, won(2_000)]));
    let checkout = |body: Value| shop.by(1, "POST", "/v1/cart/checkout").json(&body);
    checkout(json!({})).send().await.problem(422, "validation_failed");
    assert_eq!(lines(&cart(&shop, 1).await).len(), 2, "a refusal takes nothing out");
    checkout(json!({ "product_ids": [mug] })).send().await.ok(201);
    assert_eq!(lines(&cart(&shop, 1).await), [(jar, 2)]);
    shop.close().await;
}

#[actix_web::test]
async fn a_cart_has_bounds_and_cuts_nothing_down() {
    let shop = Shop::open().await;
    let made = join_all((0..=LINES_MAX).map(|_| shop.stocked(2_000))).await;
    let (last, most) = made.split_last().unwrap();
    for product in most {
        put(&shop, 1, product, 1).send().await.ok(200);
    }
    for ask in [put(&shop, 1, last, 1), add(&shop, 1, last, 1)] {
        assert_eq!(ask.send().await.problem(422, "validation_failed")["limit"], LINES_MAX as u64);
    }
    let jar = &most[7];
    add(&shop, 1, jar, 998).send().await.ok(200);
    let problem = add(&shop, 1, jar, 2).send().await.problem(422, "validation_failed");
    assert_eq!(
        (&problem["limit"], &problem["has"], &problem["requested"], &problem["errors"][0]["pointer"]),
        (&json!(1_000), &json!(999), &json!(2), &json!("/quantity"))
    );
    let told = add(&shop, 1, jar, 1).send().await.ok(200);
    assert_eq!(lines(&told)[7], (jar.clone(), 1_000));
    // The largest cart is one order.
    let placed = shop.by(1, "POST", "/v1/cart/checkout").json(&json!({})).send().await.ok(201);
    assert_eq!(placed["lines"].as_array().unwrap().len(), LINES_MAX);
    assert_eq!(lines(&cart(&shop, 1).await), []);
    shop.close().await;
}

#[actix_web::test]
async fn what_is_not_a_product_or_not_a_number_is_refused() {
    let shop = Shop::open().await;
    let jar = shop.stocked(5).await;
    for nobodys in ["prod_01h455vb4pex5vsknk084sn02q", "order_01h455vb4pex5vsknk084sn02q", "nonsense", "%2e"]
    {
        put(&shop, 1, nobodys, 1).send().await.problem(404, "not_found");
        add(&shop, 1, nobodys, 1).send().await.problem(404, "not_found");
    }
    shop.by(1, "DELETE", "/v1/cart/items/nonsense").send().await.problem(404, "not_found");
    let path = format!("/v1/cart/items/{jar}");
    for bad in [json!(0), json!(1_001), json!(-1), json!(1.5), json!("1"), Value::Null, json!(u64::MAX)] {
        let told = shop.by(1, "PUT", &path).json(&json!({ "quantity": bad })).send().await;
        assert_eq!(told.invalid(), "/quantity");
        let item = json!({ "product_id": jar, "quantity": bad });
        assert_eq!(shop.by(1, "POST", "/v1/cart/items").json(&item).send().await.invalid(), "/quantity");
    }
    let surplus = json!({ "quantity": 1, "price": won(1) });
    assert_eq!(shop.by(1, "PUT", &path).json(&surplus).send().await.invalid(), "/price");
    shop.by(1, "PUT", &path).body("{").send().await.problem(400, "malformed_json");
    shop.by(1, "PUT", &path).raw("text/plain", "{}").send().await.problem(415, "unsupported_media_type");
    assert_eq!(shop.by(1, "PUT", &path).body("[]").send().await.status, 422);
    for key in ["", "two words", &"k".repeat(256)] {
        add(&shop, 1, &jar, 1).key(key).send().await.invalid();
    }
    shop.by(1, "PATCH", "/v1/cart").send().await.problem(405, "method_not_allowed");
    assert_eq!(lines(&cart(&shop, 1).await), []);
    shop.close().await;
}

#[actix_web::test]
async fn the_same_key_adds_once() {
    let shop = Shop::open().await;
    let (jar, cup) = (shop.stocked(5).await, shop.stocked(5).await);
    let first = add(&shop, 1, &jar, 2).key("k").send().await;
    assert!(!first.replayed());
    let again = join_all((0..8).map(|_| add(&shop, 1, &jar, 2).key("k").send())).await;
    for reply in &again {
        assert!(reply.replayed());
        assert_eq!(lines(&reply.ok(200)), [(jar.clone(), 2)]);
    }
    add(&shop, 1, &jar, 3).key("k").send().await.problem(422, "idempotency_key_reused");
    add(&shop, 1, &cup, 2).key("k").send().await.problem(422, "idempotency_key_reused");
    // Somebody else's key is another one, and a refusal binds nothing.
    assert_eq!(lines(&add(&shop, 2, &cup, 1).key("k").send().await.ok(200)), [(cup.clone(), 1)]);
    put(&shop, 1, &jar, 999).send().await.ok(200);
    add(&shop, 1, &jar, 5).key("full").send().await.problem(422, "validation_failed");
    put(&shop, 1, &jar, 1).send().await.ok(200);
    let told = add(&shop, 1, &jar, 5).key("full").send().await;
    assert!(!told.replayed());
    assert_eq!(lines(&told.ok(200)), [(jar.clone(), 6)]);
    // A cart that has changed is told as it is now; after a day the key is forgotten.
    let shop = shop.reopen().await;
    assert!(add(&shop, 1, &jar, 2).key("k").send().await.replayed());
    shop.clock.advance(24 * 3_600 * 1_000 + 1);
    shop.app().carts().clear_away().await.unwrap();
    assert_eq!(lines(&add(&shop, 1, &jar, 2).key("k").send().await.ok(200)), [(jar, 8)]);
    shop.close().await;
}

#[actix_web::test]
async fn many_at_once_lose_nothing() {
    let shop = Shop::open().await;
    let jar = shop.stocked(5).await;
    let heard: Vec<Reply> = join_all((0..100).map(|_| add(&shop, 1, &jar, 1).send())).await;
    assert!(heard.iter().all(|reply| reply.status == 200));
    let told = cart(&shop, 1).await;
    assert_eq!((lines(&told), &told["version"]), (vec![(jar, 100)], &json!(100)));
    shop.close().await;
}

#[actix_web::test]
async fn a_cart_is_exported_and_goes_with_the_account() {
    // Nobody may try to pay: a checkout that pays leaves a held order, and is not decided.
    let shop = Shop::open_with(|config| config.payment.attempts = 0).await;
    let jar = shop.stocked(5).await;
    let mina = shop.newcomer(1).await;
    let pair = shop.log_in(&mina).await;
    let item = json!({ "product_id": jar, "quantity": 2 });
    shop.as_of(&pair, "POST", "/v1/cart/items").key("k").json(&item).send().await.ok(200);
    let told = shop.as_of(&pair, "GET", "/v1/users/me/export").send().await.ok(200);
    assert_eq!(
        (&told["cart"]["lines"][0]["product_id"], &told["cart"]["lines"][0]["quantity"]),
        (&json!(jar), &json!(2))
    );
    let pays = json!({ "payment": support::card("tok_ok") });
    let open = shop.as_of(&pair, "POST", "/v1/cart/checkout").key("c").json(&pays).send().await;
    open.problem(409, "order_state_conflict");
    assert_eq!(shop.counters(&jar).await[..3], [3, 2, 0]);
    let people = shop.folder().join("people.db");
    let tables = ["carts", "cart_lines", "cart_additions", "checkouts"];
    for table in tables {
        assert_eq!(rows(&people, table).await, 1, "{table}");
    }
    let erase = json!({ "password": mina.password });
    assert_eq!(shop.as_of(&pair, "DELETE", "/v1/users/me").json(&erase).send().await.status, 204);
    for table in tables {
        assert_eq!(rows(&people, table).await, 0, "{table}");
    }
    shop.close().await;
}

async fn rows(file: &std::path::Path, table: &'static str) -> i64 {
    use sqlx::ConnectOptions;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file).read_only(true);
    let mut connection = options.connect().await.unwrap();
    let sql = match table {
        "carts" => "select count(*) from carts",
        "cart_lines" => "select count(*) from cart_lines",
        "cart_additions" => "select count(*) from cart_additions",
        _ => "select count(*) from checkouts",
    };
    sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap()
}
