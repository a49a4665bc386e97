//! What other nodes ask: their requests go through the same doors as everybody's, without a socket between.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use actix_http::{HttpMessage, Payload, Request};
use actix_web::HttpResponse;
use actix_web::body::{BodyStream, BoxBody, MessageBody};
use actix_web::dev::Response;
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode, Uri};
use actix_web::web::Bytes;
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::watch;

use super::room::{HereSide, Room};
use super::{Front, Side, Standing};
use crate::http::problem::{Asked, Code, Problem};
use crate::http::request::{X_REQUEST_ID, is_sane};
use crate::peer::{self, Body, Cut, Desk, Elsewhere, HOPS_MAX, Pieces, Reply};
use crate::telemetry::{self, Metrics};

/// What concerns one connection only, and stays there with whatever `Connection` names (RFC 9110 §7.6.1); lengths are made anew.
const STAY: [HeaderName; 11] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    header::EXPECT,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
];

/// When to come back.
const RETRY_MS: u64 = 1_000;

/// What answers other nodes on this thread.
pub fn desk(front: &Front) -> Rc<dyn Desk> {
    Rc::new(Counter(Room::of_this_thread(front)))
}

struct Counter(Rc<Room>);

impl Desk for Counter {
    fn answer(&self, request: peer::Request) -> Pin<Box<dyn Future<Output = Result<Reply, Elsewhere>>>> {
        if request.hops > HOPS_MAX {
            tracing::warn!(hops = request.hops, "a request wanders from node to node, and is not answered");
            return self.elsewhere();
        }
        let Some(side) = Side::of_node(request.side) else {
            let owners = self.0.front.owners.load_full();
            let session = self.0.standing().session();
            return Box::pin(async move {
                match owners {
                    Some(owners) => owners.answer(request).await,
                    None => Err(Elsewhere { session }),
                }
            });
        };
        match self.0.here(side) {
            Some(here) => Box::pin(async move { Ok(answered(here, request).await) }),
            None => self.elsewhere(),
        }
    }

    fn turn_away(&self, target: &str, headers: &[(String, Vec<u8>)]) -> Reply {
        Metrics::global().peer_turned_away.increment(1);
        let about = "Too much is under way that came in at the same node.";
        let problem = Problem::new(Code::Overloaded, about).retry_after(RETRY_MS);
        telemetry::refused(problem.code().word());
        let path = target.split('?').next().unwrap_or_default();
        let id = headers.iter().find(|(name, _)| X_REQUEST_ID == *name.as_str());
        let id = id.map(|(_, value)| value.as_slice()).filter(|id| is_sane(id));
        let request_id = id.and_then(|id| std::str::from_utf8(id).ok()).unwrap_or_default();
        let clock = &self.0.front.clock;
        let words = Asked { path, request_id, chance: clock.chance() as u32, now: clock.now() };
        told(Response::from(problem.answer(words)))
    }
}

impl Counter {
    fn elsewhere(&self) -> Pin<Box<dyn Future<Output = Result<Reply, Elsewhere>>>> {
        let session = self.0.standing().session();
        Box::pin(async move { Err(Elsewhere { session }) })
    }
}

/// Goes in by an open door.
pub async fn answered(here: HereSide, request: peer::Request) -> Reply {
    let Some(request) = made(request) else {
        // No HTTP server would have let that in, ours at the other node neither.
        return Reply {
            status: StatusCode::BAD_REQUEST.as_u16(),
            headers: Vec::new(),
            body: Body::Whole(Bytes::new()),
        };
    };
    match here.answer(request).await {
        Ok(answer) => told(answer),
        Err(error) => told(Response::from(error.error_response())),
    }
}

/// As it was read from its connection.
fn made(asked: peer::Request) -> Option<Request> {
    let payload = if asked.body.is_empty() { Payload::None } else { Payload::from(asked.body) };
    let mut request = Request::with_payload(payload);
    let method = Method::from_bytes(asked.method.as_bytes()).ok()?;
    let uri = Uri::try_from(asked.target).ok()?;
    let mut headers = HeaderMap::with_capacity(asked.headers.len());
    for (name, value) in asked.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        headers.append(name, HeaderValue::from_maybe_shared(Bytes::from(value)).ok()?);
    }
    let head = request.head_mut();
    (head.method, head.uri, head.headers) = (method, uri, headers);
    if let Some(client) = asked.from {
        request.extensions_mut().insert(client);
    }
    Some(request)
}

/// What goes along on the way, there or back.
pub fn headers_of(headers: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    let named = named(headers);
    let going = headers.iter().filter(|(name, _)| !STAY.contains(name) && !named.contains(name));
    going.map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect()
}

/// Those of the headers that `Connection` says concern one connection.
fn named(headers: &HeaderMap) -> Vec<HeaderName> {
    let mut named = Vec::new();
    let said = headers.get_all(header::CONNECTION).filter_map(|value| value.to_str().ok());
    for word in said.flat_map(|value| value.split(',')) {
        if let Ok(name) = HeaderName::from_bytes(word.trim().as_bytes())
            && headers.contains_key(&name)
            && !named.contains(&name)
        {
            named.push(name);
        }
    }
    named
}

fn told(answer: Response<BoxBody>) -> Reply {
    let (head, body) = answer.into_parts();
    let (status, headers) = (head.status().as_u16(), headers_of(head.headers()));
    let body = match body.try_into_bytes() {
        Ok(bytes) => Body::Whole(bytes),
        Err(body) => Body::Stream(Box::pin(pieces(body))),
    };
    Reply { status, headers, body }
}

