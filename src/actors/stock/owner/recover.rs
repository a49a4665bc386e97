//! A product's ledger, read back from the journal.

use std::sync::Arc;

use tracing::warn;

use crate::actors::stock::home::{Home, Stored};
use crate::actors::stock::inbox::Token;
use crate::actors::stock::protocol::{Protocol, Unrecoverable};
use crate::domain::id::ProductId;
use crate::domain::stock::Epoch;

/// What the journal holds of a product, replayed. A snapshot that does not fit is no reason to stop selling: the journal has everything.
pub async fn recovered(
    home: Arc<dyn Home>,
    product: ProductId,
    epoch: Epoch,
) -> Result<Result<Protocol<Token>, Unrecoverable>, String> {
    let stored = home.load(product).await.map_err(|error| error.to_string())?;
    let has_snapshot = stored.snapshot.is_some();
    match replayed(product, epoch, stored).await? {
        Err(error) if has_snapshot => {
            warn!(%product, %error, "the snapshot does not fit the journal: the whole history is read instead");
            let entries = home.history(product).await.map_err(|error| error.to_string())?;
            replayed(product, epoch, Stored { snapshot: None, entries }).await
        }
        replayed => Ok(replayed),
    }
}

/// Replaying a million events takes a second of computing: not on the thread that serves others.
async fn replayed(
    product: ProductId,
    epoch: Epoch,
    stored: Stored,
) -> Result<Result<Protocol<Token>, Unrecoverable>, String> {
    let recover = move || Protocol::recover(product, epoch, stored.snapshot.as_deref(), &stored.entries);
    tokio::task::spawn_blocking(recover).await.map_err(|error| error.to_string())
}
