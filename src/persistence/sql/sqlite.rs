//! SQLite as this house uses it: how a file is opened, which version will do, what an error means, and who hears of one that leaves
//! doubt.
//!
//! Always true: a file has one writing connection, which does all checkpoints itself; readers cannot write. A backup has another one
//! for a moment, which only holds its lock; and after a disk has failed one that is alone writes back what the WAL has, and closes.

use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteLockingMode, SqlitePool,
    SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Row};

use super::StoreError;
use crate::persistence::doubt::Doubt;

/// The first version without the WAL-reset bug (<https://sqlite.org/wal.html#walresetbug>).
const VERSION_MIN: (u32, u32, u32) = (3, 51, 3);
/// How many statements a connection keeps compiled: all that the house has, in all their lengths.
const STATEMENTS_MAX: usize = 512;
/// How long a connection waits for a lock that only a mistake can take.
const BUSY_MS: u64 = 5_000;
const PATIENT: &str = "pragma busy_timeout = 5000";
const IMPATIENT: &str = "pragma busy_timeout = 0";

/// What one file wants from its connections.
pub struct Tuning {
    pub page_bytes: u32,
    pub cache_kib: u32,
    pub synchronous: SqliteSynchronous,
    /// Whether what is deleted is overwritten at once, instead of some day.
    pub erases: bool,
    /// A cap on the file, in pages, for tests of a full disk.
    pub pages_max: Option<u32>,
}

fn base(path: &Path, tuning: &Tuning) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .page_size(tuning.page_bytes)
        .foreign_keys(true)
        .synchronous(tuning.synchronous)
        .busy_timeout(Duration::from_millis(BUSY_MS))
        .statement_cache_capacity(STATEMENTS_MAX)
        // A negative size counts KiB instead of pages.
        .pragma("cache_size", format!("-{}", tuning.cache_kib))
        // Nobody checkpoints by the way: the writer does it when it has the time.
        .pragma("wal_autocheckpoint", "0")
        .pragma("temp_store", "memory")
        .pragma("secure_delete", if tuning.erases { "on" } else { "off" })
        .disable_statement_logging()
}

/// The one connection that writes; makes the file if there is none.
pub async fn writer(path: &Path, tuning: &Tuning) -> Result<SqliteConnection, StoreError> {
    let mut options = base(path, tuning).create_if_missing(true).journal_mode(SqliteJournalMode::Wal);
    if let Some(pages) = tuning.pages_max {
        options = options.pragma("max_page_count", pages.to_string());
    }
    let mut writer = options.connect().await?;
    let found: String = sqlx::query_scalar("select sqlite_version()").fetch_one(&mut writer).await?;
    fits(&found)?;
    Ok(writer)
}

/// Like [`writer`], but on a thread that weighs less than others, by so many steps of the scheduler. The connection's own thread
/// inherits it.
pub async fn nice_writer(path: &Path, tuning: Tuning, nice: i32) -> Result<SqliteConnection, StoreError> {
    let path = path.to_owned();
    let (done, opened) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("stockade-tables".to_owned()).spawn(move || {
        // Without the permission the flush merely competes; that is no reason not to start.
        let _ = rustix::process::nice(nice);
        let opening = async { writer(&path, &tuning).await };
        let connection = match tokio::runtime::Builder::new_current_thread().build() {
            Ok(runtime) => runtime.block_on(opening),
            Err(error) => Err(error.into()),
        };
        let _ = done.send(connection);
    })?;
    opened.await.map_err(|_| StoreError::Closed)?
}

/// A connection beside the one that writes, to a file that is there: to hold its lock. It waits for that for so long.
pub async fn beside_writer(path: &Path, wait_ms: u64) -> Result<SqliteConnection, sqlx::Error> {
    SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(Duration::from_millis(wait_ms))
        .pragma("wal_autocheckpoint", "0")
        .disable_statement_logging()
        .connect()
        .await
}

/// One connection that only reads.
pub async fn reader(path: &Path, tuning: &Tuning) -> Result<SqliteConnection, sqlx::Error> {
    base(path, tuning).read_only(true).connect().await
}

/// Copies all that a WAL has into its file, as if nothing of it had been copied before, and syncs and empties it. Whoever has the file to
/// himself reads the WAL anew, and believes nothing that others have noted of it in the memory they share. Whether it is done: anybody
/// who has the file open is in its way.
pub async fn copy_anew(path: &Path) -> Result<bool, sqlx::Error> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        // Before anything is read (<https://sqlite.org/wal.html#use_of_wal_without_shared_memory>).
        .locking_mode(SqliteLockingMode::Exclusive)
        .busy_timeout(Duration::from_millis(BUSY_MS))
        .disable_statement_logging();
    let mut alone = options.connect().await?;
    let copied = checkpoint_truncate(&mut alone).await;
    let closed = sqlx::Connection::close(alone).await;
    match copied {
        Ok(done) => closed.map(|()| !done.busy),
        Err(error) if trouble(&error) == Trouble::Refused => Ok(false),
        Err(error) => Err(error),
    }
}

