//! Nodes whose users have the rights that docs/operating.md gives them, and none besides.

use std::process::{Command, Output};
use std::time::Duration;

use reqwest::{Client, Response};
use rustix::process::Signal;
use sqlx::{Connection, Executor, MySqlConnection};
use stockade::domain::user::Role;
use stockade_servers::Redis;

use super::support::{Person, Process, SECRET, one_line, paid_with, rights, user};
use super::{COME_WITHIN, Cluster, STOCK, has_one, takes_over};

/// What a node's user of the database may not.
const NOT_IN_THE_DATABASE: [&str; 12] = [
    "create table more (id bigint)",
    "create temporary table more (id bigint)",
    "alter table orders add column more bigint",
    "create index more on orders (id)",
    "drop table orders",
    "truncate table orders",
    "create database more",
    "create user more",
    "select 1 into outfile '/tmp/stockade-may-not'",
    "load data infile '/etc/hostname' into table jobs",
    "set global innodb_flush_log_at_trx_commit = 2",
    "select * from mysql.user",
];
/// And that of Redis.
const NOT_IN_REDIS: [&str; 7] = [
    "FLUSHALL",
    "KEYS *",
    "CONFIG GET *",
    "ACL LIST",
    "GET others",
    "DEL stockade:{mirror}:others",
    "PUBLISH others word",
];

/// A node's database and Redis are those of users with few rights.
async fn limited() -> (Cluster, Redis) {
    let (mut cluster, redis) = (Cluster::open().await, Redis::started().await.unwrap());
    let mut operator = MySqlConnection::connect(&cluster.database.url()).await.unwrap();
    for statement in rights::statements() {
        operator.execute(statement).await.unwrap();
    }
    let url = format!("redis://{}", rights::user_of(&redis, None).await);
    // Of two words for one setting the last one counts.
    let besides = [
        ("STOCKADE_DATABASE_URL", of_user(&cluster, "shop", "PASSWORD")),
        ("STOCKADE_REDIS_URL", url),
        // As many as one buyer of this test wants, and so few a second that Redis remembers them for a while.
        ("STOCKADE_ORDER_RATE_PER_USER", "1".to_owned()),
        ("STOCKADE_ORDER_BURST_PER_USER", "1000".to_owned()),
    ];
    cluster.settings.extend(besides);
    (cluster, redis)
}

fn of_user(cluster: &Cluster, name: &str, password: &str) -> String {
    format!("mysql://{name}:{password}@{}/shop", cluster.database.address())
}

/// A command, as one of the users of the database.
fn run(cluster: &Cluster, words: &[&str], database: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stockade"));
    command.args(words).current_dir(cluster.folders[2].path());
    command.env("STOCKADE_JWT_SECRET", SECRET).env("STOCKADE_HTTP_ADDR", "127.0.0.1:0");
    command.envs(cluster.settings.iter().map(|(name, value)| (*name, value)));
    command.env("STOCKADE_DATABASE_URL", database).output().unwrap()
}

fn succeeds(cluster: &Cluster, words: &[&str], database: &str) {
    let told = run(cluster, words, database);
    assert!(told.status.success(), "{words:?}: {}", String::from_utf8_lossy(&told.stderr));
}

/// Waits until whoever watches is told that so many are left.
async fn shows(stream: &mut Response, left: u64) {
    let (mut seen, wanted) = (String::new(), format!("\"available\":{left}"));
    let watching = async {
        while !seen.contains(&wanted) {
            seen.push_str(&String::from_utf8_lossy(&stream.chunk().await.unwrap().unwrap()));
        }
    };
    tokio::time::timeout(COME_WITHIN, watching).await.expect("no change is told");
}

