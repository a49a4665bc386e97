//! Money above a bound: one administrator asks for it and nothing moves; another one asks for the same, and it moves once.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::{Value, json};
use stockade::domain::id::{ApprovalId, UserId};
use stockade::domain::payment::Seconded;
use stockade::domain::user::Role;

use super::support::{Ask, DAY_MS, Reply, Shop, id, lines, user};
use super::{money_of, refunds_of};

/// A shop in which more than two jars take two.
async fn open() -> Shop {
    Shop::open_with(|config| config.payment.four_eyes = "KRW:2000".parse().unwrap()).await
}

/// As the how-manieth administrator.
fn by(shop: &Shop, who: u64, path: &str) -> Ask {
    shop.ask("POST", path).bearer(&shop.token(who, Role::Admin))
}

async fn refund(shop: &Shop, who: u64, order: &str, key: &str, body: &Value) -> Reply {
    by(shop, who, &format!("/v1/admin/orders/{order}/refunds")).key(key).json(body).send().await
}

async fn decide(shop: &Shop, who: u64, about: &str, what: &str) -> Reply {
    by(shop, who, &format!("/v1/admin/compensations/{about}/{what}")).send().await
}

/// While it is being tried nobody settles it.
async fn settle(shop: &Shop, who: u64, refund: &str) -> Reply {
    loop {
        let settled = decide(shop, who, refund, "settle").await;
        if settled.status != 409 {
            return settled;
        }
        shop.app().payments().at_rest().await;
    }
}

fn amount(amount: i64) -> Value {
    json!({ "amount": { "amount": amount, "currency": "KRW" }, "restock": "leave", "reason": "late" })
}

fn who(number: u64) -> Value {
    json!(user(number).to_string())
}

/// So many jars of a thousand won each, paid.
async fn bought(shop: &Shop, jar: &str, quantity: u32) -> String {
    id(&shop.buy(1, jar, quantity, "tok_ok").send().await.ok(201))
}

/// What waits for a second administrator.
async fn waiting(shop: &Shop) -> Vec<Value> {
    let listed = shop.admin("GET", "/v1/admin/compensations?state=review").send().await.ok(200);
    listed["data"].as_array().unwrap().iter().filter(|one| one["kind"] == "approval").cloned().collect()
}

#[actix_web::test]
async fn one_alone_moves_nothing_and_a_second_moves_it_once() {
    let shop = open().await;
    let jar = shop.stocked(9).await;
    let order = bought(&shop, &jar, 9).await;
    let ask = async |who: u64, key: &str, body: &Value| refund(&shop, who, &order, key, body).await;
    let body = amount(3_000);
    let first = ask(101, "a", &body).await;
    assert!(!first.replayed());
    let first = first.ok(202);
    assert_eq!(
        (&first["waiting_for"], &first["what"], &first["amount"]["amount"], &first["restock"]),
        (&json!("second_administrator"), &json!("refund"), &json!(3_000), &json!("leave"))
    );
    assert_eq!((&first["order_id"], &first["asked_by"]), (&json!(order), &who(101)));
    assert_eq!((&first["seconded_by"], &first["refund_id"]), (&Value::Null, &Value::Null));
    // Whatever he does he is not two.
    let again = ask(101, "a", &body).await;
    assert!(again.replayed());
    assert_eq!(again.ok(202), first);
    assert_eq!(ask(101, "b", &body).await.ok(202), first);
    ask(101, "a", &amount(3_001)).await.problem(422, "idempotency_key_reused");
    shop.settle().await;
    assert!(refunds_of(&shop, &order).await.is_empty());
    assert_eq!(shop.charges()[0].refunded, 0);
    let listed = waiting(&shop).await;
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (&listed[0]["id"], &listed[0]["why"], &listed[0]["approval"]),
        (&first["id"], &json!("refund"), &first)
    );

    // The key is another one's, and so may be his reason.
    let reason = json!({ "amount": body["amount"], "restock": "leave", "reason": "very late" });
    let made = ask(102, "a", &reason).await;
    assert!(!made.replayed());
    let made = made.ok(201);
    assert_eq!((&made["amount"]["amount"], &made["cause"]), (&json!(3_000), &json!("clerk")));
    let again = ask(102, "a", &reason).await;
    assert!(again.replayed());
    assert_eq!(again.ok(201)["id"], made["id"]);
    ask(102, "a", &amount(2_999)).await.problem(422, "idempotency_key_reused");
    // The first hears what he had heard, as it stands by now; whoever comes third is too late.
    let told = ask(101, "a", &body).await;
    assert!(told.replayed());
    let told = told.ok(202);
    assert_eq!((&told["id"], &told["waiting_for"]), (&first["id"], &Value::Null));
    assert_eq!((&told["seconded_by"], &told["refund_id"]), (&who(102), &made["id"]));
    for third in [ask(103, "c", &body).await, ask(101, "d", &body).await] {
        assert_eq!(third.problem(409, "order_state_conflict")["refund_id"], made["id"]);
    }
    shop.settle().await;
    assert!(waiting(&shop).await.is_empty());
    assert_eq!(refunds_of(&shop, &order).await.len(), 1);
    assert_eq!((shop.charges()[0].refunded, money_of(&shop, 1, &order).await.2), (3_000, 3_000));
    shop.audited().await;
}

