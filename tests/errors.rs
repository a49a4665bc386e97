//! What goes wrong at every door alike: tokens, roles, methods, paths, bodies; and what is said about it.

mod support;

use std::cell::RefCell;
use std::time::Duration;

use futures_util::future::join_all;
use jsonwebtoken::{Algorithm, Header};
use serde_json::{Value, json};
use stockade::clock::Clock;
use stockade::domain::user::Role;
use stockade::http::{ROUTES, Who};
use stockade::persistence::audit::audit;
use stockade::tokens::Tokens;
use support::{Person, Process, Reply, SECRET, Shop, forged, id, one_line, user, wait_for};

const NOBODYS_PRODUCT: &str = "prod_01h455vb4pex5vsknk084sn02q";
const NOBODYS_ORDER: &str = "order_01h455vb4pex5vsknk084sn02q";
const NOBODYS_PAYMENT: &str = "pay_01h455vb4pex5vsknk084sn02q";
const NOBODYS_REFUND: &str = "ref_01h455vb4pex5vsknk084sn02q";
const NOBODY: &str = "user_01h455vb4pex5vsknk084sn02q";

#[actix_web::test]
async fn a_token_that_is_not_quite_right_is_no_token() {
    let shop = Shop::open().await;
    let now = shop.clock.now().0 / 1000;
    let claims = |change: Value| {
        let mut claims = json!({
            "sub": user(1), "role": "shopper", "sid": "sess_01h455vb4pex5vsknk084sn02q", "iss": "stockade", "aud": "stockade", "nbf": now - 10,
            "iat": now, "exp": now + 600, "jti": "j",
        });
        for (name, value) in change.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims
    };
    let hs256 = Header::new(Algorithm::HS256);
    let good = forged(&hs256, &claims(json!({})));
    let ask = |token: &str| shop.get("/v1/orders").bearer(token).send();
    ask(&good).await.ok(200);

    let (message, signature) = good.rsplit_once('.').unwrap();
    let (head, payload) = message.split_once('.').unwrap();
    let encode = |value: Value| {
        use base64::Engine;
        base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(value.to_string())
    };
    let unsigned = encode(json!({ "typ": "JWT", "alg": "none" }));
    let other_user = encode(claims(json!({ "sub": user(2) })));
    let mut wrong = vec![
        "garbage".to_owned(),
        "a.b.c".to_owned(),
        format!("{message}."),
        message.to_owned(),
        format!("{unsigned}.{payload}."),
        format!("{unsigned}.{payload}.{signature}"),
        format!("{head}.{other_user}.{signature}"),
        forged(&Header::new(Algorithm::HS512), &claims(json!({}))),
        forged(&Header::new(Algorithm::HS384), &claims(json!({}))),
        shop.token(1, Role::Shopper).replace('.', " "),
    ];
    for change in [
        json!({ "iss": "somebody" }),
        json!({ "aud": "somewhere" }),
        json!({ "aud": ["elsewhere"] }),
        json!({ "nbf": now + 60 }),
        json!({ "role": "root" }),
        json!({ "role": ["admin"] }),
        json!({ "sub": NOBODYS_PRODUCT }),
        json!({ "sub": null }),
        json!({ "exp": null }),
    ] {
        wrong.push(forged(&hs256, &claims(change)));
    }
    let foreign = jsonwebtoken::EncodingKey::from_secret(b"another secret, just as long as ours");
    wrong.push(jsonwebtoken::encode(&hs256, &claims(json!({})), &foreign).unwrap());
    for token in wrong {
        let told = ask(&token).await;
        told.problem(401, "unauthenticated");
        assert!(told.header("WWW-Authenticate").unwrap().starts_with("Bearer"), "{token}");
        assert!(!told.text.contains(&token));
    }
    let expired = ask(&forged(&hs256, &claims(json!({ "exp": now - 1 })))).await;
    expired.problem(401, "token_expired");
    assert!(expired.header("WWW-Authenticate").unwrap().contains("invalid_token"));

    let (user_name, token) = (user(1).to_string(), shop.token(1, Role::Shopper));
    for (name, value) in
        [("X-Authenticated-User", user_name.as_str()), ("X-User-Id", &user_name), ("Cookie", &token)]
    {
        shop.get("/v1/orders").header(name, value).send().await.problem(401, "unauthenticated");
    }
    shop.get(&format!("/v1/orders?access_token={token}")).send().await.problem(401, "unauthenticated");
    for value in [
        SECRET.to_owned(),
        format!("Basic {token}"),
        format!("Bearer{token}"),
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
    ] {
        shop.get("/v1/orders").header("Authorization", &value).send().await.problem(401, "unauthenticated");
    }
    shop.get("/v1/orders").header("Authorization", &format!("bearer {token}")).send().await.ok(200);
    shop.close().await;
}

