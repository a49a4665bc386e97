//! People: how an account comes to be, is proved, used, changed, and goes.
//!
//! It owns the accounts' rows, and keeps nothing between two questions that a row does not hold, but of what was told a moment ago: it
//! may live on every node. A change is one transaction with its version, and takes along whatever must not be lost beside it: the letter,
//! the link behind it, the entry in the audit trail, the end of sessions. Always true: a letter leaves after its account
//! is on the disk; what personal data says is readable with the person's own key alone; and somebody who asks about
//! another person's address hears, and waits for, the same whether it is known here or not.

mod chores;
mod export;
mod found;
mod founding;
mod leave;
mod letter;
mod personal;
mod recover;
mod refused;
mod rekey;
mod seen;
mod session;
mod sign_up;

use std::ops::Deref;
use std::sync::Arc;

use actix_web::rt;
use secrecy::SecretString;
use tokio::sync::Semaphore;

pub use chores::{CLEARING_AT, Clearing};
pub use export::Kept;
pub use founding::make_admin;
pub use leave::erase_again;
pub use letter::VERIFY_MS;
pub use personal::{Change, Personal};
pub use session::{Device, Opened, REFRESH_IDLE_MS};
pub use sign_up::{Expired, SignUp};

use self::refused::Refused;
use crate::actors::order::Orders;
use crate::actors::outbox::Outbox;
use crate::actors::passwords::{self, Passwords, Unhashed, Verdict};
use crate::actors::revocations::Revocations;
use crate::clock::Clock;
use crate::domain::account::AccountState;
use crate::domain::id::{SessionId, UserId};
use crate::domain::stock::Millis;
use crate::domain::trail::{Deed, Record};
use crate::domain::user::{Email, NewPassword, PasswordPolicy, Role, WeakPassword};
use crate::logs::carried;
use crate::persistence::link::Purpose;
use crate::persistence::proof::Blinds;
use crate::persistence::revocation::{Revocation, Subject};
use crate::persistence::user::{User, UserError, UserFilter, UsersFound};
use crate::persistence::{StoreError, Tables, Writing};
use crate::telemetry;
use crate::vault::{Sealed, Vault};

/// How long an access token is good for, and so how long a revocation must be remembered.
pub const ACCESS_LIFE_MS: i64 = 15 * 60 * 1_000;
/// The longest that a token is good for that an operator signs offline. A suspension and a deletion are remembered as long: who
/// signed one for somebody with an account cannot take it back otherwise.
pub const OFFLINE_LIFE_HOURS_MAX: i64 = 365 * 24;
/// What the mark of a refresh token is made of.
const REFRESH: &str = "refresh";
/// Accounts and sessions that the chores look at in one page.
const CHORES_MAX: u32 = 100;
/// Hashes of one password that are looked at for one request.
const HASHES_MAX: usize = 3;
/// Requests whose answer does not wait for what they lead to, at most, at a time.
const ERRANDS_MAX: usize = 64;
/// How long somebody waits who came when all of these ran.
const RETRY_MS: u64 = 1_000;

/// Why it was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unable {
    #[error("too much is waiting")]
    Busy { retry_after_ms: u64 },
    /// Or nobody has this address.
    #[error("the password is not right")]
    WrongPassword,
    /// It was to be a new one. Nothing was done.
    #[error(transparent)]
    Weak(WeakPassword),
    #[error("the address is not proved yet")]
    Unverified,
    #[error("the account is suspended")]
    Suspended,
    #[error("there is no such account")]
    NoUser,
    #[error("there is no such session")]
    NoSession,
    #[error("the refresh token is void")]
    DeadToken,
    #[error("the link was used, has expired, or never was")]
    LinkExpired,
    #[error("the number belongs to somebody else")]
    PhoneTaken,
    #[error("the account's state does not allow it")]
    IllegalMove,
    /// Nothing was done.
    #[error("the store cannot be reached")]
    Unavailable,
    /// It may have been done.
    #[error("nobody knows whether it was done")]
    Unknown,
    #[error("something is wrong on our side")]
    Internal,
}

impl Unable {
    /// Is it certain that nothing was done, for a reason that lies with us?
    pub fn nothing_was_done(self) -> bool {
        matches!(self, Unable::Busy { .. } | Unable::Unavailable)
    }
}

impl From<StoreError> for Unable {
    fn from(error: StoreError) -> Unable {
        tracing::error!(%error, "the tables of accounts cannot be used");
        Unable::Unavailable
    }
}

impl From<UserError> for Unable {
    fn from(error: UserError) -> Unable {
        match error {
            // Somebody was faster: whoever asks again is told what is now.
            UserError::VersionConflict => Unable::Unavailable,
            UserError::EmailTaken => Unable::LinkExpired,
            UserError::PhoneTaken => Unable::PhoneTaken,
            UserError::Store(error) => error.into(),
        }
    }
}

