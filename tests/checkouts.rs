//! The checkout: what leaves the cart, when, and who hears of it again.

mod support;

use std::collections::BTreeSet;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use stockade::config::{PaymentProvider, SimulatedPayment};
use support::{Ask, Shop, card, id, lines, one_line, user};

async fn put(shop: &Shop, who: u64, product: &str, quantity: u32) {
    let path = format!("/v1/cart/items/{product}");
    shop.by(who, "PUT", &path).json(&json!({ "quantity": quantity })).send().await.ok(200);
}

fn checkout(shop: &Shop, who: u64, body: &Value) -> Ask {
    shop.by(who, "POST", "/v1/cart/checkout").json(body)
}

async fn in_cart(shop: &Shop, who: u64) -> Vec<(String, u64)> {
    let cart = shop.by(who, "GET", "/v1/cart").send().await.ok(200);
    let line =
        |line: &Value| (line["product_id"].as_str().unwrap().to_owned(), line["quantity"].as_u64().unwrap());
    cart["lines"].as_array().unwrap().iter().map(line).collect()
}

fn ordered(order: &Value) -> BTreeSet<(String, u64)> {
    let line =
        |line: &Value| (line["product_id"].as_str().unwrap().to_owned(), line["quantity"].as_u64().unwrap());
    order["lines"].as_array().unwrap().iter().map(line).collect()
}

async fn orders_of(shop: &Shop, who: u64) -> usize {
    shop.tables_follow().await;
    let page = shop.by(who, "GET", "/v1/orders?limit=100").send().await.ok(200);
    page["data"].as_array().unwrap().len()
}

fn paying(token: &str) -> Value {
    json!({ "payment": card(token) })
}

#[actix_web::test]
async fn the_chosen_lines_are_ordered_and_leave_and_the_rest_stays() {
    let shop = Shop::open().await;
    let [jar, cup, mug] = [shop.stocked(9).await, shop.stocked(9).await, shop.stocked(9).await];
    for (product, quantity) in [(&jar, 1), (&cup, 2), (&mug, 3)] {
        put(&shop, 1, product, quantity).await;
    }
    let placed = checkout(&shop, 1, &json!({ "product_ids": [mug, jar] })).send().await.ok(201);
    assert_eq!(ordered(&placed), BTreeSet::from([(jar.clone(), 1), (mug.clone(), 3)]));
    assert_eq!((&placed["status"], &placed["total"]["amount"]), (&json!("pending_payment"), &json!(4_000)));
    assert_eq!(in_cart(&shop, 1).await, [(cup.clone(), 2)]);
    assert_eq!(shop.order_of(1, &id(&placed)).await["lines"], placed["lines"]);

    let total = |amount: u64| json!({ "expected_total": { "amount": amount, "currency": "KRW" } });
    let problem = checkout(&shop, 1, &total(1_999)).send().await.problem(409, "price_changed");
    assert_eq!(problem["actual"]["amount"], 2_000);
    assert_eq!(in_cart(&shop, 1).await, [(cup.clone(), 2)]);
    checkout(&shop, 1, &total(2_000)).send().await.ok(201);
    assert_eq!(in_cart(&shop, 1).await, []);
    let empty = checkout(&shop, 1, &json!({})).send().await.problem(422, "validation_failed");
    assert_eq!(empty["errors"][0]["detail"], "the cart is empty");
    // An order of another way leaves the cart alone.
    put(&shop, 1, &jar, 1).await;
    shop.order(1, &jar, 1).send().await.ok(201);
    assert_eq!(in_cart(&shop, 1).await, [(jar, 1)]);
    shop.close().await;
}

