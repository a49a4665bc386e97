//! Each node in a network namespace of its own, and a router between them and us, a namespace as well. Which packets it forgets is a
//! rule of its own for each pair of addresses: nobody is told that they are gone, and no carrier is lost.
//!
//! The addresses are those that are set aside for measurements between one's own devices (RFC 2544), so they lead nowhere else. Always
//! true: namespaces and devices go when their owner is dropped; those of a process that was killed go when the next one opens some.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail, ensure};

use super::{Cut, Site};
use crate::process::run_to_end;
use crate::program;

const PROGRAM: &str = "ip";
const PACKAGES: &str = "iproute2";
/// Eight addresses for each node, and eight for us.
const NODES_MAX: usize = 30;
/// Where each node answers: nobody else is in its namespace.
const HTTP_PORT: u16 = 8080;
const PEER_PORT: u16 = 8090;
/// What the names of namespaces begin with; the number of the process follows.
const PREFIX: &str = "stockade-";
/// Where `ip` keeps them.
const FOLDER: &str = "/run/netns";

/// Within the eight addresses of a place: whoever lives there, and at the end the router.
const WATCHER: u8 = 1;
const DATABASE: u8 = 2;
const REDIS: u8 = 3;
const ROUTER: u8 = 6;

static OPENED: AtomicU32 = AtomicU32::new(0);

pub struct Namespaces {
    /// What the names of all of them begin with.
    name: String,
    /// The third number of all addresses.
    subnet: u8,
    nodes: usize,
}

impl Namespaces {
    pub fn open(nodes: usize) -> Result<Self> {
        ensure!(nodes <= NODES_MAX, "at most {NODES_MAX} nodes");
        take_away_what_was_left();
        let number = OPENED.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        let router = format!("{name}-router");
        ip(&["netns", "add", &router])?;
        let subnet = match free_subnet(&router) {
            Ok(subnet) => subnet,
            Err(error) => {
                let _ = ip(&["netns", "del", &router]);
                return Err(error);
            }
        };
        let mut these = Self { name, subnet, nodes: 0 };
        these.lead_to_us(&router)?;
        for node in 0..nodes {
            these.add(node, &router)?;
        }
        Ok(these)
    }

    pub fn watcher(&self) -> Ipv4Addr {
        self.address(None, WATCHER)
    }

    pub fn database(&self) -> Ipv4Addr {
        self.address(None, DATABASE)
    }

    pub fn redis(&self) -> Ipv4Addr {
        self.address(None, REDIS)
    }

    pub fn site(&self, node: usize, database: SocketAddr, redis: Option<SocketAddr>) -> Site {
        let at = |port| SocketAddrV4::new(self.node(node), port).into();
        let (http, peers) = (at(HTTP_PORT), at(PEER_PORT));
        Site { namespace: Some(self.namespace(node)), http, peers, name: peers, database, redis }
    }

    pub fn set(&self, cut: Cut, is_cut: bool) -> Result<()> {
        match cut {
            Cut::Database(node) => self.set_between(self.node(node), self.database(), is_cut),
            Cut::Redis(node) => self.set_between(self.node(node), self.redis(), is_cut),
            Cut::Nodes => {
                let mut pairs = (0..self.nodes).flat_map(|one| (0..one).map(move |other| (one, other)));
                pairs.try_for_each(|(one, other)| self.set_between(self.node(one), self.node(other), is_cut))
            }
        }
    }

    /// All of them.
    pub fn names(&self) -> Vec<String> {
        (0..self.nodes).map(|node| self.namespace(node)).chain([self.router()]).collect()
    }

    fn router(&self) -> String {
        format!("{}-router", self.name)
    }

    fn namespace(&self, node: usize) -> String {
        format!("{}-{node}", self.name)
    }

    fn node(&self, node: usize) -> Ipv4Addr {
        self.address(Some(node), WATCHER)
    }

    /// `place`: of a node, or ours.
    fn address(&self, place: Option<usize>, host: u8) -> Ipv4Addr {
        let place = place.map_or(0, |node| node + 1) as u8;
        Ipv4Addr::new(198, 18, self.subnet, place * 8 + host)
    }

