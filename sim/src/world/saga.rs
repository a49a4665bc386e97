//! Those who act on behalf of somebody and do not give up: an order that is sold by hand, its cancellation and return, and
//! administrators. (Payments with money in them are at the desk, next door.)
//!
//! A saga's memory survives everything, as rows of a database would. It repeats a question until the answer is
//! certain, and never charges before every line is pinned; after the charge it only goes forward.

use stockade::domain::amount::Quantity;
use stockade::domain::id::{OrderId, UserId};
use stockade::domain::stock::{Attempt as Try, Back, CameBack, Cause, Command, Refusal};

use super::{Happening, Sender, World};
use crate::scenario::FAULTS_END;
use crate::story::{Attempt, Heard, What};
use crate::time::{MS, SECOND};

/// Where a saga stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    Pinning,
    /// Money moves; the bank's word comes.
    Charging,
    Confirming {
        part: bool,
    },
    Unpinning,
    /// The last decline, or a pin that was refused.
    Failing,
    Cancelling {
        by: u64,
    },
    Returning {
        back: Back,
        why: CameBack,
    },
    /// One question of an administrator.
    Alone(Command),
    Ended,
}

#[derive(Debug)]
pub struct Saga {
    who: UserId,
    order: Option<OrderId>,
    lines: Vec<(usize, Quantity)>,
    stage: Stage,
    line: usize,
    waiting_for: Option<usize>,
    /// Which attempt to pay it is, one more after each decline.
    pays: Try,
    /// Pays whatever happens, in one go.
    eager: bool,
    comes_back: bool,
}

impl Saga {
    pub fn has_ended(&self) -> bool {
        self.stage == Stage::Ended
    }

    fn question(&self) -> Option<(usize, Command)> {
        let (product, quantity) = *self.lines.get(self.line)?;
        if let Stage::Alone(command) = &self.stage {
            return Some((product, command.clone()));
        }
        let (order, attempt) = (self.order?, self.pays);
        let command = match &self.stage {
            Stage::Pinning => Command::Pin { order, attempt },
            Stage::Confirming { part } => {
                let part = part.then(|| Quantity::of_line(quantity.get() - 1)).flatten();
                Command::Confirm { order, quantity: part.unwrap_or(quantity), attempt }
            }
            Stage::Unpinning => Command::Unpin { order, attempt },
            Stage::Failing => {
                Command::Release { order, cause: Cause::PaymentFailed, by: u64::from(attempt.get()) }
            }
            Stage::Cancelling { by } => Command::Release { order, cause: Cause::Cancelled, by: *by },
            // Which return it is, its order and product say.
            Stage::Returning { back, why } => {
                Command::Return { order, quantity, back: *back, why: *why, by: 1 }
            }
            Stage::Charging | Stage::Alone(_) | Stage::Ended => return None,
        };
        Some((product, command))
    }
}

impl World {
    fn begin(&mut self, saga: Saga, after: i64) -> usize {
        let number = self.sagas.len();
        self.sagas.push(saga);
        self.plan(after, Happening::Saga(number));
        number
    }

    /// Pays an order. Its lines and what they hold are known from the order's attempt.
    pub(super) fn pay(&mut self, who: UserId, order: OrderId, lines: Vec<(usize, Quantity)>, eager: bool) {
        let hold_ms =
            lines.iter().map(|(product, _)| self.scenario.products[*product].settings.hold_ms).min();
        let at_the_last_moment = i64::from(hold_ms.unwrap_or(0)) - self.chance.between(-5, 40);
        let after = match self.chance.below(100) {
            _ if eager => MS,
            0..25 if at_the_last_moment < 10_000 => at_the_last_moment * MS,
            _ => self.chance.between(1, 4_000) * MS,
        };
        // A few are sold by hand, with the till beside it.
        if self.chance.percent(88) {
            return self.pays(who, order, lines, eager, after);
        }
        let comes_back = !eager && self.chance.percent(20);
        let stage = Stage::Pinning;
        let order = Some(order);
        self.begin(
            Saga {
                who,
                order,
                lines,
                stage,
                line: 0,
                waiting_for: None,
                pays: Try::FIRST,
                eager,
                comes_back,
            },
            after,
        );
    }

    pub(super) fn cancel(&mut self, who: UserId, order: OrderId, lines: Vec<(usize, Quantity)>) {
        let stage = Stage::Cancelling { by: self.chance.word() | 1 };
        let after = self.chance.between(0, 1_500) * MS;
        let order = Some(order);
        let (line, pays) = (0, Try::FIRST);
        self.begin(
            Saga { who, order, lines, stage, line, waiting_for: None, pays, eager: false, comes_back: false },
            after,
        );
    }

    pub(super) fn administer(&mut self, at: i64, product: usize, command: Command) {
        let Some(one) = Quantity::of_line(1) else { return };
        let who = self.stranger();
        let saga = Saga {
            who,
            order: None,
            lines: vec![(product, one)],
            stage: Stage::Alone(command),
            line: 0,
            waiting_for: None,
            pays: Try::FIRST,
            eager: false,
            comes_back: false,
        };
        self.begin(saga, at - self.now);
    }

