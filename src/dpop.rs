//! Proofs of a key (DPoP, RFC 9449): whoever has opened a session with one goes on with it by that key alone.
//!
//! A proof is a compact JWS that brings its public key along, and is signed with the private one, which never leaves its device. It
//! says for which door it was made, and when. Always true: of a proof that is taken, the key whose thumbprint is told has signed
//! all of it, with ES256 or Ed25519, for this door and within the last minute. What a head names beside that key (a file, a row, a
//! place of keys, an extension) is not followed but refused.
//!
//! No list of `jti` is kept, which all nodes would have to share: a proof that is shown again is worth nothing by itself. A refresh
//! wants a token beside it that is good once, a log-in wants the password, and binds the session to a key that whoever has
//! copied the proof has not.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use serde::de::value::MapAccessDeserializer;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::domain::stock::Millis;
use crate::vault;

/// The longest proof. Such as clients make take about 500 bytes.
pub const PROOF_BYTES_MAX: usize = 4 * 1024;
/// How long ago it may have been made.
const BACK_MS: i64 = 60_000;
/// How far the clock of whoever made it may be ahead of ours.
const AHEAD_MS: i64 = 5_000;
const JTI_CHARS_MAX: usize = 128;
/// Of a coordinate on P-256, and of a key on Ed25519.
const KEY_BYTES: usize = 32;

/// SHA-256 of a public key's members that count (RFC 7638).
pub type Thumbprint = [u8; 32];

/// What a proof must have been made for.
#[derive(Debug, Clone, Copy)]
pub struct Door<'a> {
    pub method: &'a str,
    pub path: &'a str,
    /// Where people reach the shop, without a slash at the end. Unless somebody has said so, the path alone is compared.
    pub public_url: Option<&'a str>,
}

/// Why a proof proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadProof {
    #[error("a DPoP header is one compact JWS of at most 4,096 bytes")]
    Malformed,
    #[error(
        "its head has to have typ dpop+jwt, alg ES256 or EdDSA, a jwk with a public key, and nothing else"
    )]
    Head,
    #[error("its jwk has to be a key on P-256 for ES256, or on Ed25519 for EdDSA")]
    Key,
    #[error("its jwk has not signed it")]
    Signature,
    #[error(
        "its claims have to have a jti of 1 to 128 visible ASCII characters, htm, htu, and iat in whole seconds"
    )]
    Claims,
    #[error("its htm and htu have to be this method and this address")]
    Elsewhere,
    #[error("its iat is more than 60 seconds ago, or more than 5 seconds ahead")]
    Stale,
}

impl BadProof {
    /// The same in one word.
    pub fn word(self) -> &'static str {
        match self {
            BadProof::Malformed => "malformed",
            BadProof::Head => "head",
            BadProof::Key => "key",
            BadProof::Signature => "signature",
            BadProof::Claims => "claims",
            BadProof::Elsewhere => "elsewhere",
            BadProof::Stale => "stale",
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Head<'a> {
    #[serde(borrow)]
    typ: Cow<'a, str>,
    #[serde(borrow)]
    alg: Cow<'a, str>,
    #[serde(borrow, deserialize_with = "key_object")]
    jwk: Jwk<'a>,
}

/// A public key. Whatever a private one has beside it is an unknown member.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Jwk<'a> {
    #[serde(borrow)]
    kty: Cow<'a, str>,
    #[serde(borrow)]
    crv: Cow<'a, str>,
    #[serde(borrow)]
    x: Cow<'a, str>,
    #[serde(borrow, default)]
    y: Option<Cow<'a, str>>,
    // What a browser writes beside a key that it hands out. None of it decides anything.
    #[serde(default, rename = "alg")]
    _alg: Option<IgnoredAny>,
    #[serde(default, rename = "use")]
    _use: Option<IgnoredAny>,
    #[serde(default, rename = "key_ops")]
    _key_ops: Option<IgnoredAny>,
    #[serde(default, rename = "ext")]
    _ext: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Claims<'a> {
    #[serde(borrow)]
    jti: Cow<'a, str>,
    #[serde(borrow)]
    htm: Cow<'a, str>,
    #[serde(borrow)]
    htu: Cow<'a, str>,
    iat: i64,
}

