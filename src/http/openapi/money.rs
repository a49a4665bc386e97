//! What is particular to the doors to money: payments, refunds, and what waits to be undone.

use serde_json::{Value, json};

use super::doors::{Door, body, cursor, header, idempotency_key, limit, query, told};
use super::examples;
use crate::actors::payment::{SIGNATURE_HEADER, Standing};
use crate::http::problem::Code;

const COMPENSATION: &str = "^(pay|ref|apr)_[0-7][0-9a-hjkmnp-tv-z]{25}$";

const SECOND: &str = "Nothing has happened yet: it takes two administrators (`STOCKADE_FOUR_EYES_ABOVE`), and it is done when another one sends \
    the same request within a day, while the session in which this one has asked has not ended.";

const DECIDE: &[Code] =
    &[Code::OrderStateConflict, Code::Overloaded, Code::OwnerUnavailable, Code::OutcomeUnknown];

/// The description of the door with this name.
#[rustfmt::skip]
pub fn of(door: &str) -> Option<Door> {
    Some(match door {
        "payment::pay" => Door {
            body: body("PayRequest", json!({ "method": { "type": "card", "token": "tok_ok" } })),
            parameters: vec![idempotency_key(false)],
            refuses: &[
                Code::PaymentDeclined, Code::OrderStateConflict, Code::HoldExpired, Code::IdempotencyKeyReused,
                Code::RateLimited, Code::Overloaded, Code::OwnerUnavailable, Code::PaymentUnavailable, Code::OutcomeUnknown,
            ],
            ..told("orders", "Pay an order", "While it is held. The hold cannot lapse, and the order cannot be cancelled, while \
                the payment runs. With an Idempotency-Key the same request may be sent again: it is answered as it was first, 202 \
                also when the payment has ended since, with the order as it is now. `payment_declined` carries the order as it is \
                then, and so does what says that it ended while its payment was being begun.")
        }
        .gives(200, "It is paid.", "OrderShown", examples::order("paid"))
        .gives(202, "It is not known yet whether it is taken, and `payment.status` is `unknown`: it is on its way, the provider is asked \
            until it answers, or somebody looks into it. The units stay held meanwhile.", "OrderShown", examples::order("unknown"))
        .with_header(200, "Idempotent-Replayed", "`true` when this key had begun it before.")
        .with_header(202, "Idempotent-Replayed", "`true` when this key had begun it before."),
        "payment::webhook" => Door {
            parameters: vec![header(SIGNATURE_HEADER, true, "The provider's signature over the time and the body.")],
            takes_any_body: true,
            body: body("PaymentEvent", json!({ "id": "evt_1", "type": "payment_intent.succeeded", "data": { "object": {} } })),
            refuses: &[
                Code::InvalidSignature, Code::RateLimited, Code::Overloaded, Code::OwnerUnavailable, Code::OutcomeUnknown,
            ],
            ..told("orders", "News from the payment provider", "Signed by it, and only a hint: how a payment stands is asked of the \
                provider. Duplicates and any order of arrival are harmless.")
        }
        .gives_nothing(200, "Heard, now or before."),
        "payment::give_back" => Door {
            body: body("RefundRequest", json!({ "line": 1, "restock": "to_stock", "reason": "arrived broken" })),
            parameters: vec![idempotency_key(true)],
            refuses: &[
                Code::OrderStateConflict, Code::IdempotencyKeyReused, Code::Overloaded, Code::OwnerUnavailable, Code::OutcomeUnknown,
            ],
            ..told("administration", "Give money back", "A line, an amount, or all that is left; never more than was taken. What \
                becomes of the units is decided separately; those that were left come back with a second refund of their line, with its price or as \
                much of that as is left. A key is needed: giving back twice is not giving back once. Above an amount, of \
                which earlier refunds of the order by hand are a part, it takes two administrators, each with a key of his own: the first \
                hears 202, and who sends the same amount, line and `restock` next, for whatever reason, hears 201. Then it has been given \
                back: whoever is the third within a day hears `order_state_conflict` with the `refund_id`. Of an order 64 wait for a second one at \
                most: then `overloaded`.")
        }
        .gives(201, "The refund. It is tried until the provider has done it.", "RefundShown", Value::Null)
        .with_header(201, "Idempotent-Replayed", "`true` when this key had asked for it before.")
        .gives(202, SECOND, "ApprovalShown", Value::Null)
        .with_header(202, "Idempotent-Replayed", "`true` when this key had asked for it before: it is told as it stands by now."),
        "payment::refunds" => Door {
            refuses: &[Code::OwnerUnavailable],
            ..told("administration", "What goes back of an order", "Oldest first, all on one page.")
        }
        .gives(200, "The refunds.", "RefundPage", Value::Null),
        "payment::compensations" => Door {
            parameters: vec![
                query("state", json!({ "type": "string", "enum": standings() }), "Only those that stand like this."),
                limit(), cursor(COMPENSATION),
            ],
            refuses: &[Code::OwnerUnavailable],
            ..told("administration", "What still waits to be undone", "Payments in doubt, refunds under way, and what a person has to \
                decide, among it what waits for a second administrator (`kind` is `approval`; `pending` where two have asked for it and its \
                refund is not written yet). Oldest first.")
        }
        .gives(200, "A page.", "CompensationPage", Value::Null),
        "payment::retry" => Door {
            parameters: vec![idempotency_key(false)],
            refuses: DECIDE,
            ..told("administration", "Try it again", "At once, instead of at its time. A refund whose `reason` begins with `failed_` is made anew at the provider, \
                which nobody does without being told. What is in review is not tried, but decided: `order_state_conflict`.")
        }
        .gives_nothing(202, "Somebody looks at it now."),
        "payment::accept" => Door {
            parameters: vec![idempotency_key(false)],
            refuses: DECIDE,
            ..told("administration", "Keep what was taken", "For a payment in review: the provider took another amount than was asked \
                for. The order is sold. Deciding the same again is answered with the payment as it is by then. Above an amount, of what was taken \
                or of what was asked for, it takes two.")
        }
        .gives(200, "The payment.", "PaymentFound", Value::Null)
        .gives(202, SECOND, "ApprovalShown", decided("accept", "leave")),
        "payment::return_money" => Door {
            parameters: vec![idempotency_key(false)],
            refuses: DECIDE,
            ..told("administration", "Give back what was taken", "For a payment in review: the units are on sale again, and the money \
                goes back; where a product cannot be reached just now, as soon as it can. Deciding the same again is answered with \
                the payment as it is by then. Above an amount it takes two.")
        }
        .gives(200, "The payment.", "PaymentFound", Value::Null)
        .gives(202, SECOND, "ApprovalShown", decided("give_back", "to_stock")),
        "payment::settle" => Door {
            parameters: vec![idempotency_key(false)],
            refuses: DECIDE,
            ..told("administration", "Say that a refund was given back by hand", "For a refund whose `reason` begins with `failed_`: \
                the provider will not do it, and the money goes back another way, once this is answered: its reason is `settled_by_hand` from then \
                on, and the provider is not asked any more. Above an amount, of which what went back of the order by hand before is a part, it takes \
                two, and this is answered when both have said so.")
        }
        .gives(200, "The refund.", "RefundShown", Value::Null)
        .gives(202, SECOND, "ApprovalShown", settled()),
        _ => return None,
    })
}

/// What waits for a second one who decides about a payment.
fn decided(what: &str, restock: &str) -> Value {
    let mut waits = examples::of("ApprovalShown");
    waits["what"] = json!(what);
    waits["restock"] = json!(restock);
    waits
}

/// The same of a refund that went back another way.
fn settled() -> Value {
    let mut waits = decided("settle", "to_stock");
    waits["refund_id"] = json!(examples::REFUND);
    waits
}

fn standings() -> Vec<&'static str> {
    Standing::ALL.iter().map(|standing| standing.as_str()).collect()
}
