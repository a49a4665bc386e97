//! Where a group is put down in a database: one transaction, which holds on to the row that says that its node lives.
//!
//! Always true: a group is all there or not at all; none is written once the node counts as dead; and a connection that was lost is
//! ended, with whatever it had left open, before anybody says what became of its last group.

use std::cell::Cell;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tokio::runtime::Runtime;

use crate::domain::id::ProductId;
use crate::domain::stock::{Entry, Sequence};
use crate::persistence::StoreError;
use crate::persistence::journal::Shared;
use crate::persistence::journal::log::LogError;
use crate::persistence::journal::reader::archived_heads;
use crate::persistence::journal::writer::{PutDown, Settled};
use crate::persistence::sql::mysql::{self, Server};
use crate::persistence::sql::{self, Connection, Error, Listed, Query, Trouble, signed, trouble};

/// Bytes of entries kept in memory for the flush and for owners that are read again.
const TAIL_BYTES: usize = 32 * 1024 * 1024;
/// How often a group is tried that met somebody else's lock, or a connection that was lost.
const TRIES: usize = 4;
/// How long one try may take before its connection counts as lost …
const TRY_WITHIN: Duration = Duration::from_secs(3);
/// … and how long those who wait are kept while it is found out what became of it.
const RECOVER_WITHIN: Duration = Duration::from_millis(1_000);
const AGAIN_AFTER: Duration = Duration::from_millis(20);
/// Places of one session: enough for a thousand groups a second over thirty years.
const PLACES: i64 = 1 << 40;

/// One entry, as nearly every group is in a rush: a statement that is its own transaction.
const INSERT_ONE: &str = "insert into journal (pos, product_id, first_seq, last_seq, epoch, at_ms, hash, events) \
    select ?, ?, ?, ?, ?, ?, ?, ? from node_sessions where number = ? and active = 1 lock in share mode";
static INSERT: LazyLock<Listed> = LazyLock::new(|| {
    Listed::fine(
        "insert into journal (pos, product_id, first_seq, last_seq, epoch, at_ms, hash, events) values ",
        "(?, ?, ?, ?, ?, ?, ?, ?)",
        "",
    )
});
const LAST_POS: &str = "select coalesce(max(pos), ?) from journal where pos > ? and pos < ?";

/// The end of the journal. The writer of the active node has it.
pub struct Groups {
    server: Server,
    writer: Option<Connection>,
    /// The server's number for a connection that was lost, and may stand there still.
    lost: Option<i64>,
    node: i64,
    last_pos: i64,
    runtime: Arc<Runtime>,
}

/// Why a try came to nothing.
enum Failed {
    /// Somebody else's lock was in the way. Nothing was written.
    Conflict,
    /// The connection was lost; `sent`: whether the end of the transaction may have arrived.
    Lost {
        sent: bool,
        said: String,
    },
    Certain(LogError),
}

/// The first place of a session.
pub fn before_first(node: i64) -> i64 {
    node.saturating_mul(PLACES)
}

fn bound<'q>(query: Query<'q>, pos: i64, entry: &'q Entry) -> Query<'q> {
    query
        .bind(pos)
        .bind(&entry.product.as_bytes()[..])
        .bind(signed(entry.first.0))
        .bind(signed(entry.last.0))
        .bind(signed(entry.epoch.0))
        .bind(entry.at.0)
        .bind(&entry.hash.0[..])
        .bind(&entry.events[..])
}

/// MySQL's numbers for a server that takes no writes, and for a disk without room.
const READ_ONLY: [u16; 3] = [1290, 1792, 1836];
const FULL: [u16; 2] = [1021, 1114];

fn failed(error: Error, sent: bool) -> Failed {
    let said = error.to_string();
    match trouble(&error) {
        Trouble::Conflict => Failed::Conflict,
        Trouble::Lost => Failed::Lost { sent, said },
        Trouble::Fenced => Failed::Certain(LogError::Sealed),
        Trouble::Duplicate => Failed::Certain(LogError::Refused(said)),
        Trouble::Other => match mysql::number(&error) {
            Some(number) if READ_ONLY.contains(&number) => {
                Failed::Certain(LogError::ReadOnly(std::io::Error::other(said)))
            }
            Some(number) if FULL.contains(&number) => {
                Failed::Certain(LogError::NoRoom(std::io::Error::other(said)))
            }
            _ => Failed::Certain(LogError::Refused(said)),
        },
    }
}

