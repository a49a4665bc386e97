//! Every *no* as the client hears it: problem details after RFC 9457.
//!
//! One table holds every code with its status and its title; nowhere else stands a status that refuses. A problem
//! carries the numbers that explain it. The middleware in `request` writes it out, because it alone knows the
//! request's id.

use std::borrow::Cow;
use std::fmt;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpResponse, ResponseError};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::idempotency::REPLAYED;
use super::time::Stamp;
use crate::domain::amount::Money;
use crate::domain::stock::Millis;

macro_rules! codes {
    ($( $name:ident $status:literal $word:literal $title:literal; )*) => {
        /// The stable word of a problem.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code { $( $name ),* }

        impl Code {
            pub const ALL: &'static [Code] = &[$( Code::$name ),*];

            pub fn word(self) -> &'static str {
                match self { $( Code::$name => $word ),* }
            }

            pub fn status(self) -> u16 {
                match self { $( Code::$name => $status ),* }
            }

            pub fn title(self) -> &'static str {
                match self { $( Code::$name => $title ),* }
            }
        }
    };
}

codes! {
    MalformedJson         400 "malformed_json"          "The body is not JSON";
    InvalidSignature      400 "invalid_signature"       "The signature is not the provider's";
    InvalidDpopProof      400 "invalid_dpop_proof"      "The proof of a key is not valid";
    Unauthenticated       401 "unauthenticated"         "An access token is needed";
    TokenExpired          401 "token_expired"           "The access token has expired";
    PaymentDeclined       402 "payment_declined"        "The payment was declined";
    Forbidden             403 "forbidden"               "The role does not allow it";
    EmailNotVerified      403 "email_not_verified"      "The e-mail address is not verified yet";
    ReauthenticationRequired 403 "reauthentication_required" "The log-in is too long ago";
    NotFound              404 "not_found"               "There is nothing here";
    MethodNotAllowed      405 "method_not_allowed"      "The method does not fit the path";
    RequestTimeout        408 "request_timeout"         "The body took too long to come";
    SoldOut               409 "sold_out"                "Sold out";
    SaleNotOpen           409 "sale_not_open"           "The sale has not opened yet";
    SaleClosed            409 "sale_closed"             "The sale is over";
    SalePaused            409 "sale_paused"             "The sale is paused";
    CustomerLimitExceeded 409 "customer_limit_exceeded" "More than one customer may have";
    OrderStateConflict    409 "order_state_conflict"    "The present state does not allow it";
    NotCancellable        409 "not_cancellable"         "It has shipped";
    NotReturnable         409 "not_returnable"          "It cannot be sent back now";
    PriceChanged          409 "price_changed"           "The price has changed";
    PhoneTaken            409 "phone_taken"             "The telephone number is taken";
    IdempotencyInProgress 409 "idempotency_in_progress" "The first request with this key is still running";
    HoldExpired           410 "hold_expired"            "The hold has expired";
    LinkExpired           410 "link_expired"            "The link is no longer good";
    PreconditionFailed    412 "precondition_failed"     "It has changed since it was read";
    PayloadTooLarge       413 "payload_too_large"       "The body is too large";
    UnsupportedMediaType  415 "unsupported_media_type"  "The body must be application/json";
    ValidationFailed      422 "validation_failed"       "The request is not valid";
    IdempotencyKeyReused  422 "idempotency_key_reused"  "The key belongs to another request";
    PreconditionRequired  428 "precondition_required"   "If-Match is needed";
    RateLimited           429 "rate_limited"            "Too many requests";
    HeadTooLarge          431 "head_too_large"          "The head of the request is too large";
    Internal              500 "internal"                "Something went wrong on our side";
    Overloaded            503 "overloaded"              "Too much is waiting; nothing was done";
    OwnerUnavailable      503 "owner_unavailable"       "Not available at the moment; nothing was done";
    PaymentUnavailable    503 "payment_unavailable"     "No payment can be made at the moment; nothing was charged";
    OutcomeUnknown        503 "outcome_unknown"         "It is not known whether it was done";
}

/// One number, or word, that explains a problem.
#[derive(Debug, Clone, PartialEq)]
pub enum Fact {
    Number(u64),
    Signed(i64),
    Word(String),
    Time(Millis),
    Money(Money),
    /// Something that the answer would have been.
    Object(serde_json::Value),
}

/// One field that was wrong. The pointer is a JSON Pointer (RFC 6901) into the body, or the name of a query
/// parameter or header.
#[derive(Debug, Clone, Serialize)]
pub struct FieldError {
    pub pointer: String,
    pub detail: String,
}

/// When to come back.
#[derive(Debug, Clone, Copy)]
enum Retry {
    After { ms: u64 },
    At(Millis),
}

#[derive(Debug)]
struct Inner {
    code: Code,
    detail: Cow<'static, str>,
    facts: Vec<(&'static str, Fact)>,
    errors: Vec<FieldError>,
    retry: Option<Retry>,
    headers: Vec<(header::HeaderName, HeaderValue)>,
}

/// An answer that says no.
#[derive(Debug)]
pub struct Problem(Box<Inner>);

/// What a problem does not know about the request it answers.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub path: &'a str,
    pub request_id: &'a str,
    /// Spreads the waits, so that the refused do not come back all at once.
    pub chance: u32,
    pub now: Millis,
}

impl Problem {
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Problem {
        let (detail, facts, errors) = (detail.into(), Vec::new(), Vec::new());
        Problem(Box::new(Inner { code, detail, facts, errors, retry: None, headers: Vec::new() }))
    }

    /// 422 for one field.
    pub fn field(pointer: impl Into<String>, detail: impl Into<String>) -> Problem {
        Problem::new(Code::ValidationFailed, "A field is not valid.").and_field(pointer, detail)
    }