/// A path with something in each of its places.
fn filled(path: &str) -> String {
    let path = path.replace("{id}", NOBODYS_ORDER).replace("{line}", "1");
    path.replace("{name}", "clearing").replace("{file:.*}", "index.html")
}

#[actix_web::test]
async fn paths_and_methods_that_do_not_exist_say_so() {
    let shop = Shop::open().await;
    for path in [
        "/",
        "/v1",
        "/v1/",
        "/v1/order",
        "/v1/orders/",
        "/v2/orders",
        "/v1/products/x/y/z",
        "/%2e%2e/etc/passwd",
        "/v1/admin",
    ] {
        shop.get(path).send().await.problem(404, "not_found");
    }
    for (method, path, allow) in [
        ("DELETE", "/v1/orders", "POST, GET, HEAD"),
        ("PUT", "/v1/orders", "POST, GET, HEAD"),
        ("GET", "/v1/orders/preview", "POST"),
        ("POST", "/v1/products", "GET, HEAD"),
        ("PUT", "/v1/admin/products", "GET, POST, HEAD"),
        ("TRACE", "/v1/products", "GET, HEAD"),
        ("OPTIONS", "/v1/products", "GET, HEAD"),
        ("BREW", "/livez", "GET, HEAD"),
    ] {
        let told = shop.ask(method, path).send().await;
        told.problem(405, "method_not_allowed");
        assert_eq!(told.header("Allow"), Some(allow));
    }
    for route in ROUTES {
        let path = filled(route.path);
        for method in ["OPTIONS", "TRACE", "PROPFIND", "BREW"] {
            shop.ask(method, &path).send().await.problem(405, "method_not_allowed");
        }
    }
    shop.close().await;
}

#[actix_web::test]
async fn bodies_that_cannot_be_read_are_refused_before_anything_else_is_done() {
    let shop = Shop::open().await;
    let ask = || shop.by(1, "POST", "/v1/orders");
    let body = r#"{"items":[]}"#;
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonp",
        "application/problem+json",
        "",
    ] {
        ask().raw(kind, body).send().await.problem(415, "unsupported_media_type");
    }
    ask().send().await.problem(415, "unsupported_media_type");
    assert_eq!(ask().raw("application/json; charset=utf-8", body).send().await.invalid(), "/items");
    assert_eq!(ask().raw("APPLICATION/JSON", body).send().await.invalid(), "/items");

    let padded = |len: usize| format!("{body}{}", " ".repeat(len - body.len()));
    assert_eq!(ask().body(padded(65_536)).send().await.invalid(), "/items");
    assert_eq!(ask().body(padded(65_537)).send().await.problem(413, "payload_too_large")["limit"], 65_536);
    // Without a length said beforehand, in pieces.
    let pieces = |count: usize| {
        let pieces = (0..count).map(|_| Ok::<_, std::io::Error>(" ".repeat(1_000)));
        reqwest::Body::wrap_stream(futures_util::stream::iter(pieces))
    };
    ask().body(pieces(100)).send().await.problem(413, "payload_too_large");
    ask().body(pieces(3)).send().await.problem(400, "malformed_json");

    // A door that needs no body takes none, or an empty object.
    let cancel = || shop.by(1, "POST", &format!("/v1/orders/{NOBODYS_ORDER}/cancel"));
    cancel().send().await.problem(404, "not_found");
    cancel().json(&json!({})).send().await.problem(404, "not_found");
    assert_eq!(cancel().json(&json!({ "force": true })).send().await.invalid(), "/force");
    cancel().raw("text/plain", "please").send().await.problem(415, "unsupported_media_type");
    shop.close().await;
}

