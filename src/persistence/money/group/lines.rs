//! What a group does to the lines that were sold: they are put down, ship, arrive, end, and their money goes back with them.
//!
//! Always true: a line whose units shall come back ends in the same breath as its refund is written, so it ends once and its
//! money goes back once; and no more goes back for it than its price, but that the last one takes along what was taken above all of
//! them.

use super::{Answer, Group, Image, NotWritten, Written};
use crate::domain::amount::Money;
use crate::domain::delivery::{Delivery, DeliveryState, SoldLine};
use crate::domain::id::{OrderId, PaymentId, RefundId};
use crate::domain::payment::{Cause, Payment, PaymentState, Refund, RefundState, Restock};
use crate::domain::stock::Millis;
use crate::persistence::delivery::Illegible;
use crate::persistence::money::{Cancel, Deliver, RequestReturn};

impl Group {
    /// The table has this row.
    pub fn knows_delivery(&mut self, row: Delivery) {
        self.lines.insert((row.order, row.line), Image { before: Some(row.clone()), now: row });
    }

    /// The table has a row that cannot be read: nobody moves it.
    pub fn cannot_read(&mut self, row: Illegible) {
        self.illegible.extend(row.order.map(|order| (order, row.line)));
    }

    /// The orders that these payments are for.
    pub fn orders_of(&self, payments: &[PaymentId]) -> impl Iterator<Item = OrderId> {
        payments.iter().filter_map(|id| self.payments.get(id)).map(|image| image.now.order)
    }

    /// Rows that are not what they were, in order of order and line.
    pub fn changed_deliveries(&self) -> Vec<(Option<Delivery>, Delivery)> {
        let changed = self.lines.values().filter(|image| image.before.as_ref() != Some(&image.now));
        let mut changed: Vec<_> = changed.map(|image| (image.before.clone(), image.now.clone())).collect();
        changed.sort_unstable_by_key(|(_, now)| (now.order, now.line));
        changed
    }

    /// Whether it leaves notices behind.
    pub fn is_news_to_buyers(&mut self, news: bool) {
        self.for_buyers = news;
    }

    pub fn has_news_for_buyers(&self) -> bool {
        self.for_buyers
    }

    /// Whether why a line was sent back is no longer to be found.
    pub fn has_erased(&self) -> bool {
        let had = |image: &Image<Delivery>| image.before.as_ref().is_some_and(|row| row.reason.is_some());
        self.lines.values().any(|image| had(image) && image.now.reason.is_none())
    }

    fn delivery(&self, order: OrderId, line: u8) -> Result<&Delivery, NotWritten> {
        match self.lines.get(&(order, line)) {
            Some(image) => Ok(&image.now),
            None if self.illegible.contains(&(order, i64::from(line))) => Err(NotWritten::Damaged),
            None => Err(NotWritten::NoSuchDelivery),
        }
    }

    /// An order's lines, in their order.
    fn of_order(&self, order: OrderId) -> Vec<Delivery> {
        let of_it = self.lines.values().map(|image| &image.now).filter(|row| row.order == order);
        let mut of_it: Vec<Delivery> = of_it.cloned().collect();
        of_it.sort_unstable_by_key(|row| row.line);
        of_it
    }

    fn has_illegible(&self, order: OrderId) -> bool {
        self.illegible.iter().any(|(of, _)| *of == order)
    }

    /// Puts the lines down that are sold by this payment; those that are there already stay as they are.
    pub(super) fn put_lines(&mut self, payment: PaymentId, sold: &[SoldLine], now: Millis) {
        let Ok(Payment { order, .. }) = self.paid(payment) else { return };
        for line in sold.iter().filter(|line| !self.illegible.contains(&(order, i64::from(line.line)))) {
            let new = || Image { before: None, now: Delivery::sold(order, payment, line, now) };
            self.lines.entry((order, line.line)).or_insert_with(new);
        }
    }

    fn put_delivery(&mut self, row: Delivery) {
        let key = (row.order, row.line);
        let before = self.lines.remove(&key).and_then(|image| image.before);
        self.lines.insert(key, Image { before, now: row });
    }

