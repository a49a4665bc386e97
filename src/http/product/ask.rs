//! What an administrator may say about a product. Parsed once, here.

use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;

use crate::actors::catalogue::{Change, NewProduct, Words};
use crate::domain::amount::{Money, UNIT_PRICE_MAX};
use crate::domain::product::Tag;
use crate::domain::stock::{HOLD_MS_DEFAULT, HOLD_MS_MAX, ON_HAND_MAX, Settings};
use crate::http::problem::Problem;
use crate::http::shapes::PriceSchema;
use crate::http::time::Stamp;

const SKU_LEN_MAX: usize = 64;
const NAME_LEN_MAX: usize = 200;
const DESCRIPTION_LEN_MAX: usize = 10_000;
const URL_LEN_MAX: usize = 2_048;
const REASON_LEN_MAX: usize = 200;

/// A new product.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProductRequest {
    /// Unique in the shop.
    #[schema(
        min_length = 1,
        max_length = 64,
        pattern = r"^[^\s\x00-\x1F\x7F-\x9F]([^\x00-\x1F\x7F-\x9F]*[^\s\x00-\x1F\x7F-\x9F])?$"
    )]
    sku: String,
    #[schema(
        min_length = 1,
        max_length = 200,
        pattern = r"^[^\s\x00-\x1F\x7F-\x9F]([^\x00-\x1F\x7F-\x9F]*[^\s\x00-\x1F\x7F-\x9F])?$"
    )]
    name: String,
    #[serde(default)]
    #[schema(max_length = 10_000, pattern = r"^[^\x00-\x08\x0B\x0C\x0E-\x1F\x7F-\x9F]*$")]
    description: String,
    #[schema(value_type = PriceSchema)]
    price: Money,
    #[schema(minimum = 0, maximum = 1_000_000_000_000_u64)]
    stock: u64,
    #[serde(default)]
    #[schema(value_type = BTreeSet<TagSchema>, max_items = 2)]
    tags: Vec<Tag>,
    #[serde(default)]
    #[schema(max_length = 2048, pattern = "^(https?://|/)[!-~]*$")]
    thumbnail_url: Option<String>,
    #[serde(default)]
    #[schema(max_length = 2048, pattern = "^(https?://|/)[!-~]*$")]
    image_url: Option<String>,
    #[serde(default)]
    sale: SaleRequest,
}

/// What a list is narrowed to.
#[derive(ToSchema)]
#[schema(as = Tag, rename_all = "snake_case")]
#[allow(dead_code)]
pub enum TagSchema {
    New,
    Best,
}

/// When and to whom it is sold; what is left out keeps its value, null takes it away.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SaleRequest {
    #[serde(default, deserialize_with = "said")]
    #[schema(value_type = Option<String>, format = DateTime)]
    opens_at: Option<Option<Stamp>>,
    #[serde(default, deserialize_with = "said")]
    #[schema(value_type = Option<String>, format = DateTime)]
    closes_at: Option<Option<Stamp>>,
    #[serde(default, deserialize_with = "said")]
    #[schema(value_type = Option<u32>, minimum = 1)]
    per_customer_limit: Option<Option<u32>>,
    /// How long an order is held for its payment; null is 600.
    #[serde(default, deserialize_with = "said")]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 604_800)]
    hold_seconds: Option<Option<u32>>,
}

