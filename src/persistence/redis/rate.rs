//! One bucket of tries a person, for all nodes together: `stockade:{<user id>}:tries` holds when it will be full again, in microseconds of
//! Redis's own clock. A bucket that is full need not be there, so its key lapses when it is: no more than tidiness hangs on that.

use std::sync::LazyLock;
use std::time::Duration;

use redis::{FromRedisValue, Script};

use super::wire::call;
use super::{Link, NoRedis};
use crate::domain::id::UserId;

/// Takes tries that were made, and answers for how long there are no more. What is reported late or together is forgiven up to a slack.
const TRIED: &str = r"
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local each, most, slack = tonumber(ARGV[2]), ARGV[2] * ARGV[3], tonumber(ARGV[4])
local full = tonumber(redis.call('GET', KEYS[1]) or '0')
if full < now then full = now end
full = math.min(full + ARGV[1] * each, now + 2 * most + slack)
redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000) + 1)
local over = full - now - most
if over <= slack then return 0 end
return math.ceil(over)
";

/// Nodes report four times a second.
const SLACK: Duration = Duration::from_millis(500);

pub(super) static TRIED_SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(TRIED));

/// So much for one person.
#[derive(Debug, Clone, Copy)]
pub struct Quota {
    pub per_second: u32,
    pub burst: u32,
}

impl Link {
    /// Reports tries of people; for how long each has none left on any node, zero if there are some.
    pub async fn tried(&self, quota: Quota, tries: &[(UserId, u32)]) -> Result<Vec<Duration>, NoRedis> {
        let each_us = 1_000_000 / u64::from(quota.per_second.max(1));
        let calls = tries.iter().map(|(who, many)| {
            let mut command = call(&TRIED_SCRIPT, &format!("stockade:{{{who}}}:tries"));
            command.arg(*many).arg(each_us).arg(quota.burst).arg(SLACK.as_micros().to_string());
            command
        });
        let answers = self.wire.call_all(&calls.collect::<Vec<_>>()).await?;
        let waits = answers.into_iter().map(|answer| {
            let over_us = u64::from_redis_value(answer).map_err(redis::RedisError::from)?;
            Ok(Duration::from_micros(over_us))
        });
        waits.collect()
    }
}
