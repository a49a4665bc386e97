//! In which language somebody is written to.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Locale {
    Ko,
    En,
}

/// How many of a header's preferences are read.
const PREFERENCES_MAX: usize = 32;

impl Locale {
    pub const ALL: [Locale; 2] = [Locale::Ko, Locale::En];

    /// The language a browser prefers among ours (RFC 9110 §12.5.4); English when it names neither.
    pub fn from_accept_language(header: &str) -> Locale {
        let mut best = (0, Locale::En);
        for preference in header.split(',').take(PREFERENCES_MAX) {
            let (range, parameters) = preference.split_once(';').unwrap_or((preference, ""));
            let Some(locale) = Locale::of_range(range.trim()) else { continue };
            let weight = weight(parameters);
            if weight > best.0 {
                best = (weight, locale);
            }
        }
        best.1
    }

    fn of_range(range: &str) -> Option<Locale> {
        let language = range.split_once('-').map_or(range, |(language, _)| language);
        Locale::ALL.into_iter().find(|locale| locale.as_str().eq_ignore_ascii_case(language))
    }

    /// The language's code, as it stands in tables and in HTML.
    pub fn as_str(self) -> &'static str {
        match self {
            Locale::Ko => "ko",
            Locale::En => "en",
        }
    }

    pub fn from_word(word: &str) -> Option<Locale> {
        Locale::ALL.into_iter().find(|locale| locale.as_str() == word)
    }
}

/// `q=0.8` in thousandths; 1000 where nothing is said, 0 where it is nonsense.
fn weight(parameters: &str) -> u32 {
    let Some(q) = parameters.split(';').find_map(|parameter| parameter.trim().strip_prefix("q=")) else {
        return 1_000;
    };
    let (whole, fraction) = q.trim().split_once('.').unwrap_or((q.trim(), ""));
    let digits = |text: &str| text.len() <= 3 && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(fraction) {
        return 0;
    }
    let thousandths = format!("{fraction:0<3}").parse().unwrap_or(0);
    match whole {
        "0" => thousandths,
        "1" => 1_000,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_language_that_is_liked_best_among_ours() {
        for (header, locale) in [
            ("", Locale::En),
            ("ko", Locale::Ko),
            ("ko-KR,ko;q=0.9,en-US;q=0.8,en;q=0.7", Locale::Ko),
            ("en-US,en;q=0.9,ko;q=0.8", Locale::En),
            ("fr, ko;q=0.1", Locale::Ko),
            ("en;q=0.2, KO-kr;q=0.25", Locale::Ko),
            ("ko;q=0, en;q=0", Locale::En),
            ("ko;q=0, de", Locale::En),
            ("ko;q=banana", Locale::En),
            ("kok, de", Locale::En),
            ("*", Locale::En),
        ] {
            assert_eq!(Locale::from_accept_language(header), locale, "{header}");
        }
    }
}
