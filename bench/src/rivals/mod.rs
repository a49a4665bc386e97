//! Other ways to sell one hot product to a crowd, each as a server of its own: the same actix-web with the same two workers,
//! the same request, token check and answer as the reference, and a store that somebody else wrote. A rival says *yes* only
//! when its store says that the order is durable.
//!
//! Each is written as well as its own idea allows. What it lacks beside a shop (idempotency, holds, an order of arrival, more
//! than one line) is left out in its favour.

mod contest;
mod mariadb;
mod redis;
mod redis_lock;
mod redis_script;
mod row_lock;
mod server;
mod shop;
mod skip_locked;

use anyhow::Result;
use clap::ValueEnum;
use uuid::Uuid;

pub use contest::Contest;
pub use server::Serve;
pub use shop::RivalShop;

/// The one product there is.
const PRODUCT: &str = "prod_01kas0000000000000000000zz";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Rival {
    /// A transaction an order on MariaDB, around one row of stock
    RowLock,
    /// A row a unit on MariaDB, found with SKIP LOCKED
    SkipLocked,
    /// A script an order on Redis
    RedisScript,
    /// A distributed lock around Redis
    RedisLock,
}

/// What a buyer wants, and under which id.
struct Order<'a> {
    id: Uuid,
    product: &'a str,
    buyer: &'a str,
    quantity: u32,
    created_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    Sold,
    SoldOut,
}

/// Why there is no decision.
#[derive(Debug)]
enum Trouble {
    /// Certainly nothing was sold.
    NotDone(anyhow::Error),
    /// The store may have kept the order or not.
    Unknown(anyhow::Error),
}

/// What the store holds in the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Books {
    pub orders: u64,
    /// Units that are no longer for sale.
    pub taken: u64,
}

/// Whoever asks the store on behalf of the buyers; every worker of the server has one.
enum Clerk {
    RowLock(row_lock::Clerk),
    SkipLocked(skip_locked::Clerk),
    RedisScript(redis_script::Clerk),
    RedisLock(redis_lock::Clerk),
}

impl Rival {
    pub const ALL: [Self; 4] = [Self::RowLock, Self::SkipLocked, Self::RedisScript, Self::RedisLock];

    pub fn word(self) -> &'static str {
        match self {
            Self::RowLock => "row_lock",
            Self::SkipLocked => "skip_locked",
            Self::RedisScript => "redis_script",
            Self::RedisLock => "redis_lock",
        }
    }

    /// Puts the goods into an empty store.
    async fn stock_up(self, store: &str, units: u64) -> Result<()> {
        match self {
            Self::RowLock => row_lock::stock_up(store, units).await,
            Self::SkipLocked => skip_locked::stock_up(store, units).await,
            Self::RedisScript | Self::RedisLock => redis::stock_up(store, units).await,
        }
    }

    async fn books(self, store: &str, units: u64) -> Result<Books> {
        match self {
            Self::RowLock => row_lock::books(store, units).await,
            Self::SkipLocked => skip_locked::books(store).await,
            Self::RedisScript | Self::RedisLock => redis::books(store, units).await,
        }
    }
}

impl Clerk {
    async fn of(rival: Rival, store: &str) -> Result<Self> {
        Ok(match rival {
            Rival::RowLock => Self::RowLock(row_lock::Clerk::at(store)),
            Rival::SkipLocked => Self::SkipLocked(skip_locked::Clerk::at(store)),
            Rival::RedisScript => Self::RedisScript(redis_script::Clerk::at(store).await?),
            Rival::RedisLock => Self::RedisLock(redis_lock::Clerk::at(store).await?),
        })
    }

    async fn sell(&self, order: &Order<'_>) -> Result<Decision, Trouble> {
        match self {
            Self::RowLock(clerk) => clerk.sell(order).await,
            Self::SkipLocked(clerk) => clerk.sell(order).await,
            Self::RedisScript(clerk) => clerk.sell(order).await,
            Self::RedisLock(clerk) => clerk.sell(order).await,
        }
    }
}
