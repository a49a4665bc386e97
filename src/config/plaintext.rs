//! What crosses a network so that whoever is on the way reads it: in production nothing, unless somebody says that it may.

use super::network::{host_of, is_this_machine};
use super::{ConfigError, Layers, mail};

/// What production does not forgive, unless it `may` be.
pub(super) fn wrongs(layers: &Layers, may: bool) -> [(bool, &'static str); 4] {
    let crosses = |key, crosses: fn(&str) -> bool| !may && layers.text(key).is_some_and(crosses);
    [
        (
            crosses("database_url", database_is_in_the_clear),
            "production speaks to a database on another machine over TLS alone, which it would do without if the server has none: end \
             STOCKADE_DATABASE_URL with ?ssl-mode=VERIFY_IDENTITY (or VERIFY_CA, or REQUIRED, which believes any certificate), or say \
             STOCKADE_ALLOW_PLAINTEXT=true where nobody else is on that network",
        ),
        (
            crosses("redis_url", redis_is_in_the_clear),
            "production speaks to a Redis on another machine over TLS alone: begin STOCKADE_REDIS_URL with rediss, or say \
             STOCKADE_ALLOW_PLAINTEXT=true where nobody else is on that network",
        ),
        (
            crosses("smtp_url", mail::is_in_the_clear),
            "production hands letters, and the links in them, to another machine over TLS alone: STOCKADE_SMTP_URL with smtps://, or \
             ?tls=required at its end, or say STOCKADE_ALLOW_PLAINTEXT=true where nobody else is on that network",
        ),
        (
            crosses("public_url", page_is_in_the_clear) && !layers.is_default("public_url"),
            "production is reached over TLS: begin STOCKADE_PUBLIC_URL with https://, or say STOCKADE_ALLOW_PLAINTEXT=true where nobody \
             else is on that network",
        ),
    ]
}

/// Whether it may: the setting, which is looked at in every profile.
pub(super) fn may_be(layers: &Layers) -> Result<bool, ConfigError> {
    layers.parsed("allow_plaintext")
}

/// A server without TLS is spoken to in the clear unless the address asks for more; of two words the last one counts.
fn database_is_in_the_clear(url: &str) -> bool {
    let Some(("mysql" | "mariadb", rest)) = url.split_once("://") else { return false };
    let whole = rest.split_once('#').map_or(rest, |(whole, _)| whole);
    let (place, query) = whole.split_once('?').unwrap_or((whole, ""));
    let said = |names: &[&str]| {
        let mut pairs = query.rsplit('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(name, _)| names.contains(name)).map(|(_, word)| word.to_ascii_lowercase())
    };
    let is_encrypted = said(&["ssl-mode", "sslmode"])
        .is_some_and(|mode| ["required", "verify_ca", "verify_identity"].contains(&mode.as_str()));
    let host = host_of(place);
    let is_here = is_this_machine(host) || said(&["socket"]).is_some();
    !is_encrypted && !is_here
}

/// Sentinels and clusters lead to servers that nobody has named here.
fn redis_is_in_the_clear(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else { return false };
    let whole = rest.split_once('?').map_or(rest, |(whole, _)| whole);
    let place = whole.rsplit_once('@').map_or(whole, |(_, place)| place);
    let is_here = scheme == "redis" && is_this_machine(host_of(place));
    !scheme.starts_with("rediss") && !is_here
}

fn page_is_in_the_clear(url: &str) -> bool {
    let host = |rest: &str| is_this_machine(host_of(rest));
    url.strip_prefix("http://").is_some_and(|rest| !host(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a setting is refused, and what is told then.
    fn refused(pairs: &[(&str, &str)]) -> Option<&'static str> {
        let variables =
            pairs.iter().map(|(key, value)| (format!("STOCKADE_{}", key.to_uppercase()), value.to_string()));
        let layers = Layers::of(None, variables, []).unwrap();
        let may = may_be(&layers).unwrap();
        wrongs(&layers, may).into_iter().find(|(wrong, _)| *wrong).map(|(_, why)| why)
    }

    #[test]
    fn what_crosses_a_network_is_encrypted_or_admitted() {
        let names = [
            ("database_url", "STOCKADE_DATABASE_URL"),
            ("redis_url", "STOCKADE_REDIS_URL"),
            ("smtp_url", "STOCKADE_SMTP_URL"),
            ("public_url", "STOCKADE_PUBLIC_URL"),
        ];
        for (key, open) in [
            ("database_url", "mysql://shop:hush@db:3306/shop"),
            ("database_url", "mariadb://db/shop?ssl-mode=PREFERRED"),
            ("database_url", "mysql://10.0.0.1/shop?ssl-mode=disabled"),
            ("database_url", "mysql://127.0.0.1@db/shop"),
            ("database_url", "mysql://db/shop?ssl-mode=REQUIRED&sslmode=PREFERRED"),
            ("database_url", "mysql://db/shop?charset=utf8mb4#?ssl-mode=REQUIRED"),
            ("database_url", "mysql://db/shop?ssl-mode="),
            ("redis_url", "redis://cache:6379"),
            ("redis_url", "redis://:hush@[fd00::1]/2"),
            ("redis_url", "redis-cluster://127.0.0.1,cache"),
            ("redis_url", "redis-sentinel://127.0.0.1/shop"),
            ("smtp_url", "smtp://mail:1025"),
            ("smtp_url", "smtp://mail.example.com:587?tls=opportunistic"),
            ("public_url", "http://shop.example.com"),
            ("public_url", "http://localhost.example.com:8080/shop"),
        ] {
            let why = refused(&[(key, open)]).unwrap_or_else(|| panic!("{open}"));
            let name = names.iter().find(|(named, _)| *named == key).map(|(_, name)| *name);
            assert!(why.contains(name.unwrap()) && why.contains("STOCKADE_ALLOW_PLAINTEXT"), "{open}: {why}");
            assert_eq!(refused(&[(key, open), ("allow_plaintext", "true")]), None, "{open}");
        }
    }

    #[test]
    fn what_is_encrypted_or_stays_on_this_machine_is_nobody_elses() {
        for (key, closed) in [
            ("database_url", "mysql://shop:hush@db:3306/shop?ssl-mode=VERIFY_IDENTITY"),
            ("database_url", "mysql://db/shop?charset=utf8mb4&sslmode=verify_ca"),
            ("database_url", "mariadb://db/shop?ssl-mode=REQUIRED"),
            ("database_url", "mysql://shop:hu@sh@127.0.0.1:3306/shop"),
            ("database_url", "mysql://localhost/shop?socket=/run/mysqld/mysqld.sock"),
            ("database_url", "sqlite://data"),
            ("redis_url", "rediss://cache"),
            ("redis_url", "rediss-sentinel://cache/shop"),
            ("redis_url", "rediss-cluster://a,b"),
            ("redis_url", "redis://:hush@[::1]:6379/2"),
            ("smtp_url", "smtps://shop:hush@mail.example.com"),
            ("smtp_url", "smtp://mail.example.com:587?tls=required"),
            ("smtp_url", "smtp://[::1]"),
            ("public_url", "https://shop.example.com"),
            ("public_url", "http://127.0.0.1:8080/"),
            // Nobody has said it: no letter leaves the house with it.
            ("http_addr", "0.0.0.0:8080"),
        ] {
            assert_eq!(refused(&[(key, closed)]), None, "{closed}");
        }
    }
}
