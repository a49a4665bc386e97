//! Redis is flushed, killed and comes back empty, or hangs, while a crowd buys: everybody gets an answer in its own time, the shop says what
//! is wrong and stays open, and the mirror shows what the owner does soon after.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use stockade::domain::user::Role;
use stockade::persistence::redis::ANSWER_WITHIN;
use stockade_servers::Redis;

use super::support::{Shop, Stalls, client, one_line};
use super::{is_mirrored, neighbour, shop_on, until};

/// As long as an answer matters to whoever asked, on whatever machine this runs.
const ORDER_MAX: Duration = Duration::from_secs(20);
/// Half are answered sooner: whoever waited for Redis would wait as long as that for each.
const USUAL_MAX: Duration = ANSWER_WITHIN;
const BUYERS: u64 = 8;
/// Between two orders of one buyer.
const THINKS: Duration = Duration::from_millis(5);

/// Buyers who order one after the other, each answer with its time.
struct Crowd {
    over: Arc<AtomicBool>,
    times: Arc<Mutex<Vec<Duration>>>,
    buying: Vec<tokio::task::JoinHandle<()>>,
}

impl Crowd {
    fn comes(shop: &Shop, product: &str) -> Crowd {
        let (over, times) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Vec<Duration>>>::default());
        let buying = (1..=BUYERS).map(|who| {
            let (over, times, client) = (over.clone(), times.clone(), client());
            let (token, body) = (shop.token(who, Role::Shopper), one_line(product, 1));
            let place = format!("http://{}/v1/orders", shop.app().addr());
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    let (asked, stalls) = (Instant::now(), Stalls::looked_for());
                    let answer = client.post(&place).bearer_auth(&token).json(&body).send().await.unwrap();
                    let (status, text) = (answer.status(), answer.text().await.unwrap());
                    // A disk that stands still for as long as an answer matters keeps everybody from buying: that is not Redis.
                    let is_away = status == 503 && text.contains("owner_unavailable");
                    if !is_away || !stalls.were_seen() {
                        assert_eq!(status, 201, "{text}");
                        times.lock().unwrap().push(asked.elapsed());
                    }
                    tokio::time::sleep(THINKS).await;
                }
            })
        });
        Crowd { buying: buying.collect(), over, times }
    }

    /// How many orders there were meanwhile, in what time half were answered, and the slowest.
    fn since(&self) -> (usize, Duration, Duration) {
        let mut times = std::mem::take(&mut *self.times.lock().unwrap());
        times.sort();
        let at = |place: usize| times.get(place).copied().unwrap_or_default();
        (times.len(), at(times.len() / 2), at(times.len().saturating_sub(1)))
    }

    async fn leaves(self) {
        self.over.store(true, Ordering::Relaxed);
        for buyer in self.buying {
            buyer.await.unwrap();
        }
    }
}

/// Somebody else tells Redis something.
async fn said(server: &Redis, words: &[&str]) {
    let client = redis::Client::open(server.url()).unwrap();
    let mut link = client.get_multiplexed_async_connection().await.unwrap();
    redis::cmd(words[0]).arg(&words[1..]).exec_async(&mut link).await.unwrap();
}

async fn degraded(shop: &Shop) -> Value {
    // The shop is open all the time.
    shop.get("/readyz").send().await.ok(200)["degraded"].clone()
}

#[actix_web::test]
async fn orders_go_on_whatever_happens_to_redis_and_the_mirror_mends_itself() {
    let mut server = Redis::started().await.unwrap();
    let shop = Shop::open_with(|config| {
        config.store.redis = Some(super::place(&server.url()));
        config.limits.order_rate_per_user = 1_000_000;
        config.limits.order_burst_per_user = 1_000_000;
    })
    .await;
    let node = neighbour(&server).await;
    let (product, quiet) = (shop.stocked(10_000_000).await, shop.stocked(3).await);
    until(async || is_mirrored(&shop, &node, &quiet).await).await;
    let crowd = Crowd::comes(&shop, &product);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (orders, usual, slowest) = crowd.since();
    println!("as usual: {orders} orders, half within {usual:?}, the slowest {slowest:?}");
    assert!(orders > 0);
    for loss in ["flushed", "full", "killed, and empty again", "stopped"] {
        let begun = Instant::now();
        match loss {
            "flushed" => {
                said(&server, &["FLUSHALL"]).await;
            }
            "full" => {
                said(&server, &["CONFIG", "SET", "maxmemory", "1"]).await;
                until(async || degraded(&shop).await == json!(["mirror_behind"])).await;
                said(&server, &["CONFIG", "SET", "maxmemory", "0"]).await;
            }
            "stopped" => {
                let pid = Pid::from_raw(server.pid().unwrap() as i32).unwrap();
                kill_process(pid, Signal::STOP).unwrap();
                until(async || degraded(&shop).await == json!(["redis_unavailable"])).await;
                println!("  degraded is told after {:?}", begun.elapsed());
                tokio::time::sleep(Duration::from_secs(1)).await;
                assert!(node.reader().stock_of(quiet.parse().unwrap()).await.is_none());
                kill_process(pid, Signal::CONT).unwrap();
            }
            _ => {
                server.kill().unwrap();
                until(async || degraded(&shop).await == json!(["redis_unavailable"])).await;
                server.forget().unwrap();
                tokio::time::sleep(Duration::from_secs(1)).await;
                server.start().await.unwrap();
            }
        }
        let back = Instant::now();
        until(async || is_mirrored(&shop, &node, &quiet).await).await;
        until(async || degraded(&shop).await == json!([])).await;
        let mended = back.elapsed();
        let (orders, usual, slowest) = crowd.since();
        println!(
            "{loss}: mended after {mended:?}; {orders} orders meanwhile, half within {usual:?}, the slowest {slowest:?}"
        );
        assert!(orders > 0 && usual < USUAL_MAX && slowest < ORDER_MAX, "{loss}: {usual:?}, {slowest:?}");
    }
    crowd.leaves().await;
    until(async || is_mirrored(&shop, &node, &product).await).await;
    shop.close().await;
    node.stop().await;
}

