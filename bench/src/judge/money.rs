//! Money: what the provider took and gave back, against what buyers were told is theirs. Nobody is charged for what was not
//! sold to them, nothing is sold that was not charged, and both together come to the same sum.

use std::collections::HashMap;

use super::Verdict;
use super::provider::{Charge, Statement};
use crate::answer::OrderId;
use crate::drive::grouped;
use crate::engine::History;

/// What the provider has of one order.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    captured: u64,
    refunded: u64,
    /// Payments that took money and have not given all of it back.
    charges: u64,
}

impl Taken {
    fn net(self) -> i64 {
        self.captured as i64 - self.refunded as i64
    }
}

/// What a buyer was told about an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Paid(u64),
    NotPaid,
}

pub fn judge(statement: &Statement, history: &History) -> Vec<Verdict> {
    let paid = history.acknowledged.iter().map(|order| (order.order, Told::Paid(order.total)));
    let declined = history.declined.iter().map(|order| (order.order, Told::NotPaid));
    let told: HashMap<OrderId, Told> = declined.chain(paid).collect();
    let mut taken: HashMap<OrderId, Taken> = HashMap::new();
    for charge in statement.charges() {
        let taken = taken.entry(charge.order).or_default();
        taken.captured += charge.captured();
        taken.refunded += charge.refunded;
        taken.charges += u64::from(charge.captured() > charge.refunded);
    }
    let unsold = charged_not_sold(&taken, &told, history.unresolved.len());
    let uncharged = sold_not_charged(&taken, &told);
    let sums = sums(statement, &taken, &told, history.unresolved.len());
    vec![unsold, uncharged, sums]
}

/// `open` buyers left without knowing: so many orders may be theirs.
fn charged_not_sold(taken: &HashMap<OrderId, Taken>, told: &HashMap<OrderId, Told>, open: usize) -> Verdict {
    let (mut complaints, mut strangers) = (Vec::new(), Vec::new());
    for (order, taken) in taken.iter().filter(|(_, taken)| taken.net() != 0) {
        match told.get(order) {
            Some(Told::Paid(_)) => {}
            Some(Told::NotPaid) => complaints.push(format!(
                "{order:?} was not paid, its buyer heard, and {} were taken for it",
                taken.net()
            )),
            None => {
                strangers.push(format!("{} were taken for {order:?}, of which no buyer heard", taken.net()))
            }
        }
    }
    if strangers.len() > open {
        complaints.append(&mut strangers);
    }
    let fine =
        format!("{} orders at the provider, no money kept but for what is sold", grouped(taken.len() as u64));
    Verdict::of("charged, not sold", complaints, fine)
}

fn sold_not_charged(taken: &HashMap<OrderId, Taken>, told: &HashMap<OrderId, Told>) -> Verdict {
    let mut complaints = Vec::new();
    let mut sold = 0;
    for (order, told) in told {
        let Told::Paid(total) = *told else { continue };
        sold += 1;
        let net = taken.get(order).copied().unwrap_or_default().net();
        if net < total as i64 {
            complaints.push(format!("{order:?} was sold for {total}, and {net} were taken"));
        }
    }
    Verdict::of("sold, not charged", complaints, format!("each of {} orders paid for in full", grouped(sold)))
}

