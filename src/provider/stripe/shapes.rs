//! What Stripe answers, as far as we read it, and what it means.
//!
//! <https://docs.stripe.com/api/payment_intents/object>, <https://docs.stripe.com/api/refunds/object>

use serde::Deserialize;

use super::amounts;
use crate::domain::id::{PaymentId, RefundId};
use crate::provider::webhook::Metadata;
use crate::provider::{RefundSeen, RefundStatus, Seen, Status, code_or};

/// A payment intent.
#[derive(Debug, Deserialize)]
pub struct Intent {
    pub id: String,
    status: IntentStatus,
    amount: i64,
    currency: String,
    #[serde(default)]
    amount_received: Option<i64>,
    #[serde(default)]
    latest_charge: Option<LatestCharge>,
    #[serde(default)]
    last_payment_error: Option<Failure>,
    #[serde(default)]
    metadata: Option<Metadata>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IntentStatus {
    RequiresPaymentMethod,
    RequiresConfirmation,
    RequiresAction,
    RequiresCapture,
    Processing,
    Succeeded,
    Canceled,
    /// One that this version of their API does not have.
    #[serde(other)]
    Strange,
}

/// Whole where we asked for it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum LatestCharge {
    Whole {
        #[serde(default)]
        amount_refunded: i64,
    },
    #[allow(dead_code)]
    Id(String),
}

/// Why it did not succeed, and the body of an error.
#[derive(Debug, Default, Deserialize)]
pub struct Failure {
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    decline_code: Option<String>,
    #[serde(default, rename = "type")]
    kind: Option<String>,
    /// Which of our fields it is about.
    #[serde(default)]
    param: Option<String>,
    /// In an error: the intent as it is now.
    #[serde(default)]
    pub payment_intent: Option<Box<Intent>>,
}

#[derive(Debug, Default, Deserialize)]
pub struct ErrorBody {
    #[serde(default)]
    pub error: Failure,
}

#[derive(Debug, Deserialize)]
pub struct List<T> {
    pub data: Vec<T>,
    #[serde(default)]
    pub has_more: bool,
}

#[derive(Debug, Deserialize)]
pub struct RefundObject {
    pub id: String,
    amount: i64,
    currency: String,
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    failure_reason: Option<String>,
    #[serde(default)]
    metadata: Option<Metadata>,
}

impl Failure {
    /// The most telling word there is.
    pub fn code(&self, fallback: &str) -> String {
        let code = self.decline_code.as_deref().or(self.code.as_deref()).or(self.kind.as_deref());
        code_or(code, fallback)
    }

    /// Whether what the buyer pays with is nothing that they know, or can be paid with no more. That is his word, and not our
    /// mistake; most of these have no code.
    pub fn is_about_the_method(&self) -> bool {
        self.param.as_deref() == Some("payment_method")
    }

    /// Whether the key was used for another request before.
    pub fn is_other_request(&self) -> bool {
        self.kind.as_deref() == Some("idempotency_error")
    }
}

impl Intent {
    pub fn status(&self) -> IntentStatus {
        self.status
    }

    /// `None`: it is not ours.
    pub fn payment(&self) -> Option<PaymentId> {
        self.metadata.as_ref().and_then(Metadata::payment)
    }

    pub fn is_of(&self, payment: PaymentId) -> bool {
        self.payment() == Some(payment)
    }

    pub fn seen(&self) -> Option<Seen> {
        self.seen_as(match self.status {
            IntentStatus::Succeeded => Status::Captured,
            IntentStatus::Canceled => Status::Cancelled,
            // One that was only made to use up a key has never been tried, and will not be.
            IntentStatus::RequiresPaymentMethod => match &self.last_payment_error {
                Some(why) => Status::Declined { code: why.code("declined") },
                None => Status::Cancelled,
            },
            // A redirect that nobody will follow.
            IntentStatus::RequiresAction => Status::Declined { code: "requires_action".to_owned() },
            IntentStatus::RequiresConfirmation
            | IntentStatus::RequiresCapture
            | IntentStatus::Processing
            | IntentStatus::Strange => Status::Pending,
        })
    }

    /// `None`: its currency is none, or its amount is none of ours.
    pub fn seen_as(&self, status: Status) -> Option<Seen> {
        let captured = match self.status {
            IntentStatus::Succeeded => self.amount_received.unwrap_or(self.amount),
            _ => self.amount_received.unwrap_or(0),
        };
        let refunded = match self.latest_charge {
            Some(LatestCharge::Whole { amount_refunded }) => amount_refunded,
            Some(LatestCharge::Id(_)) | None => 0,
        };
        let ours = |amount: i64| amounts::heard(amount, &self.currency);
        let (amount, captured, refunded) =
            (ours(self.amount)?, ours(captured)?.amount, ours(refunded)?.amount);
        Some(Seen { provider_ref: self.id.clone(), status, amount, captured, refunded })
    }
}

