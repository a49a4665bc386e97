//! A table's rows as a file: each value with a letter for what it is and its length, one after the other; and how a file of a backup is
//! written and read, sealed or not.
//!
//! Always true: what is written is read again as it was, byte by byte, in the same order; and whatever a file holds instead is an
//! error, never a panic and never more memory than the file is long.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use aws_lc_rs::digest;

use super::listed::{Kind, Table};
use super::sealed::{Seal, Sealing};
use crate::domain::stock::Entry;
use crate::persistence::StoreError;
use crate::persistence::sql::{Query, Row, signed};

const BUFFER_BYTES: usize = 256 * 1024;
const NULL: u8 = b'-';
const NUMBER: u8 = b'n';
const BYTES: u8 = b'b';
const WORDS: u8 = b'w';

/// One value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    Null,
    Number(i64),
    Bytes(Vec<u8>),
    Words(String),
}

impl Cell {
    /// Binds it to a statement.
    pub fn bind<'q>(&'q self, query: Query<'q>) -> Query<'q> {
        match self {
            Cell::Null => query.bind(None::<i64>),
            Cell::Number(number) => query.bind(*number),
            Cell::Bytes(bytes) => query.bind(bytes),
            Cell::Words(words) => query.bind(words),
        }
    }

    /// What it takes in memory, about.
    pub fn bytes(&self) -> usize {
        match self {
            Cell::Null | Cell::Number(_) => 8,
            Cell::Bytes(bytes) => bytes.len(),
            Cell::Words(words) => words.len(),
        }
    }
}

/// A file of one's own, which nobody else may read, sealed or not, and the sum of what stands in it.
pub struct Written {
    out: Summed,
    sealing: Option<Sealing>,
}

struct Summed {
    file: BufWriter<File>,
    sum: digest::Context,
}

impl Write for Summed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all(bytes)?;
        self.sum.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Written {
    pub fn create(path: &Path, sealing: Option<Sealing>) -> io::Result<Written> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let file = BufWriter::with_capacity(BUFFER_BYTES, file);
        let mut out = Summed { file, sum: digest::Context::new(&digest::SHA256) };
        if let Some(sealing) = &sealing {
            sealing.begin(&mut out)?;
        }
        Ok(Written { out, sealing })
    }

    pub fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.sealing {
            Some(sealing) => sealing.put(bytes, &mut self.out),
            None => self.out.write_all(bytes),
        }
    }

    /// It is on the disk; its SHA-256.
    pub fn finish(mut self) -> io::Result<[u8; 32]> {
        if let Some(sealing) = self.sealing.take() {
            sealing.end(&mut self.out)?;
        }
        let Summed { file, sum } = self.out;
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        let mut found = [0; 32];
        found.copy_from_slice(sum.finish().as_ref());
        Ok(found)
    }
}

/// What a file of a backup holds, in the clear, and how much.
pub fn contents(path: &Path, seal: Option<&Seal>) -> io::Result<(Box<dyn Read + Send>, u64)> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let Some(seal) = seal else { return Ok((Box::new(file), length)) };
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let opening = seal.opening(name, file, length)?;
    let plain = opening.length();
    Ok((Box::new(opening), plain))
}

/// The SHA-256 of a file.
pub fn sum_of(path: &Path) -> io::Result<[u8; 32]> {
    let (mut file, mut sum) = (File::open(path)?, digest::Context::new(&digest::SHA256));
    let mut piece = vec![0; BUFFER_BYTES];
    loop {
        match file.read(&mut piece)? {
            0 => break,
            read => sum.update(&piece[..read]),
        }
    }
    let mut found = [0; 32];
    found.copy_from_slice(sum.finish().as_ref());
    Ok(found)
}

/// A row as it was found, at the end of `into`.
pub fn encode(into: &mut Vec<u8>, table: &Table, row: &Row) -> Result<(), StoreError> {
    for (column, (_, kind)) in table.columns.iter().enumerate() {
        match kind {
            Kind::Number => number(into, row.try_get(column)?),
            Kind::Bytes => piece(into, BYTES, row.try_get::<Option<&[u8]>>(column)?),
            Kind::Words => piece(into, WORDS, row.try_get::<Option<&str>>(column)?.map(str::as_bytes)),
        }
    }
    Ok(())
}

