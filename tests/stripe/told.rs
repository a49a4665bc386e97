//! What Stripe says and we make of it, after its documentation: for what localstripe does not know.

use serde_json::{Value, json};
use stockade::domain::amount::Money;
use stockade::provider::{Charge, ProviderError, RefundAsk, Seen, Status};

use crate::far_end::{FarEnd, INTENT, Purchase, Say, error, list, won};

const HOUR: i64 = 3_600_000;
const CREATE: &str = "POST /v1/payment_intents";
const LIST: &str = "GET /v1/payment_intents";
const READ: &str = "GET /v1/payment_intents/pi_3RfK2aB9xQ";
const CAPTURE: &str = "POST /v1/payment_intents/pi_3RfK2aB9xQ/capture";
const CANCEL: &str = "POST /v1/payment_intents/pi_3RfK2aB9xQ/cancel";

fn ok(body: Value) -> Say {
    Say::Json(200, body)
}

fn refused(code: &str) -> ProviderError {
    ProviderError::Refused { code: code.to_owned() }
}

fn declined(code: &str) -> Status {
    Status::Declined { code: code.to_owned() }
}

fn captured() -> Seen {
    Seen {
        provider_ref: INTENT.into(),
        status: Status::Captured,
        amount: won(12_900),
        captured: 12_900,
        refunded: 0,
    }
}

fn nothing_taken(status: Status) -> Seen {
    Seen { status, captured: 0, ..captured() }
}

fn shop() -> Purchase {
    Purchase::with("pm_card_visa")
}

#[tokio::test]
async fn money_is_reserved_and_then_taken() {
    let buy = shop();
    let far = FarEnd::that_says([ok(buy.intent("requires_capture")), ok(buy.succeeded())]).await;
    assert_eq!(far.provider.charge(&buy.ask()).await, Ok(captured()));
    let heard = far.heard();
    assert_eq!(far.lines(), [CREATE, CAPTURE]);
    for field in [
        "amount=12900".to_owned(),
        "currency=krw".to_owned(),
        "capture_method=manual".to_owned(),
        "confirm=true".to_owned(),
        "payment_method=pm_card_visa".to_owned(),
        "payment_method_types%5B%5D=card".to_owned(),
        format!("metadata%5Bstockade_payment%5D={}", buy.payment),
        format!("metadata%5Bstockade_order%5D={}", buy.order),
    ] {
        assert!(heard[0].body.split('&').any(|it| it == field), "{field}\n{}", heard[0].body);
    }
    assert_eq!(heard[0].key(), format!("{}:create", buy.payment));
    assert_eq!(heard[1].key(), format!("{}:capture", buy.payment));
    for request in &heard {
        assert_eq!(request.header("Stripe-Version"), "2025-06-30.basil");
        assert_eq!(request.header("Authorization"), "Bearer sk_test_hush");
        assert_eq!(request.header("Content-Type"), "application/x-www-form-urlencoded");
        assert!(request.header("User-Agent").starts_with("stockade/"));
    }
}

#[tokio::test]
async fn a_bank_that_says_no_says_why() {
    let buy = shop();
    let mut said = buy.shape("declined", json!({}));
    said["error"]["payment_intent"] = buy.intent("requires_payment_method");
    let far = FarEnd::that_says([Say::Json(402, said)]).await;
    assert_eq!(far.provider.charge(&buy.ask()).await, Ok(nothing_taken(declined("insufficient_funds"))));
    // Without the intent in the error it is looked for; and if it is nowhere, the answer is still no.
    let say = || Say::Json(402, buy.shape("declined", json!({})));
    let intent = buy.intent("requires_payment_method");
    let far = FarEnd::that_says([say(), list(std::slice::from_ref(&intent), false), ok(intent)]).await;
    assert_eq!(far.provider.charge(&buy.ask()).await, Ok(nothing_taken(declined("insufficient_funds"))));
    assert_eq!(far.lines(), [CREATE, LIST, READ]);
    let far = FarEnd::that_says([say(), list(&[], false)]).await;
    let nameless = Seen { provider_ref: String::new(), ..nothing_taken(declined("insufficient_funds")) };
    assert_eq!(far.provider.charge(&buy.ask()).await, Ok(nameless));
}

