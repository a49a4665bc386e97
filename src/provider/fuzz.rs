//! What payment providers say, for `crate::fuzz`.

use std::sync::LazyLock;

use secrecy::SecretString;

use super::stripe;
use super::webhook::{BadSignature, Hint, Signatures};
use crate::domain::stock::Millis;

const NOW: Millis = Millis(1_800_000_000_000);

static OURS: LazyLock<Signatures> =
    LazyLock::new(|| Signatures::new(&SecretString::from("whsec_of_a_fuzzer")));

/// A header, a newline and a body: nobody signed it. The same body, signed, is believed and then read.
pub fn webhooks(bytes: &[u8]) {
    let at = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (header, body) = (String::from_utf8_lossy(&bytes[..at]), bytes.get(at + 1..).unwrap_or_default());
    assert!(OURS.check(Some(&header), body, NOW).is_err(), "nobody has signed it");
    let signed = OURS.sign(body, NOW);
    assert_eq!(OURS.check(Some(&signed), body, NOW), Ok(()));
    assert_eq!(OURS.check(Some(&signed), body, NOW.plus(301_000)), Err(BadSignature::Stale));
    let longer = [body, b" "].concat();
    assert_eq!(OURS.check(Some(&signed), &longer, NOW), Err(BadSignature::Wrong));
    if let Ok(hint) = Hint::read(body) {
        assert!((1..=255).contains(&hint.event.len()) && hint.kind.len() <= 255);
    }
}

/// Answers of theirs, whole or in lists.
pub fn answers(bytes: &[u8]) {
    stripe::read_answers(bytes);
}
