//! Reading the journal: one product's history for its owner, everybody's in order of writing for the flush.
//!
//! Readers see only what is on the disk: in the log or in `journal.db`, or committed in a database. Each reads the tail first and
//! the file or the database afterwards: an entry that is in both is seen twice, never missed, and counts once. Whoever reads *aside* has a
//! connection that nobody else waits for, and never looks at the tail, which the writer adds to: he sees what the file or the database
//! has, in order and without a gap, and perhaps not the newest.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures_util::TryStreamExt;
use sqlx::sqlite::SqliteSynchronous;

use super::READERS_MAX;
use super::archive::{self, PAGE_BYTES};
use super::format;
use super::segment;
use super::stats::Head;
use super::tail::{Placed, Tail};
use crate::domain::id::ProductId;
use crate::domain::stock::{ChainHash, Entry, Epoch, Millis, Sequence};
use crate::persistence::StoreError;
use crate::persistence::sql::mysql::Server;
use crate::persistence::sql::sqlite::{Tuning, readers};
use crate::persistence::sql::{self, Connection, Damaged, Listed, On, Pool, Row, signed, sixteen, unsigned};

const SNAPSHOTS: &str = "select sequence, count(*), max(parts) from snapshots where product_id = ? \
    group by sequence order by sequence desc";
pub const PARTS: &str = "select body from snapshots where product_id = ? and sequence = ? order by part";
const ENTRIES: &str = "select pos, product_id, first_seq, last_seq, epoch, at_ms, hash, events from journal \
    where product_id = ? and first_seq > ? order by first_seq limit ?";
/// The entry that a sequence lies in, to start reading from its middle.
const ENTRY_OF: &str =
    "select coalesce(max(first_seq), 0) from journal where product_id = ? and first_seq <= ?";
const AFTER: &str = "select pos, product_id, first_seq, last_seq, epoch, at_ms, hash, events from journal \
    where pos > ? order by pos limit ?";
const PRODUCTS_AFTER: &str = "select distinct product_id from journal where pos > ?";
const HEADS: &str = "select product_id, max(last_seq) from journal group by product_id";
static HEADS_OF: LazyLock<Listed> = LazyLock::new(|| {
    Listed::new(
        "select product_id, max(last_seq) from journal where product_id in (",
        "?",
        ") group by product_id",
    )
});
const LAST_POS: &str = "select coalesce(max(pos), 0) from journal";
const BACKLOG: &str = "select cast(coalesce(sum(last_seq - first_seq + 1), 0) as signed), \
    cast(coalesce(sum(length(events)), 0) as signed), coalesce(max(pos), 0) from journal where pos > ?";

/// Where the journal of all nodes ends, and what was written since their entries are counted.
const END: &str = "select pos, events, bytes from journal_end where id = 1";

const EPOCH_OF_FILES: &str = "select epoch from journal_meta where id = 1";
/// Whatever is opened later has a greater one: sessions are numbered on, and shards' epochs begin with the session's number.
const EPOCH_OF_DATABASE: &str = "select greatest((select coalesce(max(number), 0) from node_sessions), \
    (select coalesce(max(epoch), 0) from shards))";

/// Entries read at once when events are counted: each holds one at least.
const ENTRIES_AT_ONCE: u32 = 4_096;

/// What the connection aside remembers.
const ASIDE_CACHE_KIB: u32 = 1024;
/// How long an end waits for whoever reads aside. Nobody needs what he reads.
const ASIDE_ENDS_WITHIN: Duration = Duration::from_secs(2);

/// What a cold owner starts from.
#[derive(Debug, Default)]
pub struct Stored {
    /// The newest whole snapshot.
    pub snapshot: Option<Vec<u8>>,
    /// What happened since, in order.
    pub entries: Vec<Entry>,
}

/// Asks for the number of the opening, or of the node's session, that wrote last.
pub fn last_epoch(is_shared: bool) -> &'static str {
    if is_shared { EPOCH_OF_DATABASE } else { EPOCH_OF_FILES }
}

/// For a connection that reads `journal.db`.
pub fn tuning() -> Tuning {
    Tuning {
        page_bytes: PAGE_BYTES,
        cache_kib: 4 * 1024,
        synchronous: SqliteSynchronous::Full,
        erases: false,
        pages_max: None,
    }
}

/// The tail, and a pool of connections that read `journal.db`, or the database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct JournalReader {
    tail: Arc<Tail>,
    pool: Pool,
    /// One connection for what may take its time.
    aside: Pool,
    /// Other nodes write as well: what stands behind the tail nobody here knows.
    is_shared: bool,
    /// Nobody knows yet what became of the last group: no history can be read to its end.
    in_doubt: Arc<AtomicBool>,
}

