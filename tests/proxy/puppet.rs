//! A node that does what a test wants: it is ready or not, hangs up on whoever asks for something that is `lost`, keeps an answer that
//! is `slow` back, and remembers what it was asked. Its answers are its name and what it heard of who asks.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::support::wait_for;

pub struct Puppet {
    name: &'static str,
    ready: AtomicBool,
    /// How often it was asked whether it is ready, since it last changed its mind.
    checks: AtomicU64,
    /// How often it was asked for what, by method and path.
    asked: Mutex<BTreeMap<String, u64>>,
    /// Has room once what is slow may be answered.
    slow: Semaphore,
}

impl Puppet {
    /// Listening, and ready.
    pub async fn opens(name: &'static str, address: SocketAddr) -> Arc<Puppet> {
        let puppet = Arc::new(Puppet {
            name,
            ready: AtomicBool::new(true),
            checks: AtomicU64::new(0),
            asked: Mutex::default(),
            slow: Semaphore::new(0),
        });
        let listener = TcpListener::bind(address).await.unwrap();
        let listening = puppet.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(listening.clone().serve(stream));
            }
        });
        puppet
    }

    pub fn ready_no_more(&self) {
        self.ready.store(false, Ordering::Relaxed);
        self.checks.store(0, Ordering::Relaxed);
    }

    pub fn checks(&self) -> u64 {
        self.checks.load(Ordering::Relaxed)
    }

    /// Waits until the proxy has heard that it is ready: whoever asks for a second time has heard the first answer.
    pub async fn is_seen(&self) {
        wait_for(|| (self.checks() > 1).then_some(())).await;
    }

    /// Answers what is slow.
    pub fn hurry(&self) {
        self.slow.add_permits(1);
    }

    /// How often it was asked for this.
    pub fn asked(&self, what: &str) -> u64 {
        self.asked.lock().unwrap().get(what).copied().unwrap_or_default()
    }

    /// One request after the other, until either side hangs up.
    async fn serve(self: Arc<Self>, stream: TcpStream) {
        let mut stream = BufStream::new(stream);
        while let Some((what, from)) = heard(&mut stream).await {
            let Some(status) = self.answers(&what).await else { return };
            let said = format!("{} heard of {from}", self.name);
            let head = format!("HTTP/1.1 {status} Said\r\nContent-Length: {}\r\n\r\n", said.len());
            if stream.write_all((head + &said).as_bytes()).await.is_err() || stream.flush().await.is_err() {
                return;
            }
        }
    }

    async fn answers(&self, what: &str) -> Option<u16> {
        if what == "GET /readyz" {
            self.checks.fetch_add(1, Ordering::Relaxed);
            return Some(if self.ready.load(Ordering::Relaxed) { 200 } else { 503 });
        }
        let before = {
            let mut asked = self.asked.lock().unwrap();
            let times = asked.entry(what.to_owned()).or_default();
            *times += 1;
            *times - 1
        };
        if what.contains("lost") && before == 0 {
            return None;
        }
        if what.contains("slow") {
            self.slow.acquire().await.unwrap().forget();
        }
        Some(200)
    }
}

/// A whole request: what it asks for, and who the proxy says is asking.
async fn heard(stream: &mut BufStream<TcpStream>) -> Option<(String, String)> {
    let (mut what, mut from, mut body) = (String::new(), Vec::new(), 0);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        if what.is_empty() {
            what = line.rsplit_once(' ')?.0.to_owned();
        } else if line.is_empty() {
            break;
        } else if let Some((name, value)) = line.split_once(": ") {
            match name.to_lowercase().as_str() {
                "x-forwarded-for" => from.push(value.to_owned()),
                "content-length" => body = value.parse().ok()?,
                _ => {}
            }
        }
    }
    stream.read_exact(&mut vec![0; body]).await.ok()?;
    Some((what, from.join(", ")))
}
