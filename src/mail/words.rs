//! The words of every letter, in every language: text files in the binary, made into a message twice over.
//!
//! A letter's file is its subject, a blank line, and paragraphs; a paragraph in brackets is the button. The file is filled in
//! first; what comes out is set into one layout for HTML, where everything is escaped, and one for plain text. Always true: each
//! letter exists in each language, and a value that is missing is an error, never a gap.

use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value, context};

use super::Letter;
use crate::domain::user::Locale;

macro_rules! texts {
    ($( $kind:literal ),* $(,)?) => {
        &[$(
            (concat!($kind, ".ko.txt"), include_str!(concat!("words/", $kind, ".ko.txt"))),
            (concat!($kind, ".en.txt"), include_str!(concat!("words/", $kind, ".en.txt"))),
        )*]
    };
}

const TEXTS: &[(&str, &str)] = texts![
    "verify_address",
    "address_taken",
    "phone_taken",
    "password_reset",
    "password_changed",
    "confirm_new_address",
    "address_changing",
    "address_changed",
];

const LAYOUTS: [(&str, &str); 2] =
    [("layout.html", include_str!("words/layout.html")), ("layout.txt", include_str!("words/layout.txt"))];

/// A letter's text could not be made. It is a mistake in a file of ours.
#[derive(Debug, thiserror::Error)]
#[error("a letter's text is wrong: {0}")]
pub struct NoWords(#[from] minijinja::Error);

/// A letter in somebody's language.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    pub subject: String,
    pub html: String,
    pub plain: String,
}

/// All texts, ready to be filled in.
pub struct Words {
    texts: Environment<'static>,
    public_url: String,
}

impl Words {
    /// Links lead to `public_url`, which has no slash at its end.
    pub fn new(public_url: &str) -> Result<Words, NoWords> {
        let mut texts = Environment::empty();
        texts.set_undefined_behavior(UndefinedBehavior::Strict);
        texts.set_auto_escape_callback(|name| {
            if name.ends_with(".html") { AutoEscape::Html } else { AutoEscape::None }
        });
        for (name, text) in TEXTS.iter().chain(&LAYOUTS) {
            texts.add_template(name, text)?;
        }
        Ok(Words { texts, public_url: public_url.to_owned() })
    }

    /// The letter as a message.
    pub fn message(&self, letter: &Letter, locale: Locale) -> Result<Message, NoWords> {
        let name = format!("{}.{}.txt", letter.kind(), locale.as_str());
        let filled = self.texts.get_template(&name)?.render(context! { minutes => letter.minutes() })?;
        let (subject, body) = filled.split_once("\n\n").unwrap_or((&filled, ""));
        let values = context! {
            language => locale.as_str(),
            subject,
            blocks => blocks(body),
            link => letter.link(&self.public_url),
            shop => self.public_url.as_str(),
        };
        let set = |layout: &str| self.texts.get_template(layout)?.render(&values);
        Ok(Message {
            subject: subject.trim().to_owned(),
            html: set("layout.html")?,
            plain: set("layout.txt")?,
        })
    }
}

/// Paragraphs, and the button among them.
fn blocks(body: &str) -> Vec<Value> {
    let paragraphs = body.split("\n\n").map(str::trim).filter(|paragraph| !paragraph.is_empty());
    paragraphs
        .map(|text| match text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
            Some(label) => context! { text => label, is_button => true },
            None => context! { text, is_button => false },
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::LinkToken;

    pub fn all_letters() -> Vec<Letter> {
        let token = || LinkToken::new("verify_4f-_x");
        vec![
            Letter::VerifyAddress { token: token() },
            Letter::AddressTaken,
            Letter::PhoneTaken,
            Letter::PasswordReset { token: token(), minutes: 30 },
            Letter::PasswordChanged,
            Letter::ConfirmNewAddress { token: token() },
            Letter::AddressChanging,
            Letter::AddressChanged,
        ]
    }

    #[test]
    fn every_letter_exists_in_every_language_and_both_forms() {
        let words = Words::new("https://shop.example.com").unwrap();
        let letters = all_letters();
        assert_eq!(letters.len() * Locale::ALL.len(), TEXTS.len());
        for letter in &letters {
            let link = letter.link("https://shop.example.com");
            for locale in Locale::ALL {
                let message = words.message(letter, locale).unwrap();
                let told = format!(
                    "{letter:?} {locale:?}\n{}\n{}\n{}",
                    message.subject, message.plain, message.html
                );
                assert!(!message.subject.is_empty() && !message.subject.contains('\n'), "{told}");
                assert!(message.plain.contains(&link), "{told}");
                let html = message.html.replace("&#x2f;", "/");
                assert!(html.contains(&format!("href=\"{link}\"")), "{told}");
                assert!(message.html.contains(&format!("<html lang=\"{}\">", locale.as_str())), "{told}");
                let korean = |text: &str| text.chars().any(|c| ('가'..='힣').contains(&c));
                assert_eq!(korean(&message.plain), locale == Locale::Ko, "{told}");
                assert_eq!(korean(&message.subject), locale == Locale::Ko, "{told}");
                assert!(!message.plain.contains('['), "{told}");
                assert!(!message.plain.contains("{{") && !message.html.contains("{{"), "{told}");
            }
        }
    }

    #[test]
    fn a_link_carries_its_token_where_no_server_sees_it() {
        let token = LinkToken::new("reset_4f");
        let letter = Letter::PasswordReset { token, minutes: 30 };
        assert_eq!(letter.link("https://a"), "https://a/reset#token=reset_4f");
        let message = Words::new("https://a").unwrap().message(&letter, Locale::En).unwrap();
        assert!(message.plain.contains("30 minutes"), "{}", message.plain);
        assert!(!format!("{letter:?}").contains("4f"));
    }

    #[test]
    fn what_is_set_into_html_is_escaped() {
        let words = Words::new("https://a/\"><script>").unwrap();
        let html = words.message(&Letter::AddressTaken, Locale::En).unwrap().html;
        assert!(!html.contains("<script>"), "{html}");
    }
}
