//! What strangers send: letters that mean something to a database, a terminal or a log, fields that were not asked for,
//! and requests that two readers would read differently.

mod support;

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use stockade::domain::user::Role;
use stockade::http::BODY_BYTES_MAX;
use stockade::persistence::audit::audit;
use support::{Pair, Person, Process, Shop, id, one_line, paid_with};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Each ends a literal, a comment or a pattern of SQL in its own way.
const SQL: [&str; 6] = [
    "Robert'); drop table users;--",
    "\" or \"\"=\"",
    "' union select password from users --",
    "\\'; update users set role='admin' /*",
    "100%_[a-z]* ? :name @name $1",
    "`;pragma writable_schema=on;`",
];

/// ASVS 1.2.4: what is typed is text, wherever it is typed, and is kept to the letter.
#[actix_web::test]
async fn what_means_something_to_a_database_is_stored_to_the_letter() {
    let shop = Shop::open().await;
    let mut people = Vec::new();
    for (number, evil) in (1..).zip(SQL) {
        let person = Person {
            email: format!("o'{number}`{{|}}--/*x*/=?%_$1@example.com"),
            password: format!("{evil} {number}"),
            name: evil.to_owned(),
            street: evil.to_owned(),
            ..Person::number(number)
        };
        let mut words = person.words();
        for field in ["recipient", "line2", "city", "region"] {
            words["address"][field] = json!(format!("{field} {evil}"));
        }
        assert_eq!(shop.post("/v1/users", &words).send().await.status, 202);
        let verified = shop.verify(&shop.letter(&person.email, 1).await.token()).await;
        assert_eq!(verified.status, 204, "{}", verified.text);
        let log_in = shop.post("/v1/sessions", &person.credentials()).header("User-Agent", evil);
        people.push((Pair::of(&log_in.send().await), words, evil));
    }
    for (pair, words, evil) in &people {
        let me = shop.as_of(pair, "GET", "/v1/users/me").send().await.ok(200);
        for field in ["email", "name", "address"] {
            assert_eq!(me[field], words[field]);
        }
        let sessions = shop.as_of(pair, "GET", "/v1/sessions").send().await.ok(200);
        assert_eq!(sessions["data"][0]["device"], **evil);
        let patch = json!({ "name": format!("{evil} II"), "address": words["address"] });
        let changed = shop.as_of(pair, "PATCH", "/v1/users/me").json(&patch).send().await.ok(200);
        assert_eq!(changed["name"], patch["name"]);
        let found = shop.admin("GET", &format!("/v1/admin/users?email={}", encoded(&words["email"])));
        assert_eq!(found.send().await.ok(200)["data"].as_array().unwrap().len(), 1);
    }

    let before = shop.get("/v1/products").send().await.ok(200)["data"].as_array().unwrap().len();
    let mut ordered = Value::Null;
    for evil in SQL {
        let words = json!({ "sku": evil, "name": evil, "description": format!("{evil}\n{evil}"), "image_url": "/a'--" });
        let made = shop.product(5, words.clone()).await;
        let product = format!("/v1/admin/products/{}", id(&made));
        for field in ["sku", "name", "description", "image_url"] {
            assert_eq!(made[field], words[field]);
        }
        let patch = shop.admin("PATCH", &product).header("If-Match", "*");
        let changed = patch.json(&json!({ "description": evil })).send().await.ok(200);
        assert_eq!(changed["description"], evil);
        let restock = shop.admin("POST", &format!("{product}/restock")).key("'--");
        restock.json(&json!({ "delta": 1, "reason": evil })).send().await.ok(200);
        let ledger = shop.admin("GET", &format!("{product}/ledger")).send().await.ok(200);
        assert_eq!(ledger["data"][1]["reason"], evil);
        let order = shop.order(7, &id(&made), 1).key("';drop/**/table/**/orders;--").send().await;
        // As a key it is a name like any other: it makes one order, and belongs to that.
        if ordered.is_null() {
            ordered = order.ok(201)["id"].clone();
        } else {
            assert_eq!(order.problem(422, "idempotency_key_reused")["order_id"], ordered);
        }
        // A search finds what begins so, and takes no letter for a pattern.
        let found = shop.get(&format!("/v1/products?q={}", encoded(&json!(evil)))).send().await.ok(200);
        assert_eq!(found["data"].as_array().unwrap().iter().map(id).collect::<Vec<_>>(), [id(&made)]);
    }
    for pattern in ["%", "_", "*", "?", "100%25_[", "' or 1=1 --"] {
        let q = encoded(&json!(pattern));
        let found = shop.get(&format!("/v1/products?q={q}&tag={q}")).send().await.ok(200);
        assert_eq!(found["data"], json!([]), "{pattern}");
    }

    // An id is a word of its kind before it is anything else.
    let (pair, ..) = &people[0];
    for evil in SQL {
        let evil = encoded(&json!(evil));
        for path in ["/v1/orders/", "/v1/products/"] {
            shop.as_of(pair, "GET", &format!("{path}{evil}")).send().await.problem(404, "not_found");
        }
        shop.as_of(pair, "DELETE", &format!("/v1/sessions/{evil}")).send().await.problem(404, "not_found");
        let suspend = format!("/v1/admin/users/{evil}/suspend");
        shop.admin("POST", &suspend).send().await.problem(404, "not_found");
        for list in ["/v1/products?cursor=", "/v1/products?limit="] {
            assert!(shop.get(&format!("{list}{evil}")).send().await.invalid().starts_with('?'));
        }
        for list in ["/v1/orders?status=", "/v1/orders?cursor="] {
            let told = shop.as_of(pair, "GET", &format!("{list}{evil}")).send().await;
            assert!(told.invalid().starts_with('?'));
        }
        let token = json!({ "token": SQL[0] });
        shop.post("/v1/users/verify", &token).send().await.problem(410, "link_expired");
        shop.try_refresh(SQL[0]).await.problem(401, "unauthenticated");
    }

    let shop = shop.reopen().await;
    for (pair, words, _) in &people {
        let me = shop.as_of(pair, "GET", "/v1/users/me").send().await.ok(200);
        assert_eq!((&me["email"], &me["role"]), (&words["email"], &json!("shopper")));
    }
    let after = shop.get("/v1/products").send().await.ok(200)["data"].as_array().unwrap().len();
    assert_eq!(after, before + SQL.len());
    let folder = shop.stop().await;
    let report = audit(folder.path()).await.unwrap();
    assert_eq!(report.differences, Vec::<String>::new());
}

