//! What a backup says of itself, and whether it is what it says: `manifest.json`, and the sums of all its files, which any
//! `sha256sum --check SHA256SUMS` compares as well. Of a backup that is sealed `manifest.json` tells no more than what opens the rest, and
//! `contents.json`, which is sealed as all tables are, the rest of it.
//!
//! Always true: the sums are written last, so a folder that has them was finished.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::BackupError;
use super::listed::{TABLES, Table};
use super::rows::{Written, contents, sum_of};
use super::sealed::{ID_BYTES, Seal, Sealing};
use crate::clock::Clock;
use crate::domain::stock;
use crate::persistence::migrations;
use crate::vault::{Sealed, Vault, WrappedKey};

/// The shape of the files. Another number is another shape.
const FORMAT: u32 = 1;
pub const MANIFEST: &str = "manifest.json";
pub const CONTENTS: &str = "contents.json";
pub const SUMS: &str = "SHA256SUMS";

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    /// The version of the program that made it.
    pub stockade: String,
    /// The moment that it shows, or one before that.
    pub taken_at: jiff::Timestamp,
    /// How many migrations the store had been through, by folder.
    pub migrations: BTreeMap<String, i64>,
    pub journal: JournalHead,
    /// Rows by table.
    pub rows: BTreeMap<String, u64>,
}

/// Where the journal ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalHead {
    pub last_pos: i64,
    /// Of the opening, or the node's session, that wrote last.
    pub epoch: i64,
    /// What may stand in it ([`stock::FORMAT`]); 0 in a backup of before there was such a number.
    #[serde(default)]
    pub format: i64,
}

/// What anybody reads of a backup: all of its manifest, or what opens the rest of it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Head {
    format: u32,
    stockade: String,
    taken_at: jiff::Timestamp,
    #[serde(default)]
    sealed: Option<Under>,
}

/// What a backup is sealed under.
#[derive(Debug, Serialize, Deserialize)]
struct Under {
    /// The name of the key of backups that opens it.
    key: String,
    /// Of this backup, in hexadecimal digits as what follows.
    id: String,
    /// The key of this backup, wrapped by that one.
    wrapped_key: String,
}

/// A backup that was read to its end and found whole.
pub struct Whole {
    pub manifest: Manifest,
    pub seal: Option<Seal>,
}

/// The names of the files and their sums.
#[derive(Debug, Default)]
pub struct Sums(BTreeMap<String, [u8; 32]>);

impl Manifest {
    pub fn new(taken_at: jiff::Timestamp, journal: JournalHead, rows: BTreeMap<String, u64>) -> Manifest {
        Manifest {
            format: FORMAT,
            stockade: env!("CARGO_PKG_VERSION").to_owned(),
            taken_at,
            migrations: ours(),
            journal,
            rows,
        }
    }

    /// Writes it beside the tables, and the sums behind it.
    pub fn write(&self, dir: &Path, mut sums: Sums, seal: Option<&Seal>, clock: &Clock) -> io::Result<()> {
        let mut text = json(self)?;
        if let Some(seal) = seal {
            let sealing = seal.sealing(CONTENTS, clock);
            sums.add(CONTENTS, put(&dir.join(CONTENTS), Some(sealing), &text)?);
            text = json(&Head::of(self, seal))?;
        }
        sums.add(MANIFEST, put(&dir.join(MANIFEST), None, &text)?);
        let lines: Vec<String> = sums.0.iter().map(|(name, sum)| format!("{}  {name}\n", hex(sum))).collect();
        put(&dir.join(SUMS), None, lines.concat().as_bytes())?;
        Ok(())
    }

    /// Reads it, and every file to its end: all of them are what was written, and of a shape that is ours. Its head says whether it is
    /// sealed, and nothing seals that: whoever does not take one that is not (`takes_plain`) is given no such one.
    pub fn read(dir: &Path, vault: Option<&Vault>, takes_plain: bool) -> Result<Whole, BackupError> {
        let sums = Sums::read(dir)?;
        sums.check(dir, MANIFEST, None)?;
        let path = dir.join(MANIFEST);
        let head: Head = parsed(&path, None)?;
        if head.format != FORMAT {
            return Err(BackupError::OtherVersion { made_by: head.stockade });
        }
        let seal = head.seal(&path, vault)?;
        if seal.is_none() && !takes_plain {
            return Err(BackupError::Plain);
        }
        let path = if seal.is_some() { dir.join(CONTENTS) } else { path };
        if let Some(seal) = &seal {
            sums.check(dir, CONTENTS, Some(seal))?;
        }
        let found: Manifest = parsed(&path, seal.as_ref())?;
        if found.format != FORMAT || found.migrations != ours() {
            return Err(BackupError::OtherVersion { made_by: found.stockade });
        }
        if found.journal.format > stock::FORMAT {
            return Err(BackupError::NewerJournal { made_by: found.stockade });
        }
        if let Some(table) = TABLES.iter().find(|table| !found.rows.contains_key(table.name)) {
            return Err(BackupError::Damaged { path, why: format!("it does not count {}", table.name) });
        }
        for name in TABLES.iter().map(Table::file) {
            sums.check(dir, &name, seal.as_ref())?;
        }
        Ok(Whole { manifest: found, seal })
    }
}

