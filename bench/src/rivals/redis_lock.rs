//! A distributed lock around Redis: `SET NX PX` with a token nobody else has, look, take, keep, and give the lock back if it
//! is still one's own. Whoever finds it taken waits until he hears that it was given back.
//!
//! The lock ends by itself after a while, and whoever held it does not notice: nothing here stops him from selling what
//! another is selling, too. That is the design, and not a mistake in it.

use std::rc::Rc;

use anyhow::Result;
use futures_util::StreamExt;
use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands, ExistenceCheck, Script, SetExpiry, SetOptions};
use tokio::sync::Notify;
use tokio::time::{Duration, Instant, timeout};

use super::redis::{client, connect, not_done, orders_key, record, units_key, unknown};
use super::{Decision, Order, PRODUCT, Trouble};

/// The lock ends after so long whatever its owner does.
const LOCK_MS: u64 = 10_000;
/// Whoever waits asks again after this long, in case nobody told him.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// After so long a buyer hears that there are too many of him.
const PATIENCE: Duration = Duration::from_secs(30);

/// Lock, channel; the token. Given back only by whom it belongs to, and then told.
const RELEASE: &str = "
    if redis.call('get', KEYS[1]) == ARGV[1] then
        redis.call('del', KEYS[1])
        redis.call('publish', KEYS[2], '')
    end";

pub struct Clerk {
    connection: MultiplexedConnection,
    release: Script,
    /// Told once for every time that the lock was given back; wakes whoever has waited longest.
    freed: Rc<Notify>,
}

impl Clerk {
    pub async fn at(url: &str) -> Result<Self> {
        let mut subscription = client(url)?.get_async_pubsub().await?;
        subscription.subscribe(channel(PRODUCT)).await?;
        let freed = Rc::new(Notify::new());
        let told = freed.clone();
        actix_web::rt::spawn(async move {
            let mut messages = subscription.into_on_message();
            while messages.next().await.is_some() {
                told.notify_one();
            }
        });
        Ok(Self { connection: connect(url).await?, release: Script::new(RELEASE), freed })
    }

    pub async fn sell(&self, order: &Order<'_>) -> Result<Decision, Trouble> {
        let mut connection = self.connection.clone();
        let token = order.id.as_bytes().as_slice();
        self.acquire(&mut connection, order.product, token).await?;
        let decision = decide(&mut connection, order).await;
        let released = self
            .release
            .key(lock_key(order.product))
            .key(channel(order.product))
            .arg(token)
            .invoke_async::<()>(&mut connection)
            .await;
        // What was decided stands, whether or not the others hear at once that they may come.
        drop(released);
        decision
    }

    async fn acquire(
        &self,
        connection: &mut MultiplexedConnection,
        product: &str,
        token: &[u8],
    ) -> Result<(), Trouble> {
        let (lock, began) = (lock_key(product), Instant::now());
        let if_free =
            SetOptions::default().conditional_set(ExistenceCheck::NX).with_expiration(SetExpiry::PX(LOCK_MS));
        while began.elapsed() < PATIENCE {
            let taken: Option<String> =
                connection.set_options(&lock, token, if_free.clone()).await.map_err(not_done)?;
            if taken.is_some() {
                return Ok(());
            }
            // Told, or tired of waiting: asking is the same.
            let _ = timeout(ASK_AGAIN, self.freed.notified()).await;
        }
        Err(Trouble::NotDone(anyhow::anyhow!("the lock was never free in {PATIENCE:?}")))
    }
}

/// Under the lock: nobody else looks or takes.
async fn decide(connection: &mut MultiplexedConnection, order: &Order<'_>) -> Result<Decision, Trouble> {
    let units: i64 = connection.get(units_key(order.product)).await.map_err(not_done)?;
    if units < i64::from(order.quantity) {
        return Ok(Decision::SoldOut);
    }
    redis::pipe()
        .atomic()
        .decr(units_key(order.product), order.quantity)
        .ignore()
        .hset(orders_key(order.product), order.id.as_bytes().as_slice(), record(order))
        .ignore()
        .query_async::<()>(connection)
        .await
        .map_err(unknown)?;
    Ok(Decision::Sold)
}

fn lock_key(product: &str) -> String {
    format!("lock:{{{product}}}")
}

fn channel(product: &str) -> String {
    format!("freed:{{{product}}}")
}
