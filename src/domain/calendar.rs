//! Business days: when one begins, when the next does, and how long so many are.
//!
//! A day is a civil one of some zone, or, for demonstrations and tests, a *compressed* one of a few seconds. Civil days begin at the
//! first moment that the zone's clocks show that date: where midnight does not exist it is the moment after the gap, where it comes
//! twice it is the first of the two. Compressed days begin at the multiples of their length since 1970, whatever the zone. Always
//! true: days follow each other without a gap, and each begins later than the one before it.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};

use super::stock::Millis;

/// A civil day in milliseconds, on most days of the year.
pub const DAY_MS: i64 = 86_400_000;
/// The shortest day: between two of them there is still time to do something.
pub const DAY_MS_MIN: i64 = 1_000;

/// The calendar repeats itself after so many days, weekdays included.
const CYCLE_DAYS: i64 = 146_097;

/// Why a day cannot be so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadDay {
    #[error("a day has at least a second")]
    TooShort,
    #[error("a day has at most 24 hours")]
    TooLong,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Day {
    Civil,
    /// Of so many milliseconds.
    Compressed(i64),
}

/// The days that a shop lives by. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calendar {
    day: Day,
    zone: TimeZone,
}

/// What the clocks on the wall show; those of a compressed day run faster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Face {
    pub time: DateTime,
    /// Days before 1970-01-01 on that wall: compressed years soon have more digits than a date can hold.
    origin: i64,
}

impl Calendar {
    /// Civil days of this zone.
    pub fn civil(zone: TimeZone) -> Calendar {
        Calendar { day: Day::Civil, zone }
    }

    /// Civil days of UTC.
    pub fn utc() -> Calendar {
        Calendar::civil(TimeZone::UTC)
    }

    /// Days of this length; 24 hours are civil days of the zone.
    pub fn of(day_ms: i64, zone: TimeZone) -> Result<Calendar, BadDay> {
        let day = match day_ms {
            DAY_MS => Day::Civil,
            DAY_MS_MIN..DAY_MS => Day::Compressed(day_ms),
            ..DAY_MS_MIN => return Err(BadDay::TooShort),
            _ => return Err(BadDay::TooLong),
        };
        Ok(Calendar { day, zone })
    }

    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }

    pub fn is_compressed(&self) -> bool {
        matches!(self.day, Day::Compressed(_))
    }

    /// How long so many days are, in milliseconds: of a civil day always 24 hours.
    pub fn span(&self, days: u32) -> i64 {
        i64::from(days).saturating_mul(match self.day {
            Day::Civil => DAY_MS,
            Day::Compressed(ms) => ms,
        })
    }

    /// When the day began in which this moment lies.
    pub fn start_of(&self, at: Millis) -> Millis {
        match self.day {
            Day::Civil => self.midnight(self.face(at).time),
            Day::Compressed(ms) => Millis(at.0.saturating_sub(at.0.rem_euclid(ms))),
        }
    }

    /// When the first day begins after this moment: later than it, also if it is the beginning of a day itself.
    pub fn next_after(&self, at: Millis) -> Millis {
        match self.day {
            Day::Civil => {
                let mut date = self.face(at).time;
                // A date that a zone left out begins when the next does; two steps are the most there have ever been.
                while let Ok(tomorrow) = date.tomorrow() {
                    date = tomorrow;
                    let begins = self.midnight(date);
                    if begins > at {
                        return begins;
                    }
                }
                Millis(i64::MAX)
            }
            Day::Compressed(ms) => self.start_of(at).plus(ms),
        }
    }

    /// The beginnings of days after `after`, up to `until` and with it, in their order.
    pub fn occurrences(&self, after: Millis, until: Millis) -> impl Iterator<Item = Millis> {
        let beginnings =
            std::iter::successors(Some(self.next_after(after)), |day| Some(self.next_after(*day)));
        beginnings.take_while(move |day| *day <= until && *day < Millis(i64::MAX))
    }

    fn midnight(&self, date: DateTime) -> Millis {
        self.moment(date.start_of_day())
    }

    /// The moment at which the zone's clocks show this: after the gap if they never do, the first if they do twice.
    fn moment(&self, time: DateTime) -> Millis {
        let shown = self.zone.to_ambiguous_timestamp(time);
        let moment = match shown.offset() {
            // The change itself is what comes first after it would have been, had the clocks been changed already.
            AmbiguousOffset::Gap { .. } => shown.earlier().ok().and_then(|before| {
                let change = self.zone.following(before).next()?;
                Some(change.timestamp())
            }),
            AmbiguousOffset::Unambiguous { .. } | AmbiguousOffset::Fold { .. } => shown.earlier().ok(),
        };
        moment.map_or(Millis(i64::MAX), |moment| Millis(moment.as_millisecond()))
    }

    /// What the clocks show at a moment.
    pub(super) fn face(&self, at: Millis) -> Face {
        match self.day {
            Day::Civil => Face { time: self.zone.to_datetime(timestamp(at.0)), origin: 0 },
            Day::Compressed(ms) => {
                let (day, within) = (at.0.div_euclid(ms), at.0.rem_euclid(ms));
                let of_cycle = day.rem_euclid(CYCLE_DAYS);
                let shown = of_cycle * DAY_MS + within * DAY_MS / ms;
                Face { time: TimeZone::UTC.to_datetime(timestamp(shown)), origin: day - of_cycle }
            }
        }
    }

    /// When the clocks show `time` on the wall of this face. Never before they do; a compressed clock is read to the millisecond.
    pub(super) fn moment_on(&self, face: Face, time: DateTime) -> Millis {
        match self.day {
            Day::Civil => self.moment(time),
            Day::Compressed(ms) => {
                let Ok(shown) = TimeZone::UTC.to_timestamp(time) else { return Millis(i64::MAX) };
                let shown = shown.as_millisecond();
                let (day, within) = (shown.div_euclid(DAY_MS), shown.rem_euclid(DAY_MS));
                let since_midnight = (within * ms + DAY_MS - 1) / DAY_MS;
                Millis((face.origin + day).saturating_mul(ms).saturating_add(since_midnight))
            }
        }
    }
}

