//! Somebody who shares the key and speaks frame by frame, also such as nobody should say.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::timeout;

use super::shop::{At, Node};
use super::{PATIENCE, keys, story};
use crate::peer::channel::Channel;
use crate::peer::frame::{Ask, Block, Frame, Headers};
use crate::peer::{PeerError, Side, greeting, serve};

/// Somebody who shares the key, and says what he likes.
pub(super) struct Raw {
    pub(super) stream: TcpStream,
    channel: Channel,
    sealed: Vec<u8>,
    plain: Vec<u8>,
}

impl Raw {
    pub(super) async fn to(address: SocketAddr) -> Raw {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let channel = greeting::speak(&mut stream, &keys(&[1])).await.unwrap();
        Raw { stream, channel, sealed: Vec::new(), plain: Vec::new() }
    }

    pub(super) async fn say(&mut self, frames: &[Frame<'_>]) {
        let mut plain = Vec::new();
        frames.iter().for_each(|frame| frame.encode(&mut plain).unwrap());
        self.say_bytes(&plain).await;
    }

    pub(super) async fn say_bytes(&mut self, plain: &[u8]) {
        let mut sealed = Vec::new();
        self.channel.seal(plain, &mut sealed).unwrap();
        self.stream.write_all(&sealed).await.unwrap();
    }

    /// The next frame; `None` at the end.
    pub(super) async fn hear(&mut self) -> Option<String> {
        loop {
            if let Some((frame, rest)) = Frame::first(&self.plain).unwrap() {
                let (said, used) = (format!("{frame:?}"), self.plain.len() - rest.len());
                self.plain.drain(..used);
                if said != "Here" {
                    return Some(said);
                }
                continue;
            }
            if !matches!(self.stream.read_buf(&mut self.sealed).await, Ok(1..)) {
                return None;
            }
            let used = self.channel.open(&self.sealed, &mut self.plain).unwrap();
            self.sealed.drain(..used);
        }
    }
}

pub(super) fn ask(id: u64, patience_us: u64) -> Frame<'static> {
    Frame::Ask(Ask {
        id,
        method: "GET",
        target: "/raw",
        from: None,
        side: Side::Ops,
        hops: 0,
        session: 0,
        patience_us,
        headers: Headers::lent(&[]),
        body: Block(b""),
    })
}

/// Somebody who is served, and what comes of serving him.
async fn served() -> (Raw, JoinHandle<Result<(), PeerError>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = spawn_local(async move {
        let accepted = listener.accept().await.unwrap().0;
        serve(accepted, keys(&[1]), Rc::new(At(Rc::default()))).await
    });
    (Raw::to(address).await, serving)
}

/// He is left for what he said: whoever then said nothing more would be left as well, three seconds later.
async fn is_left(crime: &str, serving: JoinHandle<Result<(), PeerError>>) {
    let served = timeout(PATIENCE, serving).await.unwrap_or_else(|_| panic!("still served: {crime}"));
    let why = served.unwrap().unwrap_err();
    let meant = matches!(why, PeerError::Malformed(_) | PeerError::TooLarge { .. } | PeerError::Damaged);
    assert!(meant, "{crime}: {why:?}");
}

#[test]
fn whoever_breaks_the_rules_is_left() {
    story(async {
        let crimes: BTreeMap<&str, Vec<Frame>> = BTreeMap::from([
            ("a number twice", vec![ask(1, 1_000_000), ask(1, 1_000_000)]),
            ("a number that shrinks", vec![ask(5, 1_000_000), ask(4, 1_000_000)]),
            ("credit for nothing", vec![Frame::Credit { id: 1, bytes: 1 }]),
            ("to leave what was not asked", vec![Frame::Leave { id: 9 }]),
            ("to answer unasked", vec![Frame::End { id: 0 }]),
        ]);
        for (crime, frames) in crimes {
            let (mut raw, serving) = served().await;
            raw.say(&frames).await;
            let end = async { while raw.hear().await.is_some() {} };
            assert!(timeout(PATIENCE, end).await.is_ok(), "{crime}");
            is_left(crime, serving).await;
        }
        for bytes in [[0xff, 0xff, 0xff, 0xff, 0].as_slice(), &[1, 0, 0, 0, 99], &[0; 8]] {
            let (mut raw, serving) = served().await;
            raw.say_bytes(bytes).await;
            assert_eq!(timeout(PATIENCE, raw.hear()).await.unwrap(), None, "{bytes:?}");
            is_left(&format!("{bytes:?}"), serving).await;
        }
        // What was not sealed ends it as well.
        let (mut raw, serving) = served().await;
        raw.stream
            .write_all(&[0, 20, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1])
            .await
            .unwrap();
        assert_eq!(timeout(PATIENCE, raw.hear()).await.unwrap(), None);
        is_left("not sealed", serving).await;
        // And a neighbour who keeps them is answered.
        let node = Node::open(keys(&[1])).await;
        let mut raw = Raw::to(node.address).await;
        raw.say(&[Frame::Here, ask(3, 5_000_000), Frame::Leave { id: 2 }]).await;
        assert!(raw.hear().await.unwrap().starts_with("Whole { id: 3, status: 201"));
    });
}
