//! Buyers, and the lead's door. A buyer asks any node that believes to be the lead, repeats with the same key until he has
//! an answer, and sometimes repeats for another product, which no key may be used for twice.

use stockade::actors::order::Item;
use stockade::actors::stock::{Answer, Ask, NotDone, Reply};
use stockade::domain::amount::{Currency, Money, Quantity};
use stockade::domain::id::{OrderId, ProductId, UserId};
use stockade::domain::stock::{Cause, Command, KeyUse, Refusal, Reserve, Settings};

use super::node::{Post, Stage, Waiter};
use super::{Cluster, Happening};
use crate::chance::Chance;
use crate::scenario::{FAULTS_END, ProductPlan};
use crate::story::{Attempt, By, Heard, Said, What};
use crate::time::{MS, Micros, SECOND, shown};
use crate::world::keys::Print;

const PATIENCE: Micros = 7 * SECOND;

pub fn product(chance: &mut Chance) -> ProductPlan {
    let id = ProductId::new(shown(0), chance.wide());
    let settings = Settings {
        price: Money { amount: 1_000, currency: Currency::KRW },
        opens_at: None,
        closes_at: None,
        per_customer_limit: chance.percent(30).then(|| chance.between(2, 6) as u32),
        hold_ms: chance.one_of([1_500, 8_000, 20_000, 600_000]),
    };
    ProductPlan { id, settings, stock: chance.between(5, 60) as u64 }
}

/// What a buyer wants now.
#[derive(Debug, Clone)]
struct Wish {
    product: usize,
    quantity: u32,
    key: Option<[u8; 16]>,
    cancels: Option<OrderId>,
}

/// Who waits for an answer.
#[derive(Debug, Clone, Copy)]
pub enum Sender {
    Buyer(usize),
    /// A payment's walk.
    Walk(u64),
    Nobody,
}

#[derive(Debug)]
pub struct Buyer {
    who: UserId,
    wish: Option<Wish>,
    asking: Option<usize>,
    /// Whoever brings a product to the shop first.
    creates: Option<usize>,
    /// He has heard that there is no more.
    satisfied: bool,
}

impl Cluster {
    pub(super) fn people_come(&mut self) {
        let count = self.products.len() + self.chance.between(12, 30) as usize;
        for number in 0..count {
            let who = crate::scenario::user(&mut self.chance);
            let creates = (number < self.products.len()).then_some(number);
            self.buyers.push(Buyer { who, wish: None, asking: None, creates, satisfied: false });
            let at = self.chance.between(0, 4_000) * MS;
            self.plan(at, Happening::Buyer(number));
        }
    }

    /// After the faults the first buyers buy up what is left, until they hear that there is no more.
    pub(super) fn unsold(&self) -> Option<String> {
        let number = (0..self.products.len()).find(|number| !self.buyers[*number].satisfied)?;
        Some(format!("product {number} may still be sold"))
    }

    pub(super) fn buyer_acts(&mut self, number: usize) {
        let over = self.now >= FAULTS_END;
        let buyer = &self.buyers[number];
        if buyer.asking.is_some() || buyer.satisfied {
            return;
        }
        let closes = over && number < self.products.len();
        if over && !closes && buyer.wish.is_none() {
            return;
        }
        if let Some(product) = buyer.creates {
            let plan = &self.products[product];
            let command = Command::Create { settings: plan.settings.clone(), stock: plan.stock };
            return self.send_attempt(number, What::Command { product, command });
        }
        if self.buyers[number].wish.is_none() {
            let product = if closes { number } else { self.chance.index(self.products.len()) };
            let key = (closes || self.chance.percent(80)).then(|| self.chance.wide().to_be_bytes());
            let quantity = if closes { 1 } else { self.chance.between(1, 2) as u32 };
            // A limit is one person's: whoever buys up is many.
            if closes {
                self.buyers[number].who = crate::scenario::user(&mut self.chance);
            }
            self.buyers[number].wish = Some(Wish { product, quantity, key, cancels: None });
        } else if !over && self.chance.percent(12) && self.products.len() > 1 {
            // The same key for something else.
            let other = self.chance.index(self.products.len());
            if let Some(wish) = self.buyers[number].wish.as_mut().filter(|wish| wish.cancels.is_none()) {
                wish.product = other;
            }
        }
        let Some(wish) = self.buyers[number].wish.clone() else { return };
        let product = self.products[wish.product].id;
        let what = match (wish.cancels, Quantity::of_line(wish.quantity)) {
            (Some(order), _) => {
                let command = Command::Release { order, cause: Cause::Cancelled, by: 1 };
                What::Command { product: wish.product, command }
            }
            (None, Some(quantity)) => {
                let key = wish.key.map(|key| KeyUse { key, body: wish.product as u64 + 1 });
                What::Order { items: vec![Item { product, quantity }], key }
            }
            (None, None) => return,
        };
        self.send_attempt(number, what);
    }

