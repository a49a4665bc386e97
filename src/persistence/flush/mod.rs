//! The flush: what the journal has and the tables have not yet, brought over exactly once.
//!
//! One code path for live work and after a crash: a slice is read from the journal behind the checkpoint, folded,
//! and written in one transaction that moves the checkpoint from where it was found. Whoever comes second with the
//! same slice finds the checkpoint moved, and his transaction leaves nothing.

mod fold;
mod news;

#[cfg(test)]
mod bench;
#[cfg(test)]
mod tests;

pub use super::tables::NICE;
pub use fold::{Changes, Ending, FoldError, Ground, Moved, Returning, Run, StockChange, Turn, fold};

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::journal::{Journal, JournalReader};
use super::notice::{self, Packed};
use super::sql::{self, Connection};
use super::tables::FLUSHED;
use super::{StoreError, Tables, buyer, order, stock};
use crate::domain::id::{OrderId, ProductId};
use crate::domain::notice::Notice;
use crate::domain::stock::{Event, Sequence};
use news::Before;

/// Events of one slice, at most, up to the end of the entry that goes over it.
pub const SLICE_EVENTS_MAX: u64 = 5_000;

const MOVE_CHECKPOINT: &str = "update flush_checkpoint set pos = ? where id = 1 and pos = ?";

/// Why a slice was not flushed. The tables are as they were, unless the answer to the commit was lost.
#[derive(Debug, thiserror::Error)]
pub enum FlushError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the journal does not fold: {0}")]
    Fold(#[from] FoldError),
    #[error("the checkpoint no longer stands at {expected}: somebody else has flushed")]
    CheckpointMoved { expected: i64 },
    #[error("the stock row of {product} no longer stands at {expected}", expected = expected.0)]
    StockMoved { product: ProductId, expected: Sequence },
}

impl FlushError {
    /// Whether what stands there says the same however often it is read: the tables stand still until somebody has looked after it.
    pub fn is_standstill(&self) -> bool {
        match self {
            FlushError::Fold(_) => true,
            FlushError::Store(error) => error.is_damage(),
            FlushError::CheckpointMoved { .. } | FlushError::StockMoved { .. } => false,
        }
    }
}

impl From<sql::Error> for FlushError {
    fn from(error: sql::Error) -> FlushError {
        FlushError::Store(error.into())
    }
}

/// A slice, ready to be written.
#[derive(Debug)]
pub struct Plan {
    pub from: i64,
    pub to: i64,
    pub events: u64,
    pub bytes: u64,
    pub changes: Changes,
    /// What other systems are to be told of it; `None` where nobody listens.
    pub news: Option<Before>,
    /// What buyers are to be written of it.
    notices: Packed,
}

/// What a slice did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flushed {
    /// 0: the tables were up to date.
    pub events: u64,
    /// Orders that got their rows.
    pub orders: u64,
    /// How far the tables are true.
    pub pos: i64,
    /// Where the journal ended when it was looked at.
    pub end: i64,
}

/// How far the tables are behind the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lag {
    pub events: u64,
    pub bytes: u64,
}

#[derive(Debug, Default)]
struct Gone {
    events: AtomicU64,
    bytes: AtomicU64,
}

/// Shows the lag to whoever asks, at any time. Cheap to clone.
#[derive(Clone)]
pub struct LagGauge {
    journal: Journal,
    /// What stood in the journal unflushed when the flusher was opened.
    backlog: Lag,
    /// What has been flushed since, and what the journal had counted before.
    gone: Arc<Gone>,
}

impl LagGauge {
    pub fn lag(&self) -> Lag {
        let head = self.journal.seen_end();
        Lag {
            events: (self.backlog.events + head.events)
                .saturating_sub(self.gone.events.load(Ordering::Relaxed)),
            bytes: (self.backlog.bytes + head.bytes).saturating_sub(self.gone.bytes.load(Ordering::Relaxed)),
        }
    }
}

/// Brings the tables up to date, slice by slice. There is one; the loop around it is its owner's.
pub struct Flusher {
    journal: JournalReader,
    tables: Tables,
    pos: i64,
    gauge: LagGauge,
    /// The last slice failed, and may have been written all the same: the answer to a commit can be lost.
    in_doubt: bool,
}

