//! The house cleans itself: what we agreed on, as checks, each with its reason beside it.
//!
//! Nothing here looks at what the program does; that is everybody else's task. A complaint is one line, `file:line what`, and
//! the reason for the rule stands above the list. To change a rule, change it here, in a commit that says why.

#[path = "tidy/security.rs"]
mod security;
#[path = "tidy/source.rs"]
mod source;

use source::{
    Source, crate_paths, line_of, lines_with, lines_with_word, paths_under, relative, rust_files, walk,
};
use std::fs;
use std::path::Path;
use std::process::Command;

const FILE_LINES_MAX: usize = 600;

/// Who may import whom. A room that is not listed (`app`, `main`, a command) stands above all of these and may import any; none
/// of these may import it.
const ARROWS: &[(&str, &[&str])] = &[
    ("domain", &["domain"]),
    ("clock", &["clock", "domain"]),
    ("sync", &["sync"]),
    ("config", &["config", "domain"]),
    ("telemetry", &["telemetry", "config"]),
    ("logs", &["logs", "config"]),
    ("vault", &["vault", "domain", "clock", "config"]),
    ("mail", &["mail", "domain", "clock", "telemetry", "config"]),
    ("provider", &["provider", "domain", "clock", "telemetry", "config"]),
    ("webhook", &["webhook", "domain"]),
    ("peer", &["peer", "config"]),
    ("persistence", &["persistence", "domain", "clock", "telemetry", "config", "vault"]),
    (
        "actors",
        &[
            "actors",
            "persistence",
            "domain",
            "clock",
            "dpop",
            "sync",
            "telemetry",
            "logs",
            "config",
            "mail",
            "provider",
            "vault",
            "webhook",
        ],
    ),
    ("dpop", &["dpop", "domain", "vault"]),
    ("tokens", &["tokens", "domain", "config"]),
    (
        "http",
        &[
            "http",
            "actors",
            "persistence",
            "tokens",
            "dpop",
            "domain",
            "clock",
            "telemetry",
            "logs",
            "config",
            "peer",
        ],
    ),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn shop() -> Vec<Source> {
    rust_files(root(), &["src"])
}

fn everything() -> Vec<Source> {
    rust_files(root(), &["src", "bench", "schedules", "servers", "sim", "tests"])
}

type Complaints = Vec<String>;

#[track_caller]
fn tidy(reason: &str, complaints: Complaints) {
    let list = complaints.join("\n  ");
    assert!(complaints.is_empty(), "\n{reason}\n\n  {list}\n");
}

fn each(files: &[Source], rule: impl Fn(&Source) -> Complaints) -> Complaints {
    files.iter().flat_map(rule).collect()
}

// --- the rooms ----------------------------------------------------------------------------------------------------------------

#[test]
fn imports_point_one_way() {
    tidy(
        "main → app → http → actors → persistence → domain. A rule that knows its caller can be neither tested nor reused \
         without it. Move the thing down, or hand it in.",
        each(&shop(), imports),
    );
}

fn imports(file: &Source) -> Complaints {
    let room = file.room().unwrap_or_default();
    let allowed = ARROWS.iter().find(|(name, _)| *name == room).map(|(_, allowed)| *allowed);
    let modules = crate_paths(&file.live)
        .into_iter()
        .filter(|(_, path)| path.chars().next().is_some_and(char::is_lowercase));
    modules
        .filter_map(|(line, path)| {
            let first = path.split("::").next().unwrap_or_default();
            let ours =
                first == room || ARROWS.iter().any(|(n, _)| *n == first) || ["app", "main"].contains(&first);
            let legal = match allowed {
                Some(allowed) => allowed.contains(&first) || !ours && !exists(first),
                None => first != "main",
            };
            (!legal).then(|| format!("{}:{line} {room} imports {path}", file.path))
        })
        .collect()
}

/// Is this a module of the crate at all, and not a macro or a re-export at its root?
fn exists(module: &str) -> bool {
    let src = root().join("src");
    src.join(module).is_dir() || src.join(format!("{module}.rs")).is_file()
}

#[test]
fn writes_go_through_the_owner() {
    tidy(
        "A door may read from persistence directly; what changes anything goes through its owner, who decides in order of \
         arrival. The journal and the flush are the owner's.",
        each(&shop(), |file| {
            let paths = crate_paths(&file.live).into_iter().filter(|_| file.room() == Some("http"));
            paths
                .filter(|(_, path)| {
                    ["persistence::journal", "persistence::flush"].iter().any(|p| path.starts_with(p))
                })
                .map(|(line, path)| format!("{}:{line} a door reaches for {path}", file.path))
                .collect()
        }),
    );
}

#[test]
fn sql_lives_in_persistence() {
    tidy(
        "SQL is written once, and one suite runs all of it on every database we claim. It stands in src/persistence and in \
         migrations; the rivals in bench/src/rivals are other shops, and bring their own; \
         bench/src/counters.rs is a witness, and has its own eyes; sim/tests/conformance asks a \
         server what a model of it is asked.",
        each(&rust_files(root(), &["src", "servers", "sim", "bench"]), sql),
    );
}

fn sql(file: &Source) -> Complaints {
    let others = ["bench/src/rivals/", "bench/src/counters.rs", "sim/tests/conformance/"];
    let is_elsewhere = others.iter().any(|other| file.path.starts_with(other));
    if file.room() == Some("persistence") || is_elsewhere {
        return Vec::new();
    }
    let literals = file.literals.iter().filter(|literal| is_sql(&literal.text));
    literals.map(|literal| format!("{}:{} {:.60}", file.path, literal.line, literal.text.trim())).collect()
}

fn is_sql(text: &str) -> bool {
    let text = text.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ");
    let opens = |words: &str| text.starts_with(words);
    opens("select ") && (text.contains(" from ") || text.contains('('))
        || opens("update ") && text.contains(" set ")
        || opens("pragma ")
        || ["insert into ", "delete from ", "create table ", "create index ", "begin immediate"]
            .iter()
            .any(|s| text.contains(s))
}

#[test]
fn redis_lives_in_persistence() {
    tidy(
        "What stands in Redis is a copy that can be made again, and one room sees to that: its commands stand in \
         src/persistence/redis.",
        each(&shop(), |file| {
            let others = file.room() != Some("persistence");
            let named = file.live.match_indices("redis::").filter(|_| others);
            // A module of ours of the same name has a path before it.
            let theirs = named
                .filter(|(at, _)| !file.live[..*at].ends_with(|c: char| c == ':' || c.is_alphanumeric()));
            theirs.map(|(at, _)| format!("{}:{} redis", file.path, line_of(&file.live, at))).collect()
        }),
    );
}

#[test]
fn status_codes_live_in_http() {
    tidy(
        "A refusal is a variant that carries its numbers; words and status codes are made once, at the edge, in one table. \
         `StatusCode` and `HttpResponse` stand under src/http.",
        each(&shop(), |file| {
            let words = ["StatusCode", "HttpResponse", "HttpResponseBuilder"]
                .iter()
                .filter(|_| file.room() != Some("http"));
            words.flat_map(|word| complain(file, lines_with_word(&file.live, word), word)).collect()
        }),
    );
}

// --- time, chance, purity -----------------------------------------------------------------------------------------------------

#[test]
fn clock_is_the_only_door_to_time_and_chance() {
    tidy(
        "Time, ids and chance are handed in, never taken, or no seed replays. Ask src/clock.rs, and pass on what it says. \
         (bench/ measures and is free to look.)",
        each(&rust_files(root(), &["src", "sim"]), takes_time_or_chance),
    );
}

fn takes_time_or_chance(file: &Source) -> Complaints {
    if file.path == "src/clock.rs" {
        // Of the wall it asks once, when it starts: who sets the machine's clock back brings no hold to its end.
        let walls = lines_with_word(&file.live, "SystemTime::now");
        let mut found = if walls.len() == 1 { Vec::new() } else { complain(file, walls, "SystemTime::now") };
        found.extend(complain(file, lines_with_word(&file.live, "ClockId::Realtime"), "ClockId::Realtime"));
        return found;
    }
    let doors = [
        "SystemTime::now",
        "ClockId::Realtime",
        "Instant::now",
        "Timestamp::now",
        "Zoned::now",
        "Uuid::now_v7",
        "Uuid::new_v4",
        "rand::rng",
        "rand::random",
    ];
    doors.iter().flat_map(|door| complain(file, lines_with_word(&file.live, door), door)).collect()
}

#[test]
fn the_domain_is_pure() {
    tidy(
        "src/domain decides, and replay must decide the same: no waiting, no clock, no I/O, no floats, no table whose order \
         is a matter of chance.",
        each(&shop(), impurities),
    );
}

fn impurities(file: &Source) -> Complaints {
    if file.room() != Some("domain") {
        return Vec::new();
    }
    // hashbrown is welcome for looking things up, with a hasher that knows no chance; never for order.
    let chance = ["collections::HashMap", "collections::HashSet", "collections::hash_map"];
    let outside = ["fs", "io", "net", "thread", "env", "process", "time"];
    let std = paths_under(&file.live, "std").into_iter().filter(|(_, path)| {
        let first = path.split("::").next().unwrap_or_default();
        chance.iter().any(|table| path.starts_with(table)) || outside.contains(&first)
    });
    let mut found: Complaints = std.map(|(line, path)| format!("{}:{line} std::{path}", file.path)).collect();
    let words = [
        "async",
        "await",
        "f32",
        "f64",
        "RandomState",
        "tokio",
        "actix",
        "actix_web",
        "sqlx",
        "tracing",
        "metrics",
        "rand",
        "println",
    ];
    found.extend(words.iter().flat_map(|word| complain(file, lines_with_word(&file.live, word), word)));
    found
}

// --- leftovers ----------------------------------------------------------------------------------------------------------------

#[test]
fn nothing_is_left_unfinished() {
    let fixme = concat!("FIX", "ME");
    tidy(
        "Somebody meets it at three in the morning. Finish it, or leave it out and say so in ARCHITECTURE.md.",
        each(&everything(), |file| {
            let macros = ["todo!", "unimplemented!", "dbg!"].iter();
            let mut found: Complaints =
                macros.flat_map(|m| complain(file, lines_with(&file.code, m), m)).collect();
            found.extend(complain(file, lines_with(&file.raw, fixme), fixme));
            found
        }),
    );
}

#[test]
fn requests_never_unwrap() {
    tidy(
        "A panic in a door costs a connection, in an owner a whole product. Answer with an error, or make the impossible \
         unrepresentable (`let … else`, a parsed type, `unwrap_or_else` on a poisoned lock).",
        each(&shop(), unwraps),
    );
}

fn unwraps(file: &Source) -> Complaints {
    if !matches!(file.room(), Some("http" | "actors" | "persistence" | "provider" | "peer")) {
        return Vec::new();
    }
    [".unwrap()", ".expect("]
        .iter()
        .flat_map(|call| complain(file, lines_with(&file.live, call), call))
        .collect()
}

#[test]
fn nothing_is_unsafe() {
    tidy(
        "We own no code that needs it. rustix and the standard library offer what we use of the system, safely.",
        each(&everything(), |file| complain(file, lines_with_word(&file.code, "unsafe"), "unsafe")),
    );
}

// --- files --------------------------------------------------------------------------------------------------------------------

#[test]
fn every_file_opens_with_what_it_owns() {
    tidy(
        "The first lines of a file say, in prose (`//!`), what it owns and what is always true of it.",
        each(&everything(), |file| {
            let first = file.raw.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
            if first.starts_with("//!") {
                Vec::new()
            } else {
                vec![format!("{}:1 begins with `{first:.40}`", file.path)]
            }
        }),
    );
}

#[test]
fn files_stay_readable() {
    tidy(
        "Files of 60 to 300 lines read well; past 500 one thinks again, and past 600 one has two files.",
        each(&everything(), |file| {
            let lines = file.raw.lines().count();
            if lines <= FILE_LINES_MAX { Vec::new() } else { vec![format!("{}:{lines} lines", file.path)] }
        }),
    );
}

#[test]
fn no_file_knows_whose_machine_it_was_written_on() {
    let mut complaints = Vec::new();
    for path in tracked_files() {
        let Ok(text) = fs::read_to_string(root().join(&path)) else {
            continue;
        };
        complaints
            .extend(machine_paths(&text).into_iter().map(|(line, what)| format!("{path}:{line} {what}")));
    }
    tidy(
        "A path of one machine is wrong on every other. Use a relative path, an environment variable or a temporary folder.",
        complaints,
    );
}

fn machine_paths(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (folder, personal) in [("/root", false), ("/work", false), ("/home", true), ("/Users", true)] {
        for (at, _) in text.match_indices(&format!("{folder}/")) {
            let inside_a_longer_path =
                text[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || "_-.}*~>)".contains(c));
            let rest = &text[at + folder.len() + 1..];
            let name: String =
                rest.chars().take_while(|c| c.is_ascii_alphanumeric() || "_-.".contains(*c)).collect();
            let somebody = !name.is_empty() && rest[name.len()..].starts_with('/');
            if !inside_a_longer_path && (!personal || somebody) {
                found.push((line_of(text, at), format!("{folder}/{name}")));
            }
        }
    }
    found
}

/// What git knows or would add; without git (a source archive), everything but build output.
fn tracked_files() -> Vec<String> {
    let git = Command::new("git")
        .arg("-C")
        .arg(root())
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .output();
    if let Ok(out) = git.map(|o| o.stdout)
        && !out.is_empty()
    {
        return String::from_utf8_lossy(&out).lines().map(str::to_owned).collect();
    }
    let mut paths = Vec::new();
    walk(root(), &mut paths);
    paths.iter().map(|p| relative(root(), p)).collect()
}

#[test]
fn every_crate_keeps_the_same_lints() {
    let manifest = |path: &str| fs::read_to_string(root().join(path)).unwrap_or_default();
    let shared = manifest("Cargo.toml").contains("[workspace.lints");
    let members = ["Cargo.toml", "bench/Cargo.toml", "servers/Cargo.toml", "sim/Cargo.toml"]
        .into_iter()
        .filter(|_| shared);
    tidy(
        "The lints stand once, in the workspace; a crate that does not say `[lints] workspace = true` has none of them.",
        members
            .filter(|path| {
                let text: String = manifest(path).split_whitespace().collect();
                !text.is_empty()
                    && !text.contains("[lints]workspace=true")
                    && !text.contains("lints.workspace=true")
            })
            .map(|path| format!("{path}:1 does not inherit the workspace's lints"))
            .collect(),
    );
}

fn complain(file: &Source, lines: Vec<usize>, what: &str) -> Complaints {
    lines.into_iter().map(|line| format!("{}:{line} {what}", file.path)).collect()
}

// --- the rules bite -----------------------------------------------------------------------------------------------------------

/// A rule that no longer notices anything passes for ever. Each of these is a small crime, and must be seen on its line.
#[test]
fn the_rules_bite() {
    let at = |path: &str, text: &str| Source::parse(path, text);
    let seen = |found: Complaints| {
        found.iter().filter_map(|c| c.split(' ').next().map(str::to_owned)).collect::<Vec<_>>()
    };

    let upward = at(
        "src/domain/stock.rs",
        "//! x\nuse crate::{\n    domain::id,\n    http::{problem, order as o},\n};\n",
    );
    assert_eq!(seen(imports(&upward)), ["src/domain/stock.rs:2", "src/domain/stock.rs:2"]);
    let downward =
        at("src/http/order.rs", "use crate::{actors::stock::{Reserve, Answer}, domain::id::OrderId};\n");
    assert_eq!(imports(&downward), Complaints::new());
    let app = at("src/actors/mod.rs", "fn f() { crate::app::run() }\n");
    assert_eq!(imports(&app).len(), 1);

    let query = at(
        "src/http/order.rs",
        "const Q: &str = r#\"\n  select id\n  from orders\"#;\n// select a from b\nlet s = \"pick one from the list\";",
    );
    assert_eq!(seen(sql(&query)), ["src/http/order.rs:1"]);

    let clock = at("src/actors/stock.rs", "let a = '\"'; let now = Instant::now(); // SystemTime::now\n");
    assert_eq!(takes_time_or_chance(&clock).len(), 1);
    let table = at(
        "src/domain/stock/ledger.rs",
        "use hashbrown::HashMap;\nuse std::{fmt, collections::{BTreeMap, HashMap}};\n",
    );
    assert_eq!(impurities(&table), ["src/domain/stock/ledger.rs:2 std::collections::HashMap"]);
    let float = at("src/domain/amount.rs", "/* f64 /* nested */ */ fn f(x: f64) {}\n");
    assert_eq!(impurities(&float), ["src/domain/amount.rs:1 f64"]);

    let code = "fn a<'a>(x: &'a str) {\n    x.parse::<u8>().unwrap();\n}\n#[cfg(test)]\nmod tests {\n    fn b() { c().unwrap(); \"select 1 from x\"; }\n}\n";
    let unwrap = at("src/http/order.rs", code);
    assert_eq!(seen(unwraps(&unwrap)), ["src/http/order.rs:2"]);
    assert_eq!(sql(&unwrap), Complaints::new());

    let path = format!("a {}/somebody/x and https://host{}/somebody", "/home", "/home");
    assert_eq!(machine_paths(&path).len(), 1);
}
