//! How often accounts may be tried, and how many letters a stranger may cause.
//!
//! Each window is exact: it remembers when its last few were taken, so that *five in a quarter of an hour* means any
//! quarter of an hour. A log-in holds a place before the password is looked at, and the place is free again unless it was
//! wrong: what counts is failures, and a hundred at once hold their places before one of them is judged. Whoever finds all
//! places held, but not lost, waits a second and not a quarter of an hour: so much for a hasty finger on a slow day.
//! Failures count for an account and an address together, so nobody locks out a victim from another network. Over all
//! stands a limit on everybody, which also bounds how much is remembered here.

use std::collections::VecDeque;
use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::one::RefMut;
use governor::clock::{Clock as _, QuantaClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use super::client::Neighbourhood;
use super::problem::Problem;
use super::rate::{Policy, too_many};
use crate::clock::Clock;
use crate::domain::id::UserId;
use crate::domain::stock::Millis;

const QUARTER_HOUR: Duration = Duration::from_secs(15 * 60);
const HOUR: Duration = Duration::from_secs(3_600);

const FAILURES: Policy = Policy { name: "log-in failures", most: 5, window: QUARTER_HOUR };
const FAILURES_OF_ADDRESS: Policy =
    Policy { name: "log-in failures of an address", most: 20, window: QUARTER_HOUR };
const LETTERS: Policy = Policy { name: "letters to a recipient", most: 3, window: HOUR };
const LETTERS_OF_ADDRESS: Policy = Policy { name: "letters from an address", most: 20, window: HOUR };
const LINKS_OF_ADDRESS: Policy = Policy { name: "links from an address", most: 60, window: HOUR };
/// A whole office behind one address, each with a phone that wakes up.
const REFRESHES_OF_ADDRESS: Policy = Policy { name: "refreshes from an address", most: 600, window: HOUR };
/// Webhooks of the payment provider, in a second: whoever else sends them has no signature, and is not asked about anything.
const WEBHOOKS: Policy = Policy { name: "webhooks", most: 2_000, window: Duration::from_secs(1) };
const EXPORTS: Policy = Policy { name: "exports", most: 5, window: HOUR };
/// Of everybody together, in a second: far above what people do, far below what would drown us.
const EVERYBODY: Policy = Policy { name: "accounts", most: 1_000, window: Duration::from_secs(1) };

/// When it pays to ask again where places are held by those who are being judged.
const JUDGED_WITHIN_MS: u64 = 1_000;

/// After so many questions the windows of those who have gone are dropped.
const SWEEP_EVERY: u64 = 1 << 12;

/// What was taken of a key's window, oldest first, and how many places are held until it is known whether they count.
#[derive(Default)]
struct Window {
    taken: VecDeque<Millis>,
    held: usize,
}

/// One window for each key.
struct Windows<K: Eq + Hash> {
    policy: Policy,
    windows: DashMap<K, Window>,
}

impl<K: Eq + Hash + Copy> Windows<K> {
    fn new(policy: Policy) -> Windows<K> {
        Windows { policy, windows: DashMap::new() }
    }

    fn window_ms(&self) -> i64 {
        i64::try_from(self.policy.window.as_millis()).unwrap_or(i64::MAX)
    }

    /// The key's window if it has a place, or how many milliseconds it takes until there is one.
    fn with_a_place(&self, key: K, now: Millis) -> Result<RefMut<'_, K, Window>, u64> {
        let mut window = self.windows.entry(key).or_default();
        while window.taken.front().is_some_and(|at| at.plus(self.window_ms()) <= now) {
            window.taken.pop_front();
        }
        let most = self.policy.most as usize;
        match window.taken.front() {
            Some(first) if window.taken.len() >= most => {
                Err(u64::try_from(first.plus(self.window_ms()).0 - now.0).unwrap_or(0))
            }
            _ if window.taken.len() + window.held >= most => Err(JUDGED_WITHIN_MS),
            _ => Ok(window),
        }
    }

    /// Takes a place in the key's window.
    fn take(&self, key: K, now: Millis, about: &'static str) -> Result<(), Problem> {
        let mut window =
            self.with_a_place(key, now).map_err(|wait_ms| too_many(self.policy, wait_ms, about))?;
        window.taken.push_back(now);
        Ok(())
    }

    /// Holds a place in the key's window until [`Windows::judge`] says whether it is taken.
    fn hold(&self, key: K, now: Millis, about: &'static str) -> Result<(), Problem> {
        let mut window =
            self.with_a_place(key, now).map_err(|wait_ms| too_many(self.policy, wait_ms, about))?;
        window.held += 1;
        Ok(())
    }

    /// What was held is taken, at a moment, or free again.
    fn judge(&self, key: K, taken: Option<Millis>) {
        if let Some(mut window) = self.windows.get_mut(&key) {
            window.held = window.held.saturating_sub(1);
            window.taken.extend(taken);
        }
    }

    fn sweep(&self, now: Millis) {
        self.windows.retain(|_, window| {
            window.held > 0 || window.taken.back().is_some_and(|at| at.plus(self.window_ms()) > now)
        });
    }
}

