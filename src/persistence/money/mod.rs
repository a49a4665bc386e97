//! How payments and refunds are written: in groups, each one synced transaction that answers everybody in it.
//!
//! A row moves by compare-and-set: whoever claims it raises its version, and only he who knows the version moves it on. Always
//! true: a move that `domain::payment` does not know leaves no trace; what is given back is never more than what was taken,
//! because the refund's row and the payment's sum are written together; this process alone writes, so what it knows of a
//! payment that has not ended need not be read again; and a row that cannot be read is touched by nobody, and fails nobody else's.

mod group;

#[cfg(test)]
mod bench;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use super::StoreError;
use super::approval::Approvals;
use super::delivery::{self, DeliveryReader};
use super::notice::{self, Bell};
use super::payment::{self, PaymentReader};
use super::refund::{self, RefundReader};
use super::sql::{self, Connection, Listed};
use super::store::Store;
use crate::domain::delivery::{Delivery, Reason, ReturnWindow, SoldLine};
use crate::domain::id::{OrderId, PaymentId, RefundId};
use crate::domain::notice::Notice;
use crate::domain::payment::{Approval, IllegalMove, Move, Payment, Refund, RefundState, STANDS_MS};
use crate::domain::stock::{KeyUse, Millis};
use group::{Damage, Group, Wanted};

/// How many payments that have not ended are remembered. Beyond it all are forgotten, and read again when they move.
const REMEMBERED_MAX: usize = 65_536;
/// What cannot be read is looked at again after this: somebody may have mended it.
const DAMAGED_PAUSE_MS: i64 = 3_600_000;
/// Events that are forgotten at a time: whoever writes money waits for no more of them.
pub const SWEEP_MAX: u32 = 256;
/// The longest name of a provider's event that is stored.
pub const EVENT_ID_LEN_MAX: usize = 255;

const DUE_NOW: &str = "update open_payments set due_at_ms = ? where due_at_ms > ?";
const REFUNDS_DUE_NOW: &str = "update refunds set due_at_ms = ? where due_at_ms > ?";
const PUT_OFF: &str = "update open_payments set due_at_ms = ? where payment_id = ?";
const PUT_REFUND_OFF: &str = "update refunds set due_at_ms = ? where id = ?";
const LONG_HEARD: &str =
    "select event_id from webhooks_heard where heard_at_ms < ? order by heard_at_ms limit ?";

static HEARD: LazyLock<Listed> =
    LazyLock::new(|| Listed::new("select event_id from webhooks_heard where event_id in (", "?", ")"));
static HEAR: LazyLock<Listed> =
    LazyLock::new(|| Listed::new("insert into webhooks_heard (event_id, heard_at_ms) values ", "(?, ?)", ""));
static FORGET: LazyLock<Listed> =
    LazyLock::new(|| Listed::new("delete from webhooks_heard where event_id in (", "?", ")"));

/// One question to the rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Puts a payment down as it is, with the time at which somebody else takes it up. Answer: its row, or [`Written::Taken`]
    /// when this attempt or a later one has a row, or when an earlier one makes no room for it.
    Begin(Box<Payment>),
    /// Moves the row. A new `due_at` takes the place of the old one while the payment is open; one that has ended is due no
    /// more. With `give_back` all that was taken and not given back becomes a refund, which is due at once.
    Move { payment: PaymentId, version: u64, step: Move, due_at: Option<Millis> },
    /// Lets go of it until `due_at`. `None`: nobody need take it up; for an open payment the time stays what it was.
    Rest { payment: PaymentId, version: u64, due_at: Option<Millis> },
    /// Takes it up: until `until` nobody else does, and only who knows the new version moves it.
    Claim { payment: PaymentId, version: u64, until: Millis },
    /// Notes that whoever pays is told that it is on its way. The row's version stays, as with a hint. Answer: the row, without that
    /// note if it had ended before.
    TellOpen(PaymentId),
    /// Puts a refund down as it is and adds it to what its payment has given back; lines whose units come back with it have ended.
    /// `sold` are the order's lines, for those that are not put down yet. Answer: its row, the one that stands there when the id
    /// is known, [`Written::TooMuch`], or [`Written::NotMoved`] when the line that it is about has ended.
    Refund(Box<Refund>, Vec<SoldLine>),
    /// Cancels lines that are still in the house, and writes their refund. Answer: its row, [`Written::Before`], or
    /// [`Written::NotMoved`] with a line that stands in the way.
    Cancel(Box<Cancel>),
    /// Sends a delivered line back. Answer: its row, [`Written::AskedBefore`] or [`Written::NotMoved`].
    RequestReturn(Box<RequestReturn>),
    /// Moves a line as the scheduled run does; what comes back has its refund, which is due at once. Answer: its row, or
    /// [`Written::Lost`].
    Deliver(Deliver),
    /// Forgets why the lines of an order shall come back: whoever said so has left.
    ForgetReasons(OrderId),
    MoveRefund {
        refund: RefundId,
        version: u64,
        to: RefundState,
        provider_ref: Option<String>,
        /// Why, where that is not what it was.
        reason: Option<String>,
        /// A new time takes the place of the old one while it is not done.
        due_at: Option<Millis>,
    },
    /// Lets go of it until `due_at`, with the provider's word for why: what that does to the name that it is asked for by is
    /// [`Refund::waits_because`]'s.
    RestRefund { refund: RefundId, version: u64, due_at: Millis, reason: Option<String> },
    /// Takes it up.
    ClaimRefund { refund: RefundId, version: u64, until: Millis },
    /// The provider has something to tell.
    Hint(Hint),
}