/// Also where no key is kept, because what is asked twice is done once anyway.
#[actix_web::test]
async fn a_key_that_is_none_is_refused_where_none_is_kept_too() {
    let shop = Shop::open().await;
    let jar = shop.stocked(1).await;
    let doors = [
        format!("products/{jar}/pause"),
        format!("products/{jar}/resume"),
        "jobs/clearing/run".to_owned(),
        format!("users/{NOBODY}/suspend"),
        format!("users/{NOBODY}/reinstate"),
        format!("compensations/{NOBODYS_PAYMENT}/accept"),
        format!("compensations/{NOBODYS_PAYMENT}/give-back"),
        format!("compensations/{NOBODYS_PAYMENT}/retry"),
        format!("compensations/{NOBODYS_REFUND}/settle"),
    ];
    for door in doors {
        let ask = || shop.admin("POST", &format!("/v1/admin/{door}"));
        for key in ["two words", "", &"k".repeat(256)] {
            assert_eq!(ask().key(key).send().await.invalid(), "Idempotency-Key", "{door} {key:?}");
        }
        assert_ne!(ask().key("k").send().await.status, 422, "{door}");
    }
    shop.close().await;
}

#[actix_web::test]
async fn every_answer_carries_the_requests_id() {
    let shop = Shop::open().await;
    let given = |id: &str| shop.get("/livez").header("X-Request-Id", id).send();
    assert_eq!(given("build-42/a").await.header("X-Request-Id"), Some("build-42/a"));
    let mut made = Vec::new();
    for id in ["", "two words", &"x".repeat(129)] {
        made.push(given(id).await.header("X-Request-Id").unwrap().to_owned());
    }
    made.push(shop.get("/nowhere").send().await.header("X-Request-Id").unwrap().to_owned());
    made.sort();
    made.dedup();
    assert_eq!(made.len(), 4);
    assert!(made.iter().all(|id| id.len() == 24));
    let told =
        shop.get("/nowhere?with=query").header("X-Request-Id", "mine").send().await.problem(404, "not_found");
    assert_eq!((&told["request_id"], &told["instance"]), (&json!("mine"), &json!("/nowhere")));
    shop.close().await;
}

#[actix_web::test]
async fn the_machinery_is_told_how_things_are() {
    let shop = Shop::open().await;
    assert_eq!(shop.get("/livez").send().await.ok(200)["status"], "alive");
    assert_eq!(
        shop.get("/readyz").send().await.ok(200),
        json!({ "status": "ready", "reasons": [], "degraded": [] })
    );
    let jar = shop.stocked(0).await;
    shop.order(1, &jar, 1).send().await.problem(409, "sold_out");
    let metrics = shop.get("/metrics").send().await;
    assert!(metrics.header("Content-Type").unwrap().starts_with("text/plain; version=0.0.4"));
    for line in [
        r#"stockade_http_requests_total{route="/v1/orders",method="POST",status="409"}"#,
        r#"stockade_refusals_total{code="sold_out"}"#,
        "stockade_conservation_violations 0",
    ] {
        assert!(metrics.text.contains(line), "{line}\n{}", metrics.text);
    }
    shop.close().await;
}

