//! `prometheus` with a configuration and rules of the caller's, on a folder that goes with it; and `promtool`, which checks both.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::process::{Process, free_address, run_to_end, run_with};
use crate::program;

const PACKAGE: &str = "prometheus";
const CONFIGURATION: &str = "prometheus.yml";

pub struct Prometheus {
    /// Stands before the folder, so that it has ended when the folder goes.
    process: Process,
    _folder: TempDir,
    address: SocketAddr,
}

impl Prometheus {
    /// Running, once it answers questions. The files, by name, lie beside the configuration; what `promtool` finds wrong with any of
    /// it is an error.
    pub async fn started(configuration: &str, files: &[(&str, &str)]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("stockade-prometheus-").tempdir()?;
        for (name, text) in files.iter().copied().chain([(CONFIGURATION, configuration)]) {
            std::fs::write(folder.path().join(name), text)?;
        }
        let file = folder.path().join(CONFIGURATION);
        promtool("check config", &file)?;
        let address = free_address()?;
        let mut command = Command::new(program::find(&[PACKAGE], PACKAGE)?);
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"));
        let mut process = Process::start(command, &folder.path().join("log"))?;
        process.until(async || is_ready(address).await.unwrap_or(false)).await.context(PACKAGE)?;
        Ok(Self { process, _folder: folder, address })
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it said last.
    pub fn log_tail(&self) -> String {
        self.process.log_tail()
    }
}

async fn is_ready(address: SocketAddr) -> Result<bool> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET /-/ready HTTP/1.0\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.lines().next().is_some_and(|line| line.contains(" 200 ")))
}

/// What `promtool` says to a file: `check config`, `check rules`, `test rules`. Anything wrong is an error with its words.
pub fn promtool(what: &str, file: &Path) -> Result<String> {
    let mut command = Command::new(tool()?);
    command.args(what.split(' ')).arg(file);
    run_to_end(command)
}

/// What `promtool` says to numbers in the text format. A name that is none, or not as names are, is an error with its words.
pub fn check_metrics(text: &str) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("metrics");
    std::fs::write(&file, text)?;
    let mut command = Command::new(tool()?);
    command.args(["check", "metrics"]);
    run_with(command, Stdio::from(File::open(file)?))
}

fn tool() -> Result<PathBuf> {
    program::find(&["promtool"], PACKAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_answers_and_ends_with_its_owner() {
        let rules = "groups: [{ name: one, rules: [{ alert: One, expr: vector(1) }] }]\n";
        let prometheus =
            Prometheus::started("rule_files: [rules.yml]\n", &[("rules.yml", rules)]).await.unwrap();
        let address = prometheus.address();
        drop(prometheus);
        assert!(TcpStream::connect(address).await.is_err());
        let wrong = rules.replace("vector(1)", "vector(");
        let wrong = Prometheus::started("rule_files: [rules.yml]\n", &[("rules.yml", &wrong)]).await;
        assert!(wrong.is_err_and(|error| error.to_string().contains("parse error")));
    }

    #[test]
    fn names_are_checked() {
        check_metrics("# HELP a_total Some.\n# TYPE a_total counter\na_total 1\n").unwrap();
        let wrong = check_metrics("# HELP a_total Some.\n# TYPE a_total gauge\na_total 1\n").unwrap_err();
        assert!(wrong.to_string().contains("a_total"), "{wrong}");
    }
}