/// What the provider has something to tell about. Its event is noted once, and a payment that may still move by it, or has failed,
/// is due now. The row's version stays: whoever walks the payment at this moment is not disturbed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hint {
    pub event: String,
    pub payment: Option<PaymentId>,
    /// The provider's name for the payment. It is kept where none is known, for that is how the payment is found again.
    pub provider_ref: Option<String>,
    /// It is walked at this moment, and looked at once more by whoever walks it.
    pub is_walked: bool,
    /// One that is under way is due now, and so is one that is done: what went back may have come back.
    pub refund: Option<RefundId>,
}

/// Lines to be cancelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cancel {
    /// What paid for the order.
    pub payment: PaymentId,
    /// `None`: all that have not ended.
    pub line: Option<u8>,
    /// The order's lines, for those that are not put down yet: its products are sold a moment before its payment's row says so.
    pub sold: Vec<SoldLine>,
    /// Of the request.
    pub key: Option<[u8; 16]>,
    /// When somebody else takes the refund up.
    pub due_at: Millis,
}

/// A line to be sent back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestReturn {
    pub order: OrderId,
    pub line: u8,
    pub window: ReturnWindow,
    pub reason: Option<Reason>,
    pub key: Option<KeyUse>,
}

/// A line to be moved by the run for this occurrence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deliver {
    pub order: OrderId,
    pub line: u8,
    /// What paid for it, where money is to go back.
    pub payment: Option<PaymentId>,
    pub version: u64,
    pub scheduled: Millis,
}

/// What came of it. Whatever is said here is on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// The payment as it is now.
    Row(Box<Payment>),
    /// The refund as it is now.
    RefundRow(Box<Refund>),
    /// This refund was written before.
    Before(Box<Refund>),
    /// The line as it is now.
    Delivery(Box<Delivery>),
    /// This key has sent this line back before.
    AskedBefore(Box<Delivery>),
    /// Nobody knows why any more.
    Forgotten,
    /// This line is not where it could be moved from.
    NotMoved(Box<Delivery>),
    /// Another row stands in the way of a new attempt: this one.
    Taken(Box<Payment>),
    /// The refund and what was given back before are more than what was taken.
    TooMuch { captured: i64, refunded: i64 },
    /// Somebody else has moved it.
    Lost,
    /// The hint is noted.
    Heard,
    /// The event was noted before.
    Known,
}

/// Why a question was none. Nothing was written for it; the others in its group are not touched by that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotWritten {
    #[error(transparent)]
    IllegalMove(#[from] IllegalMove),
    #[error("not a legal move of a line")]
    IllegalStep(#[from] crate::domain::order::IllegalMove),
    #[error("no such payment")]
    NoSuchPayment,
    #[error("no such refund")]
    NoSuchRefund,
    #[error("no such line was sold")]
    NoSuchDelivery,
    #[error("nothing was taken for the order, or it went back")]
    NotPaid,
    #[error("the row is damaged")]
    Damaged,
    #[error("a refund is in the currency that was taken, and more than nothing unless units alone come back")]
    Amount,
    #[error("the name of an event has at most {EVENT_ID_LEN_MAX} letters")]
    EventId,
}

/// Something that is still to be undone, or to be decided by a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compensation {
    Payment(Box<Payment>),
    Refund(Box<Refund>),
    /// It waits for a second administrator, or has lapsed a moment ago; or two have asked for it, and its refund is not written.
    Approval(Box<Approval>),
}

