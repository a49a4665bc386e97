//! The API's description, and a page to read it: both are in the binary.

use std::sync::{Arc, LazyLock};

use actix_web::HttpResponse;
use actix_web::http::header::{self, HeaderValue};
use actix_web::web::{self, Bytes};
use utoipa_swagger_ui::Config;

use super::openapi;
use super::page::GUARDS;
use super::problem::Problem;
use super::refusal::internal;

static DOCUMENT: LazyLock<Bytes> =
    LazyLock::new(|| Bytes::from(serde_json::to_vec(&openapi::document()).unwrap_or_default()));
static SETTINGS: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| Arc::new(Config::from("/openapi.json")));

/// The page writes styles and small pictures into itself; scripts come from us alone.
const POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; object-src 'none'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `GET /openapi.json`.
pub async fn openapi() -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, HeaderValue::from_static("application/json")))
        .body(DOCUMENT.clone())
}

/// `GET /docs`: the page's files lie beside it, so its address ends with a slash.
pub async fn entrance() -> HttpResponse {
    HttpResponse::PermanentRedirect()
        .insert_header((header::LOCATION, HeaderValue::from_static("/docs/")))
        .finish()
}

/// `GET /docs/…`.
pub async fn page(file: web::Path<String>) -> Result<HttpResponse, Problem> {
    let file = utoipa_swagger_ui::serve(&file, SETTINGS.clone())
        .map_err(|_| internal())?
        .ok_or_else(|| Problem::not_found("The reference has no such file."))?;
    let mut answer = HttpResponse::Ok();
    answer.insert_header((header::CONTENT_TYPE, file.content_type));
    answer.insert_header((header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)));
    for (name, value) in GUARDS {
        answer.insert_header((name, HeaderValue::from_static(value)));
    }
    if file.gzpipped {
        answer.insert_header((header::CONTENT_ENCODING, HeaderValue::from_static("gzip")));
    }
    Ok(answer.body(file.bytes.into_owned()))
}
