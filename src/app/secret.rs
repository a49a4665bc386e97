//! The secret that signs access tokens, the key that seals personal data and the secret that the payment provider signs with: the
//! operator's, or in development ones of this store's own.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use secrecy::{ExposeSecret, SecretString};

use crate::clock::Clock;
use crate::config::Config;
use crate::domain::trail::{Deed, Record};
use crate::persistence::breached::BreachedPasswords;
use crate::persistence::{Tables, folder};
use crate::tokens::Tokens;
use crate::vault::{Vault, WrappedKey};

const SECRET_FILE: &str = "development.secret";
const MASTER_KEY_FILE: &str = "development.key";
const WEBHOOK_FILE: &str = "development.webhook";
/// Whoever finds it empty has come while it was being written.
const TRIES: usize = 50;

/// What signs and checks access tokens under this configuration.
pub fn tokens(config: &Config, clock: &Clock) -> Result<Tokens> {
    let secret = match &config.tokens.secret {
        Some(secret) => secret.clone(),
        None => made_up(&config.store.data_dir, SECRET_FILE, clock)?,
    };
    let former: Vec<&[u8]> =
        config.tokens.former.iter().map(|former| former.expose_secret().as_bytes()).collect();
    Ok(Tokens::by(config.tokens.algorithm, secret.expose_secret().as_bytes(), &former)?)
}

/// What seals personal data under this configuration.
pub fn vault(config: &Config, clock: &Clock) -> Result<Vault> {
    let keys = match &config.people.master_keys {
        Some(keys) => keys.clone(),
        None => {
            let key = made_up(&config.store.data_dir, MASTER_KEY_FILE, clock)?;
            key.expose_secret().parse().map_err(anyhow::Error::msg)?
        }
    };
    Ok(Vault::new(&keys, clock)?)
}

/// The passwords that nobody may choose because they are known from breaches, if the operator has a list of them.
pub fn breached(config: &Config) -> Result<Option<BreachedPasswords>> {
    let Some(path) = &config.people.breached_passwords else { return Ok(None) };
    let unusable = || {
        let path = path.display();
        format!("STOCKADE_BREACHED_PASSWORDS: {path} cannot be used as a list of breached passwords")
    };
    BreachedPasswords::open(path).map(Some).with_context(unusable)
}

/// Accounts that are looked at: whoever signed up last did so under the key that was in use.
const LOOKED_AT: u32 = 100;

/// Refuses a store none of whose accounts this vault opens. Under another master key nobody would be found who logs in, and whoever
/// signed up again would be a second person with one address. Where an operator says that the right key is lost, the trail says that he did.
pub async fn opens_accounts(vault: &Vault, tables: &Tables, config: &Config, clock: &Clock) -> Result<()> {
    let keys = tables.users().newest_keys(LOOKED_AT).await?;
    let known = |key: &Vec<u8>| WrappedKey::from_bytes(key).is_ok_and(|key| vault.knows(&key));
    if keys.is_empty() || keys.iter().any(known) {
        return Ok(());
    }
    let told = match &config.people.master_keys {
        Some(_) => {
            "STOCKADE_MASTER_KEY is not the one that this shop's accounts were sealed under".to_owned()
        }
        None => {
            let file = config.store.data_dir.join(MASTER_KEY_FILE);
            format!(
                "{} is not the key that this shop's accounts were sealed under, and STOCKADE_MASTER_KEY is not set",
                file.display()
            )
        }
    };
    if config.people.master_key_was_lost {
        tracing::warn!("{told}: nobody who has one of them can log in");
        let given_up = Record::new(Deed::MasterKeyGivenUp, clock.now());
        tables.trail().append(&given_up).await.context("the trail cannot be written")?;
        return Ok(());
    }
    anyhow::bail!(
        "{told}. Put that one in its place (a new one first, then a comma and the old one, if it is to be replaced). If it is lost for \
         ever, so are they: STOCKADE_MASTER_KEY_WAS_LOST=true opens the shop without them"
    )
}

/// What the payment provider signs its webhooks with under this configuration.
pub fn webhook_secret(config: &Config, clock: &Clock) -> Result<SecretString> {
    match &config.payment.webhook_secret {
        Some(secret) => Ok(secret.clone()),
        None => made_up(&config.store.data_dir, WEBHOOK_FILE, clock),
    }
}

/// Made up on first use and kept beside the data, so that no shop ever runs on a secret that stands in a repository.
fn made_up(dir: &Path, file: &str, clock: &Clock) -> Result<SecretString> {
    let path = dir.join(file);
    folder::make(dir).with_context(|| format!("cannot create the data directory {}", dir.display()))?;
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
        "{} is damaged; remove it, and a new one is made (what was signed or sealed with it is void)",
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
        let first = made_up(&dir, SECRET_FILE, &Clock::start()).unwrap();
        let again = made_up(&dir, SECRET_FILE, &Clock::start()).unwrap();
        assert_eq!(first.expose_secret(), again.expose_secret());
        assert_eq!(fs::metadata(dir.join(SECRET_FILE)).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_development_store_opens_again_what_it_sealed() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::development(folder.path());
        let vault = || vault(&config, &Clock::start()).unwrap();
        let key = vault().new_key().unwrap();
        let sealed = vault().seal(&key, "email", b"mina@example.com").unwrap();
        assert_eq!(vault().open(&key, "email", &sealed).unwrap(), b"mina@example.com");
    }
}
