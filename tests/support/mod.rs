//! A shop of one's own: the real application on a free port and a temporary folder, and words to talk to it.
#![allow(dead_code)]

mod bank;
pub mod contract;
mod delivery;
mod device;
pub mod film;
mod follow;
mod held;
pub mod kill;
mod leaks;
mod money;
mod people;
mod process;
pub mod rights;
mod secrets;
mod stalls;
pub mod stranger;

use std::path::Path;

#[allow(unused_imports)]
pub use bank::{BANK_KEY, Bank};
#[allow(unused_imports)]
pub use delivery::DAY_MS;
#[allow(unused_imports)]
pub use device::{Device, LOG_IN, REFRESH};
#[allow(unused_imports)]
pub use held::Held;
#[allow(unused_imports)]
pub use leaks::leaks;
#[allow(unused_imports)]
pub use money::{card, paid_with, signed, signed_event};
#[allow(unused_imports)]
pub use people::{Letter, Pair, Person, breached_list, letters_in, told_in_trail, wait_for};
#[allow(unused_imports)]
pub use process::Process;
#[allow(unused_imports)]
pub use secrets::{Search, Secrets};
#[allow(unused_imports)]
pub use stalls::Stalls;

use jsonwebtoken::EncodingKey;
use reqwest::header::HeaderMap;
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use secrecy::SecretString;
use serde_json::{Value, json};
use stockade::app::App;
use stockade::clock::Clock;
use stockade::config::Config;
use stockade::domain::id::UserId;
use stockade::domain::stock::Millis;
use stockade::domain::user::Role;
use tempfile::TempDir;

pub const SECRET: &str = "a signing key for tests, long enough";
/// Thirty-two bytes that stand nowhere in the repository.
pub fn master_key() -> String {
    ["left", "right"].map(|half| format!("{:032x}", xxhash_rust::xxh3::xxh3_128(half.as_bytes()))).concat()
}

/// How often somebody asks again who was told to.
const ASKED_AGAIN: usize = 4;
/// The administrator of every test.
const ADMIN: u64 = 0;

pub struct Shop {
    app: App,
    folder: TempDir,
    client: Client,
    base: String,
    pub clock: Clock,
}

/// An answer, read whole.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

/// A request that is being put together.
pub struct Ask {
    builder: RequestBuilder,
}

/// The how-manieth person of a test.
pub fn user(number: u64) -> UserId {
    UserId::new(Millis(1_700_000_000_000), u128::from(number) << 8 | 1)
}

/// A caller that needs no certificates, whether or not this machine has any.
pub fn client() -> Client {
    Client::builder().tls_certs_only([]).pool_max_idle_per_host(2_000).build().unwrap()
}

impl Shop {
    pub async fn open() -> Shop {
        Shop::open_with(|_| {}).await
    }

    pub async fn open_with(choose: impl FnOnce(&mut Config)) -> Shop {
        Shop::open_on(tempfile::tempdir().unwrap(), choose).await
    }

    /// On data that is there already.
    pub async fn open_in(folder: TempDir) -> Shop {
        Shop::open_in_with(folder, |_| {}).await
    }

    pub async fn open_in_with(folder: TempDir, choose: impl FnOnce(&mut Config)) -> Shop {
        Shop::open_on(folder, choose).await
    }

    pub async fn open_on(folder: TempDir, choose: impl FnOnce(&mut Config)) -> Shop {
        let mut config = Config::development(folder.path());
        config.tokens.secret = Some(SecretString::from(SECRET));
        config.payment.webhook_secret = Some(SecretString::from(money::WEBHOOK_SECRET));
        choose(&mut config);
        let app = App::build(&config).await.unwrap();
        // Days go by when a test says so.
        app.scheduler().pause();
        let base = format!("http://{}", app.addr());
        let client = client();
        let clock = app.clock().clone();
        Shop { app, folder, client, base, clock }
    }

    pub async fn close(self) {
        self.app.stop().await;
    }

