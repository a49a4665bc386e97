//! The doors to accounts: sign up, prove it, look at it, change it, leave.
//!
//! What a stranger asks about somebody's address is answered alike whether the address is known or not.

mod admin;
mod ask;
mod export;
mod refusal;
mod show;

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use secrecy::SecretString;
use xxhash_rust::xxh3::xxh3_128;

pub use admin::{list, reinstate, suspend};
pub use ask::{
    EmailRequest, EraseRequest, NewEmailRequest, PasswordRequest, ProfilePatch, ResetRequest, SignUpRequest,
    VerifyRequest,
};
pub use export::export;
pub use show::{Accepted, AccountShown, Export, NobodySwitched, ProfileShown};

use super::abuse::{Abuse, Attempt, Tried};
use super::auth::Caller;
use super::body::Body;
use super::client::Neighbourhood;
use super::problem::Problem;
use crate::actors::delivery::Deliveries;
use crate::actors::stock::to_the_end;
use crate::actors::user::{SignUp, Unable, Users};
use crate::domain::id::UserId;
use crate::domain::user::{Email, Locale, NewPassword};

const LINK_COMES: &str = "If this can be done, a letter with a link is on its way.";

/// `POST /v1/users`.
pub async fn sign_up(
    from: Neighbourhood,
    request: HttpRequest,
    abuse: web::Data<Abuse>,
    users: web::Data<Users>,
    Body(asked): Body<SignUpRequest>,
) -> Result<HttpResponse, Problem> {
    let SignUpRequest { email, password, name, phone, address } = asked;
    let password = users.accept(password, Some(&email)).map_err(ask::weak("/password"))?;
    users.has_room()?;
    let mut letter = abuse.sign_up(&[tried(email.as_str()), tried(phone.as_str())], from)?;
    let locale = locale(&request);
    let signed_up = users.sign_up(SignUp { email, password, name, phone, address, locale }).await;
    letter.judge(&signed_up);
    if let Err(Unable::Weak(why)) = signed_up {
        return Err(ask::weak("/password")(why));
    }
    signed_up?;
    Ok(accepted())
}

/// `POST /v1/users/verify`.
pub async fn verify(
    from: Neighbourhood,
    abuse: web::Data<Abuse>,
    users: web::Data<Users>,
    Body(asked): Body<VerifyRequest>,
) -> Result<HttpResponse, Problem> {
    let mut link = abuse.follow_link(from)?;
    let verified = users.verify(&asked.token).await;
    link.judge(&verified);
    if verified == Err(Unable::LinkExpired) {
        send_another(&users, &abuse, &asked.token, from).await?;
    }
    verified?;
    Ok(HttpResponse::NoContent().finish())
}

/// A letter in the place of one whose link has expired. Where there is no room for one, that link may be tried again later.
async fn send_another(
    users: &Users,
    abuse: &Abuse,
    token: &SecretString,
    from: Neighbourhood,
) -> Result<(), Problem> {
    let Some(expired) = users.expired(token).await? else { return Ok(()) };
    let Ok(mut letter) = abuse.send_letter(&[tried(expired.reader.as_str())], from) else { return Ok(()) };
    let sent = users.renew(expired).await;
    letter.judge(&sent);
    Ok(sent?)
}

/// `POST /v1/users/verify/resend`.
pub async fn resend(
    from: Neighbourhood,
    abuse: web::Data<Abuse>,
    users: web::Data<Users>,
    Body(asked): Body<EmailRequest>,
) -> Result<HttpResponse, Problem> {
    let mut letter = abuse.send_letter(&[tried(asked.email.as_str())], from)?;
    let sent = users.send_again(asked.email);
    letter.judge(&sent);
    sent?;
    Ok(accepted())
}

/// `POST /v1/password-resets`.
pub async fn forgot(
    from: Neighbourhood,
    abuse: web::Data<Abuse>,
    users: web::Data<Users>,
    Body(asked): Body<EmailRequest>,
) -> Result<HttpResponse, Problem> {
    // Counted apart from other letters: nobody keeps a reset from somebody by asking for those.
    let mut letter = abuse.send_letter(&[tried(&format!("reset {}", asked.email.as_str()))], from)?;
    let sent = users.forgot(asked.email);
    letter.judge(&sent);
    sent?;
    Ok(accepted())
}

/// `PUT /v1/password-resets`.
pub async fn reset(
    from: Neighbourhood,
    abuse: web::Data<Abuse>,
    users: web::Data<Users>,
    Body(asked): Body<ResetRequest>,
) -> Result<HttpResponse, Problem> {
    users.has_room()?;
    let mut link = abuse.follow_link(from)?;
    let whose = users.address_behind(&asked.token).await;
    link.judge(&whose);
    let next = accept(&users, asked.new_password, whose?.as_ref())?;
    let reset = users.reset(&asked.token, next).await;
    link.judge(&reset);
    reset?;
    Ok(HttpResponse::NoContent().finish())
}

