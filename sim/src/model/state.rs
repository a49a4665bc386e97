//! What there is: processes with their memory, and the ledger with its rows, its transactions and what is on its way.
//!
//! A state is a plain value without anything that only tells the past, but for a few ghosts that the rules need; each
//! ghost says so. Product and shard are one here: one product a shard.

use std::hash::{Hash, Hasher};

use super::rule::Rule;

/// The most processes a setting has.
pub const PROCESSES_MAX: usize = 4;
/// The most shards a setting has.
pub const SHARDS_MAX: usize = 2;

/// What a process is doing. A stopped process, a slow one, one that is cut off from the ledger and one that was killed
/// are all `Running` and take no step, the last for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Life {
    /// Not started yet.
    Absent,
    Running,
    /// It has learnt that its session is dead and has dropped all it had.
    Fenced,
}

/// An owner in a process's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tenure {
    pub epoch: u8,
    /// The last entry it knows to be written: what it has published.
    pub head: u8,
}

/// Where a process is with its one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// A transaction is open on a connection that holds.
    Asked,
    /// It is committed and the answer is on its way.
    Answered,
    /// The connection is lost: nobody here knows.
    Unknown,
    /// Settled: certainly not written, to be written again as it is.
    Again,
}

/// Ghost: what became of the group's first connection, when it was lost with an open transaction on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hung {
    No,
    /// It broke, and nobody but the process itself has done anything about it.
    Broke,
    /// A taker killed it.
    Cut,
}

/// Decisions that wait for the ledger: one entry for each of these shards, at the place after the tenure's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Group {
    pub shards: [bool; SHARDS_MAX],
    pub step: Step,
    /// Ghost: it is in the journal.
    pub written: bool,
    pub hung: Hung,
}

/// How far a transaction has come in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// The session row is locked, the entries are inserted; COMMIT has not come. Whoever kills it undoes it at once.
    Open,
    /// COMMIT is on its way or being done: killing changes nothing any more, it ends either way by itself.
    Committing,
}

/// A transaction in the ledger, of the process in whose slot it stands, on a connection that may be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Transaction {
    /// The number of its entry for each shard, 0 where it has none.
    pub places: [u8; SHARDS_MAX],
    pub epochs: [u8; SHARDS_MAX],
    pub stage: Stage,
    /// Ghost: its process has called it *not executed*.
    pub disowned: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    pub life: Life,
    /// Its id in `node_session`.
    pub session: u8,
    pub tenures: [Option<Tenure>; SHARDS_MAX],
    pub group: Option<Group>,
    /// In the ledger. The second is one whose connection was lost while another was begun.
    pub transactions: [Option<Transaction>; 2],
    /// Heads that were read too early, where that safeguard is out.
    pub peeked: [Option<u8>; SHARDS_MAX],
}

/// A row of `node_session`. Beats are not counted here: `observation` does that, and what it proves is used here as
/// *lapsed*.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Session {
    pub alive: Alive,
    /// Its lease has run out, its beat has stood still long enough for anybody who watches, and a taker has killed its
    /// connections. A beat ends it.
    pub lapsed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Alive {
    Unborn,
    Live,
    Dead,
}

/// A flush that was sent and may arrive at any time, also long after its sender has given it up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flush {
    pub epoch: u8,
    pub from: u8,
    pub to: u8,
}

/// A hand-over that was sent and may arrive at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HandOver {
    pub epoch: u8,
    /// The session that gets the shard.
    pub to: u8,
}

/// A shard's rows: `shard_owner`, the journal of its product, `flush_checkpoint`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    pub epoch: u8,
    /// The session that owns it.
    pub owner: u8,
    /// The last entry's number.
    pub written: u8,
    pub checkpoint: u8,
    pub flush: Option<Flush>,
    pub hand_over: Option<HandOver>,
    /// Ghost: the last entry that somebody heard *yes* for.
    pub acked: u8,
    /// Ghost: the newest epoch that was opened, and the head it was opened at.
    pub opened: Tenure,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    pub processes: [Process; PROCESSES_MAX],
    pub sessions: [Session; PROCESSES_MAX],
    pub shards: [Shard; SHARDS_MAX],
    /// The rule that the last step broke.
    pub broken: Option<Rule>,
}

impl State {
    /// The shards are owned one by one by the first processes, all opened at their first epoch; nothing is written.
    pub fn start(running: usize, shards: usize) -> State {
        let tenure = Tenure { epoch: 1, head: 0 };
        let process = |index: usize| Process {
            life: if index < running { Life::Running } else { Life::Absent },
            session: index as u8,
            tenures: std::array::from_fn(|shard| (shard == index && shard < shards).then_some(tenure)),
            group: None,
            transactions: [None; 2],
            peeked: [None; SHARDS_MAX],
        };
        let session = |index: usize| Session {
            alive: if index < running { Alive::Live } else { Alive::Unborn },
            lapsed: false,
        };
        let shard = |index: usize| Shard {
            epoch: 1,
            owner: index as u8,
            written: 0,
            checkpoint: 0,
            flush: None,
            hand_over: None,
            acked: 0,
            opened: tenure,
        };
        State {
            processes: std::array::from_fn(process),
            sessions: std::array::from_fn(session),
            shards: std::array::from_fn(shard),
            broken: None,
        }
    }

