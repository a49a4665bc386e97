//! Orders: placed, found, cancelled. An order of one line is its hold; one of several lines is born at its home.
//!
//! It owns nothing but the way: stock is decided by the products' owners, keys by the ledger of the order's home,
//! and what is flushed is read from the tables. Always true: what was acknowledged is found at once by its id.

mod address;
mod ending;
mod lookup;
mod placement;
mod reason;
mod sight;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use ending::TOLD_LATER_MAX;

pub use address::{Addresses, NotAddressed};
pub use lookup::{LookUp, LookedUp};
pub use placement::{Item, Next, Placed, Placement, word_of_home};

use crate::actors::flusher::FlushHandle;
use crate::actors::stock::{Answer, Ask, Claim, Directory, NotDone, Receipt, Used, to_the_end};
use crate::domain::amount::Money;
use crate::domain::id::{OrderId, ProductId, UserId};
use crate::domain::order::{Line, LineStatus, Order, OrderStatus};
use crate::domain::stock::{
    Command, Fingerprint, HoldState, KeyUse, Millis, OrderView, Refusal, Refused, Reserve, Sequence,
};
use crate::logs::carried;
use crate::persistence::order::OrderReader;

/// How long a list waits for the tables to catch up before it shows what is there.
const CATCH_UP: Duration = Duration::from_millis(500);
/// How long somebody waits who wants all of them.
const ALL_LISTED: Duration = Duration::from_secs(5);

/// What a buyer asks for.
#[derive(Debug, Clone)]
pub struct PlaceOrder {
    pub buyer: UserId,
    /// One to fifty lines, each of another product.
    pub items: Vec<Item>,
    pub key: Option<KeyUse>,
    /// The key was made up for this order a moment ago: nobody can have used it, and nobody hears of it.
    pub is_made_up: bool,
    pub expected_total: Option<Money>,
}

impl PlaceOrder {
    /// The key, if somebody has sent it.
    fn sent_key(&self) -> Option<KeyUse> {
        self.key.filter(|_| !self.is_made_up)
    }
}

/// The order that stands, and whether the key had made it before.
#[derive(Debug, Clone)]
pub struct PlacedOrder {
    pub order: Order,
    pub replayed: bool,
}

/// Places, finds and cancels orders. Cheap to clone.
#[derive(Clone)]
pub struct Orders(Arc<Inner>);

struct Inner {
    directory: Directory,
    reader: OrderReader,
    flush: FlushHandle,
    addresses: Addresses,
    /// Places for orders whose lines are told of their end.
    telling: Arc<Semaphore>,
}

fn refused(product: ProductId, why: Refusal) -> NotDone {
    NotDone::Refused { product, refused: Refused { at: Sequence(0), why } }
}

impl Orders {
    pub fn new(
        directory: Directory,
        reader: OrderReader,
        flush: FlushHandle,
        addresses: Addresses,
    ) -> Orders {
        let telling = Arc::new(Semaphore::new(TOLD_LATER_MAX));
        Orders(Arc::new(Inner { directory, reader, flush, addresses, telling }))
    }

