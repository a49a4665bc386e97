//! The orders one product knows, found by id, by key and by deadline.
//!
//! Records live in fixed-size chunks that never move; the indexes hold record numbers and half a hash, so an order
//! costs its record and a few bytes. Nothing here ever grows as a whole: a million orders are taken in without a pause.
//! The deadlines are lazy: the first is always a live hold's, what lies behind may be stale and is dropped when it
//! comes up.

use hashbrown::DefaultHashBuilder;
use serde::{Deserialize, Serialize};

use super::deadlines::Deadlines;
use super::index::{Hash, Index};
use super::{CameBack, Cause, Millis, PlacedLine, Sequence};
use crate::domain::amount::{Money, Quantity};
use crate::domain::id::{OrderId, ProductId, UserId};

/// Where a hold stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HoldState {
    /// One of several lines; the order is not born yet.
    Placing,
    Held,
    /// Money is moving.
    Pinned,
    Sold,
    Released(Cause),
    Expired,
}

impl HoldState {
    /// Whether units are promised by it.
    pub fn is_live(self) -> bool {
        matches!(self, HoldState::Placing | HoldState::Held | HoldState::Pinned)
    }

    /// Whether it ends by itself at its deadline.
    pub fn lapses(self) -> bool {
        matches!(self, HoldState::Placing | HoldState::Held)
    }
}

/// What only orders of several lines have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Many {
    /// The order's home, while this hold waits for the birth and after it.
    Home {
        home: ProductId,
        /// Before this time the home need not be asked again. No part of the history: after a restart it is asked.
        #[serde(skip)]
        ask_at: Millis,
    },
    /// This is the home, and the order was born with these lines.
    Lines(Vec<PlacedLine>),
}

/// What came back of what was sold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Returns {
    /// Which returns they were, those that can be told apart.
    pub by: Vec<u64>,
    /// Why the last units came.
    pub why: CameBack,
}

/// One order's share of this product: 128 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub order: OrderId,
    pub buyer: UserId,
    /// All zero when the order came without a key.
    pub key: [u8; 16],
    pub body: u64,
    pub unit_price: Money,
    pub deadline: Millis,
    /// The sequence of the hold: its place in the queue.
    pub sequence: Sequence,
    /// The key hash of the request that ended it, 0 for none.
    pub ended_by: u64,
    pub quantity: Quantity,
    /// Units sold and not returned.
    pub sold: u32,
    pub line: u8,
    pub state: HoldState,
    /// While it is pinned, the attempt that did it; while it is held, the last attempt that is over. Otherwise 0.
    pub attempt: u8,
    pub keyed: bool,
    pub many: Option<Box<Many>>,
    /// Few orders have any.
    pub returns: Option<Box<Returns>>,
}

/// A million holds are kept in memory: a word more is eight megabytes.
const _: () = assert!(size_of::<Record>() <= 128);

impl Record {
    /// When something must be done about this hold, if it does not stand until it is ended.
    pub fn due_at(&self) -> Option<Millis> {
        match (self.state, self.many.as_deref()) {
            (HoldState::Placing, Some(Many::Home { ask_at, .. })) => Some(self.deadline.max(*ask_at)),
            (state, _) => state.lapses().then_some(self.deadline),
        }
    }

    /// Units that it holds, and units that are sold by it.
    pub fn units(&self) -> (u32, u32) {
        if self.state.is_live() { (self.quantity.get(), 0) } else { (0, self.sold) }
    }

    /// Whether it has ended without ever having been sold.
    pub fn came_to_nothing(&self) -> bool {
        matches!(self.state, HoldState::Released(_) | HoldState::Expired)
    }

    /// Whether it was cancelled by a request that hears the same when it comes again.
    pub fn answers_its_cancel(&self) -> bool {
        self.state == HoldState::Released(Cause::Cancelled) && self.ended_by != 0
    }
}

const CHUNK: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct OrderTable {
    chunks: Vec<Vec<Option<Record>>>,
    free: Vec<u32>,
    by_order: Index,
    by_key: Index,
    deadlines: Deadlines,
    hasher: DefaultHashBuilder,
}

