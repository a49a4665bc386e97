//! The doors to wish lists.

use std::str::FromStr;

use actix_web::{HttpResponse, web};

use super::auth::Shopper;
use super::body::NoBody;
use super::problem::{Code, Problem};
use super::product::ProductShown;
use super::query::{Id, Page, Query};
use super::rate::CartRate;
use crate::actors::wish::{NotWished, WishCursor, Wishes};
use crate::clock::Clock;
use crate::domain::id::ProductId;
use crate::domain::stock::Millis;

/// Where a page begins, as a word: `1767225600000-prod_…`.
struct Cursor(WishCursor);

impl FromStr for Cursor {
    type Err = ();

    fn from_str(word: &str) -> Result<Cursor, ()> {
        let (at, product) = word.split_once('-').ok_or(())?;
        if !at.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(());
        }
        let (added_at, product) = (at.parse().map_err(|_| ())?, product.parse().map_err(|_| ())?);
        Ok(Cursor(WishCursor { added_at: Millis(added_at), product }))
    }
}

/// Whether this word names a place.
#[cfg(any(test, feature = "fuzz"))]
pub fn read_cursor(word: &str) -> bool {
    word.parse::<Cursor>().is_ok()
}

/// `GET /v1/wishes`: the products, newest wish first.
pub async fn list(
    Shopper(user): Shopper,
    query: Query,
    clock: web::Data<Clock>,
    wishes: web::Data<Wishes>,
) -> Result<web::Json<Page<ProductShown>>, Problem> {
    let (limit, behind) = (query.limit()?, query.cursor::<Cursor>()?);
    let wished = wishes.list(user, behind.map(|Cursor(at)| at), limit + 1).await?;
    let page = Page::of(wished, limit, |last| {
        let WishCursor { added_at, product } = WishCursor::of(&last.wish);
        format!("{}-{product}", added_at.0)
    });
    let now = clock.now();
    Ok(web::Json(page.map(|wished| ProductShown::of(&wished.found.text, &wished.found.view, now))))
}

/// `PUT /v1/wishes/{id}`.
pub async fn put(
    Shopper(user): Shopper,
    Id(product): Id<ProductId>,
    rate: web::Data<CartRate>,
    wishes: web::Data<Wishes>,
    _: NoBody,
) -> Result<HttpResponse, Problem> {
    rate.take(user)?;
    wishes.put(user, product).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// `DELETE /v1/wishes/{id}`.
pub async fn remove(
    Shopper(user): Shopper,
    Id(product): Id<ProductId>,
    rate: web::Data<CartRate>,
    wishes: web::Data<Wishes>,
    _: NoBody,
) -> Result<HttpResponse, Problem> {
    rate.take(user)?;
    wishes.remove(user, product).await?;
    Ok(HttpResponse::NoContent().finish())
}

impl From<NotWished> for Problem {
    fn from(why: NotWished) -> Problem {
        match why {
            NotWished::NoProduct => Problem::not_found("There is no such product."),
            NotWished::NoUser => Problem::not_found("There is no such account."),
            NotWished::Full(full) => Problem::new(Code::ValidationFailed, "The wish list is full.")
                .and_field("", full.to_string())
                .number("limit", full.limit as u64),
            NotWished::NotDone(why) => why.into(),
        }
    }
}