impl Groups {
    /// `server` is that of the node.
    pub fn new(server: Server, node: i64) -> std::io::Result<Groups> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (last_pos, runtime) = (before_first(node), Arc::new(runtime));
        Ok(Groups { server, writer: None, lost: None, node, last_pos, runtime })
    }

    async fn try_append<'e>(
        &mut self,
        entries: impl ExactSizeIterator<Item = &'e Entry> + Clone,
    ) -> Result<(), Failed> {
        let first = self.last_pos + 1;
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => {
                let session = self.server.connect_here().await.map_err(|error| failed(error, false))?;
                none.insert(Connection::MySql(session))
            }
        };
        let alone = entries.len() == 1;
        let placed = (first..).zip(entries);
        let sent = Cell::new(false);
        let trying = async {
            if alone && let Some((pos, entry)) = placed.clone().next() {
                sent.set(true);
                let one = bound(sql::query(INSERT_ONE), pos, entry).bind(self.node);
                return match one.execute(&mut *writer).await {
                    Ok(done) if done.rows_affected() == 1 => Ok(()),
                    Ok(_) => Err(Failed::Certain(LogError::Sealed)),
                    Err(error) => Err(failed(error, true)),
                };
            }
            sql::begin(writer).await.map_err(|error| failed(error, false))?;
            let all: Vec<(i64, &Entry)> = placed.collect();
            for (text, piece) in INSERT.cut(&all) {
                let query =
                    piece.iter().fold(sql::query(text), |query, (pos, entry)| bound(query, *pos, entry));
                if let Err(error) = query.execute(&mut *writer).await {
                    let _ = sql::query("rollback").execute(&mut *writer).await;
                    return Err(failed(error, false));
                }
            }
            sent.set(true);
            sql::query("commit").execute(&mut *writer).await.map(|_| ()).map_err(|error| failed(error, true))
        };
        let tried = tokio::time::timeout(TRY_WITHIN, trying).await;
        tried
            .unwrap_or_else(|_| Err(Failed::Lost { sent: sent.get(), said: "it does not answer".to_owned() }))
    }

    /// Ends the connection that was lost and reads where the journal ends.
    async fn recover(&mut self) -> Result<(), StoreError> {
        if let Some(Connection::MySql(lost)) = self.writer.take() {
            self.lost = Some(lost.id());
        }
        let mut session = self.server.connect_here().await?;
        if let Some(lost) = self.lost {
            if !mysql::end_one(&mut session, lost).await? {
                return Err(StoreError::InDoubt);
            }
            self.lost = None;
        }
        let mut writer = Connection::MySql(session);
        let base = before_first(self.node);
        self.last_pos = sql::query_scalar(LAST_POS)
            .bind(base)
            .bind(base)
            .bind(base + PLACES)
            .fetch_one(&mut writer)
            .await?;
        self.writer = Some(writer);
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

    fn look_up(&mut self, products: &[ProductId]) -> Result<Vec<(ProductId, Sequence)>, StoreError> {
        if self.writer.is_none() && !self.recovered() {
            return Err(StoreError::InDoubt);
        }
        let Some(writer) = &mut self.writer else { return Err(StoreError::InDoubt) };
        let looking = async { tokio::time::timeout(TRY_WITHIN, archived_heads(writer, products)).await };
        self.runtime.block_on(looking).map_err(|_| StoreError::InDoubt)?
    }
}

impl PutDown for Groups {
    fn last_pos(&self) -> i64 {
        self.last_pos
    }

    fn heads(&mut self, products: &[ProductId]) -> Result<Vec<(ProductId, Sequence)>, StoreError> {
        match self.look_up(products) {
            Ok(found) => Ok(found),
            // The connection may have been lost long ago, without anybody's noticing.
            Err(_) if self.recovered() => self.look_up(products),
            Err(_) => Err(StoreError::InDoubt),
        }
    }

    fn append<'e>(
        &mut self,
        entries: impl ExactSizeIterator<Item = &'e Entry> + Clone,
    ) -> Result<(), LogError> {
        let (first, count) = (self.last_pos + 1, entries.len() as i64);
        for _ in 0..TRIES {
            let runtime = self.runtime.clone();
            let (sent, said) = match runtime.block_on(self.try_append(entries.clone())) {
                Ok(()) => {
                    self.last_pos += count;
                    return Ok(());
                }
                Err(Failed::Conflict) => continue,
                Err(Failed::Certain(error)) => return Err(error),
                Err(Failed::Lost { sent, said }) => (sent, said),
            };
            if !self.recovered() {
                return Err(if sent { LogError::InDoubt(said) } else { LogError::Away(said) });
            }
            // It had arrived.
            if self.last_pos >= first {
                return Ok(());
            }
        }
        Err(LogError::Away("it is busy, or lost again and again".to_owned()))
    }

    fn settle(&mut self) -> Settled {
        if self.recovered() { Settled::Yes } else { Settled::NotYet }
    }

    fn tail_has(&mut self, shared: &Shared, bytes: usize) {
        if bytes > TAIL_BYTES {
            shared.tail.shrink_to(TAIL_BYTES / 2);
        }
    }

    fn close(&mut self) {
        if let Some(Connection::MySql(writer)) = self.writer.take() {
            let _ = self.runtime.block_on(writer.close());
        }
    }
}
