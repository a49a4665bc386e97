//! The owner of one product's stock: a pure protocol, the actor around it, and the way to it.

mod abroad;
mod answer;
mod away;
mod changes;
mod directory;
mod home;
mod hot;
mod inbox;
mod owner;
mod past_keys;
mod protocol;
mod routes;
mod shared;
mod snapshots;
#[cfg(test)]
pub(crate) mod testing;
mod used_keys;

pub use abroad::{
    ASKS_MAX, About, Abroad, Asking, NodeName, NotAsked, Pace, QUESTION_BYTES_MAX, Question, Route, Said,
};
pub use answer::{Answer, NotDone, Receipt, Reply, View, to_the_end};
pub use away::{QUESTIONS_MAX, WAIT_MAX_MS};
pub use changes::{CHANGED_MAX, Changes, Published};
pub use directory::{Directory, House, OWNERS_MAX};
pub use home::{Home, Later, NoHome, NotRead, Stored};
pub use hot::{HOT_PRODUCTS_MAX, HotProducts};
pub use inbox::{INBOX_MAX, INBOX_RESERVES_MAX, INBOX_WAIT_MAX_MS, PATIENCE_MS};
pub use owner::StockOwner;
pub use protocol::{Ask, GROUP_EVENTS_MAX, Input, Outcome, Output, Protocol, Tally, Unrecoverable};
pub use routes::Routes;
pub use shared::Watch;
pub use snapshots::Snapshots;
pub use used_keys::{Claim, Used, UsedKeys};
