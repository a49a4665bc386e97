//! The keys of backups are replaced by the very words of docs/operating.md; and whatever fails on the way, those that are there stay.

use std::path::Path;
use std::process::Command;

use super::{made_up, text};

/// Where the words say that the keys are.
const PLACE: &str = "/etc/stockade";
/// A cluster with one secret: what is asked for is encoded as there, and what is applied is what was said to be its content.
const CLUSTER: &str = r#"kubectl() {
    case "$*" in
        *" get secret "*) base64 -w 0 "$HOME/secret" ;;
        *" create secret "*) cat ;;
        *) cat > "$HOME/applied"; if test -s "$HOME/applied"; then mv "$HOME/applied" "$HOME/secret"; else return 1; fi ;;
    esac
}
"#;

/// The words for systemd, and those for Kubernetes.
fn words() -> [String; 2] {
    let guide = text("docs/operating.md");
    let part = guide.split("\n## ").find(|part| part.starts_with("The keys of backups\n")).unwrap();
    let blocks = part.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap().to_owned());
    blocks.collect::<Vec<_>>().try_into().unwrap()
}

/// What the words say in the end, typed in a place of their own where something may be otherwise.
fn typed(words: &str, place: &Path, otherwise: &str) -> String {
    let script = format!("{CLUSTER}{otherwise}\n{}", words.replace(PLACE, place.to_str().unwrap()));
    let said = Command::new("bash").args(["-c", &script]).env("HOME", place).output().unwrap();
    let told = String::from_utf8(said.stdout).unwrap();
    assert_eq!(said.status.success(), told.ends_with("done\n"), "{told}");
    told
}

#[test]
fn a_key_of_backups_is_replaced_or_nothing_is() {
    let [new, current, former] = ["new", "current", "former"].map(made_up);
    let openssl = format!("openssl() {{ echo {new}; }}");
    let [on_systemd, on_kubernetes] = words();
    for (words, file, before, end) in
        [(on_systemd, "backup-keys", "STOCKADE_BACKUP_KEYS=", "\n"), (on_kubernetes, "secret", "", "")]
    {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(file);
        let kept = |keys: &str| format!("{before}{keys}{end}");
        let there = kept(&format!("{current},{former}"));
        std::fs::write(&path, &there).unwrap();
        for otherwise in [
            "openssl() { return 1; }",
            "openssl() { :; }",
            "openssl() { echo c0ffee; }",
            &format!("{openssl}; cut() {{ return 1; }}"),
            &format!("{openssl}; cut() {{ :; }}"),
        ] {
            typed(&words, folder.path(), otherwise);
            assert_eq!(std::fs::read_to_string(&path).unwrap(), there, "{file}: {otherwise}");
        }
        // One key, as at the first time, and two.
        for keys in [current.clone(), format!("{current},{former}")] {
            std::fs::write(&path, kept(&keys)).unwrap();
            assert!(typed(&words, folder.path(), &openssl).ends_with("done\n"));
            let expected = kept(&format!("{new},{current}"));
            assert_eq!(std::fs::read_to_string(&path).unwrap(), expected, "{file}");
        }
        // Nothing is made of what is none.
        for nothing in ["", "\n", &kept(""), &kept("changeme")] {
            std::fs::write(&path, nothing).unwrap();
            typed(&words, folder.path(), &openssl);
            assert_eq!(std::fs::read_to_string(&path).unwrap(), *nothing, "{file}");
        }
    }
}

/// A disk that is full, and a cluster that does not answer.
#[test]
fn keys_of_backups_that_cannot_be_written_stay() {
    let [on_systemd, on_kubernetes] = words();
    let folder = tempfile::tempdir().unwrap();
    let there = format!("STOCKADE_BACKUP_KEYS={}\n", made_up("current"));
    let (path, next) = (folder.path().join("backup-keys"), folder.path().join("backup-keys.new"));
    std::fs::write(&path, &there).unwrap();
    std::os::unix::fs::symlink("/dev/full", &next).unwrap();
    let openssl = format!("openssl() {{ echo {}; }}", made_up("new"));
    typed(&on_systemd, folder.path(), &openssl);
    assert!(path.is_file() && std::fs::read_to_string(&path).unwrap() == there);

    let secret = folder.path().join("secret");
    std::fs::write(&secret, made_up("current")).unwrap();
    typed(&on_kubernetes, folder.path(), &format!("{openssl}; kubectl() {{ return 1; }}"));
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), made_up("current"));
}