#[actix_web::test]
async fn a_refusal_leaves_everything_in_the_cart_and_binds_nothing() {
    let shop = Shop::open().await;
    let (jar, cup) = (shop.stocked(9).await, shop.stocked(1).await);
    put(&shop, 1, &jar, 1).await;
    put(&shop, 1, &cup, 2).await;
    let problem = checkout(&shop, 1, &json!({})).key("k").send().await.problem(409, "sold_out");
    assert_eq!((&problem["product_id"], &problem["available"]), (&json!(cup), &json!(1)));
    shop.admin("POST", &format!("/v1/admin/products/{jar}/pause")).send().await.ok(200);
    checkout(&shop, 1, &json!({ "product_ids": [jar] })).send().await.problem(409, "sale_paused");
    assert_eq!(in_cart(&shop, 1).await, [(jar.clone(), 1), (cup.clone(), 2)]);
    assert_eq!((shop.counters(&jar).await[0], shop.counters(&cup).await[0]), (9, 1), "nothing is held");

    shop.admin("POST", &format!("/v1/admin/products/{jar}/resume")).send().await.ok(200);
    put(&shop, 1, &cup, 1).await;
    let placed = checkout(&shop, 1, &json!({})).key("k").send().await;
    assert!(!placed.replayed());
    placed.ok(201);
    assert_eq!(in_cart(&shop, 1).await, []);
    shop.close().await;
}

#[actix_web::test]
async fn what_is_asked_for_badly_is_refused() {
    let shop = Shop::open().await;
    let (jar, cup) = (shop.stocked(9).await, shop.stocked(9).await);
    put(&shop, 1, &jar, 1).await;
    let ids = |ids: Vec<&str>| json!({ "product_ids": ids });
    for (body, pointer) in [
        (ids(vec![]), "/product_ids"),
        (ids(vec![&jar, &jar]), "/product_ids/1"),
        (ids(vec![&jar; 51]), "/product_ids"),
        (ids(vec![&cup]), "/product_ids"),
        (json!({ "product_ids": "all" }), "/product_ids"),
        (json!({ "product_ids": [7] }), "/product_ids/0"),
        (json!({ "items": [] }), "/items"),
        (json!({ "expected_total": { "amount": -1, "currency": "KRW" } }), "/expected_total/amount"),
        (json!({ "expected_total": { "amount": 1, "currency": "won" } }), "/expected_total/currency"),
        (json!({ "address": { "city": "Seoul" } }), "/address"),
        (json!({ "address": "Seoul" }), "/address"),
        (json!({ "payment": { "method": { "type": "cash", "token": "tok_ok" } } }), "/payment/method/type"),
        (
            json!({ "payment": { "method": { "type": "card", "token": "4242424242424242" } } }),
            "/payment/method/token",
        ),
    ] {
        let told = checkout(&shop, 1, &body).send().await;
        assert_eq!(told.invalid(), pointer, "{body} {}", told.text);
    }
    for nobodys in ["nonsense", "order_01h455vb4pex5vsknk084sn02q"] {
        checkout(&shop, 1, &ids(vec![nobodys])).send().await.problem(404, "not_found");
    }
    let ask = || shop.by(1, "POST", "/v1/cart/checkout");
    ask().send().await.problem(415, "unsupported_media_type");
    ask().body("{").send().await.problem(400, "malformed_json");
    checkout(&shop, 1, &json!({})).key("two words").send().await.invalid();
    assert_eq!(in_cart(&shop, 1).await, [(jar, 1)]);
    assert_eq!(orders_of(&shop, 1).await, 0);
    shop.close().await;
}

#[actix_web::test]
async fn a_replay_hears_of_its_payment_while_nobody_more_may_begin() {
    let shop = Shop::open().await;
    let jar = shop.stocked(9).await;
    let pays = json!({ "payment": support::card("tok_ok") });
    let come = async |key: &str| checkout(&shop, 1, &pays).key(key).send().await;
    put(&shop, 1, &jar, 2).await;
    let first = come("k").await.ok(201);
    put(&shop, 1, &jar, 1).await;
    let places: Vec<_> = std::iter::from_fn(|| shop.app().payments().place().ok()).collect();
    let again = come("k").await;
    assert!(again.replayed());
    assert_eq!(again.ok(201)["payment"], first["payment"]);
    come("n").await.problem(503, "overloaded");
    drop(places);
    assert_eq!((in_cart(&shop, 1).await, orders_of(&shop, 1).await), (vec![(jar, 1)], 1));
    come("n").await.ok(201);
    shop.settle().await;
    shop.close().await;
}

