//! What there is: nodes with their memory, words on the wire between them, and the database with its rows.
//!
//! A state is a plain value without anything that only tells the past, but for a few ghosts that the rules need; each
//! ghost says so. A node, its process and its session are one here: whoever comes back has another session, and is told of
//! in `ownership`.

use std::hash::{Hash, Hasher};

use super::super::rule::Rule;
use super::super::state::{Packed, Tenure};

/// The most nodes a setting has.
pub const NODES_MAX: usize = 3;
/// The most shards a setting has.
pub const SHARDS_MAX: usize = 2;

/// `node_sessions.active`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Seat {
    /// 1: the unique key lets one.
    Lead,
    /// Its number, negative.
    Owner,
    /// Null: sealed.
    Ended,
}

/// What a node believes to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    Owner,
    /// The lead, which does not open yet: it waits for the word of all owners and then reads the keys.
    Announcing,
    /// The lead with its doors open.
    Open,
    /// It has learnt that its session has ended, and has dropped all it had.
    Fenced,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Progress {
    /// The session row is locked, the place is taken, the entry is inserted.
    InTransaction,
    /// The connection was killed before the commit: to be written again.
    Undone,
    /// Committed; the answer is on its way.
    Written,
}

/// A decision of an owner on its way into the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Group {
    pub shard: u8,
    /// It is the order with the key.
    pub keyed: bool,
    /// The lead of another node that asked for it.
    pub asked_by: Option<u8>,
    pub progress: Progress,
    /// In the journal, over all nodes.
    pub place: u8,
    /// Of the owner that decided it, and the number of its entry.
    pub owner: Tenure,
}

/// A shard on its way to another owner, as the lead sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Moving {
    pub shard: u8,
    pub from: u8,
    pub to: u8,
    /// Under which the one before has it.
    pub epoch: u8,
    /// The one before has let go, and has said so.
    pub let_go: bool,
}

/// "Let go", still on the wire after its sender has given the move up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LetGo {
    pub to: u8,
    pub shard: u8,
    pub epoch: u8,
}

/// A question that carries the key, on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ask {
    pub to: u8,
    pub shard: u8,
}

/// "I am the lead now; look at your shards", from a lead to one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Word {
    None,
    Sent,
    /// The database says that its sender is the lead.
    Verified,
    /// Its sender's questions are answered from here on, and nobody else's.
    Followed,
    /// The rows were read: the epochs under which shards are one's own.
    Looked([u8; SHARDS_MAX]),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    pub seat: Seat,
    pub stage: Stage,
    /// The lead whose questions it answers.
    pub follows: u8,
    pub tenures: [Option<Tenure>; SHARDS_MAX],
    /// The newest epoch of each shard that it has let go of.
    pub let_go: [u8; SHARDS_MAX],
    pub group: Option<Group>,
    // --- as a lead ---
    /// Whose word it has heard, a bit each.
    pub heard: u8,
    /// The shard that the key leads to.
    pub key: Option<u8>,
    /// It has read the keys already, where that safeguard is out.
    pub peeked: bool,
    pub moving: Option<Moving>,
    pub late: Option<LetGo>,
    pub ask: Option<Ask>,
    pub words: [Word; NODES_MAX],
}

/// A row of `shards`, and the journal of its one product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    pub owner: u8,
    pub epoch: u8,
    /// The last entry's number.
    pub written: u8,
    /// The entry that is the order with the key, 0 if there is none.
    pub key_at: u8,
    /// Ghost: the last entry that somebody heard *yes* for.
    pub acked: u8,
    /// Ghost: the newest epoch that was opened, and the head it was opened at.
    pub opened: Tenure,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    pub nodes: [Node; NODES_MAX],
    pub shards: [Shard; SHARDS_MAX],
    /// `journal_end`: entries committed, over all shards.
    pub end: u8,
    /// The greatest place that is committed.
    pub top: u8,
    /// Places handed out, where they are taken outside the transaction.
    pub taken: u8,
    /// Of the flush.
    pub checkpoint: u8,
    pub broken: Option<Rule>,
}

