//! The doors to products, the administrator's included, through the real application.

#[path = "products/cold.rs"]
mod cold;
#[path = "products/conditions.rs"]
mod conditions;
mod support;

use futures_util::future::join_all;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use support::{Reply, Shop, id, lines};

fn new_product(sku: &str) -> Value {
    json!({
        "sku": sku, "name": "달항아리", "description": "White porcelain,\nthrown by hand.",
        "price": { "amount": 19_900, "currency": "KRW" }, "stock": 7, "tags": ["new", "best"],
        "thumbnail_url": "/t.jpg", "image_url": "https://img.example/i.jpg",
        "sale": { "opens_at": "2020-01-01T09:00:00+09:00", "closes_at": null, "per_customer_limit": 2, "hold_seconds": 60 },
    })
}

#[actix_web::test]
async fn a_product_is_made_and_seen_by_everybody() {
    let shop = Shop::open().await;
    let made = shop.admin("POST", "/v1/admin/products").json(&new_product("JAR")).send().await;
    let product = made.ok(201);
    let path = format!("/v1/products/{}", id(&product));
    assert_eq!(made.header("Location"), Some(path.as_str()));
    let seen = shop.get(&path).send().await;
    assert_eq!(seen.header("ETag"), made.header("ETag"));
    assert_eq!(seen.header("Cache-Control"), Some("no-cache"));
    let mut seen = seen.ok(200);
    assert!(seen["stock"]["as_of"].as_str().is_some_and(|time| time.ends_with('Z')));
    seen["stock"].as_object_mut().unwrap().remove("as_of");
    assert_eq!(
        seen,
        json!({
            "id": product["id"], "sku": "JAR", "name": "달항아리", "description": "White porcelain,\nthrown by hand.",
            "price": { "amount": 19_900, "currency": "KRW" }, "thumbnail_url": "/t.jpg",
            "image_url": "https://img.example/i.jpg", "tags": ["new", "best"],
            "stock": { "available": 7, "sold_out": false },
            "sale": {
                "opens_at": "2020-01-01T00:00:00.000Z", "closes_at": null, "per_customer_limit": 2, "hold_seconds": 60,
                "state": "open",
            },
        })
    );
    for word in ["prod_01h455vb4pex5vsknk084sn02q", "order_01h455vb4pex5vsknk084sn02q", "x", "%ff"] {
        for tail in ["", "/stock", "/stock/stream"] {
            shop.get(&format!("/v1/products/{word}{tail}")).send().await.problem(404, "not_found");
        }
    }
    shop.close().await;
}

#[actix_web::test]
async fn a_retried_creation_finds_what_it_made() {
    let shop = Shop::open().await;
    let make = |sku: &str, key: &str| {
        shop.admin("POST", "/v1/admin/products").key(key).json(&new_product(sku)).send()
    };
    let first = make("JAR", "k").await;
    assert!(!first.replayed());
    let again = make("JAR", "k").await;
    assert!(again.replayed());
    assert_eq!(again.ok(201)["id"], first.ok(201)["id"]);
    make("CUP", "k").await.problem(422, "idempotency_key_reused");
    assert_eq!(make("JAR", "another").await.invalid(), "/sku");

    let race = join_all((0..10).map(|_| make("POT", "race"))).await;
    let made: Vec<String> =
        race.iter().filter(|reply| reply.status == 201).map(|reply| id(&reply.json())).collect();
    assert!(!made.is_empty() && made.iter().all(|other| *other == made[0]), "{race:?}");
    let listed = shop.get(&format!("/v1/products?ids={}", made[0])).send().await.ok(200);
    assert_eq!(listed["data"][0]["stock"]["available"], 7);

    let shop = shop.reopen().await;
    let again = shop.admin("POST", "/v1/admin/products").key("k").json(&new_product("JAR")).send().await;
    assert!(again.replayed());
    assert_eq!(again.ok(201)["id"], first.ok(201)["id"]);
    shop.close().await;
}

