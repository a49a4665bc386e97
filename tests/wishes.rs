//! The doors to wish lists.

mod support;

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::{Value, json};
use stockade::domain::user::Role;
use stockade::domain::wish::WISHES_MAX;
use support::{Reply, Shop, id};

async fn wish(shop: &Shop, who: u64, product: &str) -> Reply {
    shop.by(who, "PUT", &format!("/v1/wishes/{product}")).send().await
}

async fn unwish(shop: &Shop, who: u64, product: &str) -> Reply {
    shop.by(who, "DELETE", &format!("/v1/wishes/{product}")).send().await
}

async fn wishes(shop: &Shop, who: u64) -> Vec<Value> {
    let page = shop.by(who, "GET", "/v1/wishes?limit=100").send().await.ok(200);
    assert_eq!(page["next_cursor"], Value::Null);
    page["data"].as_array().unwrap().clone()
}

fn ids(products: &[Value]) -> Vec<String> {
    products.iter().map(id).collect()
}

#[actix_web::test]
async fn a_product_is_wished_for_once_shown_as_in_the_catalogue_and_survives_a_restart() {
    let shop = Shop::open().await;
    let (jar, cup) = (shop.stocked(5).await, shop.stocked(0).await);
    for product in [&jar, &cup, &jar] {
        assert_eq!(wish(&shop, 1, product).await.status, 204);
        shop.clock.advance(1_000);
    }
    wish(&shop, 2, &cup).await;
    let listed = wishes(&shop, 1).await;
    assert_eq!(ids(&listed), [cup.clone(), jar.clone()], "newest first, each once");
    let shown = shop.get(&format!("/v1/products/{jar}")).send().await.ok(200);
    assert_eq!(listed[1], shown);
    // The stock is of this moment.
    shop.order(3, &jar, 5).send().await.ok(201);
    assert_eq!(wishes(&shop, 1).await[1]["stock"]["sold_out"], true);

    let shop = shop.reopen().await;
    assert_eq!(ids(&wishes(&shop, 1).await), [cup.clone(), jar.clone()]);
    for _ in 0..2 {
        assert_eq!(unwish(&shop, 1, &cup).await.status, 204);
    }
    assert_eq!(ids(&wishes(&shop, 1).await), [jar]);
    assert_eq!(ids(&wishes(&shop, 2).await), [cup], "somebody else's stays");
    shop.close().await;
}

#[actix_web::test]
async fn an_archived_product_stays_and_says_so_and_one_that_is_not_there_is_not_found() {
    let shop = Shop::open().await;
    let jar = shop.stocked(5).await;
    wish(&shop, 1, &jar).await;
    shop.admin("DELETE", &format!("/v1/admin/products/{jar}")).send().await;
    assert_eq!(wishes(&shop, 1).await[0]["sale"]["state"], "archived");
    for nobodys in ["prod_01h455vb4pex5vsknk084sn02q", "order_01h455vb4pex5vsknk084sn02q", "nonsense", "%00"]
    {
        wish(&shop, 1, nobodys).await.problem(404, "not_found");
    }
    assert_eq!(unwish(&shop, 1, "prod_01h455vb4pex5vsknk084sn02q").await.status, 204);
    unwish(&shop, 1, "nonsense").await.problem(404, "not_found");
    shop.ask("GET", "/v1/wishes").send().await.problem(401, "unauthenticated");
    let admin = shop.token(9, Role::Admin);
    shop.ask("GET", "/v1/wishes").bearer(&admin).send().await.problem(403, "forbidden");
    shop.close().await;
}

#[actix_web::test]
async fn a_list_is_bounded_and_read_page_by_page() {
    let shop = Shop::open().await;
    let made = join_all((0..=WISHES_MAX).map(|_| shop.stocked(1))).await;
    let (last, most) = made.split_last().unwrap();
    // All at once: none is lost, and none stands twice.
    let heard = join_all(most.iter().map(|product| wish(&shop, 1, product))).await;
    assert!(heard.iter().all(|reply| reply.status == 204));
    let problem = wish(&shop, 1, last).await.problem(422, "validation_failed");
    assert_eq!(problem["limit"], WISHES_MAX as u64);
    assert_eq!(wish(&shop, 1, &most[7]).await.status, 204, "what is in it still is");

    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = shop.by(1, "GET", &format!("/v1/wishes?limit=7{cursor}")).send().await.ok(200);
        seen.extend(ids(page["data"].as_array().unwrap()));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
        // What goes meanwhile moves nothing else.
        unwish(&shop, 1, seen.last().unwrap()).await;
    }
    assert_eq!(seen.len(), WISHES_MAX);
    assert_eq!(seen.iter().collect::<BTreeSet<_>>(), most.iter().collect());
    for bad in
        ["cursor=nonsense", "cursor=-", "cursor=1-order_01h455vb4pex5vsknk084sn02q", "limit=0", "limit=101"]
    {
        shop.by(1, "GET", &format!("/v1/wishes?{bad}")).send().await.invalid();
    }
    shop.by(1, "GET", "/v1/wishes?whatever=1").send().await.ok(200);
    shop.close().await;
}

#[actix_web::test]
async fn wishes_are_exported_and_go_with_the_account() {
    let shop = Shop::open().await;
    let jar = shop.stocked(5).await;
    let mina = shop.newcomer(1).await;
    let pair = shop.log_in(&mina).await;
    let path = format!("/v1/wishes/{jar}");
    assert_eq!(shop.as_of(&pair, "PUT", &path).send().await.status, 204);
    let told = shop.as_of(&pair, "GET", "/v1/users/me/export").send().await.ok(200);
    assert_eq!(told["wishes"][0]["product_id"], json!(jar));
    let user: stockade::domain::id::UserId = shop.id_of(&pair).await.parse().unwrap();
    let erase = json!({ "password": mina.password });
    assert_eq!(shop.as_of(&pair, "DELETE", "/v1/users/me").json(&erase).send().await.status, 204);
    let folder = shop.stop().await;
    let tables = stockade::persistence::Tables::read_only(folder.path());
    assert!(tables.wishes().of_user(user).await.unwrap().is_empty());
}
