//! A node that is asked to go gives what it owns and leads to another one, and nobody is refused for it.

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::Ordering;

use rustix::process::Signal;
use stockade::http::front::WAIT_MAX;

use super::support::Stalls;
use super::{Cluster, Crowd, books_close};

/// Whoever asks another node notices a hand-over as a moment's wait, and whoever asks the one that goes neither.
#[actix_web::test]
async fn a_node_that_goes_hands_over_and_refuses_nobody() {
    let cluster = Cluster::open().await;
    let mut going = cluster.start(0).await;
    let product = cluster.product(&going).await;
    let mut next = cluster.stand_by(1, "owner,gateway").await;
    let gateway = cluster.stand_by(2, "gateway").await;
    let stalls = Stalls::looked_for();
    let crowd = Crowd::come(&cluster, &gateway, &product);
    for _ in 0..2 {
        crowd.goes_on(200).await;
        going.signal(Signal::TERM);
        let ended = going.ends().await;
        assert!(ended.success(), "{}", going.log());
        next.open().await;
        crowd.goes_on(200).await;
        going = next;
        next = cluster.stand_by(0, "owner,gateway").await;
    }
    assert!(crowd.refused.load(Ordering::Relaxed) == 0 || stalls.were_seen(), "{}", gateway.log());
    // Not judged here: this machine may be busy with other tests.
    println!("the longest that anybody waited: {} ms", crowd.longest_us.load(Ordering::Relaxed) / 1_000);
    next.stop().await;
    books_close(&cluster, going, &product, crowd).await;
}

/// Whoever sends half a request and waits keeps nobody from buying while a node hands over.
#[actix_web::test]
async fn a_slow_caller_does_not_hold_up_a_hand_over() {
    let cluster = Cluster::open().await;
    let going = cluster.start(0).await;
    let product = cluster.product(&going).await;
    let mut next = cluster.stand_by(1, "owner,gateway").await;
    let stalls = Stalls::looked_for();
    let crowd = Crowd::come(&cluster, &next, &product);
    crowd.goes_on(100).await;
    let mut slow = TcpStream::connect(going.addr()).unwrap();
    let head = "POST /v1/orders HTTP/1.1\r\nHost: shop\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n{";
    slow.write_all(head.as_bytes()).unwrap();
    going.signal(Signal::TERM);
    // Before whoever waits at the other node is turned away, and before the slow one is.
    let opened = tokio::time::timeout(WAIT_MAX, next.open()).await;
    assert!(opened.is_ok() || stalls.were_seen(), "{}", going.log());
    crowd.goes_on(100).await;
    assert!(crowd.refused.load(Ordering::Relaxed) == 0 || stalls.were_seen(), "{}", next.log());
    drop(going);
    books_close(&cluster, next, &product, crowd).await;
}
