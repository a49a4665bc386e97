//! Who did what: every change by hand is in the trail before it is made, and the audit sees whatever is done to the trail.

mod support;

use serde_json::json;
use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use std::path::Path;
use stockade::domain::user::Role;
use stockade::persistence::Tables;
use stockade::persistence::audit::audit;
use support::{Shop, id, user};
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
