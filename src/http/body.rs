//! The body of a request, read and parsed: one JSON value of the shape the door names, or a problem.
//!
//! What is not JSON is 400; JSON of another shape is 422 and names the field. The second reading that finds the
//! field happens only when the first has failed.

mod strict;

use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::error::PayloadError;
use actix_web::http::header::{self, HeaderValue};
use actix_web::web::{Bytes, BytesMut};
use actix_web::{FromRequest, HttpRequest};
use futures_util::{Stream, StreamExt, stream};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer};
use tokio::time::{Sleep, sleep, timeout};

use self::strict::Strict;
use super::problem::{Code, Problem};

/// The largest body of a request.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// How long a body may take to come.
const BODY_WITHIN: Duration = Duration::from_secs(10);

/// Waits until all of a body is there, or as much of it as there is when it is too large, broken, or too slow. What is wrong with it
/// is said by whoever reads it.
pub async fn whole(mut payload: Payload) -> Payload {
    let mut bytes = BytesMut::new();
    let reading = async {
        while let Some(piece) = payload.next().await {
            match piece {
                Ok(piece) => bytes.extend_from_slice(&piece),
                Err(error) => return Some(error),
            }
            if bytes.len() > BODY_BYTES_MAX {
                break;
            }
        }
        None
    };
    let read = timeout(BODY_WITHIN, reading).await;
    let first = stream::iter([Ok(bytes.freeze())]);
    match read {
        Ok(Some(error)) => Payload::Stream { payload: Box::pin(first.chain(stream::iter([Err(error)]))) },
        // All of it, if nothing follows.
        Ok(None) | Err(_) => Payload::Stream { payload: Box::pin(first.chain(payload)) },
    }
}

/// The body, parsed.
#[derive(Debug)]
pub struct Body<T>(pub T);

/// The body as it came, whatever it is: for those whose bytes are signed.
#[derive(Debug)]
pub struct Raw(pub Vec<u8>);

impl FromRequest for Raw {
    type Error = Problem;
    type Future = Reading<Raw>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        Reading::start(request, payload, |bytes| Ok(Raw(bytes.to_vec())), Kind::Any)
    }
}

/// A body that has nothing to say: none at all, or `{}`.
#[derive(Debug)]
pub struct NoBody;

impl<T: DeserializeOwned + 'static> FromRequest for Body<T> {
    type Error = Problem;
    type Future = Reading<Body<T>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        Reading::start(request, payload, |bytes| json(bytes).map(Body), Kind::Json)
    }
}

impl FromRequest for NoBody {
    type Error = Problem;
    type Future = Reading<NoBody>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Nothing {}
        let parse = |bytes: &[u8]| {
            if bytes.is_empty() { Ok(NoBody) } else { json::<Nothing>(bytes).map(|_| NoBody) }
        };
        Reading::start(request, payload, parse, Kind::JsonOrNothing)
    }
}

/// A body that is coming in.
pub struct Reading<T> {
    state: State,
    parse: fn(&[u8]) -> Result<T, Problem>,
}

/// What a body may be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Json,
    JsonOrNothing,
    Any,
}

enum State {
    Refused(Option<Problem>),
    /// Whether the body is said to be JSON; a body that is not there need not be.
    Reading {
        payload: Payload,
        first: Bytes,
        more: BytesMut,
        is_json: bool,
        /// From the first time that we wait: a tenth of a microsecond, for a connection that nobody holds for nothing.
        deadline: Option<Pin<Box<Sleep>>>,
    },
}

impl<T> Reading<T> {
    fn start(
        request: &HttpRequest,
        payload: &mut Payload,
        parse: fn(&[u8]) -> Result<T, Problem>,
        kind: Kind,
    ) -> Reading<T> {
        let is_json = kind == Kind::Any || is_json(request);
        let state = match content_length(request) {
            Some(length) if length > BODY_BYTES_MAX as u64 => State::Refused(Some(too_large())),
            _ if kind == Kind::Json && !is_json => State::Refused(Some(not_json())),
            _ => State::Reading {
                payload: payload.take(),
                first: Bytes::new(),
                more: BytesMut::new(),
                is_json,
                deadline: None,
            },
        };
        Reading { state, parse }
    }
}

