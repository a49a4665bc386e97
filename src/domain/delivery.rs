//! What happens to a line once it is paid: it ships, it is delivered, it comes back, or it is cancelled before any of that.
//!
//! One table of legal moves for buyers, clerks and the nightly run. Always true: a line moves at most one state per scheduled
//! occurrence, whatever number of runs there is for it; what has ended moves no more; and what a buyer sees of an order is its
//! row with its deliveries laid over it.

use std::fmt;

use serde::Serialize;

use super::amount::{Money, Quantity};
use super::id::{OrderId, PaymentId, ProductId};
use super::order::{IllegalMove, LineStatus, Order, OrderStatus};
use super::stock::{CameBack, KeyUse, Millis};

/// Where a sold line stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeliveryState {
    /// Paid, and still in the house: it can be cancelled.
    Preparing,
    Shipping,
    Delivered,
    Cancelled,
    /// It shall come back; the next run takes it in.
    ReturnRequested,
    Returned,
}

/// How far a line has come on its way. The words are the contract's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryStatus {
    Preparing,
    Shipping,
    Delivered,
}

impl DeliveryStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            DeliveryStatus::Preparing => "preparing",
            DeliveryStatus::Shipping => "shipping",
            DeliveryStatus::Delivered => "delivered",
        }
    }
}

impl DeliveryState {
    pub const ALL: &'static [DeliveryState] = &[
        DeliveryState::Preparing,
        DeliveryState::Shipping,
        DeliveryState::Delivered,
        DeliveryState::Cancelled,
        DeliveryState::ReturnRequested,
        DeliveryState::Returned,
    ];

    /// The word in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            DeliveryState::Preparing => "preparing",
            DeliveryState::Shipping => "shipping",
            DeliveryState::Delivered => "delivered",
            DeliveryState::Cancelled => "cancelled",
            DeliveryState::ReturnRequested => "return_requested",
            DeliveryState::Returned => "returned",
        }
    }

    pub fn from_word(word: &str) -> Option<DeliveryState> {
        DeliveryState::ALL.iter().copied().find(|state| state.as_str() == word)
    }

    /// Moves the line to `to`, if the table has that row. What is on its way can be asked back too, for a parcel may come back
    /// that nobody took in; but only a clerk says so.
    pub fn moved_to(self, to: DeliveryState) -> Result<DeliveryState, IllegalMove> {
        use DeliveryState::*;
        match (self, to) {
            (Preparing, Shipping | Cancelled) => Ok(to),
            (Shipping, Delivered | ReturnRequested) => Ok(to),
            (Delivered, ReturnRequested) => Ok(to),
            (ReturnRequested, Returned) => Ok(to),
            _ => Err(IllegalMove),
        }
    }

    /// What a clerk makes of a line whose units he takes back: `None` if they are back already.
    pub fn taken_back(self) -> Option<DeliveryState> {
        use DeliveryState::*;
        match self {
            Preparing => Some(Cancelled),
            Shipping | Delivered | ReturnRequested => Some(Returned),
            Cancelled | Returned => None,
        }
    }

    pub fn has_ended(self) -> bool {
        matches!(self, DeliveryState::Cancelled | DeliveryState::Returned)
    }

    /// What the line of the order is meanwhile.
    pub fn line_status(self) -> LineStatus {
        match self {
            DeliveryState::Preparing | DeliveryState::Shipping | DeliveryState::Delivered => {
                LineStatus::Ordered
            }
            DeliveryState::Cancelled => LineStatus::Cancelled,
            DeliveryState::ReturnRequested => LineStatus::ReturnRequested,
            DeliveryState::Returned => LineStatus::Returned,
        }
    }

    /// Why its units come back, when they do.
    pub fn came_back(self) -> CameBack {
        match self {
            DeliveryState::Preparing | DeliveryState::Cancelled => CameBack::Cancelled,
            DeliveryState::Shipping
            | DeliveryState::Delivered
            | DeliveryState::ReturnRequested
            | DeliveryState::Returned => CameBack::Returned,
        }
    }
}

/// One line of an order, as its payment knows it when it is sold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SoldLine {
    pub line: u8,
    pub product: ProductId,
    pub quantity: Quantity,
    /// The price of all its units.
    pub amount: Money,
}

impl SoldLine {
    /// The lines of an order. A price that is too large to be added up was never sold.
    pub fn of(order: &Order) -> Vec<SoldLine> {
        let sold = order.lines.iter().filter_map(|line| {
            let amount = line.unit_price.times(line.quantity)?;
            Some(SoldLine { line: line.line, product: line.product, quantity: line.quantity, amount })
        });
        sold.collect()
    }
}

