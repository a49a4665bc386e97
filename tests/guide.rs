//! `docs/api.md` is true: its commands, typed as they stand behind those of the README at a shop that has just been opened, are
//! answered as the guide says.
//!
//! Left out are the pauses in which a person reads, and the parts that need another setting.

mod support;

use std::process::{Command, Stdio};

use support::{Process, SECRET};

const GUIDE: &str = include_str!("../docs/api.md");
const README: &str = include_str!("../README.md");
/// What is answered in each part, in the order of its commands.
const ANSWERS: [(&str, &str); 5] = [
    ("A person's journey", "202 204 201 201 200 204 401 401"),
    ("Paying", "201 402 200 202 202 200 200 200"),
    ("Delivery", "200 409"),
    ("Looking around", "200 304 200 200 200 200"),
    ("Wishes and carts", "204 200 200 200 200 200 402 200 201 200"),
];
const OTHER_SETTINGS: [&str; 2] = ["A whole order, on a day of ten seconds", "Other systems"];

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

#[tokio::test]
async fn every_command_of_the_guide_is_answered_as_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let shop = Process::start(folder.path(), &[]).await;
    let mut script = "curl() { command curl -w '\\n%{http_code}\\n' \"$@\"; }\n".to_owned();
    // Whoever reads the guide has typed what stands in the README before.
    let requests = parts(README).into_iter().find(|(title, _)| title == "Three requests").unwrap();
    script += &(requests.1.join("\n") + "\n");
    let parts = parts(GUIDE);
    for (title, commands) in &parts {
        if OTHER_SETTINGS.contains(&title.as_str()) {
            continue;
        }
        script += &format!("echo '## {}'\n", title.replace('\'', ""));
        for command in commands.iter().filter(|command| !command.starts_with("sleep ")) {
            if command.starts_with("export LINK=") {
                // It comes when it has been written.
                script += "until ls data/mail/*.eml > letters 2>&1; do sleep 0.02; done\n";
            }
            script += &format!("{command}\n");
        }
    }
    let script = script
        .replace("127.0.0.1:8080", &shop.addr())
        .replace("cargo run --release -q --", env!("CARGO_BIN_EXE_stockade"));
    let mut command = Command::new("bash");
    command.arg("-c").arg(script).current_dir(folder.path()).stdin(Stdio::null());
    command
        .env("STOCKADE_JWT_SECRET", SECRET)
        .env("STOCKADE_DATA_DIR", "data")
        .env_remove("CARGO_TARGET_DIR");
    let said = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let transcript = String::from_utf8_lossy(&said.stdout).into_owned();
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
    assert_eq!(found, expected, "{transcript}\n{}", String::from_utf8_lossy(&said.stderr));
    for words in ["\"status\":\"paid\"", "payment_declined", "\"status\":\"cancelled\"", "not_returnable"] {
        assert!(transcript.contains(words), "{words} is missing in:\n{transcript}");
    }
    let titles: Vec<&str> = parts.iter().map(|(title, _)| title.as_str()).collect();
    assert!(OTHER_SETTINGS.iter().all(|title| titles.contains(title)), "{titles:?}");
    shop.stop().await;
}
