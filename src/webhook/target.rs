//! Where an endpoint is: an URL that may be called at all, whatever its name turns out to mean.

use std::net::IpAddr;

use reqwest::Url;

use super::address::Reach;

const URL_BYTES_MAX: usize = 2_048;

/// Why an URL is nobody's endpoint. The words are meant for whoever registers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadTarget {
    #[error("expected https://HOST, in at most 2,048 visible ASCII characters")]
    NotHttps,
    #[error("an URL with a name and password in it is read by too many; the signature says who calls")]
    Userinfo,
    #[error("a receiver listens at 443, or at 1024 and above")]
    Port,
    #[error("what stands behind # is never sent")]
    Fragment,
}

/// An URL to call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub(super) url: Url,
    pub(super) reach: Reach,
}

impl Target {
    /// Without encryption only this machine is called, and only where loopback is allowed.
    pub fn parse(url: &str, allow_loopback: bool) -> Result<Target, BadTarget> {
        // The parser would forgive spaces, and read a name in other letters as some name in these.
        if url.len() > URL_BYTES_MAX || !url.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(BadTarget::NotHttps);
        }
        let url = Url::parse(url).map_err(|_| BadTarget::NotHttps)?;
        // What is kept is the normal form, and it is read again at each call; writing a letter as `%22` makes it longer.
        if url.as_str().len() > URL_BYTES_MAX {
            return Err(BadTarget::NotHttps);
        }
        let reach = match (url.scheme(), allow_loopback) {
            ("https", false) => Reach::Public,
            ("https", true) => Reach::PublicAndLoopback,
            ("http", true) => Reach::Loopback,
            _ => return Err(BadTarget::NotHttps),
        };
        if url.host_str().is_none_or(str::is_empty) {
            return Err(BadTarget::NotHttps);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(BadTarget::Userinfo);
        }
        if url.port().is_some_and(|port| port < 1024) {
            // The parser leaves the scheme's own port away.
            return Err(BadTarget::Port);
        }
        if url.fragment().is_some() {
            return Err(BadTarget::Fragment);
        }
        Ok(Target { url, reach })
    }

    /// In its normal form.
    pub fn as_str(&self) -> &str {
        self.url.as_str()
    }

    pub(super) fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }

    /// The address that stands in the place of a name. However it was written (`127.1`, `0x7f000001`), the parser has made it
    /// this.
    pub(super) fn literal(&self) -> Option<IpAddr> {
        self.host().trim_matches(['[', ']']).parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_url_is_https_to_a_host_and_nothing_odd() {
        for good in [
            "https://hooks.example.com",
            "https://hooks.example.com/in?token=x",
            "https://example.com:8443/",
            "https://EXAMPLE.com:443/a%20b",
        ] {
            assert!(Target::parse(good, false).is_ok(), "{good}");
        }
        for (bad, why) in [
            ("http://hooks.example.com", BadTarget::NotHttps),
            ("ftp://hooks.example.com", BadTarget::NotHttps),
            ("file:///etc/passwd", BadTarget::NotHttps),
            ("hooks.example.com", BadTarget::NotHttps),
            ("https://", BadTarget::NotHttps),
            (" https://hooks.example.com", BadTarget::NotHttps),
            ("https://hooks.example.com/a b", BadTarget::NotHttps),
            ("https://hooks\u{3002}example.com", BadTarget::NotHttps),
            ("", BadTarget::NotHttps),
            ("https://user@example.com", BadTarget::Userinfo),
            ("https://user:word@example.com", BadTarget::Userinfo),
            ("https://example.com:22", BadTarget::Port),
            ("https://example.com:80", BadTarget::Port),
            ("https://example.com/#x", BadTarget::Fragment),
        ] {
            assert_eq!(Target::parse(bad, false), Err(why), "{bad}");
        }
        assert!(Target::parse(&format!("https://example.com/{}", "x".repeat(2_048)), false).is_err());
        assert!(Target::parse(&format!("https://example.com/{}", "\"".repeat(1_000)), false).is_err());
        assert_eq!(Target::parse("http://127.0.0.1:9", true).unwrap_err(), BadTarget::Port);
        assert_eq!(Target::parse("http://127.0.0.1:9999", true).unwrap().reach, Reach::Loopback);
    }

    #[test]
    fn an_address_is_known_however_it_is_written() {
        for url in [
            "https://127.0.0.1",
            "https://127.1",
            "https://0x7f000001",
            "https://2130706433",
            "https://017700000001",
        ] {
            let target = Target::parse(url, false).unwrap();
            assert_eq!(target.literal(), Some("127.0.0.1".parse().unwrap()), "{url}");
        }
        let mapped = Target::parse("https://[::ffff:127.0.0.1]", false).unwrap();
        assert!(mapped.reach.check(mapped.literal().unwrap()).is_err());
        assert_eq!(Target::parse("https://example.com", false).unwrap().literal(), None);
    }
}
