//! The `webhook_deliveries` rows: one event on its way to one endpoint, and what became of it.
//!
//! A delivery is sent at least once. Whoever claims a row moves its next time into the future and its version by one, as in the
//! outbox of mails; if he dies, the time comes, and it is claimed again. Marks are not synced one by one: a power cut that takes one
//! back has the same event sent again, under the same id.

use std::sync::LazyLock;

use super::{Changing, WebhookRows};
use crate::domain::id::{DeliveryId, EndpointId, EventId};
use crate::domain::stock::Millis;
use crate::domain::webhook::EventKind;
use crate::persistence::StoreError;
use crate::persistence::sql::{self, Connection, Damaged, Listed, Row, signed, sixteen, unsigned};

/// Rows removed in one transaction.
const SWEEP_MAX: u32 = 256;

macro_rules! deliveries {
    ($rest:literal) => {
        concat!(
            "select id, endpoint_id, event_id, kind, body, state, tries, next_at_ms, last_status, last_error, \
             created_at_ms, updated_at_ms, version from webhook_deliveries ",
            $rest
        )
    };
}

static INSERT: LazyLock<Listed> = LazyLock::new(|| {
    Listed::new(
        "insert into webhook_deliveries (id, endpoint_id, event_id, kind, body, state, tries, next_at_ms, \
         created_at_ms, updated_at_ms, version) values ",
        "(?, ?, ?, ?, ?, 'waiting', 0, ?, ?, ?, 1)",
        "",
    )
});
pub(super) static DROP: LazyLock<Listed> =
    LazyLock::new(|| Listed::new("delete from webhook_deliveries where id in (", "?", ")"));
/// Who looked saw it delivered; an administrator may have had it sent again since.
pub(super) static DROP_DELIVERED: LazyLock<Listed> = LazyLock::new(|| {
    Listed::new("delete from webhook_deliveries where state = 'delivered' and id in (", "?", ")")
});
const DUE: &str = deliveries!(
    "where endpoint_id = ? and state = 'waiting' and next_at_ms <= ? order by next_at_ms, id limit ?"
);
const CLAIM: &str = "update webhook_deliveries set next_at_ms = ?, tries = tries + 1, version = version + 1 \
    where id = ? and version = ?";
const MARK: &str = "update webhook_deliveries set state = ?, next_at_ms = ?, last_status = ?, last_error = ?, \
    updated_at_ms = ?, version = version + 1 where id = ? and version = ?";
/// Whoever has a key has it sent again once.
const AGAIN: &str = "update webhook_deliveries set state = 'waiting', tries = 0, next_at_ms = ?, updated_at_ms = ?, \
    again_by = coalesce(?, again_by), version = version + 1 \
    where id = ? and state in ('delivered', 'dead') and (again_by is null or again_by <> ?)";
const AGAIN_BY: &str = "select count(*) from webhook_deliveries where id = ? and again_by = ?";
const FIND: &str = deliveries!("where id = ?");
const PAGE: &str = deliveries!("where endpoint_id = ? and state = ? and id < ? order by id desc limit ?");
/// The newest of each state, in one moment: a delivery moves from state to state, and is in one of them.
const PAGE_OF_ALL: &str = concat!(
    "select * from (",
    deliveries!("where endpoint_id = ? and state = ? and id < ? order by id desc limit ?"),
    ") a union all select * from (",
    deliveries!("where endpoint_id = ? and state = ? and id < ? order by id desc limit ?"),
    ") b union all select * from (",
    deliveries!("where endpoint_id = ? and state = ? and id < ? order by id desc limit ?"),
    ") c"
);
const NEXT: &str =
    "select min(next_at_ms) from webhook_deliveries where endpoint_id = ? and state = 'waiting'";
const COUNT: &str =
    "select count(*) from (select 1 from webhook_deliveries where endpoint_id = ? and state = ? limit ?) few";
