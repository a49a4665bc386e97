//! Nodes on one database: one leads, the others own products too, and follow it. Whatever happens to any of them, or to the database,
//! nothing that was acknowledged is lost, nothing is sold twice, and somebody serves again within seconds.

#[path = "nodes/clients.rs"]
mod clients;
#[path = "nodes/crowd.rs"]
mod crowd;
#[path = "nodes/door.rs"]
mod door;
#[path = "nodes/fitness.rs"]
mod fitness;
#[path = "nodes/hand_over.rs"]
mod hand_over;
#[path = "nodes/kept.rs"]
mod kept;
#[path = "nodes/limits.rs"]
mod limits;
#[path = "nodes/money.rs"]
mod money;
#[path = "nodes/opening.rs"]
mod opening;
#[path = "nodes/owners.rs"]
mod owners;
#[path = "nodes/rights.rs"]
mod rights;
#[path = "nodes/second.rs"]
mod second;
#[path = "nodes/silent.rs"]
mod silent;
mod support;
#[path = "nodes/watching.rs"]
mod watching;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crowd::{Acknowledged, Crowd};
use owners::has_one;
use reqwest::Client;
use rustix::process::Signal;
use serde_json::{Value, json};
use stockade::clock::Clock;
use stockade::domain::user::Role;
use stockade::tokens::Tokens;
use stockade_servers::MariaDb;
use support::{Process, SECRET, Stalls, id, master_key, one_line, user};
use tempfile::TempDir;

const STOCK: u64 = 100_000;
const BUYERS: u64 = 16;
/// Whatever comes has come by then, on whatever machine this runs.
const COME_WITHIN: Duration = Duration::from_secs(30);

/// The database, and a folder for each of two nodes.
struct Cluster {
    database: MariaDb,
    folders: [TempDir; 3],
    settings: Vec<(&'static str, String)>,
    tokens: Tokens,
    clock: Clock,
}

impl Cluster {
    async fn open() -> Cluster {
        let database = MariaDb::started().await.unwrap();
        let settings = vec![
            ("STOCKADE_DATABASE_URL", database.url()),
            ("STOCKADE_MASTER_KEY", master_key()),
            ("STOCKADE_ORDER_RATE_PER_USER", "1000000".to_owned()),
            ("STOCKADE_ORDER_BURST_PER_USER", "1000000".to_owned()),
        ];
        let folders = [0, 1, 2].map(|_| tempfile::tempdir().unwrap());
        let tokens = Tokens::new(SECRET.as_bytes(), &[]).unwrap();
        Cluster { database, folders, settings, tokens, clock: Clock::start() }
    }

    fn begin(&self, node: usize) -> Process {
        self.begin_as(node, "owner,gateway")
    }

    fn begin_as(&self, node: usize, roles: &str) -> Process {
        self.begin_with(node, &[("STOCKADE_ROLES", roles)])
    }

    fn begin_with(&self, node: usize, besides: &[(&str, &str)]) -> Process {
        let settings = self.settings.iter().map(|(name, value)| (*name, value.as_str()));
        let settings: Vec<_> = settings.chain(besides.iter().copied()).collect();
        Process::begin(self.folders[node].path(), &settings)
    }

    /// A node that hands over what it is asked.
    async fn stand_by(&self, node: usize, roles: &str) -> Process {
        self.stand_by_with(node, &[("STOCKADE_ROLES", roles)]).await
    }

    async fn stand_by_with(&self, node: usize, besides: &[(&str, &str)]) -> Process {
        let mut process = self.begin_with(node, besides);
        process.takes_requests().await;
        process.is_ready().await;
        process
    }

    async fn start(&self, node: usize) -> Process {
        let mut process = self.begin(node);
        process.open().await;
        process
    }

    fn since(&self, began: u64) -> Duration {
        Duration::from_nanos(self.clock.nanos() - began)
    }

    fn token(&self, who: u64, role: Role) -> String {
        self.tokens.sign(user(who), role, 3_600, self.clock.now(), self.clock.chance()).unwrap()
    }

    async fn product(&self, process: &Process) -> String {
        let body = json!({
            "sku": "NODE-1", "name": "Jar", "price": { "amount": 10, "currency": "KRW" }, "stock": STOCK,
        });
        let admin = self.token(0, Role::Admin);
        id(&process.ask("POST", "/v1/admin/products").bearer(&admin).json(&body).send().await.ok(201))
    }

