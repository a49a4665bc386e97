//! Who comes to buy: shoppers with wishes and retries, a rush of strangers, and the closers who buy what is left.
//!
//! A shopper repeats a request with the same key until the answer is certain, sometimes twice at once, sometimes
//! with another body under the same key. Whoever hears *yes* pays, cancels, or lets the hold lapse, and some ask again much later.

use stockade::actors::order::Item;
use stockade::domain::amount::Quantity;
use stockade::domain::id::{OrderId, UserId};
use stockade::domain::stock::{Command, KeyUse, Refusal, Restock, SaleState};

use super::{Happening, Sender, World};
use crate::chance::mix;
use crate::scenario::{ENDED_REMEMBERED_MS, FAULTS_END, REST_BY};
use crate::story::{Attempt, Heard, What};
use crate::time::{MS, SECOND, shown, true_time};

/// A wish, and how far it has come.
#[derive(Debug)]
struct Wish {
    items: Vec<Item>,
    key: Option<[u8; 16]>,
    tries: u32,
    /// The request whose answer is waited for.
    waiting_for: Option<usize>,
    won: bool,
    /// The last answer was *unknown*: many change their mind just then.
    unsure: bool,
}

#[derive(Debug)]
pub struct Shopper {
    user: UserId,
    wish: Option<Wish>,
    wishes: u32,
    /// One wish, and much patience.
    stranger: bool,
}

/// Buys one product until nothing is left.
#[derive(Debug)]
pub struct Closer {
    product: usize,
    user: UserId,
    waiting_for: Option<usize>,
    key: [u8; 16],
    quantity: Quantity,
    pub satisfied: bool,
}

/// What was asked for, in a few bits.
fn body_of(items: &[Item]) -> u64 {
    items.iter().fold(items.len() as u64, |sum, item| {
        let id = u128::from_be_bytes(*item.product.as_bytes());
        mix(sum ^ id as u64 ^ (id >> 64) as u64).wrapping_add(u64::from(item.quantity.get()))
    })
}

impl World {
    /// The products are created, the shoppers are on their way, the administrators have their day planned.
    pub(super) fn open_the_doors(&mut self) {
        for product in 0..self.scenario.products.len() {
            let plan = self.scenario.products[product].clone();
            let created = Command::Create { settings: plan.settings.clone(), stock: plan.stock };
            self.administer(self.now + 5 * MS, product, created);
            self.plan_administrators(product);
            let (user, key) = (self.stranger(), self.chance.wide().to_be_bytes());
            let Some(quantity) = Quantity::of_line(1) else { continue };
            self.closers.push(Closer { product, user, waiting_for: None, key, quantity, satisfied: false });
            self.plan_at(FAULTS_END + 100 * MS, Happening::Closer(product));
        }
        for number in 0..self.scenario.shoppers {
            let user = self.stranger();
            self.shoppers.push(Shopper { user, wish: None, wishes: 0, stranger: false });
            let first = self.chance.between(0, 12_000) * MS;
            self.plan(first, Happening::Shopper(number));
        }
    }

    fn plan_administrators(&mut self, product: usize) {
        for _ in 0..self.chance.between(2, 6) {
            let at = self.chance.between(3, 50) * SECOND;
            let mut settings = self.scenario.products[product].settings.clone();
            match self.chance.below(10) {
                0..6 => {
                    let key = self.chance.wide().to_be_bytes();
                    let delta = if self.chance.percent(75) {
                        self.chance.between(1, 9)
                    } else {
                        -self.chance.between(1, 9)
                    };
                    let key = Some(KeyUse { key, body: delta as u64 });
                    let restock = Restock { delta, reason: "counted".into(), key };
                    self.administer(at, product, Command::Restock(restock));
                }
                6..8 => {
                    self.administer(at, product, Command::Pause);
                    let open_again = at + self.chance.between(200, 4_000) * MS;
                    self.administer(open_again, product, Command::Resume);
                }
                8 => {
                    settings.hold_ms = self.chance.one_of([700, 2_000, 5_000, 30_000]);
                    settings.price.amount += 100;
                    settings.per_customer_limit = self.chance.percent(30).then_some(3);
                    self.administer(at, product, Command::Configure(settings));
                }
                _ => {
                    let before = shown(at).plus(-ENDED_REMEMBERED_MS);
                    let forget = Command::Forget { unkeyed_before: before, keyed_before: before };
                    self.administer(at, product, forget);
                }
            }
        }
        // Something is taken off sale for good, never what the crowd is after.
        if product > 0 && self.chance.percent(12) {
            let at = self.chance.between(20, 50) * SECOND;
            self.administer(at, product, Command::Archive);
        }
        self.administer(FAULTS_END + 50 * MS, product, Command::Resume);
    }