/// Percent-encoded, all of it.
fn encoded(word: &Value) -> String {
    word.as_str().unwrap().bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// ASVS 15.3.3, OWASP API3: every body that the reference describes is refused with a field too many, at every depth; and where none is
/// described whatever is there is too much.
#[actix_web::test]
async fn no_door_takes_a_field_that_was_not_asked_for() {
    const ADDED: [&str; 11] = [
        "id",
        "price",
        "stock",
        "discount",
        "role",
        "state",
        "customer_id",
        "verified",
        "created_at",
        "is_admin",
        "version",
    ];
    let shop = Shop::open().await;
    let mina = shop.newcomer(1).await;
    let pair = shop.log_in(&mina).await;
    let product = shop.stocked(5).await;
    let document = shop.get("/openapi.json").send().await.ok(200);
    let (mut bodies, mut bare) = (0, 0);
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let body = &operation["requestBody"]["content"]["application/json"];
            let (example, schema) = (&body["example"], body["schema"]["$ref"].as_str().unwrap_or("#"));
            let known = document.pointer(&schema[1..]).unwrap()["properties"].clone();
            if path == "/v1/payments/webhook" {
                // Its shape is the provider's own, and nobody reads it before the signature is right.
                continue;
            }
            let is_admins = path.starts_with("/v1/admin");
            let suffix = "01h455vb4pex5vsknk084sn02q";
            let of_product = ["/admin/products", "/cart/", "/wishes/"].iter().any(|of| path.contains(of));
            let real = if of_product { product.clone() } else { format!("order_{suffix}") };
            let real = if path.contains("/sessions/") { format!("sess_{suffix}") } else { real };
            let hook = if path.contains("/deliveries/") { "whd" } else { "whe" };
            let real = if path.contains("/webhook") { format!("{hook}_{suffix}") } else { real };
            let real = if path.contains("/admin/users") { format!("user_{suffix}") } else { real };
            let real = if path.contains("/admin/compensations") { format!("pay_{suffix}") } else { real };
            let path = path.replace("{id}", &real).replace("{line}", "1").replace("{name}", "clearing");
            let ask = || {
                let ask = shop.ask(&method.to_uppercase(), &path).header("If-Match", "*").key("k");
                ask.bearer(&if is_admins { shop.token(0, Role::Admin) } else { pair.access.clone() })
            };
            if example.is_null() {
                // A door without a body takes an empty one, or none.
                if method != "get" {
                    let told = ask().json(&json!({ "state": "paid" })).send().await;
                    assert_eq!(told.invalid(), "/state", "{method} {path}");
                    let large = " ".repeat(BODY_BYTES_MAX + 1);
                    ask().body(large).send().await.problem(413, "payload_too_large");
                    bare += 1;
                }
                continue;
            }
            for place in places(example, String::new()) {
                // A product is made with a price and a stock.
                let own = |field: &&str| place.is_empty() && known.get(*field).is_some();
                for added in ADDED.into_iter().filter(|field| !own(field)) {
                    let mut body = example.clone();
                    body.pointer_mut(&place).unwrap()[added] = json!(1);
                    let told = ask().json(&body).send().await;
                    assert_eq!(told.invalid(), format!("{place}/{added}"), "{method} {path} {body}");
                }
                bodies += 1;
            }
        }
    }
    assert!(bodies >= 18 && bare >= 22, "{bodies} {bare}");
    // Nothing of it has been done: somebody is still logged in.
    let out = shop.as_of(&pair, "DELETE", "/v1/sessions/current").json(&json!({})).send().await;
    assert_eq!(out.status, 204, "{}", out.text);
    shop.close().await;
}

