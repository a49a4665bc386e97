//! A cluster, and a server behind sentinels: the same mirror, found another way, by a user with the rights that docs/operating.md gives.

use std::time::Duration;

use stockade_servers::{Redis, Sentinel};

use super::support::{Shop, rights};
use super::{HEARD_WITHIN, is_mirrored, node, place, until};
use stockade::actors::revocations::Revocations;

/// A product is mirrored there, and watched.
async fn mirrors(url: &str) {
    let shop = Shop::open_with(|config| config.store.redis = Some(place(url))).await;
    let node = node(url, &Revocations::default());
    let products = [shop.stocked(5).await, shop.stocked(6).await, shop.stocked(7).await];
    for product in &products {
        until(async || is_mirrored(&shop, &node, product).await).await;
    }
    let mut changes = node.reader().watch(products[0].parse().unwrap()).unwrap();
    shop.order(1, &products[0], 1).send().await.ok(201);
    let heard = changes.wait_for(|view| view.as_ref().is_some_and(|view| view.counts.held == 1));
    tokio::time::timeout(HEARD_WITHIN, heard).await.expect("a change").unwrap();
    shop.close().await;
    node.stop().await;
}

#[actix_web::test]
async fn a_cluster_keeps_the_mirror() {
    let redis = Redis::cluster().await.unwrap();
    let [.., besides] = rights::acls();
    mirrors(&format!("redis-cluster://{}", rights::user_of(&redis, Some(besides)).await)).await;
    assert_eq!(rights::refusals(&redis).await, Vec::<String>::new());
}

#[actix_web::test]
async fn sentinels_say_where_the_mirror_is() {
    let redis = Redis::started().await.unwrap();
    let sentinel = Sentinel::started(&redis).await.unwrap();
    let [_, besides, _] = rights::acls();
    rights::user_of(&redis, Some(besides)).await;
    let url = sentinel.url();
    let (_, place) = url.split_once('@').unwrap();
    mirrors(&format!("redis-sentinel://stockade:PASSWORD@{place}")).await;
    assert_eq!(rights::refusals(&redis).await, Vec::<String>::new());
}

/// A server that speaks no TLS is away, and no more than that.
#[actix_web::test]
async fn a_server_without_tls_is_not_believed() {
    let redis = Redis::started().await.unwrap();
    let node = node(&redis.url().replace("redis://", "rediss://"), &Revocations::default());
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!node.redis_is_up());
    node.stop().await;
}