impl JournalReader {
    /// Opens nothing yet. The journal must have been opened once before, so that its tables exist.
    pub(super) fn of(dir: &Path, tail: Arc<Tail>) -> JournalReader {
        let file = dir.join("journal.db");
        let pool = Pool::Sqlite(readers(&file, &tuning(), READERS_MAX));
        let aside = Pool::Sqlite(readers(&file, &Tuning { cache_kib: ASIDE_CACHE_KIB, ..tuning() }, 1));
        JournalReader { tail, pool, aside, is_shared: false, in_doubt: Arc::default() }
    }

    /// The same in a database.
    pub(super) fn on(server: &Server, tail: Arc<Tail>, in_doubt: Arc<AtomicBool>) -> JournalReader {
        let [pool, aside] = [READERS_MAX, 1].map(|most| Pool::MySql(server.readers(most)));
        JournalReader { tail, pool, aside, is_shared: true, in_doubt }
    }

    /// The journal in a database whose nodes have stopped.
    pub fn of_stopped_on(server: &Server) -> JournalReader {
        JournalReader::on(server, Arc::default(), Arc::default())
    }

    /// The journal of a server that has stopped, however it stopped. Nothing is moved or changed.
    pub async fn of_stopped(dir: &Path) -> Result<JournalReader, StoreError> {
        let log =
            segment::left_in(dir).and_then(|files| segment::read_all(&files)).map_err(StoreError::Log)?;
        let file = JournalReader::of(dir, Arc::default());
        file.is_known().await?;
        let log = archive::behind(file.last_pos().await?, log).map_err(StoreError::Log)?;
        Ok(JournalReader { tail: Arc::new(Tail::of(log)), ..file })
    }

    /// Refuses a journal of a newer version.
    pub(super) async fn is_known(&self) -> Result<(), StoreError> {
        format::check(&self.pool).await
    }

    /// The newest whole snapshot and everything after it.
    pub async fn load(&self, product: ProductId) -> Result<Stored, StoreError> {
        self.is_certain()?;
        let tail = self.tail.of_product(product);
        let mut connection = self.pool.acquire().await?;
        let (from, snapshot) = match newest_snapshot(&mut connection, product).await? {
            Some((sequence, body)) => (sequence, Some(body)),
            None => (0, None),
        };
        let found = entries(&mut connection, product, from, u32::MAX).await?;
        Ok(Stored { snapshot, entries: unplaced(with_tail(found, tail, from)) })
    }

    /// The newest whole snapshot alone, read aside.
    pub async fn snapshot_aside(&self, product: ProductId) -> Result<Option<Vec<u8>>, StoreError> {
        let mut connection = self.aside.acquire().await?;
        Ok(newest_snapshot(&mut connection, product).await?.map(|(_, body)| body))
    }

    /// The next entries of a product behind the one that ends at `after`, read aside: what comes after an answer without any may yet be
    /// on its way there.
    pub async fn entries_aside(
        &self,
        product: ProductId,
        after: Sequence,
        entries_max: u32,
    ) -> Result<Vec<Entry>, StoreError> {
        let mut connection = self.aside.acquire().await?;
        Ok(unplaced(entries(&mut connection, product, signed(after.0), entries_max).await?))
    }

    /// The snapshots that stand there, whole or not: the sequence of each, how many parts it has, and of how many.
    #[cfg(test)]
    pub async fn snapshots(&self, product: ProductId) -> Vec<(i64, i64, i64)> {
        sql::query_as(SNAPSHOTS).bind(&product.as_bytes()[..]).fetch_all(&self.pool).await.unwrap()
    }

    /// Everything that has happened to a product, whatever its snapshot says.
    pub async fn history(&self, product: ProductId) -> Result<Vec<Entry>, StoreError> {
        self.is_certain()?;
        Ok(unplaced(self.history_with_pos(product).await?))
    }

    /// Nothing may come yet of a group that nobody knows the end of.
    pub fn is_certain(&self) -> Result<(), StoreError> {
        if self.in_doubt.load(Ordering::Acquire) { Err(StoreError::InDoubt) } else { Ok(()) }
    }

    /// One product's whole history with the places of its entries, for the audit.
    pub async fn history_with_pos(&self, product: ProductId) -> Result<Vec<(i64, Entry)>, StoreError> {
        let tail = self.tail.of_product(product);
        let mut connection = self.pool.acquire().await?;
        Ok(with_tail(entries(&mut connection, product, 0, u32::MAX).await?, tail, 0))
    }

