//! One process on one data directory: a lock held for life, and a note to the next opening after a bad end.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::OpenError;
use crate::persistence::folder;

/// Held as long as the journal is open; the operating system lets go of it with the process.
#[derive(Debug)]
pub struct Lock(
    #[expect(dead_code, reason = "held, not used: the lock lives as long as the file is open")] File,
);

impl Lock {
    pub fn take(dir: &Path) -> Result<Lock, OpenError> {
        let directory = |source| OpenError::Directory { dir: dir.to_owned(), source };
        folder::make(dir).map_err(directory)?;
        let path = dir.join("journal.lock");
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(directory)?;
        match file.try_lock() {
            Ok(()) => Ok(Lock(file)),
            Err(TryLockError::WouldBlock) => Err(OpenError::Locked { dir: dir.to_owned() }),
            Err(TryLockError::Error(source)) => Err(directory(source)),
        }
    }
}

/// Stands on the disk after an I/O error in COMMIT, until a whole checkpoint has rewritten what the kernel may
/// have dropped: after a failed fsync Linux calls the pages clean, and a later fsync would succeed over a hole.
#[derive(Debug)]
pub struct UncleanMark(PathBuf);

impl UncleanMark {
    pub fn of(dir: &Path) -> UncleanMark {
        UncleanMark(dir.join("journal.unclean-io"))
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
