//! What some tables stand in: one writer, and a pool of readers. A file of SQLite's, whose writer's thread may weigh less than the path of
//! an order, or a database of MySQL's.
//!
//! Always true: whoever has the writer has it alone in this process, and a transaction that was dropped half-way is undone before
//! the next one begins; a file whose disk has failed in a commit is written no more by this opening. Whether something is synced by
//! itself, and what is to be tidied up, are questions of files: MySQL syncs every commit, and tidies up by itself.

#[cfg(test)]
mod tests;

use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnection, SqliteSynchronous};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, OwnedMappedMutexGuard, OwnedMutexGuard, watch};

use super::StoreError;
use super::doubt::{Doubt, emptied, written_back};
use super::sql::mysql::{Server, Session};
use super::sql::sqlite::{self, OwnFile, Tuning};
use super::sql::{self, Connection, Error, Pool, Query};

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
    /// How much less the writer's thread weighs than the path of an order, in steps of the scheduler.
    pub nice: i32,
    /// Whether all its commits are synced. Otherwise those are which say so.
    pub synced: bool,
    /// Whether what is deleted is overwritten at once.
    pub erases: bool,
}

/// The writer, alone in this process for as long as this lives.
pub type Writer = OwnedMappedMutexGuard<Option<Connection>, Connection>;

/// An open store. Cheap to clone.
#[derive(Clone)]
pub struct Store(Arc<Opened>);

struct Opened {
    readers: Pool,
    writer: Arc<Mutex<Option<Connection>>>,
    /// Whoever had the writer last may have been dropped half-way: its transaction is undone before the next begins.
    unended: AtomicBool,
    /// Something was erased that the WAL still has.
    has_former: AtomicBool,
    /// Those that opened it: they outlive every door, so what must be heard to its end is heard there.
    threads: Handle,
    home: Home,
}

enum Home {
    File(Shape),
    Server(Server),
}

impl Opened {
    /// From here on commits are synced.
    async fn strain(&self, writer: &mut Connection) -> Result<(), Error> {
        self.sync(writer, "pragma synchronous = full").await
    }

    /// From here on commits are not synced, as the flush wants it.
    async fn relax(&self, writer: &mut Connection) -> Result<(), Error> {
        self.sync(writer, "pragma synchronous = normal").await
    }

    async fn sync(&self, writer: &mut Connection, pragma: &'static str) -> Result<(), Error> {
        match &self.home {
            Home::File(shape) if !shape.synced => sql::query(pragma).execute(writer).await.map(|_| ()),
            Home::File(_) | Home::Server(_) => Ok(()),
        }
    }

    /// Undoes what the last holder left half done.
    async fn mend(&self, writer: &mut Connection) -> Result<(), StoreError> {
        match (&self.home, &mut *writer) {
            (Home::Server(server), Connection::MySql(session)) => server.mend(session).await?,
            (_, Connection::Sqlite(file)) if file.was_missed() => return Err(StoreError::DiskFailed),
            _ if self.unended.load(Ordering::Acquire) => {
                // There may be none: then it had ended, and only the settings were left.
                let _ = sql::query("rollback").execute(&mut *writer).await;
                self.relax(writer).await?;
            }
            _ => return Ok(()),
        }
        self.unended.store(false, Ordering::Release);
        Ok(())
    }
}

/// A transaction, and the writer with it. Dropped without an end it leaves nothing, and is undone at once: that of a node holds
/// on to the row of the node's session.
pub struct Transaction<'t> {
    held: Held,
    store: &'t Store,
}

struct Held {
    writer: Writer,
    store: Store,
}

impl Transaction<'_> {
    /// One statement, and the end; how many rows it matched.
    async fn only(mut self, query: Query<'_>) -> Result<u64, StoreError> {
        let done = query.execute(&mut *self).await;
        self.end(done.map(|done| done.rows_affected()).map_err(StoreError::from)).await
    }

    /// Commits what went well, synced if it was begun so, and undoes what did not.
    pub async fn end<T, E: From<Error>>(self, outcome: Result<T, E>) -> Result<T, E> {
        let Transaction { mut held, store } = self;
        let value = match outcome {
            Ok(value) if matches!(store.0.home, Home::File(_)) => value,
            outcome => return held.end(outcome).await,
        };
        // Whoever waits may go at any moment, and SQLite commits all the same: somebody who stays hears what came of it.
        let committing = store.0.threads.spawn(async move { held.end(Ok::<_, Error>(())).await });
        match committing.await {
            Ok(Ok(())) => Ok(value),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(Error::WorkerCrashed.into()),
        }
    }
}

