//! The catalogue: what products are called and look like, and how they come and go.
//!
//! It owns the cached texts, and which of them stand on the pages of a list. A text is written to its row, a price and a stock to
//! the product's ledger; a product is there when both are. Always true: a cached text is the row's, for a change replaces it before
//! it is answered, and makes every page of a list old; and who asks for a change stands in the trail before it is made. What it
//! came to, the product's own history tells.

mod search;
mod turn;

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashMap;
use moka::sync::Cache;
use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64;

use crate::actors::stock::{Answer, Directory, NotDone, View, to_the_end};
use crate::clock::Clock;
use crate::domain::id::{ProductId, UserId};
use crate::domain::stock::{Command, KeyUse, Refusal, Refused, Restock, Sequence, Settings};
use crate::domain::trail::{Deed, Record};
use crate::persistence::product::{Product, ProductError, ProductReader, ProductWriter};
use crate::persistence::trail::Trail;
use search::Pages;
use turn::Turns;

pub use search::{Found, Search, Shelf};
pub use turn::Turn;

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

/// Texts that a thread keeps for itself.
const NEAR_MAX: usize = 64;

/// Texts of one catalogue as a thread knows them. It counts its own readers of them: one counter for all threads would
/// go back and forth between them with every order.
#[derive(Default)]
struct Near {
    /// The catalogue, and how many changes it had seen.
    as_of: (u64, u64),
    texts: HashMap<ProductId, Arc<Text>>,
}

thread_local! {
    static NEAR: RefCell<Near> = RefCell::default();
}

static NUMBERS: AtomicU64 = AtomicU64::new(1);

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
    pages: Pages,
    turns: Turns,
    /// Tells the catalogues of one process apart.
    number: u64,
    /// Counts changes: what was read while one happened is not cached.
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
        Catalogue(Arc::new(Inner {
            reader,
            writer,
            directory,
            trail,
            clock,
            texts: Cache::new(TEXTS_MAX),
            pages: Pages::default(),
            turns: Turns::default(),
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            changes: AtomicU64::new(0),
        }))
    }

    /// The product's row: from memory if it was asked for before.
    pub async fn text(&self, product: ProductId) -> Result<Option<Arc<Text>>, NotDone> {
        match self.near(product) {
            Some(text) => Ok(Some(text)),
            // Rare, and large: every answer would carry the room for it.
            None => Box::pin(self.read_text(product)).await,
        }
    }

    /// The text as this thread knows it, or from the memory of all.
    fn near(&self, product: ProductId) -> Option<Arc<Text>> {
        let as_of = (self.0.number, self.0.changes.load(Ordering::Acquire));
        NEAR.with_borrow_mut(|near| {
            if near.as_of != as_of || near.texts.len() > NEAR_MAX {
                *near = Near { as_of, texts: HashMap::new() };
            }
            if let Some(text) = near.texts.get(&product) {
                return Some(text.clone());
            }
            let text = Arc::new(Text::clone(&*self.0.texts.get(&product)?));
            near.texts.insert(product, text.clone());
            Some(text)
        })
    }

    /// The product's row as it stands: for whoever is about to change it.
    pub async fn read_text(&self, product: ProductId) -> Result<Option<Arc<Text>>, NotDone> {
        let before = self.0.changes.load(Ordering::Acquire);
        let Some(listing) = self.0.reader.find(product).await.map_err(unread)? else { return Ok(None) };
        Ok(Some(self.keep_read(listing.product, before)))
    }

    /// Remembers a text that was read when the catalogue had changed so often, unless it has changed since.
    fn keep_read(&self, text: Text, before: u64) -> Arc<Text> {
        let text = Arc::new(text);
        self.0.texts.insert(text.id, text.clone());
        if self.0.changes.load(Ordering::Acquire) != before {
            self.forget(text.id);
        }
        text
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
                None => {
                    let catalogue = self.clone();
                    to_the_end(async move { catalogue.take_over(admin, new, key).await }).await
                }
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

    /// Takes over a row that never got a ledger. Whoever had begun it with a key of his own finds nothing by it any more.
    async fn take_over(
        &self,
        admin: UserId,
        new: NewProduct,
        key: Option<KeyUse>,
    ) -> Result<Made, NotChanged> {
        let left = self.0.reader.by_sku(&new.words.sku).await.map_err(unread)?.ok_or(NotChanged::SkuTaken)?;
        let now = self.0.clock.now();
        if left.updated_at.plus(LEFT_BEHIND_MS) > now || self.ledger_of(left.id).await?.is_some() {
            return Err(NotChanged::SkuTaken);
        }
        let _turn = self.turn(left.id).await?;
        let version = left.version;
        let text =
            new.words.clone().into_text(Text { updated_at: now, version: version + 1, ..left.clone() });
        self.0.writer.take_over(&text, version, key).await.map_err(|error| match error {
            // Somebody was faster.
            ProductError::SkuTaken | ProductError::VersionConflict => NotChanged::SkuTaken,
            ProductError::Store(error) => unknown(error).into(),
        })?;
        let made = self.begin(admin, text, &new, false).await?;
        if made.replayed {
            // Whoever had left it behind came back in this moment: it is his, and has his words again.
            let _changing = self.changing(left.id);
            self.0.writer.take_over(&left, version + 1, None).await.map_err(unknown)?;
            return Err(NotChanged::SkuTaken);
        }
        Ok(made)
    }

    /// The second step: the product's ledger. One that is there already counts as made before.
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
        let _changing = self.changing(text.id);
        let stood_before = match self.0.directory.ask(text.id, create).await {
            Ok(_) => false,
            Err(NotDone::Refused { refused: Refused { why: Refusal::ProductExists, .. }, .. }) => true,
            Err(why) => return Err(why.into()),
        };
        Ok(Made { text: Arc::new(text), replayed: replayed || stood_before })
    }

    /// Taken before a product is read in order to be changed.
    pub async fn turn(&self, product: ProductId) -> Result<Turn, NotDone> {
        self.0.turns.of(product).await
    }

    /// Changes text and settings together, as they were read in this turn, if that is one of the `expected` editions (`None`: any).
    /// The turn comes back with what was made of it.
    pub async fn change(
        &self,
        turn: Turn,
        admin: UserId,
        text: &Text,
        settings: &Settings,
        expected: Option<&[Edition]>,
        change: Change,
    ) -> Result<(Arc<Text>, Turn), NotChanged> {
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
        let configure = (change.settings != *settings).then_some(Command::Configure(change.settings));
        let (catalogue, from) = (self.clone(), text.version);
        let changing = async move {
            let text = catalogue.write_change(next, from, configure).await?;
            Ok((text, turn))
        };
        to_the_end(changing).await
    }

    /// The text, then the settings.
    async fn write_change(
        &self,
        next: Arc<Text>,
        from: u64,
        configure: Option<Command>,
    ) -> Result<Arc<Text>, NotChanged> {
        {
            let _changing = self.changing(next.id);
            self.0.writer.update(&next, from).await?;
        }
        if let Some(configure) = configure {
            self.0.directory.ask(next.id, configure).await.map_err(|why| match why {
                NotDone::Refused { .. } => why,
                // The text has changed already: half of it may stand.
                _ => NotDone::Unknown,
            })?;
        }
        Ok(next)
    }

    /// Takes a product off sale and out of the lists, for good.
    pub async fn archive(&self, admin: UserId, product: ProductId) -> Result<(), NotChanged> {
        let (catalogue, record) = (self.clone(), self.record(Deed::ProductArchived, admin, product));
        to_the_end(async move {
            let _turn = catalogue.turn(product).await?;
            catalogue.tell(record, product, Command::Archive).await?;
            let _changing = catalogue.changing(product);
            catalogue.0.writer.archive(product, catalogue.0.clock.now()).await.map_err(unknown)?;
            Ok(())
        })
        .await
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

    fn changing(&self, product: ProductId) -> Changing<'_> {
        Changing { catalogue: self, product }
    }

    fn forget(&self, product: ProductId) {
        self.0.changes.fetch_add(1, Ordering::AcqRel);
        self.0.texts.invalidate(&product);
        // Once more: a thread may have taken the old one in between.
        self.0.changes.fetch_add(1, Ordering::AcqRel);
    }
}

