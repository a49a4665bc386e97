//! What a person is called: nearly anything, on one line.

use super::{folded, is_unprintable, parsed_text};

pub const NAME_CHARS_MAX: usize = 100;

/// A name of one to a hundred letters, without controls, spaces made single.
#[derive(Clone, PartialEq, Eq)]
pub struct PersonName(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("a name has 1 to 100 letters")]
    Length,
    #[error("a name is one line of letters, without control characters")]
    Letters,
}

impl PersonName {
    pub fn parse(text: &str) -> Result<PersonName, NameError> {
        line(text, NAME_CHARS_MAX).map(PersonName)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One printable line of at most so many letters, spaces made single.
pub(super) fn line(text: &str, chars_max: usize) -> Result<String, NameError> {
    if text.len() > chars_max * 16 {
        return Err(NameError::Length);
    }
    let text = folded(text.trim());
    if text.chars().any(is_unprintable) {
        return Err(NameError::Letters);
    }
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.is_empty() || line.chars().count() > chars_max { Err(NameError::Length) } else { Ok(line) }
}

parsed_text!(PersonName, NameError, as_str);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_line() {
        assert_eq!(PersonName::parse(" 김  미나 ").unwrap().as_str(), "김 미나");
        assert_eq!(PersonName::parse("D'Arcy-Núñez Ōé 🦊").unwrap().as_str(), "D'Arcy-Núñez Ōé 🦊");
        for (text, why) in [
            ("", NameError::Length),
            ("  ", NameError::Length),
            (&*"a".repeat(101), NameError::Length),
            ("a\nb", NameError::Letters),
            ("a\u{1b}[31mb", NameError::Letters),
            ("a\u{202e}b", NameError::Letters),
        ] {
            assert_eq!(PersonName::parse(text), Err(why), "{text:?}");
        }
        assert_eq!(format!("{:?}", PersonName::parse("김 미나").unwrap()), "PersonName(…)");
    }
}
