//! Reading the journal: one product's history for its owner, everybody's in order of writing for the flush.
//!
//! Readers see only what is on the disk: SQLite shows a commit to others after its sync.

use std::path::Path;

use futures_util::{Stream, StreamExt, TryStreamExt};
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqlitePool, SqliteRow, SqliteSynchronous};

use super::READERS_MAX;
use super::writer::PAGE_BYTES;
use crate::domain::id::ProductId;
use crate::domain::stock::{ChainHash, Entry, Epoch, Millis, Sequence};
use crate::persistence::StoreError;
use crate::persistence::sqlite::{Damaged, Tuning, readers, signed, sixteen, unsigned};

const SNAPSHOTS: &str = "select sequence, count(*), max(parts) from snapshots where product_id = ? \
    group by sequence order by sequence desc";
const PARTS: &str = "select body from snapshots where product_id = ? and sequence = ? order by part";
const ENTRIES: &str = "select pos, product_id, first_seq, last_seq, epoch, at_ms, hash, events from journal \
    where product_id = ? and first_seq > ? order by first_seq limit ?";
/// The entry that a sequence lies in, to start reading from its middle.
const ENTRY_OF: &str =
    "select coalesce(max(first_seq), 0) from journal where product_id = ? and first_seq <= ?";
const AFTER: &str = "select pos, product_id, first_seq, last_seq, epoch, at_ms, hash, events from journal \
    where pos > ? order by pos limit ?";
const PRODUCTS_AFTER: &str = "select distinct product_id from journal where pos > ?";
const HEADS: &str = "select product_id, max(last_seq) from journal group by product_id order by product_id";
const LAST_POS: &str = "select coalesce(max(pos), 0) from journal";
const BACKLOG: &str = "select coalesce(sum(last_seq - first_seq + 1), 0), coalesce(sum(length(events)), 0) \
    from journal where pos > ?";

/// Entries read at once when events are counted: each holds one at least.
const ENTRIES_AT_ONCE: u32 = 4_096;

/// What a cold owner starts from.
#[derive(Debug, Default)]
pub struct Stored {
    /// The newest whole snapshot.
    pub snapshot: Option<Vec<u8>>,
    /// What happened since, in order.
    pub entries: Vec<Entry>,
}

/// Where a product's history ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProductHead {
    pub product: ProductId,
    pub last: Sequence,
}

/// A pool of read-only connections to `journal.db`. Cheap to clone.
#[derive(Debug, Clone)]
pub struct JournalReader {
    pool: SqlitePool,
}

impl JournalReader {
    /// Opens nothing yet. The journal must have been opened once before, so that its tables exist.
    pub fn of(dir: &Path) -> JournalReader {
        let tuning = Tuning {
            page_bytes: PAGE_BYTES,
            cache_kib: 4 * 1024,
            synchronous: SqliteSynchronous::Full,
            pages_max: None,
        };
        JournalReader { pool: readers(&dir.join("journal.db"), &tuning, READERS_MAX) }
    }

    /// The newest whole snapshot and everything after it, as they stood at one moment.
    pub async fn load(&self, product: ProductId) -> Result<Stored, StoreError> {
        let mut moment = self.pool.begin().await?;
        let (from, snapshot) = match newest_snapshot(&mut moment, product).await? {
            Some((sequence, body)) => (sequence, Some(body)),
            None => (0, None),
        };
        let entries = unplaced(entries(&mut moment, product, from, u32::MAX).await?);
        moment.commit().await?;
        Ok(Stored { snapshot, entries })
    }

    /// One product's whole history with the places of its entries, for the audit.
    pub async fn history_with_pos(&self, product: ProductId) -> Result<Vec<(i64, Entry)>, StoreError> {
        let mut connection = self.pool.acquire().await?;
        entries(&mut connection, product, 0, u32::MAX).await
    }

