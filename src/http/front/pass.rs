//! While the shop is not open here: the request is handed to the lead, or waits until there is one. What the mirror tells is told from there.

use std::rc::Rc;
use std::time::Duration;

use actix_web::http::Method;
use actix_web::{HttpRequest, HttpResponse, web};
use tokio::time::timeout;

use super::desk::{Until, answered, headers_of, passed_on};
use super::room::Room;
use super::{Side, Standing};
use crate::http::body::Raw;
use crate::http::client::X_FORWARDED_FOR;
use crate::http::idempotency::REPLAYED;
use crate::http::problem::{Code, Problem};
use crate::http::refusal::internal;
use crate::http::request::{Watch, X_REQUEST_ID, head_too_large};
use crate::http::{Proxies, Who, open_doors};
use crate::logs;
use crate::peer::{self, Reply, Unanswered};

/// How long a request waits for a lead: longer than it takes to find that one is dead, and to follow it, where whoever looks was held
/// up himself and has to look anew; and shorter than the grace in which a lost refresh may be asked for again.
pub const WAIT_MAX: Duration = Duration::from_secs(8);
/// How long the lead may take for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// Whoever waits looks again so often, whatever he hears.
const AGAIN: Duration = Duration::from_millis(50);
/// When to come back.
const RETRY_MS: u64 = 1_000;
/// What is counted where nobody had to be asked.
const MIRRORED: &str = "mirrored";
/// Behind these every door that is asked with a key answers the same again.
pub const KEEP_KEYS: [&str; 2] = ["/v1/orders", "/v1/cart"];

/// Opens what concerns this process alone, and one door for all the rest.
pub fn configure(config: &mut web::ServiceConfig, room: Rc<Room>, side: Side) {
    let opens = |who| match who {
        Who::Probe => true,
        Who::Operator => side != Side::Shop,
        _ => false,
    };
    let clock = room.front.clock.clone();
    let watch = Watch { route: "passed_on", private: false, passes_on: true, clock, address_rate: None };
    open_doors(opens, &watch, config);
    config
        .default_service(web::to(pass_on).wrap(watch))
        .app_data(web::Data::new(side))
        .app_data(web::Data::new(room.front.readiness.clone()))
        .app_data(room);
}

async fn pass_on(request: HttpRequest, body: Raw, side: web::Data<Side>) -> Result<HttpResponse, Problem> {
    let room = request.app_data::<Rc<Room>>().ok_or_else(internal)?.clone();
    let clock = &room.front.clock;
    let (closing, standing) = (room.front.closing.subscribe(), room.front.standing.subscribe());
    let began = clock.nanos();
    if let Some(mirror) = &room.front.mirror
        && **side != Side::Ops
        && let Some(stock) = mirror.stock(&room.front.proxies, &request).await?
    {
        room.forwards.count(MIRRORED, Duration::from_nanos(clock.nanos().saturating_sub(began)));
        return Ok(HttpResponse::Ok().json(stock));
    }
    let asked = asked(&room.front.proxies, &request, body, **side);
    // Reading twice does nothing twice.
    let may_repeat = is_look(&asked) || has_key(path_of(&request), &asked);
    let answer = match asked.fits() {
        true => answer_of(&room, asked, may_repeat).await,
        // It would be tried until nobody waits any more.
        false => Err(head_too_large()),
    };
    let outcome = answer.as_ref().map_or_else(|problem| problem.code().word(), |_| "answered");
    room.forwards.count(outcome, Duration::from_nanos(clock.nanos().saturating_sub(began)));
    answer.map(|(session, reply)| passed_on(reply, Until { closing, standing, session }))
}

/// The path as the doors are looked for: however it is written, it is the same path at the lead.
fn path_of(request: &HttpRequest) -> &str {
    request.match_info().as_str()
}

