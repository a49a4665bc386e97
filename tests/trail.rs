//! Who did what: every change by hand is in the trail before it is made, and the audit sees whatever is done to the trail.

#[path = "webhooks/receiver.rs"]
mod receiver;
mod support;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use receiver::{Answer, Receiver, until};
use serde_json::json;
use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use stockade::config::{Config, MasterKeys};
use stockade::domain::trail::Deed;
use stockade::domain::user::Role;
use stockade::persistence::Tables;
use stockade::persistence::audit::audit;
use stockade::vault;
use support::{Device, Pair, Person, Shop, id, user};
use tempfile::TempDir;

/// `kind actor subject detail` of every entry, oldest first.
async fn entries(dir: &Path) -> Vec<String> {
    let tables = Tables::read_only(dir);
    let mut entries = tables.trail().before(i64::MAX, 100).await.unwrap();
    tables.close().await.unwrap();
    entries.reverse();
    entries
        .into_iter()
        .map(|e| format!("{} {} {} {}", e.kind, e.actor, e.subject, e.detail).trim_end().to_owned())
        .collect()
}

/// A shop where an administrator did everything once, and its folder after it was stopped.
async fn administered() -> (TempDir, String) {
    let shop = Shop::open().await;
    let made = shop.product(5, json!({})).await;
    let product = id(&made);
    let path = format!("/v1/admin/products/{product}");
    let shown = shop.get(&format!("/v1/products/{product}")).send().await;
    let etag = shown.headers["etag"].to_str().unwrap().to_owned();
    let priced = json!({"price": {"amount": 1_200, "currency": "KRW"}});
    let changed = shop.admin("PATCH", &path).header("If-Match", &etag).json(&priced).send().await;
    assert_eq!(changed.status, 200, "{}", changed.text);
    let restock = json!({"delta": -2, "reason": "broken by Mina Kim, 010-1234-5678"});
    let restocked = shop
        .admin("POST", &format!("{path}/restock"))
        .header("Idempotency-Key", "r1")
        .json(&restock)
        .send()
        .await;
    assert_eq!(restocked.status, 200, "{}", restocked.text);
    for deed in ["pause", "resume"] {
        let done = shop.admin("POST", &format!("{path}/{deed}")).send().await;
        assert_eq!(done.status, 200, "{}", done.text);
    }
    assert_eq!(shop.admin("DELETE", &path).send().await.status, 204);
    (shop.stop().await, product)
}

