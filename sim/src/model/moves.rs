//! One step of a history, and how it is told.

use super::state::{Alive, SHARDS_MAX, State, Step};

/// What happens next: one process, the ledger, or fate does one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// A process starts. `node`: the one in whose place it is started.
    Start {
        process: usize,
        node: usize,
    },
    /// Its connection breaks while it waits for the ledger; what the ledger does with it is another matter.
    Lose {
        process: usize,
    },
    /// The ledger dies and comes back: transactions are undone, connections broken, nothing committed is lost.
    LedgerCrash,
    Beat {
        process: usize,
    },
    /// It learns that its session is dead.
    Fence {
        process: usize,
    },
    /// It decides for these shards and begins the group's transaction; or begins again what was certainly not written.
    Begin {
        process: usize,
        shards: [bool; SHARDS_MAX],
    },
    SendCommit {
        process: usize,
    },
    /// The ledger commits.
    Commit {
        process: usize,
        slot: usize,
    },
    /// The ledger undoes a transaction whose COMMIT never came through.
    Undo {
        process: usize,
        slot: usize,
    },
    /// It hears that its group is written, and its clients hear *yes*.
    Acknowledge {
        process: usize,
    },
    /// It kills its own lost connection.
    KillOwn {
        process: usize,
    },
    /// It reads the head again, under the lock of its session row.
    Settle {
        process: usize,
    },
    /// It tells its clients *not executed* and forgets the group. (Only where that safeguard is out.)
    Disown {
        process: usize,
    },
    /// It has seen a beat stand still for as long as it takes, longer than the lease, and kills the session's connections;
    /// or kills them once more.
    Kill {
        by: usize,
        session: usize,
    },
    /// It declares a session dead, if the beat is still the one it saw.
    Mark {
        by: usize,
        session: usize,
    },
    /// It takes a shard of a dead session, or its own once more, under the next epoch.
    Raise {
        process: usize,
        shard: usize,
    },
    /// It reads a head too early. (Only where that safeguard is out.)
    Peek {
        process: usize,
        shard: usize,
    },
    /// It reads the head and serves.
    Open {
        process: usize,
        shard: usize,
    },
    /// It stops serving a shard and sends word that another shall have it.
    HandOver {
        process: usize,
        shard: usize,
        to: usize,
    },
    HandOverArrives {
        shard: usize,
    },
    HandOverIsLost {
        shard: usize,
    },
    /// It flushes up to its head; the flush arrives at once.
    Flush {
        process: usize,
        shard: usize,
    },
    /// It sends a flush and does not wait for it.
    SendFlush {
        process: usize,
        shard: usize,
    },
    FlushArrives {
        shard: usize,
    },
}

/// Processes are A, B, C, D in stories.
pub fn name(process: usize) -> char {
    char::from(b'A' + process as u8)
}

fn list(shards: &[bool; SHARDS_MAX]) -> String {
    let numbers: Vec<String> =
        shards.iter().enumerate().filter(|(_, is)| **is).map(|(shard, _)| (shard + 1).to_string()).collect();
    if numbers.len() == 1 {
        format!("shard {}", numbers[0])
    } else {
        format!("shards {}", numbers.join(" and "))
    }
}

