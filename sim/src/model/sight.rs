//! What must be able to happen: a model in which it cannot would prove nothing.

use super::state::{Alive, Group, Hung, Life, SHARDS_MAX, State, Step};
use super::without::{TAKEN_FROM_STOPPED, WRITTEN_AFTER_LOSS};

macro_rules! sights {
    ($( $name:ident $moves:literal $says:expr, $when:expr; )*) => {
        /// A situation that the search must have met.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Sight { $( $name ),* }

        impl Sight {
            pub const ALL: &'static [Sight] = &[$( Sight::$name ),*];

            pub fn says(self) -> &'static str {
                match self { $( Sight::$name => $says ),* }
            }

            /// Is it only to be met where there are flushes and hand-overs?
            pub fn needs_moves(self) -> bool {
                match self { $( Sight::$name => $moves ),* }
            }

            pub fn bit(self) -> u32 {
                1 << self as u32
            }

            /// The situations that this state is the first to show, as bits.
            pub fn new_in(state: &State, seen: u32) -> u32 {
                let mut bits = 0;
                $( if seen & Sight::$name.bit() == 0 && ($when)(state) { bits |= Sight::$name.bit(); } )*
                bits
            }
        }
    };
}

sights! {
    TakenOver false "a shard of a dead session is served by another",
        |state: &State| served_by_another(state, Alive::Dead, |_| true);
    AckedAfterTakeOver false "an entry is acknowledged by whoever took a shard over",
        |state: &State| served_by_another(state, Alive::Dead, |shard| acked_since_opened(state, shard));
    TakenFromStopped false TAKEN_FROM_STOPPED,
        |state: &State| group(state, |process, group| group.hung == Hung::Cut && replaced(state, process));
    Fenced false "a process finds its session dead",
        |state: &State| state.processes.iter().any(|process| process.life == Life::Fenced);
    UnknownWritten false "an unknown outcome turns out to be written",
        |state: &State| group(state, |process, group| {
            group.step == Step::Unknown && group.written && state.lives(process) && !replaced(state, process)
        });
    UnknownNotWritten false "an unknown outcome turns out not to be written",
        |state: &State| group(state, |_, group| group.step == Step::Again);
    WrittenAfterLoss false WRITTEN_AFTER_LOSS,
        |state: &State| group(state, |_, group| group.hung == Hung::Broke && group.step == Step::Answered);
    UnknownReadByNext false "a group of unknown fate is in what the next owner reads",
        |state: &State| group(state, |process, group| {
            group.step == Step::Unknown && group.written && replaced(state, process)
        });
    LateYes false "yes is said late, for an entry that the next owner has read",
        |state: &State| group(state, |process, group| group.step == Step::Answered && replaced(state, process));
    ThirdEpoch false "an entry is acknowledged in the third epoch or later",
        |state: &State| (0..SHARDS_MAX).any(|shard| state.shards[shard].opened.epoch >= 3 && acked_since_opened(state, shard));
    HandedOver true "an entry is acknowledged by whoever a shard was handed to",
        |state: &State| served_by_another(state, Alive::Live, |shard| acked_since_opened(state, shard));
    LateWord true "a hand-over arrives after its sender has opened again",
        |state: &State| state.shards.iter().any(|shard| shard.hand_over.is_some_and(|word| word.epoch < shard.opened.epoch));
    LateFlush true "a flush arrives after the next owner has opened",
        |state: &State| state.shards.iter().any(|shard| shard.flush.is_some_and(|flush| flush.epoch < shard.opened.epoch));
}

fn group(state: &State, shows: impl Fn(usize, &Group) -> bool) -> bool {
    state
        .processes
        .iter()
        .enumerate()
        .any(|(at, process)| process.group.is_some_and(|group| shows(at, &group)))
}

/// Is a shard served by another than its first owner, whose session is in this state?
fn served_by_another(state: &State, first_owner: Alive, also: impl Fn(usize) -> bool) -> bool {
    (0..SHARDS_MAX).any(|shard| {
        let served = (0..state.processes.len())
            .any(|at| at != shard && state.lives(at) && state.processes[at].tenures[shard].is_some());
        served && state.sessions[shard].alive == first_owner && also(shard)
    })
}

fn acked_since_opened(state: &State, shard: usize) -> bool {
    state.shards[shard].acked > state.shards[shard].opened.head
}

/// Has somebody else opened a shard that this process's group is for?
fn replaced(state: &State, process: usize) -> bool {
    let is = &state.processes[process];
    let later = |shard: usize| {
        is.tenures[shard].is_some_and(|tenure| tenure.epoch < state.shards[shard].opened.epoch)
    };
    (0..SHARDS_MAX).any(|shard| is.group.is_some_and(|group| group.shards[shard]) && later(shard))
}
