//! A new master key under living accounts: whoever is still under a former one is moved over, at a log-in or by the way.
//!
//! What a person's key sealed stays as it is; the key is wrapped anew, and what the person is found by is blinded anew.

use super::{EMAIL, Unable, Users, commit};
use crate::persistence::Writing;
use crate::persistence::user::{Purpose, User};

/// Accounts that are looked through at a time.
const PAGE: u32 = 100;

impl Users {
    /// The account under the current master key. Whoever has yet to prove an address keeps the old one: the link in
    /// the letter speaks for it, and the account lapses soon if nobody follows.
    pub(super) async fn rekeyed(&self, writing: &mut Writing<'_>, user: User) -> Result<User, Unable> {
        let renewed = self.0.vault.rewrapped(&self.key_of(&user)?)?;
        let (Some(key), Some(_)) = (renewed, user.verified_at) else { return Ok(user) };
        let personal = self.open(&user)?;
        let email = self.blind_email(&personal.email);
        let phone = personal.phone.as_ref().map(|phone| self.blind_phone(phone));
        if let Some(old) = &user.email {
            writing.free_email(old, user.id).await?;
            writing.prove_email(&email, user.id).await?;
        }
        if let (Some(old), Some(phone)) = (&user.phone, &phone) {
            writing.free_phone(old, user.id).await?;
            writing.prove_phone(phone, user.id).await?;
        }
        for purpose in [Purpose::Reset, Purpose::ChangeEmail] {
            writing.void_tokens(user.id, purpose).await?;
        }
        let wrapped_key = Some(key.as_bytes().to_vec());
        let renewed = User { email: Some(email), phone, wrapped_key, version: user.version + 1, ..user };
        writing.update_user(&renewed).await?;
        Ok(renewed)
    }

    /// Moves over everybody, a few at a time. Afterwards the former master keys are needed no more.
    pub async fn rekey_all(&self) -> Result<(), Unable> {
        if self.0.vault.former_blinds(EMAIL, "").is_empty() {
            return Ok(());
        }
        let (mut before, mut moved) = (None, 0);
        loop {
            let page = self.0.tables.users().list(before, PAGE).await?;
            before = page.last().map(|user| user.id);
            let is_last = page.len() < PAGE as usize;
            for user in page.into_iter().filter(|user| user.wrapped_key.is_some()) {
                moved += u64::from(self.rekey(user).await?);
            }
            if is_last {
                tracing::info!(moved, "{moved} accounts were moved under the current master key");
                return Ok(());
            }
        }
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
