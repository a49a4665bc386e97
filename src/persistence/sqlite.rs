//! SQLite as this house uses it: how a file is opened, which version will do, what an error means.
//!
//! Always true: a file has one writing connection, which does all checkpoints itself; readers cannot write, and
//! every list of values in a statement has one of a few fixed lengths, so that each statement is compiled once.

use std::path::Path;
use std::time::Duration;

use sqlx::query::Query;
use sqlx::sqlite::{
    Sqlite, SqliteArguments, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool,
    SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Row};

use crate::domain::id::TypedId;
use crate::domain::stock::Millis;

/// The first version without the WAL-reset bug (<https://sqlite.org/wal.html#walresetbug>).
const VERSION_MIN: (u32, u32, u32) = (3, 51, 3);
/// How many statements a connection keeps compiled: all that the house has, in all their lengths.
const STATEMENTS_MAX: usize = 256;
/// How long a connection waits for a lock that only a mistake can take.
const BUSY_MS: u64 = 5_000;
/// How much less the tables' writer weighs than the path of an order.
const NICE: i32 = 10;

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
    Sql(#[from] sqlx::Error),
    #[error(transparent)]
    Migrate(#[from] sqlx::migrate::MigrateError),
    #[error(
        "SQLite {found} has a bug that can lose commits (sqlite.org/wal.html#walresetbug): 3.51.3 or later is needed"
    )]
    OldSqlite { found: String },
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
    #[error("the store is closed")]
    Closed,
}

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
    if version(&found).is_none_or(|version| version < VERSION_MIN) {
        return Err(StoreError::OldSqlite { found });
    }
    Ok(writer)
}

/// Like [`writer`], but on a thread that yields to everybody else's. The connection's own thread inherits it.
pub async fn nice_writer(path: &Path, tuning: Tuning) -> Result<SqliteConnection, StoreError> {
    let path = path.to_owned();
    let (done, opened) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("stockade-tables".to_owned()).spawn(move || {
        // Without the permission the flush merely competes; that is no reason not to start.
        let _ = rustix::process::nice(NICE);
        let opening = async { writer(&path, &tuning).await };
        let connection = match tokio::runtime::Builder::new_current_thread().build() {
            Ok(runtime) => runtime.block_on(opening),
            Err(error) => Err(error.into()),
        };
        let _ = done.send(connection);
    })?;
    opened.await.map_err(|_| StoreError::Closed)?
}

/// One connection that only reads.
pub async fn reader(path: &Path, tuning: &Tuning) -> Result<SqliteConnection, sqlx::Error> {
    base(path, tuning).read_only(true).connect().await
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
    let ended = match outcome {
        Ok(value) => sqlx::query("commit").execute(&mut *writer).await.map(|_| value).map_err(E::from),
        Err(error) => Err(error),
    };
    if ended.is_err() {
        let _ = sqlx::query("rollback").execute(writer).await;
    }
    ended
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

fn checkpointed(row: SqliteRow) -> Result<Checkpoint, sqlx::Error> {
    let busy: i64 = row.try_get(0)?;
    Ok(Checkpoint { busy: busy != 0, pages: row.try_get(1)?, copied: row.try_get(2)? })
}

/// The lengths a list of values may have.
const LENGTHS: [usize; 5] = [256, 64, 16, 4, 1];
/// Those of a list that is cut into as few pieces as can be: a piece costs two threads a wake-up each.
const FINE_LENGTHS: [usize; 20] = [256, 128, 64, 32, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1];

/// One statement over a list of values, compiled once for each of a few lengths.
pub struct Listed {
    by_length: Vec<(usize, String)>,
}

impl Listed {
    /// `head`, then `item` once for each value with commas between, then `tail`. All three are literals.
    pub fn new(head: &'static str, item: &'static str, tail: &'static str) -> Listed {
        Listed::of(&LENGTHS, head, item, tail)
    }

    /// The same in more lengths, for what is written while somebody waits.
    pub fn fine(head: &'static str, item: &'static str, tail: &'static str) -> Listed {
        Listed::of(&FINE_LENGTHS, head, item, tail)
    }

    fn of(lengths: &[usize], head: &'static str, item: &'static str, tail: &'static str) -> Listed {
        let with = |length: &usize| (*length, format!("{head}{}{tail}", vec![item; *length].join(",")));
        Listed { by_length: lengths.iter().map(with).collect() }
    }

    /// The questions to ask of the rows that these ids name, each with its ids.
    pub fn named<'v>(
        &'static self,
        ids: &'v [impl TypedId],
    ) -> impl Iterator<Item = Query<'v, Sqlite, SqliteArguments>> {
        self.filled(ids)
            .map(|(sql, piece)| piece.fold(sqlx::query(sql), |query, id| query.bind(&id.sixteen()[..])))
    }

    /// `values` cut into pieces, each with the statement of its length.
    pub fn cut<'v, T>(&'static self, values: &'v [T]) -> impl Iterator<Item = (&'static str, &'v [T])> {
        let mut rest = values;
        std::iter::from_fn(move || {
            let (length, sql) = self.by_length.iter().find(|(length, _)| *length <= rest.len())?;
            let (piece, behind) = rest.split_at(*length);
            rest = behind;
            Some((sql.as_str(), piece))
        })
    }

    /// The same in fewer pieces, for a list in which a value may stand twice: a piece may be longer than its values, and is to
    /// be filled up with the last of them.
    pub fn filled<'v, T>(
        &'static self,
        values: &'v [T],
    ) -> impl Iterator<Item = (&'static str, impl Iterator<Item = &'v T>)> {
        let mut rest = values;
        std::iter::from_fn(move || {
            let last = rest.last()?;
            let longer = self.by_length.iter().rev().find(|(length, _)| *length >= rest.len());
            let shorter = self.by_length.iter().find(|(length, _)| *length <= rest.len());
            // Filling up more than half of it costs more than another piece.
            let well_filled = longer.filter(|(length, _)| rest.len() > length / 2);
            let (length, sql) = well_filled.or(shorter)?;
            let (piece, behind) = rest.split_at(rest.len().min(*length));
            rest = behind;
            Some((sql.as_str(), piece.iter().chain(std::iter::repeat(last)).take(*length)))
        })
    }
}