impl State {
    /// Node 0 is the lead and is known to all; each shard is open at its owner.
    pub fn start(nodes: usize, owners: &[u8]) -> State {
        let tenure = Tenure { epoch: 1, head: 0 };
        let node = |at: usize| Node {
            seat: match at {
                0 => Seat::Lead,
                at if at < nodes => Seat::Owner,
                _ => Seat::Ended,
            },
            stage: match at {
                0 => Stage::Open,
                at if at < nodes => Stage::Owner,
                _ => Stage::Fenced,
            },
            follows: 0,
            tenures: std::array::from_fn(|shard| {
                owners.get(shard).filter(|owner| usize::from(**owner) == at).map(|_| tenure)
            }),
            let_go: [0; SHARDS_MAX],
            group: None,
            heard: 0,
            key: None,
            peeked: false,
            moving: None,
            late: None,
            ask: None,
            words: [Word::None; NODES_MAX],
        };
        let shard = |at: usize| Shard {
            owner: owners.get(at).copied().unwrap_or(0),
            epoch: 1,
            written: 0,
            key_at: 0,
            acked: 0,
            opened: tenure,
        };
        State {
            nodes: std::array::from_fn(node),
            shards: std::array::from_fn(shard),
            end: 0,
            top: 0,
            taken: 0,
            checkpoint: 0,
            broken: None,
        }
    }

    pub fn lives(&self, node: usize) -> bool {
        self.nodes[node].seat != Seat::Ended
    }

    pub fn runs(&self, node: usize) -> bool {
        self.nodes[node].stage != Stage::Fenced
    }

    /// Does a transaction of this node hold its session row?
    pub fn in_transaction(&self, node: usize) -> bool {
        self.nodes[node].group.is_some_and(|group| group.progress == Progress::InTransaction)
    }

    /// Where the key's order stands in the journal.
    pub fn key_in_journal(&self) -> Option<u8> {
        (0..SHARDS_MAX).find(|shard| self.shards[*shard].key_at > 0).map(|shard| shard as u8)
    }

    /// Has an owner of this shard with so many entries read the key's order?
    pub fn knows_key(&self, shard: usize, head: u8) -> bool {
        (1..=head).contains(&self.shards[shard].key_at)
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let mut packed = Packed::default();
        let mut put = |value: u8, bits: u32| packed.put(hasher, value, bits);
        for node in &self.nodes {
            put(node.seat as u8 | (node.stage as u8) << 2 | node.follows << 4, 6);
            for tenure in node.tenures {
                put(tenure.map_or(0, |tenure| tenure.epoch | tenure.head << 3), 6);
            }
            node.let_go.into_iter().for_each(|epoch| put(epoch, 3));
            match node.group {
                None => put(0, 1),
                Some(Group { shard, keyed, asked_by, progress, place, owner }) => {
                    put(1 | shard << 1 | u8::from(keyed) << 2 | asked_by.map_or(0, |by| by + 1) << 3, 5);
                    put(progress as u8 | place << 2, 6);
                    put(owner.epoch | owner.head << 3, 6);
                }
            }
            put(node.heard | u8::from(node.peeked) << 3 | node.key.map_or(0, |shard| shard + 1) << 4, 6);
            match node.moving {
                None => put(0, 1),
                Some(Moving { shard, from, to, epoch, let_go }) => {
                    put(1 | shard << 1 | from << 2 | to << 4 | u8::from(let_go) << 6, 7);
                    put(epoch, 3);
                }
            }
            put(node.late.map_or(0, |late| 1 | late.to << 1 | late.shard << 3 | late.epoch << 4), 7);
            put(node.ask.map_or(0, |ask| 1 | ask.to << 1 | ask.shard << 3), 4);
            for word in node.words {
                match word {
                    Word::None => put(0, 3),
                    Word::Sent => put(1, 3),
                    Word::Verified => put(2, 3),
                    Word::Followed => put(3, 3),
                    Word::Looked(epochs) => {
                        put(4, 3);
                        epochs.into_iter().for_each(|epoch| put(epoch, 3));
                    }
                }
            }
        }
        for Shard { owner, epoch, written, key_at, acked, opened } in &self.shards {
            put(*owner | epoch << 2, 5);
            put(*written | key_at << 3, 6);
            put(*acked, 3);
            put(opened.epoch | opened.head << 3, 6);
        }
        put(self.end | self.top << 4, 8);
        put(self.taken | self.checkpoint << 4, 8);
        put(self.broken.map_or(0, |rule| rule as u8 + 1), 5);
        packed.end(hasher);
    }
}
