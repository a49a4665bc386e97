//! The mirror, held against the journal: what a node would show of a product must have stood there, at that very sequence.
//!
//! A view may be older than the journal's end, for the beat tells how old it is; it may not be newer, nor another. What is of another
//! generation than the beat's is shown to nobody: it is counted, and no more. Views of products that the journal does not know are not
//! looked for: nobody asks the mirror before the catalogue.

use std::sync::Arc;

use super::AuditError;
use crate::domain::id::ProductId;
use crate::domain::stock::Ledger;
use crate::persistence::journal::JournalReader;
use crate::persistence::redis::{Link, Mirrored};

/// Views read at a time.
const VIEWS_AT_ONCE: usize = 256;

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

pub async fn audit(journal: &JournalReader, link: &Link) -> Result<Mirror, AuditError> {
    let mut seen = Mirror::default();
    let Some((epoch, generation)) = link.beaten().await? else { return Ok(seen) };
    let last = journal.last_epoch().await?;
    if epoch > last {
        seen.differences.push(format!(
            "the mirror was written at epoch {}, and the journal knows of none after {}: it tells of another life of this shop, or of \
             another shop; empty it",
            epoch.0, last.0
        ));
    }
    let products: Vec<ProductId> = journal.heads().await?.into_keys().collect();
    for some in products.chunks(VIEWS_AT_ONCE) {
        for (product, stored) in some.iter().zip(link.stored(some).await?) {
            match stored {
                Some((of, view)) if of == generation => seen.view(journal, *product, &view).await?,
                Some(_) => seen.left += 1,
                None => {}
            }
        }
    }
    Ok(seen)
}

impl Mirror {
    async fn view(
        &mut self,
        journal: &JournalReader,
        product: ProductId,
        view: &Mirrored,
    ) -> Result<(), AuditError> {
        self.shown += 1;
        let at = view.version.sequence;
        let (mut ledger, mut stood) = (Ledger::default(), None);
        for entry in journal.history(product).await? {
            if ledger.replay(&entry).is_err() {
                // A history that breaks is told by whoever compares it with the tables.
                break;
            }
            if ledger.sequence() == at {
                stood = then(&ledger, view);
            }
        }
        self.behind += u64::from(at < ledger.sequence());
        match stood {
            Some(stood) if stood == *view => {}
            Some(stood) => {
                self.differences.push(format!("{product}: the mirror shows {view:?}, it was {stood:?}"))
            }
            None => self.differences.push(format!(
                "{product}: the mirror shows it at {}, where no entry ends; the journal is at {}",
                at.0,
                ledger.sequence().0
            )),
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
