//! The `orders` and `order_lines` rows: made and moved by the flush alone, read by people.
//!
//! An order is found by its id, a buyer's orders in `buyer_orders`, newest first, because ids sort by time. Nothing here
//! asks whether an order exists elsewhere: one that is not flushed yet is its owner's to show.

use std::sync::LazyLock;

use futures_util::{Stream, TryStreamExt, stream};

use super::flush::Returning;
use super::sql::{self, Connection, Damaged, Listed, Pool, Row, signed, sixteen, unsigned};
use super::stock::money;
use super::{StoreError, buyer};
use crate::domain::amount::Quantity;
use crate::domain::id::{OrderId, ProductId, UserId};
use crate::domain::order::{Line, LineStatus, Order, OrderStatus};
use crate::domain::stock::{CameBack, Fingerprint, Key, Millis, Sequence};

macro_rules! both {
    () => {
        "select o.id, o.buyer_id, o.home_id, o.status, o.total_minor, o.currency, o.hold_expires_at_ms, \
         o.created_at_ms, o.updated_at_ms, o.version, l.line, l.product_id, l.quantity, l.unit_price_minor, \
         l.currency, l.sequence, l.status from "
    };
}
macro_rules! page {
    ($orders:literal, $status:literal) => {
        concat!(
            both!(),
            "(select b.order_id from buyer_runs r cross join buyer_orders b on b.run = r.run ",
            $orders,
            "where b.buyer_id = ? and b.order_id < ? ",
            $status,
            "order by b.order_id desc limit ?) page \
             cross join orders o on o.id = page.order_id cross join order_lines l on l.order_id = o.id \
             order by o.id desc, l.line"
        )
    };
}

const FIND: &str =
    concat!(both!(), "orders o join order_lines l on l.order_id = o.id where o.id = ? order by l.line");
/// Joined in the order in which it is written: `cross join` tells SQLite so, and MySQL does not mind.
const PAGE: &str = page!("", "");
const PAGE_BY_STATUS: &str = page!("cross join orders x on x.id = b.order_id ", "and x.status = ? ");
/// A page of all orders in order of their ids.
const BEHIND: &str = concat!(
    both!(),
    "(select id from orders where id > ? order by id limit ?) page \
     cross join orders o on o.id = page.id cross join order_lines l on l.order_id = o.id order by o.id, l.line"
);
/// Thousands of keys a row, with commas between: a row costs two threads a wake-up each, and a start reads millions.
const KEYS: &str = "select max(id), group_concat(hex(buyer_id) || hex(key_hash) || hex(home_id)) from \
    (select id, buyer_id, key_hash, home_id from orders where id > ? and id <= ? and key_hash is not null \
    order by id limit 4096) k";
const COUNT: &str = "select (select count(*) from orders), (select count(*) from order_lines), \
    (select count(*) from buyer_orders), (select count(distinct b.order_id) from buyer_runs r \
    cross join buyer_orders b on b.run = r.run cross join orders o on o.id = b.order_id where o.buyer_id = b.buyer_id)";

static FIND_MANY: LazyLock<Listed> = LazyLock::new(|| {
    let head = concat!(both!(), "orders o join order_lines l on l.order_id = o.id where o.id in (");
    Listed::new(head, "?", ") order by o.id, l.line")
});
static INSERT_ORDERS: LazyLock<Listed> = LazyLock::new(|| {
    let head = "insert into orders (id, buyer_id, home_id, status, total_minor, currency, key_hash, body_hash, \
        hold_expires_at_ms, created_at_ms, updated_at_ms, version) values ";
    Listed::fine(head, "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", "")
});
static INSERT_LINES: LazyLock<Listed> = LazyLock::new(|| {
    let head = "insert into order_lines (order_id, line, product_id, quantity, unit_price_minor, currency, sequence, \
        status) values ";
    Listed::fine(head, "(?, ?, ?, ?, ?, ?, ?, ?)", "")
});
static END_LINES: LazyLock<Listed> = LazyLock::new(|| {
    let head = "update order_lines set status = 'released' where product_id = ? and status = 'held' and order_id in (";
    Listed::new(head, "?", ")")
});
static CONFIRM_LINES: LazyLock<Listed> = LazyLock::new(|| {
    let head = "update order_lines set status = 'ordered', quantity = ? \
        where product_id = ? and status = 'held' and order_id in (";
    Listed::new(head, "?", ")")
});
/// Each at a time of its own.
static MOVE_ORDERS: LazyLock<Listed> = LazyLock::new(|| {
    let head = "update orders set status = ?, version = version + 1, updated_at_ms = case id";
    let middle = " end where home_id = ? and status = 'pending_payment' and id in (";
    Listed::cases(head, middle, ")")
});
/// Whoever cancelled them may come again: their ledger has dropped them.
static KEEP_CANCELS: LazyLock<Listed> = LazyLock::new(|| {
    let head = "update orders set cancelled_by = case id";
    Listed::cases(head, " end where home_id = ? and status = 'cancelled' and id in (", ")")
});
static HELD: LazyLock<Listed> = LazyLock::new(|| {
    Listed::new("select order_id, product_id, quantity from order_lines where order_id in (", "?", ")")
});

