//! A store is filmed while something is done, and opened again as a crash in between would have left it.

use std::path::Path;

use tempfile::TempDir;

use super::Shop;

/// A store after something was done, and how it grew meanwhile.
pub struct Film {
    pub after: TempDir,
    /// Bytes of the WAL before it, and behind each commit since.
    commits: Vec<u64>,
}

pub const WAL: &str = "people.db-wal";
const WAL_HEAD: u64 = 32;
const FRAME_HEAD: u64 = 24;

impl Film {
    /// Films what `done` does to a shop that is idle before and after.
    pub async fn of(shop: &Shop, done: impl AsyncFnOnce()) -> Film {
        let before = std::fs::metadata(shop.folder().join(WAL)).unwrap().len();
        done().await;
        let after = tempfile::tempdir().unwrap();
        copy(shop.folder(), after.path());
        let wal = std::fs::read(after.path().join(WAL)).unwrap();
        let mut commits = vec![before];
        commits.extend(ends_of_commits(&wal).into_iter().filter(|end| *end > before));
        Film { after, commits }
    }

    /// What was done took so many commits.
    pub fn len(&self) -> usize {
        self.commits.len() - 1
    }

    /// The store as a crash behind so many commits leaves it: whole, and with the next commit half written.
    pub fn cuts(&self, commits: usize) -> Vec<TempDir> {
        let whole = self.commits[commits];
        let torn = self.commits.get(commits + 1).map(|next| next - FRAME_HEAD - 1);
        [Some(whole), torn].into_iter().flatten().map(|bytes| self.cut(bytes)).collect()
    }

    /// The same for people alone: everything else is as it was in `folder`, before or after.
    pub fn people_behind(&self, commits: usize, folder: &Path) -> TempDir {
        let image = tempfile::tempdir().unwrap();
        copy(folder, image.path());
        let wal = std::fs::read(self.after.path().join(WAL)).unwrap();
        std::fs::write(image.path().join(WAL), &wal[..self.commits[commits] as usize]).unwrap();
        image
    }

    fn cut(&self, wal_bytes: u64) -> TempDir {
        let image = tempfile::tempdir().unwrap();
        copy(self.after.path(), image.path());
        std::fs::File::options()
            .write(true)
            .open(image.path().join(WAL))
            .unwrap()
            .set_len(wal_bytes)
            .unwrap();
        image
    }
}

/// Where commits end in a WAL (<https://www.sqlite.org/fileformat2.html#the_write_ahead_log>): a frame that names the
/// size of the database is the last of its transaction.
pub fn ends_of_commits(wal: &[u8]) -> Vec<u64> {
    if wal.is_empty() {
        // A start has emptied it.
        return Vec::new();
    }
    let number = |at: usize| u32::from_be_bytes(wal[at..at + 4].try_into().unwrap());
    let salts = &wal[16..24];
    let frame = FRAME_HEAD + u64::from(number(8));
    let frames = (0..).map(|n| WAL_HEAD + n * frame).take_while(|at| at + frame <= wal.len() as u64);
    frames
        .filter(|at| &wal[*at as usize + 8..*at as usize + 16] == salts && number(*at as usize + 4) != 0)
        .map(|at| at + frame)
        .collect()
}

/// All that a crash leaves; the index of a WAL is made anew from it.
pub fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let name = entry.file_name();
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(to.join(&name)).unwrap();
            copy(&entry.path(), &to.join(&name));
        } else if !name.to_string_lossy().ends_with("-shm") {
            std::fs::copy(entry.path(), to.join(&name)).unwrap();
        }
    }
}
