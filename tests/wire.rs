//! What a connection may carry and how much of it, said over a bare socket: requests that two readers would read differently, chunks
//! that lie, heads and bodies that are too much, and connections that one address, or a thread, has too many of.

mod support;

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use stockade::domain::user::Role;
use support::{SECRET, Shop, forged, user};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Whoever waits longer than this waits for ever.
const PATIENCE: Duration = Duration::from_secs(60);

/// Says something as it stands, and hears everything until the other side hangs up.
async fn raw(addr: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    // It may have hung up before it has heard everything.
    let _ = stream.write_all(request).await;
    let mut heard = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut heard)).await.expect("it hangs up by itself");
    String::from_utf8_lossy(&heard).into_owned()
}

/// One answer, 400, and nothing of what was hidden behind the request.
fn is_refused(name: &str, heard: &str) {
    assert!(heard.starts_with("HTTP/1.1 400"), "{name}: {heard}");
    assert!(!heard.contains("smuggled") && heard.matches("HTTP/1.1").count() == 1, "{name}: {heard}");
}

const SMUGGLED: &str = "GET /livez HTTP/1.1\r\nHost: x\r\nX-Request-Id: smuggled\r\n\r\n";

/// ASVS 4.2.1, RFC 9112 §2.2, §5, §6: heads that somebody in between could read in another way.
#[actix_web::test]
async fn a_head_that_two_would_read_differently_is_read_by_nobody() {
    let shop = Shop::open().await;
    let addr = shop.app().addr();
    let post = |version: &str, head: &str| {
        format!(
            "POST /v1/sessions HTTP/{version}\r\nHost: x\r\nContent-Type: application/json\r\n{head}\r\n\r\n"
        )
    };
    for (name, head) in [
        ("an encoding on a line that ends without CR", "Content-Length: 6\nTransfer-Encoding: chunked"),
        ("an encoding behind a vertical tab", "Transfer-Encoding: \u{b}chunked"),
        ("an encoding before a NUL", "Transfer-Encoding: chunked\0"),
        ("an encoding in quotes", "Transfer-Encoding: \"chunked\""),
        ("an encoding with a parameter", "Transfer-Encoding: chunked;a=b"),
        ("an encoding twice in one line", "Transfer-Encoding: chunked, chunked"),
        ("an encoding that is none", "Transfer-Encoding: identity"),
        ("an encoding that is none, and a length", "Transfer-Encoding: identity\r\nContent-Length: 2"),
        ("an encoding without a name", "Transfer-Encoding:"),
        ("an encoding of other letters", "Transfer-Encoding: chunk\u{e9}d"),
        ("an encoding in two lines, the first empty", "Transfer-Encoding: \r\nTransfer-Encoding: chunked"),
        ("a name with a space in it", "Transfer Encoding: chunked\r\nContent-Length: 2"),
        ("a tab before the colon", "Content-Length\t: 2"),
        ("a length below zero", "Content-Length: -2"),
        ("a length in hexadecimal", "Content-Length: 0x2"),
        ("a length with a point", "Content-Length: 2.0"),
        ("a length in two parts", "Content-Length: 2 2"),
        ("an empty length", "Content-Length:"),
        ("a length beyond all numbers", "Content-Length: 18446744073709551618"),
        ("a length in wide digits", "Content-Length: \u{ff12}"),
        ("three lengths", "Content-Length: 2\r\nContent-Length: 2\r\nContent-Length: 2"),
        ("a line that begins with a space", " X-A: b\r\nContent-Length: 2"),
        ("a line that is folded", "X-A: b\r\n c\r\nContent-Length: 2"),
        ("a CR inside a line", "X-A: b\rTransfer-Encoding: chunked\r\nContent-Length: 2"),
        ("a NUL in a value", "X-A: b\0c\r\nContent-Length: 2"),
        ("a NUL in a name", "X\0A: b\r\nContent-Length: 2"),
        ("a line without a name", ": b\r\nContent-Length: 2"),
        ("a line without a colon", "Transfer-Encoding\r\nContent-Length: 2"),
        ("two hosts", "Host: y\r\nContent-Length: 2"),
    ] {
        let request = [post("1.1", head).as_bytes(), b"{}", SMUGGLED.as_bytes()].concat();
        is_refused(name, &raw(addr, &request).await);
    }
    for (name, request) in [
        ("an encoding in HTTP/1.0", post("1.0", "Transfer-Encoding: chunked") + "0\r\n\r\n"),
        ("no length in HTTP/1.0", post("1.0", "X-A: b") + "{}"),
        ("no host", "GET /livez HTTP/1.1\r\n\r\n".to_owned()),
        ("another HTTP", "GET /livez HTTP/1.2\r\nHost: x\r\n\r\n".to_owned()),
        ("HTTP/2 unasked", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned()),
        ("HTTP/0.9", "GET /livez\r\n\r\n".to_owned()),
        ("two spaces", "GET  /livez HTTP/1.1\r\nHost: x\r\n\r\n".to_owned()),
        ("a tab for a space", "GET\t/livez\tHTTP/1.1\r\nHost: x\r\n\r\n".to_owned()),
        ("a NUL in the path", "GET /livez\0 HTTP/1.1\r\nHost: x\r\n\r\n".to_owned()),
        ("TLS", "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{3}\u{3}\r\n\r\n".to_owned()),
    ] {
        is_refused(name, &raw(addr, format!("{request}{SMUGGLED}").as_bytes()).await);
    }
    shop.close().await;
}

