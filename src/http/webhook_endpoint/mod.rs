//! The administrators' doors to webhooks: who is told what, with which secret, and what became of it.

mod ask;
mod refusal;
mod show;

use actix_web::http::header;
use actix_web::{HttpResponse, web};

pub use ask::{EndpointPatch, EndpointRequest};
pub use show::{DeliveryShown, EndpointShown};

use crate::actors::webhooks::{Keyed, Webhooks};
use crate::domain::id::{DeliveryId, EndpointId};
use crate::http::auth::Admin;
use crate::http::body::{Body, NoBody};
use crate::http::idempotency::{Fingerprint, IdempotencyKey, REPLAYED};
use crate::http::problem::Problem;
use crate::http::query::{Id, Page, Query};
use crate::persistence::webhook::DeliveryState;

/// Answers with a secret are kept by nobody on their way.
const NO_STORE: (header::HeaderName, header::HeaderValue) =
    (header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));

/// `GET /v1/admin/webhook-endpoints`: newest first.
pub async fn list(
    _: Admin,
    query: Query,
    webhooks: web::Data<Webhooks>,
) -> Result<web::Json<Page<EndpointShown>>, Problem> {
    let (limit, before) = (query.limit()?, query.cursor::<EndpointId>()?);
    let endpoints = webhooks.endpoints().await?;
    let rows = endpoints.into_iter().filter(|endpoint| before.is_none_or(|before| endpoint.id < before));
    let page = Page::of(rows.collect(), limit, |endpoint| endpoint.id.to_string());
    Ok(web::Json(page.map(|endpoint| EndpointShown::from(&endpoint))))
}

/// `POST /v1/admin/webhook-endpoints`.
pub async fn register(
    Admin(admin): Admin,
    key: IdempotencyKey,
    webhooks: web::Data<Webhooks>,
    Body(asked): Body<EndpointRequest>,
) -> Result<HttpResponse, Problem> {
    let new = asked.parsed()?;
    let asked = Fingerprint::of("POST /v1/admin/webhook-endpoints")
        .bytes(new.url.as_bytes())
        .number(i64::from(new.kinds.bits()))
        .bytes(new.description.as_bytes());
    let keyed = webhooks.register(admin, new, key.of_caller(admin, asked)).await?;
    Ok(with_secret(HttpResponse::Created(), &keyed))
}

/// `PATCH /v1/admin/webhook-endpoints/{id}`: what it is told, its description, and whether it is told anything.
pub async fn change(
    Admin(admin): Admin,
    Id(endpoint): Id<EndpointId>,
    webhooks: web::Data<Webhooks>,
    Body(asked): Body<EndpointPatch>,
) -> Result<web::Json<EndpointShown>, Problem> {
    let endpoint = webhooks.change(admin, endpoint, asked.parsed()?).await?;
    Ok(web::Json(EndpointShown::from(&endpoint)))
}

/// `DELETE /v1/admin/webhook-endpoints/{id}`.
pub async fn remove(
    Admin(admin): Admin,
    Id(endpoint): Id<EndpointId>,
    webhooks: web::Data<Webhooks>,
    _: NoBody,
) -> Result<HttpResponse, Problem> {
    webhooks.remove(admin, endpoint).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// `POST /v1/admin/webhook-endpoints/{id}/rotate`: another secret; the one before it signs as well for a day.
pub async fn rotate(
    Admin(admin): Admin,
    key: IdempotencyKey,
    Id(endpoint): Id<EndpointId>,
    webhooks: web::Data<Webhooks>,
    _: NoBody,
) -> Result<HttpResponse, Problem> {
    let asked = Fingerprint::of("POST /v1/admin/webhook-endpoints/{id}/rotate").bytes(endpoint.as_bytes());
    let keyed = webhooks.rotate(admin, endpoint, key.of_caller(admin, asked)).await?;
    Ok(with_secret(HttpResponse::Ok(), &keyed))
}

/// `GET /v1/admin/webhook-endpoints/{id}/deliveries?state=`: newest first; what was given up under `state=dead`.
pub async fn deliveries(
    _: Admin,
    Id(endpoint): Id<EndpointId>,
    query: Query,
    webhooks: web::Data<Webhooks>,
) -> Result<web::Json<Page<DeliveryShown>>, Problem> {
    let state = query.parsed("state", DeliveryState::from_word, "waiting, delivered or dead")?;
    let (limit, before) = (query.limit()?, query.cursor::<DeliveryId>()?);
    let rows = webhooks.deliveries(endpoint, state, before, limit + 1).await?;
    let page = Page::of(rows, limit, |delivery| delivery.id.to_string());
    Ok(web::Json(page.map(|delivery| DeliveryShown::from(&delivery))))
}

/// `POST /v1/admin/webhook-endpoints/deliveries/{id}/replay`: sends it once more.
pub async fn replay(
    Admin(admin): Admin,
    key: IdempotencyKey,
    Id(delivery): Id<DeliveryId>,
    webhooks: web::Data<Webhooks>,
    _: NoBody,
) -> Result<HttpResponse, Problem> {
    let door = Fingerprint::of("POST /v1/admin/webhook-endpoints/deliveries/{id}/replay");
    let key = key.of_caller(admin, door.bytes(delivery.as_bytes()));
    let (delivery, replayed) = webhooks.replay(admin, delivery, key).await?;
    let mut answer = HttpResponse::Accepted();
    if replayed {
        answer.insert_header(REPLAYED);
    }
    Ok(answer.json(DeliveryShown::from(&delivery)))
}

fn with_secret(mut answer: actix_web::HttpResponseBuilder, keyed: &Keyed) -> HttpResponse {
    answer.insert_header(NO_STORE);
    if keyed.replayed {
        answer.insert_header(REPLAYED);
    }
    answer.json(EndpointShown::keyed(keyed))
}
