//! All of one's data: complete, for its owner alone, and only after a look at the password.

mod support;

use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use stockade::persistence::Tables;
use support::{Pair, Person, Reply, Shop, card, id, one_line, paid_with};

const MINUTE: i64 = 60_000;
const EXPORT: &str = "/v1/users/me/export";

async fn export(shop: &Shop, access: &str) -> Reply {
    shop.get(EXPORT).bearer(access).send().await
}

/// ASVS 7.5.3: whoever finds a device that is still logged in does not walk away with everything.
#[actix_web::test]
async fn it_wants_a_log_in_of_the_last_quarter_of_an_hour() {
    let shop = Shop::open().await;
    let mina = shop.newcomer(1).await;
    let pair = shop.log_in(&mina).await;
    export(&shop, &pair.access).await.ok(200);

    shop.clock.advance(14 * MINUTE);
    let next = Pair::of(&shop.try_refresh(&pair.refresh).await);
    for access in [&pair.access, &next.access] {
        export(&shop, access).await.ok(200);
    }
    shop.clock.advance(MINUTE + 1);
    assert!(shop.admits(&next.access).await, "for everything else it is as good as new");
    let told = export(&shop, &next.access).await.problem(403, "reauthentication_required");
    assert!(told["detail"].as_str().unwrap().contains("Log in again"), "{told}");
    assert_eq!(told["max_age_seconds"], 900);
    let later = Pair::of(&shop.try_refresh(&next.refresh).await);
    export(&shop, &later.access).await.problem(403, "reauthentication_required");
    let anew = shop.log_in(&mina).await;
    export(&shop, &anew.access).await.ok(200);
    shop.close().await;
}

/// A token that was signed offline has no log-in: it counts from when it was signed, however long it is good for.
#[actix_web::test]
async fn a_token_that_was_signed_offline_counts_from_its_signature() {
    let shop = Shop::open().await;
    let mina = shop.newcomer(1).await;
    let who = shop.id_of(&shop.log_in(&mina).await).await.parse().unwrap();
    let role = stockade::domain::user::Role::Shopper;
    let token = shop.app().tokens().sign(who, role, 86_400, shop.clock.now(), shop.clock.chance()).unwrap();
    shop.clock.advance(14 * MINUTE);
    export(&shop, &token).await.ok(200);
    shop.clock.advance(MINUTE + 1);
    export(&shop, &token).await.problem(403, "reauthentication_required");
    shop.get("/v1/users/me").bearer(&token).send().await.ok(200);
    shop.close().await;
}

/// OWASP API4: five an hour, and one that was refused for its age takes nothing from them.
#[actix_web::test]
async fn it_is_given_five_times_an_hour() {
    let shop = Shop::open().await;
    let mina = shop.newcomer(1).await;
    let old = shop.log_in(&mina).await;
    shop.clock.advance(10 * MINUTE);
    let old = Pair::of(&shop.try_refresh(&old.refresh).await);
    shop.clock.advance(6 * MINUTE);
    for _ in 0..9 {
        export(&shop, &old.access).await.problem(403, "reauthentication_required");
    }
    let pair = shop.log_in(&mina).await;
    for _ in 0..5 {
        export(&shop, &pair.access).await.ok(200);
    }
    let told = export(&shop, &pair.access).await;
    told.problem(429, "rate_limited");
    assert!(told.header("Retry-After").is_some());
    shop.close().await;
}

