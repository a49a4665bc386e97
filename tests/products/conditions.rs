//! What a change of a product rests on, what it may take away, and what is not sent again.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::contract::{complaint, pointer};
use crate::support::{Shop, id};

#[actix_web::test]
async fn an_unchanged_product_is_not_sent_again() {
    let shop = Shop::open().await;
    let jar = shop.stocked(5).await;
    let path = format!("/v1/products/{jar}");
    let etag = shop.get(&path).send().await.header("ETag").unwrap().to_owned();
    let again = |tag: String| shop.get(&path).header("If-None-Match", &tag).send();
    let unchanged = again(etag.clone()).await;
    assert_eq!((unchanged.status.as_u16(), unchanged.text.as_str()), (304, ""));
    assert_eq!(unchanged.header("ETag"), Some(etag.as_str()));
    // The same page tells another time of day where its owner has rested meanwhile: it is as good as this one, and not this one.
    let strong = etag.strip_prefix("W/").unwrap();
    assert_eq!(again(format!("\"x\", {etag}")).await.status, 304);
    assert_eq!(again(strong.to_owned()).await.status, 304);
    for other in ["\"x\"", "\"*\"", "W/\"*\""] {
        assert_eq!(again(other.to_owned()).await.status, 200, "{other}");
    }
    assert_eq!(again("*".to_owned()).await.status, 304);

    shop.order(1, &jar, 1).send().await.ok(201);
    let changed = again(etag.clone()).await;
    assert_eq!(changed.status, 200);
    let by_sale = changed.header("ETag").unwrap().to_owned();
    let rename = shop.admin("PATCH", &format!("/v1/admin/products/{jar}"));
    let renamed = rename.header("If-Match", &by_sale).json(&json!({ "name": "Jar" })).send().await;
    assert_eq!(renamed.ok(200)["name"], "Jar");
    assert_eq!(again(by_sale).await.status, 200);
    assert_eq!(again(renamed.header("ETag").unwrap().to_owned()).await.status, 304);
    shop.close().await;
}

#[actix_web::test]
async fn a_change_needs_to_know_what_it_changes() {
    let shop = Shop::open().await;
    let made = shop
        .product(5, json!({ "sale": { "per_customer_limit": 2, "closes_at": "2999-01-01T00:00:00Z" } }))
        .await;
    let jar = id(&made);
    let (page, door) = (format!("/v1/products/{jar}"), format!("/v1/admin/products/{jar}"));
    let change =
        |tag: String, body: Value| shop.admin("PATCH", &door).header("If-Match", &tag).json(&body).send();

    shop.admin("PATCH", &door)
        .json(&json!({ "name": "Jar" }))
        .send()
        .await
        .problem(428, "precondition_required");
    change("\"0000000000000000-0000000000000000\"".into(), json!({ "name": "Jar" }))
        .await
        .problem(412, "precondition_failed");
    for nothing in ["nonsense", "\"*\"", "\"x\", *"] {
        change(nothing.into(), json!({ "name": "Jar" })).await.problem(412, "precondition_failed");
    }

    let etag = shop.get(&page).send().await.header("ETag").unwrap().to_owned();
    // A sale in between is no reason to refuse.
    shop.order(1, &jar, 1).send().await.ok(201);
    let body = json!({ "price": { "amount": 1_500, "currency": "KRW" }, "sale": { "closes_at": null, "hold_seconds": 5 } });
    let changed = change(etag.clone(), body.clone()).await;
    let seen = changed.ok(200);
    assert_eq!(seen["price"]["amount"], 1_500);
    assert_eq!(
        seen["sale"],
        json!({ "opens_at": null, "closes_at": null, "per_customer_limit": 2, "hold_seconds": 5, "state": "open" })
    );
    change(etag, body).await.problem(412, "precondition_failed");
    // What a change rests on is exact within the tag, weak as that is.
    let strong = changed.header("ETag").unwrap().strip_prefix("W/").unwrap().to_owned();
    let changed = change(strong, json!({ "name": "Jar" })).await;
    assert_eq!(changed.ok(200)["name"], "Jar");
    assert_eq!(shop.get(&page).send().await.ok(200)["price"]["amount"], 1_500);

    let etag = changed.header("ETag").unwrap().to_owned();
    let names: Vec<String> = (0..8).map(|n| format!("Jar {n}")).collect();
    let race = join_all(names.iter().map(|name| change(etag.clone(), json!({ "name": name })))).await;
    assert_eq!(race.iter().filter(|reply| reply.status == 200).count(), 1, "{race:?}");
    assert!(race.iter().filter(|reply| reply.status != 200).all(|reply| reply.status == 412));

    for (body, pointer) in [
        (json!({ "stock": 5 }), "/stock"),
        (json!({ "id": jar }), "/id"),
        (
            json!({ "sale": { "opens_at": "2999-01-01T00:00:00Z", "closes_at": "2998-01-01T00:00:00Z" } }),
            "/sale/closes_at",
        ),
        (json!({ "name": "" }), "/name"),
    ] {
        assert_eq!(change("*".into(), body).await.invalid(), pointer);
    }
    let other = shop.product(1, json!({ "sku": "TAKEN" })).await;
    assert_eq!(change("*".into(), json!({ "sku": "TAKEN" })).await.invalid(), "/sku");
    assert_eq!(id(&other).len(), 31);
    shop.close().await;
}

/// RFC 7396: null takes a value away, where a product can be without it.
#[actix_web::test]
async fn null_takes_away_what_a_product_can_be_without() {
    let shop = Shop::open().await;
    let sale = json!({
        "opens_at": "2020-01-01T00:00:00.000Z", "closes_at": "2999-01-01T00:00:00.000Z", "per_customer_limit": 2, "hold_seconds": 60,
    });
    let words = json!({ "description": "White.", "image_url": "/i.jpg", "tags": ["new"], "sale": sale });
    let made = shop.product(5, words).await;
    let door = format!("/v1/admin/products/{}", id(&made));
    let change = |body: Value| shop.admin("PATCH", &door).header("If-Match", "*").json(&body).send();
    let described = pointer(&["components", "schemas", "ProductPatch"]);
    for field in ["sku", "name", "description", "price", "tags", "sale"] {
        let told = change(json!({ "image_url": null, field: null })).await;
        assert_eq!(told.invalid(), format!("/{field}"));
        assert!(complaint(&described, &json!({ field: null })).is_some(), "{field}");
    }
    // What is left out stays, at every depth.
    let mut now = change(json!({ "sale": { "hold_seconds": null } })).await.ok(200);
    assert_eq!(now["sale"]["hold_seconds"], 600);
    now["sale"]["hold_seconds"] = json!(60);
    for field in ["sku", "name", "description", "price", "image_url", "tags", "sale"] {
        assert_eq!(now[field], made[field], "{field}");
    }
    assert_eq!(complaint(&described, &json!({ "image_url": null, "sale": { "hold_seconds": null } })), None);
    let every = json!({ "opens_at": null, "closes_at": null, "per_customer_limit": null });
    let bare = change(json!({ "image_url": null, "sale": every })).await.ok(200);
    let sale = json!({
        "opens_at": null, "closes_at": null, "per_customer_limit": null, "hold_seconds": 600, "state": "open",
    });
    assert_eq!((&bare["sale"], &bare["image_url"]), (&sale, &Value::Null));
    shop.close().await;
}
