//! The OpenAPI document: it says of every door what an integrator asks, its examples are what it describes, and the file of
//! requests that is made from it is the one that lies in `docs/api`.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;
use stockade::http::{ROUTES, client_file};
use support::contract::{complaint, document, pointer, resolved};

/// Method, path, and the operation.
fn operations() -> impl Iterator<Item = (&'static str, &'static str, &'static Value)> {
    let paths = document()["paths"].as_object().unwrap().iter();
    paths.flat_map(|(path, methods)| {
        let methods = methods.as_object().unwrap().iter();
        methods.map(move |(method, operation)| (method.as_str(), path.as_str(), operation))
    })
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_default()
}

#[test]
fn every_door_is_described_and_nothing_else_is() {
    let served = ROUTES.iter().filter(|route| !route.path.starts_with("/docs"));
    let served: BTreeSet<_> = served.map(|route| (route.method.to_lowercase(), route.path)).collect();
    let described: BTreeSet<_> = operations().map(|(method, path, _)| (method.to_owned(), path)).collect();
    assert_eq!(described, served);
}

#[test]
fn every_operation_says_what_an_integrator_asks() {
    let tags: BTreeSet<&str> =
        document()["tags"].as_array().unwrap().iter().map(|tag| text(tag, "name")).collect();
    let mut ids = BTreeSet::new();
    for (method, path, operation) in operations() {
        let door = format!("{method} {path}");
        assert!(ids.insert(text(operation, "operationId")), "{door}: its operationId stands twice");
        for member in ["operationId", "summary", "description"] {
            assert!(!text(operation, member).is_empty(), "{door} has no {member}");
        }
        let tag = operation["tags"].as_array().unwrap();
        assert!(tag.len() == 1 && tags.contains(tag[0].as_str().unwrap()), "{door} {tag:?}");
        // An empty list says that no token is needed, which is something else than saying nothing.
        let asks =
            operation["security"].as_array().unwrap_or_else(|| panic!("{door} says nothing of tokens"));
        assert_eq!(operation["responses"]["401"]["headers"]["WWW-Authenticate"].is_null(), {
            let told = ["session_log_in", "session_refresh"].contains(&text(operation, "operationId"));
            asks.is_empty() && !told
        });
        let parameters = operation["parameters"].as_array().unwrap().iter().map(resolved);
        let mut in_path = BTreeSet::new();
        for parameter in parameters {
            assert!(!text(parameter, "description").is_empty(), "{door} {parameter}");
            if parameter["in"] == "path" {
                in_path.insert(format!("{{{}}}", text(parameter, "name")));
                assert!(parameter["example"].is_string(), "{door} {parameter}");
            }
        }
        let named = path.split('/').filter(|segment| segment.starts_with('{')).map(str::to_owned);
        assert_eq!(in_path, named.collect(), "{door}");
        let good =
            operation["responses"].as_object().unwrap().keys().filter(|status| status.starts_with('2'));
        assert!(good.count() > 0, "{door} never answers");
    }
    assert_eq!(ids.len(), ROUTES.iter().filter(|route| !route.path.starts_with("/docs")).count());
}

#[test]
fn every_answer_and_every_body_has_an_example_that_is_what_is_described() {
    let mut seen = 0;
    for (method, path, operation) in operations() {
        let body = &operation["requestBody"]["content"]["application/json"];
        if body.is_object() {
            let at = ["paths", path, method, "requestBody", "content", "application/json", "schema"];
            fits(&pointer(&at), &body["example"]);
            seen += 1;
        }
        for (status, response) in operation["responses"].as_object().unwrap() {
            assert!(!text(response, "description").is_empty(), "{method} {path} {status}");
            let headers = response["headers"].as_object().unwrap();
            assert!(headers.contains_key("X-Request-Id"), "{method} {path} {status}");
            for header in headers.values().map(resolved) {
                assert!(!text(header, "description").is_empty(), "{method} {path} {status} {header}");
            }
            for (kind, content) in response["content"].as_object().into_iter().flatten() {
                let at = ["paths", path, method, "responses", status, "content", kind, "schema"];
                let examples = content["examples"].as_object();
                let mut all: Vec<&Value> = examples
                    .into_iter()
                    .flat_map(|all| all.values())
                    .map(|it| &resolved(it)["value"])
                    .collect();
                all.extend(content.get("example"));
                assert!(!all.is_empty(), "{method} {path} {status} {kind} has no example");
                for example in all {
                    fits(&pointer(&at), example);
                    seen += 1;
                }
            }
        }
    }
    for (name, hook) in document()["webhooks"].as_object().unwrap() {
        let content = &hook["post"]["requestBody"]["content"]["application/json"];
        let at = ["webhooks", name, "post", "requestBody", "content", "application/json", "schema"];
        fits(&pointer(&at), &content["example"]);
        seen += 1;
    }
    assert!(seen > 700, "{seen}");
}

#[track_caller]
fn fits(schema: &str, example: &Value) {
    assert!(!example.is_null(), "{schema} has no example");
    if let Some(complaint) = complaint(schema, example) {
        panic!("the example is not what is described: {schema}\n{complaint}\n{example}");
    }
}

/// A check that lets everything through would be one as well.
#[test]
fn an_example_that_does_not_fit_is_seen() {
    let at = pointer(&["components", "schemas", "StockShown"]);
    let good = serde_json::json!({
        "available": 1, "held": 0, "sold": 0, "sequence": 1, "as_of": "2026-10-30T09:00:00.250Z",
    });
    assert_eq!(complaint(&at, &good), None);
    for (name, value) in
        [("available", Value::from(-1)), ("as_of", Value::from("yesterday")), ("sold", Value::Null)]
    {
        let mut bad = good.clone();
        bad[name] = value;
        assert!(complaint(&at, &bad).is_some(), "{bad}");
    }
    let at = pointer(&[
        "paths",
        "/v1/orders",
        "post",
        "responses",
        "409",
        "content",
        "application/problem+json",
        "schema",
    ]);
    let mut problem = document()["components"]["examples"]["sold_out"]["value"].clone();
    assert_eq!(complaint(&at, &problem), None);
    problem["code"] = "phone_taken".into();
    assert!(complaint(&at, &problem).is_some(), "a code of another door");
}

/// `docs/api/stockade.http` is made by `stockade openapi --http`.
#[test]
fn the_file_of_requests_is_the_one_that_the_document_makes() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/api/stockade.http");
    let lies_there = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        lies_there == client_file(document()),
        "{} is out of date: cargo run -- openapi --http > docs/api/stockade.http",
        file.display()
    );
}
