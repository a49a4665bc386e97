//! The `products` rows: what a product is called and looks like. What it costs and how many there are is `stock`.
//!
//! Rows are written by administrators, each write synced before its answer; a change names the version it is made
//! upon. A product is listed from the moment its row stands; its stock row follows with the next flush. Lists are walked:
//! along an index, from a place on, so that each step costs the same wherever it is taken.

use std::sync::LazyLock;

use futures_util::TryStreamExt;
use icu_normalizer::ComposingNormalizerBorrowed;

use super::sql::{self, Connection, Listed, Pool, Query, Row, signed, sixteen, unsigned};
use super::stock::{self, Stock};
use super::{StoreError, Tables};
use crate::domain::id::ProductId;
use crate::domain::product::Tag;
use crate::domain::stock::{KeyUse, Millis};

/// A product as the catalogue describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Product {
    pub id: ProductId,
    pub sku: String,
    pub name: String,
    pub description: String,
    pub thumbnail_url: Option<String>,
    pub image_url: Option<String>,
    /// Words without commas.
    pub tags: Vec<String>,
    pub archived: bool,
    /// 1 at first, one more for each change.
    pub version: u64,
    pub created_at: Millis,
    pub updated_at: Millis,
}

/// A product with its stock, once that has been flushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    pub product: Product,
    pub stock: Option<Stock>,
}

/// The order in which a list goes through the products, and which it passes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Along {
    /// All, newest first.
    Age,
    /// Those with this tag, newest first.
    Tag(Tag),
    /// Those whose [`name_key`] begins so, by name.
    Name(String),
}

/// Where a walk stands: behind this product.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    pub product: ProductId,
    /// What the product was found by when the walk came past, on a walk by name.
    pub name_key: Option<String>,
}

/// As much of a product as it takes to pass it by or to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sign {
    pub place: Place,
    pub archived: bool,
    pub is_new: bool,
    pub is_best: bool,
    /// Units that were left at the last flush; `None` before the first.
    pub available: Option<i64>,
}

/// Why a product was not written.
#[derive(Debug, thiserror::Error)]
pub enum ProductError {
    #[error("another product has this sku, or was made with this key")]
    SkuTaken,
    #[error("the product is not at the version the change was made upon, or does not exist")]
    VersionConflict,
    #[error(transparent)]
    Store(#[from] StoreError),
}

macro_rules! columns {
    ($p:literal) => {
        concat!(
            $p,
            "id, ",
            $p,
            "sku, ",
            $p,
            "name, ",
            $p,
            "description, ",
            $p,
            "thumbnail_url, ",
            $p,
            "image_url, ",
            $p,
            "tags, ",
            $p,
            "archived, ",
            $p,
            "version, ",
            $p,
            "created_at_ms, ",
            $p,
            "updated_at_ms"
        )
    };
}
macro_rules! listing {
    () => {
        concat!(
            "select ", columns!("p."), ", s.product_id, s.sequence, s.hash, s.on_hand, s.held, s.sold, s.price_minor, \
             s.currency, s.opens_at_ms, s.closes_at_ms, s.per_customer_limit, s.hold_ms, s.paused, s.archived, \
             s.updated_at_ms from products p left join stock s on s.product_id = p.id "
        )
    };
}
macro_rules! signs {
    ($rest:literal) => {
        concat!(
            "select p.id, p.name_key, p.archived, p.is_new, p.is_best, s.on_hand - s.held - s.sold \
             from products p left join stock s on s.product_id = p.id ",
            $rest
        )
    };
}

const FIND: &str = concat!(listing!(), "where p.id = ?");
const BY_SKU: &str = concat!("select ", columns!(""), " from products where sku = ?");
const BY_KEY: &str = concat!("select ", columns!(""), ", made_of from products where made_by = ?");
const BY_AGE: &str = signs!("where p.id < ? order by p.id desc limit ?");
const NEW: &str = signs!("where p.is_new = 1 and p.id < ? order by p.id desc limit ?");
const BEST: &str = signs!("where p.is_best = 1 and p.id < ? order by p.id desc limit ?");
const BY_NAME: &str =
    signs!("where (p.name_key, p.id) > (?, ?) and p.name_key < ? order by p.name_key, p.id limit ?");
const COUNT: &str = "select count(*) from products where archived = 0";
/// Of those that have stock.
const WITHOUT_ROWS: &str = "select product_id from stock \
    where not exists (select 1 from products p where p.id = stock.product_id) order by product_id";
static FIND_MANY: LazyLock<Listed> =
    LazyLock::new(|| Listed::new(concat!(listing!(), "where p.id in ("), "?", ")"));
const INSERT: &str = "insert into products (id, sku, name, name_key, description, thumbnail_url, image_url, tags, \
    is_new, is_best, archived, version, created_at_ms, updated_at_ms, made_by, made_of) \
    values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
macro_rules! update {
    ($besides:literal) => {
        concat!(
            "update products set ",
            $besides,
            "sku = ?, name = ?, name_key = ?, description = ?, thumbnail_url = ?, image_url = ?, tags = ?, is_new = ?, \
             is_best = ?, archived = ?, updated_at_ms = ?, version = version + 1 where id = ? and version = ?"
        )
    };
}
const UPDATE: &str = update!("");
const TAKE_OVER: &str = update!("made_by = ?, made_of = ?, ");
const ARCHIVE: &str = "update products set archived = 1, updated_at_ms = ?, version = version + 1 \
    where id = ? and archived = 0";

/// The longest key of a name, in letters. Some letters become two.
const NAME_KEY_LEN_MAX: usize = 200;

/// Where the columns of the stock row, or of the key, begin behind those of a product.
const STOCK_AT: usize = 11;

/// Reads the catalogue. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ProductReader {
    pub(super) pool: Pool,
}