    pub(super) fn saga_acts(&mut self, number: usize) {
        let Some(saga) = self.sagas.get(number) else { return };
        if saga.waiting_for.is_some() {
            return;
        }
        if saga.stage == Stage::Charging {
            return self.bank_says(number);
        }
        let Some((product, command)) = saga.question() else { return };
        let who = saga.who;
        let attempt = Attempt::new(who, What::Command { product, command }, self.now);
        let patience = self.chance.between(300, 1_500) * MS;
        let sent = self.send(Sender::Saga(number), attempt, patience);
        self.sagas[number].waiting_for = Some(sent);
    }

    fn bank_says(&mut self, number: usize) {
        let word = self.chance.below(100);
        let saga = &mut self.sagas[number];
        saga.line = 0;
        saga.stage = match word {
            _ if saga.eager => Stage::Confirming { part: false },
            0..60 => Stage::Confirming { part: false },
            60..70 => Stage::Confirming { part: true },
            70..85 if saga.pays == Try::FIRST => Stage::Unpinning,
            _ => Stage::Failing,
        };
        self.plan(MS, Happening::Saga(number));
    }

    pub(super) fn saga_hears(&mut self, number: usize, attempt: usize, heard: Option<Heard>) {
        let Some(saga) = self.sagas.get_mut(number) else { return };
        if saga.waiting_for != Some(attempt) {
            return;
        }
        saga.waiting_for = None;
        let again = self.chance.between(20, 400) * MS;
        match heard {
            None | Some(Heard::NotExecuted | Heard::Unknown) => self.plan(again, Happening::Saga(number)),
            Some(Heard::Refused { refused, .. }) => self.saga_refused(number, refused.why, again),
            Some(_) => self.saga_goes_on(number),
        }
    }

    fn saga_refused(&mut self, number: usize, why: Refusal, again: i64) {
        let Some(saga) = self.sagas.get_mut(number) else { return };
        match (&saga.stage, &why) {
            // The line is not kept yet: its owner will ask the home.
            (_, Refusal::StillPlacing) => self.plan(again, Happening::Saga(number)),
            (Stage::Pinning, _) => {
                if matches!(why, Refusal::HoldExpired) {
                    self.tally.reach("a lapse raced a pin and won");
                }
                saga.line = 0;
                saga.stage = Stage::Failing;
                self.plan(MS, Happening::Saga(number));
            }
            // Before its product is created an administrator waits.
            (Stage::Alone(_), Refusal::NoProduct) => self.plan(again, Happening::Saga(number)),
            (Stage::Confirming { .. }, _) => {
                let order = saga.order;
                self.violated(
                    "i4_each_hold_ends_once",
                    format!(
                        "{order:?}: charged with every line pinned, and the confirmation is refused: {why}"
                    ),
                );
            }
            // Ended before, or by somebody else: nothing is left to do for this line.
            _ => self.saga_goes_on(number),
        }
    }

    fn saga_goes_on(&mut self, number: usize) {
        let after = self.chance.between(5, 900) * MS;
        let comes_again = self.chance.percent(80);
        let back = if self.chance.percent(70) { Back::ToStock } else { Back::WrittenOff };
        // What is written off was used; what goes to stock has never left it.
        let why = if back == Back::ToStock { CameBack::Cancelled } else { CameBack::Returned };
        let Some(saga) = self.sagas.get_mut(number) else { return };
        saga.line += 1;
        if saga.line < saga.lines.len() {
            let pause = if saga.eager { MS } else { after / 8 };
            return self.plan(pause, Happening::Saga(number));
        }
        let reached = match saga.stage {
            Stage::Unpinning => Some("a payment was declined and tried again"),
            Stage::Confirming { part: true } => Some("part of a hold was confirmed"),
            Stage::Returning { .. } => Some("a sold unit was returned"),
            _ => None,
        };
        if saga.stage == Stage::Unpinning {
            saga.pays = saga.pays.next().unwrap_or(saga.pays);
        }
        saga.line = 0;
        saga.stage = match &saga.stage {
            Stage::Pinning => Stage::Charging,
            Stage::Unpinning if comes_again => Stage::Pinning,
            Stage::Confirming { part: false } if saga.comes_back => Stage::Returning { back, why },
            _ => Stage::Ended,
        };
        if saga.stage != Stage::Ended {
            let pause = if saga.eager { MS } else { after };
            self.plan(pause, Happening::Saga(number));
        }
        if let Some(reached) = reached {
            self.tally.reach(reached);
        }
    }

    /// How many have not ended.
    pub(super) fn sagas_under_way(&self) -> usize {
        self.sagas.iter().filter(|saga| !saga.has_ended()).count()
    }

    /// Buyers and administrators act until the doors close; what they began they finish.
    pub(super) fn doors_are_open(&self) -> bool {
        self.now < FAULTS_END - 8 * SECOND
    }
}
