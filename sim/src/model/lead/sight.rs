//! What must be able to happen: a model in which it cannot would prove nothing.

use super::Setting;
use super::state::{NODES_MAX, Node, Progress, SHARDS_MAX, Seat, Stage, State, Word};
use crate::model::without::{COMES_BACK, LEAD_OF_TWO};

macro_rules! sights {
    ($( $name:ident $due:expr, $says:expr, $when:expr; )*) => {
        /// A situation that the search must have met.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Sight { $( $name ),* }

        impl Sight {
            pub const ALL: &'static [Sight] = &[$( Sight::$name ),*];

            pub fn says(self) -> &'static str {
                match self { $( Sight::$name => $says ),* }
            }

            /// Is it to be met in this setting?
            pub fn is_due(self, setting: &Setting) -> bool {
                match self { $( Sight::$name => ($due)(setting) ),* }
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

fn always(_: &Setting) -> bool {
    true
}

fn moves(setting: &Setting) -> bool {
    setting.moves
}

fn rests(setting: &Setting) -> bool {
    !setting.moves
}

fn keys(setting: &Setting) -> bool {
    setting.keys
}

fn words(setting: &Setting) -> bool {
    setting.keys && setting.name != LEAD_OF_TWO
}

sights! {
    NextLead always, "another node is the lead, with its doors open",
        |state: &State| next_is_open(state);
    GivenAway rests, "an entry is acknowledged by whoever got the shard of a dead node",
        |state: &State| any(state, |node, shard| {
            !state.lives(first_owner(state, shard, node)) && acked_since_opened(state, shard)
        });
    Moved moves, "an entry is acknowledged by whoever a shard was moved to, and the one before lives",
        |state: &State| any(state, |node, shard| {
            let had = |other: &Node| other.let_go[shard] > 0 && other.seat != Seat::Ended;
            state.nodes[node].let_go[shard] == 0 && state.nodes.iter().any(had) && acked_since_opened(state, shard)
        });
    ComesBack moves, COMES_BACK,
        |state: &State| any(state, |node, shard| state.nodes[node].let_go[shard] > 0);
    WakesInMove moves, "a lead that was replaced wakes up in the middle of a move",
        |state: &State| next_is_open(state) && state.nodes[0].moving.is_some_and(|moving| moving.let_go);
    LateLetGo moves, "a node lets go because of a lead that was replaced",
        |state: &State| next_is_open(state) && state.nodes[0].late.is_some();
    LateLook moves, "a node has read that a shard is its own, and lets go of it before it serves it",
        |state: &State| state.nodes.iter().any(|lead| (0..NODES_MAX).any(|to| {
            let stale = |epochs: [u8; SHARDS_MAX]| {
                (0..SHARDS_MAX).any(|shard| epochs[shard] > 0 && epochs[shard] <= state.nodes[to].let_go[shard])
            };
            matches!(lead.words[to], Word::Looked(epochs) if stale(epochs))
        }));
    WordOfOld words, "the word of a lead that was replaced arrives",
        |state: &State| next_is_open(state) && state.nodes[0].words.contains(&Word::Sent);
    AskOfOld words, "a question of a lead that was replaced arrives after the next has opened",
        |state: &State| next_is_open(state) && state.nodes[0].ask.is_some();
    WaitsForOld keys, "a new lead waits for what the one before had asked",
        |state: &State| state.nodes.iter().any(|node| {
            let asked = node.group.is_some_and(|group| group.asked_by == Some(0) && group.progress != Progress::Written);
            asked && state.nodes[1].stage == Stage::Announcing
        });
    KnowsOldKey keys, "a new lead knows a key of the one before",
        |state: &State| next_is_open(state) && state.end > 0 && state.nodes[1].key.is_some();
}

fn next_is_open(state: &State) -> bool {
    state.nodes[1].stage == Stage::Open && state.nodes[0].seat == Seat::Ended
}

fn any(state: &State, shows: impl Fn(usize, usize) -> bool) -> bool {
    (0..NODES_MAX).any(|node| {
        (0..SHARDS_MAX).any(|shard| {
            state.lives(node) && state.nodes[node].tenures[shard].is_some() && shows(node, shard)
        })
    })
}

/// A node, not this one, that a dead shard may have come from: its epoch tells that it moved, its seat that it died.
fn first_owner(state: &State, shard: usize, node: usize) -> usize {
    let moved = state.shards[shard].epoch > 1;
    let dead =
        |other: &usize| *other != node && !state.lives(*other) && state.nodes[*other].let_go[shard] == 0;
    (0..NODES_MAX).find(dead).filter(|_| moved).unwrap_or(node)
}

fn acked_since_opened(state: &State, shard: usize) -> bool {
    state.shards[shard].acked > state.shards[shard].opened.head
}
