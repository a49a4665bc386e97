//! What keeps secrets: personal data sealed under a key of its own for each person, blind indices to find it again, and tokens
//! that are stored as hashes.
//!
//! A person's key is random, and stored wrapped by the master key; what is sealed under it is unreadable for ever once the
//! wrapped key is gone. Several master keys can be known at once: the current one wraps, any of them unwraps, so one is replaced
//! without a pause. Always true: nothing here prints what it guards, and every ciphertext says to what it belongs, so a row's
//! secret moved to another row does not open.
//!
//! A backup's key is wrapped in the same way, by a vault on the keys of backups (`persistence::backup`).
//!
//! AES-256-GCM with random nonces (NIST SP 800-38D §8.2.2), HMAC-SHA-256, HKDF-SHA-256 (RFC 5869).

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, MAX_TAG_LEN, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{constant_time, digest, hkdf, hmac};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use secrecy::SecretString;

use crate::clock::Clock;
use crate::config::{MasterKey, MasterKeys};

const KEY_BYTES: usize = 32;
const KEY_ID_BYTES: usize = 4;
/// First byte of everything sealed, so that another way can follow.
const VERSION: u8 = 1;
const WRAPPED_BYTES: usize = 1 + KEY_ID_BYTES + NONCE_LEN + KEY_BYTES + MAX_TAG_LEN;
/// 256 bits; never fewer than 128.
const TOKEN_BYTES: usize = 32;

/// Why something stayed closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Sealed {
    #[error("it was sealed under a master key that is not configured")]
    ForeignKey,
    #[error("it is damaged, or belongs elsewhere")]
    Damaged,
}

/// A person's key, readable only with the master key. Safe to store; to destroy it destroys all it sealed.
#[derive(Clone, PartialEq, Eq)]
pub struct WrappedKey(Box<[u8; WRAPPED_BYTES]>);

impl WrappedKey {
    /// As a table kept it.
    pub fn from_bytes(bytes: &[u8]) -> Result<WrappedKey, Sealed> {
        let bytes: [u8; WRAPPED_BYTES] = bytes.try_into().map_err(|_| Sealed::Damaged)?;
        Ok(WrappedKey(Box::new(bytes)))
    }

    /// As a table keeps it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0[..]
    }

    /// Which master key has wrapped it, as [`Vault::key_names`] has it.
    pub fn key_name(&self) -> String {
        in_hexadecimal(self.key_id())
    }

    fn key_id(&self) -> &[u8] {
        &self.0[1..1 + KEY_ID_BYTES]
    }
}

impl fmt::Debug for WrappedKey {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("WrappedKey(…)")
    }
}

/// One master key, as what is made from it.
struct Master {
    id: [u8; KEY_ID_BYTES],
    wrap: LessSafeKey,
    blind: hmac::Key,
}

impl Master {
    fn of(key: &MasterKey) -> Result<Master, Sealed> {
        let derive = |purpose: &[u8]| -> Result<[u8; KEY_BYTES], Sealed> {
            let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"stockade vault");
            let mut out = [0; KEY_BYTES];
            let derived = salt.extract(key.expose());
            derived
                .expand(&[purpose], hkdf::HKDF_SHA256)
                .and_then(|okm| okm.fill(&mut out))
                .map_err(|_| Sealed::Damaged)?;
            Ok(out)
        };
        let [a, b, c, d, ..] = derive(b"key id")?;
        Ok(Master {
            id: [a, b, c, d],
            wrap: cipher(&derive(b"wrap")?)?,
            blind: hmac::Key::new(hmac::HMAC_SHA256, &derive(b"blind index")?),
        })
    }
}

/// Seals, opens and blinds. Cheap to clone.
#[derive(Clone)]
pub struct Vault(Arc<Inner>);

struct Inner {
    current: Master,
    /// Still opened, no longer used for sealing.
    former: Vec<Master>,
    clock: Clock,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("Vault(…)")
    }
}

