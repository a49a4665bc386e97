//! Who may come in by which door, and whose things they find behind it.

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use stockade::domain::user::Role;
use stockade::http::ROUTES;
use support::{Shop, id, one_line, user};

const MINUTE: i64 = 60_000;

/// Who passes a door. Everybody else is told 401 without a good token, and 403 with one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum For {
    Anybody,
    SignedIn,
    /// Signed in, and not merely still so.
    LoggedInJustNow,
    Shoppers,
    Admins,
    /// Administrators, and not such as are merely still logged in.
    AdminsJustNow,
}
use For::{Admins, AdminsJustNow, Anybody, LoggedInJustNow, Shoppers, SignedIn};

/// What we expect, written down once more and by hand: a door that is not in here, or no longer there, fails the test.
#[rustfmt::skip]
const EXPECTED: &[(&str, &str, For)] = &[
    ("POST",   "/v1/orders",                      Shoppers),
    ("GET",    "/v1/orders",                      Shoppers),
    ("POST",   "/v1/orders/preview",              Shoppers),
    ("GET",    "/v1/orders/{id}",                 Shoppers),
    ("POST",   "/v1/orders/{id}/payment",         Shoppers),
    ("POST",   "/v1/orders/{id}/cancel",          Shoppers),
    ("POST",   "/v1/orders/{id}/lines/{line}/cancel", Shoppers),
    ("POST",   "/v1/orders/{id}/lines/{line}/return", Shoppers),
    ("POST",   "/v1/payments/webhook",            Anybody),
    ("GET",    "/v1/products",                    Anybody),
    ("GET",    "/v1/products/{id}",               Anybody),
    ("GET",    "/v1/products/{id}/stock",         Anybody),
    ("GET",    "/v1/products/{id}/stock/stream",  Anybody),
    ("GET",    "/v1/wishes",                      Shoppers),
    ("PUT",    "/v1/wishes/{id}",                 Shoppers),
    ("DELETE", "/v1/wishes/{id}",                 Shoppers),
    ("GET",    "/v1/cart",                        Shoppers),
    ("DELETE", "/v1/cart",                        Shoppers),
    ("POST",   "/v1/cart/items",                  Shoppers),
    ("PUT",    "/v1/cart/items/{id}",             Shoppers),
    ("DELETE", "/v1/cart/items/{id}",             Shoppers),
    ("POST",   "/v1/cart/checkout",               Shoppers),
    ("POST",   "/v1/users",                       Anybody),
    ("POST",   "/v1/users/verify",                Anybody),
    ("POST",   "/v1/users/verify/resend",         Anybody),
    ("GET",    "/v1/users/me",                    SignedIn),
    ("PATCH",  "/v1/users/me",                    SignedIn),
    ("DELETE", "/v1/users/me",                    SignedIn),
    ("PUT",    "/v1/users/me/password",           SignedIn),
    ("POST",   "/v1/users/me/email",              SignedIn),
    ("GET",    "/v1/users/me/export",             LoggedInJustNow),
    ("POST",   "/v1/password-resets",             Anybody),
    ("PUT",    "/v1/password-resets",             Anybody),
    ("POST",   "/v1/sessions",                    Anybody),
    ("GET",    "/v1/sessions",                    SignedIn),
    ("DELETE", "/v1/sessions",                    SignedIn),
    ("POST",   "/v1/sessions/refresh",            Anybody),
    ("DELETE", "/v1/sessions/current",            SignedIn),
    ("DELETE", "/v1/sessions/{id}",               SignedIn),
    ("GET",    "/verify",                         Anybody),
    ("GET",    "/reset",                          Anybody),
    ("GET",    "/link.js",                        Anybody),
    ("GET",    "/link.css",                       Anybody),
    ("GET",    "/v1/admin/users",                 Admins),
    ("GET",    "/v1/admin/orders",                Admins),
    ("GET",    "/v1/admin/products",              Admins),
    ("POST",   "/v1/admin/users/{id}/suspend",    Admins),
    ("POST",   "/v1/admin/users/{id}/reinstate",  Admins),
    ("POST",   "/v1/admin/orders/{id}/refunds",   AdminsJustNow),
    ("GET",    "/v1/admin/orders/{id}/refunds",   Admins),
    ("GET",    "/v1/admin/compensations",         Admins),
    ("POST",   "/v1/admin/compensations/{id}/retry",      AdminsJustNow),
    ("POST",   "/v1/admin/compensations/{id}/accept",     AdminsJustNow),
    ("POST",   "/v1/admin/compensations/{id}/give-back",  AdminsJustNow),
    ("POST",   "/v1/admin/compensations/{id}/settle",     AdminsJustNow),
    ("POST",   "/v1/admin/products",              AdminsJustNow),
    ("PATCH",  "/v1/admin/products/{id}",         Admins),
    ("DELETE", "/v1/admin/products/{id}",         Admins),
    ("POST",   "/v1/admin/products/{id}/restock", AdminsJustNow),
    ("POST",   "/v1/admin/products/{id}/pause",   Admins),
    ("POST",   "/v1/admin/products/{id}/resume",  Admins),
    ("GET",    "/v1/admin/products/{id}/ledger",  Admins),
    ("GET",    "/v1/admin/webhook-endpoints",     Admins),
    ("POST",   "/v1/admin/webhook-endpoints",     Admins),
    ("PATCH",  "/v1/admin/webhook-endpoints/{id}", Admins),
    ("DELETE", "/v1/admin/webhook-endpoints/{id}", Admins),
    ("POST",   "/v1/admin/webhook-endpoints/{id}/rotate", Admins),
    ("GET",    "/v1/admin/webhook-endpoints/{id}/deliveries", Admins),
    ("POST",   "/v1/admin/webhook-endpoints/deliveries/{id}/replay", Admins),
    ("GET",    "/v1/admin/jobs",                  Admins),
    ("POST",   "/v1/admin/jobs/{name}/run",       Admins),
    ("GET",    "/v1/admin/nodes",                 Admins),
    ("GET",    "/livez",                          Anybody),
    ("GET",    "/readyz",                         Anybody),
    ("GET",    "/metrics",                        Anybody),
    ("GET",    "/openapi.json",                   Anybody),
    ("GET",    "/docs",                           Anybody),
    ("GET",    "/docs/{file:.*}",                 Anybody),
];

