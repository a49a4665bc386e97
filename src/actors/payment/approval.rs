//! Two administrators, where one is not enough: what the first one asks for is written down, and done when another one asks for the same.
//!
//! Always true: what has two is in its row before it is done, so it is done once, by this process or the next, whether or not anybody asks
//! again; both stand in the trail before that; and the word of somebody who was sent away since, or whose session was ended, counts no more.

use actix_web::rt;

use super::{GaveBack, LEASE_MS, NotGiven, Payments, Place, RETRY_MS, Want, unread};
use crate::actors::stock::NotDone;
use crate::domain::account::AccountState;
use crate::domain::amount::{Currency, Money};
use crate::domain::id::{ApprovalId, OrderId, RefundId, SessionId, UserId};
use crate::domain::payment::{Approval, Asked, Asker, Hand, Payment, Refund, Seconded, What};
use crate::domain::stock::{KeyUse, Millis};
use crate::domain::trail::{Deed, Record};
use crate::domain::user::Role;
use crate::persistence::StoreError;

/// What may wait for a second administrator at a time, of one order.
const OPEN_MAX: usize = 64;
/// Refunds that two have agreed upon and that are taken up at a time.
const DUE_MAX: u32 = 32;

/// It is done, or it waits for somebody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decided<T> {
    Done(T),
    Waits(Box<Waits>),
}

/// What one administrator has asked for, and whether this very request had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waits {
    pub approval: Approval,
    /// The one that it is about, or that has come of it.
    pub refund: Option<RefundId>,
    pub replayed: bool,
}

/// What is known of an order that takes two.
pub(super) struct Askings {
    /// What two have asked for, and of what waits that of whoever's word counts.
    pub rows: Vec<Approval>,
    /// All that waits.
    open: usize,
}

/// What a request is whose key was used before.
pub(super) enum Known {
    Answered(Box<Decided<GaveBack>>),
    /// Of what two have asked for and nobody has done yet: whoever was to do it has died, or could not.
    Undone {
        agreed: Box<Approval>,
        is_first: bool,
    },
}

pub(super) fn unwritten(error: impl std::fmt::Display) -> NotDone {
    tracing::error!(%error, "what takes two administrators may not have been written");
    NotDone::Unknown
}

/// What is said of a failure: behind two words that are written down it would be untrue that nothing was done.
pub(super) fn behind(is_agreed: bool) -> impl Fn(NotDone) -> NotDone + Copy {
    move |why| if is_agreed { why.after_all() } else { why }
}

/// What went back by hand in this currency: given back by clerks, or said to have gone back another way.
pub(super) fn by_hand<'r>(refunds: impl Iterator<Item = &'r Refund>, currency: Currency) -> i64 {
    let ours = |refund: &&Refund| What::of(refund.cause).is_some() || refund.is_settled_by_hand();
    let amounts = refunds.filter(ours).map(|refund| refund.amount);
    amounts.filter(|money| money.currency == currency).map(|money| money.amount).fold(0, i64::saturating_add)
}

impl Payments {
    /// What is known of an order that takes two. What has lapsed is as if it had never been, and so is what somebody has asked for whose
    /// word counts no more.
    pub(super) async fn askings(&self, order: OrderId) -> Result<Askings, NotDone> {
        let now = self.0.house.clock.now();
        let mut askings = Askings { rows: Vec::new(), open: 0 };
        for row in self.0.house.rows.approvals().of_order(order).await.map_err(unread)? {
            let waits = row.seconded.is_none();
            if waits && row.has_lapsed(now) {
                continue;
            }
            askings.open += usize::from(waits);
            if !waits || self.still_counts(&row).await? {
                askings.rows.push(row);
            }
        }
        Ok(askings)
    }

    /// Who has decided it, where that takes two; none where one is enough. It weighs as much as `weighs`, beside what went back of the
    /// order `before`. Whoever calls is alone with the order.
    pub(super) async fn decided_by(
        &self,
        by: Asker,
        asked: Asked,
        weighs: Money,
        before: i64,
    ) -> Result<Decided<Option<Approval>>, NotDone> {
        let house = &self.0.house;
        if !house.four_eyes.needs_two(weighs, before) {
            return Ok(Decided::Done(None));
        }
        let now = house.clock.now();
        let mut askings = self.askings(asked.order).await?;
        askings.rows.retain(|row| row.asked == asked && !row.has_lapsed(now));
        self.asked_by_two(by, asked, None, &askings).await
    }