impl ProductReader {
    pub async fn find(&self, id: ProductId) -> Result<Option<Listing>, StoreError> {
        let row = sql::query(FIND).bind(&id.as_bytes()[..]).fetch_optional(&self.pool).await?;
        row.as_ref().map(listing).transpose()
    }

    /// Those of `ids` that exist, in no order that means anything.
    pub async fn find_many(&self, ids: &[ProductId]) -> Result<Vec<Listing>, StoreError> {
        let mut found = Vec::with_capacity(ids.len());
        for query in FIND_MANY.named(ids) {
            for row in query.fetch_all(&self.pool).await? {
                found.push(listing(&row)?);
            }
        }
        Ok(found)
    }

    /// Products that have stock and no row here, for the audit: a row is there before there is anything to sell.
    pub(super) async fn without_rows(&self) -> Result<Vec<ProductId>, StoreError> {
        let rows = sql::query(WITHOUT_ROWS).fetch_all(&self.pool).await?;
        rows.iter().map(|row| Ok(ProductId::from_bytes(sixteen(row, 0)?))).collect()
    }

    /// The next `most` products along the way, archived ones and those without a ledger among them.
    pub async fn signs(
        &self,
        along: &Along,
        behind: Option<&Place>,
        most: u32,
    ) -> Result<Vec<Sign>, StoreError> {
        let before = behind.map_or([0xff; 16], |place| *place.product.as_bytes());
        let query = match along {
            Along::Age => sql::query(BY_AGE).bind(before.to_vec()),
            Along::Tag(Tag::New) => sql::query(NEW).bind(before.to_vec()),
            Along::Tag(Tag::Best) => sql::query(BEST).bind(before.to_vec()),
            Along::Name(prefix) => {
                // No name continues a prefix with the last character there is.
                let end = format!("{prefix}{}", char::MAX);
                let walked = behind.and_then(|place| Some((place.name_key.as_ref()?, place.product)));
                let (name, id) = match walked.filter(|(name, _)| *name >= prefix) {
                    Some((name, id)) => (name.clone(), id.as_bytes().to_vec()),
                    None => (prefix.clone(), Vec::new()),
                };
                sql::query(BY_NAME).bind(name).bind(id).bind(end)
            }
        };
        let by_name = matches!(along, Along::Name(_));
        let rows = query.bind(most).fetch(&self.pool).map_err(StoreError::from);
        rows.and_then(|row| std::future::ready(sign(&row, by_name))).try_collect().await
    }

    pub async fn by_sku(&self, sku: &str) -> Result<Option<Product>, StoreError> {
        let row = sql::query(BY_SKU).bind(sku).fetch_optional(&self.pool).await?;
        row.as_ref().map(product).transpose()
    }

