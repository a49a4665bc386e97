//! The journal's one writer: a thread of its own, one transaction at a time, every answer in order.
//!
//! A group is one statement that commits by itself, so an error leaves either nothing or doubt, and
//! [`trouble`] says which. Nothing definite is ever guessed: doubt ends this opening.

use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use sqlx::Connection;
use sqlx::sqlite::{SqliteConnection, SqliteSynchronous};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use super::inbox::Turn;
use super::lock::{Lock, UncleanMark};
use super::snapshot::{Progress, Saving};
use super::stats::Volume;
use super::{
    Append, Appended, GROUP_ENTRIES_MAX, Health, JournalConfig, NotWritten, OpenError, PROBE_EVERY, Shared,
};
use crate::domain::stock::Epoch;
use crate::persistence::sqlite::{self, Trouble, Tuning, signed, trouble};
use crate::persistence::{StoreError, migrations};

/// The file's page. A group of a dozen orders is about one of them.
pub const PAGE_BYTES: u32 = 4096;
/// Pages the WAL may grow to before they are copied. The WAL is reused from its start after each time, and a file that
/// does not grow syncs faster.
const WAL_PAGES_MAX: u64 = 256;
/// The shortest and the longest rest after a transaction.
const REST_MIN: Duration = Duration::from_micros(100);
const REST_MAX: Duration = Duration::from_millis(1);
/// A transaction of this many events has gathered enough.
const REST_EVENTS_MAX: u64 = 128;
/// How long the writer waits for work before it tidies up.
const IDLE_AFTER: Duration = Duration::from_millis(50);
/// How much more the journal's threads weigh than others: all buyers wait for them, and they hardly work. Under full
/// cores it is worth half as many groups again.
const NICE: i32 = -10;
/// A probe writes as much as a group may need, so that room for a byte is not taken for room.
const PROBE_BYTES: usize = 64 * 1024;

const EPOCH: &str = "select epoch from journal_meta where id = 1";
const RAISE_EPOCH: &str = "update journal_meta set epoch = epoch + 1 where id = 1";
const PROBE: &str = "update journal_meta set probe = ? where id = 1 and epoch = ?";
const LAST_POS: &str = "select coalesce(max(pos), 0) from journal";

/// One statement for each number of entries. An entry is selected *from the row that holds the epoch*: under
/// another owner's epoch that row is not found and nothing is inserted.
static APPEND: LazyLock<Vec<String>> = LazyLock::new(|| {
    let entry = "select ?, ?, ?, ?, ?, ?, ? from journal_meta where id = 1 and epoch = ?";
    let append = |entries| {
        let rows = vec![entry; entries].join(" union all ");
        format!("insert into journal (product_id, first_seq, last_seq, epoch, at_ms, hash, events) {rows}")
    };
    (1..=GROUP_ENTRIES_MAX).map(append).collect()
});

/// What a transaction came to.
enum Outcome {
    Written,
    Fenced,
    NotWritten(NotWritten, String),
    /// One entry spoils the group, by itself or among others.
    Spoilt(String),
    Unknown(String),
}

/// Opens the file on the writer's thread and leaves the thread waiting for work.
pub async fn start(
    config: JournalConfig,
    shared: Arc<Shared>,
) -> Result<(Epoch, oneshot::Receiver<()>), OpenError> {
    let (opened, opening) = oneshot::channel();
    let (end, ended) = oneshot::channel();
    let thread = std::thread::Builder::new().name("stockade-journal".to_owned());
    let work = move || {
        // Most systems permit this only to an administrator; without it the journal competes like everybody.
        let _ = rustix::process::nice(NICE);
        match Writer::open(config, shared) {
            Ok(mut writer) => {
                let _ = opened.send(Ok(writer.epoch));
                writer.work();
                writer.close();
                // The lock goes first: whoever waits for the end may open again at once.
                drop(writer);
                let _ = end.send(());
            }
            Err(error) => {
                let _ = opened.send(Err(error));
            }
        }
    };
    thread.spawn(work).map_err(StoreError::Thread)?;
    let epoch = opening.await.map_err(|_| StoreError::Closed)??;
    Ok((epoch, ended))
}