    /// What two have agreed upon, where it takes two to give this back; none where one is enough. What two have asked for goes back under
    /// a name of its own, whoever is the second; for as long as that stands it is not asked for anew. `known` is all that goes back of the
    /// order. Whoever calls is alone with it.
    pub(super) async fn wanted_by_two(
        &self,
        by: Asker,
        payment: &Payment,
        want: Want,
        known: &[Refund],
        mut askings: Askings,
    ) -> Result<Decided<Option<Approval>>, NotGiven> {
        let house = &self.0.house;
        let before = by_hand(known.iter(), want.amount.currency);
        let needs_two = house.four_eyes.needs_two(want.amount, before);
        let Some(what) = What::of(want.cause).filter(|_| needs_two) else {
            return Ok(Decided::Done(None));
        };
        let asked = Asked {
            what,
            order: payment.order,
            payment: payment.id,
            refund: None,
            line: want.cause.line(),
            amount: want.amount,
            restock: want.restock,
        };
        let now = house.clock.now();
        // What two have asked for stands until it is done, however long that takes.
        let undone = |row: &Approval| row.seconded.is_some() && made_of(row, known).is_none();
        askings.rows.retain(|row| row.asked == asked && (!row.has_lapsed(now) || undone(row)));
        if let Some(made) = askings.rows.iter().find_map(|row| made_of(row, known)) {
            return Err(NotGiven::Before { refund: made.id });
        }
        Ok(self.asked_by_two(by, asked, want.key, &askings).await?)
    }

    /// What two have asked for by now, or what waits. Of `stands` all rows are about the same.
    async fn asked_by_two(
        &self,
        by: Asker,
        asked: Asked,
        key: Option<KeyUse>,
        stands: &Askings,
    ) -> Result<Decided<Option<Approval>>, NotDone> {
        let house = &self.0.house;
        let now = house.clock.now();
        let waits = |approval: Approval| {
            let refund = approval.asked.refund;
            Ok(Decided::Waits(Box::new(Waits { approval, refund, replayed: false })))
        };
        match Hand::of(by.user, &stands.rows) {
            Hand::Both(approval) => Ok(Decided::Done(Some(approval))),
            Hand::Waits(approval) => waits(approval),
            Hand::Second(first) => {
                let deed = told(Deed::ApprovalSeconded, by.user, &asked, now).id("asked_by", first.by);
                house.trail.append(&deed).await.map_err(unread)?;
                let seconded = Seconded { by: by.user, at: now, key };
                // A decision without a refund of its own stays on the list by itself.
                let due_at = first.cause().map(|_| now.plus(LEASE_MS));
                match house.rows.approvals().second(first.id, &seconded, due_at).await.map_err(unwritten)? {
                    true => Ok(Decided::Done(Some(Approval { seconded: Some(seconded), ..first }))),
                    false => Err(NotDone::Unavailable),
                }
            }
            Hand::First if stands.open >= OPEN_MAX => Err(NotDone::Busy { retry_after_ms: RETRY_MS }),
            Hand::First => {
                let session = self.session_of(by).await?;
                house.trail.append(&told(Deed::ApprovalAsked, by.user, &asked, now)).await.map_err(unread)?;
                let id = ApprovalId::new(now, house.clock.chance());
                let approval = Approval { id, asked, by: by.user, session, at: now, key, seconded: None };
                house.rows.approvals().ask(&approval).await.map_err(unwritten)?;
                waits(approval)
            }
        }
    }

    /// The session that somebody asks in, where it is one that can be ended: a token that was signed offline has none.
    async fn session_of(&self, by: Asker) -> Result<Option<SessionId>, NotDone> {
        let house = &self.0.house;
        let row = house.sessions.find(by.session).await.map_err(|error| unseen(error, by.user))?;
        // It may have been ended a moment ago.
        let is_one = row.is_some() || house.revocations.cover(by.user, by.session);
        Ok(is_one.then_some(by.session))
    }

    /// Whether whoever asked first is still an administrator, and has not been sent away, or signed out, since.
    pub(super) async fn still_counts(&self, first: &Approval) -> Result<bool, NotDone> {
        let house = &self.0.house;
        if let Some(session) = first.session {
            let row = house.sessions.find(session).await.map_err(|error| unseen(error, first.by))?;
            if row.is_none() {
                return Ok(false);
            }
        }
        let account = house.users.find(first.by).await.map_err(|error| unseen(error, first.by))?;
        Ok(match account {
            Some(user) => {
                let may_ask = user.state == AccountState::Verified && user.role == Role::Admin;
                may_ask && user.signed_out_at < first.at
            }
            // Who has no account came with a token that was signed offline.
            None => !house.revocations.have_ended(first.by, first.at),
        })
    }

    /// Makes the refund that two have agreed upon, or finds it made. Whoever calls is alone with the order; `by` is nobody where nobody
    /// asks.
    pub(super) async fn make_agreed(
        &self,
        place: Place,
        by: Option<UserId>,
        agreed: &Approval,
    ) -> Result<GaveBack, NotGiven> {
        let gave = self.make_once(place, by, agreed).await.map_err(NotGiven::after_all)?;
        self.nothing_due(agreed).await;
        Ok(gave)
    }

    /// Nothing is left to be done of it. Where that cannot be noted it is taken up once more, and found so.
    async fn nothing_due(&self, agreed: &Approval) {
        if let Err(error) = self.0.house.rows.approvals().due_at(agreed.id, None).await {
            tracing::warn!(%error, approval = %agreed.id, "{} is looked at again", agreed.id);
        }
    }

