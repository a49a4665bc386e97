//! What the shop is made of: the bill of materials names it, and a hole that is known in a part of it is found without a network.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn run(script: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new("python3");
    command.arg(root().join("scripts").join(script)).args(arguments).env("CARGO_NET_OFFLINE", "true");
    command.output().expect("python3, as scripts/verify installs it")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Name and version of each package of the lock file, with its checksum.
fn locked() -> BTreeMap<(String, String), Option<String>> {
    let text = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let value = |block: &str, key: &str| {
        let start = format!("{key} = \"");
        let line = block.lines().find_map(|line| line.strip_prefix(&start))?;
        line.strip_suffix('"').map(str::to_owned)
    };
    let named = |block: &str| {
        let (name, version) = (value(block, "name")?, value(block, "version")?);
        Some(((name, version), value(block, "checksum")))
    };
    text.split("[[package]]").filter_map(named).collect()
}

#[test]
fn the_bill_of_materials_names_every_part_of_a_release_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("stockade.cdx.json");
    let made = run("sbom", &[file.to_str().unwrap()]);
    assert!(made.status.success(), "{}", said(&made));
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(text.as_bytes(), run("sbom", &[]).stdout, "the same lock file gives the same document");
    let bom: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&bom["bomFormat"], &bom["specVersion"]), (&"CycloneDX".into(), &"1.6".into()));
    let number = bom["serialNumber"].as_str().and_then(|number| number.strip_prefix("urn:uuid:"));
    assert!(number.is_some_and(|number| number.parse::<uuid::Uuid>().is_ok()), "{number:?}");
    let shop = &bom["metadata"]["component"];
    assert_eq!((&shop["name"], &shop["type"]), (&"stockade".into(), &"application".into()));

    let (locked, word) = (locked(), |value: &Value| value.as_str().unwrap().to_owned());
    let mut refs = BTreeSet::from([word(&shop["bom-ref"])]);
    let mut names = BTreeSet::new();
    for part in bom["components"].as_array().unwrap() {
        let (name, version) = (word(&part["name"]), word(&part["version"]));
        assert_eq!(part["purl"], format!("pkg:cargo/{name}@{version}"));
        assert!(part["licenses"][0]["expression"].is_string(), "{name} has a licence");
        let sum = locked.get(&(name.clone(), version)).unwrap_or_else(|| panic!("{name} is not locked"));
        assert_eq!(part["hashes"][0]["content"].as_str(), sum.as_deref(), "{name}");
        assert!(refs.insert(word(&part["bom-ref"])), "{name} stands twice");
        names.insert(name);
    }
    for part in ["actix-web", "rustls", "aws-lc-sys", "sqlx", "cc"] {
        assert!(names.contains(part), "{part}");
    }
    for others in ["proptest", "insta", "rstest", "stockade-servers", "stockade-bench", "windows-sys"] {
        assert!(!names.contains(others), "{others}");
    }

    // Whoever needs whom: all of them are there, and from the shop one comes to each.
    let mut needs = BTreeMap::new();
    for one in bom["dependencies"].as_array().unwrap() {
        let others: Vec<String> = one["dependsOn"].as_array().unwrap().iter().map(word).collect();
        assert!(others.iter().all(|other| refs.contains(other)), "{one}");
        needs.insert(word(&one["ref"]), others);
    }
    let (mut seen, mut waiting) = (BTreeSet::new(), vec![word(&shop["bom-ref"])]);
    while let Some(part) = waiting.pop() {
        if seen.insert(part.clone()) {
            waiting.extend(needs[&part].iter().cloned());
        }
    }
    assert_eq!(seen, refs);
}

