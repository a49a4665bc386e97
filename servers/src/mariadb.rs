//! `mariadbd` on a folder of its own, as durable as MySQL is by default: every commit waits for its redo log.
//!
//! No binary log, so that a commit costs one sync and not two; `innodb_flush_method` is left at its default (`O_DIRECT`);
//! a buffer pool and a log large enough that neither is what a test waits for.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;

use anyhow::{Context, Result};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::process::{Process, free_address_at, run_to_end};
use crate::{password, program};

const PACKAGES: &str = "mariadb-server-core mariadb-client-core";
/// The user, and the database that is there from the start; the user may make others.
const NAME: &str = "stockade";
/// The byte after the length of the packet with which a server greets.
const PROTOCOL: u8 = 10;

pub struct MariaDb {
    /// Stands before the folder, so that it has ended when the folder goes.
    process: Option<Process>,
    folder: TempDir,
    address: SocketAddr,
    password: String,
}

impl MariaDb {
    /// An empty database; the server does not run yet. It takes a second or two, in which the caller's thread waits.
    pub fn install() -> Result<Self> {
        Self::install_at(Ipv4Addr::LOCALHOST.into())
    }

    /// The same, for an address of this machine that is not loopback.
    pub fn install_at(ip: IpAddr) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("stockade-mariadb-").tempdir()?;
        let database = Self { process: None, folder, address: free_address_at(ip)?, password: password() };
        // Executed at every start, and it changes nothing at the second.
        let welcome = [
            format!("create database if not exists {NAME} character set utf8mb4 collate utf8mb4_bin;"),
            format!("create or replace user {NAME} identified by '{}';", database.password),
            format!("grant all privileges on *.* to {NAME} with grant option;"),
        ];
        std::fs::write(database.folder.path().join("welcome.sql"), welcome.join("\n") + "\n")?;
        let mut install = database.command("mariadb-install-db")?;
        install.args(["--skip-test-db", "--auth-root-authentication-method=socket"]);
        run_to_end(install)?;
        Ok(database)
    }

    /// An empty database, running.
    pub async fn started() -> Result<Self> {
        let mut database = Self::install()?;
        database.start().await?;
        Ok(database)
    }

    /// Starts the server on what its folder holds, and waits until it answers.
    pub async fn start(&mut self) -> Result<()> {
        let mut command = self.command("mariadbd")?;
        command
            .arg(format!("--init-file={}", self.folder.path().join("welcome.sql").display()))
            .arg(format!("--socket={}", self.folder.path().join("socket").display()))
            .arg(format!("--bind-address={}", self.address.ip()))
            .arg(format!("--port={}", self.address.port()))
            .args(["--skip-name-resolve", "--max-connections=1000"]);
        let mut process = Process::start(command, &self.folder.path().join("server.log"))?;
        let address = self.address;
        process.until(async || greets(address).await).await.context("mariadbd")?;
        self.process = Some(process);
        Ok(())
    }

    /// SIGKILL: what was acknowledged is there again after `start`.
    pub fn kill(&mut self) -> Result<()> {
        self.running()?.kill()?;
        self.process = None;
        Ok(())
    }

    /// SIGSTOP: until `wake` it keeps every connection, and says nothing.
    pub fn pause(&self) -> Result<()> {
        self.process.as_ref().context("mariadbd is not running")?.pause()
    }

    /// SIGCONT.
    pub fn wake(&self) -> Result<()> {
        self.process.as_ref().context("mariadbd is not running")?.wake()
    }

    pub async fn stop(&mut self) -> Result<()> {
        self.running()?.stop().await?;
        self.process = None;
        Ok(())
    }

    /// Where it answers, with the user, the password and the database.
    pub fn url(&self) -> String {
        self.url_by(self.address)
    }

    /// The same for whoever reaches it at another address.
    pub fn url_by(&self, address: SocketAddr) -> String {
        format!("mysql://{NAME}:{}@{address}/{NAME}", self.password)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    fn running(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("mariadbd is not running")
    }

    /// What installing and serving have in common.
    fn command(&self, program: &str) -> Result<Command> {
        let mut command = Command::new(program::find(&[program], PACKAGES)?);
        command
            .arg("--no-defaults")
            .arg(format!("--datadir={}", self.folder.path().join("data").display()))
            .arg(format!("--tmpdir={}", self.folder.path().display()))
            .args(["--innodb-buffer-pool-size=256M", "--innodb-log-file-size=256M"])
            .args(["--innodb-flush-log-at-trx-commit=1", "--skip-log-bin"]);
        if rustix::process::geteuid().is_root() {
            // It refuses to serve as root unless it is told to; in a container there is often nobody else.
            command.arg("--user=root");
        }
        Ok(command)
    }
}

/// The server speaks first, once it is ready for everybody.
async fn greets(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(address).await else { return false };
    let mut opening = [0; 5];
    stream.read_exact(&mut opening).await.is_ok() && opening[4] == PROTOCOL
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_answers_again_after_a_kill_and_leaves_nothing_behind() {
        let mut database = MariaDb::started().await.unwrap();
        let (first, folder) = (database.pid().unwrap(), database.folder.path().to_owned());
        database.kill().unwrap();
        assert!(!greets(database.address()).await);
        database.start().await.unwrap();
        assert!(greets(database.address()).await && database.pid() != Some(first));
        database.stop().await.unwrap();
        database.start().await.unwrap();
        let address = database.address();
        drop(database);
        assert!(!greets(address).await && !folder.exists());
    }
}
