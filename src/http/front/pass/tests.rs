//! What a node makes of what it is asked, and a lead on the thread of the test that refuses whoever asks, or loses every connection.

use std::cell::Cell;
use std::future::{Future, pending};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use actix_web::http::header::HeaderValue;
use actix_web::rt;
use actix_web::rt::time::sleep;
use actix_web::test::TestRequest;
use futures_util::future::join_all;
use tokio::net::TcpListener;

use super::*;
use crate::actors::stock::testing::until;
use crate::clock::Clock;
use crate::http::front::testing::{front, keys};
use crate::http::front::{Node, desk};
use crate::peer::{Body, Desk, Elsewhere, FLIGHT_MAX};
use crate::stalls::Stalls;

const CALLERS: usize = 200;

fn of(method: &str, target: &str, header: &str) -> peer::Request {
    peer::Request {
        method: method.to_owned(),
        target: target.to_owned(),
        from: None,
        side: peer::Side::Shop,
        hops: 1,
        session: 0,
        headers: vec![(header.to_owned(), b"mine".to_vec())],
        body: Vec::new().into(),
        patience: ANSWER_WITHIN,
    }
}

fn order() -> peer::Request {
    of("POST", "/v1/orders", "idempotency-key")
}

#[derive(Clone, Copy)]
enum Says {
    Nothing,
    NotHere,
    /// Of one that it is done, and of the others that they are not here.
    DoneOnce,
    Done,
}

/// Whoever leads, or is about to.
struct Lead {
    says: Cell<Says>,
    asked: Cell<usize>,
}

impl Desk for Lead {
    fn answer(&self, _: peer::Request) -> Pin<Box<dyn Future<Output = Result<Reply, Elsewhere>>>> {
        self.asked.set(self.asked.get() + 1);
        let says = self.says.get();
        if let Says::DoneOnce = says {
            self.says.set(Says::NotHere);
        }
        Box::pin(async move {
            match says {
                Says::Nothing => pending().await,
                Says::NotHere => Err(Elsewhere { session: 0 }),
                Says::DoneOnce | Says::Done => {
                    Ok(Reply { status: 200, headers: Vec::new(), body: Body::Whole(Vec::new().into()) })
                }
            }
        })
    }

    fn turn_away(&self, _: &str, _: &[(String, Vec<u8>)]) -> Reply {
        panic!("there is room for so few")
    }
}

impl Lead {
    async fn that(says: Says) -> (Rc<Lead>, SocketAddr) {
        let lead = Rc::new(Lead { says: Cell::new(says), asked: Cell::new(0) });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        rt::spawn(serve(listener, lead.clone()));
        (lead, address)
    }
}

/// One connection after the other. Where nothing is said it is cut, after everything has been read that was sent together.
async fn serve(listener: TcpListener, lead: Rc<Lead>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (asked, desk) = (lead.asked.get(), lead.clone());
        let serving = rt::spawn(peer::serve(stream, keys(), desk));
        if let Says::Nothing = lead.says.get() {
            until("something is asked", || lead.asked.get() > asked).await;
            sleep(Duration::from_millis(100)).await;
            serving.abort();
        }
    }
}

/// This thread's part of a node that hands everything to whoever listens there.
fn before(address: SocketAddr) -> (Rc<Room>, Arc<Node>) {
    let node = Arc::new(Node { session: 7, address: address.to_string() });
    let front = front(Standing::There(node.clone()), Clock::start());
    (Room::of_this_thread(&front), node)
}

/// So many may be sent to that node again, and no more.
fn leave(room: &Rc<Room>, node: &Arc<Node>, many: usize) {
    let way = room.way(node);
    assert!((many..FLIGHT_MAX).all(|_| way.retries.take(&room.front.clock)));
}

/// All of them at once, and what they hear.
async fn crowd(room: Rc<Room>) -> Vec<Result<(i64, Reply), Problem>> {
    join_all((0..CALLERS).map(|_| answer_of(&room, order(), true))).await
}

#[test]
fn a_request_has_one_id_on_every_node() {
    let proxies = Proxies(Arc::new([]));
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
    assert!(of("GET", "/v1/products", "accept").is_look());
    assert!(!order().is_look());
    let keeps = |path: &str, header: &str| has_key(path, &of("POST", path, header));
    assert!(keeps("/v1/orders", "idempotency-key"));
    assert!(keeps("/v1/cart/checkout", "idempotency-key"));
    assert!(!keeps("/v1/orders", "accept"));
    assert!(!keeps("/v1/users", "idempotency-key"));
}