static KEYS_OF: LazyLock<Listed> = LazyLock::new(|| {
    Listed::new("select id, key_hash, body_hash, cancelled_by from orders where id in (", "?", ")")
});
static BUYERS: LazyLock<Listed> =
    LazyLock::new(|| Listed::new("select id, buyer_id from orders where id in (", "?", ")"));

const CANCELLED_BY: &str = "select cancelled_by from orders where id = ?";
const NEW_DEADLINE: &str = "update orders set hold_expires_at_ms = ?, updated_at_ms = ?, version = version + 1 \
    where id = ? and home_id = ? and status = 'pending_payment'";
/// All units are back. What had been asked back is returned; the rest is what the event says.
const RETURN_LINE: &str = "update order_lines set status = case status when 'return_requested' then 'returned' else ? end \
    where order_id = ? and product_id = ? and status in ('ordered', 'return_requested') and quantity <= ?";
/// A paid order all of whose lines have ended, whichever was the last.
const END_PAID: &str = "update orders set status = case \
    when not exists (select 1 from order_lines l where l.order_id = orders.id and l.status <> 'cancelled') then 'cancelled' \
    when not exists (select 1 from order_lines l where l.order_id = orders.id and l.status <> 'returned') then 'returned' \
    else 'closed' end, updated_at_ms = ?, version = version + 1 where id = ? and status = 'paid' and not exists \
    (select 1 from order_lines l where l.order_id = orders.id and l.status not in ('cancelled', 'returned', 'released'))";

/// An order that is to have a row, with the key it came with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Born {
    pub order: Order,
    pub key: Option<Key>,
}

/// A key that an order was made with, and where the order is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsedKey {
    pub buyer: UserId,
    pub key: [u8; 16],
    pub home: ProductId,
    /// Then, or shortly before.
    pub made_at: Millis,
}

/// The requests that an order's row names, as they stand there, for the audit.
pub(super) struct Named {
    pub order: OrderId,
    pub key: Option<Vec<u8>>,
    pub body: i64,
    pub cancelled_by: Option<u64>,
}

/// How many rows there are, for the audit.
pub(super) struct Counted {
    pub orders: u64,
    pub lines: u64,
    /// Entries of buyers.
    pub listings: u64,
    /// Orders that their buyer finds.
    pub listed: u64,
}

/// Three ids in hexadecimal.
const USED_KEY_WORD: usize = 96;

impl UsedKey {
    pub fn print(&self) -> Fingerprint {
        Fingerprint::of(self.buyer, self.key)
    }

    fn from_word(word: &str, made_at: Millis) -> Option<UsedKey> {
        let mut bytes = [0; USED_KEY_WORD / 2];
        let word = word.as_bytes().first_chunk::<USED_KEY_WORD>()?;
        for (byte, [high, low]) in bytes.iter_mut().zip(word.as_chunks().0) {
            let digit = |letter: u8| (letter as char).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        let [buyer, key, home] = bytes.as_chunks().0 else { return None };
        let (buyer, home) = (UserId::from_bytes(*buyer), ProductId::from_bytes(*home));
        Some(UsedKey { buyer, key: *key, home, made_at })
    }
}

/// Reads orders. Cheap to clone.
#[derive(Debug, Clone)]
pub struct OrderReader {
    pub(super) pool: Pool,
}

impl OrderReader {
    pub async fn find(&self, id: OrderId) -> Result<Option<Order>, StoreError> {
        let rows = sql::query(FIND).bind(&id.as_bytes()[..]).fetch(&self.pool);
        Ok(gather(rows).await?.pop())
    }

    /// What cancelled an order that its ledger has dropped: the number of its request's key. `None` if that is not known here.
    pub async fn cancelled_by(&self, id: OrderId) -> Result<Option<u64>, StoreError> {
        let row = sql::query(CANCELLED_BY).bind(&id.as_bytes()[..]).fetch_optional(&self.pool).await?;
        let by: Option<i64> = row.map(|row| row.try_get(0)).transpose()?.flatten();
        Ok(by.map(i64::cast_unsigned))
    }

