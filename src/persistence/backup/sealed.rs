//! A file of a backup, sealed: a byte that says how, seven of chance, and then chunks of AES-256-GCM, each with its tag.
//!
//! Always true: a chunk opens under the key of its backup, in its file and in its place alone, and the last one as the last, so none
//! can be changed, left out, put elsewhere or taken from another backup; and a chunk is all that is held in memory.
//!
//! The nonce of a chunk is the file's chance, the chunk's number, and whether it is the last (STREAM: Hoang, Reyhanitabar, Rogaway and
//! Vizár, *Online Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance*, 2015). A backup has a key of its own, wrapped by the
//! newest key of backups. Once that one is destroyed nobody reads the backup.

use std::fmt;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::sync::Arc;

use aws_lc_rs::aead::{Aad, LessSafeKey, MAX_TAG_LEN, NONCE_LEN, Nonce};

use crate::clock::Clock;
use crate::vault::{Sealed, Vault, WrappedKey};

/// What is sealed at once.
const CHUNK_BYTES: usize = 64 * 1024;
const SEALED_CHUNK_BYTES: usize = CHUNK_BYTES + MAX_TAG_LEN;
/// First byte of a file, so that another way can follow.
const VERSION: u8 = 1;
/// What is left of a nonce beside a number of four bytes, and one that says whether it is the last.
const CHANCE_BYTES: usize = NONCE_LEN - 5;
const HEAD_BYTES: usize = 1 + CHANCE_BYTES;
/// Of a backup.
pub const ID_BYTES: usize = 16;

/// What seals the files of one backup, or opens them.
pub struct Seal {
    id: [u8; ID_BYTES],
    wrapped_key: WrappedKey,
    key: Arc<LessSafeKey>,
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("Seal(…)")
    }
}

impl Seal {
    /// Of a new backup, under the newest key.
    pub fn new(vault: &Vault, clock: &Clock) -> Result<Seal, Sealed> {
        Seal::of(vault, clock.chance_bytes(), vault.new_key()?)
    }

    /// As a backup's head tells it.
    pub fn of(vault: &Vault, id: [u8; ID_BYTES], wrapped_key: WrappedKey) -> Result<Seal, Sealed> {
        let key = Arc::new(vault.cipher_of(&wrapped_key)?);
        Ok(Seal { id, wrapped_key, key })
    }

    pub fn id(&self) -> &[u8; ID_BYTES] {
        &self.id
    }

    pub fn wrapped_key(&self) -> &WrappedKey {
        &self.wrapped_key
    }

    /// Seals a file of this name.
    pub fn sealing(&self, file: &str, clock: &Clock) -> Sealing {
        Sealing {
            chunks: self.chunks(file, clock.chance_bytes()),
            chunk: Vec::with_capacity(SEALED_CHUNK_BYTES),
        }
    }

    /// Opens a file of this name, which is so long.
    pub fn opening<R: Read>(&self, file: &str, mut from: R, length: u64) -> io::Result<Opening<R>> {
        let mut head = [0; HEAD_BYTES];
        let body = length.checked_sub(HEAD_BYTES as u64).ok_or_else(refused)?;
        from.read_exact(&mut head)?;
        let [VERSION, chance @ ..] = head else { return Err(refused()) };
        let tags = body.div_ceil(SEALED_CHUNK_BYTES as u64) * MAX_TAG_LEN as u64;
        // An empty file has a chunk as well.
        let plain = body.checked_sub(tags).filter(|_| body > 0).ok_or_else(refused)?;
        Ok(Opening {
            from,
            chunks: self.chunks(file, chance),
            left: body,
            plain,
            chunk: Vec::new(),
            open: 0..0,
        })
    }

    fn chunks(&self, file: &str, chance: [u8; CHANCE_BYTES]) -> Chunks {
        let context = [b"stockade backup ".as_slice(), &self.id, file.as_bytes()].concat();
        Chunks { key: self.key.clone(), context, chance, next: Some(0) }
    }
}

/// The chunks of one file, in their order.
struct Chunks {
    key: Arc<LessSafeKey>,
    context: Vec<u8>,
    chance: [u8; CHANCE_BYTES],
    /// None once there can be no other.
    next: Option<u32>,
}

impl Chunks {
    /// Of the next one. None comes twice.
    fn nonce(&mut self, is_last: bool) -> io::Result<Nonce> {
        let number = self.next.ok_or_else(refused)?;
        self.next = number.checked_add(1).filter(|_| !is_last);
        let mut nonce = [u8::from(is_last); NONCE_LEN];
        nonce[..CHANCE_BYTES].copy_from_slice(&self.chance);
        nonce[CHANCE_BYTES..NONCE_LEN - 1].copy_from_slice(&number.to_be_bytes());
        Ok(Nonce::assume_unique_for_key(nonce))
    }

    fn seal(&mut self, chunk: &mut Vec<u8>, is_last: bool) -> io::Result<()> {
        let nonce = self.nonce(is_last)?;
        let sealed = self.key.seal_in_place_append_tag(nonce, Aad::from(self.context.as_slice()), chunk);
        sealed.map_err(|_| refused())
    }

