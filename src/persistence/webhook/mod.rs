//! What other systems are told: their endpoints, the events that wait to be given to them, and each delivery.
//!
//! The flush writes events in its own transaction, so each is there exactly once; a dispatcher turns them into deliveries, one an
//! endpoint, and sends those at least once. Always true: where no endpoint is enabled nothing is written, and finding that out
//! costs the flush one load of a number.

mod delivery;
mod endpoint;
mod event;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use tokio::sync::{Mutex, Notify};

use super::StoreError;
use super::store::Store;
use crate::domain::webhook::Kinds;

pub use delivery::{Claimed, Delivery, DeliveryState, Waiting};
pub use endpoint::{Endpoint, EndpointError, EndpointState, Reason, SecretRow};
pub(super) use event::insert as insert_events;
pub use event::{Taken, Told};

/// What any enabled endpoint wants to be told, as the tables say; and a bell for whoever tells it. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Interest(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    kinds: AtomicU32,
    /// Counts changes of endpoints: who remembers them knows by it when to read them again.
    edition: AtomicU64,
    bell: Notify,
    /// Held by whoever changes endpoints, until it is known what they want: who commits later says so later.
    turn: Mutex<()>,
}

impl Interest {
    pub(super) async fn of(store: &Store) -> Result<Interest, StoreError> {
        let interest = Interest::default();
        let mut writer = store.writer().await?;
        interest.set(endpoint::wanted(&mut writer).await?);
        Ok(interest)
    }

    pub fn kinds(&self) -> Kinds {
        Kinds::from_bits(self.0.kinds.load(Ordering::Acquire))
    }

    fn set(&self, kinds: Kinds) {
        self.0.kinds.store(kinds.bits(), Ordering::Release);
    }

    /// At least this is to be written from now on.
    fn widen(&self, kinds: Kinds) {
        self.0.kinds.fetch_or(kinds.bits(), Ordering::AcqRel);
    }

    /// What somebody may remember of endpoints or of when something is due is no longer so.
    fn changed(&self) {
        self.0.edition.fetch_add(1, Ordering::AcqRel);
        self.ring();
    }

    /// There is something to do.
    pub fn ring(&self) {
        self.0.bell.notify_one();
    }

    /// Waits until there is something to do.
    pub async fn rung(&self) {
        self.0.bell.notified().await;
    }

    pub fn edition(&self) -> u64 {
        self.0.edition.load(Ordering::Acquire)
    }
}

/// Tells when it goes that endpoints or deliveries may have changed: also where nobody knows whether they have, and where whoever
/// wanted it has hung up.
struct Changing<'i>(&'i Interest);

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.0.changed();
    }
}

/// Endpoints, events and deliveries. Cheap to clone.
#[derive(Clone)]
pub struct WebhookRows {
    pub(super) store: Store,
    pub(super) interest: Interest,
}

impl WebhookRows {
    pub fn interest(&self) -> &Interest {
        &self.interest
    }

    /// As if endpoints wanted this.
    #[cfg(test)]
    pub(super) fn listen_for_tests(&self, kinds: Kinds) {
        self.interest.set(kinds);
    }
}
