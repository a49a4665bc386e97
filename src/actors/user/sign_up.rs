//! Signing up, and proving that the address is one's own.
//!
//! Whether an address is known here is told to nobody but its owner: whoever signs up with it hears the same, and
//! waits for the same work.

use secrecy::{ExposeSecret, SecretString};

use super::letter::{has_expired, may_be_sent_again};
use super::personal::newcomer;
use super::{Personal, Unable, Users, commit};
use crate::domain::account::{AccountMove, AccountState};
use crate::domain::trail::{Deed, Record};
use crate::domain::user::{Address, Email, Locale, NewPassword, PersonName, Phone, Role};
use crate::mail::Letter;
use crate::persistence::Writing;
use crate::persistence::link::{OneTimeToken, Purpose};
use crate::persistence::user::User;
use crate::telemetry;
use crate::vault::token_hash;

/// Somebody who wants an account.
pub struct SignUp {
    pub email: Email,
    pub password: NewPassword,
    pub name: PersonName,
    pub phone: Phone,
    pub address: Address,
    pub locale: Locale,
}

/// A link that came too late, and who reads the letter with another.
pub struct Expired {
    link: OneTimeToken,
    pub reader: Email,
}

impl Users {
    /// Makes an account that has yet to be proved, or tells the owner of the address that somebody tried.
    pub async fn sign_up(&self, asked: SignUp) -> Result<(), Unable> {
        let SignUp { email, password, name, phone, address, locale } = asked;
        let password = self.0.passwords.hash_new(password).await?;
        let mut writing = self.0.tables.begin().await?;
        if let Some(owner) = writing.owner_of_email(&self.email_of(&email)).await? {
            telemetry::signed_up("taken");
            return self.tell_owner(writing, &owner, Letter::AddressTaken).await;
        }
        if let Some(owner) = writing.owner_of_phone(&self.phone_of(&phone)).await? {
            telemetry::signed_up("taken");
            return self.tell_owner(writing, &owner, Letter::PhoneTaken).await;
        }
        let (name, phone, address) = (Some(name), Some(phone), Some(address));
        let personal = Personal { email, name, phone, address, locale };
        let user = newcomer(&self.0.vault, &self.0.clock, &personal, password, Role::Shopper)?;
        writing.insert_user(&user).await?;
        self.send_link(&mut writing, &user, &personal, Purpose::Verify).await?;
        writing.record(&Record::new(Deed::SignedUp, user.created_at).by(user.id).on(user.id)).await?;
        commit(writing).await?;
        self.0.outbox.wake();
        telemetry::signed_up("new");
        tracing::info!(user = %user.id, "{} has signed up", user.id);
        Ok(())
    }

    /// Tells whoever owns what somebody else has asked for, and changes nothing.
    pub(super) async fn tell_owner(
        &self,
        mut writing: Writing<'_>,
        owner: &User,
        letter: Letter,
    ) -> Result<(), Unable> {
        self.send(&mut writing, owner, &self.open(owner)?, letter).await?;
        commit(writing).await?;
        self.0.outbox.wake();
        Ok(())
    }

    /// Sends a new link to the newest account that claims this address, if there is one.
    pub fn send_again(&self, email: Email) -> Result<(), Unable> {
        let users = self.clone();
        self.errand(async move {
            let Some(user) = users.account_of(&email).await? else { return Ok(()) };
            let mut writing = users.0.tables.begin().await?;
            let user = writing.user(user.id).await?.filter(|user| users.may_yet_prove(user));
            let Some(user) = user else { return Ok(()) };
            users.send_link(&mut writing, &user, &users.open(&user)?, Purpose::Verify).await?;
            commit(writing).await?;
            users.0.outbox.wake();
            Ok(())
        })
    }

    /// Follows the link of a letter: the address is proved. Whoever has not heard the answer hears it again by the same link, for as long
    /// as it would have been good.
    pub async fn verify(&self, token: &SecretString) -> Result<(), Unable> {
        let link = self.link(token).await?;
        if self.is_expired(&link) {
            return Err(Unable::LinkExpired);
        }
        match link.purpose {
            Purpose::Reset => Err(Unable::LinkExpired),
            Purpose::ChangeEmail => self.move_email(&link).await,
            Purpose::Verify if link.used_at.is_some() => self.has_proved(&link).await,
            Purpose::Verify => self.prove(&link).await,
        }
    }

    /// The link of a letter, if it has expired and its account still waits for it.
    pub async fn expired(&self, token: &SecretString) -> Result<Option<Expired>, Unable> {
        let users = self.0.tables.users();
        let link = users.token(&token_hash(token.expose_secret())).await?;
        let Some(link) = link.filter(|link| self.is_expired(link)) else { return Ok(None) };
        let Some(user) = users.find(link.user).await? else { return Ok(None) };
        let waits = self.waiting_for(&user, &link)?;
        Ok(waits.map(|personal| Expired { link, reader: personal.email }))
    }

