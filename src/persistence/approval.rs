//! The `approvals` rows: what one administrator has asked for that takes two, and who the other one was.
//!
//! Always true: a row is seconded once, and not by who asked. One that was never is swept when it has lapsed; one that was stays with
//! the money that it moved, so that both requests are known again. It is due until its refund is written.

use std::sync::LazyLock;

use super::StoreError;
use super::money::SWEEP_MAX;
use super::sql::{self, Connection, Damaged, Listed, Row, legible, sixteen, time, unsigned};
use super::stock::money;
use super::store::Store;
use crate::domain::id::{ApprovalId, OrderId, PaymentId, RefundId, SessionId, UserId};
use crate::domain::payment::{Approval, Asked, Restock, Seconded, What};
use crate::domain::stock::{KeyUse, Millis};

macro_rules! approvals {
    ($rest:literal) => {
        concat!(
            "select id, what, order_id, payment_id, refund_id, line, amount_minor, currency, restock, asked_by, asked_at_ms, \
             key_hash, body_hash, seconded_by, seconded_at_ms, second_key_hash, second_body_hash, \
             asked_in from approvals ",
            $rest
        )
    };
}

const OF_ORDER: &str = approvals!("where order_id = ? order by id");
const WAITING: &str = approvals!(
    "where id > ? and (seconded_by is null and id >= ? or due_at_ms is not null) order by id limit ?"
);
const DUE: &str = approvals!("where due_at_ms <= ? order by due_at_ms limit ?");
const DUE_ONE: &str = approvals!("where id = ? and due_at_ms is not null");
const OPEN: &str = "select count(*), min(seconded_at_ms) from approvals where due_at_ms is not null";
const DUE_AT: &str = "update approvals set due_at_ms = ? where id = ? and seconded_by is not null";
const ASK: &str = "insert into approvals (id, what, order_id, payment_id, refund_id, line, amount_minor, currency, restock, \
    asked_by, asked_in, asked_at_ms, key_hash, body_hash) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
const SECOND: &str = "update approvals set seconded_by = ?, seconded_at_ms = ?, second_key_hash = ?, second_body_hash = ?, \
    due_at_ms = ? where id = ? and seconded_by is null and asked_by <> ?";
const LAPSED: &str = "select id from approvals where seconded_by is null and id < ? order by id limit ?";

static SWEEP: LazyLock<Listed> =
    LazyLock::new(|| Listed::new("delete from approvals where seconded_by is null and id in (", "?", ")"));

/// What waits for a second administrator, and what had two. Cheap to clone.
#[derive(Clone)]
pub struct Approvals {
    pub(super) store: Store,
}

impl Approvals {
    /// All that is known of an order, oldest first.
    pub async fn of_order(&self, order: OrderId) -> Result<Vec<Approval>, StoreError> {
        let rows = sql::query(OF_ORDER).bind(&order.as_bytes()[..]).fetch_all(&self.store.readers()).await?;
        rows.iter().map(approval).collect()
    }

    /// What was asked for at `since` or later and not seconded, and whatever was and is due: a page of it behind `after`, in order of id.
    pub async fn waiting(
        &self,
        since: Millis,
        after: [u8; 16],
        most: u32,
    ) -> Result<Vec<Approval>, StoreError> {
        let since = ApprovalId::first_at(since);
        let query = sql::query(WAITING).bind(&after[..]).bind(&since.as_bytes()[..]).bind(most);
        let rows = query.fetch_all(&self.store.readers()).await?;
        Ok(legible(&rows, "an approval", approval).0)
    }

