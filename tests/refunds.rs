//! Money that goes back: cancelled orders, clerks, what came for nothing; and the list of what still waits.

#[path = "refunds/agreed.rs"]
mod agreed;
#[path = "refunds/four_eyes.rs"]
mod four_eyes;
mod support;

use futures_util::future::join_all;
use serde_json::{Value, json};
use stockade::persistence::trail::Trail;
use support::{Reply, Shop, id, lines};

fn refund(shop: &Shop, order: &str, body: Value) -> support::Ask {
    shop.admin("POST", &format!("/v1/admin/orders/{order}/refunds")).json(&body)
}

async fn refunds_of(shop: &Shop, order: &str) -> Vec<Value> {
    let page = shop.admin("GET", &format!("/v1/admin/orders/{order}/refunds")).send().await.ok(200);
    page["data"].as_array().unwrap().clone()
}

/// The order as it is, with its payment's word and what went back of it.
async fn money_of(shop: &Shop, who: u64, order: &str) -> (String, String, i64) {
    let order = shop.order_of(who, order).await;
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    let payment = &order["payment"];
    (word(&order["status"]), word(&payment["status"]), payment["refunded"]["amount"].as_i64().unwrap())
}

#[actix_web::test]
async fn a_paid_order_is_cancelled_and_its_units_are_back_before_the_answer() {
    let shop = Shop::open().await;
    let (jar, cup) = (shop.stocked(5).await, shop.stocked(5).await);
    let mut body = lines(&[(&jar, 2), (&cup, 1)]);
    body["payment"] = support::card("tok_ok");
    let order = id(&shop.by(1, "POST", "/v1/orders").json(&body).send().await.ok(201));
    assert_eq!((shop.counters(&jar).await[2], shop.counters(&cup).await[2]), (2, 1));

    let path = format!("/v1/orders/{order}/cancel");
    shop.by(2, "POST", &path).send().await.problem(404, "not_found");
    let cancelled = shop.by(1, "POST", &path).key("c").send().await;
    assert!(!cancelled.replayed());
    let cancelled = cancelled.ok(200);
    assert_eq!(
        (&cancelled["status"], &cancelled["lines"][1]["status"]),
        (&json!("cancelled"), &json!("cancelled"))
    );
    let word = cancelled["payment"]["status"].as_str().unwrap();
    assert!(["refunding", "refunded"].contains(&word), "{word}");
    assert_eq!(cancelled["payment"]["refunded"]["amount"], 3_000);
    assert_eq!(
        (shop.counters(&jar).await[..3].to_vec(), shop.counters(&cup).await[..3].to_vec()),
        (vec![5, 0, 0], vec![5, 0, 0])
    );

    let again = shop.by(1, "POST", &path).key("c").send().await;
    assert!(again.replayed());
    assert_eq!(again.ok(200)["status"], "cancelled");
    shop.by(1, "POST", &path).send().await.problem(409, "order_state_conflict");
    shop.by(1, "POST", &path).key("other").send().await.problem(409, "order_state_conflict");
    shop.settle().await;
    assert_eq!(money_of(&shop, 1, &order).await, ("cancelled".into(), "refunded".into(), 3_000));
    let made = refunds_of(&shop, &order).await;
    assert_eq!(
        (made.len(), &made[0]["cause"], &made[0]["state"]),
        (1, &json!("order_cancelled"), &json!("done"))
    );
    shop.assert_settled(&[(&jar, 5), (&cup, 5)]).await;
    shop.audited().await;
}

