//! The `letters_told` and `hold_reminders` rows: which letters about orders stood in the outbox once, and who is to be reminded when.
//!
//! A letter's own row goes when the letter has gone; that it was told stays, so that a notice which is read again long afterwards,
//! after a power cut or from a copy, is no second letter. Always true: a letter, that it was told, and the reminder that follows from
//! it are written in one transaction; and one dispatcher alone writes here, so what it has read is so when it writes.

use std::sync::LazyLock;

use super::{Aside, NoticeRows};
use crate::domain::id::{MailId, OrderId};
use crate::domain::stock::Millis;
use crate::persistence::outbox::{self, Mail};
use crate::persistence::sql::{self, Listed, signed, sixteen};
use crate::persistence::{StoreError, Writing};

static TOLD: LazyLock<Listed> =
    LazyLock::new(|| Listed::new("select id from letters_told where id in (", "?", ")"));
static TELL: LazyLock<Listed> =
    LazyLock::new(|| Listed::new("insert into letters_told (id) values ", "(?)", ""));
const OLD: &str = "select id from letters_told where id < ? order by id limit ?";
static FORGET: LazyLock<Listed> =
    LazyLock::new(|| Listed::new("delete from letters_told where id in (", "?", ")"));
static REMIND: LazyLock<Listed> =
    LazyLock::new(|| Listed::new("insert into hold_reminders (order_id, due_at_ms) values ", "(?, ?)", ""));
static END: LazyLock<Listed> =
    LazyLock::new(|| Listed::new("delete from hold_reminders where order_id in (", "?", ")"));
const DUE: &str =
    "select order_id from hold_reminders where due_at_ms <= ? order by due_at_ms, order_id limit ?";
const NEXT: &str = "select min(due_at_ms) from hold_reminders";
const COUNT: &str = "select count(*) from hold_reminders";

impl Writing<'_> {
    /// Adds letters, to be sent once this transaction stands, and the names of what they tell, none of which was told before.
    pub async fn tell(&mut self, names: &[MailId], mails: &[Mail]) -> Result<(), StoreError> {
        for (sql, piece) in TELL.cut(names) {
            let query = piece.iter().fold(sql::query(sql), |query, id| query.bind(id.as_bytes().to_vec()));
            query.execute(self.on()).await?;
        }
        outbox::insert_many(self.on(), mails).await
    }

    /// Has somebody reminded at a time; one that there was for the order is another's no more.
    pub async fn remind(&mut self, reminders: &[(OrderId, Millis)]) -> Result<(), StoreError> {
        let orders: Vec<OrderId> = reminders.iter().map(|(order, _)| *order).collect();
        self.end_reminders(&orders).await?;
        for (sql, piece) in REMIND.cut(reminders) {
            let query = piece
                .iter()
                .fold(sql::query(sql), |query, (order, at)| query.bind(order.as_bytes().to_vec()).bind(at.0));
            query.execute(self.on()).await?;
        }
        Ok(())
    }

    /// Nobody is reminded of these any more.
    pub async fn end_reminders(&mut self, orders: &[OrderId]) -> Result<(), StoreError> {
        for query in END.named(orders) {
            query.execute(self.on()).await?;
        }
        Ok(())
    }
}

impl Aside {
    /// Those of these names that were told before.
    pub async fn told(&self, letters: &[MailId]) -> Result<Vec<MailId>, StoreError> {
        let mut found = Vec::new();
        for query in TOLD.named(letters) {
            for row in query.fetch_all(&self.people).await? {
                found.push(MailId::from_bytes(sixteen(&row, 0)?));
            }
        }
        Ok(found)
    }

    /// Up to `most` orders whose buyers are to be reminded at `now` or before, the longest due first.
    pub async fn due(&self, now: Millis, most: u32) -> Result<Vec<OrderId>, StoreError> {
        let rows = sql::query(DUE).bind(now.0).bind(most).fetch_all(&self.people).await?;
        rows.iter().map(|row| Ok(OrderId::from_bytes(sixteen(row, 0)?))).collect()
    }

    /// When the next reminder is due.
    pub async fn next_due(&self) -> Result<Option<Millis>, StoreError> {
        let at: Option<i64> = sql::query_scalar(NEXT).fetch_one(&self.people).await?;
        Ok(at.map(Millis))
    }

    pub async fn reminders(&self) -> Result<u64, StoreError> {
        let count: i64 = sql::query_scalar(COUNT).fetch_one(&self.people).await?;
        Ok(count.unsigned_abs())
    }

    /// Up to `most` letters that are called after orders made before `before`.
    pub async fn told_before(&self, before: Millis, most: usize) -> Result<Vec<MailId>, StoreError> {
        let bound = MailId::new(before, 0);
        let query = sql::query(OLD).bind(&bound.as_bytes()[..]).bind(signed(most as u64));
        let rows = query.fetch_all(&self.people).await?;
        rows.iter().map(|row| Ok(MailId::from_bytes(sixteen(row, 0)?))).collect()
    }
}

impl NoticeRows {
    /// Forgets that these were told.
    pub async fn forget_told(&self, letters: &[MailId]) -> Result<(), StoreError> {
        for query in FORGET.named(letters) {
            self.people.write_synced(query).await?;
        }
        Ok(())
    }
}