/// What one buyer may try counts for all nodes together while they share a Redis, and for each node by itself while that is away.
#[actix_web::test]
async fn a_node_counts_what_one_buyer_tries_by_itself_while_redis_is_away() {
    let mut redis = Redis::started().await.unwrap();
    let shop = Shop::open_with(|config| {
        config.store.redis = Some(super::place(&redis.url()));
        config.limits.order_rate_per_user = 1;
        config.limits.order_burst_per_user = 3;
    })
    .await;
    until(async || shop.app().mirror().unwrap().redis_is_up()).await;
    redis.kill().unwrap();
    until(async || degraded(&shop).await == json!(["redis_unavailable"])).await;
    let product = shop.stocked(100).await;
    // At once: what a slow machine is given back meanwhile is one a second.
    let told = join_all((0..50).map(|_| shop.order(1, &product, 1).send())).await;
    let (had, refused): (Vec<_>, Vec<_>) = told.iter().partition(|answer| answer.status == 201);
    assert!(had.len() >= 3 && !refused.is_empty(), "{} of {} were placed", had.len(), told.len());
    for answer in refused {
        answer.problem(429, "rate_limited");
    }
    shop.order(2, &product, 1).send().await.ok(201);
    assert!(!shop.app().mirror().unwrap().redis_is_up());
    shop.close().await;
}

/// Nobody waits for Redis to open, or to close.
#[actix_web::test]
async fn a_shop_opens_and_closes_while_redis_is_away_and_finds_it_later() {
    let mut redis = Redis::install().unwrap();
    let shop = Shop::open_with(|config| config.store.redis = Some(super::place(&redis.url()))).await;
    let product = shop.stocked(10).await;
    shop.order(1, &product, 1).send().await.ok(201);
    until(async || degraded(&shop).await == json!(["redis_unavailable"])).await;
    redis.start().await.unwrap();
    let node = neighbour(&redis).await;
    until(async || is_mirrored(&shop, &node, &product).await).await;
    redis.kill().unwrap();
    let begun = Instant::now();
    shop.close().await;
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    node.stop().await;
}

/// Where operators have a listener of their own, the shop's does not tell what is wrong.
#[actix_web::test]
async fn what_is_degraded_is_told_to_operators_alone() {
    let redis = Redis::install().unwrap();
    let shop = Shop::open_with(|config| {
        config.store.redis = Some(super::place(&redis.url()));
        config.http.ops_addr = Some(([127, 0, 0, 1], 0).into());
    })
    .await;
    until(async || {
        shop.ops("GET", "/readyz").send().await.ok(200)["degraded"] == json!(["redis_unavailable"])
    })
    .await;
    assert_eq!(degraded(&shop).await, json!([]));
    shop.close().await;
}

/// An owner that went to rest published something that was never copied: it is not told as if it were new.
#[actix_web::test]
async fn what_rested_while_redis_was_away_is_asked_of_its_owner() {
    let redis = Redis::started().await.unwrap();
    let (shop, node) = (shop_on(&redis).await, neighbour(&redis).await);
    let product = shop.stocked(10).await;
    until(async || is_mirrored(&shop, &node, &product).await).await;
    let before = redis.url();
    // The next opening is another generation, in which nobody has asked for the product yet.
    let shop = shop.reopen_with(|config| config.store.redis = Some(super::place(&before))).await;
    let fresh = shop.stocked(1).await;
    until(async || is_mirrored(&shop, &node, &fresh).await).await;
    assert!(node.reader().stock_of(product.parse().unwrap()).await.is_none());
    // Whoever asks the owner has it loaded, published and copied.
    shop.app().directory().view(product.parse().unwrap()).await.unwrap();
    until(async || is_mirrored(&shop, &node, &product).await).await;
    shop.close().await;
    node.stop().await;
}
