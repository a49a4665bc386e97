//! The audit holds the mirror against the journal: what was so a moment before the end is no difference, anything else is.

use std::path::Path;

use serde_json::json;
use stockade::persistence::audit::{Mirror, Stopped, of_stopped};
use stockade_servers::Redis;

use super::support::Shop;
use super::{Store, is_mirrored, neighbour, place, shop_on, until};

const BEAT: &str = "stockade:{mirror}:beat";

async fn audited(folder: &Path, redis: &Redis) -> Mirror {
    let store = Store::open(&place(&redis.url())).unwrap();
    let report = of_stopped(Stopped::Files(folder), Some(&store), &[]).await.unwrap();
    let mirror = report.mirror.unwrap();
    assert_eq!((report.differences, report.money.differences), (Vec::new(), Vec::new()));
    mirror
}

async fn ask<T: redis::FromRedisValue>(server: &Redis, words: &[&str]) -> T {
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]).query_async(&mut connection).await.unwrap()
}

#[actix_web::test]
async fn the_audit_tells_what_the_mirror_may_not_show() {
    let redis = Redis::started().await.unwrap();
    let (shop, node) = (shop_on(&redis).await, neighbour(&redis).await);
    let (jar, cup) = (shop.stocked(9).await, shop.stocked(9).await);
    for who in 1..=3 {
        shop.order(who, &jar, 1).send().await.ok(201);
    }
    let sale = json!({ "sale": { "hold_seconds": 77 } });
    let changing =
        shop.admin("PATCH", &format!("/v1/admin/products/{cup}")).header("If-Match", "*").json(&sale);
    changing.send().await.ok(200);
    shop.admin("POST", &format!("/v1/admin/products/{cup}/pause")).send().await.ok(200);
    for product in [&jar, &cup] {
        until(async || is_mirrored(&shop, &node, product).await).await;
    }
    // A pause moves none of the counters.
    until(async || node.reader().stock_of(cup.parse().unwrap()).await.is_some_and(|(view, _)| view.paused))
        .await;
    node.stop().await;
    let folder = shop.stop().await;
    let seen = audited(folder.path(), &redis).await;
    assert_eq!((seen.shown, seen.behind, seen.left, seen.differences), (2, 0, 0, vec![]));

    // Without Redis it is sold on: what the mirror shows was so.
    let shop = Shop::open_in(folder).await;
    shop.order(4, &jar, 1).send().await.ok(201);
    let folder = shop.stop().await;
    let seen = audited(folder.path(), &redis).await;
    assert_eq!((seen.shown, seen.behind, seen.left, seen.differences), (2, 1, 0, vec![]));

    let view = format!("stockade:{{{jar}}}:view");
    let [version, body]: [String; 2] = ask(&redis, &["HMGET", &view, "version", "view"]).await;
    let (epoch, _) = version.split_once('.').unwrap();
    let other = body.replace("\"held\":3", "\"held\":2");
    assert_ne!(other, body);
    let ahead = format!("{epoch}.{:020}", 99);
    for (field, spoilt, was, told) in [
        ("view", other.as_str(), body.as_str(), "it was"),
        ("version", &ahead, &version, "where no entry ends"),
    ] {
        let _: u64 = ask(&redis, &["HSET", &view, field, spoilt]).await;
        let seen = audited(folder.path(), &redis).await;
        assert_eq!(seen.differences.len(), 1, "{:?}", seen.differences);
        assert!(
            seen.differences[0].starts_with(&jar) && seen.differences[0].contains(told),
            "{:?}",
            seen.differences
        );
        let _: u64 = ask(&redis, &["HSET", &view, field, was]).await;
    }

    // Another writer's is worth nothing, and a beat from another life says so.
    let beat: Vec<String> = ask(&redis, &["HMGET", BEAT, "epoch", "generation"]).await;
    let _: u64 = ask(&redis, &["HSET", &view, "generation", "another", "view", &other]).await;
    let seen = audited(folder.path(), &redis).await;
    assert_eq!((seen.shown, seen.left, seen.differences), (1, 1, vec![]));
    let _: u64 = ask(&redis, &["HSET", BEAT, "epoch", &format!("{:020}", 1_000)]).await;
    let seen = audited(folder.path(), &redis).await;
    assert!(matches!(&seen.differences[..], [one] if one.contains("another life")), "{:?}", seen.differences);
    let _: u64 = ask(&redis, &["HSET", BEAT, "epoch", &beat[0]]).await;
    assert_eq!(audited(folder.path(), &redis).await.differences, Vec::<String>::new());

    // A beat that says an hour later that the view is still so does not know of the fourth order.
    let beat: Vec<String> = ask(&redis, &["HMGET", BEAT, "at", "generation"]).await;
    let later = (beat[0].parse::<i64>().unwrap() + 3_600_000_000).to_string();
    let _: u64 = ask(&redis, &["HSET", &view, "generation", &beat[1], "view", &body]).await;
    assert_eq!(audited(folder.path(), &redis).await.differences, Vec::<String>::new());
    let _: u64 = ask(&redis, &["HSET", BEAT, "at", &later]).await;
    let seen = audited(folder.path(), &redis).await;
    assert!(
        matches!(&seen.differences[..], [one] if one.contains("it had moved at")),
        "{:?}",
        seen.differences
    );

    // Nothing beats: nothing is shown.
    let _: u64 = ask(&redis, &["DEL", BEAT]).await;
    assert_eq!(audited(folder.path(), &redis).await.shown, 0);

    // Whoever names a mirror that cannot be asked hears of that, and of all else.
    let mut redis = redis;
    redis.stop().await.unwrap();
    let seen = audited(folder.path(), &redis).await;
    assert!(
        matches!(&seen.differences[..], [one] if one.contains("not looked at")),
        "{:?}",
        seen.differences
    );
}