impl Vault {
    /// A vault on these master keys; `clock` gives it chance.
    pub fn new(keys: &MasterKeys, clock: &Clock) -> Result<Vault, Sealed> {
        let current = Master::of(&keys.current)?;
        let former = keys.former.iter().map(Master::of).collect::<Result<_, _>>()?;
        Ok(Vault(Arc::new(Inner { current, former, clock: clock.clone() })))
    }

    /// A new random key, wrapped by the current master key.
    pub fn new_key(&self) -> Result<WrappedKey, Sealed> {
        self.wrap(&self.0.clock.chance_bytes())
    }

    /// What its master keys are called, the current one first. A name follows from its key, and tells nothing of it.
    pub fn key_names(&self) -> Vec<String> {
        let Inner { current, former, .. } = &*self.0;
        std::iter::once(current).chain(former).map(|master| in_hexadecimal(&master.id)).collect()
    }

    /// What seals and opens under `key` piece by piece, for whoever sees to it that no nonce comes twice.
    pub fn cipher_of(&self, key: &WrappedKey) -> Result<LessSafeKey, Sealed> {
        cipher(&self.unwrap(key)?)
    }

    /// Whether one of the master keys unwraps it.
    pub fn knows(&self, key: &WrappedKey) -> bool {
        self.unwrap(key).is_ok()
    }

    /// The same key under the current master key; `None` when it is so already.
    pub fn rewrapped(&self, key: &WrappedKey) -> Result<Option<WrappedKey>, Sealed> {
        if key.key_id() == self.0.current.id {
            return Ok(None);
        }
        self.wrap(&self.unwrap(key)?).map(Some)
    }

    /// Seals `plain`. `context` says to what it belongs, such as a user's id and a field's name: only the same words open it.
    pub fn seal(&self, key: &WrappedKey, context: &str, plain: &[u8]) -> Result<Vec<u8>, Sealed> {
        let mut out = vec![VERSION];
        self.encrypt(&cipher(&self.unwrap(key)?)?, context.as_bytes(), plain, &mut out)?;
        Ok(out)
    }

    /// Opens what [`Vault::seal`] sealed under the same key and context.
    pub fn open(&self, key: &WrappedKey, context: &str, sealed: &[u8]) -> Result<Vec<u8>, Sealed> {
        let Some((&VERSION, body)) = sealed.split_first() else { return Err(Sealed::Damaged) };
        decrypt(&cipher(&self.unwrap(key)?)?, context.as_bytes(), body)
    }

    /// What stands in an index instead of `normal_form`: the same for the same value, and telling nothing without the master
    /// key. `kind` keeps an e-mail address and a telephone number apart.
    pub fn blind(&self, kind: &str, normal_form: &str) -> [u8; 32] {
        self.0.current.blinded(kind, normal_form)
    }

    /// Whether there was another master key before.
    pub fn has_former(&self) -> bool {
        !self.0.former.is_empty()
    }

    /// The same value as indices written under former master keys show it; none where there was no other key.
    pub fn former_blinds(&self, kind: &str, normal_form: &str) -> Vec<[u8; 32]> {
        self.0.former.iter().map(|master| master.blinded(kind, normal_form)).collect()
    }

    /// 256 bits of chance as a word for a URL. `kind` stands in front, so that a token that leaked is recognised.
    pub fn new_token(&self, kind: &str) -> SecretString {
        let chance: [u8; TOKEN_BYTES] = self.0.clock.chance_bytes();
        format!("{kind}_{}", BASE64_URL_SAFE_NO_PAD.encode(chance)).into()
    }

    fn wrap(&self, key: &[u8; KEY_BYTES]) -> Result<WrappedKey, Sealed> {
        let master = &self.0.current;
        let mut out = vec![VERSION];
        out.extend_from_slice(&master.id);
        self.encrypt(&master.wrap, &wrap_context(&master.id), key, &mut out)?;
        WrappedKey::from_bytes(&out)
    }

