//! Orders as administrators look for them: by time, state, product and buyer.
//!
//! `orders` and `order_lines` have no index for it, because one would be written at random in a rush (`buyer`). Ids sort by time,
//! so a look-up walks them from a time backwards, and looks at so many rows a call and no more. Always true: what a call did not
//! look at lies behind the id it gives.

use super::StoreError;
use super::order::OrderReader;
use super::sql::{self, Query, Row, sixteen};
use crate::domain::id::{OrderId, ProductId, UserId};
use crate::domain::order::OrderStatus;

/// Orders looked at in one call.
const LOOKED_AT_MAX: u32 = 4_096;

const LOOKED_UP_TO: &str = "select id from orders where id < ? and id >= ? order by id desc limit 1 offset ?";
const FITTING: &str = "select o.id from orders o where o.id < ? and o.id >= ? and (? = 0 or o.status = ?) and (? = 0 or \
    exists (select 1 from order_lines l where l.order_id = o.id and l.product_id = ?)) order by o.id desc limit ?";
const FITTING_OF_BUYER: &str = "select o.id from buyer_runs r cross join buyer_orders b on b.run = r.run \
    cross join orders o on o.id = b.order_id where b.buyer_id = ? and b.order_id < ? and b.order_id >= ? \
    and (? = 0 or o.status = ?) and (? = 0 or exists (select 1 from order_lines l where l.order_id = o.id \
    and l.product_id = ?)) order by b.order_id desc limit ?";

/// What a look-up of orders is narrowed to.
#[derive(Debug, Clone, Copy)]
pub struct OrderFilter {
    pub buyer: Option<UserId>,
    pub product: Option<ProductId>,
    pub status: Option<OrderStatus>,
    /// The first id that counts, and the first that no longer does.
    pub from: OrderId,
    pub before: OrderId,
}

/// Ids that fit, newest first, and where the look-up goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrdersFound {
    pub ids: Vec<OrderId>,
    /// Everything from here on has been looked at; `None`: there is nothing more.
    pub next: Option<OrderId>,
}

impl OrderReader {
    /// At most `limit` orders that fit, of those that one call looks at.
    pub async fn look_up(&self, filter: &OrderFilter, limit: usize) -> Result<OrdersFound, StoreError> {
        let bounds = |query: Query<'static>, from: OrderId| {
            query.bind(filter.before.as_bytes().to_vec()).bind(from.as_bytes().to_vec())
        };
        let (query, looked_up_to) = match filter.buyer {
            Some(buyer) => {
                let query = sql::query(FITTING_OF_BUYER).bind(buyer.as_bytes().to_vec());
                (bounds(query, filter.from), None)
            }
            None => {
                let query = bounds(sql::query(LOOKED_UP_TO), filter.from).bind(LOOKED_AT_MAX - 1);
                let last = query.fetch_optional(&self.pool).await?.as_ref().map(id).transpose()?;
                (bounds(sql::query(FITTING), last.unwrap_or(filter.from)), last)
            }
        };
        let most = limit + 1;
        let rows = query
            .bind(i64::from(filter.status.is_some()))
            .bind(filter.status.map_or("", OrderStatus::as_str))
            .bind(i64::from(filter.product.is_some()))
            .bind(filter.product.map_or_else(Vec::new, |product| product.as_bytes().to_vec()))
            .bind(i64::try_from(most).unwrap_or(i64::MAX))
            .fetch_all(&self.pool)
            .await?;
        let mut ids: Vec<OrderId> = rows.iter().map(id).collect::<Result<_, _>>()?;
        let next = if ids.len() == most {
            ids.truncate(limit);
            ids.last().copied()
        } else {
            looked_up_to
        };
        Ok(OrdersFound { ids, next })
    }
}

fn id(row: &Row) -> Result<OrderId, StoreError> {
    Ok(OrderId::from_bytes(sixteen(row, 0)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persistence::Tables;
    use crate::persistence::testing::plan;

    /// Whatever is asked for, a call looks at so many rows of one walk, or at one buyer's own orders.
    #[tokio::test]
    async fn no_filter_of_administrators_looks_at_all_orders() {
        let dir = tempfile::tempdir().unwrap();
        let tables = Tables::open(dir.path()).await.unwrap();
        let mut writer = tables.writer().await.unwrap();
        for sql in [LOOKED_UP_TO, FITTING] {
            let plan = plan(&mut writer, sql).await;
            let along = plan[0].starts_with("SEARCH") && plan[0].ends_with("PRIMARY KEY (id>? AND id<?)");
            let beside = plan.iter().any(|step| step.contains("SCAN") || step.contains("TEMP B-TREE"));
            assert!(along && !beside, "{plan:?}");
        }
        // Runs are few, however many orders there are.
        let plan = plan(&mut writer, FITTING_OF_BUYER).await;
        let scans: Vec<_> = plan.iter().filter(|step| step.contains("SCAN")).collect();
        assert_eq!(scans, ["SCAN r"], "{plan:?}");
        let of_buyer = "SEARCH b USING PRIMARY KEY (run=? AND buyer_id=?";
        assert!(plan.iter().any(|step| step.starts_with(of_buyer)), "{plan:?}");
    }
}