#[actix_web::test]
async fn a_replay_answers_before_it_looks_into_the_cart() {
    let shop = Shop::open().await;
    let (jar, cup) = (shop.stocked(9).await, shop.stocked(9).await);
    put(&shop, 1, &jar, 2).await;
    put(&shop, 1, &cup, 1).await;
    let first = id(&checkout(&shop, 1, &json!({})).key("k").send().await.ok(201));
    // What is in the cart by now is none of its business; neither is that there is nothing.
    let mut shop = shop;
    for round in 0..2 {
        if round == 0 {
            put(&shop, 1, &cup, 5).await;
        }
        let again = checkout(&shop, 1, &json!({})).key("k").send().await;
        assert!(again.replayed());
        assert_eq!(id(&again.ok(201)), first);
        let chosen = json!({ "product_ids": [cup] });
        let problem = checkout(&shop, 1, &chosen).key("k").send().await;
        assert_eq!(problem.problem(422, "idempotency_key_reused")["order_id"], json!(first));
        checkout(&shop, 1, &paying("tok_ok")).key("k").send().await.problem(422, "idempotency_key_reused");
        let order = shop.order(1, &jar, 2).key("k").send().await;
        order.problem(422, "idempotency_key_reused");
        assert_eq!(in_cart(&shop, 1).await.len(), 1 - round);
        if round == 0 {
            shop.by(1, "DELETE", "/v1/cart").send().await.ok(200);
            shop = shop.reopen().await;
        }
    }
    // The other way round: a key that an order was made with is no checkout's.
    shop.order(1, &jar, 1).key("o").send().await.ok(201);
    put(&shop, 1, &jar, 1).await;
    checkout(&shop, 1, &json!({})).key("o").send().await.problem(422, "idempotency_key_reused");
    assert_eq!(in_cart(&shop, 1).await, [(jar.clone(), 1)]);
    // An order that has ended is told as it is now.
    shop.by(1, "POST", &format!("/v1/orders/{first}/cancel")).send().await.ok(200);
    let again = checkout(&shop, 1, &json!({})).key("k").send().await;
    assert_eq!((again.replayed(), again.ok(201)["status"].clone()), (true, json!("cancelled")));
    assert_eq!(in_cart(&shop, 1).await, [(jar, 1)]);
    shop.close().await;
}

#[actix_web::test]
async fn of_many_at_once_one_orders() {
    let shop = Shop::open().await;
    let (jar, cup) = (shop.stocked(900).await, shop.stocked(900).await);
    for key in [None, Some("k")] {
        put(&shop, 1, &jar, 3).await;
        put(&shop, 1, &cup, 1).await;
        let before = orders_of(&shop, 1).await;
        let ask = || match key {
            Some(key) => checkout(&shop, 1, &json!({})).key(key),
            None => checkout(&shop, 1, &json!({})),
        };
        // As many as wait for one person.
        let heard = join_all((0..8).map(|_| ask().send())).await;
        let made: Vec<_> = heard.iter().filter(|reply| reply.status == 201).collect();
        let orders: BTreeSet<_> = made.iter().map(|reply| id(&reply.json())).collect();
        assert_eq!(orders.len(), 1, "{heard:?}");
        assert_eq!(made.iter().filter(|reply| !reply.replayed()).count(), 1);
        assert_eq!(made.len(), if key.is_some() { 8 } else { 1 }, "{heard:?}");
        assert_eq!(orders_of(&shop, 1).await, before + 1);
        assert_eq!(in_cart(&shop, 1).await, []);
    }
    // Who comes when too many of the same person wait is told so, and nothing is done.
    put(&shop, 1, &jar, 3).await;
    let heard = join_all((0..40).map(|_| checkout(&shop, 1, &json!({})).send())).await;
    assert_eq!(heard.iter().filter(|reply| reply.status == 201).count(), 1);
    for reply in heard.iter().filter(|reply| reply.status != 201) {
        let code = reply.json()["code"].as_str().unwrap().to_owned();
        assert!(["overloaded", "validation_failed"].contains(&code.as_str()), "{}", reply.text);
    }
    assert_eq!(shop.counters(&jar).await[1], 9);
    shop.close().await;
}