    /// Puts down what somebody asks for first. It is on the disk when this returns.
    pub async fn ask(&self, approval: &Approval) -> Result<(), StoreError> {
        let asked = &approval.asked;
        let refund = asked.refund.as_ref().map(|refund| &refund.as_bytes()[..]);
        let key = approval.key.as_ref();
        let row = sql::query(ASK)
            .bind(&approval.id.as_bytes()[..])
            .bind(asked.what.as_str())
            .bind(&asked.order.as_bytes()[..])
            .bind(&asked.payment.as_bytes()[..])
            .bind(refund)
            .bind(asked.line.map(i64::from))
            .bind(asked.amount.amount)
            .bind(asked.amount.currency.as_str())
            .bind(asked.restock.as_str())
            .bind(&approval.by.as_bytes()[..])
            .bind(approval.session.as_ref().map(|session| &session.as_bytes()[..]))
            .bind(approval.at.0)
            .bind(key.map(|used| &used.key[..]))
            .bind(key.map(|used| used.body.cast_signed()));
        self.store.write_synced(row).await.map(drop)
    }

    /// Puts down who asks for the same, and when the refund that comes of it is due. `false`: somebody has before, or it is gone.
    pub async fn second(
        &self,
        id: ApprovalId,
        by: &Seconded,
        due_at: Option<Millis>,
    ) -> Result<bool, StoreError> {
        let key = by.key.as_ref();
        let second = sql::query(SECOND)
            .bind(&by.by.as_bytes()[..])
            .bind(by.at.0)
            .bind(key.map(|used| &used.key[..]))
            .bind(key.map(|used| used.body.cast_signed()))
            .bind(due_at.map(|at| at.0))
            .bind(&id.as_bytes()[..])
            .bind(&by.by.as_bytes()[..]);
        Ok(self.store.write_synced(second).await? == 1)
    }

    /// What two have asked for and is due at `now`, the longest due first.
    pub async fn due(&self, now: Millis, most: u32) -> Result<Vec<Approval>, StoreError> {
        let rows = sql::query(DUE).bind(now.0).bind(most).fetch_all(&self.store.readers()).await?;
        Ok(legible(&rows, "an approval", approval).0)
    }

    /// The one with this id, if two have asked for it and its refund is not written.
    pub async fn due_one(&self, id: ApprovalId) -> Result<Option<Approval>, StoreError> {
        let row = sql::query(DUE_ONE).bind(&id.as_bytes()[..]).fetch_optional(&self.store.readers()).await?;
        row.as_ref().map(approval).transpose()
    }

    /// How much two have asked for whose refund is not written, and since when the longest of it.
    pub async fn open(&self) -> Result<(u64, Option<Millis>), StoreError> {
        let row = sql::query(OPEN).fetch_one(&self.store.readers()).await?;
        Ok((unsigned(&row, 0)?, time(&row, 1)?))
    }

    /// Puts down when it is due next; `None`: its refund is written, or will never be.
    pub async fn due_at(&self, id: ApprovalId, due_at: Option<Millis>) -> Result<(), StoreError> {
        let query = sql::query(DUE_AT).bind(due_at.map(|at| at.0)).bind(&id.as_bytes()[..]);
        self.store.write_synced(query).await.map(drop)
    }

    /// Takes away some of what was asked for before `before` and never seconded; how many that were. There may be more where it was
    /// [`SWEEP_MAX`].
    pub async fn sweep(&self, before: Millis) -> Result<usize, StoreError> {
        let before = ApprovalId::first_at(before);
        let lapsed = sql::query(LAPSED).bind(&before.as_bytes()[..]).bind(SWEEP_MAX);
        let lapsed = lapsed.fetch_all(&self.store.readers()).await?;
        let lapsed: Result<Vec<ApprovalId>, StoreError> =
            lapsed.iter().map(|row| Ok(ApprovalId::from_bytes(sixteen(row, 0)?))).collect();
        let lapsed = lapsed?;
        if lapsed.is_empty() {
            return Ok(0);
        }
        let mut transaction = self.store.begin_synced().await?;
        let swept = forget(&mut transaction, &lapsed).await;
        transaction.end(swept).await?;
        Ok(lapsed.len())
    }
}

