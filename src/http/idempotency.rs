//! `Idempotency-Key`: the client's name for what it wants done once.
//!
//! A key belongs to its caller, and is looked for where what it has done is kept. Among all that he has made: an order, by whichever
//! of the two doors; what was put into his cart; a product; a webhook's secret. Within the order: its payment, its cancellation or
//! that of a line, the return of a line, a refund. Within the product: a restock. Within the delivery: that it is sent again.
//! Behind that it is a new key: one that is used for two orders pays both of them, each once.
//!
//! What is compared between two requests with one key is not their bytes but what they ask for: the parsed body in one canonical
//! order, together with the door and what its path names.

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::{FromRequest, HttpRequest};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::problem::Problem;
use crate::domain::id::UserId;
use crate::domain::stock::KeyUse;

const KEY_LEN_MAX: usize = 255;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// An answer that was given before.
pub const REPLAYED: (HeaderName, HeaderValue) =
    (HeaderName::from_static("idempotent-replayed"), HeaderValue::from_static("true"));

/// The key of a request, if it came with one: 128 bits of hash.
#[derive(Debug, Clone, Copy)]
pub struct IdempotencyKey(pub Option<[u8; 16]>);

impl FromRequest for IdempotencyKey {
    type Error = Problem;
    type Future = Ready<Result<IdempotencyKey, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let mut all = request.headers().get_all(IDEMPOTENCY_KEY);
        let given = all.next();
        ready(match (given.map(HeaderValue::as_bytes), all.next()) {
            (None, _) => Ok(IdempotencyKey(None)),
            (Some(key), None) if is_key(key) => Ok(IdempotencyKey(Some(xxh3_128(key).to_be_bytes()))),
            (Some(_), Some(_)) => Err(Problem::field("Idempotency-Key", "came more than once")),
            (Some(_), None) => Err(Problem::field("Idempotency-Key", "1 to 255 visible ASCII characters")),
        })
    }
}

fn is_key(key: &[u8]) -> bool {
    (1..=KEY_LEN_MAX).contains(&key.len()) && key.iter().all(u8::is_ascii_graphic)
}

impl IdempotencyKey {
    /// The key together with what was asked for, where the owner keeps keys by buyer.
    pub fn used_for(self, asked: Fingerprint) -> Option<KeyUse> {
        self.0.map(|key| KeyUse { key, body: asked.digest() })
    }

    /// The same where nobody keeps keys by caller: the caller is hashed into the key.
    pub fn of_caller(self, caller: UserId, asked: Fingerprint) -> Option<KeyUse> {
        let key = self.0?;
        let mut both = [0; 32];
        both[..16].copy_from_slice(caller.as_bytes());
        both[16..].copy_from_slice(&key);
        Some(KeyUse { key: xxh3_128(&both).to_be_bytes(), body: asked.digest() })
    }
}

/// What a request asks for, as 64 bits: the door and every field of the body, each after a length or of fixed size.
#[derive(Clone)]
pub struct Fingerprint(Xxh3);

impl Fingerprint {
    /// `door` is method and path pattern.
    pub fn of(door: &str) -> Fingerprint {
        Fingerprint(Xxh3::new()).bytes(door.as_bytes())
    }

    pub fn bytes(mut self, bytes: &[u8]) -> Fingerprint {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    pub fn number(mut self, number: i64) -> Fingerprint {
        self.0.update(&number.to_le_bytes());
        self
    }

    pub fn digest(&self) -> u64 {
        self.0.digest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_visible_ascii_of_sane_length() {
        assert!(is_key(b"order-2026-10-30/1"));
        assert!(is_key(&[b'k'; 255]));
        for key in [&b""[..], &[b'k'; 256], b"two words", "schlüssel".as_bytes(), b"\x7f"] {
            assert!(!is_key(key));
        }
    }

    #[test]
    fn fields_do_not_run_into_each_other() {
        let of = |a: &[u8], b: &[u8]| Fingerprint::of("POST /x").bytes(a).bytes(b).digest();
        assert_ne!(of(b"ab", b"c"), of(b"a", b"bc"));
        assert_ne!(Fingerprint::of("POST /x").digest(), Fingerprint::of("POST /y").digest());
    }
}
