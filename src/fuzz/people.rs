//! What people say of themselves. A normal form is its own normal form, or two accounts could have one address.

use secrecy::SecretString;

use crate::domain::user::{
    AddressLine, Country, Email, Locale, PasswordPolicy, PersonName, Phone, PostalCode,
};

/// Addresses, numbers, names and passwords.
pub fn people(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(email) = Email::parse(&text) {
        let again = Email::parse(email.as_str()).map(|again| again.as_str().to_owned());
        assert_eq!(again.as_deref(), Ok(email.as_str()), "the normal form of {text:?}");
        assert!(!email.mailbox().contains(['\r', '\n']), "{text:?}");
    }
    if let Ok(phone) = Phone::parse(&text) {
        assert_eq!(Phone::parse(phone.as_str()).as_ref(), Ok(&phone), "the normal form of {text:?}");
    }
    if let Ok(name) = PersonName::parse(&text) {
        assert_eq!(PersonName::parse(name.as_str()).as_ref(), Ok(&name), "{text:?}");
        assert!(!name.as_str().contains(char::is_control), "{text:?}");
    }
    if let Ok(line) = AddressLine::parse(&text) {
        assert_eq!(AddressLine::parse(line.as_str()).as_ref(), Ok(&line), "{text:?}");
    }
    if let Ok(code) = PostalCode::parse(&text) {
        assert_eq!(PostalCode::parse(code.as_str()).as_ref(), Ok(&code), "{text:?}");
    }
    if let Ok(country) = Country::parse(&text) {
        assert_eq!(Country::parse(country.as_str()).as_ref(), Ok(&country), "{text:?}");
    }
    let locale = Locale::from_accept_language(&text);
    assert_eq!(Locale::from_word(locale.as_str()), Some(locale));
    let _ = PasswordPolicy::default().accept(SecretString::from(text.as_ref()), None);
}