/// As the doors are looked for. Whoever comes in by the shop's own listener stays on that side, whatever he writes.
#[test]
fn a_path_is_the_same_however_it_is_written() {
    let proxies = Proxies(Arc::new([]));
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

#[actix_web::test]
async fn whoever_is_turned_away_hears_what_a_door_would_say() {
    let (room, _) = before("127.0.0.1:1".parse().unwrap());
    let asked = of("POST", "/v1/orders?a=b", "x-request-id");
    let reply = desk(&room.front).turn_away(&asked.target, &asked.headers);
    let Body::Whole(body) = reply.body else { panic!("it is short") };
    let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((reply.status, problem["code"].as_str()), (503, Some("overloaded")));
    assert_eq!(problem["instance"].as_str(), Some("/v1/orders"));
    assert_eq!(problem["request_id"].as_str(), Some("mine"));
    let (_, after) = reply.headers.iter().find(|(name, _)| name == "retry-after").unwrap();
    assert!([b"1", b"2", b"3"].iter().any(|seconds| after == *seconds), "{after:?}");
}

#[actix_web::test]
async fn what_is_lost_is_sent_again_once_and_then_told_as_what_it_is() {
    let (lead, address) = Lead::that(Says::Nothing).await;
    let (room, _) = before(address);
    let hears = async |request: peer::Request, code, times| {
        let (sent, may_repeat) = (lead.asked.get(), request.is_look() || has_key(&request.target, &request));
        assert_eq!(answer_of(&room, request, may_repeat).await.unwrap_err().code(), code);
        assert_eq!(lead.asked.get() - sent, times);
    };
    hears(order(), Code::OutcomeUnknown, 2).await;
    hears(of("GET", "/v1/products", "accept"), Code::OwnerUnavailable, 2).await;
    hears(of("POST", "/v1/orders", "accept"), Code::OutcomeUnknown, 1).await;
}

#[actix_web::test]
async fn a_lead_that_loses_every_connection_is_not_asked_everything_twice() {
    let (lead, address) = Lead::that(Says::Nothing).await;
    let ((room, node), stalls) = (before(address), Stalls::looked_for());
    // Of what may be sent again other losses have taken nearly all.
    leave(&room, &node, 10);
    for heard in crowd(room.clone()).await {
        assert_eq!(heard.unwrap_err().code(), Code::OutcomeUnknown);
    }
    // Ten of them once more, a tenth of all that was sent, and some for each second.
    let asked = lead.asked.get();
    assert!(asked < CALLERS + CALLERS / 2 || stalls.were_seen(), "{asked}");
}

#[actix_web::test]
async fn while_a_node_refuses_one_asks_for_all_and_then_all_are_served() {
    let (lead, address) = Lead::that(Says::NotHere).await;
    let (room, node) = before(address);
    // It was refused once, while the doors were opened: that takes nothing of what may be sent again.
    leave(&room, &node, 0);
    let (clock, stalls) = (room.front.clock.clone(), Stalls::looked_for());
    let waiting = rt::spawn(crowd(room.clone()));
    let began = clock.nanos();
    sleep(Duration::from_millis(600)).await;
    let looks = usize::try_from((clock.nanos() - began) / 50_000_000).unwrap();
    let asked = lead.asked.get();
    let is_right = asked <= CALLERS + looks + 1;
    assert!(is_right || stalls.were_seen(), "{asked} were sent, and {looks} times somebody looked");
    lead.says.set(Says::Done);
    let heard = waiting.await.unwrap();
    assert!(heard.iter().all(|heard| matches!(heard, Ok((7, reply)) if reply.status == 200)));
    assert!(lead.asked.get() <= asked + CALLERS || stalls.were_seen(), "each of them once more");
}

#[actix_web::test]
async fn what_was_refused_again_and_may_not_be_sent_again_was_certainly_not_done() {
    let (lead, address) = Lead::that(Says::NotHere).await;
    let (room, node) = before(address);
    leave(&room, &node, 0);
    let waiting = rt::spawn(crowd(room.clone()));
    sleep(Duration::from_millis(300)).await;
    let asked = lead.asked.get();
    lead.says.set(Says::DoneOnce);
    until("they are sent once more", || lead.asked.get() > asked + CALLERS / 2).await;
    sleep(Duration::from_millis(300)).await;
    lead.says.set(Says::Done);
    let heard = waiting.await.unwrap();
    // A tenth of what was sent may be sent again, and some in each second.
    let ended: Vec<_> = heard.into_iter().filter_map(Result::err).collect();
    assert!((1..CALLERS).contains(&ended.len()), "{}", ended.len());
    assert!(ended.iter().all(|problem| problem.code() == Code::OwnerUnavailable));
    assert!(answer_of(&room, order(), true).await.is_ok(), "whoever was not refused takes nothing of it");
}

#[actix_web::test]
async fn what_was_sent_again_is_remembered_of_a_node_that_leads_once_more() {
    let (room, node) = before("127.0.0.1:1".parse().unwrap());
    let other = Arc::new(Node { session: 8, address: "127.0.0.1:2".to_owned() });
    let again = Arc::new(Node { session: 9, ..(*node).clone() });
    let first = room.way(&node);
    assert!(!Rc::ptr_eq(&first.retries, &room.way(&other).retries));
    let last = room.way(&again);
    assert!(Rc::ptr_eq(&first.retries, &last.retries));
    assert!(!Rc::ptr_eq(&first, &last), "whether it takes anybody is seen anew");
}
