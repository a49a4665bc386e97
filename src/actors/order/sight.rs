//! How an order looks from the live ledgers, before the flush has shown it to the tables.

use crate::domain::amount::Money;
use crate::domain::id::{OrderId, UserId};
use crate::domain::order::{Line, LineStatus, Order, OrderStatus};
use crate::domain::stock::{Cause, HoldState, Millis, OrderView, PlacedLine};

/// What a line is while its hold is in this state.
pub fn line_status(state: HoldState) -> LineStatus {
    match state {
        HoldState::Placing | HoldState::Held | HoldState::Pinned => LineStatus::Held,
        HoldState::Sold => LineStatus::Ordered,
        HoldState::Released(_) | HoldState::Expired => LineStatus::Released,
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
        line.status = line_status(view.state);
    }
    if status != OrderStatus::PendingPayment {
        order.version = 2;
    }
    Some(order)
}

/// The further of two sights of one order: the tables', if they have followed as far as the ledger.
pub fn latest(row: Option<Order>, seen: Order) -> Order {
    match row {
        Some(row) if row.status == seen.status && agree(&row, &seen) => row,
        // Beyond the hold's end only the tables know how an order went on.
        Some(row) if row.status != OrderStatus::PendingPayment => row,
        _ => seen,
    }
}

/// A payment that was declined with attempts left gives the hold another end.
fn agree(row: &Order, seen: &Order) -> bool {
    let lines = row.lines.iter().zip(&seen.lines).all(|(a, b)| a.status == b.status);
    lines && row.hold_expires_at == seen.hold_expires_at
}