fn asked(proxies: &Proxies, request: &HttpRequest, Raw(body): Raw, side: Side) -> peer::Request {
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    let side = match side {
        Side::Shop => peer::Side::Shop,
        Side::Ops => peer::Side::Ops,
        // One listener for everything, as in development.
        Side::All if path_of(request).starts_with("/v1/admin") => peer::Side::Ops,
        Side::All => peer::Side::Shop,
    };
    let mut headers = headers_of(request.headers());
    // It is read here; the node that answers believes other proxies.
    headers.retain(|(name, _)| X_FORWARDED_FOR != *name.as_str());
    // It has one name on every node; an id that makes no sense was replaced here.
    if let Some(logs::Mark { request_id, trace }) = logs::current() {
        let trace = trace.and_then(logs::Trace::handed_on);
        for (name, value) in [(X_REQUEST_ID, Some(request_id)), (logs::TRACEPARENT, trace)] {
            if let Some(value) = value {
                headers.retain(|(known, _)| name != *known.as_str());
                headers.push((name.as_str().to_owned(), value.as_bytes().to_vec()));
            }
        }
    }
    peer::Request {
        method: request.method().as_str().to_owned(),
        target: target.to_owned(),
        from: request.peer_addr().map(|peer| proxies.client(peer.ip(), request.headers())),
        side,
        hops: 1,
        session: 0,
        headers,
        body: body.into(),
        patience: ANSWER_WITHIN,
    }
}

/// The lead's answer, whichever node that becomes, and that one's session.
async fn answer_of(
    room: &Rc<Room>,
    request: peer::Request,
    mut may_repeat: bool,
) -> Result<(i64, Reply), Problem> {
    let Some(_seat) = room.seat(request.body.len()) else {
        return Err(
            Problem::new(Code::Overloaded, "Too many wait for the node that leads.").retry_after(RETRY_MS)
        );
    };
    let clock = &room.front.clock;
    let began = clock.nanos();
    let mut may_be_done = false;
    loop {
        let changed = room.changed.notified();
        match once(room, &request).await {
            // Nothing was done this time: that does not hold for the time before.
            Ok((_, reply)) if may_be_done && denies(&reply) => return Err(nobody(true)),
            Ok(answered) => return Ok(answered),
            Err(Unanswered::NotSent | Unanswered::Elsewhere { .. }) => {}
            Err(Unanswered::Unknown | Unanswered::Late) => {
                may_be_done = !is_look(&request);
                if !std::mem::take(&mut may_repeat) {
                    return Err(nobody(may_be_done));
                }
            }
        }
        if Duration::from_nanos(clock.nanos().saturating_sub(began)) >= WAIT_MAX {
            return Err(nobody(may_be_done));
        }
        room.front.look.notify_one();
        let _ = timeout(AGAIN, changed).await;
    }
}

/// There is no answer; what was on a connection that is lost may have been done.
fn nobody(may_be_done: bool) -> Problem {
    let problem = match may_be_done {
        true => Problem::new(
            Code::OutcomeUnknown,
            "The connection to the node that leads was lost. Ask again, with the same key if there was one.",
        ),
        false => Problem::new(Code::OwnerUnavailable, "No node leads at the moment."),
    };
    problem.retry_after(RETRY_MS)
}

/// It says that nothing was done, and is not the answer of the time before.
fn denies(reply: &Reply) -> bool {
    let (replayed, _) = REPLAYED;
    matches!(reply.status, 429 | 503) && !reply.headers.iter().any(|(name, _)| replayed == name.as_str())
}

fn is_look(request: &peer::Request) -> bool {
    [Method::GET.as_str(), Method::HEAD.as_str()].contains(&request.method.as_str())
}

/// Whether it is done once, however often it is asked. The key is one that goes along.
fn has_key(path: &str, request: &peer::Request) -> bool {
    let names_one = || request.headers.iter().any(|(name, _)| name == "idempotency-key");
    KEEP_KEYS.iter().any(|prefix| path.starts_with(prefix)) && names_one()
}

