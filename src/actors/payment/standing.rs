//! What still waits to be undone, or decided: the list that somebody looks at in the morning.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::{Payments, unread};
use crate::actors::stock::NotDone;
use crate::domain::amount::Money;
use crate::domain::id::{ApprovalId, NotAnId, OrderId, PaymentId, RefundId};
use crate::domain::payment::{Approval, Payment, PaymentState, Refund, RefundState};
use crate::domain::stock::Millis;
use crate::persistence::money;

/// A payment that is younger than this, and is not in doubt, is on its way like any other.
const YOUNG_MS: i64 = 5_000;
/// Rows read at a time.
const PAGE: u32 = 200;
/// Money that is ours for an order that is not sold yet is late after this.
pub(super) const LATE_MS: i64 = 60_000;

/// What it is called in the list: a payment's or a refund's own id, or that of what takes two administrators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompensationId {
    Payment(PaymentId),
    Refund(RefundId),
    Approval(ApprovalId),
}

/// Whose end is not known yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Payment,
    Refund,
    Approval,
}

/// Whether anybody has to do something about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It is being tried.
    Pending,
    /// For so long that somebody should look.
    Stuck,
    /// A person has to decide.
    Review,
}

impl Standing {
    pub const ALL: &'static [Standing] = &[Standing::Pending, Standing::Stuck, Standing::Review];

    pub fn as_str(self) -> &'static str {
        match self {
            Standing::Pending => "pending",
            Standing::Stuck => "stuck",
            Standing::Review => "review",
        }
    }

    pub fn from_word(word: &str) -> Option<Standing> {
        Standing::ALL.iter().copied().find(|standing| standing.as_str() == word)
    }
}

/// Something that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compensation {
    pub id: CompensationId,
    pub standing: Standing,
    pub order: OrderId,
    pub payment: PaymentId,
    /// In a word.
    pub why: String,
    pub amount: Money,
    pub tries: u32,
    pub since: Millis,
    pub next_try_at: Option<Millis>,
    /// What one administrator has asked for, where that is what waits.
    pub approval: Option<Approval>,
}

impl CompensationId {
    pub fn kind(self) -> Kind {
        match self {
            CompensationId::Payment(_) => Kind::Payment,
            CompensationId::Refund(_) => Kind::Refund,
            CompensationId::Approval(_) => Kind::Approval,
        }
    }

    fn place(self) -> [u8; 16] {
        match self {
            CompensationId::Payment(id) => *id.as_bytes(),
            CompensationId::Refund(id) => *id.as_bytes(),
            CompensationId::Approval(id) => *id.as_bytes(),
        }
    }
}

impl fmt::Display for CompensationId {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            CompensationId::Payment(id) => id.fmt(f),
            CompensationId::Refund(id) => id.fmt(f),
            CompensationId::Approval(id) => id.fmt(f),
        }
    }
}

impl FromStr for CompensationId {
    type Err = NotAnId;

    fn from_str(word: &str) -> Result<CompensationId, NotAnId> {
        let payment = word.parse().map(CompensationId::Payment);
        let refund = || word.parse().map(CompensationId::Refund);
        payment.or_else(|_| refund()).or_else(|_| word.parse().map(CompensationId::Approval))
    }
}

/// What a payment waits for, in a word.
fn of_payment(payment: Payment, stuck_before: Millis) -> Compensation {
    let standing = match payment.state {
        // One that is due is decided: its money goes back.
        PaymentState::Review if payment.due_at.is_none() => Standing::Review,
        _ if payment.created_at < stuck_before => Standing::Stuck,
        _ => Standing::Pending,
    };
    let amount = match payment.state {
        PaymentState::Review => payment.taken(),
        _ => payment.amount,
    };
    Compensation {
        id: CompensationId::Payment(payment.id),
        standing,
        order: payment.order,
        payment: payment.id,
        why: payment.reason.unwrap_or_else(|| payment.state.as_str().to_owned()),
        amount,
        tries: payment.tries,
        since: payment.created_at,
        next_try_at: payment.due_at,
        approval: None,
    }
}

fn of_refund(refund: Refund, stuck_before: Millis) -> Compensation {
    // What the provider will not do needs a person at once.
    let stuck = refund.created_at < stuck_before || refund.has_failed();
    Compensation {
        id: CompensationId::Refund(refund.id),
        standing: if stuck { Standing::Stuck } else { Standing::Pending },
        order: refund.order,
        payment: refund.payment,
        why: refund.reason.unwrap_or_else(|| refund.cause.as_str().to_owned()),
        amount: refund.amount,
        tries: refund.tries,
        since: refund.created_at,
        next_try_at: refund.due_at,
        approval: None,
    }
}

