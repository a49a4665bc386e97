//! An order and its lines, and their life: one table of legal moves for live work, the flush and recovery.

use serde::{Deserialize, Serialize};

use super::amount::{Money, Quantity};
use super::id::{OrderId, ProductId, UserId};
use super::stock::{CameBack, Cause, Millis, Refusal, Sequence};

/// One order as people see it, made from its rows or, while it is young, from the ledgers that hold its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    pub id: OrderId,
    pub buyer: UserId,
    /// The product whose owner gave birth to it.
    pub home: ProductId,
    pub status: OrderStatus,
    /// In order of their number; never empty, one line a product.
    pub lines: Vec<Line>,
    /// What it cost when it was placed.
    pub total: Money,
    pub hold_expires_at: Millis,
    pub created_at: Millis,
    pub updated_at: Millis,
    /// 1 at birth, one more for each change the home has journaled.
    pub version: u64,
}

impl Order {
    /// Whether its products were sold, whatever became of them afterwards.
    pub fn is_sold(&self) -> bool {
        match self.status {
            OrderStatus::Paid | OrderStatus::Returned | OrderStatus::Closed => true,
            OrderStatus::PendingPayment | OrderStatus::PaymentFailed | OrderStatus::Expired => false,
            // A line that is still held lapses by itself: its home was let go of.
            OrderStatus::Cancelled => {
                let was_held = |line: &Line| matches!(line.status, LineStatus::Held | LineStatus::Released);
                !self.lines.iter().all(was_held)
            }
        }
    }
}

/// One product's part of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub line: u8,
    pub product: ProductId,
    pub quantity: Quantity,
    /// Frozen when the hold was taken.
    pub unit_price: Money,
    /// The hold's place in its product's queue: the receipt.
    pub sequence: Sequence,
    pub status: LineStatus,
}

/// Where an order stands. The words are the contract's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderStatus {
    PendingPayment,
    Paid,
    PaymentFailed,
    Expired,
    Cancelled,
    Returned,
    Closed,
}

/// Where one line stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LineStatus {
    Held,
    Released,
    Ordered,
    Cancelled,
    ReturnRequested,
    Returned,
}

/// Not a row of the table. Nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a legal move")]
pub struct IllegalMove;

macro_rules! words {
    ($kind:ident { $( $variant:ident $word:literal ),* $(,)? }) => {
        impl $kind {
            pub const ALL: &'static [$kind] = &[$( $kind::$variant ),*];

            /// The contract's word, as it stands in answers and tables.
            pub fn as_str(self) -> &'static str {
                match self { $( $kind::$variant => $word ),* }
            }

            pub fn from_word(word: &str) -> Option<Self> {
                match word { $( $word => Some($kind::$variant), )* _ => None }
            }
        }
    };
}

words!(OrderStatus {
    PendingPayment "pending_payment",
    Paid "paid",
    PaymentFailed "payment_failed",
    Expired "expired",
    Cancelled "cancelled",
    Returned "returned",
    Closed "closed",
});

words!(LineStatus {
    Held "held",
    Released "released",
    Ordered "ordered",
    Cancelled "cancelled",
    ReturnRequested "return_requested",
    Returned "returned",
});

impl OrderStatus {
    /// Moves the order to `to`, if the table has that row.
    pub fn moved_to(self, to: OrderStatus) -> Result<OrderStatus, IllegalMove> {
        use OrderStatus::*;
        match (self, to) {
            (PendingPayment, Paid | PaymentFailed | Expired | Cancelled) => Ok(to),
            (Paid, Cancelled | Returned | Closed) => Ok(to),
            _ => Err(IllegalMove),
        }
    }

    /// Why nobody pays it or lets go of it any more; `None` while it waits for its payment.
    pub fn over(self) -> Option<Refusal> {
        match self {
            OrderStatus::PendingPayment => None,
            OrderStatus::Paid | OrderStatus::Returned | OrderStatus::Closed => Some(Refusal::AlreadySold),
            OrderStatus::PaymentFailed => Some(Refusal::AlreadyReleased { cause: Cause::PaymentFailed }),
            OrderStatus::Cancelled => Some(Refusal::AlreadyReleased { cause: Cause::Cancelled }),
            OrderStatus::Expired => Some(Refusal::HoldExpired),
        }
    }

