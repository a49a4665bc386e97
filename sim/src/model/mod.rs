//! The protocol of many nodes as a model, every state of which is looked at: who is dead, who may write, what became of
//! a lost group. The simulator plays what is likely and much of what is not; this plays everything, in a small world.
//!
//! `observation` has the time and proves when a process may be declared dead. `ownership` has no time at all, and sessions, groups,
//! unknown outcomes and take-overs; `lead` stands on both and has nodes that sell side by side.
//! `without` lists the safeguards, each of which is taken out to see what its absence does.

pub mod check;
pub mod lead;
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
use lead::Leading;
use observation::{Observation, WATCHERS_MAX};
use ownership::{Ownership, Setting};
use without::{GROUPS, KEYS, LEAD_OF_TWO, MOVES, PLACES, Place, SHARDS, Shows, Without};

/// Groups, unknown outcomes, take-overs, over two shards: two nodes and a restart.
const GROUPS_OF_TWO: Setting =
    Setting { name: GROUPS, nodes: 2, restarts: 1, shards: 2, epochs: 3, entries: 2, moves: false };
/// Flushes and hand-overs as well, of one shard.
const MOVES_OF_TWO: Setting =
    Setting { name: MOVES, nodes: 2, restarts: 1, shards: 1, epochs: 4, entries: 2, moves: true };

/// One shard that moves among the lead, the next lead and an owner.
const SHARDS_OF_THREE: lead::Setting = lead::Setting {
    name: SHARDS,
    nodes: 3,
    leads: 2,
    owners: &[2],
    epochs: 3,
    entries: 2,
    moves: true,
    keys: false,
    flushes: false,
};
/// A key, a shard of the lead's own, and one of an owner's.
const KEYS_OF_THREE: lead::Setting = lead::Setting {
    name: KEYS,
    nodes: 3,
    leads: 3,
    owners: &[0, 2],
    epochs: 2,
    entries: 1,
    moves: false,
    keys: true,
    flushes: false,
};
/// A key, a shard of the lead's own, and one of the next lead's.
const KEYS_OF_TWO: lead::Setting =
    lead::Setting { name: LEAD_OF_TWO, nodes: 2, leads: 2, owners: &[0, 1], ..KEYS_OF_THREE };
/// Places and flushes, with an owner that dies.
const PLACES_OF_THREE: lead::Setting = lead::Setting {
    name: PLACES,
    nodes: 3,
    leads: 2,
    owners: &[1, 2],
    epochs: 2,
    entries: 2,
    moves: false,
    keys: false,
    flushes: true,
};
const LEADS: [lead::Setting; 4] = [SHARDS_OF_THREE, KEYS_OF_THREE, KEYS_OF_TWO, PLACES_OF_THREE];

/// The same among two nodes, the second of which has the shard.
fn two_nodes(setting: lead::Setting) -> lead::Setting {
    lead::Setting { nodes: 2, leads: 2, owners: &[1], entries: 1, ..setting }
}

/// One search: a model in a world of some size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Search {
    Ownership(Setting, Option<Without>),
    /// With so many processes.
    Observation(usize, Option<Without>),
    Leading(lead::Setting, Option<Without>),
}

impl Search {
    /// The whole protocol among two nodes and a restart, or among three and a restart, who then write less.
    pub fn whole(three_nodes: bool) -> Vec<Search> {
        let grown = |setting: Setting| Setting { nodes: 3, entries: 1, ..setting };
        let sized = |setting: Setting| if three_nodes { grown(setting) } else { setting };
        let mut whole = vec![
            Search::Ownership(sized(MOVES_OF_TWO), None),
            Search::Ownership(sized(GROUPS_OF_TWO), None),
            Search::Observation(WATCHERS_MAX, None),
        ];
        whole.extend(LEADS.map(|setting| Search::Leading(setting, None)));
        whole
    }

    /// The protocol without this safeguard, in the smallest world that has all it needs.
    pub fn without(safeguard: Without) -> Search {
        match safeguard.place() {
            Place::Ownership(GROUPS) => {
                Search::Ownership(Setting { entries: 1, ..GROUPS_OF_TWO }, Some(safeguard))
            }
            Place::Ownership(_) => Search::Ownership(Setting { epochs: 3, ..MOVES_OF_TWO }, Some(safeguard)),
            Place::Observation => Search::Observation(2, Some(safeguard)),
            Place::Lead(name) => {
                let setting = LEADS.into_iter().find(|setting| setting.name == name);
                let setting = setting.unwrap_or(SHARDS_OF_THREE);
                let setting = match (name, safeguard.shows()) {
                    // Where epochs do not rise nothing ends the moving but the number of nodes.
                    (SHARDS, Shows::NeverReaches(_)) => two_nodes(setting),
                    (SHARDS, _) => lead::Setting { entries: 1, ..setting },
                    _ => setting,
                };
                Search::Leading(setting, Some(safeguard))
            }
        }
    }

    pub fn safeguard(&self) -> Option<Without> {
        match *self {
            Search::Ownership(_, without) | Search::Observation(_, without) | Search::Leading(_, without) => {
                without
            }
        }
    }

    /// What is searched, in a few words.
    pub fn name(&self) -> String {
        match (self.safeguard(), self) {
            (Some(without), _) => format!("without {}", without.word()),
            (None, Search::Ownership(setting, _)) => setting.to_string(),
            (None, Search::Leading(setting, _)) => setting.to_string(),
            (None, Search::Observation(processes, _)) => {
                format!("observation: {processes} processes, for ever")
            }
        }
    }

    pub fn run(&self) -> Searched {
        match *self {
            Search::Ownership(setting, without) => search(Ownership::new(setting, without)),
            Search::Observation(processes, without) => search(Observation::new(processes, without)),
            Search::Leading(setting, without) => search(Leading::new(setting, without)),
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
    use super::*;

    /// Small enough for a build that is not optimised.
    fn small(search: Search) -> Search {
        match search {
            Search::Ownership(setting, without) => {
                Search::Ownership(Setting { nodes: 2, shards: 1, epochs: 3, entries: 1, ..setting }, without)
            }
            Search::Observation(_, without) => Search::Observation(2, without),
            Search::Leading(setting, None) if setting.name == SHARDS => {
                Search::Leading(two_nodes(setting), None)
            }
            Search::Leading(setting, without) => {
                Search::Leading(lead::Setting { entries: 1, leads: 2, ..setting }, without)
            }
        }
    }

    /// Too large for a build that is not optimised; `--model all` has it.
    fn large(search: &Search) -> bool {
        match search {
            Search::Leading(setting, without) => {
                setting.name == KEYS || *without == Some(Without::MoveUnfenced)
            }
            _ => false,
        }
    }

    #[test]
    fn the_whole_protocol_holds_in_a_small_world() {
        for search in Search::whole(false).into_iter().filter(|search| !large(search)).map(small) {
            assert_eq!(search.run().as_expected(None), Ok(()), "{}", search.name());
        }
    }

    #[test]
    fn each_safeguard_is_missed_when_it_is_taken_out() {
        for without in Without::ALL.iter().copied().filter(|without| without.shows() != Shows::Nothing) {
            let mut search = small(Search::without(without));
            if large(&search) {
                continue;
            }
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
