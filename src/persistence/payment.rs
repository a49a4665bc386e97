//! The `payments` rows, and `open_payments`: those that somebody still has to look at, and when.
//!
//! A payment's row stays for ever; its entry in `open_payments` goes when nothing is left to do, so that what is due, what
//! waits and for how long is found among the few that have not ended. Rows are written by `money` alone, in groups.

use std::sync::LazyLock;

use futures_util::{Stream, TryStreamExt};

use super::StoreError;
use super::sql::{self, Connection, Damaged, Listed, Pool, Query, Row, legible, signed, sixteen, unsigned};
use super::stock::{currency, money};
use crate::domain::id::{OrderId, PaymentId, UserId};
use crate::domain::payment::{Method, Payment, PaymentState};
use crate::domain::stock::{Attempt, KeyUse, Millis};

macro_rules! payments {
    ($rest:literal) => {
        concat!(
            "select p.id, p.order_id, p.attempt, p.buyer_id, p.amount_minor, p.currency, p.token, p.state, p.reason, \
             p.provider_ref, p.captured_minor, p.refunded_minor, p.key_hash, p.body_hash, p.tries, p.version, \
             p.created_at_ms, p.updated_at_ms, p.captured_currency, o.due_at_ms, p.told_open from ",
            $rest
        )
    };
}

const FIND: &str = payments!("payments p left join open_payments o on o.payment_id = p.id where p.id = ?");
const OF_ORDER: &str = payments!(
    "payments p left join open_payments o on o.payment_id = p.id where p.order_id = ? order by p.attempt desc"
);
/// `cross join`: in the order in which it is written.
const DUE: &str = payments!(
    "open_payments o cross join payments p on p.id = o.payment_id where o.due_at_ms <= ? order by o.due_at_ms, o.payment_id limit ?"
);
const ALL: &str = payments!("payments p left join open_payments o on o.payment_id = p.id order by p.id");
/// Along the index of attempts: nothing is sorted.
const BY_ORDER: &str =
    payments!("payments p left join open_payments o on o.payment_id = p.id order by p.order_id, p.attempt");
const WAITING: &str = payments!(
    "open_payments o cross join payments p on p.id = o.payment_id \
     where o.payment_id > ? and (p.created_at_ms <= ? or p.state = 'review') order by o.payment_id limit ?"
);
const UNLISTED: &str = "select p.id from payments p left join open_payments o on o.payment_id = p.id \
    where p.state in ('started', 'unknown', 'captured', 'review') \
    and (o.payment_id is null or (p.state <> 'review' and o.due_at_ms is null))";
const LISTED_IN_VAIN: &str = "select o.payment_id from open_payments o left join payments p on p.id = o.payment_id \
    where p.id is null or p.state in ('paid', 'orphaned')";
const NEXT: &str = "select min(due_at_ms) from open_payments";
const FIRST: &str = "select min(created_at_ms) from payments";
const COUNT: &str = "select p.state, count(*), min(p.created_at_ms), min(p.updated_at_ms), \
    cast(sum(case when p.updated_at_ms <= ? then 1 else 0 end) as signed) \
    from open_payments o cross join payments p on p.id = o.payment_id group by p.state";

static FIND_MANY: LazyLock<Listed> = LazyLock::new(|| {
    let head = payments!("payments p left join open_payments o on o.payment_id = p.id where p.id in (");
    Listed::new(head, "?", ")")
});
static OF_ORDERS: LazyLock<Listed> = LazyLock::new(|| {
    let head = payments!("payments p left join open_payments o on o.payment_id = p.id where p.order_id in (");
    Listed::new(head, "?", ") order by p.order_id, p.attempt")
});
macro_rules! columns {
    ($verb:literal) => {
        concat!(
            $verb,
            " into payments (id, order_id, attempt, buyer_id, amount_minor, currency, token, state, reason, provider_ref, \
             captured_minor, refunded_minor, key_hash, body_hash, tries, version, created_at_ms, updated_at_ms, \
             captured_currency, told_open) values "
        )
    };
}

const ROW: &str = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

static INSERT: LazyLock<Listed> = LazyLock::new(|| Listed::fine(columns!("insert"), ROW, ""));
static REPLACE: LazyLock<Listed> = LazyLock::new(|| Listed::fine(columns!("replace"), ROW, ""));
static OPEN: LazyLock<Listed> =
    LazyLock::new(|| Listed::fine("insert into open_payments (payment_id, due_at_ms) values ", "(?, ?)", ""));