/// Pointers to every object in a value.
fn places(value: &Value, at: String) -> Vec<String> {
    let mut found = Vec::new();
    match value {
        Value::Object(map) => {
            let inside = map.iter().flat_map(|(name, value)| places(value, format!("{at}/{name}")));
            found.extend(inside);
            found.push(at);
        }
        Value::Array(list) => {
            found.extend(
                list.iter().enumerate().flat_map(|(nth, value)| places(value, format!("{at}/{nth}"))),
            );
        }
        _ => {}
    }
    found
}

/// ASVS 16.4.1: a stranger writes no line of ours, and draws on nobody's terminal.
#[actix_web::test]
async fn nobody_writes_a_line_into_the_log() {
    const FORGED: &str = "2026-01-01T00:00:00Z ERROR forged";
    let evil = format!("x\r\n{FORGED}\u{1b}[31m\u{9b}2J\u{8}\u{2028}");
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(folder.path(), &[("RUST_LOG", "trace")]).await;
    let person = Person::number(1);
    process.newcomer(&person).await;
    let pair = process.log_in(&person).await;
    let word = encoded(&json!(evil));
    for path in ["/v1/orders/", "/v1/nowhere/", "/v1/orders?status=", "/v1/products?q=", "/"] {
        process.as_of(&pair, "GET", &format!("{path}{word}")).send().await;
    }
    for field in ["email", "password", "name", "phone"] {
        let mut words = Person::number(2).words();
        words[field] = json!(evil);
        process.post("/v1/users", &words).send().await;
    }
    let unknown = json!({ "email": person.email, "password": person.password, evil.as_str(): 1 });
    assert!(process.post("/v1/sessions", &unknown).send().await.status.is_client_error());
    for body in [json!({ "token": evil }), json!({ "refresh_token": evil })] {
        for path in ["/v1/users/verify", "/v1/sessions/refresh"] {
            process.post(path, &body).send().await;
        }
    }
    // What a well-behaved client cannot say in a head.
    for head in [
        "X-Request-Id: a\x1b[31mb",
        "User-Agent: a\x1b[31mb",
        "Accept-Language: \x1b[31m",
        "Authorization: Bearer \x1b[31m",
    ] {
        let request = format!("GET /v1/users/me HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{head}\r\n\r\n");
        raw(&process.addr(), request.as_bytes()).await;
    }
    let broken = format!("GET /\x1b[31m HTTP/1.1\r\nHost: x\r\n{FORGED}\r\n\r\n");
    raw(&process.addr(), broken.as_bytes()).await;
    process.stop().await;

    let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
    assert!(log.contains("TRACE") && log.contains("has signed up"), "not much of a log:\n{log}");
    for line in log.lines() {
        assert!(!line.trim_start().starts_with(FORGED), "{line:?}");
        let odd = line.chars().find(|letter| letter.is_control() && *letter != '\t' || *letter == '\u{2028}');
        assert_eq!(odd, None, "{line:?}");
    }
}

