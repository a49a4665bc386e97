//! By what a person is found, under whichever master key that was written.
//!
//! Always true: whoever is moved from one key to another in this moment is found, before it or after.

use super::{Unable, Users};
use crate::domain::user::{Email, Phone};
use crate::persistence::proof::Blinds;
use crate::persistence::user::User;
use crate::vault::Vault;

/// What an index is made of, so that an address is never mistaken for a number.
const EMAIL: &str = "email";
const PHONE: &str = "phone";

pub(super) fn email_of(vault: &Vault, email: &Email) -> Blinds {
    under(vault, EMAIL, email.as_str())
}

pub(super) fn phone_of(vault: &Vault, phone: &Phone) -> Blinds {
    under(vault, PHONE, phone.as_str())
}

fn under(vault: &Vault, kind: &str, normal_form: &str) -> Blinds {
    Blinds { current: vault.blind(kind, normal_form), former: vault.former_blinds(kind, normal_form) }
}

impl Users {
    pub(super) fn email_of(&self, email: &Email) -> Blinds {
        email_of(&self.0.vault, email)
    }

    pub(super) fn phone_of(&self, phone: &Phone) -> Blinds {
        phone_of(&self.0.vault, phone)
    }

    /// The account that has proved this address.
    pub(super) async fn owner_of_email(&self, email: &Email) -> Result<Option<User>, Unable> {
        Ok(self.0.tables.users().by_proved_email(&self.email_of(email)).await?)
    }

    /// The account behind an address: the one that proved it, else the newest that claims it.
    pub(super) async fn account_of(&self, email: &Email) -> Result<Option<User>, Unable> {
        let (users, email) = (self.0.tables.users(), self.email_of(email));
        match users.by_proved_email(&email).await? {
            Some(user) => Ok(Some(user)),
            // Or has proved it by now.
            None => Ok(users.by_email(&email).await?),
        }
    }
}
