//! What the journal has done since it was opened, in numbers that anybody may read at any time.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::domain::stock::Entry;

/// Counters since open. They are written by the journal's writer alone and read by the metrics.
#[derive(Debug, Default)]
pub struct JournalStats {
    /// Transactions that were written.
    pub groups: AtomicU64,
    pub entries: AtomicU64,
    pub events: AtomicU64,
    /// Bytes of encoded events.
    pub bytes: AtomicU64,
    /// How long the last transaction took.
    pub last_write_ns: AtomicU64,
    /// All transactions together.
    pub write_ns: AtomicU64,
    /// Pages in the WAL, estimated between checkpoints.
    pub wal_pages: AtomicU64,
    pub checkpoints: AtomicU64,
    pub checkpoint_ns: AtomicU64,
    /// Groups that are definitely not written.
    pub not_written: AtomicU64,
    /// Groups of which nobody knows.
    pub unknown: AtomicU64,
    /// The place of the newest entry.
    pub pos: AtomicI64,
}

/// How much one transaction carries.
#[derive(Debug, Clone, Copy, Default)]
pub struct Volume {
    pub entries: u64,
    pub events: u64,
    pub bytes: u64,
}

impl Volume {
    pub fn of<'e>(entries: impl Iterator<Item = &'e Entry>) -> Volume {
        entries.fold(Volume::default(), |sum, entry| Volume {
            entries: sum.entries + 1,
            events: sum.events + entry.count(),
            bytes: sum.bytes + entry.events.len() as u64,
        })
    }
}

/// Where the journal ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Head {
    pub pos: i64,
    /// Events and bytes appended since the journal was opened.
    pub events: u64,
    pub bytes: u64,
}

impl JournalStats {
    pub(super) fn written(&self, group: Volume, pos: i64, took_ns: u64) {
        self.groups.fetch_add(1, Ordering::Relaxed);
        self.entries.fetch_add(group.entries, Ordering::Relaxed);
        self.events.fetch_add(group.events, Ordering::Relaxed);
        self.bytes.fetch_add(group.bytes, Ordering::Relaxed);
        self.last_write_ns.store(took_ns, Ordering::Relaxed);
        self.write_ns.fetch_add(took_ns, Ordering::Relaxed);
        self.pos.store(pos, Ordering::Release);
    }

    pub fn head(&self) -> Head {
        Head {
            pos: self.pos.load(Ordering::Acquire),
            events: self.events.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}
