//! A product as everybody sees it: its text, its stock, its sale.

use std::sync::Arc;

use actix_web::HttpRequest;
use actix_web::http::header::{self, HeaderValue};
use serde::Serialize;
use utoipa::ToSchema;
use xxhash_rust::xxh3::xxh3_64;

use crate::actors::catalogue::{Edition, Text};
use crate::actors::stock::View;
use crate::domain::amount::Money;
use crate::domain::id::ProductId;
use crate::domain::stock::{Millis, SaleState, Sequence};
use crate::http::shapes::MoneySchema;
use crate::http::time::Stamp;

/// A product.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProductShown {
    #[schema(value_type = String, example = "prod_01h455vb4pex5vsknk084sn02q")]
    id: ProductId,
    sku: String,
    name: String,
    description: String,
    #[schema(value_type = MoneySchema)]
    price: Money,
    thumbnail_url: Option<String>,
    image_url: Option<String>,
    tags: Vec<String>,
    stock: StockInBrief,
    sale: Sale,
}

/// What is left.
#[derive(Debug, Serialize, ToSchema)]
pub struct StockInBrief {
    available: u64,
    sold_out: bool,
    #[schema(value_type = String, format = DateTime)]
    as_of: Stamp,
}

/// When and to whom it is sold.
#[derive(Debug, Serialize, ToSchema)]
pub struct Sale {
    #[schema(value_type = Option<String>, format = DateTime)]
    opens_at: Option<Stamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    closes_at: Option<Stamp>,
    /// The most units one customer may hold and have bought.
    per_customer_limit: Option<u32>,
    /// How long an order is held for its payment.
    hold_seconds: u32,
    #[schema(value_type = SaleStateSchema)]
    state: &'static str,
}

/// Whether it can be bought, and if not, why.
#[derive(ToSchema)]
#[schema(as = SaleState, rename_all = "snake_case")]
#[allow(dead_code)]
pub enum SaleStateSchema {
    Open,
    Paused,
    NotOpen,
    Closed,
    Archived,
}

/// The counters of a product at one sequence.
#[derive(Debug, Serialize, ToSchema)]
pub struct StockShown {
    available: u64,
    /// Promised, not yet paid.
    held: u64,
    sold: u64,
    /// The product's last event.
    #[schema(value_type = u64)]
    sequence: Sequence,
    #[schema(value_type = String, format = DateTime)]
    as_of: Stamp,
}

/// The contract's word for a state.
pub fn state_word(state: SaleState) -> &'static str {
    match state {
        SaleState::Open => "open",
        SaleState::Paused => "paused",
        SaleState::NotOpen { .. } => "not_open",
        SaleState::Closed { .. } => "closed",
        SaleState::Archived => "archived",
    }
}

impl ProductShown {
    pub fn of(text: &Text, view: &View, now: Millis) -> ProductShown {
        let settings = &view.settings;
        let available = view.counts.available();
        ProductShown {
            id: text.id,
            sku: text.sku.clone(),
            name: text.name.clone(),
            description: text.description.clone(),
            price: settings.price,
            thumbnail_url: text.thumbnail_url.clone(),
            image_url: text.image_url.clone(),
            tags: text.tags.clone(),
            stock: StockInBrief { available, sold_out: available == 0, as_of: Stamp(view.as_of) },
            sale: Sale {
                opens_at: settings.opens_at.map(Stamp),
                closes_at: settings.closes_at.map(Stamp),
                per_customer_limit: settings.per_customer_limit,
                hold_seconds: settings.hold_ms / 1000,
                state: state_word(view.sale_state(now)),
            },
        }
    }
}

impl From<&View> for StockShown {
    fn from(view: &View) -> StockShown {
        StockShown {
            available: view.counts.available(),
            held: view.counts.held,
            sold: view.counts.sold,
            sequence: view.sequence,
            as_of: Stamp(view.as_of),
        }
    }
}

/// The entity tag of a product: its edition (text and settings), a dash, and its stock and state. A change of the
/// product is conditional on the edition alone, so that a sale in full swing does not keep anyone from changing it.
///
/// It is weak (RFC 9110 §8.8.1): two pages with one tag say the same of the product, and may differ in when that was seen.
pub fn etag(text: &Text, view: &Arc<View>, now: Millis) -> HeaderValue {
    let state = state_word(view.sale_state(now));
    let stock = xxh3_64(format!("{} {state}", view.sequence.0).as_bytes());
    let tag = format!("W/\"{:016x}-{stock:016x}\"", Edition::of(text, &view.settings).0);
    HeaderValue::from_str(&tag).unwrap_or(HeaderValue::from_static("W/\"\""))
}

