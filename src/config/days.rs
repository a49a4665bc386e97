//! What the business calendar needs to know: how long a day is, whose midnight begins it, when in it goods move on, and for how
//! many of them they are taken back.

use jiff::tz::TimeZone;

use super::{ConfigError, Layers};
use crate::domain::calendar::Calendar;
use crate::domain::job::{BadCron, EACH_DAY, Schedule};

/// Longer than any law asks for.
const RETURN_WINDOW_DAYS_MAX: u32 = 3_650;

#[derive(Debug, Clone)]
pub struct Days {
    pub calendar: Calendar,
    /// When goods ship and arrive, on the calendar's clocks.
    pub deliveries_at: String,
    /// How many days after its delivery a line may be sent back.
    pub return_window_days: u32,
}

impl Days {
    /// Every setting at its default.
    pub(super) fn development() -> Days {
        Days { calendar: Calendar::utc(), deliveries_at: EACH_DAY.to_owned(), return_window_days: 2 }
    }

    /// When goods ship and arrive: once a day, for each time moves a line by one state.
    pub fn deliveries(&self) -> Result<Schedule, BadCron> {
        Schedule::once_a_day(&self.deliveries_at, self.calendar.clone())
    }

    /// How long they are taken back, in milliseconds: it shrinks with the day.
    pub fn return_window_ms(&self) -> i64 {
        self.calendar.span(self.return_window_days)
    }

    pub(super) fn read(layers: &Layers) -> Result<Days, ConfigError> {
        let return_window_days = match layers.number("return_window_days")? {
            fits @ 1..=RETURN_WINDOW_DAYS_MAX => fits,
            _ => return Err(layers.bad("return_window_days", "expected 1 to 3650 days")),
        };
        let deliveries_at = layers.text("deliveries_at").unwrap_or(EACH_DAY).to_owned();
        let days = Days { calendar: calendar(layers)?, deliveries_at, return_window_days };
        days.deliveries().map_err(|why| layers.bad("deliveries_at", &why.to_string()))?;
        Ok(days)
    }

    /// What production does not forgive.
    pub(super) fn wrongs(&self) -> [(bool, &'static str); 1] {
        [(
            self.calendar.is_compressed(),
            "production ships at real midnights: leave STOCKADE_CALENDAR_DAY out, shorter days are for demonstrations and tests",
        )]
    }
}

fn calendar(layers: &Layers) -> Result<Calendar, ConfigError> {
    let name = layers.text("calendar_zone").unwrap_or("UTC");
    let zone = TimeZone::get(name).map_err(|_| {
        layers.bad(
            "calendar_zone",
            "there is no such time zone; expected a name such as UTC, Asia/Seoul or Europe/Berlin",
        )
    })?;
    let word = layers.text("calendar_day").unwrap_or("24h");
    let day_ms = milliseconds(word).ok_or_else(|| {
        layers.bad(
            "calendar_day",
            "expected a number and a unit: 24h (civil days), or 10s, 5m, 1h for a demonstration",
        )
    })?;
    Calendar::of(day_ms, zone).map_err(|error| layers.bad("calendar_day", &error.to_string()))
}

fn milliseconds(word: &str) -> Option<i64> {
    let unit = word.find(|letter: char| !letter.is_ascii_digit())?;
    let (number, unit) = word.split_at(unit);
    let unit = match unit.trim() {
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.parse::<i64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::stock::Millis;

    fn read(pairs: &[(&str, &str)]) -> Result<Days, String> {
        let variables =
            pairs.iter().map(|(key, value)| (format!("STOCKADE_{}", key.to_uppercase()), value.to_string()));
        Layers::of(None, variables, [])
            .and_then(|layers| Days::read(&layers))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn unless_told_otherwise_days_are_those_of_utc() {
        let (read, made) = (read(&[]).unwrap(), Days::development());
        assert_eq!(format!("{read:?}"), format!("{made:?}"));
        assert_eq!(read.return_window_ms(), 48 * 3_600_000);
    }

    #[test]
    fn a_day_is_a_number_and_a_unit() {
        let days = read(&[("calendar_day", "10s")]).unwrap();
        assert_eq!(days.calendar.next_after(Millis(10_001)), Millis(20_000));
        assert_eq!(days.return_window_ms(), 20_000);
        assert!(!read(&[("calendar_day", "1440m")]).unwrap().calendar.is_compressed());
        for bad in ["10", "s", "ten s", "-10s", "10d", "1e9h", "99999999999999999h", "0s", "25h", "500ms"] {
            let told = read(&[("calendar_day", bad)]).unwrap_err();
            assert!(told.contains("STOCKADE_CALENDAR_DAY"), "{told}");
        }
    }

    #[test]
    fn a_zone_has_a_name_that_is_known() {
        let seoul = read(&[("calendar_zone", "Asia/Seoul")]).unwrap();
        assert_eq!(seoul.calendar.start_of(Millis(0)), Millis(-9 * 3_600_000));
        let told = read(&[("calendar_zone", "Asia/Soul")]).unwrap_err();
        assert!(told.contains("STOCKADE_CALENDAR_ZONE") && told.contains("Asia/Seoul"), "{told}");
    }

    #[test]
    fn deliveries_have_one_time_a_day() {
        let noon = read(&[("deliveries_at", "0 12 * * MON-FRI"), ("calendar_zone", "Asia/Seoul")]).unwrap();
        // The first of 1970 was a Thursday; by then it was nine in the morning there.
        assert_eq!(noon.deliveries().unwrap().next_after(Millis(0)), Some(Millis(3 * 3_600_000)));
        for (bad, why) in [
            ("noon", "is not a cron expression"),
            ("0 25 * * *", "is not a cron expression"),
            ("0 0 30 2 *", "never comes"),
            ("0 */6 * * *", "more than once a day"),
        ] {
            let told = read(&[("deliveries_at", bad)]).unwrap_err();
            assert!(told.contains("STOCKADE_DELIVERIES_AT") && told.contains(why), "{told}");
        }
    }

    #[test]
    fn the_return_window_has_bounds() {
        assert_eq!(read(&[("return_window_days", "14")]).unwrap().return_window_days, 14);
        assert!(read(&[("return_window_days", "0")]).is_err());
        assert!(read(&[("return_window_days", "3651")]).is_err());
    }
}
