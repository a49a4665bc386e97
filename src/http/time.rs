//! Times as the contract writes them: RFC 3339, UTC, milliseconds. `2026-10-30T09:15:00.250Z`.

use std::borrow::Cow;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::domain::stock::Millis;

const LEN: usize = 24;
const DAY_MS: i64 = 86_400_000;
/// 9999-12-31T23:59:59.999Z, the last time four digits can write.
const LAST_MS: i64 = 253_402_300_799_999;

/// A time on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp(pub Millis);

impl Stamp {
    /// A time as a word, in any zone.
    pub fn read(word: &str) -> Option<Stamp> {
        let time: jiff::Timestamp = word.parse().ok()?;
        match time.as_millisecond() {
            ms @ 0..=LAST_MS => Some(Stamp(Millis(ms))),
            _ => None,
        }
    }

    /// The 24 letters. Years outside 1970–9999 are shown as the nearest of these.
    pub fn letters(self) -> [u8; LEN] {
        let ms = self.0.0.clamp(0, LAST_MS);
        let (year, month, day) = civil(ms / DAY_MS);
        let in_day = ms % DAY_MS;
        let mut out = *b"0000-00-00T00:00:00.000Z";
        for (at, digits, number) in [
            (0, 4, year),
            (5, 2, month),
            (8, 2, day),
            (11, 2, in_day / 3_600_000),
            (14, 2, in_day / 60_000 % 60),
            (17, 2, in_day / 1000 % 60),
            (20, 3, in_day % 1000),
        ] {
            let mut rest = number;
            for slot in out[at..at + digits].iter_mut().rev() {
                *slot = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
        }
        out
    }
}

/// Year, month and day of a day counted from 1970-01-01 (Howard Hinnant, `civil_from_days`), for days ≥ 0.
fn civil(day: i64) -> (i64, i64, i64) {
    let shifted = day + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

impl Serialize for Stamp {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(std::str::from_utf8(&self.letters()).unwrap_or_default())
    }
}

impl<'de> Deserialize<'de> for Stamp {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Stamp, D::Error> {
        let word = Cow::<str>::deserialize(d)?;
        let time: jiff::Timestamp = word
            .parse()
            .map_err(|_| D::Error::custom("a time is written as RFC 3339, like 2026-10-30T09:15:00.000Z"))?;
        match time.as_millisecond() {
            ms @ 0..=LAST_MS => Ok(Stamp(Millis(ms))),
            _ => Err(D::Error::custom("a time lies between the years 1970 and 9999")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_is_written_as_jiff_writes_it() {
        // jiff ends a day before the last one.
        for day in (0..LAST_MS / DAY_MS - 1).step_by(97) {
            let ms = day * DAY_MS + (day * 7_919) % DAY_MS;
            let known = jiff::Timestamp::from_millisecond(ms).unwrap();
            let known = known.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string();
            assert_eq!(std::str::from_utf8(&Stamp(Millis(ms)).letters()).unwrap(), known);
        }
        assert_eq!(&Stamp(Millis(i64::MAX)).letters(), b"9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn times_are_read_in_any_zone_and_nothing_else_is() {
        let read = |word: &str| serde_json::from_value::<Stamp>(word.into()).map(|stamp| stamp.0.0);
        assert_eq!(read("2026-10-30T18:15:00+09:00").unwrap(), read("2026-10-30T09:15:00.000Z").unwrap());
        for word in ["", "tomorrow", "2026-10-30", "1969-12-31T23:59:59Z", "2026-13-01T00:00:00Z"] {
            assert!(read(word).is_err(), "{word}");
        }
    }
}