#[actix_web::test]
async fn what_cost_nothing_is_cancelled_like_everything_else() {
    let shop = Shop::open().await;
    let gift = json!({ "price": { "amount": 0, "currency": "KRW" } });
    let jar = id(&shop.product(5, gift).await);
    let order = id(&shop.buy(1, &jar, 2, "tok_ok").send().await.ok(201));
    shop.settle().await;
    assert_eq!(shop.counters(&jar).await[..3], [3, 0, 2]);
    let path = format!("/v1/orders/{order}/cancel");
    let cancelled = shop.by(1, "POST", &path).key("c").send().await.ok(200);
    assert_eq!(cancelled["status"], "cancelled");
    assert_eq!(shop.counters(&jar).await[..3], [5, 0, 0]);
    shop.settle().await;
    let again = shop.by(1, "POST", &path).key("c").send().await;
    assert!(again.replayed() && again.status == 200);
    let made = refunds_of(&shop, &order).await;
    assert_eq!((made.len(), &made[0]["state"], &made[0]["amount"]["amount"]), (1, &json!("done"), &json!(0)));
    let given = shop.app().payments().provider().simulated().unwrap().refunds();
    assert!(given.is_empty(), "the provider was not asked");
    shop.audited().await;
}

#[actix_web::test]
async fn two_who_cancel_one_order_give_it_back_once() {
    let shop = Shop::open().await;
    let jar = shop.stocked(5).await;
    let order = id(&shop.buy(1, &jar, 2, "tok_ok").send().await.ok(201));
    let path = format!("/v1/orders/{order}/cancel");
    let replies =
        join_all((0..20).map(|n| shop.by(1, "POST", &path).key(&format!("c{}", n % 2)).send())).await;
    let told: Vec<_> = replies.iter().map(|reply| (reply.status.as_u16(), reply.replayed())).collect();
    assert_eq!(told.iter().filter(|told| **told == (200, false)).count(), 1, "{told:?}");
    assert!(told.iter().all(|told| [(200, false), (200, true), (409, false)].contains(told)), "{told:?}");
    shop.settle().await;
    assert_eq!(refunds_of(&shop, &order).await.len(), 1);
    shop.assert_settled(&[(&jar, 5)]).await;
    shop.audited().await;
}

#[actix_web::test]
async fn a_hundred_refunds_of_one_line_are_one() {
    let shop = Shop::open().await;
    let (jar, cup) = (shop.stocked(5).await, shop.stocked(5).await);
    let mut body = lines(&[(&jar, 2), (&cup, 1)]);
    body["payment"] = support::card("tok_ok");
    let order = id(&shop.by(1, "POST", "/v1/orders").json(&body).send().await.ok(201));
    let ask = json!({ "line": 1, "restock": "to_stock", "reason": "broken" });
    let keys = (0..100).map(|n| if n % 2 == 0 { "same".to_owned() } else { format!("clerk-{n}") });
    let replies: Vec<Reply> =
        join_all(keys.map(|key| refund(&shop, &order, ask.clone()).key(&key).send())).await;
    let new = replies.iter().filter(|reply| reply.status == 201 && !reply.replayed()).count();
    assert_eq!(new, 1);
    for reply in &replies {
        match reply.status.as_u16() {
            201 => assert_eq!(reply.json()["amount"]["amount"].as_i64().unwrap() % 1_000, 0),
            _ => assert!(reply.problem(409, "order_state_conflict")["refund_id"].is_string()),
        }
    }
    shop.settle().await;
    let made = refunds_of(&shop, &order).await;
    assert_eq!((made.len(), &made[0]["cause"]), (1, &json!("line")));
    let (_, word, back) = money_of(&shop, 1, &order).await;
    assert_eq!(word, "partially_refunded");
    assert_eq!(shop.charges()[0].refunded, back);
    shop.assert_settled(&[(&jar, 5), (&cup, 5)]).await;
    shop.audited().await;
}

