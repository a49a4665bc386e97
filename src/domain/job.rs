//! Jobs: what is to be done again and again, when, and which of it was missed.
//!
//! A job's times are a cron expression on the clocks of a calendar. With a compressed day those clocks run faster: `0 0 * * *` is the
//! beginning of each compressed day, `0 12 * * *` its middle. Always true: times are never the same twice; a time that the zone's
//! clocks left out comes with the moment after the gap, one that they show twice comes once, at the first.

use std::str::FromStr;

use croner::Cron;

use super::calendar::Calendar;
use super::stock::Millis;

/// The beginning of each day.
pub const EACH_DAY: &str = "0 0 * * *";
/// Of what was missed the latest so many are made up for, each by itself; what is older is told and left out.
pub const CATCH_UP_MAX: usize = 31;
/// A time that comes twice a day does so on every day on which it comes: so many of them tell, also where clocks leave one out.
const TIMES_TOLD: usize = 8;
/// How long a run has its job to itself unless it says that it goes on.
pub const LEASE_MS: i64 = 10_000;
/// Of what went wrong in one run so much is told.
pub const PROBLEMS_MAX: usize = 20;
pub const PROBLEM_CHARS_MAX: usize = 200;

/// One time at which a job is to be done, and the time at which it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// What this is the run of: a job that is told the same twice does nothing twice.
    pub scheduled: Millis,
    pub now: Millis,
    /// Only say what would be done.
    pub dry: bool,
}

/// What came of a run. Holds ids and words of ours, nothing that belongs to a person.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tally {
    /// Rows that were looked at.
    pub seen: u64,
    /// Those of them that are otherwise now; in a dry run, that would be.
    pub moved: u64,
    /// Those that could not be moved although they should have been.
    pub failed: u64,
    /// The first of what went wrong, at most [`PROBLEMS_MAX`].
    pub problems: Vec<String>,
}

impl Tally {
    /// Counts a row that could not be moved.
    pub fn fail(&mut self, why: impl Into<String>) {
        self.failed += 1;
        self.tell(why);
    }

    /// Adds a sentence, where there is still room.
    pub fn tell(&mut self, words: impl Into<String>) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(shortened(words.into()));
        }
    }

    /// The same within its bounds, whoever filled it.
    pub fn bounded(mut self) -> Tally {
        self.problems.truncate(PROBLEMS_MAX);
        self.problems = self.problems.into_iter().map(shortened).collect();
        self
    }
}

fn shortened(mut words: String) -> String {
    if let Some((end, _)) = words.char_indices().nth(PROBLEM_CHARS_MAX) {
        words.truncate(end);
    }
    words
}

/// Why an expression is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadCron {
    #[error("`{words}` is not a cron expression: {why}")]
    Unreadable { words: String, why: String },
    #[error("`{words}` never comes")]
    Never { words: String },
    #[error("`{words}` comes more than once a day")]
    TooOften { words: String },
}

/// What of a job was missed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Missed {
    /// Still to be done, the oldest first; at most [`CATCH_UP_MAX`].
    pub due: Vec<Millis>,
    /// Whether there was more before, which is left out.
    pub skips: bool,
}

/// When a job is done.
#[derive(Debug, Clone)]
pub struct Schedule {
    words: String,
    cron: Cron,
    calendar: Calendar,
}

impl Schedule {
    /// Five fields, minute to weekday; a sixth before them are seconds.
    pub fn cron(words: &str, calendar: Calendar) -> Result<Schedule, BadCron> {
        let cron = Cron::from_str(words)
            .map_err(|error| BadCron::Unreadable { words: words.to_owned(), why: error.to_string() })?;
        let schedule = Schedule { words: words.to_owned(), cron, calendar };
        match schedule.next_after(Millis(0)) {
            Some(_) => Ok(schedule),
            None => Err(BadCron::Never { words: words.to_owned() }),
        }
    }

    /// The same, and no day of the calendar has two of its times.
    pub fn once_a_day(words: &str, calendar: Calendar) -> Result<Schedule, BadCron> {
        let schedule = Schedule::cron(words, calendar)?;
        let times = std::iter::successors(schedule.next_after(Millis(0)), |time| schedule.next_after(*time));
        let days: Vec<Millis> = times.take(TIMES_TOLD).map(|time| schedule.calendar.start_of(time)).collect();
        if days.windows(2).any(|two| two[0] == two[1]) {
            return Err(BadCron::TooOften { words: words.to_owned() });
        }
        Ok(schedule)
    }

    pub fn words(&self) -> &str {
        &self.words
    }

