//! Chance: a small generator (xoshiro256**, seeded by splitmix64) that is the same on every machine.
//!
//! Everything random in a history comes from here, and everything here comes from the seed.

/// A stream of chance.
#[derive(Debug, Clone)]
pub struct Chance {
    state: [u64; 4],
}

fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mix(*state)
}

/// Spreads the bits of one word over all of it.
pub fn mix(word: u64) -> u64 {
    let z = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Chance {
    /// The stream `label` of a seed. Streams of one seed have nothing to do with each other.
    pub fn new(seed: u64, label: u64) -> Chance {
        let mut state = mix(seed) ^ mix(label.wrapping_add(0x51ed_270b));
        Chance { state: std::array::from_fn(|_| splitmix(&mut state)) }
    }

    /// 64 bits.
    pub fn word(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let answer = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let t = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= t;
        *d = d.rotate_left(45);
        answer
    }

    /// 128 bits, for ids.
    pub fn wide(&mut self) -> u128 {
        (u128::from(self.word()) << 64) | u128::from(self.word())
    }

    /// A number from 0 up to, not including, `n`; 0 when `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.word()) * u128::from(n)) >> 64) as u64
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        low + self.below((high - low + 1).max(1) as u64) as i64
    }

    /// True `n` times in a hundred.
    pub fn percent(&mut self, n: u64) -> bool {
        self.below(100) < n
    }

    /// An index into something of this length; 0 for the empty.
    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// One of these, each equally likely.
    pub fn one_of<T: Copy, const N: usize>(&mut self, these: [T; N]) -> T {
        these[self.index(N)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_stream_and_a_label_another() {
        let take = |seed, label| {
            let mut chance = Chance::new(seed, label);
            [chance.word(), chance.word(), chance.word()]
        };
        assert_eq!(take(1, 1), take(1, 1));
        assert_ne!(take(1, 1), take(1, 2));
        assert_ne!(take(1, 1), take(2, 1));
    }

    #[test]
    fn bounds_are_kept() {
        let mut chance = Chance::new(7, 7);
        for _ in 0..1_000 {
            assert!(chance.below(3) < 3);
            assert!((-2..=2).contains(&chance.between(-2, 2)));
        }
        assert_eq!(chance.below(0), 0);
    }
}