#[actix_web::test]
async fn the_reference_is_served_from_the_binary() {
    let shop = Shop::open().await;
    let document = shop.get("/openapi.json").send().await.ok(200);
    assert_eq!(document["openapi"], "3.1.0");
    assert!(document["paths"]["/v1/orders"]["post"]["responses"]["409"].is_object());
    let page = shop.get("/docs").send().await;
    assert_eq!(page.status, 200);
    assert!(page.text.contains("swagger-ui"));
    let settings = shop.get("/docs/swagger-initializer.js").send().await;
    assert!(settings.text.contains("/openapi.json"), "{}", settings.text);
    shop.get("/docs/none.js").send().await.problem(404, "not_found");
    shop.close().await;
}

/// Nothing is remembered of one request when the next one is answered by the same thread. ASVS 16.2.2: whatever clock its machine shows, a
/// line tells UTC.
#[actix_web::test]
async fn a_line_of_the_log_names_the_request_that_it_is_about() {
    const TRACE: &str = "0123456789abcdef0123456789abcdef";
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(folder.path(), &[("RUST_LOG", "info"), ("TZ", "Asia/Seoul")]).await;
    let traced = process.post("/v1/users", &Person::number(1).words()).header("X-Request-Id", "build-42/7");
    let traced = traced.header("traceparent", &format!("00-{TRACE}-0123456789abcdef-01")).send().await;
    assert_eq!(traced.header("X-Request-Id"), Some("build-42/7"));
    let untraced = process.post("/v1/users", &Person::number(2).words());
    let untraced = untraced.header("traceparent", &format!("00-{TRACE}-0000000000000000-01")).send().await;
    let id = untraced.header("X-Request-Id").unwrap();
    let lines = wait_for(|| {
        let log = process.log();
        let lines = log.lines().filter(|line| line.contains("has signed up")).map(str::to_owned);
        Some(lines.collect::<Vec<_>>()).filter(|lines| lines.len() == 2)
    })
    .await;
    assert!(lines[0].ends_with(&format!(" request_id=build-42/7 trace_id={TRACE}")), "{}", lines[0]);
    assert!(lines[1].ends_with(&format!(" request_id={id}")), "{}", lines[1]);
    for line in lines {
        let (at, _) = line.split_once(' ').unwrap();
        let told: jiff::Timestamp = at.parse().unwrap();
        let apart_ms = (told.as_millisecond() - Clock::start().now().0).abs();
        assert!(at.ends_with('Z') && apart_ms < 60 * 60 * 1_000, "{line}");
    }
    process.stop().await;
}

/// With the feature `otel`: a request is a span below the one that it came with, and a collector hears of it.
#[cfg(feature = "otel")]
#[actix_web::test]
async fn a_collector_hears_of_each_request() {
    use std::io::{Read, Write};
    const TRACE: &str = "0123456789abcdef0123456789abcdef";
    let collector = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let place = format!("http://{}", collector.local_addr().unwrap());
    let heard = std::thread::spawn(move || {
        let (mut caller, _) = collector.accept().unwrap();
        let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
        let told = |bytes: &[u8]| bytes.windows(14).any(|window| window == b"POST /v1/users");
        while !told(&bytes) {
            let read = caller.read(&mut piece).unwrap();
            assert!(read > 0, "{}", String::from_utf8_lossy(&bytes));
            bytes.extend_from_slice(&piece[..read]);
        }
        caller.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
        bytes
    });
    let folder = tempfile::tempdir().unwrap();
    let settings = [("OTEL_EXPORTER_OTLP_ENDPOINT", &*place), ("OTEL_BSP_SCHEDULE_DELAY", "50")];
    let process = Process::start(folder.path(), &settings).await;
    let ask = process.post("/v1/users", &Person::number(1).words()).header("X-Request-Id", "build-42/7");
    ask.header("traceparent", &format!("00-{TRACE}-fedcba9876543210-01")).send().await;
    wait_for(|| heard.is_finished().then_some(())).await;
    let heard = heard.join().unwrap();
    let has = |part: &[u8]| heard.windows(part.len()).any(|window| window == part);
    let trace = u128::from_str_radix(TRACE, 16).unwrap().to_be_bytes();
    let parent = 0xfedc_ba98_7654_3210_u64.to_be_bytes();
    assert!(has(b"POST /v1/traces") && has(b"stockade") && has(b"build-42/7") && has(&trace) && has(&parent));
    process.stop().await;
}

