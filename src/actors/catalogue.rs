//! The catalogue: what products are called and look like, and how they come and go.
//!
//! It owns the cached texts. A text is written to its row, a price and a stock to the product's ledger; a product is
//! there when both are. Always true: a cached text is the row's, for a change replaces it before it is answered; and who asks for
//! a change stands in the trail before it is made. What it came to, the product's own history tells.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use moka::sync::Cache;
use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64;

use crate::actors::stock::{Answer, Directory, NotDone, View};
use crate::clock::Clock;
use crate::domain::id::{ProductId, UserId};
use crate::domain::stock::{Command, KeyUse, Refusal, Refused, Restock, Sequence, Settings};
use crate::domain::trail::{Deed, Record};
use crate::persistence::product::{
    Listing, Product, ProductError, ProductFilter, ProductReader, ProductWriter,
};
use crate::persistence::trail::Trail;

/// Texts that stay in memory.
const TEXTS_MAX: u64 = 20_000;
/// A row without a ledger that is older than this was left behind by a failure; whoever needs its sku takes it over.
const LEFT_BEHIND_MS: i64 = 10_000;

/// A product's row.
pub type Text = Product;

/// What a product is called and looks like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Words {
    pub sku: String,
    pub name: String,
    pub description: String,
    pub thumbnail_url: Option<String>,
    pub image_url: Option<String>,
    pub tags: Vec<String>,
}

/// A product to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NewProduct {
    pub words: Words,
    pub settings: Settings,
    pub stock: u64,
}

/// A product as it shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub words: Words,
    pub settings: Settings,
}

/// A product that is there now, and whether its key had made it before.
#[derive(Debug, Clone)]
pub struct Made {
    pub text: Arc<Text>,
    pub replayed: bool,
}

/// One product of a list. The view of a product that nobody has bought of late is at most one flush old.
#[derive(Debug, Clone)]
pub struct Found {
    pub text: Text,
    pub view: Arc<View>,
}

/// What is searched for.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// These and no others, in no order that means anything.
    pub ids: Option<Vec<ProductId>>,
    pub filter: ProductFilter,
    pub before: Option<ProductId>,
    pub limit: u32,
}

/// One state of a product's text and settings, as a number to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edition(pub u64);

/// Why the catalogue is as it was.
#[derive(Debug, thiserror::Error)]
pub enum NotChanged {
    #[error("no such product")]
    NoProduct,
    #[error("another product has this sku")]
    SkuTaken,
    #[error("the key belongs to another request")]
    KeyReused,
    #[error("the product is not what the change was made upon")]
    Stale,
    #[error(transparent)]
    NotDone(#[from] NotDone),
}

impl From<ProductError> for NotChanged {
    fn from(error: ProductError) -> NotChanged {
        match error {
            ProductError::SkuTaken => NotChanged::SkuTaken,
            ProductError::VersionConflict => NotChanged::Stale,
            ProductError::Store(error) => unknown(error).into(),
        }
    }
}

/// A write that failed may have happened.
fn unknown(error: impl std::fmt::Display) -> NotDone {
    tracing::error!(%error, "a product could not be written");
    NotDone::Unknown
}

fn unread(error: impl std::fmt::Display) -> NotDone {
    tracing::error!(%error, "a product could not be read");
    NotDone::Unavailable
}

impl Words {
    pub fn of(text: &Text) -> Words {
        Words {
            sku: text.sku.clone(),
            name: text.name.clone(),
            description: text.description.clone(),
            thumbnail_url: text.thumbnail_url.clone(),
            image_url: text.image_url.clone(),
            tags: text.tags.clone(),
        }
    }

