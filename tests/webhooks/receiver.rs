//! Somebody who receives webhooks: a server that answers as it was told, keeps what it heard, and checks signatures by a way of its
//! own.
#![allow(dead_code)]

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::http::{StatusCode, header};
use actix_web::web::{Bytes, Data};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, rt, web};
use aws_lc_rs::digest;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures_util::Stream;
use serde_json::Value;
use tokio::sync::mpsc;

/// Busy machines take their time.
const PATIENCE: Duration = Duration::from_secs(60);
const PIECE: &[u8] = &[b'x'; 16 * 1024];

/// What is answered.
#[derive(Debug, Clone)]
pub enum Answer {
    Status(u16),
    Redirect(String),
    /// 200, and a body without an end.
    Endless,
    Never,
}

/// One webhook as it came.
#[derive(Debug, Clone)]
pub struct Heard {
    headers: Vec<(String, String)>,
    pub text: String,
    pub body: Value,
}

impl Heard {
    pub fn header(&self, name: &str) -> &str {
        &self.headers.iter().find(|(known, _)| known == name).unwrap_or_else(|| panic!("no {name}")).1
    }

    pub fn id(&self) -> &str {
        self.header("webhook-id")
    }

    pub fn timestamp(&self) -> i64 {
        self.header("webhook-timestamp").parse().unwrap()
    }

    pub fn signatures(&self) -> Vec<&str> {
        self.header("webhook-signature").split(' ').collect()
    }
}

struct Inner {
    answers: Vec<Answer>,
    heard: AtomicUsize,
    tell: mpsc::UnboundedSender<Heard>,
    cut: mpsc::UnboundedSender<usize>,
}

pub struct Receiver {
    pub url: String,
    addr: SocketAddr,
    inner: Arc<Inner>,
    next: mpsc::UnboundedReceiver<Heard>,
    cut: mpsc::UnboundedReceiver<usize>,
}

impl Receiver {
    /// Gives these answers in turn; the last one counts for all that follow.
    pub async fn open(answers: &[Answer]) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (tell, next) = mpsc::unbounded_channel();
        let (cut_off, cut) = mpsc::unbounded_channel();
        let answers = answers.to_vec();
        let inner = Arc::new(Inner { answers, heard: AtomicUsize::new(0), tell, cut: cut_off });
        let data = inner.clone();
        let routes = move || App::new().app_data(Data::from(data.clone())).default_service(web::to(receive));
        let server = HttpServer::new(routes).workers(1).disable_signals().listen(listener).unwrap();
        rt::spawn(server.run());
        Receiver { url: format!("http://{addr}/hooks?of=stockade"), addr, inner, next, cut }
    }

    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// The next webhook, whatever was answered.
    pub async fn next(&mut self) -> Heard {
        tokio::time::timeout(PATIENCE, self.next.recv()).await.expect("a webhook in time").unwrap()
    }

    /// How many came.
    pub fn heard(&self) -> usize {
        self.inner.heard.load(Ordering::Relaxed)
    }

    /// How much of an endless answer was sent before the caller hung up.
    pub async fn cut_after(&mut self) -> usize {
        tokio::time::timeout(PATIENCE, self.cut.recv()).await.expect("it hangs up").unwrap()
    }
}

async fn receive(request: HttpRequest, inner: Data<Inner>, body: Bytes) -> HttpResponse {
    assert_eq!((request.method().as_str(), request.path()), ("POST", "/hooks"));
    let headers = request.headers().iter();
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
    let text = String::from_utf8(body.to_vec()).unwrap();
    let heard = Heard { headers: headers.collect(), body: serde_json::from_str(&text).unwrap(), text };
    let number = inner.heard.fetch_add(1, Ordering::Relaxed);
    // Nobody may be listening any more.
    let _ = inner.tell.send(heard);
    match inner.answers[number.min(inner.answers.len() - 1)].clone() {
        Answer::Status(status) => HttpResponse::new(StatusCode::from_u16(status).unwrap()),
        Answer::Redirect(to) => {
            HttpResponse::PermanentRedirect().insert_header((header::LOCATION, to)).finish()
        }
        Answer::Endless => HttpResponse::Ok().streaming(Endless { sent: 0, cut: inner.cut.clone() }),
        Answer::Never => std::future::pending().await,
    }
}

struct Endless {
    sent: usize,
    cut: mpsc::UnboundedSender<usize>,
}

impl Stream for Endless {
    type Item = Result<Bytes, actix_web::Error>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.sent += PIECE.len();
        Poll::Ready(Some(Ok(Bytes::from_static(PIECE))))
    }
}

impl Drop for Endless {
    fn drop(&mut self) {
        let _ = self.cut.send(self.sent);
    }
}

pub fn secret_bytes(word: &str) -> Vec<u8> {
    BASE64_STANDARD.decode(word.strip_prefix("whsec_").unwrap()).unwrap()
}

/// HMAC as RFC 2104 writes it, so that nothing of the sender is believed.
fn hmac_sha256(key: &[u8], text: &[u8]) -> Vec<u8> {
    assert!(key.len() <= 64);
    let padded = |pad: u8| (0..64).map(move |at| key.get(at).copied().unwrap_or(0) ^ pad);
    let sha256 = |bytes: Vec<u8>| digest::digest(&digest::SHA256, &bytes).as_ref().to_vec();
    let inner = sha256(padded(0x36).chain(text.iter().copied()).collect());
    sha256(padded(0x5c).chain(inner).collect())
}

/// Was one of the signatures made with this secret?
pub fn signed_with(heard: &Heard, secret: &[u8]) -> bool {
    let text = format!("{}.{}.{}", heard.id(), heard.header("webhook-timestamp"), heard.text);
    let expected = format!("v1,{}", BASE64_STANDARD.encode(hmac_sha256(secret, text.as_bytes())));
    heard.signatures().contains(&expected.as_str())
}

/// Looks until there is something to see.
pub async fn until<T, F: Future<Output = Option<T>>>(mut look: impl FnMut() -> F) -> T {
    let coming = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, coming).await.expect("it came in time")
}