    pub(super) fn rush(&mut self) {
        let Some(rush) = self.scenario.rush else { return };
        self.say(|| format!("a rush of {} strangers", rush.buyers));
        self.journal.next_stall = rush.stall;
        for _ in 0..rush.buyers {
            let number = self.shoppers.len();
            let user = self.stranger();
            self.shoppers.push(Shopper { user, wish: None, wishes: 0, stranger: true });
            let soon = self.chance.between(10, 16) * MS;
            self.plan(soon, Happening::Shopper(number));
        }
    }

    // --- shoppers -------------------------------------------------------------------------------------------------

    fn wish(&mut self, stranger: bool) -> Option<Wish> {
        let count = self.scenario.products.len();
        let several = !stranger && self.chance.percent(30);
        let wanted = if several { self.chance.between(2, 3).min(count as i64) as usize } else { 1 };
        // Half of them want the first product; a rush wants nothing else.
        let first = if stranger || self.chance.percent(50) { 0 } else { self.chance.index(count) };
        let mut items = Vec::with_capacity(wanted);
        for n in 0..wanted {
            let units = if stranger { 1 } else { self.chance.one_of([1, 1, 1, 2, 3]) };
            let product = self.scenario.products[(first + n) % count].id;
            items.push(Item { product, quantity: Quantity::of_line(units)? });
        }
        let key = (stranger || self.chance.percent(92)).then(|| self.chance.wide().to_be_bytes());
        Some(Wish { items, key, tries: 0, waiting_for: None, won: false, unsure: false })
    }

    pub(super) fn shopper_acts(&mut self, number: usize) {
        let open = self.doors_are_open();
        let Some(shopper) = self.shoppers.get(number) else { return };
        let (stranger, idle) = (shopper.stranger, shopper.wish.is_none());
        if idle {
            if !open || (stranger && shopper.wishes > 0) {
                return;
            }
            let wish = self.wish(stranger);
            let shopper = &mut self.shoppers[number];
            shopper.wish = wish;
            shopper.wishes += 1;
        }
        if self.shoppers[number].wish.as_ref().is_some_and(|wish| wish.waiting_for.is_some()) {
            return;
        }
        self.ask_for_it(number);
        if self.chance.percent(4) {
            // An impatient finger, or a proxy that tries again by itself.
            self.ask_for_it(number);
        }
    }

    fn ask_for_it(&mut self, number: usize) {
        let count = self.scenario.products.len();
        let (other, units) = (self.chance.index(count), self.chance.between(1, 3) as u32);
        let unsure = self.shoppers[number].wish.as_ref().is_some_and(|wish| wish.unsure);
        let other_body = self.chance.percent(if unsure { 35 } else { 6 });
        let shopper = &mut self.shoppers[number];
        let (user, intent, stranger) = (shopper.user, shopper.wishes, shopper.stranger);
        let Some(wish) = shopper.wish.as_mut() else { return };
        wish.tries += 1;
        let mut items = wish.items.clone();
        if other_body && wish.key.is_some() && wish.tries > 1 {
            let product = self.scenario.products[other].id;
            items = Quantity::of_line(units).map_or(items, |quantity| vec![Item { product, quantity }]);
        }
        let key = wish.key.map(|key| KeyUse { key, body: body_of(&items) });
        let what = What::Order { items, key };
        let attempt = Attempt::new(user, what, self.now);
        let patience = if stranger { 6_000 * MS } else { self.chance.between(200, 2_500) * MS };
        let sent = self.send(Sender::Shopper(number, intent), attempt, patience);
        if let Some(wish) = self.shoppers[number].wish.as_mut() {
            wish.waiting_for = Some(sent);
        }
    }

