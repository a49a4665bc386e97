//! Parsers of the doors, for `crate::fuzz`: bodies, headers, addresses, and what is written into tables.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{Method, Uri};
use actix_web::test::TestRequest;
use actix_web::{FromRequest, HttpRequest, web};
use serde::de::DeserializeOwned;

use super::body::json;
use super::cart::{CheckoutRequest, QuantityRequest};
use super::client::{Neighbourhood, Proxies, X_FORWARDED_FOR};
use super::csv::{self, Form};
use super::delivery::ReturnRequest;
use super::idempotency::IdempotencyKey;
use super::order::{self, ItemRequest, OrderRequest, PreviewRequest};
use super::payment::{PayRequest, RefundRequest};
use super::problem::{Asked, Problem};
use super::product::{self, ProductPatch, ProductRequest, RestockRequest};
use super::query::{Id, Line, Name, Query};
use super::session::{LogInRequest, RefreshRequest};
use super::time::Stamp;
use super::user::{
    EmailRequest, EraseRequest, NewEmailRequest, PasswordRequest, ProfilePatch, ResetRequest, SignUpRequest,
    VerifyRequest, locale,
};
use super::webhook_endpoint::{EndpointPatch, EndpointRequest};
use super::wish;
use crate::domain::id::{OrderId, ProductId, UserId};
use crate::domain::stock::Millis;

type Reading = fn(&[u8]) -> Result<(), Problem>;

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<(), Problem> {
    json::<T>(body).map(drop)
}

fn lines(asked: &[ItemRequest]) -> Result<(), Problem> {
    let items = order::items(asked)?;
    assert!(
        (1..=50).contains(&items.len())
            && items.iter().all(|item| (1..=1_000).contains(&item.quantity.get()))
    );
    let digest = order::fingerprint(&items, None).digest();
    let backwards: Vec<_> = items.iter().rev().copied().collect();
    assert_eq!(digest, order::fingerprint(&backwards, None).digest(), "the order of lines does not matter");
    Ok(())
}

/// Each shape that a door takes, by the letter that a body begins with here.
const SHAPES: &[Reading] = &[
    |body| json::<OrderRequest>(body).and_then(|asked| lines(&asked.items)),
    |body| json::<PreviewRequest>(body).and_then(|asked| lines(&asked.items)),
    read::<PayRequest>,
    read::<RefundRequest>,
    read::<ReturnRequest>,
    read::<CheckoutRequest>,
    read::<QuantityRequest>,
    |body| json::<ProductRequest>(body)?.parsed().map(drop),
    read::<ProductPatch>,
    |body| json::<RestockRequest>(body)?.checked().map(drop),
    read::<SignUpRequest>,
    read::<VerifyRequest>,
    read::<EmailRequest>,
    read::<NewEmailRequest>,
    read::<PasswordRequest>,
    read::<ProfilePatch>,
    read::<ResetRequest>,
    read::<EraseRequest>,
    read::<LogInRequest>,
    read::<RefreshRequest>,
    |body| json::<EndpointRequest>(body)?.parsed().map(drop),
    |body| json::<EndpointPatch>(body)?.parsed().map(drop),
];

/// A letter that says which shape, and a body: it has the shape or is refused in words of ours.
pub fn bodies(bytes: &[u8]) {
    let Some((shape, body)) = bytes.split_first() else { return };
    let shape = SHAPES[usize::from(shape.wrapping_sub(b'a')) % SHAPES.len()];
    if let Err(problem) = shape(body) {
        written_out(&problem);
    }
}

fn written_out(problem: &Problem) {
    let answer = problem.answer(Asked { path: "/", request_id: "fuzz", chance: 1, now: Millis(0) });
    assert!(answer.status().is_client_error(), "{problem}");
}

fn told<T>(read: Result<T, Problem>) -> Option<T> {
    read.inspect_err(written_out).ok()
}

/// Headers as they come, a line each; those that no connection would bring in are left out.
pub fn headers(bytes: &[u8]) {
    let mut asking = TestRequest::default().method(Method::POST);
    for line in bytes.split(|byte| *byte == b'\n').take(64) {
        let at = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let value = line.get(at + 1..).unwrap_or_default();
        let (Ok(name), Ok(value)) = (HeaderName::from_bytes(&line[..at]), HeaderValue::from_bytes(value))
        else {
            continue;
        };
        asking = asking.append_header((name, value));
    }
    let request = asking.to_http_request();
    if let Some(IdempotencyKey(key)) = told(of::<IdempotencyKey>(&request)) {
        let named = request.headers().get_all("idempotency-key").count();
        assert_eq!(usize::from(key.is_some()), named, "one key or none");
    }
    let _ = product::if_match(&request);
    let _ = product::is_known(&request, &HeaderValue::from_static("\"a-b\""));
    let _ = product::last_seen(&request);
    let _ = locale(&request);
    let _ = super::auth::bearer(&request);
    told(of::<Form>(&request));
}

fn of<T: FromRequest<Error = Problem, Future = std::future::Ready<Result<T, Problem>>>>(
    request: &HttpRequest,
) -> Result<T, Problem> {
    T::from_request(request, &mut actix_web::dev::Payload::None).into_inner()
}

