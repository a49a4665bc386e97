//! A node that follows a lead: it owns what the table `shards` gives it, and lets go of what it is told to.
//!
//! Always true: it believes nobody that he is the lead but the database; a question of a lead that is none any more is not begun; and
//! when it has said that it let go of a shard, everything it had decided there is written and answered, and in no doubt.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::stock::{Directory, NodeName, NotAsked, Route};
use crate::domain::id::SHARDS;
use crate::persistence::StoreError;
use crate::persistence::journal::Journal;

/// What the lead says. Words of one lead are numbered: one that was long on its way is not obeyed after a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Word {
    pub lead: u64,
    pub number: u64,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Following {
    journal: Journal,
    directory: Directory,
    /// The last word that was obeyed; held while one is.
    last: Arc<Mutex<Word>>,
}

impl Following {
    pub fn new(journal: Journal, directory: Directory) -> Following {
        let last = Arc::new(Mutex::new(Word { lead: 0, number: 0 }));
        Following { journal, directory, last }
    }

    /// Follows a lead that has announced itself, and serves what the table says.
    pub async fn follow(&self, word: Word) -> Result<(), NotAsked> {
        let mut last = self.last.lock().await;
        self.heed(&mut last, word).await?;
        let Some(routes) = self.directory.routes() else { return Err(NotAsked::Elsewhere) };
        routes.follow(word.lead).await;
        let rows = self.journal.look_at_shards().await.map_err(unread)?;
        let own = self.journal.epoch().0.cast_signed();
        let owned: BTreeSet<u16> =
            rows.iter().filter(|row| row.session == own).map(|row| row.shard).collect();
        let (own, others): (Vec<u16>, Vec<u16>) = (0..SHARDS).partition(|shard| owned.contains(shard));
        let new: Vec<u16> = own.into_iter().filter(|shard| !routes.is_here(*shard)).collect();
        let leads_there =
            |shard: &u16| matches!(&*routes.of(*shard), Route::Away(at) if at.session == word.lead);
        let gone: Vec<u16> = others.into_iter().filter(|shard| !leads_there(shard)).collect();
        self.give_up(&gone, word.lead).await?;
        // Whoever is told that this node follows reads what it has written: a group in doubt may come behind that.
        self.journal.reader().is_certain().map_err(unread)?;
        self.directory.settle(&new, Route::Here).await;
        Ok(())
    }

    /// Nothing of these shards is decided here any more.
    pub async fn let_go(&self, word: Word, shards: &[u16]) -> Result<(), NotAsked> {
        let mut last = self.last.lock().await;
        self.heed(&mut last, word).await?;
        self.give_up(shards, word.lead).await
    }

    /// This node leads now: what the lead before it had said is done, and nothing more of it is begun.
    pub async fn leads(&self) {
        drop(self.last.lock().await);
    }

    /// Whether it is the lead that speaks, and this is its newest word.
    async fn heed(&self, last: &mut Word, word: Word) -> Result<(), NotAsked> {
        if word.lead == last.lead && word.number <= last.number {
            return Err(NotAsked::Elsewhere);
        }
        if !self.journal.is_led_by(word.lead).await.map_err(unread)? {
            return Err(NotAsked::Elsewhere);
        }
        *last = word;
        Ok(())
    }

    /// Questions about these go to the lead, who knows where they belong.
    async fn give_up(&self, shards: &[u16], lead: u64) -> Result<(), NotAsked> {
        if shards.is_empty() {
            return Ok(());
        }
        if !self.directory.let_go(shards).await {
            // The lead hears it, and says again where to look.
            return Err(NotAsked::Unknown);
        }
        let peers = self.journal.peers_now().await.map_err(unread)?.into_iter();
        let address = peers.filter(|peer| peer.session == lead.cast_signed()).find_map(|peer| peer.address);
        if let Some(address) = address {
            self.directory.settle(shards, Route::Away(Arc::new(NodeName { session: lead, address }))).await;
        }
        Ok(())
    }
}

fn unread(error: StoreError) -> NotAsked {
    tracing::warn!(%error, "the database does not say who leads");
    NotAsked::Unknown
}
