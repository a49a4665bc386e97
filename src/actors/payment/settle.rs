//! A refund that the provider will not do: a person says so, and gives the money back another way.
//!
//! Always true: while the provider is asked to do it, or may still do it, nobody says so; and who has said so has nobody ask any more.

use super::{Decided, Payments, Waits, unread};
use crate::actors::stock::NotDone;
use crate::domain::id::{RefundId, UserId};
use crate::domain::payment::{Asked, Refund, RefundState, RefundStep, SETTLED, What};
use crate::domain::trail::{Deed, Record};

/// What became of saying so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// It is done, now or before.
    Done(Box<Refund>),
    /// The provider has not said that it will not do it.
    StillTried,
    /// It takes another administrator.
    Waits(Box<Waits>),
    NothingWaits,
}

impl Payments {
    /// Notes that the money of a refund went back by hand. The decision is written down before it is made.
    pub async fn settle(&self, by: UserId, id: RefundId) -> Result<Settled, NotDone> {
        let house = &self.0.house;
        let refund = match house.rows.refunds().find(id).await.map_err(unread)? {
            Some(refund) if refund.is_settled_by_hand() => return Ok(Settled::Done(Box::new(refund))),
            Some(refund) if refund.state != RefundState::Done => refund,
            _ => return Ok(Settled::NothingWaits),
        };
        if !refund.has_failed() {
            return Ok(Settled::StillTried);
        }
        let asked = Asked {
            what: What::Settle,
            order: refund.order,
            payment: refund.payment,
            refund: Some(id),
            line: refund.cause.line(),
            amount: refund.amount,
            restock: refund.restock,
        };
        let first = match self.decided_by(by, asked).await? {
            Decided::Done(first) => first,
            Decided::Waits(waits) => return Ok(Settled::Waits(waits)),
        };
        let deed = Record::new(Deed::RefundSettled, house.clock.now()).by(by).on(refund.order);
        let deed = deed.id("refund", id).number("amount_minor", refund.amount.amount).asked_by(first);
        house.trail.append(&deed).await.map_err(unread)?;
        let step = RefundStep { to: RefundState::Done, provider_ref: None, reason: Some(SETTLED.to_owned()) };
        if let Some(refund) = self.0.book.step_refund(&refund, step, None).await? {
            return Ok(Settled::Done(Box::new(refund)));
        }
        // Somebody was faster: he has said the same, or asks the provider once more.
        match house.rows.refunds().find(id).await.map_err(unread)? {
            Some(refund) if refund.is_settled_by_hand() => Ok(Settled::Done(Box::new(refund))),
            Some(refund) if refund.state != RefundState::Done => Ok(Settled::StillTried),
            _ => Ok(Settled::NothingWaits),
        }
    }
}
