//! How often accounts may be tried, and how many letters a stranger may cause.
//!
//! Each window is exact: it remembers when its last few were taken, so that *five in a quarter of an hour* means any
//! quarter of an hour. A log-in holds a place before the password is looked at, and the place is free again unless it was
//! wrong: what counts is failures, and a hundred at once hold their places before one of them is judged. Whoever finds all
//! places held, but not lost, waits a second and not a quarter of an hour: so much for a hasty finger on a slow day.
//! Failures count for an account and an address together, so nobody locks out a victim from another network. Over all
//! stands a limit on everybody, which also bounds how much is remembered here; whoever has used up his own takes nothing of it.

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
/// Right ones as well: looking at a password costs the same whatever comes of it.
const LOG_INS_OF_ADDRESS: Policy =
    Policy { name: "log-ins from an address", most: 300, window: QUARTER_HOUR };
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

const FAILED_OFTEN: &str =
    "Too many log-ins have failed, or are still looked at: wait, or reset the password.";

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
    /// What whoever finds no place is told.
    about: &'static str,
    windows: DashMap<K, Window>,
}

impl<K: Eq + Hash + Copy> Windows<K> {
    fn new(policy: Policy, about: &'static str) -> Windows<K> {
        Windows { policy, about, windows: DashMap::new() }
    }

    fn window_ms(&self) -> i64 {
        i64::try_from(self.policy.window.as_millis()).unwrap_or(i64::MAX)
    }

    /// How many milliseconds it takes until the window has a place, if it has none.
    fn wait_ms(&self, window: &mut Window, now: Millis) -> Option<u64> {
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
    fn look(&self, key: K, now: Millis) -> Result<(), Problem> {
        let wait_ms = self.windows.get_mut(&key).and_then(|mut window| self.wait_ms(&mut window, now));
        wait_ms.map_or(Ok(()), |wait_ms| Err(self.full(wait_ms)))
    }

    fn with_a_place(&self, key: K, now: Millis) -> Result<RefMut<'_, K, Window>, Problem> {
        let mut window = self.windows.entry(key).or_default();
        match self.wait_ms(&mut window, now) {
            Some(wait_ms) => Err(self.full(wait_ms)),
            None => Ok(window),
        }
    }

    /// Takes a place in the key's window.
    fn take(&self, key: K, now: Millis) -> Result<(), Problem> {
        self.with_a_place(key, now)?.taken.push_back(now);
        Ok(())
    }

