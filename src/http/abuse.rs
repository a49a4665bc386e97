//! How often accounts may be tried, and how many letters a stranger may cause.
//!
//! Each window is exact: it remembers when its last few were taken, so that *five in a quarter of an hour* means any
//! quarter of an hour. Whoever comes holds his places before anything is done, and they are taken or free again when it is known
//! what came of it: a failure counts if the password was wrong, a letter if one was written, and nothing counts of what was
//! answered with *nothing was done*. A hundred at once hold their places before one of them is judged. Whoever finds all
//! places held, but not lost, waits a second and not a quarter of an hour: so much for a hasty finger on a slow day.
//! Failures count for an account and an address together, so nobody locks out a victim from another network. Whoever has no caps of an
//! address, for nobody knows who it is, is counted by account alone, and all of them are one place. Over all
//! stands a limit on everybody, which also bounds how much is remembered here; whoever has used up his own takes nothing of it.

mod windows;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::{Clock as _, QuantaClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use self::windows::{Addresses, JUDGED_WITHIN_MS, Windows};
use super::client::Neighbourhood;
use super::problem::Problem;
use super::rate::{Policy, too_many};
use crate::actors::user::Unable;
use crate::clock::Clock;
use crate::domain::id::UserId;
use crate::domain::stock::Millis;

const QUARTER_HOUR: Duration = Duration::from_secs(15 * 60);
const HOUR: Duration = Duration::from_secs(3_600);

const FAILURES: Policy = Policy { name: "log-in failures", most: 5, window: QUARTER_HOUR };
const FAILURES_OF_ADDRESS: Policy =
    Policy { name: "log-in failures of an address", most: 20, window: QUARTER_HOUR };
/// Right ones as well: looking at a password costs the same whatever comes of it.
const LOG_INS: Policy = Policy { name: "log-ins", most: 300, window: QUARTER_HOUR };
const LETTERS: Policy = Policy { name: "letters to a recipient", most: 3, window: HOUR };
const LETTERS_OF_ADDRESS: Policy = Policy { name: "letters from an address", most: 20, window: HOUR };
const LINKS_OF_ADDRESS: Policy = Policy { name: "links from an address", most: 60, window: HOUR };
/// A whole office behind one address, each with a phone that wakes up.
const REFRESHES_OF_ADDRESS: Policy = Policy { name: "refreshes from an address", most: 600, window: HOUR };
/// Webhooks of the payment provider, in a second: whoever else sends them has no signature, and is not asked about anything.
const WEBHOOKS: Policy = Policy { name: "webhooks", most: 2_000, window: Duration::from_secs(1) };
const EXPORTS: Policy = Policy { name: "exports", most: 5, window: HOUR };
/// Of one person: each holds all that is known of them in memory.
const EXPORTS_AT_ONCE: Policy =
    Policy { name: "exports at once", most: 1, window: Duration::from_millis(JUDGED_WITHIN_MS) };
/// Each is a sync, and an entry in the trail that stays.
const PROFILES: Policy = Policy { name: "changes of a profile", most: 60, window: HOUR };
/// Of everybody together, in a second: far above what people do, far below what would drown us.
const EVERYBODY: Policy = Policy { name: "accounts", most: 1_000, window: Duration::from_secs(1) };

const FAILED_OFTEN: &str =
    "Too many log-ins have failed, or are still looked at: wait, or reset the password.";

/// After so many questions the windows of those who have gone are dropped.
const SWEEP_EVERY: u64 = 1 << 12;

/// What an account is tried under: a hash, because the words need not be remembered.
pub type Tried = u128;

/// Where somebody is, unless an address says nothing of that.
fn known(from: Neighbourhood) -> Option<Neighbourhood> {
    (!from.is_exempt).then_some(from)
}

/// Whose log-ins are counted: an address's, or the account's where that says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Looker {
    Address(Neighbourhood),
    Account(Tried),
}

impl Looker {
    fn of(account: Tried, from: Neighbourhood) -> Looker {
        known(from).map_or(Looker::Account(account), Looker::Address)
    }
}

