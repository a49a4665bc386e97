//! A new master key under living accounts: whoever is still under a former one is moved over, at a log-in or by the way.
//!
//! What a person's key sealed stays as it is; the key is wrapped anew, and what the person is found by is blinded anew.
//! Links that are on their way stay good: they are read under any key.

use super::{Unable, Users, commit};
use crate::domain::id::UserId;
use crate::persistence::proof::Blinds;
use crate::persistence::user::User;
use crate::persistence::{StoreError, Writing};

/// Accounts that are looked through at a time.
const PAGE: u32 = 100;

/// How many accounts were moved.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    pub moved: u64,
    /// Those that could not be, among them whoever is under a key that nobody knows any more.
    pub left: u64,
}

/// A row under the current master key, with what its person is found by.
struct Renewed {
    row: User,
    email: Blinds,
    phone: Option<Blinds>,
}

impl Users {
    /// The account under the current master key.
    pub(super) async fn rekeyed(&self, writing: &mut Writing<'_>, user: User) -> Result<User, Unable> {
        let Some(Renewed { row, email, phone }) = self.renewed(&user)? else { return Ok(user) };
        if user.verified_at.is_some() {
            if let Some(old) = user.email.filter(|old| *old != email.current) {
                writing.free_email(&old, user.id).await?;
                writing.prove_email(&email, user.id).await?;
            }
            if let (Some(old), Some(phone)) = (user.phone, &phone)
                && old != phone.current
            {
                writing.free_phone(&old, user.id).await?;
                writing.prove_phone(phone, user.id).await?;
            }
        }
        writing.update_user(&row).await?;
        Ok(row)
    }

    /// `None`: it is so already, all of it. A node whose keys stand the other way round may have changed a part.
    fn renewed(&self, user: &User) -> Result<Option<Renewed>, Unable> {
        if !self.0.vault.has_former() {
            return Ok(None);
        }
        let key = self.0.vault.rewrapped(&self.key_of(user)?)?;
        let personal = self.open(user)?;
        let email = self.email_of(&personal.email);
        let phone = personal.phone.as_ref().map(|phone| self.phone_of(phone));
        let found_by = (Some(email.current), phone.as_ref().map(|phone| phone.current));
        if key.is_none() && found_by == (user.email, user.phone) {
            return Ok(None);
        }
        let row = User {
            email: found_by.0,
            phone: found_by.1,
            wrapped_key: key.map(|key| key.as_bytes().to_vec()).or_else(|| user.wrapped_key.clone()),
            version: user.version + 1,
            ..user.clone()
        };
        Ok(Some(Renewed { row, email, phone }))
    }

    /// Moves over everybody, a few at a time. Afterwards the former master keys are needed for what is on its way alone: links, and the
    /// refresh tokens of devices that have not come by.
    pub async fn rekey_all(&self) -> Result<Moved, Unable> {
        let (mut before, mut all) = (None, Moved::default());
        if !self.0.vault.has_former() {
            return Ok(all);
        }
        loop {
            let page = self.0.tables.users().list(before, PAGE).await?;
            before = page.last().map(|(id, _)| *id);
            let is_last = page.len() < PAGE as usize;
            for (id, user) in page {
                match self.rekey(user).await {
                    Ok(moved) => all.moved += u64::from(moved),
                    Err(Unable::Unavailable | Unable::Unknown) => return Err(Unable::Unavailable),
                    Err(error) => all.leave(id, &error),
                }
            }
            if is_last {
                break;
            }
        }
        let Moved { moved, left } = all;
        tracing::info!(
            moved,
            left,
            "{moved} accounts were moved under the current master key, {left} could not be"
        );
        Ok(all)
    }

    async fn rekey(&self, row: Result<User, StoreError>) -> Result<bool, Unable> {
        let user = match row {
            Ok(user) if user.wrapped_key.is_none() => return Ok(false),
            Ok(user) => user,
            // It was read, and cannot be understood: that is this row's alone.
            Err(_) => return Err(Unable::Internal),
        };
        if self.renewed(&user)?.is_none() {
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

impl Moved {
    fn leave(&mut self, id: UserId, why: &Unable) {
        self.left += 1;
        tracing::error!(user = %id, %why, "{id} is still under a former master key");
    }
}