#[tokio::test]
async fn a_word_of_the_buyer_s_that_stripe_does_not_take_is_a_decline() {
    // A `pm_` that there is not, and one that was used up or a `tok_`: of those it has no code.
    let (missing, wrong) = (json!("resource_missing"), refused("invalid_request_error"));
    for (code, param, expected) in [
        (missing.clone(), "payment_method", Ok(declined("invalid_token"))),
        (Value::Null, "payment_method", Ok(declined("invalid_token"))),
        (Value::Null, "payment_method_types[]", Err(wrong)),
        (missing, "customer", Err(refused("resource_missing"))),
    ] {
        let mut said = error("invalid_request_error", code);
        said["error"]["param"] = json!(param);
        let far = FarEnd::that_says([Say::Json(400, said)]).await;
        let seen = far.provider.charge(&shop().ask()).await;
        assert_eq!(seen.map(|seen| seen.status), expected, "{param}");
    }
}

#[tokio::test]
async fn what_is_not_decided_is_pending_and_what_nobody_can_follow_is_declined() {
    let buy = shop();
    let far = FarEnd::that_says([ok(buy.intent("processing"))]).await;
    assert_eq!(far.provider.charge(&buy.ask()).await, Ok(nothing_taken(Status::Pending)));
    let far = FarEnd::that_says([ok(buy.intent("requires_action")), ok(buy.intent("canceled"))]).await;
    assert_eq!(far.provider.charge(&buy.ask()).await, Ok(nothing_taken(declined("requires_action"))));
    assert_eq!(far.lines(), [CREATE, CANCEL]);
}

#[tokio::test]
async fn an_answer_lost_before_the_effect() {
    let buy = shop();
    let far = FarEnd::that_says([
        Say::Nothing,
        list(&[], false),
        ok(buy.intent("requires_capture")),
        ok(buy.succeeded()),
    ])
    .await;
    assert_eq!(far.provider.charge(&buy.ask()).await, Err(ProviderError::Unknown));
    assert_eq!(far.provider.find(&buy.ask()).await, Ok(None));
    assert_eq!(far.provider.charge(&buy.ask()).await, Ok(captured()));
    let heard = far.heard();
    assert_eq!(far.lines(), [CREATE, LIST, CREATE, CAPTURE]);
    assert_eq!(
        (heard[0].key(), &heard[0].body),
        (heard[2].key(), &heard[2].body),
        "word for word the same request"
    );
}

#[tokio::test]
async fn an_answer_lost_after_the_effect() {
    let buy = shop();
    let reserved = buy.intent("requires_capture");
    let far = FarEnd::that_says([
        Say::Nothing,
        list(std::slice::from_ref(&reserved), false),
        ok(reserved.clone()),
        Say::Replay(200, reserved.clone()),
        ok(reserved),
        Say::Nothing,
        ok(buy.succeeded()),
    ])
    .await;
    assert_eq!(far.provider.charge(&buy.ask()).await, Err(ProviderError::Unknown));
    // It is only reserved: nothing was taken, and it may be charged.
    assert_eq!(far.provider.find(&buy.ask()).await, Ok(None));
    // The same for the capture, whose answer is lost as well; but not the name.
    assert_eq!(far.provider.charge(&buy.ask()).await, Ok(nothing_taken(Status::Pending)));
    let named = Charge { provider_ref: Some(INTENT), ..buy.ask() };
    assert_eq!(far.provider.find(&named).await, Ok(Some(captured())));
    assert_eq!(far.lines(), [CREATE, LIST, READ, CREATE, READ, CAPTURE, READ]);
}

#[tokio::test]
async fn a_replay_is_not_taken_for_the_state_of_things() {
    let buy = shop();
    let reserved = buy.intent("requires_capture");
    let far = FarEnd::that_says([Say::Replay(200, reserved.clone()), ok(buy.succeeded())]).await;
    assert_eq!(far.provider.charge(&buy.ask()).await, Ok(captured()));
    assert_eq!(far.lines(), [CREATE, READ]);
    // How it stands is not to be heard, but what it is called is.
    let far = FarEnd::that_says([Say::Replay(200, buy.intent("requires_capture")), Say::Nothing]).await;
    assert_eq!(far.provider.charge(&buy.ask()).await, Ok(nothing_taken(Status::Pending)));
}

