//! Logging in, staying logged in, and logging out: here, there, or everywhere.
//!
//! A log-in of a device is a session; its refresh token is replaced at each use. An answer that was lost on the way is
//! given again to whoever shows the token before it within [`GRACE_MS`]; a token that is older, or comes later, was
//! stolen by somebody, and ends the session. A token shows by itself that we made it, so a stranger who knows a
//! session's id cannot end it with nonsense.
//!
//! A session that was opened with a key goes on with it alone: whoever shows one of its tokens without the key changes
//! nothing, whatever the token. A session without one gets none later, or a thief would make it his own at his first
//! refresh, and what its owner then shows would end it no more.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use secrecy::{ExposeSecret, SecretString};

use super::{REFRESH, Unable, Users, commit, sign_out};
use crate::actors::passwords::Verdict;
use crate::domain::account::AccountState;
use crate::domain::id::{SessionId, UserId};
use crate::domain::stock::Millis;
use crate::domain::trail::{Deed, Record};
use crate::domain::user::{Email, Role};
use crate::dpop::Thumbprint;
use crate::persistence::Writing;
use crate::persistence::revocation::Revocation;
use crate::persistence::session::Session;
use crate::persistence::user::{Blind, User};
use crate::telemetry;
use crate::vault::{same, token_hash};

/// How long an unused refresh token is good for.
pub const REFRESH_IDLE_MS: i64 = 14 * 24 * 3_600 * 1_000;
/// How long a session lasts, however much it is used.
pub(super) const SESSION_LIFE_MS: i64 = 60 * 24 * 3_600 * 1_000;
/// How long the token before the current one still leads to it.
const GRACE_MS: i64 = 10_000;
/// Sessions that one person may have; a further one ends the oldest.
const SESSIONS_MAX: usize = 50;
const DEVICE_CHARS_MAX: usize = 200;
/// Bytes of a refresh token's mark.
const MARK_BYTES: usize = 12;

/// What a device calls itself (`User-Agent`, as far as it can be shown), and the key that it has proved to have.
#[derive(Debug, Clone)]
pub struct Device {
    name: String,
    key: Option<Thumbprint>,
}

impl Device {
    pub fn named(by: &str) -> Device {
        let name = by.chars().filter(|c| !c.is_control()).take(DEVICE_CHARS_MAX).collect();
        Device { name, key: None }
    }

    /// Its session is bound to this key, if there is one.
    pub fn with_key(self, key: Option<Thumbprint>) -> Device {
        Device { key, ..self }
    }
}

/// A session that is open, and what it takes to go on with it.
pub struct Opened {
    pub user: UserId,
    pub role: Role,
    pub session: SessionId,
    pub refresh: SecretString,
    /// When the refresh token will be void, unless it is used before.
    pub refresh_expires_at: Millis,
    /// Whether that wants a proof of a key beside it.
    pub is_bound: bool,
}

enum Shown {
    Current,
    /// The one before, by somebody who has not heard of its successor.
    Former(SecretString),
    Stolen,
}

impl Users {
    /// Opens a session. Whether the address is unknown or the password wrong is not told, and takes as long.
    pub async fn log_in(
        &self,
        email: &Email,
        password: SecretString,
        device: Device,
    ) -> Result<Opened, Unable> {
        // In a flood most are turned away here, before the tables are asked about anybody.
        self.0.passwords.has_room()?;
        let found = self.account_of(email).await?;
        let stored = found.as_ref().and_then(|user| user.password.clone());
        let verdict = self.0.passwords.verify(password.clone(), stored).await?;
        let user = match (verdict, found) {
            (Verdict::Right { needs_rehash }, Some(user)) => {
                if needs_rehash {
                    self.hash_again(user, &password).await?
                } else {
                    user
                }
            }
            (_, nobody_or_not_them) => {
                let record = Record::new(Deed::LogInFailed, self.0.clock.now());
                let whose = nobody_or_not_them.map(|user| user.id);
                self.note_failure(&whose.into_iter().fold(record, Record::on)).await;
                telemetry::logged_in("wrong");
                return Err(Unable::WrongPassword);
            }
        };
        let (mut writing, user) = self.begin_by(user, &password).await?;
        if let Err((outcome, why)) = may_log_in(&user) {
            let record = Record::new(Deed::LogInFailed, self.0.clock.now()).on(user.id).word("why", outcome);
            writing.record(&record).await?;
            commit(writing).await?;
            telemetry::logged_in(outcome);
            return Err(why);
        }
        let user = self.rekeyed(&mut writing, user).await?;
        let (opened, ended) = self.open_session(&mut writing, &user, device).await?;
        writing
            .record(&own(Deed::LoggedIn, user.id, self.0.clock.now()).id("session", opened.session))
            .await?;
        commit(writing).await?;
        self.refuse_from_now(&ended);
        telemetry::logged_in("ok");
        Ok(opened)
    }

