//! Which products are hot: the few that are shown to operators one by one.
//!
//! Always true: there are never more than [`HOT_PRODUCTS_MAX`], the busiest stay, and a product comes or goes seldom enough for
//! whoever keeps a series of each.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::answer::View;
use super::directory::Directory;
use crate::domain::id::ProductId;

/// The most products that are shown.
pub const HOT_PRODUCTS_MAX: usize = 20;
/// Events between two looks that make a product hot.
const HOT_EVENTS: u64 = 5;
/// Looks for which a product stays hot after the last that showed so many.
const HOT_FOR_LOOKS: u64 = 60;

/// How hot a product is.
#[derive(Debug, Clone, Copy)]
struct Heat {
    /// Events of its latest looks, the older the less they count.
    events: u64,
    /// The look that showed enough of them last.
    last: u64,
}

/// Looks again and again, about once a second.
pub struct HotProducts {
    directory: Directory,
    hot: BTreeMap<ProductId, Heat>,
    looks: u64,
}

impl HotProducts {
    pub fn of(directory: &Directory) -> HotProducts {
        HotProducts { directory: directory.clone(), hot: BTreeMap::new(), looks: 0 }
    }

    /// Those that are hot now, with what their owners show.
    pub fn look(&mut self) -> Vec<(ProductId, Arc<View>)> {
        self.looks += 1;
        let moved = self.directory.moved(HOT_EVENTS);
        note(&mut self.hot, moved, self.looks);
        let shown = self.hot.keys().map(|product| (*product, self.directory.peek(*product)));
        shown.filter_map(|(product, view)| Some((product, view?))).collect()
    }
}

fn note(hot: &mut BTreeMap<ProductId, Heat>, mut moved: Vec<(ProductId, u64)>, look: u64) {
    hot.values_mut().for_each(|heat| heat.events -= heat.events / 4);
    hot.retain(|_, heat| look - heat.last <= HOT_FOR_LOOKS);
    moved.sort_unstable_by_key(|(_, events)| std::cmp::Reverse(*events));
    for (product, events) in moved {
        if let Some(heat) = hot.get_mut(&product) {
            *heat = Heat { events: heat.events.max(events), last: look };
            continue;
        }
        if hot.len() >= HOT_PRODUCTS_MAX {
            // Whoever is to go is clearly behind, so that two that are alike do not take turns.
            let coolest = hot.iter().min_by_key(|(_, heat)| heat.events).map(|(id, heat)| (*id, heat.events));
            match coolest {
                Some((coolest, heat)) if events > heat.saturating_mul(2) => hot.remove(&coolest),
                _ => continue,
            };
        }
        hot.insert(product, Heat { events, last: look });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::stock::Millis;

    fn product(number: usize) -> ProductId {
        ProductId::new(Millis(1), number as u128)
    }

    #[test]
    fn a_few_are_hot_and_the_busiest_are_among_them() {
        let mut hot = BTreeMap::new();
        let all = |events: u64| (0..2 * HOT_PRODUCTS_MAX).map(|number| (product(number), events)).collect();
        note(&mut hot, all(HOT_EVENTS), 1);
        assert_eq!(hot.len(), HOT_PRODUCTS_MAX);
        let before: Vec<_> = hot.keys().copied().collect();
        // Others that are as busy change nothing; one that is much busier takes a place.
        note(&mut hot, all(HOT_EVENTS), 2);
        assert!(hot.keys().copied().eq(before));
        note(&mut hot, vec![(product(1_000), 50_000)], 3);
        assert!(hot.len() == HOT_PRODUCTS_MAX && hot.contains_key(&product(1_000)));
    }

    #[test]
    fn a_product_is_shown_for_a_while_after_the_rush() {
        let mut hot = BTreeMap::new();
        note(&mut hot, vec![(product(1), HOT_EVENTS)], 1);
        note(&mut hot, Vec::new(), 1 + HOT_FOR_LOOKS);
        assert_eq!(hot.len(), 1);
        note(&mut hot, Vec::new(), 2 + HOT_FOR_LOOKS);
        assert!(hot.is_empty());
    }
}