/// The thumbprint of the key that has signed `proof`, if it was made for this door and is young at `now`. The signature is
/// looked at before anything it covers but the key.
pub fn check(proof: &str, door: Door<'_>, now: Millis) -> Result<Thumbprint, BadProof> {
    if proof.len() > PROOF_BYTES_MAX {
        return Err(BadProof::Malformed);
    }
    let (message, signature) = proof.rsplit_once('.').ok_or(BadProof::Malformed)?;
    let (head, claims) = message.split_once('.').ok_or(BadProof::Malformed)?;
    let (head, claims) = (object(head)?, object(claims)?);
    let head: Head<'_> = serde_json::from_slice(&head).map_err(|_| BadProof::Head)?;
    if head.typ != "dpop+jwt" {
        return Err(BadProof::Head);
    }
    let (key, algorithm) = head.jwk.key(&head.alg)?;
    match crypto::verify(signature, message.as_bytes(), &key, algorithm) {
        Ok(true) => {}
        Ok(false) | Err(_) => return Err(BadProof::Signature),
    }
    let claims: Claims<'_> = serde_json::from_slice(&claims).map_err(|_| BadProof::Claims)?;
    let is_name = (1..=JTI_CHARS_MAX).contains(&claims.jti.len());
    if !is_name || !claims.jti.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(BadProof::Claims);
    }
    if claims.htm != door.method || !door.is_at(&claims.htu) {
        return Err(BadProof::Elsewhere);
    }
    let age_ms = now.0.saturating_sub(claims.iat.saturating_mul(1_000));
    if !(-AHEAD_MS..=BACK_MS).contains(&age_ms) {
        return Err(BadProof::Stale);
    }
    Ok(head.jwk.thumbprint())
}

/// What is to be read as an object: a list of its values in their order would be taken as well.
fn object(part: &str) -> Result<Vec<u8>, BadProof> {
    let json = BASE64.decode(part).map_err(|_| BadProof::Malformed)?;
    if json.starts_with(b"{") { Ok(json) } else { Err(BadProof::Malformed) }
}

/// The same of the object in it.
fn key_object<'de, D: Deserializer<'de>>(from: D) -> Result<Jwk<'de>, D::Error> {
    struct Object;

    impl<'de> Visitor<'de> for Object {
        type Value = Jwk<'de>;

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<Jwk<'de>, A::Error> {
            Jwk::deserialize(MapAccessDeserializer::new(object))
        }
    }

    from.deserialize_map(Object)
}

