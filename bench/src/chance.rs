//! The harness's dice. Everything random in a run comes from one seed through SplitMix64 (Steele, Lea and Flood,
//! 2014), so that a seed printed by a failing run throws the same dice again.

/// A generator with 64 bits of state; good enough to choose products and moments, and never used for secrets.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Uniform in `low..high`; `low` if the range is empty.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.roll() % high.saturating_sub(low).max(1)
    }

    /// True once in `n` throws.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.between(0, n) == 0
    }

    /// Uniform in `[0, 1)`.
    pub fn fraction(&mut self) -> f64 {
        unit(self.roll())
    }
}

/// Popularity after Zipf: product `k` (from 0) is asked for in proportion to `1 / (k + 1)^exponent`. Exponent 0 is uniform.
#[derive(Clone, Debug)]
pub struct Zipf {
    cumulative: Vec<f64>,
}

impl Zipf {
    pub fn new(products: usize, exponent: f64) -> Self {
        let mut total = 0.0;
        let mut cumulative: Vec<f64> = (1..=products)
            .map(|rank| {
                total += (rank as f64).powf(-exponent);
                total
            })
            .collect();
        cumulative.iter_mut().for_each(|share| *share /= total);
        Self { cumulative }
    }

    /// The product of the `number`-th throw of `seed`: always the same one, whoever asks and in whatever order.
    pub fn pick(&self, seed: u64, number: u64) -> usize {
        if self.cumulative.len() == 1 {
            return 0;
        }
        let point = unit(mix(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        self.cumulative.partition_point(|&share| share <= point).min(self.cumulative.len() - 1)
    }
}

fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_throws_the_same_dice() {
        let (mut a, mut b) = (Dice::new(7), Dice::new(7));
        assert!((0..100).all(|_| a.roll() == b.roll()));
    }

    #[test]
    fn zipf_prefers_the_first_and_reaches_the_tail() {
        let zipf = Zipf::new(100, 1.0);
        let mut hits = vec![0u32; 100];
        (0..100_000).for_each(|n| hits[zipf.pick(3, n)] += 1);
        assert!(hits[0] > 15_000 && hits[0] < 24_000, "{}", hits[0]);
        assert!(hits.iter().all(|&h| h > 0));
    }
}
