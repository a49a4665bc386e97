//! Carts: what somebody means to order, and the checkout that orders it.
//!
//! It owns the carts' rows and the checkouts that have begun, and keeps nothing between two questions that a row does not hold. A
//! change is one transaction upon the version that was read; checkouts of one person run one after the other. Always true: what is
//! in a cart leaves it by its owner's word or because it was ordered, and then exactly as much; a checkout is on the disk before its
//! order is placed, so a crash at any moment leaves a row that says which question to ask.

mod checkout;
mod chores;
mod turn;

use std::sync::Arc;

use tokio::sync::{Semaphore, SemaphorePermit};

pub use checkout::{CheckOut, CheckedOut};
use turn::Turns;

use crate::actors::catalogue::{Catalogue, Found};
use crate::actors::order::{NotAddressed, Orders};
use crate::actors::payment::Payments;
use crate::actors::stock::NotDone;
use crate::clock::Clock;
use crate::domain::amount::Quantity;
use crate::domain::cart::{Cart, CartLine, NotPut};
use crate::domain::id::{OrderId, ProductId, UserId};
use crate::domain::stock::{KeyUse, Refusal, Refused, Sequence};
use crate::persistence::cart::CartError;
use crate::persistence::{StoreError, Tables, Writing};

/// Changes that wait for the tables, at most.
const WAITING_MAX: usize = 1_024;
/// When to come back after too many waited.
const RETRY_MS: u64 = 1_000;