const SUFFIX: &str = "01h455vb4pex5vsknk084sn02q";

/// What kind of id a path takes.
fn prefix(path: &str) -> &'static str {
    let kinds = [
        ("/v1/orders", "order"),
        ("/v1/sessions", "sess"),
        ("/v1/admin/users", "user"),
        ("/v1/admin/webhook-endpoints/deliveries", "whd"),
        ("/v1/admin/webhook-endpoints", "whe"),
        ("/v1/admin/orders", "order"),
        ("/v1/admin/compensations", "pay"),
        ("", "prod"),
    ];
    kinds.into_iter().find(|(start, _)| path.starts_with(start)).unwrap().1
}

fn filled(path: &str) -> String {
    path.replace("{id}", &format!("{}_{SUFFIX}", prefix(path)))
        .replace("{name}", "deliveries")
        .replace("{line}", "1")
        .replace("{file:.*}", "index.html")
}

#[test]
fn every_route_is_in_the_expected_table_and_every_row_is_a_route() {
    let mut routes: Vec<_> = ROUTES.iter().map(|route| (route.method, route.path)).collect();
    let mut expected: Vec<_> = EXPECTED.iter().map(|(method, path, _)| (*method, *path)).collect();
    routes.sort_unstable();
    expected.sort_unstable();
    assert_eq!(routes, expected);
}

