//! The `sessions` rows: one log-in of one device each, and the refresh token that may follow.
//!
//! Tokens stand here as hashes. Beside the current one stands the one before it, and what followed it, sealed: an
//! answer that was lost on the way can be given once more. Always true: a refresh token has one successor.

use super::revocation::{self, Revocation};
use super::sql::{self, Pool, Row, sixteen, thirty_two};
use super::user::Blind;
use super::{StoreError, Writing};
use crate::domain::id::{SessionId, UserId};
use crate::domain::stock::Millis;

/// A session as its row keeps it.
#[derive(Clone, PartialEq, Eq)]
pub struct Session {
    pub id: SessionId,
    pub user: UserId,
    pub refresh: Blind,
    /// The token before, until the next one is made.
    pub former: Option<Blind>,
    /// The current token, sealed, for whoever shows the former one and did not hear of it.
    pub successor: Option<Vec<u8>>,
    /// What the device calls itself, in a row of before that was sealed; empty in any other.
    pub device: String,
    /// The same, sealed by whoever hands it in.
    pub device_sealed: Option<Vec<u8>>,
    pub created_at: Millis,
    /// When the current refresh token was made.
    pub used_at: Millis,
    /// The thumbprint of the key without which no refresh token of it is good; none of a session that was opened without one.
    pub key: Option<[u8; 32]>,
}

macro_rules! sessions {
    ($rest:literal) => {
        concat!(
            "select id, user_id, refresh_hash, former_hash, successor, device, created_at_ms, used_at_ms, \
             key_thumbprint, device_sealed from sessions ",
            $rest
        )
    };
}

const FIND: &str = sessions!("where id = ?");
const OF_USER: &str = sessions!("where user_id = ? order by id desc");
const LAPSED: &str = sessions!("where used_at_ms <= ? or created_at_ms <= ? limit ?");
const INSERT: &str = "insert into sessions (id, user_id, refresh_hash, former_hash, successor, device, created_at_ms, \
    used_at_ms, key_thumbprint, device_sealed) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
const ROTATE: &str = "update sessions set refresh_hash = ?, former_hash = ?, successor = ?, used_at_ms = ? \
    where id = ? and refresh_hash = ?";
const END: &str = "delete from sessions where id = ?";
const END_ALL: &str = "delete from sessions where user_id = ?";

/// Reads sessions. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SessionReader {
    pub(super) pool: Pool,
}

impl SessionReader {
    pub async fn find(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        let row = sql::query(FIND).bind(id.as_bytes().to_vec()).fetch_optional(&self.pool).await?;
        row.as_ref().map(session).transpose()
    }

    /// Those of a user, newest first.
    pub async fn of_user(&self, user: UserId) -> Result<Vec<Session>, StoreError> {
        let rows = sql::query(OF_USER).bind(user.as_bytes().to_vec()).fetch_all(&self.pool).await?;
        rows.iter().map(session).collect()
    }

    /// Some that were used last at `idle`, or began at `old`, or earlier.
    pub async fn lapsed(&self, idle: Millis, old: Millis, limit: u32) -> Result<Vec<Session>, StoreError> {
        let rows = sql::query(LAPSED).bind(idle.0).bind(old.0).bind(limit).fetch_all(&self.pool).await?;
        rows.iter().map(session).collect()
    }
}

impl Writing<'_> {
    /// The session as this transaction sees it.
    pub async fn session(&mut self, id: SessionId) -> Result<Option<Session>, StoreError> {
        let row = sql::query(FIND).bind(id.as_bytes().to_vec()).fetch_optional(self.on()).await?;
        row.as_ref().map(session).transpose()
    }

    /// Those of a user, newest first, as this transaction sees them.
    pub async fn sessions_of(&mut self, user: UserId) -> Result<Vec<Session>, StoreError> {
        let rows = sql::query(OF_USER).bind(user.as_bytes().to_vec()).fetch_all(self.on()).await?;
        rows.iter().map(session).collect()
    }

    pub async fn insert_session(&mut self, session: &Session) -> Result<(), StoreError> {
        sql::query(INSERT)
            .bind(session.id.as_bytes().to_vec())
            .bind(session.user.as_bytes().to_vec())
            .bind(&session.refresh[..])
            .bind(session.former.map(|hash| hash.to_vec()))
            .bind(&session.successor)
            .bind(&session.device)
            .bind(session.created_at.0)
            .bind(session.used_at.0)
            .bind(session.key.map(|key| key.to_vec()))
            .bind(&session.device_sealed)
            .execute(self.on())
            .await?;
        Ok(())
    }

    /// Puts `next` in the place of the current refresh token. False: it is the current one no longer.
    pub async fn rotate_session(
        &mut self,
        session: &Session,
        next: &Blind,
        successor: Vec<u8>,
        now: Millis,
    ) -> Result<bool, StoreError> {
        let query = sql::query(ROTATE)
            .bind(&next[..])
            .bind(&session.refresh[..])
            .bind(successor)
            .bind(now.0)
            .bind(session.id.as_bytes().to_vec())
            .bind(&session.refresh[..]);
        Ok(query.execute(self.on()).await?.rows_affected() == 1)
    }

    /// Ends a session: its refresh token is void.
    pub async fn end_session(&mut self, id: SessionId) -> Result<(), StoreError> {
        sql::query(END).bind(id.as_bytes().to_vec()).execute(self.on()).await?;
        Ok(())
    }

    /// Ends all of a user's.
    pub async fn end_sessions(&mut self, user: UserId) -> Result<(), StoreError> {
        sql::query(END_ALL).bind(user.as_bytes().to_vec()).execute(self.on()).await?;
        Ok(())
    }

    /// Has every node refuse the access tokens.
    pub async fn revoke(&mut self, revocation: &Revocation, now: Millis) -> Result<(), StoreError> {
        revocation::note(self.on(), revocation, now).await
    }

    /// Forgets refusals that no token can outlive.
    pub async fn forget_revocations(&mut self, now: Millis) -> Result<(), StoreError> {
        revocation::forget(self.on(), now).await
    }
}

