//! The log: where a group is put down before anybody hears of it.
//!
//! It owns the files that are written one after the other, and the shelf of those that wait to be used again. Always
//! true: a file is begun only after the one before it is on the disk to its end, and used again only after all it
//! held was committed to `journal.db`. Whatever fails is either certainly not written, or fences this opening.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::segment::{self, PAGE_BYTES, Segment, Unwritten};
use crate::domain::stock::{Entry, Epoch};

/// Files that wait to be used again; more are given back to the disk.
const SPARES_MAX: usize = 4;

/// Why a group is not in the journal, or may not be.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// No file could be made for it. Nothing was written.
    #[error("no other file of the log can be made: {0}")]
    NoFile(io::Error),
    /// The disk of the database is full. Nothing was written.
    #[error("the database has no room: {0}")]
    NoRoom(String),
    /// The file system takes no writes. Nothing was written.
    #[error("the log cannot be written: {0}")]
    ReadOnly(io::Error),
    /// Nothing was written: it would not fit into a file.
    #[error("a group of {bytes} bytes is too big for the log")]
    TooBig { bytes: usize },
    /// Another process has begun to read the log: nothing was written.
    #[error("another process has opened this journal")]
    Sealed,
    /// Nobody knows what the disk holds.
    #[error("the log may not be on the disk: {0}")]
    Unsure(io::Error),
    /// The database does not take such an entry. Nothing was written.
    #[error("the database refused a group: {0}")]
    Refused(String),
    /// The database is not to be reached. Nothing was written.
    #[error("the database does not answer: {0}")]
    Away(String),
    /// The database has no more what it had said yes to: another one took its place that had not received everything.
    #[error("the database has forgotten what it had committed")]
    Forgotten,
    /// The database was lost while it wrote, and nobody knows yet what it has.
    #[error("the database was lost while it wrote: {0}")]
    InDoubt(String),
}

/// The end of the log. There is one, and the journal's writer has it.
pub struct Log {
    shelf: Arc<Shelf>,
    active: Segment,
    at: u64,
    pages: Vec<u8>,
    /// The place of the newest entry in it.
    last_pos: i64,
    /// Nobody knows what stands at its end, or somebody else reads it: nothing is put behind that.
    over: bool,
}

impl Log {
    /// Begins a file of its own behind everything that was there.
    pub fn begin(shelf: Arc<Shelf>, last_pos: i64) -> io::Result<Log> {
        let active = shelf.make()?;
        Ok(Log { shelf, active, at: PAGE_BYTES as u64, pages: Vec::new(), last_pos, over: false })
    }

