//! The targets on stable Rust: every seed and known nasty input of `fuzz/corpus` as it stands, and then changed by a seeded hand.
//!
//! `STOCKADE_FUZZ_ROUNDS` says how often each target is tried, `STOCKADE_FUZZ_SEED` how, `STOCKADE_FUZZ_TARGET` which alone, and
//! `STOCKADE_FUZZ_SECONDS` for how long instead of how often: `scripts/fuzz` sets them. An input that fails is printed, and left in the
//! target's corpus, where it fails until it is mended.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use super::{TARGETS, Target};
use crate::clock::Clock;

/// How often each target is tried, where nobody says otherwise: some tenths of a second.
const ROUNDS: u64 = 1_500;
/// The longest input that is made.
const BYTES_MAX: usize = 16_384;

fn corpus(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target.name)
}

fn seeds(target: &Target) -> Vec<Vec<u8>> {
    let files = fs::read_dir(corpus(target)).unwrap_or_else(|error| panic!("{}: {error}", target.name));
    let mut paths: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|word| word.parse().unwrap_or_else(|_| panic!("{name}={word} is no number")))
}

/// SplitMix64: small, and the same everywhere.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    fn place(&mut self, bytes: &[u8]) -> usize {
        self.below(bytes.len() + 1)
    }
}

/// What ends or stretches things in one format or another.
const ODD: &[&[u8]] = &[
    b"\0",
    b"\r\n",
    b"\n",
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[[",
    b"]",
    b",",
    b":",
    b";",
    b"=",
    b"%00",
    b"%",
    b"-",
    b"+",
    b".",
    b"..",
    b"/",
    b"0",
    b"-1",
    b"1e999",
    b"18446744073709551616",
    b"9223372036854775807",
    b"null",
    b"\\u0000",
    b"\\ud800",
    b"\xff\xfe",
    b"\xe2\x80\xa8",
    b"\xc2\xa0",
    b"\xef\xbf\xbd",
    b"\x7f",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\x80",
];

fn changed(seeds: &[Vec<u8>], chance: &mut Chance) -> Vec<u8> {
    let mut bytes = seeds[chance.below(seeds.len())].clone();
    for _ in 0..=chance.below(4) {
        let at = chance.place(&bytes);
        match chance.below(9) {
            0 if at < bytes.len() => bytes[at] ^= 1 << chance.below(8),
            1 if at < bytes.len() => bytes[at] = chance.next() as u8,
            2 => bytes.truncate(at),
            3 => bytes.insert(at, chance.next() as u8),
            4 => {
                let end = at + chance.below(bytes.len() - at + 1).min(32);
                bytes.drain(at..end);
            }
            5 => {
                let odd = ODD[chance.below(ODD.len())];
                bytes.splice(at..at, odd.iter().copied());
            }
            6 => {
                let end = at + chance.below(bytes.len() - at + 1).min(64);
                let piece = bytes[at..end].to_vec();
                let to = chance.place(&bytes);
                bytes.splice(to..to, piece.repeat(1 + chance.below(8)));
            }
            7 => {
                let other = &seeds[chance.below(seeds.len())];
                let from = chance.place(other);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            _ => {
                let odd = ODD[chance.below(ODD.len())];
                let end = (at + odd.len()).min(bytes.len());
                bytes.splice(at..end, odd.iter().copied());
            }
        }
    }
    bytes.truncate(BYTES_MAX);
    bytes
}

/// Tries one input; one that fails is kept.
fn attempt(target: &Target, bytes: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| (target.run)(bytes))).is_err() {
        let path = corpus(target).join(format!("failed-{:016x}", xxh3_64(bytes)));
        let kept = fs::write(&path, bytes);
        panic!(
            "{} fails on {:?}, kept in {} ({kept:?})",
            target.name,
            bytes.escape_ascii().to_string(),
            path.display()
        );
    }
}

/// Runs a target until it has been tried so often, or for so long; how often it was.
fn run(target: &Target) -> u64 {
    let seeds = seeds(target);
    seeds.iter().for_each(|seed| attempt(target, seed));
    let seed = setting("STOCKADE_FUZZ_SEED").unwrap_or(7);
    let mut chance = Chance(seed ^ xxh3_64(target.name.as_bytes()));
    let rounds = setting("STOCKADE_FUZZ_ROUNDS").unwrap_or(ROUNDS);
    let time = setting("STOCKADE_FUZZ_SECONDS").map(Duration::from_secs);
    let clock = Clock::start();
    let began = clock.nanos();
    let mut tried = 0;
    let goes_on = |tried: u64| match time {
        None => tried < rounds,
        Some(time) => !tried.is_multiple_of(64) || Duration::from_nanos(clock.nanos() - began) < time,
    };
    while goes_on(tried) {
        attempt(target, &changed(&seeds, &mut chance));
        tried += 1;
    }
    tried
}

#[test]
fn no_parser_falls_over_what_a_stranger_sends() {
    let only = std::env::var("STOCKADE_FUZZ_TARGET").ok();
    let chosen = TARGETS.iter().filter(|target| only.as_deref().is_none_or(|only| only == target.name));
    let tried: Vec<_> = chosen.map(|target| (target.name, run(target))).collect();
    assert!(!tried.is_empty() && tried.iter().all(|(_, tried)| *tried > 0), "{tried:?}");
    println!("{tried:?}");
}

#[test]
fn every_target_has_a_corpus_and_a_file_for_the_fuzzer() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let names: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(names.len(), TARGETS.len(), "a name stands once");
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    for target in TARGETS {
        let seeds = seeds(target);
        assert!(seeds.len() >= 3, "{}: {} seeds", target.name, seeds.len());
        assert!(seeds.iter().all(|seed| seed.len() <= BYTES_MAX), "{}", target.name);
        let file = root.join("fuzz_targets").join(format!("{}.rs", target.name));
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert!(text.contains(&format!("run(\"{}\", bytes)", target.name)), "{}", file.display());
        assert!(manifest.contains(&format!("name = \"{}\"", target.name)), "{}", target.name);
    }
    let found = |folder: &str| -> BTreeSet<String> {
        let files = fs::read_dir(root.join(folder)).unwrap().map(|file| file.unwrap().path());
        files.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect()
    };
    assert_eq!(found("corpus"), names);
    assert_eq!(found("fuzz_targets"), names);
}

#[test]
fn the_seeded_hand_is_the_same_every_time_and_finds_a_planted_mistake() {
    let seeds = vec![b"abcdef".to_vec(), Vec::new()];
    let made = |seed| -> Vec<_> {
        std::iter::repeat_with(|| ())
            .scan(Chance(seed), |chance, ()| Some(changed(&seeds, chance)))
            .take(50)
            .collect()
    };
    assert_eq!(made(1), made(1));
    assert_ne!(made(1), made(2));
    let mistaken = |bytes: &[u8]| bytes.contains(&0) && bytes.len() > 3;
    let mut chance = Chance(7);
    assert!((0..ROUNDS).any(|_| mistaken(&changed(&seeds, &mut chance))));
}
