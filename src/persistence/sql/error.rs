//! What can go wrong between us and a database, and what it means to whoever wrote.

use std::path::PathBuf;

use sqlx::migrate::MigrateError;

use super::mysql::{self, TakenOver, Unfit};

/// What the drivers say.
pub type Error = sqlx::Error;

/// A row that cannot be what we wrote.
#[derive(Debug, thiserror::Error)]
#[error("damaged {what}")]
pub struct Damaged {
    pub what: &'static str,
}

/// The store could not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Sql(#[from] Error),
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    #[error(
        "SQLite {found} has a bug that can lose commits (sqlite.org/wal.html#walresetbug): 3.51.3 or later is needed"
    )]
    OldSqlite { found: String },
    #[error(transparent)]
    Unfit(#[from] Unfit),
    #[error(transparent)]
    Damaged(#[from] Damaged),
    #[error("the store's thread could not be started: {0}")]
    Thread(#[from] std::io::Error),
    #[error("the journal's log could not be read back: {0}")]
    Log(std::io::Error),
    #[error(
        "the tables are true up to {pos}, but the journal ends at {end}: it has lost what was acknowledged; \
         restore the data directory from a copy, and look at the disk"
    )]
    JournalShort { pos: i64, end: i64 },
    #[error(
        "the journal was written by a newer version (its format is {found}, and this one knows no more than {known}): start that version; \
         what was written since cannot be read by this one"
    )]
    Newer { found: i64, known: i64 },
    #[error("the database was lost while the journal was written, and has not said yet what it has")]
    InDoubt,
    #[error("another node has taken over")]
    Fenced,
    #[error("the database has forgotten what it had committed")]
    Forgotten,
    #[error(
        "the last run ended in an I/O error and {} could not be written back whole: {why}; \
         look at the disk before starting again",
        path.display()
    )]
    Unclean { path: PathBuf, why: String },
    #[error(
        "the last run ended in an I/O error, and what it left cannot be written back whole while somebody reads {}: a backup?",
        path.display()
    )]
    StillRead { path: PathBuf },
    #[error("the disk has failed: the store must be opened again")]
    DiskFailed,
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// Whether what stands there cannot be what we wrote: however often it is read, it says the same.
    pub fn is_damage(&self) -> bool {
        match self {
            StoreError::Damaged(_) => true,
            StoreError::Sql(error) => matches!(error, Error::ColumnDecode { .. } | Error::Decode(_)),
            _ => false,
        }
    }

    /// Whether the database could not be asked: it says something else when it is there again.
    pub fn is_away(&self) -> bool {
        match self {
            StoreError::InDoubt => true,
            other => other.said().is_some_and(|error| trouble(error) == Trouble::Lost),
        }
    }

    /// What the driver said, if it was a statement that failed.
    pub fn said(&self) -> Option<&Error> {
        match self {
            StoreError::Sql(error)
            | StoreError::Migrate(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => {
                Some(error)
            }
            _ => None,
        }
    }
}

/// What an error says to whoever wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Such a row is there already.
    Duplicate,
    /// Somebody else was in the way: a deadlock, a lock that did not come, a row that changed meanwhile. Nothing was written, and
    /// the whole transaction may be tried again.
    Conflict,
    /// The connection is gone, or does not answer. What was written in a transaction whose commit was not sent is undone; whether a
    /// commit arrived nobody knows.
    Lost,
    /// Another node has taken over. Nothing was written, and nothing will be.
    Fenced,
    Other,
}

/// MySQL's numbers for a deadlock, a lock that was waited for too long, and a row that has changed since it was read.
const CONFLICTS: [u16; 3] = [1213, 1205, 1020];
/// And for a connection that the server has ended: a shutdown, an interruption, an idle time-out, a `kill`.
const ENDED: [u16; 5] = [1053, 1317, 1927, 3169, 4031];
/// SQLite's primary codes for a lock that somebody else has.
const BUSY: [i32; 2] = [5, 6];

pub fn trouble(error: &Error) -> Trouble {
    let database = match error {
        Error::Io(_) | Error::Protocol(_) | Error::PoolTimedOut | Error::WorkerCrashed => {
            return Trouble::Lost;
        }
        Error::AnyDriverError(why) if why.is::<TakenOver>() => return Trouble::Fenced,
        Error::Database(database) => database,
        _ => return Trouble::Other,
    };
    if database.is_unique_violation() {
        return Trouble::Duplicate;
    }
    if let Some(number) = mysql::number(error) {
        return match number {
            number if CONFLICTS.contains(&number) => Trouble::Conflict,
            number if ENDED.contains(&number) => Trouble::Lost,
            _ => Trouble::Other,
        };
    }
    let code = database.code().and_then(|code| code.parse::<i32>().ok());
    if code.is_some_and(|code| BUSY.contains(&(code & 0xff))) { Trouble::Conflict } else { Trouble::Other }
}

/// Whether such a row is there already.
pub fn is_duplicate(error: &Error) -> bool {
    trouble(error) == Trouble::Duplicate
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_that_cannot_be_asked_is_told_from_one_that_says_no() {
        let refused = || Error::Io(std::io::ErrorKind::ConnectionRefused.into());
        for away in [
            StoreError::Sql(refused()),
            StoreError::Migrate(MigrateError::Execute(refused())),
            StoreError::InDoubt,
        ] {
            assert!(away.is_away(), "{away}");
        }
        for there in [StoreError::Sql(Error::RowNotFound), Unfit::NoDatabase.into(), StoreError::Fenced] {
            assert!(!there.is_away(), "{there}");
        }
    }
}