static CLOSE: LazyLock<Listed> =
    LazyLock::new(|| Listed::new("delete from open_payments where payment_id in (", "?", ")"));

/// The payments in one state that somebody still has to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    pub state: PaymentState,
    pub count: u64,
    /// When the oldest of them began.
    pub begun: Millis,
    /// Since when the longest has been in this state.
    pub since: Millis,
    /// How many have been in it since before the time that was asked about.
    pub late: u64,
}

/// Reads payments. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PaymentReader {
    pub(super) pool: Pool,
}

impl PaymentReader {
    pub async fn find(&self, id: PaymentId) -> Result<Option<Payment>, StoreError> {
        let row = sql::query(FIND).bind(&id.as_bytes()[..]).fetch_optional(&self.pool).await?;
        row.as_ref().map(payment).transpose()
    }

    /// All attempts to pay an order, newest first.
    pub async fn of_order(&self, order: OrderId) -> Result<Vec<Payment>, StoreError> {
        let rows = sql::query(OF_ORDER).bind(&order.as_bytes()[..]).fetch_all(&self.pool).await?;
        rows.iter().map(payment).collect()
    }

    /// The newest attempt of each of these orders that has one, in order of order; none of an order of which one cannot be read: that
    /// may be the newest. For whoever shows them: nobody decides upon it.
    pub async fn newest_of(&self, orders: &[OrderId]) -> Result<Vec<Payment>, StoreError> {
        let (attempts, damaged) = self.legible_of(orders).await?;
        let mut newest: Vec<Payment> = Vec::new();
        // Attempts of one order come in order of their number.
        for payment in attempts.into_iter().filter(|one| !damaged.contains(&one.order)) {
            newest.pop_if(|before| before.order == payment.order);
            newest.push(payment);
        }
        Ok(newest)
    }

    /// All attempts to pay these orders, in order of order and attempt.
    pub async fn of_orders(&self, orders: &[OrderId]) -> Result<Vec<Payment>, StoreError> {
        let (found, damaged) = self.legible_of(orders).await?;
        all_of(found, &damaged)
    }

    async fn legible_of(&self, orders: &[OrderId]) -> Result<(Vec<Payment>, Vec<OrderId>), StoreError> {
        if orders.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        let mut orders = orders.to_vec();
        orders.sort_unstable();
        orders.dedup();
        let mut connection = self.pool.acquire().await?;
        of_orders(&mut connection, &orders).await
    }

    /// Those of `ids` that there are.
    pub async fn find_many(&self, ids: &[PaymentId]) -> Result<Vec<Payment>, StoreError> {
        let mut connection = self.pool.acquire().await?;
        let (found, damaged) = find_many(&mut connection, ids).await?;
        all_of(found, &damaged)
    }

    /// Up to `most` that are due at `now`, the longest due first; and the ids of those whose rows are damaged.
    pub(super) async fn due(
        &self,
        now: Millis,
        most: u32,
    ) -> Result<(Vec<Payment>, Vec<Vec<u8>>), StoreError> {
        let rows = sql::query(DUE).bind(now.0).bind(most).fetch_all(&self.pool).await?;
        Ok(legible(&rows, "a payment", payment))
    }

    /// When the next one is due.
    pub async fn next_due(&self) -> Result<Option<Millis>, StoreError> {
        let at: Option<i64> = sql::query_scalar(NEXT).fetch_one(&self.pool).await?;
        Ok(at.map(Millis))
    }

    /// How many wait in each state. `late` counts those that have not moved since `before`.
    pub async fn waiting(&self, before: Millis) -> Result<Vec<Waiting>, StoreError> {
        let rows = sql::query(COUNT).bind(before.0).fetch_all(&self.pool).await?;
        let waiting = rows.iter().map(|row| {
            Ok(Waiting {
                state: state(row, 0)?,
                count: unsigned(row, 1)?,
                begun: Millis(row.try_get(2)?),
                since: Millis(row.try_get(3)?),
                late: unsigned(row, 4)?,
            })
        });
        waiting.collect()
    }

