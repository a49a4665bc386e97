//! A row a unit: whoever comes takes the first that nobody else is taking, so that nobody waits for anybody. What the crowd
//! saves in waiting it spends in stepping over what the others hold.
//!
//! A worker begins to look behind the unit it took last, and looks through all of them only if there is none. An index of what is
//! unsold would be slower: it keeps what was sold until it is purged, and everybody steps over that.

use std::cell::Cell;

use anyhow::Result;
use sqlx::mysql::MySqlConnection;
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
    let table = "create table units (id bigint not null auto_increment primary key, product_id varchar(40) not null, \
                 order_id binary(16)) engine = InnoDB";
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
    /// The unit taken last.
    last: Cell<i64>,
}

impl Clerk {
    pub fn at(url: &str) -> Self {
        Self { connections: Connections::to(url, CONNECTIONS), last: Cell::new(0) }
    }

    pub async fn sell(&self, order: &Order<'_>) -> Result<Decision, Trouble> {
        self.connections
            .turn(async |connection| {
                let mut units = unsold(connection, order, self.last.get()).await?;
                if units.len() < order.quantity as usize {
                    units = unsold(connection, order, 0).await?;
                }
                if units.len() < order.quantity as usize {
                    return roll_back(connection).await;
                }
                self.last.set(units.last().copied().unwrap_or_default());
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

/// Units behind `last` that nobody has and nobody is taking; they are the asker's now.
async fn unsold(connection: &mut MySqlConnection, order: &Order<'_>, last: i64) -> Result<Vec<i64>, Trouble> {
    let first = "select id from units where id > ? and product_id = ? and order_id is null \
                 order by id limit ? for update skip locked";
    sqlx::query_scalar(first)
        .bind(last)
        .bind(order.product)
        .bind(order.quantity)
        .fetch_all(connection)
        .await
        .map_err(not_done)
}
