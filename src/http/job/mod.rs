//! The administrators' doors to scheduled jobs: when each is due, what came of its last run, and running one by hand.

mod refusal;
mod show;

use actix_web::{HttpResponse, web};

pub use show::{JobShown, RunShown};

use crate::actors::scheduler::{ByHand, Scheduler};
use crate::http::auth::Admin;
use crate::http::body::NoBody;
use crate::http::idempotency::IdempotencyKey;
use crate::http::problem::Problem;
use crate::http::query::{Name, Page, Query};

/// `GET /v1/admin/jobs`: all of them on one page.
pub async fn list(_: Admin, scheduler: web::Data<Scheduler>) -> Result<web::Json<Page<JobShown>>, Problem> {
    let data = scheduler.jobs().await?.into_iter().map(JobShown::from).collect();
    Ok(web::Json(Page { data, next_cursor: None }))
}

/// `POST /v1/admin/jobs/{name}/run?dry_run=`: a key binds nothing here, for the same occurrence run again moves nothing twice.
pub async fn run(
    Admin(admin): Admin,
    _: IdempotencyKey,
    Name(name): Name,
    query: Query,
    scheduler: web::Data<Scheduler>,
    _: NoBody,
) -> Result<HttpResponse, Problem> {
    let dry = query.parsed("dry_run", |word| word.parse().ok(), "true or false")?.unwrap_or(false);
    match scheduler.run(admin, &name, dry).await? {
        ByHand::Ended(ran) => Ok(HttpResponse::Ok().json(RunShown::of(ran, dry))),
        ByHand::Running => Ok(HttpResponse::Accepted().json(JobShown::from(scheduler.job(&name).await?))),
    }
}
