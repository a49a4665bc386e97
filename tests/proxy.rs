//! The proxy of `docker-compose.yml`, with the very words that stand there, in front of two real nodes on a real database: whoever
//! orders through it while a node is killed, or stopped, waits for the other, hears of nothing but his order, and loses nothing.

#[path = "support/compose.rs"]
mod compose;
#[path = "proxy/front.rs"]
mod front;
#[path = "proxy/puppet.rs"]
mod puppet;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use front::{CALLERS_MAX, Front, Place};
use puppet::Puppet;
use reqwest::{Client, Method, Response};
use serde_json::{Value, json};
use stockade::clock::Clock;
use stockade::domain::user::Role;
use stockade::http::Code;
use stockade::http::front::KEEP_KEYS;
use stockade::tokens::Tokens;
use stockade_servers::MariaDb;
use support::{Process, SECRET, Shop, Stalls, id, master_key, one_line, user, wait_for};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

const STOCK: u64 = 100_000;
const BUYERS: u64 = 8;
/// How long whoever comes in the middle of a take-over may have to wait.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(30);
/// Sooner than this nobody is told that nobody sells: a heart counts as stopped after four seconds, and another node is followed then. A
/// process or a database that stands still meanwhile may make it longer than a node keeps somebody waiting.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(5);

/// What Compose would start, on free ports of this machine.
struct Cluster {
    front: Front,
    places: [Place; 2],
    folders: [TempDir; 2],
    database: MariaDb,
    tokens: Tokens,
    clock: Clock,
    client: Client,
}

impl Cluster {
    async fn open() -> Cluster {
        let places = [0, 1].map(|_| Place::free());
        Cluster {
            front: Front::before(places).await,
            places,
            folders: [0, 1].map(|_| tempfile::tempdir().unwrap()),
            database: MariaDb::started().await.unwrap(),
            tokens: Tokens::new(SECRET.as_bytes(), &[]).unwrap(),
            clock: Clock::start(),
            client: client(),
        }
    }

    fn begin(&self, node: usize) -> Process {
        self.begin_as(node, "owner,gateway")
    }

    fn begin_as(&self, node: usize, roles: &str) -> Process {
        let Place { shop, ops } = self.places[node];
        let settings = [
            ("STOCKADE_DATABASE_URL", self.database.url()),
            ("STOCKADE_MASTER_KEY", master_key()),
            ("STOCKADE_HTTP_ADDR", shop.to_string()),
            ("STOCKADE_OPS_ADDR", ops.to_string()),
            ("STOCKADE_ROLES", roles.to_owned()),
        ];
        Process::begin(
            self.folders[node].path(),
            &settings.each_ref().map(|(name, value)| (*name, value.as_str())),
        )
    }

    /// One that stands by, and knows for whom.
    async fn stands_by(&self, node: usize) -> Process {
        let process = self.begin(node);
        process.says("stands by").await;
        self.comes_to_say(node, "/readyz", "\"ready\"").await;
        process
    }

    fn since(&self, began: u64) -> Duration {
        Duration::from_nanos(self.clock.nanos() - began)
    }

    fn token(&self, who: u64, role: Role) -> String {
        self.tokens.sign(user(who), role, 3_600, self.clock.now(), self.clock.chance()).unwrap()
    }

    /// By the operators' door.
    async fn product(&self) -> String {
        let body = json!({
            "sku": "PROXY-1", "name": "Jar", "price": { "amount": 10, "currency": "KRW" }, "stock": STOCK,
        });
        let place = format!("http://{}/v1/admin/products", self.front.ops);
        let asked = self.client.post(place).bearer_auth(self.token(0, Role::Admin)).json(&body);
        let answer = asked.send().await.unwrap();
        assert_eq!(answer.status(), 201);
        id(&answer.json().await.unwrap())
    }

    async fn stock(&self, product: &str) -> Value {
        let place = format!("http://{}/v1/products/{product}/stock", self.front.shop);
        self.client.get(place).send().await.unwrap().json().await.unwrap()
    }