    /// The first time later than this one; none at the end of all calendars.
    pub fn next_after(&self, at: Millis) -> Option<Millis> {
        let face = self.calendar.face(at);
        let mut shown = face.time;
        loop {
            shown = self.cron.find_next_occurrence(&shown, false).ok()?;
            match self.calendar.moment_on(face, shown) {
                Millis(i64::MAX) => return None,
                later if later > at => return Some(later),
                // The second time that the clocks show this; or two times of a compressed day within a millisecond.
                _ => {}
            }
        }
    }

    /// The last time up to this one and with it.
    pub fn latest(&self, until: Millis) -> Option<Millis> {
        self.last(Millis(0), until, 1).due.pop()
    }

    /// What came after `finished` and is due now.
    pub fn missed(&self, finished: Millis, now: Millis) -> Missed {
        self.last(finished, now, CATCH_UP_MAX)
    }

    /// The last `most` times after `after`, up to `until` and with it. What lies long before is not walked through: it looks further
    /// and further back until it has enough.
    fn last(&self, after: Millis, until: Millis, most: usize) -> Missed {
        let mut span = self.calendar.span(1);
        loop {
            let from = after.max(until.plus(-span));
            let times = std::iter::successors(self.next_after(from), |time| self.next_after(*time));
            let mut due: Vec<Millis> = times.take_while(|time| *time <= until).collect();
            if due.len() > most {
                due.drain(..due.len() - most);
                return Missed { due, skips: true };
            }
            if from == after {
                return Missed { due, skips: false };
            }
            span = span.saturating_mul(4);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use jiff::tz::TimeZone;

    fn at(word: &str) -> Millis {
        Millis(word.parse::<Timestamp>().unwrap().as_millisecond())
    }

    fn shown(at: Millis) -> String {
        Timestamp::from_millisecond(at.0).unwrap().to_string()
    }

    fn schedule(words: &str, zone: &str) -> Schedule {
        Schedule::cron(words, Calendar::civil(TimeZone::get(zone).unwrap())).unwrap()
    }

    fn times(schedule: &Schedule, after: &str, many: usize) -> Vec<String> {
        let times = std::iter::successors(Some(at(after)), |time| schedule.next_after(*time));
        times.skip(1).take(many).map(shown).collect()
    }

    #[test]
    fn a_cron_s_midnight_is_the_calendar_s() {
        for zone in
            ["UTC", "Europe/Berlin", "America/Sao_Paulo", "America/Havana", "Pacific/Apia", "Asia/Beirut"]
        {
            let calendar = Calendar::civil(TimeZone::get(zone).unwrap());
            let schedule = schedule(EACH_DAY, zone);
            let mut day = calendar.start_of(at("2010-03-01T12:00:00Z"));
            for _ in 0..4_000 {
                let next = calendar.next_after(day);
                assert_eq!(schedule.next_after(day), Some(next), "{zone} {}", shown(day));
                assert_eq!(schedule.latest(Millis(next.0 - 1)), Some(day), "{zone} {}", shown(day));
                day = next;
            }
        }
        let calendar = Calendar::of(10_000, TimeZone::UTC).unwrap();
        let schedule = Schedule::cron(EACH_DAY, calendar.clone()).unwrap();
        for start in [0, 1_790_000_000_001, 1_790_000_009_999, 1_790_000_010_000] {
            assert_eq!(schedule.next_after(Millis(start)), Some(calendar.next_after(Millis(start))));
        }
    }

    #[test]
    fn a_time_that_clocks_leave_out_or_show_twice_comes_once() {
        let berlin = schedule("30 2 * * *", "Europe/Berlin");
        assert_eq!(
            times(&berlin, "2026-03-28T00:00:00Z", 3),
            ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]
        );
        assert_eq!(
            times(&berlin, "2026-10-24T00:00:00Z", 3),
            ["2026-10-24T00:30:00Z", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]
        );
        // In the middle of the hour that comes again.
        assert_eq!(berlin.next_after(at("2026-10-25T01:10:00Z")), Some(at("2026-10-26T01:30:00Z")));
        assert_eq!(berlin.latest(at("2026-10-25T01:10:00Z")), Some(at("2026-10-25T00:30:00Z")));
    }

    #[test]
    fn a_compressed_day_has_hours_and_weekdays_of_its_own() {
        let calendar = Calendar::of(24_000, TimeZone::get("Asia/Seoul").unwrap()).unwrap();
        let noon = Schedule::cron("0 12 * * *", calendar.clone()).unwrap();
        let day = calendar.next_after(at("2026-11-26T19:00:00Z"));
        assert_eq!(noon.next_after(day), Some(day.plus(12_000)));
        assert_eq!(noon.next_after(day.plus(12_000)), Some(day.plus(36_000)));
        let hourly = Schedule::cron("0 * * * *", calendar.clone()).unwrap();
        assert_eq!(hourly.next_after(day.plus(1)), Some(day.plus(1_000)));
        let weekly = Schedule::cron("0 0 * * MON", calendar).unwrap();
        let monday = weekly.next_after(day).unwrap();
        assert_eq!(weekly.next_after(monday), Some(monday.plus(7 * 24_000)));
    }

    #[test]
    fn what_was_missed_is_due_in_its_order() {
        let daily = schedule(EACH_DAY, "UTC");
        let missed = daily.missed(at("2026-11-20T00:00:00Z"), at("2026-11-23T17:00:00Z"));
        let due: Vec<_> = missed.due.iter().copied().map(shown).collect();
        assert_eq!(due, ["2026-11-21T00:00:00Z", "2026-11-22T00:00:00Z", "2026-11-23T00:00:00Z"]);
        assert!(!missed.skips);
        assert_eq!(daily.missed(at("2026-11-23T00:00:00Z"), at("2026-11-23T17:00:00Z")), Missed::default());
        // A clock that went back: nothing is due before it has caught up.
        assert_eq!(daily.missed(at("2026-11-23T00:00:00Z"), at("2026-11-20T17:00:00Z")), Missed::default());
    }

    #[test]
    fn of_too_much_the_latest_is_due() {
        let compressed = Calendar::of(1_000, TimeZone::UTC).unwrap();
        let each_second = Schedule::cron(EACH_DAY, compressed).unwrap();
        // A day was civil yesterday and has a second now.
        let missed = each_second.missed(at("2020-01-01T00:00:00Z"), at("2026-11-26T00:00:00Z"));
        assert!(missed.skips);
        assert_eq!(missed.due.len(), CATCH_UP_MAX);
        assert_eq!(missed.due.last(), Some(&at("2026-11-26T00:00:00Z")));
        assert_eq!(missed.due[0], at("2026-11-26T00:00:00Z").plus(-30_000));
        let exactly = each_second.missed(Millis(0), Millis(31_000));
        assert_eq!((exactly.due.len(), exactly.skips), (31, false));
    }

    #[test]
    fn seldom_is_found_however_far_back() {
        let leap_day = schedule("0 0 29 2 *", "UTC");
        assert_eq!(leap_day.latest(at("2027-11-26T00:00:00Z")), Some(at("2024-02-29T00:00:00Z")));
        assert_eq!(leap_day.next_after(at("2026-11-26T00:00:00Z")), Some(at("2028-02-29T00:00:00Z")));
    }

    #[test]
    fn an_expression_that_is_none_is_refused() {
        for bad in ["", "midnight", "60 0 * * *", "* * *"] {
            let told = Schedule::cron(bad, Calendar::utc()).unwrap_err();
            assert!(matches!(told, BadCron::Unreadable { .. }), "{told}");
        }
        let told = Schedule::cron("0 0 30 2 *", Calendar::utc()).unwrap_err().to_string();
        assert!(told.contains("never"), "{told}");
    }

    #[test]
    fn once_a_day_is_not_twice() {
        let berlin = Calendar::civil(TimeZone::get("Europe/Berlin").unwrap());
        let compressed = Calendar::of(10_000, TimeZone::UTC).unwrap();
        for calendar in [Calendar::utc(), berlin, compressed] {
            for fits in [EACH_DAY, "30 2 * * *", "0 12 * * MON-FRI", "0 0 1 * *", "0 0 29 2 *"] {
                assert_eq!(Schedule::once_a_day(fits, calendar.clone()).unwrap().words(), fits);
            }
            for bad in ["* * * * *", "0 0,12 * * *", "0,30 23 * * *", "0 0,23 29 2 *", "0 */6 * * SUN"] {
                let told = Schedule::once_a_day(bad, calendar.clone()).unwrap_err();
                assert!(matches!(told, BadCron::TooOften { .. }), "{told}");
            }
        }
    }

    #[test]
    fn a_tally_is_bounded() {
        let mut tally = Tally::default();
        for _ in 0..100 {
            tally.fail("ß".repeat(1_000));
        }
        assert_eq!((tally.failed, tally.problems.len()), (100, PROBLEMS_MAX));
        assert_eq!(tally.problems[0].chars().count(), PROBLEM_CHARS_MAX);
        let long = Tally { problems: vec!["x".repeat(999); 99], ..Tally::default() }.bounded();
        assert_eq!((long.problems.len(), long.problems[0].len()), (PROBLEMS_MAX, PROBLEM_CHARS_MAX));
    }
}
