//! The store as one thing: the journal that is the truth, and the tables that follow it, in files or in a database.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::{Context, Result};
use secrecy::ExposeSecret;

use crate::clock::Clock;
use crate::config::Config;
use crate::persistence::Tables;
use crate::persistence::journal::{DatabaseConfig, Journal, JournalConfig};

/// Both, opened for writing. While it is open nobody else can open it.
#[derive(Clone)]
pub struct Store {
    dir: PathBuf,
    shared: bool,
    pub journal: Journal,
    pub tables: Tables,
}

impl Store {
    /// The journal first: its lock, or the session of this node, covers the tables. In a database another node may be at it: then
    /// this one stands by until that has stopped.
    pub async fn open(config: &Config, clock: &Clock) -> Result<Store> {
        let brake_us = u64::try_from(config.store.journal_brake.as_micros()).unwrap_or(u64::MAX);
        let dir = config.store.data_dir.clone();
        let (journal, tables) = match &config.store.database_url {
            None => {
                let journal = Journal::open(JournalConfig::new(&dir, clock.clone())).await?;
                let tables = Tables::open(&dir).await;
                (
                    journal,
                    tables.with_context(|| format!("the tables in {} could not be opened", dir.display())),
                )
            }
            Some(url) => {
                std::fs::create_dir_all(&dir).with_context(|| format!("{} cannot be used", dir.display()))?;
                let place = DatabaseConfig::new(url.expose_secret(), clock.clone());
                let (journal, server) = Journal::connect(place).await?;
                (journal, Tables::on(&server).await.context("the tables in the database could not be opened"))
            }
        };
        journal.brake().store(brake_us, Ordering::Relaxed);
        match tables {
            Ok(tables) => Ok(Store { dir, shared: config.store.database_url.is_some(), journal, tables }),
            Err(error) => {
                journal.close().await;
                Err(error)
            }
        }
    }

    /// Whether it stands in a database, where other nodes may take over.
    pub fn is_shared(&self) -> bool {
        self.shared
    }

    /// Where it stands, or what its node keeps for itself.
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
