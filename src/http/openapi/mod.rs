//! The API's description after OpenAPI 3.1, made from the route table.
//!
//! The shapes describe themselves beside their types; the refusals come from the table of codes; what is particular
//! to a door stands in `doors`. A test holds the result against the route table.

mod cart;
mod client_file;
mod doors;
mod examples;
mod headers;
mod jobs;
mod lookup;
mod money;
mod nodes;
mod people;
mod webhooks;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use utoipa::openapi::{RefOr, Schema};

use super::cart::{CartShown, CheckoutRequest, QuantityRequest};
use super::delivery::ReturnRequest;
use super::health::Health;
use super::job::{JobShown, RunShown};
use super::node::NodeShown;
use super::order::{ItemRequest, OrderRequest, OrderShown, Preview, PreviewRequest};
use super::payment::{
    ApprovalShown, CompensationShown, PayRequest, PaymentShown, PaymentStatusFoundSchema, RefundRequest,
    RefundShown,
};
use super::problem::Code;
use super::product::{
    Movement, ProductPatch, ProductRequest, ProductShown, RestockRequest, StockChanged, StockShown,
};
use super::session::{LogInRequest, RefreshRequest, SessionShown, TokensShown};
use super::user::{
    Accepted, AccountShown, EmailRequest, EraseRequest, Export, NewEmailRequest, NobodySwitched,
    PasswordRequest, ProfilePatch, ProfileShown, ResetRequest, SignUpRequest, VerifyRequest,
};
use super::webhook_endpoint::{DeliveryShown, EndpointPatch, EndpointRequest, EndpointShown};
use super::{ROUTES, Route, Who};
use crate::domain::amount::Currency;
use crate::domain::webhook::EventKind;
pub use client_file::client_file;
use doors::{Body, Door};

/// The description's path of what is not part of the API: the page that shows it.
const UNDESCRIBED: &str = "/docs";

const REQUEST_ID: &str = "X-Request-Id";

const ABOUT: &str = "Sells scarce stock, first come first served, to a crowd that arrives all at once.

Every refusal is a problem after RFC 9457: its `code` is a stable word, and each operation lists the words that it may say. Beside \
what stands there, a path that is not in this document is 404 `not_found`, and another method of a path that is, 405 \
`method_not_allowed` with `Allow`. Wherever there is GET there is HEAD, which is told the same without the body. What is not HTTP/1.1, or has a head that is too large or too slow, is answered with a bare 400, \
408 or 431, and the connection is closed. What is sent too slowly is 408 `request_timeout`, and the connection is closed as well.

`/v1/admin`, `/metrics` and `/docs` are answered by the operators' listener alone, where there is one.";

/// The pages of lists, with what their rows are.
const PAGES: [(&str, &str); 13] = [
    ("OrderPage", "OrderShown"),
    ("OrderFoundPage", "OrderFound"),
    ("ProductPage", "ProductShown"),
    ("ProductFoundPage", "ProductFound"),
    ("LedgerPage", "Movement"),
    ("SessionPage", "SessionShown"),
    ("AccountPage", "AccountShown"),
    ("RefundPage", "RefundShown"),
    ("CompensationPage", "CompensationShown"),
    ("EndpointPage", "EndpointShown"),
    ("DeliveryPage", "DeliveryShown"),
    ("JobPage", "JobShown"),
    ("NodePage", "NodeShown"),
];

/// The whole document.
pub fn document() -> Value {
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for route in ROUTES.iter().filter(|route| !route.path.starts_with(UNDESCRIBED)) {
        let method = route.method.to_lowercase();
        paths.entry(route.path).or_default().insert(method, operation(route));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Stockade",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "tags": [
            { "name": "orders", "description": "Held for a while, all lines or none; then paid." },
            { "name": "products", "description": "What there is, and how much of it." },
            { "name": "cart", "description": "What somebody wants, and means to order." },
            { "name": "people", "description": "Who buys: sign up, prove it, change it, leave." },
            { "name": "sessions", "description": "Log in, stay logged in, log out." },
            { "name": "administration", "description": "With the role `admin`." },
            { "name": "operations", "description": "For the machinery around the shop." },
        ],
        "paths": paths,
        "webhooks": webhooks::told_to_endpoints(),
        "components": {
            "securitySchemes": { "access_token": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" } },
            "parameters": shared_parameters(),
            "headers": headers::components(),
            "examples": shared_examples(),
            "responses": shared_responses(),
            "schemas": schemas(),
        },
    })
}

