//! Stores filled, brought up to date and looked through while the server is stopped.
//!
//! It goes through the same two files as the engine: a product's text into the tables, its birth into the journal, and from
//! there into the tables by the flush. The journal's lock keeps it off a store that is being served.

use anyhow::{Context, Result, bail, ensure};
use futures_util::future::join_all;
use secrecy::ExposeSecret;
use tokio::sync::oneshot;

use crate::actors::passwords::Passwords;
use crate::actors::payment::{self, Reconciled};
use crate::actors::user;
use crate::app::{self, Store};
use crate::clock::Clock;
use crate::config::Config;
use crate::domain::amount::{Currency, Money};
use crate::domain::id::{ProductId, UserId};
use crate::domain::stock::{
    ChainHash, Created, Entry, Epoch, Event, HOLD_MS_DEFAULT, Millis, ON_HAND_MAX, Sequence, Settings,
};
use crate::domain::user::{Email, NewPassword};
use crate::persistence::Tables;
use crate::persistence::audit::{self, Report, Stopped};
use crate::persistence::flush::Flusher;
use crate::persistence::journal::{self, Append, AppendTo, Appended, INBOX_MAX};
use crate::persistence::product::Product;
use crate::persistence::redis::Redis;
use crate::persistence::trail::Mark;
use crate::persistence::user::UserError;
use crate::provider::Books;
use crate::telemetry::Metrics;
use crate::vault::Vault;

/// The most products one call makes.
const PRODUCTS_MAX: u64 = 5_000_000;
/// Products in one transaction of the tables, and in flight at the journal.
const CHUNK: u64 = INBOX_MAX as u64 / 2;
/// What a seeded product costs, in won.
const PRICE: i64 = 19_900;
/// The first of the users who come to a seeded shop was born at this time; each next one a millisecond later.
const FIRST_USER_AT: i64 = 1_700_000_000_000;

/// What `stockade seed` was asked for.
#[derive(Debug, Clone)]
pub struct Plan {
    pub products: u64,
    pub stock: u64,
    pub hold_ms: Option<u32>,
    pub per_customer_limit: Option<u32>,
}

/// A product that does not exist yet.
#[derive(Debug, Clone)]
pub struct Goods {
    pub product: Product,
    pub settings: Settings,
    pub stock: u64,
}

/// The how-manieth person who comes to a seeded shop, always the same one; 0 is its administrator.
pub fn seed_user(number: u64) -> UserId {
    let at = FIRST_USER_AT.saturating_add(i64::try_from(number).unwrap_or(i64::MAX));
    UserId::new(Millis(at), xxhash_rust::xxh3::xxh3_128(&number.to_le_bytes()))
}

/// Creates the store, or brings it up to this version. In a database that is its tables, beside nodes that sell: what stands in them is
/// the lead's.
pub async fn prepare(config: &Config) -> Result<()> {
    if let Some(url) = &config.store.database_url {
        return Ok(Tables::connect(url.expose_secret()).await?.close().await?);
    }
    let store = Store::open(config, &Clock::start()).await?;
    let done = flush(&store).await;
    store.close().await;
    done
}

/// Brings the tables up to date with the journal.
pub async fn flush(store: &Store) -> Result<()> {
    let mut flusher = Flusher::open(&store.journal, &store.tables).await?;
    while flusher.run_slice().await.context("the tables could not be brought up to date")?.events > 0 {}
    Ok(())
}

/// Makes an administrator of a stopped shop.
pub async fn make_admin(
    config: &Config,
    clock: &Clock,
    email: Email,
    password: NewPassword,
) -> Result<UserId> {
    let passwords = Passwords::start(1, app::breached(config)?, clock, Metrics::global())?;
    // One that is refused opens nothing.
    let hash = passwords.hash_new(password).await?;
    let vault = app::vault(config, clock)?;
    let store = Store::open(config, clock).await?;
    let making = async {
        app::opens_accounts(&vault, &store.tables, config, clock).await?;
        make_one(&store.tables, &vault, clock, email, hash).await
    };
    let made = making.await;
    store.close().await;
    made
}

async fn make_one(
    tables: &Tables,
    vault: &Vault,
    clock: &Clock,
    email: Email,
    hash: String,
) -> Result<UserId> {
    match user::make_admin(tables, vault, clock, email, hash).await {
        Err(UserError::EmailTaken) => bail!("there is an account with this address already"),
        made => Ok(made?),
    }
}

/// Replays the journal of a stopped shop against its tables, and looks for what was kept of its trail.
pub async fn audit(config: &Config, kept: &[Mark]) -> Result<Report> {
    let dir = &config.store.data_dir;
    let shop = match &config.store.database_url {
        Some(url) => Stopped::Database(url.expose_secret()),
        None => Stopped::Files(dir),
    };
    ensure!(
        config.store.database_url.is_some() || dir.join("journal.db").exists(),
        "there is no store in {}; --data-dir names another place",
        dir.display()
    );
    let mirror = match &config.store.redis {
        Some(place) => Some(Redis::open(place)?),
        None => None,
    };
    Ok(audit::of_stopped(shop, mirror.as_ref(), kept).await?)
}

