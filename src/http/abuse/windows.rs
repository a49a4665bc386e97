//! Exact windows: when the last few places of each key were taken, and how many are held until it is known what comes of them.

use std::collections::VecDeque;
use std::hash::Hash;

use dashmap::DashMap;

use crate::domain::stock::Millis;
use crate::http::client::Neighbourhood;
use crate::http::problem::Problem;
use crate::http::rate::{Policy, too_many};

/// When it pays to ask again where places are held by those who are being judged.
pub const JUDGED_WITHIN_MS: u64 = 1_000;

/// What was taken of a key's window, oldest first, and how many places are held until it is known whether they count.
#[derive(Default)]
pub struct Window {
    pub taken: VecDeque<Millis>,
    held: usize,
}

/// One window for each key.
pub struct Windows<K: Eq + Hash> {
    policy: Policy,
    /// What whoever finds no place is told.
    about: &'static str,
    pub windows: DashMap<K, Window>,
}

impl<K: Eq + Hash + Copy> Windows<K> {
    pub fn new(policy: Policy, about: &'static str) -> Windows<K> {
        Windows { policy, about, windows: DashMap::new() }
    }

    fn window_ms(&self) -> i64 {
        i64::try_from(self.policy.window.as_millis()).unwrap_or(i64::MAX)
    }

    /// How many milliseconds it takes until the window has a place, if it has none.
    pub fn wait_ms(&self, window: &mut Window, now: Millis) -> Option<u64> {
        while window.taken.front().is_some_and(|at| at.plus(self.window_ms()) <= now) {
            window.taken.pop_front();
        }
        let most = self.policy.most as usize;
        match window.taken.front() {
            Some(first) if window.taken.len() >= most => {
                Some(u64::try_from(first.plus(self.window_ms()).0 - now.0).unwrap_or(0))
            }
            _ => (window.taken.len() + window.held >= most).then_some(JUDGED_WITHIN_MS),
        }
    }

    fn full(&self, wait_ms: u64) -> Problem {
        too_many(self.policy, wait_ms, self.about)
    }

    /// Whether the key's window has a place. Of a key that was never here nothing is remembered.
    pub fn look(&self, key: K, now: Millis) -> Result<(), Problem> {
        let wait_ms = self.windows.get_mut(&key).and_then(|mut window| self.wait_ms(&mut window, now));
        wait_ms.map_or(Ok(()), |wait_ms| Err(self.full(wait_ms)))
    }

    /// Holds a place in the key's window, if there is one, until [`Windows::judge`] says whether it is taken.
    pub fn hold(&self, key: K, now: Millis) -> Result<(), Problem> {
        let mut window = self.windows.entry(key).or_default();
        match self.wait_ms(&mut window, now) {
            Some(wait_ms) => Err(self.full(wait_ms)),
            None => {
                window.held += 1;
                Ok(())
            }
        }
    }

    /// What was held is taken, at a moment, or free again.
    pub fn judge(&self, key: K, taken: Option<Millis>) {
        if let Some(mut window) = self.windows.get_mut(&key) {
            window.held = window.held.saturating_sub(1);
            window.taken.extend(taken);
        }
    }

    pub fn sweep(&self, now: Millis) {
        self.windows.retain(|_, window| {
            window.held > 0 || window.taken.back().is_some_and(|at| at.plus(self.window_ms()) > now)
        });
    }
}

/// Windows of addresses, of which some are not counted.
pub struct Addresses(pub Windows<Neighbourhood>);

impl Addresses {
    pub fn new(policy: Policy, about: &'static str) -> Addresses {
        Addresses(Windows::new(policy, about))
    }

    pub fn look(&self, from: Neighbourhood, now: Millis) -> Result<(), Problem> {
        if from.is_exempt { Ok(()) } else { self.0.look(from, now) }
    }

    pub fn hold(&self, from: Neighbourhood, now: Millis) -> Result<(), Problem> {
        if from.is_exempt { Ok(()) } else { self.0.hold(from, now) }
    }

    pub fn judge(&self, from: Neighbourhood, taken: Option<Millis>) {
        if !from.is_exempt {
            self.0.judge(from, taken);
        }
    }
}