    pub fn session_of(&self, process: usize) -> &Session {
        &self.sessions[self.processes[process].session as usize]
    }

    /// May this process act in the ledger's eyes?
    pub fn lives(&self, process: usize) -> bool {
        self.processes[process].life == Life::Running && self.session_of(process).alive == Alive::Live
    }

    /// Does a transaction hold this session's row? Each group's transaction locks the row first and lets it go at its
    /// end, so whoever wants to change the row (to declare dead, to settle) waits until there is none. A heart beats in
    /// a row of its own.
    pub fn row_is_locked(&self, session: u8) -> bool {
        self.of_session(session).any(|process| process.transactions.iter().any(Option::is_some))
    }

    /// Has this session a transaction that a kill would undo?
    pub fn has_open(&self, session: u8) -> bool {
        let mut transactions =
            self.of_session(session).flat_map(|process| process.transactions.iter().flatten());
        transactions.any(|transaction| transaction.stage == Stage::Open)
    }

    /// Is an uncommitted entry at this place? The primary key makes another insert there wait.
    pub fn place_is_taken(&self, shard: usize, place: u8) -> bool {
        let mut transactions =
            self.processes.iter().flat_map(|process| process.transactions.iter().flatten());
        transactions.any(|transaction| transaction.places[shard] == place)
    }

    fn of_session(&self, session: u8) -> impl Iterator<Item = &Process> {
        self.processes.iter().filter(move |process| process.session == session)
    }
}

// --- hashing: a few words instead of two hundred bytes, which is where a search spends its time --------------------------------

/// Packs small numbers into words, each with its own number of bits.
#[derive(Default)]
pub(super) struct Packed {
    word: u64,
    bits: u32,
}

impl Packed {
    pub(super) fn put<H: Hasher>(&mut self, hasher: &mut H, value: u8, bits: u32) {
        debug_assert!(u32::from(value) < 1 << bits, "{value} does not fit into {bits} bits");
        if self.bits + bits > u64::BITS {
            self.end(hasher);
        }
        self.word |= u64::from(value) << self.bits;
        self.bits += bits;
    }

    pub(super) fn end<H: Hasher>(&mut self, hasher: &mut H) {
        hasher.write_u64(self.word);
        *self = Packed::default();
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let mut packed = Packed::default();
        let mut put = |value: u8, bits: u32| packed.put(hasher, value, bits);
        for process in &self.processes {
            put(process.life as u8, 2);
            put(process.session, 3);
            for tenure in process.tenures {
                put(tenure.map_or(0, |tenure| tenure.epoch), 3);
                put(tenure.map_or(0, |tenure| tenure.head), 3);
            }
            for peeked in process.peeked {
                put(peeked.map_or(0, |head| head + 1), 3);
            }
            if let Some(group) = process.group {
                put(1 | u8::from(group.shards[0]) << 1 | u8::from(group.shards[1]) << 2, 3);
                put(group.step as u8 | (group.hung as u8) << 2 | u8::from(group.written) << 4, 5);
            } else {
                put(0, 3);
            }
            for transaction in process.transactions {
                let Some(Transaction { places, epochs, stage, disowned }) = transaction else {
                    put(0, 1);
                    continue;
                };
                put(1 | (stage as u8) << 1 | u8::from(disowned) << 2, 3);
                places.into_iter().chain(epochs).for_each(|number| put(number, 3));
            }
        }
        for session in &self.sessions {
            put(session.alive as u8 | u8::from(session.lapsed) << 2, 3);
        }
        for shard in &self.shards {
            let numbers = [shard.epoch, shard.owner, shard.written, shard.checkpoint, shard.acked];
            numbers
                .into_iter()
                .chain([shard.opened.epoch, shard.opened.head])
                .for_each(|number| put(number, 3));
            put(u8::from(shard.flush.is_some()) | u8::from(shard.hand_over.is_some()) << 1, 2);
            if let Some(flush) = shard.flush {
                [flush.epoch, flush.from, flush.to].into_iter().for_each(|number| put(number, 3));
            }
            if let Some(word) = shard.hand_over {
                put(word.epoch, 3);
                put(word.to, 3);
            }
        }
        put(self.broken.map_or(0, |rule| rule as u8 + 1), 5);
        packed.end(hasher);
    }
}
