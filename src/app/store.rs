//! The store as one thing: the journal that is the truth, and the tables that follow it.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::{Context, Result};

use crate::clock::Clock;
use crate::config::Config;
use crate::persistence::Tables;
use crate::persistence::journal::{Journal, JournalConfig};

/// Both files, opened for writing. While it is open nobody else can open it.
#[derive(Clone)]
pub struct Store {
    dir: PathBuf,
    pub journal: Journal,
    pub tables: Tables,
}

impl Store {
    /// The journal first: its lock covers the tables.
    pub async fn open(config: &Config, clock: &Clock) -> Result<Store> {
        let dir = &config.store.data_dir;
        let journal = Journal::open(JournalConfig::new(dir, clock.clone())).await?;
        let brake_us = u64::try_from(config.store.journal_brake.as_micros()).unwrap_or(u64::MAX);
        journal.brake().store(brake_us, Ordering::Relaxed);
        match Tables::open(dir).await {
            Ok(tables) => Ok(Store { dir: dir.clone(), journal, tables }),
            Err(error) => {
                journal.close().await;
                Err(error).with_context(|| format!("the tables in {} could not be opened", dir.display()))
            }
        }
    }

    /// Where it stands.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Empties what is still in the write-ahead logs and lets go of the lock. What cannot be written now is read again from
    /// the journal at the next start.
    pub async fn close(self) {
        if let Err(error) = self.tables.close().await {
            tracing::warn!(%error, "the tables were not closed cleanly; the next start brings them up to date");
        }
        self.journal.close().await;
    }
}
