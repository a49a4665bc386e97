//! How an order looks from the live ledgers, before the flush has shown it to the tables.

use crate::domain::amount::Money;
use crate::domain::id::{OrderId, UserId};
use crate::domain::order::{Line, LineStatus, Order, OrderStatus};
use crate::domain::stock::{CameBack, Cause, HoldState, Millis, OrderView, PlacedLine};

/// What a line is while its hold looks like this.
pub fn line_status(view: &OrderView) -> LineStatus {
    match (view.state, view.returned) {
        (HoldState::Placing | HoldState::Held | HoldState::Pinned, _) => LineStatus::Held,
        (HoldState::Sold, None) => LineStatus::Ordered,
        (HoldState::Sold, Some(CameBack::Cancelled)) => LineStatus::Cancelled,
        (HoldState::Sold, Some(CameBack::Returned)) => LineStatus::Returned,
        (HoldState::Released(_) | HoldState::Expired, _) => LineStatus::Released,
    }
}

/// What an order is while its hold at home is in this state; `None` while it is not born, or never was.
fn order_status(state: HoldState) -> Option<OrderStatus> {
    match state {
        HoldState::Placing | HoldState::Released(Cause::NotPlaced) => None,
        HoldState::Held | HoldState::Pinned => Some(OrderStatus::PendingPayment),
        HoldState::Sold => Some(OrderStatus::Paid),
        HoldState::Released(Cause::Cancelled) => Some(OrderStatus::Cancelled),
        HoldState::Released(Cause::PaymentFailed) => Some(OrderStatus::PaymentFailed),
        HoldState::Expired => Some(OrderStatus::Expired),
    }
}

fn line_of(placed: &PlacedLine, status: LineStatus) -> Line {
    Line {
        line: placed.line,
        product: placed.product,
        quantity: placed.quantity,
        unit_price: placed.unit_price,
        sequence: placed.sequence,
        status,
    }
}

fn total(lines: &[PlacedLine]) -> Option<Money> {
    let mut totals = lines.iter().map(|line| line.unit_price.times(line.quantity));
    let first = totals.next()??;
    totals.try_fold(first, |sum, line| sum.plus(line?))
}

/// An order of several lines at its birth.
pub fn born(id: OrderId, buyer: UserId, deadline: Millis, lines: &[PlacedLine]) -> Option<Order> {
    Some(Order {
        id,
        buyer,
        home: lines.first()?.product,
        status: OrderStatus::PendingPayment,
        total: total(lines)?,
        lines: lines.iter().map(|line| line_of(line, LineStatus::Held)).collect(),
        hold_expires_at: deadline,
        created_at: id.made_at(),
        updated_at: id.made_at(),
        version: 1,
    })
}

/// The order as its home sees it; the lines of other products as they were at birth.
pub fn of_view(view: &OrderView) -> Option<Order> {
    if view.home.is_some() {
        return None;
    }
    let status = order_status(view.state)?;
    let here = PlacedLine {
        line: view.line,
        product: view.product,
        quantity: view.quantity,
        unit_price: view.unit_price,
        sequence: view.sequence,
    };
    let lines = if view.lines.is_empty() { std::slice::from_ref(&here) } else { &view.lines };
    let mut order = born(view.order, view.buyer, view.deadline, lines)?;
    order.status = status;
    for line in order.lines.iter_mut().filter(|line| line.product == view.product) {
        line.status = line_status(view);
    }
    if status != OrderStatus::PendingPayment {
        order.version = 2;
    }
    Some(order)
}

/// The row with what the live ledgers know beyond it. A ledger that is loaded is as far as its row or further; but a request
/// for a return stands in the row alone, and so do the lines of products that are not loaded.
pub fn latest(row: Option<Order>, seen: Order) -> Order {
    let Some(row) = row else { return with_its_lines(seen) };
    let mut order = row.clone();
    for line in &mut order.lines {
        let seen = seen.lines.iter().find(|seen| seen.product == line.product);
        if let Some(seen) = seen
            && line_rank(seen.status) > line_rank(line.status)
        {
            (line.status, line.quantity) = (seen.status, seen.quantity);
        }
    }
    if order_rank(seen.status) > order_rank(order.status) {
        order.status = seen.status;
    }
    if order.status == OrderStatus::PendingPayment {
        order.hold_expires_at = order.hold_expires_at.max(seen.hold_expires_at);
    }
    let mut order = with_its_lines(order);
    if (order.status, order.hold_expires_at) != (row.status, row.hold_expires_at) {
        order.version = row.version + 1;
        order.updated_at = row.updated_at.max(seen.updated_at);
    }
    order
}

