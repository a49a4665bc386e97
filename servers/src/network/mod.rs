//! What lies between the nodes of a shop, their database and their Redis, so that it can be cut.
//!
//! A cut is silent: whatever is sent into it is neither refused nor answered, connections hang until somebody loses patience, and
//! what hung goes on when the cut is mended. Whoever only watches the nodes is never cut off from them.

mod namespaces;
mod proxies;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::process::free_address;
use namespaces::Namespaces;
use proxies::Proxies;

pub struct Network {
    kind: Kind,
    warning: Option<String>,
}

enum Kind {
    /// The loopback interface, which nobody cuts.
    Whole,
    Namespaces(Namespaces),
    Proxies(Proxies),
}

/// What can be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cut {
    /// Between this node and the database.
    Database(usize),
    /// Between this node and Redis.
    Redis(usize),
    /// Between each node and each other one.
    Nodes,
}

/// One node's place in it.
#[derive(Clone, Debug)]
pub struct Site {
    /// Where its process runs, if not beside ours.
    pub namespace: Option<String>,
    /// Where it answers shoppers, …
    pub http: SocketAddr,
    /// … and other nodes.
    pub peers: SocketAddr,
    /// What other nodes call that place.
    pub name: SocketAddr,
    /// Where it finds the others' servers.
    pub database: SocketAddr,
    pub redis: Option<SocketAddr>,
}

impl Network {
    pub fn whole() -> Self {
        Self { kind: Kind::Whole, warning: None }
    }

    /// Network namespaces where they can be made, as by root on Linux with iproute2; otherwise proxies, and a warning.
    pub fn that_can_be_cut(nodes: usize) -> Result<Self> {
        Ok(match Namespaces::open(nodes) {
            Ok(namespaces) => Self { kind: Kind::Namespaces(namespaces), warning: None },
            Err(why) => Self {
                kind: Kind::Proxies(Proxies::open()?),
                warning: Some(format!(
                    "no network namespaces could be made ({}): proxies on loopback are cut in their place",
                    format!("{why:#}").replace('\n', " ")
                )),
            },
        })
    }

    /// Why its cuts are worth less than they could be.
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// Where the database is to listen.
    pub fn database(&self) -> IpAddr {
        match &self.kind {
            Kind::Namespaces(namespaces) => namespaces.database().into(),
            Kind::Whole | Kind::Proxies(_) => Ipv4Addr::LOCALHOST.into(),
        }
    }

    /// Where Redis is to listen.
    pub fn redis(&self) -> IpAddr {
        match &self.kind {
            Kind::Namespaces(namespaces) => namespaces.redis().into(),
            Kind::Whole | Kind::Proxies(_) => Ipv4Addr::LOCALHOST.into(),
        }
    }

    /// Who stands before the nodes as a proxy would: networks, separated by commas.
    pub fn watchers(&self) -> String {
        match &self.kind {
            Kind::Namespaces(namespaces) => format!("127.0.0.0/8,{}", namespaces.watcher()),
            Kind::Whole | Kind::Proxies(_) => "127.0.0.0/8".to_owned(),
        }
    }

    /// The place of a node, once it is known where the servers listen. Asked once for each node.
    pub fn site(&mut self, node: usize, database: SocketAddr, redis: Option<SocketAddr>) -> Result<Site> {
        match &mut self.kind {
            Kind::Whole => {
                let (http, peers) = (free_address()?, free_address()?);
                Ok(Site { namespace: None, http, peers, name: peers, database, redis })
            }
            Kind::Namespaces(namespaces) => Ok(namespaces.site(node, database, redis)),
            Kind::Proxies(proxies) => proxies.site(node, database, redis),
        }
    }

    pub fn cut(&self, cut: Cut) -> Result<()> {
        self.set(cut, true)
    }

    pub fn mend(&self, cut: Cut) -> Result<()> {
        self.set(cut, false)
    }

