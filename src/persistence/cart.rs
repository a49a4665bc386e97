//! The rows of carts: `carts` with their version and `cart_lines`, the keys with which something was added, and `checkouts` that
//! have begun.
//!
//! Always true: a cart moves from version to version, its lines in the same transaction; and a checkout's rows come and go together.

use std::sync::LazyLock;

use super::sql::{self, Damaged, Listed, Pool, Row, signed, sixteen, unsigned};
use super::{StoreError, Writing};
use crate::domain::amount::Quantity;
use crate::domain::cart::{Cart, CartLine, Checkout, Taken};
use crate::domain::id::{ProductId, UserId};
use crate::domain::stock::{KeyUse, Millis};

/// A cart without lines has one row, in which they are null.
const FIND: &str = "select c.version, c.updated_at_ms, l.product_id, l.quantity, l.added_at_ms from carts c \
    left join cart_lines l on l.user_id = c.user_id where c.user_id = ? order by l.added_at_ms, l.product_id";
const INSERT: &str = "insert into carts (version, updated_at_ms, user_id) values (?, ?, ?)";
const UPDATE: &str = "update carts set version = ?, updated_at_ms = ? where user_id = ? and version = ?";
const UPDATE_LINE: &str = "update cart_lines set quantity = ? where user_id = ? and product_id = ?";
static INSERT_LINES: LazyLock<Listed> = LazyLock::new(|| {
    Listed::new(
        "insert into cart_lines (user_id, product_id, quantity, added_at_ms) values ",
        "(?, ?, ?, ?)",
        "",
    )
});
static DELETE_LINES: LazyLock<Listed> =
    LazyLock::new(|| Listed::new("delete from cart_lines where user_id = ? and product_id in (", "?", ")"));

const ADDITION: &str = "select body_hash from cart_additions where user_id = ? and key_hash = ?";
const INSERT_ADDITION: &str =
    "insert into cart_additions (user_id, key_hash, body_hash, added_at_ms) values (?, ?, ?, ?)";
const FORGET_ADDITIONS: &str = "delete from cart_additions where added_at_ms <= ?";

macro_rules! checkouts {
    ($rest:literal) => {
        concat!(
            "select user_id, key_hash, body_hash, pays, keyed, begun_at_ms, product_id, quantity from checkouts ",
            $rest
        )
    };
}
const CHECKOUTS_OF: &str = checkouts!("where user_id = ? order by key_hash, product_id");
const CHECKOUT: &str = checkouts!("where user_id = ? and key_hash = ? order by product_id");
const WHO_CHECKS_OUT: &str =
    "select distinct user_id from checkouts where user_id > ? order by user_id limit ?";
static BEGIN_CHECKOUT: LazyLock<Listed> = LazyLock::new(|| {
    let head = "insert into checkouts (user_id, key_hash, body_hash, pays, keyed, begun_at_ms, product_id, \
        quantity) values ";
    Listed::new(head, "(?, ?, ?, ?, ?, ?, ?, ?)", "")
});
const END_CHECKOUT: &str = "delete from checkouts where user_id = ? and key_hash = ?";

/// All that a person leaves behind in the shop; a table each.
const FORGET: [&str; 7] = [
    "delete from wishes where user_id = ?",
    "delete from carts where user_id = ?",
    "delete from cart_lines where user_id = ?",
    "delete from cart_additions where user_id = ?",
    "delete from checkouts where user_id = ?",
    "delete from unproved_addresses where user_id = ?",
    "delete from order_addresses where user_id = ?",
];

/// Why a change of a cart was not written.
#[derive(Debug, thiserror::Error)]
pub enum CartError {
    #[error("the cart is not at the version the change was made upon")]
    VersionConflict,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sql::Error> for CartError {
    fn from(error: sql::Error) -> CartError {
        CartError::Store(error.into())
    }
}

/// Reads carts. Cheap to clone.
#[derive(Debug, Clone)]
pub struct CartReader {
    pub(super) pool: Pool,
}

impl CartReader {
    /// Somebody's cart; an empty one if nothing was ever put in.
    pub async fn of_user(&self, user: UserId) -> Result<Cart, StoreError> {
        cart(&sql::query(FIND).bind(user.as_bytes().to_vec()).fetch_all(&self.pool).await?)
    }