struct Writer {
    connection: Option<SqliteConnection>,
    runtime: Runtime,
    shared: Arc<Shared>,
    config: JournalConfig,
    epoch: Epoch,
    /// Pages written since the WAL was last copied whole, about.
    pages: u64,
    /// When to copy next, in pages; further away after a checkpoint that a reader held up.
    copy_at: u64,
    /// When a refusing journal last looked for room.
    probed_ns: u64,
    mark: UncleanMark,
    _lock: Lock,
}

impl Writer {
    fn open(config: JournalConfig, shared: Arc<Shared>) -> Result<Writer, OpenError> {
        let lock = Lock::take(&config.dir)?;
        let mark = UncleanMark::of(&config.dir);
        // Nothing here waits for the network or the time: a runtime without either parks on a plain condvar.
        let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(StoreError::Thread)?;
        let (connection, epoch, pos) = runtime.block_on(prepare(&config, &mark))?;
        shared.stats.pos.store(pos, Ordering::Release);
        let connection = Some(connection);
        Ok(Writer {
            connection,
            runtime,
            shared,
            config,
            epoch,
            pages: 0,
            copy_at: WAL_PAGES_MAX,
            probed_ns: 0,
            mark,
            _lock: lock,
        })
    }

    fn work(&mut self) {
        loop {
            match self.shared.inbox.next(self.patience()) {
                Turn::Group(group) => {
                    let events = Volume::of(group.iter().map(|append| &append.entry)).events;
                    self.group(group);
                    self.pace(events);
                }
                Turn::Slice(saving) => self.slice(saving),
                Turn::Idle => self.checkpoint(WAL_PAGES_MAX),
                Turn::Finish => return,
            }
            self.checkpoint(self.copy_at);
            self.probe_if_due();
        }
    }

    /// How long nothing may come before there is something else to do.
    fn patience(&self) -> Duration {
        match self.shared.health() {
            Health::Refusing { .. } => PROBE_EVERY,
            _ if self.pages >= WAL_PAGES_MAX => IDLE_AFTER,
            _ => Duration::from_secs(3_600),
        }
    }

    /// Writes one group and answers everyone in it.
    fn group(&mut self, group: Vec<Append>) {
        match self.shared.health() {
            Health::Healthy => {}
            Health::Refusing { why, .. } => return answer(group, Appended::NotWritten(why)),
            Health::Fenced => return answer(group, Appended::NotWritten(NotWritten::Fenced)),
        }
        match self.append(&group) {
            Outcome::Written => answer(group, Appended::Written),
            Outcome::Spoilt(error) if group.len() == 1 => {
                tracing::error!(product = %group[0].entry.product, error, "the journal refused an entry");
                self.shared.stats.not_written.fetch_add(1, Ordering::Relaxed);
                answer(group, Appended::NotWritten(NotWritten::Failed));
            }
            // A fork is one product's fault: the others are written without it.
            Outcome::Spoilt(_) => group.into_iter().for_each(|append| self.group(vec![append])),
            Outcome::NotWritten(why, error) => {
                self.shared.stats.not_written.fetch_add(1, Ordering::Relaxed);
                self.refuse(why, &error);
                answer(group, Appended::NotWritten(why));
            }
            Outcome::Fenced => {
                self.fence("another process has opened this journal");
                answer(group, Appended::NotWritten(NotWritten::Fenced));
            }
            Outcome::Unknown(error) => {
                self.shared.stats.unknown.fetch_add(1, Ordering::Relaxed);
                self.doubt(&error);
                answer(group, Appended::Unknown);
            }
        }
    }

    /// After a small transaction: rests as long as it took, so that more come together for the next; a transaction
    /// costs about the same for ten orders as for forty. Longer when the brake says so.
    fn pace(&self, events: u64) {
        let brake = Duration::from_micros(self.config.brake_us.load(Ordering::Relaxed));
        let took = Duration::from_nanos(self.shared.stats.last_write_ns.load(Ordering::Relaxed));
        let gather = if events < REST_EVENTS_MAX { took.clamp(REST_MIN, REST_MAX) } else { Duration::ZERO };
        let rest = brake.max(gather);
        if !rest.is_zero() {
            std::thread::sleep(rest);
        }
    }

