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

use check::{Searched, search};
use observation::{Observation, WATCHERS_MAX};
use ownership::{Ownership, Setting};
use without::{GROUPS, MOVES, Place, Without};

/// Two nodes and a restart, two shards: groups, unknown outcomes, take-overs.
const GROUPS_OF_TWO: Setting =
    Setting { name: GROUPS, nodes: 2, restarts: 1, shards: 2, epochs: 3, entries: 2, moves: false };
/// Two nodes and a restart, one shard: flushes and hand-overs as well.
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
    /// The whole protocol among two nodes, or three.
    pub fn whole(three_nodes: bool) -> Vec<Search> {
        let grown = |setting: Setting| Setting { nodes: setting.nodes + usize::from(three_nodes), ..setting };
        vec![
            Search::Ownership(grown(GROUPS_OF_TWO), None),
            Search::Ownership(grown(MOVES_OF_TWO), None),
            Search::Observation(if three_nodes { WATCHERS_MAX } else { 2 }, None),
        ]
    }

    /// The protocol without this safeguard, always among two nodes: a smaller world finds it sooner.
    pub fn without(safeguard: Without) -> Search {
        match safeguard.place() {
            Place::Ownership(GROUPS) => Search::Ownership(GROUPS_OF_TWO, Some(safeguard)),
            Place::Ownership(_) => Search::Ownership(MOVES_OF_TWO, Some(safeguard)),
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
        match self.safeguard() {
            Some(without) => without.word().to_owned(),
            None => match *self {
                Search::Ownership(setting, _) => format!(
                    "{}: {} processes, {} shards, {} epochs, {} entries each",
                    setting.name,
                    setting.processes(),
                    setting.shards,
                    setting.epochs,
                    setting.entries
                ),
                Search::Observation(processes, _) => format!("observation: {processes} processes, without end"),
            },
        }
    }

    pub fn run(&self) -> Searched {
        match *self {
            Search::Ownership(setting, without) => search(Ownership::new(setting, without)),
            Search::Observation(processes, without) => search(Observation::new(processes, without)),
        }
    }
}
