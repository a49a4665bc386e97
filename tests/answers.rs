//! What answers show, and that asking changes nothing.

mod support;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection, Row};
use stockade::domain::user::Role;
use stockade::http::ROUTES;
use support::{Pair, Shop, id, one_line};

/// A field more in an answer is a decision, and this list is where it is made.
#[rustfmt::skip]
const SHOWN: &[(&str, &str)] = &[
    ("Accepted",     "detail"),
    ("AccountPage",  "data next_cursor"),
    ("AccountShown", "created_at id role state updated_at verified_at"),
    ("Address",      "city country line1 line2 postal_code recipient region"),
    ("ApprovalShown", "amount asked_at asked_by id line order_id payment_id refund_id restock seconded_at seconded_by until \
                      waiting_for what"),
    ("CartKept",     "lines updated_at"),
    ("CartLineKept", "added_at product_id quantity"),
    ("CartLineShown", "added_at available name opens_at orderable product_id quantity sale_state short sku subtotal thumbnail_url \
                      unit_price"),
    ("CartShown",    "lines mixed_currencies orderable subtotal subtotals total updated_at version"),
    ("CompensationKind",  ""),
    ("CompensationPage",  "data next_cursor"),
    ("CompensationShown", "amount approval id kind next_try_at order_id payment_id since state tries why"),
    ("CompensationState", ""),
    ("DeedShown",    "at by deed detail"),
    ("DeliveryKept", "delivered_at line order_id paid_at reason return_requested_at shipped_at state"),
    ("DeliveryPage", "data next_cursor"),
    ("DeliveryShown", "created_at endpoint_id event_id id last_error last_status next_try_at state tries type updated_at"),
    ("DeliveryStatus", ""),
    ("EndpointPage", "data next_cursor"),
    ("EndpointShown", "created_at description disabled_reason events failing_since former_secret_until id secret state updated_at url"),
    ("Export",       "cart deliveries locale new_email order_addresses orders payments profile refunds sessions trail trail_is_whole \
                      verified_at wishes"),
    ("Health",       "degraded reasons status"),
    ("JobPage",      "data next_cursor"),
    ("JobShown",     "last_run name next_at running running_since schedule"),
    ("LedgerPage",   "data next_cursor"),
    ("LineShown",    "delivered_at delivery_status line name product_id quantity receipt sku status unit_price"),
    ("LineStatus",   ""),
    ("Money",        "amount currency"),
    ("Movement",     "at available cause held kind on_hand order_id quantity reason sequence sold"),
    ("NobodySwitched", "account detail"),
    ("NodePage",     "data next_cursor"),
    ("NodeShown",    "address hot id products_loaded role roles session shards silent_ms state"),
    ("OrderAddressKept", "address order_id"),
    ("OrderFound",   "buyer_id created_at hold_expires_at id lines payment status total updated_at"),
    ("OrderFoundPage", "data next_cursor"),
    ("OrderPage",    "data next_cursor"),
    ("OrderShown",   "created_at hold_expires_at id lines payment status total updated_at"),
    ("OrderStatus",  ""),
    ("Payment",      "amount attempt id reason refunded status"),
    ("PaymentEvent", ""),
    ("PaymentFound", "amount attempt id reason refunded status"),
    ("PaymentKept",  "amount attempt captured created_at id order_id provider_ref reason refunded state updated_at"),
    ("PaymentMethod", "token type"),
    ("PaymentMethodType", ""),
    ("PaymentStatus", ""),
    ("PaymentStatusFound", ""),
    ("Preview",      "address lines orderable total"),
    ("PreviewLine",  "amount available name product_id quantity sale_state short sku unit_price"),
    ("Price",        "amount currency"),
    ("Problem",      "actual available captured closed_at code confirmed delivered_at delivery_status detail errors expected has held \
                      instance limit line logged_in_at max_age_seconds opens_at order order_id product_id promised reason refund_id \
                      refunded request_id requested returnable_until returned sequence shipped_at sold status title type would_be"),
    ("ProductFound", "archived created_at description held id image_url name on_hand price sale sku sold stock tags thumbnail_url \
                      updated_at"),
    ("ProductFoundPage", "data next_cursor"),
    ("ProductPage",  "data next_cursor"),
    ("ProductShown", "description id image_url name price sale sku stock tags thumbnail_url"),
    ("ProfileShown", "address created_at email id name phone role updated_at"),
    ("ReceiptShown", "sequence"),
    ("RefundPage",   "data next_cursor"),
    ("RefundShown",  "amount cause created_at id next_try_at order_id payment_id reason restock state tries updated_at"),
    ("Restock",      ""),
    ("RunShown",     "began_at by_hand dry_run ended_at failed moved outcome problems scheduled_at seen"),
    ("Sale",         "closes_at hold_seconds opens_at per_customer_limit state"),
    ("SaleState",    ""),
    ("SessionPage",  "data next_cursor"),
    ("SessionShown", "bound created_at current device id last_used_at"),
    ("StockChanged", "available held on_hand product_id sequence sold"),
    ("StockInBrief", "as_of available sold_out"),
    ("StockShown",   "as_of available held sequence sold"),
    ("Tag",          ""),
    ("TokensShown",  "access_token bound expires_in refresh_expires_in refresh_token token_type"),
    ("WishKept",     "added_at product_id"),
];

