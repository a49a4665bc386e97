//! Who is dead: beats, looks, outages and leases, second by second.
//!
//! In each second every process that can does two things, in any order among all of them: it beats, and it looks at
//! everybody's beat. A process may be away for whole seconds (stopped, or cut off: nobody can tell), and the ledger may
//! be down or answer reads while commits hang. An observer who has seen a beat unchanged for [`PATIENCE_S`] seconds may
//! declare its process dead, if the beat is still the one he saw. A second in which he did not look *and beat* himself
//! restarts all his observations.
//!
//! Nothing is bounded but the number of processes: ages saturate, so the world is finite by itself. What is proved here
//! is what `ownership` takes for granted: who is declared dead has lapsed.

use std::sync::atomic::{AtomicU32, Ordering};

use stateright::{Model, Property};

use super::check::Told;
use super::moves::name;
use super::rule::Rule;
use super::without::{Shows, Without};

/// So many seconds must a beat stand still.
pub const PATIENCE_S: u8 = 4;
/// So many seconds after the sending of its last beat may a process refuse without asking anybody.
pub const LEASE_S: u8 = 3;
/// The most processes there may be.
pub const WATCHERS_MAX: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ledger {
    Up,
    /// Reads are answered, commits hang.
    ReadsOnly,
    Down,
}

