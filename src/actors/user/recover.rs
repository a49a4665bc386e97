//! A password that was forgotten or shall be another, and an address that shall be another.
//!
//! Always true: whoever changes either has shown the old password or a letter to the proved address, and the old
//! address hears of it; what somebody else may have open is closed, and what he may have asked for is taken back.

use secrecy::SecretString;

use super::letter::was_just_sent;
use super::{Personal, Unable, Users, commit, sign_out};
use crate::domain::account::AccountState;
use crate::domain::id::{SessionId, UserId};
use crate::domain::trail::{Deed, Record};
use crate::domain::user::{Email, NewPassword};
use crate::mail::Letter;
use crate::persistence::Writing;
use crate::persistence::link::{OneTimeToken, Purpose};
use crate::persistence::user::User;

impl Users {
    /// Replaces the password. The session that did it goes on, all others end.
    pub async fn change_password(
        &self,
        user: UserId,
        session: SessionId,
        current: SecretString,
        next: NewPassword,
    ) -> Result<(), Unable> {
        let confirmed = self.confirm(user, &current).await?;
        let hash = self.0.passwords.hash_new(next).await?;
        let (mut writing, user) = self.begin_by(confirmed, &current).await?;
        let ended = self.end_others(&mut writing, user.id, session).await?;
        self.put_password(&mut writing, user, hash, Deed::PasswordChanged).await?;
        commit(writing).await?;
        self.0.outbox.wake();
        self.refuse_from_now(&ended);
        Ok(())
    }

    async fn put_password(
        &self,
        writing: &mut Writing<'_>,
        user: User,
        hash: String,
        deed: Deed,
    ) -> Result<(), Unable> {
        let now = self.0.clock.now();
        for asked_before in [Purpose::Reset, Purpose::ChangeEmail] {
            writing.void_tokens(user.id, asked_before).await?;
        }
        let personal = self.open(&user)?;
        let changed = User { password: Some(hash), version: user.version + 1, updated_at: now, ..user };
        writing.update_user(&changed).await?;
        self.send(writing, &changed, &personal, Letter::PasswordChanged).await?;
        writing.record(&Record::new(deed, now).by(changed.id).on(changed.id)).await?;
        Ok(())
    }

    /// Sends a link to whoever has proved this address, if somebody has.
    pub fn forgot(&self, email: Email) -> Result<(), Unable> {
        let users = self.clone();
        self.errand(async move {
            let Some(user) = users.owner_of_email(&email).await? else { return Ok(()) };
            if user.state != AccountState::Verified {
                return Ok(());
            }
            // As it is now: who leaves, or moves to another address, takes back what is on its way to this one.
            let mut writing = users.0.tables.begin().await?;
            let owner = writing.owner_of_email(&users.email_of(&email)).await?;
            let Some(user) = owner.filter(|owner| owner.state == AccountState::Verified) else {
                return Ok(());
            };
            writing.void_tokens(user.id, Purpose::Reset).await?;
            users.send_link(&mut writing, &user, &users.open(&user)?, Purpose::Reset).await?;
            writing.record(&Record::new(Deed::PasswordResetAsked, users.0.clock.now()).on(user.id)).await?;
            commit(writing).await?;
            users.0.outbox.wake();
            Ok(())
        })
    }

    /// Whose a link of a reset letter is, if it is one: that is no password for them.
    pub async fn address_behind(&self, token: &SecretString) -> Result<Option<Email>, Unable> {
        let Ok(link) = self.link(token).await else { return Ok(None) };
        let user = self.0.tables.users().find(link.user).await?.filter(|user| user.wrapped_key.is_some());
        user.map(|user| Ok(self.open(&user)?.email)).transpose()
    }

    /// Follows the link of a reset letter: a new password, and no session is left.
    pub async fn reset(&self, token: &SecretString, next: NewPassword) -> Result<(), Unable> {
        let link = self.link(token).await?;
        if link.purpose != Purpose::Reset || self.is_expired(&link) {
            return Err(Unable::LinkExpired);
        }
        let hash = self.0.passwords.hash_new(next).await?;
        let mut writing = self.0.tables.begin().await?;
        let now = self.0.clock.now();
        let user = self.spend(&mut writing, &link).await?;
        if user.state != AccountState::Verified {
            return Err(Unable::LinkExpired);
        }
        let (revocation, signed_out_at) = sign_out(&mut writing, user.id, now, now).await?;
        self.put_password(&mut writing, User { signed_out_at, ..user }, hash, Deed::PasswordReset).await?;
        commit(writing).await?;
        self.0.outbox.wake();
        self.refuse_from_now(&[revocation]);
        Ok(())
    }

