//! Where each product's history ends: what keeps a gap or a fork out of the journal.
//!
//! It remembers what was written in this opening; the rest is looked up by whoever puts groups down. Always true: what is not
//! remembered was not written since the opening, or stands where histories are looked up; what is in doubt is looked up in the tail
//! as well, which may be ahead of them; and what was remembered of a product in one epoch says nothing in another, because somebody
//! else may have written in between.

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
    /// `None` for what is in doubt: it may have been written in this opening, and is to be looked up.
    known: HashMap<ProductId, Option<(Epoch, Sequence)>>,
    tail: Arc<Tail>,
}

impl Heads {
    pub fn new(tail: Arc<Tail>) -> Heads {
        Heads { known: HashMap::new(), tail }
    }

    /// Products of a group that are to be looked up before anything is said about it.
    pub fn unknown(&self, group: &[Append]) -> Vec<ProductId> {
        let entries = group.iter().map(|append| &append.entry);
        let is_known = |entry: &Entry| {
            self.known
                .get(&entry.product)
                .is_some_and(|known| known.is_some_and(|(epoch, _)| epoch == entry.epoch))
        };
        let unknown: BTreeSet<_> =
            entries.filter(|entry| !is_known(entry)).map(|entry| entry.product).collect();
        unknown.into_iter().collect()
    }

    /// What the tail has of those among them that may have been written in this opening. To be asked before they are looked up: what
    /// leaves the tail stands there by then.
    pub fn in_tail(&self, unknown: &[ProductId]) -> Vec<(ProductId, Sequence)> {
        let doubted: BTreeSet<_> =
            unknown.iter().filter(|product| self.known.contains_key(product)).collect();
        if doubted.is_empty() {
            return Vec::new();
        }
        let tail = self.tail.all();
        let ends = tail.iter().map(|(_, entry)| (entry.product, entry.last));
        ends.filter(|(product, _)| doubted.contains(product)).collect()
    }

    /// Where the histories of these products end, the furthest that was found of each; of those that were not found nothing is written.
    pub fn learn(
        &mut self,
        group: &[Append],
        looked_up: &[ProductId],
        found: impl IntoIterator<Item = (ProductId, Sequence)>,
    ) {
        if self.known.len() >= KNOWN_MAX {
            let tail = self.tail.all();
            let mut needed: BTreeSet<_> = tail.iter().map(|(_, entry)| entry.product).collect();
            needed.extend(group.iter().map(|append| append.entry.product));
            self.known.retain(|product, _| needed.contains(product));
        }
        let epochs: HashMap<_, _> =
            group.iter().map(|append| (append.entry.product, append.entry.epoch)).collect();
        let mut ends: HashMap<_, _> = looked_up.iter().map(|product| (*product, Sequence(0))).collect();
        for (product, end) in found {
            let furthest = ends.entry(product).or_default();
            *furthest = end.max(*furthest);
        }
        let epoch = |product: &ProductId| epochs.get(product).copied().unwrap_or_default();
        self.known.extend(ends.into_iter().map(|(product, end)| (product, Some((epoch(&product), end)))));
    }

    /// Nothing is remembered any more: nobody knows what was written.
    pub fn forget(&mut self) {
        self.known.clear();
    }

    /// What was written of this product is to be looked up.
    pub fn doubt(&mut self, product: ProductId) {
        self.known.insert(product, None);
    }

    /// Which entries continue their products' histories, those before them in the group counted in.
    pub fn continued_by(&self, group: &[Append]) -> Vec<bool> {
        let mut ends: HashMap<ProductId, Sequence> = HashMap::with_capacity(group.len());
        let mut continues = |entry: &Entry| {
            let known = self.known.get(&entry.product).copied().flatten().map(|(_, end)| end);
            let end = ends.get(&entry.product).copied().or(known);
            let continues = entry.first == end.unwrap_or_default().next();
            if continues {
                ends.insert(entry.product, entry.last);
            }
            continues
        };
        group.iter().map(|append| continues(&append.entry)).collect()
    }

    /// The entry is in the journal.
    pub fn written(&mut self, entry: &Entry) {
        self.known.insert(entry.product, Some((entry.epoch, entry.last)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::stock::Millis;
    use crate::persistence::testing::Owner;

    const T0: Millis = Millis(1_700_000_000_000);

    #[test]
    fn what_is_in_doubt_is_looked_up_in_the_tail_as_well() {
        let mut shop = Owner::stocked(1, 10);
        let (first, product) = (shop.seal(T0), shop.product);
        let append = || Append { entry: first.clone(), reply: Box::new(|_| ()) };
        let tail = Arc::new(Tail::default());
        let mut heads = Heads::new(tail.clone());
        assert_eq!(heads.unknown(&[append()]), [product]);
        assert!(heads.in_tail(&[product]).is_empty(), "nothing of it was written in this opening");
        tail.push(1, [first.clone()].into_iter());
        heads.written(&first);
        assert!(heads.unknown(&[append()]).is_empty());
        heads.doubt(product);
        assert_eq!(heads.unknown(&[append()]), [product]);
        let written = heads.in_tail(&[product]);
        assert_eq!(written, [(product, first.last)]);
        // The archive has not come to it: nothing is found elsewhere.
        heads.learn(&[append()], &[product], written);
        assert_eq!(heads.continued_by(&[append()]), [false], "it stands there already");
    }
}
