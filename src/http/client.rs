//! Where a request comes from: the address of the connection, or what our own proxies say of it.
//!
//! `X-Forwarded-For` is believed from the right, as far as our own proxies wrote it, and from nobody else. What limits
//! count is a neighbourhood: an IPv4 address, or the /64 that one IPv6 household gets.

use std::future::{Ready, ready};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, web};

use super::problem::Problem;
use super::refusal::internal;
use crate::config::Network;

/// Our own proxies, as configured.
#[derive(Debug, Clone)]
pub struct Proxies(pub Arc<[Network]>);

/// Whoever asks, as far as the network tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Neighbourhood {
    address: IpAddr,
    /// The machine itself, and our own proxies where they speak for themselves, have no caps of an address.
    pub is_exempt: bool,
}

impl Neighbourhood {
    pub fn of(address: IpAddr) -> Neighbourhood {
        let address = address.to_canonical();
        let is_exempt = address.is_loopback();
        let address = match address {
            IpAddr::V4(v4) => IpAddr::V4(v4),
            IpAddr::V6(v6) if is_exempt => IpAddr::V6(v6),
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        };
        Neighbourhood { address, is_exempt }
    }
}

impl Proxies {
    fn trust(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// The address behind `peer`, after what it and the proxies behind it say.
    fn behind<'h>(&self, peer: IpAddr, forwarded: impl DoubleEndedIterator<Item = &'h str>) -> IpAddr {
        let mut client = peer;
        for hop in forwarded.rev() {
            if !self.trust(client) {
                break;
            }
            match hop.trim().parse() {
                Ok(address) => client = address,
                Err(_) => break,
            }
        }
        client
    }
}

impl FromRequest for Neighbourhood {
    type Error = Problem;
    type Future = Ready<Result<Neighbourhood, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let (Some(proxies), Some(peer)) = (request.app_data::<web::Data<Proxies>>(), request.peer_addr())
        else {
            return ready(Err(internal()));
        };
        let headers = request.headers().get_all("x-forwarded-for").filter_map(|value| value.to_str().ok());
        let hops: Vec<&str> = headers.flat_map(|value| value.split(',')).collect();
        let client = proxies.behind(peer.ip(), hops.into_iter());
        let there = Neighbourhood::of(client);
        ready(Ok(Neighbourhood { is_exempt: there.is_exempt || proxies.trust(client), ..there }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn behind(peer: &str, forwarded: &str) -> String {
        let ours = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let hops: Vec<&str> = forwarded.split(',').filter(|hop| !hop.is_empty()).collect();
        Proxies(Arc::new(ours)).behind(peer.parse().unwrap(), hops.into_iter()).to_string()
    }

    #[test]
    fn only_our_own_proxies_are_believed_and_only_for_what_they_saw() {
        assert_eq!(behind("203.0.113.9", "1.1.1.1"), "203.0.113.9");
        assert_eq!(behind("10.0.0.1", "203.0.113.9"), "203.0.113.9");
        assert_eq!(behind("10.0.0.1", "1.1.1.1, 203.0.113.9,10.0.0.2"), "203.0.113.9");
        assert_eq!(behind("fd00::1", "2001:db8::7"), "2001:db8::7");
        assert_eq!(behind("10.0.0.1", "nonsense"), "10.0.0.1");
        assert_eq!(behind("10.0.0.1", ""), "10.0.0.1");
    }

    #[test]
    fn an_ipv6_household_is_one_neighbourhood() {
        let of = |word: &str| Neighbourhood::of(word.parse().unwrap());
        assert_eq!(of("2001:db8:1:2:3::4"), of("2001:db8:1:2:ffff::1"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:203.0.113.9"), of("203.0.113.9"));
        assert_ne!(of("203.0.113.9"), of("203.0.113.8"));
        assert!(of("::1").is_exempt && of("127.0.0.9").is_exempt && !of("10.0.0.1").is_exempt);
    }
}
