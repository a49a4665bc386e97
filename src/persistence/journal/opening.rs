//! Why a journal is not opened, in the words in which an operator hears it: what is wrong, and what to do.

use std::path::PathBuf;

use super::NotWritten;
use crate::persistence::StoreError;

/// Why the journal could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the data directory {} cannot be used: {source}; check that it exists and may be written", dir.display())]
    Directory { dir: PathBuf, source: std::io::Error },
    #[error(
        "another stockade is running on {}: stop it first, or give this one its own data directory",
        dir.display()
    )]
    Locked { dir: PathBuf },
    #[error(
        "{} lies on another machine ({name}), where neither a lock nor a sync can be relied on: \
         take a disk of this one, or a database",
        dir.display()
    )]
    Elsewhere { dir: PathBuf, name: &'static str },
    #[error("the log in {} could not be read back: {source}", dir.display())]
    Log { dir: PathBuf, source: std::io::Error },
    #[error("another file of the log cannot be made in {}: {}", dir.display(), why(error))]
    NoFile { dir: PathBuf, error: std::io::Error },
    #[error("a node is at work in this database: stop it first, and those that stand by")]
    Occupied,
    #[error("the journal could not be opened: {0}")]
    Store(#[from] StoreError),
}

/// Why there is no file, and what to do about it.
fn why(error: &std::io::Error) -> String {
    match NotWritten::without_file(error) {
        NotWritten::NoFile => error.to_string(),
        why => why.to_string(),
    }
}