/// Those of some rows that can be read, and the ids, in the first column, of those that cannot: one that is damaged holds up
/// nobody else, and stays for whoever looks into it.
pub fn legible<T>(
    rows: &[SqliteRow],
    what: &'static str,
    read: impl Fn(&SqliteRow) -> Result<T, StoreError>,
) -> (Vec<T>, Vec<Vec<u8>>) {
    let (mut found, mut damaged) = (Vec::with_capacity(rows.len()), Vec::new());
    for row in rows {
        match read(row) {
            Ok(one) => found.push(one),
            Err(error) => {
                let id: Vec<u8> = row.try_get(0).unwrap_or_default();
                let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
                tracing::error!(%error, id = %hex, "the row of {what} cannot be read");
                damaged.push(id);
            }
        }
    }
    (found, damaged)
}

/// A column with a time, or without.
pub fn time(row: &SqliteRow, column: usize) -> Result<Option<Millis>, StoreError> {
    Ok(row.try_get::<Option<i64>, _>(column)?.map(Millis))
}

/// A column with the sixteen bytes of an id, a key or a hash.
pub fn sixteen(row: &SqliteRow, column: usize) -> Result<[u8; 16], StoreError> {
    let bytes: &[u8] = row.try_get(column)?;
    Ok(bytes.try_into().map_err(|_| Damaged { what: "id" })?)
}

/// A column with the thirty-two bytes of a keyed hash.
pub fn thirty_two(row: &SqliteRow, column: usize) -> Result<[u8; 32], StoreError> {
    let bytes: &[u8] = row.try_get(column)?;
    Ok(bytes.try_into().map_err(|_| Damaged { what: "hash" })?)
}

/// A column with a number that is never negative.
pub fn unsigned<T: TryFrom<i64>>(row: &SqliteRow, column: usize) -> Result<T, StoreError> {
    let number: i64 = row.try_get(column)?;
    Ok(T::try_from(number).map_err(|_| Damaged { what: "number" })?)
}

/// A number of ours as the tables keep it. Ours stay far below the end of an `i64`.
pub fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;

    #[test]
    fn a_list_is_cut_into_few_lengths() {
        static LISTED: LazyLock<Listed> = LazyLock::new(|| Listed::new("in (", "?", ")"));
        let values: Vec<u32> = (0..343).collect();
        let lengths: Vec<_> = LISTED.cut(&values).map(|(_, piece)| piece.len()).collect();
        assert_eq!(lengths, [256, 64, 16, 4, 1, 1, 1]);
        assert_eq!(LISTED.cut(&values[..4]).next(), Some(("in (?,?,?,?)", &[0, 1, 2, 3][..])));
        assert_eq!(LISTED.cut(&values[..0]).next(), None);
    }

    #[test]
    fn a_list_is_filled_up_to_the_next_length() {
        static LISTED: LazyLock<Listed> = LazyLock::new(|| Listed::new("in (", "?", ")"));
        for (many, pieces) in [
            (0, &[][..]),
            (1, &[1]),
            (3, &[4]),
            (6, &[4, 1, 1]),
            (63, &[64]),
            (65, &[64, 1]),
            (100, &[64, 64]),
            (600, &[256, 256, 64, 16, 4, 4]),
        ] {
            let values: Vec<u32> = (0..many).collect();
            let filled: Vec<(&str, Vec<&u32>)> =
                LISTED.filled(&values).map(|(sql, piece)| (sql, piece.collect())).collect();
            let found: Vec<_> = filled.iter().map(|(_, piece)| piece.len()).collect();
            assert_eq!(found, pieces, "{many}");
            let mut all: Vec<u32> = filled.iter().flat_map(|(_, piece)| piece).map(|v| **v).collect();
            all.dedup();
            assert_eq!(all, values);
            assert!(filled.iter().all(|(sql, piece)| sql.matches('?').count() == piece.len()));
        }
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(version("3.51.3") >= Some(VERSION_MIN));
        assert!(version("3.9.0") < Some(VERSION_MIN));
        assert_eq!(version("three"), None);
    }
}