    pub(super) fn shopper_hears(&mut self, number: usize, intent: u32, attempt: usize, heard: Option<Heard>) {
        let Some(shopper) = self.shoppers.get_mut(number) else { return };
        if shopper.wishes != intent {
            return;
        }
        let Some(wish) = shopper.wish.as_mut() else { return };
        if let Some(Heard::Made { order, .. } | Heard::Replayed(order)) = heard
            && !std::mem::replace(&mut wish.won, true)
        {
            return self.won(number, attempt, order);
        }
        if wish.waiting_for != Some(attempt) {
            return;
        }
        wish.waiting_for = None;
        if wish.won {
            return self.next_wish(number);
        }
        let (tries, keyed) = (wish.tries, wish.key.is_some());
        wish.unsure = heard == Some(Heard::Unknown);
        let at_once = self.chance.percent(if wish.unsure { 50 } else { 15 });
        let again = if at_once { MS } else { self.chance.between(20, 900) * MS };
        let once_more = match heard.as_ref().map(|heard| (heard, heard.refusal())) {
            // Nothing is known, or nothing happened: the same key will hear the truth.
            None | Some((Heard::NotExecuted | Heard::Unknown, _)) => keyed || self.chance.percent(50),
            Some((_, Some(Refusal::KeyInProgress))) => true,
            Some((_, Some(Refusal::KeyReused { .. }))) => tries < 6,
            Some((_, Some(Refusal::LimitExceeded { .. }))) => self.chance.percent(10),
            Some(_) => self.chance.percent(60),
        };
        if once_more && tries < 40 {
            return self.plan(again, Happening::Shopper(number));
        }
        self.next_wish(number);
    }

    fn next_wish(&mut self, number: usize) {
        let think = self.chance.between(0, 2 * self.scenario.think);
        self.shoppers[number].wish = None;
        self.plan(think, Happening::Shopper(number));
    }

    fn won(&mut self, number: usize, attempt: usize, order: OrderId) {
        let who = self.shoppers[number].user;
        let mut lines = self.lines_of(attempt);
        lines.sort_unstable();
        let idle = self.shoppers[number].stranger && self.scenario.rush.is_some_and(|rush| rush.idle);
        match self.chance.below(100) {
            _ if idle => {}
            0..48 => self.pay(who, order, lines.clone(), false),
            48..70 => self.cancel(who, order, lines.clone()),
            70..73 => {
                self.pay(who, order, lines.clone(), false);
                self.cancel(who, order, lines.clone());
            }
            _ => {}
        }
        if self.chance.percent(25)
            && let Some((home, _)) = lines.first()
        {
            let what = What::Read { order, home: *home };
            let attempt = Attempt::new(who, what, self.now);
            self.send(Sender::None, attempt, 0);
        }
        // A page that was left open, a telephone that finds its network again.
        if self.chance.percent(25) {
            let much_later = self.chance.between(5, 45) * SECOND;
            self.plan(much_later, Happening::Late { attempt, order });
        }
        // Some do not trust a yes and press the button again.
        let again =
            self.chance.percent(15) && self.shoppers[number].wish.as_ref().is_some_and(|w| w.key.is_some());
        if again && !self.shoppers[number].stranger {
            self.ask_for_it(number);
        } else {
            self.next_wish(number);
        }
    }