const OLDEST: &str = "select min(id) from webhook_deliveries where endpoint_id = ? and state = 'waiting'";
/// What waits and was touched since, by an administrator perhaps, is yet to be sent.
const OLD: &str = "select id from webhook_deliveries where id < ? \
    and (state = 'delivered' or ? = 1 and (state = 'dead' or updated_at_ms < ?)) order by id limit ?";
const OF_REMOVED: &str = "select id from webhook_deliveries where endpoint_id = ? limit ?";

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryState {
    Waiting,
    Delivered,
    /// Given up.
    Dead,
}

impl DeliveryState {
    pub const ALL: &'static [DeliveryState] =
        &[DeliveryState::Waiting, DeliveryState::Delivered, DeliveryState::Dead];

    pub fn as_str(self) -> &'static str {
        match self {
            DeliveryState::Waiting => "waiting",
            DeliveryState::Delivered => "delivered",
            DeliveryState::Dead => "dead",
        }
    }

    pub fn from_word(word: &str) -> Option<DeliveryState> {
        Self::ALL.iter().copied().find(|state| state.as_str() == word)
    }
}

/// A delivery as its row keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    pub id: DeliveryId,
    pub endpoint: EndpointId,
    pub event: EventId,
    pub kind: EventKind,
    /// What is sent, to the byte.
    pub body: String,
    pub state: DeliveryState,
    pub tries: u32,
    /// When it is sent next, while it waits.
    pub next_at: Millis,
    /// What the endpoint answered last, if it did.
    pub last_status: Option<u16>,
    /// Why there was no answer, in a word.
    pub last_error: Option<String>,
    pub created_at: Millis,
    pub updated_at: Millis,
}

impl Delivery {
    /// Due at once.
    pub fn new(
        id: DeliveryId,
        endpoint: EndpointId,
        event: EventId,
        kind: EventKind,
        body: String,
    ) -> Delivery {
        let now = id.made_at();
        Delivery {
            id,
            endpoint,
            event,
            kind,
            body,
            state: DeliveryState::Waiting,
            tries: 0,
            next_at: now,
            last_status: None,
            last_error: None,
            created_at: now,
            updated_at: now,
        }
    }
}

/// A delivery that is ours to send until the lease runs out. Its tries count this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    pub delivery: Delivery,
    version: u64,
}

/// How much waits for one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Waiting {
    pub waiting: u64,
    pub dead: u64,
    /// When the oldest that waits was made.
    pub oldest: Option<Millis>,
}

