//! The door at which nodes come in: strangers stand there too, and keep no node out.

use std::time::Duration;

use stockade::domain::user::Role;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Cluster;
use super::support::{Process, one_line};

/// Where the node answers nodes.
fn place(process: &Process) -> String {
    let log = process.log();
    let line = log.lines().find(|line| line.contains("this node takes requests")).unwrap();
    line.split_once("peers=").unwrap().1.split(' ').next().unwrap().to_owned()
}

#[actix_web::test]
async fn a_crowd_of_strangers_keeps_no_node_out() {
    let cluster = Cluster::open().await;
    let serving = cluster.start(0).await;
    let product = cluster.product(&serving).await;
    let gateway = cluster.stand_by(1, "gateway").await;
    let (place, buyer) = (place(&serving), cluster.token(1, Role::Shopper));
    let mut crowd = Vec::new();
    for _ in 0..1_500 {
        crowd.push(TcpStream::connect(&place).await.unwrap());
    }
    // The last of them, a moment before the order.
    let came = cluster.clock.nanos();
    crowd.push(TcpStream::connect(&place).await.unwrap());
    // A place was given to whoever had waited longest for it: nobody waits until the strangers have been too slow.
    let ordering = gateway.ask("POST", "/v1/orders").bearer(&buyer).json(&one_line(&product, 1)).send();
    tokio::time::timeout(Duration::from_secs(30), ordering).await.expect("strangers keep it out").ok(201);
    assert_eq!(crowd[0].read(&mut [0]).await.unwrap(), 0, "the first of them has gone");
    let last = &mut crowd[1_500];
    let is_there = tokio::time::timeout(Duration::from_millis(1), last.read(&mut [0])).await.is_err();
    let waited = Duration::from_nanos(cluster.clock.nanos() - came);
    // On a machine that was held up for so long he has gone by himself.
    assert!(is_there || waited >= Duration::from_secs(2), "the last of them has gone after {waited:?}");
}

#[actix_web::test]
async fn whoever_comes_with_another_key_is_told_of_once() {
    let cluster = Cluster::open().await;
    let serving = cluster.start(0).await;
    for _ in 0..20 {
        let mut stranger = TcpStream::connect(place(&serving)).await.unwrap();
        stranger.write_all(&[7; 48]).await.unwrap();
        assert_eq!(stranger.read(&mut [0]).await.unwrap(), 0, "nobody answers him");
    }
    let log = serving.log();
    let told: Vec<_> = log.lines().filter(|line| line.contains("does not know our key")).collect();
    assert_eq!(told.len(), 1, "{log}");
    assert!(told[0].contains("WARN") && told[0].contains("from=127.0.0.1:"), "{}", told[0]);
}
