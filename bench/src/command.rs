//! The command line. Exit code 0: everything passed; 1: a verdict failed; 2: the harness itself could not do its work; 3: every
//! verdict passed, and a figure fell short.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};

use crate::bystanders::Bystanders;
use crate::faults::Fault;
use crate::judge::Ruling;
use crate::run::{Run, Scene, announce};
use crate::shop::find_binary;
use crate::stage::Doors;
use crate::workload::{Overrides, Workload};
use crate::{
    carts, catalogue, compare, crashes, groups, logins, overload, purchases, ratios, reference, rivals,
    spread,
};

/// Sends a crowd at a shop, measures, and judges.
#[derive(Parser)]
#[command(
    name = "stockade-bench",
    version,
    args_conflicts_with_subcommands = true,
    arg_required_else_help = true
)]
pub struct Command {
    #[command(subcommand)]
    other: Option<Other>,
    #[command(flatten)]
    workload: WorkloadArgs,
}

#[derive(Subcommand)]
enum Other {
    /// Kill the server again and again under load, and look for anything it acknowledged and lost
    Crashes(crashes::Crashes),
    /// Compare the shop with the HTTP ceiling in interleaved rounds, against the floors
    Ratios(ratios::Ratios),
    /// Orders at a fixed rate, without and with people who log in meanwhile
    Logins(logins::Logins),
    /// Ten times as many as can be served, with and without people who hold connections and buy nothing
    Overload(overload::Overload),
    /// Check out many carts at once, of too few products, and judge who got what
    Carts(carts::Carts),
    /// Whole purchases a second, order and payment in one call, and how long one takes at half that rate
    Purchases(purchases::Purchases),
    /// A hot product page and a list against the HTTP ceiling, and a listing of very many products
    Catalogue(catalogue::Catalogue),
    /// Other ways to sell a hot product, on MariaDB and Redis, against the shop and the HTTP ceiling in interleaved rounds
    Rivals(rivals::Contest),
    /// Transactions of the journal on MySQL at a low and a high rate of orders, by the database's own counters
    Groups(groups::Groups),
    /// Ten products hot at once on several nodes, of which none owns more than its share, while one comes and another goes
    Spread(spread::Spread),
    /// Serve one rival
    #[command(hide = true)]
    Rival(rivals::Serve),
    /// The reports of two runs side by side
    Compare { a: PathBuf, b: PathBuf },
    /// Serve the reference: JSON, token check, fixed answer
    Reference {
        #[arg(long, default_value = "127.0.0.1:8081")]
        addr: SocketAddr,
        #[arg(long, env = "STOCKADE_JWT_SECRET", hide_env_values = true)]
        secret: String,
        /// Write this many access tokens to --out first
        #[arg(long, requires = "out", default_value_t = 0)]
        users: usize,
        #[arg(long)]
        out: Option<PathBuf>,
    },
}

#[derive(Args)]
struct WorkloadArgs {
    /// flash_sale, sold_out, steady, many_products, last_units, two_buyers_a_unit, two_a_customer, ten_hot, or the path of a TOML file
    workload: Option<String>,
    #[command(flatten)]
    overrides: Overrides,
    #[command(flatten)]
    binary: Binary,
    /// Use a server that runs already; it needs --tokens
    #[arg(long, requires = "tokens")]
    url: Option<String>,
    /// Access tokens of the buyers, one a line (`stockade token --users N --out FILE`)
    #[arg(long)]
    tokens: Option<PathBuf>,
    /// Lets the judges read the ledgers
    #[arg(long, env = "STOCKADE_ADMIN_TOKEN", hide_env_values = true)]
    admin_token: Option<String>,
    /// Drive the reference server instead of the shop
    #[arg(long, conflicts_with_all = ["url", "kill"])]
    reference: bool,
    /// SIGKILL the server this often, at random points of the sale, and start it again
    #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true, default_missing_value = "5")]
    #[arg(default_value_t = 0, conflicts_with = "url")]
    kill: u64,
    /// The shop has so many nodes on a MariaDB of its own, and the crowd asks all of them
    #[arg(long, value_name = "N", conflicts_with_all = ["url", "reference", "kill", "log_ins"])]
    nodes: Option<usize>,
    /// What befalls the node that is active then, or what it rests on, one after the other
    #[arg(long = "fault", value_name = "KIND", value_delimiter = ',', requires_all = ["nodes", "pace"])]
    faults: Vec<Fault>,
    /// All of them so often, one round after the other
    #[arg(long, value_name = "N", default_value_t = 1, requires = "faults")]
    fault_times: usize,
    /// So many people log in again and again meanwhile
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with_all = ["url", "reference", "kill"])]
    log_ins: usize,
    /// Let selling last this many seconds, by the rate at which buyers come
    #[arg(long, value_name = "SECONDS")]
    pace: Option<f64>,
    /// Load threads
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Throws the dice of an earlier run again
    #[arg(long)]
    seed: Option<u64>,
    /// Read back at most so many acknowledged orders
    #[arg(long, value_name = "N", default_value_t = usize::MAX, hide_default_value = true)]
    read_back: usize,
    /// Where reports go
    #[arg(long, value_name = "FOLDER", default_value = "target/bench")]
    out: PathBuf,
    /// Leave the server's store on disk
    #[arg(long)]
    keep_store: bool,
}

