//! What a slice is told as to other systems: events, written in the slice's own transaction.
//!
//! An order's move is told where its row has moved, whatever moved it: the row is looked at before the slice and after it. So each
//! state is told once in an order's life, however the journal is cut into slices. Of a product's stock the slice tells where it
//! stands in the end. Always true: nothing here is done where no endpoint wants to be told.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::{HashMap, HashSet};

use super::{Changes, FlushError, Ground, Run};
use crate::domain::id::{OrderId, ProductId};
use crate::domain::order::{Order, OrderStatus};
use crate::domain::stock::{Cause, Counts, Event};
use crate::domain::webhook::{EventKind, Happening, Kinds};
use crate::persistence::sql::Connection;
use crate::persistence::{Tables, order, webhook};

/// How things stood before a slice, as far as somebody wants to be told what it changes.
#[derive(Debug)]
pub struct Before {
    kinds: Kinds,
    stock: BTreeMap<ProductId, Counts>,
    /// Orders that the slice may move, and where those stand that have rows.
    touched: Vec<OrderId>,
    orders: HashMap<OrderId, OrderStatus>,
    /// Holds that the slice sells: an order may be paid and cancelled in one slice.
    sold: HashSet<(ProductId, OrderId)>,
}

impl Before {
    pub(super) async fn look(
        tables: &Tables,
        kinds: Kinds,
        runs: &[Run],
        ground: &Ground,
    ) -> Result<Before, FlushError> {
        let mut before = Before {
            kinds,
            stock: ground.stock.iter().map(|(product, stock)| (*product, stock.counts)).collect(),
            touched: Vec::new(),
            orders: HashMap::new(),
            sold: HashSet::new(),
        };
        if EventKind::ALL.iter().any(|kind| kinds.has(*kind) && is_move(*kind)) {
            before.look_at_orders(runs);
            let mut writer = tables.writer().await?;
            let found = order::find_many(&mut writer, &before.touched).await?;
            before.orders = found.into_iter().map(|order| (order.id, order.status)).collect();
        }
        Ok(before)
    }

    fn look_at_orders(&mut self, runs: &[Run]) {
        let mut touched = BTreeSet::new();
        for run in runs {
            for event in &run.events {
                touched.extend(match event {
                    Event::Confirmed(confirmed) => {
                        self.sold.insert((run.entry.product, confirmed.order));
                        Some(confirmed.order)
                    }
                    Event::Released(released) if released.cause != Cause::NotPlaced => Some(released.order),
                    Event::Expired(expired) => Some(expired.order),
                    Event::Returned(returned) => Some(returned.order),
                    _ => None,
                });
            }
        }
        self.touched = touched.into_iter().collect();
    }

    /// Writes down what the slice did; the rows are as it left them.
    pub(super) async fn write(
        &self,
        connection: &mut Connection,
        pos: i64,
        changes: &Changes,
    ) -> Result<(), FlushError> {
        let moved = order::find_many(connection, &self.touched).await?;
        let mut news = self.orders(changes, &moved);
        self.add_stock(changes, &mut news);
        news.retain(|happening| self.kinds.has(happening.kind));
        Ok(webhook::insert_events(connection, pos, &news).await?)
    }

    fn orders(&self, changes: &Changes, touched: &[Order]) -> Vec<Happening> {
        let placed = changes.born.iter().map(|born| &born.order);
        let mut news: Vec<Happening> =
            placed.map(|order| Happening::of_order(order, OrderStatus::PendingPayment)).collect();
        for order in touched {
            let before = self.orders.get(&order.id).copied().unwrap_or(OrderStatus::PendingPayment);
            let sold = self.sold.contains(&(order.home, order.id));
            for status in passed(before, sold, order.status) {
                news.push(Happening::of_order(order, status));
            }
        }
        news
    }

    fn add_stock(&self, changes: &Changes, news: &mut Vec<Happening>) {
        for change in &changes.stock {
            let stock = &change.after;
            let (product, before) = (stock.product, self.stock.get(&stock.product));
            if before != Some(&stock.counts) {
                news.push(Happening::of_stock(product, stock.sequence, stock.updated_at, stock.counts));
            }
            let Some(turn) = changes.turns.get(&product) else { continue };
            // Gone and back again within a slice, or the other way round, is no news. A product begins with what it has.
            let began = before.map_or(turn.available == 0, |counts| counts.available() > 0);
            if began != (turn.available > 0) {
                news.push(Happening::of_turn(product, turn.sequence, turn.at, turn.available));
            }
        }
    }
}

/// Is it told of an order that was there before?
fn is_move(kind: EventKind) -> bool {
    OrderStatus::ALL
        .iter()
        .any(|status| *status != OrderStatus::PendingPayment && EventKind::of_status(*status) == kind)
}

/// The states that an order has come to on its way from `before` to `after`.
fn passed(before: OrderStatus, sold: bool, after: OrderStatus) -> impl Iterator<Item = OrderStatus> {
    let pending = before == OrderStatus::PendingPayment;
    let paid =
        (pending && sold && after != OrderStatus::Paid && after != before).then_some(OrderStatus::Paid);
    paid.into_iter().chain((after != before).then_some(after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_that_was_passed_is_told_too() {
        use OrderStatus::*;
        let passed = |before, sold, after| passed(before, sold, after).collect::<Vec<_>>();
        assert_eq!(passed(PendingPayment, true, Paid), [Paid]);
        assert_eq!(passed(PendingPayment, true, Cancelled), [Paid, Cancelled]);
        assert_eq!(passed(PendingPayment, false, Cancelled), [Cancelled]);
        assert_eq!(passed(Paid, false, Returned), [Returned]);
        assert_eq!(passed(PendingPayment, true, PendingPayment), []);
        assert_eq!(passed(Expired, false, Expired), []);
    }
}
