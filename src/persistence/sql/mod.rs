//! SQL written once, for SQLite and for MySQL: statements and rows that do not know which of the two they meet.
//!
//! Two typed drivers stand behind three enums, [`Connection`], [`Pool`] and [`Row`]; a [`Query`] holds its text and its values until
//! it meets one of them. Always true: a statement is a literal, or one of a few lengths of a [`Listed`] one, and is compiled
//! once a connection; every value is bound. What must differ between the two stands in `sqlite` and `mysql`, side by side,
//! and nobody outside this folder, `store`, `tables` and `backup` asks which it is.

mod connection;
mod error;
mod listed;
pub mod mysql;
mod query;
mod row;
mod script;
pub mod sqlite;
#[cfg(test)]
mod tests;

pub use connection::{Connection, On, Pool, begin, end};
pub use error::{Damaged, Error, StoreError, Trouble, is_duplicate, trouble};
pub use listed::Listed;
pub use query::{Query, query, query_as, query_scalar};
pub use row::{Row, legible, signed, sixteen, thirty_two, time, unsigned};
pub use script::Script;
pub use sqlite::is_left_open;
