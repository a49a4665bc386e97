//! One SQLite file: one writer, whose thread may yield to the path of an order, and a pool of readers.
//!
//! Always true: whoever has the writer has it alone, and a transaction that was dropped half-way is undone before the
//! next one begins.

use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::Connection;
use sqlx::migrate::Migrator;
use sqlx::query::Query;
use sqlx::sqlite::{Sqlite, SqliteArguments, SqliteConnection, SqlitePool, SqliteSynchronous};
use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard};

use super::StoreError;
use super::sqlite::{self, Tuning};

/// The file's page.
const PAGE_BYTES: u32 = 4096;
/// What a reader aside remembers.
const ASIDE_CACHE_KIB: u32 = 1024;

/// What a file is called and how much memory it takes.
#[derive(Debug, Clone)]
pub struct Shape {
    pub path: PathBuf,
    pub writer_cache_kib: u32,
    pub reader_cache_kib: u32,
    /// Connections that read. Each costs a thread and its cache.
    pub readers_max: u32,
    /// Pages in the WAL at which they are copied into the file. Smaller would copy the same page more often, bigger
    /// would make the disk busy for longer, and the journal shares the disk.
    pub wal_pages_max: i64,
    /// Whether the writer's thread yields to all others: nobody's order waits for it.
    pub yields: bool,
    /// Whether all its commits are synced. Otherwise those are which say so.
    pub synced: bool,
    /// Whether what is deleted is overwritten at once.
    pub erases: bool,
}

/// An open file. Cheap to clone.
#[derive(Clone)]
pub struct File(Arc<Opened>);

struct Opened {
    readers: SqlitePool,
    writer: Mutex<Option<SqliteConnection>>,
    /// Whoever had the writer last may have been dropped half-way: its transaction is undone before the next begins.
    unended: AtomicBool,
    shape: Shape,
}

impl Opened {
    /// From here on commits are synced.
    async fn strain(&self, writer: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        if self.shape.synced {
            return Ok(());
        }
        sqlx::query("pragma synchronous = full").execute(writer).await.map(|_| ())
    }

    /// From here on commits are not synced, as the flush wants it.
    async fn relax(&self, writer: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        if self.shape.synced {
            return Ok(());
        }
        sqlx::query("pragma synchronous = normal").execute(writer).await.map(|_| ())
    }
}

/// A synced transaction, and the writer with it. Dropped without an end it leaves nothing.
pub struct Transaction<'t> {
    writer: MappedMutexGuard<'t, SqliteConnection>,
    file: &'t Opened,
}

