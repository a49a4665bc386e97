//! A range of addresses: `10.0.0.0/8`, `fd00::/8`, or a single address; which of them may be our proxies; which host is this machine,
//! and where on it whoever listens is reached.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    base: IpAddr,
    /// How many leading bits count.
    bits: u32,
}

impl Network {
    pub fn contains(&self, address: IpAddr) -> bool {
        // A v4 address that came in through a v6 socket is still a v4 address.
        match (self.base, address.to_canonical()) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                let differ = base.to_bits() ^ address.to_bits();
                self.bits == 0 || differ >> (32 - self.bits) == 0
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                let differ = base.to_bits() ^ address.to_bits();
                self.bits == 0 || differ >> (128 - self.bits) == 0
            }
            _ => false,
        }
    }

    /// Whether it holds every address there is.
    fn is_everywhere(&self) -> bool {
        self.bits == 0
    }
}

/// What production does not forgive of our proxies, in front of a shop that answers at `addr`; `is_said`: somebody has named them, or
/// said that there are none.
pub(super) fn wrongs(proxies: &[Network], addr: IpAddr, is_said: bool) -> [(bool, &'static str); 2] {
    [
        (
            proxies.iter().any(Network::is_everywhere),
            "STOCKADE_TRUSTED_PROXIES holds every address there is, so anybody says who he is: name the network of your own proxies",
        ),
        (
            addr.to_canonical().is_loopback() && !is_said,
            "production at an address of this machine alone stands behind a proxy: name it in STOCKADE_TRUSTED_PROXIES, such as 127.0.0.1, or \
             everybody is this machine, without the limits of an address. An empty list says that there is none",
        ),
    ]
}

/// `HOST` of `USER:PASSWORD@HOST:PORT/PATH`.
pub(super) fn host_of(place: &str) -> &str {
    let authority = place.split('/').next().unwrap_or_default();
    let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
    match place.rsplit_once(':') {
        // The colons of an address in brackets are its own.
        Some((host, port)) if !port.ends_with(']') => host,
        _ => place,
    }
}

/// Where a name leads nobody knows, but for this one.
pub(super) fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.trim_matches(['[', ']']).parse().is_ok_and(|host: IpAddr| host.is_loopback())
}

impl FromStr for Network {
    type Err = &'static str;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected addresses or networks, such as 10.0.0.0/8,::1";
        let (base, bits) = word.split_once('/').map_or((word, None), |(base, bits)| (base, Some(bits)));
        let base: IpAddr = base.parse().map_err(|_| EXPECTED)?;
        let widest = if base.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(widest), |bits| bits.parse().map_err(|_| EXPECTED))?;
        if bits <= widest { Ok(Network { base, bits }) } else { Err(EXPECTED) }
    }
}

/// Where this machine reaches whoever listens at `addr`: who listens everywhere is reached here.
pub fn reached_here(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, addr.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_what_shares_its_leading_bits() {
        let holds = |network: &str, address: &str| {
            network.parse::<Network>().unwrap().contains(address.parse().unwrap())
        };
        assert!(holds("10.0.0.0/8", "10.255.3.4"));
        assert!(!holds("10.0.0.0/8", "11.0.0.1"));
        assert!(holds("0.0.0.0/0", "8.8.8.8"));
        assert!(holds("::1", "::1"));
        assert!(!holds("::1", "::2"));
        assert!(holds("10.0.0.0/8", "::ffff:10.1.2.3"));
        assert!("10.0.0.0/33".parse::<Network>().is_err());
    }

    #[test]
    fn our_proxies_are_not_everybody_and_whoever_is_behind_one_says_so() {
        let wrong = |proxies: &[&str], addr: &str, is_said| {
            let proxies: Vec<Network> = proxies.iter().map(|word| word.parse().unwrap()).collect();
            wrongs(&proxies, addr.parse().unwrap(), is_said).iter().any(|(wrong, _)| *wrong)
        };
        for everywhere in ["0.0.0.0/0", "::/0", "10.0.0.0/0"] {
            assert!(wrong(&["10.0.0.1", everywhere], "0.0.0.0", true), "{everywhere}");
        }
        for here in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            assert!(wrong(&[], here, false), "{here}");
            assert!(!wrong(&[], here, true) && !wrong(&["127.0.0.1"], here, true), "{here}");
        }
        assert!(!wrong(&[], "0.0.0.0", false) && !wrong(&["10.0.0.0/8", "fd00::/8"], "10.1.2.3", true));
    }

    #[test]
    fn a_host_is_this_machine_or_another() {
        for here in ["127.0.0.1", "me:pass:wo@rd@127.0.0.9:3306", "localhost:80", "[::1]:80", "[::1]"] {
            assert!(is_this_machine(host_of(here)), "{here}");
        }
        for elsewhere in
            ["db", "127.0.0.1@db:3306", "localhost.example.com", "[fd00::1]:80", "0.0.0.0:80", ""]
        {
            assert!(!is_this_machine(host_of(elsewhere)), "{elsewhere}");
        }
    }

    #[test]
    fn whoever_listens_everywhere_is_reached_here() {
        for (listens, reached) in [
            ("0.0.0.0:8080", "127.0.0.1:8080"),
            ("[::]:8080", "[::1]:8080"),
            ("10.0.0.7:80", "10.0.0.7:80"),
            ("10.1.2.3:80", "10.1.2.3:80"),
        ] {
            assert_eq!(reached_here(listens.parse().unwrap()).to_string(), reached);
        }
    }
}
