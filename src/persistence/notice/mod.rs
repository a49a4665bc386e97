//! The `notice_slices` and `notices` rows: what happened to orders and is not told yet. Two queues, one beside each truth that
//! moves orders.
//!
//! Beside the orders the flush leaves one row a slice, its notices packed in it, in the slice's own transaction: in a rush a row an
//! order would cost what it has no time for. Beside the money whoever moves what was sold leaves a row a notice, in the transaction of
//! the move. Always true: a notice is there exactly when what it tells of is; it goes when its letter stands in the outbox, so it may be
//! read twice; and there are ids in it, nothing else.

mod told;

use std::sync::{Arc, LazyLock};

use tokio::sync::Notify;

use super::StoreError;
use super::order::OrderReader;
use super::payment::PaymentReader;
use super::product::ProductReader;
use super::refund::RefundReader;
use super::sql::{self, Connection, Listed, Pool, signed, sixteen, unsigned};
use super::store::Store;
use super::user::UserReader;
use crate::domain::id::OrderId;
use crate::domain::notice::{Notice, NoticeKind};
use crate::domain::stock::Millis;

/// A packed notice: the order, the kind's number, the line's (255: the whole order), the time.
const RECORD_BYTES: usize = 16 + 1 + 1 + 8;
const WHOLE: u8 = u8::MAX;

const INSERT_SLICE: &str = "insert into notice_slices (pos, number, at_ms, packed) values (?, ?, ?, ?)";
const OLDEST_SLICES: &str = "select pos, packed from notice_slices order by pos limit ?";
const FORGET_SLICES: &str = "delete from notice_slices where pos <= ?";
const SLICES_WAITING: &str = "select cast(coalesce(sum(number), 0) as signed), min(at_ms) from notice_slices";
static INSERT: LazyLock<Listed> = LazyLock::new(|| {
    Listed::fine("insert into notices (order_id, kind, line, at_ms) values ", "(?, ?, ?, ?)", "")
});
const OLDEST: &str = "select id, order_id, kind, line, at_ms from notices order by id limit ?";
static FORGET: LazyLock<Listed> =
    LazyLock::new(|| Listed::new("delete from notices where id in (", "?", ")"));
/// They are taken from the front and added behind: as many as there are numbers between, or fewer.
const WAITING: &str = "select coalesce(max(id) - min(id) + 1, 0), min(at_ms) from notices";

/// Rung when there may be something to tell. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Bell(Arc<Notify>);

impl Bell {
    pub fn ring(&self) {
        self.0.notify_one();
    }

    /// Waits until it is rung, or was while nobody waited.
    pub async fn rung(&self) {
        self.0.notified().await;
    }
}

/// What a slice of the flush tells, packed as its row keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Packed {
    bytes: Vec<u8>,
    first: Option<Millis>,
}