/// ASVS 4.2.1, RFC 9112 §7.1: a body in chunks has one end, or none.
#[actix_web::test]
async fn a_chunk_that_lies_ends_the_connection() {
    let shop = Shop::open().await;
    let addr = shop.app().addr();
    for (name, body) in [
        ("no size", "\r\n{}\r\n0\r\n\r\n"),
        ("a size below zero", "-2\r\n{}\r\n0\r\n\r\n"),
        ("a signed size", "+2\r\n{}\r\n0\r\n\r\n"),
        ("a size with a prefix", "0x2\r\n{}\r\n0\r\n\r\n"),
        ("a size in two parts", "0 2\r\n{}\r\n0\r\n\r\n"),
        ("a size behind a space", " 2\r\n{}\r\n0\r\n\r\n"),
        ("a size beyond 64 bits", "10000000000000002\r\n{}\r\n0\r\n\r\n"),
        ("a size of other letters", "2g\r\n{}\r\n0\r\n\r\n"),
        ("a size with an underscore", "1_0\r\n{}\r\n0\r\n\r\n"),
        ("more than was said", "2\r\n{}{}\r\n0\r\n\r\n"),
        ("less than was said", "3\r\n{}\r\n0\r\n\r\n"),
        ("lines that end without CR", "2\n{}\n0\n\n"),
        ("a size that ends without CR", "2\n{}\r\n0\r\n\r\n"),
        ("a size that ends without LF", "2\r{}\r\n0\r\n\r\n"),
        ("data that ends without CR", "2\r\n{}\n0\r\n\r\n"),
        ("a line inside an extension", "2;a\nb\r\n{}\r\n0\r\n\r\n"),
        ("a NUL inside an extension", "2;a\0b\r\n{}\r\n0\r\n\r\n"),
    ] {
        let head = "POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked";
        let request = format!("{head}\r\n\r\n{body}{SMUGGLED}");
        is_refused(name, &raw(addr, request.as_bytes()).await);
    }
    shop.close().await;
}

/// ASVS 4.2: a head of 16 KiB is read, and a larger one is not, however it is made so.
#[actix_web::test]
async fn a_head_has_sixteen_kibibytes_and_no_more() {
    let shop = Shop::open().await;
    let addr = shop.app().addr();
    let told = shop.get("/livez").header("X-Long", &"x".repeat(16_000)).send().await;
    assert_eq!(told.status, 200);
    let told = shop.get("/livez").header("X-Long", &"x".repeat(16_400)).send().await;
    assert_eq!(told.problem(431, "head_too_large")["limit"], 16_384);
    assert_eq!(told.header("Connection"), Some("close"));
    shop.get(&format!("/v1/products?q={}", "x".repeat(16_400))).send().await.problem(431, "head_too_large");
    let many = (0..90).fold(shop.get("/livez"), |ask, nth| ask.header(&format!("X-{nth}"), &"x".repeat(190)));
    many.send().await.problem(431, "head_too_large");
    // Nobody is asked who it is, and nothing is done.
    let order = shop.ask("POST", "/v1/orders").bearer(&"x".repeat(20_000)).json(&json!({})).send().await;
    order.problem(431, "head_too_large");
    for request in [
        format!("GET /livez HTTP/1.1\r\nHost: x\r\n{}\r\n", "X-A: b\r\n".repeat(200)),
        format!("GET /livez HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n", "x".repeat(200_000)),
        format!("GET /livez HTTP/1.1\r\nHost: x\r\nX-Long: {}", "x".repeat(1 << 20)),
    ] {
        let heard = raw(addr, request.as_bytes()).await;
        assert!(heard.is_empty() || heard.starts_with("HTTP/1.1 431"), "{heard}");
    }
    shop.close().await;
}

