//! One group of writes, decided one after the other upon the rows that they touch.
//!
//! Pure: rows go in, answers and changed rows come out. Each question sees what those before it in the group have done, as if
//! each had been alone.

mod lines;

use std::collections::{BTreeSet, HashMap, HashSet};

use super::{EVENT_ID_LEN_MAX, Hint, NotWritten, Write, Written};
use crate::domain::amount::Money;
use crate::domain::delivery::Delivery;
use crate::domain::id::{OrderId, PaymentId, RefundId};
use crate::domain::payment::{Cause, Move, Payment, PaymentState, Refund, RefundState, Restock};
use crate::domain::stock::Millis;

/// The longest word of a provider's that is kept.
const REASON_LEN_MAX: usize = 255;

/// Which rows must be known before. Each once.
pub(super) struct Wanted<'w> {
    pub orders: Vec<OrderId>,
    pub payments: Vec<PaymentId>,
    pub refunds: Vec<RefundId>,
    /// Orders whose lines must be known.
    pub deliveries: Vec<OrderId>,
    /// The same by what paid for them.
    pub sold_by: Vec<PaymentId>,
    pub events: Vec<&'w str>,
}

impl<'w> Wanted<'w> {
    pub fn by(writes: &'w [Write]) -> Wanted<'w> {
        let (mut orders, mut payments) = (BTreeSet::new(), BTreeSet::new());
        let (mut refunds, mut events) = (BTreeSet::new(), BTreeSet::new());
        let (mut deliveries, mut sold_by) = (Vec::new(), Vec::new());
        for write in writes {
            match write {
                Write::Begin(payment) => {
                    orders.insert(payment.order);
                }
                Write::Move { payment, step, .. } => {
                    payments.insert(*payment);
                    if !step.sold.is_empty() {
                        sold_by.push(*payment);
                    }
                    if step.give_back {
                        refunds.insert(RefundId::of(*payment, Cause::Late));
                    }
                }
                Write::Rest { payment, .. } | Write::Claim { payment, .. } | Write::TellOpen(payment) => {
                    payments.insert(*payment);
                }
                Write::Refund(refund, _) => {
                    payments.insert(refund.payment);
                    refunds.insert(refund.id);
                    deliveries.push(refund.order);
                }
                Write::Cancel(ask) => {
                    payments.insert(ask.payment);
                    sold_by.push(ask.payment);
                    let by_clerks = ask.sold.iter().map(|line| Cause::Line(line.line));
                    let cause = ask.line.map_or(Cause::OrderCancelled, Cause::LineCancelled);
                    let causes = by_clerks.chain([cause]);
                    refunds.extend(causes.map(|cause| RefundId::of(ask.payment, cause)));
                }
                Write::RequestReturn(ask) => deliveries.push(ask.order),
                Write::ForgetReasons(order) => deliveries.push(*order),
                Write::Deliver(ask) => {
                    deliveries.push(ask.order);
                    if let Some(payment) = ask.payment {
                        payments.insert(payment);
                        let causes = [Cause::Line(ask.line), Cause::LineReturned(ask.line)];
                        refunds.extend(causes.map(|cause| RefundId::of(payment, cause)));
                    }
                }
                Write::MoveRefund { refund, .. }
                | Write::RestRefund { refund, .. }
                | Write::ClaimRefund { refund, .. } => {
                    refunds.insert(*refund);
                }
                Write::Hint(hint) => {
                    events.insert(hint.event.as_str());
                    payments.extend(hint.payment);
                    refunds.extend(hint.refund);
                }
            }
        }
        Wanted {
            orders: orders.into_iter().collect(),
            payments: payments.into_iter().collect(),
            refunds: refunds.into_iter().collect(),
            deliveries,
            sold_by,
            events: events.into_iter().collect(),
        }
    }
}

/// What there is and cannot be read. There are no more of them than somebody has damaged.
#[derive(Default)]
pub(super) struct Damage {
    /// Orders of which an attempt cannot be read: whether it makes room for another one, nobody knows.
    pub orders: Vec<OrderId>,
    pub payments: Vec<PaymentId>,
    pub refunds: Vec<RefundId>,
}

impl Damage {
    fn is_in_the_way_of(&self, write: &Write) -> bool {
        let Damage { orders, payments, refunds } = self;
        if orders.is_empty() && payments.is_empty() && refunds.is_empty() {
            return false;
        }
        let wanted = Wanted::by(std::slice::from_ref(write));
        wanted.orders.iter().any(|order| orders.contains(order))
            || wanted.payments.iter().any(|payment| payments.contains(payment))
            || wanted.refunds.iter().any(|refund| refunds.contains(refund))
    }
}

/// A row as it stands in the table, and as it is to stand there.
struct Image<T> {
    before: Option<T>,
    now: T,
}

/// The rows a group touches.
#[derive(Default)]
pub(super) struct Group {
    payments: HashMap<PaymentId, Image<Payment>>,
    /// The attempts at an order.
    attempts: HashMap<OrderId, Vec<PaymentId>>,
    refunds: HashMap<RefundId, Image<Refund>>,
    lines: HashMap<(OrderId, u8), Image<Delivery>>,
    /// Lines whose rows cannot be read.
    illegible: HashSet<(OrderId, i64)>,
    damage: Damage,
    heard: HashSet<String>,
    news: Vec<String>,
    for_buyers: bool,
}

type Answer = Result<Written, NotWritten>;

impl Group {
    /// The table has this row.
    pub fn knows(&mut self, payment: Payment) {
        let (id, order) = (payment.id, payment.order);
        let image = Image { before: Some(payment.clone()), now: payment };
        if self.payments.insert(id, image).is_none() {
            self.attempts.entry(order).or_default().push(id);
        }
    }

