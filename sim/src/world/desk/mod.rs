//! The desk where payments are made: rows that survive, walks that do not, and the product's own [`Saga`] in between.
//!
//! A walk claims its row for a while, by version. One that was paused beyond its claim wakes up beside the one that took
//! over, and must not be able to do harm. Rows are moved by compare-and-set; a write in hand at a crash is in or not.

mod refund;
mod walk;

use std::collections::{BTreeMap, BTreeSet};

use stockade::domain::amount::{Money, Quantity};
use stockade::domain::id::{OrderId, PaymentId, RefundId, UserId};
use stockade::domain::payment::{Call, Do, Limits, Move, Payment, PaymentState, ProviderSaid, Saga};
use stockade::domain::stock::{Attempt as Number, Back, Event, Held, Millis};

use super::bank::Bank;
use super::{Happening, World};
use crate::check::{Verdict, i5_money};
use crate::story::Chapter;
use crate::time::{MS, Micros, SECOND};

const CLAIM: Micros = 3 * SECOND;
/// The longest a call of the bank may take.
const CALL_WITHIN: Micros = 1_500 * MS;
const LOOK_EVERY: Micros = 200 * MS;
const LIMITS: Limits = Limits { attempts_max: 2, charge_again_ms: 1_500, give_up_ms: 8_000 };

/// A payment's row, and what its walk reads from the order's.
#[derive(Debug, Clone)]
struct Row {
    payment: Payment,
    lines: Vec<(usize, Quantity)>,
    deadline: Millis,
    /// When somebody takes it up, if it is open.
    due: Option<Micros>,
    /// The bank is sure to say yes.
    sure: bool,
    /// A person took another amount than the price.
    accepted: bool,
}

/// A refund's row.
#[derive(Debug, Clone)]
struct Owed {
    payment: PaymentId,
    amount: i64,
    /// What is left to do with the units, line by line.
    units: Vec<(usize, Quantity)>,
    back: Back,
    waiting_for: Option<usize>,
    tries: u64,
    done: bool,
}

/// What a process remembers of a payment it is at.
#[derive(Debug)]
struct Walk {
    payment: PaymentId,
    saga: Saga,
    version: u64,
    until: Micros,
    todo: Do,
    waiting_for: Option<usize>,
}

/// Rows and bank outlive a crash; walks do not.
#[derive(Debug, Default)]
pub struct Desk {
    rows: BTreeMap<PaymentId, Row>,
    refunds: BTreeMap<RefundId, Owed>,
    walks: BTreeMap<u64, Walk>,
    walk_numbers: u64,
    pub bank: Bank,
    /// What the bank has thought of since, and will tell.
    untold: BTreeSet<PaymentId>,
}

/// What happens at the desk.
#[derive(Debug, Clone)]
pub enum AtDesk {
    /// A walk does the next thing.
    Step {
        walk: u64,
    },
    /// A row gets onto the disk.
    Begun {
        payment: PaymentId,
    },
    Written {
        walk: u64,
        step: Move,
    },
    /// A call reaches the bank.
    Call {
        walk: u64,
        payment: PaymentId,
        call: Call,
        answered: bool,
    },
    Says {
        walk: u64,
        said: ProviderSaid,
    },
    /// The bank has a second thought, and says so or not.
    SecondThought {
        payment: PaymentId,
    },
    /// A hint, a clerk: somebody looks at this payment.
    TakeUp {
        payment: PaymentId,
    },
    /// A person has looked at an amount that did not fit.
    Person {
        payment: PaymentId,
        takes: bool,
    },
    /// A buyer of a paid order wants his money back.
    Return {
        payment: PaymentId,
    },
    Refund {
        refund: RefundId,
    },
    /// Somebody looks for what is due.
    Look {
        process: u64,
    },
}

impl World {
    fn at_desk(&mut self, after: Micros, what: AtDesk) {
        self.plan(after, Happening::Desk(what));
    }

