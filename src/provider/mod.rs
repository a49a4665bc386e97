//! How money moves: what a payment provider is asked, and what it says.
//!
//! A [`Provider`] is *simulated*, which decides by the token, or *Stripe*. Always true: whatever is told twice under one id
//! happens once; *not now* and *refused* mean that this call has certainly done nothing, everything else that is not an answer is
//! *unknown*; and neither a token nor a secret is ever logged.

mod books;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz;
mod simulated;
mod stripe;
mod webhook;

use std::path::Path;
use std::time::Duration;

use secrecy::SecretString;

use crate::clock::Clock;
use crate::config::{Payment, PaymentProvider};
use crate::domain::amount::Money;
use crate::domain::id::{OrderId, PaymentId, RefundId};
use crate::domain::payment::Method;
use crate::domain::stock::Millis;
use crate::telemetry;

pub use books::{Books, Charged, Leaf};
pub use simulated::{KnownCharge, KnownRefund, KnownState, Simulated};
pub use stripe::Stripe;
pub use webhook::{BadSignature, Hint, SIGNATURE_HEADER, Signatures, TOLERANCE_S};

/// Where the provider's webhooks arrive.
pub const WEBHOOK_PATH: &str = "/v1/payments/webhook";

/// No call of a provider takes longer than this; then its outcome is unknown. Shorter than any claim on a payment's row.
pub const CALL_WITHIN: Duration = Duration::from_secs(25);

/// As long as this after its beginning a charge may still be sent, and no longer: what came of it was made by then.
pub const CHARGED_WITHIN_MS: i64 = 360_000;

/// One payment, as its provider is asked about it.
#[derive(Debug, Clone, Copy)]
pub struct Charge<'a> {
    pub payment: PaymentId,
    pub order: OrderId,
    pub amount: Money,
    /// What is paid with. It is forgotten once the payment has ended.
    pub method: Option<&'a Method>,
    /// The provider's name for it, if it has told one.
    pub provider_ref: Option<&'a str>,
    /// When it began: nothing older can be it.
    pub started_at: Millis,
}

/// How a payment stands at the provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    Captured,
    /// The bank said no. The code is lower-case words with underscores.
    Declined {
        code: String,
    },
    /// Nothing was taken, and nothing can be any more.
    Cancelled,
    /// It has not decided.
    Pending,
}

/// A payment as the provider sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Empty where the provider gave none.
    pub provider_ref: String,
    pub status: Status,
    /// As the provider says, to be compared.
    pub amount: Money,
    /// Minor units taken.
    pub captured: i64,
    /// Minor units given back, or on their way.
    pub refunded: i64,
}

/// Money that is to go back.
#[derive(Debug, Clone, Copy)]
pub struct RefundAsk<'a> {
    pub refund: RefundId,
    pub payment: PaymentId,
    pub order: OrderId,
    /// The provider's name for the payment.
    pub provider_ref: &'a str,
    pub amount: Money,
    /// When it was first wanted.
    pub started_at: Millis,
    /// A person wants once more what has failed there.
    pub again: bool,
    /// How often it was asked for anew: each time it has another name there.
    pub made_anew: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefundStatus {
    Done,
    /// Taken on, and not through yet.
    Pending,
    /// It has come back to us, or is not the one that was asked for: this refund will never happen.
    Failed {
        code: String,
    },
}

/// A refund as the provider sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefundSeen {
    pub provider_ref: String,
    pub status: RefundStatus,
    pub amount: Money,
}

impl RefundSeen {
    /// A refund of another amount is not the one that is owed: it stays on the list until somebody has looked into it.
    fn checked(self, ask: &RefundAsk<'_>) -> RefundSeen {
        if self.amount == ask.amount || matches!(self.status, RefundStatus::Failed { .. }) {
            return self;
        }
        tracing::error!(refund = %ask.refund, payment = %ask.payment, asked = ?ask.amount, given_back = ?self.amount,
            "{}: the payment provider gives back another amount than was asked for", ask.refund);
        RefundSeen { status: RefundStatus::Failed { code: "amount_mismatch".to_owned() }, ..self }
    }
}

/// Why there is no answer. Each is about this call alone: an earlier one may have had its effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// A time-out, a lost connection, an error of theirs: it may have happened.
    #[error("nobody knows what the payment provider did")]
    Unknown,
    /// It has failed at it once and tells that again, whatever became of it: under this name nothing else will ever be heard.
    #[error("nobody knows what the payment provider did, and asking again is in vain")]
    Spent,
    /// Certainly not executed: it was not reached, or has too much to do.
    #[error("the payment provider does not take it now")]
    NotNow,
    /// Certainly not executed, now or later: the request, or the configuration, is wrong.
    #[error("the payment provider refuses the request ({code})")]
    Refused { code: String },
}

/// There is no provider to start with. The words are meant for the operator.
#[derive(Debug, thiserror::Error)]
pub enum NoProvider {
    #[error("the simulated payment provider's book {file}: {reason}")]
    Book { file: String, reason: String },
    #[error("the payment provider cannot be called: {0}")]
    Client(String),
}

#[derive(Clone)]
enum Way {
    Simulated(Simulated),
    Stripe(Stripe),
}

/// Moves money. Cheap to clone.
#[derive(Clone)]
pub struct Provider {
    way: Way,
    signatures: Signatures,
    clock: Clock,
}

