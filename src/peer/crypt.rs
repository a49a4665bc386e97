//! What the handshake and the records compute with: X25519, AES-256-GCM and SHA-256 of aws-lc, which is in the house already and
//! knows the processor's own instructions.
//!
//! Always true: a failure inside shows as an output of the wrong length or as an error, never as a panic; [`super::channel`] looks.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, MAX_TAG_LEN, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use aws_lc_rs::{digest, rand};
use snow::Error;
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::CryptoResolver;
use snow::types::{Cipher, Dh, Hash, Random};

const POINT_BYTES: usize = 32;
const HASH_BYTES: usize = 32;
const HASH_BLOCK_BYTES: usize = 64;

pub(super) struct AwsLc;

impl CryptoResolver for AwsLc {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(System))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        matches!(choice, DHChoice::Curve25519).then(|| Box::new(Agreement::default()) as Box<dyn Dh>)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        matches!(choice, HashChoice::SHA256).then(|| Box::new(Sha256::default()) as Box<dyn Hash>)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        matches!(choice, CipherChoice::AESGCM).then(|| Box::new(AesGcm::default()) as Box<dyn Cipher>)
    }
}

struct System;

impl Random for System {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Error> {
        rand::fill(dest).map_err(|_| Error::Rng)
    }
}

/// A key pair of one handshake. The private half never leaves the library.
#[derive(Default)]
struct Agreement {
    private: Option<PrivateKey>,
    public: [u8; POINT_BYTES],
}

impl Agreement {
    fn keep(&mut self, private: PrivateKey) -> Result<(), Error> {
        let public = private.compute_public_key().map_err(|_| Error::Dh)?;
        self.public = public.as_ref().try_into().map_err(|_| Error::Dh)?;
        self.private = Some(private);
        Ok(())
    }
}

impl Dh for Agreement {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        POINT_BYTES
    }

    fn priv_len(&self) -> usize {
        POINT_BYTES
    }

    /// A key that is none leaves nothing to agree with, and [`Dh::dh`] says so.
    fn set(&mut self, private: &[u8]) {
        self.private = None;
        if let Ok(private) = PrivateKey::from_private_key(&X25519, private) {
            let _ = self.keep(private);
        }
    }

    fn generate(&mut self, _: &mut dyn Random) -> Result<(), Error> {
        self.keep(PrivateKey::generate(&X25519).map_err(|_| Error::Rng)?)
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    /// Nobody but snow's generator of long-lived pairs asks, and we have none.
    fn privkey(&self) -> &[u8] {
        &[]
    }

    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let private = self.private.as_ref().ok_or(Error::Dh)?;
        let public = public.get(..POINT_BYTES).ok_or(Error::Dh)?;
        agree(private, UnparsedPublicKey::new(&X25519, public), Error::Dh, |shared| {
            out.get_mut(..shared.len()).ok_or(Error::Dh)?.copy_from_slice(shared);
            Ok(())
        })
    }
}

#[derive(Default)]
struct AesGcm(Option<LessSafeKey>);

/// Noise's way to write a counter for AES-GCM: big-endian behind four zeros. A counter is used once a key.
fn nonce(n: u64) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[NONCE_LEN - 8..].copy_from_slice(&n.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

impl Cipher for AesGcm {
    fn name(&self) -> &'static str {
        "AESGCM"
    }

    fn set(&mut self, key: &[u8; 32]) {
        self.0 = UnboundKey::new(&AES_256_GCM, key).ok().map(LessSafeKey::new);
    }

    /// 0 where nothing was encrypted.
    fn encrypt(&self, n: u64, aad: &[u8], plain: &[u8], out: &mut [u8]) -> usize {
        let sealed = plain.len() + MAX_TAG_LEN;
        let (Some(key), Some(out)) = (&self.0, out.get_mut(..sealed)) else { return 0 };
        let (body, rest) = out.split_at_mut(plain.len());
        body.copy_from_slice(plain);
        match key.seal_in_place_separate_tag(nonce(n), Aad::from(aad), body) {
            Ok(tag) => {
                rest.copy_from_slice(tag.as_ref());
                sealed
            }
            Err(_) => {
                body.fill(0);
                0
            }
        }
    }

    /// Noise §4.2. A key that cannot be made leaves none.
    fn rekey(&mut self) {
        let mut next = [0; 32 + MAX_TAG_LEN];
        let made = self.encrypt(u64::MAX, &[], &[0; 32], &mut next) == next.len();
        match next.first_chunk() {
            Some(key) if made => self.set(key),
            _ => self.0 = None,
        }
    }

    fn decrypt(&self, n: u64, aad: &[u8], sealed: &[u8], out: &mut [u8]) -> Result<usize, Error> {
        let key = self.0.as_ref().ok_or(Error::Decrypt)?;
        let plain = sealed.len().checked_sub(MAX_TAG_LEN).ok_or(Error::Decrypt)?;
        let (body, tag) = sealed.split_at(plain);
        let out = out.get_mut(..plain).ok_or(Error::Decrypt)?;
        key.open_separate_gather(nonce(n), Aad::from(aad), body, tag, out).map_err(|_| Error::Decrypt)?;
        Ok(plain)
    }
}

struct Sha256(digest::Context);

impl Default for Sha256 {
    fn default() -> Self {
        Sha256(digest::Context::new(&digest::SHA256))
    }
}

impl Hash for Sha256 {
    fn name(&self) -> &'static str {
        "SHA256"
    }

    fn block_len(&self) -> usize {
        HASH_BLOCK_BYTES
    }

    fn hash_len(&self) -> usize {
        HASH_BYTES
    }

    fn reset(&mut self) {
        *self = Sha256::default();
    }

    fn input(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn result(&mut self, out: &mut [u8]) {
        let hash = std::mem::take(self).0.finish();
        out[..HASH_BYTES].copy_from_slice(hash.as_ref());
    }
}
