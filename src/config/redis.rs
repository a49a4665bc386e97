//! Where Redis is: one server, a cluster, or the one that sentinels name. It may carry a password and is never printed.

use std::str::FromStr;

use secrecy::SecretString;

use super::{ConfigError, Layers};

/// Where a sentinel listens when nothing else is said.
const SENTINEL_PORT: u16 = 26_379;

/// A place where Redis can be asked for. Each address is a URL of its own, `redis://` or `rediss://`.
#[derive(Debug, Clone)]
pub enum Redis {
    Server(SecretString),
    /// Some of its nodes; they tell of the others.
    Cluster(Vec<SecretString>),
    Sentinel {
        sentinels: Vec<SecretString>,
        /// The name under which they watch our servers.
        master: String,
        /// How the server itself is spoken to; its host is what the sentinels say.
        server: SecretString,
    },
}

impl Redis {
    pub(super) fn read(layers: &Layers) -> Result<Option<Redis>, ConfigError> {
        let Some(url) = layers.text("redis_url") else { return Ok(None) };
        url.parse().map(Some).map_err(|why| layers.bad("redis_url", why))
    }
}

impl FromStr for Redis {
    type Err = &'static str;

    fn from_str(url: &str) -> Result<Redis, &'static str> {
        let (scheme, rest) = url.split_once("://").ok_or(EXPECTED)?;
        let (whole, options) = rest.split_once('?').map_or((rest, ""), |(whole, options)| (whole, options));
        // The last one: a password may hold one that nobody has escaped.
        let (login, place) = whole.rsplit_once('@').map_or(("", whole), |(login, place)| (login, place));
        let (hosts, path) = place.split_once('/').unwrap_or((place, ""));
        let hosts: Vec<&str> = hosts.split(',').collect();
        if hosts.iter().any(|host| host.is_empty()) {
            return Err("it names no host");
        }
        let tls = if scheme.starts_with("rediss") { "rediss" } else { "redis" };
        let address = |login: &str, host: &str, path: &str| {
            let at = if login.is_empty() { "" } else { "@" };
            let options = if options.is_empty() { String::new() } else { format!("?{options}") };
            SecretString::from(format!("{tls}://{login}{at}{host}/{path}{options}"))
        };
        match scheme {
            "redis" | "rediss" => match hosts[..] {
                [host] => Ok(Redis::Server(address(login, host, path))),
                _ => Err("several addresses belong to redis-cluster:// or redis-sentinel://"),
            },
            "redis-cluster" | "rediss-cluster" => match path {
                "" => Ok(Redis::Cluster(hosts.iter().map(|host| address(login, host, "")).collect())),
                _ => Err("a cluster has one database, which has no number"),
            },
            "redis-sentinel" | "rediss-sentinel" => {
                let (master, number) = path.split_once('/').unwrap_or((path, ""));
                if master.is_empty() {
                    return Err("it does not say which of their servers: redis-sentinel://HOST,HOST/NAME");
                }
                Ok(Redis::Sentinel {
                    sentinels: hosts.iter().map(|host| address("", &with_port(host), "")).collect(),
                    master: master.to_owned(),
                    server: address(login, "whatever.invalid", number),
                })
            }
            _ => Err(EXPECTED),
        }
    }
}

const EXPECTED: &str = "expected redis://HOST:PORT, redis-cluster://HOST,HOST or redis-sentinel://HOST,HOST/NAME, with rediss for TLS";

fn with_port(host: &str) -> String {
    // The colons of an address in brackets are its own.
    let port = host.rsplit_once(':').filter(|(_, port)| !port.ends_with(']'));
    if port.is_some() { host.to_owned() } else { format!("{host}:{SENTINEL_PORT}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    fn said(urls: &[SecretString]) -> Vec<&str> {
        urls.iter().map(ExposeSecret::expose_secret).collect()
    }

    #[test]
    fn each_kind_of_address_is_read_and_the_others_are_refused_with_a_reason() {
        let Ok(Redis::Server(url)) = Redis::from_str("rediss://me:pass@cache:6380/2") else { panic!() };
        assert_eq!(url.expose_secret(), "rediss://me:pass@cache:6380/2");
        let Ok(Redis::Cluster(nodes)) = Redis::from_str("redis-cluster://:pass@a:1,b:2") else { panic!() };
        assert_eq!(said(&nodes), ["redis://:pass@a:1/", "redis://:pass@b:2/"]);
        let Ok(Redis::Sentinel { sentinels, master, server }) =
            Redis::from_str("rediss-sentinel://:pass@a,[::1],b:7/shop/3")
        else {
            panic!()
        };
        assert_eq!(said(&sentinels), ["rediss://a:26379/", "rediss://[::1]:26379/", "rediss://b:7/"]);
        assert_eq!((&*master, server.expose_secret()), ("shop", "rediss://:pass@whatever.invalid/3"));
        for (bad, why) in [
            ("cache:6379", "expected"),
            ("http://cache", "expected"),
            ("redis://", "no host"),
            ("redis://a,b", "several"),
            ("redis-cluster://a,/", "no host"),
            ("redis-cluster://a/1", "one database"),
            ("redis-sentinel://a,b", "which of their"),
        ] {
            assert!(Redis::from_str(bad).unwrap_err().contains(why), "{bad}");
        }
    }
}
