//! Refusals: each says what was so at the sequence it names.
//!
//! A product is followed event by event, by a hand that shares nothing with the ledger, and each refusal is held against what
//! stood there when it was decided. Every kind of refusal has an arm: a new one does not compile until somebody has said what
//! makes it true.

use std::collections::BTreeMap;

use stockade::domain::amount::{Money, Quantity};
use stockade::domain::id::{OrderId, ProductId, UserId};
use stockade::domain::stock::{
    Cause, Command, Event, HoldState, Key, KeyUse, Millis, ON_HAND_MAX, Refusal, Refused, Reserve, Settings,
};

use super::{Verdict, broken};
use crate::story::{Attempt, Chapter, Heard, Story, What};
use crate::tables::{Row, Shelf};
use crate::time::shown;

const NAME: &str = "i15_refusals_are_true";
/// What a clock may have gained on the truth since, or before, the event by which its error is known.
const CLOCK_SLACK_MS: i64 = 30;

/// I15, first half: a refusal says what was so at the sequence it names.
pub fn i15_refusals_are_true(story: &Story) -> Verdict {
    let told = Told::of(story);
    told.without_product()?;
    story.chapters.iter().enumerate().try_for_each(|(product, chapter)| told.of_product(product, chapter))
}

/// One refusal, with the request that heard it.
#[derive(Clone, Copy)]
struct Asked<'a> {
    number: usize,
    attempt: &'a Attempt,
    refused: &'a Refused,
}

/// What is known of the story as a whole.
struct Told<'a> {
    story: &'a Story,
    /// The orders that each attempt may have made.
    orders: BTreeMap<usize, Vec<OrderId>>,
    /// What each line of an order cost when it was held.
    lines: BTreeMap<OrderId, Vec<Option<Money>>>,
    /// Whose each order is, and by which key.
    keys: BTreeMap<OrderId, (UserId, Option<Key>)>,
    /// How far the clock of each process was ahead of the truth, the least and the most, as far as its events show.
    ahead_us: BTreeMap<u64, (i64, i64)>,
}

impl<'a> Told<'a> {
    fn of(story: &'a Story) -> Told<'a> {
        let (mut orders, mut lines) = (BTreeMap::<_, Vec<_>>::new(), BTreeMap::<_, Vec<_>>::new());
        let (mut keys, mut ahead_us) = (BTreeMap::new(), BTreeMap::new());
        for (order, attempt) in &story.orders {
            orders.entry(*attempt).or_default().push(*order);
        }
        for (_, event, fact) in story.chapters.iter().flat_map(|chapter| chapter.told()) {
            if let Event::Held(held) = event {
                lines.entry(held.order).or_default().push(held.unit_price.times(held.quantity));
                // Only the first line carries the key.
                let of = keys.entry(held.order).or_insert((held.buyer, held.key));
                of.1 = of.1.or(held.key);
            }
            if let Some(fact) = fact {
                let (least, most) = ahead_us.entry(fact.process).or_insert((fact.error_us, fact.error_us));
                (*least, *most) = (fact.error_us.min(*least), fact.error_us.max(*most));
            }
        }
        Told { story, orders, lines, keys, ahead_us }
    }

    fn refusals(&self, product: Option<usize>) -> impl Iterator<Item = Asked<'a>> {
        self.story.attempts.iter().enumerate().filter_map(move |(number, attempt)| {
            match &attempt.said.as_ref()?.heard {
                Heard::Refused { product: of, refused } if *of == product => {
                    Some(Asked { number, attempt, refused })
                }
                _ => None,
            }
        })
    }

    /// What the door says of a key that is at another product: no sequence of this one has to do with it.
    fn without_product(&self) -> Verdict {
        for asked in self.refusals(None) {
            let is_true = match (&asked.refused.why, asked.key()) {
                (Refusal::KeyReused { order: Some(first) }, Some(key)) => {
                    self.keys.get(first).is_some_and(|(buyer, of)| {
                        *buyer == asked.attempt.who
                            && of.is_some_and(|of| of.key == key.key && of.body != key.body)
                    })
                }
                (Refusal::KeyInProgress, Some(_)) => true,
                _ => false,
            };
            if !is_true {
                let what = format!("attempt {} was told {:?} of no product", asked.number, asked.refused.why);
                return broken(NAME, what);
            }
        }
        Ok(())
    }

