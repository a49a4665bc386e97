//! The secrets that make two nodes believe each other: derived from the configured keys, and never printed.
//!
//! Always true: a key of this room opens nothing else that the configured key guards, and nothing else opens this.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::hkdf;

use super::PeerError;
use crate::config::{MasterKey, MasterKeys};

pub(super) const KEY_BYTES: usize = 32;

/// What two nodes must share. The first of them speaks, each of them is believed; so a key is replaced without a pause once every
/// node believes the new one.
#[derive(Clone)]
pub struct PeerKeys(Arc<[[u8; KEY_BYTES]]>);

impl PeerKeys {
    /// HKDF-SHA-256 (RFC 5869) of each configured key.
    pub fn of(keys: &MasterKeys) -> Result<PeerKeys, PeerError> {
        let all = std::iter::once(&keys.current).chain(&keys.former);
        Ok(PeerKeys(all.map(derived).collect::<Result<_, _>>()?))
    }

    pub(super) fn speaking(&self) -> Option<&[u8; KEY_BYTES]> {
        self.0.first()
    }

    pub(super) fn believed(&self) -> impl Iterator<Item = &[u8; KEY_BYTES]> {
        self.0.iter()
    }
}

impl fmt::Debug for PeerKeys {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("PeerKeys(…)")
    }
}

fn derived(key: &MasterKey) -> Result<[u8; KEY_BYTES], PeerError> {
    let mut out = [0; KEY_BYTES];
    hkdf::Salt::new(hkdf::HKDF_SHA256, b"stockade peer")
        .extract(key.expose())
        .expand(&[b"between nodes"], hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut out))
        .map_err(|_| PeerError::NoKey)?;
    Ok(out)
}
