//! Where a group is put down in a database: one transaction, which holds on to the row that says that its node lives.
//!
//! Always true: a group is all there or not at all; none is written once the node counts as dead; and a connection that was lost is
//! ended, with whatever it had left open, before anybody says what became of its last group. Behind a database that has forgotten what it
//! said yes to nothing is written.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::runtime::Runtime;

use crate::domain::id::ProductId;
use crate::domain::stock::{ChainHash, Entry, Sequence};
use crate::persistence::StoreError;
use crate::persistence::journal::Shared;
use crate::persistence::journal::log::LogError;
use crate::persistence::journal::reader::archived_heads;
use crate::persistence::journal::stats::Volume;
use crate::persistence::journal::writer::{PutDown, Settled};
use crate::persistence::sql::mysql::{self, Name, Server, Session};
use crate::persistence::sql::{self, Connection, Error, Script, Trouble, signed, trouble};

/// Bytes of entries kept in memory for the flush and for owners that are read again.
const TAIL_BYTES: usize = 32 * 1024 * 1024;
/// How often a group is tried that met somebody else's lock, or a connection that was lost.
const TRIES: usize = 4;
/// How long one try may take before its connection counts as lost …
const TRY_WITHIN: Duration = Duration::from_secs(3);
/// … and how long those who wait are kept while it is found out what became of it.
const RECOVER_WITHIN: Duration = Duration::from_millis(1_000);
const AGAIN_AFTER: Duration = Duration::from_millis(20);
/// MySQL's number for a number that is too large.
const OUT_OF_RANGE: u16 = 1690;

/// What an entry is found by when nobody knows whether it was written.
const FOUND: &str = "select pos from journal where product_id = ? and first_seq = ? and hash = ?";
/// The place of the newest entry of all nodes.
pub const END: &str = "select pos from journal_end where id = 1";

/// The end of the journal. The writer of a node has it.
pub struct Groups {
    server: Server,
    writer: Option<Session>,
    /// A connection that was lost, and may stand at the server still.
    lost: Option<Name>,
    node: i64,
    /// The place of the newest entry that this one has written or seen.
    last_pos: i64,
    /// The newest place that anybody of this opening has seen.
    furthest: Arc<AtomicI64>,
    /// The newest that this one has written, and where.
    written: Option<(Mark, i64)>,
    /// One of the two is not there any more: what this one knows is not what the database has.
    forgotten: bool,
    runtime: Arc<Runtime>,
}

/// Why a try came to nothing.
#[derive(Debug)]
enum Failed {
    /// Somebody else's lock was in the way. Nothing was written.
    Conflict,
    /// The connection was lost, and the group may have arrived.
    Lost(String),
    Certain(LogError),
}

/// A group as one text, from the beginning of its transaction to its commit: whoever is stopped while it is under way holds up nobody,
/// because the server needs nothing more from him.
///
/// The row of the session is locked first: whoever declares it dead waits for the end. If it is dead, one is added to the largest number
/// there is, which fails, and nothing behind that is done: the dead lock nothing that the living want. Then the row in which the journal's
/// end stands: from there on every other node waits until this one has committed, so places follow each other without a gap, in the
/// order of the commits.
fn script_of<'e>(node: i64, entries: impl ExactSizeIterator<Item = &'e Entry> + Clone) -> Script {
    let (count, volume) = (entries.len() as u64, Volume::of(entries.clone()));
    let room = 2 * volume.bytes + 320 * count + 640;
    let mut script = Script::with_room(usize::try_from(room).unwrap_or_default());
    script
        .words("start transaction; set @lives = null; select number into @lives from node_sessions where number = ")
        .number(node)
        .words(" and coalesce(active, 0) <> 0 lock in share mode; set @lives = 9223372036854775807 + (@lives is null); ")
        .words("update journal_end set pos = last_insert_id(pos + ")
        .number(count)
        .words("), events = events + ")
        .number(volume.events)
        .words(", bytes = bytes + ")
        .number(volume.bytes)
        .words(" where id = 1; insert into journal (pos, product_id, first_seq, last_seq, epoch, at_ms, hash, events) values ");
    for (behind, entry) in (0..count).rev().zip(entries) {
        let Entry { product, first, last, epoch, at, hash, events } = entry;
        script.words("(last_insert_id() - ").number(behind).words(", ").bytes(product.as_bytes());
        for number in [i128::from(first.0), last.0.into(), epoch.0.into(), at.0.into()] {
            script.words(", ").number(number);
        }
        script.words(", ").bytes(&hash.0).words(", ").bytes(events).words(if behind == 0 {
            ")"
        } else {
            "), "
        });
    }
    script.words("; commit");
    script
}

/// The places of the statement that counts places, and of the last one, among those of [`script_of`].
const COUNTING: usize = 4;
const COMMIT: usize = 6;

/// MySQL's numbers for a server that takes no writes, and for a disk without room.
const READ_ONLY: [u16; 3] = [1290, 1792, 1836];
const FULL: [u16; 2] = [1021, 1114];

