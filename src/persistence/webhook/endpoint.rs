//! The `webhook_endpoints` and `webhook_secrets` rows: who is told what, and with what it is signed.
//!
//! Each write by hand is synced before it is answered. Always true: a secret is sealed under a key of its own; the newest of an
//! endpoint has no end, those before it have one; and what the flush is asked to write follows from the enabled endpoints, for
//! whoever changes these changes that.

use super::{Changing, WebhookRows};
use crate::domain::id::EndpointId;
use crate::domain::stock::{KeyUse, Millis};
use crate::domain::webhook::Kinds;
use crate::persistence::StoreError;
use crate::persistence::sql::{self, Connection, Damaged, Row, sixteen, time, unsigned};
use crate::vault::WrappedKey;

macro_rules! endpoints {
    ($rest:literal) => {
        concat!(
            "select id, url, description, events, state, reason, failing_since_ms, created_at_ms, updated_at_ms \
             from webhook_endpoints ",
            $rest
        )
    };
}
macro_rules! secrets {
    ($rest:literal) => {
        concat!(
            "select endpoint_id, number, wrapped_key, secret, expires_at_ms, made_of from webhook_secrets ",
            $rest
        )
    };
}

const ALL: &str = endpoints!("where state <> 'removed' order by id desc");
const FIND: &str = endpoints!("where id = ? and state <> 'removed'");
const WANTED: &str = "select events from webhook_endpoints where state = 'enabled'";
const REMOVED: &str = "select id from webhook_endpoints where state = 'removed' order by id limit 1";
const INSERT: &str = "insert into webhook_endpoints (id, url, description, events, state, reason, failing_since_ms, \
    created_at_ms, updated_at_ms) values (?, ?, ?, ?, ?, ?, ?, ?, ?)";
const UPDATE: &str = "update webhook_endpoints set description = ?, events = ?, state = ?, reason = ?, \
    failing_since_ms = ?, updated_at_ms = ? where id = ? and state <> 'removed'";
const FAILING: &str = "update webhook_endpoints set failing_since_ms = ? where id = ? and state = 'enabled'";
const DISABLE: &str = "update webhook_endpoints set state = 'disabled', reason = ?, updated_at_ms = ? \
    where id = ? and state = 'enabled'";
const REMOVE: &str =
    "update webhook_endpoints set state = 'removed', updated_at_ms = ? where id = ? and state <> 'removed'";
const FORGET: &str = "delete from webhook_endpoints where id = ? and state = 'removed'";
const SECRETS: &str = secrets!("where endpoint_id = ? order by number desc");
const BY_KEY: &str = secrets!("where made_by = ?");
const ALL_SECRETS: &str = secrets!("order by endpoint_id, number");
const INSERT_SECRET: &str = "insert into webhook_secrets (endpoint_id, number, wrapped_key, secret, expires_at_ms, \
    made_by, made_of, created_at_ms) values (?, ?, ?, ?, ?, ?, ?, ?)";
const EXPIRE: &str =
    "update webhook_secrets set expires_at_ms = ? where endpoint_id = ? and expires_at_ms is null";
const COUNT_SECRETS: &str = "select count(*), max(number) from webhook_secrets where endpoint_id = ?";
const DROP_EXPIRED: &str = "delete from webhook_secrets where endpoint_id = ? and expires_at_ms <= ?";
const DROP_SECRETS: &str = "delete from webhook_secrets where endpoint_id = ?";
const REWRAP: &str = "update webhook_secrets set wrapped_key = ? where endpoint_id = ? and number = ?";

/// Whether an endpoint is told anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointState {
    Enabled,
    Disabled(Reason),
}

/// Why it is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// An administrator said so.
    Asked,
    /// It answered 410.
    Gone,
    /// It has taken nothing for days.
    Failing,
    /// More waits for it than it will ever catch up with.
    Backlog,
}

impl Reason {
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Asked => "asked",
            Reason::Gone => "gone",
            Reason::Failing => "failing",
            Reason::Backlog => "backlog",
        }
    }

    fn from_word(word: &str) -> Option<Reason> {
        [Reason::Asked, Reason::Gone, Reason::Failing, Reason::Backlog]
            .into_iter()
            .find(|reason| reason.as_str() == word)
    }
}

