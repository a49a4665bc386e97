//! A shop with Stripe behind it, to which Stripe has news: of a payment that nobody could find, of money that came back, and of its
//! own failure, again and again.

use serde_json::{Value, json};
use stockade::domain::id::{PaymentId, RefundId};
use stockade::domain::payment::{Cause, Refund, RefundState, SPENT, SPENT_MS};

use super::far_end::{FarEnd, INTENT, Purchase, Say, account_at, list};
use super::support::{Shop, id, signed};

async fn shop_at(far: &FarEnd) -> Shop {
    let account = account_at(&far.url).provider;
    Shop::open_with(|config| config.payment.provider = account).await
}

/// An intent of a thousand won with these names of ours.
fn intent(metadata: &Value, status: &str) -> Value {
    let received = if status == "succeeded" { 1_000 } else { 0 };
    let more =
        json!({ "amount": 1_000, "amount_received": received, "status": status, "metadata": metadata });
    Purchase::with("pm_card_visa").shape("intent", more)
}

fn refund(metadata: &Value, name: &str, status: &str) -> Value {
    let why = (status == "failed").then_some("lost_or_stolen_card");
    let more =
        json!({ "id": name, "amount": 1_000, "status": status, "failure_reason": why, "metadata": metadata });
    Purchase::with("pm_card_visa").shape("refund", more)
}

async fn news(shop: &Shop, event: &str, kind: &str, object: &Value) {
    let (body, signature) = signed(event, kind, object, &shop.clock);
    assert_eq!(shop.hear(&body, &signature).await.status, 200);
}

#[actix_web::test]
async fn a_webhook_names_a_payment_that_stands_among_too_many() {
    let far = FarEnd::that_says([Say::Json(429, json!({}))]).await;
    let shop = shop_at(&far).await;
    let jar = shop.stocked(5).await;
    let order = shop.buy(1, &jar, 1, "pm_card_visa").send().await.ok(202);
    let payment = order["payment"]["id"].as_str().unwrap().to_owned();
    shop.app().payments().at_rest().await;
    let named = intent(&json!({ "stockade_payment": payment }), "succeeded");
    far.says([Say::Json(200, named.clone())]);
    news(&shop, "evt_1", "payment_intent.succeeded", &named).await;
    shop.settle().await;
    assert_eq!(shop.order_of(1, &id(&order)).await["payment"]["status"], "paid");
    assert_eq!(shop.money().await.0[0].provider_ref.as_deref(), Some(INTENT));
    assert_eq!(far.lines().last().unwrap(), &format!("GET /v1/payment_intents/{INTENT}"), "by its name");
    shop.close().await;
}

#[actix_web::test]
async fn a_payment_that_stands_among_too_many_is_paid_all_the_same() {
    let far = FarEnd::that_says([Say::Json(500, json!({}))]).await;
    let shop = shop_at(&far).await;
    let jar = shop.stocked(5).await;
    let order = shop.buy(1, &jar, 1, "pm_card_visa").send().await.ok(202);
    shop.app().payments().at_rest().await;
    // It was made, and the rush was such that nobody can look through what else was.
    let theirs = intent(&json!({}), "succeeded");
    far.says(vec![list(&[theirs], true); 40]);
    let reserved = intent(&json!({}), "requires_capture");
    far.says([Say::Replay(200, reserved.clone()), Say::Json(200, reserved)]);
    far.says([Say::Json(200, intent(&json!({}), "succeeded"))]);
    shop.settle().await;
    assert_eq!(shop.order_of(1, &id(&order)).await["payment"]["status"], "paid");
    let heard = far.heard();
    assert_eq!(heard[0].key(), heard[41].key());
    shop.close().await;
}