/// ASVS 15.3.1: the reference describes these fields and no others.
#[test]
fn what_answers_show_is_listed() {
    let document = stockade::http::document();
    let fields = |schema: &Value| {
        let mut names: Vec<_> =
            schema["properties"].as_object().into_iter().flat_map(|map| map.keys()).cloned().collect();
        names.sort_unstable();
        names.join(" ")
    };
    let schemas = document["components"]["schemas"].as_object().unwrap().iter();
    let shown = schemas.filter(|(name, _)| !name.ends_with("Request") && !name.ends_with("Patch"));
    let mut shown: Vec<_> = shown.map(|(name, schema)| (name.clone(), fields(schema))).collect();
    shown.sort_unstable();
    let listed: Vec<_> = SHOWN.iter().map(|(name, fields)| (name.to_string(), fields.to_string())).collect();
    assert_eq!(shown, listed);
}

/// ASVS 15.3.1: and what is really answered has no field that the reference does not describe.
#[actix_web::test]
async fn answers_show_what_is_listed_and_nothing_else() {
    let (shop, scene) = scene(Shop::open().await).await;
    let document = shop.get("/openapi.json").send().await.ok(200);
    let described = |method: &str, route: &str, status: &str| {
        let answers = &document["paths"][route][method.to_lowercase()]["responses"];
        answers[status]["content"]["application/json"]["schema"].clone()
    };
    let mut seen = 0;
    // The reference does not describe itself.
    let routes = gets().filter(|route| *route != "/openapi.json");
    for route in routes.filter(|route| !described("GET", route, "200").is_null()) {
        let answer = scene.ask(&shop, "GET", route).send().await.ok(200);
        fits(&document, &described("GET", route, "200"), &answer, route);
        seen += 1;
    }
    assert!(seen >= 12, "{seen}");
    let mut line = one_line(&scene.product, 1);
    line["address"] = support::Person::number(1).words()["address"].clone();
    for (method, route, body, status) in [
        ("POST", "/v1/orders", line.clone(), "201"),
        ("POST", "/v1/orders/preview", line, "200"),
        ("POST", "/v1/orders/{id}/payment", support::card("tok_ok"), "200"),
        ("POST", "/v1/orders/{id}/cancel", json!({}), "200"),
        ("GET", "/v1/admin/orders/{id}/refunds", json!({}), "200"),
        ("POST", "/v1/cart/items", json!({ "product_id": scene.product, "quantity": 1 }), "200"),
        ("PUT", "/v1/cart/items/{id}", json!({ "quantity": 2 }), "200"),
        ("GET", "/v1/cart", json!({}), "200"),
        ("POST", "/v1/cart/checkout", json!({}), "201"),
        ("DELETE", "/v1/cart", json!({}), "200"),
        ("GET", "/v1/users/me/export", json!({}), "200"),
        ("POST", "/v1/admin/jobs/{name}/run", json!({}), "200"),
        ("PATCH", "/v1/users/me", json!({ "name": "Mina" }), "200"),
        ("POST", "/v1/sessions", support::Person::number(1).credentials(), "201"),
        ("POST", "/v1/sessions/refresh", json!({ "refresh_token": scene.pair.refresh }), "200"),
        ("POST", "/v1/users/verify/resend", json!({ "email": "nobody@example.com" }), "202"),
        ("POST", "/v1/admin/users/{id}/suspend", json!({}), "200"),
    ] {
        let answer = scene.ask(&shop, method, route).json(&body).send().await;
        let schema = described(method, route, status);
        assert!(!schema.is_null(), "{method} {route}");
        fits(&document, &schema, &answer.ok(status.parse().unwrap()), route);
    }
    shop.close().await;
}

