//! How the rivals on Redis reach it: a connection for each worker of the server, over which the questions of all its buyers
//! go together; what they keep: a number of units, and a hash with all orders.

use anyhow::Result;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{AsyncCommands, AsyncConnectionConfig, Client, ConnectionInfo, IntoConnectionInfo};
use tokio::time::Duration;

use super::{Books, Order, PRODUCT, Trouble};

/// Longer than a Redis that syncs every write makes anybody wait; half a second, the default, is not.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

pub fn client(url: &str) -> Result<Client> {
    let info: ConnectionInfo = url.into_connection_info()?;
    Ok(Client::open(info.set_tcp_settings(TcpSettings::default().set_nodelay(true)))?)
}

pub async fn connect(url: &str) -> Result<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(ANSWER_TIMEOUT));
    Ok(client(url)?.get_multiplexed_async_connection_with_config(&config).await?)
}

/// What stands in braces decides where a key lies in a cluster: everything of a product together.
pub fn units_key(product: &str) -> String {
    format!("units:{{{product}}}")
}

pub fn orders_key(product: &str) -> String {
    format!("orders:{{{product}}}")
}

/// An order as it is kept under its id.
pub fn record(order: &Order<'_>) -> String {
    format!("{},{},{}", order.buyer, order.quantity, order.created_ms)
}

pub async fn stock_up(url: &str, units: u64) -> Result<()> {
    Ok(connect(url).await?.set(units_key(PRODUCT), units).await?)
}

pub async fn books(url: &str, units: u64) -> Result<Books> {
    let mut connection = connect(url).await?;
    let left: i64 = connection.get(units_key(PRODUCT)).await?;
    let orders = connection.hlen(orders_key(PRODUCT)).await?;
    Ok(Books { orders, taken: units.saturating_add_signed(-left) })
}

/// Of a question that changes nothing.
pub fn not_done(error: redis::RedisError) -> Trouble {
    Trouble::NotDone(error.into())
}

/// Of a write that was not answered, or not as it should be.
pub fn unknown(error: redis::RedisError) -> Trouble {
    Trouble::Unknown(error.into())
}
