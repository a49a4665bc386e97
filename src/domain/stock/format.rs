//! What may stand in a journal, as one number: which events in which versions, and which snapshots of ledgers.
//!
//! Always true: whoever knows a number reads all that was ever written under it or a smaller one. Each store says the largest that anybody has
//! written there, so a program that does not know it opens nothing, instead of meeting later what it cannot read.

/// What this program writes, and the most that it reads. Whatever is new in `kinds!`, and a new version of snapshots, raises it, and the
/// changelog says so: who has written under it leaves no way back.
pub const FORMAT: i64 = 1;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::FORMAT;
    use crate::domain::stock::{event, snapshot};

    /// What a format may hold that the one before it may not.
    struct New {
        /// Events: kind and version.
        events: &'static [(u8, u8)],
        /// The version of snapshots.
        snapshot: u8,
    }

    /// By format, from the first on. A row of a version that has been released never changes: what is new is in a row of its own.
    const FORMATS: &[New] = &[New {
        events: &[
            (1, 1),
            (2, 1),
            (3, 1),
            (4, 1),
            (5, 1),
            (6, 1),
            (7, 1),
            (8, 1),
            (9, 1),
            (10, 1),
            (10, 2),
            (11, 1),
            (11, 2),
            (12, 1),
            (12, 2),
            (13, 1),
            (14, 1),
            (15, 1),
            (15, 2),
            (16, 1),
            (16, 2),
        ],
        snapshot: 2,
    }];

    #[test]
    fn what_is_new_in_the_journal_has_a_number_of_its_own() {
        let told = "raise FORMAT, add a row to FORMATS with what is new, and say so in the changelog";
        assert_eq!(FORMATS.len() as i64, FORMAT, "{told}");
        let listed: BTreeSet<_> = FORMATS.iter().flat_map(|new| new.events).copied().collect();
        let known: BTreeSet<_> = event::KINDS.iter().copied().collect();
        assert_eq!(listed, known, "{told}");
        assert_eq!(FORMATS.last().map(|new| new.snapshot), Some(snapshot::VERSION), "{told}");
        assert!(FORMATS.is_sorted_by_key(|new| new.snapshot));
    }
}
