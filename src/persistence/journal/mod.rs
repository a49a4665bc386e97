//! The journal: every product's history, durable before anybody hears *yes*.
//!
//! One writer thread puts all that waits down together in the log, a file that already has its size, syncs it once (a
//! shared group commit) and then answers each, in order. A second thread, the archive, brings what the log holds
//! into `journal.db` a moment later, where histories are found. Readers see both as one.
//!
//! Always true: what was answered *written* survives; what was answered *not written* is not there and never will be;
//! when nobody can know, the answer is *unknown*, the journal is fenced, and only a new opening, which reads what
//! the disk has, may go on. One opening at a time: a file lock, and a seal on the log that each group looks at.
//!
//! For many nodes there is another home: a database, in which a group is a transaction, and the session of each node that writes takes
//! the place of the lock and the seal (`database`). Their entries stand in one order, that of the commits. Everything else is the same.

mod among;
mod archive;
mod copy;
mod database;
mod format;
mod heads;
mod inbox;
mod lock;
mod log;
mod medium;
mod opening;
mod reader;
mod segment;
mod shelved;
mod snapshot;
mod stats;
mod tail;
mod writer;

#[cfg(test)]
mod tests;

pub(in crate::persistence) use copy::log_behind;
pub use database::{Active, Neighbours, Owned, Peer, Standby, Timing, follow};
pub(in crate::persistence) use format::format_of;
pub use lock::Lock;
pub use medium::Medium;
pub use opening::OpenError;
pub(super) use reader::last_epoch;
pub(in crate::persistence) use reader::tuning;
pub use reader::{JournalReader, Stored};
#[cfg(any(test, feature = "fuzz"))]
pub use segment::read_groups;
pub use stats::{Head, JournalStats};

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::StoreError;
use super::doubt::UncleanMark;
pub use super::sql::mysql::{APART_MAX_MS, Server};
use crate::clock::Clock;
use crate::config::JOURNAL_FILE_BYTES_MAX;
use crate::domain::id::{ProductId, SHARDS};
use crate::domain::stock::{Entry, Epoch, Sequence};
use archive::Archive;
use database::{Member, Roster};
use heads::Heads;
use inbox::Inbox;
use log::Log;
use shelved::Shelved;
use snapshot::Saving;
use tail::Tail;

/// Entries of one group, at most: one a product, so this many products share a sync.
pub const GROUP_ENTRIES_MAX: usize = 256;
/// Bytes of events of one group, at most.
pub const GROUP_BYTES_MAX: usize = 1024 * 1024;
/// Appends that may wait. Each owner has one in flight, so this is the number of busy products.
pub const INBOX_MAX: usize = 16_384;
/// Bytes that the log may be ahead of `journal.db`.
pub const TAIL_BYTES_MAX: usize = 256 * 1024 * 1024;
/// A database that has said nothing for so long has fallen silent. Far longer than a group takes, and short enough for whoever comes then to
/// hear of it within a second.
const SILENT_AFTER: Duration = Duration::from_millis(700);
/// Connections that read. Each costs a thread and its cache.
pub const READERS_MAX: u32 = 4;

/// An entry to be written, and who wants to know.
pub struct Append {
    pub entry: Entry,
    /// Called once, on the journal's thread: it may send a message and must not wait.
    pub reply: Box<dyn FnOnce(Appended) + Send>,
}

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// It is on the disk.
    Written,
    /// It is not, and never will be.
    NotWritten(NotWritten),
    /// Only a new opening can tell.
    Unknown,
}

/// Why an entry is definitely not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotWritten {
    #[error("the disk is full")]
    DiskFull,
    #[error("the data directory cannot be written: look at its rights, and how its file system is mounted")]
    ReadOnly,
    #[error("too many files are open: raise the limit of this process (`ulimit -n`), or the machine's")]
    TooManyFiles,
    #[error("another file of the log cannot be made")]
    NoFile,
    #[error("another owner has opened the journal, or its disk has failed")]
    Fenced,
    #[error("the journal is closed")]
    Closed,
    #[error("the entry does not continue its product's history, or the store refused it")]
    Failed,
    #[error("the log has grown too far ahead of the journal's file")]
    Behind,
    #[error("the database does not answer")]
    Away,
}

