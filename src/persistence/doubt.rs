//! A disk that has failed under a file of SQLite's: the end of this opening, and a note to the next one.
//!
//! After a failed sync Linux calls the pages clean: it goes on showing what no disk may have, and the next sync succeeds over the
//! hole, behind which a power cut loses every commit. Always true: from then on this opening writes nothing more to the file, not even
//! when it closes it, and the next one has all that the WAL shows written again before anything is believed.

use std::fmt::Display;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sqlx::sqlite::SqliteConnection;
use tokio::sync::watch;

use super::StoreError;
use super::sql::Error;
use super::sql::sqlite::{self, Trouble, trouble};

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

    /// Best effort: the disk is in trouble already. Without it the next opening still copies what the WAL has.
    pub fn set(&self) {
        if let Err(error) = File::create(&self.0).and_then(|file| file.sync_all()) {
            tracing::warn!(%error, mark = %self.0.display(), "that the disk has failed could not be noted");
        }
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

    /// Hears why a commit or a checkpoint failed. Where that leaves open what the disk has, this opening is over.
    pub fn hear(&self, error: &Error) {
        if trouble(error) == Trouble::Unsure {
            self.end(error);
        }
    }

    /// A commit was begun, and whoever was to hear what came of it has gone.
    pub fn miss(&self) {
        self.end(&"nobody heard what came of a commit");
    }

    fn end(&self, why: &dyn Display) {
        UncleanMark::of(&self.file).set();
        tracing::error!(
            file = %self.file.display(),
            error = %why,
            "the disk failed while the tables were written; they must be opened again"
        );
        self.over.send_replace(true);
    }

    /// Whether nothing more is written.
    pub fn is_over(&self) -> bool {
        *self.over.borrow()
    }
}

fn unclean(path: &Path, why: &dyn Display) -> StoreError {
    StoreError::Unclean { path: path.to_owned(), why: why.to_string() }
}

/// After an opening whose disk had failed, and before anybody opens the file: all that the WAL shows is written into it and synced, that
/// too which was written before. A checkpoint that a reader held up has copied pages and not synced them, and a failed sync of the next
/// one lets go of them as well; what all connections know of the WAL still calls them copied.
pub async fn written_back(path: &Path) -> Result<(), StoreError> {
    let mark = UncleanMark::of(path);
    if !mark.stands() {
        return Ok(());
    }
    match sqlite::copy_anew(path).await {
        Ok(true) => mark.clear().map_err(|error| unclean(path, &error)),
        Ok(false) => Err(StoreError::StillRead { path: path.to_owned() }),
        Err(error) => Err(unclean(path, &error)),
    }
}

/// Before anything is believed, what the WAL shows is written into the file and synced, whether or not the last opening could leave a
/// mark. Whether all of it is; a reader may be in its way, or there is no room.
pub async fn emptied(writer: &mut SqliteConnection, path: &Path) -> Result<bool, StoreError> {
    match sqlite::checkpoint_truncate_now(writer).await {
        Ok(done) => Ok(!done.busy),
        Err(error) if trouble(&error) == Trouble::Unsure => {
            UncleanMark::of(path).set();
            Err(unclean(path, &error))
        }
        Err(error) => {
            tracing::warn!(%error, file = %path.display(), "a WAL could not be copied into its file");
            Ok(false)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;
    use std::time::Duration;

    use rstest::rstest;
    use sqlx::Connection as _;

    use super::*;
    use crate::persistence::sql::{self, Connection};
    use crate::persistence::testing::Home::Sqlite;
    use crate::persistence::testing::without_wal;
    use crate::persistence::{Tables, journal};

    const LOOK: &str = "select n from held";

    #[tokio::test]
    async fn tables_that_are_over_wait_for_nobody_who_reads() {
        let (dir, tables) = Sqlite.tables().await;
        let store = tables.jobs().store;
        store.write_synced(sql::query("update flush_checkpoint set pos = 7")).await.unwrap();
        let mut reader = sqlite::reader(&dir.path().join("shop.db"), &journal::tuning()).await.unwrap();
        sqlx::query("begin").execute(&mut reader).await.unwrap();
        sqlx::query("select pos from flush_checkpoint").fetch_one(&mut reader).await.unwrap();
        let closing = tokio::time::timeout(Duration::from_secs(4), tables.abandon());
        closing.await.expect("it waits").unwrap();
        reader.close().await.unwrap();
    }

    /// A checkpoint that a reader held up copies pages and does not sync them. When the next one cannot, the kernel calls these clean as
    /// well, and SQLite goes on calling them copied.
    #[rstest]
    #[tokio::test]
    async fn what_was_copied_before_the_disk_failed_is_copied_again(#[values(false, true)] is_read: bool) {
        let (dir, tables) = Sqlite.tables().await;
        let store = tables.jobs().store;
        let file = dir.path().join("shop.db");
        for sql in ["create table held (n integer not null)", "insert into held values (1)"] {
            store.write_synced(sql::query(sql)).await.unwrap();
        }
        let mut writer = store.writer().await.unwrap();
        let Connection::Sqlite(own) = &mut *writer else { panic!("a file") };
        assert!(!sqlite::checkpoint_truncate(own).await.unwrap().busy);
        drop(writer);
        let old = std::fs::read(&file).unwrap();

        store.write_synced(sql::query("update held set n = 2")).await.unwrap();
        let mut reader = store.readers().acquire().await.unwrap();
        sql::query("begin").execute(&mut reader).await.unwrap();
        sql::query(LOOK).fetch_one(&mut reader).await.unwrap();
        store.write_synced(sql::query("update flush_checkpoint set pos = 7")).await.unwrap();
        let mut writer = store.writer().await.unwrap();
        let Connection::Sqlite(own) = &mut *writer else { panic!("a file") };
        let held_up = sqlite::checkpoint(own).await.unwrap();
        assert!(held_up.copied > 0 && held_up.copied < held_up.pages, "{held_up:?}");
        sql::query("rollback").execute(&mut reader).await.unwrap();
        drop(reader);

        // What the disk has, once the kernel has let go of what it called clean.
        File::options().write(true).open(&file).unwrap().write_all_at(&old, 0).unwrap();
        own.tell(&Error::WorkerCrashed);
        drop(writer);
        let mut idle = None;
        if is_read {
            let mut reader = sqlite::reader(&file, &journal::tuning()).await.unwrap();
            sqlx::query(LOOK).fetch_one(&mut reader).await.unwrap();
            idle = Some(reader);
        }
        assert!(matches!(tables.close().await, Err(StoreError::DiskFailed)));
        assert!(std::fs::metadata(dir.path().join("shop.db-wal")).unwrap().len() > 0, "it is left as it was");
        if let Some(reader) = idle {
            // He keeps what SQLite knows of the WAL.
            let refused = Tables::open(dir.path()).await.map(drop).unwrap_err();
            assert!(matches!(refused, StoreError::StillRead { .. }), "{refused}");
            reader.close().await.unwrap();
        }

        let tables = Tables::open(dir.path()).await.unwrap();
        assert!(!UncleanMark::of(&file).stands());
        let alone = without_wal(&file);
        let mut looking = sqlite::writer(&alone.path().join("shop.db"), &journal::tuning()).await.unwrap();
        let n: i64 = sqlx::query_scalar(LOOK).fetch_one(&mut looking).await.unwrap();
        let pos: i64 =
            sqlx::query_scalar("select pos from flush_checkpoint").fetch_one(&mut looking).await.unwrap();
        assert_eq!((n, pos), (2, 7));
        tables.close().await.unwrap();
    }
}
