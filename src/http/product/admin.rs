//! The administrator's doors: create, change, restock, pause, resume, archive.

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::NO_PRODUCT;
use super::ask::{ProductPatch, ProductRequest, RestockRequest};
use super::show::{self, ProductShown};
use crate::actors::catalogue::{Catalogue, NotChanged, Words};
use crate::actors::stock::{Answer, Directory, NotDone};
use crate::clock::Clock;
use crate::domain::id::ProductId;
use crate::domain::stock::{Counts, Restock, Sequence};
use crate::http::auth::{Admin, AdminOrRecent, RecentAdmin};
use crate::http::body::{Body, NoBody};
use crate::http::idempotency::{Fingerprint, IdempotencyKey, REPLAYED};
use crate::http::problem::{Code, Problem};
use crate::http::query::Id;
use crate::http::refusal::internal;
use crate::tokens::Identity;

/// What a change of stock or sale led to.
#[derive(Debug, Serialize, ToSchema)]
pub struct StockChanged {
    #[schema(value_type = String)]
    product_id: ProductId,
    #[schema(value_type = u64)]
    sequence: Sequence,
    on_hand: u64,
    available: u64,
    held: u64,
    sold: u64,
}

impl From<NotChanged> for Problem {
    fn from(why: NotChanged) -> Problem {
        match why {
            NotChanged::NoProduct => Problem::not_found(NO_PRODUCT),
            NotChanged::SkuTaken => Problem::field("/sku", "another product has this sku"),
            NotChanged::KeyReused => Problem::new(
                Code::IdempotencyKeyReused,
                "This Idempotency-Key came before, with another body.",
            ),
            NotChanged::Stale => Problem::new(
                Code::PreconditionFailed,
                "The product has changed since this ETag: read it again.",
            ),
            NotChanged::NotDone(why) => why.into(),
        }
    }
}

/// `POST /v1/admin/products`.
pub async fn create(
    RecentAdmin(Identity { user: admin, .. }): RecentAdmin,
    key: IdempotencyKey,
    clock: web::Data<Clock>,
    directory: web::Data<Directory>,
    catalogue: web::Data<Catalogue>,
    Body(asked): Body<ProductRequest>,
) -> Result<HttpResponse, Problem> {
    let new = asked.parsed()?;
    let key = key.of_caller(admin, Fingerprint::of("POST /v1/admin/products").bytes(&new.canonical()));
    let made = catalogue.create(admin, new, key).await?;
    let (view, now) = (directory.view(made.text.id).await.map_err(NotDone::after_all)?, clock.now());
    let mut answer = HttpResponse::Created();
    answer.insert_header((header::LOCATION, format!("/v1/products/{}", made.text.id)));
    answer.insert_header((header::ETAG, show::etag(&made.text, &view, now)));
    if made.replayed {
        answer.insert_header(REPLAYED);
    }
    Ok(answer.json(ProductShown::of(&made.text, &view, now)))
}

/// `PATCH /v1/admin/products/{id}`: text and sale, on the condition that nobody was faster. Another price wants a log-in of a moment ago.
pub async fn change(
    caller: AdminOrRecent,
    Id(product): Id<ProductId>,
    request: HttpRequest,
    clock: web::Data<Clock>,
    directory: web::Data<Directory>,
    catalogue: web::Data<Catalogue>,
    Body(asked): Body<ProductPatch>,
) -> Result<HttpResponse, Problem> {
    let turn = catalogue.turn(product).await?;
    let text = catalogue.read_text(product).await?.ok_or_else(|| Problem::not_found(NO_PRODUCT))?;
    let expected = show::if_match(&request).ok_or_else(|| {
        Problem::new(Code::PreconditionRequired, "Send If-Match with the ETag of the product you have read.")
    })?;
    let view = directory.view(product).await?;
    let change = asked.parsed(Words::of(&text), view.settings.as_ref().clone())?;
    let admin = caller.admin.user;
    if change.settings.price != view.settings.price {
        caller.insist()?;
    }
    // Nobody changes it before it is shown.
    let (text, _turn) =
        catalogue.change(turn, admin, &text, &view.settings, expected.as_deref(), change).await?;
    let (view, now) = (directory.view(product).await.map_err(NotDone::after_all)?, clock.now());
    Ok(HttpResponse::Ok()
        .insert_header((header::ETAG, show::etag(&text, &view, now)))
        .json(ProductShown::of(&text, &view, now)))
}

/// `DELETE /v1/admin/products/{id}`: off sale for good; its history stays.
pub async fn archive(
    Admin(admin): Admin,
    Id(product): Id<ProductId>,
    catalogue: web::Data<Catalogue>,
    _: NoBody,
) -> Result<HttpResponse, Problem> {
    catalogue.archive(admin, product).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// `POST /v1/admin/products/{id}/restock`: needs a key, because twice the delivery is not the same delivery.
pub async fn restock(
    RecentAdmin(Identity { user: admin, .. }): RecentAdmin,
    key: IdempotencyKey,
    Id(product): Id<ProductId>,
    catalogue: web::Data<Catalogue>,
    Body(asked): Body<RestockRequest>,
) -> Result<HttpResponse, Problem> {
    if key.0.is_none() {
        return Err(Problem::field(
            "Idempotency-Key",
            "needed here: restocking twice is not restocking once",
        ));
    }
    let RestockRequest { delta, reason } = asked.checked()?;
    let print = Fingerprint::of("POST /v1/admin/products/{id}/restock");
    let key = key.of_caller(admin, print.bytes(product.as_bytes()).number(delta).bytes(reason.as_bytes()));
    told(product, Ask::Effect, catalogue.restock(admin, product, Restock { delta, reason, key }).await?)
}

/// `POST /v1/admin/products/{id}/pause`.
pub async fn pause(
    Admin(admin): Admin,
    _: IdempotencyKey,
    Id(product): Id<ProductId>,
    catalogue: web::Data<Catalogue>,
    _: NoBody,
) -> Result<HttpResponse, Problem> {
    told(product, Ask::State, catalogue.pause(admin, product).await?)
}

/// `POST /v1/admin/products/{id}/resume`.
pub async fn resume(
    Admin(admin): Admin,
    _: IdempotencyKey,
    Id(product): Id<ProductId>,
    catalogue: web::Data<Catalogue>,
    _: NoBody,
) -> Result<HttpResponse, Problem> {
    told(product, Ask::State, catalogue.resume(admin, product).await?)
}

/// What was asked for.
#[derive(PartialEq, Eq)]
enum Ask {
    /// That something happens, once for each key.
    Effect,
    /// That it is so. If it was already that is no answer to an earlier request.
    State,
}

fn told(product: ProductId, ask: Ask, answer: Answer) -> Result<HttpResponse, Problem> {
    match answer {
        Answer::Done { sequence, counts, replayed } => {
            let mut answer = HttpResponse::Ok();
            if replayed && ask == Ask::Effect {
                answer.insert_header(REPLAYED);
            }
            Ok(answer.json(StockChanged::of(product, sequence, counts)))
        }
        Answer::Reserved(_) | Answer::Replayed(_) | Answer::Order(_) | Answer::OrderOfKey(_) => {
            Err(internal())
        }
    }
}

impl StockChanged {
    fn of(product_id: ProductId, sequence: Sequence, counts: Counts) -> StockChanged {
        let Counts { on_hand, held, sold } = counts;
        StockChanged { product_id, sequence, on_hand, available: counts.available(), held, sold }
    }
}
