//! Keys of orders made over a week ago: a filter that never misses one, and now and then finds one that was never there.

use qfilter::Filter;

use crate::domain::stock::Fingerprint;

/// Keys of a shard that are room for at first.
const FIRST: u64 = 64;
/// Keys of a shard that there is room for: four thousand million in all shards together.
const MOST: u64 = 1 << 22;
/// How many keys that were never used are asked for in the tables, where there are most.
const FALSE_ONES: f64 = 0.001;

/// The old keys of a shard, at three to six bytes each.
#[derive(Debug, Default)]
pub(super) struct PastKeys {
    filter: Option<Box<Filter>>,
    /// More than there is room for, so that nothing is known any more.
    is_full: bool,
}

impl PastKeys {
    pub fn insert(&mut self, print: Fingerprint) {
        if self.filter.is_none() {
            self.filter = Filter::new_resizeable(FIRST, MOST, FALSE_ONES).ok().map(Box::new);
        }
        let inserted = self.filter.as_mut().map(|filter| filter.insert(print.bits()));
        self.is_full |= !matches!(inserted, Some(Ok(_)));
    }

    /// Whether it may be one of them.
    pub fn contains(&self, print: Fingerprint) -> bool {
        self.is_full || self.filter.as_ref().is_some_and(|filter| filter.contains(print.bits()))
    }

    pub fn len(&self) -> usize {
        self.filter.as_ref().map_or(0, |filter| usize::try_from(filter.len()).unwrap_or(usize::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::UserId;
    use crate::domain::stock::Millis;

    fn print(number: u128) -> Fingerprint {
        Fingerprint::of(UserId::new(Millis(1), number), [7; 16])
    }

    #[test]
    fn it_misses_none_and_finds_few_that_were_never_there() {
        let mut past = PastKeys::default();
        assert!(!past.contains(print(1)));
        for number in 0..50_000 {
            past.insert(print(number));
            past.insert(print(number));
        }
        assert!((0..50_000).all(|number| past.contains(print(number))));
        let found = (50_000..150_000).filter(|number| past.contains(print(*number))).count();
        assert!(found < 100, "{found} of 100,000");
        let room = past.filter.as_ref().unwrap().memory_usage();
        assert!(
            (49_990..=50_000).contains(&past.len()) && room < 6 * 50_000,
            "{} in {room} bytes",
            past.len()
        );
    }

    #[test]
    fn where_there_is_no_more_room_any_key_may_be_one_of_them() {
        let mut past = PastKeys { filter: Filter::new(1, 0.01).ok().map(Box::new), is_full: false };
        for number in 0..1_000 {
            past.insert(print(number));
        }
        assert!((0..2_000).all(|number| past.contains(print(number))));
    }
}