/// ASVS 8.2.1, OWASP API5.
#[actix_web::test]
async fn every_door_lets_in_whom_the_table_says() {
    let shop = Shop::open_with(|config| config.people.admin_login = Some(Duration::from_secs(15 * 60))).await;
    let suspended = shop.newcomer(1).await;
    let pair = shop.log_in(&suspended).await;
    let path = format!("/v1/admin/users/{}/suspend", shop.id_of(&pair).await);
    assert_eq!(shop.admin("POST", &path).send().await.status, 204);

    for (number, (method, path, who)) in (100..).zip(EXPECTED) {
        // Somebody new for each door: behind some of them one is logged out.
        let (shopper, admin) = (shop.token(number, Role::Shopper), shop.token(1_000 + number, Role::Admin));
        let long_ago = [
            (2_000, 16, Role::Shopper),
            (3_000, 14, Role::Shopper),
            (4_000, 16, Role::Admin),
            (5_000, 14, Role::Admin),
        ];
        let [still, just, still_admin, just_admin] = long_ago.map(|(more, minutes, role)| {
            let (who, then) = (user(more + number), shop.clock.now().plus(-minutes * MINUTE));
            shop.app().tokens().sign(who, role, 3_600, then, shop.clock.chance()).unwrap()
        });
        let ask = || shop.ask(method, &filled(path));
        let heard = [
            ask().send().await.status.as_u16(),
            ask().bearer(&shopper).send().await.status.as_u16(),
            ask().bearer(&admin).send().await.status.as_u16(),
            ask().bearer(&pair.access).send().await.status.as_u16(),
            ask().bearer(&still).send().await.status.as_u16(),
            ask().bearer(&just).send().await.status.as_u16(),
            ask().bearer(&still_admin).send().await.status.as_u16(),
            ask().bearer(&just_admin).send().await.status.as_u16(),
        ];
        // The door itself has nothing against it, whatever it says to an empty request.
        let passed = heard.map(|status| if [401, 403, 405, 500].contains(&status) { status } else { 0 });
        let expected = match who {
            Anybody => [0, 0, 0, 0, 0, 0, 0, 0],
            SignedIn => [401, 0, 0, 401, 0, 0, 0, 0],
            LoggedInJustNow => [401, 0, 0, 401, 403, 0, 403, 0],
            Shoppers => [401, 0, 403, 401, 0, 0, 403, 403],
            Admins => [401, 403, 0, 401, 403, 403, 0, 0],
            AdminsJustNow => [401, 403, 0, 401, 403, 403, 403, 0],
        };
        assert_eq!(passed, expected, "{method} {path} {heard:?}");
    }
    shop.close().await;
}

/// ASVS 7.5.3: who finds an administrator's desk open does not sell for less, move stock or give money away.
#[actix_web::test]
async fn an_administrator_logs_in_again_to_move_stock_prices_or_money() {
    let shop = Shop::open_with(|config| config.people.admin_login = Some(Duration::from_secs(15 * 60))).await;
    let product = shop.stocked(5).await;
    let path = format!("/v1/admin/products/{product}");
    let order = id(&shop.buy(1, &product, 1, "tok_ok").send().await.ok(201));
    let token = |minutes: i64, life_s| {
        let then = shop.clock.now().plus(-minutes * MINUTE);
        shop.app().tokens().sign(user(7), Role::Admin, life_s, then, shop.clock.chance()).unwrap()
    };
    let (old, new) = (token(16, 3_600), token(0, 900));
    let patch = |body: Value, token: &str| {
        shop.ask("PATCH", &path).header("If-Match", "*").bearer(token).json(&body).send()
    };
    let dearer = || json!({ "price": { "amount": 1_001, "currency": "KRW" } });
    let restock = |token: &str| {
        let body = json!({ "delta": 1, "reason": "found" });
        shop.ask("POST", &format!("{path}/restock")).key("again").bearer(token).json(&body).send()
    };
    let refund = |token: &str| {
        let body = json!({ "restock": "leave", "reason": "broken" });
        shop.ask("POST", &format!("/v1/admin/orders/{order}/refunds"))
            .key("r")
            .bearer(token)
            .json(&body)
            .send()
    };
    for refused in [patch(dearer(), &old).await, restock(&old).await, refund(&old).await] {
        let told = refused.problem(403, "reauthentication_required");
        assert_eq!(told["max_age_seconds"], 900);
    }
    assert_eq!(shop.counters(&product).await, [4, 0, 1, 4], "nothing happened");
    // The words of a product, and its price as it is, are not worth a log-in.
    patch(json!({ "name": "Jar", "price": { "amount": 1_000, "currency": "KRW" } }), &old).await.ok(200);
    patch(dearer(), &new).await.ok(200);
    restock(&new).await.ok(200);
    refund(&new).await.ok(201);
    // What it comes to is heard again by the same request, with a log-in as young.
    restock(&old).await.problem(403, "reauthentication_required");
    shop.close().await;

    let shop = Shop::open().await;
    let product = shop.stocked(5).await;
    let then = shop.clock.now().plus(-11 * 60 * MINUTE);
    let token =
        shop.app().tokens().sign(user(7), Role::Admin, 12 * 3_600, then, shop.clock.chance()).unwrap();
    let body = json!({ "delta": 1, "reason": "found" });
    let path = format!("/v1/admin/products/{product}/restock");
    shop.ask("POST", &path).key("k").bearer(&token).json(&body).send().await.ok(200);
    shop.close().await;
}