#[actix_web::test]
async fn wrong_products_are_refused_with_the_field() {
    let shop = Shop::open().await;
    let long = "x".repeat(20_000);
    for (field, value, pointer) in [
        ("sku", json!(""), "/sku"),
        ("sku", json!("two\nlines"), "/sku"),
        ("sku", json!("nul\u{0}"), "/sku"),
        ("name", json!(long), "/name"),
        ("name", json!(null), "/name"),
        ("description", json!(long), "/description"),
        ("price", json!({ "amount": -1, "currency": "KRW" }), "/price/amount"),
        ("price", json!({ "amount": i64::MAX, "currency": "KRW" }), "/price/amount"),
        ("price", json!({ "amount": 1, "currency": "krw" }), "/price/currency"),
        ("price", json!({ "amount": 1, "currency": "QQQ" }), "/price/currency"),
        ("price", json!(19_900), "/price"),
        ("stock", json!(-1), "/stock"),
        ("stock", json!(1_000_000_000_001_u64), "/stock"),
        ("tags", json!(["sale"]), "/tags/0"),
        ("tags", json!(["new", "New"]), "/tags/1"),
        ("tags", json!(["new", "new"]), "/tags/1"),
        ("image_url", json!("javascript:alert(1)"), "/image_url"),
        ("sale", json!({ "opens_at": "tomorrow" }), "/sale/opens_at"),
        (
            "sale",
            json!({ "opens_at": "2030-01-02T00:00:00Z", "closes_at": "2030-01-01T00:00:00Z" }),
            "/sale/closes_at",
        ),
        ("sale", json!({ "hold_seconds": 0 }), "/sale/hold_seconds"),
        ("sale", json!({ "hold_seconds": 4_294_968 }), "/sale/hold_seconds"),
        ("sale", json!({ "per_customer_limit": 0 }), "/sale/per_customer_limit"),
        ("version", json!(1), "/version"),
    ] {
        let mut body = new_product("JAR");
        body[field] = value;
        let told = shop.admin("POST", "/v1/admin/products").json(&body).send().await;
        assert_eq!(told.invalid(), pointer, "{field}: {}", body[field]);
    }
    assert_eq!(shop.get("/v1/products?q=달").send().await.ok(200)["data"], json!([]));
    shop.close().await;
}

#[actix_web::test]
async fn restocking_is_done_once_and_never_below_what_is_promised() {
    let shop = Shop::open().await;
    let jar = shop.stocked(5).await;
    shop.order(1, &jar, 4).send().await.ok(201);
    let door = format!("/v1/admin/products/{jar}/restock");
    let restock = |key: &'static str, delta: i64| {
        shop.admin("POST", &door).key(key).json(&json!({ "delta": delta, "reason": "delivery" })).send()
    };
    let keyless = shop.admin("POST", &door).json(&json!({ "delta": 1, "reason": "delivery" })).send().await;
    assert_eq!(keyless.invalid(), "Idempotency-Key");

    let first = restock("a", 10).await;
    assert!(!first.replayed());
    assert_eq!(
        first.ok(200),
        json!({ "product_id": jar, "sequence": 3, "on_hand": 15, "available": 11, "held": 4, "sold": 0 })
    );
    let again = restock("a", 10).await;
    assert!(again.replayed());
    assert_eq!(again.ok(200)["on_hand"], 15);
    restock("a", 11).await.problem(422, "idempotency_key_reused");
    let told = restock("b", -12).await.problem(409, "order_state_conflict");
    assert_eq!((&told["promised"], &told["would_be"]), (&json!(4), &json!(3)));
    assert_eq!(restock("c", -11).await.ok(200)["available"], 0);
    assert_eq!(restock("d", 0).await.invalid(), "/delta");
    assert_eq!(restock("e", i64::MIN).await.invalid(), "/delta");
    let endless = json!({ "delta": 1, "reason": "x".repeat(201) });
    assert_eq!(shop.admin("POST", &door).key("f").json(&endless).send().await.invalid(), "/reason");

    let race = join_all((0..20).map(|_| restock("race", 1))).await;
    assert!(race.iter().all(|reply| reply.status == 200), "{race:?}");
    assert_eq!(race.iter().filter(|reply| !reply.replayed()).count(), 1);
    assert_eq!(shop.counters(&jar).await, [1, 4, 0, 5]);
    shop.close().await;
}

