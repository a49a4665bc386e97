//! One key, one order: whoever asks, how often, and how long after.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::poll;
use serde_json::{Value, json};
use stockade::actors::order::{Item, PlaceOrder};
use stockade::actors::stock::{Answer, NotDone};
use stockade::domain::amount::Quantity;
use stockade::domain::stock::{Command, Fingerprint, KeyUse, Refusal, Refused};
use xxhash_rust::xxh3::xxh3_128;

use crate::support::{self, Shop, id, lines, one_line};

#[actix_web::test]
async fn one_key_makes_one_order_however_often_it_is_sent() {
    let shop = Shop::open().await;
    let jar = shop.stocked(100).await;
    let replies = join_all((0..50).map(|_| shop.order(1, &jar, 1).key("again").send())).await;
    let mut orders = BTreeSet::new();
    for reply in &replies {
        // The first may still be running; whoever hears so asks again.
        if reply.status == 409 {
            reply.problem(409, "idempotency_in_progress");
            assert!(reply.header("Retry-After").is_some());
        } else {
            orders.insert(id(&reply.ok(201)));
        }
    }
    assert_eq!(orders.len(), 1, "{orders:?}");
    assert_eq!(replies.iter().filter(|reply| reply.status == 201 && !reply.replayed()).count(), 1);
    let again = shop.order(1, &jar, 1).key("again").send().await;
    assert!(again.replayed());
    assert!(orders.contains(&id(&again.ok(201))));
    assert_eq!(shop.counters(&jar).await, [99, 1, 0, 2]);

    // Keys are scoped by their caller.
    let other = shop.order(2, &jar, 1).key("again").send().await;
    assert!(!other.replayed() && !orders.contains(&id(&other.ok(201))));
    shop.close().await;
}

#[actix_web::test]
async fn one_key_with_two_bodies_makes_one_order() {
    let shop = Shop::open().await;
    let (jar, cup) = (shop.stocked(100).await, shop.stocked(100).await);
    let first = shop.order(1, &jar, 1).key("k").send().await.ok(201);
    for body in [one_line(&jar, 2), one_line(&cup, 1), lines(&[(&jar, 1), (&cup, 1)])] {
        let told = shop.by(1, "POST", "/v1/orders").key("k").json(&body).send().await;
        assert_eq!(told.problem(422, "idempotency_key_reused")["order_id"], first["id"]);
    }
    assert_eq!((shop.counters(&jar).await, shop.counters(&cup).await), ([99, 1, 0, 2], [100, 0, 0, 1]));

    // All at once, and nobody knows who comes first.
    let bodies = [one_line(&jar, 3), one_line(&cup, 3), lines(&[(&cup, 3), (&jar, 3)])];
    let race = (0..30).map(|n| shop.by(2, "POST", "/v1/orders").key("race").json(&bodies[n % 3]).send());
    let orders: BTreeSet<String> = join_all(race)
        .await
        .iter()
        .filter(|reply| reply.status == 201)
        .map(|reply| id(&reply.json()))
        .collect();
    assert_eq!(orders.len(), 1, "{orders:?}");
    shop.tables_follow().await;
    let listed = shop.by(2, "GET", "/v1/orders").send().await.ok(200);
    assert_eq!(listed["data"].as_array().unwrap().len(), 1);
    shop.close().await;
}

/// What pays an order is looked for within that order: whoever uses one key for two of them wants two things, each of them once.
#[actix_web::test]
async fn one_key_pays_two_orders_each_once() {
    let shop = Shop::open().await;
    let jar = shop.stocked(5).await;
    let held = [shop.order(1, &jar, 1).send().await.ok(201), shop.order(1, &jar, 1).send().await.ok(201)];
    for is_again in [false, true] {
        for order in held.iter().map(id) {
            let paid = shop.pay(1, &order, "tok_ok").key("k").send().await;
            let seen = paid.ok(200);
            assert_eq!((&seen["status"], paid.replayed()), (&json!("paid"), is_again), "{seen}");
            assert_eq!(seen["id"], order);
        }
        assert_eq!(shop.counters(&jar).await[..3], [3, 0, 2]);
    }
    let other = shop.pay(1, &id(&held[0]), "tok_declined").key("k").send().await;
    other.problem(422, "idempotency_key_reused");
    shop.close().await;
}

