//! The proxy of `docker-compose.yml`, with the very words that stand there, in front of two real nodes on a real database: whoever
//! orders through it while the node that sells is killed, or stopped, waits for the other, and loses nothing.

#[path = "support/compose.rs"]
mod compose;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::Client;
use serde_json::{Value, json};
use stockade::clock::Clock;
use stockade::domain::user::Role;
use stockade::tokens::Tokens;
use stockade_servers::{HaProxy, MariaDb, free_address};
use support::{Process, SECRET, id, one_line, user};
use tempfile::TempDir;

const STOCK: u64 = 100_000;
const BUYERS: u64 = 8;
/// How long whoever comes in the middle of a take-over may have to wait.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(12);
const NODES: [&str; 2] = ["node-one", "node-two"];

/// Where a node listens when it is its turn.
struct Node {
    shop: SocketAddr,
    ops: SocketAddr,
    folder: TempDir,
}

/// What Compose would start, on free ports of this machine.
struct Cluster {
    proxy: HaProxy,
    shop: SocketAddr,
    ops: SocketAddr,
    nodes: [Node; 2],
    database: MariaDb,
    tokens: Tokens,
    clock: Clock,
    client: Client,
}

impl Cluster {
    async fn open() -> Cluster {
        let [shop, ops] = [0, 1].map(|_| free_address().unwrap());
        let nodes = NODES.map(|_| Node {
            shop: free_address().unwrap(),
            ops: free_address().unwrap(),
            folder: tempfile::tempdir().unwrap(),
        });
        let mut words = compose::configuration("proxy")
            .replace("bind :8080", &format!("bind {shop}"))
            .replace("bind :9090", &format!("bind {ops}"));
        for (name, node) in NODES.iter().zip(&nodes) {
            words = words
                .replace(&format!("{name}:8080"), &node.shop.to_string())
                .replace(&format!("{name}:9090"), &node.ops.to_string());
        }
        Cluster {
            proxy: HaProxy::started(&words, shop).await.unwrap(),
            shop,
            ops,
            nodes,
            database: MariaDb::started().await.unwrap(),
            tokens: Tokens::new(SECRET.as_bytes(), &[]).unwrap(),
            clock: Clock::start(),
            client: Client::builder().tls_certs_only([]).timeout(Duration::from_secs(30)).build().unwrap(),
        }
    }

    fn begin(&self, node: usize) -> Process {
        let Node { shop, ops, folder } = &self.nodes[node];
        // Thirty-two bytes that stand nowhere in the repository.
        let half = |half: &str| format!("{:032x}", xxhash_rust::xxh3::xxh3_128(half.as_bytes()));
        let settings = [
            ("STOCKADE_DATABASE_URL", self.database.url()),
            ("STOCKADE_MASTER_KEY", half("left") + &half("right")),
            ("STOCKADE_HTTP_ADDR", shop.to_string()),
            ("STOCKADE_OPS_ADDR", ops.to_string()),
        ];
        Process::begin(folder.path(), &settings.each_ref().map(|(name, value)| (*name, value.as_str())))
    }

    /// One that stands by.
    async fn stands_by(&self, node: usize) -> Process {
        let process = self.begin(node);
        process.says("stands by").await;
        process
    }

    fn token(&self, who: u64, role: Role) -> String {
        self.tokens.sign(user(who), role, 3_600, self.clock.now(), self.clock.chance()).unwrap()
    }

    /// By the operators' door.
    async fn product(&self) -> String {
        let body = json!({
            "sku": "PROXY-1", "name": "Jar", "price": { "amount": 10, "currency": "KRW" }, "stock": STOCK,
        });
        let place = format!("http://{}/v1/admin/products", self.ops);
        let asked = self.client.post(place).bearer_auth(self.token(0, Role::Admin)).json(&body);
        let answer = asked.send().await.unwrap();
        assert_eq!(answer.status(), 201);
        id(&answer.json().await.unwrap())
    }

    async fn stock(&self, product: &str) -> Value {
        let place = format!("http://{}/v1/products/{product}/stock", self.shop);
        self.client.get(place).send().await.unwrap().json().await.unwrap()
    }