fn operation(route: &Route) -> Value {
    let door = doors::of(route.door);
    let mut operation = json!({
        "operationId": route.door.replace("::", "_"),
        "tags": [door.tag],
        "summary": door.summary,
        "description": door.about,
        "parameters": parameters(route, &door),
        "responses": responses(route, &door),
        "security": if route.who.is_somebody() { json!([{ "access_token": [] }]) } else { json!([]) },
    });
    if let Some(Body { schema, example }) = &door.body {
        operation["requestBody"] = json!({
            "required": true,
            "content": { "application/json": { "schema": reference(schema), "example": example } },
        });
    }
    operation
}

/// Why somebody with a good token may be kept out.
fn keeps_out(who: Who) -> &'static [Code] {
    match who {
        Who::Shopper | Who::Admin => &[Code::Forbidden],
        Who::Recent => &[Code::ReauthenticationRequired],
        Who::RecentAdmin => &[Code::Forbidden, Code::ReauthenticationRequired],
        Who::Anyone | Who::Member | Who::Operator | Who::Probe => &[],
    }
}

/// Whether a node that does not lead hands it to the one that does.
fn is_passed_on(who: Who) -> bool {
    match who {
        Who::Anyone | Who::Shopper | Who::Member | Who::Recent | Who::Admin | Who::RecentAdmin => true,
        Who::Operator | Who::Probe => false,
    }
}

/// Whether what this path answers concerns one person, by whatever method.
fn is_private(path: &str) -> bool {
    ROUTES.iter().any(|route| route.path == path && route.who.is_somebody())
}

/// What every path takes. Both are replaced where they make no sense, and refused nowhere.
fn shared_parameters() -> Value {
    let header = |name: &str, about: &str, example: &str| {
        json!({
            "name": name, "in": "header", "required": false, "description": about, "schema": { "type": "string" },
            "example": example,
        })
    };
    json!({
        "X-Request-Id": header(
            REQUEST_ID,
            "Your name for this request: 1 to 128 visible ASCII characters. Any other is replaced by one of ours. It stands in \
             the answer and in our log.",
            examples::REQUEST_ID,
        ),
        "traceparent": header(
            "traceparent",
            "W3C Trace Context. One that is well formed gives our log its trace id; any other is as good as none.",
            examples::TRACEPARENT,
        ),
    })
}

fn parameters(route: &Route, door: &Door) -> Vec<Value> {
    let shared = [REQUEST_ID, "traceparent"].map(|name| format!("#/components/parameters/{name}"));
    let mut parameters: Vec<Value> = shared.iter().map(|place| json!({ "$ref": place })).collect();
    let in_path = |name: &str, about: &str, example: &str| {
        json!({
            "name": name, "in": "path", "required": true, "description": about, "schema": { "type": "string" },
            "example": example,
        })
    };
    if route.path.contains("{id}") {
        let about = "A typed id. One that is malformed, foreign or somebody else's is 404.";
        parameters.push(in_path("id", about, examples::subject_of(route.path)));
    }
    if route.path.contains("{line}") {
        let about = "The number of one of its lines. Any other word is 404.";
        parameters.push(in_path("line", about, "1"));
    }
    parameters.extend(door.parameters.iter().cloned());
    parameters
}

/// Every code that this door may answer, in the order of the table.
fn refuses(route: &Route, door: &Door) -> Vec<Code> {
    let mut codes = vec![Code::RateLimited, Code::HeadTooLarge, Code::Internal];
    if route.who.is_somebody() {
        codes.extend([Code::Unauthenticated, Code::TokenExpired]);
    }
    codes.extend(keeps_out(route.who));
    if route.path.contains('{') {
        codes.push(Code::NotFound);
    }
    let reads_body = route.method != "GET";
    if reads_body {
        codes.extend([Code::MalformedJson, Code::RequestTimeout, Code::PayloadTooLarge]);
    }
    if reads_body && !door.takes_any_body {
        codes.extend([Code::UnsupportedMediaType, Code::ValidationFailed]);
    }
    if door.parameters.iter().any(|parameter| parameter["in"] == "query") {
        codes.push(Code::ValidationFailed);
    }
    if is_passed_on(route.who) {
        // A head that is too large to travel, and nobody who answers.
        codes.extend([Code::PayloadTooLarge, Code::Overloaded, Code::OwnerUnavailable]);
        if route.method != "GET" {
            codes.push(Code::OutcomeUnknown);
        }
    }
    codes.extend(door.refuses);
    Code::ALL.iter().copied().filter(|code| codes.contains(code)).collect()
}

fn responses(route: &Route, door: &Door) -> Map<String, Value> {
    let mut responses = Map::new();
    for (status, response) in &door.gives {
        responses.insert(status.to_string(), response.clone());
    }
    let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in refuses(route, door) {
        by_status.entry(code.status()).or_default().push(code);
    }
    for (status, codes) in by_status {
        // /readyz says 503 in its own shape.
        responses.entry(status.to_string()).or_insert_with(|| refusal(status, &codes, door));
    }
    if is_private(route.path) {
        for response in responses.values_mut() {
            response["headers"]["Cache-Control"] = headers::reference("Cache-Control");
        }
    }
    responses
}

