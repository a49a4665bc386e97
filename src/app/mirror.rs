//! Whether there is a mirror, and what it is given. Always true: without an address of Redis nothing of it is started.

use anyhow::Result;

use super::order_quota;
use crate::actors::mirror::{Mirror, MirrorHouse, Tries};
use crate::actors::revocations::Revocations;
use crate::actors::stock::Directory;
use crate::clock::Clock;
use crate::config::Config;
use crate::persistence::redis::Redis;
use crate::telemetry::Metrics;

/// Nothing waits for Redis: it may come later, or never.
pub(super) fn start(
    config: &Config,
    directory: &Directory,
    revocations: &Revocations,
    tries: Option<Tries>,
    clock: &Clock,
) -> Result<Option<Mirror>> {
    let (Some(place), Some(tries)) = (&config.store.redis, tries) else { return Ok(None) };
    let house = MirrorHouse {
        redis: Redis::open(place)?,
        revocations: revocations.clone(),
        tries,
        clock: clock.clone(),
        metrics: Metrics::global().clone(),
    };
    let mirror = Mirror::start(house)?;
    mirror.copy(directory);
    Ok(Some(mirror))
}

/// What buyers try at all nodes together.
pub(super) fn tries(config: &Config, clock: &Clock) -> Option<Tries> {
    let (per_second, burst) = order_quota(config);
    config.store.redis.as_ref().map(|_| Tries::new(per_second, burst, clock.clone()))
}
