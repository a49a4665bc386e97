//! Payments: rows in the database, walks in the memory of the lead that has claimed them, and the bank's own book. The walk is the
//! product's own [`Saga`]; it pins at the owner, on whichever node that is, charges, and confirms there.
//!
//! A row is moved by a lead that reaches the database and lives there, if nobody has moved it meanwhile; whoever dies or is replaced leaves
//! it to the next.

use std::collections::{BTreeMap, BTreeSet};

use stockade::domain::amount::Quantity;
use stockade::domain::id::{OrderId, PaymentId, ProductId, RefundId};
use stockade::domain::payment::{
    Call, Cause, Do, Heard as Told, Limits, Line, Move, OwnerSaid, Payment, PaymentState, ProviderSaid, Saga,
};
use stockade::domain::stock::{Attempt as Number, Command, Millis, Refusal};

use super::node::Stage;
use super::people::Sender;
use super::{Cluster, Happening};
use crate::broken::Broken;
use crate::check::{Verdict, i5_money, i5_pinned_before_charged};
use crate::scenario::FAULTS_END;
use crate::story::{Attempt, Heard, What};
use crate::time::{MS, Micros, SECOND};
use crate::world::bank::{Bank, Way, timed_out};

const CLAIM: Micros = 3 * SECOND;
/// The longest a call of the bank may take.
const CALL_WITHIN: Micros = 1_500 * MS;
const LOOK_EVERY: Micros = 300 * MS;
const LIMITS: Limits = Limits { attempts_max: 2, charge_again_ms: 3_000, give_up_ms: 10_000 };

/// A payment's row, and what its walk reads from the order's.
#[derive(Debug, Clone)]
struct Row {
    payment: Payment,
    product: usize,
    quantity: Quantity,
    deadline: Millis,
    /// When somebody takes it up, if it is open.
    due: Option<Micros>,
    /// The start of the process that was last at it.
    process: u64,
    /// What was taken goes back, and has not gone yet.
    owes: bool,
}

/// What a lead remembers of a payment it is at.
#[derive(Debug)]
struct Walk {
    payment: PaymentId,
    saga: Saga,
    version: u64,
    until: Micros,
    todo: Do,
    waiting_for: Option<usize>,
    node: usize,
    process: u64,
}

#[derive(Debug)]
pub struct Till {
    rows: BTreeMap<PaymentId, Row>,
    walks: BTreeMap<u64, Walk>,
    walks_begun: u64,
    bank: Bank,
    /// What the bank has thought of since, and will tell.
    untold: BTreeSet<PaymentId>,
}

/// What happens to payments.
#[derive(Debug)]
pub enum AtTill {
    /// A buyer pays the order that his attempt has made.
    Pays {
        attempt: usize,
        order: OrderId,
    },
    Step {
        walk: u64,
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
    SecondThought {
        payment: PaymentId,
    },
    Refund {
        payment: PaymentId,
    },
    /// A lead looks for what is due.
    Look {
        node: usize,
        process: u64,
    },
}

impl Till {
    pub fn new() -> Till {
        Till {
            rows: BTreeMap::new(),
            walks: BTreeMap::new(),
            walks_begun: 0,
            bank: Bank::exact(),
            untold: BTreeSet::new(),
        }
    }

    /// The node of a walk, and the start of its process.
    pub fn place(&self, walk: u64) -> Option<(usize, Option<u64>)> {
        self.walks.get(&walk).map(|walk| (walk.node, Some(walk.process)))
    }

    /// A process has ended: its walks end with it, their rows stay.
    pub fn forget_walks(&mut self, node: usize) {
        self.walks.retain(|_, walk| walk.node != node);
    }

    /// The first thing that is under way.
    pub fn busy(&self) -> Option<String> {
        let open = |row: &&Row| row.payment.state.is_open() || row.due.is_some() || row.owes;
        if let Some(row) = self.rows.values().find(open) {
            return Some(format!("a payment is open: {row:?}"));
        }
        self.untold.first().map(|payment| format!("the bank has still to tell of {payment}"))
    }
}

impl Cluster {
    fn at_till(&mut self, after: Micros, what: AtTill) {
        self.plan(after, Happening::Till(what));
    }