#[tokio::test]
async fn what_is_certain_is_told_from_what_is_not() {
    let buy = shop();
    let too_long = vec![b' '; 65 << 10];
    for (say, expected) in [
        (Say::Json(429, error("invalid_request_error", json!("rate_limit"))), ProviderError::NotNow),
        (Say::Json(409, error("idempotency_error", json!("idempotency_key_in_use"))), ProviderError::NotNow),
        (Say::Json(500, error("api_error", Value::Null)), ProviderError::Unknown),
        (Say::Raw(503, b"<html>busy</html>".to_vec()), ProviderError::Unknown),
        (
            Say::Json(400, error("invalid_request_error", json!("amount_too_small"))),
            refused("amount_too_small"),
        ),
        // A key that was changed, or may not do this: whoever pays meanwhile waits until it is put right.
        (Say::Json(401, error("invalid_request_error", Value::Null)), ProviderError::NotNow),
        (Say::Json(403, error("invalid_request_error", Value::Null)), ProviderError::NotNow),
        (Say::Raw(404, b"nothing here".to_vec()), refused("status_404")),
        (Say::Raw(302, Vec::new()), refused("status_302")),
        (Say::Raw(200, b"{\"id\":".to_vec()), ProviderError::Unknown),
        (Say::Raw(200, too_long), ProviderError::Unknown),
        (Say::Nothing, ProviderError::Unknown),
    ] {
        let shown = format!("{say:?}").chars().take(60).collect::<String>();
        let far = FarEnd::that_says([say]).await;
        assert_eq!(far.provider.charge(&buy.ask()).await, Err(expected), "{shown}");
        assert_eq!(far.lines(), [CREATE], "once, and nowhere else");
    }
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let provider = crate::far_end::stripe_at(&format!("http://{nobody}"));
    assert_eq!(provider.charge(&buy.ask()).await, Err(ProviderError::NotNow));
}

#[tokio::test]
async fn what_is_reserved_is_no_longer_certainly_not_begun() {
    let buy = shop();
    let busy = || Say::Json(429, error("invalid_request_error", json!("rate_limit")));
    let reserved = || ok(buy.intent("requires_capture"));
    let odd = || Say::Json(400, error("invalid_request_error", json!("payment_intent_unexpected_state")));
    for (after, expected) in [
        (vec![busy()], Ok(nothing_taken(Status::Pending))),
        (vec![odd(), busy()], Ok(nothing_taken(Status::Pending))),
        (vec![odd(), ok(buy.intent("canceled"))], Ok(nothing_taken(Status::Cancelled))),
        (vec![odd(), ok(buy.succeeded())], Ok(captured())),
        (vec![odd(), reserved()], Ok(nothing_taken(Status::Pending))),
    ] {
        let far = FarEnd::that_says([vec![reserved()], after].concat()).await;
        assert_eq!(far.provider.charge(&buy.ask()).await, expected);
        far.heard();
    }
}

#[tokio::test]
async fn a_cancel_is_certain_or_says_so() {
    let buy = shop();
    let named = Charge { provider_ref: Some(INTENT), ..buy.ask() };
    let odd = || Say::Json(400, error("invalid_request_error", json!("payment_intent_unexpected_state")));
    let failure =
        json!({ "status": "requires_payment_method", "last_payment_error": { "code": "expired_card" } });
    for (script, expected) in [
        (
            vec![ok(buy.intent("requires_capture")), ok(buy.intent("canceled"))],
            nothing_taken(Status::Cancelled),
        ),
        (
            vec![ok(buy.shape("intent", failure)), ok(buy.intent("canceled"))],
            nothing_taken(declined("expired_card")),
        ),
        (vec![ok(buy.succeeded())], captured()),
        (vec![ok(buy.intent("canceled"))], nothing_taken(Status::Cancelled)),
        (
            vec![ok(buy.intent("processing")), odd(), ok(buy.intent("processing"))],
            nothing_taken(Status::Pending),
        ),
        (vec![ok(buy.intent("requires_capture")), odd(), ok(buy.succeeded())], captured()),
    ] {
        let far = FarEnd::that_says(script).await;
        assert_eq!(far.provider.cancel(&named).await, Ok(expected));
        assert!(
            far.heard().iter().all(|request| request.key().is_empty()),
            "a first no must not be repeated for a day"
        );
    }
}

