//! Money above a bound: one administrator asks for it and nothing moves; another one asks for the same, and it moves once.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use secrecy::SecretString;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use stockade::clock::Clock;
use stockade::config::Config;
use stockade::domain::id::UserId;
use stockade::domain::user::{PasswordPolicy, Role};
use stockade::seed;

use super::support::{Ask, DAY_MS, Pair, Person, Reply, SECRET, Shop, id, lines, user};
use super::{money_of, refunds_of};

/// A shop in which more than two jars take two.
pub(super) async fn open() -> Shop {
    Shop::open_with(|config| config.payment.four_eyes = "KRW:2000".parse().unwrap()).await
}

/// As the how-manieth administrator.
fn by(shop: &Shop, who: u64, path: &str) -> Ask {
    shop.ask("POST", path).bearer(&shop.token(who, Role::Admin))
}

pub(super) async fn refund(shop: &Shop, who: u64, order: &str, key: &str, body: &Value) -> Reply {
    by(shop, who, &format!("/v1/admin/orders/{order}/refunds")).key(key).json(body).send().await
}

pub(super) async fn decide(shop: &Shop, who: u64, about: &str, what: &str) -> Reply {
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

pub(super) fn amount(amount: i64) -> Value {
    json!({ "amount": { "amount": amount, "currency": "KRW" }, "restock": "leave", "reason": "late" })
}

pub(super) fn who(number: u64) -> Value {
    json!(user(number).to_string())
}

/// So many jars of a thousand won each, paid.
pub(super) async fn bought(shop: &Shop, jar: &str, quantity: u32) -> String {
    id(&shop.buy(1, jar, quantity, "tok_ok").send().await.ok(201))
}

/// What waits for a second administrator.
pub(super) async fn waiting(shop: &Shop) -> Vec<Value> {
    let listed = shop.admin("GET", "/v1/admin/compensations?state=review").send().await.ok(200);
    listed["data"].as_array().unwrap().iter().filter(|one| one["kind"] == "approval").cloned().collect()
}

/// What somebody does to one of the files.
pub(super) async fn tamper(shop: &Shop, file: &str, sql: &'static str) {
    let options = SqliteConnectOptions::new().filename(shop.folder().join(file));
    let mut connection = options.connect().await.unwrap();
    sqlx::query(sql).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
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

/// An administrator with an account has asked in a session that was ended: by another password, or by a log-out.
#[actix_web::test]
async fn the_word_of_a_session_that_was_ended_counts_no_more() {
    let folder = open().await.stop().await;
    let mut config = Config::development(folder.path());
    config.tokens.secret = Some(SecretString::from(SECRET));
    let boss = Person {
        email: "boss@example.com".to_owned(),
        password: "seven swans swim far".to_owned(),
        ..Person::number(1)
    };
    let password = PasswordPolicy { chars_min: 8 }.accept(boss.password.clone().into(), None).unwrap();
    seed::make_admin(&config, &Clock::start(), boss.email.parse().unwrap(), password).await.unwrap();
    let shop = Shop::open_in_with(folder, |config| {
        config.payment.four_eyes = "KRW:2000".parse().unwrap();
    })
    .await;
    let jar = shop.stocked(9).await;
    let order = bought(&shop, &jar, 9).await;
    let (here, there) = (shop.log_in(&boss).await, shop.log_in(&boss).await);
    let me = json!(shop.id_of(&here).await);
    let ask = async |pair: &Pair, key: &str, body: &Value| {
        let ask = shop.as_of(pair, "POST", &format!("/v1/admin/orders/{order}/refunds"));
        ask.key(key).json(body).send().await
    };
    let (body, other) = (amount(3_000), amount(4_000));
    let first = ask(&there, "a", &body).await.ok(202);
    assert_eq!(ask(&there, "a", &body).await.ok(202), first);
    assert_eq!(waiting(&shop).await.len(), 1);
    let change = json!({ "current_password": boss.password, "new_password": "eight swans swim far" });
    let changed = shop.as_of(&here, "PUT", "/v1/users/me/password").json(&change).send().await;
    assert_eq!(changed.status, 204, "{}", changed.text);
    // Nobody is told of it, and its key is free.
    assert!(waiting(&shop).await.is_empty());
    assert_eq!(refund(&shop, 102, &order, "b", &body).await.ok(202)["asked_by"], who(102));
    let again = ask(&here, "a", &other).await;
    assert!(!again.replayed());
    assert_eq!(again.ok(202)["asked_by"], me);

    let left = shop.as_of(&here, "DELETE", "/v1/sessions/current").send().await;
    assert_eq!(left.status, 204, "{}", left.text);
    assert_eq!(refund(&shop, 103, &order, "c", &other).await.ok(202)["asked_by"], who(103));
    assert!(refunds_of(&shop, &order).await.is_empty());
    // While it stands his word is one of two.
    let back = shop.log_in(&Person { password: "eight swans swim far".to_owned(), ..boss }).await;
    let last = amount(2_500);
    ask(&back, "d", &last).await.ok(202);
    refund(&shop, 102, &order, "d", &last).await.ok(201);
    shop.audited().await;
}

#[actix_web::test]
async fn of_an_order_only_so_much_waits() {
    let shop = open().await;
    let jar = shop.stocked(9).await;
    let order = bought(&shop, &jar, 9).await;
    for more in 1..=64 {
        refund(&shop, 101, &order, &format!("k{more}"), &amount(2_000 + more)).await.ok(202);
    }
    refund(&shop, 101, &order, "k65", &amount(2_065)).await.problem(503, "overloaded");
    // What waits is seconded all the same, and makes room.
    refund(&shop, 102, &order, "k", &amount(2_001)).await.ok(201);
    refund(&shop, 101, &order, "k65", &amount(2_065)).await.ok(202);
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

/// What is lost counts as well as what goes back.
#[actix_web::test]
async fn to_keep_less_than_was_asked_for_is_weighed_by_what_is_lost() {
    let shop = open().await;
    let jar = shop.stocked(9).await;
    let review = shop.buy(1, &jar, 3, "tok_wrong_amount").send().await.ok(202);
    let payment = review["payment"]["id"].as_str().unwrap().to_owned();
    tamper(&shop, "money.db", "update payments set captured_minor = 1 where state = 'review'").await;
    let first = decide(&shop, 101, &payment, "accept").await.ok(202);
    assert_eq!((&first["what"], &first["amount"]["amount"]), (&json!("accept"), &json!(1)));
    decide(&shop, 101, &payment, "give-back").await.ok(200);
    shop.close().await;
}

/// As with what clerks give back, in parts it is as much, and the one counts for the other.
#[actix_web::test]
async fn what_went_back_another_way_in_parts_is_as_much() {
    let shop = open().await;
    let jars = [shop.stocked(5).await, shop.stocked(5).await, shop.stocked(5).await];
    let mut body = lines(&[(&jars[0], 1), (&jars[1], 1), (&jars[2], 1)]);
    body["payment"] = super::support::card("tok_ok");
    let order = id(&shop.by(1, "POST", "/v1/orders").json(&body).send().await.ok(201));
    shop.refund_at_the_desk(&order).await;
    let mut refunds = Vec::new();
    for line in 1..=3 {
        shop.cancel_line(1, &order, line).send().await.ok(200);
        let cancelled = refunds_of(&shop, &order).await;
        let new = cancelled.iter().map(id).find(|refund| !refunds.contains(refund)).unwrap();
        refunds.push(new);
    }
    settle(&shop, 101, &refunds[0]).await.ok(200);
    settle(&shop, 101, &refunds[1]).await.ok(200);
    settle(&shop, 101, &refunds[2]).await.ok(202);
    settle(&shop, 102, &refunds[2]).await.ok(200);
    shop.close().await;
}

#[actix_web::test]
async fn what_went_back_another_way_counts_for_what_clerks_give_back() {
    let shop = open().await;
    let (jar, cup) = (shop.stocked(5).await, shop.stocked(5).await);
    let mut body = lines(&[(&jar, 2), (&cup, 1)]);
    body["payment"] = super::support::card("tok_ok");
    let order = id(&shop.by(1, "POST", "/v1/orders").json(&body).send().await.ok(201));
    shop.refund_at_the_desk(&order).await;
    let line = if shop.order_of(1, &order).await["lines"][0]["product_id"] == json!(jar) { 1 } else { 2 };
    shop.cancel_line(1, &order, line).send().await.ok(200);
    settle(&shop, 101, &id(&refunds_of(&shop, &order).await[0])).await.ok(200);
    refund(&shop, 101, &order, "a", &amount(1)).await.ok(202);
    shop.close().await;
}