fn session(row: &Row) -> Result<Session, StoreError> {
    let (former, key): (Option<&[u8]>, Option<&[u8]>) = (row.try_get(3)?, row.try_get(8)?);
    Ok(Session {
        id: SessionId::from_bytes(sixteen(row, 0)?),
        user: UserId::from_bytes(sixteen(row, 1)?),
        refresh: thirty_two(row, 2)?,
        former: former.map(|_| thirty_two(row, 3)).transpose()?,
        successor: row.try_get(4)?,
        device: row.try_get(5)?,
        created_at: Millis(row.try_get(6)?),
        used_at: Millis(row.try_get(7)?),
        key: key.map(|_| thirty_two(row, 8)).transpose()?,
        device_sealed: row.try_get(9)?,
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::persistence::revocation::Subject;
    use crate::persistence::testing::Home::{self, MySql, Sqlite};
    use crate::persistence::testing::{T0, buyer};

    fn session(number: u128) -> Session {
        Session {
            id: SessionId::new(T0.plus(number as i64), number),
            user: buyer(1),
            refresh: [1; 32],
            former: None,
            successor: None,
            device: "a phone of before".to_owned(),
            device_sealed: None,
            created_at: T0,
            used_at: T0,
            key: None,
        }
    }

    #[rstest]
    #[tokio::test]
    async fn a_refresh_token_has_one_successor(#[values(Sqlite, MySql)] home: Home) {
        let (_dir, tables) = home.tables().await;
        let (device, device_sealed) = (String::new(), Some(vec![5; 90]));
        let first = Session { key: Some([9; 32]), device, device_sealed, ..session(1) };
        let other = session(2);
        let mut writing = tables.begin().await.unwrap();
        for session in [&first, &other] {
            writing.insert_session(session).await.unwrap();
        }
        assert!(writing.rotate_session(&first, &[2; 32], vec![7], T0.plus(5)).await.unwrap());
        assert!(!writing.rotate_session(&first, &[3; 32], vec![8], T0.plus(6)).await.unwrap());
        writing.commit().await.unwrap();
        let rotated = Session {
            refresh: [2; 32],
            former: Some([1; 32]),
            successor: Some(vec![7]),
            used_at: T0.plus(5),
            ..first
        };
        assert!(tables.sessions().of_user(buyer(1)).await.unwrap() == [other.clone(), rotated.clone()]);
        assert!(tables.sessions().lapsed(T0, T0.plus(-1), 9).await.unwrap() == [other]);
        let mut writing = tables.begin().await.unwrap();
        writing.end_session(rotated.id).await.unwrap();
        assert!(writing.session(rotated.id).await.unwrap().is_none());
        writing.end_sessions(buyer(1)).await.unwrap();
        assert!(writing.sessions_of(buyer(1)).await.unwrap().is_empty());
        writing.commit().await.unwrap();
    }

    #[rstest]
    #[tokio::test]
    async fn what_was_revoked_is_read_by_others_until_it_is_over(#[values(Sqlite, MySql)] home: Home) {
        let (_dir, tables) = home.tables().await;
        let revoked = |epoch, until| Revocation {
            subject: Subject::User(buyer(1), T0.plus(epoch)),
            until: T0.plus(until),
        };
        let ended = Revocation { subject: Subject::Session(session(1).id), until: T0.plus(50) };
        let mut writing = tables.begin().await.unwrap();
        writing.revoke(&revoked(5, 100), T0.plus(5)).await.unwrap();
        // Neither what it covers nor how long shrinks.
        writing.revoke(&revoked(3, 90), T0.plus(6)).await.unwrap();
        writing.revoke(&ended, T0.plus(7)).await.unwrap();
        writing.commit().await.unwrap();
        let reader = tables.revocations();
        let since = async |since, now| reader.since(T0.plus(since), T0.plus(now)).await.unwrap();
        assert_eq!(since(7, 10).await, [ended]);
        assert_eq!(since(0, 60).await, [revoked(5, 100)]);
        assert_eq!(since(8, 10).await, []);
        let mut writing = tables.begin().await.unwrap();
        writing.forget_revocations(T0.plus(100)).await.unwrap();
        writing.commit().await.unwrap();
        assert_eq!(since(0, 10).await, []);
    }
}
