//! What a thread keeps of other nodes, each by its address, for as long as it has to do with them.

use hashbrown::HashMap;

/// What nobody has used for so long is forgotten.
const UNUSED_NS: u64 = 60_000_000_000;

struct Used<T> {
    kept: T,
    used_ns: u64,
}

/// By address. Always true: whatever was used within the last minute is there; the rest goes when something new comes.
pub struct Lately<T>(HashMap<String, Used<T>>);

impl<T> Default for Lately<T> {
    fn default() -> Lately<T> {
        Lately(HashMap::new())
    }
}

impl<T: Clone> Lately<T> {
    /// What is kept of that address, which is used now; made anew where there is nothing.
    pub fn of(&mut self, address: &str, now_ns: u64, make: impl FnOnce() -> T) -> T {
        if let Some(used) = self.0.get_mut(address) {
            used.used_ns = now_ns;
            return used.kept.clone();
        }
        self.0.retain(|_, used| now_ns.saturating_sub(used.used_ns) < UNUSED_NS);
        let kept = make();
        self.0.insert(address.to_owned(), Used { kept: kept.clone(), used_ns: now_ns });
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_what_is_not_goes_after_a_minute() {
        let mut lately = Lately::default();
        assert_eq!(lately.of("a", 1, || 1), 1);
        assert_eq!(lately.of("b", 2, || 2), 2);
        assert_eq!(lately.of("a", UNUSED_NS, || 3), 1);
        assert_eq!(lately.of("c", UNUSED_NS + 2, || 4), 4);
        assert_eq!(lately.of("a", UNUSED_NS + 3, || 5), 1);
        assert_eq!(lately.of("b", UNUSED_NS + 3, || 6), 6, "it was forgotten when another one came");
    }
}
