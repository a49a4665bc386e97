//! The `one_time_tokens` rows: what stands behind the links in letters.
//!
//! A link is found by the hash of its token; the token itself is known to nobody but its reader. Always true: a link is spent once,
//! in the transaction of what it does.

use super::sql::{self, Damaged, Row, sixteen, thirty_two};
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
}

macro_rules! links {
    ($rest:literal) => {
        concat!(
            "select hash, purpose, user_id, email_blind, sealed, expires_at_ms from one_time_tokens ",
            $rest
        )
    };
}

const INSERT: &str = "insert into one_time_tokens (hash, purpose, user_id, email_blind, sealed, expires_at_ms) \
    values (?, ?, ?, ?, ?, ?)";
const FIND: &str = links!("where hash = ?");
const NEWEST: &str = links!("where user_id = ? and purpose = ? order by expires_at_ms desc limit 1");
const SPEND: &str = "delete from one_time_tokens where hash = ?";
const VOID: &str = "delete from one_time_tokens where user_id = ? and purpose = ?";
const FORGET: &str = "delete from one_time_tokens where user_id = ?";
const FORGET_EXPIRED: &str = "delete from one_time_tokens where expires_at_ms <= ?";

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

    /// Uses a link up. False: somebody was faster.
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

    /// Takes away all links of a user, whatever they are good for.
    pub(super) async fn forget_links(&mut self, user: UserId) -> Result<(), StoreError> {
        sql::query(FORGET).bind(user.as_bytes().to_vec()).execute(self.on()).await?;
        Ok(())
    }

    /// Takes away links that expired at `before` or earlier.
    pub async fn forget_tokens(&mut self, before: Millis) -> Result<(), StoreError> {
        sql::query(FORGET_EXPIRED).bind(before.0).execute(self.on()).await?;
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
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::persistence::testing::Home::{self, MySql, Sqlite};
    use crate::persistence::testing::{T0, buyer, somebody, tables_with};

    #[rstest]
    #[tokio::test]
    async fn a_link_is_spent_once(#[values(Sqlite, MySql)] home: Home) {
        let (_dir, tables) = tables_with(home, &[somebody(1)]).await;
        let link = OneTimeToken {
            hash: [9; 32],
            purpose: Purpose::ChangeEmail,
            user: buyer(1),
            email: [1; 32],
            sealed: Some(vec![5]),
            expires_at: T0,
        };
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
}
