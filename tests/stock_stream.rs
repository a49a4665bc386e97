//! The stream of a product's stock, through the real application.

mod support;

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use support::{Shop, id};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(5);

/// Reads a stream event by event.
struct Events {
    answer: reqwest::Response,
    rest: String,
}

impl Events {
    fn of(answer: reqwest::Response) -> Events {
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["Content-Type"], "text/event-stream");
        assert_eq!(answer.headers()["X-Accel-Buffering"], "no");
        assert_eq!(answer.headers()["Cache-Control"], "no-store");
        Events { answer, rest: String::new() }
    }

    /// The next block of lines; `None` when the server has ended the stream.
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.rest.split_once("\n\n") {
                let block = block.to_owned();
                self.rest = rest.to_owned();
                return Some(block);
            }
            let chunk = timeout(SOON, self.answer.chunk()).await.expect("in time").ok()??;
            self.rest.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// The next event: its id and its data.
    async fn event(&mut self) -> Option<(u64, Value)> {
        loop {
            let block = self.block().await?;
            let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
            if let (Some(id), Some(data)) = (field("id: "), field("data: ")) {
                return Some((id.parse().unwrap(), serde_json::from_str(data).unwrap()));
            }
        }
    }
}

#[actix_web::test]
async fn a_stream_begins_with_what_is_and_goes_on_with_what_changes() {
    let shop = Shop::open().await;
    let jar = shop.stocked(3).await;
    let mut events = Events::of(shop.listen(&jar, None).await);
    assert_eq!(events.block().await.unwrap(), "retry: 2000");
    let (seen, stock) = events.event().await.unwrap();
    assert_eq!(seen, 1);
    assert_eq!((&stock["available"], &stock["held"], &stock["sequence"]), (&json!(3), &json!(0), &json!(1)));
    assert!(stock["as_of"].as_str().is_some());

    shop.order(1, &jar, 2).send().await.ok(201);
    let (seen, stock) = events.event().await.unwrap();
    assert_eq!((seen, &stock["available"], &stock["held"]), (2, &json!(1), &json!(2)));
    shop.get("/v1/products/prod_01h455vb4pex5vsknk084sn02q/stock/stream")
        .send()
        .await
        .problem(404, "not_found");
    shop.close().await;
}

#[actix_web::test]
async fn who_comes_back_hears_only_what_is_new() {
    let shop = Shop::open().await;
    let jar = shop.stocked(9).await;
    shop.order(1, &jar, 1).send().await.ok(201);

    let mut knows = Events::of(shop.listen(&jar, Some("2")).await);
    assert_eq!(knows.block().await.unwrap(), "retry: 2000");
    for old in ["1", "0", "nonsense", "99"] {
        let mut missed = Events::of(shop.listen(&jar, Some(old)).await);
        assert_eq!(missed.event().await.unwrap().0, 2, "{old}");
    }
    // Whoever knows the present state heard nothing of it: the first event is the next change.
    shop.order(1, &jar, 1).send().await.ok(201);
    assert_eq!(knows.event().await.unwrap().0, 3);
    shop.close().await;
}

#[actix_web::test]
async fn a_rush_is_told_in_a_few_events_and_the_last_is_the_truth() {
    let shop = Shop::open().await;
    let jar = shop.stocked(500).await;
    let mut events = Events::of(shop.listen(&jar, None).await);
    let began = std::time::Duration::from_nanos(shop.clock.nanos());
    join_all((0..500).map(|who| shop.order(who, &jar, 1).send())).await;
    let mut heard = 0;
    loop {
        let (_, stock) = events.event().await.unwrap();
        heard += 1;
        if stock["available"] == 0 {
            break;
        }
    }
    let took = std::time::Duration::from_nanos(shop.clock.nanos()) - began;
    let most = 2 + took.as_millis() / 100;
    assert!(heard <= most, "{heard} events in {took:?}");
    shop.close().await;
}

#[actix_web::test]
async fn a_shutdown_ends_every_stream() {
    let shop = Shop::open().await;
    let jar = id(&shop.product(3, json!({})).await);
    let mut events = Events::of(shop.listen(&jar, None).await);
    events.event().await.unwrap();
    let (_folder, ended) = tokio::join!(shop.stop(), async { while events.block().await.is_some() {} });
    assert_eq!(ended, ());
}

/// What was published while nobody listened is the first thing that the next one hears.
#[actix_web::test]
async fn who_listens_later_begins_with_what_is() {
    let shop = Shop::open().await;
    let jar = shop.stocked(9).await;
    let mut first = shop.listen(&jar, None).await;
    assert!(first.chunk().await.unwrap().is_some());
    shop.order(1, &jar, 1).send().await.ok(201);
    assert!(first.chunk().await.unwrap().is_some());
    drop(first);
    // With the first of these the server finds out that he has gone.
    for who in 2..6 {
        shop.order(who, &jar, 1).send().await.ok(201);
        tokio::time::sleep(std::time::Duration::from_millis(150)).await;
    }
    let mut second = shop.listen(&jar, None).await;
    let heard = second.chunk().await.unwrap().unwrap();
    let heard = String::from_utf8(heard.to_vec()).unwrap();
    assert!(heard.contains(r#""available":4,"held":5,"#), "{heard}");
    shop.close().await;
}

/// Whoever comes through a proxy of ours has no cap of connections, so it is the streams that are counted.
#[actix_web::test]
async fn one_address_has_a_hundred_streams_and_leaves_the_others_theirs() {
    let shop =
        Shop::open_with(|config| config.http.trusted_proxies = vec!["127.0.0.1".parse().unwrap()]).await;
    let jar = shop.stocked(3).await;
    // One that is made in no time: the first is to have asked before the last has connected.
    let client = reqwest::Client::builder().tls_certs_only([]).build().unwrap();
    let listen = async |from: &str| {
        let url = format!("http://{}/v1/products/{jar}/stock/stream", shop.app().addr());
        client.get(url).header("X-Forwarded-For", from).send().await.unwrap()
    };
    let mut open = join_all((0..120).map(|_| listen("203.0.113.9"))).await;
    let refused: Vec<_> = open.extract_if(.., |answer| answer.status() != 200).collect();
    assert_eq!((open.len(), refused.len()), (100, 20));
    for answer in &refused {
        assert_eq!(answer.status(), 429);
        let header = |name| answer.headers()[name].to_str().unwrap();
        assert!(header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds >= 10));
        assert_eq!(header("ratelimit-policy"), r#""streams";q=100;qu="concurrent-requests""#);
        assert_eq!(header("ratelimit"), r#""streams";r=0;t=10"#);
    }
    Events::of(listen("203.0.113.10").await);
    // Whoever goes is missed when he is next told that the connection lives.
    open.truncate(50);
    let again = async {
        while listen("203.0.113.9").await.status() != 200 {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    timeout(12 * SOON, again).await.expect("there is room again");
    shop.close().await;
}