async fn forget(connection: &mut Connection, lapsed: &[ApprovalId]) -> Result<(), StoreError> {
    for query in SWEEP.named(lapsed) {
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

fn id(row: &Row, column: usize) -> Result<Option<[u8; 16]>, StoreError> {
    let bytes: Option<&[u8]> = row.try_get(column)?;
    bytes.map(|_| sixteen(row, column)).transpose()
}

/// A key, and behind it what its request said.
fn key(row: &Row, column: usize) -> Result<Option<KeyUse>, StoreError> {
    let body: Option<i64> = row.try_get(column + 1)?;
    let both = id(row, column)?.zip(body);
    Ok(both.map(|(key, body)| KeyUse { key, body: body.cast_unsigned() }))
}

fn approval(row: &Row) -> Result<Approval, StoreError> {
    let line: Option<i64> = row.try_get(5)?;
    let seconded = match id(row, 13)?.zip(time(row, 14)?) {
        Some((by, at)) => Some(Seconded { by: UserId::from_bytes(by), at, key: key(row, 15)? }),
        None => None,
    };
    Ok(Approval {
        id: ApprovalId::from_bytes(sixteen(row, 0)?),
        asked: Asked {
            what: What::from_word(row.try_get(1)?).ok_or(Damaged { what: "kind of an approval" })?,
            order: OrderId::from_bytes(sixteen(row, 2)?),
            payment: PaymentId::from_bytes(sixteen(row, 3)?),
            refund: id(row, 4)?.map(RefundId::from_bytes),
            line: line.map(|_| unsigned(row, 5)).transpose()?,
            amount: money(row, 6)?,
            restock: Restock::from_word(row.try_get(8)?).ok_or(Damaged { what: "restock of an approval" })?,
        },
        by: UserId::from_bytes(sixteen(row, 9)?),
        session: id(row, 17)?.map(SessionId::from_bytes),
        at: Millis(row.try_get(10)?),
        key: key(row, 11)?,
        seconded,
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::domain::amount::{Currency, Money};
    use crate::persistence::testing::Home::{self, MySql, Sqlite};

    const T0: Millis = Millis(1_800_000_000_000);

    fn asked_at(at: Millis, number: u8) -> Approval {
        let asked = Asked {
            what: What::Line,
            order: OrderId::from_bytes([number; 16]),
            payment: PaymentId::from_bytes([7; 16]),
            refund: None,
            line: Some(3),
            amount: Money { amount: 700, currency: Currency::KRW },
            restock: Restock::WriteOff,
        };
        Approval {
            id: ApprovalId::new(at, u128::from(number)),
            asked,
            by: UserId::from_bytes([1; 16]),
            session: Some(SessionId::from_bytes([6; 16])),
            at,
            key: Some(KeyUse { key: [9; 16], body: u64::MAX }),
            seconded: None,
        }
    }

    fn by(number: u8) -> Seconded {
        let key = Some(KeyUse { key: [number; 16], body: 5 });
        Seconded { by: UserId::from_bytes([number; 16]), at: T0.plus(1), key }
    }

    #[rstest]
    #[tokio::test]
    async fn it_is_seconded_once_and_by_somebody_else(#[values(Sqlite, MySql)] home: Home) {
        let (_dir, tables) = home.tables().await;
        let rows = tables.money().approvals();
        let refund = Some(RefundId::from_bytes([4; 16]));
        let settled = Asked { what: What::Settle, refund, line: None, ..asked_at(T0, 1).asked };
        let (first, other) = (
            asked_at(T0, 1),
            Approval { asked: settled, session: None, key: None, ..asked_at(T0.plus(1), 1) },
        );
        for approval in [&first, &other, &asked_at(T0, 2)] {
            rows.ask(approval).await.unwrap();
        }
        assert!(rows.ask(&first).await.is_err(), "it stands there");
        assert_eq!(rows.of_order(first.asked.order).await.unwrap(), [first, other]);
        let due = Some(T0.plus(5));
        assert!(!rows.second(first.id, &by(1), due).await.unwrap(), "he has asked himself");
        assert!(rows.second(first.id, &by(2), due).await.unwrap());
        assert!(!rows.second(first.id, &by(3), due).await.unwrap(), "somebody was faster");
        assert!(rows.second(other.id, &Seconded { key: None, ..by(3) }, None).await.unwrap());
        let seconded = [
            Approval { seconded: Some(by(2)), ..first },
            Approval { seconded: Some(Seconded { key: None, ..by(3) }), ..other },
        ];
        assert_eq!(rows.of_order(first.asked.order).await.unwrap(), seconded);
        tables.close().await.unwrap();
    }

    #[rstest]
    #[tokio::test]
    async fn what_waits_is_listed_and_swept_and_what_had_two_stays(#[values(Sqlite, MySql)] home: Home) {
        let (_dir, tables) = home.tables().await;
        let rows = tables.money().approvals();
        let asked: Vec<Approval> = (0..4).map(|n| asked_at(T0.plus(i64::from(n)), n)).collect();
        for approval in &asked {
            rows.ask(approval).await.unwrap();
        }
        assert!(rows.second(asked[1].id, &by(2), None).await.unwrap());
        let page = async |since, after, most| rows.waiting(since, after, most).await.unwrap();
        assert_eq!(page(T0, [0; 16], 9).await, [asked[0], asked[2], asked[3]]);
        assert_eq!(page(T0, *asked[0].id.as_bytes(), 1).await, [asked[2]]);
        assert_eq!(page(T0.plus(3), [0; 16], 9).await, [asked[3]]);
        assert_eq!(rows.sweep(T0.plus(3)).await.unwrap(), 2);
        assert_eq!(page(T0, [0; 16], 9).await, [asked[3]]);
        assert_eq!(rows.of_order(asked[1].asked.order).await.unwrap().len(), 1, "it is known again");
        tables.close().await.unwrap();
    }

    #[rstest]
    #[tokio::test]
    async fn what_has_two_is_due_and_listed_until_its_refund_is_written(#[values(Sqlite, MySql)] home: Home) {
        let (_dir, tables) = home.tables().await;
        let rows = tables.money().approvals();
        let asked: Vec<Approval> = (0..3).map(|n| asked_at(T0.plus(i64::from(n)), n)).collect();
        for approval in &asked {
            rows.ask(approval).await.unwrap();
        }
        // Nobody has seconded it.
        rows.due_at(asked[0].id, Some(T0)).await.unwrap();
        for (approval, due) in asked.iter().skip(1).zip([7, 5]) {
            assert!(rows.second(approval.id, &by(2), Some(T0.plus(due))).await.unwrap());
        }
        let due = async |at: i64, most| rows.due(T0.plus(at), most).await.unwrap();
        let ids = |found: Vec<Approval>| found.iter().map(|one| one.id).collect::<Vec<_>>();
        assert!(due(4, 9).await.is_empty());
        assert_eq!(ids(due(9, 9).await), [asked[2].id, asked[1].id]);
        assert_eq!(ids(due(9, 1).await), [asked[2].id]);
        let listed = async |since| ids(rows.waiting(since, [0; 16], 9).await.unwrap());
        assert_eq!(listed(T0).await, [asked[0].id, asked[1].id, asked[2].id]);
        assert_eq!(listed(T0.plus(9)).await, [asked[1].id, asked[2].id], "however long ago");
        rows.due_at(asked[2].id, Some(T0.plus(20))).await.unwrap();
        rows.due_at(asked[1].id, None).await.unwrap();
        assert!(due(19, 9).await.is_empty());
        assert_eq!(listed(T0.plus(9)).await, [asked[2].id]);
        assert_eq!(ids(due(20, 9).await), [asked[2].id]);
        tables.close().await.unwrap();
    }

    #[rstest]
    #[tokio::test]
    async fn what_has_lapsed_goes_some_at_a_time(#[values(Sqlite, MySql)] home: Home) {
        let (_dir, tables) = home.tables().await;
        let rows = tables.money().approvals();
        for number in 0..=i64::from(SWEEP_MAX) {
            rows.ask(&asked_at(T0.plus(number), 1)).await.unwrap();
        }
        let later = T0.plus(i64::from(SWEEP_MAX) + 1);
        assert_eq!(rows.sweep(later).await.unwrap(), SWEEP_MAX as usize);
        assert_eq!(rows.sweep(later).await.unwrap(), 1);
        assert_eq!(rows.sweep(later).await.unwrap(), 0);
        tables.close().await.unwrap();
    }
}
