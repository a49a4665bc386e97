//! A script an order: Redis looks, takes and keeps in one step, and answers when its file is on disk.

use anyhow::Result;
use redis::Script;
use redis::aio::MultiplexedConnection;

use super::redis::{connect, orders_key, record, units_key, unknown};
use super::{Decision, Order, Trouble};

/// Units, orders; how many, the order's id, the order. 1 if it was sold.
const SELL: &str = "
    if tonumber(redis.call('get', KEYS[1]) or 0) < tonumber(ARGV[1]) then
        return 0
    end
    redis.call('decrby', KEYS[1], ARGV[1])
    redis.call('hset', KEYS[2], ARGV[2], ARGV[3])
    return 1";

pub struct Clerk {
    connection: MultiplexedConnection,
    sell: Script,
}

impl Clerk {
    pub async fn at(url: &str) -> Result<Self> {
        Ok(Self { connection: connect(url).await?, sell: Script::new(SELL) })
    }

    pub async fn sell(&self, order: &Order<'_>) -> Result<Decision, Trouble> {
        let sold = self
            .sell
            .key(units_key(order.product))
            .key(orders_key(order.product))
            .arg(order.quantity)
            .arg(order.id.as_bytes().as_slice())
            .arg(record(order))
            .invoke_async(&mut self.connection.clone())
            .await
            .map_err(unknown)?;
        Ok(if sold { Decision::Sold } else { Decision::SoldOut })
    }
}
