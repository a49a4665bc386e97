//! Paying, through the real application: every way a payment can end, and what its buyer hears of it, however often he asks.

mod support;

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use support::{Shop, Stalls, card, film, id, lines, paid_with};

/// The status of an order, of its first line and of its payment.
fn standing(order: &Value) -> [String; 3] {
    let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    [word(&order["status"]), word(&order["lines"][0]["status"]), word(&order["payment"]["status"])]
}

#[actix_web::test]
async fn an_order_is_placed_and_paid_in_one_call() {
    let shop = Shop::open().await;
    let jar = shop.stocked(5).await;
    let paid = shop.buy(1, &jar, 2, "tok_ok").key("k").send().await;
    assert!(!paid.replayed());
    let order = paid.ok(201);
    assert_eq!(standing(&order), ["paid", "ordered", "paid"]);
    let payment = &order["payment"];
    assert!(payment["id"].as_str().unwrap().starts_with("pay_"));
    assert_eq!(payment["amount"], json!({ "amount": 2_000, "currency": "KRW" }));
    assert_eq!(payment["refunded"], json!({ "amount": 0, "currency": "KRW" }));
    assert_eq!((&payment["attempt"], payment.get("reason")), (&json!(1), None));
    assert_eq!(shop.counters(&jar).await, [3, 0, 2, 4]);

    // In place, found, listed and asked for again it is the same.
    let found = shop.order_of(1, &id(&order)).await;
    assert_eq!((&found["payment"], &found["status"]), (payment, &json!("paid")));
    shop.tables_follow().await;
    let listed = shop.by(1, "GET", "/v1/orders?status=paid").send().await.ok(200);
    assert_eq!(&listed["data"][0]["payment"], payment);
    let again = shop.buy(1, &jar, 2, "tok_ok").key("k").send().await;
    assert!(again.replayed());
    assert_eq!(again.ok(201)["payment"], *payment);
    shop.settle().await;
    shop.assert_settled(&[(&jar, 5)]).await;
    shop.close().await;
}

#[actix_web::test]
async fn what_is_free_is_paid_without_the_provider() {
    let shop = Shop::open().await;
    shop.app().payments().provider().simulated().unwrap().set_unreachable(true);
    let gift = id(&shop.product(2, json!({ "price": { "amount": 0, "currency": "KRW" } })).await);
    let order = shop.buy(1, &gift, 1, "tok_declined").send().await.ok(201);
    assert_eq!(standing(&order), ["paid", "ordered", "paid"]);
    assert_eq!(order["payment"]["amount"]["amount"], 0);
    shop.settle().await;
    assert_eq!(standing(&shop.order_of(1, &id(&order)).await), ["paid", "ordered", "paid"]);
    assert_eq!(shop.counters(&gift).await[..3], [1, 0, 1]);
    assert!(shop.charges().is_empty(), "nobody was asked");
    shop.close().await;
}

#[actix_web::test]
async fn a_held_order_is_paid_later() {
    let shop = Shop::open().await;
    let (jar, cup) = (shop.stocked(5).await, shop.stocked(5).await);
    let held = shop.by(1, "POST", "/v1/orders").json(&lines(&[(&jar, 1), (&cup, 2)])).send().await.ok(201);
    assert_eq!(held["payment"], json!(null));
    let order = id(&held);
    let paid = shop.pay(1, &order, "tok_ok").key("p").send().await.ok(200);
    assert_eq!(standing(&paid), ["paid", "ordered", "paid"]);
    assert_eq!(paid["lines"][1]["status"], "ordered");
    let again = shop.pay(1, &order, "tok_ok").key("p").send().await;
    assert!(again.replayed());
    assert_eq!(again.ok(200)["payment"], paid["payment"]);
    shop.pay(1, &order, "tok_ok").send().await.problem(409, "order_state_conflict");
    shop.pay(1, &order, "tok_ok").key("q").send().await.problem(409, "order_state_conflict");
    let reused = shop.pay(1, &order, "tok_declined").key("p").send().await;
    assert_eq!(reused.problem(422, "idempotency_key_reused")["order_id"], json!(order));
    shop.pay(2, &order, "tok_ok").send().await.problem(404, "not_found");
    shop.settle().await;
    shop.assert_settled(&[(&jar, 5), (&cup, 5)]).await;
    shop.close().await;
}

