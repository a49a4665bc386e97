//! What is particular to each door: its words, what it takes, what it gives, and why it may say no.

use serde_json::{Value, json};

use super::{cart, examples, headers, jobs, lookup, money, nodes, people, reference, text_header};
use crate::http::problem::Code;

/// A body by the name of its schema.
pub struct Body {
    pub schema: &'static str,
    pub example: Value,
}

/// One door.
#[derive(Default)]
pub struct Door {
    pub tag: &'static str,
    pub summary: &'static str,
    pub about: &'static str,
    pub parameters: Vec<Value>,
    pub body: Option<Body>,
    pub gives: Vec<(u16, Value)>,
    pub refuses: &'static [Code],
    /// Its body is signed, and read as it is.
    pub takes_any_body: bool,
    /// A 409 may say when to come back.
    pub conflict_passes: bool,
}

pub(super) const ORDER: &str = "^order_[0-7][0-9a-hjkmnp-tv-z]{25}$";

pub(super) const BUSY: &[Code] = &[Code::Overloaded, Code::OwnerUnavailable];
const WRITE: &[Code] =
    &[Code::Overloaded, Code::OwnerUnavailable, Code::OutcomeUnknown, Code::OrderStateConflict];

/// The description of the door with this name.
pub fn of(door: &str) -> Door {
    match door {
        "order::place" => Door {
            body: order_body(),
            parameters: vec![idempotency_key(false)],
            refuses: &[
                Code::NotFound, Code::SoldOut, Code::SaleNotOpen, Code::SaleClosed, Code::SalePaused,
                Code::CustomerLimitExceeded, Code::PriceChanged, Code::OrderStateConflict, Code::IdempotencyInProgress,
                Code::IdempotencyKeyReused, Code::HoldExpired, Code::PaymentDeclined, Code::RateLimited, Code::Overloaded,
                Code::OwnerUnavailable, Code::PaymentUnavailable, Code::OutcomeUnknown,
            ],
            ..told("orders", "Place an order", "Holds every line or none, in order of arrival at each product. With an \
                Idempotency-Key the same request may be sent again: it hears of the same order. With `payment` it also pays, \
                and hears how that ended: `payment_declined` carries the order as it is then, and so does `hold_expired`, or \
                `order_state_conflict`, where it ended before its payment had begun. Sent again it is answered as it was first, \
                whatever has become of the payment since, with the order as it is now. With `address` it goes there instead of to \
                the account's address; that needs an account.")
        }
        .gives(201, "The order; its units are held, or with `payment` sold.", "OrderShown", Value::Null)
        .gives(202, "The order. It is not known yet whether its payment is taken, and `payment.status` is `unknown`.", "OrderShown",
            examples::order("unknown"))
        .with_header(202, "Idempotent-Replayed", "`true` when the key had made this order before.")
        .with_header(201, "Idempotent-Replayed", "`true` when the key had made this order before."),
        "order::preview" => Door {
            body: body("PreviewRequest", json!({ "items": [item()] })),
            refuses: &[
                Code::NotFound, Code::RateLimited, Code::Overloaded, Code::OwnerUnavailable, Code::OutcomeUnknown,
            ],
            ..told("orders", "What an order would cost", "Prices, what would be short, and where it would go, as of now. \
                Nothing is held. It counts as a try, as an order does.")
        }
        .gives(200, "What it would cost.", "Preview", Value::Null),
        "order::list" => Door {
            parameters: vec![
                query("status", json!({ "type": "string", "enum": statuses() }), "Only orders in this state."),
                limit(), cursor(ORDER),
            ],
            refuses: BUSY,
            ..told("orders", "One's orders", "Newest first.")
        }
        .gives(200, "A page.", "OrderPage", Value::Null),
        "order::find" => Door { refuses: BUSY, ..told("orders", "One order", "Readable from the moment it is acknowledged.") }
            .gives(200, "The order as it is now.", "OrderShown", Value::Null),
        "order::cancel" => Door {
            parameters: vec![idempotency_key(false)],
            refuses: &[
                Code::OrderStateConflict, Code::NotCancellable, Code::HoldExpired, Code::IdempotencyKeyReused,
                Code::IdempotencyInProgress, Code::Overloaded, Code::OwnerUnavailable, Code::OutcomeUnknown,
            ],
            ..told("orders", "Cancel an order", "While it is held, or paid and none of its lines has shipped; not while a payment \
                runs. Its units are available again at once, and what was paid goes back.")
        }
        .gives(200, "The cancelled order.", "OrderShown", examples::order("cancelled"))
        .with_header(200, "Idempotent-Replayed", "`true` when this key had cancelled it before."),
        "delivery::cancel" => Door {
            parameters: vec![idempotency_key(false)],
            refuses: &[
                Code::OrderStateConflict, Code::NotCancellable, Code::IdempotencyKeyReused, Code::Overloaded,
                Code::OwnerUnavailable, Code::OutcomeUnknown,
            ],
            ..told("orders", "Cancel a line", "Of a paid order, before that line ships. Its units are available again at once, and \
                what was paid for it goes back; the other lines go on.")
        }
        .gives(200, "The order.", "OrderShown", examples::order("cancelled"))
        .with_header(200, "Idempotent-Replayed", "`true` when this key had cancelled it before."),
        "delivery::send_back" => Door {
            body: body("ReturnRequest", json!({ "reason": "too small" })),
            parameters: vec![idempotency_key(false)],
            refuses: &[
                Code::OrderStateConflict, Code::NotReturnable, Code::IdempotencyKeyReused, Code::Overloaded,
                Code::OwnerUnavailable, Code::OutcomeUnknown,
            ],
            ..told("orders", "Send a line back", "Once it has been delivered, and not later than two days after that. The next run \
                takes it in: then its units are available again, and what was paid for it goes back.")
        }
        .gives(200, "The order.", "OrderShown", examples::order("return_requested"))
        .with_header(200, "Idempotent-Replayed", "`true` when this key had sent it back before."),
        "product::list" => Door {
            parameters: vec![
                lookup::by_name(), lookup::by_ids(), lookup::by_tag(), lookup::only_available(),
                limit(), cursor(lookup::PLACE), header("If-None-Match", false, "ETags that are known already."),
            ],
            refuses: BUSY,
            ..told("products", "Products", "Newest first, with `q` by name; archived ones are not listed. A page may be short \
                though more follows: only a `next_cursor` that is null ends the list.")
        }
        .gives(200, "A page.", "ProductPage", Value::Null)
        .with_header(200, "ETag", "Weak; changes with text, settings and stock of any product on the page.")
        .gives_nothing(304, "It is as it was.")
        .with_header(304, "ETag", "The one that was sent.")
        .revalidated(),
        "product::find" => Door {
            parameters: vec![header("If-None-Match", false, "ETags that are known already.")],
            refuses: BUSY,
            ..told("products", "One product", "With its stock and the state of its sale.")
        }
        .gives(200, "The product.", "ProductShown", Value::Null)
        .with_header(200, "ETag", "Weak; changes with text, settings and stock.")
        .gives_nothing(304, "It is as it was.")
        .with_header(304, "ETag", "The one that was sent.")
        .revalidated(),
        "product::stock" => Door { refuses: BUSY, ..told("products", "One product's stock", "At most one flush old.") }
            .gives(200, "Its counters.", "StockShown", Value::Null),
        "product::stream" => Door {
            parameters: vec![header("Last-Event-ID", false, "The sequence that was seen last.")],
            refuses: BUSY,
            ..told("products", "One product's stock as it changes", "Server-sent events, at most ten a second; each carries \
                the counters as JSON, and their sequence as its id.")
        }
        .gives_stream(),
        "product::create" => Door {
            body: product_body(),
            parameters: vec![idempotency_key(false)],
            refuses: &[
                Code::IdempotencyKeyReused, Code::OrderStateConflict, Code::Overloaded, Code::OwnerUnavailable,
                Code::OutcomeUnknown,
            ],
            ..told("administration", "Create a product", "The sku is unique in the shop.")
        }
        .gives(201, "The product.", "ProductShown", Value::Null)
        .with_header(201, "Location", "Where it is.")
        .with_header(201, "ETag", "Weak; for the first change.")
        .with_header(201, "Idempotent-Replayed", "`true` when the key had made this product before."),
        "product::change" => Door {
            body: body("ProductPatch", json!({ "name": "Moon jar, small", "sale": { "closes_at": null } })),
            parameters: vec![header("If-Match", true, "The ETag of the product that was read, as it came: text and settings have to be the same, \
                stock need not. `*` for whatever it is now.")],
            refuses: &[
                Code::SaleClosed, Code::PreconditionFailed, Code::PreconditionRequired, Code::Overloaded,
                Code::OwnerUnavailable, Code::OutcomeUnknown, Code::ReauthenticationRequired,
            ],
            ..told("administration", "Change a product", "Text, price and sale, never stock. Null takes a picture away, or \
                what is said of the sale; elsewhere it is refused. Holds that stand keep their price and their deadline. Another price wants a log-in of a moment ago, in production of the last 15 minutes.")
        }
        .gives(200, "The product.", "ProductShown", Value::Null)
        .with_header(200, "ETag", "Weak; for the next change."),
        "product::archive" => Door {
            refuses: WRITE,
            ..told("administration", "Archive a product", "Off sale and out of the lists for good; its history stays.")
        }
        .gives_nothing(204, "Archived."),
        "product::restock" => Door {
            body: body("RestockRequest", json!({ "delta": 100, "reason": "second delivery" })),
            parameters: vec![idempotency_key(true)],
            refuses: &[
                Code::OrderStateConflict, Code::IdempotencyKeyReused, Code::Overloaded, Code::OwnerUnavailable,
                Code::OutcomeUnknown,
            ],
            ..told("administration", "Add or take away stock", "Never below what is held or sold. A key is needed: twice the \
                delivery is not the same delivery. The `reason` stays in the ledger for ever: write no names there.")
        }
        .gives(200, "The counters after it.", "StockChanged", Value::Null)
        .with_header(200, "Idempotent-Replayed", "`true` when this key had done it before."),
        "product::pause" => sale_switch("Pause the sale", "Refuses new orders until it is resumed. Holds stand."),
        "product::resume" => sale_switch("Resume the sale", "Undoes a pause."),
        "health::livez" => told("operations", "Does it live?", "The process answers; whether it sells is another question.")
            .gives(200, "It does.", "Health", json!({ "status": "alive", "reasons": [], "degraded": [] })),
        "health::readyz" => told("operations", "Can orders be acknowledged?", "Reasons are told to operators: where they have a \
            listener of their own, only there.")
            .gives(200, "They can.", "Health", Value::Null)
            .gives(503, "They cannot, and why.", "Health",
                json!({ "status": "not_ready", "reasons": ["journal_unavailable"], "degraded": [] })),
        "health::metrics" => told("operations", "Metrics", "What this process has counted and measured.").gives_metrics(),
        "docs::openapi" => told("operations", "This document", "Made from the doors' own table.").gives_document(),
        _ => lookup::of(door)
            .or_else(|| money::of(door))
            .or_else(|| jobs::of(door))
            .or_else(|| nodes::of(door))
            .or_else(|| cart::of(door))
            .unwrap_or_else(|| people::of(door)),
    }
}