    fn unwrap(&self, key: &WrappedKey) -> Result<[u8; KEY_BYTES], Sealed> {
        if key.0[0] != VERSION {
            return Err(Sealed::Damaged);
        }
        let Inner { current, former, .. } = &*self.0;
        let master = std::iter::once(current).chain(former).find(|master| master.id == key.key_id());
        let master = master.ok_or(Sealed::ForeignKey)?;
        let plain = decrypt(&master.wrap, &wrap_context(&master.id), &key.0[1 + KEY_ID_BYTES..])?;
        plain.try_into().map_err(|_| Sealed::Damaged)
    }

    /// Appends nonce, ciphertext and tag to `out`.
    fn encrypt(
        &self,
        key: &LessSafeKey,
        context: &[u8],
        plain: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Sealed> {
        let nonce: [u8; NONCE_LEN] = self.0.clock.chance_bytes();
        let mut body = plain.to_vec();
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(context), &mut body)
            .map_err(|_| Sealed::Damaged)?;
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&body);
        Ok(())
    }
}

impl Master {
    fn blinded(&self, kind: &str, normal_form: &str) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.blind);
        context.update(kind.as_bytes());
        context.update(&[0]);
        context.update(normal_form.as_bytes());
        sized(context.sign().as_ref())
    }
}

/// What is stored of a token that has 128 bits of chance or more: its SHA-256. A password needs more than that.
pub fn token_hash(token: &str) -> [u8; 32] {
    digest(token.as_bytes())
}