    /// Those of `ids` that have rows, in order of id.
    pub async fn find_many(&self, ids: &[OrderId]) -> Result<Vec<Order>, StoreError> {
        let mut found = Vec::with_capacity(ids.len());
        for query in FIND_MANY.named(ids) {
            found.append(&mut gather(query.fetch(&self.pool)).await?);
        }
        Ok(found)
    }

    /// Whose those of `ids` are that have rows.
    pub async fn buyers(&self, ids: &[OrderId]) -> Result<Vec<(OrderId, UserId)>, StoreError> {
        let mut found = Vec::with_capacity(ids.len());
        for query in BUYERS.named(ids) {
            for row in query.fetch_all(&self.pool).await? {
                found.push((OrderId::from_bytes(sixteen(&row, 0)?), UserId::from_bytes(sixteen(&row, 1)?)));
            }
        }
        Ok(found)
    }

    /// A buyer's orders made before `before`, newest first.
    pub async fn list(
        &self,
        buyer: UserId,
        status: Option<OrderStatus>,
        before: Option<OrderId>,
        limit: u32,
    ) -> Result<Vec<Order>, StoreError> {
        let before = before.unwrap_or(OrderId::from_bytes([0xff; 16]));
        let page = sql::query(if status.is_some() { PAGE_BY_STATUS } else { PAGE })
            .bind(&buyer.as_bytes()[..])
            .bind(&before.as_bytes()[..]);
        let page = match status {
            Some(status) => page.bind(status.as_str()),
            None => page,
        };
        gather(page.bind(limit).fetch(&self.pool)).await
    }

    /// Up to `most` orders behind `after`, in order of their ids.
    pub(super) async fn behind(&self, after: OrderId, most: u32) -> Result<Vec<Order>, StoreError> {
        gather(sql::query(BEHIND).bind(&after.as_bytes()[..]).bind(most).fetch(&self.pool)).await
    }

    /// The keys of all orders, in order of their ids.
    pub fn all_keys(&self) -> impl Stream<Item = Result<UsedKey, StoreError>> + '_ {
        self.keys(OrderId::from_bytes([0; 16]), OrderId::from_bytes([0xff; 16]))
    }

    /// Those of orders behind `after`, up to `until`.
    pub fn keys(
        &self,
        after: OrderId,
        until: OrderId,
    ) -> impl Stream<Item = Result<UsedKey, StoreError>> + '_ {
        let pages = stream::try_unfold(after, move |after| self.keys_behind(after, until));
        pages.map_ok(|keys| stream::iter(keys.into_iter().map(Ok))).try_flatten()
    }

    /// Those of `ids` that have rows, with the requests that are named there.
    pub(super) async fn keys_of(&self, ids: &[OrderId]) -> Result<Vec<Named>, StoreError> {
        let mut found = Vec::with_capacity(ids.len());
        for query in KEYS_OF.named(ids) {
            for row in query.fetch_all(&self.pool).await? {
                let (order, by) = (OrderId::from_bytes(sixteen(&row, 0)?), row.try_get::<Option<i64>>(3)?);
                found.push(Named {
                    order,
                    key: row.try_get(1)?,
                    body: row.try_get(2)?,
                    cancelled_by: by.map(i64::cast_unsigned),
                });
            }
        }
        Ok(found)
    }

    /// A page of keys, and the id to go on behind.
    async fn keys_behind(
        &self,
        after: OrderId,
        until: OrderId,
    ) -> Result<Option<(Vec<UsedKey>, OrderId)>, StoreError> {
        let query = sql::query_as(KEYS).bind(&after.as_bytes()[..]).bind(&until.as_bytes()[..]);
        let (last, words): (Option<Vec<u8>>, Option<String>) = query.fetch_one(&self.pool).await?;
        let (Some(last), Some(words)) = (last, words) else { return Ok(None) };
        let damaged = Damaged { what: "key" };
        let last: [u8; 16] = last.try_into().map_err(|_| Damaged { what: "order id" })?;
        let last = OrderId::from_bytes(last);
        let keys =
            words.split(',').map(|word| UsedKey::from_word(word, last.made_at())).collect::<Option<_>>();
        Ok(Some((keys.ok_or(damaged)?, last)))
    }

    /// How many there are of everything.
    pub(super) async fn count(&self) -> Result<Counted, StoreError> {
        let row = sql::query(COUNT).fetch_one(&self.pool).await?;
        Ok(Counted {
            orders: unsigned(&row, 0)?,
            lines: unsigned(&row, 1)?,
            listings: unsigned(&row, 2)?,
            listed: unsigned(&row, 3)?,
        })
    }
}