/// Holds the payments and refunds of a stopped shop against its provider's books. The provider's name comes with it.
pub async fn reconcile(config: &Config, clock: &Clock) -> Result<(&'static str, Reconciled)> {
    let dir = &config.store.data_dir;
    let books = Books::open(&config.payment, dir, clock)?;
    let (tables, _lock) = match &config.store.database_url {
        Some(url) => (Tables::connect(url.expose_secret()).await?, None),
        None => {
            let lock = journal::lock(dir)?;
            (Tables::read_only(dir), Some(lock))
        }
    };
    let reconciled = payment::reconcile(&tables, &books).await;
    tables.close().await?;
    Ok((books.name(), reconciled.context("the provider's books could not be compared")?))
}

/// Makes the products of a plan; says which was the first.
pub async fn fill(config: &Config, clock: &Clock, plan: &Plan) -> Result<Option<ProductId>> {
    ensure!(plan.products <= PRODUCTS_MAX, "at most {PRODUCTS_MAX} products at once");
    ensure!(plan.stock <= ON_HAND_MAX, "at most {ON_HAND_MAX} units of a product");
    let store = Store::open(config, clock).await?;
    let done = fill_open(&store, clock, plan).await;
    store.close().await;
    done
}

async fn fill_open(store: &Store, clock: &Clock, plan: &Plan) -> Result<Option<ProductId>> {
    let (mut first, mut made) = (None, 0);
    while made < plan.products {
        let until = plan.products.min(made + CHUNK);
        let mut ids: Vec<ProductId> =
            (made..until).map(|_| ProductId::new(clock.now(), clock.chance())).collect();
        // In the order of the indexes: neighbours share a page.
        ids.sort_unstable();
        first = first.or(ids.first().copied());
        stock_up(store, (made + 1..).zip(ids).map(|(number, id)| plan.goods(number, id)).collect()).await?;
        flush(store).await?;
        made = until;
    }
    Ok(first)
}

impl Plan {
    fn goods(&self, number: u64, id: ProductId) -> Goods {
        let now = id.made_at();
        Goods {
            product: Product {
                id,
                sku: id.to_string().replace(ProductId::PREFIX, "seed"),
                name: format!("Seeded product {number:07}"),
                description: "Made by `stockade seed`.".to_owned(),
                thumbnail_url: None,
                image_url: None,
                tags: Vec::new(),
                archived: false,
                version: 1,
                created_at: now,
                updated_at: now,
            },
            settings: Settings {
                price: Money { amount: PRICE, currency: Currency::KRW },
                opens_at: None,
                closes_at: None,
                per_customer_limit: self.per_customer_limit,
                hold_ms: self.hold_ms.unwrap_or(HOLD_MS_DEFAULT),
            },
            stock: self.stock,
        }
    }
}

/// Texts into the tables, births into the journal; durable when it returns. At most [`INBOX_MAX`] at once.
pub async fn stock_up(store: &Store, goods: Vec<Goods>) -> Result<()> {
    let (products, births): (Vec<Product>, Vec<_>) = goods
        .into_iter()
        .map(|Goods { product, settings, stock }| {
            let birth = (product.id, product.created_at, Created { settings, stock });
            (product, birth)
        })
        .unzip();
    store.tables.product_writer().insert_all(&products).await.context("the products could not be written")?;
    let mut waiting = Vec::with_capacity(births.len());
    for (product, at, created) in births {
        let entry = birth(product, at, store.journal.epoch_of(product), created);
        let (told, hear) = oneshot::channel();
        let reply = Box::new(move |appended| {
            // Nobody listens any more when an earlier entry has failed.
            let _ = told.send(appended);
        });
        if store.journal.submit(Append { entry, reply }).is_err() {
            bail!("the journal takes no more entries");
        }
        waiting.push(hear);
    }
    for appended in join_all(waiting).await {
        match appended.unwrap_or(Appended::Unknown) {
            Appended::Written => {}
            Appended::NotWritten(why) => bail!("the journal could not be written: {why}"),
            Appended::Unknown => {
                bail!("the disk failed while the journal was written; look at it, then run `stockade audit`")
            }
        }
    }
    Ok(())
}

fn birth(product: ProductId, at: Millis, epoch: Epoch, created: Created) -> Entry {
    let mut events = Vec::with_capacity(64);
    Event::Created(created).encode(&mut events);
    let only = Sequence::default().next();
    Entry::seal(product, (only, only), epoch, at, ChainHash::default(), events)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_number_is_always_the_same_person() {
        assert_eq!(seed_user(7), seed_user(7));
        assert_ne!(seed_user(7), seed_user(8));
        assert_eq!(seed_user(1).to_string(), "user_01hf7yat01es6vr26w46cmvy52");
    }
}