#[tokio::test]
async fn a_payment_that_was_never_seen_is_forestalled() {
    let buy = shop();
    let far = FarEnd::that_says([
        list(&[], false),
        ok(buy.intent("requires_payment_method")),
        ok(buy.intent("canceled")),
        // The charge arrives late: its key is used up.
        Say::Json(400, error("idempotency_error", Value::Null)),
        list(&[buy.intent("canceled")], false),
        ok(buy.intent("canceled")),
    ])
    .await;
    assert_eq!(far.provider.cancel(&buy.ask()).await, Ok(nothing_taken(Status::Cancelled)));
    assert_eq!(far.provider.charge(&buy.ask()).await, Ok(nothing_taken(Status::Cancelled)));
    let heard = far.heard();
    assert_eq!(far.lines(), [LIST, CREATE, CANCEL, CREATE, LIST, READ]);
    assert_eq!(heard[1].key(), heard[3].key());
    assert!(
        !heard[1].body.contains("confirm") && !heard[1].body.contains("payment_method="),
        "{}",
        heard[1].body
    );
}

#[tokio::test]
async fn a_charge_that_was_faster_than_its_cancel_is_found() {
    let used_up = || Say::Json(400, error("idempotency_error", Value::Null));
    let buy = shop();
    let won_the_race = [list(&[], false), used_up(), list(&[buy.succeeded()], false), ok(buy.succeeded())];
    let far = FarEnd::that_says(won_the_race).await;
    assert_eq!(far.provider.cancel(&buy.ask()).await, Ok(captured()));
    far.heard();
    // It came, and nothing is to be seen of it: that is believed once it is old.
    for (age, expected) in [(0, Err(ProviderError::Unknown)), (2 * HOUR, Ok(Status::Cancelled))] {
        let buy = Purchase::ago(age);
        let far = FarEnd::that_says([list(&[], false), used_up(), list(&[], false)]).await;
        assert_eq!(far.provider.cancel(&buy.ask()).await.map(|seen| seen.status), expected);
        far.heard();
    }
}

#[tokio::test]
async fn a_key_that_stripe_may_have_forgotten_is_not_relied_on() {
    let buy = Purchase::ago(24 * HOUR);
    let far = FarEnd::that_says([list(&[], false), list(&[], false)]).await;
    assert_eq!(far.provider.charge(&buy.ask()).await, Err(refused("too_late")));
    assert_eq!(far.provider.cancel(&buy.ask()).await.map(|seen| seen.status), Ok(Status::Cancelled));
    assert_eq!(far.lines(), [LIST, LIST], "nothing new is made");
    let reserved = buy.intent("requires_capture");
    let found = [list(std::slice::from_ref(&reserved), false), ok(reserved), ok(buy.succeeded())];
    let far = FarEnd::that_says(found).await;
    assert_eq!(far.provider.charge(&buy.ask()).await, Ok(captured()));
    assert_eq!(far.lines(), [LIST, READ, CAPTURE]);
}

#[tokio::test]
async fn it_is_found_on_the_second_page_and_by_nobody_else_s_name() {
    let (buy, other) = (shop(), shop());
    let foreign = |id: &str| other.shape("intent", json!({ "id": id, "status": "succeeded" }));
    let nothing_of_ours = json!({ "id": "pi_3", "status": "succeeded", "metadata": {} });
    let first = [foreign("pi_1"), foreign("pi_2"), other.shape("intent", nothing_of_ours)];
    let far =
        FarEnd::that_says([list(&first, true), list(&[buy.succeeded()], false), ok(buy.succeeded())]).await;
    // A name that is none is not put into a path.
    let ask = Charge { provider_ref: Some("pi_1/../../refunds"), ..buy.ask() };
    assert_eq!(far.provider.find(&ask).await, Ok(Some(captured())));
    let heard = far.heard();
    let since = buy.ask().started_at.0 / 1_000 - 300;
    // Until the last moment at which it may have been charged: what was sold since is not looked through.
    let until = buy.ask().started_at.0 / 1_000 + 360 + 300 + 1;
    let window = format!("created%5Bgte%5D={since}&created%5Blte%5D={until}&limit=100");
    assert_eq!(heard[0].line, format!("{LIST}?{window}"));
    assert_eq!(heard[1].line, format!("{LIST}?{window}&starting_after=pi_3"));
    assert_eq!(heard[2].line, format!("{READ}?expand%5B%5D=latest_charge"));
}