impl NotWritten {
    /// Why a file of the log could not be made.
    fn without_file(error: &std::io::Error) -> NotWritten {
        use rustix::io::Errno;
        use std::io::ErrorKind::*;
        match error.kind() {
            StorageFull | QuotaExceeded | FileTooLarge => NotWritten::DiskFull,
            ReadOnlyFilesystem | PermissionDenied => NotWritten::ReadOnly,
            _ if [Errno::MFILE, Errno::NFILE]
                .map(|errno| Some(errno.raw_os_error()))
                .contains(&error.raw_os_error()) =>
            {
                NotWritten::TooManyFiles
            }
            _ => NotWritten::NoFile,
        }
    }
}

/// Whether the journal takes entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    Healthy,
    /// Nothing is lost and nothing is taken. The journal tries by itself until it can write again.
    Refusing {
        why: NotWritten,
    },
    /// This opening is over.
    Fenced,
}

/// Where groups go: the one seam between an owner and the home of its journal.
pub trait AppendTo: Send + Sync {
    /// Takes the entry and answers later, in order; never waits. Hands it back when the queue is full or closed.
    fn submit(&self, append: Append) -> Result<(), Append>;
}

/// What a journal needs to know.
#[derive(Debug, Clone)]
pub struct JournalConfig {
    /// Where `journal.db` stands; made if it does not exist.
    pub dir: PathBuf,
    /// For measuring; no decision depends on it.
    pub clock: Clock,
    /// Microseconds to wait after each group: back-pressure, and tests of slowness.
    pub brake_us: Arc<AtomicU64>,
    /// See [`INBOX_MAX`].
    pub inbox_max: usize,
    /// A cap on `journal.db`, for tests of a full disk.
    pub pages_max: Option<u32>,
    /// How large a file of the log is.
    pub file_bytes: u64,
    /// See [`TAIL_BYTES_MAX`].
    pub tail_bytes_max: usize,
}

impl JournalConfig {
    pub fn new(dir: impl Into<PathBuf>, clock: Clock) -> JournalConfig {
        JournalConfig {
            dir: dir.into(),
            clock,
            brake_us: Arc::default(),
            inbox_max: INBOX_MAX,
            pages_max: None,
            file_bytes: JOURNAL_FILE_BYTES_MAX,
            tail_bytes_max: TAIL_BYTES_MAX,
        }
    }
}

/// What a journal in a database needs to know.
#[derive(Debug, Clone)]
pub struct DatabaseConfig {
    /// `mysql://USER:PASSWORD@HOST:PORT/DATABASE`.
    pub url: String,
    pub clock: Clock,
    /// See [`JournalConfig::brake_us`].
    pub brake_us: Arc<AtomicU64>,
    /// See [`INBOX_MAX`].
    pub inbox_max: usize,
    pub timing: Timing,
    /// Whom this process tells who it is, and who tells it of others.
    pub neighbours: Arc<Neighbours>,
}

impl DatabaseConfig {
    pub fn new(url: impl Into<String>, clock: Clock) -> DatabaseConfig {
        DatabaseConfig {
            url: url.into(),
            clock,
            brake_us: Arc::default(),
            inbox_max: INBOX_MAX,
            timing: Timing::default(),
            neighbours: Arc::new(Neighbours::new(None, true)),
        }
    }
}

