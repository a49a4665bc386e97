//! Who somebody is, is found out at the node that his connection comes in at, with that node's own proxies; and the node that answers
//! counts him as if he had come to it.

use super::Cluster;
use super::support::{Person, Process};

/// Tries a password, as somebody whom a proxy says to be there. How it was answered.
async fn try_from(node: &Process, person: &Person, address: &str) -> u16 {
    let asking = node.post("/v1/sessions", &person.credentials()).header("X-Forwarded-For", address);
    asking.send().await.status.as_u16()
}

fn wrong(person: &Person) -> Person {
    Person { password: "not the password".to_owned(), ..person.clone() }
}

#[actix_web::test]
async fn the_node_that_somebody_comes_to_says_who_he_is() {
    let cluster = Cluster::open().await;
    // It believes nobody, and the one before it its proxy.
    let serving = cluster.start(0).await;
    let proxied = [("STOCKADE_ROLES", "gateway"), ("STOCKADE_TRUSTED_PROXIES", "127.0.0.0/8")];
    let gateway = cluster.stand_by_with(1, &proxied).await;
    let mina = Person::number(1);
    serving.newcomer(&mina).await;

    for _ in 0..5 {
        assert_eq!(try_from(&gateway, &wrong(&mina), "203.0.113.7").await, 401);
    }
    assert_eq!(try_from(&gateway, &mina, "203.0.113.7").await, 429);
    assert_eq!(try_from(&gateway, &mina, "203.0.113.99, 203.0.113.7").await, 429);
    assert_eq!(try_from(&gateway, &mina, "203.0.113.8").await, 201);
    // An address has caps of its own, there as here: whoever stands before it is not exempt because its proxy is.
    for number in 0..20 {
        assert_eq!(try_from(&gateway, &Person::number(100 + number), "2001:db8:7:7::1").await, 401);
    }
    assert_eq!(try_from(&gateway, &mina, "2001:db8:7:7:ffff::2").await, 429);
    assert_eq!(try_from(&gateway, &mina, "2001:db8:7:8::1").await, 201);

    // Where nobody is believed whoever says so is one and the same.
    for number in 0..5 {
        assert_eq!(try_from(&serving, &wrong(&mina), &format!("198.51.100.{number}")).await, 401);
    }
    assert_eq!(try_from(&serving, &mina, "198.51.100.99").await, 429);
}

#[actix_web::test]
async fn a_header_that_the_first_node_does_not_believe_is_believed_by_none() {
    let mut cluster = Cluster::open().await;
    cluster.settings.push(("STOCKADE_TRUSTED_PROXIES", "127.0.0.0/8".to_owned()));
    let serving = cluster.start(0).await;
    let stubborn = [("STOCKADE_ROLES", "gateway"), ("STOCKADE_TRUSTED_PROXIES", "192.0.2.1")];
    let gateway = cluster.stand_by_with(1, &stubborn).await;
    let mina = Person::number(1);
    serving.newcomer(&mina).await;
    for number in 0..5 {
        assert_eq!(try_from(&gateway, &wrong(&mina), &format!("203.0.113.{number}")).await, 401);
    }
    assert_eq!(try_from(&gateway, &mina, "203.0.113.99").await, 429);
    assert_eq!(try_from(&serving, &mina, "203.0.113.1").await, 201);
}
