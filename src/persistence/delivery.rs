//! The `deliveries` rows: every line that was sold, and where it stands on its way. Written by `money` alone, in groups.
//!
//! Always true: a row is made in the transaction that says that its order is paid; money that goes back for a line is written in
//! the transaction that moves it; a row that is damaged holds up no other.

use std::sync::LazyLock;

use futures_util::{Stream, TryStreamExt};

use super::StoreError;
use super::sql::{self, Connection, Damaged, Listed, Pool, Row, legible, signed, sixteen, time, unsigned};
use super::stock::money;
use crate::domain::amount::Quantity;
use crate::domain::delivery::{Delivery, DeliveryState, Reason};
use crate::domain::id::{OrderId, PaymentId, ProductId};
use crate::domain::stock::{KeyUse, Millis};

macro_rules! deliveries {
    ($rest:literal) => {
        concat!(
            "select d.order_id, d.line, d.payment_id, d.product_id, d.quantity, d.amount_minor, d.currency, d.state, \
             d.scheduled_at_ms, d.paid_at_ms, d.shipped_at_ms, d.delivered_at_ms, d.requested_at_ms, d.reason, d.key_hash, \
             d.body_hash, d.version, d.updated_at_ms, d.reason_sealed from deliveries d ",
            $rest
        )
    };
}

const OF_ORDER: &str = deliveries!("where d.order_id = ? order by d.line");
/// Along the index of states. The two comparisons with the order's id are for databases that do not walk an index by a pair.
const DUE: &str = deliveries!(
    "where d.state = ? and d.order_id >= ? and (d.order_id > ? or d.line > ?) and d.scheduled_at_ms < ? \
     and d.paid_at_ms < ? order by d.order_id, d.line limit ?"
);
/// Along the primary key: nothing is sorted.
const BY_ORDER: &str = deliveries!("order by d.order_id, d.line");
const UPDATE: &str = "update deliveries set state = ?, scheduled_at_ms = ?, shipped_at_ms = ?, delivered_at_ms = ?, \
    requested_at_ms = ?, reason = ?, reason_sealed = ?, key_hash = ?, body_hash = ?, version = ?, updated_at_ms = ? \
    where order_id = ? and line = ? and version = ?";

static OF_ORDERS: LazyLock<Listed> =
    LazyLock::new(|| Listed::new(deliveries!("where d.order_id in ("), "?", ") order by d.order_id, d.line"));
static INSERT: LazyLock<Listed> = LazyLock::new(|| {
    let head = "insert into deliveries (order_id, line, payment_id, product_id, quantity, amount_minor, currency, state, \
        scheduled_at_ms, paid_at_ms, shipped_at_ms, delivered_at_ms, requested_at_ms, reason, key_hash, body_hash, version, \
        updated_at_ms, reason_sealed) values ";
    Listed::fine(head, "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", "")
});

/// Where a page ends, in the columns' own terms: a row that cannot be read is a place too.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    order: Vec<u8>,
    line: i64,
}

/// A row that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Illegible {
    /// The order, if that can be read.
    pub order: Option<OrderId>,
    pub line: i64,
    pub why: String,
}

/// One page of what is due.
#[derive(Debug, Default)]
pub struct DuePage {
    pub rows: Vec<Delivery>,
    pub damaged: Vec<Illegible>,
    /// Where the next page begins; `None` behind the last.
    pub next: Option<Place>,
}

/// Reads deliveries. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DeliveryReader {
    pub(super) pool: Pool,
}

impl DeliveryReader {
    /// The lines of an order that can be read, in their order.
    pub async fn of_order(&self, order: OrderId) -> Result<Vec<Delivery>, StoreError> {
        let rows = sql::query(OF_ORDER).bind(&order.as_bytes()[..]).fetch_all(&self.pool).await?;
        Ok(legible(&rows, "a delivery", delivery).0)
    }

    /// The lines of these orders that can be read, in order of order and line.
    pub async fn of_orders(&self, orders: &[OrderId]) -> Result<Vec<Delivery>, StoreError> {
        let mut orders = orders.to_vec();
        orders.sort_unstable();
        orders.dedup();
        let mut connection = self.pool.acquire().await?;
        let (found, damaged) = of_orders(&mut connection, &orders).await?;
        for Illegible { order, line, why } in damaged {
            let order = order.map_or("a line of no order".to_owned(), |order| order.to_string());
            tracing::error!(order, line, why, "the row of a delivery cannot be read");
        }
        Ok(found)
    }

    /// Up to `most` lines in this state behind `after` that no occurrence of `scheduled` or later has moved, and that were paid
    /// before it; in order of order and line.
    pub async fn due(
        &self,
        state: DeliveryState,
        scheduled: Millis,
        after: &Place,
        most: u32,
    ) -> Result<DuePage, StoreError> {
        let query = sql::query(DUE)
            .bind(state.as_str())
            .bind(&after.order)
            .bind(&after.order)
            .bind(after.line)
            .bind(scheduled.0)
            .bind(scheduled.0)
            .bind(most);
        let rows = query.fetch_all(&self.pool).await?;
        let mut page = DuePage::default();
        sort_out(&rows, &mut page.rows, &mut page.damaged);
        if rows.len() == most as usize {
            let place = |row: &Row| Some(Place { order: row.try_get(0).ok()?, line: row.try_get(1).ok()? });
            let next = rows.iter().rev().find_map(place);
            // A whole page without a place to go on from: better no run than one that ends as if there were no more.
            page.next = Some(next.ok_or(Damaged { what: "page of deliveries" })?);
        }
        Ok(page)
    }

