//! The `products` rows: what a product is called and looks like. What it costs and how many there are is `stock`.
//!
//! Rows are written by administrators, each write synced before its answer; a change names the version it is made
//! upon. A product is listed from the moment its row stands; its stock row follows with the next flush.

use std::sync::LazyLock;

use futures_util::TryStreamExt;
use sqlx::Row;
use sqlx::query::Query;
use sqlx::sqlite::{Sqlite, SqliteArguments, SqliteConnection, SqlitePool, SqliteRow};

use super::sqlite::{self, Listed, signed, sixteen, unsigned};
use super::stock::{self, Stock};
use super::{StoreError, Tables};
use crate::domain::id::ProductId;
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

/// What a list is narrowed to. Archived products are never listed.
#[derive(Debug, Clone, Default)]
pub struct ProductFilter {
    /// The beginning of the name, whatever its case.
    pub prefix: Option<String>,
    pub tag: Option<String>,
    pub available: bool,
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
macro_rules! page {
    ($prefix:literal) => {
        concat!(
            listing!(),
            "where p.archived = 0 and p.id < ?",
            $prefix,
            " and (? = 0 or instr(p.tags, ?) > 0) and (? = 0 or s.on_hand - s.held - s.sold > 0) \
             order by p.id desc limit ?"
        )
    };
}

const FIND: &str = concat!(listing!(), "where p.id = ?");
const BY_SKU: &str = concat!("select ", columns!(""), " from products where sku = ?");
const BY_KEY: &str = concat!("select ", columns!(""), ", made_of from products where made_by = ?");
const PAGE: &str = page!("");
const PAGE_BY_PREFIX: &str = page!(" and p.name_key >= ? and p.name_key < ?");
const COUNT: &str = "select count(*) from products where archived = 0";
static FIND_MANY: LazyLock<Listed> =
    LazyLock::new(|| Listed::new(concat!(listing!(), "where p.id in ("), "?", ")"));
const INSERT: &str = "insert into products (id, sku, name, name_key, description, thumbnail_url, image_url, tags, \
    archived, version, created_at_ms, updated_at_ms, made_by, made_of) \
    values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
const UPDATE: &str = "update products set sku = ?, name = ?, name_key = ?, description = ?, thumbnail_url = ?, \
    image_url = ?, tags = ?, archived = ?, updated_at_ms = ?, version = version + 1 where id = ? and version = ?";
const ARCHIVE: &str = "update products set archived = 1, updated_at_ms = ?, version = version + 1 \
    where id = ? and archived = 0";

/// Where the columns of the stock row, or of the key, begin behind those of a product.
const STOCK_AT: usize = 11;

/// Reads the catalogue. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ProductReader {
    pub(super) pool: SqlitePool,
}

impl ProductReader {
    pub async fn find(&self, id: ProductId) -> Result<Option<Listing>, StoreError> {
        let row = sqlx::query(FIND).bind(&id.as_bytes()[..]).fetch_optional(&self.pool).await?;
        row.as_ref().map(listing).transpose()
    }

    /// Those of `ids` that exist, in no order that means anything.
    pub async fn find_many(&self, ids: &[ProductId]) -> Result<Vec<Listing>, StoreError> {
        let mut found = Vec::with_capacity(ids.len());
        for (sql, piece) in FIND_MANY.cut(ids) {
            let query = piece.iter().fold(sqlx::query(sql), |query, id| query.bind(&id.as_bytes()[..]));
            for row in query.fetch_all(&self.pool).await? {
                found.push(listing(&row)?);
            }
        }
        Ok(found)
    }

    /// Products made before `before`, newest first.
    pub async fn list(
        &self,
        filter: &ProductFilter,
        before: Option<ProductId>,
        limit: u32,
    ) -> Result<Vec<Listing>, StoreError> {
        let before = before.unwrap_or(ProductId::from_bytes([0xff; 16]));
        let sql = if filter.prefix.is_some() { PAGE_BY_PREFIX } else { PAGE };
        let mut page = sqlx::query(sql).bind(before.as_bytes().to_vec());
        if let Some(prefix) = &filter.prefix {
            let from = name_key(prefix);
            // No name continues a prefix with the last character there is.
            let to = format!("{from}{}", char::MAX);
            page = page.bind(from).bind(to);
        }
        let tag = filter.tag.as_ref().map(|tag| format!(",{tag},"));
        let page = page
            .bind(i64::from(tag.is_some()))
            .bind(tag.unwrap_or_default())
            .bind(i64::from(filter.available))
            .bind(limit);
        let rows = page.fetch(&self.pool).map_err(StoreError::from);
        rows.and_then(|row| std::future::ready(listing(&row))).try_collect().await
    }

