//! Who may write: sessions, epochs, groups, unknown outcomes, take-overs, flushes and hand-overs as one model.
//!
//! Nothing here knows time. Any process may stand still between any two of its steps for as long as it likes, which is
//! what a stopped process, a paused machine and a node cut off from the ledger look like to everybody else; a process
//! that is killed is one that takes no further step, and what it left in the ledger stays. A lease runs out whenever it
//! likes. Connections and the ledger break any number of times. What is bounded is named in [`Setting`]: how many
//! processes, shards, epochs and entries.
//!
//! `may` says which steps are open to whom, `does` what a step changes; the rules are judged in `does` and, for what may
//! stand side by side, here.

mod does;
mod may;

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

use stateright::{Model, Property};

use super::check::Told;
use super::moves::Move;
use super::rule::Rule;
use super::sight::Sight;
use super::state::{Life, PROCESSES_MAX, Process, State, Step};
use super::without::Without;

/// How large the world is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    pub name: &'static str,
    /// Processes that run at the beginning.
    pub nodes: usize,
    /// Processes that may start later: restarts, or nodes that join.
    pub restarts: usize,
    pub shards: usize,
    pub epochs: u8,
    /// Entries a shard.
    pub entries: u8,
    /// With flushes and hand-overs.
    pub moves: bool,
}

impl Setting {
    pub fn processes(&self) -> usize {
        self.nodes + self.restarts
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Setting { name, shards, epochs, entries, .. } = self;
        let plural = |count: usize| if count == 1 { "" } else { "s" };
        write!(
            f,
            "{name}: {} processes, {shards} shard{}, {epochs} epochs, {entries} entr{} each",
            self.processes(),
            plural(*shards),
            if *entries == 1 { "y" } else { "ies" }
        )
    }
}

/// The protocol in a world of this size, whole or without a safeguard.
#[derive(Debug)]
pub struct Ownership {
    pub setting: Setting,
    without: Option<Without>,
    /// What was seen on the way.
    seen: AtomicU32,
}

impl Ownership {
    pub fn new(setting: Setting, without: Option<Without>) -> Ownership {
        Ownership { setting, without, seen: AtomicU32::new(0) }
    }

    fn lacks(&self, safeguard: Without) -> bool {
        self.without == Some(safeguard)
    }

    fn has_key(&self) -> bool {
        !self.lacks(Without::NoKey) && !self.lacks(Without::SettleUnlockedNoKey)
    }

    /// Does a group's transaction hold its session row until it ends?
    fn locks_row(&self) -> bool {
        !self.lacks(Without::NoSessionCheck) && !self.lacks(Without::SessionReadUnlocked)
    }

    fn settles_unlocked(&self) -> bool {
        self.lacks(Without::SettleUnlocked)
            || self.lacks(Without::SettleUnlockedNoKey)
            || self.lacks(Without::SettleWithoutKill)
    }

    fn judge(&self, state: &mut State, rule: Rule, holds: bool) {
        if !holds && state.broken.is_none() && Without::judges(self.without, rule) {
            state.broken = Some(rule);
        }
    }

    /// The rules about what may stand side by side.
    fn judge_standing(&self, state: &mut State) {
        for shard in 0..self.setting.shards {
            let acked = state.shards[shard].acked;
            let (mut writers, mut stale) = (0, false);
            for process in (0..PROCESSES_MAX).filter(|process| state.lives(*process)) {
                writers += u8::from(state.processes[process].tenures[shard].is_some());
            }
            for process in state.processes.iter().filter(|process| process.life == Life::Running) {
                let Some(tenure) = process.tenures[shard] else { continue };
                let trusted = !state.sessions[process.session as usize].lapsed;
                stale |= (trusted || self.lacks(Without::RefuseWithoutLease)) && tenure.head < acked;
            }
            self.judge(state, Rule::OneWriter, writers <= 1);
            self.judge(state, Rule::RefusesFromTheHead, !stale);
        }
    }
}

/// Does it wait on a connection that holds?
fn waits(process: &Process) -> bool {
    process.group.is_some_and(|group| group.step == Step::Asked)
}

impl Model for Ownership {
    type State = State;
    type Action = Move;

    fn init_states(&self) -> Vec<State> {
        vec![State::start(self.setting.nodes, self.setting.shards)]
    }

    fn actions(&self, state: &State, moves: &mut Vec<Move>) {
        if state.broken.is_some() {
            return;
        }
        self.fate(state, moves);
        self.ledger(state, moves);
        self.taking(state, moves);
        for process in (0..self.setting.processes()).filter(|at| state.processes[*at].life == Life::Running) {
            self.own(state, process, moves);
        }
    }

    fn next_state(&self, state: &State, step: Move) -> Option<State> {
        let mut next = *state;
        self.perform(&mut next, step);
        self.judge_standing(&mut next);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always("no rule is broken", |model: &Ownership, state: &State| {
            let seen = model.seen.load(Ordering::Relaxed);
            let new = Sight::new_in(state, seen);
            if new != 0 {
                model.seen.fetch_or(new, Ordering::Relaxed);
            }
            state.broken.is_none()
        })]
    }
}

impl Told for Ownership {
    fn tell(&self, before: &State, step: &Move, after: &State) -> String {
        step.tell(before, after)
    }

    fn broken(state: &State) -> Option<Rule> {
        state.broken
    }

    fn unseen(&self) -> Vec<&'static str> {
        let seen = self.seen.load(Ordering::Relaxed);
        let due = Sight::ALL.iter().filter(|sight| self.setting.moves || !sight.needs_moves());
        due.filter(|sight| seen & sight.bit() == 0).map(|sight| sight.says()).collect()
    }
}
