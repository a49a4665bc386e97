//! A transaction an order, around the one row that holds the stock. The order is written first and the row taken last, so
//! that its lock is held for one statement and the commit.

use anyhow::Result;
use sqlx::{Connection, Executor};

use super::mariadb::{
    Connections, commit, connect, count_orders, create_orders, insert_order, not_done, roll_back,
};
use super::{Books, Decision, Order, PRODUCT, Trouble};

/// Connections of each worker: from four to eight it is the same, and from sixteen on the database spends more and sells less.
const CONNECTIONS: usize = 8;

pub async fn stock_up(url: &str, units: u64) -> Result<()> {
    let mut connection = connect(url).await?;
    create_orders(&mut connection).await?;
    let table = "create table stock (product_id varchar(40) not null primary key, units bigint not null, \
                 check (units >= 0)) engine = InnoDB";
    connection.execute(table).await?;
    let insert = sqlx::query("insert into stock (product_id, units) values (?, ?)");
    insert.bind(PRODUCT).bind(units as i64).execute(&mut connection).await?;
    Ok(connection.close().await?)
}

pub async fn books(url: &str, units: u64) -> Result<Books> {
    let mut connection = connect(url).await?;
    let orders = count_orders(&mut connection).await?;
    let left: i64 = sqlx::query_scalar("select units from stock where product_id = ?")
        .bind(PRODUCT)
        .fetch_one(&mut connection)
        .await?;
    Ok(Books { orders, taken: units.saturating_add_signed(-left) })
}

pub struct Clerk {
    connections: Connections,
}

impl Clerk {
    pub fn at(url: &str) -> Self {
        Self { connections: Connections::to(url, CONNECTIONS) }
    }

    pub async fn sell(&self, order: &Order<'_>) -> Result<Decision, Trouble> {
        self.connections
            .turn(async |connection| {
                insert_order(connection, order).await?;
                let taken =
                    sqlx::query("update stock set units = units - ? where product_id = ? and units >= ?")
                        .bind(order.quantity)
                        .bind(order.product)
                        .bind(order.quantity)
                        .execute(&mut *connection)
                        .await
                        .map_err(not_done)?;
                match taken.rows_affected() {
                    0 => roll_back(connection).await,
                    _ => commit(connection).await,
                }
            })
            .await
    }
}
