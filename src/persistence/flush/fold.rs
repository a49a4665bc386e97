//! What a run of the journal makes of the tables: a pure function, used by the flush and by the audit alike.
//!
//! An order that is born in the run is one row in its final state, however often it moved; an order born before it
//! is moved by its id. Holds that wait for their order's birth make nothing, and leave nothing when they end unborn.
//! Always true: a product's counters follow its row's sequence without a gap, and stay conserved.

use std::collections::BTreeMap;

use hashbrown::HashMap;

use crate::domain::amount::{Money, Quantity};
use crate::domain::id::{OrderId, ProductId};
use crate::domain::order::{Line, LineStatus, Order, OrderStatus};
use crate::domain::stock::{
    CameBack, Cause, Confirmed, Created, Entry, Event, Forgotten, Forked, Held, Millis, Placed, Released,
    Returned, Sequence, Unpinned, UnreadableEvent, decode_events,
};
use crate::persistence::order::{At, Born};
use crate::persistence::stock::Stock;

/// The journal cannot be what the tables follow from. The flush stops before it, for all products; nothing is skipped.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    #[error(transparent)]
    Forked(#[from] Forked),
    #[error("{product}: entry {first} cannot be read: {source}", first = first.0)]
    Unreadable { product: ProductId, first: Sequence, source: UnreadableEvent },
    #[error("{product}: an event at {at} comes before the product was created", at = at.0)]
    NotCreated { product: ProductId, at: Sequence },
    #[error("{product}: {order} is confirmed, but nothing is known of its hold")]
    UnknownHold { product: ProductId, order: OrderId },
    #[error("{product}: {order} was placed without lines, or its total is beyond counting")]
    Placed { product: ProductId, order: OrderId },
    #[error("{product}: on hand ≠ available + held + sold after {at}", at = at.0)]
    NotConserved { product: ProductId, at: Sequence },
}

/// An entry with its events read.
#[derive(Debug, Clone)]
pub struct Run {
    pub entry: Entry,
    pub events: Vec<Event>,
}

impl Run {
    pub fn of(entry: Entry) -> Result<Run, FoldError> {
        let (product, first) = (entry.product, entry.first);
        let events = decode_events(&entry.events).map_err(|source| FoldError::Unreadable {
            product,
            first,
            source,
        })?;
        let (named, held) = (entry.count(), events.len() as u64);
        if named != held {
            return Err(Forked::Count { product, first, named, held }.into());
        }
        Ok(Run { entry, events })
    }
}

/// What must be known before: the rows of the products that are touched, and how many units the holds had that are
/// confirmed by events which do not say it: those of the first version.
#[derive(Debug, Default)]
pub struct Ground {
    pub stock: BTreeMap<ProductId, Stock>,
    pub held: HashMap<(OrderId, ProductId), u32>,
}

/// How holds ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ending {
    Expired,
    Cancelled,
    PaymentFailed,
}

impl Ending {
    /// What becomes of the order when this happens at its home.
    pub fn status(self) -> OrderStatus {
        match self {
            Ending::Expired => OrderStatus::Expired,
            Ending::Cancelled => OrderStatus::Cancelled,
            Ending::PaymentFailed => OrderStatus::PaymentFailed,
        }
    }
}

/// What happened to one order's line that has a row already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moved<T> {
    pub at: At,
    pub order: OrderId,
    pub to: T,
}

/// Sold units that came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Returning {
    pub quantity: Quantity,
    /// No unit of the line is sold any more.
    pub whole: bool,
    pub why: CameBack,
}

/// One product's row: where it must stand, and what it becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StockChange {
    /// `None` for a product that had no row.
    pub before: Option<Sequence>,
    pub after: Stock,
}

/// The last time in a run that a product's last unit went, or one came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    pub sequence: Sequence,
    pub at: Millis,
    /// Right after it.
    pub available: u64,
}

/// What is to be written, in the order in which it may be written.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// In order of id.
    pub born: Vec<Born>,
    pub deadlines: Vec<Moved<Millis>>,
    pub ended: BTreeMap<(ProductId, Ending), Vec<(OrderId, Millis)>>,
    pub confirmed: BTreeMap<(ProductId, Quantity), Vec<(OrderId, Millis)>>,
    /// In the order in which they happened.
    pub returned: Vec<Moved<Returning>>,
    /// What cancelled orders at home here that their ledger has dropped.
    pub cancelled_by: BTreeMap<ProductId, Vec<(OrderId, u64)>>,
    pub stock: Vec<StockChange>,
    pub turns: BTreeMap<ProductId, Turn>,
}