/// The account doors' limits. Cheap to clone.
#[derive(Clone)]
pub struct Abuse(Arc<Inner>);

struct Inner {
    clock: Clock,
    failures: Windows<(Tried, Option<Neighbourhood>)>,
    failures_of_address: Addresses,
    log_ins: Windows<Looker>,
    letters: Windows<Tried>,
    letters_of_address: Addresses,
    links_of_address: Addresses,
    refreshes_of_address: Addresses,
    exports: Windows<UserId>,
    exports_at_once: Windows<UserId>,
    profiles: Windows<UserId>,
    everybody: DefaultDirectRateLimiter,
    webhooks: DefaultDirectRateLimiter,
    asked: AtomicU64,
}

/// A place in one of the windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Failure(Tried, Option<Neighbourhood>),
    FailureFrom(Neighbourhood),
    LogIn(Looker),
    Letter(Tried),
    LetterFrom(Neighbourhood),
    LinkFrom(Neighbourhood),
    RefreshFrom(Neighbourhood),
    Export(UserId),
    ExportAtOnce(UserId),
    Profile(UserId),
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Nothing,
    /// Or nobody knows, because whoever asked has hung up.
    Done,
    /// The password was wrong.
    Failed,
}

impl Place {
    /// Whether it is taken when this came of it.
    fn counts(self, outcome: Outcome) -> bool {
        match self {
            Place::Failure(..) | Place::FailureFrom(_) => outcome == Outcome::Failed,
            // No letter goes out for whoever does not know the password.
            Place::Letter(_) | Place::LetterFrom(_) => outcome == Outcome::Done,
            Place::ExportAtOnce(_) => false,
            Place::LogIn(_)
            | Place::LinkFrom(_)
            | Place::RefreshFrom(_)
            | Place::Export(_)
            | Place::Profile(_) => outcome != Outcome::Nothing,
        }
    }
}

/// What a look at a password holds.
fn password(account: Tried, from: Neighbourhood) -> [Place; 3] {
    [Place::Failure(account, known(from)), Place::FailureFrom(from), Place::LogIn(Looker::of(account, from))]
}

impl Inner {
    /// Whether there is such a place.
    fn look(&self, place: Place, now: Millis) -> Result<(), Problem> {
        match place {
            Place::Failure(account, from) => self.failures.look((account, from), now),
            Place::FailureFrom(from) => self.failures_of_address.look(from, now),
            Place::LogIn(looker) => self.log_ins.look(looker, now),
            Place::Letter(to) => self.letters.look(to, now),
            Place::LetterFrom(from) => self.letters_of_address.look(from, now),
            Place::LinkFrom(from) => self.links_of_address.look(from, now),
            Place::RefreshFrom(from) => self.refreshes_of_address.look(from, now),
            Place::Export(user) => self.exports.look(user, now),
            Place::ExportAtOnce(user) => self.exports_at_once.look(user, now),
            Place::Profile(user) => self.profiles.look(user, now),
        }
    }

    fn hold(&self, place: Place, now: Millis) -> Result<(), Problem> {
        match place {
            Place::Failure(account, from) => self.failures.hold((account, from), now),
            Place::FailureFrom(from) => self.failures_of_address.hold(from, now),
            Place::LogIn(looker) => self.log_ins.hold(looker, now),
            Place::Letter(to) => self.letters.hold(to, now),
            Place::LetterFrom(from) => self.letters_of_address.hold(from, now),
            Place::LinkFrom(from) => self.links_of_address.hold(from, now),
            Place::RefreshFrom(from) => self.refreshes_of_address.hold(from, now),
            Place::Export(user) => self.exports.hold(user, now),
            Place::ExportAtOnce(user) => self.exports_at_once.hold(user, now),
            Place::Profile(user) => self.profiles.hold(user, now),
        }
    }