/// What an error says of a group of whose statements so many were done before it, and which has been rolled back since.
fn failed(error: &Error, done: usize) -> Failed {
    told(trouble(error), mysql::number(error), done, error.to_string())
}

fn told(trouble: Trouble, number: Option<u16>, done: usize, said: String) -> Failed {
    match trouble {
        // Of a commit too this says that it was not made.
        Trouble::Conflict => Failed::Conflict,
        Trouble::Lost => Failed::Lost(said),
        // There is nothing left to roll back: whatever else a commit is refused for, what became of it stands in the journal alone.
        _ if done >= COMMIT => Failed::Lost(said),
        Trouble::Fenced => Failed::Certain(LogError::Sealed),
        Trouble::Duplicate => Failed::Certain(LogError::Refused(said)),
        Trouble::Other => match number {
            Some(OUT_OF_RANGE) => Failed::Certain(LogError::Sealed),
            Some(number) if READ_ONLY.contains(&number) => {
                Failed::Certain(LogError::ReadOnly(std::io::Error::other(said)))
            }
            Some(number) if FULL.contains(&number) => Failed::Certain(LogError::NoRoom(said)),
            _ => Failed::Certain(LogError::Refused(said)),
        },
    }
}

impl Groups {
    /// `server` is that of the node.
    pub fn new(server: Server, node: i64, furthest: Arc<AtomicI64>) -> std::io::Result<Groups> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let runtime = Arc::new(runtime);
        Ok(Groups {
            server,
            writer: None,
            lost: None,
            node,
            last_pos: 0,
            furthest,
            written: None,
            forgotten: false,
            runtime,
        })
    }

    /// The place of the last entry.
    async fn try_append(&mut self, script: Script) -> Result<i64, Failed> {
        let Some(writer) = &mut self.writer else {
            return Err(Failed::Certain(LogError::Away("there is no connection".to_owned())));
        };
        let trying = async {
            // What came before the statement that failed is undone, or the connection goes: it would keep everybody from writing.
            match script.run(writer).await {
                Err((_, error)) if mysql::roll_back(writer).await.is_err() => {
                    Err(Failed::Lost(error.to_string()))
                }
                done => done.map_err(|(done, error)| failed(&error, done)),
            }
        };
        let tried = tokio::time::timeout(TRY_WITHIN, trying).await;
        let done = match tried {
            Ok(done) => done?,
            Err(_) => return Err(Failed::Lost("it does not answer".to_owned())),
        };
        match done.get(COUNTING).map(|(_, last)| i64::try_from(*last)) {
            Some(Ok(last)) => Ok(last),
            _ => Err(Failed::Lost("it says something else than it was asked".to_owned())),
        }
    }

    /// Ends the connection that was lost; then nothing of ours is under way any more.
    async fn recover(&mut self) -> Result<(), StoreError> {
        if let Some(lost) = self.writer.take() {
            self.lost = Some(lost.name());
        }
        let mut session = self.server.connect_here().await?;
        if let Some(lost) = self.lost {
            if !mysql::end_one(&mut session, lost).await? {
                return Err(StoreError::InDoubt);
            }
            self.lost = None;
        }
        let mut writer = Connection::MySql(session);
        // Before the question: what others see meanwhile is no older than the answer.
        let furthest = self.furthest.load(Ordering::Acquire);
        self.last_pos = sql::query_scalar(END).fetch_one(&mut writer).await?;
        self.furthest.fetch_max(self.last_pos, Ordering::AcqRel);
        self.forgotten |= self.last_pos < furthest;
        if let Some((entry, pos)) = &self.written
            && place_of(&mut writer, entry).await? != Some(*pos)
        {
            self.forgotten = true;
        }
        if let Connection::MySql(session) = writer {
            self.writer = Some(session);
        }
        Ok(())
    }

    /// The same until it is done, for as long as whoever waits is kept.
    fn recovered(&mut self) -> bool {
        let runtime = self.runtime.clone();
        let recovering = async {
            while let Err(error) = self.recover().await {
                tracing::warn!(%error, "the journal's connection to the database was lost, and there is no other yet");
                tokio::time::sleep(AGAIN_AFTER).await;
            }
        };
        runtime.block_on(async { tokio::time::timeout(RECOVER_WITHIN, recovering).await }).is_ok()
    }

    /// Asks something of the connection, and once more of another one if that was lost without anybody's noticing.
    fn ask<T>(
        &mut self,
        question: impl AsyncFn(&mut Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        for _ in 0..2 {
            if self.writer.is_none() && !self.recovered() {
                return Err(StoreError::InDoubt);
            }
            let Some(writer) = self.writer.take() else { return Err(StoreError::InDoubt) };
            let (name, mut writer) = (writer.name(), Connection::MySql(writer));
            let asking = async { tokio::time::timeout(TRY_WITHIN, question(&mut writer)).await };
            match (self.runtime.block_on(asking), writer) {
                (Ok(Ok(answer)), Connection::MySql(writer)) => {
                    self.writer = Some(writer);
                    return Ok(answer);
                }
                _ => self.lost = Some(name),
            }
        }
        Err(StoreError::InDoubt)
    }
}

