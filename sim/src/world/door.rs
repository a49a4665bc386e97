//! The door: a request comes in, is refused, answered from the published view, or asked of its owner. What comes back with a
//! key that was used before is asked about first (`again`).
//!
//! *Sold out* is answered here only when the view shows it, the key is not among the used ones, no question waits at
//! the owner, and no unpublished event returns units. An order of several lines is led through its [`Placement`],
//! which dies with its connection.

use stockade::actors::order::{Item, Next, Placed, Placement, word_of_home};
use stockade::actors::stock::{Answer, Ask, NotDone, Reply};
use stockade::domain::amount::Money;
use stockade::domain::id::{OrderId, UserId};
use stockade::domain::stock::{Command, KeyUse, Refusal, Refused, Reserve, SaleState};

use super::World;
use super::again::{Before, Wanted};
use super::keys::Print;
use super::mailbox::{Inside, Waiter};
use crate::broken::Broken;
use crate::chance::mix;
use crate::scenario::FAULTS_END;
use crate::story::{By, Heard, What};

/// An order of several lines on its way.
#[derive(Debug)]
pub struct Run {
    pub attempt: usize,
    placement: Placement,
    print: Option<Print>,
    /// Lines held so far.
    pub holds: u32,
}

impl World {
    pub(super) fn arrive(&mut self, attempt: usize) {
        let line = if self.trace.aloud { self.describe(attempt) } else { String::new() };
        self.note("arrive", attempt as u64, self.node.up.into());
        self.say(|| format!("{attempt} arrives: {line}"));
        if !self.node.up {
            return self.hang_up(attempt);
        }
        let Some(record) = self.attempts.get_mut(attempt) else { return };
        record.process = self.node.number;
        let by = By::Attempt(attempt);
        match record.what.clone() {
            What::Order { .. } => self.order_at_door(attempt),
            What::Command { product, command } => {
                self.post(product, Ask::Command(command), Waiter::Door(attempt), None, by);
            }
            What::Read { order, home } => self.post(home, Ask::Order(order), Waiter::Door(attempt), None, by),
        }
    }

    pub(super) fn order_at_door(&mut self, attempt: usize) {
        let Some(record) = self.attempts.get(attempt) else { return };
        let What::Order { items, key } = record.what.clone() else { return };
        let who = record.who;
        let Some(home) = items.iter().map(|item| item.product).min() else { return };
        let Some(product) = self.product(home) else { return };
        let print: Option<Print> = key.map(|key| (who, key.key));
        let used = print.is_some_and(|print| self.node.keys.is_used(print));
        let came_before = match print.map(|print| self.node.keys.claim(print, product)) {
            Some(Err(elsewhere)) => return self.key_elsewhere(attempt, elsewhere),
            Some(Ok(came_before)) => came_before,
            None => false,
        };
        if let [item] = items.as_slice()
            && let Some(refused) = self.refused_at_door(product, who, item.quantity.get(), used)
        {
            if let Some(print) = print {
                self.node.keys.unclaim(print);
            }
            return self.answer(attempt, Heard::Refused { product: Some(product), refused }, true);
        }
        if came_before {
            // Its ledger is not simply asked for another order: it may have forgotten the first.
            return self.key_again(attempt, product, Before::Here);
        }
        let slow = self.chance.percent(3);
        self.send_on(attempt, items, key, print, slow);
    }

    /// The request goes to its owner, or is placed line by line.
    pub(super) fn send_on(
        &mut self,
        attempt: usize,
        items: Vec<Item>,
        key: Option<KeyUse>,
        print: Option<Print>,
        slow: bool,
    ) {
        let Some(who) = self.attempts.get(attempt).map(|record| record.who) else { return };
        let Some(home) = items.iter().map(|item| item.product).min() else { return };
        let Some(product) = self.product(home) else { return };
        let order = OrderId::for_home(self.clock(), self.chance.wide(), home);
        self.orders.insert(order, attempt);
        let key = key.map(|key| self.as_the_ledger_knows_it(key));
        let price = self.scenario.products[product].settings.price;
        let expects = self.chance.percent(10);
        if let ([item], false) = (items.as_slice(), slow) {
            let expected = price.times(item.quantity).filter(|_| expects);
            let quantity = item.quantity;
            let reserve = Reserve { order, line: 1, buyer: who, quantity, key, expected, placing: None };
            let ask = Ask::Command(Command::Reserve(reserve));
            return self.post(product, ask, Waiter::Door(attempt), print, By::Attempt(attempt));
        }
        let total = items.iter().try_fold(0i64, |sum, item| {
            let product = self.product(item.product)?;
            let line = self.scenario.products[product].settings.price.times(item.quantity)?;
            sum.checked_add(line.amount)
        });
        let expected = total.map(|amount| Money { amount, ..price }).filter(|_| expects);
        let mut placement = Placement::new(order, who, items, key, expected);
        let first = placement.start();
        self.node.tokens += 1;
        let run = self.node.tokens;
        self.node.runs.insert(run, Run { attempt, placement, print, holds: 0 });
        self.placement_goes_on(run, first);
    }