    fn of_product(&self, product: usize, chapter: &Chapter) -> Verdict {
        let mut refusals: Vec<Asked> = self.refusals(Some(product)).collect();
        refusals.sort_by_key(|asked| asked.refused.at);
        let mut refusals = refusals.into_iter().peekable();
        let mut entries = chapter.entries.iter().peekable();
        let mut stand = Stand::default();
        for sequence in 0..=chapter.events.len() as u64 {
            if let Some(event) = sequence.checked_sub(1).and_then(|n| chapter.events.get(n as usize)) {
                stand.follow(event);
            }
            while let Some(entry) = entries.next_if(|entry| entry.last.0 <= sequence) {
                stand.closed_at = entry.at;
            }
            while let Some(asked) = refusals.next_if(|asked| asked.refused.at.0 == sequence) {
                if !self.is_true(asked, &stand, chapter.product) {
                    let (who, why) = (asked.attempt.who, &asked.refused.why);
                    let what = format!(
                        "product {product} at #{sequence}: {who} was told {why:?} (attempt {})",
                        asked.number
                    );
                    return broken(NAME, what);
                }
            }
        }
        match refusals.next() {
            None => Ok(()),
            Some(Asked { attempt, refused, .. }) => broken(
                "i9_prefix_durability",
                format!(
                    "product {product}: {} was refused at #{}, the history ends at #{}",
                    attempt.who,
                    refused.at.0,
                    chapter.events.len()
                ),
            ),
        }
    }

    fn is_true(&self, asked: Asked, stand: &Stand, product: ProductId) -> bool {
        let hold = asked.order().and_then(|order| stand.hold(order));
        let state = hold.map(|(_, row)| row.state);
        let settings = stand.settings.as_ref();
        match &asked.refused.why {
            Refusal::NoProduct => settings.is_none(),
            Refusal::ProductExists => {
                settings.is_some() && matches!(asked.command(), Some(Command::Create { .. }))
            }
            Refusal::Archived => {
                stand.archived && matches!(asked.command(), None | Some(Command::Configure(_)))
            }
            Refusal::Paused => stand.paused && !stand.archived,
            Refusal::NotOpen { opens_at } => {
                stand.is_on_sale()
                    && settings.is_some_and(|settings| settings.opens_at == Some(*opens_at))
                    && self.may_have_come_before(asked, *opens_at)
            }
            Refusal::Closed { closed_at } => {
                stand.is_on_sale()
                    && settings.is_some_and(|settings| settings.closes_at == Some(*closed_at))
                    && self.may_be_past(asked, stand, *closed_at)
            }
            Refusal::LimitExceeded { limit, has, requested } => {
                stand.is_on_sale()
                    && settings.is_some_and(|settings| settings.per_customer_limit == Some(*limit))
                    && stand.bought_by(asked.attempt.who) == *has
                    && u64::from(*has) + u64::from(*requested) > u64::from(*limit)
            }
            Refusal::SoldOut { available, requested } => {
                stand.is_on_sale()
                    && stand.available() == i128::from(*available)
                    && *available < u64::from(*requested)
            }
            Refusal::PriceChanged { expected, actual } => {
                let of_one = settings.zip(asked.quantity(product));
                let of_one = of_one.and_then(|(settings, quantity)| settings.price.times(quantity));
                expected != actual
                    && (of_one == Some(*actual) || self.totals(asked).any(|total| total == Some(*actual)))
            }
            Refusal::TwoCurrencies => self.lines(asked).any(|lines| {
                let mut currencies = lines.iter().flatten().map(|line| line.currency);
                currencies.next().is_some_and(|first| currencies.any(|other| other != first))
            }),
            Refusal::AmountTooLarge => {
                let of_one = settings.zip(asked.quantity(product));
                of_one.is_some_and(|(settings, quantity)| settings.price.times(quantity).is_none())
                    || self.totals(asked).any(|total| total.is_none())
            }
            Refusal::KeyReused { order: Some(first) } => {
                let of = stand.holds.get(first).filter(|hold| hold.buyer == asked.attempt.who);
                let (of, key) = (of.and_then(|hold| hold.key), asked.key());
                of.zip(key).is_some_and(|(of, key)| of.key == key.key && of.body != key.body)
            }
            Refusal::KeyReused { order: None } => asked.key().is_some_and(|KeyUse { key, body }| {
                stand.restocks.get(&key).is_some_and(|first| *first != body)
            }),
            Refusal::KeyInProgress => asked.key().is_some_and(|key| {
                stand.holds.iter().any(|(order, hold)| {
                    let is_same = hold.key.is_some_and(|of| (of.key, of.body) == (key.key, key.body));
                    let state = stand.shelf.rows.get(order).map(|row| row.state);
                    is_same && hold.buyer == asked.attempt.who && state == Some(HoldState::Placing)
                })
            }),
            Refusal::OrderIdTaken => {
                let made = self.orders.get(&asked.number);
                made.into_iter().flatten().any(|order| stand.holds.contains_key(order))
            }
            Refusal::NoSuchOrder => asked.order().is_some() && hold.is_none(),
            Refusal::HoldExpired => hold.is_some_and(|(hold, row)| match row.state {
                HoldState::Expired => true,
                HoldState::Held | HoldState::Placing => self.may_be_past(asked, stand, hold.deadline),
                HoldState::Pinned | HoldState::Sold | HoldState::Released(_) => false,
            }),
            Refusal::AlreadyReleased { cause } => state == Some(HoldState::Released(*cause)),
            Refusal::AlreadySold => state == Some(HoldState::Sold),
            // Its own payment may.
            Refusal::PaymentRunning => hold.is_some_and(|(hold, row)| {
                row.state == HoldState::Pinned && asked.pays() != Some(u64::from(hold.attempt))
            }),
            Refusal::NotPinned => state == Some(HoldState::Held),
            Refusal::AttemptOver => hold.is_some_and(|(hold, row)| {
                row.state == HoldState::Held
                    && asked.pays().is_some_and(|attempt| attempt <= u64::from(hold.attempt))
            }),
            Refusal::StillPlacing => state == Some(HoldState::Placing),
            Refusal::MoreThanHeld { confirmed, held } => hold.is_some_and(|(_, row)| {
                row.state == HoldState::Pinned && row.quantity == *held && confirmed > held
            }),
            Refusal::MoreThanSold { returned, sold } => hold
                .is_some_and(|(_, row)| row.state == HoldState::Sold && row.sold == *sold && returned > sold),
            Refusal::BelowPromised { promised, would_be } => {
                let truly = i128::from(stand.shelf.held) + i128::from(stand.shelf.sold);
                i128::from(*promised) == truly
                    && i128::from(*would_be) < truly
                    && asked.delta().is_some_and(|delta| stand.shelf.on_hand + delta == *would_be)
            }
            Refusal::TooMuchStock { limit } => {
                let units = match asked.command() {
                    Some(Command::Create { stock, .. }) => i128::from(*stock),
                    _ => i128::from(stand.shelf.on_hand) + asked.delta().map_or(0, i128::from),
                };
                *limit == ON_HAND_MAX && units > i128::from(*limit)
            }
            Refusal::NothingToDo => asked.delta() == Some(0),
        }
    }

