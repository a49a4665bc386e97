//! What the process tells its operator in numbers.
//!
//! Every metric that `/metrics` serves stands once in [`METRICS`] with its kind, its unit and its meaning; a test compares
//! the table with what is served. Hot paths record through handles of [`Metrics`] that were registered beforehand, so a
//! measurement is one atomic operation and no look-up.

mod lanes;
mod mirror;
mod notices;

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use lanes::{Lane, new_lane, render_lanes};

pub use mirror::MirrorMetrics;
pub use notices::{notice_dropped, order_letter};

/// How often what histograms collected is folded into their buckets.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// From a tenth of a millisecond to ten seconds.
const SECONDS_BUCKETS: &[f64] = &[
    0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0,
    5.0, 10.0,
];
/// Powers of two.
const SIZE_BUCKETS: &[f64] = &[1., 2., 4., 8., 16., 32., 64., 128., 256., 512., 1024., 2048., 4096., 8192.];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    /// Durations, in seconds.
    Seconds,
    /// How many belong together.
    Sizes,
}

impl Kind {
    /// The word of the text format.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Seconds | Kind::Sizes => "histogram",
        }
    }
}

/// One row: name, kind, unit, labels, meaning.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub unit: &'static str,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

const fn row(name: &'static str, kind: Kind, unit: &'static str, help: &'static str) -> Metric {
    Metric { name, kind, unit, labels: &[], help }
}