    /// Its hash is weaker than what is asked of hashes today, and the password is at hand.
    async fn hash_again(&self, user: User, password: &SecretString) -> Result<User, Unable> {
        let hash = self.0.passwords.hash(password.clone()).await?;
        let weak = user.password.clone();
        let (mut writing, user) = self.begin_by(user, password).await?;
        if user.password != weak {
            // Somebody was faster, and knows the password as well.
            return Ok(user);
        }
        let changed = User { password: Some(hash), version: user.version + 1, ..user };
        writing.update_user(&changed).await?;
        commit(writing).await?;
        Ok(changed)
    }

    async fn open_session(
        &self,
        writing: &mut Writing<'_>,
        user: &User,
        device: Device,
    ) -> Result<(Opened, Vec<Revocation>), Unable> {
        // After whatever ended all sessions before, also in the same millisecond.
        let now = self.0.clock.now().max(user.signed_out_at.plus(1));
        let id = SessionId::new(now, self.0.clock.chance());
        let refresh = self.new_refresh(id);
        let name = self.0.vault.seal(&self.key_of(user)?, &of_device(id), device.name.as_bytes())?;
        let session = Session {
            id,
            user: user.id,
            refresh: token_hash(refresh.expose_secret()),
            former: None,
            successor: None,
            device: String::new(),
            device_sealed: Some(name),
            created_at: now,
            used_at: now,
            key: device.key,
        };
        let mut ended = Vec::new();
        for too_many in writing.sessions_of(user.id).await?.iter().skip(SESSIONS_MAX - 1) {
            ended.push(self.end(writing, too_many.id, now).await?);
        }
        writing.insert_session(&session).await?;
        Ok((opened(user, &session, refresh), ended))
    }

    /// A new pair for the current refresh token; for the one before it, within its grace, the same pair once more. `key`: the
    /// one that whoever asks has proved to have.
    pub async fn refresh(&self, token: &SecretString, key: Option<Thumbprint>) -> Result<Opened, Unable> {
        let id = self.session_of(token).ok_or(Unable::DeadToken)?;
        let mut writing = self.0.tables.begin().await?;
        // Not before: the grace is counted from when the pair was made, however long we have waited to make it.
        let now = self.0.clock.now();
        let session = writing.session(id).await?.ok_or(Unable::DeadToken)?;
        // Before anything that replaces the token or ends the session: a thief logs nobody out.
        if let Some(why) = lacks_key(&session, key) {
            return self.refuse(writing, &session, why).await;
        }
        let user = writing.user(session.user).await?.ok_or(Unable::DeadToken)?;
        if user.state != AccountState::Verified || expires_at(&session) <= now {
            return self.close(writing, &session, None).await;
        }
        match self.shown(&user, &session, token, now)? {
            Shown::Former(successor) => Ok(opened(&user, &session, successor)),
            Shown::Current => self.rotate(writing, &user, session, now).await,
            Shown::Stolen => {
                telemetry::session_reused();
                tracing::warn!(session = %id, user = %user.id, "a refresh token of {} was used twice: its session ends", user.id);
                self.close(writing, &session, Some(Deed::TokenReused)).await
            }
        }
    }

    fn shown(
        &self,
        user: &User,
        session: &Session,
        token: &SecretString,
        now: Millis,
    ) -> Result<Shown, Unable> {
        let hash = token_hash(token.expose_secret());
        if same(&hash, &session.refresh) {
            return Ok(Shown::Current);
        }
        match (&session.former, &session.successor) {
            (Some(former), Some(successor))
                if same(&hash, former) && now.0 - session.used_at.0 <= GRACE_MS =>
            {
                let plain = self.0.vault.open(&self.key_of(user)?, &context(session.id), successor)?;
                let plain = String::from_utf8(plain).map_err(|_| Unable::Internal)?;
                Ok(Shown::Former(plain.into()))
            }
            _ => Ok(Shown::Stolen),
        }
    }

