//! The store as one thing: the journal that is the truth, and the tables that follow it, in files or in a database.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, bail};
use secrecy::ExposeSecret;

use crate::clock::Clock;
use crate::config::{Config, Profile};
use crate::persistence::journal::{DatabaseConfig, Journal, JournalConfig, Medium, Neighbours, Server};
use crate::persistence::{StoreError, Tables, folder};

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
        if config.store.database_url.is_some() {
            // Nobody is to ask a command for anything.
            let neighbours = Arc::new(Neighbours::new(None, true));
            return Joined::among(config, clock, neighbours).await?.lead().await;
        }
        let dir = config.store.data_dir.clone();
        let file_bytes = config.store.journal_file_bytes;
        let journal_config = JournalConfig { file_bytes, ..JournalConfig::new(&dir, clock.clone()) };
        let journal = Journal::open(journal_config).await?;
        journal.brake().store(brake_us(config), Ordering::Relaxed);
        let tables = match outlives_power(&dir, config.profile) {
            Ok(()) => {
                let tables = Tables::open(&dir).await;
                tables.with_context(|| format!("the tables in {} could not be opened", dir.display()))
            }
            Err(why) => Err(why),
        };
        Store::of(dir, false, journal, tables).await
    }

    async fn of(dir: PathBuf, shared: bool, journal: Journal, tables: Result<Tables>) -> Result<Store> {
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
    /// the journal at the next start. Whether the tables were closed well.
    pub async fn close(self) -> bool {
        let closed = self.tables.close().await;
        self.journal.close().await;
        is_well(closed)
    }

    /// The same for an opening that is over, both at once and without waiting for whoever reads the files: the next one empties the
    /// write-ahead logs.
    pub async fn abandon(self) {
        let (closed, ()) = tokio::join!(self.tables.abandon(), self.journal.abandon());
        is_well(closed);
    }
}

/// The journal of a node that is one of many: it writes what the node's own products do. The tables are the lead's.
#[derive(Clone)]
pub struct Joined {
    dir: PathBuf,
    server: Server,
    pub journal: Journal,
}

impl Joined {
    pub async fn among(config: &Config, clock: &Clock, neighbours: Arc<Neighbours>) -> Result<Joined> {
        let dir = config.store.data_dir.clone();
        folder::make(&dir).with_context(|| format!("{} cannot be used", dir.display()))?;
        let place = place(config, clock, neighbours).context("no database is named")?;
        let (journal, server) = Journal::join(place).await?;
        journal.brake().store(brake_us(config), Ordering::Relaxed);
        Ok(Joined { dir, server, journal })
    }

    /// Waits until this node is the lead.
    pub async fn lead(self) -> Result<Store> {
        let Joined { dir, server, journal } = self;
        if let Err(error) = journal.lead().await {
            journal.close().await;
            return Err(error.into());
        }
        let tables = Tables::on(&server).await.context("the tables in the database could not be opened");
        Store::of(dir, true, journal, tables).await
    }
}

fn is_well(closed: Result<(), StoreError>) -> bool {
    if let Err(error) = &closed {
        tracing::warn!(%error, "the tables were not closed cleanly; the next start brings them up to date");
    }
    closed.is_ok()
}

/// What is acknowledged is to be there when the machine has power again.
fn outlives_power(dir: &Path, profile: Profile) -> Result<()> {
    if Medium::of(dir)? != Medium::Memory {
        return Ok(());
    }
    if profile == Profile::Production {
        bail!(
            "{} lies in memory, and what is acknowledged there goes with the power: take a disk, or a database",
            dir.display()
        );
    }
    tracing::warn!(dir = %dir.display(), "the data directory lies in memory: all of it goes with the power");
    Ok(())
}

fn brake_us(config: &Config) -> u64 {
    u64::try_from(config.store.journal_brake.as_micros()).unwrap_or(u64::MAX)
}

/// The database that keeps the store for several nodes, if there is one.
pub fn place(config: &Config, clock: &Clock, neighbours: Arc<Neighbours>) -> Option<DatabaseConfig> {
    let url = config.store.database_url.as_ref()?;
    Some(DatabaseConfig { neighbours, ..DatabaseConfig::new(url.expose_secret(), clock.clone()) })
}
