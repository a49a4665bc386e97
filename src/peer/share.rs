//! What other nodes may have asked for those who shop there and not been answered: all of them together, and each one's share of it.
//!
//! A node is told from another by the address that its connections come from, for the key that they prove is everybody's. Always true:
//! while there is room it is whoever's comes first, so what one node does not use others have; when there is none, whoever has less than
//! an equal share of it gets in all the same, and nobody else does. So a node that floods is held up by itself alone.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::FLIGHT_MAX;

/// Whether one who has `mine` may have one more: if everybody had as much as he has then, or less where that is all that he wants, it would
/// be `most` at the most (max-min fairness). What somebody has beyond that level, from when there was room, is not held against others.
fn may_have_one_more(most: usize, mine: usize, others: impl Iterator<Item = usize>) -> bool {
    let level = mine.saturating_add(1);
    others.fold(level, |sum, other| sum.saturating_add(other.min(level))) <= most
}

/// The room that nodes share.
pub struct Shares {
    most: usize,
    taken: AtomicUsize,
    /// What each of those has taken that are connected, or have something begun.
    nodes: Mutex<BTreeMap<IpAddr, Weak<AtomicUsize>>>,
}

impl Shares {
    pub fn new(most: usize) -> Arc<Shares> {
        Arc::new(Shares { most, taken: AtomicUsize::new(0), nodes: Mutex::default() })
    }

    /// For one connection of the node at that address.
    pub fn of(self: &Arc<Shares>, node: IpAddr) -> Share {
        let (node, mut nodes) = (node.to_canonical(), self.nodes());
        nodes.retain(|_, taken| taken.strong_count() > 0);
        let taken = nodes.get(&node).and_then(Weak::upgrade).unwrap_or_default();
        nodes.insert(node, Arc::downgrade(&taken));
        Share { all: self.clone(), taken }
    }

    fn nodes(&self) -> MutexGuard<'_, BTreeMap<IpAddr, Weak<AtomicUsize>>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One node's share, as a connection of it has it.
pub struct Share {
    all: Arc<Shares>,
    taken: Arc<AtomicUsize>,
}

impl Share {
    /// Of a connection that shares with nobody.
    pub(super) fn alone() -> Share {
        Shares::new(FLIGHT_MAX).of(Ipv4Addr::UNSPECIFIED.into())
    }

    /// Takes a place, if there is one for this node. Threads that ask in the same moment may have one more each.
    pub(super) fn take(&self) -> bool {
        let is_free = self.all.taken.load(Ordering::Relaxed) < self.all.most || self.is_below_its_part();
        if is_free {
            self.taken.fetch_add(1, Ordering::Relaxed);
            self.all.taken.fetch_add(1, Ordering::Relaxed);
        }
        is_free
    }

    /// What was taken.
    pub(super) fn give_back(&self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
        self.all.taken.fetch_sub(1, Ordering::Relaxed);
    }

    fn is_below_its_part(&self) -> bool {
        let nodes = self.all.nodes();
        let others =
            nodes.values().filter_map(Weak::upgrade).filter(|taken| !Arc::ptr_eq(taken, &self.taken));
        let mine = self.taken.load(Ordering::Relaxed);
        may_have_one_more(self.all.most, mine, others.map(|taken| taken.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MOST: usize = 12;

    fn node(number: u8) -> IpAddr {
        [10, 0, 0, number].into()
    }

    fn taken(share: &Share, tries: usize) -> usize {
        (0..tries).filter(|_| share.take()).count()
    }

    #[test]
    fn what_one_leaves_others_have_and_no_more_than_is_left() {
        let shares = Shares::new(MOST);
        let [flood, other, third] = [1, 2, 3].map(|number| shares.of(node(number)));
        assert_eq!(taken(&flood, 100), MOST, "nobody else wants it");
        assert_eq!(taken(&other, 100), MOST / 2, "an equal share of it, though there is no room");
        assert_eq!(taken(&third, 100), MOST / 3);
        assert_eq!((taken(&flood, 1), taken(&other, 1)), (0, 0));
        // What goes of the flood is for nobody before it is less than its part.
        for _ in 0..MOST - MOST / 3 {
            assert_eq!(taken(&flood, 1), 0);
            flood.give_back();
        }
        assert_eq!(taken(&flood, 100), 0, "it has a third");
        other.give_back();
        other.give_back();
        assert_eq!(taken(&flood, 100), 0, "and so has each");
        third.give_back();
        assert_eq!((taken(&flood, 100), taken(&third, 100)), (1, 1), "who has less than his part gets in");
    }

    #[test]
    fn a_node_has_one_share_however_many_connections_it_has() {
        let shares = Shares::new(MOST);
        let flood: Vec<_> = (0..4).map(|_| shares.of(node(1))).collect();
        let mapped = shares.of("::ffff:10.0.0.1".parse().unwrap());
        assert_eq!(flood.iter().map(|share| taken(share, 100)).sum::<usize>(), MOST);
        let other = shares.of(node(2));
        assert_eq!((taken(&other, 100), taken(&mapped, 100)), (MOST / 2, 0));
        (0..MOST / 2).for_each(|_| other.give_back());
        drop(other);
        assert_eq!(shares.of(node(3)).all.nodes().len(), 2, "whoever has gone is forgotten");
    }

    #[test]
    fn whoever_shares_with_nobody_has_what_one_connection_may_carry() {
        let alone = Share::alone();
        assert_eq!(taken(&alone, 2 * FLIGHT_MAX), FLIGHT_MAX);
    }

    proptest! {
        /// By turns, until nobody gets more: each has what he wants, or as much as anybody else has.
        #[test]
        fn nobody_could_have_more_but_from_somebody_who_has_no_more_than_he(
            most in 1_usize..60,
            wants in proptest::collection::vec(0_usize..40, 1..8),
        ) {
            let mut has = vec![0; wants.len()];
            while let Some(next) = (0..has.len()).filter(|n| has[*n] < wants[*n]).min_by_key(|n| has[*n]) {
                let others = has.iter().enumerate().filter(|(n, _)| *n != next).map(|(_, has)| *has);
                if !may_have_one_more(most, has[next], others) {
                    break;
                }
                has[next] += 1;
            }
            prop_assert_eq!(has.iter().sum::<usize>(), most.min(wants.iter().sum()));
            for (n, want) in wants.iter().enumerate().filter(|(n, want)| has[*n] < **want) {
                prop_assert!(has.iter().all(|other| *other <= has[n] + 1), "{n} wants {want}: {has:?}");
            }
        }

        /// However much the others have taken while there was room.
        #[test]
        fn below_an_equal_part_somebody_always_gets_in(
            most in 1_usize..60,
            others in proptest::collection::vec(0_usize..100, 0..8),
        ) {
            let part = most / (others.len() + 1);
            for mine in 0..part {
                prop_assert!(may_have_one_more(most, mine, others.iter().copied()));
            }
            prop_assert!(!may_have_one_more(most, most, others.iter().copied()));
        }
    }
}
