//! Passwords that are known from breaches: a file of the operator's, looked into where it lies.
//!
//! A line is the SHA-1 of a password in hexadecimal digits, a colon and how often it was seen, as Have I Been Pwned gives them out (in
//! upper case; lower is read as well), and lines are sorted by their hashes. Always true: the file is never read as a whole, for it may
//! have tens of gigabytes: a look halves what is left of it with each read of two lines' length. What cannot be read, and whatever is met
//! on the way that is no line or not in order, is an error, and never *not listed*.

use std::cmp::Ordering;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest;

const SHA1_BYTES: usize = digest::SHA1_OUTPUT_LEN;
/// Those of the largest number there is.
const COUNT_DIGITS_MAX: usize = 20;
/// No line is longer, with what it ends with: a hash, a colon, a count, `\r\n`.
const LINE_BYTES_MAX: usize = 2 * SHA1_BYTES + 1 + COUNT_DIGITS_MAX + 2;
/// Places of the file that are looked at when it is opened. A list that is sorted by something else does not pass for one.
const LOOKED_AT: u64 = 100;

const NO_LINE: &str = "expected lines of 40 hexadecimal digits, a colon and a count";
const NOT_SORTED: &str = "the lines are not sorted by their hashes";

type Sha1 = [u8; SHA1_BYTES];

/// A file of listed passwords, open for as long as somebody has a handle of it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct BreachedPasswords {
    file: Arc<File>,
    /// When it was opened.
    bytes: u64,
}

/// A line of it: where it begins, where the next one does, and which hash it has.
#[derive(Debug, Clone, Copy)]
struct Line {
    start: u64,
    next: u64,
    hash: Sha1,
}

impl BreachedPasswords {
    /// Opens a list, and looks whether its first line, its last and some between are lines in order.
    pub fn open(path: &Path) -> io::Result<BreachedPasswords> {
        // To open a pipe is to wait for whoever writes into it.
        if !std::fs::metadata(path)?.is_file() {
            return Err(io::Error::new(ErrorKind::InvalidInput, "it is no file"));
        }
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        let list = BreachedPasswords { file: Arc::new(file), bytes };
        list.look_over()?;
        Ok(list)
    }

    fn look_over(&self) -> io::Result<()> {
        let Some(last) = self.bytes.checked_sub(1) else {
            return Err(io::Error::new(ErrorKind::InvalidData, "the file is empty"));
        };
        let mut before: Option<Line> = None;
        for at in (0..LOOKED_AT).map(|part| last / LOOKED_AT * part).chain([last]) {
            let line = self.line_around(at)?;
            if before.is_some_and(|before| before.hash > line.hash) {
                return Err(malformed(line.start, NOT_SORTED));
            }
            before = Some(line);
        }
        Ok(())
    }

    /// Whether this password is listed, as it is. It waits for the disk.
    pub fn holds(&self, password: &[u8]) -> io::Result<bool> {
        self.lists(&sha1(password))
    }

    fn lists(&self, wanted: &Sha1) -> io::Result<bool> {
        // What is left to look at begins with a line and ends with one.
        let (mut low, mut high) = (0, self.bytes);
        // The hashes right before it and right behind it.
        let (mut before, mut behind) = ([0x00; SHA1_BYTES], [0xff; SHA1_BYTES]);
        while low < high {
            let line = self.line_around(low + (high - low) / 2)?;
            if line.hash < before || line.hash > behind {
                return Err(malformed(line.start, NOT_SORTED));
            }
            match line.hash.cmp(wanted) {
                Ordering::Less => (low, before) = (line.next, line.hash),
                Ordering::Greater => (high, behind) = (line.start, line.hash),
                Ordering::Equal => return Ok(true),
            }
        }
        Ok(false)
    }

    /// The line that the byte at this place belongs to.
    fn line_around(&self, at: u64) -> io::Result<Line> {
        let from = at.saturating_sub(LINE_BYTES_MAX as u64);
        let to = self.bytes.min(at + LINE_BYTES_MAX as u64);
        let mut window = [0; 2 * LINE_BYTES_MAX];
        let window = &mut window[..(to - from) as usize];
        self.file.read_exact_at(window, from)?;
        let (left, right) = window.split_at((at - from) as usize);
        let start = match left.iter().rposition(|byte| *byte == b'\n') {
            Some(end_before) => end_before + 1,
            None if from == 0 => 0,
            None => return Err(malformed(at, NO_LINE)),
        };
        let end = match right.iter().position(|byte| *byte == b'\n') {
            Some(end) => left.len() + end,
            // The last line may do without.
            None if to == self.bytes => window.len(),
            None => return Err(malformed(at, NO_LINE)),
        };
        let hash = hash_of(&window[start..end]);
        let (start, next) = (from + start as u64, self.bytes.min(from + end as u64 + 1));
        let hash = hash.ok_or_else(|| malformed(start, NO_LINE))?;
        Ok(Line { start, next, hash })
    }
}