    /// The table has this row.
    pub fn knows_refund(&mut self, refund: Refund) {
        self.refunds.insert(refund.id, Image { before: Some(refund.clone()), now: refund });
    }

    /// The table has rows that cannot be read: whatever needs one of them is not done.
    pub fn leaves_alone(&mut self, damage: Damage) {
        self.damage = damage;
    }

    /// The table has this event.
    pub fn has_heard(&mut self, event: String) {
        self.heard.insert(event);
    }

    /// Rows that are not what they were, in order of id.
    pub fn changed(&self) -> Vec<(Option<Payment>, Payment)> {
        let changed = self.payments.values().filter(|image| image.before.as_ref() != Some(&image.now));
        let mut changed: Vec<_> = changed.map(|image| (image.before.clone(), image.now.clone())).collect();
        changed.sort_unstable_by_key(|(_, now)| now.id);
        changed
    }

    /// Rows that are not what they were, in order of id.
    pub fn changed_refunds(&self) -> Vec<(Option<Refund>, Refund)> {
        let changed = self.refunds.values().filter(|image| image.before.as_ref() != Some(&image.now));
        let mut changed: Vec<_> = changed.map(|image| (image.before.clone(), image.now.clone())).collect();
        changed.sort_unstable_by_key(|(_, now)| now.id);
        changed
    }

    /// Events that were not heard before.
    pub fn news(&self) -> &[String] {
        &self.news
    }

    /// The payments as they are now.
    pub fn into_payments(self) -> impl Iterator<Item = Payment> {
        self.payments.into_values().map(|image| image.now)
    }

