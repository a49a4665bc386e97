//! Order and time: first come, first served, seen from inside and from outside; nothing lapses before its time, and nothing is
//! held while the sale is not open.

use std::collections::BTreeMap;

use stockade::domain::stock::{Event, Millis, Refusal, Sequence};

use super::{Verdict, broken};
use crate::story::{By, Chapter, Heard, Ruling, Story};
use crate::time::{MS, Micros, shown, true_time};

/// What a clock may have lost on the truth, or gained, between a question's arrival and its decision.
const CLOCK_SLACK_MS: i64 = 2;

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

/// Nothing is held before the sale opens, and nothing once it has closed: by the clock of the process, which no step of the wall moves,
/// at some time between the question's arrival and its decision, or, where that is later, by the end of the entry before.
pub fn sale_in_its_window(product: usize, chapter: &Chapter) -> Verdict {
    let mut window = (None, None);
    let mut entries = chapter.entries.iter().peekable();
    let mut closed_at = Millis(i64::MIN);
    for (sequence, event, fact) in chapter.told() {
        let Some(fact) = fact else { return Ok(()) };
        while let Some(entry) = entries.next_if(|entry| entry.last < sequence) {
            closed_at = entry.at;
        }
        match event {
            Event::Created(created) => window = (created.settings.opens_at, created.settings.closes_at),
            Event::Configured(settings) => window = (settings.opens_at, settings.closes_at),
            Event::Held(_) => {
                let from = shown(fact.arrived + fact.error_us).plus(-CLOCK_SLACK_MS).max(closed_at);
                let until = shown(fact.decided + fact.error_us).plus(CLOCK_SLACK_MS).max(closed_at);
                let (opens_at, closes_at) = window;
                let is_early = opens_at.is_some_and(|opens_at| until < opens_at);
                if is_early || closes_at.is_some_and(|closes_at| from >= closes_at) {
                    let what = format!(
                        "product {product} at #{}: held between {} and {}, on sale from {opens_at:?} to {closes_at:?}",
                        sequence.0, from.0, until.0
                    );
                    return broken("sale_in_its_window", what);
                }
            }
            _ => {}
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

#[cfg(test)]
mod tests {
    use stockade::domain::amount::{Currency, Money, Quantity};
    use stockade::domain::id::{OrderId, ProductId, UserId};
    use stockade::domain::stock::{Created, Held, Settings};

    use super::*;
    use crate::story::Fact;
    use crate::time::SECOND;

    /// Whether the checker lets a unit be held that was asked for and decided about in these seconds, on sale from the fifth to the
    /// twentieth, by a clock that is so far ahead.
    fn allows(arrived: i64, decided: i64, ahead: i64) -> bool {
        let (product, price) =
            (ProductId::new(shown(0), 1), Money { amount: 1_000, currency: Currency::KRW });
        let settings = Settings {
            price,
            opens_at: Some(shown(5 * SECOND)),
            closes_at: Some(shown(20 * SECOND)),
            per_customer_limit: None,
            hold_ms: 1_000,
        };
        let held = Held {
            order: OrderId::for_home(shown(0), 3, product),
            line: 1,
            buyer: UserId::new(shown(0), 2),
            quantity: Quantity::of_line(1).unwrap(),
            unit_price: price,
            deadline: shown(30 * SECOND),
            key: None,
            placing: None,
        };
        let fact = |arrived: i64, decided: i64| Fact {
            by: By::Lapse,
            decided: decided * SECOND,
            arrived: arrived * SECOND,
            error_us: ahead * SECOND,
            process: 1,
            owner: 1,
            durable: 0,
        };
        let chapter = Chapter {
            product,
            entries: Vec::new(),
            events: vec![Event::Created(Created { settings, stock: 1 }), Event::Held(held)],
            facts: vec![fact(0, 0), fact(arrived, decided)],
            snapshots: Vec::new(),
        };
        sale_in_its_window(0, &chapter).is_ok()
    }

    #[test]
    fn a_unit_is_held_while_the_sale_is_open_by_the_clock_of_the_process() {
        assert!(allows(5, 6, 0) && allows(19, 19, 0));
        assert!(!allows(3, 4, 0), "it was not open");
        assert!(!allows(21, 22, 0), "it was closed");
        assert!(allows(4, 5, 0) && allows(19, 21, 0), "it waited for its decision");
        assert!(allows(3, 3, 2) && !allows(19, 19, 2), "the clock is ahead");
    }
}