#[actix_web::test]
async fn a_hundred_seconds_at_once_are_one() {
    let shop = open().await;
    let jar = shop.stocked(9).await;
    let order = bought(&shop, &jar, 9).await;
    let body = amount(3_000);
    refund(&shop, 101, &order, "k", &body).await.ok(202);
    let replies = join_all((0..100).map(|n| refund(&shop, 200 + n, &order, "k", &body))).await;
    assert_eq!(replies.iter().filter(|reply| reply.status == 201).count(), 1);
    for reply in replies.iter().filter(|reply| reply.status != 201) {
        assert!(reply.problem(409, "order_state_conflict")["refund_id"].is_string());
    }
    shop.settle().await;
    assert_eq!((refunds_of(&shop, &order).await.len(), shop.charges()[0].refunded), (1, 3_000));
    shop.audited().await;
}

#[actix_web::test]
async fn what_differs_waits_for_itself() {
    let shop = open().await;
    let (jar, cup) = (shop.stocked(5).await, shop.stocked(5).await);
    let mut body = lines(&[(&jar, 3), (&cup, 3)]);
    body["payment"] = super::support::card("tok_ok");
    let order = id(&shop.by(1, "POST", "/v1/orders").json(&body).send().await.ok(201));
    let line = |line: u8, restock: &str| json!({ "line": line, "restock": restock, "reason": "broken" });
    let first = refund(&shop, 101, &order, "a", &line(1, "to_stock")).await.ok(202);
    assert_eq!(
        (&first["what"], &first["line"], &first["amount"]["amount"]),
        (&json!("line"), &json!(1), &json!(3_000))
    );
    let mut less = line(1, "to_stock");
    less["amount"] = json!({ "amount": 2_999, "currency": "KRW" });
    let others = [line(1, "leave"), line(1, "write_off"), line(2, "to_stock"), less, amount(3_000)];
    let mut known = BTreeSet::from([id(&first)]);
    for (number, other) in others.iter().enumerate() {
        let waits = refund(&shop, 102, &order, &format!("o{number}"), other).await.ok(202);
        assert_eq!(waits["asked_by"], who(102), "{waits}");
        assert!(known.insert(id(&waits)), "{waits}");
    }
    assert!(refunds_of(&shop, &order).await.is_empty());
    assert_eq!(shop.counters(&jar).await[..3], [2, 0, 3]);
    // A page ends between two of them.
    let page = shop.admin("GET", "/v1/admin/compensations?limit=4").send().await.ok(200);
    let next = page["next_cursor"].as_str().unwrap();
    let rest = shop.admin("GET", &format!("/v1/admin/compensations?limit=4&cursor={next}")).send().await;
    let listed = [page["data"].as_array().unwrap().clone(), rest.ok(200)["data"].as_array().unwrap().clone()];
    assert_eq!(listed.concat().iter().map(id).collect::<BTreeSet<_>>(), known);
    decide(&shop, 103, &id(&first), "retry").await.problem(404, "not_found");

    // The price of the line is the same, whoever says it in which words.
    let mut same = line(1, "to_stock");
    same["amount"] = json!({ "amount": 3_000, "currency": "KRW" });
    let made = refund(&shop, 102, &order, "b", &same).await.ok(201);
    assert_eq!((&made["cause"], &made["restock"]), (&json!("line"), &json!("to_stock")));
    refund(&shop, 103, &order, "c", &line(1, "leave")).await.problem(409, "order_state_conflict");
    shop.settle().await;
    assert_eq!((refunds_of(&shop, &order).await.len(), shop.charges()[0].refunded), (1, 3_000));
    shop.audited().await;
}

#[actix_web::test]
async fn up_to_its_bound_one_is_enough_and_in_parts_it_is_as_much() {
    let shop = open().await;
    let jar = shop.stocked(9).await;
    let order = bought(&shop, &jar, 5).await;
    refund(&shop, 101, &order, "a", &amount(1_500)).await.ok(201);
    refund(&shop, 101, &order, "b", &amount(500)).await.ok(201);
    refund(&shop, 101, &order, "c", &amount(1)).await.ok(202);
    // What a buyer takes back by himself is no clerk's.
    let other = bought(&shop, &jar, 4).await;
    shop.by(1, "POST", &format!("/v1/orders/{other}/cancel")).send().await.ok(200);
    shop.settle().await;
    assert_eq!(money_of(&shop, 1, &order).await.2, 2_000);
    assert_eq!(money_of(&shop, 1, &other).await.2, 4_000);
    shop.audited().await;
}