/// SHA-256.
pub fn digest(bytes: &[u8]) -> [u8; 32] {
    sized(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// Whether two secrets are the same, in a time that does not tell where they differ.
pub fn same(a: &[u8], b: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(a, b).is_ok()
}

fn sized(hash: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(hash);
    out
}

fn in_hexadecimal(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn cipher(key: &[u8; KEY_BYTES]) -> Result<LessSafeKey, Sealed> {
    UnboundKey::new(&AES_256_GCM, key).map(LessSafeKey::new).map_err(|_| Sealed::Damaged)
}

fn wrap_context(id: &[u8; KEY_ID_BYTES]) -> Vec<u8> {
    [b"stockade wrapped key ".as_slice(), id].concat()
}

/// `body` is nonce, ciphertext and tag.
fn decrypt(key: &LessSafeKey, context: &[u8], body: &[u8]) -> Result<Vec<u8>, Sealed> {
    let (nonce, body) = body.split_at_checked(NONCE_LEN).ok_or(Sealed::Damaged)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Sealed::Damaged)?;
    let mut body = body.to_vec();
    let plain = key.open_in_place(nonce, Aad::from(context), &mut body).map_err(|_| Sealed::Damaged)?;
    Ok(plain.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;
    use std::collections::BTreeSet;

    fn vault(keys: &[u8]) -> Vault {
        let mut keys = keys.iter().map(|byte| MasterKey::from_bytes([*byte; 32]));
        let keys = MasterKeys { current: keys.next().unwrap(), former: keys.collect() };
        Vault::new(&keys, &Clock::start()).unwrap()
    }

    #[test]
    fn what_was_sealed_opens_under_its_key_and_context_alone() {
        let vault = vault(&[1]);
        let (mine, other) = (vault.new_key().unwrap(), vault.new_key().unwrap());
        let sealed = vault.seal(&mine, "user_1 email", b"mina@example.com").unwrap();
        assert_eq!(vault.open(&mine, "user_1 email", &sealed).unwrap(), b"mina@example.com");
        assert_eq!(vault.open(&mine, "user_2 email", &sealed), Err(Sealed::Damaged));
        assert_eq!(vault.open(&other, "user_1 email", &sealed), Err(Sealed::Damaged));
        assert!(!sealed.windows(4).any(|piece| piece == b"mina"));
        assert_ne!(
            vault.seal(&mine, "user_1 email", b"mina@example.com").unwrap(),
            sealed,
            "a nonce each time"
        );
        assert_eq!(vault.open(&mine, "", &vault.seal(&mine, "", b"").unwrap()).unwrap(), b"");
    }

    #[test]
    fn a_changed_bit_is_noticed_wherever_it_is() {
        let vault = vault(&[1]);
        let key = vault.new_key().unwrap();
        let sealed = vault.seal(&key, "c", b"secret").unwrap();
        for at in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[at] ^= 1;
            assert_eq!(vault.open(&key, "c", &bad), Err(Sealed::Damaged), "byte {at}");
            assert_eq!(vault.open(&key, "c", &sealed[..at]), Err(Sealed::Damaged), "cut at {at}");
        }
        for at in 0..key.as_bytes().len() {
            let mut bad = key.as_bytes().to_vec();
            bad[at] ^= 1;
            let bad = WrappedKey::from_bytes(&bad).unwrap();
            assert!(vault.open(&bad, "c", &sealed).is_err(), "byte {at} of the key");
        }
        assert_eq!(WrappedKey::from_bytes(&key.as_bytes()[1..]), Err(Sealed::Damaged));
    }

    #[test]
    fn a_master_key_is_replaced_without_losing_anything() {
        let (before, during, after) = (vault(&[1]), vault(&[2, 1]), vault(&[2]));
        let key = before.new_key().unwrap();
        let sealed = before.seal(&key, "c", b"secret").unwrap();
        assert_eq!(during.open(&key, "c", &sealed).unwrap(), b"secret");
        assert_eq!(after.open(&key, "c", &sealed), Err(Sealed::ForeignKey));
        let rewrapped = during.rewrapped(&key).unwrap().unwrap();
        assert_eq!(after.open(&rewrapped, "c", &sealed).unwrap(), b"secret");
        assert_eq!(during.rewrapped(&rewrapped), Ok(None));
        assert_eq!(during.key_names(), [rewrapped.key_name(), key.key_name()]);
        assert_eq!(during.former_blinds("email", "a"), [before.blind("email", "a")]);
        assert_eq!(during.blind("email", "a"), after.blind("email", "a"));
    }

    #[test]
    fn a_blind_index_finds_and_does_not_tell() {
        let vault = vault(&[1]);
        assert_eq!(vault.blind("email", "mina@example.com"), vault.blind("email", "mina@example.com"));
        let different = [
            vault.blind("email", "mina@example.com"),
            vault.blind("email", "mina@example.org"),
            vault.blind("phone", "mina@example.com"),
            vault.blind("emai", "l\0mina@example.com"),
            self::vault(&[2]).blind("email", "mina@example.com"),
            token_hash("mina@example.com"),
        ];
        assert_eq!(BTreeSet::from(different).len(), 6);
    }

    #[test]
    fn tokens_are_long_random_and_stored_as_hashes() {
        let vault = vault(&[1]);
        let token = vault.new_token("verify");
        let text = token.expose_secret();
        assert!(text.starts_with("verify_") && text.len() == 7 + 43, "{}", text.len());
        assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'));
        assert_ne!(text, vault.new_token("verify").expose_secret());
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(token_hash("abc").map(|byte| format!("{byte:02x}")).concat(), abc);
        assert!(same(&token_hash(text), &token_hash(text)) && !same(b"a", b"b") && !same(b"a", b"aa"));
    }

    #[test]
    fn nothing_of_it_shows_in_a_log() {
        let vault = vault(&[1]);
        let key = vault.new_key().unwrap();
        assert_eq!(format!("{vault:?} {key:?}"), "Vault(…) WrappedKey(…)");
        assert!(!format!("{:?}", vault.new_token("refresh")).contains("refresh"));
    }
}