    /// Somebody's checkouts that have begun and not ended.
    pub async fn checkouts_of(&self, user: UserId) -> Result<Vec<Checkout>, StoreError> {
        gathered(&sql::query(CHECKOUTS_OF).bind(user.as_bytes().to_vec()).fetch_all(&self.pool).await?)
    }

    /// Who has such a checkout, in order of their ids.
    pub async fn who_checks_out(&self, after: UserId, limit: u32) -> Result<Vec<UserId>, StoreError> {
        let query = sql::query(WHO_CHECKS_OUT).bind(after.as_bytes().to_vec()).bind(limit);
        let rows = query.fetch_all(&self.pool).await?;
        rows.iter().map(|row| Ok(UserId::from_bytes(sixteen(row, 0)?))).collect()
    }
}

impl Writing<'_> {
    /// Somebody's cart as this transaction sees it.
    pub async fn cart_of(&mut self, user: UserId) -> Result<Cart, StoreError> {
        cart(&sql::query(FIND).bind(user.as_bytes().to_vec()).fetch_all(self.on()).await?)
    }

    /// Puts `after` in the place of `before`, which this transaction has read.
    pub async fn save_cart(&mut self, user: UserId, before: &Cart, after: &Cart) -> Result<(), CartError> {
        let id = || user.as_bytes().to_vec();
        let (version, at) = (signed(after.version), after.updated_at.map_or(0, |at| at.0));
        let query = match before.version {
            0 => sql::query(INSERT).bind(version).bind(at).bind(id()),
            known => sql::query(UPDATE).bind(version).bind(at).bind(id()).bind(signed(known)),
        };
        if query.execute(self.on()).await?.rows_affected() != 1 {
            return Err(CartError::VersionConflict);
        }
        let gone: Vec<ProductId> = before.lines.iter().map(|line| line.product).collect();
        let gone: Vec<ProductId> =
            gone.into_iter().filter(|product| after.line(*product).is_none()).collect();
        for (sql, piece) in DELETE_LINES.cut(&gone) {
            let query = sql::query(sql).bind(id());
            let query = piece.iter().fold(query, |query, product| query.bind(product.as_bytes().to_vec()));
            query.execute(self.on()).await?;
        }
        let mut new = Vec::new();
        for line in &after.lines {
            match before.line(line.product) {
                None => new.push(*line),
                Some(known) if known.quantity == line.quantity => {}
                Some(_) => {
                    let quantity = i64::from(line.quantity.get());
                    let query = sql::query(UPDATE_LINE).bind(quantity).bind(id());
                    query.bind(line.product.as_bytes().to_vec()).execute(self.on()).await?;
                }
            }
        }
        for (sql, piece) in INSERT_LINES.cut(&new) {
            let query = piece.iter().fold(sql::query(sql), |query, line| {
                let query = query.bind(id()).bind(line.product.as_bytes().to_vec());
                query.bind(i64::from(line.quantity.get())).bind(line.added_at.0)
            });
            query.execute(self.on()).await?;
        }
        Ok(())
    }

    /// The request with which this key has added something, as its hash.
    pub async fn addition(&mut self, user: UserId, key: [u8; 16]) -> Result<Option<u64>, StoreError> {
        let query = sql::query(ADDITION).bind(user.as_bytes().to_vec()).bind(key.to_vec());
        let Some(row) = query.fetch_optional(self.on()).await? else { return Ok(None) };
        let body: i64 = row.try_get(0)?;
        Ok(Some(body as u64))
    }

