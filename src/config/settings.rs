//! All settings: their names, their defaults, and what the help, `stockade config` and the README say of them.

/// One thing an operator may choose.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    pub key: &'static str,
    /// What stands after the flag in the help.
    pub value: &'static str,
    /// Empty: unset. For `workers` the number of cores.
    pub default: &'static str,
    pub help: &'static str,
    /// Never printed, and never a flag: a command line can be read by every user of the machine.
    pub secret: bool,
    /// Concerns every command, not `serve` alone.
    pub common: bool,
}

impl Setting {
    pub fn variable(&self) -> String {
        format!("STOCKADE_{}", self.key.to_uppercase())
    }

    pub fn flag(&self) -> String {
        self.key.replace('_', "-")
    }
}

const fn setting(
    key: &'static str,
    value: &'static str,
    default: &'static str,
    help: &'static str,
) -> Setting {
    Setting { key, value, default, help, secret: false, common: false }
}

/// Everything that can be chosen.
#[rustfmt::skip]
pub const SETTINGS: &[Setting] = &[
    Setting { common: true, ..setting("profile", "PROFILE", "development", "`development`, or `production`, which refuses to start on a missing, short or sample secret") },
    Setting { common: true, ..setting("data_dir", "DIR", "./data", "Where the journal and the tables are kept: on a disk of this machine") },
    Setting { common: true, ..setting("database_url", "URL", "", "`sqlite://DIR`, another way to say where; or `mysql://USER:PASSWORD@HOST:PORT/DATABASE`, which keeps the shop for several nodes: each takes any request, and sells the products that it owns") },
    Setting { common: true, ..setting("redis_url", "URL", "", "`redis://HOST:PORT`, `redis-cluster://HOST,HOST` or `redis-sentinel://HOST,HOST/NAME` (`rediss` for TLS), of this shop alone: stock is mirrored there for other nodes. Unset: no mirror") },
    Setting { secret: true, common: true, ..setting("jwt_secret", "SECRET", "", "Signs access tokens. In development one is made up and kept in the data directory") },
    Setting { secret: true, common: true, ..setting("jwt_secrets_former", "SECRETS", "", "Secrets that signed before, separated by commas: still believed, so that changing the secret logs nobody out") },
    Setting { common: true, ..setting("jwt_algorithm", "NAME", "HS256", "How access tokens are signed, and which alone are believed: `HS256`, or `EdDSA`, whose Ed25519 keys are derived from the same secrets. The same on every node") },
    Setting { secret: true, common: true, ..setting("master_key", "KEYS", "", "Seals personal data: 32 bytes in hexadecimal or base64, former keys behind commas. In development one is made up and kept in the data directory") },
    Setting { secret: true, common: true, ..setting("backup_keys", "KEYS", "", "Seal backups, so that these end with their keys: as master_key, the newest first, and none of them a master key. Unset: backups are not sealed, which production refuses") },
    Setting { common: true, ..setting("allow_plain_backups", "BOOL", "false", "`true`: production may take backups that are not sealed, and `restore` takes such ones also there and where there are keys") },
    setting("master_key_was_lost", "BOOL", "false", "`true`: open a shop whose accounts no master key opens any more. Otherwise that is refused, for it is likelier that the key is the wrong one"),
    setting("http_addr", "ADDR", "127.0.0.1:8080", "Where the shop answers; port 0 takes a free one"),
    setting("ops_addr", "ADDR", "", "Where metrics, readiness details, the reference at /docs, and administration answer, and then only there; required in production"),
    setting("peer_addr", "ADDR", "127.0.0.1:0", "On a database: where other nodes reach this one, over connections that are proved and sealed with the master key; port 0 takes a free one"),
    setting("peer_name", "HOST:PORT", "", "What other nodes call that place, where it is not the address itself, as in a container"),
    setting("roles", "LIST", "owner,gateway", "`owner,gateway`: this node takes requests and may own products; `gateway`: it takes requests and owns nothing"),
    setting("trusted_proxies", "LIST", "", "Networks of our own proxies, such as `10.213.64.2,::1`: what they say in X-Forwarded-For is believed; where they say of nobody that he asks, they have no per-address caps, as loopback has none. Production on a loopback address wants it said, an empty list if there is none"),
    setting("workers", "N", "", "HTTP threads; unset: one for each core"),
    setting("connections_max", "N", "10000", "Open connections of one HTTP thread; more wait to be accepted"),
    setting("connections_per_address", "N", "100", "Open connections from one address, or one /64 of IPv6; more are hung up on"),
    setting("keep_alive_ms", "MS", "30000", "How long a connection may be idle; longer than a proxy of yours keeps its own"),
    setting("shutdown_ms", "MS", "10000", "How long a shutdown waits for requests in flight"),
    setting("order_rate_per_user", "N", "50", "Orders and previews a second that one user may try; beyond it: 429"),
    setting("order_burst_per_user", "N", "200", "How many of them may come at once"),
    setting("look_rate_per_address", "N", "1000", "Looks a second from one address, or one /64 of IPv6, and twice as many at once; beyond it: 429"),
    setting("change_rate_per_address", "N", "300", "The same for requests that change something"),
    setting("flush_lag_bytes_max", "BYTES", "1073741824", "How far the tables may lag behind the journal; at the cap new holds are refused with 503"),
    setting("queue_wait_ms_max", "MS", "250", "The longest that a product's owner is predicted to take for an answer; beyond it: 503 before anything is decided"),
    setting("password_chars_min", "N", "8", "Characters that a new password has at least"),
    setting("breached_passwords", "FILE", "", "Passwords that are known from breaches, and that nobody may choose: a file as Have I Been Pwned gives it out, one `SHA1:COUNT` a line, sorted"),
    setting("hash_threads", "N", "1", "Threads that hash passwords, behind everything else; more wait, and at a hundred: 503"),
    setting("admin_login_minutes", "MINUTES", "", "How long after a log-in an administrator may create products, restock, change prices and decide about money; 0: as long as the token is good. Unset: 15 in production, 0 in development"),
    Setting { secret: true, ..setting("smtp_url", "URL", "", "`smtps://USER:PASSWORD@HOST` or `smtp://HOST:587?tls=required`; unset: mails are written to a folder in the data directory") },
    setting("smtp_roots", "FILE", "", "Certificates, as PEM, of authorities of your own that may vouch for the mail server, besides those that everybody believes"),
    setting("mail_from", "ADDRESS", "Stockade <no-reply@localhost.localdomain>", "Who mails come from"),
    setting("public_url", "URL", "", "Where people reach the shop, for the links in mails (unset: `http://` and http_addr) and, if set, in proofs of a key"),
    setting("letters_per_hour", "N", "100000", "Letters that leave within an hour at most, over all nodes; more wait. A quarter is kept for those about orders, and a quarter for those about accounts"),
    setting("unproved_letters_per_hour", "N", "10000", "How many of them go to addresses that nobody has proved, at most; more wait"),
    setting("hold_reminder_ms", "MS", "120000", "How long before a hold lapses its buyer gets a mail, where it lasts more than twice as long; 0: never"),
    setting("payment_provider", "NAME", "simulated", "Who moves money: `simulated`, which decides by the token, or `stripe`"),
    Setting { secret: true, ..setting("stripe_secret_key", "KEY", "", "The secret key of the Stripe account, `sk_…` or `rk_…`") },
    setting("stripe_url", "URL", "https://api.stripe.com", "For tests: another place that speaks as Stripe does; https, unless it is this machine"),
    Setting { secret: true, ..setting("payment_webhook_secret", "SECRET", "", "Checks the provider's webhooks (`whsec_…`). In development one is made up and kept in the data directory") },
    setting("payment_attempts", "N", "1", "How often one order may be tried before its units are given back"),
    setting("payment_give_up_ms", "MS", "600000", "How long a payment's outcome may stay unknown before it is called off"),
    setting("four_eyes_above", "LIST", "", "Above which amount, in minor units by currency, money goes back by hand only if two administrators ask for it: `KRW:500000,USD:50000`; 0: for every amount, as in a currency that is not named; `none`: one is enough. Unset: none in development; production wants it said"),
    setting("simulated_payment", "LIST", "", "For tests: what the simulated provider does wrong, such as `latency_ms=20,lost_after=5,webhooks=on`"),
    setting("allow_simulated_payment", "YES", "", "`yes`: production may run without a provider that takes money"),
    setting("allow_plaintext", "BOOL", "false", "`true`: production may speak to its database, Redis and mail server, and be spoken to, without TLS on other machines than its own, where nobody else is on that network"),
    setting("webhook_allow_loopback", "BOOL", "false", "For trying webhooks out: endpoints may be on this machine, and there without TLS; refused in production"),
    setting("calendar_day", "LENGTH", "24h", "How long a business day is: `24h` are the civil days of calendar_zone; `10s` or `5m` for demonstrations, refused in production"),
    setting("calendar_zone", "ZONE", "UTC", "Whose midnight begins a day: a name such as `Asia/Seoul`"),
    setting("deliveries_at", "CRON", "0 0 * * *", "When what is paid ships and what has shipped is delivered, as a cron expression on the clocks of calendar_zone: once a day at most"),
    setting("return_window_days", "DAYS", "2", "How many days after its delivery a line may be sent back; they shrink with calendar_day"),
    setting("journal_brake_us", "US", "0", "For tests of overload: slows each journal group down by so many microseconds"),
    setting("journal_file_bytes", "BYTES", "8388608", "For tests of power cuts: how large the files of the journal's log are, in files"),
];
