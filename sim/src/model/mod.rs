//! The protocol of many nodes as a model, every state of which is looked at: who is dead, who may write, what became of
//! a lost group. The simulator plays what is likely and much of what is not; this plays everything, in a small world.
//!
//! `observation` has the time and proves when a process may be declared dead; `ownership` has everything else and no time at all.
//! `without` lists the safeguards, each of which is taken out to see what its absence does.

pub mod check;
pub mod moves;
pub mod observation;
pub mod ownership;
pub mod rule;
pub mod sight;
pub mod state;
pub mod without;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use check::{Searched, search};
use observation::{Observation, WATCHERS_MAX};
use ownership::{Ownership, Setting};
use without::{GROUPS, MOVES, Place, Without};

/// Groups, unknown outcomes, take-overs, over two shards: two nodes and a restart.
const GROUPS_OF_TWO: Setting =
    Setting { name: GROUPS, nodes: 2, restarts: 1, shards: 2, epochs: 3, entries: 2, moves: false };
/// Flushes and hand-overs as well, of one shard.
const MOVES_OF_TWO: Setting =
    Setting { name: MOVES, nodes: 2, restarts: 1, shards: 1, epochs: 4, entries: 2, moves: true };

/// One search: a model in a world of some size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Search {
    Ownership(Setting, Option<Without>),
    /// With so many processes.
    Observation(usize, Option<Without>),
}

impl Search {
    /// The whole protocol among two nodes and a restart, or among three and a restart, who then write less.
    pub fn whole(three_nodes: bool) -> Vec<Search> {
        let grown = |setting: Setting| Setting { nodes: 3, entries: 1, ..setting };
        let sized = |setting: Setting| if three_nodes { grown(setting) } else { setting };
        vec![
            Search::Ownership(sized(MOVES_OF_TWO), None),
            Search::Ownership(sized(GROUPS_OF_TWO), None),
            Search::Observation(WATCHERS_MAX, None),
        ]
    }

    /// The protocol without this safeguard, in the smallest world that has all it needs.
    pub fn without(safeguard: Without) -> Search {
        match safeguard.place() {
            Place::Ownership(GROUPS) => {
                Search::Ownership(Setting { entries: 1, ..GROUPS_OF_TWO }, Some(safeguard))
            }
            Place::Ownership(_) => Search::Ownership(Setting { epochs: 3, ..MOVES_OF_TWO }, Some(safeguard)),
            Place::Observation => Search::Observation(2, Some(safeguard)),
        }
    }

    pub fn safeguard(&self) -> Option<Without> {
        match *self {
            Search::Ownership(_, without) | Search::Observation(_, without) => without,
        }
    }

    /// What is searched, in a few words.
    pub fn name(&self) -> String {
        match (self.safeguard(), self) {
            (Some(without), _) => format!("without {}", without.word()),
            (None, Search::Ownership(setting, _)) => setting.to_string(),
            (None, Search::Observation(processes, _)) => {
                format!("observation: {processes} processes, for ever")
            }
        }
    }

    pub fn run(&self) -> Searched {
        match *self {
            Search::Ownership(setting, without) => search(Ownership::new(setting, without)),
            Search::Observation(processes, without) => search(Observation::new(processes, without)),
        }
    }
}

/// Runs these searches, each on one thread, so many at a time. `hear` is told of each in the order of the list.
pub fn run(
    searches: &[Search],
    jobs: usize,
    nanos: impl Fn() -> u64 + Sync,
    hear: impl FnMut(&Search, &Searched, u64) + Send,
) {
    let next = AtomicUsize::new(0);
    let nobody_yet: Vec<Option<(Searched, u64)>> = vec![None; searches.len()];
    let told = Mutex::new((0, nobody_yet, hear));
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(search) = searches.get(at) else { break };
                    let began = nanos();
                    let searched = search.run();
                    let took_ms = (nanos() - began) / 1_000_000;
                    let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
                    let (due, done, hear) = &mut *told;
                    done[at] = Some((searched, took_ms));
                    while let Some(Some((searched, took_ms))) = done.get(*due) {
                        hear(&searches[*due], searched, *took_ms);
                        *due += 1;
                    }
                }
            });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::without::Shows;
    use super::*;

    /// Small enough for a build that is not optimised.
    fn small(search: Search) -> Search {
        match search {
            Search::Ownership(setting, without) => {
                Search::Ownership(Setting { nodes: 2, shards: 1, epochs: 3, entries: 1, ..setting }, without)
            }
            Search::Observation(_, without) => Search::Observation(2, without),
        }
    }

    #[test]
    fn the_whole_protocol_holds_in_a_small_world() {
        for search in Search::whole(false).into_iter().map(small) {
            assert_eq!(search.run().as_expected(None), Ok(()), "{}", search.name());
        }
    }

    #[test]
    fn each_safeguard_is_missed_when_it_is_taken_out() {
        for without in Without::ALL.iter().copied().filter(|without| without.shows() != Shows::Nothing) {
            let mut search = small(Search::without(without));
            if let (Search::Ownership(setting, _), Without::FlushWithoutCompare) = (&mut search, without) {
                setting.entries = 2;
            }
            assert_eq!(search.run().as_expected(Some(without)), Ok(()), "{}", without.word());
        }
    }

    #[test]
    fn two_searches_agree_in_every_number() {
        let search = small(Search::without(Without::ReadBeforeSeal));
        assert_eq!(search.run(), search.run());
    }

    #[test]
    fn a_counterexample_is_a_story() {
        let searched = small(Search::without(Without::UnknownIsFailure)).run();
        let story = searched.broken.map(|(_, story)| story.join("\n")).unwrap_or_default();
        let expected = "\
A decides and begins a group for shard 1: entry 1
A sends COMMIT
A's connection breaks; it does not know what became of its group
the ledger commits A's transaction of its lost connection
A tells its clients: not executed";
        assert_eq!(story, expected);
    }
}