#[actix_web::test]
async fn never_more_goes_back_than_was_taken() {
    let shop = Shop::open().await;
    let jar = shop.stocked(5).await;
    let order = id(&shop.buy(1, &jar, 3, "tok_ok").send().await.ok(201));
    let amount = |amount: i64| json!({ "amount": { "amount": amount, "currency": "KRW" }, "restock": "leave", "reason": "late" });
    let ask = |key: &str, body: Value| refund(&shop, &order, body).key(key).send();
    assert_eq!(refund(&shop, &order, amount(1)).send().await.invalid(), "Idempotency-Key");
    let first = ask("a", amount(1_000)).await.ok(201);
    assert_eq!(
        (&first["cause"], &first["amount"]["amount"], &first["restock"]),
        (&json!("clerk"), &json!(1_000), &json!("leave"))
    );
    let again = ask("a", amount(1_000)).await;
    assert!(again.replayed());
    assert_eq!(again.ok(201)["id"], first["id"]);
    for other in [
        amount(999),
        json!({ "line": 1, "restock": "leave", "reason": "late" }),
        json!({ "amount": { "amount": 1_000, "currency": "KRW" }, "line": 1, "restock": "leave", "reason": "late" }),
        json!({ "restock": "to_stock", "reason": "late" }),
        json!({ "restock": "leave", "reason": "late" }),
        json!({ "amount": { "amount": 1_000, "currency": "KRW" }, "restock": "leave", "reason": "later" }),
    ] {
        ask("a", other).await.problem(422, "idempotency_key_reused");
    }
    let much = ask("b", amount(2_001)).await.problem(409, "order_state_conflict");
    assert_eq!(
        (&much["captured"], &much["refunded"], &much["requested"]),
        (&json!(3_000), &json!(1_000), &json!(2_001))
    );

    // Fifty clerks at once, each with half of what is left.
    let clerks =
        join_all((0..50).map(|n| refund(&shop, &order, amount(1_000)).key(&format!("c{n}")).send())).await;
    assert_eq!(clerks.iter().filter(|reply| reply.status == 201).count(), 2);
    assert!(clerks.iter().all(|reply| [201, 409].contains(&reply.status.as_u16())));
    shop.settle().await;
    assert_eq!(money_of(&shop, 1, &order).await, ("paid".into(), "refunded".into(), 3_000));
    assert_eq!(shop.charges()[0].refunded, 3_000);
    // The units stay where they are: that was another decision.
    assert_eq!(shop.counters(&jar).await[..3], [2, 0, 3]);
    ask("d", json!({ "restock": "leave", "reason": "all" })).await.problem(409, "order_state_conflict");

    for (body, pointer) in [
        (amount(0), "/amount/amount"),
        (
            json!({ "amount": { "amount": 1, "currency": "EUR" }, "restock": "leave", "reason": "x" }),
            "/amount/currency",
        ),
        (json!({ "line": 9, "restock": "leave", "reason": "x" }), "/line"),
        (json!({ "restock": "burn", "reason": "x" }), "/restock"),
        (json!({ "restock": "leave", "reason": " " }), "/reason"),
        (
            json!({ "amount": { "amount": 1, "currency": "KRW" }, "restock": "to_stock", "reason": "x" }),
            "/restock",
        ),
    ] {
        assert_eq!(ask("e", body.clone()).await.invalid(), pointer, "{body}");
    }
    let held = id(&shop.order(1, &jar, 1).send().await.ok(201));
    refund(&shop, &held, amount(1)).key("f").send().await.problem(409, "order_state_conflict");
    refund(&shop, "order_01h455vb4pex5vsknk084sn02q", amount(1))
        .key("f")
        .send()
        .await
        .problem(404, "not_found");
    shop.audited().await;
}

