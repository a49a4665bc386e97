//! Where each product's history ends: what keeps a gap or a fork out of the journal.
//!
//! It remembers what was written in this opening; the rest is looked up by whoever puts groups down. Always true: what is not
//! remembered was not written since the opening, or stands where histories are looked up; and what was remembered of a product in one
//! epoch says nothing in another, because somebody else may have written in between.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::Append;
use super::tail::Tail;
use crate::domain::id::ProductId;
use crate::domain::stock::{Entry, Epoch, Sequence};

/// Products that are remembered; of more only those that stand in the tail alone.
const KNOWN_MAX: usize = 128 * 1024;

/// Asked by the writer before each group.
pub struct Heads {
    known: HashMap<ProductId, (Epoch, Sequence)>,
    tail: Arc<Tail>,
}

impl Heads {
    pub fn new(tail: Arc<Tail>) -> Heads {
        Heads { known: HashMap::new(), tail }
    }

    /// Products of a group that are to be looked up before anything is said about it.
    pub fn unknown(&self, group: &[Append]) -> Vec<ProductId> {
        let entries = group.iter().map(|append| &append.entry);
        let unknown = entries
            .filter(|entry| self.known.get(&entry.product).is_none_or(|(epoch, _)| *epoch != entry.epoch));
        let unknown: BTreeSet<_> = unknown.map(|entry| entry.product).collect();
        unknown.into_iter().collect()
    }

    /// Where the histories of these products end; of those that were not found nothing is written.
    pub fn learn(&mut self, group: &[Append], looked_up: &[ProductId], found: Vec<(ProductId, Sequence)>) {
        if self.known.len() >= KNOWN_MAX {
            let tail = self.tail.all();
            let mut needed: BTreeSet<_> = tail.iter().map(|(_, entry)| entry.product).collect();
            needed.extend(group.iter().map(|append| append.entry.product));
            self.known.retain(|product, _| needed.contains(product));
        }
        let epochs: HashMap<_, _> =
            group.iter().map(|append| (append.entry.product, append.entry.epoch)).collect();
        let epoch = |product: &ProductId| epochs.get(product).copied().unwrap_or_default();
        self.known.extend(looked_up.iter().map(|product| (*product, (epoch(product), Sequence(0)))));
        self.known.extend(found.into_iter().map(|(product, end)| (product, (epoch(&product), end))));
    }

    /// Nothing is remembered any more: nobody knows what was written.
    pub fn forget(&mut self) {
        self.known.clear();
    }

    /// What was written of this product is to be looked up.
    pub fn forget_of(&mut self, product: ProductId) {
        self.known.remove(&product);
    }

    /// Which entries continue their products' histories, those before them in the group counted in.
    pub fn continued_by(&self, group: &[Append]) -> Vec<bool> {
        let mut ends: HashMap<ProductId, Sequence> = HashMap::with_capacity(group.len());
        let mut continues = |entry: &Entry| {
            let known = self.known.get(&entry.product).map(|(_, end)| end);
            let end = ends.get(&entry.product).or(known);
            let continues = entry.first == end.copied().unwrap_or_default().next();
            if continues {
                ends.insert(entry.product, entry.last);
            }
            continues
        };
        group.iter().map(|append| continues(&append.entry)).collect()
    }

    /// The entry is in the journal.
    pub fn written(&mut self, entry: &Entry) {
        self.known.insert(entry.product, (entry.epoch, entry.last));
    }
}
