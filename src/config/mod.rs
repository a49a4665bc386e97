//! What the operator may choose, and where each choice came from.
//!
//! A setting has one name. It is a flag (`--http-addr`), a variable (`STOCKADE_HTTP_ADDR`) and a key of `stockade.toml`
//! (`http_addr`); the first of these that is there counts, then the default. Where there is a default an empty value is as never
//! said, but for `profile`, which is refused. [`SETTINGS`] lists them all, and the command line, `stockade config` and the README's
//! table are made from it or compared with it. An unknown key is an error. A [`Config`] that exists is one the engine can start with.

mod backups;
mod days;
mod layers;
mod mail;
mod master_key;
mod network;
mod payment;
mod peers;
mod people;
mod plaintext;
mod redis;
mod settings;
mod tokens;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use lettre::message::Mailbox;
use secrecy::{ExposeSecret, SecretString};

use crate::domain::postage::PostageLimits;
use mail::sender;

pub use self::redis::Redis;
pub use backups::Backups;
pub use days::Days;
pub use layers::{Effective, Layers, Origin};
pub use master_key::{MASTER_KEY_BYTES, MasterKey, MasterKeys};
pub use network::{Network, reached_here};
pub use payment::{Payment, PaymentProvider, STRIPE_URL, SimulatedPayment, StripeAccount};
pub use peers::Peers;
pub use people::People;
pub use settings::{SETTINGS, Setting};
pub use tokens::{JwtAlgorithm, Tokens};

/// The least a signing secret may have in production, in bytes.
pub const SECRET_BYTES_MIN: usize = 32;
/// The size of a file of the log, but in tests. At a few thousand orders a second it lasts for seconds.
pub const JOURNAL_FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Words of sample configurations. A production secret must not contain one.
const SAMPLE_WORDS: [&str; 10] = [
    "changeme",
    "change-me",
    "change_me",
    "secret",
    "password",
    "example",
    "sample",
    "development",
    "for tests",
    "openssl",
];

/// How much is forgiven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    Development,
    Production,
}

/// A usable configuration.
#[derive(Debug, Clone)]
pub struct Config {
    pub profile: Profile,
    pub store: Store,
    pub http: Http,
    pub peers: Peers,
    pub tokens: Tokens,
    pub people: People,
    pub mail: Mail,
    pub payment: Payment,
    pub webhooks: Webhooks,
    pub backups: Backups,
    pub days: Days,
    pub limits: Limits,
}

#[derive(Debug, Clone)]
pub struct Store {
    /// Where the journal and the tables are kept, if no database is named; and what a node keeps for itself.
    pub data_dir: PathBuf,
    /// `mysql://…`: the database that keeps both for many nodes.
    pub database_url: Option<SecretString>,
    /// Where stock is mirrored, if anywhere. Nothing is kept there alone.
    pub redis: Option<Redis>,
    /// Zero but in tests of overload.
    pub journal_brake: Duration,
    /// How large a file of the journal's log is; smaller in tests of power cuts.
    pub journal_file_bytes: u64,
}

#[derive(Debug, Clone)]
pub struct Http {
    pub addr: SocketAddr,
    pub ops_addr: Option<SocketAddr>,
    pub trusted_proxies: Vec<Network>,
    pub workers: usize,
    /// Of one worker.
    pub connections_max: usize,
    /// Of one listener. Loopback and our own proxies have as many as they like.
    pub connections_per_address: u32,
    /// How long a connection may be idle.
    pub keep_alive: Duration,
    pub shutdown: Duration,
    /// Where people reach the shop, without a slash at its end, if somebody has said so.
    pub public_url: Option<String>,
}

#[derive(Debug, Clone)]
pub struct Mail {
    /// `None`: mails are written to a folder.
    pub smtp_url: Option<SecretString>,
    /// Whose word for the server is believed besides everybody's.
    pub smtp_roots: Option<PathBuf>,
    pub from: Mailbox,
    /// Without a slash at its end.
    pub public_url: String,
    /// How long before a hold lapses its buyer is reminded; zero: never.
    pub hold_reminder: Duration,
    /// How many leave in an hour.
    pub letters: PostageLimits,
}

#[derive(Debug, Clone)]
pub struct Webhooks {
    /// Endpoints may be on this machine.
    pub allow_loopback: bool,
}

