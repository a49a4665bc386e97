//! The API's description after OpenAPI 3.1, made from the route table.
//!
//! The shapes describe themselves beside their types; the refusals come from the table of codes; what is particular
//! to a door stands in `doors`. A test holds the result against the route table.

mod cart;
mod doors;
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
use super::payment::{CompensationShown, PayRequest, PaymentShown, RefundRequest, RefundShown};
use super::problem::Code;
use super::product::{
    Movement, ProductPatch, ProductRequest, ProductShown, RestockRequest, StockChanged, StockShown,
};
use super::session::{LogInRequest, RefreshRequest, SessionShown, TokensShown};
use super::user::{
    Accepted, AccountShown, EmailRequest, EraseRequest, Export, NewEmailRequest, PasswordRequest,
    ProfilePatch, ProfileShown, ResetRequest, SignUpRequest, VerifyRequest,
};
use super::webhook_endpoint::{DeliveryShown, EndpointPatch, EndpointRequest, EndpointShown};
use super::{ROUTES, Route, Who};
use doors::{Body, Door};

/// The description's path of what is not part of the API: the page that shows it.
const UNDESCRIBED: &str = "/docs";

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
            "description": "Sells scarce stock, first come first served, to a crowd that arrives all at once.",
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
fn keeps_out(who: Who) -> Option<Code> {
    match who {
        Who::Shopper | Who::Admin => Some(Code::Forbidden),
        Who::Recent => Some(Code::ReauthenticationRequired),
        Who::Anyone | Who::Member | Who::Operator | Who::Probe => None,
    }
}

fn parameters(route: &Route, door: &Door) -> Vec<Value> {
    let mut parameters = Vec::new();
    if route.path.contains("{id}") {
        let about = "A typed id. One that is malformed, foreign or somebody else's is 404.";
        parameters.push(json!({
            "name": "id", "in": "path", "required": true, "description": about, "schema": { "type": "string" },
        }));
    }
    if route.path.contains("{line}") {
        let about = "The number of one of its lines. Any other word is 404.";
        parameters.push(json!({
            "name": "line", "in": "path", "required": true, "description": about, "schema": { "type": "string" },
        }));
    }
    parameters.extend(door.parameters.iter().cloned());
    parameters
}

fn responses(route: &Route, door: &Door) -> Map<String, Value> {
    let mut codes = vec![Code::RateLimited, Code::HeadTooLarge, Code::Internal];
    if route.who.is_somebody() {
        codes.extend([Code::Unauthenticated, Code::TokenExpired]);
    }
    codes.extend(keeps_out(route.who));
    if route.path.contains("{id}") {
        codes.push(Code::NotFound);
    }
    if route.method == "POST" || door.body.is_some() {
        codes.extend([
            Code::MalformedJson,
            Code::RequestTimeout,
            Code::PayloadTooLarge,
            Code::UnsupportedMediaType,
        ]);
    }
    if route.method == "POST" || !door.parameters.is_empty() || door.body.is_some() {
        codes.push(Code::ValidationFailed);
    }
    codes.extend(door.refuses);
    let mut responses = Map::new();
    for (status, response) in &door.gives {
        responses.insert(status.to_string(), response.clone());
    }
    let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    // In the order of the table, each once.
    for code in Code::ALL.iter().filter(|code| codes.contains(code)) {
        by_status.entry(code.status()).or_default().push(*code);
    }
    for (status, codes) in by_status {
        // /readyz says 503 in its own shape.
        responses.entry(status.to_string()).or_insert_with(|| refusal(status, &codes));
    }
    responses
}

fn refusal(status: u16, codes: &[Code]) -> Value {
    let told: Vec<String> = codes.iter().map(|code| format!("`{}`: {}", code.word(), code.title())).collect();
    let mut headers = json!({ "X-Request-Id": text_header("The request's id, as it stands in our log.") });
    match status {
        401 => headers["WWW-Authenticate"] = text_header("`Bearer`, and what was wrong with the token."),
        429 => {
            headers["Retry-After"] = seconds_header();
            headers["RateLimit-Policy"] = text_header("Quota and window in seconds: `\"orders\";q=200;w=4`.");
            headers["RateLimit"] =
                text_header("What remains, and seconds until there is more: `\"orders\";r=0;t=1`.");
        }
        503 => headers["Retry-After"] = seconds_header(),
        _ => {}
    }
    json!({
        "description": told.join(" · "),
        "headers": headers,
        "content": { "application/problem+json": { "schema": reference("Problem"), "example": example(codes[0]) } },
    })
}

fn text_header(about: &str) -> Value {
    json!({ "description": about, "schema": { "type": "string" } })
}

fn seconds_header() -> Value {
    json!({ "description": "Seconds to wait.", "schema": { "type": "integer", "minimum": 1 } })
}

