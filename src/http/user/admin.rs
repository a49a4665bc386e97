//! The administrator's doors: find an account, keep somebody out, let them in again.

use actix_web::{HttpResponse, web};

use super::show::AccountShown;
use crate::actors::user::Users;
use crate::domain::account::AccountState;
use crate::domain::id::UserId;
use crate::domain::user::Email;
use crate::http::auth::Admin;
use crate::http::body::NoBody;
use crate::http::problem::Problem;
use crate::http::query::{Id, Page, Query};

/// `GET /v1/admin/users?state=&email=`: newest first. What identifies a person is not shown; who knows an address finds
/// its account by it.
pub async fn list(
    _: Admin,
    query: Query,
    users: web::Data<Users>,
) -> Result<web::Json<Page<AccountShown>>, Problem> {
    let state = query.parsed("state", AccountState::from_word, "the state of an account")?;
    let email = query.parsed("email", |word| word.parse::<Email>().ok(), "an e-mail address")?;
    let (limit, before) = (query.limit()?, query.cursor::<UserId>()?);
    let rows = users.list(state, email.as_ref(), before, limit + 1).await?;
    let page = Page::of(rows, limit, |user| user.id.to_string());
    Ok(web::Json(page.map(|user| AccountShown::from(&user))))
}

/// `POST /v1/admin/users/{id}/suspend`.
pub async fn suspend(
    Admin(admin): Admin,
    Id(user): Id<UserId>,
    users: web::Data<Users>,
    _: NoBody,
) -> Result<HttpResponse, Problem> {
    users.suspend(user, admin).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// `POST /v1/admin/users/{id}/reinstate`.
pub async fn reinstate(
    Admin(admin): Admin,
    Id(user): Id<UserId>,
    users: web::Data<Users>,
    _: NoBody,
) -> Result<HttpResponse, Problem> {
    users.reinstate(user, admin).await?;
    Ok(HttpResponse::NoContent().finish())
}