impl Jwk<'_> {
    /// The key, and how it signs, if that is what the head says. Ed25519 goes by two names: the second is that of RFC 9864.
    fn key(&self, alg: &str) -> Result<(DecodingKey, Algorithm), BadProof> {
        let x = is_coordinate(&self.x);
        let y = self.y.as_deref().filter(|y| is_coordinate(y));
        let (key, algorithm) = match (alg, &*self.kty, &*self.crv, y) {
            ("ES256", "EC", "P-256", Some(y)) if x => {
                (DecodingKey::from_ec_components(&self.x, y), Algorithm::ES256)
            }
            ("EdDSA" | "Ed25519", "OKP", "Ed25519", None) if x && self.y.is_none() => {
                (DecodingKey::from_ed_components(&self.x), Algorithm::EdDSA)
            }
            ("ES256" | "EdDSA" | "Ed25519", ..) => return Err(BadProof::Key),
            _ => return Err(BadProof::Head),
        };
        Ok((key.map_err(|_| BadProof::Key)?, algorithm))
    }

    /// Of a key that was looked at: its words are such as need no escape, and are written in one way only.
    fn thumbprint(&self) -> Thumbprint {
        let Jwk { kty, crv, x, .. } = self;
        let members = match &self.y {
            Some(y) => format!(r#"{{"crv":"{crv}","kty":"{kty}","x":"{x}","y":"{y}"}}"#),
            None => format!(r#"{{"crv":"{crv}","kty":"{kty}","x":"{x}"}}"#),
        };
        vault::digest(members.as_bytes())
    }
}

fn is_coordinate(word: &str) -> bool {
    BASE64.decode(word).is_ok_and(|bytes| bytes.len() == KEY_BYTES)
}

impl Door<'_> {
    /// Whether that is the address of this door (RFC 9449 §4.3): what stands behind `?` or `#` does not count.
    fn is_at(&self, htu: &str) -> bool {
        let url = htu.split(['?', '#']).next().unwrap_or_default();
        let Some((scheme, host, path)) = parts(url) else { return false };
        let Some(public_url) = self.public_url else { return path == self.path };
        let Some((our_scheme, our_host, before)) = parts(public_url) else { return false };
        scheme.eq_ignore_ascii_case(our_scheme)
            && host.eq_ignore_ascii_case(our_host)
            && path.strip_prefix(before) == Some(self.path)
    }
}

