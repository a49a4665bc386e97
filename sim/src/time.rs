//! True time, the wall clock that a machine shows, and the clock a process makes of it.
//!
//! True time starts at 0 and nobody inside the simulation can read it; only checkers do. A process reads the wall
//! once, when it starts, and counts boot time from there, as `stockade::clock` does; boot time drifts, but never
//! steps. The wall may step whenever it likes.

use stockade::domain::stock::Millis;

/// Microseconds of true time since the beginning, or a span of them.
pub type Micros = i64;

pub const MS: Micros = 1_000;
pub const SECOND: Micros = 1_000_000;

/// The wall's reading at true time 0, were it right.
const WALL_START_US: i64 = 1_800_000_000_000_000;

/// The machine's wall clock: true time and an error.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wall {
    pub error_us: i64,
}

impl Wall {
    pub fn read_us(&self, now: Micros) -> i64 {
        WALL_START_US + now + self.error_us
    }
}

/// The clock of one process.
#[derive(Debug, Clone, Copy)]
pub struct ProcessClock {
    started: Micros,
    wall_at_start_us: i64,
    drift_ppm: i64,
}

impl ProcessClock {
    pub fn start(now: Micros, wall: Wall, drift_ppm: i64) -> ProcessClock {
        ProcessClock { started: now, wall_at_start_us: wall.read_us(now), drift_ppm }
    }

    fn read_us(&self, now: Micros) -> i64 {
        let since = now - self.started;
        self.wall_at_start_us + since + since * self.drift_ppm / 1_000_000
    }

    pub fn now(&self, now: Micros) -> Millis {
        Millis(self.read_us(now).div_euclid(MS))
    }

    /// How far this clock is ahead of the truth.
    pub fn error_us(&self, now: Micros) -> i64 {
        self.read_us(now) - WALL_START_US - now
    }

    /// About how long until this clock shows `at`. A timer that fires early is set again.
    pub fn until(&self, at: Millis, now: Micros) -> Micros {
        (at.0.saturating_mul(MS) - self.read_us(now)).clamp(0, 1_000 * SECOND)
    }
}

/// The true time at which a right clock shows `at`.
pub fn true_time(at: Millis) -> Micros {
    at.0.saturating_mul(MS).saturating_sub(WALL_START_US)
}

/// What a right clock shows at this true time.
pub fn shown(now: Micros) -> Millis {
    Millis((WALL_START_US + now).div_euclid(MS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_the_wall_moves_no_running_process() {
        let mut wall = Wall::default();
        let clock = ProcessClock::start(0, wall, 0);
        wall.error_us = 3_600 * SECOND;
        assert_eq!(clock.now(SECOND), shown(SECOND));
        let later = ProcessClock::start(SECOND, wall, 0);
        assert_eq!(later.now(SECOND).0 - shown(SECOND).0, 3_600_000);
    }

    #[test]
    fn drift_grows_with_time_since_the_start() {
        let clock = ProcessClock::start(5 * SECOND, Wall::default(), 200);
        assert_eq!(clock.error_us(5 * SECOND), 0);
        assert_eq!(clock.error_us(15 * SECOND), 2_000);
    }
}