impl Flusher {
    /// Finds the checkpoint and counts what is behind it.
    pub async fn open(journal: &Journal, tables: &Tables) -> Result<Flusher, StoreError> {
        let pos = tables.flushed_pos().await?;
        let end = journal.reader().last_pos().await?;
        if pos > end {
            return Err(StoreError::JournalShort { pos, end });
        }
        let (events, bytes) = journal.reader().backlog(pos).await?;
        // What the journal took in before this moment is in the backlog, or was flushed by somebody before us. An
        // entry that arrives in between is missed rather than counted twice: then the lag would never reach zero.
        let before = journal.look_at_end().await?;
        let gone = Gone { events: AtomicU64::new(before.events), bytes: AtomicU64::new(before.bytes) };
        let gauge =
            LagGauge { journal: journal.clone(), backlog: Lag { events, bytes }, gone: Arc::new(gone) };
        let journal = journal.reader().clone();
        Ok(Flusher { journal, tables: tables.clone(), pos, gauge, in_doubt: false })
    }

    /// How far the tables are true.
    pub fn pos(&self) -> i64 {
        self.pos
    }

    pub fn gauge(&self) -> LagGauge {
        self.gauge.clone()
    }

    /// Flushes one slice, and puts the files in order.
    pub async fn run_slice(&mut self) -> Result<Flushed, FlushError> {
        let done = self.slice().await?;
        self.checkpoint_if_due(false).await;
        Ok(done)
    }

    /// Flushes one slice. After an error it is written as a whole or not at all; the next call finds out, and goes on. The files' WALs
    /// are somebody else's.
    pub async fn slice(&mut self) -> Result<Flushed, FlushError> {
        let end = self.gauge.journal.look_at_end().await?.pos;
        if self.in_doubt {
            self.find_checkpoint().await?;
        }
        self.in_doubt = true;
        let done = self.slice_before(end).await?;
        self.in_doubt = false;
        Ok(done)
    }

    async fn slice_before(&mut self, end: i64) -> Result<Flushed, FlushError> {
        let Some(plan) = self.plan(SLICE_EVENTS_MAX).await? else {
            self.look_back().await?;
            return Ok(Flushed { pos: self.pos, end, ..Flushed::default() });
        };
        self.write(&plan).await?;
        Ok(Flushed { events: plan.events, orders: plan.changes.born.len() as u64, pos: plan.to, end })
    }

    /// Where there seems to be nothing to do: whether the tables still have what was written. With a database that has forgotten some
    /// of it they stand where they stood before, and others may have written as much again.
    async fn look_back(&self) -> Result<(), FlushError> {
        let is_shared = self.gauge.journal.node_id().is_some();
        if is_shared && self.tables.flushed_pos().await? < self.pos {
            return Err(self.gauge.journal.forgotten().into());
        }
        Ok(())
    }

    /// Where the tables stand after a slice that failed: where it began, or where it was to end.
    async fn find_checkpoint(&mut self) -> Result<(), FlushError> {
        // By the writer: whatever the lost connection had left open has been ended then. What its server commits later than this
        // look makes the next slice fail, and that looks again.
        let mut writer = self.tables.writer().await?;
        let at: i64 = sql::query_scalar(FLUSHED).fetch_one(&mut *writer).await?;
        drop(writer);
        if at == self.pos {
            return Ok(());
        }
        if at < self.pos {
            return Err(self.gauge.journal.forgotten().into());
        }
        let (mut to, mut written) = (self.pos, Lag::default());
        while to != at {
            // A look may end before the slice did.
            let behind = self.journal.after(to, SLICE_EVENTS_MAX).await?;
            let before = to;
            for (pos, entry) in behind.into_iter().take_while(|(pos, _)| *pos <= at) {
                written.bytes += entry.events.len() as u64;
                written.events += Run::of(entry)?.events.len() as u64;
                to = pos;
            }
            if to == before {
                return Err(FlushError::CheckpointMoved { expected: self.pos });
            }
        }
        self.passed(at, written);
        // Whatever it had to tell stands in the tables, and nobody has rung.
        self.tables.interest().ring();
        self.tables.bell().ring();
        Ok(())
    }

    /// The tables are true up to here.
    fn passed(&mut self, to: i64, gone: Lag) {
        self.pos = to;
        self.gauge.gone.events.fetch_add(gone.events, Ordering::Relaxed);
        self.gauge.gone.bytes.fetch_add(gone.bytes, Ordering::Relaxed);
    }

    /// Copies the WALs into their files when they have grown; in smaller pieces while somebody may come who waits for the next slice.
    pub async fn checkpoint_if_due(&self, somebody_may_come: bool) {
        self.tables.checkpoint_if_due(somebody_may_come).await;
    }

    /// Housekeeping for when there is nothing to flush: a few milliseconds of it. False when all is tidy.
    pub async fn tidy(&mut self, somebody_may_come: bool) -> Result<bool, StoreError> {
        // Among nodes nobody else tells how much waits.
        self.gauge.journal.look_at_end().await?;
        let mut writer = self.tables.writer().await?;
        let more = buyer::merge_step(&mut writer).await?;
        drop(writer);
        self.checkpoint_if_due(somebody_may_come).await;
        Ok(more)
    }

