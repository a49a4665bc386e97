//! Copies what owners publish, every 50 ms and in bulk, and says how new the copy is.
//!
//! Always true: the beat says *until now* only after everything published until then was written. Whatever casts a doubt on that (a lost
//! connection, a call that failed, a beat that has gone, more changes than are told one by one) ends the generation: the next one is
//! written whole, from what the owners show, and nothing of the one before counts any more.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::{Standing, mirrored};
use crate::actors::stock::{Directory, Published, View};
use crate::clock::Clock;
use crate::domain::id::{ProductId, SHARDS};
use crate::domain::stock::Epoch;
use crate::persistence::redis::{Beat, Generation, Link, Mirrored, NoRedis, Redis};
use crate::telemetry::Metrics;

/// Between two turns: a product that sells is written so often and no more.
pub const COPY_EVERY: Duration = Duration::from_millis(50);
/// Views that travel together.
pub const BATCH_MAX: usize = 256;
/// The longest without a beat: of what nobody buys it says that it is still so.
const BEAT_EVERY_NS: u64 = 100_000_000;
/// How often some products are compared with their owners, and how many.
const COMPARE_EVERY_NS: u64 = 1_000_000_000;
const COMPARED_MAX: usize = 64;
/// Pauses after something failed though Redis answers: the first, and the longest.
const FAILED_PAUSE: Duration = Duration::from_millis(100);
const FAILED_PAUSE_MAX: Duration = Duration::from_secs(1);

/// What is written now counts while this connection and this beat last.
struct Era {
    link: u64,
    generation: Generation,
    /// The beat stands.
    begun: bool,
    beaten_ns: u64,
}

/// Why a turn came to nothing.
enum Failed {
    NoRedis(NoRedis),
    /// The beat has gone, and maybe all else with it.
    Flushed,
    /// Another node copies, and has the right to.
    Outdated,
}

impl From<NoRedis> for Failed {
    fn from(error: NoRedis) -> Failed {
        Failed::NoRedis(error)
    }
}

pub(super) struct Copying {
    redis: Redis,
    clock: Clock,
    metrics: Metrics,
    standing: Arc<Standing>,
    owners: watch::Receiver<Option<Directory>>,
    era: Option<Era>,
    changed: Vec<Published>,
    /// Up to when everything published is in the mirror.
    copied_ns: u64,
    compared_ns: u64,
    /// Where the next comparison begins.
    shard: u16,
    pause: Duration,
}

impl Copying {
    pub(super) fn new(
        redis: Redis,
        clock: Clock,
        metrics: Metrics,
        standing: Arc<Standing>,
        owners: watch::Receiver<Option<Directory>>,
    ) -> Copying {
        Copying {
            redis,
            copied_ns: clock.nanos(),
            compared_ns: clock.nanos(),
            clock,
            metrics,
            standing,
            owners,
            era: None,
            changed: Vec::new(),
            shard: 0,
            pause: FAILED_PAUSE,
        }
    }

    pub(super) async fn run(mut self) {
        // A sender that goes ends the thread anyway.
        let Ok(directory) = self.owners.wait_for(Option::is_some).await.map(|owners| owners.clone()) else {
            return std::future::pending().await;
        };
        let Some(directory) = directory else { return std::future::pending().await };
        self.copied_ns = self.clock.nanos();
        self.standing.copies.store(true, Ordering::Relaxed);
        loop {
            sleep(COPY_EVERY).await;
            if let Some(link) = self.redis.link() {
                match self.turn(&link, &directory).await {
                    Ok(()) => self.pause = FAILED_PAUSE,
                    Err(failed) => self.fail(failed).await,
                }
            }
            let lag = self.clock.nanos().saturating_sub(self.copied_ns);
            self.standing.lag_ms.store(lag / 1_000_000, Ordering::Relaxed);
            self.metrics.mirror.lag_seconds.set(lag as f64 / 1e9);
        }
    }

    async fn turn(&mut self, link: &Link, directory: &Directory) -> Result<(), Failed> {
        let epoch = directory.house().home.term();
        // Nobody of whom another has taken over may say that he is up to date.
        if !directory.house().home.is_the_only_one() {
            return Ok(());
        }
        // What other nodes' owners publish is here a moment later.
        let began = directory.shown_until_ns();
        let each = directory.house().changes.take(&mut self.changed);
        let era = match self.era.take() {
            Some(era) if era.link == link.number && each => era,
            _ => {
                // What has changed may have gone since; the rest is there.
                self.changed.extend(directory.published());
                let generation = Generation::new(self.clock.chance());
                Era { link: link.number, generation, begun: false, beaten_ns: 0 }
            }
        };
        let wrote = self.write(link, &era, epoch).await?;
        let due = began.saturating_sub(era.beaten_ns) >= BEAT_EVERY_NS;
        let era = if wrote || due || !era.begun { self.beat(link, era, epoch, began).await? } else { era };
        if began.saturating_sub(self.compared_ns) >= COMPARE_EVERY_NS {
            self.compared_ns = began;
            self.compare(link, &era, directory, epoch).await?;
        }
        self.era = Some(era);
        Ok(())
    }

