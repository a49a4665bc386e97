//! The doors to products: look, search, watch the stock; and, for administrators, create and change.

mod admin;
mod ask;
mod ledger;
mod list;
mod page;
mod show;
mod stream;

use actix_web::{HttpRequest, HttpResponse, web};

pub use admin::{StockChanged, archive, change, create, pause, restock, resume};
pub use ask::{ProductPatch, ProductRequest, RestockRequest};
pub use ledger::{KINDS, Movement, ledger};
#[cfg(any(test, feature = "fuzz"))]
pub use list::cursor_again;
pub use list::{list, look_up};
pub use page::Pages;
pub use show::{ProductShown, SaleStateSchema, StockShown, state_word};
#[cfg(any(test, feature = "fuzz"))]
pub use show::{if_match, is_known};
#[cfg(any(test, feature = "fuzz"))]
pub use stream::last_seen;
pub use stream::{STREAMS_MAX, Streams, stream};

use super::problem::Problem;
use super::query::Id;
use crate::actors::catalogue::Catalogue;
use crate::actors::stock::Directory;
use crate::clock::Clock;
use crate::domain::id::ProductId;

const NO_PRODUCT: &str = "There is no such product.";

/// `GET /v1/products/{id}`: text, view and page are in memory; two look-ups find what it is now, a third its bytes.
pub async fn find(
    Id(product): Id<ProductId>,
    request: HttpRequest,
    clock: web::Data<Clock>,
    directory: web::Data<Directory>,
    catalogue: web::Data<Catalogue>,
    pages: web::Data<Pages>,
) -> Result<HttpResponse, Problem> {
    let text = catalogue.text(product).await?.ok_or_else(|| Problem::not_found(NO_PRODUCT))?;
    let view = match directory.peek(product) {
        Some(view) => view,
        // Rare, and large: every answer would carry the room for it.
        None => Box::pin(catalogue.view(product)).await?,
    };
    Ok(pages.page(text, view, clock.now()).answer(&request))
}

/// `GET /v1/products/{id}/stock`.
pub async fn stock(
    Id(product): Id<ProductId>,
    directory: web::Data<Directory>,
    catalogue: web::Data<Catalogue>,
) -> Result<web::Json<StockShown>, Problem> {
    catalogue.text(product).await?.ok_or_else(|| Problem::not_found(NO_PRODUCT))?;
    let view = match directory.peek(product) {
        Some(_) => directory.young_view(product).await?,
        None => Box::pin(catalogue.view(product)).await?,
    };
    Ok(web::Json(StockShown::from(&*view)))
}
