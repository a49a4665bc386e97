//! A server that we did not write, as a process of a test's own: a script that says its port first, and lives as long as we listen.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

/// The Python that a variable names because it has this package. Where there is none there is nothing to prove; but where changes are
/// taken (`CI` is set) there has to be one, for nobody would see that nothing was proved.
pub fn python(variable: &str, package: &str) -> Option<String> {
    let named = std::env::var(variable).ok();
    let told = format!("{variable} names no Python with {package}: this is proved by scripts/verify");
    if named.is_none() {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci.is_empty()), "{told}, and CI is set");
        eprintln!("{told}");
    }
    named
}

pub struct Stranger {
    process: Child,
    /// It lives as long as this is open.
    _life: ChildStdin,
    pub port: u16,
}

impl Stranger {
    /// Runs a script below `tests/` with the Python that has what it needs.
    pub fn open<S: AsRef<OsStr>>(python: &str, script: &str, args: impl IntoIterator<Item = S>) -> Stranger {
        let mut process = Command::new(python)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(script))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut port = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut port).unwrap();
        let port = port.trim().parse();
        let port = port.unwrap_or_else(|_| panic!("{script} says its port; is what it needs installed?"));
        let _life = process.stdin.take().unwrap();
        Stranger { process, _life, port }
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