#[actix_web::test]
async fn operators_have_a_listener_of_their_own_if_they_want_one() {
    let shop = Shop::open_with(|config| config.http.ops_addr = Some(([127, 0, 0, 1], 0).into())).await;
    // Each of their doors, by every method that there is: like one that is nowhere, also for an administrator.
    let theirs =
        ROUTES.iter().filter(|route| [Who::Admin, Who::RecentAdmin, Who::Operator].contains(&route.who));
    let mut doors = 0;
    for route in theirs {
        let path = filled(route.path);
        for method in [route.method, "HEAD", "OPTIONS", "BREW"] {
            let told = shop.admin(method, &path).send().await;
            assert_eq!(told.status, 404, "{method} {path}");
        }
        doors += 1;
    }
    assert!(doors >= 30, "{doors}");
    for path in [
        "/metrics/",
        "//metrics",
        "/metrics?x",
        "/%6detrics",
        "/docs/index.html",
        "/docs/../metrics",
        "/V1/admin/orders",
    ] {
        shop.admin("GET", path).send().await.problem(404, "not_found");
    }
    assert_eq!(
        shop.get("/readyz").send().await.ok(200),
        json!({ "status": "ready", "reasons": [], "degraded": [] })
    );

    shop.get("/openapi.json").send().await.ok(200);
    for path in ["/livez", "/readyz", "/metrics", "/docs/", "/openapi.json"] {
        assert_eq!(shop.ops("GET", path).send().await.status, 200, "{path}");
    }
    for path in ["/v1/products", "/v1/users/me", "/verify", "/v1/payments/webhook"] {
        shop.ops("GET", path).send().await.problem(404, "not_found");
    }
    let admin = shop.token(0, Role::Admin);
    shop.ops("POST", "/v1/admin/products").bearer(&admin).json(&json!({})).send().await.invalid();
    shop.ops("POST", "/v1/orders").send().await.problem(404, "not_found");
    shop.close().await;
}

#[actix_web::test]
async fn a_shutdown_is_told_before_anything_ends() {
    // A shop that has nothing to end ends in a moment, and whoever stood still for as long has missed it.
    for _ in 0..10 {
        if let Some(told) = last_word_of_a_shop().await {
            let words = json!({ "status": "not_ready", "reasons": ["shutting_down"], "degraded": [] });
            return assert_eq!(told.ok(503), words);
        }
    }
    panic!("nobody said anything");
}

/// What it says of itself when it no longer says that it is ready, if it is still there to say so.
async fn last_word_of_a_shop() -> Option<Reply> {
    let shop = Shop::open().await;
    let asks: Vec<_> = (0..1_000).map(|_| shop.get("/readyz")).collect();
    let listen = async {
        for ask in asks {
            let told = ask.try_send().await?;
            if told.status != 200 {
                return Some(told);
            }
        }
        None
    };
    let (_folder, told) = tokio::join!(shop.stop(), listen);
    told
}

/// Somebody who buys until there is nobody to buy from; each yes is put down with its key.
async fn buys(
    process: &Process,
    token: &str,
    who: u64,
    jar: &str,
    heard: &RefCell<Vec<(u64, String, Value)>>,
) {
    for number in 0_u32.. {
        let key = format!("{who}-{number}");
        let ask = process.post("/v1/orders", &one_line(jar, 1)).bearer(token).key(&key);
        // A connection that nobody took in any more.
        let Some(told) = ask.try_send().await else { return };
        let order = told.json();
        if told.status != 201 {
            let nothing_was_done =
                ["owner_unavailable", "overloaded"].map(Value::from).contains(&order["code"]);
            assert!(told.status == 503 && nothing_was_done, "{}", told.text);
            return;
        }
        heard.borrow_mut().push((who, key, order["id"].clone()));
    }
}

