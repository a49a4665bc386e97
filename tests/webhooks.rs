//! Webhooks through the real application, to a real receiver: what it hears, when it hears it again, and what may be registered.

#[path = "webhooks/receiver.rs"]
mod receiver;
mod support;

use receiver::{Answer, Receiver, secret_bytes, signed_with, until};
use serde_json::{Value, json};
use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use stockade::config::Config;
use stockade::domain::user::Role;
use stockade::domain::webhook::EventKind;
use stockade::persistence::Tables;
use support::{Reply, Shop, id, user};

const ENDPOINTS: &str = "/v1/admin/webhook-endpoints";

async fn shop() -> Shop {
    Shop::open_with(loopback).await
}

fn loopback(config: &mut Config) {
    config.webhooks.allow_loopback = true;
}

async fn register(shop: &Shop, url: &str, events: &[&str]) -> Value {
    let body = json!({ "url": url, "events": events });
    shop.admin("POST", ENDPOINTS).json(&body).send().await.ok(201)
}

fn secret_of(endpoint: &Value) -> Vec<u8> {
    secret_bytes(endpoint["secret"].as_str().unwrap())
}

async fn deliveries(shop: &Shop, endpoint: &str, query: &str) -> Vec<Value> {
    let list = shop.admin("GET", &format!("{ENDPOINTS}/{endpoint}/deliveries{query}")).send().await.ok(200);
    list["data"].as_array().unwrap().clone()
}

/// The newest delivery once it is in this state: the mark follows the answer by a moment.
async fn newest_when(shop: &Shop, endpoint: &str, state: &str) -> Value {
    until(async || deliveries(shop, endpoint, &format!("?state={state}")).await.into_iter().next()).await
}

/// Has the dispatcher look at the clock.
async fn ring(shop: &Shop, endpoint: &str) {
    let same = json!({ "description": "" });
    shop.admin("PATCH", &format!("{ENDPOINTS}/{endpoint}")).json(&same).send().await.ok(200);
}

#[actix_web::test]
async fn an_order_and_the_stock_it_takes_are_told_signed() {
    let (shop, mut receiver) = (shop().await, Receiver::open(&[Answer::Status(204)]).await);
    let all: Vec<&str> = EventKind::ALL.iter().map(|kind| kind.as_str()).collect();
    let endpoint = register(&shop, &receiver.url, &all).await;
    let product = shop.stocked(2).await;
    let made = receiver.next().await;
    assert_eq!(made.body["type"], "stock.changed");
    assert_eq!(
        made.body["data"],
        json!({ "product_id": product, "sequence": 1, "available": 2, "held": 0, "sold": 0 })
    );

    let order = shop.order(7, &product, 2).send().await.ok(201);
    let mut heard = [receiver.next().await, receiver.next().await, receiver.next().await];
    heard.sort_by_key(|heard| heard.body["type"].as_str().unwrap().to_owned());
    let kinds: Vec<_> = heard.iter().map(|heard| heard.body["type"].clone()).collect();
    assert_eq!(kinds, ["order.placed", "stock.changed", "stock.sold_out"]);
    assert_eq!(
        heard[0].body["data"],
        json!({
            "order_id": order["id"], "user_id": user(7), "status": "pending_payment",
            "total": order["total"], "lines": [{ "product_id": product, "quantity": 2 }],
        })
    );
    assert_eq!(heard[0].body["timestamp"], order["created_at"]);
    for heard in heard.iter().chain([&made]) {
        assert_eq!(heard.signatures().len(), 1);
        assert!(signed_with(heard, &secret_of(&endpoint)), "{heard:?}");
        assert!((shop.clock.now().0 / 1_000 - heard.timestamp()).abs() <= 60);
        assert_eq!(heard.header("content-type"), "application/json");
    }
    let path = format!("/v1/orders/{}/cancel", id(&order));
    shop.by(7, "POST", &path).send().await.ok(200);
    let mut kinds = Vec::new();
    for _ in 0..3 {
        kinds.push(receiver.next().await.body["type"].as_str().unwrap().to_owned());
    }
    kinds.sort();
    assert_eq!(kinds, ["order.cancelled", "stock.back", "stock.changed"]);
    shop.close().await;
}

