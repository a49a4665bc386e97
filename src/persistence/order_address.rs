//! The `order_addresses` rows: where an order goes that goes elsewhere than to its buyer's address, sealed by whoever hands it in.
//!
//! It is written before its order is placed, so a row may stand for an order that was never born. Until somebody has seen the order
//! it stands in `unproved_addresses` as well.

use super::sql::{self, Pool, Row, sixteen};
use super::{StoreError, Writing};
use crate::domain::id::{OrderId, UserId};

const OF_USER: &str = "select order_id, sealed from order_addresses where user_id = ? and order_id < ? \
    order by order_id desc limit ?";
const FIND: &str = "select order_id, sealed from order_addresses where user_id = ? and order_id = ?";
const UNPROVED: &str = "select order_id, user_id from unproved_addresses where order_id > ? and order_id < ? \
    order by order_id limit ?";
const INSERT: &str = "insert into order_addresses (user_id, order_id, sealed) values (?, ?, ?)";
const INSERT_UNPROVED: &str = "insert into unproved_addresses (order_id, user_id) values (?, ?)";
const PROVE: &str = "delete from unproved_addresses where order_id = ?";
const DROP: &str = "delete from order_addresses where user_id = ? and order_id = ?";

/// Something sealed, and to which order it belongs.
pub type SealedAddress = (OrderId, Vec<u8>);

/// Reads them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct OrderAddressReader {
    pub(super) pool: Pool,
}

impl OrderAddressReader {
    /// Those of a buyer's orders made before `before`, newest order first.
    pub async fn of_user(
        &self,
        user: UserId,
        before: Option<OrderId>,
        limit: u32,
    ) -> Result<Vec<SealedAddress>, StoreError> {
        let before = before.unwrap_or(OrderId::from_bytes([0xff; 16]));
        let query = sql::query(OF_USER).bind(user.as_bytes().to_vec()).bind(before.as_bytes().to_vec());
        let rows = query.bind(limit).fetch_all(&self.pool).await?;
        rows.iter().map(address).collect()
    }

    pub async fn find(&self, user: UserId, order: OrderId) -> Result<Option<Vec<u8>>, StoreError> {
        let query = sql::query(FIND).bind(user.as_bytes().to_vec()).bind(order.as_bytes().to_vec());
        let row = query.fetch_optional(&self.pool).await?;
        Ok(row.as_ref().map(address).transpose()?.map(|(_, sealed)| sealed))
    }

    /// Orders between `after` and `before` of which nobody knows yet whether they were born, and whose they would be.
    pub async fn unproved(
        &self,
        after: OrderId,
        before: OrderId,
        limit: u32,
    ) -> Result<Vec<(OrderId, UserId)>, StoreError> {
        let query = sql::query(UNPROVED).bind(after.as_bytes().to_vec()).bind(before.as_bytes().to_vec());
        let rows = query.bind(limit).fetch_all(&self.pool).await?;
        let ids =
            |row: &Row| Ok((OrderId::from_bytes(sixteen(row, 0)?), UserId::from_bytes(sixteen(row, 1)?)));
        rows.iter().map(ids).collect()
    }
}

impl Writing<'_> {
    pub async fn insert_order_address(
        &mut self,
        user: UserId,
        order: OrderId,
        sealed: Vec<u8>,
    ) -> Result<(), StoreError> {
        let query = sql::query(INSERT).bind(user.as_bytes().to_vec()).bind(order.as_bytes().to_vec());
        query.bind(sealed).execute(self.on()).await?;
        let query = sql::query(INSERT_UNPROVED).bind(order.as_bytes().to_vec());
        query.bind(user.as_bytes().to_vec()).execute(self.on()).await?;
        Ok(())
    }

    /// The order was born: its address stays.
    pub async fn prove_order_address(&mut self, order: OrderId) -> Result<(), StoreError> {
        sql::query(PROVE).bind(order.as_bytes().to_vec()).execute(self.on()).await?;
        Ok(())
    }

    /// The order was never born.
    pub async fn drop_order_address(&mut self, user: UserId, order: OrderId) -> Result<(), StoreError> {
        self.prove_order_address(order).await?;
        let query = sql::query(DROP).bind(user.as_bytes().to_vec()).bind(order.as_bytes().to_vec());
        query.execute(self.on()).await?;
        Ok(())
    }
}

fn address(row: &Row) -> Result<SealedAddress, StoreError> {
    Ok((OrderId::from_bytes(sixteen(row, 0)?), row.try_get(1)?))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::persistence::testing::Home::{self, MySql, Sqlite};
    use crate::persistence::testing::{buyer, order, product};

    #[rstest]
    #[tokio::test]
    async fn an_address_is_proved_or_dropped(#[values(Sqlite, MySql)] home: Home) {
        let (_dir, tables) = home.tables().await;
        let orders: Vec<OrderId> = (1..4).map(|number| order(number, product(1))).collect();
        let mut writing = tables.begin().await.unwrap();
        for (number, order) in (1..).zip(&orders) {
            writing.insert_order_address(buyer(1), *order, vec![number]).await.unwrap();
        }
        writing.prove_order_address(orders[0]).await.unwrap();
        writing.drop_order_address(buyer(1), orders[1]).await.unwrap();
        writing.commit().await.unwrap();
        let reader = tables.order_addresses();
        let page = async |before, most| reader.of_user(buyer(1), before, most).await.unwrap();
        assert_eq!(page(None, 9).await, [(orders[2], vec![3]), (orders[0], vec![1])]);
        assert_eq!(page(None, 1).await, [(orders[2], vec![3])]);
        assert_eq!(page(Some(orders[2]), 1).await, [(orders[0], vec![1])]);
        assert_eq!(reader.find(buyer(1), orders[0]).await.unwrap(), Some(vec![1]));
        assert_eq!(reader.find(buyer(2), orders[0]).await.unwrap(), None);
        let (first, last) = (OrderId::from_bytes([0; 16]), OrderId::from_bytes([0xff; 16]));
        assert_eq!(reader.unproved(first, last, 9).await.unwrap(), [(orders[2], buyer(1))]);
        assert_eq!(reader.unproved(first, orders[2], 9).await.unwrap(), []);
    }
}
