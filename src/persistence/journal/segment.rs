//! One file of the log: a page that says what it is, then groups, each on pages of its own.
//!
//! Always true: the file has its full size, written and synced, before the first group goes in, so a sync moves data
//! and nothing else; a page that holds an acknowledged group is never written again; a group is there whole or not
//! at all, and one from the file's earlier life does not count.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use crate::domain::id::ProductId;
use crate::domain::stock::{ChainHash, Entry, Epoch, Millis, Sequence};

/// What a disk writes at once, and what one group at least takes.
pub const PAGE_BYTES: usize = 4096;
/// What a new file leaves to the others on its disk.
const ROOM_BYTES: u64 = 256 * 1024;

const FILE_MAGIC: [u8; 8] = *b"stkdlog1";
/// Where the epoch of a later opening stands once it has begun to read: from then on nobody may write.
const SEAL_AT: u64 = 64;
const GROUP_MAGIC: u32 = 0x3147_4b53;
const GROUP_HEAD_BYTES: usize = 48;
const ENTRY_HEAD_BYTES: usize = 68;

/// A group stands behind a place where none can be read: what was acknowledged is damaged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: damaged at byte {at}: a group stands behind it", path.display())]
pub struct Hole {
    pub path: PathBuf,
    pub at: usize,
}

/// A group is not in the file; or, if it is `partly`, nobody knows.
#[derive(Debug)]
pub struct Unwritten {
    pub partly: bool,
    pub error: io::Error,
}

/// A file of the log, open for writing.
#[derive(Debug)]
pub struct Segment {
    file: File,
    path: PathBuf,
    number: u64,
}

impl Segment {
    /// Makes a file of full size; whatever goes wrong leaves none. It lasts a few milliseconds.
    pub fn create(dir: &Path, number: u64, epoch: Epoch, bytes: u64) -> io::Result<Segment> {
        has_room(dir, bytes)?;
        let path = path_of(dir, number);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        let segment = Segment { file, path, number };
        match segment.fill(epoch, bytes).and_then(|()| sync_dir(dir)) {
            Ok(()) => Ok(segment),
            Err(error) => {
                let _ = std::fs::remove_file(&segment.path);
                Err(error)
            }
        }
    }

    fn fill(&self, epoch: Epoch, bytes: u64) -> io::Result<()> {
        let zeros = vec![0; 256 * PAGE_BYTES];
        let mut at = 0;
        while at < bytes {
            let piece = zeros.len().min((bytes - at) as usize);
            self.file.write_all_at(&zeros[..piece], at)?;
            at += piece as u64;
        }
        self.head(epoch)?;
        self.file.sync_all()
    }

    fn head(&self, epoch: Epoch) -> io::Result<()> {
        let mut page = [0; SEAL_AT as usize];
        page[..8].copy_from_slice(&FILE_MAGIC);
        page[8..16].copy_from_slice(&self.number.to_le_bytes());
        page[16..24].copy_from_slice(&epoch.0.to_le_bytes());
        // What stands at the seal's place is somebody else's word.
        self.file.write_all_at(&page, 0)
    }

    /// The same file under the next number: what it held no longer counts, and its pages need not be found again.
    pub fn reborn(self, dir: &Path, number: u64, epoch: Epoch) -> io::Result<Segment> {
        let path = path_of(dir, number);
        std::fs::rename(&self.path, &path)?;
        let segment = Segment { file: self.file, path, number };
        segment.head(epoch)?;
        segment.file.sync_data()?;
        sync_dir(dir)?;
        Ok(segment)
    }

    pub fn number(&self) -> u64 {
        self.number
    }

