//! The numbers of Redis and of the mirror, served as zeros where there is neither.

use metrics::{Counter, Gauge, counter, gauge};

/// Handles, registered beforehand.
#[derive(Clone)]
pub struct MirrorMetrics {
    pub redis_up: Gauge,
    pub lag_seconds: Gauge,
    pub changed: Counter,
    pub same: Counter,
    pub older: Counter,
    pub failed: Counter,
    pub mismatches: Counter,
}

impl MirrorMetrics {
    pub(super) fn register() -> MirrorMetrics {
        let writes = |outcome: &'static str| counter!("stockade_mirror_writes_total", "outcome" => outcome);
        let metrics = MirrorMetrics {
            redis_up: gauge!("stockade_redis_up"),
            lag_seconds: gauge!("stockade_mirror_lag_seconds"),
            changed: writes("changed"),
            same: writes("same"),
            older: writes("older"),
            failed: writes("failed"),
            mismatches: counter!("stockade_mirror_mismatches_total"),
        };
        metrics.redis_up.set(0.0);
        metrics.lag_seconds.set(0.0);
        metrics
    }
}
