//! The `verified_emails` and `verified_phones` rows: who has proved which address and number.
//!
//! Neither is readable here: a row is found by a keyed hash, and there is one for each master key that is known. Always
//! true: an address, and a number, has at most one owner who has proved it, whichever key stands under the proof.

use std::sync::LazyLock;

use super::sql::{self, Listed, Query};
use super::user::{Blind, User, UserError, UserReader, user, users};
use super::{StoreError, Writing};
use crate::domain::id::UserId;

/// What one address, or one number, is found by: under the current master key, and as rows may still show it that were
/// written under a former one.
#[derive(Debug, Clone)]
pub struct Blinds {
    pub current: Blind,
    pub former: Vec<Blind>,
}

impl Blinds {
    /// Where there was no other key.
    pub fn one(current: Blind) -> Blinds {
        Blinds { current, former: Vec::new() }
    }

    pub fn contain(&self, blind: &Blind) -> bool {
        self.current == *blind || self.former.contains(blind)
    }

    /// Questions about all of them at once: between two questions a row may be moved from one key to another. It is one
    /// question, as long as there are fewer master keys than a list is long.
    pub(super) fn named(&self, listed: &'static Listed) -> impl Iterator<Item = Query<'static>> + use<> {
        let all = [&[self.current], &*self.former].concat();
        let queries: Vec<_> = listed.filled(&all).map(bound).collect();
        queries.into_iter()
    }
}

fn bound<'v>((sql, blinds): (&'static str, impl Iterator<Item = &'v Blind>)) -> Query<'static> {
    blinds.fold(sql::query(sql), |query, blind| query.bind(blind.to_vec()))
}

static BY_PROVED_EMAIL: LazyLock<Listed> = LazyLock::new(|| {
    Listed::new(users!("join verified_emails v on v.user_id = u.id where v.email_blind in ("), "?", ")")
});
static BY_PROVED_PHONE: LazyLock<Listed> = LazyLock::new(|| {
    Listed::new(users!("join verified_phones v on v.user_id = u.id where v.phone_blind in ("), "?", ")")
});
const PROVE_EMAIL: &str = "insert into verified_emails (email_blind, user_id) values (?, ?)";
const PROVE_PHONE: &str = "insert into verified_phones (phone_blind, user_id) values (?, ?)";
const FREE_EMAIL: &str = "delete from verified_emails where email_blind = ? and user_id = ?";
const FREE_PHONE: &str = "delete from verified_phones where phone_blind = ? and user_id = ?";
/// Changes nothing. Unlike a select it waits for whoever is about to write such a row.
static OTHERS_EMAIL: LazyLock<Listed> = LazyLock::new(|| {
    Listed::new(
        "update verified_emails set user_id = user_id where email_blind in (",
        "?",
        ") and user_id <> ?",
    )
});
static OTHERS_PHONE: LazyLock<Listed> = LazyLock::new(|| {
    Listed::new(
        "update verified_phones set user_id = user_id where phone_blind in (",
        "?",
        ") and user_id <> ?",
    )
});

impl UserReader {
    /// The account that has proved this address.
    pub async fn by_proved_email(&self, email: &Blinds) -> Result<Option<User>, StoreError> {
        self.first(email.named(&BY_PROVED_EMAIL)).await
    }
}

impl Writing<'_> {
    /// The account that has proved this address, as this transaction sees it.
    pub async fn owner_of_email(&mut self, email: &Blinds) -> Result<Option<User>, StoreError> {
        self.first(email.named(&BY_PROVED_EMAIL)).await
    }

    /// The account that has proved its address and has this number.
    pub async fn owner_of_phone(&mut self, phone: &Blinds) -> Result<Option<User>, StoreError> {
        self.first(phone.named(&BY_PROVED_PHONE)).await
    }

    async fn first(
        &mut self,
        queries: impl IntoIterator<Item = Query<'_>>,
    ) -> Result<Option<User>, StoreError> {
        for query in queries {
            if let Some(row) = query.fetch_optional(self.on()).await? {
                return user(&row).map(Some);
            }
        }
        Ok(None)
    }

    /// From now on the address is this user's, and nobody else's.
    pub async fn prove_email(&mut self, email: &Blinds, user: UserId) -> Result<(), UserError> {
        self.claim(PROVE_EMAIL, &OTHERS_EMAIL, email, user, UserError::EmailTaken).await
    }

    pub async fn prove_phone(&mut self, phone: &Blinds, user: UserId) -> Result<(), UserError> {
        self.claim(PROVE_PHONE, &OTHERS_PHONE, phone, user, UserError::PhoneTaken).await
    }

    /// The row first, and then the look at the former keys: who moves the owner over meanwhile, from such a key to this one,
    /// meets the row.
    async fn claim(
        &mut self,
        insert: &'static str,
        others: &'static Listed,
        blinds: &Blinds,
        user: UserId,
        taken: UserError,
    ) -> Result<(), UserError> {
        let user = user.as_bytes().to_vec();
        match sql::query(insert).bind(blinds.current.to_vec()).bind(user.clone()).execute(self.on()).await {
            Ok(_) => {}
            Err(error) if sql::is_duplicate(&error) => return Err(taken),
            Err(error) => return Err(error.into()),
        }
        for query in others.filled(&blinds.former).map(bound) {
            if query.bind(user.clone()).execute(self.on()).await?.rows_affected() > 0 {
                return Err(taken);
            }
        }
        Ok(())
    }

