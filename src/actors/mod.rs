//! The cast.
//!
//! | who | owns | hears |
//! |---|---|---|
//! | `stock::StockOwner`, one a product | the product's ledger | `stock::Directory`, bounded by `stock::INBOX_MAX`; of many nodes, at the one that owns it |
//! | `stock::Snapshots`, a thread when it is needed | the right to make a snapshot of a product that is being sold | owners, one at a time; others come again |
//! | forwarders in `stock`, one a product that another node owns | what they have asked that node and not heard | `stock::Directory`, by the same mailbox; `stock::QUESTIONS_MAX` questions on their way |
//! | `placement::Placement`, at the lead | the table of shards, and where the directory's routes lead | nobody; it looks who comes and goes |
//! | `following::Following`, at each node that may own | which lead is followed, and its last word | the lead, by numbered words, one at a time |
//! | `nodes::Nodes` | the list of what is hot | the administrators' door, `placement` |
//! | `order::Orders` | where an order goes that has an address of its own; else it walks from owner to owner | the order doors, `cart` |
//! | `payment::Payments` | the rows of payments and refunds, the claims on them | whoever pays, gives back, or brings news of money |
//! | `payment::Book` | the order in which those rows are written | `payment`, bounded by `payment::WAITING_MAX` |
//! | `delivery::Deliveries` | nothing; lines move in `payment::Book` | the scheduled run, whoever sends a line back |
//! | `wish::Wishes` | the rows of wish lists | the wishes' doors, bounded by `wish::WAITING_MAX` |
//! | `cart::Carts` | the rows of carts and of checkouts that have begun; whose turn it is to check out | the cart's doors, bounded by `cart::WAITING_MAX`, `cart::turn::OF_ONE_MAX` and `IN_ALL_MAX` |
//! | `catalogue::Catalogue` | the cached texts of products, and which of them stand on the pages of lists | the product doors |
//! | `user::Users` | the accounts' rows; nothing between two questions | the doors of people |
//! | `revocations::Revocations` | whose tokens are refused, a set in memory | every door that reads a token |
//! | `passwords::Passwords`, a few threads | the hashing of passwords, and the look whether one is known from a breach | whoever signs up or logs in, bounded by `passwords::HASH_QUEUE_MAX` |
//! | `outbox::Outbox` | the pace of mails, and how many leave in an hour | whoever has added one |
//! | `notices::Notices` | the pace at which buyers are written to about their orders, and reminders of holds | nobody; the flush and the rows of money ring |
//! | `webhooks::Webhooks` | endpoints of other systems, and the pace at which they are told | the administrators' doors; the flush rings |
//! | `scheduler::Scheduler` | the jobs' rows, and the times at which each is run | the administrators' doors, bounded by `scheduler::ASKS_MAX` a job |
//! | `mirror::Mirror`, a thread | the copy of what owners publish, in Redis; nothing else is there | `stock::Changes`, bounded by `stock::CHANGED_MAX`; other nodes |
//! | `keys::Keeping` | how far back keys of orders are known with their product | nobody; it looks at the tables |
//! | `flusher` | the pace of the flush | whoever needs the tables now |
//!
//! Messages go from doors to carts, wishes, payments, orders, catalogue and users, from carts to payments, orders and catalogue, from
//! payments to orders, from all of those to owners, and from owners to the journal; never back. Of many nodes an owner that must know of
//! an order whose home is elsewhere asks by way of the lead. A payment is walked by whoever began it, or by `Payments::recovery` when that
//! one has gone: at most `payment::WALKS_MAX` at a time, with `payment::CALLS_MAX` calls of the provider on their way.

mod background;
pub mod cart;
pub mod catalogue;
pub mod delivery;
pub mod flusher;
pub mod following;
pub mod history;
pub mod keys;
pub mod mirror;
pub mod nodes;
pub mod notices;
pub mod order;
pub mod outbox;
pub mod passwords;
pub mod payment;
pub mod placement;
pub mod revive;
pub mod revocations;
pub mod scheduler;
pub mod stock;
pub mod turns;
pub mod user;
pub mod webhooks;
pub mod wish;
