//! From what happened and the order as it is now: the letter.
//!
//! Always true: of money it says what the rows of payments and refunds say when it is written, and nothing that follows from the order
//! alone.

use std::collections::HashMap;

use crate::domain::amount::Money;
use crate::domain::id::{OrderId, ProductId};
use crate::domain::notice::NoticeKind;
use crate::domain::order::{Line, Order, OrderStatus};
use crate::domain::payment::{Payment, PaymentState, Refund};
use crate::mail::{Letter, LetterLine, OrderLetter};

/// What a letter says and the order's own row does not know.
#[derive(Default)]
pub struct Beside {
    /// What products are called.
    pub names: HashMap<ProductId, String>,
    pub attempts: Attempts,
    /// What goes back of orders that were sold.
    pub refunds: HashMap<OrderId, Vec<Refund>>,
}

/// Who has tried to pay orders that are not sold, those of one in order of their number.
#[derive(Default)]
pub struct Attempts(pub HashMap<OrderId, Vec<Payment>>);

impl Attempts {
    fn of(&self, order: OrderId) -> &[Payment] {
        self.0.get(&order).map(Vec::as_slice).unwrap_or_default()
    }

    /// Somebody is paying it: the payment is begun, and may be through by the time that the letter is read.
    pub fn is_being_paid(&self, order: OrderId) -> bool {
        self.of(order).iter().any(|payment| !payment.state.makes_room())
    }
}

/// What has happened to an order as a whole, or to `numbers` of its lines. `None`: it has no such lines.
pub fn letter(kind: NoticeKind, numbers: Option<&[u8]>, order: &Order, beside: &Beside) -> Option<Letter> {
    let meant = |line: &&Line| match numbers {
        Some(numbers) => numbers.contains(&line.line),
        // What has come back since it was paid is not made ready any more.
        None => kind != NoticeKind::Paid || !line.status.is_back(),
    };
    let lines: Vec<&Line> = order.lines.iter().filter(meant).collect();
    let whole = lines.len() == order.lines.len();
    let total = match numbers {
        None if whole => Some(order.total),
        _ => sum(&lines),
    };
    let (attempts, sold) = (beside.attempts.of(order.id), order.is_sold());
    let being_paid = beside.attempts.is_being_paid(order.id);
    let unpaid = order.status == OrderStatus::PendingPayment && !being_paid;
    let invites = matches!(kind, NoticeKind::Placed | NoticeKind::HoldLapses);
    let ends = matches!(
        kind,
        NoticeKind::PaymentFailed | NoticeKind::Expired | NoticeKind::Cancelled | NoticeKind::Returned
    );
    let refunds = beside.refunds.get(&order.id).filter(|_| ends && sold);
    let (goes_back, back) = refunds.map_or((false, None), |refunds| given_back(refunds, order, &lines));
    // For what was never sold nothing is kept, whenever it was taken.
    let taken = !sold && attempts.iter().any(|payment| payment.captured > 0);
    let letter = OrderLetter {
        kind,
        order: order.id,
        whole,
        lines: lines.iter().map(|line| told(line, &beside.names)).collect(),
        total,
        pay_until: (invites && unpaid).then_some(order.hold_expires_at),
        money_back: ends && (taken || goes_back),
        back,
        sold,
        declined: attempts.last().is_some_and(|newest| newest.state == PaymentState::Declined),
        undecided: ends && !taken && being_paid,
    };
    (!letter.lines.is_empty()).then(|| Letter::Order(Box::new(letter)))
}

/// Whether anything goes back with the units of these lines, and how much: by refunds of their own, and for lines that have none by the
/// one about all that was left. Where lines of that one are in another letter no sum is told, for each would promise all of it. What
/// went back before the units did is in none of these.
fn given_back(refunds: &[Refund], order: &Order, lines: &[&Line]) -> (bool, Option<Money>) {
    let with_units = |refund: &&Refund| refund.restock.back().is_some();
    let own = |line: &Line| refunds.iter().filter(with_units).any(|it| it.cause.line() == Some(line.line));
    let is_meant = |number: u8| lines.iter().any(|line| line.line == number);
    let by_all = lines.iter().any(|line| !own(line));
    let counts = |refund: &&Refund| match refund.cause.line() {
        Some(number) => is_meant(number),
        None => by_all,
    };
    let going = refunds.iter().filter(with_units).filter(counts).filter(|refund| refund.amount.amount > 0);
    let going: Vec<&Refund> = going.collect();
    let of_all = going.iter().any(|refund| refund.cause.line().is_none());
    let shared = of_all && order.lines.iter().any(|line| !own(line) && !is_meant(line.line));
    let mut amounts = going.iter().map(|refund| refund.amount);
    let sum = amounts.next().and_then(|first| amounts.try_fold(first, Money::plus));
    (!going.is_empty(), sum.filter(|_| !shared))
}

