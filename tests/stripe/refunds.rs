//! What Stripe says of what goes back, and we make of it, after its documentation.

use serde_json::{Value, json};
use stockade::provider::{ProviderError, RefundAsk, RefundSeen, RefundStatus};

use crate::far_end::{FarEnd, INTENT, Purchase, Say, error, list, won};

const HOUR: i64 = 3_600_000;
const REFUNDS: &str = "GET /v1/refunds";
const REFUND: &str = "POST /v1/refunds";

fn ok(body: Value) -> Say {
    Say::Json(200, body)
}

fn refused(code: &str) -> ProviderError {
    ProviderError::Refused { code: code.to_owned() }
}

fn shop() -> Purchase {
    Purchase::with("pm_card_visa")
}

#[tokio::test]
async fn money_goes_back_once() {
    let buy = shop();
    let ask = buy.back(INTENT, 2_900);
    let refund = |more: Value| buy.shape("refund", more);
    let far = FarEnd::that_says([
        Say::Nothing,
        Say::Replay(200, refund(json!({ "status": "pending" }))),
        list(&[refund(json!({}))], false),
    ])
    .await;
    assert_eq!(far.provider.refund(&ask).await, Err(ProviderError::Unknown));
    let seen = far.provider.refund(&ask).await.unwrap();
    assert_eq!(
        (seen.status, seen.amount, seen.provider_ref.as_str()),
        (RefundStatus::Done, won(2_900), "re_3RfK2aB9xQ")
    );
    assert_eq!(far.lines(), [REFUND, REFUND, REFUNDS]);
    let heard = far.heard();
    assert_eq!((heard[0].key(), heard[1].key()), (&*buy.refund.to_string(), &*buy.refund.to_string()));
    for field in [
        format!("payment_intent={INTENT}"),
        "amount=2900".to_owned(),
        format!("metadata%5Bstockade_refund%5D={}", buy.refund),
    ] {
        assert!(heard[0].body.split('&').any(|it| it == field), "{field}\n{}", heard[0].body);
    }
}

#[tokio::test]
async fn a_refund_says_how_it_stands() {
    let buy = shop();
    let ask = buy.back(INTENT, 2_900);
    let status = |status: &str| ok(buy.shape("refund", json!({ "status": status })));
    let no = |code: &str| Say::Json(400, error("invalid_request_error", json!(code)));
    for (say, expected) in [
        (status("succeeded"), Ok(RefundStatus::Done)),
        (status("pending"), Ok(RefundStatus::Pending)),
        (status("failed"), Ok(RefundStatus::Failed { code: "refund_failed".to_owned() })),
        (no("charge_already_refunded"), Err(refused("charge_already_refunded"))),
        (Say::Json(400, error("idempotency_error", Value::Null)), Err(refused("idempotency_error"))),
        (Say::Json(429, json!({})), Err(ProviderError::NotNow)),
        (Say::Json(500, json!({})), Err(ProviderError::Unknown)),
        // That it has failed is all that it will say under this key.
        (Say::Replay(500, json!({})), Err(ProviderError::Spent)),
    ] {
        let far = FarEnd::that_says([say]).await;
        assert_eq!(far.provider.refund(&ask).await.map(|seen| seen.status), expected);
    }
}

#[tokio::test]
async fn a_refund_of_another_amount_is_not_done() {
    let buy = shop();
    let failed = || RefundStatus::Failed { code: "amount_mismatch".to_owned() };
    for other in [json!({ "amount": 2_899 }), json!({ "currency": "usd", "status": "pending" })] {
        let refund = buy.shape("refund", other);
        let far = FarEnd::that_says([ok(refund.clone()), list(&[refund], false)]).await;
        let ask = buy.back(INTENT, 2_900);
        assert_eq!(far.provider.refund(&ask).await.map(|seen| seen.status), Ok(failed()));
        let found = far.provider.find_refund(&ask).await.unwrap();
        assert_eq!(found.map(|seen| seen.status), Some(failed()));
    }
}

#[tokio::test]
async fn a_refund_that_failed_is_made_anew_under_a_key_of_its_own() {
    let buy = shop();
    let again = |made_anew| RefundAsk { again: true, made_anew, ..buy.back(INTENT, 2_900) };
    let refund = |id: &str, status: &str| buy.shape("refund", json!({ "id": id, "status": status }));
    let [first, second] = ["re_1", "re_2"].map(|id| refund(id, "failed"));
    let far = FarEnd::that_says([
        list(std::slice::from_ref(&first), false),
        ok(refund("re_2", "pending")),
        list(&[second.clone(), first.clone()], false),
        Say::Nothing,
        list(&[refund("re_3", "succeeded"), second, first], false),
    ])
    .await;
    let status = |seen: Result<RefundSeen, ProviderError>| seen.map(|seen| (seen.provider_ref, seen.status));
    assert_eq!(status(far.provider.refund(&again(1)).await), Ok(("re_2".into(), RefundStatus::Pending)));
    assert_eq!(far.provider.refund(&again(2)).await, Err(ProviderError::Unknown));
    // One that stands is not made anew, and what failed before it counts no more.
    assert_eq!(status(far.provider.refund(&again(2)).await), Ok(("re_3".into(), RefundStatus::Done)));
    let heard = far.heard();
    assert_eq!(far.lines(), [REFUNDS, REFUND, REFUNDS, REFUND, REFUNDS]);
    let id = buy.refund;
    assert_eq!((heard[1].key(), heard[3].key()), (&*format!("{id}:1"), &*format!("{id}:2")));
}

/// What Stripe would not make it tells again under the same key, whatever has been mended since.
#[tokio::test]
async fn a_refund_that_was_refused_is_made_under_another_key() {
    let buy = shop();
    let no = || error("invalid_request_error", json!("balance_insufficient"));
    let far = FarEnd::that_says([
        Say::Json(400, no()),
        Say::Replay(400, no()),
        list(&[], false),
        ok(buy.shape("refund", json!({}))),
    ])
    .await;
    let ask = buy.back(INTENT, 2_900);
    for _ in 0..2 {
        assert_eq!(far.provider.refund(&ask).await, Err(refused("balance_insufficient")));
    }
    let again = RefundAsk { again: true, made_anew: 1, ..ask };
    assert_eq!(far.provider.refund(&again).await.map(|seen| seen.status), Ok(RefundStatus::Done));
    assert_eq!(far.lines(), [REFUND, REFUND, REFUNDS, REFUND]);
    assert_eq!(far.heard()[3].key(), format!("{}:1", buy.refund));
}

#[tokio::test]
async fn an_old_refund_is_looked_for_before_it_is_made_again() {
    let (buy, other) = (Purchase::ago(24 * HOUR), shop());
    let foreign = other.shape("refund", json!({ "id": "re_1" }));
    let ours = buy.shape("refund", json!({}));
    let far =
        FarEnd::that_says([list(std::slice::from_ref(&foreign), true), list(&[foreign, ours], false)]).await;
    let seen = far.provider.refund(&buy.back(INTENT, 2_900)).await.unwrap();
    assert_eq!(seen.status, RefundStatus::Done);
    assert_eq!(far.lines(), [REFUNDS, REFUNDS]);
    assert!(
        far.heard()[1].line.ends_with(&format!("?payment_intent={INTENT}&limit=100&starting_after=re_1"))
    );
    let far = FarEnd::that_says([list(&[], false)]).await;
    assert_eq!(far.provider.find_refund(&buy.back(INTENT, 2_900)).await, Ok(None));
}
