//! The desk where payments are made: rows that survive, walks that do not, and the product's own [`Saga`] in between.
//!
//! A walk claims its row for a while, by version. One that was paused beyond its claim wakes up beside the one that took
//! over, and must not be able to do harm. Rows are moved by compare-and-set; a write in hand at a crash is in or not.

use std::collections::BTreeMap;

use stockade::domain::amount::{Money, Quantity};
use stockade::domain::id::{OrderId, PaymentId, RefundId, UserId};
use stockade::domain::payment::{
    Call, Cause, Do, Heard as Told, Limits, Line, Move, OwnerSaid, Payment, PaymentState, ProviderSaid, Saga,
};
use stockade::domain::stock::{Attempt as Number, Back, CameBack, Command, Event, Millis};

use super::bank::Bank;
use super::{Happening, Sender, World};
use crate::broken::Broken;
use crate::scenario::FAULTS_END;
use crate::story::{Attempt, Heard, What};
use crate::time::{MS, Micros, SECOND};

const CLAIM: Micros = 3 * SECOND;
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
        for row in self.desk.rows.values_mut().filter(|row| row.payment.state.is_open()) {
            row.due = Some(self.now);
            row.payment.version += 1;
        }
        self.at_desk(LOOK_EVERY, AtDesk::Look { process });
    }

    pub(super) fn desk_crashes(&mut self) {
        self.desk.walks.clear();
    }

    pub(super) fn desk_is_busy(&self) -> Option<String> {
        let open = |row: &&Row| row.payment.state.is_open() || row.payment.state == PaymentState::Review;
        if let Some(row) = self.desk.rows.values().find(open) {
            return Some(format!("a payment is open: {:?}", row.payment));
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
        let Some(first) = self.frozen(order, &lines) else { return };
        let (amount, deadline) = first;
        self.begin_payment(who, order, Number::FIRST, lines, amount, deadline, sure, after);
    }

    #[allow(clippy::too_many_arguments)]
    fn begin_payment(
        &mut self,
        who: UserId,
        order: OrderId,
        attempt: Number,
        lines: Vec<(usize, Quantity)>,
        amount: Money,
        deadline: Millis,
        sure: bool,
        after: Micros,
    ) {
        let id = PaymentId::of(order, attempt);
        let now = self.clock();
        let payment = Payment {
            id,
            order,
            attempt,
            buyer: who,
            amount,
            method: None,
            state: PaymentState::Started,
            reason: None,
            provider_ref: None,
            captured: 0,
            refunded: 0,
            key: None,
            tries: 0,
            due_at: None,
            version: 0,
            created_at: now,
            updated_at: now,
        };
        let row = Row { payment, lines, deadline, due: None, sure };
        self.desk.rows.entry(id).or_insert(row);
        self.at_desk(after, AtDesk::Begun { payment: id });
    }

    /// What the order costs, as its holds froze it, and until when they stand.
    fn frozen(&self, order: OrderId, lines: &[(usize, Quantity)]) -> Option<(Money, Millis)> {
        let mut total: Option<Money> = None;
        let mut deadline = Millis(0);
        for (product, _) in lines {
            let events = &self.journal.chapters[*product].events;
            let held = events.iter().rev().find_map(|event| match event {
                Event::Held(held) if held.order == order => Some(held),
                _ => None,
            })?;
            let line = held.unit_price.times(held.quantity)?;
            total = Some(total.map_or(Some(line), |sum| sum.plus(line))?);
            deadline = held.deadline.max(deadline);
        }
        Some((total?, deadline))
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

    // --- walks ----------------------------------------------------------------------------------------------------------

    fn start_walk(&mut self, id: PaymentId, fresh: bool) {
        let until = self.now + CLAIM;
        let Some(row) = self.desk.rows.get_mut(&id) else { return };
        row.due = row.payment.state.is_open().then_some(until);
        let lines = row.lines.iter().map(|(product, quantity)| Line {
            product: self.scenario.products[*product].id,
            quantity: *quantity,
        });
        let mut saga = Saga::new(row.payment.clone(), lines.collect(), row.deadline, LIMITS, fresh);
        let mut todo = saga.start();
        if self.broken == Some(Broken::ChargeBeforePin) && fresh {
            todo = Do::Call(Call::Charge);
        }
        let version = row.payment.version;
        self.desk.walk_numbers += 1;
        let walk = self.desk.walk_numbers;
        self.desk.walks.insert(walk, Walk { payment: id, saga, version, until, todo, waiting_for: None });
        self.at_desk(MS, AtDesk::Step { walk });
    }

    fn take_up(&mut self, id: PaymentId) {
        if !self.node.up {
            return;
        }
        let Some(row) = self.desk.rows.get_mut(&id) else { return };
        if row.payment.version == 0 || row.payment.state == PaymentState::Review {
            return;
        }
        row.payment.version += 1;
        row.payment.tries += 1;
        self.tally.reach("a payment was taken up again");
        self.start_walk(id, false);
    }

    fn look_for_due(&mut self, process: u64) {
        if !self.node.up || self.node.number != process {
            return;
        }
        let due: Vec<PaymentId> = self
            .desk
            .rows
            .iter()
            .filter(|(_, row)| row.due.is_some_and(|due| due <= self.now) && row.payment.state.is_open())
            .map(|(id, _)| *id)
            .collect();
        due.into_iter().for_each(|id| self.take_up(id));
        self.at_desk(LOOK_EVERY, AtDesk::Look { process });
    }

    fn walk_on(&mut self, number: u64) {
        let Some(walk) = self.desk.walks.get(&number) else { return };
        let (todo, id, until) = (walk.todo.clone(), walk.payment, walk.until);
        match todo {
            Do::Ask(product, command) => {
                let Some(product) = self.product(product) else { return };
                let who = self.desk.rows[&id].payment.buyer;
                let attempt = Attempt::new(who, What::Command { product, command }, self.now);
                let patience = self.chance.between(200, 900) * MS;
                let sent = self.send(Sender::Walk(number), attempt, patience);
                if let Some(walk) = self.desk.walks.get_mut(&number) {
                    walk.waiting_for = Some(sent);
                }
            }
            // By its own clock the claim has run out: somebody else is at it.
            Do::Call(_) if self.now >= until => {
                self.tally.reach("a worker that had slept too long left the provider alone");
                self.desk.walks.remove(&number);
            }
            Do::Call(call) => self.call(number, id, call),
            Do::Write(step) => {
                let disk = self.chance.between(1, 12) * MS;
                self.at_desk(disk, AtDesk::Written { walk: number, step });
            }
            Do::Rest => {
                let again = self.chance.between(50, 900) * MS;
                let Some(walk) = self.desk.walks.remove(&number) else { return };
                if let Some(row) = self.desk.rows.get_mut(&id)
                    && row.payment.version == walk.version
                    && row.payment.state.is_open()
                {
                    row.due = Some(self.now + again);
                }
            }
            Do::End => self.walk_ends(number, id),
        }
    }

    fn call(&mut self, walk: u64, payment: PaymentId, call: Call) {
        let faults = self.now < FAULTS_END;
        let (lost, silent) = (faults && self.chance.percent(6), faults && self.chance.percent(8));
        let way = match faults && self.chance.percent(5) {
            // It hangs in some buffer, and comes when nobody expects it any more.
            true => self.chance.between(500, 12_000) * MS,
            false => self.chance.between(1, 60) * MS,
        };
        if lost || silent || way > 400 * MS {
            self.tally.fault("a call to the bank timed out");
            let patience = self.chance.between(300, 700) * MS;
            self.at_desk(patience, AtDesk::Says { walk, said: ProviderSaid::Unknown });
        }
        if !lost {
            let answered = !silent && way <= 400 * MS;
            self.at_desk(way, AtDesk::Call { walk, payment, call, answered });
        }
    }

    /// A call reaches the bank, whatever has become of the caller.
    fn bank_hears(&mut self, walk: u64, id: PaymentId, call: Call, answered: bool) {
        let Some(row) = self.desk.rows.get(&id) else { return };
        let (amount, sure, order, lines) =
            (row.payment.amount, row.sure, row.payment.order, row.lines.clone());
        let before = self.desk.bank.captured(id);
        let said = match call {
            Call::Charge => self.desk.bank.charge(id, amount, sure, &mut self.chance),
            Call::Find => self.desk.bank.find(id),
            Call::Cancel => self.desk.bank.cancel(id, amount),
        };
        let moved = self.desk.bank.captured(id) > before;
        if moved {
            self.money_moves(id, order, &lines);
        }
        if call == Call::Charge && !answered {
            self.tally.reach(if moved {
                "a charge timed out and had happened"
            } else {
                "a charge timed out and had not"
            });
        }
        if call == Call::Charge && self.chance.percent(25) {
            let later = self.chance.between(20, 6_000) * MS;
            self.at_desk(later, AtDesk::SecondThought { payment: id });
        }
        if answered {
            let way = self.chance.between(1, 40) * MS;
            self.at_desk(way, AtDesk::Says { walk, said });
        }
    }

    /// At the moment money moves every line of the order is pinned, or sold: nobody can take the units away.
    fn money_moves(&mut self, id: PaymentId, order: OrderId, lines: &[(usize, Quantity)]) {
        for (product, _) in lines {
            let events = &self.journal.chapters[*product].events;
            let last = events.iter().rev().find(|event| order_of(event) == Some(order));
            if !matches!(last, Some(Event::Pinned(_))) {
                let last = last.map_or("nothing", Event::word);
                return self.violated(
                    "i5_pinned_before_charged",
                    format!("{id}: charged while product {product} says {last}"),
                );
            }
        }
    }

    fn says(&mut self, number: u64, said: ProviderSaid) {
        let said = match said {
            ProviderSaid::Unknown if self.is(Broken::TimeOutIsDecline) => ProviderSaid::Seen {
                status: stockade::domain::payment::Status::Declined("timeout".to_owned()),
                provider_ref: String::new(),
                amount: Money { amount: 0, currency: stockade::domain::amount::Currency::KRW },
                captured: 0,
            },
            said => said,
        };
        let calling = |walk: &Walk| matches!(walk.todo, Do::Call(_));
        if self.desk.walks.get(&number).is_some_and(calling) {
            self.walk_hears(number, Told::Provider(said));
        }
    }

    fn walk_hears(&mut self, number: u64, told: Told) {
        let now = self.clock();
        let Some(walk) = self.desk.walks.get_mut(&number) else { return };
        walk.waiting_for = None;
        walk.todo = walk.saga.heard(told, now);
        let pause = match self.now < FAULTS_END && self.chance.percent(1) {
            // The machine stands still just here, and does not know it.
            true => {
                self.tally.fault("a payment's worker sleeps");
                self.chance.between(2_000, 9_000) * MS
            }
            false => self.chance.between(1, 5) * MS,
        };
        self.at_desk(pause, AtDesk::Step { walk: number });
    }

    pub(super) fn walk_hears_owner(&mut self, number: u64, attempt: usize, heard: Option<Heard>) {
        if self.desk.walks.get(&number).is_none_or(|walk| walk.waiting_for != Some(attempt)) {
            return;
        }
        let said = match heard {
            Some(Heard::Refused { refused, .. }) => OwnerSaid::Refused(refused.why),
            None | Some(Heard::NotExecuted | Heard::Unknown) => OwnerSaid::NotNow,
            Some(_) => OwnerSaid::Done,
        };
        if let OwnerSaid::Refused(stockade::domain::stock::Refusal::HoldExpired) = said {
            self.tally.reach("a lapse raced a pin and won");
        }
        self.walk_hears(number, Told::Owner(said));
    }

    /// A compare-and-set gets onto the disk, if the row is still the walk's.
    fn written(&mut self, number: u64, step: Move) {
        let now = self.clock_or_wall();
        let Some(walk) = self.desk.walks.get_mut(&number) else { return };
        let Some(row) = self.desk.rows.get_mut(&walk.payment) else { return };
        let moved = row.payment.moved(&step, now).ok().filter(|_| row.payment.version == walk.version);
        let Some(mut payment) = moved else {
            self.tally.reach("a worker that had slept too long could not move the row");
            self.desk.walks.remove(&number);
            return;
        };
        payment.version += 1;
        walk.version = payment.version;
        row.due = payment.state.is_open().then_some(walk.until);
        let id = payment.id;
        if step.give_back {
            payment.refunded += payment.captured;
        }
        row.payment = payment.clone();
        if step.give_back && payment.captured > 0 {
            self.tally.reach("money came for an order that had ended");
            self.wants_refund(id, Cause::Late, payment.captured, Vec::new(), Back::ToStock);
        }
        self.walk_hears(number, Told::Written(Box::new(payment)));
    }

    fn walk_ends(&mut self, number: u64, id: PaymentId) {
        self.desk.walks.remove(&number);
        let Some(row) = self.desk.rows.get_mut(&id) else { return };
        let (payment, lines, deadline, sure) =
            (row.payment.clone(), row.lines.clone(), row.deadline, row.sure);
        if !payment.state.is_open() {
            row.due = None;
        }
        match payment.state {
            PaymentState::Declined if payment.attempt.get() < LIMITS.attempts_max => {
                let pause = self.chance.between(10, 2_000) * MS;
                if let Some(next) = payment.attempt.next()
                    && self.chance.percent(70)
                {
                    self.tally.reach("a payment was declined and tried again");
                    self.begin_payment(
                        payment.buyer,
                        payment.order,
                        next,
                        lines,
                        payment.amount,
                        deadline,
                        sure,
                        pause,
                    );
                }
            }
            PaymentState::Declined => self.tally.reach("the last decline gave the units back"),
            PaymentState::Review => {
                let later = self.chance.between(100, 4_000) * MS;
                self.at_desk(later, AtDesk::Person { payment: id });
            }
            PaymentState::Paid if self.chance.percent(25) && !sure => {
                let later = self.chance.between(10, 4_000) * MS;
                self.at_desk(later, AtDesk::Return { payment: id });
            }
            _ => {}
        }
    }

    /// A person looks at an amount that did not fit: takes it as it is, or gives it back.
    fn person(&mut self, id: PaymentId) {
        let up = self.node.up;
        let (now, takes) = (self.clock_or_wall(), self.chance.percent(50));
        let Some(row) = self.desk.rows.get_mut(&id).filter(|row| row.payment.state == PaymentState::Review)
        else {
            return;
        };
        if !up {
            return self.at_desk(SECOND, AtDesk::Person { payment: id });
        }
        self.tally.reach("an amount did not fit and a person decided");
        let step = match takes {
            true => Move::to(PaymentState::Captured),
            false => Move { give_back: true, ..Move::to(PaymentState::Orphaned) },
        };
        let Ok(mut payment) = row.payment.moved(&step, now) else { return };
        payment.version += 1;
        if !takes {
            payment.refunded += payment.captured;
        }
        let (captured, lines) = (payment.captured, row.lines.clone());
        row.payment = payment;
        if takes {
            return self.start_walk(id, false);
        }
        self.wants_refund(id, Cause::Late, captured, Vec::new(), Back::ToStock);
        self.gives_up_pins(id, lines);
    }

    /// Pins of a payment that a person gave back end like those of a decline.
    fn gives_up_pins(&mut self, id: PaymentId, lines: Vec<(usize, Quantity)>) {
        let (order, attempt) = (self.desk.rows[&id].payment.order, self.desk.rows[&id].payment.attempt);
        for (product, _) in lines {
            let command = Command::Release {
                order,
                cause: stockade::domain::stock::Cause::PaymentFailed,
                by: u64::from(attempt.get()),
            };
            self.administer(self.now + MS, product, command);
        }
    }

    // --- refunds --------------------------------------------------------------------------------------------------------

    fn wants_refund(
        &mut self,
        payment: PaymentId,
        cause: Cause,
        amount: i64,
        units: Vec<(usize, Quantity)>,
        back: Back,
    ) {
        let id = RefundId::of(payment, cause);
        let refund = Owed { payment, amount, units, back, waiting_for: None, tries: 0, done: false };
        self.desk.refunds.entry(id).or_insert(refund);
        self.at_desk(5 * MS, AtDesk::Refund { refund: id });
    }

    /// The whole order comes back: money and units. Two clerks at once want it now and then.
    fn comes_back(&mut self, id: PaymentId) {
        let up = self.node.up;
        let Some(row) = self.desk.rows.get_mut(&id) else { return };
        if !up || row.payment.state != PaymentState::Paid || row.payment.refunded > 0 {
            return;
        }
        row.payment.refunded = row.payment.captured;
        row.payment.version += 1;
        let (amount, units) = (row.payment.captured, row.lines.clone());
        let back = if self.chance.percent(70) { Back::ToStock } else { Back::WrittenOff };
        self.wants_refund(id, Cause::OrderCancelled, amount, units, back);
    }

    fn refund(&mut self, id: RefundId) {
        let again = self.chance.between(30, 500) * MS;
        let (lost, silent) = (self.chance.percent(10), self.chance.percent(15));
        if !self.node.up {
            return self.at_desk(again, AtDesk::Refund { refund: id });
        }
        let Some(refund) = self.desk.refunds.get_mut(&id).filter(|refund| !refund.done) else { return };
        if refund.waiting_for.is_some() {
            return;
        }
        refund.tries += 1;
        let (payment, amount, back, tries) = (refund.payment, refund.amount, refund.back, refund.tries);
        if let Some((product, quantity)) = refund.units.last().copied() {
            let (order, who) = {
                let payment = &self.desk.rows[&payment].payment;
                (payment.order, payment.buyer)
            };
            let by = u128::from_be_bytes(*id.as_bytes()) as u64 | 1;
            let command = Command::Return { order, quantity, back, why: CameBack::Cancelled, by };
            let attempt = Attempt::new(who, What::Command { product, command }, self.now);
            let sent = self.send(Sender::Refund(id), attempt, 700 * MS);
            if let Some(refund) = self.desk.refunds.get_mut(&id) {
                refund.waiting_for = Some(sent);
            }
            return;
        }
        if lost {
            return self.at_desk(again, AtDesk::Refund { refund: id });
        }
        // Whoever makes up a new name for each try gives back as often as he tries.
        let name = match self.is(Broken::RefundWithoutIdempotency) {
            true => RefundId::of(payment, Cause::Clerk(u128::from(tries).to_be_bytes())),
            false => id,
        };
        if self.desk.bank.knows_refund(name) {
            self.tally.reach("a refund was told twice and done once");
        }
        let before = self.desk.bank.refunded(payment);
        let taken = self.desk.bank.refund(name, payment, amount);
        if !taken && before > 0 && self.is(Broken::RefundWithoutIdempotency) {
            return self
                .violated("i5_money", format!("{payment}: a second refund of {amount} was asked for"));
        }
        if silent || !taken {
            return self.at_desk(again, AtDesk::Refund { refund: id });
        }
        if let Some(refund) = self.desk.refunds.get_mut(&id) {
            refund.done = true;
        }
    }

    pub(super) fn refund_hears_owner(&mut self, id: RefundId, attempt: usize, heard: Option<Heard>) {
        let again = self.chance.between(5, 300) * MS;
        let Some(refund) = self.desk.refunds.get_mut(&id).filter(|r| r.waiting_for == Some(attempt)) else {
            return;
        };
        refund.waiting_for = None;
        match heard {
            None | Some(Heard::NotExecuted | Heard::Unknown) => {}
            Some(Heard::Refused { refused, .. }) => {
                let payment = refund.payment;
                return self.violated(
                    "i5_money",
                    format!("{payment}: sold units cannot come back: {}", refused.why),
                );
            }
            Some(_) => {
                refund.units.pop();
                self.tally.reach("a sold unit was returned");
            }
        }
        self.at_desk(again, AtDesk::Refund { refund: id });
    }

    // --- the rest -------------------------------------------------------------------------------------------------------

    fn second_thought(&mut self, id: PaymentId) {
        let declined_for_good = self.desk.rows.get(&id).is_some_and(|row| row.payment.state.has_failed());
        let order_has_other = self.other_attempt(id);
        // A bank that changes its mind after another attempt was paid would charge twice: it is given back all the same.
        let moved = self.desk.bank.thinks_again(id, &mut self.chance);
        if moved && !declined_for_good && !order_has_other {
            let row = &self.desk.rows[&id];
            let (order, lines) = (row.payment.order, row.lines.clone());
            self.late_or_pinned(id, order, &lines);
        }
        // It says so now and then, more than once.
        for _ in 0..self.chance.below(3) {
            let later = self.chance.between(1, 1_500) * MS;
            self.at_desk(later, AtDesk::TakeUp { payment: id });
        }
        if moved {
            // In the end it always says so.
            self.at_desk(3 * SECOND, AtDesk::TakeUp { payment: id });
        }
    }

    fn other_attempt(&self, id: PaymentId) -> bool {
        let Some(row) = self.desk.rows.get(&id) else { return false };
        self.desk.rows.iter().any(|(other, it)| *other != id && it.payment.order == row.payment.order)
    }

    /// What was pending is decided while every pin stands, or the order is on its way out already.
    fn late_or_pinned(&mut self, _id: PaymentId, order: OrderId, lines: &[(usize, Quantity)]) {
        let pinned = lines.iter().all(|(product, _)| {
            let events = &self.journal.chapters[*product].events;
            matches!(events.iter().rev().find(|event| order_of(event) == Some(order)), Some(Event::Pinned(_)))
        });
        if pinned {
            self.tally.reach("a bank decided while every pin stood");
        }
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
            AtDesk::TakeUp { payment } => self.take_up(payment),
            AtDesk::Person { payment } => self.person(payment),
            AtDesk::Return { payment } => self.comes_back(payment),
            AtDesk::Refund { refund } => self.refund(refund),
            AtDesk::Look { process } => self.look_for_due(process),
        }
    }

    /// I5, at rest: what the bank has kept of an order is the price of what is sold of it, and no more went back than came.
    pub(super) fn money_adds_up(
        &self,
        chapters: &[crate::story::Chapter],
    ) -> Result<(), crate::check::Violation> {
        let broken = |what: String| Err(crate::check::Violation { invariant: "i5_money", what });
        let mut kept: BTreeMap<OrderId, i64> = BTreeMap::new();
        let mut odd: BTreeMap<OrderId, i64> = BTreeMap::new();
        for (id, row) in &self.desk.rows {
            let (captured, refunded) = (self.desk.bank.captured(*id), self.desk.bank.refunded(*id));
            if refunded > captured {
                return broken(format!("{id}: {captured} came and {refunded} went back"));
            }
            *kept.entry(row.payment.order).or_insert(0) += captured - refunded;
            // A person took another amount than the price.
            if row.payment.state == PaymentState::Paid && refunded == 0 {
                *odd.entry(row.payment.order).or_insert(0) += captured - row.payment.amount.amount;
            }
        }
        for (order, kept) in kept {
            let mut sold = 0;
            for chapter in chapters {
                let mut price = 0;
                for event in &chapter.events {
                    match event {
                        Event::Held(held) if held.order == order => price = held.unit_price.amount,
                        Event::Confirmed(e) if e.order == order => {
                            sold += price * i64::from(e.quantity.get())
                        }
                        Event::Returned(e) if e.order == order => sold -= price * i64::from(e.quantity.get()),
                        _ => {}
                    }
                }
            }
            let odd = odd.get(&order).copied().unwrap_or(0);
            if kept != sold + odd {
                return broken(format!("{order}: the bank has kept {kept}, and {sold} is sold of it"));
            }
        }
        Ok(())
    }
}

fn order_of(event: &Event) -> Option<OrderId> {
    match event {
        Event::Held(e) => Some(e.order),
        Event::Placed(e) => Some(e.order),
        Event::Kept(e) => Some(e.order),
        Event::Pinned(e) => Some(e.order),
        Event::Unpinned(e) => Some(e.order),
        Event::Confirmed(e) => Some(e.order),
        Event::Released(e) => Some(e.order),
        Event::Expired(e) => Some(e.order),
        Event::Returned(e) => Some(e.order),
        _ => None,
    }
}