    async fn rotate(
        &self,
        mut writing: Writing<'_>,
        user: &User,
        session: Session,
        now: Millis,
    ) -> Result<Opened, Unable> {
        let refresh = self.new_refresh(session.id);
        let plain = refresh.expose_secret().as_bytes();
        let successor = self.0.vault.seal(&self.key_of(user)?, &context(session.id), plain)?;
        let hash = token_hash(refresh.expose_secret());
        if !writing.rotate_session(&session, &hash, successor, now).await? {
            return Err(Unable::Unavailable);
        }
        commit(writing).await?;
        Ok(opened(user, &Session { used_at: now, ..session }, refresh))
    }

    /// Writes down that somebody has a token of this session and not its key, if that does not stand there already. Nothing else is
    /// done. By what has expired nobody gains anything, so nothing is said of it.
    async fn refuse(
        &self,
        mut writing: Writing<'_>,
        session: &Session,
        why: &'static str,
    ) -> Result<Opened, Unable> {
        let (id, user, now) = (session.id, session.user, self.0.clock.now());
        if expires_at(session) <= now {
            return Err(Unable::DeadToken);
        }
        telemetry::refresh_refused(why);
        if self.0.refused.is_told(id, now) {
            return Err(Unable::DeadToken);
        }
        tracing::warn!(session = %id, %user, why, "a refresh token of {user} was shown without its key: nothing was done");
        let record = Record::new(Deed::RefreshRefused, now).on(user).id("session", id);
        writing.record(&record.word("why", why)).await?;
        commit(writing).await?;
        self.0.refused.told(id, now);
        Err(Unable::DeadToken)
    }

    /// Ends a session that cannot go on, and says so.
    async fn close(
        &self,
        mut writing: Writing<'_>,
        session: &Session,
        deed: Option<Deed>,
    ) -> Result<Opened, Unable> {
        let now = self.0.clock.now();
        let revocation = self.end(&mut writing, session.id, now).await?;
        if let Some(deed) = deed {
            writing.record(&own(deed, session.user, now).id("session", session.id)).await?;
        }
        commit(writing).await?;
        self.refuse_from_now(&[revocation]);
        Err(Unable::DeadToken)
    }

    /// A user's sessions that can still go on, newest first, and what their devices call themselves.
    pub async fn sessions(&self, user: UserId) -> Result<Vec<Session>, Unable> {
        let now = self.0.clock.now();
        let mut sessions = self.0.tables.sessions().of_user(user).await?;
        sessions.retain(|session| expires_at(session) > now);
        if sessions.iter().all(|session| session.device_sealed.is_none()) {
            return Ok(sessions);
        }
        // Who has left a moment ago has neither a key nor sessions.
        let Some(user) = self.0.tables.users().find(user).await? else { return Ok(Vec::new()) };
        let Some(key) = user.key()? else { return Ok(Vec::new()) };
        for session in &mut sessions {
            if let Some(sealed) = &session.device_sealed {
                let plain = self.0.vault.open(&key, &of_device(session.id), sealed).ok();
                // One that is damaged keeps nobody from the others, nor from ending this one.
                session.device = plain.and_then(|plain| String::from_utf8(plain).ok()).unwrap_or_else(|| {
                    tracing::warn!(session = %session.id, "what the device of {} calls itself cannot be read", session.id);
                    String::new()
                });
            }
        }
        Ok(sessions)
    }

    /// Logs a device out. The session of the caller need not have a row, for an offline token has none; any other must
    /// be the user's own.
    pub async fn log_out(
        &self,
        user: UserId,
        session: SessionId,
        own_until: Option<Millis>,
    ) -> Result<(), Unable> {
        let mut writing = self.0.tables.begin().await?;
        let is_theirs = writing.session(session).await?.is_some_and(|row| row.user == user);
        if !is_theirs && own_until.is_none() {
            return Err(Unable::NoSession);
        }
        let revocation = self.end(&mut writing, session, own_until.unwrap_or(Millis(0))).await?;
        let record = own(Deed::LoggedOut, user, self.0.clock.now()).id("session", session);
        writing.record(&record).await?;
        commit(writing).await?;
        self.refuse_from_now(&[revocation]);
        Ok(())
    }

