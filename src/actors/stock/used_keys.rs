//! Which idempotency keys were used, and for which product: what every door looks at before anything is asked.
//!
//! It owns 64-bit fingerprints only. A fingerprint that is not here was never used; one that is here sends the
//! request to the ledger of its product, which knows keys exactly. Claims keep two requests with one key that name
//! different products apart while neither has been decided.

use std::sync::{Arc, Mutex, PoisonError};

use hashbrown::HashMap;
use xxhash_rust::xxh3::xxh3_64;

use crate::domain::id::{ProductId, UserId};

/// So many that each stays small: one that grows holds up a few keys for a few microseconds.
const SHARDS: usize = 4096;

/// A key of one caller, as 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(u64);

impl Fingerprint {
    pub fn of(caller: UserId, key: [u8; 16]) -> Fingerprint {
        let mut bytes = [0u8; 32];
        bytes[..16].copy_from_slice(caller.as_bytes());
        bytes[16..].copy_from_slice(&key);
        Fingerprint(xxh3_64(&bytes))
    }
}

/// One key: the product it belongs to, and why.
#[derive(Debug, Clone, Copy)]
struct Use {
    product: ProductId,
    /// Requests on their way with it.
    claims: u32,
    /// An order was made with it, or may have been.
    kept: bool,
}

/// A few keys. Each is counted apart from the others: one counter for all of them would go back and forth between the
/// threads with every order.
#[derive(Debug, Clone, Default)]
struct Shard(Arc<Mutex<HashMap<u64, Use>>>);

impl Shard {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Use>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a claim; `kept` keeps the key for its product.
    fn unclaim(&self, print: Fingerprint, kept: bool) {
        let mut uses = self.lock();
        let Some(used) = uses.get_mut(&print.0) else { return };
        used.claims = used.claims.saturating_sub(1);
        used.kept |= kept;
        if used.claims == 0 && !used.kept {
            uses.remove(&print.0);
        }
    }
}

/// Every key that an order of this shop was made with.
#[derive(Debug, Clone)]
pub struct UsedKeys {
    shards: Arc<[Shard]>,
}

impl Default for UsedKeys {
    fn default() -> Self {
        UsedKeys { shards: (0..SHARDS).map(|_| Shard::default()).collect() }
    }
}

impl UsedKeys {
    fn shard(&self, print: Fingerprint) -> &Shard {
        &self.shards[(print.0 >> 48) as usize % SHARDS]
    }

    /// The product a key was used for, or is being used for right now.
    pub fn product_of(&self, print: Fingerprint) -> Option<ProductId> {
        self.shard(print).lock().get(&print.0).map(|used| used.product)
    }

    /// Whether an order was made with this key, as far as 64 bits can tell.
    pub fn is_kept(&self, print: Fingerprint) -> bool {
        self.shard(print).lock().get(&print.0).is_some_and(|used| used.kept)
    }

    /// Notes a key that an order was made with.
    pub fn keep(&self, print: Fingerprint, product: ProductId) {
        let mut uses = self.shard(print).lock();
        let used = uses.entry(print.0).or_insert(Use { product, claims: 0, kept: true });
        (used.product, used.kept) = (product, true);
    }

    /// Forgets a key that neither the ledger of `product` nor the tables know: its order was never born.
    pub fn drop_stale(&self, print: Fingerprint, product: ProductId) {
        let mut uses = self.shard(print).lock();
        if uses.get(&print.0).is_some_and(|used| used.kept && used.product == product && used.claims == 0) {
            uses.remove(&print.0);
        }
    }

    /// Claims the key for `product`. Refused with the other product if it is used, or being used, for that one.
    pub fn claim(&self, print: Fingerprint, product: ProductId) -> Result<Claim, ProductId> {
        let shard = self.shard(print);
        let mut uses = shard.lock();
        let used = uses.entry(print.0).or_insert(Use { product, claims: 0, kept: false });
        if used.product != product {
            return Err(used.product);
        }
        used.claims += 1;
        drop(uses);
        Ok(Claim { shard: shard.clone(), print, used: false })
    }

    /// How many keys are known.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().values().filter(|used| used.kept).count()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A key on its way: given back when dropped, unless an order was made with it, or may have been.
#[derive(Debug)]
pub struct Claim {
    shard: Shard,
    print: Fingerprint,
    used: bool,
}

impl Claim {
    /// The question is out. Until its answer is certain the key counts as used: asking its ledger once more does no
    /// harm, giving it to another product could make two orders.
    pub fn in_doubt(&mut self) {
        self.used = true;
    }

    /// The answer is certain: an order was made with the key, or certainly not.
    pub fn settle(&mut self, used: bool) {
        self.used = used;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.shard.unclaim(self.print, self.used);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::stock::Millis;

    #[test]
    fn a_claim_binds_the_key_to_one_product_until_it_is_dropped() {
        let keys = UsedKeys::default();
        let (a, b) = (ProductId::new(Millis(1), 1), ProductId::new(Millis(1), 2));
        let print = Fingerprint::of(UserId::new(Millis(1), 3), [7; 16]);
        let first = keys.claim(print, a).unwrap();
        let again = keys.claim(print, a).unwrap();
        assert_eq!(keys.claim(print, b).unwrap_err(), a);
        drop(first);
        assert_eq!(keys.claim(print, b).unwrap_err(), a, "one of two claims still stands");
        drop(again);
        let mut won = keys.claim(print, b).unwrap();
        won.in_doubt();
        drop(won);
        assert_eq!(keys.product_of(print), Some(b));
        assert_eq!(keys.claim(print, a).unwrap_err(), b);
    }
}
