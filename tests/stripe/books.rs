//! Everything that Stripe has of ours, leaf by leaf, after its documentation.

use serde_json::json;
use stockade::domain::stock::Millis;
use stockade::provider::{Charged, KnownRefund, Leaf, ProviderError};

use crate::far_end::{FarEnd, INTENT, Purchase, Say, list, won};

const SINCE: Millis = Millis(1_800_000_000_000);

fn charged(buy: &Purchase, captured: i64, refunded: i64) -> Charged {
    Charged { payment: buy.payment, amount: won(12_900), captured, refunded }
}

#[tokio::test]
async fn all_payments_come_a_hundred_at_a_time() {
    let [paid, declined, open] = [(); 3].map(|()| Purchase::with("pm_card_visa"));
    let mut given_back = paid.succeeded();
    given_back["latest_charge"]["amount_refunded"] = json!(2_900);
    let mut foreign = open.succeeded();
    foreign["metadata"] = json!({});
    let pages = [
        list(&[given_back, foreign], true),
        list(&[declined.intent("canceled"), open.intent("requires_capture")], false),
    ];
    let far = FarEnd::that_says(pages).await;
    let first = far.books.charges(SINCE, None).await.unwrap();
    assert_eq!(first, Leaf { entries: vec![charged(&paid, 12_900, 2_900)], next: Some(INTENT.to_owned()) });
    let second = far.books.charges(SINCE, first.next.as_deref()).await.unwrap();
    assert_eq!(second, Leaf { entries: vec![charged(&declined, 0, 0), charged(&open, 0, 0)], next: None });
    // Five minutes are between our clocks, at most.
    let asked =
        "GET /v1/payment_intents?created%5Bgte%5D=1799999700&limit=100&expand%5B%5D=data.latest_charge";
    let lines: Vec<_> = far.heard().into_iter().map(|heard| heard.line).collect();
    assert_eq!(lines, [asked.to_owned(), format!("{asked}&starting_after={INTENT}")]);
}

#[tokio::test]
async fn all_refunds_come_but_those_that_failed() {
    let [done, pending, failed] = [(); 3].map(|()| Purchase::with("pm_card_visa"));
    let data = [
        done.shape("refund", json!({})),
        pending.shape("refund", json!({ "status": "pending" })),
        failed.shape("refund", json!({ "status": "failed" })),
        failed.shape("refund", json!({ "metadata": null })),
    ];
    let far = FarEnd::that_says([list(&data, true), list(&[], false)]).await;
    let known = |buy: &Purchase| KnownRefund { refund: buy.refund, payment: buy.payment, amount: won(2_900) };
    let first = far.books.refunds(SINCE, None).await.unwrap();
    assert_eq!(first.entries, [known(&done), known(&pending)]);
    let second = far.books.refunds(SINCE, first.next.as_deref()).await.unwrap();
    assert_eq!(second, Leaf { entries: Vec::new(), next: None });
    let asked = "GET /v1/refunds?created%5Bgte%5D=1799999700&limit=100";
    let lines: Vec<_> = far.heard().into_iter().map(|heard| heard.line).collect();
    assert_eq!(lines, [asked.to_owned(), format!("{asked}&starting_after=re_3RfK2aB9xQ")]);
}

#[tokio::test]
async fn a_book_that_cannot_be_read_is_no_empty_one() {
    let said = [
        (Say::Json(500, json!({})), ProviderError::Unknown),
        (Say::Json(429, json!({})), ProviderError::NotNow),
        (Say::Json(401, json!({})), ProviderError::NotNow),
        (Say::Json(400, json!({})), ProviderError::Refused { code: "status_400".to_owned() }),
        (Say::Json(200, json!({ "data": "none" })), ProviderError::Unknown),
        (Say::Raw(200, vec![b' '; 5 << 20]), ProviderError::Unknown),
    ];
    for (say, expected) in said {
        let far = FarEnd::that_says([say]).await;
        assert_eq!(far.books.charges(SINCE, None).await, Err(expected));
    }
}
