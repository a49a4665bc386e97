//! Money as people see it: a buyer his payment, a clerk what goes back and what still waits.

use serde::Serialize;
use utoipa::ToSchema;

use crate::actors::payment::{Compensation, Kind, PaymentSight, Standing};
use crate::domain::amount::Money;
use crate::domain::id::{ApprovalId, OrderId, PaymentId, RefundId, UserId};
use crate::domain::payment::{Approval, Payment, PaymentStatus, Refund};
use crate::http::shapes::MoneySchema;
use crate::http::time::Stamp;

/// The latest attempt to pay an order.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Payment)]
pub struct PaymentShown {
    #[schema(value_type = String, example = "pay_01jbeq9h0wfx3tq4r2n6d8v5ka")]
    id: PaymentId,
    #[schema(value_type = PaymentStatusSchema)]
    status: PaymentStatus,
    #[schema(value_type = MoneySchema)]
    amount: Money,
    /// What was given back, or is on its way.
    #[schema(value_type = MoneySchema)]
    refunded: Money,
    /// 1 for the first.
    attempt: u8,
    /// Why it is not paid, in a word: of a bank's reasons only those that its buyer can do something about, `card_declined` for
    /// the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    reason: Option<&'static str>,
}

/// `unknown`: whether it is taken is not known yet, and it is looked after until it is; the units stay held meanwhile.
#[derive(ToSchema)]
#[schema(as = PaymentStatus, rename_all = "snake_case")]
#[allow(dead_code)]
pub enum PaymentStatusSchema {
    Unknown,
    Paid,
    Declined,
    Cancelled,
    Refunding,
    PartiallyRefunded,
    Refunded,
}

/// As administrators hear it. What its buyer hears as `unknown` is `processing` (it is on its way), `unknown` (the provider has not
/// answered, and is asked until it has) or `review` (somebody has to decide).
#[derive(ToSchema)]
#[schema(as = PaymentStatusFound, rename_all = "snake_case")]
#[allow(dead_code)]
pub enum PaymentStatusFoundSchema {
    Processing,
    Unknown,
    Paid,
    Declined,
    Cancelled,
    Review,
    Refunding,
    PartiallyRefunded,
    Refunded,
}

impl PaymentShown {
    /// As its buyer sees it.
    pub fn for_buyer(sight: PaymentSight) -> PaymentShown {
        let status = sight.status.for_buyer();
        PaymentShown { status, ..PaymentShown::for_clerk(sight) }
    }

    /// As administrators see it.
    pub fn for_clerk(PaymentSight { payment, status, .. }: PaymentSight) -> PaymentShown {
        let reason = payment.told_reason();
        PaymentShown {
            id: payment.id,
            status,
            amount: payment.amount,
            refunded: Money { amount: payment.refunded, currency: payment.captured_in },
            attempt: payment.attempt.get(),
            reason,
        }
    }
}

/// One attempt to pay an order, as it is kept. What it was paid with is not: nobody is shown that again.
#[derive(Debug, Serialize, ToSchema)]
pub struct PaymentKept {
    #[schema(value_type = String, example = "pay_01jbeq9h0wfx3tq4r2n6d8v5ka")]
    id: PaymentId,
    #[schema(value_type = String)]
    order_id: OrderId,
    /// 1 for the first.
    attempt: u8,
    /// `started`, `unknown`, `captured`, `paid`, `declined`, `cancelled`, `review` or `orphaned` (it came too late and goes back).
    #[schema(value_type = String)]
    state: &'static str,
    #[schema(value_type = MoneySchema)]
    amount: Money,
    /// What was taken of it.
    #[schema(value_type = MoneySchema)]
    captured: Money,
    /// What was given back, or is on its way.
    #[schema(value_type = MoneySchema)]
    refunded: Money,
    reason: Option<String>,
    /// What the payment provider calls it.
    provider_ref: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Stamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Stamp,
}

impl From<Payment> for PaymentKept {
    fn from(payment: Payment) -> PaymentKept {
        let of = |amount| Money { amount, currency: payment.captured_in };
        PaymentKept {
            id: payment.id,
            order_id: payment.order,
            attempt: payment.attempt.get(),
            state: payment.state.as_str(),
            amount: payment.amount,
            captured: of(payment.captured),
            refunded: of(payment.refunded),
            reason: payment.reason,
            provider_ref: payment.provider_ref,
            created_at: Stamp(payment.created_at),
            updated_at: Stamp(payment.updated_at),
        }
    }
}

/// Money on its way back, or back.
#[derive(Debug, Serialize, ToSchema)]
pub struct RefundShown {
    #[schema(value_type = String, example = "ref_01jbeq9h0wfx3tq4r2n6d8v5ka")]
    id: RefundId,
    #[schema(value_type = String)]
    payment_id: PaymentId,
    #[schema(value_type = String)]
    order_id: OrderId,
    /// `order_cancelled`, `line_cancelled`, `line_returned`, `line_taken_back`, `late`, `line` or `clerk`.
    #[schema(value_type = String)]
    cause: &'static str,
    #[schema(value_type = MoneySchema)]
    amount: Money,
    /// `leave`, `to_stock` or `write_off`.
    #[schema(value_type = String)]
    restock: &'static str,
    /// `wanted`, `restocked` (the units are where they shall be) or `done`.
    #[schema(value_type = String)]
    state: &'static str,
    /// What stood in the way last; `failed_…`: the provider will not do it. `provider_failed`: nobody knows whether it has, and it is looked for.
    /// `settled_by_hand`: it went back another way.
    reason: Option<String>,
    tries: u32,
    #[schema(value_type = Option<String>, format = DateTime)]
    next_try_at: Option<Stamp>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Stamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Stamp,
}