impl<T> Future for Reading<T> {
    type Output = Result<T, Problem>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Reading { state, parse } = &mut *self;
        let (payload, first, more, is_json, deadline) = match state {
            State::Refused(why) => return Poll::Ready(Err(why.take().unwrap_or_else(too_large))),
            State::Reading { payload, first, more, is_json, deadline } => {
                (payload, first, more, *is_json, deadline)
            }
        };
        loop {
            match Pin::new(&mut *payload).poll_next(cx) {
                Poll::Pending => {
                    let deadline = deadline.get_or_insert_with(|| Box::pin(sleep(BODY_WITHIN)));
                    return deadline.as_mut().poll(cx).map(|()| Err(too_slow()));
                }
                // Nearly every body comes in one piece, and is parsed where it lies.
                Poll::Ready(Some(Ok(piece))) if first.is_empty() && more.is_empty() => *first = piece,
                Poll::Ready(Some(Ok(piece))) => {
                    more.extend_from_slice(&std::mem::take(first));
                    more.extend_from_slice(&piece);
                }
                Poll::Ready(Some(Err(PayloadError::Overflow))) => return Poll::Ready(Err(too_large())),
                Poll::Ready(Some(Err(_))) => {
                    return Poll::Ready(Err(Problem::new(
                        Code::MalformedJson,
                        "The body ended before it was complete.",
                    )));
                }
                Poll::Ready(None) => break,
            }
            if first.len() + more.len() > BODY_BYTES_MAX {
                return Poll::Ready(Err(too_large()));
            }
        }
        let bytes: &[u8] = if more.is_empty() { first } else { more };
        if !bytes.is_empty() && !is_json {
            return Poll::Ready(Err(not_json()));
        }
        Poll::Ready(parse(bytes))
    }
}

fn too_slow() -> Problem {
    Problem::new(Code::RequestTimeout, "The body did not come within 10 seconds.")
        .header(header::CONNECTION, HeaderValue::from_static("close"))
}

fn too_large() -> Problem {
    Problem::new(Code::PayloadTooLarge, "A body has at most 65,536 bytes.")
        .number("limit", BODY_BYTES_MAX as u64)
}

fn not_json() -> Problem {
    Problem::new(Code::UnsupportedMediaType, "Send the body with Content-Type: application/json.")
}

fn content_length(request: &HttpRequest) -> Option<u64> {
    request.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn is_json(request: &HttpRequest) -> bool {
    let Some(Ok(said)) = request.headers().get(header::CONTENT_TYPE).map(|value| value.to_str()) else {
        return false;
    };
    let essence = said.split_once(';').map_or(said, |(essence, _)| essence);
    essence.trim().eq_ignore_ascii_case("application/json")
}

pub(super) fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    read(bytes).map_err(|first| why_not::<T>(bytes, &first))
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> serde_json::Result<T> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = T::deserialize(Strict(&mut reader))?;
    reader.end()?;
    Ok(value)
}

/// Says what was wrong with a body that could not be parsed.
#[cold]
fn why_not<T: DeserializeOwned>(bytes: &[u8], first: &serde_json::Error) -> Problem {
    let place = |error: &serde_json::Error| (error.line(), error.column());
    // What cannot be held here may be JSON all the same: numbers have no end there. Nobody but the grammar says what is not.
    let broken = match std::str::from_utf8(bytes) {
        Ok(text) => serde_json::from_str::<IgnoredAny>(text).err().map(|error| place(&error)),
        Err(_) => Some(place(first)),
    };
    if let Some((line, column)) = broken {
        let detail = format!("The body is not JSON (line {line}, column {column}).");
        return Problem::new(Code::MalformedJson, detail);
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    match serde_path_to_error::deserialize::<_, T>(Strict(&mut reader)) {
        Ok(_) => Problem::field("", "not valid"),
        Err(error) => {
            let pointer = pointer(error.path());
            Problem::field(pointer, without_place(&error.into_inner().to_string()))
        }
    }
}

fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut pointer = String::new();
    for segment in path {
        pointer.push('/');
        match segment {
            Segment::Seq { index } => pointer.push_str(&index.to_string()),
            Segment::Map { key } => pointer.push_str(&key.replace('~', "~0").replace('/', "~1")),
            Segment::Enum { variant } => pointer.push_str(variant),
            Segment::Unknown => pointer.push('?'),
        }
    }
    pointer
}

