//! How the rivals on MariaDB reach it: a few connections for each worker of the server, and a turn for each buyer. A session
//! locks no gaps and is always in a transaction, so that nobody spends a round trip on beginning one.
//!
//! It is not sqlx's own pool, since that asks a connection whether it is still there each time it comes back: a
//! fourth round trip where three do.

use std::cell::RefCell;

use anyhow::Result;
use sqlx::mysql::MySqlConnection;
use sqlx::{Connection, Executor};
use tokio::sync::Semaphore;
use tokio::time::{Duration, timeout};

use super::{Decision, Order, Trouble};

/// How long a buyer waits for his turn before he hears that there are too many of him.
const PATIENCE: Duration = Duration::from_secs(30);

/// One worker's connections.
pub struct Connections {
    url: String,
    turns: Semaphore,
    idle: RefCell<Vec<MySqlConnection>>,
}

impl Connections {
    pub fn to(url: &str, most: usize) -> Self {
        Self { url: url.to_owned(), turns: Semaphore::new(most), idle: RefCell::default() }
    }

    /// One buyer's turn with a connection. If it goes wrong, or nobody waits for it any more, the connection goes and takes
    /// with it whatever it had not committed.
    pub async fn turn(
        &self,
        work: impl AsyncFnOnce(&mut MySqlConnection) -> Result<Decision, Trouble>,
    ) -> Result<Decision, Trouble> {
        let Ok(Ok(_turn)) = timeout(PATIENCE, self.turns.acquire()).await else {
            return Err(Trouble::NotDone(anyhow::anyhow!("no connection was free in {PATIENCE:?}")));
        };
        let idle = self.idle.borrow_mut().pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => self.session().await.map_err(not_done)?,
        };
        let decision = work(&mut connection).await?;
        self.idle.borrow_mut().push(connection);
        Ok(decision)
    }

    async fn session(&self) -> sqlx::Result<MySqlConnection> {
        let mut connection = MySqlConnection::connect(&self.url).await?;
        connection.execute("set session transaction isolation level read committed").await?;
        connection.execute("set session autocommit = 0").await?;
        Ok(connection)
    }
}

pub async fn commit(connection: &mut MySqlConnection) -> Result<Decision, Trouble> {
    match connection.execute("commit").await {
        Ok(_) => Ok(Decision::Sold),
        Err(error) => Err(Trouble::Unknown(error.into())),
    }
}

pub async fn roll_back(connection: &mut MySqlConnection) -> Result<Decision, Trouble> {
    connection.execute("rollback").await.map_err(not_done)?;
    Ok(Decision::SoldOut)
}

pub async fn connect(url: &str) -> Result<MySqlConnection> {
    Ok(MySqlConnection::connect(url).await?)
}

pub async fn create_orders(connection: &mut MySqlConnection) -> Result<()> {
    let table = "create table orders (id binary(16) not null primary key, product_id varchar(40) not null, \
                 buyer varchar(40) not null, quantity int not null, created_at bigint not null) engine = InnoDB";
    connection.execute(table).await?;
    Ok(())
}

pub async fn insert_order(connection: &mut MySqlConnection, order: &Order<'_>) -> Result<(), Trouble> {
    sqlx::query("insert into orders (id, product_id, buyer, quantity, created_at) values (?, ?, ?, ?, ?)")
        .bind(order.id.as_bytes().as_slice())
        .bind(order.product)
        .bind(order.buyer)
        .bind(order.quantity)
        .bind(order.created_ms as i64)
        .execute(connection)
        .await
        .map_err(not_done)?;
    Ok(())
}

pub async fn count_orders(connection: &mut MySqlConnection) -> Result<u64> {
    let orders: i64 = sqlx::query_scalar("select count(*) from orders").fetch_one(connection).await?;
    Ok(orders as u64)
}

/// Of what went wrong before the commit: the transaction is rolled back, by us or with its connection.
pub fn not_done(error: sqlx::Error) -> Trouble {
    Trouble::NotDone(error.into())
}