#[actix_web::test]
async fn a_decline_says_so_and_the_unit_is_on_sale_at_once() {
    let shop = Shop::open().await;
    let jar = shop.stocked(1).await;
    let declined = shop.buy(1, &jar, 1, "tok_declined").key("k").send().await;
    let problem = declined.problem(402, "payment_declined");
    assert_eq!(standing(&problem["order"]), ["payment_failed", "released", "declined"]);
    assert_eq!(
        (&problem["reason"], &problem["order"]["payment"]["reason"]),
        (&json!("card_declined"), &json!("card_declined"))
    );
    assert_eq!(shop.counters(&jar).await[..3], [1, 0, 0]);
    shop.buy(2, &jar, 1, "tok_ok").send().await.ok(201);

    // The order stands for ever under its key, and so does its end.
    let again = shop.buy(1, &jar, 1, "tok_declined").key("k").send().await;
    assert!(again.replayed());
    assert_eq!(again.problem(402, "payment_declined")["order"]["id"], problem["order"]["id"]);
    let order = id(&problem["order"]);
    shop.pay(1, &order, "tok_ok").send().await.problem(409, "order_state_conflict");
    shop.by(1, "POST", &format!("/v1/orders/{order}/cancel"))
        .send()
        .await
        .problem(409, "order_state_conflict");
    shop.settle().await;
    shop.assert_settled(&[(&jar, 1)]).await;
    shop.close().await;
}

#[actix_web::test]
async fn a_mistake_of_ours_is_not_told_as_a_bank_s_no() {
    let shop = Shop::open().await;
    let jar = shop.stocked(1).await;
    let refused = shop.buy(1, &jar, 1, "tok_refused").key("k").send().await;
    let problem = refused.problem(503, "payment_unavailable");
    assert_eq!(standing(&problem["order"]), ["payment_failed", "released", "cancelled"]);
    assert_eq!(problem["reason"], "provider_refused");
    assert!(shop.charges().is_empty());
    let again = shop.buy(1, &jar, 1, "tok_refused").key("k").send().await;
    assert!(again.replayed());
    again.problem(503, "payment_unavailable");
    shop.settle().await;
    shop.assert_settled(&[(&jar, 1)]).await;
    shop.close().await;
}

#[actix_web::test]
async fn what_the_provider_does_not_say_is_asked_until_it_does() {
    let shop = Shop::open().await;
    let jar = shop.stocked(9).await;
    for (token, status, sold) in [
        ("tok_timeout_then_ok", "paid", 1),
        ("tok_timeout_then_declined", "payment_failed", 0),
        ("tok_pending_then_ok", "paid", 1),
        ("tok_pending_then_declined", "payment_failed", 0),
    ] {
        let key = format!("k {token}").replace(' ', "-");
        let before = shop.counters(&jar).await[0];
        let stalls = Stalls::looked_for();
        let told = shop.buy(1, &jar, 1, token).key(&key).send().await;
        let order = told.json();
        let is_unknown = told.status == 202 && standing(&order) == ["pending_payment", "held", "unknown"];
        if !is_unknown && stalls.were_seen() {
            // It was found out before its buyer heard that nobody knows.
            shop.settle().await;
            continue;
        }
        assert!(is_unknown, "{token} {told:?}");
        let left = shop.counters(&jar).await[0];
        // Asked afterwards: what still waits has waited while the units were counted.
        if shop.order_of(1, &id(&order)).await["status"] == "pending_payment" {
            assert_eq!(left, before - 1, "the unit stays held");
        }
        // Meanwhile nobody cancels, and nobody pays twice.
        let path = format!("/v1/orders/{}", id(&order));
        let cancel = shop.by(1, "POST", &format!("{path}/cancel")).send().await;
        let pay = shop.pay(1, &id(&order), "tok_ok").send().await;
        // It may have been found out in this very moment.
        assert!([409, 200].contains(&cancel.status.as_u16()) && pay.status == 409, "{cancel:?} {pay:?}");
        shop.settle().await;
        let now = shop.order_of(1, &id(&order)).await;
        if cancel.status == 409 {
            assert_eq!(now["status"], status, "{token}");
            let again = shop.buy(1, &jar, 1, token).key(&key).send().await;
            // As it was told first, with the order as it is now.
            assert!(again.replayed() && again.status == 202, "{token} {again:?}");
            assert_eq!(again.json()["status"], status, "{token}");
            assert_eq!(shop.counters(&jar).await[..2], [before - sold, 0], "{token}");
        }
    }
    shop.assert_settled(&[(&jar, 9)]).await;
    shop.close().await;
}