    /// The first error says whether a byte went out before it.
    pub fn write(&self, group: &[u8], at: u64) -> Result<(), Unwritten> {
        let mut written = 0;
        while written < group.len() {
            match self.file.write_at(&group[written..], at + written as u64) {
                Ok(0) => return Err(Unwritten { partly: true, error: io::ErrorKind::WriteZero.into() }),
                Ok(more) => written += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Unwritten { partly: written > 0, error }),
            }
        }
        Ok(())
    }

    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Whether a later opening has begun to read.
    pub fn is_sealed(&self) -> io::Result<bool> {
        let mut seal = [0; 8];
        self.file.read_exact_at(&mut seal, SEAL_AT)?;
        Ok(seal != [0; 8])
    }

    pub fn remove(self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }
}

/// Asked before anything is written: a file that fills the disk, fails and goes would leave other files without room in between.
fn has_room(dir: &Path, bytes: u64) -> io::Result<()> {
    let disk = rustix::fs::statvfs(dir)?;
    match is_enough(disk.f_blocks, disk.f_bavail, disk.f_frsize, bytes) {
        true => Ok(()),
        false => Err(io::ErrorKind::StorageFull.into()),
    }
}

/// Whether a disk of so many blocks has room for a file of so many bytes in those that are available. Some file systems do not tell.
fn is_enough(blocks: u64, available: u64, block_bytes: u64, bytes: u64) -> bool {
    blocks == 0 || available.saturating_mul(block_bytes) >= bytes + ROOM_BYTES
}

fn path_of(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("journal-{number:010}.log"))
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// A file that an earlier opening left.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Left {
    pub number: u64,
    pub path: PathBuf,
}

/// Every file of the log in `dir`.
pub fn left_in(dir: &Path) -> io::Result<Vec<Left>> {
    let mut found = Vec::new();
    for file in std::fs::read_dir(dir)? {
        let path = file?.path();
        let number = path.file_name().and_then(|name| name.to_str()).and_then(number_of);
        found.extend(number.map(|number| Left { number, path }));
    }
    found.sort();
    Ok(found)
}

fn number_of(name: &str) -> Option<u64> {
    name.strip_prefix("journal-")?.strip_suffix(".log")?.parse().ok()
}

impl Left {
    /// From now on whoever had it open can write nothing that counts.
    pub fn seal(&self, epoch: Epoch) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(&self.path)?;
        file.write_all_at(&epoch.0.to_le_bytes(), SEAL_AT)?;
        file.sync_data()
    }

    /// What it holds, in order, each entry with its place.
    fn read(&self) -> io::Result<Vec<(i64, Entry)>> {
        let bytes = std::fs::read(&self.path)?;
        entries(&bytes, self.number)
            .map_err(|at| io::Error::new(io::ErrorKind::InvalidData, Hole { path: self.path.clone(), at }))
    }
}

/// What all of `files` hold, in order of writing, which need not be that of their numbers.
pub fn read_all(files: &[Left]) -> io::Result<Vec<(i64, Entry)>> {
    let mut pieces = files.iter().map(Left::read).collect::<io::Result<Vec<_>>>()?;
    pieces.retain(|piece| !piece.is_empty());
    pieces.sort_by_key(|piece| piece[0].0);
    Ok(pieces.into_iter().flatten().collect())
}

/// The entries of a whole file; or where it is damaged.
pub fn entries(bytes: &[u8], segment: u64) -> Result<Vec<(i64, Entry)>, usize> {
    let (mut found, mut at) = (Vec::new(), PAGE_BYTES);
    while let Some(group) = bytes.get(at..).and_then(|rest| decode(rest, segment)) {
        at += group.bytes;
        found.extend((group.first_pos..).zip(group.entries));
    }
    // The end is where nothing more can be read. A group further on would mean that this is not the end.
    let mut beyond = (at + PAGE_BYTES..bytes.len()).step_by(PAGE_BYTES);
    match beyond.any(|place| decode(&bytes[place..], segment).is_some()) {
        true => Err(at),
        false => Ok(found),
    }
}

struct Group {
    first_pos: i64,
    entries: Vec<Entry>,
    /// With what fills the last page.
    bytes: usize,
}

