//! `shop.db`: what people query. One writer, whose thread yields to the path of an order, and a pool of readers.
//!
//! The flush's transactions are not synced one by one (`synchronous=NORMAL`): the journal is the truth, and the
//! flush checkpoint rolls back together with the rows when the power goes. What is written directly (products, people,
//! mails) exists nowhere else, so it is synced before its answer.

use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::Connection;
use sqlx::query::Query;
use sqlx::sqlite::{Sqlite, SqliteArguments, SqliteConnection, SqlitePool, SqliteSynchronous};
use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard};

use super::order::OrderReader;
use super::outbox::Outbox;
use super::product::{ProductReader, ProductWriter};
use super::revocation::RevocationReader;
use super::session::SessionReader;
use super::sqlite::{self, Tuning};
use super::stock::StockReader;
use super::trail::Trail;
use super::user::UserReader;
use super::{StoreError, migrations};

/// The file's page.
const PAGE_BYTES: u32 = 4096;
/// The writer's cache holds the index of the orders of a buyer, into which a rush writes at random, for a few
/// million orders.
const WRITER_CACHE_KIB: u32 = 128 * 1024;
const READER_CACHE_KIB: u32 = 8 * 1024;
/// Connections that read. Each costs a thread and its cache.
const READERS_MAX: u32 = 4;
/// Pages in the WAL at which they are copied into the file. Smaller would copy the same page more often, bigger
/// would make the disk busy for longer, and the journal shares the disk.
const WAL_PAGES_MAX: i64 = 8_000;

const FLUSHED: &str = "select pos from flush_checkpoint where id = 1";

/// The shop's tables. Cheap to clone.
#[derive(Clone)]
pub struct Tables(Arc<Opened>);

struct Opened {
    readers: SqlitePool,
    writer: Mutex<Option<SqliteConnection>>,
    /// Whoever had the writer last may have been dropped half-way: its transaction is undone before the next begins.
    unended: AtomicBool,
}

/// A synced transaction, and the writer with it. Dropped without an end it leaves nothing.
pub(super) struct Transaction<'t> {
    writer: MappedMutexGuard<'t, SqliteConnection>,
    unended: &'t AtomicBool,
}

impl Transaction<'_> {
    /// Commits what went well, synced, and undoes what did not.
    pub async fn end<T, E: From<sqlx::Error>>(mut self, outcome: Result<T, E>) -> Result<T, E> {
        let ended = sqlite::end(&mut self.writer, outcome).await;
        relax(&mut self.writer).await?;
        self.unended.store(false, Ordering::Release);
        ended
    }
}

impl Deref for Transaction<'_> {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.writer
    }
}

impl DerefMut for Transaction<'_> {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.writer
    }
}

/// A transaction as the actors hold it: what may be written in it stands beside each table. Dropped before its end it
/// leaves nothing.
pub struct Writing<'t>(Transaction<'t>);

impl Writing<'_> {
    pub(super) fn on(&mut self) -> &mut SqliteConnection {
        &mut self.0
    }

    /// All of it, or nothing. It is on the disk when this returns.
    pub async fn commit(self) -> Result<(), StoreError> {
        self.0.end(Ok(())).await
    }
}

/// From here on commits are not synced, as the flush wants it.
async fn relax(writer: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    sqlx::query("pragma synchronous = normal").execute(writer).await.map(|_| ())
}

impl Opened {
    fn new(readers: SqlitePool, writer: Option<SqliteConnection>) -> Opened {
        Opened { readers, writer: Mutex::new(writer), unended: AtomicBool::new(false) }
    }
}

fn tuning(cache_kib: u32) -> Tuning {
    Tuning { page_bytes: PAGE_BYTES, cache_kib, synchronous: SqliteSynchronous::Normal, pages_max: None }
}

impl Tables {
    /// Opens `shop.db` in `dir` and brings it up to date. The journal's lock covers it: open the journal first.
    pub async fn open(dir: &Path) -> Result<Tables, StoreError> {
        let path = dir.join("shop.db");
        let mut writer = sqlite::nice_writer(&path, tuning(WRITER_CACHE_KIB)).await?;
        migrations::tables().run(&mut writer).await?;
        let readers = sqlite::readers(&path, &tuning(READER_CACHE_KIB), READERS_MAX);
        Ok(Tables(Arc::new(Opened::new(readers, Some(writer)))))
    }

    /// The same without a writer: for looking at the store of a stopped server.
    pub fn read_only(dir: &Path) -> Tables {
        let readers = sqlite::readers(&dir.join("shop.db"), &tuning(READER_CACHE_KIB), READERS_MAX);
        Tables(Arc::new(Opened::new(readers, None)))
    }

    pub fn orders(&self) -> OrderReader {
        OrderReader { pool: self.0.readers.clone() }
    }

    pub fn products(&self) -> ProductReader {
        ProductReader { pool: self.0.readers.clone() }
    }

    pub fn product_writer(&self) -> ProductWriter {
        ProductWriter { tables: self.clone() }
    }

    pub fn stock(&self) -> StockReader {
        StockReader { pool: self.0.readers.clone() }
    }

    pub fn users(&self) -> UserReader {
        UserReader { pool: self.0.readers.clone() }
    }

    pub fn sessions(&self) -> SessionReader {
        SessionReader { pool: self.0.readers.clone() }
    }

    pub fn revocations(&self) -> RevocationReader {
        RevocationReader { pool: self.0.readers.clone() }
    }