/// serde_json ends its sentences with a line and a column; the pointer says it better.
fn without_place(sentence: &str) -> String {
    sentence.rsplit_once(" at line ").map_or(sentence, |(words, _)| words).to_owned()
}

/// A typed id as a client wrote it: a word that is no such id names nothing, and nothing is 404.
#[derive(Debug, Clone, Copy)]
pub struct Named<T>(pub Option<T>);

impl<'de, T: FromStr> Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Named<T>, D::Error> {
        Ok(Named(Cow::<str>::deserialize(d)?.parse().ok()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Shape {
        items: Vec<Item>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Item {
        quantity: u32,
        #[serde(default)]
        kind: Option<Kind>,
        #[serde(default)]
        note: Option<Box<Note>>,
        #[serde(default)]
        weight: f64,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Kind {
        Gift,
    }

    #[derive(Debug, Deserialize)]
    #[allow(dead_code)]
    struct Note {
        text: String,
    }

    #[test]
    fn what_is_wrong_is_named() {
        let told = |body: &str| format!("{:?}", json::<Shape>(body.as_bytes()).unwrap_err());
        for body in [
            "",
            "{",
            "nonsense",
            r#"{"items":[]} x"#,
            r#"{"items":[{"quantity":1}]"#,
            r#"{"zzz":1,"items":[}"#,
        ] {
            assert!(told(body).contains("MalformedJson"), "{body}: {}", told(body));
        }
        for (body, pointer) in [
            (r#"{"items":[{"quantity":1},{"quantity":-1}]}"#, "/items/1/quantity"),
            (r#"{"items":[{"quantity":"1"}]}"#, "/items/0/quantity"),
            (r#"{"items":[{"quantity":1.5}]}"#, "/items/0/quantity"),
            (r#"{"items":[{"quantity":4294967296}]}"#, "/items/0/quantity"),
            (r#"{"items":[{"quantity":1,"price":3}]}"#, "/items/0/price"),
            (r#"{"items":[{"quantity":1,"quantity":1}]}"#, "/items/0"),
            (r#"{"items":[{}]}"#, "/items/0"),
            (r#"{"items":{}}"#, "/items"),
            (r#"{"item":[]}"#, "/item"),
            ("[]", ""),
            ("null", ""),
            // A list is never read as an object, however well its places would fit.
            ("[[]]", ""),
            (r#"{"items":[[1]]}"#, "/items/0"),
            (r#"{"items":[{"quantity":1},[1,"gift"]]}"#, "/items/1"),
            (r#"{"items":[{"quantity":1,"note":["x"]}]}"#, "/items/0/note"),
            // A word is a word, and nothing else.
            (r#"{"items":[{"quantity":1,"kind":"loan"}]}"#, "/items/0/kind"),
            (r#"{"items":[{"quantity":1,"kind":{"gift":null}}]}"#, "/items/0/kind"),
            (r#"{"items":[{"quantity":1,"kind":["gift"]}]}"#, "/items/0/kind"),
            (r#"{"items":[{"quantity":1,"kind":7}]}"#, "/items/0/kind"),
            // JSON all the same: numbers have no end there, and letters need no partner.
            (r#"{"items":[{"quantity":1e999}]}"#, "/items/0/quantity"),
            (r#"{"items":[{"quantity":1,"weight":-1e999}]}"#, "/items/0/weight"),
            (r#"{"items":[{"quantity":1,"note":{"text":"\ud800"}}]}"#, "/items/0/note/text"),
        ] {
            let told = told(body);
            assert!(
                told.contains("ValidationFailed") && told.contains(&format!("pointer: {pointer:?}")),
                "{body}: {told}"
            );
        }
        assert!(
            json::<Shape>(br#" {"items":[{"quantity":1,"kind":"gift","note":{"text":"x"},"weight":0.5},{"quantity":2,"kind":null}]} "#)
                .is_ok()
        );
        // Where it breaks, not where it first differs.
        assert!(told("{\"zzz\":1,\n\"items\":}").contains("line 2, column 9"));
        let torn = json::<Shape>(b"{\"items\":\"\xff\"}").unwrap_err();
        assert!(format!("{torn:?}").contains("MalformedJson"));
        let deep = format!("{{\"items\":{}{}}}", "[".repeat(5000), "]".repeat(5000));
        assert!(json::<Shape>(deep.as_bytes()).is_err());
    }
}
