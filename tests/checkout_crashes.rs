//! A checkout survives whatever happens to the process: either the order stands and what was ordered has left the cart, or it does
//! not and everything is in it, also where nobody comes back to ask.
//!
//! Two kinds of crashes. A *cut* is exact: between the row that says that a checkout has begun, its order, and its end. A *kill* is
//! real: SIGKILL at moments spread over a request.

mod support;

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use stockade::clock::Clock;
use stockade::domain::user::Role;
use stockade::tokens::Tokens;
use support::film::{Film, copy};
use support::kill::{killed_after, moments, timed};
use support::{Process, Reply, SECRET, Shop, card, user};
use tempfile::TempDir;

const NOTHING: [u64; 0] = [];

async fn put(shop: &Shop, product: &str, quantity: u32) {
    let path = format!("/v1/cart/items/{product}");
    shop.by(1, "PUT", &path).json(&json!({ "quantity": quantity })).send().await.ok(200);
}

async fn check_out(shop: &Shop, key: &str, body: &Value) -> Reply {
    shop.by(1, "POST", "/v1/cart/checkout").key(key).json(body).send().await
}

fn units(cart: &Value) -> Vec<u64> {
    cart["lines"].as_array().unwrap().iter().map(|line| line["quantity"].as_u64().unwrap()).collect()
}

async fn in_cart(shop: &Shop) -> Vec<u64> {
    units(&shop.by(1, "GET", "/v1/cart").send().await.ok(200))
}

/// A checkout, filmed: two products, two and three units of them.
struct Scene {
    film: Film,
    before: TempDir,
    products: [String; 2],
    heard: Reply,
}

impl Scene {
    async fn of(body: &Value, prepare: impl AsyncFnOnce(&Shop)) -> Scene {
        let shop = Shop::open().await;
        let products = [shop.stocked(100).await, shop.stocked(100).await];
        put(&shop, &products[0], 2).await;
        put(&shop, &products[1], 3).await;
        // What the start looks after is done.
        shop.app().carts().clear_away().await.unwrap();
        prepare(&shop).await;
        let before = tempfile::tempdir().unwrap();
        copy(shop.folder(), before.path());
        let mut heard = None;
        let film = Film::of(&shop, async || heard = Some(check_out(&shop, "k", body).await)).await;
        shop.close().await;
        assert_eq!(film.len(), 2, "the row that says that it has begun, and its end");
        Scene { film, before, products, heard: heard.unwrap() }
    }

    /// The row is there, and so is everything else: only the end is missing.
    async fn unended(&self) -> Shop {
        open(self.film.people_behind(1, self.film.after.path())).await
    }

    /// The row is there, and nothing else.
    async fn begun(&self) -> Shop {
        open(self.film.people_behind(1, self.before.path())).await
    }
}