    fn paid(&self, id: PaymentId) -> Result<Payment, NotWritten> {
        let payment = &self.payments.get(&id).ok_or(NotWritten::NoSuchPayment)?.now;
        match payment.state {
            PaymentState::Captured | PaymentState::Paid => Ok(payment.clone()),
            _ => Err(NotWritten::NotPaid),
        }
    }

    /// What goes back for lines that end now: their prices, but for what a clerk has given back of them already, and never more
    /// than is left. With the last line of an order goes what was taken above its price: nothing is kept that it could be for.
    fn owed(&self, payment: &Payment, ending: &[Delivery]) -> i64 {
        let left = payment.captured.saturating_sub(payment.refunded).max(0);
        let prices: i64 = ending.iter().map(|row| self.unpaid(payment, row)).sum();
        let stays =
            |row: &Delivery| !row.state.has_ended() && ending.iter().all(|other| other.line != row.line);
        let is_last = !self.has_illegible(payment.order) && !self.of_order(payment.order).iter().any(stays);
        let above = if is_last { payment.above_price() } else { 0 };
        prices.saturating_add(above).min(left)
    }

    /// Its price, but for what a clerk has given back of it already.
    fn unpaid(&self, payment: &Payment, row: &Delivery) -> i64 {
        let clerk = RefundId::of(payment.id, Cause::Line(row.line));
        let given = self.refunds.get(&clerk).map_or(0, |image| image.now.amount.amount);
        row.amount.amount.saturating_sub(given).max(0)
    }

    /// Writes a refund that nobody has written before, and what its payment has given back with it.
    fn put_refund(&mut self, mut payment: Payment, cause: Cause, amount: i64, of: Of, now: Millis) -> Refund {
        payment.refunded = payment.refunded.saturating_add(amount);
        payment.version += 1;
        payment.updated_at = now;
        let refund = Refund {
            id: RefundId::of(payment.id, cause),
            payment: payment.id,
            order: payment.order,
            cause,
            key: of.key,
            body: None,
            amount: Money { amount, currency: payment.captured_in },
            restock: Restock::ToStock,
            state: RefundState::Wanted,
            reason: None,
            provider_ref: None,
            made_anew: 0,
            tries: 0,
            due_at: Some(of.due_at),
            version: 1,
            created_at: now,
            updated_at: now,
        };
        if let Some(image) = self.payments.get_mut(&payment.id) {
            image.now = payment;
        }
        self.refunds.insert(refund.id, Image { before: None, now: refund.clone() });
        refund
    }

    /// Cancels one line, or all that are left, if they are still in the house.
    pub(super) fn cancel(&mut self, ask: &Cancel, now: Millis) -> Answer {
        let cause = ask.line.map_or(Cause::OrderCancelled, Cause::LineCancelled);
        if let Some(known) = self.refunds.get(&RefundId::of(ask.payment, cause)) {
            return Ok(Written::Before(Box::new(known.now.clone())));
        }
        let payment = self.paid(ask.payment)?;
        self.put_lines(ask.payment, &ask.sold, now);
        let order = payment.order;
        let lines = match ask.line {
            Some(line) => vec![self.delivery(order, line)?.clone()],
            None if self.has_illegible(order) => return Err(NotWritten::Damaged),
            None => self.of_order(order),
        };
        let Some(last) = lines.last().cloned() else { return Err(NotWritten::NoSuchDelivery) };
        let gone = |row: &&Delivery| !row.state.has_ended() && row.state != DeliveryState::Preparing;
        if let Some(gone) = lines.iter().find(gone) {
            return Ok(Written::NotMoved(Box::new(gone.clone())));
        }
        let (lines, here) = (lines.len(), lines);
        let here: Vec<_> = here.into_iter().filter(|row| row.state == DeliveryState::Preparing).collect();
        if here.is_empty() {
            return Ok(Written::NotMoved(Box::new(last)));
        }
        let left = payment.captured.saturating_sub(payment.refunded).max(0);
        let amount = if ask.line.is_none() && here.len() == lines {
            // Nothing of it is kept: all that is left goes back.
            left
        } else {
            self.owed(&payment, &here)
        };
        for row in here {
            self.put_delivery(row.moved(DeliveryState::Cancelled, now)?);
        }
        let of = Of { key: ask.key, due_at: ask.due_at };
        Ok(Written::RefundRow(Box::new(self.put_refund(payment, cause, amount, of, now))))
    }

