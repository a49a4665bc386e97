//! The letters that a change of an account takes along, in its own transaction, and the links in them.

use secrecy::ExposeSecret;

use super::{Inner, Personal, Unable, UserHouse, Users};
use crate::actors::outbox;
use crate::mail::{Letter, LinkToken};
use crate::persistence::Writing;
use crate::persistence::user::{OneTimeToken, Purpose, User};
use crate::vault::token_hash;

impl Users {
    /// Has a letter sent once the transaction stands.
    pub(super) async fn send(
        &self,
        writing: &mut Writing<'_>,
        user: &User,
        personal: &Personal,
        letter: Letter,
    ) -> Result<(), Unable> {
        let Inner { house: UserHouse { vault, clock, .. }, .. } = &*self.0;
        let mail = outbox::sealed(vault, clock, &letter, &personal.email, personal.locale, Some(user.id))?;
        Ok(writing.post(&mail).await?)
    }

    /// Has a letter sent whose link is good for this purpose, once, and for the address it goes to.
    pub(super) async fn send_link(
        &self,
        writing: &mut Writing<'_>,
        user: &User,
        personal: &Personal,
        purpose: Purpose,
    ) -> Result<(), Unable> {
        let token = self.put_link(writing, user, personal, purpose).await?;
        let letter = match purpose {
            Purpose::Verify => Letter::VerifyAddress { token },
            Purpose::Reset => Letter::PasswordReset { token, minutes: RESET_MINUTES },
            Purpose::ChangeEmail => Letter::ConfirmNewAddress { token },
        };
        self.send(writing, user, personal, letter).await
    }

    /// The link alone.
    pub(super) async fn put_link(
        &self,
        writing: &mut Writing<'_>,
        user: &User,
        personal: &Personal,
        purpose: Purpose,
    ) -> Result<LinkToken, Unable> {
        let token = self.0.vault.new_token(purpose.as_str());
        let sealed = match purpose {
            Purpose::ChangeEmail => Some(self.seal_email(user, &personal.email)?),
            Purpose::Verify | Purpose::Reset => None,
        };
        let link = OneTimeToken {
            hash: token_hash(token.expose_secret()),
            purpose,
            user: user.id,
            email: self.email_of(&personal.email).current,
            sealed,
            expires_at: self.0.clock.now().plus(life_ms(purpose)),
        };
        writing.insert_token(&link).await?;
        Ok(LinkToken::new(token.expose_secret()))
    }
}

/// How long the link of a verification letter is good for, to the millisecond.
pub const VERIFY_MS: i64 = 24 * 3_600 * 1_000;
const RESET_MINUTES: u32 = 30;

fn life_ms(purpose: Purpose) -> i64 {
    match purpose {
        Purpose::Verify | Purpose::ChangeEmail => VERIFY_MS,
        Purpose::Reset => i64::from(RESET_MINUTES) * 60_000,
    }
}
