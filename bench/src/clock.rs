//! The harness's clock. Every instant in a run is nanoseconds of the machine's monotonic clock, taken here, so
//! that times from different threads, from timers and from the run's own schedule can be compared directly.

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Nanoseconds of the monotonic clock.
pub type Nanos = u64;

pub const SECOND: Nanos = 1_000_000_000;
pub const MILLISECOND: Nanos = 1_000_000;
pub const MICROSECOND: Nanos = 1_000;

pub fn now_ns() -> Nanos {
    nanos(clock_gettime(ClockId::Monotonic))
}

/// CPU time the calling thread has used.
pub fn thread_cpu_ns() -> Nanos {
    nanos(clock_gettime(ClockId::ThreadCPUTime))
}

/// Milliseconds since 1970, UTC.
pub fn unix_ms() -> u64 {
    nanos(clock_gettime(ClockId::Realtime)) / MILLISECOND
}

pub fn seconds(duration: f64) -> Nanos {
    (duration * SECOND as f64) as Nanos
}

pub fn as_seconds(duration: Nanos) -> f64 {
    duration as f64 / SECOND as f64
}

/// RFC 3339, UTC, to the second. The calendar is Howard Hinnant's `civil_from_days`.
pub fn rfc3339(unix_ms: u64) -> String {
    let second_of_day = unix_ms / 1000 % 86_400;
    let days = (unix_ms / 86_400_000) as i64 + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

fn nanos(time: Timespec) -> Nanos {
    time.tv_sec as u64 * SECOND + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_date_reads_as_the_calendar_says() {
        assert_eq!(super::rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(super::rfc3339(1_709_210_096_789), "2024-02-29T12:34:56Z");
    }
}
