//! What stands in the log of no server, whatever a test does to it: tokens, known by their shape, and the people of the tests.

/// Letters of the secret part of whatever token we make: 256 bits in base64.
const SECRET_CHARS: usize = 43;
/// What stands before them in a token that was mailed.
const MAILED: [&str; 3] = ["verify_", "reset_", "change_email_"];
/// A session's id, which a log may tell, and with which its refresh tokens begin.
const SESSION: &str = "sess_";
const SESSION_CHARS: usize = 26;
/// A piece of whatever the people of the tests say about themselves; a number as it is said, and as it is kept.
const PEOPLE: [&str; 7] = [
    "@example.",
    "@elsewhere.example",
    "010-2345-",
    "+82102345",
    "Mina Park",
    "four foxes fly far",
    "Teheran-ro",
];

/// The tokens in a log, and its lines that name somebody.
pub fn leaks(log: &str) -> Vec<&str> {
    let lines = log.lines().filter(|line| PEOPLE.iter().any(|piece| line.contains(piece)));
    let words = log.split(|letter: char| !(letter.is_ascii_alphanumeric() || "_-.".contains(letter)));
    lines.chain(words.filter(|word| is_signed(word) || is_secret(word))).collect()
}

/// Three parts with points between, of which the first is an object: a JWT, or a proof.
fn is_signed(word: &str) -> bool {
    let Some(rest) = behind(word, "eyJ") else { return false };
    let mut parts = rest.split('.').map(run);
    (0..3).all(|_| parts.next().is_some_and(|length| length >= 8))
}

fn is_secret(word: &str) -> bool {
    let refreshes = behind(word, SESSION).and_then(|rest| rest.get(SESSION_CHARS..));
    let refreshes = refreshes.and_then(|rest| rest.strip_prefix('_'));
    let mailed = MAILED.iter().filter_map(|kind| behind(word, kind));
    mailed.chain(refreshes).any(|secret| run(secret) >= SECRET_CHARS)
}

fn behind<'w>(word: &'w str, kind: &str) -> Option<&'w str> {
    word.split_once(kind).map(|(_, rest)| rest)
}

/// How many letters of base64 it begins with.
fn run(text: &str) -> usize {
    text.bytes().take_while(|letter| letter.is_ascii_alphanumeric() || matches!(letter, b'_' | b'-')).count()
}