/// One group as it goes to the disk, into an empty `page`: whole pages, the first entry's place and then all entries.
pub fn encode<'e>(
    pages: &mut Vec<u8>,
    segment: u64,
    first_pos: i64,
    entries: impl Iterator<Item = &'e Entry>,
) {
    pages.clear();
    pages.resize(GROUP_HEAD_BYTES, 0);
    let mut count = 0_u32;
    for entry in entries {
        count += 1;
        pages.extend_from_slice(entry.product.as_bytes());
        for number in [entry.first.0, entry.last.0, entry.epoch.0, entry.at.0 as u64] {
            pages.extend_from_slice(&number.to_le_bytes());
        }
        pages.extend_from_slice(&entry.hash.0);
        pages.extend_from_slice(&(entry.events.len() as u32).to_le_bytes());
        pages.extend_from_slice(&entry.events);
    }
    let body = (pages.len() - GROUP_HEAD_BYTES) as u32;
    let head = &mut pages[..GROUP_HEAD_BYTES];
    head[..4].copy_from_slice(&GROUP_MAGIC.to_le_bytes());
    head[4..8].copy_from_slice(&count.to_le_bytes());
    head[8..16].copy_from_slice(&segment.to_le_bytes());
    head[16..24].copy_from_slice(&first_pos.to_le_bytes());
    head[24..28].copy_from_slice(&body.to_le_bytes());
    let sum = checksum(&pages[..32], &pages[GROUP_HEAD_BYTES..]);
    pages[32..GROUP_HEAD_BYTES].copy_from_slice(&sum);
    pages.resize(pages.len().next_multiple_of(PAGE_BYTES), 0);
}

fn checksum(head: &[u8], body: &[u8]) -> [u8; 16] {
    let mut hasher = Xxh3::new();
    hasher.update(head);
    hasher.update(body);
    hasher.digest128().to_le_bytes()
}

/// The group that begins at `bytes`, if a whole one of this file's present life does.
fn decode(bytes: &[u8], segment: u64) -> Option<Group> {
    let mut head = Reader(bytes.get(..GROUP_HEAD_BYTES)?);
    let (magic, count) = (head.u32()?, head.u32()?);
    if magic != GROUP_MAGIC || head.u64()? != segment {
        return None;
    }
    let first_pos = head.u64()? as i64;
    let body_bytes = head.u32()? as usize;
    let whole = bytes.get(..GROUP_HEAD_BYTES.checked_add(body_bytes)?)?;
    let body = &whole[GROUP_HEAD_BYTES..];
    if checksum(&whole[..32], body) != whole[32..GROUP_HEAD_BYTES] {
        return None;
    }
    let mut body = Reader(body);
    let entries = (0..count).map(|_| body.entry()).collect::<Option<Vec<Entry>>>()?;
    // What stands behind the last entry was not written by us.
    body.0.is_empty().then_some(Group { first_pos, entries, bytes: whole.len().next_multiple_of(PAGE_BYTES) })
}

/// Takes numbers from the front of what is left.
struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn take(&mut self, many: usize) -> Option<&'b [u8]> {
        let (front, rest) = self.0.split_at_checked(many)?;
        self.0 = rest;
        Some(front)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn entry(&mut self) -> Option<Entry> {
        let product = ProductId::from_bytes(self.array()?);
        let (first, last) = (Sequence(self.u64()?), Sequence(self.u64()?));
        let (epoch, at) = (Epoch(self.u64()?), Millis(self.u64()? as i64));
        let hash = ChainHash(self.array()?);
        let events = self.u32()? as usize;
        let events = self.take(events)?.to_vec();
        (first <= last).then_some(Entry { product, first, last, epoch, at, hash, events })
    }
}

/// Bytes that the entry takes in a group.
pub fn bytes_of(entry: &Entry) -> usize {
    ENTRY_HEAD_BYTES + entry.events.len()
}

