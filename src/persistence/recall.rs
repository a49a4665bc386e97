//! What a start has to know before the first order: keys that were used, and products that may not sleep.

use futures_util::StreamExt;

use super::StoreError;
use super::order::OrderReader;
use super::sql::{self, sixteen};
use super::stock::StockReader;
use crate::domain::id::{OrderId, ProductId, UserId};

const BY_KEY: &str = "select o.id, o.body_hash from buyer_runs r cross join buyer_orders b on b.run = r.run \
    cross join orders o on o.id = b.order_id where b.buyer_id = ? and o.key_hash = ?";
const HOLDING: &str = "select product_id from stock where held > 0";

impl OrderReader {
    /// The order a buyer made with a key, and the hash of its request.
    pub async fn by_key(&self, buyer: UserId, key: [u8; 16]) -> Result<Option<(OrderId, u64)>, StoreError> {
        let found =
            sql::query(BY_KEY).bind(&buyer.as_bytes()[..]).bind(&key[..]).fetch_optional(&self.pool).await?;
        let Some(row) = found else { return Ok(None) };
        let body: i64 = row.try_get(1)?;
        Ok(Some((OrderId::from_bytes(sixteen(&row, 0)?), body as u64)))
    }

    /// The orders that a buyer made with a key. There is one at most, unless somebody has changed a row.
    pub(super) async fn made_with(&self, buyer: UserId, key: [u8; 16]) -> Result<Vec<OrderId>, StoreError> {
        let query = sql::query(BY_KEY).bind(&buyer.as_bytes()[..]).bind(&key[..]);
        let rows = query.fetch_all(&self.pool).await?;
        rows.iter().map(|row| Ok(OrderId::from_bytes(sixteen(row, 0)?))).collect()
    }
}

impl StockReader {
    /// Products with holds: they lapse on time only while their owner is loaded.
    pub async fn holding(&self) -> Result<Vec<ProductId>, StoreError> {
        let mut rows = sql::query(HOLDING).fetch(&self.pool);
        let mut products = Vec::new();
        while let Some(row) = rows.next().await {
            products.push(ProductId::from_bytes(sixteen(&row?, 0)?));
        }
        Ok(products)
    }
}
