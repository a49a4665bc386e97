//! What may be chosen as a password: long enough, and not what everybody tries first. Nothing is asked of its
//! composition, and it is taken as it was typed: no trimming, no normal form (NIST SP 800-63B §3.1.1.2).

use std::sync::LazyLock;

use secrecy::{ExposeSecret, SecretString};

use super::Email;

/// How many letters a password has at least, unless configured otherwise.
pub const PASSWORD_CHARS_MIN: usize = 8;
/// What is longer is refused before it is hashed.
pub const PASSWORD_BYTES_MAX: usize = 128;
/// Nobody's secret here.
const PRODUCT: &str = "stockade";

/// Sorted, in lower case.
static COMMON: LazyLock<Vec<&str>> = LazyLock::new(|| {
    include_str!("common_passwords.txt").lines().filter(|line| !line.starts_with('#')).collect()
});

/// A password that passed the policy; whether it is known from a breach is looked up before it is hashed. It prints as three dots.
#[derive(Debug, Clone)]
pub struct NewPassword(SecretString);

impl NewPassword {
    /// For hashing, and for nothing else.
    pub fn into_secret(self) -> SecretString {
        self.0
    }
}

/// What is asked of a new password. A password that exists is never held against it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PasswordPolicy {
    pub chars_min: usize,
}

impl Default for PasswordPolicy {
    fn default() -> Self {
        PasswordPolicy { chars_min: PASSWORD_CHARS_MIN }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WeakPassword {
    #[error("a password has at least {chars_min} characters")]
    TooShort { chars_min: usize },
    #[error("a password has at most 128 bytes")]
    TooLong,
    #[error("this is one of the passwords that are tried first; choose another")]
    Common,
    #[error("this password is your e-mail address; choose another")]
    Address,
    /// The operator's list says so, and the policy does not know that list.
    #[error("this password is known from a breach elsewhere; choose another")]
    Breached,
}

impl PasswordPolicy {
    /// `email` is whose password it will be, where that is known.
    pub fn accept(&self, password: SecretString, email: Option<&Email>) -> Result<NewPassword, WeakPassword> {
        let text = password.expose_secret();
        if text.len() > PASSWORD_BYTES_MAX {
            return Err(WeakPassword::TooLong);
        }
        if text.chars().count() < self.chars_min {
            return Err(WeakPassword::TooShort { chars_min: self.chars_min });
        }
        let lower = text.to_lowercase();
        if COMMON.binary_search(&lower.as_str()).is_ok() || is_product(&lower) || is_one_letter(&lower) {
            return Err(WeakPassword::Common);
        }
        if email.is_some_and(|email| lower == email.as_str() || lower == email.mailbox()) {
            return Err(WeakPassword::Address);
        }
        Ok(NewPassword(password))
    }
}

/// The product's name, with whatever digits and marks around it.
fn is_product(lower: &str) -> bool {
    lower.contains(PRODUCT) && lower.chars().filter(|letter| letter.is_alphabetic()).count() == PRODUCT.len()
}

fn is_one_letter(lower: &str) -> bool {
    let mut letters = lower.chars();
    let first = letters.next();
    letters.all(|letter| Some(letter) == first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(password: &str) -> Result<(), WeakPassword> {
        let email = Email::parse("mina.kim@example.com").unwrap();
        PasswordPolicy::default().accept(password.into(), Some(&email)).map(|_| ())
    }

    #[test]
    fn seven_characters_are_too_few_and_eight_are_enough() {
        assert_eq!(accept("v8#kqz1"), Err(WeakPassword::TooShort { chars_min: 8 }));
        assert_eq!(accept("v8#kqz1x"), Ok(()));
        let strict = PasswordPolicy { chars_min: 15 };
        assert!(strict.accept("v8#kqz1x".into(), None).is_err());
        assert_eq!(
            accept("미나의🦊비밀번"),
            Err(WeakPassword::TooShort { chars_min: 8 }),
            "characters, not bytes"
        );
        assert_eq!(accept("미나의🦊비밀번호"), Ok(()));
    }

    #[test]
    fn long_ones_with_spaces_and_emoji_are_taken_as_they_are() {
        let phrase = "  four 🦊 foxes walk over the frozen river, and nobody counts them ";
        let kept = PasswordPolicy::default().accept(phrase.into(), None).unwrap();
        assert_eq!(kept.into_secret().expose_secret(), phrase);
        assert_eq!(accept(&"ab".repeat(64)), Ok(()));
        assert_eq!(accept(&format!("{}x", "ab".repeat(64))), Err(WeakPassword::TooLong));
    }

    #[test]
    fn what_is_tried_first_is_refused() {
        for common in ["password", "PASSWORD", "12345678", "1qaz2wsx", "trustno1", "aaaaaaaaaa"] {
            assert_eq!(accept(common), Err(WeakPassword::Common), "{common}");
        }
        for product in ["stockade", "Stockade1", "stockade2026!", "#1Stockade#"] {
            assert_eq!(accept(product), Err(WeakPassword::Common), "{product}");
        }
        assert_eq!(accept("Mina.Kim@example.com"), Err(WeakPassword::Address));
        assert_eq!(accept("mina.kim"), Err(WeakPassword::Address));
        assert_eq!(accept("the stockade fell"), Ok(()));
    }

    #[test]
    fn the_list_is_sorted_and_long_enough() {
        assert!(COMMON.is_sorted_by(|a, b| a < b));
        assert!(COMMON.len() > 5_000);
    }

    #[test]
    fn it_does_not_show_in_a_log() {
        let kept = PasswordPolicy::default().accept("v8#kqz1x".into(), None).unwrap();
        assert!(!format!("{kept:?}").contains("kqz"), "{kept:?}");
    }
}
