//! While the shop is not open here: the request is handed to the lead, or waits until there is one. What the mirror tells is told from there.

#[cfg(test)]
mod tests;

use std::rc::Rc;
use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use tokio::time::timeout;

use super::desk::{Until, answered, headers_of, passed_on};
use super::room::Room;
use super::way::{Turn, Way};
use super::{Side, Standing};
use crate::http::body::Raw;
use crate::http::client::X_FORWARDED_FOR;
use crate::http::idempotency::REPLAYED;
use crate::http::problem::{Code, Problem};
use crate::http::query::path_of;
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
    let may_repeat = asked.is_look() || has_key(path_of(&request), &asked);
    let answer = match asked.fits() {
        true => answer_of(&room, asked, may_repeat).await,
        // It would be tried until nobody waits any more.
        false => Err(head_too_large()),
    };
    let outcome = answer.as_ref().map_or_else(|problem| problem.code().word(), |_| "answered");
    room.forwards.count(outcome, Duration::from_nanos(clock.nanos().saturating_sub(began)));
    answer.map(|(session, reply)| passed_on(reply, Until { closing, standing, session }))
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
    let mut refused = Refused::default();
    let has_waited = || Duration::from_nanos(clock.nanos().saturating_sub(began)) >= WAIT_MAX;
    loop {
        let changed = room.changed.notified();
        match once(room, &request, &mut refused).await {
            // Nothing was done this time: that does not hold for the time before.
            Ok((_, reply)) if may_be_done && denies(&reply) => return Err(nobody(true)),
            Ok(answered) => return Ok(answered),
            Err(Unheard::Waits) => {}
            Err(Unheard::Spent) => return Err(nobody(may_be_done)),
            Err(Unheard::Lost(way)) => {
                may_be_done = !request.is_look();
                let is_repeated = std::mem::take(&mut may_repeat) && !has_waited() && way.retries.take(clock);
                if !is_repeated {
                    return Err(nobody(may_be_done));
                }
            }
        }
        if has_waited() {
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
        false => Problem::new(Code::OwnerUnavailable, "No node could be asked, and nothing was done."),
    };
    problem.retry_after(RETRY_MS)
}

/// It says that nothing was done, and is not the answer of the time before.
fn denies(reply: &Reply) -> bool {
    let (replayed, _) = REPLAYED;
    matches!(reply.status, 429 | 503) && !reply.headers.iter().any(|(name, _)| replayed == name.as_str())
}

/// Whether it is done once, however often it is asked. The key is one that goes along.
fn has_key(path: &str, request: &peer::Request) -> bool {
    let names_one = || request.headers.iter().any(|(name, _)| name == "idempotency-key");
    KEEP_KEYS.iter().any(|prefix| path.starts_with(prefix)) && names_one()
}

/// Why there is no answer yet, or none at all.
enum Unheard {
    /// Certainly nothing was done: it was not sent, or refused.
    Waits,
    /// The same, and it may not be sent again.
    Spent,
    /// It may have been done: no answer came by this way.
    Lost(Rc<Way>),
}

/// Who has refused a request last, and whether he had done so before.
#[derive(Debug, Default, Clone, Copy)]
struct Refused {
    session: i64,
    again: bool,
}

impl Refused {
    fn note(&mut self, session: i64) {
        *self = Refused { session, again: self.session == session };
    }

    /// The first time is no sign of trouble, and certainly nothing was done: the doors were only being opened, or closed.
    fn again_by(self, session: i64) -> bool {
        self.again && self.session == session
    }
}

/// One try.
async fn once(
    room: &Rc<Room>,
    request: &peer::Request,
    refused: &mut Refused,
) -> Result<(i64, Reply), Unheard> {
    if let Some(here) = Side::of_node(request.side).and_then(|side| room.here(side)) {
        return Ok((here.session(), answered(here, request.clone()).await));
    }
    let Standing::There(node) = room.standing() else { return Err(Unheard::Waits) };
    let (way, clock, session) = (room.way(&node), &room.front.clock, node.session);
    // Asking would wait for the connection for as long as for the answer; meanwhile another node may have become the lead.
    timeout(AGAIN, way.link.comes_up()).await.map_err(|_| Unheard::Waits)?;
    let asked_ns = clock.nanos();
    let looks = match way.turn(asked_ns, refused.again_by(session), clock) {
        Turn::Leaves => false,
        Turn::Looks => true,
        Turn::Waits => return Err(Unheard::Waits),
        Turn::Ends => return Err(Unheard::Spent),
    };
    let heard = way.link.ask(peer::Request { session, ..request.clone() }).await;
    way.retries.heard(&heard);
    match heard {
        Ok(reply) => {
            if way.answered(asked_ns) {
                room.changed.notify_waiters();
            }
            Ok((session, reply))
        }
        Err(Unanswered::NotSent) => Err(Unheard::Waits),
        Err(Unanswered::PutAside | Unanswered::Elsewhere { .. }) => {
            // Whoever has looked for all is not worse off for it.
            if !looks {
                refused.note(session);
            }
            way.refused(clock.nanos());
            Err(Unheard::Waits)
        }
        Err(Unanswered::Unknown | Unanswered::Late) => Err(Unheard::Lost(way)),
    }
}