    pub async fn by_sku(&self, sku: &str) -> Result<Option<Product>, StoreError> {
        let row = sqlx::query(BY_SKU).bind(sku).fetch_optional(&self.pool).await?;
        row.as_ref().map(product).transpose()
    }

    /// The product that was made with this key, and the hash of what was asked for then.
    pub async fn by_key(&self, key: [u8; 16]) -> Result<Option<(Product, u64)>, StoreError> {
        let row = sqlx::query(BY_KEY).bind(&key[..]).fetch_optional(&self.pool).await?;
        row.as_ref()
            .map(|row| Ok((product(row)?, row.try_get::<i64, _>(STOCK_AT)?.cast_unsigned())))
            .transpose()
    }

    /// How many are not archived.
    pub async fn count(&self) -> Result<u64, StoreError> {
        unsigned(&sqlx::query(COUNT).fetch_one(&self.pool).await?, 0)
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
        sqlite::begin(&mut writer).await.map_err(StoreError::from)?;
        let inserted = insert_each(&mut writer, products).await;
        sqlite::end(&mut writer, inserted).await.map_err(taken)
    }

    /// Replaces what may change, if the row still stands at `expected`. The row's version is then one more,
    /// whatever `product.version` says.
    pub async fn update(&self, product: &Product, expected: u64) -> Result<(), ProductError> {
        let query = sqlx::query(UPDATE)
            .bind(&product.sku)
            .bind(&product.name)
            .bind(name_key(&product.name))
            .bind(&product.description)
            .bind(&product.thumbnail_url)
            .bind(&product.image_url)
            .bind(tags_column(&product.tags))
            .bind(i64::from(product.archived))
            .bind(product.updated_at.0)
            .bind(&product.id.as_bytes()[..])
            .bind(signed(expected));
        let rows = self.tables.write_synced(query).await.map_err(taken)?;
        if rows == 1 { Ok(()) } else { Err(ProductError::VersionConflict) }
    }

    /// Takes the product out of all lists, for good. True if it was in them.
    pub async fn archive(&self, id: ProductId, at: Millis) -> Result<bool, StoreError> {
        let query = sqlx::query(ARCHIVE).bind(at.0).bind(&id.as_bytes()[..]);
        Ok(self.tables.write_synced(query).await? == 1)
    }
}

async fn insert_each(connection: &mut SqliteConnection, products: &[Product]) -> Result<(), StoreError> {
    for product in products {
        inserting(product, None).execute(&mut *connection).await?;
    }
    Ok(())
}

fn inserting(product: &Product, key: Option<KeyUse>) -> Query<'_, Sqlite, SqliteArguments> {
    sqlx::query(INSERT)
        .bind(&product.id.as_bytes()[..])
        .bind(&product.sku)
        .bind(&product.name)
        .bind(name_key(&product.name))
        .bind(&product.description)
        .bind(&product.thumbnail_url)
        .bind(&product.image_url)
        .bind(tags_column(&product.tags))
        .bind(i64::from(product.archived))
        .bind(signed(product.version))
        .bind(product.created_at.0)
        .bind(product.updated_at.0)
        .bind(key.map(|key| key.key.to_vec()))
        .bind(key.map_or(0, |key| key.body.cast_signed()))
}

fn taken(error: StoreError) -> ProductError {
    match error {
        StoreError::Sql(sqlx::Error::Database(error)) if error.is_unique_violation() => {
            ProductError::SkuTaken
        }
        error => ProductError::Store(error),
    }
}

/// What a name is found by. Collations differ between databases, so the case is folded here.
fn name_key(name: &str) -> String {
    name.to_lowercase()
}

/// Commas around each tag, so that a tag is found whole.
fn tags_column(tags: &[String]) -> String {
    if tags.is_empty() { String::new() } else { format!(",{},", tags.join(",")) }
}

fn product(row: &SqliteRow) -> Result<Product, StoreError> {
    let tags: &str = row.try_get(6)?;
    Ok(Product {
        id: ProductId::from_bytes(sixteen(row, 0)?),
        sku: row.try_get(1)?,
        name: row.try_get(2)?,
        description: row.try_get(3)?,
        thumbnail_url: row.try_get(4)?,
        image_url: row.try_get(5)?,
        tags: tags.split(',').filter(|tag| !tag.is_empty()).map(str::to_owned).collect(),
        archived: row.try_get::<i64, _>(7)? != 0,
        version: unsigned(row, 8)?,
        created_at: Millis(row.try_get(9)?),
        updated_at: Millis(row.try_get(10)?),
    })
}

fn listing(row: &SqliteRow) -> Result<Listing, StoreError> {
    let flushed: Option<&[u8]> = row.try_get(STOCK_AT)?;
    let stock = flushed.map(|_| stock::stock(row, STOCK_AT)).transpose()?;
    Ok(Listing { product: product(row)?, stock })
}
