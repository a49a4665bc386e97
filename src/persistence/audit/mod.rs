//! The audit: replays the whole journal and says where the tables, the snapshots or the sums differ from it.
//!
//! It repairs nothing. One product is in memory at a time, with its orders. Only what lies at or before the flush
//! checkpoint is compared with the tables; the chain and the snapshots are checked to the end. So is the trail of who did
//! what, whose end is told: who hands in what earlier audits told hears whether somebody has written a new one. Payments and
//! refunds are held against the orders and the pins, order by order; that is `money`'s. What the mirror shows is `mirror`'s, and the keys
//! of orders are `keys`'s.

#[cfg(test)]
mod bench;
mod case;
mod keys;
mod mirror;
mod money;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;

use super::flush::{Changes, Ending, Ground, Moved, Returning, Run, fold};
use super::journal::{self, JournalReader, OpenError};
use super::order::{Born, Counted};
use super::redis::Redis;
use super::trail::{Head, Mark};
use super::{StoreError, Tables};
use crate::domain::amount::Quantity;
use crate::domain::id::{OrderId, ProductId};
use crate::domain::order::{Line, LineStatus, Order, OrderStatus};
use crate::domain::stock::{Attempt, Cause, Entry, Event, Ledger, Released, decode_events};

pub use mirror::Mirror;
pub use money::{Money, Sums};

/// Orders compared at a time.
const ORDERS_AT_ONCE: usize = 256;

/// What the audit has looked at, and every difference as a line to print.
#[derive(Debug, Default)]
pub struct Report {
    pub products: u64,
    pub entries: u64,
    pub events: u64,
    pub orders: u64,
    pub lines: u64,
    pub snapshots: u64,
    /// The last entry of the trail.
    pub trail: Head,
    /// Where the tables, the snapshots or the trail are not what they should be.
    pub differences: Vec<String>,
    /// Payments and refunds, with differences of their own.
    pub money: Money,
    /// The mirror, with differences of its own, if it was looked at.
    pub mirror: Option<Mirror>,
}

impl Report {
    pub fn is_clean(&self) -> bool {
        self.all_differences().next().is_none()
    }

    pub fn all_differences(&self) -> impl Iterator<Item = &String> {
        let mirror = self.mirror.iter().flat_map(|mirror| &mirror.differences);
        self.differences.iter().chain(&self.money.differences).chain(mirror)
    }

    fn differs(&mut self, what: String) {
        self.differences.push(what);
    }
}

/// Where what is audited stands.
#[derive(Debug, Clone, Copy)]
pub enum Stopped<'s> {
    /// A folder whose server must have stopped.
    Files(&'s Path),
    /// The address of a database of whose nodes none must write. It is brought up to date first.
    Database(&'s str),
}

/// Audits the store in `dir`, whose server must have stopped.
pub async fn audit(dir: &Path) -> Result<Report, OpenError> {
    of_stopped(Stopped::Files(dir), None, &[]).await
}

/// Audits a shop that has stopped, what the mirror in `redis` shows of it, and whether its trail has the entries that were kept.
pub async fn of_stopped(
    shop: Stopped<'_>,
    redis: Option<&Redis>,
    kept: &[Mark],
) -> Result<Report, OpenError> {
    let (journal, tables, _lock) = match shop {
        Stopped::Files(dir) => {
            let lock = journal::lock(dir)?;
            if !dir.join("journal.db").exists() {
                return Ok(Report::default());
            }
            (JournalReader::of_stopped(dir).await?, Tables::read_only(dir), Some(lock))
        }
        Stopped::Database(url) => {
            let tables = Tables::connect(url).await?;
            match journal::of_idle(url).await {
                Ok(journal) => (journal, tables, None),
                Err(why) => {
                    tables.close().await?;
                    return Err(why);
                }
            }
        }
    };
    let auditing = async {
        let mut report = of(&journal, &tables).await?;
        for product in tables.products().without_rows().await? {
            report.differs(format!("{product}: has stock, and no row among the products"));
        }
        report.differences.extend(tables.trail().compare(kept).await?);
        if let Some(redis) = redis {
            report.mirror = Some(mirror::audit(&journal, redis).await?);
        }
        Ok::<_, StoreError>(report)
    };
    let report = auditing.await;
    journal.close().await;
    let closed = tables.close().await;
    let report = report?;
    closed?;
    Ok(report)
}

/// Audits a journal and its tables, neither of which moves meanwhile.
pub(super) async fn of(journal: &JournalReader, tables: &Tables) -> Result<Report, StoreError> {
    let (report, ahead, pins) = (Report::default(), HashSet::new(), BTreeSet::new());
    Audit { journal, tables, report, ahead, pins }.whole().await
}

struct Audit<'s> {
    journal: &'s JournalReader,
    tables: &'s Tables,
    report: Report,
    /// Orders of which the journal tells more than the tables do: no more than a flush may lag behind.
    ahead: HashSet<OrderId>,
    /// Holds that are pinned, with the attempt that did it: no more than there are live holds.
    pins: BTreeSet<(OrderId, Attempt)>,
}