#[derive(Debug, Clone)]
pub struct Limits {
    /// Orders a second.
    pub order_rate_per_user: u32,
    pub order_burst_per_user: u32,
    /// Requests a second.
    pub look_rate_per_address: u32,
    pub change_rate_per_address: u32,
    pub flush_lag_bytes_max: u64,
    pub queue_wait_max: Duration,
}

/// Why there is no configuration to start with. The words are meant for the operator.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{file}: {reason}")]
    File { file: String, reason: String },
    #[error("{origin}: there is no setting called `{key}`{hint}")]
    Unknown { origin: String, key: String, hint: String },
    #[error("{key} = `{value}` ({origin}): {reason}")]
    Value { key: &'static str, value: String, origin: String, reason: String },
    #[error("environment {name}: what it says is not UTF-8")]
    Unreadable { name: String },
    #[error("{0}")]
    Production(&'static str),
}

impl Config {
    /// Every setting at its default but the place of the data and a free port. For tests and demonstrations.
    pub fn development(data_dir: &Path) -> Config {
        Config {
            profile: Profile::Development,
            store: Store {
                data_dir: data_dir.to_owned(),
                database_url: None,
                redis: None,
                journal_brake: Duration::ZERO,
                journal_file_bytes: JOURNAL_FILE_BYTES_MAX,
            },
            http: Http {
                addr: SocketAddr::from(([127, 0, 0, 1], 0)),
                ops_addr: None,
                trusted_proxies: Vec::new(),
                workers: 2,
                connections_max: 10_000,
                connections_per_address: 100,
                keep_alive: Duration::from_secs(30),
                shutdown: Duration::from_secs(10),
                public_url: None,
            },
            peers: Peers::development(),
            tokens: Tokens::development(),
            people: People::development(),
            mail: Mail {
                smtp_url: None,
                smtp_roots: None,
                from: Mailbox::new(Some("Stockade".to_owned()), sender()),
                public_url: "http://127.0.0.1:8080".to_owned(),
                hold_reminder: Duration::from_secs(120),
                letters: PostageLimits { per_hour: 100_000, unproved_per_hour: 10_000 },
            },
            payment: Payment::development(),
            webhooks: Webhooks { allow_loopback: false },
            backups: Backups::development(),
            days: Days::development(),
            limits: Limits {
                order_rate_per_user: 50,
                order_burst_per_user: 200,
                look_rate_per_address: 1_000,
                change_rate_per_address: 300,
                flush_lag_bytes_max: 1 << 30,
                queue_wait_max: Duration::from_millis(250),
            },
        }
    }

    /// Where the shop answers, whatever else is missing.
    pub fn http_addr(layers: &Layers) -> Result<SocketAddr, ConfigError> {
        layers.parsed("http_addr")
    }

    /// Reads the merged layers; refuses what the engine could not start with.
    pub fn read(layers: &Layers) -> Result<Config, ConfigError> {
        let milliseconds = |key| layers.number::<u64>(key).map(Duration::from_millis);
        let profile = layers.parsed("profile")?;
        let config = Config {
            profile,
            store: Store {
                data_dir: data_dir(layers)?,
                database_url: database_url(layers)?,
                redis: Redis::read(layers)?,
                journal_brake: Duration::from_micros(layers.number("journal_brake_us")?),
                journal_file_bytes: journal_file_bytes(layers)?,
            },
            http: Http {
                addr: Config::http_addr(layers)?,
                ops_addr: layers.text("ops_addr").map(|_| layers.parsed("ops_addr")).transpose()?,
                trusted_proxies: layers.list("trusted_proxies")?,
                workers: workers(layers)?,
                connections_max: layers.positive("connections_max")?,
                connections_per_address: layers.positive("connections_per_address")?,
                keep_alive: Duration::from_millis(layers.positive("keep_alive_ms")?),
                shutdown: milliseconds("shutdown_ms")?,
                public_url: layers.text("public_url").map(|_| mail::public_url(layers)).transpose()?,
            },
            peers: Peers::read(layers)?,
            tokens: Tokens::read(layers)?,
            people: People::read(layers, profile)?,
            mail: Mail {
                smtp_url: mail::smtp_url(layers)?,
                smtp_roots: layers.text("smtp_roots").map(PathBuf::from),
                from: layers.parsed("mail_from")?,
                public_url: mail::public_url(layers)?,
                hold_reminder: milliseconds("hold_reminder_ms")?,
                letters: mail::letters(layers)?,
            },
            payment: Payment::read(layers)?,
            webhooks: Webhooks { allow_loopback: layers.parsed("webhook_allow_loopback")? },
            backups: Backups::read(layers)?,
            days: Days::read(layers)?,
            limits: Limits {
                order_rate_per_user: layers.positive("order_rate_per_user")?,
                order_burst_per_user: layers.positive("order_burst_per_user")?,
                look_rate_per_address: layers.positive("look_rate_per_address")?,
                change_rate_per_address: layers.positive("change_rate_per_address")?,
                flush_lag_bytes_max: layers.positive("flush_lag_bytes_max")?,
                queue_wait_max: Duration::from_millis(layers.positive("queue_wait_ms_max")?),
            },
        };
        config.fit_for_many(layers)?;
        config.fit_for_its_profile(layers)?;
        Ok(config)
    }

    /// What one node signs and seals the next one must be able to read.
    fn fit_for_many(&self, layers: &Layers) -> Result<(), ConfigError> {
        let Some(_) = self.store.database_url else { return Ok(()) };
        let (secret, keys) = (self.tokens.secret.is_some(), self.people.master_keys.is_some());
        #[rustfmt::skip]
        let wrongs = [
            (!secret, "every node on a database needs the same STOCKADE_JWT_SECRET; `openssl rand -hex 32` makes a good one"),
            (!keys, "every node on a database needs the same STOCKADE_MASTER_KEY; `openssl rand -hex 32` makes a good one"),
        ];
        let wrong = wrongs.into_iter().find(|(wrong, _)| *wrong);
        wrong.map_or(Ok(()), |(_, why)| Err(layers.bad("database_url", why)))
    }

    fn fit_for_its_profile(&self, layers: &Layers) -> Result<(), ConfigError> {
        let may_be_plain = plaintext::may_be(layers)?;
        if self.profile == Profile::Development {
            return Ok(());
        }
        let secret = self.tokens.secret.as_ref().map(ExposeSecret::expose_secret).unwrap_or_default();
        let keys = &self.people.master_keys;
        let sends = self.mail.smtp_url.is_some();
        let Http { addr, trusted_proxies, .. } = &self.http;
        let proxies = network::wrongs(trusted_proxies, addr.ip(), !layers.is_default("trusted_proxies"));
        #[rustfmt::skip]
        let wrongs = [
            (secret.is_empty(), "production needs STOCKADE_JWT_SECRET; `openssl rand -hex 32` makes a good one"),
            (secret.len() < SECRET_BYTES_MIN, "STOCKADE_JWT_SECRET is shorter than 32 bytes; `openssl rand -hex 32` makes a good one"),
            (weak(secret), "STOCKADE_JWT_SECRET looks like a sample; `openssl rand -hex 32` makes a good one"),
            (self.tokens.former.iter().any(|former| weak(former.expose_secret())), "a secret of STOCKADE_JWT_SECRETS_FORMER is short or looks like a sample, and whoever guesses it is believed; `openssl rand -hex 32` makes a good one"),
            (keys.is_none(), "production needs STOCKADE_MASTER_KEY, and keeps it: what it sealed opens with nothing else; `openssl rand -hex 32` makes a good one"),
            (keys.as_ref().is_some_and(MasterKeys::holds_a_sample), "STOCKADE_MASTER_KEY looks like a sample; `openssl rand -hex 32` makes a good one"),
            (self.http.ops_addr.is_none(), "production needs STOCKADE_OPS_ADDR, an address that only operators reach, such as 127.0.0.1:9090"),
            (self.webhooks.allow_loopback, "production tells nothing to endpoints on its own machine, and nothing without TLS: leave STOCKADE_WEBHOOK_ALLOW_LOOPBACK out"),
            (sends && layers.is_default("mail_from"), "production sends mail from an address of its own: set STOCKADE_MAIL_FROM"),
            (sends && layers.text("public_url").is_none(), "production puts links into mails that people can follow: set STOCKADE_PUBLIC_URL"),
        ];
        let others = self.payment.wrongs(layers).into_iter().chain(self.days.wrongs());
        let others = others.chain(proxies).chain(plaintext::wrongs(layers, may_be_plain));
        let others = others.chain(self.backups.wrongs(keys.as_ref()));
        match wrongs.into_iter().chain(others).find(|(wrong, _)| *wrong) {
            Some((_, why)) => Err(ConfigError::Production(why)),
            None => Ok(()),
        }
    }
}

/// Too short, a sample, or monotonous.
fn weak(secret: &str) -> bool {
    let lower = secret.to_lowercase();
    secret.len() < SECRET_BYTES_MIN
        || SAMPLE_WORDS.iter().any(|word| lower.contains(word))
        || monotonous(secret.as_bytes())
}

/// A handful of different letters, repeated; or counted up, as in `0123456789abcdef`.
fn monotonous(bytes: &[u8]) -> bool {
    let steps = bytes.windows(2).map(|pair| pair[1].wrapping_sub(pair[0]));
    different(bytes.iter().copied()) < 8 || different(steps) < 8
}

fn different(bytes: impl Iterator<Item = u8>) -> usize {
    bytes.collect::<std::collections::BTreeSet<u8>>().len()
}

/// `database_url` and `data_dir` are two ways to say one thing, and must not disagree.
fn data_dir(layers: &Layers) -> Result<PathBuf, ConfigError> {
    let dir: PathBuf = layers.parsed("data_dir")?;
    let Some(url) = layers.text("database_url") else { return Ok(dir) };
    match url.split_once("://") {
        Some(("sqlite", "")) => Err(layers.bad("database_url", "sqlite:// and then a directory")),
        Some(("sqlite", path)) if layers.is_default("data_dir") || Path::new(path) == dir => {
            Ok(PathBuf::from(path))
        }
        Some(("sqlite", _)) => {
            Err(layers.bad("database_url", "data_dir names another directory; set one of the two"))
        }
        Some(("mysql" | "mariadb", _)) => Ok(dir),
        _ => {
            Err(layers
                .bad("database_url", "expected sqlite://DIR or mysql://USER:PASSWORD@HOST:PORT/DATABASE"))
        }
    }
}

/// The database, if one is named.
fn database_url(layers: &Layers) -> Result<Option<SecretString>, ConfigError> {
    let named = |url: &&str| url.starts_with("mysql://") || url.starts_with("mariadb://");
    let Some(url) = layers.text("database_url").filter(named) else { return Ok(None) };
    let place = url.split_once("://").and_then(|(_, place)| place.split('?').next());
    match place.and_then(|place| place.split_once('/')) {
        Some((host, database)) if !host.is_empty() && !database.is_empty() => {
            Ok(Some(SecretString::from(url.replacen("mariadb://", "mysql://", 1))))
        }
        _ => Err(layers.bad("database_url", "it names none: mysql://USER:PASSWORD@HOST:PORT/DATABASE")),
    }
}

/// Whole pages, and room for the largest group that a test writes.
fn journal_file_bytes(layers: &Layers) -> Result<u64, ConfigError> {
    let bytes: u64 = layers.number("journal_file_bytes")?;
    let fits = (64 * 1024..=JOURNAL_FILE_BYTES_MAX).contains(&bytes) && bytes.is_multiple_of(4096);
    let wanted = "expected whole pages of 4096 bytes, 65536 bytes at least and 8388608 at most";
    if fits { Ok(bytes) } else { Err(layers.bad("journal_file_bytes", wanted)) }
}

fn workers(layers: &Layers) -> Result<usize, ConfigError> {
    match layers.text("workers") {
        Some(_) => layers.positive("workers"),
        None => Ok(std::thread::available_parallelism().map_or(1, usize::from)),
    }
}

impl FromStr for Profile {
    type Err = &'static str;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "development" => Ok(Profile::Development),
            "production" => Ok(Profile::Production),
            _ => Err("expected development or production"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Config, String> {
        let variables =
            pairs.iter().map(|(key, value)| (format!("STOCKADE_{}", key.to_uppercase()), value.to_string()));
        Layers::of(None, variables, [])
            .and_then(|layers| Config::read(&layers))
            .map_err(|error| error.to_string())
    }

    /// Thirty-two hexadecimal digits that stand nowhere in the repository.
    fn made_up(what: &str) -> String {
        format!("{:032x}", xxhash_rust::xxh3::xxh3_128(what.as_bytes()))
    }

    #[test]
    fn the_defaults_are_a_development_shop() {
        let config = read(&[]).unwrap();
        assert_eq!(config.profile, Profile::Development);
        assert_eq!(config.http.addr.port(), 8080);
        assert_eq!(config.limits.flush_lag_bytes_max, 1 << 30);
        assert_eq!(config.http.public_url, None, "unless somebody says so, nobody knows");
        let said = read(&[("public_url", "https://shop.example.com/")]).unwrap();
        assert_eq!(said.http.public_url.as_deref(), Some("https://shop.example.com"));
    }

    #[test]
    fn the_constructor_for_tests_has_the_same_defaults() {
        let (read, made) = (read(&[]).unwrap(), Config::development(Path::new("./data")));
        assert_eq!(format!("{:?}", read.limits), format!("{:?}", made.limits));
        assert_eq!(format!("{:?}", read.store), format!("{:?}", made.store));
        assert_eq!(format!("{:?}", read.tokens), format!("{:?}", made.tokens));
        assert_eq!(format!("{:?}", read.people), format!("{:?}", made.people));
        assert_eq!(format!("{:?}", read.mail), format!("{:?}", made.mail));
        assert_eq!(format!("{:?}", read.payment), format!("{:?}", made.payment));
        assert_eq!(format!("{:?}", read.webhooks), format!("{:?}", made.webhooks));
        assert_eq!(format!("{:?}", read.days), format!("{:?}", made.days));
        assert_eq!(format!("{:?}", read.backups), format!("{:?}", made.backups));
        assert_eq!(read.http.connections_max, made.http.connections_max);
        assert_eq!(read.http.connections_per_address, made.http.connections_per_address);
        assert_eq!(read.http.keep_alive, made.http.keep_alive);
        assert_eq!(read.http.shutdown, made.http.shutdown);
    }

    #[test]
    fn production_refuses_what_development_forgives() {
        let (secret, master_key) = (made_up("secret"), made_up("left") + &made_up("right"));
        let good = [
            ("profile", "production"),
            ("payment_provider", "stripe"),
            ("stripe_secret_key", "sk_live_7hGq2LmZ0xVw"),
            ("payment_webhook_secret", "whsec_5pQ8sJ2kN7vX4cT1yB6mR3wZ9dL0fH"),
            ("ops_addr", "127.0.0.1:9090"),
            ("jwt_secret", secret.as_str()),
            ("master_key", master_key.as_str()),
            ("four_eyes_above", "none"),
            ("trusted_proxies", "127.0.0.1"),
        ];
        let with = |key: &str, value| {
            let others = good.into_iter().filter(|(other, _)| *other != key);
            read(&others.chain([(key, value)]).collect::<Vec<_>>())
        };
        assert!(read(&good).is_ok());
        for bad in [
            "",
            "short",
            &secret[1..],
            "changeme-changeme-changeme-changeme",
            "abababababababababababababababab",
            "0123456789abcdef0123456789abcdef",
            "a signing key for tests, long enough",
        ] {
            assert!(with("jwt_secret", bad).unwrap_err().contains("STOCKADE_JWT_SECRET"), "{bad}");
        }
        assert!(with("jwt_secrets_former", "changeme").unwrap_err().contains("STOCKADE_JWT_SECRETS_FORMER"));
        let zeros = "00".repeat(32);
        let counted: String = (0..32).map(|byte| format!("{byte:02x}")).collect();
        for bad in ["", "short", &zeros, &counted] {
            let told = with("master_key", bad).unwrap_err();
            assert!(told.contains("STOCKADE_MASTER_KEY") && !told.contains("short`"), "{told}");
        }
        assert!(with("payment_provider", "simulated").unwrap_err().contains("ALLOW_SIMULATED_PAYMENT"));
        assert!(with("payment_webhook_secret", "").unwrap_err().contains("STOCKADE_PAYMENT_WEBHOOK_SECRET"));
        assert!(with("payment_webhook_secret", "whsec_short").unwrap_err().contains("guesses"));
        let gift = [("payment_provider", "simulated"), ("allow_simulated_payment", "yes")];
        assert!(read(&[&good[..1], &good[4..], &gift[..]].concat()).is_ok());
        assert!(with("four_eyes_above", "").unwrap_err().contains("STOCKADE_FOUR_EYES_ABOVE"));
        assert!(with("ops_addr", "").unwrap_err().contains("STOCKADE_OPS_ADDR"));
        let nobody_says = read(&good[..good.len() - 1]).unwrap_err();
        assert!(nobody_says.contains("STOCKADE_TRUSTED_PROXIES") && nobody_says.contains("empty list"));
        assert!(with("trusted_proxies", "").is_ok(), "there is none");
        assert!(with("trusted_proxies", "10.0.0.1,0.0.0.0/0").unwrap_err().contains("every address"));
        assert!(with("redis_url", "redis://cache").unwrap_err().contains("STOCKADE_REDIS_URL"));
        assert!(with("allow_plaintext", "perhaps").is_err());
        assert!(with("webhook_allow_loopback", "true").unwrap_err().contains("WEBHOOK_ALLOW_LOOPBACK"));
        assert!(with("smtp_url", "smtps://mail.example.com").unwrap_err().contains("STOCKADE_MAIL_FROM"));
        let letters = |from, url| {
            let smtp = ("smtp_url", "smtps://mail.example.com");
            read(&[&good[..], &[smtp, ("mail_from", from), ("public_url", url)]].concat()).map(drop)
        };
        let (from, url) = ("Shop <shop@example.com>", "https://shop.example.com");
        assert_eq!(letters(from, url), Ok(()));
        assert!(letters("", url).unwrap_err().contains("STOCKADE_MAIL_FROM"), "said, and empty");
        assert!(letters(from, "").unwrap_err().contains("STOCKADE_PUBLIC_URL"), "said, and empty");
    }

    #[test]
    fn the_place_of_the_data_has_two_names_and_one_meaning() {
        let dir = |pairs: &[(&str, &str)]| read(pairs).map(|config| config.store.data_dir);
        assert_eq!(dir(&[("database_url", "sqlite://elsewhere")]), Ok("elsewhere".into()));
        assert_eq!(dir(&[("data_dir", "")]), Ok("./data".into()), "an empty one is none");
        assert_eq!(dir(&[("database_url", "sqlite://a"), ("data_dir", "")]), Ok("a".into()));
        assert!(
            dir(&[("database_url", "sqlite://a"), ("data_dir", "b")]).unwrap_err().contains("one of the two")
        );
        let key = made_up("left") + &made_up("right");
        let secrets = [("jwt_secret", "hush-hush-hush"), ("master_key", key.as_str())];
        let database = |url| {
            let named = [&secrets[..], &[("database_url", url)]].concat();
            read(&named).map(|config| config.store.database_url.is_some())
        };
        let alone = read(&[("database_url", "mysql://root@db/shop"), secrets[0]]).map(drop);
        assert!(alone.unwrap_err().contains("STOCKADE_MASTER_KEY"));
        assert_eq!(database("mysql://root@db/shop"), Ok(true));
        assert_eq!(database("sqlite://elsewhere"), Ok(false));
        assert!(database("mysql://root@db").unwrap_err().contains("names none"));
        assert!(database("postgres://root@db/shop").unwrap_err().contains("expected sqlite"));
        assert!(read(&[("redis_url", "redis://cache")]).unwrap().store.redis.is_some());
        assert!(read(&[("redis_url", "cache")]).unwrap_err().contains("expected redis://"));
    }

    #[test]
    fn nonsense_is_refused_with_its_name_and_origin() {
        let error = read(&[("workers", "0")]).unwrap_err();
        assert!(error.contains("workers") && error.contains("STOCKADE_WORKERS"), "{error}");
        assert!(read(&[("http_addr", "localhost")]).is_err());
        assert!(read(&[("password_chars_min", "7")]).is_err());
        assert!(read(&[("webhook_allow_loopback", "perhaps")]).is_err());
        assert!(read(&[("trusted_proxies", "10.0.0.0/64")]).is_err());
    }

    #[test]
    fn a_secret_is_not_printed() {
        let key = |what: &str| made_up(what) + &made_up("right");
        let (master, backup) = (format!("{},{}", key("new"), key("former")), key("backup"));
        let config = read(&[
            ("jwt_secret", "hush-hush-hush"),
            ("jwt_secrets_former", "hush-before-that,hush-long-ago"),
            ("smtp_url", "smtps://shop:hush@mail.example.com"),
            ("payment_webhook_secret", "hush"),
            ("payment_provider", "stripe"),
            ("stripe_secret_key", "sk_test_hush"),
            ("database_url", "mysql://shop:hush@db/shop"),
            ("redis_url", "redis://shop:hush@cache"),
            ("master_key", master.as_str()),
            ("backup_keys", backup.as_str()),
        ])
        .unwrap();
        let printed = format!("{config:?}");
        assert!(!printed.contains("hush"), "{printed}");
        assert_eq!(printed.matches("MasterKey(…)").count(), 3, "{printed}");
        for url in ["redis-cluster://shop:hush@one,two", "redis-sentinel://shop:hush@one,two/shop"] {
            let printed = format!("{:?}", read(&[("redis_url", url)]).unwrap().store.redis);
            assert!(!printed.contains("hush"), "{printed}");
        }
    }
}
