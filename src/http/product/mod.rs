//! The doors to products: look, search, watch the stock; and, for administrators, create and change.

mod admin;
mod ask;
mod ledger;
mod show;
mod stream;

use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, web};

pub use admin::{StockChanged, archive, change, create, pause, restock, resume};
pub use ask::{ProductPatch, ProductRequest, RestockRequest};
pub use ledger::{Movement, ledger};
pub use show::{ProductShown, SaleStateSchema, StockShown, state_word};
pub use stream::{STREAMS_MAX, Streams, stream};

use super::problem::Problem;
use super::query::{Id, Page, Query};
use crate::actors::catalogue::{Catalogue, Search};
use crate::actors::stock::Directory;
use crate::clock::Clock;
use crate::domain::id::ProductId;
use crate::persistence::product::ProductFilter;

const NO_PRODUCT: &str = "There is no such product.";
const IDS_MAX: usize = 100;
const WORD_LEN_MAX: usize = 200;

/// `GET /v1/products/{id}`.
pub async fn find(
    Id(product): Id<ProductId>,
    request: HttpRequest,
    clock: web::Data<Clock>,
    directory: web::Data<Directory>,
    catalogue: web::Data<Catalogue>,
) -> Result<HttpResponse, Problem> {
    let text = catalogue.text(product).await?.ok_or_else(|| Problem::not_found(NO_PRODUCT))?;
    let view = directory.view(product).await?;
    let now = clock.now();
    let etag = show::etag(&text, &view, now);
    let mut answer =
        if show::is_known(&request, &etag) { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    answer.insert_header((header::ETAG, etag.clone()));
    answer.insert_header((header::CACHE_CONTROL, HeaderValue::from_static("no-cache")));
    if show::is_known(&request, &etag) {
        return Ok(answer.finish());
    }
    Ok(answer.json(ProductShown::of(&text, &view, now)))
}

/// `GET /v1/products?q=&ids=&tag=&available=`: newest first.
pub async fn list(
    query: Query,
    clock: web::Data<Clock>,
    catalogue: web::Data<Catalogue>,
) -> Result<web::Json<Page<ProductShown>>, Problem> {
    let limit = query.limit()?;
    let search = Search {
        ids: query.parsed("ids", ids, "at most 100 product ids, separated by commas")?,
        filter: ProductFilter {
            prefix: query.parsed("q", word, "at most 200 characters")?,
            tag: query.parsed("tag", word, "at most 200 characters")?,
            available: query.parsed("available", |word| word.parse().ok(), "true or false")?.unwrap_or(false),
        },
        before: query.cursor()?,
        limit: limit + 1,
    };
    let found = catalogue.search(search).await?;
    let page = Page::of(found, limit, |found| found.text.id.to_string());
    let now = clock.now();
    Ok(web::Json(page.map(|found| ProductShown::of(&found.text, &found.view, now))))
}

fn word(word: &str) -> Option<String> {
    (word.chars().count() <= WORD_LEN_MAX).then(|| word.to_owned())
}

/// A word that is no product's id finds nothing, like an id that nobody has.
fn ids(words: &str) -> Option<Vec<ProductId>> {
    let words: Vec<&str> = words.split(',').collect();
    (words.len() <= IDS_MAX).then(|| words.into_iter().filter_map(|word| word.parse().ok()).collect())
}

/// `GET /v1/products/{id}/stock`.
pub async fn stock(
    Id(product): Id<ProductId>,
    directory: web::Data<Directory>,
    catalogue: web::Data<Catalogue>,
) -> Result<web::Json<StockShown>, Problem> {
    catalogue.text(product).await?.ok_or_else(|| Problem::not_found(NO_PRODUCT))?;
    let view = directory.view(product).await?;
    Ok(web::Json(StockShown::from(&*view)))
}
