//! Money that goes back: asked for by a clerk, by a cancellation, or by nobody because it came too late.
//!
//! Always true: the row is on the disk before a unit or a won moves; it names everything that happens under it, so that it
//! happens once; and it is tried until it is done.

use actix_web::rt;
use tokio::sync::oneshot;

use super::approval::{Known, heard_before, waits_again};
use super::recover::upon_newest;
use super::walk::{needs_time, said};
use super::{Decided, LEASE_MS, Payments, Place, Unkept, back_off_ms, refused, unread};
use crate::actors::stock::{NotDone, to_the_end};
use crate::domain::amount::Money;
use crate::domain::delivery::{Delivery, SoldLine};
use crate::domain::id::{OrderId, PaymentId, RefundId, UserId};
use crate::domain::order::Order;
use crate::domain::payment::{
    Asker, Cause, Give, GiveHeard, GivenLine, Giving, Payment, PaymentState, Refund, RefundSaid, RefundState,
    Restock, TRIED_AGAIN,
};
use crate::domain::stock::{CameBack, KeyUse, Millis, Refusal};
use crate::domain::trail::{Deed, Record};
use crate::persistence::money::{Write, Written};
use crate::provider::{ProviderError, RefundAsk, RefundSeen, RefundStatus};
use crate::telemetry;

/// The word of a provider that is asked too often, or too early, to be told apart from a failure.
const PENDING: &str = "pending";

/// What a clerk wants to give back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GiveBack {
    /// `None`: the line's price, of which no more than is left where its units come back; or all that is left.
    pub amount: Option<Money>,
    pub line: Option<u8>,
    pub restock: Restock,
    pub key: KeyUse,
}

/// The refund that stands, and whether this very request had asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GaveBack {
    pub refund: Refund,
    pub replayed: bool,
}

/// Why nothing goes back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotGiven {
    #[error("no such order")]
    NoOrder,
    #[error("the order has no such line")]
    NoLine,
    #[error("nothing was taken for this order")]
    NotPaid,
    #[error("the amount is in another currency")]
    OtherCurrency,
    #[error("{asked} asked for, {refunded} of {captured} are given back already")]
    TooMuch { captured: i64, refunded: i64, asked: i64 },
    #[error("the line was given back already")]
    Before { refund: RefundId },
    #[error("the key belongs to another request")]
    KeyReused,
    #[error(transparent)]
    NotDone(#[from] NotDone),
}

impl From<Unkept> for NotGiven {
    fn from(why: Unkept) -> NotGiven {
        NotGiven::NotDone(why.into())
    }
}

impl NotGiven {
    /// Said after something was written down: that nothing was done would be untrue.
    pub(super) fn after_all(self) -> NotGiven {
        match self {
            NotGiven::NotDone(why) => NotGiven::NotDone(why.after_all()),
            other => other,
        }
    }
}

/// What is to go back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    pub cause: Cause,
    pub amount: Money,
    pub restock: Restock,
    /// Of the request that asks for it.
    pub key: Option<KeyUse>,
}

/// What wanting it has come to.
pub enum Wanted {
    /// To be walked.
    New(Box<GiveWalk>),
    /// It stands there already.
    Before(Box<Refund>),
    /// Together with what was given back before it would be more than was taken.
    TooMuch { captured: i64, refunded: i64 },
    /// The line that it is about has ended: its money went back with that.
    Ended(Box<Delivery>),
}

/// A refund on its way. Like a payment's walk it may be dropped between any two steps.
pub struct GiveWalk {
    payments: Payments,
    giving: Giving,
    next: Give,
    provider_ref: String,
    claimed_until: Millis,
}

