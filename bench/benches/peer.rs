//! A request from node to node and its answer back: both sides on one thread, over loopback, with so many in flight at once.
//!
//! What is printed is the processor time of the whole, kernel and encryption included: asking, encoding, sealing, writing, reading,
//! opening, decoding, a task for the answer, and the same way back.
//!
//! `cargo bench -p stockade-bench --bench peer`

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use actix_web::web::Bytes;
use rustix::time::{ClockId, clock_gettime};
use stockade::config::MasterKeys;
use stockade::peer::{Body, Client, Desk, Elsewhere, Link, PeerKeys, Reply, Request, Side, serve};
use tokio::net::TcpListener;
use tokio::task::{LocalSet, spawn_local};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const REQUESTS: usize = 400_000;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for at_once in [1, 16, 256, 2_048] {
        LocalSet::new().block_on(&runtime, round(at_once, REQUESTS.min(at_once * 40_000)));
    }
}

async fn round(at_once: usize, requests: usize) {
    let keys = PeerKeys::of(&MasterKeys::one([7; 32])).expect("keys");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let link = Link::to(listener.local_addr().expect("an address").to_string(), keys.clone());
    let (stream, _) = listener.accept().await.expect("a connection");
    spawn_local(serve(stream, keys, Rc::new(Till)));
    link.ask(order()).await.expect("an answer");
    let before = cpu_ns();
    let buyers: Vec<_> = (0..at_once)
        .map(|_| {
            let link = link.clone();
            spawn_local(async move {
                for _ in 0..requests / at_once {
                    link.ask(order()).await.expect("an answer");
                }
            })
        })
        .collect();
    for buyer in buyers {
        buyer.await.expect("a buyer");
    }
    let each = (cpu_ns() - before) as f64 / requests as f64;
    let made = {
        let before = cpu_ns();
        (0..10_000).for_each(|_| drop((std::hint::black_box(order()), std::hint::black_box(created()))));
        (cpu_ns() - before) as f64 / 10_000.0
    };
    println!(
        "{at_once:>5} at once: {:.2} µs a request, of which {:.2} µs make it and its answer",
        each / 1e3,
        made / 1e3
    );
}

fn cpu_ns() -> i64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

fn headers(of: &[(&str, &str)]) -> Vec<(String, Vec<u8>)> {
    of.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect()
}

fn order() -> Request {
    let token = format!("Bearer {}", "x".repeat(120));
    Request {
        method: "POST".to_owned(),
        target: "/v1/orders".to_owned(),
        from: Some(Client { address: [10, 1, 2, 3].into(), is_exempt: false }),
        side: Side::Shop,
        hops: 0,
        session: 17,
        headers: headers(&[
            ("host", "shop.example.com"),
            ("authorization", &token),
            ("content-type", "application/json"),
            ("idempotency-key", "\"8e03978e-40d5-43e8-bc93-6894a57f9324\""),
            ("accept", "*/*"),
        ]),
        body: Bytes::from_static(
            br#"{"lines":[{"product_id":"prod_01jb3x9n4y8v2k6m0q7r5t1w3z","quantity":1}]}"#,
        ),
        patience: Duration::from_secs(5),
    }
}

fn created() -> Reply {
    Reply {
        status: 201,
        headers: headers(&[
            ("content-type", "application/json"),
            ("location", "/v1/orders/ord_01jb3x9n4y8v2k6m0q7r5t1w3z"),
            ("x-request-id", "01jb3x9n4y8v2k6m0q7r5t1w3z"),
        ]),
        body: Body::Whole(Bytes::from_static(&[b'x'; 400])),
    }
}

struct Till;

impl Desk for Till {
    fn answer(&self, _: Request) -> Pin<Box<dyn Future<Output = Result<Reply, Elsewhere>>>> {
        Box::pin(async { Ok(created()) })
    }

    fn turn_away(&self, _: &str, _: &[(String, Vec<u8>)]) -> Reply {
        created()
    }
}