/// `GET /v1/users/me`.
pub async fn me(Caller(caller): Caller, users: web::Data<Users>) -> Result<web::Json<ProfileShown>, Problem> {
    let (user, personal) = users.find(caller.user).await?;
    Ok(web::Json(ProfileShown::of(&user, personal)))
}

/// `PATCH /v1/users/me`.
pub async fn change(
    Caller(caller): Caller,
    abuse: web::Data<Abuse>,
    users: web::Data<Users>,
    Body(asked): Body<ProfilePatch>,
) -> Result<web::Json<ProfileShown>, Problem> {
    let mut attempt = abuse.change_profile(caller.user)?;
    let changed = users.change(caller.user, asked.change()).await;
    attempt.judge(&changed);
    let (user, personal) = changed?;
    Ok(web::Json(ProfileShown::of(&user, personal)))
}

/// `PUT /v1/users/me/password`.
pub async fn change_password(
    Caller(caller): Caller,
    from: Neighbourhood,
    abuse: web::Data<Abuse>,
    users: web::Data<Users>,
    Body(asked): Body<PasswordRequest>,
) -> Result<HttpResponse, Problem> {
    let (_, personal) = users.find(caller.user).await?;
    let next = accept(&users, asked.new_password, Some(&personal.email))?;
    users.has_room()?;
    let attempt = try_again(&abuse, caller.user, from)?;
    let changed = users.change_password(caller.user, caller.session, asked.current_password, next).await;
    judge(attempt, changed, "/current_password")?;
    Ok(HttpResponse::NoContent().finish())
}

/// `POST /v1/users/me/email`.
pub async fn change_email(
    Caller(caller): Caller,
    from: Neighbourhood,
    abuse: web::Data<Abuse>,
    users: web::Data<Users>,
    Body(asked): Body<NewEmailRequest>,
) -> Result<HttpResponse, Problem> {
    users.has_room()?;
    let attempt = abuse.send_letter_for(oneself(caller.user), tried(asked.email.as_str()), from)?;
    let told = users.ask_new_email(caller.user, asked.password, asked.email).await;
    judge(attempt, told, "/password")?;
    Ok(accepted())
}

/// `DELETE /v1/users/me`.
pub async fn erase(
    Caller(caller): Caller,
    from: Neighbourhood,
    abuse: web::Data<Abuse>,
    users: web::Data<Users>,
    deliveries: web::Data<Deliveries>,
    Body(asked): Body<EraseRequest>,
) -> Result<HttpResponse, Problem> {
    users.has_room()?;
    let attempt = try_again(&abuse, caller.user, from)?;
    // Runs on when they hang up: nobody can log in any more to ask for the rest.
    let leaving = to_the_end(async move {
        let erased = users.erase(caller.user, asked.password).await;
        judge(attempt, erased, "/password")?;
        if let Err(why) = deliveries.forget(caller.user).await {
            // They are gone all the same, and the next run forgets it with the return.
            tracing::warn!(%why, "the reasons of somebody who has left could not be forgotten now");
        }
        Ok::<_, Problem>(())
    });
    leaving.await?;
    Ok(HttpResponse::NoContent().finish())
}

/// What an account is tried under.
pub fn tried(word: &str) -> Tried {
    xxh3_128(word.as_bytes())
}

fn oneself(user: UserId) -> Tried {
    xxh3_128(user.as_bytes())
}

fn try_again(abuse: &Abuse, user: UserId, from: Neighbourhood) -> Result<Attempt, Problem> {
    abuse.try_password(oneself(user), from)
}

/// A wrong password has failed, and is told under the field it came in; anything else is no failure.
fn judge(mut attempt: Attempt, outcome: Result<(), Unable>, pointer: &'static str) -> Result<(), Problem> {
    attempt.judge(&outcome);
    if outcome == Err(Unable::WrongPassword) {
        return Err(Problem::field(pointer, "this is not your password"));
    }
    Ok(outcome?)
}

fn accept(users: &Users, password: SecretString, whose: Option<&Email>) -> Result<NewPassword, Problem> {
    users.accept(password, whose).map_err(ask::weak("/new_password"))
}

/// The language that the browser prefers.
pub fn locale(request: &HttpRequest) -> Locale {
    let wanted = request.headers().get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
    Locale::from_accept_language(wanted.unwrap_or_default())
}

fn accepted() -> HttpResponse {
    HttpResponse::Accepted().json(Accepted { detail: LINK_COMES })
}
