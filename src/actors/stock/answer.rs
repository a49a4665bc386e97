//! What an owner says, and what it shows.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::domain::amount::{Money, Quantity};
use crate::domain::id::{OrderId, ProductId};
use crate::domain::stock::{Counts, Millis, OrderView, Refused, SaleState, Sequence, Settings};
use crate::logs::carried;

/// A hold that stands, and is durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    pub order: OrderId,
    pub product: ProductId,
    pub line: u8,
    pub quantity: Quantity,
    pub unit_price: Money,
    /// The place in the product's queue.
    pub sequence: Sequence,
    pub deadline: Millis,
    /// How long the product holds, for an order of several lines.
    pub hold_ms: u32,
}

/// The answer to what was not refused. It is durable when it is heard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    Reserved(Receipt),
    /// The key was used before, for this order.
    Replayed(OrderId),
    /// Done, now or before.
    Done {
        sequence: Sequence,
        counts: Counts,
        replayed: bool,
    },
    /// What the owner knows of an order.
    Order(Option<Box<OrderView>>),
    /// The order a key belongs to, and the hash of its request.
    OrderOfKey(Option<(OrderId, u64)>),
}

/// The answer to what did not happen, or may have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum NotDone {
    /// A business no.
    #[error("{product}: {refused}")]
    Refused { product: ProductId, refused: Refused },
    /// Too much is waiting; certainly not executed.
    #[error("busy")]
    Busy { retry_after_ms: u64 },
    /// No owner, or no journal; certainly not executed.
    #[error("the owner cannot answer now")]
    Unavailable,
    /// It may have happened. The same key will hear the truth.
    #[error("the outcome is unknown")]
    Unknown,
    /// This very command made the owner fail before.
    #[error("the command is quarantined")]
    Quarantined,
    #[error("internal error")]
    Internal,
}

impl NotDone {
    /// Said after something was done: that nothing was would be untrue.
    pub fn after_all(self) -> NotDone {
        match self {
            NotDone::Busy { .. } | NotDone::Unavailable => NotDone::Unknown,
            other => other,
        }
    }

    /// Said to whoever has only looked: nothing was to be done, whatever became of the group that his answer waited for.
    pub(super) fn of_a_look(self) -> NotDone {
        match self {
            NotDone::Unknown => NotDone::Unavailable,
            other => other,
        }
    }
}

/// Runs on when whoever asked hangs up: half of it is not left behind by that. If it fails altogether nobody knows how far it came.
pub async fn to_the_end<T, E>(work: impl Future<Output = Result<T, E>> + 'static) -> Result<T, E>
where
    T: 'static,
    E: From<NotDone> + 'static,
{
    actix::spawn(carried(work)).await.unwrap_or_else(|_| Err(NotDone::Unknown.into()))
}

pub type Reply = Result<Answer, NotDone>;

/// What the owner has published: never ahead of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    pub sequence: Sequence,
    pub counts: Counts,
    pub settings: Arc<Settings>,
    pub paused: bool,
    pub archived: bool,
    pub as_of: Millis,
}

impl View {
    /// Whether the product can be bought at `now`. The same precedence as the ledger's, and by its time: that does not go back where the
    /// clock was set back, and whoever asks the owner is answered by it.
    pub fn sale_state(&self, now: Millis) -> SaleState {
        SaleState::of(self.archived, self.paused, Some(&self.settings), now.max(self.as_of))
    }
}
