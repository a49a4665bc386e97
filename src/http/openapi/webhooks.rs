//! What is particular to the doors of webhooks, and what is told to endpoints.

use serde_json::{Map, Value, json};

use super::doors::{Door, body, cursor, idempotency_key, limit, query, told};
use crate::domain::webhook::EventKind;
use crate::http::problem::Code;
use crate::persistence::webhook::DeliveryState;

const ENDPOINT: &str = "^whe_[0-7][0-9a-hjkmnp-tv-z]{25}$";
const DELIVERY: &str = "^whd_[0-7][0-9a-hjkmnp-tv-z]{25}$";

const READ: &[Code] = &[Code::OwnerUnavailable];
const WRITE: &[Code] = &[Code::OwnerUnavailable, Code::OutcomeUnknown];
const KEYED: &[Code] =
    &[Code::OrderStateConflict, Code::IdempotencyKeyReused, Code::OwnerUnavailable, Code::OutcomeUnknown];

/// The description of the door with this name.
#[rustfmt::skip]
pub fn of(door: &str) -> Door {
    match door {
        "webhook_endpoint::list" => Door {
            parameters: vec![limit(), cursor(ENDPOINT)],
            refuses: READ,
            ..told("administration", "Webhook endpoints", "Newest first.")
        }
        .gives(200, "A page.", "EndpointPage", Value::Null),
        "webhook_endpoint::register" => Door {
            body: body("EndpointRequest", json!({ "url": "https://hooks.example.com/stockade", "events": ["order.paid", "stock.sold_out"] })),
            parameters: vec![idempotency_key(false)],
            refuses: KEYED,
            ..told("administration", "Register a webhook endpoint", "From now on it is told these events, signed after Standard \
                Webhooks with the secret in the answer, which is not shown again (but to the same Idempotency-Key). Only addresses that \
                everybody can reach are called.")
        }
        .gives(201, "The endpoint and its secret.", "EndpointShown", with_secret(None))
        .with_header(201, "Idempotent-Replayed", "`true` when the key had registered it before."),
        "webhook_endpoint::change" => Door {
            body: body("EndpointPatch", json!({ "enabled": true })),
            refuses: WRITE,
            ..told("administration", "Change a webhook endpoint", "What it is told, its description, and whether it is told \
                anything. What happens while it is disabled is not told to it later; what waited already is.")
        }
        .gives(200, "The endpoint.", "EndpointShown", Value::Null),
        "webhook_endpoint::remove" => Door {
            refuses: WRITE,
            ..told("administration", "Remove a webhook endpoint", "With its secrets and its deliveries.")
        }
        .gives_nothing(204, "It is gone."),
        "webhook_endpoint::rotate" => Door {
            parameters: vec![idempotency_key(false)],
            refuses: KEYED,
            ..told("administration", "Another secret for an endpoint", "For 24 hours the secrets before it sign as well: each \
                webhook carries a signature of each.")
        }
        .gives(200, "The endpoint and its new secret.", "EndpointShown", with_secret(Some("2026-10-31T09:00:00.250Z")))
        .with_header(200, "Idempotent-Replayed", "`true` when the key had made this secret before."),
        "webhook_endpoint::deliveries" => Door {
            parameters: vec![
                query("state", json!({ "type": "string", "enum": states() }), "Only deliveries in this state; `dead` are those that were given up."),
                limit(), cursor(DELIVERY),
            ],
            refuses: READ,
            ..told("administration", "Deliveries to an endpoint", "Newest first. What arrived is kept for a week, what did not for \
                thirty days.")
        }
        .gives(200, "A page.", "DeliveryPage", Value::Null),
        "webhook_endpoint::replay" => Door {
            parameters: vec![idempotency_key(false)],
            refuses: WRITE,
            ..told("administration", "Send a delivery again", "Under the same webhook-id, as if for the first time. One that waits \
                is left as it is.")
        }
        .gives(202, "The delivery, which waits to be sent; or as it is by now, where the key had it sent again before.", "DeliveryShown", Value::Null)
        .with_header(202, "Idempotent-Replayed", "`true` when this key had it sent again before."),
        _ => Door::default(),
    }
}

/// What is told, as OpenAPI describes it.
pub fn told_to_endpoints() -> Map<String, Value> {
    EventKind::ALL.iter().map(|kind| (kind.as_str().to_owned(), event(*kind))).collect()
}

fn event(kind: EventKind) -> Value {
    let header = |name: &str, about: &str| json!({ "name": name, "in": "header", "required": true, "description": about, "schema": { "type": "string" } });
    json!({ "post": {
        "operationId": format!("told_{}", kind.as_str().replace('.', "_")),
        "tags": ["administration"],
        "summary": kind.as_str(),
        "description": "Sent to endpoints that asked for it: at least once, in no order that is promised. Any answer with a status \
            of 200 to 299 within five seconds takes it.",
        "parameters": [
            header("webhook-id", "What happened; the same at every try. Whoever has seen it before has heard it before."),
            header("webhook-timestamp", "When this try was made, in seconds since 1970."),
            header("webhook-signature", "`v1,` and the base64 HMAC-SHA256 of id, timestamp and body with points between; one for each \
                secret, with spaces between."),
        ],
        "requestBody": {
            "required": true,
            "content": { "application/json": { "schema": {
                "type": "object",
                "required": ["type", "timestamp", "data"],
                "properties": {
                    "type": { "type": "string", "const": kind.as_str() },
                    "timestamp": { "type": "string", "format": "date-time" },
                    "data": data(kind),
                },
            }, "example": super::examples::told_to_endpoints(kind.as_str()) } },
        },
        "responses": { "204": { "description": "Taken." } },
    } })
}

fn data(kind: EventKind) -> Value {
    let (word, number) = (json!({ "type": "string" }), json!({ "type": "integer", "minimum": 0 }));
    let object = |properties: Value| {
        let names: Vec<&String> = properties.as_object().into_iter().flat_map(Map::keys).collect();
        json!({ "type": "object", "required": names, "properties": properties })
    };
    match kind {
        EventKind::StockChanged => object(json!({
            "product_id": word, "sequence": number, "available": number, "held": number, "sold": number,
        })),
        EventKind::StockSoldOut | EventKind::StockBack => {
            object(json!({ "product_id": word, "sequence": number, "available": number }))
        }
        EventKind::OrderPlaced
        | EventKind::OrderPaid
        | EventKind::OrderPaymentFailed
        | EventKind::OrderExpired
        | EventKind::OrderCancelled
        | EventKind::OrderReturned
        | EventKind::OrderClosed => object(json!({
            "order_id": word, "user_id": word, "status": word, "total": super::reference("Money"),
            "lines": { "type": "array", "items": object(json!({ "product_id": word, "quantity": number })) },
        })),
    }
}

fn states() -> Vec<&'static str> {
    DeliveryState::ALL.iter().map(|state| state.as_str()).collect()
}

fn with_secret(former_until: Option<&str>) -> Value {
    let mut endpoint = super::examples::of("EndpointShown");
    endpoint["secret"] = json!("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    if let Some(until) = former_until {
        endpoint["former_secret_until"] = json!(until);
    }
    endpoint
}
