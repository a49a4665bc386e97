//! A telephone number in E.164, however it was written.

use super::{folded, parsed_text};

/// A number as the world dials it: `+` and eight to fifteen digits (ITU-T E.164).
#[derive(Clone, PartialEq, Eq)]
pub struct Phone(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a telephone number is 010-1234-5678, or + with the country's code")]
pub struct PhoneError;

/// Where a number without a country's code is dialled.
const HOME_COUNTRY: &str = "82";
const DIGITS_MIN: usize = 8;
const DIGITS_MAX: usize = 15;
const TEXT_BYTES_MAX: usize = 64;

impl Phone {
    /// Takes spaces, dashes, dots and brackets; a number that begins with a single 0 is a Korean one.
    pub fn parse(text: &str) -> Result<Phone, PhoneError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(PhoneError);
        }
        let text = folded(text);
        let bare: String = text
            .chars()
            .filter(|c| !c.is_whitespace() && !"-.()/\u{2010}\u{2011}\u{2013}".contains(*c))
            .collect();
        let digits =
            match (bare.strip_prefix('+').or_else(|| bare.strip_prefix("00")), bare.strip_prefix('0')) {
                (Some(world), _) => world.to_owned(),
                (None, Some(home)) => format!("{HOME_COUNTRY}{home}"),
                (None, None) => return Err(PhoneError),
            };
        // `+82 (0)10` and `+82 010` are written often; no Korean number begins with 0 abroad.
        let digits = match digits.strip_prefix("820") {
            Some(rest) => format!("{HOME_COUNTRY}{rest}"),
            None => digits,
        };
        let right = (DIGITS_MIN..=DIGITS_MAX).contains(&digits.len())
            && digits.bytes().all(|b| b.is_ascii_digit())
            && !digits.starts_with('0')
            && digits.strip_prefix(HOME_COUNTRY).is_none_or(is_korean);
        if right { Ok(Phone(format!("+{digits}"))) } else { Err(PhoneError) }
    }

    /// `+821012345678`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// After the country's code: 8 to 10 digits, and no second 0; mobile numbers have ten.
fn is_korean(rest: &str) -> bool {
    let mobile = rest.starts_with("10");
    !rest.starts_with('0') && if mobile { rest.len() == 10 } else { (8..=10).contains(&rest.len()) }
}

parsed_text!(Phone, PhoneError, as_str);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_it_is_written_it_is_one_number() {
        for text in [
            "010-1234-5678",
            "01012345678",
            " 010 1234 5678 ",
            "+82 10-1234-5678",
            "+82 (0)10 1234.5678",
            "0082-10-1234-5678",
            "０１０－１２３４－５６７８",
        ] {
            assert_eq!(Phone::parse(text).as_ref().map(Phone::as_str), Ok("+821012345678"), "{text}");
        }
        assert_eq!(Phone::parse("02-123-4567").unwrap().as_str(), "+8221234567");
        assert_eq!(Phone::parse("+1 (415) 555-0132").unwrap().as_str(), "+14155550132");
    }

    #[test]
    fn what_nobody_can_dial_is_refused() {
        for text in [
            "",
            "+",
            "1234",
            "12345678",
            "010-1234-567",
            "010-1234-56789",
            "+0 123 456 789",
            "+82 0010 1234",
            "010-1234-567x",
            "+1234567890123456",
            "٠١٠١٢٣٤٥٦٧٨",
            &"0".repeat(500),
        ] {
            assert_eq!(Phone::parse(text), Err(PhoneError), "{text}");
        }
    }

    #[test]
    fn it_does_not_show_in_a_log() {
        assert_eq!(format!("{:?}", Phone::parse("010-1234-5678").unwrap()), "Phone(…)");
    }
}
