//! What payment needs to know: who moves the money, with which secrets, and when we give up.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::{ConfigError, Layers};
use crate::domain::payment::FourEyes;

pub const STRIPE_URL: &str = "https://api.stripe.com";
/// More attempts than anybody types.
const ATTEMPTS_MAX: u8 = 20;

#[derive(Debug, Clone)]
pub struct Payment {
    pub provider: PaymentProvider,
    /// Checks the provider's webhooks. `None` in development: one is made up on first use and kept beside the data.
    pub webhook_secret: Option<SecretString>,
    /// How often one order may be tried.
    pub attempts: u8,
    /// How long an outcome may stay unknown before the payment is called off.
    pub give_up: Duration,
    /// Above how much money goes back by hand only if two administrators want it.
    pub four_eyes: FourEyes,
}

#[derive(Debug, Clone)]
pub enum PaymentProvider {
    Simulated(SimulatedPayment),
    Stripe(StripeAccount),
}

#[derive(Debug, Clone)]
pub struct StripeAccount {
    pub secret_key: SecretString,
    /// Without a slash at its end; another one than Stripe's own in tests.
    pub url: String,
}

/// What the simulated provider does wrong, each of it decided by the seed and the payment's id.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SimulatedPayment {
    pub seed: u64,
    /// What every call takes.
    pub latency: Duration,
    /// What a caller waits for an answer that does not come, beyond that.
    pub timeout: Duration,
    /// First calls in a hundred that are lost before they have an effect.
    pub lost_before: u8,
    /// Calls in a hundred whose answer is lost after they had their effect.
    pub lost_after: u8,
    /// Whether it tells the shop by webhook what happened.
    pub webhooks: bool,
    /// Webhooks in a hundred that come twice.
    pub duplicates: u8,
    /// Webhooks in a hundred that come late.
    pub late: u8,
    /// How late.
    pub late_by: Duration,
}

impl FromStr for SimulatedPayment {
    type Err = &'static str;

    /// `latency_ms=20,lost_after=5,webhooks=on`, in any order, each of it optional.
    fn from_str(list: &str) -> Result<SimulatedPayment, &'static str> {
        const EXPECTED: &str = "expected a list of seed=N, latency_ms=N, timeout_ms=N, lost_before=PERCENT, lost_after=PERCENT, \
            webhooks=on, duplicates=PERCENT, late=PERCENT, late_ms=N";
        let milliseconds = |word: &str| word.parse().map(Duration::from_millis).map_err(|_| EXPECTED);
        let percent = |word: &str| word.parse().ok().filter(|it: &u8| *it <= 100).ok_or(EXPECTED);
        let mut faults = SimulatedPayment::default();
        for pair in list.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let (name, word) = pair.split_once('=').ok_or(EXPECTED)?;
            match name.trim() {
                "seed" => faults.seed = word.trim().parse().map_err(|_| EXPECTED)?,
                "latency_ms" => faults.latency = milliseconds(word.trim())?,
                "timeout_ms" => faults.timeout = milliseconds(word.trim())?,
                "lost_before" => faults.lost_before = percent(word.trim())?,
                "lost_after" => faults.lost_after = percent(word.trim())?,
                "webhooks" => faults.webhooks = on_or_off(word.trim()).ok_or(EXPECTED)?,
                "duplicates" => faults.duplicates = percent(word.trim())?,
                "late" => faults.late = percent(word.trim())?,
                "late_ms" => faults.late_by = milliseconds(word.trim())?,
                _ => return Err(EXPECTED),
            }
        }
        Ok(faults)
    }
}

fn on_or_off(word: &str) -> Option<bool> {
    match word {
        "on" | "yes" | "true" => Some(true),
        "off" | "no" | "false" => Some(false),
        _ => None,
    }
}

impl Payment {
    /// Every setting at its default.
    pub(super) fn development() -> Payment {
        Payment {
            provider: PaymentProvider::Simulated(SimulatedPayment::default()),
            webhook_secret: None,
            attempts: 1,
            give_up: Duration::from_secs(600),
            four_eyes: FourEyes::default(),
        }
    }

