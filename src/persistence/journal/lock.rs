//! One process on one data directory: a lock held for life.

use std::fs::{File, TryLockError};
use std::path::Path;

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
