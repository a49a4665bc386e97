//! One product's share of one journal group: a run of events with their place in the chain.
//!
//! Sequence numbers have no gaps and each entry's hash covers the one before it, so a fork of the history, or a
//! hole in it, cannot be read without being seen.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use super::{Epoch, Millis, Sequence};
use crate::domain::id::ProductId;

/// XXH3-128 over the previous hash and the entry. It finds mistakes, not forgers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ChainHash(pub [u8; 16]);

/// A run of one product's events, as the journal keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub product: ProductId,
    pub first: Sequence,
    pub last: Sequence,
    pub epoch: Epoch,
    /// When the group was closed. Never earlier than the entry before.
    pub at: Millis,
    pub hash: ChainHash,
    /// The events, encoded one after the other.
    pub events: Vec<u8>,
}

/// The entry does not continue the history it is read into.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Forked {
    #[error("{product}: entry starts at {found}, expected {expected}", found = found.0, expected = expected.0)]
    Gap { product: ProductId, expected: Sequence, found: Sequence },
    #[error("{product}: the chain hash of entry {first} does not fit", first = first.0)]
    Hash { product: ProductId, first: Sequence },
    #[error("{product}: entry {first} names {named} events and holds {held}", first = first.0)]
    Count { product: ProductId, first: Sequence, named: u64, held: u64 },
}

impl Entry {
    /// Seals `events`, numbered `first..=last`, behind the entry whose hash is `previous`.
    pub fn seal(
        product: ProductId,
        (first, last): (Sequence, Sequence),
        epoch: Epoch,
        at: Millis,
        previous: ChainHash,
        events: Vec<u8>,
    ) -> Entry {
        let mut entry = Entry { product, first, last, epoch, at, hash: ChainHash::default(), events };
        entry.hash = entry.chained_to(previous);
        entry
    }

    /// How many events the entry holds.
    pub fn count(&self) -> u64 {
        self.last.0.saturating_add(1).saturating_sub(self.first.0)
    }

    /// The hash this entry has behind `previous`.
    pub fn chained_to(&self, previous: ChainHash) -> ChainHash {
        let mut hasher = Xxh3::new();
        hasher.update(&previous.0);
        hasher.update(self.product.as_bytes());
        for number in [self.first.0, self.last.0, self.epoch.0, self.at.0 as u64] {
            hasher.update(&number.to_le_bytes());
        }
        hasher.update(&self.events);
        ChainHash(hasher.digest128().to_be_bytes())
    }

    /// Whether this entry continues a history that ends at `sequence` with `hash`.
    pub fn continues(&self, sequence: Sequence, hash: ChainHash) -> Result<(), Forked> {
        let product = self.product;
        if self.first != sequence.next() {
            return Err(Forked::Gap { product, expected: sequence.next(), found: self.first });
        }
        if self.chained_to(hash) != self.hash {
            return Err(Forked::Hash { product, first: self.first });
        }
        Ok(())
    }
}