fn timestamp(ms: i64) -> Timestamp {
    let end = if ms < 0 { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::from_millisecond(ms).unwrap_or(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(word: &str) -> Millis {
        Millis(word.parse::<Timestamp>().unwrap().as_millisecond())
    }

    fn in_zone(name: &str) -> Calendar {
        Calendar::civil(TimeZone::get(name).unwrap())
    }

    /// The beginnings of days between two moments, as UTC shows them.
    fn days(calendar: &Calendar, after: &str, until: &str) -> Vec<String> {
        let days = calendar.occurrences(at(after), at(until));
        days.map(|day| timestamp(day.0).to_string()).collect()
    }

    #[test]
    fn a_day_begins_at_the_zone_s_midnight() {
        let seoul = in_zone("Asia/Seoul");
        assert_eq!(seoul.next_after(at("2026-11-26T14:59:59.999Z")), at("2026-11-26T15:00:00Z"));
        assert_eq!(seoul.next_after(at("2026-11-26T15:00:00Z")), at("2026-11-27T15:00:00Z"));
        assert_eq!(seoul.start_of(at("2026-11-26T15:00:00Z")), at("2026-11-26T15:00:00Z"));
        assert_eq!(seoul.start_of(at("2026-11-27T14:59:59Z")), at("2026-11-26T15:00:00Z"));
        assert_eq!(seoul.span(2), 48 * 3_600_000);
    }

    #[test]
    fn a_day_has_23_or_25_hours_where_clocks_are_changed() {
        let berlin = in_zone("Europe/Berlin");
        assert_eq!(
            days(&berlin, "2026-03-27T23:00:00Z", "2026-03-30T22:00:00Z"),
            ["2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z", "2026-03-30T22:00:00Z"]
        );
        assert_eq!(
            days(&berlin, "2026-10-23T22:00:00Z", "2026-10-26T23:00:00Z"),
            ["2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z", "2026-10-26T23:00:00Z"]
        );
    }

    #[test]
    fn a_midnight_that_does_not_exist_is_the_moment_after_the_gap() {
        // Clocks went from 24:00 to 01:00.
        let saopaulo = in_zone("America/Sao_Paulo");
        assert_eq!(
            days(&saopaulo, "2018-11-03T03:00:00Z", "2018-11-05T02:00:00Z"),
            ["2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z"]
        );
        assert_eq!(saopaulo.start_of(at("2018-11-04T10:00:00Z")), at("2018-11-04T03:00:00Z"));
    }

    #[test]
    fn a_midnight_that_comes_twice_begins_one_day() {
        // Clocks went from 01:00 back to 00:00 in Havana, and from 24:00 back to 23:00 in São Paulo.
        assert_eq!(
            days(&in_zone("America/Havana"), "2026-10-31T04:00:00Z", "2026-11-02T05:00:00Z"),
            ["2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z"]
        );
        assert_eq!(
            days(&in_zone("America/Sao_Paulo"), "2019-02-16T02:00:00Z", "2019-02-18T03:00:00Z"),
            ["2019-02-17T03:00:00Z", "2019-02-18T03:00:00Z"]
        );
    }

    #[test]
    fn a_date_that_a_zone_left_out_is_no_day() {
        // Samoa went from the 29th of December to the 31st.
        assert_eq!(
            days(&in_zone("Pacific/Apia"), "2011-12-29T09:59:59Z", "2011-12-31T10:00:00Z"),
            ["2011-12-29T10:00:00Z", "2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z"]
        );
    }

    #[test]
    fn a_compressed_day_begins_at_the_multiples_of_its_length() {
        let calendar = Calendar::of(10_000, TimeZone::get("Asia/Seoul").unwrap()).unwrap();
        assert!(calendar.is_compressed());
        let found: Vec<_> = calendar.occurrences(Millis(1_000_009_999), Millis(1_000_030_000)).collect();
        assert_eq!(found, [Millis(1_000_010_000), Millis(1_000_020_000), Millis(1_000_030_000)]);
        assert_eq!(calendar.start_of(Millis(-1)), Millis(-10_000));
        assert_eq!(calendar.span(2), 20_000);
    }

    #[test]
    fn days_have_bounds() {
        assert_eq!(Calendar::of(999, TimeZone::UTC), Err(BadDay::TooShort));
        assert_eq!(Calendar::of(DAY_MS + 1, TimeZone::UTC), Err(BadDay::TooLong));
        assert_eq!(Calendar::of(DAY_MS, TimeZone::UTC), Ok(Calendar::utc()));
    }

    /// Over eight years in every zone there is: days follow each other, and each moment lies in the day it should.
    #[test]
    fn days_follow_each_other_in_every_zone() {
        for name in jiff::tz::db().available() {
            let calendar = in_zone(name.as_str());
            let mut day = calendar.start_of(at("2010-06-01T12:00:00Z"));
            for _ in 0..8 * 365 {
                let next = calendar.next_after(day);
                let hours = (next.0 - day.0) / 3_600_000;
                assert!((20..=28).contains(&hours), "{name} {}", timestamp(day.0));
                assert_eq!(calendar.start_of(Millis(next.0 - 1)), day, "{name} {}", timestamp(day.0));
                assert_eq!(calendar.next_after(Millis(next.0 - 1)), next, "{name} {}", timestamp(day.0));
                day = next;
            }
        }
    }
}