fn of_approval(approval: Approval, stuck_before: Millis) -> Compensation {
    Compensation {
        id: CompensationId::Approval(approval.id),
        standing: match approval.seconded {
            None => Standing::Review,
            // Two have asked for it: it is being made.
            Some(seconded) if seconded.at < stuck_before => Standing::Stuck,
            Some(_) => Standing::Pending,
        },
        order: approval.asked.order,
        payment: approval.asked.payment,
        why: approval.asked.what.as_str().to_owned(),
        amount: approval.asked.amount,
        tries: 0,
        since: approval.at,
        next_try_at: None,
        approval: Some(approval),
    }
}

impl Payments {
    /// A page of what waits, oldest first, behind `after`.
    pub async fn compensations(
        &self,
        only: Option<Standing>,
        after: Option<CompensationId>,
        most: usize,
    ) -> Result<Vec<Compensation>, NotDone> {
        let now = self.0.house.clock.now();
        let (young, stuck) = (now.plus(-YOUNG_MS), now.plus(-self.0.house.limits.give_up_ms));
        let mut after = after.map(CompensationId::place);
        let mut found = Vec::new();
        loop {
            let page = self.0.house.rows.compensations(young, after, PAGE).await.map_err(unread)?;
            after = page.last().map(money::Compensation::place);
            // A page may be short, where a row of it is damaged.
            let over = page.is_empty();
            for one in page {
                let one = match one {
                    money::Compensation::Payment(payment) => of_payment(*payment, stuck),
                    money::Compensation::Refund(refund) => of_refund(*refund, stuck),
                    money::Compensation::Approval(approval) => of_approval(*approval, stuck),
                };
                let is_wanted = only.is_none_or(|only| only == one.standing);
                if is_wanted && self.is_listed(one.approval.as_ref(), now).await {
                    found.push(one);
                }
            }
            if found.len() >= most || over {
                found.truncate(most);
                return Ok(found);
            }
        }
    }

    /// Nobody is to second what has lapsed, or what somebody has asked for whose word counts no more.
    async fn is_listed(&self, approval: Option<&Approval>, now: Millis) -> bool {
        match approval.filter(|approval| approval.seconded.is_none()) {
            // Whose account cannot be read keeps nothing else from this list.
            Some(waits) => !waits.has_lapsed(now) && self.still_counts(waits).await.unwrap_or(true),
            None => true,
        }
    }

    /// The one with this id, if it waits.
    pub async fn compensation(&self, id: CompensationId) -> Result<Option<Compensation>, NotDone> {
        let stuck = self.0.house.clock.now().plus(-self.0.house.limits.give_up_ms);
        Ok(match id {
            CompensationId::Payment(id) => {
                let row = self.0.house.rows.payments().find(id).await.map_err(unread)?;
                let waits =
                    |payment: &Payment| payment.state.is_open() || payment.state == PaymentState::Review;
                row.filter(waits).map(|payment| of_payment(payment, stuck))
            }
            CompensationId::Refund(id) => {
                let row = self.0.house.rows.refunds().find(id).await.map_err(unread)?;
                row.filter(|refund| refund.state != RefundState::Done).map(|refund| of_refund(refund, stuck))
            }
            // Before there are two nobody tries it: another administrator asks for the same, or it lapses.
            CompensationId::Approval(id) => {
                let row = self.0.house.rows.approvals().due_one(id).await.map_err(unread)?;
                row.map(|approval| of_approval(approval, stuck))
            }
        })
    }

    /// Shows how much waits, and for how long.
    pub(super) async fn observe(&self) {
        let house = &self.0.house;
        let now = house.clock.now();
        let payments = house.rows.payments().waiting(now.plus(-LATE_MS)).await;
        let (refunds, agreed) = (house.rows.refunds().waiting().await, house.rows.approvals().open().await);
        let (Ok(payments), Ok((refunds, oldest)), Ok((agreed, longest))) = (payments, refunds, agreed) else {
            return;
        };
        let (mut waiting, mut since) = (refunds + agreed, oldest.into_iter().chain(longest).min());
        let (mut late, mut review) = (0, 0);
        for of_state in payments {
            match of_state.state {
                PaymentState::Review => review = of_state.count,
                PaymentState::Captured => late = of_state.late,
                _ => {}
            }
            // Those that have hardly begun are no compensation.
            waiting += match of_state.state {
                PaymentState::Unknown | PaymentState::Review => of_state.count,
                _ => of_state.late,
            };
            if of_state.state != PaymentState::Started || of_state.late > 0 {
                since = Some(since.map_or(of_state.begun, |since| since.min(of_state.begun)));
            }
        }
        let age_ms = since.filter(|_| waiting > 0).map_or(0, |since| now.0.saturating_sub(since.0).max(0));
        house.metrics.compensations_pending.set(waiting as f64);
        house.metrics.compensation_age_seconds.set(age_ms as f64 / 1e3);
        house.metrics.charged_unconfirmed.set(late as f64);
        house.metrics.payments_in_review.set(review as f64);
    }
}