    /// Logs all devices out. `until`: how long the caller's own token would have lived.
    pub async fn log_out_everywhere(&self, user: UserId, until: Millis) -> Result<(), Unable> {
        let mut writing = self.0.tables.begin().await?;
        let now = self.0.clock.now();
        let (revocation, signed_out_at) = sign_out(&mut writing, user, now, until).await?;
        if let Some(user) = writing.user(user).await? {
            writing.update_user(&User { signed_out_at, version: user.version + 1, ..user }).await?;
        }
        writing.record(&own(Deed::LoggedOut, user, now).word("where", "everywhere")).await?;
        commit(writing).await?;
        self.refuse_from_now(&[revocation]);
        Ok(())
    }

    /// Ends all of a user's sessions but one.
    pub(super) async fn end_others(
        &self,
        writing: &mut Writing<'_>,
        user: UserId,
        but: SessionId,
    ) -> Result<Vec<Revocation>, Unable> {
        let mut ended = Vec::new();
        for session in writing.sessions_of(user).await? {
            if session.id != but {
                ended.push(self.end(writing, session.id, Millis(0)).await?);
            }
        }
        Ok(ended)
    }

    /// Session, 256 bits of chance, and a mark over both that nobody else can make.
    fn new_refresh(&self, session: SessionId) -> SecretString {
        let token = self.0.vault.new_token(&session.to_string());
        let word = token.expose_secret();
        let mark = mark(&self.0.vault.blind(REFRESH, word));
        SecretString::from(format!("{word}.{mark}"))
    }

    /// The session a refresh token belongs to, if the token is one of ours.
    fn session_of(&self, token: &SecretString) -> Option<SessionId> {
        let (word, shown) = token.expose_secret().rsplit_once('.')?;
        let vault = &self.0.vault;
        let marks = [vec![vault.blind(REFRESH, word)], vault.former_blinds(REFRESH, word)].concat();
        if !marks.iter().any(|blind| same(mark(blind).as_bytes(), shown.as_bytes())) {
            return None;
        }
        word.get(..SESSION_CHARS)?.parse().ok()
    }
}

/// `sess_` and 26 letters.
const SESSION_CHARS: usize = 31;

fn mark(blind: &Blind) -> String {
    BASE64.encode(&blind[..MARK_BYTES])
}

fn context(session: SessionId) -> String {
    format!("{session} successor")
}

fn of_device(session: SessionId) -> String {
    format!("{session} device")
}

fn expires_at(session: &Session) -> Millis {
    session.used_at.plus(REFRESH_IDLE_MS).min(session.created_at.plus(SESSION_LIFE_MS))
}

fn opened(user: &User, session: &Session, refresh: SecretString) -> Opened {
    Opened {
        user: user.id,
        role: user.role,
        session: session.id,
        refresh,
        refresh_expires_at: expires_at(session),
        is_bound: session.key.is_some(),
    }
}

/// Why whoever shows a token of this session may have nothing for it, unless they have proved to have its key.
fn lacks_key(session: &Session, key: Option<Thumbprint>) -> Option<&'static str> {
    match (session.key, key) {
        (None, _) => None,
        (Some(bound), Some(key)) if bound == key => None,
        (Some(_), Some(_)) => Some("another_key"),
        (Some(_), None) => Some("no_proof"),
    }
}

/// What somebody did to their own account.
fn own(deed: Deed, user: UserId, now: Millis) -> Record {
    Record::new(deed, now).by(user).on(user)
}

/// Or what it is counted as, and why not.
fn may_log_in(user: &User) -> Result<(), (&'static str, Unable)> {
    match user.state {
        AccountState::Verified => Ok(()),
        AccountState::Unverified => Err(("unverified", Unable::Unverified)),
        AccountState::Suspended => Err(("suspended", Unable::Suspended)),
        AccountState::Deleted => Err(("wrong", Unable::WrongPassword)),
    }
}