    /// The product that was made with this key, and the hash of what was asked for then.
    pub async fn by_key(&self, key: [u8; 16]) -> Result<Option<(Product, u64)>, StoreError> {
        let row = sql::query(BY_KEY).bind(&key[..]).fetch_optional(&self.pool).await?;
        row.as_ref().map(|row| Ok((product(row)?, row.try_get::<i64>(STOCK_AT)?.cast_unsigned()))).transpose()
    }

    /// How many are not archived.
    pub async fn count(&self) -> Result<u64, StoreError> {
        unsigned(&sql::query(COUNT).fetch_one(&self.pool).await?, 0)
    }
}

/// Writes the catalogue, one synced write at a time.
#[derive(Clone)]
pub struct ProductWriter {
    pub(super) tables: Tables,
}

impl ProductWriter {
    pub async fn insert(&self, product: &Product) -> Result<(), ProductError> {
        self.insert_keyed(product, None).await
    }

    /// The same for a request with a key: one key makes one product, and [`ProductReader::by_key`] finds it.
    pub async fn insert_keyed(&self, product: &Product, key: Option<KeyUse>) -> Result<(), ProductError> {
        self.tables.write_synced(inserting(product, key)).await.map_err(taken)?;
        Ok(())
    }

    /// All of them or none, in one transaction: for filling a store. The next checkpoint syncs them.
    pub async fn insert_all(&self, products: &[Product]) -> Result<(), ProductError> {
        let mut writer = self.tables.writer().await?;
        sql::begin(&mut writer).await.map_err(StoreError::from)?;
        let inserted = insert_each(&mut writer, products).await;
        sql::end(&mut writer, inserted).await.map_err(taken)
    }

    /// Replaces what may change, if the row still stands at `expected`. The row's version is then one more,
    /// whatever `product.version` says.
    pub async fn update(&self, product: &Product, expected: u64) -> Result<(), ProductError> {
        self.replace(sql::query(UPDATE), product, expected).await
    }

    /// The same, and from now on it was made by this key, and by no other.
    pub async fn take_over(
        &self,
        product: &Product,
        expected: u64,
        key: Option<KeyUse>,
    ) -> Result<(), ProductError> {
        let query = sql::query(TAKE_OVER)
            .bind(key.map(|used| used.key.to_vec()))
            .bind(key.map_or(0, |used| used.body.cast_signed()));
        self.replace(query, product, expected).await
    }

    async fn replace(&self, query: Query<'_>, product: &Product, expected: u64) -> Result<(), ProductError> {
        let query = query
            .bind(&product.sku)
            .bind(&product.name)
            .bind(name_key(&product.name))
            .bind(&product.description)
            .bind(&product.thumbnail_url)
            .bind(&product.image_url)
            .bind(tags_column(&product.tags))
            .bind(has(product, Tag::New))
            .bind(has(product, Tag::Best))
            .bind(i64::from(product.archived))
            .bind(product.updated_at.0)
            .bind(product.id.as_bytes().to_vec())
            .bind(signed(expected));
        let rows = self.tables.write_synced(query).await.map_err(taken)?;
        if rows == 1 { Ok(()) } else { Err(ProductError::VersionConflict) }
    }

    /// Takes the product out of all lists, for good. True if it was in them.
    pub async fn archive(&self, id: ProductId, at: Millis) -> Result<bool, StoreError> {
        let query = sql::query(ARCHIVE).bind(at.0).bind(&id.as_bytes()[..]);
        Ok(self.tables.write_synced(query).await? == 1)
    }
}

async fn insert_each(connection: &mut Connection, products: &[Product]) -> Result<(), StoreError> {
    for product in products {
        inserting(product, None).execute(&mut *connection).await?;
    }
    Ok(())
}

fn inserting(product: &Product, key: Option<KeyUse>) -> Query<'_> {
    sql::query(INSERT)
        .bind(&product.id.as_bytes()[..])
        .bind(&product.sku)
        .bind(&product.name)
        .bind(name_key(&product.name))
        .bind(&product.description)
        .bind(&product.thumbnail_url)
        .bind(&product.image_url)
        .bind(tags_column(&product.tags))
        .bind(has(product, Tag::New))
        .bind(has(product, Tag::Best))
        .bind(i64::from(product.archived))
        .bind(signed(product.version))
        .bind(product.created_at.0)
        .bind(product.updated_at.0)
        .bind(key.map(|key| key.key.to_vec()))
        .bind(key.map_or(0, |key| key.body.cast_signed()))
}