impl GiveWalk {
    fn new(
        payments: &Payments,
        refund: Refund,
        payment: &Payment,
        lines: Vec<GivenLine>,
        fresh: bool,
    ) -> GiveWalk {
        let claimed_until = refund.due_at.unwrap_or(refund.updated_at);
        let provider_ref = payment.provider_ref.clone().unwrap_or_default();
        let mut giving = Giving::new(refund, lines, fresh);
        let next = giving.start();
        GiveWalk { payments: payments.clone(), giving, next, provider_ref, claimed_until }
    }

    /// The refund as its row is, as far as this walk knows.
    pub fn refund(&self) -> &Refund {
        self.giving.refund()
    }

    fn units_are_back(&self) -> bool {
        self.refund().state != RefundState::Wanted
    }

    /// Walks until there is nothing more to do, or nothing more can be done now.
    pub async fn to_its_end(&mut self) {
        while self.step().await {}
    }

    /// Does one thing. `false`: the walk is over.
    pub async fn step(&mut self) -> bool {
        let house = &self.payments.0.house;
        let heard = match std::mem::replace(&mut self.next, Give::End) {
            Give::Ask(product, command) => {
                GiveHeard::Owner(said(house.directory.ask(product, command).await))
            }
            asked @ (Give::Find | Give::Refund) => match self.call(&asked).await {
                Some(said) => GiveHeard::Provider(said),
                None => return false,
            },
            Give::Write(step) => {
                let due_at = house.clock.now().plus(LEASE_MS);
                match self.payments.0.book.step_refund(self.giving.refund(), step, Some(due_at)).await {
                    Ok(Some(refund)) => {
                        self.tell_of(&refund);
                        self.claimed_until = due_at;
                        GiveHeard::Written(Box::new(refund))
                    }
                    // Somebody else has it, or nobody knows: it is taken up again when the claim runs out.
                    Ok(None) | Err(_) => return false,
                }
            }
            Give::Rest => {
                self.rest().await;
                return false;
            }
            Give::End => return false,
        };
        self.next = self.giving.heard(heard);
        true
    }

    /// It is about to be known here as it stands in its row: counted once, by whoever moved it.
    fn tell_of(&self, moved: &Refund) {
        match (self.refund().state, moved.state) {
            (RefundState::Wanted | RefundState::Restocked, RefundState::Done) => {
                telemetry::refund_tried("done")
            }
            (RefundState::Done, RefundState::Restocked) => {
                telemetry::refund_tried("came_back");
                tracing::error!(refund = %moved.id, order = %moved.order, reason = moved.reason,
                    "{}: its money has come back to us, and somebody has to give it another way", moved.id);
            }
            _ => {}
        }
    }

    async fn rest(&self) {
        let (house, refund) = (&self.payments.0.house, self.giving.refund());
        telemetry::refund_tried("retried");
        let reason = self.giving.reason().map(str::to_owned);
        if reason.as_deref() != Some(PENDING) {
            tracing::warn!(refund = %refund.id, order = %refund.order, tries = refund.tries, reason, "{} is tried again later", refund.id);
        }
        let due_at = house.clock.now().plus(back_off_ms(refund.tries, house.clock.chance()));
        let _ = self.payments.0.book.rest_refund(refund, due_at, reason).await;
        self.payments.wake();
    }