#[actix_web::test]
async fn a_refund_that_fails_is_tried_until_it_is_done_and_listed_meanwhile() {
    let shop = Shop::open().await;
    let jar = shop.stocked(5).await;
    let order = id(&shop.buy(1, &jar, 1, "tok_refund_fails_twice").send().await.ok(201));
    shop.by(1, "POST", &format!("/v1/orders/{order}/cancel")).send().await.ok(200);
    shop.settle().await;
    assert_eq!(money_of(&shop, 1, &order).await.1, "refunded");
    assert!(shop.money().await.1[0].tries >= 2, "it was taken up again after each failure");
    let listed = shop.admin("GET", "/v1/admin/compensations").send().await.ok(200);
    assert_eq!(listed, json!({ "data": [], "next_cursor": null }));
    let done = id(&refunds_of(&shop, &order).await[0]);
    shop.admin("POST", &format!("/v1/admin/compensations/{done}/retry"))
        .send()
        .await
        .problem(404, "not_found");
    shop.assert_settled(&[(&jar, 5)]).await;

    // One that never succeeds waits for as long as somebody looks at the list.
    let order = id(&shop.buy(1, &jar, 1, "tok_refund_fails_always").send().await.ok(201));
    let path = format!("/v1/orders/{order}/cancel");
    assert_eq!(shop.by(1, "POST", &path).send().await.ok(200)["payment"]["status"], "refunding");
    shop.app().payments().at_rest().await;
    let listed = shop.admin("GET", "/v1/admin/compensations").send().await.ok(200);
    let waiting = &listed["data"][0];
    assert_eq!(
        (&waiting["kind"], &waiting["state"], &waiting["order_id"]),
        (&json!("refund"), &json!("pending"), &json!(order))
    );
    assert_eq!(
        (&waiting["amount"]["amount"], &waiting["why"]),
        (&json!(1_000), &json!("provider_unavailable"))
    );
    let retry = shop.admin("POST", &format!("/v1/admin/compensations/{}/retry", id(waiting))).send().await;
    assert_eq!(retry.status, 202);
    // It is never given up, and after a while somebody should look.
    for _ in 0..12 {
        shop.clock.advance(61_000);
        shop.take_up().await;
    }
    let stuck = shop.admin("GET", "/v1/admin/compensations?state=stuck").send().await.ok(200);
    assert!(stuck["data"][0]["tries"].as_u64().unwrap() >= 8, "{stuck}");
    assert_eq!(shop.counters(&jar).await[..3], [5, 0, 0], "the units are back all the same");
    shop.close().await;
}

/// Who hears that it is tried at once may rely on it.
#[actix_web::test]
async fn a_retry_that_cannot_be_written_is_not_said_to_be_made() {
    let shop = Shop::open().await;
    let jar = shop.stocked(5).await;
    let order = id(&shop.buy(1, &jar, 1, "tok_refund_fails_always").send().await.ok(201));
    shop.by(1, "POST", &format!("/v1/orders/{order}/cancel")).send().await.ok(200);
    shop.app().payments().at_rest().await;
    let waiting = id(&refunds_of(&shop, &order).await[0]);
    let retry = || shop.admin("POST", &format!("/v1/admin/compensations/{waiting}/retry")).send();
    // Somebody else has the file.
    let other = shop.hold("money.db").await;
    retry().await.problem(503, "outcome_unknown");
    other.let_go().await;
    assert_eq!(retry().await.status, 202);
    shop.close().await;
}