    /// Every line, those of an order together.
    pub(super) fn by_order(&self) -> impl Stream<Item = Result<Delivery, StoreError>> + '_ {
        sql::query(BY_ORDER).fetch(&self.pool).map_err(StoreError::from).and_then(async |row| delivery(&row))
    }
}

/// Adds the lines that can be read, and what is known of those that cannot.
fn sort_out(rows: &[Row], found: &mut Vec<Delivery>, damaged: &mut Vec<Illegible>) {
    for row in rows {
        match delivery(row) {
            Ok(one) => found.push(one),
            Err(error) => {
                let order = sixteen(row, 0).ok().map(OrderId::from_bytes);
                let line = row.try_get(1).unwrap_or_default();
                damaged.push(Illegible { order, line, why: error.to_string() });
            }
        }
    }
}

fn delivery(row: &Row) -> Result<Delivery, StoreError> {
    let key: Option<&[u8]> = row.try_get(14)?;
    let key = match key {
        Some(_) => {
            let body: i64 = row.try_get(15)?;
            Some(KeyUse { key: sixteen(row, 14)?, body: body.cast_unsigned() })
        }
        None => None,
    };
    let state = DeliveryState::from_word(row.try_get(7)?).ok_or(Damaged { what: "delivery state" })?;
    Ok(Delivery {
        order: OrderId::from_bytes(sixteen(row, 0)?),
        line: unsigned(row, 1)?,
        payment: PaymentId::from_bytes(sixteen(row, 2)?),
        product: ProductId::from_bytes(sixteen(row, 3)?),
        quantity: Quantity::of_line(unsigned(row, 4)?).ok_or(Damaged { what: "quantity" })?,
        amount: money(row, 5)?,
        state,
        scheduled: Millis(row.try_get(8)?),
        paid_at: Millis(row.try_get(9)?),
        shipped_at: time(row, 10)?,
        delivered_at: time(row, 11)?,
        requested_at: time(row, 12)?,
        // It goes when the line is back; a node of before the second column may have left that behind.
        reason: if state == DeliveryState::ReturnRequested { reason(row)? } else { None },
        key,
        version: unsigned(row, 16)?,
        updated_at: Millis(row.try_get(17)?),
    })
}

fn reason(row: &Row) -> Result<Option<Reason>, StoreError> {
    let sealed: Option<Vec<u8>> = row.try_get(18)?;
    Ok(match sealed {
        Some(sealed) => Some(Reason::Sealed(sealed)),
        None => row.try_get::<Option<String>>(13)?.map(Reason::Plain),
    })
}

/// What stands in the two columns for it, of which one at most says something.
fn in_columns(reason: Option<&Reason>) -> (Option<&str>, Option<&[u8]>) {
    match reason {
        Some(Reason::Plain(words)) => (Some(words), None),
        Some(Reason::Sealed(sealed)) => (None, Some(sealed)),
        None => (None, None),
    }
}

/// The lines of some orders; and which of them cannot be read.
pub(super) async fn of_orders(
    connection: &mut Connection,
    orders: &[OrderId],
) -> Result<(Vec<Delivery>, Vec<Illegible>), StoreError> {
    let (mut found, mut damaged) = (Vec::new(), Vec::new());
    for query in OF_ORDERS.named(orders) {
        sort_out(&query.fetch_all(&mut *connection).await?, &mut found, &mut damaged);
    }
    Ok((found, damaged))
}

/// Brings rows to what they are now; who has none before is new.
pub(super) async fn replace(
    connection: &mut Connection,
    changed: &[(Option<Delivery>, Delivery)],
) -> Result<(), StoreError> {
    let new: Vec<&Delivery> =
        changed.iter().filter(|(before, _)| before.is_none()).map(|(_, now)| now).collect();
    for (sql, piece) in INSERT.cut(&new) {
        let query = piece.iter().fold(sql::query(sql), |query, row| {
            let (plain, sealed) = in_columns(row.reason.as_ref());
            query
                .bind(&row.order.as_bytes()[..])
                .bind(i64::from(row.line))
                .bind(&row.payment.as_bytes()[..])
                .bind(&row.product.as_bytes()[..])
                .bind(i64::from(row.quantity.get()))
                .bind(row.amount.amount)
                .bind(row.amount.currency.as_str())
                .bind(row.state.as_str())
                .bind(row.scheduled.0)
                .bind(row.paid_at.0)
                .bind(row.shipped_at.map(|at| at.0))
                .bind(row.delivered_at.map(|at| at.0))
                .bind(row.requested_at.map(|at| at.0))
                .bind(plain)
                .bind(row.key.as_ref().map(|used| &used.key[..]))
                .bind(row.key.map(|used| used.body.cast_signed()))
                .bind(signed(row.version))
                .bind(row.updated_at.0)
                .bind(sealed)
        });
        query.execute(&mut *connection).await?;
    }
    for (before, row) in changed {
        let Some(before) = before else { continue };
        let (plain, sealed) = in_columns(row.reason.as_ref());
        let query = sql::query(UPDATE)
            .bind(row.state.as_str())
            .bind(row.scheduled.0)
            .bind(row.shipped_at.map(|at| at.0))
            .bind(row.delivered_at.map(|at| at.0))
            .bind(row.requested_at.map(|at| at.0))
            .bind(plain)
            .bind(sealed)
            .bind(row.key.as_ref().map(|used| &used.key[..]))
            .bind(row.key.map(|used| used.body.cast_signed()))
            .bind(signed(row.version))
            .bind(row.updated_at.0)
            .bind(&row.order.as_bytes()[..])
            .bind(i64::from(row.line))
            .bind(signed(before.version));
        if query.execute(&mut *connection).await?.rows_affected() != 1 {
            return Err(Damaged { what: "delivery: it is not what was read a moment ago" }.into());
        }
    }
    Ok(())
}