    /// `None`: the claim is over. Whoever takes it up next asks.
    async fn call(&mut self, asked: &Give) -> Option<RefundSaid> {
        let payments = self.payments.clone();
        let _place = payments.0.calls.acquire().await.ok()?;
        let house = &payments.0.house;
        // Also after a renewal: it may have taken as long as the claim.
        while needs_time(house.clock.now(), self.claimed_until)? {
            let until = house.clock.now().plus(LEASE_MS);
            let row = payments.0.book.rest_refund(self.giving.refund(), until, None).await.ok()??;
            self.claimed_until = until;
            self.giving.renewed(row);
        }
        let refund = self.giving.refund();
        let ask = RefundAsk {
            refund: refund.id,
            payment: refund.payment,
            order: refund.order,
            provider_ref: &self.provider_ref,
            amount: refund.amount,
            started_at: refund.created_at,
            again: refund.is_tried_again(),
            made_anew: refund.made_anew,
        };
        let answer = match asked {
            Give::Find => house.provider.find_refund(&ask).await,
            _ => house.provider.refund(&ask).await.map(Some),
        };
        Some(match answer {
            Ok(None) => RefundSaid::Absent,
            Ok(Some(RefundSeen { provider_ref, status, .. })) => match status {
                RefundStatus::Done => RefundSaid::Done { provider_ref },
                RefundStatus::Pending => RefundSaid::Pending { provider_ref },
                RefundStatus::Failed { code } => RefundSaid::Failed(code),
            },
            Err(ProviderError::Refused { code }) if matches!(asked, Give::Find) => RefundSaid::Refused(code),
            Err(ProviderError::Refused { code }) => RefundSaid::Failed(code),
            Err(ProviderError::Unknown | ProviderError::NotNow) => RefundSaid::NotNow,
            Err(ProviderError::Spent) => RefundSaid::Spent,
        })
    }
}

/// The lines whose units a refund is about, and why they come back. What is all about an order leaves those alone that have come
/// back by a refund of their own: `others` are all of the order.
fn lines_of(order: &Order, cause: Cause, others: &[Refund], rows: &[Delivery]) -> Vec<GivenLine> {
    let own = |number: u8| {
        let mut others = others.iter().filter(|other| other.restock.back().is_some());
        others.any(|other| other.cause.line() == Some(number))
    };
    let concerns = |number: u8| match cause {
        Cause::OrderCancelled | Cause::Clerk(_) => !own(number),
        Cause::Line(_) | Cause::LineTakenBack(_) | Cause::LineCancelled(_) | Cause::LineReturned(_) => {
            cause.line() == Some(number)
        }
        Cause::Late => false,
    };
    let why = |number: u8| {
        let row = rows.iter().find(|row| row.line == number);
        row.map_or(CameBack::Cancelled, |row| row.state.came_back())
    };
    let lines = order.lines.iter().filter(|line| concerns(line.line));
    lines
        .map(|line| GivenLine { product: line.product, quantity: line.quantity, why: why(line.line) })
        .collect()
}

impl Payments {
    /// Gives back what a clerk wants to give back, or has it wait for another one. Never more than was taken; the same line once, whoever
    /// asks. What two have agreed upon is not left behind by one who hangs up.
    pub async fn give_back(
        &self,
        by: Asker,
        order: OrderId,
        ask: GiveBack,
    ) -> Result<Decided<GaveBack>, NotGiven> {
        let payments = self.clone();
        to_the_end(async move { payments.give_back_alone(by, order, ask).await }).await
    }

