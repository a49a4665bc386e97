//! Stockade sells scarce stock, first come first served, to a crowd that arrives all at once.

#[cfg(test)]
extern crate self as stockade;

pub mod actors;
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod domain;
pub mod dpop;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod http;
pub mod logs;
pub mod mail;
pub mod memory;
pub mod peer;
pub mod persistence;
pub mod provider;
pub mod seed;
mod sync;
pub mod telemetry;
pub mod tokens;
pub mod vault;
pub mod webhook;

#[cfg(test)]
#[path = "../tests/support/stalls.rs"]
mod stalls;