    /// Mails on their way.
    pub fn outbox(&self) -> Outbox {
        Outbox { tables: self.clone(), pool: self.0.readers.clone() }
    }

    /// Who did what.
    pub fn trail(&self) -> Trail {
        Trail { tables: self.clone(), pool: self.0.readers.clone() }
    }

    /// The journal's place up to which the tables are true.
    pub async fn flushed_pos(&self) -> Result<i64, StoreError> {
        Ok(sqlx::query_scalar(FLUSHED).fetch_one(&self.0.readers).await?)
    }

    /// How many products have a stock row.
    pub(super) async fn stock_rows(&self) -> Result<i64, StoreError> {
        Ok(sqlx::query_scalar("select count(*) from stock").fetch_one(&self.0.readers).await?)
    }

    /// The writer, for as long as the guard is held.
    pub(super) async fn writer(&self) -> Result<MappedMutexGuard<'_, SqliteConnection>, StoreError> {
        let writer = self.0.writer.lock().await;
        let mut writer = MutexGuard::try_map(writer, Option::as_mut).map_err(|_| StoreError::Closed)?;
        if self.0.unended.load(Ordering::Acquire) {
            // There may be none: then it had ended, and only the settings were left.
            let _ = sqlx::query("rollback").execute(&mut *writer).await;
            relax(&mut writer).await?;
            self.0.unended.store(false, Ordering::Release);
        }
        Ok(writer)
    }

    /// Begins a transaction of several statements, which is synced when it ends.
    pub(super) async fn begin_synced(&self) -> Result<Transaction<'_>, StoreError> {
        let mut writer = self.writer().await?;
        self.0.unended.store(true, Ordering::Release);
        sqlx::query("pragma synchronous = full").execute(&mut *writer).await?;
        sqlite::begin(&mut writer).await?;
        Ok(Transaction { writer, unended: &self.0.unended })
    }

    /// Begins a transaction of whoever owns rows. Nobody else writes until it ends: keep it short, and wait for nothing
    /// inside.
    pub async fn begin(&self) -> Result<Writing<'_>, StoreError> {
        Ok(Writing(self.begin_synced().await?))
    }

    /// One statement, synced before it returns; how many rows it matched.
    pub(super) async fn write_synced(
        &self,
        query: Query<'_, Sqlite, SqliteArguments>,
    ) -> Result<u64, StoreError> {
        let mut writer = self.writer().await?;
        self.0.unended.store(true, Ordering::Release);
        sqlx::query("pragma synchronous = full").execute(&mut *writer).await?;
        let done = query.execute(&mut *writer).await;
        relax(&mut writer).await?;
        self.0.unended.store(false, Ordering::Release);
        Ok(done?.rows_affected())
    }

    /// Copies the WAL into the file when it has grown. If that fails the rows are safe where they are, and the next
    /// time tries again.
    pub(super) async fn checkpoint_if_due(&self) {
        let Ok(mut writer) = self.writer().await else { return };
        let copied = match sqlite::wal(&mut writer).await {
            Ok(wal) if wal.pages - wal.copied < WAL_PAGES_MAX => return,
            Ok(_) => sqlite::checkpoint(&mut writer).await.map(|_| ()),
            Err(error) => Err(error),
        };
        if let Err(error) = copied {
            tracing::warn!(%error, "the tables' WAL could not be copied into their file");
        }
    }

    /// Empties the WAL and closes all connections.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.0.readers.close().await;
        let Some(mut writer) = self.0.writer.lock().await.take() else { return Ok(()) };
        sqlite::checkpoint_truncate(&mut writer).await?;
        writer.close().await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOVE: &str = "update flush_checkpoint set pos = pos + 1 where id = 1";

    async fn moved(transaction: &mut SqliteConnection) -> Result<(), StoreError> {
        sqlx::query(MOVE).execute(transaction).await?;
        Ok(())
    }

    #[tokio::test]
    async fn a_transaction_that_was_dropped_half_way_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let tables = Tables::open(dir.path()).await.unwrap();
        let mut dropped = tables.begin_synced().await.unwrap();
        moved(&mut dropped).await.unwrap();
        drop(dropped);
        // What comes next is a transaction of its own, not the rest of that one.
        assert_eq!(tables.write_synced(sqlx::query(MOVE)).await.unwrap(), 1);
        assert_eq!(tables.flushed_pos().await.unwrap(), 1);
        let mut ended = tables.begin_synced().await.unwrap();
        let outcome = moved(&mut ended).await;
        ended.end(outcome).await.unwrap();
        assert_eq!(tables.flushed_pos().await.unwrap(), 2);
        let mut writer = tables.writer().await.unwrap();
        let synchronous: i64 =
            sqlx::query_scalar("pragma synchronous").fetch_one(&mut *writer).await.unwrap();
        assert_eq!(synchronous, 1, "normal again");
    }

    #[tokio::test]
    async fn a_transaction_that_went_wrong_is_undone() {
        let dir = tempfile::tempdir().unwrap();
        let tables = Tables::open(dir.path()).await.unwrap();
        let mut transaction = tables.begin_synced().await.unwrap();
        moved(&mut transaction).await.unwrap();
        let wrong = transaction.end::<(), _>(Err(StoreError::Closed)).await;
        assert!(wrong.is_err());
        assert_eq!(tables.flushed_pos().await.unwrap(), 0);
    }
}