/// Every attempt and every refund, with figures, and nothing of what was paid with.
fn told_of_money(told: &Value, orders: [&String; 3]) {
    let rows = |name: &str, fields: [&str; 4]| {
        let rows = told[name].as_array().unwrap().iter();
        let row = |row: &Value| {
            let at = orders.iter().position(|order| row["order_id"] == **order).unwrap();
            let words = fields.map(|field| row.pointer(field).unwrap().to_string());
            format!("{at} {}", words.join(" "))
        };
        let mut rows: Vec<_> = rows.map(row).collect();
        rows.sort_unstable();
        rows
    };
    assert_eq!(
        rows("payments", ["/attempt", "/state", "/captured/amount", "/refunded/amount"]),
        [
            r#"0 1 "declined" 0 0"#,
            r#"0 2 "paid" 1000 0"#,
            r#"1 1 "paid" 1000 300"#,
            r#"2 1 "paid" 1000 1000"#
        ]
    );
    assert_eq!(
        rows("refunds", ["/cause", "/state", "/amount/amount", "/amount/currency"]),
        [r#"1 "clerk" "done" 300 "KRW""#, r#"2 "order_cancelled" "done" 1000 "KRW""#]
    );
    assert_eq!(
        rows("deliveries", ["/line", "/state", "/shipped_at", "/reason"]),
        [r#"0 1 "preparing" null null"#, r#"1 1 "preparing" null null"#, r#"2 1 "cancelled" null null"#]
    );
    let text = told.to_string();
    assert!(!text.contains("tok_") && !text.contains("token"), "{text}");
}

/// Whatever the store keeps about somebody is in it, and nothing of anybody else.
#[actix_web::test]
async fn everything_that_is_kept_about_somebody_is_in_it() {
    let shop = Shop::open_with(|config| config.payment.attempts = 2).await;
    let product = shop.stocked(500).await;
    let (mina, jun) = (shop.newcomer(1).await, shop.newcomer(2).await);
    let other = shop.log_in(&jun).await;
    shop.as_of(&other, "POST", "/v1/orders").json(&one_line(&product, 1)).send().await.ok(201);
    shop.try_log_in(&Person { password: "a wrong password".to_owned(), ..mina.clone() }).await;
    let first = shop.log_in(&mina).await;
    let mut orders = Vec::new();
    // One that was declined and paid, one of which a part went back, one that is cancelled; and somebody else's.
    let pay = async |pair: &Pair, token: &str| {
        let body = paid_with(&product, 1, token);
        shop.as_of(pair, "POST", "/v1/orders").json(&body).send().await
    };
    pay(&other, "tok_ok").await.ok(201);
    let declined = id(&pay(&first, "tok_declined").await.problem(402, "payment_declined")["order"]);
    let door = format!("/v1/orders/{declined}/payment");
    shop.as_of(&first, "POST", &door).json(&card("tok_ok")).send().await.ok(200);
    let partly = id(&pay(&first, "tok_ok").await.ok(201));
    let part =
        json!({ "restock": "leave", "amount": { "amount": 300, "currency": "KRW" }, "reason": "sorry" });
    shop.admin("POST", &format!("/v1/admin/orders/{partly}/refunds"))
        .key("r")
        .json(&part)
        .send()
        .await
        .ok(201);
    let cancelled = id(&pay(&first, "tok_ok").await.ok(201));
    shop.as_of(&first, "POST", &format!("/v1/orders/{cancelled}/cancel")).send().await.ok(200);
    orders.extend([declined.clone(), partly.clone(), cancelled.clone()]);
    shop.take_up().await;
    for _ in 0..101 {
        let placed = shop.as_of(&first, "POST", "/v1/orders").json(&one_line(&product, 1)).send().await;
        orders.push(id(&placed.ok(201)));
    }
    orders.sort_unstable_by(|a, b| b.cmp(a));
    let user = id(&shop.as_of(&first, "GET", "/v1/users/me").send().await.ok(200));
    for what in ["suspend", "reinstate"] {
        shop.admin("POST", &format!("/v1/admin/users/{user}/{what}")).send().await;
    }
    let (here, there) = (shop.log_in(&mina).await, shop.log_in(&mina).await);
    let moved = json!({ "email": "mina@elsewhere.example", "password": mina.password });
    let asked = shop.as_of(&here, "POST", "/v1/users/me/email").json(&moved).send().await;
    assert_eq!(asked.status, 202, "{}", asked.text);

    let item = json!({ "product_id": product, "quantity": 2 });
    for pair in [&here, &other] {
        assert_eq!(shop.as_of(pair, "PUT", &format!("/v1/wishes/{product}")).send().await.status, 204);
        shop.as_of(pair, "POST", "/v1/cart/items").json(&item).send().await.ok(200);
    }
    let mut elsewhere = one_line(&product, 1);
    elsewhere["address"] = jun.words()["address"].clone();
    let sent = shop.as_of(&here, "POST", "/v1/orders").json(&elsewhere).send().await.ok(201);
    orders.insert(0, id(&sent));

    let told = export(&shop, &here.access).await;
    assert_eq!(told.header("Content-Type"), Some("application/json"));
    assert_eq!(told.header("Content-Length"), None, "nobody waits until all of it is put together");
    let told = told.ok(200);
    assert_eq!(told["wishes"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&told["cart"]["lines"][0]["product_id"], &told["cart"]["lines"][0]["quantity"]),
        (&json!(product), &json!(2))
    );
    assert_eq!(
        (&told["order_addresses"][0]["order_id"], &told["order_addresses"][0]["address"]["line1"]),
        (&sent["id"], &json!(jun.street))
    );
    let profile = shop.as_of(&here, "GET", "/v1/users/me").send().await.ok(200);
    assert_eq!(told["profile"], profile);
    assert_eq!((&told["profile"]["email"], &told["new_email"]), (&json!(mina.email), &moved["email"]));
    assert_eq!(told["profile"]["address"]["line1"], mina.street);
    let listed = |values: &Value| values.as_array().unwrap().iter().map(id).collect::<Vec<_>>();
    assert_eq!(listed(&told["orders"]), orders, "on more than one page of them");
    told_of_money(&told, [&declined, &partly, &cancelled]);
    let sessions = shop.as_of(&here, "GET", "/v1/sessions").send().await.ok(200);
    assert_eq!(told["sessions"], sessions["data"]);
    assert_eq!(listed(&told["sessions"]).len(), 2);
    assert!(shop.admits(&there.access).await);

    // The trail as the store has it, newest first, and this export at its head.
    let folder = shop.stop().await;
    let entries = Tables::read_only(folder.path()).trail().before(i64::MAX, 1_000).await.unwrap();
    let kept: Vec<_> =
        entries.iter().filter(|entry| [&entry.subject, &entry.actor].contains(&&user)).collect();
    let shown = told["trail"].as_array().unwrap();
    let words = |deed: &Value| [deed["deed"].clone(), deed["detail"].clone()];
    let kept: Vec<_> = kept.iter().map(|entry| [json!(entry.kind), json!(entry.detail)]).collect();
    assert_eq!(shown.iter().map(words).collect::<Vec<_>>(), kept);
    assert_eq!((&shown[0]["deed"], &shown[0]["by"]), (&json!("data_exported"), &json!("oneself")));
    let by = |deed: &str| &shown.iter().find(|shown| shown["deed"] == deed).unwrap()["by"];
    assert_eq!((by("suspended"), by("log_in_failed")), (&json!("somebody_else"), &Value::Null));
}

/// However long somebody has been here: the newest entries of the trail, and whether there are others.
#[actix_web::test]
async fn the_trail_in_it_is_the_newest_of_it() {
    const MOST: usize = 5_000;
    let shop = Shop::open().await;
    let mina = shop.newcomer(1).await;
    let pair = shop.log_in(&mina).await;
    let told = export(&shop, &pair.access).await.ok(200);
    assert_eq!(told["trail_is_whole"], true);
    let user = id(&told["profile"]);
    let folder = shop.stop().await;
    let options = SqliteConnectOptions::new().filename(folder.path().join("people.db"));
    let mut people = options.connect().await.unwrap();
    sqlx::query(
        "insert into trail (sequence, at_ms, kind, actor_id, subject_id, detail, previous_hash, hash) \
         with recursive years(day) as (select 1 union all select day + 1 from years where day < 5000) \
         select sequence + day, 1, 'logged_in', ?, ?, '', hash, hash from years, trail_head",
    )
    .bind(&user)
    .bind(&user)
    .execute(&mut people)
    .await
    .unwrap();
    sqlx::query("update trail_head set sequence = sequence + 5000").execute(&mut people).await.unwrap();
    people.close().await.unwrap();

    let shop = Shop::open_in(folder).await;
    let pair = shop.log_in(&mina).await;
    let told = export(&shop, &pair.access).await.ok(200);
    let trail = told["trail"].as_array().unwrap();
    assert_eq!((trail.len(), &told["trail_is_whole"]), (MOST, &json!(false)));
    assert_eq!((&trail[0]["deed"], &trail[MOST - 1]["deed"]), (&json!("data_exported"), &json!("logged_in")));
    shop.close().await;
}

/// What is not there yet is no reason to say that this is all.
#[actix_web::test]
async fn it_is_whole_or_not_given() {
    let shop = Shop::open().await;
    let mina = shop.newcomer(1).await;
    let pair = shop.log_in(&mina).await;
    let product = shop.stocked(9).await;
    shop.tables_follow().await;
    let held = shop.hold("shop.db").await;
    let placed = shop.as_of(&pair, "POST", "/v1/orders").json(&one_line(&product, 1)).send().await.ok(201);
    let told = shop.get(EXPORT).bearer(&pair.access).send_once().await;
    told.problem(503, "owner_unavailable");
    held.let_go().await;
    let told = export(&shop, &pair.access).await.ok(200);
    assert_eq!(told["orders"][0]["id"], placed["id"]);
    for _ in 0..4 {
        export(&shop, &pair.access).await.ok(200);
    }
    // The one that was not given is none of the five.
    export(&shop, &pair.access).await.problem(429, "rate_limited");
    shop.close().await;
}
