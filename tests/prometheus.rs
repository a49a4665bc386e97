//! A real Prometheus watches a real node on a database of its own while people order: what the dashboards ask for is answered, and when
//! the database dies the right alert is raised within a minute, and what its runbook says ends it.

mod support;
#[path = "support/watching.rs"]
mod watching;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Client;
use serde_json::{Value, json};
use stockade::clock::Clock;
use stockade::domain::user::Role;
use stockade::telemetry::METRICS;
use stockade::tokens::Tokens;
use stockade_servers::{MariaDb, Prometheus, check_metrics};
use support::{Process, SECRET, id, master_key, one_line, user};
use watching::{ALERTS, CONFIGURATION, Query, panels, rules, taken_apart, watched};

const BUYERS: u64 = 4;
/// Between two orders of one buyer: the numbers are to move, and the machine has others to serve.
const PAUSE: Duration = Duration::from_millis(20);
/// What is promised: nobody is left in the dark for longer.
const RAISED_WITHIN: Duration = Duration::from_secs(60);
/// The range of a rate, in place of what Grafana makes of it.
const RANGE: &str = "[15s]";

/// Prometheus, asked over HTTP.
struct Watcher {
    prometheus: Prometheus,
    client: Client,
}

impl Watcher {
    /// With the configuration and the rules as they are shipped, but for whom it asks, and how often.
    async fn of(node: &Process) -> Watcher {
        let configuration = CONFIGURATION.replace("_interval: 5s", "_interval: 1s").replace(
            r#"["node-one:9090", "node-two:9090", "stockade:9090"]"#,
            &format!("[\"{}\"]", node.addr()),
        );
        assert!(configuration.contains(&node.addr()) && !configuration.contains("5s"), "{configuration}");
        let prometheus = Prometheus::started(&configuration, &[("alerts.yml", ALERTS)]).await.unwrap();
        Watcher { prometheus, client: support::client() }
    }

    async fn ask(&self, path: &str, query: &[(&str, &str)]) -> Value {
        let url = format!("http://{}/api/v1/{path}", self.prometheus.address());
        let url = reqwest::Url::parse_with_params(&url, query).unwrap();
        let answer: Value = self.client.get(url).send().await.unwrap().json().await.unwrap();
        assert_eq!(answer["status"], "success", "{query:?}: {answer}");
        answer["data"].clone()
    }

    /// The series of an expression.
    async fn query(&self, expression: &str) -> Vec<Value> {
        self.ask("query", &[("query", expression)]).await["result"].as_array().unwrap().clone()
    }

    /// Where an alert stands: `inactive`, `pending` or `firing`.
    async fn state(&self, alert: &str) -> String {
        let rules = self.ask("rules", &[("type", "alert")]).await;
        let groups = rules["groups"].as_array().unwrap();
        let mut all = groups.iter().flat_map(|group| group["rules"].as_array().unwrap());
        let rule = all.find(|rule| rule["name"] == alert).unwrap_or_else(|| panic!("no rule {alert}"));
        rule["state"].as_str().unwrap().to_owned()
    }

