//! Deterministic simulation of Stockade's owners: one seed, one history.
//!
//! A history is a node with its owners (the product's own pure protocol, placement and ledger), a shared journal, a
//! door, a network that loses answers, clocks that drift and step, and people who try again. Everything random comes
//! from the seed and nothing reads a clock, so a seed tells the same story on every machine; what the story must
//! never contain is said in [`check`], one function an invariant.

pub mod broken;
pub mod campaign;
pub mod chance;
pub mod check;
pub mod cluster;
pub mod database;
pub mod journal;
pub mod mirror;
pub mod model;
pub mod queue;
pub mod scenario;
pub mod story;
pub mod tables;
pub mod tally;
pub mod time;
pub mod trace;
pub mod world;

pub use broken::Broken;
pub use check::Violation;
pub use world::{Outcome, World};
