//! Sums: nothing appears, nothing disappears, nobody has too much, and every road leads to the same state.

use std::collections::BTreeMap;

use stockade::domain::stock::{Event, Ledger, Refusal};

use super::refusal::Stand;
use super::{Verdict, broken};
use crate::story::{Chapter, Heard, Story, What};
use crate::tables::Shelf;

/// I1: on hand = available + held + sold, each ≥ 0, after every event.
pub fn i1_conservation(product: usize, chapter: &Chapter) -> Verdict {
    let mut shelf = Shelf::default();
    for (sequence, event, _) in chapter.told() {
        shelf.fold_event(event);
        let available = shelf.on_hand - shelf.held - shelf.sold;
        if shelf.held < 0 || shelf.sold < 0 || available < 0 {
            let sums = (shelf.on_hand, shelf.held, shelf.sold);
            return broken("i1_conservation", format!("product {product} after #{}: {sums:?}", sequence.0));
        }
    }
    Ok(())
}

/// I3, first half: at every cut, what holds and sales add up to, counted order by order, is on hand.
pub fn i3_no_oversell(product: usize, chapter: &Chapter) -> Verdict {
    let mut shelf = Shelf::default();
    let mut promised = 0i64;
    for (sequence, event, _) in chapter.told() {
        let order = match event {
            Event::Held(e) => Some(e.order),
            Event::Confirmed(e) => Some(e.order),
            Event::Released(e) => Some(e.order),
            Event::Expired(e) => Some(e.order),
            Event::Returned(e) => Some(e.order),
            _ => None,
        };
        let share = |shelf: &Shelf| {
            let row = order.and_then(|order| shelf.rows.get(&order));
            row.map_or(0, |row| i64::from(if row.state.is_live() { row.quantity } else { row.sold }))
        };
        let before = share(&shelf);
        shelf.fold_event(event);
        promised += share(&shelf) - before;
        if promised > shelf.on_hand {
            let what =
                format!("product {product} at #{}: {promised} promised of {}", sequence.0, shelf.on_hand);
            return broken("i3_no_oversell", what);
        }
    }
    Ok(())
}

/// I3, second half: nobody is refused as sold out at a sequence at which enough was available.
pub fn i3_no_undersell(story: &Story) -> Verdict {
    for (product, chapter) in story.chapters.iter().enumerate() {
        let mut shelf = Shelf::default();
        let mut available = vec![0i64];
        for event in &chapter.events {
            shelf.fold_event(event);
            available.push(shelf.on_hand - shelf.held - shelf.sold);
        }
        for (number, attempt) in story.attempts.iter().enumerate() {
            let Some(Heard::Refused { product: Some(of), refused }) =
                attempt.said.as_ref().map(|said| &said.heard)
            else {
                continue;
            };
            let Refusal::SoldOut { available: named, requested } = refused.why else { continue };
            if *of != product {
                continue;
            }
            let truly = available.get(refused.at.0 as usize).copied();
            if truly != Some(named as i64) || named >= u64::from(requested) {
                let what = format!(
                    "product {product}, attempt {number}: sold out at #{} with {named} of {requested}, truly {truly:?}",
                    refused.at.0
                );
                return broken("i3_no_undersell", what);
            }
        }
    }
    Ok(())
}

/// I7: nobody's live holds and sold units exceed the limit of the moment, and a refusal names the true count.
pub fn i7_limits(product: usize, chapter: &Chapter) -> Verdict {
    let mut limit = None;
    let mut shelf = Shelf::default();
    let mut buyers = BTreeMap::new();
    let mut has: BTreeMap<_, i64> = BTreeMap::new();
    for (sequence, event, _) in chapter.told() {
        let order = match event {
            Event::Created(e) => {
                limit = e.settings.per_customer_limit;
                continue;
            }
            Event::Configured(settings) => {
                limit = settings.per_customer_limit;
                continue;
            }
            Event::Held(e) => {
                buyers.insert(e.order, e.buyer);
                e.order
            }
            Event::Confirmed(e) => e.order,
            Event::Released(e) => e.order,
            Event::Expired(e) => e.order,
            Event::Returned(e) => e.order,
            _ => continue,
        };
        let share = |shelf: &Shelf| {
            let row = shelf.rows.get(&order);
            row.map_or(0, |row| i64::from(if row.state.is_live() { row.quantity } else { row.sold }))
        };
        let before = share(&shelf);
        shelf.fold_event(event);
        let Some(buyer) = buyers.get(&order) else { continue };
        let count = has.entry(*buyer).or_insert(0);
        *count += share(&shelf) - before;
        if matches!(event, Event::Held(_)) && limit.is_some_and(|limit| *count > i64::from(limit)) {
            let what = format!("product {product} at #{}: {buyer} has {count}, limit {limit:?}", sequence.0);
            return broken("i7_limits", what);
        }
    }
    let mut ledger = Ledger::default();
    for entry in &chapter.entries {
        if ledger.replay(entry).is_err() {
            return Ok(());
        }
    }
    for (buyer, count) in has {
        if i64::from(ledger.bought_by(buyer)) != count {
            let what = format!(
                "product {product}: {buyer} has {count}, the ledger says {}",
                ledger.bought_by(buyer)
            );
            return broken("i7_limits", what);
        }
    }
    Ok(())
}