#[actix_web::test]
async fn another_amount_waits_for_a_person() {
    let shop = Shop::open().await;
    let jar = shop.stocked(5).await;
    let (mut orders, mut payments) = (Vec::new(), Vec::new());
    for token in ["tok_wrong_amount", "tok_wrong_amount", "tok_wrong_currency"] {
        let order = shop.buy(1, &jar, 1, token).send().await.ok(202);
        assert_eq!(
            (&order["status"], &order["payment"]["status"]),
            (&json!("pending_payment"), &json!("unknown"))
        );
        let what = if token == "tok_wrong_currency" { "currency" } else { "amount" };
        assert_eq!(order["payment"]["reason"], format!("{what}_mismatch"));
        payments.push(order["payment"]["id"].as_str().unwrap().to_owned());
        orders.push(id(&order));
    }
    assert_eq!(shop.counters(&jar).await[..3], [2, 3, 0]);
    // Their buyer hears nowhere that somebody looks into it; whoever does so reads it everywhere.
    let statuses = |page: &Value| {
        let status = |order: &Value| order["payment"]["status"].as_str().unwrap().to_owned();
        page["data"].as_array().unwrap().iter().map(status).collect::<Vec<_>>()
    };
    assert_eq!(shop.order_of(1, &orders[0]).await["payment"]["status"], "unknown");
    assert_eq!(statuses(&shop.by(1, "GET", "/v1/orders").send().await.ok(200)), ["unknown"; 3]);
    assert_eq!(statuses(&shop.admin("GET", "/v1/admin/orders").send().await.ok(200)), ["review"; 3]);
    let table = shop.admin("GET", "/v1/admin/orders?format=csv").send().await.text;
    assert_eq!(table.matches(",review,").count(), 3, "{table}");
    let review = shop.admin("GET", "/v1/admin/compensations?state=review").send().await.ok(200);
    let listed: Vec<_> = review["data"].as_array().unwrap().iter().map(id).collect();
    assert_eq!(listed.len(), 3);
    assert!(payments.iter().all(|payment| listed.contains(payment)));
    assert_eq!(review["data"][0]["amount"], json!({ "amount": 1_001, "currency": "KRW" }));
    assert_eq!(review["data"][2]["amount"], json!({ "amount": 1_000, "currency": "XTS" }), "as it was taken");
    shop.clock.advance(3_600_000);
    shop.take_up().await;
    assert_eq!(shop.counters(&jar).await[1], 3, "nobody decides by waiting");
    shop.by(1, "POST", &format!("/v1/orders/{}/cancel", orders[0]))
        .send()
        .await
        .problem(409, "order_state_conflict");

    let decide = |payment: &str, what: &str| {
        shop.admin("POST", &format!("/v1/admin/compensations/{payment}/{what}")).send()
    };
    // Two who decide the same at once have both decided it.
    let (one, other) = tokio::join!(decide(&payments[0], "accept"), decide(&payments[0], "accept"));
    let (accepted, other) = (one.ok(200), other.ok(200));
    assert_eq!(accepted["id"], other["id"]);
    assert!(accepted["status"] == "processing" || other["status"] == "processing", "{accepted} {other}");
    let (one, other) = tokio::join!(decide(&payments[1], "give-back"), decide(&payments[1], "give-back"));
    let (returned, other) = (one.ok(200), other.ok(200));
    assert_eq!(returned["id"], other["id"]);
    assert!(returned["status"] == "refunding" || other["status"] == "refunding", "{returned} {other}");
    // Trying is no decision, and who decides the same again hears the same.
    let undecided = decide(&payments[2], "retry").await.problem(409, "order_state_conflict");
    assert!(undecided["detail"].as_str().unwrap().contains("decision"));
    assert_eq!(decide(&payments[0], "accept").await.ok(200)["id"], accepted["id"]);
    assert_eq!(decide(&payments[1], "give-back").await.ok(200)["id"], returned["id"]);
    decide(&payments[0], "give-back").await.problem(409, "order_state_conflict");
    decide(&payments[1], "accept").await.problem(409, "order_state_conflict");
    decide("pay_01h455vb4pex5vsknk084sn02q", "accept").await.problem(404, "not_found");
    // Another currency cannot be kept, only given back, and as what it was.
    decide(&payments[2], "accept").await.problem(409, "order_state_conflict");
    let returned = decide(&payments[2], "give-back").await.ok(200);
    assert_eq!(returned["refunded"], json!({ "amount": 1_000, "currency": "XTS" }));
    shop.settle().await;
    assert_eq!(money_of(&shop, 1, &orders[2]).await, ("payment_failed".into(), "refunded".into(), 1_000));
    assert_eq!(money_of(&shop, 1, &orders[0]).await, ("paid".into(), "paid".into(), 0));
    assert_eq!(money_of(&shop, 1, &orders[1]).await, ("payment_failed".into(), "refunded".into(), 1_001));
    assert_eq!(shop.counters(&jar).await[..3], [4, 0, 1]);
    let metrics = shop.get("/metrics").send().await.text;
    assert!(metrics.contains("stockade_payments_total{outcome=\"review\"}"), "{metrics}");
    shop.audited().await;
}

