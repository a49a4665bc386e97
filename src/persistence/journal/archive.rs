//! The archive: brings what the log holds into `journal.db`, where a product's history can be found again.
//!
//! A thread of its own with the file's one writing connection, which also stores snapshots and does all checkpoints.
//! Nobody waits for it. Always true: what it has committed is synced; only then does it leave the tail, and only
//! then is its file of the log used again. At the start it brings in what an earlier opening left.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::Connection;
use sqlx::sqlite::{SqliteConnection, SqliteSynchronous};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use super::format;
use super::lock::Lock;
use super::log::Shelf;
use super::reader;
use super::segment;
use super::snapshot::{Progress, Saving};
use super::tail::Placed;
use super::{Health, JournalConfig, Medium, NotWritten, OpenError, Shared};
use crate::clock::Clock;
use crate::domain::stock::{Entry, Epoch};
use crate::persistence::doubt::{UncleanMark, emptied, written_back};
use crate::persistence::sql::sqlite::{self, Trouble, Tuning, trouble};
use crate::persistence::sql::{Listed, signed};
use crate::persistence::{StoreError, migrations};

/// The file's page.
pub const PAGE_BYTES: u32 = 4096;
/// With this part of a file in the tail the archive begins at once …
const MOVE_PART: u64 = 4;
/// … and otherwise after so long. A journal that refuses looks for room as often.
const MOVE_EVERY: Duration = Duration::from_millis(500);
/// Bytes of one transaction.
const MOVE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Entries of one transaction at the start.
const BRING_IN_ENTRIES: usize = 4_096;
/// Pages the WAL may grow to before they are copied. The WAL is used again from its start after each time.
const WAL_PAGES_MAX: u64 = 2_048;
/// A probe writes as much as a snapshot's part may need, so that room for a byte is not taken for room.
const PROBE_BYTES: usize = 64 * 1024;

const EPOCH: &str = "select epoch from journal_meta where id = 1";
const RAISE_EPOCH: &str = "update journal_meta set epoch = epoch + 1 where id = 1";
const PROBE: &str = "update journal_meta set probe = ? where id = 1";
const LAST_POS: &str = "select coalesce(max(pos), 0) from journal";

static INSERT: LazyLock<Listed> = LazyLock::new(|| {
    Listed::new(
        "insert into journal (pos, product_id, first_seq, last_seq, epoch, at_ms, hash, events) values ",
        "(?, ?, ?, ?, ?, ?, ?, ?)",
        "",
    )
});

#[derive(Default)]
struct Waiting {
    snapshots: VecDeque<Box<Saving>>,
    /// The tail has grown enough to be worth a transaction.
    much: bool,
    /// Nothing more comes.
    finish: bool,
    /// Who reads the file is not waited for at the end.
    hurry: bool,
}

/// The way to the archive's thread.
#[derive(Default)]
pub struct Archive {
    waiting: Mutex<Waiting>,
    bell: Condvar,
}

impl Archive {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tail has grown to so many bytes, and files are so large.
    pub fn tail_has(&self, bytes: usize, file_bytes: u64) {
        if bytes as u64 >= file_bytes / MOVE_PART {
            let mut waiting = self.waiting();
            if !std::mem::replace(&mut waiting.much, true) {
                self.bell.notify_one();
            }
        }
    }

    pub fn put_snapshot(&self, saving: Box<Saving>) -> Result<(), Box<Saving>> {
        let mut waiting = self.waiting();
        if waiting.finish {
            return Err(saving);
        }
        waiting.snapshots.push_back(saving);
        self.bell.notify_one();
        Ok(())
    }

    /// Puts away what is there, and ends.
    pub fn finish(&self) {
        self.waiting().finish = true;
        self.bell.notify_one();
    }

    /// Whoever opens next empties the WAL.
    pub fn hurry(&self) {
        self.waiting().hurry = true;
    }

    fn hurries(&self) -> bool {
        self.waiting().hurry
    }

