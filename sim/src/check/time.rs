//! Order and time: first come, first served, seen from inside and from outside; and nothing lapses before its time.

use std::collections::BTreeMap;

use stockade::domain::stock::{Event, Refusal, Sequence};

use super::{Verdict, broken};
use crate::story::{By, Chapter, Heard, Ruling, Story};
use crate::time::{MS, Micros, true_time};

/// I6, inside: who came to the owner first is decided first, among those of one class.
pub fn i6_arrival_order(story: &Story) -> Verdict {
    let mut by_arrival: Vec<&Ruling> = story.rulings.iter().collect();
    by_arrival.sort_by_key(|ruling| (ruling.product, ruling.owner, ruling.reserve, ruling.arrival));
    for pair in by_arrival.windows(2) {
        let [earlier, later] = pair else { continue };
        let same_line =
            (earlier.product, earlier.owner, earlier.reserve) == (later.product, later.owner, later.reserve);
        if same_line && (later.at < earlier.at || (later.held && later.at <= earlier.at)) {
            let what = format!(
                "product {}: arrival {} was decided at #{}, the later arrival {} at #{}",
                earlier.product, earlier.arrival, earlier.at.0, later.arrival, later.at.0
            );
            return broken("i6_arrival_order", what);
        }
    }
    Ok(())
}

/// I6, outside: no X answered before Y was sent, and yet behind it.
pub fn i6_no_inversion(story: &Story) -> Verdict {
    for product in 0..story.chapters.len() {
        // Answers leave and requests are sent: in one line, answers first.
        let mut moments: Vec<(Micros, bool, Sequence, usize, bool)> = Vec::new();
        for (number, attempt) in story.attempts.iter().enumerate() {
            let Some(said) = &attempt.said else { continue };
            let seen = match &said.heard {
                Heard::Made { lines, .. } => {
                    lines.iter().find(|(of, _)| *of == product).map(|(_, at)| (*at, true))
                }
                Heard::Refused { product: Some(of), refused } if *of == product => Some((refused.at, false)),
                _ => None,
            };
            if let Some((sequence, held)) = seen {
                moments.push((said.at, false, sequence, number, held));
                moments.push((attempt.sent, true, sequence, number, held));
            }
        }
        moments.sort_unstable();
        let mut newest = (Sequence(0), 0);
        for (at, is_sent, sequence, number, held) in moments {
            if !is_sent {
                newest = newest.max((sequence, number));
            } else if sequence < newest.0 || (held && sequence == newest.0 && number != newest.1) {
                let what = format!(
                    "product {product}: attempt {} was answered at #{} before attempt {number} was sent at {at}, which stands at #{}",
                    newest.1, newest.0.0, sequence.0
                );
                return broken("i6_no_inversion", what);
            }
        }
    }
    Ok(())
}

/// I6 at the door: whoever is told *sold out* from the published view had nobody before him who was giving units back.
pub fn i6_door_in_order(story: &Story) -> Verdict {
    for (number, attempt) in story.attempts.iter().enumerate() {
        let Some(said) = attempt.said.as_ref().filter(|said| said.from_view) else { continue };
        let Heard::Refused { product: Some(product), refused } = &said.heard else { continue };
        if !matches!(refused.why, Refusal::SoldOut { .. }) {
            continue;
        }
        let Some(chapter) = story.chapters.get(*product) else { continue };
        for (sequence, event, fact) in chapter.told().skip(refused.at.0 as usize) {
            let Some(fact) = fact else { continue };
            // Only what could have been known by then, in that process.
            if fact.arrived >= said.at {
                if fact.decided > said.at + 10_000 * MS {
                    break;
                }
                continue;
            }
            let came_first = match event {
                Event::Released(_) | Event::Expired(_) | Event::Confirmed(_) => true,
                Event::Returned(returned) => returned.to_stock,
                Event::Restocked(restocked) => restocked.delta > 0,
                _ => false,
            };
            if came_first && matches!(fact.by, By::Attempt(_) | By::Lapse) {
                let what = format!(
                    "product {product}: attempt {number} was told sold out at #{} while #{} ({}) was on its way",
                    refused.at.0,
                    sequence.0,
                    event.word()
                );
                return broken("i6_door_in_order", what);
            }
        }
    }
    Ok(())
}

/// The deadline of each hold as its events set it, with the error of the clock that set it.
#[derive(Debug, Default)]
struct Deadlines(BTreeMap<stockade::domain::id::OrderId, (i64, Micros)>);

impl Deadlines {
    fn follow(&mut self, event: &Event, error_us: Micros) {
        let (order, deadline) = match event {
            Event::Held(e) => (e.order, e.deadline),
            Event::Placed(e) => (e.order, e.deadline),
            Event::Kept(e) => (e.order, e.deadline),
            Event::Unpinned(e) => (e.order, e.deadline),
            _ => return,
        };
        self.0.insert(order, (deadline.0, error_us));
    }
}

/// I12: no hold expires before its deadline by true time. A deadline is as true as the clock that a process started
/// with: what two starts disagree about is allowed, what the wall does in between is not.
pub fn i12_no_early_lapse(product: usize, chapter: &Chapter) -> Verdict {
    let mut deadlines = Deadlines::default();
    for (sequence, event, fact) in chapter.told() {
        let Some(fact) = fact else { return Ok(()) };
        deadlines.follow(event, fact.error_us);
        let order = match event {
            Event::Expired(expired) => expired.order,
            Event::Released(released) if fact.by == By::Lapse => released.order,
            _ => continue,
        };
        let Some((deadline, error_us)) = deadlines.0.get(&order).copied() else { continue };
        let due = true_time(stockade::domain::stock::Millis(deadline)) - error_us;
        let allowed = (fact.error_us - error_us).abs() + MS;
        if fact.decided + allowed < due {
            let early = (due - fact.decided) / MS;
            return broken(
                "i12_no_early_lapse",
                format!("product {product} at #{}: {early} ms early", sequence.0),
            );
        }
    }
    Ok(())
}

/// A command that arrived before the deadline wins over the lapse: no pin is refused because of a lapse that was
/// decided while the pin waited in the mailbox with an earlier stamp.
pub fn lapse_waits_for_the_earlier(story: &Story) -> Verdict {
    for (product, chapter) in story.chapters.iter().enumerate() {
        let mut deadlines = Deadlines::default();
        let mut lapsed = BTreeMap::new();
        for (_, event, fact) in chapter.told() {
            let Some(fact) = fact else { return Ok(()) };
            deadlines.follow(event, fact.error_us);
            if let Event::Expired(expired) = event {
                lapsed.insert(expired.order, *fact);
            }
        }
        for ruling in story.rulings.iter().filter(|ruling| ruling.product == product) {
            let Some((order, Refusal::HoldExpired)) = &ruling.pin else { continue };
            let (Some(lapse), Some((deadline, _))) = (lapsed.get(order), deadlines.0.get(order)) else {
                continue;
            };
            if lapse.owner == ruling.owner
                && ruling.arrived < lapse.decided
                && ruling.arrived_ms.0 < *deadline
            {
                let early = deadline - ruling.arrived_ms.0;
                let what = format!(
                    "product {product}: a pin came {early} ms before the deadline and lost to the lapse"
                );
                return broken("lapse_waits_for_the_earlier", what);
            }
        }
    }
    Ok(())
}
