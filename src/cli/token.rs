//! `stockade token`: access tokens signed without a server.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Write, stdout};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;

use crate::actors::user::OFFLINE_LIFE_HOURS_MAX;
use crate::app;
use crate::clock::Clock;
use crate::config::Config;
use crate::domain::id::UserId;
use crate::domain::user::Role;
use crate::seed::seed_user;
use crate::tokens::Tokens;

/// Long enough for a day of trying things out; sessions of real people are shorter.
const TTL_HOURS_DEFAULT: u32 = 24;

#[derive(Debug, Args)]
pub struct TokenArgs {
    /// Whose: an id (`user_…`), or a number: the how-manieth of `seed`'s users
    #[arg(long, value_name = "ID", conflicts_with = "users")]
    user: Option<String>,
    /// One token for each of `seed`'s first N users, in order
    #[arg(long, value_name = "N")]
    users: Option<u64>,
    /// Write to this file, which only you may read, instead of standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// shopper, or admin
    #[arg(long, value_name = "ROLE", default_value = "shopper", value_parser = role)]
    role: Role,
    /// How long the tokens are good for
    #[arg(long, value_name = "H", default_value_t = TTL_HOURS_DEFAULT, value_parser = clap::value_parser!(u32).range(1..=OFFLINE_LIFE_HOURS_MAX))]
    ttl_hours: u32,
}

fn role(word: &str) -> Result<Role, &'static str> {
    match word {
        "shopper" => Ok(Role::Shopper),
        "admin" => Ok(Role::Admin),
        _ => Err("expected shopper or admin"),
    }
}

/// Signs and writes, one token a line.
pub fn sign(config: &Config, whose: &TokenArgs) -> Result<ExitCode> {
    let clock = Clock::start();
    let tokens = app::tokens(config, &clock)?;
    match (&whose.out, whose.people()?) {
        (None, people) => write(stdout().lock(), &tokens, &clock, whose, people)?,
        (Some(path), people) => {
            let file = private(path).with_context(|| format!("cannot write {}", path.display()))?;
            write(file, &tokens, &clock, whose, people)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A file of tokens is a file of keys. One that was there and that others may read is closed to them first.
fn private(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    // A pipe and a terminal have the readers that they have.
    if file.metadata()?.is_file() {
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.set_len(0)?;
    }
    Ok(file)
}

fn write(
    to: impl Write,
    tokens: &Tokens,
    clock: &Clock,
    whose: &TokenArgs,
    people: impl Iterator<Item = UserId>,
) -> Result<()> {
    let life_s = i64::from(whose.ttl_hours) * 3_600;
    let mut to = BufWriter::new(to);
    for user in people {
        writeln!(to, "{}", tokens.sign(user, whose.role, life_s, clock.now(), clock.chance())?)?;
    }
    Ok(to.flush()?)
}

impl TokenArgs {
    /// Somebody named, the first so many of seed's users, or, where nobody is named, the first of them.
    fn people(&self) -> Result<Box<dyn Iterator<Item = UserId>>> {
        Ok(match (&self.user, self.users) {
            (_, Some(count)) => Box::new((1..=count).map(seed_user)),
            (None, None) => Box::new(std::iter::once(seed_user(0))),
            (Some(word), None) => Box::new(std::iter::once(match word.parse::<u64>() {
                Ok(number) => seed_user(number),
                Err(_) => word
                    .parse()
                    .with_context(|| format!("`{word}` is neither a user's id (user_…) nor a number"))?,
            })),
        })
    }
}
