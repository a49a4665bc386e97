//! What is believed because of a key: nobody without it is believed, and with it only what is of the right kind.

use std::sync::LazyLock;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use serde_json::Value;

use crate::clock::Clock;
use crate::config::MasterKeys;
use crate::domain::stock::Millis;
use crate::dpop::{self, BadProof, Door};
use crate::tokens::{BadToken, Tokens};
use crate::vault::{Vault, WrappedKey};

const SECRET: &[u8] = b"a secret that nobody signs with but this";
const NOW: Millis = Millis(1_800_000_000_000);

static TOKENS: LazyLock<Option<Tokens>> = LazyLock::new(|| Tokens::new(SECRET, &[]).ok());
static VAULT: LazyLock<Option<(Vault, WrappedKey)>> = LazyLock::new(|| {
    let vault = Vault::new(&MasterKeys::one([7; 32]), &Clock::start()).ok()?;
    let key = vault.new_key().ok()?;
    Some((vault, key))
});

/// A token as it stands, which nobody has signed; and a head and claims, a line each, that somebody with the key has signed.
pub fn access_tokens(bytes: &[u8]) {
    let Some(tokens) = &*TOKENS else { return };
    let text = String::from_utf8_lossy(bytes);
    assert!(tokens.verify(&text, NOW).is_err(), "nobody has signed it");
    let Some((head, claims)) = text.split_once('\n') else { return };
    let message = format!("{}.{}", BASE64.encode(head), BASE64.encode(claims));
    let key = EncodingKey::from_secret(SECRET);
    let Ok(signature) = crypto::sign(message.as_bytes(), &key, Algorithm::HS256) else { return };
    let token = format!("{message}.{signature}");
    let told = tokens.verify(&token, NOW);
    assert_eq!(told, tokens.verify(&token, NOW), "what is remembered is what was found");
    let Ok(identity) = told else { return };
    let read = |json: &str| serde_json::from_str::<Value>(json).unwrap_or_default();
    let (head, claims) = (read(head), read(claims));
    assert_eq!((&head["alg"], &head["crit"]), (&"HS256".into(), &Value::Null));
    assert!(head["typ"].as_str().is_some_and(|typ| typ.eq_ignore_ascii_case("JWT")));
    assert_eq!((&claims["iss"], &claims["aud"]), (&"stockade".into(), &"stockade".into()));
    assert_eq!(claims["sub"], identity.user.to_string());
    assert!(claims["nbf"].as_i64().is_some_and(|nbf| nbf <= NOW.0 / 1_000) && identity.expires_at > NOW);
    assert_eq!(tokens.verify(&token, identity.expires_at), Err(BadToken::Expired));
    let unsigned = format!("{message}.");
    assert_eq!(tokens.verify(&unsigned, NOW), Err(BadToken::Invalid));
}

/// The key of a device, and as which its proofs show it.
static DEVICE: LazyLock<Option<(Ed25519KeyPair, String)>> = LazyLock::new(|| {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).ok()?;
    let x = BASE64.encode(pair.public_key().as_ref());
    Some((pair, format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}"}}"#)))
});

/// A proof as it stands; and a head and claims, a line each, that a device has signed, where `KEY` in the head is its key. What is taken
/// is for this door alone, and not for long.
pub fn dpop_proofs(bytes: &[u8]) {
    let door =
        Door { method: "POST", path: "/v1/sessions/refresh", public_url: Some("https://shop.example.com") };
    let text = String::from_utf8_lossy(bytes);
    let anywhere = Door { public_url: None, ..door };
    assert!(dpop::check(&text, door, NOW).is_err() || dpop::check(&text, anywhere, NOW).is_ok());
    let Some((head, claims)) = text.split_once('\n') else { return };
    let Some((pair, jwk)) = &*DEVICE else { return };
    let message = format!("{}.{}", BASE64.encode(head.replace("KEY", jwk)), BASE64.encode(claims));
    let signed = |by: &Ed25519KeyPair| format!("{message}.{}", BASE64.encode(by.sign(message.as_bytes())));
    let proof = signed(pair);
    let Ok(key) = dpop::check(&proof, door, NOW) else { return };
    assert_eq!(dpop::check(&proof, anywhere, NOW), Ok(key));
    let elsewhere = Door { path: "/v1/sessions", ..anywhere };
    assert_eq!(dpop::check(&proof, elsewhere, NOW), Err(BadProof::Elsewhere));
    for later in [-120_000, 120_000] {
        assert_eq!(dpop::check(&proof, door, NOW.plus(later)), Err(BadProof::Stale));
    }
    let Ok(other) = Ed25519KeyPair::from_seed_unchecked(&[8; 32]) else { return };
    assert_eq!(dpop::check(&signed(&other), door, NOW), Err(BadProof::Signature));
}

/// What was not sealed under a key does not open with it, and what was comes out as it went in, in its own place alone.
pub fn sealed(bytes: &[u8]) {
    let Some((vault, key)) = &*VAULT else { return };
    assert!(vault.open(key, "fuzz", bytes).is_err());
    if let Ok(wrapped) = WrappedKey::from_bytes(bytes) {
        assert!(vault.open(&wrapped, "fuzz", bytes).is_err());
        assert!(!matches!(vault.rewrapped(&wrapped), Ok(Some(_))), "nobody has wrapped it");
    }
    let Ok(mut sealed) = vault.seal(key, "fuzz", bytes) else { return };
    assert_eq!(vault.open(key, "fuzz", &sealed).as_deref(), Ok(bytes));
    assert!(vault.open(key, "elsewhere", &sealed).is_err());
    let at = bytes.iter().map(|byte| usize::from(*byte)).sum::<usize>() % sealed.len();
    sealed[at] ^= 1;
    assert!(vault.open(key, "fuzz", &sealed).is_err(), "a changed bit is seen");
}
