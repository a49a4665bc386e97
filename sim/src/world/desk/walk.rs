//! Walks: what a process remembers of the payments it is at, and their calls to the bank.

use stockade::domain::amount::{Currency, Money, Quantity};
use stockade::domain::id::{OrderId, PaymentId};
use stockade::domain::payment::{
    Call, Cause, Do, Heard as Told, Line, Move, OwnerSaid, PaymentState, ProviderSaid, Saga, Status,
};
use stockade::domain::stock::{Back, Refusal};

use super::{AtDesk, CALL_WITHIN, CLAIM, LIMITS, LOOK_EVERY, Walk};
use crate::broken::Broken;
use crate::check::i5_pinned_before_charged;
use crate::scenario::FAULTS_END;
use crate::story::{Attempt, Heard, What};
use crate::time::{MS, Micros};
use crate::world::bank::{Way, timed_out};
use crate::world::{Sender, World};

impl World {
    pub(super) fn start_walk(&mut self, id: PaymentId, fresh: bool) {
        let until = self.now + CLAIM;
        let Some(row) = self.desk.rows.get_mut(&id) else { return };
        row.due = Some(until);
        let row = row.clone();
        let lines = self.lines_of_row(&row.lines);
        let mut saga = Saga::new(row.payment, lines, row.deadline, LIMITS, fresh);
        let mut todo = saga.start();
        if self.broken == Some(Broken::ChargeBeforePin) && fresh {
            todo = Do::Call(Call::Charge);
        }
        self.walk_begins(id, saga, todo, until);
    }

    /// What a person has decided: whoever holds the claim gives back what was taken.
    pub(super) fn start_giving_back(&mut self, id: PaymentId) {
        let until = self.now + CLAIM;
        let Some(row) = self.desk.rows.get_mut(&id) else { return };
        row.due = Some(until);
        let row = row.clone();
        let mut saga = Saga::new(row.payment, self.lines_of_row(&row.lines), row.deadline, LIMITS, false);
        let todo = saga.give_back();
        self.walk_begins(id, saga, todo, until);
    }

    fn lines_of_row(&self, lines: &[(usize, Quantity)]) -> Vec<Line> {
        let line = |(product, quantity): &(usize, Quantity)| Line {
            product: self.scenario.products[*product].id,
            quantity: *quantity,
        };
        lines.iter().map(line).collect()
    }

    fn walk_begins(&mut self, id: PaymentId, saga: Saga, todo: Do, until: Micros) {
        let version = saga.payment().version;
        self.desk.walk_numbers += 1;
        let walk = self.desk.walk_numbers;
        self.desk.walks.insert(walk, Walk { payment: id, saga, version, until, todo, waiting_for: None });
        self.at_desk(MS, AtDesk::Step { walk });
    }

    pub(super) fn take_up(&mut self, id: PaymentId) {
        if !self.node.up {
            return;
        }
        let Some(row) = self.desk.rows.get_mut(&id) else { return };
        if row.payment.version == 0 {
            return;
        }
        row.payment.version += 1;
        row.payment.tries += 1;
        self.desk.untold.remove(&id);
        self.tally.reach("a payment was taken up again");
        self.start_walk(id, false);
    }

    pub(super) fn look_for_due(&mut self, process: u64) {
        if !self.node.up || self.node.number != process {
            return;
        }
        let due: Vec<PaymentId> = self
            .desk
            .rows
            .iter()
            .filter(|(_, row)| row.due.is_some_and(|due| due <= self.now))
            .map(|(id, _)| *id)
            .collect();
        due.into_iter().for_each(|id| self.take_up(id));
        self.at_desk(LOOK_EVERY, AtDesk::Look { process });
    }

