//! One at a time: whoever changes a product changes what he has read.
//!
//! Always true: while a turn is held, nobody else changes the text and the settings of its product.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::timeout;
use xxhash_rust::xxh3::xxh3_64;

use crate::actors::stock::NotDone;
use crate::domain::id::ProductId;

/// Products that wait for one another without need are few: people change products, and not many at a time.
const TURNS: usize = 1_024;
/// Whoever is before has an owner that answers slowly, or one that has just died.
const TURN_WITHIN: Duration = Duration::from_secs(5);
const RETRY_MS: u64 = 1_000;

pub struct Turns(Vec<Arc<Mutex<()>>>);

/// The right to change a product, until it is dropped.
pub struct Turn {
    _turn: OwnedMutexGuard<()>,
}

impl Default for Turns {
    fn default() -> Turns {
        Turns((0..TURNS).map(|_| Arc::default()).collect())
    }
}

impl Turns {
    /// First come, first served.
    pub async fn of(&self, product: ProductId) -> Result<Turn, NotDone> {
        let at = xxh3_64(product.as_bytes()) % TURNS as u64;
        match timeout(TURN_WITHIN, self.0[at as usize].clone().lock_owned()).await {
            Ok(turn) => Ok(Turn { _turn: turn }),
            Err(_) => Err(NotDone::Busy { retry_after_ms: RETRY_MS }),
        }
    }
}