/// A receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub id: EndpointId,
    pub url: String,
    pub description: String,
    pub kinds: Kinds,
    pub state: EndpointState,
    /// When it last began to fail; `None` while it takes what it is sent.
    pub failing_since: Option<Millis>,
    pub created_at: Millis,
    pub updated_at: Millis,
}

/// One secret of an endpoint, sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretRow {
    pub endpoint: EndpointId,
    /// 1 at first, one more for each rotation.
    pub number: u32,
    pub key: WrappedKey,
    /// Sealed under `key`.
    pub secret: Vec<u8>,
    /// `None` for the newest.
    pub expires_at: Option<Millis>,
    /// The hash of the request that made it.
    pub made_of: u64,
}

/// Why an endpoint was not written.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    #[error("there is no such endpoint")]
    NoEndpoint,
    #[error("another request with this key was faster")]
    KeyTaken,
    #[error("there are as many as there may be")]
    TooMany,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sql::Error> for EndpointError {
    fn from(error: sql::Error) -> EndpointError {
        match sql::is_duplicate(&error) {
            // Ids are made of chance: the only key that can be there already is the caller's.
            true => EndpointError::KeyTaken,
            false => EndpointError::Store(error.into()),
        }
    }
}

/// What the enabled endpoints want, all together.
pub(super) async fn wanted(connection: &mut Connection) -> Result<Kinds, StoreError> {
    all_kinds(&sql::query_scalar(WANTED).fetch_all(connection).await?)
}

fn all_kinds(words: &[String]) -> Result<Kinds, StoreError> {
    words.iter().try_fold(Kinds::default(), |all, words| Ok(all.and(kinds(words)?)))
}

fn kinds(words: &str) -> Result<Kinds, StoreError> {
    Ok(Kinds::from_words(words).ok_or(Damaged { what: "kinds of an endpoint" })?)
}

impl WebhookRows {
    /// Every endpoint, newest first.
    pub async fn endpoints(&self) -> Result<Vec<Endpoint>, StoreError> {
        sql::query(ALL).fetch_all(&self.store.readers()).await?.iter().map(endpoint).collect()
    }

    pub async fn endpoint(&self, id: EndpointId) -> Result<Option<Endpoint>, StoreError> {
        let row = sql::query(FIND).bind(&id.as_bytes()[..]).fetch_optional(&self.store.readers()).await?;
        row.as_ref().map(endpoint).transpose()
    }

    /// Its secrets, newest first, those that have expired included.
    pub async fn secrets(&self, id: EndpointId) -> Result<Vec<SecretRow>, StoreError> {
        let rows = sql::query(SECRETS).bind(&id.as_bytes()[..]).fetch_all(&self.store.readers()).await?;
        rows.iter().map(secret).collect()
    }

    /// Every secret there is.
    pub async fn all_secrets(&self) -> Result<Vec<SecretRow>, StoreError> {
        sql::query(ALL_SECRETS).fetch_all(&self.store.readers()).await?.iter().map(secret).collect()
    }

    /// The secret that was made with this key.
    pub async fn secret_by_key(&self, key: [u8; 16]) -> Result<Option<SecretRow>, StoreError> {
        let row = sql::query(BY_KEY).bind(&key[..]).fetch_optional(&self.store.readers()).await?;
        row.as_ref().map(secret).transpose()
    }

    /// A new endpoint with its first secret, unless there are `most` already.
    pub async fn register(
        &self,
        endpoint: &Endpoint,
        secret: &SecretRow,
        key: Option<KeyUse>,
        most: usize,
    ) -> Result<(), EndpointError> {
        self.changing(async |connection| {
            let (state, reason) = state_words(endpoint.state);
            let insert = sql::query(INSERT)
                .bind(&endpoint.id.as_bytes()[..])
                .bind(&endpoint.url)
                .bind(&endpoint.description)
                .bind(endpoint.kinds.words())
                .bind(state)
                .bind(reason)
                .bind(endpoint.failing_since.map(|at| at.0))
                .bind(endpoint.created_at.0)
                .bind(endpoint.updated_at.0);
            insert.execute(&mut *connection).await?;
            insert_secret(connection, secret, key, endpoint.created_at).await?;
            let all = sql::query(ALL).fetch_all(connection).await?.len();
            if all <= most { Ok(()) } else { Err(EndpointError::TooMany) }
        })
        .await
    }

