//! The Stripe adapter against something that speaks as Stripe does and that we did not write, localstripe; and, for what that does
//! not know, against shapes after Stripe's documentation.
//!
//! localstripe ignores `Idempotency-Key`: told twice, it makes two payments. What rests on a key (an answer that was lost, a charge
//! that arrives after its cancel) is proved by the shapes, and against a localstripe that `stripe/server.py` has taught what a key is.

#[path = "stripe/books.rs"]
mod books;
#[path = "stripe/far_end.rs"]
mod far_end;
#[path = "stripe/journey.rs"]
mod journey;
#[path = "stripe/news.rs"]
mod news;
#[path = "stripe/refunds.rs"]
mod refunds;
mod support;
#[path = "stripe/told.rs"]
mod told;

use far_end::{Purchase, SECRET, stripe_at, won};
use stockade::clock::Clock;
use stockade::provider::{Charge, ProviderError, RefundStatus, SIGNATURE_HEADER, Status};
use support::Bank;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn money_is_taken_and_given_back() {
    let Some(bank) = Bank::open() else { return };
    let provider = stripe_at(&bank.url);
    let buy = Purchase::with("pm_card_visa");
    assert_eq!(provider.find(&buy.ask()).await, Ok(None));
    let seen = provider.charge(&buy.ask()).await.unwrap();
    assert_eq!((&seen.status, seen.amount, seen.captured), (&Status::Captured, won(12_900), 12_900));
    let intent = bank.ask(&format!("/v1/payment_intents/{}", seen.provider_ref)).await;
    assert_eq!(intent["metadata"]["stockade_payment"], buy.payment.to_string());
    assert_eq!(intent["capture_method"], "manual");
    // With its name or without.
    let named = Charge { provider_ref: Some(&seen.provider_ref), ..buy.ask() };
    assert_eq!(provider.find(&buy.ask()).await, Ok(Some(seen.clone())));
    assert_eq!(provider.find(&named).await, Ok(Some(seen.clone())));
    assert_eq!(provider.charge(&named).await, Ok(seen.clone()));
    assert_eq!(provider.cancel(&named).await, Ok(seen.clone()), "too late");
    let back = buy.back(&seen.provider_ref, 2_900);
    assert_eq!(provider.find_refund(&back).await, Ok(None));
    let refund = provider.refund(&back).await.unwrap();
    assert_eq!((&refund.status, refund.amount), (&RefundStatus::Done, won(2_900)));
    assert_eq!(provider.find_refund(&back).await, Ok(Some(refund)));
    assert_eq!(provider.find(&buy.ask()).await.map(|seen| seen.map(|it| it.refunded)), Ok(Some(2_900)));
}

#[tokio::test]
async fn a_card_that_is_no_good_is_declined() {
    let Some(bank) = Bank::open() else { return };
    let provider = stripe_at(&bank.url);
    let buy = Purchase::with("pm_card_chargeCustomerFail");
    let seen = provider.charge(&buy.ask()).await.unwrap();
    assert_eq!((&seen.status, seen.captured), (&Status::Declined { code: "card_declined".to_owned() }, 0));
    assert!(seen.provider_ref.starts_with("pi_"), "it is found, although the error does not name it");
    assert_eq!(provider.find(&buy.ask()).await, Ok(Some(seen)));
    // A card that wants its owner: nobody is there to ask, and nothing stays behind.
    let buy = Purchase::with(&bank.card("4000002500003155").await);
    let seen = provider.charge(&buy.ask()).await.unwrap();
    assert_eq!(seen.status, Status::Declined { code: "requires_action".to_owned() });
    let intent = bank.ask(&format!("/v1/payment_intents/{}", seen.provider_ref)).await;
    assert_eq!(intent["status"], "canceled");
    // A token that it does not know is our mistake.
    let buy = Purchase::with("pm_nobody");
    assert!(matches!(provider.charge(&buy.ask()).await, Err(ProviderError::Refused { .. })));
}

#[tokio::test]
async fn a_payment_that_was_never_begun_is_cancelled() {
    let Some(bank) = Bank::open() else { return };
    let provider = stripe_at(&bank.url);
    let buy = Purchase::with("pm_card_visa");
    let seen = provider.cancel(&buy.ask()).await.unwrap();
    assert_eq!((&seen.status, seen.captured), (&Status::Cancelled, 0));
    assert_eq!(provider.find(&buy.ask()).await, Ok(Some(seen.clone())));
    assert_eq!(provider.cancel(&buy.ask()).await, Ok(seen));
}

/// What rests on keys holds against one that knows them.
#[tokio::test]
async fn told_twice_under_one_key_is_one_payment() {
    let Some(bank) = Bank::with_keys() else { return };
    let provider = stripe_at(&bank.url);
    let buy = Purchase::with("pm_card_visa");
    let seen = provider.charge(&buy.ask()).await.unwrap();
    assert_eq!((&seen.status, seen.captured), (&Status::Captured, 12_900));
    assert_eq!(provider.charge(&buy.ask()).await, Ok(seen.clone()));
    assert_eq!(provider.cancel(&buy.ask()).await, Ok(seen.clone()), "too late");
    let back = buy.back(&seen.provider_ref, 2_900);
    let refund = provider.refund(&back).await.unwrap();
    assert_eq!(provider.refund(&back).await, Ok(refund));
    assert_eq!(provider.find(&buy.ask()).await.map(|seen| seen.map(|it| it.refunded)), Ok(Some(2_900)));
    // A charge that arrives after its cancel finds its key used up.
    let late = Purchase::with("pm_card_visa");
    let cancelled = provider.cancel(&late.ask()).await.unwrap();
    assert_eq!(provider.charge(&late.ask()).await, Ok(cancelled));
}

/// If this fails, localstripe has learned what a key is, and `--keys` of `stripe/server.py` can go.
#[tokio::test]
async fn localstripe_ignores_keys() {
    let Some(bank) = Bank::open() else { return };
    let provider = stripe_at(&bank.url);
    let buy = Purchase::with("pm_card_visa");
    let (one, two) = (provider.charge(&buy.ask()).await.unwrap(), provider.charge(&buy.ask()).await.unwrap());
    assert_ne!(one.provider_ref, two.provider_ref);
}

#[tokio::test]
async fn its_webhooks_are_believed_and_name_the_payment() {
    let Some(bank) = Bank::open() else { return };
    let provider = stripe_at(&bank.url);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1/payments/webhook", listener.local_addr().unwrap());
    bank.tell("/_config/webhooks/shop", serde_json::json!({ "url": url, "secret": SECRET })).await;
    let buy = Purchase::with("pm_card_visa");
    provider.charge(&buy.ask()).await.unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut request = Vec::new();
    let (head, body) = loop {
        let mut bytes = [0; 4_096];
        let read = stream.read(&mut bytes).await.unwrap();
        request.extend_from_slice(&bytes[..read]);
        let text = String::from_utf8(request.clone()).unwrap();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
            if length.is_some_and(|length| length.parse() == Ok(body.len())) {
                break (head.to_owned(), body.to_owned());
            }
        }
    };
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    let signature =
        head.lines().find_map(|line| line.strip_prefix(SIGNATURE_HEADER)?.strip_prefix(": ")).unwrap();
    let hint = provider.hear(Some(signature), body.as_bytes(), Clock::start().now()).unwrap();
    assert_eq!((hint.payment, hint.kind.as_str()), (Some(buy.payment), "payment_intent.succeeded"));
    assert!(hint.event.starts_with("evt_"));
    let altered = body.replace("12900", "1");
    assert!(provider.hear(Some(signature), altered.as_bytes(), Clock::start().now()).is_err());
}
