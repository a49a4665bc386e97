//! Many histories: on several threads, with one sum, and a verdict on the run as a whole.
//!
//! A run fails when a history breaks an invariant, when two runs of one seed differ, when a rare situation was never met
//! although the run was large enough to expect it, or when too few requests had a certain answer: such a run proves nothing.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::broken::Broken;
use crate::check::Violation;
use crate::cluster::Cluster;
use crate::story::Answers;
use crate::tally::{Tally, sometimes};
use crate::time::SECOND;
use crate::world::{Outcome, World};

/// From how many seeds on each rare situation must have been met.
pub fn seeds_to_meet_all(owners: usize) -> u64 {
    if owners == 1 { 2_000 } else { 1_000 }
}

/// Of a hundred wishes of a run so many must have had a certain answer that arrived. It is asked of the run: a single history may be a bad
/// one. It is asked of wishes: whoever finds nobody asks again and again, and would count the more the longer he waits.
const CERTAIN_PERCENT: u64 = 70;
/// From so many seeds on.
const SEEDS_TO_BE_CERTAIN: u64 = 200;
/// Each of so many seeds is run twice.
const TWICE_EVERY: u64 = 100;
/// The most failures that are collected before a run stops.
const FAILURES_MAX: usize = 5;

/// The seeds that once failed with so many nodes, replayed first for ever; or the line that says nothing.
pub fn regressions(owners: usize) -> Result<Vec<u64>, String> {
    let all = read_regressions(include_str!("../regressions.txt"))?;
    Ok(all.into_iter().filter(|(_, of)| *of == owners).map(|(seed, _)| seed).collect())
}

/// Each seed with its number of nodes. One a line, in the words of the command that replays it: `384`, or `384 --owners 3`. What
/// follows a `#` is for people.
fn read_regressions(text: &str) -> Result<Vec<(u64, usize)>, String> {
    let mut all = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split('#').next().unwrap_or_default().split_whitespace().collect();
        let (seed, owners) = match words[..] {
            [] => continue,
            [seed] => (seed, "1"),
            [seed, "--owners", owners] => (seed, owners),
            _ => return Err(format!("regressions.txt: {line}")),
        };
        match (seed.parse(), owners.parse()) {
            (Ok(seed), Ok(owners @ 1..=3)) => all.push((seed, owners)),
            _ => return Err(format!("regressions.txt: {line}")),
        }
    }
    Ok(all)
}

/// A seed whose history broke a rule.
#[derive(Debug, Clone)]
pub struct Failure {
    pub seed: u64,
    pub violation: Violation,
}

/// What a run came to.
#[derive(Debug, Default)]
pub struct Total {
    pub owners: usize,
    pub seeds: u64,
    pub twice: u64,
    pub events: u64,
    pub simulated_s: u64,
    pub answers: Answers,
    pub tally: Tally,
    pub failures: Vec<Failure>,
}

impl Total {
    fn add(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        self.events += outcome.events;
        self.simulated_s += (outcome.simulated / SECOND) as u64;
        self.answers.add(outcome.answers);
        self.tally.add(&outcome.tally);
    }

    fn merge(&mut self, other: Total) {
        self.seeds += other.seeds;
        self.twice += other.twice;
        self.events += other.events;
        self.simulated_s += other.simulated_s;
        self.answers.add(other.answers);
        self.tally.add(&other.tally);
        self.failures.extend(other.failures);
    }

    /// The rare situations that this run should have met and did not.
    pub fn missing(&self) -> Vec<&'static str> {
        let enough = self.seeds >= seeds_to_meet_all(self.owners);
        if enough { self.tally.never(&sometimes(self.owners)) } else { Vec::new() }
    }

    /// Why the run proves nothing, if that is so: most of those who asked never knew where they stood.
    pub fn proves_nothing(&self) -> Option<String> {
        let Answers { wishes, certain_wishes, .. } = self.answers;
        let few = self.seeds >= SEEDS_TO_BE_CERTAIN && certain_wishes * 100 < wishes * CERTAIN_PERCENT;
        few.then(|| {
            format!("{certain_wishes} of {wishes} wishes had a certain answer, less than {CERTAIN_PERCENT} %")
        })
    }
}

