//! A node that takes the lead and cannot open the shop there, because of the database, leads when it can.

use rustix::process::Signal;
use sqlx::{Connection, Executor, MySqlConnection};
use stockade::domain::user::Role;

use super::support::{Process, wait_for};
use super::{Cluster, has_one, takes_over};

/// What whoever opens the shop asks for first is out of its reach.
async fn set_aside(cluster: &Cluster, is_aside: bool) {
    let mut operator = MySqlConnection::connect(&cluster.database.url()).await.unwrap();
    let sql = match is_aside {
        true => "rename table users to users_aside",
        false => "rename table users_aside to users",
    };
    operator.execute(sql).await.unwrap();
}

/// The lead dies, and whoever follows it has taken the lead and cannot open, and then not even join: the database is away.
async fn bereft() -> (Cluster, String, Process) {
    let mut cluster = Cluster::open().await;
    let mut serving = cluster.start(0).await;
    let product = cluster.product(&serving).await;
    let next = cluster.stand_by(1, "owner,gateway").await;
    serving.kill();
    set_aside(&cluster, true).await;
    next.says("the store cannot be read back yet").await;
    cluster.database.kill().unwrap();
    next.says("this node cannot join the others yet").await;
    (cluster, product, next)
}

#[actix_web::test]
async fn whoever_follows_and_cannot_open_leads_when_the_database_lets_it() {
    let (mut cluster, product, mut next) = bereft().await;
    // More often than what does not come back by itself is tried.
    let tries = |log: &str| log.matches("this node cannot join the others yet").count();
    wait_for(|| (tries(&next.log()) > 6).then_some(())).await;
    cluster.database.start().await.unwrap();
    set_aside(&cluster, false).await;
    takes_over(&mut next).await;
    has_one(&cluster, &next, &cluster.token(1, Role::Shopper), &product).await;
    next.stop().await;
    let said = cluster.audit();
    assert!(said.contains("everything adds up"), "{said}");
}

#[actix_web::test]
async fn whoever_waits_for_the_database_ends_when_it_is_told_to() {
    let (_cluster, _, mut next) = bereft().await;
    next.signal(Signal::TERM);
    let ended = next.ends().await;
    assert!(ended.success(), "{}", next.log());
}