/// Rows of an order and its lines stand together; each line is one row.
async fn gather(
    mut rows: impl Stream<Item = Result<Row, sql::Error>> + Unpin,
) -> Result<Vec<Order>, StoreError> {
    let mut orders: Vec<Order> = Vec::new();
    while let Some(row) = rows.try_next().await? {
        let (id, line) = (OrderId::from_bytes(sixteen(&row, 0)?), line(&row)?);
        match orders.last_mut().filter(|order| order.id == id) {
            Some(order) => order.lines.push(line),
            None => orders.push(order(&row, line)?),
        }
    }
    Ok(orders)
}

fn order(row: &Row, first: Line) -> Result<Order, StoreError> {
    Ok(Order {
        id: OrderId::from_bytes(sixteen(row, 0)?),
        buyer: UserId::from_bytes(sixteen(row, 1)?),
        home: ProductId::from_bytes(sixteen(row, 2)?),
        status: OrderStatus::from_word(row.try_get(3)?).ok_or(Damaged { what: "order status" })?,
        lines: vec![first],
        total: money(row, 4)?,
        hold_expires_at: Millis(row.try_get(6)?),
        created_at: Millis(row.try_get(7)?),
        updated_at: Millis(row.try_get(8)?),
        version: unsigned(row, 9)?,
    })
}

fn line(row: &Row) -> Result<Line, StoreError> {
    Ok(Line {
        line: unsigned(row, 10)?,
        product: ProductId::from_bytes(sixteen(row, 11)?),
        quantity: Quantity::of_line(unsigned(row, 12)?).ok_or(Damaged { what: "quantity" })?,
        unit_price: money(row, 13)?,
        sequence: Sequence(unsigned(row, 15)?),
        status: LineStatus::from_word(row.try_get(16)?).ok_or(Damaged { what: "line status" })?,
    })
}

/// Puts orders, their lines and their buyers' entries down. They come in order of id, so that the rows of a rush lie
/// together.
pub(super) async fn insert(connection: &mut Connection, born: &[Born]) -> Result<(), StoreError> {
    for (sql, piece) in INSERT_ORDERS.cut(born) {
        let query = piece.iter().fold(sql::query(sql), |query, Born { order, key }| {
            query
                .bind(&order.id.as_bytes()[..])
                .bind(&order.buyer.as_bytes()[..])
                .bind(&order.home.as_bytes()[..])
                .bind(order.status.as_str())
                .bind(order.total.amount)
                .bind(order.total.currency.as_str())
                .bind(key.as_ref().map(|key| &key.key[..]))
                .bind(key.as_ref().map_or(0, |key| key.body.cast_signed()))
                .bind(order.hold_expires_at.0)
                .bind(order.created_at.0)
                .bind(order.updated_at.0)
                .bind(signed(order.version))
        });
        query.execute(&mut *connection).await?;
    }
    let lines: Vec<(OrderId, &Line)> =
        born.iter().flat_map(|born| born.order.lines.iter().map(|line| (born.order.id, line))).collect();
    for (sql, piece) in INSERT_LINES.cut(&lines) {
        let query = piece.iter().fold(sql::query(sql), |query, (order, line)| {
            query
                .bind(order.as_bytes().to_vec())
                .bind(i64::from(line.line))
                .bind(&line.product.as_bytes()[..])
                .bind(i64::from(line.quantity.get()))
                .bind(line.unit_price.amount)
                .bind(line.unit_price.currency.as_str())
                .bind(signed(line.sequence.0))
                .bind(line.status.as_str())
        });
        query.execute(&mut *connection).await?;
    }
    buyer::insert(connection, born.iter().map(|Born { order, .. }| (order.buyer, order.id)).collect()).await
}

/// What one product's group did to a hold whose order has a row already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    pub product: ProductId,
    pub at: Millis,
}

/// Holds of `product` ended without a sale, each at its time: their lines are released, and the orders at home there end too.
pub(super) async fn end(
    connection: &mut Connection,
    product: ProductId,
    status: OrderStatus,
    orders: &[(OrderId, Millis)],
) -> Result<(), StoreError> {
    for (sql, piece) in END_LINES.filled(orders) {
        let query = sql::query(sql).bind(&product.as_bytes()[..]);
        let query = piece.fold(query, |query, (id, _)| query.bind(&id.as_bytes()[..]));
        query.execute(&mut *connection).await?;
    }
    move_orders(connection, product, status, orders).await
}

