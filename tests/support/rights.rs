//! The users of docs/operating.md: what stands there is what a test says to a database and to a Redis, passwords and all.
#![allow(dead_code)]

use redis::{FromRedisValue, RedisResult, Value};
use stockade_servers::Redis;

const GUIDE: &str = include_str!("../../docs/operating.md");

/// What makes the users of the database, `shop` in the place of `stockade`: a test's server has one of that name.
pub fn statements() -> Vec<&'static str> {
    let (_, rest) = GUIDE.split_once("```sql\n").unwrap();
    let (block, _) = rest.split_once("```").unwrap();
    let said: &'static str = block.replace("stockade", "shop").leak();
    said.split(';').map(str::trim).filter(|statement| !statement.is_empty()).collect()
}

/// What makes the user of Redis, and what he needs besides behind sentinels and in a cluster.
pub fn acls() -> [&'static str; 3] {
    let lines: Vec<_> = GUIDE.lines().filter(|line| line.starts_with("ACL SETUSER stockade ")).collect();
    lines.try_into().unwrap()
}

/// Says this to a server, as whoever the address names.
pub async fn ask<T: FromRedisValue>(url: &str, words: &str) -> RedisResult<T> {
    let mut connection = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
    let mut words = words.split(' ');
    let mut command = redis::cmd(words.next().unwrap());
    words.fold(&mut command, |command, word| command.arg(word)).query_async(&mut connection).await
}

/// Makes the user of Redis, with what he needs besides; his name, his password and the server, as an address has them.
pub async fn user_of(redis: &Redis, besides: Option<&str>) -> String {
    let [makes, ..] = acls();
    for acl in [Some(makes), besides].into_iter().flatten() {
        ask::<()>(&redis.url(), acl).await.unwrap();
    }
    format!("stockade:PASSWORD@{}", redis.address())
}

/// What somebody had no right for, as Redis remembers it. That a cluster's client may not say which library it is has no consequence.
pub async fn refusals(redis: &Redis) -> Vec<String> {
    let log: Vec<Value> = ask(&redis.url(), "ACL LOG").await.unwrap();
    log.iter().map(|one| format!("{one:?}")).filter(|one| !one.contains("client|setinfo")).collect()
}