/// Everything `/metrics` serves.
#[rustfmt::skip]
pub const METRICS: &[Metric] = &[
    Metric { labels: &["route", "method", "status"], ..row("stockade_http_requests_total", Kind::Counter, "requests", "Requests answered.") },
    Metric { labels: &["route"], ..row("stockade_http_request_seconds", Kind::Seconds, "seconds", "From the request's head to the answer's head.") },
    row("stockade_owner_queue_length", Kind::Gauge, "commands", "Commands waiting at all owners of this process."),
    row("stockade_owner_queue_wait_seconds", Kind::Seconds, "seconds", "From a command's arrival at its owner's queue to its decision."),
    row("stockade_owners_loaded", Kind::Gauge, "owners", "Products whose ledger is in memory."),
    row("stockade_owner_restarts_total", Kind::Counter, "restarts", "Owners rebuilt from snapshot and journal after a panic."),
    row("stockade_group_events", Kind::Sizes, "events", "Events of one product written to the journal together."),
    row("stockade_group_write_seconds", Kind::Seconds, "seconds", "From handing a group to the journal to knowing that it is on disk."),
    row("stockade_journal_bytes_total", Kind::Counter, "bytes", "Bytes of events acknowledged by the journal."),
    row("stockade_unknown_outcomes_total", Kind::Counter, "groups", "Groups whose write ended in an error that does not say whether they are on disk."),
    row("stockade_not_written_total", Kind::Counter, "groups", "Groups that are certainly not on disk, such as for want of room."),
    row("stockade_flush_lag_events", Kind::Gauge, "events", "Events in the journal that the tables do not show yet."),
    row("stockade_flush_lag_bytes", Kind::Gauge, "bytes", "The same in bytes; at the cap new holds are refused."),
    row("stockade_flush_lag_seconds", Kind::Gauge, "seconds", "Age of the oldest event that the tables do not show yet."),
    row("stockade_flush_slice_seconds", Kind::Seconds, "seconds", "One transaction of the flush."),
    row("stockade_holds_live", Kind::Gauge, "holds", "Holds that stand, in ledgers that are in memory."),
    row("stockade_units_held_total", Kind::Counter, "units", "Units promised to buyers."),
    row("stockade_units_released_total", Kind::Counter, "units", "Units given back by a cancellation, a decline, or an order that was never born."),
    row("stockade_units_expired_total", Kind::Counter, "units", "Units given back because their hold lapsed."),
    row("stockade_units_sold_total", Kind::Counter, "units", "Units paid for."),
    row("stockade_units_returned_total", Kind::Counter, "units", "Sold units that came back."),
    row("stockade_expiry_lateness_seconds", Kind::Seconds, "seconds", "From a hold's deadline to the durable event that ends it."),
    row("stockade_conservation_violations", Kind::Gauge, "products", "Products whose stock does not add up. Anything but 0 is a bug: halt sales and run the audit."),
    Metric { labels: &["code"], ..row("stockade_refusals_total", Kind::Counter, "answers", "Answers that said no, by the contract's code.") },
    row("stockade_password_queue_length", Kind::Gauge, "passwords", "Passwords that wait to be hashed."),
    row("stockade_password_wait_seconds", Kind::Seconds, "seconds", "From asking for a hash to its beginning."),
    row("stockade_password_refusals_total", Kind::Counter, "passwords", "Passwords turned away because too many waited."),
    Metric { labels: &["outcome"], ..row("stockade_mails_total", Kind::Counter, "mails", "Tries to send a mail, by what became of them: sent, retried, refused, given_up.") },
    row("stockade_outbox_waiting", Kind::Gauge, "mails", "Mails that wait to be taken, those on their way included."),
    Metric { labels: &["kind"], ..row("stockade_order_letters_total", Kind::Counter, "letters", "Letters about orders that were put into the outbox, by what they tell.") },
    Metric { labels: &["why"], ..row("stockade_notices_dropped_total", Kind::Counter, "notices", "Notices of which no letter came: `no_account` (nobody to write to), `idle` (no longer so), `told` (it was before), `unreadable`, `no_room`.") },
    row("stockade_notices_waiting", Kind::Gauge, "notices", "Notices about orders that nobody has looked at yet, as last counted."),
    row("stockade_notices_oldest_seconds", Kind::Gauge, "seconds", "Age of the oldest of them."),
    Metric { labels: &["outcome"], ..row("stockade_webhooks_total", Kind::Counter, "deliveries", "Tries to tell an endpoint something, by what became of them: delivered, retried, given_up.") },
    row("stockade_webhooks_waiting", Kind::Gauge, "deliveries", "Deliveries that wait to be taken by an enabled endpoint, those on their way included."),
    row("stockade_webhooks_oldest_seconds", Kind::Gauge, "seconds", "Age of the oldest of them."),
    row("stockade_webhooks_dead", Kind::Gauge, "deliveries", "Deliveries that were given up and can be replayed."),
    row("stockade_webhook_endpoints_disabled", Kind::Gauge, "endpoints", "Endpoints to which nothing is told: gone, failing for days, too far behind, or switched off."),
    Metric { labels: &["outcome"], ..row("stockade_sign_ups_total", Kind::Counter, "sign-ups", "Sign-ups: `new`, or `taken` where the address or the number has an owner, who was told.") },
    row("stockade_verifications_total", Kind::Counter, "accounts", "Accounts whose address was proved."),
    Metric { labels: &["outcome"], ..row("stockade_log_ins_total", Kind::Counter, "log-ins", "Log-ins: `ok`, `wrong` (password or address), `unverified`, `suspended`.") },
    row("stockade_revocations_total", Kind::Counter, "revocations", "Sessions, or all sessions of a user, whose access tokens are refused before they expire."),
    Metric { labels: &["outcome"], ..row("stockade_payments_total", Kind::Counter, "payments", "Payments that came to be `unknown`, `captured`, `paid`, `declined`, `cancelled`, `review` or `orphaned`.") },
    row("stockade_payment_seconds", Kind::Seconds, "seconds", "From a payment's row to the sale of its last line."),
    row("stockade_money_group_rows", Kind::Sizes, "rows", "Rows of money that one transaction wrote."),
    row("stockade_money_write_seconds", Kind::Seconds, "seconds", "One transaction on the rows of money, sync included."),
    row("stockade_payments_in_review", Kind::Gauge, "payments", "Payments that wait for a person because the provider took another amount than was asked for."),
    row("stockade_charged_unconfirmed", Kind::Gauge, "payments", "Payments whose money was taken more than a minute ago and whose order is not sold. Must be 0."),
    row("stockade_compensations_pending", Kind::Gauge, "compensations", "Payments in doubt, refunds under way and reviews: what still waits to be undone or decided."),
    row("stockade_compensation_age_seconds", Kind::Gauge, "seconds", "Age of the oldest of them, 0 where there is none."),
    Metric { labels: &["outcome"], ..row("stockade_refunds_total", Kind::Counter, "tries", "Tries to give money back: `done` or `retried`.") },
    Metric { labels: &["outcome"], ..row("stockade_payment_webhooks_total", Kind::Counter, "webhooks", "Webhooks of the payment provider: `news`, `known`, `foreign`, or why they were not believed.") },
    Metric { labels: &["operation", "outcome"], ..row("stockade_provider_calls_total", Kind::Counter, "calls", "Calls of the payment provider: charge, find, cancel, refund, find_refund; each ok, unknown, not_now or refused.") },
    Metric { labels: &["operation"], ..row("stockade_provider_call_seconds", Kind::Seconds, "seconds", "From asking the payment provider to its answer, or to giving up on one.") },
    Metric { labels: &["job", "outcome"], ..row("stockade_job_runs_total", Kind::Counter, "runs", "Runs of a scheduled job: `done`, `failed` (run again later), or `lost` (somebody else has it).") },
    Metric { labels: &["job"], ..row("stockade_job_last_ok", Kind::Gauge, "", "1 if the job's last run came to its end and left no row behind, otherwise 0.") },
    Metric { labels: &["job"], ..row("stockade_job_next_seconds", Kind::Gauge, "seconds", "When the job is due next, since 1970. In the past: it is behind.") },
    Metric { labels: &["job"], ..row("stockade_job_seconds", Kind::Seconds, "seconds", "One run of a job.") },
    Metric { labels: &["job"], ..row("stockade_job_rows_moved_total", Kind::Counter, "rows", "Rows that a job has moved.") },
    Metric { labels: &["job"], ..row("stockade_job_rows_failed_total", Kind::Counter, "rows", "Rows that a job could not move, each time it tried.") },
    row("stockade_redis_up", Kind::Gauge, "", "1 while Redis answers; 0 while it does not, or where none is named."),
    row("stockade_mirror_lag_seconds", Kind::Gauge, "seconds", "Since when something published may be missing in the mirror, 0 where there is none."),
    Metric { labels: &["outcome"], ..row("stockade_mirror_writes_total", Kind::Counter, "views", "Views written to the mirror: `changed`, `same`, `older` (something newer stood there), `failed`.") },
    row("stockade_mirror_mismatches_total", Kind::Counter, "views", "Views in the mirror that were found to differ from their owner's, and were written again."),
    row("stockade_stream_subscribers", Kind::Gauge, "connections", "Open streams of stock changes."),
    row("stockade_node_active", Kind::Gauge, "", "1 while the shop is open in this process; 0 while it starts, ends, or stands by for another node. Gauges of a node that stands by may be old."),
    Metric { labels: &["version"], ..row("stockade_build_info", Kind::Gauge, "", "Always 1; the version is the label.") },
    row("process_cpu_seconds_total", Kind::Gauge, "seconds", "Processor time used, user and system."),
    row("process_resident_memory_bytes", Kind::Gauge, "bytes", "Memory in use."),
    row("process_open_fds", Kind::Gauge, "descriptors", "Open file descriptors."),
    row("process_threads", Kind::Gauge, "threads", "Threads."),
];

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
    pub unknown_outcomes: Counter,
    pub not_written: Counter,
    pub flush_lag_events: Gauge,
    pub flush_lag_bytes: Gauge,
    pub flush_lag_seconds: Gauge,
    pub flush_slice_seconds: Histogram,
    pub holds_live: Gauge,
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
    pub node_active: Gauge,
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
        register_outcomes();
        gauge!("stockade_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        let metrics = Metrics {
            owner_queue_length: gauge!("stockade_owner_queue_length"),
            owner_queue_wait_seconds: histogram!("stockade_owner_queue_wait_seconds"),
            owners_loaded: gauge!("stockade_owners_loaded"),
            owner_restarts: counter!("stockade_owner_restarts_total"),
            group_events: histogram!("stockade_group_events"),
            group_write_seconds: histogram!("stockade_group_write_seconds"),
            journal_bytes: counter!("stockade_journal_bytes_total"),
            unknown_outcomes: counter!("stockade_unknown_outcomes_total"),
            not_written: counter!("stockade_not_written_total"),
            flush_lag_events: gauge!("stockade_flush_lag_events"),
            flush_lag_bytes: gauge!("stockade_flush_lag_bytes"),
            flush_lag_seconds: gauge!("stockade_flush_lag_seconds"),
            flush_slice_seconds: histogram!("stockade_flush_slice_seconds"),
            holds_live: gauge!("stockade_holds_live"),
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
            node_active: gauge!("stockade_node_active"),
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
            &metrics.node_active,
            &metrics.conservation_violations,
            &metrics.holds_live,
            &metrics.owner_queue_length,
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

type CallAndOutcome = (&'static str, &'static str);

thread_local! {
    static REFUSALS: RefCell<HashMap<&'static str, Counter>> = RefCell::default();
    static PROVIDER_CALLS: RefCell<HashMap<CallAndOutcome, (Counter, Histogram)>> = RefCell::default();
}

/// Counts the answers of one route on one thread. `route` is the pattern, never the path that was asked for.
pub struct Answers {
    route: &'static str,
    lane: Arc<Lane>,
    /// By method and status: a handful, the busiest usually first.
    requests: RefCell<Vec<(&'static str, u16, Counter)>>,
}

impl Answers {
    pub fn of(route: &'static str) -> Answers {
        Answers { route, lane: new_lane(route), requests: RefCell::default() }
    }

    /// Counts one answered request.
    pub fn count(&self, method: &'static str, status: u16, took: Duration) {
        self.lane.record(took);
        let mut requests = self.requests.borrow_mut();
        if let Some((.., counter)) = requests.iter().find(|(m, s, _)| (*m, *s) == (method, status)) {
            return counter.increment(1);
        }
        recorder();
        let counter = counter!("stockade_http_requests_total", "route" => self.route, "method" => method, "status" => status.to_string());
        counter.increment(1);
        requests.push((method, status, counter));
    }
}

/// Counts one sign-up: `new` or `taken`.
pub fn signed_up(outcome: &'static str) {
    Metrics::global();
    counter!("stockade_sign_ups_total", "outcome" => outcome).increment(1);
}

/// Counts one proved address.
pub fn verified() {
    Metrics::global();
    counter!("stockade_verifications_total").increment(1);
}

/// Counts one log-in: `ok`, `wrong`, `unverified` or `suspended`.
pub fn logged_in(outcome: &'static str) {
    Metrics::global();
    counter!("stockade_log_ins_total", "outcome" => outcome).increment(1);
}

/// Counts what was revoked.
pub fn revoked(many: usize) {
    Metrics::global();
    counter!("stockade_revocations_total").increment(many as u64);
}

thread_local! {
    static PAYMENTS: RefCell<HashMap<&'static str, Counter>> = RefCell::default();
}

/// Counts one payment that came to be in another state.
pub fn payment_moved(outcome: &'static str) {
    PAYMENTS.with_borrow_mut(|payments| {
        let payments = payments.entry(outcome).or_insert_with(|| {
            recorder();
            counter!("stockade_payments_total", "outcome" => outcome)
        });
        payments.increment(1);
    });
}

/// Counts one try to give money back: `done` or `retried`.
pub fn refund_tried(outcome: &'static str) {
    Metrics::global();
    counter!("stockade_refunds_total", "outcome" => outcome).increment(1);
}

/// Counts one webhook of the payment provider.
pub fn webhook_heard(outcome: &'static str) {
    Metrics::global();
    counter!("stockade_payment_webhooks_total", "outcome" => outcome).increment(1);
}

/// What is counted of a job is served from the first scrape on.
pub fn job_known(job: &'static str) {
    recorder();
    for outcome in ["done", "failed", "lost"] {
        counter!("stockade_job_runs_total", "job" => job, "outcome" => outcome).increment(0);
    }
    counter!("stockade_job_rows_moved_total", "job" => job).increment(0);
    counter!("stockade_job_rows_failed_total", "job" => job).increment(0);
}

/// Counts one run of a job: `done` or `failed`, with what it moved and what it could not.
pub fn job_ran(job: &'static str, outcome: &'static str, took: Duration, moved: u64, failed: u64) {
    recorder();
    counter!("stockade_job_runs_total", "job" => job, "outcome" => outcome).increment(1);
    counter!("stockade_job_rows_moved_total", "job" => job).increment(moved);
    counter!("stockade_job_rows_failed_total", "job" => job).increment(failed);
    histogram!("stockade_job_seconds", "job" => job).record(took.as_secs_f64());
    gauge!("stockade_job_last_ok", "job" => job).set(if outcome == "done" && failed == 0 {
        1.0
    } else {
        0.0
    });
}

/// Counts one run that was stopped because somebody else has the job.
pub fn job_lost(job: &'static str) {
    recorder();
    counter!("stockade_job_runs_total", "job" => job, "outcome" => "lost").increment(1);
}

/// Says when a job is due next, in milliseconds since 1970.
pub fn job_due(job: &'static str, at_ms: i64) {
    recorder();
    gauge!("stockade_job_next_seconds", "job" => job).set(at_ms as f64 / 1e3);
}

/// What is counted by outcome is served from the first scrape on, also where nothing has happened yet.
fn register_outcomes() {
    for outcome in ["new", "taken"] {
        counter!("stockade_sign_ups_total", "outcome" => outcome).increment(0);
    }
    for outcome in ["ok", "wrong", "unverified", "suspended"] {
        counter!("stockade_log_ins_total", "outcome" => outcome).increment(0);
    }
    for outcome in ["unknown", "captured", "paid", "declined", "cancelled", "review", "orphaned"] {
        counter!("stockade_payments_total", "outcome" => outcome).increment(0);
    }
    for outcome in ["done", "retried"] {
        counter!("stockade_refunds_total", "outcome" => outcome).increment(0);
    }
    for outcome in ["news", "known", "foreign", "missing", "malformed", "stale", "wrong", "body"] {
        counter!("stockade_payment_webhooks_total", "outcome" => outcome).increment(0);
    }
    notices::register();
    for outcome in ["delivered", "retried", "given_up"] {
        counter!("stockade_webhooks_total", "outcome" => outcome).increment(0);
    }
    counter!("stockade_verifications_total").increment(0);
    counter!("stockade_revocations_total").increment(0);
}

/// Counts one answer that said no. `code` is the contract's word.
pub fn refused(code: &'static str) {
    REFUSALS.with_borrow_mut(|refusals| {
        let refusals = refusals.entry(code).or_insert_with(|| {
            recorder();
            counter!("stockade_refusals_total", "code" => code)
        });
        refusals.increment(1);
    });
}

/// Counts one call of the payment provider.
pub fn provider_called(operation: &'static str, outcome: &'static str, took: Duration) {
    PROVIDER_CALLS.with_borrow_mut(|calls| {
        let (count, seconds) = calls.entry((operation, outcome)).or_insert_with(|| {
            recorder();
            (
                counter!("stockade_provider_calls_total", "operation" => operation, "outcome" => outcome),
                histogram!("stockade_provider_call_seconds", "operation" => operation),
            )
        });
        count.increment(1);
        seconds.record(took.as_secs_f64());
    });
}

/// Counts one try to send a mail.
pub fn mail_handled(outcome: &'static str) {
    recorder();
    counter!("stockade_mails_total", "outcome" => outcome).increment(1);
}

/// Counts one try to tell an endpoint something.
pub fn webhook_handled(outcome: &'static str) {
    recorder();
    counter!("stockade_webhooks_total", "outcome" => outcome).increment(1);
}

/// What `/metrics` answers: the Prometheus text format.
pub fn render() -> String {
    Metrics::global();
    observe_process();
    let mut text = recorder().map(PrometheusHandle::render).unwrap_or_default();
    render_lanes(&mut text);
    text
}

/// Installs the recorder once in the life of the process, with a thread that keeps its histograms small.
/// `None` if somebody else had installed one: then the numbers are theirs.
fn recorder() -> Option<&'static PrometheusHandle> {
    static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    RECORDER
        .get_or_init(|| {
            let handle = build_recorder().inspect_err(|error| tracing::error!(%error, "no metrics")).ok()?;
            for metric in METRICS {
                describe(metric);
            }
            let upkeep = handle.clone();
            let upkeep = std::thread::Builder::new().name("metrics".into()).spawn(move || {
                loop {
                    std::thread::sleep(UPKEEP_EVERY);
                    upkeep.run_upkeep();
                }
            });
            if let Err(error) = upkeep {
                tracing::error!(%error, "no thread for the upkeep of metrics: histograms will grow until they are read");
            }
            Some(handle)
        })
        .as_ref()
}

fn build_recorder() -> Result<PrometheusHandle, metrics_exporter_prometheus::BuildError> {
    let mut builder = PrometheusBuilder::new();
    for metric in METRICS {
        let buckets = match metric.kind {
            Kind::Seconds => SECONDS_BUCKETS,
            Kind::Sizes => SIZE_BUCKETS,
            Kind::Counter | Kind::Gauge => continue,
        };
        builder = builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets)?;
    }
    builder.install_recorder()
}

