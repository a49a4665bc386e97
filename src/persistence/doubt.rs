//! A disk that has failed under a file of SQLite's: the end of this opening, and a note to the next one.
//!
//! After a failed sync Linux calls the pages clean: it goes on showing what no disk may have, and the next sync succeeds over the
//! hole, behind which a power cut loses every commit. Always true: from then on this opening commits nothing more to the file, and
//! the next one has all that it shows written again before anything is believed.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;

use super::sql::Error;
use super::sql::sqlite::{Trouble, trouble};

/// Stands on the disk after an I/O error in COMMIT, until a whole checkpoint has rewritten what the kernel may
/// have dropped.
#[derive(Debug)]
pub struct UncleanMark(PathBuf);

impl UncleanMark {
    /// That of a database's file: `shop.db` has `shop.unclean-io`.
    pub fn of(file: &Path) -> UncleanMark {
        UncleanMark(file.with_extension("unclean-io"))
    }

    pub fn stands(&self) -> bool {
        // Whoever cannot look must believe the worse.
        self.0.try_exists().unwrap_or(true)
    }

    /// Best effort: the disk is in trouble already.
    pub fn set(&self) {
        let _ = File::create(&self.0).and_then(|file| file.sync_all());
    }

    pub fn clear(&self) -> io::Result<()> {
        std::fs::remove_file(&self.0)
    }
}

/// Who hears what went wrong with a file of the tables. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Doubt {
    file: Arc<Path>,
    /// Of all files that are open together: one of them in doubt ends it for all.
    over: watch::Sender<bool>,
}

impl Doubt {
    pub fn of(file: &Path, over: &watch::Sender<bool>) -> Doubt {
        Doubt { file: file.into(), over: over.clone() }
    }

    pub fn mark(&self) -> UncleanMark {
        UncleanMark::of(&self.file)
    }

    /// Hears why a commit or a checkpoint failed. Where that leaves open what the disk has, this opening is over.
    pub fn hear(&self, error: &Error) {
        if trouble(error) != Trouble::Unsure {
            return;
        }
        self.mark().set();
        tracing::error!(
            file = %self.file.display(),
            %error,
            "the disk failed while the tables were written; they must be opened again"
        );
        self.over.send_replace(true);
    }

    /// Whether nothing more is written.
    pub fn is_over(&self) -> bool {
        *self.over.borrow()
    }
}
