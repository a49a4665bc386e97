//! The `webhook_events` rows: a queue between the flush, which fills it, and the dispatcher, which empties it.
//!
//! A row is named by the place in the journal up to which its slice went, and its number in there. Always true: rows only come
//! behind all others, so whoever has dealt with one has dealt with all before it; and a row goes in the transaction that made
//! deliveries of it.

use std::sync::LazyLock;

use super::WebhookRows;
use super::delivery::{self, Delivery};
use crate::domain::id::EventId;
use crate::domain::stock::Millis;
use crate::domain::webhook::{EventKind, Happening};
use crate::persistence::StoreError;
use crate::persistence::sql::{self, Connection, Damaged, Listed, signed, sixteen};

static INSERT: LazyLock<Listed> = LazyLock::new(|| {
    Listed::new(
        "insert into webhook_events (pos, number, id, kind, at_ms, data) values ",
        "(?, ?, ?, ?, ?, ?)",
        "",
    )
});
const FIRST: &str =
    "select pos, number, id, kind, at_ms, data from webhook_events order by pos, number limit ?";
const DROP_BEFORE: &str = "delete from webhook_events where pos < ?";
const DROP_AT: &str = "delete from webhook_events where pos = ? and number <= ?";

/// An event as it waits to be given to endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    pub id: EventId,
    pub kind: EventKind,
    pub at: Millis,
    /// JSON.
    pub data: String,
}

/// The oldest events that wait.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Taken {
    pub events: Vec<Told>,
    last: (i64, i64),
}

/// Adds what a slice that goes up to `pos` did, in the flush's transaction.
pub(in crate::persistence) async fn insert(
    connection: &mut Connection,
    pos: i64,
    happenings: &[Happening],
) -> Result<(), StoreError> {
    let rows: Vec<(u64, &Happening)> = (0..).zip(happenings).collect();
    for (sql, piece) in INSERT.cut(&rows) {
        let mut query = sql::query(sql);
        for (number, happening) in piece {
            let data = serde_json::to_string(&happening.data).map_err(|_| Damaged { what: "event" })?;
            query = query
                .bind(pos)
                .bind(signed(*number))
                .bind(happening.id.as_bytes().to_vec())
                .bind(happening.kind.as_str())
                .bind(happening.at.0)
                .bind(data);
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

impl WebhookRows {
    /// Up to `most` events, the oldest first; `None` when none waits.
    pub async fn events(&self, most: u32) -> Result<Option<Taken>, StoreError> {
        let rows = sql::query(FIRST).bind(most).fetch_all(&self.store.readers()).await?;
        let mut taken = Taken { events: Vec::with_capacity(rows.len()), last: (0, 0) };
        for row in &rows {
            let place = (row.try_get(0)?, row.try_get(1)?);
            taken.last = place;
            taken.events.push(Told {
                id: EventId::from_bytes(sixteen(row, 2)?),
                kind: EventKind::from_word(row.try_get(3)?).ok_or(Damaged { what: "kind of an event" })?,
                at: Millis(row.try_get(4)?),
                data: row.try_get(5)?,
            });
        }
        Ok((!rows.is_empty()).then_some(taken))
    }

    /// Puts these deliveries down in the place of the events they were made of.
    pub async fn fan_out(&self, taken: &Taken, deliveries: &[Delivery]) -> Result<(), StoreError> {
        let (pos, number) = taken.last;
        let mut transaction = self.store.begin().await?;
        let moved = async {
            delivery::insert(&mut transaction, deliveries).await?;
            sql::query(DROP_BEFORE).bind(pos).execute(&mut *transaction).await?;
            sql::query(DROP_AT).bind(pos).bind(number).execute(&mut *transaction).await?;
            Ok(())
        };
        let moved = moved.await;
        transaction.end(moved).await
    }
}
