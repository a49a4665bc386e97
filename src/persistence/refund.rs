//! The `refunds` rows: money on its way back, each written together with what its payment's row says of it.
//!
//! Always true: a refund that is not done has a time at which somebody takes it up; one that is done has none, unless the provider
//! has news of it. Rows are written by `money` alone, in groups.

use std::sync::LazyLock;

use futures_util::{Stream, TryStreamExt};

use super::StoreError;
use super::sql::{self, Connection, Damaged, Listed, Pool, Row, legible, signed, sixteen, unsigned};
use super::stock::money;
use crate::domain::id::{OrderId, PaymentId, RefundId};
use crate::domain::payment::{Cause, Refund, RefundState, Restock};
use crate::domain::stock::Millis;

macro_rules! refunds {
    ($rest:literal) => {
        concat!(
            "select r.id, r.payment_id, r.order_id, r.cause, r.line, r.key_hash, r.amount_minor, r.currency, r.restock, \
             r.state, r.reason, r.provider_ref, r.tries, r.due_at_ms, r.version, r.created_at_ms, r.updated_at_ms, r.body_hash, \
             r.made_anew from ",
            $rest
        )
    };
}

const FIND: &str = refunds!("refunds r where r.id = ?");
const OF_ORDER: &str = refunds!("refunds r where r.order_id = ? order by r.created_at_ms, r.id");
const OF_PAYMENT: &str = refunds!(
    "payments p cross join refunds r on r.order_id = p.order_id and r.payment_id = p.id \
     where p.id = ? order by r.created_at_ms, r.id"
);
const DUE: &str = refunds!("refunds r where r.due_at_ms <= ? order by r.due_at_ms, r.id limit ?");
const WAITING: &str = refunds!(
    "refunds r where r.due_at_ms is not null and r.state <> 'done' and r.id > ? order by r.id limit ?"
);
const ALL: &str = refunds!("refunds r order by r.id");
/// Along the index of orders: nothing is sorted.
const BY_ORDER: &str = refunds!("refunds r order by r.order_id, r.id");
const NEXT: &str = "select min(due_at_ms) from refunds where due_at_ms is not null";
const COUNT: &str =
    "select count(*), min(created_at_ms) from refunds where due_at_ms is not null and state <> 'done'";

static FIND_MANY: LazyLock<Listed> =
    LazyLock::new(|| Listed::new(refunds!("refunds r where r.id in ("), "?", ")"));
static OF_ORDERS: LazyLock<Listed> = LazyLock::new(|| {
    Listed::new(refunds!("refunds r where r.order_id in ("), "?", ") order by r.order_id, r.id")
});
static INSERT: LazyLock<Listed> = LazyLock::new(|| {
    let head = "insert into refunds (id, payment_id, order_id, cause, line, key_hash, amount_minor, currency, restock, \
        state, reason, provider_ref, tries, due_at_ms, version, created_at_ms, updated_at_ms, body_hash, \
        made_anew) values ";
    Listed::new(head, "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", "")
});
static DELETE: LazyLock<Listed> =
    LazyLock::new(|| Listed::new("delete from refunds where id in (", "?", ")"));

/// Reads refunds. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RefundReader {
    pub(super) pool: Pool,
}

impl RefundReader {
    pub async fn find(&self, id: RefundId) -> Result<Option<Refund>, StoreError> {
        let row = sql::query(FIND).bind(&id.as_bytes()[..]).fetch_optional(&self.pool).await?;
        row.as_ref().map(refund).transpose()
    }

    /// Those of an order, oldest first.
    pub async fn of_order(&self, order: OrderId) -> Result<Vec<Refund>, StoreError> {
        let rows = sql::query(OF_ORDER).bind(&order.as_bytes()[..]).fetch_all(&self.pool).await?;
        rows.iter().map(refund).collect()
    }

    /// Those of a payment that can be read, oldest first.
    pub async fn of_payment(&self, payment: PaymentId) -> Result<Vec<Refund>, StoreError> {
        let rows = sql::query(OF_PAYMENT).bind(&payment.as_bytes()[..]).fetch_all(&self.pool).await?;
        Ok(legible(&rows, "a refund", refund).0)
    }

    /// Those of these orders, in order of order.
    pub async fn of_orders(&self, orders: &[OrderId]) -> Result<Vec<Refund>, StoreError> {
        let mut orders = orders.to_vec();
        orders.sort_unstable();
        orders.dedup();
        let mut found = Vec::new();
        for query in OF_ORDERS.named(&orders) {
            for row in query.fetch_all(&self.pool).await? {
                found.push(refund(&row)?);
            }
        }
        Ok(found)
    }

    /// Those of `ids` that there are.
    pub async fn find_many(&self, ids: &[RefundId]) -> Result<Vec<Refund>, StoreError> {
        let mut connection = self.pool.acquire().await?;
        let (found, damaged) = find_many(&mut connection, ids).await?;
        if damaged.is_empty() { Ok(found) } else { Err(Damaged { what: "refund" }.into()) }
    }

    /// Up to `most` that are due at `now`, the longest due first; and the ids of those whose rows are damaged.
    pub(super) async fn due(
        &self,
        now: Millis,
        most: u32,
    ) -> Result<(Vec<Refund>, Vec<Vec<u8>>), StoreError> {
        let rows = sql::query(DUE).bind(now.0).bind(most).fetch_all(&self.pool).await?;
        Ok(legible(&rows, "a refund", refund))
    }

    /// When the next one is due.
    pub async fn next_due(&self) -> Result<Option<Millis>, StoreError> {
        let at: Option<i64> = sql::query_scalar(NEXT).fetch_one(&self.pool).await?;
        Ok(at.map(Millis))
    }