/// Somebody else has the file that the flush fills. Whoever pays meanwhile hears that it is on its way, and is charged once, whether the
/// shop goes on or dies before his order has a row.
#[actix_web::test]
async fn nobody_is_charged_before_his_order_has_a_row() {
    let shop = Shop::open().await;
    let jar = shop.stocked(5).await;
    let tables = shop.hold("shop.db").await;
    let order = shop.buy(1, &jar, 1, "tok_ok").key("k").send().await.ok(202);
    assert_eq!(standing(&order), ["pending_payment", "held", "unknown"]);
    shop.clock.advance(60_000);
    shop.take_up().await;
    assert!(shop.charges().is_empty(), "neither when it begins nor when it is taken up again");
    let left = tempfile::tempdir().unwrap();
    film::copy(shop.folder(), left.path());

    tables.let_go().await;
    for opened in [shop, Shop::open_in(left).await] {
        opened.settle().await;
        assert_eq!(opened.charges().len(), 1);
        assert_eq!(standing(&opened.order_of(1, &id(&order)).await), ["paid", "ordered", "paid"]);
        // What he was told was on the disk before he was told it.
        let again = opened.buy(1, &jar, 1, "tok_ok").key("k").send().await;
        assert!(again.replayed());
        assert_eq!(standing(&again.ok(202)), ["paid", "ordered", "paid"]);
        opened.assert_settled(&[(&jar, 5)]).await;
        opened.close().await;
    }
}

/// While its payment waits for the tables a hold is pinned.
#[actix_web::test]
async fn a_hold_does_not_lapse_while_its_payment_waits_for_the_order_s_row() {
    let shop = Shop::open().await;
    let jar = shop.stocked(5).await;
    let tables = shop.hold("shop.db").await;
    let order = shop.buy(1, &jar, 1, "tok_ok").send().await.ok(202);
    assert_eq!(standing(&order), ["pending_payment", "held", "unknown"]);
    shop.clock.advance(3_600_000);
    // Its owner looks at the time when somebody asks.
    shop.order(2, &jar, 1).send().await.ok(201);
    assert_eq!(shop.counters(&jar).await[..3], [3, 2, 0]);
    tables.let_go().await;
    // So late nothing is charged any more.
    shop.settle().await;
    assert_eq!(standing(&shop.order_of(1, &id(&order)).await), ["payment_failed", "released", "cancelled"]);
    assert_eq!(shop.charges().iter().map(|charge| charge.captured).sum::<i64>(), 0);
    shop.close().await;
}

#[actix_web::test]
async fn a_hold_that_is_paid_for_does_not_lapse() {
    let shop = Shop::open().await;
    let jar = shop.stocked(1).await;
    let provider = shop.app().payments().provider().simulated().unwrap().clone();
    provider.set_unreachable(true);
    let order = shop.buy(1, &jar, 1, "tok_ok").send().await.ok(202);
    assert_eq!(standing(&order), ["pending_payment", "held", "unknown"]);
    shop.clock.advance(3_600_000);
    shop.take_up().await;
    assert_eq!(shop.counters(&jar).await[..3], [0, 1, 0]);
    let stuck = shop.admin("GET", "/v1/admin/compensations?state=stuck").send().await.ok(200);
    assert_eq!(stuck["data"][0]["id"], order["payment"]["id"], "{stuck}");
    assert_eq!((&stuck["data"][0]["kind"], &stuck["data"][0]["why"]), (&json!("payment"), &json!("unknown")));
    assert!(stuck["data"][0]["next_try_at"].is_string());
    provider.set_unreachable(false);
    // So late nothing is charged any more.
    shop.settle().await;
    assert_eq!(standing(&shop.order_of(1, &id(&order)).await), ["payment_failed", "released", "cancelled"]);
    assert_eq!(shop.charges().iter().map(|charge| charge.captured).sum::<i64>(), 0);
    shop.assert_settled(&[(&jar, 1)]).await;
    shop.close().await;
}