    /// Entries of one product, beginning with the one that holds `from`.
    pub async fn read(
        &self,
        product: ProductId,
        from: Sequence,
        entries_max: u32,
    ) -> Result<Vec<Entry>, StoreError> {
        let tail = self.tail.of_product(product);
        let mut connection = self.pool.acquire().await?;
        let archived: i64 = sql::query_scalar(ENTRY_OF)
            .bind(&product.as_bytes()[..])
            .bind(signed(from.0))
            .fetch_one(&mut connection)
            .await?;
        let in_tail = tail.iter().map(|(_, entry)| entry.first).filter(|first| *first <= from).max();
        let before = (archived.max(in_tail.map_or(0, |first| signed(first.0))) - 1).max(0);
        let mut found =
            with_tail(entries(&mut connection, product, before, entries_max).await?, tail, before);
        found.truncate(entries_max as usize);
        Ok(unplaced(found))
    }

    /// Entries of all products behind `pos`, in order of writing: whole entries, until they hold `events_max`.
    pub async fn after(&self, pos: i64, events_max: u64) -> Result<Vec<(i64, Entry)>, StoreError> {
        if let Some(found) = self.tail.after(pos, events_max)
            && !(found.is_empty() && self.is_shared)
        {
            return Ok(owned(found));
        }
        let mut connection = self.pool.acquire().await?;
        let mut rows = sql::query(AFTER).bind(pos).bind(ENTRIES_AT_ONCE).fetch(&mut connection);
        let (mut found, mut events) = (Vec::new(), 0);
        while events < events_max
            && let Some(row) = rows.try_next().await?
        {
            let (pos, entry) = entry(&row)?;
            events += entry.count();
            found.push((pos, entry));
        }
        drop(rows);
        // The file has nothing more: what follows, if anything does, is in the tail, or has come over meanwhile.
        if found.is_empty() {
            return Ok(owned(self.tail.after(pos, events_max).unwrap_or_default()));
        }
        Ok(found)
    }

    /// Products that have something behind `pos`.
    pub async fn products_after(&self, pos: i64) -> Result<Vec<ProductId>, StoreError> {
        let tail = self.tail.all();
        let rows = sql::query(PRODUCTS_AFTER).bind(pos).fetch_all(&self.pool).await?;
        let archived = rows.iter().map(|row| sixteen(row, 0).map(ProductId::from_bytes));
        let mut found = archived.collect::<Result<BTreeSet<_>, _>>()?;
        found.extend(tail.iter().filter(|(at, _)| *at > pos).map(|(_, entry)| entry.product));
        Ok(found.into_iter().collect())
    }

    /// Every product with its last sequence.
    pub async fn heads(&self) -> Result<BTreeMap<ProductId, Sequence>, StoreError> {
        let tail = self.tail.all();
        let mut heads = BTreeMap::new();
        let mut rows = sql::query(HEADS).fetch(&self.pool);
        while let Some(row) = rows.try_next().await? {
            heads.insert(ProductId::from_bytes(sixteen(&row, 0)?), Sequence(unsigned(&row, 1)?));
        }
        for (_, entry) in &tail {
            let head = heads.entry(entry.product).or_insert(entry.last);
            *head = entry.last.max(*head);
        }
        Ok(heads)
    }

    /// The place of the newest entry.
    pub async fn last_pos(&self) -> Result<i64, StoreError> {
        let tail = self.tail.last_pos();
        let archived: i64 = sql::query_scalar(LAST_POS).fetch_one(&self.pool).await?;
        Ok(tail.map_or(archived, |pos| pos.max(archived)))
    }

    /// The number of the opening, or of the node's session, that wrote last.
    pub async fn last_epoch(&self) -> Result<Epoch, StoreError> {
        let epoch: i64 = sql::query_scalar(last_epoch(self.is_shared)).fetch_one(&self.pool).await?;
        Ok(Epoch(epoch.unsigned_abs()))
    }

    /// How many events, and how many bytes of them, stand behind `pos`.
    pub async fn backlog(&self, pos: i64) -> Result<(u64, u64), StoreError> {
        let tail = self.tail.all();
        let row = sql::query(BACKLOG).bind(pos).fetch_one(&self.pool).await?;
        let (events, bytes): (u64, u64) = (unsigned(&row, 0)?, unsigned(&row, 1)?);
        let archived: i64 = row.try_get(2)?;
        let new = tail.iter().filter(|(at, _)| *at > pos.max(archived)).map(|(_, entry)| entry);
        Ok(new.fold((events, bytes), |(events, bytes), entry| {
            (events + entry.count(), bytes + entry.events.len() as u64)
        }))
    }