    /// How much was in it. Behind one that does not open nothing does.
    fn open(&mut self, chunk: &mut [u8], is_last: bool) -> io::Result<usize> {
        let nonce = self.nonce(is_last)?;
        let opened = self.key.open_in_place(nonce, Aad::from(self.context.as_slice()), chunk);
        let plain = opened.map(|plain| plain.len());
        if plain.is_err() {
            self.next = None;
        }
        plain.map_err(|_| refused())
    }
}

/// A file that is being sealed. Without its end it does not open.
pub struct Sealing {
    chunks: Chunks,
    chunk: Vec<u8>,
}

impl Sealing {
    /// What stands before the first chunk.
    pub fn begin(&self, into: &mut impl Write) -> io::Result<()> {
        into.write_all(&[VERSION])?;
        into.write_all(&self.chunks.chance)
    }

    /// A chunk that is full waits for what follows: it may be the last.
    pub fn put(&mut self, mut bytes: &[u8], into: &mut impl Write) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.chunk.len() == CHUNK_BYTES {
                self.write(false, into)?;
            }
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK_BYTES - self.chunk.len()));
            self.chunk.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    /// The last chunk.
    pub fn end(mut self, into: &mut impl Write) -> io::Result<()> {
        self.write(true, into)
    }

    fn write(&mut self, is_last: bool, into: &mut impl Write) -> io::Result<()> {
        self.chunks.seal(&mut self.chunk, is_last)?;
        into.write_all(&self.chunk)?;
        self.chunk.clear();
        Ok(())
    }
}

/// What was sealed, as it was before. A chunk is told when it was found whole.
pub struct Opening<R> {
    from: R,
    chunks: Chunks,
    /// What was not read yet.
    left: u64,
    plain: u64,
    chunk: Vec<u8>,
    /// Where in the chunk stands what was not told yet.
    open: Range<usize>,
}

impl<R> Opening<R> {
    /// How long all of it is.
    pub fn length(&self) -> u64 {
        self.plain
    }
}

impl<R: Read> Opening<R> {
    fn next_chunk(&mut self) -> io::Result<()> {
        let length = self.left.min(SEALED_CHUNK_BYTES as u64);
        self.chunk.resize(usize::try_from(length).map_err(|_| refused())?, 0);
        self.from.read_exact(&mut self.chunk)?;
        let plain = self.chunks.open(&mut self.chunk, length == self.left)?;
        self.left -= length;
        self.open = 0..plain;
        Ok(())
    }
}

impl<R: Read> Read for Opening<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.open.is_empty() {
            if self.left == 0 {
                return Ok(0);
            }
            self.next_chunk()?;
        }
        let told = into.len().min(self.open.len());
        let end = self.open.start + told;
        into[..told].copy_from_slice(&self.chunk[self.open.start..end]);
        self.open.start = end;
        Ok(told)
    }
}