#[actix_web::test]
async fn with_attempts_left_a_decline_leaves_the_hold() {
    let shop = Shop::open_with(|config| config.payment.attempts = 3).await;
    let jar = id(&shop.product(3, json!({ "sale": { "hold_seconds": 30 } })).await);
    let first = shop.buy(1, &jar, 1, "tok_declined").key("k").send().await.problem(402, "payment_declined");
    let order = id(&first["order"]);
    assert_eq!(standing(&first["order"]), ["pending_payment", "held", "declined"]);
    // At least a minute from the decline, though the hold was for half of one.
    shop.clock.advance(50_000);
    let second = shop.pay(1, &order, "tok_declined").key("p2").send().await.problem(402, "payment_declined");
    assert_eq!(
        (&second["order"]["payment"]["attempt"], &second["order"]["status"]),
        (&json!(2), &json!("pending_payment"))
    );
    let third = shop.pay(1, &order, "tok_ok").key("p3").send().await.ok(200);
    assert_eq!((&third["payment"]["attempt"], &third["status"]), (&json!(3), &json!("paid")));
    // Each request hears of its own attempt, and sees the order as it is now.
    let again = shop.pay(1, &order, "tok_declined").key("p2").send().await;
    assert!(again.replayed());
    assert_eq!(again.problem(402, "payment_declined")["order"]["status"], "paid");
    let again = shop.buy(1, &jar, 1, "tok_declined").key("k").send().await;
    assert!(again.replayed());
    let again = again.problem(402, "payment_declined");
    assert_eq!(again["reason"], first["reason"]);
    assert_eq!(
        (&again["order"]["status"], &again["order"]["payment"]["attempt"]),
        (&json!("paid"), &json!(3))
    );

    // Three declines are the end.
    let last = shop.buy(2, &jar, 1, "tok_declined").send().await.problem(402, "payment_declined");
    let order = id(&last["order"]);
    for _ in 0..2 {
        shop.pay(2, &order, "tok_declined").send().await.problem(402, "payment_declined");
    }
    assert_eq!(shop.order_of(2, &order).await["status"], "payment_failed");
    shop.pay(2, &order, "tok_ok").send().await.problem(409, "order_state_conflict");
    shop.settle().await;
    shop.assert_settled(&[(&jar, 3)]).await;
    shop.close().await;
}

#[actix_web::test]
async fn a_hold_that_is_over_is_not_paid_for() {
    let shop = Shop::open().await;
    let jar = id(&shop.product(3, json!({ "sale": { "hold_seconds": 30 } })).await);
    let order = id(&shop.order(1, &jar, 1).send().await.ok(201));
    shop.clock.advance(30_000);
    shop.pay(1, &order, "tok_ok").send().await.problem(410, "hold_expired");
    let cancelled = id(&shop.order(1, &jar, 1).send().await.ok(201));
    shop.by(1, "POST", &format!("/v1/orders/{cancelled}/cancel")).send().await.ok(200);
    shop.pay(1, &cancelled, "tok_ok").send().await.problem(409, "order_state_conflict");
    shop.pay(1, "order_01h455vb4pex5vsknk084sn02q", "tok_ok").send().await.problem(404, "not_found");
    shop.settle().await;
    assert!(shop.charges().is_empty());
    shop.assert_settled(&[(&jar, 3)]).await;
    shop.close().await;
}

