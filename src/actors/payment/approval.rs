//! Two administrators, where one is not enough: what the first one asks for is written down, and done when another one asks for the same.
//!
//! Always true: what has two is in its row before it is done, so it is done once, by whoever comes next if he who was to do it has died;
//! the word of somebody who was sent away since counts no more.

use super::{GaveBack, NotGiven, Payments, Want, unread};
use crate::actors::stock::NotDone;
use crate::domain::account::AccountState;
use crate::domain::id::{ApprovalId, UserId};
use crate::domain::payment::{Approval, Asked, Hand, Payment, Refund, Seconded, What};
use crate::domain::stock::{KeyUse, Millis};
use crate::domain::trail::{Deed, Record};
use crate::domain::user::Role;

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
    pub replayed: bool,
}

fn unwritten(error: impl std::fmt::Display) -> NotDone {
    tracing::error!(%error, "what takes two administrators may not have been written");
    NotDone::Unknown
}

impl Payments {
    /// Who had asked for this decision first, where it takes two; none where one is enough.
    pub(super) async fn decided_by(
        &self,
        by: UserId,
        asked: Asked,
    ) -> Result<Decided<Option<UserId>>, NotDone> {
        let house = &self.0.house;
        if !house.four_eyes.needs_two(asked.amount, 0) {
            return Ok(Decided::Done(None));
        }
        let _alone = self.alone(asked.order).await?;
        let rows = house.rows.approvals().of_order(asked.order).await.map_err(unread)?;
        Ok(match self.asked_by_two(by, asked, None, &rows).await? {
            Decided::Done(approval) => Decided::Done(Some(approval.by)),
            Decided::Waits(waits) => Decided::Waits(waits),
        })
    }

    /// What goes back, and who had asked for it first where it takes two. What two have asked for goes back under a name of its own,
    /// whoever is the second; for as long as that stands it is not asked for anew. `known` is all that goes back of the order, and `rows`
    /// what takes two.
    pub(super) async fn wanted_by_two(
        &self,
        by: UserId,
        payment: &Payment,
        want: Want,
        known: &[Refund],
        rows: &[Approval],
    ) -> Result<Decided<(Want, Option<UserId>)>, NotGiven> {
        let house = &self.0.house;
        let by_hand = known.iter().filter(|refund| What::of(refund.cause).is_some());
        let before = by_hand.map(|refund| refund.amount.amount).fold(0, i64::saturating_add);
        let needs_two = house.four_eyes.needs_two(want.amount, before);
        let Some(what) = What::of(want.cause).filter(|_| needs_two) else {
            return Ok(Decided::Done((want, None)));
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
        let mut stands = rows.iter().filter(|row| row.asked == asked && !row.has_lapsed(now));
        if let Some(made) = stands.find_map(|row| made_of(row, known)) {
            return Err(NotGiven::Before { refund: made.id });
        }
        let approval = match self.asked_by_two(by, asked, want.key, rows).await? {
            Decided::Done(approval) => approval,
            Decided::Waits(waits) => return Ok(Decided::Waits(waits)),
        };
        let cause = approval.cause().unwrap_or(want.cause);
        let key = want.key.map(|used| KeyUse { key: *approval.id.as_bytes(), ..used });
        Ok(Decided::Done((Want { cause, key, ..want }, Some(approval.by))))
    }

    /// Whether two have asked for it by now. `rows` are all of the order, and whoever calls is alone with it.
    pub(super) async fn asked_by_two(
        &self,
        by: UserId,
        asked: Asked,
        key: Option<KeyUse>,
        rows: &[Approval],
    ) -> Result<Decided<Approval>, NotDone> {
        let house = &self.0.house;
        let now = house.clock.now();
        let mut stands = Vec::new();
        for row in rows.iter().filter(|row| row.asked == asked && !row.has_lapsed(now)) {
            if self.still_counts(row).await? {
                stands.push(*row);
            }
        }
        let waits = |approval| Ok(Decided::Waits(Box::new(Waits { approval, replayed: false })));
        match Hand::of(by, &stands) {
            Hand::Both(approval) => Ok(Decided::Done(approval)),
            Hand::Waits(approval) => waits(approval),
            Hand::Second(first) => {
                let seconded = Seconded { by, at: now, key };
                match house.rows.approvals().second(first.id, &seconded).await.map_err(unwritten)? {
                    true => Ok(Decided::Done(Approval { seconded: Some(seconded), ..first })),
                    false => Err(NotDone::Unavailable),
                }
            }
            Hand::First => {
                let id = ApprovalId::new(now, house.clock.chance());
                let deed = Record::new(Deed::ApprovalAsked, now).by(by).on(asked.order);
                let deed = deed.id("payment", asked.payment).word("what", asked.what.as_str());
                let deed = deed.number("amount_minor", asked.amount.amount);
                let deed = deed.word("restock", asked.restock.as_str());
                house.trail.append(&deed).await.map_err(unread)?;
                let approval = Approval { id, asked, by, at: now, key, seconded: None };
                house.rows.approvals().ask(&approval).await.map_err(unwritten)?;
                waits(approval)
            }
        }
    }

    /// Whether whoever asked first is still an administrator, and has not been sent away, or signed out everywhere, since.
    async fn still_counts(&self, first: &Approval) -> Result<bool, NotDone> {
        let account = self.0.house.users.find(first.by).await.map_err(|error| {
            tracing::error!(%error, by = %first.by, "the account of {}, who asked first, cannot be read", first.by);
            NotDone::Unavailable
        })?;
        Ok(match account {
            Some(user) => {
                let may_ask = user.state == AccountState::Verified && user.role == Role::Admin;
                may_ask && user.signed_out_at < first.at
            }
            // Who has no account came with a token that was signed offline.
            None => !self.0.house.revocations.have_ended(first.by, first.at),
        })
    }
}

/// What two have made of it.
fn made_of<'k>(row: &Approval, known: &'k [Refund]) -> Option<&'k Refund> {
    known.iter().find(|refund| row.refund() == Some(refund.id))
}

/// What this request has heard before, if it comes again: of two the first that it waits, as it stands by now, and the second the refund.
pub(super) fn heard_before(
    key: KeyUse,
    known: &[Refund],
    rows: &[Approval],
    now: Millis,
) -> Result<Option<Decided<GaveBack>>, NotGiven> {
    let gave = |refund: &Refund| Decided::Done(GaveBack { refund: refund.clone(), replayed: true });
    if let Some(refund) = known.iter().find(|refund| refund.key == Some(key.key)) {
        // Of one that an older version wrote nobody knows what was said.
        let is_same = refund.body.is_none_or(|body| body == key.body);
        return if is_same { Ok(Some(gave(refund))) } else { Err(NotGiven::KeyReused) };
    }
    // What has lapsed without a second is as if it had never been.
    for row in rows.iter().filter(|row| row.seconded.is_some() || !row.has_lapsed(now)) {
        let seconds = row.seconded.and_then(|second| second.key);
        let is_ours = |used: &KeyUse| used.key == key.key;
        let (first, second) = (row.key.filter(is_ours), seconds.filter(is_ours));
        match first.or(second) {
            Some(used) if used.body != key.body => return Err(NotGiven::KeyReused),
            Some(_) if first.is_some() => {
                return Ok(Some(Decided::Waits(Box::new(Waits { approval: *row, replayed: true }))));
            }
            // Where there is none whoever was to write it has died, and it is written now.
            Some(_) => return Ok(made_of(row, known).map(gave)),
            None => {}
        }
    }
    Ok(None)
}