fn sha1(password: &[u8]) -> Sha1 {
    let mut hash = [0; SHA1_BYTES];
    // Nothing is guarded by it: it is what such a list is made with.
    hash.copy_from_slice(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, password).as_ref());
    hash
}

/// Which hash a line has, if it is one.
fn hash_of(line: &[u8]) -> Option<Sha1> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let (digits, count) = line.split_at_checked(2 * SHA1_BYTES)?;
    let count = count.strip_prefix(b":")?;
    if !(1..=COUNT_DIGITS_MAX).contains(&count.len()) || !count.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let mut hash = [0; SHA1_BYTES];
    for (byte, digits) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(digits[0])? << 4 | digit(digits[1])?;
    }
    Some(hash)
}

fn digit(letter: u8) -> Option<u8> {
    match letter {
        b'0'..=b'9' => Some(letter - b'0'),
        b'A'..=b'F' => Some(letter - b'A' + 10),
        b'a'..=b'f' => Some(letter - b'a' + 10),
        _ => None,
    }
}

fn malformed(at: u64, why: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("{why}; look at byte {at}"))
}

/// A file of these bytes: whatever it is, nothing panics; and whatever reads as a list from its beginning to its end is one, and
/// answers as it was read.
#[cfg(any(test, feature = "fuzz"))]
pub fn read_list(bytes: &[u8]) {
    let path = std::env::temp_dir().join(format!("stockade-breached-{}", std::process::id()));
    let list = std::fs::write(&path, bytes).and_then(|()| BreachedPasswords::open(&path));
    let _ = std::fs::remove_file(&path);
    let lines = bytes.strip_suffix(b"\n").unwrap_or(bytes).split(|byte| *byte == b'\n');
    let read: Option<Vec<Sha1>> = lines.clone().map(hash_of).collect();
    let Some(read) = read.filter(|read| read.is_sorted()) else {
        if let Ok(list) = list {
            for wanted in lines.filter_map(hash_of).take(64) {
                let _ = list.lists(&wanted);
            }
        }
        return;
    };
    let list = list.unwrap_or_else(|error| panic!("it is a list: {error}"));
    for hash in read.iter().take(64) {
        let [mut less, mut more] = [*hash; 2];
        (less[SHA1_BYTES - 1], more[0]) = (hash[SHA1_BYTES - 1] ^ 1, hash[0].wrapping_add(1));
        for wanted in [*hash, less, more] {
            let told = list.lists(&wanted).unwrap_or_else(|error| panic!("it is a list: {error}"));
            assert_eq!(told, read.binary_search(&wanted).is_ok());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io::Write;

    use super::*;

    /// A list of such a text, in a file that has no name any more.
    fn list(text: &str) -> io::Result<BreachedPasswords> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        BreachedPasswords::open(file.path())
    }

    fn refused(text: &str) -> String {
        list(text).unwrap_err().to_string()
    }

    /// The hash that such a number would have.
    fn hash(number: u8) -> Sha1 {
        let mut hash = [0; SHA1_BYTES];
        hash[SHA1_BYTES - 1] = number;
        hash
    }

    fn line(hash: &Sha1, count: u64) -> String {
        let digits: String = hash.iter().map(|byte| format!("{byte:02X}")).collect();
        format!("{digits}:{count}")
    }

    /// Lines of all lengths.
    fn lines(hashes: impl IntoIterator<Item = Sha1>) -> Vec<String> {
        let counts = (0..).map(|number: u32| 7_u64.pow(number % 20));
        hashes.into_iter().zip(counts).map(|(hash, count)| line(&hash, count)).collect()
    }

    #[test]
    fn a_password_is_found_by_its_hash() {
        // Known answers, in pieces: they are no keys.
        let password = concat!("5BAA61E4C9B93F3F0682", "250B6CF8331B7EE68FD8");
        let one = list(&format!("{password}:10434004\n")).unwrap();
        assert!(one.holds(b"password").unwrap());
        assert!(!one.holds(b"Password").unwrap() && !one.holds(b"").unwrap());
        let lower = list(&format!("{}:1", password.to_lowercase())).unwrap();
        assert!(lower.holds(b"password").unwrap(), "lower case is read as well");
    }

    #[test]
    fn first_last_and_middle_are_found_and_what_stands_nowhere_is_not() {
        let listed = [10, 11, 20, 30, 40, 41, 200];
        for (between, end) in [("\n", "\n"), ("\n", ""), ("\r\n", "\r\n"), ("\r\n", "")] {
            for many in 1..=listed.len() {
                let listed = &listed[..many];
                let text = lines(listed.iter().map(|number| hash(*number))).join(between) + end;
                let list = list(&text).unwrap();
                for number in 0..=u8::MAX {
                    let told = list.lists(&hash(number)).unwrap();
                    assert_eq!(told, listed.contains(&number), "{number} in {text}");
                }
                assert!(!list.lists(&[0xff; SHA1_BYTES]).unwrap());
            }
        }
    }

    #[test]
    fn a_list_of_thousands_answers_as_a_set_does() {
        let named = |number: u64| sha1(&number.to_le_bytes());
        let listed: BTreeSet<Sha1> = (0..6_000).step_by(2).map(named).collect();
        for (between, end) in [("\n", "\n"), ("\r\n", "")] {
            let list = list(&(lines(listed.iter().copied()).join(between) + end)).unwrap();
            for wanted in (0..6_000).map(named) {
                assert_eq!(list.lists(&wanted).unwrap(), listed.contains(&wanted), "{wanted:x?}");
            }
        }
    }

    #[test]
    fn what_is_no_list_is_refused() {
        assert!(refused("").contains("empty"));
        let good = line(&hash(7), 1);
        for bad in [
            "\n",
            "password\n",
            &good[..40],
            &good[..41],
            &good[1..],
            &format!(" {good}"),
            &format!("{good} "),
            &format!("{good}x"),
            &good.replace(':', ";"),
            &format!("G{}", &good[1..]),
            &format!("{good}{}", "0".repeat(20)),
            &"0".repeat(1_000),
            &format!("{good}\n\n"),
            &format!("\n{good}\n"),
            &format!("\u{feff}{good}\n"),
            &format!("{good}\n{}", "0".repeat(1_000)),
        ] {
            assert!(refused(bad).contains("40 hexadecimal digits"), "{bad}");
        }
        let missing = BreachedPasswords::open(Path::new("no/such/list.txt")).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
        assert!(BreachedPasswords::open(Path::new("/")).unwrap_err().to_string().contains("no file"));
    }

    #[test]
    fn what_is_sorted_by_something_else_is_refused() {
        assert!(refused(&format!("{}\n{}\n", line(&hash(2), 1), line(&hash(1), 1))).contains("not sorted"));
        // The first and the last stand right.
        let ends = [hash(0), [0xff; SHA1_BYTES]];
        let mut shuffled: Vec<Sha1> = (0..2_000_u64).map(|number| sha1(&number.to_le_bytes())).collect();
        shuffled.insert(0, ends[0]);
        shuffled.push(ends[1]);
        assert!(refused(&lines(shuffled).join("\n")).contains("not sorted"));
    }

    /// It was a list when it was opened.
    #[test]
    fn what_is_met_on_the_way_is_an_error_and_never_a_no() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let good = lines((1..=9).map(hash));
        file.write_all(good.join("\n").as_bytes()).unwrap();
        let list = BreachedPasswords::open(file.path()).unwrap();
        let overwrite = |line: usize, text: &str| {
            let place: usize = good[..line].iter().map(|line| line.len() + 1).sum();
            file.as_file().write_all_at(text.as_bytes(), place as u64).unwrap();
        };
        let told = |number: u8| list.lists(&hash(number)).map_err(|error| error.to_string());
        // The fifth is looked at first, and then the third by whoever looks for less.
        overwrite(2, &line(&hash(200), 49));
        assert_eq!((told(5), told(9), told(99)), (Ok(true), Ok(true), Ok(false)));
        assert!(told(3).is_err_and(|why| why.contains("not sorted")));
        overwrite(4, &"x".repeat(42));
        assert!(told(99).is_err_and(|why| why.contains("40 hexadecimal digits")));
    }

    #[test]
    fn a_file_that_has_become_shorter_is_an_error() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(lines((1..=9).map(hash)).join("\n").as_bytes()).unwrap();
        let list = BreachedPasswords::open(file.path()).unwrap();
        file.as_file().set_len(50).unwrap();
        assert_eq!(list.lists(&hash(5)).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }
}