#[actix_web::test]
async fn what_nobody_seconds_within_a_day_lapses() {
    let shop = open().await;
    let jar = shop.stocked(9).await;
    let order = bought(&shop, &jar, 5).await;
    let body = amount(3_000);
    let first = refund(&shop, 101, &order, "a", &body).await.ok(202);
    shop.clock.advance(DAY_MS + 1_000);
    assert!(waiting(&shop).await.is_empty());
    let anew = refund(&shop, 102, &order, "b", &body).await;
    assert!(!anew.replayed());
    let anew = anew.ok(202);
    assert_eq!(anew["asked_by"], who(102));
    assert_ne!(anew["id"], first["id"]);
    assert!(refunds_of(&shop, &order).await.is_empty());
    // It is taken away by itself.
    let rows = shop.app().payments().rows().approvals();
    while rows.of_order(order.parse().unwrap()).await.unwrap().len() > 1 {
        shop.app().payments().wake();
        tokio::task::yield_now().await;
    }
    assert_eq!(waiting(&shop).await[0]["id"], anew["id"]);
    refund(&shop, 101, &order, "a", &body).await.ok(201);
    shop.audited().await;
}

/// Who is suspended, or no administrator, has asked for nothing.
#[actix_web::test]
async fn the_word_of_whoever_was_sent_away_counts_no_more() {
    let shop = open().await;
    let jar = shop.stocked(9).await;
    let order = bought(&shop, &jar, 9).await;
    let body = amount(3_000);
    let suspended = refund(&shop, 101, &order, "a", &body).await.ok(202);
    let door = format!("/v1/admin/users/{}/suspend", user(101));
    assert!(by(&shop, 103, &door).send().await.status.is_success());
    let asked = refund(&shop, 102, &order, "b", &body).await.ok(202);
    assert_eq!(asked["asked_by"], who(102));
    assert_ne!(asked["id"], suspended["id"]);

    // Her token says that she is one; her account does not.
    let pair = shop.log_in(&shop.newcomer(1).await).await;
    let mina: UserId = shop.id_of(&pair).await.parse().unwrap();
    let token =
        shop.app().tokens().sign(mina, Role::Admin, 900, shop.clock.now(), shop.clock.chance()).unwrap();
    let other = amount(4_000);
    let ask = shop.ask("POST", &format!("/v1/admin/orders/{order}/refunds")).bearer(&token).key("m");
    let hers = ask.json(&other).send().await.ok(202);
    assert_eq!(hers["asked_by"], json!(mina.to_string()));
    assert_eq!(refund(&shop, 102, &order, "c", &other).await.ok(202)["asked_by"], who(102));
    assert!(refunds_of(&shop, &order).await.is_empty());
    // Whoever is one still is the second.
    refund(&shop, 103, &order, "d", &body).await.ok(201);
    refund(&shop, 103, &order, "e", &other).await.ok(201);
    shop.settle().await;
    assert_eq!(shop.charges()[0].refunded, 7_000);
    shop.audited().await;
}

/// Whoever was the second has died between his word and the refund.
#[actix_web::test]
async fn what_two_have_asked_for_is_done_by_whoever_comes_next() {
    let shop = open().await;
    let jar = shop.stocked(9).await;
    let order = bought(&shop, &jar, 9).await;
    let body = amount(3_000);
    let first = refund(&shop, 101, &order, "a", &body).await.ok(202);
    let asked: ApprovalId = id(&first).parse().unwrap();
    let seconded = Seconded { by: user(102), at: shop.clock.now(), key: None };
    assert!(shop.app().payments().rows().approvals().second(asked, &seconded).await.unwrap());
    assert!(refunds_of(&shop, &order).await.is_empty());
    let replies = join_all((0..10).map(|n| refund(&shop, 102 + n, &order, "b", &body))).await;
    assert_eq!(replies.iter().filter(|reply| reply.status == 201).count(), 1);
    assert!(replies.iter().all(|reply| [201, 409].contains(&reply.status.as_u16())));
    shop.settle().await;
    assert_eq!((refunds_of(&shop, &order).await.len(), shop.charges()[0].refunded), (1, 3_000));
    shop.audited().await;
}

