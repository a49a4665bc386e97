//! Lists of products: the shop's, and the administrator's look-up.

use std::fmt;
use std::str::FromStr;

use actix_web::{HttpRequest, HttpResponse, web};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Serialize;

use super::page::{self, Pages};
use super::show::ProductShown;
use crate::actors::catalogue::{Catalogue, Found, Search, Shelf};
use crate::actors::user::Users;
use crate::clock::Clock;
use crate::domain::id::ProductId;
use crate::domain::product::Tag;
use crate::domain::stock::Millis;
use crate::domain::trail::Record;
use crate::http::auth::Admin;
use crate::http::csv::{self, Column, Form, Part};
use crate::http::problem::Problem;
use crate::http::query::{Page, Query};
use crate::http::time::Stamp;
use crate::persistence::product::{Place, name_key};

const IDS_MAX: usize = 100;
const WORD_LEN_MAX: usize = 200;
/// Products of one part of a CSV.
const PART: usize = 100;

/// A product as administrators see it.
#[derive(Debug, Serialize)]
struct ProductFound {
    #[serde(flatten)]
    product: ProductShown,
    archived: bool,
    on_hand: u64,
    held: u64,
    sold: u64,
    created_at: Stamp,
    updated_at: Stamp,
}

const COLUMNS: &[Column] = &[
    Column("id", "/id"),
    Column("sku", "/sku"),
    Column("name", "/name"),
    Column("price_minor", "/price/amount"),
    Column("currency", "/price/currency"),
    Column("tags", "/tags"),
    Column("available", "/stock/available"),
    Column("on_hand", "/on_hand"),
    Column("held", "/held"),
    Column("sold", "/sold"),
    Column("sale_state", "/sale/state"),
    Column("opens_at", "/sale/opens_at"),
    Column("closes_at", "/sale/closes_at"),
    Column("per_customer_limit", "/sale/per_customer_limit"),
    Column("hold_seconds", "/sale/hold_seconds"),
    Column("archived", "/archived"),
    Column("description", "/description"),
    Column("thumbnail_url", "/thumbnail_url"),
    Column("image_url", "/image_url"),
    Column("created_at", "/created_at"),
    Column("updated_at", "/updated_at"),
];

/// A place in a list as a word: the product, and, where the list goes by name, a point and what it was found by.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cursor(Place);

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Place { product, name_key } = &self.0;
        match name_key {
            None => write!(f, "{product}"),
            Some(key) => write!(f, "{product}.{}", BASE64_URL_SAFE_NO_PAD.encode(key)),
        }
    }
}

/// Not a word of ours.
struct NotACursor;

impl FromStr for Cursor {
    type Err = NotACursor;

    fn from_str(word: &str) -> Result<Cursor, NotACursor> {
        let (product, key) = match word.split_once('.') {
            None => (word, None),
            Some((product, key)) => (product, Some(key)),
        };
        let key = key.map(|key| BASE64_URL_SAFE_NO_PAD.decode(key)).transpose().map_err(|_| NotACursor)?;
        let name_key = key.map(String::from_utf8).transpose().map_err(|_| NotACursor)?;
        Ok(Cursor(Place { product: product.parse().map_err(|_| NotACursor)?, name_key }))
    }
}

/// The word of a place that this word names.
#[cfg(any(test, feature = "fuzz"))]
pub fn cursor_again(word: &str) -> Option<String> {
    word.parse::<Cursor>().ok().map(|place| place.to_string())
}

/// `GET /v1/products?q=&ids=&tag=&available=`: newest first, by name with `q`.
pub async fn list(
    query: Query,
    request: HttpRequest,
    clock: web::Data<Clock>,
    catalogue: web::Data<Catalogue>,
    pages: web::Data<Pages>,
) -> Result<HttpResponse, Problem> {
    let search = Search { archived: Some(false), ..search(&query)? };
    let shelf = catalogue.search(search).await?;
    let now = clock.now();
    Ok(page::list(&request, &pages, shelf, now))
}

/// `GET /v1/admin/products?q=&sku=&ids=&tag=&available=&archived=`: the same, archived ones among them. Who takes a table away stands
/// in the trail first.
pub async fn look_up(
    Admin(admin): Admin,
    query: Query,
    form: Form,
    clock: web::Data<Clock>,
    catalogue: web::Data<Catalogue>,
    users: web::Data<Users>,
) -> Result<HttpResponse, Problem> {
    let archived = query.parsed("archived", |word| word.parse().ok(), "true or false")?;
    let search = Search { archived, ..search(&query)? };
    let sku = query.parsed("sku", word, "at most 200 characters")?;
    match form {
        Form::Json => {
            let (now, shelf) = (clock.now(), one_or_many(&catalogue, sku.as_deref(), search).await?);
            Ok(HttpResponse::Ok().json(shown(shelf, |found| ProductFound::of(found, now))))
        }
        Form::Csv => {
            let of = |record| narrowed(record, &search, sku.is_some());
            users.tell_export(admin, "products", of).await?;
            let first = search.behind.clone();
            csv::stream("products", COLUMNS, first, move |behind| {
                let (catalogue, clock, sku) = (catalogue.clone(), clock.clone(), sku.clone());
                let search = Search { behind, limit: PART, ..search.clone() };
                async move {
                    let shelf = one_or_many(&catalogue, sku.as_deref(), search).await?;
                    let now = clock.now();
                    let rows =
                        shelf.found.into_iter().map(move |found| csv::row(&ProductFound::of(&found, now)));
                    Ok(Part::of(rows, shelf.next))
                }
            })
            .await
        }
    }
}