fn pieces(body: BoxBody) -> impl Stream<Item = Result<Bytes, Cut>> {
    stream::unfold(Some(body), |body| async {
        let mut body = body?;
        let piece = std::future::poll_fn(|cx| Pin::new(&mut body).poll_next(cx)).await?;
        match piece {
            Ok(bytes) => Some((Ok(bytes), Some(body))),
            Err(_) => Some((Err(Cut), None)),
        }
    })
}

/// For how long what a node says in pieces is passed on.
pub struct Until {
    pub closing: watch::Receiver<bool>,
    pub standing: watch::Receiver<Standing>,
    /// The session that says it.
    pub session: i64,
}

impl Until {
    /// Until the front closes, or another session leads: whoever was replaced may not have heard of it, and go on with what he knew. Where
    /// nobody is known to lead he is passed on.
    async fn is_over(&mut self) {
        let session = self.session;
        let another = |standing: &Standing| ![0, session].contains(&standing.session());
        tokio::select! {
            _ = self.closing.wait_for(|closing| *closing) => {}
            _ = self.standing.wait_for(another) => {}
        }
    }
}

/// What another node has answered, as an answer of this one.
pub fn passed_on(reply: Reply, until: Until) -> HttpResponse {
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut answer = HttpResponse::new(status);
    for (name, value) in reply.headers {
        let name = HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_maybe_shared(Bytes::from(value))) {
            answer.headers_mut().append(name, value);
        }
    }
    match reply.body {
        Body::Whole(bytes) if bytes.is_empty() => answer,
        Body::Whole(bytes) => answer.set_body(BoxBody::new(bytes)),
        Body::Stream(pieces) => answer.set_body(BoxBody::new(BodyStream::new(cut_when_over(pieces, until)))),
    }
}

/// Cut when it is over, not ended: whoever reads a list must not take what he has for all of it.
fn cut_when_over(pieces: Pieces, until: Until) -> impl Stream<Item = Result<Bytes, Cut>> {
    stream::unfold(Some((pieces, until)), |state| async move {
        let (mut pieces, mut until) = state?;
        let piece = tokio::select! {
            biased;
            piece = pieces.next() => piece?,
            () = until.is_over() => return Some((Err(Cut), None)),
        };
        Some((piece, Some((pieces, until))))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::super::Node;
    use super::*;

    #[test]
    fn what_belongs_to_a_connection_stays_there() {
        let mut headers = HeaderMap::new();
        for name in STAY.into_iter().chain([header::AUTHORIZATION, header::ACCEPT]) {
            headers.append(name, HeaderValue::from_static("x"));
        }
        let mut went: Vec<_> = headers_of(&headers).into_iter().map(|(name, _)| name).collect();
        went.sort();
        assert_eq!(went, ["accept", "authorization"]);
        headers.append(header::CONNECTION, HeaderValue::from_static("close, Accept"));
        let went = headers_of(&headers);
        assert_eq!(went.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["authorization"]);
    }

    #[actix_web::test]
    async fn a_request_and_an_answer_arrive_as_they_left() {
        let asked = peer::Request {
            method: "POST".to_owned(),
            target: "/v1/orders?a=b".to_owned(),
            from: Some(peer::Client { address: [192, 0, 2, 1].into(), is_exempt: false }),
            side: peer::Side::Shop,
            hops: 1,
            session: 1,
            headers: vec![("x-a".to_owned(), b"1".to_vec()), ("x-a".to_owned(), b"2".to_vec())],
            body: Bytes::from_static(b"{}"),
            patience: Duration::from_secs(1),
        };
        let request = made(asked.clone()).unwrap();
        assert_eq!((request.path(), request.uri().query()), ("/v1/orders", Some("a=b")));
        assert_eq!(request.extensions().get::<peer::Client>().copied(), asked.from);
        assert_eq!(headers_of(&request.head().headers).len(), 2);
        assert!(made(peer::Request { target: "no path".to_owned(), ..asked.clone() }).is_none());
        assert!(made(peer::Request { headers: vec![("a b".to_owned(), Vec::new())], ..asked }).is_none());

        let reply = told(Response::from(HttpResponse::Accepted().insert_header(("x-b", "3")).body("yes")));
        let (closing, standing) = (watch::Sender::new(false), watch::Sender::new(Standing::Nowhere));
        let until = || Until { closing: closing.subscribe(), standing: standing.subscribe(), session: 1 };
        let again = passed_on(reply, until());
        assert_eq!(
            (again.status().as_u16(), again.headers().get("x-b").unwrap().as_bytes()),
            (202, &b"3"[..])
        );
        let nothing = || HttpResponse::NoContent().finish();
        let none = passed_on(told(Response::from(nothing())), until());
        assert_eq!((none.status(), none.body().size()), (StatusCode::NO_CONTENT, nothing().body().size()));
    }

    /// The lead before may be cut off from the database alone, and go on for ever.
    #[actix_web::test]
    async fn what_comes_in_pieces_is_cut_when_another_leads() {
        let there =
            |session| Standing::There(Arc::new(Node { session, address: format!("node-{session}:1") }));
        let (closing, standing) = (watch::Sender::new(false), watch::Sender::new(there(1)));
        let until = Until { closing: closing.subscribe(), standing: standing.subscribe(), session: 1 };
        let seen: Pieces =
            Box::pin(stream::iter([Ok::<_, Cut>(Bytes::from_static(b"seen"))]).chain(stream::pending()));
        let mut passed = Box::pin(cut_when_over(seen, until));
        assert_eq!(passed.next().await, Some(Ok(Bytes::from_static(b"seen"))));
        for same in [Standing::Nowhere, there(1)] {
            standing.send_replace(same);
            assert!(timeout(Duration::from_millis(20), passed.next()).await.is_err(), "nobody else leads");
        }
        standing.send_replace(there(2));
        assert_eq!((passed.next().await, passed.next().await), (Some(Err(Cut)), None));
    }
}
