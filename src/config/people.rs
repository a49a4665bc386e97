//! What accounts rest on: the keys that seal them, and how their passwords are taken.

use super::{ConfigError, Layers, MasterKeys};
use crate::domain::user::PASSWORD_CHARS_MIN;

/// What can still be typed.
const PASSWORD_CHARS_MAX: usize = 64;

#[derive(Debug, Clone)]
pub struct People {
    /// `None` in development: one is made up on first use and kept beside the data.
    pub master_keys: Option<MasterKeys>,
    /// The shop opens although no account does.
    pub master_key_was_lost: bool,
    pub password_chars_min: usize,
    pub hash_threads: usize,
}

impl People {
    /// Every setting at its default.
    pub(super) fn development() -> People {
        People {
            master_keys: None,
            master_key_was_lost: false,
            password_chars_min: PASSWORD_CHARS_MIN,
            hash_threads: 1,
        }
    }

    pub(super) fn read(layers: &Layers) -> Result<People, ConfigError> {
        Ok(People {
            master_keys: layers.text("master_key").map(|_| layers.parsed("master_key")).transpose()?,
            master_key_was_lost: layers.parsed("master_key_was_lost")?,
            password_chars_min: password_chars_min(layers)?,
            hash_threads: layers.positive("hash_threads")?,
        })
    }
}

/// Fewer than eight would be a hole (NIST SP 800-63B §3.1.1.2), more than can be typed nobody could choose.
fn password_chars_min(layers: &Layers) -> Result<usize, ConfigError> {
    match layers.number("password_chars_min")? {
        fits @ PASSWORD_CHARS_MIN..=PASSWORD_CHARS_MAX => Ok(fits),
        _ => Err(layers.bad("password_chars_min", "expected 8 to 64")),
    }
}
