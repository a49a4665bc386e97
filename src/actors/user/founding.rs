//! The first administrator, made on a stopped shop by whoever has its machine: there is nobody yet who could be asked.

use super::found::email_of;
use super::personal::newcomer;
use super::{Personal, Unable};
use crate::clock::Clock;
use crate::domain::account::AccountState;
use crate::domain::id::UserId;
use crate::domain::trail::{Deed, Record};
use crate::domain::user::{Email, Locale, Role};
use crate::persistence::user::{User, UserError};
use crate::persistence::{StoreError, Tables};
use crate::vault::Vault;

/// Makes an administrator whose address needs no letter: whoever owns the machine vouches for it. `hash` is their password's.
pub async fn make_admin(
    tables: &Tables,
    vault: &Vault,
    clock: &Clock,
    email: Email,
    hash: String,
) -> Result<UserId, UserError> {
    let failed = |error: Unable| {
        tracing::error!(%error, "the administrator could not be made");
        UserError::Store(StoreError::Closed)
    };
    let proved = email_of(vault, &email);
    let personal = Personal { email, name: None, phone: None, address: None, locale: Locale::En };
    let new = newcomer(vault, clock, &personal, hash, Role::Admin).map_err(failed)?;
    let admin = User { state: AccountState::Verified, verified_at: Some(new.created_at), ..new };
    let mut writing = tables.begin().await?;
    writing.insert_user(&admin).await?;
    writing.prove_email(&proved, admin.id).await?;
    let record = Record::new(Deed::RoleChanged, admin.created_at).on(admin.id).word("role", "admin");
    writing.record(&record).await?;
    writing.commit().await?;
    Ok(admin.id)
}
