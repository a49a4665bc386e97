//! What has happened to a product, and how it is written down.
//!
//! An event is a kind, the version of its shape, and its fields. Kinds and versions are numbers that never
//! change their meaning: a new shape of an old kind gets the next version and a second arm in `decode`, and what is
//! new raises `FORMAT`.

use serde::{Deserialize, Serialize};

use super::{Attempt, CameBack, Millis, Sequence, Settings};
use crate::domain::amount::{Money, Quantity};
use crate::domain::id::{OrderId, ProductId, UserId};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Created {
    pub settings: Settings,
    pub stock: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restocked {
    pub delta: i64,
    pub reason: String,
    pub key: Option<Key>,
}

/// A 128-bit idempotency key and the hash of the request it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    #[serde(with = "serde_key")]
    pub key: [u8; 16],
    pub body: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub order: OrderId,
    pub line: u8,
    pub buyer: UserId,
    pub quantity: Quantity,
    /// Frozen: a later price change does not touch it.
    pub unit_price: Money,
    /// When the hold lapses, or, while the order is being placed, when the placing does.
    pub deadline: Millis,
    pub key: Option<Key>,
    /// The order's home, when the order has several lines.
    pub placing: Option<ProductId>,
}

/// One line of an order of several lines, as its home remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedLine {
    pub line: u8,
    pub product: ProductId,
    pub quantity: Quantity,
    pub unit_price: Money,
    /// The hold's sequence in that product's history.
    pub sequence: Sequence,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    pub order: OrderId,
    pub buyer: UserId,
    pub deadline: Millis,
    pub key: Option<Key>,
    pub lines: Vec<PlacedLine>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    pub order: OrderId,
    pub deadline: Millis,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pinned {
    pub order: OrderId,
    pub attempt: Attempt,
}

/// The attempt is over, whether it had pinned or not: it can never pin again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unpinned {
    pub order: OrderId,
    pub deadline: Millis,
    pub attempt: Attempt,
}

/// `quantity` units of the hold are sold; what the hold had more is available again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmed {
    pub order: OrderId,
    pub line: u8,
    pub quantity: Quantity,
    /// What the hold had. Not known of what was written before this was asked for.
    pub held: Option<Quantity>,
}

/// Why a hold ended without a sale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Cause {
    /// The buyer cancelled.
    Cancelled,
    /// The order was never born: another line was refused, or the placing lapsed.
    NotPlaced,
    /// The bank said no, and no attempt is left.
    PaymentFailed,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    pub order: OrderId,
    pub line: u8,
    pub quantity: Quantity,
    pub cause: Cause,
    pub by: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expired {
    pub order: OrderId,
    pub line: u8,
    pub quantity: Quantity,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Returned {
    pub order: OrderId,
    pub line: u8,
    pub quantity: Quantity,
    pub to_stock: bool,
    pub why: CameBack,
    /// Which return it is; 0 for one that is not told apart.
    pub by: u64,
    /// Nothing of the hold is sold any more.
    pub whole: bool,
}

/// Orders of which nothing came are dropped: all whose holds were due before these times, but for those that a request with a key has
/// cancelled; and of these the ones that are named, each with what cancelled it: from here on the tables know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forgotten {
    pub unkeyed_before: Millis,
    pub keyed_before: Millis,
    pub cancelled: Vec<(OrderId, u64)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Created(Created),
    Configured(Settings),
    Restocked(Restocked),
    Paused,
    Resumed,
    Archived,
    Held(Held),
    Placed(Placed),
    Kept(Kept),
    Pinned(Pinned),
    Unpinned(Unpinned),
    Confirmed(Confirmed),
    Released(Released),
    Expired(Expired),
    Returned(Returned),
    Forgotten(Forgotten),
}

impl Event {
    /// Whose it is, if it is about an order.
    pub fn order(&self) -> Option<OrderId> {
        match self {
            Event::Held(e) => Some(e.order),
            Event::Placed(e) => Some(e.order),
            Event::Kept(e) => Some(e.order),
            Event::Pinned(e) => Some(e.order),
            Event::Unpinned(e) => Some(e.order),
            Event::Confirmed(e) => Some(e.order),
            Event::Released(e) => Some(e.order),
            Event::Expired(e) => Some(e.order),
            Event::Returned(e) => Some(e.order),
            Event::Created(_)
            | Event::Configured(_)
            | Event::Restocked(_)
            | Event::Paused
            | Event::Resumed
            | Event::Archived
            | Event::Forgotten(_) => None,
        }
    }
}

/// The blob is damaged, or was written by a newer version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnreadableEvent {
    #[error("event kind {kind} version {version} is unknown: the journal was written by a newer version")]
    Unknown { kind: u8, version: u8 },
    #[error("the event blob is damaged")]
    Damaged,
}

/// Shapes that are no longer written.
mod former {
    use super::{Attempt, CameBack, Deserialize, Event, Millis, OrderId, Quantity};

    /// Before attempts were counted there was one.
    #[derive(Deserialize)]
    pub struct Pinned1 {
        order: OrderId,
    }

    #[derive(Deserialize)]
    pub struct Unpinned1 {
        order: OrderId,
        deadline: Millis,
    }

    #[derive(Deserialize)]
    pub struct Returned1 {
        order: OrderId,
        line: u8,
        quantity: Quantity,
        to_stock: bool,
    }

    #[derive(Deserialize)]
    pub struct Confirmed1 {
        order: OrderId,
        line: u8,
        quantity: Quantity,
    }

