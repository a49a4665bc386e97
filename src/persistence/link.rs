//! The `one_time_tokens` rows: what stands behind the links in letters.
//!
//! A link is found by the hash of its token; the token itself is known to nobody but its reader. Always true: a link is used once, in
//! the transaction of what it does. Its row goes with that, or stays for a while to say that it was used, and does nothing more.

use super::sql::{self, Damaged, Row, sixteen, thirty_two, time};
use super::user::{Blind, UserReader};
use super::{StoreError, Writing};
use crate::domain::id::UserId;
use crate::domain::stock::Millis;

/// What a mailed link is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Verify,
    Reset,
    ChangeEmail,
}

/// A link that was mailed.
#[derive(Clone, PartialEq, Eq)]
pub struct OneTimeToken {
    pub hash: Blind,
    pub purpose: Purpose,
    pub user: UserId,
    /// The address it was sent to, and speaks for.
    pub email: Blind,
    /// What it will change.
    pub sealed: Option<Vec<u8>>,
    pub expires_at: Millis,
    /// It has done what it was for, and does nothing more.
    pub used_at: Option<Millis>,
}

macro_rules! links {
    ($rest:literal) => {
        concat!(
            "select hash, purpose, user_id, email_blind, sealed, expires_at_ms, used_at_ms from one_time_tokens ",
            $rest
        )
    };
}

const INSERT: &str = "insert into one_time_tokens (hash, purpose, user_id, email_blind, sealed, expires_at_ms) \
    values (?, ?, ?, ?, ?, ?)";
const FIND: &str = links!("where hash = ?");
const NEWEST: &str = links!("where user_id = ? and purpose = ? order by expires_at_ms desc limit 1");
const SPEND: &str = "delete from one_time_tokens where hash = ?";
const USE: &str = "update one_time_tokens set used_at_ms = ? where hash = ? and used_at_ms is null";
const VOID: &str = "delete from one_time_tokens where user_id = ? and purpose = ?";
const VOID_OTHERS: &str = "delete from one_time_tokens where user_id = ? and purpose = ? and hash <> ?";
const FORGET: &str = "delete from one_time_tokens where user_id = ?";
const FORGET_EXPIRED: &str = "delete from one_time_tokens where expires_at_ms <= ? \
    or (used_at_ms is not null and expires_at_ms <= ?)";

impl UserReader {
    /// The link with this hash, expired or not.
    pub async fn token(&self, hash: &Blind) -> Result<Option<OneTimeToken>, StoreError> {
        let row = sql::query(FIND).bind(&hash[..]).fetch_optional(&self.pool).await?;
        row.as_ref().map(token).transpose()
    }

    /// The newest link that a user was sent for this purpose, expired or not.
    pub async fn token_of(&self, user: UserId, purpose: Purpose) -> Result<Option<OneTimeToken>, StoreError> {
        let query = sql::query(NEWEST).bind(user.as_bytes().to_vec()).bind(purpose.as_str());
        query.fetch_optional(&self.pool).await?.as_ref().map(token).transpose()
    }
}

impl Writing<'_> {
    pub async fn insert_token(&mut self, token: &OneTimeToken) -> Result<(), StoreError> {
        sql::query(INSERT)
            .bind(&token.hash[..])
            .bind(token.purpose.as_str())
            .bind(&token.user.as_bytes()[..])
            .bind(&token.email[..])
            .bind(&token.sealed)
            .bind(token.expires_at.0)
            .execute(self.on())
            .await?;
        Ok(())
    }

    /// Uses a link up, and leaves its row, which says so. False: somebody was faster.
    pub async fn use_token(&mut self, hash: &Blind, now: Millis) -> Result<bool, StoreError> {
        let query = sql::query(USE).bind(now.0).bind(&hash[..]);
        Ok(query.execute(self.on()).await?.rows_affected() == 1)
    }

    /// Uses a link up, and takes its row away. False: somebody was faster.
    pub async fn spend_token(&mut self, hash: &Blind) -> Result<bool, StoreError> {
        Ok(sql::query(SPEND).bind(&hash[..]).execute(self.on()).await?.rows_affected() == 1)
    }

    /// The newest link that a user was sent for this purpose, as this transaction sees it.
    pub async fn token_of(
        &mut self,
        user: UserId,
        purpose: Purpose,
    ) -> Result<Option<OneTimeToken>, StoreError> {
        let query = sql::query(NEWEST).bind(user.as_bytes().to_vec()).bind(purpose.as_str());
        query.fetch_optional(self.on()).await?.as_ref().map(token).transpose()
    }

    /// Makes a user's links for this purpose good for nothing.
    pub async fn void_tokens(&mut self, user: UserId, purpose: Purpose) -> Result<(), StoreError> {
        let query = sql::query(VOID).bind(user.as_bytes().to_vec()).bind(purpose.as_str());
        query.execute(self.on()).await?;
        Ok(())
    }

    /// The same, but for the link with this hash.
    pub async fn void_other_tokens(
        &mut self,
        user: UserId,
        purpose: Purpose,
        kept: &Blind,
    ) -> Result<(), StoreError> {
        let query = sql::query(VOID_OTHERS).bind(user.as_bytes().to_vec()).bind(purpose.as_str());
        query.bind(&kept[..]).execute(self.on()).await?;
        Ok(())
    }

    /// Takes away all links of a user, whatever they are good for.
    pub(super) async fn forget_links(&mut self, user: UserId) -> Result<(), StoreError> {
        sql::query(FORGET).bind(user.as_bytes().to_vec()).execute(self.on()).await?;
        Ok(())
    }

    /// Takes away links that expired at `before` or earlier, and those that were used as soon as they have expired.
    pub async fn forget_tokens(&mut self, before: Millis, now: Millis) -> Result<(), StoreError> {
        sql::query(FORGET_EXPIRED).bind(before.0).bind(now.0).execute(self.on()).await?;
        Ok(())
    }
}

