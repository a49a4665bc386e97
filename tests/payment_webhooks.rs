//! What the provider tells us unasked: believed only when it is signed, and never more than a reason to ask.

mod support;

use serde_json::{Value, json};
use stockade::actors::payment::{Begun, By, Pay, Walk};
use stockade::domain::payment::{Do, Method, PaymentState};
use support::{Shop, id, signed_event};

const NEWS: &str = "payment_intent.succeeded";

fn payment_of(order: &Value) -> String {
    order["payment"]["id"].as_str().unwrap().to_owned()
}

/// On its way to a no.
async fn declined(shop: &Shop, product: &str) -> Walk {
    let held = shop.order(1, product, 1).send().await.ok(201);
    let order =
        shop.app().orders().find(support::user(1), id(&held).parse().unwrap()).await.unwrap().unwrap();
    let pay = Pay { order, method: Method::card("tok_declined").unwrap(), by: By::Itself(None) };
    match shop.app().payments().begin(&pay).await.unwrap() {
        Begun::Walk(walk) => *walk,
        Begun::Before(_) => panic!("begun before"),
    }
}

/// Security baseline 47.
#[actix_web::test]
async fn what_is_not_signed_now_and_as_it_is_changes_nothing() {
    let shop = Shop::open().await;
    let jar = shop.stocked(5).await;
    let order = shop.buy(1, &jar, 1, "tok_pending_then_ok").send().await.ok(202);
    let payment = payment_of(&order);
    shop.app().payments().provider().simulated().unwrap().set_unreachable(true);
    let (body, signature) = signed_event("evt_1", NEWS, &payment, &shop.clock);
    let ask = || shop.ask("POST", "/v1/payments/webhook").body(body.clone());
    assert_eq!(ask().send().await.problem(400, "invalid_signature")["reason"], "missing");
    for (forged, reason) in [
        ("", "missing"),
        ("nonsense", "malformed"),
        ("t=1,v1=00", "malformed"),
        (signature.replace("v1=", "v0=").as_str(), "malformed"),
        (format!("t=1,{}", signature.split_once(',').unwrap().1).as_str(), "wrong"),
    ] {
        assert_eq!(
            shop.hear(&body, forged).await.problem(400, "invalid_signature")["reason"],
            reason,
            "{forged}"
        );
    }
    let altered = body.replace("evt_1", "evt_2");
    assert_eq!(shop.hear(&altered, &signature).await.problem(400, "invalid_signature")["reason"], "wrong");
    // An old one is as good as none, though it was signed by the right hand.
    shop.clock.advance(301_000);
    assert_eq!(shop.hear(&body, &signature).await.problem(400, "invalid_signature")["reason"], "stale");
    let (body, signature) = signed_event("evt_3", NEWS, &payment, &shop.clock);
    shop.clock.advance(-301_000);
    assert_eq!(shop.hear(&body, &signature).await.problem(400, "invalid_signature")["reason"], "stale");
    let large = "x".repeat(65_537);
    shop.hear(&large, &signature).await.problem(413, "payload_too_large");
    let heard =
        shop.app().payments().rows().sweep_heard(shop.clock.now().plus(i64::from(u32::MAX))).await.unwrap();
    assert_eq!(heard, 0, "nothing of it was noted");
    shop.close().await;
}

#[actix_web::test]
async fn news_in_any_order_and_any_number_come_to_the_same_end() {
    let shop = Shop::open().await;
    let jar = shop.stocked(9).await;
    for (token, status) in [("tok_pending_then_ok", "paid"), ("tok_pending_then_declined", "payment_failed")]
    {
        let order = shop.buy(1, &jar, 1, token).send().await.ok(202);
        let payment = payment_of(&order);
        // What it says does not matter: that it says something does.
        for (n, kind) in
            ["charge.refunded", NEWS, "payment_intent.payment_failed", NEWS, "payment_intent.canceled"]
                .iter()
                .enumerate()
        {
            let event = format!("evt_{token}_{}", n % 4);
            let (body, signature) = signed_event(&event, kind, &payment, &shop.clock);
            for _ in 0..3 {
                assert_eq!(shop.hear(&body, &signature).await.status, 200);
            }
        }
        shop.take_up().await;
        let now = shop.order_of(1, &id(&order)).await;
        assert_eq!(now["status"], status, "without waiting for the next try");
    }
    shop.settle().await;
    shop.assert_settled(&[(&jar, 9)]).await;

    // About nothing of ours, or about something that has ended.
    let (body, signature) = signed_event("evt_x", NEWS, "pay_01h455vb4pex5vsknk084sn02q", &shop.clock);
    assert_eq!(shop.hear(&body, &signature).await.status, 200);
    let (body, signature) = signed_event("evt_y", NEWS, "pi_somebody_elses", &shop.clock);
    assert_eq!(shop.hear(&body, &signature).await.status, 200);
    let paid = shop.buy(1, &jar, 1, "tok_ok").send().await.ok(201);
    let (body, signature) = signed_event("evt_z", "charge.refunded", &payment_of(&paid), &shop.clock);
    assert_eq!(shop.hear(&body, &signature).await.status, 200);
    shop.settle().await;
    assert_eq!(shop.order_of(1, &id(&paid)).await["payment"]["status"], "paid");
    shop.assert_settled(&[(&jar, 9)]).await;
    shop.close().await;
}

