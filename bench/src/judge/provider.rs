//! The simulated provider's own book, as it lies in the data directory: what it took and gave back, in its words and not in the
//! shop's. It is read here line by line and not with the shop's code, so that a mistake there is not made here again.
//!
//! `charge PAYMENT ORDER ASKED CURRENCY TAKEN CURRENCY STATE …` and `refund REFUND PAYMENT AMOUNT CURRENCY TRIES STATE`, one a
//! line; the last line about something is the one that counts.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::answer::OrderId;

pub const FILE: &str = "simulated-provider.book";
const HEAD: &str = "stockade simulated provider 1";

/// One payment, as the provider has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    pub order: OrderId,
    /// What the shop asked for: minor units and their currency.
    pub asked: (u64, String),
    pub taken: (u64, String),
    pub is_captured: bool,
    /// Minor units given back.
    pub refunded: u64,
}

/// Every payment the provider has heard of.
#[derive(Debug, Default)]
pub struct Statement {
    /// By payment.
    charges: HashMap<String, Charge>,
}

impl Charge {
    pub fn captured(&self) -> u64 {
        if self.is_captured { self.taken.0 } else { 0 }
    }
}

impl Statement {
    pub fn read(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{}", path.display()))
    }

    /// A last line without its end was never told to anybody.
    fn parse(text: &str) -> Result<Self> {
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let mut lines = whole.lines().enumerate();
        ensure!(lines.next().is_some_and(|(_, head)| head == HEAD), "it does not begin with {HEAD:?}");
        let mut charges: HashMap<String, Charge> = HashMap::new();
        let mut refunds: HashMap<&str, (&str, u64)> = HashMap::new();
        for (place, line) in lines {
            let read = match line.split(' ').collect::<Vec<_>>().as_slice() {
                ["charge", payment, order, asked, asked_in, taken, taken_in, state, ..] => {
                    let charge = charge(order, (asked, asked_in), (taken, taken_in), state);
                    charge.map(|charge| _ = charges.insert((*payment).to_owned(), charge))
                }
                ["refund", refund, payment, amount, _, _, "done"] => {
                    let amount = amount.parse().ok();
                    amount.map(|amount| _ = refunds.insert(*refund, (*payment, amount)))
                }
                ["refund", ..] => Some(()),
                _ => None,
            };
            read.with_context(|| format!("line {} cannot be understood: {line}", place + 1))?;
        }
        for (payment, amount) in refunds.into_values() {
            let charge = charges.get_mut(payment);
            charge.with_context(|| format!("a refund of {payment}, which was never charged"))?.refunded +=
                amount;
        }
        Ok(Self { charges })
    }

    pub fn charges(&self) -> impl Iterator<Item = &Charge> {
        self.charges.values()
    }
}

fn charge(order: &str, asked: (&str, &str), taken: (&str, &str), state: &str) -> Option<Charge> {
    let money = |(amount, currency): (&str, &str)| Some((amount.parse().ok()?, currency.to_owned()));
    Some(Charge {
        order: OrderId::read(order)?,
        asked: money(asked)?,
        taken: money(taken)?,
        is_captured: state == "captured",
        refunded: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOK: &str = "stockade simulated provider 1\n\
        charge pay_a order_a 100 KRW 100 KRW lost 0\n\
        charge pay_a order_a 100 KRW 100 KRW captured 0\n\
        charge pay_b order_b 100 KRW 100 KRW card_declined 0\n\
        refund ref_a pay_a 30 KRW 1 not_yet\n\
        refund ref_a pay_a 30 KRW 1 done\n\
        refund ref_a pay_a 30 KRW 1 done\n\
        refund ref_b pay_a 20 KRW 0 done\n";

    #[test]
    fn the_last_line_about_something_counts() {
        let statement = Statement::parse(BOOK).unwrap();
        let of = |payment: &str| {
            let charge = &statement.charges[payment];
            (charge.captured(), charge.refunded)
        };
        assert_eq!((of("pay_a"), of("pay_b")), ((100, 50), (0, 0)));
        let torn = Statement::parse(&format!("{BOOK}charge pay_c ord")).unwrap();
        assert_eq!(torn.charges.len(), 2);
    }

    #[test]
    fn what_is_no_book_is_told() {
        for text in ["", "something else\n", &format!("{BOOK}gift\n"), &format!("{BOOK}charge pay_c\n")] {
            assert!(Statement::parse(text).is_err(), "{text}");
        }
        assert!(Statement::parse(&format!("{BOOK}refund ref_c pay_c 1 KRW 0 done\n")).is_err());
    }
}
