//! The seam to the journal: the one thing an owner needs from persistence.

use std::future::Future;
use std::pin::Pin;

use super::protocol::Outcome;
use crate::domain::id::ProductId;
use crate::domain::stock::{Entry, Epoch, Sequence};
use crate::persistence::StoreError;
use crate::persistence::journal::{Append, AppendTo, Appended, Journal, NotWritten};

/// Entries that are read at once where somebody replays them aside; each has at most 64 KiB.
const ENTRIES_ASIDE: u32 = 256;

/// A future that may cross threads.
pub type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A product as the journal holds it: the latest snapshot, and every entry after it.
#[derive(Debug, Default)]
pub struct Stored {
    pub snapshot: Option<Vec<u8>>,
    pub entries: Vec<Entry>,
}

/// Why a product was not read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NotRead {
    /// The journal did not answer. Nothing is known to be wrong with what it holds.
    #[error("the journal cannot be read: {0}")]
    NoAnswer(String),
    /// What it holds is no history, and will not be one the next time.
    #[error("what the journal holds is damaged: {0}")]
    Damaged(String),
}

impl From<StoreError> for NotRead {
    fn from(error: StoreError) -> NotRead {
        match error.is_damage() {
            true => NotRead::Damaged(error.to_string()),
            false => NotRead::NoAnswer(error.to_string()),
        }
    }
}

/// Where groups go and ledgers come from.
pub trait Home: Send + Sync + 'static {
    /// Hands over one entry; `reply` is called once, when its fate is known or known to be unknown.
    fn submit(&self, entry: Entry, reply: Box<dyn FnOnce(Outcome) + Send>);
    fn load(&self, product: ProductId) -> Later<Result<Stored, NotRead>>;
    /// Every entry of a product, without its snapshot.
    fn history(&self, product: ProductId) -> Later<Result<Vec<Entry>, NotRead>>;
    /// The newest snapshot alone, read where nobody who sells waits for it.
    fn snapshot_aside(&self, product: ProductId) -> Later<Result<Option<Vec<u8>>, NotRead>>;
    /// The next entries behind `after`, read in the same way: none is left out, and the newest may not be there yet.
    fn entries_aside(&self, product: ProductId, after: Sequence) -> Later<Result<Vec<Entry>, NotRead>>;
    /// Best effort: the journal still holds everything. Where a newer one stands already, or one of the same sequence that can be read, nothing is
    /// done.
    fn save_snapshot(
        &self,
        product: ProductId,
        sequence: Sequence,
        body: Vec<u8>,
    ) -> Later<Result<(), NotRead>>;
    /// Under which epoch this product's entries are written from now on.
    fn epoch(&self, product: ProductId) -> Epoch;
    /// How often whoever copies what is published has changed, at least: it never falls.
    fn term(&self) -> Epoch;
    /// Whether groups are accepted. While they are not, nothing is decided that would need one.
    fn is_writable(&self) -> bool;
    /// Whether it has said nothing of a group for so long that whoever wants to begin something had better hear that it cannot be begun now.
    fn is_silent(&self) -> bool {
        false
    }
    /// Whether what was published may be told as the last word, without asking an owner.
    fn is_the_only_one(&self) -> bool {
        true
    }
}

impl Home for Journal {
    fn submit(&self, entry: Entry, reply: Box<dyn FnOnce(Outcome) + Send>) {
        let reply = Box::new(|appended| {
            reply(match appended {
                Appended::Written => Outcome::Written,
                Appended::NotWritten(_) => Outcome::NotWritten,
                Appended::Unknown => Outcome::Unknown,
            });
        });
        if let Err(append) = AppendTo::submit(self, Append { entry, reply }) {
            // The queue is full or closed: it was never tried.
            (append.reply)(Appended::NotWritten(NotWritten::Closed));
        }
    }

    fn load(&self, product: ProductId) -> Later<Result<Stored, NotRead>> {
        let reader = self.reader().clone();
        Box::pin(async move {
            let stored = reader.load(product).await.map_err(NotRead::from)?;
            Ok(Stored { snapshot: stored.snapshot, entries: stored.entries })
        })
    }

    fn history(&self, product: ProductId) -> Later<Result<Vec<Entry>, NotRead>> {
        let reader = self.reader().clone();
        Box::pin(async move { reader.history(product).await.map_err(NotRead::from) })
    }

    fn snapshot_aside(&self, product: ProductId) -> Later<Result<Option<Vec<u8>>, NotRead>> {
        let reader = self.reader().clone();
        Box::pin(async move { reader.snapshot_aside(product).await.map_err(NotRead::from) })
    }

    fn entries_aside(&self, product: ProductId, after: Sequence) -> Later<Result<Vec<Entry>, NotRead>> {
        let reader = self.reader().clone();
        Box::pin(
            async move { reader.entries_aside(product, after, ENTRIES_ASIDE).await.map_err(NotRead::from) },
        )
    }

    fn save_snapshot(
        &self,
        product: ProductId,
        sequence: Sequence,
        body: Vec<u8>,
    ) -> Later<Result<(), NotRead>> {
        let journal = self.clone();
        Box::pin(async move {
            let saved = journal.save_snapshot(product, sequence, body).await;
            saved.map_err(|error| NotRead::NoAnswer(error.to_string()))
        })
    }

    fn epoch(&self, product: ProductId) -> Epoch {
        self.epoch_of(product)
    }

    fn term(&self) -> Epoch {
        Epoch(self.term())
    }

    fn is_writable(&self) -> bool {
        self.is_writable()
    }

    fn is_silent(&self) -> bool {
        self.is_silent()
    }

    fn is_the_only_one(&self) -> bool {
        self.is_the_only_one()
    }
}

/// A journal that keeps nothing and is always quick: for benches of the owner itself.
#[derive(Debug, Default)]
pub struct NoHome;

impl Home for NoHome {
    fn submit(&self, _: Entry, reply: Box<dyn FnOnce(Outcome) + Send>) {
        reply(Outcome::Written);
    }

    fn load(&self, _: ProductId) -> Later<Result<Stored, NotRead>> {
        Box::pin(async { Ok(Stored::default()) })
    }

    fn history(&self, _: ProductId) -> Later<Result<Vec<Entry>, NotRead>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn snapshot_aside(&self, _: ProductId) -> Later<Result<Option<Vec<u8>>, NotRead>> {
        Box::pin(async { Ok(None) })
    }

    fn entries_aside(&self, _: ProductId, _: Sequence) -> Later<Result<Vec<Entry>, NotRead>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn save_snapshot(&self, _: ProductId, _: Sequence, _: Vec<u8>) -> Later<Result<(), NotRead>> {
        Box::pin(async { Ok(()) })
    }

    fn epoch(&self, _: ProductId) -> Epoch {
        Epoch(1)
    }

    fn term(&self) -> Epoch {
        Epoch(1)
    }

    fn is_writable(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persistence::Damaged;

    #[test]
    fn what_is_damaged_stays_so_and_what_was_not_answered_may_be() {
        let damaged = NotRead::from(StoreError::Damaged(Damaged { what: "journal entry" }));
        assert!(matches!(damaged, NotRead::Damaged(_)), "{damaged}");
        for error in [StoreError::InDoubt, StoreError::Closed] {
            let unanswered = NotRead::from(error);
            assert!(matches!(unanswered, NotRead::NoAnswer(_)), "{unanswered}");
        }
    }
}