impl Transaction<'_> {
    /// Commits what went well, synced, and undoes what did not.
    pub async fn end<T, E: From<sqlx::Error>>(mut self, outcome: Result<T, E>) -> Result<T, E> {
        let ended = sqlite::end(&mut self.writer, outcome).await;
        self.file.relax(&mut self.writer).await?;
        self.file.unended.store(false, Ordering::Release);
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

impl Shape {
    pub fn at(self, dir: &Path) -> Shape {
        Shape { path: dir.join(self.path), ..self }
    }

    fn tuning(&self, cache_kib: u32) -> Tuning {
        let synchronous = if self.synced { SqliteSynchronous::Full } else { SqliteSynchronous::Normal };
        Tuning { page_bytes: PAGE_BYTES, cache_kib, synchronous, erases: self.erases, pages_max: None }
    }

    fn with(&self, writer: Option<SqliteConnection>) -> File {
        File(Arc::new(Opened {
            readers: sqlite::readers(&self.path, &self.tuning(self.reader_cache_kib), self.readers_max),
            writer: Mutex::new(writer),
            unended: AtomicBool::new(false),
            shape: self.clone(),
        }))
    }
}

impl File {
    /// Opens the file, which is made if there is none, and brings it up to date.
    pub async fn open(shape: &Shape, migrations: Migrator) -> Result<File, StoreError> {
        let tuning = shape.tuning(shape.writer_cache_kib);
        let mut writer = match shape.yields {
            true => sqlite::nice_writer(&shape.path, tuning).await?,
            false => sqlite::writer(&shape.path, &tuning).await?,
        };
        migrations.run(&mut writer).await?;
        Ok(shape.with(Some(writer)))
    }

    /// The same without a writer: for looking at the store of a stopped server.
    pub fn read_only(shape: &Shape) -> File {
        shape.with(None)
    }

    pub fn readers(&self) -> SqlitePool {
        self.0.readers.clone()
    }

    /// A reader beside the others, whose thread is as unimportant as that of whoever asks first. Who takes it closes it.
    pub fn reader_aside(&self) -> SqlitePool {
        let Shape { path, .. } = &self.0.shape;
        sqlite::readers(path, &self.0.shape.tuning(ASIDE_CACHE_KIB), 1)
    }

    /// The writer, for as long as the guard is held.
    pub async fn writer(&self) -> Result<MappedMutexGuard<'_, SqliteConnection>, StoreError> {
        let writer = self.0.writer.lock().await;
        let mut writer = MutexGuard::try_map(writer, Option::as_mut).map_err(|_| StoreError::Closed)?;
        if self.0.unended.load(Ordering::Acquire) {
            // There may be none: then it had ended, and only the settings were left.
            let _ = sqlx::query("rollback").execute(&mut *writer).await;
            self.0.relax(&mut writer).await?;
            self.0.unended.store(false, Ordering::Release);
        }
        Ok(writer)
    }

    /// Begins a transaction of several statements, which is synced when it ends.
    pub async fn begin_synced(&self) -> Result<Transaction<'_>, StoreError> {
        let mut writer = self.writer().await?;
        self.0.unended.store(true, Ordering::Release);
        self.0.strain(&mut writer).await?;
        sqlite::begin(&mut writer).await?;
        Ok(Transaction { writer, file: &self.0 })
    }

    /// One statement, synced before it returns; how many rows it matched.
    pub async fn write_synced(&self, query: Query<'_, Sqlite, SqliteArguments>) -> Result<u64, StoreError> {
        let mut writer = self.writer().await?;
        self.0.unended.store(true, Ordering::Release);
        self.0.strain(&mut writer).await?;
        let done = query.execute(&mut *writer).await;
        self.0.relax(&mut writer).await?;
        self.0.unended.store(false, Ordering::Release);
        Ok(done?.rows_affected())
    }

    /// Copies the WAL into the file when it has grown. If that fails the rows are safe where they are, and the next
    /// time tries again.
    pub async fn checkpoint_if_due(&self) {
        let Ok(mut writer) = self.writer().await else { return };
        let copied = match sqlite::wal(&mut writer).await {
            Ok(wal) if wal.pages - wal.copied < self.0.shape.wal_pages_max => return,
            Ok(_) => sqlite::checkpoint(&mut writer).await.map(|_| ()),
            Err(error) => Err(error),
        };
        if let Err(error) = copied {
            tracing::warn!(%error, "a WAL of the tables could not be copied into its file");
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
    use crate::persistence::migrations;

    const MOVE: &str = "update flush_checkpoint set pos = pos + 1 where id = 1";
    const POS: &str = "select pos from flush_checkpoint where id = 1";

    async fn file() -> (tempfile::TempDir, File) {
        let dir = tempfile::tempdir().unwrap();
        let shape = Shape {
            path: dir.path().join("some.db"),
            writer_cache_kib: 1_024,
            reader_cache_kib: 1_024,
            readers_max: 1,
            wal_pages_max: 1_000,
            yields: true,
            synced: false,
            erases: false,
        };
        let file = File::open(&shape, migrations::tables()).await.unwrap();
        (dir, file)
    }

    async fn moved(transaction: &mut SqliteConnection) -> Result<(), StoreError> {
        sqlx::query(MOVE).execute(transaction).await?;
        Ok(())
    }

    async fn pos(file: &File) -> i64 {
        sqlx::query_scalar(POS).fetch_one(&file.readers()).await.unwrap()
    }

    #[tokio::test]
    async fn a_transaction_that_was_dropped_half_way_leaves_nothing() {
        let (_dir, file) = file().await;
        let mut dropped = file.begin_synced().await.unwrap();
        moved(&mut dropped).await.unwrap();
        drop(dropped);
        // What comes next is a transaction of its own, not the rest of that one.
        assert_eq!(file.write_synced(sqlx::query(MOVE)).await.unwrap(), 1);
        assert_eq!(pos(&file).await, 1);
        let mut ended = file.begin_synced().await.unwrap();
        let outcome = moved(&mut ended).await;
        ended.end(outcome).await.unwrap();
        assert_eq!(pos(&file).await, 2);
        let mut writer = file.writer().await.unwrap();
        let synchronous: i64 =
            sqlx::query_scalar("pragma synchronous").fetch_one(&mut *writer).await.unwrap();
        assert_eq!(synchronous, 1, "normal again");
    }

    #[tokio::test]
    async fn a_transaction_that_went_wrong_is_undone() {
        let (_dir, file) = file().await;
        let mut transaction = file.begin_synced().await.unwrap();
        moved(&mut transaction).await.unwrap();
        let wrong = transaction.end::<(), _>(Err(StoreError::Closed)).await;
        assert!(wrong.is_err());
        assert_eq!(pos(&file).await, 0);
    }
}