impl Packed {
    pub(super) fn push(&mut self, notice: &Notice) {
        self.first.get_or_insert(notice.at);
        self.bytes.extend_from_slice(notice.order.as_bytes());
        self.bytes.extend_from_slice(&[notice.kind.number(), notice.line.unwrap_or(WHOLE)]);
        self.bytes.extend_from_slice(&notice.at.0.to_be_bytes());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// One statement for the whole slice, in the flush's transaction.
pub(super) async fn insert_slice(
    connection: &mut Connection,
    pos: i64,
    packed: &Packed,
) -> Result<(), StoreError> {
    let Some(first) = packed.first else { return Ok(()) };
    sql::query(INSERT_SLICE)
        .bind(pos)
        .bind(signed((packed.bytes.len() / RECORD_BYTES) as u64))
        .bind(first.0)
        .bind(&packed.bytes)
        .execute(connection)
        .await?;
    Ok(())
}

/// Adds what is told of sold orders to the transaction on `money.db` that makes it true.
pub(super) async fn insert(connection: &mut Connection, notices: &[Notice]) -> Result<(), StoreError> {
    for (sql, piece) in INSERT.cut(notices) {
        let query = piece.iter().fold(sql::query(sql), |query, notice| {
            query
                .bind(notice.order.as_bytes().to_vec())
                .bind(i64::from(notice.kind.number()))
                .bind(notice.line.map(i64::from))
                .bind(notice.at.0)
        });
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

/// A row of the flush.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    pub pos: i64,
    pub notices: Vec<Notice>,
    /// Records that no version of ours has written.
    pub damaged: u64,
}

/// A notice of something sold, with the number of its row; `None`: no version of ours has written it.
pub type Sold = (i64, Option<Notice>);

/// How much waits to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Waiting {
    pub slices: u64,
    pub sold: u64,
    pub oldest: Option<Millis>,
}

/// The queues as their dispatcher sees them. Cheap to clone.
#[derive(Clone)]
pub struct NoticeRows {
    pub(super) shop: Store,
    pub(super) people: Store,
    pub(super) money: Store,
    pub(super) bell: Bell,
}

impl NoticeRows {
    pub fn bell(&self) -> &Bell {
        &self.bell
    }

    /// Readers of the dispatcher's own.
    pub fn aside(&self) -> Aside {
        Aside {
            shop: self.shop.reader_aside(),
            people: self.people.reader_aside(),
            money: self.money.reader_aside(),
        }
    }

    /// The slices up to this one are told; new ones only come behind. Not synced: told again they are the same letters. The flush
    /// waits meanwhile: not for a thread that yields to others.
    pub async fn forget_slices(&self, up_to: i64) -> Result<(), StoreError> {
        self.shop.write(sql::query(FORGET_SLICES).bind(up_to)).await.map(drop)
    }

    /// These are told. Purchases wait meanwhile, for the same kind of thread.
    pub async fn forget_sold(&self, rows: &[i64]) -> Result<(), StoreError> {
        for (sql, piece) in FORGET.filled(rows) {
            self.money.write_synced(piece.fold(sql::query(sql), |query, row| query.bind(*row))).await?;
        }
        Ok(())
    }
}

/// Readers that nobody else waits for, for a thread that yields to everybody.
pub struct Aside {
    shop: Pool,
    people: Pool,
    money: Pool,
}

impl Aside {
    pub fn orders(&self) -> OrderReader {
        OrderReader { pool: self.shop.clone() }
    }

    pub fn products(&self) -> ProductReader {
        ProductReader { pool: self.shop.clone() }
    }

    pub fn users(&self) -> UserReader {
        UserReader { pool: self.people.clone() }
    }

    pub fn payments(&self) -> PaymentReader {
        PaymentReader { pool: self.money.clone() }
    }

    pub fn refunds(&self) -> RefundReader {
        RefundReader { pool: self.money.clone() }
    }

    /// Up to `most` slices, the oldest first.
    pub async fn oldest_slices(&self, most: u32) -> Result<Vec<Slice>, StoreError> {
        let rows = sql::query(OLDEST_SLICES).bind(most).fetch_all(&self.shop).await?;
        let slices = rows.iter().map(|row| {
            let packed: &[u8] = row.try_get(1)?;
            let (records, rest) = packed.as_chunks::<RECORD_BYTES>();
            let notices: Vec<Notice> = records.iter().filter_map(unpacked).collect();
            let damaged = (records.len() - notices.len()) as u64 + u64::from(!rest.is_empty());
            Ok(Slice { pos: row.try_get(0)?, notices, damaged })
        });
        slices.collect()
    }

    /// Up to `most` of what was sold, the oldest first.
    pub async fn oldest_sold(&self, most: u32) -> Result<Vec<Sold>, StoreError> {
        let rows = sql::query(OLDEST).bind(most).fetch_all(&self.money).await?;
        let sold = rows.iter().map(|row| {
            let kind: i64 = row.try_get(2)?;
            let kind = u8::try_from(kind).ok().and_then(NoticeKind::from_number);
            let line: Option<i64> = row.try_get(3)?;
            let line = line.map(u8::try_from).transpose().ok();
            let (order, at) = (sixteen(row, 1).map(OrderId::from_bytes).ok(), Millis(row.try_get(4)?));
            let notice = match (order, kind, line) {
                (Some(order), Some(kind), Some(line)) => Some(Notice { order, kind, line, at }),
                _ => None,
            };
            Ok((row.try_get(0)?, notice))
        });
        sold.collect()
    }

    pub async fn waiting(&self) -> Result<Waiting, StoreError> {
        let slices = sql::query(SLICES_WAITING).fetch_one(&self.shop).await?;
        let sold = sql::query(WAITING).fetch_one(&self.money).await?;
        let oldest: [Option<i64>; 2] = [slices.try_get(1)?, sold.try_get(1)?];
        Ok(Waiting {
            slices: unsigned(&slices, 0)?,
            sold: unsigned(&sold, 0)?,
            oldest: oldest.into_iter().flatten().min().map(Millis),
        })
    }

    pub async fn close(&self) {
        for pool in [&self.shop, &self.people, &self.money] {
            pool.close().await;
        }
    }
}

fn unpacked(record: &[u8; RECORD_BYTES]) -> Option<Notice> {
    let (order, rest) = record.split_first_chunk::<16>()?;
    let [kind, line, at @ ..] = rest else { return None };
    Some(Notice {
        order: OrderId::from_bytes(*order),
        kind: NoticeKind::from_number(*kind)?,
        line: (*line != WHOLE).then_some(*line),
        at: Millis(i64::from_be_bytes(at.try_into().ok()?)),
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::persistence::Tables;
    use crate::persistence::sql::mysql::Server;
    use crate::persistence::testing::Home::{self, MySql, Sqlite};
    use crate::persistence::testing::{T0, new_database, order, product};

    fn some() -> Vec<Notice> {
        let order = order(1, product(1));
        vec![
            Notice::of(order, NoticeKind::Placed, T0),
            Notice::of(order, NoticeKind::Paid, T0.plus(1)),
            Notice::of_line(order, 49, NoticeKind::Shipped, T0.plus(2)),
        ]
    }

    #[rstest]
    #[tokio::test]
    async fn a_slice_is_one_row_and_comes_back_whole(#[values(Sqlite, MySql)] home: Home) {
        let (_dir, tables) = home.tables().await;
        let (rows, notices) = (tables.notices(), some());
        let aside = rows.aside();
        assert_eq!(aside.oldest_slices(9).await.unwrap(), []);
        assert_eq!(aside.waiting().await.unwrap(), Waiting::default());
        let mut packed = Packed::default();
        notices.iter().for_each(|notice| packed.push(notice));
        for pos in [7, 9] {
            insert_slice(&mut tables.writer().await.unwrap(), pos, &packed).await.unwrap();
        }
        let slice = |pos| Slice { pos, notices: notices.clone(), damaged: 0 };
        assert_eq!(aside.oldest_slices(1).await.unwrap(), [slice(7)]);
        let waiting = Waiting { slices: 6, sold: 0, oldest: Some(T0) };
        assert_eq!(aside.waiting().await.unwrap(), waiting);
        rows.forget_slices(7).await.unwrap();
        packed.bytes[16] = 200;
        packed.bytes.push(0);
        insert_slice(&mut tables.writer().await.unwrap(), 10, &packed).await.unwrap();
        let damaged = Slice { pos: 10, notices: notices[1..].to_vec(), damaged: 2 };
        assert_eq!(aside.oldest_slices(9).await.unwrap(), [slice(9), damaged]);
        aside.close().await;
        tables.close().await.unwrap();
    }

    #[rstest]
    #[tokio::test]
    async fn what_was_sold_is_told_from_the_front(#[values(Sqlite, MySql)] home: Home) {
        let (_dir, tables) = home.tables().await;
        let (rows, notices) = (tables.notices(), some());
        let aside = rows.aside();
        let mut transaction = rows.money.begin_synced().await.unwrap();
        let written = insert(&mut transaction, &notices).await;
        transaction.end(written).await.unwrap();
        let odd = sql::query("insert into notices (order_id, kind, at_ms) values (x'00', 1, 1)");
        rows.money.write_synced(odd).await.unwrap();
        let found = aside.oldest_sold(10).await.unwrap();
        let read: Vec<_> = found.iter().map(|(_, notice)| *notice).collect();
        assert_eq!(read, [Some(notices[0]), Some(notices[1]), Some(notices[2]), None]);
        assert_eq!(aside.waiting().await.unwrap().sold, 4);
        let gone: Vec<i64> = found[..3].iter().map(|(row, _)| *row).collect();
        rows.forget_sold(&gone).await.unwrap();
        assert_eq!(aside.oldest_sold(10).await.unwrap(), found[3..]);
        aside.close().await;
        tables.close().await.unwrap();
    }

    /// It was a lead, and its successor tells what it had looked at.
    #[tokio::test]
    async fn a_node_that_counts_as_dead_forgets_nothing() {
        let url = new_database().await;
        let tables = Tables::connect(&url).await.unwrap();
        let (rows, mut packed) = (tables.notices(), Packed::default());
        some().iter().for_each(|notice| packed.push(notice));
        insert_slice(&mut tables.writer().await.unwrap(), 7, &packed).await.unwrap();
        let mut transaction = rows.money.begin_synced().await.unwrap();
        let written = insert(&mut transaction, &some()).await;
        transaction.end(written).await.unwrap();
        let nobody = Server::at(&url).unwrap().of_node(7);
        let dead = Tables::on(&nobody).await.unwrap().notices();
        let aside = rows.aside();
        let sold: Vec<i64> = aside.oldest_sold(9).await.unwrap().iter().map(|(row, _)| *row).collect();
        assert!(dead.forget_slices(7).await.is_err());
        assert!(dead.forget_sold(&sold).await.is_err());
        let waiting = aside.waiting().await.unwrap();
        assert_eq!((waiting.slices, waiting.sold), (3, 3));
        aside.close().await;
    }
}
