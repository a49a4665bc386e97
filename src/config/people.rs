//! What accounts rest on: the keys that seal them, and how their passwords are taken.

use std::path::PathBuf;
use std::time::Duration;

use super::{ConfigError, Layers, MasterKeys, Profile};
use crate::domain::user::PASSWORD_CHARS_MIN;

/// What can still be typed.
const PASSWORD_CHARS_MAX: usize = 64;
/// In production, where nothing else is said.
const ADMIN_LOGIN_MINUTES: u32 = 15;

#[derive(Debug, Clone)]
pub struct People {
    /// `None` in development: one is made up on first use and kept beside the data.
    pub master_keys: Option<MasterKeys>,
    /// The shop opens although no account does.
    pub master_key_was_lost: bool,
    pub password_chars_min: usize,
    /// The file in which passwords are listed that are known from breaches, if the operator has one.
    pub breached_passwords: Option<PathBuf>,
    pub hash_threads: usize,
    /// How long an administrator's log-in counts where stock, prices or money are moved by hand; `None`: as long as the token.
    pub admin_login: Option<Duration>,
}

impl People {
    /// Every setting at its default.
    pub(super) fn development() -> People {
        People {
            master_keys: None,
            master_key_was_lost: false,
            password_chars_min: PASSWORD_CHARS_MIN,
            breached_passwords: None,
            hash_threads: 1,
            admin_login: None,
        }
    }

    pub(super) fn read(layers: &Layers, profile: Profile) -> Result<People, ConfigError> {
        Ok(People {
            master_keys: layers.text("master_key").map(|_| layers.parsed("master_key")).transpose()?,
            master_key_was_lost: layers.parsed("master_key_was_lost")?,
            password_chars_min: password_chars_min(layers)?,
            breached_passwords: layers.text("breached_passwords").map(PathBuf::from),
            hash_threads: layers.positive("hash_threads")?,
            admin_login: admin_login(layers, profile)?,
        })
    }
}

/// Where people try things out, a token that was printed at the start goes on for the afternoon.
fn admin_login(layers: &Layers, profile: Profile) -> Result<Option<Duration>, ConfigError> {
    let minutes = match (layers.text("admin_login_minutes"), profile) {
        (Some(_), _) => layers.number::<u32>("admin_login_minutes")?,
        (None, Profile::Production) => ADMIN_LOGIN_MINUTES,
        (None, Profile::Development) => 0,
    };
    Ok((minutes > 0).then(|| Duration::from_secs(u64::from(minutes) * 60)))
}

/// Fewer than eight would be a hole (NIST SP 800-63B §3.1.1.2), more than can be typed nobody could choose.
fn password_chars_min(layers: &Layers) -> Result<usize, ConfigError> {
    match layers.number("password_chars_min")? {
        fits @ PASSWORD_CHARS_MIN..=PASSWORD_CHARS_MAX => Ok(fits),
        _ => Err(layers.bad("password_chars_min", "expected 8 to 64")),
    }
}