/// Says something as it stands, and hears everything until the other side hangs up.
async fn raw(addr: &str, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut heard = Vec::new();
    // A connection that is reset has nothing more to say.
    let _ = stream.read_to_end(&mut heard).await;
    String::from_utf8_lossy(&heard).into_owned()
}

/// ASVS 4.2.1: what two readers could read differently is read by nobody, and the connection ends.
#[actix_web::test]
async fn a_request_with_two_ends_is_refused() {
    let shop = Shop::open().await;
    let addr = shop.app().addr().to_string();
    let smuggled = "GET /livez HTTP/1.1\r\nHost: x\r\nX-Request-Id: smuggled\r\n\r\n";
    let chunked = format!("0\r\n\r\n{smuggled}");
    for (name, head, body) in [
        ("CL.TE", "Content-Length: 6\r\nTransfer-Encoding: chunked", &chunked),
        ("TE.CL", "Transfer-Encoding: chunked\r\nContent-Length: 3", &chunked),
        ("two lengths", "Content-Length: 2\r\nContent-Length: 40", &format!("{{}}{smuggled}")),
        ("one length twice", "Content-Length: 2\r\nContent-Length: 2", &format!("{{}}{smuggled}")),
        ("a list of lengths", "Content-Length: 2, 2", &format!("{{}}{smuggled}")),
        ("a signed length", "Content-Length: +2", &format!("{{}}{smuggled}")),
        ("a space before the colon", "Content-Length : 2", &format!("{{}}{smuggled}")),
        ("two encodings", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", &chunked),
        ("another encoding", "Transfer-Encoding: xchunked", &chunked),
        ("an encoding behind another", "Transfer-Encoding: gzip, chunked", &chunked),
        ("a folded line", "Content-Length: 2\r\n Transfer-Encoding: chunked", &chunked),
    ] {
        let request = format!(
            "POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{head}\r\n\r\n{body}"
        );
        let heard = raw(&addr, request.as_bytes()).await;
        assert!(heard.starts_with("HTTP/1.1 400"), "{name}: {heard}");
        assert!(!heard.contains("smuggled") && heard.matches("HTTP/1.1").count() == 1, "{name}: {heard}");
    }
    shop.close().await;
}

/// The log-in of the first person of a test, packed in every way that HTTP has a name for, as base64: whoever
/// unpacks one opens a session. Made by Python's gzip and zlib, Node's brotli, and zstd, and unpacked again.
const PACKED: [(&str, &str); 4] = [
    (
        "gzip",
        "H4sIAAAAAAACAw3KQQqAQAgAwK+I51jYa6e+IqWwpLko0Ub095rzPMhGTXFGaweVTrGXuvAg68pldcMJO2VeHtufxM8A8cEJ\
         ojcIBVR8P3yJCgxFAAAA",
    ),
    (
        "deflate",
        "eNoNykEKgEAIAMCviOdY2GunviKlsKS5KNFG9Pea8zzIRk1xRmsHlU6xl7rwIOvKZXXDCTtlXh7bn8TPAPHBCaI3CAVUfD9B\
         +xez",
    ),
    (
        "br",
        "CyKAeyJlbWFpbCI6Im1pbmEucGFyay4xQGV4YW1wbGUuY29tIiwicGFzc3dvcmQiOiJmb3VyIGZveGVzIGZseSBmYXIgMSJ9Aw\
         ==",
    ),
    (
        "zstd",
        "KLUv/QBo9QEAUoQOEbA9vOrg0ETghNxYq+lImhKIlcW6/p3p97lkvw6y58HGsfheNwasWAmemmrpRATkuoVeR/HgdFo50wA=",
    ),
];

/// The same behind 64 KiB of blanks, by gzip: 164 bytes, and unpacked too large a body.
const BOMB: &str = "\
    H4sIAAAAAAACA+3KQQrCMBAAwK8sOUuhV09+JWgCxcaUFLEi/l0fMnOeCAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\
    AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAIj4pNLysqZzassjT1se92m+lCO3bS3Ttbd0Slve91cft3+q/Tmi9qPsUdd3\
    1DxiTt8faiXszEUAAQA=";

/// Packed bytes are bytes that are no JSON, whatever would come of them.
async fn nothing_is_unpacked(shop: &Shop) {
    let mina = shop.newcomer(1).await;
    let hashes = shop.app().users().hashes();
    for (encoding, packed) in PACKED.into_iter().chain([("identity, gzip", PACKED[0].1), ("gzip", BOMB)]) {
        let log_in = shop.ask("POST", "/v1/sessions").header("Content-Encoding", encoding);
        let told = log_in.body(BASE64_STANDARD.decode(packed).unwrap()).send().await;
        told.problem(400, "malformed_json");
    }
    assert_eq!(shop.app().users().hashes(), hashes, "nobody's password was looked at");
    shop.log_in(&mina).await;
}

/// A value is read as deep as its shape goes. What lies deeper is refused where it begins, at any depth.
async fn nothing_is_read_deeper_than_its_shape(shop: &Shop, jar: &str) {
    let order = |body: String| shop.by(1, "POST", "/v1/orders").body(body).send();
    for (open, close) in [("[", "]"), ("{\"items\":", "}"), ("{\"items\":[{\"product_id\":", "}]}")] {
        order(format!("{}1{}", open.repeat(17), close.repeat(17))).await.invalid();
    }
    let deep = |at: &str, levels: usize| {
        let mut body = paid_with(jar, 1, "tok_ok");
        let leaf = body.pointer_mut(at).unwrap();
        let word = format!("{}{leaf}{}", "[".repeat(levels), "]".repeat(levels));
        *leaf = json!("here");
        body.to_string().replace("\"here\"", &word)
    };
    let deepest = ["/items/0/product_id", "/items/0/quantity", "/payment/method/token"];
    for at in deepest {
        for levels in [1, 17, 10_000] {
            assert_eq!(order(deep(at, levels)).await.invalid(), at, "{levels} levels too deep");
        }
    }
    assert_eq!(shop.counters(jar).await[..3], [5, 0, 0]);
    order(deep(deepest[0], 0)).await.ok(201);
    assert_eq!(shop.counters(jar).await[..3], [4, 0, 1]);
}

/// OWASP API4, ASVS 4.2: nothing that a stranger sends costs more than we have set aside for it.
#[actix_web::test]
async fn what_is_too_much_is_refused() {
    let shop = Shop::open().await;
    let jar = shop.stocked(5).await;
    let order = || shop.by(1, "POST", "/v1/orders");
    let many = support::lines(&vec![(jar.as_str(), 1); 101]);
    assert_eq!(order().json(&many).send().await.invalid(), "/items");
    let ids = vec![jar.as_str(); 101].join(",");
    assert_eq!(shop.get(&format!("/v1/products?ids={ids}")).send().await.invalid(), "?ids");
    for limit in ["0", "101", "-1", "1e9", "4294967296"] {
        assert_eq!(shop.get(&format!("/v1/products?limit={limit}")).send().await.invalid(), "?limit");
    }
    let long = format!(
        "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Long: {}\r\n\r\n",
        "x".repeat(200_000)
    );
    let heard = raw(&shop.app().addr().to_string(), long.as_bytes()).await;
    assert!(heard.is_empty() || heard.starts_with("HTTP/1.1 431"), "{heard}");
    nothing_is_unpacked(&shop).await;
    nothing_is_read_deeper_than_its_shape(&shop, &jar).await;
    shop.close().await;
}

/// ASVS 4.2: who sends a letter a minute keeps no connection.
#[actix_web::test]
async fn who_does_not_finish_a_request_is_hung_up_on() {
    let shop = Shop::open().await;
    let addr = shop.app().addr().to_string();
    let heard = raw(&addr, b"GET /livez HTTP/1.1\r\nHost: ");
    let heard = tokio::time::timeout(Duration::from_secs(20), heard).await.expect("it hangs up by itself");
    assert!(!heard.starts_with("HTTP/1.1 200"), "{heard}");
    shop.close().await;
}

/// ASVS 4.2, 15.2.2: a body comes within ten seconds, or its connection is somebody else's.
#[actix_web::test]
async fn a_body_that_trickles_is_not_waited_for() {
    let shop = Shop::open().await;
    let mut stream = TcpStream::connect(shop.app().addr()).await.unwrap();
    let head = "POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 60\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut hear, mut say) = stream.into_split();
    let trickle = tokio::spawn(async move {
        // Until nobody listens any more; what was said before that is heard all the same.
        while say.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    });
    let mut heard = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(30), hear.read_to_end(&mut heard)).await;
    assert!(ended.is_ok(), "it is still listening");
    trickle.abort();
    let heard = String::from_utf8_lossy(&heard);
    assert!(heard.starts_with("HTTP/1.1 408") && heard.contains("request_timeout"), "{heard}");
    assert!(heard.to_lowercase().contains("\r\nconnection: close\r\n"), "{heard}");
    shop.close().await;
}