    pub(super) fn read(layers: &Layers) -> Result<Payment, ConfigError> {
        let attempts = match layers.number("payment_attempts")? {
            fits @ 1..=ATTEMPTS_MAX => fits,
            _ => return Err(layers.bad("payment_attempts", "expected 1 to 20")),
        };
        Ok(Payment {
            provider: provider(layers)?,
            webhook_secret: layers.text("payment_webhook_secret").map(SecretString::from),
            attempts,
            give_up: Duration::from_millis(layers.positive("payment_give_up_ms")?),
            four_eyes: layers.parsed("four_eyes_above")?,
        })
    }

    /// What production does not forgive.
    pub(super) fn wrongs(&self, layers: &Layers) -> [(bool, &'static str); 4] {
        let allowed = layers.text("allow_simulated_payment").and_then(on_or_off).unwrap_or(false);
        let simulated = matches!(self.provider, PaymentProvider::Simulated(_));
        let secret = self.webhook_secret.as_ref().map(ExposeSecret::expose_secret);
        [
            (
                simulated && !allowed,
                "production takes money: set STOCKADE_PAYMENT_PROVIDER=stripe, or STOCKADE_ALLOW_SIMULATED_PAYMENT=yes for a shop \
                 that gives everything away",
            ),
            (
                !simulated && secret.is_none(),
                "production with Stripe needs STOCKADE_PAYMENT_WEBHOOK_SECRET, the signing secret of the webhook endpoint",
            ),
            (
                secret.is_some_and(super::weak),
                "STOCKADE_PAYMENT_WEBHOOK_SECRET is short or looks like a sample: whoever guesses it is believed",
            ),
            (
                layers.text("four_eyes_above").is_none(),
                "production wants it said above which amount money goes back by hand only if two administrators ask for it: set \
                 STOCKADE_FOUR_EYES_ABOVE, such as KRW:500000,USD:50000, or none where one is to be enough for every amount",
            ),
        ]
    }
}

fn provider(layers: &Layers) -> Result<PaymentProvider, ConfigError> {
    const KEY: &str = "stripe_secret_key";
    // Looked at whoever moves the money, so that a mistake is not found on the day of the change.
    let faults = layers.parsed("simulated_payment")?;
    let url = stripe_url(layers)?;
    if let Some(word) = layers.text("allow_simulated_payment")
        && on_or_off(word).is_none()
    {
        return Err(layers.bad("allow_simulated_payment", "expected yes or no"));
    }
    match layers.text("payment_provider") {
        Some("simulated") => Ok(PaymentProvider::Simulated(faults)),
        Some("stripe") => {
            let key = layers
                .text(KEY)
                .ok_or_else(|| layers.bad(KEY, "Stripe needs its secret key (sk_… or rk_…)"))?;
            let begins = key.starts_with("sk_") || key.starts_with("rk_");
            let letters = key.bytes().all(|letter| letter.is_ascii_alphanumeric() || letter == b'_');
            if !begins || !letters {
                return Err(layers.bad(KEY, "a secret key of Stripe begins with sk_ or rk_"));
            }
            Ok(PaymentProvider::Stripe(StripeAccount { secret_key: key.into(), url }))
        }
        _ => Err(layers.bad("payment_provider", "expected simulated or stripe")),
    }
}

/// A secret key does not cross a network in the clear.
fn stripe_url(layers: &Layers) -> Result<String, ConfigError> {
    const KEY: &str = "stripe_url";
    let url = layers.text(KEY).unwrap_or(STRIPE_URL).trim_end_matches('/');
    let plain = |rest: &str| {
        !rest.is_empty() && rest.bytes().all(|c| c.is_ascii_alphanumeric() || b"-.:[]/".contains(&c))
    };
    let good = match url.split_once("://") {
        Some(("https", rest)) => plain(rest),
        Some(("http", rest)) => plain(rest) && is_loopback(rest),
        _ => false,
    };
    if good {
        Ok(url.to_owned())
    } else {
        Err(layers.bad(KEY, "expected https://HOST; http only to this machine itself"))
    }
}

/// A name could lead anywhere; an address cannot.
fn is_loopback(authority: &str) -> bool {
    let host = authority.split('/').next().unwrap_or_default();
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    host.parse().is_ok_and(|host: IpAddr| host.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Payment, String> {
        let variables =
            pairs.iter().map(|(key, value)| (format!("STOCKADE_{}", key.to_uppercase()), value.to_string()));
        Layers::of(None, variables, [])
            .and_then(|layers| Payment::read(&layers))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn unless_told_otherwise_money_is_simulated() {
        let (read, made) = (read(&[]).unwrap(), Payment::development());
        assert_eq!(format!("{read:?}"), format!("{made:?}"));
    }

    #[test]
    fn the_simulated_provider_s_faults_are_a_list() {
        let faults: SimulatedPayment =
            "seed=7, latency_ms=20,timeout_ms=5,lost_before=1,lost_after=2,webhooks=on,duplicates=3,late=4,late_ms=9"
                .parse()
                .unwrap();
        assert_eq!((faults.seed, faults.latency), (7, Duration::from_millis(20)));
        assert_eq!((faults.lost_before, faults.lost_after, faults.duplicates, faults.late), (1, 2, 3, 4));
        assert!(faults.webhooks && faults.late_by == Duration::from_millis(9));
        for bad in ["latency", "lost_after=101", "lost_after=-1", "speed=1", "webhooks=maybe"] {
            let told = read(&[("simulated_payment", bad)]).unwrap_err();
            assert!(
                told.contains("STOCKADE_SIMULATED_PAYMENT") && told.contains("lost_after=PERCENT"),
                "{told}"
            );
        }
    }

    #[test]
    fn stripe_needs_a_key_that_is_one_and_prints_nothing_of_it() {
        let with = |key| read(&[("payment_provider", "stripe"), ("stripe_secret_key", key)]);
        let payment = with("sk_test_hush").unwrap();
        assert!(!format!("{payment:?}").contains("hush"));
        for bad in ["", "pk_test_hush", "sk_test hush"] {
            let told = with(bad).unwrap_err();
            assert!(told.contains("STRIPE_SECRET_KEY") || told.contains("stripe_secret_key"), "{told}");
            assert!(!told.contains("hush"), "{told}");
        }
        assert!(read(&[("payment_provider", "cash")]).is_err());
    }

    #[test]
    fn a_secret_key_does_not_cross_a_network_in_the_clear() {
        let with = |url| read(&[("stripe_url", url)]);
        for good in ["https://api.stripe.com/", "http://127.0.0.1:8420", "http://[::1]:8420"] {
            assert!(with(good).is_ok(), "{good}");
        }
        for bad in [
            "http://api.stripe.com",
            "http://localhost.example.com",
            "http://127.0.0.1@example.com",
            "ftp://a",
            "https://",
        ] {
            assert!(with(bad).unwrap_err().contains("https"), "{bad}");
        }
    }

    #[test]
    fn numbers_have_bounds() {
        assert!(read(&[("payment_attempts", "0")]).is_err());
        assert!(read(&[("payment_attempts", "21")]).is_err());
        assert!(read(&[("payment_give_up_ms", "0")]).is_err());
        assert_eq!(read(&[("payment_attempts", "3")]).unwrap().attempts, 3);
    }

    #[test]
    fn bounds_are_named_by_currency_or_there_are_none() {
        let with = |bounds| read(&[("four_eyes_above", bounds)]).map(|payment| payment.four_eyes);
        assert_eq!(with("none"), Ok(FourEyes::default()));
        assert_ne!(with("KRW:500_000,USD:50000"), Ok(FourEyes::default()));
        let told = with("500000").unwrap_err();
        assert!(told.contains("STOCKADE_FOUR_EYES_ABOVE") && told.contains("KRW:500000"), "{told}");
    }
}