#[actix_web::test]
async fn a_hold_that_lapses_and_its_payment_have_one_winner() {
    let shop = Shop::open_with(generous).await;
    let sale = json!({ "sale": { "hold_seconds": 30 } });
    let (jar, cup) = (id(&shop.product(200, sale.clone()).await), id(&shop.product(200, sale).await));
    let (mut paid, mut expired, mut cups) = (0, 0, 0);
    for n in 0..120 {
        // The others have two lines, which are pinned one after the other.
        let wanted = [(jar.as_str(), 1), (cup.as_str(), 1)];
        let (body, both) = match n {
            0..60 => (lines(&wanted[..1]), 0),
            _ => (lines(&wanted), 1),
        };
        let order = id(&shop.by(n, "POST", "/v1/orders").json(&body).send().await.ok(201));
        let lapse = async {
            for _ in 0..n % 7 {
                tokio::task::yield_now().await;
            }
            shop.clock.advance(30_000);
            // Its owner sleeps by another clock than ours: a question wakes it.
            for product in [&jar, &cup] {
                shop.admin("POST", &format!("/v1/admin/products/{product}/resume")).send().await.ok(200);
            }
        };
        let (mut pay, ()) = tokio::join!(shop.pay(n, &order, "tok_ok").key("p").send(), lapse);
        // A question that waited for half a minute, as it seems, was not asked; whether it was is found out by asking again.
        if pay.status == 503 {
            pay = shop.pay(n, &order, "tok_ok").key("p").send().await;
        }
        let now = shop.order_of(n, &order).await;
        match pay.status.as_u16() {
            200 => {
                (paid, cups) = (paid + 1, cups + both);
                assert_eq!(standing(&now), ["paid", "ordered", "paid"]);
            }
            // The clock has jumped over the claim: whoever takes it up next asks the provider.
            202 => {
                shop.settle().await;
                let now = shop.order_of(n, &order).await;
                match now["status"].as_str() {
                    Some("paid") => (paid, cups) = (paid + 1, cups + both),
                    _ => expired += 1,
                }
            }
            // The one was pinned in time, and the other was not.
            402 => {
                expired += 1;
                // Why is not in its row where the clock has jumped over the claim.
                pay.problem(402, "payment_declined");
                assert_eq!((&now["status"], both), (&json!("payment_failed"), 1));
            }
            _ => {
                expired += 1;
                pay.problem(410, "hold_expired");
                assert_eq!(shop.order_of(n, &order).await["status"], "expired");
            }
        }
    }
    assert_eq!((paid + expired, shop.counters(&jar).await[2]), (120, paid));
    assert_eq!(shop.counters(&cup).await[2], cups);
    shop.settle().await;
    shop.assert_settled(&[(&jar, 200), (&cup, 200)]).await;
    shop.close().await;
}

#[actix_web::test]
async fn a_thousand_pay_one_order_and_one_is_charged() {
    let shop = Shop::open_with(generous).await;
    let jar = shop.stocked(5).await;
    let order = id(&shop.order(1, &jar, 1).send().await.ok(201));
    // Half of them are one request that is sent again and again, half are others.
    let tries = (0..1_000).map(|n| {
        let ask = shop.pay(1, &order, "tok_ok");
        match n % 2 {
            0 => ask.key("same"),
            _ => ask.key(&format!("other-{n}")),
        }
        .send()
    });
    let replies = join_all(tries).await;
    let first_hand = replies.iter().filter(|reply| reply.status.is_success() && !reply.replayed()).count();
    for reply in &replies {
        match reply.status.as_u16() {
            200 => assert_eq!(reply.json()["status"], "paid"),
            // In such a crowd it may take so long that he hears only that it is on its way.
            202 => {}
            _ => drop(reply.problem(409, "order_state_conflict")),
        }
    }
    assert!(first_hand <= 1, "{first_hand} have paid");
    shop.settle().await;
    assert_eq!(shop.charges().len(), 1);
    assert_eq!(standing(&shop.order_of(1, &order).await), ["paid", "ordered", "paid"]);
    shop.assert_settled(&[(&jar, 5)]).await;
    shop.close().await;
}