thread_local! {
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Panics inside a history become its verdict; where they happened is kept for the report.
pub fn keep_panics_quiet() {
    std::panic::set_hook(Box::new(|info| {
        LAST_PANIC.with_borrow_mut(|last| *last = info.to_string());
    }));
}

/// Plays one seed. A panic, of the product or of the simulation, is a broken rule like any other.
pub fn play(seed: u64, owners: usize, broken: Option<Broken>, aloud: bool) -> Result<Outcome, Violation> {
    let play = || match owners {
        1 => World::new(seed, broken, aloud).play(),
        many => Cluster::new(seed, many, broken, aloud).play(),
    };
    catch_unwind(AssertUnwindSafe(play))
        .map_err(|_| Violation { invariant: "panic", what: LAST_PANIC.with_borrow(String::clone) })
}

/// Plays one seed into a sum; every hundredth twice.
fn judge(seed: u64, owners: usize, broken: Option<Broken>, total: &mut Total) {
    let violation = match play(seed, owners, broken, false) {
        Err(violation) => Some(violation),
        Ok(outcome) => {
            total.add(&outcome);
            let again = seed.is_multiple_of(TWICE_EVERY).then(|| play(seed, owners, broken, false));
            total.twice += u64::from(again.is_some());
            let differs = |what| Violation { invariant: "the same seed, the same trace", what };
            match (outcome.verdict, again) {
                (Err(violation), _) => Some(violation),
                (Ok(()), Some(Ok(again))) if again.trace != outcome.trace => {
                    Some(differs(format!("{:016x} and {:016x}", outcome.trace, again.trace)))
                }
                (Ok(()), Some(Err(again))) => {
                    Some(differs(format!("then {}: {}", again.invariant, again.what)))
                }
                _ => None,
            }
        }
    };
    total.failures.extend(violation.map(|violation| Failure { seed, violation }));
}

/// Plays these seeds on so many threads. `watch` hears the number of seeds played so far.
pub fn run(seeds: &[u64], owners: usize, jobs: usize, watch: impl Fn(u64) + Sync) -> Total {
    let (next, done, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let sum = Mutex::new(Total { owners, ..Total::default() });
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                let mut total = Total::default();
                while !stop.load(Ordering::Relaxed) {
                    let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) else { break };
                    judge(*seed, owners, None, &mut total);
                    watch(done.fetch_add(1, Ordering::Relaxed) + 1);
                    if total.failures.len() >= FAILURES_MAX {
                        stop.store(true, Ordering::Relaxed);
                    }
                }
                sum.lock().unwrap_or_else(PoisonError::into_inner).merge(total);
            });
        }
    });
    let mut total = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    total.failures.sort_by_key(|failure| failure.seed);
    total
}

/// Plays seeds with a safeguard taken out until one of them notices what hangs on it: how many it took, and what was noticed.
pub fn hunt(broken: Broken, from: u64, seeds: u64) -> Option<(u64, Failure)> {
    let owners = if broken.is_of_many() { 3 } else { 1 };
    (from..from.saturating_add(seeds)).find_map(|seed| {
        let violation = match play(seed, owners, Some(broken), false) {
            Err(violation) => violation,
            Ok(outcome) => outcome.verdict.err()?,
        };
        broken.breaks(violation.invariant).then_some((seed - from + 1, Failure { seed, violation }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_tells_the_same_story_twice_and_a_good_one() {
        for seed in 1..=4 {
            let (first, again) = (play(seed, 1, None, false).unwrap(), play(seed, 1, None, false).unwrap());
            assert_eq!(first.trace, again.trace, "seed {seed}");
            assert_eq!(first.verdict, Ok(()), "seed {seed}");
            assert!(first.tally.faults_in_all() >= crate::scenario::FAULTS_MIN, "seed {seed}");
        }
    }

    #[test]
    fn two_and_three_nodes_tell_good_stories_too() {
        for (seed, owners) in [(1, 2), (2, 3), (3, 3)] {
            let play = || play(seed, owners, None, false).unwrap();
            let (first, again) = (play(), play());
            assert_eq!(first.trace, again.trace, "seed {seed}, {owners} nodes");
            assert_eq!(first.verdict, Ok(()), "seed {seed}, {owners} nodes");
        }
    }

    #[test]
    fn a_regression_is_of_one_node_unless_it_says_of_how_many() {
        let text = "# Words.\n384\n  7 # late\n\n9 --owners 3 # a move\n";
        assert_eq!(read_regressions(text), Ok(vec![(384, 1), (7, 1), (9, 3)]));
        for line in ["x", "9 3", "9 --owners", "9 --owners 4", "9 --owners 0", "-9"] {
            assert!(read_regressions(line).is_err(), "{line}");
        }
        assert!((1..=3).all(|owners| regressions(owners).is_ok()));
    }

    #[test]
    fn a_run_in_which_most_were_left_in_the_dark_proves_nothing() {
        let total = |seeds, certain_wishes| {
            let answers = Answers { wishes: 1_000, certain_wishes, ..Answers::default() };
            Total { owners: 1, seeds, answers, ..Total::default() }
        };
        assert_eq!(total(200, 700).proves_nothing(), None);
        assert!(total(200, 699).proves_nothing().is_some());
        assert_eq!(total(199, 0).proves_nothing(), None, "a few may all be bad ones");
    }

    #[test]
    fn an_early_yes_is_noticed() {
        assert!(hunt(Broken::AckBeforeWrite, 1, 20).is_some());
    }
}
