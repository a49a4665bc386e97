//! How often accounts may be tried, and how many letters a stranger may cause.
//!
//! Each window is exact: it remembers when its last few were taken, so that *five in a quarter of an hour* means any
//! quarter of an hour. Whoever comes holds his places before anything is done, and they are taken or free again when it is known
//! what came of it: a failure counts if the password was wrong, a letter if one was written, and nothing counts of what was
//! answered with *nothing was done*; of a sign-up whose password is refused the address pays, and no reader. A hundred at once hold
//! their places before one of them is judged. Whoever finds all places held, but not lost, waits a second and not a quarter of an
//! hour: so much for a hasty finger on a slow day.
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

use self::windows::{JUDGED_WITHIN_MS, Windows};
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
/// Such as only an operator's list knows: looking one up costs a hash thread some reads, and no letter is written.
const PASSWORDS_OF_ADDRESS: Policy =
    Policy { name: "refused passwords from an address", most: 60, window: HOUR };
/// A whole office behind one address, each with a phone that wakes up.
const REFRESHES_OF_ADDRESS: Policy = Policy { name: "refreshes from an address", most: 600, window: HOUR };
/// Webhooks of the payment provider, in a second: whoever else sends them has no signature, and is not asked about anything.
const WEBHOOKS: Policy = Policy { name: "webhooks", most: 2_000, window: Duration::from_secs(1) };
const EXPORTS: Policy = Policy { name: "exports", most: 5, window: HOUR };
/// Of one person: each walks along all of their orders, several times.
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
    windows: Windows,
    everybody: DefaultDirectRateLimiter,
    webhooks: DefaultDirectRateLimiter,
    asked: AtomicU64,
}

/// What is counted, and of whom: a place in that window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    Failure(Tried, Option<Neighbourhood>),
    FailureFrom(Neighbourhood),
    LogIn(Looker),
    Letter(Tried),
    LetterFrom(Neighbourhood),
    LinkFrom(Neighbourhood),
    PasswordFrom(Neighbourhood),
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
    /// The new password was not taken.
    Weak,
}

impl Place {
    /// How many there are, and what whoever finds none is told.
    fn rule(self) -> (Policy, &'static str) {
        match self {
            Place::Failure(..) => (FAILURES, FAILED_OFTEN),
            Place::FailureFrom(_) => (FAILURES_OF_ADDRESS, FAILED_OFTEN),
            Place::LogIn(_) => (LOG_INS, "Too many log in from here."),
            Place::Letter(_) => (LETTERS, "Too many letters were asked for to this address."),
            Place::LetterFrom(_) => (LETTERS_OF_ADDRESS, "Too many letters were asked for from here."),
            Place::LinkFrom(_) => (LINKS_OF_ADDRESS, "Too many links were tried from here."),
            Place::PasswordFrom(_) => (PASSWORDS_OF_ADDRESS, "Too many new passwords were refused here."),
            Place::RefreshFrom(_) => (REFRESHES_OF_ADDRESS, "Too many refreshes come from here."),
            Place::Export(_) => (EXPORTS, "Your data was exported a moment ago."),
            Place::ExportAtOnce(_) => (EXPORTS_AT_ONCE, "Your data is being exported."),
            Place::Profile(_) => (PROFILES, "This profile changes too often."),
        }
    }

    /// Whether it is an address's that has no caps.
    fn is_exempt(self) -> bool {
        match self {
            Place::FailureFrom(from)
            | Place::LetterFrom(from)
            | Place::LinkFrom(from)
            | Place::PasswordFrom(from)
            | Place::RefreshFrom(from) => from.is_exempt,
            Place::Failure(..)
            | Place::LogIn(_)
            | Place::Letter(_)
            | Place::Export(_)
            | Place::ExportAtOnce(_)
            | Place::Profile(_) => false,
        }
    }