#[actix_web::test]
async fn what_is_not_taken_comes_again_as_the_same_and_follows_nobody() {
    let shop = shop().await;
    let elsewhere = Receiver::open(&[Answer::Status(200)]).await;
    let answers = [Answer::Status(500), Answer::Redirect(elsewhere.url.clone()), Answer::Status(200)];
    let mut receiver = Receiver::open(&answers).await;
    let endpoint = id(&register(&shop, &receiver.url, &["stock.changed"]).await);
    shop.stocked(1).await;
    let first = receiver.next().await;
    let waiting = until(async || {
        let waiting = newest_when(&shop, &endpoint, "waiting").await;
        (waiting["last_status"] == 500).then_some(waiting)
    });
    let waiting = waiting.await;
    assert_eq!((&waiting["tries"], &waiting["event_id"]), (&json!(1), &json!(first.id())));
    for status in [308, 200] {
        shop.clock.advance(400_000);
        ring(&shop, &endpoint).await;
        let again = receiver.next().await;
        assert_eq!((again.id(), &again.text), (first.id(), &first.text));
        assert!(again.timestamp() >= first.timestamp() + 400, "each try has its own time");
        if status == 308 {
            let redirected = async || {
                let waiting = newest_when(&shop, &endpoint, "waiting").await;
                (waiting["last_status"] == 308).then_some(())
            };
            until(redirected).await;
        }
    }
    let done = newest_when(&shop, &endpoint, "delivered").await;
    assert_eq!(
        (&done["tries"], &done["last_status"], &done["next_try_at"]),
        (&json!(3), &json!(200), &Value::Null)
    );
    assert_eq!(elsewhere.heard(), 0, "a redirect is an answer like any other");
    let metrics = shop.get("/metrics").send().await.text;
    assert!(metrics.contains(r#"stockade_webhooks_total{outcome="delivered"}"#), "{metrics}");
    shop.close().await;
}

#[actix_web::test]
async fn a_slow_receiver_is_not_waited_for_and_a_talkative_one_is_cut_short() {
    let shop = shop().await;
    let mut talkative = Receiver::open(&[Answer::Endless]).await;
    let mut slow = Receiver::open(&[Answer::Never]).await;
    let cut = id(&register(&shop, &talkative.url, &["stock.changed"]).await);
    let late = id(&register(&shop, &slow.url, &["stock.changed"]).await);
    shop.stocked(1).await;
    talkative.next().await;
    slow.next().await;
    let done = newest_when(&shop, &cut, "delivered").await;
    assert_eq!(done["last_status"], 200, "its status said enough");
    let sent = talkative.cut_after().await;
    // What was on its way in buffers, and no more.
    assert!((64 * 1024..16 << 20).contains(&sent), "{sent} bytes");
    let timed_out = async || {
        let waiting = newest_when(&shop, &late, "waiting").await;
        (waiting["last_error"] == "time_out").then_some(waiting)
    };
    let waiting = until(timed_out).await;
    assert_eq!((&waiting["tries"], &waiting["last_status"]), (&json!(1), &Value::Null));
    let failing = async || {
        let shown = shop.admin("GET", ENDPOINTS).send().await.ok(200);
        let all = shown["data"].as_array().unwrap().iter();
        let failing: Vec<String> = all.filter(|shown| shown["failing_since"].is_string()).map(id).collect();
        (!failing.is_empty()).then_some(failing)
    };
    assert_eq!(until(failing).await, [late]);
    shop.close().await;
}

#[actix_web::test]
async fn for_a_day_both_secrets_sign() {
    let (shop, mut receiver) = (shop().await, Receiver::open(&[Answer::Status(204)]).await);
    let body = json!({ "url": receiver.url, "events": ["stock.changed"] });
    let ask = || shop.admin("POST", ENDPOINTS).key("once").json(&body).send();
    let (first, again) = (ask().await, ask().await);
    assert!(!first.replayed() && again.replayed());
    assert_eq!(first.ok(201), again.ok(201), "the secret with it: the first answer may have been lost");
    assert_eq!(first.header("Cache-Control"), Some("no-store"));
    let other = json!({ "url": receiver.url, "events": ["stock.back"] });
    let reused = shop.admin("POST", ENDPOINTS).key("once").json(&other).send().await;
    reused.problem(422, "idempotency_key_reused");

    let endpoint = id(&first.json());
    let rotate = format!("{ENDPOINTS}/{endpoint}/rotate");
    let rotated = shop.admin("POST", &rotate).key("turn").send().await.ok(200);
    let replayed = shop.admin("POST", &rotate).key("turn").send().await;
    assert!(replayed.replayed());
    assert_eq!(replayed.ok(200), rotated);
    assert!(rotated["former_secret_until"].is_string());
    let (old, new) = (secret_of(&first.json()), secret_of(&rotated));
    assert_ne!(old, new);
    shop.stocked(1).await;
    let heard = receiver.next().await;
    assert_eq!(heard.signatures().len(), 2);
    assert!(signed_with(&heard, &new) && signed_with(&heard, &old));

    shop.clock.advance(25 * 3_600_000);
    shop.stocked(1).await;
    let heard = receiver.next().await;
    assert_eq!(heard.signatures().len(), 1);
    assert!(signed_with(&heard, &new) && !signed_with(&heard, &old));

    for _ in 0..4 {
        shop.admin("POST", &rotate).send().await.ok(200);
    }
    let full = shop.admin("POST", &rotate).send().await.problem(409, "order_state_conflict");
    assert_eq!(full["limit"], 5);
    let list = shop.admin("GET", ENDPOINTS).send().await.ok(200);
    let fields: Vec<_> = list["data"][0].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        fields.join(" "),
        "created_at description disabled_reason events failing_since id state updated_at url"
    );
    let folder = shop.stop().await;
    let at_rest = std::fs::read(folder.path().join("shop.db")).unwrap();
    let holds = |bytes: &[u8]| at_rest.windows(bytes.len()).any(|piece| piece == bytes);
    let word = |keyed: &Value| keyed["secret"].as_str().unwrap()[6..].to_owned();
    assert!(holds(receiver.url.as_bytes()), "we looked at the right place");
    for keyed in [&first.json(), &rotated] {
        assert!(!holds(&secret_of(keyed)) && !holds(word(keyed).as_bytes()));
    }
}

#[actix_web::test]
async fn what_was_given_up_is_sent_again_when_somebody_says_so() {
    let (shop, mut receiver) =
        (shop().await, Receiver::open(&[Answer::Status(410), Answer::Status(204)]).await);
    let endpoint = id(&register(&shop, &receiver.url, &["stock.changed"]).await);
    shop.stocked(1).await;
    let first = receiver.next().await;
    let dead = newest_when(&shop, &endpoint, "dead").await;
    assert_eq!((&dead["event_id"], &dead["last_status"]), (&json!(first.id()), &json!(410)));
    let path = format!("{ENDPOINTS}/{endpoint}");
    let disabled = async || {
        let shown = shop.admin("GET", ENDPOINTS).send().await.ok(200)["data"][0].clone();
        (shown["state"] == "disabled").then_some(shown)
    };
    assert_eq!(until(disabled).await["disabled_reason"], "gone");
    shop.stocked(1).await;
    // Events are told by the flush.
    shop.tables_follow().await;

    let replay = format!("{ENDPOINTS}/deliveries/{}/replay", id(&dead));
    let with_key = || shop.admin("POST", &replay).key("once-more").send();
    let again = with_key().await;
    assert!(!again.replayed());
    let again = again.ok(202);
    assert_eq!((&again["state"], &again["tries"]), (&json!("waiting"), &json!(0)));
    assert_eq!(shop.admin("POST", &replay).send().await.ok(202), again, "it waits already");
    let enabled = shop.admin("PATCH", &path).json(&json!({ "enabled": true })).send().await.ok(200);
    assert_eq!((&enabled["state"], &enabled["disabled_reason"]), (&json!("enabled"), &Value::Null));
    let second = receiver.next().await;
    assert_eq!((second.id(), &second.text), (first.id(), &first.text));
    newest_when(&shop, &endpoint, "delivered").await;
    assert_eq!(deliveries(&shop, &endpoint, "").await.len(), 1, "what happened meanwhile was not for it");
    let known = with_key().await;
    assert!(known.replayed());
    assert_eq!(known.ok(202)["state"], "delivered", "it is not sent for that");
    let folder = shop.stop().await;
    let tables = Tables::read_only(folder.path());
    let mut trail: Vec<String> =
        tables.trail().before(i64::MAX, 9).await.unwrap().into_iter().map(|entry| entry.kind).collect();
    tables.close().await.unwrap();
    trail.reverse();
    trail.retain(|kind| kind.starts_with("webhook"));
    assert_eq!(trail, ["webhook_registered", "webhook_disabled", "webhook_replayed", "webhook_changed"]);
}

#[actix_web::test]
async fn what_waited_when_the_shop_stopped_is_told_after_the_start() {
    let answers = [Answer::Status(503), Answer::Status(204)];
    let (shop, mut receiver) = (shop().await, Receiver::open(&answers).await);
    let endpoint = id(&register(&shop, &receiver.url, &["stock.changed", "stock.sold_out"]).await);
    let product = shop.stocked(1).await;
    let first = receiver.next().await;
    // Told before the end, or by the last flush and after the start.
    shop.order(1, &product, 1).send().await.ok(201);
    let shop = shop.reopen_with(loopback).await;
    shop.clock.advance(10_000);
    ring(&shop, &endpoint).await;
    let heard = [receiver.next().await, receiver.next().await, receiver.next().await];
    let again = heard.iter().find(|heard| heard.id() == first.id()).expect("it is told again");
    assert_eq!(again.text, first.text);
    let mut kinds: Vec<_> = heard.iter().map(|heard| heard.body["type"].as_str().unwrap()).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["stock.changed", "stock.changed", "stock.sold_out"]);
    shop.close().await;
}

