//! The business *no*, with its numbers. Words and status codes are made at the edge.

use serde::{Deserialize, Serialize};

use super::{Millis, Sequence};
use crate::domain::amount::Money;
use crate::domain::id::OrderId;

/// Why a command was refused. Nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    #[error("the product does not exist")]
    NoProduct,
    #[error("the product exists already")]
    ProductExists,
    #[error("the product is archived")]
    Archived,
    #[error("the sale is paused")]
    Paused,
    #[error("the sale opens later")]
    NotOpen { opens_at: Millis },
    #[error("the sale is over")]
    Closed { closed_at: Millis },
    #[error("a customer may have {limit}, has {has} and asked for {requested} more")]
    LimitExceeded { limit: u32, has: u32, requested: u32 },
    #[error("{requested} asked for, {available} available")]
    SoldOut { available: u64, requested: u32 },
    #[error("the price changed")]
    PriceChanged { expected: Money, actual: Money },
    #[error("an order has one currency")]
    TwoCurrencies,
    #[error("the amount is too large")]
    AmountTooLarge,
    #[error("the key belongs to another request")]
    KeyReused { order: Option<OrderId> },
    #[error("the first request with this key is still running")]
    KeyInProgress,
    #[error("the order id belongs to another order")]
    OrderIdTaken,
    #[error("no such order here")]
    NoSuchOrder,
    #[error("the hold has expired")]
    HoldExpired,
    #[error("the hold was released")]
    AlreadyReleased { cause: super::Cause },
    #[error("the order is sold already")]
    AlreadySold,
    #[error("a payment is running")]
    PaymentRunning,
    #[error("no payment is running")]
    NotPinned,
    #[error("this attempt to pay is over")]
    AttemptOver,
    #[error("the order is still being placed")]
    StillPlacing,
    #[error("{confirmed} confirmed of {held} held")]
    MoreThanHeld { confirmed: u32, held: u32 },
    #[error("{returned} returned of {sold} sold")]
    MoreThanSold { returned: u32, sold: u32 },
    #[error("{promised} are promised: on hand cannot become {would_be}")]
    BelowPromised { promised: u64, would_be: i64 },
    #[error("on hand cannot exceed {limit}")]
    TooMuchStock { limit: u64 },
    #[error("nothing to do")]
    NothingToDo,
}

/// A refusal and the sequence at which it was decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{why} (at sequence {})", at.0)]
pub struct Refused {
    pub at: Sequence,
    pub why: Refusal,
}