    /// Entries of one product, beginning with the one that holds `from`.
    pub async fn read(
        &self,
        product: ProductId,
        from: Sequence,
        entries_max: u32,
    ) -> Result<Vec<Entry>, StoreError> {
        let mut connection = self.pool.acquire().await?;
        let first: i64 = sqlx::query_scalar(ENTRY_OF)
            .bind(&product.as_bytes()[..])
            .bind(signed(from.0))
            .fetch_one(&mut *connection)
            .await?;
        Ok(unplaced(entries(&mut connection, product, (first - 1).max(0), entries_max).await?))
    }

    /// Entries of all products behind `pos`, in order of writing: whole entries, until they hold `events_max`.
    pub async fn after(&self, pos: i64, events_max: u64) -> Result<Vec<(i64, Entry)>, StoreError> {
        let mut connection = self.pool.acquire().await?;
        let mut rows = sqlx::query(AFTER).bind(pos).bind(ENTRIES_AT_ONCE).fetch(&mut *connection);
        let (mut found, mut events) = (Vec::new(), 0);
        while events < events_max
            && let Some(row) = rows.try_next().await?
        {
            let (pos, entry) = entry(&row)?;
            events += entry.count();
            found.push((pos, entry));
        }
        Ok(found)
    }

    /// Products that have something behind `pos`.
    pub async fn products_after(&self, pos: i64) -> Result<Vec<ProductId>, StoreError> {
        let rows = sqlx::query(PRODUCTS_AFTER).bind(pos).fetch_all(&self.pool).await?;
        rows.iter().map(|row| sixteen(row, 0).map(ProductId::from_bytes)).collect()
    }

    /// Every product with its last sequence, in order of id.
    pub fn heads(&self) -> impl Stream<Item = Result<ProductHead, StoreError>> + '_ {
        sqlx::query(HEADS).fetch(&self.pool).map(|row| {
            let row = row?;
            Ok(ProductHead {
                product: ProductId::from_bytes(sixteen(&row, 0)?),
                last: Sequence(unsigned(&row, 1)?),
            })
        })
    }

    /// The place of the newest entry.
    pub async fn last_pos(&self) -> Result<i64, StoreError> {
        Ok(sqlx::query_scalar(LAST_POS).fetch_one(&self.pool).await?)
    }

    /// How many events, and how many bytes of them, stand behind `pos`.
    pub async fn backlog(&self, pos: i64) -> Result<(u64, u64), StoreError> {
        let row = sqlx::query(BACKLOG).bind(pos).fetch_one(&self.pool).await?;
        Ok((unsigned(&row, 0)?, unsigned(&row, 1)?))
    }

    pub(in crate::persistence) async fn close(&self) {
        self.pool.close().await;
    }
}

async fn newest_snapshot(
    moment: &mut SqliteConnection,
    product: ProductId,
) -> Result<Option<(i64, Vec<u8>)>, StoreError> {
    let found: Vec<(i64, i64, i64)> =
        sqlx::query_as(SNAPSHOTS).bind(&product.as_bytes()[..]).fetch_all(&mut *moment).await?;
    let Some((sequence, ..)) = found.into_iter().find(|(_, there, parts)| there == parts) else {
        return Ok(None);
    };
    let mut parts = sqlx::query(PARTS).bind(&product.as_bytes()[..]).bind(sequence).fetch(moment);
    let mut body = Vec::new();
    while let Some(part) = parts.try_next().await? {
        body.extend_from_slice(part.try_get(0)?);
    }
    Ok(Some((sequence, body)))
}

async fn entries(
    connection: &mut SqliteConnection,
    product: ProductId,
    after_first: i64,
    most: u32,
) -> Result<Vec<(i64, Entry)>, StoreError> {
    let mut rows =
        sqlx::query(ENTRIES).bind(&product.as_bytes()[..]).bind(after_first).bind(most).fetch(connection);
    let mut found = Vec::new();
    while let Some(row) = rows.try_next().await? {
        found.push(entry(&row)?);
    }
    Ok(found)
}

fn unplaced(entries: Vec<(i64, Entry)>) -> Vec<Entry> {
    entries.into_iter().map(|(_, entry)| entry).collect()
}

fn entry(row: &SqliteRow) -> Result<(i64, Entry), StoreError> {
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
