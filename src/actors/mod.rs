//! The cast.
//!
//! | who | owns | hears |
//! |---|---|---|
//! | `stock::StockOwner`, one a product | the product's ledger | `stock::Directory`, bounded by `stock::INBOX_MAX` |
//! | `order::Orders` | nothing; it walks from owner to owner | the order doors |
//! | `catalogue::Catalogue` | the cached texts of products | the product doors |
//! | `user::Users` | the accounts' rows; nothing between two questions | the doors of people |
//! | `revocations::Revocations` | whose tokens are refused, a set in memory | every door that reads a token |
//! | `passwords::Passwords`, a few threads | the hashing of passwords | whoever signs up or logs in, bounded by `passwords::HASH_QUEUE_MAX` |
//! | `outbox::Outbox` | the pace of mails | whoever has added one |
//! | `webhooks::Webhooks` | endpoints of other systems, and the pace at which they are told | the administrators' doors; the flush rings |
//! | `flusher` | the pace of the flush | whoever needs the tables now |
//!
//! Messages go from doors to orders, catalogue and users, from those to owners, and from owners to the journal; never back.

pub mod catalogue;
pub mod flusher;
pub mod history;
pub mod order;
pub mod outbox;
pub mod passwords;
pub mod revive;
pub mod revocations;
pub mod stock;
pub mod user;
pub mod webhooks;