impl Audit<'_> {
    async fn whole(mut self) -> Result<Report, StoreError> {
        let flushed = self.tables.flushed_pos().await?;
        let last = self.journal.last_pos().await?;
        if flushed > last {
            self.report.differs(format!("the tables are at {flushed}, the journal ends at {last}"));
        }
        let products = self.journal.heads().await?.into_keys();
        let mut rows_expected = 0;
        for product in products {
            let entries = self.journal.history_with_pos(product).await?;
            rows_expected += i64::from(entries.first().is_some_and(|(pos, _)| *pos <= flushed));
            self.product(product, entries, flushed).await?;
        }
        self.nothing_else(rows_expected).await?;
        self.places(last).await?;
        match keys::used_twice(self.tables).await {
            Err(StoreError::Damaged(damaged)) => self.report.differs(format!("keys of orders: {damaged}")),
            told => self.report.differences.extend(told?),
        }
        let (head, breaks) = self.tables.trail().verify().await?;
        self.report.trail = head;
        self.report.differences.extend(breaks);
        self.report.money = money::audit(self.tables, &self.ahead, self.pins).await?;
        Ok(self.report)
    }

    /// Rows that no history accounts for show in the counts.
    async fn nothing_else(&mut self, stock_rows_expected: i64) -> Result<(), StoreError> {
        let Counted { orders, lines, listed, listings } = self.tables.orders().count().await?;
        let stock = self.tables.stock_rows().await?;
        for (what, expected, found) in [
            ("orders", self.report.orders, orders),
            ("order lines", self.report.lines, lines),
            ("entries of buyers", self.report.orders, listings),
            ("orders listed to their buyers", self.report.orders, listed),
            ("stock rows", stock_rows_expected.unsigned_abs(), stock.unsigned_abs()),
        ] {
            if expected != found {
                self.report.differs(format!("{found} {what} in the tables, {expected} in the journal"));
            }
        }
        Ok(())
    }

    /// Entries stand one behind the other, from the first place to the last that was given.
    async fn places(&mut self, last: i64) -> Result<(), StoreError> {
        let entries = self.report.entries;
        if entries != last.unsigned_abs() {
            self.report.differs(format!("{entries} entries are in the journal, whose last place is {last}"));
        }
        // One that was copied in counts its places at the next start.
        if let Some(given) = self.journal.places_given().await?
            && given > last
        {
            self.report.differs(format!("places up to {given} were given, and the journal ends at {last}"));
        }
        Ok(())
    }

    async fn product(
        &mut self,
        product: ProductId,
        entries: Vec<(i64, Entry)>,
        flushed: i64,
    ) -> Result<(), StoreError> {
        self.report.products += 1;
        self.report.entries += entries.len() as u64;
        let mut ledger = Ledger::default();
        for (pos, entry) in &entries {
            self.report.events += entry.count();
            if let Err(error) = ledger.replay(entry) {
                self.report.differs(format!("{product}: the history breaks at {pos}: {error}"));
                return Ok(());
            }
        }
        self.snapshot(product, &ledger).await?;
        self.pins.extend(ledger.pinned());
        drop(ledger);
        for (_, entry) in entries.iter().filter(|(pos, _)| *pos > flushed) {
            let events = decode_events(&entry.events).unwrap_or_default();
            self.ahead.extend(events.iter().filter_map(Event::order));
        }
        let entries = entries.into_iter().take_while(|(pos, _)| *pos <= flushed).map(|(_, entry)| entry);
        let runs = match entries.map(Run::of).collect::<Result<Vec<Run>, _>>() {
            Ok(runs) => runs,
            Err(error) => {
                self.report.differs(format!("{product}: {error}"));
                return Ok(());
            }
        };
        let foreign = foreign_lines(&runs);
        let held = |(order, line): (&OrderId, &Option<Line>)| {
            line.as_ref().map(|line| ((*order, product), line.quantity.get()))
        };
        let held = foreign.iter().filter_map(held).collect();
        match fold(&runs, Ground { held, ..Ground::default() }) {
            Ok(changes) => self.compare(product, changes, foreign).await,
            Err(error) => {
                self.report.differs(format!("{product}: {error}"));
                Ok(())
            }
        }
    }

    /// Snapshot and tail must come to the same state as the whole history.
    async fn snapshot(&mut self, product: ProductId, whole: &Ledger) -> Result<(), StoreError> {
        let stored = self.journal.load(product).await?;
        let Some(snapshot) = stored.snapshot else { return Ok(()) };
        self.report.snapshots += 1;
        let mut ledger = match Ledger::restore(&snapshot) {
            Ok(ledger) => ledger,
            Err(error) => {
                self.report.differs(format!("{product}: {error}"));
                return Ok(());
            }
        };
        drop(snapshot);
        for entry in &stored.entries {
            if let Err(error) = ledger.replay(entry) {
                self.report.differs(format!("{product}: the snapshot does not fit the journal: {error}"));
                return Ok(());
            }
        }
        if ledger.digest() != whole.digest() {
            self.report.differs(format!("{product}: snapshot and tail differ from the whole history"));
        }
        Ok(())
    }

    async fn compare(
        &mut self,
        product: ProductId,
        mut changes: Changes,
        mut foreign: BTreeMap<OrderId, Option<Line>>,
    ) -> Result<(), StoreError> {
        for expected in &changes.stock {
            let found = self.tables.stock().find(product).await?;
            if found.as_ref() != Some(&expected.after) {
                let expected = &expected.after;
                self.report.differs(format!("{product}: stock is {found:?}, expected {expected:?}"));
            }
        }
        let cancelled = changes.cancelled_by.remove(&product).unwrap_or_default();
        self.orders(product, &changes.born, &BTreeMap::from_iter(cancelled)).await?;
        move_foreign(&mut changes, &mut foreign);
        self.foreign(product, &foreign).await
    }

    /// Orders at home here: everything but the lines of other products, whose own history tells how they stand.
    async fn orders(
        &mut self,
        product: ProductId,
        born: &[Born],
        cancelled: &BTreeMap<OrderId, u64>,
    ) -> Result<(), StoreError> {
        for piece in born.chunks(ORDERS_AT_ONCE) {
            self.report.orders += piece.len() as u64;
            self.report.lines += piece.iter().map(|born| born.order.lines.len() as u64).sum::<u64>();
            let ids: Vec<OrderId> = piece.iter().map(|born| born.order.id).collect();
            let found = by_id(self.tables.orders().find_many(&ids).await?);
            self.report.differences.extend(keys::compare(self.tables, piece, cancelled).await?);
            for Born { order: expected, .. } in piece {
                match found.get(&expected.id) {
                    None => self.report.differs(format!("{}: missing from the tables", expected.id)),
                    Some(found) if !agree(expected, found, product) => {
                        self.report.differs(format!("{}: is {found:?}, expected {expected:?}", expected.id));
                    }
                    Some(_) => {}
                }
            }
        }
        Ok(())
    }

    /// Lines here of orders that are at home elsewhere. One without a row was never born; of one that was let go of as *not placed* there
    /// is none.
    async fn foreign(
        &mut self,
        product: ProductId,
        lines: &BTreeMap<OrderId, Option<Line>>,
    ) -> Result<(), StoreError> {
        let ids: Vec<OrderId> = lines.keys().copied().collect();
        for piece in ids.chunks(ORDERS_AT_ONCE) {
            for order in self.tables.orders().find_many(piece).await? {
                let found = order.lines.iter().find(|line| line.product == product);
                let expected = lines.get(&order.id).and_then(Option::as_ref);
                if order.home != product && found != expected {
                    self.report.differs(format!("{}: line is {found:?}, expected {expected:?}", order.id));
                }
            }
        }
        Ok(())
    }
}

