//! From what happened and the order as it is now: the letter.

use std::collections::{HashMap, HashSet};

use crate::domain::amount::Money;
use crate::domain::id::{OrderId, ProductId};
use crate::domain::notice::NoticeKind;
use crate::domain::order::{Line, Order, OrderStatus};
use crate::mail::{Letter, LetterLine, OrderLetter};

/// What a letter says and the order's own row does not know.
#[derive(Default)]
pub struct Beside {
    /// What products are called.
    pub names: HashMap<ProductId, String>,
    /// Orders that somebody is paying: the payment is begun, and may be through by the time that the letter is read. A reminder
    /// knows of none: it is written to whoever has not paid, tried or not.
    pub being_paid: HashSet<OrderId>,
}

/// What has happened to an order as a whole, or to `numbers` of its lines. `None`: it has no such lines.
pub fn letter(kind: NoticeKind, numbers: Option<&[u8]>, order: &Order, beside: &Beside) -> Option<Letter> {
    let meant = |line: &&Line| numbers.is_none_or(|numbers| numbers.contains(&line.line));
    let lines: Vec<&Line> = order.lines.iter().filter(meant).collect();
    let total = match numbers {
        None => Some(order.total),
        Some(_) => sum(&lines),
    };
    let unpaid = order.status == OrderStatus::PendingPayment && !beside.being_paid.contains(&order.id);
    let invites = matches!(kind, NoticeKind::Placed | NoticeKind::HoldLapses);
    let goes_back = matches!(kind, NoticeKind::Cancelled | NoticeKind::Returned);
    let letter = OrderLetter {
        kind,
        order: order.id,
        whole: lines.len() == order.lines.len(),
        lines: lines.iter().map(|line| told(line, &beside.names)).collect(),
        total,
        pay_until: (invites && unpaid).then_some(order.hold_expires_at),
        money_back: goes_back && order.is_sold() && total.is_some_and(|total| total.amount > 0),
    };
    (!letter.lines.is_empty()).then(|| Letter::Order(Box::new(letter)))
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
