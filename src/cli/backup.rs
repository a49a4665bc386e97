//! `stockade backup` and `stockade restore`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use secrecy::ExposeSecret;

use crate::app;
use crate::clock::Clock;
use crate::config::Config;
use crate::logs;
use crate::persistence::backup::{self, Manifest, Place};

pub const BACKUP_EXAMPLES: &str = "\
Examples:
  stockade backup --to /backups/$(date -u +%FT%H-%M-%SZ)
          Everything at one moment; the shop goes on selling
  (cd /backups/2026-10-30T02-00-00Z && sha256sum --check SHA256SUMS)
          Has it been damaged since?

It holds the journal and all tables, and no key: what is sealed in it opens with STOCKADE_MASTER_KEY alone. Keep that elsewhere.";

pub const RESTORE_EXAMPLES: &str = "\
Examples:
  stockade restore --from /backups/2026-10-30T02-00-00Z --into /var/lib/stockade && stockade audit --data-dir /var/lib/stockade
          A shop as it was at that moment, and whether everything adds up
  STOCKADE_DATABASE_URL=mysql://… stockade restore --from /backups/2026-10-30T02-00-00Z
          The same in an empty database, wherever the backup was taken

The backup is checked before anything is written, and a place in which there is something is refused.";

#[derive(Debug, Args)]
pub struct BackupArgs {
    /// A folder that is empty or does not exist
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
}

#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The backup
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// A data directory that is empty or does not exist, instead of what the settings name
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
}

pub fn take(config: &Config, what: &BackupArgs) -> Result<ExitCode> {
    logs::start(config.profile);
    let taken = app::blocking(async { Ok(backup::take(place(config), &what.to, &Clock::start()).await?) })?;
    println!(
        "The shop as it was at {}: {}, {:.1} MiB in {}. Writers waited for {} ms.",
        taken.manifest.taken_at,
        contents(&taken.manifest),
        taken.bytes as f64 / f64::from(1 << 20),
        what.to.display(),
        taken.held.as_millis(),
    );
    Ok(ExitCode::SUCCESS)
}

pub fn restore(config: &Config, what: &RestoreArgs) -> Result<ExitCode> {
    logs::start(config.profile);
    let place = what.into.as_deref().map_or_else(|| place(config), Place::Files);
    let manifest = app::blocking(async { Ok(backup::restore(&what.from, place, &Clock::start()).await?) })?;
    println!(
        "The shop as it was at {}: {}. `stockade audit` says whether everything adds up.",
        manifest.taken_at,
        contents(&manifest),
    );
    Ok(ExitCode::SUCCESS)
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