/// What the handles, the writer and the archive share.
struct Shared {
    inbox: Inbox,
    tail: Arc<Tail>,
    /// With so much in it nothing is taken.
    tail_bytes_max: usize,
    archive: Archive,
    health: Mutex<Health>,
    stats: JournalStats,
    fatal: watch::Sender<bool>,
    brake_us: Arc<AtomicU64>,
    /// Nobody knows yet what a database has of the last group: no history can be read to its end.
    in_doubt: Arc<AtomicBool>,
    /// Since when what was asked of the place of groups is not answered, by our own steady clock; 0: everything is.
    unanswered_ns: AtomicU64,
    /// When the last beat was sent that the database has confirmed, by our own steady clock.
    beaten_ns: AtomicU64,
    /// In a database: who else is there.
    roster: Roster,
    /// In a database: whether this node is the lead.
    leads: AtomicBool,
    /// In a database: the epochs of the shards that this node owns, 0 for the others. There are none in files.
    epochs: OnceLock<Box<[AtomicU64]>>,
    /// In a database: how often the lead has changed, at least; it never falls.
    term: AtomicU64,
    /// In a database: where the journal of all nodes was last seen to end.
    end: Mutex<Head>,
    /// In a database: the furthest place of that journal that this opening has seen, whoever wrote there.
    furthest: Arc<AtomicI64>,
    /// For a disk that cannot be trusted; a database looks after its own.
    mark: Option<UncleanMark>,
}

impl Shared {
    fn new(
        inbox_max: usize,
        tail_bytes_max: usize,
        brake_us: &Arc<AtomicU64>,
        mark: Option<UncleanMark>,
    ) -> Arc<Shared> {
        Arc::new(Shared {
            inbox: Inbox::new(inbox_max),
            tail: Arc::default(),
            tail_bytes_max,
            archive: Archive::default(),
            health: Mutex::new(Health::Healthy),
            stats: JournalStats::default(),
            fatal: watch::Sender::new(false),
            brake_us: Arc::clone(brake_us),
            in_doubt: Arc::default(),
            unanswered_ns: AtomicU64::new(0),
            beaten_ns: AtomicU64::new(0),
            roster: Roster::default(),
            leads: AtomicBool::new(false),
            epochs: OnceLock::new(),
            term: AtomicU64::new(0),
            end: Mutex::default(),
            furthest: Arc::default(),
            mark,
        })
    }

    fn health(&self) -> Health {
        *self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves on if it stands where `from` says. Nothing leads back from [`Health::Fenced`].
    fn shift(&self, from: impl Fn(Health) -> bool, to: Health) -> bool {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        let moves = from(*health);
        if moves {
            *health = to;
        }
        moves
    }

    /// Takes nothing new until it can be written again.
    fn refuse(&self, why: NotWritten, error: &str) {
        if self.shift(|health| health == Health::Healthy, Health::Refusing { why }) {
            tracing::error!(%why, error, "the journal refuses new entries until it can write them; nothing is lost");
        }
    }

    /// It can.
    fn accept(&self) {
        if self.shift(|health| matches!(health, Health::Refusing { .. }), Health::Healthy) {
            tracing::info!("the journal takes entries again");
        }
    }

    /// A database was lost while it wrote. Until it has said what it has nothing is taken, and nothing read.
    fn wonder(&self, error: &str) {
        self.in_doubt.store(true, Ordering::Release);
        self.refuse(NotWritten::Away, error);
    }

    /// It has said it: the journal ends here.
    fn settled(&self, last_pos: i64) {
        // What was written without our knowing it would leave a gap there.
        self.tail.shrink_to(0);
        self.stats.pos.store(last_pos, Ordering::Release);
        self.in_doubt.store(false, Ordering::Release);
    }

    /// The end of this opening. What waits is answered *not written*, which is certain: it was never tried.
    fn fence(&self, why: &str) {
        tracing::error!(why, "the journal is fenced; the store must be opened again");
        self.shift(|_| true, Health::Fenced);
        self.fatal.send_replace(true);
    }

    /// The end of this opening, with a disk that cannot be trusted until it has been rewritten.
    fn doubt(&self, error: &str) {
        if let Some(mark) = &self.mark {
            mark.set();
        }
        self.fence(error);
    }
}

/// What makes this process a node.
struct Node {
    member: Member,
    server: Server,
}

/// Ends the writer with the last handle.
struct Opened {
    shared: Arc<Shared>,
    reader: JournalReader,
    epoch: Epoch,
    /// In a database: until when a confirmed beat keeps every other node from taking over.
    lease: Option<(Clock, Duration)>,
    /// In a database: this node's own name, and what it knows of others.
    node: Option<Node>,
    ended: Mutex<Option<oneshot::Receiver<()>>>,
}

impl Opened {
    fn begin(&self, place: impl writer::PutDown, clock: Clock) -> std::io::Result<()> {
        writer::start(place, Heads::new(self.shared.tail.clone()), Arc::clone(&self.shared), clock)
    }