/// What a conditional header names.
enum Named<'r> {
    /// `*`, which stands alone and bare: `"*"` is a tag like any other.
    Any,
    /// Tags as they were written.
    Tags(Vec<&'r str>),
}

impl Named<'_> {
    fn by(request: &HttpRequest, header: header::HeaderName) -> Option<Named<'_>> {
        let values: Vec<&HeaderValue> = request.headers().get_all(header).collect();
        if values.is_empty() {
            return None;
        }
        let lines: Vec<&str> = values.into_iter().filter_map(|value| value.to_str().ok()).collect();
        if lines.iter().any(|line| line.trim() == "*") {
            return Some(Named::Any);
        }
        Some(Named::Tags(lines.into_iter().flat_map(|line| line.split(',')).collect()))
    }
}

/// What is compared of a tag, whether it is weak or not (RFC 9110 §8.8.3.2).
fn opaque(tag: &str) -> &str {
    let tag = tag.trim();
    tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"')
}

/// Whether the client has an answer already that is as good as this one.
pub fn is_known(request: &HttpRequest, etag: &HeaderValue) -> bool {
    let tag = opaque(etag.to_str().unwrap_or_default());
    match Named::by(request, header::IF_NONE_MATCH) {
        None => false,
        Some(Named::Any) => true,
        Some(Named::Tags(known)) => known.into_iter().any(|known| opaque(known) == tag),
    }
}

/// The editions a change is meant for: `None` without the header, `Some(None)` for any.
///
/// RFC 9110 §13.1.1 would have a weak tag match nothing. Ours are weak for what a change does not rest on; the edition within is exact,
/// and it alone is looked at. So a tag is taken as it was sent, or as somebody on the way has made it.
pub fn if_match(request: &HttpRequest) -> Option<Option<Vec<Edition>>> {
    let edition = |tag: &str| {
        let (edition, _) = opaque(tag).split_once('-')?;
        u64::from_str_radix(edition, 16).ok().map(Edition)
    };
    Some(match Named::by(request, header::IF_MATCH)? {
        Named::Any => None,
        Named::Tags(tags) => Some(tags.into_iter().filter_map(edition).collect()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    #[test]
    fn conditions_are_read_as_lists_of_tags() {
        let request = TestRequest::default()
            .insert_header((header::IF_NONE_MATCH, r#""a", W/"b""#))
            .insert_header((header::IF_MATCH, r#""00000000000000ff-1", "zz""#))
            .to_http_request();
        for (tag, known) in [(r#""a""#, true), (r#""b""#, true), (r#""c""#, false)] {
            assert_eq!(is_known(&request, &HeaderValue::from_static(tag)), known);
        }
        assert_eq!(if_match(&request), Some(Some(vec![Edition(255)])));
        assert_eq!(if_match(&TestRequest::default().to_http_request()), None);
    }

    #[test]
    fn a_star_stands_alone_and_bare() {
        let saying = |said: &'static str| {
            let request = TestRequest::default().insert_header((header::IF_MATCH, said));
            request.insert_header((header::IF_NONE_MATCH, said)).to_http_request()
        };
        let ours = HeaderValue::from_static(r#"W/"00000000000000ff-1""#);
        for any in ["*", " * "] {
            assert_eq!(if_match(&saying(any)), Some(None), "{any}");
            assert!(is_known(&saying(any), &ours), "{any}");
        }
        for tag in [r#""*""#, r#"W/"*""#, r#""x", *"#] {
            assert_eq!(if_match(&saying(tag)), Some(Some(Vec::new())), "{tag}");
            assert!(!is_known(&saying(tag), &ours), "{tag}");
        }
    }

    #[test]
    fn a_weak_tag_names_its_edition() {
        for tag in [r#"W/"00000000000000ff-1""#, r#""00000000000000ff-1""#] {
            let request = TestRequest::default().insert_header((header::IF_MATCH, tag)).to_http_request();
            assert_eq!(if_match(&request), Some(Some(vec![Edition(255)])), "{tag}");
        }
    }
}