    fn append(&mut self, group: &[Append]) -> Outcome {
        let Some(connection) = &mut self.connection else { return Outcome::Fenced };
        let Some(sql) = APPEND.get(group.len() - 1) else { return Outcome::Fenced };
        let began = self.config.clock.nanos();
        let mut query = sqlx::query(sql.as_str());
        for Append { entry, .. } in group {
            query = query
                .bind(&entry.product.as_bytes()[..])
                .bind(signed(entry.first.0))
                .bind(signed(entry.last.0))
                .bind(signed(entry.epoch.0))
                .bind(entry.at.0)
                .bind(&entry.hash.0[..])
                .bind(&entry.events[..])
                .bind(signed(self.epoch.0));
        }
        match self.runtime.block_on(query.execute(connection)) {
            Ok(done) if done.rows_affected() == group.len() as u64 => {
                let volume = Volume::of(group.iter().map(|append| &append.entry));
                let took = self.config.clock.nanos().saturating_sub(began);
                self.shared.stats.written(volume, done.last_insert_rowid(), took);
                // Its bytes, and for each entry about one page of the table and one of its index.
                self.pages += volume.bytes / u64::from(PAGE_BYTES) + 1 + volume.entries;
                self.shared.stats.wal_pages.store(self.pages, Ordering::Relaxed);
                Outcome::Written
            }
            Ok(done) if done.rows_affected() == 0 => Outcome::Fenced,
            Ok(done) => {
                Outcome::Unknown(format!("{} of {} entries written", done.rows_affected(), group.len()))
            }
            Err(error) => self.outcome(&error),
        }
    }

    /// Definite only if the error is, and the connection, asked again, still ends where it did.
    fn outcome(&mut self, error: &sqlx::Error) -> Outcome {
        let said = error.to_string();
        let why = match trouble(error) {
            Trouble::Full => NotWritten::DiskFull,
            Trouble::ReadOnly => NotWritten::ReadOnly,
            Trouble::Constraint | Trouble::Refused => NotWritten::Failed,
            Trouble::Unsure => return Outcome::Unknown(said),
        };
        let Some(connection) = &mut self.connection else { return Outcome::Unknown(said) };
        let before = self.shared.stats.head().pos;
        let last: Result<i64, _> = self.runtime.block_on(sqlx::query_scalar(LAST_POS).fetch_one(connection));
        match last {
            Ok(pos) if pos == before && why == NotWritten::Failed => Outcome::Spoilt(said),
            Ok(pos) if pos == before => Outcome::NotWritten(why, said),
            Ok(_) => Outcome::Unknown(format!("{said}; and the journal has grown")),
            Err(again) => Outcome::Unknown(format!("{said}; and then {again}")),
        }
    }

    fn refuse(&mut self, why: NotWritten, error: &str) {
        if self.shared.health() == Health::Healthy {
            tracing::error!(%why, error, "the journal refuses new entries until there is room; nothing is lost");
            self.probed_ns = self.config.clock.nanos();
            self.shared.set_health(Health::Refusing { why, since_ns: self.probed_ns });
        }
    }

    /// The end of this opening. What waits is answered *not written*, which is certain: it was never tried.
    fn fence(&self, why: &str) {
        tracing::error!(why, "the journal is fenced; the store must be opened again");
        self.shared.set_health(Health::Fenced);
    }

    /// The end of this opening, with a disk that cannot be trusted until it has been rewritten.
    fn doubt(&self, error: &str) {
        self.mark.set();
        self.fence(error);
    }

    fn slice(&mut self, saving: Box<Saving>) {
        let healthy = self.shared.health() == Health::Healthy;
        let Some(connection) = self.connection.as_mut().filter(|_| healthy) else {
            return saving.give_up(NotWritten::Closed);
        };
        self.pages += saving.pages();
        match self.runtime.block_on(saving.slice(connection)) {
            Ok(Progress::More(rest)) => self.shared.inbox.put_back(rest),
            Ok(Progress::Done) => {}
            Err((saving, error)) => {
                tracing::warn!(%error, "a snapshot could not be saved; the journal still holds everything");
                saving.give_up(NotWritten::Failed);
                if trouble(&error) == Trouble::Unsure {
                    self.doubt(&error.to_string());
                }
            }
        }
    }

    /// A journal that refuses looks for room now and then, however many entries it is turning away.
    fn probe_if_due(&mut self) {
        let now = self.config.clock.nanos();
        let due = u128::from(now.saturating_sub(self.probed_ns)) >= PROBE_EVERY.as_nanos();
        if due && matches!(self.shared.health(), Health::Refusing { .. }) {
            self.probed_ns = now;
            self.probe();
        }
    }