/// Each yes that was heard stands, and each order that stands was heard of: no connection is cut between the two.
#[actix_web::test]
async fn a_shop_that_is_told_to_stop_in_a_crowd_answers_for_every_order() {
    const BUYERS: u64 = 64;
    const HEARD_BEFORE: usize = 300;
    let folder = tempfile::tempdir().unwrap();
    let rate = ["STOCKADE_ORDER_RATE_PER_USER", "STOCKADE_ORDER_BURST_PER_USER"].map(|name| (name, "100000"));
    let settings = [("RUST_LOG", "info"), rate[0], rate[1]];
    let (clock, tokens) = (Clock::start(), Tokens::new(SECRET.as_bytes(), &[]).unwrap());
    let token = |who, role| tokens.sign(user(who), role, 900, clock.now(), clock.chance()).unwrap();
    let mut process = Process::start(folder.path(), &settings).await;
    let price = json!({ "amount": 1_000, "currency": "KRW" });
    let goods = json!({ "sku": "CROWD", "name": "Moon jar", "price": price, "stock": 1_000_000 });
    let made = process.post("/v1/admin/products", &goods).bearer(&token(0, Role::Admin)).key("crowd");
    let jar = id(&made.send().await.ok(201));

    let heard = RefCell::new(Vec::new());
    let buyers: Vec<String> = (0..=BUYERS).map(|who| token(who, Role::Shopper)).collect();
    let buying = join_all((1..=BUYERS).map(|who| buys(&process, &buyers[who as usize], who, &jar, &heard)));
    let stopping = async {
        wait_for(|| (heard.borrow().len() >= HEARD_BEFORE).then_some(())).await;
        process.signal(rustix::process::Signal::TERM);
    };
    let both = async { tokio::join!(buying, stopping) };
    tokio::time::timeout(Duration::from_secs(60), both).await.expect("somebody is kept waiting");
    let ended = process.ends().await;
    assert!(ended.success(), "{ended}:\n{}", process.log());
    let report = audit(&folder.path().join("data")).await.unwrap();
    assert_eq!(report.all_differences().collect::<Vec<_>>(), [""; 0]);

    let process = Process::start(folder.path(), &settings).await;
    let heard = heard.into_inner();
    for (who, key, order) in &heard {
        let ask = process.post("/v1/orders", &one_line(&jar, 1)).bearer(&buyers[*who as usize]).key(key);
        let told = ask.send().await;
        assert!(told.replayed(), "{key}: {}", told.text);
        assert_eq!(told.ok(201)["id"], *order, "{key}");
    }
    let stock = process.ask("GET", &format!("/v1/products/{jar}/stock")).send().await.ok(200);
    assert_eq!(stock["held"], heard.len(), "something stands that nobody heard of");
    process.stop().await;
}

/// That nothing was done is true of what is refused now, and says nothing about the time before.
#[actix_web::test]
async fn whoever_asks_again_while_holds_are_refused_hears_of_his_order() {
    let shop = Shop::open_with(|config| config.limits.flush_lag_bytes_max = 2_000).await;
    let jar = shop.stocked(1_000).await;
    let order = |who: u64, key: &str| shop.order(who, &jar, 1).key(key).send_once();
    let first = order(1, "first").await.ok(201);
    shop.tables_follow().await;
    let held = shop.hold("shop.db").await;
    let mut tries = 0;
    let refused = loop {
        let told = order(2, &format!("{tries}")).await;
        if told.status != 201 {
            break told;
        }
        tries += 1;
        assert!(tries < 1_000, "the tables may be as far behind as they like");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    refused.problem(503, "overloaded");
    order(1, "second").await.problem(503, "overloaded");
    let again = order(1, "first").await;
    assert!(again.replayed());
    assert_eq!(again.ok(201)["id"], first["id"]);
    held.let_go().await;
    shop.close().await;
}
