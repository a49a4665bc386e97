//! What answers look like: one example for each schema that a door gives, and one for each problem.
//!
//! A test holds every one of them against its schema.

use serde_json::{Map, Value, json};

use crate::http::problem::Code;

pub const PRODUCT: &str = "prod_01h455vb4pex5vsknk084sn02q";
pub const ORDER: &str = "order_01jbeq9h0wfx3tq4r2n6d8v5ka";
pub const USER: &str = "user_01j2c5m8k4e7rspqa1b3c5d7e9";
pub const SESSION: &str = "sess_01jbeq3v5yfa8r2m4n6p8q0s2t";
pub const PAYMENT: &str = "pay_01jbeq9j4tf6v8w0x2y4z6a8b0";
pub const REFUND: &str = "ref_01jbhx5m2re3t5v7w9x1y3z5a7";
const APPROVAL: &str = "apr_01jbeqb2d4f6g8h0j2k4m6n8p0";
pub const ENDPOINT: &str = "whe_01jb8k2d4yf6h8j0k2m4n6p8q0";
pub const DELIVERY: &str = "whd_01jbeqa1c3e5f7g9h1j3k5m7n9";
pub const REQUEST_ID: &str = "5f0c2a9d31b74e86a1c05d7e";
pub const TRACEPARENT: &str = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01";
const EVENT: &str = "evt_01jbeq9x8wf0r2s4t6v8w0x2y4";

const PLACED_AT: &str = "2026-10-30T09:00:00.250Z";
const LATER: &str = "2026-10-30T09:00:01.120Z";
const NEXT_DAY: &str = "2026-10-31T00:00:00.000Z";