/// Folds a run of the journal, in its order, upon what stands before it.
pub fn fold(runs: &[Run], ground: Ground) -> Result<Changes, FoldError> {
    let mut fold = Fold {
        stock: ground.stock.into_iter().map(|(id, stock)| (id, (Some(stock.sequence), stock))).collect(),
        held: ground.held,
        ..Fold::default()
    };
    for run in runs {
        fold.run(run)?;
    }
    Ok(fold.changes())
}

#[derive(Default)]
struct Fold {
    changes: Changes,
    /// Where in `changes.born` an order is.
    born: HashMap<OrderId, usize>,
    stock: BTreeMap<ProductId, (Option<Sequence>, Stock)>,
    held: HashMap<(OrderId, ProductId), u32>,
}

impl Fold {
    fn run(&mut self, Run { entry, events }: &Run) -> Result<(), FoldError> {
        let (sequence, hash) = match self.stock.get(&entry.product) {
            Some((_, stock)) => (stock.sequence, stock.hash),
            None => Default::default(),
        };
        entry.continues(sequence, hash)?;
        let at = At { product: entry.product, at: entry.at };
        let mut sequence = sequence;
        for event in events {
            sequence = sequence.next();
            self.count(at, sequence, event)?;
            self.tell(at, sequence, event)?;
        }
        if let Some((_, stock)) = self.stock.get_mut(&entry.product) {
            stock.hash = entry.hash;
            stock.updated_at = entry.at;
        }
        Ok(())
    }

    /// The product's counters and settings.
    fn count(&mut self, at: At, sequence: Sequence, event: &Event) -> Result<(), FoldError> {
        if let Event::Created(created) = event {
            self.stock.entry(at.product).or_insert_with(|| (None, first_row(at, created)));
        }
        let before_confirm = match event {
            Event::Confirmed(confirmed) => self.units_held(at.product, confirmed)?,
            _ => 0,
        };
        let (_, stock) = self
            .stock
            .get_mut(&at.product)
            .ok_or(FoldError::NotCreated { product: at.product, at: sequence })?;
        stock.sequence = sequence;
        let counts = &mut stock.counts;
        let had = counts.available();
        let wrong = FoldError::NotConserved { product: at.product, at: sequence };
        let counted = match event {
            Event::Restocked(restocked) => {
                counts.on_hand.checked_add_signed(restocked.delta).map(|units| counts.on_hand = units)
            }
            Event::Held(held) => add(&mut counts.held, held.quantity.get()),
            Event::Released(Released { quantity, .. }) => take(&mut counts.held, quantity.get()),
            Event::Expired(expired) => take(&mut counts.held, expired.quantity.get()),
            Event::Confirmed(confirmed) => take(&mut counts.held, before_confirm)
                .and_then(|()| add(&mut counts.sold, confirmed.quantity.get())),
            Event::Returned(Returned { quantity, to_stock, .. }) => take(&mut counts.sold, quantity.get())
                .and_then(|()| if *to_stock { Some(()) } else { take(&mut counts.on_hand, quantity.get()) }),
            _ => Some(()),
        };
        let available = counts.available();
        if (had == 0) != (available == 0) {
            self.changes.turns.insert(at.product, Turn { sequence, at: at.at, available });
        }
        match event {
            Event::Configured(settings) => stock.settings = settings.clone(),
            Event::Paused => stock.paused = true,
            Event::Resumed => stock.paused = false,
            Event::Archived => stock.archived = true,
            _ => {}
        }
        let conserved = counts.promised() <= counts.on_hand;
        counted.filter(|()| conserved).ok_or(wrong)
    }

