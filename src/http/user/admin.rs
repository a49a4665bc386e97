//! The administrator's doors: find an account, keep somebody out, let them in again.

use actix_web::{HttpResponse, web};

use super::show::{AccountShown, NobodySwitched};
use crate::actors::user::Users;
use crate::domain::account::AccountState;
use crate::domain::id::UserId;
use crate::domain::trail::Record;
use crate::domain::user::{Email, Role};
use crate::http::auth::Admin;
use crate::http::body::NoBody;
use crate::http::csv::{self, Column, Form, Part, Row};
use crate::http::idempotency::IdempotencyKey;
use crate::http::problem::Problem;
use crate::http::query::{Id, Page, Query};
use crate::persistence::user::UsersFound;

/// Accounts of one part of a CSV.
const PART: usize = 500;

const COLUMNS: &[Column] = &[
    Column("id", "/id"),
    Column("state", "/state"),
    Column("role", "/role"),
    Column("verified_at", "/verified_at"),
    Column("created_at", "/created_at"),
    Column("updated_at", "/updated_at"),
];

/// `GET /v1/admin/users?state=&role=&email=`: newest first. What identifies a person is not shown; who knows an address finds
/// its account by it, and that he asked stands in the trail first, as does whoever takes a table away.
pub async fn list(
    Admin(admin): Admin,
    query: Query,
    form: Form,
    users: web::Data<Users>,
) -> Result<HttpResponse, Problem> {
    let state = query.parsed("state", AccountState::from_word, "the state of an account")?;
    let role = query.parsed("role", Role::from_word, "shopper or admin")?;
    let email = query.parsed("email", |word| word.parse::<Email>().ok(), "an e-mail address")?;
    let (limit, before) = (query.limit()? as usize, query.cursor::<UserId>()?);
    if let Some(email) = &email {
        users.tell_look_up(admin, email).await?;
    }
    match form {
        Form::Json => {
            let found = users.look_up(state, role, email.as_ref(), before, limit).await?;
            let next_cursor = found.next.map(|next| next.to_string());
            Ok(HttpResponse::Ok().json(Page { data: accounts(&found), next_cursor }))
        }
        Form::Csv => {
            let of = |record: Record| {
                let record = record.word_if("state", state.map(AccountState::as_str));
                let record = record.word_if("role", role.map(Role::as_str));
                record.word_if("by", email.as_ref().map(|_| "email")).id_if("behind", before)
            };
            users.tell_export(admin, "users", of).await?;
            csv::stream("users", COLUMNS, before, move |before| {
                let (users, email) = (users.clone(), email.clone());
                async move {
                    let found = users.look_up(state, role, email.as_ref(), before, PART).await?;
                    let rows: Vec<Row> = accounts(&found).iter().map(csv::row).collect();
                    Ok(Part::of(rows, found.next))
                }
            })
            .await
        }
    }
}

fn accounts(found: &UsersFound) -> Vec<AccountShown> {
    found.users.iter().map(AccountShown::from).collect()
}

/// `POST /v1/admin/users/{id}/suspend`.
pub async fn suspend(
    Admin(admin): Admin,
    _: IdempotencyKey,
    Id(user): Id<UserId>,
    users: web::Data<Users>,
    _: NoBody,
) -> Result<HttpResponse, Problem> {
    Ok(switched(users.suspend(user, admin).await?))
}

/// `POST /v1/admin/users/{id}/reinstate`.
pub async fn reinstate(
    Admin(admin): Admin,
    _: IdempotencyKey,
    Id(user): Id<UserId>,
    users: web::Data<Users>,
    _: NoBody,
) -> Result<HttpResponse, Problem> {
    Ok(switched(users.reinstate(user, admin).await?))
}

/// An id is soon mistyped: where nobody is kept out, or let in, whoever asked for it hears so.
fn switched(account: Option<AccountState>) -> HttpResponse {
    let detail = match account {
        Some(AccountState::Verified | AccountState::Suspended) => return HttpResponse::NoContent().finish(),
        Some(AccountState::Unverified) => {
            "Tokens that were signed offline have ended. The account has yet to be proved, and logs in once it is."
        }
        Some(AccountState::Deleted) => "Tokens that were signed offline have ended. The account was deleted.",
        None => {
            "No account has this id. A suspension ends tokens that were signed for it offline, and nothing else."
        }
    };
    HttpResponse::Ok().json(NobodySwitched { account: account.map(AccountState::as_str), detail })
}