/// A text that is being changed: it is forgotten at the end, whatever that is, because of two who change it the slower may have the
/// older.
struct Changing<'c> {
    catalogue: &'c Catalogue,
    product: ProductId,
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.catalogue.forget(self.product);
    }
}

#[cfg(test)]
mod tests {
    use sqlx::ConnectOptions;
    use sqlx::sqlite::SqliteConnectOptions;

    use super::*;
    use crate::actors::stock::Route;
    use crate::actors::stock::testing::{OneJournal, all_shards, buyer, node, product, settings};
    use crate::domain::stock::Millis;
    use crate::persistence::testing::Home::Sqlite;

    #[actix::test]
    async fn whoever_takes_over_what_was_left_behind_is_told_when_nobody_knows_whether_he_has() {
        let (dir, tables) = Sqlite.tables().await;
        let (net, journal, clock) = (Arc::default(), OneJournal::default(), Clock::start());
        let owners = node(&net, &journal, &clock, 1, 1).await;
        owners.settle(&all_shards(), Route::Here).await;
        let (reader, writer) = (tables.products(), tables.product_writer());
        // A row that never got a ledger.
        let left = Text {
            id: product(1),
            sku: "JAR".to_owned(),
            name: "Jar".to_owned(),
            description: String::new(),
            thumbnail_url: None,
            image_url: None,
            tags: Vec::new(),
            archived: false,
            version: 1,
            created_at: Millis(1),
            updated_at: Millis(1),
        };
        writer.insert(&left).await.unwrap();
        let catalogue = Catalogue::new(reader, writer, owners, tables.trail(), clock);
        let rule = async |sql: &'static str| {
            let file = SqliteConnectOptions::new().filename(dir.path().join("shop.db"));
            sqlx::raw_sql(sql).execute(&mut file.connect().await.unwrap()).await.unwrap();
        };
        let new = NewProduct { words: Words::of(&left), settings: settings(), stock: 5 };
        let make = async || catalogue.create(buyer(1), new.clone(), None).await;

        rule("create trigger stubborn before update on products begin select raise(abort, 'no'); end").await;
        let told = make().await;
        assert!(matches!(told, Err(NotChanged::NotDone(NotDone::Unknown))), "{told:?}");
        rule("drop trigger stubborn").await;
        let made = make().await.unwrap();
        assert_eq!((made.text.id, made.replayed), (left.id, false));
    }
}
