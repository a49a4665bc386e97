//! Child processes under measurement: when they are ready, and what one has cost so far, read from `/proc`.

use std::net::SocketAddr;

use anyhow::Result;
pub use stockade_servers::{Process, free_address, run_to_end};

use crate::client::Client;

/// `USER_HZ`: the unit of `/proc/PID/stat`, 100 a second on every Linux we run on.
const TICK_US: u64 = 10_000;

/// Waits until `path` answers 200.
pub async fn ready(process: &mut Process, target: SocketAddr, path: &str) -> Result<()> {
    process
        .until(async || Client::new(target).get(path, None).await.is_ok_and(|reply| reply.status == 200))
        .await
}

/// CPU time of a process so far, user and system, all threads.
pub fn cpu_us(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name, in parentheses, may hold anything; the fields behind it may not.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let user: u64 = fields.nth(11)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) * TICK_US)
}

/// Resident memory, in bytes.
pub fn resident_bytes(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_ascii_whitespace().next()?.parse::<u64>().ok()? * 1024)
}