    /// Whoever tries again at once finds nothing in his way.
    async fn undo(&self) {
        self.shared.archive.finish();
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(ended) = ended {
            let _ = ended.await;
        }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.shared.inbox.finish();
    }
}

/// The journal: a log and a SQLite file on one machine, or a database for many nodes. Cheap to clone.
#[derive(Clone)]
pub struct Journal(Arc<Opened>);

impl Journal {
    /// Takes the lock, brings the log that was left into the file, raises the epoch and starts the writer.
    pub async fn open(config: JournalConfig) -> Result<Journal, OpenError> {
        let mark = UncleanMark::of(&config.dir.join("journal.db"));
        let shared = Shared::new(config.inbox_max, config.tail_bytes_max, &config.brake_us, Some(mark));
        let reader = JournalReader::of(&config.dir, shared.tail.clone());
        let (dir, clock) = (config.dir.clone(), config.clock.clone());
        let (found, ended) = archive::start(config, Arc::clone(&shared)).await?;
        let opened = Opened {
            shared: Arc::clone(&shared),
            reader,
            epoch: found.epoch,
            lease: None,
            node: None,
            ended: Mutex::new(Some(ended)),
        };
        let begun = match Log::begin(found.shelf, found.last_pos) {
            Ok(log) => {
                let begun = Shelved::new(log, &dir).and_then(|shelved| opened.begin(shelved, clock));
                begun.map_err(|source| OpenError::from(StoreError::Thread(source)))
            }
            Err(error) => Err(OpenError::NoFile { dir, error }),
        };
        match begun {
            Ok(()) => Ok(Journal(Arc::new(opened))),
            Err(error) => {
                opened.undo().await;
                Err(error)
            }
        }
    }

    /// The same in a database, as the lead of its nodes: waits for as long as another one is it. The server is that of this node, for
    /// whatever else it writes.
    pub async fn connect(config: DatabaseConfig) -> Result<(Journal, Server), OpenError> {
        let (journal, server) = Journal::join(config).await?;
        match journal.lead().await {
            Ok(()) => Ok((journal, server)),
            Err(error) => {
                journal.close().await;
                Err(error.into())
            }
        }
    }

    /// The same as one of its nodes, which owns what the lead gives it, and may become the lead.
    pub async fn join(config: DatabaseConfig) -> Result<(Journal, Server), OpenError> {
        let shared = Shared::new(config.inbox_max, TAIL_BYTES_MAX, &config.brake_us, None);
        let (clock, timing) = (config.clock.clone(), config.timing);
        shared.epochs.get_or_init(|| (0..SHARDS).map(|_| AtomicU64::new(0)).collect());
        let (found, ended) = database::start(config, Arc::clone(&shared)).await?;
        let opened = Opened {
            reader: JournalReader::on(&found.server, shared.tail.clone(), shared.in_doubt.clone()),
            shared,
            epoch: found.epoch,
            lease: Some((clock.clone(), timing.lease)),
            node: Some(Node { member: found.member, server: found.server.clone() }),
            ended: Mutex::new(Some(ended)),
        };
        match opened.begin(found.groups, clock) {
            Ok(()) => Ok((Journal(Arc::new(opened)), found.server)),
            Err(source) => {
                opened.undo().await;
                Err(StoreError::Thread(source).into())
            }
        }
    }

