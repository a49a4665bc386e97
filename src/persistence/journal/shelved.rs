//! The log with the file behind it, as the writer wants them: where a group is put down, and where a history ends.

use std::path::{Path, PathBuf};

use sqlx::Connection;
use sqlx::sqlite::SqliteConnection;
use tokio::runtime::Runtime;

use super::Shared;
use super::log::{Log, LogError};
use super::reader::{archived_heads, tuning};
use super::writer::{PutDown, Settled};
use crate::domain::id::ProductId;
use crate::domain::stock::{Entry, Sequence};
use crate::persistence::StoreError;
use crate::persistence::sql::sqlite;

/// What is not in the log's tail has been brought into `journal.db`; so that is the place to look.
pub struct Shelved {
    log: Log,
    path: PathBuf,
    /// A connection of its own, opened when it is needed: a pool's would have to go back through the pool's runtime.
    file: Option<SqliteConnection>,
    runtime: Runtime,
}

impl Shelved {
    pub fn new(log: Log, dir: &Path) -> std::io::Result<Shelved> {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        Ok(Shelved { log, path: dir.join("journal.db"), file: None, runtime })
    }
}

impl PutDown for Shelved {
    fn last_pos(&self) -> i64 {
        self.log.last_pos()
    }

    fn heads(&mut self, products: &[ProductId]) -> Result<Vec<(ProductId, Sequence)>, StoreError> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(self.runtime.block_on(sqlite::reader(&self.path, &tuning()))?),
        };
        self.runtime.block_on(archived_heads(file, products))
    }

    fn append<'e>(
        &mut self,
        entries: impl ExactSizeIterator<Item = &'e Entry> + Clone,
    ) -> Result<i64, LogError> {
        let first = self.log.last_pos() + 1;
        self.log.append(entries).map(|()| first)
    }

    /// The archive looks for room.
    fn settle(&mut self) -> Settled {
        Settled::NotMine
    }

    fn tail_has(&mut self, shared: &Shared, bytes: usize) {
        shared.archive.tail_has(bytes, self.log.file_bytes());
    }

    /// Lets go of the file, so that whoever closes it after this is the last.
    fn close(&mut self) {
        if let Some(file) = self.file.take() {
            // Read-only: there is nothing to lose.
            let _ = self.runtime.block_on(file.close());
        }
    }
}
