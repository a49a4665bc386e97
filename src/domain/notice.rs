//! What a buyer is written about an order: which happenings there are, what each letter is called, and when it has become idle.
//!
//! A notice says that something happened, and nothing about what: whoever writes the letter looks at the order as it is then.
//! Always true: a notice's letter is called after the order, the kind and the line, and after nothing else, so that the same thing
//! told twice, by whomever, is one letter; and a notice holds no word about a person, not even who the buyer is.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use super::delivery::{Delivery, DeliveryState};
use super::id::{MailId, OrderId, ProductId};
use super::order::{Order, OrderStatus};
use super::stock::{Cause, Event, Millis};

macro_rules! kinds {
    ($( $(#[$doc:meta])* $variant:ident $number:literal $word:literal ),* $(,)?) => {
        /// What has happened to an order.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum NoticeKind { $( $(#[$doc])* $variant = $number ),* }

        impl NoticeKind {
            pub const ALL: &'static [NoticeKind] = &[$( NoticeKind::$variant ),*];

            /// As it stands in tables. A number never changes its meaning.
            pub fn number(self) -> u8 {
                self as u8
            }

            pub fn from_number(number: u8) -> Option<NoticeKind> {
                match number { $( $number => Some(NoticeKind::$variant), )* _ => None }
            }

            /// The letter's word: in the log, in the metrics, in the name of its text.
            pub fn as_str(self) -> &'static str {
                match self { $( NoticeKind::$variant => $word ),* }
            }
        }
    };
}

// In the order in which a life passes through them: letters of one order are called so that they sort like this.
kinds!(
    Placed 0 "order_placed",
    /// The time to pay is nearly over.
    HoldLapses 1 "order_hold_lapses",
    PaymentFailed 2 "order_payment_failed",
    Expired 3 "order_expired",
    Paid 4 "order_paid",
    /// The whole order, or a line of it.
    Cancelled 5 "order_cancelled",
    Shipped 6 "order_shipped",
    Delivered 7 "order_delivered",
    Returned 8 "order_returned",
);

/// Something happened to an order, or to a line of it, at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notice {
    pub order: OrderId,
    pub kind: NoticeKind,
    /// The line's number; `None` for the whole order.
    pub line: Option<u8>,
    pub at: Millis,
}

/// What is to be done about a notice, now that the order has been looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sense {
    Tell,
    /// The order shows less than the notice says: it will be true when the tables have followed.
    NotYet,
    /// It is no longer so, or never was.
    Idle,
}

impl Notice {
    pub fn of(order: OrderId, kind: NoticeKind, at: Millis) -> Notice {
        Notice { order, kind, line: None, at }
    }

    pub fn of_line(order: OrderId, line: u8, kind: NoticeKind, at: Millis) -> Notice {
        Notice { order, kind, line: Some(line), at }
    }

    /// What an event in the history of `product` says about an order as a whole: that is said at the order's home. Another
    /// product may share the home's shard; what it says is idle as long as the order does not show it, and the same letter then.
    pub fn of_event(product: ProductId, at: Millis, event: &Event) -> Option<Notice> {
        let (order, kind) = match event {
            Event::Held(held) if held.placing.is_none() => (held.order, NoticeKind::Placed),
            Event::Placed(placed) => (placed.order, NoticeKind::Placed),
            Event::Confirmed(confirmed) => (confirmed.order, NoticeKind::Paid),
            Event::Expired(expired) => (expired.order, NoticeKind::Expired),
            Event::Released(released) => match released.cause {
                Cause::Cancelled => (released.order, NoticeKind::Cancelled),
                Cause::PaymentFailed => (released.order, NoticeKind::PaymentFailed),
                Cause::NotPlaced => return None,
            },
            _ => return None,
        };
        (order.shard() == product.shard()).then_some(Notice::of(order, kind, at))
    }

