//! The rule of stock: who gets a unit, in which order, and what becomes of it.
//!
//! `decide` refuses or names one event; `apply` (next door) makes it true. Deciding changes nothing.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::command::{Back, CameBack, Command, KeyUse, Place, Reserve, Restock};
use super::event::{
    Confirmed, Created, Event, Expired, Held, Kept, Key, Pinned, Placed, PlacedLine, Released, Restocked,
    Returned, Unpinned,
};
use super::order_table::{HoldState, Many, OrderTable, Record};
use super::refusal::{Refusal, Refused};
use super::{
    Attempt, Cause, ChainHash, Counts, Millis, ON_HAND_MAX, PLACING_MS, SaleState, Sequence, Settings,
    UNPIN_GRACE_MS,
};
use crate::domain::amount::{Money, Quantity};
use crate::domain::id::{OrderId, ProductId, UserId};

/// What a command leads to when it is not refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// This happens.
    Event(Event),
    /// It happened before: the order of the first request with this key.
    Replay(OrderId),
    /// It happened before, and there is nothing to look up.
    Done,
}

/// One order's share of this product, to be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderView {
    pub order: OrderId,
    pub product: ProductId,
    pub buyer: UserId,
    pub line: u8,
    pub quantity: Quantity,
    pub unit_price: Money,
    pub deadline: Millis,
    pub sequence: Sequence,
    pub state: HoldState,
    /// All that was sold has come back, the last of it for this reason.
    pub returned: Option<CameBack>,
    /// The whole order, when it has several lines and this is its home.
    pub lines: Vec<PlacedLine>,
    /// Where the whole order is known, when it is not here.
    pub home: Option<ProductId>,
}

/// One product's stock: the state that its events add up to.
#[derive(Debug, Default)]
pub struct Ledger {
    pub(super) sequence: Sequence,
    pub(super) hash: ChainHash,
    pub(super) last_at: Millis,
    pub(super) settings: Option<Settings>,
    pub(super) counts: Counts,
    pub(super) paused: bool,
    pub(super) archived: bool,
    pub(super) orders: OrderTable,
    /// Live holds plus sold units of each buyer who has any.
    pub(super) buyers: HashMap<UserId, u32>,
    /// Keys of restocks. An administrator makes few of them.
    pub(super) restocks: BTreeMap<[u8; 16], u64>,
}

impl Ledger {
    pub fn sequence(&self) -> Sequence {
        self.sequence
    }