    /// Holds a place in the key's window until [`Windows::judge`] says whether it is taken.
    fn hold(&self, key: K, now: Millis) -> Result<(), Problem> {
        self.with_a_place(key, now)?.held += 1;
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

/// Windows of addresses, of which some are not counted.
struct Addresses(Windows<Neighbourhood>);

impl Addresses {
    fn new(policy: Policy, about: &'static str) -> Addresses {
        Addresses(Windows::new(policy, about))
    }

    fn look(&self, from: Neighbourhood, now: Millis) -> Result<(), Problem> {
        if from.is_exempt { Ok(()) } else { self.0.look(from, now) }
    }

    fn take(&self, from: Neighbourhood, now: Millis) -> Result<(), Problem> {
        if from.is_exempt { Ok(()) } else { self.0.take(from, now) }
    }

    fn hold(&self, from: Neighbourhood, now: Millis) -> Result<(), Problem> {
        if from.is_exempt { Ok(()) } else { self.0.hold(from, now) }
    }

    fn judge(&self, from: Neighbourhood, taken: Option<Millis>) {
        if !from.is_exempt {
            self.0.judge(from, taken);
        }
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
    failures_of_address: Addresses,
    log_ins_of_address: Addresses,
    letters: Windows<Tried>,
    letters_of_address: Addresses,
    links_of_address: Addresses,
    refreshes_of_address: Addresses,
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
        failures_of_address.judge(self.from, self.failed);
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
            failures: Windows::new(FAILURES, FAILED_OFTEN),
            failures_of_address: Addresses::new(FAILURES_OF_ADDRESS, FAILED_OFTEN),
            log_ins_of_address: Addresses::new(LOG_INS_OF_ADDRESS, "Too many log in from here."),
            letters: Windows::new(LETTERS, "Too many letters were asked for to this address."),
            letters_of_address: Addresses::new(
                LETTERS_OF_ADDRESS,
                "Too many letters were asked for from here.",
            ),
            links_of_address: Addresses::new(LINKS_OF_ADDRESS, "Too many links were tried from here."),
            refreshes_of_address: Addresses::new(REFRESHES_OF_ADDRESS, "Too many refreshes come from here."),
            exports: Windows::new(EXPORTS, "Your data was exported a moment ago."),
            everybody: per_second(EVERYBODY),
            webhooks: per_second(WEBHOOKS),
            asked: AtomicU64::new(1),
        }))
    }

    /// Takes a place of everybody's for somebody whose own windows have one, as `own` sees it: whoever has none left takes nothing from
    /// the others.
    fn admit(&self, own: impl FnOnce(Millis) -> Result<(), Problem>) -> Result<Millis, Problem> {
        let now = self.0.clock.now();
        own(now)?;
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
        all.failures_of_address.0.sweep(now);
        all.log_ins_of_address.0.sweep(now);
        all.letters.sweep(now);
        all.letters_of_address.0.sweep(now);
        all.links_of_address.0.sweep(now);
        all.refreshes_of_address.0.sweep(now);
        all.exports.sweep(now);
    }

    /// Before a password is looked at.
    pub fn try_password(&self, account: Tried, from: Neighbourhood) -> Result<Attempt, Problem> {
        let Inner { failures, failures_of_address, log_ins_of_address, .. } = &*self.0;
        let now = self.admit(|now| {
            failures.look((account, from), now)?;
            failures_of_address.look(from, now)?;
            log_ins_of_address.look(from, now)
        })?;
        failures.hold((account, from), now)?;
        if let Err(problem) = failures_of_address.hold(from, now) {
            failures.judge((account, from), None);
            return Err(problem);
        }
        let attempt = Attempt { abuse: self.clone(), account, from, failed: None };
        log_ins_of_address.take(from, now)?;
        Ok(attempt)
    }

    /// Before a letter is written to somebody who may not have asked for it.
    pub fn send_letter(&self, to: &[Tried], from: Neighbourhood) -> Result<(), Problem> {
        let Inner { letters, letters_of_address, .. } = &*self.0;
        let now = self.admit(|now| {
            letters_of_address.look(from, now)?;
            to.iter().try_for_each(|to| letters.look(*to, now))
        })?;
        letters_of_address.take(from, now)?;
        to.iter().try_for_each(|to| letters.take(*to, now))
    }

    /// Before a refresh token is looked up.
    pub fn refresh(&self, from: Neighbourhood) -> Result<(), Problem> {
        let now = self.admit(|now| self.0.refreshes_of_address.look(from, now))?;
        self.0.refreshes_of_address.take(from, now)
    }

    /// Before a mailed link is looked up.
    pub fn follow_link(&self, from: Neighbourhood) -> Result<(), Problem> {
        let now = self.admit(|now| self.0.links_of_address.look(from, now))?;
        self.0.links_of_address.take(from, now)
    }

    /// Before all that is known of a person is put together.
    pub fn export(&self, user: UserId) -> Result<(), Problem> {
        let now = self.admit(|now| self.0.exports.look(user, now))?;
        self.0.exports.take(user, now)
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
        self.admit(|_| Ok(())).map(drop)
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
        let wait = |abuse: &Abuse| {
            let mut window = abuse.0.failures.windows.get_mut(&(1, from(1)))?;
            abuse.0.failures.wait_ms(&mut window, now)
        };
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

    #[test]
    fn an_address_looks_at_three_hundred_passwords_right_ones_too() {
        let abuse = Abuse::new(Clock::start());
        assert_eq!((0..400).filter(|account| abuse.try_password(*account, from(1)).is_ok()).count(), 300);
        assert!(abuse.try_password(1, from(2)).is_ok());
    }

    #[test]
    fn who_has_used_up_his_own_takes_nothing_from_everybody() {
        let abuse = Abuse::new(Clock::start());
        let most = REFRESHES_OF_ADDRESS.most as usize;
        assert_eq!((0..50_000).filter(|_| abuse.refresh(from(1)).is_ok()).count(), most);
        assert!((0..200).all(|at| abuse.refresh(from(at + 2)).is_ok()), "there is room for others");
        let everybody =
            (0..10_000_u128).filter(|to| abuse.export(UserId::new(Millis(0), *to)).is_ok()).count();
        assert!(everybody < 2 * EVERYBODY.most as usize, "{everybody}");
        assert_eq!(abuse.0.exports.windows.len(), everybody, "who is turned away is not remembered");
    }
}