    /// Where its data lies.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn app(&self) -> &App {
        &self.app
    }

    /// Stops in order and starts again on the same data.
    pub async fn reopen(self) -> Shop {
        self.reopen_with(|_| {}).await
    }

    /// The same with another configuration.
    pub async fn reopen_with(self, choose: impl FnOnce(&mut Config)) -> Shop {
        self.app.stop().await;
        Shop::open_on(self.folder, choose).await
    }

    /// Stops, and gives back what else there is: for those who listen meanwhile.
    pub async fn stop(self) -> TempDir {
        self.app.stop().await;
        self.folder
    }

    pub fn token(&self, who: u64, role: Role) -> String {
        self.app.tokens().sign(user(who), role, 900, self.clock.now(), self.clock.chance()).unwrap()
    }

    pub fn ask(&self, method: &str, path: &str) -> Ask {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        Ask { builder: self.client.request(method, format!("{}{path}", self.base)) }
    }

    /// At the operators' own listener.
    pub fn ops(&self, method: &str, path: &str) -> Ask {
        let url = format!("http://{}{path}", self.app.ops_addr().unwrap());
        Ask { builder: self.client.request(Method::from_bytes(method.as_bytes()).unwrap(), url) }
    }

    pub fn get(&self, path: &str) -> Ask {
        self.ask("GET", path)
    }

    /// As the how-manieth shopper.
    pub fn by(&self, who: u64, method: &str, path: &str) -> Ask {
        self.ask(method, path).bearer(&self.token(who, Role::Shopper))
    }

    pub fn admin(&self, method: &str, path: &str) -> Ask {
        self.ask(method, path).bearer(&self.token(ADMIN, Role::Admin))
    }

    /// A new product with so much stock; what is said besides is merged into the request.
    pub async fn product(&self, stock: u64, besides: Value) -> Value {
        let mut body = json!({
            "sku": format!("SKU-{:x}", self.clock.chance()),
            "name": "Moon jar",
            "price": { "amount": 1_000, "currency": "KRW" },
            "stock": stock,
        });
        for (name, value) in besides.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        // Half of it may stand: whoever asks again finishes that one.
        let key = format!("{:x}", self.clock.chance());
        let made = self.admin("POST", "/v1/admin/products").key(&key).json(&body).send().await;
        assert_eq!(made.status, 201, "{}", made.text);
        made.json()
    }

    /// The same, and only its id.
    pub async fn stocked(&self, stock: u64) -> String {
        id(&self.product(stock, json!({})).await)
    }

    /// Sends an order of one line.
    pub fn order(&self, who: u64, product: &str, quantity: u32) -> Ask {
        self.by(who, "POST", "/v1/orders").json(&one_line(product, quantity))
    }

    /// `available held sold sequence` of a product.
    pub async fn counters(&self, product: &str) -> [u64; 4] {
        let stock = self.get(&format!("/v1/products/{product}/stock")).send().await.json();
        ["available", "held", "sold", "sequence"].map(|name| stock[name].as_u64().unwrap())
    }

    /// The body of an open stream of events.
    pub async fn listen(&self, product: &str, last_seen: Option<&str>) -> reqwest::Response {
        let mut ask = self.get(&format!("/v1/products/{product}/stock/stream"));
        if let Some(seen) = last_seen {
            ask = ask.header("Last-Event-ID", seen);
        }
        ask.builder.send().await.unwrap()
    }
}

impl Ask {
    pub fn bearer(self, token: &str) -> Ask {
        Ask { builder: self.builder.bearer_auth(token) }
    }

    pub fn header(self, name: &str, value: &str) -> Ask {
        Ask { builder: self.builder.header(name, value) }
    }

    pub fn key(self, key: &str) -> Ask {
        self.header("Idempotency-Key", key)
    }

    pub fn json(self, body: &Value) -> Ask {
        Ask { builder: self.builder.json(body) }
    }

    /// A body as it stands, said to be JSON.
    pub fn body(self, body: impl Into<reqwest::Body>) -> Ask {
        Ask { builder: self.builder.header("Content-Type", "application/json").body(body) }
    }

    pub fn raw(self, content_type: &str, body: &str) -> Ask {
        Ask { builder: self.builder.header("Content-Type", content_type).body(body.to_owned()) }
    }

