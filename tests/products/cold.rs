//! Products that nobody has bought of late, and what looking at them costs.

use std::time::Duration;

use serde_json::json;

use crate::support::{Shop, id, lines};

const SOON: Duration = Duration::from_secs(30);

/// Or whoever leafs through the whole catalogue has all of it read into memory.
#[actix_web::test]
async fn looking_at_products_has_none_of_them_loaded() {
    let shop = Shop::open().await;
    let (jar, cup) = (shop.stocked(5).await, shop.stocked(1).await);
    let order = id(&shop.order(1, &jar, 2).send().await.ok(201));
    shop.by(1, "POST", &format!("/v1/orders/{order}/cancel")).send().await.ok(200);
    let counted = [shop.counters(&jar).await, shop.counters(&cup).await];
    let folder = shop.stop().await;

    let shop = Shop::open_in(folder).await;
    let directory = shop.app().directory();
    let seen = async {
        while directory.flushed_ns() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, seen).await.expect("the flush looks whether anything is missing");
    assert_eq!(directory.loaded_count(), 0);
    assert_eq!([shop.counters(&jar).await, shop.counters(&cup).await], counted);
    let page = shop.get(&format!("/v1/products/{jar}")).send().await;
    assert_eq!(page.ok(200)["stock"]["available"], 5);
    let both = lines(&[(&jar, 2), (&cup, 3)]);
    let told = shop.by(1, "POST", "/v1/orders/preview").json(&both).send().await.ok(200);
    assert_eq!((&told["total"]["amount"], &told["lines"][1]["short"]), (&json!(5_000), &json!(2)));
    assert_eq!(directory.loaded_count(), 0);

    // The tag is the same one when its owner says it.
    let etag = page.header("ETag").unwrap();
    directory.view(jar.parse().unwrap()).await.unwrap();
    assert_eq!(directory.loaded_count(), 1);
    let again = shop.get(&format!("/v1/products/{jar}")).header("If-None-Match", etag).send().await;
    assert_eq!(again.status, 304);
    shop.close().await;
}

/// Its owner wrote it down and rests; the tables have not heard of it.
#[actix_web::test]
async fn a_product_is_shown_as_it_is_though_its_owner_rests_and_the_tables_are_behind() {
    let shop = Shop::open().await;
    let jar = shop.stocked(5).await;
    let order = id(&shop.order(1, &jar, 2).send().await.ok(201));
    shop.tables_follow().await;
    let tables = shop.hold("shop.db").await;
    shop.by(1, "POST", &format!("/v1/orders/{order}/cancel")).send().await.ok(200);
    let counted = shop.counters(&jar).await;
    shop.clock.advance(61_000);
    let product = jar.parse().unwrap();
    let at_rest = async {
        while shop.app().directory().peek(product).is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, at_rest).await.expect("nobody asks, and nothing lapses");
    assert_eq!(shop.counters(&jar).await, counted);
    tables.let_go().await;
    shop.close().await;
}