#[tokio::test]
async fn more_than_can_be_looked_through_is_not_called_absent() {
    let (buy, other) = (shop(), shop());
    let page = || list(&[other.shape("intent", json!({ "id": "pi_1" }))], true);
    // Nothing is left to tell it with; or its key may have been forgotten.
    let old = Purchase::ago(21 * HOUR);
    for ask in [Charge { method: None, ..buy.ask() }, old.ask()] {
        let far = FarEnd::that_says((0..40).map(|_| page())).await;
        assert_eq!(far.provider.find(&ask).await, Err(ProviderError::Unknown));
        assert_eq!(far.lines().len(), 40, "as many as fit into one call");
        let far = FarEnd::that_says((0..40).map(|_| page())).await;
        assert_eq!(far.provider.cancel(&ask).await, Err(ProviderError::Unknown));
        far.heard();
    }
}

/// Forty pages full of others, each time it is looked for.
fn crowd() -> Vec<Say> {
    let other = shop();
    vec![list(&[other.shape("intent", json!({ "id": "pi_1" }))], true); 40]
}

#[tokio::test]
async fn among_too_many_it_is_named_by_its_key() {
    let buy = shop();
    let reserved = buy.intent("requires_capture");
    let script = [
        vec![Say::Nothing],
        crowd(),
        vec![Say::Replay(200, reserved.clone()), ok(reserved), ok(buy.succeeded())],
    ];
    let far = FarEnd::that_says(script.concat()).await;
    assert_eq!(far.provider.charge(&buy.ask()).await, Err(ProviderError::Unknown));
    assert_eq!(far.provider.find(&buy.ask()).await, Ok(None), "it may be told again");
    assert_eq!(far.provider.charge(&buy.ask()).await, Ok(captured()));
    let heard = far.heard();
    assert_eq!(
        (heard[0].key(), &heard[0].body),
        (heard[41].key(), &heard[41].body),
        "word for word the same request"
    );
    assert_eq!(far.lines()[41..], [CREATE, READ, CAPTURE]);
}

#[tokio::test]
async fn among_too_many_it_is_called_off_by_its_key() {
    let buy = shop();
    // It was never made: its key is used up.
    let never_made = vec![ok(buy.intent("requires_payment_method")), ok(buy.intent("canceled"))];
    let far = FarEnd::that_says([crowd(), never_made].concat()).await;
    assert_eq!(far.provider.cancel(&buy.ask()).await, Ok(nothing_taken(Status::Cancelled)));
    assert_eq!(far.lines()[40..], [CREATE, CANCEL]);

    // It was made, and the same request told again names it.
    let used_up = || vec![Say::Json(400, error("idempotency_error", Value::Null))];
    let made = |now: Value| {
        let replay = Say::Replay(200, buy.intent("requires_capture"));
        vec![replay, ok(now)]
    };
    let mut no = buy.shape("declined", json!({}));
    no["error"]["payment_intent"] = buy.intent("requires_payment_method");
    let failure =
        json!({ "status": "requires_payment_method", "last_payment_error": { "code": "expired_card" } });
    let tried = buy.shape("intent", failure);
    for (told, expected) in [
        (made(buy.succeeded()), captured()),
        (
            [made(buy.intent("requires_capture")), vec![ok(buy.intent("canceled"))]].concat(),
            nothing_taken(Status::Cancelled),
        ),
        (
            vec![Say::Replay(402, no), ok(tried), ok(buy.intent("canceled"))],
            nothing_taken(declined("expired_card")),
        ),
    ] {
        let far = FarEnd::that_says([crowd(), used_up(), crowd(), told].concat()).await;
        assert_eq!(far.provider.cancel(&buy.ask()).await, Ok(expected));
        let heard = far.heard();
        assert_eq!(heard[40].key(), heard[81].key());
        assert!(!heard[40].body.contains("confirm") && heard[81].body.contains("confirm=true"));
    }

    // All that is remembered is that they failed: what nobody was ever told of was not captured. That is believed once it is old.
    for (age, expected) in [(0, Err(ProviderError::Unknown)), (2 * HOUR, Ok(Status::Cancelled))] {
        let buy = Purchase::ago(age);
        let failed = vec![Say::Replay(500, error("api_error", Value::Null))];
        let far = FarEnd::that_says([crowd(), used_up(), crowd(), failed].concat()).await;
        assert_eq!(far.provider.cancel(&buy.ask()).await.map(|seen| seen.status), expected);
        far.heard();
    }
}

