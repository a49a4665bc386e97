//! What the scheduler's *no* is called outside: one exhaustive table, without a wildcard arm.

use crate::actors::scheduler::Unable;
use crate::http::problem::{Code, Problem};

/// How long a client waits before it asks again.
const RETRY_MS: u64 = 1_000;

#[rustfmt::skip]
impl From<Unable> for Problem {
    fn from(why: Unable) -> Problem {
        match why {
            Unable::NoJob => Problem::not_found("There is no such job."),
            Unable::Running =>
                Problem::new(Code::OrderStateConflict, "It is running: one run at a time.").retry_after(RETRY_MS),
            Unable::NothingDue =>
                Problem::new(Code::OrderStateConflict, "It has not been due yet: there is nothing to run."),
            Unable::Unavailable =>
                Problem::new(Code::OwnerUnavailable, "Nothing was done: try again.").retry_after(RETRY_MS),
            Unable::Unknown =>
                Problem::new(Code::OutcomeUnknown, "It may have been run: look at the list of jobs before you try again.").retry_after(RETRY_MS),
        }
    }
}
