//! Every token, every fault, and what is remembered.

use std::time::Duration;

use secrecy::SecretString;
use tempfile::TempDir;

use super::*;
use crate::domain::amount::Currency;
use crate::domain::payment::Method;
use crate::domain::stock::Millis;
use crate::provider::{Hint, SIGNATURE_HEADER};

const NOW: Millis = Millis(1_800_000_000_000);

fn won(amount: i64) -> Money {
    Money { amount, currency: Currency::KRW }
}

struct Desk {
    dir: TempDir,
    provider: Simulated,
    faults: SimulatedPayment,
}

impl Desk {
    fn open(faults: &str) -> Desk {
        let (dir, faults) = (tempfile::tempdir().unwrap(), faults.parse().unwrap());
        let provider = Desk::provider(&dir, &faults);
        Desk { dir, provider, faults }
    }

    fn provider(dir: &TempDir, faults: &SimulatedPayment) -> Simulated {
        let signatures = Signatures::new(&SecretString::from("whsec_test"));
        let shop = SocketAddr::from(([127, 0, 0, 1], 9));
        Simulated::open(dir.path(), faults, &signatures, shop, &Clock::start()).unwrap()
    }

    /// The shop is killed and starts again.
    fn killed(self) -> Desk {
        let provider = Desk::provider(&self.dir, &self.faults);
        Desk { provider, ..self }
    }

    async fn charge(&self, number: u128, token: &str) -> Result<Seen, ProviderError> {
        let method = Method::card(token).unwrap();
        self.provider.charge(&ask(number, &method)).await
    }

    async fn find(&self, number: u128) -> Option<Seen> {
        self.provider.find(&ask(number, &Method::card("tok_ok").unwrap())).await.unwrap()
    }

    async fn cancel(&self, number: u128) -> Result<Seen, ProviderError> {
        self.provider.cancel(&ask(number, &Method::card("tok_ok").unwrap())).await
    }

    async fn refund(&self, payment: u128, number: u128, amount: i64) -> Result<RefundSeen, ProviderError> {
        self.provider.refund(&back(payment, number, amount)).await
    }

    /// What the book says the payment came to.
    fn known(&self, number: u128) -> KnownCharge {
        let id = payment(number);
        self.provider.charges().into_iter().find(|charge| charge.payment == id).unwrap()
    }
}

fn payment(number: u128) -> PaymentId {
    PaymentId::new(NOW, number << 64 | number)
}

fn ask(number: u128, method: &Method) -> Charge<'_> {
    let order = OrderId::new(NOW, number);
    let method = Some(method);
    Charge { payment: payment(number), order, amount: won(100), method, provider_ref: None, started_at: NOW }
}

fn back(number: u128, refund: u128, amount: i64) -> RefundAsk<'static> {
    RefundAsk {
        refund: RefundId::new(NOW, refund),
        payment: payment(number),
        order: OrderId::new(NOW, number),
        provider_ref: "sim_whatever",
        amount: won(amount),
        started_at: NOW,
        again: false,
        made_anew: 0,
    }
}

fn declined(code: &str) -> Status {
    Status::Declined { code: code.to_owned() }
}

fn no(code: &str) -> ProviderError {
    ProviderError::Refused { code: code.to_owned() }
}

#[tokio::test]
async fn the_token_decides() {
    let desk = Desk::open("");
    for (number, token, status, captured) in [
        (1, "tok_ok", Status::Captured, 100),
        (2, "tok_declined", declined("card_declined"), 0),
        (3, "tok_random_0", Status::Captured, 100),
        (4, "tok_random_100", declined("card_declined"), 0),
        (5, "tok_random_101", declined("invalid_token"), 0),
        (6, "tok_random_", declined("invalid_token"), 0),
        (7, "pm_card_visa", declined("invalid_token"), 0),
        (8, "tok_refund_fails_3", Status::Captured, 100),
    ] {
        let seen = desk.charge(number, token).await.unwrap();
        assert_eq!((&seen.status, seen.captured, seen.amount), (&status, captured, won(100)), "{token}");
        assert_eq!(seen.provider_ref, payment(number).to_string().replace("pay_", "sim_"));
        assert_eq!(desk.find(number).await, Some(seen));
    }
    assert_eq!(desk.find(99).await, None);
}

