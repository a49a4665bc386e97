//! The `wishes` rows: who wants to find which product again.

use super::sql::{self, Pool, Row, sixteen};
use super::{StoreError, Writing};
use crate::domain::id::{ProductId, UserId};
use crate::domain::stock::Millis;
use crate::domain::wish::Wish;

/// A list has a bound, and is always read whole.
const OF_USER: &str =
    "select product_id, added_at_ms from wishes where user_id = ? order by added_at_ms desc, product_id desc";
const INSERT: &str = "insert into wishes (user_id, product_id, added_at_ms) values (?, ?, ?)";
const REMOVE: &str = "delete from wishes where user_id = ? and product_id = ?";

/// Reads wish lists. Cheap to clone.
#[derive(Debug, Clone)]
pub struct WishReader {
    pub(super) pool: Pool,
}

impl WishReader {
    /// Somebody's wishes, newest first.
    pub async fn of_user(&self, user: UserId) -> Result<Vec<Wish>, StoreError> {
        let rows = sql::query(OF_USER).bind(user.as_bytes().to_vec()).fetch_all(&self.pool).await?;
        rows.iter().map(wish).collect()
    }
}

impl Writing<'_> {
    /// Somebody's wishes, newest first, as this transaction sees them.
    pub async fn wishes_of(&mut self, user: UserId) -> Result<Vec<Wish>, StoreError> {
        let rows = sql::query(OF_USER).bind(user.as_bytes().to_vec()).fetch_all(self.on()).await?;
        rows.iter().map(wish).collect()
    }

    pub async fn insert_wish(&mut self, user: UserId, wish: &Wish) -> Result<(), StoreError> {
        sql::query(INSERT)
            .bind(user.as_bytes().to_vec())
            .bind(wish.product.as_bytes().to_vec())
            .bind(wish.added_at.0)
            .execute(self.on())
            .await?;
        Ok(())
    }

    pub async fn remove_wish(&mut self, user: UserId, product: ProductId) -> Result<(), StoreError> {
        let query = sql::query(REMOVE).bind(user.as_bytes().to_vec()).bind(product.as_bytes().to_vec());
        query.execute(self.on()).await?;
        Ok(())
    }
}

fn wish(row: &Row) -> Result<Wish, StoreError> {
    Ok(Wish { product: ProductId::from_bytes(sixteen(row, 0)?), added_at: Millis(row.try_get(1)?) })
}
