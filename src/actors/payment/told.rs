//! What whoever pays hears: an order and its payment as they stand together, and what came of his request.
//!
//! Always true: whoever has heard that it is on its way hears that again, with the order as it is by then. So it is in the payment's row
//! before he hears it; if it cannot be written he hears it all the same, and later how it ended.

use std::time::Duration;

use super::{Paying, PaymentSight, Payments, unread};
use crate::actors::stock::NotDone;
use crate::domain::id::PaymentId;
use crate::domain::order::{Order, OrderStatus};
use crate::domain::payment::{PROVIDER_REFUSED, Payment, PaymentState};
use crate::domain::stock::{Cause, Refusal};
use crate::persistence::money::{Write, Written};

/// How long whoever hears that it is on its way waits until his row says so.
const NOTED_WITHIN: Duration = Duration::from_secs(2);

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
    /// It is not over, or was not when he heard of it first.
    Open,
}

/// The order and its latest payment, none older than the other, and what came of the one that was asked for.
#[derive(Debug)]
pub struct Told {
    pub order: Order,
    /// `None`: it had ended before there was one.
    pub sight: Option<PaymentSight>,
    pub outcome: Outcome,
    /// Why the one that was asked for was not made.
    pub reason: Option<&'static str>,
    /// Whether the buyer may count on what was ordered by now: it is paid, or may still be.
    pub stands: bool,
    /// This very request had begun the payment before.
    pub replayed: bool,
}

impl Outcome {
    fn is_yes(&self) -> bool {
        matches!(self, Outcome::Paid | Outcome::Open)
    }

    /// What the row comes to, for the order as it stands: it may be ahead of its row.
    fn of(payment: &Payment, order: &Order) -> Outcome {
        match (payment.state, payment.reason.as_deref()) {
            (PaymentState::Paid, _) => Outcome::Paid,
            (PaymentState::Captured, _) if order.is_sold() => Outcome::Paid,
            // The home was pinned, and another line could not be: the order has failed, it has not lapsed or been cancelled.
            (PaymentState::Cancelled, Some("hold_expired" | "order_ended"))
                if order.status == OrderStatus::PaymentFailed =>
            {
                Outcome::Declined
            }
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
            let sight = Some(PaymentSight::fresh(payment, true));
            let outcome = Outcome::Paid;
            return Ok(Told { order, sight, outcome, reason: None, stands: true, replayed });
        }
        loop {
            // The rows first: what they say has come to pass has come to pass for the order that is read after them.
            let attempts = house.rows.payments().of_order(order.id).await.map_err(unread)?;
            let asked = attempts.iter().find(|one| one.id == payment.id).unwrap_or(&payment);
            let order = house.orders.find(order.buyer, order.id).await?.ok_or(NotDone::Unknown)?;
            let outcome = if asked.told_open { Outcome::Open } else { Outcome::of(asked, &order) };
            if outcome == Outcome::Open && !asked.told_open && self.ends_before_told(asked.id).await {
                continue;
            }
            let reason = asked.told_reason();
            let latest = attempts.first().unwrap_or(&payment).clone();
            let stands = Outcome::of(&latest, &order).is_yes();
            let mut sight = Some(self.sight(latest, &order).await?);
            self.see_deliveries(std::slice::from_mut(&mut sight)).await?;
            return Ok(Told { order, sight, outcome, reason, stands, replayed });
        }
    }

    /// Notes that a payment is told as one that is on its way. `true`: it has ended in this very moment, and is told as that.
    async fn ends_before_told(&self, payment: PaymentId) -> bool {
        let noting = self.0.book.write(Write::TellOpen(payment));
        match tokio::time::timeout(NOTED_WITHIN, noting).await {
            Ok(Ok(Written::Row(row))) => !row.told_open,
            _ => {
                tracing::warn!(%payment, "{payment} is told as on its way, and its row may not say so");
                false
            }
        }
    }
}