#[actix_web::test]
async fn an_archived_product_leaves_the_lists_and_keeps_its_history() {
    let shop = Shop::open().await;
    let jar = id(&shop.product(5, json!({ "name": "Zzz jar" })).await);
    let order = shop.order(1, &jar, 1).send().await.ok(201);
    let archive = || shop.admin("DELETE", &format!("/v1/admin/products/{jar}")).send();
    for _ in 0..2 {
        let gone = archive().await;
        assert_eq!((gone.status.as_u16(), gone.text.as_str()), (204, ""));
    }
    assert_eq!(shop.get("/v1/products?q=zzz").send().await.ok(200)["data"], json!([]));
    assert_eq!(shop.get(&format!("/v1/products/{jar}")).send().await.ok(200)["sale"]["state"], "archived");
    let found = shop.by(1, "GET", &format!("/v1/orders/{}", id(&order))).send().await.ok(200);
    assert_eq!(found["lines"][0]["name"], "Zzz jar");
    shop.by(1, "POST", &format!("/v1/orders/{}/cancel", id(&order))).send().await.ok(200);
    let change = shop.admin("PATCH", &format!("/v1/admin/products/{jar}")).header("If-Match", "*");
    change.json(&json!({ "name": "Jar" })).send().await.problem(409, "sale_closed");
    shop.admin("DELETE", "/v1/admin/products/prod_01h455vb4pex5vsknk084sn02q")
        .send()
        .await
        .problem(404, "not_found");
    shop.close().await;
}

/// Every row of a list, read in pages of `limit`.
async fn all_pages(
    shop: &Shop,
    path: &str,
    limit: u32,
    get: impl Fn(&Shop, &str) -> support::Ask,
) -> Vec<Value> {
    let (mut rows, mut cursor) = (Vec::new(), String::new());
    loop {
        let reply: Reply = get(shop, &format!("{path}limit={limit}{cursor}")).send().await;
        let page = reply.ok(200);
        let data = page["data"].as_array().unwrap();
        assert!(data.len() <= limit as usize);
        rows.extend(data.iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return rows,
        }
    }
}

#[actix_web::test]
async fn lists_are_complete_and_narrowed_as_asked() {
    let shop = Shop::open().await;
    let mut made = Vec::new();
    for n in 0..23 {
        let tags = if n % 2 == 0 { json!(["best"]) } else { json!(["new"]) };
        let stock = if n % 3 == 0 { 0 } else { 5 };
        made.push(id(&shop
            .product(stock, json!({ "name": format!("Qjar {n:02} 100%_x"), "tags": tags }))
            .await));
    }
    let ids = |rows: Vec<Value>| rows.iter().map(id).collect::<Vec<_>>();
    let get = |shop: &Shop, path: &str| shop.get(path);
    // By name.
    assert_eq!(ids(all_pages(&shop, "/v1/products?q=QJAR&", 5, get).await), made);
    made.sort();
    made.reverse();
    let mut listed = ids(all_pages(&shop, "/v1/products?", 5, get).await);
    listed.retain(|id| made.contains(id));
    assert_eq!(listed, made);
    assert_eq!(ids(all_pages(&shop, "/v1/products?q=qjar&tag=best&", 5, get).await).len(), 12);
    assert_eq!(ids(all_pages(&shop, "/v1/products?q=qjar&tag=best&available=true&", 3, get).await).len(), 8);
    assert_eq!(ids(all_pages(&shop, "/v1/products?q=qjar%2004&", 5, get).await).len(), 1);
    for none in
        ["q=qjar%25", "q=_jar", "q=jar", "tag=ne", "tag=new,best", "tag=even", "ids=", "ids=x,y", "q=%00"]
    {
        assert_eq!(
            shop.get(&format!("/v1/products?{none}")).send().await.ok(200)["data"],
            json!([]),
            "{none}"
        );
    }
    let some = format!("/v1/products?ids={},nonsense,{},{}", made[3], made[1], made[3]);
    assert_eq!(
        ids(shop.get(&some).send().await.ok(200)["data"].as_array().unwrap().clone()),
        [made[1].clone(), made[3].clone()]
    );
    assert_eq!(all_pages(&shop, "/v1/products?q=qjar&available=true&", 4, get).await.len(), 15);
    for (query, pointer) in
        [("limit=-1", "?limit"), ("available=maybe", "?available"), ("cursor=prod_x", "?cursor")]
    {
        assert_eq!(shop.get(&format!("/v1/products?{query}")).send().await.invalid(), pointer);
    }
    let many = vec!["x"; 101].join(",");
    assert_eq!(shop.get(&format!("/v1/products?ids={many}")).send().await.invalid(), "?ids");
    shop.close().await;
}