#[actix_web::test]
async fn paid_in_the_same_call_it_leaves_the_cart_with_a_yes_and_not_with_a_no() {
    let shop = Shop::open().await;
    let (jar, cup) = (shop.stocked(9).await, shop.stocked(9).await);
    put(&shop, 1, &jar, 1).await;
    put(&shop, 1, &cup, 2).await;
    let whole = in_cart(&shop, 1).await;
    let declined = checkout(&shop, 1, &paying("tok_declined")).key("no").send().await;
    let problem = declined.problem(402, "payment_declined");
    assert_eq!(problem["order"]["status"], "payment_failed");
    assert_eq!(in_cart(&shop, 1).await, whole);
    // A 402 binds: the key hears it again, and the cart stays as it is.
    let again = checkout(&shop, 1, &paying("tok_declined")).key("no").send().await;
    assert!(again.replayed());
    again.problem(402, "payment_declined");
    assert_eq!(in_cart(&shop, 1).await, whole);

    let paid = checkout(&shop, 1, &paying("tok_ok")).key("yes").send().await.ok(201);
    assert_eq!((&paid["status"], &paid["payment"]["status"]), (&json!("paid"), &json!("paid")));
    assert_eq!(in_cart(&shop, 1).await, []);
    let again = checkout(&shop, 1, &paying("tok_ok")).key("yes").send().await;
    assert!(again.replayed());
    assert_eq!(again.ok(201)["id"], paid["id"]);

    // In doubt the order stands: it is told as 202, and what becomes of it is the payment's affair.
    put(&shop, 1, &jar, 3).await;
    let open = checkout(&shop, 1, &paying("tok_timeout_then_declined")).key("doubt").send().await.ok(202);
    assert_eq!(open["payment"]["status"], "unknown");
    assert_eq!(in_cart(&shop, 1).await, []);
    shop.settle().await;
    let shop = shop.reopen().await;
    // It is told so again, with the order as it is now.
    let again = checkout(&shop, 1, &paying("tok_timeout_then_declined")).key("doubt").send().await;
    assert!(again.replayed());
    let again = again.ok(202);
    assert_eq!((&again["id"], &again["status"]), (&open["id"], &json!("payment_failed")));
    assert_eq!(in_cart(&shop, 1).await, []);
    shop.assert_settled(&[(&jar, 9), (&cup, 9)]).await;
    shop.close().await;
}

#[actix_web::test]
async fn a_checkout_that_was_declined_is_told_so_though_another_attempt_has_paid() {
    let shop = Shop::open_with(|config| config.payment.attempts = 3).await;
    let jar = shop.stocked(9).await;
    put(&shop, 1, &jar, 1).await;
    let whole = in_cart(&shop, 1).await;
    let ask = || checkout(&shop, 1, &paying("tok_declined")).key("k").send();
    let order = id(&ask().await.problem(402, "payment_declined")["order"]);
    shop.pay(1, &order, "tok_ok").send().await.ok(200);
    let again = ask().await;
    assert!(again.replayed());
    let again = again.problem(402, "payment_declined");
    assert_eq!(
        (&again["order"]["status"], &again["order"]["payment"]["attempt"]),
        (&json!("paid"), &json!(2))
    );
    assert_eq!(in_cart(&shop, 1).await, whole, "it has not left the cart with a no");
    shop.settle().await;
    shop.assert_settled(&[(&jar, 9)]).await;
    shop.close().await;
}