    /// Another letter in the place of one whose link has expired, for the same address. Once: that link is gone then.
    pub async fn renew(&self, Expired { link, .. }: Expired) -> Result<(), Unable> {
        let mut writing = self.0.tables.begin().await?;
        if !writing.spend_token(&link.hash).await? {
            return Ok(());
        }
        // Who has proved it by now needs no other, and who has gone gets none.
        let Some(user) = writing.user(link.user).await? else { return Ok(()) };
        let Some(personal) = self.waiting_for(&user, &link)? else { return Ok(()) };
        if link.purpose == Purpose::ChangeEmail {
            if writing.owner_of_email(&self.email_of(&personal.email)).await?.is_some() {
                return Ok(());
            }
            // For another day the address may move: its owner hears of it again.
            self.send(&mut writing, &user, &self.open(&user)?, Letter::AddressChanging).await?;
        }
        self.send_link(&mut writing, &user, &personal, link.purpose).await?;
        commit(writing).await?;
        self.0.outbox.wake();
        Ok(())
    }

    /// May another link to the account be sent? Who has proved it by now needs none, and who has had seven days gets none.
    fn may_yet_prove(&self, user: &User) -> bool {
        user.state == AccountState::Unverified && may_be_sent_again(user.created_at, self.0.clock.now())
    }

    /// Whom a letter with such a link would reach, if the account still waits for it to be followed.
    fn waiting_for(&self, user: &User, link: &OneTimeToken) -> Result<Option<Personal>, Unable> {
        match (link.purpose, user.state, &link.sealed) {
            (Purpose::Verify, _, _) if self.may_yet_prove(user) => Ok(Some(self.open(user)?)),
            (Purpose::ChangeEmail, AccountState::Verified, Some(sealed)) => {
                let email = self.open_email(user, sealed)?;
                Ok(Some(Personal { email, ..self.open(user)? }))
            }
            _ => Ok(None),
        }
    }

    async fn prove(&self, link: &OneTimeToken) -> Result<(), Unable> {
        let now = self.0.clock.now();
        let mut writing = self.0.tables.begin().await?;
        if !writing.use_token(&link.hash, now).await? {
            drop(writing);
            // Somebody was faster: as a rule the same person, who has pressed twice.
            let link = self.0.tables.users().token(&link.hash).await?.filter(|link| link.used_at.is_some());
            return self.has_proved(&link.ok_or(Unable::LinkExpired)?).await;
        }
        let user = self.whose(&mut writing, link).await?;
        let user = self.rekeyed(&mut writing, user).await?;
        let state = user.state.after(AccountMove::Verify).ok_or(Unable::LinkExpired)?;
        writing.void_other_tokens(user.id, Purpose::Verify, &link.hash).await?;
        let personal = self.open(&user)?;
        writing.prove_email(&self.email_of(&personal.email), user.id).await?;
        if let Some(phone) = &personal.phone {
            writing.prove_phone(&self.phone_of(phone), user.id).await?;
        }
        let verified =
            User { state, verified_at: Some(now), version: user.version + 1, updated_at: now, ..user };
        writing.update_user(&verified).await?;
        writing.record(&Record::new(Deed::AddressVerified, now).by(verified.id).on(verified.id)).await?;
        commit(writing).await?;
        telemetry::verified();
        tracing::info!(user = %verified.id, "{} has proved their address", verified.id);
        Ok(())
    }

    /// What is said of a link that was used before, whose answer may have been lost: that its address is proved, if it still is its
    /// person's, who may come in. Nothing is done.
    async fn has_proved(&self, link: &OneTimeToken) -> Result<(), Unable> {
        let user = self.0.tables.users().find(link.user).await?;
        let user = user.filter(|user| user.state == AccountState::Verified).ok_or(Unable::LinkExpired)?;
        if self.was_sent_to(link, &user)? { Ok(()) } else { Err(Unable::LinkExpired) }
    }

    pub(super) async fn link(&self, token: &SecretString) -> Result<OneTimeToken, Unable> {
        let hash = token_hash(token.expose_secret());
        self.0.tables.users().token(&hash).await?.ok_or(Unable::LinkExpired)
    }

    pub(super) fn is_expired(&self, link: &OneTimeToken) -> bool {
        has_expired(link.expires_at, self.0.clock.now())
    }

    /// Uses a link up, for good, and finds whom it is about.
    pub(super) async fn spend(&self, writing: &mut Writing<'_>, link: &OneTimeToken) -> Result<User, Unable> {
        if !writing.spend_token(&link.hash).await? {
            return Err(Unable::LinkExpired);
        }
        self.whose(writing, link).await
    }

    /// Whom a link is about that is being used: the address it was sent to must still be theirs.
    async fn whose(&self, writing: &mut Writing<'_>, link: &OneTimeToken) -> Result<User, Unable> {
        let user = writing.user(link.user).await?.filter(|user| user.wrapped_key.is_some());
        let user = user.ok_or(Unable::LinkExpired)?;
        let is_theirs = link.purpose == Purpose::ChangeEmail || self.was_sent_to(link, &user)?;
        if is_theirs { Ok(user) } else { Err(Unable::LinkExpired) }
    }

    /// Was a link sent to the address that this person has, under whichever key?
    fn was_sent_to(&self, link: &OneTimeToken, user: &User) -> Result<bool, Unable> {
        Ok(self.email_of(&self.open(user)?.email).contain(&link.email))
    }
}
