//! The Stripe adapter against something that speaks as Stripe does and that we did not write, localstripe; and, for what that does
//! not know, against shapes after Stripe's documentation.
//!
//! `LOCALSTRIPE_PYTHON` names a Python that has localstripe, and then it must work; `scripts/verify` installs one and sets it.
//! Without it, on a machine that has none, that half has nothing to prove, and says so.
//!
//! localstripe ignores `Idempotency-Key`: told twice, it makes two payments. So nothing here may rest on a key, and what does
//! (an answer that was lost, a charge that arrives after its cancel) is proved by the shapes.

#[path = "stripe/books.rs"]
mod books;
#[path = "stripe/far_end.rs"]
mod far_end;
#[path = "stripe/journey.rs"]
mod journey;
#[path = "stripe/news.rs"]
mod news;
mod support;
#[path = "stripe/told.rs"]
mod told;

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, Command, Stdio};

use far_end::{Purchase, SECRET, stripe_at, won};
use reqwest::Client;
use serde_json::Value;
use stockade::clock::Clock;
use stockade::provider::{Charge, Provider, ProviderError, RefundStatus, SIGNATURE_HEADER, Status};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// localstripe as a process of ours.
struct Bank {
    process: Child,
    /// It lives as long as this is open.
    _life: ChildStdin,
    url: String,
    provider: Provider,
    client: Client,
}

impl Bank {
    fn open() -> Option<Bank> {
        let Ok(python) = std::env::var("LOCALSTRIPE_PYTHON") else {
            eprintln!(
                "LOCALSTRIPE_PYTHON names no Python with localstripe: this is proved by scripts/verify"
            );
            return None;
        };
        let mut process = Command::new(python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stripe/server.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut port = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut port).unwrap();
        let port: u16 = port.trim().parse().expect("localstripe says its port; is it installed?");
        let _life = process.stdin.take().unwrap();
        let url = format!("http://127.0.0.1:{port}");
        let provider = stripe_at(&url);
        let client = Client::builder().tls_certs_only([]).no_proxy().build().unwrap();
        Some(Bank { process, _life, url, provider, client })
    }

    async fn ask(&self, path: &str) -> Value {
        let answer =
            self.client.get(format!("{}{path}", self.url)).bearer_auth("sk_test_1").send().await.unwrap();
        answer.json().await.unwrap()
    }