/// The example of the schema with this name; null if it has none.
pub fn of(schema: &str) -> Value {
    if let Some(row) = row_of(schema) {
        return json!({ "data": [of(row)], "next_cursor": null });
    }
    match schema {
        "Accepted" => json!({ "detail": "If this can be done, a letter with a link is on its way." }),
        "AccountShown" => json!({
            "id": USER, "state": "verified", "role": "shopper", "verified_at": "2026-10-01T08:03:11.000Z",
            "created_at": "2026-10-01T08:00:00.000Z", "updated_at": "2026-10-01T08:03:11.000Z",
        }),
        "ApprovalShown" => json!({
            "id": APPROVAL, "waiting_for": "second_administrator", "what": "refund", "order_id": ORDER, "payment_id": PAYMENT,
            "refund_id": null, "line": null, "amount": won(39_800), "restock": "leave", "asked_by": USER, "asked_at": LATER,
            "until": "2026-10-31T09:00:01.120Z", "seconded_by": null, "seconded_at": null,
        }),
        "CartShown" => cart(),
        "CompensationShown" => json!({
            "id": PAYMENT, "kind": "payment", "state": "pending", "order_id": ORDER, "payment_id": PAYMENT,
            "why": "unknown", "amount": won(39_800), "tries": 2, "since": LATER, "next_try_at": "2026-10-30T09:00:05.120Z",
            "approval": null,
        }),
        "DeliveryShown" => json!({
            "id": DELIVERY, "endpoint_id": ENDPOINT, "event_id": EVENT, "type": "order.paid", "state": "waiting",
            "tries": 1, "last_status": 500, "last_error": null, "next_try_at": "2026-10-30T09:00:06.120Z",
            "created_at": LATER, "updated_at": LATER,
        }),
        "EndpointShown" => json!({
            "id": ENDPOINT, "url": "https://hooks.example.com/stockade", "events": ["order.paid", "stock.sold_out"],
            "description": "", "state": "enabled", "disabled_reason": null, "failing_since": null,
            "created_at": "2026-10-29T12:00:00.000Z", "updated_at": "2026-10-29T12:00:00.000Z",
        }),
        "Export" => export(),
        "Health" => json!({ "status": "ready", "reasons": [], "degraded": [] }),
        "JobShown" => json!({
            "name": "deliveries", "schedule": "0 0 * * *", "next_at": "2026-11-01T00:00:00.000Z", "running": false,
            "running_since": null, "last_run": of("RunShown"),
        }),
        "Movement" => json!({
            "sequence": 17, "at": PLACED_AT, "kind": "held", "order_id": ORDER, "quantity": 2, "on_hand": 100,
            "available": 83, "held": 17, "sold": 0,
        }),
        "NobodySwitched" => json!({
            "account": null,
            "detail": "No account has this id. A suspension ends tokens that were signed for it offline, and nothing else.",
        }),
        "NodeShown" => json!({
            "id": "0123456789abcdef0123456789abcdef", "state": "active", "role": "lead", "roles": ["owner", "gateway"],
            "address": "10.0.0.7:8082", "session": 4, "shards": 1024, "products_loaded": 12, "hot": [PRODUCT], "silent_ms": 120,
        }),
        "OrderFound" => {
            let mut found = order("pending_payment");
            found["buyer_id"] = json!(USER);
            found
        }
        "OrderShown" => order("pending_payment"),
        "PaymentFound" => payment("paid"),
        "Preview" => json!({
            "lines": [{
                "product_id": PRODUCT, "sku": "JAR-MOON-01", "name": "Moon jar", "quantity": 2, "unit_price": won(19_900),
                "amount": won(39_800), "available": 83, "short": 0, "sale_state": "open",
            }],
            "total": won(39_800), "address": address(), "orderable": true,
        }),
        "ProductFound" => {
            let mut found = product();
            for (name, value) in [
                ("archived", json!(false)),
                ("on_hand", json!(100)),
                ("held", json!(17)),
                ("sold", json!(0)),
                ("created_at", json!("2026-10-29T12:00:00.000Z")),
                ("updated_at", json!("2026-10-29T12:00:00.000Z")),
            ] {
                found[name] = value;
            }
            found
        }
        "ProductShown" => product(),
        "ProfileShown" => json!({
            "id": USER, "email": "mina@example.com", "name": "Mina Park", "phone": "+821012345678", "address": address(),
            "role": "shopper", "created_at": "2026-10-01T08:00:00.000Z", "updated_at": "2026-10-01T08:03:11.000Z",
        }),
        "RefundShown" => json!({
            "id": REFUND, "payment_id": PAYMENT, "order_id": ORDER, "cause": "clerk", "amount": won(19_900),
            "restock": "to_stock", "state": "wanted", "reason": null, "tries": 0, "next_try_at": LATER,
            "created_at": LATER, "updated_at": LATER,
        }),
        "RunShown" => json!({
            "scheduled_at": NEXT_DAY, "began_at": "2026-10-31T00:00:00.012Z", "ended_at": "2026-10-31T00:00:01.480Z",
            "outcome": "done", "by_hand": false, "dry_run": false, "seen": 1200, "moved": 1180, "failed": 0, "problems": [],
        }),
        "SessionShown" => json!({
            "id": SESSION, "device": "Firefox on Linux", "current": true, "bound": false,
            "created_at": "2026-10-30T08:55:00.000Z", "last_used_at": "2026-10-30T08:55:00.000Z",
        }),
        "StockChanged" => json!({
            "product_id": PRODUCT, "sequence": 18, "on_hand": 200, "available": 183, "held": 17, "sold": 0,
        }),
        "StockShown" => json!({ "available": 83, "held": 17, "sold": 0, "sequence": 17, "as_of": PLACED_AT }),
        "TokensShown" => json!({
            "access_token": "head.claims.signature", "token_type": "Bearer", "expires_in": 900,
            "refresh_token": format!("{SESSION}_bm90LXlvdXJz.bm9ib2R5"), "refresh_expires_in": 2_592_000,
            "bound": false,
        }),
        _ => Value::Null,
    }
}

/// The id of what a path is about.
pub fn subject_of(path: &str) -> &'static str {
    let subjects = [
        ("/v1/admin/webhook-endpoints/deliveries/", DELIVERY),
        ("/v1/admin/webhook-endpoints/", ENDPOINT),
        ("/v1/admin/compensations/{id}/settle", REFUND),
        ("/v1/admin/compensations/", PAYMENT),
        ("/v1/admin/users/", USER),
        ("/v1/sessions/", SESSION),
        ("/v1/orders/", ORDER),
        ("/v1/admin/orders/", ORDER),
    ];
    subjects.iter().find(|(begin, _)| path.starts_with(begin)).map_or(PRODUCT, |(_, id)| id)
}

