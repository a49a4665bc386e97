//! What is told to other systems: which happenings there are, what each says, and what it is called.
//!
//! Always true: a happening's id is made of what happened and of nothing else, so that it is the same one whoever tells it, and
//! however often; and what it says are ids, counts and states, nothing about a person but an opaque id.

use serde::Serialize;
use xxhash_rust::xxh3::xxh3_128;

use super::amount::Money;
use super::id::{EventId, OrderId, ProductId, UserId};
use super::order::{Order, OrderStatus};
use super::stock::{Counts, Millis, Sequence};

macro_rules! kinds {
    ($( $(#[$doc:meta])* $variant:ident $word:literal ),* $(,)?) => {
        /// What can be told.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum EventKind { $( $(#[$doc])* $variant ),* }

        impl EventKind {
            pub const ALL: &'static [EventKind] = &[$( EventKind::$variant ),*];

            /// The contract's word.
            pub fn as_str(self) -> &'static str {
                match self { $( EventKind::$variant => $word ),* }
            }

            pub fn from_word(word: &str) -> Option<EventKind> {
                match word { $( $word => Some(EventKind::$variant), )* _ => None }
            }
        }
    };
}

kinds!(
    OrderPlaced "order.placed",
    OrderPaid "order.paid",
    OrderPaymentFailed "order.payment_failed",
    OrderExpired "order.expired",
    OrderCancelled "order.cancelled",
    OrderReturned "order.returned",
    OrderClosed "order.closed",
    /// Counters have moved. Several moves at once are told as one.
    StockChanged "stock.changed",
    /// The last unit has gone.
    StockSoldOut "stock.sold_out",
    /// Something is available again.
    StockBack "stock.back",
);

impl EventKind {
    /// What it is called that an order has come to this state.
    pub fn of_status(status: OrderStatus) -> EventKind {
        match status {
            OrderStatus::PendingPayment => EventKind::OrderPlaced,
            OrderStatus::Paid => EventKind::OrderPaid,
            OrderStatus::PaymentFailed => EventKind::OrderPaymentFailed,
            OrderStatus::Expired => EventKind::OrderExpired,
            OrderStatus::Cancelled => EventKind::OrderCancelled,
            OrderStatus::Returned => EventKind::OrderReturned,
            OrderStatus::Closed => EventKind::OrderClosed,
        }
    }

    fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// A set of kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Kinds(u32);

impl Kinds {
    pub const fn from_bits(bits: u32) -> Kinds {
        Kinds(bits)
    }

    pub fn bits(self) -> u32 {
        self.0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn has(self, kind: EventKind) -> bool {
        self.0 & kind.bit() != 0
    }

    pub fn with(self, kind: EventKind) -> Kinds {
        Kinds(self.0 | kind.bit())
    }

    pub fn and(self, other: Kinds) -> Kinds {
        Kinds(self.0 | other.0)
    }

    pub fn iter(self) -> impl Iterator<Item = EventKind> {
        EventKind::ALL.iter().copied().filter(move |kind| self.has(*kind))
    }

    /// Words with commas between.
    pub fn words(self) -> String {
        self.iter().map(EventKind::as_str).collect::<Vec<_>>().join(",")
    }

    pub fn from_words(words: &str) -> Option<Kinds> {
        words.split(',').filter(|word| !word.is_empty()).map(EventKind::from_word).collect()
    }
}

impl FromIterator<EventKind> for Kinds {
    fn from_iter<I: IntoIterator<Item = EventKind>>(kinds: I) -> Kinds {
        kinds.into_iter().fold(Kinds::default(), Kinds::with)
    }
}

/// One product's part of an order, as it is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LineTold {
    pub product_id: ProductId,
    pub quantity: u32,
}

/// What a happening says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Data {
    Order { order_id: OrderId, user_id: UserId, status: &'static str, total: Money, lines: Vec<LineTold> },
    Stock { product_id: ProductId, sequence: Sequence, available: u64, held: u64, sold: u64 },
    Turn { product_id: ProductId, sequence: Sequence, available: u64 },
}

/// Something that happened, ready to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happening {
    pub id: EventId,
    pub kind: EventKind,
    pub at: Millis,
    pub data: Data,
}

impl Happening {
    /// An order has come to `status`, which it does once in its life.
    pub fn of_order(order: &Order, status: OrderStatus) -> Happening {
        let kind = EventKind::of_status(status);
        let lines = order.lines.iter();
        Happening {
            id: named(order.id.made_at(), kind, order.id.as_bytes(), 0),
            kind,
            at: if status == OrderStatus::PendingPayment { order.created_at } else { order.updated_at },
            data: Data::Order {
                order_id: order.id,
                user_id: order.buyer,
                status: status.as_str(),
                total: order.total,
                lines: lines
                    .map(|line| LineTold { product_id: line.product, quantity: line.quantity.get() })
                    .collect(),
            },
        }
    }

    /// A product's counters stand so at `sequence`.
    pub fn of_stock(product: ProductId, sequence: Sequence, at: Millis, counts: Counts) -> Happening {
        let kind = EventKind::StockChanged;
        let data = Data::Stock {
            product_id: product,
            sequence,
            available: counts.available(),
            held: counts.held,
            sold: counts.sold,
        };
        Happening { id: named(at, kind, product.as_bytes(), sequence.0), kind, at, data }
    }

    /// At `sequence` the last unit has gone, or one has come back.
    pub fn of_turn(product: ProductId, sequence: Sequence, at: Millis, available: u64) -> Happening {
        let kind = if available == 0 { EventKind::StockSoldOut } else { EventKind::StockBack };
        let data = Data::Turn { product_id: product, sequence, available };
        Happening { id: named(at, kind, product.as_bytes(), sequence.0), kind, at, data }
    }
}

fn named(at: Millis, kind: EventKind, subject: &[u8; 16], sequence: u64) -> EventId {
    let mut name = Vec::with_capacity(64);
    name.extend_from_slice(subject);
    name.extend_from_slice(&sequence.to_be_bytes());
    name.extend_from_slice(kind.as_str().as_bytes());
    EventId::new(at, xxh3_128(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_word_and_a_bit_of_its_own() {
        let all: Kinds = EventKind::ALL.iter().copied().collect();
        assert_eq!(all.bits().count_ones() as usize, EventKind::ALL.len());
        assert_eq!(Kinds::from_words(&all.words()), Some(all));
        assert_eq!(Kinds::from_words("order.paid,order.eaten"), None);
        assert!(all.words().len() <= 255, "it fits its column");
        for status in OrderStatus::ALL {
            let word = EventKind::of_status(*status).as_str();
            assert!(word == "order.placed" || word == format!("order.{}", status.as_str()), "{word}");
        }
    }

    #[test]
    fn an_id_is_made_of_what_happened() {
        let product = ProductId::new(Millis(1), 2);
        let of =
            |sequence, available| Happening::of_turn(product, Sequence(sequence), Millis(9), available).id;
        assert_eq!(of(3, 0), of(3, 0));
        let different = [of(3, 0), of(4, 0), of(3, 1)];
        assert!(different.iter().enumerate().all(|(at, id)| !different[..at].contains(id)));
        assert!(of(3, 0).to_string().starts_with("evt_"));
    }
}