    /// A process that forgets keys when it starts sees an old key as a new one.
    fn as_the_ledger_knows_it(&self, key: KeyUse) -> KeyUse {
        if !self.is(Broken::ForgetDedupeOnRestart) {
            return key;
        }
        let word = mix(u128::from_be_bytes(key.key) as u64 ^ self.node.number);
        KeyUse { key: (u128::from(word) << 1 | 1).to_be_bytes(), ..key }
    }

    /// The refusal that the published view alone proves.
    fn refused_at_door(
        &mut self,
        product: usize,
        who: UserId,
        requested: u32,
        used: bool,
    ) -> Option<Refused> {
        let now = self.stamp(true);
        let owner = &self.node.owners[product];
        let (view, protocol) = (owner.view.as_ref()?, owner.protocol());
        let (at, available) = (view.sequence, view.counts.available());
        let why = match view.sale_state(now) {
            SaleState::Archived => Refusal::Archived,
            SaleState::Paused => Refusal::Paused,
            SaleState::NotOpen { opens_at } => Refusal::NotOpen { opens_at },
            SaleState::Closed { closed_at } => Refusal::Closed { closed_at },
            SaleState::Open if available >= u64::from(requested) => return None,
            SaleState::Open => Refusal::SoldOut { available, requested },
        };
        // The limit comes first, and only the ledger knows who has bought.
        let limit = view.settings.per_customer_limit;
        if limit
            .is_some_and(|limit| requested > limit || protocol.is_none_or(|p| p.ledger().bought_by(who) > 0))
        {
            return None;
        }
        let returning = protocol.is_some_and(|protocol| protocol.returns_units());
        let undecided = owner.undecided() > 0;
        if used && !self.is(Broken::RetryingWinnerSoldOut) {
            self.tally.reach("a used key kept the door from answering sold out");
            return None;
        }
        if (returning || undecided) && !self.is(Broken::ShortcutDespiteReturns) {
            if returning {
                self.tally.reach("units on their way back kept the door from answering sold out");
            }
            return None;
        }
        match why {
            Refusal::SoldOut { .. } => self.tally.reach("sold out was answered from the published view"),
            Refusal::Archived => self.tally.reach("off sale for good was answered from the published view"),
            _ => {}
        }
        self.told[product] = self.told[product].max(at);
        Some(Refused { at, why })
    }

    // --- placements -----------------------------------------------------------------------------------------------

    pub(super) fn told_inside(&mut self, to: Inside, reply: Reply) {
        match to {
            Inside::Placement(run) => self.placement_hears(run, reply),
            Inside::Key { attempt, product, before } => self.key_is_known(attempt, product, before, reply),
            Inside::Stands { attempt, order } => self.it_stands(attempt, order, reply),
            Inside::Home { asker, order } => self.home_says(asker, order, reply),
            Inside::Nobody => {}
        }
    }

    fn home_says(&mut self, asker: usize, order: OrderId, reply: Reply) {
        if self.now < FAULTS_END && self.chance.percent(5 * self.scenario.walk_away_percent) {
            // The home was too busy to say; it will be asked again.
            return self.tally.fault("home's word lost");
        }
        let Ok(Answer::Order(view)) = reply else { return };
        let Some(command) = word_of_home(order, view.as_deref()) else { return };
        self.tally.reach(match command {
            Command::Keep { .. } => "a home said keep",
            _ => "a home said release",
        });
        self.post(asker, Ask::Command(command), Waiter::Inside(Inside::Nobody), None, By::Word);
    }

