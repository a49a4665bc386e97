//! The document and what it describes.

use super::*;

/// Code and status of what a refusal may say.
fn said(response: &Value) -> Vec<(String, Value)> {
    let schema = &response["content"]["application/problem+json"]["schema"]["allOf"][1]["properties"];
    let codes = schema["code"]["enum"].as_array().into_iter().flatten();
    codes.map(|code| (code.as_str().unwrap().to_owned(), schema["status"]["const"].clone())).collect()
}

#[test]
fn every_code_is_said_somewhere_and_no_other_is() {
    let document = document();
    let mut all = Vec::new();
    for methods in document["paths"].as_object().unwrap().values() {
        for operation in methods.as_object().unwrap().values() {
            for (status, response) in operation["responses"].as_object().unwrap() {
                let said = said(response);
                assert!(said.iter().all(|(_, of)| of.as_u64() == status.parse().ok()), "{response}");
                for (code, _) in &said {
                    let example = &response["content"]["application/problem+json"]["examples"][code]["$ref"];
                    assert_eq!(*example, format!("#/components/examples/{code}"));
                }
                all.extend(said);
            }
        }
    }
    // What is no operation of this document has no place among them.
    for name in ["NoSuchMethod", "NoSuchPath"] {
        all.extend(said(&document["components"]["responses"][name]));
    }
    all.sort_by_key(|(code, _)| code.clone());
    all.dedup();
    let mut known: Vec<(String, Value)> =
        Code::ALL.iter().map(|code| (code.word().to_owned(), code.status().into())).collect();
    known.sort_by_key(|(code, _)| code.clone());
    assert_eq!(all, known);
    let examples: Vec<&String> = document["components"]["examples"].as_object().unwrap().keys().collect();
    assert_eq!(examples.len(), known.len());
    for (code, status) in known {
        let example = &document["components"]["examples"][&code]["value"];
        assert_eq!((&example["code"], &example["status"]), (&code.into(), &status));
    }
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
                && operation["responses"]["403"].is_object() != keeps_out(route.who).is_empty(),
            "{route:?}"
        );
    }
}
