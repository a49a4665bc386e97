//! Redis: the only place with its commands. What stands there is a copy, and all of it can be made again.
//!
//! One task [keeps](Redis::keep) the connection: it looks every half second whether Redis answers, and comes back to it with growing
//! pauses. Everybody else takes the [`Link`] that there is, or hears at once that there is none. Always true: nobody waits for a
//! connection, an answer is waited for no longer than [`ANSWER_WITHIN`], and what a lost answer came to is found out by doing it again.
//!
//! All keys of a product share the hash tag `{<product id>}`, so that in a cluster they lie on one server.

mod bus;
mod mirror;
mod rate;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::config;
use crate::telemetry::Metrics;
use wire::{Door, Wire};

pub use bus::{Ear, Heard, Sounds};
#[cfg(any(test, feature = "fuzz"))]
pub use mirror::read_views;
pub use mirror::{Beat, Beaten, Generation, Mirrored, Sighting, Version, Wrote};
pub use rate::Quota;

/// The longest that one answer is waited for.
pub const ANSWER_WITHIN: Duration = Duration::from_millis(250);
/// The longest that a connection may take, log-in included.
pub const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// How often it is looked whether Redis still answers.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Pauses between two tries to connect: the first, and the longest.
const BACK_OFF: Duration = Duration::from_millis(50);
const BACK_OFF_MAX: Duration = Duration::from_secs(1);

/// Why Redis did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum NoRedis {
    #[error("there is no connection to Redis")]
    Away,
    #[error("Redis: {0}")]
    Failed(#[from] redis::RedisError),
    #[error("Redis does not answer")]
    Late,
    #[error("Redis holds something else under {0}")]
    Damaged(String),
}

/// The setting names no place.
#[derive(Debug, thiserror::Error)]
#[error("the address of Redis cannot be used: {0}")]
pub struct NoPlace(#[from] redis::RedisError);

/// The way to Redis. Cheap to clone.
#[derive(Clone)]
pub struct Redis(Arc<Inner>);

struct Inner {
    door: Door,
    link: ArcSwapOption<Link>,
    up: watch::Sender<bool>,
    doubt: Notify,
    links: AtomicU64,
}

/// One connection, from its beginning to its loss.
pub struct Link {
    /// Tells it from those before: what was written over another one may be lost.
    pub number: u64,
    wire: Wire,
}

impl Redis {
    /// Nothing is connected before [`Redis::keep`] runs.
    pub fn open(place: &config::Redis) -> Result<Redis, NoPlace> {
        Ok(Redis(Arc::new(Inner {
            door: Door::to(place)?,
            link: ArcSwapOption::empty(),
            up: watch::Sender::new(false),
            doubt: Notify::new(),
            links: AtomicU64::new(0),
        })))
    }

    /// The connection, if there is one.
    pub fn link(&self) -> Option<Arc<Link>> {
        self.0.link.load_full()
    }

    pub fn is_up(&self) -> bool {
        *self.0.up.borrow()
    }

    /// Tells whenever Redis comes or goes.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.0.up.subscribe()
    }

    /// Something failed: let it be looked at now.
    pub fn doubt(&self) {
        self.0.doubt.notify_one();
    }

    /// Connects, looks, and connects again; until it is dropped. One task does this, and the connections live on its runtime.
    pub async fn keep(&self, metrics: &Metrics) {
        let mut pause = BACK_OFF;
        // Said once and not at every try.
        let mut told = false;
        loop {
            match self.connect().await {
                Ok(link) => {
                    info!("Redis answers");
                    self.0.link.store(Some(link.clone()));
                    self.0.up.send_replace(true);
                    metrics.mirror.redis_up.set(1.0);
                    let lost = self.until_lost(&link).await;
                    self.0.link.store(None);
                    self.0.up.send_replace(false);
                    metrics.mirror.redis_up.set(0.0);
                    warn!(error = %lost, "Redis is away: orders go on, other nodes see stock through us alone");
                    (pause, told) = (BACK_OFF, true);
                }
                Err(error) if !told => {
                    warn!(%error, "Redis cannot be reached: orders go on without it; trying again");
                    told = true;
                }
                Err(_) => {}
            }
            sleep(pause).await;
            pause = (pause * 2).min(BACK_OFF_MAX);
        }
    }

    /// A connection that nobody keeps: for who looks once.
    pub async fn connect(&self) -> Result<Arc<Link>, NoRedis> {
        let connecting = async {
            let wire = self.0.door.open().await?;
            wire.teach().await?;
            Ok::<_, NoRedis>(wire)
        };
        let wire = timeout(CONNECT_WITHIN, connecting).await.map_err(|_| NoRedis::Late)??;
        Ok(Arc::new(Link { number: self.0.links.fetch_add(1, Ordering::Relaxed), wire }))
    }

    async fn until_lost(&self, link: &Link) -> NoRedis {
        loop {
            // Whichever comes first: it is time, or somebody doubts.
            let _ = timeout(LOOK_EVERY, self.0.doubt.notified()).await;
            if let Err(error) = link.wire.ping().await {
                return error;
            }
        }
    }
}
