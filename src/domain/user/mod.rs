//! Who buys and who administers: what a person may be called, where he can be reached, and what he may choose as a
//! password.
//!
//! Always true: a value that exists is in normal form and within its bounds, so nobody behind the door looks again.
//! What belongs to a person never shows in a log: `Debug` prints three dots.

mod address;
mod email;
mod locale;
mod name;
mod password;
mod phone;

use serde::{Deserialize, Serialize};

pub use address::{Address, AddressLine, Country, PostalCode};
pub use email::{EMAIL_BYTES_MAX, Email, EmailError};
pub use locale::Locale;
pub use name::{NAME_CHARS_MAX, NameError, PersonName};
pub use password::{NewPassword, PASSWORD_BYTES_MAX, PASSWORD_CHARS_MIN, PasswordPolicy, WeakPassword};
pub use phone::{Phone, PhoneError};

/// What a caller may do. The words are those of the access token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Shopper,
    Admin,
}

/// A text that is parsed where it comes in: from a client's JSON, and from what we stored ourselves.
macro_rules! parsed_text {
    ($name:ident, $error:ty, $shown:ident) => {
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), "(…)"))
            }
        }

        impl std::str::FromStr for $name {
            type Err = $error;

            fn from_str(text: &str) -> Result<Self, $error> {
                $name::parse(text)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(self.$shown())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(d)?;
                $name::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}
use parsed_text;

/// Compatibility forms made one (NFKC): what looks like the same letter is the same letter.
fn folded(text: &str) -> std::borrow::Cow<'_, str> {
    icu_normalizer::ComposingNormalizerBorrowed::new_nfkc().normalize(text)
}

/// What no name, address or mail header may hold: controls, and marks that turn the direction of what follows.
fn is_unprintable(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}