/// A clerk gave the price back and left the line with its buyer; then it comes back after all. So does what was free.
#[actix_web::test]
async fn units_that_were_left_with_the_buyer_are_taken_back_later() {
    let shop = Shop::open().await;
    let gift = json!({ "price": { "amount": 0, "currency": "KRW" } });
    let (jar, gift) = (shop.stocked(5).await, id(&shop.product(5, gift).await));
    let mut body = support::lines(&[(&jar, 2), (&gift, 1)]);
    body["payment"] = support::card("tok_ok");
    let order = shop.by(1, "POST", "/v1/orders").json(&body).send().await.ok(201);
    let line = |product: &str| {
        let line = order["lines"].as_array().unwrap().iter().find(|line| line["product_id"] == product);
        line.unwrap()["line"].clone()
    };
    let ask = |key: &str, product: &str, restock: &str| {
        let body = json!({ "line": line(product), "restock": restock, "reason": "sorry" });
        refund(&shop, &id(&order), body).key(key).send()
    };
    ask("a", &jar, "leave").await.ok(201);
    ask("b", &jar, "leave").await.problem(409, "order_state_conflict");
    assert_eq!(shop.counters(&jar).await[..3], [3, 0, 2]);
    let back = ask("c", &jar, "to_stock").await.ok(201);
    assert_eq!((&back["cause"], &back["amount"]["amount"]), (&json!("line_taken_back"), &json!(0)));
    assert_eq!(id(&ask("c", &jar, "to_stock").await.ok(201)), id(&back), "asked again it is the same");
    ask("d", &jar, "to_stock").await.problem(409, "order_state_conflict");
    ask("e", &gift, "write_off").await.ok(201);
    // The money went back as an amount, all of it or a part: the line brings its units and what is left of its price.
    let some =
        json!({ "amount": { "amount": 100, "currency": "KRW" }, "restock": "leave", "reason": "late" });
    let all = json!({ "restock": "leave", "reason": "late" });
    for (who, before, given, owed) in [(2, all, 1_000, 0), (3, some, 100, 900)] {
        let order = id(&shop.buy(who, &jar, 1, "tok_ok").send().await.ok(201));
        let left = refund(&shop, &order, before).key("a").send().await.ok(201);
        assert_eq!((&left["cause"], &left["amount"]["amount"]), (&json!("clerk"), &json!(given)));
        let line = json!({ "line": 1, "restock": "to_stock", "reason": "it is here" });
        let back = refund(&shop, &order, line.clone()).key("b").send().await.ok(201);
        assert_eq!((&back["cause"], &back["amount"]["amount"]), (&json!("line"), &json!(owed)));
        refund(&shop, &order, line).key("c").send().await.problem(409, "order_state_conflict");
        shop.settle().await;
        assert_eq!(money_of(&shop, who, &order).await, ("cancelled".into(), "refunded".into(), 1_000));
    }
    shop.settle().await;
    assert_eq!(shop.counters(&jar).await[..3], [5, 0, 0]);
    assert_eq!(money_of(&shop, 1, &id(&order)).await.2, 2_000);
    let folder = shop.stop().await;
    assert_eq!(stockade::persistence::audit::audit(folder.path()).await.unwrap().money.differences, [""; 0]);
}