    fn set(&self, cut: Cut, is_cut: bool) -> Result<()> {
        match &self.kind {
            Kind::Whole => bail!("this network is whole for ever"),
            Kind::Namespaces(namespaces) => namespaces.set(cut, is_cut),
            Kind::Proxies(proxies) => {
                proxies.set(cut, is_cut);
                Ok(())
            }
        }
    }
}

impl Site {
    /// A program to be run at this place; its process is the program's own.
    pub fn command(&self, program: &Path) -> Result<Command> {
        match &self.namespace {
            None => Ok(Command::new(program)),
            Some(namespace) => namespaces::command(namespace, program),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::TcpListener;

    /// Seconds in which whoever is not cut off hears, on any machine, and after which it is said of another that it hangs.
    const PATIENCE: &str = "30";
    const SHORT: &str = "0.4";

    /// What somebody at a node's place hears of a server: its word, nothing, or not even that.
    fn heard(site: &Site, server: SocketAddr, patience: &str) -> Option<Vec<u8>> {
        let mut command = site.command(Path::new("timeout")).unwrap();
        let ask = format!("exec 3<>/dev/tcp/{}/{} && head -c 1 <&3", server.ip(), server.port());
        let output = command.args([patience, "bash", "-c", &ask]).output().unwrap();
        (output.status.code() != Some(124)).then_some(output.stdout)
    }

    fn answers(site: &Site, server: SocketAddr) -> bool {
        heard(site, server, PATIENCE).is_some_and(|word| word == b"!")
    }

    fn hangs(site: &Site, server: SocketAddr) -> bool {
        heard(site, server, SHORT).is_none()
    }

    /// Says one word to everybody who comes.
    fn server(ip: IpAddr) -> SocketAddr {
        let listener = TcpListener::bind((ip, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let _ = stream.write_all(b"!");
            }
        });
        address
    }

    fn is_cut_where_it_is_told_to(mut network: Network) {
        let (database, redis) = (server(network.database()), server(network.redis()));
        let mut sites = Vec::new();
        for node in 0..2 {
            sites.push(network.site(node, database, Some(redis)).unwrap());
        }
        let [one, other] = &sites[..] else { unreachable!() };
        let redis = |site: &Site| site.redis.unwrap();
        assert!(answers(one, one.database) && answers(one, redis(one)));

        network.cut(Cut::Database(0)).unwrap();
        network.cut(Cut::Redis(1)).unwrap();
        assert!(hangs(one, one.database) && answers(one, redis(one)));
        assert!(answers(other, other.database) && hangs(other, redis(other)));
        network.mend(Cut::Database(0)).unwrap();
        network.mend(Cut::Redis(1)).unwrap();
        assert!(answers(one, one.database) && answers(other, redis(other)));

        // Nobody listens at a node's place: whoever gets there hears that at once.
        let nothing = Some(Vec::new());
        assert_eq!(heard(one, other.name, PATIENCE), nothing);
        network.cut(Cut::Nodes).unwrap();
        assert!(hangs(one, other.name) && hangs(other, one.name) && answers(one, one.database));
        network.mend(Cut::Nodes).unwrap();
        assert_eq!(heard(other, one.name, PATIENCE), nothing);
    }

    #[test]
    fn proxies_are_cut_where_they_are_told_to() {
        is_cut_where_it_is_told_to(Network { kind: Kind::Proxies(Proxies::open().unwrap()), warning: None });
    }

    /// Where none can be made that is all there is to see, and whoever drives them is told.
    #[test]
    fn namespaces_are_cut_where_they_are_told_to_and_leave_nothing_behind() {
        let network = Network::that_can_be_cut(2).unwrap();
        let Kind::Namespaces(namespaces) = &network.kind else {
            assert!(network.warning().is_some_and(|warning| warning.contains("proxies")));
            return;
        };
        let names = namespaces.names();
        assert!(names.len() == 3 && names.iter().all(|name| namespaces::exists(name)));
        is_cut_where_it_is_told_to(network);
        assert!(!names.iter().any(|name| namespaces::exists(name)));
    }

    #[test]
    fn what_cannot_be_cut_says_so() {
        assert!(Network::whole().cut(Cut::Nodes).is_err());
    }
}
