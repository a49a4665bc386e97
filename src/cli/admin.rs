//! `stockade admin create`: somebody who may administer. The password comes from the keyboard or from standard input,
//! never from the command line, which every user of the machine can read.

use std::io::{BufRead, IsTerminal, Write, stderr, stdin};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use secrecy::SecretString;

use crate::app;
use crate::clock::Clock;
use crate::config::Config;
use crate::domain::user::{Email, PasswordPolicy};
use crate::logs;
use crate::seed;

#[derive(Debug, Args)]
pub struct AdminArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Make an administrator on a stopped shop; the password is asked for, or read from standard input
    Create {
        /// Whom letters go to, and what they log in with
        #[arg(long, value_name = "ADDRESS")]
        email: String,
    },
}

pub fn run(config: &Config, args: &AdminArgs) -> Result<ExitCode> {
    let What::Create { email } = &args.what;
    let email: Email = email.parse().context("--email")?;
    let policy = PasswordPolicy { chars_min: config.people.password_chars_min };
    let password = policy.accept(ask_password()?, Some(&email))?;
    logs::start(config.profile);
    let admin = app::blocking(seed::make_admin(config, &Clock::start(), email, password))?;
    println!("{admin} may administer the shop in {}.", config.store.data_dir.display());
    Ok(ExitCode::SUCCESS)
}

/// Twice at a keyboard, where nobody sees what is typed; one line otherwise.
fn ask_password() -> Result<SecretString> {
    if !stdin().is_terminal() {
        return read_line();
    }
    let first = unseen("Password: ")?;
    let second = unseen("Once more: ")?;
    use secrecy::ExposeSecret;
    ensure!(first.expose_secret() == second.expose_secret(), "these were two passwords");
    Ok(first)
}

fn unseen(prompt: &str) -> Result<SecretString> {
    write!(stderr(), "{prompt}")?;
    stderr().flush()?;
    let shown = tcgetattr(stdin())?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    tcsetattr(stdin(), OptionalActions::Flush, &hidden)?;
    let line = read_line();
    tcsetattr(stdin(), OptionalActions::Flush, &shown)?;
    writeln!(stderr())?;
    line
}

fn read_line() -> Result<SecretString> {
    let mut line = String::new();
    stdin().lock().read_line(&mut line).context("the password cannot be read")?;
    match line.trim_end_matches(['\r', '\n']) {
        "" => bail!("no password was given"),
        password => Ok(SecretString::from(password)),
    }
}
