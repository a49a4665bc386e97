//! One step of a history, and how it is told.

use super::super::moves::name;
use super::state::{Moving, Seat, State, Word};

/// What happens next: one node, the wire or the database does one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// A node that has seen this one's beat stand still ends its connections.
    Kill {
        node: usize,
    },
    /// And seals its session.
    Seal {
        node: usize,
    },
    /// It learns that its session has ended.
    Fence {
        node: usize,
    },
    /// It becomes the lead.
    TakeLead {
        node: usize,
    },
    /// It reads the keys too early. (Only where that safeguard is out.)
    Peek {
        node: usize,
    },
    /// It reads the keys of the journal and opens its doors.
    Open {
        node: usize,
    },
    /// It sends the word that it is the lead.
    SendWord {
        lead: usize,
        to: usize,
    },
    /// The word goes on by one stage at the node that has it.
    Word {
        lead: usize,
        to: usize,
    },
    /// The lead asks an owner for the order with the key.
    Ask {
        lead: usize,
        to: usize,
        shard: usize,
    },
    AskArrives {
        lead: usize,
    },
    /// An owner decides and begins a group's transaction, or begins it again.
    Begin {
        node: usize,
        shard: usize,
        keyed: bool,
    },
    Commit {
        node: usize,
    },
    /// The owner hears that its group is written, and the client hears *yes*.
    Acknowledge {
        node: usize,
    },
    /// The lead wants a shard to have another owner, and asks the one that has it to let go.
    AskLetGo {
        lead: usize,
        shard: usize,
        to: usize,
    },
    LetGo {
        lead: usize,
    },
    /// The lead waits for an answer no longer; what it sent may still arrive.
    GiveUp {
        lead: usize,
    },
    LateLetGo {
        lead: usize,
    },
    /// The lead writes who owns a shard.
    WriteRow {
        lead: usize,
    },
    /// The lead gives a shard away that a dead node had.
    GiveAway {
        lead: usize,
        shard: usize,
        to: usize,
    },
    /// The lead opens a shard that is its own by the row.
    OpenOwn {
        lead: usize,
        shard: usize,
    },
    Flush {
        lead: usize,
    },
}

impl Move {
    /// The step as a sentence, given the states around it.
    pub fn tell(&self, before: &State, after: &State) -> String {
        let though = |node: usize| {
            if before.nodes[node].seat == Seat::Ended { " (its session has ended)" } else { "" }
        };
        let opened = |node: usize| {
            let new = |shard: &usize| {
                before.nodes[node].tenures[*shard].is_none() && after.nodes[node].tenures[*shard].is_some()
            };
            let tell = |shard: usize| {
                let epoch = after.nodes[node].tenures[shard].map_or(0, |tenure| tenure.epoch);
                format!(", and opens shard {} under epoch {epoch}", shard + 1)
            };
            (0..before.shards.len()).filter(new).map(tell).collect::<String>()
        };
        match *self {
            Move::Kill { node } => format!("{} seems dead: its connections are ended", name(node)),
            Move::Seal { node } => format!("{}'s session is sealed", name(node)),
            Move::Fence { node } => format!("{} finds its session sealed and drops all it has", name(node)),
            Move::TakeLead { node } => format!("{} becomes the lead", name(node)),
            Move::Peek { node } => format!("{} reads the keys of the journal", name(node)),
            Move::Open { node } => {
                let key = match after.nodes[node].key {
                    Some(shard) => format!("the key leads to shard {}", shard + 1),
                    None => "the key is unknown".to_owned(),
                };
                format!("{} opens its doors as the lead: {key}", name(node))
            }
            Move::SendWord { lead, to } => {
                format!("{}{} sends word to {}: I am the lead", name(lead), though(lead), name(to))
            }
            Move::Word { lead, to } => {
                let (lead_name, to_name) = (name(lead), name(to));
                match after.nodes[lead].words[to] {
                    Word::Verified => format!("{to_name} reads in the database that {lead_name} is the lead"),
                    Word::Followed => format!("{to_name} answers {lead_name}'s questions from here on"),
                    Word::Looked(_) => format!("{to_name} has {lead_name}'s word, and reads its shards"),
                    Word::None | Word::Sent if before.nodes[lead].words[to] == Word::Sent => {
                        format!(
                            "{to_name} has {lead_name}'s word, and the database says that it is not the lead"
                        )
                    }
                    Word::None | Word::Sent => {
                        format!("{to_name} has done as {lead_name}'s word says{}", opened(to))
                    }
                }
            }
            Move::Ask { lead, to, shard } => {
                format!(
                    "{}{} asks {} for the order with the key, in shard {}",
                    name(lead),
                    though(lead),
                    name(to),
                    shard + 1
                )
            }
            Move::AskArrives { lead } => {
                let Some(ask) = before.nodes[lead].ask else { return String::new() };
                let node = usize::from(ask.to);
                let taken = before.nodes[node].group != after.nodes[node].group;
                let what = if taken {
                    "waits there to be written"
                } else {
                    "is refused, or has been answered before"
                };
                format!("{}'s question arrives at {} and {what}", name(lead), name(node))
            }
            Move::Begin { node, shard, .. } if after.nodes[node].group.is_none() => {
                format!(
                    "{} meets another entry in its place in shard {}, and drops its owner",
                    name(node),
                    shard + 1
                )
            }
            Move::Begin { node, shard, keyed } => {
                let place = after.nodes[node].group.map_or(0, |group| group.place);
                let what = if keyed { "the order with the key" } else { "an order" };
                format!("{}{} decides {what} in shard {}: place {place}", name(node), though(node), shard + 1)
            }
            Move::Commit { node } => format!("the database commits {}'s group", name(node)),
            Move::Acknowledge { node } => {
                format!(
                    "{}{} hears that its group is written, and its client hears yes",
                    name(node),
                    though(node)
                )
            }
            Move::AskLetGo { lead, shard, to } => {
                let from = usize::from(before.shards[shard].owner);
                format!(
                    "{}{} wants shard {} to be {}'s, and asks {} to let go",
                    name(lead),
                    though(lead),
                    shard + 1,
                    name(to),
                    name(from)
                )
            }
            Move::LetGo { lead } => {
                let from = before.nodes[lead].moving.map_or(lead, |Moving { from, .. }| from.into());
                format!("{} lets go of the shard, and says so to {}", name(from), name(lead))
            }
            Move::GiveUp { lead } => format!("{} waits for that no longer", name(lead)),
            Move::LateLetGo { lead } => {
                let to = before.nodes[lead].late.map_or(lead, |late| late.to.into());
                format!("{}'s old question to let go arrives at {}, which does", name(lead), name(to))
            }
            Move::WriteRow { lead } => {
                let shard = before.nodes[lead].moving.map_or(0, |Moving { shard, .. }| shard.into());
                row(lead, shard, though(lead), after)
            }
            Move::GiveAway { lead, shard, .. } => row(lead, shard, though(lead), after),
            Move::OpenOwn { lead, .. } => format!("{} looks at its own shards{}", name(lead), opened(lead)),
            Move::Flush { lead } => format!("{} flushes up to place {}", name(lead), after.checkpoint),
        }
    }
}

fn row(lead: usize, shard: usize, though: &str, after: &State) -> String {
    let row = &after.shards[shard];
    let owner = name(row.owner.into());
    format!("{}{though} writes that shard {} is {owner}'s, epoch {}", name(lead), shard + 1, row.epoch)
}