impl From<Sealed> for Unable {
    fn from(error: Sealed) -> Unable {
        // Why; that it went wrong is told at level error by whoever asked for it.
        tracing::warn!(%error, "something sealed cannot be opened, or sealed");
        Unable::Internal
    }
}

impl From<passwords::Busy> for Unable {
    fn from(_: passwords::Busy) -> Unable {
        Unable::Busy { retry_after_ms: RETRY_MS }
    }
}

impl From<Unhashed> for Unable {
    fn from(why: Unhashed) -> Unable {
        match why {
            Unhashed::Busy(busy) => busy.into(),
            Unhashed::Weak(why) => Unable::Weak(why),
            Unhashed::Unread => Unable::Unavailable,
        }
    }
}

/// Finds and changes accounts. Cheap to clone.
#[derive(Clone)]
pub struct Users(Arc<Inner>);

struct Inner {
    house: UserHouse,
    errands: Arc<Semaphore>,
    refused: Refused,
    /// The next deletion is committed, and nobody hears of it.
    #[cfg(test)]
    loses_word: std::sync::atomic::AtomicBool,
}

/// Whom the accounts' owner asks.
pub struct UserHouse {
    pub tables: Tables,
    pub vault: Vault,
    pub passwords: Passwords,
    pub policy: PasswordPolicy,
    pub outbox: Outbox,
    pub revocations: Revocations,
    pub orders: Orders,
    pub clock: Clock,
}

impl Deref for Inner {
    type Target = UserHouse;

    fn deref(&self) -> &UserHouse {
        &self.house
    }
}

impl Users {
    pub fn new(house: UserHouse) -> Users {
        let errands = Arc::new(Semaphore::new(ERRANDS_MAX));
        Users(Arc::new(Inner {
            house,
            errands,
            refused: Refused::default(),
            #[cfg(test)]
            loses_word: Default::default(),
        }))
    }

    /// Is the password good enough to be this person's? Whether it is known from a breach is said when it is taken.
    pub fn accept(&self, password: SecretString, email: Option<&Email>) -> Result<NewPassword, WeakPassword> {
        self.0.policy.accept(password, email)
    }

    /// Is there room for one more password to be looked at? Asked before anything that would be for nothing.
    pub fn has_room(&self) -> Result<(), Unable> {
        Ok(self.0.passwords.has_room()?)
    }

    pub async fn find(&self, user: UserId) -> Result<(User, Personal), Unable> {
        let user = self.0.tables.users().find(user).await?.ok_or(Unable::NoUser)?;
        let personal = self.open(&user)?;
        Ok((user, personal))
    }

    /// How many passwords were compared with nothing, so that an unknown address costs what a known one does.
    pub fn dummies(&self) -> u64 {
        self.0.passwords.dummies()
    }

    /// How many passwords were hashed or compared at all.
    pub fn hashes(&self) -> u64 {
        self.0.passwords.worked()
    }

    /// Accounts made before `before` that fit, newest first; of one address, if one is named.
    pub async fn look_up(
        &self,
        state: Option<AccountState>,
        role: Option<Role>,
        email: Option<&Email>,
        before: Option<UserId>,
        limit: usize,
    ) -> Result<UsersFound, Unable> {
        let filter = UserFilter { state, role, email: email.map(|email| self.email_of(email)) };
        Ok(self.0.tables.users().look_up(&filter, before, limit).await?)
    }

    /// Changes what somebody has told about themselves. Nothing is written where nothing changes.
    pub async fn change(&self, user: UserId, change: Change) -> Result<(User, Personal), Unable> {
        let (row, before) = self.find(user).await?;
        if before == before.clone().with(change.clone()) {
            return Ok((row, before));
        }
        let now = self.0.clock.now();
        let mut writing = self.0.tables.begin().await?;
        let user = writing.user(user).await?.ok_or(Unable::NoUser)?;
        let user = self.rekeyed(&mut writing, user).await?;
        let phone = change.phone.as_ref().map(|phone| self.phone_of(phone));
        let personal = self.open(&user)?.with(change);
        let sealed = self.seal(user.id, &self.key_of(&user)?, &personal)?;
        if let Some(phone) = phone.as_ref().filter(|phone| user.phone != Some(phone.current)) {
            self.move_phone(&mut writing, &user, phone).await?;
        }
        let changed = User {
            personal: Some(sealed),
            phone: phone.map(|phone| phone.current).or(user.phone),
            version: user.version + 1,
            updated_at: now,
            ..user
        };
        writing.update_user(&changed).await?;
        writing.record(&Record::new(Deed::ProfileChanged, now).by(changed.id).on(changed.id)).await?;
        commit(writing).await?;
        Ok((changed, personal))
    }

