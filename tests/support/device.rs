//! A device with a key of its own, and the proofs that it signs (RFC 9449).

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use serde_json::{Value, json};

use super::{Pair, Person, Reply, Shop};

pub const LOG_IN: &str = "/v1/sessions";
pub const REFRESH: &str = "/v1/sessions/refresh";

/// A key on P-256, which never leaves it.
pub struct Device(EcdsaKeyPair);

impl Device {
    pub fn made() -> Device {
        Device(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    /// A proof with these claims.
    pub fn signed(&self, claims: &Value) -> String {
        let (x, y) = self.0.public_key().as_ref()[1..].split_at(32);
        let jwk = json!({ "kty": "EC", "crv": "P-256", "x": BASE64.encode(x), "y": BASE64.encode(y) });
        let head = json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": jwk });
        let message = format!("{}.{}", BASE64.encode(head.to_string()), BASE64.encode(claims.to_string()));
        let signature = self.0.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", BASE64.encode(signature))
    }

    /// A proof for a door of this shop, made now.
    pub fn proof(&self, shop: &Shop, path: &str) -> String {
        self.proof_at(shop, &format!("http://127.0.0.1{path}"))
    }

    /// A proof for this address, made now.
    pub fn proof_at(&self, shop: &Shop, htu: &str) -> String {
        let (jti, iat) = (format!("{:x}", shop.clock.chance()), shop.clock.now().0 / 1_000);
        self.signed(&json!({ "jti": jti, "htm": "POST", "htu": htu, "iat": iat }))
    }
}

impl Shop {
    pub async fn try_log_in_with(&self, person: &Person, proof: &str) -> Reply {
        self.post(LOG_IN, &person.credentials()).header("DPoP", proof).send().await
    }

    /// In a session that is bound to a device.
    pub async fn log_in_from(&self, person: &Person, device: &Device) -> Pair {
        Pair::of(&self.try_log_in_with(person, &device.proof(self, LOG_IN)).await)
    }

    pub async fn try_refresh_with(&self, refresh: &str, proof: &str) -> Reply {
        let body = json!({ "refresh_token": refresh });
        self.post(REFRESH, &body).header("DPoP", proof).send().await
    }

    pub async fn try_refresh_from(&self, refresh: &str, device: &Device) -> Reply {
        self.try_refresh_with(refresh, &device.proof(self, REFRESH)).await
    }
}