    /// A buyer sends a line back.
    pub(super) fn request_return(&mut self, ask: &RequestReturn, now: Millis) -> Answer {
        let row = self.delivery(ask.order, ask.line)?;
        if let Some(key) = ask.key {
            // Under one key one line of an order is sent back.
            let used = self
                .of_order(ask.order)
                .into_iter()
                .find(|row| row.key.is_some_and(|used| used.key == key.key));
            if let Some(used) = used {
                return Ok(Written::AskedBefore(Box::new(used)));
            }
        }
        if ask.window.allows(row, now).is_err() {
            return Ok(Written::NotMoved(Box::new(row.clone())));
        }
        let mut moved = row.moved(DeliveryState::ReturnRequested, now)?;
        moved.reason = ask.reason.clone();
        moved.key = ask.key;
        self.put_delivery(moved.clone());
        Ok(Written::Delivery(Box::new(moved)))
    }

    /// What somebody said who has left. The lines stay where they are.
    pub(super) fn forget_reasons(&mut self, order: OrderId) -> Written {
        for row in self.of_order(order).into_iter().filter(|row| row.reason.is_some()) {
            self.put_delivery(Delivery { reason: None, version: row.version + 1, ..row });
        }
        Written::Forgotten
    }

    /// The scheduled run moves a line by one state; what comes back takes its money with it.
    pub(super) fn deliver(&mut self, ask: &Deliver, now: Millis) -> Answer {
        let row = self.delivery(ask.order, ask.line)?.clone();
        let Some(to) = row.next(ask.scheduled).filter(|_| row.version == ask.version) else {
            return Ok(Written::Lost);
        };
        let mut moved = row.moved(to, now)?;
        moved.scheduled = ask.scheduled;
        if to == DeliveryState::Returned {
            let payment = self.paid(row.payment)?;
            let amount = self.owed(&payment, std::slice::from_ref(&row));
            let cause = Cause::LineReturned(row.line);
            if !self.refunds.contains_key(&RefundId::of(payment.id, cause)) {
                self.put_refund(payment, cause, amount, Of { key: None, due_at: now }, now);
            }
        }
        self.put_delivery(moved.clone());
        Ok(Written::Delivery(Box::new(moved)))
    }

    /// A refund is about to be written: the line that it is about, if that has ended already.
    pub(super) fn ended_before(&self, refund: &Refund) -> Option<Delivery> {
        let row = self.lines.get(&(refund.order, refund.cause.line()?)).map(|image| &image.now)?;
        row.state.has_ended().then(|| row.clone())
    }

    /// The lines whose units come back with a refund have ended.
    pub(super) fn end_lines(&mut self, refund: &Refund, now: Millis) -> Result<(), NotWritten> {
        if refund.restock.back().is_none() || refund.cause == Cause::Late {
            return Ok(());
        }
        for row in self.of_order(refund.order) {
            let concerned = refund.cause.line().is_none_or(|line| line == row.line);
            let Some(to) = row.state.taken_back().filter(|_| concerned) else { continue };
            // What comes back without having been asked for is asked for by that.
            let row = match (row.state, to) {
                (DeliveryState::Shipping | DeliveryState::Delivered, DeliveryState::Returned) => {
                    row.moved(DeliveryState::ReturnRequested, now)?
                }
                _ => row,
            };
            self.put_delivery(row.moved(to, now)?);
        }
        Ok(())
    }
}

/// Whose refund it is, and when somebody takes it up.
struct Of {
    key: Option<[u8; 16]>,
    due_at: Millis,
}