/// RFC 9110, section 9.3.2: HEAD is told what GET would be, without the thing itself; also of what would never end.
#[actix_web::test]
async fn whoever_asks_for_the_head_gets_it_alone() {
    let (shop, scene) = scene(Shop::open().await).await;
    let told = async |method, route| {
        let mut reply = scene.ask(&shop, method, route).send().await;
        for of_its_own in ["date", "x-request-id", "content-length"] {
            reply.headers.remove(of_its_own);
        }
        reply
    };
    for route in gets().filter(|route| *route != "/metrics") {
        let head = scene.ask(&shop, "HEAD", route).send().await;
        assert_eq!((head.status.as_u16(), head.text.as_str()), (200, ""), "{route}");
        if route.ends_with("/stream") {
            assert!(!head.headers.contains_key("content-length"));
            continue;
        }
        let (get, length) = (told("GET", route).await, head.headers.get("content-length").cloned());
        let length = length.map(|length| length.to_str().unwrap().parse::<usize>().unwrap());
        assert_eq!(told("HEAD", route).await.headers, get.headers, "{route}");
        // An export tells of the exports before it, and times have as many letters as they need.
        let near = if route.ends_with("/export") { 400 } else { 8 };
        assert!(length.is_none_or(|length| length.abs_diff(get.text.len()) < near), "{route} {length:?}");
    }
    let product = format!("/v1/products/{}", scene.product);
    let known = shop.get(&product).send().await.headers["etag"].clone();
    let same = shop.ask("HEAD", &product).header("If-None-Match", known.to_str().unwrap()).send().await;
    assert_eq!(same.status, 304);
    assert_eq!(shop.ask("HEAD", "/v1/products/prod_none").send().await.status, 404);
    let nothing_to_see = shop.ask("HEAD", "/v1/sessions/refresh").send().await;
    assert_eq!(
        (nothing_to_see.status.as_u16(), &nothing_to_see.headers["allow"]),
        (405, &"POST".parse().unwrap())
    );
    let wrong = shop.ask("POST", &product).send().await;
    assert_eq!((wrong.status.as_u16(), &wrong.headers["allow"]), (405, &"GET, HEAD".parse().unwrap()));
    shop.close().await;
}

fn gets() -> impl Iterator<Item = &'static str> {
    ROUTES.iter().filter(|route| route.method == "GET").map(|route| route.path)
}

/// Complains about every field in a value that its schema does not name.
fn fits(document: &Value, schema: &Value, value: &Value, place: &str) {
    if let Some(pointer) = schema["$ref"].as_str() {
        return fits(document, document.pointer(&pointer[1..]).unwrap(), value, place);
    }
    if let Some(either) = schema["oneOf"].as_array() {
        let there = either.iter().find(|one| one["type"] != "null").unwrap();
        return fits(document, there, value, place);
    }
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let place = format!("{place} {name}");
                let schema =
                    schema["properties"].get(name).unwrap_or_else(|| panic!("{place} is not described"));
                fits(document, schema, value, &place);
            }
        }
        Value::Array(values) => {
            values.iter().for_each(|value| fits(document, &schema["items"], value, place))
        }
        _ => {}
    }
}

/// A shop where something has happened: there is an order, a session, an account, a history.
struct Scene {
    pair: Pair,
    product: String,
    order: String,
    endpoint: String,
}

async fn scene(shop: Shop) -> (Shop, Scene) {
    let product = shop.stocked(50).await;
    let mina = shop.newcomer(1).await;
    let pair = shop.log_in(&mina).await;
    shop.log_in(&mina).await;
    let order = shop.as_of(&pair, "POST", "/v1/orders").json(&one_line(&product, 1)).send().await.ok(201);
    let restock = shop.admin("POST", &format!("/v1/admin/products/{product}/restock")).key("r");
    restock.json(&json!({ "delta": 3, "reason": "found" })).send().await.ok(200);
    shop.as_of(&pair, "PUT", &format!("/v1/wishes/{product}")).send().await;
    let item = json!({ "quantity": 2 });
    shop.as_of(&pair, "PUT", &format!("/v1/cart/items/{product}")).json(&item).send().await.ok(200);
    // Nobody is called: orders are not returned here.
    let endpoint = json!({ "url": "https://1.1.1.1/", "events": ["order.returned"] });
    let endpoint = shop.admin("POST", "/v1/admin/webhook-endpoints").json(&endpoint).send().await.ok(201);
    (shop, Scene { pair, product, order: id(&order), endpoint: id(&endpoint) })
}