#[actix_web::test]
async fn names_are_found_whatever_their_case_or_composition() {
    let shop = Shop::open().await;
    for name in ["Éclair, long", "ΣΑΣ jar", "달항아리 소", "Weiße Straße"] {
        shop.product(1, json!({ "name": name })).await;
    }
    // An é of two characters, a sigma in the middle of a word, Hangul letter by letter, and sharp s.
    for (q, found) in [
        ("e\u{301}CLAIR", "Éclair, long"),
        ("σα", "ΣΑΣ jar"),
        ("ΣΑΣ", "ΣΑΣ jar"),
        ("\u{1103}\u{1161}\u{11af}항", "달항아리 소"),
        ("WEISSE S", "Weiße Straße"),
    ] {
        let q_encoded: String = q.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let listed = shop.get(&format!("/v1/products?q={q_encoded}")).send().await.ok(200);
        assert_eq!(listed["data"][0]["name"], found, "{q}");
        assert_eq!(listed["next_cursor"], Value::Null);
    }
    shop.close().await;
}

#[actix_web::test]
async fn what_is_sold_out_says_so_by_itself() {
    let shop = Shop::open().await;
    let jar = shop.stocked(2).await;
    let page = async || shop.get(&format!("/v1/products/{jar}")).send().await.ok(200)["stock"].clone();
    let listed = async || {
        let left = shop.get(&format!("/v1/products?ids={jar}&available=true")).send().await.ok(200);
        let newest = shop.get("/v1/products?available=true&limit=1").send().await.ok(200);
        let in_both = newest["data"][0]["id"] == json!(jar);
        assert_eq!(left["data"].as_array().unwrap().len() == 1, in_both);
        in_both
    };
    assert!(page().await["sold_out"] == false && listed().await);
    let order = id(&shop.order(1, &jar, 2).send().await.ok(201));
    let sold_out = page().await;
    assert!(sold_out["sold_out"] == true && sold_out["available"] == 0 && !listed().await);
    shop.by(1, "POST", &format!("/v1/orders/{order}/cancel")).send().await.ok(200);
    assert!(page().await["sold_out"] == false && listed().await);
    shop.close().await;
}

#[actix_web::test]
async fn two_changes_at_once_both_stand() {
    let shop = Shop::open().await;
    let jar = shop.stocked(5).await;
    let door = format!("/v1/admin/products/{jar}");
    let change = |body: Value| shop.admin("PATCH", &door).header("If-Match", "*").json(&body).send();
    for round in 1..=20 {
        let price = change(json!({ "price": { "amount": 1_000 + round, "currency": "KRW" } }));
        let limit = change(json!({ "sale": { "per_customer_limit": round } }));
        let name = change(json!({ "name": format!("Jar {round}") }));
        for told in join_all([price, limit, name]).await {
            told.ok(200);
        }
        let seen = shop.get(&format!("/v1/products/{jar}")).send().await.ok(200);
        assert_eq!(seen["price"]["amount"], 1_000 + round);
        assert_eq!(seen["sale"]["per_customer_limit"], round);
        assert_eq!(seen["name"], format!("Jar {round}"));
    }
    shop.close().await;
}

#[actix_web::test]
async fn a_price_change_touches_no_order_that_stands() {
    let shop = Shop::open().await;
    let jar = shop.stocked(5).await;
    let order = shop.order(1, &jar, 2).send().await.ok(201);
    let change = shop.admin("PATCH", &format!("/v1/admin/products/{jar}")).header("If-Match", "*");
    change.json(&json!({ "price": { "amount": 7_777, "currency": "KRW" } })).send().await.ok(200);
    let path = format!("/v1/orders/{}", id(&order));
    let found = shop.by(1, "GET", &path).send().await.ok(200);
    assert_eq!(
        (&found["total"]["amount"], &found["lines"][0]["unit_price"]["amount"]),
        (&json!(2_000), &json!(1_000))
    );
    let pay = shop.by(1, "POST", &format!("{path}/payment")).json(&support::card("tok_ok")).send().await;
    let paid = pay.ok(200);
    assert_eq!(
        (&paid["total"]["amount"], &paid["payment"]["amount"]["amount"]),
        (&json!(2_000), &json!(2_000))
    );
    let newer = shop.order(2, &jar, 1).send().await.ok(201);
    assert_eq!(newer["total"]["amount"], 7_777);
    // A page asked for before is the new one at once, as are lists.
    let listed = shop.get(&format!("/v1/products?ids={jar}")).send().await.ok(200);
    assert_eq!(listed["data"][0]["price"]["amount"], 7_777);
    shop.close().await;
}