    pub fn not_found(what: &'static str) -> Problem {
        Problem::new(Code::NotFound, what)
    }

    pub fn and_field(mut self, pointer: impl Into<String>, detail: impl Into<String>) -> Problem {
        self.0.errors.push(FieldError { pointer: pointer.into(), detail: detail.into() });
        self
    }

    pub fn with(mut self, name: &'static str, fact: Fact) -> Problem {
        self.0.facts.push((name, fact));
        self
    }

    pub fn number(self, name: &'static str, number: impl Into<u64>) -> Problem {
        self.with(name, Fact::Number(number.into()))
    }

    pub fn retry_after(mut self, ms: u64) -> Problem {
        self.0.retry = Some(Retry::After { ms });
        self
    }

    /// Come back then.
    pub fn retry_at(mut self, at: Millis) -> Problem {
        self.0.retry = Some(Retry::At(at));
        self
    }

    pub fn header(mut self, name: header::HeaderName, value: HeaderValue) -> Problem {
        self.0.headers.push((name, value));
        self
    }

    /// It was said before, to the same request.
    pub fn replayed(self) -> Problem {
        let (name, value) = REPLAYED;
        self.header(name, value)
    }

    pub fn code(&self) -> Code {
        self.0.code
    }

    fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.0.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The whole answer.
    pub fn answer(&self, asked: Asked<'_>) -> HttpResponse {
        let mut body = Vec::with_capacity(512);
        // Writing into memory has no way to fail.
        let written = serde_json::to_writer(&mut body, &Body { problem: &self.0, asked });
        debug_assert!(written.is_ok());
        let mut answer = HttpResponse::build(self.status());
        answer.insert_header((header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json")));
        for (name, value) in &self.0.headers {
            // The server writes this one itself, and would leave ours out.
            if *name == header::CONNECTION {
                answer.force_close();
            }
            answer.insert_header((name.clone(), value.clone()));
        }
        if let Some(retry) = self.0.retry {
            let ms = match retry {
                Retry::After { ms } => ms,
                Retry::At(at) => at.0.saturating_sub(asked.now.0).max(0).unsigned_abs(),
            };
            let seconds = ms.div_ceil(1000).max(1) + u64::from(asked.chance % 3);
            answer.insert_header((header::RETRY_AFTER, HeaderValue::from(seconds)));
        }
        answer.body(body)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}: {}", self.0.code.word(), self.0.detail)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.status()
    }

    /// Only the status: the middleware puts the rest in its place.
    fn error_response(&self) -> HttpResponse {
        HttpResponse::new(self.status())
    }
}

struct Body<'a> {
    problem: &'a Inner,
    asked: Asked<'a>,
}

impl Serialize for Body<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let Inner { code, detail, facts, errors, .. } = self.problem;
        let mut map = s.serialize_map(None)?;
        map.serialize_entry("type", &Urn(code.word()))?;
        map.serialize_entry("title", code.title())?;
        map.serialize_entry("status", &code.status())?;
        map.serialize_entry("code", code.word())?;
        map.serialize_entry("detail", detail)?;
        map.serialize_entry("instance", self.asked.path)?;
        map.serialize_entry("request_id", self.asked.request_id)?;
        for (name, fact) in facts {
            map.serialize_entry(name, fact)?;
        }
        if !errors.is_empty() {
            map.serialize_entry("errors", errors)?;
        }
        map.end()
    }
}

impl Serialize for Fact {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Fact::Number(number) => s.serialize_u64(*number),
            Fact::Signed(number) => s.serialize_i64(*number),
            Fact::Word(word) => s.serialize_str(word),
            Fact::Time(at) => Stamp(*at).serialize(s),
            Fact::Money(money) => money.serialize(s),
            Fact::Object(object) => object.serialize(s),
        }
    }
}

/// `urn:stockade:problem:sold_out`
struct Urn(&'static str);

impl Serialize for Urn {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&format_args!("urn:stockade:problem:{}", self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::body::to_bytes;

    #[actix_web::test]
    async fn a_problem_explains_itself() {
        let problem = Problem::new(Code::SoldOut, "2 were asked for.")
            .number("available", 1u32)
            .number("requested", 2u32);
        let answer =
            problem.answer(Asked { path: "/v1/orders", request_id: "r1", chance: 0, now: Millis(0) });
        assert_eq!(answer.status(), 409);
        let body = String::from_utf8(to_bytes(answer.into_body()).await.unwrap().to_vec()).unwrap();
        assert_eq!(
            body,
            r#"{"type":"urn:stockade:problem:sold_out","title":"Sold out","status":409,"code":"sold_out","detail":"2 were asked for.","instance":"/v1/orders","request_id":"r1","available":1,"requested":2}"#
        );
    }

    #[test]
    fn a_wait_is_spread() {
        let waits = |problem: &Problem| -> Vec<String> {
            let answers = (0..3).map(|chance| {
                problem.answer(Asked { path: "", request_id: "", chance, now: Millis(10_000) })
            });
            let word = |answer: HttpResponse| {
                answer.headers().get(header::RETRY_AFTER).unwrap().to_str().unwrap().to_owned()
            };
            answers.map(word).collect()
        };
        let problem = |why| Problem::new(why, "");
        assert_eq!(waits(&problem(Code::Overloaded).retry_after(200)), ["1", "2", "3"]);
        assert_eq!(waits(&problem(Code::SaleNotOpen).retry_at(Millis(70_500))), ["61", "62", "63"]);
        assert_eq!(waits(&problem(Code::SaleNotOpen).retry_at(Millis(9_000))), ["1", "2", "3"]);
    }
}
