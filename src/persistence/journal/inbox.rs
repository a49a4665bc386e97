//! What waits for the journal's writer: appends in order of arrival.
//!
//! Always true: at most `capacity` appends wait; what is taken in one turn is one group on the disk.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Append, GROUP_BYTES_MAX, GROUP_ENTRIES_MAX};

#[derive(Default)]
struct Waiting {
    appends: VecDeque<Append>,
    /// Nothing more is taken in.
    closed: bool,
    /// The writer ends once nothing waits.
    finish: bool,
    /// The writer sleeps and must be rung for.
    asleep: bool,
    /// It is to look around, whoever waits.
    nudged: bool,
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

    /// Has the writer look around.
    pub fn nudge(&self) {
        let mut waiting = self.waiting();
        waiting.nudged = true;
        self.ring(&mut waiting);
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

    /// Waits for the next group, for no longer than `patience`.
    pub fn next(&self, patience: Duration) -> Next {
        let idle = |waiting: &mut Waiting| {
            waiting.asleep = waiting.appends.is_empty() && !waiting.finish && !waiting.nudged;
            waiting.asleep
        };
        let (mut waiting, _) = self
            .bell
            .wait_timeout_while(self.waiting(), patience, idle)
            .unwrap_or_else(PoisonError::into_inner);
        (waiting.asleep, waiting.nudged) = (false, false);
        match (waiting.appends.is_empty(), waiting.finish) {
            (false, _) => Next::Group(waiting.group()),
            (true, true) => Next::End,
            (true, false) => Next::Nothing,
        }
    }
}

/// What the writer finds.
pub enum Next {
    Group(Vec<Append>),
    /// Nobody came.
    Nothing,
    /// Everything is done, and nothing more will come.
    End,
}

impl Waiting {
    /// Everything that waits, as far as one group carries it.
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