fn refused() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is not what was sealed there")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::MasterKeys;

    const FILE: &str = "orders.rows";

    fn seal(key: u8) -> Seal {
        let vault = Vault::new(&MasterKeys::one([key; 32]), &Clock::start()).unwrap();
        Seal::new(&vault, &Clock::start()).unwrap()
    }

    fn sealed(seal: &Seal, plain: &[u8]) -> Vec<u8> {
        let (mut sealing, mut file) = (seal.sealing(FILE, &Clock::start()), Vec::new());
        sealing.begin(&mut file).unwrap();
        for piece in plain.chunks(10_007) {
            sealing.put(piece, &mut file).unwrap();
        }
        sealing.end(&mut file).unwrap();
        file
    }

    fn opened(seal: &Seal, name: &str, file: &[u8]) -> io::Result<Vec<u8>> {
        let mut opening = seal.opening(name, file, file.len() as u64)?;
        let (mut plain, bytes) = (Vec::new(), opening.length());
        opening.read_to_end(&mut plain)?;
        assert_eq!(plain.len() as u64, bytes, "how long it is is known before it is read");
        Ok(plain)
    }

    #[track_caller]
    fn is_refused(seal: &Seal, file: &[u8], what: &str) {
        let told = opened(seal, FILE, file).map(|plain| plain.len());
        assert!(told.is_err(), "{what}: {told:?}");
    }

    fn plain(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|at| (at / 7) as u8).collect()
    }

    /// Three of them, and the last is not full.
    fn of_three_chunks(seal: &Seal) -> Vec<u8> {
        sealed(seal, &plain(2 * CHUNK_BYTES + 4_711))
    }

    /// What stands before the first chunk, and each chunk.
    fn cut(file: &[u8]) -> (Vec<u8>, Vec<Vec<u8>>) {
        let (head, chunks) = file.split_at(HEAD_BYTES);
        (head.to_vec(), chunks.chunks(SEALED_CHUNK_BYTES).map(<[u8]>::to_vec).collect())
    }

    #[test]
    fn what_was_sealed_comes_out_as_it_went_in() {
        let seal = seal(1);
        for bytes in
            [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES, 3 * CHUNK_BYTES + 5]
        {
            let plain = plain(bytes);
            let file = sealed(&seal, &plain);
            let chunks = bytes.div_ceil(CHUNK_BYTES).max(1);
            assert_eq!(file.len(), HEAD_BYTES + bytes + chunks * MAX_TAG_LEN);
            assert_eq!(opened(&seal, FILE, &file).unwrap(), plain, "{bytes}");
            assert_ne!(sealed(&seal, &plain), file, "chance of its own each time");
        }
        let words = b"somebody bought a cup";
        assert!(!sealed(&seal, words).windows(4).any(|piece| piece == b"some"));
    }

    #[test]
    fn a_changed_bit_is_refused_wherever_it_is() {
        let seal = seal(1);
        let (small, large) = (sealed(&seal, b"a few words"), of_three_chunks(&seal));
        let ends = HEAD_BYTES + SEALED_CHUNK_BYTES;
        let places = (0..large.len()).step_by(4_099).chain([ends - 1, ends, large.len() - 1]);
        let places: Vec<_> =
            places.map(|at| (&large, at)).chain((0..small.len()).map(|at| (&small, at))).collect();
        for (file, at) in places {
            let mut flipped = file.clone();
            flipped[at] ^= 1;
            is_refused(&seal, &flipped, &format!("byte {at} of {}", file.len()));
        }
    }

    #[test]
    fn what_is_cut_off_is_missed_also_where_a_chunk_ends() {
        let seal = seal(1);
        let file = of_three_chunks(&seal);
        for at in [0, 1, HEAD_BYTES, HEAD_BYTES + 1, HEAD_BYTES + MAX_TAG_LEN, file.len() - 1] {
            is_refused(&seal, &file[..at], "cut");
        }
        for chunks in [1, 2] {
            is_refused(&seal, &file[..HEAD_BYTES + chunks * SEALED_CHUNK_BYTES], "cut between two chunks");
        }
        is_refused(&seal, &[&file[..], b"-"].concat(), "more behind it");
        // One that is full and the last opens, and not as the first of several.
        let full = sealed(&seal, &plain(CHUNK_BYTES));
        is_refused(&seal, &[&full[..], &full[HEAD_BYTES..]].concat(), "twice");
    }

    #[test]
    fn a_chunk_opens_in_its_place_alone() {
        let seal = seal(1);
        let (head, chunks) = cut(&of_three_chunks(&seal));
        let (_, others) = cut(&of_three_chunks(&seal));
        for order in [[1, 0, 2], [0, 2, 1], [0, 0, 2], [1, 1, 2]] {
            let chunks = order.map(|number| chunks[number].as_slice()).concat();
            is_refused(&seal, &[head.as_slice(), &chunks].concat(), &format!("{order:?}"));
        }
        is_refused(&seal, &[head.as_slice(), &chunks[0], &chunks[2]].concat(), "one left out");
        is_refused(&seal, &[head.as_slice(), &chunks[0], &others[1], &chunks[2]].concat(), "of another file");
    }

    #[test]
    fn a_file_opens_under_its_name_and_its_backups_key_alone() {
        let vault = Vault::new(&MasterKeys::one([1; 32]), &Clock::start()).unwrap();
        let seal = Seal::new(&vault, &Clock::start()).unwrap();
        let file = of_three_chunks(&seal);
        assert!(opened(&seal, "order_lines.rows", &file).is_err());
        // Another backup under the same key of backups, another key of backups, and another backup that claims to be this one.
        is_refused(&Seal::new(&vault, &Clock::start()).unwrap(), &file, "another backup");
        is_refused(&self::seal(2), &file, "another key");
        let of = |id, key: &WrappedKey| Seal::of(&vault, id, key.clone());
        is_refused(&of([0; ID_BYTES], seal.wrapped_key()).unwrap(), &file, "another id");
        is_refused(&of(*seal.id(), &vault.new_key().unwrap()).unwrap(), &file, "another key under this id");
        let again = of(*seal.id(), seal.wrapped_key()).unwrap();
        assert_eq!(opened(&again, FILE, &file).unwrap(), plain(2 * CHUNK_BYTES + 4_711));
        // Without the key of backups there is nothing to open it with.
        let other = Vault::new(&MasterKeys::one([2; 32]), &Clock::start()).unwrap();
        let without = Seal::of(&other, *seal.id(), seal.wrapped_key().clone());
        assert_eq!(without.map(drop), Err(Sealed::ForeignKey));
    }

    #[test]
    fn behind_what_does_not_open_nothing_is_told() {
        let seal = seal(1);
        let mut file = of_three_chunks(&seal);
        file[HEAD_BYTES + SEALED_CHUNK_BYTES] ^= 1;
        let mut opening = seal.opening(FILE, file.as_slice(), file.len() as u64).unwrap();
        let mut first = vec![0; CHUNK_BYTES];
        opening.read_exact(&mut first).unwrap();
        for _ in 0..3 {
            assert!(opening.read(&mut first).is_err());
        }
    }

    #[test]
    fn nothing_of_it_shows_in_a_log() {
        assert_eq!(format!("{:?}", seal(1)), "Seal(…)");
    }
}