/// Scheme, host and path of a URL. A port that goes without saying is left out.
fn parts(url: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let usual = if scheme.eq_ignore_ascii_case("https") {
        ":443"
    } else if scheme.eq_ignore_ascii_case("http") {
        ":80"
    } else {
        return None;
    };
    let host = host.strip_suffix(usual).unwrap_or(host);
    (!host.is_empty()).then_some((scheme, host, path))
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
    use serde_json::{Value, json};

    use super::*;

    const NOW: Millis = Millis(1_800_000_000_500);
    const DOOR: Door<'static> =
        Door { method: "POST", path: "/v1/sessions", public_url: Some("https://shop.example.com") };

    enum Pair {
        P256(EcdsaKeyPair),
        Ed25519(Ed25519KeyPair),
    }
    use Pair::{Ed25519, P256};

    fn pairs() -> [Pair; 2] {
        let p256 = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        [P256(p256), Ed25519(Ed25519KeyPair::generate().unwrap())]
    }

    impl Pair {
        fn alg(&self) -> &'static str {
            match self {
                P256(_) => "ES256",
                Ed25519(_) => "EdDSA",
            }
        }

        fn jwk(&self) -> Value {
            match self {
                P256(pair) => {
                    let (x, y) = pair.public_key().as_ref()[1..].split_at(KEY_BYTES);
                    json!({"kty": "EC", "crv": "P-256", "x": BASE64.encode(x), "y": BASE64.encode(y)})
                }
                Ed25519(pair) => {
                    json!({"kty": "OKP", "crv": "Ed25519", "x": BASE64.encode(pair.public_key().as_ref())})
                }
            }
        }

        fn head(&self) -> Value {
            json!({"typ": "dpop+jwt", "alg": self.alg(), "jwk": self.jwk()})
        }

        fn sign(&self, message: &str) -> String {
            let message = message.as_bytes();
            match self {
                P256(pair) => BASE64.encode(pair.sign(&SystemRandom::new(), message).unwrap()),
                Ed25519(pair) => BASE64.encode(pair.sign(message)),
            }
        }

        /// Whatever is said, rightly signed.
        fn proof(&self, head: &Value, claims: &Value) -> String {
            let message =
                format!("{}.{}", BASE64.encode(head.to_string()), BASE64.encode(claims.to_string()));
            format!("{message}.{}", self.sign(&message))
        }

        fn judged(&self, head: &Value, claims: &Value) -> Result<Thumbprint, BadProof> {
            check(&self.proof(head, claims), DOOR, NOW)
        }
    }

    fn claims() -> Value {
        json!({"jti": "one", "htm": "POST", "htu": "https://shop.example.com/v1/sessions", "iat": NOW.0 / 1_000})
    }

    /// A value with another member, or with the same one otherwise.
    fn with(value: &Value, name: &str, other: Value) -> Value {
        let mut value = value.clone();
        value[name] = other;
        value
    }

    fn without(value: &Value, name: &str) -> Value {
        let mut value = value.clone();
        value.as_object_mut().unwrap().remove(name).unwrap();
        value
    }

    /// RFC 9449 §6.1 and RFC 8037 appendix A.3.
    #[test]
    fn a_key_has_the_thumbprint_that_the_standards_say() {
        let of = |jwk: Value| {
            let text = jwk.to_string();
            BASE64.encode(serde_json::from_str::<Jwk<'_>>(&text).unwrap().thumbprint())
        };
        let p256 = json!({
            "kty": "EC", "crv": "P-256", "x": "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs",
            "y": "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA",
        });
        assert_eq!(of(p256), "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I");
        let ed25519 =
            json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
        assert_eq!(of(ed25519), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    #[test]
    fn what_a_key_has_signed_for_this_door_tells_which_key_it_was() {
        let [one, other] = pairs();
        let told = one.judged(&one.head(), &claims()).unwrap();
        assert_eq!(one.judged(&one.head(), &with(&claims(), "jti", json!("two"))), Ok(told));
        assert_ne!(other.judged(&other.head(), &claims()).unwrap(), told);
        let by_its_new_name = with(&other.head(), "alg", json!("Ed25519"));
        assert_eq!(other.judged(&by_its_new_name, &claims()), other.judged(&other.head(), &claims()));
        // As a browser hands a key out, and with claims that are for others.
        let jwk = with(&with(&one.jwk(), "ext", json!(true)), "key_ops", json!(["verify"]));
        let jwk = with(&with(&jwk, "use", json!("sig")), "alg", json!("ES256"));
        let told_more = with(&with(&claims(), "nonce", json!("n")), "ath", json!("a"));
        assert_eq!(one.judged(&with(&one.head(), "jwk", jwk), &told_more), Ok(told));
    }

    #[test]
    fn heads_that_are_wrong_or_would_confuse_are_refused_even_when_rightly_signed() {
        for pair in pairs() {
            let head = pair.head();
            for (name, value) in [
                ("typ", json!("JWT")),
                ("typ", json!("DPOP+JWT")),
                ("alg", json!("none")),
                ("alg", json!("HS256")),
                ("alg", json!("es256")),
                ("alg", json!("ES384")),
                ("alg", json!("RS256")),
                ("kid", json!("../../dev/null")),
                ("jku", json!("https://evil.example/keys")),
                ("x5u", json!("https://evil.example/certificate")),
                ("x5c", json!(["MIIB"])),
                ("crit", json!(["b64"])),
                ("b64", json!(false)),
            ] {
                let heard = pair.judged(&with(&head, name, value.clone()), &claims());
                assert_eq!(heard, Err(BadProof::Head), "{name} {value}");
            }
            for name in ["typ", "alg", "jwk"] {
                assert_eq!(
                    pair.judged(&without(&head, name), &claims()),
                    Err(BadProof::Head),
                    "without {name}"
                );
            }
        }
    }

    #[test]
    fn a_key_that_is_private_or_of_another_kind_is_refused() {
        let [p256, ed25519] = pairs();
        let word = BASE64.encode([7; KEY_BYTES]);
        for pair in [&p256, &ed25519] {
            let (head, jwk) = (pair.head(), pair.jwk());
            let names = ["kty", "crv", "x", "y"].into_iter();
            let listed: Vec<&Value> = names.filter_map(|name| jwk.get(name)).collect();
            let heard = pair.judged(&with(&head, "jwk", json!(listed)), &claims());
            assert_eq!(heard, Err(BadProof::Head), "a list of what it holds");
            for name in ["d", "k", "p", "kid", "x5u", "jku", "x5c"] {
                let heard = pair.judged(&with(&head, "jwk", with(&jwk, name, json!(word))), &claims());
                assert_eq!(heard, Err(BadProof::Head), "{name}");
            }
            for (name, value) in [
                ("kty", json!("RSA")),
                ("kty", json!("oct")),
                ("crv", json!("P-384")),
                ("crv", json!("Ed448")),
                ("x", json!("")),
                ("x", json!("no base64!")),
                ("x", json!(BASE64.encode([7; KEY_BYTES + 1]))),
                ("x", json!(format!("{}=", pair.jwk()["x"].as_str().unwrap()))),
                ("y", json!(BASE64.encode([7; 16]))),
            ] {
                let heard = pair.judged(&with(&head, "jwk", with(&jwk, name, value.clone())), &claims());
                assert_eq!(heard, Err(BadProof::Key), "{name} {value}");
            }
        }
        // The right key under the other one's name, and one with half of it.
        let crossed = with(&p256.head(), "alg", json!("EdDSA"));
        assert_eq!(p256.judged(&crossed, &claims()), Err(BadProof::Key));
        let crossed = with(&ed25519.head(), "alg", json!("ES256"));
        assert_eq!(ed25519.judged(&crossed, &claims()), Err(BadProof::Key));
        let half = with(&p256.head(), "jwk", without(&p256.jwk(), "y"));
        assert_eq!(p256.judged(&half, &claims()), Err(BadProof::Key));
        let more = with(&ed25519.head(), "jwk", with(&ed25519.jwk(), "y", json!(word)));
        assert_eq!(ed25519.judged(&more, &claims()), Err(BadProof::Key));
    }

    #[test]
    fn a_signature_of_anybody_else_is_refused() {
        let [p256, ed25519] = pairs();
        let [another_p256, another_ed25519] = pairs();
        for (pair, another) in [(&p256, &another_p256), (&ed25519, &another_ed25519)] {
            assert_eq!(another.judged(&pair.head(), &claims()), Err(BadProof::Signature));
            let proof = pair.proof(&pair.head(), &claims());
            let (message, signature) = proof.rsplit_once('.').unwrap();
            let mut damaged = BASE64.decode(signature).unwrap();
            damaged[9] ^= 1;
            let elsewhere = pair.proof(&pair.head(), &with(&claims(), "jti", json!("two")));
            let moved = elsewhere.rsplit_once('.').unwrap().1;
            for signature in ["", "A", moved, &BASE64.encode(damaged), &format!("{signature}AAAA")] {
                let heard = check(&format!("{message}.{signature}"), DOOR, NOW);
                assert_eq!(heard, Err(BadProof::Signature), "{signature}");
            }
        }
        // A point that is on no curve signs nothing.
        let nowhere = with(&p256.jwk(), "y", json!(BASE64.encode([7; KEY_BYTES])));
        assert_eq!(p256.judged(&with(&p256.head(), "jwk", nowhere), &claims()), Err(BadProof::Signature));
    }

    #[test]
    fn claims_that_are_wrong_or_missing_are_refused() {
        let [pair, _] = pairs();
        let head = pair.head();
        for name in ["jti", "htm", "htu", "iat"] {
            assert_eq!(
                pair.judged(&head, &without(&claims(), name)),
                Err(BadProof::Claims),
                "without {name}"
            );
        }
        let now_s = NOW.0 / 1_000;
        for (name, value, why) in [
            ("jti", json!(""), BadProof::Claims),
            ("jti", json!("two words"), BadProof::Claims),
            ("jti", json!("schlüssel"), BadProof::Claims),
            ("jti", json!("j".repeat(JTI_CHARS_MAX + 1)), BadProof::Claims),
            ("jti", json!(1), BadProof::Claims),
            ("iat", json!("now"), BadProof::Claims),
            ("iat", json!(1e300), BadProof::Claims),
            ("htm", json!("GET"), BadProof::Elsewhere),
            ("htm", json!("post"), BadProof::Elsewhere),
            ("iat", json!(now_s - 60), BadProof::Stale),
            ("iat", json!(now_s + 6), BadProof::Stale),
            ("iat", json!(i64::MIN), BadProof::Stale),
            ("iat", json!(i64::MAX), BadProof::Stale),
        ] {
            assert_eq!(pair.judged(&head, &with(&claims(), name, value.clone())), Err(why), "{name} {value}");
        }
        for (name, value) in
            [("jti", json!("j".repeat(128))), ("iat", json!(now_s - 59)), ("iat", json!(now_s + 5))]
        {
            assert!(pair.judged(&head, &with(&claims(), name, value.clone())).is_ok(), "{name} {value}");
        }
    }

    #[test]
    fn a_proof_is_for_one_door_wherever_the_shop_is_reached() {
        let at = |public_url, htu: &str| Door { public_url, ..DOOR }.is_at(htu);
        let shop = Some("https://shop.example.com");
        for htu in [
            "https://shop.example.com/v1/sessions",
            "HTTPS://Shop.Example.COM:443/v1/sessions",
            "https://shop.example.com/v1/sessions?a=b#c",
        ] {
            assert!(at(shop, htu) && at(None, htu), "{htu}");
        }
        for htu in [
            "http://shop.example.com/v1/sessions",
            "https://shop.example.com:8443/v1/sessions",
            "https://shop.example.com.evil.example/v1/sessions",
            "https://evil@shop.example.com/v1/sessions",
            "https://evil.example/v1/sessions",
        ] {
            assert!(!at(shop, htu) && at(None, htu), "{htu}");
        }
        for htu in [
            "",
            "/v1/sessions",
            "https:///v1/sessions",
            "ftp://shop.example.com/v1/sessions",
            "https://shop.example.com",
            "https://shop.example.com/v1/sessions/",
            "https://shop.example.com/v1/sessions/refresh",
            "https://shop.example.com/V1/sessions",
            "https://shop.example.com//v1/sessions",
            "https://shop.example.com/shop/v1/sessions",
            "https://shop.example.com?/v1/sessions",
        ] {
            assert!(!at(shop, htu) && !at(None, htu), "{htu}");
        }
        let below = Some("http://example.com:80/shop");
        assert!(at(below, "http://example.com/shop/v1/sessions"));
        assert!(!at(below, "http://example.com/v1/sessions") && !at(below, "http://example.com/shop"));
    }

    #[test]
    fn garbage_is_refused() {
        let [pair, _] = pairs();
        let proof = pair.proof(&pair.head(), &claims());
        let message = proof.rsplit_once('.').unwrap().0;
        let long = pair.proof(&pair.head(), &with(&claims(), "more", json!("m".repeat(PROOF_BYTES_MAX))));
        let two = format!("{proof}, {proof}");
        for garbage in ["", "a", "a.b", "é.é.é", message, &format!("{message}.a.b"), &long, &two] {
            assert_eq!(check(garbage, DOOR, NOW), Err(BadProof::Malformed), "{garbage}");
        }
        for garbage in [".", "..", "...", "a.b.c"] {
            assert!(check(garbage, DOOR, NOW).is_err(), "{garbage}");
        }
        let list = json!(["one", "POST", "https://shop.example.com/v1/sessions", NOW.0 / 1_000]);
        assert_eq!(pair.judged(&pair.head(), &list), Err(BadProof::Malformed));
        let twice = pair.head().to_string().replacen("{\"", "{\"alg\":\"none\",\"", 1);
        let message = format!("{}.{}", BASE64.encode(twice), BASE64.encode(claims().to_string()));
        let proof = format!("{message}.{}", pair.sign(&message));
        assert_eq!(check(&proof, DOOR, NOW), Err(BadProof::Head));
    }
}
