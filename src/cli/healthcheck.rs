//! `stockade healthcheck`: how the shop of this machine is, for whoever has no `curl`, such as the image. It asks over HTTP, as anybody does, and
//! needs no secret and no file: only where the shop is set to answer.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::config::{Config, Layers, reached_here};

pub const EXAMPLES: &str = "\
Examples:
  stockade healthcheck
          Does it take orders, for itself or for the node that leads? Exit code 1 if not
  stockade healthcheck --live --http-addr 127.0.0.1:8081
          Does the process that answers there live?

It asks GET /readyz, or GET /livez, where `http_addr` says that the shop answers, and prints what it hears.";

/// To connect, and to be answered. Whoever asks every few seconds waits no longer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// More than either door says.
const ANSWER_MAX: u64 = 64 << 10;

pub fn ask(layers: &Layers, live: bool) -> Result<ExitCode> {
    let addr = reached_here(Config::http_addr(layers)?);
    ensure!(addr.port() != 0, "port 0 of `http_addr` is whichever was free: say which one to ask");
    let path = if live { "/livez" } else { "/readyz" };
    let answer = answer(addr, path).with_context(|| format!("nobody answers at {addr}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer.as_str(), ""));
    println!("{}", body.trim_end());
    let is_well = head.split(' ').nth(1) == Some("200");
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn answer(addr: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&addr, ANSWER_WITHIN)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.set_write_timeout(Some(ANSWER_WITHIN))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
    let mut heard = Vec::new();
    let ended = stream.take(ANSWER_MAX).read_to_end(&mut heard);
    // What was said counts, also if the connection does not end behind it.
    if heard.is_empty() {
        ended?;
    }
    Ok(String::from_utf8_lossy(&heard).into_owned())
}
