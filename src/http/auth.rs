//! Who asks: read from the access token, and from nothing else.
//!
//! A door names in its signature who may come in: [`Caller`] is anybody who is signed in, [`Recent`] and [`RecentAdmin`] have shown a
//! password a moment ago, [`Shopper`] and [`Admin`] are what they say. No header but `Authorization` is believed. A signature is not
//! enough: a session that was ended is refused, for tokens that this thread remembers as good as well; and where nobody could know whether
//! it was, no token is believed.

use std::future::{Ready, ready};
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{FromRequest, HttpRequest, web};

use super::problem::{Code, Fact, Problem};
use super::refusal::{RETRY_MS, internal};
use crate::actors::revocations::Revocations;
use crate::clock::Clock;
use crate::domain::id::UserId;
use crate::domain::user::Role;
use crate::tokens::{BadToken, Identity, Tokens};

/// What a token that convinces nobody is answered (RFC 6750 §3.1).
const INVALID: &str = r#"Bearer realm="stockade", error="invalid_token""#;

/// How long a log-in counts as a moment ago.
const RECENT: Duration = Duration::from_secs(15 * 60);

/// Somebody who is signed in.
#[derive(Debug, Clone, Copy)]
pub struct Caller(pub Identity);

/// Somebody who has logged in a moment ago, and not merely stayed logged in: what carries everything away at once is not
/// for whoever finds an open device.
#[derive(Debug, Clone, Copy)]
pub struct Recent(pub Identity);

/// For how long an administrator's log-in counts where stock, prices or money are moved by hand; `None`: as long as the token.
#[derive(Debug, Clone, Copy)]
pub struct AdminLogin(pub Option<Duration>);

/// An administrator who has logged in a moment ago, where the shop insists on that.
#[derive(Debug, Clone, Copy)]
pub struct RecentAdmin(pub Identity);

/// An administrator of whom some requests want a log-in of a moment ago, and others do not.
#[derive(Debug)]
pub struct AdminOrRecent {
    pub admin: Identity,
    recent: Result<(), Problem>,
}

impl AdminOrRecent {
    /// Refuses whoever has logged in too long ago.
    pub fn insist(self) -> Result<(), Problem> {
        self.recent
    }
}

/// A shopper.
#[derive(Debug, Clone, Copy)]
pub struct Shopper(pub UserId);

/// An administrator.
#[derive(Debug, Clone, Copy)]
pub struct Admin(pub UserId);

fn identity(request: &HttpRequest) -> Result<Identity, Problem> {
    let (Some(tokens), Some(revocations), Some(clock)) = (
        request.app_data::<web::Data<Tokens>>(),
        request.app_data::<web::Data<Revocations>>(),
        request.app_data::<web::Data<Clock>>(),
    ) else {
        return Err(internal());
    };
    let token = bearer(request).ok_or_else(|| {
        challenge(
            Code::Unauthenticated,
            "Send Authorization: Bearer <access token>.",
            r#"Bearer realm="stockade""#,
        )
    })?;
    let identity = tokens.verify(token, clock.now()).map_err(|bad| match bad {
        BadToken::Expired => challenge(Code::TokenExpired, "Get a new access token.", INVALID),
        BadToken::Invalid => challenge(Code::Unauthenticated, "The access token is not valid.", INVALID),
    })?;
    if revocations.cover(identity.user, identity.session) {
        return Err(challenge(Code::Unauthenticated, "This session has ended: log in again.", INVALID));
    }
    if revocations.are_too_old(clock.nanos()) {
        const UNKNOWN: &str =
            "Whether this session has ended cannot be looked up. Nothing was done: try again.";
        return Err(Problem::new(Code::OwnerUnavailable, UNKNOWN).retry_after(RETRY_MS));
    }
    Ok(identity)
}

pub(super) fn bearer(request: &HttpRequest) -> Option<&str> {
    let mut all = request.headers().get_all(header::AUTHORIZATION);
    // Of two, whoever reads the other one would take the caller for somebody else.
    let (Some(only), None) = (all.next(), all.next()) else { return None };
    // Not `to_str`, which looks at each letter: a token that is not ours convinces nobody, whatever it is made of.
    let value = std::str::from_utf8(only.as_bytes()).ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_matches(' '))
}

