//! Somebody who shares the key and speaks frame by frame, also such as nobody should say.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::shop::Node;
use super::{keys, story};
use crate::peer::Side;
use crate::peer::channel::Channel;
use crate::peer::frame::{Ask, Block, Frame, Headers};
use crate::peer::greeting;

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

#[test]
fn whoever_breaks_the_rules_is_left() {
    story(async {
        let node = Node::open(keys(&[1])).await;
        let crimes: BTreeMap<&str, Vec<Frame>> = BTreeMap::from([
            ("a number twice", vec![ask(1, 1_000_000), ask(1, 1_000_000)]),
            ("a number that shrinks", vec![ask(5, 1_000_000), ask(4, 1_000_000)]),
            ("credit for nothing", vec![Frame::Credit { id: 1, bytes: 1 }]),
            ("to leave what was not asked", vec![Frame::Leave { id: 9 }]),
            ("to answer unasked", vec![Frame::End { id: 0 }]),
        ]);
        for (crime, frames) in crimes {
            let mut raw = Raw::to(node.address).await;
            raw.say(&frames).await;
            let end = async { while raw.hear().await.is_some() {} };
            assert!(timeout(Duration::from_secs(1), end).await.is_ok(), "{crime}");
        }
        for bytes in [[0xff, 0xff, 0xff, 0xff, 0].as_slice(), &[1, 0, 0, 0, 99], &[0; 8]] {
            let mut raw = Raw::to(node.address).await;
            raw.say_bytes(bytes).await;
            assert_eq!(timeout(Duration::from_secs(1), raw.hear()).await.unwrap(), None, "{bytes:?}");
        }
        // What was not sealed ends it as well.
        let mut raw = Raw::to(node.address).await;
        raw.stream
            .write_all(&[0, 20, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1])
            .await
            .unwrap();
        assert_eq!(timeout(Duration::from_secs(1), raw.hear()).await.unwrap(), None);
        // And a neighbour who keeps them is answered.
        let mut raw = Raw::to(node.address).await;
        raw.say(&[Frame::Here, ask(3, 5_000_000), Frame::Leave { id: 2 }]).await;
        assert!(raw.hear().await.unwrap().starts_with("Whole { id: 3, status: 201"));
    });
}
