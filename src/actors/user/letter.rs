//! The letters that a change of an account takes along, in its own transaction, and the links in them.

use secrecy::ExposeSecret;

use super::{Inner, Personal, Unable, UserHouse, Users};
use crate::actors::outbox;
use crate::domain::stock::Millis;
use crate::mail::{Letter, LinkToken};
use crate::persistence::Writing;
use crate::persistence::link::{OneTimeToken, Purpose};
use crate::persistence::user::User;
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
            expires_at: good_until(purpose, self.0.clock.now()),
            used_at: None,
        };
        writing.insert_token(&link).await?;
        Ok(LinkToken::new(token.expose_secret()))
    }
}

/// How long the link of a verification letter is good for, to the millisecond.
pub const VERIFY_MS: i64 = 24 * 3_600 * 1_000;
const RESET_MINUTES: u32 = 30;
/// No link to an account that nobody proves is sent that would be good for longer, counted from its sign-up, however often one is
/// asked for. A day later it has lapsed.
const UNPROVED_MS_MAX: i64 = 6 * 24 * 3_600 * 1_000;

/// Whoever asks for the same address again within this has not heard the answer: its letter is on its way.
const ASKED_AGAIN_MS: i64 = 10 * 60_000;

/// When a link ends that is sent now.
fn good_until(purpose: Purpose, now: Millis) -> Millis {
    now.plus(life_ms(purpose))
}

/// May another link be sent to an account that nobody has proved?
pub(super) fn may_be_sent_again(signed_up: Millis, now: Millis) -> bool {
    good_until(Purpose::Verify, now) <= signed_up.plus(UNPROVED_MS_MAX)
}

pub(super) fn has_expired(expires_at: Millis, now: Millis) -> bool {
    expires_at <= now
}

/// Was the link to a new address sent a moment ago?
pub(super) fn was_just_sent(expires_at: Millis, now: Millis) -> bool {
    now < expires_at.plus(ASKED_AGAIN_MS - life_ms(Purpose::ChangeEmail))
}

fn life_ms(purpose: Purpose) -> i64 {
    match purpose {
        Purpose::Verify | Purpose::ChangeEmail => VERIFY_MS,
        Purpose::Reset => i64::from(RESET_MINUTES) * 60_000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: Millis = Millis(1_800_000_000_000);

    #[test]
    fn a_link_is_good_for_its_whole_life_and_not_a_millisecond_longer() {
        let day_ms = 24 * 3_600 * 1_000;
        let lives =
            [(Purpose::Verify, day_ms), (Purpose::ChangeEmail, day_ms), (Purpose::Reset, 30 * 60_000)];
        for (purpose, life_ms) in lives {
            let until = good_until(purpose, SENT);
            assert!(!has_expired(until, SENT.plus(life_ms - 1)), "{}", purpose.as_str());
            assert!(has_expired(until, SENT.plus(life_ms)), "{}", purpose.as_str());
        }
    }

    #[test]
    fn no_link_is_sent_that_keeps_an_account_for_longer_than_seven_days() {
        let day_ms = 24 * 3_600 * 1_000;
        assert!(may_be_sent_again(SENT, SENT) && may_be_sent_again(SENT, SENT.plus(5 * day_ms)));
        assert!(!may_be_sent_again(SENT, SENT.plus(5 * day_ms + 1)));
    }

    #[test]
    fn a_link_to_a_new_address_was_just_sent_for_ten_minutes() {
        let until = good_until(Purpose::ChangeEmail, SENT);
        assert!(was_just_sent(until, SENT) && was_just_sent(until, SENT.plus(599_999)));
        assert!(!was_just_sent(until, SENT.plus(600_000)));
    }
}
