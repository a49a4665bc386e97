//! Payments and refunds against the orders they are for, in one walk over all three in order of the order's id.
//!
//! A few hundred orders are in memory at a time, with their payments and refunds; nothing is asked for one row alone.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::pin::{Pin, pin};

use futures_util::StreamExt;
use futures_util::stream::{Peekable, Stream};

use super::case::Case;
use crate::domain::amount::{self, Currency};
use crate::domain::delivery::Delivery;
use crate::domain::id::OrderId;
use crate::domain::order::Order;
use crate::domain::payment::{Payment, PaymentState, Refund, RefundState};
use crate::domain::stock::Attempt;
use crate::persistence::{StoreError, Tables};

/// Orders in memory at a time.
const ORDERS_AT_ONCE: u32 = 512;

/// What the audit has seen of money.
#[derive(Debug, Default)]
pub struct Money {
    pub payments: u64,
    pub refunds: u64,
    /// Lines that were sold, wherever they are by now.
    pub deliveries: u64,
    /// Taken by the provider.
    pub taken: Sums,
    /// Given back by it.
    pub given_back: Sums,
    /// Orders for which a payment or a refund has not ended: what is true at rest is not asked of them.
    pub under_way: u64,
    pub differences: Vec<String>,
}

/// Minor units by currency.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sums(BTreeMap<Currency, i128>);

impl Sums {
    fn add(&mut self, amount: i64, currency: Currency) {
        if amount != 0 {
            *self.0.entry(currency).or_default() += i128::from(amount);
        }
    }
}

impl fmt::Display for Sums {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for (number, (currency, sum)) in self.0.iter().enumerate() {
            let comma = if number == 0 { "" } else { " + " };
            write!(f, "{comma}{sum} {currency}")?;
        }
        f.write_str(if self.0.is_empty() { "0" } else { "" })
    }
}

/// `ahead`: orders that the tables do not know to their end yet. `pins`: holds for which a payment must be open.
pub(super) async fn audit(
    tables: &Tables,
    ahead: &HashSet<OrderId>,
    pins: BTreeSet<(OrderId, Attempt)>,
) -> Result<Money, StoreError> {
    let (orders, payments, refunds) = (tables.orders(), tables.payments(), tables.refunds());
    let deliveries = tables.deliveries();
    let mut walk = Walk {
        payments: pin!(payments.by_order().peekable()),
        refunds: pin!(refunds.by_order().peekable()),
        deliveries: pin!(deliveries.by_order().peekable()),
        ahead,
        pins,
        money: Money::default(),
    };
    let mut after = OrderId::from_bytes([0; 16]);
    loop {
        let page = orders.behind(after, ORDERS_AT_ONCE).await?;
        let Some(last) = page.last() else { break };
        after = last.id;
        for order in &page {
            while let Some(missing) = walk.next().await?.filter(|next| *next < order.id) {
                walk.order(missing, None).await?;
            }
            walk.order(order.id, Some(order)).await?;
        }
    }
    while let Some(missing) = walk.next().await? {
        walk.order(missing, None).await?;
    }
    let Walk { mut money, pins, .. } = walk;
    let pinned = pins.iter().map(|(order, attempt)| {
        format!("{order}: is pinned by attempt {}, of which no payment is open", attempt.get())
    });
    money.differences.extend(pinned);
    for payment in payments.unlisted().await? {
        money.differences.push(format!("{payment}: is open, and nobody will take it up"));
    }
    for payment in payments.listed_in_vain().await? {
        money.differences.push(format!("{payment}: waits, and nothing is left to do about it"));
    }
    Ok(money)
}

/// Rows as they come, and the next of them.
type Rows<'w, S> = Pin<&'w mut Peekable<S>>;

struct Walk<'w, P, R, D>
where
    P: Stream<Item = Result<Payment, StoreError>>,
    R: Stream<Item = Result<Refund, StoreError>>,
    D: Stream<Item = Result<Delivery, StoreError>>,
{
    payments: Rows<'w, P>,
    refunds: Rows<'w, R>,
    deliveries: Rows<'w, D>,
    ahead: &'w HashSet<OrderId>,
    pins: BTreeSet<(OrderId, Attempt)>,
    money: Money,
}

impl<P, R, D> Walk<'_, P, R, D>
where
    P: Stream<Item = Result<Payment, StoreError>>,
    R: Stream<Item = Result<Refund, StoreError>>,
    D: Stream<Item = Result<Delivery, StoreError>>,
{
    /// The next order that has a payment, a refund or a delivery.
    async fn next(&mut self) -> Result<Option<OrderId>, StoreError> {
        let payment = peeked(&mut self.payments, |payment| payment.order).await?;
        let refund = peeked(&mut self.refunds, |refund| refund.order).await?;
        let delivery = peeked(&mut self.deliveries, |delivery| delivery.order).await?;
        Ok(payment.into_iter().chain(refund).chain(delivery).min())
    }

    /// The rows of this order come next, if it has any.
    async fn order(&mut self, id: OrderId, order: Option<&Order>) -> Result<(), StoreError> {
        let payments = taken(&mut self.payments, |payment| payment.order == id).await?;
        let refunds = taken(&mut self.refunds, |refund| refund.order == id).await?;
        let deliveries = taken(&mut self.deliveries, |delivery| delivery.order == id).await?;
        self.count(&payments, &refunds);
        self.money.deliveries += deliveries.len() as u64;
        let ahead = self.ahead.contains(&id);
        let case = Case { id, order, payments: &payments, refunds: &refunds, deliveries: &deliveries, ahead };
        let has_money = !(payments.is_empty() && refunds.is_empty());
        self.money.under_way += u64::from(has_money && case.is_under_way());
        self.money.differences.extend(case.complaints());
        Ok(())
    }

    fn count(&mut self, payments: &[Payment], refunds: &[Refund]) {
        let money = &mut self.money;
        money.payments += payments.len() as u64;
        money.refunds += refunds.len() as u64;
        for payment in payments {
            money.taken.add(payment.captured, payment.captured_in);
            if payment.state.is_open() || payment.state == PaymentState::Review {
                self.pins.remove(&(payment.order, payment.attempt));
            }
        }
        for refund in refunds.iter().filter(|refund| refund.state == RefundState::Done) {
            let amount::Money { amount, currency } = refund.amount;
            money.given_back.add(amount, currency);
        }
    }
}

async fn peeked<T, S: Stream<Item = Result<T, StoreError>>>(
    rows: &mut Rows<'_, S>,
    order: impl Fn(&T) -> OrderId,
) -> Result<Option<OrderId>, StoreError> {
    match rows.as_mut().peek().await {
        None => Ok(None),
        Some(Ok(row)) => Ok(Some(order(row))),
        Some(Err(_)) => match rows.next().await {
            Some(Err(error)) => Err(error),
            _ => Ok(None),
        },
    }
}

async fn taken<T, S: Stream<Item = Result<T, StoreError>>>(
    rows: &mut Rows<'_, S>,
    is_wanted: impl Fn(&T) -> bool,
) -> Result<Vec<T>, StoreError> {
    let mut all = Vec::new();
    // An error is wanted as well, at once.
    while let Some(row) = rows.as_mut().next_if(|row| row.as_ref().map_or(true, &is_wanted)).await {
        all.push(row?);
    }
    Ok(all)
}