impl Held {
    async fn end<T, E: From<Error>>(&mut self, outcome: Result<T, E>) -> Result<T, E> {
        let ended = sql::end(&mut self.writer, outcome).await;
        self.store.0.relax(&mut self.writer).await?;
        self.store.0.unended.store(false, Ordering::Release);
        ended
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.store.0.unended.load(Ordering::Acquire) {
            return;
        }
        // Where no thread serves any more the next one undoes it.
        let store = self.store.clone();
        self.store.0.threads.spawn(async move { drop(store.writer().await) });
    }
}

impl Deref for Transaction<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.held.writer
    }
}

impl DerefMut for Transaction<'_> {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.held.writer
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

    fn readers(&self, cache_kib: u32, most: u32) -> Pool {
        Pool::Sqlite(sqlite::readers(&self.path, &self.tuning(cache_kib), most))
    }

    /// The writer goes, and leaves an empty WAL. After the disk has failed nothing is copied any more: the next opening sees to that.
    async fn close(&self, mut file: OwnFile, patiently: bool) -> Result<(), StoreError> {
        let mut emptied = Ok(());
        if !file.is_over() {
            emptied = sqlite::checkpoint_at_end(&mut file, patiently).await.map(|_| ());
        }
        if let Err(error) = &emptied {
            file.tell(error);
        }
        if file.is_over() {
            file.leave(&self.path, &self.tuning(ASIDE_CACHE_KIB)).await?;
            return Err(StoreError::DiskFailed);
        }
        let closed = file.close().await;
        Ok(emptied.and(closed)?)
    }

    fn with(&self, writer: Option<Connection>) -> Store {
        let readers = self.readers(self.reader_cache_kib, self.readers_max);
        Store::of(readers, writer, Home::File(self.clone()))
    }
}

impl Store {
    fn of(readers: Pool, writer: Option<Connection>, home: Home) -> Store {
        // Who was killed may have erased something that the WAL still has.
        let may_have = writer.is_some() && matches!(&home, Home::File(shape) if shape.erases);
        let (unended, has_former) = (AtomicBool::new(false), AtomicBool::new(may_have));
        let writer = Arc::new(Mutex::new(writer));
        let threads = Handle::current();
        Store(Arc::new(Opened { readers, writer, unended, has_former, threads, home }))
    }

    /// Opens a file, which is made if there is none, and brings it up to date. `over` turns true when its disk fails: then all of what
    /// was opened with it must be opened again.
    pub async fn open(
        shape: &Shape,
        migrations: Migrator,
        over: &watch::Sender<bool>,
    ) -> Result<Store, StoreError> {
        let tuning = shape.tuning(shape.writer_cache_kib);
        let doubt = Doubt::of(&shape.path, over);
        written_back(&shape.path).await?;
        let mut writer = match shape.nice {
            0 => sqlite::writer(&shape.path, &tuning).await?,
            nice => sqlite::nice_writer(&shape.path, tuning, nice).await?,
        };
        emptied(&mut writer, &shape.path).await?;
        let migrated = migrations.run(&mut writer).await.map_err(StoreError::from);
        if let Err(error) = &migrated
            && let Some(error) = error.said()
        {
            doubt.hear(error);
        }
        migrated?;
        Ok(shape.with(Some(Connection::Sqlite(OwnFile::told_to(doubt, writer)))))
    }

    /// The same without a writer: for looking at the store of a stopped server.
    pub fn read_only(shape: &Shape) -> Store {
        shape.with(None)
    }

    /// Tables in a database that is up to date.
    pub fn on(server: &Server, writer: Session, readers: Pool) -> Store {
        Store::of(readers, Some(Connection::MySql(writer)), Home::Server(server.clone()))
    }

    pub fn readers(&self) -> Pool {
        self.0.readers.clone()
    }

    /// A reader beside the others, whose thread is as unimportant as that of whoever asks first. Who takes it closes it.
    pub fn reader_aside(&self) -> Pool {
        match &self.0.home {
            Home::File(shape) => shape.readers(ASIDE_CACHE_KIB, 1),
            Home::Server(server) => Pool::MySql(server.readers(1)),
        }
    }

    /// The writer, for as long as the guard is held.
    pub async fn writer(&self) -> Result<Writer, StoreError> {
        let writer = Arc::clone(&self.0.writer).lock_owned().await;
        let mut writer = OwnedMutexGuard::try_map(writer, Option::as_mut).map_err(|_| StoreError::Closed)?;
        if is_over(&writer) {
            return Err(StoreError::DiskFailed);
        }
        self.0.mend(&mut writer).await?;
        Ok(writer)
    }