#[actix_web::test]
async fn where_there_is_no_endpoint_nothing_is_written() {
    let (shop, receiver) = (shop().await, Receiver::open(&[Answer::Status(204)]).await);
    let endpoint = register(&shop, &receiver.url, &["order.expired"]).await;
    let product = shop.stocked(3).await;
    shop.order(1, &product, 1).send().await.ok(201);
    let path = format!("{ENDPOINTS}/{}", id(&endpoint));
    assert_eq!(shop.admin("DELETE", &path).send().await.status, 204);
    shop.admin("PATCH", &path).json(&json!({ "enabled": true })).send().await.problem(404, "not_found");
    shop.order(2, &product, 1).send().await.ok(201);
    let folder = shop.stop().await;
    assert_eq!(receiver.heard(), 0);
    let options = SqliteConnectOptions::new().filename(folder.path().join("shop.db"));
    let mut shop = SqliteConnection::connect_with(&options).await.unwrap();
    let rows: (i64, i64, i64) = sqlx::query_as(
        "select (select count(*) from webhook_events), (select count(*) from webhook_deliveries), \
         (select count(*) from webhook_secrets)",
    )
    .fetch_one(&mut shop)
    .await
    .unwrap();
    assert_eq!(rows, (0, 0, 0));
    shop.close().await.unwrap();
}

