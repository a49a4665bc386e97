//! Where a request comes from: the address of the connection, or what our own proxies say of it.
//!
//! `X-Forwarded-For` is believed from the right, as far as our own proxies wrote it, and from nobody else. The node at which the
//! connection came in reads it; whichever node answers takes that node's word. What limits count is a neighbourhood: an IPv4
//! address, or the /64 that one IPv6 household gets.

use std::future::{Ready, ready};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use actix_web::dev::Payload;
use actix_web::http::header::{HeaderMap, HeaderName};
use actix_web::{FromRequest, HttpMessage, HttpRequest, web};

use super::problem::Problem;
use super::refusal::internal;
use crate::config::Network;
use crate::peer::Client;

pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Our own proxies, as configured.
#[derive(Debug, Clone)]
pub struct Proxies(pub Arc<[Network]>);

/// Whoever asks, as far as the network tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Neighbourhood {
    address: IpAddr,
    /// The machine itself, and our own proxies where they say of nobody that he asks, have no caps of an address.
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

impl From<Client> for Neighbourhood {
    fn from(client: Client) -> Neighbourhood {
        Neighbourhood { is_exempt: client.is_exempt, ..Neighbourhood::of(client.address) }
    }
}

impl Proxies {
    /// Who asks over a connection from `peer`. Whomever a proxy of ours speaks for is a client, wherever he is said to be: also in a
    /// network of ours, and where it cannot be read. Then he has the proxy's address, and not its freedom.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> Client {
        let said = headers.get_all(X_FORWARDED_FOR).map(|value| value.to_str().unwrap_or("?"));
        let hops: Vec<&str> = said.flat_map(|value| value.split(',')).collect();
        let is_exempt = if self.trust(peer) { hops.is_empty() } else { peer.to_canonical().is_loopback() };
        Client { address: self.behind(peer, hops.into_iter()), is_exempt }
    }

    fn trust(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// The address behind `peer`, after what it and the proxies behind it say, as far as that can be read.
    fn behind<'h>(&self, peer: IpAddr, forwarded: impl DoubleEndedIterator<Item = &'h str>) -> IpAddr {
        let mut client = peer;
        for hop in forwarded.rev() {
            if !self.trust(client) {
                break;
            }
            match address_of(hop.trim()) {
                Some(address) => client = address,
                None => break,
            }
        }
        client
    }
}

/// An address as proxies write it: bare, in brackets, or with a port.
fn address_of(hop: &str) -> Option<IpAddr> {
    let bare = hop.strip_prefix('[').and_then(|hop| hop.strip_suffix(']')).unwrap_or(hop);
    let with_port = || hop.parse::<SocketAddr>().ok().map(|place| place.ip());
    bare.parse().ok().or_else(with_port)
}

impl Neighbourhood {
    /// Where a request comes from; `None`: from nowhere, as in a test.
    pub fn asking(request: &HttpRequest) -> Option<Neighbourhood> {
        // Put there by nobody but the desk that takes other nodes' requests.
        let told = request.extensions().get::<Client>().copied();
        let found = || {
            let proxies = request.app_data::<web::Data<Proxies>>()?;
            Some(proxies.client(request.peer_addr()?.ip(), request.headers()))
        };
        told.or_else(found).map(Neighbourhood::from)
    }
}

impl FromRequest for Neighbourhood {
    type Error = Problem;
    type Future = Ready<Result<Neighbourhood, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Neighbourhood::asking(request).ok_or_else(internal))
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;
    use actix_web::test::TestRequest;

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
        assert_eq!(behind("10.0.0.1", "203.0.113.9:4711"), "203.0.113.9");
        assert_eq!(behind("10.0.0.1", "1.1.1.1, [2001:db8::7]:80, [fd00::1]"), "2001:db8::7");
        assert_eq!(behind("10.0.0.1", ""), "10.0.0.1");
    }

    #[test]
    fn whoever_is_said_to_ask_has_the_caps_of_an_address_wherever_that_is() {
        let ours = Proxies(Arc::new(["10.0.0.0/8".parse().unwrap(), "127.0.0.1".parse().unwrap()]));
        let is_exempt = |peer: [u8; 4], said: Option<&'static [u8]>| {
            let mut headers = HeaderMap::new();
            if let Some(said) = said {
                headers.insert(X_FORWARDED_FOR, HeaderValue::from_bytes(said).unwrap());
            }
            ours.client(peer.into(), &headers).is_exempt
        };
        for peer in [[10, 0, 0, 1], [127, 0, 0, 1]] {
            assert!(is_exempt(peer, None), "{peer:?} for itself");
            for said in [
                &b"203.0.113.9"[..],
                b"10.0.0.2",
                b"10.0.0.3, 10.0.0.2",
                b"127.0.0.1",
                b"::1",
                b"127.0.0.1, 10.0.0.1",
            ] {
                assert!(!is_exempt(peer, Some(said)), "{peer:?} {said:?}");
            }
        }
        // Whoever is no proxy of ours says nothing of anybody.
        assert!(is_exempt([127, 0, 0, 9], Some(b"203.0.113.9")));
        assert!(!is_exempt([203, 0, 113, 9], Some(b"127.0.0.1")));
    }

    #[test]
    fn whoever_is_hidden_behind_a_proxy_has_the_caps_of_an_address() {
        let ours = Proxies(Arc::new(["10.0.0.0/8".parse().unwrap()]));
        for hidden in [&b"unknown"[..], b"", b"_hidden", b"10.0.0.2,", b"127.0.0.1, 203.0.113.9", b"\xff"] {
            let mut headers = HeaderMap::new();
            headers.insert(X_FORWARDED_FOR, HeaderValue::from_bytes(hidden).unwrap());
            assert!(!ours.client([10, 0, 0, 1].into(), &headers).is_exempt, "{hidden:?}");
        }
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

    #[actix_web::test]
    async fn whichever_node_answers_takes_the_word_of_the_one_where_somebody_came_in() {
        let ours = Proxies(Arc::new(["10.0.0.0/8".parse().unwrap()]));
        let asking = || {
            let asking = TestRequest::default().app_data(web::Data::new(ours.clone()));
            asking.peer_addr(([10, 0, 0, 1], 80).into()).insert_header((X_FORWARDED_FOR, "203.0.113.9"))
        };
        let of = |request: HttpRequest| async move { Neighbourhood::extract(&request).await.ok() };
        let here = of(asking().to_http_request()).await.unwrap();
        assert_eq!((here, here.is_exempt), (Neighbourhood::of([203, 0, 113, 9].into()), false));
        for is_exempt in [false, true] {
            let told = Client { address: "2001:db8::7".parse().unwrap(), is_exempt };
            let request = asking().to_http_request();
            request.extensions_mut().insert(told);
            assert_eq!(of(request).await, Some(told.into()));
        }
        let nowhere = TestRequest::default().app_data(web::Data::new(ours.clone())).to_http_request();
        assert_eq!(of(nowhere).await, None);
        let proxy = ours.client([10, 0, 0, 1].into(), &HeaderMap::new());
        assert!(proxy.is_exempt && !ours.client([192, 0, 2, 1].into(), &HeaderMap::new()).is_exempt);
    }
}