/// What the rows of a page are.
pub fn row_of(page: &str) -> Option<&'static str> {
    super::PAGES.iter().find(|(name, _)| *name == page).map(|(_, row)| *row)
}

/// An order in this state.
pub fn order(status: &str) -> Value {
    let (line, delivery, payment) = match status {
        "paid" => ("ordered", json!("preparing"), payment("paid")),
        "cancelled" => ("cancelled", Value::Null, payment("refunding")),
        "unknown" => ("held", Value::Null, payment("unknown")),
        "declined" => ("released", Value::Null, payment("declined")),
        "return_requested" => ("return_requested", json!("delivered"), payment("paid")),
        _ => ("held", Value::Null, Value::Null),
    };
    let of_order = match status {
        "unknown" => "pending_payment",
        "declined" => "payment_failed",
        "return_requested" => "paid",
        status => status,
    };
    let total = if status == "cancelled" { 0 } else { 39_800 };
    let delivered_at =
        if status == "return_requested" { json!("2026-11-01T00:00:00.000Z") } else { Value::Null };
    json!({
        "id": ORDER,
        "status": of_order,
        "lines": [{
            "line": 1,
            "product_id": PRODUCT,
            "sku": "JAR-MOON-01",
            "name": "Moon jar",
            "quantity": 2,
            "unit_price": won(19_900),
            "status": line,
            "delivery_status": delivery,
            "delivered_at": delivered_at,
            "receipt": { "sequence": 17 },
        }],
        "total": won(total),
        "hold_expires_at": "2026-10-30T09:10:00.250Z",
        "payment": payment,
        "created_at": PLACED_AT,
        "updated_at": PLACED_AT,
    })
}

fn payment(status: &str) -> Value {
    let refunded = if status == "refunding" { 39_800 } else { 0 };
    let mut payment = json!({
        "id": PAYMENT, "status": status, "amount": won(39_800), "refunded": won(refunded), "attempt": 1,
    });
    if status == "declined" {
        payment["reason"] = json!("card_declined");
    }
    payment
}

pub fn won(amount: i64) -> Value {
    json!({ "amount": amount, "currency": "KRW" })
}

pub fn address() -> Value {
    json!({
        "recipient": null, "line1": "Teheran-ro 152", "line2": null, "city": "Seoul", "region": null,
        "postal_code": "06236", "country": "KR",
    })
}

fn product() -> Value {
    json!({
        "id": PRODUCT, "sku": "JAR-MOON-01", "name": "Moon jar", "description": "White porcelain, thrown by hand.",
        "price": won(19_900), "thumbnail_url": null, "image_url": "/pictures/moon-jar.jpg", "tags": ["new"],
        "stock": { "available": 83, "sold_out": false, "as_of": PLACED_AT },
        "sale": {
            "opens_at": "2026-10-30T09:00:00.000Z", "closes_at": null, "per_customer_limit": 2, "hold_seconds": 600,
            "state": "open",
        },
    })
}

fn cart() -> Value {
    json!({
        "lines": [{
            "product_id": PRODUCT, "sku": "JAR-MOON-01", "name": "Moon jar", "thumbnail_url": null, "quantity": 2,
            "unit_price": won(19_900), "subtotal": won(39_800), "available": 83, "short": 0, "sale_state": "open",
            "opens_at": "2026-10-30T09:00:00.000Z", "orderable": true, "added_at": PLACED_AT,
        }],
        "subtotal": won(39_800), "total": won(39_800), "mixed_currencies": false, "subtotals": [won(39_800)],
        "orderable": true, "version": 1, "updated_at": PLACED_AT,
    })
}