    pub(super) fn till_happens(&mut self, what: AtTill) {
        match what {
            AtTill::Pays { attempt, order } => self.pays(attempt, order),
            AtTill::Step { walk } => self.walk_on(walk),
            AtTill::Call { walk, payment, call, answered } => self.bank_hears(walk, payment, call, answered),
            AtTill::Says { walk, said } => self.bank_says(walk, said),
            AtTill::SecondThought { payment } => {
                if self.till.bank.thinks_again(payment, &mut self.chance) {
                    self.till.untold.insert(payment);
                }
            }
            AtTill::Refund { payment } => self.refund(payment),
            AtTill::Look { node, .. } => self.look_for_due(node),
        }
    }

    /// Whether a row that this node writes as the lead is committed.
    fn may_write(&self, node: usize) -> bool {
        let is = &self.nodes[node];
        let leads = self.database.session(is.session).is_some_and(|session| session.active == Some(1));
        let reaches = self.now >= is.cut_off_until && self.now >= self.base_down_until;
        is.up && is.stage == Stage::Open && self.now >= is.paused_until && leads && reaches
    }

    // --- beginning ------------------------------------------------------------------------------------------------------

    pub(super) fn will_pay(&mut self, attempt: usize, order: OrderId) {
        let after = self.chance.between(1, 3_000) * MS;
        self.at_till(after, AtTill::Pays { attempt, order });
    }

    /// The row first. One attempt to pay has one row.
    fn pays(&mut self, attempt: usize, order: OrderId) {
        let Some(node) = (0..self.nodes.len()).find(|node| self.may_write(*node)) else {
            if self.now < FAULTS_END {
                self.at_till(SECOND, AtTill::Pays { attempt, order });
            }
            return;
        };
        let product = self.product_asked(attempt);
        let Some(held) = self.chapters[product].held(order) else { return };
        let (quantity, deadline, buyer) = (held.quantity, held.deadline, held.buyer);
        let Some(amount) = held.unit_price.times(quantity) else { return };
        let now = self.nodes[node].clock.now(self.now);
        let payment = Payment {
            id: PaymentId::of(order, Number::FIRST),
            order,
            attempt: Number::FIRST,
            buyer,
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
            version: 1,
            created_at: now,
            updated_at: now,
        };
        self.begin_payment(
            node,
            Row { payment, product, quantity, deadline, due: None, process: 0, owes: false },
        );
    }

    fn begin_payment(&mut self, node: usize, row: Row) {
        let id = row.payment.id;
        if self.till.rows.contains_key(&id) {
            return;
        }
        self.till.rows.insert(id, row);
        self.start_walk(node, id, true);
    }

    fn start_walk(&mut self, node: usize, id: PaymentId, fresh: bool) {
        let (until, process) = (self.now + CLAIM, self.nodes[node].process);
        let Some(row) = self.till.rows.get_mut(&id) else { return };
        (row.due, row.process) = (Some(until), process);
        let line = Line { product: self.products[row.product].id, quantity: row.quantity };
        let (payment, version) = (row.payment.clone(), row.payment.version);
        let mut saga = Saga::new(payment, vec![line], row.deadline, LIMITS, fresh);
        let todo = saga.start();
        self.till.walks_begun += 1;
        let walk = self.till.walks_begun;
        let begun = Walk { payment: id, saga, version, until, todo, waiting_for: None, node, process };
        self.till.walks.insert(walk, begun);
        self.at_till(MS, AtTill::Step { walk });
    }

    /// Looks for what is due, or of what the bank has told something new, and takes it up.
    pub(super) fn look_for_due(&mut self, node: usize) {
        let process = self.nodes[node].process;
        self.at_till(LOOK_EVERY, AtTill::Look { node, process });
        if !self.may_write(node) {
            return;
        }
        let is_due = |id: &PaymentId, row: &Row| {
            row.due.is_some_and(|due| due <= self.now) || row.due.is_none() && self.till.untold.contains(id)
        };
        let rows = self.till.rows.iter().filter(|(id, row)| is_due(id, row));
        let due: Vec<PaymentId> = rows.map(|(id, _)| *id).collect();
        for id in due {
            self.till.untold.remove(&id);
            let Some(row) = self.till.rows.get_mut(&id) else { continue };
            row.payment.version += 1;
            row.payment.tries += 1;
            if row.process != process {
                self.tally.reach("a payment was taken up by another lead");
            }
            self.start_walk(node, id, false);
        }
    }