    pub(super) fn desk_opens(&mut self) {
        let process = self.node.number;
        // Nobody else can be alive: whatever is open is due.
        for row in self.desk.rows.values_mut().filter(|row| row.due.is_some()) {
            row.due = Some(self.now);
            row.payment.version += 1;
        }
        self.at_desk(LOOK_EVERY, AtDesk::Look { process });
    }

    pub(super) fn desk_crashes(&mut self) {
        self.desk.walks.clear();
    }

    pub(super) fn desk_is_busy(&self) -> Option<String> {
        let open = |row: &&Row| {
            let state = row.payment.state;
            state.is_open() || state == PaymentState::Review || row.due.is_some()
        };
        if let Some(row) = self.desk.rows.values().find(open) {
            return Some(format!("a payment is open: {:?}", row.payment));
        }
        if let Some(payment) = self.desk.untold.first() {
            return Some(format!("the bank has still to tell of {payment}"));
        }
        let refund = self.desk.refunds.values().find(|refund| !refund.done)?;
        Some(format!("a refund is open: {refund:?}"))
    }

    // --- beginning ------------------------------------------------------------------------------------------------------

    /// A buyer pays: the row first.
    pub(super) fn pays(
        &mut self,
        who: UserId,
        order: OrderId,
        lines: Vec<(usize, Quantity)>,
        sure: bool,
        after: Micros,
    ) {
        let Some((amount, deadline)) = self.frozen(order, &lines) else { return };
        let now = self.clock();
        let payment = Payment {
            id: PaymentId::of(order, Number::FIRST),
            order,
            attempt: Number::FIRST,
            buyer: who,
            amount,
            method: None,
            state: PaymentState::Started,
            reason: None,
            provider_ref: None,
            captured: 0,
            captured_in: amount.currency,
            refunded: 0,
            key: None,
            told_open: false,
            tries: 0,
            due_at: None,
            version: 0,
            created_at: now,
            updated_at: now,
        };
        self.begin_payment(Row { payment, lines, deadline, due: None, sure, accepted: false }, after);
    }

    fn pays_again(&mut self, declined: Row, attempt: Number, after: Micros) {
        let payment = Payment {
            id: PaymentId::of(declined.payment.order, attempt),
            attempt,
            state: PaymentState::Started,
            version: 0,
            ..declined.payment
        };
        self.begin_payment(Row { payment, ..declined }, after);
    }

    /// The row first. One attempt has one row.
    fn begin_payment(&mut self, row: Row, after: Micros) {
        let payment = row.payment.id;
        self.desk.rows.entry(payment).or_insert(row);
        self.at_desk(after, AtDesk::Begun { payment });
    }

    /// What the order costs, as its holds froze it, and until when they stand.
    fn frozen(&self, order: OrderId, lines: &[(usize, Quantity)]) -> Option<(Money, Millis)> {
        let mut total: Option<Money> = None;
        let mut deadline = Millis(0);
        for (product, _) in lines {
            let held = self.held(*product, order)?;
            let line = held.unit_price.times(held.quantity)?;
            total = Some(total.map_or(Some(line), |sum| sum.plus(line))?);
            deadline = held.deadline.max(deadline);
        }
        Some((total?, deadline))
    }

    /// The hold of an order at a product, as it began.
    pub(super) fn held(&self, product: usize, order: OrderId) -> Option<&Held> {
        self.journal.chapters[product].held(order)
    }

    fn begun(&mut self, id: PaymentId) {
        let up = self.node.up;
        let now = self.clock_or_wall();
        let Some(row) = self.desk.rows.get_mut(&id) else { return };
        if !up {
            // The request met nobody: there never was such a row.
            if row.payment.version == 0 {
                self.desk.rows.remove(&id);
            }
            return;
        }
        if row.payment.version > 0 {
            return;
        }
        row.payment.version = 1;
        row.payment.created_at = now;
        self.start_walk(id, true);
    }

    fn clock_or_wall(&self) -> Millis {
        if self.node.up { self.clock() } else { crate::time::shown(self.now) }
    }

    /// One clerk or two look at an amount that did not fit, and each decides for himself.
    pub(super) fn clerks_look(&mut self, id: PaymentId) {
        for _ in 0..self.chance.between(1, 2) {
            let (later, takes) = (self.chance.between(100, 900) * MS, self.chance.percent(50));
            self.at_desk(later, AtDesk::Person { payment: id, takes });
        }
    }

