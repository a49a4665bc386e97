//! What any node tells of a product that another one owns: its stock as the mirror shows it, with its age, and its changes as they come.
//!
//! Always true: what cannot be said to be young is not told (*ask the owner*), and no refusal of an order comes from here. Changes
//! of one product come in rising versions; one that was missed is made up for by the next, or by the look at each new connection.

use std::sync::Arc;
use std::time::Duration;

use dashmap::{DashMap, Entry};
use tokio::sync::{Notify, watch};

use super::listening::WATCHED_MAX;
use crate::actors::stock::View;
use crate::clock::Clock;
use crate::domain::id::ProductId;
use crate::persistence::redis::{Mirrored, NoRedis, Redis, Version};

/// What is older is asked of its owner.
pub const AGE_MAX: Duration = Duration::from_millis(250);

/// So many products are watched already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{WATCHED_MAX} products are watched already")]
pub struct TooMany;

struct Watched {
    newest: Option<Version>,
    changes: watch::Sender<Option<Arc<View>>>,
}

#[derive(Default)]
struct Watching {
    products: DashMap<ProductId, Watched>,
    more: Notify,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct MirrorReader {
    pub(super) redis: Redis,
    clock: Clock,
    watching: Arc<Watching>,
}

impl MirrorReader {
    /// Reads where `redis` is; somebody keeps that connection.
    pub fn new(redis: Redis, clock: Clock) -> MirrorReader {
        MirrorReader { redis, clock, watching: Arc::default() }
    }

    /// The stock of a product, and how old that is at most. `None`: its owner must be asked.
    pub async fn stock_of(&self, product: ProductId) -> Option<(Arc<View>, Duration)> {
        let (seen, age) = self.look(product).await?;
        (age <= AGE_MAX).then(|| (Arc::new(seen.into()), age))
    }

    pub(super) async fn look(&self, product: ProductId) -> Option<(Mirrored, Duration)> {
        let link = self.redis.link()?;
        let began = self.clock.nanos();
        match link.look(product).await {
            Ok(seen) => {
                let seen = seen?;
                let under_way = Duration::from_nanos(self.clock.nanos().saturating_sub(began));
                Some((seen.view, seen.age + under_way))
            }
            Err(NoRedis::Damaged(_)) => None,
            Err(_) => {
                self.redis.doubt();
                None
            }
        }
    }

    /// Every view of the product that is heard of from here on, newest only; `None` until the first, which comes at once if the
    /// mirror has one.
    pub fn watch(&self, product: ProductId) -> Result<watch::Receiver<Option<Arc<View>>>, TooMany> {
        let Watching { products, more } = &*self.watching;
        if products.len() >= WATCHED_MAX && !products.contains_key(&product) {
            return Err(TooMany);
        }
        let changes = match products.entry(product) {
            Entry::Occupied(known) => return Ok(known.get().changes.subscribe()),
            Entry::Vacant(place) => {
                let (changes, heard) = watch::channel(None);
                place.insert(Watched { newest: None, changes });
                heard
            }
        };
        more.notify_one();
        Ok(changes)
    }

    /// Waits until somebody watches a product that nobody has watched before.
    pub(super) async fn more(&self) {
        self.watching.more.notified().await;
    }

    /// What is watched now. What nobody listens to any more is forgotten.
    pub(super) fn watched(&self) -> Vec<ProductId> {
        let products = &self.watching.products;
        products.retain(|_, watched| watched.changes.receiver_count() > 0);
        products.iter().map(|watched| *watched.key()).collect()
    }

    /// Tells those who watch, if they have not heard it, or something newer.
    pub(super) fn heard(&self, product: ProductId, view: Mirrored) {
        let Some(mut watched) = self.watching.products.get_mut(&product) else { return };
        if watched.newest.is_none_or(|newest| newest < view.version) {
            watched.newest = Some(view.version);
            watched.changes.send_replace(Some(Arc::new(view.into())));
        }
    }
}