    /// What is said of a sold line that has moved, and stood like this before.
    pub fn of_moved(before: Option<DeliveryState>, now: &Delivery) -> Option<Notice> {
        let kind = match now.state {
            DeliveryState::Shipping => NoticeKind::Shipped,
            DeliveryState::Delivered => NoticeKind::Delivered,
            DeliveryState::Cancelled => NoticeKind::Cancelled,
            DeliveryState::Returned => NoticeKind::Returned,
            DeliveryState::Preparing | DeliveryState::ReturnRequested => return None,
        };
        let moved = before != Some(now.state);
        moved.then(|| Notice::of_line(now.order, now.line, kind, now.updated_at))
    }

    /// What its letter is called, whoever writes it and however often. Sorted by name, the letters of an order come in the order
    /// of its life.
    pub fn letter(&self) -> MailId {
        let mut name = [0; 18];
        name[..16].copy_from_slice(self.order.as_bytes());
        name[16] = self.kind.number();
        name[17] = self.line.unwrap_or(u8::MAX);
        MailId::new(self.order.made_at().plus(i64::from(self.kind.number())), xxh3_128(&name))
    }

    /// Of an order as a whole, told by the history of its home: the tables show at least as much.
    pub fn sense(&self, order: &Order, now: Millis) -> Sense {
        let pending = order.status == OrderStatus::PendingPayment;
        let so = match self.kind {
            // Of an order that ended unsold, the letter about its end says enough.
            NoticeKind::Placed => pending || order.is_sold(),
            NoticeKind::HoldLapses => pending && order.hold_expires_at > now,
            // Of one all of which has come back, the letters about that do.
            NoticeKind::Paid => order.status == OrderStatus::Paid,
            NoticeKind::PaymentFailed => order.status == OrderStatus::PaymentFailed,
            NoticeKind::Expired => order.status == OrderStatus::Expired,
            NoticeKind::Cancelled => order.status == OrderStatus::Cancelled,
            NoticeKind::Shipped | NoticeKind::Delivered | NoticeKind::Returned => order.is_sold(),
        };
        if so { Sense::Tell } else { Sense::Idle }
    }

    /// Of what was sold, told beside the rows of money, which may be ahead of the tables.
    pub fn sense_of_sold(&self, order: &Order) -> Sense {
        match (order.is_sold(), self.line) {
            (false, _) if order.status == OrderStatus::PendingPayment => Sense::NotYet,
            (true, None) => Sense::Tell,
            (true, Some(line)) if order.lines.iter().any(|known| known.line == line) => Sense::Tell,
            (false, _) | (true, Some(_)) => Sense::Idle,
        }
    }
}