    /// Holds every line or none, in order of arrival at each product.
    pub fn place(&self, ask: PlaceOrder) -> impl Future<Output = Result<PlacedOrder, NotDone>> + '_ {
        let order = self.new_id(&ask.items);
        self.place_as(order, ask)
    }

    /// An id for an order of these lines that is yet to be placed.
    pub fn new_id(&self, items: &[Item]) -> OrderId {
        let house = self.0.directory.house();
        let (now, chance) = (house.clock.now(), house.clock.chance());
        let home = items.iter().map(|item| item.product).min();
        OrderId::for_home(now, chance, home.unwrap_or(ProductId::from_bytes([0; 16])))
    }

    /// The same under an id that was made for it before: something may have been written down under it.
    pub async fn place_as(&self, order: OrderId, ask: PlaceOrder) -> Result<PlacedOrder, NotDone> {
        let (buyer, key) = (ask.buyer, ask.sent_key().map(|key| key.key));
        self.place_keyed(order, ask).await.map_err(|why| self.turned_away(buyer, key, why))
    }

    /// What somebody hears for whom nothing is done this time. If another request of his with this key has an order, or may be about to
    /// have one, that is no word about it; nor is it where it may have one of which nobody has heard here.
    pub fn turned_away(&self, buyer: UserId, key: Option<[u8; 16]>, why: NotDone) -> NotDone {
        let keys = &self.0.directory.house().keys;
        let used = key.map_or(Used::Never, |key| keys.used(Fingerprint::of(buyer, key)));
        if matches!(used, Used::For(_) | Used::Unheard) { why.after_all() } else { why }
    }

    async fn place_keyed(&self, order: OrderId, ask: PlaceOrder) -> Result<PlacedOrder, NotDone> {
        let Some(home) = ask.items.iter().map(|item| item.product).min() else {
            return Err(NotDone::Internal);
        };
        let claim = match self.key_of(&ask, home, order).await? {
            Key::New(claim) => claim,
            Key::Replay(order) => return Box::pin(self.replay(ask.buyer, order)).await,
        };
        // What is rare is boxed: every order carries the room for the largest of its branches.
        match ask.items.as_slice() {
            [item] => self.place_one(*item, &ask, order, claim).await,
            _ => Box::pin(self.place_many(ask, order, claim)).await,
        }
    }

    /// The order that a buyer's key has made, if this was its request. Nothing is claimed: whoever needs the key for himself
    /// places an order.
    pub async fn of_key(&self, buyer: UserId, key: KeyUse) -> Result<Option<OrderId>, NotDone> {
        let keys = &self.0.directory.house().keys;
        // Whichever product it was: it is named to nobody.
        let (print, nobodys) = (Fingerprint::of(buyer, key.key), ProductId::from_bytes([0; 16]));
        let made = match keys.used(print) {
            Used::Never => return Ok(None),
            Used::For(product) => self.made_before(buyer, key, print, product, product).await,
            Used::Perhaps => self.made_long_ago(buyer, key, nobodys).await,
            Used::Unheard => Err(refused(nobodys, Refusal::KeyInProgress)),
        };
        made.map_err(NotDone::after_all)
    }

    /// Who the key belongs to. A key that was used, or is being used, for another product's order is asked about
    /// there: one key never makes two orders.
    async fn key_of(&self, ask: &PlaceOrder, home: ProductId, order: OrderId) -> Result<Key, NotDone> {
        let (directory, keys) = (&self.0.directory, &self.0.directory.house().keys);
        let print = ask.key.map(|key| Fingerprint::of(ask.buyer, key.key));
        if let [item] = ask.items.as_slice()
            && let Err(refusal) = directory.refuse_from_view(item.product, &one_line(*item, ask, order))
        {
            // The common case of a rush: it is over, and the published view proves it.
            let sent = ask.sent_key();
            let used = sent.and(print).map_or(Used::Never, |print| keys.used(print));
            match (used, sent) {
                (Used::Never, _) => return Err(refusal),
                (Used::Perhaps, Some(key)) => {
                    let before = Box::pin(self.made_long_ago(ask.buyer, key, home)).await;
                    return before
                        .map_err(NotDone::after_all)?
                        .map_or(Err(refusal), |order| Ok(Key::Replay(order)));
                }
                _ => {}
            }
        }
        let (Some(print), Some(key)) = (print, ask.key) else { return Ok(Key::New(None)) };
        match keys.claim(print, home, order.made_at()) {
            Ok(claim) if ask.is_made_up => Ok(Key::New(Some(claim))),
            Ok(claim) => match claim.before() {
                Used::Never => Ok(Key::New(Some(claim))),
                Used::For(_) => Box::pin(self.key_again(ask.buyer, key, print, home, claim)).await,
                Used::Perhaps => Box::pin(self.key_long_ago(ask.buyer, key, home, claim)).await,
                Used::Unheard => Err(refused(home, Refusal::KeyInProgress)),
            },
            Err(other) => Box::pin(self.key_elsewhere(ask, key, print, home, (other, order.made_at()))).await,
        }
    }

    /// The key was used for an order that has the same home. Its ledger is not simply asked for another one: it may have forgotten the
    /// first.
    async fn key_again(
        &self,
        buyer: UserId,
        key: KeyUse,
        print: Fingerprint,
        home: ProductId,
        claim: Claim,
    ) -> Result<Key, NotDone> {
        let Some(before) = self.made_before(buyer, key, print, home, home).await? else {
            return Ok(Key::New(Some(claim)));
        };
        // It was made, whoever cannot show it at the moment.
        match self.0.directory.order(home, before).await.map_err(NotDone::after_all)? {
            Answer::Order(Some(seen)) if seen.state == HoldState::Placing => {
                Err(refused(home, Refusal::KeyInProgress))
            }
            _ => Ok(Key::Replay(before)),
        }
    }

    /// An order that was made over a week ago may have used the key.
    async fn key_long_ago(
        &self,
        buyer: UserId,
        key: KeyUse,
        home: ProductId,
        claim: Claim,
    ) -> Result<Key, NotDone> {
        let before = self.made_long_ago(buyer, key, home).await.map_err(NotDone::after_all)?;
        Ok(before.map_or(Key::New(Some(claim)), Key::Replay))
    }

    /// The key was used for an order that has another home, or is being used for one. If there is none it is free. It is claimed for that
    /// home as long as that is asked: an order that is made there meanwhile is not overlooked.
    async fn key_elsewhere(
        &self,
        ask: &PlaceOrder,
        key: KeyUse,
        print: Fingerprint,
        home: ProductId,
        (other, made_at): (ProductId, Millis),
    ) -> Result<Key, NotDone> {
        let keys = &self.0.directory.house().keys;
        let claim =
            |product| keys.claim(print, product, made_at).map_err(|_| refused(home, Refusal::KeyInProgress));
        let there = claim(other)?;
        if let Some(order) = self.made_before(ask.buyer, key, print, other, home).await? {
            return Ok(Key::Replay(order));
        }
        there.set_free();
        Ok(Key::New(Some(claim(home)?)))
    }

    /// The order that this very request has made. Another one's key is refused, in the name of the home that is asked for now. There is none
    /// only if everything had been heard before anybody was asked: of what is learned meanwhile the answers may know nothing yet.
    async fn made_before(
        &self,
        buyer: UserId,
        key: KeyUse,
        print: Fingerprint,
        at: ProductId,
        home: ProductId,
    ) -> Result<Option<OrderId>, NotDone> {
        let all_are_heard = self.0.directory.house().keys.owners_are_heard();
        match same_request(self.known_at(buyer, key.key, print, at).await?, key, home)? {
            None if !all_are_heard => Err(refused(home, Refusal::KeyInProgress)),
            made => Ok(made),
        }
    }

    /// The same of an order that was made over a week ago: the tables show it.
    async fn made_long_ago(
        &self,
        buyer: UserId,
        key: KeyUse,
        home: ProductId,
    ) -> Result<Option<OrderId>, NotDone> {
        same_request(self.as_tables_stand(buyer, key.key).await?, key, home)
    }

    /// The order of a key and the hash of its request. Asks the ledger of this product first. A key that it has forgotten, a clash of
    /// fingerprints, an order that was never born: then the tables know.
    async fn known_at(
        &self,
        buyer: UserId,
        key: [u8; 16],
        print: Fingerprint,
        product: ProductId,
    ) -> Result<Option<(OrderId, u64)>, NotDone> {
        let (directory, keys) = (&self.0.directory, &self.0.directory.house().keys);
        // Before the ledger is asked: a reservation that waits there may be decided behind this question, and kept before its answer is heard.
        let is_kept = keys.is_kept(print);
        match directory.send(product, Ask::OrderOfKey { buyer, key }).await? {
            Answer::OrderOfKey(Some(known)) => Ok(Some(known)),
            Answer::OrderOfKey(None) if is_kept => self.key_in_tables(buyer, key).await,
            _ => Err(refused(product, Refusal::KeyInProgress)),
        }
    }

    /// That a key has made no order is said by the tables alone, when they show everything: its ledger may have forgotten it.
    async fn key_in_tables(&self, buyer: UserId, key: [u8; 16]) -> Result<Option<(OrderId, u64)>, NotDone> {
        if let Some(known) = self.as_tables_stand(buyer, key).await? {
            return Ok(Some(known));
        }
        self.tables_show_all().await?;
        self.as_tables_stand(buyer, key).await
    }

    async fn as_tables_stand(&self, buyer: UserId, key: [u8; 16]) -> Result<Option<(OrderId, u64)>, NotDone> {
        self.0.reader.by_key(buyer, key).await.map_err(|_| NotDone::Unavailable)
    }

    async fn replay(&self, buyer: UserId, order: OrderId) -> Result<PlacedOrder, NotDone> {
        // It stands, whoever cannot show it at the moment.
        let order = self.find(buyer, order).await.map_err(NotDone::after_all)?.ok_or(NotDone::Unknown)?;
        Ok(PlacedOrder { order, replayed: true })
    }

    async fn place_one(
        &self,
        item: Item,
        ask: &PlaceOrder,
        order: OrderId,
        claim: Option<Claim>,
    ) -> Result<PlacedOrder, NotDone> {
        let reserve = one_line(item, ask, order);
        match self.0.directory.reserve(item.product, reserve, claim).await? {
            Answer::Reserved(receipt) => {
                Ok(PlacedOrder { order: order_of_one(ask.buyer, &receipt)?, replayed: false })
            }
            Answer::Replayed(order) => Box::pin(self.replay(ask.buyer, order)).await,
            _ => Err(NotDone::Internal),
        }
    }

    /// Runs on when the buyer hangs up: half an order is never left behind by that.
    async fn place_many(
        &self,
        ask: PlaceOrder,
        order: OrderId,
        claim: Option<Claim>,
    ) -> Result<PlacedOrder, NotDone> {
        let orders = self.clone();
        to_the_end(async move { orders.run_placement(ask, order, claim).await }).await
    }

    async fn run_placement(
        &self,
        ask: PlaceOrder,
        order: OrderId,
        mut claim: Option<Claim>,
    ) -> Result<PlacedOrder, NotDone> {
        let directory = &self.0.directory;
        let clock = &directory.house().clock;
        if let Some(claim) = &mut claim {
            claim.in_doubt();
        }
        let mut placement = Placement::new(order, ask.buyer, ask.items, ask.key, ask.expected_total);
        let mut next = placement.start();
        let placed = loop {
            match next {
                Next::Done(placed) => break placed,
                Next::Ask(product, command) => {
                    let reply = match command {
                        Command::Reserve(reserve) => directory.reserve(product, reserve, None).await,
                        other => directory.ask(product, other).await,
                    };
                    next = placement.heard(reply, clock.now());
                }
            }
        };
        if let Some(mut claim) = claim {
            claim.settle(matches!(&placed, Ok(Placed::Born { .. }) | Err(NotDone::Unknown)));
        }
        match placed? {
            Placed::Before(order) => self.replay(ask.buyer, order).await,
            Placed::Born { order, deadline, lines, keep } => {
                for (product, command) in keep {
                    let directory = directory.clone();
                    // What gets lost here is asked for again when the placing is due.
                    actix::spawn(carried(async move { directory.ask(product, command).await }));
                }
                let order = sight::born(order, ask.buyer, deadline, &lines).ok_or(NotDone::Internal)?;
                Ok(PlacedOrder { order, replayed: false })
            }
        }
    }

    /// The buyer's order as it is now, flushed or not; `None` if there is none, or it is somebody else's.
    pub async fn find(&self, buyer: UserId, order: OrderId) -> Result<Option<Order>, NotDone> {
        let found = self.look(order).await?;
        Ok(found.filter(|order| order.buyer == buyer))
    }

    /// An order whose last line was sold a moment ago, as it is now.
    pub fn just_sold(&self, order: Order) -> Order {
        let as_of = self.0.directory.peek(order.home).map(|view| view.as_of);
        let mut sold = Order { status: OrderStatus::Paid, ..order };
        sold.updated_at = as_of.map_or(sold.updated_at, |as_of| as_of.max(sold.updated_at));
        for line in &mut sold.lines {
            line.status = LineStatus::Ordered;
        }
        sold
    }

    /// Anybody's order as it is now, for those who work here. That there is none is said by the tables alone, when they show everything: its
    /// owner may have gone to another node, or to rest, before its row was written, or its product may stand still.
    pub async fn look(&self, order: OrderId) -> Result<Option<Order>, NotDone> {
        if let Some(found) = self.look_once(order).await? {
            return Ok(Some(found));
        }
        self.tables_show_all().await?;
        self.look_once(order).await
    }

    /// Only then do the tables say that there is no such thing.
    async fn tables_show_all(&self) -> Result<(), NotDone> {
        if self.0.flush.caught_up(CATCH_UP).await { Ok(()) } else { Err(NotDone::Unavailable) }
    }

    async fn look_once(&self, order: OrderId) -> Result<Option<Order>, NotDone> {
        let directory = &self.0.directory;
        let row = self.0.reader.find(order).await.map_err(|_| NotDone::Unavailable)?;
        let at_home = match &row {
            Some(row) => self.at_home(row).await?,
            None => directory.find(order).await?,
        };
        if let Some(view) = at_home
            && let Some(mut seen) = sight::of_view(&view)
        {
            seen.updated_at = directory.peek(view.product).map_or(seen.created_at, |view| view.as_of);
            self.see_lines(&mut seen).await?;
            return Ok(Some(sight::latest(row, seen)));
        }
        let Some(row) = row else { return Ok(None) };
        let mut seen = row.clone();
        self.see_lines(&mut seen).await?;
        Ok(Some(sight::latest(Some(row), seen)))
    }

    /// What the home of an order knows beyond its row. It does not rest while its hold stands unpaid: if it rests all the same money moves,
    /// or the tables are far behind, and then it is asked.
    async fn at_home(&self, row: &Order) -> Result<Option<Box<OrderView>>, NotDone> {
        let directory = &self.0.directory;
        let known = directory.known_at(row.home, row.id).await?;
        if known.is_some() || row.status != OrderStatus::PendingPayment {
            return Ok(known);
        }
        match directory.order(row.home, row.id).await? {
            Answer::Order(view) => Ok(view),
            _ => Err(NotDone::Internal),
        }
    }

    /// Whether the tables show it.
    pub async fn has_row(&self, order: OrderId) -> Result<bool, NotDone> {
        let row = self.0.reader.find(order).await.map_err(|_| NotDone::Unavailable)?;
        Ok(row.is_some())
    }

    /// Looks at the lines that are not at the order's home, where their owners are loaded.
    async fn see_lines(&self, seen: &mut Order) -> Result<(), NotDone> {
        let directory = &self.0.directory;
        for line in seen.lines.iter_mut().filter(|line| line.product != seen.home) {
            if let Some(view) = directory.known_at(line.product, seen.id).await? {
                (line.status, line.quantity) = (sight::line_status(&view), view.quantity);
            }
        }
        Ok(())
    }

    /// Waits until every order that was acknowledged is in the lists.
    pub async fn all_listed(&self) -> Result<(), NotDone> {
        match self.0.flush.caught_up(ALL_LISTED).await {
            true => Ok(()),
            false => Err(NotDone::Unavailable),
        }
    }

    /// The buyer's orders, newest first. In a rush the newest may be missing for a moment; each is there by its id.
    pub async fn list(
        &self,
        buyer: UserId,
        status: Option<OrderStatus>,
        before: Option<OrderId>,
        limit: u32,
    ) -> Result<Vec<Order>, NotDone> {
        self.0.flush.caught_up(CATCH_UP).await;
        self.0.reader.list(buyer, status, before, limit).await.map_err(|_| NotDone::Unavailable)
    }
}

