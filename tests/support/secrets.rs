//! What somebody said and what they held, looked for wherever it should not stand: as it is, and in whatever disguise.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::{Pair, Person};

/// What must not be found, by what it is.
#[derive(Default)]
pub struct Secrets(Vec<(String, String)>);

impl Secrets {
    pub fn keep(&mut self, what: &str, word: &str) {
        self.0.push((what.to_owned(), word.to_owned()));
    }

    pub fn keep_person(&mut self, person: &Person) {
        let Person { email, password, name, phone, street } = person;
        self.keep_email(email);
        self.keep_phone(phone);
        self.keep("password", password);
        self.keep("name", name);
        self.keep("address line", street);
    }

    pub fn keep_email(&mut self, email: &str) {
        self.keep("e-mail", email);
        self.keep("first part of an e-mail", email.split('@').next().unwrap());
    }

    /// As it was written, and as it is kept (E.164).
    pub fn keep_phone(&mut self, phone: &str) {
        let digits = phone.replace('-', "");
        self.keep("phone", phone);
        self.keep("phone", &digits);
        self.keep("phone", digits.strip_prefix('0').unwrap());
    }

    /// What a session's id may be known by stands beside the secret in a token; the secret may not.
    pub fn keep_pair(&mut self, pair: &Pair) {
        let mut access = pair.access.split('.').skip(1);
        self.keep("claims of an access token", access.next().unwrap());
        self.keep("signature of an access token", access.next().unwrap());
        let (word, mark) = pair.refresh.rsplit_once('.').unwrap();
        self.keep("refresh token", &word["sess_".len() + 26 + 1..]);
        self.keep("mark of a refresh token", mark);
    }

    pub fn keep_link(&mut self, token: &str) {
        self.keep("mailed token", token);
        self.keep("secret of a mailed token", &token[token.len() - 43..]);
    }

    pub fn search(&self) -> Search {
        let mut needles: HashMap<[u8; 4], Vec<Needle>> = HashMap::new();
        for (what, word) in &self.0 {
            assert!(word.chars().count() >= 4, "{what} {word:?} is too short to be looked for");
            let mut seen = BTreeSet::new();
            for (how, bytes) in disguises(word) {
                let bytes = bytes.to_ascii_lowercase();
                if !seen.insert(bytes.clone()) {
                    continue;
                }
                let first = bytes[..4].try_into().unwrap();
                needles
                    .entry(first)
                    .or_default()
                    .push(Needle { what: format!("{what} {word:?}{how}"), bytes });
            }
        }
        Search { needles }
    }
}

/// What a careless line of code makes of a word.
fn disguises(word: &str) -> Vec<(&'static str, Vec<u8>)> {
    let bytes = word.as_bytes();
    let joined = |each: fn(u8) -> String, between: &str| {
        bytes.iter().map(|byte| each(*byte)).collect::<Vec<_>>().join(between).into_bytes()
    };
    let escaped = word.encode_utf16().fold(String::new(), |mut text, unit| {
        match u8::try_from(unit) {
            Ok(ascii) if ascii.is_ascii() => text.push(char::from(ascii)),
            _ => write!(text, "\\u{unit:04x}").unwrap(),
        }
        text
    });
    let mut all = vec![
        ("", bytes.to_vec()),
        (" with escapes", escaped.into_bytes()),
        (" percent-encoded", percent_encoded(bytes)),
        (" in hexadecimal", joined(|byte| format!("{byte:02x}"), "")),
        (" as a list of numbers", joined(|byte| byte.to_string(), ", ")),
        (" in UTF-16", word.encode_utf16().flat_map(u16::to_le_bytes).collect()),
    ];
    // In base64 a word has three faces, by where it begins; their edges depend on what stands beside it.
    for before in 0..3 {
        let shifted = [&b"???"[..before], bytes].concat();
        let text = BASE64_STANDARD.encode(&shifted);
        let whole = &text[(before * 8).div_ceil(6)..shifted.len() / 3 * 4];
        if whole.len() >= 8 {
            all.push((" in base64", whole.as_bytes().to_vec()));
        }
    }
    all
}

fn percent_encoded(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().fold(Vec::new(), |mut text, byte| {
        match byte {
            b'-' | b'_' | b'.' => text.push(*byte),
            _ if byte.is_ascii_alphanumeric() => text.push(*byte),
            _ => text.extend_from_slice(format!("%{byte:02x}").as_bytes()),
        }
        text
    })
}

struct Needle {
    what: String,
    bytes: Vec<u8>,
}

/// Finds all secrets in one walk over the bytes, in whatever case.
pub struct Search {
    needles: HashMap<[u8; 4], Vec<Needle>>,
}

impl Search {
    pub fn of(&self, bytes: &[u8]) -> BTreeSet<&str> {
        let bytes = bytes.to_ascii_lowercase();
        let mut found = BTreeSet::new();
        for at in 0..bytes.len().saturating_sub(3) {
            let here = &bytes[at..];
            let Some(needles) = self.needles.get(&here[..4]) else { continue };
            let there = needles.iter().filter(|needle| here.starts_with(&needle.bytes));
            found.extend(there.map(|needle| needle.what.as_str()));
        }
        found
    }

    /// Complaints about a file or everything below a folder, but for the mails.
    pub fn under(&self, path: &Path) -> Vec<String> {
        let mut found = Vec::new();
        for file in files_under(path) {
            let bytes = std::fs::read(&file).unwrap();
            found.extend(self.of(&bytes).iter().map(|what| format!("{}: {what}", file.display())));
        }
        found
    }
}

fn files_under(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| !path.ends_with("mail")).flat_map(|path| files_under(&path)).collect()
}
