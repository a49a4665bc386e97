//! One moment of a shop that sells, and how it is held on to while it is copied.
//!
//! No order in which the files could be copied one after the other would do: a payment's row is written before the journal pins
//! its lines, and moves on after the journal has sold them, so whichever of the two is older misses what the other has. So
//! the writers of all tables stand still for some milliseconds, by SQLite's own lock, which this process takes beside them. What
//! the tables have by then the journal has as well, and what it adds meanwhile is followed by nothing in the tables. In these
//! milliseconds a read transaction is begun on each file, and the log is read, which is put down behind `journal.db`. A database
//! has a moment by itself: a transaction with a consistent snapshot.
//!
//! Always true: nothing is written, nobody's lock is kept for longer than it takes to look, and who holds one lock waits for the
//! next for [`HOLD_MS`] at most and then lets go of all: nobody who has two of the files in his hands waits for us for ever.

use std::path::Path;
use std::time::Duration;

use super::listed::Part;
use super::parts::{self, FILES, Parts};
use super::{BackupError, Place};
use crate::clock::Clock;
use crate::domain::stock::Entry;
use crate::persistence::StoreError;
use crate::persistence::journal;
use crate::persistence::sql::mysql::{self, Server};
use crate::persistence::sql::sqlite::{self, Trouble, trouble};
use crate::persistence::sql::{self, Connection};
use sqlx::sqlite::SqliteConnection;

/// How long one lock is waited for while others are held.
const HOLD_MS: u64 = 250;
/// How often all locks are tried for …
const TRIES: usize = 240;
/// … and how long others have them in between.
const REST: Duration = Duration::from_millis(50);

const BEGIN: &str = "begin";
const LOCK: &str = "begin immediate";
const UNDO: &str = "rollback";
/// The first look: what it sees is seen until the transaction ends.
const LOOK: &str = "select count(*) from sqlite_schema";

/// What stood in a shop at one moment.
pub struct Moment {
    pub parts: Parts,
    /// What the log holds and `journal.db` does not.
    pub log: Vec<(i64, Entry)>,
    /// For how long nobody could write the tables.
    pub held: Duration,
}

impl Moment {
    pub async fn of(place: Place<'_>, clock: &Clock) -> Result<Moment, BackupError> {
        match place {
            Place::Files(dir) => of_files(dir, clock).await,
            Place::Database(url) => {
                let mut session = Server::at(url)?.connect().await.map_err(StoreError::from)?;
                mysql::freeze(&mut session).await.map_err(StoreError::from)?;
                Ok(Moment { parts: Parts::in_database(session), log: Vec::new(), held: Duration::ZERO })
            }
        }
    }
}

async fn of_files(dir: &Path, clock: &Clock) -> Result<Moment, BackupError> {
    if !parts::are_in(dir) {
        return Err(BackupError::NoStore { dir: dir.to_owned() });
    }
    let mut writers = Vec::new();
    // Money last: buyers wait for it.
    for file in &FILES[..Part::Journal as usize] {
        writers.push(sqlite::beside_writer(&dir.join(file), HOLD_MS).await.map_err(StoreError::from)?);
    }
    let mut readers = Vec::new();
    for file in FILES {
        let reader = sqlite::reader(&dir.join(file), &journal::tuning()).await;
        readers.push(Connection::Sqlite(reader.map_err(StoreError::from)?.into()));
    }
    let Ok(mut files) = <[Connection; 4]>::try_from(readers) else { return Err(StoreError::Closed.into()) };
    for _ in 0..TRIES {
        let began = clock.nanos();
        let seen = match lock(&mut writers).await? {
            true => Some(see(dir, &mut files).await),
            false => None,
        };
        for writer in &mut writers {
            // Where none was begun there is none to be undone.
            let _ = sqlx::query(UNDO).execute(writer).await;
        }
        let held = Duration::from_nanos(clock.nanos().saturating_sub(began));
        if let Some(log) = seen.transpose()? {
            for writer in writers {
                sqlx::Connection::close(writer).await.map_err(StoreError::from)?;
            }
            return Ok(Moment { parts: Parts::Files(Box::new(files)), log, held });
        }
        tokio::time::sleep(REST).await;
    }
    Err(BackupError::Busy)
}

/// Takes all locks; or says that somebody else has one.
async fn lock(writers: &mut [SqliteConnection]) -> Result<bool, StoreError> {
    for writer in writers {
        match sqlx::query(LOCK).execute(writer).await {
            Ok(_) => {}
            Err(error) if trouble(&error) == Trouble::Refused => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}

/// Begins to read in every file, and reads the log.
async fn see(dir: &Path, files: &mut [Connection; 4]) -> Result<Vec<(i64, Entry)>, StoreError> {
    let [tables @ .., file] = files;
    for table in tables {
        sql::query(BEGIN).execute(&mut *table).await?;
        sql::query(LOOK).fetch_one(table).await?;
    }
    journal::log_behind(dir, file).await
}
