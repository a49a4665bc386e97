//! Answers: each is true, each is one of the promised, and one key makes one order.

use std::collections::BTreeMap;

use stockade::domain::id::{OrderId, UserId};
use stockade::domain::stock::{Cause, Event, Refusal};

use super::stock::is_single;
use super::{Verdict, broken};
use crate::story::{By, Heard, Story, What};
use crate::time::Micros;

/// An order that a key has made.
#[derive(Debug, Clone, Copy)]
struct Birth {
    order: OrderId,
    body: u64,
    durable: Micros,
}

/// Every order made with a key, by whose key it was. Taken from the request, whatever the event says of it.
fn births(story: &Story) -> BTreeMap<(UserId, [u8; 16]), Vec<Birth>> {
    let mut births: BTreeMap<_, Vec<Birth>> = BTreeMap::new();
    for chapter in &story.chapters {
        for (_, event, fact) in chapter.told() {
            let order = match event {
                Event::Held(held) if held.placing.is_none() => held.order,
                Event::Placed(placed) => placed.order,
                _ => continue,
            };
            let Some(attempt) = story.orders.get(&order).and_then(|number| story.attempts.get(*number))
            else {
                continue;
            };
            if let What::Order { key: Some(key), .. } = &attempt.what {
                let durable = fact.map_or(Micros::MAX, |fact| fact.durable);
                births.entry((attempt.who, key.key)).or_default().push(Birth {
                    order,
                    body: key.body,
                    durable,
                });
            }
        }
    }
    births
}

/// I8: a key makes one order at most, whatever products its requests name; and once the order is in the journal,
/// every request with the key hears of that order, or that the key belongs to another request.
pub fn i8_one_key_one_order(story: &Story) -> Verdict {
    let name = "i8_one_key_one_order";
    let births = births(story);
    if let Some(((who, _), two)) = births.iter().find(|(_, births)| births.len() > 1) {
        return broken(name, format!("{who} made {} orders with one key: {two:?}", two.len()));
    }
    for (number, attempt) in story.attempts.iter().enumerate() {
        let (What::Order { key: Some(key), .. }, Some(said)) = (&attempt.what, &attempt.said) else {
            continue;
        };
        let birth = births.get(&(attempt.who, key.key)).and_then(|births| births.first());
        let right = match (&said.heard, birth) {
            (Heard::NotExecuted | Heard::Unknown, _) => true,
            (Heard::Made { order, .. }, Some(birth)) => {
                *order == birth.order && story.orders.get(order) == Some(&number)
            }
            (Heard::Replayed(order), Some(birth)) => *order == birth.order && birth.body == key.body,
            (Heard::Made { .. } | Heard::Replayed(_), None) => false,
            (Heard::Refused { refused, .. }, Some(birth)) if attempt.sent > birth.durable => {
                birth.body != key.body && matches!(refused.why, Refusal::KeyReused { .. })
            }
            (Heard::Refused { .. }, _) => true,
            (Heard::Done | Heard::Known(_), _) => false,
        };
        if !right {
            let what = format!(
                "attempt {number} heard {:?}; its key made {birth:?}, sent at {}",
                said.heard, attempt.sent
            );
            return broken(name, what);
        }
    }
    Ok(())
}

/// I15, second half: what was called *not executed*, or refused, had no effect that stayed.
pub fn i15_promised_answers(story: &Story) -> Verdict {
    let definite = |number: usize| {
        let heard =
            story.attempts.get(number).and_then(|attempt| attempt.said.as_ref()).map(|said| &said.heard);
        heard.is_some_and(|heard| matches!(heard, Heard::NotExecuted | Heard::Refused { .. }))
    };
    for (product, chapter) in story.chapters.iter().enumerate() {
        for (sequence, event, fact) in chapter.told() {
            let Some(By::Attempt(number)) = fact.map(|fact| fact.by) else { continue };
            // An order of several lines may have taken holds on the way; what counts is that it was never born.
            let placing = match event {
                Event::Held(held) => held.placing.is_some(),
                Event::Released(released) => released.cause == Cause::NotPlaced,
                _ => false,
            };
            if !placing && definite(number) {
                let heard = story.attempts[number].said.as_ref().map(|said| &said.heard);
                let what = format!(
                    "product {product} at #{}: {} by attempt {number} (single line: {}), which heard {heard:?}",
                    sequence.0,
                    event.word(),
                    is_single(&story.attempts[number].what),
                );
                return broken("i15_promised_answers", what);
            }
        }
    }
    Ok(())
}
