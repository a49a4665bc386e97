//! The stock of one product: what came in, what is promised, what is sold.
//!
//! One [`Ledger`] is the whole truth about one product. A [`Command`] asks, `decide` answers with one [`Event`]
//! or a [`Refusal`], `apply` makes the event true. Events stand in the journal as [`Entry`]s, numbered without
//! gaps and chained by hash; replaying them gives the same ledger again.
//!
//! Always true: on hand = available + held + sold, each of them ≥ 0.

mod apply;
mod command;
mod deadlines;
mod entry;
mod event;
mod format;
mod index;
mod ledger;
mod order_table;
mod refusal;
mod snapshot;
#[cfg(test)]
mod tests;

pub use apply::ReplayError;
pub use command::{Back, CameBack, Command, Fingerprint, KeyUse, Place, Reserve, Restock};
pub use entry::{ChainHash, Entry, Forked};
pub use event::{
    Cause, Confirmed, Created, Event, Expired, Forgotten, Held, Kept, Key, Pinned, Placed, PlacedLine,
    Released, Restocked, Returned, Unpinned, UnreadableEvent, decode_events,
};
pub use format::FORMAT;
pub use ledger::{Decision, Ledger, OrderView};
pub use order_table::HoldState;
pub use refusal::{Refusal, Refused};
#[cfg(test)]
pub use snapshot::written_here;
pub use snapshot::{Intact, RECORD_BYTES, Standing, UnreadableSnapshot};

use std::num::NonZeroU8;

use serde::{Deserialize, Serialize};

use super::amount::Money;

/// Milliseconds since 1970-01-01 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Millis(pub i64);

impl Millis {
    /// This time plus `ms` milliseconds, at most the end of time.
    pub fn plus(self, ms: i64) -> Millis {
        Millis(self.0.saturating_add(ms))
    }
}

/// An event's place in its product's history; the first is 1 and none is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Sequence(pub u64);

impl Sequence {
    pub fn next(self) -> Sequence {
        Sequence(self.0 + 1)
    }
}

/// The number of an attempt to pay an order; the first is 1. A pin belongs to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Attempt(NonZeroU8);

impl Attempt {
    pub const FIRST: Attempt = Attempt(NonZeroU8::MIN);

    /// `None` for zero: no attempt has that number.
    pub fn new(number: u8) -> Option<Attempt> {
        NonZeroU8::new(number).map(Attempt)
    }

    pub fn get(self) -> u8 {
        self.0.get()
    }

    /// The one after it, if an order may have so many.
    pub fn next(self) -> Option<Attempt> {
        self.0.checked_add(1).map(Attempt)
    }
}

/// Which owner wrote: raised each time a journal is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Epoch(pub u64);

/// How long a hold stands when nothing else is said.
pub const HOLD_MS_DEFAULT: u32 = 600_000;
/// The longest hold a product may ask for: a week.
pub const HOLD_MS_MAX: u32 = 7 * 24 * 3_600_000;
/// How long the holds of an order of several lines wait for the order's birth.
pub const PLACING_MS: i64 = 5_000;
/// The least time left to a buyer whose payment was declined with attempts left.
pub const UNPIN_GRACE_MS: i64 = 60_000;
/// So many orders that a request with a key has cancelled are dropped at once: each is named, and a group has so much room.
pub const CANCELLED_DROPPED_MAX: usize = 2_000;
/// The most units a product may have on hand.
pub const ON_HAND_MAX: u64 = 1_000_000_000_000;

/// How a product is sold. A change never touches a hold that stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    pub price: Money,
    pub opens_at: Option<Millis>,
    pub closes_at: Option<Millis>,
    /// Live holds plus sold units of one buyer may not exceed this.
    pub per_customer_limit: Option<u32>,
    pub hold_ms: u32,
}

/// The counters of a product at one sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// What came in, less what was written off.
    pub on_hand: u64,
    /// Promised, not yet paid; pinned holds included.
    pub held: u64,
    pub sold: u64,
}

impl Counts {
    /// On hand less what is held or sold. Never negative: `apply` asserts it.
    pub fn available(&self) -> u64 {
        self.on_hand.saturating_sub(self.promised())
    }

    /// Held plus sold: what cannot be taken away again.
    pub fn promised(&self) -> u64 {
        self.held.saturating_add(self.sold)
    }
}

/// Whether the product can be bought, and if not, why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaleState {
    Open,
    Paused,
    NotOpen { opens_at: Millis },
    Closed { closed_at: Millis },
    Archived,
}

impl SaleState {
    /// Precedence: archived, paused, not open, closed.
    pub fn of(archived: bool, paused: bool, settings: Option<&Settings>, now: Millis) -> SaleState {
        if archived {
            return SaleState::Archived;
        }
        if paused {
            return SaleState::Paused;
        }
        match (settings.and_then(|s| s.opens_at), settings.and_then(|s| s.closes_at)) {
            (Some(opens_at), _) if now < opens_at => SaleState::NotOpen { opens_at },
            (_, Some(closed_at)) if now >= closed_at => SaleState::Closed { closed_at },
            _ => SaleState::Open,
        }
    }
}