/// RFC 9110 §9.3.7: who asks about the server as a whole hears that no door has this path, as everybody else would.
#[actix_web::test]
async fn what_is_asked_about_no_path_is_answered_like_all_else() {
    let shop = Shop::open().await;
    let asked = b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Request-Id: mine\r\n\r\n";
    let heard = raw(shop.app().addr(), asked).await;
    assert!(heard.starts_with("HTTP/1.1 404") && heard.contains("not_found"), "{heard}");
    assert!(heard.contains("x-request-id: mine"), "{heard}");
    shop.close().await;
}

/// OWASP API4: at every door that takes a body, what is nearly JSON, too deep, too long or twice is refused, and nothing fails.
#[actix_web::test]
async fn bodies_that_are_not_quite_right_are_refused_at_every_door() {
    let shop = Shop::open().await;
    let document = stockade::http::document();
    let mina = shop.newcomer(1).await;
    let pair = shop.log_in(&mina).await;
    let product = shop.stocked(5).await;
    let mut doors = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let example = &operation["requestBody"]["content"]["application/json"]["example"];
            if !example.is_object() || path == "/v1/payments/webhook" {
                continue;
            }
            doors += 1;
            let token = match path.starts_with("/v1/admin") {
                true => shop.token(0, Role::Admin),
                false => pair.access.clone(),
            };
            let suffix = "01h455vb4pex5vsknk084sn02q";
            let known = [
                ("/admin/products", product.clone()),
                ("/cart/", product.clone()),
                ("/webhook-endpoints", format!("whe_{suffix}")),
                ("/compensations", format!("pay_{suffix}")),
                ("", format!("order_{suffix}")),
            ];
            let (_, id) = known.iter().find(|(part, _)| path.contains(part)).unwrap();
            let path = path.replace("{id}", id).replace("{line}", "1").replace("{name}", "clearing");
            let ask =
                || shop.ask(&method.to_uppercase(), &path).bearer(&token).key("k").header("If-Match", "*");
            let good = example.to_string();
            let inner = &good[..good.len() - 1];
            let field = example.as_object().unwrap().keys().next().unwrap();
            let mut wrong: Vec<Vec<u8>> = [
                "",
                "null",
                "[]",
                "0",
                "\"\"",
                "true",
                "{",
                "}",
                "{}}",
                "{,}",
                "{'a':1}",
                "{a:1}",
                "nul",
                "NaN",
                "\0",
                "{\"a\":1,}",
                "{} {}",
                "{/**/}",
                "{} // a",
                "\u{feff}{}",
                "{\"a\":01}",
                "{\"a\":+1}",
                "{\"a\":\"\n\"}",
                "{\"a\":\"\\x\"}",
                "{\"a\":\"\\ud800\"}",
                "{\"a\":1e999}",
            ]
            .map(|body| body.as_bytes().to_vec())
            .into();
            wrong.extend([
                b"{\"a\":\"\xff\xfe\"}".to_vec(),
                b"\xff\xfe{\0}\0".to_vec(),
                good.as_bytes()[..good.len() / 2].to_vec(),
                format!("{inner},\"{field}\":{}}}", example[field]).into_bytes(),
                format!("{inner},\"more\":{}{}}}", "[".repeat(17), "]".repeat(17)).into_bytes(),
                format!("{inner},\"more\":{}", "{\"a\":".repeat(10_000)).into_bytes(),
                format!("{{\"{field}\":{}1{}}}", "[".repeat(17), "]".repeat(17)).into_bytes(),
                format!("{{\"{field}\":{}1{}}}", "{\"a\":".repeat(17), "}".repeat(17)).into_bytes(),
            ]);
            for body in wrong {
                let told = ask().body(body.clone()).send().await;
                let body = String::from_utf8_lossy(&body);
                assert!(
                    [400, 422].contains(&told.status.as_u16()),
                    "{method} {path} {body:.80}: {}",
                    told.text
                );
            }
            // Its fields in their order are not the object.
            let listed = example.as_object().unwrap().values().cloned().collect();
            assert_eq!(ask().json(&Value::Array(listed)).send().await.invalid(), "", "{method} {path}");
            for at in arrays(example, String::new()) {
                let mut body = example.clone();
                let list = body.pointer_mut(&at).unwrap().as_array_mut().unwrap();
                let one = list[0].clone();
                list.resize(101, one);
                let told = ask().json(&body).send().await;
                assert_eq!(told.status, 422, "{method} {path} {at}: {}", told.text);
            }
        }
    }
    assert!(doors >= 18, "{doors}");
    shop.close().await;
}