    /// Writes something of no meaning; if that works, there is room again.
    fn probe(&mut self) {
        let Some(connection) = &mut self.connection else { return };
        let epoch = signed(self.epoch.0);
        for bytes in [PROBE_BYTES, 0] {
            let probe = sqlx::query(PROBE).bind(vec![0_u8; bytes]).bind(epoch).execute(&mut *connection);
            if let Err(error) = self.runtime.block_on(probe) {
                if trouble(&error) == Trouble::Unsure {
                    self.doubt(&error.to_string());
                }
                return;
            }
        }
        self.pages += (PROBE_BYTES / PAGE_BYTES as usize) as u64;
        tracing::info!("the journal has room again");
        self.shared.set_health(Health::Healthy);
    }

    /// Copies the WAL into the file once it has `due` pages, so that it can be written from its start again.
    fn checkpoint(&mut self, due: u64) {
        let Some(connection) = self.connection.as_mut().filter(|_| self.pages >= due) else { return };
        if self.shared.health() == Health::Fenced {
            return;
        }
        let began = self.config.clock.nanos();
        match self.runtime.block_on(sqlite::checkpoint(connection)) {
            Ok(done) => {
                // What a reader still needs stays where it is, and the next try waits for as much again.
                self.pages = u64::try_from(done.pages - done.copied).unwrap_or(0);
                self.copy_at = self.pages + WAL_PAGES_MAX;
            }
            Err(error) if trouble(&error) == Trouble::Unsure => self.doubt(&error.to_string()),
            Err(error) => {
                tracing::warn!(%error, "the journal's WAL could not be copied into its file");
                self.copy_at = self.pages + WAL_PAGES_MAX;
            }
        }
        let stats = &self.shared.stats;
        stats.wal_pages.store(self.pages, Ordering::Relaxed);
        stats.checkpoints.fetch_add(1, Ordering::Relaxed);
        stats.checkpoint_ns.fetch_add(self.config.clock.nanos().saturating_sub(began), Ordering::Relaxed);
    }

    fn close(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        let fenced = self.shared.health() == Health::Fenced;
        let closing = async {
            // After an I/O error nothing more is written by this opening: the next one looks at the disk first.
            if !fenced && let Err(error) = sqlite::checkpoint_truncate(&mut connection).await {
                tracing::warn!(%error, "the journal's WAL stays behind; the next start reads it");
            }
            let _ = connection.close().await;
        };
        self.runtime.block_on(closing);
    }
}

impl Drop for Writer {
    /// A panic on this thread leaves nobody who knows: the opening is over.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.mark.set();
            self.shared.inbox.close();
            self.shared.set_health(Health::Fenced);
        }
    }
}

fn answer(group: Vec<Append>, outcome: Appended) {
    for Append { reply, .. } in group {
        reply(outcome);
    }
}

/// Opens, repairs what a bad end may have left, raises the epoch; says where the journal ends.
async fn prepare(
    config: &JournalConfig,
    mark: &UncleanMark,
) -> Result<(SqliteConnection, Epoch, i64), OpenError> {
    let tuning = Tuning {
        page_bytes: PAGE_BYTES,
        cache_kib: 16 * 1024,
        synchronous: SqliteSynchronous::Full,
        pages_max: config.pages_max,
    };
    let mut connection = sqlite::writer(&config.dir.join("journal.db"), &tuning).await?;
    if mark.stands() {
        // Rewrites and syncs all that the WAL shows, and starts a new WAL: no hole can be left in the middle.
        let done = sqlite::checkpoint_truncate(&mut connection)
            .await
            .map_err(|e| OpenError::Unclean(e.to_string()))?;
        if done.busy {
            return Err(OpenError::Unclean("somebody else reads the file".to_owned()));
        }
        mark.clear().map_err(|e| OpenError::Unclean(e.to_string()))?;
    }
    migrations::journal().run(&mut connection).await.map_err(StoreError::from)?;
    sqlx::query(RAISE_EPOCH).execute(&mut connection).await.map_err(StoreError::from)?;
    let epoch: i64 = sqlx::query_scalar(EPOCH).fetch_one(&mut connection).await.map_err(StoreError::from)?;
    let pos: i64 = sqlx::query_scalar(LAST_POS).fetch_one(&mut connection).await.map_err(StoreError::from)?;
    Ok((connection, Epoch(epoch.unsigned_abs()), pos))
}
