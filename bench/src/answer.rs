//! What a server said to an attempt, in one word. The words are the contract's codes; whether a word means *certainly
//! nothing happened* or *nobody knows* is decided here and nowhere else.

use crate::wire::{field, member, number, until_quote};

/// The outcome of one try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Outcome {
    /// The order stands; in a crowd that pays, it is paid.
    Acknowledged,
    /// There is an order, and the bank refused to pay it.
    Declined,
    /// There is an order, and nobody knows yet whether it is paid.
    PaymentOpen,
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
    pub const ALL: [Self; 14] = [
        Self::Acknowledged,
        Self::Declined,
        Self::PaymentOpen,
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
        match status {
            201 => return Self::Acknowledged,
            202 => return Self::PaymentOpen,
            _ => {}
        }
        let code = field(body, br#""code":""#).map(until_quote).unwrap_or_default();
        match (code, status) {
            (b"payment_declined", _) => Self::Declined,
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

    /// Of a look at an order whose payment was open.
    pub fn of_look(status: u16, body: &[u8]) -> Self {
        match (status, OrderState::of(body)) {
            (200, OrderState::Paid) => Self::Acknowledged,
            (200, OrderState::PendingPayment) => Self::PaymentOpen,
            (200, OrderState::PaymentFailed | OrderState::Ended) => Self::Declined,
            _ => Self::of(status, body),
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Self::Acknowledged => "acknowledged",
            Self::Declined => "payment_declined",
            Self::PaymentOpen => "payment_open",
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

    /// The order may stand, or be paid, although nobody said so: its buyer must ask again.
    pub fn is_uncertain(self) -> bool {
        match self {
            Self::Unknown | Self::IdempotencyInProgress | Self::ServerError | Self::ConnectionCut => true,
            Self::PaymentOpen => true,
            Self::Acknowledged | Self::Declined => false,
            Self::RateLimited | Self::Overloaded | Self::OwnerUnavailable => false,
            Self::SoldOut | Self::CustomerLimitExceeded | Self::SaleNotRunning | Self::OtherRefusal => false,
        }
    }

    /// Its buyer knows where he stands.
    pub fn is_certain(self) -> bool {
        matches!(self, Self::Acknowledged | Self::Declined) || self.is_refusal()
    }

    /// Certainly not executed, and worth another try.
    pub fn is_unavailable(self) -> bool {
        matches!(self, Self::RateLimited | Self::Overloaded | Self::OwnerUnavailable)
    }

    /// A business *no* that left no order behind.
    pub fn is_refusal(self) -> bool {
        matches!(
            self,
            Self::SoldOut | Self::CustomerLimitExceeded | Self::SaleNotRunning | Self::OtherRefusal
        )
    }
}

/// What an order says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderState {
    PendingPayment,
    Paid,
    PaymentFailed,
    /// Cancelled, lapsed, or returned.
    Ended,
    /// It says nothing, or something nobody has heard of.
    Unreadable,
}

impl OrderState {
    pub fn of(body: &[u8]) -> Self {
        let word = member(order(body), b"status").and_then(|value| value.strip_prefix(b"\""));
        match word.map(until_quote) {
            Some(b"pending_payment") => Self::PendingPayment,
            Some(b"paid") => Self::Paid,
            Some(b"payment_failed") => Self::PaymentFailed,
            Some(b"cancelled" | b"expired" | b"returned" | b"closed") => Self::Ended,
            _ => Self::Unreadable,
        }
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
        Self::named(field(body, br#""id":"order_"#).map(until_quote)?)
    }

    /// `order_…` as it stands in a list.
    pub fn read(text: &str) -> Option<Self> {
        Self::named(text.strip_prefix("order_")?.as_bytes())
    }

    fn named(text: &[u8]) -> Option<Self> {
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

/// What the whole order costs, in minor units.
pub fn total(body: &[u8]) -> Option<u64> {
    member(member(order(body), b"total")?, b"amount").and_then(number)
}

/// The order that an answer is, or that a problem carries.
fn order(body: &[u8]) -> &[u8] {
    member(body, b"order").unwrap_or(body)
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
    fn an_order_that_was_not_paid_stands_inside_the_problem() {
        let body = br#"{"status":402,"code":"payment_declined","detail":"the \"order\"","order":{"id":"order_x",
            "lines":[{"receipt":{"sequence":3},"status":"released","unit_price":{"amount":7,"currency":"KRW"}}],
            "payment":{"id":"pay_x","status":"declined"},"status":"payment_failed",
            "total":{"amount":14,"currency":"KRW"}}}"#;
        assert_eq!(Outcome::of(402, body), Outcome::Declined);
        assert_eq!(OrderId::of(body), OrderId::read("order_x"));
        assert_eq!(OrderState::of(body), OrderState::PaymentFailed);
        assert_eq!((sequence(body), total(body)), (Some(3), Some(14)));
        assert_eq!(OrderState::of(br#"{"status":402}"#), OrderState::Unreadable);
    }

    #[test]
    fn an_open_payment_is_looked_at_until_somebody_knows() {
        let look = |status, state: &str| {
            Outcome::of_look(status, format!(r#"{{"id":"order_x","status":"{state}"}}"#).as_bytes())
        };
        assert_eq!(Outcome::of(202, b"{}"), Outcome::PaymentOpen);
        assert!(look(200, "pending_payment").is_uncertain() && !look(200, "pending_payment").is_certain());
        assert_eq!(look(200, "paid"), Outcome::Acknowledged);
        assert_eq!(look(200, "payment_failed"), Outcome::Declined);
        assert_eq!(look(503, ""), Outcome::ServerError);
        assert_eq!(look(404, ""), Outcome::OtherRefusal);
    }

    #[test]
    fn every_outcome_stands_at_its_own_place() {
        for (place, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, place);
        }
    }
}