    /// The chain hash after the last sealed entry.
    pub fn hash(&self) -> ChainHash {
        self.hash
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    pub fn settings(&self) -> Option<&Settings> {
        self.settings.as_ref()
    }

    pub fn is_paused(&self) -> bool {
        self.paused
    }

    pub fn is_archived(&self) -> bool {
        self.archived
    }

    /// How many orders the ledger remembers, live or ended.
    pub fn remembered(&self) -> usize {
        self.orders.len()
    }

    /// The ledger's own time: it never goes back.
    pub fn time(&self, now: Millis) -> Millis {
        now.max(self.last_at)
    }

    /// Whether the product can be bought at `now`. Precedence: archived, paused, not open, closed.
    pub fn sale_state(&self, now: Millis) -> SaleState {
        SaleState::of(self.archived, self.paused, self.settings.as_ref(), now)
    }

    /// What this product knows of an order.
    pub fn order(&self, product: ProductId, order: OrderId) -> Option<OrderView> {
        let record = self.orders.get(order)?;
        let (lines, home) = match record.many.as_deref() {
            None => (Vec::new(), None),
            Some(Many::Home { home, .. }) => (Vec::new(), Some(*home)),
            Some(Many::Lines(lines)) => (lines.clone(), None),
        };
        Some(OrderView {
            order,
            product,
            buyer: record.buyer,
            line: record.line,
            quantity: record.quantity,
            unit_price: record.unit_price,
            deadline: record.deadline,
            sequence: record.sequence,
            state: record.state,
            returned: record.returns.as_deref().filter(|_| record.sold == 0).map(|returns| returns.why),
            lines,
            home,
        })
    }

    /// The order made with this key, and the hash of its request.
    pub fn order_of_key(&self, buyer: UserId, key: [u8; 16]) -> Option<(OrderId, u64)> {
        self.orders.by_key(buyer, key).map(|record| (record.order, record.body))
    }

    /// Live holds plus sold units of one buyer.
    pub fn bought_by(&self, buyer: UserId) -> u32 {
        self.buyers.get(&buyer).copied().unwrap_or(0)
    }

    /// The orders whose hold is pinned, and by which attempt, in no order that means anything.
    pub fn pinned(&self) -> impl Iterator<Item = (OrderId, Attempt)> {
        let pinned = self.orders.iter().filter(|record| record.state == HoldState::Pinned);
        pinned.filter_map(|record| Some((record.order, Attempt::new(record.attempt)?)))
    }

    /// The orders whose hold here stands and waits for its payment, and whose home is another product than `this`; in no order that
    /// means anything.
    pub fn held_for_others(&self, this: ProductId) -> impl Iterator<Item = (OrderId, ProductId)> {
        let held = self.orders.iter().filter(|record| record.state == HoldState::Held);
        held.filter_map(move |record| match record.many.as_deref() {
            Some(Many::Home { home, .. }) if *home != this => Some((record.order, *home)),
            _ => None,
        })
    }

    /// Everyone who has a live hold or a sold unit.
    pub fn buyers(&self) -> impl Iterator<Item = UserId> {
        self.buyers.keys().copied()
    }

    /// The keys of all orders remembered.
    pub fn keys(&self) -> impl Iterator<Item = (OrderId, UserId, [u8; 16])> {
        self.orders
            .iter()
            .filter(|record| record.keyed)
            .map(|record| (record.order, record.buyer, record.key))
    }

    /// When the next hold lapses, or the home of the next placing hold is to be asked.
    pub fn next_deadline(&self) -> Option<Millis> {
        self.orders.first_due().and_then(Record::due_at)
    }

    /// The lapse of the hold that is due first, if one is due at `now`. Ask [`Ledger::placing_due`] before: a hold that
    /// waits for its order's birth elsewhere lapses only when its home was asked.
    pub fn due(&self, now: Millis) -> Option<Event> {
        let record = self.orders.first_due().filter(|record| record.due_at() <= Some(now))?;
        let (order, line, quantity) = (record.order, record.line, record.quantity);
        Some(match record.state {
            HoldState::Placing => {
                Event::Released(Released { order, line, quantity, cause: Cause::NotPlaced, by: 0 })
            }
            _ => Event::Expired(Expired { order, line, quantity }),
        })
    }

    /// The order whose placing is due first, with its home, if that is another product than `this`.
    pub fn placing_due(&self, this: ProductId, now: Millis) -> Option<(OrderId, ProductId)> {
        let record = self.orders.first_due().filter(|record| record.due_at() <= Some(now))?;
        match (record.state, record.many.as_deref()) {
            (HoldState::Placing, Some(Many::Home { home, .. })) if *home != this => {
                Some((record.order, *home))
            }
            _ => None,
        }
    }

    /// Puts off the lapse of a placing hold while its home is asked. In memory only: after a restart it is due
    /// again and asked again.
    pub fn ask_again_at(&mut self, order: OrderId, at: Millis) {
        self.orders.change(order, |record| {
            if let Some(Many::Home { ask_at, .. }) = record.many.as_deref_mut() {
                *ask_at = at;
            }
        });
    }

    /// Decides a command at `now`. Nothing changes here.
    pub fn decide(&self, command: &Command, now: Millis) -> Result<Decision, Refused> {
        self.decision(command, self.time(now)).map_err(|why| Refused { at: self.sequence, why })
    }

    fn decision(&self, command: &Command, now: Millis) -> Result<Decision, Refusal> {
        if let Command::Create { settings, stock } = command {
            return self.create(settings, *stock);
        }
        let settings = self.settings.as_ref().ok_or(Refusal::NoProduct)?;
        match command {
            Command::Create { .. } => Err(Refusal::ProductExists),
            Command::Reserve(reserve) => self.reserve(settings, reserve, now),
            Command::Configure(_) if self.archived => Err(Refusal::Archived),
            Command::Configure(to) if to == settings => Ok(Decision::Done),
            Command::Configure(to) => Ok(Decision::Event(Event::Configured(to.clone()))),
            Command::Restock(restock) => self.restock(restock),
            Command::Pause if self.paused => Ok(Decision::Done),
            Command::Pause => Ok(Decision::Event(Event::Paused)),
            Command::Resume if !self.paused => Ok(Decision::Done),
            Command::Resume => Ok(Decision::Event(Event::Resumed)),
            Command::Archive if self.archived => Ok(Decision::Done),
            Command::Archive => Ok(Decision::Event(Event::Archived)),
            Command::Place(place) => self.place(place, now),
            Command::Keep { order, deadline } => self.keep(*order, *deadline),
            Command::Pin { order, attempt } => self.pin(*order, *attempt, now),
            Command::Unpin { order, attempt } => self.unpin(*order, *attempt, now),
            Command::Confirm { order, quantity, attempt } => self.confirm(*order, *quantity, *attempt),
            Command::Release { order, cause, by } => self.release(*order, *cause, *by),
            Command::Return { order, quantity, back, why, by } => {
                self.give_back(*order, *quantity, *back, *why, *by)
            }
            Command::Forget { unkeyed_before, keyed_before } => {
                let forgotten = self.forgotten(*unkeyed_before, *keyed_before);
                Ok(Decision::Event(Event::Forgotten(forgotten)))
            }
        }
    }

    fn create(&self, settings: &Settings, stock: u64) -> Result<Decision, Refusal> {
        if self.settings.is_some() {
            return Err(Refusal::ProductExists);
        }
        if stock > ON_HAND_MAX {
            return Err(Refusal::TooMuchStock { limit: ON_HAND_MAX });
        }
        Ok(Decision::Event(Event::Created(Created { settings: settings.clone(), stock })))
    }

    /// Key first, then the sale's state, the customer's limit and at last the stock.
    fn reserve(&self, settings: &Settings, ask: &Reserve, now: Millis) -> Result<Decision, Refusal> {
        if let Some(KeyUse { key, body }) = ask.key
            && let Some(first) = self.orders.by_key(ask.buyer, key)
        {
            return match (first.body == body, first.state) {
                (false, _) => Err(Refusal::KeyReused { order: Some(first.order) }),
                // The very same question, whose answer was lost.
                (true, HoldState::Placing) if first.order == ask.order => Ok(Decision::Replay(first.order)),
                (true, HoldState::Placing) => Err(Refusal::KeyInProgress),
                (true, _) => Ok(Decision::Replay(first.order)),
            };
        }
        if let Some(known) = self.orders.get(ask.order) {
            // A sold hold may have shrunk to what was confirmed.
            let shrunk = known.state == HoldState::Sold && known.quantity <= ask.quantity;
            let quantity = known.quantity == ask.quantity || shrunk;
            let same = known.buyer == ask.buyer && known.line == ask.line && quantity;
            return if same { Ok(Decision::Replay(known.order)) } else { Err(Refusal::OrderIdTaken) };
        }
        self.sellable(now)?;
        let requested = ask.quantity.get();
        let has = self.bought_by(ask.buyer);
        let limit = settings.per_customer_limit.unwrap_or(u32::MAX);
        if has.checked_add(requested).is_none_or(|sum| sum > limit) {
            return Err(Refusal::LimitExceeded { limit, has, requested });
        }
        let available = self.counts.available();
        if available < u64::from(requested) {
            return Err(Refusal::SoldOut { available, requested });
        }
        let total = settings.price.times(ask.quantity).ok_or(Refusal::AmountTooLarge)?;
        if let Some(expected) = ask.expected
            && expected != total
        {
            return Err(Refusal::PriceChanged { expected, actual: total });
        }
        let patience = if ask.placing.is_some() { PLACING_MS } else { i64::from(settings.hold_ms) };
        Ok(Decision::Event(Event::Held(Held {
            order: ask.order,
            line: ask.line,
            buyer: ask.buyer,
            quantity: ask.quantity,
            unit_price: settings.price,
            deadline: now.plus(patience),
            key: ask.key.map(|KeyUse { key, body }| Key { key, body }),
            placing: ask.placing,
        })))
    }

    fn sellable(&self, now: Millis) -> Result<(), Refusal> {
        match self.sale_state(now) {
            SaleState::Open => Ok(()),
            SaleState::Archived => Err(Refusal::Archived),
            SaleState::Paused => Err(Refusal::Paused),
            SaleState::NotOpen { opens_at } => Err(Refusal::NotOpen { opens_at }),
            SaleState::Closed { closed_at } => Err(Refusal::Closed { closed_at }),
        }
    }

    fn restock(&self, ask: &Restock) -> Result<Decision, Refusal> {
        if let Some(KeyUse { key, body }) = ask.key
            && let Some(first) = self.restocks.get(&key)
        {
            return if *first == body { Ok(Decision::Done) } else { Err(Refusal::KeyReused { order: None }) };
        }
        if ask.delta == 0 {
            return Err(Refusal::NothingToDo);
        }
        let would_be = i64::try_from(self.counts.on_hand).unwrap_or(i64::MAX).saturating_add(ask.delta);
        let promised = self.counts.promised();
        match u64::try_from(would_be) {
            Ok(units) if units > ON_HAND_MAX => Err(Refusal::TooMuchStock { limit: ON_HAND_MAX }),
            Ok(units) if units >= promised => Ok(Decision::Event(Event::Restocked(Restocked {
                delta: ask.delta,
                reason: ask.reason.clone(),
                key: ask.key.map(|KeyUse { key, body }| Key { key, body }),
            }))),
            _ => Err(Refusal::BelowPromised { promised, would_be }),
        }
    }

    fn known(&self, order: OrderId) -> Result<&Record, Refusal> {
        self.orders.get(order).ok_or(Refusal::NoSuchOrder)
    }

    fn place(&self, ask: &Place, now: Millis) -> Result<Decision, Refusal> {
        let home = self.known(ask.order)?;
        match home.state {
            HoldState::Placing if home.deadline > now => Ok(Decision::Event(Event::Placed(Placed {
                order: ask.order,
                buyer: home.buyer,
                deadline: ask.deadline,
                key: home.keyed.then_some(Key { key: home.key, body: home.body }),
                lines: ask.lines.clone(),
            }))),
            HoldState::Placing => Err(Refusal::HoldExpired),
            HoldState::Held | HoldState::Pinned | HoldState::Sold => Ok(Decision::Done),
            state => Err(ended(state)),
        }
    }

    fn keep(&self, order: OrderId, deadline: Millis) -> Result<Decision, Refusal> {
        match self.known(order)?.state {
            HoldState::Placing => Ok(Decision::Event(Event::Kept(Kept { order, deadline }))),
            HoldState::Held | HoldState::Pinned | HoldState::Sold => Ok(Decision::Done),
            state => Err(ended(state)),
        }
    }

    fn pin(&self, order: OrderId, attempt: Attempt, now: Millis) -> Result<Decision, Refusal> {
        let record = self.known(order)?;
        match record.state {
            HoldState::Held if attempt.get() <= record.attempt => Err(Refusal::AttemptOver),
            HoldState::Held if record.deadline > now => {
                Ok(Decision::Event(Event::Pinned(Pinned { order, attempt })))
            }
            HoldState::Held => Err(Refusal::HoldExpired),
            HoldState::Pinned if attempt.get() == record.attempt => Ok(Decision::Done),
            state => Err(ended(state)),
        }
    }

    /// Ends an attempt that has not pinned as well: whoever comes late with its pin is refused.
    fn unpin(&self, order: OrderId, attempt: Attempt, now: Millis) -> Result<Decision, Refusal> {
        let record = self.known(order)?;
        let deadline = match record.state {
            HoldState::Pinned if attempt.get() == record.attempt => {
                record.deadline.max(now.plus(UNPIN_GRACE_MS))
            }
            HoldState::Held if attempt.get() > record.attempt => record.deadline,
            HoldState::Held => return Ok(Decision::Done),
            // A later attempt has pinned since.
            HoldState::Pinned if attempt.get() < record.attempt => return Ok(Decision::Done),
            state => return Err(ended(state)),
        };
        Ok(Decision::Event(Event::Unpinned(Unpinned { order, deadline, attempt })))
    }

    fn confirm(&self, order: OrderId, quantity: Quantity, attempt: Attempt) -> Result<Decision, Refusal> {
        let record = self.known(order)?;
        match record.state {
            HoldState::Pinned if attempt.get() != record.attempt => Err(Refusal::PaymentRunning),
            HoldState::Pinned if quantity <= record.quantity => {
                let (line, held) = (record.line, Some(record.quantity));
                Ok(Decision::Event(Event::Confirmed(Confirmed { order, line, quantity, held })))
            }
            HoldState::Pinned => {
                Err(Refusal::MoreThanHeld { confirmed: quantity.get(), held: record.quantity.get() })
            }
            HoldState::Held => Err(Refusal::NotPinned),
            HoldState::Placing => Err(Refusal::StillPlacing),
            HoldState::Sold if record.quantity == quantity => Ok(Decision::Done),
            state => Err(ended(state)),
        }
    }

    fn release(&self, order: OrderId, cause: Cause, by: u64) -> Result<Decision, Refusal> {
        let record = self.known(order)?;
        let (line, quantity) = (record.line, record.quantity);
        let released = Event::Released(Released { order, line, quantity, cause, by });
        let attempt = u64::from(record.attempt);
        match (record.state, cause) {
            // A payment that failed ends what it has pinned, or what nobody has pinned since it began.
            (HoldState::Held, Cause::PaymentFailed) if by <= attempt => Err(Refusal::AttemptOver),
            // Its order was born, whoever knows nothing of that.
            (HoldState::Held, Cause::NotPlaced) => Err(ended(record.state)),
            (HoldState::Placing | HoldState::Held, _) => Ok(Decision::Event(released)),
            // While a payment runs only its own outcome ends the hold.
            (HoldState::Pinned, Cause::PaymentFailed) if by == attempt => Ok(Decision::Event(released)),
            (HoldState::Pinned, _) => Err(Refusal::PaymentRunning),
            (HoldState::Released(before), _) if before == cause && by != 0 && record.ended_by == by => {
                Ok(Decision::Done)
            }
            (state, _) => Err(ended(state)),
        }
    }

    fn give_back(
        &self,
        order: OrderId,
        quantity: Quantity,
        back: Back,
        why: CameBack,
        by: u64,
    ) -> Result<Decision, Refusal> {
        let record = self.known(order)?;
        if record.state != HoldState::Sold {
            return Err(ended(record.state));
        }
        if record.returns.as_deref().is_some_and(|returns| returns.by.contains(&by)) {
            return Ok(Decision::Done);
        }
        if quantity.get() > record.sold {
            return Err(Refusal::MoreThanSold { returned: quantity.get(), sold: record.sold });
        }
        let (line, to_stock, whole) = (record.line, back == Back::ToStock, quantity.get() == record.sold);
        Ok(Decision::Event(Event::Returned(Returned { order, line, quantity, to_stock, why, by, whole })))
    }
}

/// The refusal for a hold that has ended, or is further than the command can follow.
fn ended(state: HoldState) -> Refusal {
    match state {
        HoldState::Placing => Refusal::StillPlacing,
        HoldState::Held => Refusal::NotPinned,
        HoldState::Pinned => Refusal::PaymentRunning,
        HoldState::Sold => Refusal::AlreadySold,
        HoldState::Released(cause) => Refusal::AlreadyReleased { cause },
        HoldState::Expired => Refusal::HoldExpired,
    }
}