    pub async fn insert_addition(
        &mut self,
        user: UserId,
        key: KeyUse,
        now: Millis,
    ) -> Result<(), StoreError> {
        sql::query(INSERT_ADDITION)
            .bind(user.as_bytes().to_vec())
            .bind(key.key.to_vec())
            .bind(key.body as i64)
            .bind(now.0)
            .execute(self.on())
            .await?;
        Ok(())
    }

    /// Forgets the keys of what was added at `before` or earlier.
    pub async fn forget_additions(&mut self, before: Millis) -> Result<(), StoreError> {
        sql::query(FORGET_ADDITIONS).bind(before.0).execute(self.on()).await?;
        Ok(())
    }

    pub async fn begin_checkout(&mut self, checkout: &Checkout) -> Result<(), StoreError> {
        for (sql, piece) in BEGIN_CHECKOUT.cut(&checkout.lines) {
            let query = piece.iter().fold(sql::query(sql), |query, line| {
                query
                    .bind(checkout.user.as_bytes().to_vec())
                    .bind(checkout.key.to_vec())
                    .bind(checkout.body as i64)
                    .bind(i64::from(checkout.pays))
                    .bind(i64::from(checkout.keyed))
                    .bind(checkout.begun_at.0)
                    .bind(line.product.as_bytes().to_vec())
                    .bind(i64::from(line.quantity.get()))
            });
            query.execute(self.on()).await?;
        }
        Ok(())
    }

    /// The checkout with this key as this transaction sees it; `None` when it has ended.
    pub async fn checkout(&mut self, user: UserId, key: [u8; 16]) -> Result<Option<Checkout>, StoreError> {
        let query = sql::query(CHECKOUT).bind(user.as_bytes().to_vec()).bind(key.to_vec());
        Ok(gathered(&query.fetch_all(self.on()).await?)?.pop())
    }

    pub async fn end_checkout(&mut self, user: UserId, key: [u8; 16]) -> Result<(), StoreError> {
        let query = sql::query(END_CHECKOUT).bind(user.as_bytes().to_vec()).bind(key.to_vec());
        query.execute(self.on()).await?;
        Ok(())
    }

    /// Takes away wishes, cart and addresses of orders of somebody who leaves.
    pub async fn forget_shopper(&mut self, user: UserId) -> Result<(), StoreError> {
        for sql in FORGET {
            sql::query(sql).bind(user.as_bytes().to_vec()).execute(self.on()).await?;
        }
        Ok(())
    }
}

fn quantity(row: &Row, column: usize) -> Result<Quantity, StoreError> {
    Ok(Quantity::of_line(unsigned(row, column)?).ok_or(Damaged { what: "quantity" })?)
}

fn cart(rows: &[Row]) -> Result<Cart, StoreError> {
    let Some(first) = rows.first() else { return Ok(Cart::default()) };
    let updated_at = Some(Millis(first.try_get(1)?));
    let mut cart = Cart { lines: Vec::with_capacity(rows.len()), version: unsigned(first, 0)?, updated_at };
    for row in rows {
        if row.try_get::<Option<&[u8]>>(2)?.is_none() {
            continue;
        }
        let product = ProductId::from_bytes(sixteen(row, 2)?);
        let line = CartLine { product, quantity: quantity(row, 3)?, added_at: Millis(row.try_get(4)?) };
        cart.lines.push(line);
    }
    Ok(cart)
}

