//! The keys that everything personal hangs on: thirty-two bytes each, the current one first, then former ones that may
//! still open what they sealed.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretBox};

use super::{different, monotonous};

pub const MASTER_KEY_BYTES: usize = 32;

/// One master key. It prints as three dots.
#[derive(Clone)]
pub struct MasterKey(Arc<SecretBox<[u8; MASTER_KEY_BYTES]>>);

impl MasterKey {
    pub fn from_bytes(bytes: [u8; MASTER_KEY_BYTES]) -> MasterKey {
        MasterKey(Arc::new(SecretBox::new(Box::new(bytes))))
    }

    pub fn expose(&self) -> &[u8; MASTER_KEY_BYTES] {
        self.0.expose_secret()
    }

    /// 64 hexadecimal digits, or base64 in either alphabet.
    fn parse(text: &str) -> Option<MasterKey> {
        let mut bytes = [0; MASTER_KEY_BYTES];
        if text.len() == 2 * MASTER_KEY_BYTES {
            for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
                *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
            }
            return Some(MasterKey::from_bytes(bytes));
        }
        let text = text.trim_end_matches('=');
        let decoded =
            BASE64_STANDARD_NO_PAD.decode(text).or_else(|_| BASE64_URL_SAFE_NO_PAD.decode(text)).ok()?;
        bytes.copy_from_slice(decoded.get(..MASTER_KEY_BYTES).filter(|_| decoded.len() == MASTER_KEY_BYTES)?);
        Some(MasterKey::from_bytes(bytes))
    }

    /// So few different bytes do not come from chance, nor do letters; a placeholder that somebody typed guards nothing.
    fn is_sample(&self) -> bool {
        let bytes = self.expose();
        different(bytes.iter().copied()) < 16 || monotonous(bytes) || bytes.iter().all(u8::is_ascii_graphic)
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("MasterKey(…)")
    }
}

/// What seals, and what may still open.
#[derive(Debug, Clone)]
pub struct MasterKeys {
    pub current: MasterKey,
    pub former: Vec<MasterKey>,
}

impl MasterKeys {
    pub fn one(bytes: [u8; MASTER_KEY_BYTES]) -> MasterKeys {
        MasterKeys { current: MasterKey::from_bytes(bytes), former: Vec::new() }
    }

    /// Whether one of them was made up by a person.
    pub(super) fn holds_a_sample(&self) -> bool {
        self.all().any(MasterKey::is_sample)
    }

    /// Whether one of them is one of the others.
    pub(super) fn holds_one_of(&self, others: &MasterKeys) -> bool {
        self.all().any(|key| others.all().any(|other| other.expose() == key.expose()))
    }

    fn all(&self) -> impl Iterator<Item = &MasterKey> {
        std::iter::once(&self.current).chain(&self.former)
    }
}

impl FromStr for MasterKeys {
    type Err = &'static str;

    /// The current key, and former ones behind commas.
    fn from_str(list: &str) -> Result<MasterKeys, &'static str> {
        const EXPECTED: &str =
            "expected 32 bytes in hexadecimal or base64 (`openssl rand -hex 32`), former keys behind commas";
        let keys: Option<Vec<MasterKey>> = list.split(',').map(|key| MasterKey::parse(key.trim())).collect();
        let mut keys = keys.ok_or(EXPECTED)?.into_iter();
        Ok(MasterKeys { current: keys.next().ok_or(EXPECTED)?, former: keys.collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 64 hexadecimal digits in either case, counted up and down.
    fn hex() -> String {
        let up: String = (0..16).map(|byte| format!("{:02x}", 17 * byte)).collect();
        let down = up.chars().rev().collect::<String>().to_uppercase();
        up + &down
    }

    #[test]
    fn a_key_is_hexadecimal_or_base64() {
        let hex = hex();
        let bytes = *hex.parse::<MasterKeys>().unwrap().current.expose();
        assert_eq!(bytes[..4], [0, 0x11, 0x22, 0x33]);
        for text in [BASE64_STANDARD_NO_PAD.encode(bytes), BASE64_URL_SAFE_NO_PAD.encode(bytes) + "="] {
            assert_eq!(*text.parse::<MasterKeys>().unwrap().current.expose(), bytes, "{text}");
        }
        for bad in [
            "",
            "short",
            &hex[1..],
            &format!("{hex}00"),
            &hex.replace('0', "g"),
            "ÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄ",
        ] {
            assert!(bad.parse::<MasterKeys>().is_err(), "{bad}");
        }
    }

    #[test]
    fn former_keys_stand_behind_commas() {
        let hex = hex();
        let keys: MasterKeys = format!("{hex}, {}", hex.replace('1', "2")).parse().unwrap();
        assert_eq!(keys.former.len(), 1);
        assert!(format!("{hex},").parse::<MasterKeys>().is_err());
        assert!(!format!("{keys:?}").contains("22"), "{keys:?}");
    }

    #[test]
    fn a_placeholder_is_told_from_chance() {
        let chance: [u8; 32] = std::array::from_fn(|at| xxhash_rust::xxh3::xxh3_64(&[at as u8]) as u8);
        assert!(!MasterKeys::one(chance).holds_a_sample());
        assert!(hex().parse::<MasterKeys>().unwrap().holds_a_sample(), "counted");
        assert!("ab".repeat(32).parse::<MasterKeys>().unwrap().holds_a_sample());
        assert!(MasterKeys::one(*b"change-me-please-0123456789abcde").holds_a_sample());
    }
}
