//! Several nodes that sell side by side: a lead, owners, and shards that move between them.
//!
//! What `ownership` proves of sessions and groups is taken for granted here, in a coarser form: a node may stand still
//! between any two of its steps for ever, which is what a stopped node, a slow one and one that is cut off look like to
//! all others; whoever watches ends its connections and seals its session whenever it likes. New here are the lead, the
//! words that it and the owners exchange, each of which may arrive at any time or never, the one order of places, and
//! the key of an order, which must lead to one order however often the lead changes between its repetitions.
//!
//! `may` says which steps are open to whom, `does` what a step changes.

mod does;
mod may;
mod sight;
mod state;
mod steps;

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

use stateright::{Model, Property};

use super::check::Told;
use super::rule::Rule;
use super::without::Without;
use sight::Sight;
use state::{NODES_MAX, State};
use steps::Move;

/// How large the world is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    pub name: &'static str,
    pub nodes: usize,
    /// So many of them may be the lead, the first one to begin with.
    pub leads: usize,
    /// The first owner of each shard.
    pub owners: &'static [u8],
    pub epochs: u8,
    /// Entries a shard.
    pub entries: u8,
    /// Shards move between living nodes.
    pub moves: bool,
    /// One key is ordered with, of any lead and for any shard, and nothing else is ordered.
    pub keys: bool,
    pub flushes: bool,
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Setting { name, nodes, owners, epochs, entries, .. } = self;
        let shards = if owners.len() == 1 { "shard" } else { "shards" };
        let each = if *entries == 1 { "entry" } else { "entries" };
        write!(f, "{name}: {nodes} nodes, {} {shards}, {epochs} epochs, {entries} {each} each", owners.len())
    }
}

/// The protocol in a world of this size, whole or without a safeguard.
#[derive(Debug)]
pub struct Leading {
    pub setting: Setting,
    without: Option<Without>,
    /// What was seen on the way.
    seen: AtomicU32,
}

impl Leading {
    pub fn new(setting: Setting, without: Option<Without>) -> Leading {
        Leading { setting, without, seen: AtomicU32::new(0) }
    }

    fn lacks(&self, safeguard: Without) -> bool {
        self.without == Some(safeguard)
    }

    fn places_unlocked(&self) -> bool {
        self.lacks(Without::PlaceUnlocked) || self.lacks(Without::PlaceOutsideTransaction)
    }

    fn judge(&self, state: &mut State, rule: Rule, holds: bool) {
        if !holds && state.broken.is_none() && Without::judges(self.without, rule) {
            state.broken = Some(rule);
        }
    }
}

impl Model for Leading {
    type State = State;
    type Action = Move;

    fn init_states(&self) -> Vec<State> {
        vec![State::start(self.setting.nodes, self.setting.owners)]
    }

    fn actions(&self, state: &State, moves: &mut Vec<Move>) {
        if state.broken.is_some() {
            return;
        }
        self.sessions(state, moves);
        for node in self.nodes() {
            if state.runs(node) {
                self.owning(state, node, moves);
                self.leading(state, node, moves);
            }
            self.wire(state, node, moves);
        }
    }

    fn next_state(&self, state: &State, step: Move) -> Option<State> {
        let mut next = *state;
        self.perform(&mut next, step);
        for shard in 0..self.setting.owners.len() {
            let writes = |node: &usize| next.lives(*node) && next.nodes[*node].tenures[shard].is_some();
            let writers = (0..NODES_MAX).filter(writes).count();
            self.judge(&mut next, Rule::OneWriter, writers <= 1);
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always("no rule is broken", |model: &Leading, state: &State| {
            let seen = model.seen.load(Ordering::Relaxed);
            let new = Sight::new_in(state, seen);
            if new != 0 {
                model.seen.fetch_or(new, Ordering::Relaxed);
            }
            state.broken.is_none()
        })]
    }
}

impl Told for Leading {
    fn tell(&self, before: &State, step: &Move, after: &State) -> String {
        step.tell(before, after)
    }

    fn broken(state: &State) -> Option<Rule> {
        state.broken
    }

    fn unseen(&self) -> Vec<&'static str> {
        let seen = self.seen.load(Ordering::Relaxed);
        let due = Sight::ALL.iter().filter(|sight| sight.is_due(&self.setting));
        due.filter(|sight| seen & sight.bit() == 0).map(|sight| sight.says()).collect()
    }
}