    /// Where the journal of all nodes ends; `None` where there is one node only.
    pub(super) async fn end_of_all(&self) -> Result<Option<Head>, StoreError> {
        if !self.is_shared {
            return Ok(None);
        }
        let row = sql::query(END).fetch_one(&self.pool).await?;
        Ok(Some(Head { pos: row.try_get(0)?, events: unsigned(&row, 1)?, bytes: unsigned(&row, 2)? }))
    }

    /// The last place that was given in the journal of all nodes, whether or not its entry is still there; `None` where there is one node
    /// only.
    pub(in crate::persistence) async fn places_given(&self) -> Result<Option<i64>, StoreError> {
        Ok(self.end_of_all().await?.map(|head| head.pos))
    }

    pub(in crate::persistence) async fn close(&self) {
        self.pool.close().await;
        let _ = tokio::time::timeout(ASIDE_ENDS_WITHIN, self.aside.close()).await;
    }
}

/// The last sequences, in `journal.db` or in the database, of those `products` that have a history there.
pub async fn archived_heads<C>(
    file: &mut C,
    products: &[ProductId],
) -> Result<Vec<(ProductId, Sequence)>, StoreError>
where
    for<'c> On<'c>: From<&'c mut C>,
{
    let mut found = Vec::with_capacity(products.len());
    for query in HEADS_OF.named(products) {
        for row in query.fetch_all(&mut *file).await? {
            found.push((ProductId::from_bytes(sixteen(&row, 0)?), Sequence(unsigned(&row, 1)?)));
        }
    }
    Ok(found)
}

async fn newest_snapshot(
    connection: &mut Connection,
    product: ProductId,
) -> Result<Option<(i64, Vec<u8>)>, StoreError> {
    loop {
        let found: Vec<(i64, i64, i64)> =
            sql::query_as(SNAPSHOTS).bind(&product.as_bytes()[..]).fetch_all(&mut *connection).await?;
        let Some((sequence, parts, _)) = found.into_iter().find(|(_, there, parts)| there == parts) else {
            return Ok(None);
        };
        let mut rows = sql::query(PARTS).bind(&product.as_bytes()[..]).bind(sequence).fetch(&mut *connection);
        let (mut body, mut read) = (Vec::new(), 0);
        // One by one: a large one is not in memory twice.
        while let Some(row) = rows.try_next().await? {
            body.extend_from_slice(row.try_get(0)?);
            read += 1;
        }
        // Otherwise a newer one was completed in between, and this one is being dropped.
        if read == parts {
            return Ok(Some((sequence, body)));
        }
    }
}

async fn entries(
    connection: &mut Connection,
    product: ProductId,
    after_first: i64,
    most: u32,
) -> Result<Vec<(i64, Entry)>, StoreError> {
    let mut rows =
        sql::query(ENTRIES).bind(&product.as_bytes()[..]).bind(after_first).bind(most).fetch(connection);
    let mut found = Vec::new();
    while let Some(row) = rows.try_next().await? {
        found.push(entry(&row)?);
    }
    Ok(found)
}

/// What the file has of a product, and behind it what only the tail had.
fn with_tail(mut found: Vec<(i64, Entry)>, tail: Vec<Placed>, after_first: i64) -> Vec<(i64, Entry)> {
    let archived = found.last().map_or(0, |(pos, _)| *pos);
    let new = tail.into_iter().filter(|(pos, entry)| *pos > archived && signed(entry.first.0) > after_first);
    found.extend(owned(new));
    found
}

fn owned(placed: impl IntoIterator<Item = Placed>) -> Vec<(i64, Entry)> {
    placed.into_iter().map(|(pos, entry)| (pos, Entry::clone(&entry))).collect()
}

fn unplaced(entries: Vec<(i64, Entry)>) -> Vec<Entry> {
    entries.into_iter().map(|(_, entry)| entry).collect()
}

fn entry(row: &Row) -> Result<(i64, Entry), StoreError> {
    let entry = Entry {
        product: ProductId::from_bytes(sixteen(row, 1)?),
        first: Sequence(unsigned(row, 2)?),
        last: Sequence(unsigned(row, 3)?),
        epoch: Epoch(unsigned(row, 4)?),
        at: Millis(row.try_get(5)?),
        hash: ChainHash(sixteen(row, 6)?),
        events: row.try_get(7)?,
    };
    if entry.last < entry.first {
        return Err(Damaged { what: "journal entry" }.into());
    }
    Ok((row.try_get(0)?, entry))
}