impl Move {
    /// The step as a sentence, given the states around it.
    pub fn tell(&self, before: &State, after: &State) -> String {
        let shard_of = |shard: usize| &after.shards[shard];
        let though = |process: usize| {
            if before.session_of(process).alive == Alive::Dead { " (its session is dead)" } else { "" }
        };
        match *self {
            Move::Start { process, node } if after.processes[process].session != process as u8 => {
                let (new, old) = (name(process), name(node));
                format!("{new} starts in place of {old} and takes its id; {old} may only be stopped")
            }
            Move::Start { process, .. } => format!("{} starts, under an id nobody had before", name(process)),
            Move::Lose { process } => {
                format!("{}'s connection breaks; it does not know what became of its group", name(process))
            }
            Move::LedgerCrash => "the ledger is killed and comes back".to_owned(),
            Move::Beat { process } => format!("{} beats", name(process)),
            Move::Fence { process } => {
                format!("{} finds its session dead and drops all it has", name(process))
            }
            Move::Begin { process, shards } if after.processes[process].group.is_none() => {
                format!(
                    "{} meets another entry in the place of its own for {}, and drops its owners",
                    name(process),
                    list(&shards)
                )
            }
            Move::Begin { process, shards } => {
                let again = before.processes[process].group.is_some_and(|group| group.step == Step::Again);
                let how = if again { "begins its group once more" } else { "decides and begins a group" };
                let at: Vec<String> = (0..SHARDS_MAX)
                    .filter(|shard| shards[*shard])
                    .filter_map(|shard| {
                        after.processes[process].transactions[0].map(|open| open.places[shard])
                    })
                    .map(|place| format!("entry {place}"))
                    .collect();
                format!(
                    "{}{} {how} for {}: {}",
                    name(process),
                    though(process),
                    list(&shards),
                    at.join(" and ")
                )
            }
            Move::SendCommit { process } => format!("{}{} sends COMMIT", name(process), though(process)),
            Move::Commit { process, slot } => {
                let lost = before.processes[process].group.is_none_or(|group| group.step != Step::Asked)
                    || slot == 1;
                let whose = if lost { "of its lost connection" } else { "of its group" };
                format!("the ledger commits {}'s transaction {whose}", name(process))
            }
            Move::Undo { process, .. } => format!("the ledger undoes {}'s lost transaction", name(process)),
            Move::Acknowledge { process } => {
                format!(
                    "{}{} hears that its group is written, and its clients hear yes",
                    name(process),
                    though(process)
                )
            }
            Move::KillOwn { process } => format!("{} kills its lost connection", name(process)),
            Move::Settle { process } => {
                let again = after.processes[process].group.is_some();
                let found = if again {
                    "not written, to be written again"
                } else {
                    "written, and its clients hear yes"
                };
                format!("{} reads the head again: its group is {found}", name(process))
            }
            Move::Disown { process } => format!("{} tells its clients: not executed", name(process)),
            Move::Kill { by, session } => {
                let open = before.has_open(session as u8);
                let what = if open { ", which undoes an open transaction" } else { "" };
                let first = !before.sessions[session].lapsed;
                let why = if first {
                    "sees session {} stand still and kills its connections"
                } else {
                    "kills the connections of session {} again"
                };
                format!("{} {}{what}", name(by), why.replace("{}", &name(session).to_string()))
            }
            Move::Mark { by, session } => format!("{} declares session {} dead", name(by), name(session)),
            Move::Raise { process, shard } => {
                format!("{} takes shard {} under epoch {}", name(process), shard + 1, shard_of(shard).epoch)
            }
            Move::Peek { process, shard } => {
                format!(
                    "{} reads the head of shard {}: {}",
                    name(process),
                    shard + 1,
                    shard_of(shard).written
                )
            }
            Move::Open { process, shard } => {
                let head = after.processes[process].tenures[shard].map_or(0, |tenure| tenure.head);
                format!("{} opens shard {} at head {head}", name(process), shard + 1)
            }
            Move::HandOver { process, shard, to } => {
                format!(
                    "{} closes shard {} and sends word that {} shall have it",
                    name(process),
                    shard + 1,
                    name(to)
                )
            }
            Move::HandOverArrives { shard } if shard_of(shard).epoch == before.shards[shard].epoch => {
                format!("the word about shard {} arrives too late and changes nothing", shard + 1)
            }
            Move::HandOverArrives { shard } => {
                let to = usize::from(shard_of(shard).owner);
                format!(
                    "the word arrives: shard {} is {}'s, epoch {}",
                    shard + 1,
                    name(to),
                    shard_of(shard).epoch
                )
            }
            Move::HandOverIsLost { shard } => format!("the word about shard {} is lost", shard + 1),
            Move::Flush { process, shard } => {
                format!("{} flushes shard {} up to {}", name(process), shard + 1, shard_of(shard).checkpoint)
            }
            Move::SendFlush { process, shard } => {
                let to = shard_of(shard).flush.map_or(0, |flush| flush.to);
                format!("{} sends a flush of shard {} up to {to}", name(process), shard + 1)
            }
            Move::FlushArrives { shard } => {
                let (was, is) = (before.shards[shard].checkpoint, shard_of(shard).checkpoint);
                let refused = was == is && after.broken.is_none();
                let what = if refused {
                    "is refused".to_owned()
                } else {
                    format!("sets the checkpoint from {was} to {is}")
                };
                format!("the flush of shard {} arrives and {what}", shard + 1)
            }
        }
    }
}