/// What an observer knows of somebody's beat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Watch {
    /// Seconds since the look that first showed it.
    pub unchanged_s: u8,
    /// It has moved since the last look.
    pub moved: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Process {
    pub away: bool,
    pub dead: bool,
    pub beaten: bool,
    pub looked: bool,
    /// Seconds since its last beat.
    pub age_s: u8,
    /// Ghost: whole seconds it let pass without a beat although the ledger was there.
    pub missed_s: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct State {
    pub processes: [Process; WATCHERS_MAX],
    /// By observer and observed.
    pub watches: [[Option<Watch>; WATCHERS_MAX]; WATCHERS_MAX],
    pub ledger: Ledger,
    /// Ghost: whole seconds since the ledger came back.
    pub calm_s: u8,
    pub broken: Option<Rule>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    Beat {
        process: usize,
    },
    Look {
        process: usize,
    },
    Mark {
        by: usize,
        process: usize,
    },
    /// A second ends; in the next the ledger is like this, and these are away.
    Second {
        ledger: Ledger,
        away: [bool; WATCHERS_MAX],
    },
}

impl Move {
    pub fn tell(&self, before: &State) -> String {
        match *self {
            Move::Beat { process } => format!("{} beats", name(process)),
            Move::Look { process } => format!("{} looks at the beats", name(process)),
            Move::Mark { by, process } => format!("{} declares {} dead", name(by), name(process)),
            Move::Second { ledger, away } => {
                let mut what = vec!["a second passes".to_owned()];
                match (before.ledger == ledger, ledger) {
                    (true, _) => {}
                    (false, Ledger::Up) => what.push("the ledger is back".to_owned()),
                    (false, Ledger::ReadsOnly) => {
                        what.push("the ledger answers reads, commits hang".to_owned())
                    }
                    (false, Ledger::Down) => what.push("the ledger is down".to_owned()),
                }
                for (at, process) in before.processes.iter().enumerate().filter(|(at, p)| p.away != away[*at])
                {
                    let how = if process.away { "is back" } else { "is stopped or cut off" };
                    what.push(format!("{} {how}", name(at)));
                }
                what.join("; ")
            }
        }
    }
}

/// The observation by so many processes, whole or without a safeguard.
#[derive(Debug)]
pub struct Observation {
    pub processes: usize,
    without: Option<Without>,
    seen: AtomicU32,
}

/// What the search must have met, a bit each.
const SIGHTS: [(u32, &str); 2] = [(1, "a process is declared dead"), (2, "a process wakes up just in time")];

impl Observation {
    pub fn new(processes: usize, without: Option<Without>) -> Observation {
        Observation { processes, without, seen: AtomicU32::new(0) }
    }

    fn lacks(&self, safeguard: Without) -> bool {
        self.without == Some(safeguard)
    }

    fn judge(&self, state: &mut State, rule: Rule, holds: bool) {
        let judged = self.without.is_none_or(|without| without.shows() == Shows::Breaks(rule));
        if judged && !holds && state.broken.is_none() {
            state.broken = Some(rule);
        }
    }

    fn able(&self, state: &State) -> impl Iterator<Item = usize> {
        let processes = state.processes;
        (0..self.processes).filter(move |at| !processes[*at].away && !processes[*at].dead)
    }

    fn may_mark(&self, state: &State, by: usize, process: usize) -> bool {
        let of = &state.processes[process];
        if by == process || of.dead || state.ledger != Ledger::Up {
            return false;
        }
        if self.lacks(Without::LeaseByWallClock) {
            return state.processes[by].looked && of.age_s >= PATIENCE_S;
        }
        let compares = !self.lacks(Without::MarkWithoutCompare);
        state.watches[by][process]
            .is_some_and(|watch| watch.unchanged_s >= PATIENCE_S && !(compares && watch.moved))
    }

    /// Every next second there may be; the quiet ones first, so that a story tells of no fault that it does not need.
    fn seconds(&self, state: &State, moves: &mut Vec<Move>) {
        for choice in 0..(1_usize << self.processes) {
            let away: [bool; WATCHERS_MAX] = std::array::from_fn(|at| choice & (1 << at) != 0);
            if (0..self.processes).any(|at| away[at] && state.processes[at].dead) {
                continue;
            }
            let ledgers = [Ledger::Up, Ledger::Down, Ledger::ReadsOnly];
            moves.extend(ledgers.map(|ledger| Move::Second { ledger, away }));
        }
    }

    fn second(&self, state: &mut State, ledger: Ledger, away: [bool; WATCHERS_MAX]) {
        let was_up = state.ledger == Ledger::Up;
        state.calm_s = if was_up { older(state.calm_s) } else { 0 };
        for (at, process) in state.processes.iter_mut().enumerate() {
            let gap = !process.looked || !(process.beaten || self.lacks(Without::ObserverOnlyReads));
            for watch in &mut state.watches[at] {
                *watch = watch
                    .filter(|_| !gap || self.lacks(Without::ObservationSpansGaps))
                    .map(|watch| Watch { unchanged_s: older(watch.unchanged_s), ..watch });
            }
            process.missed_s =
                if was_up && !process.beaten { older(process.missed_s) } else { process.missed_s };
            process.age_s = older(process.age_s);
            (process.beaten, process.looked, process.away) = (false, false, away[at]);
            if process.dead {
                *process = DEAD;
            }
        }
        state.ledger = ledger;
    }

    fn look(&self, state: &mut State, by: usize) {
        state.processes[by].looked = true;
        for other in (0..self.processes).filter(|other| *other != by) {
            let watch = &mut state.watches[by][other];
            *watch = match *watch {
                _ if state.processes[other].dead => None,
                Some(Watch { unchanged_s, moved: false }) => Some(Watch { unchanged_s, moved: false }),
                _ => Some(Watch { unchanged_s: 0, moved: false }),
            };
        }
    }

    fn mark(&self, state: &mut State, process: usize) {
        let of = state.processes[process];
        self.judge(state, Rule::LeaseEndsFirst, of.age_s > LEASE_S);
        self.judge(state, Rule::ObservedAnew, state.calm_s >= PATIENCE_S);
        self.judge(state, Rule::HealthyLives, of.missed_s >= PATIENCE_S - 1);
        state.processes[process] = DEAD;
        state.watches[process] = [None; WATCHERS_MAX];
        state.watches.iter_mut().for_each(|watches| watches[process] = None);
    }
}

const DEAD: Process =
    Process { away: false, dead: true, beaten: false, looked: false, age_s: 0, missed_s: 0 };

fn older(seconds: u8) -> u8 {
    PATIENCE_S.min(seconds + 1)
}

impl Model for Observation {
    type State = State;
    type Action = Move;

    fn init_states(&self) -> Vec<State> {
        let fresh = Process { dead: false, ..DEAD };
        vec![State {
            processes: std::array::from_fn(|at| if at < self.processes { fresh } else { DEAD }),
            watches: [[None; WATCHERS_MAX]; WATCHERS_MAX],
            ledger: Ledger::Up,
            calm_s: PATIENCE_S,
            broken: None,
        }]
    }

    fn actions(&self, state: &State, moves: &mut Vec<Move>) {
        if state.broken.is_some() {
            return;
        }
        let mut all_done = true;
        for at in self.able(state) {
            let process = state.processes[at];
            if !process.beaten && state.ledger == Ledger::Up {
                moves.push(Move::Beat { process: at });
                all_done = false;
            }
            if !process.looked && state.ledger != Ledger::Down {
                moves.push(Move::Look { process: at });
                all_done = false;
            }
            let marks = (0..self.processes).filter(|other| self.may_mark(state, at, *other));
            moves.extend(marks.map(|process| Move::Mark { by: at, process }));
        }
        if all_done {
            self.seconds(state, moves);
        }
    }

    fn next_state(&self, state: &State, step: Move) -> Option<State> {
        let mut next = *state;
        match step {
            Move::Beat { process } => {
                let of = &mut next.processes[process];
                (of.beaten, of.age_s, of.missed_s) = (true, 0, 0);
                for watches in &mut next.watches {
                    watches[process] = watches[process].map(|watch| Watch { moved: true, ..watch });
                }
            }
            Move::Look { process } => self.look(&mut next, process),
            Move::Mark { process, .. } => self.mark(&mut next, process),
            Move::Second { ledger, away } => self.second(&mut next, ledger, away),
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always("no rule is broken", |model: &Observation, state: &State| {
            let dead = state.processes[..model.processes].iter().any(|process| process.dead);
            let in_time = |watch: &Watch| watch.unchanged_s >= PATIENCE_S && watch.moved;
            let woken = state.watches.iter().flatten().flatten().any(in_time);
            model.seen.fetch_or(u32::from(dead) | u32::from(woken) << 1, Ordering::Relaxed);
            state.broken.is_none()
        })]
    }
}

impl Told for Observation {
    fn tell(&self, before: &State, step: &Move, _: &State) -> String {
        step.tell(before)
    }

    fn broken(state: &State) -> Option<Rule> {
        state.broken
    }

    fn unseen(&self) -> Vec<&'static str> {
        let seen = self.seen.load(Ordering::Relaxed);
        SIGHTS.iter().filter(|(bit, _)| seen & bit == 0).map(|(_, says)| *says).collect()
    }
}