async fn tamper(dir: &Path, sql: &'static str) {
    let options = SqliteConnectOptions::new().filename(dir.join("people.db"));
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::query(sql).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

#[actix_web::test]
async fn every_change_by_hand_names_who_made_it() {
    let (folder, product) = administered().await;
    let admin = user(0);
    assert_eq!(
        entries(folder.path()).await,
        [
            format!("product_made {admin} {product} stock=5 price_minor=1000"),
            format!("price_changed {admin} {product} from_minor=1000 to_minor=1200"),
            format!("stock_changed {admin} {product} delta=-2"),
            format!("sale_paused {admin} {product}"),
            format!("sale_resumed {admin} {product}"),
            format!("product_archived {admin} {product}"),
        ]
    );
    let report = audit(folder.path()).await.unwrap();
    assert_eq!((report.trail.sequence, report.differences), (6, Vec::<String>::new()));
}

/// A refund that was given back at the provider's own desk already, so that the provider refuses it.
async fn settle_by_hand(shop: &Shop, jar: &str) {
    let order = id(&shop.buy(1, jar, 1, "tok_ok").send().await.ok(201));
    shop.refund_at_the_desk(&order).await;
    shop.by(1, "POST", &format!("/v1/orders/{order}/cancel")).send().await.ok(200);
    let listed = shop.admin("GET", &format!("/v1/admin/orders/{order}/refunds")).send().await.ok(200);
    let path = format!("/v1/admin/compensations/{}/settle", id(&listed["data"][0]));
    // While it is being tried nobody settles it.
    while shop.admin("POST", &path).send().await.status == 409 {
        shop.app().payments().at_rest().await;
    }
}

/// A refund, one that takes two, and two payments of another amount: one is kept, one goes back.
async fn decide_about_money(shop: &Shop) {
    let jar = shop.stocked(15).await;
    let order = id(&shop.buy(1, &jar, 6, "tok_ok").send().await.ok(201));
    let refund = shop.admin("POST", &format!("/v1/admin/orders/{order}/refunds")).key("w");
    refund.json(&json!({ "restock": "leave", "reason": "broken" })).send().await.ok(202);
    let second = shop.ask("POST", &format!("/v1/admin/orders/{order}/refunds"));
    let second = second.bearer(&shop.token(77, Role::Admin)).key("w");
    second.json(&json!({ "restock": "leave", "reason": "broken" })).send().await.ok(201);
    let order = id(&shop.buy(1, &jar, 1, "tok_ok").send().await.ok(201));
    let refund = shop.admin("POST", &format!("/v1/admin/orders/{order}/refunds")).key("r");
    refund.json(&json!({ "restock": "leave", "reason": "broken" })).send().await.ok(201);
    for decision in ["accept", "give-back"] {
        let order = shop.buy(1, &jar, 1, "tok_wrong_amount").send().await.ok(202);
        let payment = order["payment"]["id"].as_str().unwrap();
        let path = format!("/v1/admin/compensations/{payment}/{decision}");
        assert!(shop.admin("POST", &path).send().await.status.is_success(), "{decision}");
    }
    let order = id(&shop.buy(1, &jar, 1, "tok_refund_fails_always").send().await.ok(201));
    shop.by(1, "POST", &format!("/v1/orders/{order}/cancel")).send().await.ok(200);
    let listed = shop.admin("GET", &format!("/v1/admin/orders/{order}/refunds")).send().await.ok(200);
    let path = format!("/v1/admin/compensations/{}/retry", id(&listed["data"][0]));
    assert_eq!(shop.admin("POST", &path).send().await.status, 202);
    settle_by_hand(shop, &jar).await;
}

/// ASVS 16.2.1, 16.3.1, 16.3.3: of everything that the trail has a word for, something is written down when it is done,
/// and the chain holds.
#[actix_web::test]
async fn every_deed_finds_its_way_into_the_trail() {
    let (folder, _) = administered().await;
    let admin = Command::new(env!("CARGO_BIN_EXE_stockade"))
        .args(["admin", "create", "--email", "boss@example.com"])
        .env("STOCKADE_DATA_DIR", folder.path())
        .env("STOCKADE_JWT_SECRET", support::SECRET)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    admin.stdin.as_ref().unwrap().write_all(b"four foxes fly far\n").unwrap();
    assert!(admin.wait_with_output().unwrap().status.success());

    let shop = Shop::open_in_with(folder, |config| {
        config.webhooks.allow_loopback = true;
        config.payment.four_eyes = "KRW:5000".parse().unwrap();
    })
    .await;
    tell_an_endpoint_and_change_it(&shop).await;
    decide_about_money(&shop).await;
    shop.admin("POST", "/v1/admin/jobs/clearing/run").send().await.ok(200);
    let product = shop.product(1, json!({})).await;
    let path = format!("/v1/admin/products/{}", id(&product));
    let renamed = shop.admin("PATCH", &path).header("If-Match", "*").json(&json!({ "name": "Another jar" }));
    renamed.send().await.ok(200);

    let mut mina = shop.newcomer(1).await;
    shop.try_log_in(&Person { password: "not the password".to_owned(), ..mina.clone() }).await;
    let pair = shop.log_in(&mina).await;
    let next = Pair::of(&shop.try_refresh(&pair.refresh).await);
    Pair::of(&shop.try_refresh(&next.refresh).await);
    shop.try_refresh(&pair.refresh).await.problem(401, "unauthenticated");
    let bound = shop.log_in_from(&mina, &Device::made()).await;
    shop.try_refresh(&bound.refresh).await.problem(401, "unauthenticated");
    let pair = shop.log_in(&mina).await;
    let user = shop.id_of(&pair).await;
    shop.as_of(&pair, "PATCH", "/v1/users/me").json(&json!({ "name": "Mina Kim" })).send().await.ok(200);
    shop.as_of(&pair, "GET", "/v1/users/me/export").send().await.ok(200);
    let guess = json!({ "current_password": "not the password", "new_password": "five foxes fly far" });
    shop.as_of(&pair, "PUT", "/v1/users/me/password")
        .json(&guess)
        .send()
        .await
        .problem(422, "validation_failed");
    let change = json!({ "current_password": mina.password, "new_password": "five foxes fly far" });
    assert_eq!(shop.as_of(&pair, "PUT", "/v1/users/me/password").json(&change).send().await.status, 204);
    mina.password = "five foxes fly far".to_owned();
    shop.post("/v1/password-resets", &json!({ "email": mina.email })).send().await;
    let link = shop.letter(&mina.email, 3).await.token();
    let reset = json!({ "token": link, "new_password": "six foxes fly farther" });
    assert_eq!(shop.ask("PUT", "/v1/password-resets").json(&reset).send().await.status, 204);
    mina.password = "six foxes fly farther".to_owned();
    let pair = shop.log_in(&mina).await;
    let moved = json!({ "email": "mina@example.org", "password": mina.password });
    assert_eq!(shop.as_of(&pair, "POST", "/v1/users/me/email").json(&moved).send().await.status, 202);
    assert_eq!(shop.verify(&shop.letter("mina@example.org", 1).await.token()).await.status, 204);
    mina.email = "mina@example.org".to_owned();
    for form in ["", "&format=csv"] {
        let path = format!("/v1/admin/users?email={}{form}", mina.email);
        assert_eq!(shop.admin("GET", &path).send().await.status, 200, "{path}");
    }
    for what in ["suspend", "reinstate"] {
        shop.admin("POST", &format!("/v1/admin/users/{user}/{what}")).send().await;
    }
    let pair = shop.log_in(&mina).await;
    assert_eq!(shop.as_of(&pair, "DELETE", "/v1/sessions/current").send().await.status, 204);
    let pair = shop.log_in(&mina).await;
    let erase = json!({ "password": mina.password });
    assert_eq!(shop.as_of(&pair, "DELETE", "/v1/users/me").json(&erase).send().await.status, 204);

    // Whoever has the machine says that the key is lost, under which the administrator was made.
    let folder = shop.stop().await;
    let lost = |config: &mut Config| {
        config.people.master_keys = Some(MasterKeys::one([3; 32]));
        config.people.master_key_was_lost = true;
    };
    let folder = Shop::open_in_with(folder, lost).await.stop().await;
    let entries = entries(folder.path()).await;
    let told: BTreeSet<_> = entries.iter().map(|entry| entry.split(' ').next().unwrap()).collect();
    let words: BTreeSet<_> = Deed::ALL.iter().map(|deed| deed.as_str()).collect();
    assert_eq!(told, words);
    for word in ["foxes", "example.", "Mina", "boss", "+82", "Another", "eyJ", &link] {
        assert!(!entries.iter().any(|entry| entry.contains(word)), "{word}: {entries:?}");
    }
    let report = audit(folder.path()).await.unwrap();
    assert_eq!(report.differences, Vec::<String>::new());
}

/// All that is written down about webhooks: among it that an endpoint is gone.
async fn tell_an_endpoint_and_change_it(shop: &Shop) {
    const ENDPOINTS: &str = "/v1/admin/webhook-endpoints";
    let receiver = Receiver::open(&[Answer::Status(410)]).await;
    let body = json!({ "url": receiver.url, "events": ["stock.changed"] });
    let path = format!("{ENDPOINTS}/{}", id(&shop.admin("POST", ENDPOINTS).json(&body).send().await.ok(201)));
    shop.stocked(1).await;
    let dead = async || {
        let dead = shop.admin("GET", &format!("{path}/deliveries?state=dead")).send().await.ok(200);
        let list = shop.admin("GET", ENDPOINTS).send().await.ok(200);
        dead["data"].get(0).filter(|_| list["data"][0]["state"] == "disabled").map(id)
    };
    let replay = format!("{ENDPOINTS}/deliveries/{}/replay", until(dead).await);
    shop.admin("POST", &replay).send().await.ok(202);
    shop.admin("POST", &format!("{path}/rotate")).send().await.ok(200);
    shop.admin("PATCH", &path).json(&json!({ "description": "the shed" })).send().await.ok(200);
    assert_eq!(shop.admin("DELETE", &path).send().await.status, 204);
}

/// SECURITY 57: somebody knows the password of an account that is closed to him.
#[actix_web::test]
async fn a_right_password_that_opens_nothing_is_written_down() {
    let shop = Shop::open().await;
    let (mina, jun) = (shop.newcomer(1).await, Person::number(2));
    shop.sign_up(&jun).await;
    shop.letter(&jun.email, 1).await;
    shop.try_log_in(&jun).await.problem(403, "email_not_verified");
    let id = shop.id_of(&shop.log_in(&mina).await).await;
    shop.admin("POST", &format!("/v1/admin/users/{id}/suspend")).send().await;
    shop.try_log_in(&mina).await.problem(403, "forbidden");
    let entries = entries(shop.stop().await.path()).await;
    let failed: Vec<_> = entries.iter().filter(|entry| entry.starts_with("log_in_failed")).collect();
    assert_eq!(failed.len(), 2, "{entries:?}");
    assert!(failed[0].contains("why=unverified") && failed[1].contains("why=suspended"), "{failed:?}");
}

/// ASVS 16.3.3: a table that leaves the shop, and an address that finds somebody. Pages of what is there leave nothing.
#[actix_web::test]
async fn who_takes_a_table_or_asks_for_an_address_is_written_down() {
    let shop = Shop::open().await;
    let mina = shop.newcomer(1).await;
    let mina_id = shop.id_of(&shop.log_in(&mina).await).await;
    let jar = shop.stocked(5).await;
    let ask = async |path: &str| {
        let told = shop.admin("GET", &format!("/v1/admin/{path}")).send().await;
        assert_eq!(told.status, 200, "{path}: {}", told.text);
    };
    for page in ["orders", "users", "products", "users?state=verified", "products?q=moon"] {
        ask(page).await;
    }
    shop.admin("GET", "/v1/admin/users?format=csv&role=root").send().await.problem(422, "validation_failed");
    let shopper = shop.ask("GET", "/v1/admin/orders?format=csv").bearer(&shop.token(7, Role::Shopper));
    shopper.send().await.problem(403, "forbidden");
    ask(&format!("orders?format=csv&buyer={mina_id}&status=paid&from=1970-01-01T00:00:00.007Z")).await;
    ask("users?format=csv&state=verified&role=shopper").await;
    ask("products?format=csv&q=Mina&archived=false").await;
    ask(&format!("products/{jar}/ledger?format=csv&kind=held&from=1")).await;
    ask(&format!("users?email={}", mina.email)).await;
    ask(&format!("users?email={}&format=csv", mina.email)).await;
    ask("users?email=nobody%40example.com").await;
    let entries = entries(shop.stop().await.path()).await;
    let seen = |entry: &&String| entry.starts_with("table_exported") || entry.starts_with("user_looked_up");
    let admin = user(0);
    assert_eq!(
        entries.iter().filter(seen).cloned().collect::<Vec<_>>(),
        [
            format!("table_exported {admin}  table=orders buyer={mina_id} status=paid from_ms=7"),
            format!("table_exported {admin}  table=users state=verified role=shopper"),
            format!("table_exported {admin}  table=products named=q archived=false"),
            format!("table_exported {admin} {jar} table=ledger kind=held from=1"),
            format!("user_looked_up {admin} {mina_id} found=1"),
            format!("user_looked_up {admin} {mina_id} found=1"),
            format!("table_exported {admin}  table=users by=email"),
            format!("user_looked_up {admin}  found=0"),
        ]
    );
}

#[actix_web::test]
async fn what_was_not_allowed_leaves_nothing() {
    let shop = Shop::open().await;
    let product = shop.stocked(1).await;
    let path = format!("/v1/admin/products/{product}/pause");
    assert_eq!(shop.ask("POST", &path).bearer(&shop.token(7, Role::Shopper)).send().await.status, 403);
    assert_eq!(shop.ask("POST", &path).send().await.status, 401);
    let nowhere = "/v1/admin/products/prod_01h455vb4pex5vsknk084sn02q/pause";
    assert_eq!(shop.admin("POST", nowhere).send().await.status, 404);
    let folder = shop.stop().await;
    assert_eq!(entries(folder.path()).await.len(), 1, "the product that was made");
}

#[actix_web::test]
async fn the_audit_sees_an_entry_that_was_edited_or_taken_out() {
    for (sql, told) in [
        ("update trail set detail = 'delta=-1' where sequence = 3", "trail: 3 was changed"),
        ("delete from trail where sequence = 2", "trail: 2 to 2 are missing"),
        ("delete from trail where sequence = 6", "trail: it ends at 5, its head says 6"),
    ] {
        let (folder, _) = administered().await;
        tamper(folder.path(), sql).await;
        let report = audit(folder.path()).await.unwrap();
        assert!(report.differences.iter().any(|line| line == told), "{sql}: {:?}", report.differences);
    }
}

/// Somebody who may write every row changes one and makes the chain behind it anew, so that it holds.
async fn write_anew(dir: &Path, from: i64) {
    let options = SqliteConnectOptions::new().filename(dir.join("people.db"));
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    let rows: Vec<(i64, i64, String, String, String, String)> = sqlx::query_as(
        "select sequence, at_ms, kind, actor_id, subject_id, detail from trail order by sequence",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    let mut last = vec![0_u8; 32];
    for (sequence, at, kind, actor, subject, detail) in rows {
        let detail = if sequence == from { "delta=-1".to_owned() } else { detail };
        let mut bytes = last.clone();
        bytes.extend(sequence.to_be_bytes());
        bytes.extend(at.to_be_bytes());
        for text in [&kind, &actor, &subject, &detail] {
            bytes.extend((text.len() as u64).to_be_bytes());
            bytes.extend(text.as_bytes());
        }
        let hash = vault::digest(&bytes).to_vec();
        sqlx::query("update trail set detail = ?, previous_hash = ?, hash = ? where sequence = ?")
            .bind(detail)
            .bind(last)
            .bind(hash.clone())
            .bind(sequence)
            .execute(&mut connection)
            .await
            .unwrap();
        last = hash;
    }
    sqlx::query("update trail_head set hash = ?").bind(last).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// What `stockade audit` says of a folder, and its exit code.
fn audited(dir: &Path, flags: &[&str]) -> (String, Option<i32>) {
    let mut audit = Command::new(env!("CARGO_BIN_EXE_stockade"));
    audit.arg("audit").args(flags).env("STOCKADE_DATA_DIR", dir);
    let said = audit.output().unwrap();
    (String::from_utf8(said.stdout).unwrap(), said.status.code())
}

/// What stands between the quotes of the line that is to be kept.
fn kept(said: &str) -> &str {
    said.split_once("--trail \"").unwrap().1.split_once('"').unwrap().0
}

#[actix_web::test]
async fn a_trail_that_was_written_anew_is_caught_by_its_former_end() {
    let (folder, _) = administered().await;
    let (said, code) = audited(folder.path(), &[]);
    assert_eq!(code, Some(0), "{said}");
    let end = kept(&said);
    assert!(end.starts_with("6 "), "{end}");
    let none = format!("0 {}", "0".repeat(16));
    assert_eq!(audited(folder.path(), &["--trail", end, "--trail", &none]).1, Some(0));

    write_anew(folder.path(), 3).await;
    let (anew, code) = audited(folder.path(), &[]);
    assert_eq!(code, Some(0), "nobody can tell by the trail alone: {anew}");
    assert_ne!(kept(&anew), end);
    let (caught, code) = audited(folder.path(), &["--trail", &none, "--trail", end]);
    assert_eq!(code, Some(1), "{caught}");
    assert!(caught.contains(&format!("trail: 6 was {}, it is ", &end[2..])), "{caught}");
    // What is no such line is no audit.
    assert_eq!(audited(folder.path(), &["--trail", "6"]).1, Some(2));
}