    /// Description, kinds and state of an endpoint become what `change` makes of them; the endpoint as it is then.
    pub async fn change(
        &self,
        id: EndpointId,
        change: impl FnOnce(&mut Endpoint),
    ) -> Result<Endpoint, EndpointError> {
        self.changing(async |connection| {
            let found = sql::query(FIND).bind(&id.as_bytes()[..]).fetch_optional(&mut *connection).await?;
            let mut endpoint = endpoint(&found.ok_or(EndpointError::NoEndpoint)?)?;
            change(&mut endpoint);
            let (state, reason) = state_words(endpoint.state);
            let update = sql::query(UPDATE)
                .bind(&endpoint.description)
                .bind(endpoint.kinds.words())
                .bind(state)
                .bind(reason)
                .bind(endpoint.failing_since.map(|at| at.0))
                .bind(endpoint.updated_at.0)
                .bind(&endpoint.id.as_bytes()[..]);
            one(update.execute(connection).await?.rows_affected())?;
            Ok(endpoint)
        })
        .await
    }

    /// A new secret, which gets its number here; those before it are good until `former_until`, and what has expired by
    /// `now` goes. With `most` secrets that are good there is no room for another.
    pub async fn rotate(
        &self,
        secret: &SecretRow,
        key: Option<KeyUse>,
        now: Millis,
        former_until: Millis,
        most: u32,
    ) -> Result<(), EndpointError> {
        self.changing(async |connection| {
            let id = &secret.endpoint.as_bytes()[..];
            if sql::query(FIND).bind(id).fetch_optional(&mut *connection).await?.is_none() {
                return Err(EndpointError::NoEndpoint);
            }
            sql::query(DROP_EXPIRED).bind(id).bind(now.0).execute(&mut *connection).await?;
            let (count, last): (i64, Option<i64>) =
                sql::query_as(COUNT_SECRETS).bind(id).fetch_one(&mut *connection).await?;
            sql::query(EXPIRE).bind(former_until.0).bind(id).execute(&mut *connection).await?;
            let number = last.and_then(|last| u32::try_from(last).ok()).unwrap_or_default() + 1;
            // The key first: it may have made the last one that there was room for.
            insert_secret(connection, &SecretRow { number, ..secret.clone() }, key, now).await?;
            if count < i64::from(most) { Ok(()) } else { Err(EndpointError::TooMany) }
        })
        .await
    }

    /// Removes an endpoint: nothing more is sent, its secrets are destroyed at once, its deliveries by the sweep.
    pub async fn remove(&self, id: EndpointId, now: Millis) -> Result<(), EndpointError> {
        self.changing(async |connection| {
            let id = &id.as_bytes()[..];
            one(sql::query(REMOVE).bind(now.0).bind(id).execute(&mut *connection).await?.rows_affected())?;
            sql::query(DROP_SECRETS).bind(id).execute(connection).await?;
            Ok(())
        })
        .await
    }

    /// Nothing more is sent until somebody says so; `false`: it was so already.
    pub async fn disable(&self, id: EndpointId, reason: Reason, now: Millis) -> Result<bool, EndpointError> {
        self.changing(async |connection| {
            let disable = sql::query(DISABLE).bind(reason.as_str()).bind(now.0).bind(&id.as_bytes()[..]);
            Ok(disable.execute(connection).await?.rows_affected() == 1)
        })
        .await
    }

    /// When it began to fail, or that it no longer does.
    pub async fn failing(&self, id: EndpointId, since: Option<Millis>) -> Result<(), StoreError> {
        let failing = sql::query(FAILING).bind(since.map(|at| at.0)).bind(&id.as_bytes()[..]);
        self.store.write(failing).await.map(drop)
    }

    /// An endpoint that was removed and still has a row.
    pub(super) async fn removed(&self) -> Result<Option<EndpointId>, StoreError> {
        let row = sql::query(REMOVED).fetch_optional(&self.store.readers()).await?;
        row.map(|row| Ok(EndpointId::from_bytes(sixteen(&row, 0)?))).transpose()
    }

    /// Its last row.
    pub(super) async fn forget(&self, id: EndpointId) -> Result<(), StoreError> {
        self.store.write_synced(sql::query(FORGET).bind(&id.as_bytes()[..])).await?;
        Ok(())
    }