/// An entry that stands in the log, as a row of the journal.
pub fn encode_entry(into: &mut Vec<u8>, pos: i64, entry: &Entry) {
    number(into, Some(pos));
    piece(into, BYTES, Some(entry.product.as_bytes()));
    for value in [signed(entry.first.0), signed(entry.last.0), signed(entry.epoch.0), entry.at.0] {
        number(into, Some(value));
    }
    piece(into, BYTES, Some(&entry.hash.0));
    piece(into, BYTES, Some(&entry.events));
}

fn number(into: &mut Vec<u8>, value: Option<i64>) {
    let Some(value) = value else { return into.push(NULL) };
    into.push(NUMBER);
    into.extend_from_slice(&value.to_le_bytes());
}

fn piece(into: &mut Vec<u8>, what: u8, bytes: Option<&[u8]>) {
    let Some(bytes) = bytes else { return into.push(NULL) };
    into.push(what);
    into.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    into.extend_from_slice(bytes);
}

/// Reads the rows of a file one after the other.
pub struct Rows<R> {
    file: R,
    columns: usize,
    left: u64,
}

impl Rows<BufReader<Box<dyn Read + Send>>> {
    pub fn open(path: &Path, table: &Table, seal: Option<&Seal>) -> io::Result<Self> {
        let (file, left) = contents(path, seal)?;
        Ok(Rows { file: BufReader::with_capacity(BUFFER_BYTES, file), columns: table.columns.len(), left })
    }
}

impl<R: Read> Rows<R> {
    /// The next one, or none behind the last.
    pub fn next(&mut self) -> io::Result<Option<Vec<Cell>>> {
        if self.left == 0 {
            return Ok(None);
        }
        (0..self.columns).map(|_| self.cell()).collect::<io::Result<_>>().map(Some)
    }

    fn cell(&mut self) -> io::Result<Cell> {
        let [what] = self.array()?;
        Ok(match what {
            NULL => Cell::Null,
            NUMBER => Cell::Number(i64::from_le_bytes(self.array()?)),
            BYTES => Cell::Bytes(self.piece()?),
            WORDS => Cell::Words(String::from_utf8(self.piece()?).map_err(|_| unreadable())?),
            _ => return Err(unreadable()),
        })
    }

    fn piece(&mut self) -> io::Result<Vec<u8>> {
        let length = u64::from_le_bytes(self.array()?);
        let mut bytes = vec![0; usize::try_from(self.take(length)?).map_err(|_| unreadable())?];
        self.file.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.take(N as u64)?;
        self.file.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// So much is there still.
    fn take(&mut self, length: u64) -> io::Result<u64> {
        self.left = self.left.checked_sub(length).ok_or_else(unreadable)?;
        Ok(length)
    }
}

fn unreadable() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a row cannot be read")
}

/// All rows of a file that is in memory.
#[cfg(any(test, feature = "fuzz"))]
pub fn read_all(file: &[u8], columns: usize) -> io::Result<Vec<Vec<Cell>>> {
    let mut rows = Rows { file, columns, left: file.len() as u64 };
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(row);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_goes_in_comes_out_and_whatever_else_is_there_is_an_error(
            numbers in proptest::collection::vec(proptest::option::of(any::<i64>()), 0..20),
            bytes in proptest::collection::vec(any::<u8>(), 0..60),
            words in ".{0,20}",
            cut in any::<prop::sample::Index>(),
            noise in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut file = Vec::new();
            for value in &numbers {
                number(&mut file, *value);
                piece(&mut file, BYTES, Some(&bytes));
                piece(&mut file, WORDS, Some(words.as_bytes()));
            }
            let expected: Vec<_> = numbers
                .iter()
                .map(|value| vec![value.map_or(Cell::Null, Cell::Number), Cell::Bytes(bytes.clone()), Cell::Words(words.clone())])
                .collect();
            prop_assert_eq!(read_all(&file, 3).unwrap(), expected.clone());
            file.truncate(cut.index(file.len() + 1));
            if let Ok(found) = read_all(&file, 3) {
                prop_assert!(expected.starts_with(&found));
            }
            let _ = read_all(&noise, 3);
        }
    }
}