impl RefundObject {
    /// Which refund of which payment; `None`: it is not ours.
    pub fn names(&self) -> Option<(RefundId, PaymentId)> {
        let metadata = self.metadata.as_ref()?;
        Some((metadata.refund()?, metadata.payment()?))
    }

    pub fn is_of(&self, refund: RefundId) -> bool {
        self.metadata.as_ref().and_then(Metadata::refund) == Some(refund)
    }

    pub fn seen(&self) -> Option<RefundSeen> {
        let status = match self.status.as_deref() {
            Some("succeeded") => RefundStatus::Done,
            Some("failed") => {
                RefundStatus::Failed { code: code_or(self.failure_reason.as_deref(), "refund_failed") }
            }
            Some("canceled") => RefundStatus::Failed { code: "refund_canceled".to_owned() },
            _ => RefundStatus::Pending,
        };
        let amount = amounts::heard(self.amount, &self.currency)?;
        Some(RefundSeen { provider_ref: self.id.clone(), status, amount })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intent(more: &str) -> Intent {
        serde_json::from_str(&format!(r#"{{"id":"pi_1","amount":100,"currency":"krw",{more}}}"#)).unwrap()
    }

    #[test]
    fn every_status_of_an_intent_means_something() {
        let declined = |code: &str| Status::Declined { code: code.to_owned() };
        for (more, status) in [
            (r#""status":"succeeded""#, Status::Captured),
            (r#""status":"canceled""#, Status::Cancelled),
            (r#""status":"processing""#, Status::Pending),
            (r#""status":"requires_capture""#, Status::Pending),
            (r#""status":"requires_confirmation""#, Status::Pending),
            (r#""status":"to_be_invented""#, Status::Pending),
            (r#""status":"requires_action""#, declined("requires_action")),
            (r#""status":"requires_payment_method","last_payment_error":null"#, Status::Cancelled),
            (r#""status":"requires_payment_method","last_payment_error":{}"#, declined("declined")),
            (
                r#""status":"requires_payment_method","last_payment_error":{"code":"card_declined","decline_code":"insufficient_funds"}"#,
                declined("insufficient_funds"),
            ),
            (
                r#""status":"requires_payment_method","last_payment_error":{"code":"expired_card"}"#,
                declined("expired_card"),
            ),
            // Whatever looks like more than a word is not passed on.
            (
                r#""status":"requires_payment_method","last_payment_error":{"code":"Card 4242!"}"#,
                declined("declined"),
            ),
            (
                r#""status":"requires_payment_method","last_payment_error":{"code":"4242424242424242"}"#,
                declined("declined"),
            ),
        ] {
            assert_eq!(intent(more).seen().unwrap().status, status, "{more}");
        }
    }

    #[test]
    fn figures_are_the_provider_s_own() {
        let seen =
            |more: &str| intent(more).seen().map(|seen| (seen.amount.amount, seen.captured, seen.refunded));
        assert_eq!(seen(r#""status":"succeeded","amount_received":90"#), Some((100, 90, 0)));
        assert_eq!(seen(r#""status":"succeeded","latest_charge":"ch_1""#), Some((100, 100, 0)));
        let whole = r#""status":"succeeded","latest_charge":{"id":"ch_1","amount_refunded":30}"#;
        assert_eq!(seen(whole), Some((100, 100, 30)));
        assert_eq!(seen(r#""status":"requires_capture","latest_charge":null"#), Some((100, 0, 0)));
        let strange: Intent =
            serde_json::from_str(r#"{"id":"pi_1","amount":1,"currency":"coins","status":"succeeded"}"#)
                .unwrap();
        assert_eq!(strange.seen(), None);
    }

    #[test]
    fn a_refund_is_done_on_its_way_or_will_never_happen() {
        for (status, expected) in [
            (r#""succeeded""#, RefundStatus::Done),
            (r#""pending""#, RefundStatus::Pending),
            (r#""requires_action""#, RefundStatus::Pending),
            ("null", RefundStatus::Pending),
            (r#""canceled""#, RefundStatus::Failed { code: "refund_canceled".to_owned() }),
            (
                r#""failed","failure_reason":"expired_or_canceled_card""#,
                RefundStatus::Failed { code: "expired_or_canceled_card".to_owned() },
            ),
        ] {
            let text = format!(r#"{{"id":"re_1","amount":100,"currency":"krw","status":{status}}}"#);
            let refund: RefundObject = serde_json::from_str(&text).unwrap();
            assert_eq!(refund.seen().unwrap().status, expected, "{status}");
        }
    }
}
