//! The mirror, held against the journal: what a node would show of a product must have stood there, at that very sequence, and nothing
//! else may have stood there for long when the mirror last said that it was up to date.
//!
//! What is of another generation than the beat's, or cannot be read, is shown to nobody: it is counted at most. Views of products
//! that the journal does not know are not looked for: nobody asks the mirror before the catalogue.

use std::sync::Arc;

use crate::domain::id::ProductId;
use crate::domain::stock::{Ledger, Millis};
use crate::persistence::StoreError;
use crate::persistence::journal::JournalReader;
use crate::persistence::redis::{Generation, Link, Mirrored, NoRedis, Redis};

/// Views read at a time.
const VIEWS_AT_ONCE: usize = 256;
/// The clocks of owners and Redis may differ, and a group may be on its way: what was decided so long before a beat was published
/// before it, unless a disk stood still for as long.
const SLACK_MS: i64 = 60_000;

/// What the audit has seen of the mirror.
#[derive(Debug, Default)]
pub struct Mirror {
    /// Products of which the mirror would show something.
    pub shown: u64,
    /// Those among them that have moved since.
    pub behind: u64,
    /// Views that are left from an earlier writer, and shown to nobody.
    pub left: u64,
    pub differences: Vec<String>,
}

/// What a connection that is used now and then needs: one that has idled for too long is replaced, once.
struct Reading<'r> {
    redis: &'r Redis,
    link: Arc<Link>,
}

impl Reading<'_> {
    async fn stored(
        &mut self,
        products: &[ProductId],
    ) -> Result<Vec<Option<(Generation, Mirrored)>>, NoRedis> {
        if let Ok(views) = self.link.stored(products).await {
            return Ok(views);
        }
        self.link = self.redis.connect().await?;
        self.link.stored(products).await
    }
}

/// Why it is not looked at to its end.
#[derive(Debug, thiserror::Error)]
enum Unseen {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Redis(#[from] NoRedis),
}

/// What Redis does not tell is a difference, too: nobody has seen that there is none.
pub async fn audit(journal: &JournalReader, redis: &Redis) -> Result<Mirror, StoreError> {
    let mut seen = Mirror::default();
    match seen.look(journal, redis).await {
        Ok(()) => {}
        Err(Unseen::Store(error)) => return Err(error),
        Err(Unseen::Redis(why)) => {
            seen.differences.push(format!("the mirror was not looked at to its end: {why}"));
        }
    }
    Ok(seen)
}

impl Mirror {
    async fn look(&mut self, journal: &JournalReader, redis: &Redis) -> Result<(), Unseen> {
        let link = redis.connect().await?;
        let Some(beat) = link.beaten().await? else { return Ok(()) };
        let last = journal.last_epoch().await?;
        if beat.epoch > last {
            self.differences.push(format!(
                "the mirror was written at epoch {}, and the journal knows of none after {}: it tells of another life of this shop, or \
                 of another shop; empty it",
                beat.epoch.0, last.0
            ));
            return Ok(());
        }
        let mut reading = Reading { redis, link };
        let products: Vec<ProductId> = journal.heads().await?.into_keys().collect();
        for some in products.chunks(VIEWS_AT_ONCE) {
            for (product, stored) in some.iter().zip(reading.stored(some).await?) {
                match stored {
                    Some((of, view)) if of == beat.generation => {
                        self.view(journal, *product, &view, beat.at).await?;
                    }
                    Some(_) => self.left += 1,
                    None => {}
                }
            }
        }
        Ok(())
    }

    async fn view(
        &mut self,
        journal: &JournalReader,
        product: ProductId,
        view: &Mirrored,
        beaten_at: Millis,
    ) -> Result<(), StoreError> {
        self.shown += 1;
        let at = view.version.sequence;
        let (mut ledger, mut stood, mut next) = (Ledger::default(), None, None);
        for entry in journal.history(product).await? {
            if ledger.replay(&entry).is_err() {
                // A history that breaks is told by whoever compares it with the tables.
                break;
            }
            if ledger.sequence() == at {
                stood = then(&ledger, view);
            }
            if ledger.sequence() > at && next.is_none() {
                next = Some(entry.at);
            }
        }
        self.behind += u64::from(next.is_some());
        match stood {
            Some(stood) if stood == *view => {}
            Some(stood) => {
                self.differences.push(format!("{product}: the mirror shows {view:?}, it was {stood:?}"));
            }
            None => self.differences.push(format!(
                "{product}: the mirror shows it at {}, where no entry ends; the journal is at {}",
                at.0,
                ledger.sequence().0
            )),
        }
        if let Some(moved_at) = next.filter(|moved_at| moved_at.plus(SLACK_MS) < beaten_at) {
            self.differences.push(format!(
                "{product}: the mirror shows it at {} and says that this was so at {}; it had moved at {}, unless the clocks differ",
                at.0, beaten_at.0, moved_at.0
            ));
        }
        Ok(())
    }
}

/// What the owner showed when its ledger was this.
fn then(ledger: &Ledger, view: &Mirrored) -> Option<Mirrored> {
    Some(Mirrored {
        version: view.version,
        counts: ledger.counts(),
        settings: Arc::new(ledger.settings()?.clone()),
        paused: ledger.is_paused(),
        archived: ledger.is_archived(),
        as_of: view.as_of,
    })
}