fn describe(metric: &Metric) {
    match metric.kind {
        Kind::Counter => metrics::describe_counter!(metric.name, metric.help),
        Kind::Gauge => metrics::describe_gauge!(metric.name, metric.help),
        Kind::Seconds | Kind::Sizes => metrics::describe_histogram!(metric.name, metric.help),
    }
}

/// The process as the kernel sees it. What cannot be read is not served.
fn observe_process() {
    use rustix::time::{ClockId, clock_gettime};
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    gauge!("process_cpu_seconds_total").set(cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9);
    if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
        let number = |field: &str| -> Option<f64> {
            status.lines().find_map(|line| line.strip_prefix(field))?.split_whitespace().next()?.parse().ok()
        };
        if let Some(kilobytes) = number("VmRSS:") {
            gauge!("process_resident_memory_bytes").set(kilobytes * 1024.0);
        }
        if let Some(threads) = number("Threads:") {
            gauge!("process_threads").set(threads);
        }
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        gauge!("process_open_fds").set(open.count() as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn what_is_served_is_what_the_table_says() {
        Metrics::global();
        Answers::of("/v1/orders").count("POST", 201, Duration::from_millis(3));
        refused("sold_out");
        mail_handled("sent");
        job_ran("sweeping", "done", Duration::from_millis(3), 1, 0);
        job_due("sweeping", 1_000);
        provider_called("charge", "ok", Duration::from_millis(3));
        for histogram in [
            &Metrics::global().owner_queue_wait_seconds,
            &Metrics::global().group_events,
            &Metrics::global().group_write_seconds,
            &Metrics::global().flush_slice_seconds,
            &Metrics::global().expiry_lateness_seconds,
            &Metrics::global().hash_wait_seconds,
            &Metrics::global().payment_seconds,
            &Metrics::global().money_group_rows,
            &Metrics::global().money_write_seconds,
        ] {
            histogram.record(0.001);
        }
        let text = render();
        let served: BTreeSet<(String, String)> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .filter_map(|line| line.split_once(' '))
            .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
            .collect();
        let told: BTreeSet<(String, String)> =
            METRICS.iter().map(|metric| (metric.name.to_owned(), metric.kind.as_str().to_owned())).collect();
        assert_eq!(served, told);
        for metric in METRICS {
            assert!(text.contains(&format!("# HELP {} {}", metric.name, metric.help)), "{}", metric.name);
        }
        assert!(
            text.contains(r#"stockade_http_request_seconds_bucket{route="/v1/orders",le="0.005"} 1"#),
            "{text}"
        );
    }
}