    pub fn write(&mut self, write: &Write, now: Millis) -> Answer {
        if self.damage.is_in_the_way_of(write) {
            return Err(NotWritten::Damaged);
        }
        match write {
            Write::Begin(payment) => Ok(self.begin(payment)),
            Write::Move { payment, version, step, due_at } => {
                self.step(*payment, *version, step, *due_at, now)
            }
            Write::Rest { payment, version, due_at } => self.held(*payment, *version, |payment| {
                let stays = payment.due_at.filter(|_| payment.state.is_open());
                payment.due_at = due_at.or(stays);
            }),
            Write::Claim { payment, version, until } => self.held(*payment, *version, |payment| {
                payment.due_at = Some(*until);
                payment.tries = payment.tries.saturating_add(1);
            }),
            Write::TellOpen(payment) => self.tell_open(*payment),
            Write::Refund(refund, sold) => {
                self.put_lines(refund.payment, sold, now);
                self.refund(refund, now)
            }
            Write::Cancel(ask) => self.cancel(ask, now),
            Write::RequestReturn(ask) => self.request_return(ask, now),
            Write::Deliver(ask) => self.deliver(ask, now),
            Write::ForgetReasons(order) => Ok(self.forget_reasons(*order)),
            Write::MoveRefund { refund, version, to, provider_ref, reason, due_at } => {
                self.held_refund(*refund, *version, |refund| {
                    refund.state = refund.state.moved_to(*to)?;
                    refund.provider_ref = provider_ref.clone().or_else(|| refund.provider_ref.take());
                    refund.reason = reason.clone().map(shortened).or_else(|| refund.reason.take());
                    refund.due_at = due_at.or(refund.due_at).filter(|_| refund.state != RefundState::Done);
                    refund.updated_at = now;
                    Ok(())
                })
            }
            Write::RestRefund { refund, version, due_at, reason } => {
                self.held_refund(*refund, *version, |refund| {
                    refund.due_at = Some(*due_at).filter(|_| is_waiting(refund));
                    if let Some(why) = reason.clone().map(shortened) {
                        refund.waits_because(why, now);
                    }
                    Ok(())
                })
            }
            Write::ClaimRefund { refund, version, until } => self.held_refund(*refund, *version, |refund| {
                refund.due_at = Some(*until).filter(|_| is_waiting(refund));
                refund.tries = refund.tries.saturating_add(1);
                Ok(())
            }),
            Write::Hint(hint) => self.hint(hint, now),
        }
    }

    fn begin(&mut self, payment: &Payment) -> Written {
        let attempts = self.attempts.entry(payment.order).or_default();
        let known = attempts.iter().filter_map(|id| self.payments.get(id)).map(|image| &image.now);
        let same = known.clone().find(|known| known.attempt == payment.attempt);
        let in_the_way = known.filter(|known| !known.state.makes_room() || known.attempt > payment.attempt);
        if let Some(taken) = same.or(in_the_way.max_by_key(|known| known.attempt)) {
            return Written::Taken(Box::new(taken.clone()));
        }
        attempts.push(payment.id);
        self.payments.insert(payment.id, Image { before: None, now: payment.clone() });
        Written::Row(Box::new(payment.clone()))
    }

    fn step(
        &mut self,
        id: PaymentId,
        version: u64,
        step: &Move,
        due_at: Option<Millis>,
        now: Millis,
    ) -> Answer {
        let image = self.payments.get_mut(&id).ok_or(NotWritten::NoSuchPayment)?;
        if image.now.version != version {
            return Ok(Written::Lost);
        }
        let mut moved = image.now.moved(step, now)?;
        moved.version += 1;
        moved.reason = moved.reason.map(shortened);
        moved.due_at = due_at.or(moved.due_at).filter(|_| moved.state.is_open());
        let left = moved.captured.saturating_sub(moved.refunded);
        let late = RefundId::of(id, Cause::Late);
        if step.give_back && left > 0 && !self.refunds.contains_key(&late) {
            moved.refunded = moved.captured;
            self.refunds.insert(late, Image { before: None, now: late_refund(&moved, left, now) });
        }
        image.now = moved.clone();
        if moved.state == PaymentState::Paid {
            self.put_lines(id, &step.sold, now);
        }
        Ok(Written::Row(Box::new(moved)))
    }

    /// Changes a payment whose version is known, in what is no part of its walk.
    fn held(&mut self, id: PaymentId, version: u64, change: impl FnOnce(&mut Payment)) -> Answer {
        let image = self.payments.get_mut(&id).ok_or(NotWritten::NoSuchPayment)?;
        if image.now.version != version {
            return Ok(Written::Lost);
        }
        change(&mut image.now);
        image.now.version += 1;
        Ok(Written::Row(Box::new(image.now.clone())))
    }

    fn tell_open(&mut self, id: PaymentId) -> Answer {
        let payment = &mut self.payments.get_mut(&id).ok_or(NotWritten::NoSuchPayment)?.now;
        payment.told_open |= payment.state.is_open() || payment.state == PaymentState::Review;
        Ok(Written::Row(Box::new(payment.clone())))
    }