/// While the provider thinks, the cart is its owner's to change.
#[actix_web::test]
async fn what_is_put_in_while_a_payment_runs_stays() {
    let slow = SimulatedPayment { latency: Duration::from_secs(3), ..SimulatedPayment::default() };
    let shop = Shop::open_with(|config| config.payment.provider = PaymentProvider::Simulated(slow)).await;
    let (jar, cup) = (shop.stocked(9).await, shop.stocked(9).await);
    put(&shop, 1, &jar, 2).await;
    put(&shop, 1, &cup, 2).await;
    let body = paying("tok_ok");
    let (paid, ()) = tokio::join!(checkout(&shop, 1, &body).key("k").send(), async {
        until_held(&shop, &jar).await;
        put(&shop, 1, &jar, 5).await;
        shop.by(1, "DELETE", &format!("/v1/cart/items/{cup}")).send().await.ok(200);
        assert_eq!(in_cart(&shop, 1).await, [(jar.clone(), 5)], "nothing leaves before the order stands");
    });
    paid.ok(201);
    assert_eq!(in_cart(&shop, 1).await, [(jar.clone(), 3)]);
    shop.close().await;
}

/// An order's status, and those of its lines, which must be one.
async fn as_a_whole(shop: &Shop, who: u64, order: &str) -> Option<(String, String)> {
    let shown = shop.order_of(who, order).await;
    let word = |value: &Value| value["status"].as_str().unwrap().to_owned();
    let lines: BTreeSet<_> = shown["lines"].as_array().unwrap().iter().map(word).collect();
    (lines.len() == 1).then(|| (word(&shown), lines.into_iter().next().unwrap()))
}