/// A change of a product; what is left out stays as it is. Null takes away what a product may be without: a picture, and whatever is said
/// of its sale. Stock changes by restocking only.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProductPatch {
    #[serde(default, deserialize_with = "not_null")]
    #[schema(
        value_type = String,
        min_length = 1,
        max_length = 64,
        pattern = r"^[^\s\x00-\x1F\x7F-\x9F]([^\x00-\x1F\x7F-\x9F]*[^\s\x00-\x1F\x7F-\x9F])?$"
    )]
    sku: Option<String>,
    #[serde(default, deserialize_with = "not_null")]
    #[schema(
        value_type = String,
        min_length = 1,
        max_length = 200,
        pattern = r"^[^\s\x00-\x1F\x7F-\x9F]([^\x00-\x1F\x7F-\x9F]*[^\s\x00-\x1F\x7F-\x9F])?$"
    )]
    name: Option<String>,
    #[serde(default, deserialize_with = "not_null")]
    #[schema(
        value_type = String,
        max_length = 10_000,
        pattern = r"^[^\x00-\x08\x0B\x0C\x0E-\x1F\x7F-\x9F]*$"
    )]
    description: Option<String>,
    #[serde(default, deserialize_with = "not_null")]
    #[schema(value_type = PriceSchema)]
    price: Option<Money>,
    #[serde(default, deserialize_with = "not_null")]
    #[schema(value_type = BTreeSet<TagSchema>, max_items = 2)]
    tags: Option<Vec<Tag>>,
    #[serde(default, deserialize_with = "said")]
    #[schema(value_type = Option<String>, max_length = 2048, pattern = "^(https?://|/)[!-~]*$")]
    thumbnail_url: Option<Option<String>>,
    #[serde(default, deserialize_with = "said")]
    #[schema(value_type = Option<String>, max_length = 2048, pattern = "^(https?://|/)[!-~]*$")]
    image_url: Option<Option<String>>,
    #[serde(default)]
    sale: SaleRequest,
}

/// More units, or fewer.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RestockRequest {
    /// Negative takes units away, never below what is held or sold.
    #[schema(minimum = -1_000_000_000_000_i64, maximum = 1_000_000_000_000_i64)]
    pub delta: i64,
    #[schema(
        min_length = 1,
        max_length = 200,
        pattern = r"^[^\s\x00-\x1F\x7F-\x9F]([^\x00-\x1F\x7F-\x9F]*[^\s\x00-\x1F\x7F-\x9F])?$"
    )]
    pub reason: String,
}

/// Tells a field that is null from one that is not there.
fn said<'de, T: Deserialize<'de>, D: Deserializer<'de>>(d: D) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(d).map(Some)
}

/// A field that may be left out, and has a value where it is there.
fn not_null<'de, T: Deserialize<'de>, D: Deserializer<'de>>(d: D) -> Result<Option<T>, D::Error> {
    T::deserialize(d).map(Some)
}

/// One line of text: not empty, not too long, nothing invisible.
fn line(pointer: &str, text: &str, len_max: usize) -> Result<(), Problem> {
    let len = text.chars().count();
    if !(1..=len_max).contains(&len) || text.trim() != text || text.chars().any(char::is_control) {
        return Err(Problem::field(
            pointer,
            format!("1 to {len_max} visible characters, no space around them"),
        ));
    }
    Ok(())
}

fn description(text: &str) -> Result<(), Problem> {
    let odd = text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t'));
    if odd || text.chars().count() > DESCRIPTION_LEN_MAX {
        return Err(Problem::field(
            "/description",
            format!("at most {DESCRIPTION_LEN_MAX} characters of text"),
        ));
    }
    Ok(())
}

fn price(money: Money) -> Result<(), Problem> {
    if !money.currency.is_listed() {
        return Err(Problem::field("/price/currency", "a currency that ISO 4217 lists"));
    }
    if !(0..=UNIT_PRICE_MAX).contains(&money.amount) {
        return Err(Problem::field("/price/amount", format!("0 to {UNIT_PRICE_MAX} minor units")));
    }
    Ok(())
}

/// As words, each at most once.
fn tags(tags: &[Tag]) -> Result<Vec<String>, Problem> {
    for (at, tag) in tags.iter().enumerate() {
        if tags[..at].contains(tag) {
            return Err(Problem::field(format!("/tags/{at}"), "each tag once"));
        }
    }
    Ok(tags.iter().map(|tag| tag.as_str().to_owned()).collect())
}

fn url(pointer: &str, url: Option<&String>) -> Result<(), Problem> {
    let Some(url) = url else { return Ok(()) };
    let known = ["https://", "http://", "/"].iter().any(|start| url.starts_with(start));
    if !known || url.len() > URL_LEN_MAX || !url.bytes().all(|b| b.is_ascii_graphic()) {
        let told =
            format!("an address that begins with https://, http:// or /, at most {URL_LEN_MAX} characters");
        return Err(Problem::field(pointer, told));
    }
    Ok(())
}