/// Why its buyer sends a line back, in his own words.
#[derive(Clone, PartialEq, Eq)]
pub enum Reason {
    /// As it was said, in a row of before they were sealed.
    Plain(String),
    /// Under its buyer's key.
    Sealed(Vec<u8>),
}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("Reason(…)")
    }
}

/// A sold line as its row keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    pub order: OrderId,
    pub line: u8,
    pub payment: PaymentId,
    pub product: ProductId,
    pub quantity: Quantity,
    /// The price of all its units.
    pub amount: Money,
    pub state: DeliveryState,
    /// The scheduled occurrence that moved it last; zero before the first.
    pub scheduled: Millis,
    pub paid_at: Millis,
    pub shipped_at: Option<Millis>,
    /// When its buyer could know, which is when the run was, not when it was scheduled.
    pub delivered_at: Option<Millis>,
    pub requested_at: Option<Millis>,
    /// Why it shall come back. Forgotten when it is back; nothing is kept of a buyer without an account.
    pub reason: Option<Reason>,
    /// The request that asked for it to come back.
    pub key: Option<KeyUse>,
    pub version: u64,
    pub updated_at: Millis,
}

impl Delivery {
    /// A line that was sold at `now`.
    pub fn sold(order: OrderId, payment: PaymentId, line: &SoldLine, now: Millis) -> Delivery {
        Delivery {
            order,
            line: line.line,
            payment,
            product: line.product,
            quantity: line.quantity,
            amount: line.amount,
            state: DeliveryState::Preparing,
            scheduled: Millis(0),
            paid_at: now,
            shipped_at: None,
            delivered_at: None,
            requested_at: None,
            reason: None,
            key: None,
            version: 1,
            updated_at: now,
        }
    }

    /// What it becomes by a move to `to`, if that is legal.
    pub fn moved(&self, to: DeliveryState, now: Millis) -> Result<Delivery, IllegalMove> {
        let state = self.state.moved_to(to)?;
        let mut moved = Delivery { state, updated_at: now, version: self.version + 1, ..self.clone() };
        match state {
            DeliveryState::Preparing => {}
            DeliveryState::Shipping => moved.shipped_at = Some(now),
            DeliveryState::Delivered => moved.delivered_at = Some(now),
            DeliveryState::ReturnRequested => moved.requested_at = Some(now),
            DeliveryState::Cancelled | DeliveryState::Returned => moved.reason = None,
        }
        Ok(moved)
    }

    /// Where the occurrence of `scheduled` takes it; `None` if that has moved it already, or it has come too late for it.
    pub fn next(&self, scheduled: Millis) -> Option<DeliveryState> {
        if self.scheduled >= scheduled {
            return None;
        }
        match self.state {
            DeliveryState::Preparing if self.paid_at < scheduled => Some(DeliveryState::Shipping),
            DeliveryState::Shipping => Some(DeliveryState::Delivered),
            DeliveryState::ReturnRequested if self.requested_at.is_none_or(|at| at < scheduled) => {
                Some(DeliveryState::Returned)
            }
            _ => None,
        }
    }

    /// How far it has come on its way; `None` for what will never set out.
    pub fn status(&self) -> Option<DeliveryStatus> {
        match self.state {
            DeliveryState::Cancelled => None,
            _ if self.delivered_at.is_some() => Some(DeliveryStatus::Delivered),
            _ if self.shipped_at.is_some() => Some(DeliveryStatus::Shipping),
            _ => Some(DeliveryStatus::Preparing),
        }
    }
}

/// How long after its delivery a line may be sent back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReturnWindow {
    pub ms: i64,
}

/// Why a line may not be sent back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotReturnable {
    /// It has not arrived.
    NotDelivered,
    /// It arrived too long ago.
    Over { delivered_at: Millis, until: Millis },
    /// It is on its way back, or has ended.
    Before,
}

impl ReturnWindow {
    /// The last moment at which what was delivered then may be sent back.
    pub fn until(self, delivered_at: Millis) -> Millis {
        delivered_at.plus(self.ms)
    }

    pub fn allows(self, delivery: &Delivery, now: Millis) -> Result<(), NotReturnable> {
        match (delivery.state, delivery.delivered_at) {
            (DeliveryState::Delivered, Some(delivered_at)) => {
                let until = self.until(delivered_at);
                if now <= until { Ok(()) } else { Err(NotReturnable::Over { delivered_at, until }) }
            }
            (DeliveryState::Preparing | DeliveryState::Shipping | DeliveryState::Delivered, _) => {
                Err(NotReturnable::NotDelivered)
            }
            (DeliveryState::Cancelled | DeliveryState::ReturnRequested | DeliveryState::Returned, _) => {
                Err(NotReturnable::Before)
            }
        }
    }
}