/// I9: the history is one chain without gaps that can be read back, and holds as many events as it names.
pub fn i9_prefix_durability(product: usize, chapter: &Chapter) -> Verdict {
    let mut ledger = Ledger::default();
    for entry in &chapter.entries {
        if let Err(why) = ledger.replay(entry) {
            return broken("i9_prefix_durability", format!("product {product}: {why}"));
        }
    }
    let (named, found) = (ledger.sequence().0, chapter.events.len() as u64);
    if named != found {
        return broken("i9_prefix_durability", format!("product {product}: {named} named, {found} events"));
    }
    Ok(())
}

/// I10: a snapshot is the state of its sequence, and snapshot and tail lead where the whole history leads.
pub fn i10_one_state_by_every_road(product: usize, chapter: &Chapter) -> Verdict {
    let name = "i10_one_state_by_every_road";
    let mut by_sequence: Vec<_> = chapter.snapshots.iter().collect();
    by_sequence.sort_by_key(|(sequence, _)| *sequence);
    let mut snapshots = by_sequence.into_iter().peekable();
    let (mut ledger, mut other) = (Ledger::default(), None::<Ledger>);
    for entry in &chapter.entries {
        for road in [Some(&mut ledger), other.as_mut()].into_iter().flatten() {
            if let Err(why) = road.replay(entry) {
                return broken(name, format!("product {product}: {why}"));
            }
        }
        while let Some((sequence, body)) = snapshots.next_if(|(sequence, _)| *sequence == entry.last) {
            let Ok(restored) = Ledger::restore(body) else {
                return broken(
                    name,
                    format!("product {product}: the snapshot at #{} is unreadable", sequence.0),
                );
            };
            if restored.digest() != ledger.digest() {
                return broken(
                    name,
                    format!("product {product}: the snapshot at #{} is another state", sequence.0),
                );
            }
            other = Some(restored);
        }
    }
    if let Some((sequence, _)) = snapshots.next().filter(|(sequence, _)| sequence.0 > 0) {
        return broken(name, format!("product {product}: a snapshot at #{}, inside an entry", sequence.0));
    }
    match other {
        Some(other) if other.digest() != ledger.digest() => {
            broken(name, format!("product {product}: snapshot and tail lead elsewhere"))
        }
        _ => Ok(()),
    }
}

/// I13, what a history shows of it: no group exceeds its caps, and a ledger remembers no more orders, and their keys, than those that
/// are not forgotten. One more event may start below the cap of bytes.
pub fn i13_caps(product: usize, chapter: &Chapter) -> Verdict {
    for entry in &chapter.entries {
        if entry.count() > 512 || entry.events.len() > 64 * 1024 + 16 * 1024 {
            let what = format!(
                "product {product} at #{}: {} events, {} bytes",
                entry.first.0,
                entry.count(),
                entry.events.len()
            );
            return broken("i13_caps", what);
        }
    }
    let (mut ledger, mut stand) = (Ledger::default(), Stand::default());
    for entry in &chapter.entries {
        if ledger.replay(entry).is_err() {
            return Ok(());
        }
    }
    chapter.events.iter().for_each(|event| stand.follow(event));
    let (remembered, keys) = (ledger.remembered(), ledger.keys().count());
    if remembered != stand.remembers() || keys > remembered {
        let left = stand.remembers();
        let what =
            format!("product {product}: {remembered} orders remembered, {keys} keys, {left} not forgotten");
        return broken("i13_caps", what);
    }
    Ok(())
}

/// I13, of mailboxes: nobody who came from outside got into one that was full.
pub fn i13_mailboxes(story: &Story) -> Verdict {
    for mailbox in &story.mailboxes {
        if mailbox.questions > mailbox.questions_max || mailbox.reserves > mailbox.reserves_max {
            return broken("i13_caps", format!("more waited than may: {mailbox:?}"));
        }
    }
    Ok(())
}

/// The items that an attempt asked for, if it was an order.
pub(super) fn is_single(what: &What) -> bool {
    matches!(what, What::Order { items, .. } if items.len() == 1)
}