fn taken(error: StoreError) -> ProductError {
    match error {
        StoreError::Sql(error) if sql::is_duplicate(&error) => ProductError::SkuTaken,
        error => ProductError::Store(error),
    }
}

/// What a name is found by: one spelling for whatever differs in case or composition alone. Collations differ between
/// databases, so it is made here. A beginning of a name has the beginning of its key, so no letter may look at its neighbours,
/// as a sigma at the end of a word does.
pub fn name_key(name: &str) -> String {
    let mut key = String::with_capacity(name.len());
    for letter in ComposingNormalizerBorrowed::new_nfkc().normalize_iter(name.chars()) {
        match letter {
            'ς' => key.push('σ'),
            'ß' | 'ẞ' => key.push_str("ss"),
            other => key.extend(other.to_lowercase()),
        }
    }
    // Its column is as long as that. A beginning of a name still has the beginning of its key.
    if let Some((end, _)) = key.char_indices().nth(NAME_KEY_LEN_MAX) {
        key.truncate(end);
    }
    key
}

fn has(product: &Product, tag: Tag) -> i64 {
    i64::from(product.tags.iter().any(|word| word == tag.as_str()))
}

/// Commas around each tag, so that a tag is found whole.
fn tags_column(tags: &[String]) -> String {
    if tags.is_empty() { String::new() } else { format!(",{},", tags.join(",")) }
}

fn product(row: &Row) -> Result<Product, StoreError> {
    let tags: &str = row.try_get(6)?;
    Ok(Product {
        id: ProductId::from_bytes(sixteen(row, 0)?),
        sku: row.try_get(1)?,
        name: row.try_get(2)?,
        description: row.try_get(3)?,
        thumbnail_url: row.try_get(4)?,
        image_url: row.try_get(5)?,
        tags: tags.split(',').filter(|tag| !tag.is_empty()).map(str::to_owned).collect(),
        archived: row.try_get::<i64>(7)? != 0,
        version: unsigned(row, 8)?,
        created_at: Millis(row.try_get(9)?),
        updated_at: Millis(row.try_get(10)?),
    })
}

fn listing(row: &Row) -> Result<Listing, StoreError> {
    let flushed: Option<&[u8]> = row.try_get(STOCK_AT)?;
    let stock = flushed.map(|_| stock::stock(row, STOCK_AT)).transpose()?;
    Ok(Listing { product: product(row)?, stock })
}

fn sign(row: &Row, by_name: bool) -> Result<Sign, StoreError> {
    let name_key = if by_name { Some(row.try_get(1)?) } else { None };
    let flag = |column| row.try_get::<i64>(column).map(|flag| flag != 0);
    Ok(Sign {
        place: Place { product: ProductId::from_bytes(sixteen(row, 0)?), name_key },
        archived: flag(2)?,
        is_new: flag(3)?,
        is_best: flag(4)?,
        available: row.try_get(5)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persistence::Tables;
    use crate::persistence::testing::plan;

    #[test]
    fn names_that_differ_in_case_or_composition_alone_have_one_key() {
        for (one, other) in [
            ("Éclair", "e\u{301}CLAIR"),
            ("ΣΑΣ", "σας"),
            ("STRASSE", "straße"),
            ("달항아리", "\u{1103}\u{1161}\u{11af}항아리"),
            ("Ｍｏｏｎ", "moon"),
        ] {
            assert_eq!(name_key(one), name_key(other));
        }
        // The word goes on, and its beginning is still found.
        assert!(name_key("ΣΑΣΑ").starts_with(&name_key("ΣΑΣ")));
        // A name of the longest kind has a key that fits.
        assert_eq!(name_key(&"ß".repeat(200)), "s".repeat(200));
    }

    /// A step costs the same wherever it is taken if it goes along an index and nothing is sorted.
    #[tokio::test]
    async fn every_walk_goes_along_an_index() {
        let dir = tempfile::tempdir().unwrap();
        let tables = Tables::open(dir.path()).await.unwrap();
        let mut writer = tables.writer().await.unwrap();
        for sql in [BY_AGE, NEW, BEST, BY_NAME] {
            let plan = plan(&mut writer, sql).await;
            assert!(plan[0].starts_with("SEARCH p USING INDEX"), "{sql}: {plan:?}");
            assert!(plan.iter().all(|step| !step.contains("TEMP B-TREE")), "{sql}: {plan:?}");
        }
    }
}