    /// Waits for something to do, up to `patience`. Whether nothing more will come.
    pub fn wait(&self, patience: Duration) -> bool {
        let idle = |waiting: &mut Waiting| !waiting.much && !waiting.finish && waiting.snapshots.is_empty();
        let (mut waiting, _) = self
            .bell
            .wait_timeout_while(self.waiting(), patience, idle)
            .unwrap_or_else(PoisonError::into_inner);
        waiting.much = false;
        waiting.finish
    }

    pub fn snapshot(&self) -> Option<Box<Saving>> {
        self.waiting().snapshots.pop_front()
    }
}

/// What the archive found and made at the start.
pub struct Found {
    pub epoch: Epoch,
    /// The place of the newest entry; all entries stand in `journal.db`.
    pub last_pos: i64,
    pub shelf: Arc<Shelf>,
}

/// Takes the lock, brings everything into `journal.db` and leaves the thread waiting for work. The receiver hears the
/// end, when the lock has gone.
pub async fn start(
    config: JournalConfig,
    shared: Arc<Shared>,
) -> Result<(Found, oneshot::Receiver<()>), OpenError> {
    let (opened, opening) = oneshot::channel();
    let (end, ended) = oneshot::channel();
    let work = move || match Archivist::open(config, shared) {
        Ok((mut archivist, found)) => {
            // Nobody waits any more: the opening was given up.
            if opened.send(Ok(found)).is_ok() {
                archivist.work();
            }
            archivist.close();
            // The lock goes first: whoever waits for the end may open again at once.
            drop(archivist);
            let _ = end.send(());
        }
        Err(error) => drop(opened.send(Err(error))),
    };
    std::thread::Builder::new()
        .name("stockade-archive".to_owned())
        .spawn(work)
        .map_err(StoreError::Thread)?;
    let found = opening.await.map_err(|_| StoreError::Closed)??;
    Ok((found, ended))
}

struct Archivist {
    connection: Option<SqliteConnection>,
    runtime: Runtime,
    shared: Arc<Shared>,
    shelf: Arc<Shelf>,
    dir: PathBuf,
    clock: Clock,
    /// Pages written since the WAL was last copied whole, about.
    pages: u64,
    /// When to copy next, in pages; further away after a checkpoint that a reader held up.
    copy_at: u64,
    _lock: Lock,
}

impl Archivist {
    fn open(config: JournalConfig, shared: Arc<Shared>) -> Result<(Archivist, Found), OpenError> {
        let lock = Lock::take(&config.dir)?;
        on_this_machine(&config.dir)?;
        // Nothing here waits for the network or the time: a runtime without either parks on a plain condvar.
        let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(StoreError::Thread)?;
        let (connection, found) = runtime.block_on(prepare(&config))?;
        shared.stats.pos.store(found.last_pos, Ordering::Release);
        let archivist = Archivist {
            connection: Some(connection),
            runtime,
            shared,
            shelf: found.shelf.clone(),
            dir: config.dir,
            clock: config.clock,
            pages: 0,
            copy_at: WAL_PAGES_MAX,
            _lock: lock,
        };
        Ok((archivist, found))
    }

    fn work(&mut self) {
        loop {
            let finish = self.shared.archive.wait(MOVE_EVERY);
            if self.is_fenced() {
                self.give_up_snapshots();
            } else {
                self.turn();
            }
            if finish {
                return;
            }
        }
    }

    fn is_fenced(&self) -> bool {
        self.shared.health() == Health::Fenced
    }

    /// Empties the tail, stores one slice of each snapshot that waits, keeps the files in order.
    fn turn(&mut self) {
        let refusing = matches!(self.shared.health(), Health::Refusing { .. });
        if !self.shared.tail.is_empty() && !self.empty_tail() {
            return;
        }
        while let Some(saving) = self.shared.archive.snapshot() {
            self.save(saving);
        }
        if let Err(error) = self.shelf.stock_up() {
            return self.refuse(NotWritten::without_file(&error), &error.to_string());
        }
        if refusing && !self.is_fenced() && self.probe() {
            self.shared.accept();
        }
        self.checkpoint();
    }

