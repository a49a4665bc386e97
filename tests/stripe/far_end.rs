//! The other end of the line, as a test wants it: it answers what it was told to answer, in that order, and keeps what it heard.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use secrecy::SecretString;
use serde_json::{Value, json};
use stockade::clock::Clock;
use stockade::config::{Config, Payment, PaymentProvider, StripeAccount};
use stockade::domain::amount::{Currency, Money};
use stockade::domain::id::{OrderId, PaymentId, RefundId};
use stockade::domain::payment::Method;
use stockade::domain::stock::Millis;
use stockade::provider::{Books, Charge, Provider, RefundAsk};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

pub const SECRET: &str = "whsec_for_tests";

/// What it answers.
#[derive(Debug, Clone)]
pub enum Say {
    Json(u16, Value),
    /// The same, as an earlier request with this key was answered.
    Replay(u16, Value),
    Raw(u16, Vec<u8>),
    /// Nothing: the line goes dead.
    Nothing,
}

/// A request it heard.
#[derive(Debug, Clone)]
pub struct Heard {
    /// `POST /v1/payment_intents?…`
    pub line: String,
    pub head: String,
    pub body: String,
}

impl Heard {
    /// The value of a header, empty without one.
    pub fn header(&self, name: &str) -> &str {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines
            .filter(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .next()
            .unwrap_or("")
    }

    pub fn key(&self) -> &str {
        self.header("Idempotency-Key")
    }
}

/// What a request begins with, its key, and what it hears.
type Usual = (&'static str, String, Say);

pub struct FarEnd {
    pub provider: Provider,
    pub books: Books,
    pub url: String,
    script: Arc<Mutex<VecDeque<Say>>>,
    /// What is said, without a script, to requests that begin like this under this key.
    always: Arc<Mutex<Vec<Usual>>>,
    heard: Arc<Mutex<Vec<Heard>>>,
}

impl FarEnd {
    pub async fn that_says(script: impl IntoIterator<Item = Say>) -> FarEnd {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (provider, books) = (stripe_at(&url), books_at(&url));
        let script = Arc::new(Mutex::new(script.into_iter().collect::<VecDeque<_>>()));
        let heard = Arc::new(Mutex::new(Vec::new()));
        let always = Arc::new(Mutex::new(Vec::<Usual>::new()));
        let (says, says_always, hears) = (script.clone(), always.clone(), heard.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Some(request) = listen(stream).await else { continue };
                let is_asked =
                    |(line, key, _): &&Usual| request.0.line.starts_with(line) && request.0.key() == key;
                let usual = says_always.lock().unwrap().iter().find(is_asked).map(|(_, _, say)| say.clone());
                let say = says.lock().unwrap().pop_front().or(usual);
                hears.lock().unwrap().push(request.0);
                answer(request.1, say.unwrap_or(Say::Raw(418, b"nobody told me what to say".to_vec()))).await;
            }
        });
        FarEnd { provider, books, url, script, always, heard }
    }

    /// And then it says this.
    pub fn says(&self, more: impl IntoIterator<Item = Say>) {
        self.script.lock().unwrap().extend(more);
    }

    /// And what has no script and begins like this, under this key, it answers so as often as it is asked.
    pub fn always_says(&self, line: &'static str, key: &str, say: Say) {
        self.always.lock().unwrap().push((line, key.to_owned(), say));
    }

    /// All it heard; it must have said all it had to say.
    #[track_caller]
    pub fn heard(&self) -> Vec<Heard> {
        assert_eq!(self.script.lock().unwrap().len(), 0, "it was not asked as often as that");
        self.heard.lock().unwrap().clone()
    }

    /// The request lines without their queries.
    #[track_caller]
    pub fn lines(&self) -> Vec<String> {
        self.heard().iter().map(|heard| heard.line.split('?').next().unwrap_or_default().to_owned()).collect()
    }
}

async fn listen(stream: TcpStream) -> Option<(Heard, TcpStream)> {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        if let Some(bytes) = line.to_lowercase().strip_prefix("content-length:") {
            length = bytes.trim().parse().ok()?;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).await.ok()?;
    let line = head.lines().next()?.trim_end_matches(" HTTP/1.1").to_owned();
    let body = String::from_utf8(body).ok()?;
    Some((Heard { line, head, body }, reader.into_inner()))
}

