//! What mails need to know: who carries them, who they come from, and where their links lead.

use lettre::Address;
use secrecy::SecretString;

use super::network::{host_of, is_this_machine};
use super::{ConfigError, Layers};
use crate::domain::postage::PostageLimits;

/// Whom mails come from where nothing is said: nobody who could be answered.
pub(super) fn sender() -> Address {
    Address::new_dangerous("no-reply", "localhost.localdomain")
}

/// The server that carries mail. A password does not cross a network in the clear.
pub(super) fn smtp_url(layers: &Layers) -> Result<Option<SecretString>, ConfigError> {
    const KEY: &str = "smtp_url";
    let Some(url) = layers.text(KEY) else { return Ok(None) };
    let Some(Carrier { host, has_login, is_encrypted }) = Carrier::of(url) else {
        return Err(layers.bad(KEY, "expected smtps://USER:PASSWORD@HOST or smtp://HOST:587?tls=required"));
    };
    if host.is_empty() {
        return Err(layers.bad(KEY, "expected a host after ://"));
    }
    if has_login && !is_encrypted && !is_this_machine(host) {
        return Err(layers.bad(KEY, "a password needs TLS: smtps://, or ?tls=required at the end"));
    }
    Ok(Some(url.into()))
}

/// Whether letters go to another machine so that whoever is on the way reads them.
pub(super) fn is_in_the_clear(url: &str) -> bool {
    Carrier::of(url).is_some_and(|carrier| !carrier.is_encrypted && !is_this_machine(carrier.host))
}

/// What an address says of the server that carries mail.
struct Carrier<'u> {
    host: &'u str,
    has_login: bool,
    is_encrypted: bool,
}

impl Carrier<'_> {
    fn of(url: &str) -> Option<Carrier<'_>> {
        let (scheme @ ("smtp" | "smtps"), rest) = url.split_once("://")? else { return None };
        let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
        let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
        Some(Carrier {
            host: host_of(place),
            has_login: authority.contains('@'),
            is_encrypted: scheme == "smtps" || query.split('&').any(|pair| pair == "tls=required"),
        })
    }
}

/// How many letters leave in an hour. There is always a bound: whoever wants none names a large one.
pub(super) fn letters(layers: &Layers) -> Result<PostageLimits, ConfigError> {
    Ok(PostageLimits {
        per_hour: layers.positive("letters_per_hour")?,
        unproved_per_hour: layers.positive("unproved_letters_per_hour")?,
    })
}

/// Where people reach the shop, without a slash at the end.
pub(super) fn public_url(layers: &Layers) -> Result<String, ConfigError> {
    const KEY: &str = "public_url";
    let Some(url) = layers.text(KEY) else {
        return Ok(format!("http://{}", layers.text("http_addr").unwrap_or_default()));
    };
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~:/[]%".contains(c);
    match rest.map(|rest| rest.trim_end_matches('/')) {
        Some(rest) if !rest.is_empty() && rest.chars().all(plain) => Ok(url.trim_end_matches('/').to_owned()),
        _ => Err(layers.bad(KEY, "expected https://HOST, with neither ? nor #")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T>(what: fn(&Layers) -> Result<T, ConfigError>, key: &str, value: &str) -> Result<T, String> {
        let variable = (format!("STOCKADE_{}", key.to_uppercase()), value.to_owned());
        Layers::of(None, [variable], []).and_then(|layers| what(&layers)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_password_does_not_cross_a_network_in_the_clear() {
        let smtp = |url| read(smtp_url, "smtp_url", url).map(|url| url.is_some());
        for good in [
            "smtps://shop:hush@mail.example.com",
            "smtp://shop:hush@mail.example.com:587?tls=required",
            "smtp://mail.example.com:25",
            "smtp://shop:hush@127.0.0.1:1025",
            "smtp://shop:hush@[::1]:1025",
        ] {
            assert_eq!(smtp(good), Ok(true), "{good}");
        }
        assert_eq!(smtp(""), Ok(false));
        for bad in ["mail.example.com", "http://mail.example.com", "smtp://", "smtp://:25"] {
            assert!(smtp(bad).is_err(), "{bad}");
        }
        let told = smtp("smtp://shop:hush@mail.example.com:587?tls=opportunistic").unwrap_err();
        assert!(told.contains("TLS") && !told.contains("hush"), "{told}");
    }

    #[test]
    fn letters_always_have_a_bound() {
        assert_eq!(read(letters, "letters_per_hour", "20_000").map(|limits| limits.per_hour), Ok(20_000));
        for key in ["letters_per_hour", "unproved_letters_per_hour"] {
            assert!(read(letters, key, "0").unwrap_err().contains("at least 1"), "{key}");
            assert!(read(letters, key, "many").is_err(), "{key}");
        }
    }

    #[test]
    fn links_lead_where_people_reach_the_shop() {
        let public = |url| read(public_url, "public_url", url);
        assert_eq!(public("https://shop.example.com/"), Ok("https://shop.example.com".to_owned()));
        assert_eq!(public("https://example.com/shop"), Ok("https://example.com/shop".to_owned()));
        assert_eq!(public(""), Ok("http://127.0.0.1:8080".to_owned()));
        assert_eq!(read(public_url, "http_addr", "10.0.0.1:80"), Ok("http://10.0.0.1:80".to_owned()));
        for bad in ["shop.example.com", "https://", "https://a?b", "https://a#b", "ftp://a", "https://a\"b"] {
            assert!(public(bad).is_err(), "{bad}");
        }
    }
}
