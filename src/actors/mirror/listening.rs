//! Listens to what other nodes say: changes of the products that somebody here watches, and that a token was revoked.
//!
//! Always true: whoever was deaf for a while looks at everything when he hears again, and again at what he did not see, so a lost message
//! costs time and nothing else.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{debug, warn};

use super::reader::MirrorReader;
use crate::actors::revocations::Revocations;
use crate::clock::Clock;
use crate::domain::id::ProductId;
use crate::persistence::redis::{Ear, Heard, NoRedis, Sounds};

/// The most products that one process watches.
pub const WATCHED_MAX: usize = 10_000;
/// How often it is looked whether anybody is at the other end, and who still watches.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// Between two tries to be heard.
const DEAF_PAUSE: Duration = Duration::from_millis(250);
/// Products that are asked for together.
const TOGETHER_MAX: usize = 256;
/// Products that are looked at again at one check.
const AGAIN_MAX: usize = 32;

/// What one connection hears of.
#[derive(Default)]
struct Tuned {
    open: BTreeSet<ProductId>,
    /// Those of them of which nothing has been seen yet.
    unseen: VecDeque<ProductId>,
}

pub(super) struct Listening {
    reader: MirrorReader,
    revocations: Revocations,
    /// By which we know our own words.
    name: String,
}

impl Listening {
    pub(super) fn new(reader: MirrorReader, revocations: Revocations, clock: &Clock) -> Listening {
        Listening { reader, revocations, name: format!("{:032x}", clock.chance()) }
    }

    pub(super) async fn run(self) {
        let mut up = self.reader.redis.watch();
        loop {
            if up.wait_for(|up| *up).await.is_err() {
                return std::future::pending().await;
            }
            match self.reader.redis.listen().await {
                Ok((ear, sounds)) => {
                    let lost = self.listen(ear, sounds).await;
                    debug!(error = ?lost.err(), "nothing is heard of other nodes; trying again");
                }
                Err(error) => debug!(%error, "nothing is heard of other nodes; trying again"),
            }
            self.reader.redis.doubt();
            sleep(DEAF_PAUSE).await;
        }
    }

    async fn listen(&self, mut ear: Ear, mut sounds: Sounds) -> Result<(), NoRedis> {
        let mut tuned = Tuned::default();
        self.tune(&mut ear, &mut tuned).await?;
        // What was said while nobody listened.
        self.revocations.look();
        let mut check = interval(CHECK_EVERY);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                heard = sounds.next() => match heard {
                    Some(Heard::Stock(product, view)) => self.reader.heard(product, view),
                    Some(Heard::Revoked(by)) if by == self.name => {}
                    Some(Heard::Revoked(_)) => self.revocations.look(),
                    Some(Heard::Noise) => warn!("something is said on the bus that this version does not understand"),
                    None => return Err(NoRedis::Away),
                },
                () = self.reader.more() => self.tune(&mut ear, &mut tuned).await?,
                () = self.revocations.told() => self.tell().await,
                _ = check.tick() => {
                    ear.check().await?;
                    self.look_again(&mut tuned.unseen).await;
                    self.tune(&mut ear, &mut tuned).await?;
                }
            }
        }
    }

    /// The table has it, and every node reads that by itself: whatever goes wrong here costs two seconds.
    async fn tell(&self) {
        let Some(link) = self.reader.redis.link() else { return };
        if let Err(error) = link.tell_revoked(&self.name).await {
            debug!(%error, "other nodes were not told of a revocation; they read it by themselves");
            self.reader.redis.doubt();
        }
    }

    /// Hears of what is watched, and of nothing else; looks at once at what is new.
    async fn tune(&self, ear: &mut Ear, tuned: &mut Tuned) -> Result<(), NoRedis> {
        let Tuned { open, unseen } = tuned;
        let watched: BTreeSet<ProductId> = self.reader.watched().into_iter().collect();
        let gone: Vec<ProductId> = open.difference(&watched).copied().collect();
        for some in gone.chunks(TOGETHER_MAX) {
            ear.close_for(some).await?;
        }
        unseen.retain(|product| watched.contains(product));
        let new: Vec<ProductId> = watched.difference(open).copied().collect();
        *open = watched;
        for some in new.chunks(TOGETHER_MAX) {
            ear.open_for(some).await?;
            for product in some {
                self.see(*product, unseen).await;
            }
        }
        Ok(())
    }

    /// Looks at some of what could not be seen.
    async fn look_again(&self, unseen: &mut VecDeque<ProductId>) {
        for _ in 0..unseen.len().min(AGAIN_MAX) {
            let Some(product) = unseen.pop_front() else { return };
            self.see(product, unseen).await;
        }
    }

    /// Tells what the mirror has of it. It may have nothing for a moment: while its owner writes everything anew, or as Redis is late.
    async fn see(&self, product: ProductId, unseen: &mut VecDeque<ProductId>) {
        match self.reader.look(product).await {
            Some((view, _)) => self.reader.heard(product, view),
            None => unseen.push_back(product),
        }
    }
}