impl Compensation {
    /// Where it stands in the list: the bytes of its id.
    pub fn place(&self) -> [u8; 16] {
        match self {
            Compensation::Payment(payment) => *payment.id.as_bytes(),
            Compensation::Refund(refund) => *refund.id.as_bytes(),
            Compensation::Approval(approval) => *approval.id.as_bytes(),
        }
    }
}

/// The rows of money and whoever writes them. Cheap to clone.
#[derive(Clone)]
pub struct MoneyBook {
    store: Store,
    /// Payments that have not ended, as their rows are. Whoever writes one takes it out first and puts it back when the write
    /// is certain.
    open: Arc<Mutex<HashMap<PaymentId, Payment>>>,
    /// Rung when buyers are to be written to.
    bell: Bell,
}

impl MoneyBook {
    pub(super) fn new(store: Store, bell: Bell) -> MoneyBook {
        MoneyBook { store, open: Arc::default(), bell }
    }

    pub fn payments(&self) -> PaymentReader {
        PaymentReader { pool: self.store.readers() }
    }

    pub fn refunds(&self) -> RefundReader {
        RefundReader { pool: self.store.readers() }
    }

    pub fn deliveries(&self) -> DeliveryReader {
        DeliveryReader { pool: self.store.readers() }
    }

    /// What takes two administrators.
    pub fn approvals(&self) -> Approvals {
        Approvals { store: self.store.clone() }
    }

    /// Writes a group in one transaction; the answers in the same order, each as if the questions before it had been alone.
    /// All of it is on the disk when this returns. After an error nobody knows, until it is read again.
    pub async fn write_group(
        &self,
        writes: &[Write],
        now: Millis,
    ) -> Result<Vec<Result<Written, NotWritten>>, StoreError> {
        let wanted = Wanted::by(writes);
        let mut transaction = self.store.begin_synced().await?;
        let written = self.in_transaction(&mut transaction, writes, wanted, now).await;
        let (answers, group) = match transaction.end(written).await {
            Ok(written) => written,
            Err(error) => {
                self.known().clear();
                return Err(error);
            }
        };
        if group.has_news_for_buyers() {
            self.bell.ring();
        }
        if group.has_erased() {
            self.store.forget_soon();
        }
        self.remember(group);
        Ok(answers)
    }

    async fn in_transaction(
        &self,
        connection: &mut Connection,
        writes: &[Write],
        wanted: Wanted<'_>,
        now: Millis,
    ) -> Result<(Vec<Result<Written, NotWritten>>, Group), StoreError> {
        let mut group = Group::default();
        let (attempts, orders) = payment::of_orders(connection, &wanted.orders).await?;
        attempts.into_iter().for_each(|found| group.knows(found));
        let mut missing = Vec::new();
        {
            let mut known = self.known();
            for id in wanted.payments {
                match known.remove(&id) {
                    Some(payment) => group.knows(payment),
                    None => missing.push(id),
                }
            }
        }
        let (found, payments) = payment::find_many(connection, &missing).await?;
        found.into_iter().for_each(|found| group.knows(found));
        let (found, refunds) = refund::find_many(connection, &wanted.refunds).await?;
        found.into_iter().for_each(|found| group.knows_refund(found));
        group.leaves_alone(Damage { orders, payments, refunds });
        let mut orders = wanted.deliveries;
        orders.extend(group.orders_of(&wanted.sold_by));
        orders.sort_unstable();
        orders.dedup();
        let (lines, illegible) = delivery::of_orders(connection, &orders).await?;
        lines.into_iter().for_each(|row| group.knows_delivery(row));
        illegible.into_iter().for_each(|row| group.cannot_read(row));
        for event in heard(connection, &wanted.events).await? {
            group.has_heard(event);
        }
        let answers = writes.iter().map(|write| group.write(write, now)).collect();
        payment::replace(connection, &group.changed()).await?;
        refund::replace(connection, &group.changed_refunds()).await?;
        let moved = group.changed_deliveries();
        delivery::replace(connection, &moved).await?;
        let told = moved
            .iter()
            .filter_map(|(before, now)| Notice::of_moved(before.as_ref().map(|row| row.state), now));
        let told: Vec<Notice> = told.collect();
        notice::insert(connection, &told).await?;
        group.is_news_to_buyers(!told.is_empty());
        hear(connection, group.news(), now).await?;
        Ok((answers, group))
    }

    /// Copies the WAL into its file when it has grown, or has what was erased. For whoever writes the groups, between two of them.
    pub async fn checkpoint_if_due(&self) {
        self.store.checkpoint_if_due().await;
    }

    /// Whether why somebody has sent a line back, and should be forgotten, still stands in the WAL, or may.
    pub fn has_former(&self) -> bool {
        self.store.has_former()
    }

