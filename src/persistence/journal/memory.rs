//! A journal that forgets everything with the process: for tests of what stands above it, and for benches.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::{Append, AppendTo, Appended, NotWritten};
use crate::domain::id::ProductId;
use crate::domain::stock::{Entry, Sequence};

/// Answers before `submit` returns, and refuses a gap or a fork as the real one does.
#[derive(Debug, Default)]
pub struct MemoryJournal {
    keeps: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    heads: BTreeMap<ProductId, Sequence>,
    entries: Vec<Entry>,
}

impl MemoryJournal {
    /// Keeps all entries.
    pub fn new() -> MemoryJournal {
        MemoryJournal { keeps: true, ..MemoryJournal::default() }
    }

    /// Keeps nothing but each product's last sequence.
    pub fn forgetful() -> MemoryJournal {
        MemoryJournal::default()
    }

    /// What was appended, in order.
    pub fn entries(&self) -> Vec<Entry> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).entries.clone()
    }

    fn append(&self, entry: Entry) -> Appended {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let head = state.heads.entry(entry.product).or_default();
        if entry.first != head.next() {
            return Appended::NotWritten(NotWritten::Failed);
        }
        *head = entry.last;
        if self.keeps {
            state.entries.push(entry);
        }
        Appended::Written
    }
}

impl AppendTo for MemoryJournal {
    fn submit(&self, append: Append) -> Result<(), Append> {
        let outcome = self.append(append.entry);
        (append.reply)(outcome);
        Ok(())
    }
}