/// What an account is tried under: a hash, because the words need not be remembered.
pub type Tried = u128;

/// The account doors' limits. Cheap to clone.
#[derive(Clone)]
pub struct Abuse(Arc<Inner>);

struct Inner {
    clock: Clock,
    failures: Windows<(Tried, Neighbourhood)>,
    failures_of_address: Windows<Neighbourhood>,
    letters: Windows<Tried>,
    letters_of_address: Windows<Neighbourhood>,
    links_of_address: Windows<Neighbourhood>,
    refreshes_of_address: Windows<Neighbourhood>,
    exports: Windows<UserId>,
    everybody: DefaultDirectRateLimiter,
    webhooks: DefaultDirectRateLimiter,
    asked: AtomicU64,
}

/// A password that is about to be tried: it holds a place among the failures, which is free again unless it failed. That
/// goes for whoever hangs up as well: they have heard nothing.
#[must_use]
pub struct Attempt {
    abuse: Abuse,
    account: Tried,
    from: Neighbourhood,
    /// When.
    failed: Option<Millis>,
}

impl Attempt {
    /// The password was wrong.
    pub fn fail(mut self) {
        self.failed = Some(self.abuse.0.clock.now());
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let Inner { failures, failures_of_address, .. } = &*self.abuse.0;
        failures.judge((self.account, self.from), self.failed);
        if !self.from.is_exempt {
            failures_of_address.judge(self.from, self.failed);
        }
    }
}

impl Abuse {
    pub fn new(clock: Clock) -> Abuse {
        let per_second = |policy: Policy| {
            let most = NonZeroU32::new(policy.most).unwrap_or(NonZeroU32::MIN);
            RateLimiter::direct(Quota::per_second(most))
        };
        Abuse(Arc::new(Inner {
            clock,
            failures: Windows::new(FAILURES),
            failures_of_address: Windows::new(FAILURES_OF_ADDRESS),
            letters: Windows::new(LETTERS),
            letters_of_address: Windows::new(LETTERS_OF_ADDRESS),
            links_of_address: Windows::new(LINKS_OF_ADDRESS),
            refreshes_of_address: Windows::new(REFRESHES_OF_ADDRESS),
            exports: Windows::new(EXPORTS),
            everybody: per_second(EVERYBODY),
            webhooks: per_second(WEBHOOKS),
            asked: AtomicU64::new(1),
        }))
    }

    fn everybody(&self) -> Result<Millis, Problem> {
        let now = self.0.clock.now();
        if self.0.asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(SWEEP_EVERY) {
            self.sweep(now);
        }
        self.0.everybody.check().map_err(|until| {
            let wait = until.wait_time_from(QuantaClock::default().now());
            too_many(EVERYBODY, wait.as_millis() as u64, "Too many people are at the door.")
        })?;
        Ok(now)
    }

    fn sweep(&self, now: Millis) {
        let all = &*self.0;
        all.failures.sweep(now);
        all.failures_of_address.sweep(now);
        all.letters.sweep(now);
        all.letters_of_address.sweep(now);
        all.links_of_address.sweep(now);
        all.refreshes_of_address.sweep(now);
        all.exports.sweep(now);
    }

    /// Before a password is looked at.
    pub fn try_password(&self, account: Tried, from: Neighbourhood) -> Result<Attempt, Problem> {
        let now = self.everybody()?;
        const OFTEN: &str =
            "Too many log-ins have failed, or are still looked at: wait, or reset the password.";
        let Inner { failures, failures_of_address, .. } = &*self.0;
        failures.hold((account, from), now, OFTEN)?;
        if !from.is_exempt
            && let Err(problem) = failures_of_address.hold(from, now, OFTEN)
        {
            failures.judge((account, from), None);
            return Err(problem);
        }
        Ok(Attempt { abuse: self.clone(), account, from, failed: None })
    }

    /// Before a letter is written to somebody who may not have asked for it.
    pub fn send_letter(&self, to: &[Tried], from: Neighbourhood) -> Result<(), Problem> {
        let now = self.everybody()?;
        if !from.is_exempt {
            self.0.letters_of_address.take(from, now, "Too many letters were asked for from here.")?;
        }
        to.iter().try_for_each(|to| {
            self.0.letters.take(*to, now, "Too many letters were asked for to this address.")
        })
    }

    /// Before a refresh token is looked up.
    pub fn refresh(&self, from: Neighbourhood) -> Result<(), Problem> {
        let now = self.everybody()?;
        if from.is_exempt {
            return Ok(());
        }
        self.0.refreshes_of_address.take(from, now, "Too many refreshes come from here.")
    }

    /// Before a mailed link is looked up.
    pub fn follow_link(&self, from: Neighbourhood) -> Result<(), Problem> {
        let now = self.everybody()?;
        if from.is_exempt {
            return Ok(());
        }
        self.0.links_of_address.take(from, now, "Too many links were tried from here.")
    }