    /// Puts the entries down together, behind all others, and waits until they are on the disk.
    pub fn append<'e>(
        &mut self,
        entries: impl ExactSizeIterator<Item = &'e Entry> + Clone,
    ) -> Result<(), LogError> {
        if self.over {
            return Err(LogError::Sealed);
        }
        let appended = self.try_append(entries);
        self.over = matches!(appended, Err(LogError::Unsure(_) | LogError::Sealed));
        appended
    }

    fn try_append<'e>(
        &mut self,
        entries: impl ExactSizeIterator<Item = &'e Entry> + Clone,
    ) -> Result<(), LogError> {
        let count = entries.len() as i64;
        segment::encode(&mut self.pages, self.active.number(), self.last_pos + 1, entries.clone());
        let file_bytes = self.shelf.file_bytes;
        if self.at + self.pages.len() as u64 > file_bytes {
            if (PAGE_BYTES + self.pages.len()) as u64 > file_bytes {
                return Err(LogError::TooBig { bytes: self.pages.len() });
            }
            self.turn_over()?;
            segment::encode(&mut self.pages, self.active.number(), self.last_pos + 1, entries);
        }
        if self.active.is_sealed().map_err(LogError::Unsure)? {
            return Err(LogError::Sealed);
        }
        self.active.write(&self.pages, self.at).map_err(|Unwritten { partly, error }| {
            if !partly && error.kind() == io::ErrorKind::ReadOnlyFilesystem {
                LogError::ReadOnly(error)
            } else {
                LogError::Unsure(error)
            }
        })?;
        self.active.sync().map_err(LogError::Unsure)?;
        // Who seals reads only after that: either he has seen this group, or we see his seal.
        if self.active.is_sealed().map_err(LogError::Unsure)? {
            return Err(LogError::Unsure(io::Error::other("sealed while it was written")));
        }
        self.at += self.pages.len() as u64;
        self.last_pos += count;
        if self.at > file_bytes / 4 {
            self.shelf.wanted.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Goes on in the next file.
    fn turn_over(&mut self) -> Result<(), LogError> {
        let next = match self.shelf.take() {
            Some(next) => next,
            None => self.shelf.make().map_err(LogError::NoFile)?,
        };
        // Who seals all files that he finds may have looked before the new one was there: then he has sealed this one.
        if self.active.is_sealed().map_err(LogError::Unsure)? {
            return Err(LogError::Sealed);
        }
        let full = std::mem::replace(&mut self.active, next);
        self.at = PAGE_BYTES as u64;
        self.shelf.retire(full, self.last_pos);
        Ok(())
    }

    /// The place of the newest entry.
    pub fn last_pos(&self) -> i64 {
        self.last_pos
    }

    /// How large its files are.
    pub fn file_bytes(&self) -> u64 {
        self.shelf.file_bytes
    }
}

#[derive(Default)]
struct Files {
    spares: VecDeque<Segment>,
    /// Full files, and the place of the last entry in each.
    full: VecDeque<(Segment, i64)>,
}

/// Files that are not being written: full ones, and ones that can be.
pub struct Shelf {
    dir: PathBuf,
    epoch: Epoch,
    /// How large a file is.
    file_bytes: u64,
    next: AtomicU64,
    files: Mutex<Files>,
    /// The file being written is used up enough to have the next one ready.
    wanted: AtomicBool,
}

impl Shelf {
    /// An empty shelf, whose first file is numbered behind `last`.
    pub fn new(dir: &Path, epoch: Epoch, last: u64, file_bytes: u64) -> Shelf {
        Shelf {
            dir: dir.to_owned(),
            epoch,
            file_bytes,
            next: AtomicU64::new(last + 1),
            files: Mutex::default(),
            wanted: AtomicBool::new(false),
        }
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn make(&self) -> io::Result<Segment> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Segment::create(&self.dir, number, self.epoch, self.file_bytes)
    }

    fn take(&self) -> Option<Segment> {
        self.files().spares.pop_front()
    }

    fn retire(&self, segment: Segment, last_pos: i64) {
        self.files().full.push_back((segment, last_pos));
    }

    /// Makes use of every full file of which all entries, up to `archived`, stand in `journal.db`.
    pub fn recycle(&self, archived: i64) -> io::Result<()> {
        loop {
            let (done, spares) = {
                let mut files = self.files();
                let done = files.full.pop_front_if(|(_, last_pos)| *last_pos <= archived);
                (done, files.spares.len())
            };
            let Some((segment, _)) = done else { return Ok(()) };
            if spares >= SPARES_MAX {
                segment.remove()?;
            } else {
                let number = self.next.fetch_add(1, Ordering::Relaxed);
                let again = segment.reborn(&self.dir, number, self.epoch)?;
                // `stockade-bench crashes` counts these.
                tracing::debug!(number, "a file of the log is used again");
                self.files().spares.push_back(again);
            }
        }
    }

    /// Has a file ready before one is needed.
    pub fn stock_up(&self) -> io::Result<()> {
        if self.wanted.load(Ordering::Relaxed) && self.files().spares.is_empty() {
            let spare = self.make()?;
            self.files().spares.push_back(spare);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::JOURNAL_FILE_BYTES_MAX;
    use crate::domain::stock::{Command, Restock};
    use crate::persistence::journal::NotWritten;
    use crate::persistence::testing::{Owner, T0};

    #[test]
    fn why_a_file_cannot_be_made_is_told_as_it_is() {
        use rustix::io::Errno;
        for (errno, why) in [
            (Errno::NOSPC, NotWritten::DiskFull),
            (Errno::DQUOT, NotWritten::DiskFull),
            (Errno::ROFS, NotWritten::ReadOnly),
            (Errno::ACCESS, NotWritten::ReadOnly),
            (Errno::PERM, NotWritten::ReadOnly),
            (Errno::MFILE, NotWritten::TooManyFiles),
            (Errno::NFILE, NotWritten::TooManyFiles),
            (Errno::NOENT, NotWritten::NoFile),
            (Errno::IO, NotWritten::NoFile),
        ] {
            assert_eq!(NotWritten::without_file(&errno.into()), why, "{errno}");
        }
    }

    #[test]
    fn a_file_is_as_large_as_it_is_to_be_and_is_used_again_when_what_it_held_is_put_away() {
        let (dir, file_bytes) = (tempfile::tempdir().unwrap(), 16 * PAGE_BYTES as u64);
        let shelf = Arc::new(Shelf::new(dir.path(), Epoch(1), 0, file_bytes));
        let mut log = Log::begin(shelf.clone(), 0).unwrap();
        let mut owner = Owner::stocked(1, 1);
        let restock = Command::Restock(Restock { delta: 1, reason: "x".to_owned(), key: None });
        // A page for each group, behind the one that says what the file is.
        let mut fill = |log: &mut Log| {
            for _ in 0..15 {
                let entry = owner.does(&restock, T0).seal(T0);
                log.append(std::iter::once(&entry)).unwrap();
            }
            (log.active.number(), log.at)
        };
        assert_eq!([fill(&mut log), fill(&mut log)], [(1, file_bytes), (2, file_bytes)]);
        shelf.recycle(log.last_pos()).unwrap();
        assert_eq!(fill(&mut log), (3, file_bytes), "the first, under another number");
        let left = segment::left_in(dir.path()).unwrap();
        let sizes: Vec<u64> = left.iter().map(|file| std::fs::metadata(&file.path).unwrap().len()).collect();
        assert_eq!(sizes, [file_bytes; 2]);
    }

    #[test]
    fn without_its_folder_it_goes_on_to_the_end_of_its_file_and_says_why_not_further() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Arc::new(Shelf::new(dir.path(), Epoch(1), 0, JOURNAL_FILE_BYTES_MAX));
        let mut log = Log::begin(shelf, 0).unwrap();
        std::fs::remove_dir_all(dir.path()).unwrap();
        let (mut owner, mut written) = (Owner::stocked(1, 1), 0);
        let restock = Command::Restock(Restock { delta: 1, reason: "x".repeat(60_000), key: None });
        let error = loop {
            let entry = owner.does(&restock, T0).seal(T0);
            match log.append(std::iter::once(&entry)) {
                Ok(()) => written += 1,
                Err(error) => break error,
            }
        };
        assert!(
            matches!(&error, LogError::NoFile(error) if error.kind() == io::ErrorKind::NotFound),
            "{error}"
        );
        assert_eq!(log.last_pos(), written);
        assert!(written > 100, "{written}");
    }
}
