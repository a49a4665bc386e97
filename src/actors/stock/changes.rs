//! Which owners have published since somebody looked last: a flag each, and a list of those whose flag is set.
//!
//! Always true: where nobody looks, a publication costs the reading of one `bool`; where somebody does, a product is in the list once,
//! however often it is published meanwhile, and whoever takes it sees the newest view. What has no room is told as *all of them*.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::answer::View;
use super::shared::Shared;
use crate::domain::id::ProductId;

/// The most products that are told one by one.
pub const CHANGED_MAX: usize = 16_384;

/// What an owner shows, also after it has gone.
#[derive(Debug, Clone)]
pub struct Published(Arc<Shared>);

impl Published {
    pub(super) fn of(owner: Arc<Shared>) -> Published {
        Published(owner)
    }

    pub fn product(&self) -> ProductId {
        self.0.product
    }

    /// Its newest view. Whatever is published later is told again.
    pub fn take(&self) -> Option<Arc<View>> {
        // First the flag: a view that comes in between is read now and told once too often.
        self.0.changed().store(false, Ordering::SeqCst);
        self.0.view()
    }
}

/// Since somebody looked last.
#[derive(Debug, Default)]
pub struct Changes {
    heard: bool,
    owners: Mutex<Vec<Published>>,
    overflowed: AtomicBool,
}

impl Changes {
    /// Nobody looks.
    pub fn unheard() -> Changes {
        Changes::default()
    }

    /// Somebody looks, again and again.
    pub fn heard() -> Changes {
        Changes { heard: true, ..Changes::default() }
    }

    /// The owner has published.
    #[inline]
    pub(super) fn note(&self, owner: &Arc<Shared>) {
        // In the rush it was told a moment ago, and nobody has looked since.
        if self.heard && !owner.changed().swap(true, Ordering::SeqCst) {
            self.add(owner);
        }
    }

    /// Somebody may have published, and was not heard here: whoever looks next looks at all of them.
    pub fn doubt(&self) {
        if self.heard {
            self.overflowed.store(true, Ordering::SeqCst);
        }
    }

    fn add(&self, owner: &Arc<Shared>) {
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        if owners.len() < CHANGED_MAX {
            owners.push(Published(owner.clone()));
        } else {
            self.overflowed.store(true, Ordering::SeqCst);
        }
    }

    /// Puts those who have published into an empty list; `false` if it could not be said of all of them.
    pub fn take(&self, into: &mut Vec<Published>) -> bool {
        into.clear();
        std::mem::swap(into, &mut *self.owners.lock().unwrap_or_else(PoisonError::into_inner));
        !self.overflowed.swap(false, Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::stock::Millis;

    fn owner(number: u128) -> Arc<Shared> {
        Arc::new(Shared::new(ProductId::new(Millis(1), number)))
    }

    #[test]
    fn a_product_is_told_once_until_it_is_looked_at() {
        let (changes, owner, mut list) = (Changes::heard(), owner(1), Vec::new());
        changes.note(&owner);
        changes.note(&owner);
        assert!(changes.take(&mut list) && list.len() == 1);
        // Taken from the list and not looked at yet: it is going to be.
        changes.note(&owner);
        list[0].take();
        changes.note(&owner);
        assert!(changes.take(&mut list) && list.len() == 1);
    }

    #[test]
    fn too_many_are_told_as_all() {
        let (changes, mut list) = (Changes::heard(), Vec::new());
        (0..=CHANGED_MAX as u128).for_each(|number| changes.note(&owner(number)));
        assert!(!changes.take(&mut list) && list.len() == CHANGED_MAX);
        assert!(changes.take(&mut list) && list.is_empty());
        changes.doubt();
        assert!(!changes.take(&mut list));
        assert!(changes.take(&mut list) && list.is_empty());
    }

    #[test]
    fn where_nobody_looks_nothing_is_kept() {
        let (changes, mut list) = (Changes::unheard(), Vec::new());
        changes.note(&owner(1));
        assert!(changes.take(&mut list) && list.is_empty());
    }
}
