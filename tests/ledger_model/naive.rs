//! The same shop kept by hand: a list of sales, searched from end to end, and every number counted anew when asked.
//!
//! It shares the ledger's questions and answers and none of its code. It is slow, and it is meant to be read.

use stockade::domain::amount::{Money, Quantity};
use stockade::domain::id::{OrderId, ProductId, UserId};
use stockade::domain::stock::{
    Back, CameBack, Cause, Command, Confirmed, Counts, Created, Decision, Event, Expired, Forgotten, Held,
    HoldState, Kept, Key, KeyUse, Millis, ON_HAND_MAX, Place, Placed, PlacedLine, Refusal, Released, Reserve,
    Restock, Restocked, Returned, Sequence, Settings, Unpinned,
};

/// One order, from the moment it was held. It stays in the list for ever.
#[derive(Debug, Clone)]
pub struct Sale {
    pub order: OrderId,
    pub buyer: UserId,
    pub line: u8,
    pub key: Option<KeyUse>,
    pub asked: u32,
    pub sold: u32,
    pub came_back: u32,
    pub written_off: u32,
    pub price: Money,
    pub deadline: Millis,
    pub sequence: Sequence,
    pub state: HoldState,
    pub home: Option<ProductId>,
    /// Not before this is the home asked again.
    pub ask_at: Millis,
    pub lines: Vec<PlacedLine>,
    pub ended_by: u64,
    /// The attempt that has pinned it.
    pub pinned_by: Option<u8>,
    /// Attempts up to this one are over.
    pub over: u8,
    /// Returns that are told apart.
    pub returns: Vec<u64>,
    pub why: Option<CameBack>,
    pub forgotten: bool,
}

impl Sale {
    fn promises(&self) -> bool {
        [HoldState::Placing, HoldState::Held, HoldState::Pinned].contains(&self.state)
    }

    fn due_at(&self) -> Option<Millis> {
        match self.state {
            _ if self.forgotten => None,
            HoldState::Placing if self.ask_at > self.deadline => Some(self.ask_at),
            HoldState::Placing | HoldState::Held => Some(self.deadline),
            _ => None,
        }
    }

    fn still_has(&self) -> u32 {
        if self.promises() { self.asked } else { self.sold - self.came_back }
    }

    /// Why everything has come back, if it has.
    pub fn returned(&self) -> Option<CameBack> {
        self.why.filter(|_| self.sold == self.came_back)
    }

    /// What a reader is shown as its quantity.
    pub fn shown(&self) -> u32 {
        if self.state == HoldState::Sold { self.sold } else { self.asked }
    }
}

#[derive(Debug, Default)]
pub struct Naive {
    pub happened: u64,
    /// The latest time that stands in an entry.
    pub clock: Millis,
    pub settings: Option<Settings>,
    pub paused: bool,
    pub archived: bool,
    deliveries: Vec<(i64, Option<KeyUse>)>,
    pub sales: Vec<Sale>,
}

impl Naive {
    pub fn counts(&self) -> Counts {
        let delivered: i64 = self.deliveries.iter().map(|(units, _)| units).sum();
        let sum = |of: &dyn Fn(&Sale) -> u32| self.sales.iter().map(|sale| u64::from(of(sale))).sum::<u64>();
        let written_off = sum(&|sale| sale.written_off);
        Counts {
            on_hand: delivered as u64 - written_off,
            held: sum(&|sale| if sale.promises() { sale.asked } else { 0 }),
            sold: sum(&|sale| sale.sold - sale.came_back),
        }
    }

    pub fn bought_by(&self, buyer: UserId) -> u32 {
        self.sales.iter().filter(|sale| sale.buyer == buyer).map(Sale::still_has).sum()
    }

    pub fn next_deadline(&self) -> Option<Millis> {
        self.sales.iter().filter_map(Sale::due_at).min()
    }

    pub fn known(&self) -> impl Iterator<Item = &Sale> {
        self.sales.iter().filter(|sale| !sale.forgotten)
    }

    pub fn sale(&mut self, order: OrderId) -> Option<&mut Sale> {
        self.sales.iter_mut().find(|sale| sale.order == order && !sale.forgotten)
    }

    fn time(&self, now: Millis) -> Millis {
        if now < self.clock { self.clock } else { now }
    }

    /// Does what is asked, at once, and says what that was.
    pub fn ask(&mut self, command: &Command, now: Millis) -> Result<Decision, Refusal> {
        let answer = self.answer(command, self.time(now));
        if let Ok(Decision::Event(_)) = answer {
            self.happened += 1;
        }
        answer
    }