    /// What Docker would hear of a node.
    fn health(&self, node: SocketAddr, database: SocketAddr) -> ExitStatus {
        let check = compose::health_check(NODES[0]);
        let script = check[2]
            .replace("/8080", &format!("/{}", node.port()))
            .replace(":0CEA ", &format!(":{:04X} ", database.port()));
        Command::new(&check[0]).args([&check[1], &script]).status().unwrap()
    }
}

/// What was acknowledged, by key: the buyer, the order's id and its place.
type Acknowledged = BTreeMap<String, (u64, String, u64)>;

/// Who orders through the proxy, and asks with the same key until it is certain.
#[derive(Clone)]
struct Buyers {
    place: String,
    body: Value,
    client: Client,
    keys: Arc<AtomicU64>,
    told: Arc<Mutex<Acknowledged>>,
    /// Answers that were not the order.
    heard: Arc<Mutex<Vec<String>>>,
}

impl Buyers {
    fn come(cluster: &Cluster, product: &str) -> Buyers {
        Buyers {
            place: format!("http://{}/v1/orders", cluster.shop),
            body: one_line(product, 1),
            client: cluster.client.clone(),
            keys: Arc::default(),
            told: Arc::default(),
            heard: Arc::default(),
        }
    }

    async fn order(&self, who: u64, token: &str) {
        let key = format!("key-{}", self.keys.fetch_add(1, Ordering::Relaxed));
        loop {
            let asked = self.client.post(&self.place).bearer_auth(token).header("Idempotency-Key", &key);
            let (status, text) = match asked.json(&self.body).send().await {
                Ok(answer) => (answer.status().as_u16(), answer.text().await.unwrap_or_default()),
                Err(error) => (0, error.to_string()),
            };
            if status == 201 {
                let order: Value = serde_json::from_str(&text).unwrap();
                let place = order["lines"][0]["receipt"]["sequence"].as_u64().unwrap();
                self.told.lock().unwrap().insert(key, (who, id(&order), place));
                return;
            }
            self.heard.lock().unwrap().push(format!("{status} {text}"));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Some order while something is done to the shop; afterwards somebody comes who has waited `TAKEN_OVER_WITHIN` at the most.
    async fn order_while(&self, cluster: &Cluster, something: impl Future<Output = ()>) {
        let over = Arc::new(AtomicBool::new(false));
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
            cluster.proxy.log_tail()
        );
        tokio::time::sleep(Duration::from_secs(1)).await;
        over.store(true, Ordering::Relaxed);
        for buyer in buying {
            buyer.await.unwrap();
        }
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

    buyers.order_while(&cluster, async { one.kill() }).await;
    two.open().await;
    buyers.all_is_there(&cluster, &product).await;

    // And back again, in order this time.
    let mut one = cluster.stands_by(0).await;
    buyers.order_while(&cluster, two.stop()).await;
    one.open().await;
    buyers.all_is_there(&cluster, &product).await;
    one.stop().await;
}

/// Whoever comes while nobody sells is told, in the end, in the shop's own words.
#[actix_web::test]
async fn where_no_node_ever_comes_the_proxy_says_so() {
    let cluster = Cluster::open().await;
    let answer = cluster.client.get(format!("http://{}/v1/products", cluster.shop)).send().await.unwrap();
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.headers()["Content-Type"], "application/problem+json");
    assert_eq!(answer.headers()["Retry-After"], "1");
    assert_eq!(answer.json::<Value>().await.unwrap()["code"], "outcome_unknown");
}

#[actix_web::test]
async fn a_node_is_well_when_it_is_ready_and_when_it_stands_by() {
    let cluster = Cluster::open().await;
    let [nobody, elsewhere] = [0, 1].map(|_| free_address().unwrap());
    assert!(!cluster.health(nobody, elsewhere).success());
    let mut one = cluster.begin(0);
    one.open().await;
    assert!(cluster.health(cluster.nodes[0].shop, elsewhere).success());
    let two = cluster.stands_by(1).await;
    assert!(!cluster.health(cluster.nodes[1].shop, elsewhere).success());
    assert!(cluster.health(cluster.nodes[1].shop, cluster.database.address()).success());
    two.stop().await;
    one.stop().await;
}
