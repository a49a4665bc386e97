//! The command line: what can be asked of the program, and how it answers. 0 is success, 1 a failure or a difference
//! found, 2 a command that cannot be understood.

mod admin;
mod backup;
mod healthcheck;
mod settings;
mod token;

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::app::{self, Supervised};
use crate::clock::Clock;
use crate::config::{Config, Layers, Profile};
use crate::http;
use crate::logs;
use crate::persistence::trail::Mark;
use crate::seed::{self, Plan};

use settings::{CommonFlags, Flags};

const EXAMPLES: &str = "\
Examples:
  stockade
          A shop on http://127.0.0.1:8080 with a small demonstration catalogue, its data in ./data
  stockade --data-dir /var/lib/stockade --http-addr 0.0.0.0:8080
          The same, elsewhere
  stockade seed --users 10000 --products 1 --stock 10000
          One product and a crowd, for a load test; the server must not run
  stockade token --users 10000 --out tokens.txt
          An access token for each of them
  stockade audit
          Does everything add up? Exit code 1 if not
  stockade backup --to backups/today
          A copy of all of it at one moment, while the shop sells

Every setting is a flag, a variable (STOCKADE_HTTP_ADDR) and a key of stockade.toml (http_addr); the first of these
that says something wins. `stockade config` shows what counts, and who said it.";

const SEED_EXAMPLES: &str = "\
Examples:
  stockade seed --users 10000 --products 1 --stock 10000
          A flash sale
  stockade seed --users 1000 --products 10000 --stock 50 --hold-seconds 30 --per-customer-limit 2
          A catalogue whose holds lapse after half a minute

Users need no row: an access token is all there is to one. `stockade token --users N` signs theirs, in the same order.";

const TOKEN_EXAMPLES: &str = "\
Examples:
  export TOKEN=$(stockade token --user 1)
          A shopper: the first of `seed`'s users
  export ADMIN=$(stockade token --role admin)
          An administrator
  stockade token --users 10000 --out tokens.txt
          One token a line, for `seed`'s users in order

Signing needs no server, only the same secret: STOCKADE_JWT_SECRET, or in development the same data directory; and the same
STOCKADE_JWT_ALGORITHM. So no trail tells of it; it tells what is done with a token, under the id in it. Suspending that id ends it.";

const AUDIT_EXAMPLES: &str = "\
Examples:
  stockade audit
          Journal against tables, money against orders, and with STOCKADE_REDIS_URL the mirror against the journal
  stockade audit --trail \"1000 9f86d081884c7d65…\"
          And the trail's 1000th entry against what an earlier audit printed: nobody has written the trail anew up to there
  stockade audit --provider
          And our payments and refunds against the provider's books, whoever STOCKADE_PAYMENT_PROVIDER says it is

Nothing is repaired. What has not ended is counted as under way; a server that starts goes on with it.";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  stockade completions bash > ~/.local/share/bash-completion/completions/stockade
  stockade completions zsh > ~/.zfunc/_stockade
  stockade completions fish > ~/.config/fish/completions/stockade.fish";

const ADMIN_EXAMPLES: &str = "\
Examples:
  stockade admin create --email boss@example.com
          Asks for the password, twice, without showing it
  stockade admin create --email boss@example.com < password.txt
          The same from a file; the server must not run";

const OPENAPI_EXAMPLES: &str = "\
Examples:
  stockade openapi > openapi.json
          For a generator of clients; it needs neither a server nor a store
  stockade openapi --http > stockade.http
          Every request once, to be sent from an editor";

