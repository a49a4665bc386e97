//! How an endpoint is told something: the address it may have, the signature it can check, and the call itself.
//!
//! Signatures and headers follow Standard Webhooks (<https://www.standardwebhooks.com>). Whoever registers an endpoint chooses where
//! this process connects to; so nothing is called that is not out in the open (OWASP's *server-side request forgery*). Always true: a
//! name is looked up once a call, every address it has is checked, and the connection goes to one of those.

mod address;
mod caller;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz;
mod sign;
mod target;

pub use address::{Reach, Refused};
pub use caller::{
    ANSWER_BYTES_MAX, CALL_WITHIN, Caller, CallerError, Failure, Looking, Lookup, Message, by_system,
};
pub use sign::{NotASecret, SECRET_BYTES, Secret};
pub use target::{BadTarget, Target};