    pub(super) fn walk_on(&mut self, number: u64) {
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
            // By its own clock the claim has no time for a whole call: it is made longer, or somebody else is at it.
            Do::Call(_) if self.now + CALL_WITHIN > until => self.claim_longer(number),
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
                {
                    row.due = Some(self.now + again);
                }
            }
            Do::End => self.walk_ends(number, id),
        }
    }

    fn claim_longer(&mut self, number: u64) {
        let until = self.now + CLAIM;
        let Some(walk) = self.desk.walks.get_mut(&number) else { return };
        let Some(row) =
            self.desk.rows.get_mut(&walk.payment).filter(|row| row.payment.version == walk.version)
        else {
            self.tally.reach("a worker that had slept too long left the provider alone");
            self.desk.walks.remove(&number);
            return;
        };
        (row.due, walk.until) = (Some(until), until);
        self.tally.reach("a claim was made longer");
        self.at_desk(MS, AtDesk::Step { walk: number });
    }

    pub(super) fn call(&mut self, walk: u64, payment: PaymentId, call: Call) {
        let Way { arrives, answered } = Way::of(self.now < FAULTS_END, &mut self.chance);
        if !answered {
            self.tally.fault("a call to the bank timed out");
            let patience = self.chance.between(300, 700) * MS;
            self.at_desk(patience, AtDesk::Says { walk, said: ProviderSaid::Unknown });
        }
        if let Some(way) = arrives {
            self.at_desk(way, AtDesk::Call { walk, payment, call, answered });
        }
    }

    /// A call reaches the bank, whatever has become of the caller.
    pub(super) fn bank_hears(&mut self, walk: u64, id: PaymentId, call: Call, answered: bool) {
        let Some(row) = self.desk.rows.get(&id) else { return };
        let (amount, sure, order, lines) =
            (row.payment.amount, row.sure, row.payment.order, row.lines.clone());
        let (said, moved) = self.desk.bank.hears(call, id, amount, sure, &mut self.chance);
        if moved {
            self.money_moves(id, order, &lines);
        }
        if call == Call::Charge && !answered {
            self.tally.reach(timed_out(moved));
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
    pub(super) fn money_moves(&mut self, id: PaymentId, order: OrderId, lines: &[(usize, Quantity)]) {
        for (product, _) in lines {
            if let Err(rule) = i5_pinned_before_charged(id, *product, self.last_word(*product, order)) {
                return self.violated(rule.invariant, rule.what);
            }
        }
    }

    pub(super) fn says(&mut self, number: u64, said: ProviderSaid) {
        let said = match said {
            ProviderSaid::Unknown if self.is(Broken::TimeOutIsDecline) => ProviderSaid::Seen {
                status: Status::Declined("timeout".to_owned()),
                provider_ref: String::new(),
                amount: Money { amount: 0, currency: Currency::KRW },
                captured: 0,
            },
            ProviderSaid::Seen { status, provider_ref, captured, .. }
                if self.is(Broken::WrongAmountIsPaid) =>
            {
                let Some(walk) = self.desk.walks.get(&number) else { return };
                let amount = walk.saga.payment().amount;
                let captured = if captured > 0 { amount.amount } else { 0 };
                ProviderSaid::Seen { status, provider_ref, amount, captured }
            }
            said => said,
        };
        let calling = |walk: &Walk| matches!(walk.todo, Do::Call(_));
        if self.desk.walks.get(&number).is_some_and(calling) {
            self.walk_hears(number, Told::Provider(said));
        }
    }

    pub(super) fn walk_hears(&mut self, number: u64, told: Told) {
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

    pub(in crate::world) fn walk_hears_owner(&mut self, number: u64, attempt: usize, heard: Option<Heard>) {
        if self.desk.walks.get(&number).is_none_or(|walk| walk.waiting_for != Some(attempt)) {
            return;
        }
        let said = Heard::of_owner(heard);
        if let OwnerSaid::Refused(Refusal::HoldExpired) = said {
            self.tally.reach("a lapse raced a pin and won");
        }
        self.walk_hears(number, Told::Owner(said));
    }

    /// A compare-and-set gets onto the disk, if the row is still the walk's.
    pub(super) fn written(&mut self, number: u64, step: Move) {
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
        if payment.state == PaymentState::Review {
            // Whoever looks through the list finds it there, whatever becomes of us.
            self.clerks_look(id);
        }
        if step.give_back && payment.captured > 0 {
            self.tally.reach("money came for an order that had ended");
            self.wants_refund(id, Cause::Late, payment.captured, Vec::new(), Back::ToStock);
        }
        self.walk_hears(number, Told::Written(Box::new(payment)));
    }

    pub(super) fn walk_ends(&mut self, number: u64, id: PaymentId) {
        let Some(walk) = self.desk.walks.remove(&number) else { return };
        let Some(row) = self.desk.rows.get_mut(&id) else { return };
        let sure = row.sure;
        // Somebody else is at it by now.
        if row.payment.version != walk.version {
            return;
        }
        if !row.payment.state.is_open() {
            row.due = None;
        }
        let row = row.clone();
        match row.payment.state {
            PaymentState::Declined if row.payment.attempt.get() < LIMITS.attempts_max => {
                let pause = self.chance.between(10, 2_000) * MS;
                if let Some(next) = row.payment.attempt.next()
                    && self.chance.percent(70)
                {
                    self.tally.reach("a payment was declined and tried again");
                    self.pays_again(row, next, pause);
                }
            }
            // Whoever gave it back did not come to the end of it.
            PaymentState::Review => self.clerks_look(id),
            PaymentState::Declined => self.tally.reach("the last decline gave the units back"),
            PaymentState::Paid if self.chance.percent(25) && !sure => {
                let later = self.chance.between(10, 4_000) * MS;
                self.at_desk(later, AtDesk::Return { payment: id });
            }
            _ => {}
        }
    }
}