    /// The prices of the lines that this attempt took on its way.
    fn lines(&self, asked: Asked) -> impl Iterator<Item = &Vec<Option<Money>>> {
        let made = self.orders.get(&asked.number).into_iter().flatten();
        made.filter_map(|order| self.lines.get(order))
    }

    /// The sums of them; `None` where one is too large to be told.
    fn totals(&self, asked: Asked) -> impl Iterator<Item = Option<Money>> {
        self.lines(asked).map(|lines| lines.iter().copied().reduce(|sum, line| sum?.plus(line?)).flatten())
    }

    /// Whether the process that said so could believe that this time had come: by its own clock, or because an entry was closed after
    /// it. Of a process that decided nothing the clock is not known.
    fn may_be_past(&self, asked: Asked, stand: &Stand, time: Millis) -> bool {
        let Some(said) = asked.attempt.said.as_ref() else { return false };
        let Some((_, ahead_us)) = self.ahead_us.get(&asked.attempt.process) else { return true };
        let by_then = shown(said.at + ahead_us).plus(CLOCK_SLACK_MS);
        time <= by_then.max(stand.closed_at)
    }

    /// Whether the process that said so could believe that this time was still to come: it decided after it was asked.
    fn may_have_come_before(&self, asked: Asked, time: Millis) -> bool {
        let Some((ahead_us, _)) = self.ahead_us.get(&asked.attempt.process) else { return true };
        shown(asked.attempt.sent + ahead_us).plus(-CLOCK_SLACK_MS) < time
    }
}

impl<'a> Asked<'a> {
    fn command(self) -> Option<&'a Command> {
        match &self.attempt.what {
            What::Command { command, .. } => Some(command),
            What::Order { .. } | What::Read { .. } => None,
        }
    }

    fn key(self) -> Option<KeyUse> {
        match (&self.attempt.what, self.command()) {
            (What::Order { key, .. }, _) => *key,
            (_, Some(Command::Restock(restock))) => restock.key,
            (_, Some(Command::Reserve(Reserve { key, .. }))) => *key,
            _ => None,
        }
    }

    /// Units of this product that were asked for in an order.
    fn quantity(self, product: ProductId) -> Option<Quantity> {
        let What::Order { items, .. } = &self.attempt.what else { return None };
        items.iter().find(|item| item.product == product).map(|item| item.quantity)
    }

    fn delta(self) -> Option<i64> {
        match self.command()? {
            Command::Restock(restock) => Some(restock.delta),
            _ => None,
        }
    }

    /// The order that the command is about.
    fn order(self) -> Option<OrderId> {
        match self.command()? {
            Command::Reserve(reserve) => Some(reserve.order),
            Command::Place(place) => Some(place.order),
            Command::Keep { order, .. }
            | Command::Pin { order, .. }
            | Command::Unpin { order, .. }
            | Command::Confirm { order, .. }
            | Command::Release { order, .. }
            | Command::Return { order, .. } => Some(*order),
            Command::Create { .. }
            | Command::Configure(_)
            | Command::Restock(_)
            | Command::Pause
            | Command::Resume
            | Command::Archive
            | Command::Forget { .. } => None,
        }
    }

    /// The number of the attempt to pay that the command belongs to.
    fn pays(self) -> Option<u64> {
        match self.command()? {
            Command::Pin { attempt, .. }
            | Command::Unpin { attempt, .. }
            | Command::Confirm { attempt, .. } => Some(attempt.get().into()),
            Command::Release { cause: Cause::PaymentFailed, by, .. } => Some(*by),
            _ => None,
        }
    }
}

