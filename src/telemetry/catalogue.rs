//! The table of all metrics: name, kind, unit, labels, meaning. `docs/metrics.md` shows it, and tests hold what is served, what is
//! documented and what dashboards and alerts ask for against it.

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

impl Metric {
    /// Whether a series of this name is one of this metric's.
    pub fn serves(&self, series: &str) -> bool {
        let rest = series.strip_prefix(self.name);
        match self.kind {
            Kind::Counter | Kind::Gauge => rest == Some(""),
            Kind::Seconds | Kind::Sizes => matches!(rest, Some("_bucket" | "_sum" | "_count")),
        }
    }
}

const fn row(name: &'static str, kind: Kind, unit: &'static str, help: &'static str) -> Metric {
    Metric { name, kind, unit, labels: &[], help }
}

/// Everything `/metrics` serves.
#[rustfmt::skip]
pub const METRICS: &[Metric] = &[
    Metric { labels: &["route", "method", "status"], ..row("stockade_http_requests_total", Kind::Counter, "requests", "Requests answered.") },
    Metric { labels: &["route", "outcome"], ..row("stockade_http_request_seconds", Kind::Seconds, "seconds", "From the request's head to the answer's head: `created` (201), `paying` (a yes for which the payment provider was asked), any other `ok`, `refused` (4xx), `unavailable` (503), `failed` (any other 5xx). The route `passed_on` is what another node answered.") },
    Metric { labels: &["outcome"], ..row("stockade_forward_seconds", Kind::Seconds, "seconds", "Requests that came while the shop was not open in this process, until the answer's head: `answered`, `mirrored` (stock that the mirror told, and nobody was asked for), or the code of the refusal: `owner_unavailable` (nothing was done: no node led, none could be asked, or it refused), `outcome_unknown`, `overloaded`, `payload_too_large`.") },
    row("stockade_owner_queue_length", Kind::Gauge, "commands", "Commands waiting at all owners of this process."),
    row("stockade_owner_queue_wait_seconds", Kind::Seconds, "seconds", "From a command's arrival in its product's queue to its decision, or to its way to the node that owns the product, where it waits once more."),
    row("stockade_owners_loaded", Kind::Gauge, "owners", "Products whose ledger is in memory."),
    row("stockade_owner_restarts_total", Kind::Counter, "restarts", "Owners rebuilt from snapshot and journal after a panic."),
    row("stockade_group_events", Kind::Sizes, "events", "Events of one product written to the journal together."),
    row("stockade_group_write_seconds", Kind::Seconds, "seconds", "From handing a group to the journal to knowing that it is on disk."),
    row("stockade_journal_bytes_total", Kind::Counter, "bytes", "Bytes of events acknowledged by the journal."),
    row("stockade_journal_events_total", Kind::Counter, "events", "Events acknowledged by the journal."),
    row("stockade_journal_writes_total", Kind::Counter, "writes", "Writes that the journal acknowledged: one carries the groups of all products that waited."),
    row("stockade_unknown_outcomes_total", Kind::Counter, "groups", "Groups whose write ended in an error that does not say whether they are on disk."),
    row("stockade_not_written_total", Kind::Counter, "groups", "Groups that are certainly not on disk, such as for want of room."),
    row("stockade_flush_lag_events", Kind::Gauge, "events", "Events in the journal that the tables do not show yet."),
    row("stockade_flush_lag_bytes", Kind::Gauge, "bytes", "The same in bytes; at the cap new holds are refused."),
    row("stockade_flush_lag_seconds", Kind::Gauge, "seconds", "Age of the oldest event that the tables do not show yet."),
    row("stockade_flush_slice_seconds", Kind::Seconds, "seconds", "One transaction of the flush."),
    Metric { labels: &["product", "state"], ..row("stockade_product_units", Kind::Gauge, "units", "Units `available`, `held` and `sold` of the busiest products, twenty at most; each while it is hot and for a minute after.") },
    row("stockade_holds_live", Kind::Gauge, "holds", "Holds that stand, in ledgers that are in memory."),
    row("stockade_orders_in_memory", Kind::Gauge, "orders", "Orders in ledgers that are in memory, live or ended: some 250 bytes each."),
    row("stockade_units_held_total", Kind::Counter, "units", "Units promised to buyers."),
    row("stockade_units_released_total", Kind::Counter, "units", "Units given back by a cancellation, a decline, or an order that was never born."),
    row("stockade_units_expired_total", Kind::Counter, "units", "Units given back because their hold lapsed."),
    row("stockade_units_sold_total", Kind::Counter, "units", "Units paid for."),
    row("stockade_units_returned_total", Kind::Counter, "units", "Sold units that came back."),
    row("stockade_expiry_lateness_seconds", Kind::Seconds, "seconds", "From a hold's deadline to the durable event that ends it."),
    row("stockade_conservation_violations", Kind::Gauge, "products", "Products whose stock did not add up when their ledger was stored, or was not what the journal leads to. Anything but 0 is a bug: halt sales and run the audit."),
    Metric { labels: &["code"], ..row("stockade_refusals_total", Kind::Counter, "answers", "Answers that said no, by the contract's code.") },
    row("stockade_password_queue_length", Kind::Gauge, "passwords", "Passwords that wait to be hashed."),
    row("stockade_password_wait_seconds", Kind::Seconds, "seconds", "From asking for a hash to its beginning."),
    row("stockade_password_refusals_total", Kind::Counter, "passwords", "Passwords turned away because too many waited."),
    Metric { labels: &["outcome"], ..row("stockade_mails_total", Kind::Counter, "mails", "Tries to send a mail, by what became of them: sent, retried, refused, given_up; or `too_late`, where the link in it is good no more.") },
    row("stockade_outbox_waiting", Kind::Gauge, "mails", "Mails that wait to be taken, those on their way included."),
    Metric { labels: &["class"], ..row("stockade_letters_waiting_for_room", Kind::Gauge, "letters", "Letters that wait because no more may leave in this hour: `account` (about an account), `unproved` (to an address that nobody has proved), `order`.") },
    Metric { labels: &["class"], ..row("stockade_letters_held_back_total", Kind::Counter, "letters", "Letters that came to wait for that.") },
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
    row("stockade_sessions_reused_total", Kind::Counter, "sessions", "Sessions that ended because a refresh token was used twice: somebody else had it too."),
    Metric { labels: &["why"], ..row("stockade_refreshes_refused_total", Kind::Counter, "refreshes", "Refreshes of sessions that are bound to a key and have not expired, refused because whoever had the token had `no_proof` of the key, or one of `another_key`.") },
    Metric { labels: &["outcome"], ..row("stockade_payments_total", Kind::Counter, "payments", "Payments that came to be `unknown`, `captured`, `paid`, `declined`, `cancelled`, `review` or `orphaned`.") },
    row("stockade_payment_seconds", Kind::Seconds, "seconds", "From a payment's row to the sale of its last line."),
    row("stockade_money_group_rows", Kind::Sizes, "rows", "Rows of money that one transaction wrote."),
    row("stockade_money_write_seconds", Kind::Seconds, "seconds", "One transaction on the rows of money, sync included."),
    row("stockade_payments_in_review", Kind::Gauge, "payments", "Payments that wait for a person because the provider took another amount than was asked for."),
    row("stockade_charged_unconfirmed", Kind::Gauge, "payments", "Payments whose money was taken more than a minute ago and whose order is not sold. Must be 0."),
    row("stockade_compensations_pending", Kind::Gauge, "compensations", "Payments in doubt, refunds under way or agreed upon by two, and reviews: what still waits to be undone or decided."),
    row("stockade_compensation_age_seconds", Kind::Gauge, "seconds", "Age of the oldest of them, 0 where there is none."),
    Metric { labels: &["outcome"], ..row("stockade_refunds_total", Kind::Counter, "tries", "Tries to give money back: `done` or `retried`; and what was done and has `came_back`.") },
    Metric { labels: &["outcome"], ..row("stockade_payment_webhooks_total", Kind::Counter, "webhooks", "Webhooks of the payment provider: `news`, `known`, `foreign`, or why they were not believed.") },
    Metric { labels: &["operation", "outcome"], ..row("stockade_provider_calls_total", Kind::Counter, "calls", "Calls of the payment provider: charge, find, cancel, refund, find_refund; each ok, unknown, not_now or refused.") },
    Metric { labels: &["operation"], ..row("stockade_provider_call_seconds", Kind::Seconds, "seconds", "From asking the payment provider to its answer, or to giving up on one.") },
    Metric { labels: &["name", "outcome"], ..row("stockade_job_runs_total", Kind::Counter, "runs", "Runs of a scheduled job: `done`, `failed` (run again later), or `lost` (somebody else has it).") },
    Metric { labels: &["name"], ..row("stockade_job_last_ok", Kind::Gauge, "", "1 if the job's last run came to its end and left no row behind, otherwise 0.") },
    Metric { labels: &["name"], ..row("stockade_job_next_timestamp_seconds", Kind::Gauge, "seconds", "When the job is due next, since 1970. In the past: it is behind.") },
    Metric { labels: &["name"], ..row("stockade_job_seconds", Kind::Seconds, "seconds", "One run of a job.") },
    Metric { labels: &["name"], ..row("stockade_job_rows_moved_total", Kind::Counter, "rows", "Rows that a job has moved.") },
    Metric { labels: &["name"], ..row("stockade_job_rows_failed_total", Kind::Counter, "rows", "Rows that a job could not move, each time it tried.") },
    row("stockade_redis_up", Kind::Gauge, "", "1 while Redis answers; 0 while it does not, or where none is named."),
    row("stockade_mirror_lag_seconds", Kind::Gauge, "seconds", "Since when something published may be missing in the mirror, 0 where there is none."),
    Metric { labels: &["outcome"], ..row("stockade_mirror_writes_total", Kind::Counter, "views", "Views written to the mirror: `changed`, `same`, `older` (something newer stood there), `failed`.") },
    row("stockade_mirror_mismatches_total", Kind::Counter, "views", "Views in the mirror that were found to differ from their owner's, and were written again."),
    row("stockade_stream_subscribers", Kind::Gauge, "connections", "Open streams of stock changes."),
    Metric { labels: &["reason"], ..row("stockade_not_ready", Kind::Gauge, "", "1 for each reason for which orders cannot be acknowledged: `starting`, `shutting_down`, `journal_unavailable`, `flush_behind`, `no_active_node`, `revocations_unread`; as at `/readyz`.") },
    Metric { labels: &["reason"], ..row("stockade_degraded", Kind::Gauge, "", "1 for each thing that is wrong though orders are acknowledged: `redis_unavailable`, `mirror_behind`, `database_unfit`, `clock_apart`, `tables_halted`; as at `/readyz`.") },
    row("stockade_clock_ahead_seconds", Kind::Gauge, "seconds", "By how much this process's clock is ahead of the database server's, below zero if it is behind, as last seen; 0 where there is none. Beyond 5 it is `clock_apart`."),
    Metric { labels: &["cause"], ..row("stockade_takeovers_total", Kind::Counter, "takeovers", "How often this process became the lead after another: one that `died`, or one that `left` in order.") },
    row("stockade_node_active", Kind::Gauge, "", "1 while the shop is open in this process, which is so at the lead alone; 0 while it starts, ends, or another node leads. Gauges of the shop at a node that does not lead may be old."),
    row("stockade_shards_owned", Kind::Gauge, "shards", "How many of the 1,024 shards of products this process owns."),
    row("stockade_shard_move_seconds", Kind::Seconds, "seconds", "At the lead: from when shards that move together are let go of until their next owner serves them. Whoever asks meanwhile waits."),
    Metric { labels: &["outcome"], ..row("stockade_peer_retries_total", Kind::Counter, "tries", "Requests and questions to another node that were to be sent to it again, after a connection was lost or it had refused them: `sent`, or `spent`, because what may be sent again was used up. Of what waits it is told each time that somebody looks.") },
    row("stockade_peer_turned_away_total", Kind::Counter, "requests", "Requests of other nodes that were turned away at once, 503 `overloaded`, because so many were under way and their node had its share, or one connection of it all that it carries, also of streams."),
    Metric { labels: &["version"], ..row("stockade_build_info", Kind::Gauge, "", "Always 1; the version is the label.") },
    row("process_cpu_seconds_total", Kind::Counter, "seconds", "Processor time used, user and system."),
    row("process_start_time_seconds", Kind::Gauge, "seconds", "When the process began, since 1970."),
    row("process_resident_memory_bytes", Kind::Gauge, "bytes", "Memory in use."),
    row("process_virtual_memory_bytes", Kind::Gauge, "bytes", "Memory that is mapped."),
    row("process_open_fds", Kind::Gauge, "descriptors", "Open file descriptors."),
    row("process_max_fds", Kind::Gauge, "descriptors", "How many may be open."),
    row("process_threads", Kind::Gauge, "threads", "Threads."),
];
