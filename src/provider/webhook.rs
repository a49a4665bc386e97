//! The provider's webhooks: who signed them, when, and what they hint at.
//!
//! Signatures are made in the manner of Stripe: HMAC-SHA-256 over the time, a dot and the body as it came, in a header
//! `t=…,v1=…` that may carry several. Always true: a body is not looked at before its signature has been checked.

use std::sync::Arc;

use aws_lc_rs::hmac;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::stripe::is_intent;
use crate::domain::id::{PaymentId, RefundId};
use crate::domain::stock::Millis;

pub const SIGNATURE_HEADER: &str = "Stripe-Signature";
/// How far the time of a signature may be from ours, either way.
pub const TOLERANCE_S: i64 = 300;
/// What a header may hold at most.
const HEADER_BYTES_MAX: usize = 4_096;
/// Signatures of one header that are looked at: one for each secret that is in use there.
const SIGNATURES_MAX: usize = 8;
const EVENT_ID_LEN_MAX: usize = 255;

/// Where our ids stand in what the provider keeps for us.
pub(super) const PAYMENT_KEY: &str = "stockade_payment";
pub(super) const ORDER_KEY: &str = "stockade_order";
pub(super) const REFUND_KEY: &str = "stockade_refund";

/// Why a webhook is not listened to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadSignature {
    #[error("it is not signed")]
    Missing,
    #[error("its signature cannot be read")]
    Malformed,
    #[error("it was signed too long ago, or by a clock that is wrong")]
    Stale,
    #[error("somebody else signed it, or it was altered")]
    Wrong,
    #[error("it is signed, and says nothing that can be understood")]
    Body,
}

impl BadSignature {
    /// The word for metrics and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            BadSignature::Missing => "missing",
            BadSignature::Malformed => "malformed",
            BadSignature::Stale => "stale",
            BadSignature::Wrong => "wrong",
            BadSignature::Body => "body",
        }
    }
}

/// Makes and checks signatures with one secret. It prints nothing of it.
#[derive(Clone)]
pub struct Signatures(Arc<hmac::Key>);

impl Signatures {
    pub fn new(secret: &SecretString) -> Signatures {
        Signatures(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes())))
    }

    /// The header for this body, signed at this time.
    pub fn sign(&self, body: &[u8], at: Millis) -> String {
        let seconds = at.0.div_euclid(1_000);
        let mut context = hmac::Context::with_key(&self.0);
        context.update(format!("{seconds}.").as_bytes());
        context.update(body);
        let hex: String = context.sign().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("t={seconds},v1={hex}")
    }

    /// Whether one of the header's signatures is ours, over this body and of our time.
    pub fn check(&self, header: Option<&str>, body: &[u8], now: Millis) -> Result<(), BadSignature> {
        let header = header.filter(|header| !header.is_empty()).ok_or(BadSignature::Missing)?;
        if header.len() > HEADER_BYTES_MAX {
            return Err(BadSignature::Malformed);
        }
        let mut time = None;
        let mut signatures = Vec::new();
        for part in header.split(',') {
            match part.trim().split_once('=') {
                Some(("t", seconds)) => time = Some(seconds),
                // Other schemes are not ours to judge.
                Some(("v1", hex)) if signatures.len() < SIGNATURES_MAX => signatures.extend(unhex(hex)),
                _ => {}
            }
        }
        let time = time.ok_or(BadSignature::Malformed)?;
        let seconds: i64 = time.parse().map_err(|_| BadSignature::Malformed)?;
        if signatures.is_empty() {
            return Err(BadSignature::Malformed);
        }
        // Whether it is ours comes first: nobody learns about our clock without the secret.
        let signed = [time.as_bytes(), b".", body].concat();
        // `verify` takes the same time whatever it is given.
        if !signatures.iter().any(|tag| hmac::verify(&self.0, &signed, tag).is_ok()) {
            return Err(BadSignature::Wrong);
        }
        if now.0.div_euclid(1_000).abs_diff(seconds) > TOLERANCE_S.unsigned_abs() {
            return Err(BadSignature::Stale);
        }
        Ok(())
    }
}