/// Closes a connection to a file whose disk has failed, and leaves the WAL where it is. The last one to close copies it, from where the
/// last checkpoint stood, and removes it; one that only reads does not.
pub async fn leave(writer: SqliteConnection, path: &Path, tuning: &Tuning) -> Result<(), sqlx::Error> {
    match staying(path, tuning).await {
        Ok(last) => {
            let closed = sqlx::Connection::close(writer).await;
            sqlx::Connection::close(last).await.and(closed)
        }
        Err(error) => {
            // Open for as long as this process lives: then nobody closes it, and the next one finds the WAL.
            LEFT_OPEN.store(true, Ordering::Release);
            let _ = ManuallyDrop::new(writer);
            Err(error)
        }
    }
}

static LEFT_OPEN: AtomicBool = AtomicBool::new(false);

/// Whether a file stays open until this process ends, so that only the next one has it alone.
pub fn is_left_open() -> bool {
    LEFT_OPEN.load(Ordering::Acquire)
}

/// One that only reads, and from its first look on has the file's lock.
async fn staying(path: &Path, tuning: &Tuning) -> Result<SqliteConnection, sqlx::Error> {
    let mut staying = reader(path, tuning).await?;
    sqlx::query("select count(*) from sqlite_schema").fetch_one(&mut staying).await?;
    Ok(staying)
}

/// Connections that only read, opened when they are needed.
pub fn readers(path: &Path, tuning: &Tuning, most: u32) -> SqlitePool {
    SqlitePoolOptions::new()
        .max_connections(most)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .connect_lazy_with(base(path, tuning).read_only(true))
}

/// Refuses a version that can lose commits, and one that nobody can read.
fn fits(found: &str) -> Result<(), StoreError> {
    match version(found) {
        Some(version) if version >= VERSION_MIN => Ok(()),
        _ => Err(StoreError::OldSqlite { found: found.to_owned() }),
    }
}

fn version(word: &str) -> Option<(u32, u32, u32)> {
    let mut numbers = word.split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??, numbers.next()??))
}

/// What an error of a statement that commits by itself says about what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// No room. SQLite has rolled back: nothing was written.
    Full,
    /// The file cannot be written. Nothing was.
    ReadOnly,
    /// A unique key or a check said no. Nothing was written.
    Constraint,
    /// Somebody else holds the lock, or the statement is too big. Nothing was written.
    Refused,
    /// Anything else, above all an I/O error: it may have happened in COMMIT, and the disk may hold the rows.
    Unsure,
}

/// Reads SQLite's primary result code (<https://sqlite.org/rescode.html>). Only what is known to leave nothing
/// behind is called definite; a code that is not listed is unsure.
pub fn trouble(error: &sqlx::Error) -> Trouble {
    let Some(database) = error.as_database_error() else { return Trouble::Unsure };
    let extended: Option<i32> = database.code().and_then(|code| code.parse().ok());
    match extended.map(|code| code & 0xff) {
        Some(13) => Trouble::Full,
        Some(8) => Trouble::ReadOnly,
        Some(19) => Trouble::Constraint,
        Some(5 | 6 | 18) => Trouble::Refused,
        _ => Trouble::Unsure,
    }
}

/// Begins a transaction that is going to write. One that was left open when its future was dropped is undone first.
pub async fn begin(writer: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    if sqlx::query("begin immediate").execute(&mut *writer).await.is_err() {
        let _ = sqlx::query("rollback").execute(&mut *writer).await;
        sqlx::query("begin immediate").execute(writer).await?;
    }
    Ok(())
}

/// Commits what went well and undoes what did not.
///
/// SQLite rolls back by itself when the disk is full; sqlx's own transaction then counts one that is no longer there,
/// and no other can begin.
pub async fn end<T, E: From<sqlx::Error>>(
    writer: &mut SqliteConnection,
    outcome: Result<T, E>,
) -> Result<T, E> {
    ended(writer, outcome, None).await
}

/// The same, and somebody hears of it if the commit fails.
async fn ended<T, E: From<sqlx::Error>>(
    writer: &mut SqliteConnection,
    outcome: Result<T, E>,
    doubt: Option<&Doubt>,
) -> Result<T, E> {
    let ended = match outcome {
        Ok(value) => match sqlx::query("commit").execute(&mut *writer).await {
            Ok(_) => Ok(value),
            Err(error) => {
                if let Some(doubt) = doubt {
                    doubt.hear(&error);
                }
                Err(E::from(error))
            }
        },
        Err(error) => Err(error),
    };
    if ended.is_err() {
        let _ = sqlx::query("rollback").execute(writer).await;
    }
    ended
}

/// A connection to a file that is ours alone, and who hears if the disk fails under it.
pub struct OwnFile {
    file: SqliteConnection,
    doubt: Option<Doubt>,
    /// A commit was begun, and nobody has heard yet what came of it.
    unheard: bool,
}