    /// Reads and folds the next slice; `None` when there is nothing. Writes nothing.
    pub async fn plan(&self, events_max: u64) -> Result<Option<Plan>, FlushError> {
        let found = self.journal.after(self.pos, events_max).await?;
        let Some((to, _)) = found.last() else { return Ok(None) };
        let to = *to;
        let bytes = found.iter().map(|(_, entry)| entry.events.len() as u64).sum();
        let runs = found.into_iter().map(|(_, entry)| Run::of(entry)).collect::<Result<Vec<Run>, _>>()?;
        let events = runs.iter().map(|run| run.events.len() as u64).sum();
        let ground = self.ground(&runs).await?;
        let kinds = self.tables.interest().kinds();
        let news = match kinds.is_empty() {
            true => None,
            false => Some(Before::look(&self.tables, kinds, &runs, &ground).await?),
        };
        let notices = noticed(&runs);
        Ok(Some(Plan { from: self.pos, to, events, bytes, changes: fold(&runs, ground)?, news, notices }))
    }

    /// What the fold must know of the rows. Only the flush moves them, and there is one.
    async fn ground(&self, runs: &[Run]) -> Result<Ground, FlushError> {
        let products: BTreeSet<ProductId> = runs.iter().map(|run| run.entry.product).collect();
        let unsaid = |event: &Event| match event {
            Event::Confirmed(confirmed) if confirmed.held.is_none() => Some(confirmed.order),
            _ => None,
        };
        let confirmed: BTreeSet<OrderId> =
            runs.iter().flat_map(|run| &run.events).filter_map(unsaid).collect();
        let mut writer = self.tables.writer().await?;
        let stock = stock::find_many(&mut writer, &Vec::from_iter(products)).await?;
        let held = order::held(&mut writer, &Vec::from_iter(confirmed)).await?;
        Ok(Ground {
            stock: stock.into_iter().map(|stock| (stock.product, stock)).collect(),
            held: held.into_iter().map(|(order, product, units)| ((order, product), units)).collect(),
        })
    }

    /// Writes a planned slice in one transaction.
    pub async fn write(&mut self, plan: &Plan) -> Result<(), FlushError> {
        let mut writer = self.tables.writer().await?;
        sql::begin(&mut writer).await?;
        let written = write_plan(&mut writer, plan).await;
        sql::end(&mut writer, written).await?;
        drop(writer);
        self.passed(plan.to, Lag { events: plan.events, bytes: plan.bytes });
        if plan.news.is_some() {
            self.tables.interest().ring();
        }
        if !plan.notices.is_empty() {
            self.tables.bell().ring();
        }
        Ok(())
    }
}

/// Made of the events alone: looking at rows would cost more than it saves.
fn noticed(runs: &[Run]) -> Packed {
    let mut packed = Packed::default();
    for Run { entry, events } in runs {
        for notice in events.iter().filter_map(|event| Notice::of_event(entry.product, entry.at, event)) {
            packed.push(&notice);
        }
    }
    packed
}

async fn write_plan(connection: &mut Connection, plan: &Plan) -> Result<(), FlushError> {
    let Plan { from, to, changes, news, notices, .. } = plan;
    // First the checkpoint: who comes second stops here.
    let moved = sql::query(MOVE_CHECKPOINT).bind(to).bind(from).execute(&mut *connection).await?;
    if moved.rows_affected() != 1 {
        return Err(FlushError::CheckpointMoved { expected: *from });
    }
    order::insert(connection, &changes.born).await?;
    for Moved { at, order, to } in &changes.deadlines {
        order::new_deadline(connection, *at, *order, *to).await?;
    }
    for ((product, ending), orders) in &changes.ended {
        order::end(connection, *product, ending.status(), orders).await?;
    }
    for ((product, quantity), orders) in &changes.confirmed {
        order::confirm(connection, *product, *quantity, orders).await?;
    }
    for Moved { at, order, to } in &changes.returned {
        order::give_back(connection, *at, *order, to).await?;
    }
    for (product, orders) in &changes.cancelled_by {
        order::keep_cancels(connection, *product, orders).await?;
    }
    for StockChange { before, after } in &changes.stock {
        match before {
            None => stock::insert(connection, after).await?,
            Some(before) if stock::update(connection, *before, after).await? => {}
            Some(before) => return Err(FlushError::StockMoved { product: after.product, expected: *before }),
        }
    }
    notice::insert_slice(connection, *to, notices).await?;
    match news {
        Some(news) => news.write(connection, *to, changes).await,
        None => Ok(()),
    }
}
