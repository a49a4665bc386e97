//! Wish lists: what somebody wants to find again.
//!
//! It owns the rows, and keeps nothing between two questions. Always true: what is asked for twice is done once, and a list has a
//! bound.

use std::sync::Arc;

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::actors::catalogue::{Catalogue, Found};
use crate::actors::stock::NotDone;
use crate::clock::Clock;
use crate::domain::id::{ProductId, UserId};
use crate::domain::stock::Millis;
use crate::domain::wish::{Wish, WishesFull, wish};
use crate::persistence::{StoreError, Tables, Writing};

/// Changes that wait for the tables, at most.
const WAITING_MAX: usize = 1_024;
/// When to come back after too many waited.
const RETRY_MS: u64 = 1_000;

/// Why a wish list is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotWished {
    #[error("no such product")]
    NoProduct,
    #[error("there is no such account any more")]
    NoUser,
    #[error(transparent)]
    Full(#[from] WishesFull),
    #[error(transparent)]
    NotDone(#[from] NotDone),
}

impl From<StoreError> for NotWished {
    fn from(error: StoreError) -> NotWished {
        tracing::error!(%error, "the tables of wishes cannot be used");
        NotDone::Unavailable.into()
    }
}

/// Where a page of wishes begins: behind this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct WishCursor {
    pub added_at: Millis,
    pub product: ProductId,
}

impl WishCursor {
    pub fn of(wish: &Wish) -> WishCursor {
        WishCursor { added_at: wish.added_at, product: wish.product }
    }
}

/// One wish, and its product as it is now.
#[derive(Debug, Clone)]
pub struct Wished {
    pub wish: Wish,
    pub found: Found,
}

/// Finds and changes wishes. Cheap to clone.
#[derive(Clone)]
pub struct Wishes(Arc<Inner>);

struct Inner {
    tables: Tables,
    catalogue: Catalogue,
    clock: Clock,
    waiting: Semaphore,
}

impl Wishes {
    pub fn new(tables: Tables, catalogue: Catalogue, clock: Clock) -> Wishes {
        let waiting = Semaphore::new(WAITING_MAX);
        Wishes(Arc::new(Inner { tables, catalogue, clock, waiting }))
    }

    /// A page of somebody's wishes, newest first, with their products; archived ones too, and they say so.
    pub async fn list(
        &self,
        user: UserId,
        behind: Option<WishCursor>,
        limit: u32,
    ) -> Result<Vec<Wished>, NotWished> {
        let mut wishes = self.0.tables.wishes().of_user(user).await?;
        wishes.retain(|wish| behind.is_none_or(|behind| WishCursor::of(wish) < behind));
        wishes.truncate(limit as usize);
        let ids: Vec<ProductId> = wishes.iter().map(|wish| wish.product).collect();
        let mut found = self.0.catalogue.put_together(&ids).await?;
        let product_of = |wish: Wish| {
            let at = found.iter().position(|found| found.text.id == wish.product)?;
            Some(Wished { wish, found: found.swap_remove(at) })
        };
        Ok(wishes.into_iter().filter_map(product_of).collect())
    }

    /// Wishes for a product that there is; nothing changes where it is wished for already.
    pub async fn put(&self, user: UserId, product: ProductId) -> Result<(), NotWished> {
        if self.0.catalogue.put_together(&[product]).await?.is_empty() {
            return Err(NotWished::NoProduct);
        }
        let _place = self.place()?;
        let mut writing = self.begin(user).await?;
        let known = writing.wishes_of(user).await?;
        let Some(wish) = wish(&known, product, self.0.clock.now())? else { return Ok(()) };
        writing.insert_wish(user, &wish).await?;
        commit(writing).await
    }

    /// Wishes for it no more.
    pub async fn remove(&self, user: UserId, product: ProductId) -> Result<(), NotWished> {
        let _place = self.place()?;
        let mut writing = self.begin(user).await?;
        writing.remove_wish(user, product).await?;
        commit(writing).await
    }

    fn place(&self) -> Result<SemaphorePermit<'_>, NotWished> {
        let busy = NotDone::Busy { retry_after_ms: RETRY_MS };
        self.0.waiting.try_acquire().map_err(|_| busy.into())
    }

    async fn begin(&self, user: UserId) -> Result<Writing<'_>, NotWished> {
        self.0.tables.begin_for(user).await?.ok_or(NotWished::NoUser)
    }
}

/// What went wrong at the very end may have happened.
async fn commit(writing: Writing<'_>) -> Result<(), NotWished> {
    writing.commit().await.map_err(|error| {
        tracing::error!(%error, "a wish may not have been written");
        NotDone::Unknown.into()
    })
}
