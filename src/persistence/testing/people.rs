//! Rows of accounts, for tests that need somebody to be there.

use super::{Home, T0, buyer};
use crate::domain::account::AccountState;
use crate::domain::stock::Millis;
use crate::domain::user::Role;
use crate::persistence::Tables;
use crate::persistence::user::User;

/// Somebody who has yet to prove the address that all of them have.
pub fn somebody(number: u128) -> User {
    User {
        id: buyer(number),
        state: AccountState::Unverified,
        role: Role::Shopper,
        email: Some([1; 32]),
        phone: Some([2; 32]),
        wrapped_key: Some(vec![3]),
        personal: Some(vec![4]),
        password: Some("$argon2id$…".to_owned()),
        signed_out_at: Millis(0),
        version: 1,
        verified_at: None,
        created_at: T0.plus(number as i64),
        updated_at: T0,
    }
}

/// Tables in which these accounts stand. The folder goes with its owner.
pub async fn tables_with(home: Home, users: &[User]) -> (tempfile::TempDir, Tables) {
    let (dir, tables) = home.tables().await;
    let mut writing = tables.begin().await.unwrap();
    for user in users {
        writing.insert_user(user).await.unwrap();
    }
    writing.commit().await.unwrap();
    (dir, tables)
}