    fn send_attempt(&mut self, buyer: usize, what: What) {
        let who = self.buyers[buyer].who;
        self.buyers[buyer].asking = Some(self.send_for(who, Sender::Buyer(buyer), what));
    }

    /// Somebody asks whoever believes to be the lead.
    fn send_for(&mut self, who: UserId, sender: Sender, what: What) -> usize {
        let leads = |node: &usize| self.nodes[*node].up && self.nodes[*node].stage == Stage::Open;
        let leads: Vec<usize> = (0..self.nodes.len()).filter(leads).collect();
        let node = if leads.is_empty() { 0 } else { leads[self.chance.index(leads.len())] };
        let way = self.chance.between(50, 4_000);
        self.send_to(node, way, Attempt::new(who, what, self.now), sender)
    }

    pub(super) fn send_to(&mut self, node: usize, way: Micros, attempt: Attempt, sender: Sender) -> usize {
        let number = self.attempts.len();
        self.attempts.push(attempt);
        self.senders.push(sender);
        self.note("send", number as u64, 0);
        self.plan(way, Happening::Arrive { attempt: number, node });
        self.plan(PATIENCE, Happening::GiveUp { attempt: number });
        number
    }

    /// Somebody who had his order long ago asks once more: the very same request, or a look at its order. Its ledger may have forgotten it.
    pub(super) fn asks_late(&mut self, attempt: usize, order: OrderId) {
        if self.now >= FAULTS_END {
            return;
        }
        let (who, home) = (self.attempts[attempt].who, self.product_asked(attempt));
        let what = self.attempts[attempt].what.clone();
        let is_keyed = matches!(what, What::Order { key: Some(_), .. });
        let reads = self.chance.percent(30) || !is_keyed;
        self.send_for(who, Sender::Nobody, if reads { What::Read { order, home } } else { what });
    }

    pub(super) fn arrive(&mut self, attempt: usize, node: usize) {
        let product = self.product_asked(attempt);
        let is = &mut self.nodes[node];
        if !is.up || is.stage != Stage::Open {
            return self.answer(attempt, Heard::NotExecuted);
        }
        self.attempts[attempt].process = is.process;
        let (who, what) = (self.attempts[attempt].who, self.attempts[attempt].what.clone());
        let door = Waiter::Door(attempt);
        match what {
            What::Command { command, .. } => self.post(node, product, Ask::Command(command), door, None),
            What::Read { order, .. } => self.post(node, product, Ask::Order(order), door, None),
            What::Order { key: None, .. } => self.order(node, attempt, None),
            What::Order { key: Some(KeyUse { key, .. }), .. } => {
                let print = (who, key);
                match self.nodes[node].keys.claim(print, product) {
                    Err(_) => {
                        self.tally.reach("a key came back for another product");
                        self.answer(attempt, Heard::NotExecuted);
                    }
                    // Its ledger is not simply asked for another order: it may have forgotten the first.
                    Ok(true) => {
                        let ask = Ask::OrderOfKey { buyer: who, key };
                        self.post(node, product, ask, Waiter::Key(attempt), Some(print));
                    }
                    Ok(false) => self.order(node, attempt, Some(print)),
                }
            }
        }
    }

    /// An order goes to its product's owner. The key, if there is one, is claimed.
    pub(super) fn order(&mut self, node: usize, attempt: usize, print: Option<Print>) {
        let (who, product) = (self.attempts[attempt].who, self.product_asked(attempt));
        let What::Order { items, key } = &self.attempts[attempt].what else { return };
        let (Some(item), key) = (items.first().copied(), *key) else { return };
        let now = self.nodes[node].clock.now(self.now);
        let order = OrderId::for_home(now, self.chance.wide(), item.product);
        self.orders.insert(order, attempt);
        let quantity = item.quantity;
        let reserve = Reserve { order, line: 1, buyer: who, quantity, key, expected: None, placing: None };
        self.post(node, product, Ask::Command(Command::Reserve(reserve)), Waiter::Door(attempt), print);
    }

    fn post(&mut self, node: usize, product: usize, ask: Ask, waiter: Waiter, print: Option<Print>) {
        let (Waiter::Door(attempt) | Waiter::Key(attempt)) = waiter else { return };
        self.tokens += 1;
        let post = Post {
            token: self.tokens,
            ask,
            arrived: self.now,
            arrived_ms: self.nodes[node].clock.now(self.now),
            waiter,
            print,
            by: By::Attempt(attempt),
            asked_before: false,
        };
        self.nodes[node].mail[product].push_back(post);
        self.keep(node, product);
    }

    /// The product that an attempt is about.
    pub(super) fn product_asked(&self, attempt: usize) -> usize {
        match &self.attempts[attempt].what {
            What::Order { items, .. } => {
                let id = items.first().map(|item| item.product);
                self.products.iter().position(|plan| Some(plan.id) == id).unwrap_or(0)
            }
            What::Command { product, .. } => *product,
            What::Read { home, .. } => *home,
        }
    }

