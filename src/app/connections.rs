//! How many connections one address may have at a time.
//!
//! It owns a count for each address that is connected. Always true: a count is that of the connections that are open and were not hung
//! up on, and whoever has none is forgotten. Loopback and our own proxies have no cap: many people come through them.

use std::any::Any;
use std::net::IpAddr;
use std::sync::Arc;

use actix_web::dev::Extensions;
use actix_web::http::header::HeaderMap;
use actix_web::rt::net::TcpStream;
use dashmap::DashMap;

use crate::http::{Neighbourhood, Proxies};
use crate::telemetry;

/// What a refusal is counted under.
const REFUSED: &str = "too_many_connections";

/// The connections of one listener. Cheap to clone.
#[derive(Clone)]
pub struct Connections(Arc<Counts>);

struct Counts {
    open: DashMap<Neighbourhood, u32>,
    most: u32,
    proxies: Proxies,
}

/// A connection that counts for as long as this is held.
pub struct Counted {
    counts: Arc<Counts>,
    from: Neighbourhood,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.counts.open.remove_if_mut(&self.from, |_, open| {
            *open = open.saturating_sub(1);
            *open == 0
        });
    }
}

/// There are as many already as one address may have.
#[derive(Debug, PartialEq, Eq)]
pub struct TooMany;

impl Connections {
    pub fn new(most: u32, proxies: Proxies) -> Connections {
        Connections(Arc::new(Counts { open: DashMap::new(), most, proxies }))
    }

    /// A connection that has just come in: it is counted, or hung up on before anything of it is read.
    pub fn meet(&self, connection: &dyn Any, held: &mut Extensions) {
        let Some(stream) = connection.downcast_ref::<TcpStream>() else { return };
        let Ok(peer) = stream.peer_addr() else { return };
        match self.take(peer.ip()) {
            Ok(Some(counted)) => drop(held.insert(counted)),
            Ok(None) => {}
            Err(TooMany) => {
                telemetry::refused(REFUSED);
                // It is read as one that has ended, and gone a moment later.
                let _ = rustix::net::shutdown(stream, rustix::net::Shutdown::Both);
            }
        }
    }

    /// `None`: whoever comes from there is not counted.
    fn take(&self, peer: IpAddr) -> Result<Option<Counted>, TooMany> {
        let from = Neighbourhood::from(self.0.proxies.client(peer, &HeaderMap::new()));
        if from.is_exempt {
            return Ok(None);
        }
        let mut open = self.0.open.entry(from).or_insert(0);
        if *open >= self.0.most {
            return Err(TooMany);
        }
        *open += 1;
        Ok(Some(Counted { counts: self.0.clone(), from }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn most(most: u32) -> Connections {
        Connections::new(most, Proxies(Arc::new(["10.0.0.0/8".parse().unwrap()])))
    }

    #[test]
    fn an_address_has_its_connections_and_takes_none_of_others() {
        let connections = most(3);
        let take = |address: &str| connections.take(address.parse().unwrap());
        let mut open: Vec<_> = (0..3).map(|_| take("203.0.113.9").ok().flatten().unwrap()).collect();
        assert_eq!(take("203.0.113.9").err(), Some(TooMany));
        assert_eq!(take("::ffff:203.0.113.9").err(), Some(TooMany), "the same, over IPv6");
        open.push(take("203.0.113.8").ok().flatten().unwrap());
        let household = |last: u16| take(&format!("2001:db8:1:2::{last}"));
        let theirs: Vec<_> = (1..=3).map(|last| household(last).ok().flatten().unwrap()).collect();
        assert_eq!(household(4).err(), Some(TooMany));
        drop(open.swap_remove(0));
        assert!(take("203.0.113.9").is_ok_and(|again| again.is_some()));
        drop((open, theirs));
        assert!(connections.0.open.is_empty(), "whoever has gone is forgotten");
    }

    #[test]
    fn the_machine_itself_and_our_proxies_have_as_many_as_they_like() {
        let connections = most(1);
        for address in ["127.0.0.1", "::1", "10.1.2.3", "::ffff:127.0.0.9"] {
            let all = (0..50).map(|_| connections.take(address.parse().unwrap()));
            assert!(all.into_iter().all(|taken| taken.is_ok_and(|counted| counted.is_none())), "{address}");
        }
    }
}