/// When somebody is reminded that a hold lapses, so many milliseconds before: never where that is half of the hold or more.
pub fn reminder_at(order: &Order, before_ms: i64, now: Millis) -> Option<Millis> {
    let long = order.hold_expires_at.0.saturating_sub(order.created_at.0);
    let at = order.hold_expires_at.plus(-before_ms);
    let wanted = before_ms > 0 && long / 2 > before_ms && at > now;
    (wanted && order.status == OrderStatus::PendingPayment).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::amount::{Currency, Money, Quantity};
    use crate::domain::id::UserId;
    use crate::domain::order::{Line, LineStatus};
    use crate::domain::stock::Sequence;

    const T0: Millis = Millis(1_700_000_000_000);

    fn order(status: OrderStatus) -> Order {
        let home = ProductId::new(T0, 1);
        let price = Money { amount: 1_000, currency: Currency::KRW };
        let line = Line {
            line: 0,
            product: home,
            quantity: Quantity::of_line(1).unwrap(),
            unit_price: price,
            sequence: Sequence(2),
            status: LineStatus::Held,
        };
        Order {
            id: OrderId::for_home(T0, 7, home),
            buyer: UserId::new(T0, 1),
            home,
            status,
            lines: vec![line],
            total: price,
            hold_expires_at: T0.plus(600_000),
            created_at: T0,
            updated_at: T0,
            version: 1,
        }
    }

    #[test]
    fn every_kind_has_a_number_and_a_word_of_its_own() {
        for (number, kind) in (0..).zip(NoticeKind::ALL) {
            assert_eq!((kind.number(), NoticeKind::from_number(number)), (number, Some(*kind)));
            assert!(kind.as_str().starts_with("order_") && kind.as_str().len() <= 32);
        }
        assert_eq!(NoticeKind::from_number(NoticeKind::ALL.len() as u8), None);
    }

    #[test]
    fn a_letter_is_called_after_what_happened_and_not_after_when() {
        let order = order(OrderStatus::Paid).id;
        let of = |kind, line, at| Notice { order, kind, line, at: Millis(at) }.letter();
        assert_eq!(of(NoticeKind::Paid, None, 1), of(NoticeKind::Paid, None, 2));
        let all = [
            of(NoticeKind::Placed, None, 1),
            of(NoticeKind::Paid, None, 1),
            of(NoticeKind::Shipped, Some(0), 1),
            of(NoticeKind::Delivered, Some(0), 1),
        ];
        assert!(all.is_sorted_by(|a, b| a < b), "{all:?}");
        assert_ne!(of(NoticeKind::Shipped, Some(0), 1), of(NoticeKind::Shipped, Some(1), 1));
        assert_ne!(of(NoticeKind::Cancelled, None, 1), of(NoticeKind::Cancelled, Some(0), 1));
    }

    #[test]
    fn what_is_no_longer_so_is_not_told() {
        use OrderStatus::*;
        let told = |kind, status| {
            let order = order(status);
            Notice::of(order.id, kind, T0).sense(&order, T0) == Sense::Tell
        };
        for (kind, statuses) in [
            (NoticeKind::Placed, vec![PendingPayment, Paid, Returned, Closed]),
            (NoticeKind::HoldLapses, vec![PendingPayment]),
            (NoticeKind::Paid, vec![Paid]),
            (NoticeKind::PaymentFailed, vec![PaymentFailed]),
            (NoticeKind::Expired, vec![Expired]),
        ] {
            for status in OrderStatus::ALL {
                // Of a line that was released nothing was sold.
                let mut order = order(*status);
                order.lines[0].status = LineStatus::Released;
                let sense = Notice::of(order.id, kind, T0).sense(&order, T0);
                assert_eq!(sense == Sense::Tell, statuses.contains(status), "{kind:?} {status:?}");
            }
        }
        assert!(told(NoticeKind::Cancelled, Cancelled) && !told(NoticeKind::Cancelled, PendingPayment));
        let late = order(PendingPayment);
        let lapsed = Notice::of(late.id, NoticeKind::HoldLapses, T0).sense(&late, late.hold_expires_at);
        assert_eq!(lapsed, Sense::Idle);
        let sold = |status, line| {
            let order = order(status);
            Notice { line, ..Notice::of(order.id, NoticeKind::Shipped, T0) }.sense_of_sold(&order)
        };
        assert_eq!(sold(PendingPayment, Some(0)), Sense::NotYet);
        assert_eq!(sold(Paid, Some(0)), Sense::Tell);
        assert_eq!(sold(Paid, Some(1)), Sense::Idle, "there is no such line");
        assert_eq!(sold(Expired, None), Sense::Idle);
    }

    #[test]
    fn a_short_hold_has_no_reminder() {
        let order = order(OrderStatus::PendingPayment);
        assert_eq!(reminder_at(&order, 120_000, T0), Some(T0.plus(480_000)));
        assert_eq!(reminder_at(&order, 300_000, T0), None, "half of it");
        assert_eq!(reminder_at(&order, 120_000, T0.plus(480_000)), None, "too late");
        assert_eq!(reminder_at(&order, 0, T0), None);
        let paid = Order { status: OrderStatus::Paid, ..order };
        assert_eq!(reminder_at(&paid, 120_000, T0), None);
    }
}