fn export() -> Value {
    json!({
        "profile": of("ProfileShown"), "new_email": null, "locale": "en", "verified_at": "2026-10-01T08:03:11.000Z",
        "sessions": [of("SessionShown")],
        "orders": [order("paid")],
        "payments": [{
            "id": PAYMENT, "order_id": ORDER, "attempt": 1, "state": "paid", "amount": won(39_800), "captured": won(39_800),
            "refunded": won(0), "reason": null, "provider_ref": "ch_1", "created_at": LATER, "updated_at": LATER,
        }],
        "refunds": [],
        "deliveries": [{
            "order_id": ORDER, "line": 1, "state": "preparing", "paid_at": LATER, "shipped_at": null, "delivered_at": null,
            "return_requested_at": null, "reason": null,
        }],
        "trail": [{ "at": LATER, "deed": "data_exported", "by": "oneself", "detail": format!("session={SESSION}") }],
        "trail_is_whole": true,
        "wishes": [{ "product_id": PRODUCT, "added_at": PLACED_AT }],
        "cart": { "lines": [{ "product_id": PRODUCT, "quantity": 2, "added_at": PLACED_AT }], "updated_at": PLACED_AT },
        "order_addresses": [{ "order_id": ORDER, "address": address() }],
    })
}

/// The problem with this code, with the numbers that explain it.
pub fn problem(code: Code) -> Value {
    let (instance, detail, facts) = told(code);
    let mut problem = json!({
        "type": format!("urn:stockade:problem:{}", code.word()),
        "title": code.title(),
        "status": code.status(),
        "code": code.word(),
        "detail": detail,
        "instance": instance,
        "request_id": REQUEST_ID,
    });
    let facts = facts.as_object().cloned().unwrap_or_else(Map::new);
    for (name, fact) in facts {
        problem[name] = fact;
    }
    problem
}