    /// The same secret under another wrapping.
    pub async fn rewrap(&self, secret: &SecretRow, key: &WrappedKey) -> Result<(), StoreError> {
        let rewrap = sql::query(REWRAP)
            .bind(key.as_bytes())
            .bind(&secret.endpoint.as_bytes()[..])
            .bind(i64::from(secret.number));
        self.store.write_synced(rewrap).await?;
        Ok(())
    }

    /// One synced transaction that changes endpoints; what the flush is asked to write follows it.
    async fn changing<T>(
        &self,
        change: impl AsyncFnOnce(&mut Connection) -> Result<T, EndpointError>,
    ) -> Result<T, EndpointError> {
        let _turn = self.interest.0.turn.lock().await;
        let _changing = Changing(&self.interest);
        let mut transaction = self.store.begin_synced().await?;
        let changed = match change(&mut transaction).await {
            Ok(value) => {
                wanted(&mut transaction).await.map(|kinds| (value, kinds)).map_err(EndpointError::from)
            }
            Err(error) => Err(error),
        };
        // Where the answer to the commit is lost they may want it.
        if let Ok((_, kinds)) = &changed {
            self.interest.widen(*kinds);
        }
        let (value, kinds) = transaction.end(changed).await?;
        self.interest.set(kinds);
        Ok(value)
    }

    /// Reads once more what endpoints want: whatever went wrong when one was changed is over then.
    pub async fn look_again(&self) -> Result<(), StoreError> {
        let _turn = self.interest.0.turn.lock().await;
        let _changing = Changing(&self.interest);
        let words: Vec<String> = sql::query_scalar(WANTED).fetch_all(&self.store.readers()).await?;
        self.interest.set(all_kinds(&words)?);
        Ok(())
    }
}

async fn insert_secret(
    connection: &mut Connection,
    secret: &SecretRow,
    key: Option<KeyUse>,
    now: Millis,
) -> Result<(), EndpointError> {
    sql::query(INSERT_SECRET)
        .bind(&secret.endpoint.as_bytes()[..])
        .bind(i64::from(secret.number))
        .bind(secret.key.as_bytes())
        .bind(&secret.secret)
        .bind(secret.expires_at.map(|at| at.0))
        .bind(key.map(|key| key.key.to_vec()))
        .bind(secret.made_of.cast_signed())
        .bind(now.0)
        .execute(connection)
        .await?;
    Ok(())
}

fn one(rows: u64) -> Result<(), EndpointError> {
    if rows == 1 { Ok(()) } else { Err(EndpointError::NoEndpoint) }
}

fn state_words(state: EndpointState) -> (&'static str, Option<&'static str>) {
    match state {
        EndpointState::Enabled => ("enabled", None),
        EndpointState::Disabled(reason) => ("disabled", Some(reason.as_str())),
    }
}

fn endpoint(row: &Row) -> Result<Endpoint, StoreError> {
    let damaged = Damaged { what: "state of an endpoint" };
    let (state, reason): (&str, Option<&str>) = (row.try_get(4)?, row.try_get(5)?);
    let state = match (state, reason.map(Reason::from_word)) {
        ("enabled", None) => EndpointState::Enabled,
        ("disabled", Some(Some(reason))) => EndpointState::Disabled(reason),
        _ => return Err(damaged.into()),
    };
    Ok(Endpoint {
        id: EndpointId::from_bytes(sixteen(row, 0)?),
        url: row.try_get(1)?,
        description: row.try_get(2)?,
        kinds: kinds(row.try_get(3)?)?,
        state,
        failing_since: time(row, 6)?,
        created_at: Millis(row.try_get(7)?),
        updated_at: Millis(row.try_get(8)?),
    })
}

fn secret(row: &Row) -> Result<SecretRow, StoreError> {
    let key: &[u8] = row.try_get(2)?;
    Ok(SecretRow {
        endpoint: EndpointId::from_bytes(sixteen(row, 0)?),
        number: unsigned(row, 1)?,
        key: WrappedKey::from_bytes(key).map_err(|_| Damaged { what: "key of a webhook secret" })?,
        secret: row.try_get(3)?,
        expires_at: time(row, 4)?,
        made_of: row.try_get::<i64>(5)?.cast_unsigned(),
    })
}