    /// Whether the tail is empty now.
    fn empty_tail(&mut self) -> bool {
        loop {
            if self.is_fenced() {
                return false;
            }
            let entries = self.shared.tail.front(MOVE_BYTES_MAX);
            let Some((last_pos, _)) = entries.last() else { return true };
            let last_pos = *last_pos;
            let Some(connection) = &mut self.connection else { return false };
            if let Err(error) = self.runtime.block_on(bring(connection, &entries)) {
                self.trouble(&error);
                return false;
            }
            let bytes: usize = entries.iter().map(|(_, entry)| segment::bytes_of(entry)).sum();
            self.pages += (bytes / PAGE_BYTES as usize + 2 * entries.len()) as u64;
            self.shared.tail.drop_to(last_pos);
            if let Err(error) = self.shelf.recycle(last_pos) {
                tracing::warn!(%error, "a file of the log could not be used again");
            }
            self.checkpoint();
        }
    }

    fn save(&mut self, mut saving: Box<Saving>) {
        loop {
            let healthy = self.shared.health() == Health::Healthy;
            let Some(connection) = self.connection.as_mut().filter(|_| healthy) else {
                return saving.give_up(NotWritten::Closed);
            };
            self.pages += saving.pages();
            match self.runtime.block_on(saving.slice(&mut *connection)) {
                Ok(Progress::More(rest)) => saving = rest,
                Ok(Progress::Done) => return,
                Err((saving, error)) => {
                    tracing::warn!(%error, "a snapshot could not be saved; the journal still holds everything");
                    saving.give_up(NotWritten::Failed);
                    if trouble(&error) == Trouble::Unsure {
                        self.shared.doubt(&error.to_string());
                    }
                    return;
                }
            }
            if !self.shared.tail.is_empty() && !self.empty_tail() {
                return saving.give_up(NotWritten::Closed);
            }
        }
    }

    fn give_up_snapshots(&self) {
        while let Some(saving) = self.shared.archive.snapshot() {
            saving.give_up(NotWritten::Closed);
        }
    }

    /// What failed is still in the log and in the tail; without room there nothing new is taken.
    fn trouble(&self, error: &sqlx::Error) {
        let said = error.to_string();
        match trouble(error) {
            Trouble::Full => self.refuse(NotWritten::DiskFull, &said),
            Trouble::ReadOnly => self.refuse(NotWritten::ReadOnly, &said),
            Trouble::Refused => tracing::warn!(%error, "the journal's file is busy; the archive tries again"),
            // A fork that got past the writer, or a disk that fails.
            Trouble::Constraint | Trouble::Unsure => self.shared.doubt(&said),
        }
    }

    fn refuse(&self, why: NotWritten, error: &str) {
        self.shared.refuse(why, error);
    }

    /// Writes something of no meaning; if that works, there is room again.
    fn probe(&mut self) -> bool {
        let Some(connection) = &mut self.connection else { return false };
        for bytes in [PROBE_BYTES, 0] {
            let probe = sqlx::query(PROBE).bind(vec![0_u8; bytes]).execute(&mut *connection);
            if let Err(error) = self.runtime.block_on(probe) {
                if trouble(&error) == Trouble::Unsure {
                    self.shared.doubt(&error.to_string());
                }
                return false;
            }
        }
        self.pages += (PROBE_BYTES / PAGE_BYTES as usize) as u64;
        true
    }