fn example(code: Code) -> Value {
    json!({
        "type": format!("urn:stockade:problem:{}", code.word()),
        "title": code.title(),
        "status": code.status(),
        "code": code.word(),
        "detail": "A sentence about this very request.",
        "instance": "/v1/orders",
        "request_id": "5f0c2a9d31b74e86a1c05d7e",
    })
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
    add::<RefundRequest>(&mut named);
    add::<RefundShown>(&mut named);
    add::<CompensationShown>(&mut named);
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
        ("OrderFound", "OrderShown", json!({ "buyer_id": { "type": "string" } })),
        ("ProductFound", "ProductShown", product_besides()),
    ] {
        schemas.insert(name.into(), with_besides(&schemas[shown], besides));
    }
    for (page, row) in [
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
    ] {
        schemas.insert(page.into(), json!({
            "type": "object",
            "required": ["data", "next_cursor"],
            "properties": {
                "data": { "type": "array", "items": reference(row) },
                "next_cursor": { "type": ["string", "null"], "description": "Where the next page begins; null on the last." },
            },
        }));
    }
    schemas.insert(
        "PaymentEvent".into(),
        json!({ "type": "object", "description": "In the provider's own shape." }),
    );
    schemas.insert("Problem".into(), problem());
    schemas
}

/// What administrators see of a product besides what everybody does.
fn product_besides() -> Value {
    let (units, time) =
        (json!({ "type": "integer", "minimum": 0 }), json!({ "type": "string", "format": "date-time" }));
    json!({
        "archived": { "type": "boolean" }, "on_hand": units, "held": units, "sold": units, "created_at": time, "updated_at": time,
    })
}

/// An object with more members, all of them always there.
fn with_besides(schema: &Value, besides: Value) -> Value {
    let mut schema = schema.clone();
    for (name, member) in besides.as_object().into_iter().flatten() {
        schema["properties"][name] = member.clone();
        if let Some(required) = schema["required"].as_array_mut() {
            required.push(json!(name));
        }
    }
    schema
}

/// Problem details after RFC 9457. Codes carry more members than these: the numbers that explain them.
fn problem() -> Value {
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.word()).collect();
    let number = || json!({ "type": "integer" });
    let mut problem = json!({
        "type": "object",
        "description": "Problem details (RFC 9457).",
        "required": ["type", "title", "status", "code", "detail", "instance", "request_id"],
        "properties": {
            "type": { "type": "string" },
            "title": { "type": "string" },
            "status": { "type": "integer" },
            "code": { "type": "string", "enum": codes },
            "detail": { "type": "string" },
            "instance": { "type": "string" },
            "request_id": { "type": "string" },
            "product_id": { "type": "string" },
            "order_id": { "type": "string" },
            "sequence": { "type": "integer", "description": "Where in the product's history it was decided." },
            "available": number(),
            "requested": number(),
            "limit": number(),
            "has": number(),
            "captured": number(),
            "refunded": number(),
            "refund_id": { "type": "string" },
            "reason": { "type": "string", "description": "A word of the payment provider's, or ours." },
            "order": reference("OrderShown"),
            "line": number(),
            "delivery_status": { "type": "string" },
            "max_age_seconds": { "type": "integer", "description": "How long ago the log-in may be." },
            "errors": { "type": "array", "items": {
                "type": "object",
                "required": ["pointer", "detail"],
                "properties": { "pointer": { "type": "string" }, "detail": { "type": "string" } },
            } },
        },
    });
    let times = ["opens_at", "closed_at", "logged_in_at", "shipped_at", "delivered_at", "returnable_until"];
    for name in times {
        problem["properties"][name] = json!({ "type": "string", "format": "date-time" });
    }
    problem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_and_the_route_table_agree() {
        let document = document();
        let mut described: Vec<String> = Vec::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            described.extend(
                methods.as_object().unwrap().keys().map(|method| format!("{} {path}", method.to_uppercase())),
            );
        }
        let mut served: Vec<String> = ROUTES
            .iter()
            .filter(|route| !route.path.starts_with(UNDESCRIBED))
            .map(|route| format!("{} {}", route.method, route.path))
            .collect();
        described.sort();
        served.sort();
        assert_eq!(described, served);
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn references(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(map) => {
                    found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                    map.values().for_each(|value| references(value, found));
                }
                Value::Array(list) => list.iter().for_each(|value| references(value, found)),
                _ => {}
            }
        }
        let document = document();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 30);
        for pointer in found {
            assert!(document.pointer(pointer.trim_start_matches('#')).is_some(), "{pointer}");
        }
    }

    #[test]
    fn whatever_asks_for_a_token_says_so() {
        let document = document();
        for route in ROUTES.iter().filter(|route| route.who.is_somebody()) {
            let operation = &document["paths"][route.path][route.method.to_lowercase()];
            assert!(
                operation["responses"]["401"].is_object()
                    && operation["responses"]["403"].is_object() == keeps_out(route.who).is_some(),
                "{route:?}"
            );
        }
    }
}
