//! Workflows call scripts that exist, do nothing that the gate does not know, and may do no more than they must.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::Value;

use super::{root, text};

fn workflows() -> Vec<(String, Value)> {
    let folder = root().join(".github/workflows");
    let files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(files.len() >= 3);
    files
        .iter()
        .map(|file| {
            let name = file.file_name().unwrap().to_str().unwrap().to_owned();
            let read = serde_saphyr::from_str(&std::fs::read_to_string(file).unwrap());
            (name.clone(), read.unwrap_or_else(|error| panic!("{name}: {error}")))
        })
        .collect()
}

fn steps(workflow: &Value) -> Vec<Value> {
    let jobs = workflow["jobs"].as_object().unwrap();
    jobs.values().flat_map(|job| job["steps"].as_array().unwrap().clone()).collect()
}

#[test]
fn workflows_call_scripts_that_exist() {
    let mut called = BTreeSet::new();
    for (name, workflow) in workflows() {
        for step in steps(&workflow) {
            let run = step["run"].as_str().unwrap_or_default();
            let words = run.split(|letter: char| letter.is_whitespace() || ";\"'()".contains(letter));
            for script in words.filter(|word| word.starts_with("scripts/") || word.starts_with(".ci/")) {
                // What may not be there yet is asked for first.
                let asked =
                    step["if"].as_str().is_some_and(|when| when.contains(&format!("hashFiles('{script}')")));
                let file = std::fs::metadata(root().join(script));
                let runs = file.is_ok_and(|file| file.permissions().mode() & 0o111 != 0);
                assert!(runs || asked, "{name} calls {script}");
                called.insert(script.to_owned());
            }
        }
    }
    assert!(called.contains(".ci/run"), "{called:?}");
}

/// What is built and run with the feature `otel` is what the gate builds and runs by night.
#[test]
fn the_feature_that_nobody_has_by_default_is_built_as_the_gate_builds_it() {
    let gate = text("scripts/verify");
    let runs = workflows().into_iter().flat_map(|(_, workflow)| steps(&workflow));
    let runs: Vec<String> = runs.filter_map(|step| step["run"].as_str().map(str::to_owned)).collect();
    let lines: Vec<&str> =
        runs.iter().flat_map(|run| run.lines()).filter(|line| line.contains("otel")).collect();
    assert!(lines.iter().any(|line| line.contains("--test errors")), "{lines:?}");
    assert!(lines.iter().all(|line| gate.contains(line)), "{lines:?}");
    assert!(text("tests/errors.rs").contains("fn a_collector_hears_of_each_request()"));
}

/// Where the gate runs it has the database of known holes; no tool is compiled there that `scripts/tools` has; and no image is kept or
/// published that nobody has scanned.
#[test]
fn known_holes_are_looked_for_before_anything_is_taken() {
    for (name, workflow) in workflows() {
        let runs: Vec<String> =
            steps(&workflow).iter().map(|step| step["run"].as_str().unwrap_or_default().to_owned()).collect();
        let first = |word: &str| runs.iter().position(|run| run.contains(word));
        assert_eq!(first("cargo install"), None, "{name}");
        if let Some(gate) = first(".ci/run") {
            assert!(first("STOCKADE_ADVISORY_DB=").is_some_and(|named| named < gate), "{name}");
        }
        if let Some(deny) = runs.iter().find(|run| run.contains("cargo deny")) {
            assert!(deny.contains("scripts/tools"), "{name}: {deny}");
        }
        if let Some(built) = first("docker build") {
            let scanned = first("grype").unwrap_or_else(|| panic!("{name} scans no image"));
            let fails = runs[scanned].contains("--fail-on high");
            let kept = [first("| gzip > stockade-image"), first("docker push")];
            assert!(built < scanned && fails, "{name}");
            assert!(kept.iter().all(|kept| kept.is_some_and(|kept| scanned < kept)), "{name}");
        }
    }
}

/// MariaDB, which the gate installs, goes beside no MySQL, and the runner's image has one.
#[test]
fn there_is_room_for_what_the_gate_installs() {
    let mut gates = 0;
    for (name, workflow) in workflows() {
        let runs: Vec<String> =
            steps(&workflow).iter().map(|step| step["run"].as_str().unwrap_or_default().to_owned()).collect();
        let Some(gate) = runs.iter().position(|run| run == ".ci/run") else { continue };
        assert!(
            runs[..gate].iter().any(|run| run.contains("apt-get purge") && run.contains("'mysql-server*'")),
            "{name}"
        );
        gates += 1;
    }
    assert_eq!(gates, 2);
}

#[test]
fn workflows_may_do_no_more_than_they_must() {
    for (name, workflow) in workflows() {
        assert_eq!(workflow["permissions"]["contents"], "read", "{name}");
        assert_eq!(workflow["permissions"].as_object().unwrap().len(), 1, "{name}");
        assert!(
            workflow["on"].get("pull_request_target").is_none(),
            "{name} would run strangers' code with our keys"
        );
        for job in workflow["jobs"].as_object().unwrap().values() {
            assert!(job["timeout-minutes"].is_u64() && job.get("permissions").is_none(), "{name}");
        }
        for step in steps(&workflow) {
            if let Some(action) = step["uses"].as_str() {
                let (whose, version) = action.split_once('@').unwrap();
                assert!(whose.starts_with("actions/") && version.starts_with('v'), "{name}: {action}");
                assert!(
                    !whose.ends_with("/checkout") || step["with"]["persist-credentials"] == false,
                    "{name}"
                );
            }
            // What somebody else may have written is never part of a script.
            let run = step["run"].as_str().unwrap_or_default();
            assert!(!run.contains("${{"), "{name}: {run}");
        }
    }
}