    /// A device of ours with the addresses of all who do not live in a namespace, and the way to those who do.
    fn lead_to_us(&self, router: &str) -> Result<()> {
        let (device, gateway) = (device(self.subnet), self.address(None, ROUTER).to_string());
        for host in [WATCHER, DATABASE, REDIS] {
            ip(&["addr", "add", &format!("{}/29", self.address(None, host)), "dev", &device])?;
        }
        ip(&["link", "set", &device, "up"])?;
        ip(&["-n", router, "addr", "add", &format!("{gateway}/29"), "dev", "us"])?;
        ip(&["-n", router, "link", "set", "us", "up"])?;
        let (all, us) = (format!("198.18.{}.0/24", self.subnet), self.watcher().to_string());
        ip(&["route", "add", &all, "via", &gateway, "src", &us])?;
        let mut forwards = command(router, Path::new("sh"))?;
        forwards.args(["-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]);
        run_to_end(forwards)?;
        Ok(())
    }

    fn add(&mut self, node: usize, router: &str) -> Result<()> {
        let (name, device) = (self.namespace(node), format!("node{node}"));
        let gateway = self.address(Some(node), ROUTER).to_string();
        ip(&["netns", "add", &name])?;
        self.nodes = node + 1;
        ip(&["-n", router, "link", "add", &device, "type", "veth", "peer", "name", "out", "netns", &name])?;
        ip(&["-n", router, "addr", "add", &format!("{gateway}/29"), "dev", &device])?;
        ip(&["-n", router, "link", "set", &device, "up"])?;
        ip(&["-n", &name, "link", "set", "lo", "up"])?;
        ip(&["-n", &name, "addr", "add", &format!("{}/29", self.node(node)), "dev", "out"])?;
        ip(&["-n", &name, "link", "set", "out", "up"])?;
        ip(&["-n", &name, "route", "add", "default", "via", &gateway])
    }

    fn set_between(&self, one: Ipv4Addr, other: Ipv4Addr, is_cut: bool) -> Result<()> {
        let (router, what) = (self.router(), if is_cut { "add" } else { "del" });
        for (from, to) in [(one, other), (other, one)] {
            let (from, to) = (from.to_string(), to.to_string());
            ip(&["-n", &router, "rule", what, "from", &from, "to", &to, "blackhole"])?;
        }
        Ok(())
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        // What cannot be taken away now is when the next ones are opened.
        let _ = ip(&["link", "del", &device(self.subnet)]);
        for name in self.names() {
            let _ = ip(&["netns", "del", &name]);
        }
    }
}

/// A program in a namespace; it keeps the number of the process.
pub fn command(namespace: &str, program: &Path) -> Result<Command> {
    let mut command = Command::new(program::find(&[PROGRAM], PACKAGES)?);
    command.args(["netns", "exec", namespace]).arg(program);
    Ok(command)
}

#[cfg(test)]
pub fn exists(namespace: &str) -> bool {
    Path::new(FOLDER).join(namespace).exists()
}

fn ip(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new(program::find(&[PROGRAM], PACKAGES)?);
    command.args(arguments);
    run_to_end(command).map(drop)
}

fn device(subnet: u8) -> String {
    format!("stockade{subnet}")
}

/// The device's name is taken in one step, so two who open at once get two subnets.
fn free_subnet(router: &str) -> Result<u8> {
    let mut failed = None;
    let first: u8 = rand::random();
    for subnet in (0..=u8::MAX).map(|step| first.wrapping_add(step)) {
        let device = device(subnet);
        match ip(&["link", "add", &device, "type", "veth", "peer", "name", "us", "netns", router]) {
            Ok(()) => return Ok(subnet),
            Err(error) if format!("{error:#}").contains("File exists") => failed = Some(error),
            Err(error) => return Err(error),
        }
    }
    match failed {
        Some(error) => Err(error).context("no subnet is free"),
        None => bail!("no subnet is free"),
    }
}

/// The namespaces of processes that are gone.
fn take_away_what_was_left() {
    let Ok(all) = std::fs::read_dir(FOLDER) else { return };
    for name in all.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let process = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if process.is_some_and(|process| !PathBuf::from(format!("/proc/{process}")).exists()) {
            let _ = ip(&["netns", "del", &name]);
        }
    }
}