/// The order of a key, if this was its request.
fn same_request(
    known: Option<(OrderId, u64)>,
    key: KeyUse,
    home: ProductId,
) -> Result<Option<OrderId>, NotDone> {
    match known {
        Some((order, body)) if body == key.body => Ok(Some(order)),
        Some((order, _)) => Err(refused(home, Refusal::KeyReused { order: Some(order) })),
        None => Ok(None),
    }
}

enum Key {
    New(Option<Claim>),
    Replay(OrderId),
}

fn one_line(item: Item, ask: &PlaceOrder, order: OrderId) -> Reserve {
    Reserve {
        order,
        line: 1,
        buyer: ask.buyer,
        quantity: item.quantity,
        key: ask.key,
        expected: ask.expected_total,
        placing: None,
    }
}

fn order_of_one(buyer: UserId, receipt: &Receipt) -> Result<Order, NotDone> {
    let line = Line {
        line: receipt.line,
        product: receipt.product,
        quantity: receipt.quantity,
        unit_price: receipt.unit_price,
        sequence: receipt.sequence,
        status: LineStatus::Held,
    };
    let created_at = receipt.order.made_at();
    Ok(Order {
        id: receipt.order,
        buyer,
        home: receipt.product,
        status: OrderStatus::PendingPayment,
        total: receipt.unit_price.times(receipt.quantity).ok_or(NotDone::Internal)?,
        lines: vec![line],
        hold_expires_at: receipt.deadline,
        created_at,
        updated_at: created_at,
        version: 1,
    })
}