/// The answer of these codes, which have one status.
fn refusal(status: u16, codes: &[Code], door: &Door) -> Value {
    let told: Vec<String> = codes.iter().map(|code| format!("`{}`: {}", code.word(), code.title())).collect();
    let words: Vec<&str> = codes.iter().map(|code| code.word()).collect();
    let examples: Map<String, Value> = words.iter().map(|word| (word.to_string(), example(word))).collect();
    let mut all = vec!["X-Request-Id"];
    all.extend(match status {
        401 => &["WWW-Authenticate"][..],
        405 => &["Allow"],
        429 => &["Retry-After", "RateLimit-Policy", "RateLimit"],
        503 => &["Retry-After"],
        _ => &[],
    });
    let mut headers: Map<String, Value> =
        all.into_iter().map(|name| (name.to_owned(), headers::reference(name))).collect();
    let may_wait = [Code::IdempotencyInProgress, Code::SaleNotOpen];
    if may_wait.iter().any(|code| codes.contains(code)) || door.conflict_passes {
        headers.insert("Retry-After".into(), headers::sometimes("Retry-After"));
    }
    // How an order was paid, or why it could not be, is told again to whoever asks again, whatever it is.
    let pays = door.refuses.contains(&Code::PaymentDeclined);
    if pays && [402, 409, 410, 503].contains(&status) {
        headers
            .insert("Idempotent-Replayed".into(), text_header("`true` when the key had heard this before."));
    }
    json!({
        "description": told.join(" · "),
        "headers": headers,
        "content": { "application/problem+json": {
            "schema": { "allOf": [
                reference("Problem"),
                { "type": "object", "properties": { "status": { "const": status }, "code": { "enum": words } } },
            ] },
            "examples": examples,
        } },
    })
}

/// What no operation can say of itself, because it is about what is no operation.
fn shared_responses() -> Value {
    json!({
        "NoSuchPath": refusal(404, &[Code::NotFound], &Door::default()),
        "NoSuchMethod": refusal(405, &[Code::MethodNotAllowed], &Door::default()),
    })
}

fn shared_examples() -> Map<String, Value> {
    let shown = |code: &Code| json!({ "summary": code.title(), "value": examples::problem(*code) });
    Code::ALL.iter().map(|code| (code.word().to_owned(), shown(code))).collect()
}

fn example(word: &str) -> Value {
    json!({ "$ref": format!("#/components/examples/{word}") })
}

