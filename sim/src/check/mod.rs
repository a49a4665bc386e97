//! What must be true of every history: one function an invariant, named after its number in the proof's list.
//!
//! They read a finished [`Story`] and nothing else, so that whoever can write a story down (the simulator, a harness
//! that kills a real process) can have it judged by the same functions.

mod answer;
mod money;
mod order;
mod refusal;
mod stock;
mod time;

pub use answer::{i8_one_key_one_order, i15_promised_answers};
pub use money::{i5_money, i5_pinned_before_charged};
pub use order::{i2_acknowledged_once, i4_each_hold_ends_once, i14_whole_orders};
pub use refusal::i15_refusals_are_true;
pub use stock::{
    i1_conservation, i3_no_oversell, i3_no_undersell, i7_limits, i9_prefix_durability,
    i10_one_state_by_every_road, i13_caps, i13_mailboxes,
};
pub use time::{
    i6_arrival_order, i6_door_in_order, i6_no_inversion, i12_no_early_lapse, lapse_waits_for_the_earlier,
    sale_in_its_window,
};

use std::collections::BTreeMap;

use stockade::domain::stock::{Event, Refusal};

use crate::story::{By, Heard, Story};
use crate::tally::Tally;

/// A broken rule, with the numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub invariant: &'static str,
    pub what: String,
}

pub type Verdict = Result<(), Violation>;

/// Fails with the invariant's name and the numbers.
fn broken<T>(invariant: &'static str, what: String) -> Result<T, Violation> {
    Err(Violation { invariant, what })
}

/// All of them; the first that is broken.
pub fn all(story: &Story) -> Verdict {
    for (product, chapter) in story.chapters.iter().enumerate() {
        i9_prefix_durability(product, chapter)?;
        i1_conservation(product, chapter)?;
        i3_no_oversell(product, chapter)?;
        i4_each_hold_ends_once(product, chapter)?;
        i7_limits(product, chapter)?;
        i10_one_state_by_every_road(product, chapter)?;
        i12_no_early_lapse(product, chapter)?;
        sale_in_its_window(product, chapter)?;
        i13_caps(product, chapter)?;
    }
    i13_mailboxes(story)?;
    i2_acknowledged_once(story)?;
    i3_no_undersell(story)?;
    i6_arrival_order(story)?;
    i6_no_inversion(story)?;
    i6_door_in_order(story)?;
    lapse_waits_for_the_earlier(story)?;
    i8_one_key_one_order(story)?;
    i14_whole_orders(story)?;
    i15_refusals_are_true(story)?;
    i15_promised_answers(story)
}

/// Notes the rare situations that can only be seen afterwards.
pub fn reached(story: &Story, tally: &mut Tally) {
    let mut sold_out = vec![u64::MAX; story.chapters.len()];
    for said in story.attempts.iter().filter_map(|attempt| attempt.said.as_ref()) {
        if let Heard::Refused { product: Some(product), refused } = &said.heard
            && matches!(refused.why, Refusal::SoldOut { .. })
        {
            sold_out[*product] = sold_out[*product].min(refused.at.0);
        }
    }
    let mut placed_by = BTreeMap::new();
    for chapter in &story.chapters {
        for (_, event, fact) in chapter.told() {
            if let (Event::Placed(placed), Some(fact)) = (event, fact) {
                placed_by.insert(placed.order, fact.process);
            }
        }
    }
    for (product, chapter) in story.chapters.iter().enumerate() {
        let mut held_by = BTreeMap::new();
        for (sequence, event, fact) in chapter.told() {
            let Some(fact) = fact else { continue };
            match event {
                Event::Held(held) => {
                    held_by.insert(held.order, fact.process);
                    if sequence.0 > sold_out[product] {
                        tally.reach("sold out, and then a unit came back");
                    }
                }
                Event::Kept(kept) if fact.by == By::Word => {
                    if placed_by.get(&kept.order).is_some_and(|process| *process < fact.process) {
                        tally.reach("crash between Placed and Keep");
                    }
                    if held_by.get(&kept.order).is_some_and(|process| *process < fact.process) {
                        tally.reach("a home was asked after a restart");
                    }
                }
                _ => {}
            }
        }
    }
}