/// Pointers to every array in a value that has something in it.
fn arrays(value: &Value, at: String) -> Vec<String> {
    match value {
        Value::Object(map) => {
            map.iter().flat_map(|(name, value)| arrays(value, format!("{at}/{name}"))).collect()
        }
        Value::Array(list) => {
            let inside =
                list.iter().enumerate().flat_map(|(nth, value)| arrays(value, format!("{at}/{nth}")));
            let here = (!list.is_empty()).then(|| at.clone());
            inside.chain(here).collect()
        }
        _ => Vec::new(),
    }
}

/// ASVS 9.1, 9.2: who a token is for is decided by our key and our table, and by nothing that the token brings along.
#[actix_web::test]
async fn a_token_brings_nothing_of_its_own() {
    let shop = Shop::open().await;
    let now = shop.clock.now().0 / 1000;
    let claims = json!({
        "sub": user(1), "role": "shopper", "sid": "sess_01h455vb4pex5vsknk084sn02q", "iss": "stockade", "aud": "stockade",
        "nbf": now - 10, "iat": now, "exp": now + 600, "jti": "j",
    });
    let signed = |head: &Value, claims: &Value, secret: &[u8], algorithm| {
        let message = format!("{}.{}", BASE64.encode(head.to_string()), BASE64.encode(claims.to_string()));
        let key = EncodingKey::from_secret(secret);
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, algorithm).unwrap();
        format!("{message}.{signature}")
    };
    let ours = |head: &Value| signed(head, &claims, SECRET.as_bytes(), Algorithm::HS256);
    let ask = |token: &str| shop.get("/v1/orders").bearer(token).send();
    let head = |more: Value| {
        let mut head = json!({ "typ": "JWT", "alg": "HS256" });
        more.as_object().unwrap().iter().for_each(|(name, value)| head[name] = value.clone());
        head
    };
    ask(&ours(&head(json!({})))).await.ok(200);

    let key_of_theirs = b"a key of their own, just as long as ours";
    let jwk = json!({ "kty": "oct", "alg": "HS256", "k": BASE64.encode(key_of_theirs) });
    let mut wrong = Vec::new();
    for more in [
        json!({ "jwk": jwk }),
        json!({ "jku": "https://evil.example/keys", "kid": "theirs" }),
        json!({ "x5u": "https://evil.example/certificate", "x5c": ["MIIB"], "x5t": "AA" }),
        json!({}),
    ] {
        wrong.push(signed(&head(more), &claims, key_of_theirs, Algorithm::HS256));
    }
    for kid in ["", "theirs", "../../../../dev/null", "' or '1'='1", "\0", "key.pem|id", &"k".repeat(4_000)] {
        wrong.push(ours(&head(json!({ "kid": kid }))));
        // What an empty file, or no row, would be taken for.
        wrong.push(signed(&head(json!({ "kid": kid })), &claims, b"", Algorithm::HS256));
    }
    for alg in [
        json!("none"),
        json!("None"),
        json!("nOnE"),
        json!(""),
        json!("RS256"),
        json!("ES256"),
        json!("hs256"),
        json!(null),
    ] {
        wrong.push(ours(&head(json!({ "alg": alg }))));
    }
    // A signature that is right, of an algorithm that is not ours; and a public key of ours is no secret of anybody's.
    for (name, algorithm) in [("HS384", Algorithm::HS384), ("HS512", Algorithm::HS512)] {
        for alg in [name, "HS256"] {
            wrong.push(signed(&head(json!({ "alg": alg })), &claims, SECRET.as_bytes(), algorithm));
        }
    }
    for more in [
        json!({ "typ": "at+jwt" }),
        json!({ "typ": "JWE" }),
        json!({ "typ": null }),
        json!({ "crit": ["exp"] }),
        json!({ "crit": [] }),
        json!({ "kid": 1 }),
        json!({ "kid": ["a"] }),
    ] {
        wrong.push(ours(&head(more)));
    }
    for (name, value) in [
        ("exp", json!("soon")),
        ("exp", json!(1e300)),
        ("exp", json!([now + 600])),
        ("nbf", json!(now + 30)),
        ("nbf", json!("0")),
        ("nbf", json!(null)),
        ("aud", json!(["stockade", "elsewhere"])),
        ("aud", json!(null)),
        ("iss", json!("stockade ")),
        ("iss", json!(["stockade"])),
        ("sub", json!("user_00000000000000000000000000\u{0}")),
        ("sub", json!({ "$ne": null })),
        ("sid", json!("order_01h455vb4pex5vsknk084sn02q")),
        ("sid", json!(null)),
        ("role", json!("Admin")),
        ("role", json!(null)),
    ] {
        let mut claims = claims.clone();
        claims[name] = value;
        wrong.push(forged(&Header::new(Algorithm::HS256), &claims));
    }
    let good = ours(&head(json!({})));
    let (message, signature) = good.rsplit_once('.').unwrap();
    let standard = signature.replace('-', "+").replace('_', "/");
    for odd in [
        format!("{good}="),
        format!("{good}."),
        format!(".{good}"),
        format!("{good}.{signature}"),
        format!("{message}.{standard}=="),
        format!("{message}.{}", &signature[..signature.len() - 1]),
        format!("{message}.{}", signature.to_uppercase()),
        format!("{}\t", good.replace('.', "..")),
    ] {
        wrong.push(odd);
    }
    for token in wrong {
        let told = ask(&token).await;
        assert!([401, 431].contains(&told.status.as_u16()), "{token:.300}: {}", told.text);
    }

    // Two at once are nobody's, in whatever order.
    let admin = shop.token(0, Role::Admin);
    for (one, other) in [(&good, &admin), (&admin, &good), (&good, &good)] {
        let told = shop.get("/v1/orders").bearer(one).bearer(other).send().await;
        told.problem(401, "unauthenticated");
        let told = shop.ask("GET", "/v1/admin/orders").bearer(one).bearer(other).send().await;
        told.problem(401, "unauthenticated");
        let list = format!("Bearer {one}, Bearer {other}");
        shop.get("/v1/orders").header("Authorization", &list).send().await.problem(401, "unauthenticated");
    }
    shop.close().await;
}