    /// Those that began at `before` or earlier and have not ended, and all that are held for review: a page of them behind
    /// `after`, in order of id.
    pub async fn overdue(
        &self,
        before: Millis,
        after: [u8; 16],
        most: u32,
    ) -> Result<Vec<Payment>, StoreError> {
        let query = sql::query(WAITING).bind(&after[..]).bind(before.0).bind(most);
        Ok(legible(&query.fetch_all(&self.pool).await?, "a payment", payment).0)
    }

    /// Every payment, in order of id.
    pub fn all(&self) -> impl Stream<Item = Result<Payment, StoreError>> + '_ {
        sql::query(ALL).fetch(&self.pool).map_err(StoreError::from).and_then(async |row| payment(&row))
    }
}

/// For the audit.
impl PaymentReader {
    /// Every payment, those of an order together.
    pub(super) fn by_order(&self) -> impl Stream<Item = Result<Payment, StoreError>> + '_ {
        sql::query(BY_ORDER).fetch(&self.pool).map_err(StoreError::from).and_then(async |row| payment(&row))
    }

    /// When the first of all began.
    pub async fn first_at(&self) -> Result<Option<Millis>, StoreError> {
        let at: Option<i64> = sql::query_scalar(FIRST).fetch_one(&self.pool).await?;
        Ok(at.map(Millis))
    }

    /// Those that somebody has to look at, and that nobody would find.
    pub(super) async fn unlisted(&self) -> Result<Vec<PaymentId>, StoreError> {
        self.ids(UNLISTED).await
    }

    /// What is listed though there is nothing left to do about it, or no such payment.
    pub(super) async fn listed_in_vain(&self) -> Result<Vec<PaymentId>, StoreError> {
        self.ids(LISTED_IN_VAIN).await
    }

    async fn ids(&self, sql: &'static str) -> Result<Vec<PaymentId>, StoreError> {
        let rows = sql::query(sql).fetch_all(&self.pool).await?;
        rows.iter().map(|row| Ok(PaymentId::from_bytes(sixteen(row, 0)?))).collect()
    }
}

fn state(row: &Row, column: usize) -> Result<PaymentState, StoreError> {
    Ok(PaymentState::from_word(row.try_get(column)?).ok_or(Damaged { what: "payment state" })?)
}

fn payment(row: &Row) -> Result<Payment, StoreError> {
    let attempt = Attempt::new(unsigned(row, 2)?).ok_or(Damaged { what: "attempt" })?;
    let token: Option<&str> = row.try_get(6)?;
    let method = token.map(|token| Method::card(token).map_err(|_| Damaged { what: "means of payment" }));
    let key: Option<&[u8]> = row.try_get(12)?;
    let key = match key {
        Some(_) => {
            let body: i64 = row.try_get(13)?;
            Some(KeyUse { key: sixteen(row, 12)?, body: body.cast_unsigned() })
        }
        None => None,
    };
    let due_at: Option<i64> = row.try_get(19)?;
    let told_open: i64 = row.try_get(20)?;
    Ok(Payment {
        id: PaymentId::from_bytes(sixteen(row, 0)?),
        order: OrderId::from_bytes(sixteen(row, 1)?),
        attempt,
        buyer: UserId::from_bytes(sixteen(row, 3)?),
        amount: money(row, 4)?,
        method: method.transpose()?,
        state: state(row, 7)?,
        reason: row.try_get(8)?,
        provider_ref: row.try_get(9)?,
        captured: row.try_get(10)?,
        captured_in: currency(row, 18)?,
        refunded: row.try_get(11)?,
        key,
        told_open: told_open != 0,
        tries: unsigned(row, 14)?,
        due_at: due_at.map(Millis),
        version: unsigned(row, 15)?,
        created_at: Millis(row.try_get(16)?),
        updated_at: Millis(row.try_get(17)?),
    })
}

/// Whether it has an entry in `open_payments`.
fn is_listed(payment: &Payment) -> bool {
    payment.due_at.is_some() || payment.state == PaymentState::Review
}

/// For whom less than all of them is nothing.
fn all_of<D>(found: Vec<Payment>, damaged: &[D]) -> Result<Vec<Payment>, StoreError> {
    if damaged.is_empty() { Ok(found) } else { Err(Damaged { what: "payment" }.into()) }
}