    pub(super) fn door_hears(&mut self, node: usize, attempt: usize, reply: Reply) {
        let product = self.product_asked(attempt);
        let heard = match reply {
            Ok(Answer::Reserved(receipt)) => {
                Heard::Made { order: receipt.order, lines: vec![(product, receipt.sequence)] }
            }
            Ok(Answer::Replayed(order)) => Heard::Replayed(order),
            Ok(Answer::Done { .. }) => Heard::Done,
            Ok(Answer::Order(None)) => return self.look_up(node, attempt),
            Ok(Answer::Order(Some(_))) => Heard::Known(true),
            Ok(Answer::OrderOfKey(found)) => Heard::Known(found.is_some()),
            Err(NotDone::Refused { refused, .. }) => Heard::Refused { product: Some(product), refused },
            Err(NotDone::Busy { .. } | NotDone::Unavailable | NotDone::Quarantined) => Heard::NotExecuted,
            Err(NotDone::Unknown | NotDone::Internal) => Heard::Unknown,
        };
        self.answer(attempt, heard);
    }

    pub(super) fn answer(&mut self, attempt: usize, heard: Heard) {
        if self.attempts[attempt].said.is_some() {
            return;
        }
        self.note("answer", attempt as u64, 0);
        self.trace.say(self.now, || format!("  answer to {attempt}: {heard:?}"));
        self.attempts[attempt].said = Some(Said { at: self.now, heard, from_view: false });
        if self.now >= FAULTS_END || !self.chance.percent(self.loss_percent) {
            let way = self.chance.between(50, 4_000);
            self.plan(way, Happening::Hear { attempt });
        }
    }

    pub(super) fn hear(&mut self, attempt: usize) {
        if self.attempts[attempt].heard_at.is_none() {
            self.attempts[attempt].heard_at = Some(self.now);
            let heard = self.attempts[attempt].said.as_ref().map(|said| said.heard.clone());
            self.sender_hears(attempt, heard);
        }
    }

    pub(super) fn give_up(&mut self, attempt: usize) {
        if self.attempts[attempt].heard_at.is_none() {
            self.sender_hears(attempt, None);
        }
    }

    /// `None`: no answer came, and nothing is known.
    fn sender_hears(&mut self, attempt: usize, heard: Option<Heard>) {
        match self.senders[attempt] {
            Sender::Buyer(number) => self.buyer_hears(number, attempt, heard),
            Sender::Walk(number) => self.walk_hears_owner(number, attempt, heard),
            Sender::Nobody => {}
        }
    }

    fn buyer_hears(&mut self, number: usize, attempt: usize, heard: Option<Heard>) {
        if self.buyers[number].asking != Some(attempt) {
            return;
        }
        let cancels = self.chance.percent(30);
        let over = self.now >= FAULTS_END;
        let buyer = &mut self.buyers[number];
        buyer.asking = None;
        let mut think = 300;
        match heard {
            Some(Heard::Made { order, .. } | Heard::Replayed(order)) => {
                let product = buyer.wish.as_ref().map_or(0, |wish| wish.product);
                let wish = Wish { product, quantity: 1, key: None, cancels: Some(order) };
                buyer.wish = (cancels && !over).then_some(wish);
                think = if over { 5 } else { 900 };
                if !over && self.chance.percent(if cancels { 10 } else { 50 }) {
                    self.will_pay(attempt, order);
                }
                // A page that was left open, a telephone that finds its network again.
                if !over && self.chance.percent(40) {
                    let much_later = self.chance.between(5, 45) * SECOND;
                    self.plan(much_later, Happening::Late { attempt, order });
                }
            }
            Some(Heard::Refused { refused, .. }) => {
                if over
                    && number < self.products.len()
                    && matches!(refused.why, Refusal::SoldOut { available: 0, .. })
                {
                    buyer.satisfied = true;
                }
                if buyer.creates.is_some() {
                    // It stands there already.
                    buyer.creates = None;
                }
                buyer.wish = None;
                think = if over { 100 } else { 2_000 };
            }
            Some(Heard::Done | Heard::Known(_)) => (buyer.creates, buyer.wish) = (None, None),
            // With the same key, for as long as it takes; nothing was done, so what has none asks again as well. After the faults that
            // would be for ever where the key is at another product.
            Some(Heard::NotExecuted) => {
                if buyer.creates.is_none() && over {
                    buyer.wish = None;
                }
            }
            Some(Heard::Unknown) | None => {
                let keyless = |wish: &Wish| wish.key.is_none() && wish.cancels.is_none();
                if buyer.wish.as_ref().is_some_and(keyless) {
                    buyer.wish = None;
                }
            }
        }
        let pause = self.chance.between(think / 2, think * 2) * MS;
        self.plan(pause, Happening::Buyer(number));
    }
}
