//! Orders of everybody, for those who work here.

use super::{CATCH_UP, Orders};
use crate::actors::stock::NotDone;
use crate::domain::id::{OrderId, ProductId, UserId};
use crate::domain::order::{Order, OrderStatus};
use crate::domain::stock::Millis;
use crate::persistence::order_lookup::OrderFilter;

/// What is looked for. Everything that is not said counts.
#[derive(Debug, Clone, Copy, Default)]
pub struct LookUp {
    pub buyer: Option<UserId>,
    pub product: Option<ProductId>,
    pub status: Option<OrderStatus>,
    /// Placed at this time or later.
    pub from: Option<Millis>,
    /// Placed before this time.
    pub to: Option<Millis>,
    pub behind: Option<OrderId>,
    pub limit: usize,
}

/// A page. It may be short, or empty, though more follows.
#[derive(Debug)]
pub struct LookedUp {
    /// Newest first.
    pub orders: Vec<Order>,
    pub next: Option<OrderId>,
}

impl Orders {
    /// What fits among the orders that the tables have. Ids sort by time, so times are bounds of ids.
    pub async fn look_up(&self, ask: LookUp) -> Result<LookedUp, NotDone> {
        self.0.flush.caught_up(CATCH_UP).await;
        let end = ask.to.map_or(OrderId::from_bytes([0xff; 16]), OrderId::first_at);
        let filter = OrderFilter {
            buyer: ask.buyer,
            product: ask.product,
            status: ask.status,
            from: ask.from.map_or(OrderId::from_bytes([0; 16]), OrderId::first_at),
            before: ask.behind.map_or(end, |behind| behind.min(end)),
        };
        let unread = |_| NotDone::Unavailable;
        let found = self.0.reader.look_up(&filter, ask.limit).await.map_err(unread)?;
        let mut orders = self.0.reader.find_many(&found.ids).await.map_err(unread)?;
        orders.sort_unstable_by_key(|order| std::cmp::Reverse(order.id));
        Ok(LookedUp { orders, next: found.next })
    }
}