/// OWASP API4: one address asks so often and no more, for looks and for changes, whoever it says it is; others do not feel it.
#[actix_web::test]
async fn an_address_that_asks_too_often_is_told_to_wait() {
    let shop = Shop::open_with(|config| {
        config.http.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
        config.limits.look_rate_per_address = 2;
        config.limits.change_rate_per_address = 1;
    })
    .await;
    let from = |address: &str, ask: support::Ask| ask.header("X-Forwarded-For", address);
    let mut refused = Vec::new();
    for number in 0..200 {
        let path = ["/v1/products", "/livez", "/nowhere", "/metrics"][number % 4];
        refused.push(from("203.0.113.9", shop.get(path)).send().await);
    }
    let told = refused.iter().find(|told| told.status == 429).expect("it is limited");
    told.problem(429, "rate_limited");
    assert!(told.header("Retry-After").is_some_and(|seconds| seconds.parse::<u64>().unwrap() >= 1));
    assert!(
        told.header("RateLimit-Policy").is_some_and(|policy| policy.starts_with("\"looks\"")),
        "{told:?}"
    );
    assert!(refused[..4].iter().all(|told| told.status != 429), "twice as many come at once");
    // Another address, and changes from the same one, have their own.
    assert_eq!(from("203.0.113.8", shop.get("/v1/products")).send().await.status, 200);
    let log_in = || from("203.0.113.9", shop.post("/v1/sessions", &json!({})));
    assert_eq!(log_in().send().await.status, 422);
    let mut told = Vec::new();
    for _ in 0..100 {
        told.push(log_in().send().await.status.as_u16());
    }
    assert!(told.contains(&429), "{told:?}");
    // One household of IPv6 is one address.
    let mut household = Vec::new();
    for last in 1..200 {
        household
            .push(from(&format!("2001:db8:1:2::{last:x}"), shop.get("/livez")).send().await.status.as_u16());
    }
    assert!(household.contains(&429), "{household:?}");
    // The machine itself is not limited.
    for _ in 0..50 {
        assert_eq!(shop.get("/livez").send().await.status, 200);
    }
    shop.close().await;
}

/// An address of this machine that is not loopback; a packet that is never sent tells which.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|own| own.ip()).filter(|own| !own.is_loopback() && !own.is_unspecified())
}