/// ASVS 16.5.1: our own failure is told as such, and found in the log by its id, once.
#[actix_web::test]
async fn an_internal_error_says_nothing_and_is_found_in_the_log() {
    use sqlx::{ConnectOptions, Connection};
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(folder.path(), &[]).await;
    let mina = Person::number(1);
    process.newcomer(&mina).await;
    let pair = process.log_in(&mina).await;
    // Somebody has written over what was sealed.
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(folder.path().join("data/people.db"));
    let mut connection = options.busy_timeout(Duration::from_secs(10)).connect().await.unwrap();
    sqlx::query("update users set personal = zeroblob(64)").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let told = process.as_of(&pair, "GET", "/v1/users/me").send().await;
    let problem = told.problem(500, "internal");
    for word in ["sql", "seal", "aes", "src/", ".rs", "panicked", "users", env!("CARGO_PKG_VERSION")] {
        let body = told.text.replace("/v1/users/me", "").to_lowercase();
        assert!(!body.contains(word), "{word}: {}", told.text);
    }
    let request = problem["request_id"].as_str().unwrap().to_owned();
    // Whoever handles it tells of it, and nobody on the way there. What is said later is said by then.
    process.as_of(&pair, "GET", "/v1/orders").send().await.ok(200);
    let log = process.log();
    let told = log.lines().filter(|line| line.contains("ERROR") && line.contains(&request));
    assert_eq!(told.count(), 1, "{request}\n{log}");
    process.stop().await;
}

