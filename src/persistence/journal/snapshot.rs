//! Snapshots on their way into the journal's file: in slices, so that no group waits for a big one.
//!
//! Always true: a snapshot counts only when all its parts are there; older ones go only after that; whoever comes late with an older
//! one takes nobody's place; and of two of the same sequence the first one stays, unless it is damaged.

use futures_util::TryStreamExt;
use tokio::sync::oneshot;

use super::NotWritten;
use super::reader::PARTS;
use crate::domain::id::ProductId;
use crate::domain::stock::{Intact, Sequence};
use crate::persistence::sql::{self, On, signed};

/// Bytes of one part, at most: about a millisecond of writing.
const PART_BYTES_MAX: usize = 256 * 1024;

/// A try that was cut off by a crash leaves parts behind, and so does one that is damaged; the same part is written anew, and nobody sees a
/// moment without it.
const REPLACE: &str =
    "replace into snapshots (product_id, sequence, part, parts, body) values (?, ?, ?, ?, ?)";
const DELETE: &str = "delete from snapshots where product_id = ? and sequence = ? and part = ?";
/// The newest that counts.
const NEWEST_WHOLE: &str = "select sequence from snapshots where product_id = ? group by sequence \
    having count(*) = max(parts) order by sequence desc limit 1";
/// One part a statement, so that dropping a big snapshot is as gentle as writing it.
const OLDEST: &str = "select sequence, part from snapshots where product_id = ? and sequence < ? limit 1";
/// What such a try has left that had more parts.
const LEFT_OVER: &str =
    "select sequence, part from snapshots where product_id = ? and sequence = ? and part >= ? limit 1";

/// One snapshot and how far it has come.
pub struct Saving {
    product: ProductId,
    at: Sequence,
    body: Vec<u8>,
    next: usize,
    /// Once it is written: what is older than this goes.
    keep: Option<Sequence>,
    saved: oneshot::Sender<Result<(), NotWritten>>,
}

/// Whether a slice was the last.
pub enum Progress {
    More(Box<Saving>),
    Done,
}

impl Saving {
    pub fn new(
        product: ProductId,
        at: Sequence,
        body: Vec<u8>,
        saved: oneshot::Sender<Result<(), NotWritten>>,
    ) -> Saving {
        Saving { product, at, body, next: 0, keep: None, saved }
    }

    fn parts(&self) -> usize {
        self.body.len().div_ceil(PART_BYTES_MAX).max(1)
    }

    /// Pages the next slice adds to the WAL, about.
    pub fn pages(&self) -> u64 {
        PART_BYTES_MAX.min(self.body.len()) as u64 / 4096 + 4
    }

    pub fn give_up(self, why: NotWritten) {
        let _ = self.saved.send(Err(why));
    }

    /// Writes the next part, or drops one part of an older snapshot. Where a newer one stands nothing is written, as whoever wants a
    /// snapshot of that time has a better one; nor where one of the same sequence does that can be read back.
    pub async fn slice<W>(mut self: Box<Self>, writer: &mut W) -> Result<Progress, (Box<Self>, sqlx::Error)>
    where
        for<'w> On<'w>: From<&'w mut W>,
    {
        match self.go_on(writer).await {
            Ok(false) => Ok(Progress::More(self)),
            Ok(true) => {
                let _ = self.saved.send(Ok(()));
                Ok(Progress::Done)
            }
            Err(error) => Err((self, error)),
        }
    }

    /// Whether nothing is left to be done.
    async fn go_on<W>(&mut self, writer: &mut W) -> Result<bool, sqlx::Error>
    where
        for<'w> On<'w>: From<&'w mut W>,
    {
        if self.next == 0 {
            let newest = self.newest_whole(writer).await?;
            if newest > Some(self.at) || (newest == Some(self.at) && self.stands(writer).await?) {
                return Ok(true);
            }
        }
        if self.next < self.parts() {
            return self.write_part(writer).await.map(|()| false);
        }
        if self.drops_left_over(writer).await? {
            return Ok(false);
        }
        let keep = match self.keep {
            Some(keep) => keep,
            // Another node may have stored a newer one meanwhile: then it is this one that goes.
            None => self.newest_whole(writer).await?.map_or(self.at, |newest| newest.max(self.at)),
        };
        self.keep = Some(keep);
        self.drop_older(keep, writer).await
    }

    async fn newest_whole<W>(&self, writer: &mut W) -> Result<Option<Sequence>, sqlx::Error>
    where
        for<'w> On<'w>: From<&'w mut W>,
    {
        let newest: Option<i64> =
            sql::query_scalar(NEWEST_WHOLE).bind(&self.product.as_bytes()[..]).fetch_optional(writer).await?;
        Ok(newest.map(|sequence| Sequence(sequence.unsigned_abs())))
    }

    /// Whether the whole one of the same sequence is as it was written. Each part is let go of when it has been looked at.
    async fn stands<W>(&self, writer: &mut W) -> Result<bool, sqlx::Error>
    where
        for<'w> On<'w>: From<&'w mut W>,
    {
        let mut intact = Intact::default();
        let mut parts =
            sql::query(PARTS).bind(&self.product.as_bytes()[..]).bind(signed(self.at.0)).fetch(writer);
        while let Some(part) = parts.try_next().await? {
            intact.add(part.try_get(0)?);
        }
        Ok(intact.is_it())
    }

    async fn write_part<W>(&mut self, writer: &mut W) -> Result<(), sqlx::Error>
    where
        for<'w> On<'w>: From<&'w mut W>,
    {
        let (sequence, part) = (signed(self.at.0), self.next as i64);
        let from = self.next * PART_BYTES_MAX;
        let body = &self.body[from..self.body.len().min(from + PART_BYTES_MAX)];
        sql::query(REPLACE)
            .bind(&self.product.as_bytes()[..])
            .bind(sequence)
            .bind(part)
            .bind(self.parts() as i64)
            .bind(body)
            .execute(writer)
            .await?;
        self.next += 1;
        Ok(())
    }

    /// Drops a part behind the last one, if there is one. Whether there was.
    async fn drops_left_over<W>(&self, writer: &mut W) -> Result<bool, sqlx::Error>
    where
        for<'w> On<'w>: From<&'w mut W>,
    {
        let left: Option<(i64, i64)> = sql::query_as(LEFT_OVER)
            .bind(&self.product.as_bytes()[..])
            .bind(signed(self.at.0))
            .bind(self.parts() as i64)
            .fetch_optional(&mut *writer)
            .await?;
        let Some(left) = left else { return Ok(false) };
        self.drop_part(left, writer).await.map(|()| true)
    }

    /// Whether nothing older was left.
    async fn drop_older<W>(&self, keep: Sequence, writer: &mut W) -> Result<bool, sqlx::Error>
    where
        for<'w> On<'w>: From<&'w mut W>,
    {
        let older: Option<(i64, i64)> = sql::query_as(OLDEST)
            .bind(&self.product.as_bytes()[..])
            .bind(signed(keep.0))
            .fetch_optional(&mut *writer)
            .await?;
        let Some(older) = older else { return Ok(true) };
        self.drop_part(older, writer).await.map(|()| false)
    }

    async fn drop_part<W>(&self, (sequence, part): (i64, i64), writer: &mut W) -> Result<(), sqlx::Error>
    where
        for<'w> On<'w>: From<&'w mut W>,
    {
        let delete = sql::query(DELETE).bind(&self.product.as_bytes()[..]).bind(sequence).bind(part);
        delete.execute(writer).await.map(|_| ())
    }
}
