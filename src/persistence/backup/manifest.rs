//! What a backup says of itself, and whether it is what it says: `manifest.json`, and the sums of all its files, which any
//! `sha256sum --check SHA256SUMS` compares as well.
//!
//! Always true: the sums are written last, so a folder that has them was finished.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::BackupError;
use super::listed::{TABLES, Table};
use super::rows::{Written, sum_of};
use crate::persistence::migrations;

/// The shape of the files. Another number is another shape.
const FORMAT: u32 = 1;
pub const MANIFEST: &str = "manifest.json";
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
    pub fn write(&self, dir: &Path, mut sums: Sums) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        sums.add(MANIFEST, put(&dir.join(MANIFEST), &text)?);
        let lines: Vec<String> = sums.0.iter().map(|(name, sum)| format!("{}  {name}\n", hex(sum))).collect();
        put(&dir.join(SUMS), lines.concat().as_bytes())?;
        Ok(())
    }

    /// Reads it, and every file to its end: all of them are what was written, and of a shape that is ours.
    pub fn read(dir: &Path) -> Result<Manifest, BackupError> {
        let sums = Sums::read(dir)?;
        let expected = TABLES.iter().map(Table::file).chain([MANIFEST.to_owned()]);
        for name in expected {
            sums.check(dir, &name)?;
        }
        let path = dir.join(MANIFEST);
        let text = std::fs::read(&path).map_err(|source| BackupError::File { path: path.clone(), source })?;
        let found: Manifest = serde_json::from_slice(&text)
            .map_err(|error| BackupError::Damaged { path: path.clone(), why: error.to_string() })?;
        if found.format != FORMAT || found.migrations != ours() {
            return Err(BackupError::OtherVersion { made_by: found.stockade });
        }
        match TABLES.iter().find(|table| !found.rows.contains_key(table.name)) {
            Some(table) => {
                Err(BackupError::Damaged { path, why: format!("it does not count {}", table.name) })
            }
            None => Ok(found),
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
            let read = line.split_once("  ").and_then(|(sum, name)| Some((unhex(sum)?, name)));
            let Some((sum, name)) = read else {
                return Err(BackupError::Damaged { path, why: "a line is no sum".to_owned() });
            };
            sums.add(name, sum);
        }
        Ok(sums)
    }

    fn check(&self, dir: &Path, name: &str) -> Result<(), BackupError> {
        let path: PathBuf = dir.join(name);
        let Some(expected) = self.0.get(name) else {
            return Err(BackupError::Damaged {
                path: dir.join(SUMS),
                why: format!("it has no line for {name}"),
            });
        };
        match sum_of(&path) {
            Ok(found) if found == *expected => Ok(()),
            Ok(_) => Err(BackupError::Damaged { path, why: "its sum is another one".to_owned() }),
            Err(source) => Err(BackupError::File { path, source }),
        }
    }
}

fn put(path: &Path, text: &[u8]) -> io::Result<[u8; 32]> {
    let mut file = Written::create(path)?;
    file.put(text)?;
    file.finish()
}

fn hex(bytes: &[u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(word: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if word.len() != 64 || !word.is_ascii() {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&word[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}
