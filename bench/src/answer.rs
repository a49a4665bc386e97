//! What a server said to an attempt, in one word. The words are the contract's codes; whether a word means *certainly
//! nothing happened* or *nobody knows* is decided here and nowhere else.

use crate::wire::{field, number, until_quote};

/// The outcome of one try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Outcome {
    Acknowledged,
    SoldOut,
    CustomerLimitExceeded,
    /// The sale is not open, paused or closed.
    SaleNotRunning,
    OtherRefusal,
    RateLimited,
    Overloaded,
    OwnerUnavailable,
    Unknown,
    IdempotencyInProgress,
    ServerError,
    /// The connection ended before the answer came.
    ConnectionCut,
}

impl Outcome {
    pub const ALL: [Self; 12] = [
        Self::Acknowledged,
        Self::SoldOut,
        Self::CustomerLimitExceeded,
        Self::SaleNotRunning,
        Self::OtherRefusal,
        Self::RateLimited,
        Self::Overloaded,
        Self::OwnerUnavailable,
        Self::Unknown,
        Self::IdempotencyInProgress,
        Self::ServerError,
        Self::ConnectionCut,
    ];
    pub const COUNT: usize = Self::ALL.len();

    pub fn of(status: u16, body: &[u8]) -> Self {
        if status == 201 || status == 202 {
            return Self::Acknowledged;
        }
        let code = field(body, br#""code":""#).map(until_quote).unwrap_or_default();
        match (code, status) {
            (b"sold_out", _) => Self::SoldOut,
            (b"customer_limit_exceeded", _) => Self::CustomerLimitExceeded,
            (b"sale_not_open" | b"sale_closed" | b"sale_paused", _) => Self::SaleNotRunning,
            (b"rate_limited", _) | (_, 429) => Self::RateLimited,
            (b"overloaded", _) => Self::Overloaded,
            (b"owner_unavailable", _) => Self::OwnerUnavailable,
            (b"outcome_unknown", _) => Self::Unknown,
            (b"idempotency_in_progress", _) => Self::IdempotencyInProgress,
            (_, 500..) => Self::ServerError,
            _ => Self::OtherRefusal,
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Self::Acknowledged => "acknowledged",
            Self::SoldOut => "sold_out",
            Self::CustomerLimitExceeded => "customer_limit_exceeded",
            Self::SaleNotRunning => "sale_not_running",
            Self::OtherRefusal => "other_refusal",
            Self::RateLimited => "rate_limited",
            Self::Overloaded => "overloaded",
            Self::OwnerUnavailable => "owner_unavailable",
            Self::Unknown => "outcome_unknown",
            Self::IdempotencyInProgress => "idempotency_in_progress",
            Self::ServerError => "server_error",
            Self::ConnectionCut => "connection_cut",
        }
    }

    /// The order may stand although nobody said so: only the same key can tell.
    pub fn is_uncertain(self) -> bool {
        match self {
            Self::Unknown | Self::IdempotencyInProgress | Self::ServerError | Self::ConnectionCut => true,
            Self::Acknowledged | Self::RateLimited | Self::Overloaded | Self::OwnerUnavailable => false,
            Self::SoldOut | Self::CustomerLimitExceeded | Self::SaleNotRunning | Self::OtherRefusal => false,
        }
    }

    /// Certainly not executed, and worth another try.
    pub fn is_unavailable(self) -> bool {
        matches!(self, Self::RateLimited | Self::Overloaded | Self::OwnerUnavailable)
    }

    /// A business *no*.
    pub fn is_refusal(self) -> bool {
        matches!(
            self,
            Self::SoldOut | Self::CustomerLimitExceeded | Self::SaleNotRunning | Self::OtherRefusal
        )
    }
}

/// An order's id as it came: opaque, and short enough to be kept without an allocation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OrderId {
    length: u8,
    bytes: [u8; 39],
}

impl OrderId {
    /// The `id` of an order, or nothing if the body has none.
    pub fn of(body: &[u8]) -> Option<Self> {
        let text = until_quote(field(body, br#""id":"order_"#)?);
        let mut bytes = [0; 39];
        bytes[..6].copy_from_slice(b"order_");
        bytes.get_mut(6..6 + text.len())?.copy_from_slice(text);
        Some(Self { length: 6 + text.len() as u8, bytes })
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.length as usize]).unwrap_or("(not text)")
    }
}

impl std::fmt::Debug for OrderId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The place in the product's queue: of an order, its first line's receipt; of a refusal, where it was decided.
pub fn sequence(body: &[u8]) -> Option<u64> {
    field(body, br#""sequence":"#).and_then(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_gives_its_id_and_its_sequence() {
        let body =
            br#"{"id":"order_01h455vb4pex5vsknk084sn02q","lines":[{"line":1,"receipt":{"sequence":17}}]}"#;
        assert_eq!(Outcome::of(201, body), Outcome::Acknowledged);
        assert_eq!(OrderId::of(body).unwrap().as_str(), "order_01h455vb4pex5vsknk084sn02q");
        assert_eq!(sequence(body), Some(17));
    }

    #[test]
    fn a_refusal_is_told_from_a_fault() {
        assert_eq!(Outcome::of(409, br#"{"code":"sold_out","sequence":9}"#), Outcome::SoldOut);
        assert_eq!(Outcome::of(503, br#"{"code":"overloaded"}"#), Outcome::Overloaded);
        assert!(Outcome::of(503, br#"{"code":"outcome_unknown"}"#).is_uncertain());
        assert_eq!(Outcome::of(500, b""), Outcome::ServerError);
        assert_eq!(Outcome::of(404, br#"{"code":"not_found"}"#), Outcome::OtherRefusal);
    }

    #[test]
    fn every_outcome_stands_at_its_own_place() {
        for (place, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, place);
        }
    }
}