/// What a table has of all products. What somebody has typed is told as a word of ours.
fn narrowed(record: Record, search: &Search, by_sku: bool) -> Record {
    let record = record.word_if("by", by_sku.then_some("sku"));
    let record = record.word_if("among", search.ids.as_ref().map(|_| "ids"));
    let record = record.word_if("named", search.prefix.as_ref().map(|_| "q"));
    let record = record.word_if("tagged", search.tag.map(Tag::as_str));
    let record = record.word_if("available", search.available.then_some("true"));
    let archived = search.archived.map(|archived| if archived { "true" } else { "false" });
    record.word_if("archived", archived).id_if("behind", search.behind.as_ref().map(|place| place.product))
}

/// A sku belongs to one product at the most.
async fn one_or_many(catalogue: &Catalogue, sku: Option<&str>, search: Search) -> Result<Shelf, Problem> {
    let Some(sku) = sku else { return Ok(catalogue.search(search).await?) };
    let Some(found) = catalogue.by_sku(sku).await? else {
        return Ok(Shelf { found: Vec::new(), next: None });
    };
    let ids = match search.ids {
        Some(ids) => ids.into_iter().filter(|id| *id == found.text.id).collect(),
        None => vec![found.text.id],
    };
    Ok(catalogue.search(Search { ids: Some(ids), ..search }).await?)
}

fn search(query: &Query) -> Result<Search, Problem> {
    let ids = query.parsed("ids", ids, "at most 100 product ids, separated by commas")?;
    let tag = query.parsed("tag", word, "at most 200 characters")?;
    let known = tag.as_deref().map(Tag::from_word);
    let prefix = query.parsed("q", word, "at most 200 characters")?;
    // Chosen ones go by age, whatever their names.
    let by_name = prefix.as_deref().filter(|_| ids.is_none()).map(name_key);
    let is_in = |Cursor(place): &Cursor| match (&by_name, &place.name_key) {
        (None, _) => true,
        (Some(prefix), Some(name)) => name.starts_with(prefix),
        (Some(_), None) => false,
    };
    let behind = query.cursor_in(is_in)?.map(|Cursor(place)| place);
    Ok(Search {
        // What no product can be tagged with finds nothing.
        ids: if known == Some(None) { Some(Vec::new()) } else { ids },
        prefix,
        tag: known.flatten(),
        available: query.parsed("available", |word| word.parse().ok(), "true or false")?.unwrap_or(false),
        archived: None,
        behind,
        limit: query.limit()? as usize,
    })
}

fn shown<T>(shelf: Shelf, show: impl FnMut(&Found) -> T) -> Page<T> {
    let data = shelf.found.iter().map(show).collect();
    Page { data, next_cursor: cursor(shelf.next) }
}

/// A place as its word.
pub fn cursor(next: Option<Place>) -> Option<String> {
    next.map(|place| Cursor(place).to_string())
}

fn word(word: &str) -> Option<String> {
    (word.chars().count() <= WORD_LEN_MAX).then(|| word.to_owned())
}

/// A word that is no product's id finds nothing, like an id that nobody has.
fn ids(words: &str) -> Option<Vec<ProductId>> {
    let words: Vec<&str> = words.split(',').collect();
    (words.len() <= IDS_MAX).then(|| words.into_iter().filter_map(|word| word.parse().ok()).collect())
}

impl ProductFound {
    fn of(found: &Found, now: Millis) -> ProductFound {
        let Found { text, view } = found;
        ProductFound {
            product: ProductShown::of(text, view, now),
            archived: text.archived,
            on_hand: view.counts.on_hand,
            held: view.counts.held,
            sold: view.counts.sold,
            created_at: Stamp(text.created_at),
            updated_at: Stamp(text.updated_at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_from_its_own_word() {
        let product = ProductId::new(Millis(7), 9);
        for name_key in [None, Some(String::new()), Some("달항아리 a+b/c?".to_owned())] {
            let cursor = Cursor(Place { product, name_key });
            let word = cursor.to_string();
            assert!(word.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)), "{word}");
            assert!(word.parse::<Cursor>().ok() == Some(cursor));
        }
        for word in ["", "prod_", "order_01h455vb4pex5vsknk084sn02q", "prod_01h455vb4pex5vsknk084sn02q.!"] {
            assert!(word.parse::<Cursor>().is_err(), "{word}");
        }
    }
}
