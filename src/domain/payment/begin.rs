//! Whether an order may be paid now, and by which attempt.

use super::{Payment, PaymentState};
use crate::domain::order::Order;
use crate::domain::stock::{Attempt, Cause, KeyUse, Millis, Refusal};

/// What to do for whoever wants to pay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begin {
    /// A new attempt.
    New(Attempt),
    /// This very request had begun one before: it hears what became of that.
    Replay(Box<Payment>),
}

/// `attempts` are all that were made at this order, in whatever order.
///
/// The key comes first: who asks again hears of his own attempt, whatever has become of the order since. Then nobody pays
/// twice, nobody pays while somebody else does, and nobody pays for what is not held any more.
pub fn begin(
    order: &Order,
    attempts: &[Payment],
    key: Option<KeyUse>,
    attempts_max: u8,
    now: Millis,
) -> Result<Begin, Refusal> {
    if let Some(key) = key
        && let Some(first) = attempts.iter().find(|one| one.key.is_some_and(|used| used.key == key.key))
    {
        let same = first.key.is_some_and(|used| used.body == key.body);
        return if same {
            Ok(Begin::Replay(Box::new(first.clone())))
        } else {
            Err(Refusal::KeyReused { order: Some(order.id) })
        };
    }
    match attempts.iter().map(|one| one.state).find(|state| !state.makes_room()) {
        Some(PaymentState::Paid | PaymentState::Captured) => return Err(Refusal::AlreadySold),
        None => {}
        Some(_) => return Err(Refusal::PaymentRunning),
    }
    if let Some(why) = order.status.over() {
        return Err(why);
    }
    if order.hold_expires_at <= now {
        return Err(Refusal::HoldExpired);
    }
    let last = attempts.iter().map(|one| one.attempt).max();
    let next = last.map_or(Some(Attempt::FIRST), Attempt::next);
    let payment_failed = Refusal::AlreadyReleased { cause: Cause::PaymentFailed };
    next.filter(|next| next.get() <= attempts_max).map(Begin::New).ok_or(payment_failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::amount::{Currency, Money};
    use crate::domain::id::{OrderId, PaymentId, ProductId, UserId};
    use crate::domain::order::OrderStatus;

    const NOW: Millis = Millis(1_000);

    fn order(status: OrderStatus) -> Order {
        let (id, home) = (OrderId::new(Millis(1), 1), ProductId::new(Millis(1), 2));
        Order {
            id,
            buyer: UserId::new(Millis(1), 3),
            home,
            status,
            lines: Vec::new(),
            total: Money { amount: 5, currency: Currency::KRW },
            hold_expires_at: NOW.plus(1),
            created_at: Millis(1),
            updated_at: Millis(1),
            version: 1,
        }
    }

    fn key(number: u8, body: u64) -> KeyUse {
        KeyUse { key: [number; 16], body }
    }

    fn attempt(number: u8, state: PaymentState, used: Option<KeyUse>) -> Payment {
        let (order, attempt) = (order(OrderStatus::PendingPayment), Attempt::new(number).unwrap());
        Payment {
            id: PaymentId::of(order.id, attempt),
            order: order.id,
            attempt,
            buyer: order.buyer,
            amount: order.total,
            method: None,
            state,
            reason: None,
            provider_ref: None,
            captured: 0,
            captured_in: order.total.currency,
            refunded: 0,
            key: used,
            told_open: false,
            tries: 0,
            due_at: None,
            version: 1,
            created_at: Millis(1),
            updated_at: Millis(1),
        }
    }

    fn told(
        status: OrderStatus,
        attempts: &[(u8, PaymentState)],
        used: Option<KeyUse>,
        attempts_max: u8,
    ) -> String {
        let with_key = |(number, state): &(u8, PaymentState)| attempt(*number, *state, Some(key(*number, 9)));
        let attempts: Vec<_> = attempts.iter().map(with_key).collect();
        match begin(&order(status), &attempts, used, attempts_max, NOW) {
            Ok(Begin::New(attempt)) => format!("attempt {}", attempt.get()),
            Ok(Begin::Replay(payment)) => format!("replay {}", payment.attempt.get()),
            Err(why) => why.to_string(),
        }
    }

    #[test]
    fn who_may_pay() {
        use OrderStatus as O;
        use PaymentState::*;
        let held = O::PendingPayment;
        for (status, attempts, used, most, expected) in [
            (held, &[][..], None, 1, "attempt 1"),
            (held, &[], Some(key(1, 9)), 1, "attempt 1"),
            (held, &[(1, Started)], None, 3, "a payment is running"),
            (held, &[(1, Unknown)], Some(key(2, 9)), 3, "a payment is running"),
            (held, &[(1, Review)], None, 3, "a payment is running"),
            (held, &[(1, Captured)], None, 3, "the order is sold already"),
            (held, &[(1, Started)], Some(key(1, 9)), 3, "replay 1"),
            (held, &[(1, Started)], Some(key(1, 8)), 3, "the key belongs to another request"),
            (held, &[(1, Declined)], Some(key(2, 9)), 3, "attempt 2"),
            (held, &[(1, Declined), (2, Cancelled)], None, 3, "attempt 3"),
            (held, &[(1, Declined), (2, Declined), (3, Declined)], None, 3, "the hold was released"),
            (held, &[(1, Declined)], None, 1, "the hold was released"),
            (held, &[(1, Declined), (2, Paid)], None, 3, "the order is sold already"),
            (held, &[(1, Orphaned)], None, 3, "attempt 2"),
            (held, &[(1, Orphaned), (2, Captured)], None, 3, "the order is sold already"),
            (O::Paid, &[(1, Paid)], None, 3, "the order is sold already"),
            (O::Cancelled, &[(1, Paid)], Some(key(1, 9)), 3, "replay 1"),
            (O::Cancelled, &[], None, 3, "the hold was released"),
            (O::Cancelled, &[(1, Orphaned)], None, 3, "the hold was released"),
            (O::Expired, &[], None, 3, "the hold has expired"),
            (O::PaymentFailed, &[(1, Declined)], None, 1, "the hold was released"),
            (O::Returned, &[(1, Paid)], None, 1, "the order is sold already"),
        ] {
            assert_eq!(told(status, attempts, used, most), expected, "{status:?} {attempts:?} {used:?}");
        }
    }

    #[test]
    fn a_hold_that_is_over_is_not_paid_for_though_nobody_has_seen_it_lapse() {
        let order = order(OrderStatus::PendingPayment);
        assert!(begin(&order, &[], None, 1, NOW).is_ok());
        assert_eq!(begin(&order, &[], None, 1, NOW.plus(1)), Err(Refusal::HoldExpired));
    }
}
