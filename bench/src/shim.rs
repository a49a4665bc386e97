//! The page cache that a power cut takes away. A kill leaves everything a process has written in the kernel's hands; a power
//! cut leaves only what was synced. `shim/page_cache.c`, preloaded into the server, keeps a *shadow* folder in which
//! every file stands as of its last sync. After a kill the shadow takes the place of the data folder. The book of the simulated
//! payment provider stands for somebody else's, who has his own power: it stays as it is.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::judge::PROVIDER_BOOK;
use crate::process::run_to_end;

const SOURCE: &str = include_str!("../shim/page_cache.c");

pub struct PageCache {
    library: PathBuf,
    data: PathBuf,
    shadow: PathBuf,
    /// Of which files syncs are ignored: of those whose names begin so.
    ignores_sync: Option<String>,
}

impl PageCache {
    /// Builds the shim into `folder`. `ignores_sync`: syncs of files whose names begin so count for nothing, as if the server did not
    /// sync them at all; of all files, if it is empty.
    pub fn build(folder: &Path, data: &Path, ignores_sync: Option<&str>) -> Result<Self> {
        let (source, library) = (folder.join("page_cache.c"), folder.join("page_cache.so"));
        std::fs::write(&source, SOURCE)?;
        let mut compiler = Command::new("cc");
        compiler
            .args(["-shared", "-fPIC", "-O2", "-Wall", "-o"])
            .arg(&library)
            .arg(&source)
            .args(["-ldl", "-lpthread"]);
        run_to_end(compiler).context("the page cache shim needs a C compiler named cc")?;
        let data = std::fs::canonicalize(data)?;
        let ignores_sync = ignores_sync.map(str::to_owned);
        Ok(Self { library, data, shadow: folder.join("shadow"), ignores_sync })
    }

    /// What the server's environment needs.
    pub fn environment(&self) -> Vec<(String, String)> {
        let mut variables = vec![
            ("LD_PRELOAD".to_owned(), self.library.display().to_string()),
            ("STOCKADE_SHIM_DIR".to_owned(), self.data.display().to_string()),
            ("STOCKADE_SHIM_SHADOW".to_owned(), self.shadow.display().to_string()),
        ];
        if let Some(names) = &self.ignores_sync {
            variables.push(("STOCKADE_SHIM_IGNORE_SYNC".to_owned(), names.clone()));
        }
        variables
    }

    /// Takes everything that stands in the data folder as synced; only while no server runs.
    pub fn everything_is_synced(&self) -> Result<()> {
        replace(&self.data, &self.shadow)
    }

    /// The power cut: what was not synced is gone.
    pub fn lose_unsynced(&self) -> Result<()> {
        replace(&self.shadow, &self.data)
    }
}

/// Makes `to` hold what `from` holds, but for the provider's book. The folder itself stays, since others name it.
fn replace(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        for entry in std::fs::read_dir(to)? {
            let entry = entry?;
            if entry.file_name() == PROVIDER_BOOK {
                continue;
            }
            let path = entry.path();
            if path.is_dir() { std::fs::remove_dir_all(path)? } else { std::fs::remove_file(path)? }
        }
    }
    copy(from, to)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (source, name) = (entry.path(), entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&source, &to.join(name))?;
        } else if name != PROVIDER_BOOK && !name.to_string_lossy().ends_with("-shm") {
            std::fs::copy(&source, to.join(name)).with_context(|| source.display().to_string())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROGRAM: &str = r#"
import os, signal, sys
os.chdir(sys.argv[1])
def put(name, data, at=0, flags=os.O_RDWR | os.O_CREAT):
    fd = os.open(name, flags); os.pwrite(fd, data, at); return fd
a = put("synced", b"one"); os.fsync(a); os.pwrite(a, b"two", 3)
b = put("never", b"lost")
c = put("shrunk", b"0123456789"); os.fsync(c); os.ftruncate(c, 0); os.pwrite(c, b"x", 5); os.fdatasync(c)
d = put("old-name", b"moved"); os.fsync(d); os.rename("old-name", "new-name"); os.fsync(c)
e = put("gone", b"gone"); os.fsync(e); os.unlink("gone"); os.fsync(c)
f = os.open("appended", os.O_WRONLY | os.O_CREAT | os.O_APPEND); os.write(f, b"ab"); os.fsync(f); os.write(f, b"cd")
g = put("index-shm", b"no"); os.fsync(g)
h = put("simulated-provider.book", b"theirs")
i = put("before", b"0123"); os.fsync(i); os.rename("before", "after"); os.pwrite(i, b"new", 0); os.fdatasync(i)
j = put("again", b"old"); os.fsync(j); os.unlink("again"); k = put("again", b"anew"); os.fsync(k)
os.kill(os.getpid(), signal.SIGKILL)
"#;

    /// What the script leaves after a power cut: (file, content).
    fn left_after_power_cut(ignores_sync: Option<&str>) -> Vec<(String, Vec<u8>)> {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let cache = PageCache::build(folder.path(), &data, ignores_sync).unwrap();
        cache.everything_is_synced().unwrap();
        let mut python = Command::new("python3");
        python.args(["-c", PROGRAM]).arg(&data).envs(cache.environment());
        assert!(!python.status().unwrap().success());
        cache.lose_unsynced().unwrap();
        let mut left: Vec<_> = std::fs::read_dir(&data)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| {
                (entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path()).unwrap())
            })
            .collect();
        left.sort();
        left
    }

    const SYNCED: [(&str, &[u8]); 6] = [
        ("after", b"new3"),
        ("again", b"anew"),
        ("appended", b"ab"),
        ("new-name", b"moved"),
        ("shrunk", b"\0\0\0\0\0x"),
        ("synced", b"one"),
    ];
    /// It is not ours.
    const THEIRS: (&str, &[u8]) = (PROVIDER_BOOK, b"theirs");

    fn assert_left(ignores_sync: Option<&str>, mut expected: Vec<(&str, &[u8])>) {
        expected.sort_unstable();
        let left = left_after_power_cut(ignores_sync);
        let left: Vec<_> = left.iter().map(|(name, data)| (name.as_str(), data.as_slice())).collect();
        assert_eq!(left, expected);
    }

    #[test]
    fn a_power_cut_leaves_what_was_synced_and_nothing_else() {
        assert_left(None, [&SYNCED[..], &[THEIRS]].concat());
    }

    #[test]
    fn without_syncs_nothing_is_left() {
        assert_left(Some(""), vec![THEIRS]);
    }

    #[test]
    fn without_the_syncs_of_one_file_that_one_is_not_left() {
        assert_left(Some("synced"), [&SYNCED[..5], &[THEIRS]].concat());
    }
}