    fn placement_hears(&mut self, number: u64, reply: Reply) {
        let now = self.clock();
        let Some(run) = self.node.runs.get_mut(&number) else { return };
        if matches!(reply, Ok(Answer::Reserved(_))) {
            run.holds += 1;
        } else if run.holds > 0 && matches!(reply, Err(NotDone::Refused { .. })) {
            self.tally.reach("a line was refused and the others undone");
        }
        let holds = run.holds;
        let walks_away = self.now < FAULTS_END && self.chance.percent(self.scenario.walk_away_percent);
        let dies = self.placement_fuse == Some(0) || walks_away;
        self.placement_fuse = self.placement_fuse.and_then(|left| left.checked_sub(1));
        if dies {
            self.tally.fault("placement dropped");
            if holds > 0 {
                self.tally.reach("a placement died with lines held");
            }
            if let Some(run) = self.node.runs.remove(&number) {
                self.say(|| format!("  the placement of {} dies", run.attempt));
                self.hang_up(run.attempt);
            }
            return;
        }
        let Some(run) = self.node.runs.get_mut(&number) else { return };
        let next = run.placement.heard(reply, now);
        self.placement_goes_on(number, next);
    }

    fn placement_goes_on(&mut self, number: u64, next: Next) {
        let Some(run) = self.node.runs.get(&number) else { return };
        let (attempt, by) = (run.attempt, By::Attempt(run.attempt));
        match next {
            Next::Ask(product, command) => {
                // The key travels with the first hold.
                let keyed = matches!(&command, Command::Reserve(reserve) if reserve.line == 1);
                let claim = run.print.filter(|_| keyed);
                let Some(product) = self.product(product) else { return };
                let waiter = Waiter::Inside(Inside::Placement(number));
                self.post(product, Ask::Command(command), waiter, claim, by);
            }
            Next::Done(result) => {
                self.node.runs.remove(&number);
                match result {
                    Ok(Placed::Before(order)) => self.answer(attempt, Heard::Replayed(order), false),
                    Ok(Placed::Born { order, lines, keep, .. }) => {
                        let lines = lines
                            .iter()
                            .filter_map(|l| Some((self.product(l.product)?, l.sequence)))
                            .collect();
                        self.answer(attempt, Heard::Made { order, lines }, false);
                        for (product, command) in keep {
                            let Some(product) = self.product(product) else { continue };
                            if self.now < FAULTS_END
                                && self.chance.percent(4 * self.scenario.walk_away_percent)
                            {
                                self.tally.fault("keep lost");
                                continue;
                            }
                            let nobody = Waiter::Inside(Inside::Nobody);
                            self.post(product, Ask::Command(command), nobody, None, By::Keep);
                        }
                    }
                    Err(not_done) => {
                        let heard = self.as_the_client_hears(not_done);
                        self.answer(attempt, heard, false);
                    }
                }
            }
        }
    }

    // --- answers ----------------------------------------------------------------------------------------------------

    pub(super) fn door_hears(&mut self, attempt: usize, product: usize, reply: Reply) {
        let read = match self.attempts.get(attempt).map(|record| &record.what) {
            Some(What::Read { order, .. }) => Some(*order),
            _ => None,
        };
        if let (Some(order), Ok(Answer::Order(None))) = (read, &reply)
            && !self.is(Broken::ForgottenOrderIsGone)
        {
            return self.look_up(attempt, Wanted::Order(order));
        }
        let heard = match reply {
            Ok(Answer::Reserved(receipt)) => {
                Heard::Made { order: receipt.order, lines: vec![(product, receipt.sequence)] }
            }
            Ok(Answer::Replayed(order)) => Heard::Replayed(order),
            Ok(Answer::Done { .. }) => Heard::Done,
            Ok(Answer::Order(view)) => Heard::Known(view.is_some()),
            Ok(Answer::OrderOfKey(found)) => Heard::Known(found.is_some()),
            Err(not_done) => self.as_the_client_hears(not_done),
        };
        self.answer(attempt, heard, false);
    }

    fn as_the_client_hears(&self, not_done: NotDone) -> Heard {
        match not_done {
            NotDone::Refused { product, refused } => {
                Heard::Refused { product: self.product(product), refused }
            }
            NotDone::Busy { .. } | NotDone::Unavailable | NotDone::Quarantined => Heard::NotExecuted,
            NotDone::Unknown | NotDone::Internal if self.is(Broken::UnknownIsFailure) => Heard::NotExecuted,
            NotDone::Unknown | NotDone::Internal => Heard::Unknown,
        }
    }

    /// A name nobody else has.
    pub(super) fn stranger(&mut self) -> UserId {
        crate::scenario::user(&mut self.chance)
    }
}