#[actix_web::test]
async fn two_hundred_units_and_four_hundred_who_order_and_pay_in_one_call() {
    let shop = Shop::open().await;
    let jar = shop.stocked(200).await;
    let replies = join_all((0..400).map(|who| shop.buy(who, &jar, 1, "tok_ok").key("mine").send())).await;
    let (lost, won): (Vec<_>, Vec<_>) = (0..).zip(&replies).partition(|(_, reply)| reply.status == 409);
    assert_eq!((won.len(), lost.len()), (200, 200));
    lost.iter().for_each(|(_, reply)| drop(reply.problem(409, "sold_out")));
    shop.settle().await;
    for (who, reply) in won {
        let paid = ["paid", "ordered", "paid"];
        match reply.status.as_u16() {
            201 => assert_eq!(standing(&reply.json()), paid),
            // In such a crowd it may take so long that he hears only that it is on its way.
            _ => drop(reply.ok(202)),
        }
        assert_eq!(standing(&shop.order_of(who, &id(&reply.json())).await), paid);
    }
    assert_eq!(shop.counters(&jar).await[..3], [0, 0, 200]);
    assert_eq!(shop.charges().len(), 200);
    shop.assert_settled(&[(&jar, 200)]).await;
    shop.close().await;
}

#[actix_web::test]
async fn a_cancellation_and_a_payment_of_one_order_have_one_winner() {
    let shop = Shop::open_with(generous).await;
    let jar = shop.stocked(100).await;
    let (mut paid, mut cancelled) = (0, 0);
    for n in 0..60 {
        let order = id(&shop.order(n, &jar, 1).send().await.ok(201));
        let cancel = shop.by(n, "POST", &format!("/v1/orders/{order}/cancel"));
        let pay = shop.pay(n, &order, "tok_ok");
        // The one a little later than the other, and the other way round.
        let later = Duration::from_millis(n / 2 % 7);
        let (pay, cancel) = match n % 2 {
            0 => tokio::join!(pay.send(), async {
                tokio::time::sleep(later).await;
                cancel.send().await
            }),
            _ => tokio::join!(
                async {
                    tokio::time::sleep(later).await;
                    pay.send().await
                },
                cancel.send()
            ),
        };
        let now = shop.order_of(n, &order).await;
        match (pay.status.as_u16(), cancel.status.as_u16()) {
            // Paid, and the cancellation came while it was or before it had begun to be cancellable.
            (200, 409) => {
                paid += 1;
                assert_eq!(now["status"], "paid");
            }
            // Paid, and cancelled afterwards: what was paid goes back.
            (200, 200) => {
                cancelled += 1;
                assert_eq!(now["status"], "cancelled");
            }
            (409, 200) => {
                cancelled += 1;
                assert_eq!(now["status"], "cancelled");
            }
            other => panic!("{other:?} {pay:?} {cancel:?}"),
        }
    }
    assert!(paid > 0 && cancelled > 0, "{paid} paid, {cancelled} cancelled: nobody raced");
    shop.settle().await;
    shop.assert_settled(&[(&jar, 100)]).await;
    shop.close().await;
}

#[actix_web::test]
async fn the_same_key_with_another_body_is_told_so() {
    let shop = Shop::open().await;
    let (jar, cup) = (shop.stocked(9).await, shop.stocked(9).await);
    let order = shop.buy(1, &jar, 1, "tok_ok").key("k").send().await.ok(201);
    let held = support::one_line(&jar, 1);
    for body in
        [paid_with(&jar, 2, "tok_ok"), paid_with(&cup, 1, "tok_ok"), paid_with(&jar, 1, "tok_declined"), held]
    {
        let told = shop.by(1, "POST", "/v1/orders").key("k").json(&body).send().await;
        assert_eq!(told.problem(422, "idempotency_key_reused")["order_id"], order["id"]);
    }
    // A key of one door means nothing at another.
    let other = id(&shop.order(1, &jar, 1).send().await.ok(201));
    shop.pay(1, &other, "tok_ok").key("k").send().await.ok(200);
    shop.settle().await;
    shop.assert_settled(&[(&jar, 9), (&cup, 9)]).await;
    shop.close().await;
}