    /// Whether there was anything to write.
    async fn write(&mut self, link: &Link, era: &Era, epoch: Epoch) -> Result<bool, NoRedis> {
        let (mut views, mut wrote) = (Vec::with_capacity(BATCH_MAX.min(self.changed.len())), false);
        for batch in self.changed.chunks(BATCH_MAX) {
            views.clear();
            views.extend(batch.iter().filter_map(|owner| {
                let view = owner.take()?;
                Some((owner.product(), mirrored(&view, epoch)))
            }));
            if views.is_empty() {
                continue;
            }
            let metrics = &self.metrics.mirror;
            let written = link.write(&era.generation, &views).await;
            let written = written.inspect_err(|_| metrics.failed.increment(views.len() as u64))?;
            metrics.changed.increment(written.changed);
            metrics.same.increment(written.same);
            metrics.older.increment(written.older);
            wrote = true;
        }
        self.changed.clear();
        Ok(wrote)
    }

    async fn beat(&mut self, link: &Link, era: Era, epoch: Epoch, began: u64) -> Result<Era, Failed> {
        let behind = Duration::from_nanos(self.clock.nanos().saturating_sub(began));
        match link.beat(epoch, &era.generation, behind, !era.begun).await? {
            Beat::Kept => {
                if !era.begun {
                    debug!("the mirror shows everything that is loaded");
                }
                self.copied_ns = began;
                Ok(Era { begun: true, beaten_ns: began, ..era })
            }
            Beat::Lost => Err(Failed::Flushed),
            Beat::Older => Err(Failed::Outdated),
        }
    }

    /// Looks whether some products stand in the mirror as their owners have published them.
    async fn compare(
        &mut self,
        link: &Link,
        era: &Era,
        directory: &Directory,
        epoch: Epoch,
    ) -> Result<(), NoRedis> {
        let shown = self.some(directory);
        let products: Vec<ProductId> = shown.iter().map(|(product, _)| *product).collect();
        let stored = link.stored(&products).await?;
        for ((product, view), stored) in shown.iter().zip(stored) {
            let still = directory.peek(*product).is_some_and(|now| Arc::ptr_eq(&now, view));
            if !still || directory.has_changed(*product) {
                // It moves: what stands there may be what stood here a moment ago.
                continue;
            }
            let wanted = mirrored(view, epoch);
            match stored {
                Some((generation, found)) if generation == era.generation && same(&wanted, &found) => {}
                _ => {
                    self.metrics.mirror.mismatches.increment(1);
                    warn!(%product, "the mirror shows something else than its owner; it is written again");
                    // Were it newer than ours, it would refuse to be.
                    link.forget(*product).await?;
                    directory.show_again(*product);
                }
            }
        }
        Ok(())
    }

    /// Some loaded products, others each time.
    fn some(&mut self, directory: &Directory) -> Vec<(ProductId, Arc<View>)> {
        let mut some = Vec::new();
        for _ in 0..SHARDS {
            let loaded = directory.loaded_in(self.shard);
            let shown = loaded.into_iter().filter_map(|product| Some((product, directory.peek(product)?)));
            some.extend(shown.take(COMPARED_MAX - some.len()));
            self.shard = (self.shard + 1) % SHARDS;
            if some.len() == COMPARED_MAX {
                break;
            }
        }
        some
    }

    async fn fail(&mut self, failed: Failed) {
        self.era = None;
        match failed {
            Failed::NoRedis(error) => {
                if self.pause == FAILED_PAUSE {
                    warn!(%error, "the mirror could not be written; it is written whole when Redis takes it");
                }
                self.redis.doubt();
            }
            Failed::Flushed => {
                info!("Redis has lost the mirror, and gets all of it again");
                return;
            }
            Failed::Outdated => {
                if self.pause == FAILED_PAUSE {
                    warn!("a newer owner writes the mirror; this node does not");
                }
            }
        }
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(FAILED_PAUSE_MAX);
    }
}

/// Whatever is told of a product; when it was published is told again after a reload.
fn same(a: &Mirrored, b: &Mirrored) -> bool {
    let what = |view: &Mirrored| (view.version, view.counts, view.paused, view.archived);
    what(a) == what(b) && a.settings == b.settings
}
