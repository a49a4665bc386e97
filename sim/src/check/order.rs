//! Orders: what was acknowledged is there, whole, and ends once.

use std::collections::BTreeMap;

use stockade::domain::id::OrderId;
use stockade::domain::stock::{Cause, Event, Sequence};

use super::{Verdict, broken};
use crate::story::{Chapter, Heard, Story, What};

/// I2: each line of an acknowledged order is held exactly once, at the sequence that was named, for the one who asked;
/// and an order that was acknowledged is found when it is asked for.
pub fn i2_acknowledged_once(story: &Story) -> Verdict {
    let mut holds: BTreeMap<(usize, OrderId), Vec<(Sequence, _)>> = BTreeMap::new();
    for (product, chapter) in story.chapters.iter().enumerate() {
        for (sequence, event, _) in chapter.told() {
            if let Event::Held(held) = event {
                holds.entry((product, held.order)).or_default().push((sequence, held.buyer));
            }
        }
    }
    let mut made_at = BTreeMap::new();
    for (number, attempt) in story.attempts.iter().enumerate() {
        let Some(said) = &attempt.said else { continue };
        match &said.heard {
            Heard::Made { order, lines } => {
                for (product, sequence) in lines {
                    let found = holds.get(&(*product, *order)).map_or(&[][..], Vec::as_slice);
                    if found != [(*sequence, attempt.who)] {
                        let what = format!(
                            "attempt {number}: {order} was acknowledged at #{} of product {product}; the history has {found:?}",
                            sequence.0
                        );
                        return broken("i2_acknowledged_once", what);
                    }
                }
                made_at.insert(*order, said.at);
            }
            Heard::Replayed(order) if !holds.keys().any(|(_, held)| held == order) => {
                let what = format!("attempt {number}: {order} was acknowledged again, and is nowhere");
                return broken("i2_acknowledged_once", what);
            }
            _ => {}
        }
    }
    for (number, attempt) in story.attempts.iter().enumerate() {
        // What its ledger has forgotten the tables have.
        if let (What::Read { order, .. }, Some(Heard::Known(false))) =
            (&attempt.what, attempt.said.as_ref().map(|said| &said.heard))
            && made_at.get(order).is_some_and(|at| *at < attempt.sent)
        {
            return broken(
                "i2_acknowledged_once",
                format!("attempt {number}: {order} was acknowledged and is not found"),
            );
        }
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Placing,
    Held,
    Pinned,
    Sold,
    Ended,
}

/// I4: a hold is sold, or released, or expired, once; and only what was pinned is sold.
pub fn i4_each_hold_ends_once(product: usize, chapter: &Chapter) -> Verdict {
    let mut lives: BTreeMap<OrderId, Life> = BTreeMap::new();
    let mut over = BTreeMap::new();
    for (sequence, event, _) in chapter.told() {
        use Life::*;
        let (order, from, to): (_, &[Life], _) = match event {
            Event::Held(e) => {
                let life = if e.placing.is_some() { Placing } else { Held };
                if lives.insert(e.order, life).is_some() {
                    return broken(
                        "i4_each_hold_ends_once",
                        format!("product {product} at #{}: held twice", sequence.0),
                    );
                }
                continue;
            }
            Event::Placed(e) => (e.order, &[Placing], Held),
            Event::Kept(e) => (e.order, &[Placing], Held),
            Event::Pinned(e) if over.get(&e.order) >= Some(&e.attempt) => {
                let what = format!("product {product} at #{}: pinned by an attempt that is over", sequence.0);
                return broken("i4_each_hold_ends_once", what);
            }
            Event::Pinned(e) => (e.order, &[Held], Pinned),
            Event::Unpinned(e) => {
                over.insert(e.order, e.attempt);
                (e.order, &[Held, Pinned], Held)
            }
            Event::Confirmed(e) => (e.order, &[Pinned], Sold),
            Event::Released(e) if e.cause == Cause::PaymentFailed => {
                (e.order, &[Placing, Held, Pinned], Ended)
            }
            Event::Released(e) => (e.order, &[Placing, Held], Ended),
            Event::Expired(e) => (e.order, &[Held], Ended),
            Event::Returned(e) => (e.order, &[Sold], Sold),
            _ => continue,
        };
        match lives.get_mut(&order) {
            Some(life) if from.contains(life) => *life = to,
            life => {
                let what = format!("product {product} at #{}: {} after {life:?}", sequence.0, event.word());
                return broken("i4_each_hold_ends_once", what);
            }
        }
    }
    Ok(())
}

/// I14 for orders of several lines: born with every line, or gone with every line; nothing in between at the end.
pub fn i14_whole_orders(story: &Story) -> Verdict {
    let name = "i14_whole_orders";
    let mut born = BTreeMap::new();
    for chapter in &story.chapters {
        for (_, event, _) in chapter.told() {
            if let Event::Placed(placed) = event {
                born.insert(placed.order, placed.lines.clone());
            }
        }
    }
    // Each placing hold: whether it was kept, and how it ended.
    let mut shares = BTreeMap::new();
    for chapter in &story.chapters {
        for (_, event, _) in chapter.told() {
            match event {
                Event::Held(e) if e.placing.is_some() => {
                    shares.insert((e.order, chapter.product), (false, None, e.quantity));
                }
                Event::Placed(placed) => {
                    if let Some(share) = shares.get_mut(&(placed.order, chapter.product)) {
                        share.0 = true;
                    }
                }
                Event::Kept(kept) => {
                    if let Some(share) = shares.get_mut(&(kept.order, chapter.product)) {
                        share.0 = true;
                    }
                }
                Event::Released(e) => {
                    if let Some(share) = shares.get_mut(&(e.order, chapter.product)) {
                        share.1 = Some(e.cause);
                    }
                }
                _ => {}
            }
        }
    }
    for (order, lines) in &born {
        for line in lines {
            let Some((kept, end, quantity)) = shares.get(&(*order, line.product)) else {
                return broken(name, format!("{order} was born with a line that was never held"));
            };
            if *end == Some(Cause::NotPlaced) || (!kept && end.is_none()) || *quantity != line.quantity {
                let what =
                    format!("{order} was born; {}: kept {kept}, ended {end:?}, {quantity}", line.product);
                return broken(name, what);
            }
        }
    }
    for ((order, product), (kept, end, _)) in &shares {
        let gone = *end == Some(Cause::NotPlaced) && !kept;
        if !born.contains_key(order) && !gone {
            return broken(name, format!("{order} was never born; {product}: kept {kept}, ended {end:?}"));
        }
    }
    Ok(())
}