/// A paid order ends when its last line has.
fn with_its_lines(mut order: Order) -> Order {
    if order.status == OrderStatus::Paid
        && let Some(status) = OrderStatus::of_ended(order.lines.iter().map(|line| line.status))
    {
        order.status = status;
        order.version += 1;
    }
    order
}

/// How far a line has come.
fn line_rank(status: LineStatus) -> u8 {
    match status {
        LineStatus::Held => 0,
        LineStatus::Ordered | LineStatus::Released => 1,
        LineStatus::ReturnRequested => 2,
        LineStatus::Cancelled | LineStatus::Returned => 3,
    }
}

/// How far an order has come.
fn order_rank(status: OrderStatus) -> u8 {
    match status {
        OrderStatus::PendingPayment => 0,
        OrderStatus::Paid | OrderStatus::PaymentFailed | OrderStatus::Expired => 1,
        OrderStatus::Cancelled | OrderStatus::Returned | OrderStatus::Closed => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::amount::{Currency, Quantity};
    use crate::domain::id::ProductId;
    use crate::domain::stock::Sequence;

    fn order(status: OrderStatus, lines: &[LineStatus]) -> Order {
        let unit_price = Money { amount: 10, currency: Currency::KRW };
        let placed = |line: usize| PlacedLine {
            line: line as u8,
            product: ProductId::from_bytes([line as u8; 16]),
            quantity: Quantity::of_line(1).unwrap(),
            unit_price,
            sequence: Sequence(1),
        };
        let placed: Vec<PlacedLine> = (0..lines.len()).map(placed).collect();
        let (id, buyer) = (OrderId::from_bytes([1; 16]), UserId::from_bytes([2; 16]));
        let mut order = born(id, buyer, Millis(100), &placed).unwrap();
        order.status = status;
        for (line, status) in order.lines.iter_mut().zip(lines) {
            line.status = *status;
        }
        order
    }

    #[test]
    fn a_sight_is_as_far_as_its_furthest_part() {
        use LineStatus::{Cancelled as Off, Held, Ordered, ReturnRequested as Asked, Returned};
        use OrderStatus::{Cancelled, Closed, Paid, PendingPayment as Pending};
        for (row, seen, status, lines) in [
            // Nothing new.
            ((Pending, [Held, Held]), (Pending, [Held, Held]), Pending, [Held, Held]),
            // The ledgers are ahead, all of them or some.
            ((Pending, [Held, Held]), (Paid, [Ordered, Ordered]), Paid, [Ordered, Ordered]),
            ((Pending, [Held, Held]), (Paid, [Ordered, Held]), Paid, [Ordered, Held]),
            // The last line is back, or it is the row that knows so of one.
            ((Paid, [Ordered, Ordered]), (Paid, [Off, Off]), Cancelled, [Off, Off]),
            ((Paid, [Ordered, Off]), (Paid, [Returned, Held]), Closed, [Returned, Off]),
            ((Paid, [Ordered, Ordered]), (Paid, [Off, Ordered]), Paid, [Off, Ordered]),
            // Only the row knows of a request, and of how an order went on.
            ((Paid, [Asked, Ordered]), (Paid, [Ordered, Ordered]), Paid, [Asked, Ordered]),
            ((Cancelled, [Off, Off]), (Paid, [Ordered, Held]), Cancelled, [Off, Off]),
        ] {
            let seen = order(seen.0, &seen.1);
            let found = latest(Some(order(row.0, &row.1)), seen.clone());
            let found_lines: Vec<_> = found.lines.iter().map(|line| line.status).collect();
            assert_eq!((found.status, &found_lines[..]), (status, &lines[..]), "{row:?} {seen:?}");
            assert_eq!(found.version, if status == row.0 { 1 } else { 2 });
        }
        let alone = latest(None, order(Paid, &[Off]));
        assert_eq!(alone.status, Cancelled);
        let longer = Order { hold_expires_at: Millis(160), ..order(Pending, &[Held]) };
        assert_eq!(latest(Some(order(Pending, &[Held])), longer).hold_expires_at, Millis(160));
    }
}
