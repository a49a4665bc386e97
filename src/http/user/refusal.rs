//! What the accounts' *no* is called outside: one exhaustive table, without a wildcard arm.

use actix_web::http::header::{self, HeaderValue};

use crate::actors::user::Unable;
use crate::http::problem::{Code, Problem};
use crate::http::refusal::internal;

/// How long a client waits before it asks again.
const RETRY_MS: u64 = 1_000;

#[rustfmt::skip]
impl From<Unable> for Problem {
    fn from(why: Unable) -> Problem {
        let unauthenticated = |detail: &'static str| {
            let bearer = HeaderValue::from_static(r#"Bearer realm="stockade""#);
            Problem::new(Code::Unauthenticated, detail).header(header::WWW_AUTHENTICATE, bearer)
        };
        match why {
            Unable::Busy { retry_after_ms } =>
                Problem::new(Code::Overloaded, "Too many are at it. Nothing was done: try again.").retry_after(retry_after_ms),
            Unable::WrongPassword => unauthenticated("Address and password do not belong together."),
            // Where it takes another's place.
            Unable::Weak(why) => Problem::field("/new_password", why.to_string()),
            Unable::DeadToken => unauthenticated("The refresh token is void: log in again."),
            Unable::Unverified =>
                Problem::new(Code::EmailNotVerified, "Follow the link in the letter first; POST /v1/users/verify/resend sends another."),
            Unable::Suspended => Problem::new(Code::Forbidden, "The account is suspended."),
            Unable::NoUser => Problem::not_found("There is no such account."),
            Unable::NoSession => Problem::not_found("There is no such session."),
            Unable::LinkExpired =>
                Problem::new(Code::LinkExpired, "The link was used or has expired. If the account still has to be verified and no other letter comes, ask for one: POST /v1/users/verify/resend, or sign up again."),
            Unable::PhoneTaken => Problem::new(Code::PhoneTaken, "Somebody else has this number."),
            Unable::IllegalMove => Problem::new(Code::OrderStateConflict, "The account's state does not allow it."),
            Unable::Unavailable =>
                Problem::new(Code::OwnerUnavailable, "Nothing was done: try again.").retry_after(RETRY_MS),
            Unable::Unknown =>
                Problem::new(Code::OutcomeUnknown, "It may have been done: look before you try again.").retry_after(RETRY_MS),
            Unable::Internal => internal(),
        }
    }
}
