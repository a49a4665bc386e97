//! The first administrator, made on a stopped shop by whoever has its machine: there is nobody yet who could be asked.

use super::found::email_of;
use super::personal::newcomer;
use super::{Personal, Unable};
use crate::actors::passwords::Passwords;
use crate::clock::Clock;
use crate::domain::account::AccountState;
use crate::domain::id::UserId;
use crate::domain::trail::{Deed, Record};
use crate::domain::user::{Email, Locale, NewPassword, Role};
use crate::persistence::user::{User, UserError};
use crate::persistence::{StoreError, Tables};
use crate::vault::Vault;

/// Makes an administrator whose address needs no letter: whoever owns the machine vouches for it.
pub async fn make_admin(
    tables: &Tables,
    vault: &Vault,
    passwords: &Passwords,
    clock: &Clock,
    email: Email,
    password: NewPassword,
) -> Result<UserId, UserError> {
    let failed = |error: Unable| {
        tracing::error!(%error, "the administrator could not be made");
        UserError::Store(StoreError::Closed)
    };
    let hash = passwords.hash(password.into_secret()).await.map_err(|busy| failed(busy.into()))?;
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
