//! A row a unit: whoever comes takes the first that nobody else is taking, so that nobody waits for anybody. What the crowd
//! saves in waiting it spends in stepping over what the others hold, and over what was sold a moment ago.

use anyhow::Result;
use sqlx::{Connection, Executor};

use super::mariadb::{
    Connections, commit, connect, count_orders, create_orders, insert_order, not_done, roll_back,
};
use super::{Books, Decision, Order, PRODUCT, Trouble};

/// Connections of each worker.
const CONNECTIONS: usize = 16;

pub async fn stock_up(url: &str, units: u64) -> Result<()> {
    let mut connection = connect(url).await?;
    create_orders(&mut connection).await?;
    let table = "create table units (id bigint not null auto_increment primary key, product_id varchar(40) not null, \
                 order_id binary(16), key unsold (product_id, order_id)) engine = InnoDB";
    connection.execute(table).await?;
    let first = sqlx::query("insert into units (product_id) values (?)");
    first.bind(PRODUCT).execute(&mut connection).await?;
    let mut made = 1;
    while made < units {
        // Twice as many as there were.
        let more = sqlx::query("insert into units (product_id) select product_id from units limit ?");
        made += more.bind(units - made).execute(&mut connection).await?.rows_affected();
    }
    Ok(connection.close().await?)
}

pub async fn books(url: &str) -> Result<Books> {
    let mut connection = connect(url).await?;
    let orders = count_orders(&mut connection).await?;
    let taken: i64 = sqlx::query_scalar("select count(*) from units where order_id is not null")
        .fetch_one(&mut connection)
        .await?;
    Ok(Books { orders, taken: taken as u64 })
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
                let unsold = "select id from units where product_id = ? and order_id is null limit ? \
                              for update skip locked";
                let units: Vec<i64> = sqlx::query_scalar(unsold)
                    .bind(order.product)
                    .bind(order.quantity)
                    .fetch_all(&mut *connection)
                    .await
                    .map_err(not_done)?;
                if units.len() < order.quantity as usize {
                    return roll_back(connection).await;
                }
                for unit in units {
                    sqlx::query("update units set order_id = ? where id = ?")
                        .bind(order.id.as_bytes().as_slice())
                        .bind(unit)
                        .execute(&mut *connection)
                        .await
                        .map_err(not_done)?;
                }
                insert_order(connection, order).await?;
                commit(connection).await
            })
            .await
    }
}