    /// Hands a snapshot to the archive, which puts it down in slices and then drops older ones. Where a newer one stands, or one of
    /// the same sequence that is whole and undamaged, it is not needed, and counts as saved.
    pub async fn save_snapshot(
        &self,
        product: ProductId,
        at: Sequence,
        body: Vec<u8>,
    ) -> Result<(), NotWritten> {
        let (saved, outcome) = oneshot::channel();
        let saving = Box::new(Saving::new(product, at, body, saved));
        self.0.shared.archive.put_snapshot(saving).map_err(|_| NotWritten::Closed)?;
        outcome.await.unwrap_or(Err(NotWritten::Closed))
    }

    /// Everything that only reads.
    pub fn reader(&self) -> &JournalReader {
        &self.0.reader
    }

    /// This opening's number.
    pub fn epoch(&self) -> Epoch {
        self.0.epoch
    }

    pub fn health(&self) -> Health {
        self.0.shared.health()
    }

    /// Whether it takes entries, and nobody else can have begun to.
    pub fn is_writable(&self) -> bool {
        self.health() == Health::Healthy && self.0.lease.as_ref().is_none_or(|lease| self.is_leased(lease))
    }

    /// Whether what its owners have published may be told as the last word, without asking them.
    pub fn is_the_only_one(&self) -> bool {
        self.0.lease.as_ref().is_none_or(|lease| self.is_leased(lease))
    }

    /// Whether a database has been silent for so long about a group, or about what became of it, that whoever comes now would wait for
    /// longer than he is to. How slow a disk is stands in the wait that is predicted.
    pub fn is_silent(&self) -> bool {
        let shared = &self.0.shared;
        let Some((clock, _)) = &self.0.lease else { return false };
        match shared.unanswered_ns.load(Ordering::Acquire) {
            0 => shared.in_doubt.load(Ordering::Acquire),
            since => Duration::from_nanos(clock.nanos().saturating_sub(since)) > SILENT_AFTER,
        }
    }

    fn is_leased(&self, (clock, lease): &(Clock, Duration)) -> bool {
        let beaten = self.0.shared.beaten_ns.load(Ordering::Acquire);
        Duration::from_nanos(clock.nanos().saturating_sub(beaten)) < *lease
    }

    /// Turns true when this opening is over: answer nobody *failed*, open again.
    pub fn fatal(&self) -> watch::Receiver<bool> {
        self.0.shared.fatal.subscribe()
    }

    pub fn stats(&self) -> &JournalStats {
        &self.0.shared.stats
    }

    pub fn head(&self) -> Head {
        self.0.shared.stats.head()
    }

    /// How many appends wait for the writer.
    pub fn waiting(&self) -> usize {
        self.0.shared.inbox.len()
    }

    pub fn brake(&self) -> &Arc<AtomicU64> {
        &self.0.shared.brake_us
    }

    /// Writes what waits, brings it into `journal.db` and lets go of the lock. New appends are handed back from here on.
    pub async fn close(&self) {
        self.0.shared.inbox.close();
        // A reader would keep the last pages in the WAL.
        self.0.reader.close().await;
        self.0.shared.inbox.finish();
        let ended = self.0.ended.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(ended) = ended {
            let _ = ended.await;
        }
    }

    /// The same for an opening that is over: who reads `journal.db` is not waited for, and its WAL stays behind.
    pub async fn abandon(&self) {
        self.0.shared.archive.hurry();
        self.close().await;
    }
}

impl AppendTo for Journal {
    fn submit(&self, append: Append) -> Result<(), Append> {
        self.0.shared.inbox.put(append)
    }
}

/// Keeps every server off `dir` for as long as the answer lives.
pub fn lock(dir: &std::path::Path) -> Result<Lock, OpenError> {
    Lock::take(dir)
}

/// The journal in a database in which no node is at work.
pub async fn of_idle(url: &str) -> Result<JournalReader, OpenError> {
    let server = Server::at(url)?;
    if database::is_occupied(&server).await? {
        return Err(OpenError::Occupied);
    }
    let journal = JournalReader::of_stopped_on(&server);
    journal.is_known().await?;
    Ok(journal)
}