    /// At the start: the process that held the claims is dead, so everything that waits is due now.
    pub async fn release_all_leases(&self, now: Millis) -> Result<u64, StoreError> {
        self.known().clear();
        let mut transaction = self.store.begin_synced().await?;
        let released = due_now(&mut transaction, now).await;
        transaction.end(released).await
    }

    /// Up to `most` payments and as many refunds that are due at `now`, the longest due first. One whose row is damaged is put off,
    /// so that it does not stand before the others, and is complained about again when its time has come.
    pub async fn due(&self, now: Millis, most: u32) -> Result<(Vec<Payment>, Vec<Refund>), StoreError> {
        let (payments, damaged) = self.payments().due(now, most).await?;
        let (refunds, damaged_refunds) = self.refunds().due(now, most).await?;
        for (sql, ids) in [(PUT_OFF, damaged), (PUT_REFUND_OFF, damaged_refunds)] {
            for id in ids {
                let later = now.plus(DAMAGED_PAUSE_MS);
                self.store.write_synced(sql::query(sql).bind(later.0).bind(id)).await?;
            }
        }
        Ok((payments, refunds))
    }

    /// Forgets some of the events that were heard before `before`; how many. There may be more where it was [`SWEEP_MAX`].
    pub async fn sweep_heard(&self, before: Millis) -> Result<usize, StoreError> {
        let old = sql::query_scalar(LONG_HEARD).bind(before.0).bind(SWEEP_MAX);
        let old: Vec<String> = old.fetch_all(&self.store.readers()).await?;
        if old.is_empty() {
            return Ok(0);
        }
        let mut transaction = self.store.begin_synced().await?;
        let forgotten = forget(&mut transaction, &old).await;
        transaction.end(forgotten).await?;
        Ok(old.len())
    }

    /// What is still to be undone or decided, in order of [`Compensation::place`], behind `after`: payments that began at
    /// `before` or earlier and have not ended, those that are held for review, refunds that are not done, what waits for a second
    /// administrator, and what had one and is not written.
    pub async fn compensations(
        &self,
        before: Millis,
        after: Option<[u8; 16]>,
        most: u32,
    ) -> Result<Vec<Compensation>, StoreError> {
        let after = after.unwrap_or_default();
        let payments = self.payments().overdue(before, after, most).await?;
        let refunds = self.refunds().undone(after, most).await?;
        let approvals = self.approvals().waiting(before.plus(-STANDS_MS), after, most).await?;
        let payments = payments.into_iter().map(|payment| Compensation::Payment(Box::new(payment)));
        let refunds = refunds.into_iter().map(|refund| Compensation::Refund(Box::new(refund)));
        let approvals = approvals.into_iter().map(|approval| Compensation::Approval(Box::new(approval)));
        let mut all: Vec<Compensation> = payments.chain(refunds).chain(approvals).collect();
        all.sort_by_key(Compensation::place);
        all.truncate(most as usize);
        Ok(all)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<PaymentId, Payment>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, group: Group) {
        let mut known = self.known();
        for payment in group.into_payments().filter(|payment| payment.due_at.is_some()) {
            if known.len() >= REMEMBERED_MAX {
                known.clear();
            }
            known.insert(payment.id, payment);
        }
    }
}

async fn due_now(connection: &mut Connection, now: Millis) -> Result<u64, StoreError> {
    let mut released = 0;
    for sql in [DUE_NOW, REFUNDS_DUE_NOW] {
        let done = sql::query(sql).bind(now.0).bind(now.0).execute(&mut *connection).await?;
        released += done.rows_affected();
    }
    Ok(released)
}

/// Those of these events that were heard before.
async fn heard(connection: &mut Connection, events: &[&str]) -> Result<Vec<String>, StoreError> {
    let mut found = Vec::new();
    for (sql, piece) in HEARD.filled(events) {
        let query = piece.fold(sql::query(sql), |query, event| query.bind(*event));
        for row in query.fetch_all(&mut *connection).await? {
            found.push(row.try_get(0)?);
        }
    }
    Ok(found)
}

async fn hear(connection: &mut Connection, events: &[String], now: Millis) -> Result<(), StoreError> {
    for (sql, piece) in HEAR.cut(events) {
        let query = piece.iter().fold(sql::query(sql), |query, event| query.bind(event).bind(now.0));
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

async fn forget(connection: &mut Connection, events: &[String]) -> Result<(), StoreError> {
    for (sql, piece) in FORGET.cut(events) {
        let query = piece.iter().fold(sql::query(sql), |query, event| query.bind(event));
        query.execute(&mut *connection).await?;
    }
    Ok(())
}
