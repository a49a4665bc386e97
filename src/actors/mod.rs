//! The cast.
//!
//! | who | owns | hears |
//! |---|---|---|
//! | `stock::StockOwner`, one a product | the product's ledger | `stock::Directory`, bounded by `stock::INBOX_MAX` |
//! | `order::Orders` | nothing; it walks from owner to owner | the order doors |
//! | `payment::Payments` | the rows of payments and refunds, the claims on them | whoever pays, gives back, or brings news of money |
//! | `payment::Book` | the order in which those rows are written | `payment`, bounded by `payment::WAITING_MAX` |
//! | `delivery::Deliveries` | nothing; lines move in `payment::Book` | the scheduled run, whoever sends a line back |
//! | `catalogue::Catalogue` | the cached texts of products | the product doors |
//! | `user::Users` | the accounts' rows; nothing between two questions | the doors of people |
//! | `revocations::Revocations` | whose tokens are refused, a set in memory | every door that reads a token |
//! | `passwords::Passwords`, a few threads | the hashing of passwords | whoever signs up or logs in, bounded by `passwords::HASH_QUEUE_MAX` |
//! | `outbox::Outbox` | the pace of mails | whoever has added one |
//! | `notices::Notices` | the pace at which buyers are written to about their orders, and reminders of holds | nobody; the flush and the rows of money ring |
//! | `webhooks::Webhooks` | endpoints of other systems, and the pace at which they are told | the administrators' doors; the flush rings |
//! | `flusher` | the pace of the flush | whoever needs the tables now |
//!
//! Messages go from doors to payments, orders, catalogue and users, from payments to orders, from all of those to owners, and from
//! owners to the journal; never back. A payment is walked by whoever began it, or by `payment::Recovery` when that one has gone: at
//! most `payment::WALKS_MAX` at a time, with `payment::CALLS_MAX` calls of the provider on their way.

pub mod catalogue;
pub mod delivery;
pub mod flusher;
pub mod history;
pub mod notices;
pub mod order;
pub mod outbox;
pub mod passwords;
pub mod payment;
pub mod revive;
pub mod revocations;
pub mod stock;
pub mod user;
pub mod webhooks;
