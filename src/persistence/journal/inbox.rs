//! What waits for the journal's writer: appends in order of arrival, snapshots behind them.
//!
//! Always true: at most `capacity` appends wait; what is taken in one turn is one transaction; a snapshot moves one
//! slice at a time and never keeps a group waiting for more than one slice.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::snapshot::Saving;
use super::{Append, GROUP_BYTES_MAX, GROUP_ENTRIES_MAX};

/// While groups come without a pause, a slice of a snapshot goes in after this many.
const GROUPS_PER_SLICE: u32 = 4;

/// What the writer does next.
pub enum Turn {
    /// One transaction.
    Group(Vec<Append>),
    /// One slice of this snapshot.
    Slice(Box<Saving>),
    /// Nothing came for as long as the writer wanted to wait.
    Idle,
    /// Everything is done and nothing more will come.
    Finish,
}

#[derive(Default)]
struct Waiting {
    appends: VecDeque<Append>,
    snapshots: VecDeque<Box<Saving>>,
    groups_since_slice: u32,
    /// Nothing more is taken in.
    closed: bool,
    /// The writer ends once nothing waits.
    finish: bool,
    /// The writer sleeps and must be rung for.
    asleep: bool,
}

pub struct Inbox {
    capacity: usize,
    waiting: Mutex<Waiting>,
    bell: Condvar,
}

impl Inbox {
    pub fn new(capacity: usize) -> Inbox {
        Inbox { capacity, waiting: Mutex::default(), bell: Condvar::new() }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self, waiting: &mut Waiting) {
        if std::mem::take(&mut waiting.asleep) {
            self.bell.notify_one();
        }
    }

    /// Hands the append back when the inbox is full or closed.
    pub fn put(&self, append: Append) -> Result<(), Append> {
        let mut waiting = self.waiting();
        if waiting.closed || waiting.appends.len() >= self.capacity {
            return Err(append);
        }
        waiting.appends.push_back(append);
        self.ring(&mut waiting);
        Ok(())
    }

    pub fn put_snapshot(&self, saving: Box<Saving>) -> Result<(), Box<Saving>> {
        let mut waiting = self.waiting();
        if waiting.closed {
            return Err(saving);
        }
        waiting.snapshots.push_back(saving);
        self.ring(&mut waiting);
        Ok(())
    }

    /// The rest of a snapshot goes to the front, so that one is done before the next begins.
    pub fn put_back(&self, saving: Box<Saving>) {
        self.waiting().snapshots.push_front(saving);
    }

    /// No new appends; those that wait are still written.
    pub fn close(&self) {
        self.waiting().closed = true;
    }

    /// Closes, and lets the writer end.
    pub fn finish(&self) {
        let mut waiting = self.waiting();
        waiting.closed = true;
        waiting.finish = true;
        self.ring(&mut waiting);
    }

    pub fn len(&self) -> usize {
        self.waiting().appends.len()
    }

    /// Waits up to `patience` for something to do.
    pub fn next(&self, patience: Duration) -> Turn {
        let mut waiting = self.waiting();
        if waiting.nothing() && !waiting.finish {
            waiting.asleep = true;
            let (woken, _) = self
                .bell
                .wait_timeout_while(waiting, patience, |waiting| waiting.asleep)
                .unwrap_or_else(PoisonError::into_inner);
            waiting = woken;
            waiting.asleep = false;
        }
        waiting.turn()
    }
}

impl Waiting {
    fn nothing(&self) -> bool {
        self.appends.is_empty() && self.snapshots.is_empty()
    }

    fn turn(&mut self) -> Turn {
        let slice_is_due = self.appends.is_empty() || self.groups_since_slice >= GROUPS_PER_SLICE;
        if slice_is_due && let Some(saving) = self.snapshots.pop_front() {
            self.groups_since_slice = 0;
            return Turn::Slice(saving);
        }
        if self.appends.is_empty() {
            return if self.finish { Turn::Finish } else { Turn::Idle };
        }
        self.groups_since_slice += 1;
        Turn::Group(self.group())
    }

    /// Everything that waits, as far as one transaction carries it.
    fn group(&mut self) -> Vec<Append> {
        let mut bytes = 0;
        let fits = |append: &&Append| {
            bytes += append.entry.events.len();
            bytes <= GROUP_BYTES_MAX
        };
        // An entry that is too big by itself goes alone.
        let many = self.appends.iter().take(GROUP_ENTRIES_MAX).take_while(fits).count().max(1);
        self.appends.drain(..many).collect()
    }
}