#[tokio::test]
async fn a_name_that_is_somebody_else_s_is_only_a_hint() {
    let (buy, other) = (shop(), shop());
    let hinted = Charge { provider_ref: Some("pi_1"), ..buy.ask() };
    let theirs = ok(other.shape("intent", json!({ "id": "pi_1", "status": "succeeded" })));
    let far = FarEnd::that_says([theirs, list(&[buy.succeeded()], false), ok(buy.succeeded())]).await;
    assert_eq!(far.provider.find(&hinted).await, Ok(Some(captured())));
    assert_eq!(far.lines(), ["GET /v1/payment_intents/pi_1", LIST, READ]);
}

#[tokio::test]
async fn a_payment_that_stripe_has_named_and_lost_is_not_forgotten() {
    let buy = shop();
    let named = Charge { provider_ref: Some(INTENT), ..buy.ask() };
    let gone = || Say::Json(404, error("invalid_request_error", json!("resource_missing")));
    let far = FarEnd::that_says([gone(), gone(), gone()]).await;
    assert_eq!(far.provider.find(&named).await, Err(ProviderError::Unknown));
    assert_eq!(far.provider.charge(&named).await, Err(ProviderError::Unknown));
    assert_eq!(far.provider.cancel(&named).await, Err(ProviderError::Unknown));
    assert_eq!(far.lines(), [READ, READ, READ]);
}

#[tokio::test]
async fn a_name_that_leads_elsewhere_is_not_followed() {
    let buy = shop();
    let far = FarEnd::that_says([ok(
        buy.shape("intent", json!({ "id": "pi_1/../../refunds?", "status": "requires_capture" }))
    )])
    .await;
    assert_eq!(far.provider.charge(&buy.ask()).await, Err(ProviderError::Unknown));
    assert_eq!(far.lines(), [CREATE]);
}

#[tokio::test]
async fn an_amount_is_told_as_stripe_counts_it() {
    let buy = shop();
    let money = |amount: i64, currency: &str| Money { amount, currency: currency.parse().unwrap() };
    let crowns = json!({ "currency": "isk", "amount": 1_290_000, "amount_received": 1_290_000, "status": "succeeded" });
    let back = buy.shape("refund", json!({ "currency": "isk", "amount": 290_000 }));
    let far = FarEnd::that_says([
        ok(buy.shape("intent", crowns.clone())),
        ok(back.clone()),
        list(&[buy.shape("intent", crowns)], false),
        list(&[back], false),
    ])
    .await;
    let ask = Charge { amount: money(12_900, "ISK"), ..buy.ask() };
    let seen = far.provider.charge(&ask).await.unwrap();
    assert_eq!((seen.amount, seen.captured), (money(12_900, "ISK"), 12_900));
    let back = RefundAsk { amount: money(2_900, "ISK"), ..buy.back(INTENT, 0) };
    assert_eq!(far.provider.refund(&back).await.map(|seen| seen.amount), Ok(money(2_900, "ISK")));
    let since = buy.ask().started_at;
    assert_eq!(far.books.charges(since, None).await.unwrap().entries[0].captured, 12_900);
    assert_eq!(far.books.refunds(since, None).await.unwrap().entries[0].amount, money(2_900, "ISK"));
    let heard = far.heard();
    assert!(heard[0].body.contains("amount=1290000&currency=isk"), "{}", heard[0].body);
    assert!(heard[1].body.contains("amount=290000"), "{}", heard[1].body);
    // What cannot be said there is not asked for.
    let far = FarEnd::that_says([]).await;
    let fils = Charge { amount: money(1_234, "KWD"), ..buy.ask() };
    assert_eq!(far.provider.charge(&fils).await, Err(refused("amount_not_representable")));
    let fils = RefundAsk { amount: money(1_234, "KWD"), ..buy.back(INTENT, 0) };
    assert_eq!(far.provider.refund(&fils).await, Err(refused("amount_not_representable")));
    assert!(far.heard().is_empty());
}