/// By what an entry is found again.
struct Mark {
    product: ProductId,
    first: Sequence,
    hash: ChainHash,
}

impl Mark {
    fn of(entry: &Entry) -> Mark {
        Mark { product: entry.product, first: entry.first, hash: entry.hash }
    }
}

async fn place_of(connection: &mut Connection, entry: &Mark) -> Result<Option<i64>, StoreError> {
    let found = sql::query_scalar(FOUND).bind(&entry.product.as_bytes()[..]);
    let found = found.bind(signed(entry.first.0)).bind(&entry.hash.0[..]);
    Ok(found.fetch_optional(connection).await?)
}

impl PutDown for Groups {
    fn last_pos(&self) -> i64 {
        self.last_pos
    }

    fn heads(&mut self, products: &[ProductId]) -> Result<Vec<(ProductId, Sequence)>, StoreError> {
        self.ask(async |connection| archived_heads(connection, products).await)
    }

    fn append<'e>(
        &mut self,
        entries: impl ExactSizeIterator<Item = &'e Entry> + Clone,
    ) -> Result<i64, LogError> {
        let count = entries.len() as i64;
        if self.writer.is_none() && !self.recovered() {
            return Err(LogError::Away("there is no connection".to_owned()));
        }
        let (Some(first), Some(newest)) = (entries.clone().next(), entries.clone().last()) else {
            return Ok(self.last_pos + 1);
        };
        for _ in 0..TRIES {
            if self.forgotten {
                return Err(LogError::Forgotten);
            }
            let runtime = self.runtime.clone();
            let said = match runtime.block_on(self.try_append(script_of(self.node, entries.clone()))) {
                Ok(last) => {
                    self.last_pos = last;
                    self.furthest.fetch_max(last, Ordering::AcqRel);
                    self.written = Some((Mark::of(newest), last));
                    return Ok(last + 1 - count);
                }
                Err(Failed::Conflict) => continue,
                Err(Failed::Certain(error)) => return Err(error),
                Err(Failed::Lost(said)) => said,
            };
            if !self.recovered() {
                return Err(LogError::InDoubt(said));
            }
            let asked = Mark::of(first);
            match self.ask(async |connection| place_of(connection, &asked).await) {
                // It had arrived.
                Ok(Some(first)) => {
                    self.written = Some((Mark::of(newest), first + count - 1));
                    return Ok(first);
                }
                Ok(None) => {}
                Err(_) => return Err(LogError::InDoubt(said)),
            }
        }
        Err(LogError::Away("it is busy, or lost again and again".to_owned()))
    }

    fn settle(&mut self) -> Settled {
        match self.recovered() {
            true if self.forgotten => Settled::Forgotten,
            true => Settled::Yes,
            false => Settled::NotYet,
        }
    }

    fn tail_has(&mut self, shared: &Shared, bytes: usize) {
        if bytes > TAIL_BYTES {
            shared.tail.shrink_to(TAIL_BYTES / 2);
        }
    }

    fn close(&mut self) {
        if let Some(writer) = self.writer.take() {
            let _ = self.runtime.block_on(writer.close());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persistence::testing::{Owner, T0};

    #[test]
    fn the_last_statement_of_a_group_is_its_commit() {
        let entries = [Owner::stocked(1, 10).seal(T0), Owner::stocked(2, 10).seal(T0)];
        let script = format!("{:?}", script_of(7, entries.iter()));
        let statements: Vec<_> = script.split("; ").collect();
        assert!(statements[COUNTING].starts_with("update journal_end"), "{script}");
        assert!(statements[COMMIT].starts_with("commit") && statements.len() == COMMIT + 1, "{script}");
    }

    /// 1180 is an error during the commit, 1105 any error, 3100 what a plugin has against it.
    #[test]
    fn a_commit_that_is_refused_is_no_group_that_is_not_written() {
        let told = |trouble, number, done| told(trouble, number, done, String::new());
        for number in [1180, 1105, 3100, 1021, 1290, OUT_OF_RANGE] {
            for trouble in [Trouble::Other, Trouble::Duplicate, Trouble::Fenced] {
                let told = told(trouble, Some(number), COMMIT);
                assert!(matches!(told, Failed::Lost(_)), "{number} {trouble:?}: {told:?}");
            }
        }
        assert!(matches!(told(Trouble::Other, None, COMMIT), Failed::Lost(_)));
        assert!(matches!(told(Trouble::Conflict, Some(1213), COMMIT), Failed::Conflict));
        for done in 0..COMMIT {
            let told = |number| told(Trouble::Other, Some(number), done);
            assert!(matches!(told(1180), Failed::Certain(LogError::Refused(_))));
            assert!(matches!(told(1290), Failed::Certain(LogError::ReadOnly(_))));
            assert!(matches!(told(1021), Failed::Certain(LogError::NoRoom(_))));
            assert!(matches!(told(OUT_OF_RANGE), Failed::Certain(LogError::Sealed)));
        }
    }
}