    fn answer(&mut self, command: &Command, now: Millis) -> Result<Decision, Refusal> {
        let created = self.settings.is_some();
        match command {
            Command::Create { .. } if created => return Err(Refusal::ProductExists),
            Command::Create { .. } => {}
            _ if !created => return Err(Refusal::NoProduct),
            _ => {}
        }
        let event = match command {
            Command::Create { settings, stock } => {
                if *stock > ON_HAND_MAX {
                    return Err(Refusal::TooMuchStock { limit: ON_HAND_MAX });
                }
                self.settings = Some(settings.clone());
                self.deliveries.push((*stock as i64, None));
                Event::Created(Created { settings: settings.clone(), stock: *stock })
            }
            Command::Configure(_) if self.archived => return Err(Refusal::Archived),
            Command::Configure(to) => {
                if self.settings.as_ref() == Some(to) {
                    return Ok(Decision::Done);
                }
                self.settings = Some(to.clone());
                Event::Configured(to.clone())
            }
            Command::Pause | Command::Resume => {
                let wanted = *command == Command::Pause;
                if self.paused == wanted {
                    return Ok(Decision::Done);
                }
                self.paused = wanted;
                if wanted { Event::Paused } else { Event::Resumed }
            }
            Command::Archive => {
                if self.archived {
                    return Ok(Decision::Done);
                }
                self.archived = true;
                Event::Archived
            }
            Command::Restock(ask) => return self.restock(ask),
            Command::Reserve(ask) => return self.reserve(ask, now),
            Command::Forget { unkeyed_before, keyed_before } => {
                let mut cancelled = Vec::new();
                for sale in self.sales.iter_mut().filter(|sale| !sale.forgotten) {
                    let before = if sale.key.is_some() { keyed_before } else { unkeyed_before };
                    let asks_again =
                        sale.state == HoldState::Released(Cause::Cancelled) && sale.ended_by != 0;
                    let nothing_came = matches!(sale.state, HoldState::Released(_) | HoldState::Expired);
                    if nothing_came && sale.deadline < *before {
                        sale.forgotten = true;
                        cancelled.extend(asks_again.then_some((sale.deadline, sale.order, sale.ended_by)));
                    }
                }
                cancelled.sort_unstable();
                let (unkeyed_before, keyed_before) = (*unkeyed_before, *keyed_before);
                let cancelled = cancelled.into_iter().map(|(_, order, by)| (order, by)).collect();
                Event::Forgotten(Forgotten { unkeyed_before, keyed_before, cancelled })
            }
            Command::Place(Place { order, .. })
            | Command::Keep { order, .. }
            | Command::Pin { order, .. }
            | Command::Unpin { order, .. }
            | Command::Confirm { order, .. }
            | Command::Release { order, .. }
            | Command::Return { order, .. } => {
                let sale = self.sale(*order).ok_or(Refusal::NoSuchOrder)?;
                match moved(sale, command, now)? {
                    Some(event) => event,
                    None => return Ok(Decision::Done),
                }
            }
        };
        Ok(Decision::Event(event))
    }

    fn restock(&mut self, ask: &Restock) -> Result<Decision, Refusal> {
        if let Some(key) = ask.key
            && let Some((_, Some(first))) =
                self.deliveries.iter().find(|(_, used)| used.is_some_and(|used| used.key == key.key))
        {
            let same = first.body == key.body;
            return if same { Ok(Decision::Done) } else { Err(Refusal::KeyReused { order: None }) };
        }
        let counts = self.counts();
        let would_be = i128::from(counts.on_hand) + i128::from(ask.delta);
        let promised = counts.held + counts.sold;
        if ask.delta == 0 {
            return Err(Refusal::NothingToDo);
        }
        if would_be > i128::from(ON_HAND_MAX) {
            return Err(Refusal::TooMuchStock { limit: ON_HAND_MAX });
        }
        if would_be < i128::from(promised) {
            return Err(Refusal::BelowPromised { promised, would_be: would_be as i64 });
        }
        self.deliveries.push((ask.delta, ask.key));
        let key = ask.key.map(|used| Key { key: used.key, body: used.body });
        Ok(Decision::Event(Event::Restocked(Restocked { delta: ask.delta, reason: ask.reason.clone(), key })))
    }