#[actix_web::test]
async fn the_order_of_lines_is_no_other_body() {
    let shop = Shop::open().await;
    let (jar, cup) = (shop.stocked(9).await, shop.stocked(9).await);
    let place = |body| shop.by(1, "POST", "/v1/orders").key("k").json(&body).send();
    let first = place(lines(&[(&jar, 1), (&cup, 2)])).await.ok(201);
    let again = place(lines(&[(&cup, 2), (&jar, 1)])).await;
    assert!(again.replayed());
    assert_eq!(again.ok(201)["id"], first["id"]);
    shop.close().await;
}

#[actix_web::test]
async fn a_key_is_remembered_across_a_restart_and_answers_with_the_order_as_it_is_now() {
    let shop = Shop::open().await;
    let jar = shop.stocked(5).await;
    let order = shop.order(1, &jar, 1).key("k").send().await.ok(201);
    let shop = shop.reopen().await;
    let again = shop.order(1, &jar, 1).key("k").send().await;
    assert!(again.replayed());
    assert_eq!(again.ok(201)["id"], order["id"]);
    let reused = shop.order(1, &jar, 2).key("k").send().await.problem(422, "idempotency_key_reused");
    assert_ne!(reused.get("sequence"), Some(&json!(0)), "what has no place names none: {reused}");

    shop.by(1, "POST", &format!("/v1/orders/{}/cancel", id(&order))).send().await.ok(200);
    let again = shop.order(1, &jar, 1).key("k").send().await.ok(201);
    assert_eq!((&again["id"], &again["status"]), (&order["id"], &json!("cancelled")));
    assert_eq!(shop.counters(&jar).await[..3], [5, 0, 0]);
    shop.close().await;
}

#[actix_web::test]
async fn a_refusal_does_not_bind_its_key() {
    let shop = Shop::open().await;
    let jar = shop.stocked(0).await;
    shop.order(1, &jar, 1).key("k").send().await.problem(409, "sold_out");
    let restock = format!("/v1/admin/products/{jar}/restock");
    shop.admin("POST", &restock)
        .key("r")
        .json(&json!({ "delta": 3, "reason": "delivery" }))
        .send()
        .await
        .ok(200);
    let placed = shop.order(1, &jar, 2).key("k").send().await;
    assert!(!placed.replayed());
    placed.ok(201);
    shop.close().await;
}

/// What its owner has forgotten stands in the tables.
#[actix_web::test]
async fn an_order_that_ended_long_ago_answers_as_it_did() {
    let shop = Shop::open().await;
    let [jar, cup] = [shop.stocked(5).await, shop.stocked(5).await];
    let order = shop.order(1, &jar, 2).key("k").send().await.ok(201);
    let both = lines(&[(&jar, 1), (&cup, 1)]);
    let pair = shop.by(1, "POST", "/v1/orders").key("pair").json(&both).send().await.ok(201);
    let undone = shop.order(1, &jar, 1).send().await.ok(201);
    let undo = format!("/v1/orders/{}/cancel", id(&undone));
    shop.by(1, "POST", &undo).key("undo").send().await.ok(200);
    shop.clock.advance(3_600_000);
    shop.tables_follow().await;
    let directory = shop.app().directory();
    for product in [&jar, &cup] {
        let (product, before) = (product.parse().unwrap(), shop.clock.now());
        let about = async |order| directory.order(product, id(order).parse().unwrap()).await.unwrap();
        // With the question the holds lapse.
        assert!(matches!(about(&pair).await, Answer::Order(Some(_))));
        let forget = Command::Forget { unkeyed_before: before, keyed_before: before };
        directory.ask(product, forget).await.unwrap();
        assert_eq!((about(&order).await, about(&pair).await), (Answer::Order(None), Answer::Order(None)));
    }
    let forgotten = directory.order(jar.parse().unwrap(), id(&undone).parse().unwrap()).await.unwrap();
    assert_eq!(forgotten, Answer::Order(None));
    shop.tables_follow().await;

    for (order, key, ask) in [(&order, "k", one_line(&jar, 2)), (&pair, "pair", both.clone())] {
        let path = format!("/v1/orders/{}", id(order));
        assert_eq!(shop.by(1, "GET", &path).send().await.ok(200)["status"], "expired");
        let again = shop.by(1, "POST", "/v1/orders").key(key).json(&ask).send().await;
        assert!(again.replayed());
        let again = again.ok(201);
        assert_eq!((id(&again), &again["status"]), (id(order), &json!("expired")));
        let other = shop.by(1, "POST", "/v1/orders").key(key).json(&one_line(&jar, 3)).send().await;
        other.problem(422, "idempotency_key_reused");
        let elsewhere = shop.by(1, "POST", "/v1/orders").key(key).json(&one_line(&cup, 3)).send().await;
        elsewhere.problem(422, "idempotency_key_reused");
        shop.by(1, "POST", &format!("{path}/cancel")).send().await.problem(410, "hold_expired");
        shop.pay(1, &id(order), "tok_ok").send().await.problem(410, "hold_expired");
    }
    for _ in 0..2 {
        let again = shop.by(1, "POST", &undo).key("undo").send().await;
        assert!(again.replayed());
        assert_eq!(again.ok(200)["status"], "cancelled");
    }
    shop.by(1, "POST", &undo).key("other").send().await.problem(409, "order_state_conflict");
    shop.by(1, "POST", &undo).send().await.problem(409, "order_state_conflict");
    assert_eq!(shop.counters(&jar).await[..3], [5, 0, 0]);
    shop.close().await;
}

