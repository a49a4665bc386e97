//! What a person has told about themselves, as one sealed piece: it opens with the person's key and for the person's
//! row alone.

use serde::{Deserialize, Serialize};

use super::found::{email_of, phone_of};
use super::{Unable, Users};
use crate::clock::Clock;
use crate::domain::account::AccountState;
use crate::domain::id::UserId;
use crate::domain::stock::Millis;
use crate::domain::user::{Address, Email, Locale, PersonName, Phone, Role};
use crate::persistence::user::User;
use crate::vault::{Vault, WrappedKey};

/// Everything that identifies a person. An administrator need not have told more than an address.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Personal {
    pub email: Email,
    pub name: Option<PersonName>,
    pub phone: Option<Phone>,
    pub address: Option<Address>,
    /// How letters are written.
    pub locale: Locale,
}

/// What a person wants to be otherwise; what is left out stays.
#[derive(Clone, Default)]
pub struct Change {
    pub name: Option<PersonName>,
    pub phone: Option<Phone>,
    pub address: Option<Address>,
}

impl Personal {
    /// What the row says of its person. A row without a key says nothing any more.
    pub(in crate::actors) fn of(vault: &Vault, user: &User) -> Result<Personal, Unable> {
        let (key, sealed) = (key_of(user)?, user.personal.as_ref().ok_or(Unable::NoUser)?);
        let plain = vault.open(&key, &context(user.id), sealed)?;
        serde_json::from_slice(&plain).map_err(|_| {
            tracing::warn!(user = %user.id, "the personal data of {} cannot be read", user.id);
            Unable::Internal
        })
    }

    pub(super) fn with(self, change: Change) -> Personal {
        Personal {
            name: change.name.or(self.name),
            phone: change.phone.or(self.phone),
            address: change.address.or(self.address),
            ..self
        }
    }
}

fn key_of(user: &User) -> Result<WrappedKey, Unable> {
    user.key()?.ok_or(Unable::NoUser)
}

fn context(user: UserId) -> String {
    format!("{user} personal")
}

fn sealed(vault: &Vault, user: UserId, key: &WrappedKey, personal: &Personal) -> Result<Vec<u8>, Unable> {
    let plain = serde_json::to_vec(personal).map_err(|_| Unable::Internal)?;
    Ok(vault.seal(key, &context(user), &plain)?)
}

/// The row of an account that nobody has proved yet, with a key of its own.
pub(super) fn newcomer(
    vault: &Vault,
    clock: &Clock,
    personal: &Personal,
    password: String,
    role: Role,
) -> Result<User, Unable> {
    let (now, key) = (clock.now(), vault.new_key()?);
    let id = UserId::new(now, clock.chance());
    Ok(User {
        id,
        state: AccountState::Unverified,
        role,
        email: Some(email_of(vault, &personal.email).current),
        phone: personal.phone.as_ref().map(|phone| phone_of(vault, phone).current),
        personal: Some(sealed(vault, id, &key, personal)?),
        wrapped_key: Some(key.as_bytes().to_vec()),
        password: Some(password),
        signed_out_at: Millis(0),
        version: 1,
        verified_at: None,
        created_at: now,
        updated_at: now,
    })
}

impl Users {
    pub(super) fn seal(
        &self,
        user: UserId,
        key: &WrappedKey,
        personal: &Personal,
    ) -> Result<Vec<u8>, Unable> {
        let plain = serde_json::to_vec(personal).map_err(|_| Unable::Internal)?;
        Ok(self.0.vault.seal(key, &context(user), &plain)?)
    }

    /// What the row says of its person. A row without a key says nothing any more.
    pub(super) fn open(&self, user: &User) -> Result<Personal, Unable> {
        Personal::of(&self.0.vault, user)
    }

    pub(super) fn key_of(&self, user: &User) -> Result<WrappedKey, Unable> {
        key_of(user)
    }
}
