//! The `stock` rows: each product's counters and settings, as far as they have been flushed.
//!
//! A row is a copy of its owner's ledger at `sequence`, which is also the product's own flush checkpoint: it moves
//! only from the sequence it stands at.

use std::sync::LazyLock;

use super::StoreError;
use super::sql::{self, Connection, Damaged, Listed, Pool, Query, Row, signed, sixteen, time, unsigned};
use crate::domain::amount::{Currency, Money};
use crate::domain::id::ProductId;
use crate::domain::stock::{ChainHash, Counts, Millis, Sequence, Settings};

/// A product's stock at one sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stock {
    pub product: ProductId,
    pub sequence: Sequence,
    pub hash: ChainHash,
    pub counts: Counts,
    pub settings: Settings,
    pub paused: bool,
    pub archived: bool,
    pub updated_at: Millis,
}

macro_rules! columns {
    () => {
        "product_id, sequence, hash, on_hand, held, sold, price_minor, currency, opens_at_ms, closes_at_ms, \
         per_customer_limit, hold_ms, paused, archived, updated_at_ms"
    };
}

const FIND: &str = concat!("select ", columns!(), " from stock where product_id = ?");
const INSERT: &str =
    concat!("insert into stock (", columns!(), ") values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
const UPDATE: &str = "update stock set sequence = ?, hash = ?, on_hand = ?, held = ?, sold = ?, price_minor = ?, \
    currency = ?, opens_at_ms = ?, closes_at_ms = ?, per_customer_limit = ?, hold_ms = ?, paused = ?, archived = ?, \
    updated_at_ms = ? where product_id = ? and sequence = ?";
static FIND_MANY: LazyLock<Listed> = LazyLock::new(|| {
    Listed::new(concat!("select ", columns!(), " from stock where product_id in ("), "?", ")")
});

/// Reads stock rows. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StockReader {
    pub(super) pool: Pool,
}

impl StockReader {
    /// A copy, at most one flush old.
    pub async fn find(&self, product: ProductId) -> Result<Option<Stock>, StoreError> {
        let row = sql::query(FIND).bind(&product.as_bytes()[..]).fetch_optional(&self.pool).await?;
        row.as_ref().map(|row| stock(row, 0)).transpose()
    }
}

/// The rows of some products, as the flush finds them before it begins.
pub(super) async fn find_many(
    connection: &mut Connection,
    products: &[ProductId],
) -> Result<Vec<Stock>, StoreError> {
    let mut found = Vec::with_capacity(products.len());
    for query in FIND_MANY.named(products) {
        for row in query.fetch_all(&mut *connection).await? {
            found.push(stock(&row, 0)?);
        }
    }
    Ok(found)
}

/// A product's first row. A row that is there already is a unique violation.
pub(super) async fn insert(connection: &mut Connection, stock: &Stock) -> Result<(), StoreError> {
    values(sql::query(INSERT).bind(&stock.product.as_bytes()[..]), stock).execute(connection).await?;
    Ok(())
}

/// Moves the row on from `before`; false if it does not stand there.
pub(super) async fn update(
    connection: &mut Connection,
    before: Sequence,
    stock: &Stock,
) -> Result<bool, StoreError> {
    let done = values(sql::query(UPDATE), stock)
        .bind(&stock.product.as_bytes()[..])
        .bind(signed(before.0))
        .execute(connection)
        .await?;
    Ok(done.rows_affected() == 1)
}

fn values<'q>(query: Query<'q>, stock: &'q Stock) -> Query<'q> {
    let Stock { counts, settings, .. } = stock;
    query
        .bind(signed(stock.sequence.0))
        .bind(&stock.hash.0[..])
        .bind(signed(counts.on_hand))
        .bind(signed(counts.held))
        .bind(signed(counts.sold))
        .bind(settings.price.amount)
        .bind(settings.price.currency.as_str())
        .bind(settings.opens_at.map(|at| at.0))
        .bind(settings.closes_at.map(|at| at.0))
        .bind(settings.per_customer_limit.map(i64::from))
        .bind(i64::from(settings.hold_ms))
        .bind(i64::from(stock.paused))
        .bind(i64::from(stock.archived))
        .bind(stock.updated_at.0)
}

/// Reads the columns of a stock row, the first of which is number `at`.
pub(super) fn stock(row: &Row, at: usize) -> Result<Stock, StoreError> {
    let limit: Option<i64> = row.try_get(at + 10)?;
    let limit = limit.map(u32::try_from).transpose().map_err(|_| Damaged { what: "limit" })?;
    Ok(Stock {
        product: ProductId::from_bytes(sixteen(row, at)?),
        sequence: Sequence(unsigned(row, at + 1)?),
        hash: ChainHash(sixteen(row, at + 2)?),
        counts: Counts {
            on_hand: unsigned(row, at + 3)?,
            held: unsigned(row, at + 4)?,
            sold: unsigned(row, at + 5)?,
        },
        settings: Settings {
            price: money(row, at + 6)?,
            opens_at: time(row, at + 8)?,
            closes_at: time(row, at + 9)?,
            per_customer_limit: limit,
            hold_ms: unsigned(row, at + 11)?,
        },
        paused: row.try_get::<i64>(at + 12)? != 0,
        archived: row.try_get::<i64>(at + 13)? != 0,
        updated_at: Millis(row.try_get(at + 14)?),
    })
}

/// An amount and the currency in the column behind it.
pub(super) fn money(row: &Row, at: usize) -> Result<Money, StoreError> {
    Ok(Money { amount: row.try_get(at)?, currency: currency(row, at + 1)? })
}

pub(super) fn currency(row: &Row, at: usize) -> Result<Currency, StoreError> {
    let word: &str = row.try_get(at)?;
    Ok(word.parse().map_err(|_| Damaged { what: "currency" })?)
}