/// Lays the deliveries of an order over it: how its lines stand, whether it has ended with them, and what the lines that still
/// count come to. An order of which nothing was ever sold keeps what it would have cost.
pub fn lay_over(order: &mut Order, deliveries: &[Delivery]) {
    if order.status == OrderStatus::PendingPayment {
        // Lines are sold one after the other, the home last: until then nobody sees a part of it.
        for line in order.lines.iter_mut().filter(|line| line.status == LineStatus::Ordered) {
            line.status = LineStatus::Held;
        }
    }
    if !order.is_sold() {
        // Its lines change hands one after the other; what is shown of it does so at once, with its home.
        let together = match order.status {
            OrderStatus::PendingPayment => LineStatus::Held,
            _ => LineStatus::Released,
        };
        order.lines.iter_mut().for_each(|line| line.status = together);
        return;
    }
    for line in &mut order.lines {
        let own = deliveries.iter().find(|delivery| delivery.line == line.line);
        if let Some(delivery) =
            own.filter(|_| !matches!(line.status, LineStatus::Held | LineStatus::Released))
        {
            line.status = delivery.state.line_status();
            order.updated_at = order.updated_at.max(delivery.updated_at);
        }
    }
    if let Some(status) = OrderStatus::of_ended(order.lines.iter().map(|line| line.status)) {
        order.status = status;
    }
    order.total = left(order);
}