    async fn make_once(
        &self,
        place: Place,
        by: Option<UserId>,
        agreed: &Approval,
    ) -> Result<GaveBack, NotGiven> {
        let house = &self.0.house;
        let (Some(cause), Some(seconded)) = (agreed.cause(), agreed.seconded) else {
            return Err(NotDone::Internal.into());
        };
        let Asked { order, payment, amount, restock, .. } = agreed.asked;
        let id = RefundId::of(payment, cause);
        if let Some(refund) = house.rows.refunds().find(id).await.map_err(unread)? {
            return Ok(GaveBack { refund, replayed: true });
        }
        self.not_by_its_buyer(payment, cause).await?;
        let order = house.orders.look(order).await?.ok_or(NotGiven::NoOrder)?;
        let paid = self.paid(order.id).await?.filter(|paid| paid.id == payment).ok_or(NotGiven::NotPaid)?;
        let key = seconded.key.map(|used| KeyUse { key: *agreed.id.as_bytes(), ..used });
        let want = Want { cause, amount, restock, key };
        self.give(place, by, (&paid, &order), want, agreed.two()).await
    }

    /// Makes the refunds that two have agreed upon where whoever was to make them has died, or could not: beside each other, for an order
    /// that cannot be reached keeps nobody else's money.
    pub(super) async fn make_due(&self) -> Result<(), NotDone> {
        let (rows, now) = (self.0.house.rows.approvals(), self.0.house.clock.now());
        for agreed in rows.due(now, DUE_MAX).await.map_err(unread)? {
            let Ok(place) = self.place() else { return Ok(()) };
            // First: one that fails, or panics, holds up no other.
            rows.due_at(agreed.id, Some(now.plus(LEASE_MS))).await.map_err(unwritten)?;
            let payments = self.clone();
            rt::spawn(async move { payments.make_one_due(place, agreed).await });
        }
        Ok(())
    }

    async fn make_one_due(&self, place: Place, agreed: Approval) {
        let made = match self.alone(agreed.asked.order).await {
            Ok(_alone) => self.make_agreed(place, None, &agreed).await,
            Err(why) => Err(why.into()),
        };
        match made {
            Ok(_) => {}
            Err(NotGiven::NotDone(why)) => {
                tracing::warn!(%why, approval = %agreed.id, "what two have agreed upon in {} is tried again", agreed.id);
            }
            // The money has gone back meanwhile: there is nothing left to agree upon.
            Err(why) => {
                tracing::warn!(%why, approval = %agreed.id, "nothing comes of what two have agreed upon in {}", agreed.id);
                self.nothing_due(&agreed).await;
            }
        }
    }
}

fn unseen(error: StoreError, by: UserId) -> NotDone {
    tracing::error!(%error, %by, "the account of {by}, who asked first, cannot be read");
    NotDone::Unavailable
}

/// What is written down about asking for it.
fn told(deed: Deed, by: UserId, asked: &Asked, now: Millis) -> Record {
    let deed = Record::new(deed, now).by(by).on(asked.order).id("payment", asked.payment);
    let deed = deed.word("what", asked.what.as_str()).number("amount_minor", asked.amount.amount);
    deed.word("restock", asked.restock.as_str())
}

/// What two have made of it.
fn made_of<'k>(row: &Approval, known: &'k [Refund]) -> Option<&'k Refund> {
    let made = row.refund().filter(|_| row.seconded.is_some());
    known.iter().find(|refund| made == Some(refund.id))
}

/// What this request has heard before, if it comes again: of two the first that it waits, as it stands by now, and the second the refund.
pub(super) fn heard_before(
    key: KeyUse,
    known: &[Refund],
    rows: &[Approval],
) -> Result<Option<Known>, NotGiven> {
    let answered = |before| Known::Answered(Box::new(before));
    let gave = |refund: &Refund| answered(Decided::Done(GaveBack { refund: refund.clone(), replayed: true }));
    if let Some(refund) = known.iter().find(|refund| refund.key == Some(key.key)) {
        // Of one that an older version wrote nobody knows what was said.
        let is_same = refund.body.is_none_or(|body| body == key.body);
        return if is_same { Ok(Some(gave(refund))) } else { Err(NotGiven::KeyReused) };
    }
    for row in rows {
        let seconds = row.seconded.and_then(|second| second.key);
        let is_ours = |used: &KeyUse| used.key == key.key;
        let (first, second) = (row.key.filter(is_ours), seconds.filter(is_ours));
        let Some(used) = first.or(second) else { continue };
        if used.body != key.body {
            return Err(NotGiven::KeyReused);
        }
        let is_first = first.is_some();
        let made = made_of(row, known);
        return Ok(Some(match made {
            None if row.seconded.is_some() => Known::Undone { agreed: Box::new(*row), is_first },
            Some(refund) if !is_first => gave(refund),
            _ => answered(waits_again(*row, made.map(|refund| refund.id))),
        }));
    }
    Ok(None)
}

/// What the first one hears whose request comes again.
pub(super) fn waits_again(approval: Approval, refund: Option<RefundId>) -> Decided<GaveBack> {
    Decided::Waits(Box::new(Waits { approval, refund, replayed: true }))
}