#[tokio::test]
async fn an_answer_that_is_lost_is_found() {
    let desk = Desk::open("");
    for (number, token, status) in [
        (1, "tok_timeout_then_ok", Status::Captured),
        (2, "tok_timeout_then_declined", declined("card_declined")),
    ] {
        assert_eq!(desk.charge(number, token).await, Err(ProviderError::Unknown), "{token}");
        assert_eq!(desk.find(number).await.map(|seen| seen.status), Some(status.clone()));
        assert_eq!(desk.charge(number, token).await.map(|seen| seen.status), Ok(status));
    }
}

#[tokio::test]
async fn what_is_pending_is_decided_when_somebody_asks() {
    let desk = Desk::open("");
    for (number, token, status) in [
        (1, "tok_pending_then_ok", Status::Captured),
        (2, "tok_pending_then_declined", declined("card_declined")),
    ] {
        assert_eq!(desk.charge(number, token).await.map(|seen| seen.status), Ok(Status::Pending));
        assert_eq!(
            desk.charge(number, token).await.map(|seen| (seen.status, seen.captured)),
            Ok((Status::Pending, 0))
        );
        assert_eq!(desk.find(number).await.map(|seen| seen.status), Some(status));
    }
    desk.charge(3, "tok_pending_then_ok").await.unwrap();
    assert_eq!(desk.cancel(3).await.map(|seen| seen.status), Ok(Status::Cancelled));
    assert_eq!(desk.find(3).await.map(|seen| seen.status), Some(Status::Cancelled));
}

#[tokio::test]
async fn it_can_take_something_else_than_was_asked_for() {
    let desk = Desk::open("");
    let seen = desk.charge(1, "tok_wrong_amount").await.unwrap();
    assert_eq!((seen.amount, seen.captured), (won(101), 101));
    let seen = desk.charge(2, "tok_wrong_currency").await.unwrap();
    assert_eq!((seen.amount.amount, seen.amount.currency.as_str()), (100, "XTS"));
    assert_eq!(desk.charge(2, "tok_wrong_currency").await, Ok(seen), "told twice, it is the same mistake");
}

#[tokio::test]
async fn chance_follows_from_the_seed_and_the_payment() {
    let came_to = async |desk: &Desk| {
        let mut ends = Vec::new();
        for number in 0..500 {
            ends.push(desk.charge(number, "tok_random_20").await.unwrap().status == Status::Captured);
        }
        ends
    };
    let (one, again, other) = (Desk::open("seed=1"), Desk::open("seed=1"), Desk::open("seed=2"));
    let ends = came_to(&one).await;
    assert_eq!(ends, came_to(&again).await);
    assert_ne!(ends, came_to(&other).await);
    let declines = ends.iter().filter(|ok| !**ok).count();
    assert!((60..=140).contains(&declines), "{declines} of 500 are not about a fifth");
}

#[tokio::test]
async fn told_twice_it_happens_once() {
    let desk = Desk::open("");
    let first = desk.charge(1, "tok_ok").await.unwrap();
    // Also with another token: what was decided stands.
    assert_eq!(desk.charge(1, "tok_declined").await, Ok(first));
    assert_eq!(desk.provider.charges().len(), 1);
    let method = Method::card("tok_ok").unwrap();
    let dearer = Charge { amount: won(101), ..ask(1, &method) };
    assert_eq!(desk.provider.charge(&dearer).await, Err(no("idempotency_error")));
    let first = desk.refund(1, 1, 30).await.unwrap();
    assert_eq!(
        (desk.refund(1, 1, 30).await, desk.refund(1, 1, 31).await),
        (Ok(first), Err(no("idempotency_error")))
    );
    assert_eq!((desk.known(1).refunded, desk.provider.refunds().len()), (30, 1));
}

#[tokio::test]
async fn a_cancel_comes_before_or_after_and_never_beside_a_charge() {
    let desk = Desk::open("");
    // Never heard of: a charge that was on its way is refused when it arrives.
    assert_eq!(desk.cancel(1).await.map(|seen| seen.status), Ok(Status::Cancelled));
    assert_eq!(
        desk.charge(1, "tok_ok").await.map(|seen| (seen.status, seen.captured)),
        Ok((Status::Cancelled, 0))
    );
    let desk = desk.killed();
    assert_eq!(desk.charge(1, "tok_ok").await.map(|seen| seen.status), Ok(Status::Cancelled));
    // Too late.
    desk.charge(2, "tok_ok").await.unwrap();
    assert_eq!(desk.cancel(2).await.map(|seen| (seen.status, seen.captured)), Ok((Status::Captured, 100)));
    desk.charge(3, "tok_declined").await.unwrap();
    assert_eq!(desk.cancel(3).await.map(|seen| seen.status), Ok(declined("card_declined")));
}

