//! News from the provider: a hint that something has happened, and no more.
//!
//! Always true: a webhook changes nothing but when somebody asks the provider; each is noted once, whoever sends it how often and
//! in whatever order.

use super::{Payments, Unkept};
use crate::actors::stock::NotDone;
use crate::persistence::money::{Hint, NotWritten, Write, Written};
use crate::provider::{self, BadSignature};
use crate::telemetry;

pub use crate::provider::SIGNATURE_HEADER;

/// What a webhook was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    News,
    /// It came before.
    Known,
    /// About nothing of ours.
    Foreign,
}

/// Why it was not listened to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unheard {
    #[error(transparent)]
    Forged(#[from] BadSignature),
    #[error(transparent)]
    NotDone(#[from] NotDone),
}

impl Payments {
    /// Listens to a webhook: `signature` is its [`SIGNATURE_HEADER`], `body` what came, untouched.
    pub async fn hear(&self, signature: Option<&str>, body: &[u8]) -> Result<Heard, Unheard> {
        let house = &self.0.house;
        let hint = match house.provider.hear(signature, body, house.clock.now()) {
            Ok(hint) => hint,
            Err(why) => {
                telemetry::webhook_heard(why.as_str());
                return Err(why.into());
            }
        };
        if hint.payment.is_none() && hint.refund.is_none() {
            telemetry::webhook_heard("foreign");
            return Ok(Heard::Foreign);
        }
        let provider::Hint { event, payment, refund, provider_ref, .. } = hint;
        let is_walked = payment.is_some_and(|payment| self.note_walked(payment));
        let write = Write::Hint(Hint { event, payment, provider_ref, is_walked, refund });
        let heard = match self.0.book.write(write).await {
            Ok(Written::Known) => Heard::Known,
            Ok(_) => Heard::News,
            // It is not noted: the provider is to tell it again, until somebody has mended what it is about.
            Err(Unkept::Wrong(NotWritten::Damaged)) => return Err(NotDone::Internal.into()),
            Err(Unkept::Wrong(_)) => Heard::Foreign,
            Err(why) => return Err(NotDone::from(why).into()),
        };
        let word = match heard {
            Heard::News => "news",
            Heard::Known => "known",
            Heard::Foreign => "foreign",
        };
        telemetry::webhook_heard(word);
        if heard == Heard::News {
            self.wake();
        }
        Ok(heard)
    }
}