    /// Asks the new address whether it is theirs, and tells the old one. Nothing changes before the answer. Whoever asks for the
    /// same again a moment later has lost ours: nothing more is sent, and the link that is on its way stays good.
    pub async fn ask_new_email(&self, user: UserId, password: SecretString, to: Email) -> Result<(), Unable> {
        let confirmed = self.confirm(user, &password).await?;
        let (mut writing, user) = self.begin_by(confirmed, &password).await?;
        let asked = writing.token_of(user.id, Purpose::ChangeEmail).await?;
        let is_same = |link: &OneTimeToken| {
            was_just_sent(link.expires_at, self.0.clock.now()) && self.email_of(&to).contain(&link.email)
        };
        if asked.as_ref().is_some_and(is_same) {
            return Ok(());
        }
        let owner = writing.owner_of_email(&self.email_of(&to)).await?;
        if let Some(own) = owner.as_ref().filter(|owner| owner.id == user.id) {
            return self.tell_owner(writing, own, Letter::AddressTaken).await;
        }
        let personal = self.open(&user)?;
        writing.void_tokens(user.id, Purpose::ChangeEmail).await?;
        self.send(&mut writing, &user, &personal, Letter::AddressChanging).await?;
        let moved = Personal { email: to, ..personal };
        match owner {
            // Nobody can follow this link, and whoever asked sees no difference.
            Some(owner) => {
                self.put_link(&mut writing, &user, &moved, Purpose::ChangeEmail).await?;
                self.send(&mut writing, &owner, &self.open(&owner)?, Letter::AddressTaken).await?;
            }
            None => self.send_link(&mut writing, &user, &moved, Purpose::ChangeEmail).await?,
        }
        let now = self.0.clock.now();
        writing.record(&Record::new(Deed::AddressChangeAsked, now).by(user.id).on(user.id)).await?;
        commit(writing).await?;
        self.0.outbox.wake();
        Ok(())
    }

    /// The new address has answered: it counts, the old one is free, and every device logs in again.
    pub(super) async fn move_email(&self, link: &OneTimeToken) -> Result<(), Unable> {
        let mut writing = self.0.tables.begin().await?;
        let now = self.0.clock.now();
        let user = self.spend(&mut writing, link).await?;
        let user = self.rekeyed(&mut writing, user).await?;
        let (AccountState::Verified, Some(sealed)) = (user.state, &link.sealed) else {
            return Err(Unable::LinkExpired);
        };
        let key = self.key_of(&user)?;
        let email = self.open_email(&user, sealed)?;
        let proved = self.email_of(&email);
        let before = self.open(&user)?;
        let personal = Personal { email, ..before.clone() };
        if let Some(old) = &user.email {
            writing.free_email(old, user.id).await?;
        }
        writing.prove_email(&proved, user.id).await?;
        // What says that the old one is proved is silent from now on, whoever has it next.
        writing.void_tokens(user.id, Purpose::Verify).await?;
        let (revocation, signed_out_at) = sign_out(&mut writing, user.id, now, now).await?;
        let changed = User {
            email: Some(proved.current),
            personal: Some(self.seal(user.id, &key, &personal)?),
            signed_out_at,
            version: user.version + 1,
            updated_at: now,
            ..user
        };
        writing.update_user(&changed).await?;
        for told in [&before, &personal] {
            self.send(&mut writing, &changed, told, Letter::AddressChanged).await?;
        }
        writing.record(&Record::new(Deed::AddressChanged, now).by(changed.id).on(changed.id)).await?;
        commit(writing).await?;
        self.0.outbox.wake();
        self.refuse_from_now(&[revocation]);
        Ok(())
    }

    pub(super) fn seal_email(&self, user: &User, email: &Email) -> Result<Vec<u8>, Unable> {
        let plain = serde_json::to_vec(email).map_err(|_| Unable::Internal)?;
        Ok(self.0.vault.seal(&self.key_of(user)?, &new_email(user.id), &plain)?)
    }

    pub(super) fn open_email(&self, user: &User, sealed: &[u8]) -> Result<Email, Unable> {
        let plain = self.0.vault.open(&self.key_of(user)?, &new_email(user.id), sealed)?;
        serde_json::from_slice(&plain).map_err(|_| Unable::Internal)
    }
}

/// What an address is sealed for until it is proved.
pub(super) fn new_email(user: UserId) -> String {
    format!("{user} new email")
}