fn text_header(about: &str) -> Value {
    json!({ "description": about, "schema": { "type": "string" } })
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

type Named = (String, RefOr<Schema>);

fn add<T: ToSchema>(schemas: &mut Vec<Named>) {
    schemas.push((T::name().into_owned(), T::schema()));
    T::schemas(schemas);
}

fn schemas() -> Map<String, Value> {
    let mut named: Vec<Named> = Vec::new();
    add::<OrderRequest>(&mut named);
    add::<PreviewRequest>(&mut named);
    add::<Preview>(&mut named);
    add::<OrderShown>(&mut named);
    add::<ReturnRequest>(&mut named);
    add::<ItemRequest>(&mut named);
    add::<CartShown>(&mut named);
    add::<QuantityRequest>(&mut named);
    add::<CheckoutRequest>(&mut named);
    add::<PayRequest>(&mut named);
    add::<PaymentShown>(&mut named);
    add::<PaymentStatusFoundSchema>(&mut named);
    add::<RefundRequest>(&mut named);
    add::<RefundShown>(&mut named);
    add::<CompensationShown>(&mut named);
    add::<ApprovalShown>(&mut named);
    add::<ProductRequest>(&mut named);
    add::<ProductPatch>(&mut named);
    add::<RestockRequest>(&mut named);
    add::<ProductShown>(&mut named);
    add::<StockShown>(&mut named);
    add::<StockChanged>(&mut named);
    add::<Movement>(&mut named);
    add::<Health>(&mut named);
    add::<SignUpRequest>(&mut named);
    add::<VerifyRequest>(&mut named);
    add::<EmailRequest>(&mut named);
    add::<ResetRequest>(&mut named);
    add::<ProfilePatch>(&mut named);
    add::<PasswordRequest>(&mut named);
    add::<NewEmailRequest>(&mut named);
    add::<EraseRequest>(&mut named);
    add::<ProfileShown>(&mut named);
    add::<Accepted>(&mut named);
    add::<Export>(&mut named);
    add::<AccountShown>(&mut named);
    add::<NobodySwitched>(&mut named);
    add::<LogInRequest>(&mut named);
    add::<RefreshRequest>(&mut named);
    add::<TokensShown>(&mut named);
    add::<SessionShown>(&mut named);
    add::<EndpointRequest>(&mut named);
    add::<EndpointPatch>(&mut named);
    add::<EndpointShown>(&mut named);
    add::<DeliveryShown>(&mut named);
    add::<JobShown>(&mut named);
    add::<NodeShown>(&mut named);
    add::<RunShown>(&mut named);
    let mut schemas: Map<String, Value> = named
        .into_iter()
        .map(|(name, schema)| (name, serde_json::to_value(schema).unwrap_or_default()))
        .collect();
    for (name, shown, besides) in [
        ("PaymentFound", "Payment", json!({ "status": reference("PaymentStatusFound") })),
        ("OrderFound", "OrderShown", order_besides()),
        ("ProductFound", "ProductShown", product_besides()),
    ] {
        schemas.insert(name.into(), with_besides(&schemas[shown], besides));
    }
    for (page, row) in PAGES {
        schemas.insert(page.into(), json!({
            "type": "object",
            "required": ["data", "next_cursor"],
            "properties": {
                "data": { "type": "array", "items": reference(row) },
                "next_cursor": { "type": ["string", "null"], "description": "Where the next page begins; null on the last." },
            },
        }));
    }
    let events: Vec<&str> = EventKind::ALL.iter().map(|kind| kind.as_str()).collect();
    for request in ["EndpointRequest", "EndpointPatch"] {
        schemas[request]["properties"]["events"]["items"]["enum"] = json!(events);
    }
    schemas["Price"]["properties"]["currency"]["enum"] = Currency::listed().collect();
    schemas.insert(
        "PaymentEvent".into(),
        json!({ "type": "object", "description": "In the provider's own shape." }),
    );
    schemas.insert("Problem".into(), problem());
    schemas
}

/// What administrators see of an order besides what its buyer does, or otherwise.
fn order_besides() -> Value {
    json!({
        "buyer_id": { "type": "string" },
        "payment": {
            "description": "The latest attempt to pay it; null while there is none, or where our record of it is damaged.",
            "oneOf": [{ "type": "null" }, reference("PaymentFound")],
        },
    })
}

/// What administrators see of a product besides what everybody does.
fn product_besides() -> Value {
    let (units, time) =
        (json!({ "type": "integer", "minimum": 0 }), json!({ "type": "string", "format": "date-time" }));
    json!({
        "archived": { "type": "boolean" }, "on_hand": units, "held": units, "sold": units, "created_at": time, "updated_at": time,
    })
}

/// An object with more members, or other ones in the place of its own, all of them always there.
fn with_besides(schema: &Value, besides: Value) -> Value {
    let mut schema = schema.clone();
    for (name, member) in besides.as_object().into_iter().flatten() {
        schema["properties"][name] = member.clone();
        if let Some(required) = schema["required"].as_array_mut()
            && !required.contains(&json!(name))
        {
            required.push(json!(name));
        }
    }
    schema
}

/// Problem details after RFC 9457. Each code has more members than the first: the numbers that explain it.
fn problem() -> Value {
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.word()).collect();
    let mut members = json!({
        "type": { "type": "string" },
        "title": { "type": "string" },
        "status": { "type": "integer" },
        "code": { "type": "string", "enum": codes },
        "detail": { "type": "string" },
        "instance": { "type": "string" },
        "request_id": { "type": "string" },
        "sequence": { "type": "integer", "description": "Where in the product's history it was decided." },
        "reason": { "type": "string", "description": "A word of the payment provider's, or ours." },
        "order": reference("OrderShown"),
        "expected": reference("Money"),
        "actual": reference("Money"),
        "max_age_seconds": { "type": "integer", "description": "How long ago the log-in may be." },
        "errors": { "type": "array", "items": {
            "type": "object",
            "required": ["pointer", "detail"],
            "properties": { "pointer": { "type": "string" }, "detail": { "type": "string" } },
        } },
    });
    let numbers = [
        "available",
        "requested",
        "limit",
        "has",
        "captured",
        "refunded",
        "promised",
        "would_be",
        "confirmed",
        "held",
        "returned",
        "sold",
        "line",
    ];
    let words = ["product_id", "order_id", "refund_id", "delivery_status"];
    let times = ["opens_at", "closed_at", "logged_in_at", "shipped_at", "delivered_at", "returnable_until"];
    let number = json!({ "type": "integer" });
    let word = json!({ "type": "string" });
    let time = json!({ "type": "string", "format": "date-time" });
    for (names, schema) in [(&numbers[..], number), (&words, word), (&times, time)] {
        for name in names {
            members[*name] = schema.clone();
        }
    }
    json!({
        "type": "object",
        "description": "Problem details (RFC 9457).",
        "required": ["type", "title", "status", "code", "detail", "instance", "request_id"],
        "properties": members,
    })
}

#[cfg(test)]
mod tests;
