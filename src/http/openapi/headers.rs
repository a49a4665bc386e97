//! The headers that many answers have, each described once.

use serde_json::{Map, Value, json};

/// What a header's value is.
enum Shape {
    Text,
    Seconds,
}

/// Name, shape, meaning.
const SHARED: &[(&str, Shape, &str)] = &[
    (
        "X-Request-Id",
        Shape::Text,
        "The request's id, as it stands in our log: yours if it was sane, or one of ours.",
    ),
    ("Cache-Control", Shape::Text, "`no-store`: it concerns one person, and nobody on the way keeps a copy."),
    ("WWW-Authenticate", Shape::Text, "`Bearer`, and what was wrong with the token."),
    ("Allow", Shape::Text, "The methods that this path has."),
    ("Retry-After", Shape::Seconds, "Seconds to wait."),
    (
        "RateLimit-Policy",
        Shape::Text,
        "Quota and window in seconds: `\"orders\";q=200;w=4`; of what may be open at once `qu=\"concurrent-requests\"` instead.",
    ),
    ("RateLimit", Shape::Text, "What remains, and seconds until there is more: `\"orders\";r=0;t=1`."),
    ("Content-Security-Policy", Shape::Text, "Everything comes from here, and nobody frames it."),
    ("Referrer-Policy", Shape::Text, "`no-referrer`."),
    ("Strict-Transport-Security", Shape::Text, "A year, and below."),
    ("X-Content-Type-Options", Shape::Text, "`nosniff`."),
    ("X-Frame-Options", Shape::Text, "`DENY`."),
    ("Cross-Origin-Opener-Policy", Shape::Text, "`same-origin`."),
];

/// What a browser is told with each page.
pub const OF_PAGES: [&str; 6] = [
    "Content-Security-Policy",
    "Referrer-Policy",
    "Strict-Transport-Security",
    "X-Content-Type-Options",
    "X-Frame-Options",
    "Cross-Origin-Opener-Policy",
];

fn schema(shape: &Shape) -> Value {
    match shape {
        Shape::Text => json!({ "type": "string" }),
        Shape::Seconds => json!({ "type": "integer", "minimum": 1 }),
    }
}

pub fn components() -> Map<String, Value> {
    let described = SHARED.iter().map(|(name, shape, about)| {
        // A node that only hands requests on does not know whom an answer concerns.
        let always = *name != "Cache-Control";
        let header = json!({ "description": about, "required": always, "schema": schema(shape) });
        (name.to_string(), header)
    });
    described.collect()
}

/// The header of this name, which is always there.
pub fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/headers/{name}") })
}

/// The same where only some of the answers have it.
pub fn sometimes(name: &str) -> Value {
    let known = SHARED.iter().find(|(known, ..)| *known == name);
    known.map_or(Value::Null, |(_, shape, about)| json!({ "description": about, "schema": schema(shape) }))
}
