//! What a start brings back before the first order is taken.
//!
//! Always true afterwards: every product with a hold, or with history the tables do not show, has its owner loaded: holds lapse on
//! time and no acknowledged order is missing.

use std::collections::BTreeSet;

use tracing::info;

use crate::actors::stock::Directory;
use crate::domain::id::ProductId;
use crate::persistence::journal::Journal;
use crate::persistence::{StoreError, Tables};

/// Loads the owners that must not sleep. `flushed` is how far the tables were true before anything of them was read: what the flush
/// brings over meanwhile is found in the journal as well.
pub async fn revive(
    directory: &Directory,
    journal: &Journal,
    tables: &Tables,
    flushed: i64,
) -> Result<(), StoreError> {
    let house = directory.house();
    let began = house.clock.nanos();
    let mut awake: BTreeSet<_> = tables.stock().holding().await?.into_iter().collect();
    awake.extend(journal.reader().products_after(flushed).await?);
    let products: Vec<_> = awake.into_iter().collect();
    let count = products.len();
    // Those elsewhere are waited for by whoever asks them.
    let is_here =
        |product: &ProductId| directory.routes().is_none_or(|routes| routes.is_here(product.shard()));
    let (here, away): (Vec<_>, Vec<_>) = products.into_iter().partition(is_here);
    directory.rouse(away);
    directory.wake(here).await;
    let took_ms = house.clock.nanos().saturating_sub(began) / 1_000_000;
    let (keys, _) = house.keys.len();
    info!(keys, owners = count, took_ms, "the shop is as it was");
    Ok(())
}