#[actix_web::test]
async fn what_a_person_decides_about_a_payment_takes_two() {
    let shop = open().await;
    let jar = shop.stocked(9).await;
    let (mut orders, mut payments) = (Vec::new(), Vec::new());
    for quantity in [3, 4, 1] {
        let order = shop.buy(1, &jar, quantity, "tok_wrong_amount").send().await.ok(202);
        payments.push(order["payment"]["id"].as_str().unwrap().to_owned());
        orders.push(id(&order));
    }
    for (payment, what, word) in
        [(&payments[0], "accept", "accept"), (&payments[1], "give-back", "give_back")]
    {
        let first = decide(&shop, 101, payment, what).await.ok(202);
        assert_eq!((&first["what"], &first["payment_id"]), (&json!(word), &json!(payment)));
        assert_eq!(decide(&shop, 101, payment, what).await.ok(202), first, "he is not two");
    }
    shop.settle().await;
    assert_eq!(shop.counters(&jar).await[..3], [1, 8, 0], "nobody has decided anything");
    // The other thing is another thing.
    assert_eq!(decide(&shop, 102, &payments[1], "accept").await.ok(202)["asked_by"], who(102));
    let (one, other) =
        tokio::join!(decide(&shop, 102, &payments[0], "accept"), decide(&shop, 103, &payments[0], "accept"));
    assert_eq!(one.ok(200)["id"], other.ok(200)["id"]);
    decide(&shop, 103, &payments[1], "give-back").await.ok(200);
    // Who decides the same again hears what came of it, the first as well.
    decide(&shop, 101, &payments[0], "accept").await.ok(200);
    decide(&shop, 101, &payments[1], "accept").await.problem(409, "order_state_conflict");
    decide(&shop, 101, &payments[2], "accept").await.ok(200);
    shop.settle().await;
    assert_eq!(money_of(&shop, 1, &orders[0]).await, ("paid".into(), "paid".into(), 0));
    assert_eq!(money_of(&shop, 1, &orders[1]).await, ("payment_failed".into(), "refunded".into(), 4_001));
    assert_eq!(shop.counters(&jar).await[..3], [5, 0, 4]);
    shop.audited().await;
}

#[actix_web::test]
async fn a_refund_is_settled_by_hand_when_two_say_so() {
    let shop = open().await;
    let jar = shop.stocked(9).await;
    let order = bought(&shop, &jar, 3).await;
    shop.refund_at_the_desk(&order).await;
    shop.by(1, "POST", &format!("/v1/orders/{order}/cancel")).send().await.ok(200);
    let refund = id(&refunds_of(&shop, &order).await[0]);
    let first = settle(&shop, 101, &refund).await.ok(202);
    assert_eq!((&first["what"], &first["refund_id"]), (&json!("settle"), &json!(refund)));
    assert_eq!(settle(&shop, 101, &refund).await.ok(202), first);
    assert_ne!(refunds_of(&shop, &order).await[0]["state"], "done");
    let settled = settle(&shop, 102, &refund).await.ok(200);
    assert_eq!((&settled["state"], &settled["reason"]), (&json!("done"), &json!("settled_by_hand")));
    assert_eq!(settle(&shop, 103, &refund).await.ok(200)["state"], "done");
    shop.close().await;
}

#[actix_web::test]
async fn the_trail_names_both() {
    let shop = open().await;
    let jar = shop.stocked(9).await;
    let order = bought(&shop, &jar, 3).await;
    let all = json!({ "restock": "write_off", "reason": "broken" });
    let first = refund(&shop, 101, &order, "a", &all).await.ok(202);
    let made = id(&refund(&shop, 102, &order, "a", &all).await.ok(201));
    let review = shop.buy(1, &jar, 3, "tok_wrong_amount").send().await.ok(202);
    let payment = review["payment"]["id"].as_str().unwrap().to_owned();
    decide(&shop, 102, &payment, "accept").await.ok(202);
    decide(&shop, 101, &payment, "accept").await.ok(200);
    shop.settle().await;
    let folder = shop.stop().await;
    let trail = stockade::persistence::Tables::read_only(folder.path()).trail();
    let told = trail.before(i64::MAX, 20).await.unwrap().into_iter();
    let told: Vec<_> = told.map(|e| format!("{} {} {} {}", e.kind, e.actor, e.subject, e.detail)).collect();
    let (one, other, paid) = (user(101), user(102), first["payment_id"].as_str().unwrap());
    for line in [
        format!(
            "approval_asked {one} {order} payment={paid} what=refund amount_minor=3000 restock=write_off"
        ),
        format!(
            "refund_asked {other} {order} refund={made} amount_minor=3000 restock=write_off asked_by={one}"
        ),
        format!(
            "approval_asked {other} {} payment={payment} what=accept amount_minor=3001 restock=leave",
            id(&review)
        ),
        format!("review_accepted {one} {} payment={payment} asked_by={other}", id(&review)),
    ] {
        assert!(told.contains(&line), "{line} is not in {told:#?}");
    }
}