#[actix_web::test]
async fn a_list_that_has_not_changed_is_not_sent_again() {
    let shop = Shop::open().await;
    let jar = shop.stocked(5).await;
    // What was counted a moment ago is written down by the flush, once.
    shop.tables_follow().await;
    let path = "/v1/products?limit=2";
    let etag = shop.get(path).send().await.header("ETag").unwrap().to_owned();
    let again = || shop.get(path).header("If-None-Match", &etag).send();
    let unchanged = again().await;
    assert_eq!((unchanged.status.as_u16(), unchanged.text.as_str()), (304, ""));
    shop.order(1, &jar, 1).send().await.ok(201);
    assert_eq!(again().await.status, 200);
    shop.close().await;
}

/// With the table gone, whoever reads it fails, and what is hot does not notice.
#[actix_web::test]
async fn what_is_hot_is_answered_from_memory() {
    let shop = Shop::open().await;
    let jar = id(&shop.product(5, json!({ "name": "Zzz jar" })).await);
    let (page, list) = (format!("/v1/products/{jar}"), "/v1/products?q=zzz");
    let before = (shop.get(&page).send().await.ok(200), shop.get(list).send().await.ok(200));
    let file = shop.folder().join("shop.db");
    let mut tables = SqliteConnectOptions::new().filename(file).connect().await.unwrap();
    sqlx::query("alter table products rename to products_elsewhere").execute(&mut tables).await.unwrap();
    shop.get("/v1/products?q=other").send().await.problem(503, "owner_unavailable");
    for _ in 0..50 {
        assert_eq!(shop.get(&page).send().await.ok(200), before.0);
        assert_eq!(shop.get(list).send().await.ok(200), before.1);
    }
    // Its stock is live all the same.
    shop.order(1, &jar, 1).send().await.ok(201);
    assert_eq!(shop.get(&page).send().await.ok(200)["stock"]["available"], 4);
    assert_eq!(shop.get(list).send().await.ok(200)["data"][0]["stock"]["available"], 4);
    sqlx::query("alter table products_elsewhere rename to products").execute(&mut tables).await.unwrap();
    tables.close().await.unwrap();
    shop.close().await;
}