    /// The books are closed: everything adds up, and so many units are held.
    fn audit(&self) -> String {
        self.audit_with(&[])
    }

    /// The same, and whatever else is to be looked at.
    fn audit_with(&self, flags: &[&str]) -> String {
        let told = Command::new(env!("CARGO_BIN_EXE_stockade"))
            .arg("audit")
            .args(flags)
            .current_dir(self.folders[0].path())
            .env("STOCKADE_JWT_SECRET", SECRET)
            .envs(self.settings.iter().map(|(name, value)| (*name, value)))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&told.stdout).into_owned();
        assert!(told.status.success(), "{said}{}", String::from_utf8_lossy(&told.stderr));
        said
    }
}

/// Reads until it is answered: a connection that was lost is noticed by whoever uses it first.
async fn read(process: &Process, path: &str, token: &str) -> Value {
    let answered = async {
        loop {
            let answer = process.ask("GET", path).bearer(token).send().await;
            if answer.status != 503 {
                return answer.ok(200);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let answer = tokio::time::timeout(COME_WITHIN, answered).await;
    answer.unwrap_or_else(|_| panic!("{path} is never answered:\n{}", process.log()))
}

/// Every order that was acknowledged is there, none has another's place, and the stock says the same.
async fn all_is_there(cluster: &Cluster, process: &Process, product: &str, told: &Acknowledged) {
    let places: std::collections::BTreeSet<_> = told.values().map(|(_, place)| place).collect();
    assert_eq!(places.len(), told.len(), "two orders have one place");
    let admin = cluster.token(0, Role::Admin);
    let stock = read(process, &format!("/v1/products/{product}/stock"), &admin).await;
    let held = stock["held"].as_u64().unwrap();
    // Some were placed whose buyers left before they heard of it.
    assert!(held >= told.len() as u64 && held <= told.len() as u64 + BUYERS, "{held} for {}", told.len());
    assert_eq!(stock["available"].as_u64().unwrap() + held, STOCK);
    // The tables follow in their own time.
    let began = cluster.clock.nanos();
    let found = loop {
        let found = listed(process, product, &admin).await;
        let are_all = told.values().all(|(order, _)| found.contains_key(order));
        if are_all || cluster.since(began) > COME_WITHIN {
            break found;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    for (order, place) in told.values() {
        assert_eq!(found.get(order), Some(place), "{order} was acknowledged");
    }
}

/// The orders of a product in the tables, each with its place.
async fn listed(process: &Process, product: &str, admin: &str) -> BTreeMap<String, u64> {
    let (mut found, mut cursor) = (BTreeMap::new(), String::new());
    loop {
        let path = format!("/v1/admin/orders?limit=100&product={product}{cursor}");
        let page = read(process, &path, admin).await;
        for order in page["data"].as_array().unwrap() {
            found.insert(id(order), order["lines"][0]["receipt"]["sequence"].as_u64().unwrap());
        }
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return found,
        }
    }
}

/// Whoever stands by serves within seconds.
async fn takes_over(next: &mut Process) {
    let taken_over = tokio::time::timeout(Duration::from_secs(30), next.open()).await;
    assert!(taken_over.is_ok(), "nobody took over:\n{}", next.log());
}

/// The crowd goes home, and everything adds up: where it was told so, and in the database.
async fn books_close(cluster: &Cluster, serving: Process, product: &str, crowd: Crowd) {
    let told = crowd.leaves().await;
    all_is_there(cluster, &serving, product, &told).await;
    serving.stop().await;
    let said = cluster.audit();
    assert!(said.contains("everything adds up"), "{said}");
}

/// Every kind of question, asked where nothing is owned: another node answers, and nobody can tell.
#[actix_web::test]
async fn any_node_takes_any_request() {
    let cluster = Cluster::open().await;
    let serving = cluster.start(0).await;
    let product = cluster.product(&serving).await;
    let other = cluster.stand_by(1, "owner,gateway").await;
    let gateway = cluster.stand_by(2, "gateway").await;
    let buyer = cluster.token(1, Role::Shopper);
    for (place, node) in [&serving, &other, &gateway].into_iter().enumerate() {
        let ordering = || {
            let key = format!("key-{place}");
            node.ask("POST", "/v1/orders").bearer(&buyer).key(&key).json(&one_line(&product, 1))
        };
        let order = ordering().send().await.ok(201);
        assert_eq!(order["lines"][0]["receipt"]["sequence"].as_u64().unwrap(), place as u64 + 2, "{order}");
        let again = ordering().send().await;
        assert!(again.replayed(), "{}", again.text);
        let path = format!("/v1/orders/{}", id(&order));
        assert_eq!(node.ask("GET", &path).bearer(&buyer).send().await.ok(200)["id"], order["id"]);
        let stranger = cluster.token(2, Role::Shopper);
        node.ask("GET", &path).bearer(&stranger).send().await.problem(404, "not_found");
        node.ask("POST", "/v1/orders").json(&json!({})).send().await.problem(401, "unauthenticated");
        node.ask("GET", "/v1/nowhere").send().await.problem(404, "not_found");
        let large = json!({ "lines": "x".repeat(70_000) });
        node.ask("POST", "/v1/orders")
            .bearer(&buyer)
            .json(&large)
            .send()
            .await
            .problem(413, "payload_too_large");
        let named = node.ask("GET", "/v1/products").header("X-Request-Id", "mine").send().await;
        assert_eq!(named.header("x-request-id"), Some("mine"));
        let etag = named.header("etag").map(str::to_owned);
        if let Some(etag) = etag {
            let same = node.ask("GET", "/v1/products").header("If-None-Match", &etag).send().await;
            assert_eq!((same.status.as_u16(), same.text.as_str()), (304, ""));
        }
        let admin = cluster.token(0, Role::Admin);
        // When the tables have followed.
        for left in (0..50).rev() {
            let csv = node.ask("GET", "/v1/admin/orders?format=csv").bearer(&admin).send().await;
            assert_eq!(csv.status, 200, "{}", csv.text);
            if csv.text.lines().count() == place + 2 {
                break;
            }
            assert!(left > 0, "{}", csv.text);
        }
    }
    for (node, hands_on) in [(&serving, false), (&other, true), (&gateway, true)] {
        let told = node.ask("GET", "/metrics").send().await.text;
        let said = told.contains("stockade_forward_seconds_count{outcome=\"answered\"}");
        assert_eq!(said, hands_on, "{told}");
    }
    let admin = cluster.token(0, Role::Admin);
    // The lead counts the others with each beat, and gives shards away little by little.
    let looking = async {
        loop {
            let nodes = read(&gateway, "/v1/admin/nodes", &admin).await;
            if nodes["data"].as_array().unwrap().len() == 3
                && nodes["data"][1]["shards"].as_u64() >= Some(384)
            {
                return nodes;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let nodes = tokio::time::timeout(Duration::from_secs(30), looking).await.expect("a second owner");
    let told = nodes["data"].as_array().unwrap();
    let roles: Vec<_> = told.iter().map(|node| (&node["state"], &node["role"], &node["roles"])).collect();
    let (may_own, may_not) = (json!(["owner", "gateway"]), json!(["gateway"]));
    let (active, stands_by) = (json!("active"), json!("standing_by"));
    let wanted = [
        (&active, &json!("lead"), &may_own),
        (&stands_by, &json!("owner"), &may_own),
        (&stands_by, &json!("gateway"), &may_not),
    ];
    assert_eq!(roles, wanted, "{nodes}");
    let shards: Vec<_> = told.iter().map(|node| node["shards"].as_u64().unwrap()).collect();
    assert!(shards[0] + shards[1] == 1_024 && shards[0] >= shards[1], "{nodes}");
    assert_eq!(shards[2], 0, "{nodes}");
}

/// Whoever watches the stock at another node sees each change there, and leaves without a trace.
#[actix_web::test]
async fn a_stream_comes_through_another_node() {
    let cluster = Cluster::open().await;
    let serving = cluster.start(0).await;
    let product = cluster.product(&serving).await;
    let gateway = cluster.stand_by(1, "gateway").await;
    let client = Client::builder().tls_certs_only([]).build().unwrap();
    let place = format!("http://{}/v1/products/{product}/stock/stream", gateway.addr());
    let mut stream = client.get(place).send().await.unwrap();
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let buyer = cluster.token(1, Role::Shopper);
    serving.ask("POST", "/v1/orders").bearer(&buyer).json(&one_line(&product, 7)).send().await.ok(201);
    let mut seen = String::new();
    let wanted = format!("\"available\":{}", STOCK - 7);
    let watching = async {
        while !seen.contains(&wanted) {
            seen.push_str(&String::from_utf8_lossy(&stream.chunk().await.unwrap().unwrap()));
        }
    };
    tokio::time::timeout(Duration::from_secs(10), watching).await.expect("no change comes through");
}

/// The dead one is found and followed while the question waits.
#[actix_web::test]
async fn whoever_asks_another_node_hardly_hears_of_a_death() {
    let cluster = Cluster::open().await;
    let mut serving = cluster.start(0).await;
    let product = cluster.product(&serving).await;
    let other = cluster.stand_by(1, "owner,gateway").await;
    let gateway = cluster.stand_by(2, "gateway").await;
    let buyer = cluster.token(1, Role::Shopper);
    let order = |node| has_one(&cluster, node, &buyer, &product);
    order(&gateway).await;
    serving.kill();
    tokio::join!(order(&other), order(&gateway));
}

#[actix_web::test]
async fn a_node_that_is_killed_is_replaced_within_seconds_and_nothing_acknowledged_is_lost() {
    let cluster = Cluster::open().await;
    let mut serving = cluster.start(0).await;
    let product = cluster.product(&serving).await;
    let crowd = Crowd::come(&cluster, &serving, &product);
    for kill in 0..3 {
        let mut next = cluster.begin((kill + 1) % 2);
        next.says("stands by").await;
        crowd.goes_on(200).await;
        serving.kill();
        takes_over(&mut next).await;
        crowd.go_to(&next);
        crowd.goes_on(200).await;
        serving = next;
    }
    books_close(&cluster, serving, &product, crowd).await;
}

#[actix_web::test]
async fn a_node_that_is_paused_writes_nothing_more_and_stands_by_when_it_wakes() {
    let cluster = Cluster::open().await;
    let mut paused = cluster.start(0).await;
    let product = cluster.product(&paused).await;
    let crowd = Crowd::come(&cluster, &paused, &product);
    let mut next = cluster.begin(1);
    next.says("stands by").await;
    crowd.goes_on(200).await;
    paused.signal(Signal::STOP);
    takes_over(&mut next).await;
    // Those who still ask the one that sleeps hear what is true when it wakes: nothing that it has not written.
    paused.signal(Signal::CONT);
    paused.says("another has taken over").await;
    crowd.go_to(&next);
    crowd.goes_on(200).await;
    paused.says("stands by").await;
    // And back again, by its own will this time.
    next.stop().await;
    takes_over(&mut paused).await;
    crowd.go_to(&paused);
    crowd.goes_on(200).await;
    books_close(&cluster, paused, &product, crowd).await;
}

#[actix_web::test]
async fn a_database_that_is_killed_is_waited_for() {
    let mut cluster = Cluster::open().await;
    let serving = cluster.start(0).await;
    let product = cluster.product(&serving).await;
    let crowd = Crowd::come(&cluster, &serving, &product);
    for _ in 0..2 {
        crowd.goes_on(200).await;
        cluster.database.kill().unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let token = cluster.token(99, Role::Shopper);
        let refused =
            serving.ask("POST", "/v1/orders").bearer(&token).json(&one_line(&product, 1)).send_once();
        let (stalls, began) = (Stalls::looked_for(), cluster.clock.nanos());
        let refused = refused.await;
        let waited = cluster.since(began);
        // It may stand still for two seconds itself. One that waits for the database waits far longer: that stays dead.
        assert!(waited < Duration::from_secs(4) || stalls.were_seen(), "an answer after {waited:?}");
        assert_eq!(refused.status, 503, "{}", refused.text);
        // What was published is still told.
        serving.ask("GET", &format!("/v1/products/{product}/stock")).send().await.ok(200);
        cluster.database.start().await.unwrap();
    }
    crowd.goes_on(200).await;
    books_close(&cluster, serving, &product, crowd).await;
}

#[actix_web::test]
async fn whoever_stands_by_outlasts_the_database_and_is_there_when_it_is_needed() {
    let mut cluster = Cluster::open().await;
    let mut serving = cluster.start(0).await;
    let product = cluster.product(&serving).await;
    let crowd = Crowd::come(&cluster, &serving, &product);
    let mut next = cluster.begin(1);
    next.says("stands by").await;
    crowd.goes_on(100).await;
    cluster.database.kill().unwrap();
    next.says("this node sees nothing").await;
    // Longer than a heart may stand still: nobody has seen it.
    tokio::time::sleep(Duration::from_secs(5)).await;
    cluster.database.start().await.unwrap();
    crowd.goes_on(100).await;
    for node in [&next, &serving] {
        assert!(!node.log().contains("a node has stopped"), "{}", node.log());
    }
    serving.kill();
    takes_over(&mut next).await;
    crowd.go_to(&next);
    crowd.goes_on(100).await;
    books_close(&cluster, next, &product, crowd).await;
}

/// It does not wait for what may never come back, and leaves nothing behind that is not in the journal.
#[actix_web::test]
async fn a_node_ends_when_it_is_told_to_though_the_database_is_away() {
    let mut cluster = Cluster::open().await;
    let mut serving = cluster.start(0).await;
    let product = cluster.product(&serving).await;
    let crowd = Crowd::come(&cluster, &serving, &product);
    crowd.goes_on(200).await;
    cluster.database.kill().unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    serving.signal(Signal::TERM);
    let ended = tokio::time::timeout(Duration::from_secs(20), serving.ends()).await;
    assert!(ended.is_ok(), "it waits:\n{}", serving.log());
    assert!(!serving.log().contains("panicked"), "{}", serving.log());
    cluster.database.start().await.unwrap();
    let serving = cluster.start(1).await;
    crowd.go_to(&serving);
    crowd.goes_on(100).await;
    books_close(&cluster, serving, &product, crowd).await;
}

/// Whoever has the wrong key, or none, is told so before anything is begun.
#[actix_web::test]
async fn a_node_without_the_secrets_of_the_others_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let told = refused(folder.path(), &[("STOCKADE_DATABASE_URL", "mysql://nobody@127.0.0.1:1/shop")]);
    assert!(told.contains("STOCKADE_JWT_SECRET"), "{told}");
    let key = master_key();
    let secrets = [("STOCKADE_JWT_SECRET", SECRET), ("STOCKADE_MASTER_KEY", key.as_str())];
    let told = refused(
        folder.path(),
        &[("STOCKADE_DATABASE_URL", "mysql://nobody:hush@127.0.0.1:1/shop"), secrets[0], secrets[1]],
    );
    assert!(!told.contains("hush") && told.to_lowercase().contains("connect"), "{told}");
}

fn refused(folder: &Path, settings: &[(&str, &str)]) -> String {
    let told = Command::new(env!("CARGO_BIN_EXE_stockade"))
        .current_dir(folder)
        .env("STOCKADE_HTTP_ADDR", "127.0.0.1:0")
        .envs(settings.iter().copied())
        .output()
        .unwrap();
    assert!(!told.status.success());
    String::from_utf8_lossy(&told.stderr).into_owned() + &String::from_utf8_lossy(&told.stdout)
}

/// Administration and metrics are for whoever reaches the operators' listener, at whichever node.
#[actix_web::test]
async fn a_strangers_door_of_another_node_leads_to_no_operators_door() {
    let cluster = Cluster::open().await;
    let serving = cluster.start(0).await;
    // The lead has one listener for everything, the other one does not.
    let mut gateway = cluster.begin_with(1, &[("STOCKADE_OPS_ADDR", "127.0.0.1:0")]);
    gateway.takes_requests().await;
    gateway.is_ready().await;
    let admin = cluster.token(0, Role::Admin);
    for path in ["/v1/admin/nodes", "/v1/%61dmin/nodes", "/v1/admin/products", "/metrics", "/docs"] {
        gateway.ask("GET", path).bearer(&admin).send().await.problem(404, "not_found");
    }
    serving.ask("GET", "/v1/admin/nodes").bearer(&admin).send().await.ok(200);
}