/// Sells scarce stock to a crowd: first come, first served, durable before yes.
#[derive(Debug, Parser)]
#[command(name = "stockade", version, after_help = EXAMPLES, max_term_width = 110, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the shop until SIGTERM or SIGINT (the default command)
    Serve {
        #[command(flatten)]
        flags: Flags,
    },
    /// Create the journal and the tables, or bring them up to this version
    Migrate {
        #[command(flatten)]
        flags: CommonFlags,
    },
    /// Fill a stopped shop for a demonstration or a load test
    #[command(after_help = SEED_EXAMPLES)]
    Seed {
        #[command(flatten)]
        what: SeedArgs,
        #[command(flatten)]
        flags: CommonFlags,
    },
    /// Sign access tokens offline
    #[command(after_help = TOKEN_EXAMPLES)]
    Token {
        #[command(flatten)]
        whose: token::TokenArgs,
        #[command(flatten)]
        flags: CommonFlags,
    },
    /// Look after those who administer
    #[command(after_help = ADMIN_EXAMPLES)]
    Admin {
        #[command(flatten)]
        what: admin::AdminArgs,
        #[command(flatten)]
        flags: CommonFlags,
    },
    /// Replay the journal of a stopped shop against its tables and its mirror; print every difference, exit 1 if there is one
    #[command(after_help = AUDIT_EXAMPLES)]
    Audit {
        /// Compare payments and refunds with the payment provider's books too, both ways
        #[arg(long)]
        provider: bool,
        /// See that the trail still has this entry, as an earlier audit printed it; as often as you like
        #[arg(long, value_name = "NUMBER HASH")]
        trail: Vec<Mark>,
        #[command(flatten)]
        flags: CommonFlags,
    },
    /// Print the API's description: OpenAPI 3.1, as the server tells it at /openapi.json
    #[command(after_help = OPENAPI_EXAMPLES)]
    Openapi {
        /// Print a file of requests for the REST clients of VS Code and JetBrains' IDEs instead
        #[arg(long)]
        http: bool,
    },
    /// Copy everything as it is at one moment into a folder; the shop may run
    #[command(after_help = backup::BACKUP_EXAMPLES)]
    Backup {
        #[command(flatten)]
        what: backup::BackupArgs,
        #[command(flatten)]
        flags: CommonFlags,
    },
    /// Fill an empty data directory, or an empty database, from a backup
    #[command(after_help = backup::RESTORE_EXAMPLES)]
    Restore {
        #[command(flatten)]
        what: backup::RestoreArgs,
        #[command(flatten)]
        flags: CommonFlags,
    },
    /// Ask the shop of this machine whether it takes orders; exit 1 if not
    #[command(after_help = healthcheck::EXAMPLES)]
    Healthcheck {
        /// Ask whether the process lives instead
        #[arg(long)]
        live: bool,
        #[command(flatten)]
        flags: Flags,
    },
    /// Print what a shell needs to complete commands and flags
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions { shell: Shell },
    /// Print the effective configuration and where each value came from; secrets are shown as …
    Config {
        #[command(flatten)]
        flags: Flags,
    },
}

#[derive(Debug, Args)]
struct SeedArgs {
    /// How many people will come (they need no row; see `stockade token --users`)
    #[arg(long, value_name = "N", default_value_t = 0)]
    users: u64,
    /// How many products to make
    #[arg(long, value_name = "N", default_value_t = 1)]
    products: u64,
    /// Units of each
    #[arg(long, value_name = "N", default_value_t = 100)]
    stock: u64,
    /// How long a hold stands before it lapses
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(1..=604_800))]
    hold_seconds: Option<u32>,
    /// The most units one customer may have
    #[arg(long, value_name = "L", value_parser = clap::value_parser!(u32).range(1..))]
    per_customer_limit: Option<u32>,
}

impl Cli {
    /// Does what was asked. What goes wrong is told on standard error in words, without a trace of our insides.
    pub fn run(self) -> ExitCode {
        match self.dispatch() {
            Ok(code) => code,
            Err(error) => {
                eprintln!("stockade: {}", in_words(&error));
                ExitCode::FAILURE
            }
        }
    }

    fn dispatch(self) -> Result<ExitCode> {
        let Cli { command, flags: before } = self;
        match command {
            None => serve(&before.layers()?),
            Some(Command::Serve { flags }) => serve(&before.and(flags).layers()?),
            Some(Command::Migrate { flags }) => migrate(&before.and(flags.0).config()?),
            Some(Command::Seed { what, flags }) => fill(&before.and(flags.0).config()?, &what),
            Some(Command::Token { whose, flags }) => token::sign(&before.and(flags.0).config()?, &whose),
            Some(Command::Admin { what, flags }) => admin::run(&before.and(flags.0).config()?, &what),
            Some(Command::Audit { provider, trail, flags }) => {
                audit(&before.and(flags.0).config()?, provider, &trail)
            }
            Some(Command::Openapi { http }) => describe(http),
            Some(Command::Backup { what, flags }) => backup::take(&before.and(flags.0).config()?, &what),
            Some(Command::Restore { what, flags }) => backup::restore(&before.and(flags.0).config()?, &what),
            Some(Command::Healthcheck { live, flags }) => {
                healthcheck::ask(&before.and(flags).layers()?, live)
            }
            Some(Command::Completions { shell }) => Ok(complete(shell)),
            Some(Command::Config { flags }) => show(&before.and(flags).layers()?),
        }
    }
}

/// The error and what caused it, each thing once: many errors repeat their cause in their own words.
fn in_words(error: &anyhow::Error) -> String {
    let mut words = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !words.contains(&cause) {
            words.push_str(if words.is_empty() { "" } else { ": " });
            words.push_str(&cause);
        }
    }
    if words.contains("disk is full") || words.contains("No space left") {
        words.push_str("; make room and start again, nothing acknowledged is lost");
    }
    words
}

fn serve(layers: &Layers) -> Result<ExitCode> {
    let config = Config::read(layers)?;
    logs::start(config.profile);
    let _exporting = logs::Exporting::start();
    for name in layers.strangers() {
        tracing::warn!(name, "this variable looks like a setting of ours and is none");
    }
    Ok(match app::supervise(&config)? {
        Supervised::Stopped => ExitCode::SUCCESS,
        Supervised::GaveUp => ExitCode::FAILURE,
    })
}

