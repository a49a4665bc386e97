//! The only place with SQL and with Redis: the journal that is the truth, and the tables that are made from it.
//!
//! The journal's log is written before anybody hears *yes*. Four SQLite files stand behind it, each with one writer that
//! also does all its checkpoints, and a pool of readers that can only read: `journal.db`, where histories are found;
//! `shop.db`, which the flush fills, its checkpoint in the same transaction as the rows, so that every event reaches
//! the tables exactly once; `people.db`, the truth about people; and `money.db`, the truth about payments.

pub mod approval;
pub mod audit;
pub mod backup;
pub mod breached;
mod buyer;
pub mod cart;
pub mod delivery;
mod doubt;
pub mod flush;
pub mod folder;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz;
pub mod job;
pub mod journal;
pub mod link;
mod migrations;
pub mod money;
pub mod notice;
pub mod order;
pub mod order_address;
pub mod order_lookup;
pub mod outbox;
pub mod payment;
pub mod product;
pub mod proof;
mod recall;
pub mod redis;
pub mod refund;
pub mod revocation;
pub mod session;
mod sql;
pub mod stock;
mod store;
mod tables;
#[cfg(test)]
pub(crate) mod testing;
pub mod trail;
pub mod user;
pub mod webhook;
pub mod wish;

pub use sql::{Damaged, StoreError, is_left_open};
pub use tables::{Tables, Writing};