    async fn give_back_alone(
        &self,
        by: Asker,
        order: OrderId,
        ask: GiveBack,
    ) -> Result<Decided<GaveBack>, NotGiven> {
        let house = &self.0.house;
        let order = house.orders.look(order).await?.ok_or(NotGiven::NoOrder)?;
        // One after the other: who asks for two things under one key hears so, whichever comes first.
        let _alone = self.alone(order.id).await?;
        let known = house.rows.refunds().of_order(order.id).await.map_err(unread)?;
        let askings = self.askings(order.id).await?;
        match heard_before(ask.key, &known, &askings.rows)? {
            Some(Known::Answered(before)) => return Ok(*before),
            Some(Known::Undone { agreed, is_first }) => {
                let place = self.place().map_err(NotDone::after_all)?;
                let gave = self.make_agreed(place, Some(by.user), &agreed).await?;
                return Ok(match is_first {
                    true => waits_again(*agreed, Some(gave.refund.id)),
                    false => Decided::Done(gave),
                });
            }
            None => {}
        }
        let payment = self.paid(order.id).await?.ok_or(NotGiven::NotPaid)?;
        // The money has come and the units are not sold yet: what went back now would be sold all the same.
        if payment.state == PaymentState::Captured && !order.is_sold() {
            return Err(refused(&order, Refusal::PaymentRunning).into());
        }
        let left = payment.captured.saturating_sub(payment.refunded);
        let (mut cause, mut amount) = asked_for(&order, &ask)?;
        let mut id = RefundId::of(payment.id, cause);
        if let Some(before) = house.rows.refunds().find(id).await.map_err(unread)? {
            (cause, amount) = taken_back(&before, &ask, amount, left)?;
            id = RefundId::of(payment.id, cause);
            if house.rows.refunds().find(id).await.map_err(unread)?.is_some() {
                return Err(NotGiven::Before { refund: id });
            }
        }
        self.not_by_its_buyer(payment.id, cause).await?;
        let too_much =
            |asked| NotGiven::TooMuch { captured: payment.captured, refunded: payment.refunded, asked };
        // A line that was free, or has had its price back, gives its units back all the same.
        let units_alone = ask.amount.is_none() && ask.line.is_some() && ask.restock.back().is_some();
        if ask.amount.is_none()
            && let Some(price) = &mut amount
        {
            if units_alone {
                // What has gone back as an amount names no line; it may have been this one's.
                price.amount = price.amount.min(left);
            }
            // Never more than is left: some of it may have gone back alone.
            let above = self.above_price(&payment, &ask).await?;
            price.amount += above.min(left.saturating_sub(price.amount).max(0));
        }
        let amount = amount.unwrap_or(Money { amount: left, ..payment.amount });
        if amount.amount > left || amount.amount < i64::from(!units_alone) {
            return Err(too_much(amount.amount));
        }
        let place = self.place()?;
        let want = Want { cause, amount, restock: ask.restock, key: Some(ask.key) };
        let gave = match self.wanted_by_two(by, &payment, want, &known, askings).await? {
            Decided::Done(Some(agreed)) => self.make_agreed(place, Some(by.user), &agreed).await?,
            Decided::Done(None) => self.give(place, Some(by.user), (&payment, &order), want, None).await?,
            Decided::Waits(waits) => return Ok(Decided::Waits(waits)),
        };
        Ok(Decided::Done(gave))
    }

    /// Writes a refund by hand into the trail, puts it down and has it walked. `by` is nobody where two have agreed upon it and it is taken
    /// up by itself.
    pub(super) async fn give(
        &self,
        place: Place,
        by: Option<UserId>,
        (payment, order): (&Payment, &Order),
        want: Want,
        two: Option<(UserId, UserId)>,
    ) -> Result<GaveBack, NotGiven> {
        let house = &self.0.house;
        let (id, asked) = (RefundId::of(payment.id, want.cause), want.amount.amount);
        let deed = Record::new(Deed::RefundAsked, house.clock.now()).on(order.id).id("refund", id);
        let deed = deed.number("amount_minor", asked).word("restock", want.restock.as_str()).by_two(two);
        let deed = match by {
            Some(by) => deed.by(by),
            None => deed,
        };
        house.trail.append(&deed).await.map_err(unread)?;
        match self.begin_refund(payment, order, want).await? {
            Wanted::New(walk) => {
                let refund = walk.refund().clone();
                self.walk_refund(place, *walk, None);
                Ok(GaveBack { refund, replayed: false })
            }
            Wanted::Before(refund) => Err(NotGiven::Before { refund: refund.id }),
            Wanted::Ended(row) => {
                let cancelled = Cause::OrderCancelled;
                let of_line = if row.state.came_back() == CameBack::Cancelled {
                    cancelled
                } else {
                    Cause::LineReturned(row.line)
                };
                Err(NotGiven::Before { refund: RefundId::of(payment.id, of_line) })
            }
            Wanted::TooMuch { captured, refunded } => Err(NotGiven::TooMuch { captured, refunded, asked }),
        }
    }