#[actix_web::test]
async fn the_provider_itself_tells_twice_and_late_and_nothing_comes_of_it() {
    let shop = Shop::open_with(|config| {
        let faults = "webhooks=on,duplicates=50,late=30,late_ms=20,seed=7".parse().unwrap();
        config.payment.provider = stockade::config::PaymentProvider::Simulated(faults);
    })
    .await;
    let jar = shop.stocked(100).await;
    let tokens =
        ["tok_ok", "tok_declined", "tok_timeout_then_ok", "tok_pending_then_declined", "tok_random_50"];
    let buys = (0..60).map(|who| shop.buy(who, &jar, 1, tokens[who as usize % tokens.len()]).send());
    for reply in futures_util::future::join_all(buys).await {
        assert!([201, 202, 402].contains(&reply.status.as_u16()), "{reply:?}");
    }
    shop.settle().await;
    // From here on nothing more comes late.
    let shop = shop.reopen().await;
    shop.settle().await;
    shop.assert_settled(&[(&jar, 100)]).await;
    shop.close().await;
}

/// Its event is noted, and the provider does not send it again.
#[actix_web::test]
async fn a_hint_that_cannot_be_written_now_is_not_forgotten() {
    let shop = Shop::open().await;
    let jar = shop.stocked(5).await;
    let mut walk = declined(&shop, &jar).await;
    let order = walk.payment().order.to_string();
    walk.to_its_end().await;
    // The bank changes its mind and says so while whoever has walked it is still there.
    let (payments, payment) = (shop.app().payments(), walk.payment().id);
    payments.provider().simulated().unwrap().capture_after_all(payment);
    let (body, signature) = signed_event("evt_1", NEWS, &payment.to_string(), &shop.clock);
    assert_eq!(shop.hear(&body, &signature).await.status, 200);
    // Somebody else has the file.
    let other = shop.hold("money.db").await;
    drop(walk);
    payments.look().await.unwrap();
    other.let_go().await;
    shop.settle().await;
    shop.settle().await;
    let now = shop.order_of(1, &order).await;
    assert_eq!((&now["status"], &now["payment"]["status"]), (&json!("payment_failed"), &json!("refunded")));
    shop.assert_settled(&[(&jar, 5)]).await;
    shop.close().await;
}

/// Its event is noted, and whoever has walked the payment may be dead a moment later.
#[actix_web::test]
async fn a_hint_that_comes_while_a_payment_fails_is_in_its_row() {
    let shop = Shop::open().await;
    let jar = shop.stocked(5).await;
    let mut walk = declined(&shop, &jar).await;
    while !matches!(walk.next(), Do::End) {
        assert!(walk.step().await);
    }
    // It has been asked and has said no; now it says otherwise.
    let (payments, payment) = (shop.app().payments(), walk.payment().id);
    payments.provider().simulated().unwrap().capture_after_all(payment);
    let (body, signature) = signed_event("evt_1", NEWS, &payment.to_string(), &shop.clock);
    assert_eq!(shop.hear(&body, &signature).await.status, 200);
    walk.to_its_end().await;
    let row = payments.rows().payments().find(payment).await.unwrap().unwrap();
    let taken_up = row.state != PaymentState::Declined;
    assert!(taken_up || row.due_at.is_some(), "{row:?}");
    drop(walk);
    shop.settle().await;
    shop.assert_settled(&[(&jar, 5)]).await;
    shop.close().await;
}

#[actix_web::test]
async fn money_that_comes_for_an_order_that_has_ended_goes_back() {
    let shop = Shop::open().await;
    let jar = shop.stocked(5).await;
    let provider = shop.app().payments().provider().simulated().unwrap().clone();
    let order =
        shop.buy(1, &jar, 1, "tok_declined").key("k").send().await.problem(402, "payment_declined")["order"]
            .clone();
    let payment = payment_of(&order);
    shop.settle().await;
    // The bank changes its mind.
    provider.capture_after_all(payment.parse().unwrap());
    shop.settle().await;
    assert_eq!(shop.order_of(1, &id(&order)).await["payment"]["status"], "declined", "nobody has told us");
    let (body, signature) = signed_event("evt_late", NEWS, &payment, &shop.clock);
    assert_eq!(shop.hear(&body, &signature).await.status, 200);
    shop.settle().await;
    let now = shop.order_of(1, &id(&order)).await;
    assert_eq!((&now["status"], &now["payment"]["status"]), (&json!("payment_failed"), &json!("refunded")));
    assert_eq!(now["payment"]["refunded"]["amount"], 1_000);
    let again = shop.buy(1, &jar, 1, "tok_declined").key("k").send().await;
    again.problem(402, "payment_declined");
    shop.assert_settled(&[(&jar, 5)]).await;
    shop.close().await;
}
