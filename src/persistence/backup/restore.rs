//! Filling an empty home from a backup: the same rows, in files or in a database, whichever of the two they came from.
//!
//! Always true: the backup is read to its end and found whole before anything is written; and until the last row is there the
//! tables claim to lead the journal by far, so that whoever finds a store half filled does not open it as a shop.

use std::fs::File;
use std::io;
use std::path::Path;

use sqlx::sqlite::SqliteSynchronous;

use super::listed::{Part, TABLES, Table};
use super::manifest::{Manifest, Whole};
use super::parts::{FILES, Parts};
use super::rows::{Cell, Rows};
use super::{BackupError, Place};
use crate::clock::Clock;
use crate::persistence::journal::{self, Lock};
use crate::persistence::sql::mysql::{self, Server};
use crate::persistence::sql::sqlite::{self, Tuning};
use crate::persistence::sql::{self, Connection};
use crate::persistence::{StoreError, folder, migrations};
use crate::vault::Vault;

/// Values of one statement, at most: far less than a server takes in one packet.
const STATEMENT_BYTES: usize = 1024 * 1024;
const STATEMENT_ROWS: usize = 256;
/// And of one transaction.
const TRANSACTION_BYTES: usize = 16 * 1024 * 1024;
const CACHE_KIB: u32 = 64 * 1024;
/// What a file system may leave in the root of an empty volume.
const LEFTOVERS: [&str; 1] = ["lost+found"];

/// A place that no journal reaches.
const NOT_YET: &str = "update flush_checkpoint set pos = 9223372036854775807 where id = 1";
const EPOCH_OF_FILES: &str = "update journal_meta set epoch = ? where id = 1";
const FORMAT: &str = "update journal_meta set format_number = ? where id = 1";
/// A session that has ended: the next one is numbered behind it.
const EPOCH_OF_DATABASE: &str =
    "insert into node_sessions (number, node_id, active, started_at_ms) values (?, ?, null, ?)";

/// What was restored.
#[derive(Debug)]
pub struct Restored {
    pub manifest: Manifest,
    /// The key of backups that it was sealed under, if it was.
    pub key: Option<String>,
}

/// Fills `place`, in which nothing may stand, from the backup in `from`, which `vault` opens if it is sealed; one that is not is
/// taken if `takes_plain` says so. What is restored is a shop that was killed at the moment of the backup: it recovers when it is
/// opened.
pub async fn restore(
    from: &Path,
    place: Place<'_>,
    vault: Option<&Vault>,
    takes_plain: bool,
    clock: &Clock,
) -> Result<Restored, BackupError> {
    let whole = Manifest::read(from, vault, takes_plain)?;
    match place {
        Place::Files(dir) => {
            let is_new = is_free(dir)?;
            let filled = into_files(from, dir, &whole).await;
            if filled.is_err() {
                undo(dir, is_new);
            }
            filled?;
        }
        Place::Database(url) => into_database(from, url, &whole, clock).await?,
    }
    let key = whole.seal.map(|seal| seal.wrapped_key().key_name());
    Ok(Restored { manifest: whole.manifest, key })
}

async fn into_files(from: &Path, dir: &Path, whole: &Whole) -> Result<(), BackupError> {
    let file = |source| BackupError::File { path: dir.to_owned(), source };
    folder::make(dir).map_err(file)?;
    let _lock: Lock = journal::lock(dir)?;
    let made = [migrations::tables(), migrations::people(), migrations::money(), migrations::journal()];
    let mut files = Vec::new();
    for (name, migrations) in FILES.into_iter().zip(made) {
        let mut writer = sqlite::writer(&dir.join(name), &tuning()).await?;
        migrations.run(&mut writer).await.map_err(StoreError::from)?;
        files.push(Connection::Sqlite(writer.into()));
    }
    let Ok(files) = files.try_into() else { return Err(StoreError::Closed.into()) };
    let mut parts = Parts::Files(Box::new(files));
    sql::query(NOT_YET).execute(parts.of(Part::Shop)).await.map_err(StoreError::from)?;
    let epoch = sql::query(EPOCH_OF_FILES).bind(whole.manifest.journal.epoch);
    epoch.execute(parts.of(Part::Journal)).await.map_err(StoreError::from)?;
    Filling { from, whole, parts: &mut parts }.all().await?;
    parts.close().await?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(file)
}

async fn into_database(from: &Path, url: &str, whole: &Whole, clock: &Clock) -> Result<(), BackupError> {
    let mut session = Server::at(url)?.connect().await.map_err(StoreError::from)?;
    mysql::check(&mut session).await?;
    if !mysql::is_empty(&mut session).await.map_err(StoreError::from)? {
        return Err(BackupError::UsedDatabase);
    }
    mysql::migrate(&mut session, &migrations::on_mysql()).await?;
    let mut parts = Parts::in_database(session);
    let database = parts.of(Part::Shop);
    sql::query(NOT_YET).execute(&mut *database).await.map_err(StoreError::from)?;
    let session = sql::query(EPOCH_OF_DATABASE).bind(whole.manifest.journal.epoch).bind(&[0_u8; 16][..]);
    session.bind(clock.now().0).execute(database).await.map_err(StoreError::from)?;
    Filling { from, whole, parts: &mut parts }.all().await?;
    Ok(parts.close().await?)
}