    /// Whoever has the writer is about to begin.
    async fn held(&self) -> Result<Transaction<'_>, StoreError> {
        let held = Held { writer: self.writer().await?, store: self.clone() };
        // From here on: what it has begun may have failed half-way.
        self.0.unended.store(true, Ordering::Release);
        Ok(Transaction { held, store: self })
    }

    /// Begins a transaction of several statements, which is synced when it ends.
    pub async fn begin_synced(&self) -> Result<Transaction<'_>, StoreError> {
        let mut transaction = self.held().await?;
        self.0.strain(&mut transaction).await?;
        sql::begin(&mut transaction).await?;
        Ok(transaction)
    }

    /// Begins a transaction that is synced with whatever is next: for what may be lost with the power, and is not to be written by
    /// a node that counts as dead.
    pub async fn begin(&self) -> Result<Transaction<'_>, StoreError> {
        let mut transaction = self.held().await?;
        sql::begin(&mut transaction).await?;
        Ok(transaction)
    }

    /// One statement in such a transaction; how many rows it matched.
    pub async fn write(&self, query: Query<'_>) -> Result<u64, StoreError> {
        self.begin().await?.only(query).await
    }

    /// One statement, synced before it returns; how many rows it matched. In a transaction: a commit by itself says what became of it,
    /// and that of a node asks whether the node still lives.
    pub async fn write_synced(&self, query: Query<'_>) -> Result<u64, StoreError> {
        self.begin_synced().await?.only(query).await
    }

    /// Copies the WAL into the file when it has grown. If there is no room for that the rows are safe where they are, and the next
    /// time tries again.
    pub async fn checkpoint_if_due(&self) {
        self.checkpoint_beyond(i64::MAX).await;
    }

    /// The same at a smaller size, if that is smaller than the file's own: for while somebody waits for the writer.
    pub async fn checkpoint_beyond(&self, pages: i64) {
        let Home::File(shape) = &self.0.home else { return };
        let pages = pages.min(shape.wal_pages_max);
        let Ok(mut writer) = self.writer().await else { return };
        let Connection::Sqlite(file) = &mut *writer else { return };
        let copied = if self.0.has_former.load(Ordering::Acquire) {
            self.forget(file).await
        } else {
            match sqlite::wal(file).await {
                Ok(wal) if wal.pages - wal.copied < pages => return,
                Ok(_) => sqlite::checkpoint(file).await.map(|_| ()),
                Err(error) => Err(error),
            }
        };
        if let Err(error) = copied {
            tracing::warn!(%error, "a WAL of the tables could not be copied into its file");
            file.tell(&error);
        }
    }

    /// Something was erased, and that is committed: the file has overwritten it when the WAL, in which it stands as it was, is copied and
    /// emptied. The next look at the WAL does so, and each one after it as long as somebody reads what is in there.
    pub fn forget_soon(&self) {
        self.0.has_former.store(true, Ordering::Release);
    }

    /// Whether something that was erased still stands in the WAL, or may.
    pub fn has_former(&self) -> bool {
        matches!(self.0.home, Home::File(_)) && self.0.has_former.load(Ordering::Acquire)
    }

    /// Its caller has the writer, so nothing is erased meanwhile.
    async fn forget(&self, file: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        let done = sqlite::checkpoint_truncate_now(file).await?;
        self.0.has_former.store(done.busy, Ordering::Release);
        Ok(())
    }

    /// Closes all connections; a file's WAL is emptied before. [`StoreError::DiskFailed`] where its disk has failed: then it stays as it
    /// is, and the next opening sees to that.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.closed(true).await
    }

    /// The same, and who reads the WAL is not waited for: it may stay.
    pub async fn abandon(&self) -> Result<(), StoreError> {
        self.closed(false).await
    }

    async fn closed(&self, patiently: bool) -> Result<(), StoreError> {
        let has_failed = self.0.writer.lock().await.as_ref().is_some_and(has_failed);
        // Of a file whose disk has failed the writer goes first, and waits for nobody who reads: dropped while it waits it would copy.
        if !has_failed {
            self.0.readers.close().await;
        }
        let writer = self.0.writer.lock().await.take();
        let closed = match (writer, &self.0.home) {
            (Some(Connection::Sqlite(file)), Home::File(shape)) => shape.close(file, patiently).await,
            (Some(Connection::MySql(session)), _) => session.close().await.map_err(StoreError::from),
            _ => Ok(()),
        };
        self.0.readers.close().await;
        closed
    }
}

/// The same where it is over, or where nobody heard what came of its last commit.
fn has_failed(writer: &Connection) -> bool {
    matches!(writer, Connection::Sqlite(file) if file.was_missed() || file.is_over())
}

/// Whether the disk of its file has failed.
fn is_over(writer: &Connection) -> bool {
    matches!(writer, Connection::Sqlite(file) if file.is_over())
}
