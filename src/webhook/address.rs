//! Which addresses may be called: those that everybody could call, and no others.
//!
//! After the special-purpose registries of IANA (RFC 6890 and its successors). Of IPv6 only what is global unicast today is let
//! through, without the blocks in it that lead elsewhere: whatever carries an IPv4 address inside is refused whole, because what it
//! is carried to is decided by somebody else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address that is not called, and what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{address} is {what}")]
pub struct Refused {
    pub address: IpAddr,
    pub what: &'static str,
}

/// How far a call may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// What everybody can reach.
    Public,
    /// That, and this machine: for trying it out.
    PublicAndLoopback,
    /// This machine alone: what is not encrypted goes nowhere else.
    Loopback,
}

#[rustfmt::skip]
const REFUSED_V4: &[(Ipv4Addr, u32, &str)] = &[
    (Ipv4Addr::new(0, 0, 0, 0), 8, "this network"),
    (Ipv4Addr::new(10, 0, 0, 0), 8, "private"),
    (Ipv4Addr::new(100, 64, 0, 0), 10, "shared by a carrier"),
    (Ipv4Addr::new(127, 0, 0, 0), 8, "loopback"),
    (Ipv4Addr::new(169, 254, 0, 0), 16, "link-local"),
    (Ipv4Addr::new(172, 16, 0, 0), 12, "private"),
    (Ipv4Addr::new(192, 0, 0, 0), 24, "reserved for protocols"),
    (Ipv4Addr::new(192, 0, 2, 0), 24, "for documentation"),
    (Ipv4Addr::new(192, 31, 196, 0), 24, "a black hole"),
    (Ipv4Addr::new(192, 52, 193, 0), 24, "a relay"),
    (Ipv4Addr::new(192, 88, 99, 0), 24, "a relay"),
    (Ipv4Addr::new(192, 168, 0, 0), 16, "private"),
    (Ipv4Addr::new(192, 175, 48, 0), 24, "a black hole"),
    (Ipv4Addr::new(198, 18, 0, 0), 15, "for benchmarks"),
    (Ipv4Addr::new(198, 51, 100, 0), 24, "for documentation"),
    (Ipv4Addr::new(203, 0, 113, 0), 24, "for documentation"),
    (Ipv4Addr::new(224, 0, 0, 0), 4, "multicast"),
    (Ipv4Addr::new(240, 0, 0, 0), 4, "reserved, or broadcast"),
];

#[rustfmt::skip]
const REFUSED_V6: &[(Ipv6Addr, u32, &str)] = &[
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23, "reserved for protocols"),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32, "for documentation"),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16, "an IPv4 address inside"),
    (Ipv6Addr::new(0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0), 48, "a black hole"),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20, "for documentation"),
];

/// All of IPv6 that is global unicast today.
const GLOBAL_V6: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

impl Reach {
    /// May this address be called?
    pub fn check(self, address: IpAddr) -> Result<(), Refused> {
        let refused = |what| Err(Refused { address, what });
        match (self, is_loopback(address), not_public(address)) {
            (Reach::Loopback | Reach::PublicAndLoopback, true, _) => Ok(()),
            (Reach::Loopback, false, _) => refused("not loopback"),
            (Reach::Public | Reach::PublicAndLoopback, _, Some(what)) => refused(what),
            (Reach::Public | Reach::PublicAndLoopback, _, None) => Ok(()),
        }
    }
}

/// An IPv4 address written as one of IPv6 is not meant: nobody needs to write it so.
fn is_loopback(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_loopback(),
        IpAddr::V6(address) => address == Ipv6Addr::LOCALHOST,
    }
}

/// What an address is that not everybody can reach.
fn not_public(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => {
            let known = REFUSED_V4
                .iter()
                .find(|(base, bits, _)| (base.to_bits() ^ address.to_bits()) >> (32 - bits) == 0);
            known.map(|(.., what)| *what)
        }
        IpAddr::V6(address) => {
            let within =
                |base: &Ipv6Addr, bits: &u32| (base.to_bits() ^ address.to_bits()) >> (128 - bits) == 0;
            if !within(&GLOBAL_V6.0, &GLOBAL_V6.1) {
                return Some("not global");
            }
            REFUSED_V6.iter().find(|(base, bits, _)| within(base, bits)).map(|(.., what)| *what)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_called_that_is_not_out_in_the_open() {
        #[rustfmt::skip]
        let refused = [
            // This machine and this network.
            "127.0.0.1", "127.255.255.255", "0.0.0.0", "0.1.2.3", "::1", "::",
            // Private, shared, local to a link; the metadata of clouds among them.
            "10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1", "100.64.0.1", "100.127.255.255",
            "169.254.169.254", "169.254.0.1", "100.100.100.200", "fe80::1", "febf::1", "fec0::1", "fc00::1", "fd00:ec2::254",
            // Documentation, benchmarks, protocols.
            "192.0.2.1", "198.51.100.7", "203.0.113.9", "198.18.0.1", "198.19.255.255", "192.0.0.1", "192.0.0.192",
            "2001:db8::1", "3fff:fff::1", "2001:2::1", "2001:20::1", "100::1",
            // Many at once.
            "224.0.0.1", "239.255.255.250", "255.255.255.255", "240.0.0.1", "ff02::1", "ff0e::1",
            // IPv4 inside: mapped, compatible, translated, tunnelled.
            "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:a9fe:a9fe", "::127.0.0.1", "::8.8.8.8", "64:ff9b::7f00:1",
            "64:ff9b::808:808", "64:ff9b:1::1", "2002:7f00:1::1", "2001:0:7f00:1::1", "::ffff:0:127.0.0.1",
            // Nobody's yet.
            "4000::1", "5f00::1", "8000::1",
        ];
        for address in refused {
            let told = Reach::Public.check(address.parse().unwrap());
            assert!(told.is_err(), "{address} may be called");
        }
        #[rustfmt::skip]
        let open = [
            "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.1", "100.63.255.255", "100.128.0.1", "126.255.255.255", "128.0.0.1",
            "169.253.255.255", "169.255.0.1", "172.15.255.255", "172.32.0.1", "192.0.1.1", "192.167.255.255", "192.169.0.1",
            "198.17.255.255", "198.20.0.1", "223.255.255.255", "2606:4700::1111", "2001:4860:4860::8888", "2a00:1450::1",
        ];
        for address in open {
            assert_eq!(Reach::Public.check(address.parse().unwrap()), Ok(()), "{address}");
        }
    }

    #[test]
    fn this_machine_is_called_only_where_that_was_asked_for() {
        let check = |reach: Reach, address: &str| reach.check(address.parse().unwrap()).is_ok();
        for address in ["127.0.0.1", "::1"] {
            assert!(check(Reach::Loopback, address) && check(Reach::PublicAndLoopback, address));
        }
        for address in ["10.0.0.1", "::ffff:127.0.0.1", "169.254.169.254", "0.0.0.0"] {
            assert!(
                !check(Reach::Loopback, address) && !check(Reach::PublicAndLoopback, address),
                "{address}"
            );
        }
        assert!(check(Reach::PublicAndLoopback, "1.1.1.1") && !check(Reach::Loopback, "1.1.1.1"));
    }
}
