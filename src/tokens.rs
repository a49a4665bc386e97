//! Access tokens: who somebody is, signed, for a quarter of an hour.
//!
//! A token is a JWT (RFC 7519) signed by the algorithm that is configured, HS256 or EdDSA, and by nothing else. A header
//! that names another one, a key somewhere else (`jku`, `jwk`, `x5u`) or a critical extension convinces nobody: the
//! algorithm and the keys are ours. A key belongs to one algorithm, and so does its id: what a secret has signed by the
//! other one names a key that is unknown. Times are checked to the second, without leeway, against a clock that is
//! handed in.
//!
//! A token that was found good is remembered, whole, by the thread that read it: a crowd shows the same tokens again
//! and again. What is remembered is what the signature covers; the times are looked at each time. Whether its session
//! was ended meanwhile is not for a signature to say: `actors::revocations` knows.

use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::Arc;

use aws_lc_rs::hkdf;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, crypto};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::config::JwtAlgorithm;
use crate::domain::id::{SessionId, UserId};
use crate::domain::stock::Millis;
use crate::domain::user::Role;

/// How long an access token is good for, unless configured otherwise.
pub const LIFE_S_DEFAULT: i64 = 15 * 60;
/// `nbf` lies this far back, so that two machines need not agree on the second.
const NOT_BEFORE_SLACK_S: i64 = 60;
/// The claims of our own tokens take about 250 bytes.
const CLAIMS_BYTES_MAX: usize = 1024;
const ISSUER: &str = "stockade";
const AUDIENCE: &str = "stockade";

/// Who asks, as a verified token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    pub user: UserId,
    pub role: Role,
    /// The log-in it came from. A token that was signed offline has one of its own, without a row.
    pub session: SessionId,
    pub expires_at: Millis,
}

impl Identity {
    /// When they showed their password: a session's id is made at its log-in and outlives every refresh. For a token that
    /// was signed offline it is when it was signed.
    pub fn logged_in_at(&self) -> Millis {
        self.session.made_at()
    }
}

/// Why a token says nothing about anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    #[error("the access token has expired")]
    Expired,
    #[error("the access token is not valid")]
    Invalid,
}

/// Tokens that a thread remembers, at about 400 bytes each: so many in each set, where a newer one takes the place of
/// an older one. In single places ten thousand buyers would keep pushing each other out.
const SET_TOKENS: usize = 4;
const SETS: usize = 8 * 1024;

/// A token whose signature is ours, and what it says.
struct Seen {
    hash: u64,
    token: Box<str>,
    identity: Identity,
    nbf: i64,
}

impl Seen {
    fn at(&self, now: Millis) -> Result<Identity, BadToken> {
        if self.nbf > now.0.div_euclid(1000) {
            Err(BadToken::Invalid)
        } else if self.identity.expires_at <= now {
            Err(BadToken::Expired)
        } else {
            Ok(self.identity)
        }
    }
}

/// What one thread remembers, all of it found good by the keys with this number.
#[derive(Default)]
struct Memory {
    keys: u128,
    places: Vec<Option<Seen>>,
    /// Whose turn it is to go, in any full set.
    turn: usize,
}

impl Memory {
    fn of(keys: u128) -> Memory {
        let mut memory = Memory { keys, ..Memory::default() };
        memory.places.resize_with(SETS * SET_TOKENS, || None);
        memory
    }

    fn set(hash: u64) -> std::ops::Range<usize> {
        let first = hash as usize % SETS * SET_TOKENS;
        first..first + SET_TOKENS
    }

    fn find(&self, hash: u64, token: &str) -> Option<&Seen> {
        let set = self.places.get(Memory::set(hash))?;
        set.iter().flatten().find(|seen| seen.hash == hash && *seen.token == *token)
    }

    fn keep(&mut self, seen: Seen) {
        let Some(set) = self.places.get_mut(Memory::set(seen.hash)) else { return };
        let free = set.iter().position(Option::is_none);
        self.turn = (self.turn + 1) % SET_TOKENS;
        set[free.unwrap_or(self.turn)] = Some(seen);
    }
}

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::default();
}

