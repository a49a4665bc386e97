//! An index that never stops to grow: from a hash to the numbers of records, a page at a time.
//!
//! Extendible hashing (Fagin, Nievergelt, Pippenger, Strong 1979): a directory of small tables, each split in two when it
//! is full. Always true: an insertion moves the places of one page at the most, some tens of microseconds' work. One
//! big table would stop everybody for tens of milliseconds at each doubling.

use std::hash::{BuildHasher, Hash as Hashable};

use hashbrown::{DefaultHashBuilder, HashTable};

/// Half a hash, kept beside the record's number: a page is split without looking at a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hash(u32);

/// The bits that find a place in a page's table are the lowest, its tags are made of the highest, so a page is found by
/// those in between.
const PAGE_BITS_FROM: u32 = 10;
const DEPTH_MAX: u32 = 14;
/// A table of 1,024 places, at the fill at which it would have to grow.
const PAGE_PLACES_MAX: usize = 896;

impl Hash {
    pub fn of(hasher: &DefaultHashBuilder, what: impl Hashable) -> Hash {
        Hash(hasher.hash_one(what) as u32)
    }

    /// The table takes its place from the low bits and its tag from the high ones: both must be filled.
    fn wide(self) -> u64 {
        u64::from(self.0) << 32 | u64::from(self.0)
    }

    /// Which of the first `2^depth` directory entries.
    fn entry(self, depth: u32) -> usize {
        (self.0 >> PAGE_BITS_FROM) as usize & ((1 << depth) - 1)
    }
}

#[derive(Debug, Clone, Copy)]
struct Place {
    hash: Hash,
    number: u32,
}

#[derive(Debug, Default)]
struct Page {
    /// How many bits all its hashes share.
    depth: u32,
    table: HashTable<Place>,
}

/// Numbers by hash.
#[derive(Debug)]
pub(super) struct Index {
    depth: u32,
    /// `2^depth` page numbers.
    directory: Vec<u32>,
    pages: Vec<Page>,
    len: usize,
}

impl Default for Index {
    fn default() -> Index {
        Index { depth: 0, directory: vec![0], pages: vec![Page::default()], len: 0 }
    }
}

impl Index {
    pub fn len(&self) -> usize {
        self.len
    }

    fn page_of(&self, hash: Hash) -> usize {
        self.directory[hash.entry(self.depth)] as usize
    }

    /// The number with this hash that `is` the one.
    pub fn find(&self, hash: Hash, is: impl Fn(u32) -> bool) -> Option<u32> {
        let same = |place: &Place| place.hash == hash && is(place.number);
        self.pages[self.page_of(hash)].table.find(hash.wide(), same).map(|place| place.number)
    }

    /// Adds a number that is not there.
    pub fn insert(&mut self, hash: Hash, number: u32) {
        let mut page = self.page_of(hash);
        while self.pages[page].table.len() >= PAGE_PLACES_MAX && self.pages[page].depth < DEPTH_MAX {
            self.split(page, hash);
            page = self.page_of(hash);
        }
        self.pages[page].table.insert_unique(hash.wide(), Place { hash, number }, |place| place.hash.wide());
        self.len += 1;
    }

    pub fn remove(&mut self, hash: Hash, number: u32) {
        let page = self.page_of(hash);
        if let Ok(found) = self.pages[page].table.find_entry(hash.wide(), |place| place.number == number) {
            found.remove();
            self.len -= 1;
        }
    }

    /// Half of the page's places, those with one more bit set, go to a new page.
    fn split(&mut self, page: usize, hash: Hash) {
        let depth = self.pages[page].depth;
        if depth == self.depth {
            self.directory.extend_from_within(..);
            self.depth += 1;
        }
        let full = std::mem::take(&mut self.pages[page].table);
        let mut halves = [const { HashTable::new() }; 2];
        for half in &mut halves {
            half.reserve(PAGE_PLACES_MAX, |place: &Place| place.hash.wide());
        }
        for place in full {
            let half = &mut halves[place.hash.entry(depth + 1) >> depth];
            half.insert_unique(place.hash.wide(), place, |place| place.hash.wide());
        }
        let [zeros, ones] = halves;
        let new = self.pages.len() as u32;
        self.pages[page] = Page { depth: depth + 1, table: zeros };
        self.pages.push(Page { depth: depth + 1, table: ones });
        // Every directory entry that ends in the page's bits, behind a one, leads to the new page now.
        let first = hash.entry(depth) | 1 << depth;
        for entry in self.directory.iter_mut().skip(first).step_by(1 << (depth + 1)) {
            *entry = new;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_is_found_and_what_was_taken_out_is_not() {
        let (hasher, mut index) = (DefaultHashBuilder::default(), Index::default());
        let hash = |number: u32| Hash::of(&hasher, number);
        for number in 0..200_000 {
            index.insert(hash(number), number);
        }
        for number in (0..200_000).step_by(3) {
            index.remove(hash(number), number);
        }
        assert_eq!(index.len(), 200_000 - 66_667);
        for number in 0..200_000 {
            let found = index.find(hash(number), |found| found == number);
            assert_eq!(found.is_some(), number % 3 != 0, "{number}");
        }
        assert!(index.pages.len() > 200, "it was split");
    }

    #[test]
    fn equal_hashes_share_a_page_however_many() {
        let mut index = Index::default();
        (0..5_000).for_each(|number| index.insert(Hash(77), number));
        assert!((0..5_000).all(|number| index.find(Hash(77), |found| found == number) == Some(number)));
    }
}