fn unhex(digits: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if digits.len() != 64 || !digits.is_ascii() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// What a webhook hints at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    /// The provider's id of the event, for telling duplicates apart.
    pub event: String,
    /// What happened, in the provider's word.
    pub kind: String,
    /// `None`: it is about nothing of ours.
    pub payment: Option<PaymentId>,
    pub refund: Option<RefundId>,
    /// The provider's name for the payment, where it tells one.
    pub provider_ref: Option<String>,
}

#[derive(Deserialize)]
struct Event {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    object: Object,
}

#[derive(Deserialize)]
struct Object {
    #[serde(default)]
    id: Option<Word>,
    #[serde(default)]
    payment_intent: Option<Word>,
    #[serde(default)]
    metadata: Option<Metadata>,
}

/// A word, or whatever else stands there.
#[derive(Deserialize)]
#[serde(untagged)]
enum Word {
    Told(String),
    Other(serde::de::IgnoredAny),
}

impl Word {
    fn intent(self) -> Option<String> {
        match self {
            Word::Told(name) => Some(name).filter(|name| is_intent(name)),
            Word::Other(_) => None,
        }
    }
}

/// What the provider keeps for us beside a payment or a refund. A word that is no id of ours is as good as none.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Metadata {
    #[serde(default)]
    stockade_payment: Option<String>,
    #[serde(default)]
    stockade_refund: Option<String>,
}

impl Metadata {
    pub(super) fn payment(&self) -> Option<PaymentId> {
        self.stockade_payment.as_deref()?.parse().ok()
    }

    pub(super) fn refund(&self) -> Option<RefundId> {
        self.stockade_refund.as_deref()?.parse().ok()
    }
}