    fn judge(&self, place: Place, outcome: Outcome) {
        let taken = place.counts(outcome).then(|| self.clock.now());
        match place {
            Place::Failure(account, from) => self.failures.judge((account, from), taken),
            Place::FailureFrom(from) => self.failures_of_address.judge(from, taken),
            Place::LogIn(looker) => self.log_ins.judge(looker, taken),
            Place::Letter(to) => self.letters.judge(to, taken),
            Place::LetterFrom(from) => self.letters_of_address.judge(from, taken),
            Place::LinkFrom(from) => self.links_of_address.judge(from, taken),
            Place::RefreshFrom(from) => self.refreshes_of_address.judge(from, taken),
            Place::Export(user) => self.exports.judge(user, taken),
            Place::ExportAtOnce(user) => self.exports_at_once.judge(user, taken),
            Place::Profile(user) => self.profiles.judge(user, taken),
        }
    }

    fn sweep(&self, now: Millis) {
        self.failures.sweep(now);
        self.failures_of_address.0.sweep(now);
        self.log_ins.sweep(now);
        self.letters.sweep(now);
        self.letters_of_address.0.sweep(now);
        self.links_of_address.0.sweep(now);
        self.refreshes_of_address.0.sweep(now);
        self.exports.sweep(now);
        self.exports_at_once.sweep(now);
        self.profiles.sweep(now);
    }
}

/// Something that is about to be done, and the places that it holds until it has ended. Of whoever hangs up they are taken as
/// if it had been done; only a failure is none, for they have heard nothing.
#[must_use]
pub struct Attempt {
    abuse: Abuse,
    places: Vec<Place>,
    outcome: Outcome,
}

impl Attempt {
    /// What came of it: the places are taken, or free again, when the attempt is dropped.
    pub fn judge<T>(&mut self, heard: &Result<T, Unable>) {
        self.outcome = match heard {
            Err(Unable::WrongPassword) => Outcome::Failed,
            Err(why) if why.nothing_was_done() => Outcome::Nothing,
            _ => Outcome::Done,
        };
    }

