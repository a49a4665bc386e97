//! Money and units on their way back, under one name however often they are told.

use stockade::domain::amount::Quantity;
use stockade::domain::id::{OrderId, PaymentId, RefundId};
use stockade::domain::payment::{Cause, PaymentState};
use stockade::domain::stock::{Back, CameBack, Command};

use super::{AtDesk, Owed};
use crate::broken::Broken;
use crate::story::{Attempt, Heard, What};
use crate::time::MS;
use crate::world::{Sender, World};

impl World {
    pub(super) fn wants_refund(
        &mut self,
        payment: PaymentId,
        cause: Cause,
        amount: i64,
        units: Vec<(usize, Quantity)>,
        back: Back,
    ) {
        let id = RefundId::of(payment, cause);
        let refund = Owed { payment, amount, units, back, waiting_for: None, tries: 0, done: false };
        self.desk.refunds.entry(id).or_insert(refund);
        self.at_desk(5 * MS, AtDesk::Refund { refund: id });
    }

    /// The whole order comes back, or a part of one line: money and units. Two clerks at once want it now and then.
    pub(super) fn comes_back(&mut self, id: PaymentId) {
        let Some(row) = self.desk.rows.get(&id) else { return };
        if !self.node.up || row.payment.state != PaymentState::Paid || row.payment.refunded > 0 {
            return;
        }
        let (order, captured, lines) = (row.payment.order, row.payment.captured, row.lines.clone());
        let part = match self.chance.percent(50) {
            true => self.a_part(order, &lines),
            false => None,
        };
        let (cause, amount, units) = match part {
            Some((line, units, amount)) => (Cause::LineCancelled(line), amount, vec![units]),
            None => (Cause::OrderCancelled, captured, lines),
        };
        let back = if self.chance.percent(70) { Back::ToStock } else { Back::WrittenOff };
        if let Some(row) = self.desk.rows.get_mut(&id) {
            row.payment.refunded = amount;
            row.payment.version += 1;
        }
        self.wants_refund(id, cause, amount, units, back);
    }

    /// Some units of one line, and what they had cost.
    fn a_part(
        &mut self,
        order: OrderId,
        lines: &[(usize, Quantity)],
    ) -> Option<(u8, (usize, Quantity), i64)> {
        let line = self.chance.below(lines.len() as u64) as usize;
        let (product, quantity) = *lines.get(line)?;
        let units = Quantity::of_line(self.chance.between(1, quantity.get().into()) as u32)?;
        let price = self.held(product, order)?.unit_price.times(units)?;
        self.tally.reach("a part of an order came back");
        Some((line as u8 + 1, (product, units), price.amount))
    }

    pub(super) fn refund(&mut self, id: RefundId) {
        let again = self.chance.between(30, 500) * MS;
        let (lost, silent) = (self.chance.percent(10), self.chance.percent(15));
        if !self.node.up {
            return self.at_desk(again, AtDesk::Refund { refund: id });
        }
        let Some(refund) = self.desk.refunds.get_mut(&id).filter(|refund| !refund.done) else { return };
        if refund.waiting_for.is_some() {
            return;
        }
        refund.tries += 1;
        let (payment, amount, back, tries) = (refund.payment, refund.amount, refund.back, refund.tries);
        if let Some((product, quantity)) = refund.units.last().copied() {
            let (order, who) = {
                let payment = &self.desk.rows[&payment].payment;
                (payment.order, payment.buyer)
            };
            let by = u128::from_be_bytes(*id.as_bytes()) as u64 | 1;
            let command = Command::Return { order, quantity, back, why: CameBack::Cancelled, by };
            let attempt = Attempt::new(who, What::Command { product, command }, self.now);
            let sent = self.send(Sender::Refund(id), attempt, 700 * MS);
            if let Some(refund) = self.desk.refunds.get_mut(&id) {
                refund.waiting_for = Some(sent);
            }
            return;
        }
        if lost {
            return self.at_desk(again, AtDesk::Refund { refund: id });
        }
        // Whoever makes up a new name for each try gives back as often as he tries.
        let name = match self.is(Broken::RefundWithoutIdempotency) {
            true => RefundId::of(payment, Cause::Clerk(u128::from(tries).to_be_bytes())),
            false => id,
        };
        if self.desk.bank.knows_refund(name) {
            self.tally.reach("a refund was told twice and done once");
        }
        let taken = self.desk.bank.refund(name, payment, amount);
        let (gone, owed) = (self.desk.bank.refunded(payment), self.desk.rows[&payment].payment.refunded);
        if gone > owed {
            return self.violated("i5_money", format!("{payment}: {owed} is to go back, and {gone} went"));
        }
        if silent || !taken {
            return self.at_desk(again, AtDesk::Refund { refund: id });
        }
        if let Some(refund) = self.desk.refunds.get_mut(&id) {
            refund.done = true;
        }
    }

    pub(in crate::world) fn refund_hears_owner(
        &mut self,
        id: RefundId,
        attempt: usize,
        heard: Option<Heard>,
    ) {
        let again = self.chance.between(5, 300) * MS;
        let Some(refund) = self.desk.refunds.get_mut(&id).filter(|r| r.waiting_for == Some(attempt)) else {
            return;
        };
        refund.waiting_for = None;
        match heard {
            None | Some(Heard::NotExecuted | Heard::Unknown) => {}
            Some(Heard::Refused { refused, .. }) => {
                let payment = refund.payment;
                return self.violated(
                    "i5_money",
                    format!("{payment}: sold units cannot come back: {}", refused.why),
                );
            }
            Some(_) => {
                refund.units.pop();
                self.tally.reach("a sold unit was returned");
            }
        }
        self.at_desk(again, AtDesk::Refund { refund: id });
    }
}