fn sale_switch(summary: &'static str, about: &'static str) -> Door {
    let parameters = vec![idempotency_key(false)];
    Door { parameters, refuses: WRITE, ..told("administration", summary, about) }.gives(
        200,
        "The counters.",
        "StockChanged",
        Value::Null,
    )
}

pub(super) fn told(tag: &'static str, summary: &'static str, about: &'static str) -> Door {
    Door { tag, summary, about, ..Door::default() }
}

impl Door {
    fn response(mut self, status: u16, about: &str, content: Option<Value>) -> Door {
        let mut response = json!({ "description": about, "headers": { "X-Request-Id": headers::reference("X-Request-Id") } });
        if let Some(content) = content {
            response["content"] = content;
        }
        self.gives.push((status, response));
        self
    }

    /// With the schema's own example, unless another is given.
    pub(super) fn gives(self, status: u16, about: &str, schema: &str, example: Value) -> Door {
        let example = if example.is_null() { examples::of(schema) } else { example };
        let json = json!({ "schema": reference(schema), "example": example });
        self.response(status, about, Some(json!({ "application/json": json })))
    }

    pub(super) fn gives_nothing(self, status: u16, about: &str) -> Door {
        self.response(status, about, None)
    }

    fn gives_document(self) -> Door {
        let example =
            json!({ "openapi": "3.1.0", "info": { "title": "Stockade", "version": "1.0.0" }, "paths": {} });
        let json = json!({ "schema": { "type": "object" }, "example": example });
        self.response(200, "OpenAPI 3.1.", Some(json!({ "application/json": json })))
    }