    /// How many units the hold had that is confirmed now.
    fn units_held(&self, product: ProductId, confirmed: &Confirmed) -> Result<u32, FoldError> {
        if let Some(held) = confirmed.held {
            return Ok(held.get());
        }
        let order = confirmed.order;
        let here = self.born.get(&order).and_then(|at| self.changes.born.get(*at));
        let line = here.and_then(|born| born.order.lines.iter().find(|line| line.product == product));
        line.map(|line| line.quantity.get())
            .or_else(|| self.held.get(&(order, product)).copied())
            .ok_or(FoldError::UnknownHold { product, order })
    }

    /// What people see of it.
    fn tell(&mut self, at: At, sequence: Sequence, event: &Event) -> Result<(), FoldError> {
        match event {
            Event::Held(held) if held.placing.is_none() => self.born_of_one_line(at, sequence, held),
            Event::Placed(placed) => self.born_of_many(at, placed)?,
            Event::Unpinned(Unpinned { order, deadline, .. }) => self.new_deadline(at, *order, *deadline),
            Event::Expired(expired) => self.end(at, expired.order, Ending::Expired),
            Event::Released(released) => match released.cause {
                Cause::Cancelled => self.end(at, released.order, Ending::Cancelled),
                Cause::PaymentFailed => self.end(at, released.order, Ending::PaymentFailed),
                Cause::NotPlaced => {}
            },
            Event::Confirmed(confirmed) => self.confirm(at, confirmed),
            Event::Returned(returned) => self.give_back(at, returned),
            Event::Forgotten(forgotten) if forgotten.cancelled.is_empty() => {}
            Event::Forgotten(Forgotten { cancelled, .. }) => {
                self.changes.cancelled_by.entry(at.product).or_default().extend(cancelled);
            }
            // A hold that waits is invisible; `Kept` is said where the order is not at home; a pin is no state of
            // an order; the rest is the product's own.
            Event::Held(_) | Event::Kept(_) | Event::Pinned(_) => {}
            Event::Created(_) | Event::Configured(_) | Event::Restocked(_) => {}
            Event::Paused | Event::Resumed | Event::Archived => {}
        }
        Ok(())
    }

    fn bear(&mut self, born: Born) {
        self.born.insert(born.order.id, self.changes.born.len());
        self.changes.born.push(born);
    }

    /// The hold of an order of one line is its birth.
    fn born_of_one_line(&mut self, at: At, sequence: Sequence, held: &Held) {
        // `decide` refused a line whose amount cannot be counted.
        let total = held.unit_price.times(held.quantity).unwrap_or(held.unit_price);
        let line = Line {
            line: held.line,
            product: at.product,
            quantity: held.quantity,
            unit_price: held.unit_price,
            sequence,
            status: LineStatus::Held,
        };
        self.bear(Born {
            order: Order {
                id: held.order,
                buyer: held.buyer,
                home: at.product,
                status: OrderStatus::PendingPayment,
                lines: vec![line],
                total,
                hold_expires_at: held.deadline,
                created_at: held.order.made_at(),
                updated_at: at.at,
                version: 1,
            },
            key: held.key,
        });
    }

    fn born_of_many(&mut self, at: At, placed: &Placed) -> Result<(), FoldError> {
        let unplaced = FoldError::Placed { product: at.product, order: placed.order };
        let mut lines: Vec<Line> = placed
            .lines
            .iter()
            .map(|line| Line {
                line: line.line,
                product: line.product,
                quantity: line.quantity,
                unit_price: line.unit_price,
                sequence: line.sequence,
                status: LineStatus::Held,
            })
            .collect();
        lines.sort_by_key(|line| line.line);
        let Some(total) = total(&lines) else { return Err(unplaced) };
        self.bear(Born {
            order: Order {
                id: placed.order,
                buyer: placed.buyer,
                home: at.product,
                status: OrderStatus::PendingPayment,
                lines,
                total,
                hold_expires_at: placed.deadline,
                created_at: placed.order.made_at(),
                updated_at: at.at,
                version: 1,
            },
            key: placed.key,
        });
        Ok(())
    }

    /// The order, if it was born in this run.
    fn young(&mut self, order: OrderId) -> Option<&mut Order> {
        let at = self.born.get(&order)?;
        self.changes.born.get_mut(*at).map(|born| &mut born.order)
    }

