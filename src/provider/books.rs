//! What a provider has in its books for us, leaf by leaf: for the audit, which holds it against ours. Nothing is changed by it.

use std::path::Path;

use super::{KnownCharge, KnownRefund, NoProvider, ProviderError, Stripe, simulated};
use crate::clock::Clock;
use crate::config::{Payment, PaymentProvider};
use crate::domain::amount::Money;
use crate::domain::id::PaymentId;
use crate::domain::stock::Millis;

/// One payment as the provider's books have it. It should be there once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charged {
    pub payment: PaymentId,
    /// What was asked for or taken, and in whose currency.
    pub amount: Money,
    /// Minor units taken.
    pub captured: i64,
    /// Minor units given back, or on their way.
    pub refunded: i64,
}

/// Some of what there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf<T> {
    pub entries: Vec<T>,
    /// Where the next begins, if there is one.
    pub next: Option<String>,
}

/// The books of whoever moves our money.
pub enum Books {
    /// In its file, and so in memory.
    Simulated {
        charges: Vec<KnownCharge>,
        refunds: Vec<KnownRefund>,
    },
    Stripe(Stripe),
}

impl Books {
    pub fn open(config: &Payment, data_dir: &Path, clock: &Clock) -> Result<Books, NoProvider> {
        Ok(match &config.provider {
            PaymentProvider::Simulated(_) => {
                let (charges, refunds) = simulated::look(data_dir)?;
                Books::Simulated { charges, refunds }
            }
            PaymentProvider::Stripe(account) => Books::Stripe(Stripe::new(account, clock)?),
        })
    }

    /// The word for whose they are.
    pub fn name(&self) -> &'static str {
        match self {
            Books::Simulated { .. } => "simulated",
            Books::Stripe(_) => "stripe",
        }
    }

    /// Our payments that began at `since` or later, whatever became of them. What is not ours is left out.
    pub async fn charges(&self, since: Millis, from: Option<&str>) -> Result<Leaf<Charged>, ProviderError> {
        match self {
            Books::Simulated { charges, .. } => {
                let entries = charges.iter().map(Charged::from).collect();
                Ok(Leaf { entries, next: None })
            }
            Books::Stripe(stripe) => stripe.charges(since, from).await,
        }
    }

    /// Our refunds that are done or on their way.
    pub async fn refunds(
        &self,
        since: Millis,
        from: Option<&str>,
    ) -> Result<Leaf<KnownRefund>, ProviderError> {
        match self {
            Books::Simulated { refunds, .. } => Ok(Leaf { entries: refunds.clone(), next: None }),
            Books::Stripe(stripe) => stripe.refunds(since, from).await,
        }
    }
}

impl From<&KnownCharge> for Charged {
    fn from(known: &KnownCharge) -> Charged {
        let KnownCharge { payment, amount, captured, refunded, .. } = *known;
        Charged { payment, amount, captured, refunded }
    }
}
