//! A refund that the provider will not do: a person says so, and gives the money back another way.
//!
//! Always true: while the provider is asked to do it, or may still do it, nobody says so; and who has said so has nobody ask any more.

use super::approval::{behind, by_hand};
use super::{Decided, Payments, Waits, unread};
use crate::actors::stock::{NotDone, to_the_end};
use crate::domain::id::RefundId;
use crate::domain::payment::{Asked, Asker, Refund, RefundState, RefundStep, SETTLED, What};
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
    /// Notes that the money of a refund went back by hand. The decision is written down before it is made, and what two have agreed upon
    /// is not left behind by one who hangs up.
    pub async fn settle(&self, by: Asker, id: RefundId) -> Result<Settled, NotDone> {
        let payments = self.clone();
        to_the_end(async move { payments.settle_alone(by, id).await }).await
    }

    async fn settle_alone(&self, by: Asker, id: RefundId) -> Result<Settled, NotDone> {
        let house = &self.0.house;
        let Some(seen) = house.rows.refunds().find(id).await.map_err(unread)? else {
            return Ok(Settled::NothingWaits);
        };
        // One after the other: what goes back of an order in parts is weighed as one.
        let _alone = self.alone(seen.order).await?;
        let mut others = house.rows.refunds().of_order(seen.order).await.map_err(unread)?;
        let this = others.iter().position(|refund| refund.id == id).map(|place| others.swap_remove(place));
        let refund = match this {
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
        let before = by_hand(others.iter(), refund.amount.currency);
        let agreed = match self.decided_by(by, asked, refund.amount, before).await? {
            Decided::Done(agreed) => agreed,
            Decided::Waits(waits) => return Ok(Settled::Waits(waits)),
        };
        let told = behind(agreed.is_some());
        let deed = Record::new(Deed::RefundSettled, house.clock.now()).by(by.user).on(refund.order);
        let deed = deed.id("refund", id).number("amount_minor", refund.amount.amount);
        let deed = deed.by_two(agreed.and_then(|agreed| agreed.two()));
        house.trail.append(&deed).await.map_err(|error| told(unread(error)))?;
        let step = RefundStep { to: RefundState::Done, provider_ref: None, reason: Some(SETTLED.to_owned()) };
        let settled = self.0.book.step_refund(&refund, step, None).await;
        if let Some(refund) = settled.map_err(|why| told(why.into()))? {
            return Ok(Settled::Done(Box::new(refund)));
        }
        // Somebody was faster: he has said the same, or asks the provider once more.
        match house.rows.refunds().find(id).await.map_err(|error| told(unread(error)))? {
            Some(refund) if refund.is_settled_by_hand() => Ok(Settled::Done(Box::new(refund))),
            Some(refund) if refund.state != RefundState::Done => Ok(Settled::StillTried),
            _ => Ok(Settled::NothingWaits),
        }
    }
}