/// What a key was used for over a week ago stands in the tables alone.
#[actix_web::test]
async fn a_key_of_the_week_before_last_still_makes_no_second_order() {
    let shop = Shop::open().await;
    let [jar, cup] = [shop.stocked(5).await, shop.stocked(5).await];
    let both = lines(&[(&jar, 1), (&cup, 1)]);
    let asks = [(1, "k", one_line(&jar, 2)), (1, "pair", both), (2, "k", one_line(&cup, 1))];
    let place = async |(by, key, ask): &(u64, &str, Value)| {
        shop.by(*by, "POST", "/v1/orders").key(key).json(ask).send().await
    };
    let mut orders = Vec::new();
    for ask in &asks {
        orders.push(id(&place(ask).await.ok(201)));
    }
    shop.tables_follow().await;
    let keys = shop.app().directory().house().keys.clone();
    keys.age(shop.clock.now().plus(7 * 24 * 3_600_000));
    assert_eq!(keys.len(), (3, 0), "as yet they are known with their product");
    keys.age(shop.clock.now().plus(9 * 24 * 3_600_000));
    assert_eq!(keys.len(), (0, 3));

    // As before, after all are sold too.
    for sold_out in [false, true] {
        if sold_out {
            for product in [&jar, &cup] {
                let left = shop.counters(product).await[0];
                shop.by(3, "POST", "/v1/orders").json(&one_line(product, left as u32)).send().await.ok(201);
            }
        }
        for ((by, key, ask), order) in asks.iter().zip(&orders) {
            let again = place(&(*by, *key, ask.clone())).await;
            assert!(again.replayed());
            assert_eq!(id(&again.ok(201)), *order);
            for body in [one_line(&jar, 3), one_line(&cup, 3), lines(&[(&cup, 2), (&jar, 1)])] {
                let other = place(&(*by, *key, body)).await.problem(422, "idempotency_key_reused");
                assert_eq!(other["order_id"], json!(order));
            }
        }
    }
    assert_eq!(keys.len(), (0, 3), "looking makes nothing new");

    // Nor is a key new while somebody may be making an order with it of which nobody here has heard.
    keys.set_owners_are_heard(false);
    let mug = shop.stocked(1).await;
    for product in [&jar, &mug] {
        shop.order(4, product, 1).key("k").send_once().await.problem(409, "idempotency_in_progress");
    }
    let again = place(&asks[0]).await.problem(409, "idempotency_in_progress");
    assert!(again.get("order_id").is_none());
    keys.set_owners_are_heard(true);

    // While old keys are still being read any key may be one of them.
    keys.set_past_is_whole(false);
    shop.order(4, &jar, 1).key("k").send().await.problem(409, "sold_out");
    assert!(place(&asks[0]).await.replayed());
    let new = shop.order(4, &mug, 1).key("k").send().await;
    assert!(!new.replayed());
    let new = id(&new.ok(201));
    let again = shop.order(4, &mug, 1).key("k").send().await;
    assert!(again.replayed());
    assert_eq!(id(&again.ok(201)), new);
    shop.order(5, &mug, 1).key("k").send().await.problem(409, "sold_out");
    assert_eq!(shop.counters(&jar).await[1], 5);
    shop.close().await;
}