    /// Anybody may prove the address again.
    pub async fn free_email(&mut self, email: &Blind, user: UserId) -> Result<(), StoreError> {
        sql::query(FREE_EMAIL).bind(&email[..]).bind(user.as_bytes().to_vec()).execute(self.on()).await?;
        Ok(())
    }

    pub async fn free_phone(&mut self, phone: &Blind, user: UserId) -> Result<(), StoreError> {
        sql::query(FREE_PHONE).bind(&phone[..]).bind(user.as_bytes().to_vec()).execute(self.on()).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::persistence::testing::Home::{self, MySql, Sqlite};
    use crate::persistence::testing::{somebody, tables_with};

    #[rstest]
    #[tokio::test]
    async fn many_claim_an_address_and_one_proves_it(#[values(Sqlite, MySql)] home: Home) {
        let (first, second) = (somebody(1), somebody(2));
        let (_dir, tables) = tables_with(home, &[first.clone(), second.clone()]).await;
        let reader = tables.users();
        let (email, phone) = (Blinds::one([1; 32]), Blinds::one([2; 32]));
        assert!(reader.by_proved_email(&email).await.unwrap().is_none());
        assert!(reader.by_email(&email).await.unwrap() == Some(second.clone()), "the newest");
        let mut writing = tables.begin().await.unwrap();
        writing.prove_email(&email, first.id).await.unwrap();
        writing.prove_phone(&phone, first.id).await.unwrap();
        let twice = writing.prove_email(&email, second.id).await;
        assert!(matches!(twice, Err(UserError::EmailTaken)));
        let twice = writing.prove_phone(&phone, second.id).await;
        assert!(matches!(twice, Err(UserError::PhoneTaken)));
        // Not theirs to give away.
        writing.free_email(&[1; 32], second.id).await.unwrap();
        writing.commit().await.unwrap();
        assert!(reader.by_proved_email(&email).await.unwrap() == Some(first.clone()));
        let mut writing = tables.begin().await.unwrap();
        assert!(writing.owner_of_phone(&phone).await.unwrap() == Some(first.clone()));
        assert!(writing.owner_of_email(&email).await.unwrap() == Some(first));
    }

    #[rstest]
    #[tokio::test]
    async fn what_was_proved_under_a_former_key_is_proved(#[values(Sqlite, MySql)] home: Home) {
        let (first, second) = (somebody(1), somebody(2));
        let (_dir, tables) = tables_with(home, &[first.clone(), second.clone()]).await;
        let mut writing = tables.begin().await.unwrap();
        writing.prove_email(&Blinds::one([1; 32]), first.id).await.unwrap();
        writing.prove_phone(&Blinds::one([2; 32]), first.id).await.unwrap();
        writing.commit().await.unwrap();
        // The key has been replaced, twice.
        let now = |own: u8, former: u8| Blinds { current: [own; 32], former: vec![[9; 32], [former; 32]] };
        let (email, phone) = (now(11, 1), now(12, 2));
        let reader = tables.users();
        assert!(reader.by_proved_email(&email).await.unwrap() == Some(first.clone()));
        assert!(reader.by_email(&email).await.unwrap() == Some(second.clone()));
        let mut writing = tables.begin().await.unwrap();
        assert!(writing.owner_of_phone(&phone).await.unwrap() == Some(first.clone()));
        let taken = writing.prove_email(&email, second.id).await;
        assert!(matches!(taken, Err(UserError::EmailTaken)));
        let taken = writing.prove_phone(&phone, second.id).await;
        assert!(matches!(taken, Err(UserError::PhoneTaken)));
        drop(writing);
        // Whose it is may have it under both.
        let mut writing = tables.begin().await.unwrap();
        writing.prove_email(&email, first.id).await.unwrap();
        writing.free_email(&[1; 32], first.id).await.unwrap();
        writing.commit().await.unwrap();
        assert!(reader.by_proved_email(&email).await.unwrap() == Some(first));
        assert!(reader.by_proved_email(&Blinds::one([1; 32])).await.unwrap().is_none());
    }

    #[rstest]
    #[tokio::test]
    async fn whoever_is_being_moved_is_always_found(#[values(Sqlite, MySql)] home: Home) {
        let user = somebody(1);
        let (_dir, tables) = tables_with(home, std::slice::from_ref(&user)).await;
        let under = |current: u8, former: u8| Blinds { current: [current; 32], former: vec![[former; 32]] };
        let mut writing = tables.begin().await.unwrap();
        writing.prove_email(&under(1, 2), user.id).await.unwrap();
        writing.commit().await.unwrap();
        let (mover, id) = (tables.clone(), user.id);
        let moving = tokio::spawn(async move {
            for turn in 0..200 {
                let (from, to) = if turn % 2 == 0 { (1, 2) } else { (2, 1) };
                let mut writing = mover.begin().await.unwrap();
                writing.free_email(&[from; 32], id).await.unwrap();
                writing.prove_email(&under(to, from), id).await.unwrap();
                writing.commit().await.unwrap();
            }
        });
        let mut asked = 0;
        while !moving.is_finished() {
            let found = tables.users().by_proved_email(&under(2, 1)).await.unwrap();
            assert!(found.is_some(), "nobody, the {asked}th time");
            asked += 1;
        }
        moving.await.unwrap();
        assert!(asked > 10, "{asked}");
    }
}
