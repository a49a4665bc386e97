//! A new master key under living accounts: whoever is still under a former one is moved over, at a log-in or by the way.
//!
//! What a person's key sealed stays as it is; the key is wrapped anew, and what the person is found by is blinded anew.
//! Links that are on their way stay good: they are read under any key.

use super::{Unable, Users, commit};
use crate::persistence::Writing;
use crate::persistence::user::User;

/// Accounts that are looked through at a time.
const PAGE: u32 = 100;

/// How many accounts were moved.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    pub moved: u64,
    /// Those that could not be, among them whoever is under a key that nobody knows any more.
    pub left: u64,
}

impl Users {
    /// The account under the current master key.
    pub(super) async fn rekeyed(&self, writing: &mut Writing<'_>, user: User) -> Result<User, Unable> {
        let Some(key) = self.0.vault.rewrapped(&self.key_of(&user)?)? else { return Ok(user) };
        let personal = self.open(&user)?;
        let email = self.email_of(&personal.email);
        let phone = personal.phone.as_ref().map(|phone| self.phone_of(phone));
        if user.verified_at.is_some() {
            if let Some(old) = &user.email {
                writing.free_email(old, user.id).await?;
                writing.prove_email(&email, user.id).await?;
            }
            if let (Some(old), Some(phone)) = (&user.phone, &phone) {
                writing.free_phone(old, user.id).await?;
                writing.prove_phone(phone, user.id).await?;
            }
        }
        let renewed = User {
            email: Some(email.current),
            phone: phone.map(|phone| phone.current),
            wrapped_key: Some(key.as_bytes().to_vec()),
            version: user.version + 1,
            ..user
        };
        writing.update_user(&renewed).await?;
        Ok(renewed)
    }

    /// Moves over everybody, a few at a time. When nobody is left, the former master keys are needed no more.
    pub async fn rekey_all(&self) -> Result<Moved, Unable> {
        let (mut before, mut all) = (None, Moved::default());
        while self.0.vault.has_former() {
            let page = self.0.tables.users().list(before, PAGE).await?;
            before = page.last().map(|user| user.id);
            let is_last = page.len() < PAGE as usize;
            for user in page.into_iter().filter(|user| user.wrapped_key.is_some()) {
                let id = user.id;
                match self.rekey(user).await {
                    Ok(moved) => all.moved += u64::from(moved),
                    Err(Unable::Unavailable) => return Err(Unable::Unavailable),
                    Err(error) => {
                        all.left += 1;
                        tracing::error!(user = %id, %error, "{id} is still under a former master key");
                    }
                }
            }
            if is_last {
                break;
            }
        }
        Ok(all)
    }

    async fn rekey(&self, user: User) -> Result<bool, Unable> {
        if self.0.vault.rewrapped(&self.key_of(&user)?)?.is_none() {
            return Ok(false);
        }
        let mut writing = self.0.tables.begin().await?;
        let Some(user) = writing.user(user.id).await?.filter(|user| user.wrapped_key.is_some()) else {
            return Ok(false);
        };
        let version = user.version;
        let renewed = self.rekeyed(&mut writing, user).await?;
        commit(writing).await?;
        Ok(renewed.version != version)
    }
}