    async fn comes_to(&self, alert: &str, state: &str, within: Duration) {
        let coming = async {
            while self.state(alert).await != state {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let came = tokio::time::timeout(within, coming).await;
        assert!(came.is_ok(), "{alert} is not {state}: {}", self.ask("alerts", &[]).await);
    }
}

/// Buys without end, with a pause between two orders, and counts what was acknowledged.
async fn buys(node: &Process, token: String, body: Value, who: u64, acknowledged: &Cell<u64>) {
    for number in 0_u64.. {
        let key = format!("{who}-{number}");
        let asked = node.ask("POST", "/v1/orders").bearer(&token).key(&key).json(&body).try_send().await;
        if asked.is_some_and(|answer| answer.status == 201) {
            acknowledged.set(acknowledged.get() + 1);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Everything that is served stands in the table, everything in the table is served, and all of it is as such numbers should be.
async fn the_table_holds(node: &Process) {
    let text = node.ask("GET", "/metrics").send().await.text;
    check_metrics(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let described = text.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next());
    let described: BTreeSet<&str> = described.collect();
    assert_eq!(described, METRICS.iter().map(|metric| metric.name).collect());
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let name = line.split(['{', ' ']).next().unwrap();
        assert!(METRICS.iter().any(|metric| metric.serves(name)), "{line}");
    }
}

/// Each query is answered; of most of them there is something to see.
async fn the_dashboards_show(watcher: &Watcher) {
    let mut empty = BTreeSet::new();
    for Query { place, expression, shown } in panels() {
        let series = watcher.query(&expression.replace("[$__rate_interval]", RANGE)).await;
        for label in &shown {
            assert!(
                series.iter().all(|one| one["metric"].get(label).is_some()),
                "{place}: no {label}: {series:?}"
            );
        }
        if series.is_empty() {
            empty.insert(place);
        }
    }
    for place in [
        "sale-night: Orders a second",
        "sale-night: The slowest order in a hundred",
        "sale-night: Left of the products that are hot",
        "sale-night: Units a second",
        "engine-room: Wait for a decision",
        "engine-room: One write, as an owner waits for it",
        "engine-room: Events that share one",
        "engine-room: How old what lists show is",
        "engine-room: Requests by outcome",
        "engine-room: Processors in use",
        "cluster: Which node leads",
        "cluster: Take-overs of the lead in an hour",
        "cluster: Up since",
    ] {
        assert!(!empty.contains(place), "{place} shows nothing");
    }
}

#[actix_web::test]
async fn who_watches_a_shop_hears_that_its_database_is_gone_and_what_to_do() {
    let mut database = MariaDb::started().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let settings = [
        ("STOCKADE_DATABASE_URL", database.url()),
        ("STOCKADE_MASTER_KEY", master_key()),
        ("STOCKADE_ORDER_RATE_PER_USER", "1000000".to_owned()),
        ("STOCKADE_ORDER_BURST_PER_USER", "1000000".to_owned()),
    ];
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let node = Process::start(folder.path(), &settings).await;
    the_table_holds(&node).await;
    let watcher = Watcher::of(&node).await;

    let (tokens, clock) = (Tokens::new(SECRET.as_bytes(), &[]).unwrap(), Clock::start());
    let token = |who, role| tokens.sign(user(who), role, 3_600, clock.now(), clock.chance()).unwrap();
    let jar = json!({ "sku": "JAR-1", "name": "Jar", "price": { "amount": 10, "currency": "KRW" }, "stock": 1_000_000 });
    let made = node.ask("POST", "/v1/admin/products").bearer(&token(0, Role::Admin)).json(&jar).send().await;
    let body = one_line(&id(&made.ok(201)), 1);
    let acknowledged = Cell::new(0);
    let buying = join_all(
        (1..=BUYERS).map(|who| buys(&node, token(who, Role::Shopper), body.clone(), who, &acknowledged)),
    );

    let watching = async {
        // A rate needs two looks, and a hot product a second in which it was bought.
        let moving = format!(
            "rate(stockade_units_held_total{RANGE}) > 0 and on (instance) stockade_product_units{{state=\"held\"}} > 0"
        );
        let coming = async {
            while watcher.query(&moving).await.is_empty() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let came = tokio::time::timeout(RAISED_WITHIN, coming).await;
        assert!(came.is_ok(), "nothing moves:\n{}\n{}", watcher.prometheus.log_tail(), node.log());
        the_dashboards_show(&watcher).await;
        for Query { expression, .. } in watched() {
            watcher.query(&expression).await;
        }
        watcher.comes_to("NobodySells", "inactive", RAISED_WITHIN).await;
        watcher.comes_to("JournalUnavailable", "inactive", RAISED_WITHIN).await;

        database.kill().unwrap();
        watcher.comes_to("JournalUnavailable", "firing", RAISED_WITHIN).await;
        // It is not taken for anything else.
        assert_eq!(watcher.state("NobodySells").await, "inactive");

        // What the runbook says.
        database.start().await.unwrap();
        watcher.comes_to("JournalUnavailable", "inactive", RAISED_WITHIN).await;
        let before = acknowledged.get();
        support::wait_for(|| (acknowledged.get() > before + 10).then_some(())).await;

        // Somebody looks for an order that is nobody's.
        let nobodys = "/v1/orders/order_01h455vb4pex5vsknk084sn02q";
        let looked = node.ask("GET", nobodys).bearer(&token(1, Role::Shopper)).send().await;
        assert_eq!(looked.status, 404, "{looked:?}");
        let coming = async {
            while watcher.query(r#"stockade_http_requests_total{status="404"}"#).await.is_empty() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        assert!(tokio::time::timeout(RAISED_WITHIN, coming).await.is_ok(), "nobody sees who looks for ids");

        // What an alert chooses by exists: a word that is no outcome, code or reason would never raise it.
        let mut missing = BTreeSet::new();
        for selector in watched().iter().flat_map(|query| taken_apart(&query.expression).0) {
            let ever = format!("count(last_over_time({}[2m]))", selector.text);
            if watcher.query(&ever).await.is_empty() {
                missing.insert(selector.text);
            }
        }
        // A job has come to an end here only if this is the hour of the night at which it is due.
        missing.remove("stockade_job_last_ok");
        assert_eq!(missing, BTreeSet::new());
        for rule in rules() {
            watcher.state(watching::name(&rule)).await;
        }
    };
    tokio::select! {
        _ = buying => unreachable!("nobody stops buying"),
        () = watching => {}
    }
    the_table_holds(&node).await;
    node.stop().await;
}
