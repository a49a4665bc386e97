//! `haproxy` with a configuration of the caller's, in the foreground. It keeps nothing.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, Result};
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::process::{Process, run_to_end};
use crate::program;

const PROGRAM: &str = "haproxy";

pub struct HaProxy {
    /// Stands before the folder, so that it has ended when the folder goes.
    process: Process,
    _folder: TempDir,
}

impl HaProxy {
    /// Running, once somebody is let in at `address`. A configuration that it would only warn of is an error.
    pub async fn started(configuration: &str, address: SocketAddr) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("stockade-haproxy-").tempdir()?;
        let file = folder.path().join("haproxy.cfg");
        std::fs::write(&file, configuration)?;
        let program = program::find(&[PROGRAM], PROGRAM)?;
        let mut check = Command::new(&program);
        check.args(["-c", "-dW", "-f"]).arg(&file);
        run_to_end(check)?;
        let mut command = Command::new(program);
        command.args(["-db", "-f"]).arg(&file);
        let mut process = Process::start(command, &folder.path().join("log"))?;
        process.until(async || TcpStream::connect(address).await.is_ok()).await.context(PROGRAM)?;
        Ok(Self { process, _folder: folder })
    }

    /// What it said last.
    pub fn log_tail(&self) -> String {
        self.process.log_tail()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::free_address;

    #[tokio::test]
    async fn it_listens_where_it_is_told_to_and_ends_with_its_owner() {
        let address = free_address().unwrap();
        let timeouts = "timeout connect 1s\ntimeout client 1s\ntimeout server 1s\n";
        let proxy =
            HaProxy::started(&format!("listen all\nmode http\nbind {address}\n{timeouts}"), address).await;
        let proxy = proxy.unwrap();
        drop(proxy);
        assert!(TcpStream::connect(address).await.is_err());
        let wrong = HaProxy::started("listen all\nbind nowhere\n", address).await;
        assert!(wrong.is_err_and(|error| error.to_string().contains("nowhere")));
    }
}