/// What a product remembers of an order, beside its row on the shelf.
struct Hold {
    buyer: UserId,
    key: Option<Key>,
    deadline: Millis,
    /// The last attempt to pay it that pinned, or was over.
    attempt: u8,
    /// The key of the request that has cancelled it, 0 for none: it may come again.
    cancelled_by: u64,
}

/// A product at one sequence.
#[derive(Default)]
pub(super) struct Stand {
    shelf: Shelf,
    settings: Option<Settings>,
    paused: bool,
    archived: bool,
    /// Orders that are not forgotten.
    holds: BTreeMap<OrderId, Hold>,
    restocks: BTreeMap<[u8; 16], u64>,
    /// When the last entry up to here was closed.
    closed_at: Millis,
}

impl Stand {
    pub(super) fn follow(&mut self, event: &Event) {
        self.shelf.fold_event(event);
        match event {
            Event::Created(created) => self.settings = Some(created.settings.clone()),
            Event::Configured(to) => self.settings = Some(to.clone()),
            Event::Paused => self.paused = true,
            Event::Resumed => self.paused = false,
            Event::Archived => self.archived = true,
            Event::Restocked(restocked) => {
                self.restocks.extend(restocked.key.map(|Key { key, body }| (key, body)));
            }
            Event::Held(e) => {
                let (buyer, key, deadline) = (e.buyer, e.key, e.deadline);
                let hold = Hold { buyer, key, deadline, attempt: 0, cancelled_by: 0 };
                self.holds.insert(e.order, hold);
            }
            Event::Placed(e) => self.change(e.order, |hold| hold.deadline = e.deadline),
            Event::Kept(e) => self.change(e.order, |hold| hold.deadline = e.deadline),
            Event::Pinned(e) => self.change(e.order, |hold| hold.attempt = e.attempt.get()),
            Event::Unpinned(e) => self.change(e.order, |hold| {
                (hold.deadline, hold.attempt) = (e.deadline, e.attempt.get());
            }),
            // Nothing of an order stays that was never born.
            Event::Released(e) if e.cause == Cause::NotPlaced => {
                self.holds.remove(&e.order);
            }
            Event::Forgotten(e) => {
                let rows = &self.shelf.rows;
                self.holds.retain(|order, hold| {
                    let before = if hold.key.is_some() { e.keyed_before } else { e.unkeyed_before };
                    let row = rows.get(order);
                    let nothing_came = row
                        .is_some_and(|row| matches!(row.state, HoldState::Released(_) | HoldState::Expired));
                    !nothing_came || hold.cancelled_by != 0 || hold.deadline >= before
                });
                for (order, _) in &e.cancelled {
                    self.holds.remove(order);
                }
            }
            Event::Released(e) if e.cause == Cause::Cancelled => {
                self.change(e.order, |hold| hold.cancelled_by = e.by);
            }
            Event::Confirmed(_) | Event::Released(_) | Event::Expired(_) | Event::Returned(_) => {}
        }
    }

    /// How many orders are not forgotten.
    pub(super) fn remembers(&self) -> usize {
        self.holds.len()
    }

    fn change(&mut self, order: OrderId, how: impl FnOnce(&mut Hold)) {
        if let Some(hold) = self.holds.get_mut(&order) {
            how(hold);
        }
    }

    fn hold(&self, order: OrderId) -> Option<(&Hold, &Row)> {
        self.holds.get(&order).zip(self.shelf.rows.get(&order))
    }

    fn is_on_sale(&self) -> bool {
        !self.paused && !self.archived
    }

    fn available(&self) -> i128 {
        i128::from(self.shelf.on_hand) - i128::from(self.shelf.held) - i128::from(self.shelf.sold)
    }

    fn bought_by(&self, who: UserId) -> u32 {
        let his = self.holds.iter().filter(|(_, hold)| hold.buyer == who);
        let rows = his.filter_map(|(order, _)| self.shelf.rows.get(order));
        rows.map(|row| if row.state.is_live() { row.quantity } else { row.sold }).sum()
    }
}

#[cfg(test)]
mod tests;
