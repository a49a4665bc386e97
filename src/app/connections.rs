//! Who may connect: so many connections of one address at a time, and as many in all as the system gives files for.

use std::net::IpAddr;

use actix_web::dev::Extensions;
use actix_web::http::header::HeaderMap;
use actix_web::rt::net::TcpStream;

use crate::http::{Neighbourhood, Place, Places, Proxies, TooMany};
use crate::telemetry;

/// What a refusal is counted under.
const REFUSED: &str = "too_many_connections";

/// Each connection is a file. Shells and containers give few, and let whoever asks have more.
pub fn take_all_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
}

/// The connections of one listener. Cheap to clone.
#[derive(Clone)]
pub struct Connections {
    places: Places,
    proxies: Proxies,
}

impl Connections {
    pub fn new(most: u32, proxies: Proxies) -> Connections {
        Connections { places: Places::new(most), proxies }
    }

    /// A connection that has just come in: it is counted, or hung up on before anything of it is read.
    pub fn meet(&self, stream: &TcpStream, held: &mut Extensions) {
        let Ok(peer) = stream.peer_addr() else { return };
        match self.take(peer.ip()) {
            Ok(place) => drop(held.insert(place)),
            Err(TooMany) => {
                telemetry::refused(REFUSED);
                // It is read as one that has ended, and gone a moment later.
                let _ = rustix::net::shutdown(stream, rustix::net::Shutdown::Both);
            }
        }
    }

    fn take(&self, peer: IpAddr) -> Result<Place, TooMany> {
        self.places.take(Neighbourhood::from(self.proxies.client(peer, &HeaderMap::new())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_itself_and_our_proxies_have_as_many_as_they_like() {
        let connections = Connections::new(1, Proxies(["10.0.0.0/8".parse().unwrap()].into()));
        let take = |address: &str| connections.take(address.parse().unwrap());
        for address in ["127.0.0.1", "::1", "10.1.2.3", "::ffff:127.0.0.9"] {
            let all: Vec<_> = (0..50).map(|_| take(address)).collect();
            assert!(all.iter().all(Result::is_ok), "{address}");
        }
        let theirs = take("203.0.113.9").unwrap();
        assert_eq!(take("203.0.113.9").err(), Some(TooMany));
        drop(theirs);
    }
}
