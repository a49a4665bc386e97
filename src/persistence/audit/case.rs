//! One order and the money for it: what must be true of the two together.
//!
//! Pure: rows go in, complaints come out. What must always be true is looked at always; what is true when nothing is on its way,
//! only then. A payment that has not ended, a refund that is not done, and an order of which the tables do not know the last
//! yet, are on their way.

use crate::domain::amount::Money;
use crate::domain::delivery::{Delivery, DeliveryState, SoldLine};
use crate::domain::id::{OrderId, PaymentId, RefundId};
use crate::domain::order::{Line, LineStatus, Order};
use crate::domain::payment::{Cause, Payment, PaymentState, Refund, RefundState};

/// What is known of one order.
pub(super) struct Case<'c> {
    pub id: OrderId,
    pub order: Option<&'c Order>,
    /// In order of their attempt.
    pub payments: &'c [Payment],
    pub refunds: &'c [Refund],
    /// In order of their line.
    pub deliveries: &'c [Delivery],
    /// The journal tells more of the order than the tables do.
    pub ahead: bool,
}

impl Case<'_> {
    /// Whether something is on its way.
    pub fn is_under_way(&self) -> bool {
        let payments = self.payments.iter().any(|payment| {
            payment.due_at.is_some() || payment.state.is_open() || payment.state == PaymentState::Review
        });
        let refunds =
            self.refunds.iter().any(|refund| refund.due_at.is_some() || refund.state != RefundState::Done);
        payments || self.ahead || refunds
    }

    /// Complaints, a line each.
    pub fn complaints(&self) -> Vec<String> {
        let mut told = Vec::new();
        for payment in self.payments {
            self.payment(payment, &mut told);
        }
        for refund in self.refunds {
            self.refund(refund, &mut told);
        }
        for row in self.deliveries {
            self.delivery(row, &mut told);
        }
        let kept = self.payments.iter().filter(|payment| payment.captured > payment.refunded).count();
        if kept > 1 {
            told.push(format!("{}: {kept} attempts have kept money", self.id));
        }
        if !self.is_under_way() {
            self.at_rest(&mut told);
        }
        told
    }

    fn payment(&self, payment: &Payment, told: &mut Vec<String>) {
        let Payment { id, state, captured, refunded, .. } = payment;
        let mut complain = |what: String| told.push(format!("{id}: {what}"));
        if *id != PaymentId::of(payment.order, payment.attempt) {
            complain(format!("is not named after {}, attempt {}", payment.order, payment.attempt.get()));
        }
        let (taken, whole) = (payment.taken(), payment.amount);
        let fits = match state {
            PaymentState::Started | PaymentState::Unknown => *captured == 0,
            PaymentState::Declined | PaymentState::Cancelled => *captured == 0,
            // A person may have kept another amount, but never another currency.
            PaymentState::Captured | PaymentState::Paid => {
                taken == whole || payment.is_accepted() && taken.currency == whole.currency
            }
            PaymentState::Orphaned => captured == refunded,
            PaymentState::Review => true,
        };
        if !fits {
            complain(format!(
                "is {}, {captured} {} of {} {} are taken and {refunded} given back",
                state.as_str(),
                taken.currency,
                whole.amount,
                whole.currency
            ));
        }
        if !(0..=*captured).contains(refunded) {
            complain(format!("{refunded} are given back of {captured}"));
        }
        let refunds: i128 = self.refunds_of(*id).map(|refund| i128::from(refund.amount.amount)).sum();
        if refunds != i128::from(*refunded) {
            complain(format!("its refunds come to {refunds}, not to {refunded}"));
        }
        let open = state.is_open() || *state == PaymentState::Review;
        if payment.method.is_some() && !open {
            complain(format!("is {}, and what it was paid with is still kept", state.as_str()));
        }
        match self.order {
            Some(order) if order.buyer != payment.buyer || order.total != payment.amount => {
                complain(format!(
                    "{} {} by {} for an order of {} {} by {}",
                    whole.amount,
                    whole.currency,
                    payment.buyer,
                    order.total.amount,
                    order.total.currency,
                    order.buyer
                ));
            }
            // The tables may be behind, by a power cut too.
            None if !self.ahead => complain(format!("{} is missing from the tables", self.id)),
            _ => {}
        }
    }

    fn refund(&self, refund: &Refund, told: &mut Vec<String>) {
        let Refund { id, state, .. } = refund;
        let mut complain = |what: String| told.push(format!("{id}: {what}"));
        if *id != RefundId::of(refund.payment, refund.cause) {
            complain(format!("is not named after {} and {}", refund.payment, refund.cause.as_str()));
        }
        // What is done and due has news of the provider.
        if *state != RefundState::Done && refund.due_at.is_none() {
            complain(format!("is {}, and nobody will take it up", state.as_str()));
        }
        match self.payments.iter().find(|payment| payment.id == refund.payment) {
            None => complain(format!("{} is no payment of {}", refund.payment, self.id)),
            Some(payment) if payment.captured_in != refund.amount.currency => {
                complain(format!("is in {}, its payment in {}", refund.amount.currency, payment.captured_in))
            }
            Some(payment) if refund.cause == Cause::Late && payment.state != PaymentState::Orphaned => {
                complain(format!(
                    "is for money that came too late, its payment is {}",
                    payment.state.as_str()
                ));
            }
            Some(_) => {}
        }
    }

    fn delivery(&self, row: &Delivery, told: &mut Vec<String>) {
        let Delivery { line, state, .. } = row;
        let mut complain =
            |what: String| told.push(format!("{}: line {line} is {}, {what}", self.id, state.as_str()));
        let paid = |payment: &Payment| matches!(payment.state, PaymentState::Captured | PaymentState::Paid);
        if !self.payments.iter().any(|payment| payment.id == row.payment && paid(payment)) {
            complain(format!("and {} has not paid for it", row.payment));
        }
        let times = [row.shipped_at, row.delivered_at, row.requested_at].map(|at| at.is_some());
        let fits = match state {
            DeliveryState::Preparing | DeliveryState::Cancelled => times == [false; 3],
            DeliveryState::Shipping => times == [true, false, false],
            DeliveryState::Delivered => times == [true, true, false],
            // A parcel that nobody took in was never delivered.
            DeliveryState::ReturnRequested | DeliveryState::Returned => times[0] && times[2],
        };
        if !fits {
            complain("and its times do not say so".to_owned());
        }
        let own = self.refunds_of(row.payment).filter(|refund| brings_back_alone(refund, *line)).count();
        let all =
            self.refunds_of(row.payment).any(|refund| is_of_all(refund) && refund.restock.back().is_some());
        match (state.has_ended(), own) {
            (true, 1) | (false, 0) => {}
            (true, 0) if all => {}
            (true, 0) => complain("and no money goes back for it".to_owned()),
            (_, refunds) => complain(format!("and {refunds} refunds take it back")),
        }
    }

    // --- when nothing is on its way ------------------------------------------------------------------------------------

    fn at_rest(&self, told: &mut Vec<String>) {
        let Some(order) = self.order else { return };
        match self.payments.iter().find(|payment| payment.state == PaymentState::Paid) {
            Some(payment) => self.sold(order, payment, told),
            None => self.not_sold(order, told),
        }
    }

    /// Whoever has paid has got it, but for what came back.
    fn sold(&self, order: &Order, payment: &Payment, told: &mut Vec<String>) {
        let id = order.id;
        let unsold = |line: &&Line| !is_with_the_buyer(line) && !line.status.is_back();
        for line in order.lines.iter().filter(unsold) {
            told.push(format!("{id}: is paid, and line {} is {}", line.line, line.status.as_str()));
        }
        for line in &order.lines {
            let wanted = self.refunds_of(payment.id).any(|refund| brings_back(refund, line));
            if wanted != line.status.is_back() {
                let found = if wanted { "should be back" } else { "came back without a refund" };
                told.push(format!("{id}: line {} is {}, and {found}", line.line, line.status.as_str()));
            }
        }
        self.delivered(order, payment, told);
        let (kept, expected) =
            (i128::from(payment.captured) - i128::from(payment.refunded), self.keeps(order, payment));
        if kept != expected {
            told.push(format!("{id}: {kept} are kept for what is worth {expected}"));
        }
    }

    /// Each line that was sold has one row, and stands as that says.
    fn delivered(&self, order: &Order, payment: &Payment, told: &mut Vec<String>) {
        let id = order.id;
        let of = |row: &Delivery| SoldLine {
            line: row.line,
            product: row.product,
            quantity: row.quantity,
            amount: row.amount,
        };
        let (sold, found): (Vec<SoldLine>, Vec<SoldLine>) =
            (SoldLine::of(order), self.deliveries.iter().map(of).collect());
        if sold != found || self.deliveries.iter().any(|row| row.payment != payment.id) {
            told.push(format!(
                "{id}: {} of its {} lines are to be delivered as they were sold",
                found.iter().filter(|row| sold.contains(row)).count(),
                sold.len()
            ));
        }
        for (line, row) in order.lines.iter().zip(self.deliveries).filter(|(line, row)| line.line == row.line)
        {
            // The tables know nothing of a request: it is the delivery's alone.
            let as_told = match row.state.line_status() {
                LineStatus::ReturnRequested => LineStatus::Ordered,
                other => other,
            };
            if line.status != as_told {
                told.push(format!(
                    "{id}: line {} is {}, its delivery {}",
                    line.line,
                    line.status.as_str(),
                    row.state.as_str()
                ));
            }
        }
    }

    /// What is with the buyer, corrected by what persons decided: an amount that was accepted, and refunds of more or less
    /// than what came back with them.
    fn keeps(&self, order: &Order, payment: &Payment) -> i128 {
        let of_all = |refund: &&Refund| is_of_all(refund) && refund.restock.back().is_some();
        let wholes: Vec<&Refund> = self.refunds_of(payment.id).filter(of_all).collect();
        match wholes[..] {
            [] => {}
            [rest] if rest.cause == Cause::OrderCancelled => {
                return self.keeps_of_others(order, payment, rest);
            }
            // A clerk who takes all back gives all back that is left.
            _ => return 0,
        }
        let worth = |lines: &mut dyn Iterator<Item = &Line>| lines.map(price).sum::<i128>();
        let with_the_buyer = worth(&mut order.lines.iter().filter(|line| is_with_the_buyer(line)));
        let accepted = i128::from(payment.captured) - i128::from(payment.amount.amount);
        let decided: i128 = self
            .refunds_of(payment.id)
            .map(|refund| {
                let back = worth(&mut order.lines.iter().filter(|line| brings_back(refund, line)));
                back - i128::from(refund.amount.amount)
            })
            .sum();
        with_the_buyer + accepted + decided
    }

    /// The `rest` of the order was cancelled: what is kept is what others have kept of lines that had come back before.
    fn keeps_of_others(&self, order: &Order, payment: &Payment, rest: &Refund) -> i128 {
        let id = rest.id;
        let refunds = || self.refunds_of(payment.id).filter(move |refund| refund.id != id);
        let own = |line: &Line| refunds().any(|refund| brings_back_alone(refund, line.line));
        if !order.lines.iter().any(own) {
            // Nothing of it is kept: all that was left has gone back.
            return 0;
        }
        let given: i128 = refunds().map(|refund| i128::from(refund.amount.amount)).sum();
        // Its price, but for what a clerk had given back of it and left with the buyer.
        let owed = |line: &Line| {
            let before = |refund: &&Refund| {
                refund.cause == Cause::Line(line.line) && refund.created_at <= rest.created_at
            };
            let before: i128 = refunds().filter(before).map(|refund| i128::from(refund.amount.amount)).sum();
            (price(line) - before).max(0)
        };
        let owed: i128 = order.lines.iter().filter(|line| !own(line)).map(owed).sum();
        (i128::from(payment.captured) - given - owed - i128::from(payment.above_price())).max(0)
    }

    /// Nobody has got what nobody has paid. What was sold for money that went back is back too.
    fn not_sold(&self, order: &Order, told: &mut Vec<String>) {
        let orphaned = self.payments.iter().any(|payment| payment.state == PaymentState::Orphaned);
        let got = |line: &&Line| is_with_the_buyer(line) || line.status.is_back() && !orphaned;
        if let Some(line) = order.lines.iter().find(got) {
            told.push(format!(
                "{}: line {} is {}, and nobody has paid",
                order.id,
                line.line,
                line.status.as_str()
            ));
        }
    }

    fn refunds_of(&self, payment: PaymentId) -> impl Iterator<Item = &Refund> {
        self.refunds.iter().filter(move |refund| refund.payment == payment)
    }
}

fn is_with_the_buyer(line: &Line) -> bool {
    matches!(line.status, LineStatus::Ordered | LineStatus::ReturnRequested)
}

/// Whether it is about all that was left.
fn is_of_all(refund: &Refund) -> bool {
    matches!(refund.cause, Cause::OrderCancelled | Cause::Clerk(_))
}

/// Whether the units of this line came back with it.
fn brings_back(refund: &Refund, line: &Line) -> bool {
    refund.restock.back().is_some() && (is_of_all(refund) || brings_back_alone(refund, line.line))
}

/// Whether it is about the units of this line alone.
fn brings_back_alone(refund: &Refund, line: u8) -> bool {
    refund.restock.back().is_some() && refund.cause.line() == Some(line)
}

fn price(line: &Line) -> i128 {
    let Money { amount, .. } = line.unit_price;
    i128::from(amount) * i128::from(line.quantity.get())
}