/// Orders at both nodes until Redis has heard how often; how many were ordered.
async fn orders_until_redis_counts(
    cluster: &Cluster,
    nodes: [&Process; 2],
    product: &str,
    redis: &Redis,
) -> u64 {
    let (buyer, body) = (cluster.token(1, Role::Shopper), one_line(product, 1));
    let counted = format!("EXISTS stockade:{{{}}}:tries", user(1));
    let mut ordered = 0;
    while !rights::ask::<bool>(&redis.url(), &counted).await.unwrap() {
        // Who tries less than twice within a look is told to nobody.
        for node in nodes.iter().cycle().take(8) {
            node.ask("POST", "/v1/orders").bearer(&buyer).json(&body).send().await.ok(201);
            ordered += 1;
        }
        assert!(ordered < 900, "Redis never hears of them");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    ordered
}

#[actix_web::test]
async fn nodes_do_all_they_do_with_the_rights_of_the_guide_and_may_do_nothing_else() {
    let (cluster, redis) = limited().await;
    let [owner, node, backup] =
        [("shop_owner", "OWNER_PASSWORD"), ("shop", "PASSWORD"), ("shop_backup", "BACKUP_PASSWORD")]
            .map(|(name, password)| of_user(&cluster, name, password));
    // Tables are another user's to make: a node says who is to have them made.
    let refused = run(&cluster, &["serve"], &node);
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && told.contains("run `stockade migrate`"), "{told}");
    succeeds(&cluster, &["migrate"], &owner);
    let serving = cluster.start(0).await;
    let product = cluster.product(&serving).await;
    let mut other = cluster.stand_by(1, "owner,gateway").await;
    // Both beside nodes that sell.
    succeeds(&cluster, &["migrate"], &owner);
    succeeds(&cluster, &["backup", "--to", "backup"], &backup);

    let client = Client::builder().tls_certs_only([]).build().unwrap();
    let place = format!("http://{}/v1/products/{product}/stock/stream", other.addr());
    let mut stream = client.get(place).send().await.unwrap();
    let buyer = cluster.token(1, Role::Shopper);
    let paid = paid_with(&product, 7, "tok_ok");
    serving.ask("POST", "/v1/orders").bearer(&buyer).json(&paid).send().await.ok(201);
    shows(&mut stream, STOCK - 7).await;
    let ordered = orders_until_redis_counts(&cluster, [&serving, &other], &product, &redis).await;
    shows(&mut stream, STOCK - 7 - ordered).await;

    let mina = Person::number(1);
    serving.newcomer(&mina).await;
    let pair = other.log_in(&mina).await;
    serving.as_of(&pair, "GET", "/v1/users/me").send().await.ok(200);
    assert_eq!(other.as_of(&pair, "DELETE", "/v1/sessions/current").send().await.status, 204);
    assert_eq!(serving.as_of(&pair, "GET", "/v1/users/me").send().await.status, 401);

    // One that is stopped keeps its connections: they have to be ended before another may lead.
    serving.signal(Signal::STOP);
    takes_over(&mut other).await;
    drop(serving);
    assert_eq!(other.as_of(&pair, "GET", "/v1/users/me").send().await.status, 401);
    has_one(&cluster, &other, &cluster.token(2, Role::Shopper), &product).await;
    other.stop().await;
    let said = cluster.audit();
    assert!(said.contains("everything adds up"), "{said}");
    assert_eq!(rights::refusals(&redis).await, Vec::<String>::new());

    let mut limited = MySqlConnection::connect(&node).await.unwrap();
    for statement in NOT_IN_THE_DATABASE {
        let refused = limited.execute(statement).await.map(drop).unwrap_err().to_string();
        assert!(refused.contains("denied"), "{statement}: {refused}");
    }
    let file = sqlx::query_scalar::<_, Option<Vec<u8>>>("select load_file('/etc/hostname')");
    assert_eq!(file.fetch_one(&mut limited).await.unwrap(), None);
    let limited = format!("redis://{}", rights::user_of(&redis, None).await);
    for words in NOT_IN_REDIS {
        let refused = rights::ask::<()>(&limited, words).await.unwrap_err().to_string();
        assert!(refused.contains("permissions"), "{words}: {refused}");
    }
}
