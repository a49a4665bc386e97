//! A distributed lock around Redis: `SET NX PX` with a token nobody else has, look, take, keep, and give the lock back if it
//! is still one's own. Whoever finds it taken waits until he hears that it was given back; asking every few milliseconds instead
//! costs the server twice as much and sells no more.
//!
//! Looking goes along with asking for the lock, and giving it back along with the writes, so that a sale is two round trips and
//! two syncs.
//!
//! The lock ends by itself after a while, and whoever held it does not notice: nothing here stops him from selling what
//! another is selling, too. That is the design, and not a mistake in it.

use std::rc::Rc;

use anyhow::Result;
use futures_util::StreamExt;
use redis::aio::MultiplexedConnection;
use redis::{ExistenceCheck, Script, SetExpiry, SetOptions};
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
        let (mut connection, release) = (connect(url).await?, Script::new(RELEASE));
        // Among other commands it goes by its hash alone.
        release.prepare_invoke().load_async(&mut connection).await?;
        Ok(Self { connection, release, freed })
    }

    pub async fn sell(&self, order: &Order<'_>) -> Result<Decision, Trouble> {
        let mut connection = self.connection.clone();
        let token = order.id.as_bytes().as_slice();
        let units = self.acquire(&mut connection, order.product, token).await?;
        let mut release = self.release.key(lock_key(order.product));
        release.key(channel(order.product)).arg(token);
        let (decision, mut last) = (decide(units, order), redis::pipe());
        last.atomic();
        if decision == Decision::Sold {
            last.decr(units_key(order.product), order.quantity).ignore();
            last.hset(orders_key(order.product), token, record(order)).ignore();
        }
        last.invoke_script(&release).ignore();
        last.query_async::<()>(&mut connection).await.map_err(unknown)?;
        Ok(decision)
    }

    /// Waits for the lock; how many units there are as long as it is held.
    async fn acquire(
        &self,
        connection: &mut MultiplexedConnection,
        product: &str,
        token: &[u8],
    ) -> Result<i64, Trouble> {
        let if_free =
            SetOptions::default().conditional_set(ExistenceCheck::NX).with_expiration(SetExpiry::PX(LOCK_MS));
        let mut ask = redis::pipe();
        ask.set_options(lock_key(product), token, if_free).get(units_key(product));
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            let (taken, units): (Option<String>, i64) =
                ask.query_async(connection).await.map_err(not_done)?;
            if taken.is_some() {
                return Ok(units);
            }
            // Told, or tired of waiting: asking is the same.
            let _ = timeout(ASK_AGAIN, self.freed.notified()).await;
        }
        Err(Trouble::NotDone(anyhow::anyhow!("the lock was never free in {PATIENCE:?}")))
    }
}

fn decide(units: i64, order: &Order<'_>) -> Decision {
    if units < i64::from(order.quantity) { Decision::SoldOut } else { Decision::Sold }
}

fn lock_key(product: &str) -> String {
    format!("lock:{{{product}}}")
}

fn channel(product: &str) -> String {
    format!("freed:{{{product}}}")
}