async fn once(room: &Rc<Room>, request: &peer::Request) -> Result<(i64, Reply), Unanswered> {
    if let Some(here) = Side::of_node(request.side).and_then(|side| room.here(side)) {
        return Ok((here.session(), answered(here, request.clone()).await));
    }
    let Standing::There(node) = room.standing() else { return Err(Unanswered::NotSent) };
    let link = room.link(&node);
    // Asking would wait for the connection for as long as for the answer; meanwhile another node may have become the lead.
    timeout(AGAIN, link.comes_up()).await.map_err(|_| Unanswered::NotSent)?;
    let reply = link.ask(peer::Request { session: node.session, ..request.clone() }).await?;
    Ok((node.session, reply))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_one_id_on_every_node() {
        use actix_web::http::header::HeaderValue;
        use actix_web::test::TestRequest;
        let proxies = Proxies(std::sync::Arc::new([]));
        let came = TestRequest::default().insert_header((X_REQUEST_ID, "of, no, use"));
        let came = came.insert_header(("traceparent", "goes along")).to_http_request();
        let request_id = HeaderValue::from_static("ours");
        let mut mark = Some(logs::Mark { request_id, trace: None });
        let sent = logs::about(&mut mark, || asked(&proxies, &came, Raw(Vec::new()), Side::Shop));
        let of = |name: &str| -> Vec<&[u8]> {
            sent.headers.iter().filter(|(it, _)| it == name).map(|(_, value)| &value[..]).collect()
        };
        assert_eq!(of("x-request-id"), [b"ours"]);
        assert_eq!(of("traceparent"), [b"goes along"]);
    }

    #[test]
    fn a_look_is_repeated_and_what_keeps_its_key() {
        let asked = |method: &str, target: &str, header: &str| peer::Request {
            method: method.to_owned(),
            target: target.to_owned(),
            from: None,
            side: peer::Side::Shop,
            hops: 1,
            session: 0,
            headers: vec![(header.to_owned(), b"mine".to_vec())],
            body: Vec::new().into(),
            patience: ANSWER_WITHIN,
        };
        assert!(is_look(&asked("GET", "/v1/products", "accept")));
        assert!(!is_look(&asked("POST", "/v1/orders", "idempotency-key")));
        let keeps = |path: &str, header: &str| has_key(path, &asked("POST", path, header));
        assert!(keeps("/v1/orders", "idempotency-key"));
        assert!(keeps("/v1/cart/checkout", "idempotency-key"));
        assert!(!keeps("/v1/orders", "accept"));
        assert!(!keeps("/v1/users", "idempotency-key"));
    }

    /// As the doors are looked for. Whoever comes in by the shop's own listener stays on that side, whatever he writes.
    #[test]
    fn a_path_is_the_same_however_it_is_written() {
        use actix_web::test::TestRequest;
        let proxies = Proxies(std::sync::Arc::new([]));
        let sent = |path: &str, side| {
            let came = TestRequest::post().uri(path).insert_header(("idempotency-key", "mine"));
            let came = came.to_http_request();
            let asked = asked(&proxies, &came, Raw(Vec::new()), side);
            (asked.side, has_key(path_of(&came), &asked), asked.target)
        };
        for path in ["/v1/admin/products", "/v1/%61dmin/products", "/%761/adm%69n/products"] {
            let as_it_came = path.to_owned();
            assert_eq!(sent(path, Side::All), (peer::Side::Ops, false, as_it_came), "{path}");
            assert_eq!(sent(path, Side::Shop).0, peer::Side::Shop, "{path}");
            assert_eq!(sent(path, Side::Ops).0, peer::Side::Ops, "{path}");
        }
        for path in ["/v1/orders", "/v1/o%72ders", "/v1/%6Frders/preview"] {
            assert_eq!(sent(path, Side::All), (peer::Side::Shop, true, path.to_owned()), "{path}");
        }
        // Nobody decodes twice, and a slash that is written otherwise is none.
        for path in ["/v1/%2561dmin/products", "/v1%2Fadmin/products", "/v1/users/%2Fv1/orders"] {
            assert_eq!(sent(path, Side::All), (peer::Side::Shop, false, path.to_owned()), "{path}");
        }
    }
}
