//! Backups: all that stands in a shop's tables and in its journal at one moment, taken while it sells, as files from which an empty
//! home is filled, in files or in a database, whichever it came from.
//!
//! Always true: everything that was acknowledged before a backup began is in it, and what is restored is a shop that was killed at
//! one moment: it recovers as after any other kill. The master key and secrets are no part of it, nor what the simulated provider and
//! the folder of mails stand for. With keys of backups all of it is sealed under a key of its own that the newest of them wraps, and
//! nobody reads it once that one is destroyed.

#[cfg(any(test, feature = "fuzz"))]
mod fuzz;
mod listed;
mod manifest;
mod moment;
mod parts;
mod restore;
mod rows;
mod sealed;
mod take;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

#[cfg(any(test, feature = "fuzz"))]
pub use fuzz::read_files;
pub use manifest::{JournalHead, Manifest};
pub use restore::{Restored, restore};
pub use take::{Taken, take};

use super::StoreError;
use super::journal::OpenError;
use crate::vault::Sealed;

/// Where a shop stands.
#[derive(Debug, Clone, Copy)]
pub enum Place<'p> {
    /// In a folder.
    Files(&'p Path),
    /// In a database: `mysql://USER:PASSWORD@HOST:PORT/DATABASE`.
    Database(&'p str),
}

/// Why nothing was taken, or restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("there is no store in {}; --data-dir names another place", dir.display())]
    NoStore { dir: PathBuf },
    #[error("the store is of another version ({folder}): take its backup with the stockade that serves it")]
    OtherStore { folder: &'static str },
    #[error("{} is not empty: a backup goes into a folder of its own", dir.display())]
    Used { dir: PathBuf },
    #[error("the store's files were locked by others all the time; try again when it has less to do")]
    Busy,
    #[error("{} is no backup that was finished: it has no SHA256SUMS", dir.display())]
    NotFinished { dir: PathBuf },
    #[error("{} is damaged: {why}", path.display())]
    Damaged { path: PathBuf, why: String },
    #[error(
        "the backup is of another version: restore it with stockade {made_by}, then start this one on it"
    )]
    OtherVersion { made_by: String },
    #[error("the journal in the backup is of a newer version: restore it with stockade {made_by}")]
    NewerJournal { made_by: String },
    #[error(
        "the backup is sealed under the backup key {key}, which is not among STOCKADE_BACKUP_KEYS (there: {}); without it nobody reads it",
        or_none(known)
    )]
    OtherKey { key: String, known: Vec<String> },
    #[error(
        "the backup is not sealed: anybody who can write there could have made it, or changed it; if that is to be restored all the same, \
         say STOCKADE_ALLOW_PLAIN_BACKUPS=true"
    )]
    Plain,
    #[error("the backup cannot be sealed: {0}")]
    NotSealed(Sealed),
    #[error("{} is not empty: a shop is restored into an empty folder", dir.display())]
    UsedDir { dir: PathBuf },
    #[error("the database has tables: a shop is restored into an empty one")]
    UsedDatabase,
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn or_none(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