    /// `text` with these words.
    fn into_text(self, text: Text) -> Text {
        let Words { sku, name, description, thumbnail_url, image_url, tags } = self;
        Text { sku, name, description, thumbnail_url, image_url, tags, ..text }
    }
}

impl NewProduct {
    /// Equal for equal products, and for no others.
    pub fn canonical(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

impl Edition {
    pub fn of(text: &Text, settings: &Settings) -> Edition {
        let said = serde_json::to_vec(&(text.version, settings)).unwrap_or_default();
        Edition(xxh3_64(&said))
    }
}

/// Finds and changes products. Cheap to clone.
#[derive(Clone)]
pub struct Catalogue(Arc<Inner>);

struct Inner {
    reader: ProductReader,
    writer: ProductWriter,
    directory: Directory,
    trail: Trail,
    clock: Clock,
    texts: Cache<ProductId, Arc<Text>>,
    /// Counts changes: a row that was read while one happened is not cached.
    changes: AtomicU64,
}

impl Catalogue {
    pub fn new(
        reader: ProductReader,
        writer: ProductWriter,
        directory: Directory,
        trail: Trail,
        clock: Clock,
    ) -> Catalogue {
        let (texts, changes) = (Cache::new(TEXTS_MAX), AtomicU64::new(0));
        Catalogue(Arc::new(Inner { reader, writer, directory, trail, clock, texts, changes }))
    }

    /// The product's row: from memory if it was asked for before.
    pub async fn text(&self, product: ProductId) -> Result<Option<Arc<Text>>, NotDone> {
        match self.0.texts.get(&product) {
            Some(text) => Ok(Some(text)),
            // Rare, and large: every answer would carry the room for it.
            None => Box::pin(self.read_text(product)).await,
        }
    }

    async fn read_text(&self, product: ProductId) -> Result<Option<Arc<Text>>, NotDone> {
        let before = self.0.changes.load(Ordering::Acquire);
        let Some(listing) = self.0.reader.find(product).await.map_err(unread)? else { return Ok(None) };
        let text = Arc::new(listing.product);
        self.0.texts.insert(product, text.clone());
        if self.0.changes.load(Ordering::Acquire) != before {
            self.0.texts.invalidate(&product);
        }
        Ok(Some(text))
    }

    /// Products that fit, newest first: fewer than `limit` only if there are no more.
    pub async fn search(&self, search: Search) -> Result<Vec<Found>, NotDone> {
        let Search { ids, filter, mut before, limit } = search;
        if let Some(ids) = ids {
            return self.with_views(self.some_of(&ids, &filter, before, limit).await?).await;
        }
        let mut found = Vec::with_capacity(limit as usize);
        loop {
            let lacking = limit.saturating_sub(found.len() as u32);
            let listings = self.0.reader.list(&filter, before, lacking).await.map_err(unread)?;
            let is_last = listings.len() < lacking as usize;
            before = listings.last().map(|listing| listing.product.id);
            found.extend(self.with_views(listings).await?);
            if is_last || found.len() >= limit as usize {
                return Ok(found);
            }
        }
    }

    /// These products, archived ones too, in no order that means anything: from memory where they are there.
    pub async fn some(&self, ids: &[ProductId]) -> Result<Vec<Found>, NotDone> {
        let (mut found, mut cold) = (Vec::with_capacity(ids.len()), Vec::new());
        for id in ids {
            match (self.0.texts.get(id), self.0.directory.peek(*id)) {
                (Some(text), Some(view)) => found.push(Found { text: Text::clone(&text), view }),
                _ => cold.push(*id),
            }
        }
        if !cold.is_empty() {
            let listings = self.0.reader.find_many(&cold).await.map_err(unread)?;
            found.extend(self.with_views(listings).await?);
        }
        Ok(found)
    }

    /// A row without a ledger is a product that is being made: it is not shown.
    async fn with_views(&self, listings: Vec<Listing>) -> Result<Vec<Found>, NotDone> {
        let mut found = Vec::with_capacity(listings.len());
        for listing in listings {
            if let Some(view) = self.view_of(&listing).await? {
                found.push(Found { text: listing.product, view });
            }
        }
        Ok(found)
    }

    async fn some_of(
        &self,
        ids: &[ProductId],
        filter: &ProductFilter,
        before: Option<ProductId>,
        limit: u32,
    ) -> Result<Vec<Listing>, NotDone> {
        let mut listings = self.0.reader.find_many(ids).await.map_err(unread)?;
        let prefix = filter.prefix.as_ref().map(|prefix| prefix.to_lowercase());
        listings.retain(|Listing { product, stock }| {
            !product.archived
                && before.is_none_or(|before| product.id < before)
                && prefix.as_ref().is_none_or(|prefix| product.name.to_lowercase().starts_with(prefix))
                && filter.tag.as_ref().is_none_or(|tag| product.tags.contains(tag))
                && (!filter.available || stock.as_ref().is_some_and(|stock| stock.counts.available() > 0))
        });
        listings.sort_by_key(|listing| std::cmp::Reverse(listing.product.id));
        listings.dedup_by_key(|listing| listing.product.id);
        listings.truncate(limit as usize);
        Ok(listings)
    }

    async fn view_of(&self, listing: &Listing) -> Result<Option<Arc<View>>, NotDone> {
        let product = listing.product.id;
        if let Some(view) = self.0.directory.peek(product) {
            return Ok(Some(view));
        }
        match &listing.stock {
            Some(stock) => Ok(Some(Arc::new(View {
                sequence: stock.sequence,
                counts: stock.counts,
                settings: Arc::new(stock.settings.clone()),
                paused: stock.paused,
                archived: stock.archived,
                as_of: stock.updated_at,
            }))),
            None => self.ledger_of(product).await,
        }
    }

    /// The owner's view, if the product has a ledger.
    async fn ledger_of(&self, product: ProductId) -> Result<Option<Arc<View>>, NotDone> {
        match self.0.directory.view(product).await {
            Ok(view) => Ok(Some(view)),
            Err(NotDone::Refused { refused: Refused { why: Refusal::NoProduct, .. }, .. }) => Ok(None),
            Err(why) => Err(why),
        }
    }

    /// Makes a product: its row, then its ledger. The same key finds what it made before, and finishes it.
    pub async fn create(
        &self,
        admin: UserId,
        new: NewProduct,
        key: Option<KeyUse>,
    ) -> Result<Made, NotChanged> {
        if let Some(made) = self.made_before(admin, &new, key).await? {
            return Ok(made);
        }
        let (now, chance) = (self.0.clock.now(), self.0.clock.chance());
        let text = new.words.clone().into_text(Text {
            id: ProductId::new(now, chance),
            sku: String::new(),
            name: String::new(),
            description: String::new(),
            thumbnail_url: None,
            image_url: None,
            tags: Vec::new(),
            archived: false,
            version: 1,
            created_at: now,
            updated_at: now,
        });
        match self.0.writer.insert_keyed(&text, key).await {
            Ok(()) => self.begin(admin, text, &new, false).await,
            // Somebody was faster: another request with this key, or another product with this sku.
            Err(ProductError::SkuTaken) => match self.made_before(admin, &new, key).await? {
                Some(made) => Ok(made),
                None => self.take_over(admin, &new).await,
            },
            Err(error) => Err(error.into()),
        }
    }

    async fn made_before(
        &self,
        admin: UserId,
        new: &NewProduct,
        key: Option<KeyUse>,
    ) -> Result<Option<Made>, NotChanged> {
        let Some(KeyUse { key, body }) = key else { return Ok(None) };
        match self.0.reader.by_key(key).await.map_err(unread)? {
            None => Ok(None),
            Some((_, first)) if first != body => Err(NotChanged::KeyReused),
            Some((text, _)) => self.begin(admin, text, new, true).await.map(Some),
        }
    }

    /// Takes over a row that never got a ledger.
    async fn take_over(&self, admin: UserId, new: &NewProduct) -> Result<Made, NotChanged> {
        let left = self.0.reader.by_sku(&new.words.sku).await.map_err(unread)?.ok_or(NotChanged::SkuTaken)?;
        let now = self.0.clock.now();
        if left.updated_at.plus(LEFT_BEHIND_MS) > now || self.ledger_of(left.id).await?.is_some() {
            return Err(NotChanged::SkuTaken);
        }
        let version = left.version;
        let text = new.words.clone().into_text(Text { updated_at: now, version: version + 1, ..left });
        self.0.writer.update(&text, version).await.map_err(|_| NotChanged::SkuTaken)?;
        self.begin(admin, text, new, false).await
    }

    /// The second step: the product's ledger. One that is there already was made by this very request before.
    async fn begin(
        &self,
        admin: UserId,
        text: Text,
        new: &NewProduct,
        replayed: bool,
    ) -> Result<Made, NotChanged> {
        let made = self.record(Deed::ProductMade, admin, text.id);
        let units = i64::try_from(new.stock).unwrap_or(i64::MAX);
        self.asked(made.number("stock", units).number("price_minor", new.settings.price.amount)).await?;
        let create = Command::Create { settings: new.settings.clone(), stock: new.stock };
        match self.0.directory.ask(text.id, create).await {
            Ok(_) | Err(NotDone::Refused { refused: Refused { why: Refusal::ProductExists, .. }, .. }) => {}
            Err(why) => return Err(why.into()),
        }
        let text = Arc::new(text);
        self.remember(text.clone());
        Ok(Made { text, replayed })
    }

    /// Changes text and settings together, if the product is still one of the `expected` editions (`None`: any).
    pub async fn change(
        &self,
        admin: UserId,
        text: &Text,
        settings: &Settings,
        expected: Option<&[Edition]>,
        change: Change,
    ) -> Result<Arc<Text>, NotChanged> {
        let product = text.id;
        if text.archived {
            let refused = Refused { at: Sequence(0), why: Refusal::Archived };
            return Err(NotDone::Refused { product, refused }.into());
        }
        if expected.is_some_and(|editions| !editions.contains(&Edition::of(text, settings))) {
            return Err(NotChanged::Stale);
        }
        self.asked(self.record_of_change(admin, product, settings, &change.settings)).await?;
        let next = Text { updated_at: self.0.clock.now(), version: text.version + 1, ..text.clone() };
        let next = Arc::new(change.words.into_text(next));
        if let Err(error) = self.0.writer.update(&next, text.version).await {
            self.forget(product);
            return Err(error.into());
        }
        self.remember(next.clone());
        if change.settings != *settings {
            let configure = Command::Configure(change.settings);
            self.0.directory.ask(product, configure).await.map_err(|why| match why {
                NotDone::Refused { .. } => why,
                // The text has changed already: half of it may stand.
                _ => NotDone::Unknown,
            })?;
        }
        Ok(next)
    }

    /// Takes a product off sale and out of the lists, for good.
    pub async fn archive(&self, admin: UserId, product: ProductId) -> Result<(), NotChanged> {
        self.tell(self.record(Deed::ProductArchived, admin, product), product, Command::Archive).await?;
        let archived = self.0.writer.archive(product, self.0.clock.now()).await;
        self.forget(product);
        archived.map_err(unknown)?;
        Ok(())
    }

    /// Adds units to a product, or takes some away.
    pub async fn restock(
        &self,
        admin: UserId,
        product: ProductId,
        restock: Restock,
    ) -> Result<Answer, NotChanged> {
        let record = self.record(Deed::StockChanged, admin, product).number("delta", restock.delta);
        self.tell(record, product, Command::Restock(restock)).await
    }

    pub async fn pause(&self, admin: UserId, product: ProductId) -> Result<Answer, NotChanged> {
        self.tell(self.record(Deed::SalePaused, admin, product), product, Command::Pause).await
    }

    pub async fn resume(&self, admin: UserId, product: ProductId) -> Result<Answer, NotChanged> {
        self.tell(self.record(Deed::SaleResumed, admin, product), product, Command::Resume).await
    }

    /// Writes down who asked, and tells the owner of a product that there is.
    async fn tell(&self, record: Record, product: ProductId, command: Command) -> Result<Answer, NotChanged> {
        self.text(product).await?.ok_or(NotChanged::NoProduct)?;
        self.asked(record).await?;
        Ok(self.0.directory.ask(product, command).await?)
    }

    fn record(&self, deed: Deed, admin: UserId, product: ProductId) -> Record {
        Record::new(deed, self.0.clock.now()).by(admin).on(product)
    }

    fn record_of_change(&self, admin: UserId, product: ProductId, from: &Settings, to: &Settings) -> Record {
        if from.price == to.price {
            return self.record(Deed::ProductChanged, admin, product);
        }
        let record = self.record(Deed::PriceChanged, admin, product);
        record.number("from_minor", from.price.amount).number("to_minor", to.price.amount)
    }

    /// On disk before anything is done: a change by hand that nobody can be named for is not made.
    async fn asked(&self, record: Record) -> Result<(), NotDone> {
        self.0.trail.append(&record).await.map_err(|error| {
            tracing::error!(%error, "the trail could not be written: nothing is changed by hand");
            NotDone::Unavailable
        })
    }

    fn remember(&self, text: Arc<Text>) {
        self.0.changes.fetch_add(1, Ordering::AcqRel);
        self.0.texts.insert(text.id, text);
    }

    fn forget(&self, product: ProductId) {
        self.0.changes.fetch_add(1, Ordering::AcqRel);
        self.0.texts.invalidate(&product);
    }
}