fn by_id(orders: Vec<Order>) -> BTreeMap<OrderId, Order> {
    orders.into_iter().map(|order| (order.id, order)).collect()
}

/// A paid order ends with its lines, whichever product's history tells of the last one. Each line is compared for itself.
fn ended_with_its_lines(expected: &Order, found: &Order) -> Order {
    let mut expected = expected.clone();
    if expected.status == OrderStatus::Paid
        && let Some(status) = OrderStatus::of_ended(found.lines.iter().map(|line| line.status))
    {
        expected.status = status;
        expected.version += 1;
        expected.updated_at = expected.updated_at.max(found.updated_at);
    }
    expected
}

/// Whether two views of an order agree in all that its home tells.
fn agree(expected: &Order, found: &Order, home: ProductId) -> bool {
    let expected = &ended_with_its_lines(expected, found);
    let told = |order: &Order| {
        let mut order = order.clone();
        for line in order.lines.iter_mut().filter(|line| line.product != home) {
            line.status = LineStatus::Held;
            // A confirmation may have left fewer.
            line.quantity = Quantity::of_line(1).unwrap_or(line.quantity);
        }
        order
    };
    told(expected) == told(found)
}

/// The lines of orders of several lines, as their holds were taken; nothing in place of one that was let go of since its order was not
/// placed.
fn foreign_lines(runs: &[Run]) -> BTreeMap<OrderId, Option<Line>> {
    let mut lines = BTreeMap::new();
    for Run { entry, events } in runs {
        for (sequence, event) in (entry.first.0..).zip(events) {
            match event {
                Event::Held(held) if held.placing.is_some() => {
                    let line = Line {
                        line: held.line,
                        product: entry.product,
                        quantity: held.quantity,
                        unit_price: held.unit_price,
                        sequence: crate::domain::stock::Sequence(sequence),
                        status: LineStatus::Held,
                    };
                    lines.insert(held.order, Some(line));
                }
                Event::Released(Released { order, cause: Cause::NotPlaced, .. }) => {
                    lines.insert(*order, None);
                }
                _ => {}
            }
        }
    }
    lines
}

/// What the fold says of orders it has not seen born.
fn move_foreign(changes: &mut Changes, lines: &mut BTreeMap<OrderId, Option<Line>>) {
    let mut step = |order: &OrderId, to: LineStatus, quantity: Option<Quantity>| {
        let Some(line) = lines.get_mut(order).and_then(Option::as_mut) else { return };
        let Ok(status) = line.status.moved_to(to) else { return };
        line.status = status;
        line.quantity = quantity.unwrap_or(line.quantity);
    };
    for ((_, Ending::Expired | Ending::Cancelled | Ending::PaymentFailed), orders) in &changes.ended {
        for (order, _) in orders {
            step(order, LineStatus::Released, None);
        }
    }
    for ((_, quantity), orders) in &changes.confirmed {
        for (order, _) in orders {
            step(order, LineStatus::Ordered, Some(*quantity));
        }
    }
    for Moved { order, to: Returning { quantity, whole, why }, .. } in &changes.returned {
        let line = lines.get_mut(order).and_then(Option::as_mut);
        if let Some(line) = line.filter(|line| *whole || line.quantity <= *quantity)
            && let Ok(status) = line.status.came_back(*why)
        {
            line.status = status;
        }
    }
}
