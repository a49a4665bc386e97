//! Every answer that a test hears is held against the OpenAPI document: its status, its code, its headers, its body.
//!
//! So whatever a door says anywhere in the tests and the document does not, fails the test that heard it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::LazyLock;

use boon::{Compiler, SchemaIndex, Schemas};
use reqwest::header::HeaderMap;
use serde_json::Value;

static DOCUMENT: LazyLock<Value> = LazyLock::new(stockade::http::document);

const PLACE: &str = "http://stockade.test/openapi.json";
/// What belongs to HTTP itself.
const UNDESCRIBED: [&str; 6] =
    ["content-type", "content-length", "content-encoding", "transfer-encoding", "connection", "date"];

/// The document.
pub fn document() -> &'static Value {
    &DOCUMENT
}

/// The value that a reference stands for, or the value itself.
pub fn resolved(value: &Value) -> &Value {
    match value["$ref"].as_str().and_then(|pointer| pointer.strip_prefix('#')) {
        Some(pointer) => DOCUMENT.pointer(pointer).unwrap_or_else(|| panic!("{pointer} leads nowhere")),
        None => value,
    }
}

/// A JSON Pointer to these members.
pub fn pointer(members: &[&str]) -> String {
    let escaped = |member: &&str| format!("/{}", member.replace('~', "~0").replace('/', "~1"));
    members.iter().map(escaped).collect()
}

struct Compiled {
    compiler: Compiler,
    schemas: Schemas,
    known: HashMap<String, SchemaIndex>,
}

thread_local! {
    static COMPILED: RefCell<Compiled> = RefCell::new({
        let mut compiler = Compiler::new();
        compiler.set_default_draft(boon::Draft::V2020_12);
        compiler.enable_format_assertions();
        compiler.add_resource(PLACE, DOCUMENT.clone()).unwrap();
        Compiled { compiler, schemas: Schemas::new(), known: HashMap::new() }
    });
}

/// What the schema at this pointer says against a value.
pub fn complaint(pointer: &str, value: &Value) -> Option<String> {
    COMPILED.with_borrow_mut(|Compiled { compiler, schemas, known }| {
        let schema = *known.entry(pointer.to_owned()).or_insert_with(|| {
            let fragment = pointer.replace('%', "%25").replace('{', "%7B").replace('}', "%7D");
            let compiled = compiler.compile(&format!("{PLACE}#{fragment}"), schemas);
            compiled.unwrap_or_else(|error| panic!("{pointer} is no schema: {error:#}"))
        });
        schemas.validate(value, schema).err().map(|error| format!("{error:#}"))
    })
}

/// The path of the document that a request's path belongs to.
fn described(path: &str) -> Option<&'static str> {
    let fits = |pattern: &&String| {
        let (mut segments, mut asked) = (pattern.split('/'), path.split('/'));
        loop {
            match (segments.next(), asked.next()) {
                (None, None) => return true,
                (Some(segment), Some(word)) if segment == word => {}
                (Some(segment), Some(word)) if segment.starts_with('{') && !word.is_empty() => {}
                _ => return false,
            }
        }
    };
    // As the router does: words come before what stands for any.
    let paths = DOCUMENT["paths"].as_object().unwrap().keys().filter(fits);
    paths.min_by_key(|pattern| pattern.matches('{').count()).map(String::as_str)
}

/// Fails where an answer is not one that the document promises.
#[track_caller]
pub fn holds(method: &str, path: &str, status: u16, headers: &HeaderMap, text: &str) {
    if path == "/docs" || path.starts_with("/docs/") {
        return;
    }
    let asked = format!("{method} {path}: {status} {text:.300}");
    let problem = headers.get("content-type").is_some_and(|kind| kind == "application/problem+json");
    let code = || serde_json::from_str::<Value>(text).unwrap_or_default()["code"].clone();
    let is_head = method == "HEAD";
    let method = if is_head { "get".to_owned() } else { method.to_lowercase() };
    let pattern = described(path);
    let members = ["paths", pattern.unwrap_or_default(), &method];
    let operation = DOCUMENT.pointer(&pointer(&members)).filter(|_| pattern.is_some());
    // No such path, on this listener or on any, and no such method, are told of nothing that is described.
    if status == 404 && problem && (is_head || text.contains("No door has this path.")) {
        return;
    }
    let Some(operation) = operation else {
        let told = code();
        // The last two are said before anybody looks for a door.
        let words = ["method_not_allowed", "rate_limited", "head_too_large"];
        assert!(problem && (is_head || words.iter().any(|word| told == *word)), "undescribed: {asked}");
        return;
    };
    let response = &operation["responses"][status.to_string()];
    assert!(response.is_object(), "a status that is not described: {asked}");

    let known = response["headers"].as_object().unwrap();
    for (name, header) in known {
        let must = resolved(header)["required"] == true;
        assert!(!must || headers.contains_key(name), "{name} is missing: {asked}");
    }
    for name in headers.keys().map(|name| name.as_str()).filter(|name| !UNDESCRIBED.contains(name)) {
        let is_known = known.keys().any(|known| known.eq_ignore_ascii_case(name));
        assert!(is_known, "a header that is not described, {name}: {asked}");
    }
    if is_head {
        return assert!(text.is_empty(), "more than a head: {asked}");
    }

    let Some(kind) = headers.get("content-type").map(|kind| kind.to_str().unwrap()) else {
        assert!(text.is_empty(), "a body without a type: {asked}");
        assert!(response["content"].is_null(), "no body where one is described: {asked}");
        return;
    };
    let kind = kind.split(';').next().unwrap_or_default();
    assert!(response["content"][kind].is_object(), "a type that is not described, {kind}: {asked}");
    if !kind.ends_with("json") {
        return;
    }
    let value: Value = serde_json::from_str(text).unwrap_or_else(|_| panic!("no JSON: {asked}"));
    let status = status.to_string();
    let schema = [&members[..], &["responses", &status, "content", kind, "schema"]].concat();
    if let Some(complaint) = complaint(&pointer(&schema), &value) {
        panic!("not as described: {asked}\n{complaint}");
    }
    if problem {
        let described = DOCUMENT["components"]["schemas"]["Problem"]["properties"].as_object().unwrap();
        let stranger = value.as_object().unwrap().keys().find(|member| !described.contains_key(*member));
        assert!(stranger.is_none(), "a member that is not described, {stranger:?}: {asked}");
    }
}