impl Purpose {
    pub fn as_str(self) -> &'static str {
        match self {
            Purpose::Verify => "verify",
            Purpose::Reset => "reset",
            Purpose::ChangeEmail => "change_email",
        }
    }

    fn from_word(word: &str) -> Option<Purpose> {
        [Purpose::Verify, Purpose::Reset, Purpose::ChangeEmail].into_iter().find(|p| p.as_str() == word)
    }
}

fn token(row: &Row) -> Result<OneTimeToken, StoreError> {
    Ok(OneTimeToken {
        hash: thirty_two(row, 0)?,
        purpose: Purpose::from_word(row.try_get(1)?).ok_or(Damaged { what: "purpose" })?,
        user: UserId::from_bytes(sixteen(row, 2)?),
        email: thirty_two(row, 3)?,
        sealed: row.try_get(4)?,
        expires_at: Millis(row.try_get(5)?),
        used_at: time(row, 6)?,
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::persistence::testing::Home::{self, MySql, Sqlite};
    use crate::persistence::testing::{T0, buyer, somebody, tables_with};

    fn link(number: u8, purpose: Purpose) -> OneTimeToken {
        OneTimeToken {
            hash: [number; 32],
            purpose,
            user: buyer(1),
            email: [1; 32],
            sealed: Some(vec![5]),
            expires_at: T0,
            used_at: None,
        }
    }

    #[rstest]
    #[tokio::test]
    async fn a_link_is_spent_once(#[values(Sqlite, MySql)] home: Home) {
        let (_dir, tables) = tables_with(home, &[somebody(1)]).await;
        let link = link(9, Purpose::ChangeEmail);
        let mut writing = tables.begin().await.unwrap();
        writing.insert_token(&link).await.unwrap();
        writing.commit().await.unwrap();
        assert!(tables.users().token(&[9; 32]).await.unwrap() == Some(link));
        let mut writing = tables.begin().await.unwrap();
        writing.void_tokens(buyer(1), Purpose::Verify).await.unwrap();
        assert!(writing.spend_token(&[9; 32]).await.unwrap());
        assert!(!writing.spend_token(&[9; 32]).await.unwrap());
        writing.commit().await.unwrap();
    }

    /// All others of its kind go, and it goes when it would have expired; one that was not used is recognised for longer.
    #[rstest]
    #[tokio::test]
    async fn a_link_that_leaves_its_row_is_used_once(#[values(Sqlite, MySql)] home: Home) {
        let (_dir, tables) = tables_with(home, &[somebody(1)]).await;
        let (kept, other, moves) =
            (link(1, Purpose::Verify), link(2, Purpose::Verify), link(3, Purpose::ChangeEmail));
        let mut writing = tables.begin().await.unwrap();
        for link in [&kept, &other, &moves] {
            writing.insert_token(link).await.unwrap();
        }
        assert!(writing.use_token(&kept.hash, T0.plus(-7)).await.unwrap());
        assert!(!writing.use_token(&kept.hash, T0.plus(-6)).await.unwrap());
        assert!(!writing.use_token(&[8; 32], T0.plus(-6)).await.unwrap());
        writing.void_other_tokens(buyer(1), Purpose::Verify, &kept.hash).await.unwrap();
        writing.commit().await.unwrap();
        let found = async |hash: &Blind| tables.users().token(hash).await.unwrap();
        assert!(found(&kept.hash).await.unwrap().used_at == Some(T0.plus(-7)));
        assert!(found(&other.hash).await.is_none() && found(&moves.hash).await == Some(moves.clone()));
        for (now, is_there) in [(T0.plus(-1), true), (T0, false)] {
            let mut writing = tables.begin().await.unwrap();
            writing.forget_tokens(now.plus(-9), now).await.unwrap();
            writing.commit().await.unwrap();
            assert_eq!(found(&kept.hash).await.is_some(), is_there);
            assert!(found(&moves.hash).await.is_some());
        }
    }
}