/// A lead that has just begun: some owner may have made an order of which nobody has heard here.
#[actix_web::test]
async fn until_all_owners_are_heard_no_key_that_somebody_sends_is_new() {
    let shop = Shop::open().await;
    let (jar, cup) = (shop.stocked(5).await, shop.stocked(5).await);
    let made = shop.order(1, &jar, 1).key("made").send().await.ok(201);
    let keys = shop.app().directory().house().keys.clone();
    // As of an order that was never born.
    let stale = xxh3_128(b"stale").to_be_bytes();
    keys.keep(Fingerprint::of(support::user(2), stale), jar.parse().unwrap(), shop.clock.now());
    shop.tables_follow().await;
    keys.set_owners_are_heard(false);
    let again = shop.order(1, &jar, 1).key("made").send().await;
    assert!(again.replayed(), "what is known is told");
    assert_eq!(id(&again.ok(201)), id(&made));
    for product in [&jar, &cup] {
        shop.order(2, product, 1).key("stale").send().await.problem(409, "idempotency_in_progress");
    }
    let orders = shop.app().orders();
    let turned_away = |key| orders.turned_away(support::user(2), key, NotDone::Unavailable);
    assert_eq!(turned_away(Some([7; 16])), NotDone::Unknown, "another request may have made one");
    assert_eq!(turned_away(None), NotDone::Unavailable);
    shop.order(2, &jar, 1).send().await.ok(201);
    assert_eq!((shop.counters(&jar).await[1], shop.counters(&cup).await[1]), (2, 0));

    keys.set_owners_are_heard(true);
    assert_eq!(turned_away(Some([7; 16])), NotDone::Unavailable);
    let new = shop.order(2, &cup, 1).key("stale").send().await;
    assert!(!new.replayed());
    let new = id(&new.ok(201));
    let again = shop.order(2, &cup, 1).key("stale").send().await;
    assert!(again.replayed());
    assert_eq!(id(&again.ok(201)), new);
    shop.close().await;
}

/// The ledger has forgotten, the tables do not know yet: nobody may say that the key is new.
#[actix_web::test]
async fn a_key_that_only_the_journal_knows_makes_no_second_order() {
    let shop = Shop::open().await;
    let jar = shop.stocked(5).await;
    shop.tables_follow().await;
    let tables = shop.hold("shop.db").await;
    let order = shop.order(1, &jar, 2).key("k").send().await.ok(201);
    shop.clock.advance(3_600_000);
    let (directory, product, before) = (shop.app().directory(), jar.parse().unwrap(), shop.clock.now());
    let about = async || directory.order(product, id(&order).parse().unwrap()).await.unwrap();
    assert!(matches!(about().await, Answer::Order(Some(_))));
    directory.ask(product, Command::Forget { unkeyed_before: before, keyed_before: before }).await.unwrap();
    assert_eq!(about().await, Answer::Order(None));
    shop.order(1, &jar, 2).key("k").send_once().await.problem(503, "outcome_unknown");
    assert_eq!(shop.counters(&jar).await[..3], [5, 0, 0]);
    tables.let_go().await;
    shop.tables_follow().await;
    let again = shop.order(1, &jar, 2).key("k").send().await;
    assert!(again.replayed());
    assert_eq!(id(&again.ok(201)), id(&order));
    shop.close().await;
}

/// While a question waits its key is being used, whether or not anybody still listens.
#[actix_web::test]
async fn the_key_of_a_buyer_who_hung_up_makes_no_second_order() {
    let shop = Shop::open().await;
    let (first, second) = (shop.stocked(5).await, shop.stocked(5).await);
    // Its owner is cold: what is asked waits until the ledger has been read.
    let shop = shop.reopen().await;
    let orders = shop.app().orders();
    let ask = |product: &str, body| PlaceOrder {
        buyer: support::user(1),
        items: vec![Item { product: product.parse().unwrap(), quantity: Quantity::of_line(1).unwrap() }],
        key: Some(KeyUse { key: [7; 16], body }),
        is_made_up: false,
        expected_total: None,
    };
    let mut hung_up = Box::pin(orders.place(ask(&first, 1)));
    assert!(poll!(&mut hung_up).is_pending());
    drop(hung_up);
    let other = orders.place(ask(&second, 2)).await;
    assert!(
        matches!(
            &other,
            Err(NotDone::Refused {
                refused: Refused { why: Refusal::KeyInProgress | Refusal::KeyReused { .. }, .. },
                ..
            })
        ),
        "{other:?}"
    );
    let held = async {
        while shop.counters(&first).await[1] == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), held).await.expect("what was asked is decided");
    assert_eq!(shop.counters(&second).await[1], 0);
    // And he hears of it when he comes again.
    assert!(orders.place(ask(&first, 1)).await.unwrap().replayed);
    shop.close().await;
}