    /// How many are not done, and since when the oldest of them waits.
    pub async fn waiting(&self) -> Result<(u64, Option<Millis>), StoreError> {
        let row = sql::query(COUNT).fetch_one(&self.pool).await?;
        let oldest: Option<i64> = row.try_get(1)?;
        Ok((unsigned(&row, 0)?, oldest.map(Millis)))
    }

    /// Those that are not done: a page of them behind `after`, in order of id.
    pub async fn undone(&self, after: [u8; 16], most: u32) -> Result<Vec<Refund>, StoreError> {
        let rows = sql::query(WAITING).bind(&after[..]).bind(most).fetch_all(&self.pool).await?;
        Ok(legible(&rows, "a refund", refund).0)
    }

    /// Every refund, in order of id.
    pub fn all(&self) -> impl Stream<Item = Result<Refund, StoreError>> + '_ {
        sql::query(ALL).fetch(&self.pool).map_err(StoreError::from).and_then(async |row| refund(&row))
    }

    /// Every refund, those of an order together.
    pub(super) fn by_order(&self) -> impl Stream<Item = Result<Refund, StoreError>> + '_ {
        sql::query(BY_ORDER).fetch(&self.pool).map_err(StoreError::from).and_then(async |row| refund(&row))
    }
}

fn cause(row: &Row) -> Result<Cause, StoreError> {
    let word: &str = row.try_get(3)?;
    Ok(match word {
        "order_cancelled" => Cause::OrderCancelled,
        "late" => Cause::Late,
        "line" => Cause::Line(unsigned(row, 4)?),
        "line_taken_back" => Cause::LineTakenBack(unsigned(row, 4)?),
        "line_cancelled" => Cause::LineCancelled(unsigned(row, 4)?),
        "line_returned" => Cause::LineReturned(unsigned(row, 4)?),
        "clerk" => Cause::Clerk(key(row)?.ok_or(Damaged { what: "key of a refund" })?),
        _ => return Err(Damaged { what: "cause of a refund" }.into()),
    })
}

fn key(row: &Row) -> Result<Option<[u8; 16]>, StoreError> {
    let key: Option<&[u8]> = row.try_get(5)?;
    key.map(|_| sixteen(row, 5)).transpose()
}

fn refund(row: &Row) -> Result<Refund, StoreError> {
    let (due_at, body): (Option<i64>, Option<i64>) = (row.try_get(13)?, row.try_get(17)?);
    Ok(Refund {
        id: RefundId::from_bytes(sixteen(row, 0)?),
        payment: PaymentId::from_bytes(sixteen(row, 1)?),
        order: OrderId::from_bytes(sixteen(row, 2)?),
        cause: cause(row)?,
        key: key(row)?,
        amount: money(row, 6)?,
        restock: Restock::from_word(row.try_get(8)?).ok_or(Damaged { what: "restock of a refund" })?,
        state: RefundState::from_word(row.try_get(9)?).ok_or(Damaged { what: "refund state" })?,
        reason: row.try_get(10)?,
        provider_ref: row.try_get(11)?,
        tries: unsigned(row, 12)?,
        due_at: due_at.map(Millis),
        version: unsigned(row, 14)?,
        created_at: Millis(row.try_get(15)?),
        updated_at: Millis(row.try_get(16)?),
        body: body.map(i64::cast_unsigned),
        made_anew: unsigned(row, 18)?,
    })
}

/// Those of `ids` that have rows; and which of them cannot be read.
pub(super) async fn find_many(
    connection: &mut Connection,
    ids: &[RefundId],
) -> Result<(Vec<Refund>, Vec<RefundId>), StoreError> {
    let (mut found, mut damaged) = (Vec::new(), Vec::new());
    for query in FIND_MANY.named(ids) {
        for row in query.fetch_all(&mut *connection).await? {
            match refund(&row) {
                Ok(one) => found.push(one),
                Err(error) => {
                    let id = RefundId::from_bytes(sixteen(&row, 0)?);
                    tracing::error!(refund = %id, %error, "the row of {id} cannot be read");
                    damaged.push(id);
                }
            }
        }
    }
    Ok((found, damaged))
}

/// Puts rows in the place of those they came from; whoever has none before is new.
pub(super) async fn replace(
    connection: &mut Connection,
    changed: &[(Option<Refund>, Refund)],
) -> Result<(), StoreError> {
    let old: Vec<RefundId> =
        changed.iter().filter(|(before, _)| before.is_some()).map(|(_, now)| now.id).collect();
    for query in DELETE.named(&old) {
        query.execute(&mut *connection).await?;
    }
    for (sql, piece) in INSERT.cut(changed) {
        let query = piece.iter().fold(sql::query(sql), |query, (_, refund)| {
            let line = refund.cause.line().map(i64::from);
            let key = if let Cause::Clerk(key) = &refund.cause { Some(key) } else { refund.key.as_ref() };
            query
                .bind(&refund.id.as_bytes()[..])
                .bind(&refund.payment.as_bytes()[..])
                .bind(&refund.order.as_bytes()[..])
                .bind(refund.cause.as_str())
                .bind(line)
                .bind(key.map(|key| &key[..]))
                .bind(refund.amount.amount)
                .bind(refund.amount.currency.as_str())
                .bind(refund.restock.as_str())
                .bind(refund.state.as_str())
                .bind(&refund.reason)
                .bind(&refund.provider_ref)
                .bind(i64::from(refund.tries))
                .bind(refund.due_at.map(|at| at.0))
                .bind(signed(refund.version))
                .bind(refund.created_at.0)
                .bind(refund.updated_at.0)
                .bind(refund.body.map(u64::cast_signed))
                .bind(i64::from(refund.made_anew))
        });
        query.execute(&mut *connection).await?;
    }
    Ok(())
}
