//! An owner and what waits for it: its mailbox in two classes, and who hears which answer.
//!
//! Always true: what came first in its class is taken first; a question that found the mailbox full was never decided.

use std::collections::VecDeque;
use std::sync::Arc;

use stockade::actors::stock::{Ask, NotDone, Outcome, Protocol, View};
use stockade::domain::id::OrderId;
use stockade::domain::stock::{Command, Millis};

use super::again::Before;
use super::keys::Print;
use super::{Happening, World};
use crate::broken::Broken;
use crate::story::{By, Fact};
use crate::time::{MS, Micros};

/// Who inside the process hears an answer.
#[derive(Debug, Clone, Copy)]
pub enum Inside {
    Placement(u64),
    /// The home's word on an order, for the owner of another line.
    Home {
        asker: usize,
        order: OrderId,
    },
    /// The ledger's word on a key that came back, of the product that it was used for.
    Key {
        attempt: usize,
        product: usize,
        before: Before,
    },
    /// Its word on the order that this key has made.
    Stands {
        attempt: usize,
        order: OrderId,
    },
    Nobody,
}

/// Who waits for an answer, and the key that is claimed meanwhile.
#[derive(Debug)]
pub enum Waiter {
    Door(usize),
    Inside(Inside),
}

#[derive(Debug)]
pub struct Waiting {
    pub product: usize,
    pub waiter: Waiter,
    pub claim: Option<Print>,
    pub by: By,
    pub(super) arrival: u64,
    pub(super) arrived: Micros,
    pub(super) arrived_ms: Millis,
    pub(super) reserve: bool,
    pub(super) pin: Option<OrderId>,
    /// The protocol has it, and has said nothing yet.
    pub decided: bool,
    pub(super) withheld: bool,
}

/// A question in the mailbox.
#[derive(Debug)]
pub(super) struct Post {
    pub(super) token: u64,
    pub(super) ask: Ask,
    pub(super) arrived_ms: Millis,
    pub(super) until: Millis,
}

#[derive(Debug)]
pub enum State {
    Cold,
    Loading,
    Up(Box<Protocol<u64>>),
}

/// One product's owner, or the place where it would be.
#[derive(Debug)]
pub struct Owner {
    /// No two loads share it.
    pub number: u64,
    pub state: State,
    pub(super) urgent: VecDeque<Post>,
    pub(super) reserves: VecDeque<Post>,
    pub view: Option<Arc<View>>,
    pub appended: Option<Outcome>,
    pub(super) facts: Vec<Fact>,
    pub(super) woken: bool,
    pub(super) timer: Option<Micros>,
    /// It panics after this many outputs.
    pub fuse: Option<u32>,
    /// Lapses that were due before this have an excuse.
    pub excuse: Millis,
    pub waited: bool,
    pub unloaded: bool,
}

impl Owner {
    pub fn cold(number: u64) -> Owner {
        Owner {
            number,
            state: State::Cold,
            urgent: VecDeque::new(),
            reserves: VecDeque::new(),
            view: None,
            appended: None,
            facts: Vec::new(),
            woken: false,
            timer: None,
            fuse: None,
            excuse: Millis(i64::MIN),
            waited: false,
            unloaded: false,
        }
    }

    pub fn protocol(&self) -> Option<&Protocol<u64>> {
        match &self.state {
            State::Up(protocol) => Some(protocol),
            State::Cold | State::Loading => None,
        }
    }

    pub(super) fn protocol_mut(&mut self) -> Option<&mut Protocol<u64>> {
        match &mut self.state {
            State::Up(protocol) => Some(protocol),
            State::Cold | State::Loading => None,
        }
    }

    /// How many questions wait for a decision.
    pub fn undecided(&self) -> usize {
        self.urgent.len() + self.reserves.len()
    }

    pub(super) fn oldest(&self) -> Option<Millis> {
        let fronts = [self.urgent.front(), self.reserves.front()];
        fronts.into_iter().flatten().map(|post| post.arrived_ms).min()
    }

    /// Forgets everything that the protocol knew; the mailbox stays.
    pub fn drop_state(&mut self, number: u64) {
        let (urgent, reserves) = (std::mem::take(&mut self.urgent), std::mem::take(&mut self.reserves));
        *self = Owner { urgent, reserves, ..Owner::cold(number) };
    }
}

impl World {
    /// Puts a question into the mailbox of a product's owner, or answers *busy*.
    pub(super) fn post(&mut self, product: usize, ask: Ask, waiter: Waiter, claim: Option<Print>, by: By) {
        let (reserve, pin) = match &ask {
            Ask::Command(Command::Pin { order, .. }) => (false, Some(*order)),
            Ask::Command(command) => (command.is_reserve(), None),
            Ask::Order(_) | Ask::OrderOfKey { .. } => (false, None),
        };
        self.node.tokens += 1;
        let (token, arrived_ms) = (self.node.tokens, self.stamp(reserve));
        let waiting = Waiting {
            product,
            waiter,
            claim,
            by,
            arrival: token,
            arrived: self.now,
            arrived_ms,
            reserve,
            pin,
            decided: false,
            withheld: false,
        };
        let owner = &self.node.owners[product];
        let patient = matches!(by, By::Attempt(_));
        let is_full = owner.undecided() >= self.scenario.mailbox_max
            || (reserve && owner.reserves.len() >= self.scenario.reserves_max());
        if patient && is_full && !self.is(Broken::MailboxWithoutEnd) {
            self.tally.reach("a mailbox was full");
            return self.deliver(waiting, Err(NotDone::Busy { retry_after_ms: 100 }));
        }
        let until = if patient && self.chance.percent(3) { 1 } else { 2_000 };
        self.node.waiting.insert(token, waiting);
        let until = arrived_ms.max(self.clock()).plus(until);
        let post = Post { token, ask, arrived_ms, until };
        let owner = &mut self.node.owners[product];
        if reserve {
            owner.reserves.push_back(post)
        } else {
            owner.urgent.push_back(post)
        }
        if patient {
            let most = &mut self.mailboxes[product];
            most.questions = owner.undecided().max(most.questions);
            most.reserves = owner.reserves.len().max(most.reserves);
        }
        match owner.state {
            State::Cold => self.load(product),
            State::Loading => {}
            State::Up(_) => self.wake(product),
        }
    }

    /// When a question came. By that time the sale is open to one that begins something, or is not.
    pub(super) fn stamp(&self, reserve: bool) -> Millis {
        if reserve && self.is(Broken::OpenByWallClock) {
            return Millis(self.wall.read_us(self.now).div_euclid(MS));
        }
        self.clock()
    }

    pub(super) fn wake(&mut self, product: usize) {
        let owner = &mut self.node.owners[product];
        if std::mem::replace(&mut owner.woken, true) {
            return;
        }
        let number = owner.number;
        // Usually at once; sometimes the thread is busy elsewhere.
        let busy = if self.chance.percent(1) { self.chance.between(1, 30) * MS } else { 0 };
        let soon = self.chance.between(1, 120) + busy;
        self.plan(soon, Happening::Turn { product, owner: number });
    }

    pub(super) fn timer(&mut self, product: usize, owner: u64) {
        let slot = &mut self.node.owners[product];
        if slot.number == owner {
            slot.timer = None;
            self.wake(product);
        }
    }
}
