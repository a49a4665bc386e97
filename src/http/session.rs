//! The doors to sessions: log in, stay logged in, see where one is logged in, log out.

use actix_web::http::header::{self, HeaderName};
use actix_web::{HttpRequest, HttpResponse, web};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::abuse::Abuse;
use super::auth::Caller;
use super::body::{Body, NoBody};
use super::client::Neighbourhood;
use super::problem::Problem;
use super::proof;
use super::query::{Id, Page, Query};
use super::refusal::internal;
use super::time::Stamp;
use super::user::tried;
use crate::actors::user::{Device, Opened, Users};
use crate::clock::Clock;
use crate::domain::id::SessionId;
use crate::domain::user::Email;
use crate::persistence::session::Session;
use crate::tokens::{LIFE_S_DEFAULT, Tokens};

/// Nobody on the way keeps a token.
const NO_STORE: (HeaderName, &str) = (header::CACHE_CONTROL, "no-store");

/// Who logs in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LogInRequest {
    #[schema(value_type = String, format = "email", max_length = 254, example = "mina@example.com")]
    email: Email,
    #[schema(value_type = String, format = Password, example = "four foxes fly far")]
    password: SecretString,
}

/// The refresh token that came last.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RefreshRequest {
    #[schema(value_type = String)]
    refresh_token: SecretString,
}

/// What it takes to be somebody for a while.
#[derive(Serialize, ToSchema)]
pub struct TokensShown {
    access_token: String,
    /// `Bearer`
    #[schema(value_type = String)]
    token_type: &'static str,
    /// Seconds.
    expires_in: i64,
    /// Good for one use.
    refresh_token: String,
    /// Seconds, unless it is used before.
    refresh_expires_in: i64,
    /// Is it good with a proof of the session's key alone? False at a log-in that came with a proof: it did not arrive.
    bound: bool,
}

/// One log-in of one device.
#[derive(Serialize, ToSchema)]
pub struct SessionShown {
    #[schema(value_type = String)]
    id: SessionId,
    /// What the device called itself.
    device: String,
    /// Is it the one that asks?
    current: bool,
    /// Is it refreshed with a proof of its key alone?
    bound: bool,
    #[schema(value_type = String, format = DateTime)]
    created_at: Stamp,
    #[schema(value_type = String, format = DateTime)]
    last_used_at: Stamp,
}

impl SessionShown {
    pub fn of(session: &Session, current: SessionId) -> SessionShown {
        SessionShown {
            id: session.id,
            device: session.device.clone(),
            current: session.id == current,
            bound: session.key.is_some(),
            created_at: Stamp(session.created_at),
            last_used_at: Stamp(session.used_at),
        }
    }
}

/// `POST /v1/sessions`.
pub async fn log_in(
    from: Neighbourhood,
    request: HttpRequest,
    abuse: web::Data<Abuse>,
    users: web::Data<Users>,
    tokens: web::Data<Tokens>,
    clock: web::Data<Clock>,
    Body(asked): Body<LogInRequest>,
) -> Result<HttpResponse, Problem> {
    users.has_room()?;
    let mut attempt = abuse.try_password(tried(asked.email.as_str()), from)?;
    let device = device(&request).with_key(proof::key(&request)?);
    let opened = users.log_in(&asked.email, asked.password, device).await;
    attempt.judge(&opened);
    let shown = signed(opened?, &tokens, &clock)?;
    Ok(HttpResponse::Created().insert_header(NO_STORE).json(shown))
}

/// `POST /v1/sessions/refresh`: also with an access token that has expired, or none.
pub async fn refresh(
    from: Neighbourhood,
    request: HttpRequest,
    abuse: web::Data<Abuse>,
    users: web::Data<Users>,
    tokens: web::Data<Tokens>,
    clock: web::Data<Clock>,
    Body(asked): Body<RefreshRequest>,
) -> Result<HttpResponse, Problem> {
    let mut attempt = abuse.refresh(from)?;
    let opened = users.refresh(&asked.refresh_token, proof::key(&request)?).await;
    attempt.judge(&opened);
    Ok(HttpResponse::Ok().insert_header(NO_STORE).json(signed(opened?, &tokens, &clock)?))
}

/// `GET /v1/sessions`: newest first.
pub async fn list(
    Caller(caller): Caller,
    query: Query,
    users: web::Data<Users>,
) -> Result<web::Json<Page<SessionShown>>, Problem> {
    let (limit, before) = (query.limit()?, query.cursor::<SessionId>()?);
    let sessions = users.sessions(caller.user).await?.into_iter();
    let rest = sessions.filter(|session| before.is_none_or(|before| session.id < before));
    let page = Page::of(rest.take(limit as usize + 1).collect(), limit, |session| session.id.to_string());
    Ok(web::Json(page.map(|session| SessionShown::of(&session, caller.session))))
}

/// `DELETE /v1/sessions/{id}`: one device.
pub async fn end(
    Caller(caller): Caller,
    Id(session): Id<SessionId>,
    users: web::Data<Users>,
    _: NoBody,
) -> Result<HttpResponse, Problem> {
    let own_until = (session == caller.session).then_some(caller.expires_at);
    users.log_out(caller.user, session, own_until).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// `DELETE /v1/sessions/current`: this device.
pub async fn end_current(
    Caller(caller): Caller,
    users: web::Data<Users>,
    _: NoBody,
) -> Result<HttpResponse, Problem> {
    users.log_out(caller.user, caller.session, Some(caller.expires_at)).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// `DELETE /v1/sessions`: every device.
pub async fn end_all(
    Caller(caller): Caller,
    users: web::Data<Users>,
    _: NoBody,
) -> Result<HttpResponse, Problem> {
    users.log_out_everywhere(caller.user, caller.expires_at).await?;
    Ok(HttpResponse::NoContent().finish())
}

fn device(request: &HttpRequest) -> Device {
    let name = request.headers().get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    Device::named(name.unwrap_or_default())
}

fn signed(opened: Opened, tokens: &Tokens, clock: &Clock) -> Result<TokensShown, Problem> {
    let Opened { user, role, session, refresh, refresh_expires_at, is_bound } = opened;
    let now = clock.now();
    let access_token =
        tokens.sign_for(session, user, role, LIFE_S_DEFAULT, now, clock.chance()).map_err(|error| {
            tracing::error!(%error, "an access token could not be signed");
            internal()
        })?;
    Ok(TokensShown {
        access_token,
        token_type: "Bearer",
        expires_in: LIFE_S_DEFAULT,
        refresh_token: refresh.expose_secret().to_owned(),
        refresh_expires_in: (refresh_expires_at.0 - now.0 + 999).max(0) / 1_000,
        bound: is_bound,
    })
}