    fn gives_metrics(self) -> Door {
        let example = "# TYPE stockade_node_active gauge\nstockade_node_active 1\n";
        let text = json!({ "schema": { "type": "string" }, "example": example });
        self.response(200, "The Prometheus text format.", Some(json!({ "text/plain": text })))
    }

    pub(super) fn gives_html(self) -> Door {
        self.gives_file("text/html", "<!doctype html><html lang=\"en\"></html>")
            .with_header(200, "Vary", "`accept-language`.")
            .with_header(200, "Cache-Control", "`no-store`.")
    }

    /// A file that a browser loads.
    pub(super) fn gives_file(self, kind: &str, example: &str) -> Door {
        let content = json!({ kind: { "schema": { "type": "string" }, "example": example } });
        headers::OF_PAGES.iter().fold(self.response(200, "The file.", Some(content)), |door, name| {
            door.with(200, name, headers::reference(name))
        })
    }

    fn gives_stream(self) -> Door {
        let example = "id: 17\ndata: {\"available\":83,\"held\":17,\"sold\":0,\"sequence\":17,\"as_of\":\"2026-10-30T09:15:00.250Z\"}\n\n";
        let content = json!({ "text/event-stream": { "schema": { "type": "string" }, "example": example } });
        self.response(200, "Events until the client leaves or the server stops.", Some(content))
            .with_header(200, "Cache-Control", "`no-store`.")
            .with_header(200, "X-Accel-Buffering", "`no`: a proxy passes each event on as it comes.")
    }