/// Those of `ids` that have rows; and which of them cannot be read.
pub(super) async fn find_many(
    connection: &mut Connection,
    ids: &[PaymentId],
) -> Result<(Vec<Payment>, Vec<PaymentId>), StoreError> {
    let (mut found, mut damaged) = (Vec::new(), Vec::new());
    for query in FIND_MANY.named(ids) {
        for row in query.fetch_all(&mut *connection).await? {
            match payment(&row) {
                Ok(one) => found.push(one),
                Err(error) => {
                    let id = PaymentId::from_bytes(sixteen(&row, 0)?);
                    tracing::error!(payment = %id, %error, "the row of {id} cannot be read");
                    damaged.push(id);
                }
            }
        }
    }
    Ok((found, damaged))
}

/// All attempts to pay some orders; a piece of them comes in order of order and attempt. And the orders of those that cannot be read.
pub(super) async fn of_orders(
    connection: &mut Connection,
    orders: &[OrderId],
) -> Result<(Vec<Payment>, Vec<OrderId>), StoreError> {
    let (mut found, mut damaged) = (Vec::new(), Vec::new());
    for query in OF_ORDERS.named(orders) {
        for row in query.fetch_all(&mut *connection).await? {
            match payment(&row) {
                Ok(one) => found.push(one),
                Err(error) => {
                    let order = OrderId::from_bytes(sixteen(&row, 1)?);
                    tracing::error!(%order, %error, "the row of a payment of {order} cannot be read");
                    damaged.push(order);
                }
            }
        }
    }
    Ok((found, damaged))
}

/// Puts rows in the place of those they came from; whoever has none before is new. A row that changes goes and comes back: one
/// statement for many rows, where an update each would cost as many as there are rows.
pub(super) async fn replace(
    connection: &mut Connection,
    changed: &[(Option<Payment>, Payment)],
) -> Result<(), StoreError> {
    let (old, new): (Vec<_>, Vec<_>) = changed.iter().partition(|(before, _)| before.is_some());
    for (sql, piece) in INSERT.cut(&new) {
        rows(sql, piece.iter().copied()).execute(&mut *connection).await?;
    }
    for (sql, piece) in REPLACE.filled(&old) {
        rows(sql, piece.copied()).execute(&mut *connection).await?;
    }
    list(connection, changed).await
}

fn rows<'p>(sql: &'static str, piece: impl Iterator<Item = &'p (Option<Payment>, Payment)>) -> Query<'p> {
    piece.fold(sql::query(sql), |query, (_, payment)| {
        query
            .bind(&payment.id.as_bytes()[..])
            .bind(&payment.order.as_bytes()[..])
            .bind(i64::from(payment.attempt.get()))
            .bind(&payment.buyer.as_bytes()[..])
            .bind(payment.amount.amount)
            .bind(payment.amount.currency.as_str())
            .bind(payment.method.as_ref().map(Method::token))
            .bind(payment.state.as_str())
            .bind(&payment.reason)
            .bind(&payment.provider_ref)
            .bind(payment.captured)
            .bind(payment.refunded)
            .bind(payment.key.as_ref().map(|used| &used.key[..]))
            .bind(payment.key.map(|used| used.body.cast_signed()))
            .bind(i64::from(payment.tries))
            .bind(signed(payment.version))
            .bind(payment.created_at.0)
            .bind(payment.updated_at.0)
            .bind(payment.captured_in.as_str())
            .bind(i64::from(payment.told_open))
    })
}

/// Brings `open_payments` up to date.
async fn list(connection: &mut Connection, changed: &[(Option<Payment>, Payment)]) -> Result<(), StoreError> {
    let (mut gone, mut come) = (Vec::new(), Vec::new());
    for (before, now) in changed {
        let before = before.as_ref().filter(|before| is_listed(before));
        let listed = is_listed(now);
        if listed && before.is_some_and(|before| before.due_at == now.due_at) {
            continue;
        }
        if before.is_some() {
            gone.push(now.id);
        }
        if listed {
            come.push(now);
        }
    }
    for query in CLOSE.named(&gone) {
        query.execute(&mut *connection).await?;
    }
    for (sql, piece) in OPEN.cut(&come) {
        let query = piece.iter().fold(sql::query(sql), |query, payment| {
            query.bind(&payment.id.as_bytes()[..]).bind(payment.due_at.map(|at| at.0))
        });
        query.execute(&mut *connection).await?;
    }
    Ok(())
}