    /// What becomes of a paid order whose lines stand like this; `None` while one of them has not ended.
    pub fn of_ended(lines: impl IntoIterator<Item = LineStatus>) -> Option<OrderStatus> {
        let mut together = None;
        for line in lines {
            let alone = match line {
                LineStatus::Cancelled => OrderStatus::Cancelled,
                LineStatus::Returned => OrderStatus::Returned,
                LineStatus::Released => OrderStatus::Closed,
                LineStatus::Held | LineStatus::Ordered | LineStatus::ReturnRequested => return None,
            };
            together = match together {
                Some(before) if before != alone => Some(OrderStatus::Closed),
                _ => Some(alone),
            };
        }
        together
    }
}

impl LineStatus {
    /// Whether its units have come back.
    pub fn is_back(self) -> bool {
        matches!(self, LineStatus::Cancelled | LineStatus::Returned)
    }

    /// Moves the line to `to`, if the table has that row.
    pub fn moved_to(self, to: LineStatus) -> Result<LineStatus, IllegalMove> {
        use LineStatus::*;
        match (self, to) {
            (Held, Ordered | Released) => Ok(to),
            (Ordered, Cancelled | ReturnRequested) => Ok(to),
            (ReturnRequested, Returned) => Ok(to),
            _ => Err(IllegalMove),
        }
    }

    /// What becomes of a line all of whose units have come back. What was asked back is returned, whatever was said; a return
    /// without a request is the request too.
    pub fn came_back(self, why: CameBack) -> Result<LineStatus, IllegalMove> {
        match (self, why) {
            (LineStatus::Ordered, CameBack::Cancelled) => self.moved_to(LineStatus::Cancelled),
            (LineStatus::Ordered, CameBack::Returned) => {
                self.moved_to(LineStatus::ReturnRequested)?.moved_to(LineStatus::Returned)
            }
            (_, _) => self.moved_to(LineStatus::Returned),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_legal_moves() {
        let mut rows = String::new();
        for from in OrderStatus::ALL {
            let to: Vec<_> = OrderStatus::ALL
                .iter()
                .filter(|to| from.moved_to(**to).is_ok())
                .map(|to| to.as_str())
                .collect();
            rows += &format!("{} -> {}\n", from.as_str(), to.join(" "));
        }
        for from in LineStatus::ALL {
            let to: Vec<_> = LineStatus::ALL
                .iter()
                .filter(|to| from.moved_to(**to).is_ok())
                .map(|to| to.as_str())
                .collect();
            rows += &format!("line {} -> {}\n", from.as_str(), to.join(" "));
        }
        assert_eq!(
            rows,
            "pending_payment -> paid payment_failed expired cancelled\n\
             paid -> cancelled returned closed\n\
             payment_failed -> \n\
             expired -> \n\
             cancelled -> \n\
             returned -> \n\
             closed -> \n\
             line held -> released ordered\n\
             line released -> \n\
             line ordered -> cancelled return_requested\n\
             line cancelled -> \n\
             line return_requested -> returned\n\
             line returned -> \n"
        );
    }

    #[test]
    fn an_order_ends_with_its_last_line() {
        use LineStatus::{Cancelled, Ordered, Released, ReturnRequested, Returned};
        for (lines, status) in [
            (vec![Cancelled, Cancelled], Some(OrderStatus::Cancelled)),
            (vec![Returned], Some(OrderStatus::Returned)),
            (vec![Cancelled, Returned, Returned], Some(OrderStatus::Closed)),
            (vec![Cancelled, Returned, Cancelled], Some(OrderStatus::Closed)),
            (vec![Cancelled, Released], Some(OrderStatus::Closed)),
            (vec![Cancelled, Ordered], None),
            (vec![ReturnRequested, Returned], None),
        ] {
            assert_eq!(OrderStatus::of_ended(lines.clone()), status, "{lines:?}");
        }
    }

    #[test]
    fn a_line_that_came_back_says_why() {
        use LineStatus::{Cancelled, Held, Ordered, ReturnRequested, Returned};
        assert_eq!(Ordered.came_back(CameBack::Cancelled), Ok(Cancelled));
        assert_eq!(Ordered.came_back(CameBack::Returned), Ok(Returned));
        assert_eq!(ReturnRequested.came_back(CameBack::Cancelled), Ok(Returned));
        assert_eq!(Held.came_back(CameBack::Returned), Err(IllegalMove));
        assert_eq!(Cancelled.came_back(CameBack::Cancelled), Err(IllegalMove));
    }

    #[test]
    fn every_word_comes_back() {
        for status in OrderStatus::ALL {
            assert_eq!(OrderStatus::from_word(status.as_str()), Some(*status));
        }
        for status in LineStatus::ALL {
            assert_eq!(LineStatus::from_word(status.as_str()), Some(*status));
        }
    }
}