    fn reserve(&mut self, ask: &Reserve, now: Millis) -> Result<Decision, Refusal> {
        let wanted = ask.quantity.get();
        for sale in self.known() {
            if sale.buyer != ask.buyer {
                continue;
            }
            if let (Some(used), Some(key)) = (sale.key, ask.key)
                && used.key == key.key
            {
                return match sale.state {
                    _ if used.body != key.body => Err(Refusal::KeyReused { order: Some(sale.order) }),
                    HoldState::Placing if sale.order != ask.order => Err(Refusal::KeyInProgress),
                    _ => Ok(Decision::Replay(sale.order)),
                };
            }
        }
        if let Some(sale) = self.sale(ask.order) {
            // Once sold, an order may have become smaller, and is remembered so.
            let fits = sale.asked == wanted || sale.state == HoldState::Sold && sale.sold <= wanted;
            let same = sale.buyer == ask.buyer && sale.line == ask.line && fits;
            return if same { Ok(Decision::Replay(ask.order)) } else { Err(Refusal::OrderIdTaken) };
        }
        let settings = self.settings.clone().ok_or(Refusal::NoProduct)?;
        if self.archived {
            return Err(Refusal::Archived);
        }
        if self.paused {
            return Err(Refusal::Paused);
        }
        if let Some(opens_at) = settings.opens_at
            && opens_at > now
        {
            return Err(Refusal::NotOpen { opens_at });
        }
        if let Some(closed_at) = settings.closes_at
            && closed_at <= now
        {
            return Err(Refusal::Closed { closed_at });
        }
        let has = self.bought_by(ask.buyer);
        if let Some(limit) = settings.per_customer_limit
            && u64::from(has) + u64::from(wanted) > u64::from(limit)
        {
            return Err(Refusal::LimitExceeded { limit, has, requested: wanted });
        }
        let counts = self.counts();
        let available = counts.on_hand - counts.held - counts.sold;
        if u64::from(wanted) > available {
            return Err(Refusal::SoldOut { available, requested: wanted });
        }
        let total = i128::from(settings.price.amount) * i128::from(wanted);
        let Ok(amount) = i64::try_from(total) else { return Err(Refusal::AmountTooLarge) };
        let actual = Money { amount, ..settings.price };
        if let Some(expected) = ask.expected
            && actual != expected
        {
            return Err(Refusal::PriceChanged { expected, actual });
        }
        let patience = if ask.placing.is_some() { 5_000 } else { i64::from(settings.hold_ms) };
        let deadline = Millis(now.0 + patience);
        self.sales.push(Sale {
            order: ask.order,
            buyer: ask.buyer,
            line: ask.line,
            key: ask.key,
            asked: wanted,
            sold: 0,
            came_back: 0,
            written_off: 0,
            price: settings.price,
            deadline,
            sequence: Sequence(self.happened + 1),
            state: if ask.placing.is_some() { HoldState::Placing } else { HoldState::Held },
            home: ask.placing,
            ask_at: Millis(i64::MIN),
            lines: Vec::new(),
            ended_by: 0,
            pinned_by: None,
            over: 0,
            returns: Vec::new(),
            why: None,
            forgotten: false,
        });
        Ok(Decision::Event(Event::Held(Held {
            order: ask.order,
            line: ask.line,
            buyer: ask.buyer,
            quantity: ask.quantity,
            unit_price: settings.price,
            deadline,
            key: ask.key.map(|used| Key { key: used.key, body: used.body }),
            placing: ask.placing,
        })))
    }

    /// Makes the lapse true that the ledger proposes; says whether it is one of those due first.
    pub fn lapse(&mut self, event: &Event, now: Millis) -> bool {
        let first = self.next_deadline();
        let (order, line, quantity, unborn) = match event {
            Event::Expired(Expired { order, line, quantity }) => (*order, *line, *quantity, false),
            Event::Released(Released { order, line, quantity, cause: Cause::NotPlaced, by: 0 }) => {
                (*order, *line, *quantity, true)
            }
            _ => return false,
        };
        self.happened += 1;
        let Some(sale) = self.sale(order) else { return false };
        let told =
            (sale.line, sale.asked, sale.state == HoldState::Placing) == (line, quantity.get(), unborn);
        let due = sale.due_at() == first && sale.deadline <= now;
        sale.state = if unborn { HoldState::Released(Cause::NotPlaced) } else { HoldState::Expired };
        sale.forgotten = unborn;
        told && due
    }

    pub fn ask_again_at(&mut self, order: OrderId, at: Millis) {
        if let Some(sale) = self.sale(order)
            && sale.state == HoldState::Placing
        {
            sale.ask_at = at;
        }
    }
}

