//! `docs/api.md` is true: its commands, typed as they stand behind those of the README at a shop that has just been opened, are
//! answered as the guide says. The day of ten seconds is lived at a shop of its own, beside that.
//!
//! Left out is the part that needs a listener of one's own.

mod support;

use std::path::Path;
use std::process::{Command, Stdio};

use support::{Process, SECRET};

const GUIDE: &str = include_str!("../docs/api.md");
const README: &str = include_str!("../README.md");
/// What is answered in each part, in the order of its commands.
const ANSWERS: [(&str, &str); 5] = [
    ("A person's journey", "202 204 201 201 200 204 401 401"),
    ("Paying", "201 402 200 202 202 202 202 200 200 200"),
    ("Delivery", "200 409"),
    ("Looking around", "200 304 200 200 200 200"),
    ("Wishes and carts", "204 200 200 200 200 200 402 200 201 200"),
];
const COMPRESSED: &str = "A whole order, on a day of ten seconds";
const OTHER_SETTINGS: [&str; 2] = [COMPRESSED, "Other systems"];
/// What is seen of the whole order, look by look: its status and those of its lines, its total, and how many cups are available.
const LOOKS: [(&str, u64, u64); 6] = [
    ("paid 1 ordered preparing 2 ordered preparing", 161_000, 38),
    ("paid 1 ordered preparing 2 cancelled", 96_000, 38),
    ("paid 1 ordered shipping 2 cancelled", 96_000, 38),
    ("paid 1 ordered delivered 2 cancelled", 96_000, 38),
    ("paid 1 return_requested delivered 2 cancelled", 96_000, 38),
    ("closed 1 returned delivered 2 cancelled", 0, 40),
];

/// The commands by the part of the guide that they stand in.
fn parts(text: &str) -> Vec<(String, Vec<String>)> {
    let mut parts: Vec<(String, Vec<String>)> = vec![(String::new(), Vec::new())];
    let mut is_command = false;
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            parts.push((title.to_owned(), Vec::new()));
        } else if line.starts_with("```") {
            is_command = line == "```sh";
        } else if is_command {
            parts.last_mut().unwrap().1.push(line.to_owned());
        }
    }
    parts
}

/// What comes of it when it is typed at this shop, and what is complained of.
async fn typed(shop: &Process, folder: &Path, script: &str) -> (String, String) {
    let script = script
        .replace("127.0.0.1:8080", &shop.addr())
        .replace("cargo run --release -q --", env!("CARGO_BIN_EXE_stockade"));
    let mut command = Command::new("bash");
    command.arg("-c").arg(script).current_dir(folder).stdin(Stdio::null());
    command
        .env("STOCKADE_JWT_SECRET", SECRET)
        .env("STOCKADE_DATA_DIR", "data")
        .env_remove("CARGO_TARGET_DIR");
    let said = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&said.stdout), text(&said.stderr))
}

#[tokio::test]
async fn every_command_of_the_guide_is_answered_as_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let shop = Process::start(folder.path(), &[]).await;
    let mut script = "curl() { command curl -w '\\n%{http_code}\\n' \"$@\"; }\n".to_owned();
    // Whoever reads the guide has typed what stands in the README before.
    let requests = parts(README).into_iter().find(|(title, _)| title == "Four requests").unwrap();
    script += &(requests.1.join("\n") + "\n");
    let parts = parts(GUIDE);
    for (title, commands) in &parts {
        if OTHER_SETTINGS.contains(&title.as_str()) {
            continue;
        }
        script += &format!("echo '## {}'\n", title.replace('\'', ""));
        for command in commands {
            if command.starts_with("export LINK=") {
                // It comes when it has been written.
                script += "until ls data/mail/*.eml > letters 2>&1; do sleep 0.02; done\n";
            }
            script += &format!("{command}\n");
        }
    }
    let (transcript, complaints) = typed(&shop, folder.path(), &script).await;
    // Of the README's, the last shows what the second did: one unit was promised by then.
    let before = transcript.split("## ").next().unwrap();
    assert!(before.lines().any(|line| line == "stockade_units_held_total 1"), "{transcript}\n{complaints}");
    let is_status = |line: &&str| line.len() == 3 && line.bytes().all(|letter| letter.is_ascii_digit());
    let found: Vec<(&str, String)> = transcript
        .split("## ")
        .skip(1)
        .map(|part| {
            (part.lines().next().unwrap(), part.lines().filter(is_status).collect::<Vec<_>>().join(" "))
        })
        .filter(|(_, statuses)| !statuses.is_empty())
        .collect();
    let expected = ANSWERS.map(|(title, statuses)| (title.replace('\'', ""), statuses.to_owned()));
    let found: Vec<_> = found.into_iter().map(|(title, statuses)| (title.to_owned(), statuses)).collect();
    assert_eq!(found, expected, "{transcript}\n{complaints}");
    for words in [
        "\"status\":\"paid\"",
        "payment_declined",
        "\"status\":\"cancelled\"",
        "not_returnable",
        "\nSubject: ",
        "\nMessage-ID: ",
    ] {
        assert!(transcript.contains(words), "{words} is missing in:\n{transcript}");
    }
    let titles: Vec<&str> = parts.iter().map(|(title, _)| title.as_str()).collect();
    assert!(OTHER_SETTINGS.iter().all(|title| titles.contains(title)), "{titles:?}");
    shop.stop().await;
}

#[tokio::test]
async fn a_whole_order_is_seen_as_the_guide_says_on_a_day_of_ten_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let shop = Process::start(folder.path(), &[("STOCKADE_CALENDAR_DAY", "10s")]).await;
    let mut script = String::new();
    for (title, commands) in parts(GUIDE) {
        let own = title == COMPRESSED;
        // Of the other parts, only what this one speaks of.
        let needed = |command: &&String| {
            own || title.is_empty()
                || command.starts_with("export CUP=")
                || command.starts_with("export AUTH=")
        };
        for command in commands.iter().filter(needed) {
            // Whatever it says ends with its line.
            script += &format!("{command}\necho\n");
        }
    }
    let (transcript, complaints) = typed(&shop, folder.path(), &script).await;
    let mut looks = Vec::new();
    for look in transcript.lines().filter(|line| line.starts_with("\"status\":")) {
        let (lines, rest) = look.split_once("\"total\":").unwrap();
        let words = lines.split_whitespace().map(|word| word.split_once(':').unwrap().1.trim_matches('"'));
        looks.push((words.collect::<Vec<_>>().join(" "), number(rest, "amount"), number(rest, "available")));
    }
    let expected = LOOKS.map(|(words, total, cups)| (words.to_owned(), Some(total), Some(cups)));
    assert_eq!(looks, expected, "{transcript}\n{complaints}");
    let refunds = transcript.lines().find(|line| line.contains("\"cause\":\"line_returned\"")).unwrap();
    assert!(refunds.contains("\"cause\":\"line_cancelled\""), "{refunds}");
    assert_eq!(refunds.matches("\"state\":\"done\"").count(), 2, "{refunds}");
    let jobs = transcript.lines().find(|line| line.contains("\"name\":\"deliveries\"")).unwrap();
    assert!(jobs.contains("\"moved\":1"), "{jobs}");
    shop.stop().await;
}

/// The first number that is called so.
fn number(text: &str, name: &str) -> Option<u64> {
    let (_, behind) = text.split_once(&format!("\"{name}\":"))?;
    behind.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}
