//! `shop.db`: what people query. One writer, whose thread yields to the path of an order, and a pool of readers.
//!
//! The flush's transactions are not synced one by one (`synchronous=NORMAL`): the journal is the truth, and the
//! flush checkpoint rolls back together with the rows when the power goes. What is written directly (products)
//! exists nowhere else, so it is synced before its answer.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::Connection;
use sqlx::query::Query;
use sqlx::sqlite::{Sqlite, SqliteArguments, SqliteConnection, SqlitePool, SqliteSynchronous};
use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard};

use super::order::OrderReader;
use super::product::{ProductReader, ProductWriter};
use super::revocation::RevocationReader;
use super::session::SessionReader;
use super::sqlite::{self, Tuning};
use super::stock::StockReader;
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

const SYNC_NOW: &str = "pragma synchronous = full";
const SYNC_LATER: &str = "pragma synchronous = normal";
const FLUSHED: &str = "select pos from flush_checkpoint where id = 1";

/// The shop's tables. Cheap to clone.
#[derive(Clone)]
pub struct Tables(Arc<Opened>);

struct Opened {
    readers: SqlitePool,
    writer: Mutex<Option<SqliteConnection>>,
    /// Somebody left in the middle of a transaction: whoever writes next undoes it first.
    abandoned: AtomicBool,
}

/// A transaction of the tables, synced before its end is told. Dropped before that, it is undone.
pub struct Writing<'t> {
    writer: MappedMutexGuard<'t, SqliteConnection>,
    abandoned: &'t AtomicBool,
    ended: bool,
}

impl Writing<'_> {
    pub(super) fn on(&mut self) -> &mut SqliteConnection {
        &mut self.writer
    }

    /// All of it, or nothing. It is on the disk when this returns.
    pub async fn commit(mut self) -> Result<(), StoreError> {
        sqlite::end(&mut self.writer, Ok::<_, sqlx::Error>(())).await?;
        self.ended = true;
        sqlx::query(SYNC_LATER).execute(&mut *self.writer).await?;
        Ok(())
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.abandoned.store(true, Ordering::Release);
        }
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
        Ok(Tables(Arc::new(Opened {
            readers,
            writer: Mutex::new(Some(writer)),
            abandoned: AtomicBool::new(false),
        })))
    }

    /// The same without a writer: for looking at the store of a stopped server.
    pub fn read_only(dir: &Path) -> Tables {
        let readers = sqlite::readers(&dir.join("shop.db"), &tuning(READER_CACHE_KIB), READERS_MAX);
        Tables(Arc::new(Opened { readers, writer: Mutex::new(None), abandoned: AtomicBool::new(false) }))
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
        if self.0.abandoned.load(Ordering::Acquire) {
            // There is none to undo where its end failed by itself.
            let _ = sqlx::query("rollback").execute(&mut *writer).await;
            sqlx::query(SYNC_LATER).execute(&mut *writer).await?;
            self.0.abandoned.store(false, Ordering::Release);
        }
        Ok(writer)
    }

    /// Begins a transaction. Nobody else writes until it ends: keep it short, and wait for nothing inside.
    pub async fn begin(&self) -> Result<Writing<'_>, StoreError> {
        let mut writer = self.writer().await?;
        sqlx::query(SYNC_NOW).execute(&mut *writer).await?;
        // From here on the guard sees to it that nothing is left open.
        let mut writing = Writing { writer, abandoned: &self.0.abandoned, ended: false };
        sqlite::begin(writing.on()).await?;
        Ok(writing)
    }

    /// One statement, synced before it returns; how many rows it matched.
    pub(super) async fn write_synced(
        &self,
        query: Query<'_, Sqlite, SqliteArguments>,
    ) -> Result<u64, StoreError> {
        let mut writer = self.writer().await?;
        sqlx::query(SYNC_NOW).execute(&mut *writer).await?;
        let done = query.execute(&mut *writer).await;
        sqlx::query(SYNC_LATER).execute(&mut *writer).await?;
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