    /// A line that its buyer has cancelled or sent back has had its price already.
    pub(super) async fn not_by_its_buyer(&self, payment: PaymentId, cause: Cause) -> Result<(), NotGiven> {
        let buyers = cause.line().map(|line| [Cause::LineCancelled(line), Cause::LineReturned(line)]);
        for before in buyers.into_iter().flatten().map(|cause| RefundId::of(payment, cause)) {
            if self.0.house.rows.refunds().find(before).await.map_err(unread)?.is_some() {
                return Err(NotGiven::Before { refund: before });
            }
        }
        Ok(())
    }

    /// What a clerk gives back besides the price with a line that is the last to end: what was taken above all prices.
    async fn above_price(&self, payment: &Payment, ask: &GiveBack) -> Result<i64, NotDone> {
        let above = payment.above_price();
        if above == 0 || ask.restock.back().is_none() {
            return Ok(0);
        }
        let rows = self.0.house.rows.deliveries().of_order(payment.order).await.map_err(unread)?;
        let stays = |row: &Delivery| !row.state.has_ended() && Some(row.line) != ask.line;
        Ok(if rows.is_empty() || rows.iter().any(stays) { 0 } else { above })
    }

    /// Puts a refund down, and what its payment has given back with it. Nothing moves here.
    pub async fn begin_refund(
        &self,
        payment: &Payment,
        order: &Order,
        want: Want,
    ) -> Result<Wanted, NotDone> {
        let now = self.0.house.clock.now();
        let refund = Refund {
            id: RefundId::of(payment.id, want.cause),
            payment: payment.id,
            order: payment.order,
            cause: want.cause,
            key: want.key.map(|used| used.key),
            body: want.key.map(|used| used.body),
            amount: want.amount,
            restock: want.restock,
            state: RefundState::Wanted,
            reason: None,
            provider_ref: None,
            made_anew: 0,
            tries: 0,
            due_at: Some(now.plus(LEASE_MS)),
            version: 1,
            created_at: now,
            updated_at: now,
        };
        match self.0.book.write(Write::Refund(Box::new(refund.clone()), SoldLine::of(order))).await? {
            Written::RefundRow(row) if *row == refund => Ok(Wanted::New(Box::new(
                self.give_walk(refund, payment, order).await.map_err(NotDone::after_all)?,
            ))),
            Written::RefundRow(row) => Ok(Wanted::Before(row)),
            Written::NotMoved(row) => Ok(Wanted::Ended(row)),
            Written::TooMuch { captured, refunded } => Ok(Wanted::TooMuch { captured, refunded }),
            _ => Err(NotDone::Internal),
        }
    }

    /// The walk of a refund that was written a moment ago.
    pub(super) async fn give_walk(
        &self,
        refund: Refund,
        payment: &Payment,
        order: &Order,
    ) -> Result<GiveWalk, NotDone> {
        let lines = self.given_lines(&refund, order).await?;
        Ok(GiveWalk::new(self, refund, payment, lines, true))
    }

    /// The lines whose units come back with a refund.
    async fn given_lines(&self, refund: &Refund, order: &Order) -> Result<Vec<GivenLine>, NotDone> {
        if refund.restock.back().is_none() {
            return Ok(Vec::new());
        }
        let rows = &self.0.house.rows;
        let others = rows.refunds().of_order(order.id).await.map_err(unread)?;
        let deliveries = rows.deliveries().of_order(order.id).await.map_err(unread)?;
        Ok(lines_of(order, refund.cause, &others, &deliveries))
    }

    /// What goes back of an order, oldest first.
    pub async fn refunds_of(&self, order: OrderId) -> Result<Vec<Refund>, NotDone> {
        self.0.house.rows.refunds().of_order(order).await.map_err(unread)
    }

    /// The attempt for which money was taken and kept.
    pub async fn paid(&self, order: OrderId) -> Result<Option<Payment>, NotDone> {
        let attempts = self.0.house.rows.payments().of_order(order).await.map_err(unread)?;
        let kept = |payment: &Payment| matches!(payment.state, PaymentState::Paid | PaymentState::Captured);
        Ok(attempts.into_iter().find(kept))
    }