struct Key {
    id: String,
    /// The first part of every token signed with this key.
    head: String,
    sign: EncodingKey,
    check: DecodingKey,
}

/// Signs and verifies. Cheap to clone.
#[derive(Clone)]
pub struct Tokens(Arc<Keys>);

struct Keys {
    /// Tells these keys, of this algorithm, from any other keys of this process.
    number: u128,
    algorithm: JwtAlgorithm,
    current: Key,
    /// Still believed, no longer used for signing.
    former: Vec<Key>,
}

/// The key could not be used.
#[derive(Debug, thiserror::Error)]
#[error("signing failed: {0}")]
pub struct Unsigned(#[from] jsonwebtoken::errors::Error);

#[derive(Serialize)]
struct Head<'a> {
    typ: &'a str,
    alg: &'a str,
    kid: &'a str,
}

#[derive(Deserialize)]
struct HeadRead<'a> {
    #[serde(borrow)]
    typ: Cow<'a, str>,
    #[serde(borrow)]
    alg: Cow<'a, str>,
    #[serde(borrow, default)]
    kid: Option<Cow<'a, str>>,
    #[serde(default)]
    crit: Option<IgnoredAny>,
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: UserId,
    role: Role,
    sid: SessionId,
    iss: &'a str,
    aud: &'a str,
    iat: i64,
    nbf: i64,
    exp: i64,
    jti: &'a str,
}

#[derive(Deserialize)]
struct ClaimsRead<'a> {
    #[serde(borrow)]
    sub: Cow<'a, str>,
    role: Role,
    #[serde(borrow)]
    sid: Cow<'a, str>,
    #[serde(borrow)]
    iss: Cow<'a, str>,
    #[serde(borrow)]
    aud: Cow<'a, str>,
    nbf: i64,
    exp: i64,
}

impl Key {
    fn of(secret: &[u8], algorithm: JwtAlgorithm) -> Result<Key, Unsigned> {
        let hmac = EncodingKey::from_secret(secret);
        // The id tells keys apart and says nothing about them. One secret has another for each algorithm.
        let (label, (sign, check)) = match algorithm {
            JwtAlgorithm::Hs256 => ("stockade key id", (hmac.clone(), DecodingKey::from_secret(secret))),
            JwtAlgorithm::EdDsa => ("stockade key id EdDSA", ed25519(secret)?),
        };
        let mut id = crypto::sign(label.as_bytes(), &hmac, Algorithm::HS256)?;
        id.truncate(8);
        let head = Head { typ: "JWT", alg: algorithm.as_str(), kid: &id };
        let head = serde_json::to_vec(&head).unwrap_or_default();
        Ok(Key { head: BASE64.encode(head), id, sign, check })
    }
}

/// The Ed25519 key that belongs to a secret: HKDF-SHA-256 (RFC 5869), under a label that stands for nothing else.
fn ed25519(secret: &[u8]) -> Result<(EncodingKey, DecodingKey), jsonwebtoken::errors::Error> {
    let mut seed = [0_u8; 32];
    let derived = hkdf::Salt::new(hkdf::HKDF_SHA256, b"stockade tokens").extract(secret);
    derived
        .expand(&[b"Ed25519".as_slice()], hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut seed))
        .map_err(|_| ErrorKind::InvalidEddsaKey)?;
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| ErrorKind::InvalidEddsaKey)?;
    let sign = pair.to_pkcs8().map_err(|_| ErrorKind::InvalidEddsaKey)?;
    let check = DecodingKey::from_ed_der(pair.public_key().as_ref());
    Ok((EncodingKey::from_ed_der(sign.as_ref()), check))
}

/// What it is called where signatures are made.
fn by(algorithm: JwtAlgorithm) -> Algorithm {
    match algorithm {
        JwtAlgorithm::Hs256 => Algorithm::HS256,
        JwtAlgorithm::EdDsa => Algorithm::EdDSA,
    }
}