    /// Before all that is known of a person is put together.
    pub fn export(&self, user: UserId) -> Result<(), Problem> {
        let now = self.everybody()?;
        self.0.exports.take(user, now, "Your data was exported a moment ago.")
    }

    /// Before the signature of a webhook is looked at.
    pub fn hear(&self) -> Result<(), Problem> {
        self.0.webhooks.check().map_err(|until| {
            let wait = until.wait_time_from(QuantaClock::default().now());
            too_many(WEBHOOKS, wait.as_millis() as u64, "Too many webhooks come at once.")
        })
    }

    /// Before anything else that costs more than a look at a token.
    pub fn pass(&self) -> Result<(), Problem> {
        self.everybody().map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::problem::Code;

    fn from(last: u8) -> Neighbourhood {
        Neighbourhood::of([203, 0, 113, last].into())
    }

    fn fails(abuse: &Abuse, account: Tried, at: Neighbourhood) -> bool {
        abuse.try_password(account, at).map(Attempt::fail).is_ok()
    }

    #[test]
    fn five_failures_of_an_account_from_one_place_in_any_quarter_of_an_hour() {
        let clock = Clock::start();
        let abuse = Abuse::new(clock.clone());
        let tries: Vec<bool> = (0..7).map(|_| fails(&abuse, 1, from(1))).collect();
        assert_eq!(tries, [true, true, true, true, true, false, false]);
        assert!(fails(&abuse, 1, from(2)), "the victim, from elsewhere");
        assert!(fails(&abuse, 2, from(1)), "somebody else, from here");
        clock.advance(14 * 60_000);
        assert!(!fails(&abuse, 1, from(1)));
        clock.advance(60_000);
        assert!(fails(&abuse, 1, from(1)));
    }

    #[test]
    fn who_is_right_has_not_failed() {
        let abuse = Abuse::new(Clock::start());
        for _ in 0..50 {
            drop(abuse.try_password(1, from(1)).unwrap_or_else(|_| panic!("refused")));
        }
    }

    #[test]
    fn who_tries_many_at_once_is_counted_before_one_is_judged() {
        let abuse = Abuse::new(Clock::start());
        let running: Vec<_> = (0..9).map(|_| abuse.try_password(1, from(1))).collect();
        assert_eq!(running.iter().filter(|attempt| attempt.is_ok()).count(), 5);
    }

    #[test]
    fn who_finds_others_being_judged_waits_for_them_and_not_for_the_window() {
        let abuse = Abuse::new(Clock::start());
        let now = abuse.0.clock.now();
        let wait = |abuse: &Abuse| abuse.0.failures.with_a_place((1, from(1)), now).err();
        let mut running: Vec<_> = (0..5).filter_map(|_| abuse.try_password(1, from(1)).ok()).collect();
        assert_eq!(wait(&abuse), Some(JUDGED_WITHIN_MS));
        running.pop();
        assert_eq!(wait(&abuse), None);
        running.drain(..).for_each(Attempt::fail);
        assert!(fails(&abuse, 1, from(1)), "the fifth failure");
        assert!(wait(&abuse).is_some_and(|ms| ms > 890_000), "all five are lost");
        abuse.sweep(abuse.0.clock.now().plus(900_000));
        assert!(abuse.0.failures.windows.is_empty());
        let held = abuse.try_password(1, from(1));
        abuse.sweep(abuse.0.clock.now().plus(900_000));
        assert_eq!(abuse.0.failures.windows.len(), 1, "one that is being judged is not forgotten");
        drop(held);
    }

    #[test]
    fn an_address_has_twenty_failures_whatever_accounts_it_tries() {
        let abuse = Abuse::new(Clock::start());
        assert_eq!((0..30).filter(|account| fails(&abuse, *account, from(1))).count(), 20);
        assert!(fails(&abuse, 99, from(2)));
        let home = Neighbourhood::of([127, 0, 0, 1].into());
        assert_eq!((0..30).filter(|account| fails(&abuse, *account, home)).count(), 30);
    }

    #[test]
    fn three_letters_an_hour_to_one_reader_and_twenty_from_one_place() {
        let clock = Clock::start();
        let abuse = Abuse::new(clock.clone());
        let sent = (0..10).filter(|at| abuse.send_letter(&[1], from(*at)).is_ok()).count();
        assert_eq!(sent, 3);
        assert_eq!((0..30).filter(|to| abuse.send_letter(&[100 + to], from(99)).is_ok()).count(), 20);
        clock.advance(3_600_000);
        assert!(abuse.send_letter(&[1], from(99)).is_ok());
        assert_eq!(
            (0..4).map(|_| abuse.send_letter(&[1], from(1))).find_map(Result::err).map(|p| p.code()),
            Some(Code::RateLimited)
        );
        abuse.sweep(clock.now().plus(3_600_000));
        assert!(abuse.0.letters.windows.is_empty());
    }
}