#[actix_web::test]
async fn nobody_registers_an_address_that_is_not_out_in_the_open() {
    let shop = Shop::open().await;
    let ask = async |body: &Value| shop.admin("POST", ENDPOINTS).json(body).send().await;
    for url in [
        "https://127.0.0.1/",
        "https://127.1/",
        "https://0x7f000001/",
        "https://2130706433/",
        "https://localhost/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[::ffff:a9fe:a9fe]/",
        "https://[64:ff9b::7f00:1]/",
        "https://0.0.0.0/",
        "https://10.0.0.1/",
        "https://172.16.0.1/",
        "https://192.168.1.1/",
        "https://100.64.0.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://[fd00:ec2::254]/",
        "https://[fe80::1]/",
        "https://255.255.255.255/",
        "https://224.0.0.1/",
        "http://127.0.0.1:9000/",
        "http://1.1.1.1/",
        "https://user:word@1.1.1.1/",
        "https://1.1.1.1:22/",
        "gopher://1.1.1.1/",
        "file:///etc/passwd",
        "",
    ] {
        let told = ask(&json!({ "url": url, "events": ["order.paid"] })).await;
        assert_eq!(told.invalid(), "/url", "{url}");
    }
    let good = "https://1.1.1.1/hooks";
    assert_eq!(ask(&json!({ "url": good, "events": [] })).await.invalid(), "/events");
    assert_eq!(
        ask(&json!({ "url": good, "events": ["order.paid", "order.eaten"] })).await.invalid(),
        "/events/1"
    );
    let long = "x".repeat(201);
    assert_eq!(
        ask(&json!({ "url": good, "events": ["order.paid"], "description": long })).await.invalid(),
        "/description"
    );
    assert_eq!(
        ask(&json!({ "url": good, "events": ["order.paid"], "secret": "mine" })).await.invalid(),
        "/secret"
    );
    assert_eq!(ask(&json!({ "url": good, "events": ["order.paid"] })).await.status, 201);
    shop.close().await;
}

