//! A shop of one's own: the `stockade` binary on a temporary store, seeded, with access tokens for its users. It keeps
//! its store and its port across kills, so that buyers find it again.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use stockade_servers::Site;
use tempfile::TempDir;

use crate::process::{Process, free_address, ready, run_to_end};

#[derive(Clone, Debug)]
pub struct Goods {
    pub users: usize,
    pub products: usize,
    pub stock: u64,
    pub hold_seconds: Option<u64>,
    pub per_customer_limit: Option<u64>,
}

pub struct Shop {
    binary: PathBuf,
    folder: TempDir,
    target: SocketAddr,
    secret: String,
    /// More environment for every call, as a shop on a database needs.
    environment: Vec<(String, String)>,
    /// More environment for the server alone, as a preloaded shim needs.
    pub server_environment: Vec<(String, String)>,
    /// Where the server runs, if its place is not beside ours.
    site: Option<Site>,
    process: Option<Process>,
}

impl Shop {
    /// A seeded store; the server does not run yet.
    pub fn seeded(binary: &Path, goods: &Goods) -> Result<Self> {
        Self::seeded_on(binary, goods, Vec::new())
    }

    /// The same, wherever the environment says that its store is.
    pub fn seeded_on(binary: &Path, goods: &Goods, environment: Vec<(String, String)>) -> Result<Self> {
        let shop = Self::closed(binary.to_owned(), random_key(), environment)?;
        let mut seed = shop.command("seed");
        seed.args(["--users", &goods.users.to_string(), "--products", &goods.products.to_string()]);
        seed.args(["--stock", &goods.stock.to_string()]);
        if let Some(seconds) = goods.hold_seconds {
            seed.args(["--hold-seconds", &seconds.to_string()]);
        }
        if let Some(limit) = goods.per_customer_limit {
            seed.args(["--per-customer-limit", &limit.to_string()]);
        }
        run_to_end(seed)?;
        Ok(shop)
    }

    /// Another node of the same shop, with a folder and an address of its own; it does not run yet.
    pub fn beside(&self) -> Result<Self> {
        Self::closed(self.binary.clone(), self.secret.clone(), self.environment.clone())
    }

    fn closed(binary: PathBuf, secret: String, environment: Vec<(String, String)>) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("stockade-bench-").tempdir()?;
        std::fs::create_dir(folder.path().join("data"))?;
        Ok(Self {
            binary,
            folder,
            target: free_address()?,
            secret,
            environment,
            server_environment: Vec::new(),
            site: None,
            process: None,
        })
    }

    /// Gives the server, which does not run yet, a place in a network.
    pub fn settle(&mut self, site: Site) {
        self.target = site.http;
        self.site = Some(site);
    }

    /// One access token for each of the seed's users, in the seed's order.
    pub fn tokens(&self, users: usize) -> Result<Vec<String>> {
        let file = self.folder.path().join("tokens");
        let mut command = self.command("token");
        command.args(["--users", &users.to_string(), "--out"]).arg(&file);
        run_to_end(command)?;
        let tokens = read_tokens(&file)?;
        ensure!(tokens.len() == users, "`stockade token` wrote {} tokens instead of {users}", tokens.len());
        Ok(tokens)
    }

    pub fn admin_token(&self) -> Result<String> {
        let mut command = self.command("token");
        command.args(["--role", "admin"]);
        let said = run_to_end(command)?;
        said.split_whitespace()
            .find(|word| word.starts_with("ey") && word.matches('.').count() == 2)
            .map(str::to_owned)
            .with_context(|| format!("`stockade token --role admin` printed no token: {said}"))
    }

    pub async fn start(&mut self) -> Result<()> {
        self.launch()?;
        self.ready().await
    }

    /// Starts the server without waiting until it is ready.
    pub fn launch(&mut self) -> Result<()> {
        let mut command = match &self.site {
            Some(site) => self.told(site.command(&self.binary)?, "serve"),
            None => self.command("serve"),
        };
        command.envs(self.server_environment.iter().map(|(name, value)| (name, value)));
        self.process = Some(Process::start(command, &self.folder.path().join("server.log"))?);
        Ok(())
    }

    pub async fn ready(&mut self) -> Result<()> {
        let target = self.target;
        ready(self.running()?, target, "/readyz").await
    }

    pub fn kill(&mut self) -> Result<()> {
        self.running()?.kill()?;
        self.process = None;
        Ok(())
    }

    /// SIGKILL without waiting for the end; `kill` takes the remains away.
    pub fn send_kill(&self) -> Result<()> {
        self.process.as_ref().context("the server is not running")?.send_kill()
    }

    /// SIGSTOP: it does nothing more until `wake`, and nobody is told.
    pub fn pause(&mut self) -> Result<()> {
        self.running()?.pause()
    }

    pub fn wake(&mut self) -> Result<()> {
        self.running()?.wake()
    }

    pub async fn stop(&mut self) -> Result<()> {
        self.running()?.stop().await?;
        self.process = None;
        Ok(())
    }

    /// What `stockade audit` says of the store of a stopped server: its report, or its differences as the error.
    pub fn audit(&self) -> Result<String> {
        self.audit_with([])
    }

    /// The same, with something else in its environment.
    pub fn audit_with(&self, besides: impl IntoIterator<Item = (String, String)>) -> Result<String> {
        let mut command = self.command("audit");
        command.envs(besides);
        run_to_end(command)
    }

    /// The same, and whether the payment provider's books agree.
    pub fn audit_with_provider(&self) -> Result<String> {
        let mut command = self.command("audit");
        command.arg("--provider");
        run_to_end(command)
    }

    pub fn target(&self) -> SocketAddr {
        self.target
    }

    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Leaves the store on disk when the shop is dropped, and says where.
    pub fn keep(&mut self) -> PathBuf {
        self.folder.disable_cleanup(true);
        self.folder.path().to_owned()
    }

    fn running(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("the server is not running")
    }

    fn command(&self, subcommand: &str) -> Command {
        self.told(Command::new(&self.binary), subcommand)
    }

    fn told(&self, mut command: Command, subcommand: &str) -> Command {
        command
            .arg(subcommand)
            .env("STOCKADE_PROFILE", "development")
            .env("STOCKADE_HTTP_ADDR", self.target.to_string())
            .env("STOCKADE_DATA_DIR", self.data_dir())
            .env("STOCKADE_JWT_SECRET", &self.secret)
            // We stand before it as a proxy would: our people come from addresses of their own.
            .env("STOCKADE_TRUSTED_PROXIES", "127.0.0.0/8")
            // A stray configuration file in the caller's folder must not decide what is measured.
            .current_dir(self.folder.path())
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// Thirty-two bytes in hexadecimal that nobody else has.
pub fn random_key() -> String {
    format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>())
}

/// The server's binary: the one named, or the one beside this one.
pub fn find_binary(named: Option<&Path>) -> Result<PathBuf> {
    let path = match named {
        Some(path) => path.to_owned(),
        None => std::env::current_exe()?.with_file_name("stockade"),
    };
    if !path.is_file() {
        bail!(
            "there is no server at {}: `cargo build --release` makes one, `--server PATH` names another",
            path.display()
        );
    }
    Ok(std::fs::canonicalize(path)?)
}

pub fn read_tokens(file: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read tokens from {}", file.display()))?;
    Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect())
}
