//! The store as one thing: the journal that is the truth, and the tables that follow it, in files or in a database.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result};
use secrecy::ExposeSecret;

use crate::clock::Clock;
use crate::config::Config;
use crate::persistence::Tables;
use crate::persistence::journal::{DatabaseConfig, Journal, JournalConfig, Neighbours};

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
        // Nobody is to ask a command for anything.
        Store::open_among(config, clock, Arc::new(Neighbours::new(None, true))).await
    }

    /// The same for a node that other nodes reach.
    pub async fn open_among(config: &Config, clock: &Clock, neighbours: Arc<Neighbours>) -> Result<Store> {
        let brake_us = u64::try_from(config.store.journal_brake.as_micros()).unwrap_or(u64::MAX);
        let dir = config.store.data_dir.clone();
        let place = place(config, clock, neighbours);
        let shared = place.is_some();
        let (journal, tables) = match place {
            None => {
                let journal = Journal::open(JournalConfig::new(&dir, clock.clone())).await?;
                let tables = Tables::open(&dir).await;
                (
                    journal,
                    tables.with_context(|| format!("the tables in {} could not be opened", dir.display())),
                )
            }
            Some(place) => {
                std::fs::create_dir_all(&dir).with_context(|| format!("{} cannot be used", dir.display()))?;
                let (journal, server) = Journal::connect(place).await?;
                (journal, Tables::on(&server).await.context("the tables in the database could not be opened"))
            }
        };
        journal.brake().store(brake_us, Ordering::Relaxed);
        match tables {
            Ok(tables) => Ok(Store { dir, shared, journal, tables }),
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

/// The database that keeps the store for several nodes, if there is one.
pub fn place(config: &Config, clock: &Clock, neighbours: Arc<Neighbours>) -> Option<DatabaseConfig> {
    let url = config.store.database_url.as_ref()?;
    Some(DatabaseConfig { neighbours, ..DatabaseConfig::new(url.expose_secret(), clock.clone()) })
}