impl SaleRequest {
    /// `settings` with what was said about the sale.
    fn applied(&self, settings: Settings) -> Result<Settings, Problem> {
        let time = |stamp: Option<Stamp>| stamp.map(|Stamp(at)| at);
        let hold_ms = match self.hold_seconds {
            None => settings.hold_ms,
            Some(None) => HOLD_MS_DEFAULT,
            Some(Some(seconds)) => match seconds.checked_mul(1000) {
                Some(ms @ 1..=HOLD_MS_MAX) => ms,
                _ => return Err(Problem::field("/sale/hold_seconds", "1 to 604,800 seconds")),
            },
        };
        let settings = Settings {
            opens_at: self.opens_at.map_or(settings.opens_at, time),
            closes_at: self.closes_at.map_or(settings.closes_at, time),
            per_customer_limit: self.per_customer_limit.unwrap_or(settings.per_customer_limit),
            hold_ms,
            ..settings
        };
        if settings.per_customer_limit == Some(0) {
            return Err(Problem::field("/sale/per_customer_limit", "at least 1, or null for none"));
        }
        match (settings.opens_at, settings.closes_at) {
            (Some(opens), Some(closes)) if closes <= opens => {
                Err(Problem::field("/sale/closes_at", "a sale closes after it opens"))
            }
            _ => Ok(settings),
        }
    }
}

impl ProductRequest {
    pub fn parsed(self) -> Result<NewProduct, Problem> {
        line("/sku", &self.sku, SKU_LEN_MAX)?;
        line("/name", &self.name, NAME_LEN_MAX)?;
        description(&self.description)?;
        price(self.price)?;
        let tags = tags(&self.tags)?;
        url("/thumbnail_url", self.thumbnail_url.as_ref())?;
        url("/image_url", self.image_url.as_ref())?;
        if self.stock > ON_HAND_MAX {
            return Err(Problem::field("/stock", format!("at most {ON_HAND_MAX} units")));
        }
        let plain = Settings {
            price: self.price,
            opens_at: None,
            closes_at: None,
            per_customer_limit: None,
            hold_ms: HOLD_MS_DEFAULT,
        };
        let settings = self.sale.applied(plain)?;
        let words = Words {
            sku: self.sku,
            name: self.name,
            description: self.description,
            thumbnail_url: self.thumbnail_url,
            image_url: self.image_url,
            tags,
        };
        Ok(NewProduct { words, settings, stock: self.stock })
    }
}

impl ProductPatch {
    /// The change, from the product as it is.
    pub fn parsed(self, words: Words, settings: Settings) -> Result<Change, Problem> {
        let words = Words {
            sku: self.sku.unwrap_or(words.sku),
            name: self.name.unwrap_or(words.name),
            description: self.description.unwrap_or(words.description),
            thumbnail_url: self.thumbnail_url.unwrap_or(words.thumbnail_url),
            image_url: self.image_url.unwrap_or(words.image_url),
            tags: self.tags.as_deref().map_or(Ok(words.tags), tags)?,
        };
        line("/sku", &words.sku, SKU_LEN_MAX)?;
        line("/name", &words.name, NAME_LEN_MAX)?;
        description(&words.description)?;
        url("/thumbnail_url", words.thumbnail_url.as_ref())?;
        url("/image_url", words.image_url.as_ref())?;
        let settings = Settings { price: self.price.unwrap_or(settings.price), ..settings };
        self.price.map_or(Ok(()), price)?;
        Ok(Change { words, settings: self.sale.applied(settings)? })
    }
}

impl RestockRequest {
    pub fn checked(self) -> Result<RestockRequest, Problem> {
        line("/reason", &self.reason, REASON_LEN_MAX)?;
        if self.delta.unsigned_abs() > ON_HAND_MAX {
            return Err(Problem::field("/delta", format!("at most {ON_HAND_MAX} units at once")));
        }
        Ok(self)
    }
}