    fn refund(&mut self, refund: &Refund, now: Millis) -> Answer {
        if let Some(known) = self.refunds.get(&refund.id) {
            return Ok(Written::RefundRow(Box::new(known.now.clone())));
        }
        if let Some(ended) = self.ended_before(refund) {
            return Ok(Written::NotMoved(Box::new(ended)));
        }
        let payment = &mut self.payments.get_mut(&refund.payment).ok_or(NotWritten::NoSuchPayment)?.now;
        let Money { amount, currency } = refund.amount;
        // Of what cost nothing, or has had its price back, only the units come.
        let units_alone = refund.cause.line().is_some() && refund.restock.back().is_some();
        let least = i64::from(payment.amount.amount > 0 && !units_alone);
        if amount < least || currency != payment.captured_in {
            return Err(NotWritten::Amount);
        }
        let (captured, refunded) = (payment.captured, payment.refunded);
        match refunded.checked_add(amount).filter(|sum| *sum <= captured) {
            Some(sum) => payment.refunded = sum,
            None => return Ok(Written::TooMuch { captured, refunded }),
        }
        payment.version += 1;
        payment.updated_at = now;
        self.refunds.insert(refund.id, Image { before: None, now: refund.clone() });
        self.end_lines(refund, now)?;
        Ok(Written::RefundRow(Box::new(refund.clone())))
    }

    fn held_refund(
        &mut self,
        id: RefundId,
        version: u64,
        change: impl FnOnce(&mut Refund) -> Result<(), NotWritten>,
    ) -> Answer {
        let image = self.refunds.get_mut(&id).ok_or(NotWritten::NoSuchRefund)?;
        if image.now.version != version {
            return Ok(Written::Lost);
        }
        let mut changed = image.now.clone();
        change(&mut changed)?;
        changed.version += 1;
        image.now = changed.clone();
        Ok(Written::RefundRow(Box::new(changed)))
    }

    fn hint(&mut self, hint: &Hint, now: Millis) -> Answer {
        let event = hint.event.as_str();
        if event.is_empty() || event.len() > EVENT_ID_LEN_MAX {
            return Err(NotWritten::EventId);
        }
        if !self.heard.insert(event.to_owned()) {
            return Ok(Written::Known);
        }
        self.news.push(event.to_owned());
        let told = hint.payment.and_then(|id| self.payments.get_mut(&id)).map(|image| &mut image.now);
        if let Some(payment) = told.filter(|payment| may_move_by_hint(payment.state)) {
            if payment.provider_ref.is_none() {
                payment.provider_ref.clone_from(&hint.provider_ref);
            }
            if !hint.is_walked {
                payment.due_at = Some(payment.due_at.map_or(now, |due_at| due_at.min(now)));
            }
        }
        let told = hint.refund.and_then(|id| self.refunds.get_mut(&id)).map(|image| &mut image.now);
        if let Some(refund) = told.filter(|refund| is_waiting(refund) || refund.may_come_back()) {
            refund.due_at = Some(now);
            // Whoever walks it may have asked before there was news.
            refund.version += 1;
        }
        Ok(Written::Heard)
    }
}

/// Whether somebody still has to look at it.
fn is_waiting(refund: &Refund) -> bool {
    refund.state != RefundState::Done || refund.due_at.is_some()
}

/// Whether the provider can tell news of a payment in this state.
fn may_move_by_hint(state: PaymentState) -> bool {
    matches!(state, PaymentState::Started | PaymentState::Unknown) || state.has_failed()
}

/// All that came for an order that had ended. Its units were never sold by it.
fn late_refund(payment: &Payment, amount: i64, now: Millis) -> Refund {
    Refund {
        id: RefundId::of(payment.id, Cause::Late),
        payment: payment.id,
        order: payment.order,
        cause: Cause::Late,
        key: None,
        body: None,
        amount: Money { amount, currency: payment.captured_in },
        restock: Restock::Leave,
        state: RefundState::Wanted,
        reason: None,
        provider_ref: None,
        made_anew: 0,
        tries: 0,
        due_at: Some(now),
        version: 1,
        created_at: now,
        updated_at: now,
    }
}

fn shortened(mut word: String) -> String {
    word.truncate(word.floor_char_boundary(REASON_LEN_MAX));
    word
}