/// The state of a sale changes by time alone, without an event.
#[actix_web::test]
async fn a_kept_page_follows_the_clock() {
    let shop = Shop::open().await;
    let opens = shop.clock.now().plus(3_600_000);
    let opens = jiff::Timestamp::from_millisecond(opens.0).unwrap().to_string();
    let jar = id(&shop.product(5, json!({ "sale": { "opens_at": opens } })).await);
    let page = async || shop.get(&format!("/v1/products/{jar}")).send().await;
    let before = page().await;
    assert_eq!(before.ok(200)["sale"]["state"], "not_open");
    shop.clock.advance(3_600_000);
    let opened = async {
        loop {
            let page = page().await;
            if page.ok(200)["sale"]["state"] == "open" {
                return page;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let after = tokio::time::timeout(std::time::Duration::from_secs(20), opened).await.unwrap();
    assert_ne!(after.header("ETag"), before.header("ETag"));
    shop.close().await;
}

/// A small form of the bench's listing: every product that was there is listed once, whatever comes and goes meanwhile.
#[actix_web::test]
async fn a_list_is_complete_while_products_are_added() {
    const MANY: u64 = 5_000;
    let folder = tempfile::tempdir().unwrap();
    let config = stockade::config::Config::development(folder.path());
    let plan = stockade::seed::Plan { products: MANY, stock: 1, hold_ms: None, per_customer_limit: None };
    stockade::seed::fill(&config, &stockade::clock::Clock::start(), &plan).await.unwrap();
    let shop = Shop::open_in(folder).await;
    for path in ["/v1/products?", "/v1/products?available=true&", "/v1/products?q=SEEDED&"] {
        let added = std::cell::Cell::new(0);
        let listed = std::cell::Cell::new(false);
        let adding = async {
            while !listed.get() {
                shop.product(1, json!({ "name": format!("Seeded in between {}", added.get()) })).await;
                added.set(added.get() + 1);
            }
        };
        let listing = async {
            let rows = all_pages(&shop, path, 100, |shop, path| shop.get(path)).await;
            listed.set(true);
            rows
        };
        let (rows, ()) = futures_util::future::join(listing, adding).await;
        let mut ids: Vec<String> = rows.iter().map(id).collect();
        let all = ids.len();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), all, "{path}: some twice");
        let seeded = rows.iter().filter(|row| row["name"].as_str().unwrap().starts_with("Seeded product"));
        assert_eq!(seeded.count() as u64, MANY, "{path}");
        assert!(added.get() > 0);
    }
    shop.close().await;
}

#[actix_web::test]
async fn the_ledger_tells_every_movement_and_its_sums_are_right() {
    let shop = Shop::open().await;
    let (jar, cup) = (shop.stocked(20).await, shop.stocked(1).await);
    let mut orders = Vec::new();
    for who in 0..10 {
        orders.push(id(&shop.order(who, &jar, 1).send().await.ok(201)));
    }
    for (who, order) in (0..5).zip(&orders) {
        shop.by(who, "POST", &format!("/v1/orders/{order}/cancel")).send().await.ok(200);
    }
    let restock = json!({ "delta": -3, "reason": "broken in the store" });
    shop.admin("POST", &format!("/v1/admin/products/{jar}/restock"))
        .key("r")
        .json(&restock)
        .send()
        .await
        .ok(200);
    shop.by(11, "POST", "/v1/orders").json(&lines(&[(&jar, 2), (&cup, 1)])).send().await.ok(201);
    shop.admin("POST", &format!("/v1/admin/products/{jar}/pause")).send().await.ok(200);

    let door = format!("/v1/admin/products/{jar}/ledger?");
    let admin = |shop: &Shop, path: &str| shop.admin("GET", path);
    let rows = all_pages(&shop, &door, 4, admin).await;
    let sequences: Vec<u64> = rows.iter().map(|row| row["sequence"].as_u64().unwrap()).collect();
    assert_eq!(sequences, (1..=rows.len() as u64).collect::<Vec<_>>());
    for row in &rows {
        let n = |name: &str| row[name].as_u64().unwrap();
        assert_eq!(n("on_hand"), n("available") + n("held") + n("sold"), "{row}");
    }
    assert_eq!(
        (&rows[0]["kind"], &rows[0]["quantity"], &rows[0]["on_hand"]),
        (&json!("created"), &json!(20), &json!(20))
    );
    assert_eq!(
        (&rows[1]["kind"], &rows[1]["order_id"], &rows[1]["held"]),
        (&json!("held"), &json!(orders[0]), &json!(1))
    );
    assert_eq!(
        (&rows[11]["kind"], &rows[11]["cause"], &rows[11]["held"]),
        (&json!("released"), &json!("cancelled"), &json!(9))
    );
    let restocked = &rows[16];
    assert_eq!(
        (&restocked["reason"], &restocked["quantity"], &restocked["on_hand"]),
        (&json!("broken in the store"), &json!(-3), &json!(17))
    );
    assert_eq!(rows.last().unwrap()["kind"], "paused");
    let [available, held, sold, sequence] = shop.counters(&jar).await;
    let last = rows.last().unwrap();
    assert_eq!(
        [available, held, sold, sequence].map(|n| json!(n)),
        ["available", "held", "sold", "sequence"].map(|n| last[n].clone())
    );

    let tail = shop.admin("GET", &format!("{door}from=12&limit=2")).send().await.ok(200);
    assert_eq!(tail["data"].as_array().unwrap()[..], rows[11..13]);
    assert_eq!(tail["next_cursor"], "14");
    let beyond = shop.admin("GET", &format!("{door}from=1000")).send().await.ok(200);
    assert_eq!(beyond, json!({ "data": [], "next_cursor": null }));
    for from in ["0", "-1", "x", "99999999999999999999"] {
        assert_eq!(shop.admin("GET", &format!("{door}from={from}")).send().await.invalid(), "?from");
    }
    shop.admin("GET", "/v1/admin/products/prod_01h455vb4pex5vsknk084sn02q/ledger")
        .send()
        .await
        .problem(404, "not_found");
    shop.close().await;
}
