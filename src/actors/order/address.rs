//! Where an order goes that goes elsewhere than to its buyer's own address.
//!
//! It owns those rows, sealed under the buyer's key: they go with the account. Always true: an address is on the disk before its order
//! is placed, so an order that says where it goes is never without; and what was written for an order that was never born is swept
//! away. An order without an address of its own comes by here not at all.

use super::{Orders, PlaceOrder, PlacedOrder};
use crate::actors::stock::NotDone;
use crate::clock::Clock;
use crate::domain::id::{OrderId, UserId};
use crate::domain::user::Address;
use crate::persistence::order_address::SealedAddress;
use crate::persistence::user::User;
use crate::persistence::{StoreError, Tables};
use crate::vault::{Sealed, Vault, WrappedKey};

/// An order that is not there after this long was never born: its holds have lapsed long ago.
const BORN_WITHIN_MS: i64 = 600_000;
/// Addresses that one sweep looks at, at most, at a time.
const SWEEP_MAX: u32 = 100;
/// What a keyed hash of an address is made for.
const ADDRESS: &str = "order address";

/// Why an order with an address was not placed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAddressed {
    /// An address is sealed under its buyer's key, and this one has none.
    #[error("there is no such account")]
    NoUser,
    #[error(transparent)]
    NotDone(#[from] NotDone),
}

impl From<StoreError> for NotAddressed {
    fn from(error: StoreError) -> NotAddressed {
        tracing::error!(%error, "the addresses of orders cannot be used");
        NotDone::Unavailable.into()
    }
}

impl From<Sealed> for NotAddressed {
    fn from(error: Sealed) -> NotAddressed {
        tracing::error!(%error, "the address of an order cannot be opened, or sealed");
        NotDone::Internal.into()
    }
}

/// The rows, and what seals them.
pub struct Addresses {
    pub tables: Tables,
    pub vault: Vault,
    pub clock: Clock,
}

fn context(order: OrderId) -> String {
    format!("{order} address")
}

impl Orders {
    /// What stands for an address where two requests are compared: the same for the same one, and telling nothing without the
    /// master key.
    pub fn mark_of(&self, address: &Address) -> [u8; 32] {
        let said = serde_json::to_string(address).unwrap_or_default();
        self.0.addresses.vault.blind(ADDRESS, &said)
    }

    /// Places an order that goes to `address`. Whoever repeats one that stands writes nothing.
    pub async fn place_to(&self, ask: PlaceOrder, address: &Address) -> Result<PlacedOrder, NotAddressed> {
        let sent = ask.sent_key();
        if let Some(key) = sent
            && self.of_key(ask.buyer, key).await?.is_some()
        {
            return Ok(self.place(ask).await?);
        }
        let (buyer, order) = (ask.buyer, self.new_id(&ask.items));
        let key = sent.map(|key| key.key);
        self.keep(buyer, order, address).await.map_err(|why| match why {
            NotAddressed::NotDone(why) => self.turned_away(buyer, key, why).into(),
            why => why,
        })?;
        let placed = self.place_as(order, ask).await;
        match &placed {
            Ok(placed) if placed.order.id == order => {}
            // It may have been born: who sweeps finds out.
            Err(NotDone::Unknown) => {}
            Ok(_) | Err(_) => self.let_go(buyer, order).await,
        }
        Ok(placed?)
    }

    async fn keep(&self, buyer: UserId, order: OrderId, address: &Address) -> Result<(), NotAddressed> {
        let plain = serde_json::to_vec(address).map_err(|_| NotDone::Internal)?;
        let mut writing = self.0.addresses.tables.begin().await?;
        // In this transaction, so that nothing is written for somebody who has just left.
        let user = writing.user(buyer).await?.ok_or(NotAddressed::NoUser)?;
        let sealed = self.0.addresses.vault.seal(&key_of(&user)?, &context(order), &plain)?;
        writing.insert_order_address(buyer, order, sealed).await?;
        writing.commit().await.map_err(|error| {
            tracing::error!(%error, "the address of an order may not have been written");
            // Nothing was ordered, and what was written is swept away.
            NotDone::Unavailable
        })?;
        Ok(())
    }

    /// Nothing was ordered. What cannot be taken away now is swept away later.
    async fn let_go(&self, buyer: UserId, order: OrderId) {
        if let Err(error) = self.drop_row(buyer, order).await {
            tracing::warn!(%error, %order, "the address of an order that was not placed stays until it is swept away");
        }
    }

    async fn drop_row(&self, buyer: UserId, order: OrderId) -> Result<(), StoreError> {
        let mut writing = self.0.addresses.tables.begin().await?;
        writing.drop_order_address(buyer, order).await?;
        writing.commit().await
    }

    /// Where a buyer's order goes, if it has an address of its own.
    pub async fn address_of(&self, buyer: UserId, order: OrderId) -> Result<Option<Address>, NotAddressed> {
        let Some(sealed) = self.0.addresses.tables.order_addresses().find(buyer, order).await? else {
            return Ok(None);
        };
        let user = self.0.addresses.tables.users().find(buyer).await?.ok_or(NotAddressed::NoUser)?;
        self.open(&user, order, &sealed).map(Some)
    }

    /// Those of a buyer's orders made before `before`, newest order first.
    pub async fn addresses_of(
        &self,
        buyer: UserId,
        before: Option<OrderId>,
        limit: u32,
    ) -> Result<Vec<(OrderId, Address)>, NotAddressed> {
        let rows = self.0.addresses.tables.order_addresses();
        let page: Vec<SealedAddress> = rows.of_user(buyer, before, limit).await?;
        if page.is_empty() {
            return Ok(Vec::new());
        }
        let user = self.0.addresses.tables.users().find(buyer).await?.ok_or(NotAddressed::NoUser)?;
        let open = |(order, sealed): SealedAddress| Ok((order, self.open(&user, order, &sealed)?));
        page.into_iter().map(open).collect()
    }

    fn open(&self, user: &User, order: OrderId, sealed: &[u8]) -> Result<Address, NotAddressed> {
        let plain = self.0.addresses.vault.open(&key_of(user)?, &context(order), sealed)?;
        serde_json::from_slice(&plain).map_err(|_| {
            tracing::error!(%order, "the address of {order} cannot be read");
            NotDone::Internal.into()
        })
    }

    /// Looks after addresses that were written a while ago: the order is there, or was never born. How many went.
    pub async fn sweep_addresses(&self) -> Result<u64, NotAddressed> {
        let before = OrderId::first_at(self.0.addresses.clock.now().plus(-BORN_WITHIN_MS));
        let (mut after, mut gone) = (OrderId::from_bytes([0; 16]), 0);
        loop {
            let page = self.0.addresses.tables.order_addresses().unproved(after, before, SWEEP_MAX).await?;
            for (order, buyer) in &page {
                match self.look(*order).await {
                    Ok(Some(_)) => self.prove(*order).await?,
                    Ok(None) => {
                        self.drop_row(*buyer, *order).await?;
                        gone += 1;
                    }
                    // Nobody knows: the next time.
                    Err(_) => {}
                }
            }
            match page.last() {
                Some((order, _)) if page.len() == SWEEP_MAX as usize => after = *order,
                _ => return Ok(gone),
            }
        }
    }

    async fn prove(&self, order: OrderId) -> Result<(), StoreError> {
        let mut writing = self.0.addresses.tables.begin().await?;
        writing.prove_order_address(order).await?;
        writing.commit().await
    }
}

fn key_of(user: &User) -> Result<WrappedKey, NotAddressed> {
    user.key()?.ok_or(NotAddressed::NoUser)
}