#[actix_web::test]
async fn while_nobody_more_may_begin_a_known_key_hears_what_it_has_done() {
    let shop = Shop::open().await;
    let jar = shop.stocked(9).await;
    let ordered = async || id(&shop.order(1, &jar, 1).send().await.ok(201));
    let (paid, given_up, held) = (ordered().await, ordered().await, ordered().await);
    let cancel = |order: &str, key: &str| shop.by(1, "POST", &format!("/v1/orders/{order}/cancel")).key(key);
    let buy = |key: &str| shop.buy(1, &jar, 1, "tok_ok").key(key);
    let bought = buy("b").send().await.ok(201);
    shop.pay(1, &paid, "tok_ok").key("p").send().await.ok(200);
    shop.pay(1, &given_up, "tok_ok").key("p").send().await.ok(200);
    cancel(&given_up, "c").send().await.ok(200);
    shop.settle().await;

    let places: Vec<_> = std::iter::from_fn(|| shop.app().payments().place().ok()).collect();
    assert!(!places.is_empty());
    for again in [shop.pay(1, &paid, "tok_ok").key("p"), cancel(&given_up, "c")] {
        let again = again.send().await;
        assert!(again.replayed());
        again.ok(200);
    }
    let again = buy("b").send().await;
    assert!(again.replayed());
    assert_eq!(again.ok(201)["payment"], bought["payment"]);
    shop.pay(1, &paid, "tok_declined").key("p").send().await.problem(422, "idempotency_key_reused");
    // Who begins anything, with or without a key, hears that nothing was done, and nothing was.
    let pay = || shop.pay(1, &held, "tok_ok");
    for new in [pay().key("q"), pay(), cancel(&paid, "d"), buy("n"), shop.buy(1, &jar, 1, "tok_ok")] {
        new.send().await.problem(503, "overloaded");
    }
    assert_eq!(shop.order_of(1, &paid).await["status"], "paid");
    drop(places);
    shop.pay(1, &held, "tok_ok").key("q").send().await.ok(200);
    cancel(&paid, "d").send().await.ok(200);
    shop.settle().await;
    shop.assert_settled(&[(&jar, 9)]).await;
    shop.close().await;
}

#[actix_web::test]
async fn what_is_no_token_is_refused_and_a_card_number_is_not_repeated() {
    let shop = Shop::open().await;
    let jar = shop.stocked(9).await;
    let order = id(&shop.order(1, &jar, 1).send().await.ok(201));
    for token in [
        json!("4242424242424242"),
        json!("4242 4242 4242 4242"),
        json!(4_242_424_242_424_242_u64),
        json!(""),
        json!(null),
    ] {
        let mut body = paid_with(&jar, 1, "tok_ok");
        body["payment"]["method"]["token"] = token.clone();
        let told = shop.by(1, "POST", "/v1/orders").json(&body).send().await;
        assert_eq!(told.invalid(), "/payment/method/token", "{token}");
        assert!(!told.text.contains("4242"), "{}", told.text);
        let mut body = card("tok_ok");
        body["method"]["token"] = token;
        let told = shop.by(1, "POST", &format!("/v1/orders/{order}/payment")).json(&body).send().await;
        assert_eq!(told.invalid(), "/method/token");
        assert!(!told.text.contains("4242"), "{}", told.text);
    }
    for (body, pointer) in [
        (json!({ "method": { "type": "cash", "token": "t" } }), "/method/type"),
        (json!({ "method": { "type": "card", "token": "t", "cvc": "123" } }), "/method/cvc"),
        (json!({ "method": { "type": "card", "token": "t" }, "amount": 1 }), "/amount"),
        (json!({}), ""),
    ] {
        let told = shop.by(1, "POST", &format!("/v1/orders/{order}/payment")).json(&body).send().await;
        assert_eq!(told.invalid(), pointer, "{body}");
    }
    assert!(shop.charges().is_empty());
    shop.close().await;
}

/// One buyer who tries very often.
fn generous(config: &mut stockade::config::Config) {
    config.limits.order_rate_per_user = 10_000;
    config.limits.order_burst_per_user = 10_000;
}
