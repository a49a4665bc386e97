//! Locks on rows: who has them, who waits, and in which order they get them.
//!
//! Always true: whoever came first gets a lock first, and a request waits for everybody before it that it cannot share
//! with, whether he has the lock or waits for it.

use std::collections::BTreeMap;

use super::Connection;

/// What can be locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Row {
    Session(i64),
    /// Of a session's heart.
    Beat(i64),
    Shard(i64),
    /// `journal_end`
    End,
    /// The primary key of `journal`.
    Place(i64),
    /// Its unique key: a product and the first sequence of an entry.
    Sequence(i64, i64),
    Checkpoint,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Shared,
    Exclusive,
}

#[derive(Debug, Clone, Copy)]
struct Request {
    by: Connection,
    mode: Mode,
    granted: bool,
}

#[derive(Debug, Clone, Default)]
pub struct Locks {
    rows: BTreeMap<Row, Vec<Request>>,
}

fn in_the_way(before: &Request, by: Connection, mode: Mode) -> bool {
    before.by != by && (before.mode == Mode::Exclusive || mode == Mode::Exclusive)
}

impl Locks {
    pub fn has(&self, row: Row, by: Connection, mode: Mode) -> bool {
        let requests = self.rows.get(&row).into_iter().flatten();
        let mut own = requests.filter(|request| request.granted && request.by == by);
        own.any(|request| request.mode == Mode::Exclusive || mode == Mode::Shared)
    }

    /// Whether it is there now. Otherwise it is waited for, in the place that was first taken.
    pub fn ask(&mut self, row: Row, by: Connection, mode: Mode) -> bool {
        if self.has(row, by, mode) {
            return true;
        }
        let requests = self.rows.entry(row).or_default();
        let waiting = |request: &Request| request.by == by && !request.granted;
        let at = requests.iter().position(waiting).unwrap_or_else(|| {
            requests.push(Request { by, mode, granted: false });
            requests.len() - 1
        });
        let free = !requests[..at].iter().any(|before| in_the_way(before, by, mode));
        requests[at].granted = free;
        free
    }

    pub fn release(&mut self, row: Row, by: Connection) {
        if let Some(requests) = self.rows.get_mut(&row) {
            requests.retain(|request| request.by != by);
        }
    }

    pub fn release_all(&mut self, by: Connection) {
        for requests in self.rows.values_mut() {
            requests.retain(|request| request.by != by);
        }
        self.rows.retain(|_, requests| !requests.is_empty());
    }

    /// Whom somebody waits for.
    pub fn before(&self, by: Connection) -> Vec<Connection> {
        let waits = |requests: &Vec<Request>| {
            let at = requests.iter().position(|request| request.by == by && !request.granted)?;
            let mode = requests[at].mode;
            Some(
                requests[..at]
                    .iter()
                    .filter(|before| in_the_way(before, by, mode))
                    .map(|before| before.by)
                    .collect(),
            )
        };
        self.rows.values().find_map(waits).unwrap_or_default()
    }

    /// Whom nobody gets past: does somebody wait, through whatever others, for himself?
    pub fn is_in_a_circle(&self, by: Connection) -> bool {
        let (mut next, mut seen) = (self.before(by), Vec::new());
        while let Some(other) = next.pop() {
            if other == by {
                return true;
            }
            if !seen.contains(&other) {
                seen.push(other);
                next.extend(self.before(other));
            }
        }
        false
    }
}
