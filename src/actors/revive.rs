//! What a start brings back before the first order is taken.
//!
//! Always true afterwards: every key an order was ever made with is known at the doors, and every product with a
//! hold, or with history the tables do not show, has its owner loaded: holds lapse on time and no acknowledged
//! order is missing.

use std::collections::BTreeSet;

use futures_util::StreamExt;
use tracing::info;

use crate::actors::stock::{Directory, Fingerprint, UsedKeys};
use crate::domain::id::ProductId;
use crate::domain::stock::Event;
use crate::persistence::flush::Run;
use crate::persistence::journal::{Journal, JournalReader};
use crate::persistence::{StoreError, Tables};

/// Events that are read at once.
const EVENTS_AT_ONCE: u64 = 5_000;

/// Learns the keys of orders that the tables do not show yet from the journal. An owner in this process notes those of its product when
/// it is loaded; of an owner elsewhere they are known from here.
pub struct Keys {
    keys: UsedKeys,
    journal: JournalReader,
    /// Up to here they are known.
    pos: i64,
}

impl Keys {
    /// Those of everything behind a place, and later of everything behind that.
    pub fn behind(pos: i64, journal: &Journal, keys: &UsedKeys) -> Keys {
        Keys { keys: keys.clone(), journal: journal.reader().clone(), pos }
    }

    /// Reads to the journal's end.
    pub async fn catch_up(&mut self) -> Result<(), StoreError> {
        loop {
            let found = self.journal.after(self.pos, EVENTS_AT_ONCE).await?;
            let Some((last, _)) = found.last() else { return Ok(()) };
            self.pos = *last;
            for (_, entry) in found {
                let product = entry.product;
                // What cannot be read stops its owner, and says so there.
                let Ok(run) = Run::of(entry) else { continue };
                for event in run.events {
                    let (buyer, key) = match event {
                        Event::Held(held) => (held.buyer, held.key),
                        Event::Placed(placed) => (placed.buyer, placed.key),
                        _ => continue,
                    };
                    if let Some(key) = key {
                        self.keys.keep(Fingerprint::of(buyer, key.key), product);
                    }
                }
            }
        }
    }
}

/// Fills the registry of used keys from the tables.
pub async fn recall_keys(directory: &Directory, tables: &Tables) -> Result<(), StoreError> {
    let orders = tables.orders();
    let mut keys = std::pin::pin!(orders.all_keys());
    while let Some(used) = keys.next().await {
        let used = used?;
        directory.house().keys.keep(Fingerprint::of(used.buyer, used.key), used.home);
    }
    Ok(())
}

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
    info!(keys = house.keys.len(), owners = count, took_ms, "the shop is as it was");
    Ok(())
}