impl Head {
    fn of(manifest: &Manifest, seal: &Seal) -> Head {
        Head {
            format: manifest.format,
            stockade: manifest.stockade.clone(),
            taken_at: manifest.taken_at,
            sealed: Some(Under {
                key: seal.wrapped_key().key_name(),
                id: hex(seal.id()),
                wrapped_key: hex(seal.wrapped_key().as_bytes()),
            }),
        }
    }

    /// What opens the backup whose head this is, if it is sealed.
    pub fn seal(&self, path: &Path, vault: Option<&Vault>) -> Result<Option<Seal>, BackupError> {
        let Some(Under { key, id, wrapped_key }) = &self.sealed else { return Ok(None) };
        let damaged = || BackupError::Damaged {
            path: path.to_owned(),
            why: "what it says of its key is not so".to_owned(),
        };
        let id: [u8; ID_BYTES] = unhex(id).and_then(|id| id.try_into().ok()).ok_or_else(damaged)?;
        let wrapped_key = unhex(wrapped_key).ok_or_else(damaged)?;
        let wrapped_key = WrappedKey::from_bytes(&wrapped_key).map_err(|_| damaged())?;
        if wrapped_key.key_name() != *key {
            return Err(damaged());
        }
        let known = vault.map(Vault::key_names).unwrap_or_default();
        let opened = vault.map_or(Err(Sealed::ForeignKey), |vault| Seal::of(vault, id, wrapped_key));
        match opened {
            Ok(seal) => Ok(Some(seal)),
            Err(Sealed::ForeignKey) => Err(BackupError::OtherKey { key: key.clone(), known }),
            Err(Sealed::Damaged) => Err(damaged()),
        }
    }
}

/// The migrations of this program.
pub fn ours() -> BTreeMap<String, i64> {
    migrations::levels().into_iter().map(|(folder, level)| (folder.to_owned(), level)).collect()
}

impl Sums {
    pub fn add(&mut self, name: &str, sum: [u8; 32]) {
        self.0.insert(name.to_owned(), sum);
    }

    fn read(dir: &Path) -> Result<Sums, BackupError> {
        let path = dir.join(SUMS);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(BackupError::NotFinished { dir: dir.to_owned() });
            }
            Err(source) => return Err(BackupError::File { path, source }),
        };
        let mut sums = Sums::default();
        for line in text.lines() {
            let read = line.split_once("  ");
            let read: Option<([u8; 32], &str)> =
                read.and_then(|(sum, name)| Some((unhex(sum)?.try_into().ok()?, name)));
            let Some((sum, name)) = read else {
                return Err(BackupError::Damaged { path, why: "a line is no sum".to_owned() });
            };
            sums.add(name, sum);
        }
        Ok(sums)
    }

    /// A file is what was written; and where it is sealed, what was sealed.
    fn check(&self, dir: &Path, name: &str, seal: Option<&Seal>) -> Result<(), BackupError> {
        let path: PathBuf = dir.join(name);
        let Some(expected) = self.0.get(name) else {
            return Err(BackupError::Damaged {
                path: dir.join(SUMS),
                why: format!("it has no line for {name}"),
            });
        };
        match sum_of(&path) {
            Ok(found) if found == *expected => {}
            Ok(_) => return Err(BackupError::Damaged { path, why: "its sum is another one".to_owned() }),
            Err(source) => return Err(BackupError::File { path, source }),
        }
        let Some(seal) = seal else { return Ok(()) };
        let read = contents(&path, Some(seal)).and_then(|(mut file, _)| io::copy(&mut file, &mut io::sink()));
        read.map(drop).map_err(|source| unreadable(&path, source))
    }
}

fn unreadable(path: &Path, source: io::Error) -> BackupError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::InvalidData => BackupError::Damaged { path, why: source.to_string() },
        _ => BackupError::File { path, source },
    }
}

fn json(what: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(what)?;
    text.push(b'\n');
    Ok(text)
}

fn parsed<T: DeserializeOwned>(path: &Path, seal: Option<&Seal>) -> Result<T, BackupError> {
    let mut text = Vec::new();
    contents(path, seal)
        .and_then(|(mut file, _)| file.read_to_end(&mut text))
        .map_err(|source| unreadable(path, source))?;
    serde_json::from_slice(&text)
        .map_err(|error| BackupError::Damaged { path: path.to_owned(), why: error.to_string() })
}

fn put(path: &Path, sealing: Option<Sealing>, text: &[u8]) -> io::Result<[u8; 32]> {
    let mut file = Written::create(path, sealing)?;
    file.put(text)?;
    file.finish()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(word: &str) -> Option<Vec<u8>> {
    let digits = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let is_hex = word.len().is_multiple_of(2) && word.bytes().all(|digit| digit.is_ascii_hexdigit());
    if is_hex { word.as_bytes().chunks_exact(2).map(digits).collect() } else { None }
}