/// What everybody but an administrator hears stands in `authorization`; this is what he hears about what is not there.
#[actix_web::test]
async fn what_is_not_there_is_not_found_and_lists_have_pages() {
    let shop = shop().await;
    let receiver = Receiver::open(&[Answer::Status(204)]).await;
    let endpoint = id(&register(&shop, &receiver.url, &["stock.changed"]).await);
    for (method, path) in [
        ("GET", "whe_01h455vb4pex5vsknk084sn02q/deliveries"),
        ("GET", "prod_01h455vb4pex5vsknk084sn02q/deliveries"),
        ("POST", "whe_01h455vb4pex5vsknk084sn02q/rotate"),
        ("DELETE", "whe_01h455vb4pex5vsknk084sn02q"),
        ("POST", "deliveries/whd_01h455vb4pex5vsknk084sn02q/replay"),
        ("POST", &format!("deliveries/{endpoint}/replay")),
    ] {
        shop.admin(method, &format!("{ENDPOINTS}/{path}")).send().await.problem(404, "not_found");
    }
    let shopper = shop.token(1, Role::Shopper);
    shop.get(ENDPOINTS).bearer(&shopper).send().await.problem(403, "forbidden");
    assert_eq!(
        shop.admin("GET", &format!("{ENDPOINTS}/{endpoint}/deliveries?state=lost")).send().await.invalid(),
        "?state"
    );

    let second = id(&register(&shop, &receiver.url, &["stock.back"]).await);
    let mut both = [endpoint.clone(), second];
    both.sort_unstable();
    let page = async |query: &str| shop.admin("GET", &format!("{ENDPOINTS}{query}")).send().await.ok(200);
    let first = page("?limit=1").await;
    assert_eq!(id(&first["data"][0]), both[1]);
    let rest = page(&format!("?cursor={}", first["next_cursor"].as_str().unwrap())).await;
    assert_eq!((id(&rest["data"][0]), &rest["next_cursor"]), (both[0].clone(), &Value::Null));
    for _ in 2..32 {
        register(&shop, &receiver.url, &["stock.back"]).await;
    }
    let body = json!({ "url": receiver.url, "events": ["stock.back"] });
    let full: Reply = shop.admin("POST", ENDPOINTS).json(&body).send().await;
    assert_eq!(full.problem(409, "order_state_conflict")["limit"], 32);
    shop.close().await;
}