/// Whoever hangs up while his order is cancelled leaves no line of it held.
#[actix_web::test]
async fn an_order_is_cancelled_as_a_whole_whoever_hangs_up() {
    const BUYERS: u64 = 12;
    let shop = Shop::open().await;
    let (jar, cup) = (shop.stocked(100).await, shop.stocked(100).await);
    let mut orders = Vec::new();
    for who in 1..=BUYERS {
        let order = id(&shop
            .by(who, "POST", "/v1/orders")
            .json(&lines(&[(&jar, 1), (&cup, 1)]))
            .send()
            .await
            .ok(201));
        // He goes when he has waited so often.
        let mut waits = who;
        let mut cancelling = pin!(shop.app().orders().cancel(user(who), order.parse().unwrap(), 0));
        let has_heard = poll_fn(|context| {
            waits -= 1;
            match cancelling.as_mut().poll(context) {
                Poll::Ready(told) => Poll::Ready(told.unwrap().is_some()),
                Poll::Pending if waits == 0 => Poll::Ready(false),
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
        orders.push((who, order, has_heard));
    }
    // Until nothing has moved for a while.
    let moved = async || (shop.counters(&jar).await, shop.counters(&cup).await);
    let (mut before, mut same) = (moved().await, 0);
    while same < 10 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = moved().await;
        same = if now == before { same + 1 } else { 0 };
        before = now;
    }
    let (mut standing, mut unheard) = (Vec::new(), 0);
    for (who, order, has_heard) in &orders {
        let is = as_a_whole(&shop, *who, order).await;
        let (status, line) = is.unwrap_or_else(|| panic!("{order} of {who} is cancelled in part"));
        match (status.as_str(), line.as_str()) {
            ("cancelled", "released") => unheard += u32::from(!has_heard),
            // He went before anything was asked.
            ("pending_payment", "held") if !has_heard => standing.push((*who, order)),
            other => panic!("{order} of {who} is {other:?}"),
        }
    }
    assert!(unheard > 0, "nobody hung up while his order was cancelled");
    let held = standing.len() as u64;
    for product in [&jar, &cup] {
        assert_eq!(shop.counters(product).await[..3], [100 - held, held, 0]);
    }
    for (who, order) in standing {
        let told = shop.by(who, "POST", &format!("/v1/orders/{order}/cancel")).send().await.ok(200);
        assert_eq!(told["status"], "cancelled");
    }
    for product in [&jar, &cup] {
        assert_eq!(shop.counters(product).await[..3], [100, 0, 0]);
    }
    shop.close().await;
}

async fn until_held(shop: &Shop, product: &str) {
    while shop.counters(product).await[1] == 0 {
        actix_web::rt::time::sleep(Duration::from_millis(5)).await;
    }
}

fn elsewhere(street: &str) -> Value {
    json!({ "recipient": "Jun Lee", "line1": street, "city": "Busan", "postal_code": "48058", "country": "kr" })
}

/// ASVS 14.2: an order's own address is sealed, exported to its buyer, and goes with the account.
#[actix_web::test]
async fn an_order_may_go_elsewhere() {
    let shop = Shop::open().await;
    let jar = shop.stocked(20).await;
    let mina = shop.newcomer(1).await;
    let pair = shop.log_in(&mina).await;
    let post = |path: &str, body: &Value| shop.as_of(&pair, "POST", path).json(body);

    // The preview says where it would go.
    let mut order = one_line(&jar, 1);
    let told = post("/v1/orders/preview", &order).send().await.ok(200);
    assert_eq!((&told["address"]["line1"], &told["address"]["country"]), (&json!(mina.street), &json!("KR")));
    order["address"] = elsewhere("Haeundae 7");
    let told = post("/v1/orders/preview", &order).send().await.ok(200);
    assert_eq!(
        (&told["address"]["line1"], &told["address"]["country"]),
        (&json!("Haeundae 7"), &json!("KR"))
    );

    let placed = post("/v1/orders", &order).key("k").send().await.ok(201);
    let again = post("/v1/orders", &order).key("k").send().await;
    assert!(again.replayed());
    assert_eq!(again.ok(201)["id"], placed["id"]);
    let mut other = order.clone();
    other["address"] = elsewhere("Haeundae 8");
    post("/v1/orders", &other).key("k").send().await.problem(422, "idempotency_key_reused");
    post("/v1/orders", &one_line(&jar, 1)).key("k").send().await.problem(422, "idempotency_key_reused");

    let put_in = json!({ "product_id": jar, "quantity": 2 });
    post("/v1/cart/items", &put_in).send().await.ok(200);
    let checked_out = json!({ "address": elsewhere("Haeundae 9"), "payment": card("tok_ok") });
    let bought = post("/v1/cart/checkout", &checked_out).key("c").send().await.ok(201);
    assert!(post("/v1/cart/checkout", &checked_out).key("c").send().await.replayed());
    // What was refused leaves nothing behind.
    let mut too_many = one_line(&jar, 500);
    too_many["address"] = elsewhere("Haeundae 10");
    post("/v1/orders", &too_many).send().await.problem(409, "sold_out");
    post("/v1/orders", &one_line(&jar, 1)).send().await.ok(201);

    let told = shop.as_of(&pair, "GET", "/v1/users/me/export").send().await.ok(200);
    let kept: Vec<_> = told["order_addresses"]
        .as_array()
        .unwrap()
        .iter()
        .map(|kept| (kept["order_id"].clone(), kept["address"]["line1"].clone()))
        .collect();
    assert_eq!(
        kept,
        [(bought["id"].clone(), json!("Haeundae 9")), (placed["id"].clone(), json!("Haeundae 7"))]
    );

    // Those whose order is there stay when it is looked after them.
    shop.clock.advance(11 * 60_000);
    let user: stockade::domain::id::UserId = shop.id_of(&shop.log_in(&mina).await).await.parse().unwrap();
    assert_eq!(shop.app().orders().sweep_addresses().await.unwrap(), 0);
    assert_eq!(shop.app().orders().addresses_of(user, None, 100).await.unwrap().len(), 2);
    let pair = shop.log_in(&mina).await;
    let erase = json!({ "password": mina.password });
    assert_eq!(shop.as_of(&pair, "DELETE", "/v1/users/me").json(&erase).send().await.status, 204);
    assert!(shop.app().orders().addresses_of(user, None, 100).await.unwrap().is_empty());
    shop.close().await;
}

/// A lead that has just begun: some owner may have made an order of which nobody has heard here.
#[actix_web::test]
async fn until_all_owners_are_heard_whoever_sends_a_key_waits_and_leaves_nothing_behind() {
    let shop = Shop::open().await;
    let jar = shop.stocked(20).await;
    let mina = shop.newcomer(1).await;
    let pair = shop.log_in(&mina).await;
    let post = |path: &str, body: &Value| shop.as_of(&pair, "POST", path).json(body);
    let user: stockade::domain::id::UserId = shop.id_of(&pair).await.parse().unwrap();
    let kept = async || shop.app().orders().addresses_of(user, None, 100).await.unwrap().len();
    let keys = shop.app().directory().house().keys.clone();
    keys.set_owners_are_heard(false);
    for (address, addresses) in [(json!({}), 0), (json!({ "address": elsewhere("Haeundae 7") }), 1)] {
        let put_in = json!({ "product_id": jar, "quantity": 1 });
        post("/v1/cart/items", &put_in).send().await.ok(200);
        let told = post("/v1/cart/checkout", &address).key("c").send().await;
        told.problem(409, "idempotency_in_progress");
        assert!(told.header("Retry-After").is_some());
        // It stands in nobody's way, and a key that nobody has sent is new.
        post("/v1/cart/checkout", &address).send().await.ok(201);
        assert_eq!(kept().await, addresses);
    }
    let mut order = one_line(&jar, 1);
    order["address"] = elsewhere("Haeundae 8");
    post("/v1/orders", &order).key("o").send().await.problem(409, "idempotency_in_progress");
    order["payment"] = card("tok_ok");
    post("/v1/orders", &order).key("p").send().await.problem(409, "idempotency_in_progress");
    assert_eq!((kept().await, shop.counters(&jar).await[..3].to_vec()), (1, vec![18, 2, 0]));

    keys.set_owners_are_heard(true);
    let placed = post("/v1/orders", &order).key("p").send().await;
    assert!(!placed.replayed());
    placed.ok(201);
    assert_eq!(kept().await, 2);
    shop.settle().await;
    shop.close().await;
}

#[actix_web::test]
async fn an_address_without_an_account_or_without_an_order_is_not_kept() {
    let shop = Shop::open().await;
    let jar = shop.stocked(20).await;
    let mut order = one_line(&jar, 1);
    order["address"] = elsewhere("Haeundae 7");
    // Whoever comes with a token alone has no key to seal it under.
    shop.by(7, "POST", "/v1/orders").json(&order).send().await.problem(404, "not_found");
    put(&shop, 7, &jar, 1).await;
    let body = json!({ "address": elsewhere("Haeundae 7") });
    checkout(&shop, 7, &body).send().await.problem(404, "not_found");
    assert_eq!(in_cart(&shop, 7).await, [(jar.clone(), 1)]);
    assert_eq!(shop.counters(&jar).await[1], 0);

    // As a crash between the address and its order leaves it.
    let mina = shop.newcomer(1).await;
    let pair = shop.log_in(&mina).await;
    let user: stockade::domain::id::UserId = shop.id_of(&pair).await.parse().unwrap();
    let product = jar.parse().unwrap();
    let never = stockade::domain::id::OrderId::for_home(shop.clock.now(), shop.clock.chance(), product);
    let folder = shop.stop().await;
    let tables = stockade::persistence::Tables::open(folder.path()).await.unwrap();
    let mut writing = tables.begin().await.unwrap();
    writing.insert_order_address(user, never, vec![1; 64]).await.unwrap();
    writing.commit().await.unwrap();
    tables.close().await.unwrap();
    let shop = Shop::open_in(folder).await;
    assert_eq!(shop.app().orders().sweep_addresses().await.unwrap(), 0, "it may be on its way");
    assert!(
        shop.app().orders().address_of(user, never).await.is_err(),
        "it is there, and nobody can read it"
    );
    shop.clock.advance(11 * 60_000);
    // The shop's own sweep at its start may be the one that finds it.
    shop.app().orders().sweep_addresses().await.unwrap();
    assert!(shop.app().orders().address_of(user, never).await.unwrap().is_none());
    shop.close().await;
}
