//! An e-mail address: one normal form to compare, and the form that mail is sent to.
//!
//! Always true: the normal form is lower case, without compatibility letters, and its domain is as DNS knows it, so two
//! spellings of one mailbox are one address. What is sent to differs from it in the case of the part before the `@`
//! and in nothing else: an address that only looks like another's never gets the other's mail.

use super::{folded, is_unprintable, parsed_text};

/// The longest address that SMTP carries (RFC 5321 §4.5.3.1.3, errata 1690).
pub const EMAIL_BYTES_MAX: usize = 254;
const LOCAL_BYTES_MAX: usize = 64;

/// An address that mail can be sent to. Equal when the mailbox is.
#[derive(Clone)]
pub struct Email {
    /// As written, but for compatibility letters and the domain.
    written: String,
    normal: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EmailError {
    #[error("an e-mail address has at most 254 bytes")]
    TooLong,
    #[error("an e-mail address has one @, with something before and after it")]
    Shape,
    #[error("the part before the @ holds something that no mailbox is called")]
    Mailbox,
    #[error("the part after the @ is not a domain")]
    Domain,
}

impl Email {
    pub fn parse(text: &str) -> Result<Email, EmailError> {
        // Normalising can lengthen a text eighteenfold; nothing of use is anywhere near.
        if text.len() > 4 * EMAIL_BYTES_MAX {
            return Err(EmailError::TooLong);
        }
        let folded_text = folded(text.trim());
        let (local, domain) = folded_text.trim().split_once('@').ok_or(EmailError::Shape)?;
        if local.is_empty() || domain.is_empty() || domain.contains('@') {
            return Err(EmailError::Shape);
        }
        if !is_mailbox(local) {
            return Err(EmailError::Mailbox);
        }
        let domain = idna::domain_to_ascii_strict(domain).map_err(|_| EmailError::Domain)?;
        if !is_domain(&domain) {
            return Err(EmailError::Domain);
        }
        let written = format!("{local}@{domain}");
        let normal = format!("{}@{domain}", folded(&local.to_lowercase()));
        if written.len() > EMAIL_BYTES_MAX || normal.len() > EMAIL_BYTES_MAX {
            return Err(EmailError::TooLong);
        }
        Ok(Email { written, normal })
    }

    /// The normal form: what is compared, and what the blind index is made of.
    pub fn as_str(&self) -> &str {
        &self.normal
    }

    /// What is shown, and where mail is sent: letters before the `@` keep their case.
    pub fn written(&self) -> &str {
        &self.written
    }

    /// The part before the `@`, in normal form.
    pub fn mailbox(&self) -> &str {
        self.normal.split_once('@').map_or("", |(local, _)| local)
    }
}

/// Words with single dots between them; no quotes, no comments, no spaces: nobody has such a mailbox, and every mail
/// program reads them differently.
fn is_mailbox(local: &str) -> bool {
    let letter = |c: char| {
        !is_unprintable(c)
            && !c.is_whitespace()
            && (!c.is_ascii() || c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c))
    };
    local.len() <= LOCAL_BYTES_MAX
        && local.split('.').all(|word| !word.is_empty() && word.chars().all(letter))
}

/// At least two labels, and the last of them is no number: an IP address is not a place to write to.
fn is_domain(domain: &str) -> bool {
    let labels: Vec<&str> = domain.split('.').collect();
    labels.len() >= 2
        && labels.iter().all(|label| !label.is_empty())
        && labels.last().is_some_and(|top| !top.bytes().all(|b| b.is_ascii_digit()))
}

impl PartialEq for Email {
    fn eq(&self, other: &Email) -> bool {
        self.normal == other.normal
    }
}

impl Eq for Email {}

parsed_text!(Email, EmailError, written);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_mailbox_are_one_address() {
        for (text, normal) in [
            ("mina@example.com", "mina@example.com"),
            ("  Mina@Example.COM\n", "mina@example.com"),
            ("ｍｉｎａ＠ｅｘａｍｐｌｅ．ｃｏｍ", "mina@example.com"),
            ("mina@예시.한국", "mina@xn--vv4b11d.xn--3e0b707e"),
            ("MINA@XN--VV4B11D.xn--3e0b707e", "mina@xn--vv4b11d.xn--3e0b707e"),
            ("미나@example.com", "미나@example.com"),
            ("mi\u{212a}a@example.com", "mika@example.com"),
            ("mina+tag@example.com", "mina+tag@example.com"),
        ] {
            assert_eq!(Email::parse(text).as_ref().map(Email::as_str), Ok(normal), "{text}");
        }
    }

    #[test]
    fn mail_goes_to_the_normal_form_but_for_case() {
        let written = |text| Email::parse(text).unwrap().written().to_owned();
        assert_eq!(written("Mina.Kim@Example.com"), "Mina.Kim@example.com");
        assert_eq!(written("ｍina@example.com"), "mina@example.com", "not the look-alike's mailbox");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let long = format!("a@{}.com", "a.".repeat(130));
        let huge = "a".repeat(5_000);
        for (text, why) in [
            ("", EmailError::Shape),
            ("mina", EmailError::Shape),
            ("@example.com", EmailError::Shape),
            ("mina@", EmailError::Shape),
            ("a@b@example.com", EmailError::Shape),
            (".a@example.com", EmailError::Mailbox),
            ("a..b@example.com", EmailError::Mailbox),
            ("a b@example.com", EmailError::Mailbox),
            ("\"a\"@example.com", EmailError::Mailbox),
            ("a\r\nBcc:x@example.com", EmailError::Mailbox),
            ("a\u{202e}b@example.com", EmailError::Mailbox),
            ("mina@localhost", EmailError::Domain),
            ("mina@[127.0.0.1]", EmailError::Domain),
            ("mina@127.0.0.1", EmailError::Domain),
            ("mina@example.com.", EmailError::Domain),
            ("mina@exa mple.com", EmailError::Domain),
            ("mina@-example.com", EmailError::Domain),
            (&long, EmailError::Domain),
            (&huge, EmailError::TooLong),
        ] {
            assert_eq!(Email::parse(text), Err(why), "{text:?}");
        }
    }

    #[test]
    fn it_does_not_show_in_a_log() {
        assert_eq!(format!("{:?}", Email::parse("mina@example.com").unwrap()), "Email(…)");
    }
}