    /// The answer, which must be one that the document promises. Who hears that nothing was done because the machine stood still asks
    /// again, as the document tells: that is no finding about the shop.
    pub async fn send(self) -> Reply {
        let mut ask = self;
        for _ in 0..ASKED_AGAIN {
            let Some(again) = ask.builder.try_clone() else { break };
            let keyed = ask.is_keyed();
            let stalls = Stalls::looked_for();
            match ask.heard().await {
                // It never went out: the connection had been closed, because nothing came on it for long.
                Err(error) if stalls.were_seen() && format!("{error:?}").contains("Canceled") => {}
                Ok(reply)
                    if stalls.were_seen() && (reply.is_unavailable() || keyed && reply.is_unknown()) => {}
                told => return told.unwrap(),
            }
            println!("the machine stood still: asked again");
            ask = Ask { builder: again };
        }
        ask.send_once().await
    }

    fn is_keyed(&self) -> bool {
        let request = self.builder.try_clone().and_then(|builder| builder.build().ok());
        request.is_some_and(|request| request.headers().contains_key("Idempotency-Key"))
    }

    /// The same, and the first word counts.
    pub async fn send_once(self) -> Reply {
        self.heard().await.unwrap()
    }

    /// The same, if one comes.
    pub async fn try_send(self) -> Option<Reply> {
        self.heard().await.ok()
    }

    async fn heard(self) -> reqwest::Result<Reply> {
        let (client, request) = self.builder.build_split();
        let request = request?;
        let (method, path) = (request.method().to_string(), request.url().path().to_owned());
        let reply = Reply::read(client.execute(request).await?).await?;
        contract::holds(&method, &path, reply.status.as_u16(), &reply.headers, &reply.text);
        Ok(reply)
    }
}

impl Reply {
    async fn read(answer: reqwest::Response) -> reqwest::Result<Reply> {
        let (status, headers) = (answer.status(), answer.headers().clone());
        Ok(Reply { status, headers, text: answer.text().await? })
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text)
            .unwrap_or_else(|_| panic!("{} and no JSON: {}", self.status, self.text))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Nothing was done, for nobody was there to do it.
    fn is_unavailable(&self) -> bool {
        self.status == 503 && self.json()["code"] == "owner_unavailable"
    }

    /// It may have been done, and the same key finds out.
    fn is_unknown(&self) -> bool {
        self.status == 503 && self.json()["code"] == "outcome_unknown"
    }

    pub fn replayed(&self) -> bool {
        self.header("Idempotent-Replayed") == Some("true")
    }

    /// Checks that the answer is the contract's problem with this status and code, and gives it.
    #[track_caller]
    pub fn problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(self.header("Content-Type"), Some("application/problem+json"), "{}", self.text);
        let problem = self.json();
        assert_eq!(problem["code"], code, "{}", self.text);
        assert_eq!(problem["status"], status);
        assert_eq!(problem["request_id"], self.header("X-Request-Id").unwrap());
        for member in ["type", "title", "detail", "instance"] {
            assert!(problem[member].as_str().is_some_and(|word| !word.is_empty()), "{member}: {}", self.text);
        }
        problem
    }

    /// The same for 422, and gives the first pointer.
    #[track_caller]
    pub fn invalid(&self) -> String {
        let problem = self.problem(422, "validation_failed");
        problem["errors"][0]["pointer"].as_str().unwrap().to_owned()
    }

    /// Checks the status and gives the body.
    #[track_caller]
    pub fn ok(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        self.json()
    }
}

pub fn id(object: &Value) -> String {
    object["id"].as_str().unwrap().to_owned()
}

pub fn one_line(product: &str, quantity: u32) -> Value {
    lines(&[(product, quantity)])
}

pub fn lines(lines: &[(&str, u32)]) -> Value {
    let line = |(product, quantity): &(&str, u32)| json!({ "product_id": product, "quantity": quantity });
    json!({ "items": lines.iter().map(line).collect::<Vec<_>>() })
}

/// A token with these claims and this head, signed with the shop's own secret.
pub fn forged(head: &jsonwebtoken::Header, claims: &Value) -> String {
    jsonwebtoken::encode(head, claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
}
