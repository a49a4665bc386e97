//! Taking a backup: one moment, written down table by table while the shop goes on.

use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use futures_util::TryStreamExt;

use super::listed::{Part, TABLES, Table};
use super::manifest::{CONTENTS, JournalHead, MANIFEST, Manifest, SUMS, Sums};
use super::moment::Moment;
use super::rows::{self, Written};
use super::sealed::Seal;
use super::{BackupError, Place};
use crate::clock::Clock;
use crate::domain::stock::{Entry, FORMAT};
use crate::persistence::StoreError;
use crate::persistence::{folder, migrations, sql};
use crate::vault::Vault;

const LAST_POS: &str = "select coalesce(max(pos), 0) from journal";
/// Rows that are written at once, about.
const PIECE_BYTES: usize = 64 * 1024;

/// What was taken.
#[derive(Debug)]
pub struct Taken {
    pub manifest: Manifest,
    /// The key of backups that it is sealed under, if it is.
    pub key: Option<String>,
    pub bytes: u64,
    /// For how long nobody could write the tables. Nothing in a database, which holds nobody up.
    pub held: Duration,
}

/// Writes all of a shop as it is at one moment from now on into `to`, a folder of its own, sealed under the newest key of `vault` if there
/// is one. The shop may sell meanwhile.
pub async fn take(
    place: Place<'_>,
    to: &Path,
    vault: Option<&Vault>,
    clock: &Clock,
) -> Result<Taken, BackupError> {
    let seal = vault.map(|vault| Seal::new(vault, clock)).transpose().map_err(BackupError::NotSealed)?;
    let made_at = jiff::Timestamp::from_millisecond(clock.now().0).unwrap_or_default();
    let mut moment = Moment::of(place, clock).await?;
    for ((folder, ours), found) in migrations::levels().into_iter().zip(moment.parts.levels().await?) {
        if ours != found {
            return Err(BackupError::OtherStore { folder });
        }
    }
    if moment.parts.format().await? > FORMAT {
        return Err(BackupError::OtherStore { folder: "journal" });
    }
    let is_new = make(to)?;
    let written = write(&mut moment, to, made_at, seal.as_ref(), clock).await;
    if written.is_err() {
        undo(to, is_new);
    }
    let (manifest, bytes) = written?;
    moment.parts.close().await?;
    let key = seal.map(|seal| seal.wrapped_key().key_name());
    Ok(Taken { manifest, key, bytes, held: moment.held })
}

async fn write(
    moment: &mut Moment,
    to: &Path,
    taken_at: jiff::Timestamp,
    seal: Option<&Seal>,
    clock: &Clock,
) -> Result<(Manifest, u64), BackupError> {
    let (mut sums, mut rows, mut bytes) = (Sums::default(), BTreeMap::new(), 0);
    for table in TABLES {
        let path = to.join(table.file());
        let file = |source| BackupError::File { path: path.clone(), source };
        let sealing = seal.map(|seal| seal.sealing(&table.file(), clock));
        let mut copy = Copy {
            file: Written::create(&path, sealing).map_err(file)?,
            piece: Vec::new(),
            rows: 0,
            bytes: 0,
            path: &path,
        };
        copy.rows_of(moment, table).await?;
        if table.name == "journal" {
            copy.entries(&moment.log)?;
        }
        copy.put()?;
        rows.insert(table.name.to_owned(), copy.rows);
        bytes += copy.bytes;
        sums.add(&table.file(), copy.file.finish().map_err(file)?);
    }
    let archived: i64 = sql::query_scalar(LAST_POS)
        .fetch_one(moment.parts.of(Part::Journal))
        .await
        .map_err(StoreError::from)?;
    let last_pos = moment.log.last().map_or(archived, |(pos, _)| *pos);
    let (epoch, format) = (moment.parts.epoch().await?, moment.parts.format().await?);
    let manifest = Manifest::new(taken_at, JournalHead { last_pos, epoch, format }, rows);
    let written = manifest.write(to, sums, seal, clock).and_then(|()| synced(to));
    written.map_err(|source| BackupError::File { path: to.to_owned(), source })?;
    Ok((manifest, bytes))
}

/// The folder and its name are on the disk, too.
fn synced(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()?;
    match dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => File::open(parent)?.sync_all(),
        None => File::open(".")?.sync_all(),
    }
}

/// One table on its way into its file.
struct Copy<'p> {
    file: Written,
    piece: Vec<u8>,
    rows: u64,
    bytes: u64,
    path: &'p Path,
}

impl Copy<'_> {
    async fn rows_of(&mut self, moment: &mut Moment, table: &'static Table) -> Result<(), BackupError> {
        let mut found = sql::query(table.select).fetch(moment.parts.of(table.part));
        while let Some(row) = found.try_next().await.map_err(StoreError::from)? {
            rows::encode(&mut self.piece, table, &row)?;
            self.row()?;
        }
        Ok(())
    }

    fn entries(&mut self, log: &[(i64, Entry)]) -> Result<(), BackupError> {
        for (pos, entry) in log {
            rows::encode_entry(&mut self.piece, *pos, entry);
            self.row()?;
        }
        Ok(())
    }

    fn row(&mut self) -> Result<(), BackupError> {
        self.rows += 1;
        if self.piece.len() < PIECE_BYTES { Ok(()) } else { self.put() }
    }

    fn put(&mut self) -> Result<(), BackupError> {
        let put = self.file.put(&self.piece);
        put.map_err(|source| BackupError::File { path: self.path.to_owned(), source })?;
        self.bytes += self.piece.len() as u64;
        self.piece.clear();
        Ok(())
    }
}

/// A folder of one's own, which nobody else may look into. Whether it was not there before.
fn make(dir: &Path) -> Result<bool, BackupError> {
    let file = |source| BackupError::File { path: dir.to_owned(), source };
    match std::fs::read_dir(dir) {
        Ok(mut inside) => {
            if inside.next().is_some() {
                return Err(BackupError::Used { dir: dir.to_owned() });
            }
            std::fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(file)?;
            Ok(false)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            folder::make(dir).map_err(file)?;
            Ok(true)
        }
        Err(error) => Err(file(error)),
    }
}

/// Takes away what was not finished, as far as that goes: without its sums nobody takes it for a backup.
fn undo(dir: &Path, is_new: bool) {
    let tables = TABLES.iter().map(Table::file);
    for name in tables.chain([CONTENTS, MANIFEST, SUMS].map(str::to_owned)) {
        let _ = std::fs::remove_file(dir.join(name));
    }
    if is_new {
        let _ = std::fs::remove_dir(dir);
    }
}