impl Tokens {
    /// Signs with `secret`, by HS256; believes it and the `former` ones.
    pub fn new(secret: &[u8], former: &[&[u8]]) -> Result<Tokens, Unsigned> {
        Tokens::by(JwtAlgorithm::Hs256, secret, former)
    }

    /// The same by this algorithm, and by no other.
    pub fn by(algorithm: JwtAlgorithm, secret: &[u8], former: &[&[u8]]) -> Result<Tokens, Unsigned> {
        let all = [&[algorithm.as_str().as_bytes(), secret], former].concat().join(&b"\n"[..]);
        let former = former.iter().map(|secret| Key::of(secret, algorithm)).collect::<Result<_, _>>()?;
        let (number, current) = (xxh3_128(&all), Key::of(secret, algorithm)?);
        Ok(Tokens(Arc::new(Keys { number, algorithm, current, former })))
    }

    /// A token for `user`, without a session that anybody could list, that is good for `life_s` seconds from `now`.
    pub fn sign(
        &self,
        user: UserId,
        role: Role,
        life_s: i64,
        now: Millis,
        chance: u128,
    ) -> Result<String, Unsigned> {
        let session = SessionId::new(now, chance.rotate_left(64));
        self.sign_for(session, user, role, life_s, now, chance)
    }

    /// A token for a session of `user`.
    pub fn sign_for(
        &self,
        session: SessionId,
        user: UserId,
        role: Role,
        life_s: i64,
        now: Millis,
        chance: u128,
    ) -> Result<String, Unsigned> {
        let key = &self.0.current;
        let iat = now.0.div_euclid(1000);
        let claims = Claims {
            sub: user,
            role,
            sid: session,
            iss: ISSUER,
            aud: AUDIENCE,
            iat,
            nbf: iat - NOT_BEFORE_SLACK_S,
            exp: iat.saturating_add(life_s),
            jti: &format!("{:016x}", chance as u64),
        };
        let claims = serde_json::to_vec(&claims).map_err(jsonwebtoken::errors::Error::from)?;
        let mut token = format!("{}.{}", key.head, BASE64.encode(claims));
        let signature = crypto::sign(token.as_bytes(), &key.sign, by(self.0.algorithm))?;
        token.push('.');
        token.push_str(&signature);
        Ok(token)
    }

    /// Whom the token names, if it is ours and good at `now`.
    pub fn verify(&self, token: &str, now: Millis) -> Result<Identity, BadToken> {
        MEMORY.with_borrow_mut(|memory| {
            if memory.keys != self.0.number {
                *memory = Memory::of(self.0.number);
            }
            let hash = xxh3_64(token.as_bytes());
            if let Some(seen) = memory.find(hash, token) {
                return seen.at(now);
            }
            let seen = self.read(token, hash)?;
            let identity = seen.at(now)?;
            memory.keep(seen);
            Ok(identity)
        })
    }

    /// The signature is looked at before anything it covers.
    fn read(&self, token: &str, hash: u64) -> Result<Seen, BadToken> {
        let (message, signature) = token.rsplit_once('.').ok_or(BadToken::Invalid)?;
        let (head, claims) = message.split_once('.').ok_or(BadToken::Invalid)?;
        let key = self.key_of(head).ok_or(BadToken::Invalid)?;
        match crypto::verify(signature, message.as_bytes(), &key.check, by(self.0.algorithm)) {
            Ok(true) => {}
            Ok(false) | Err(_) => return Err(BadToken::Invalid),
        }
        let mut json = [0; CLAIMS_BYTES_MAX];
        let len = BASE64.decode_slice(claims, &mut json).map_err(|_| BadToken::Invalid)?;
        let claims: ClaimsRead<'_> = serde_json::from_slice(&json[..len]).map_err(|_| BadToken::Invalid)?;
        if claims.iss != ISSUER || claims.aud != AUDIENCE {
            return Err(BadToken::Invalid);
        }
        let user = claims.sub.parse().map_err(|_| BadToken::Invalid)?;
        let session = claims.sid.parse().map_err(|_| BadToken::Invalid)?;
        let expires_at = Millis(claims.exp.saturating_mul(1000));
        let identity = Identity { user, role: claims.role, session, expires_at };
        Ok(Seen { hash, token: token.into(), identity, nbf: claims.nbf })
    }