    /// What was cancelled with a key was never forgotten.
    #[derive(Deserialize)]
    pub struct Forgotten1 {
        unkeyed_before: Millis,
        keyed_before: Millis,
    }

    pub fn forgotten(Forgotten1 { unkeyed_before, keyed_before }: Forgotten1) -> Event {
        Event::Forgotten(super::Forgotten { unkeyed_before, keyed_before, cancelled: Vec::new() })
    }

    pub fn confirmed(Confirmed1 { order, line, quantity }: Confirmed1) -> Event {
        Event::Confirmed(super::Confirmed { order, line, quantity, held: None })
    }

    pub fn pinned(Pinned1 { order }: Pinned1) -> Event {
        Event::Pinned(super::Pinned { order, attempt: Attempt::FIRST })
    }

    pub fn unpinned(Unpinned1 { order, deadline }: Unpinned1) -> Event {
        Event::Unpinned(super::Unpinned { order, deadline, attempt: Attempt::FIRST })
    }

    /// Nobody could ask for a return then; what came back had been cancelled.
    pub fn returned(Returned1 { order, line, quantity, to_stock }: Returned1) -> Event {
        let (why, by, whole) = (CameBack::Cancelled, 0, false);
        Event::Returned(super::Returned { order, line, quantity, to_stock, why, by, whole })
    }
}

/// Every kind with its number, its version and its word: one row a kind. A row that begins with `was` reads a shape that is
/// no longer written.
macro_rules! kinds {
    (
        $( $kind:literal v $version:literal $word:literal $pattern:pat => $body:expr, $decode:expr; )*
        $( was $old_kind:literal v $old_version:literal $old_decode:expr; )*
    ) => {
        /// Every kind in every version that is read.
        #[cfg(test)]
        pub const KINDS: &[(u8, u8)] = &[$( ($kind, $version), )* $( ($old_kind, $old_version), )*];

        impl Event {
            /// Writes the event to the end of `out`.
            pub fn encode(&self, out: &mut Vec<u8>) {
                match self {
                    $( $pattern => {
                        out.push($kind);
                        out.push($version);
                        put($body, out);
                    } )*
                }
            }

            /// The event's name, as the ledger's readers see it.
            pub fn word(&self) -> &'static str {
                #[allow(unused_variables)]
                match self { $( $pattern => $word, )* }
            }

            fn decode_one(bytes: &[u8]) -> Result<(Event, &[u8]), UnreadableEvent> {
                let [kind, version, rest @ ..] = bytes else { return Err(UnreadableEvent::Damaged) };
                match (kind, version) {
                    $( ($kind, $version) => take(rest, $decode), )*
                    $( ($old_kind, $old_version) => take(rest, $old_decode), )*
                    _ => Err(UnreadableEvent::Unknown { kind: *kind, version: *version }),
                }
            }
        }
    };
}

kinds! {
    1 v 1 "created" Event::Created(e) => e, Event::Created;
    2 v 1 "configured" Event::Configured(e) => e, Event::Configured;
    3 v 1 "restocked" Event::Restocked(e) => e, Event::Restocked;
    4 v 1 "paused" Event::Paused => &(), |()| Event::Paused;
    5 v 1 "resumed" Event::Resumed => &(), |()| Event::Resumed;
    6 v 1 "archived" Event::Archived => &(), |()| Event::Archived;
    7 v 1 "held" Event::Held(e) => e, Event::Held;
    8 v 1 "placed" Event::Placed(e) => e, Event::Placed;
    9 v 1 "kept" Event::Kept(e) => e, Event::Kept;
    10 v 2 "pinned" Event::Pinned(e) => e, Event::Pinned;
    11 v 2 "unpinned" Event::Unpinned(e) => e, Event::Unpinned;
    12 v 2 "confirmed" Event::Confirmed(e) => e, Event::Confirmed;
    13 v 1 "released" Event::Released(e) => e, Event::Released;
    14 v 1 "expired" Event::Expired(e) => e, Event::Expired;
    15 v 2 "returned" Event::Returned(e) => e, Event::Returned;
    16 v 2 "forgotten" Event::Forgotten(e) => e, Event::Forgotten;
    was 10 v 1 former::pinned;
    was 11 v 1 former::unpinned;
    was 12 v 1 former::confirmed;
    was 15 v 1 former::returned;
    was 16 v 1 former::forgotten;
}

fn put<T: Serialize>(body: &T, out: &mut Vec<u8>) {
    // Writing a plain struct into memory has no way to fail.
    let written = postcard::to_io(body, &mut *out);
    debug_assert!(written.is_ok());
}

fn take<'b, T: Deserialize<'b>>(
    bytes: &'b [u8],
    wrap: impl FnOnce(T) -> Event,
) -> Result<(Event, &'b [u8]), UnreadableEvent> {
    let (body, rest) = postcard::take_from_bytes(bytes).map_err(|_| UnreadableEvent::Damaged)?;
    Ok((wrap(body), rest))
}

/// All events of a blob, in order.
pub fn decode_events(mut blob: &[u8]) -> Result<Vec<Event>, UnreadableEvent> {
    let mut events = Vec::with_capacity(blob.len() / 64 + 1);
    while !blob.is_empty() {
        let (event, rest) = Event::decode_one(blob)?;
        events.push(event);
        blob = rest;
    }
    Ok(events)
}

mod serde_key {
    use serde::{Deserializer, Serializer};

    pub fn serialize<S: Serializer>(key: &[u8; 16], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_bytes(key)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<[u8; 16], D::Error> {
        d.deserialize_bytes(crate::domain::id::BytesVisitor)
    }
}
