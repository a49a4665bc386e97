//! `stockade backup` and `stockade restore`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use secrecy::ExposeSecret;

use crate::actors::user::erase_again;
use crate::app;
use crate::clock::Clock;
use crate::config::Config;
use crate::domain::id::UserId;
use crate::logs;
use crate::persistence::backup::{self, Manifest, Place, Restored};
use crate::persistence::{Tables, journal};
use crate::vault::Vault;

pub const BACKUP_EXAMPLES: &str = "\
Examples:
  stockade backup --to /backups/$(date -u +%FT%H-%M-%SZ)
          Everything at one moment; the shop goes on selling
  stockade backup --in /backups --keep 8
          The same, named so by itself; and those there go that are older than eight days
  (cd /backups/2026-10-30T02-00-00Z && sha256sum --check SHA256SUMS)
          Has it been damaged since?

It holds the journal and all tables, and no key. With STOCKADE_BACKUP_KEYS all of it is sealed, under the first of them, and whoever destroys that key
destroys the backup and every copy of it; production takes no other without STOCKADE_ALLOW_PLAIN_BACKUPS=true. What is sealed of a person opens with
STOCKADE_MASTER_KEY alone. Keep both elsewhere.";

pub const RESTORE_EXAMPLES: &str = "\
Examples:
  stockade restore --from /backups/2026-10-30T02-00-00Z --into /var/lib/stockade && stockade audit --data-dir /var/lib/stockade
          A shop as it was at that moment, and whether everything adds up
  STOCKADE_DATABASE_URL=mysql://… stockade restore --from /backups/2026-10-30T02-00-00Z
          The same in an empty database, wherever the backup was taken
  sqlite3 -readonly /var/lib/stockade-before/people.db \"select subject_id from trail where kind = 'account_deleted'\" > left.txt
  stockade restore --from /backups/2026-10-30T02-00-00Z --into /var/lib/stockade --erased left.txt
          Without those who had deleted their accounts when the former shop ended

The backup is checked before anything is written, and a place in which there is something is refused. One that is sealed wants its key among
STOCKADE_BACKUP_KEYS, and says by its name which one that is; `grep '\"key\"' manifest.json` does as well. One that is not is refused in production, and
where there are such keys, without STOCKADE_ALLOW_PLAIN_BACKUPS=true. Whoever has deleted an account since is there again, unless --erased names them.";

/// What one is called among others: their names stand in the order of time.
const NAMED: &str = "%Y-%m-%dT%H-%M-%SZ";
const DAY_MS: i64 = 86_400_000;

#[derive(Debug, Args)]
pub struct BackupArgs {
    /// A folder that is empty or does not exist
    #[arg(long, value_name = "DIR", required_unless_present = "among")]
    to: Option<PathBuf>,
    /// Instead: a folder of backups, in which this one has a new folder that is named after its time, such as 2026-10-30T02-00-00Z
    #[arg(long = "in", value_name = "DIR", conflicts_with = "to")]
    among: Option<PathBuf>,
    /// When it is taken, remove the folders there whose names say that they are older; what has another name stays
    #[arg(long, value_name = "DAYS", requires = "among", conflicts_with = "to", value_parser = clap::value_parser!(u16).range(1..))]
    keep: Option<u16>,
}

#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The backup
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// A data directory that is empty or does not exist, instead of what the settings name
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    /// Erase these accounts once more, that were deleted since: a file with the id of one (`user_…`) at the beginning of each line
    #[arg(long, value_name = "FILE")]
    erased: Option<PathBuf>,
}

pub fn take(config: &Config, what: &BackupArgs) -> Result<ExitCode> {
    logs::start(config.profile);
    let clock = Clock::start();
    let keys = config.backups.sealed_with(config.profile)?;
    let vault = keys.map(|keys| Vault::new(keys, &clock)).transpose()?;
    let at = clock.now().0;
    let among = what.among.as_deref().map(|among| among.join(name(at)));
    let to = what.to.as_deref().or(among.as_deref()).context("nobody has said where to")?;
    let taken = app::blocking(async { Ok(backup::take(place(config), to, vault.as_ref(), &clock).await?) })?;
    println!(
        "The shop as it was at {}: {}, {:.1} MiB in {}. Writers waited for {} ms.",
        taken.manifest.taken_at,
        contents(&taken.manifest),
        taken.bytes as f64 / f64::from(1 << 20),
        to.display(),
        taken.held.as_millis(),
    );
    match &taken.key {
        Some(key) => println!("It is sealed under the backup key {key}: without that one nobody reads it."),
        None => {
            println!("It is not sealed, for there are no STOCKADE_BACKUP_KEYS: keep it as you keep the shop.")
        }
    }
    if let (Some(among), Some(days)) = (&what.among, what.keep) {
        let removed = remove_before(among, &name(at - i64::from(days) * DAY_MS));
        let removed = removed.context("the backup is taken, but not all that are too old are removed")?;
        println!("{removed} that were older than {days} days are removed.");
    }
    Ok(ExitCode::SUCCESS)
}

fn name(at_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(at_ms).unwrap_or_default().strftime(NAMED).to_string()
}

/// Digits where such a name has digits, and the same between them.
fn is_name(word: &str) -> bool {
    let shape = |word: &str| word.replace(|letter: char| letter.is_ascii_digit(), "0");
    shape(word) == shape(&name(0))
}

/// Removes the folders with such names that come before this one, and tells how many. Links stay, and whatever has another name.
fn remove_before(among: &Path, oldest: &str) -> Result<usize> {
    let mut removed = 0;
    for entry in std::fs::read_dir(among)? {
        let entry = entry?;
        let is_old = entry.file_name().to_str().is_some_and(|name| is_name(name) && name < oldest);
        if is_old && entry.file_type()?.is_dir() {
            let path = entry.path();
            std::fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
            removed += 1;
        }
    }
    Ok(removed)
}