    async fn move_phone(&self, writing: &mut Writing<'_>, user: &User, to: &Blinds) -> Result<(), Unable> {
        if let Some(from) = &user.phone {
            writing.free_phone(from, user.id).await?;
        }
        Ok(writing.prove_phone(to, user.id).await?)
    }

    /// Is this the user's password? Asked again by whoever is signed in, before what cannot be taken back.
    async fn confirm(&self, user: UserId, password: &SecretString) -> Result<User, Unable> {
        self.0.passwords.has_room()?;
        let user = self.0.tables.users().find(user).await?.ok_or(Unable::NoUser)?;
        match self.0.passwords.verify(password.clone(), user.password.clone()).await? {
            Verdict::Right { .. } => Ok(user),
            Verdict::Wrong => {
                let refused = Record::new(Deed::PasswordRefused, self.0.clock.now()).by(user.id).on(user.id);
                self.note_failure(&refused).await;
                Err(Unable::WrongPassword)
            }
        }
    }

    /// A password was wrong, whoever cannot write that down at the moment.
    async fn note_failure(&self, record: &Record) {
        let noting = async {
            let mut writing = self.0.tables.begin().await?;
            writing.record(record).await?;
            commit(writing).await
        };
        if let Err(error) = noting.await {
            tracing::error!(%error, "a wrong password is not in the trail");
        }
    }

    /// Begins a change by whoever has shown this password: the account as the transaction sees it. Its hash may be another by
    /// now, of another password or of this one made anew, and then it is looked at once more.
    async fn begin_by(
        &self,
        mut confirmed: User,
        password: &SecretString,
    ) -> Result<(Writing<'_>, User), Unable> {
        for _ in 0..HASHES_MAX {
            let mut writing = self.0.tables.begin().await?;
            let user = writing.user(confirmed.id).await?.ok_or(Unable::NoUser)?;
            if user.password == confirmed.password {
                return Ok((writing, user));
            }
            // Nobody waits for the writer while a password is looked at.
            drop(writing);
            confirmed = self.confirm(confirmed.id, password).await?;
        }
        Err(Unable::Unavailable)
    }

    /// Ends one session, on all nodes.
    async fn end(
        &self,
        writing: &mut Writing<'_>,
        session: SessionId,
        until: Millis,
    ) -> Result<Revocation, Unable> {
        let now = self.0.clock.now();
        writing.end_session(session).await?;
        let subject = Subject::Session(session);
        let revocation = Revocation { subject, until: until.max(now.plus(ACCESS_LIFE_MS)) };
        writing.revoke(&revocation, now).await?;
        Ok(revocation)
    }

    /// What is in the table by now is true here at once, and on other nodes when they look.
    fn refuse_from_now(&self, revocations: &[Revocation]) {
        for revocation in revocations {
            self.0.revocations.note(revocation);
        }
        self.0.revocations.tell();
        telemetry::revoked(revocations.len());
    }

    /// Does something whose answer must not tell whether there was anything to do. It is heard, and nothing more.
    fn errand(&self, work: impl Future<Output = Result<(), Unable>> + 'static) -> Result<(), Unable> {
        let busy = Unable::Busy { retry_after_ms: RETRY_MS };
        let place = self.0.errands.clone().try_acquire_owned().map_err(|_| busy)?;
        rt::spawn(carried(async move {
            if let Err(error) = work.await {
                tracing::warn!(%error, "something that somebody asked for could not be done");
            }
            drop(place);
        }));
        Ok(())
    }
}

/// Ends every session of a user, on all nodes, and says up to which beginning: the caller keeps that in the row, so
/// that the next session begins later. A session may have begun ahead of our clock: on a node whose clock differs, or
/// in the very millisecond of the last time. Whoever had one may have asked for another address: that is taken back.
async fn sign_out(
    writing: &mut Writing<'_>,
    user: UserId,
    now: Millis,
    until: Millis,
) -> Result<(Revocation, Millis), Unable> {
    let begun = writing.sessions_of(user).await?.into_iter().map(|session| session.created_at);
    let epoch = begun.fold(now, Millis::max);
    writing.end_sessions(user).await?;
    writing.void_tokens(user, Purpose::ChangeEmail).await?;
    let subject = Subject::User(user, epoch);
    let revocation = Revocation { subject, until: until.max(now.plus(ACCESS_LIFE_MS)) };
    writing.revoke(&revocation, now).await?;
    Ok((revocation, epoch))
}

/// What went wrong at the very end may have happened.
async fn commit(writing: Writing<'_>) -> Result<(), Unable> {
    writing.commit().await.map_err(|error| {
        tracing::error!(%error, "a change of an account may not have been written");
        Unable::Unknown
    })
}
