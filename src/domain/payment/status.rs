//! A payment as people hear of it: one word, made of its state and of what has gone back.

use serde::Serialize;

use super::{PROVIDER_REFUSED, Payment, PaymentState};

/// Why a payment was not made, as its buyer may hear it. Which of a bank's many reasons it was, a stolen card among them, is not for
/// everybody who holds the card.
const TOLD: [&str; 15] = [
    "card_declined",
    "insufficient_funds",
    "expired_card",
    "incorrect_cvc",
    "incorrect_number",
    "processing_error",
    "invalid_token",
    "requires_action",
    PROVIDER_REFUSED,
    "hold_expired",
    "order_ended",
    "given_up",
    "given_back",
    "amount_mismatch",
    "currency_mismatch",
];

impl Payment {
    /// Why it is not paid, as its buyer hears it; the row keeps the provider's own word.
    pub fn told_reason(&self) -> Option<&'static str> {
        let reason = self.reason.as_deref()?;
        Some(TOLD.into_iter().find(|told| *told == reason).unwrap_or("card_declined"))
    }
}

/// How a payment stands, in a word: administrators hear each of them, its buyer what [`PaymentStatus::for_buyer`] leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PaymentStatus {
    Processing,
    /// The provider was asked and has not answered: it is asked again until it has.
    Unknown,
    Paid,
    Declined,
    Cancelled,
    /// Somebody looks into it.
    Review,
    /// Money is on its way back.
    Refunding,
    PartiallyRefunded,
    Refunded,
}

impl PaymentStatus {
    /// `sold`: the order is paid as far as its products are concerned, though the payment's row may not say so yet.
    /// `given_back`: minor units that have arrived where they came from.
    pub fn of(payment: &Payment, sold: bool, given_back: i64) -> PaymentStatus {
        match payment.state {
            PaymentState::Started => PaymentStatus::Processing,
            PaymentState::Unknown => PaymentStatus::Unknown,
            PaymentState::Captured if !sold => PaymentStatus::Processing,
            PaymentState::Declined => PaymentStatus::Declined,
            PaymentState::Cancelled => PaymentStatus::Cancelled,
            PaymentState::Review => PaymentStatus::Review,
            PaymentState::Captured | PaymentState::Paid | PaymentState::Orphaned => {
                match (payment.refunded, given_back) {
                    (0, _) if payment.state != PaymentState::Orphaned => PaymentStatus::Paid,
                    (wanted, done) if done < wanted => PaymentStatus::Refunding,
                    (wanted, _) if wanted < payment.captured => PaymentStatus::PartiallyRefunded,
                    _ => PaymentStatus::Refunded,
                }
            }
        }
    }

    /// As its buyer hears it. To him it is one thing whether it is on its way, the provider is silent or somebody looks into it: nobody
    /// can tell him yet whether it is taken.
    pub fn for_buyer(self) -> PaymentStatus {
        match self {
            PaymentStatus::Processing | PaymentStatus::Unknown | PaymentStatus::Review => {
                PaymentStatus::Unknown
            }
            PaymentStatus::Paid
            | PaymentStatus::Declined
            | PaymentStatus::Cancelled
            | PaymentStatus::Refunding
            | PaymentStatus::PartiallyRefunded
            | PaymentStatus::Refunded => self,
        }
    }
}
