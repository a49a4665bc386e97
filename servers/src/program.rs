//! Where the programs of others are, and what to say when they are not there.

use std::path::PathBuf;

use anyhow::{Result, bail};

/// Debian puts servers where only an administrator's PATH looks.
const OTHER_FOLDERS: [&str; 3] = ["/usr/sbin", "/usr/local/sbin", "/usr/local/bin"];

/// The first of the programs that is installed.
pub fn find(programs: &[&str], packages: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> =
        std::env::split_paths(&path).chain(OTHER_FOLDERS.iter().map(PathBuf::from)).collect();
    let found = programs
        .iter()
        .flat_map(|program| folders.iter().map(move |folder| folder.join(program)))
        .find(|path| path.is_file());
    match found {
        Some(path) => Ok(path),
        None => bail!(
            "{} is not installed: scripts/verify installs it (as {packages}), without a service of its own",
            programs[0]
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_what_brings_it() {
        let said = find(&["no-such-server"], "this-package that-package").unwrap_err().to_string();
        assert!(said.starts_with("no-such-server is not installed"), "{said}");
        assert!(said.contains("this-package that-package"), "{said}");
        assert!(find(&["no-such-server", "sh"], "").unwrap().ends_with("sh"));
    }
}