pub fn restore(config: &Config, what: &RestoreArgs) -> Result<ExitCode> {
    logs::start(config.profile);
    let place = what.into.as_deref().map_or_else(|| place(config), Place::Files);
    let left = what.erased.as_deref().map(ids).transpose()?;
    let clock = Clock::start();
    let vault = config.backups.keys.as_ref().map(|keys| Vault::new(keys, &clock)).transpose()?;
    let takes_plain = config.backups.takes_plain(config.profile);
    let Restored { manifest, key } = app::blocking(async {
        Ok(backup::restore(&what.from, place, vault.as_ref(), takes_plain, &clock).await?)
    })?;
    println!(
        "The shop as it was at {}: {}. `stockade audit` says whether everything adds up.",
        manifest.taken_at,
        contents(&manifest),
    );
    match key {
        Some(key) => println!("The backup was sealed under the backup key {key}."),
        None => println!("The backup was not sealed: whoever could write there could change it."),
    }
    println!(
        "That is {} ago. Whatever was done since is undone: accounts that were deleted are there again, who was suspended may come in, and \
         former passwords open. docs/operating.md says what to do before the doors open.",
        in_words(clock.now().0 - manifest.taken_at.as_millisecond()),
    );
    if let Some(left) = left {
        let erased = app::blocking(erase(place, &left, &clock))
            .context("the shop is restored, but not all who had left are erased: empty the place and restore once more")?;
        println!("{erased} of {} accounts that are to be erased were there, and are gone.", left.len());
    }
    Ok(ExitCode::SUCCESS)
}

/// The ids at the beginnings of a file's lines.
fn ids(path: &Path) -> Result<Vec<UserId>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let id = |word: &str| {
        let id = word.parse::<UserId>();
        id.with_context(|| format!("{}: `{word}` is no id of a user (user_…)", path.display()))
    };
    text.lines().filter_map(|line| line.split_whitespace().next()).map(id).collect()
}

async fn erase(place: Place<'_>, users: &[UserId], clock: &Clock) -> Result<u64> {
    let (tables, _lock) = match place {
        Place::Database(url) => (Tables::connect(url).await?, None),
        Place::Files(dir) => {
            let lock = journal::lock(dir)?;
            (Tables::open(dir).await?, Some(lock))
        }
    };
    let erased = erase_again(&tables, clock, users).await;
    // What was erased leaves the write-ahead log with it.
    tables.close().await?;
    Ok(erased?)
}

/// A time in the largest unit of which it is two or more; or in minutes.
fn in_words(ms: i64) -> String {
    match ms.max(0) / 60_000 {
        minutes @ ..120 => format!("{minutes} minutes"),
        minutes @ ..2_880 => format!("{} hours", minutes / 60),
        minutes => format!("{} days", minutes / 1_440),
    }
}

fn place(config: &Config) -> Place<'_> {
    match &config.store.database_url {
        Some(url) => Place::Database(url.expose_secret()),
        None => Place::Files(&config.store.data_dir),
    }
}

fn contents(manifest: &Manifest) -> String {
    let rows = |table: &str| manifest.rows.get(table).copied().unwrap_or(0);
    let all: u64 = manifest.rows.values().sum();
    format!(
        "{} entries of the journal, {} orders, {} payments, {} accounts, {all} rows in all",
        rows("journal"),
        rows("orders"),
        rows("payments"),
        rows("users"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_old_by_its_name_goes_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let stays = [
            "2026-10-22T02-00-00Z",
            "2026-10-30T02-00-00Z",
            "2027-01-01T00-00-00Z",
            "2026-10-01T02-00-00Z.kept",
            "2026-10-01",
            "before-2026-10-01T02-00-00Z",
            "2026-10-01t02-00-00z",
            "elsewhere",
        ];
        let goes = ["2026-10-22T01-59-59Z", "2025-12-31T23-59-59Z"];
        for name in stays.iter().chain(&goes) {
            std::fs::create_dir(at(name)).unwrap();
            std::fs::write(at(name).join("SHA256SUMS"), "").unwrap();
        }
        // A file and a link that are called so are no backups of ours, and what a link leads to is somebody's.
        std::fs::write(at("2026-10-01T00-00-00Z"), "").unwrap();
        std::os::unix::fs::symlink(at("elsewhere"), at("2026-10-01T00-00-01Z")).unwrap();
        let taken: jiff::Timestamp = "2026-10-30T02:00:00Z".parse().unwrap();
        let oldest = name(taken.as_millisecond() - 8 * DAY_MS);
        assert_eq!(oldest, stays[0]);
        assert_eq!(remove_before(folder.path(), &oldest).unwrap(), goes.len());
        for name in stays {
            assert!(at(name).join("SHA256SUMS").exists(), "{name}");
        }
        assert!(at("2026-10-01T00-00-00Z").is_file() && at("2026-10-01T00-00-01Z").is_symlink());
        assert!(goes.iter().all(|name| !at(name).exists()));
    }

    #[test]
    fn the_age_of_a_backup_is_told_in_a_unit_that_says_something() {
        let minute = 60_000;
        for (ms, told) in [
            (-5, "0 minutes"),
            (119 * minute, "119 minutes"),
            (120 * minute, "2 hours"),
            (47 * 60 * minute, "47 hours"),
            (30 * 1_440 * minute, "30 days"),
        ] {
            assert_eq!(in_words(ms), told);
        }
    }
}