impl Scene {
    fn ask(&self, shop: &Shop, method: &str, route: &str) -> support::Ask {
        let id: &str = match route {
            _ if route.starts_with("/v1/orders") || route.starts_with("/v1/admin/orders") => &self.order,
            _ if route.starts_with("/v1/admin/webhook-endpoints") => &self.endpoint,
            // Nobody's.
            _ if route.starts_with("/v1/admin/users/") => "user_01j2c5m8k4e7rspqa1b3c5d7e9",
            _ => &self.product,
        };
        let path = route.replace("{id}", id).replace("{line}", "1").replace("{name}", "clearing");
        let path = path.replace("{file:.*}", "index.html");
        let admin = shop.token(0, Role::Admin);
        let token = if route.starts_with("/v1/admin") { &admin } else { &self.pair.access };
        shop.ask(method, &path).bearer(token)
    }
}

macro_rules! tables {
    ($( $file:literal: $( $table:ident )+ ; )*) => {
        [$( ($file, vec![$( (stringify!($table), concat!("select * from ", stringify!($table))) ),+]) ),*]
    };
}

/// Every row of every table that people can see, as it stands on the disk.
async fn rows(folder: &Path) -> BTreeMap<&'static str, Vec<String>> {
    let files = tables! {
        "shop.db": products stock flush_checkpoint orders order_lines buyer_runs buyer_orders webhook_endpoints webhook_secrets
            webhook_events webhook_deliveries jobs notice_slices;
        "people.db": users verified_emails verified_phones sessions one_time_tokens revocations outbox trail trail_head
            wishes carts cart_lines cart_additions checkouts order_addresses unproved_addresses letters_told hold_reminders;
        "money.db": payments open_payments refunds approvals deliveries webhooks_heard notices;
    };
    let mut all = BTreeMap::new();
    for (file, tables) in files {
        let options = SqliteConnectOptions::new().filename(folder.join(file));
        let mut connection: SqliteConnection = options.connect().await.unwrap();
        let there: i64 = sqlx::query_scalar(
            "select count(*) from sqlite_master where type = 'table' and name not like '\\_sqlx%' escape '\\' \
             and name not like 'sqlite%'",
        )
        .fetch_one(&mut connection)
        .await
        .unwrap();
        assert_eq!(there as usize, tables.len(), "{file} has another table");
        for (table, sql) in tables {
            let rows = sqlx::query(sql).fetch_all(&mut connection).await.unwrap();
            let text = |row: &sqlx::sqlite::SqliteRow| {
                let column = |at| row.try_get_unchecked::<Option<Vec<u8>>, _>(at).unwrap();
                format!("{:?}", (0..row.columns().len()).map(column).collect::<Vec<_>>())
            };
            all.insert(table, rows.iter().map(text).collect());
        }
        connection.close().await.unwrap();
    }
    all
}

/// ASVS 3.5.3: a link that somebody is made to follow, or a page that is fetched ahead, does nothing. An export is written down.
#[actix_web::test]
async fn asking_changes_nothing() {
    let (shop, scene) = scene(Shop::open().await).await;
    let mut folder = shop.stop().await;
    let mut before = rows(folder.path()).await;
    // What the last questions have left to be done is done by itself, sooner or later.
    loop {
        folder = Shop::open_in(folder).await.stop().await;
        let since = std::mem::replace(&mut before, rows(folder.path()).await);
        if since == before {
            break;
        }
    }
    let shop = Shop::open_in(folder).await;
    for route in gets().filter(|route| !route.ends_with("/stream")) {
        for method in ["GET", "HEAD"] {
            let status = scene.ask(&shop, method, route).send().await.status.as_u16();
            assert!(status < 400, "{method} {route} {status}");
        }
    }
    let mut after = rows(shop.stop().await.path()).await;
    let trail = after.get_mut("trail").unwrap();
    for _by in ["GET", "HEAD"] {
        let told = trail.pop().unwrap();
        assert!(told.contains(&format!("{:?}", b"data_exported")), "{told}");
    }
    after.insert("trail_head", before["trail_head"].clone());
    for (table, rows) in &after {
        assert_eq!(rows, &before[table], "{table}");
    }
}
