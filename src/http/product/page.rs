//! Product pages as they leave, kept as bytes.
//!
//! Always true: a page that is sent shows the text and the view that are published now. It is kept for this very text, for the
//! view's sequence, to which counts and settings belong, and for the state of the sale, which time alone may change.

use std::sync::Arc;

use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse};
use moka::sync::Cache;
use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64;

use super::list::cursor;
use super::show::{self, ProductShown, state_word};
use crate::actors::catalogue::{Found, Shelf, Text};
use crate::actors::stock::View;
use crate::domain::id::ProductId;
use crate::domain::stock::{Millis, Sequence};

/// What all pages together may take.
const PAGES_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// What keeping a page takes beside its bytes.
const KEEPING_BYTES: usize = 512;
/// In a sale in full swing a view lives for a millisecond, and its page is asked for once: only what is older is kept.
const SETTLED_MS: i64 = 20;

const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// One answer, with what it is true of.
pub struct Page {
    text: Arc<Text>,
    sequence: Sequence,
    state: &'static str,
    etag: HeaderValue,
    body: Bytes,
}

/// The pages that are kept. Cheap to clone.
#[derive(Clone)]
pub struct Pages(Cache<ProductId, Arc<Page>>);

impl Default for Pages {
    fn default() -> Pages {
        let weight = |_: &ProductId, page: &Arc<Page>| {
            u32::try_from(page.body.len() + KEEPING_BYTES).unwrap_or(u32::MAX)
        };
        Pages(Cache::builder().max_capacity(PAGES_BYTES_MAX).weigher(weight).build())
    }
}

impl Pages {
    /// The page of a product as it is now.
    pub fn page(&self, text: Arc<Text>, view: Arc<View>, now: Millis) -> Arc<Page> {
        let state = state_word(view.sale_state(now));
        let product = text.id;
        if let Some(page) = self.0.get(&product)
            && is_same(&page.text, &text)
            && page.sequence == view.sequence
            && page.state == state
        {
            return page;
        }
        let settled = now.0 - view.as_of.0 >= SETTLED_MS;
        let etag = show::etag(&text, &view, now);
        let body = bytes(&ProductShown::of(&text, &view, now));
        let page = Arc::new(Page { text, sequence: view.sequence, state, etag, body });
        if settled {
            self.0.insert(product, page.clone());
        }
        page
    }
}

/// Whether two texts of one product are the same one: each thread has its own.
fn is_same(one: &Text, other: &Text) -> bool {
    (one.version, one.archived, one.updated_at) == (other.version, other.archived, other.updated_at)
}

impl Page {
    pub fn answer(&self, request: &HttpRequest) -> HttpResponse {
        conditional(request, self.etag.clone(), || self.body.clone())
    }
}

/// A list, put together from the pages of its products. Its tag is made of theirs, so that what comes again is not sent again.
pub fn list(request: &HttpRequest, pages: &Pages, shelf: Shelf, now: Millis) -> HttpResponse {
    let next = cursor(shelf.next);
    let products: Vec<Arc<Page>> =
        shelf.found.into_iter().map(|Found { text, view }| pages.page(text, view, now)).collect();
    let mut tags = Vec::with_capacity(products.len() * 64);
    for page in &products {
        tags.extend_from_slice(page.text.id.as_bytes());
        tags.extend_from_slice(page.etag.as_bytes());
    }
    tags.extend_from_slice(next.as_deref().unwrap_or_default().as_bytes());
    let tag = format!("W/\"{:016x}\"", xxh3_64(&tags));
    let etag = HeaderValue::from_str(&tag).unwrap_or(HeaderValue::from_static("W/\"\""));
    conditional(request, etag, || joined(&products, next.as_deref()))
}

/// As a page of a list is written.
fn joined(products: &[Arc<Page>], next: Option<&str>) -> Bytes {
    let len: usize = products.iter().map(|page| page.body.len() + 1).sum();
    let mut body = Vec::with_capacity(len + 128);
    body.extend_from_slice(b"{\"data\":[");
    for (at, page) in products.iter().enumerate() {
        if at > 0 {
            body.push(b',');
        }
        body.extend_from_slice(&page.body);
    }
    body.extend_from_slice(b"],\"next_cursor\":");
    body.extend_from_slice(&bytes(&next));
    body.push(b'}');
    Bytes::from(body)
}

/// The body, or nothing for whoever has it already.
fn conditional(request: &HttpRequest, etag: HeaderValue, body: impl FnOnce() -> Bytes) -> HttpResponse {
    let known = show::is_known(request, &etag);
    let mut answer: HttpResponse<BoxBody> =
        HttpResponse::new(if known { StatusCode::NOT_MODIFIED } else { StatusCode::OK });
    let headers = answer.headers_mut();
    headers.insert(header::ETAG, etag);
    headers.insert(header::CACHE_CONTROL, NO_CACHE);
    if known {
        return answer;
    }
    headers.insert(header::CONTENT_TYPE, JSON);
    answer.set_body(BoxBody::new(body()))
}

fn bytes(shown: &impl Serialize) -> Bytes {
    // What is shown is plain data: writing it into memory has no way to fail.
    let written = serde_json::to_vec(shown);
    debug_assert!(written.is_ok());
    Bytes::from(written.unwrap_or_default())
}
