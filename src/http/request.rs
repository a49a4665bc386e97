//! What happens around every answer: the request gets an id, a problem is written out, the answer is counted.
//!
//! One middleware, without a box or a span a request. `X-Request-Id` is taken over when it is sane, made when it is
//! not, and stands in every answer. Only our own failures are worth a log line. Heads that are too large, and addresses that ask
//! too often, are turned away before anybody looks at what they want. Whoever asks by HEAD comes to the door for GET, and is told
//! what would be said without its being said (RFC 9110, section 9.3.2).

use std::convert::Infallible;
use std::future::{Future, Ready, ready as at_once};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_web::Error;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{Service, ServiceRequest, ServiceResponse, Transform};
use actix_web::http::Method;
use actix_web::http::header::{CACHE_CONTROL, CONNECTION, HeaderMap, HeaderName, HeaderValue};
use actix_web::web::Bytes;
use futures_util::future::Either;
use pin_project_lite::pin_project;

use super::client::Neighbourhood;
use super::problem::{Asked, Code, Problem};
use super::rate::AddressRate;
use super::refusal::internal;
use crate::clock::Clock;
use crate::logs::{self, Ended, Mark, Marked, Trace};
use crate::telemetry::{self, Answers};

/// The largest head of a request: its path and its headers.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// A longer id is replaced by our own.
const REQUEST_ID_LEN_MAX: usize = 128;

pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Put into an answer for which the payment provider was asked: how long that took says nothing about us.
pub struct Paying;

/// Watches over the doors of one path.
#[derive(Clone)]
pub struct Watch {
    /// The pattern, never the path that was asked for.
    pub route: &'static str,
    /// What is said here concerns one person: nobody on the way keeps a copy.
    pub private: bool,
    /// What is said here may be another node's answer, which bears its own id.
    pub passes_on: bool,
    pub clock: Clock,
    /// How often one address may ask. What is passed on is counted where it is answered.
    pub address_rate: Option<AddressRate>,
}

impl<S> Transform<S, ServiceRequest> for Watch
where
    S: Service<ServiceRequest, Response = ServiceResponse<BoxBody>, Error = Error>,
{
    type Response = ServiceResponse<BoxBody>;
    type Error = Error;
    type Transform = Watched<S>;
    type InitError = ();
    type Future = Ready<Result<Watched<S>, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        let Watch { route, private, passes_on, clock, address_rate } = self.clone();
        let answers = Answers::of(route);
        let watching = Watching { route, private, passes_on, clock, address_rate, answers };
        at_once(Ok(Watched { service, watch: Rc::new(watching) }))
    }
}

/// What is kept for the doors of one path on one thread.
struct Watching {
    route: &'static str,
    private: bool,
    passes_on: bool,
    clock: Clock,
    address_rate: Option<AddressRate>,
    answers: Answers,
}

impl Watching {
    /// Why nobody looks at what is asked for.
    fn refuses(&self, request: &ServiceRequest) -> Option<Problem> {
        if head_bytes(request) > HEAD_BYTES_MAX {
            return Some(head_too_large());
        }
        let rate = self.address_rate.as_ref()?;
        let from = Neighbourhood::asking(request.request())?;
        rate.take(from, request.method()).err()
    }
}

/// What the head takes on the wire, but for its first line's method and version.
fn head_bytes(request: &ServiceRequest) -> usize {
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    let headers = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    target + headers.sum::<usize>()
}

/// Whoever sends that has nothing more to say that would fit.
pub fn head_too_large() -> Problem {
    Problem::new(Code::HeadTooLarge, "The path and the headers have at most 16,384 bytes.")
        .number("limit", HEAD_BYTES_MAX as u64)
        .header(CONNECTION, HeaderValue::from_static("close"))
}

/// The doors of one path, watched over.
pub struct Watched<S> {
    service: S,
    watch: Rc<Watching>,
}

impl<S> Service<ServiceRequest> for Watched<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<BoxBody>, Error = Error>,
{
    type Response = ServiceResponse<BoxBody>;
    type Error = Error;
    type Future = Answering<Either<S::Future, Ready<Result<Self::Response, Error>>>>;

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&self, mut request: ServiceRequest) -> Self::Future {
        let clock = &self.watch.clock;
        let arrived = Arrived { at_ns: clock.nanos(), method: word_of(request.method()) };
        let headers = request.headers();
        let trace = Trace::begin(headers, || clock.chance());
        let mark = Mark { request_id: request_id(headers, clock), trace };
        if *request.method() == Method::HEAD {
            request.head_mut().method = Method::GET;
        }
        let future = match self.watch.refuses(&request) {
            None => Either::Left(self.service.call(request)),
            Some(problem) => Either::Right(at_once(Ok(request.error_response(problem)))),
        };
        Answering { future: Marked::new(future, mark), arrived, watch: self.watch.clone() }
    }
}