    // --- a walk -----------------------------------------------------------------------------------------------------------

    fn walk_on(&mut self, number: u64) {
        let Some(walk) = self.till.walks.get(&number) else { return };
        let (todo, id, until) = (walk.todo.clone(), walk.payment, walk.until);
        match todo {
            Do::Ask(product, command) => self.walk_asks(number, product, command),
            // By its own clock the claim has no time for a whole call: it is made longer, or somebody else is at it.
            Do::Call(_) if self.now + CALL_WITHIN > until => self.claim_longer(number),
            Do::Call(call) => self.call_the_bank(number, id, call),
            Do::Write(step) => self.write_row(number, step),
            Do::Rest => self.walk_ends(number, true),
            Do::End => self.walk_ends(number, false),
        }
    }

    /// The door that it asks is that of its own node.
    fn walk_asks(&mut self, number: u64, product: ProductId, command: Command) {
        let Some(product) = self.products.iter().position(|plan| plan.id == product) else { return };
        let Some(walk) = self.till.walks.get(&number) else { return };
        let (node, who) = (walk.node, walk.saga.payment().buyer);
        let what = What::Command { product, command };
        let attempt = Attempt { inside: true, ..Attempt::new(who, what, self.now) };
        let soon = self.chance.between(10, 200);
        let sent = self.send_to(node, soon, attempt, Sender::Walk(number));
        if let Some(walk) = self.till.walks.get_mut(&number) {
            walk.waiting_for = Some(sent);
        }
    }

    pub(super) fn walk_hears_owner(&mut self, number: u64, attempt: usize, heard: Option<Heard>) {
        if self.till.walks.get(&number).is_none_or(|walk| walk.waiting_for != Some(attempt)) {
            return;
        }
        let pins = matches!(self.attempts[attempt].what, What::Command { command: Command::Pin { .. }, .. });
        let said = match Heard::of_owner(heard) {
            OwnerSaid::NotNow if pins && self.is(Broken::LostPinIsPinned) => OwnerSaid::Done,
            said => said,
        };
        if let OwnerSaid::Refused(Refusal::HoldExpired) = said {
            self.tally.reach("a lapse raced a pin and won");
        }
        self.walk_hears(number, Told::Owner(said));
    }

    fn walk_hears(&mut self, number: u64, told: Told) {
        let Some(walk) = self.till.walks.get_mut(&number) else { return };
        let now = self.nodes[walk.node].clock.now(self.now);
        walk.waiting_for = None;
        walk.todo = walk.saga.heard(told, now);
        let pause = self.chance.between(1, 5) * MS;
        self.at_till(pause, AtTill::Step { walk: number });
    }

    fn claim_longer(&mut self, number: u64) {
        let until = self.now + CLAIM;
        let Some(walk) = self.till.walks.get(&number) else { return };
        let (node, id, version) = (walk.node, walk.payment, walk.version);
        let may = self.may_write(node);
        let row = self.till.rows.get_mut(&id).filter(|row| may && row.payment.version == version);
        let Some(row) = row else {
            self.till.walks.remove(&number);
            return;
        };
        row.due = Some(until);
        if let Some(walk) = self.till.walks.get_mut(&number) {
            walk.until = until;
        }
        self.at_till(MS, AtTill::Step { walk: number });
    }

    /// A compare-and-set, if the row is still the walk's and its node the lead's. Otherwise it is left to whoever takes it up.
    fn write_row(&mut self, number: u64, step: Move) {
        let Some(walk) = self.till.walks.get(&number) else { return };
        let (node, id, version, until) = (walk.node, walk.payment, walk.version, walk.until);
        let (may, now) = (self.may_write(node), self.nodes[node].clock.now(self.now));
        let row = self.till.rows.get_mut(&id).filter(|row| may && row.payment.version == version);
        let moved = row.and_then(|row| Some((row.payment.moved(&step, now).ok()?, row)));
        let Some((mut payment, row)) = moved else {
            self.till.walks.remove(&number);
            return;
        };
        payment.version += 1;
        row.due = payment.state.is_open().then_some(until);
        let gives_back = step.give_back && payment.captured > 0;
        if gives_back {
            payment.refunded = payment.captured;
            row.owes = true;
        }
        row.payment = payment.clone();
        if let Some(walk) = self.till.walks.get_mut(&number) {
            walk.version = payment.version;
        }
        if payment.state == PaymentState::Paid {
            self.tally.reach("an order was paid for");
        }
        if gives_back {
            self.tally.reach("money came for an order that had ended");
            // Told twice it is done once.
            for _ in 0..self.chance.between(1, 2) {
                let later = self.chance.between(10, 900) * MS;
                self.at_till(later, AtTill::Refund { payment: id });
            }
        }
        self.walk_hears(number, Told::Written(Box::new(payment)));
    }