fn migrate(config: &Config) -> Result<ExitCode> {
    logs::start(config.profile);
    app::blocking(seed::prepare(config))?;
    match config.store.database_url {
        Some(_) => println!("The database is up to date."),
        None => println!("The store in {} is up to date.", config.store.data_dir.display()),
    }
    Ok(ExitCode::SUCCESS)
}

fn fill(config: &Config, what: &SeedArgs) -> Result<ExitCode> {
    logs::start(config.profile);
    let clock = Clock::start();
    let plan = Plan {
        products: what.products,
        stock: what.stock,
        hold_ms: what.hold_seconds.map(|seconds| seconds.saturating_mul(1_000)),
        per_customer_limit: what.per_customer_limit,
    };
    let began = clock.nanos();
    let first = app::blocking(seed::fill(config, &clock, &plan))?;
    let seconds = (clock.nanos() - began) as f64 / 1e9;
    println!("{} products with {} units each, in {seconds:.1} s.", what.products, what.stock);
    if let Some(first) = first {
        println!("The first is {first}.");
    }
    if what.users > 0 {
        println!(
            "{} users: `stockade token --users {} --out tokens.txt` signs their tokens.",
            what.users, what.users
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn audit(config: &Config, provider: bool, kept: &[Mark]) -> Result<ExitCode> {
    logs::start(config.profile);
    let report = app::blocking(seed::audit(config, kept))?;
    println!("Keep this elsewhere, for a later audit: --trail \"{}\"", report.trail);
    let money = &report.money;
    println!(
        "{} products, {} events in {} entries, {} orders with {} lines, {} payments ({} taken), {} refunds ({} given back), {} lines sold, \
         {} under way, {} snapshots, trail {}: {}.",
        report.products,
        report.events,
        report.entries,
        report.orders,
        report.lines,
        money.payments,
        money.taken,
        money.refunds,
        money.given_back,
        money.deliveries,
        money.under_way,
        report.snapshots,
        report.trail,
        verdict(report.all_differences().count(), "everything adds up"),
    );
    if let Some(mirror) = &report.mirror {
        println!(
            "The mirror shows {} products, {} of them as they were before the journal's end, and holds {} views that nobody is shown: {}.",
            mirror.shown,
            mirror.behind,
            mirror.left,
            verdict(mirror.differences.len(), "all of it was so"),
        );
    }
    for difference in report.all_differences() {
        println!("{difference}");
    }
    let mut is_clean = report.is_clean();
    if provider {
        let (name, with) = app::blocking(seed::reconcile(config, &Clock::start()))?;
        println!(
            "The provider ({name}) has {} payments and {} refunds of ours, {} under way: {}.",
            with.charges,
            with.refunds,
            with.under_way,
            verdict(with.differences.len(), "its books agree with ours"),
        );
        for difference in &with.differences {
            println!("{difference}");
        }
        is_clean &= with.differences.is_empty();
    }
    Ok(if is_clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn verdict(differences: usize, none: &str) -> String {
    match differences {
        0 => none.to_owned(),
        1 => "1 difference".to_owned(),
        many => format!("{many} differences"),
    }
}

fn describe(as_requests: bool) -> Result<ExitCode> {
    let document = http::document();
    let text = match as_requests {
        true => http::client_file(&document),
        false => serde_json::to_string_pretty(&document)? + "\n",
    };
    std::io::stdout().write_all(text.as_bytes()).context("standard output cannot be written")?;
    Ok(ExitCode::SUCCESS)
}

fn complete(shell: Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "stockade", &mut script);
    // `print!` would panic where nobody reads to the end.
    match std::io::stdout().write_all(&script) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn show(layers: &Layers) -> Result<ExitCode> {
    let rows: Vec<_> = layers.effective().collect();
    let width = rows.iter().map(|row| row.setting.key.len()).max().unwrap_or(0);
    let values = rows.iter().map(|row| shown(&row.value).chars().count()).max().unwrap_or(0);
    for row in &rows {
        println!("{:width$}  {:values$}  # {}", row.setting.key, shown(&row.value), row.origin);
    }
    for name in layers.strangers() {
        eprintln!("stockade: {name} looks like a setting of ours and is none");
    }
    let config = Config::read(layers).context("this configuration would not start")?;
    if config.profile == Profile::Development {
        eprintln!("stockade: the development profile forgives much; use `production` for customers");
    }
    Ok(ExitCode::SUCCESS)
}

fn shown(value: &str) -> &str {
    if value.is_empty() { "(unset)" } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_setting_may_stand_before_or_after_the_command() {
        for line in ["stockade --data-dir here seed --stock 5", "stockade seed --stock 5 --data-dir here"] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            let Some(Command::Seed { flags, .. }) = cli.command else { panic!("{line}") };
            let config = cli.flags.and(flags.0).config().unwrap();
            assert_eq!(config.store.data_dir, std::path::Path::new("here"), "{line}");
        }
    }

    #[test]
    fn a_secret_is_never_a_flag() {
        assert!(Cli::try_parse_from(["stockade", "--jwt-secret", "hush"]).is_err());
    }
}