    /// Whether it is taken when this came of it.
    fn counts(self, outcome: Outcome) -> bool {
        match self {
            Place::Failure(..) | Place::FailureFrom(_) => outcome == Outcome::Failed,
            // No letter goes out for whoever does not know the password, or may not have the one that he wants.
            Place::Letter(_) | Place::LetterFrom(_) => outcome == Outcome::Done,
            Place::PasswordFrom(_) => outcome == Outcome::Weak,
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
            Err(Unable::Weak(_)) => Outcome::Weak,
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
        let Inner { windows, clock, .. } = &*self.abuse.0;
        for place in &self.places {
            windows.judge(*place, place.counts(self.outcome).then(|| clock.now()));
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
            windows: Windows::default(),
            everybody: per_second(EVERYBODY),
            webhooks: per_second(WEBHOOKS),
            asked: AtomicU64::new(1),
        }))
    }

    /// Holds all of these places, or none. Whoever finds one of his own missing takes nothing of what is everybody's.
    fn hold(&self, places: &[Place]) -> Result<Attempt, Problem> {
        let (now, windows) = (self.0.clock.now(), &self.0.windows);
        let counted = || places.iter().copied().filter(|place| !place.is_exempt());
        counted().try_for_each(|place| windows.look(place, now))?;
        self.admit(now)?;
        let held = Vec::with_capacity(places.len());
        let mut attempt = Attempt { abuse: self.clone(), places: held, outcome: Outcome::Nothing };
        for place in counted() {
            windows.hold(place, now)?;
            attempt.places.push(place);
        }
        attempt.outcome = Outcome::Done;
        Ok(attempt)
    }

    /// Takes one of everybody's.
    fn admit(&self, now: Millis) -> Result<(), Problem> {
        if self.0.asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(SWEEP_EVERY) {
            self.0.windows.sweep(now);
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

    /// Before a letter is written to a newcomer, whose password may be refused first.
    pub fn sign_up(&self, to: &[Tried], from: Neighbourhood) -> Result<Attempt, Problem> {
        let readers = to.iter().copied().map(Place::Letter);
        let places = [Place::LetterFrom(from), Place::PasswordFrom(from)];
        self.hold(&places.into_iter().chain(readers).collect::<Vec<_>>())
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
    use crate::domain::user::WeakPassword;
    use crate::http::problem::Code;
    use crate::peer::Client;

    fn from(last: u8) -> Neighbourhood {
        Neighbourhood::of([203, 0, 113, last].into())
    }

    const WRONG: Result<(), Unable> = Err(Unable::WrongPassword);

    fn fails(abuse: &Abuse, account: Tried, at: Neighbourhood) -> bool {
        abuse.try_password(account, at).map(|mut attempt| attempt.judge(&WRONG)).is_ok()
    }

    /// How many windows of a kind there are.
    fn windows(abuse: &Abuse, kind: impl Fn(&Place) -> bool) -> usize {
        abuse.0.windows.0.iter().filter(|window| kind(window.key())).count()
    }

    fn is_failure(place: &Place) -> bool {
        matches!(place, Place::Failure(..))
    }

    fn is_letter(place: &Place) -> bool {
        matches!(place, Place::Letter(_))
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
            let mut window = abuse.0.windows.0.get_mut(&Place::Failure(1, Some(from(1))))?;
            window.wait_ms(FAILURES, now)
        };
        let mut running: Vec<_> = (0..5).filter_map(|_| abuse.try_password(1, from(1)).ok()).collect();
        assert_eq!(wait(&abuse), Some(JUDGED_WITHIN_MS));
        running.pop();
        assert_eq!(wait(&abuse), None);
        running.drain(..).for_each(|mut attempt| attempt.judge(&WRONG));
        assert!(fails(&abuse, 1, from(1)), "the fifth failure");
        assert!(wait(&abuse).is_some_and(|ms| ms > 890_000), "all five are lost");
        abuse.0.windows.sweep(abuse.0.clock.now().plus(900_000));
        assert_eq!(windows(&abuse, is_failure), 0);
        let held = abuse.try_password(1, from(1));
        abuse.0.windows.sweep(abuse.0.clock.now().plus(900_000));
        assert_eq!(windows(&abuse, is_failure), 1, "one that is being judged is not forgotten");
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
        abuse.0.windows.sweep(abuse.0.clock.now().plus(3_600_000));
        assert_eq!(windows(&abuse, |place| is_failure(place) || matches!(place, Place::LogIn(_))), 0);
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
        abuse.0.windows.sweep(clock.now().plus(3_600_000));
        assert_eq!(windows(&abuse, is_letter), 0);
    }

    #[test]
    fn an_address_has_sixty_new_passwords_refused_and_no_reader_pays_for_them() {
        let clock = Clock::start();
        let abuse = Abuse::new(clock.clone());
        let weak: Result<(), Unable> = Err(Unable::Weak(WeakPassword::Breached));
        let refused = |at| abuse.sign_up(&[1, 2], at).map(|mut attempt| attempt.judge(&weak)).is_ok();
        assert_eq!((0..99).filter(|_| refused(from(1))).count(), 60);
        assert!(abuse.send_letter(&[3], from(1)).is_ok(), "other letters are other places");
        let home = Neighbourhood::of([127, 0, 0, 1].into());
        assert!((0..99).all(|_| refused(home)) && refused(from(2)), "from elsewhere");
        let signed_up = (0..9).filter(|_| abuse.sign_up(&[1, 2], from(3)).is_ok()).count();
        assert_eq!(signed_up, LETTERS.most as usize);
        clock.advance(3_600_000);
        assert!(refused(from(1)));
        abuse.0.windows.sweep(clock.now().plus(3_600_000));
        assert_eq!(windows(&abuse, |place| matches!(place, Place::PasswordFrom(_))), 0);
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
        let exports = windows(&abuse, |place| matches!(place, Place::Export(_)));
        assert_eq!(exports, everybody, "who is turned away is not remembered");
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
                abuse.sign_up(&[1, 2], from(1)),
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
        let letters = abuse.0.windows.0.iter().filter(|window| is_letter(window.key()));
        let taken = letters.map(|window| window.taken.len()).sum::<usize>();
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