    fn refund(&mut self, id: PaymentId) {
        let Some(row) = self.till.rows.get_mut(&id) else { return };
        row.owes = false;
        let (refund, amount) = (RefundId::of(id, Cause::Late), row.payment.captured);
        if !self.till.bank.refund(refund, id, amount) {
            self.violated("i5_money", format!("{id}: more would go back than came"));
        }
    }

    /// It rests and is taken up again, or is over.
    fn walk_ends(&mut self, number: u64, rests: bool) {
        let Some(walk) = self.till.walks.remove(&number) else { return };
        let again = self.now + self.chance.between(50, 900) * MS;
        let comes_again = self.chance.percent(70);
        if !self.may_write(walk.node) {
            return;
        }
        let row = self.till.rows.get_mut(&walk.payment).filter(|row| row.payment.version == walk.version);
        let Some(row) = row else { return };
        row.due = (rests || row.payment.state.is_open()).then_some(again);
        let declined = &row.payment;
        if declined.state != PaymentState::Declined || declined.attempt.get() >= LIMITS.attempts_max {
            return;
        }
        let Some(attempt) = declined.attempt.next().filter(|_| comes_again && !rests) else { return };
        let now = self.nodes[walk.node].clock.now(self.now);
        let payment = Payment {
            id: PaymentId::of(declined.order, attempt),
            attempt,
            state: PaymentState::Started,
            reason: None,
            provider_ref: None,
            version: 1,
            created_at: now,
            updated_at: now,
            ..declined.clone()
        };
        let next = Row { payment, due: None, ..row.clone() };
        self.begin_payment(walk.node, next);
    }

    // --- the bank ---------------------------------------------------------------------------------------------------------

    fn call_the_bank(&mut self, walk: u64, payment: PaymentId, call: Call) {
        let Way { arrives, answered } = Way::of(self.now < FAULTS_END, &mut self.chance);
        if !answered {
            let patience = self.chance.between(300, 700) * MS;
            self.at_till(patience, AtTill::Says { walk, said: ProviderSaid::Unknown });
        }
        if let Some(way) = arrives {
            self.at_till(way, AtTill::Call { walk, payment, call, answered });
        }
    }

    /// A call reaches the bank, whatever has become of the caller.
    fn bank_hears(&mut self, walk: u64, id: PaymentId, call: Call, answered: bool) {
        let Some(row) = self.till.rows.get(&id) else { return };
        let (amount, order, product) = (row.payment.amount, row.payment.order, row.product);
        let (said, moved) = self.till.bank.hears(call, id, amount, false, &mut self.chance);
        let last = self.chapters[product].last_word(order);
        if moved && let Err(rule) = i5_pinned_before_charged(id, product, last) {
            self.violated(rule.invariant, rule.what);
        }
        if call == Call::Charge && !answered {
            self.tally.reach(timed_out(moved));
        }
        if call == Call::Charge && self.chance.percent(25) {
            let later = self.chance.between(20, 6_000) * MS;
            self.at_till(later, AtTill::SecondThought { payment: id });
        }
        if answered {
            let way = self.chance.between(1, 40) * MS;
            self.at_till(way, AtTill::Says { walk, said });
        }
    }

    fn bank_says(&mut self, number: u64, said: ProviderSaid) {
        let calling = |walk: &Walk| matches!(walk.todo, Do::Call(_));
        if self.till.walks.get(&number).is_some_and(calling) {
            self.walk_hears(number, Told::Provider(said));
        }
    }

    /// I5, at rest.
    pub(super) fn money_adds_up(&self) -> Verdict {
        let mut kept = BTreeMap::new();
        for (id, row) in &self.till.rows {
            let of_order = kept.entry(row.payment.order).or_insert(0);
            *of_order += self.till.bank.captured(*id) - self.till.bank.refunded(*id);
        }
        i5_money(&kept, &self.chapters)
    }
}