    /// The key a head names. Our own head is compared as it stands; any other is read.
    fn key_of(&self, head: &str) -> Option<&Key> {
        let Keys { algorithm, current, former, .. } = &*self.0;
        if head == current.head {
            return Some(current);
        }
        let json = BASE64.decode(head).ok()?;
        let head: HeadRead<'_> = serde_json::from_slice(&json).ok()?;
        if head.alg != algorithm.as_str() || !head.typ.eq_ignore_ascii_case("JWT") || head.crit.is_some() {
            return None;
        }
        match head.kid {
            None => Some(current),
            Some(kid) => std::iter::once(current).chain(former).find(|key| key.id == kid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const SECRET: &[u8] = b"a secret that is long enough for a test";
    const NOW: Millis = Millis(1_800_000_000_500);

    fn tokens() -> Tokens {
        Tokens::new(SECRET, &[]).unwrap()
    }

    fn eddsa() -> Tokens {
        Tokens::by(JwtAlgorithm::EdDsa, SECRET, &[]).unwrap()
    }

    fn user() -> UserId {
        UserId::new(NOW, 7)
    }

    /// A token with this head and these claims, rightly signed by somebody who has the secret.
    fn forged(head: &Value, claims: &Value) -> String {
        signed(head, claims, &EncodingKey::from_secret(SECRET), Algorithm::HS256)
    }

    fn signed(head: &Value, claims: &Value, key: &EncodingKey, algorithm: Algorithm) -> String {
        let message = format!("{}.{}", BASE64.encode(head.to_string()), BASE64.encode(claims.to_string()));
        let signature = crypto::sign(message.as_bytes(), key, algorithm).unwrap();
        format!("{message}.{signature}")
    }

    fn claims() -> Value {
        let now = NOW.0 / 1000;
        let sid = SessionId::new(NOW, 9);
        json!({"sub": user(), "sid": sid, "role": "shopper", "iss": ISSUER, "aud": AUDIENCE, "nbf": now, "exp": now + 10})
    }

    #[test]
    fn what_is_signed_is_believed_until_it_expires() {
        for tokens in [tokens(), eddsa()] {
            let token = tokens.sign(user(), Role::Admin, 900, NOW, 5).unwrap();
            let told = tokens.verify(&token, NOW).unwrap();
            assert_eq!(
                (told.user, told.role, told.expires_at.0),
                (user(), Role::Admin, NOW.0 - 500 + 900_000)
            );
            assert_eq!(tokens.verify(&token, NOW.plus(899_000)), Ok(told));
            assert_eq!(tokens.verify(&token, NOW.plus(900_000)), Err(BadToken::Expired));
            assert_eq!(tokens.verify(&token, NOW.plus(-120_000)), Err(BadToken::Invalid));
        }
    }

    #[test]
    fn a_session_has_many_tokens_and_each_names_it() {
        let (tokens, session) = (tokens(), SessionId::new(NOW, 77));
        let sign = |chance| tokens.sign_for(session, user(), Role::Shopper, 900, NOW, chance).unwrap();
        assert_ne!(sign(1), sign(2));
        for token in [sign(1), sign(2)] {
            assert_eq!(tokens.verify(&token, NOW).unwrap().session, session);
        }
        let offline = |chance| tokens.sign(user(), Role::Shopper, 900, NOW, chance).unwrap();
        let session_of = |token: &str| tokens.verify(token, NOW).unwrap().session;
        assert_ne!(session_of(&offline(1 << 70)), session_of(&offline(1 << 71)));
    }

    #[test]
    fn a_former_key_is_believed_and_a_foreign_one_is_not() {
        const NEXT: &[u8] = b"the next secret, also long enough";
        for algorithm in [JwtAlgorithm::Hs256, JwtAlgorithm::EdDsa] {
            let before = Tokens::by(algorithm, SECRET, &[]).unwrap();
            let token = before.sign(user(), Role::Shopper, 900, NOW, 5).unwrap();
            let rotated = Tokens::by(algorithm, NEXT, &[SECRET]).unwrap();
            assert!(rotated.verify(&token, NOW).is_ok());
            let foreign = Tokens::by(algorithm, NEXT, &[]).unwrap();
            assert_eq!(foreign.verify(&token, NOW), Err(BadToken::Invalid));
        }
    }

    /// Another node, and a later version, derives the same key.
    #[test]
    fn a_secret_has_one_ed25519_key() {
        let public = ed25519(SECRET).unwrap().1;
        let begins = *public.try_get_as_bytes().unwrap().first_chunk::<8>().unwrap();
        assert_eq!(begins.map(|byte| format!("{byte:02x}")).concat(), "005ccd1c2c35a538");
    }

    /// What is believed by one is remembered, and is still nothing to the other.
    #[test]
    fn each_algorithm_believes_its_own_tokens_alone() {
        for (ours, other) in [(tokens(), eddsa()), (eddsa(), tokens())] {
            let token = ours.sign(user(), Role::Shopper, 900, NOW, 5).unwrap();
            assert!(ours.verify(&token, NOW).is_ok());
            assert_eq!(other.verify(&token, NOW), Err(BadToken::Invalid));
        }
        let changed =
            Tokens::by(JwtAlgorithm::EdDsa, b"the next secret, also long enough", &[SECRET]).unwrap();
        let token = tokens().sign(user(), Role::Shopper, 900, NOW, 5).unwrap();
        assert_eq!(
            changed.verify(&token, NOW),
            Err(BadToken::Invalid),
            "a former secret has one algorithm, too"
        );
    }

    /// Whatever a head says: a public key is no secret, and what one algorithm has signed is not looked at by the other.
    #[test]
    fn no_algorithm_is_taken_for_another() {
        let (private, public) = ed25519(SECRET).unwrap();
        let public = EncodingKey::from_secret(public.try_get_as_bytes().unwrap());
        let secret = EncodingKey::from_secret(SECRET);
        let [hmac_id, ed_id] = [tokens(), eddsa()].map(|tokens| tokens.0.current.id.clone());
        assert_ne!(hmac_id, ed_id);
        for alg in ["HS256", "EdDSA", "Ed25519", "eddsa", "none"] {
            for kid in [None, Some(&hmac_id), Some(&ed_id)] {
                let head = json!({"typ": "JWT", "alg": alg, "kid": kid});
                let believed = |tokens: Tokens, key: &EncodingKey, by: Algorithm| {
                    tokens.verify(&signed(&head, &claims(), key, by), NOW).is_ok()
                };
                let names = |name: &str, id: &String| alg == name && kid.is_none_or(|kid| kid == id);
                assert_eq!(believed(tokens(), &secret, Algorithm::HS256), names("HS256", &hmac_id), "{head}");
                assert_eq!(believed(eddsa(), &private, Algorithm::EdDSA), names("EdDSA", &ed_id), "{head}");
                for key in [&secret, &public] {
                    assert!(!believed(eddsa(), key, Algorithm::HS256), "{head}");
                }
                assert!(!believed(tokens(), &public, Algorithm::HS256), "{head}");
                assert!(!believed(tokens(), &private, Algorithm::EdDSA), "{head}");
            }
        }
    }

    #[test]
    fn heads_that_would_confuse_are_refused_even_when_rightly_signed() {
        let good = json!({"typ": "JWT", "alg": "HS256"});
        assert!(tokens().verify(&forged(&good, &claims()), NOW).is_ok());
        for (name, value) in [
            ("jku", json!("https://evil.example/keys")),
            ("x5u", json!("https://evil.example/certificate")),
            ("x5c", json!(["MIIB"])),
            ("jwk", json!({"kty": "oct", "k": BASE64.encode("a key of their own, just as long")})),
        ] {
            let mut head = good.clone();
            head[name] = value;
            let ours = forged(&head, &claims());
            assert!(tokens().verify(&ours, NOW).is_ok(), "{name} is ignored, not followed");
            let key = EncodingKey::from_secret(b"a key of their own, just as long");
            let message = ours.rsplit_once('.').unwrap().0;
            let theirs = crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
            assert_eq!(
                tokens().verify(&format!("{message}.{theirs}"), NOW),
                Err(BadToken::Invalid),
                "{name}"
            );
        }
        for head in [
            json!({"typ": "JWT", "alg": "none"}),
            json!({"typ": "JWT", "alg": "HS512"}),
            json!({"typ": "JWT", "alg": "RS256"}),
            json!({"typ": "JWT", "alg": "hs256"}),
            json!({"typ": "at+jwt", "alg": "HS256"}),
            json!({"alg": "HS256"}),
            json!({"typ": "JWT", "alg": "HS256", "kid": "another"}),
            json!({"typ": "JWT", "alg": "HS256", "crit": ["exp"]}),
        ] {
            assert_eq!(tokens().verify(&forged(&head, &claims()), NOW), Err(BadToken::Invalid), "{head}");
        }
    }

    #[test]
    fn claims_that_are_wrong_or_missing_are_refused() {
        let head = json!({"typ": "JWT", "alg": "HS256"});
        let mut wrong = Vec::new();
        for name in ["sub", "sid", "role", "iss", "aud", "nbf", "exp"] {
            let mut without = claims();
            without.as_object_mut().unwrap().remove(name);
            wrong.push(without);
        }
        for (name, value) in [
            ("iss", json!("elsewhere")),
            ("aud", json!("elsewhere")),
            ("role", json!("root")),
            ("sid", json!("s")),
            ("sid", json!(user())),
            ("sub", json!("prod_01h455vb4pex5vsknk084sn02q")),
            ("nbf", json!(NOW.0 / 1000 + 1)),
            ("exp", json!("never")),
        ] {
            let mut other = claims();
            other[name] = value;
            wrong.push(other);
        }
        for claims in wrong {
            assert_eq!(tokens().verify(&forged(&head, &claims), NOW), Err(BadToken::Invalid), "{claims}");
        }
    }

    #[test]
    fn garbage_is_refused() {
        let good = tokens().sign(user(), Role::Shopper, 900, NOW, 5).unwrap();
        let unsigned = good.rsplit_once('.').unwrap().0;
        let huge = format!("{}.{}.x", unsigned.split_once('.').unwrap().0, "A".repeat(5000));
        for token in ["", ".", "..", "a.b.c", unsigned, &format!("{unsigned}."), &format!("{good}A"), &huge] {
            assert_eq!(tokens().verify(token, NOW), Err(BadToken::Invalid), "{token}");
        }
    }

    /// `cargo test --release -p stockade --lib tokens -- --ignored --nocapture`
    #[test]
    #[ignore = "a bench"]
    fn what_a_check_costs() {
        const USERS: usize = 1_000;
        const ROUNDS: usize = 200;
        let (tokens, clock) = (tokens(), crate::clock::Clock::start());
        let signed: Vec<String> = (0..USERS)
            .map(|chance| tokens.sign(user(), Role::Shopper, 900, NOW, (chance as u128) << 64).unwrap())
            .collect();
        let per_token = |rounds: usize| {
            let began = clock.nanos();
            for token in (0..rounds).flat_map(|_| &signed) {
                assert!(tokens.verify(token, NOW).is_ok());
            }
            (clock.nanos() - began) / (rounds * USERS) as u64
        };
        println!("a token seen for the first time: {} ns, again: {} ns", per_token(1), per_token(ROUNDS));
    }
}
