//! How an order of several lines is placed: every line held, then born at its home, or nothing at all.
//!
//! A pure state machine, linear: one question at a time, its answer leads to the next. Holds are taken in order of
//! product id, so two orders never wait for each other. Until the home has journaled `Placed` the order does not
//! exist: its holds are invisible and lapse by themselves, whatever becomes of us.

use crate::actors::stock::{Answer, NotDone, Receipt, Reply};
use crate::domain::amount::{Money, Quantity};
use crate::domain::id::{OrderId, ProductId, UserId};
use crate::domain::stock::{
    Cause, Command, HoldState, KeyUse, Millis, OrderView, PLACING_MS, Place, PlacedLine, Refusal, Refused,
    Reserve, Sequence,
};

/// A clock that is set back is wrong by an hour, or by two.
const LEDGERS_AHEAD_MAX_MS: i64 = 2 * 3_600_000;

/// One line that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item {
    pub product: ProductId,
    pub quantity: Quantity,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Ask this product's owner and come back with its reply.
    Ask(ProductId, Command),
    Done(Result<Placed, NotDone>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placed {
    /// Born, with these lines; `keep` is to be told to the other lines' owners, now or when they ask.
    Born { order: OrderId, deadline: Millis, lines: Vec<PlacedLine>, keep: Vec<(ProductId, Command)> },
    /// The key had made this order before.
    Before(OrderId),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    Holding,
    Placing,
    Undoing(NotDone),
}

/// One attempt to place one order.
#[derive(Debug, Clone)]
pub struct Placement {
    order: OrderId,
    buyer: UserId,
    items: Vec<Item>,
    key: Option<KeyUse>,
    expected_total: Option<Money>,
    held: Vec<Receipt>,
    deadline: Millis,
    phase: Phase,
}

impl Placement {
    /// `items` name distinct products, at least one. The first in order of product id is the order's home.
    pub fn new(
        order: OrderId,
        buyer: UserId,
        mut items: Vec<Item>,
        key: Option<KeyUse>,
        expected_total: Option<Money>,
    ) -> Placement {
        items.sort_by_key(|item| item.product);
        let held = Vec::with_capacity(items.len());
        Placement {
            order,
            buyer,
            items,
            key,
            expected_total,
            held,
            deadline: Millis(0),
            phase: Phase::Holding,
        }
    }

    /// The first question.
    pub fn start(&mut self) -> Next {
        self.hold_next()
    }

    /// The next question after `reply` was heard at `now`.
    pub fn heard(&mut self, reply: Reply, now: Millis) -> Next {
        match (&self.phase, reply) {
            (Phase::Holding, Ok(Answer::Reserved(receipt))) => {
                self.held.push(receipt);
                if self.held.len() < self.items.len() { self.hold_next() } else { self.place(now) }
            }
            // Our own question of before, whose answer was lost; what it held has lapsed meanwhile.
            (Phase::Holding, Ok(Answer::Replayed(order))) if order == self.order => {
                self.undo(NotDone::Unavailable)
            }
            (Phase::Holding, Ok(Answer::Replayed(order))) if self.held.is_empty() => {
                Next::Done(Ok(Placed::Before(order)))
            }
            (Phase::Placing, Ok(Answer::Done { .. })) => self.born(),
            // Perhaps born. The holds stay: either the birth keeps them, or they lapse.
            (Phase::Placing, Err(NotDone::Unknown)) => Next::Done(Err(NotDone::Unknown)),
            (Phase::Placing, Err(_)) => self.undo(NotDone::Unavailable),
            (Phase::Holding, Err(why)) => self.undo(why),
            (Phase::Undoing(_), _) => self.undo_next(),
            (Phase::Holding | Phase::Placing, Ok(_)) => self.undo(NotDone::Internal),
        }
    }

    fn home(&self) -> Option<ProductId> {
        self.items.first().map(|item| item.product)
    }

    fn hold_next(&self) -> Next {
        let (Some(item), Some(home)) = (self.items.get(self.held.len()), self.home()) else {
            return Next::Done(Err(NotDone::Internal));
        };
        Next::Ask(
            item.product,
            Command::Reserve(Reserve {
                order: self.order,
                line: (self.held.len() + 1) as u8,
                buyer: self.buyer,
                quantity: item.quantity,
                key: self.key.filter(|_| self.held.is_empty()),
                expected: None,
                placing: Some(home),
            }),
        )
    }

    fn total(&self) -> Result<Money, Refusal> {
        let mut total: Option<Money> = None;
        for receipt in &self.held {
            let line = receipt.unit_price.times(receipt.quantity).ok_or(Refusal::AmountTooLarge)?;
            total = match total {
                None => Some(line),
                Some(sum) if sum.currency != line.currency => return Err(Refusal::TwoCurrencies),
                Some(sum) => Some(sum.plus(line).ok_or(Refusal::AmountTooLarge)?),
            };
        }
        let total = total.ok_or(Refusal::NothingToDo)?;
        match self.expected_total {
            Some(expected) if expected != total => Err(Refusal::PriceChanged { expected, actual: total }),
            _ => Ok(total),
        }
    }

    fn place(&mut self, now: Millis) -> Next {
        let Some(home) = self.home() else { return Next::Done(Err(NotDone::Internal)) };
        if let Err(why) = self.total() {
            let at = self.held.first().map_or(Sequence(0), |receipt| receipt.sequence);
            return self.undo(NotDone::Refused { product: home, refused: Refused { at, why } });
        }
        let hold_ms = self.held.iter().map(|receipt| receipt.hold_ms).min().unwrap_or(0);
        self.deadline = self.ledgers_time(now).plus(i64::from(hold_ms));
        self.phase = Phase::Placing;
        Next::Ask(
            home,
            Command::Place(Place { order: self.order, deadline: self.deadline, lines: self.lines() }),
        )
    }

    /// The latest of all lines' ledgers, by which each of them refuses what is due. After a clock was set back they are ahead of it: by
    /// the clock alone nobody could pay the order. One that is further ahead than clocks are set back keeps the others' units for no longer.
    fn ledgers_time(&self, now: Millis) -> Millis {
        let times = self.held.iter().map(|receipt| receipt.deadline.plus(-PLACING_MS));
        times.fold(now, Millis::max).min(now.plus(LEDGERS_AHEAD_MAX_MS))
    }

    fn lines(&self) -> Vec<PlacedLine> {
        self.held
            .iter()
            .map(|receipt| PlacedLine {
                line: receipt.line,
                product: receipt.product,
                quantity: receipt.quantity,
                unit_price: receipt.unit_price,
                sequence: receipt.sequence,
            })
            .collect()
    }

    fn born(&self) -> Next {
        let (order, deadline) = (self.order, self.deadline);
        let others = self.held.iter().skip(1);
        let keep = others.map(|receipt| (receipt.product, Command::Keep { order, deadline })).collect();
        Next::Done(Ok(Placed::Born { order, deadline, lines: self.lines(), keep }))
    }

    /// Gives back what was held, last first, and then says why.
    fn undo(&mut self, why: NotDone) -> Next {
        self.phase = Phase::Undoing(why);
        self.undo_next()
    }

    fn undo_next(&mut self) -> Next {
        let Phase::Undoing(why) = &self.phase else { return Next::Done(Err(NotDone::Internal)) };
        match self.held.pop() {
            Some(receipt) => Next::Ask(
                receipt.product,
                Command::Release { order: self.order, cause: Cause::NotPlaced, by: 0 },
            ),
            None => Next::Done(Err(why.clone())),
        }
    }
}

/// What a placing hold has to do after its home was asked: `None` means ask again later.
pub fn word_of_home(order: OrderId, at_home: Option<&OrderView>) -> Option<Command> {
    let not_placed = Command::Release { order, cause: Cause::NotPlaced, by: 0 };
    let Some(view) = at_home else { return Some(not_placed) };
    match view.state {
        HoldState::Placing => None,
        HoldState::Held | HoldState::Pinned | HoldState::Sold | HoldState::Expired => {
            Some(Command::Keep { order, deadline: view.deadline })
        }
        HoldState::Released(Cause::NotPlaced) => Some(not_placed),
        HoldState::Released(cause) => Some(Command::Release { order, cause, by: 0 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::amount::Currency;

    const HOLD_MS: u32 = 600_000;

    fn product(number: usize) -> ProductId {
        ProductId::from_bytes([number as u8; 16])
    }

    /// Every line of an order is held by ledgers that say that it is so late, and its birth is asked for at `now`.
    fn held(ledgers: &[i64], now: i64) -> (Placement, Next) {
        let quantity = Quantity::of_line(1).unwrap();
        let items = (0..ledgers.len()).map(|number| Item { product: product(number), quantity }).collect();
        let (order, buyer) = (OrderId::from_bytes([1; 16]), UserId::from_bytes([2; 16]));
        let mut placement = Placement::new(order, buyer, items, None, None);
        let mut next = placement.start();
        for (number, at) in ledgers.iter().enumerate() {
            assert!(
                matches!(&next, Next::Ask(asked, Command::Reserve(_)) if *asked == product(number)),
                "{next:?}"
            );
            let receipt = Receipt {
                order,
                product: product(number),
                line: number as u8 + 1,
                quantity,
                unit_price: Money { amount: 10, currency: Currency::KRW },
                sequence: Sequence(2),
                deadline: Millis(*at).plus(PLACING_MS),
                hold_ms: HOLD_MS,
            };
            next = placement.heard(Ok(Answer::Reserved(receipt)), Millis(now));
        }
        (placement, next)
    }

    #[test]
    fn an_order_is_due_by_the_ledger_that_is_furthest_ahead() {
        let deadline = |ledgers: &[i64], now| match held(ledgers, now).1 {
            Next::Ask(home, Command::Place(place)) if home == product(0) => place.deadline,
            other => panic!("{other:?}"),
        };
        let hold_ms = i64::from(HOLD_MS);
        assert_eq!(deadline(&[990, 995], 1_000), Millis(1_000 + hold_ms), "the clock, as a rule");
        // It was set back by an hour since the ledgers wrote last.
        let hour = 3_600_000;
        assert_eq!(deadline(&[hour, 990], 1_000), Millis(hour + hold_ms));
        assert_eq!(deadline(&[990, hour], 1_000), Millis(hour + hold_ms));
        let most = 1_000 + LEDGERS_AHEAD_MAX_MS + hold_ms;
        assert_eq!(deadline(&[990, 24 * hour], 1_000), Millis(most), "it was a day ahead once");
    }

    /// It was halted meanwhile, or is nowhere.
    #[test]
    fn where_the_home_decides_nothing_every_line_is_let_go_and_nothing_was_done() {
        for why in [NotDone::Internal, NotDone::Unavailable] {
            let (mut placement, _) = held(&[1_000; 3], 1_000);
            let mut next = placement.heard(Err(why.clone()), Millis(1_000));
            for number in (0..3).rev() {
                match next {
                    Next::Ask(line, Command::Release { cause: Cause::NotPlaced, .. })
                        if line == product(number) => {}
                    other => panic!("{other:?}"),
                }
                next = placement.heard(Err(why.clone()), Millis(1_000));
            }
            assert_eq!(next, Next::Done(Err(NotDone::Unavailable)));
        }
        let (mut placement, _) = held(&[1_000; 3], 1_000);
        let perhaps = placement.heard(Err(NotDone::Unknown), Millis(1_000));
        assert_eq!(perhaps, Next::Done(Err(NotDone::Unknown)), "the home will say, to each line that asks");
    }
}