#[derive(Args, Clone)]
pub struct Binary {
    /// The server's binary; otherwise the `stockade` beside this program
    #[arg(long, value_name = "PATH")]
    server: Option<PathBuf>,
}

impl Binary {
    pub fn find(&self) -> Result<PathBuf> {
        find_binary(self.server.as_deref())
    }
}

impl Command {
    pub fn perform(self) -> Result<Ruling> {
        match self.other {
            Some(Other::Reference { addr, secret, users, out }) => {
                if let Some(out) = out {
                    std::fs::write(&out, reference::tokens(users, &secret)?.join("\n") + "\n")?;
                }
                actix_web::rt::System::new().block_on(reference::serve(addr, &secret))?;
                Ok(Ruling::Pass)
            }
            Some(Other::Rival(serve)) => {
                actix_web::rt::System::new().block_on(serve.perform())?;
                Ok(Ruling::Pass)
            }
            other => Self { other, ..self }.measure(),
        }
    }

    fn measure(self) -> Result<Ruling> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            match self.other {
                Some(Other::Crashes(crashes)) => crashes.perform().await,
                Some(Other::Ratios(ratios)) => ratios.perform().await,
                Some(Other::Logins(logins)) => logins.perform().await,
                Some(Other::Purchases(purchases)) => purchases.perform().await,
                Some(Other::Catalogue(catalogue)) => catalogue.perform().await,
                Some(Other::Overload(overload)) => overload.perform().await,
                Some(Other::Carts(carts)) => carts.perform().await,
                Some(Other::Compare { a, b }) => compare::compare(&a, &b).map(|()| Ruling::Pass),
                Some(Other::Rivals(contest)) => contest.perform().await,
                Some(Other::Groups(groups)) => groups.perform().await,
                Some(Other::Spread(spread)) => spread.perform().await,
                Some(Other::Reference { .. } | Other::Rival(_)) | None => self.workload.perform().await,
            }
        })
    }
}

impl WorkloadArgs {
    async fn perform(self) -> Result<Ruling> {
        let name = self.workload.as_deref().context("which workload?")?;
        let workload = Workload::load(name)?.with(&self.overrides)?;
        let scene = match (self.url, self.tokens) {
            _ if self.reference => Scene::Reference,
            (Some(url), Some(tokens)) => Scene::Elsewhere { url, tokens, admin: self.admin_token },
            _ => match self.nodes {
                Some(nodes) => Scene::Nodes { binary: self.binary.find()?, nodes, doors: Doors::All },
                None => Scene::Own { binary: self.binary.find()?, environment: Vec::new() },
            },
        };
        let run = Run {
            workload,
            scene,
            threads: self.threads.max(1),
            seed: self.seed.unwrap_or_else(rand::random),
            kills: self.kill,
            faults: self.faults.repeat(self.fault_times),
            spread: None,
            log_ins: self.log_ins,
            bystanders: Bystanders::default(),
            pace_seconds: self.pace,
            read_back: self.read_back,
            keep_store: self.keep_store,
        };
        let report = run.perform().await?;
        let ruling = announce(&report, Some(&self.out))?;
        if ruling > Ruling::Pass {
            println!("  seed {}", run.seed);
        }
        Ok(ruling)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    fn told(words: &str) -> Result<Command, clap::Error> {
        Command::try_parse_from(["stockade-bench", "flash_sale"].into_iter().chain(words.split(' ')))
    }

    #[test]
    fn faults_are_told_in_a_list_and_need_nodes_and_time() {
        let told_twice =
            "--nodes 3 --pace 60 --fault partition-nodes,redis-kill --fault stop --fault-times 2";
        let workload = told(told_twice).unwrap().workload;
        assert_eq!(workload.faults, [Fault::PartitionNodes, Fault::RedisKill, Fault::Stop]);
        assert_eq!(workload.fault_times, 2);
        assert_eq!(told("--nodes 3 --pace 60 --fault kill").unwrap().workload.fault_times, 1);
        for wrong in [
            "--nodes 3 --fault kill",
            "--pace 60 --fault kill",
            "--nodes 3 --pace 60 --fault flood",
            "--nodes 3 --pace 60 --fault-times 2",
        ] {
            assert!(told(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_gate_lets_every_fault_fall_once() {
        let gate = include_str!("../../scripts/verify");
        let list = gate.split_once("local faults=").unwrap().1.lines().next().unwrap();
        let mut listed: Vec<Fault> =
            list.split(',').map(|word| Fault::from_str(word, false).unwrap()).collect();
        listed.sort_by_key(|fault| *fault as u8);
        assert_eq!(listed, Fault::value_variants());
    }
}
