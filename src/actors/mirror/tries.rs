//! What one person may try at all nodes together: each node counts for itself and reports a few times a second whoever tries much; Redis adds
//! up, and who has tried too much elsewhere is refused here, too.
//!
//! Always true: nobody who orders waits for Redis, and a node's own limit holds whether or not there is one. Whoever spreads his tries over
//! nodes gets a fraction of a second's worth more than one node would have given him.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use tokio::time::sleep;
use tracing::debug;

use crate::clock::Clock;
use crate::domain::id::UserId;
use crate::persistence::redis::{Quota, Redis};

/// Between two reports.
const REPORT_EVERY: Duration = Duration::from_millis(250);
/// People whose tries are counted between two reports; of the others this node's own limit is enough.
pub const COUNTED_MAX: usize = 65_536;
/// Whoever tries less than this in between is not reported: a crowd tries once each.
const REPORTED_FROM: u32 = 2;
/// So many that whoever collects keeps nobody waiting who counts.
const SHARDS: usize = 1_024;
/// Reports that travel together.
const TOGETHER_MAX: usize = 256;

struct Inner {
    clock: Clock,
    quota: Quota,
    counts: DashMap<UserId, u32>,
    counted: AtomicUsize,
    /// Until when, by the clock's nanoseconds.
    over: DashMap<UserId, u64>,
    /// Never less than there are of them.
    overs: AtomicUsize,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Tries(Arc<Inner>);

impl Tries {
    pub fn new(per_second: NonZeroU32, burst: NonZeroU32, clock: Clock) -> Tries {
        Tries(Arc::new(Inner {
            clock,
            quota: Quota { per_second: per_second.get(), burst: burst.get() },
            counts: DashMap::with_shard_amount(SHARDS),
            counted: AtomicUsize::new(0),
            over: DashMap::new(),
            overs: AtomicUsize::new(0),
        }))
    }

    /// Counts one try, or says for how long this person has none left anywhere.
    pub fn take(&self, who: UserId) -> Result<(), Duration> {
        if self.0.overs.load(Ordering::Acquire) != 0
            && let Some(until) = self.0.over.get(&who)
        {
            let left = until.saturating_sub(self.0.clock.nanos());
            if left > 0 {
                return Err(Duration::from_nanos(left));
            }
        }
        if let Some(mut count) = self.0.counts.get_mut(&who) {
            *count += 1;
        } else if self.0.counted.fetch_add(1, Ordering::Relaxed) < COUNTED_MAX {
            *self.0.counts.entry(who).or_insert(0) += 1;
        }
        Ok(())
    }

    /// Whoever has tried much since the last report.
    fn report(&self) -> Vec<(UserId, u32)> {
        let mut many = Vec::new();
        self.0.counts.retain(|who, count| {
            if *count >= REPORTED_FROM {
                many.push((*who, *count));
            }
            false
        });
        self.0.counted.store(0, Ordering::Relaxed);
        many
    }

    fn heard(&self, who: UserId, wait: Duration) {
        if wait.is_zero() {
            return;
        }
        let until = self.0.clock.nanos() + u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX / 2);
        self.0.overs.fetch_add(1, Ordering::AcqRel);
        if self.0.over.insert(who, until).is_some() {
            self.0.overs.fetch_sub(1, Ordering::AcqRel);
        }
    }

    fn forget(&self) {
        let (now, mut gone) = (self.0.clock.nanos(), 0);
        self.0.over.retain(|_, until| {
            gone += usize::from(*until <= now);
            *until > now
        });
        self.0.overs.fetch_sub(gone, Ordering::AcqRel);
    }

    /// Reports, and hears who has tried too much.
    pub(super) async fn share(self, redis: Redis) {
        loop {
            sleep(REPORT_EVERY).await;
            self.forget();
            let many = self.report();
            let Some(link) = redis.link() else { continue };
            for some in many.chunks(TOGETHER_MAX) {
                match link.tried(self.0.quota, some).await {
                    Ok(waits) => some.iter().zip(waits).for_each(|((who, _), wait)| self.heard(*who, wait)),
                    Err(error) => {
                        debug!(%error, "tries could not be added up; each node's own limit holds");
                        redis.doubt();
                        break;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::stock::Millis;

    #[test]
    fn who_tries_once_is_not_reported_and_who_is_over_waits_no_longer_than_told() {
        let most = NonZeroU32::new(20).unwrap();
        let tries = Tries::new(most, most, Clock::start());
        let [a, b] = [1, 2].map(|chance| UserId::new(Millis(0), chance));
        for who in [a, b, a, a] {
            assert_eq!(tries.take(who), Ok(()));
        }
        assert_eq!(tries.report(), [(a, 3)]);
        assert_eq!(tries.report(), []);
        tries.heard(a, Duration::from_secs(60));
        tries.heard(a, Duration::from_secs(50));
        tries.heard(b, Duration::from_nanos(1));
        assert!(tries.take(a).unwrap_err() <= Duration::from_secs(50));
        tries.forget();
        assert_eq!((tries.take(b), tries.0.overs.load(Ordering::Relaxed)), (Ok(()), 1));
    }
}