    /// By the operators' door: somebody looks, and is answered.
    async fn operator_looks(&self) {
        let place = format!("http://{}/v1/admin/orders?limit=1", self.front.ops);
        let ask = || self.client.get(&place).bearer_auth(self.token(0, Role::Admin)).send();
        let (stalls, began) = (Stalls::looked_for(), self.clock.nanos());
        let mut answer = ask().await.unwrap();
        while answer.status() == 503 {
            let waited = self.since(began);
            assert!(waited >= FOLLOWED_WITHIN || stalls.were_seen(), "refused after {waited:?}");
            assert!(waited < TAKEN_OVER_WITHIN, "nobody answers\n{}", self.front.log_tail());
            tokio::time::sleep(Duration::from_millis(50)).await;
            answer = ask().await.unwrap();
        }
        assert_eq!(answer.status(), 200, "{}\n{}", answer.text().await.unwrap(), self.front.log_tail());
    }

    /// What Docker would hear of a node, from the image, which asks where the shop is set to listen.
    fn is_well(&self, node: usize) -> bool {
        let check = compose::image_health_check();
        assert_eq!(check[0], "stockade");
        let mut command = Command::new(env!("CARGO_BIN_EXE_stockade"));
        command.args(&check[1..]).env("STOCKADE_HTTP_ADDR", self.places[node].shop.to_string());
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    }

