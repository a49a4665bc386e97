//! The `revocations` rows: sessions and users whose access tokens are refused although their signature is good.
//!
//! A row stands as long as such a token could live, and no longer. Every node reads what is new in here every other
//! second, so a log-out on one is heard on all.

use super::StoreError;
use super::sql::{self, Connection, Damaged, Pool, Row, sixteen};
use crate::domain::id::{SessionId, UserId};
use crate::domain::stock::Millis;

/// Whose tokens are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    Session(SessionId),
    /// Every session of theirs that began at this time or before.
    User(UserId, Millis),
}

/// One refusal, and how long it must be remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revocation {
    pub subject: Subject,
    pub until: Millis,
}

const SINCE: &str =
    "select subject, kind, epoch_ms, until_ms from revocations where noted_at_ms >= ? and until_ms > ?";
const UPDATE: &str = "update revocations set epoch_ms = case when epoch_ms > ? then epoch_ms else ? end, until_ms = case when until_ms > ? then until_ms else ? end, \
    noted_at_ms = ? where subject = ?";
const INSERT: &str =
    "insert into revocations (epoch_ms, until_ms, noted_at_ms, kind, subject) values (?, ?, ?, ?, ?)";
const FORGET: &str = "delete from revocations where until_ms <= ?";

/// Reads what was revoked. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RevocationReader {
    pub(super) pool: Pool,
}

impl RevocationReader {
    /// What was noted at `since` or later and still matters.
    pub async fn since(&self, since: Millis, now: Millis) -> Result<Vec<Revocation>, StoreError> {
        let rows = sql::query(SINCE).bind(since.0).bind(now.0).fetch_all(&self.pool).await?;
        rows.iter().map(revocation).collect()
    }
}

/// Notes a refusal, in the transaction of whatever is its reason. One that stands already is extended.
pub(super) async fn note(
    writer: &mut Connection,
    revocation: &Revocation,
    now: Millis,
) -> Result<(), StoreError> {
    let (kind, subject, epoch) = match &revocation.subject {
        Subject::Session(session) => ("session", &session.as_bytes()[..], now),
        Subject::User(user, epoch) => ("user", &user.as_bytes()[..], *epoch),
    };
    let until = revocation.until.0;
    let updated = sql::query(UPDATE)
        .bind(epoch.0)
        .bind(epoch.0)
        .bind(until)
        .bind(until)
        .bind(now.0)
        .bind(subject)
        .execute(&mut *writer)
        .await?;
    if updated.rows_affected() == 0 {
        let insert = sql::query(INSERT).bind(epoch.0).bind(until).bind(now.0).bind(kind).bind(subject);
        insert.execute(writer).await?;
    }
    Ok(())
}

/// Forgets what no token can remember.
pub(super) async fn forget(writer: &mut Connection, now: Millis) -> Result<(), StoreError> {
    sql::query(FORGET).bind(now.0).execute(writer).await?;
    Ok(())
}

fn revocation(row: &Row) -> Result<Revocation, StoreError> {
    let (subject, until) = (sixteen(row, 0)?, Millis(row.try_get(3)?));
    let subject = match row.try_get::<&str>(1)? {
        "session" => Subject::Session(SessionId::from_bytes(subject)),
        "user" => Subject::User(UserId::from_bytes(subject), Millis(row.try_get(2)?)),
        _ => return Err(Damaged { what: "revocation" }.into()),
    };
    Ok(Revocation { subject, until })
}
