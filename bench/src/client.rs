//! A small HTTP client for everything that is not load: setting up, reading back, judging. One request at a time on
//! one connection, whole bodies, and a new connection when the old one has gone.

use std::cell::Cell;
use std::net::SocketAddr;

use anyhow::{Context, Result, anyhow, bail};
use futures_util::future::join_all;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Duration, timeout};

use crate::wire::{Head, header, number};

const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

pub struct Client {
    target: SocketAddr,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    /// `Idempotent-Replayed: true`.
    pub replayed: bool,
    /// `Retry-After`, in seconds.
    pub retry_after_s: Option<u64>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("{} and no JSON: {}", self.status, self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Client {
    pub fn new(target: SocketAddr) -> Self {
        Self { target, stream: None, buffer: Vec::with_capacity(16 * 1024) }
    }

    pub fn target(&self) -> SocketAddr {
        self.target
    }

    pub async fn get(&mut self, path: &str, token: Option<&str>) -> Result<Reply> {
        let authorization =
            token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{authorization}\r\n", self.target);
        // A kept connection may have been closed by a server that saw it idle; asking twice is harmless here.
        let kept = self.stream.is_some();
        match self.send(request.as_bytes()).await {
            Err(_) if kept => self.send(request.as_bytes()).await,
            answer => answer,
        }
        .with_context(|| format!("GET {path}"))
    }

    /// A GET that must be 200.
    pub async fn get_json(&mut self, path: &str, token: Option<&str>) -> Result<Value> {
        let reply = self.get(path, token).await?;
        if reply.status != 200 {
            bail!("GET {path} answered {}: {}", reply.status, reply.text());
        }
        reply.json()
    }

    /// Sends a request as it is. An error means that no answer came: whether it was executed is unknown.
    pub async fn send(&mut self, request: &[u8]) -> Result<Reply> {
        let answer = timeout(ANSWER_TIMEOUT, self.exchange(request)).await;
        let answer = answer.unwrap_or_else(|_| Err(anyhow!("no answer in {ANSWER_TIMEOUT:?}")));
        if answer.is_err() {
            self.stream = None;
        }
        answer
    }

    async fn exchange(&mut self, request: &[u8]) -> Result<Reply> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => connect(self.target).await?,
        };
        stream.write_all(request).await?;
        self.buffer.clear();
        let head = loop {
            if let Some(head) = Head::parse(&self.buffer).map_err(|malformed| anyhow!(malformed.0))? {
                break head;
            }
            if stream.read_buf(&mut self.buffer).await? == 0 {
                bail!("the connection ended before the answer");
            }
        };
        let fields = &self.buffer[..head.head_len];
        let closes =
            header(fields, b"connection: ").is_some_and(|value| value.eq_ignore_ascii_case(b"close"));
        self.stream = (!closes).then_some(stream);
        Ok(Reply {
            status: head.status,
            replayed: header(fields, b"idempotent-replayed: ") == Some(b"true"),
            retry_after_s: header(fields, b"retry-after: ").and_then(number),
            body: self.buffer[head.head_len..head.len()].to_vec(),
        })
    }
}

pub async fn connect(target: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(target).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Does `work` on every item over `connections` connections at once; the results stand in the items' order.
pub async fn each<T, R>(
    target: SocketAddr,
    connections: usize,
    items: &[T],
    work: impl AsyncFn(&mut Client, &T) -> Result<R>,
) -> Result<Vec<R>> {
    let next = Cell::new(0);
    let hands = (0..connections.min(items.len()).max(1)).map(async |_| {
        let mut client = Client::new(target);
        let mut done = Vec::new();
        while let Some(item) = items.get(next.get()) {
            let place = next.replace(next.get() + 1);
            done.push((place, work(&mut client, item).await?));
        }
        anyhow::Ok(done)
    });
    let mut done: Vec<(usize, R)> =
        join_all(hands).await.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
    done.sort_unstable_by_key(|(place, _)| *place);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}