    /// Nothing was done.
    pub fn spare(&mut self) {
        self.outcome = Outcome::Nothing;
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        for place in &self.places {
            self.abuse.0.judge(*place, self.outcome);
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
            failures: Windows::new(FAILURES, FAILED_OFTEN),
            failures_of_address: Addresses::new(FAILURES_OF_ADDRESS, FAILED_OFTEN),
            log_ins: Windows::new(LOG_INS, "Too many log in from here."),
            letters: Windows::new(LETTERS, "Too many letters were asked for to this address."),
            letters_of_address: Addresses::new(
                LETTERS_OF_ADDRESS,
                "Too many letters were asked for from here.",
            ),
            links_of_address: Addresses::new(LINKS_OF_ADDRESS, "Too many links were tried from here."),
            refreshes_of_address: Addresses::new(REFRESHES_OF_ADDRESS, "Too many refreshes come from here."),
            exports: Windows::new(EXPORTS, "Your data was exported a moment ago."),
            exports_at_once: Windows::new(EXPORTS_AT_ONCE, "Your data is being exported."),
            profiles: Windows::new(PROFILES, "This profile changes too often."),
            everybody: per_second(EVERYBODY),
            webhooks: per_second(WEBHOOKS),
            asked: AtomicU64::new(1),
        }))
    }

    /// Holds all of these places, or none. Whoever finds one of his own missing takes nothing of what is everybody's.
    fn hold(&self, places: &[Place]) -> Result<Attempt, Problem> {
        let now = self.0.clock.now();
        places.iter().try_for_each(|place| self.0.look(*place, now))?;
        self.admit(now)?;
        let held = Vec::with_capacity(places.len());
        let mut attempt = Attempt { abuse: self.clone(), places: held, outcome: Outcome::Nothing };
        for place in places {
            self.0.hold(*place, now)?;
            attempt.places.push(*place);
        }
        attempt.outcome = Outcome::Done;
        Ok(attempt)
    }

    /// Takes one of everybody's.
    fn admit(&self, now: Millis) -> Result<(), Problem> {
        if self.0.asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(SWEEP_EVERY) {
            self.0.sweep(now);
        }
        self.0.everybody.check().map_err(|until| {
            let wait = until.wait_time_from(QuantaClock::default().now());
            too_many(EVERYBODY, wait.as_millis() as u64, "Too many people are at the door.")
        })
    }

    /// Before a password is looked at.
    pub fn try_password(&self, account: Tried, from: Neighbourhood) -> Result<Attempt, Problem> {
        self.hold(&password(account, from))
    }

    /// Before a letter is written to somebody who may not have asked for it.
    pub fn send_letter(&self, to: &[Tried], from: Neighbourhood) -> Result<Attempt, Problem> {
        let readers = to.iter().copied().map(Place::Letter);
        self.hold(&[Place::LetterFrom(from)].into_iter().chain(readers).collect::<Vec<_>>())
    }

    /// Before a letter is written for somebody whose password is looked at first.
    pub fn send_letter_for(
        &self,
        account: Tried,
        to: Tried,
        from: Neighbourhood,
    ) -> Result<Attempt, Problem> {
        let letter = [Place::LetterFrom(from), Place::Letter(to)];
        self.hold(&password(account, from).into_iter().chain(letter).collect::<Vec<_>>())
    }

    /// Before a refresh token is looked up.
    pub fn refresh(&self, from: Neighbourhood) -> Result<Attempt, Problem> {
        self.hold(&[Place::RefreshFrom(from)])
    }

    /// Before a mailed link is looked up.
    pub fn follow_link(&self, from: Neighbourhood) -> Result<Attempt, Problem> {
        self.hold(&[Place::LinkFrom(from)])
    }

    /// Before all that is known of a person is put together: one at a time.
    pub fn export(&self, user: UserId) -> Result<Attempt, Problem> {
        self.hold(&[Place::Export(user), Place::ExportAtOnce(user)])
    }

    /// Before somebody's profile is changed.
    pub fn change_profile(&self, user: UserId) -> Result<Attempt, Problem> {
        self.hold(&[Place::Profile(user)])
    }

    /// Before the signature of a webhook is looked at.
    pub fn hear(&self) -> Result<(), Problem> {
        self.0.webhooks.check().map_err(|until| {
            let wait = until.wait_time_from(QuantaClock::default().now());
            too_many(WEBHOOKS, wait.as_millis() as u64, "Too many webhooks come at once.")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::problem::Code;
    use crate::peer::Client;

    fn from(last: u8) -> Neighbourhood {
        Neighbourhood::of([203, 0, 113, last].into())
    }

    const WRONG: Result<(), Unable> = Err(Unable::WrongPassword);

    fn fails(abuse: &Abuse, account: Tried, at: Neighbourhood) -> bool {
        abuse.try_password(account, at).map(|mut attempt| attempt.judge(&WRONG)).is_ok()
    }

    fn somebody(number: u128) -> UserId {
        UserId::new(Millis(0), number)
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
            let mut window = abuse.0.failures.windows.get_mut(&(1, Some(from(1))))?;
            abuse.0.failures.wait_ms(&mut window, now)
        };
        let mut running: Vec<_> = (0..5).filter_map(|_| abuse.try_password(1, from(1)).ok()).collect();
        assert_eq!(wait(&abuse), Some(JUDGED_WITHIN_MS));
        running.pop();
        assert_eq!(wait(&abuse), None);
        running.drain(..).for_each(|mut attempt| attempt.judge(&WRONG));
        assert!(fails(&abuse, 1, from(1)), "the fifth failure");
        assert!(wait(&abuse).is_some_and(|ms| ms > 890_000), "all five are lost");
        abuse.0.sweep(abuse.0.clock.now().plus(900_000));
        assert!(abuse.0.failures.windows.is_empty());
        let held = abuse.try_password(1, from(1));
        abuse.0.sweep(abuse.0.clock.now().plus(900_000));
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
    fn where_an_address_says_nothing_an_account_has_its_limits_all_the_same() {
        let abuse = Abuse::new(Clock::start());
        let proxy =
            |last: u8| Neighbourhood::from(Client { address: [10, 0, 0, last].into(), is_exempt: true });
        let home = Neighbourhood::of([127, 0, 0, 1].into());
        let failed = (0..9).filter(|at| fails(&abuse, 1, proxy(*at))).count();
        assert_eq!((failed, fails(&abuse, 1, home)), (5, false), "whichever of ours it comes through");
        assert!(fails(&abuse, 2, proxy(1)) && fails(&abuse, 1, from(1)));
        assert_eq!((0..400).filter(|_| abuse.try_password(3, home).is_ok()).count(), 300);
        assert!(abuse.try_password(3, proxy(1)).is_err() && abuse.try_password(4, proxy(1)).is_ok());
        assert_eq!((0..9).filter(|at| abuse.send_letter(&[5], proxy(*at)).is_ok()).count(), 3);
        abuse.0.sweep(abuse.0.clock.now().plus(3_600_000));
        assert!(abuse.0.failures.windows.is_empty() && abuse.0.log_ins.windows.is_empty());
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
        abuse.0.sweep(clock.now().plus(3_600_000));
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
        let everybody = (0..10_000_u128).filter(|to| abuse.export(somebody(*to)).is_ok()).count();
        assert!(everybody < 2 * EVERYBODY.most as usize, "{everybody}");
        assert_eq!(abuse.0.exports.windows.len(), everybody, "who is turned away is not remembered");
    }

    #[test]
    fn one_person_changes_a_profile_so_often_and_drowns_nobody() {
        let clock = Clock::start();
        let abuse = Abuse::new(clock.clone());
        let most = PROFILES.most as usize;
        let changed = |user| (0..50_000).filter(|_| abuse.change_profile(user).is_ok()).count();
        assert_eq!(changed(somebody(1)), most);
        assert!((0..200).all(|at| abuse.refresh(from(at)).is_ok()), "there is room for others");
        clock.advance(3_600_000);
        assert!(abuse.change_profile(somebody(1)).is_ok());
    }

    #[test]
    fn a_person_has_one_export_at_a_time() {
        let abuse = Abuse::new(Clock::start());
        let running = abuse.export(somebody(1));
        assert!(running.is_ok() && abuse.export(somebody(1)).is_err());
        assert!(abuse.export(somebody(2)).is_ok());
        drop(running);
        assert_eq!((0..9).filter(|_| abuse.export(somebody(1)).is_ok()).count(), 4, "five in all");
    }

    #[test]
    fn what_was_not_done_takes_nothing() {
        let abuse = Abuse::new(Clock::start());
        let nothing = [Unable::Busy { retry_after_ms: 1 }, Unable::Unavailable];
        // Twice as many as the widest of these windows has, and fewer than everybody has in a second.
        for round in 0..80 {
            let attempts = [
                abuse.try_password(1, from(1)),
                abuse.send_letter(&[1, 2], from(1)),
                abuse.send_letter_for(1, 3, from(1)),
                abuse.follow_link(from(1)),
                abuse.export(somebody(1)),
                abuse.change_profile(somebody(1)),
            ];
            for attempt in attempts {
                let mut attempt = attempt.unwrap_or_else(|_| panic!("refused in round {round}"));
                attempt.judge(&Err::<(), _>(nothing[round % 2]));
            }
        }
        let taken = abuse.0.letters.windows.iter().map(|window| window.taken.len()).sum::<usize>();
        assert_eq!(taken, 0);
    }

    #[test]
    fn a_letter_that_waits_for_a_password_counts_when_it_was_right() {
        let abuse = Abuse::new(Clock::start());
        for account in 0..9 {
            let mut attempt =
                abuse.send_letter_for(account, 1, from(1)).unwrap_or_else(|_| panic!("refused"));
            attempt.judge(&WRONG);
        }
        let sent = |account| match abuse.send_letter_for(account, 1, from(2)) {
            Ok(mut attempt) => {
                attempt.judge(&Ok::<_, Unable>(()));
                true
            }
            Err(_) => false,
        };
        assert_eq!((0..9).filter(|account| sent(*account)).count(), LETTERS.most as usize);
        assert!(abuse.send_letter(&[1], from(3)).is_err(), "whoever asks");
    }
}
