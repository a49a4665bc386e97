//! What the webhooks' *no* is called outside: one exhaustive table, without a wildcard arm.

use crate::actors::webhooks::Unable;
use crate::http::problem::{Code, Problem};
use crate::http::refusal::internal;

/// How long a client waits before it asks again.
const RETRY_MS: u64 = 1_000;

#[rustfmt::skip]
impl From<Unable> for Problem {
    fn from(why: Unable) -> Problem {
        match why {
            Unable::NoEndpoint => Problem::not_found("There is no such endpoint."),
            Unable::NoDelivery => Problem::not_found("There is no such delivery."),
            Unable::BadUrl(why) => Problem::field("/url", why.to_string()),
            Unable::NotCallable(why) => Problem::field("/url", why.to_string()),
            Unable::TooManyEndpoints { limit } =>
                Problem::new(Code::OrderStateConflict, "There are as many endpoints as there may be: remove one.").number("limit", limit as u64),
            Unable::TooManySecrets { limit } =>
                Problem::new(Code::OrderStateConflict, "As many secrets are good as there may be: wait until one has lapsed.").number("limit", limit),
            Unable::KeyReused =>
                Problem::new(Code::IdempotencyKeyReused, "This Idempotency-Key came before, with another body."),
            Unable::Unavailable =>
                Problem::new(Code::OwnerUnavailable, "Nothing was done: try again.").retry_after(RETRY_MS),
            Unable::Unknown =>
                Problem::new(Code::OutcomeUnknown, "It may have been done: look before you try again.").retry_after(RETRY_MS),
            Unable::Internal => internal(),
        }
    }
}
