//! What happened, as one number and, on request, as text.
//!
//! The number covers every event of a history with its time; two runs of one seed must give the same.

use crate::chance::mix;
use crate::time::Micros;

#[derive(Debug, Default)]
pub struct Trace {
    hash: u64,
    pub events: u64,
    /// Print each line as it happens.
    pub aloud: bool,
}

impl Trace {
    pub fn new(aloud: bool) -> Trace {
        Trace { aloud, ..Trace::default() }
    }

    /// Notes one event: its time, its kind and two numbers that tell it from its like.
    pub fn note(&mut self, at: Micros, kind: &'static str, a: u64, b: u64) {
        self.events += 1;
        let name = kind.bytes().fold(0u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
        for word in [at as u64, name, a, b] {
            self.hash = mix(self.hash.rotate_left(5) ^ word);
        }
    }

    /// A line for the reader. Costs nothing when nobody reads.
    pub fn say(&self, at: Micros, line: impl FnOnce() -> String) {
        if self.aloud {
            println!("{:>3}.{:06} {}", at / 1_000_000, at % 1_000_000, line());
        }
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }
}
