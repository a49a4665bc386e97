//! The mirror as its scripts keep it in Redis: of each product the newest view, and one beat.
//!
//! Always true: nothing older takes the place of something newer; a view is told only while its generation is the beat's; a
//! writer whose beat is gone, or another's, hears so. The test `conformance` plays the same writes, beats and looks against
//! this and, with the shop's own scripts, against a server, and each [`Flaw`] must be seen there. Time is left out: how
//! old a view is, Redis says by its own clock. Nothing lapses.

use std::collections::BTreeMap;

use stockade::domain::stock::Epoch;
use stockade::persistence::redis::{Beat, Generation, Version, Wrote};

/// A mistake, to see that it is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// What comes last stands there.
    OlderReplaces,
    /// A view is told whatever its generation.
    AnyGeneration,
    /// A beat that is gone, or another's, is set again as if nothing had happened.
    BeatsOn,
    /// An older owner's beat takes the place of a newer one's.
    AnyEpoch,
    /// What was thrown away is still there.
    KeepsAll,
}

impl Flaw {
    pub const ALL: [Flaw; 5] =
        [Flaw::OlderReplaces, Flaw::AnyGeneration, Flaw::BeatsOn, Flaw::AnyEpoch, Flaw::KeepsAll];
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Stored<V> {
    version: Version,
    generation: Generation,
    view: V,
}

#[derive(Debug, Clone)]
pub struct Store<P, V> {
    views: BTreeMap<P, Stored<V>>,
    beat: Option<(Epoch, Generation)>,
    flaw: Option<Flaw>,
}

impl<P: Ord, V: Clone> Store<P, V> {
    pub fn new(flaw: Option<Flaw>) -> Store<P, V> {
        Store { views: BTreeMap::new(), beat: None, flaw }
    }

    pub fn write(
        &mut self,
        generation: &Generation,
        views: impl IntoIterator<Item = (P, Version, V)>,
    ) -> Wrote {
        let mut wrote = Wrote::default();
        for (product, version, view) in views {
            let known = self.views.get(&product).map(|stored| stored.version);
            if known > Some(version) && self.flaw != Some(Flaw::OlderReplaces) {
                wrote.older += 1;
                continue;
            }
            let same = known == Some(version);
            (wrote.same, wrote.changed) = (wrote.same + u64::from(same), wrote.changed + u64::from(!same));
            self.views.insert(product, Stored { version, generation: generation.clone(), view });
        }
        wrote
    }

    /// `first`: of this generation.
    pub fn beat(&mut self, epoch: Epoch, generation: &Generation, first: bool) -> Beat {
        let known = self.beat.as_ref();
        if known.is_some_and(|(newest, _)| *newest > epoch) && self.flaw != Some(Flaw::AnyEpoch) {
            return Beat::Older;
        }
        let is_there = known.is_some_and(|(_, known)| known == generation);
        if !first && !is_there && self.flaw != Some(Flaw::BeatsOn) {
            return Beat::Lost;
        }
        self.beat = Some((epoch, generation.clone()));
        Beat::Kept
    }

    pub fn look(&self, product: &P) -> Option<V> {
        let (_, current) = self.beat.as_ref()?;
        let any = self.flaw == Some(Flaw::AnyGeneration);
        let stored = self.views.get(product).filter(|stored| any || stored.generation == *current);
        stored.map(|stored| stored.view.clone())
    }

    /// What stands under a product, whatever it is worth.
    pub fn stored(&self, product: &P) -> Option<(Generation, V)> {
        self.views.get(product).map(|stored| (stored.generation.clone(), stored.view.clone()))
    }

    pub fn forget(&mut self, product: &P) {
        self.views.remove(product);
    }

    /// All of it is thrown away, or the server comes back empty.
    pub fn flush(&mut self) {
        if self.flaw != Some(Flaw::KeepsAll) {
            self.views.clear();
            self.beat = None;
        }
    }
}
