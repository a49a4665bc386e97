//! Signatures of Standard Webhooks: HMAC-SHA256 over the id, the time and the body, and the secret they are made with.

use std::fmt;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use secrecy::{ExposeSecret, SecretSlice, SecretString};

const PREFIX: &str = "whsec_";
/// What the specification lets a secret be long.
const BYTES_MIN: usize = 24;
const BYTES_MAX: usize = 64;
/// What ours are.
pub const SECRET_BYTES: usize = 32;

/// Not the bytes of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a secret has 24 to 64 bytes")]
pub struct NotASecret;

/// What an endpoint and we know, and nobody else.
#[derive(Clone)]
pub struct Secret(SecretSlice<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    pub fn new(chance: [u8; SECRET_BYTES]) -> Secret {
        Secret(chance.to_vec().into())
    }

    pub fn from_bytes(bytes: Vec<u8>) -> Result<Secret, NotASecret> {
        if (BYTES_MIN..=BYTES_MAX).contains(&bytes.len()) {
            Ok(Secret(bytes.into()))
        } else {
            Err(NotASecret)
        }
    }

    pub fn expose(&self) -> &[u8] {
        self.0.expose_secret()
    }

    /// As the receiver is told it.
    pub fn word(&self) -> SecretString {
        format!("{PREFIX}{}", BASE64_STANDARD.encode(self.expose())).into()
    }

    /// `v1,` and the signature of one try.
    pub fn sign(&self, id: &str, timestamp_s: i64, body: &str) -> String {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, self.expose()));
        context.update(format!("{id}.{timestamp_s}.").as_bytes());
        context.update(body.as_bytes());
        format!("v1,{}", BASE64_STANDARD.encode(context.sign().as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_the_specifications() {
        // The vector that the specification's reference libraries are tested with.
        let bytes = BASE64_STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let secret = Secret::from_bytes(bytes).unwrap();
        assert_eq!(secret.word().expose_secret(), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let signed = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_secret_has_a_length_and_is_not_shown() {
        assert!(Secret::from_bytes(vec![7; 23]).is_err() && Secret::from_bytes(vec![7; 65]).is_err());
        let secret = Secret::new([7; SECRET_BYTES]);
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        assert_ne!(secret.sign("a", 1, "b"), secret.sign("a", 11, "b"));
    }
}