fn told(line: &Line, names: &HashMap<ProductId, String>) -> LetterLine {
    LetterLine {
        // A product is never taken away; one that is not found is called what it is called everywhere else.
        name: names.get(&line.product).cloned().unwrap_or_else(|| line.product.to_string()),
        quantity: line.quantity.get(),
        unit_price: line.unit_price,
    }
}

fn sum(lines: &[&Line]) -> Option<Money> {
    let mut sums = lines.iter().map(|line| line.unit_price.times(line.quantity));
    let first = sums.next()??;
    sums.try_fold(first, |sum, next| sum.plus(next?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::amount::{Currency, Quantity};
    use crate::domain::id::{PaymentId, RefundId, UserId};
    use crate::domain::order::LineStatus;
    use crate::domain::payment::{Cause, RefundState, Restock};
    use crate::domain::stock::{Attempt, Millis, Sequence};

    const T0: Millis = Millis(1_700_000_000_000);

    fn won(amount: i64) -> Money {
        Money { amount, currency: Currency::KRW }
    }

    /// An order of three lines of a thousand won each, which stand like this.
    fn order(status: OrderStatus, lines: [LineStatus; 3]) -> Order {
        let home = ProductId::new(T0, 1);
        let line = |(line, status): (u8, LineStatus)| Line {
            line,
            product: home,
            quantity: Quantity::of_line(1).unwrap(),
            unit_price: won(1_000),
            sequence: Sequence(2),
            status,
        };
        Order {
            id: OrderId::for_home(T0, 7, home),
            buyer: UserId::new(T0, 1),
            home,
            status,
            lines: (1..).zip(lines).map(line).collect(),
            total: won(3_000),
            hold_expires_at: T0.plus(600_000),
            created_at: T0,
            updated_at: T0,
            version: 1,
        }
    }

    fn refund(cause: Cause, amount: i64, restock: Restock) -> Refund {
        let payment = PaymentId::from_bytes([7; 16]);
        Refund {
            id: RefundId::of(payment, cause),
            payment,
            order: OrderId::from_bytes([8; 16]),
            cause,
            key: None,
            body: None,
            amount: won(amount),
            restock,
            state: RefundState::Wanted,
            reason: None,
            provider_ref: None,
            made_anew: 0,
            tries: 0,
            due_at: None,
            version: 1,
            created_at: T0,
            updated_at: T0,
        }
    }

    fn attempt(order: OrderId, state: PaymentState, captured: i64) -> Payment {
        let attempt = Attempt::FIRST;
        Payment {
            id: PaymentId::of(order, attempt),
            order,
            attempt,
            buyer: UserId::new(T0, 1),
            amount: won(3_000),
            method: None,
            state,
            reason: None,
            provider_ref: None,
            captured,
            captured_in: Currency::KRW,
            refunded: 0,
            key: None,
            told_open: false,
            tries: 0,
            due_at: None,
            version: 1,
            created_at: T0,
            updated_at: T0,
        }
    }

    fn told_of(kind: NoticeKind, numbers: Option<&[u8]>, order: &Order, refunds: Vec<Refund>) -> OrderLetter {
        let beside = Beside { refunds: HashMap::from([(order.id, refunds)]), ..Beside::default() };
        match letter(kind, numbers, order, &beside) {
            Some(Letter::Order(letter)) => *letter,
            other => panic!("no letter about an order: {other:?}"),
        }
    }

    #[test]
    fn what_goes_back_is_told_with_the_lines_that_it_is_for() {
        use LineStatus::{Cancelled, Ordered};
        let order = order(OrderStatus::Paid, [Cancelled, Cancelled, Ordered]);
        let back = |numbers: &[u8], refunds: Vec<Refund>| {
            let letter = told_of(NoticeKind::Cancelled, Some(numbers), &order, refunds);
            assert_eq!(letter.money_back, letter.back.is_some());
            letter.back.map(|money| money.amount)
        };
        let own = |line, amount| refund(Cause::LineCancelled(line), amount, Restock::ToStock);
        let all = refund(Cause::OrderCancelled, 2_000, Restock::ToStock);
        assert_eq!(back(&[1], Vec::new()), None, "nobody has written that anything does");
        assert_eq!(back(&[1], vec![own(1, 1_000), own(2, 700)]), Some(1_000));
        assert_eq!(back(&[1, 2], vec![own(1, 1_000), own(2, 700)]), Some(1_700));
        // The rest was cancelled since: that is the other letter's.
        assert_eq!(back(&[1], vec![own(1, 1_000), all.clone()]), Some(1_000));
        assert_eq!(back(&[2, 3], vec![own(1, 1_000), all]), Some(2_000));
        // It had gone back before, and its units were left.
        let before = refund(Cause::Line(1), 1_000, Restock::Leave);
        assert_eq!(back(&[1], vec![before, own(1, 0)]), None);
        let by_hand = refund(Cause::Clerk([1; 16]), 1_000, Restock::Leave);
        assert_eq!(back(&[1], vec![by_hand, own(1, 300)]), Some(300));
    }

    #[test]
    fn a_refund_that_several_letters_are_about_is_promised_by_none_of_them() {
        let order = order(OrderStatus::Closed, [LineStatus::Cancelled; 3]);
        let all = |amount| refund(Cause::OrderCancelled, amount, Restock::ToStock);
        let own = || refund(Cause::LineCancelled(1), 1_000, Restock::ToStock);
        let told = |kind, numbers: &[u8], refunds: Vec<Refund>| {
            let letter = told_of(kind, Some(numbers), &order, refunds);
            (letter.money_back, letter.back.map(|money| money.amount))
        };
        for kind in [NoticeKind::Cancelled, NoticeKind::Returned] {
            for numbers in [&[1][..], &[2, 3]] {
                assert_eq!(told(kind, numbers, vec![all(3_000)]), (true, None), "{numbers:?}");
            }
            assert_eq!(told(kind, &[1, 2, 3], vec![all(3_000)]), (true, Some(3_000)));
            assert_eq!(told(kind, &[1, 2], vec![own(), all(2_000)]), (true, None), "the third is elsewhere");
            assert_eq!(told(kind, &[1, 2], vec![own(), all(0)]), (true, Some(1_000)), "nothing was left");
            assert_eq!(told(kind, &[2], vec![own(), all(0)]), (false, None));
        }
    }

    #[test]
    fn of_an_attempt_that_is_open_it_is_not_said_what_it_came_to() {
        let order = order(OrderStatus::PaymentFailed, [LineStatus::Released; 3]);
        let told = |state, captured| {
            let attempts = Attempts(HashMap::from([(order.id, vec![attempt(order.id, state, captured)])]));
            match letter(NoticeKind::PaymentFailed, None, &order, &Beside { attempts, ..Beside::default() }) {
                Some(Letter::Order(letter)) => (letter.undecided, letter.declined, letter.money_back),
                other => panic!("no letter about an order: {other:?}"),
            }
        };
        for open in [PaymentState::Started, PaymentState::Unknown] {
            assert_eq!(told(open, 0), (true, false, false), "{open:?}");
        }
        assert_eq!(told(PaymentState::Declined, 0), (false, true, false));
        assert_eq!(told(PaymentState::Cancelled, 0), (false, false, false));
        assert_eq!(told(PaymentState::Captured, 3_000), (false, false, true));
    }

    #[test]
    fn what_has_come_back_is_not_made_ready() {
        use LineStatus::{Cancelled, Ordered};
        let order = order(OrderStatus::Paid, [Cancelled, Ordered, Ordered]);
        let paid = told_of(NoticeKind::Paid, None, &order, Vec::new());
        assert_eq!((paid.lines.len(), paid.total, paid.money_back), (2, Some(won(2_000)), false));
        let placed = told_of(NoticeKind::Placed, None, &order, Vec::new());
        assert_eq!((placed.lines.len(), placed.total), (3, Some(won(3_000))));
    }
}