    fn new_deadline(&mut self, at: At, order: OrderId, deadline: Millis) {
        match self.young(order) {
            Some(young) if young.home == at.product && young.status == OrderStatus::PendingPayment => {
                young.hold_expires_at = deadline;
                touch(young, at);
            }
            Some(_) => {}
            None => self.changes.deadlines.push(Moved { at, order, to: deadline }),
        }
    }

    fn end(&mut self, at: At, order: OrderId, ending: Ending) {
        match self.young(order) {
            Some(young) => {
                move_line(young, at.product, LineStatus::Released);
                move_order(young, at, ending.status());
            }
            None => self.changes.ended.entry((at.product, ending)).or_default().push((order, at.at)),
        }
    }

    fn confirm(&mut self, at: At, confirmed: &Confirmed) {
        let (order, quantity) = (confirmed.order, confirmed.quantity);
        match self.young(order) {
            Some(young) => {
                if move_line(young, at.product, LineStatus::Ordered)
                    && let Some(line) = young.lines.iter_mut().find(|line| line.product == at.product)
                {
                    line.quantity = quantity;
                }
                move_order(young, at, OrderStatus::Paid);
            }
            None => {
                self.changes.confirmed.entry((at.product, quantity)).or_default().push((order, at.at));
            }
        }
    }

    /// When all units of a line are back it has ended, and when all lines of a paid order have, so has the order. Which
    /// product's line that was does not matter.
    fn give_back(&mut self, at: At, returned: &Returned) {
        let Returned { order, quantity, whole, why, .. } = *returned;
        let Some(young) = self.young(order) else {
            return self.changes.returned.push(Moved { at, order, to: Returning { quantity, whole, why } });
        };
        let line = young.lines.iter_mut().find(|line| line.product == at.product);
        if let Some(line) = line.filter(|line| whole || line.quantity <= quantity)
            && let Ok(status) = line.status.came_back(why)
        {
            line.status = status;
        }
        if let Some(status) = OrderStatus::of_ended(young.lines.iter().map(|line| line.status))
            && let Ok(status) = young.status.moved_to(status)
            && young.status == OrderStatus::Paid
        {
            young.status = status;
            touch(young, at);
        }
    }

    fn changes(self) -> Changes {
        let Fold { mut changes, stock, .. } = self;
        changes.born.sort_unstable_by_key(|born| born.order.id);
        changes.ended.values_mut().for_each(|orders| orders.sort_unstable());
        changes.confirmed.values_mut().for_each(|orders| orders.sort_unstable());
        changes.stock = stock
            .into_values()
            .filter(|(before, after)| *before != Some(after.sequence))
            .map(|(before, after)| StockChange { before, after })
            .collect();
        changes
    }
}

fn first_row(at: At, created: &Created) -> Stock {
    let mut stock = Stock {
        product: at.product,
        sequence: Sequence(0),
        hash: Default::default(),
        counts: Default::default(),
        settings: created.settings.clone(),
        paused: false,
        archived: false,
        updated_at: at.at,
    };
    stock.counts.on_hand = created.stock;
    stock
}

fn add(counter: &mut u64, units: u32) -> Option<()> {
    *counter = counter.checked_add(u64::from(units))?;
    Some(())
}

fn take(counter: &mut u64, units: u32) -> Option<()> {
    *counter = counter.checked_sub(u64::from(units))?;
    Some(())
}

fn total(lines: &[Line]) -> Option<Money> {
    let mut amounts = lines.iter().map(|line| line.unit_price.times(line.quantity));
    let first = amounts.next()??;
    amounts.try_fold(first, |sum, amount| sum.plus(amount?))
}

fn touch(order: &mut Order, at: At) {
    order.updated_at = at.at;
    order.version += 1;
}

/// Moves the line of this product, if the table of legal moves has the row.
fn move_line(order: &mut Order, product: ProductId, to: LineStatus) -> bool {
    let line = order.lines.iter_mut().find(|line| line.product == product);
    match line.map(|line| (line.status.moved_to(to), line)) {
        Some((Ok(status), line)) => {
            line.status = status;
            true
        }
        _ => false,
    }
}

/// Moves the order, if this is its home and the table of legal moves has the row.
fn move_order(order: &mut Order, at: At, to: OrderStatus) {
    if order.home == at.product
        && let Ok(status) = order.status.moved_to(to)
    {
        order.status = status;
        touch(order, at);
    }
}
