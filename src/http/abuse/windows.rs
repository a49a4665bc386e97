//! Exact windows: when the last few places of each were taken, and how many are held until it is known what comes of them.

use std::collections::VecDeque;

use dashmap::DashMap;

use super::Place;
use crate::domain::stock::Millis;
use crate::http::problem::Problem;
use crate::http::rate::{Policy, too_many};

/// When it pays to ask again where places are held by those who are being judged.
pub const JUDGED_WITHIN_MS: u64 = 1_000;

/// What was taken of a window, oldest first, and how many places are held until it is known whether they count.
#[derive(Default)]
pub struct Window {
    pub taken: VecDeque<Millis>,
    held: usize,
}

impl Window {
    /// How many milliseconds it takes until it has a place, if it has none.
    pub fn wait_ms(&mut self, policy: Policy, now: Millis) -> Option<u64> {
        while self.taken.front().is_some_and(|at| at.plus(window_ms(policy)) <= now) {
            self.taken.pop_front();
        }
        let most = policy.most as usize;
        match self.taken.front() {
            Some(first) if self.taken.len() >= most => {
                Some(u64::try_from(first.plus(window_ms(policy)).0 - now.0).unwrap_or(0))
            }
            _ => (self.taken.len() + self.held >= most).then_some(JUDGED_WITHIN_MS),
        }
    }
}

fn window_ms(policy: Policy) -> i64 {
    i64::try_from(policy.window.as_millis()).unwrap_or(i64::MAX)
}

/// The windows of all who have come lately, each under what is counted in it.
#[derive(Default)]
pub struct Windows(pub DashMap<Place, Window>);

impl Windows {
    /// Whether there is such a place. Of whoever was never here nothing is remembered.
    pub fn look(&self, place: Place, now: Millis) -> Result<(), Problem> {
        let (policy, about) = place.rule();
        let wait_ms = self.0.get_mut(&place).and_then(|mut window| window.wait_ms(policy, now));
        wait_ms.map_or(Ok(()), |wait_ms| Err(too_many(policy, wait_ms, about)))
    }

    /// Holds it, if there is one, until [`Windows::judge`] says whether it is taken.
    pub fn hold(&self, place: Place, now: Millis) -> Result<(), Problem> {
        let (policy, about) = place.rule();
        let mut window = self.0.entry(place).or_default();
        match window.wait_ms(policy, now) {
            Some(wait_ms) => Err(too_many(policy, wait_ms, about)),
            None => {
                window.held += 1;
                Ok(())
            }
        }
    }

    /// What was held is taken, at a moment, or free again.
    pub fn judge(&self, place: Place, taken: Option<Millis>) {
        if let Some(mut window) = self.0.get_mut(&place) {
            window.held = window.held.saturating_sub(1);
            window.taken.extend(taken);
        }
    }

    pub fn sweep(&self, now: Millis) {
        self.0.retain(|place, window| {
            let (policy, _) = place.rule();
            window.held > 0 || window.taken.back().is_some_and(|at| at.plus(window_ms(policy)) > now)
        });
    }
}