#[actix_web::test]
async fn what_somebody_decides_about_money_stands_in_the_trail() {
    let shop = Shop::open().await;
    let jar = shop.stocked(5).await;
    let order = id(&shop.buy(1, &jar, 1, "tok_ok").send().await.ok(201));
    let review = shop.buy(1, &jar, 1, "tok_wrong_amount").send().await.ok(202);
    let payment = review["payment"]["id"].as_str().unwrap().to_owned();
    let made = refund(&shop, &order, json!({ "restock": "write_off", "reason": "broken" }))
        .key("k")
        .send()
        .await
        .ok(201);
    let accept = shop.admin("POST", &format!("/v1/admin/compensations/{payment}/accept")).send().await;
    assert_eq!(accept.status, 200);
    shop.settle().await;
    assert_eq!(shop.counters(&jar).await[..3], [3, 0, 1], "one is written off, one is sold");
    let folder = shop.stop().await;
    let trail: Trail = stockade::persistence::Tables::read_only(folder.path()).trail();
    let newest = trail.before(i64::MAX, 10).await.unwrap();
    let told: Vec<_> = newest
        .iter()
        .rev()
        .map(|entry| format!("{} {} {}", entry.kind, entry.subject, entry.detail))
        .collect();
    let refund_id = made["id"].as_str().unwrap();
    let wanted = [
        format!("refund_asked {order} refund={refund_id} amount_minor=1000 restock=write_off"),
        format!("review_accepted {} payment={payment}", id(&review)),
    ];
    for line in wanted {
        assert!(told.contains(&line), "{line} is not in {told:#?}");
    }
}

#[actix_web::test]
async fn a_refund_that_the_provider_will_not_do_is_settled_by_hand() {
    let shop = Shop::open().await;
    let jar = shop.stocked(5).await;
    let order = id(&shop.buy(1, &jar, 1, "tok_ok").send().await.ok(201));
    // Somebody has given it back at the provider's own desk.
    let paid = shop.refund_at_the_desk(&order).await;
    let payments = shop.app().payments();
    shop.by(1, "POST", &format!("/v1/orders/{order}/cancel")).send().await.ok(200);
    // Between two tries it is listed.
    let failed = loop {
        payments.at_rest().await;
        let listed = shop.admin("GET", "/v1/admin/compensations?state=stuck").send().await.ok(200);
        match listed["data"].get(0) {
            Some(one) if one["why"] == "failed_charge_already_refunded" => break id(one),
            _ => {}
        }
    };
    let settle =
        |refund: &str| shop.admin("POST", &format!("/v1/admin/compensations/{refund}/settle")).send();
    let mut settled = settle(&failed).await;
    // It is being tried in this very moment.
    while settled.status == 409 {
        payments.at_rest().await;
        settled = settle(&failed).await;
    }
    let settled = settled.ok(200);
    assert_eq!((&settled["state"], &settled["reason"]), (&json!("done"), &json!("settled_by_hand")));
    assert_eq!(settle(&failed).await.ok(200)["state"], "done");
    shop.settle().await;
    assert_eq!(money_of(&shop, 1, &order).await, ("cancelled".into(), "refunded".into(), 1_000));

    // What the provider may still do, has done, or never heard of is nobody's to settle.
    let order = id(&shop.buy(1, &jar, 1, "tok_refund_fails_always").send().await.ok(201));
    shop.by(1, "POST", &format!("/v1/orders/{order}/cancel")).send().await.ok(200);
    payments.at_rest().await;
    settle(&id(&refunds_of(&shop, &order).await[0])).await.problem(409, "order_state_conflict");
    let order = id(&shop.buy(1, &jar, 1, "tok_ok").send().await.ok(201));
    shop.by(1, "POST", &format!("/v1/orders/{order}/cancel")).send().await.ok(200);
    payments.at_rest().await;
    settle(&id(&refunds_of(&shop, &order).await[0])).await.problem(404, "not_found");
    settle(&paid.id.to_string()).await.problem(404, "not_found");

    let folder = shop.stop().await;
    let trail: Trail = stockade::persistence::Tables::read_only(folder.path()).trail();
    let newest = trail.before(i64::MAX, 10).await.unwrap();
    let of_it: Vec<_> = newest.iter().filter(|entry| entry.kind == "refund_settled").collect();
    assert_eq!(of_it.len(), 1);
    assert_eq!(of_it[0].detail, format!("refund={failed} amount_minor=1000"));
}
