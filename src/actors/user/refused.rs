//! Of which sessions the trail says already that a refresh was refused: whoever has a token without its key, and tries on and on, is told
//! of once in a while and not as often as he likes.
//!
//! Kept in memory: a node that has just become the lead tells once more.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::domain::id::SessionId;
use crate::domain::stock::Millis;

/// How long an entry stands for all that come behind it.
const STANDS_MS: i64 = 10 * 60 * 1_000;
/// Sessions that are remembered. Of those that have no room each refusal is told.
const SESSIONS_MAX: usize = 10_000;

/// When it was last told of each.
#[derive(Default)]
pub(super) struct Refused(Mutex<HashMap<SessionId, Millis>>);

impl Refused {
    pub fn is_told(&self, session: SessionId, now: Millis) -> bool {
        self.lock().get(&session).is_some_and(|at| stands(*at, now))
    }

    pub fn told(&self, session: SessionId, now: Millis) {
        let mut told = self.lock();
        if told.len() >= SESSIONS_MAX {
            told.retain(|_, at| stands(*at, now));
        }
        if told.len() < SESSIONS_MAX {
            told.insert(session, now);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Millis>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stands(told_at: Millis, now: Millis) -> bool {
    now < told_at.plus(STANDS_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_sessions_are_remembered_for_so_long() {
        let (refused, now) = (Refused::default(), Millis(1_800_000_000_000));
        let session = |number: usize| SessionId::new(now, number as u128);
        for number in 0..SESSIONS_MAX + 5 {
            refused.told(session(number), now);
        }
        let later = now.plus(STANDS_MS - 1);
        assert!(refused.is_told(session(0), later) && refused.is_told(session(SESSIONS_MAX - 1), later));
        assert!(!refused.is_told(session(SESSIONS_MAX), now), "there is no room for it");
        let then = now.plus(STANDS_MS);
        assert!(!refused.is_told(session(0), then));
        refused.told(session(SESSIONS_MAX), then);
        assert!(refused.is_told(session(SESSIONS_MAX), then));
        assert_eq!(refused.lock().len(), 1, "the others are over");
    }
}