impl OrderTable {
    fn at(chunks: &[Vec<Option<Record>>], number: u32) -> Option<&Record> {
        chunks.get(number as usize / CHUNK)?.get(number as usize % CHUNK)?.as_ref()
    }

    fn at_mut(&mut self, number: u32) -> Option<&mut Record> {
        self.chunks.get_mut(number as usize / CHUNK)?.get_mut(number as usize % CHUNK)?.as_mut()
    }

    fn number_of(&self, order: OrderId) -> Option<u32> {
        let hash = Hash::of(&self.hasher, order);
        self.by_order.find(hash, |number| Self::at(&self.chunks, number).is_some_and(|r| r.order == order))
    }

    pub fn get(&self, order: OrderId) -> Option<&Record> {
        Self::at(&self.chunks, self.number_of(order)?)
    }

    pub fn by_key(&self, buyer: UserId, key: [u8; 16]) -> Option<&Record> {
        let hash = Hash::of(&self.hasher, (buyer, key));
        let is = |r: &Record| r.key == key && r.buyer == buyer;
        let number = self.by_key.find(hash, |number| Self::at(&self.chunks, number).is_some_and(is))?;
        Self::at(&self.chunks, number)
    }

    /// All records, in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = &Record> {
        self.chunks.iter().flatten().flatten()
    }

    pub fn len(&self) -> usize {
        self.by_order.len()
    }

    pub fn insert(&mut self, record: Record) {
        let (order, buyer, key, keyed) = (record.order, record.buyer, record.key, record.keyed);
        let due_at = record.due_at();
        let number = match self.free.pop() {
            Some(number) => {
                if let Some(slot) = self
                    .chunks
                    .get_mut(number as usize / CHUNK)
                    .and_then(|c| c.get_mut(number as usize % CHUNK))
                {
                    *slot = Some(record);
                }
                number
            }
            None => {
                if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
                    self.chunks.push(Vec::with_capacity(if self.chunks.is_empty() { 4 } else { CHUNK }));
                }
                let full = (self.chunks.len() - 1) * CHUNK;
                match self.chunks.last_mut() {
                    Some(chunk) => {
                        chunk.push(Some(record));
                        (full + chunk.len() - 1) as u32
                    }
                    None => return,
                }
            }
        };
        let hash = Hash::of(&self.hasher, order);
        self.by_order.insert(hash, number);
        if keyed {
            let hash = Hash::of(&self.hasher, (buyer, key));
            self.by_key.insert(hash, number);
        }
        if let Some(due_at) = due_at {
            self.deadlines.push(due_at, number);
        }
    }

    /// Changes one record; its deadline index follows.
    pub fn change<T>(&mut self, order: OrderId, change: impl FnOnce(&mut Record) -> T) -> Option<T> {
        let number = self.number_of(order)?;
        let record = self.at_mut(number)?;
        let before = record.due_at();
        let answer = change(record);
        if let Some(due_at) = record.due_at().filter(|due_at| before != Some(*due_at)) {
            self.deadlines.push(due_at, number);
        }
        self.drop_stale();
        Some(answer)
    }

    pub fn remove(&mut self, order: OrderId) -> Option<Record> {
        let number = self.number_of(order)?;
        let record =
            self.chunks.get_mut(number as usize / CHUNK)?.get_mut(number as usize % CHUNK)?.take()?;
        self.by_order.remove(Hash::of(&self.hasher, order), number);
        if record.keyed {
            self.by_key.remove(Hash::of(&self.hasher, (record.buyer, record.key)), number);
        }
        self.free.push(number);
        self.drop_stale();
        Some(record)
    }

    /// The hold that lapses first.
    pub fn first_due(&self) -> Option<&Record> {
        let (_, number) = self.deadlines.first()?;
        Self::at(&self.chunks, number)
    }

    fn drop_stale(&mut self) {
        while let Some((deadline, number)) = self.deadlines.first() {
            let due_at = Self::at(&self.chunks, number).and_then(Record::due_at);
            if due_at == Some(deadline) {
                return;
            }
            self.deadlines.pop();
        }
    }
}