/// What stands behind the question mark, and on a second line what stands in the place of an id.
pub fn addresses(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (query, word) = text.split_once('\n').unwrap_or((&text, ""));
    let Ok(uri) = format!("/?{query}").parse::<Uri>() else { return };
    let asking = TestRequest::with_uri(&uri.to_string());
    let params = ["id", "line", "name"].into_iter();
    let request = params.fold(asking, |asking, name| asking.param(name, word.to_owned())).to_http_request();
    if let Some(Id(order)) = told(of::<Id<OrderId>>(&request)) {
        assert_eq!(order.to_string(), word);
    }
    told(of::<Id<ProductId>>(&request));
    if let Some(Line(line)) = told(of::<Line>(&request)) {
        assert_eq!(line.to_string(), word);
    }
    told(of::<Name>(&request));
    told(of::<Form>(&request));
    let Some(query) = told(of::<Query>(&request)) else { return };
    assert!(told(query.limit()).is_none_or(|limit| (1..=100).contains(&limit)));
    told(query.cursor::<OrderId>());
    told(query.cursor::<UserId>());
    if let Some(word) = query.get("cursor") {
        wish::read_cursor(word);
        let again = product::cursor_again(word);
        assert!(again.as_deref().is_none_or(|again| again == word), "{word:?} is not what we would write");
    }
}

static PROXIES: LazyLock<Proxies> =
    LazyLock::new(|| Proxies(["10.0.0.0/8", "fd00::/8"].iter().filter_map(|net| net.parse().ok()).collect()));

/// `X-Forwarded-For`: a proxy of ours is believed, a stranger is where he is.
pub fn forwarded_for(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n').take(8) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(X_FORWARDED_FOR, value);
        }
    }
    let stranger = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    let told = PROXIES.client(stranger, &headers);
    assert_eq!((told.address, told.is_exempt), (stranger, false));
    let told = PROXIES.client(Ipv4Addr::new(10, 0, 0, 1).into(), &headers);
    let request = TestRequest::default().app_data(web::Data::new(PROXIES.clone())).to_http_request();
    assert!(Neighbourhood::asking(&request).is_none());
    let from = Neighbourhood::from(told);
    assert_eq!(from.is_exempt, told.is_exempt);
    assert_eq!(told.is_exempt, !headers.contains_key(X_FORWARDED_FOR), "whoever is spoken for is a client");
    // Of a value that cannot be read nothing is believed; of one that can, the last hop.
    let last = headers.get_all(X_FORWARDED_FOR).last().and_then(|value| value.to_str().ok());
    let last = last.and_then(|value| value.rsplit(',').next()).and_then(|hop| hop.trim().parse().ok());
    if let Some(IpAddr::V4(public)) =
        last.filter(|last| matches!(last, IpAddr::V4(v4) if v4.octets()[0] == 8))
    {
        assert_eq!(told.address, public, "the last hop is who asks");
    }
}

/// Times as words, and as numbers.
pub fn times(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Some(stamp) = Stamp::read(&text) {
        let letters = stamp.letters();
        let again = std::str::from_utf8(&letters).ok().and_then(Stamp::read);
        assert_eq!(again, Some(stamp), "{text:?}");
    }
    if let Some(number) = bytes.first_chunk::<8>() {
        let ms = i64::from_le_bytes(*number);
        let letters = Stamp(Millis(ms)).letters();
        let again = std::str::from_utf8(&letters).ok().and_then(Stamp::read);
        // The last day of the year 9999 is written and not read.
        assert!(again.is_some() || ms > jiff::Timestamp::MAX.as_millisecond(), "{letters:?}");
    }
}

/// Cells, a NUL between them: a table has as many of them, each of them what went in, and no formula.
pub fn csv_cells(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let cells: Vec<&str> = text.split('\0').collect();
    let line = csv::line_of(&cells);
    let read = csv_read(&line);
    assert_eq!(read.len(), cells.len(), "{line:?}");
    for (read, cell) in read.iter().zip(&cells) {
        let as_it_was = read == cell || read.strip_prefix('\'') == Some(cell);
        assert!(as_it_was, "{cell:?} became {read:?}");
        assert!(!read.trim_start().starts_with(['=', '+', '-', '@', '\t', '\r', '\n']), "{read:?}");
    }
}

/// One line after RFC 4180.
fn csv_read(line: &str) -> Vec<String> {
    let (mut cells, mut cell, mut quoted) = (Vec::new(), String::new(), false);
    let mut letters = line.strip_suffix("\r\n").unwrap_or(line).chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => cell.extend(letters.next()),
            '"' => quoted = !quoted,
            ',' if !quoted => cells.push(std::mem::take(&mut cell)),
            other => {
                let ends = ['\r', '\n', ';', '\t'].contains(&other);
                assert!(quoted || !ends, "a line, or a cell, ends in the middle: {line:?}");
                cell.push(other);
            }
        }
    }
    assert!(!quoted, "a quote is open: {line:?}");
    cells.push(cell);
    cells
}