    /// Copies the WAL into the file once it has grown, so that it can be written from its start again.
    fn checkpoint(&mut self) {
        let due = self.pages >= self.copy_at;
        let Some(connection) = self.connection.as_mut().filter(|_| due) else { return };
        let began = self.clock.nanos();
        match self.runtime.block_on(sqlite::checkpoint(connection)) {
            // What a reader still needs stays where it is, and the next try waits for as much again.
            Ok(done) => self.pages = u64::try_from(done.pages - done.copied).unwrap_or(0),
            Err(error) if trouble(&error) == Trouble::Unsure => self.shared.doubt(&error.to_string()),
            Err(error) => tracing::warn!(%error, "the journal's WAL could not be copied into its file"),
        }
        self.copy_at = self.pages + WAL_PAGES_MAX;
        let stats = &self.shared.stats;
        stats.wal_pages.store(self.pages, Ordering::Relaxed);
        stats.checkpoints.fetch_add(1, Ordering::Relaxed);
        stats.checkpoint_ns.fetch_add(self.clock.nanos().saturating_sub(began), Ordering::Relaxed);
    }

    fn close(&mut self) {
        self.give_up_snapshots();
        let Some(mut connection) = self.connection.take() else { return };
        if !self.is_fenced() {
            let patiently = !self.shared.archive.hurries();
            if let Err(error) = self.runtime.block_on(sqlite::checkpoint_at_end(&mut connection, patiently)) {
                tracing::warn!(%error, "the journal's WAL stays behind; the next start reads it");
                if trouble(&error) == Trouble::Unsure {
                    self.shared.doubt(&error.to_string());
                }
            }
        }
        // After an I/O error nothing more is written by this opening: the next one looks at the disk first.
        let fenced = self.is_fenced();
        let path = self.dir.join("journal.db");
        let closed = self.runtime.block_on(async {
            match fenced {
                true => sqlite::leave(connection, &path, &reader::tuning()).await,
                false => connection.close().await,
            }
        });
        if let Err(error) = closed {
            tracing::warn!(%error, "the journal's file was not closed cleanly");
        }
        if !fenced && self.shared.tail.is_empty() {
            // All of the log stands in the file. If it cannot go now, the next start finds nothing new in it.
            let left = segment::left_in(&self.dir).unwrap_or_default();
            left.iter().for_each(|file| drop(std::fs::remove_file(&file.path)));
        }
    }
}

impl Drop for Archivist {
    /// A panic on this thread leaves nobody who puts the tail away: the opening is over.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.inbox.close();
            self.shared.doubt("the journal's archive panicked");
            self.shared.archive.finish();
            self.give_up_snapshots();
        }
    }
}

/// Brings entries into the file, in one synced transaction.
async fn bring(connection: &mut SqliteConnection, entries: &[Placed]) -> Result<(), sqlx::Error> {
    sqlite::begin(connection).await?;
    let brought = insert(connection, entries).await;
    sqlite::end(connection, brought).await
}