/// Why a cart is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotCarted {
    #[error("there is no such account any more")]
    NoUser,
    #[error("no such product")]
    NoProduct,
    #[error(transparent)]
    NotPut(#[from] NotPut),
    #[error("the key belongs to another request")]
    KeyReused,
    #[error("there is nothing in the cart")]
    Empty,
    #[error("the product is not in the cart")]
    NotThere(ProductId),
    /// Nobody knows yet whether what is in the cart is ordered already.
    #[error("another checkout of the cart is not decided")]
    Undecided(Option<OrderId>),
    #[error(transparent)]
    NotDone(#[from] NotDone),
}

impl From<StoreError> for NotCarted {
    fn from(error: StoreError) -> NotCarted {
        tracing::error!(%error, "the tables of carts cannot be used");
        NotDone::Unavailable.into()
    }
}

impl From<CartError> for NotCarted {
    fn from(error: CartError) -> NotCarted {
        match error {
            // Somebody was faster: whoever asks again is told what is now.
            CartError::VersionConflict => NotDone::Unavailable.into(),
            CartError::Store(error) => error.into(),
        }
    }
}

impl From<NotAddressed> for NotCarted {
    fn from(error: NotAddressed) -> NotCarted {
        match error {
            NotAddressed::NoUser => NotCarted::NoUser,
            NotAddressed::NotDone(why) => why.into(),
        }
    }
}

/// A cart with its products as they are now.
#[derive(Debug, Clone)]
pub struct CartSeen {
    pub cart: Cart,
    /// A line and its product; none where it cannot be found any more.
    pub lines: Vec<(CartLine, Option<Found>)>,
}

/// Whom carts ask.
pub struct CartHouse {
    pub tables: Tables,
    pub catalogue: Catalogue,
    pub orders: Orders,
    pub payments: Payments,
    pub clock: Clock,
}

/// Finds, changes and orders carts. Cheap to clone.
#[derive(Clone)]
pub struct Carts(Arc<Inner>);

struct Inner {
    house: CartHouse,
    /// Who checks out at this moment.
    turns: Turns,
    waiting: Semaphore,
}

impl Carts {
    pub fn new(house: CartHouse) -> Carts {
        Carts(Arc::new(Inner { house, turns: Turns::default(), waiting: Semaphore::new(WAITING_MAX) }))
    }

    /// Somebody's cart as it is now.
    pub async fn find(&self, user: UserId) -> Result<CartSeen, NotCarted> {
        self.touch(user).await;
        let cart = self.0.house.tables.carts().of_user(user).await?;
        self.seen(cart).await
    }

    /// So many units of a product, whatever was there before.
    pub async fn put(
        &self,
        user: UserId,
        product: ProductId,
        quantity: Quantity,
    ) -> Result<CartSeen, NotCarted> {
        self.sellable(product).await?;
        let now = self.0.house.clock.now();
        self.change(user, |cart| cart.put(product, quantity, now)).await
    }

    /// So many units more, once for each key. The flag says whether the key had added them before.
    pub async fn add(
        &self,
        user: UserId,
        product: ProductId,
        quantity: Quantity,
        key: Option<KeyUse>,
    ) -> Result<(CartSeen, bool), NotCarted> {
        let now = self.0.house.clock.now();
        let Some(key) = key else {
            self.sellable(product).await?;
            let cart = self.change(user, |cart| cart.add(product, quantity, now)).await?;
            return Ok((cart, false));
        };
        self.touch(user).await;
        let _place = self.place()?;
        let mut writing = self.begin(user).await?;
        if let Some(body) = writing.addition(user, key.key).await? {
            drop(writing);
            if body != key.body {
                return Err(NotCarted::KeyReused);
            }
            return Ok((self.find(user).await?, true));
        }
        // Nobody waits for the catalogue while holding the tables.
        drop(writing);
        self.sellable(product).await?;
        let mut writing = self.begin(user).await?;
        let replayed = writing.addition(user, key.key).await?;
        if replayed.is_some_and(|body| body != key.body) {
            return Err(NotCarted::KeyReused);
        }
        let before = writing.cart_of(user).await?;
        let mut after = before.clone();
        if replayed.is_none() {
            after.add(product, quantity, now)?;
            self.save(&mut writing, user, &before, &mut after).await?;
            writing.insert_addition(user, key, now).await?;
            commit(writing).await?;
        } else {
            drop(writing);
        }
        Ok((self.seen(after).await?, replayed.is_some()))
    }

    /// Takes a product out, if it is there.
    pub async fn take_out(&self, user: UserId, product: ProductId) -> Result<CartSeen, NotCarted> {
        self.change(user, |cart| {
            cart.take_out(product);
            Ok(())
        })
        .await
    }

    /// Takes everything out.
    pub async fn clear(&self, user: UserId) -> Result<CartSeen, NotCarted> {
        self.change(user, |cart| {
            cart.clear();
            Ok(())
        })
        .await
    }

    /// Is there such a product, and can it ever be bought?
    async fn sellable(&self, product: ProductId) -> Result<(), NotCarted> {
        let found = self.0.house.catalogue.put_together(&[product]).await?;
        let Some(Found { text, view }) = found.first() else { return Err(NotCarted::NoProduct) };
        if text.archived || view.archived {
            let refused = Refused { at: Sequence(0), why: Refusal::Archived };
            return Err(NotDone::Refused { product, refused }.into());
        }
        Ok(())
    }

    async fn change(
        &self,
        user: UserId,
        change: impl FnOnce(&mut Cart) -> Result<(), NotPut>,
    ) -> Result<CartSeen, NotCarted> {
        self.touch(user).await;
        let place = self.place()?;
        let mut writing = self.begin(user).await?;
        let before = writing.cart_of(user).await?;
        let mut after = before.clone();
        change(&mut after)?;
        if after.lines == before.lines {
            drop(writing);
        } else {
            self.save(&mut writing, user, &before, &mut after).await?;
            commit(writing).await?;
        }
        drop(place);
        self.seen(after).await
    }

    /// The next version of a cart.
    async fn save(
        &self,
        writing: &mut Writing<'_>,
        user: UserId,
        before: &Cart,
        after: &mut Cart,
    ) -> Result<(), NotCarted> {
        after.version = before.version + 1;
        after.updated_at = Some(self.0.house.clock.now());
        Ok(writing.save_cart(user, before, after).await?)
    }

    /// The cart's lines with their products, those in memory without asking the tables.
    async fn seen(&self, cart: Cart) -> Result<CartSeen, NotCarted> {
        let ids: Vec<ProductId> = cart.lines.iter().map(|line| line.product).collect();
        let mut found = self.0.house.catalogue.put_together(&ids).await?;
        let product_of = |line: &CartLine| {
            let at = found.iter().position(|found| found.text.id == line.product)?;
            Some(found.swap_remove(at))
        };
        let products: Vec<Option<Found>> = cart.lines.iter().map(product_of).collect();
        let lines = cart.lines.iter().copied().zip(products).collect();
        Ok(CartSeen { cart, lines })
    }

    fn place(&self) -> Result<SemaphorePermit<'_>, NotCarted> {
        let busy = NotDone::Busy { retry_after_ms: RETRY_MS };
        self.0.waiting.try_acquire().map_err(|_| busy.into())
    }

    async fn begin(&self, user: UserId) -> Result<Writing<'_>, NotCarted> {
        self.0.house.tables.begin_for(user).await?.ok_or(NotCarted::NoUser)
    }
}

/// What went wrong at the very end may have happened.
async fn commit(writing: Writing<'_>) -> Result<(), NotCarted> {
    writing.commit().await.map_err(|error| {
        tracing::error!(%error, "a change of a cart may not have been written");
        NotDone::Unknown.into()
    })
}