    /// Waits until a node itself says so to operators.
    async fn comes_to_say(&self, node: usize, path: &str, words: &str) {
        let place = format!("http://{}{path}", self.places[node].ops);
        let asking = async {
            loop {
                let told = self.client.get(&place).send().await.unwrap().text().await.unwrap();
                if told.contains(words) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let told = tokio::time::timeout(TAKEN_OVER_WITHIN, asking).await;
        told.unwrap_or_else(|_| panic!("node {node} never says {words} at {path}"));
    }
}

/// One that stays for as long as the proxy keeps it.
fn client() -> Client {
    Client::builder().tls_certs_only([]).timeout(Duration::from_secs(60)).build().unwrap()
}

/// What was acknowledged, by key: the buyer, the order's id and its place.
type Acknowledged = BTreeMap<String, (u64, String, u64)>;

/// Who orders through the proxy, and asks with the same key until it is certain; if not all have keys, every other one has none.
#[derive(Clone)]
struct Buyers {
    place: String,
    body: Value,
    client: Client,
    clock: Clock,
    all_have_keys: bool,
    keys: Arc<AtomicU64>,
    told: Arc<Mutex<Acknowledged>>,
    /// Answers that were not the order, and how long somebody had waited by then.
    heard: Arc<Mutex<Vec<(Duration, String)>>>,
    /// The longest that somebody waited for his order, since anybody looked.
    longest_ms: Arc<AtomicU64>,
}

impl Buyers {
    fn come(cluster: &Cluster, product: &str) -> Buyers {
        Buyers {
            place: format!("http://{}/v1/orders", cluster.front.shop),
            body: one_line(product, 1),
            client: cluster.client.clone(),
            clock: cluster.clock.clone(),
            all_have_keys: true,
            keys: Arc::default(),
            told: Arc::default(),
            heard: Arc::default(),
            longest_ms: Arc::default(),
        }
    }

    async fn order(&self, who: u64, token: &str) {
        let key = format!("key-{}", self.keys.fetch_add(1, Ordering::Relaxed));
        let began = self.clock.nanos();
        loop {
            let mut asked = self.client.post(&self.place).bearer_auth(token);
            if self.all_have_keys || who.is_multiple_of(2) {
                asked = asked.header("Idempotency-Key", &key);
            }
            let (status, text) = match asked.json(&self.body).send().await {
                Ok(answer) => (answer.status().as_u16(), answer.text().await.unwrap_or_default()),
                Err(error) => (0, error.to_string()),
            };
            if status == 201 {
                let order: Value = serde_json::from_str(&text).unwrap();
                let place = order["lines"][0]["receipt"]["sequence"].as_u64().unwrap();
                self.told.lock().unwrap().insert(key, (who, id(&order), place));
                self.longest_ms.fetch_max((self.clock.nanos() - began) / 1_000_000, Ordering::Relaxed);
                return;
            }
            let waited = Duration::from_nanos(self.clock.nanos() - began);
            self.heard.lock().unwrap().push((waited, format!("{status} {text}")));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Some order while something is done to the shop; afterwards somebody comes who has waited `TAKEN_OVER_WITHIN` at the most. Nobody
    /// hears of anything but his order, unless something stood still for so long that a node could not keep him waiting.
    async fn order_while(&self, cluster: &Cluster, what: &str, something: impl Future<Output = ()>) {
        let (over, stalls) = (Arc::new(AtomicBool::new(false)), Stalls::looked_for());
        let buying: Vec<_> = (1..=BUYERS)
            .map(|who| {
                let (buyers, over, token) = (self.clone(), over.clone(), cluster.token(who, Role::Shopper));
                tokio::spawn(async move {
                    while !over.load(Ordering::Relaxed) {
                        buyers.order(who, &token).await;
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_secs(1)).await;
        something.await;
        let token = cluster.token(BUYERS + 1, Role::Shopper);
        let next = tokio::time::timeout(TAKEN_OVER_WITHIN, self.order(BUYERS + 1, &token)).await;
        assert!(
            next.is_ok(),
            "nobody can buy: {:?}\n{}",
            self.heard.lock().unwrap(),
            cluster.front.log_tail()
        );
        tokio::time::sleep(Duration::from_secs(1)).await;
        over.store(true, Ordering::Relaxed);
        for buyer in buying {
            buyer.await.unwrap();
        }
        // Not judged here: this machine may be busy with other tests.
        println!("{what}: somebody waited {} ms", self.longest_ms.swap(0, Ordering::Relaxed));
        let heard = std::mem::take(&mut *self.heard.lock().unwrap());
        let excuses: &[&str] =
            if !heard.is_empty() && stalls.were_seen() { &["0 ", "503 "] } else { &["503 "] };
        let is_excused = |(waited, said): &(Duration, String)| {
            // A key that was asked for before may be under way still.
            let may_be = excuses.iter().any(|status| said.starts_with(status))
                || said.contains("idempotency_in_progress");
            may_be && (*waited >= FOLLOWED_WITHIN || stalls.were_seen())
        };
        assert!(heard.iter().all(is_excused), "{what}: {heard:?}\n{}", cluster.front.log_tail());
    }

    /// Every order that was acknowledged is there under its id, no two have one place, and so many units are held.
    async fn all_is_there(&self, cluster: &Cluster, product: &str) {
        let told = self.told.lock().unwrap().clone();
        let places: BTreeSet<_> = told.values().map(|(_, _, place)| place).collect();
        assert_eq!(places.len(), told.len(), "two orders have one place");
        for (who, order, place) in told.values() {
            let token = cluster.token(*who, Role::Shopper);
            let asked = self.client.get(format!("{}/{order}", self.place)).bearer_auth(token);
            let found: Value = asked.send().await.unwrap().json().await.unwrap();
            assert_eq!(found["lines"][0]["receipt"]["sequence"], *place, "{order} was acknowledged: {found}");
        }
        let stock = cluster.stock(product).await;
        assert_eq!(stock["held"], told.len(), "{stock}");
        assert_eq!(stock["available"], STOCK - told.len() as u64, "{stock}");
    }
}

#[actix_web::test]
async fn whoever_orders_through_the_proxy_waits_for_the_other_node_and_loses_nothing() {
    let cluster = Cluster::open().await;
    let mut one = cluster.begin(0);
    one.open().await;
    let mut two = cluster.stands_by(1).await;
    let product = cluster.product().await;
    let buyers = Buyers::come(&cluster, &product);

    let killed = async {
        one.kill();
        cluster.operator_looks().await;
    };
    buyers.order_while(&cluster, "the node that sells is killed", killed).await;
    two.open().await;
    buyers.all_is_there(&cluster, &product).await;

    // And back again, in order this time: then nobody needs a key.
    let keyless = Buyers { all_have_keys: false, ..buyers.clone() };
    let mut one = cluster.stands_by(0).await;
    let stopped = async {
        tokio::join!(two.stop(), cluster.operator_looks());
    };
    keyless.order_while(&cluster, "the node that sells is stopped", stopped).await;
    one.open().await;
    buyers.all_is_there(&cluster, &product).await;

    // Whoever only hands over is missed by nobody.
    let two = cluster.stands_by(1).await;
    keyless.order_while(&cluster, "a node that stands by is stopped", two.stop()).await;
    let mut two = cluster.stands_by(1).await;
    buyers.order_while(&cluster, "a node that stands by is killed", async { two.kill() }).await;
    buyers.all_is_there(&cluster, &product).await;
    one.stop().await;
}

/// What the proxy says by itself is a refusal of the shop's, whole, and about what was asked for. The id of the request.
async fn says_that_nobody_knows(answer: Response, path: &str) -> String {
    let code = Code::OutcomeUnknown;
    assert_eq!(answer.status(), code.status(), "{path}");
    assert_eq!(answer.headers()["Content-Type"], "application/problem+json");
    assert_eq!(answer.headers()["Retry-After"], "1");
    let id = answer.headers()["X-Request-Id"].to_str().unwrap().to_owned();
    let told: Value = answer.json().await.unwrap();
    let whole = json!({
        "type": format!("urn:stockade:problem:{}", code.word()), "title": code.title(), "status": code.status(),
        "code": code.word(), "detail": told["detail"], "instance": path, "request_id": id,
    });
    assert_eq!(told, whole);
    id
}

/// Whoever comes while nobody listens is kept waiting, and told in the end in the shop's own words.
#[actix_web::test]
async fn where_no_node_ever_comes_the_proxy_says_so() {
    let front = Front::before([0, 1].map(|_| Place::free())).await;
    let clock = Clock::start();
    let began = clock.nanos();
    let asked = client().get(format!("http://{}/v1/products?q=jar", front.shop));
    let answer = asked.header("X-Request-Id", "build-42/a,b").send().await.unwrap();
    let waited = Duration::from_nanos(clock.nanos() - began);
    assert!(waited > Duration::from_secs(12), "turned away after {waited:?}");
    assert_eq!(says_that_nobody_knows(answer, "/v1/products").await, "build-42/a,b");
}

/// A node hangs up on everybody who asks for the first time, and nobody knows what it has done before that.
#[actix_web::test]
async fn what_may_have_been_done_is_asked_again_only_where_that_does_it_once() {
    let places = [0, 1].map(|_| Place::free());
    let front = Front::before(places).await;
    let node = Puppet::opens("one", places[0].shop).await;
    let client = client();
    node.is_seen().await;
    for (method, path, keyed, again) in [
        ("GET", "/v1/products/lost", false, true),
        ("POST", "/v1/orders?lost", true, true),
        ("POST", "/v1/orders/lost/payment", true, true),
        ("POST", "/v1/cart/checkout?lost", true, true),
        ("POST", "/v1/orders?lost=keyless", false, false),
        ("POST", "/v1/cart/items?lost=keyless", false, false),
        ("DELETE", "/v1/cart?lost", false, false),
        ("POST", "/v1/users?lost", true, false),
    ] {
        let asked = client
            .request(Method::from_bytes(method.as_bytes()).unwrap(), format!("http://{}{path}", front.shop));
        let asked = if keyed { asked.header("Idempotency-Key", "once") } else { asked };
        // A connection that was used before is hung up on in the same way.
        let status = asked.body("{}").send().await.map_or(503, |answer| answer.status().as_u16());
        assert_eq!(status, if again { 200 } else { 503 }, "{method} {path}");
        assert_eq!(node.asked(&format!("{method} {path}")), 1 + u64::from(again), "{method} {path}");
    }
    let fresh =
        self::client().post(format!("http://{}/v1/orders?lost=fresh", front.shop)).send().await.unwrap();
    says_that_nobody_knows(fresh, "/v1/orders").await;
}

/// A node takes what it is asked for and never says anything, as one that was stopped in the middle, or cut off: it may say it yet, so
/// nobody is asked again meanwhile.
#[actix_web::test]
async fn whoever_asks_a_node_that_hangs_hears_that_nobody_knows() {
    let places = [0, 1].map(|_| Place::free());
    let front = Front::in_a_hurry_before(places).await;
    let node = Puppet::opens("one", places[0].shop).await;
    node.is_seen().await;
    for (method, path) in [("GET", "/v1/products/slow"), ("POST", "/v1/orders?slow")] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let asked = client().request(method.clone(), format!("http://{}{path}", front.shop));
        let asked = asked.header("Idempotency-Key", "once").header("X-Request-Id", "two words");
        let answer = asked.body("{}").send().await.unwrap();
        let id = says_that_nobody_knows(answer, path.split('?').next().unwrap()).await;
        assert!(id.len() > 20 && id.bytes().all(|letter| letter.is_ascii_graphic()), "{id} was made");
        assert_eq!(node.asked(&format!("{method} {path}")), 1);
    }
}

/// From an address of this machine; none if it is hung up on at once.
async fn connects(last: u8, door: SocketAddr) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, last], 0))).unwrap();
    match socket.connect(door).await {
        Ok(stream) => Some(stream),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
        Err(error) => panic!("{error}"),
    }
}

async fn connected(last: u8, door: SocketAddr) -> TcpStream {
    connects(last, door).await.expect("nobody hangs up on the first hundred")
}

/// Asks for something, and stays where it is answered.
async fn let_in(last: u8, door: SocketAddr) -> Option<TcpStream> {
    let mut stream = connects(last, door).await?;
    stream.write_all(b"GET /found HTTP/1.1\r\nHost: shop\r\n\r\n").await.ok()?;
    let (mut heard, patience) = ([0; 16], Duration::from_secs(10));
    let read = tokio::time::timeout(patience, stream.read(&mut heard)).await.ok()?.ok()?;
    (read > 0).then_some(stream)
}

/// The nodes cannot tell whose connections they are, so the proxy counts them: an address has a hundred, and those beyond are hung up on.
/// A crowd of addresses fills the shop's door, and nobody else's.
#[actix_web::test]
async fn the_proxy_counts_whoever_connects_and_keeps_room_for_the_staff() {
    let places = [0, 1].map(|_| Place::free());
    let front = Front::before(places).await;
    let node = Puppet::opens("one", places[0].shop).await;
    Puppet::opens("ops", places[0].ops).await;
    node.is_seen().await;
    let mut held = Vec::new();
    for number in 0..100 {
        held.push(let_in(2, front.shop).await.unwrap_or_else(|| panic!("{number}\n{}", front.log_tail())));
    }
    assert!(let_in(2, front.shop).await.is_none(), "one more than an address may have");
    let counts = client().get(format!("http://{}/proxy/metrics", front.ops)).send().await.unwrap();
    let counts = counts.text().await.unwrap();
    let denied = "haproxy_frontend_denied_connections_total{proxy=\"everybody\"} ";
    let denied = counts.lines().find_map(|line| line.strip_prefix(denied));
    assert!(denied.is_some_and(|number| number != "0"), "{denied:?}");
    assert!(let_in(3, front.shop).await.is_some() && let_in(2, front.ops).await.is_some());
    held.pop();
    let again = async {
        while let_in(2, front.shop).await.is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(TAKEN_OVER_WITHIN, again).await.expect("whoever goes leaves a place");
    drop(held);

    let mut crowd = Vec::new();
    for last in 4..7 {
        for _ in 0..100 {
            let mut stream = connected(last, front.shop).await;
            stream.write_all(b"GET /slow HTTP/1.1\r\nHost: shop\r\n\r\n").await.unwrap();
            crowd.push(stream);
        }
    }
    wait_for(|| (node.asked("GET /slow") == CALLERS_MAX).then_some(())).await;
    assert!(let_in(7, front.ops).await.is_some(), "the staff is kept out\n{}", front.log_tail());
    assert_eq!(node.asked("GET /slow"), CALLERS_MAX);
}

/// Whoever begins a request ends it within five seconds, or is hung up on.
#[actix_web::test]
async fn the_proxy_does_not_wait_for_a_head_that_trickles() {
    let front = Front::before([0, 1].map(|_| Place::free())).await;
    let (clock, stalls) = (Clock::start(), Stalls::looked_for());
    let began = clock.nanos();
    let mut stream = connected(2, front.shop).await;
    stream.write_all(b"GET /v1/products HTTP/1.1\r\nHo").await.unwrap();
    let mut heard = Vec::new();
    let ended = tokio::time::timeout(TAKEN_OVER_WITHIN, stream.read_to_end(&mut heard)).await;
    assert!(ended.is_ok(), "nobody hangs up");
    let waited = Duration::from_nanos(clock.nanos() - began);
    assert!(waited >= Duration::from_secs(4), "hung up on after {waited:?}");
    assert!(waited < Duration::from_secs(9) || stalls.were_seen(), "hung up on after {waited:?}");
    let is_told = |line: &str| line.starts_with("127.0.0.2 ") && line.contains(" 408 cR ");
    wait_for(|| front.log_tail().lines().any(is_told).then_some(())).await;
}

/// Of what the proxy and the nodes ask again with a key, every door keeps keys, or it would be done twice.
#[actix_web::test]
async fn doors_that_are_asked_again_keep_keys() {
    let words = compose::configuration("proxy");
    let (_, prefixes) = words.split_once("acl order path_beg ").unwrap();
    let prefixes: Vec<&str> = prefixes.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(prefixes, KEEP_KEYS, "the nodes ask again what the proxy does");
    let shop = Shop::open().await;
    let document = shop.get("/openapi.json").send().await.ok(200);
    shop.close().await;
    let mut keep = BTreeSet::new();
    for (path, doors) in document["paths"].as_object().unwrap() {
        let again = prefixes.iter().any(|prefix| path.starts_with(prefix));
        // A preview does nothing; what is put or deleted twice is put or deleted.
        if !again || path == "/v1/orders/preview" {
            continue;
        }
        for (method, door) in doors.as_object().unwrap() {
            if ["post", "patch"].contains(&method.as_str()) {
                let keeps =
                    door["parameters"].as_array().unwrap().iter().any(|one| one["name"] == "Idempotency-Key");
                assert!(keeps, "{method} {path}");
                keep.insert(path);
            }
        }
    }
    assert!(keep.len() >= prefixes.len(), "{keep:?}");
}

#[actix_web::test]
async fn a_node_that_leaves_finishes_what_it_has_and_gets_nothing_new() {
    let places = [0, 1].map(|_| Place::free());
    let front = Front::before(places).await;
    let one = Puppet::opens("one", places[0].shop).await;
    one.is_seen().await;
    let (client, base) = (client(), format!("http://{}", front.shop));
    let slow = tokio::spawn(client.post(format!("{base}/v1/users?slow")).send());
    wait_for(|| (one.asked("POST /v1/users?slow") == 1).then_some(())).await;

    one.ready_no_more();
    Puppet::opens("two", places[1].shop).await.is_seen().await;
    // More often than a node may fail before the proxy gives it up.
    wait_for(|| (one.checks() > 10).then_some(())).await;
    for _ in 0..10 {
        let said = client.get(format!("{base}/found")).send().await.unwrap().text().await.unwrap();
        assert!(said.starts_with("two"), "{said}\n{}", front.log_tail());
    }
    one.hurry();
    let said = slow.await.unwrap().unwrap();
    assert_eq!(said.status(), 200);
    assert!(said.text().await.unwrap().starts_with("one"));
    assert_eq!(one.asked("POST /v1/users?slow"), 1);
}

#[actix_web::test]
async fn nobody_tells_a_node_through_the_proxy_who_he_is_not() {
    let places = [0, 1].map(|_| Place::free());
    let front = Front::before(places).await;
    Puppet::opens("one", places[0].shop).await.is_seen().await;
    Puppet::opens("ops", places[0].ops).await;
    for (door, name) in [(front.shop, "one"), (front.ops, "ops")] {
        let asked = client().get(format!("http://{door}/")).header("X-Forwarded-For", "192.0.2.1");
        let said = asked.send().await.unwrap().text().await.unwrap();
        assert_eq!(said, format!("{name} heard of 127.0.0.1"));
    }
}

#[actix_web::test]
async fn a_node_is_well_while_it_sells_or_knows_who_does() {
    let cluster = Cluster::open().await;
    assert!(!cluster.is_well(0));
    // It can only hand over, and there is nobody: it lives, takes requests, and is not well.
    let mut gateway = cluster.begin_as(0, "gateway");
    gateway.takes_requests().await;
    assert!(!cluster.is_well(0));
    cluster.comes_to_say(0, "/readyz", "no_active_node").await;
    cluster.comes_to_say(0, "/livez", "alive").await;

    let mut selling = cluster.begin(1);
    selling.open().await;
    assert!(cluster.is_well(1));
    cluster.comes_to_say(0, "/readyz", "\"ready\"").await;
    assert!(cluster.is_well(0));
    cluster.comes_to_say(0, "/metrics", "\nstockade_node_active 0\n").await;
    cluster.comes_to_say(1, "/metrics", "\nstockade_node_active 1\n").await;
    gateway.stop().await;
    selling.stop().await;
}

/// A node that was active is so no more when another has taken over, and its numbers say it.
#[actix_web::test]
async fn of_two_nodes_one_says_that_it_sells() {
    let cluster = Cluster::open().await;
    let mut one = cluster.begin(0);
    one.open().await;
    let mut two = cluster.stands_by(1).await;
    one.signal(rustix::process::Signal::STOP);
    two.open().await;
    cluster.comes_to_say(1, "/metrics", "\nstockade_takeovers_total{cause=\"died\"} 1\n").await;
    one.signal(rustix::process::Signal::CONT);
    cluster.comes_to_say(0, "/metrics", "\nstockade_node_active 0\n").await;
    cluster.comes_to_say(1, "/metrics", "\nstockade_node_active 1\n").await;
    one.stop().await;
    two.stop().await;
}