/// Where it is told, in which sentence, and with which facts.
#[rustfmt::skip]
fn told(code: Code) -> (&'static str, &'static str, Value) {
    let none = Value::Null;
    let of_line = || json!({ "line": 1, "delivery_status": "shipping", "shipped_at": NEXT_DAY });
    match code {
        Code::MalformedJson => ("/v1/orders", "The body is not JSON (line 1, column 2).", none),
        Code::InvalidSignature =>
            ("/v1/payments/webhook", "This is not taken for the payment provider's word.", json!({ "reason": "wrong" })),
        Code::InvalidDpopProof => ("/v1/sessions/refresh", "The proof is not valid: its iat is more than 60 seconds ago, or more than 5 seconds ahead.",
            json!({ "reason": "stale" })),
        Code::Unauthenticated => ("/v1/orders", "Send Authorization: Bearer <access token>.", none),
        Code::TokenExpired => ("/v1/orders", "Get a new access token.", none),
        Code::PaymentDeclined => ("/v1/orders", "Nothing was charged, or what was charged goes back.",
            json!({ "reason": "card_declined", "order": order("declined") })),
        Code::Forbidden => ("/v1/admin/products", "Only an administrator may do this.", none),
        Code::EmailNotVerified => ("/v1/sessions",
            "Follow the link in the letter first; POST /v1/users/verify/resend sends another.", none),
        Code::ReauthenticationRequired => ("/v1/users/me/export",
            "Log in again (POST /v1/sessions) and ask with that token: a refreshed one does not count.",
            json!({ "logged_in_at": "2026-10-30T08:00:00.000Z", "max_age_seconds": 900 })),
        Code::NotFound => ("/v1/orders/order_01jbeq9h0wfx3tq4r2n6d8v5ka", "There is no such order.", none),
        Code::MethodNotAllowed => ("/v1/orders", "This path has other methods: see Allow.", none),
        Code::RequestTimeout => ("/v1/orders", "The body did not come within 10 seconds.", none),
        Code::SoldOut => ("/v1/orders", "Fewer units are available than were asked for.",
            json!({ "product_id": PRODUCT, "available": 1, "requested": 2, "sequence": 99 })),
        Code::SaleNotOpen => ("/v1/orders", "The sale of this product opens later.",
            json!({ "product_id": PRODUCT, "opens_at": "2026-10-30T09:00:00.000Z", "sequence": 1 })),
        Code::SaleClosed => ("/v1/orders", "The sale of this product is over.",
            json!({ "product_id": PRODUCT, "closed_at": "2026-10-30T21:00:00.000Z", "sequence": 99 })),
        Code::SalePaused => ("/v1/orders", "The sale of this product is paused.",
            json!({ "product_id": PRODUCT, "sequence": 41 })),
        Code::CustomerLimitExceeded => ("/v1/orders",
            "Together with what you hold or bought it is more than one customer may have.",
            json!({ "product_id": PRODUCT, "limit": 2, "has": 1, "requested": 2, "sequence": 18 })),
        Code::OrderStateConflict => ("/v1/orders/order_01jbeq9h0wfx3tq4r2n6d8v5ka/cancel", "The order was cancelled already.", none),
        Code::NotCancellable => ("/v1/orders/order_01jbeq9h0wfx3tq4r2n6d8v5ka/lines/1/cancel",
            "The line has left the house. Send it back when it has arrived.", of_line()),
        Code::NotReturnable => ("/v1/orders/order_01jbeq9h0wfx3tq4r2n6d8v5ka/lines/1/return", "The line has not arrived yet.", of_line()),
        Code::PriceChanged => ("/v1/orders", "The order costs something else than expected.",
            json!({ "expected": won(39_800), "actual": won(41_000) })),
        Code::PhoneTaken => ("/v1/users/me", "Somebody else has this number.", none),
        Code::IdempotencyInProgress => ("/v1/orders", "Ask again in a moment to hear how it ended.", none),
        Code::HoldExpired => ("/v1/orders/order_01jbeq9h0wfx3tq4r2n6d8v5ka/payment",
            "The hold has expired; its units are available again.", json!({ "sequence": 64 })),
        Code::LinkExpired => ("/v1/users/verify",
            "The link was used or has expired. If the account still has to be verified and no other letter comes, ask for one: POST /v1/users/verify/resend, or sign up again.", none),
        Code::PreconditionFailed => ("/v1/admin/products/prod_01h455vb4pex5vsknk084sn02q",
            "The product has changed since this ETag: read it again.", none),
        Code::HeadTooLarge => ("/v1/products", "The path and the headers have at most 16,384 bytes.", json!({ "limit": 16_384 })),
        Code::PayloadTooLarge => ("/v1/orders", "A body has at most 65,536 bytes.", json!({ "limit": 65_536 })),
        Code::UnsupportedMediaType => ("/v1/orders", "Send the body with Content-Type: application/json.", none),
        Code::ValidationFailed => ("/v1/orders", "A field is not valid.", json!({ "errors": [
            { "pointer": "/items/0/quantity", "detail": "invalid value: integer `0`, expected an integer from 1 to 1000" },
        ] })),
        Code::IdempotencyKeyReused => ("/v1/orders", "This Idempotency-Key came before, with another body.",
            json!({ "order_id": ORDER })),
        Code::PreconditionRequired => ("/v1/admin/products/prod_01h455vb4pex5vsknk084sn02q",
            "Send If-Match with the ETag of the product you have read.", none),
        Code::RateLimited => ("/v1/orders", "This buyer tries too often.", json!({ "limit": 200 })),
        Code::Internal => ("/v1/orders", "It is in our log under the request's id.", none),
        Code::Overloaded => ("/v1/orders", "Too much is waiting. Nothing was done: try again.", none),
        Code::OwnerUnavailable => ("/v1/orders", "Nothing was done: try again.", none),
        Code::PaymentUnavailable => ("/v1/orders", "The order has ended: the payment provider cannot be used now. Order again in a while, with another key.",
            json!({ "reason": "provider_refused" })),
        Code::OutcomeUnknown => ("/v1/orders",
            "It may have been done. Ask again with the same Idempotency-Key to hear the truth.", none),
    }
}

/// What an endpoint is told.
pub fn told_to_endpoints(kind: &str) -> Value {
    let data = match kind {
        "stock.changed" => {
            json!({ "product_id": PRODUCT, "sequence": 17, "available": 83, "held": 17, "sold": 0 })
        }
        "stock.sold_out" => json!({ "product_id": PRODUCT, "sequence": 99, "available": 0 }),
        "stock.back" => json!({ "product_id": PRODUCT, "sequence": 104, "available": 2 }),
        of_order => {
            let status = match of_order.trim_start_matches("order.") {
                "placed" => "pending_payment",
                status => status,
            };
            let lines = json!([{ "product_id": PRODUCT, "quantity": 2 }]);
            json!({ "order_id": ORDER, "user_id": USER, "status": status, "total": won(39_800), "lines": lines })
        }
    };
    json!({ "type": kind, "timestamp": LATER, "data": data })
}