/// Rows of one checkout stand together.
fn gathered(rows: &[Row]) -> Result<Vec<Checkout>, StoreError> {
    let mut all: Vec<Checkout> = Vec::new();
    for row in rows {
        let key = sixteen(row, 1)?;
        let taken = Taken { product: ProductId::from_bytes(sixteen(row, 6)?), quantity: quantity(row, 7)? };
        match all.last_mut() {
            Some(last) if last.key == key => last.lines.push(taken),
            _ => all.push(Checkout {
                user: UserId::from_bytes(sixteen(row, 0)?),
                key,
                body: row.try_get::<i64>(2)? as u64,
                pays: row.try_get::<i64>(3)? != 0,
                keyed: row.try_get::<i64>(4)? != 0,
                begun_at: Millis(row.try_get(5)?),
                lines: vec![taken],
            }),
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::persistence::testing::Home::{self, MySql, Sqlite};
    use crate::persistence::testing::{T0, buyer, product, units};

    fn next(before: &Cart, lines: &[(u128, u32)]) -> Cart {
        let line = |(number, quantity): &(u128, u32)| CartLine {
            product: product(*number),
            quantity: units(*quantity),
            added_at: T0.plus(*number as i64),
        };
        Cart { lines: lines.iter().map(line).collect(), version: before.version + 1, updated_at: Some(T0) }
    }

    #[rstest]
    #[tokio::test]
    async fn a_cart_moves_from_version_to_version(#[values(Sqlite, MySql)] home: Home) {
        let (_dir, tables) = home.tables().await;
        let mut known = Cart::default();
        assert_eq!(tables.carts().of_user(buyer(1)).await.unwrap(), known);
        let many: Vec<_> = (1..51).map(|number| (number, 1)).collect();
        for lines in [&[(1, 2), (2, 1)][..], &[(1, 5), (3, 1)], &[], &many, &[(7, 1_000)]] {
            let after = next(&known, lines);
            let mut writing = tables.begin().await.unwrap();
            writing.save_cart(buyer(1), &known, &after).await.unwrap();
            assert_eq!(writing.cart_of(buyer(1)).await.unwrap(), after);
            writing.commit().await.unwrap();
            assert_eq!(tables.carts().of_user(buyer(1)).await.unwrap(), after);
            known = after;
        }
        let stale = Cart { version: known.version - 1, ..known.clone() };
        let mut writing = tables.begin().await.unwrap();
        let late = writing.save_cart(buyer(1), &stale, &next(&stale, &[])).await;
        assert!(matches!(late, Err(CartError::VersionConflict)));
        drop(writing);
        assert_eq!(tables.carts().of_user(buyer(1)).await.unwrap(), known);
        assert_eq!(tables.carts().of_user(buyer(2)).await.unwrap(), Cart::default());
    }

    #[rstest]
    #[tokio::test]
    async fn a_checkout_is_there_whole_until_it_ends(#[values(Sqlite, MySql)] home: Home) {
        let (_dir, tables) = home.tables().await;
        let checkout = |user: u128, key: u8| Checkout {
            user: buyer(user),
            key: [key; 16],
            body: u64::MAX - u64::from(key),
            pays: key == 1,
            keyed: key == 2,
            begun_at: T0,
            lines: (1..51).map(|line| Taken { product: product(line), quantity: units(3) }).collect(),
        };
        let all = [checkout(1, 1), checkout(1, 2), checkout(2, 1)];
        let mut writing = tables.begin().await.unwrap();
        for checkout in &all {
            writing.begin_checkout(checkout).await.unwrap();
        }
        writing.commit().await.unwrap();
        let reader = tables.carts();
        assert_eq!(reader.checkouts_of(buyer(1)).await.unwrap(), all[..2]);
        let nobody = UserId::from_bytes([0; 16]);
        assert_eq!(reader.who_checks_out(nobody, 9).await.unwrap(), [buyer(1), buyer(2)]);
        assert_eq!(reader.who_checks_out(buyer(1), 9).await.unwrap(), [buyer(2)]);
        let mut writing = tables.begin().await.unwrap();
        assert_eq!(writing.checkout(buyer(1), [2; 16]).await.unwrap().as_ref(), Some(&all[1]));
        writing.end_checkout(buyer(1), [2; 16]).await.unwrap();
        assert_eq!(writing.checkout(buyer(1), [2; 16]).await.unwrap(), None);
        writing.forget_shopper(buyer(2)).await.unwrap();
        writing.commit().await.unwrap();
        assert_eq!(reader.checkouts_of(buyer(1)).await.unwrap(), all[..1]);
        assert_eq!(reader.who_checks_out(nobody, 9).await.unwrap(), [buyer(1)]);
    }
}