    /// A person takes it as it is, or claims it and gives it back.
    fn person(&mut self, id: PaymentId, takes: bool) {
        let (up, now) = (self.node.up, self.clock_or_wall());
        let Some(row) = self.desk.rows.get_mut(&id).filter(|row| row.payment.state == PaymentState::Review)
        else {
            return;
        };
        if !up {
            return self.at_desk(SECOND, AtDesk::Person { payment: id, takes });
        }
        // Another clerk is giving it back at this moment.
        if row.due.is_some() {
            return self.tally.reach("two clerks decided about one payment");
        }
        self.tally.reach("an amount did not fit and a person decided");
        row.payment.version += 1;
        if !takes {
            return self.start_giving_back(id);
        }
        let Ok(payment) = row.payment.moved(&Move::to(PaymentState::Captured), now) else { return };
        (row.payment, row.accepted) = (payment, true);
        self.start_walk(id, false);
    }

    // --- the rest -------------------------------------------------------------------------------------------------------

    fn second_thought(&mut self, id: PaymentId) {
        let moved = self.desk.bank.thinks_again(id, &mut self.chance);
        // Pins belong to the attempt that is open; what moves for another has come too late, and goes back.
        if moved
            && let Some(row) = self.desk.rows.get(&id).filter(|row| row.payment.state.is_open())
            && row.lines.iter().all(|(product, _)| {
                matches!(self.last_word(*product, row.payment.order), Some(Event::Pinned(_)))
            })
        {
            self.tally.reach("a bank decided while every pin stood");
        }
        // It says so now and then, more than once.
        for _ in 0..self.chance.below(3) {
            let later = self.chance.between(1, 1_500) * MS;
            self.at_desk(later, AtDesk::TakeUp { payment: id });
        }
        if moved {
            // In the end it always says so.
            self.desk.untold.insert(id);
            self.at_desk(3 * SECOND, AtDesk::TakeUp { payment: id });
        }
    }

    /// What a product's history says last of an order.
    fn last_word(&self, product: usize, order: OrderId) -> Option<&Event> {
        self.journal.chapters[product].last_word(order)
    }

    pub(super) fn desk_happens(&mut self, what: AtDesk) {
        match what {
            AtDesk::Step { walk } => {
                if self.node.up {
                    self.walk_on(walk);
                }
            }
            AtDesk::Begun { payment } => self.begun(payment),
            AtDesk::Written { walk, step } => self.written(walk, step),
            AtDesk::Call { walk, payment, call, answered } => self.bank_hears(walk, payment, call, answered),
            AtDesk::Says { walk, said } => self.says(walk, said),
            AtDesk::SecondThought { payment } => self.second_thought(payment),
            // Nobody is there to hear it: it is said again.
            AtDesk::TakeUp { .. } if !self.node.up => self.at_desk(SECOND, what),
            AtDesk::TakeUp { payment } => self.take_up(payment),
            AtDesk::Person { payment, takes } => self.person(payment, takes),
            AtDesk::Return { payment } => self.comes_back(payment),
            AtDesk::Refund { refund } => self.refund(refund),
            AtDesk::Look { process } => self.look_for_due(process),
        }
    }

    /// I5, at rest: what the bank has kept of an order is the price of what is sold of it, unless a person took another amount.
    pub(super) fn money_adds_up(&self, chapters: &[Chapter]) -> Verdict {
        let mut kept: BTreeMap<OrderId, i64> = BTreeMap::new();
        for (id, row) in &self.desk.rows {
            let (captured, refunded) = (self.desk.bank.captured(*id), self.desk.bank.refunded(*id));
            let of_order = kept.entry(row.payment.order).or_insert(0);
            *of_order += captured - refunded;
            if row.accepted && row.payment.state == PaymentState::Paid && refunded < captured {
                *of_order -= captured - row.payment.amount.amount;
            }
        }
        i5_money(&kept, chapters)
    }
}