/// Orders at home in `home` that waited for their payment do so no more.
async fn move_orders(
    connection: &mut Connection,
    home: ProductId,
    status: OrderStatus,
    orders: &[(OrderId, Millis)],
) -> Result<(), StoreError> {
    for (sql, piece) in MOVE_ORDERS.filled(orders) {
        let piece = Vec::from_iter(piece);
        let query = sql::query(sql).bind(status.as_str());
        let query = piece.iter().fold(query, |query, (id, at)| query.bind(&id.as_bytes()[..]).bind(at.0));
        let query = query.bind(&home.as_bytes()[..]);
        let query = piece.iter().fold(query, |query, (id, _)| query.bind(&id.as_bytes()[..]));
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

/// What cancelled orders at home in `home`, each as a number.
pub(super) async fn keep_cancels(
    connection: &mut Connection,
    home: ProductId,
    orders: &[(OrderId, u64)],
) -> Result<(), StoreError> {
    for (sql, piece) in KEEP_CANCELS.filled(orders) {
        let piece = Vec::from_iter(piece);
        let cases = piece
            .iter()
            .fold(sql::query(sql), |query, (id, by)| query.bind(&id.as_bytes()[..]).bind(by.cast_signed()));
        let query = cases.bind(&home.as_bytes()[..]);
        let query = piece.iter().fold(query, |query, (id, _)| query.bind(&id.as_bytes()[..]));
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

/// The hold of an order at home in `at.product` stands until another time.
pub(super) async fn new_deadline(
    connection: &mut Connection,
    at: At,
    order: OrderId,
    deadline: Millis,
) -> Result<(), StoreError> {
    sql::query(NEW_DEADLINE)
        .bind(deadline.0)
        .bind(at.at.0)
        .bind(&order.as_bytes()[..])
        .bind(&at.product.as_bytes()[..])
        .execute(connection)
        .await?;
    Ok(())
}

/// Holds of `product` are sold, `quantity` units of each, each at its time; the orders at home there are paid.
pub(super) async fn confirm(
    connection: &mut Connection,
    product: ProductId,
    quantity: Quantity,
    orders: &[(OrderId, Millis)],
) -> Result<(), StoreError> {
    for (sql, piece) in CONFIRM_LINES.filled(orders) {
        let query = sql::query(sql).bind(i64::from(quantity.get())).bind(&product.as_bytes()[..]);
        let query = piece.fold(query, |query, (id, _)| query.bind(&id.as_bytes()[..]));
        query.execute(&mut *connection).await?;
    }
    move_orders(connection, product, OrderStatus::Paid, orders).await
}

/// Sold units came back, and with the last of them, perhaps, the order has ended.
pub(super) async fn give_back(
    connection: &mut Connection,
    at: At,
    order: OrderId,
    returning: &Returning,
) -> Result<(), StoreError> {
    let status = match returning.why {
        CameBack::Cancelled => LineStatus::Cancelled,
        CameBack::Returned => LineStatus::Returned,
    };
    // No line is larger than what is whole.
    let quantity = if returning.whole { i64::MAX } else { i64::from(returning.quantity.get()) };
    sql::query(RETURN_LINE)
        .bind(status.as_str())
        .bind(&order.as_bytes()[..])
        .bind(&at.product.as_bytes()[..])
        .bind(quantity)
        .execute(&mut *connection)
        .await?;
    sql::query(END_PAID).bind(at.at.0).bind(&order.as_bytes()[..]).execute(connection).await?;
    Ok(())
}

/// Those of `ids` that have rows, as the flush sees them in the middle of its transaction.
pub(super) async fn find_many(
    connection: &mut Connection,
    ids: &[OrderId],
) -> Result<Vec<Order>, StoreError> {
    let mut found = Vec::with_capacity(ids.len());
    for query in FIND_MANY.named(ids) {
        found.append(&mut gather(query.fetch(&mut *connection)).await?);
    }
    Ok(found)
}

/// How many units the lines of some orders hold.
pub(super) async fn held(
    connection: &mut Connection,
    orders: &[OrderId],
) -> Result<Vec<(OrderId, ProductId, u32)>, StoreError> {
    let mut found = Vec::new();
    for query in HELD.named(orders) {
        for row in query.fetch_all(&mut *connection).await? {
            let (order, product) =
                (OrderId::from_bytes(sixteen(&row, 0)?), ProductId::from_bytes(sixteen(&row, 1)?));
            found.push((order, product, unsigned(&row, 2)?));
        }
    }
    Ok(found)
}