impl Provider {
    /// The provider of this configuration. `shop` is where a simulated one finds our webhooks, should it send any; then it must
    /// be opened inside a runtime.
    pub fn open(
        config: &Payment,
        data_dir: &Path,
        webhook_secret: &SecretString,
        shop: std::net::SocketAddr,
        clock: &Clock,
    ) -> Result<Provider, NoProvider> {
        let signatures = Signatures::new(webhook_secret);
        let way = match &config.provider {
            PaymentProvider::Simulated(faults) => {
                Way::Simulated(Simulated::open(data_dir, faults, &signatures, shop, clock)?)
            }
            PaymentProvider::Stripe(account) => Way::Stripe(Stripe::new(account, clock)?),
        };
        Ok(Provider { way, signatures, clock: clock.clone() })
    }

    /// Takes the money: once, however often it is told. What it began it finishes when it is told again.
    pub async fn charge(&self, ask: &Charge<'_>) -> Result<Seen, ProviderError> {
        self.call("charge", async {
            match &self.way {
                Way::Simulated(way) => way.charge(ask).await,
                Way::Stripe(way) => way.charge(ask).await,
            }
        })
        .await
    }

    /// What has become of it. `None`: it may be charged again, for it was never heard of, the money is only reserved, or to tell
    /// it once more under its id is the one way to learn what became of it.
    pub async fn find(&self, ask: &Charge<'_>) -> Result<Option<Seen>, ProviderError> {
        self.call("find", async {
            match &self.way {
                Way::Simulated(way) => way.find(ask).await,
                Way::Stripe(way) => way.find(ask).await,
            }
        })
        .await
    }

    /// Sees to it that nothing can be taken under this id any more, not even by a charge that is still on its way. If it is too
    /// late for that, what is seen tells.
    pub async fn cancel(&self, ask: &Charge<'_>) -> Result<Seen, ProviderError> {
        self.call("cancel", async {
            match &self.way {
                Way::Simulated(way) => way.cancel(ask).await,
                Way::Stripe(way) => way.cancel(ask).await,
            }
        })
        .await
    }

    /// Gives money back: once, however often it is told, and never more than was taken.
    pub async fn refund(&self, ask: &RefundAsk<'_>) -> Result<RefundSeen, ProviderError> {
        let seen = self.call("refund", async {
            match &self.way {
                Way::Simulated(way) => way.refund(ask).await,
                Way::Stripe(way) => way.refund(ask).await,
            }
        });
        Ok(seen.await?.checked(ask))
    }

    pub async fn find_refund(&self, ask: &RefundAsk<'_>) -> Result<Option<RefundSeen>, ProviderError> {
        let seen = self.call("find_refund", async {
            match &self.way {
                Way::Simulated(way) => way.find_refund(ask).await,
                Way::Stripe(way) => way.find_refund(ask).await,
            }
        });
        Ok(seen.await?.map(|seen| seen.checked(ask)))
    }

    /// Reads a webhook: `signature` is the header [`SIGNATURE_HEADER`], `body` what came, untouched. What it says is a hint and
    /// no more: how a payment stands is what [`Provider::find`] says.
    pub fn hear(&self, signature: Option<&str>, body: &[u8], now: Millis) -> Result<Hint, BadSignature> {
        self.signatures.check(signature, body, now)?;
        Hint::read(body)
    }

    /// The simulated provider, if it is one: its book can be read, and it can be made unreachable.
    pub fn simulated(&self) -> Option<&Simulated> {
        match &self.way {
            Way::Simulated(way) => Some(way),
            Way::Stripe(_) => None,
        }
    }

    /// The word for who it is.
    pub fn name(&self) -> &'static str {
        match &self.way {
            Way::Simulated(_) => "simulated",
            Way::Stripe(_) => "stripe",
        }
    }

    async fn call<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, ProviderError>>,
    ) -> Result<T, ProviderError> {
        let began = self.clock.nanos();
        let answer = tokio::time::timeout(CALL_WITHIN, call).await.unwrap_or(Err(ProviderError::Unknown));
        let outcome = match &answer {
            Ok(_) => "ok",
            Err(ProviderError::Unknown | ProviderError::Spent) => "unknown",
            Err(ProviderError::NotNow) => "not_now",
            Err(ProviderError::Refused { .. }) => "refused",
        };
        let took = Duration::from_nanos(self.clock.nanos().saturating_sub(began));
        telemetry::provider_called(operation, outcome, took);
        if let Err(ProviderError::Refused { code }) = &answer {
            tracing::error!(operation, %code, "the payment provider refuses what we ask; is it configured rightly?");
        }
        answer
    }
}

/// What every caller of ours has in common: roots of its own, so that a container without certificates can call, and no following
/// to where an answer points.
fn client() -> reqwest::ClientBuilder {
    let roots = webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter();
    let roots = roots.filter_map(|root| reqwest::Certificate::from_der(root).ok());
    reqwest::Client::builder()
        .tls_certs_only(roots)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("stockade/", env!("CARGO_PKG_VERSION")))
}

/// A code as it may be shown and kept: a provider's word, or `fallback` where that looks like anything else.
fn code_or(code: Option<&str>, fallback: &str) -> String {
    let word = |code: &&str| {
        let plain = |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == b'_';
        (1..=64).contains(&code.len())
            && code.bytes().all(plain)
            && code.bytes().any(|letter| !letter.is_ascii_digit())
    };
    code.filter(word).unwrap_or(fallback).to_owned()
}