async fn answer(mut stream: TcpStream, say: Say) {
    let (status, replayed, body) = match say {
        Say::Json(status, body) => (status, "", body.to_string().into_bytes()),
        Say::Replay(status, body) => (status, "Idempotent-Replayed: true\r\n", body.to_string().into_bytes()),
        Say::Raw(status, body) => (status, "", body),
        Say::Nothing => return,
    };
    let head = format!(
        "HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{replayed}Request-Id: req_1\r\n\
         Location: /elsewhere\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all(&[head.into_bytes(), body].concat()).await;
    let _ = stream.shutdown().await;
}

/// The settings of a shop whose money moves here.
pub fn account_at(url: &str) -> Payment {
    let account = StripeAccount { secret_key: "sk_test_hush".into(), url: url.to_owned() };
    let config = Config::development(&std::env::temp_dir());
    Payment { provider: PaymentProvider::Stripe(account), ..config.payment }
}

/// The adapter under test, pointed at this address.
pub fn stripe_at(url: &str) -> Provider {
    let shop = ([127, 0, 0, 1], 0).into();
    let secret = SecretString::from(SECRET);
    Provider::open(&account_at(url), &std::env::temp_dir(), &secret, shop, &Clock::start()).unwrap()
}

fn books_at(url: &str) -> Books {
    Books::open(&account_at(url), &std::env::temp_dir(), &Clock::start()).unwrap()
}

pub fn won(amount: i64) -> Money {
    Money { amount, currency: Currency::KRW }
}

/// A purchase of 12,900 won that began so long ago.
pub struct Purchase {
    pub payment: PaymentId,
    pub order: OrderId,
    pub refund: RefundId,
    method: Method,
    began: Millis,
}

pub const INTENT: &str = "pi_3RfK2aB9xQ";

impl Purchase {
    pub fn with(token: &str) -> Purchase {
        let clock = Clock::start();
        let began = clock.now();
        let (payment, order) = (PaymentId::new(began, clock.chance()), OrderId::new(began, clock.chance()));
        let refund = RefundId::new(began, clock.chance());
        Purchase { payment, order, refund, method: Method::card(token).unwrap(), began }
    }

    pub fn ago(ms: i64) -> Purchase {
        let purchase = Purchase::with("pm_card_visa");
        Purchase { began: purchase.began.plus(-ms), ..purchase }
    }

    pub fn ask(&self) -> Charge<'_> {
        let Purchase { payment, order, method, began, .. } = self;
        Charge {
            payment: *payment,
            order: *order,
            amount: won(12_900),
            method: Some(method),
            provider_ref: None,
            started_at: *began,
        }
    }

    pub fn back<'a>(&self, provider_ref: &'a str, amount: i64) -> RefundAsk<'a> {
        let Purchase { payment, order, refund, began, .. } = *self;
        RefundAsk {
            refund,
            payment,
            order,
            provider_ref,
            amount: won(amount),
            started_at: began,
            again: false,
            made_anew: 0,
        }
    }

    /// One of the shapes, with the ids of this purchase, and `more` in the place of what stands there.
    pub fn shape(&self, name: &str, more: Value) -> Value {
        let text = match name {
            "intent" => include_str!("shapes/intent.json"),
            "declined" => include_str!("shapes/declined.json"),
            "refund" => include_str!("shapes/refund.json"),
            _ => panic!("there is no shape called {name}"),
        };
        let text =
            text.replace("PAYMENT", &self.payment.to_string()).replace("ORDER", &self.order.to_string());
        let mut shape: Value =
            serde_json::from_str(&text.replace("REFUND", &self.refund.to_string())).unwrap();
        for (key, value) in more.as_object().unwrap() {
            shape[key] = value.clone();
        }
        shape
    }

    pub fn intent(&self, status: &str) -> Value {
        self.shape("intent", json!({ "status": status }))
    }

    pub fn succeeded(&self) -> Value {
        let charge: Value = serde_json::from_str(include_str!("shapes/charge.json")).unwrap();
        self.shape(
            "intent",
            json!({ "status": "succeeded", "amount_received": 12_900, "latest_charge": charge }),
        )
    }
}

pub fn list(data: &[Value], has_more: bool) -> Say {
    Say::Json(200, json!({ "object": "list", "url": "/v1/…", "data": data, "has_more": has_more }))
}

/// A *no* of theirs.
pub fn error(kind: &str, code: Value) -> Value {
    json!({ "error": { "type": kind, "code": code, "message": "words for people" } })
}