/// OWASP API3: what something costs is for the server to say, and how many is a whole number within its bounds.
#[actix_web::test]
async fn prices_and_quantities_are_not_for_the_buyer_to_make_up() {
    let shop = Shop::open().await;
    let jar = shop.stocked(5_000).await;
    for (name, value) in [
        ("price", json!(1)),
        ("unit_price", json!({ "amount": 1, "currency": "KRW" })),
        ("currency", json!("USD")),
        ("discount", json!(99)),
        ("total", json!(0)),
    ] {
        for pointer in ["", "/items/0"] {
            let mut body = one_line(&jar, 1);
            body.pointer_mut(pointer).unwrap()[name] = value.clone();
            for door in ["/v1/orders", "/v1/orders/preview"] {
                let told = shop.by(1, "POST", door).json(&body).send().await;
                assert_eq!(told.invalid(), format!("{pointer}/{name}"));
            }
        }
    }
    for quantity in
        ["0", "-1", "1001", "2147483648", "1000000000", "1e9", "1.5", "1.0", "\"1\"", "null", "[1]"]
    {
        let body = format!(r#"{{"items":[{{"product_id":"{jar}","quantity":{quantity}}}]}}"#);
        for door in ["/v1/orders", "/v1/orders/preview"] {
            let told = shop.by(1, "POST", door).body(body.clone()).send().await;
            assert_eq!(told.invalid(), "/items/0/quantity", "{quantity}");
        }
    }
    let order = shop.order(1, &jar, 1_000).send().await.ok(201);
    assert_eq!(order["total"], json!({ "amount": 1_000_000, "currency": "KRW" }));
    shop.close().await;
}
