//! What a ledger can be asked to do. Each command leads to at most one event.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::{Attempt, Cause, Millis, PlacedLine, Settings};
use crate::domain::amount::{Money, Quantity};
use crate::domain::id::{OrderId, ProductId, UserId};

/// The idempotency key a request came with, as 128 bits, and a hash of what it asked for.
/// Keys are scoped by their caller, so the hash need not resist an adversary: a clash hurts only who made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyUse {
    pub key: [u8; 16],
    pub body: u64,
}

/// A key of one caller, as 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(u64);

impl Fingerprint {
    /// Of two different keys it is the same once in 2^64.
    pub fn of(caller: UserId, key: [u8; 16]) -> Fingerprint {
        let mut bytes = [0u8; 32];
        bytes[..16].copy_from_slice(caller.as_bytes());
        bytes[16..].copy_from_slice(&key);
        Fingerprint(xxh3_64(&bytes))
    }

    pub fn bits(self) -> u64 {
        self.0
    }
}

/// Hold `quantity` units for `buyer`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reserve {
    pub order: OrderId,
    pub line: u8,
    pub buyer: UserId,
    pub quantity: Quantity,
    /// Only the order's first hold carries it.
    pub key: Option<KeyUse>,
    /// What the buyer expects this line to cost; another price is refused.
    pub expected: Option<Money>,
    /// The order's home when the order has several lines: the hold then waits for the order's birth.
    pub placing: Option<ProductId>,
}

/// The birth of an order of several lines, at its home.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub order: OrderId,
    pub deadline: Millis,
    pub lines: Vec<PlacedLine>,
}

/// More units, or fewer: never below what is promised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restock {
    pub delta: i64,
    pub reason: String,
    /// The administrator's key, hashed together with who used it.
    pub key: Option<KeyUse>,
}

/// Where a returned unit goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Back {
    ToStock,
    WrittenOff,
}

/// Why sold units come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CameBack {
    /// The line was cancelled before it shipped.
    Cancelled,
    /// The buyer had them, and sent them back.
    Returned,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// The first command of a product.
    Create {
        settings: Settings,
        stock: u64,
    },
    Configure(Settings),
    Restock(Restock),
    Pause,
    Resume,
    /// Takes the product off sale for good; returns still work.
    Archive,
    Reserve(Reserve),
    Place(Place),
    /// The order of this placing hold was born; the hold gets its real deadline.
    Keep {
        order: OrderId,
        deadline: Millis,
    },
    /// Money is about to move: the hold may no longer lapse. A later attempt may pin again what an earlier one unpinned,
    /// never the other way round.
    Pin {
        order: OrderId,
        attempt: Attempt,
    },
    /// The payment was declined with attempts left.
    Unpin {
        order: OrderId,
        attempt: Attempt,
    },
    /// Paid: `quantity` units are sold, the rest of the hold is given back.
    Confirm {
        order: OrderId,
        quantity: Quantity,
        attempt: Attempt,
    },
    /// The hold ends without a sale. `by` repeats the answer for the same key; after a failed payment it is the number of
    /// its attempt.
    Release {
        order: OrderId,
        cause: Cause,
        by: u64,
    },
    /// Sold units come back. `by` says which return it is: told twice it is done once.
    Return {
        order: OrderId,
        quantity: Quantity,
        back: Back,
        why: CameBack,
        by: u64,
    },
    /// Drops what is of no more use here: orders of which nothing came, whose hold was due before these times. Of those that a request with
    /// a key has cancelled only some at once.
    Forget {
        unkeyed_before: Millis,
        keyed_before: Millis,
    },
}

impl Command {
    /// Commands that finish something go before commands that start something.
    pub fn is_reserve(&self) -> bool {
        matches!(self, Command::Reserve(_))
    }

    /// Whether the command may give units back.
    pub fn may_return_units(&self) -> bool {
        !matches!(self, Command::Reserve(_) | Command::Place(_) | Command::Keep { .. } | Command::Pin { .. })
    }
}
