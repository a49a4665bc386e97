//! Two nodes that talk over loopback, both on the thread of the test.

mod greetings;
mod rules;
mod shares;
mod shop;

use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{LocalSet, spawn_local, yield_now};
use tokio::time::{sleep, timeout};

use self::rules::{Raw, ask};
use self::shop::{At, Node, Shop};
use super::channel::Channel;
use super::stream::WINDOW_BYTES;
use super::*;
use crate::config::{MasterKey, MasterKeys};

const PATIENCE: Duration = Duration::from_secs(20);

fn keys(bytes: &[u8]) -> PeerKeys {
    let mut keys = bytes.iter().map(|byte| MasterKey::from_bytes([*byte; 32]));
    PeerKeys::of(&MasterKeys { current: keys.next().unwrap(), former: keys.collect() }).unwrap()
}

fn request(target: &str) -> Request {
    Request {
        method: "POST".into(),
        target: target.into(),
        from: Some(Client { address: [10, 1, 2, 3].into(), is_exempt: true }),
        side: Side::Shop,
        hops: 1,
        session: 7,
        headers: vec![("authorization".into(), b"Bearer x".to_vec())],
        body: Bytes::from_static(b"{\"quantity\":1}"),
        patience: PATIENCE,
    }
}

async fn text(reply: Result<Reply, Unanswered>) -> String {
    match reply.unwrap().body {
        Body::Whole(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
        Body::Stream(pieces) => {
            let pieces: Vec<_> = pieces.map(Result::unwrap).collect().await;
            String::from_utf8(pieces.concat()).unwrap()
        }
    }
}

async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let waited = timeout(Duration::from_secs(20), async {
        while !so() {
            sleep(Duration::from_millis(2)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// A node, and a link to it.
async fn pair() -> (Node, Link) {
    let node = Node::open(keys(&[1])).await;
    let link = Link::to(node.address.to_string(), keys(&[1]));
    (node, link)
}

/// Somebody's connection, with a place, and nobody who serves it.
async fn taken(listener: &TcpListener) -> (TcpStream, Channel) {
    let mut stream = listener.accept().await.unwrap().0;
    let mut channel = greeting::listen(&mut stream, &keys(&[1])).await.unwrap();
    greeting::welcome(&mut stream, &mut channel).await.unwrap();
    (stream, channel)
}

fn story(tale: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, tale);
}

#[test]
fn a_request_arrives_whole_and_so_does_its_answer() {
    story(async {
        let (_node, link) = pair().await;
        let answer = link.ask(request("/v1/orders?a=b")).await.unwrap();
        assert_eq!((answer.status, answer.headers.len()), (201, 1));
        assert_eq!(answer.headers[0], ("content-type".to_owned(), b"text/plain".to_vec()));
        let expected = format!(
            "POST /v1/orders?a=b Some(Client {{ address: 10.1.2.3, is_exempt: true }}) Shop 1 7 [(\"authorization\", {:?})] b\"{{\\\"quantity\\\":1}}\"",
            b"Bearer x"
        );
        assert_eq!(text(Ok(answer)).await, expected);
        assert!(link.is_up());
        let elsewhere = link.ask(request("/elsewhere")).await;
        assert_eq!(elsewhere.unwrap_err(), Unanswered::Elsewhere { session: 42 });
        let large = link.ask(request("/large")).await;
        assert!(matches!(large.as_ref().unwrap().body, Body::Stream(_)), "too large for one frame");
        assert_eq!(text(large).await.len(), 1_000_000);
        assert_eq!(link.ask(request("/panic")).await.unwrap_err(), Unanswered::Unknown);
        assert_eq!(link.ask(request("/stout")).await.unwrap_err(), Unanswered::Unknown);
        assert!(text(link.ask(request("/still")).await).await.starts_with("POST /still"));
    });
}

#[test]
fn ten_thousand_ask_at_once_and_each_hears_his_own_answer() {
    story(async {
        let (_node, link) = pair().await;
        let room = Rc::new(Semaphore::new(FLIGHT_MAX));
        let asking: Vec<_> = (0..10_000)
            .map(|n| {
                let (link, room) = (link.clone(), room.clone());
                spawn_local(async move {
                    let _room = room.acquire().await.unwrap();
                    let target = format!("/of/{n}");
                    let heard = text(link.ask(request(&target)).await).await;
                    assert!(heard.starts_with(&format!("POST {target} ")), "{heard}");
                })
            })
            .collect();
        for asked in asking {
            asked.await.unwrap();
        }
    });
}

#[test]
fn beyond_the_bound_nothing_is_sent() {
    story(async {
        let (node, link) = pair().await;
        let mut asking = stream::FuturesUnordered::new();
        for _ in 0..FLIGHT_MAX {
            asking.push(link.ask(request("/wait")));
        }
        assert!(futures_util::poll!(asking.next()).is_pending());
        assert_eq!(link.ask(request("/more")).await.unwrap_err(), Unanswered::NotSent);
        until("all begun", || node.shop.begun.borrow().len() == FLIGHT_MAX).await;
        // Those who waited go; the node goes on, and has no room before it has finished.
        drop(asking);
        for side in [Side::Shop, Side::Ops] {
            let heard = link.ask(Request { side, ..request("/more") }).await;
            assert_eq!(heard.unwrap().status, 503, "{side:?}");
        }
        let owners = Request { side: Side::Owners, ..request("/more") };
        assert_eq!(link.ask(owners).await.unwrap_err(), Unanswered::PutAside);
        node.shop.door.notify_waiters();
        until("all done", || node.shop.done.get() == FLIGHT_MAX).await;
        assert!(text(link.ask(request("/more")).await).await.starts_with("POST /more"));
        // Bytes are bounded as well.
        let stout = |_| Request { body: vec![0; BODY_BYTES_MAX].into(), ..request("/stout body") };
        let many: Vec<_> = (0..300).map(stout).map(|request| link.ask(request)).collect();
        let heard = futures_util::future::join_all(many).await;
        let unsent = heard.iter().filter(|heard| matches!(heard, Err(Unanswered::NotSent))).count();
        assert_eq!((unsent, heard.iter().filter(|heard| heard.is_ok()).count()), (300 - 255, 255));
    });
}

#[test]
fn those_who_watch_keep_nobody_from_buying() {
    story(async {
        let (node, link) = pair().await;
        let mut watching = Vec::new();
        for _ in 0..STREAMS_MAX / 64 {
            let many = (0..64).map(|_| link.ask(request("/silent")));
            watching.extend(futures_util::future::join_all(many).await);
        }
        assert!(watching.iter().all(Result::is_ok));
        let look = Request { method: "GET".into(), ..request("/silent") };
        assert_eq!(link.ask(look).await.unwrap().status, 503, "nothing was lost");
        assert_eq!(link.ask(request("/silent")).await.unwrap_err(), Unanswered::Unknown, "it may be done");
        assert_eq!(node.shop.turned_away.get(), 1);
        assert!(link.ask(request("/bought")).await.is_ok());
        watching.pop();
        assert!(link.ask(request("/bought")).await.is_ok());
        assert!(link.ask(request("/silent")).await.is_ok(), "there is room again");
    });
}

#[test]
fn what_is_too_large_is_not_sent() {
    story(async {
        let (_node, link) = pair().await;
        let largest = Request { body: vec![b'x'; BODY_BYTES_MAX].into(), ..request("/body") };
        assert!(link.ask(largest.clone()).await.is_ok());
        let larger = Request { body: vec![b'x'; BODY_BYTES_MAX + 1].into(), ..largest };
        assert_eq!(link.ask(larger).await.unwrap_err(), Unanswered::NotSent);
        let head = |bytes| Request { headers: vec![("a".into(), vec![0; bytes])], ..request("/") };
        assert!(link.ask(head(HEAD_BYTES_MAX - 100)).await.is_ok());
        assert_eq!(link.ask(head(HEAD_BYTES_MAX)).await.unwrap_err(), Unanswered::NotSent);
        assert!(link.is_up());
    });
}

#[test]
fn who_reads_slowly_holds_up_nobody_else() {
    story(async {
        let (node, link) = pair().await;
        let Body::Stream(mut slow) = link.ask(request("/endless")).await.unwrap().body else { panic!() };
        let Body::Stream(_unread) = link.ask(request("/events")).await.unwrap().body else { panic!() };
        for n in 0..2_000 {
            let target = format!("/fast/{n}");
            assert!(text(link.ask(request(&target)).await).await.contains(&target));
        }
        // Nothing was read of it, so no more than the window was made, and one piece that waits.
        assert_eq!(node.shop.pieces.get(), WINDOW_BYTES / 1_000 + 1);
        let mut read = 0;
        while read < 4 * WINDOW_BYTES {
            read += slow.next().await.unwrap().unwrap().len();
        }
        let all = text(link.ask(request("/events")).await).await;
        assert_eq!(all.lines().count(), 60_000);
        assert!(all.ends_with("event   2999\n") && all.starts_with("event      0\n"));
        assert!(node.shop.pieces.get() <= 6 * WINDOW_BYTES / 1_000);
    });
}

#[test]
fn a_stream_that_nobody_reads_ends_where_it_is_made() {
    story(async {
        let (node, link) = pair().await;
        for target in ["/endless", "/silent"] {
            node.shop.dropped.set(false);
            let answer = link.ask(request(target)).await.unwrap();
            sleep(Duration::from_millis(20)).await;
            assert!(!node.shop.dropped.get());
            drop(answer);
            until("the stream is dropped", || node.shop.dropped.get()).await;
        }
        let Body::Stream(cut) = link.ask(request("/cut")).await.unwrap().body else { panic!() };
        let pieces: Vec<_> = cut.collect().await;
        assert_eq!(pieces, [Ok(Bytes::from_static(b"half")), Err(Cut)]);
        // A stream keeps its connection, also when there is no link any more.
        node.shop.dropped.set(false);
        let Body::Stream(mut last) = link.ask(request("/endless")).await.unwrap().body else { panic!() };
        drop(link);
        for _ in 0..1_000 {
            last.next().await.unwrap().unwrap();
        }
        drop(last);
        until("the connection is closed", || node.shop.dropped.get()).await;
    });
}

#[test]
fn whoever_goes_does_not_stop_what_was_begun() {
    story(async {
        let (node, link) = pair().await;
        let asking = spawn_local({
            let link = link.clone();
            async move { drop(link.ask(request("/wait")).await) }
        });
        until("it is begun", || !node.shop.begun.borrow().is_empty()).await;
        asking.abort();
        assert!(link.ask(request("/next")).await.is_ok());
        node.shop.door.notify_one();
        until("it is done all the same", || node.shop.done.get() == 2).await;
    });
}

#[test]
fn patience_ends_on_this_side_and_on_the_other() {
    story(async {
        let (node, link) = pair().await;
        let short = |target| Request { patience: Duration::from_millis(50), ..request(target) };
        assert!(link.ask(request("/first")).await.is_ok());
        assert_eq!(link.ask(short("/wait")).await.unwrap_err(), Unanswered::Late);
        let none = Request { patience: Duration::ZERO, ..request("/none") };
        assert_eq!(link.ask(none).await.unwrap_err(), Unanswered::NotSent);
        let address = node.die().await;
        until("it is noticed", || !link.is_up()).await;
        assert_eq!(link.ask(short("/queued")).await.unwrap_err(), Unanswered::NotSent);
        // What came too late to be begun is put aside.
        let node = Node::open_at(address, keys(&[1])).await;
        let mut raw = Raw::to(node.address).await;
        raw.say(&[ask(1, 0)]).await;
        assert_eq!(raw.hear().await.unwrap(), "Dropped { id: 1 }");
        assert!(!node.shop.begun.borrow().iter().any(|target| target == "/raw"));
        assert!(link.ask(request("/again")).await.is_ok(), "nothing of the queue was left in the way");
    });
}

#[test]
fn whoever_has_no_key_is_nobody() {
    story(async {
        let node = Node::open(keys(&[1])).await;
        let link = Link::to(node.address.to_string(), keys(&[2]));
        let short = Request { patience: Duration::from_millis(200), ..request("/") };
        assert_eq!(link.ask(short).await.unwrap_err(), Unanswered::NotSent);
        assert!(!link.is_up() && node.shop.begun.borrow().is_empty());

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let desk: Rc<dyn Desk> = Rc::new(At(Rc::new(Shop::default())));
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let accepted = listener.accept().await.unwrap().0;
        let (ours, theirs) = (keys(&[1]), keys(&[2]));
        let (spoken, served) = tokio::join!(
            super::channel::speak(&mut stream, &theirs),
            serve(accepted, keys(&[1, 3]), desk.clone())
        );
        assert!(matches!(served, Err(PeerError::WrongKey)), "{served:?}");
        assert!(matches!(spoken.err(), Some(PeerError::WrongKey)));

        // A server that only pretends: it answers with chance, or with our own words.
        for echo in [false, true] {
            let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let mut accepted = listener.accept().await.unwrap().0;
            let mut heard = [0; 48];
            let (spoken, _) = tokio::join!(super::channel::speak(&mut stream, &ours), async {
                accepted.read_exact(&mut heard).await.unwrap();
                accepted.write_all(if echo { &heard } else { &[9; 48] }).await.unwrap();
            });
            assert!(matches!(spoken.err(), Some(PeerError::WrongKey)), "echo: {echo}");
        }

        // Whoever says nothing has two seconds.
        let _mute = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let accepted = listener.accept().await.unwrap().0;
        let served = serve(accepted, keys(&[1]), desk).await;
        assert!(matches!(served, Err(PeerError::NoGreeting)), "{served:?}");
    });
}

#[test]
fn a_former_key_is_believed() {
    story(async {
        let node = Node::open(keys(&[2, 1])).await;
        for (key, believed) in [(keys(&[1]), true), (keys(&[2]), true), (keys(&[3, 1, 2]), false)] {
            let link = Link::to(node.address.to_string(), key);
            // Whoever is not believed is not worth waiting for.
            let patience = if believed { PATIENCE } else { Duration::from_secs(1) };
            assert_eq!(link.ask(Request { patience, ..request("/") }).await.is_ok(), believed);
        }
        assert_eq!(format!("{:?}", keys(&[1])), "PeerKeys(…)");
    });
}

#[test]
fn a_node_that_dies_answers_nobody_and_is_found_again() {
    story(async {
        let (node, link) = pair().await;
        let Body::Stream(mut events) = link.ask(request("/events")).await.unwrap().body else { panic!() };
        let ask = |target: &'static str| {
            let link = link.clone();
            spawn_local(async move { link.ask(request(target)).await })
        };
        let sent = ask("/wait");
        let begun = || node.shop.begun.borrow().iter().any(|target| target == "/wait");
        until("it is begun", begun).await;
        let shop = node.shop.clone();
        let address = node.die().await;
        assert_eq!(sent.await.unwrap().unwrap_err(), Unanswered::Unknown);
        assert!(!link.is_up());
        let last = async { events.by_ref().fold(Ok(Bytes::new()), |_, piece| async { piece }).await };
        assert_eq!(timeout(PATIENCE, last).await.unwrap(), Err(Cut));
        assert!(events.next().await.is_none());
        shop.door.notify_one();
        until("what was begun is done", || shop.done.get() == 2).await;

        let waiting = ask("/waited for");
        yield_now().await;
        let node = Node::open_at(address, keys(&[1])).await;
        assert!(waiting.await.unwrap().is_ok(), "it waited until there was a node again");
        assert!(link.is_up());
        assert_eq!(*node.shop.begun.borrow(), ["/waited for"]);
    });
}

#[test]
fn what_was_not_handed_to_the_socket_was_certainly_not_sent() {
    story(async {
        // A node that shares the key, and reads nothing.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let link = Link::to(listener.local_addr().unwrap().to_string(), keys(&[1]));
        let (stream, _channel) = taken(&listener).await;
        let stout = || Request { body: vec![0; BODY_BYTES_MAX].into(), ..request("/") };
        let ask = |request| {
            let link = link.clone();
            spawn_local(async move { link.ask(request).await.unwrap_err() })
        };
        let mut heard = Vec::new();
        // More than the socket takes: the first are handed to it, the last are not.
        for _ in 0..20 {
            heard.extend((0..40).map(|_| ask(stout())));
            sleep(Duration::from_millis(5)).await;
        }
        let last = ask(request("/last"));
        sleep(Duration::from_millis(20)).await;
        drop(stream);
        assert_eq!(heard.remove(0).await.unwrap(), Unanswered::Unknown);
        assert_eq!(last.await.unwrap(), Unanswered::NotSent);
    });
}

#[test]
fn nobody_is_waited_for_who_says_nothing() {
    story(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let link = Link::to(listener.local_addr().unwrap().to_string(), keys(&[1]));
        let _taken = taken(&listener).await;
        let patient = Request { patience: Duration::from_secs(60), ..request("/") };
        let heard = timeout(Duration::from_secs(30), link.ask(patient)).await.unwrap();
        assert_eq!(
            heard.unwrap_err(),
            Unanswered::Unknown,
            "after three seconds, long before the patience ends"
        );
        assert!(!link.is_up());

        // The same the other way, and an idle pair that stays together meanwhile.
        let (_node, idle) = pair().await;
        assert!(idle.ask(request("/")).await.is_ok());
        let mut mute = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let desk: Rc<dyn Desk> = Rc::new(At(Rc::new(Shop::default())));
        let served = loop {
            // The link above tries again meanwhile; whoever it is that says nothing, the end is the same.
            let accepted = listener.accept().await.unwrap().0;
            if accepted.peer_addr().unwrap() == mute.local_addr().unwrap() {
                let serving = spawn_local(serve(accepted, keys(&[1]), desk));
                let _channel = super::greeting::speak(&mut mute, &keys(&[1])).await.unwrap();
                break timeout(Duration::from_secs(30), serving).await.unwrap().unwrap();
            }
        };
        assert!(matches!(served, Err(PeerError::Silent)), "{served:?}");
        assert!(idle.is_up());
        let quick = Request { patience: Duration::from_secs(1), ..request("/") };
        assert!(idle.ask(quick).await.is_ok());
    });
}
