//! What must never stand in a source file for the sake of those who trust us; and that each promise of `docs/security.md` names a
//! test that exists.

use std::collections::BTreeSet;
use std::fs;

use super::source::{Source, line_of, lines_with, lines_with_word};
use super::{Complaints, complain, each, is_sql, root, shop, tidy, tracked_files};

#[test]
fn sql_is_never_put_together() {
    tidy(
        "Statements are literals and values are bound. sqlx takes `&'static str` and nothing else, so what is left to forbid is \
         whatever makes one at run time. src/persistence/sql/script.rs alone makes one, of literals, numbers and hexadecimal digits.",
        each(&shop(), put_together),
    );
}

fn put_together(file: &Source) -> Complaints {
    let words: &[&str] = match file.path.as_str() {
        "src/persistence/sql/script.rs" => &["QueryBuilder", "SqlStr"],
        _ => &["AssertSqlSafe", "QueryBuilder", "raw_sql", "SqlStr"],
    };
    let mut found: Complaints =
        words.iter().flat_map(|word| complain(file, lines_with_word(&file.live, word), word)).collect();
    let leaks = [".leak()", "Box::leak", "String::leak"];
    found.extend(leaks.iter().flat_map(|leak| complain(file, lines_with(&file.live, leak), leak)));
    let filled = file.literals.iter().filter(|literal| literal.text.contains('{') && is_sql(&literal.text));
    found.extend(filled.map(|literal| format!("{}:{} {:.60}", file.path, literal.line, literal.text.trim())));
    found
}

#[test]
fn ids_are_parsed_before_they_are_used() {
    tidy(
        "An id is a type of its own from the door on (`Id<OrderId>`, `Named<ProductId>`): a word that is none is 404, and nobody \
         behind the door is handed one.",
        each(&shop(), bare_ids),
    );
}

/// Names that an id goes by.
const IDS: [&str; 9] = ["id", "user", "order", "product", "session", "buyer", "owner", "caller", "subject"];

fn bare_ids(file: &Source) -> Complaints {
    let mut found = Complaints::new();
    if file.room() == Some("http") {
        for (door, home) in [("Path", "src/http/docs.rs"), ("match_info", "src/http/query.rs")] {
            let lines = if file.path == home { Vec::new() } else { lines_with_word(&file.live, door) };
            let extracts = |line: &usize| {
                let line = file.live.lines().nth(line - 1).unwrap_or_default();
                door != "Path" || line.contains("web::Path")
            };
            found.extend(complain(file, lines.into_iter().filter(extracts).collect(), door));
        }
    }
    if !matches!(file.room(), Some("http" | "actors" | "persistence")) {
        return found;
    }
    for (at, _) in file.live.match_indices("fn ") {
        let Some(signature) = parameters(&file.live[at..]) else { continue };
        for parameter in signature.split(',') {
            let Some((name, kind)) = parameter.split_once(':') else { continue };
            let texts =
                ["&str", "&String", "String", "Option<&str>", "Option<String>", "&[String]", "Vec<String>"];
            let is_text = texts.iter().any(|text| kind.trim().starts_with(text));
            if is_text && IDS.contains(&name.trim().trim_start_matches("mut ")) {
                found.push(format!("{}:{} {}", file.path, line_of(&file.live, at), parameter.trim()));
            }
        }
    }
    found
}

/// What stands between the parentheses of a function that begins here.
fn parameters(function: &str) -> Option<&str> {
    let opens = function.find('(')?;
    let mut depth = 0;
    let closes = function[opens..].find(|c: char| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        depth == 0
    })?;
    Some(&function[opens + 1..opens + closes])
}

/// The SHA-256 of `abc`, in pieces: a known answer, not a key.
const KNOWN_ANSWER: &str =
    concat!("ba7816bf8f01cfea", "414140de5dae2223", "b00361a396177a9c", "b410ff61f20015ad");

#[test]
fn no_key_lies_in_the_repository() {
    let mut complaints = Complaints::new();
    // A lock file is made of hashes.
    for path in tracked_files().into_iter().filter(|path| !path.ends_with(".lock")) {
        let Ok(text) = fs::read_to_string(root().join(&path)) else { continue };
        complaints.extend(keys(&text).into_iter().map(|(line, what)| format!("{path}:{line} {what}")));
    }
    tidy(
        "Whoever can read this can use it. Make one up where it is needed, and take one that counts from the environment.",
        complaints,
    );
}