impl OwnFile {
    pub fn told_to(doubt: Doubt, file: SqliteConnection) -> OwnFile {
        OwnFile { file, doubt: Some(doubt), unheard: false }
    }

    /// Commits what went well and undoes what did not. Where nobody knows what a commit came to, that is heard.
    pub async fn end<T, E: From<sqlx::Error>>(&mut self, outcome: Result<T, E>) -> Result<T, E> {
        self.unheard = outcome.is_ok();
        let ended = ended(&mut self.file, outcome, self.doubt.as_ref()).await;
        self.unheard = false;
        ended
    }

    /// Whether the last holder went in the midst of a commit. It was done all the same, well or not: that is heard then, as doubt.
    pub fn was_missed(&self) -> bool {
        if self.unheard
            && let Some(doubt) = &self.doubt
        {
            doubt.miss();
        }
        self.unheard
    }

    /// Says why a checkpoint failed.
    pub fn tell(&self, error: &sqlx::Error) {
        if let Some(doubt) = &self.doubt {
            doubt.hear(error);
        }
    }

    /// Whether nothing more is written.
    pub fn is_over(&self) -> bool {
        self.doubt.as_ref().is_some_and(Doubt::is_over)
    }

    pub async fn close(self) -> Result<(), sqlx::Error> {
        sqlx::Connection::close(self.file).await
    }

    /// The same after its disk has failed ([`leave`]).
    pub async fn leave(self, path: &Path, tuning: &Tuning) -> Result<(), sqlx::Error> {
        leave(self.file, path, tuning).await
    }
}

/// One of whose end nobody need hear: whoever has it is the only one there is.
impl From<SqliteConnection> for OwnFile {
    fn from(file: SqliteConnection) -> OwnFile {
        OwnFile { file, doubt: None, unheard: false }
    }
}

impl Deref for OwnFile {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.file
    }
}

impl DerefMut for OwnFile {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.file
    }
}

/// How far a checkpoint came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// A reader was in the way of the last step.
    pub busy: bool,
    /// Pages in the WAL.
    pub pages: i64,
    /// Pages of them that stand in the main file now.
    pub copied: i64,
}

/// Copies what it can without waiting for a reader.
pub async fn checkpoint(writer: &mut SqliteConnection) -> Result<Checkpoint, sqlx::Error> {
    checkpointed(sqlx::query("pragma wal_checkpoint(passive)").fetch_one(writer).await?)
}

/// Only looks.
pub async fn wal(writer: &mut SqliteConnection) -> Result<Checkpoint, sqlx::Error> {
    checkpointed(sqlx::query("pragma wal_checkpoint(noop)").fetch_one(writer).await?)
}

/// Copies everything and empties the WAL.
pub async fn checkpoint_truncate(writer: &mut SqliteConnection) -> Result<Checkpoint, sqlx::Error> {
    checkpointed(sqlx::query("pragma wal_checkpoint(truncate)").fetch_one(writer).await?)
}

/// The same if nobody reads what is in the WAL, for whom nobody waits: then it has copied what it can. Let it come to its end, or the
/// connection stays impatient.
pub async fn checkpoint_truncate_now(writer: &mut SqliteConnection) -> Result<Checkpoint, sqlx::Error> {
    sqlx::query(IMPATIENT).execute(&mut *writer).await?;
    let done = checkpoint_truncate(writer).await;
    sqlx::query(PATIENT).execute(writer).await?;
    done
}

/// One of the two: whether whoever reads is waited for.
pub async fn checkpoint_at_end(
    writer: &mut SqliteConnection,
    patiently: bool,
) -> Result<Checkpoint, sqlx::Error> {
    match patiently {
        true => checkpoint_truncate(writer).await,
        false => checkpoint_truncate_now(writer).await,
    }
}

fn checkpointed(row: SqliteRow) -> Result<Checkpoint, sqlx::Error> {
    let busy: i64 = row.try_get(0)?;
    Ok(Checkpoint { busy: busy != 0, pages: row.try_get(1)?, copied: row.try_get(2)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_as_patient_again_as_it_was() {
        assert_eq!(PATIENT, format!("pragma busy_timeout = {BUSY_MS}"));
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(version("3.51.3") >= Some(VERSION_MIN));
        assert!(version("3.9.0") < Some(VERSION_MIN));
        assert_eq!(version("three"), None);
    }

    #[test]
    fn a_version_that_can_lose_commits_is_refused() {
        for old in ["3.51.2", "3.50.7", "3.9.0", "2.99.99", "three", ""] {
            let refused = fits(old);
            assert!(
                matches!(&refused, Err(StoreError::OldSqlite { found }) if found == old),
                "{old}: {refused:?}"
            );
        }
        for new in ["3.51.3", "3.52.0", "4.0.0"] {
            assert!(fits(new).is_ok(), "{new}");
        }
    }
}
