//! The tail: what the log holds and `journal.db` does not yet, in memory, for everyone who reads.
//!
//! Always true: its entries follow each other without a gap, and each is on the disk already. An entry leaves only
//! after it was committed to `journal.db`; so whoever looks here first and there afterwards misses nothing. In a database an entry is
//! committed before it comes in here; where another node has written in between, all before it leaves.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::segment::bytes_of;
use crate::domain::id::ProductId;
use crate::domain::stock::Entry;

/// An entry and its place.
pub type Placed = (i64, Arc<Entry>);

#[derive(Debug, Default)]
struct Entries {
    /// The place of the first.
    first_pos: i64,
    entries: VecDeque<Arc<Entry>>,
    bytes: usize,
}

/// Shared between the writer that adds, the archive that takes away, and all readers.
#[derive(Debug, Default)]
pub struct Tail(Mutex<Entries>);

impl Tail {
    /// What a stopped server left in its log.
    pub fn of(found: Vec<(i64, Entry)>) -> Tail {
        let tail = Tail::default();
        if let Some((first, _)) = found.first() {
            tail.push(*first, found.into_iter().map(|(_, entry)| entry));
        }
        tail
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds entries that are on the disk, the first of them at `pos`. Says how many bytes the tail has now.
    pub fn push(&self, pos: i64, written: impl Iterator<Item = Entry>) -> usize {
        let mut tail = self.entries();
        if tail.first_pos + tail.entries.len() as i64 != pos {
            // Either it is empty, or somebody else's entries stand in between.
            tail.entries.clear();
            (tail.first_pos, tail.bytes) = (pos, 0);
        }
        for entry in written {
            tail.bytes += bytes_of(&entry);
            tail.entries.push_back(Arc::new(entry));
        }
        tail.bytes
    }

    /// The oldest entries, up to `bytes_max` of them and one at least.
    pub fn front(&self, bytes_max: usize) -> Vec<Placed> {
        let tail = self.entries();
        let mut bytes = 0;
        let fits = |entry: &&Arc<Entry>| {
            let before = bytes;
            bytes += bytes_of(entry);
            before < bytes_max
        };
        (tail.first_pos..).zip(tail.entries.iter().take_while(fits).cloned()).collect()
    }

    /// Drops everything up to `pos`.
    pub fn drop_to(&self, pos: i64) {
        let mut tail = self.entries();
        while tail.first_pos <= pos
            && let Some(gone) = tail.entries.pop_front()
        {
            tail.bytes -= bytes_of(&gone);
            tail.first_pos += 1;
        }
    }

    /// Drops the oldest until no more than `bytes` are left.
    pub fn shrink_to(&self, bytes: usize) {
        let mut tail = self.entries();
        while tail.bytes > bytes
            && let Some(gone) = tail.entries.pop_front()
        {
            tail.bytes -= bytes_of(&gone);
            tail.first_pos += 1;
        }
    }

    pub fn bytes(&self) -> usize {
        self.entries().bytes
    }

    pub fn is_empty(&self) -> bool {
        self.entries().entries.is_empty()
    }

    /// Everything behind `pos`, until it holds `events_max`; `None` if what follows `pos` is not all here.
    pub fn after(&self, pos: i64, events_max: u64) -> Option<Vec<Placed>> {
        let tail = self.entries();
        let skip = usize::try_from(pos.checked_add(1)?.checked_sub(tail.first_pos)?).ok()?;
        if tail.entries.is_empty() {
            return None;
        }
        let mut events = 0;
        let enough = |(_, entry): &Placed| {
            let before = events;
            events += entry.count();
            before < events_max
        };
        Some((tail.first_pos..).zip(tail.entries.iter().cloned()).skip(skip).take_while(enough).collect())
    }

    /// All of it.
    pub fn all(&self) -> Vec<Placed> {
        let tail = self.entries();
        (tail.first_pos..).zip(tail.entries.iter().cloned()).collect()
    }

    /// One product's entries.
    pub fn of_product(&self, product: ProductId) -> Vec<Placed> {
        let tail = self.entries();
        let all = (tail.first_pos..).zip(&tail.entries);
        all.filter(|(_, entry)| entry.product == product).map(|(pos, entry)| (pos, entry.clone())).collect()
    }

    /// The place of the newest entry, if there is one.
    pub fn last_pos(&self) -> Option<i64> {
        let tail = self.entries();
        (!tail.entries.is_empty()).then(|| tail.first_pos + tail.entries.len() as i64 - 1)
    }
}