    async fn tell(&self, path: &str, body: Value) -> Value {
        let request = self.client.post(format!("{}{path}", self.url)).bearer_auth("sk_test_1").json(&body);
        let text = request.send().await.unwrap().error_for_status().unwrap().text().await.unwrap();
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// The token of a card with this number, as a browser would have made it.
    async fn card(&self, number: &str) -> String {
        let card = serde_json::json!({ "number": number, "exp_month": 12, "exp_year": 2030, "cvc": "123" });
        let made =
            self.tell("/v1/payment_methods", serde_json::json!({ "type": "card", "card": card })).await;
        made["id"].as_str().unwrap().to_owned()
    }
}

impl Drop for Bank {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn money_is_taken_and_given_back() {
    let Some(bank) = Bank::open() else { return };
    let buy = Purchase::with("pm_card_visa");
    assert_eq!(bank.provider.find(&buy.ask()).await, Ok(None));
    let seen = bank.provider.charge(&buy.ask()).await.unwrap();
    assert_eq!((&seen.status, seen.amount, seen.captured), (&Status::Captured, won(12_900), 12_900));
    let intent = bank.ask(&format!("/v1/payment_intents/{}", seen.provider_ref)).await;
    assert_eq!(intent["metadata"]["stockade_payment"], buy.payment.to_string());
    assert_eq!(intent["capture_method"], "manual");
    // With its name or without.
    let named = Charge { provider_ref: Some(&seen.provider_ref), ..buy.ask() };
    assert_eq!(bank.provider.find(&buy.ask()).await, Ok(Some(seen.clone())));
    assert_eq!(bank.provider.find(&named).await, Ok(Some(seen.clone())));
    assert_eq!(bank.provider.charge(&named).await, Ok(seen.clone()));
    assert_eq!(bank.provider.cancel(&named).await, Ok(seen.clone()), "too late");
    let back = buy.back(&seen.provider_ref, 2_900);
    assert_eq!(bank.provider.find_refund(&back).await, Ok(None));
    let refund = bank.provider.refund(&back).await.unwrap();
    assert_eq!((&refund.status, refund.amount), (&RefundStatus::Done, won(2_900)));
    assert_eq!(bank.provider.find_refund(&back).await, Ok(Some(refund)));
    assert_eq!(bank.provider.find(&buy.ask()).await.map(|seen| seen.map(|it| it.refunded)), Ok(Some(2_900)));
}

#[tokio::test]
async fn a_card_that_is_no_good_is_declined() {
    let Some(bank) = Bank::open() else { return };
    let buy = Purchase::with("pm_card_chargeCustomerFail");
    let seen = bank.provider.charge(&buy.ask()).await.unwrap();
    assert_eq!((&seen.status, seen.captured), (&Status::Declined { code: "card_declined".to_owned() }, 0));
    assert!(seen.provider_ref.starts_with("pi_"), "it is found, although the error does not name it");
    assert_eq!(bank.provider.find(&buy.ask()).await, Ok(Some(seen)));
    // A card that wants its owner: nobody is there to ask, and nothing stays behind.
    let buy = Purchase::with(&bank.card("4000002500003155").await);
    let seen = bank.provider.charge(&buy.ask()).await.unwrap();
    assert_eq!(seen.status, Status::Declined { code: "requires_action".to_owned() });
    let intent = bank.ask(&format!("/v1/payment_intents/{}", seen.provider_ref)).await;
    assert_eq!(intent["status"], "canceled");
    // A token that it does not know is our mistake.
    let buy = Purchase::with("pm_nobody");
    assert!(matches!(bank.provider.charge(&buy.ask()).await, Err(ProviderError::Refused { .. })));
}

#[tokio::test]
async fn a_payment_that_was_never_begun_is_cancelled() {
    let Some(bank) = Bank::open() else { return };
    let buy = Purchase::with("pm_card_visa");
    let seen = bank.provider.cancel(&buy.ask()).await.unwrap();
    assert_eq!((&seen.status, seen.captured), (&Status::Cancelled, 0));
    assert_eq!(bank.provider.find(&buy.ask()).await, Ok(Some(seen.clone())));
    assert_eq!(bank.provider.cancel(&buy.ask()).await, Ok(seen));
}

/// If this fails, localstripe has learned what a key is, and the walks that rest on keys can be tried against it.
#[tokio::test]
async fn localstripe_ignores_keys() {
    let Some(bank) = Bank::open() else { return };
    let buy = Purchase::with("pm_card_visa");
    let (one, two) =
        (bank.provider.charge(&buy.ask()).await.unwrap(), bank.provider.charge(&buy.ask()).await.unwrap());
    assert_ne!(one.provider_ref, two.provider_ref);
}

#[tokio::test]
async fn its_webhooks_are_believed_and_name_the_payment() {
    let Some(bank) = Bank::open() else { return };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1/payments/webhook", listener.local_addr().unwrap());
    bank.tell("/_config/webhooks/shop", serde_json::json!({ "url": url, "secret": SECRET })).await;
    let buy = Purchase::with("pm_card_visa");
    bank.provider.charge(&buy.ask()).await.unwrap();
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
    let hint = bank.provider.hear(Some(signature), body.as_bytes(), Clock::start().now()).unwrap();
    assert_eq!((hint.payment, hint.kind.as_str()), (Some(buy.payment), "payment_intent.succeeded"));
    assert!(hint.event.starts_with("evt_"));
    let altered = body.replace("12900", "1");
    assert!(bank.provider.hear(Some(signature), altered.as_bytes(), Clock::start().now()).is_err());
}
