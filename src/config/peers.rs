//! What a node is to the others on its database: where they reach it, and what it may become.

use std::net::SocketAddr;

use super::{ConfigError, Layers};

#[derive(Debug, Clone)]
pub struct Peers {
    /// Where it listens for them.
    pub addr: SocketAddr,
    /// `HOST:PORT`: what they call that place, where it is not the address itself.
    pub name: Option<String>,
    /// Whether it may sell; every node takes requests.
    pub may_own: bool,
}

impl Peers {
    pub fn development() -> Peers {
        Peers { addr: SocketAddr::from(([127, 0, 0, 1], 0)), name: None, may_own: true }
    }

    pub fn read(layers: &Layers) -> Result<Peers, ConfigError> {
        let addr: SocketAddr = layers.parsed("peer_addr")?;
        let name = layers.text("peer_name").map(str::to_owned);
        let is_named = |name: &str| {
            name.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        };
        match &name {
            Some(name) if !is_named(name) => return Err(layers.bad("peer_name", "expected HOST:PORT")),
            None if addr.ip().is_unspecified() => {
                return Err(layers
                    .bad("peer_addr", "nobody can reach that: say in peer_name what others call this node"));
            }
            _ => {}
        }
        Ok(Peers { addr, name, may_own: may_own(layers)? })
    }
}

fn may_own(layers: &Layers) -> Result<bool, ConfigError> {
    let mut roles: Vec<String> = layers.list("roles")?;
    roles.sort();
    match roles.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["gateway", "owner"] => Ok(true),
        ["gateway"] => Ok(false),
        _ => Err(layers.bad("roles", "expected `owner,gateway` or `gateway`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Peers, String> {
        let variables =
            pairs.iter().map(|(key, value)| (format!("STOCKADE_{}", key.to_uppercase()), value.to_string()));
        Layers::of(None, variables, [])
            .and_then(|layers| Peers::read(&layers))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_node_sells_unless_it_is_told_not_to() {
        let default = read(&[]).unwrap();
        assert_eq!(format!("{default:?}"), format!("{:?}", Peers::development()));
        assert!(read(&[("roles", "gateway,owner")]).unwrap().may_own);
        assert!(!read(&[("roles", "gateway")]).unwrap().may_own);
        for wrong in ["owner", "baker", "gateway,gateway"] {
            assert!(read(&[("roles", wrong)]).unwrap_err().contains("roles"), "{wrong}");
        }
    }

    #[test]
    fn a_node_that_listens_everywhere_has_a_name() {
        assert!(read(&[("peer_addr", "0.0.0.0:8082")]).unwrap_err().contains("peer_name"));
        let named = read(&[("peer_addr", "0.0.0.0:8082"), ("peer_name", "node-a:8082")]).unwrap();
        assert_eq!(named.name.as_deref(), Some("node-a:8082"));
        for wrong in ["node-a", ":8082", "node-a:http"] {
            assert!(read(&[("peer_name", wrong)]).unwrap_err().contains("HOST:PORT"), "{wrong}");
        }
    }
}
