//! What a start brings back before the first order is taken.
//!
//! Always true afterwards: every key an order was ever made with is known at the doors, and every product with a
//! hold, or with history the tables do not show, has its owner loaded: holds lapse on time and no acknowledged
//! order is missing.

use std::collections::BTreeSet;

use futures_util::StreamExt;
use tracing::info;

use crate::actors::stock::{Directory, Fingerprint};
use crate::persistence::journal::Journal;
use crate::persistence::{StoreError, Tables};

/// Fills the registry of used keys from the tables and loads the owners that must not sleep.
pub async fn revive(directory: &Directory, journal: &Journal, tables: &Tables) -> Result<(), StoreError> {
    let house = directory.house();
    let began = house.clock.nanos();
    let orders = tables.orders();
    let mut keys = std::pin::pin!(orders.all_keys());
    while let Some(used) = keys.next().await {
        let used = used?;
        house.keys.keep(Fingerprint::of(used.buyer, used.key), used.home);
    }
    let mut awake: BTreeSet<_> = tables.stock().holding().await?.into_iter().collect();
    awake.extend(journal.reader().products_after(tables.flushed_pos().await?).await?);
    let products: Vec<_> = awake.into_iter().collect();
    let count = products.len();
    directory.wake(products).await;
    let took_ms = house.clock.nanos().saturating_sub(began) / 1_000_000;
    info!(keys = house.keys.len(), owners = count, took_ms, "the shop is as it was");
    Ok(())
}
