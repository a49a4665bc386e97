//! The API as a file of requests that the REST clients of VS Code and of JetBrains' IDEs send, made from the document.
//!
//! Only what both of them understand is used: variables at the top, names, and `{{$timestamp}}` for a key that is new.

use std::fmt::Write as _;

use serde_json::Value;

use super::examples;

const HEAD: &str = "\
# Stockade, one request after the other, for the REST clients of VS Code and of JetBrains' IDEs.
# Made from the OpenAPI document by `stockade openapi --http`; change that, not this.
#
# `stockade token --user 1` signs a token for a shopper, `stockade token --role admin` one for an administrator. Doors to
# accounts and sessions need somebody who has signed up: put the access token of a log-in in the place of the first.

@shop = http://127.0.0.1:8080
# Another address where operators have a listener of their own.
@operators = http://127.0.0.1:8080
@shopper = paste-an-access-token
@administrator = paste-an-access-token
";

/// The ids that requests are about, as variables.
const SUBJECTS: [(&str, &str); 8] = [
    ("product", examples::PRODUCT),
    ("order", examples::ORDER),
    ("payment", examples::PAYMENT),
    ("refund", examples::REFUND),
    ("user", examples::USER),
    ("session", examples::SESSION),
    ("endpoint", examples::ENDPOINT),
    ("delivery", examples::DELIVERY),
];

/// The whole file.
pub fn client_file(document: &Value) -> String {
    let mut file = String::from(HEAD);
    file.push('\n');
    for (name, id) in SUBJECTS {
        line(&mut file, format_args!("@{name} = {id}"));
    }
    for tag in document["tags"].as_array().into_iter().flatten() {
        let name = tag["name"].as_str().unwrap_or_default();
        let about = tag["description"].as_str().unwrap_or_default();
        line(&mut file, format_args!("\n# {name}: {about}"));
        for (path, methods) in document["paths"].as_object().into_iter().flatten() {
            for (method, operation) in methods.as_object().into_iter().flatten() {
                if operation["tags"][0] == name {
                    request(&mut file, document, &method.to_uppercase(), path, operation);
                }
            }
        }
    }
    file
}

fn line(file: &mut String, words: std::fmt::Arguments<'_>) {
    // Writing into memory has no way to fail.
    let written = writeln!(file, "{words}");
    debug_assert!(written.is_ok());
}

fn request(file: &mut String, document: &Value, method: &str, path: &str, operation: &Value) {
    let word = |name: &str| operation[name].as_str().unwrap_or_default();
    let tag = operation["tags"][0].as_str().unwrap_or_default();
    let host = if ["administration", "operations"].contains(&tag) { "operators" } else { "shop" };
    let parameters: Vec<&Value> =
        operation["parameters"].as_array().into_iter().flatten().map(|it| resolved(document, it)).collect();
    line(file, format_args!("\n### {}", word("summary")));
    line(file, format_args!("# @name {}", word("operationId")));
    let optional: Vec<&str> = parameters
        .iter()
        .filter(|parameter| parameter["in"] == "query")
        .filter_map(|parameter| parameter["name"].as_str())
        .collect();
    if !optional.is_empty() {
        line(file, format_args!("# It also takes ?{}=", optional.join("=&")));
    }
    line(file, format_args!("{method} {{{{{host}}}}}{}", filled(path, &parameters)));
    if operation["security"].as_array().is_some_and(|any| !any.is_empty()) {
        let who = if path.starts_with("/v1/admin") { "administrator" } else { "shopper" };
        line(file, format_args!("Authorization: Bearer {{{{{who}}}}}"));
    }
    for parameter in &parameters {
        match parameter["name"].as_str().filter(|_| parameter["in"] == "header") {
            Some(name @ "Idempotency-Key") => {
                line(file, format_args!("{name}: {}-{{{{$timestamp}}}}", word("operationId")));
            }
            Some(name) if parameter["required"] == true => line(file, format_args!("{name}: *")),
            _ => {}
        }
    }
    let body = &operation["requestBody"]["content"]["application/json"]["example"];
    if !body.is_null() {
        let text = serde_json::to_string_pretty(body).unwrap_or_default();
        line(file, format_args!("Content-Type: application/json\n\n{}", with_variables(&text)));
    }
}

fn resolved<'d>(document: &'d Value, value: &'d Value) -> &'d Value {
    let pointer = value["$ref"].as_str().and_then(|pointer| pointer.strip_prefix('#'));
    pointer.and_then(|pointer| document.pointer(pointer)).unwrap_or(value)
}

/// The path with the examples of what stands in it.
fn filled(path: &str, parameters: &[&Value]) -> String {
    let in_path = parameters.iter().filter(|parameter| parameter["in"] == "path");
    let path = in_path.fold(path.to_owned(), |path, parameter| {
        let name = parameter["name"].as_str().unwrap_or_default();
        path.replace(&format!("{{{name}}}"), parameter["example"].as_str().unwrap_or(name))
    });
    with_variables(&path)
}

/// Ids in the places where they stand become the variables that hold them.
fn with_variables(text: &str) -> String {
    SUBJECTS.iter().fold(text.to_owned(), |text, (name, id)| text.replace(id, &format!("{{{{{name}}}}}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_has_a_request() {
        let document = super::super::document();
        let file = client_file(&document);
        let mut requests = 0;
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let name = operation["operationId"].as_str().unwrap();
                let (_, rest) = file.split_once(&format!("\n# @name {name}\n")).unwrap();
                let request = rest.lines().find(|line| !line.starts_with('#')).unwrap();
                assert!(request.starts_with(&format!("{} {{{{", method.to_uppercase())), "{request} {path}");
                requests += 1;
            }
        }
        assert_eq!(file.matches("\n### ").count(), requests);
        let unfilled = |line: &&str| line.contains("}}/") && line.replace("{{", "").contains('{');
        assert_eq!(file.lines().find(unfilled), None, "a path is not filled");
    }
}
