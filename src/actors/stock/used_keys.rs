//! Which idempotency keys were used, and for which product: what every door looks at before anything is asked.
//!
//! It owns 64-bit fingerprints only. A fingerprint that is not here was never used; one that is here sends the
//! request to the ledger of its product, which knows keys exactly. Claims keep two requests with one key that name
//! different products apart while neither has been decided.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use xxhash_rust::xxh3::xxh3_64;

use crate::domain::id::{ProductId, UserId};

/// So many that two threads seldom want the same, and that each stays small: one that grows holds up a few keys for a few
/// microseconds.
const SHARDS: usize = 1024;

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

/// Requests on their way with one key. There are few at a time: whoever ends one finds it without looking into the great table
/// once more, where each look is a walk to main memory.
#[derive(Debug)]
struct UnderWay {
    print: Fingerprint,
    claims: u32,
    /// An order was made with it, or may have been: before them, or by one of them.
    kept: bool,
}

/// Always true: what is under way is known.
#[derive(Debug, Default)]
struct Keys {
    /// What each key was used for, or is being used for.
    known: HashMap<u64, ProductId>,
    under_way: Vec<UnderWay>,
}

impl Keys {
    fn under_way(&mut self, print: Fingerprint) -> Option<&mut UnderWay> {
        self.under_way.iter_mut().find(|way| way.print == print)
    }

    fn is_kept(&self, print: Fingerprint) -> bool {
        let pending = |way: &UnderWay| way.print == print && !way.kept;
        self.known.contains_key(&print.0) && !self.under_way.iter().any(pending)
    }

    /// Whether it had made an order before, or may have.
    fn claim(&mut self, print: Fingerprint, product: ProductId) -> Result<bool, ProductId> {
        let kept = match self.known.entry(print.0) {
            Entry::Occupied(known) if *known.get() != product => return Err(*known.get()),
            Entry::Occupied(_) => true,
            Entry::Vacant(place) => {
                place.insert(product);
                false
            }
        };
        match self.under_way(print) {
            Some(way) => {
                way.claims += 1;
                Ok(way.kept)
            }
            None => {
                self.under_way.push(UnderWay { print, claims: 1, kept });
                Ok(kept)
            }
        }
    }

    fn unclaim(&mut self, print: Fingerprint, kept: bool) {
        let Some(at) = self.under_way.iter().position(|way| way.print == print) else { return };
        let Some(way) = self.under_way.get_mut(at) else { return };
        way.claims = way.claims.saturating_sub(1);
        way.kept |= kept;
        if way.claims == 0 {
            let over = self.under_way.swap_remove(at);
            if !over.kept {
                self.known.remove(&print.0);
            }
        }
    }
}

/// A few keys. Each is counted apart from the others: one counter for all of them would go back and forth between the
/// threads with every order.
#[derive(Debug, Clone, Default)]
struct Shard(Arc<Mutex<Keys>>);

impl Shard {
    fn lock(&self) -> MutexGuard<'_, Keys> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
        self.shard(print).lock().known.get(&print.0).copied()
    }

    /// Whether an order was made with this key, as far as 64 bits can tell.
    pub fn is_kept(&self, print: Fingerprint) -> bool {
        self.shard(print).lock().is_kept(print)
    }

    /// Notes a key that an order was made with.
    pub fn keep(&self, print: Fingerprint, product: ProductId) {
        let mut keys = self.shard(print).lock();
        keys.known.insert(print.0, product);
        if let Some(way) = keys.under_way(print) {
            way.kept = true;
        }
    }

    /// Forgets a key that neither the ledger of `product` nor the tables know: its order was never born.
    pub fn drop_stale(&self, print: Fingerprint, product: ProductId) {
        let mut keys = self.shard(print).lock();
        if keys.known.get(&print.0) == Some(&product) && keys.under_way(print).is_none() {
            keys.known.remove(&print.0);
        }
    }

    /// Claims the key for `product`. Refused with the other product if it is used, or being used, for that one.
    pub fn claim(&self, print: Fingerprint, product: ProductId) -> Result<Claim, ProductId> {
        let shard = self.shard(print);
        let came_before = shard.lock().claim(print, product)?;
        Ok(Claim { shard: shard.clone(), print, used: false, came_before })
    }

    /// How many keys are known.
    pub fn len(&self) -> usize {
        let kept = |shard: &Shard| {
            let keys = shard.lock();
            keys.known.len() - keys.under_way.iter().filter(|way| !way.kept).count()
        };
        self.shards.iter().map(kept).sum()
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
    came_before: bool,
}

impl Claim {
    /// Whether an order had been made with the key when it was claimed, or may have been.
    pub fn came_before(&self) -> bool {
        self.came_before
    }

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
        self.shard.lock().unclaim(self.print, self.used);
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
        // Who comes again and is turned away takes nothing from the order that stands.
        drop(keys.claim(print, b).unwrap());
        assert!(keys.is_kept(print));
        keys.drop_stale(print, b);
        assert_eq!((keys.product_of(print), keys.len()), (None, 0));
    }

    #[test]
    fn a_key_counts_as_used_from_the_order_on_that_it_has_made() {
        let keys = UsedKeys::default();
        let product = ProductId::new(Millis(1), 1);
        let print = Fingerprint::of(UserId::new(Millis(1), 3), [7; 16]);
        let pending = keys.claim(print, product).unwrap();
        assert_eq!((keys.product_of(print), keys.is_kept(print), keys.len()), (Some(product), false, 0));
        keys.drop_stale(print, product);
        assert_eq!(keys.product_of(print), Some(product), "somebody is on his way with it");
        keys.keep(print, product);
        drop(pending);
        assert!(keys.is_kept(print));
    }
}
