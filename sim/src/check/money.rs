//! Money: what was taken and kept is the price of what was sold.

use std::collections::BTreeMap;

use stockade::domain::id::{OrderId, PaymentId};
use stockade::domain::stock::Event;

use super::{Verdict, broken};
use crate::story::Chapter;

/// I5, where money moves: the order is pinned at each of its products, so nobody can take its units away.
pub fn i5_pinned_before_charged(id: PaymentId, product: usize, last: Option<&Event>) -> Verdict {
    if matches!(last, Some(Event::Pinned(_))) {
        return Ok(());
    }
    let last = last.map_or("nothing", Event::word);
    broken("i5_pinned_before_charged", format!("{id}: charged while product {product} says {last}"))
}

/// I5, at rest: what the bank has kept of an order, but for what a person took above or below its price, is the price of what is sold of it.
pub fn i5_money(kept: &BTreeMap<OrderId, i64>, chapters: &[Chapter]) -> Verdict {
    for (order, kept) in kept {
        let mut sold = 0;
        for chapter in chapters {
            let mut price = 0;
            for event in &chapter.events {
                match event {
                    Event::Held(held) if held.order == *order => price = held.unit_price.amount,
                    Event::Confirmed(e) if e.order == *order => sold += price * i64::from(e.quantity.get()),
                    Event::Returned(e) if e.order == *order => sold -= price * i64::from(e.quantity.get()),
                    _ => {}
                }
            }
        }
        if *kept != sold {
            let what = format!("{order}: the bank has kept {kept}, and {sold} is sold of it");
            return broken("i5_money", what);
        }
    }
    Ok(())
}
