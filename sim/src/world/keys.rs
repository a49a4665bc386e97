//! Which idempotency keys were used and for which product, as every door sees it: volatile, filled from the tables, the
//! journal behind them and the ledgers when the process starts, and from a ledger when its owner is read back.
//!
//! A key is *claimed* while a request with it is under way, and *kept* once an order may stand behind it. A kept key
//! may be out of date (its order was never born); then neither the ledger of its product nor the tables know it, and it is
//! dropped.

use std::collections::BTreeMap;

use stockade::domain::id::UserId;

/// A caller and his key.
pub type Print = (UserId, [u8; 16]);

#[derive(Debug, Default)]
struct Use {
    /// The product, and a number that no other keeping has.
    kept: Option<(usize, u64)>,
    claimed: Option<(usize, u32)>,
}

/// Why a key cannot be claimed for a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Elsewhere {
    /// It was used for this product; the number names the keeping.
    Kept(usize, u64),
    /// It is being used for this product right now.
    Claimed(usize),
}

#[derive(Debug, Default)]
pub struct UsedKeys {
    uses: BTreeMap<Print, Use>,
    keepings: u64,
}

impl UsedKeys {
    /// Whether an order stands, or may soon stand, behind the key.
    pub fn is_used(&self, print: Print) -> bool {
        self.uses.get(&print).is_some_and(|used| used.kept.is_some() || used.claimed.is_some())
    }

    /// Claims a key for a product, and tells whether it was used for it before.
    pub fn claim(&mut self, print: Print, product: usize) -> Result<bool, Elsewhere> {
        let used = self.uses.entry(print).or_default();
        match (used.claimed, used.kept) {
            (Some((other, _)), _) if other != product => Err(Elsewhere::Claimed(other)),
            (_, Some((other, number))) if other != product => Err(Elsewhere::Kept(other, number)),
            _ => {
                used.claimed.get_or_insert((product, 0)).1 += 1;
                Ok(used.kept.is_some())
            }
        }
    }

    pub fn unclaim(&mut self, print: Print) {
        let Some(used) = self.uses.get_mut(&print) else { return };
        used.claimed = used.claimed.and_then(|(product, count)| (count > 1).then(|| (product, count - 1)));
        if used.claimed.is_none() && used.kept.is_none() {
            self.uses.remove(&print);
        }
    }

    /// How many keys are claimed.
    pub fn claims(&self) -> usize {
        self.uses.values().filter(|used| used.claimed.is_some()).count()
    }

    pub fn keep(&mut self, print: Print, product: usize) {
        self.keepings += 1;
        self.uses.entry(print).or_default().kept = Some((product, self.keepings));
    }

    /// Drops a keeping that neither its ledger nor the tables know of, unless something happened to the key since.
    pub fn drop_stale(&mut self, print: Print, number: u64) {
        let Some(used) = self.uses.get_mut(&print) else { return };
        if used.claimed.is_none() && used.kept.is_some_and(|(_, kept)| kept == number) {
            self.uses.remove(&print);
        }
    }
}
