//! The secret that signs access tokens: the operator's, or in development one of this store's own.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use secrecy::{ExposeSecret, SecretString};

use crate::clock::Clock;
use crate::config::Config;
use crate::tokens::Tokens;

const FILE: &str = "development.secret";
/// Whoever finds it empty has come while it was being written.
const TRIES: usize = 50;

/// What signs and checks access tokens under this configuration.
pub fn tokens(config: &Config, clock: &Clock) -> Result<Tokens> {
    let secret = match &config.tokens.secret {
        Some(secret) => secret.clone(),
        None => development_secret(&config.store.data_dir, clock)?,
    };
    let former: Vec<&[u8]> =
        config.tokens.former.iter().map(|former| former.expose_secret().as_bytes()).collect();
    Ok(Tokens::new(secret.expose_secret().as_bytes(), &former)?)
}

/// Made up on first use and kept beside the data, so that no shop ever runs on a secret that stands in a repository.
fn development_secret(dir: &Path, clock: &Clock) -> Result<SecretString> {
    let path = dir.join(FILE);
    fs::create_dir_all(dir).with_context(|| format!("cannot create the data directory {}", dir.display()))?;
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
        Ok(mut file) => {
            let secret = format!("{:032x}{:032x}", clock.chance(), clock.chance());
            file.write_all(secret.as_bytes())
                .and_then(|()| file.sync_all())
                .or_else(|error| {
                    // Half a secret would be believed for ever.
                    fs::remove_file(&path)?;
                    Err(error)
                })
                .with_context(|| format!("cannot write {}", path.display()))?;
            Ok(secret.into())
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => read(&path),
        Err(error) => Err(error).with_context(|| format!("cannot create {}", path.display())),
    }
}

fn read(path: &Path) -> Result<SecretString> {
    for _ in 0..TRIES {
        let secret = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        if secret.len() == 64 {
            return Ok(secret.into());
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    anyhow::bail!(
        "{} is damaged; remove it, and a new secret is made (tokens signed before are void)",
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_has_one_secret_and_keeps_it_to_itself() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("data");
        let first = development_secret(&dir, &Clock::start()).unwrap();
        let again = development_secret(&dir, &Clock::start()).unwrap();
        assert_eq!(first.expose_secret(), again.expose_secret());
        assert_eq!(fs::metadata(dir.join(FILE)).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