/// OWASP API4: one address has so many connections, and those beyond are hung up on before anything is heard.
#[actix_web::test]
async fn an_address_has_only_so_many_connections() {
    let Some(own) = own_address() else {
        println!(
            "this machine has no address but loopback, which has no cap: the count alone is tested, in src/app/connections.rs"
        );
        return;
    };
    let shop = Shop::open_with(|config| {
        config.http.addr = ([0, 0, 0, 0], 0).into();
        config.http.connections_per_address = 3;
    })
    .await;
    let addr = SocketAddr::new(own, shop.app().addr().port());
    const LOOK: &[u8] = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";
    let ask = async |stream: &mut TcpStream| {
        let mut heard = [0; 12];
        let _ = stream.write_all(LOOK).await;
        let read = timeout(PATIENCE, stream.read_exact(&mut heard)).await.expect("an answer or an end");
        read.is_ok_and(|_| heard.starts_with(b"HTTP/1.1 200"))
    };
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        assert!(ask(&mut stream).await);
        open.push(stream);
    }
    for _ in 0..20 {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        assert!(!ask(&mut stream).await, "a fourth");
    }
    // Who comes over loopback is not counted, and whoever goes makes room.
    let metrics = shop.get("/metrics").send().await.text;
    assert!(metrics.contains(r#"stockade_refusals_total{code="too_many_connections"}"#), "{metrics}");
    open.pop();
    let again = async {
        while !ask(&mut TcpStream::connect(addr).await.unwrap()).await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, again).await.expect("there is room again");
    shop.close().await;
}

/// OWASP API4: one HTTP thread has so many connections, whoever has them; the next one waits to be accepted, and is when one ends.
#[actix_web::test]
async fn a_connection_beyond_the_last_waits_until_one_ends() {
    let shop = Shop::open_with(|config| {
        config.http.workers = 1;
        config.http.connections_max = 2;
        config.http.keep_alive = PATIENCE;
    })
    .await;
    const LOOK: &[u8] = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";
    let is_answered = async |stream: &mut TcpStream| {
        let mut heard = [0; 4_096];
        let read = timeout(PATIENCE, stream.read(&mut heard)).await.expect("an answer").unwrap();
        assert!(heard[..read].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&heard[..read]));
    };
    let addr = shop.app().addr();
    let mut open = [TcpStream::connect(addr).await.unwrap(), TcpStream::connect(addr).await.unwrap()];
    for stream in &mut open {
        stream.write_all(LOOK).await.unwrap();
        is_answered(stream).await;
    }
    let mut third = TcpStream::connect(addr).await.unwrap();
    third.write_all(LOOK).await.unwrap();
    // Were it let in, the thread that answers these would have answered it long since.
    for _ in 0..50 {
        for stream in &mut open {
            stream.write_all(LOOK).await.unwrap();
            is_answered(stream).await;
        }
    }
    let nothing = third.try_read(&mut [0; 1]).unwrap_err();
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
    let [first, mut second] = open;
    drop(first);
    is_answered(&mut third).await;
    second.write_all(LOOK).await.unwrap();
    is_answered(&mut second).await;
    shop.close().await;
}

/// OWASP API4: a connection on which nothing is asked ends.
#[actix_web::test]
async fn a_connection_that_is_idle_ends() {
    let shop = Shop::open_with(|config| config.http.keep_alive = Duration::from_millis(300)).await;
    let heard = raw(shop.app().addr(), b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(heard.starts_with("HTTP/1.1 200"), "{heard}");
    shop.close().await;
}

/// ASVS 4.2.1, SECURITY 37: nor is there more time for the head of a later request than for that of the first.
#[actix_web::test]
async fn whoever_begins_a_later_request_ends_it_or_is_hung_up_on() {
    let shop = Shop::open().await;
    let mut stream = TcpStream::connect(shop.app().addr()).await.unwrap();
    let mut answer = [0; 1_024];
    for _ in 0..2 {
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let read = timeout(PATIENCE, stream.read(&mut answer)).await.unwrap().unwrap();
        assert!(answer[..read].starts_with(b"HTTP/1.1 200"));
    }
    stream.write_all(b"G").await.unwrap();
    let quiet = timeout(Duration::from_secs(3), stream.read(&mut answer)).await;
    assert!(quiet.is_err(), "there is time for a slow one");
    let heard = timeout(PATIENCE, stream.read(&mut answer)).await.expect("an end").unwrap_or(0);
    assert_eq!(heard, 0, "{}", String::from_utf8_lossy(&answer[..heard]));
    shop.close().await;
}