/// One order's next step. `None`: it has been taken before.
fn moved(sale: &mut Sale, command: &Command, now: Millis) -> Result<Option<Event>, Refusal> {
    use HoldState::{Expired, Held, Pinned, Placing, Released as Let, Sold};
    let (order, line) = (sale.order, sale.line);
    let refusal = match sale.state {
        Placing => Refusal::StillPlacing,
        Held => Refusal::NotPinned,
        Pinned => Refusal::PaymentRunning,
        Sold => Refusal::AlreadySold,
        Let(cause) => Refusal::AlreadyReleased { cause },
        Expired => Refusal::HoldExpired,
    };
    let in_time = now < sale.deadline;
    let born = [Held, Pinned, Sold].contains(&sale.state);
    let event = match command {
        Command::Place(_) | Command::Keep { .. } if born => return Ok(None),
        Command::Place(Place { deadline, lines, .. }) if sale.state == Placing => {
            if !in_time {
                return Err(Refusal::HoldExpired);
            }
            (sale.state, sale.deadline) = (Held, *deadline);
            (sale.lines, sale.home) = (lines.clone(), None);
            let key = sale.key.map(|used| Key { key: used.key, body: used.body });
            Event::Placed(Placed { order, buyer: sale.buyer, deadline: *deadline, key, lines: lines.clone() })
        }
        Command::Keep { deadline, .. } if sale.state == Placing => {
            (sale.state, sale.deadline) = (Held, *deadline);
            Event::Kept(Kept { order, deadline: *deadline })
        }
        Command::Pin { attempt, .. } if sale.state == Held => {
            if attempt.get() <= sale.over {
                return Err(Refusal::AttemptOver);
            }
            if !in_time {
                return Err(Refusal::HoldExpired);
            }
            (sale.state, sale.pinned_by) = (Pinned, Some(attempt.get()));
            Event::Pinned(stockade::domain::stock::Pinned { order, attempt: *attempt })
        }
        Command::Pin { attempt, .. } if sale.pinned_by == Some(attempt.get()) => return Ok(None),
        Command::Unpin { attempt, .. } if [Held, Pinned].contains(&sale.state) => {
            let older = sale.pinned_by.unwrap_or(sale.over + 1);
            match (sale.pinned_by, attempt.get()) {
                (_, attempt) if attempt < older => return Ok(None),
                (Some(by), attempt) if attempt > by => return Err(refusal),
                (Some(_), _) => sale.deadline.0 = sale.deadline.0.max(now.0 + 60_000),
                (None, _) => {}
            }
            (sale.state, sale.pinned_by, sale.over) = (Held, None, attempt.get());
            Event::Unpinned(Unpinned { order, deadline: sale.deadline, attempt: *attempt })
        }
        Command::Confirm { quantity, attempt, .. } if sale.pinned_by == Some(attempt.get()) => {
            if quantity.get() > sale.asked {
                return Err(Refusal::MoreThanHeld { confirmed: quantity.get(), held: sale.asked });
            }
            (sale.state, sale.sold, sale.pinned_by) = (Sold, quantity.get(), None);
            Event::Confirmed(Confirmed {
                order,
                line,
                quantity: *quantity,
                held: Quantity::of_line(sale.asked),
            })
        }
        Command::Confirm { quantity, .. } if sale.state == Sold && sale.sold == quantity.get() => {
            return Ok(None);
        }
        Command::Release { cause, by, .. } => {
            let may = match sale.state {
                Held if *cause == Cause::PaymentFailed && *by <= u64::from(sale.over) => {
                    return Err(Refusal::AttemptOver);
                }
                Placing => true,
                // An order that was born was placed.
                Held => *cause != Cause::NotPlaced,
                Pinned => *cause == Cause::PaymentFailed && sale.pinned_by.map(u64::from) == Some(*by),
                Let(before) if before == *cause && *by != 0 && *by == sale.ended_by => return Ok(None),
                _ => false,
            };
            if !may {
                return Err(refusal);
            }
            (sale.state, sale.ended_by, sale.pinned_by) = (Let(*cause), *by, None);
            sale.forgotten = *cause == Cause::NotPlaced;
            let quantity = Quantity::of_line(sale.asked).unwrap();
            Event::Released(Released { order, line, quantity, cause: *cause, by: *by })
        }
        Command::Return { .. } if sale.state != Sold => return Err(refusal),
        Command::Return { by, .. } if *by != 0 && sale.returns.contains(by) => return Ok(None),
        Command::Return { quantity, back, why, by, .. } => {
            let left = sale.sold - sale.came_back;
            if quantity.get() > left {
                return Err(Refusal::MoreThanSold { returned: quantity.get(), sold: left });
            }
            sale.came_back += quantity.get();
            sale.returns.push(*by);
            sale.why = Some(*why);
            let to_stock = *back == Back::ToStock;
            if !to_stock {
                sale.written_off += quantity.get();
            }
            let (why, by, whole) = (*why, *by, quantity.get() == left);
            Event::Returned(Returned { order, line, quantity: *quantity, to_stock, why, by, whole })
        }
        _ => return Err(refusal),
    };
    Ok(Some(event))
}
