//! The rules of the shop, and nothing else.
//!
//! Everything here is pure: no clock, no chance, no I/O, no async, integers only. Time and ids are handed in.
//! Deciding (`&self`) may refuse and changes nothing; applying (`&mut self`) cannot fail.

pub mod account;
pub mod amount;
pub mod calendar;
pub mod cart;
pub mod delivery;
pub mod id;
pub mod job;
pub mod notice;
pub mod order;
pub mod payment;
pub mod placement;
pub mod postage;
pub mod product;
pub mod stock;
pub mod trail;
pub mod user;
pub mod webhook;
pub mod wish;
