//! The weekly rehearsal of a restore, run by the very words of its unit: it sees a backup that is whole, and fails where there is none, where
//! it is damaged and where its key is gone; and however it ends it leaves nothing behind.

use std::path::Path;
use std::process::{Command, Output};

use clap::Parser;
use stockade::cli::Cli;

use super::{made_up, said, secret_files, text, unit};

const UNIT: &str = "stockade-restore-check.service";
const KEYS: &str = "STOCKADE_BACKUP_KEYS";

/// The words of the unit that begin so, in order.
fn words(key: &str) -> Vec<String> {
    let unit = unit(UNIT);
    let said = unit["Service"].iter().filter(|(name, _)| name == key);
    said.map(|(_, words)| words.clone()).collect()
}

/// What a shell says to words of the unit, on a machine that is a folder.
fn typed(words: &str, machine: &Path, keys: &str) -> Output {
    let at = |place: &str| machine.join(place).to_str().unwrap().to_owned();
    let words = words
        .replace("/usr/local/bin/stockade", env!("CARGO_BIN_EXE_stockade"))
        .replace(" --config /etc/stockade/stockade.toml", "")
        .replace("/var/backups/stockade", &at("backups"))
        .replace("/var/cache/stockade-restore-check", &at("cache"));
    let mut command = Command::new("sh");
    command.arg("-c").arg(words).current_dir(machine);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("STOCKADE_")) {
        command.env_remove(name);
    }
    command.env("STOCKADE_DATA_DIR", at("shop")).env(KEYS, keys).output().unwrap()
}

/// The whole unit, as systemd runs it: the first that fails is the last, and what stands behind all of them is run in any case.
fn rehearsed(machine: &Path, keys: &str) -> Result<String, String> {
    let mut told = String::new();
    let mut failed = false;
    for words in ["ExecStartPre", "ExecStart"].iter().flat_map(|key| words(key)) {
        let output = typed(&words, machine, keys);
        told += &String::from_utf8_lossy(&output.stdout);
        told += &String::from_utf8_lossy(&output.stderr);
        failed = !output.status.success();
        if failed {
            break;
        }
    }
    for words in words("ExecStopPost") {
        assert!(typed(&words, machine, keys).status.success());
    }
    assert_eq!(std::fs::read_dir(machine.join("cache")).unwrap().count(), 0, "{told}");
    if failed { Err(told) } else { Ok(told) }
}

fn succeeds(words: &str, machine: &Path, keys: &str) {
    let output = typed(words, machine, keys);
    assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_backup_that_cannot_be_restored_is_heard_of_within_a_week() {
    let folder = tempfile::tempdir().unwrap();
    let (machine, keys) = (folder.path(), made_up(KEYS));
    for place in ["backups", "cache"] {
        std::fs::create_dir(machine.join(place)).unwrap();
    }
    assert!(rehearsed(machine, &keys).is_err(), "there is no backup");

    succeeds("/usr/local/bin/stockade seed --products 3 --stock 5", machine, &keys);
    let backup = |name: &str| format!("/usr/local/bin/stockade backup --to /var/backups/stockade/{name}");
    succeeds(&backup("2026-10-30T02-00-00Z"), machine, &keys);
    let told = rehearsed(machine, &keys).unwrap();
    assert!(told.contains(": everything adds up."), "{told}");
    // Another one that was not finished, and a folder of somebody's.
    for name in ["2026-10-30T03-00-00Z", "zoo"] {
        std::fs::create_dir(machine.join("backups").join(name)).unwrap();
    }
    rehearsed(machine, &keys).unwrap();
    let told = rehearsed(machine, &made_up("another")).unwrap_err();
    assert!(told.contains("sealed under the backup key"), "{told}");

    // The newest counts, however good the one before it is.
    succeeds(&backup("2026-10-30T04-00-00Z"), machine, &keys);
    let newest = machine.join("backups/2026-10-30T04-00-00Z");
    let largest = std::fs::read_dir(&newest).unwrap().map(|file| file.unwrap().path());
    let largest = largest.max_by_key(|file| file.metadata().unwrap().len()).unwrap();
    let mut bytes = std::fs::read(&largest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&largest, bytes).unwrap();
    assert!(rehearsed(machine, &keys).is_err(), "it is damaged");
}

#[test]
fn the_rehearsal_has_what_backups_have_and_touches_no_shop() {
    let unit = unit(UNIT);
    assert_eq!(secret_files(&unit), ["/etc/stockade/secrets", "/etc/stockade/backup-keys"]);
    for (key, value) in [("CacheDirectory", "stockade-restore-check"), ("CacheDirectoryMode", "0700")] {
        assert_eq!(said(&unit, key), value);
    }
    for key in ["StateDirectory", "ReadWritePaths"] {
        assert!(!unit["Service"].iter().any(|(name, _)| name == key), "{key}");
    }
    let [restore, audit]: [String; 2] = words("ExecStart").try_into().unwrap();
    let (_, restore) = restore.trim_end_matches('\'').split_once("exec ").unwrap();
    let (before, behind) = restore.split_once(" \"$(").unwrap();
    let (_, behind) = behind.split_once(")\")\" ").unwrap();
    let restore = format!("{before} DIR {behind}");
    for line in [restore, audit] {
        Cli::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert!(line.contains(" --config /etc/stockade/stockade.toml "), "{line}");
    }
    let timer = super::unit("stockade-restore-check.timer");
    assert_eq!(said(&timer, "OnCalendar"), "weekly");
    let head = text("deploy/systemd/stockade.service");
    assert!(head.contains(
        "install -m 0644 stockade-restore-check.service stockade-restore-check.timer /etc/systemd/system/\n"
    ));
}