/// Adds deliveries to the caller's transaction.
pub(super) async fn insert(connection: &mut Connection, deliveries: &[Delivery]) -> Result<(), StoreError> {
    for (sql, piece) in INSERT.cut(deliveries) {
        let query = piece.iter().fold(sql::query(sql), |query, delivery| {
            query
                .bind(&delivery.id.as_bytes()[..])
                .bind(&delivery.endpoint.as_bytes()[..])
                .bind(&delivery.event.as_bytes()[..])
                .bind(delivery.kind.as_str())
                .bind(&delivery.body)
                .bind(delivery.next_at.0)
                .bind(delivery.created_at.0)
                .bind(delivery.updated_at.0)
        });
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

impl WebhookRows {
    /// Up to `most` deliveries to an endpoint that are due at `now`, ours until `until`.
    pub async fn claim(
        &self,
        endpoint: EndpointId,
        now: Millis,
        until: Millis,
        most: usize,
    ) -> Result<Vec<Claimed>, StoreError> {
        let due = sql::query(DUE).bind(endpoint.as_bytes().to_vec()).bind(now.0).bind(signed(most as u64));
        let rows = due.fetch_all(&self.store.readers()).await?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let mut transaction = self.store.begin().await?;
        let claimed = claim_each(&mut transaction, &rows, until).await;
        transaction.end(claimed).await
    }

    /// What became of a try: the delivery's state, status and error, and, if it waits, when it is sent again. `false`: it was
    /// somebody else's by now.
    pub async fn mark(&self, claimed: &Claimed, now: Millis) -> Result<bool, StoreError> {
        let Claimed { delivery, version } = claimed;
        let mark = sql::query(MARK)
            .bind(delivery.state.as_str())
            .bind(delivery.next_at.0)
            .bind(delivery.last_status.map(i64::from))
            .bind(&delivery.last_error)
            .bind(now.0)
            .bind(&delivery.id.as_bytes()[..])
            .bind(signed(*version));
        Ok(self.store.write(mark).await? == 1)
    }

    /// Has it sent again, if it is not on its way and this key has not had it sent again last; synced before it returns.
    pub async fn again(
        &self,
        id: DeliveryId,
        key: Option<[u8; 16]>,
        now: Millis,
    ) -> Result<bool, StoreError> {
        let key = key.map(|key| key.to_vec());
        let again = sql::query(AGAIN)
            .bind(now.0)
            .bind(now.0)
            .bind(key.clone())
            .bind(&id.as_bytes()[..])
            .bind(key.unwrap_or_default());
        // Whoever remembers when the next one is due must look again.
        let _changing = Changing(&self.interest);
        Ok(self.store.write_synced(again).await? == 1)
    }

    /// Whether this key was the last to have it sent again.
    pub async fn was_again_by(&self, id: DeliveryId, key: [u8; 16]) -> Result<bool, StoreError> {
        let by = sql::query_scalar(AGAIN_BY).bind(id.as_bytes().to_vec()).bind(key.to_vec());
        let found: i64 = by.fetch_one(&self.store.readers()).await?;
        Ok(found > 0)
    }

    pub async fn delivery(&self, id: DeliveryId) -> Result<Option<Delivery>, StoreError> {
        let row = sql::query(FIND).bind(&id.as_bytes()[..]).fetch_optional(&self.store.readers()).await?;
        row.as_ref().map(|row| Ok(claimed_of(row)?.delivery)).transpose()
    }

    /// An endpoint's deliveries made before `before`, newest first.
    pub async fn deliveries(
        &self,
        endpoint: EndpointId,
        state: Option<DeliveryState>,
        before: Option<DeliveryId>,
        limit: u32,
    ) -> Result<Vec<Delivery>, StoreError> {
        let before = before.unwrap_or(DeliveryId::from_bytes([0xff; 16]));
        let (page, states) = match &state {
            Some(state) => (PAGE, std::slice::from_ref(state)),
            None => (PAGE_OF_ALL, DeliveryState::ALL),
        };
        let page = states.iter().fold(sql::query(page), |page, state| {
            page.bind(endpoint.as_bytes().to_vec())
                .bind(state.as_str())
                .bind(before.as_bytes().to_vec())
                .bind(limit)
        });
        let mut found = Vec::new();
        for row in page.fetch_all(&self.store.readers()).await? {
            found.push(claimed_of(&row)?.delivery);
        }
        found.sort_by_key(|delivery| std::cmp::Reverse(delivery.id));
        found.truncate(limit as usize);
        Ok(found)
    }

    /// When the next delivery to an endpoint is due.
    pub async fn next_due(&self, endpoint: EndpointId) -> Result<Option<Millis>, StoreError> {
        let next = sql::query_scalar(NEXT).bind(endpoint.as_bytes().to_vec());
        let at: Option<i64> = next.fetch_one(&self.store.readers()).await?;
        Ok(at.map(Millis))
    }

    /// How much waits for an endpoint, and how much was given up; counted up to `most`.
    pub async fn waiting(&self, endpoint: EndpointId, most: u64) -> Result<Waiting, StoreError> {
        let id = endpoint.as_bytes().to_vec();
        let count = async |state: DeliveryState| -> Result<u64, StoreError> {
            let count = sql::query(COUNT).bind(id.clone()).bind(state.as_str()).bind(signed(most));
            unsigned(&count.fetch_one(&self.store.readers()).await?, 0)
        };
        let oldest: Option<Vec<u8>> =
            sql::query_scalar(OLDEST).bind(id.clone()).fetch_one(&self.store.readers()).await?;
        let oldest = oldest.and_then(|id| id.try_into().ok()).map(DeliveryId::from_bytes);
        Ok(Waiting {
            waiting: count(DeliveryState::Waiting).await?,
            dead: count(DeliveryState::Dead).await?,
            oldest: oldest.map(|id| id.made_at()),
        })
    }

    /// Removes some of what arrived and was made before `arrived`, of everything made and touched before `all`, and of what belongs to
    /// endpoints that were removed; `false` when nothing of it is left.
    pub async fn sweep(&self, arrived: Millis, all: Millis) -> Result<bool, StoreError> {
        let mut more = false;
        for (made_before, all, drop) in [(arrived, 0_i64, &DROP_DELIVERED), (all, 1, &DROP)] {
            let before = DeliveryId::new(made_before, 0).as_bytes().to_vec();
            let old = sql::query_scalar(OLD).bind(before).bind(all).bind(made_before.0).bind(SWEEP_MAX);
            more |= self.drop_some(drop, old.fetch_all(&self.store.readers()).await?).await?;
        }
        if let Some(endpoint) = self.removed().await? {
            let rest = sql::query_scalar(OF_REMOVED).bind(endpoint.as_bytes().to_vec()).bind(SWEEP_MAX);
            let rest: Vec<Vec<u8>> = rest.fetch_all(&self.store.readers()).await?;
            if rest.is_empty() {
                self.forget(endpoint).await?;
            } else {
                self.drop_some(&DROP, rest).await?;
            }
            more = true;
        }
        Ok(more)
    }

    /// Whether there may be more.
    pub(super) async fn drop_some(
        &self,
        drop: &'static Listed,
        ids: Vec<Vec<u8>>,
    ) -> Result<bool, StoreError> {
        if !ids.is_empty() {
            let mut transaction = self.store.begin().await?;
            let dropped = drop_each(&mut transaction, drop, &ids).await;
            transaction.end(dropped).await?;
        }
        Ok(ids.len() >= SWEEP_MAX as usize)
    }
}

async fn drop_each(
    connection: &mut Connection,
    drop: &'static Listed,
    ids: &[Vec<u8>],
) -> Result<(), StoreError> {
    for (sql, piece) in drop.cut(ids) {
        let query = piece.iter().fold(sql::query(sql), |query, id| query.bind(id));
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

async fn claim_each(
    writer: &mut Connection,
    rows: &[Row],
    until: Millis,
) -> Result<Vec<Claimed>, StoreError> {
    let mut claimed = Vec::with_capacity(rows.len());
    for row in rows {
        let mut seen = match claimed_of(row) {
            Err(StoreError::Damaged(damaged)) => {
                // It holds up nobody, and stays for whoever looks into it.
                tracing::error!(%damaged, "a webhook delivery cannot be read");
                continue;
            }
            seen => seen?,
        };
        let moved = sql::query(CLAIM)
            .bind(until.0)
            .bind(&seen.delivery.id.as_bytes()[..])
            .bind(signed(seen.version))
            .execute(&mut *writer)
            .await?;
        if moved.rows_affected() == 1 {
            seen.delivery.tries += 1;
            seen.version += 1;
            claimed.push(seen);
        }
    }
    Ok(claimed)
}

fn claimed_of(row: &Row) -> Result<Claimed, StoreError> {
    let status: Option<i64> = row.try_get(8)?;
    let delivery = Delivery {
        id: DeliveryId::from_bytes(sixteen(row, 0)?),
        endpoint: EndpointId::from_bytes(sixteen(row, 1)?),
        event: EventId::from_bytes(sixteen(row, 2)?),
        kind: EventKind::from_word(row.try_get(3)?).ok_or(Damaged { what: "kind of a delivery" })?,
        body: row.try_get(4)?,
        state: DeliveryState::from_word(row.try_get(5)?).ok_or(Damaged { what: "state of a delivery" })?,
        tries: unsigned(row, 6)?,
        next_at: Millis(row.try_get(7)?),
        last_status: status.and_then(|status| u16::try_from(status).ok()),
        last_error: row.try_get(9)?,
        created_at: Millis(row.try_get(10)?),
        updated_at: Millis(row.try_get(11)?),
    };
    Ok(Claimed { delivery, version: unsigned(row, 12)? })
}