#[tokio::test]
async fn no_more_goes_back_than_was_taken() {
    let desk = Desk::open("");
    desk.charge(1, "tok_ok").await.unwrap();
    let seen = desk.refund(1, 1, 60).await.unwrap();
    assert_eq!((seen.status, seen.amount), (RefundStatus::Done, won(60)));
    assert_eq!(desk.refund(1, 2, 41).await, Err(no("amount_too_large")));
    assert_eq!(desk.refund(1, 2, 0).await, Err(no("amount_too_large")));
    assert!(desk.refund(1, 2, 40).await.is_ok());
    assert_eq!(desk.refund(1, 3, 1).await, Err(no("charge_already_refunded")));
    assert_eq!(desk.find(1).await.map(|seen| (seen.captured, seen.refunded)), Some((100, 100)));
    for (number, token) in [(2, "tok_declined"), (3, "tok_pending_then_ok")] {
        desk.charge(number, token).await.unwrap();
        assert_eq!(desk.refund(number, 9, 1).await, Err(no("charge_not_captured")));
    }
    assert_eq!(desk.refund(99, 9, 1).await, Err(no("charge_not_captured")));
    desk.charge(4, "tok_wrong_currency").await.unwrap();
    assert_eq!(desk.refund(4, 9, 1).await, Err(no("currency_mismatch")));
}

#[tokio::test]
async fn a_refund_can_fail_before_it_is_made() {
    let desk = Desk::open("");
    desk.charge(1, "tok_refund_fails_twice").await.unwrap();
    assert_eq!(desk.refund(1, 1, 100).await, Err(ProviderError::NotNow));
    let desk = desk.killed();
    assert_eq!(desk.refund(1, 1, 100).await, Err(ProviderError::NotNow));
    assert_eq!(desk.provider.find_refund(&back(1, 1, 100)).await, Ok(None));
    assert!(desk.refund(1, 1, 100).await.is_ok());
    assert!(matches!(desk.provider.find_refund(&back(1, 1, 100)).await, Ok(Some(_))));
    desk.charge(2, "tok_refund_fails_always").await.unwrap();
    for _ in 0..300 {
        assert_eq!(desk.refund(2, 2, 100).await, Err(ProviderError::NotNow));
    }
}

#[tokio::test]
async fn calls_are_lost_on_the_way_in_and_on_the_way_out() {
    let desk = Desk::open("lost_before=100");
    assert_eq!(desk.charge(1, "tok_ok").await, Err(ProviderError::Unknown));
    assert_eq!((desk.find(1).await, desk.provider.charges().len()), (None, 0));
    let desk = desk.killed();
    assert!(desk.charge(1, "tok_ok").await.is_ok(), "only the first call is lost");
    assert_eq!(desk.refund(1, 1, 100).await, Err(ProviderError::Unknown));
    assert_eq!((desk.known(1).refunded, desk.provider.find_refund(&back(1, 1, 100)).await), (0, Ok(None)));
    assert!(desk.refund(1, 1, 100).await.is_ok());
    // What was lost can be cancelled before it comes again.
    assert_eq!(desk.charge(2, "tok_ok").await, Err(ProviderError::Unknown));
    assert_eq!(desk.cancel(2).await.map(|seen| seen.status), Ok(Status::Cancelled));

    let desk = Desk::open("lost_after=100");
    assert_eq!(desk.charge(1, "tok_ok").await, Err(ProviderError::Unknown));
    assert_eq!(desk.find(1).await.map(|seen| seen.status), Some(Status::Captured));
    assert!(desk.charge(1, "tok_ok").await.is_ok());
    assert_eq!(desk.refund(1, 1, 100).await, Err(ProviderError::Unknown));
    assert_eq!(desk.known(1).refunded, 100);
    assert!(desk.refund(1, 1, 100).await.is_ok());
    assert_eq!(desk.cancel(2).await, Err(ProviderError::Unknown));
    assert_eq!(desk.cancel(2).await.map(|seen| seen.status), Ok(Status::Cancelled));
}