#[derive(Clone, Copy)]
struct Arrived {
    at_ns: u64,
    method: &'static str,
}

pin_project! {
    /// An answer on its way.
    pub struct Answering<F> {
        #[pin]
        future: Marked<F>,
        arrived: Arrived,
        watch: Rc<Watching>,
    }
}

impl<F> Future for Answering<F>
where
    F: Future<Output = Result<ServiceResponse<BoxBody>, Error>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let answer = ready!(this.future.as_mut().poll(cx))?;
        let Some(mark) = this.future.take_mark() else { return Poll::Ready(Ok(answer)) };
        Poll::Ready(Ok(finish(answer, *this.arrived, mark, this.watch)))
    }
}

fn finish(
    answer: ServiceResponse<BoxBody>,
    asked: Arrived,
    mark: Mark,
    watch: &Watching,
) -> ServiceResponse<BoxBody> {
    let mut answer = if answer.response().error().is_some() {
        written_out(answer, asked.method, &mark, &watch.clock)
    } else {
        answer
    };
    let took = Duration::from_nanos(watch.clock.nanos().saturating_sub(asked.at_ns));
    let (method, status) = (asked.method, answer.status().as_u16());
    let paying = answer.response().extensions().contains::<Paying>();
    watch.answers.count(method, status, took, paying);
    if mark.trace.is_some() {
        let at = Duration::from_millis(watch.clock.now().0.unsigned_abs());
        mark.ended(&Ended { method, route: watch.route, status, at, took });
    }
    if !watch.passes_on || !answer.headers().contains_key(X_REQUEST_ID) {
        answer.headers_mut().insert(X_REQUEST_ID, mark.request_id);
    }
    if watch.private && !answer.headers().contains_key(CACHE_CONTROL) {
        answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    if method == Method::HEAD.as_str() {
        answer.map_body(|_, body| Unsaid(body.size()).boxed())
    } else {
        answer
    }
}

/// A body of which only the length is told.
struct Unsaid(BodySize);

impl MessageBody for Unsaid {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        self.0
    }

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        Poll::Ready(None)
    }
}

/// Puts the whole problem in the place of the bare status.
fn written_out(
    answer: ServiceResponse<BoxBody>,
    method: &'static str,
    mark: &Mark,
    clock: &Clock,
) -> ServiceResponse<BoxBody> {
    let path = answer.request().path();
    let request_id = mark.request_id.to_str().unwrap_or_default();
    let words = Asked { path, request_id, chance: clock.chance() as u32, now: clock.now() };
    let error = answer.response().error();
    let (code, body) = match error.and_then(|error| error.as_error::<Problem>()) {
        Some(problem) => (problem.code(), problem.answer(words)),
        // Not one of ours: something inside actix-web failed.
        None => (internal().code(), internal().answer(words)),
    };
    telemetry::refused(code.word());
    if code.status() == 500 {
        let error = error.map(ToString::to_string).unwrap_or_default();
        logs::about(&mut Some(mark.clone()), || {
            tracing::error!(method, path, %error, "request {request_id} was answered with an internal error");
        });
    }
    answer.into_response(body)
}

/// The client's id if it is visible ASCII of a sane length, else one of ours.
fn request_id(headers: &HeaderMap, clock: &Clock) -> HeaderValue {
    match headers.get(X_REQUEST_ID) {
        Some(given) if is_sane(given.as_bytes()) => given.clone(),
        _ => made_id(clock.chance()),
    }
}

pub(super) fn is_sane(id: &[u8]) -> bool {
    !id.is_empty() && id.len() <= REQUEST_ID_LEN_MAX && id.iter().all(u8::is_ascii_graphic)
}

/// 96 bits of chance in hexadecimal.
fn made_id(chance: u128) -> HeaderValue {
    let mut letters = [0; 24];
    for (place, letter) in letters.iter_mut().enumerate() {
        *letter = b"0123456789abcdef"[(chance >> (4 * place)) as usize & 15];
    }
    HeaderValue::from_bytes(&letters).unwrap_or(HeaderValue::from_static("none"))
}

/// Only the methods we know: a label must not grow with what strangers send.
fn word_of(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_sane_id_is_taken_over() {
        assert!(is_sane(b"build-42/a.b:c"));
        for id in [&b""[..], b"two words", b"tab\t", &[b'x'; 129], "schön".as_bytes()] {
            assert!(!is_sane(id));
        }
        assert_eq!(made_id(0x1f).to_str().unwrap(), "f10000000000000000000000");
    }
}
