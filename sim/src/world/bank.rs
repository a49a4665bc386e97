//! The bank across the street: it survives everything, and only it knows whether money moved.
//!
//! It takes each charge and each refund once, whatever it is told, and what was called off before it came is refused for
//! ever. What it says may get lost, come late, or be told twice; that is the world's doing, not the bank's.

use std::collections::BTreeMap;

use stockade::domain::amount::Money;
use stockade::domain::id::{PaymentId, RefundId};
use stockade::domain::payment::{Call, ProviderSaid, Status};

use crate::chance::Chance;
use crate::time::{MS, Micros};

/// How a call fares on its way to the bank and back.
pub struct Way {
    /// When it arrives; never, if it is lost.
    pub arrives: Option<Micros>,
    /// Whoever calls waits for the answer, and there is one.
    pub answered: bool,
}

impl Way {
    pub fn of(faults: bool, chance: &mut Chance) -> Way {
        let (lost, silent) = (faults && chance.percent(6), faults && chance.percent(8));
        let way = match faults && chance.percent(5) {
            // It hangs in some buffer, and comes when nobody expects it any more.
            true => chance.between(500, 12_000) * MS,
            false => chance.between(1, 60) * MS,
        };
        Way { arrives: (!lost).then_some(way), answered: !lost && !silent && way <= 400 * MS }
    }
}

/// What came of a charge whose caller hears nothing.
pub fn timed_out(moved: bool) -> &'static str {
    if moved { "a charge timed out and had happened" } else { "a charge timed out and had not" }
}

#[derive(Debug, Clone)]
struct Charge {
    status: Status,
    amount: Money,
}

#[derive(Debug, Default)]
pub struct Bank {
    charges: BTreeMap<PaymentId, Charge>,
    /// Each with its payment and its amount.
    refunds: BTreeMap<RefundId, (PaymentId, i64)>,
    /// It takes what was asked for, or nothing.
    exact: bool,
}

impl Bank {
    /// One whose own form nobody types another price into.
    pub fn exact() -> Bank {
        Bank { exact: true, ..Bank::default() }
    }

    /// A call arrives: what it hears, and whether money moved. `sure`: a charge succeeds, whatever the dice say.
    pub fn hears(
        &mut self,
        call: Call,
        id: PaymentId,
        amount: Money,
        sure: bool,
        chance: &mut Chance,
    ) -> (ProviderSaid, bool) {
        let before = self.captured(id);
        let said = match call {
            Call::Charge => self.charge(id, amount, sure, chance),
            Call::Find => self.find(id),
            Call::Cancel => self.cancel(id, amount),
        };
        (said, self.captured(id) > before)
    }

    fn charge(&mut self, id: PaymentId, amount: Money, sure: bool, chance: &mut Chance) -> ProviderSaid {
        let exact = self.exact;
        self.charges.entry(id).or_insert_with(|| {
            let status = match chance.below(100) {
                _ if sure => Status::Captured,
                0..70 => Status::Captured,
                70..90 => Status::Declined("no_funds".to_owned()),
                _ => Status::Pending,
            };
            // Somebody typed another price into the bank's own form.
            let wrong = !sure && !exact && status == Status::Captured && chance.percent(3);
            Charge { status, amount: Money { amount: amount.amount + i64::from(wrong), ..amount } }
        });
        self.find(id)
    }

    fn find(&self, id: PaymentId) -> ProviderSaid {
        let Some(charge) = self.charges.get(&id) else { return ProviderSaid::Absent };
        ProviderSaid::Seen {
            status: charge.status.clone(),
            provider_ref: id.to_string(),
            amount: charge.amount,
            captured: self.captured(id),
        }
    }

    /// Nothing can be taken any more, unless it was taken already.
    fn cancel(&mut self, id: PaymentId, amount: Money) -> ProviderSaid {
        let charge = self.charges.entry(id).or_insert(Charge { status: Status::Cancelled, amount });
        if charge.status == Status::Pending {
            charge.status = Status::Cancelled;
        }
        self.find(id)
    }

    /// What was left open is decided; what was declined is, rarely, taken after all. True if money moved.
    pub fn thinks_again(&mut self, id: PaymentId, chance: &mut Chance) -> bool {
        let Some(charge) = self.charges.get_mut(&id) else { return false };
        let to = match (&charge.status, chance.below(100)) {
            (Status::Pending, 0..60) => Status::Captured,
            (Status::Pending, _) => Status::Declined("no_funds".to_owned()),
            (Status::Declined(_), 0..30) => Status::Captured,
            _ => return false,
        };
        charge.status = to;
        charge.status == Status::Captured
    }

    /// Gives money back, once an id. False if more would go back than came.
    pub fn refund(&mut self, id: RefundId, payment: PaymentId, amount: i64) -> bool {
        if self.refunds.contains_key(&id) {
            return true;
        }
        if self.refunded(payment) + amount > self.captured(payment) {
            return false;
        }
        self.refunds.insert(id, (payment, amount));
        true
    }

    pub fn knows_refund(&self, id: RefundId) -> bool {
        self.refunds.contains_key(&id)
    }

    pub fn captured(&self, id: PaymentId) -> i64 {
        let taken = self.charges.get(&id).filter(|charge| charge.status == Status::Captured);
        taken.map_or(0, |charge| charge.amount.amount)
    }

    pub fn refunded(&self, id: PaymentId) -> i64 {
        self.refunds.values().filter(|(payment, _)| *payment == id).map(|(_, amount)| amount).sum()
    }
}
