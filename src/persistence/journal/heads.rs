//! Where each product's history ends: what keeps a gap or a fork out of the log.
//!
//! It remembers what was written in this opening and looks up the rest. Always true: what is not remembered was not
//! written since the opening, or has been brought into `journal.db`; so that is the place to look.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sqlx::Connection;
use sqlx::sqlite::SqliteConnection;
use tokio::runtime::Runtime;

use super::Append;
use super::reader::{archived_heads, tuning};
use super::tail::Tail;
use crate::domain::id::ProductId;
use crate::domain::stock::{Entry, Sequence};
use crate::persistence::StoreError;
use crate::persistence::sql::sqlite;

/// Products that are remembered; of more only those that the archive has not got yet.
const KNOWN_MAX: usize = 128 * 1024;

/// Asked by the writer before each group.
pub struct Heads {
    known: HashMap<ProductId, Sequence>,
    path: PathBuf,
    tail: Arc<Tail>,
    /// A connection of its own, opened when it is needed: a pool's would have to go back through the pool's runtime.
    file: Option<SqliteConnection>,
    runtime: Runtime,
}

impl Heads {
    pub fn new(dir: &Path, tail: Arc<Tail>) -> std::io::Result<Heads> {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        Ok(Heads { known: HashMap::new(), path: dir.join("journal.db"), tail, file: None, runtime })
    }

    /// Which entries continue their products' histories, those before them in the group counted in.
    pub fn continued_by(&mut self, group: &[Append]) -> Result<Vec<bool>, StoreError> {
        self.learn(group)?;
        let mut ends: HashMap<ProductId, Sequence> = HashMap::with_capacity(group.len());
        let mut continues = |entry: &Entry| {
            let end = ends.get(&entry.product).or_else(|| self.known.get(&entry.product));
            let continues = entry.first == end.copied().unwrap_or_default().next();
            if continues {
                ends.insert(entry.product, entry.last);
            }
            continues
        };
        Ok(group.iter().map(|append| continues(&append.entry)).collect())
    }

    /// The entry is in the log.
    pub fn written(&mut self, entry: &Entry) {
        self.known.insert(entry.product, entry.last);
    }

    fn learn(&mut self, group: &[Append]) -> Result<(), StoreError> {
        let products = group.iter().map(|append| append.entry.product);
        let unknown: BTreeSet<_> = products.filter(|product| !self.known.contains_key(product)).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        if self.known.len() >= KNOWN_MAX {
            let tail = self.tail.all();
            let mut needed: BTreeSet<_> = tail.iter().map(|(_, entry)| entry.product).collect();
            needed.extend(group.iter().map(|append| append.entry.product));
            self.known.retain(|product, _| needed.contains(product));
        }
        let unknown = Vec::from_iter(unknown);
        let found = self.look_up(&unknown)?;
        self.known.extend(unknown.into_iter().map(|product| (product, Sequence(0))));
        self.known.extend(found);
        Ok(())
    }

    /// Lets go of the file, so that whoever closes it after this is the last.
    pub fn close(&mut self) {
        if let Some(file) = self.file.take() {
            // Read-only: there is nothing to lose.
            let _ = self.runtime.block_on(file.close());
        }
    }

    fn look_up(&mut self, products: &[ProductId]) -> Result<Vec<(ProductId, Sequence)>, StoreError> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(self.runtime.block_on(sqlite::reader(&self.path, &tuning()))?),
        };
        self.runtime.block_on(archived_heads(file, products))
    }
}