impl Hint {
    pub(super) fn read(body: &[u8]) -> Result<Hint, BadSignature> {
        let event: Event = serde_json::from_slice(body).map_err(|_| BadSignature::Body)?;
        if event.id.is_empty() || event.id.len() > EVENT_ID_LEN_MAX || event.kind.len() > EVENT_ID_LEN_MAX {
            return Err(BadSignature::Body);
        }
        let Object { id, payment_intent, metadata } = event.data.object;
        let metadata = metadata.unwrap_or_default();
        let provider_ref = id.and_then(Word::intent).or_else(|| payment_intent.and_then(Word::intent));
        let (payment, refund) = (metadata.payment(), metadata.refund());
        Ok(Hint { payment, refund, provider_ref, event: event.id, kind: event.kind })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = Millis(1_800_000_000_000);
    const BODY: &[u8] = br#"{"id":"evt_1","type":"payment_intent.succeeded","data":{"object":{"id":"pi_1","metadata":{"stockade_payment":"pay_01h455vb4pex5vsknk084sn02q"}}}}"#;

    fn signatures(secret: &str) -> Signatures {
        Signatures::new(&SecretString::from(secret))
    }

    #[test]
    fn a_signature_is_the_one_that_the_scheme_describes() {
        // printf '1800000000.{}' | openssl dgst -sha256 -hmac whsec_test
        let told = signatures("whsec_test").sign(b"{}", NOW);
        let known = ["482e6337ac527239", "2d375c6fdc4d52a7", "e615dc2facedab0f", "fe155ddfd6a56e66"].concat();
        assert_eq!(told, format!("t=1800000000,v1={known}"));
    }

    #[test]
    fn whoever_has_the_secret_is_believed_for_five_minutes() {
        let ours = signatures("whsec_ours");
        let header = ours.sign(BODY, NOW);
        let at = |ms: i64| ours.check(Some(&header), BODY, NOW.plus(ms));
        assert_eq!([at(0), at(300_000), at(-300_000)], [Ok(()); 3]);
        assert_eq!([at(301_000), at(-301_000)], [Err(BadSignature::Stale); 2]);
    }

    #[test]
    fn nobody_else_is_believed() {
        let ours = signatures("whsec_ours");
        let header = ours.sign(BODY, NOW);
        let check = |header: &str, body: &[u8]| ours.check(Some(header), body, NOW);
        assert_eq!(check(&signatures("whsec_theirs").sign(BODY, NOW), BODY), Err(BadSignature::Wrong));
        assert_eq!(check(&header, &[BODY, b" "].concat()), Err(BadSignature::Wrong));
        // Another time than the one that was signed.
        let moved = header.replace("t=1800000000", "t=1800000001");
        assert_eq!(check(&moved, BODY), Err(BadSignature::Wrong));
        assert_eq!(ours.check(None, BODY, NOW), Err(BadSignature::Missing));
        assert_eq!(check("", BODY), Err(BadSignature::Missing));
        let v0 = header.replace("v1=", "v0=");
        let long = format!("{header},{}", "x".repeat(5_000));
        for header in ["t=1800000000", "v1=00", "t=soon,v1=00", "t=1800000000,v1=zz", "x", &v0, &long] {
            assert_eq!(check(header, BODY), Err(BadSignature::Malformed), "{header:.80}");
        }
    }

    #[test]
    fn one_good_signature_among_several_is_enough() {
        let (ours, theirs) = (signatures("whsec_ours"), signatures("whsec_former"));
        let good = ours.sign(BODY, NOW);
        let bad = theirs.sign(BODY, NOW);
        let (_, former) = bad.split_once(',').unwrap();
        let both = format!("{}, {former}, v0=abc, {}", "t=1800000000", good.split_once(',').unwrap().1);
        assert_eq!(ours.check(Some(&both), BODY, NOW), Ok(()));
        // A flood of them is not looked through.
        let flood =
            format!("t=1800000000,{}{}", format!("{former},").repeat(8), good.split_once(',').unwrap().1);
        assert_eq!(ours.check(Some(&flood), BODY, NOW), Err(BadSignature::Wrong));
    }

    #[test]
    fn a_hint_names_the_event_and_what_it_is_about() {
        let hint = Hint::read(BODY).unwrap();
        assert_eq!((hint.event.as_str(), hint.kind.as_str()), ("evt_1", "payment_intent.succeeded"));
        assert_eq!(hint.payment.map(|id| id.to_string()).as_deref(), Some("pay_01h455vb4pex5vsknk084sn02q"));
        assert_eq!(hint.provider_ref.as_deref(), Some("pi_1"));
        let of = |object: &str| {
            Hint::read(format!(r#"{{"id":"evt_2","type":"x","data":{{"object":{object}}}}}"#).as_bytes())
        };
        // Not ours, or not for us to understand.
        for object in ["{}", r#"{"metadata":null}"#, r#"{"metadata":{"stockade_payment":"pay_x"}}"#] {
            assert_eq!(of(object).map(|hint| hint.payment), Ok(None), "{object}");
        }
        // A charge names its intent; what is no name is not taken for one.
        let name = |object: &str| of(object).unwrap().provider_ref;
        assert_eq!(name(r#"{"id":"ch_1","payment_intent":"pi_2"}"#).as_deref(), Some("pi_2"));
        for object in
            [r#"{"id":"sim_1"}"#, r#"{"id":"pi_1/../.."}"#, r#"{"id":7,"payment_intent":{"id":"pi_1"}}"#]
        {
            assert_eq!(name(object), None, "{object}");
        }
        let refund = of(r#"{"metadata":{"stockade_refund":"ref_01h455vb4pex5vsknk084sn02q"}}"#).unwrap();
        assert!(refund.refund.is_some());
        for bad in [&b"{}"[..], b"nonsense", br#"{"id":"","type":"x","data":{"object":{}}}"#, b"\xff"] {
            assert_eq!(Hint::read(bad), Err(BadSignature::Body));
        }
    }
}