#[tokio::test]
async fn a_killed_shop_does_not_make_it_forget() {
    let desk = Desk::open("");
    for (number, token) in
        [(1, "tok_ok"), (2, "tok_declined"), (3, "tok_pending_then_ok"), (4, "tok_wrong_amount")]
    {
        desk.charge(number, token).await.unwrap();
    }
    desk.refund(1, 1, 40).await.unwrap();
    let sorted = |desk: &Desk| {
        let mut all = (desk.provider.charges(), desk.provider.refunds());
        all.0.sort_by_key(|charge| charge.payment);
        all
    };
    let before = sorted(&desk);
    let desk = desk.killed();
    assert_eq!(sorted(&desk), before);
    let first = desk.known(1);
    assert_eq!(
        (first.state, first.captured, first.refunded, first.amount),
        (KnownState::Captured, 100, 40, won(100))
    );
    assert_eq!(desk.refund(1, 2, 61).await, Err(no("amount_too_large")));
}

#[tokio::test]
async fn whoever_cannot_be_reached_has_done_nothing() {
    let desk = Desk::open("");
    desk.provider.set_unreachable(true);
    assert_eq!(desk.charge(1, "tok_ok").await, Err(ProviderError::NotNow));
    desk.provider.set_unreachable(false);
    assert_eq!(desk.find(1).await, None);
    assert!(desk.charge(1, "tok_ok").await.is_ok());
}

#[tokio::test]
async fn an_answer_takes_as_long_as_it_is_told_to() {
    let desk = Desk::open("latency_ms=20,timeout_ms=30");
    let clock = Clock::start();
    let began = clock.nanos();
    assert_eq!(desk.charge(1, "tok_timeout_then_ok").await, Err(ProviderError::Unknown));
    assert!(Duration::from_nanos(clock.nanos() - began) >= Duration::from_millis(50));
}

/// A shop that listens for webhooks: what it heard, as header and body.
async fn listen(listener: &tokio::net::TcpListener) -> (String, Vec<u8>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut request = String::new();
    loop {
        let mut bytes = [0; 4_096];
        let read = stream.read(&mut bytes).await.unwrap();
        assert_ne!(read, 0, "a webhook that ends in the middle: {request}");
        request.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
        let Some((head, body)) = request.split_once("\r\n\r\n") else { continue };
        let header = |name: &str| {
            let mut lines = head.lines().filter_map(|line| line.split_once(": "));
            lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
        };
        if header("content-length").and_then(|length| length.parse().ok()) == Some(body.len()) {
            assert!(head.starts_with("POST /v1/payments/webhook "), "{head}");
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            stream.write_all(answer).await.unwrap();
            return (header(SIGNATURE_HEADER).unwrap(), body.as_bytes().to_vec());
        }
    }
}

#[tokio::test]
async fn it_tells_the_shop_what_happened_signed_and_sometimes_twice_and_late() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let signatures = Signatures::new(&SecretString::from("whsec_test"));
    let faults = "webhooks=on,duplicates=100,late=100,late_ms=40".parse().unwrap();
    let clock = Clock::start();
    let shop = listener.local_addr().unwrap();
    let provider = Simulated::open(dir.path(), &faults, &signatures, shop, &clock).unwrap();
    let method = Method::card("tok_ok").unwrap();
    let began = clock.nanos();
    provider.charge(&ask(1, &method)).await.unwrap();
    let mut events = Vec::new();
    for _ in 0..2 {
        let (signature, body) = listen(&listener).await;
        assert_eq!(signatures.check(Some(&signature), &body, clock.now()), Ok(()));
        events.push(Hint::read(&body).unwrap());
    }
    assert!(Duration::from_nanos(clock.nanos() - began) >= Duration::from_millis(40), "it was to be late");
    assert_eq!(events[0], events[1], "the same event, told twice");
    assert_eq!((events[0].payment, events[0].kind.as_str()), (Some(payment(1)), "payment_intent.succeeded"));
    provider.refund(&back(1, 1, 100)).await.unwrap();
    let refund = Hint::read(&listen(&listener).await.1).unwrap();
    assert_eq!((refund.payment, refund.refund), (Some(payment(1)), Some(RefundId::new(NOW, 1))));
    assert_ne!(refund.event, events[0].event);
}
