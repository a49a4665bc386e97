//! `redis-server` on a folder of its own. It answers a write when its append-only file is on disk (`appendfsync always`), never
//! rewrites that file, and takes no snapshots.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::process::{Process, free_address, free_address_at};
use crate::{password, program};

/// It holds the program under the name of its checker, and no service.
const PACKAGES: &str = "redis-tools";
const SERVER: &str = "redis-server";
const CHECKER: &str = "redis-check-rdb";

pub struct Redis {
    /// Stands before the folder, so that it has ended when the folder goes.
    process: Option<Process>,
    folder: TempDir,
    address: SocketAddr,
    password: String,
}

impl Redis {
    /// An empty store; the server does not run yet.
    pub fn install() -> Result<Self> {
        Self::install_at(Ipv4Addr::LOCALHOST.into())
    }

    /// The same, for an address of this machine that is not loopback.
    pub fn install_at(ip: IpAddr) -> Result<Self> {
        Self::install_with(ip, &[])
    }

    /// A cluster of one: it has all the slots, and speaks as a cluster does.
    pub async fn cluster() -> Result<Self> {
        let bus = format!("cluster-port {}", free_address()?.port());
        let settings = ["cluster-enabled yes".to_owned(), bus];
        let mut store = Self::install_with(Ipv4Addr::LOCALHOST.into(), &settings)?;
        store.start().await?;
        let slots = "CLUSTER ADDSLOTSRANGE 0 16383";
        ensure!(said(store.address, &store.password, slots).await?.matches("+OK").count() > 1, "no slots");
        let (address, password) = (store.address, store.password.clone());
        let ready = async || {
            let info = said(address, &password, "CLUSTER INFO").await;
            info.is_ok_and(|info| info.contains("cluster_state:ok"))
        };
        store.running()?.until(ready).await.context("a cluster")?;
        Ok(store)
    }

    fn install_with(ip: IpAddr, besides: &[String]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("stockade-redis-").tempdir()?;
        let store = Self { process: None, folder, address: free_address_at(ip)?, password: password() };
        // In a file, since a command line can be read by everybody on the machine.
        let settings = [
            format!("bind {}", store.address.ip()),
            format!("port {}", store.address.port()),
            format!("dir {}", store.folder.path().display()),
            format!("requirepass {}", store.password),
            "appendonly yes".to_owned(),
            "appendfsync always".to_owned(),
            "auto-aof-rewrite-percentage 0".to_owned(),
            "save \"\"".to_owned(),
        ];
        let settings = [&settings[..], besides].concat();
        std::fs::write(store.folder.path().join("redis.conf"), settings.join("\n") + "\n")?;
        Ok(store)
    }

    /// An empty store, running.
    pub async fn started() -> Result<Self> {
        let mut store = Self::install()?;
        store.start().await?;
        Ok(store)
    }

    /// Starts the server on what its folder holds, and waits until it answers.
    pub async fn start(&mut self) -> Result<()> {
        let mut command = Command::new(program::find(&[SERVER, CHECKER], PACKAGES)?);
        // One program under several names, which does what it is called.
        command.arg0(SERVER).arg(self.folder.path().join("redis.conf"));
        let mut process = Process::start(command, &self.folder.path().join("server.log"))?;
        let (address, password) = (self.address, self.password.clone());
        process.until(async || pongs(address, &password).await.unwrap_or(false)).await.context(SERVER)?;
        self.process = Some(process);
        Ok(())
    }

    /// SIGKILL: what was acknowledged is there again after `start`.
    pub fn kill(&mut self) -> Result<()> {
        self.running()?.kill()?;
        self.process = None;
        Ok(())
    }

    /// Takes away what its folder holds: it has to be told everything again. Only while it does not run.
    pub fn forget(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "{SERVER} still runs");
        match std::fs::remove_dir_all(self.folder.path().join("appendonlydir")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    pub async fn stop(&mut self) -> Result<()> {
        self.running()?.stop().await?;
        self.process = None;
        Ok(())
    }

    /// Where it answers, with the password.
    pub fn url(&self) -> String {
        self.url_by(self.address)
    }

    /// The same for whoever reaches it at another address.
    pub fn url_by(&self, address: SocketAddr) -> String {
        format!("redis://:{}@{address}/", self.password)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    fn running(&mut self) -> Result<&mut Process> {
        self.process.as_mut().with_context(|| format!("{SERVER} is not running"))
    }
}

/// Watches one server, and tells where it is.
pub struct Sentinel {
    /// Stands before the folder, so that it has ended when the folder goes.
    _process: Process,
    _folder: TempDir,
    address: SocketAddr,
    /// Of the server.
    password: String,
}

impl Sentinel {
    /// The name of what it watches.
    const WATCHED: &str = "shop";

    pub async fn started(redis: &Redis) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("stockade-sentinel-").tempdir()?;
        let (address, watched, name) = (free_address()?, redis.address, Self::WATCHED);
        let settings = [
            format!("bind {}", address.ip()),
            format!("port {}", address.port()),
            format!("dir {}", folder.path().display()),
            format!("sentinel monitor {name} {} {} 1", watched.ip(), watched.port()),
            format!("sentinel auth-pass {name} {}", redis.password),
        ];
        let file = folder.path().join("sentinel.conf");
        std::fs::write(&file, settings.join("\n") + "\n")?;
        let mut command = Command::new(program::find(&[SERVER, CHECKER], PACKAGES)?);
        command.arg0("redis-sentinel").arg(&file);
        let mut process = Process::start(command, &folder.path().join("sentinel.log"))?;
        let knows = format!("SENTINEL GET-MASTER-ADDR-BY-NAME {name}");
        let ready = async || {
            let told = said(address, "", &knows).await;
            told.is_ok_and(|told| told.contains(&watched.port().to_string()))
        };
        process.until(ready).await.context("redis-sentinel")?;
        Ok(Self { _process: process, _folder: folder, address, password: redis.password.clone() })
    }

    /// Where it is asked, and with which password the server then is.
    pub fn url(&self) -> String {
        format!("redis-sentinel://:{}@{}/{}", self.password, self.address, Self::WATCHED)
    }
}

/// Whether it lets us in and has read its file: before that it says `-LOADING`.
async fn pongs(address: SocketAddr, password: &str) -> std::io::Result<bool> {
    Ok(said(address, password, "PING").await?.contains("+PONG\r\n"))
}

/// All that it says to one command, and to the log-in before it if there is a password.
async fn said(address: SocketAddr, password: &str, command: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let log_in = if password.is_empty() { String::new() } else { format!("AUTH {password}\r\n") };
    stream.write_all(format!("{log_in}{command}\r\nQUIT\r\n").as_bytes()).await?;
    // A sentinel does not know how to quit.
    stream.shutdown().await?;
    let mut answers = String::new();
    stream.read_to_string(&mut answers).await?;
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_answers_again_after_a_kill_and_leaves_nothing_behind() {
        let mut store = Redis::started().await.unwrap();
        let (first, folder) = (store.pid().unwrap(), store.folder.path().to_owned());
        store.kill().unwrap();
        assert!(pongs(store.address(), &store.password).await.is_err());
        store.start().await.unwrap();
        assert!(pongs(store.address(), &store.password).await.unwrap() && store.pid() != Some(first));
        assert!(!pongs(store.address(), "a guess").await.unwrap());
        store.stop().await.unwrap();
        store.start().await.unwrap();
        let (address, password) = (store.address(), store.password.clone());
        drop(store);
        assert!(pongs(address, &password).await.is_err() && !folder.exists());
    }
}