/// The sum of the lines that still count.
fn left(order: &Order) -> Money {
    let none = Money { amount: 0, ..order.total };
    let counts = |status: LineStatus| match status {
        LineStatus::Held | LineStatus::Ordered | LineStatus::ReturnRequested => true,
        LineStatus::Released | LineStatus::Cancelled | LineStatus::Returned => false,
    };
    let lines = order.lines.iter().filter(|line| counts(line.status));
    let sum = lines.into_iter().try_fold(none, |sum, line| sum.plus(line.unit_price.times(line.quantity)?));
    // It was added up once before, when it was placed.
    sum.unwrap_or(order.total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::amount::Currency;
    use crate::domain::id::UserId;
    use crate::domain::order::Line;
    use crate::domain::stock::Sequence;

    const HOUR: i64 = 3_600_000;

    fn won(amount: i64) -> Money {
        Money { amount, currency: Currency::KRW }
    }

    fn paid_at(now: i64, line: u8) -> Delivery {
        let (order, payment) = (OrderId::from_bytes([1; 16]), PaymentId::from_bytes([2; 16]));
        let product = ProductId::from_bytes([line; 16]);
        let quantity = Quantity::of_line(2).unwrap();
        let sold = SoldLine { line, product, quantity, amount: won(2_000) };
        Delivery::sold(order, payment, &sold, Millis(now))
    }

    #[test]
    fn the_table_of_legal_moves() {
        let mut rows = String::new();
        for from in DeliveryState::ALL {
            let to: Vec<_> = DeliveryState::ALL
                .iter()
                .filter(|to| from.moved_to(**to).is_ok())
                .map(|to| to.as_str())
                .collect();
            rows += &format!("{} -> {}\n", from.as_str(), to.join(" "));
        }
        assert_eq!(
            rows,
            "preparing -> shipping cancelled\n\
             shipping -> delivered return_requested\n\
             delivered -> return_requested\n\
             cancelled -> \n\
             return_requested -> returned\n\
             returned -> \n"
        );
        for state in DeliveryState::ALL {
            assert_eq!(DeliveryState::from_word(state.as_str()), Some(*state));
            assert_eq!(state.taken_back().is_none(), state.has_ended());
        }
    }

    /// Runs for these occurrences, one after the other: where the line stands after each.
    fn runs(mut delivery: Delivery, occurrences: &[i64]) -> String {
        let mut told = Vec::new();
        for scheduled in occurrences {
            if let Some(to) = delivery.next(Millis(*scheduled)) {
                delivery = delivery.moved(to, Millis(scheduled + 5)).unwrap();
                delivery.scheduled = Millis(*scheduled);
            }
            told.push(format!("{scheduled} {}", delivery.state.as_str()));
        }
        told.join(", ")
    }

    #[test]
    fn a_line_moves_one_state_per_occurrence() {
        assert_eq!(
            runs(paid_at(50, 1), &[50, 100, 100, 200, 200, 300]),
            "50 preparing, 100 shipping, 100 shipping, 200 delivered, 200 delivered, 300 delivered"
        );
        // An occurrence that is caught up with after a later one moves nothing any more.
        assert_eq!(runs(paid_at(50, 1), &[200, 100, 300]), "200 shipping, 100 shipping, 300 delivered");
        let mut asked = paid_at(50, 1);
        for (scheduled, to) in [
            (100, DeliveryState::Shipping),
            (200, DeliveryState::Delivered),
            (250, DeliveryState::ReturnRequested),
        ] {
            asked = asked.moved(to, Millis(scheduled)).unwrap();
            asked.scheduled = Millis(scheduled.min(200));
        }
        assert_eq!(
            runs(asked, &[200, 250, 251, 300]),
            "200 return_requested, 250 return_requested, 251 returned, 300 returned"
        );
    }

    #[test]
    fn a_line_may_be_sent_back_until_the_window_closes() {
        let window = ReturnWindow { ms: 48 * HOUR };
        let shipped = paid_at(0, 1).moved(DeliveryState::Shipping, Millis(HOUR)).unwrap();
        assert_eq!(window.allows(&shipped, Millis(HOUR)), Err(NotReturnable::NotDelivered));
        let there = shipped.moved(DeliveryState::Delivered, Millis(10)).unwrap();
        let until = Millis(10 + 48 * HOUR);
        assert_eq!(window.allows(&there, until), Ok(()));
        let over = NotReturnable::Over { delivered_at: Millis(10), until };
        assert_eq!(window.allows(&there, until.plus(1)), Err(over));
        let asked = there.moved(DeliveryState::ReturnRequested, Millis(20)).unwrap();
        assert_eq!(window.allows(&asked, Millis(20)), Err(NotReturnable::Before));
        assert_eq!((there.status(), asked.status()), (Some(DeliveryStatus::Delivered), there.status()));
        let off = paid_at(0, 1).moved(DeliveryState::Cancelled, Millis(1)).unwrap();
        assert_eq!((off.status(), window.allows(&off, Millis(1))), (None, Err(NotReturnable::Before)));
    }

    fn order(status: OrderStatus, lines: &[LineStatus]) -> Order {
        let line = |(at, status): (usize, &LineStatus)| Line {
            line: at as u8 + 1,
            product: ProductId::from_bytes([at as u8 + 1; 16]),
            quantity: Quantity::of_line(2).unwrap(),
            unit_price: won(1_000),
            sequence: Sequence(1),
            status: *status,
        };
        Order {
            id: OrderId::from_bytes([1; 16]),
            buyer: UserId::from_bytes([3; 16]),
            home: ProductId::from_bytes([1; 16]),
            status,
            lines: lines.iter().enumerate().map(line).collect(),
            total: won(2_000 * lines.len() as i64),
            hold_expires_at: Millis(0),
            created_at: Millis(0),
            updated_at: Millis(0),
            version: 1,
        }
    }

    #[test]
    fn what_is_seen_is_the_order_under_its_deliveries() {
        use DeliveryState as D;
        use LineStatus::{Cancelled, Ordered, ReturnRequested, Returned};
        for (rows, lines, status, total) in [
            ([D::Preparing, D::Shipping], [Ordered, Ordered], OrderStatus::Paid, 4_000),
            ([D::Cancelled, D::Shipping], [Cancelled, Ordered], OrderStatus::Paid, 2_000),
            ([D::Cancelled, D::Cancelled], [Cancelled, Cancelled], OrderStatus::Cancelled, 0),
            ([D::ReturnRequested, D::Returned], [ReturnRequested, Returned], OrderStatus::Paid, 2_000),
            ([D::Cancelled, D::Returned], [Cancelled, Returned], OrderStatus::Closed, 0),
            ([D::Returned, D::Returned], [Returned, Returned], OrderStatus::Returned, 0),
        ] {
            let mut seen = order(OrderStatus::Paid, &[Ordered, Ordered]);
            let of = |at: usize| Delivery { state: rows[at], ..paid_at(7, at as u8 + 1) };
            lay_over(&mut seen, &[of(0), of(1)]);
            let found: Vec<_> = seen.lines.iter().map(|line| line.status).collect();
            assert_eq!((&found[..], seen.status, seen.total), (&lines[..], status, won(total)), "{rows:?}");
            assert_eq!(seen.updated_at, Millis(7));
        }
        // While its lines are being sold it is held.
        let mut between = order(OrderStatus::PendingPayment, &[LineStatus::Held, Ordered]);
        lay_over(&mut between, &[]);
        assert!(between.lines.iter().all(|line| line.status == LineStatus::Held));
        assert_eq!(between.total, won(4_000));
        // Nothing was ever sold: what it would have cost.
        let mut never = order(OrderStatus::Expired, &[LineStatus::Released]);
        lay_over(&mut never, &[]);
        assert_eq!((never.status, never.total), (OrderStatus::Expired, won(2_000)));
    }
}