async fn insert(connection: &mut SqliteConnection, entries: &[Placed]) -> Result<(), sqlx::Error> {
    for (sql, entries) in INSERT.cut(entries) {
        let mut query = sqlx::query(sql);
        for (pos, entry) in entries {
            query = query
                .bind(pos)
                .bind(&entry.product.as_bytes()[..])
                .bind(signed(entry.first.0))
                .bind(signed(entry.last.0))
                .bind(signed(entry.epoch.0))
                .bind(entry.at.0)
                .bind(&entry.hash.0[..])
                .bind(&entry.events[..]);
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

/// Opens, repairs what a bad end may have left, raises the epoch, brings the log in.
async fn prepare(config: &JournalConfig) -> Result<(SqliteConnection, Found), OpenError> {
    let tuning = Tuning {
        page_bytes: PAGE_BYTES,
        cache_kib: 16 * 1024,
        synchronous: SqliteSynchronous::Full,
        erases: false,
        pages_max: config.pages_max,
    };
    let path = config.dir.join("journal.db");
    written_back(&path).await?;
    let mut connection = sqlite::writer(&path, &tuning).await?;
    let whole = emptied(&mut connection, &path).await?;
    let found = brought_up(&mut connection, config, whole).await;
    if let Err(OpenError::Store(error)) = &found
        && error.said().is_some_and(|error| trouble(error) == Trouble::Unsure)
    {
        UncleanMark::of(&path).set();
    }
    Ok((connection, found?))
}

/// Migrations, the number of what is written, a new epoch, and what the log holds.
async fn brought_up(
    connection: &mut SqliteConnection,
    config: &JournalConfig,
    whole: bool,
) -> Result<Found, OpenError> {
    migrations::journal().run(&mut *connection).await.map_err(StoreError::from)?;
    format::raise(&mut *connection).await?;
    sqlx::query(RAISE_EPOCH).execute(&mut *connection).await.map_err(StoreError::from)?;
    let epoch: i64 = sqlx::query_scalar(EPOCH).fetch_one(&mut *connection).await.map_err(StoreError::from)?;
    let epoch = Epoch(epoch.unsigned_abs());
    let (last_pos, last_file) = bring_in(connection, &config.dir, epoch, whole).await?;
    let shelf = Arc::new(Shelf::new(&config.dir, epoch, last_file, config.file_bytes));
    Ok(Found { epoch, last_pos, shelf })
}

/// Seals the log that an earlier opening left, brings over what is not in the file yet, and removes it, if all that the
/// file has is known to be on the disk. Says where the journal ends, and the number of the last file.
async fn bring_in(
    connection: &mut SqliteConnection,
    dir: &Path,
    epoch: Epoch,
    whole: bool,
) -> Result<(i64, u64), OpenError> {
    let log = |source| OpenError::Log { dir: dir.to_owned(), source };
    let left = sealed(dir, epoch).map_err(log)?;
    let archived: i64 =
        sqlx::query_scalar(LAST_POS).fetch_one(&mut *connection).await.map_err(StoreError::from)?;
    let new = behind(archived, segment::read_all(&left).map_err(log)?).map_err(log)?;
    let placed: Vec<Placed> = new.into_iter().map(|(pos, entry)| (pos, Arc::new(entry))).collect();
    for placed in placed.chunks(BRING_IN_ENTRIES) {
        bring(connection, placed).await.map_err(StoreError::from)?;
    }
    if whole {
        for file in &left {
            std::fs::remove_file(&file.path).map_err(log)?;
        }
    }
    let last_file = left.iter().map(|file| file.number).max().unwrap_or(0);
    Ok((placed.last().map_or(archived, |(pos, _)| *pos), last_file))
}

/// Every file of the log, sealed; looked for again until no new one has come meanwhile.
fn sealed(dir: &Path, epoch: Epoch) -> std::io::Result<Vec<segment::Left>> {
    loop {
        let left = segment::left_in(dir)?;
        left.iter().try_for_each(|file| file.seal(epoch))?;
        if segment::left_in(dir)? == left {
            return Ok(left);
        }
    }
}

/// Of what the log holds, what `journal.db`, which ends at `archived`, does not. Each entry must follow the one before.
pub fn behind(archived: i64, mut log: Vec<(i64, Entry)>) -> std::io::Result<Vec<(i64, Entry)>> {
    log.retain(|(pos, _)| *pos > archived);
    let unbroken = (archived + 1..).zip(&log).all(|(expected, (pos, _))| *pos == expected);
    if unbroken {
        Ok(log)
    } else {
        let told = format!("the log does not continue the journal, which ends at {archived}");
        Err(std::io::Error::new(std::io::ErrorKind::InvalidData, told))
    }
}
/// Neither a lock nor a sync can be relied on elsewhere.
fn on_this_machine(dir: &Path) -> Result<(), OpenError> {
    let directory = |source| OpenError::Directory { dir: dir.to_owned(), source };
    match Medium::of(dir).map_err(directory)? {
        Medium::Network(name) => Err(OpenError::Elsewhere { dir: dir.to_owned(), name }),
        Medium::Disk | Medium::Memory => Ok(()),
    }
}
