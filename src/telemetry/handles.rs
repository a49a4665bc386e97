//! Handles for what is recorded often, registered once: a measurement is one atomic operation and no look-up.

use std::sync::OnceLock;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use super::mirror::MirrorMetrics;
use super::{outcomes, recorder};

/// Handles for what is recorded often. Cloning one is cheap, recording costs some ten nanoseconds.
#[derive(Clone)]
pub struct Metrics {
    pub owner_queue_length: Gauge,
    pub owner_queue_wait_seconds: Histogram,
    pub owners_loaded: Gauge,
    pub owner_restarts: Counter,
    pub group_events: Histogram,
    pub group_write_seconds: Histogram,
    pub journal_bytes: Counter,
    pub journal_events: Counter,
    pub journal_writes: Counter,
    pub unknown_outcomes: Counter,
    pub not_written: Counter,
    pub flush_lag_events: Gauge,
    pub flush_lag_bytes: Gauge,
    pub flush_lag_seconds: Gauge,
    pub flush_slice_seconds: Histogram,
    pub holds_live: Gauge,
    pub orders_in_memory: Gauge,
    pub units_held: Counter,
    pub units_released: Counter,
    pub units_expired: Counter,
    pub units_sold: Counter,
    pub units_returned: Counter,
    pub expiry_lateness_seconds: Histogram,
    pub conservation_violations: Gauge,
    pub hash_queue_length: Gauge,
    pub hash_wait_seconds: Histogram,
    pub hash_refusals: Counter,
    pub outbox_waiting: Gauge,
    pub notices_waiting: Gauge,
    pub notices_oldest_seconds: Gauge,
    pub webhooks_waiting: Gauge,
    pub webhooks_oldest_seconds: Gauge,
    pub webhooks_dead: Gauge,
    pub webhook_endpoints_disabled: Gauge,
    pub mirror: MirrorMetrics,
    pub stream_subscribers: Gauge,
    pub clock_ahead_seconds: Gauge,
    pub node_active: Gauge,
    pub shards_owned: Gauge,
    pub shard_move_seconds: Histogram,
    pub peer_retries_sent: Counter,
    pub peer_retries_spent: Counter,
    pub peer_turned_away: Counter,
    pub payment_seconds: Histogram,
    pub money_group_rows: Histogram,
    pub money_write_seconds: Histogram,
    pub payments_in_review: Gauge,
    pub charged_unconfirmed: Gauge,
    pub compensations_pending: Gauge,
    pub compensation_age_seconds: Gauge,
}

impl Metrics {
    /// The process's handles. The first call starts the recorder.
    pub fn global() -> &'static Metrics {
        static METRICS: OnceLock<Metrics> = OnceLock::new();
        METRICS.get_or_init(|| {
            recorder();
            Metrics::register()
        })
    }

    fn register() -> Metrics {
        outcomes::register();
        gauge!("stockade_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        let metrics = Metrics {
            owner_queue_length: gauge!("stockade_owner_queue_length"),
            owner_queue_wait_seconds: histogram!("stockade_owner_queue_wait_seconds"),
            owners_loaded: gauge!("stockade_owners_loaded"),
            owner_restarts: counter!("stockade_owner_restarts_total"),
            group_events: histogram!("stockade_group_events"),
            group_write_seconds: histogram!("stockade_group_write_seconds"),
            journal_bytes: counter!("stockade_journal_bytes_total"),
            journal_events: counter!("stockade_journal_events_total"),
            journal_writes: counter!("stockade_journal_writes_total"),
            unknown_outcomes: counter!("stockade_unknown_outcomes_total"),
            not_written: counter!("stockade_not_written_total"),
            flush_lag_events: gauge!("stockade_flush_lag_events"),
            flush_lag_bytes: gauge!("stockade_flush_lag_bytes"),
            flush_lag_seconds: gauge!("stockade_flush_lag_seconds"),
            flush_slice_seconds: histogram!("stockade_flush_slice_seconds"),
            holds_live: gauge!("stockade_holds_live"),
            orders_in_memory: gauge!("stockade_orders_in_memory"),
            units_held: counter!("stockade_units_held_total"),
            units_released: counter!("stockade_units_released_total"),
            units_expired: counter!("stockade_units_expired_total"),
            units_sold: counter!("stockade_units_sold_total"),
            units_returned: counter!("stockade_units_returned_total"),
            expiry_lateness_seconds: histogram!("stockade_expiry_lateness_seconds"),
            conservation_violations: gauge!("stockade_conservation_violations"),
            hash_queue_length: gauge!("stockade_password_queue_length"),
            hash_wait_seconds: histogram!("stockade_password_wait_seconds"),
            hash_refusals: counter!("stockade_password_refusals_total"),
            outbox_waiting: gauge!("stockade_outbox_waiting"),
            notices_waiting: gauge!("stockade_notices_waiting"),
            notices_oldest_seconds: gauge!("stockade_notices_oldest_seconds"),
            webhooks_waiting: gauge!("stockade_webhooks_waiting"),
            webhooks_oldest_seconds: gauge!("stockade_webhooks_oldest_seconds"),
            webhooks_dead: gauge!("stockade_webhooks_dead"),
            webhook_endpoints_disabled: gauge!("stockade_webhook_endpoints_disabled"),
            mirror: MirrorMetrics::register(),
            stream_subscribers: gauge!("stockade_stream_subscribers"),
            clock_ahead_seconds: gauge!("stockade_clock_ahead_seconds"),
            node_active: gauge!("stockade_node_active"),
            shards_owned: gauge!("stockade_shards_owned"),
            shard_move_seconds: histogram!("stockade_shard_move_seconds"),
            peer_retries_sent: counter!("stockade_peer_retries_total", "outcome" => "sent"),
            peer_retries_spent: counter!("stockade_peer_retries_total", "outcome" => "spent"),
            peer_turned_away: counter!("stockade_peer_turned_away_total"),
            payment_seconds: histogram!("stockade_payment_seconds"),
            money_group_rows: histogram!("stockade_money_group_rows"),
            money_write_seconds: histogram!("stockade_money_write_seconds"),
            payments_in_review: gauge!("stockade_payments_in_review"),
            charged_unconfirmed: gauge!("stockade_charged_unconfirmed"),
            compensations_pending: gauge!("stockade_compensations_pending"),
            compensation_age_seconds: gauge!("stockade_compensation_age_seconds"),
        };
        // Served from the first scrape on, also where nothing has happened yet.
        for still in [
            &metrics.clock_ahead_seconds,
            &metrics.node_active,
            &metrics.shards_owned,
            &metrics.conservation_violations,
            &metrics.holds_live,
            &metrics.orders_in_memory,
            &metrics.owner_queue_length,
            &metrics.owners_loaded,
            &metrics.flush_lag_events,
            &metrics.flush_lag_bytes,
            &metrics.flush_lag_seconds,
            &metrics.hash_queue_length,
            &metrics.outbox_waiting,
            &metrics.notices_waiting,
            &metrics.notices_oldest_seconds,
            &metrics.webhooks_waiting,
            &metrics.webhooks_oldest_seconds,
            &metrics.webhooks_dead,
            &metrics.webhook_endpoints_disabled,
            &metrics.stream_subscribers,
            &metrics.payments_in_review,
            &metrics.charged_unconfirmed,
            &metrics.compensations_pending,
            &metrics.compensation_age_seconds,
        ] {
            still.set(0.0);
        }
        metrics
    }
}
