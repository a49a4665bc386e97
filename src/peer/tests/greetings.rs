//! How a connection begins, also with those who only repeat what they have overheard, or for whom there is no place.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use super::shop::Node;
use super::{keys, request, story, until};
use crate::clock::Clock;
use crate::peer::channel;
use crate::peer::{Link, PeerError, Request, Unanswered, greet};

#[test]
fn a_greeting_that_was_overheard_holds_no_place() {
    story(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut overheard = [0; 48];
        let speaking = async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let _ = channel::speak(&mut stream, &keys(&[1])).await;
        };
        let overhearing = async {
            let mut stream = listener.accept().await.unwrap().0;
            stream.read_exact(&mut overheard).await.unwrap();
        };
        tokio::join!(speaking, overhearing);

        // Whatever is said behind it, or nothing: it was not said by whoever made the greeting.
        for behind in
            [&b""[..], &[7; 23], &[0, 21, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7]]
        {
            let mut stranger = TcpStream::connect(address).await.unwrap();
            let accepted = listener.accept().await.unwrap().0;
            let greeting = spawn_local(async move { greet(accepted, &keys(&[1])).await.err() });
            stranger.write_all(&overheard).await.unwrap();
            stranger.read_exact(&mut [0; 48]).await.unwrap();
            stranger.write_all(behind).await.unwrap();
            let why = timeout(Duration::from_secs(4), greeting).await.unwrap().unwrap();
            match behind {
                [] => assert!(matches!(why, Some(PeerError::NoGreeting)), "{why:?}"),
                [0, ..] => assert!(matches!(why, Some(PeerError::Damaged)), "{why:?}"),
                _ => assert!(matches!(why, Some(PeerError::Malformed(_))), "{why:?}"),
            }
        }
    });
}

#[test]
fn where_there_is_no_place_nothing_is_sent_and_nobody_storms_the_door() {
    story(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let clock = Clock::start();
        let began = clock.nanos();
        let link = Link::to(listener.local_addr().unwrap().to_string(), keys(&[1]));
        let tries = Rc::new(Cell::new(0));
        spawn_local({
            let tries = tries.clone();
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tries.set(tries.get() + 1);
                    greet(stream, &keys(&[1])).await.unwrap();
                }
            }
        });
        let coming_up = spawn_local({
            let link = link.clone();
            async move { link.comes_up().await }
        });
        let second = Request { patience: Duration::from_secs(1), ..request("/") };
        assert_eq!(link.ask(second).await.unwrap_err(), Unanswered::NotSent);
        assert!(!link.is_up() && !coming_up.is_finished());
        until("it is tried again", || tries.get() >= 2).await;
        let (tries, nanos) = (tries.get(), clock.nanos() - began);
        assert!(tries * 1_000_000_000 < 10 * nanos, "{tries} tries in {nanos} ns");
        coming_up.abort();
    });
}

#[test]
fn a_name_is_looked_up_anew_and_each_of_its_addresses_is_tried() {
    story(async {
        // Where the name has two addresses nobody accepts at the other one.
        let node = Node::open(keys(&[1])).await;
        let link = Link::to(format!("localhost:{}", node.address.port()), keys(&[1]));
        assert!(link.ask(request("/")).await.is_ok());
        let address = node.die().await;
        while link.is_up() {
            sleep(Duration::from_millis(2)).await;
        }
        let _node = Node::open_at(address, keys(&[1])).await;
        assert!(link.ask(request("/")).await.is_ok());
        let nowhere = Link::to("no port".to_owned(), keys(&[1]));
        let short = Request { patience: Duration::from_millis(200), ..request("/") };
        assert_eq!(nowhere.ask(short).await.unwrap_err(), Unanswered::NotSent);
    });
}