impl From<Refund> for RefundShown {
    fn from(refund: Refund) -> RefundShown {
        RefundShown {
            id: refund.id,
            payment_id: refund.payment,
            order_id: refund.order,
            cause: refund.cause.as_str(),
            amount: refund.amount,
            restock: refund.restock.as_str(),
            state: refund.state.as_str(),
            reason: refund.reason,
            tries: refund.tries,
            next_try_at: refund.due_at.map(Stamp),
            created_at: Stamp(refund.created_at),
            updated_at: Stamp(refund.updated_at),
        }
    }
}

/// What one administrator has asked for and another one has to ask for as well: the same request at the same door does it. Nothing has
/// happened before.
#[derive(Debug, Serialize, ToSchema)]
pub struct ApprovalShown {
    #[schema(value_type = String, example = "apr_01jbeqb2d4f6g8h0j2k4m6n8p0")]
    id: ApprovalId,
    /// `second_administrator`; null when there was one.
    #[schema(value_type = Option<String>)]
    waiting_for: Option<&'static str>,
    /// `refund` (an amount, or all that is left), `line`, `line_taken_back`, `accept`, `give_back` or `settle`.
    #[schema(value_type = String)]
    what: &'static str,
    #[schema(value_type = String)]
    order_id: OrderId,
    #[schema(value_type = String)]
    payment_id: PaymentId,
    /// The refund that is to be settled, or that came of it and is written: null also where two have asked for it and nothing has come of it.
    #[schema(value_type = Option<String>)]
    refund_id: Option<RefundId>,
    line: Option<u8>,
    #[schema(value_type = MoneySchema)]
    amount: Money,
    /// `leave`, `to_stock` or `write_off`.
    #[schema(value_type = String)]
    restock: &'static str,
    #[schema(value_type = String)]
    asked_by: UserId,
    #[schema(value_type = String, format = DateTime)]
    asked_at: Stamp,
    /// When it lapses if nobody else asks for it; once another one has, for how long it is not asked for anew.
    #[schema(value_type = String, format = DateTime)]
    until: Stamp,
    #[schema(value_type = Option<String>)]
    seconded_by: Option<UserId>,
    #[schema(value_type = Option<String>, format = DateTime)]
    seconded_at: Option<Stamp>,
}

impl ApprovalShown {
    /// `refund`: the one that it is about, or that has come of it.
    pub fn of(of: Approval, refund: Option<RefundId>) -> ApprovalShown {
        ApprovalShown {
            id: of.id,
            waiting_for: of.seconded.is_none().then_some("second_administrator"),
            what: of.asked.what.as_str(),
            order_id: of.asked.order,
            payment_id: of.asked.payment,
            refund_id: refund,
            line: of.asked.line,
            amount: of.asked.amount,
            restock: of.asked.restock.as_str(),
            asked_by: of.by,
            asked_at: Stamp(of.at),
            until: Stamp(of.until()),
            seconded_by: of.seconded.map(|second| second.by),
            seconded_at: of.seconded.map(|second| Stamp(second.at)),
        }
    }
}

/// Something that still waits to be undone, or decided.
#[derive(Debug, Serialize, ToSchema)]
pub struct CompensationShown {
    /// Of the payment, of the refund, or of what waits for a second administrator.
    id: String,
    #[schema(value_type = CompensationKindSchema)]
    kind: Kind,
    #[schema(value_type = CompensationStateSchema)]
    state: Standing,
    #[schema(value_type = String)]
    order_id: OrderId,
    #[schema(value_type = String)]
    payment_id: PaymentId,
    /// In a word.
    why: String,
    #[schema(value_type = MoneySchema)]
    amount: Money,
    tries: u32,
    #[schema(value_type = String, format = DateTime)]
    since: Stamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    next_try_at: Option<Stamp>,
    /// What waits for a second administrator, where that is what waits.
    approval: Option<ApprovalShown>,
}

/// A payment whose end is not known, money on its way back, or what waits for a second administrator.
#[derive(ToSchema)]
#[schema(as = CompensationKind, rename_all = "snake_case")]
#[allow(dead_code)]
pub enum CompensationKindSchema {
    Payment,
    Refund,
    Approval,
}

/// `pending`: it is being tried; `stuck`: for long; `review`: somebody has to decide.
#[derive(ToSchema)]
#[schema(as = CompensationState, rename_all = "snake_case")]
#[allow(dead_code)]
pub enum CompensationStateSchema {
    Pending,
    Stuck,
    Review,
}

impl From<Compensation> for CompensationShown {
    fn from(of: Compensation) -> CompensationShown {
        CompensationShown {
            id: of.id.to_string(),
            kind: of.id.kind(),
            state: of.standing,
            order_id: of.order,
            payment_id: of.payment,
            why: of.why,
            amount: of.amount,
            tries: of.tries,
            since: Stamp(of.since),
            next_try_at: of.next_try_at.map(Stamp),
            // What has come of one is on the list as that.
            approval: of.approval.map(|approval| ApprovalShown::of(approval, approval.asked.refund)),
        }
    }
}