/// The shop's own look at its start may be at it, and whoever asks meanwhile does not wait for that.
async fn comes_to_hold(shop: &Shop, wanted: &[u64]) {
    let coming = async {
        while in_cart(shop).await != wanted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let came = tokio::time::timeout(Duration::from_secs(30), coming).await;
    assert!(came.is_ok(), "the cart holds {:?} and is to hold {wanted:?}", in_cart(shop).await);
}

/// As somebody finds it who was not there.
async fn open(image: TempDir) -> Shop {
    Shop::open_in(image).await
}

#[actix_web::test]
async fn between_the_row_and_the_order_nothing_was_ordered() {
    let scene = Scene::of(&json!({}), async |_| {}).await;
    scene.heard.ok(201);
    let shop = scene.begun().await;
    assert_eq!(in_cart(&shop).await, [2, 3]);
    assert_eq!(shop.by(1, "GET", "/v1/orders").send().await.ok(200)["data"], json!([]));
    // Who comes again orders for the first time.
    let placed = check_out(&shop, "k", &json!({})).await;
    assert!(!placed.replayed());
    placed.ok(201);
    assert_eq!(in_cart(&shop).await, NOTHING);
    shop.close().await;
    // With another key as well: the row that was left behind is nobody's.
    let shop = scene.begun().await;
    check_out(&shop, "another", &json!({})).await.ok(201);
    assert_eq!(in_cart(&shop).await, NOTHING);
    shop.close().await;
}

#[actix_web::test]
async fn between_the_order_and_the_end_it_stands() {
    let scene = Scene::of(&json!({}), async |_| {}).await;
    let order = support::id(&scene.heard.ok(201));
    // At the next touch of the cart, whichever it is: the quantities that were ordered leave, and no more.
    let shop = scene.unended().await;
    comes_to_hold(&shop, &NOTHING).await;
    let again = check_out(&shop, "k", &json!({})).await;
    assert!(again.replayed());
    assert_eq!(support::id(&again.ok(201)), order);
    shop.close().await;

    let shop = scene.unended().await;
    put(&shop, &scene.products[0], 5).await;
    comes_to_hold(&shop, &[5]).await;
    shop.close().await;

    // Who comes again hears of the order, and that ends it; whoever wants to order it once more finds nothing to order.
    let shop = scene.unended().await;
    assert!(check_out(&shop, "k", &json!({})).await.replayed());
    comes_to_hold(&shop, &NOTHING).await;
    shop.close().await;
    let shop = scene.unended().await;
    check_out(&shop, "another", &json!({})).await.problem(422, "validation_failed");
    shop.close().await;
    // Nobody comes: it is ended at the start.
    let shop = scene.unended().await;
    let tables = stockade::persistence::Tables::read_only(shop.folder());
    let clearing = async {
        while !tables.carts().checkouts_of(user(1)).await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), clearing).await.expect("nobody ends it");
    let folder = shop.stop().await;
    let tables = stockade::persistence::Tables::read_only(folder.path());
    assert!(tables.carts().of_user(user(1)).await.unwrap().lines.is_empty());
    assert!(tables.carts().checkouts_of(user(1)).await.unwrap().is_empty());
}

#[actix_web::test]
async fn a_payment_decides_whether_it_stands() {
    for (token, left) in [("tok_ok", vec![]), ("tok_declined", vec![2, 3])] {
        let body = json!({ "payment": card(token) });
        let scene = Scene::of(&body, async |_| {}).await;
        let shop = scene.unended().await;
        assert_eq!(in_cart(&shop).await, left, "{token}");
        let again = check_out(&shop, "k", &body).await;
        assert_eq!((again.replayed(), again.status), (true, scene.heard.status), "{token}");
        assert_eq!(in_cart(&shop).await, left, "{token}");
        shop.close().await;
    }
}

/// The order is held and its payment in doubt: nothing leaves the cart, and nothing of it is ordered twice, until somebody knows.
#[actix_web::test]
async fn what_is_not_decided_waits() {
    let body = json!({ "payment": card("tok_ok") });
    let scene = Scene::of(&body, async |shop| {
        shop.app().payments().provider().simulated().unwrap().set_unreachable(true);
    })
    .await;
    let order = support::id(&scene.heard.ok(202));
    let shop = scene.unended().await;
    // It may be found out at any moment: then there is nothing left to order.
    let cart = in_cart(&shop).await;
    let other = check_out(&shop, "another", &json!({})).await;
    if other.status == 409 {
        assert_eq!(cart, [2, 3]);
        assert_eq!(other.problem(409, "idempotency_in_progress")["order_id"], json!(order));
    } else {
        other.problem(422, "validation_failed");
    }
    shop.settle().await;
    assert_eq!(shop.order_of(1, &order).await["status"], "paid");
    assert_eq!(in_cart(&shop).await, NOTHING);
    shop.close().await;
}

// --- kills ----------------------------------------------------------------------------------------------------------------------

struct House {
    tokens: Tokens,
    clock: Clock,
}

impl House {
    fn token(&self, who: u64, role: Role) -> String {
        self.tokens.sign(user(who), role, 900, self.clock.now(), self.clock.chance()).unwrap()
    }
}

async fn product(process: &Process, admin: &str, number: u64) -> String {
    let body = json!({
        "sku": format!("KILL-{number}"), "name": "Jar", "price": { "amount": 10, "currency": "KRW" }, "stock": 1_000,
    });
    let made = process.ask("POST", "/v1/admin/products").bearer(admin).json(&body).send().await;
    support::id(&made.ok(201))
}

