//! The two small pages behind the links in letters: *yes, this is my address*, and *my new password is …*.
//!
//! Opening one does nothing: mail scanners open every link. The token stands behind the `#`, which no browser sends;
//! the page's script reads it and hands it over when somebody presses the button. Nothing else is loaded, and nobody
//! may frame them.

use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::{HttpRequest, HttpResponse};

use super::user::locale;
use crate::domain::user::Locale;

const VERIFY_KO: &str = include_str!("verify.ko.html");
const VERIFY_EN: &str = include_str!("verify.en.html");
const RESET_KO: &str = include_str!("reset.ko.html");
const RESET_EN: &str = include_str!("reset.en.html");
const SCRIPT: &str = include_str!("link.js");
const STYLE: &str = include_str!("link.css");

const POLICY: &str =
    "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What every page says to a browser, whatever its own policy of content is.
pub const GUARDS: [(HeaderName, &str); 5] = [
    (header::REFERRER_POLICY, "no-referrer"),
    (header::STRICT_TRANSPORT_SECURITY, "max-age=31536000; includeSubDomains"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// `GET /verify`: the page behind a verification letter.
pub async fn verify(request: HttpRequest) -> HttpResponse {
    html(&request, VERIFY_KO, VERIFY_EN)
}

/// `GET /reset`: the page behind a reset letter.
pub async fn reset(request: HttpRequest) -> HttpResponse {
    html(&request, RESET_KO, RESET_EN)
}

/// `GET /link.js`: what both pages do.
pub async fn script() -> HttpResponse {
    file("text/javascript; charset=utf-8", SCRIPT)
}

/// `GET /link.css`: what both pages look like.
pub async fn style() -> HttpResponse {
    file("text/css; charset=utf-8", STYLE)
}

fn html(request: &HttpRequest, ko: &'static str, en: &'static str) -> HttpResponse {
    let text = match locale(request) {
        Locale::Ko => ko,
        Locale::En => en,
    };
    let mut page = file("text/html; charset=utf-8", text);
    page.headers_mut().insert(header::VARY, HeaderValue::from_static("accept-language"));
    page.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    page
}

fn file(kind: &'static str, text: &'static str) -> HttpResponse {
    let mut answer = HttpResponse::Ok();
    answer.insert_header((header::CONTENT_TYPE, HeaderValue::from_static(kind)));
    answer.insert_header((header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)));
    for (name, value) in GUARDS {
        answer.insert_header((name, HeaderValue::from_static(value)));
    }
    answer.body(text)
}