    /// Walks a refund behind everybody's back. `back` hears when its units are where they shall be.
    pub(super) fn walk_refund(
        &self,
        place: Place,
        mut walk: GiveWalk,
        mut back: Option<oneshot::Sender<()>>,
    ) {
        rt::spawn(async move {
            while walk.step().await {
                if walk.units_are_back()
                    && let Some(back) = back.take()
                {
                    // Who does not wait any more finds it in the order.
                    let _ = back.send(());
                }
            }
            drop(place);
        });
    }

    /// Takes up a refund that is due. `false`: somebody else has.
    pub(super) async fn take_up_refund(&self, refund: &Refund) -> Result<bool, NotDone> {
        let house = &self.0.house;
        let Ok(place) = self.place() else { return Ok(false) };
        let until = house.clock.now().plus(LEASE_MS);
        let Some(refund) = self.0.book.claim_refund(refund, until).await? else { return Ok(false) };
        let payment = house.rows.payments().find(refund.payment).await.map_err(unread)?;
        let payment = payment.ok_or(NotDone::Internal)?;
        // Without the order nobody knows which units to give back: then later again.
        let lines = match refund.restock.back() {
            Some(_) if refund.state == RefundState::Wanted => {
                let order = house.orders.look(refund.order).await?.ok_or(NotDone::Unavailable)?;
                self.given_lines(&refund, &order).await?
            }
            _ => Vec::new(),
        };
        self.walk_refund(place, GiveWalk::new(self, refund, &payment, lines, false), None);
        Ok(true)
    }

    /// Somebody wants it tried at once. What the provider would not do is asked for anew. `false`: there is nothing to try any more.
    pub(super) async fn refund_due_now(&self, refund: RefundId) -> Result<bool, NotDone> {
        let house = &self.0.house;
        let waiting = async || -> Result<Option<Refund>, NotDone> {
            let row = house.rows.refunds().find(refund).await.map_err(unread)?;
            Ok(row.filter(|row| row.due_at.is_some()))
        };
        let tried = async |row: &Refund| {
            let reason = row.has_failed().then(|| TRIED_AGAIN.to_owned());
            self.0.book.rest_refund(row, house.clock.now(), reason).await
        };
        upon_newest(waiting, tried).await
    }
}

/// Under which cause it goes back, and how much if that is told.
fn asked_for(order: &Order, ask: &GiveBack) -> Result<(Cause, Option<Money>), NotGiven> {
    if ask.amount.is_some_and(|amount| amount.currency != order.total.currency) {
        return Err(NotGiven::OtherCurrency);
    }
    let Some(number) = ask.line else { return Ok((Cause::Clerk(ask.key.key), ask.amount)) };
    let line = order.lines.iter().find(|line| line.line == number).ok_or(NotGiven::NoLine)?;
    let price = line.unit_price.times(line.quantity);
    Ok((Cause::Line(number), ask.amount.or(price)))
}

/// A line's price was given back before, and its units were left where they were: now they come back, with what is still owed.
fn taken_back(
    before: &Refund,
    ask: &GiveBack,
    amount: Option<Money>,
    left: i64,
) -> Result<(Cause, Option<Money>), NotGiven> {
    match (before.cause, before.restock, ask.restock.back()) {
        (Cause::Line(line), Restock::Leave, Some(_)) => {
            let owed = |price: Money| {
                let owed = price.amount.saturating_sub(before.amount.amount).clamp(0, left.max(0));
                Money { amount: owed, ..price }
            };
            let amount = if ask.amount.is_some() { amount } else { amount.map(owed) };
            Ok((Cause::LineTakenBack(line), amount))
        }
        _ => Err(NotGiven::Before { refund: before.id }),
    }
}