/// The same request until it is answered with more than *ask again*.
async fn until_certain(process: &Process, token: &str, body: &Value) -> Reply {
    for _ in 0..400 {
        let ask = process.ask("POST", "/v1/cart/checkout").bearer(token).key("k").json(body);
        let heard = ask.send().await;
        let code = serde_json::from_str::<Value>(&heard.text).unwrap()["code"].clone();
        if heard.status != 503 && code != "idempotency_in_progress" {
            return heard;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("it is never certain");
}

async fn survives_kills(folder: &Path, body: Value, kind: u64) {
    let clock = Clock::start();
    let house = House { tokens: Tokens::new(SECRET.as_bytes(), &[]).unwrap(), clock };
    let mut process = Process::start(folder, &[]).await;
    let admin = house.token(0, Role::Admin);
    let mut products = Vec::new();
    for number in 0..6 {
        products.push(product(&process, &admin, number).await);
    }
    let fill = async |process: &Process, token: &str| {
        for product in &products {
            let path = format!("/v1/cart/items/{product}");
            let ask = process.ask("PUT", &path).bearer(token).json(&json!({ "quantity": 2 }));
            ask.send().await.ok(200);
        }
    };
    let first = house.token(100 * kind, Role::Shopper);
    fill(&process, &first).await;
    let ask = process.ask("POST", "/v1/cart/checkout").bearer(&first).json(&body);
    let (_, takes) = timed(ask.send()).await;
    for (n, moment) in moments(takes) {
        let token = house.token(100 * kind + 1 + u64::from(n), Role::Shopper);
        fill(&process, &token).await;
        let ask = process.ask("POST", "/v1/cart/checkout").bearer(&token).key("k").json(&body);
        let heard = killed_after(&mut process, moment, ask).await;
        process = Process::start(folder, &[]).await;
        let cart = process.ask("GET", "/v1/cart").bearer(&token).send().await.ok(200);
        let whole = vec![2; 6];
        assert!(units(&cart) == whole || units(&cart).is_empty(), "all or nothing: {cart}");
        let certain = until_certain(&process, &token, &body).await;
        if let Some(heard) = heard.filter(|heard| heard.status != 503) {
            assert_eq!(heard.status, certain.status, "{} {}", heard.text, certain.text);
        }
        let cart = process.ask("GET", "/v1/cart").bearer(&token).send().await.ok(200);
        process.tables_follow(&token).await;
        let orders = process.ask("GET", "/v1/orders").bearer(&token).send().await.ok(200);
        let told = serde_json::from_str::<Value>(&certain.text).unwrap();
        let (stays, says) = match certain.status.as_u16() {
            201 if body["payment"].is_null() => (false, "pending_payment"),
            201 => (false, "paid"),
            402 => (true, "payment_failed"),
            // Whoever hears that nobody knows yet has a cart without what he ordered, or with it once it was declined.
            202 => (
                orders["data"][0]["status"] == "payment_failed" && !units(&cart).is_empty(),
                // What is told once more comes with the order as it is by then.
                ["pending_payment", "paid", "payment_failed"]
                    .into_iter()
                    .find(|status| told["status"] == *status)
                    .unwrap_or("none of these"),
            ),
            _ => panic!("{}", certain.text),
        };
        assert_eq!(units(&cart), if stays { whole } else { Vec::new() }, "{n} {}", certain.text);
        let order = if certain.status == 402 { &told["order"] } else { &told };
        assert_eq!(order["status"], says, "{n} {}", certain.text);
        assert_eq!(orders["data"].as_array().unwrap().len(), 1, "{orders}");
        assert_eq!(orders["data"][0]["lines"].as_array().unwrap().len(), 6);
    }
    process.stop().await;
}

#[actix_web::test]
async fn a_checkout_survives_a_kill_at_any_moment() {
    let folder = tempfile::tempdir().unwrap();
    survives_kills(folder.path(), json!({}), 1).await;
}

#[actix_web::test]
async fn a_checkout_that_pays_survives_a_kill_at_any_moment() {
    let folder = tempfile::tempdir().unwrap();
    survives_kills(folder.path(), json!({ "payment": card("tok_ok") }), 2).await;
}

#[actix_web::test]
async fn a_checkout_that_is_declined_survives_a_kill_at_any_moment() {
    let folder = tempfile::tempdir().unwrap();
    survives_kills(folder.path(), json!({ "payment": card("tok_declined") }), 3).await;
}