/// A home on its way from empty to full.
struct Filling<'f> {
    from: &'f Path,
    whole: &'f Whole,
    parts: &'f mut Parts,
}

impl Filling<'_> {
    async fn all(mut self) -> Result<(), BackupError> {
        let Some((last, others)) = TABLES.split_last() else { return Ok(()) };
        self.format().await?;
        for table in others {
            self.table(table).await?;
        }
        // All of it is on the disk before the last word is.
        self.settle().await?;
        self.table(last).await?;
        Ok(self.settle().await?)
    }

    async fn table(&mut self, table: &'static Table) -> Result<(), BackupError> {
        let path = self.from.join(table.file());
        let file = |source| BackupError::File { path: path.clone(), source };
        let mut rows = Rows::open(&path, table, self.whole.seal.as_ref()).map_err(file)?;
        let home = self.parts.of(table.part);
        sql::begin(home).await.map_err(StoreError::from)?;
        sql::query(table.clear).execute(&mut *home).await.map_err(StoreError::from)?;
        let (mut waiting, mut bytes, mut open, mut filled) = (Vec::new(), 0, 0, 0_u64);
        while let Some(row) = rows.next().map_err(file)? {
            bytes += row.iter().map(Cell::bytes).sum::<usize>();
            waiting.push(row);
            if waiting.len() < STATEMENT_ROWS && bytes < STATEMENT_BYTES {
                continue;
            }
            insert(home, table, &waiting).await?;
            filled += waiting.len() as u64;
            open += bytes;
            (waiting, bytes) = (Vec::new(), 0);
            if open >= TRANSACTION_BYTES {
                open = 0;
                commit(home).await?;
                sql::begin(home).await.map_err(StoreError::from)?;
            }
        }
        insert(home, table, &waiting).await?;
        filled += waiting.len() as u64;
        commit(home).await?;
        match self.whole.manifest.rows.get(table.name) {
            Some(rows) if *rows == filled => Ok(()),
            _ => Err(BackupError::Damaged {
                path,
                why: format!("it has {filled} rows, and not as many as its manifest says"),
            }),
        }
    }

    /// Who opens it knows whether he can read what stands there.
    async fn format(&mut self) -> Result<(), StoreError> {
        let format = sql::query(FORMAT).bind(self.whole.manifest.journal.format);
        format.execute(self.parts.of(Part::Journal)).await?;
        Ok(())
    }

    /// What was written stands in the files themselves, synced. A database sees to that by itself.
    async fn settle(&mut self) -> Result<(), StoreError> {
        let Parts::Files(files) = &mut *self.parts else { return Ok(()) };
        for file in files.iter_mut() {
            if let Connection::Sqlite(file) = file {
                sqlite::checkpoint_truncate(file).await?;
            }
        }
        Ok(())
    }
}

async fn insert(home: &mut Connection, table: &'static Table, rows: &[Vec<Cell>]) -> Result<(), StoreError> {
    for (text, rows) in table.insert.cut(rows) {
        let query = rows.iter().flatten().fold(sql::query(text), |query, cell| cell.bind(query));
        query.execute(&mut *home).await?;
    }
    Ok(())
}

async fn commit(home: &mut Connection) -> Result<(), StoreError> {
    sql::end(home, Ok::<_, StoreError>(())).await?;
    match home {
        Connection::Sqlite(file) => sqlite::checkpoint(file).await.map(drop).map_err(StoreError::from),
        _ => Ok(()),
    }
}

fn tuning() -> Tuning {
    Tuning {
        page_bytes: 4096,
        cache_kib: CACHE_KIB,
        synchronous: SqliteSynchronous::Normal,
        erases: false,
        pages_max: None,
    }
}

/// Nothing stands in the folder; or it is not there: whether that is so.
fn is_free(dir: &Path) -> Result<bool, BackupError> {
    let file = |source| BackupError::File { path: dir.to_owned(), source };
    let inside = match std::fs::read_dir(dir) {
        Ok(inside) => inside,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(file(error)),
    };
    for entry in inside {
        let name = entry.map_err(file)?.file_name();
        if !LEFTOVERS.iter().any(|leftover| name == **leftover) {
            return Err(BackupError::UsedDir { dir: dir.to_owned() });
        }
    }
    Ok(false)
}

/// Takes away what was not finished, as far as that goes.
fn undo(dir: &Path, is_new: bool) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        // Folders are none of ours.
        let _ = std::fs::remove_file(entry.path());
    }
    if is_new {
        let _ = std::fs::remove_dir(dir);
    }
}