fn sums(
    statement: &Statement,
    taken: &HashMap<OrderId, Taken>,
    told: &HashMap<OrderId, Told>,
    open: usize,
) -> Verdict {
    let mut complaints = Vec::new();
    for (order, taken) in taken {
        if let Some(Told::Paid(total)) = told.get(order)
            && (taken.charges > 1 || taken.net() > *total as i64)
        {
            let (net, charges) = (taken.net(), taken.charges);
            complaints.push(format!("{order:?} costs {total}, and {net} were taken in {charges} payments"));
        }
    }
    let differs = |charge: &&Charge| charge.is_captured && charge.taken != charge.asked;
    complaints.extend(statement.charges().filter(differs).map(|charge| {
        format!("{:?}: {:?} were asked for and {:?} taken", charge.order, charge.asked, charge.taken)
    }));
    // What whoever left without knowing was charged is not in the sum of those who know.
    let counts = |(order, _): &(&OrderId, &Taken)| open == 0 || told.contains_key(order);
    let (mut captured, mut refunded) = (0, 0);
    for (_, taken) in taken.iter().filter(counts) {
        captured += taken.captured;
        refunded += taken.refunded;
    }
    let price = |told: &Told| if let Told::Paid(total) = told { *total } else { 0 };
    let sold: u64 = told.values().map(price).sum();
    let line = format!(
        "captured {} − refunded {} at the provider, {} in paid orders",
        grouped(captured),
        grouped(refunded),
        grouped(sold)
    );
    if captured as i64 - refunded as i64 != sold as i64 {
        complaints.push(line.clone());
    }
    Verdict::of("money", complaints, line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::OrderState;
    use crate::engine::Ordered;
    use crate::judge::Ruling::{self, Fail, Pass};
    use crate::wire::Key;

    /// Orders of 100 each, by the letter of their id.
    fn history(paid: &str, declined: &str, unresolved: usize) -> History {
        let orders = |letters: &str, state| -> Vec<Ordered> {
            let order = |letter: char| Ordered {
                key: Key { attempt: 0, round: 0 },
                product: 0,
                sequence: 1,
                asked_ns: 1,
                answered_ns: 2,
                order: OrderId::read(&format!("order_{letter}")).unwrap(),
                state,
                total: 100,
                was_uncertain: false,
            };
            letters.chars().map(order).collect()
        };
        let mut history = History::new(1, 0);
        history.acknowledged = orders(paid, OrderState::Paid);
        history.declined = orders(declined, OrderState::PaymentFailed);
        history.unresolved = vec![0; unresolved];
        history
    }

    /// `charged, not sold`, `sold, not charged`, `money`. A line: order, what was taken, how it stands, what was refunded.
    fn ruled(history: &History, book: &[(char, u64, &str, u64)]) -> [Ruling; 3] {
        let mut text = "stockade simulated provider 1\n".to_owned();
        for (number, (order, taken, state, refunded)) in book.iter().enumerate() {
            text += &format!("charge pay_{number} order_{order} 100 KRW {taken} KRW {state} 0\n");
            text += &format!("refund ref_{number} pay_{number} {refunded} KRW 0 done\n");
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let verdicts = judge(&Statement::read(file.path()).unwrap(), history);
        verdicts.iter().map(|verdict| verdict.ruling).collect::<Vec<_>>().try_into().unwrap()
    }

    const NO: &str = "card_declined";

    #[test]
    fn who_bought_is_charged_once_and_nobody_else_is() {
        let book = [('a', 100, "captured", 0), ('b', 100, NO, 0), ('c', 100, "captured", 100)];
        assert_eq!(ruled(&history("a", "b", 0), &book), [Pass; 3]);
        // One try was lost on its way, and one came too late and was undone.
        let book = [('a', 100, "lost", 0), ('a', 100, "captured", 0), ('a', 100, "captured", 100)];
        assert_eq!(ruled(&history("a", "", 0), &book), [Pass; 3]);
    }

    #[test]
    fn charged_and_not_sold_fails() {
        let book = [('a', 100, "captured", 0), ('b', 100, "captured", 0)];
        assert_eq!(ruled(&history("a", "b", 0), &book), [Fail, Pass, Fail]);
        assert_eq!(ruled(&history("a", "", 0), &book), [Fail, Pass, Fail], "nobody heard of b");
        let half = [('a', 100, "captured", 0), ('b', 100, "captured", 50)];
        assert_eq!(ruled(&history("a", "b", 0), &half), [Fail, Pass, Fail], "half of it is not all of it");
    }

    #[test]
    fn what_somebody_who_left_was_charged_may_be_his() {
        let book = [('a', 100, "captured", 0), ('b', 100, "captured", 0)];
        assert_eq!(ruled(&history("a", "", 1), &book), [Pass; 3]);
        let two = [book[0], book[1], ('c', 100, "captured", 0)];
        assert_eq!(ruled(&history("a", "", 1), &two), [Fail, Pass, Pass]);
    }

    #[test]
    fn sold_and_not_charged_fails() {
        assert_eq!(ruled(&history("ab", "", 0), &[('a', 100, "captured", 0)]), [Pass, Fail, Fail]);
        assert_eq!(ruled(&history("a", "", 0), &[('a', 100, NO, 0)]), [Pass, Fail, Fail]);
        assert_eq!(ruled(&history("a", "", 0), &[('a', 100, "captured", 100)]), [Pass, Fail, Fail]);
    }

    #[test]
    fn charged_twice_or_wrongly_fails() {
        let twice = [('a', 100, "captured", 0), ('a', 100, "captured", 0)];
        assert_eq!(ruled(&history("a", "", 0), &twice), [Pass, Pass, Fail]);
        assert_eq!(ruled(&history("a", "", 0), &[('a', 101, "captured", 0)]), [Pass, Pass, Fail]);
    }

    #[test]
    fn errors_that_cancel_out_are_two_errors() {
        // b was charged and not sold, c sold and not charged: the sum is right.
        let book = [('a', 100, "captured", 0), ('b', 100, "captured", 0)];
        assert_eq!(ruled(&history("ac", "b", 0), &book), [Fail, Fail, Pass]);
    }
}
