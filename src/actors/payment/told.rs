//! What whoever pays hears: an order and its payment as they stand together, and what that means.

use super::{Paying, PaymentSight, Payments, unread};
use crate::actors::stock::NotDone;
use crate::domain::order::{Order, OrderStatus};
use crate::domain::payment::{PROVIDER_REFUSED, Payment, PaymentState};
use crate::domain::stock::{Cause, Refusal};

/// What a buyer hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Paid,
    /// Nobody was charged, or what was charged goes back.
    Declined,
    /// The provider would not look at it, for a mistake of ours: certainly nobody was charged.
    Refused,
    /// The order had ended before it could be paid.
    Gone(Refusal),
    /// It is not over.
    Open,
}

/// The order and its payment, none older than the other, and what they come to.
#[derive(Debug)]
pub struct Told {
    pub order: Order,
    pub sight: PaymentSight,
    pub outcome: Outcome,
    /// This very request had begun the payment before.
    pub replayed: bool,
}

impl Outcome {
    /// Whether the buyer may count on what was ordered: it is paid, or may still be.
    pub fn is_yes(&self) -> bool {
        matches!(self, Outcome::Paid | Outcome::Open)
    }

    /// What the row comes to, for the order as it stands: it may be ahead of its row.
    fn of(payment: &Payment, order: &Order) -> Outcome {
        match (payment.state, payment.reason.as_deref()) {
            (PaymentState::Paid, _) => Outcome::Paid,
            (PaymentState::Captured, _) if order.is_sold() => Outcome::Paid,
            (PaymentState::Cancelled, Some("hold_expired")) => Outcome::Gone(Refusal::HoldExpired),
            (PaymentState::Cancelled, Some("order_ended")) => {
                Outcome::Gone(Refusal::AlreadyReleased { cause: Cause::Cancelled })
            }
            (PaymentState::Cancelled, Some(PROVIDER_REFUSED)) => Outcome::Refused,
            (PaymentState::Declined | PaymentState::Cancelled | PaymentState::Orphaned, _) => {
                Outcome::Declined
            }
            // Its lines are given back already; the row says so when all of them are.
            (PaymentState::Started | PaymentState::Unknown, _)
                if order.status == OrderStatus::PaymentFailed =>
            {
                Outcome::Declined
            }
            (
                PaymentState::Started | PaymentState::Unknown | PaymentState::Captured | PaymentState::Review,
                _,
            ) => Outcome::Open,
        }
    }
}

impl Payments {
    /// How an order stands whose payment was begun, or found, a moment ago.
    pub async fn told(&self, order: Order, paying: Paying) -> Result<Told, NotDone> {
        let house = &self.0.house;
        let Paying { payment, replayed } = paying;
        // A moment ago it was sold, and nothing can have come back since: nobody need be asked.
        if !replayed && payment.state == PaymentState::Paid {
            let order = house.orders.just_sold(order);
            let sight = PaymentSight::fresh(payment, true);
            return Ok(Told { order, sight, outcome: Outcome::Paid, replayed });
        }
        // The row first: what it says has come to pass has come to pass for the order that is read after it.
        let now = house.rows.payments().find(payment.id).await.map_err(unread)?.unwrap_or(payment);
        let order = house.orders.find(order.buyer, order.id).await?.ok_or(NotDone::Unknown)?;
        let outcome = Outcome::of(&now, &order);
        let mut sight = Some(self.sight(now, &order).await?);
        self.see_deliveries(std::slice::from_mut(&mut sight)).await?;
        let sight = sight.ok_or(NotDone::Internal)?;
        Ok(Told { order, sight, outcome, replayed })
    }
}