    /// The very same request again, or a look at its order: it may have been forgotten by its ledger.
    pub(super) fn asks_late(&mut self, attempt: usize, order: OrderId) {
        let Some(record) = self.attempts.get(attempt) else { return };
        let (who, what) = (record.who, record.what.clone());
        let is_keyed = matches!(what, What::Order { key: Some(_), .. });
        let mut lines = self.lines_of(attempt);
        lines.sort_unstable();
        let Some((home, _)) = lines.first().copied() else { return };
        if self.now >= FAULTS_END {
            return;
        }
        let reads = self.chance.percent(25) || !is_keyed;
        let what = if reads { What::Read { order, home } } else { what };
        let attempt = Attempt::new(who, what, self.now);
        self.send(Sender::None, attempt, 0);
    }

    /// The products and units an attempt asked for, in order of product.
    fn lines_of(&self, attempt: usize) -> Vec<(usize, Quantity)> {
        let Some(What::Order { items, .. }) = self.attempts.get(attempt).map(|record| &record.what) else {
            return Vec::new();
        };
        items.iter().filter_map(|item| Some((self.product(item.product)?, item.quantity))).collect()
    }

    pub(super) fn shoppers_wait(&self) -> usize {
        self.shoppers.iter().filter(|shopper| shopper.wish.is_some()).count()
    }

    // --- closers --------------------------------------------------------------------------------------------------

    /// What the journal says is left, and whether it may be sold.
    pub(super) fn left(&self, product: usize) -> Option<(u64, Option<u32>, SaleState)> {
        let view = self.node.owners[product].view.as_ref()?;
        let state = view.sale_state(self.clock());
        Some((view.counts.available(), view.settings.per_customer_limit, state))
    }

    pub(super) fn closer_acts(&mut self, number: usize) {
        let Some(closer) = self.closers.get(number) else { return };
        if closer.waiting_for.is_some() {
            return;
        }
        let product = closer.product;
        let wanted = match self.left(product) {
            // Nobody shows what is left: ask, and the owner will be read back.
            None => 1,
            Some((_, _, SaleState::Open | SaleState::Paused)) if self.now > REST_BY - SECOND => 0,
            Some((left, limit, SaleState::Open | SaleState::Paused)) => {
                left.min(limit.unwrap_or(1_000).into()).min(1_000)
            }
            // Nothing is sold any more, or not yet.
            Some((_, _, SaleState::NotOpen { opens_at })) => {
                let wait = true_time(opens_at) - self.now;
                return self.plan(wait.max(300 * MS), Happening::Closer(number));
            }
            Some((_, _, SaleState::Closed { .. } | SaleState::Archived)) => 0,
        };
        let Some(quantity) = u32::try_from(wanted).ok().and_then(Quantity::of_line) else {
            self.closers[number].satisfied = true;
            return self.plan(300 * MS, Happening::Closer(number));
        };
        let closer = &mut self.closers[number];
        closer.satisfied = false;
        closer.quantity = quantity;
        let items = vec![Item { product: self.scenario.products[product].id, quantity }];
        let key = Some(KeyUse { key: closer.key, body: body_of(&items) });
        let (who, what) = (closer.user, What::Order { items, key });
        let attempt = Attempt::new(who, what, self.now);
        let sent = self.send(Sender::Closer(number), attempt, SECOND);
        self.closers[number].waiting_for = Some(sent);
    }

    pub(super) fn closer_hears(&mut self, number: usize, attempt: usize, heard: Option<Heard>) {
        let (stranger, key) = (self.stranger(), self.chance.wide().to_be_bytes());
        let Some(closer) = self.closers.get_mut(number) else { return };
        if closer.waiting_for != Some(attempt) {
            return;
        }
        closer.waiting_for = None;
        let (product, quantity, who) = (closer.product, closer.quantity, closer.user);
        if let Some(Heard::Made { order, .. } | Heard::Replayed(order)) = heard {
            closer.user = stranger;
            closer.key = key;
            self.pay(who, order, vec![(product, quantity)], true);
        } else if let Some(why) = heard.as_ref().and_then(Heard::refusal) {
            closer.key = key;
            // An order of his stands whose answer got lost, and he has asked for something else since.
            if matches!(why, Refusal::LimitExceeded { .. }) {
                closer.user = stranger;
            }
        }
        self.plan(20 * MS, Happening::Closer(number));
    }
}