/// A database of one advisory about `tokio`, and what is said of a lock file with that version.
fn told(locked: &str, front: &str, versions: &str) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    let crates = folder.path().join("crates/tokio");
    fs::create_dir_all(&crates).unwrap();
    let advisory = format!(
        "```toml\n[advisory]\nid = \"RUSTSEC-2000-0001\"\npackage = \"tokio\"\ndate = \"2000-01-01\"\n{front}\n\n[versions]\n\
         {versions}\n```\n\n# A hole\n\nWords.\n"
    );
    fs::write(crates.join("RUSTSEC-2000-0001.md"), advisory).unwrap();
    let lock = folder.path().join("Cargo.lock");
    let source = "registry+https://github.com/rust-lang/crates.io-index";
    let package = format!(
        "version = 4\n\n[[package]]\nname = \"tokio\"\nversion = \"{locked}\"\nsource = \"{source}\"\n"
    );
    fs::write(&lock, package).unwrap();
    let told = run("advisories", &[folder.path().to_str().unwrap(), lock.to_str().unwrap()]);
    (told.status.success(), said(&told))
}

#[test]
fn a_known_hole_is_found_without_a_network_and_a_mended_one_is_not() {
    for (locked, versions, is_safe) in [
        ("1.54.0", "patched = [\">= 1.55.0\"]", false),
        ("1.55.0", "patched = [\">= 1.55.0\"]", true),
        ("1.56.1", "patched = [\">= 1.55.0\"]", true),
        ("1.55.0-rc.1", "patched = [\">= 1.55.0\"]", false),
        ("1.54.0", "patched = []", false),
        ("1.54.0", "patched = []\nunaffected = [\"< 1.54.0\"]", false),
        ("1.53.9", "patched = []\nunaffected = [\"< 1.54.0\"]", true),
        ("1.54.3", "patched = [\"^1.54.3\", \">= 2.0.0\"]", true),
        ("2.0.0", "patched = [\"^1.54.3\"]", false),
        ("1.54.4", "patched = [\"~1.54.3\"]", true),
        ("1.55.0", "patched = [\"~1.54.3\"]", false),
        ("0.3.9", "patched = [\"^0.3.8\"]", true),
        ("0.4.0", "patched = [\"^0.3.8\"]", false),
        ("1.10.0", "patched = [\">= 1.9.0, < 1.11.0\"]", true),
        ("1.11.0", "patched = [\">= 1.9.0, < 1.11.0\"]", false),
        ("1.2.3", "patched = [\"= 1.2.3\"]", true),
        ("1.2.4", "patched = [\"= 1.2.3\"]", false),
        ("1.2.4", "patched = [\"> 1.2.3\"]", true),
        ("1.2.3", "patched = [\"> 1.2.3\"]", false),
    ] {
        let (safe, words) = told(locked, "", versions);
        assert_eq!(safe, is_safe, "{locked} {versions}: {words}");
        assert_eq!(words.contains("hole: tokio"), !is_safe, "{words}");
        assert!(words.contains("1 crates, 1 advisories"), "{words}");
    }
    let (safe, words) = told("1.54.0", "informational = \"unmaintained\"", "patched = []");
    assert!(safe && words.contains("unmaintained: tokio 1.54.0: RUSTSEC-2000-0001: A hole"), "{words}");
    assert!(!told("1.54.0", "informational = \"unsound\"", "patched = []").0);
    assert!(told("1.54.0", "withdrawn = \"2000-02-02\"", "patched = []").0);
    let nowhere = run("advisories", &["/nowhere"]);
    assert_eq!(nowhere.status.code(), Some(2), "{}", said(&nowhere));
}

/// What is locked with a checksum is what is compiled, and comes from one registry.
#[test]
fn everything_that_is_not_ours_is_locked_with_its_checksum() {
    let text = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let ours = ["stockade", "stockade-bench", "stockade-schedules", "stockade-servers", "stockade-sim"];
    for ((name, version), checksum) in locked() {
        assert_eq!(checksum.is_none(), ours.contains(&name.as_str()), "{name} {version}");
    }
    let sources: BTreeSet<&str> = text.lines().filter_map(|line| line.strip_prefix("source = ")).collect();
    assert_eq!(sources.len(), 1, "{sources:?}");
}