fn challenge(code: Code, detail: &'static str, challenge: &'static str) -> Problem {
    Problem::new(code, detail).header(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
}

const ADMINS_ONLY: &str = "Only an administrator may do this.";

fn with_role(request: &HttpRequest, role: Role, detail: &'static str) -> Result<Identity, Problem> {
    let identity = identity(request)?;
    if identity.role == role { Ok(identity) } else { Err(Problem::new(Code::Forbidden, detail)) }
}

fn admin_or_recent(request: &HttpRequest) -> Result<AdminOrRecent, Problem> {
    let identity = with_role(request, Role::Admin, ADMINS_ONLY)?;
    let login = request.app_data::<web::Data<AdminLogin>>().ok_or_else(internal)?;
    let recent = login.0.map_or(Ok(()), |life| recent(request, identity, life));
    Ok(AdminOrRecent { admin: identity, recent })
}

fn recent(request: &HttpRequest, identity: Identity, life: Duration) -> Result<(), Problem> {
    let clock = request.app_data::<web::Data<Clock>>().ok_or_else(internal)?;
    let logged_in_at = identity.logged_in_at();
    let life_ms = i64::try_from(life.as_millis()).unwrap_or(i64::MAX);
    if clock.now().0 <= logged_in_at.0.saturating_add(life_ms) {
        return Ok(());
    }
    const AGAIN: &str =
        "Log in again (POST /v1/sessions) and ask with that token: a refreshed one does not count.";
    Err(Problem::new(Code::ReauthenticationRequired, AGAIN)
        .with("logged_in_at", Fact::Time(logged_in_at))
        .number("max_age_seconds", life.as_secs()))
}

impl FromRequest for Caller {
    type Error = Problem;
    type Future = Ready<Result<Caller, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(identity(request).map(Caller))
    }
}

impl FromRequest for Recent {
    type Error = Problem;
    type Future = Ready<Result<Recent, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(identity(request).and_then(|identity| {
            recent(request, identity, RECENT)?;
            Ok(Recent(identity))
        }))
    }
}

impl FromRequest for AdminOrRecent {
    type Error = Problem;
    type Future = Ready<Result<AdminOrRecent, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(admin_or_recent(request))
    }
}

impl FromRequest for RecentAdmin {
    type Error = Problem;
    type Future = Ready<Result<RecentAdmin, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(admin_or_recent(request).and_then(|caller| {
            let admin = caller.admin;
            caller.insist()?;
            Ok(RecentAdmin(admin))
        }))
    }
}

impl FromRequest for Shopper {
    type Error = Problem;
    type Future = Ready<Result<Shopper, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(with_role(request, Role::Shopper, "Only a shopper may do this.").map(|it| Shopper(it.user)))
    }
}

impl FromRequest for Admin {
    type Error = Problem;
    type Future = Ready<Result<Admin, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(with_role(request, Role::Admin, ADMINS_ONLY).map(|it| Admin(it.user)))
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;
    use crate::persistence::revocation::{Revocation, Subject};

    /// What a door that reads the token says.
    fn said(request: &HttpRequest) -> Result<UserId, &'static str> {
        identity(request).map(|identity| identity.user).map_err(|problem| problem.code().word())
    }

    #[test]
    fn no_token_is_believed_while_nobody_knows_whom_others_have_sent_away() {
        let (clock, revocations) = (Clock::start(), Revocations::default());
        let tokens = Tokens::new(b"a signing key for tests, long enough", &[]).unwrap();
        let (now, user) = (clock.now(), UserId::new(clock.now(), 1));
        let token = tokens.sign(user, Role::Shopper, 900, now, clock.chance()).unwrap();
        let asked = |token: &str| {
            TestRequest::default()
                .insert_header((header::AUTHORIZATION, format!("Bearer {token}")))
                .app_data(web::Data::new(tokens.clone()))
                .app_data(web::Data::new(revocations.clone()))
                .app_data(web::Data::new(clock.clone()))
                .to_http_request()
        };
        let request = asked(&token);
        assert_eq!(said(&request), Ok(user));
        revocations.are_known_of(0);
        assert_eq!(said(&request), Err("owner_unavailable"));
        assert_eq!(said(&asked("nonsense")), Err("unauthenticated"), "a retry would change nothing");
        revocations.are_known_of(clock.nanos());
        assert_eq!(said(&request), Ok(user));
        // Who is known to have been sent away hears that in any case.
        let subject = Subject::Session(identity(&request).unwrap().session);
        revocations.note(&Revocation { subject, until: now.plus(900_000) });
        revocations.are_known_of(0);
        assert_eq!(said(&request), Err("unauthenticated"));
    }
}
