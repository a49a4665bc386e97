//! A database that falls silent: it keeps its connections, and says nothing.

use std::time::Duration;

use stockade::domain::user::Role;

use super::support::Stalls;
use super::{COME_WITHIN, Cluster, one_line};

/// A group counts as not answered after less than a second, and whoever comes then is told so at once. One who waited for it would wait
/// for longer than this.
const TOLD_WITHIN: Duration = Duration::from_secs(2);

#[actix_web::test]
async fn whoever_comes_while_the_database_is_silent_is_told_so_at_once() {
    let cluster = Cluster::open().await;
    let serving = cluster.start(0).await;
    let product = cluster.product(&serving).await;
    let order = |who: u64| {
        let (key, token) = (format!("key-{who}"), cluster.token(who, Role::Shopper));
        serving.ask("POST", "/v1/orders").bearer(&token).key(&key).json(&one_line(&product, 1))
    };
    order(1).send().await.ok(201);
    cluster.database.pause().unwrap();
    // Decided, and nobody hears what became of it.
    let before = actix_web::rt::spawn(order(2).send_once());
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    for who in 3..=5 {
        let (stalls, began) = (Stalls::looked_for(), cluster.clock.nanos());
        let refused = order(who).send_once().await;
        let waited = cluster.since(began);
        assert!(waited < TOLD_WITHIN || stalls.were_seen(), "an answer after {waited:?}");
        refused.problem(503, "owner_unavailable");
    }
    cluster.database.wake().unwrap();
    let before = before.await.unwrap();
    assert!([201, 503].contains(&before.status.as_u16()), "{}", before.text);
    // Whoever waited has it under his key, and whoever was refused is sold to when he asks again.
    let sold = async {
        for who in 2..=5 {
            while order(who).send_once().await.status != 201 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    };
    tokio::time::timeout(COME_WITHIN, sold).await.expect("nobody can buy");
    serving.stop().await;
    let said = cluster.audit();
    assert!(said.contains("everything adds up"), "{said}");
}
