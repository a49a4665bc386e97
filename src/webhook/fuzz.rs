//! Where somebody wants to be told something, for `crate::fuzz`.

use std::net::IpAddr;

use secrecy::ExposeSecret;

use super::{Reach, Secret, Target};

/// An URL that is taken leads by https to a host; an address in it is out in the open, however it was written. And signatures with
/// whatever secret.
pub fn targets(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(target) = Target::parse(&text, false) {
        let url = target.as_str();
        let place = url.strip_prefix("https://").and_then(|rest| rest.split('/').next());
        assert!(place.is_some_and(|place| !place.is_empty() && !place.contains('@')), "{url}");
        assert_eq!(target.reach, Reach::Public);
        assert_eq!(Target::parse(url, false).as_ref(), Ok(&target), "the normal form of {text:?}");
        if let Some(address) = target.literal()
            && Reach::Public.check(address).is_ok()
        {
            assert!(is_open(address), "{address} of {text:?}");
        }
    }
    if let Ok(target) = Target::parse(&text, true)
        && target.as_str().starts_with("http://")
    {
        assert_eq!(target.reach, Reach::Loopback);
    }
    if let Ok(secret) = Secret::from_bytes(bytes.to_vec()) {
        assert!((24..=64).contains(&secret.expose().len()));
        assert!(secret.word().expose_secret().starts_with("whsec_"));
        assert_ne!(secret.sign("evt_1", 1, &text), secret.sign("evt_1", 2, &text));
    }
}

/// What the standard library calls neither private nor special, in its own words.
fn is_open(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            !(v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_broadcast()
                || v4.is_documentation()
                || v4.is_unspecified()
                || v4.is_multicast())
        }
        IpAddr::V6(v6) => {
            let mapped = v6.to_ipv4_mapped().is_some();
            let local = v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local();
            !(mapped || local || v6.is_unspecified() || v6.is_multicast())
        }
    }
}
