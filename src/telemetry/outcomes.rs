//! What is counted by the word for what became of it. Each word is one of a handful that stand in the catalogue; no word comes from
//! outside.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use metrics::{Counter, Histogram, counter, gauge, histogram};

use super::handles::Metrics;
use super::{notices, recorder};

type CallAndOutcome = (&'static str, &'static str);

thread_local! {
    static REFUSALS: RefCell<HashMap<&'static str, Counter>> = RefCell::default();
    static PROVIDER_CALLS: RefCell<HashMap<CallAndOutcome, (Counter, Histogram)>> = RefCell::default();
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

/// Counts one session that ended because a refresh token of it was used twice.
pub fn session_reused() {
    Metrics::global();
    counter!("stockade_sessions_reused_total").increment(1);
}

/// Counts one refresh of a session that is bound to a key, by somebody with `no_proof` of one, or with one of `another_key`.
pub fn refresh_refused(why: &'static str) {
    Metrics::global();
    counter!("stockade_refreshes_refused_total", "why" => why).increment(1);
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
        counter!("stockade_job_runs_total", "name" => job, "outcome" => outcome).increment(0);
    }
    counter!("stockade_job_rows_moved_total", "name" => job).increment(0);
    counter!("stockade_job_rows_failed_total", "name" => job).increment(0);
}

/// Counts one run of a job: `done` or `failed`, with what it moved and what it could not.
pub fn job_ran(job: &'static str, outcome: &'static str, took: Duration, moved: u64, failed: u64) {
    recorder();
    counter!("stockade_job_runs_total", "name" => job, "outcome" => outcome).increment(1);
    counter!("stockade_job_rows_moved_total", "name" => job).increment(moved);
    counter!("stockade_job_rows_failed_total", "name" => job).increment(failed);
    histogram!("stockade_job_seconds", "name" => job).record(took.as_secs_f64());
    gauge!("stockade_job_last_ok", "name" => job).set(if outcome == "done" && failed == 0 {
        1.0
    } else {
        0.0
    });
}

/// Counts one run that was stopped because somebody else has the job.
pub fn job_lost(job: &'static str) {
    recorder();
    counter!("stockade_job_runs_total", "name" => job, "outcome" => "lost").increment(1);
}

/// Says when a job is due next, in milliseconds since 1970.
pub fn job_due(job: &'static str, at_ms: i64) {
    recorder();
    gauge!("stockade_job_next_timestamp_seconds", "name" => job).set(at_ms as f64 / 1e3);
}

/// What is counted by outcome is served from the first scrape on, also where nothing has happened yet.
pub(super) fn register() {
    for outcome in ["new", "taken"] {
        counter!("stockade_sign_ups_total", "outcome" => outcome).increment(0);
    }
    for outcome in ["ok", "wrong", "unverified", "suspended"] {
        counter!("stockade_log_ins_total", "outcome" => outcome).increment(0);
    }
    for why in ["no_proof", "another_key"] {
        counter!("stockade_refreshes_refused_total", "why" => why).increment(0);
    }
    for outcome in ["unknown", "captured", "paid", "declined", "cancelled", "review", "orphaned"] {
        counter!("stockade_payments_total", "outcome" => outcome).increment(0);
    }
    for outcome in ["done", "retried", "came_back"] {
        counter!("stockade_refunds_total", "outcome" => outcome).increment(0);
    }
    for outcome in ["news", "known", "foreign", "missing", "malformed", "stale", "wrong", "body"] {
        counter!("stockade_payment_webhooks_total", "outcome" => outcome).increment(0);
    }
    for outcome in ["sent", "retried", "refused", "given_up", "too_late"] {
        counter!("stockade_mails_total", "outcome" => outcome).increment(0);
    }
    for class in ["account", "unproved", "order"] {
        gauge!("stockade_letters_waiting_for_room", "class" => class).set(0.0);
        counter!("stockade_letters_held_back_total", "class" => class).increment(0);
    }
    for cause in ["died", "left"] {
        counter!("stockade_takeovers_total", "cause" => cause).increment(0);
    }
    for operation in ["charge", "find", "cancel", "refund", "find_refund"] {
        for outcome in ["ok", "unknown", "not_now", "refused"] {
            counter!("stockade_provider_calls_total", "operation" => operation, "outcome" => outcome)
                .increment(0);
        }
    }
    notices::register();
    for outcome in ["delivered", "retried", "given_up"] {
        counter!("stockade_webhooks_total", "outcome" => outcome).increment(0);
    }
    counter!("stockade_verifications_total").increment(0);
    counter!("stockade_revocations_total").increment(0);
    counter!("stockade_sessions_reused_total").increment(0);
}

/// The codes of refusals are served from the first scrape on: a rate sees a first one only where there was a zero before.
pub fn refusals_known(codes: impl IntoIterator<Item = &'static str>) {
    recorder();
    for code in codes {
        counter!("stockade_refusals_total", "code" => code).increment(0);
    }
}

/// Counts that this process became the lead after one that `died`, or one that `left`.
pub fn took_over(cause: &'static str) {
    Metrics::global();
    counter!("stockade_takeovers_total", "cause" => cause).increment(1);
}

/// What keeps orders from being acknowledged, and what is wrong besides, each with whether it is so.
pub fn conditions(
    not_ready: impl IntoIterator<Item = (&'static str, bool)>,
    degraded: impl IntoIterator<Item = (&'static str, bool)>,
) {
    recorder();
    for (reason, it_is_so) in not_ready {
        gauge!("stockade_not_ready", "reason" => reason).set(f64::from(u8::from(it_is_so)));
    }
    for (reason, it_is_so) in degraded {
        gauge!("stockade_degraded", "reason" => reason).set(f64::from(u8::from(it_is_so)));
    }
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

/// Says how many letters of a class wait because no more may leave in this hour, and counts those among them that are new.
pub fn letters_held_back(class: &'static str, waiting: u64, new: u64) {
    recorder();
    gauge!("stockade_letters_waiting_for_room", "class" => class).set(waiting as f64);
    counter!("stockade_letters_held_back_total", "class" => class).increment(new);
}

/// Counts one try to tell an endpoint something.
pub fn webhook_handled(outcome: &'static str) {
    recorder();
    counter!("stockade_webhooks_total", "outcome" => outcome).increment(1);
}