/// ASVS 8.2.2, OWASP API1.
#[actix_web::test]
async fn somebody_elses_id_is_answered_like_nobodys() {
    let shop = Shop::open().await;
    let product = shop.stocked(100).await;
    let (mine, other) = (shop.newcomer(1).await, shop.newcomer(2).await);
    let (mine, theirs) = (shop.log_in(&mine).await, shop.log_in(&other).await);
    let mut orders = Vec::new();
    for _ in 0..50 {
        let order = shop.as_of(&theirs, "POST", "/v1/orders").json(&one_line(&product, 1)).send().await;
        orders.push(id(&order.ok(201)));
    }
    // As many as one person may have, with the one that has ordered.
    for _ in 1..50 {
        shop.log_in(&other).await;
    }
    let all_of_theirs = async || {
        let listed = shop.as_of(&theirs, "GET", "/v1/sessions?limit=100").send().await.ok(200);
        listed["data"].as_array().unwrap().iter().map(id).collect::<Vec<_>>()
    };
    let sessions = all_of_theirs().await;
    assert_eq!(sessions.len(), 50);

    // The ids of products are everybody's: a wish and a line of a cart are found by them among one's own.
    let of_somebody = |path: &str| path.contains("{id}") && prefix(path) != "prod";
    let takes_ids =
        EXPECTED.iter().filter(|(_, path, who)| of_somebody(path) && [Shoppers, SignedIn].contains(who));
    let mut doors = 0;
    for (method, path, _) in takes_ids {
        doors += 1;
        let ids = if path.starts_with("/v1/orders") { &orders } else { &sessions };
        let ask = |path: &str| {
            let ask = shop.as_of(&mine, method, path);
            // This one is read before anybody looks for the order.
            match path {
                _ if path.ends_with("/payment") => {
                    ask.json(&json!({ "method": { "type": "card", "token": "tok_ok" } }))
                }
                _ if path.ends_with("/return") => ask.json(&json!({ "reason": "too small" })),
                _ => ask,
            }
        };
        let nobodys = ask(&filled(path)).send().await.problem(404, "not_found");
        for id in ids {
            let told = ask(&path.replace("{id}", id).replace("{line}", "1")).send().await;
            let told = told.problem(404, "not_found");
            assert_eq!(without_place(told), without_place(nobodys.clone()), "{method} {path} {id}");
        }
    }
    assert_eq!(doors, 6);
    for order in &orders {
        let order = shop.as_of(&theirs, "GET", &format!("/v1/orders/{order}")).send().await.ok(200);
        assert_eq!(order["status"], "pending_payment");
    }
    assert_eq!(all_of_theirs().await, sessions);
    assert!(shop.admits(&theirs.access).await);
    shop.close().await;
}

/// A problem without what the request itself said.
fn without_place(mut problem: Value) -> Value {
    for member in ["instance", "request_id"] {
        problem.as_object_mut().unwrap().remove(member);
    }
    problem
}

/// ASVS 4.1.3, 15.3.4.
#[actix_web::test]
async fn nobody_is_somebody_by_saying_so_in_a_header() {
    let shop = Shop::open().await;
    let mina = shop.newcomer(1).await;
    let pair = shop.log_in(&mina).await;
    let who = shop.id_of(&pair).await;
    for name in ["X-Authenticated-User", "X-User-Id", "X-User-Role", "X-Forwarded-User", "Forwarded"] {
        shop.get("/v1/users/me").header(name, &who).send().await.problem(401, "unauthenticated");
        let token = shop.token(7, Role::Shopper);
        let told = shop.get("/v1/users/me").bearer(&token).header(name, &who).send().await;
        told.problem(404, "not_found");
    }
    shop.close().await;
}