    /// Whoever keeps a copy asks whether it is still good.
    fn revalidated(self) -> Door {
        self.with_header(200, "Cache-Control", "`no-cache`: ask again, with `If-None-Match`.").with_header(
            304,
            "Cache-Control",
            "`no-cache`: ask again, with `If-None-Match`.",
        )
    }

    pub(super) fn with_header(self, status: u16, name: &str, about: &str) -> Door {
        self.with(status, name, text_header(about))
    }

    fn with(mut self, status: u16, name: &str, header: Value) -> Door {
        for (_, response) in self.gives.iter_mut().filter(|(known, _)| *known == status) {
            response["headers"][name] = header.clone();
        }
        self
    }
}

pub(super) fn body(schema: &'static str, example: Value) -> Option<Body> {
    Some(Body { schema, example })
}

fn order_body() -> Option<Body> {
    let total = json!({ "amount": 39_800, "currency": "KRW" });
    body("OrderRequest", json!({ "items": [item()], "expected_total": total }))
}

fn product_body() -> Option<Body> {
    body(
        "ProductRequest",
        json!({
            "sku": "JAR-MOON-01",
            "name": "Moon jar",
            "description": "White porcelain, thrown by hand.",
            "price": { "amount": 19_900, "currency": "KRW" },
            "stock": 100,
            "tags": ["new"],
            "sale": { "opens_at": "2026-10-30T09:00:00.000Z", "per_customer_limit": 2, "hold_seconds": 600 },
        }),
    )
}

fn item() -> Value {
    json!({ "product_id": "prod_01h455vb4pex5vsknk084sn02q", "quantity": 2 })
}

pub(super) fn statuses() -> Vec<&'static str> {
    crate::domain::order::OrderStatus::ALL.iter().map(|status| status.as_str()).collect()
}

pub(super) fn query(name: &str, schema: Value, about: &str) -> Value {
    json!({ "name": name, "in": "query", "required": false, "description": about, "schema": schema })
}

pub(super) fn header(name: &str, required: bool, about: &str) -> Value {
    json!({ "name": name, "in": "header", "required": required, "description": about, "schema": { "type": "string" } })
}

pub(super) fn idempotency_key(required: bool) -> Value {
    json!({
        "name": "Idempotency-Key", "in": "header", "required": required,
        "description": "Your name for what shall happen once. The same key and body may be sent again. It is looked for among all that \
            you have made where it makes an order, adds to a cart, or makes a product or a webhook's secret; and otherwise within the \
            order (a payment, a cancellation, a return, a refund), the product (a restock) or the delivery (sent again) that the path \
            names: for another one it is a new key. With the return of another line of that order it is `idempotency_key_reused`.",
        "schema": { "type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]{1,255}$" },
    })
}

pub(super) fn limit() -> Value {
    query(
        "limit",
        json!({ "type": "integer", "minimum": 1, "maximum": 100, "default": 20 }),
        "Rows of a page.",
    )
}

/// A cursor is a word to be handed back; what it looks like is told so that nobody makes up another.
pub(super) fn cursor(pattern: &str) -> Value {
    let schema = json!({ "type": "string", "pattern": pattern });
    query("cursor", schema, "The `next_cursor` of the page before.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::ROUTES;

    #[test]
    fn every_door_has_words() {
        for route in ROUTES.iter().filter(|route| !route.path.starts_with("/docs")) {
            assert!(!of(route.door).summary.is_empty(), "{}", route.door);
        }
    }
}
