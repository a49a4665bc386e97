//! The mirror: what owners publish, copied to Redis for the other nodes, and what those say, heard.
//!
//! It owns a thread with four tasks: one keeps the connection, one [copies](copying), one [listens](listening), one [reports](tries).
//! Always true: nobody who
//! sells waits for it; what it cannot copy now is not kept but copied anew from the owners when Redis is there again; and what is read
//! from it says how old it is, and decides nothing.

mod copying;
mod listening;
mod reader;
mod tries;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tracing::error;

use crate::actors::background::{Background, Ended};
use crate::actors::revocations::Revocations;
use crate::actors::stock::{Directory, View};
use crate::clock::Clock;
use crate::domain::stock::Epoch;
use crate::persistence::redis::{Mirrored, Redis, Version};
use crate::telemetry::Metrics;
use copying::Copying;
use listening::Listening;

pub use copying::{BATCH_MAX, COPY_EVERY};
pub use listening::WATCHED_MAX;
pub use reader::{AGE_MAX, MirrorReader, TooMany};
pub use tries::{COUNTED_MAX, Tries};

/// Who is further behind than this says so.
const BEHIND_MAX: Duration = Duration::from_secs(1);
/// What the mirror needs of the house.
pub struct MirrorHouse {
    pub redis: Redis,
    pub revocations: Revocations,
    pub tries: Tries,
    pub clock: Clock,
    pub metrics: Metrics,
}

/// What its tasks share with whoever asks how they are.
#[derive(Default)]
struct Standing {
    stop: Notify,
    /// Since when something may be missing in the mirror, in milliseconds.
    lag_ms: AtomicU64,
    copies: AtomicBool,
}

/// Ends the thread when the last handle has gone.
struct Alive(Arc<Standing>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.stop.notify_one();
    }
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Mirror {
    redis: Redis,
    reader: MirrorReader,
    owners: Arc<watch::Sender<Option<Directory>>>,
    alive: Arc<Alive>,
    ended: Ended,
}

impl Mirror {
    /// Begins to connect and to listen. Nothing is copied before [`Mirror::copy`].
    pub fn start(house: MirrorHouse) -> std::io::Result<Mirror> {
        let MirrorHouse { redis, revocations, tries, clock, metrics } = house;
        let standing = Arc::<Standing>::default();
        let owners = Arc::new(watch::Sender::new(None));
        let reader = MirrorReader::new(redis.clone(), clock.clone());
        let copying =
            Copying::new(redis.clone(), clock.clone(), metrics.clone(), standing.clone(), owners.subscribe());
        let listening = Listening::new(reader.clone(), revocations, &clock);
        // As important as the order path, of which it takes very little: it holds what an owner may need next, for a moment.
        let background = Background { name: "stockade-mirror", nice: 0, lost: "nothing is copied" };
        let (connection, stop) = (redis.clone(), standing.clone());
        let ended = background.begin(move || async move {
            let mut tasks = JoinSet::new();
            tasks.spawn(async move { stop.stop.notified().await });
            tasks.spawn(tries.share(connection.clone()));
            tasks.spawn(async move { connection.keep(&metrics).await });
            tasks.spawn(copying.run());
            tasks.spawn(listening.run());
            // None of the others ever comes to an end.
            if let Some(Err(error)) = tasks.join_next().await {
                error!(%error, "the mirror is gone: other nodes see no stock of ours but through us");
            }
        })?;
        Ok(Mirror { redis, reader, owners, alive: Arc::new(Alive(standing)), ended })
    }

    /// From now on copies what these owners publish.
    pub fn copy(&self, directory: &Directory) {
        self.owners.send_replace(Some(directory.clone()));
    }

    /// What other nodes have published.
    pub fn reader(&self) -> &MirrorReader {
        &self.reader
    }

    pub fn redis_is_up(&self) -> bool {
        self.redis.is_up() && !*self.ended.borrow()
    }

    /// Redis answers, and what is there is old all the same.
    pub fn is_behind(&self) -> bool {
        let standing = &self.alive.0;
        let lag = Duration::from_millis(standing.lag_ms.load(Ordering::Relaxed));
        standing.copies.load(Ordering::Relaxed) && self.redis_is_up() && lag > BEHIND_MAX
    }

    /// Ends the thread, and waits for its end. What stands in Redis is told by nobody once its beat is old.
    pub async fn stop(&self) {
        self.alive.0.stop.notify_one();
        let mut ended = self.ended.clone();
        // A thread that is gone already has nothing more to say.
        let _ = ended.wait_for(|ended| *ended).await;
    }
}

fn mirrored(view: &View, epoch: Epoch) -> Mirrored {
    Mirrored {
        version: Version { epoch, sequence: view.sequence },
        counts: view.counts,
        settings: view.settings.clone(),
        paused: view.paused,
        archived: view.archived,
        as_of: view.as_of,
    }
}

impl From<Mirrored> for View {
    fn from(mirrored: Mirrored) -> View {
        View {
            sequence: mirrored.version.sequence,
            counts: mirrored.counts,
            settings: mirrored.settings,
            paused: mirrored.paused,
            archived: mirrored.archived,
            as_of: mirrored.as_of,
        }
    }
}