/// A file of the log as it stands; and one with a group that has these bytes for its entries, and says so.
#[cfg(any(test, feature = "fuzz"))]
pub fn read_groups(bytes: &[u8]) {
    let _ = entries(bytes, 1);
    for count in [0_u32, 1, 2, u32::MAX] {
        let mut group = vec![0; GROUP_HEAD_BYTES];
        group[..4].copy_from_slice(&GROUP_MAGIC.to_le_bytes());
        group[4..8].copy_from_slice(&count.to_le_bytes());
        group[8..16].copy_from_slice(&1_u64.to_le_bytes());
        group[24..28].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        group.extend_from_slice(bytes);
        let sum = checksum(&group[..32], &group[GROUP_HEAD_BYTES..]);
        group[32..GROUP_HEAD_BYTES].copy_from_slice(&sum);
        group.resize(group.len().next_multiple_of(PAGE_BYTES), 0);
        let Some(read) = decode(&group, 1) else { continue };
        let mut again = Vec::new();
        encode(&mut again, 1, read.first_pos, read.entries.iter());
        assert_eq!(again, group, "what was read is written as it was");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::JOURNAL_FILE_BYTES_MAX;
    use crate::persistence::testing::{Owner, T0};

    fn file_of(groups: &[Vec<Entry>], segment: u64) -> Vec<u8> {
        let (mut file, mut pages, mut pos) = (vec![0; PAGE_BYTES], Vec::new(), 1);
        for group in groups {
            encode(&mut pages, segment, pos, group.iter());
            file.extend_from_slice(&pages);
            pos += group.len() as i64;
        }
        file.resize(file.len() + 8 * PAGE_BYTES, 0);
        file
    }

    #[test]
    fn a_file_is_begun_only_where_it_fits_and_leaves_room() {
        let is_enough = |blocks, available| is_enough(blocks, available, 4_096, JOURNAL_FILE_BYTES_MAX);
        assert!(is_enough(1_000_000, 2_112));
        assert!(!is_enough(1_000_000, 2_111) && !is_enough(1_000_000, 0));
        assert!(is_enough(0, 0), "who does not tell may have room");
    }

    fn some_groups() -> Vec<Vec<Entry>> {
        (0..5).map(|group| (0..3).map(|n| Owner::stocked(group * 3 + n, 9).seal(T0)).collect()).collect()
    }

    #[test]
    fn what_goes_in_comes_out() {
        let groups = some_groups();
        let found = entries(&file_of(&groups, 7), 7).unwrap();
        let expected: Vec<_> = (1..).zip(groups.concat()).collect();
        assert_eq!(found, expected);
        assert_eq!(entries(&file_of(&groups, 7), 8).unwrap(), [], "another life of the same file");
    }

    #[test]
    fn a_torn_last_group_was_never_there_and_a_damaged_earlier_one_is_noticed() {
        let groups = some_groups();
        let file = file_of(&groups, 1);
        let last = PAGE_BYTES * 5;
        let mut torn = file.clone();
        torn[last + 100] ^= 1;
        assert_eq!(entries(&torn, 1).unwrap().len(), 12);
        let mut damaged = file;
        damaged[PAGE_BYTES * 3 + 60] ^= 1;
        assert_eq!(entries(&damaged, 1), Err(PAGE_BYTES * 3));
    }

    proptest! {
        /// Whatever the disk gives back: no panic, and nothing that was not written.
        #[test]
        fn any_bytes_can_be_read(noise in proptest::collection::vec(any::<u8>(), 0..20_000), cut in 0..40_000_usize, flip in 0..40_000_usize) {
            let _ = entries(&noise, 1);
            let groups = some_groups();
            let whole: Vec<_> = (1..).zip(groups.concat()).collect();
            let mut file = file_of(&groups, 1);
            file.truncate(cut.max(1));
            let place = flip % file.len();
            file[place] ^= 0x40;
            if let Ok(found) = entries(&file, 1) {
                prop_assert!(whole.starts_with(&found));
            }
        }
    }
}