#[actix_web::test]
async fn money_that_has_come_back_is_owed_again() {
    let reserved = intent(&json!({}), "requires_capture");
    let far =
        FarEnd::that_says([Say::Json(200, reserved), Say::Json(200, intent(&json!({}), "succeeded"))]).await;
    let shop = shop_at(&far).await;
    let jar = shop.stocked(5).await;
    let order = id(&shop.buy(1, &jar, 1, "pm_card_visa").send().await.ok(201));
    far.says([Say::Json(200, refund(&json!({}), "re_1", "succeeded"))]);
    shop.by(1, "POST", &format!("/v1/orders/{order}/cancel")).send().await.ok(200);
    shop.settle().await;
    assert_eq!(shop.order_of(1, &order).await["payment"]["status"], "refunded");
    let row = shop.money().await.1[0].clone();
    let names = json!({ "stockade_refund": row.id.to_string(), "stockade_payment": row.payment.to_string() });
    let stuck = async || {
        shop.admin("GET", "/v1/admin/compensations?state=stuck").send().await.ok(200)["data"].clone()
    };

    // It stands by its word: nothing is opened.
    let done = refund(&names, "re_1", "succeeded");
    far.says([list(std::slice::from_ref(&done), false)]);
    news(&shop, "evt_1", "refund.updated", &done).await;
    shop.settle().await;
    assert_eq!(shop.money().await.1[0].state, RefundState::Done);

    // Days later the bank sends it back.
    let failed = refund(&names, "re_1", "failed");
    far.says([list(std::slice::from_ref(&failed), false)]);
    news(&shop, "evt_2", "refund.failed", &failed).await;
    shop.take_up().await;
    let listed = stuck().await;
    assert_eq!(listed[0]["id"], row.id.to_string());
    assert_eq!(
        (&listed[0]["why"], &listed[0]["amount"]["amount"]),
        (&json!("failed_lost_or_stolen_card"), &json!(1_000))
    );
    assert_eq!(shop.order_of(1, &order).await["payment"]["status"], "refunding");
    let (payments, refunds) = shop.money().await;
    assert_eq!((payments[0].refunded, refunds[0].state), (1_000, RefundState::Restocked), "counted once");
    assert_eq!(shop.counters(&jar).await[..3], [5, 0, 0], "its units are where they were");

    // Somebody has it tried once more: under another key, so that the same failure is not told again.
    let before = far.lines().len();
    let again = refund(&names, "re_2", "succeeded");
    far.says([list(std::slice::from_ref(&failed), false), list(&[failed], false), Say::Json(200, again)]);
    let retry = format!("/v1/admin/compensations/{}/retry", row.id);
    assert_eq!(shop.admin("POST", &retry).send().await.status, 202);
    shop.settle().await;
    assert_eq!(stuck().await, json!([]));
    assert_eq!(shop.order_of(1, &order).await["payment"]["status"], "refunded");
    let heard = far.heard();
    assert_eq!(heard[before + 2].key(), format!("{}:1", row.id));
    assert_eq!(shop.money().await.1[0].provider_ref.as_deref(), Some("re_2"));
    shop.close().await;
}

/// What Stripe has failed at it tells of for a day under the same key, whether it has done it or not.
#[actix_web::test]
async fn a_refund_that_stripe_has_failed_at_is_made_under_another_key_when_none_has_come_of_it() {
    let reserved = intent(&json!({}), "requires_capture");
    let far =
        FarEnd::that_says([Say::Json(200, reserved), Say::Json(200, intent(&json!({}), "succeeded"))]).await;
    let shop = shop_at(&far).await;
    let jar = shop.stocked(5).await;
    let order = shop.buy(1, &jar, 1, "pm_card_visa").send().await.ok(201);
    let payment: PaymentId = order["payment"]["id"].as_str().unwrap().parse().unwrap();
    let name = RefundId::of(payment, Cause::OrderCancelled).to_string();
    let next = format!("{name}:1");
    far.says([Say::Json(500, json!({}))]);
    far.always_says("GET /v1/refunds", "", list(&[], false));
    far.always_says("POST /v1/refunds", &name, Say::Replay(500, json!({})));
    far.always_says("POST /v1/refunds", &next, Say::Json(200, refund(&json!({}), "re_1", "succeeded")));
    shop.by(1, "POST", &format!("/v1/orders/{}/cancel", id(&order))).send().await.ok(200);
    shop.app().payments().at_rest().await;
    let row = async || -> Refund { shop.money().await.1.remove(0) };
    while row().await.reason.as_deref() != Some(SPENT) {
        shop.clock.advance(61_000);
        shop.take_up().await;
    }
    // What has come of the first key may still show: nothing is made anew.
    shop.clock.advance(SPENT_MS / 2);
    shop.take_up().await;
    assert_eq!((row().await.made_anew, row().await.state), (0, RefundState::Restocked));
    let keys = || -> Vec<String> {
        let told = far.heard().into_iter().filter(|heard| heard.line == "POST /v1/refunds");
        told.map(|heard| heard.key().to_owned()).collect()
    };
    assert!(keys().iter().all(|key| *key == name));
    shop.clock.advance(SPENT_MS / 2);
    shop.settle().await;
    let done = row().await;
    assert_eq!(
        (done.state, done.made_anew, done.provider_ref.as_deref()),
        (RefundState::Done, 1, Some("re_1"))
    );
    assert_eq!(keys().iter().filter(|key| **key == next).count(), 1, "and once");
    let heard = far.heard();
    let [.., looked, made] = heard.as_slice() else { panic!("{heard:?}") };
    assert!(looked.line.starts_with("GET /v1/refunds?") && made.key() == next, "it was looked for before");
    assert_eq!(shop.order_of(1, &id(&order)).await["payment"]["status"], "refunded");
    shop.close().await;
}