fn keys(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        for word in line.split(|c: char| !c.is_ascii_alphanumeric() && !"_-.+/".contains(c)) {
            let hexadecimal = word.split(|c: char| !c.is_ascii_hexdigit());
            let mut runs = hexadecimal.filter(|run| run.len() >= 32 && is_chance(run));
            let key = runs.find(|run| *run != KNOWN_ANSWER).map(str::to_owned);
            let is_token = word.starts_with("eyJ") && word.matches('.').count() == 2;
            let is_theirs = ["AKIA", "ghp_", "github_pat_", "xoxb-", "sk_live_"].iter().any(|start| {
                word.strip_prefix(start).is_some_and(|rest| rest.len() >= 16 && !rest.contains('/'))
            });
            if let Some(what) = key.or_else(|| (is_token || is_theirs).then(|| word.to_owned())) {
                found.push((number, what));
            }
        }
        let begins = "-----BEGIN ";
        let key = "PRIVATE KEY-----";
        if line.split_once(begins).is_some_and(|(_, rest)| rest.contains(key)) {
            found.push((number, "a private key".to_owned()));
        }
    }
    found
}

/// Neither a handful of digits nor counted up.
fn is_chance(run: &str) -> bool {
    let different = |bytes: &mut dyn Iterator<Item = u8>| bytes.collect::<BTreeSet<_>>().len();
    let mut steps = run.as_bytes().windows(2).map(|pair| pair[1].wrapping_sub(pair[0]));
    different(&mut run.bytes()) >= 8 && different(&mut steps) >= 8
}

#[test]
fn each_promise_names_a_test_that_exists() {
    let text = fs::read_to_string(root().join("docs/security.md")).unwrap_or_default();
    let rows: Vec<_> = (1..).zip(text.lines()).filter(|(_, line)| line.starts_with("| ")).collect();
    let mut complaints = Complaints::new();
    for (number, row) in rows.iter().filter(|(_, row)| !row.starts_with("| promise")) {
        let tests: Vec<_> = row.split('`').skip(1).step_by(2).filter(|word| word.contains("::")).collect();
        if tests.is_empty() {
            complaints.push(format!("docs/security.md:{number} names no test"));
        }
        for test in tests.into_iter().filter(|test| !exists(test)) {
            complaints.push(format!("docs/security.md:{number} there is no test {test}"));
        }
    }
    if rows.len() < 30 {
        complaints.push("docs/security.md:1 has lost its rows".to_owned());
    }
    tidy(
        "What is promised is shown by a test, and found by its name: `file::name`, in tests/ or beside the code.",
        complaints,
    );
}

/// `sessions::a_name` stands in `tests/sessions.rs`, `http/abuse::a_name` in `src/http/abuse.rs`.
fn exists(test: &str) -> bool {
    let Some((file, name)) = test.split_once("::") else { return false };
    let places = [format!("tests/{file}.rs"), format!("src/{file}.rs"), format!("src/{file}/mod.rs")];
    places.iter().any(|place| {
        fs::read_to_string(root().join(place)).is_ok_and(|text| text.contains(&format!("fn {name}(")))
    })
}

#[test]
fn the_rules_of_security_bite() {
    let at = |path: &str, text: &str| Source::parse(path, text);
    let filled = at(
        "src/persistence/x.rs",
        "let q = format!(\"select a from {table}\");\nlet s: &'static str = q.leak();\n",
    );
    assert_eq!(put_together(&filled).len(), 2);
    let bound = at(
        "src/persistence/x.rs",
        "const Q: &str = \"select a from b where c = ?\";\nlet t = format!(\"{a}\");",
    );
    assert_eq!(put_together(&bound), Complaints::new());

    let bare = at(
        "src/persistence/x.rs",
        "pub async fn find(&self, id: &str) {}\nfn g(name: &str, user: Option<String>) {}\n",
    );
    assert_eq!(bare_ids(&bare).len(), 2);
    let split = at(
        "src/actors/x.rs",
        "fn f(\n    a: (u8, u8),\n    order: &str,\n) {}\nstruct S { order: String }\n",
    );
    assert_eq!(bare_ids(&split), ["src/actors/x.rs:1 order: &str"]);
    let path = at("src/http/x.rs", "async fn find(id: web::Path<String>) {}\nfn f(p: &Path) {}\n");
    assert_eq!(bare_ids(&path).len(), 1);
    let typed = at("src/http/x.rs", "async fn find(Id(order): Id<OrderId>, name: &str, order: OrderId) {}\n");
    assert_eq!(bare_ids(&typed), Complaints::new());

    let key: String =
        (0..16).flat_map(|digit| [digit, (digit * 7) % 16]).map(|digit| format!("{digit:x}")).collect();
    for secret in [&key, &format!("eyJ{}.{key}.x", "hbGciOi"), &format!("AKIA{}", "ABCDEFGHIJKLMNOP")] {
        assert_eq!(keys(&format!("a = \"{secret}\"")).len(), 1, "{secret}");
    }
    assert_eq!(keys(&format!("{} {KNOWN_ANSWER}", "0".repeat(64))), []);
    assert!(exists("tidy/security::the_rules_of_security_bite") && !exists("tidy::no_such_test"));
}
